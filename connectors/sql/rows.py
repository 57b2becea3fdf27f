"""The batches of a driver as pages: tables where Arrow holds all values, items for odd rows."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from contextframe_beam.connectors.mapped import MappedConnector
from contextframe_beam.connectors.page import Page, items_of
from contextframe_beam.connectors.sql.dialect import Column

# Mapping by columns pays from some thousand rows on; a page of them has to fit into memory.
_ROWS_WANTED = 25_000
_MOST_BYTES = 4 << 20
_PLACE = "contextframe_column_"

# Words that a column of text has where a row is not deleted.
_NOT_DELETED = frozenset({"", "0", "f", "false", "n", "no"})


def selected(columns: Sequence[Column]) -> str:
    """Returns what stands after SELECT; the odd values follow all others."""
    found = [*(one.value for one in columns), *(one.odd for one in columns if one.odd)]
    # Names of their own, since a database may take a column's own name in a condition for these.
    return ", ".join(f"{one} AS {_PLACE}{place}" for place, one in enumerate(found))


def pages_of(
    batches: Iterable[pa.RecordBatch], columns: Sequence[Column], deleted: str = ""
) -> Iterator[Page]:
    """Yields pages of the rows that `selected` reads.

    Args:
        batches: The batches of the driver.
        columns: What was selected.
        deleted: The column that says that a row is deleted; such rows become items.
    """
    for table in _joined(batches):
        yield from _pages(table, columns, deleted)


def is_deleted(value: Any) -> bool:
    """Returns whether a value of a column for soft deletes says that its row is deleted.

    Null, false, 0 and the texts `false`, `f`, `no`, `n`, `0` and "" say that it is not.
    """
    if isinstance(value, str):
        return value.strip().lower() not in _NOT_DELETED
    return value is not None and value != 0


def _joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yields batches joined to pages, since a driver may give some thousand small ones."""
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        if not batch.num_rows:
            continue
        if waiting and size + batch.nbytes > _MOST_BYTES:
            yield pa.Table.from_batches(waiting)
            waiting, rows, size = [], 0, 0
        waiting.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= _ROWS_WANTED or size >= _MOST_BYTES:
            yield pa.Table.from_batches(waiting)
            waiting, rows, size = [], 0, 0
    if waiting:
        yield pa.Table.from_batches(waiting)


def _pages(table: pa.Table, columns: Sequence[Column], deleted: str) -> Iterator[Page]:
    count = len(columns)
    with_odd = [one for one in columns if one.odd]
    odd = {
        one.name: table.column(count + place)
        for place, one in enumerate(with_odd)
        if table.column(count + place).null_count < table.num_rows
    }
    apart: Any = None
    for values in odd.values():
        is_odd = pc.is_valid(values)
        apart = is_odd if apart is None else pc.or_(apart, is_odd)
    names = [one.name for one in columns]
    own = pa.Table.from_arrays([_plain(table.column(place)) for place in range(count)], names=names)
    if deleted:
        gone = _gone(own.column(names.index(deleted)))
        apart = gone if apart is None else pc.or_(apart, gone)
    if apart is None or not pc.any(apart).as_py():
        yield Page([], table=own.combine_chunks())
        return
    kept = own.filter(pc.invert(apart))
    if kept.num_rows:
        yield Page([], table=kept.combine_chunks())
    decoders = {one.name: _DECODERS[one.decoder] for one in with_odd}
    # Values that Arrow cannot hold are made null, since Python cannot hold them either.
    for name, values in odd.items():
        place = names.index(name)
        column = own.column(place)
        nulls = pa.scalar(None, column.type)
        own = own.set_column(place, name, pc.if_else(pc.is_valid(values), nulls, column))
    items = items_of(own.filter(apart))
    for name, values in odd.items():
        for item, text in zip(items, values.filter(apart).to_pylist(), strict=True):
            if text is not None:
                item[name] = decoders[name](text)
    for item in items if deleted else ():
        if is_deleted(item[deleted]):
            item[MappedConnector.GONE] = True
    yield Page(items)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns a column without types of extensions; bytes become Base64, which JSON can hold."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType) and kind.extension_name != "arrow.uuid":
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)
        kind = kind.storage_type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        texts = [_base64(value) for value in column.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.string())])
    return column


def _gone(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns which rows a column for soft deletes says are deleted."""
    # A time says so whenever it was; some of Arrow's are none of Python's.
    values = column.is_valid() if pa.types.is_temporal(column.type) else column
    return pa.chunked_array([pa.array(map(is_deleted, values.to_pylist()), pa.bool_())])


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode("ascii")


def _untagged(text: str) -> Any:
    kind, rest = text[0], text[1:]
    if kind == "i":
        return int(rest)
    if kind == "r":
        return float(rest)
    return rest if kind == "t" else _base64(bytes.fromhex(rest))


_DECODERS: dict[str, Callable[[str], Any]] = {
    "text": str,
    "json": json.loads,
    "tagged": _untagged,
}
