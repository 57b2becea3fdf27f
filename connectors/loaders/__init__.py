"""Document loaders of other libraries as sources."""
