"""Lays out metadata in rows, notes how, and decodes rows as records.

Metadata goes into a column that can hold it, or into `custom_metadata`. The work goes by name, not
by record, because most names of a batch have only text, which a few calls of C handle without a
loop. `encode.py` describes the layout.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from contextframe_beam.errors import DatasetError, RecordError
from contextframe_beam.frames.columns import MISSING
from contextframe_beam.frames.place import Place
from contextframe_beam.frames.record import FrameRecord, uuid_of
from contextframe_beam.frames.schema import (
    FIELD_PREFIX,
    FIT,
    KEY_VALUE,
    fit_date,
    fit_relationships,
    fit_text,
    fit_texts,
    fit_title,
    is_date,
)
from contextframe_beam.frames.values import (
    dump_json,
    is_unicode,
    load_json,
    lone_surrogate,
    vectors_of,
)

# Work by name grows with rows times names. A batch is split if that is more than this many times
# the number of values, and more than the work of another batch.
_SPARSE = 8
_SMALL = 8192

_TEXT_ONLY = {str}
_TEXT_OR_NONE = {str, type(None)}


class MetadataLayout:
    """The metadata of a batch, by column and by entry.

    Args:
        records: The records.
        metadata: Their metadata, dictionaries of any content.
        notes: Collects notes for readers of the rows.

    Attributes:
        names: All metadata names of the batch, sorted.
        columns: The values of each column with values.
        entries: The texts of each name in `custom_metadata`; None for rows without it.
        hashed: The stored values, by name in the order of `names`; None for rows without that
            name.
        errors: Why a record cannot be stored, by its index.
        sparse: Whether the records share so few names that smaller batches are better; then there
            is no layout.
    """

    def __init__(
        self, records: Sequence[FrameRecord], metadata: Sequence[dict[Any, Any]], notes: RowNotes
    ) -> None:
        self.names: list[str] = []
        self.columns: dict[str, Sequence[Any]] = {}
        self.entries: dict[str, Sequence[str | None]] = {}
        self.hashed: list[Sequence[Any]] = []
        self.errors: dict[int, RecordError] = {}
        self.sparse = False
        self._records = records
        self._metadata = metadata
        self._notes = notes
        self._count = len(records)
        if records:
            self._lay_out()

    @classmethod
    def of_name(
        cls,
        name: str,
        values: Sequence[Any],
        notes: RowNotes,
        count: int,
        records: Sequence[FrameRecord] = (),
    ) -> MetadataLayout:
        """Lays out the values of one name.

        Args:
            name: The name.
            values: Its value in each row, or MISSING.
            notes: Collects notes for readers of the rows.
            count: The number of rows.
            records: The id and the time of each row, for the names `relationships` and `timestamp`.
        """
        layout = cls([], [], notes)
        layout._count, layout._records = count, records
        fit = FIT.get(name)
        if fit is None:
            layout._entry(name, values)
        else:
            layout._column(name, values, fit)
        return layout

    def _lay_out(self) -> None:
        all_metadata = self._metadata
        first = tuple(all_metadata[0])
        alike = all(map(first.__eq__, map(tuple, all_metadata)))
        names = dict.fromkeys(first if alike else chain.from_iterable(all_metadata))
        if not _TEXT_ONLY.issuperset(map(type, names)) or not is_unicode("".join(names)):
            for index, metadata in enumerate(all_metadata):
                for key in metadata:
                    if not isinstance(key, str):
                        self.errors[index] = RecordError(
                            f"metadata has the key {key!r} ({type(key).__name__}); keys are text"
                        )
                    elif not is_unicode(key):
                        self.errors[index] = RecordError(
                            f"the metadata key {key!a} holds a lone surrogate, which is not "
                            "Unicode text; rename it"
                        )
            if self.errors:
                return
        cells = sum(map(len, all_metadata))
        self.sparse = len(names) * self._count > _SPARSE * cells + _SMALL
        if self.sparse:
            return
        # Sorted, so that a row's digest does not depend on the order of its metadata or on its
        # neighbours.
        self.names = sorted(names)
        by_name: dict[str, Sequence[Any]] = {}
        if alike:
            by_name = dict(
                zip(first, zip(*map(dict.values, all_metadata), strict=True), strict=False)
            )
        for name in self.names:
            values = by_name.get(name) or [metadata.get(name, MISSING) for metadata in all_metadata]
            fit = FIT.get(name)
            if fit is None:
                self._entry(name, values)
            else:
                self._column(name, values, fit)

    def _entry(self, name: str, values: Sequence[Any]) -> None:
        """Makes a name an entry of custom_metadata."""
        if name == "timestamp":
            self._own_timestamp(values)
        kinds = set(map(type, values))
        if kinds == _TEXT_ONLY:
            self.entries[name] = values
            self.hashed.append(values)
            return
        if kinds == _TEXT_OR_NONE:
            self.entries[name] = values
            self.hashed.append(["" if value is None else value for value in values])
            nulls = [index for index, value in enumerate(values) if value is None]
            self._notes.add("null", name, nulls)
            return
        texts: list[str | None] = [None] * self._count
        hashed: list[Any] = [None] * self._count
        self._texts(name, values, texts, hashed)
        self.entries[name] = texts
        self.hashed.append(hashed)

    def _column(self, name: str, values: Sequence[Any], fit: Callable[[Any], Any]) -> None:
        """Makes a name a column, and also an entry if the column cannot hold all of a value."""
        if set(map(type, values)) == _TEXT_ONLY:
            if fit is fit_text or (fit is fit_title and all(values)):
                self.columns[name] = values
                self.hashed.append(values)
                return
            if fit is fit_date:
                days = [value[:10] for value in values]
                if all(map(is_date, set(days))):
                    self.columns[name] = days
                    self.hashed.append(values)
                    lengths = set(map(len, values))
                    if 10 not in lengths:
                        self.entries[name] = values
                    elif len(lengths) > 1:
                        self.entries[name] = [
                            None if len(value) == 10 else value for value in values
                        ]
                    return
        if fit is fit_texts and all(map(fit_texts, values)):
            self.columns[name] = values
            self.hashed.append(values)
            return
        column: list[Any] = [None] * self._count
        texts: list[str | None] = [None] * self._count
        hashed: list[Any] = [None] * self._count
        rest: list[Any]
        if name == "relationships":
            rest = self._relationships(values, column, hashed)
        else:
            rest = [MISSING] * self._count
            for index, value in enumerate(values):
                if value is None or value is MISSING:
                    rest[index] = value
                    continue
                fitted = column[index] = fit(value)
                if fitted is value:
                    hashed[index] = value
                else:
                    rest[index] = value
        self._texts(name, rest, texts, hashed)
        self.columns[name] = column
        self.entries[name] = texts
        self.hashed.append(hashed)

    def _relationships(
        self, values: Sequence[Any], column: list[Any], hashed: list[Any]
    ) -> list[Any]:
        """Fills the column of relationships; returns the values that it cannot hold completely."""
        rest: list[Any] = [MISSING] * self._count
        targets: list[int] = []
        for index, value in enumerate(values):
            if value is None or value is MISSING:
                rest[index] = value
                continue
            try:
                rows, is_target, exact = fit_relationships(value, self._records[index].unique_id)
            except RecordError as error:
                self.errors[index] = error
                continue
            except UnicodeEncodeError:
                self.errors[index] = lone_surrogate(self._records[index])
                continue
            column[index] = rows
            if exact:
                hashed[index] = rows
                if is_target:
                    targets.append(index)
            else:
                rest[index] = value
        self._notes.add("targets", None, targets)
        return rest

    def _texts(
        self,
        name: str,
        values: Sequence[Any],
        texts: list[str | None],
        hashed: list[Any],
    ) -> None:
        """Fills in the text of each value: text as it is, others as JSON."""
        as_json: list[int] = []
        nulls: list[int] = []
        for index, value in enumerate(values):
            if type(value) is str:
                texts[index] = hashed[index] = value
            elif value is None:
                nulls.append(index)
                hashed[index] = ""
            elif value is not MISSING:
                try:
                    texts[index] = hashed[index] = dump_json(value, f"metadata[{name!r}]")
                    as_json.append(index)
                except RecordError as error:
                    self.errors[index] = error
        self._notes.add("json", name, as_json)
        self._notes.add("null", name, nulls)

    def _own_timestamp(self, values: Sequence[Any]) -> None:
        """Keeps the record's timestamp apart from metadata with the same name."""
        for index, value in enumerate(values):
            if value is not MISSING:
                self._notes.add("timestamp", self._records[index].timestamp, [index])


def custom_metadata(entries: Mapping[str, Sequence[str | None]], count: int) -> pa.Array:
    """Returns the column `custom_metadata` of `count` rows; a None is left out."""
    if not entries:
        return pa.ListArray.from_arrays(
            pa.array([0] * (count + 1), pa.int32()), pa.array([], KEY_VALUE)
        )
    names = sorted(entries)
    width = len(names)
    flat = chain.from_iterable(zip(*map(entries.__getitem__, names), strict=True))
    values = pa.array(list(flat), pa.string())
    keys = pa.array(names, pa.string()).take(
        pa.array(np.tile(np.arange(width, dtype=np.int32), count))
    )
    ends = np.arange(count + 1, dtype=np.int32) * width
    if values.null_count:
        there = values.is_valid()
        values, keys = values.filter(there), keys.filter(there)
        widths = there.to_numpy(zero_copy_only=False).reshape(count, width).sum(axis=1)
        ends[1:] = np.cumsum(widths)
    entries = pa.StructArray.from_arrays([keys, values], fields=list(KEY_VALUE))
    return pa.ListArray.from_arrays(pa.array(ends), entries)


class RowNotes:
    """Collects notes on the rows of a batch.

    Args:
        count: The number of rows in the batch.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._common: list[tuple[str, str | None]] = []
        self._special: list[tuple[str, str | None, Sequence[int]]] = []

    def add(self, kind: str, name: str | None, rows: Sequence[int]) -> None:
        """Adds a note to the rows with these indices, if there are any."""
        # A note on several rows is a name, and names are Unicode.
        if len(rows) == self._count > 1:
            self._common.append((kind, name))
        elif rows:
            self._special.append((kind, name, rows))

    def texts(self) -> tuple[list[str | None], list[int]]:
        """Returns the text of each row, and the rows whose notes are not Unicode text."""
        texts = [note_text(tuple(self._common))] * self._count
        by_row: dict[int, list[tuple[str, str | None]]] = {}
        for kind, name, rows in self._special:
            for index in rows:
                by_row.setdefault(index, list(self._common)).append((kind, name))
        refused = []
        for index, notes in by_row.items():
            try:
                texts[index] = note_text(tuple(notes))
            except RecordError:
                refused.append(index)
        return texts, refused


@lru_cache(maxsize=1024)
def note_text(notes: tuple[tuple[str, str | None], ...]) -> str | None:
    """Returns the notes on a row, each a kind and what it is about; None without notes."""
    if not notes:
        return None
    parts: dict[str, Any] = {}
    for kind, name in sorted(notes, key=str):
        if kind == "targets":
            parts[kind] = True
        elif kind == "timestamp":
            parts[kind] = name
        else:
            parts.setdefault(kind, []).append(name)
    return dump_json(parts, "metadata")


def decode_rows(batch: pa.RecordBatch) -> Iterator[FrameRecord]:
    """Yields the record of each row of `batch`; columns that were not read count as null.

    Raises:
        DatasetError: the notes on a row make no sense.
    """
    # Own fields are made of the others.
    names = [
        name
        for name in batch.schema.names
        if name != "vector" and not name.startswith(FIELD_PREFIX)
    ]
    vectors: list[Any] = [None] * batch.num_rows
    if "vector" in batch.schema.names:
        vectors = vectors_of(batch.column("vector"))
    for row, vector in zip(batch.select(names).to_pylist(), vectors, strict=True):
        try:
            record = _decode(row, vector)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise DatasetError(
                f"the row {row.get('uuid')} cannot be read ({error}); "
                "it was written by a newer release or changed by hand"
            ) from error
        yield record


def _decode(row: dict[str, Any], vector: Any) -> FrameRecord:
    encoding: dict[str, Any] = json.loads(row.get("x_encoding") or "{}")
    made = set(encoding.get("made", ()))
    as_json = set(encoding.get("json", ()))
    metadata: dict[str, Any] = {}
    timestamp = encoding.get("timestamp")
    for entry in row.get("custom_metadata") or ():
        if entry is None or entry["key"] is None:
            continue
        name, value = entry["key"], entry["value"]
        if name == "timestamp" and "timestamp" not in encoding:
            timestamp = value
        else:
            metadata[name] = load_json(value) if name in as_json else value
    for name in FIT:
        value = row.get(name)
        if value is None or name in metadata or name in made:
            continue
        if name == "relationships":
            metadata[name] = [
                _decode_relationship(item, bool(encoding.get("targets")))
                for item in value
                if item is not None
            ]
        elif name != "uuid" or "given" in encoding or value != uuid_of(row.get("uri") or ""):
            metadata[name] = value
    for name in encoding.get("null", ()):
        metadata[name] = None
    context = row.get("context")
    unique_id = None if "uri" in made else row.get("uri")
    if "uri" in encoding.get("empty", ()):
        unique_id = ""
    return FrameRecord(
        text_content=row.get("text_content"),
        metadata=metadata,
        record_type=row.get("record_type") or "document",
        unique_id=unique_id,
        timestamp=timestamp,
        context=None if context is None else _context_of(context),
        vector=vector,
        raw_data=row.get("raw_data"),
        raw_data_type=row.get("raw_data_type"),
        parent=None if (parent := row.get("x_parent")) is None else str(UUID(bytes=parent)),
        # That of a chunk is the digest of its document, which is made when it is written.
        origin=row.get("x_origin") if parent is None else None,
        embedder=row.get("x_embedder"),
        place=None if (part := row.get("x_partition")) is None else Place(part, row.get("x_point")),
        readers=row.get("x_readers"),
    )


def _context_of(text: str) -> dict[str, Any]:
    """Returns the context; text from others that is not a JSON object is under `text`."""
    try:
        value = load_json(text)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"text": text}


def _decode_relationship(item: dict[str, Any], target: bool) -> dict[str, Any]:
    if not target:
        return {name: value for name, value in item.items() if value is not None}
    decoded: dict[str, Any] = {"relationship_type": item["type"], "target_id": item["uri"]}
    if item["description"] is not None:
        decoded["metadata"] = load_json(item["description"])
    return decoded
