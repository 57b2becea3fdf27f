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
from contextframe_beam.frames.values import vectors_of

__all__ = [
    "MISSING",
    "Cells",
    "Chunks",
    "FrameColumns",
    "Links",
    "Mask",
    "NotByColumns",
    "Parents",
    "Rows",
    "as_strings",
    "dictionaries",
    "filled",
]

Mask: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"
Rows: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"


class NotByColumns(Exception):  # no failure: another way is taken
    """A batch that has to be mapped or encoded record by record.

    Args:
        rows: The rows that have to be, where the others could go by columns without them.
    """

    def __init__(self, rows: Mask | None = None) -> None:
        super().__init__()
        self.rows = rows


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

    def take(self, rows: Rows) -> Cells:
        """Returns the values of some rows."""
        given, missing = self.values, self.missing
        missing = None if missing is None else missing[rows]
        if isinstance(given, pa.Array):
            try:
                return Cells(given.take(pa.array(rows)), missing)
            except NotImplementedError:  # of views inside of objects, for example
                given = self.to_list()
        return Cells([given[row] for row in rows.tolist()], missing)

    def slice(self, start: int, stop: int) -> Cells:
        """Returns the values of rows that follow each other, without copying columns."""
        missing = None if self.missing is None else self.missing[start:stop]
        if missing is not None and not missing.any():
            missing = None
        return Cells(self.values[start:stop], missing)


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
            for name in _LINK_COLUMNS
        ]
        return cls(rows[order.to_numpy()], *columns)

    def take(self, rows: Rows) -> Links:
        """Returns the links of some rows, which are in order."""
        if not len(rows):
            places = np.zeros(0, np.int64)
            return Links(places, *(getattr(self, name)[:0] for name in _LINK_COLUMNS))
        places = np.minimum(np.searchsorted(rows, self.rows), len(rows) - 1)
        kept = np.flatnonzero(rows[places] == self.rows)
        columns = [getattr(self, name).take(pa.array(kept)) for name in _LINK_COLUMNS]
        return Links(places[kept], *columns)

    def slice(self, start: int, stop: int) -> Links | None:
        """Returns the links of rows that follow each other; None if there are none."""
        first, last = np.searchsorted(self.rows, [start, stop])
        if first == last:
            return None
        columns = [getattr(self, name)[first:last] for name in _LINK_COLUMNS]
        return Links(self.rows[first:last] - start, *columns)

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


_LINK_COLUMNS = ("kinds", "targets", "notes")


@dataclass(slots=True)
class Parents:
    """The document of each record, where all of them are chunks.

    Attributes:
        keys: Their uuids.
        uris: Their unique_ids; null where the uuid is another one than that of the unique_id.
    """

    keys: pa.Array
    uris: pa.Array

    def take(self, places: pa.Array) -> Parents:
        """Returns those at some places."""
        return Parents(self.keys.take(places), self.uris.take(places))

    def links(self) -> Iterator[list[dict[str, Any]]]:
        """Yields the relationships of each chunk, as metadata has them."""
        for key, uri in zip(self.keys.to_pylist(), self.uris.to_pylist(), strict=True):
            yield [{"type": "parent", "id": key, **({} if uri is None else {"uri": uri})}]


@dataclass(slots=True)
class Chunks:
    """The chunks of records that are columns.

    Attributes:
        owners: The row of each chunk's document, in order.
        columns: The chunks as records; all have parents.
    """

    owners: Rows
    columns: FrameColumns


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
        origins: Their origins; None where none has one.
        parents: Their documents, where they are chunks; then these are their relationships.
        vectors: Their vectors, in the type of the column; null for records without one.
        embedder: What made the vectors.
        chunks: Their chunks, where they were cut.
    """

    texts: pa.Array
    unique_ids: pa.Array
    timestamps: pa.Array | None
    record_type: str
    metadata: dict[str, Cells] = field(default_factory=dict)
    links: Links | None = None
    origins: pa.Array | None = None
    parents: Parents | None = None
    vectors: pa.Array | None = None
    embedder: str | None = None
    chunks: Chunks | None = None

    @property
    def count(self) -> int:
        """The number of records, without their chunks."""
        return len(self.texts)

    @property
    def rows(self) -> int:
        """The number of records and their chunks."""
        return self.count + (0 if self.chunks is None else self.chunks.columns.count)

    @property
    def characters(self) -> int:
        """The length of the texts."""
        own = pc.sum(pc.utf8_length(self.texts)).as_py() or 0
        return int(own) + (0 if self.chunks is None else self.chunks.columns.characters)

    @property
    def size(self) -> int:
        """The bytes of the texts and vectors, about."""
        own = int(self.texts.nbytes) + (0 if self.vectors is None else int(self.vectors.nbytes))
        return own + (0 if self.chunks is None else self.chunks.columns.size)

    @property
    def order(self) -> Rows:
        """The order of all rows, records first and then chunks, in which each follows its own."""
        owners = np.zeros(0, np.int64) if self.chunks is None else self.chunks.owners
        ranks = np.concatenate([np.arange(self.count) * 2, owners * 2 + 1])
        return np.argsort(ranks, kind="stable")

    @property
    def owners(self) -> Rows:
        """The record that each row is or is a chunk of, in that order."""
        numbers = np.arange(self.count)
        return numbers if self.chunks is None else np.sort(np.append(numbers, self.chunks.owners))

    def records(self) -> list[FrameRecord]:
        """Returns the same as single records, each with its chunks after it."""
        own = self._own_records()
        if self.chunks is None:
            return own
        own += self.chunks.columns._own_records()
        return [own[place] for place in self.order.tolist()]

    def _own_records(self) -> list[FrameRecord]:
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
        if self.origins is not None:
            for record, origin in zip(records, self.origins.to_pylist(), strict=True):
                record.origin = origin
        if self.parents is not None:
            keys = self.parents.keys.to_pylist()
            for record, key, links in zip(records, keys, self.parents.links(), strict=True):
                record.parent, record.metadata["relationships"] = key, links
        if self.vectors is not None:
            for record, vector in zip(records, vectors_of(self.vectors), strict=True):
                if vector is not None:
                    record.vector, record.embedder = vector, self.embedder
        return records

    def take(self, rows: Rows) -> FrameColumns:
        """Returns some records, which are in order, with their chunks."""
        places = pa.array(rows)
        chunks = None
        if self.chunks is not None:
            owners = self.chunks.owners
            owned = np.flatnonzero(np.isin(owners, rows))
            columns = self.chunks.columns.take(owned)
            chunks = Chunks(np.searchsorted(rows, owners[owned]), columns)
        return replace(
            self,
            texts=self.texts.take(places),
            unique_ids=self.unique_ids.take(places),
            timestamps=None if self.timestamps is None else self.timestamps.take(places),
            origins=None if self.origins is None else self.origins.take(places),
            parents=None if self.parents is None else self.parents.take(places),
            vectors=None if self.vectors is None else self.vectors.take(places),
            metadata={name: cells.take(rows) for name, cells in self.metadata.items()},
            links=None if self.links is None else self.links.take(rows),
            chunks=chunks,
        )

    def slice(self, start: int, stop: int) -> FrameColumns:
        """Returns records that follow each other and have no chunks, without copying columns."""
        assert self.chunks is None
        return replace(
            self,
            texts=self.texts[start:stop],
            unique_ids=self.unique_ids[start:stop],
            timestamps=None if self.timestamps is None else self.timestamps[start:stop],
            origins=None if self.origins is None else self.origins[start:stop],
            parents=None
            if self.parents is None
            else Parents(self.parents.keys[start:stop], self.parents.uris[start:stop]),
            vectors=None if self.vectors is None else self.vectors[start:stop],
            metadata={name: cells.slice(start, stop) for name, cells in self.metadata.items()},
            links=None if self.links is None else self.links.slice(start, stop),
        )

    @classmethod
    def concat(cls, parts: Sequence[FrameColumns]) -> FrameColumns:
        """Joins batches.

        Raises:
            NotByColumns: they are of different types, or some are chunks and some are not.
        """
        if len(parts) == 1:
            return parts[0]
        embedders = {part.embedder for part in parts if part.vectors is not None}
        kinds = {(part.record_type, part.parents is None) for part in parts}
        if len(kinds) > 1 or len(embedders) > 1:
            raise NotByColumns
        names = dict.fromkeys(name for part in parts for name in part.metadata)
        counts = [part.count for part in parts]
        parents = [part.parents for part in parts if part.parents is not None]
        return cls(
            pa.concat_arrays([part.texts for part in parts]),
            pa.concat_arrays([part.unique_ids for part in parts]),
            _concat([part.timestamps for part in parts], counts),
            parts[0].record_type,
            {name: _joined([part.metadata.get(name) for part in parts], counts) for name in names},
            _joined_links(parts),
            _concat([part.origins for part in parts], counts),
            Parents(
                pa.concat_arrays([one.keys for one in parents]),
                pa.concat_arrays([one.uris for one in parents]),
            )
            if parents
            else None,
            _concat([part.vectors for part in parts], counts),
            next(iter(embedders), None),
            _joined_chunks(parts),
        )


def _concat(columns: Sequence[pa.Array | None], counts: Sequence[int]) -> pa.Array | None:
    """Joins columns of parts; those of parts without it are null.

    Raises:
        NotByColumns: they have different types.
    """
    kinds = {column.type for column in columns if column is not None}
    if not kinds:
        return None
    if len(kinds) > 1:
        raise NotByColumns
    (kind,) = kinds
    return pa.concat_arrays(
        pa.nulls(count, kind) if column is None else column
        for column, count in zip(columns, counts, strict=True)
    )


def _joined_chunks(parts: Sequence[FrameColumns]) -> Chunks | None:
    found, owners, first = [], [], 0
    for part in parts:
        if part.chunks is not None:
            found.append(part.chunks.columns)
            owners.append(part.chunks.owners + first)
        first += part.count
    return Chunks(np.concatenate(owners), FrameColumns.concat(found)) if found else None


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
        raise NotByColumns(_not_unicode(column)) from None


def _not_unicode(column: pa.Array) -> Mask | None:
    """Marks text that is not Unicode; None if there is none."""
    given = column.cast(pa.large_binary()).to_pylist()
    rows = np.array([one is not None and not _is_unicode(one) for one in given], np.bool_)
    return rows if rows.any() else None


def _is_unicode(text: bytes) -> bool:
    try:
        return text.decode() is not None
    except UnicodeDecodeError:
        return False


def filled(column: pa.Array, value: str) -> pa.Array:
    """Returns text with a value in place of null."""
    return column if not column.null_count else pc.fill_null(column, value)
