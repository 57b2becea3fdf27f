"""Sources and transforms for Beam YAML, to write pipelines without Python."""
