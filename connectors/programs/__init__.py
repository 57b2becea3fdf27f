"""Connectors that other programs are: those of Airbyte and of Singer."""
