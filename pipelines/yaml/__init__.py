"""Beam YAML: sources and transforms for pipelines without Python."""
