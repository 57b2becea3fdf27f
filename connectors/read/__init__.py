"""Reading a connector as a Beam source: planned, claimed in blocks, read ahead."""
