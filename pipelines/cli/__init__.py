"""The command line, `contextframe-beam`."""
