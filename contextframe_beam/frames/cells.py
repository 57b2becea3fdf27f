"""The rows of an Arrow table as items, so that any column can become metadata.

An item holds values of JSON, decimals, and bytes in fields of their own. Everything else becomes
text in the standard's own form, without loss: dates and times by ISO 8601 in all their digits, with
the offset of their zone, durations by ISO 8601, and uuids. NaN is null, because it means that there
is no number. `plain` does this for a column in Arrow, and `values_of` makes Python values.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["items_of", "plain", "values_of"]

_SECONDS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def items_of(table: pa.Table) -> list[dict[str, Any]]:
    """Returns each row of a table as a dictionary of its columns; null is None.

    Of several columns with one name, the last counts, as in a JSON object.
    """
    names = table.schema.names
    columns = [
        [value for chunk in column.chunks for value in values_of(chunk)] for column in table.columns
    ]
    if not columns:
        return [{} for _ in range(table.num_rows)]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def values_of(column: pa.Array, *, inside: bool = False) -> list[Any]:
    """Returns the values of a column.

    Args:
        column: Of any type.
        inside: Whether they are parts of another value; then bytes become Base64, for JSON.
    """
    column = plain(column)
    kind = column.type
    if pa.types.is_struct(kind):
        return _objects(column)
    if pa.types.is_map(kind):
        return _maps(column)
    if _is_list(kind):
        flat = values_of(column.flatten(), inside=True)
        return _cut(flat, pc.list_value_length(column).to_pylist())
    if pa.types.is_union(kind):
        return [_of_union(one, inside) for one in column]
    if inside and _is_binary(kind):
        return [None if one is None else _base64(one) for one in column.to_pylist()]
    if _is_text(kind):
        try:
            return list(column.to_pylist())
        except UnicodeDecodeError:
            # Arrow does not check what it reads. Encoding refuses such text, and says why.
            raw = column.cast(pa.large_binary()).to_pylist()
            return [None if one is None else one.decode("utf-8", "surrogateescape") for one in raw]
    return list(column.to_pylist())


def plain(column: pa.Array) -> pa.Array:
    """Returns a column whose values are text, bytes, numbers, decimals, flags or nested.

    Nested values are left as they are.
    """
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _plain_extension(column)
    for applies, convert in _CONVERSIONS:
        if applies(kind):
            return convert(column)
    return column


def _plain_extension(column: pa.Array) -> pa.Array:
    name = column.type.extension_name
    if name == "arrow.uuid":
        raw = column.storage.to_pylist()
        texts = [None if one is None else str(UUID(bytes=one)) for one in raw]
        return pa.array(texts, pa.string())
    if name == "arrow.bool8":
        return column.storage.cast(pa.bool_())
    return plain(column.storage)


def _plain_float(column: pa.Array) -> pa.Array:
    wide = column.cast(pa.float64())
    return pc.if_else(pc.is_nan(wide), pa.scalar(None, pa.float64()), wide)


def _plain_timestamp(column: pa.Array) -> pa.Array:
    unit, zone = column.type.unit, column.type.tz
    utc = column.cast(pa.timestamp(unit))
    if not zone:
        return _iso(utc)
    try:
        local = pc.local_timestamp(column)
    except pa.ArrowInvalid:  # a zone that this machine does not know
        local = utc
    clock, start = local.cast(pa.int64()), utc.cast(pa.int64())
    offsets = pc.divide(pc.subtract(clock, start), _SECONDS[unit]).dictionary_encode()
    names = pa.array([_offset(one) for one in offsets.dictionary.to_pylist()], pa.string())
    return pc.binary_join_element_wise(_iso(local), names.take(offsets.indices), "")


def _iso(column: pa.Array) -> pa.Array:
    """Returns naive times as ISO 8601 text, without a fraction that is zero."""
    with suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError):  # a fraction, or a time of day
        text = column.cast(pa.timestamp("s")).cast(pa.string())
        lengths = pc.min_max(pc.binary_length(text)).as_py()
        if lengths["min"] == lengths["max"] == len("2026-01-31 08:00:00"):
            return pc.utf8_replace_slice(text, 10, 11, "T")
    # Times beyond the calendar are left as Arrow tells them: <value out of range: ...>.
    text = pc.replace_substring_regex(column.cast(pa.string()), r"^([-\d]+) ", r"\1T")
    return pc.replace_substring_regex(text, r"\.0+$", "")


def _offset(seconds: int) -> str:
    sign, seconds = "-" if seconds < 0 else "+", abs(seconds)
    text = f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}"
    return f"{text}:{seconds % 60:02}" if seconds % 60 else text


def _plain_date(column: pa.Array) -> pa.Array:
    return column.cast(pa.date32()).cast(pa.string())


def _plain_duration(column: pa.Array) -> pa.Array:
    digits = len(str(_SECONDS[column.type.unit])) - 1
    counts = column.cast(pa.int64()).to_pylist()
    texts = [None if one is None else f"PT{_seconds(one, digits)}S" for one in counts]
    return pa.array(texts, pa.string())


def _plain_interval(column: pa.Array) -> pa.Array:
    texts = [
        None if one is None else f"P{one.months}M{one.days}DT{_seconds(one.nanoseconds, 9)}S"
        for one in column.to_pylist()
    ]
    return pa.array(texts, pa.string())


def _seconds(count: int, digits: int) -> str:
    whole, part = divmod(abs(count), 10**digits)
    fraction = f".{part:0{digits}}".rstrip("0") if part else ""
    return f"{'-' if count < 0 else ''}{whole}{fraction}"


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


_CONVERSIONS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], pa.Array]], ...] = (
    (pa.types.is_dictionary, lambda column: plain(column.dictionary_decode())),
    (pa.types.is_run_end_encoded, lambda column: plain(pc.run_end_decode(column))),
    (pa.types.is_string_view, lambda column: column.cast(pa.large_string())),
    (pa.types.is_binary_view, lambda column: column.cast(pa.large_binary())),
    (pa.types.is_fixed_size_binary, lambda column: column.cast(pa.binary())),
    (pa.types.is_floating, _plain_float),
    (pa.types.is_timestamp, _plain_timestamp),
    (pa.types.is_date, _plain_date),
    (pa.types.is_time, _iso),
    (pa.types.is_duration, _plain_duration),
    (pa.types.is_interval, _plain_interval),
)


def _objects(column: pa.StructArray) -> list[Any]:
    names = [field.name for field in column.type]
    fields = [values_of(child, inside=True) for child in column.flatten()]
    rows = zip(*fields, strict=True) if fields else iter([()] * len(column))
    there = column.is_valid().to_pylist()
    return [
        dict(zip(names, row, strict=True)) if valid else None
        for valid, row in zip(there, rows, strict=True)
    ]


def _maps(column: pa.MapArray) -> list[Any]:
    """Returns maps as objects; keys that are no text are written as text."""
    starts, there = np.asarray(column.offsets), column.is_valid().to_pylist()
    keys, items = values_of(column.keys, inside=True), values_of(column.items, inside=True)
    found: list[Any] = []
    for index, valid in enumerate(there):
        start, stop = starts[index], starts[index + 1]
        pairs = zip(keys[start:stop], items[start:stop], strict=True)
        named = {one if isinstance(one, str) else str(one): value for one, value in pairs}
        found.append(named if valid else None)
    return found


def _cut(flat: list[Any], lengths: list[int | None]) -> list[Any]:
    found: list[Any] = []
    start = 0
    for length in lengths:
        if length is None:
            found.append(None)
        else:
            found.append(flat[start : start + length])
            start += length
    return found


def _of_union(value: pa.Scalar, inside: bool) -> Any:
    own = value.value if value.is_valid else None
    return None if own is None else values_of(pa.array([own], own.type), inside=inside)[0]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
