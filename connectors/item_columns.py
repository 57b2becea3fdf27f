"""ItemColumns: the items of a page as columns, one for each field, whatever they were before.

A column is looked up by a path, as `lookup` does in one item. It is `NotByColumns` where the items
have to be looked at one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contextframe_beam.connectors.mapper import as_text, lookup
from contextframe_beam.frames.cells import plain
from contextframe_beam.frames.columns import (
    MISSING,
    Cells,
    Mask,
    NotByColumns,
    Rows,
    as_strings,
    dictionaries,
    filled,
)
from contextframe_beam.frames.values import is_unicode

__all__ = ["ItemColumns", "marked", "strings", "texts_of", "without_empty"]

# The work grows with rows times names: not with more than so many times the number of values.
_SPARSE = 8
_SMALL = 8192


class ItemColumns:
    """The fields of items.

    Args:
        fields: The values of each field, by its name.
        count: The number of items.
    """

    def __init__(self, fields: dict[str, Cells], count: int) -> None:
        self.fields = fields
        self.count = count

    @classmethod
    def of_items(cls, items: Sequence[Any]) -> ItemColumns:
        """Makes it of dictionaries.

        Raises:
            NotByColumns: they are no dictionaries with names, or share too few names.
        """
        if not items or not {dict}.issuperset(map(type, items)):
            raise NotByColumns(marked(type(one) is not dict for one in items))
        first = tuple(items[0])
        alike = all(map(first.__eq__, map(tuple, items)))
        names = dict.fromkeys(first if alike else chain.from_iterable(items))
        if not {str}.issuperset(map(type, names)):
            raise NotByColumns(marked(not {str}.issuperset(map(type, one)) for one in items))
        if alike:
            columns = zip(*map(dict.values, items), strict=True)
            fields = dict(zip(names, map(Cells.of, columns), strict=True))
            return cls(fields, len(items))
        if len(names) * len(items) > _SPARSE * sum(map(len, items)) + _SMALL:
            raise NotByColumns
        fields = {name: Cells.of([one.get(name, MISSING) for one in items]) for name in names}
        return cls(fields, len(items))

    @classmethod
    def of_table(cls, table: pa.Table) -> ItemColumns:
        """Makes it of the rows of a table, as `items_of` makes items of them.

        Raises:
            NotByColumns: a column holds text that is not Unicode, or too much of it.
        """
        if not table.num_rows:
            raise NotByColumns
        fields = {
            name: Cells(normal(column))
            for name, column in zip(table.schema.names, table.columns, strict=True)
        }
        return cls(fields, table.num_rows)

    def rows(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yields the items with some of their fields."""
        chosen = {name: self.fields[name] for name in names if name in self.fields}
        return dictionaries(chosen, self.count)

    def take(self, rows: Rows) -> ItemColumns:
        """Returns some of the items."""
        return ItemColumns({name: one.take(rows) for name, one in self.fields.items()}, len(rows))

    @cached_property
    def nowhere(self) -> pa.Array:
        """A column of nulls, as text."""
        return pa.nulls(self.count, pa.string())

    def get(self, path: str) -> Cells | None:
        """Returns the values at a path; None if no item has such a place."""
        found = self.fields.get(path)
        if "." not in path:
            return found
        if found is not None:
            if found.missing is not None:
                raise NotByColumns(found.missing)  # they may have the place in an object
            return found
        heads = [
            (head, path[len(head) + 1 :])
            for end in range(len(path))
            if path[end] == "." and (head := path[:end]) in self.fields
        ]
        if not heads:
            return None
        head, rest = heads[0]
        cells = self.fields[head]
        if len(heads) > 1 and cells.missing is not None:
            raise NotByColumns(cells.missing)
        return _inside(cells, rest)

    def common(self, name: str) -> Any:
        """Returns the value that a field has in all items; None if they do not have it.

        Raises:
            NotByColumns: it has several.
        """
        cells = self.fields.get(name)
        values = [None] if cells is None else cells.to_list()
        if any(one != values[0] for one in values):
            raise NotByColumns
        return values[0]

    def require_none(self, name: str) -> None:
        """Requires that a flag is true in none of the items.

        Raises:
            NotByColumns: it is, in some.
        """
        cells = self.fields.get(name)
        rows = marked(one is True for one in cells.to_list()) if cells is not None else None
        if rows is not None and rows.any():
            raise NotByColumns(rows)

    def first(self, paths: str | tuple[str, ...]) -> Cells | None:
        """Returns in each row the first value at a path that is not null or empty text."""
        given = (self.get(path) for path in ((paths,) if isinstance(paths, str) else paths))
        found = [cells for cells in given if cells is not None]
        if not found:
            return None
        if all(cells.is_text for cells in found):
            return Cells(pc.coalesce(*(without_empty(cells.values) for cells in found)))
        if len(found) == 1:
            return found[0]
        rows = zip(*(cells.to_list() for cells in found), strict=True)
        firsts = [next((one for one in row if one is not None and one != ""), None) for row in rows]
        return Cells.of(firsts)


def normal(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Returns a column of a table with the values of items, text as `string`.

    Raises:
        NotByColumns: it holds text that is not Unicode, or too much of it.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # more than one column can hold
            raise NotByColumns
    try:
        column = plain(column)
    except pa.ArrowInvalid:
        raise NotByColumns from None
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return as_strings(column)
    if _is_list(kind) and _is_text(kind.value_type):
        return _list_of_texts(column)
    return column


def texts_of(cells: Cells | None, nowhere: pa.Array) -> pa.Array:
    """Returns values as text, as `as_text` does; "" for null.

    Args:
        cells: The values, or None where there are none.
        nowhere: A column of nulls of the same length.

    Raises:
        NotByColumns: they are no Unicode text.
    """
    if cells is None:
        return filled(nowhere, "")
    values = cells.values
    if isinstance(values, pa.Array):
        kind = values.type
        if pa.types.is_string(kind):
            return filled(values, "")
        if pa.types.is_integer(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
            return filled(values.cast(pa.string()), "")
    return strings([as_text(one) for one in cells.to_list()])


def strings(values: Sequence[str | None]) -> pa.Array:
    """Returns texts as a column, one for each row.

    Raises:
        NotByColumns: one of them is not Unicode.
    """
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        raise NotByColumns(marked(one and not is_unicode(one) for one in values)) from None


def marked(rows: Iterable[Any]) -> Mask:
    """Returns rows as a mask."""
    return np.array([bool(one) for one in rows], np.bool_)


def without_empty(values: pa.Array) -> pa.Array:
    """Returns text with null in place of empty text."""
    empty = pc.equal(values, "")
    if not pc.any(empty).as_py():
        return values
    return pc.if_else(empty, pa.scalar(None, pa.string()), values)


def _inside(cells: Cells, path: str) -> Cells:
    """Returns what is at a path inside of the values of a field."""
    values = cells.values
    if isinstance(values, pa.StructArray) and cells.missing is None:
        names = [one.name for one in values.type]
        if names.count(path) == 1 and not _holds_bytes(values.type.field(path).type):
            child = values.flatten()[names.index(path)]
            missing = np.asarray(values.is_null(), np.bool_) if values.null_count else None
            return Cells(normal(child), missing)
    return Cells.of(
        [
            MISSING if one is MISSING else lookup(one, path, MISSING)
            for one in cells.to_list(MISSING)
        ]
    )


def _holds_bytes(kind: pa.DataType) -> bool:
    # Inside of objects they are Base64.
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
        or isinstance(kind, pa.BaseExtensionType)
        or pa.types.is_dictionary(kind)
        or pa.types.is_run_end_encoded(kind)
    )


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _list_of_texts(column: pa.Array) -> pa.Array:
    try:
        flat = as_strings(plain(column.flatten()))
    except NotByColumns:  # of the lists, not of the rows
        raise NotByColumns from None
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    ends = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    mask = column.is_null() if column.null_count else None
    return pa.ListArray.from_arrays(ends, flat, mask=mask)
