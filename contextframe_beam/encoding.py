"""Records to rows and back, without loss.

`encode_records` is the hottest code of an ingest: it turns a batch of records into one Arrow
RecordBatch with a list a column. `decode_rows` is its inverse (`decoding.py`).

How metadata is laid out in a row:

* A name that has a column goes there if the column can hold the value exactly.
* Everything else is an entry of `custom_metadata`: text as it is, other values as JSON. An entry
  named like a column holds the full value of which the column has only the part that it can
  hold (the date of a time, the name of an author object).
* `timestamp` is the entry of that name; its date fills `updated_at` where metadata has none.
* `x_encoding` says in JSON what cannot be seen from the row: entries that are JSON (`json`),
  names whose value is None (`null`), columns that were filled in and were not given (`made`) or
  were given where they look filled in (`given`), the form of the relationships (`targets`), the
  record's timestamp where metadata has one of its own (`timestamp`), an id that is empty text
  (`empty`). It is null where there is nothing to say, and in rows that others wrote.

`x_digest` is taken over what is stored: equal rows have equal digests, whatever the order of
their metadata and the rows beside them, and different rows have different ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import chain, repeat
from operator import attrgetter
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from xxhash import xxh3_128, xxh3_128_digest

from contextframe_beam._fields import (
    FIT,
    fit_date,
    fit_relationships,
    fit_text,
    fit_texts,
    fit_title,
    is_date,
    title_of,
)
from contextframe_beam._json import check_json, dump_json
from contextframe_beam._vectors import fit_vector, null_array, vector_array
from contextframe_beam.decoding import decode_rows
from contextframe_beam.errors import RecordError
from contextframe_beam.record import ANCHOR_KEY, RESERVED, FrameRecord, uuid_of
from contextframe_beam.schema import KEY_VALUE, RECORD_TYPES, frame_schema

__all__ = ["decode_rows", "encode_records", "fit_vector", "null_array", "record_uuid"]

# Work by column grows with rows times names. A batch is split where that is more than so many times
# the values that there are, and more than the work that another batch costs.
_SPARSE = 8
_SMALL = 8192


def record_uuid(record: FrameRecord) -> str:
    """Returns the key of the record's row: its metadata's uuid, or one made from its id.

    Raises:
        RecordError: the record has neither an id nor content, or cannot be stored.
    """
    encoder = _Encoder([record], None)
    for error in encoder.errors.values():
        raise error
    return str(encoder.columns["uuid"][0])


def encode_records(
    records: Sequence[FrameRecord], *, embed_dim: int, source: str | None = None
) -> tuple[pa.RecordBatch, list[tuple[int, RecordError]]]:
    """Encodes records as one batch of rows in the order of `frame_schema`.

    Args:
        records: The records.
        embed_dim: The vector length of the dataset.
        source: What goes to the column `x_source`.

    Returns:
        The batch, and for each record that cannot be stored its index and why.
    """
    errors: dict[int, RecordError] = {}
    kept = list(range(len(records)))
    encoder = _Encoder(records, embed_dim)
    while encoder.errors:
        errors.update((kept[index], error) for index, error in encoder.errors.items())
        kept = [index for place, index in enumerate(kept) if place not in encoder.errors]
        encoder = _Encoder([records[index] for index in kept], embed_dim)
    if not encoder.sparse:
        return encoder.batch(source), sorted(errors.items())
    half = len(kept) // 2
    batches = []
    for part in (kept[:half], kept[half:]):
        batch, found = encode_records(
            [records[index] for index in part], embed_dim=embed_dim, source=source
        )
        batches.append(batch)
        errors.update((part[place], error) for place, error in found)
    whole = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return (whole or batches)[0], sorted(errors.items())


class _Missing:
    """Stands for metadata that a record does not have."""


_MISSING = _Missing()
_TEXT_ONLY = {str}
_EVERY_ROW: None = None


class _Encoder:
    """Turns records into columns, a metadata name at a time.

    Work goes by column, not by record, because most columns of a batch hold nothing but text and
    are then handled by a few calls of C instead of a loop.

    Attributes:
        columns: The values of each column that has any.
        errors: Why a record cannot be stored, by its index; then there are no columns.
        sparse: Whether the records share so few names that they should be encoded in smaller
            numbers; then there are no columns.
    """

    def __init__(self, records: Sequence[FrameRecord], embed_dim: int | None) -> None:
        self.columns: dict[str, Sequence[Any]] = {}
        self.errors: dict[int, RecordError] = {}
        self.sparse = False
        self._records = records
        self._embed_dim = embed_dim
        self._count = len(records)
        # The records' attributes by name, and the names of those that any record has.
        self._values: dict[str, Sequence[Any]] = {}
        self._used: set[str] = set()
        self._entries: dict[str, Sequence[str | None]] = {}
        # What x_encoding says, as (kind, name, rows); rows None means every row.
        self._marks: list[tuple[str, str | None, list[int] | None]] = []
        # Per name what the rows store, None where they have nothing of that name.
        self._hashed: list[Sequence[Any]] = []
        steps = (self._check, self._metadata, self._attributes, self._identify)
        for step in steps if records else ():
            step()
            if self.errors or self.sparse:
                return

    def batch(self, source: str | None) -> pa.RecordBatch:
        """Returns the rows in the order of `frame_schema`."""
        schema = _frame_schema(self._embed_dim or 1)
        arrays = []
        for field in schema:
            name = field.name
            if name == "custom_metadata":
                arrays.append(self._custom_metadata())
            elif name == "x_source" and source is not None:
                arrays.append(pa.repeat(pa.scalar(source, pa.string()), self._count))
            elif name not in self.columns:
                arrays.append(null_array(field.type, self._count))
            elif name == "vector":
                arrays.append(vector_array(self.columns[name], field.type))
            else:
                arrays.append(pa.array(self.columns[name], field.type))
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _check(self) -> None:
        """Refuses attributes of wrong types."""
        records = self._records
        if not _RECORDS_ONLY.issuperset(map(type, records)):
            for index, record in enumerate(records):
                if not isinstance(record, FrameRecord):
                    self.errors[index] = RecordError(_wrong("the record", "a FrameRecord", record))
            if self.errors:
                return
        attributes = zip(*map(_ATTRIBUTE_VALUES, records), strict=True)
        for (name, allowed, expected), values in zip(_ATTRIBUTES, attributes, strict=True):
            self._values[name] = values
            kinds = set(map(type, values))
            if kinds != _NONE_ONLY:
                self._used.add(name)
            if allowed is not None and not allowed.issuperset(kinds):
                for index, value in enumerate(values):
                    if not isinstance(value, tuple(allowed)):
                        self.errors[index] = RecordError(_wrong(name, expected, value))
        if self.errors:
            return
        if not _RECORD_TYPES.issuperset(self._values["record_type"]):
            for index, kind in enumerate(self._values["record_type"]):
                if kind not in _RECORD_TYPES:
                    self.errors[index] = RecordError(
                        _wrong("record_type", " or ".join(RECORD_TYPES), kind)
                    )

    def _metadata(self) -> None:
        """Lays the metadata out in columns and entries."""
        all_metadata: Sequence[dict[Any, Any]] = self._values["metadata"]
        self._names: list[str] = []
        first = tuple(all_metadata[0])
        alike = all(map(first.__eq__, map(tuple, all_metadata)))
        names = dict.fromkeys(first if alike else chain.from_iterable(all_metadata))
        if not _TEXT_ONLY.issuperset(map(type, names)) or not _is_unicode("".join(names)):
            for index, metadata in enumerate(all_metadata):
                for key in metadata:
                    if not isinstance(key, str):
                        self.errors[index] = RecordError(
                            f"metadata has the key {key!r} ({type(key).__name__}); keys are text"
                        )
                    elif not _is_unicode(key):
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
        # Sorted, so that a row's digest depends neither on the order of its metadata nor on its
        # neighbours'.
        self._names = sorted(names)
        by_name: dict[str, Sequence[Any]] = {}
        if alike:
            by_name = dict(
                zip(first, zip(*map(dict.values, all_metadata), strict=True), strict=False)
            )
        for name in self._names:
            values = by_name.get(name) or [
                metadata.get(name, _MISSING) for metadata in all_metadata
            ]
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
            self._entries[name] = values
            self._hashed.append(values)
            return
        if kinds == _TEXT_OR_NONE:
            self._entries[name] = values
            self._hashed.append(["" if value is None else value for value in values])
            nulls = [index for index, value in enumerate(values) if value is None]
            self._marks.append(("null", name, nulls))
            return
        texts: list[str | None] = [None] * self._count
        hashed: list[Any] = [None] * self._count
        self._texts(name, values, texts, hashed)
        self._entries[name] = texts
        self._hashed.append(hashed)

    def _column(self, name: str, values: Sequence[Any], fit: Callable[[Any], Any]) -> None:
        """Makes a name a column, and an entry where the column cannot hold all of a value."""
        if set(map(type, values)) == _TEXT_ONLY:
            if fit is fit_text or (fit is fit_title and all(values)):
                self.columns[name] = values
                self._hashed.append(values)
                return
            if fit is fit_date:
                days = [value[:10] for value in values]
                if all(map(is_date, set(days))):
                    self.columns[name] = days
                    self._hashed.append(values)
                    lengths = set(map(len, values))
                    if 10 not in lengths:
                        self._entries[name] = values
                    elif len(lengths) > 1:
                        self._entries[name] = [
                            None if len(value) == 10 else value for value in values
                        ]
                    return
        if fit is fit_texts and all(map(fit_texts, values)):
            self.columns[name] = values
            self._hashed.append(values)
            return
        column: list[Any] = [None] * self._count
        texts: list[str | None] = [None] * self._count
        hashed: list[Any] = [None] * self._count
        rest: list[Any]
        if name == "relationships":
            rest = self._relationships(values, column, hashed)
        else:
            rest = [_MISSING] * self._count
            for index, value in enumerate(values):
                if value is None or value is _MISSING:
                    rest[index] = value
                    continue
                fitted = column[index] = fit(value)
                if fitted is value:
                    hashed[index] = value
                else:
                    rest[index] = value
        self._texts(name, rest, texts, hashed)
        self.columns[name] = column
        self._entries[name] = texts
        self._hashed.append(hashed)

    def _relationships(
        self, values: Sequence[Any], column: list[Any], hashed: list[Any]
    ) -> list[Any]:
        """Fills the column of relationships; returns those values that it cannot hold wholly."""
        rest: list[Any] = [_MISSING] * self._count
        targets: list[int] = []
        for index, value in enumerate(values):
            if value is None or value is _MISSING:
                rest[index] = value
                continue
            try:
                rows, is_target, exact = fit_relationships(value, self._records[index].unique_id)
            except RecordError as error:
                self.errors[index] = error
                continue
            except UnicodeEncodeError:
                self._refuse_lone_surrogate(index)
                continue
            column[index] = rows
            if exact:
                hashed[index] = rows
                if is_target:
                    targets.append(index)
            else:
                rest[index] = value
        if targets:
            self._marks.append(("targets", None, targets))
        return rest

    def _texts(
        self,
        name: str,
        values: Sequence[Any],
        texts: list[str | None],
        hashed: list[Any],
    ) -> None:
        """Fills in the text of each value that is there: text as it is, others as JSON."""
        as_json: list[int] = []
        nulls: list[int] = []
        for index, value in enumerate(values):
            if type(value) is str:
                texts[index] = hashed[index] = value
            elif value is None:
                nulls.append(index)
                hashed[index] = ""
            elif value is not _MISSING:
                try:
                    texts[index] = hashed[index] = dump_json(value, f"metadata[{name!r}]")
                    as_json.append(index)
                except RecordError as error:
                    self.errors[index] = error
        for kind, rows in (("json", as_json), ("null", nulls)):
            if rows:
                every = len(rows) == self._count
                self._marks.append((kind, name, _EVERY_ROW if every else rows))

    def _own_timestamp(self, values: Sequence[Any]) -> None:
        """Keeps the record's timestamp apart from metadata of the same name."""
        for index, value in enumerate(values):
            if value is not _MISSING:
                self._marks.append(("timestamp", self._records[index].timestamp, [index]))

    def _attributes(self) -> None:
        """Lays out what is not metadata: text, title, timestamp, context, vector, raw data."""
        columns, values, used = self.columns, self._values, self._used
        columns["text_content"] = values["text_content"]
        columns["record_type"] = values["record_type"]
        if "timestamp" in used:
            self._timestamps()
        self._titles()
        if "context" in used:
            columns["context"] = self._each(
                "context", lambda context: dump_json(context, "context")
            )
        if "raw_data_type" in used:
            columns["raw_data_type"] = values["raw_data_type"]
            for index, kind in enumerate(columns["raw_data_type"]):
                if kind is not None and not _is_unicode(kind):
                    self._refuse_lone_surrogate(index)
        if "vector" in used:
            columns["vector"] = self._each(
                "vector", lambda vector: fit_vector(vector, self._embed_dim)
            )
        if "raw_data" in used:
            columns["raw_data"] = self._each("raw_data", bytes)

    def _each(self, name: str, convert: Callable[[Any], Any]) -> list[Any]:
        converted: list[Any] = [None] * self._count
        for index, value in enumerate(self._values[name]):
            if value is not None:
                try:
                    converted[index] = convert(value)
                except RecordError as error:
                    self.errors[index] = error
        return converted

    def _timestamps(self) -> None:
        timestamps, all_metadata = self._values["timestamp"], self._values["metadata"]
        if "timestamp" in self._entries:
            merged: list[str | None] = list(self._entries["timestamp"])
            for index, metadata in enumerate(all_metadata):
                if "timestamp" not in metadata:
                    merged[index] = timestamps[index]
            self._entries["timestamp"] = merged
        else:
            self._entries["timestamp"] = timestamps
        days = self.columns.get("updated_at")
        if days is not None and None not in days:
            return
        filled = self.columns["updated_at"] = list(days or [None] * self._count)
        made = []
        for index, timestamp in enumerate(timestamps):
            if filled[index] is None:
                filled[index] = fit_date(timestamp)
                if (
                    filled[index] is not None
                    and "updated_at" not in self._values["metadata"][index]
                ):
                    made.append(index)
        self._mark_made("updated_at", made)

    def _titles(self) -> None:
        titles = self.columns.get("title")
        if titles is not None and None not in titles:
            return
        filled = self.columns["title"] = list(titles or [None] * self._count)
        made = []
        for index, record in enumerate(self._records):
            if filled[index] is None:
                filled[index] = title_of(record.text_content, record.unique_id)
                if "title" not in record.metadata:
                    made.append(index)
        self._mark_made("title", made)

    def _mark_made(self, name: str, rows: list[int]) -> None:
        if rows:
            every = len(rows) == self._count
            self._marks.append(("made", name, _EVERY_ROW if every else rows))

    def _identify(self) -> None:
        """Gives each row its digest, id and key."""
        unique_ids = list(self._values["unique_id"])
        anonymous = [index for index, unique_id in enumerate(unique_ids) if not unique_id]
        for index in anonymous:
            kind = "made" if unique_ids[index] is None else "empty"
            self._marks.append((kind, "uri", [index]))
        if any(map(str.startswith, filter(None, unique_ids), repeat(RESERVED))):
            self._refuse_reserved(unique_ids)
        for index, own in enumerate(self.columns.get("uuid", ())):
            unique_id = unique_ids[index]
            # Else a reader would take it for the one that is made from the unique_id.
            if own and unique_id and _is_unicode(unique_id) and own == uuid_of(unique_id):
                self._marks.append(("given", "uuid", [index]))
        encodings = self._encodings()
        digests = self._digests(unique_ids, encodings)
        if self.errors:
            return
        given = self.columns.get("uuid")
        for index in anonymous:
            record = self._records[index]
            has_key = given is not None and given[index] is not None
            if not (record.text_content or record.raw_data or has_key or record.vector is not None):
                self.errors[index] = RecordError(
                    "the record has neither text_content nor unique_id, so there is nothing to "
                    "store and nothing to know it by; set one of them in map_to_frame_record"
                )
            unique_ids[index] = f"content:{digests[index].hex()}"
            if not self.columns["title"][index]:
                titles = self.columns["title"] = list(self.columns["title"])
                titles[index] = unique_ids[index]
        uuids = [uuid_of(unique_id) for unique_id in unique_ids if unique_id]
        if given is not None:
            self._refuse_own_keys(given)
            uuids = [made if own is None else own for own, made in zip(given, uuids, strict=True)]
        self.columns["uuid"] = uuids
        self.columns["uri"] = unique_ids
        self.columns["x_digest"] = digests
        if any(encodings):
            self.columns["x_encoding"] = encodings

    def _refuse_reserved(self, unique_ids: list[str | None]) -> None:
        for index, unique_id in enumerate(unique_ids):
            if unique_id and unique_id.startswith(RESERVED):
                self.errors[index] = RecordError(
                    f"unique_id is {unique_id!r:.80}; ids that begin with {RESERVED} name the "
                    "dataset's own rows, choose another prefix"
                )

    def _refuse_own_keys(self, given: Sequence[str | None]) -> None:
        for index, key in enumerate(given):
            if key == ANCHOR_KEY:
                self.errors[index] = RecordError(
                    f"metadata['uuid'] is {key}, the key of a row that every dataset has of its "
                    "own; choose another one"
                )

    def _encodings(self) -> list[str | None]:
        common = [(kind, name) for kind, name, rows in self._marks if rows is _EVERY_ROW]
        encodings = [_encoding_of(tuple(common))] * self._count
        special: dict[int, list[tuple[str, str | None]]] = {}
        for kind, name, rows in self._marks:
            for index in rows or ():
                special.setdefault(index, list(common)).append((kind, name))
        for index, marks in special.items():
            try:
                encodings[index] = _encoding_of(tuple(marks))
            except RecordError:
                self._refuse_lone_surrogate(index)
        return encodings

    def _digests(self, unique_ids: list[str | None], encodings: list[str | None]) -> list[bytes]:
        """Returns 16 bytes over the content of each row, whatever the rows beside it."""
        columns = self.columns
        # JSON keeps apart what is text, list, number or missing, and where each ends.
        contents = map(orjson.dumps, self._contents(unique_ids, encodings))
        try:
            if "vector" not in columns and "raw_data" not in columns:
                return list(map(xxh3_128_digest, contents))
            nothing = [None] * self._count
            vectors, raw_data = columns.get("vector", nothing), columns.get("raw_data", nothing)
            return list(map(_digest, contents, vectors, raw_data))
        except TypeError:
            for index, row in enumerate(self._contents(unique_ids, encodings)):
                try:
                    orjson.dumps(row)
                except TypeError:
                    self._refuse_lone_surrogate(index)
            if not self.errors:
                raise
            return []

    def _contents(
        self, unique_ids: list[str | None], encodings: list[str | None]
    ) -> Iterable[Sequence[Any]]:
        """Yields what each row holds except vector and raw data."""
        whole = not any(None in hashed for hashed in self._hashed)
        rows: Iterable[Sequence[Any]] = zip(
            self._heads(encodings, whole),
            _without_none(self._values["timestamp"]),
            _without_none(unique_ids),
            _without_none(self.columns["text_content"]),
            *self._hashed,
            strict=True,
        )
        if whole:
            return rows
        return ([part for part in row if part is not None] for row in rows)

    def _heads(self, encodings: list[str | None], whole: bool) -> list[str]:
        """Returns what is often the same from row to row, the names of the metadata with it."""
        signatures: Iterable[tuple[str, ...]] = [tuple(self._names)] * self._count
        if not whole:
            signatures = map(tuple, self._values["metadata"])
        nothing = [None] * self._count
        leading = zip(
            signatures,
            self.columns["record_type"],
            self.columns.get("context", nothing),
            self.columns.get("raw_data_type", nothing),
            encodings,
            strict=True,
        )
        known: dict[tuple[Any, ...], str] = {}
        heads = []
        for key in leading:
            head = known.get(key)
            if head is None:
                names, *rest = key
                head = known[key] = orjson.dumps((sorted(names), *rest)).decode()
            heads.append(head)
        return heads

    def _refuse_lone_surrogate(self, index: int) -> None:
        self.errors[index] = RecordError(_lone_surrogate(self._records[index]))

    def _custom_metadata(self) -> pa.Array:
        if not self._entries:
            return pa.ListArray.from_arrays(
                pa.array([0] * (self._count + 1), pa.int32()), pa.array([], KEY_VALUE)
            )
        names = sorted(self._entries)
        count, width = self._count, len(names)
        flat = chain.from_iterable(zip(*map(self._entries.__getitem__, names), strict=True))
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


def _digest(content: bytes, vector: Any, raw_data: bytes | None) -> bytes:
    if vector is None and raw_data is None:
        return xxh3_128_digest(content)
    hashed = xxh3_128(content)
    for data in (None if vector is None else vector.tobytes(), raw_data):
        hashed.update(b"-" if data is None else b"%d:" % len(data))
        hashed.update(data or b"")
    return hashed.digest()


def _without_none(values: Sequence[Any]) -> Sequence[Any]:
    """Returns `values` with another mark for None, which means no such name further on."""
    return values if None not in values else [value is not None and value for value in values]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_RECORDS_ONLY = {FrameRecord}
_TEXT_OR_NONE = {str, type(None)}
_NONE_ONLY = {type(None)}
_RECORD_TYPES = frozenset(RECORD_TYPES)
_NONE = type(None)
# Attribute, types it may have (None: any), how an error says so.
_ATTRIBUTES: tuple[tuple[str, frozenset[type] | None, str], ...] = (
    ("metadata", frozenset({dict}), "a dict"),
    ("text_content", frozenset({str, _NONE}), "text or None"),
    ("unique_id", frozenset({str, _NONE}), "text or None"),
    ("record_type", frozenset({str}), " or ".join(RECORD_TYPES)),
    ("timestamp", frozenset({str, _NONE}), "ISO 8601 text or None"),
    ("context", frozenset({dict, _NONE}), "a dict or None"),
    ("raw_data", frozenset({bytes, bytearray, memoryview, _NONE}), "bytes or None"),
    ("raw_data_type", frozenset({str, _NONE}), "text or None"),
    ("vector", None, "a row of numbers"),  # fit_vector tells
)
_ATTRIBUTE_VALUES = attrgetter(*(name for name, _, _ in _ATTRIBUTES))


@lru_cache(maxsize=16)
def _frame_schema(embed_dim: int) -> pa.Schema:
    return frame_schema(embed_dim)


@lru_cache(maxsize=1024)
def _encoding_of(marks: tuple[tuple[str, str | None], ...]) -> str | None:
    if not marks:
        return None
    parts: dict[str, Any] = {}
    for kind, name in sorted(marks, key=str):
        if kind == "targets":
            parts[kind] = True
        elif kind == "timestamp":
            parts[kind] = name
        else:
            parts.setdefault(kind, []).append(name)
    return dump_json(parts, "metadata")


def _wrong(name: str, expected: str, value: object) -> str:
    shown = f"{value!r:.60}" if isinstance(value, str | int | float) else type(value).__name__
    return f"{name} is {shown}; expected {expected}"


def _lone_surrogate(record: FrameRecord) -> str:
    """Says where a record holds a lone surrogate."""
    places: dict[str, Any] = {
        name: getattr(record, name)
        for name in ("text_content", "unique_id", "timestamp", "raw_data_type", "metadata")
    }
    try:
        for where, value in places.items():
            check_json(value, where)
    except RecordError as error:
        return str(error)
    return "the record holds text that is not Unicode"
