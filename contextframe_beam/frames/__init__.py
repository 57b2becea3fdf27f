"""Frames: documents as records, records as rows of a schema, and back without loss."""
