"""Notion: its pages, rows, comments and files, read through its HTTP API."""
