"""The store: a Lance dataset of frames, its transactions, its versions and its state."""
