"""JSON documents and JSON Lines as bytes: which lines a block holds, and what they say.

A large file is read in blocks of bytes. A line belongs to the block that holds its first byte, so
blocks can be read in any order, by anyone, and each line is read exactly once. Nothing here knows
where the bytes come from; `json_file.py` opens files.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Protocol, TypeAlias

import msgspec
import numpy as np
import orjson

from contextframe_beam.errors import ConnectorError

#: What is claimed at once: some 1000 documents of ordinary size.
BLOCK_BYTES = 1 << 20

#: What is read at once from a local disk. Measured: up to 256 KiB a document costs 2.0 us, from
#: 512 KiB on 2.5 us, because the bytes have left the processor's cache when they are parsed.
CACHED_BYTES = 256 << 10

#: How much of a document that is too large is kept with its failure, in characters.
HEAD_CHARACTERS = 1000

#: Documents up to this size are kept whole with their failure, in bytes.
KEPT_WHOLE_BYTES = 1 << 20

#: The names that the reader itself gives to an item.
RESERVED = ("_file_path", "_file_name", "_modified_at", "_line_offset")

_ON_LINES = "put documents on lines of their own, as `jq -c . FILE > FILE.jsonl` does"
_ELEMENTS_ON_LINES = _ON_LINES.replace("jq -c .", "jq -c '.[]'")
_TAIL_BYTES = 16 << 10
_LONGEST_READ = 4 << 20
_BOM = b"\xef\xbb\xbf"
_ZERO = np.uint8(ord("0"))
_NEWLINE, _RETURN, _OPENING, _CLOSING = map(np.uint8, b"\n\r{}")
_DECODER = msgspec.json.Decoder()
_Array: TypeAlias = "np.ndarray[Any, Any]"

ReadAt = Callable[[int, int], bytes]
"""`read(offset, size)` gives up to `size` bytes, fewer only at the end of the file."""


class Readable(Protocol):
    """A file that is read from its beginning."""

    def read(self, size: int, /) -> bytes:
        """Returns up to `size` bytes, none at the end."""


@dataclass(slots=True)
class BadDocument:
    """A document that cannot be read.

    Attributes:
        offset: Where it begins, in bytes.
        data: Its bytes, or its beginning when it is large.
        error: What is wrong and what to do.
    """

    offset: int
    data: bytes
    error: ConnectorError


@dataclass(slots=True)
class Lines:
    """Whole lines that follow one another.

    Attributes:
        data: The lines, with newlines between them.
        offset: Where the first one begins, in bytes.
        bad: Lines among them that are too long to be held.
        size: How many bytes of the file they account for.
    """

    data: bytes
    offset: int
    bad: list[BadDocument] = field(default_factory=list)
    size: int = 0


def lines_of_block(read: ReadAt, start: int, stop: int, longest: int) -> Lines:
    """Reads the lines whose first byte lies in [start, stop).

    Args:
        read: Gives bytes of the file.
        start: The block's first byte.
        stop: One past its last byte; the file's size for the last block.
        longest: Lines of more bytes than this are reported, not held.

    Raises:
        ConnectorError: the file ends before `stop`, so it became shorter since it was listed.
    """
    begin = max(start - 1, 0)
    data = read(begin, stop - begin + _TAIL_BYTES)
    if len(data) < stop - begin:
        raise ConnectorError(
            f"it has {begin + len(data)} bytes but had {stop} or more when the run began; "
            "run again when nothing writes to it"
        )
    first = 0
    if start:
        # A line begins where a newline ends.
        first = data.find(b"\n", 0, stop - 1 - begin) + 1
        if not first:
            return Lines(b"", start, size=stop - start)
    lines = Lines(b"", begin + first, size=stop - start)
    end = data.find(b"\n", max(stop - 1 - begin, 0)) if stop > begin else 0
    if end >= 0:
        lines.data = data[first:end]
        return lines

    last = max(data.rfind(b"\n", first, stop - begin) + 1, first)
    pieces, have, step = [data[last:]], begin + len(data), _TAIL_BYTES
    while have - begin - last <= longest:
        step = min(2 * step, _LONGEST_READ)
        piece = read(have, step)
        cut = piece.find(b"\n")
        if cut >= 0:
            piece = piece[:cut]
        pieces.append(piece)
        have += len(piece)
        if cut >= 0 or not piece:
            break
    if have - begin - last <= longest:
        lines.data = data[first:last] + b"".join(pieces)
    else:
        lines.data = data[first : max(last - 1, first)]
        lines.bad.append(_too_long(begin + last, b"".join(pieces), longest))
    return lines


def lines_of_stream(
    file: Readable, longest: int, block_bytes: int = BLOCK_BYTES
) -> Iterator[Lines]:
    """Reads a file that can only be read from its beginning, some `block_bytes` at a time.

    Args:
        file: The file.
        longest: Lines of more bytes than this are reported, not held.
        block_bytes: How much to read at once.
    """
    rest, offset, skipping, size = b"", 0, False, 0
    while piece := file.read(block_bytes):
        size += len(piece)
        lines = Lines(b"", offset)
        if skipping:
            cut = piece.find(b"\n") + 1
            offset += cut or len(piece)
            if not cut:
                continue
            piece, skipping, lines.offset = piece[cut:], False, offset
        rest += piece
        cut = rest.rfind(b"\n")
        if cut >= 0:
            lines.data, rest = rest[:cut], rest[cut + 1 :]
            offset += cut + 1
        if len(rest) > longest:
            lines.bad.append(_too_long(offset, rest, longest))
            offset, rest, skipping = offset + len(rest), b"", True
        if lines.data or lines.bad:
            lines.size, size = size, 0
            yield lines
    if rest or size:
        yield Lines(rest, offset, size=size)


def parse_lines(
    lines: Lines, path: str, name: str, modified_at: str | None, longest: int
) -> tuple[list[dict[str, Any]], list[BadDocument]]:
    """Parses lines into items with their origins.

    Blank lines are nothing. A field of a document that has a reserved name is kept under another
    (see `free_name`).

    Args:
        lines: What to parse.
        path: Becomes `_file_path` of each item; the byte offset becomes `_line_offset`.
        name: Becomes `_file_name`.
        modified_at: Becomes `_modified_at`.
        longest: Lines of more bytes than this are bad.

    Returns:
        The items, and the lines that are no JSON objects, each in the order of the file.
    """
    bad = list(lines.bad)
    ends = ends_of_objects(lines.data, longest)
    values = None if ends is None else objects_of(lines.data, len(ends))
    if values is None:
        return _parse_each_line(lines, path, name, modified_at, longest)
    assert ends is not None
    for value, offset in zip(values, offsets_of(lines, ends).tolist(), strict=True):
        _place(value, path, name, modified_at, offset)
    return values, bad


def ends_of_objects(data: bytes, longest: int) -> _Array | None:
    """Returns where lines end, if each begins and ends as an object does; otherwise None.

    Between `}` and `{` inside of an object or a list there is a comma, and no newline stands in a
    text. So one parse of all such lines, if it succeeds, parses each line by itself.

    Args:
        data: The lines, with newlines between them.
        longest: The length of the longest line that is read.
    """
    if not data.startswith(b"{") or not data.endswith((b"}", b"}\r")):
        return None
    text = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(text == _NEWLINE)
    last = text[ends - 1]
    if _RETURN in last[:1]:
        last = np.where(last == _RETURN, text[ends - 2], last)
    if (last != _CLOSING).any() or (text[ends + 1] != _OPENING).any():
        return None
    ends = np.append(ends, len(data))
    return ends if len(data) <= longest or np.diff(ends, prepend=-1).max() <= longest + 1 else None


def offsets_of(lines: Lines, ends: _Array) -> _Array:
    """Returns where each line begins in the file, in bytes."""
    return np.concatenate([[lines.offset], ends[:-1] + (lines.offset + 1)])


def objects_of(
    data: bytes, count: int, decoder: msgspec.json.Decoder[Any] = _DECODER
) -> list[Any] | None:
    """Returns the objects of lines of which each begins and ends as one; None if one is bad.

    Args:
        data: The lines, with newlines between them.
        count: How many they are.
        decoder: What parses them; into dictionaries by default.
    """
    try:
        values = decoder.decode_lines(data)
    except (msgspec.DecodeError, RecursionError):
        return None
    return values if len(values) == count else None


def _place(
    value: dict[str, Any], path: str, name: str, modified_at: str | None, offset: int
) -> None:
    if (
        "_file_path" in value
        or "_file_name" in value
        or "_modified_at" in value
        or "_line_offset" in value
    ):
        free_names(value)
    value["_file_path"] = path
    value["_file_name"] = name
    value["_modified_at"] = modified_at
    value["_line_offset"] = offset


def _parse_each_line(
    lines: Lines, path: str, name: str, modified_at: str | None, longest: int
) -> tuple[list[dict[str, Any]], list[BadDocument]]:
    """Does what `parse_lines` does, one line after the other."""
    data, offset, bad = lines.data, lines.offset, list(lines.bad)
    rows = data.split(b"\n")
    values = _parse_each(rows, longest)
    for index in rows_with_big_integers(data, rows):
        values[index] = _parse(rows[index], longest)
    items = []
    for value, row in zip(values, rows, strict=True):
        if type(value) is dict:
            _place(value, path, name, modified_at, offset)
            items.append(value)
        elif value is not _BLANK:
            kept = row if len(row) <= min(longest, KEPT_WHOLE_BYTES) else _head(row, longest)
            bad.append(BadDocument(offset, kept, _error_of(value, "on each line")))
        offset += len(row) + 1
    bad.sort(key=lambda one: one.offset)
    return items, bad


def parse_document(data: bytes) -> dict[str, Any]:
    """Parses a file that holds one document.

    Raises:
        ConnectorError: it is not one JSON object; the message says what it is and what to do.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        value = _parse(data, len(data))
    else:
        if big_integers(data):
            value = _parse(data, len(data))
    if type(value) is dict:
        return value
    if value is _BLANK:
        raise ConnectorError("it is empty; expected one JSON object")
    where = f"in the file; {_ELEMENTS_ON_LINES if isinstance(value, list) else _ON_LINES}"
    raise _error_of(value, where)


def free_names(document: dict[str, Any]) -> None:
    """Renames a document's own fields that have reserved names, so that none is overwritten.

    `_file_path` becomes `document_file_path`, with more underscores while that is taken.
    """
    for name in RESERVED:
        if name in document:
            other = f"document{name}"
            while other in document:
                other += "_"
            document[other] = document.pop(name)


def text_of(data: bytes) -> str | bytes:
    """Returns bytes as UTF-8 text, or the bytes if they are not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


class _Blank:
    """What a blank line is parsed to."""


_BLANK = _Blank()


def _parse_each(rows: list[bytes], longest: int) -> list[Any]:
    values = []
    for row in rows:
        if len(row) > longest:
            values.append(_too_long(0, row, longest).error)
            continue
        try:
            values.append(orjson.loads(row))
        except orjson.JSONDecodeError:
            values.append(_parse(row, longest))
    return values


def _parse(data: bytes, longest: int) -> Any:
    """Parses what orjson refuses or cannot hold, with the slower parser of the standard library.

    It keeps integers of any size and knows NaN and Infinity, which many programs write.

    Returns:
        The value, `_BLANK`, or a ConnectorError that says what is wrong.
    """
    if len(data) > longest:
        return _too_long(0, data, longest).error
    # The mark may begin any line: files that have it are put together with `cat`.
    data = data.removeprefix(_BOM)
    if not data.strip():
        return _BLANK
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return ConnectorError(
            f"it is not UTF-8 (byte 0x{data[error.start]:02x} at {error.start}); convert it first"
        )
    try:
        value = json.loads(text)
        # Escapes such as \ud800 are valid JSON but no text that can be stored.
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
            return ConnectorError(f"it is cut off: the JSON ends after {len(text)} characters")
        hint = f"; {_ON_LINES}" if error.msg == "Extra data" else _instead(text, error.pos)
        return ConnectorError(
            f"it is not JSON: {error.msg} (line {error.lineno}, column {error.colno}){hint}"
        )
    except UnicodeEncodeError:
        return ConnectorError(
            "it has half of a surrogate pair (such as \\ud800) in a text, which is not Unicode; "
            "write both halves or the character itself"
        )
    except RecursionError:
        return ConnectorError("it is nested too deeply")
    except ValueError as error:
        return ConnectorError(f"it has a number that is too long: {error}")
    return value


def _instead(text: str, place: int) -> str:
    """Returns what to do about text that is something else from its first character on."""
    if text[:place].strip():
        return ""
    head = text.strip()[:1000]
    if head.startswith("<"):
        return "; it looks like HTML or XML, which is not read: choose a pattern that leaves it out"
    if any(sign in head.partition("\n")[0] for sign in ",;\t"):
        return "; it looks like CSV, which the connector csv reads"
    return "; only JSON and JSON Lines are read, whatever a file is called"


def _error_of(value: Any, where: str) -> ConnectorError:
    if isinstance(value, ConnectorError):
        return value
    if isinstance(value, list):
        what = f"a list of {len(value)}"
    else:
        what = {str: "a text", bool: "true or false", type(None): "null"}.get(
            type(value), "a number"
        )
    return ConnectorError(f"it is {what}; expected one JSON object {where}")


def _too_long(offset: int, data: bytes, longest: int) -> BadDocument:
    error = ConnectorError(
        f"it is longer than {longest} bytes; split it, or raise max_line_bytes if memory allows"
    )
    return BadDocument(offset, _head(data, longest), error)


def _head(data: bytes, longest: int) -> bytes:
    # A character has up to four bytes, and the last one may be cut in the middle.
    return (
        data[: min(4 * HEAD_CHARACTERS, longest)].decode(errors="ignore")[:HEAD_CHARACTERS].encode()
    )


def rows_with_big_integers(data: bytes, rows: list[bytes]) -> set[int]:
    """Returns which lines of `data` may hold integers beyond 64 bits."""
    found = big_integers(data)
    if not found:
        return set()
    starts = [0, *accumulate(len(row) + 1 for row in rows)]
    return {bisect_right(starts, position) - 1 for position in found}


def big_integers(data: bytes) -> list[int]:
    """Finds where `data` may hold integers beyond 64 bits, which orjson turns into floats.

    Such an integer has 19 digits or more, so two of them stand on consecutive multiples of nine:
    looking at every ninth byte finds all candidates and costs a tenth of parsing. Digits after a
    point are a fraction, which may be as long as it likes.

    Returns:
        Positions inside of runs of digits, one for each; some may be harmless (digits in a text).
    """
    if len(data) < 19:
        return []
    text = np.frombuffer(data, np.uint8)
    sample = (text[::9] - _ZERO) < 10
    candidates = np.flatnonzero(sample[1:] & sample[:-1]) * 9
    for distance in range(1, 9):
        if not len(candidates):
            return []
        candidates = candidates[_digits_at(text, candidates + distance)]
    if not len(candidates):
        return []
    left, right = _run(text, candidates, -1), _run(text, candidates + 9, 1)
    chosen = (left < 9) & (left + right >= 9)
    positions = candidates[chosen]
    before = text.take(positions - left[chosen] - 1, mode="clip")
    return [int(position) for position in positions[before != ord(".")]]


def _digits_at(text: _Array, positions: _Array) -> _Array:
    # Clipping can only repeat the outermost byte, which is not a digit in a JSON object.
    return (text.take(positions, mode="clip") - _ZERO) < 10


def _run(text: _Array, origin: _Array, step: int) -> _Array:
    """Counts the digits next to each origin in one direction, up to nine."""
    length = np.zeros(len(origin), np.intp)
    going = np.ones(len(origin), np.bool_)
    for distance in range(1, 10):
        going &= _digits_at(text, origin + step * distance)
        length += going
    return length


def id_text(value: Any) -> str:
    """Returns an id as text; "" without an id."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def holds_numbers(items: Sequence[dict[str, Any]], id_field: str) -> bool:
    """Returns whether the own id of a line could be an offset."""
    return any(id_text(item.get(id_field)).isdigit() for item in items)


def tell_apart(items: Sequence[dict[str, Any]], id_field: str, are_all: bool) -> None:
    """Changes the offsets of lines without an id into names that no other line has.

    Args:
        items: The items of lines.
        id_field: The field that holds a line's own id.
        are_all: Whether they are all of the file; else some other line may have any number.
    """
    nameless = [item for item in items if item.get(id_field) in (None, "")]
    if not nameless or (are_all and len(nameless) == len(items)):
        return
    own = {id_text(item.get(id_field)) for item in items} if are_all else set()
    for item in nameless:
        name = str(item["_line_offset"])
        if are_all and name not in own:
            continue
        name = f"byte {name}"
        while name in own:
            name += "_"
        item["_line_offset"] = name
