"""Frames: turns documents into records, records into rows of a schema, and back without loss."""
