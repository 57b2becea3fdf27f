"""Files of JSON: how they are cut, and which lines a block of bytes holds."""
