"""What a parser is given and may raise: how much a file may cost, libraries, and errors."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any

from contextframe_beam.errors import ConfigError, ContextFrameError
from contextframe_beam.lazy import missing_extra

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What a file may cost; one that costs more is refused with a `ParseError`.

    Attributes:
        max_file_bytes: The size of the file itself.
        max_unpacked_bytes: What an archive (DOCX, XLSX, EPUB) may unpack to, and the size of the
            text that comes out, in bytes.
        max_nesting: How deep the parts of a mail may stand in each other. Tags of HTML may be 1,000
            deep, elements of XML 256, and values of JSON 1,024, as their libraries have it.
        timeout: Seconds that parsing may take, by the clock.
        max_memory_bytes: The address space of a process that parses. Where the system cannot limit
            it (macOS), the other limits still hold.

    Raises:
        ConfigError: a limit is not above zero.
    """

    max_file_bytes: int = 100 * MIB
    max_unpacked_bytes: int = 256 * MIB
    max_nesting: int = 50
    timeout: float = 60.0
    max_memory_bytes: int = 1024 * MIB

    def __post_init__(self) -> None:
        for one in fields(self):
            if not getattr(self, one.name) > 0:
                raise ConfigError(f"{one.name} has to be above zero, not {getattr(self, one.name)}")


def in_words(count: float) -> str:
    """Returns a number of bytes as people say it: `12 KB`, `3.4 MB`."""
    if count < 1_000:
        return f"{count:.0f} bytes"
    for unit in ("KB", "MB"):
        count /= 1_000
        if count < 1_000:
            return f"{count:.{0 if count >= 10 else 1}f} {unit}"
    return f"{count / 1_000:.1f} GB"


def library(name: str) -> Any:
    """Returns a module of a library of the extra `documents`, when the first file needs it.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise missing_extra("parsing it", "documents", error) from error


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
