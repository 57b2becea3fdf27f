"""Tables and queries of SQL databases, read as Arrow columns through ADBC."""
