"""Streams of records that connectors of others give, each with a key and perhaps a cursor."""
