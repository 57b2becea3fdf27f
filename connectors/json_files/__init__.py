"""The files of the `json` connector: which there are, and what is in them."""
