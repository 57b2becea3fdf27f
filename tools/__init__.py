"""What developers run in a checkout: the demo, and the installer of engines."""
