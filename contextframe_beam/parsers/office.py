"""What DOCX and PPTX share: opening the package within limits, and what it states about itself."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from contextframe_beam.parsers.archive import Archive
from contextframe_beam.parsers.contract import Limits, ParseError
from contextframe_beam.parsers.text import as_metadata


def opened(data: bytes, kind: str, part: str, limits: Limits, open_: Callable[[Any], Any]) -> Any:
    """Returns what a library makes of an Office file.

    Args:
        data: The bytes of the file.
        kind: What it should be, for messages.
        part: A part that each file of this kind has.
        limits: What it may unpack to.
        open_: The library's function, which takes an open file.

    Raises:
        ParseError: the file is damaged, protected, of another kind, or unpacks to too much.
    """
    if not data:
        raise ParseError("it is empty: 0 bytes")
    archive = Archive(data, kind, limits)
    if part not in archive and "[Content_Types].xml" not in archive:
        raise ParseError(f"it is not {kind}: the archive lacks {part}")
    try:
        return open_(io.BytesIO(archive.unpacked()))
    except (ParseError, MemoryError):
        raise
    except Exception as error:
        raise ParseError(f"it is damaged, or not {kind} ({type(error).__name__})") from None


def stated(properties: Any) -> tuple[str | None, dict[str, Any]]:
    """Returns title and metadata that the core properties of an Office file state."""
    values = {}
    for name, key in (
        ("author", "author"),
        ("keywords", "tags"),
        ("subject", "description"),
        ("language", "language"),
        ("created", "created_at"),
        ("modified", "modified_at"),
    ):
        values[key] = _or_none(properties, name)
    return _or_none(properties, "title") or None, as_metadata(
        {key: value for key, value in values.items() if value}
    )


def _or_none(properties: Any, name: str) -> Any:
    try:
        return getattr(properties, name)
    except Exception:  # not a valid date; the text matters more
        return None


def emphasised(text: str, mark: str) -> str:
    """Returns text between marks of emphasis, with its outer blanks outside of them."""
    inner = text.strip()
    if not inner:
        return text
    start = text.index(inner)
    return text[:start] + mark + inner + mark + text[start + len(inner) :]
