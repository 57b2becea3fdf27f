"""Where a large CSV file can be cut: at the beginnings of records, although values have newlines.

Whether a newline ends a record depends on all quotes before it. So the whole file is looked
through once, which takes a small part of the time that reading it takes. A quote opens a value only
at its beginning and closes it only at its end. As long as that holds for each quote of a file,
every second one closes, and a newline ends a record if the number of quotes before it is even.
Where it does not hold, as in `5" nails`, the file is read from its beginning by one worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from contextframe_beam.connectors.files.listing import ReadAt

_CHUNK_BYTES = 4 << 20
_NEWLINE = ord("\n")
_RETURN = ord("\r")
_Array: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.intp]]"


@dataclass(frozen=True, slots=True)
class Cut:
    """The beginning of a record.

    Attributes:
        offset: Where its first byte is in the file.
        line: The number of the line there, where the first line of the file is 1.
    """

    offset: int
    line: int


def cuts_of(
    chunks: Iterable[bytes], start: Cut, step: int, delimiter: bytes, quote: bytes
) -> list[Cut] | None:
    """Returns beginnings of records: `start`, and the first at or after each multiple of `step`.

    Args:
        chunks: The bytes of the file from `start` on.
        start: The beginning of the first record.
        step: How far apart they are, about.
        delimiter: The byte between values.
        quote: The byte around values; empty if values have no quotes.

    Returns:
        None if quotes stand where they should not, so that nothing is certain.
    """
    found = [start]
    offset, line = start.offset, start.line
    is_inside, last = False, b"\n"
    before = {delimiter[0], _NEWLINE, _RETURN, *quote}
    for chunk in chunks:
        quotes = _places(chunk, quote) if quote and quote in chunk else None
        if quote and not _are_sound(chunk, quotes, is_inside, last, quote, before):
            return None
        wanted = _after(found[-1].offset, step)
        while wanted <= offset + len(chunk):
            end = _record_end(chunk, max(wanted - offset - 1, 0), quotes, is_inside)
            if end is None:
                break
            at = offset + end + 1
            lines = line + chunk.count(b"\n", 0, end + 1)
            found.append(Cut(at, lines))
            wanted = _after(at, step)
        offset += len(chunk)
        line += chunk.count(b"\n")
        if quotes is not None:
            is_inside ^= bool(len(quotes) % 2)
        last = chunk[-1:] or last
    return None if is_inside else found


def _after(offset: int, step: int) -> int:
    """Returns the first multiple of a step behind an offset."""
    return (offset // step + 1) * step


def chunks_of(read: ReadAt, start: int, stop: int, size: int = _CHUNK_BYTES) -> Iterator[bytes]:
    """Yields the bytes of a range of a file in chunks."""
    for offset in range(start, stop, size):
        yield read(offset, min(size, stop - offset))


def record_places(data: bytes, start: Cut, numbers: Iterable[int], quote: bytes) -> list[Cut]:
    """Returns where records begin, for bytes whose quotes are sound.

    Args:
        data: The bytes, from the beginning of a record on.
        start: Where they begin.
        numbers: Which records, counted from 1 without empty lines.
        quote: The byte around values, or nothing.
    """
    ends = _places(data, b"\n")
    if quote and quote in data:
        inside = np.searchsorted(_places(data, quote), ends) % 2
        ends = ends[inside == 0]
    starts = np.concatenate([[0], ends + 1])
    stops = np.concatenate([ends, [len(data)]])
    full = [
        int(begin)
        for begin, end in zip(starts.tolist(), stops.tolist(), strict=True)
        if data[begin:end].strip(b"\r")
    ]
    places = [full[number - 1] if number <= len(full) else len(data) for number in numbers]
    return [Cut(start.offset + at, start.line + data.count(b"\n", 0, at)) for at in places]


def _places(chunk: bytes, sign: bytes) -> _Array:
    return np.flatnonzero(np.frombuffer(chunk, np.uint8) == sign[0])


def _are_sound(
    chunk: bytes,
    quotes: _Array | None,
    is_inside: bool,
    last: bytes,
    quote: bytes,
    before: set[int],
) -> bool:
    """Returns whether each quote opens at the beginning of a value, or closes at its end."""
    allowed = np.zeros(256, np.bool_)
    allowed[list(before)] = True
    # The last chunk may have ended with a quote that closes a value.
    if last == quote and not is_inside and chunk and not allowed[chunk[0]]:
        return False
    if quotes is None:
        return True
    data = np.frombuffer(chunk, np.uint8)
    closes = (np.arange(len(quotes)) + is_inside) % 2 == 1
    opening, closing = quotes[~closes], quotes[closes]
    behind = np.concatenate([np.frombuffer(last, np.uint8), data])[opening]
    following = data[np.minimum(closing + 1, len(data) - 1)]
    following = following[closing < len(data) - 1]
    return bool(allowed[behind].all() and allowed[following].all())


def _record_end(chunk: bytes, start: int, quotes: _Array | None, is_inside: bool) -> int | None:
    """Returns the place of the first newline at or after `start` that ends a record."""
    if quotes is None:
        found = -1 if is_inside else chunk.find(b"\n", start)
        return None if found < 0 else found
    at = chunk.find(b"\n", start)
    while at >= 0:
        passed = int(np.searchsorted(quotes, at))
        if (passed + is_inside) % 2 == 0:
            return at
        # Inside of a value: go on behind the quote that closes it.
        if passed == len(quotes):
            return None
        at = chunk.find(b"\n", int(quotes[passed]))
    return None
