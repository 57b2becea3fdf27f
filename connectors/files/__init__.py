"""Files in folders and object stores: how they are listed, read in one version, and remembered."""
