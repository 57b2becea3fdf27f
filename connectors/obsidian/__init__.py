"""Obsidian vaults: notes with their properties, tags and links, canvases, attachments."""
