"""Tests of the translation of what other programs say of a source."""
