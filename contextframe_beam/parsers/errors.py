"""What can go wrong with a file that is to become a document."""

from __future__ import annotations

from contextframe_beam.errors import ContextFrameError


class ParseError(ContextFrameError, ValueError):
    """A file that cannot be parsed. The message says why, and never holds what the file holds."""


class DamagedTextError(ParseError):
    """A text that is UTF-8 but for a few bytes."""


class NoTextError(ParseError):
    """A file that can be read but has no text, such as a scanned page."""


class OutOfMemory(ParseError):
    """A file whose parsing needs more memory than it may have."""


class UnknownTypeError(ContextFrameError, ValueError):
    """A file of a type without a parser. It is not a failure: callers count it as skipped."""
