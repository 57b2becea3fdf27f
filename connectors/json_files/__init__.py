"""Files of JSON: how they are listed, and which lines a block of bytes holds."""
