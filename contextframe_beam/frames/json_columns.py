"""JSON and digests of columns: the text of all rows is put together by Arrow, as orjson writes it.

Only the digests themselves, and uuids, are made row by row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh3_128_digest

from contextframe_beam.frames.columns import Cells, Mask, NotByColumns, as_strings, filled
from contextframe_beam.frames.record import NAMESPACE
from contextframe_beam.frames.schema import DIGEST
from contextframe_beam.frames.values import dump_objects

# What stays in the processor's cache while it is written and read again: in larger pieces it takes
# twice the time, and to look for what to escape ten times.
_ROWS_AT_ONCE = 1024
_BYTES_AT_ONCE = 1 << 20
_BACKSLASH = ord("\\")
_OBJECTS = frozenset({dict, list, type(None)})

__all__ = [
    "Fragment",
    "digests_of",
    "escaped",
    "json_lists",
    "objects_as_json",
    "put_together",
    "uuids_of",
    "values_as_json",
]


def digests_of(fragments: Sequence[Fragment], ends: Sequence[bytes] | None = None) -> pa.Array:
    """Returns the digest of each row, whose JSON is a list of the fragments.

    Args:
        fragments: The parts of each row.
        ends: What follows the JSON of each row.
    """
    parts: list[Any] = ["["]
    for fragment in fragments:
        fragment.put(parts)
    parts[0] = parts[0].replace("[,", "[", 1)
    parts[-1] += "]"
    count = next(len(part) for part in parts if isinstance(part, pa.Array))
    parts = _with_literals(parts)
    digests: list[bytes] = []
    for start in range(0, count, _ROWS_AT_ONCE):
        stop = start + _ROWS_AT_ONCE
        rows = put_together([part if isinstance(part, str) else part[start:stop] for part in parts])
        given = _slices(rows)
        if ends is not None:
            given = map(b"".join, zip(given, ends[start:stop], strict=True))
        digests += map(xxh3_128_digest, given)
    packed = pa.py_buffer(b"".join(digests))
    return pa.FixedSizeBinaryArray.from_buffers(DIGEST, count, [None, packed])


def _with_literals(parts: list[Any]) -> list[Any]:
    """Returns parts of a join with text in place of columns of one value, and joins the texts."""
    found: list[Any] = [""]
    for part in parts:
        text = part if isinstance(part, str) else _only_value(part)
        if text is None:
            found += [part, ""]
        else:
            found[-1] += text
    return found if len(found) > 1 else parts


def _only_value(column: pa.Array) -> str | None:
    """Returns the text that stands in all rows; None if they have several."""
    first: str | None = column[0].as_py()
    if column.null_count or column[-1].as_py() != first:
        return None
    return first if pc.all(pc.equal(column, first)).as_py() else None


class Fragment:
    """A part of the JSON of all rows.

    Args:
        texts: What stands there; text between quotes if `is_text`.
        missing: Rows in which it is left out.
        is_text: Whether quotes stand around it.
    """

    def __init__(self, texts: pa.Array, missing: Mask | None = None, is_text: bool = False) -> None:
        self.texts = texts
        self.missing = missing if missing is not None and missing.any() else None
        self.is_text = is_text

    @classmethod
    def of_text(cls, texts: pa.Array, missing: Mask | None = None) -> Fragment:
        """Makes it of text, which has no nulls."""
        return cls(escaped(texts), missing, is_text=True)

    @classmethod
    def of_nullable(cls, texts: pa.Array, nothing: str = "false") -> Fragment:
        """Makes it of text, with something else for null."""
        if not texts.null_count:
            return cls.of_text(texts)
        quoted = pc.binary_join_element_wise('"', escaped(texts), '"', "")
        return cls(filled(quoted, nothing))

    def take(self, places: pa.Array) -> Fragment:
        """Returns the fragments at some places."""
        return Fragment(self.texts.take(places), None, self.is_text)

    def put(self, parts: list[Any], name: str = "") -> None:
        """Appends it to the parts of a join; the last of them is text that goes on."""
        if self.missing is None:
            quote = '"' if self.is_text else ""
            parts[-1] += f",{name}{quote}"
            parts += [self.texts, quote]
            return
        quote = '"' if self.is_text else ""
        whole = pc.binary_join_element_wise(f",{quote}", self.texts, quote, "")
        there = pa.array(~self.missing)
        parts += [pc.if_else(there, whole, pa.scalar(None, pa.string())), ""]


def put_together(parts: Sequence[Any]) -> pa.Array:
    """Returns columns and literals put together; a null is left out."""
    given = [one for one in parts if not isinstance(one, str) or one]
    return pc.binary_join_element_wise(*given, "", null_handling="skip")


def json_lists(values: pa.Array) -> pa.Array:
    """Returns lists of texts as JSON; null counts as empty text."""
    flat = pc.binary_join_element_wise('"', escaped(values.flatten()), '"', "")
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy()
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(ends), flat)
    texts = pc.binary_join_element_wise("[", pc.binary_join(lists, ","), "]", "")
    return pc.if_else(values.is_valid(), texts, '""') if values.null_count else texts


def values_as_json(values: pa.Array) -> pa.Array | None:
    """Returns numbers and flags as JSON; None for values of other types."""
    kind = values.type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return values.cast(pa.string())
    if pa.types.is_float64(kind):
        numbers = _filled_numbers(values)
        finite = np.isfinite(numbers)
        if not finite.all():
            raise NotByColumns(~finite)
        texts = orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
        made = pa.array(texts if len(values) else [], pa.binary()).cast(pa.string())
        return pc.if_else(values.is_valid(), made, pa.scalar(None, pa.string()))
    if pa.types.is_decimal(kind):
        return pc.binary_join_element_wise('"', values.cast(pa.string()), '"', "")
    return None


def objects_as_json(name: str, cells: Cells) -> pa.Array | None:
    """Returns objects and lists as JSON; None if there are other values."""
    values = cells.values
    if isinstance(values, pa.Array):
        if not pa.types.is_nested(values.type) or pa.types.is_union(values.type):
            return None
        if isinstance(values, pa.StructArray) and (made := _struct_as_json(values)) is not None:
            return made
        values = cells.to_list()
    elif not _OBJECTS.issuperset(map(type, values)):
        return None
    texts = dump_objects(values, f"metadata[{name!r}]")
    return pa.array(texts, pa.binary()).cast(pa.string())


def _struct_as_json(values: pa.StructArray) -> pa.Array | None:
    """Returns objects of texts as JSON; None for other objects."""
    names = [field.name for field in values.type]
    if not names or len(set(names)) < len(names):
        return None
    if not all(pa.types.is_string(field.type) for field in values.type):
        return None
    parts: list[Any] = [""]
    for name, child in zip(names, values.flatten(), strict=True):
        key = orjson.dumps(name).decode()
        Fragment.of_nullable(as_strings(child), "null").put(parts, f"{key}:")
    parts[0] = "{" + parts[0].removeprefix(",")
    parts[-1] += "}"
    texts = put_together(parts)
    if not values.null_count:
        return texts
    return pc.if_else(values.is_valid(), texts, pa.scalar(None, pa.string()))


def _filled_numbers(values: pa.Array) -> Any:
    """Returns numbers with 0 for null."""
    return np.ascontiguousarray(pc.fill_null(values, 0.0).to_numpy(zero_copy_only=False))


def uuids_of(unique_ids: pa.Array) -> pa.Array:
    """Returns the uuids of documents, as `uuid_of` does of one."""
    sha = hashlib.sha1(NAMESPACE.bytes, usedforsecurity=False)
    digests = bytearray()
    for text in _slices(unique_ids):
        one = sha.copy()
        one.update(text)
        digests += one.digest()[:16]
    # RFC 9562, section 5.5: version 5, variant 10.
    numbers = np.frombuffer(digests, np.uint8).reshape(-1, 16)
    numbers[:, 6] = numbers[:, 6] & 0x0F | 0x50
    numbers[:, 8] = numbers[:, 8] & 0x3F | 0x80
    digits = np.frombuffer(digests.hex().encode(), np.uint8).reshape(-1, 32)
    texts = np.full((len(numbers), 36), ord("-"), np.uint8)
    for start, stop, place in ((0, 8, 0), (8, 12, 9), (12, 16, 14), (16, 20, 19), (20, 32, 24)):
        texts[:, place : place + stop - start] = digits[:, start:stop]
    ends = np.arange(len(numbers) + 1, dtype=np.int32) * 36
    return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(ends), pa.py_buffer(texts))


def escaped(column: pa.Array) -> pa.Array:
    """Returns text as it stands between the quotes of JSON, as orjson writes it."""
    ends, data = _parts(column)
    if len(data) > _BYTES_AT_ONCE and len(column) > 1:
        rows = -(-len(column) * _BYTES_AT_ONCE // len(data))
        pieces = [column[start : start + rows] for start in range(0, len(column), rows)]
        if len(pieces) > 1:
            made = [escaped(piece) for piece in pieces]
            same = all(one is piece for one, piece in zip(made, pieces, strict=True))
            return column if same else pa.concat_arrays(made)
    text = orjson.dumps(str(data, "utf-8"))
    if len(text) == len(data) + 2:
        return column
    if len(text) >= 2**31:
        raise NotByColumns
    # Where the escapes begin in what was written, and how long they are.
    written = np.frombuffer(text, np.uint8)[1:-1]
    marks = np.flatnonzero(written == _BACKSLASH)
    # The second of two backslashes is itself escaped.
    marks = marks[_firsts(marks)]
    lengths = np.where(written[marks + 1] == ord("u"), 6, 2)
    longer = np.cumsum(lengths - 1)
    # The place of each escape in the text itself.
    places = marks - np.concatenate([[0], longer[:-1]])
    ends = ends + np.concatenate([[0], longer])[np.searchsorted(places, ends)]
    nulls = column.is_valid().buffers()[1] if column.null_count else None
    return pa.StringArray.from_buffers(
        len(column),
        pa.py_buffer(ends.astype(np.int32)),
        pa.py_buffer(memoryview(text)[1:-1]),
        nulls,
    )


def _firsts(marks: Any) -> Any:
    """Returns which of some backslashes begin an escape: the odd ones of those side by side."""
    starts = np.flatnonzero(np.diff(marks, prepend=-2) != 1)
    runs = np.diff(starts, append=len(marks))
    within = np.arange(len(marks)) - np.repeat(starts, runs)
    return within % 2 == 0


def _parts(column: pa.Array) -> tuple[Any, Any]:
    """Returns where each text of a column ends, from 0 on, and all their bytes."""
    _, offsets, data = column.buffers()
    if not len(column):
        return np.zeros(1, np.int64), memoryview(b"")
    ends = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    start, stop = int(ends[0]), int(ends[-1])
    return ends.astype(np.int64) - start, memoryview(data or b"")[start:stop]


def _slices(column: pa.Array) -> Iterable[memoryview | bytes]:
    ends, view = _parts(column)
    # One after the other: views are objects that the garbage collector counts.
    return (view[start:stop] for start, stop in pairwise(ends.tolist()))
