"""Records to rows and back, without loss.

`encode_records` is the hottest code of an ingest: it turns a batch of records into one Arrow
RecordBatch with a list a column. `decode_rows` is its inverse.

How metadata is laid out in a row:

* A name that has a column goes there if the column can hold the value exactly.
* Everything else is an entry of `custom_metadata`: text as it is, other values as JSON. An entry
  named like a column holds the full value of which the column has only the part that it can
  hold (the date of a time, the name of an author object).
* `timestamp` is the entry of that name; its date fills `updated_at` where metadata has none.
* `x_encoding` says in JSON what cannot be seen from the row: entries that are JSON (`json`),
  names whose value is None (`null`), columns that were filled in and were not given (`made`),
  the form of the relationships (`targets`), a timestamp beside metadata of the same name
  (`timestamp`), an id that is empty text (`empty`). It is null where there is nothing to say, and
  in rows that others wrote.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa
from xxhash import xxh3_128, xxh3_128_digest

from contextframe_beam._json import dump_json, load_json
from contextframe_beam.errors import RecordError
from contextframe_beam.record import FrameRecord, is_uuid, target_unique_id, uuid_of
from contextframe_beam.schema import (
    COLLECTION_ID_TYPES,
    KEY_VALUE,
    RECORD_TYPES,
    frame_schema,
)

_TITLE_LENGTH = 120
_HEADING = re.compile(r"^#{1,6}[ \t]+(\S.*?)[ \t#]*$", re.MULTILINE)
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+\Z")
_CANONICAL = ("type", "id", "uri", "path", "cid", "title", "description")
# Separates what is hashed; fixed and random, so that no document holds it.
_SEPARATOR = "\x1f8d1c5b0e\x1e"

_LIST_SEPARATOR = "\x1f\x1d"
_ABSENT = "\x1f\x1e"


def record_uuid(record: FrameRecord) -> str:
    """Returns the key of the record's row: its metadata's uuid, or one made from its id.

    Raises:
        RecordError: the record has neither an id nor content, or cannot be stored.
    """
    given = record.metadata.get("uuid")
    if given is not None and is_uuid(given):
        return str(given).lower()
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
    return encoder.batch(source), sorted(errors.items())


def decode_rows(batch: pa.RecordBatch) -> Iterator[FrameRecord]:
    """Yields the record of each row of `batch`; columns that were not read count as null."""
    names = [name for name in batch.schema.names if name != "vector"]
    vectors: list[Any] = [None] * batch.num_rows
    if "vector" in batch.schema.names:
        vectors = _vectors_of(batch.column("vector"))
    for row, vector in zip(batch.select(names).to_pylist(), vectors, strict=True):
        yield _decode(row, vector)


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
    """

    def __init__(self, records: Sequence[FrameRecord], embed_dim: int | None) -> None:
        self.columns: dict[str, list[Any]] = {}
        self.errors: dict[int, RecordError] = {}
        self._records = records
        self._embed_dim = embed_dim
        self._count = len(records)
        self._entries: dict[str, Sequence[str | None]] = {}
        # What x_encoding says, as (kind, name, rows); rows None means every row.
        self._marks: list[tuple[str, str | None, list[int] | None]] = []
        self._hashed: list[Sequence[str | None]] = []
        steps = (self._check, self._metadata, self._attributes, self._identify)
        for step in steps if records else ():
            step()
            if self.errors:
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
                arrays.append(_vector_array(self.columns[name], field.type))
            else:
                arrays.append(pa.array(self.columns[name], field.type))
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _check(self) -> None:
        """Refuses attributes of wrong types."""
        records = self._records
        for name, allowed, expected in _ATTRIBUTES:
            if not allowed.issuperset(map(type, map(attrgetter(name), records))):
                for index, record in enumerate(records):
                    value = getattr(record, name)
                    if type(value) not in allowed:
                        self.errors[index] = RecordError(_wrong(name, expected, value))
        if not _RECORD_TYPES.issuperset(
            record.record_type for record in records if type(record.record_type) is str
        ):
            for index, record in enumerate(records):
                if record.record_type not in _RECORD_TYPES:
                    self.errors[index] = RecordError(
                        _wrong("record_type", " or ".join(RECORD_TYPES), record.record_type)
                    )

    def _metadata(self) -> None:
        """Lays the metadata out in columns and entries."""
        self._all_metadata = all_metadata = [record.metadata for record in self._records]
        self._names: list[str] = []
        names: dict[Any, None] = dict.fromkeys(chain.from_iterable(all_metadata))
        if not _TEXT_ONLY.issuperset(map(type, names)):
            for index, metadata in enumerate(all_metadata):
                odd = next((key for key in metadata if type(key) is not str), None)
                if any(type(key) is not str for key in metadata):
                    self.errors[index] = RecordError(
                        f"metadata has the key {odd!r} ({type(odd).__name__}); keys are text"
                    )
            return
        # Sorted, so that a row's digest depends neither on the order of its metadata nor on its
        # neighbours'.
        self._names = sorted(names)
        for name in self._names:
            values = [metadata.get(name, _MISSING) for metadata in all_metadata]
            fit = _FIT.get(name)
            if fit is None:
                self._entry(name, values)
            else:
                self._column(name, values, fit)

    def _entry(self, name: str, values: list[Any]) -> None:
        """Makes a name an entry of custom_metadata."""
        if name == "timestamp":
            self._own_timestamp(values)
        if set(map(type, values)) == _TEXT_ONLY:
            self._entries[name] = values
            self._hashed.append(values)
            return
        texts: list[str | None] = [None] * self._count
        hashed: list[str | None] = [None] * self._count
        self._texts(name, values, texts, hashed)
        self._entries[name] = texts
        self._hashed.append(hashed)

    def _column(self, name: str, values: list[Any], fit: Callable[[Any], Any]) -> None:
        """Makes a name a column, and an entry where the column cannot hold all of a value."""
        if set(map(type, values)) == _TEXT_ONLY:
            if fit is _fit_text or (fit is _fit_title and all(values)):
                self.columns[name] = values
                self._hashed.append(values)
                return
            if fit is _fit_date:
                days = [value[:10] for value in values]
                if all(map(_is_date, set(days))):
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
        column: list[Any] = [None] * self._count
        texts: list[str | None] = [None] * self._count
        hashed: list[str | None] = [None] * self._count
        rest: list[Any] = values
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
                    hashed[index] = value if type(value) is str else _hashable(value)
                else:
                    rest[index] = value
        self._texts(name, rest, texts, hashed)
        self.columns[name] = column
        self._entries[name] = texts
        self._hashed.append(hashed)

    def _relationships(
        self, values: list[Any], column: list[Any], hashed: list[str | None]
    ) -> list[Any]:
        """Fills the column of relationships; returns those values that it cannot hold wholly."""
        rest: list[Any] = [_MISSING] * self._count
        targets: list[int] = []
        for index, value in enumerate(values):
            if value is None or value is _MISSING:
                rest[index] = value
                continue
            try:
                rows, is_target, exact = _fit_relationships(value, self._records[index].unique_id)
                column[index] = rows
                if exact:
                    hashed[index] = dump_json(value, "metadata['relationships']")
                    if is_target:
                        targets.append(index)
                else:
                    rest[index] = value
            except (RecordError, UnicodeEncodeError) as error:
                self.errors[index] = RecordError(f"metadata['relationships']: {error}")
        if targets:
            self._marks.append(("targets", None, targets))
        return rest

    def _texts(
        self,
        name: str,
        values: list[Any],
        texts: list[str | None],
        hashed: list[str | None],
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

    def _own_timestamp(self, values: list[Any]) -> None:
        """Keeps the record's timestamp apart from metadata of the same name."""
        for index, value in enumerate(values):
            if value is not _MISSING:
                self._marks.append(("timestamp", self._records[index].timestamp, [index]))

    def _attributes(self) -> None:
        """Lays out what is not metadata: text, title, timestamp, context, vector, raw data."""
        records, columns = self._records, self.columns
        columns["text_content"] = [record.text_content for record in records]
        columns["record_type"] = [record.record_type for record in records]
        self._timestamps()
        self._titles()
        if any(record.context is not None for record in records):
            columns["context"] = self._each(
                "context", lambda context: dump_json(context, "context")
            )
        if any(record.raw_data_type is not None for record in records):
            columns["raw_data_type"] = [record.raw_data_type for record in records]
        if any(record.vector is not None for record in records):
            columns["vector"] = self._each("vector", self._fit_vector)
        if any(record.raw_data is not None for record in records):
            columns["raw_data"] = self._each("raw_data", bytes)

    def _each(self, name: str, convert: Callable[[Any], Any]) -> list[Any]:
        converted: list[Any] = [None] * self._count
        for index, record in enumerate(self._records):
            value = getattr(record, name)
            if value is not None:
                try:
                    converted[index] = convert(value)
                except RecordError as error:
                    self.errors[index] = error
        return converted

    def _timestamps(self) -> None:
        timestamps = self._timestamp_column = [record.timestamp for record in self._records]
        if not any(timestamps) and set(timestamps) == {None}:
            return
        if "timestamp" in self._entries:
            merged: list[str | None] = list(self._entries["timestamp"])
            for index, metadata in enumerate(self._all_metadata):
                if "timestamp" not in metadata:
                    merged[index] = timestamps[index]
            self._entries["timestamp"] = merged
        else:
            self._entries["timestamp"] = timestamps
        days = self.columns.get("updated_at")
        if days is not None and None not in days:
            return
        days = self.columns["updated_at"] = list(days or [None] * self._count)
        made = []
        for index, timestamp in enumerate(timestamps):
            if days[index] is None:
                days[index] = _fit_date(timestamp)
                if days[index] is not None and "updated_at" not in self._all_metadata[index]:
                    made.append(index)
        self._mark_made("updated_at", made)

    def _titles(self) -> None:
        titles = self.columns.get("title")
        if titles is not None and None not in titles:
            return
        titles = self.columns["title"] = list(titles or [None] * self._count)
        made = []
        for index, record in enumerate(self._records):
            if titles[index] is None:
                titles[index] = _title_of(record.text_content, record.unique_id)
                if "title" not in record.metadata:
                    made.append(index)
        self._mark_made("title", made)

    def _mark_made(self, name: str, rows: list[int]) -> None:
        if rows:
            every = len(rows) == self._count
            self._marks.append(("made", name, _EVERY_ROW if every else rows))

    def _fit_vector(self, value: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
        try:
            with np.errstate(over="ignore"):
                vector = np.asarray(value, dtype=np.float32)
        except (TypeError, ValueError, OverflowError) as error:
            raise RecordError(
                f"vector is a {type(value).__name__} that is no row of numbers: {error}"
            ) from error
        if vector.ndim != 1:
            raise RecordError(f"vector has the shape {vector.shape}; expected one dimension")
        if self._embed_dim is not None and len(vector) != self._embed_dim:
            raise RecordError(
                f"vector has {len(vector)} values and the dataset holds {self._embed_dim}; "
                "use the model the dataset was made for, or create one with that embed_dim"
            )
        if not np.isfinite(vector).all():
            raise RecordError("vector holds NaN or infinity (as float32), which no search can use")
        return vector

    def _identify(self) -> None:
        """Gives each row its digest, id and key."""
        unique_ids = [record.unique_id for record in self._records]
        anonymous = [index for index, unique_id in enumerate(unique_ids) if not unique_id]
        for index in anonymous:
            kind = "made" if unique_ids[index] is None else "empty"
            self._marks.append((kind, "uri", [index]))
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
        uuids = [uuid_of(unique_id) for unique_id in unique_ids if unique_id]
        if given is not None:
            uuids = [made if own is None else own for own, made in zip(given, uuids, strict=True)]
        self.columns["uuid"] = uuids
        self.columns["uri"] = unique_ids
        self.columns["x_digest"] = digests
        if any(encodings):
            self.columns["x_encoding"] = encodings

    def _encodings(self) -> list[str | None]:
        common = [(kind, name) for kind, name, rows in self._marks if rows is _EVERY_ROW]
        encodings = [_encoding_of(tuple(common))] * self._count
        special: dict[int, list[tuple[str, str | None]]] = {}
        for kind, name, rows in self._marks:
            for index in rows or ():
                special.setdefault(index, list(common)).append((kind, name))
        for index, marks in special.items():
            encodings[index] = _encoding_of(tuple(marks))
        return encodings

    def _digests(self, unique_ids: list[str | None], encodings: list[str | None]) -> list[bytes]:
        """Returns 16 bytes over the content of each row, whatever the rows beside it."""
        columns = self.columns
        signature = _SEPARATOR.join(self._names)
        signatures = [signature] * self._count
        whole = not any(None in hashed for hashed in self._hashed)
        if not whole:
            known: dict[tuple[str, ...], str] = {}
            for index, metadata in enumerate(self._all_metadata):
                names = tuple(metadata)
                text = known.get(names)
                if text is None:
                    text = known[names] = _SEPARATOR.join(sorted(names))
                signatures[index] = text
        nothing: list[str | None] = [None] * self._count
        leading = [
            _without_none(column)
            for column in (
                columns["record_type"],
                columns.get("context", nothing),
                columns.get("raw_data_type", nothing),
                encodings,
                signatures,
            )
        ]
        prefixes: Iterable[str]
        if all(column.count(column[0]) == self._count for column in leading):
            prefixes = [_SEPARATOR.join(column[0] for column in leading)] * self._count
        else:
            prefixes = map(_SEPARATOR.join, zip(*leading, strict=True))
        rows: Iterable[Iterable[str]] = zip(
            prefixes,
            _without_none(self._timestamp_column),
            _without_none(unique_ids),
            _without_none(columns["text_content"]),
            *self._hashed,
            strict=True,
        )
        if not whole:
            rows = ([part for part in row if part is not None] for row in rows)
        join = _SEPARATOR.join
        try:
            contents = [join(row).encode() for row in rows]
        except UnicodeEncodeError:
            self._refuse_lone_surrogates()
            return []
        extra = [columns[name] for name in ("vector", "raw_data") if name in columns]
        if not extra:
            return list(map(xxh3_128_digest, contents))
        digests = []
        for content, *values in zip(contents, *extra, strict=True):
            hashed = xxh3_128(content)
            for value in values:
                data = b"" if value is None else bytes(value)
                hashed.update(b"%d:" % (-1 if value is None else len(data)))
                hashed.update(data)
            digests.append(hashed.digest())
        return digests

    def _refuse_lone_surrogates(self) -> None:
        for index, record in enumerate(self._records):
            where = _lone_surrogate(record)
            if where:
                self.errors[index] = RecordError(where)
        if not self.errors:
            raise AssertionError("text that cannot be encoded was not found in any record")

    def _custom_metadata(self) -> pa.Array:
        if not self._entries:
            return pa.ListArray.from_arrays(
                pa.array([0] * (self._count + 1), pa.int32()), pa.array([], KEY_VALUE)
            )
        names = list(self._entries)
        count, width = self._count, len(names)
        flat = chain.from_iterable(zip(*self._entries.values(), strict=True))
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


def _hashable(value: Any) -> str:
    return _LIST_SEPARATOR.join(value) if type(value) is list else str(value)


def _without_none(values: list[Any]) -> list[str]:
    if None not in values:
        return values
    return [_ABSENT if value is None else value for value in values]


_RECORD_TYPES = frozenset(RECORD_TYPES)
_NONE = type(None)
# Attribute, types it may have, how an error says so.
_ATTRIBUTES: tuple[tuple[str, frozenset[type], str], ...] = (
    ("metadata", frozenset({dict}), "a dict"),
    ("text_content", frozenset({str, _NONE}), "text or None"),
    ("unique_id", frozenset({str, _NONE}), "text or None"),
    ("record_type", frozenset({str}), " or ".join(RECORD_TYPES)),
    ("timestamp", frozenset({str, _NONE}), "ISO 8601 text or None"),
    ("context", frozenset({dict, _NONE}), "a dict or None"),
    ("raw_data", frozenset({bytes, bytearray, memoryview, _NONE}), "bytes or None"),
    ("raw_data_type", frozenset({str, _NONE}), "text or None"),
)


@lru_cache(maxsize=16)
def _frame_schema(embed_dim: int) -> pa.Schema:
    return frame_schema(embed_dim)


def null_array(kind: pa.DataType, count: int) -> pa.Array:
    """Returns `count` nulls; those of vectors share memory, since they take 4 bytes a value."""
    if not pa.types.is_fixed_size_list(kind):
        return pa.nulls(count, kind)
    rows = 1024
    while rows < count:
        rows *= 2
    return _null_vectors(kind, rows).slice(0, count)


@lru_cache(maxsize=8)
def _null_vectors(kind: pa.DataType, count: int) -> pa.Array:
    return pa.nulls(count, kind)


def _vector_array(vectors: list[Any], kind: pa.FixedSizeListType) -> pa.Array:
    flat = np.zeros((len(vectors), kind.list_size), np.float32)
    mask = np.zeros(len(vectors), np.bool_)
    for index, vector in enumerate(vectors):
        if vector is None:
            mask[index] = True
        else:
            flat[index] = vector
    return pa.FixedSizeListArray.from_arrays(
        pa.array(flat.reshape(-1)), type=kind, mask=pa.array(mask)
    )


def _vectors_of(column: pa.Array) -> list[Any]:
    if column.null_count == len(column):
        return [None] * len(column)
    size = column.type.list_size
    flat = column.values.to_numpy(zero_copy_only=False)
    flat = flat[column.offset * size :]
    return [
        np.array(flat[index * size : (index + 1) * size], np.float32) if valid else None
        for index, valid in enumerate(column.is_valid().to_pylist())
    ]


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


def _fit_text(value: Any) -> str | None:
    return value if type(value) is str else None


def _fit_title(value: Any) -> str | None:
    return value if type(value) is str and value else None


def _fit_author(value: Any) -> str | None:
    if type(value) is str:
        return value
    # What most systems give: an object with the name in it, kept whole beside the column.
    name = value.get("name") if isinstance(value, dict) else None
    return name if type(name) is str else None


def _fit_date(value: Any) -> str | None:
    """Returns the date that ISO text begins with; the text itself when it is no more than that."""
    if type(value) is not str or value[4:5] != "-" or value[7:8] != "-":
        return None
    day = value if len(value) == 10 else value[:10]
    return day if _is_date(day) else None


@lru_cache(maxsize=65536)
def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _fit_version(value: Any) -> str | None:
    return value if type(value) is str and _VERSION.match(value) else None


def _fit_position(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**31 else None


def _fit_id_type(value: Any) -> str | None:
    return value if type(value) is str and value in COLLECTION_ID_TYPES else None


def _fit_texts(value: Any) -> list[str] | None:
    if type(value) is not list:
        return None
    for item in value:
        if type(item) is not str:
            return None
    return value


def _fit_uuid(value: Any) -> str | None:
    if not is_uuid(value):
        return None
    return value if value == value.lower() else str(value).lower()


_FIT: dict[Any, Callable[[Any], Any]] = {
    "uuid": _fit_uuid,
    "title": _fit_title,
    "version": _fit_version,
    "local_path": _fit_text,
    "cid": _fit_text,
    "collection": _fit_text,
    "collection_id": _fit_text,
    "collection_id_type": _fit_id_type,
    "position": _fit_position,
    "author": _fit_author,
    "contributors": _fit_texts,
    "created_at": _fit_date,
    "updated_at": _fit_date,
    "tags": _fit_texts,
    "status": _fit_text,
    "source_file": _fit_text,
    "source_type": _fit_text,
    "source_url": _fit_text,
    "relationships": lambda value: value,
}
_ALWAYS = ("uuid", "text_content", "title", "uri", "record_type", "x_digest")


def _fit_relationships(
    value: Any, unique_id: str | None
) -> tuple[list[dict[str, Any]] | None, bool, bool]:
    """Returns the column's value, whether all have the target form, whether nothing is lost."""
    if type(value) is not list:
        return None, False, False
    column: list[dict[str, Any]] = []
    targets = 0
    exact = True
    for item in value:
        if not isinstance(item, dict):
            exact = False
        elif "relationship_type" in item:
            row, kept = _target_relationship(item, unique_id)
            exact = exact and kept
            targets += 1
            if row is not None:
                column.append(row)
        else:
            row, kept = _canonical_relationship(item)
            exact = exact and kept
            if row is not None:
                column.append(row)
    if targets and targets < len(value):
        exact = False
    return column, targets > 0 and exact, exact


def _target_relationship(
    item: dict[str, Any], unique_id: str | None
) -> tuple[dict[str, Any] | None, bool]:
    kind, target, metadata = item["relationship_type"], item.get("target_id"), item.get("metadata")
    if not isinstance(kind, str) or type(target) not in (str, int):
        return None, False
    text = str(target)
    row: dict[str, Any] = dict.fromkeys(_CANONICAL)
    row["type"] = kind
    row["uri"] = text
    row["id"] = uuid_of(target_unique_id(unique_id, text))
    if metadata is not None:
        row["description"] = dump_json(metadata, "metadata of a relationship")
    kept = (
        type(target) is str
        and item.keys() <= {"relationship_type", "target_id", "metadata"}
        and ("metadata" not in item or metadata is not None)
    )
    return row, kept


def _canonical_relationship(item: dict[str, Any]) -> tuple[dict[str, Any] | None, bool]:
    kind = item.get("type")
    if not isinstance(kind, str):
        return None, False
    row = {name: item[name] if isinstance(item.get(name), str) else None for name in _CANONICAL}
    if row["id"] is not None and not is_uuid(row["id"]):
        # The column holds uuids only; what the source calls an id is a name to the outside.
        row["uri"], row["id"] = row["uri"] or row["id"], None
    return row, {name: text for name, text in row.items() if text is not None} == item


def _title_of(text: str | None, unique_id: str | None) -> str:
    if text:
        head = text[:4096]
        heading = _HEADING.search(head) if "#" in head else None
        if heading:
            return heading.group(1)[:_TITLE_LENGTH]
        for line in head.splitlines():
            line = line.strip()
            if line:
                return line[:_TITLE_LENGTH]
    return unique_id or ""


def _wrong(name: str, expected: str, value: object) -> str:
    shown = f"{value!r:.60}" if isinstance(value, str | int | float) else type(value).__name__
    return f"{name} is {shown}; expected {expected}"


def _lone_surrogate(record: FrameRecord) -> str | None:
    """Says where a record holds a lone surrogate, if it does."""
    places: list[tuple[str, Any]] = [
        (name, getattr(record, name))
        for name in ("text_content", "unique_id", "timestamp", "raw_data_type", "context")
    ]
    for key, value in record.metadata.items():
        places += [(f"the metadata key {key!a}", key), (f"metadata[{key!a}]", value)]
    for where, value in places:
        try:
            # JSON with every character as it is; str() of a container would escape surrogates.
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            text.encode()
        except UnicodeEncodeError as error:
            return (
                f"{where} holds a lone surrogate (at character {error.start}), which is not "
                "Unicode text; decode the source with errors='replace', or remove it"
            )
        except (TypeError, ValueError):
            continue
    return None


def _decode(row: dict[str, Any], vector: Any) -> FrameRecord:
    encoding: dict[str, Any] = json.loads(row.get("x_encoding") or "{}")
    made = set(encoding.get("made", ()))
    as_json = set(encoding.get("json", ()))
    metadata: dict[str, Any] = {}
    timestamp = encoding.get("timestamp")
    for entry in row.get("custom_metadata") or ():
        name, value = entry["key"], entry["value"]
        if name == "timestamp" and "timestamp" not in encoding:
            timestamp = value
        else:
            metadata[name] = load_json(value) if name in as_json else value
    for name in _FIT:
        value = row.get(name)
        if value is None or name in metadata or name in made:
            continue
        if name == "relationships":
            metadata[name] = [
                _decode_relationship(item, bool(encoding.get("targets"))) for item in value
            ]
        elif name != "uuid" or value != uuid_of(row.get("uri") or ""):
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
    )


def _context_of(text: str) -> dict[str, Any]:
    """Returns the context; text that others wrote and that is no JSON object comes as `text`."""
    try:
        value = load_json(text)
    except ValueError:
        value = text
    return value if isinstance(value, dict) else {"text": value}


def _decode_relationship(item: dict[str, Any], target: bool) -> dict[str, Any]:
    if not target:
        return {name: value for name, value in item.items() if value is not None}
    decoded: dict[str, Any] = {"relationship_type": item["type"], "target_id": item["uri"]}
    if item["description"] is not None:
        decoded["metadata"] = load_json(item["description"])
    return decoded
