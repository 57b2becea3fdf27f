"""FrameColumns: many records as columns, so that a batch need not be made of single records.

What can be mapped and encoded column by column travels so, and `records` gives the same as single
records for everything else. `NotByColumns` says that a batch cannot go this way; it is mapped or
encoded record by record then, which gives the same rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contextframe_beam.frames.cells import values_of
from contextframe_beam.frames.record import FrameRecord

__all__ = [
    "MISSING",
    "Cells",
    "FrameColumns",
    "Links",
    "Mask",
    "NotByColumns",
    "as_strings",
    "filled",
]

Mask: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"
Rows: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"


class NotByColumns(Exception):  # no failure: another way is taken
    """A batch that has to be mapped or encoded record by record."""


class Missing:
    """Stands for a field that an item or a record does not have."""


MISSING: Any = Missing()


@dataclass(slots=True)
class Cells:
    """The values of one field in all rows.

    Attributes:
        values: A column as `plain` returns it; or any values, where no column can hold them.
        missing: The rows without the field; None where all have it. Their value is null.
    """

    values: pa.Array | list[Any]
    missing: Mask | None = None

    @classmethod
    def of(cls, values: Sequence[Any]) -> Cells:
        """Makes it of Python values, with MISSING in rows without the field."""
        kinds = set(map(type, values))
        missing = None
        if Missing in kinds:
            kinds.remove(Missing)
            missing = np.fromiter((one is MISSING for one in values), np.bool_, len(values))
            values = [None if one is MISSING else one for one in values]
        kind = _ARROW.get(frozenset(kinds - {type(None)}))
        if kind is not None and _fits(values, kind):
            try:
                return cls(pa.array(values, kind), missing)
            except (UnicodeEncodeError, OverflowError, pa.ArrowInvalid):
                pass  # half of a surrogate pair, or more than 64 bits
        return cls(list(values), missing)

    @property
    def is_text(self) -> bool:
        """Whether it is a column of text."""
        return isinstance(self.values, pa.Array) and bool(pa.types.is_string(self.values.type))

    @property
    def absent(self) -> Mask | None:
        """The rows where the field is missing or null; None if there are none."""
        if isinstance(self.values, pa.Array):
            if not self.values.null_count:
                return None
            return np.asarray(self.values.is_null(), np.bool_)
        found = np.fromiter((one is None for one in self.values), np.bool_, len(self.values))
        return found if found.any() else None

    def to_list(self, missing: Any = None) -> list[Any]:
        """Returns the values, with another one in rows without the field."""
        given = self.values
        values = values_of(given) if isinstance(given, pa.Array) else list(given)
        if self.missing is not None:
            for index in np.flatnonzero(self.missing).tolist():
                values[index] = missing
        return values


_ARROW: dict[frozenset[type], pa.DataType] = {
    frozenset({str}): pa.string(),
    frozenset({int}): pa.int64(),
    frozenset({bool}): pa.bool_(),
    frozenset({float}): pa.float64(),
    frozenset({list}): pa.list_(pa.string()),
    frozenset(): pa.null(),
}


def _fits(values: Sequence[Any], kind: pa.DataType) -> bool:
    """Returns whether a column of a type gives back just these values."""
    if pa.types.is_list(kind):
        return {str}.issuperset(map(type, chain.from_iterable(filter(None, values))))
    if pa.types.is_floating(kind):
        return all(map(math.isfinite, (one for one in values if one is not None)))
    return True


@dataclass(slots=True)
class Links:
    """Relationships that were made of fields, one after the other in the order of their rows.

    Attributes:
        rows: The row of each.
        kinds: Its `relationship_type`.
        targets: Its `target_id`, which is not empty.
        notes: Its `metadata` as JSON; null where it has none.
    """

    rows: Rows
    kinds: pa.Array
    targets: pa.Array
    notes: pa.Array

    @classmethod
    def of(cls, parts: Sequence[Links]) -> Links:
        """Joins links of the same rows; in each row those of the first part come first."""
        rows = np.concatenate([part.rows for part in parts])
        order = pa.array(np.argsort(rows, kind="stable"))
        columns = [
            pa.concat_arrays([getattr(part, name) for part in parts]).take(order)
            for name in ("kinds", "targets", "notes")
        ]
        return cls(rows[order.to_numpy()], *columns)

    def by_row(self) -> dict[int, list[dict[str, Any]]]:
        """Returns the relationships of each row that has any, as metadata has them."""
        found: dict[int, list[dict[str, Any]]] = {}
        columns = (self.kinds, self.targets, self.notes)
        for row, kind, target, note in zip(
            self.rows.tolist(), *(column.to_pylist() for column in columns), strict=True
        ):
            link = {"relationship_type": kind, "target_id": target}
            found.setdefault(row, []).append(
                link if note is None else {**link, "metadata": json.loads(note)}
            )
        return found


@dataclass(slots=True)
class FrameColumns:
    """Records as columns.

    Attributes:
        texts: Their text_content.
        unique_ids: Their unique_id.
        timestamps: Their timestamp; None where none has one.
        record_type: Their type.
        metadata: Their metadata, by name.
        links: Their metadata `relationships`, where it is not among the others.
    """

    texts: pa.Array
    unique_ids: pa.Array
    timestamps: pa.Array | None
    record_type: str
    metadata: dict[str, Cells] = field(default_factory=dict)
    links: Links | None = None

    @property
    def count(self) -> int:
        """The number of records."""
        return len(self.texts)

    def records(self) -> list[FrameRecord]:
        """Returns the same as single records."""
        timestamps = [None] * self.count if self.timestamps is None else self.timestamps.to_pylist()
        records = [
            FrameRecord(text, metadata, self.record_type, unique_id, timestamp)
            for text, metadata, unique_id, timestamp in zip(
                values_of(self.texts),
                dictionaries(self.metadata, self.count),
                values_of(self.unique_ids),
                timestamps,
                strict=True,
            )
        ]
        for row, links in {} if self.links is None else self.links.by_row().items():
            records[row].metadata["relationships"] = links
        return records

    @classmethod
    def concat(cls, parts: Sequence[FrameColumns]) -> FrameColumns:
        """Joins batches.

        Raises:
            NotByColumns: they are of different types.
        """
        if len(parts) == 1:
            return parts[0]
        if len({part.record_type for part in parts}) > 1:
            raise NotByColumns
        names = dict.fromkeys(name for part in parts for name in part.metadata)
        counts = [part.count for part in parts]
        timestamps = None
        if any(part.timestamps is not None for part in parts):
            timestamps = pa.concat_arrays(
                pa.nulls(part.count, pa.string()) if part.timestamps is None else part.timestamps
                for part in parts
            )
        return cls(
            pa.concat_arrays([part.texts for part in parts]),
            pa.concat_arrays([part.unique_ids for part in parts]),
            timestamps,
            parts[0].record_type,
            {name: _joined([part.metadata.get(name) for part in parts], counts) for name in names},
            _joined_links(parts),
        )


def dictionaries(fields: Mapping[str, Cells], count: int) -> Iterator[dict[str, Any]]:
    """Yields the fields of each row, without those that it does not have."""
    if not fields:
        return iter([{} for _ in range(count)])
    names = list(fields)
    rows = zip(*(cells.to_list(MISSING) for cells in fields.values()), strict=True)
    if all(cells.missing is None for cells in fields.values()):
        return (dict(zip(names, row, strict=True)) for row in rows)
    return (
        {name: value for name, value in zip(names, row, strict=True) if value is not MISSING}
        for row in rows
    )


def _joined_links(parts: Sequence[FrameColumns]) -> Links | None:
    found, first = [], 0
    for part in parts:
        if part.links is not None:
            found.append(replace(part.links, rows=part.links.rows + first))
        first += part.count
    return Links.of(found) if found else None


def _joined(parts: Iterable[Cells | None], counts: Sequence[int]) -> Cells:
    """Joins the values of a field; parts without it are None."""
    given = [
        Cells(pa.nulls(count), np.ones(count, np.bool_)) if part is None else part
        for part, count in zip(parts, counts, strict=True)
    ]
    missing = None
    if any(part.missing is not None for part in given):
        missing = np.concatenate(
            [
                np.zeros(count, np.bool_) if part.missing is None else part.missing
                for part, count in zip(given, counts, strict=True)
            ]
        )
    arrays = [part.values for part in given if isinstance(part.values, pa.Array)]
    kinds = {one.type for one in arrays} - {pa.null()}
    if len(arrays) == len(given) and len(kinds) <= 1:
        kind = next(iter(kinds), pa.null())
        return Cells(pa.concat_arrays(_typed(one, kind) for one in arrays), missing)
    return Cells([value for part in given for value in part.to_list()], missing)


def _typed(column: pa.Array, kind: pa.DataType) -> pa.Array:
    return column if column.type == kind else pa.nulls(len(column), kind)


def as_strings(column: pa.Array) -> pa.Array:
    """Returns text of any kind as `string`, whose text is Unicode.

    Raises:
        NotByColumns: it is not Unicode, or more than one column can hold.
    """
    try:
        column.validate(full=True)
        return column if pa.types.is_string(column.type) else column.cast(pa.string())
    except pa.ArrowInvalid:
        raise NotByColumns from None


def filled(column: pa.Array, value: str) -> pa.Array:
    """Returns text with a value in place of null."""
    return column if not column.null_count else pc.fill_null(column, value)
