"""What no stored text holds is taken out here, for each parser, also those of users.

Carriage returns, control characters, replacement characters, halves of surrogate pairs, colours of
terminals, and pictures that are written into the text as `data:` URLs. Places in the text, such as
those of headings and pages, move along.
"""

from __future__ import annotations

import bisect
import datetime
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from contextframe_beam.frames.document import Document, Heading
from contextframe_beam.parsers.contract import ParseError

_UNWANTED = re.compile(
    r"\r\n?|[\x0b\x0c\x85]|\x1b\[[0-9;?]*[ -/]*[@-~]"
    r"|[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff\ufffd-\uffff\ud800-\udfff]+"
)
_LINE_ENDS = {"\r\n", "\r", "\x0b", "\x0c", "\x85"}
# https://www.rfc-editor.org/rfc/rfc2397, written as pages, style sheets and Markdown have it:
# Base64 may go on over lines, and a picture in SVG may stand there as it is.
_DATA_URL = re.compile(
    r"data:(?:[a-z]+/[\w.+-]+|(?=;base64))(?:;[\w.+-]+(?:=[\w.+\"-]+)?)*,(?:"
    r"\s{0,80}(?:<|%3c)svg\b.{0,1000000}?(?:</|%3c/|%3c%2f)svg(?:>|%3e)"
    r"|(?<=;base64,)\s{0,80}(?:[a-z0-9+/=_-]|%[0-9a-f]{2}|\\?\s{1,80}(?=[a-z0-9+/]{40}))+"
    r"|(?<!;base64,)[^\s\"'()<>\[\]`\\]+)",
    re.IGNORECASE | re.DOTALL,
)
_MAY_HOLD_DATA = ("data:", "DATA:", "Data:")


def cleaned(document: Document) -> Document:
    """Returns a document without what no stored text holds; the same one if there was none."""
    text = document.text
    if not document.headings and not document.pages and "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")  # no place has to move along
    text, moved = _without(text, _UNWANTED)
    places = [moved]
    if any(one in text for one in _MAY_HOLD_DATA):
        text, moved = _without(text, _DATA_URL)
        places.append(moved)
    headings = [
        Heading(_moved(one.offset, places, len(text)), one.level, line(one.title))
        for one in document.headings
    ]
    return replace(
        document,
        text=text,
        title=line(document.title or "") or None,
        headings=tuple(one for one in headings if one.title),
        pages=tuple(_moved(one, places, len(text)) for one in document.pages),
        metadata=as_json(document.metadata),
    )


def clean_text(text: str) -> str:
    """Returns text without what no stored text holds."""
    text = _without(text, _UNWANTED)[0]
    return _DATA_URL.sub("", text) if any(one in text for one in _MAY_HOLD_DATA) else text


def line(text: str) -> str:
    """Returns text as one clean line, as titles and names are."""
    return " ".join(clean_text(text).split())


_Moves = tuple[list[int], list[int]]


def _without(text: str, pattern: re.Pattern[str]) -> tuple[str, _Moves]:
    """Returns text without the matches, and by how much each place after one moves."""
    kept, ends, shifts, last, shift = [], [], [], 0, 0
    for match in pattern.finditer(text):
        new = "\n" if match.group() in _LINE_ENDS else ""
        kept += [text[last : match.start()], new]
        last = match.end()
        shift += last - match.start() - len(new)
        ends.append(last)
        shifts.append(shift)
    if not ends:
        return text, ([], [])
    return "".join([*kept, text[last:]]), (ends, shifts)


def _moved(place: int, places: Iterable[_Moves], length: int) -> int:
    for ends, shifts in places:
        before = bisect.bisect_right(ends, place)
        place -= shifts[before - 1] if before else 0
    return max(0, min(place, length))


_MOST_VALUES = 10_000
_DEEPEST = 20


def as_json(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Returns metadata as JSON has it: dates as text, no empty values, clean text.

    Raises:
        ParseError: there are more than 10,000 values, or they are nested more than 20 deep, as in
            a text that was made to be a trap.
    """
    left = [_MOST_VALUES]
    return {
        key: value
        for key, value in _as_json(values, left, 0).items()
        if value is not None and value != "" and value != [] and value != {}
    }


def _as_json(value: Any, left: list[int], depth: int) -> Any:
    left[0] -= 1
    if left[0] < 0 or depth > _DEEPEST:
        raise ParseError(
            f"its metadata has more than {_MOST_VALUES:,} values or is nested more than "
            f"{_DEEPEST} deep"
        )
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value) if abs(value) < 10**30 else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {line(str(key)): _as_json(one, left, depth + 1) for key, one in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [_as_json(one, left, depth + 1) for one in value]
    return None if isinstance(value, bytes) else clean_text(str(value))
