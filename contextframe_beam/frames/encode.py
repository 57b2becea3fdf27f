"""Encodes records as rows, without loss.

`encode_records` is the hottest code of an ingest: it turns a batch of records into one Arrow
RecordBatch, with one list for each column. This file handles everything but metadata. `layout.py`
handles metadata, notes on rows and the inverse (`decode_rows`), and `values.py` makes the digests.

The layout of metadata in a row:

* A name with a column goes there if the column can hold the value exactly.
* Everything else is an entry of `custom_metadata`: text as it is, other values as JSON. If an entry
  has the name of a column, it has the full value, and the column has only a part of it (the date
  of a time, the name of an author object).
* `timestamp` is the entry of that name; its date fills `updated_at` if metadata does not have it.
* `x_encoding` records in JSON what the row does not show: entries that are JSON (`json`), names
  whose value is None (`null`), columns that we filled in (`made`), columns that look filled in but
  were given (`given`), the form of the relationships (`targets`), the record's timestamp if the
  metadata has another one (`timestamp`), and an id that is empty text (`empty`). It is null if
  there is nothing to record, and in rows that others wrote.

`x_digest` is computed from the stored content: equal rows have equal digests, in any order of their
metadata and of the rows beside them, and different rows have different digests. There are two
exceptions. A vector counts by its embedder, if that is known, because models and services give
slightly different vectors for the same text. And a document together with its chunks has one
digest over all of them, which is also the origin of the chunks. It changes exactly if any part of
the document does, and it shows which state of the document a chunk belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from operator import attrgetter
from typing import Any

import orjson
import pyarrow as pa
from xxhash import xxh3_128_digest

from contextframe_beam.errors import RecordError
from contextframe_beam.frames.fields import OwnField, with_fields
from contextframe_beam.frames.layout import MetadataLayout, RowNotes, custom_metadata, decode_rows
from contextframe_beam.frames.place import Place
from contextframe_beam.frames.record import (
    ANCHOR_KEY,
    RESERVED,
    FrameRecord,
    is_uuid,
    readers_of,
    title_of,
    uuid_of,
)
from contextframe_beam.frames.schema import DIGEST, RECORD_TYPES, fit_date, frame_schema_of
from contextframe_beam.frames.times import day_of, parse
from contextframe_beam.frames.values import (
    dump_json,
    fit_vector,
    is_unicode,
    lone_surrogate,
    null_array,
    row_contents,
    row_digests,
    vector_array,
)

__all__ = [
    "content_digests",
    "decode_rows",
    "document_digest",
    "encode_records",
    "fit_vector",
    "null_array",
    "record_uuid",
]


def record_uuid(record: FrameRecord) -> str:
    """Returns the key of the record's row: its metadata's uuid, or one made from its id.

    Raises:
        RecordError: the record has no id and no content, or cannot be stored.
    """
    encoder = _Encoder([record], None)
    for error in encoder.errors.values():
        raise error
    return str(encoder.columns["uuid"][0])


def content_digests(records: Sequence[FrameRecord]) -> list[bytes | None]:
    """Returns the digest of each record's row by itself; None for one that cannot be stored."""
    encoder = _Encoder(records, None)
    if not encoder.errors and not encoder.sparse:
        return list(encoder.columns.get("x_digest", ()))
    half = len(records) // 2
    return content_digests(records[:half]) + content_digests(records[half:]) if half else [None]


def encode_records(
    records: Sequence[FrameRecord],
    *,
    embed_dim: int,
    source: str | None = None,
    documents: Sequence[int] = (),
    fields: Sequence[OwnField] = (),
) -> tuple[pa.RecordBatch, list[tuple[int, RecordError]]]:
    """Encodes records as one batch of rows in the order of `frame_schema`, then of own fields.

    Args:
        records: The records.
        embed_dim: The vector length of the dataset.
        source: The value of the column `x_source`.
        documents: The number of each record's document, if all chunks of a document are present;
            empty if that is unknown.
        fields: The own fields of the dataset.

    Returns:
        The batch, and the index and the error of each record that cannot be stored.
    """
    rows, errors = _encode(records, embed_dim, source)
    if fields:
        rows, errors = _with_own(rows, errors, fields, len(records))
    if not documents or rows["x_parent"].null_count == rows.num_rows:
        return rows, errors
    refused = {index for index, _ in errors}
    return _as_units(rows, [one for at, one in enumerate(documents) if at not in refused]), errors


def _encode(
    records: Sequence[FrameRecord], embed_dim: int, source: str | None
) -> tuple[pa.RecordBatch, list[tuple[int, RecordError]]]:
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
        batch, found = _encode([records[index] for index in part], embed_dim, source)
        batches.append(batch)
        errors.update((part[place], error) for place, error in found)
    whole = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return (whole or batches)[0], sorted(errors.items())


def _with_own(
    rows: pa.RecordBatch,
    errors: list[tuple[int, RecordError]],
    fields: Sequence[OwnField],
    count: int,
) -> tuple[pa.RecordBatch, list[tuple[int, RecordError]]]:
    """Adds the columns of own fields, and refuses records with values that do not fit."""
    rows, misfits = with_fields(rows, fields)
    if not misfits:
        return rows, errors
    refused = {index for index, _ in errors}
    stored = [index for index in range(count) if index not in refused]
    found = [*errors, *((stored[place], error) for place, error in misfits.items())]
    kept = pa.array([place not in misfits for place in range(rows.num_rows)], pa.bool_())
    return rows.filter(kept), sorted(found, key=lambda one: one[0])


def _as_units(rows: pa.RecordBatch, documents: Sequence[int]) -> pa.RecordBatch:
    """Gives documents with chunks one digest over all parts, which is the origin of the chunks."""
    keys = [bytes.fromhex(key.replace("-", "")) for key in rows["uuid"].to_pylist()]
    parents = rows["x_parent"].to_pylist()
    digests, origins = rows["x_digest"].to_pylist(), rows["x_origin"].to_pylist()
    owners = {
        (number, key): index
        for index, (number, key) in enumerate(zip(documents, keys, strict=True))
        if parents[index] is None
    }
    chunks: dict[int, list[int]] = {}
    for index, about in enumerate(zip(documents, parents, strict=True)):
        owner = owners.get(about)
        if owner is not None:
            chunks.setdefault(owner, []).append(index)
    for owner, own in chunks.items():
        whole = document_digest(digests[owner], (digests[index] for index in own))
        digests[owner] = whole
        for index in own:
            origins[index] = whole
    columns = dict(zip(rows.schema.names, rows.columns, strict=True))
    columns["x_digest"] = pa.array(digests, DIGEST)
    columns["x_origin"] = pa.array(origins, DIGEST)
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=rows.schema)


def document_digest(own: bytes, chunks: Iterable[bytes]) -> bytes:
    """Returns the digest of a document together with its chunks.

    Args:
        own: That of the document's row alone.
        chunks: Those of its chunks, in any order: each holds its own place in its id.
    """
    return xxh3_128_digest(b"".join([own, *sorted(chunks)]))


class _Encoder:
    """Turns records into columns.

    Attributes:
        columns: The values of each column with values.
        errors: Why a record cannot be stored, by its index; then there are no columns.
        sparse: Whether the records share so few names that smaller batches are better; then there
            are no columns.
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
        self._notes = RowNotes(self._count)
        self._layout = MetadataLayout([], [], self._notes)
        steps = (self._check, self._metadata, self._attributes, self._identify)
        for step in steps if records else ():
            step()
            if self.errors or self.sparse:
                return

    def batch(self, source: str | None) -> pa.RecordBatch:
        """Returns the rows in the order of `frame_schema`."""
        schema = frame_schema_of(self._embed_dim or 1)
        arrays = []
        for field in schema:
            name = field.name
            if name == "custom_metadata":
                arrays.append(custom_metadata(self._layout.entries, self._count))
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
        """Refuses attributes with wrong types."""
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
        self._layout = MetadataLayout(self._records, self._values["metadata"], self._notes)
        self.columns.update(self._layout.columns)
        self.errors.update(self._layout.errors)
        self.sparse = self._layout.sparse

    def _attributes(self) -> None:
        """Lays out everything but metadata: text, title, timestamp, context, vector, raw data."""
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
                if kind is not None and not is_unicode(kind):
                    self.errors[index] = lone_surrogate(self._records[index])
        if "vector" in used:
            columns["vector"] = self._each(
                "vector", lambda vector: fit_vector(vector, self._embed_dim)
            )
        if "raw_data" in used:
            columns["raw_data"] = self._each("raw_data", bytes)
        if "parent" in used:
            columns["x_parent"] = self._each("parent", _parent_key)
        if "origin" in used:
            columns["x_origin"] = self._each("origin", _origin)
            for index in range(self._count) if "parent" in used else ():
                if columns["x_origin"][index] and self._values["parent"][index]:
                    self.errors[index] = RecordError(
                        "a chunk has no origin of its own, only its document has one; leave it out"
                    )
        if "place" in used:
            places = self._each("place", lambda place: place)
            columns["x_partition"] = [one and one.partition for one in places]
            columns["x_point"] = [one and one.point for one in places]
        if "readers" in used:
            columns["x_readers"] = self._each("readers", readers_of)
        if "embedder" in used:
            columns["x_embedder"] = embedders = self._each("embedder", _embedder)
            columns["x_text"] = list(map(_text_key, embedders, columns["text_content"]))

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
        entries = self._layout.entries
        merged = timestamps
        if "timestamp" in entries:
            merged = [
                own if "timestamp" in metadata else timestamp
                for own, metadata, timestamp in zip(
                    entries["timestamp"], all_metadata, timestamps, strict=True
                )
            ]
        entries["timestamp"] = merged
        days = self.columns.get("updated_at")
        if days is not None and None not in days:
            return
        filled = self.columns["updated_at"] = list(days or [None] * self._count)
        made = []
        for index, timestamp in enumerate(timestamps):
            if filled[index] is None:
                filled[index] = day_of_timestamp(timestamp)
                if (
                    filled[index] is not None
                    and "updated_at" not in self._values["metadata"][index]
                ):
                    made.append(index)
        self._notes.add("made", "updated_at", made)

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
        self._notes.add("made", "title", made)

    def _identify(self) -> None:
        """Gives each row its digest, id and key."""
        unique_ids = list(self._values["unique_id"])
        anonymous = [index for index, unique_id in enumerate(unique_ids) if not unique_id]
        for index in anonymous:
            kind = "made" if unique_ids[index] is None else "empty"
            self._notes.add(kind, "uri", [index])
        if any(map(str.startswith, filter(None, unique_ids), repeat(RESERVED))):
            self._refuse_reserved(unique_ids)
        for index, own in enumerate(self.columns.get("uuid", ())):
            unique_id = unique_ids[index]
            # Otherwise a reader would think that it was made from the unique_id.
            if own and unique_id and is_unicode(unique_id) and own == uuid_of(unique_id):
                self._notes.add("given", "uuid", [index])
        encodings, refused = self._notes.texts()
        for index in refused:
            self.errors[index] = lone_surrogate(self._records[index])
        digests = self._digests(unique_ids, encodings)
        if self.errors:
            return
        given = self.columns.get("uuid")
        # What was made of a record, such as its vector, does not make it another one.
        contents = digests
        if anonymous and self._used.intersection(_MARKS):
            contents = self._digests(unique_ids, encodings, marked=False)
        for index in anonymous:
            record = self._records[index]
            has_key = given is not None and given[index] is not None
            if not (record.text_content or record.raw_data or has_key or record.vector is not None):
                self.errors[index] = RecordError(
                    "the record has no text_content and no unique_id, so there is nothing to store "
                    "and nothing to identify it by; set one of them in map_to_frame_record"
                )
            unique_ids[index] = f"content:{contents[index].hex()}"
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

    def _digests(
        self, unique_ids: list[str | None], encodings: list[str | None], marked: bool = True
    ) -> list[bytes]:
        columns = self.columns
        vectors, marks = self._marks()
        marks = marks if marked else None
        try:
            return row_digests(
                self._contents(unique_ids, encodings), vectors, columns.get("raw_data"), marks
            )
        except TypeError:
            for index, row in enumerate(self._contents(unique_ids, encodings)):
                try:
                    orjson.dumps(row)
                except TypeError:
                    self.errors[index] = lone_surrogate(self._records[index])
            if not self.errors:
                raise
            return []

    def _marks(self) -> tuple[Sequence[Any] | None, list[bytes | None] | None]:
        """Returns the vectors that digests include, and their further content."""
        columns = self.columns
        vectors: Sequence[Any] | None = columns.get("vector")
        if not self._used.intersection(_MARKS):
            return vectors, None
        nothing = [None] * self._count
        marks: list[bytes | None] = []
        embedders = columns.get("x_embedder", nothing)
        for parent, origin, embedder, vector, place, readers in zip(
            columns.get("x_parent", nothing),
            columns.get("x_origin", nothing),
            embedders,
            vectors or nothing,
            self._values["place"],
            columns.get("x_readers", nothing),
            strict=True,
        ):
            told = (parent, origin, embedder, place, readers)
            if all(one is None for one in told):
                marks.append(None)
                continue
            head = bytes([one is not None for one in (parent, origin, embedder, vector)])
            text = (embedder or "").encode()
            if place is not None:
                # Rows without a place keep the digests that earlier releases gave them.
                head = b"\2" + len(place.mark).to_bytes(4, "big") + place.mark + head
            if readers is not None:
                named = "\0".join(readers).encode()
                head = b"\3" + len(named).to_bytes(4, "big") + named + head
            marks.append(b"".join([head, parent or b"", origin or b"", text]))
        if vectors is not None and "embedder" in self._used:
            known = zip(vectors, embedders, strict=True)
            vectors = [vector if embedder is None else None for vector, embedder in known]
        return vectors, marks

    def _contents(
        self, unique_ids: list[str | None], encodings: list[str | None]
    ) -> Iterable[Sequence[Any]]:
        columns, layout = self.columns, self._layout
        nothing = [None] * self._count
        return row_contents(
            layout.names,
            self._values["metadata"],
            layout.hashed,
            texts=(self._values["timestamp"], unique_ids, columns["text_content"]),
            shared=(
                columns["record_type"],
                columns.get("context", nothing),
                columns.get("raw_data_type", nothing),
                encodings,
            ),
        )

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


_RECORDS_ONLY = {FrameRecord}
_NONE_ONLY = {type(None)}
_RECORD_TYPES = frozenset(RECORD_TYPES)
_NONE = type(None)
# Attribute, its possible types (None: any), and their name in an error.
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
    ("parent", frozenset({str, _NONE}), "the uuid of a document or None"),
    ("origin", frozenset({bytes, _NONE}), "16 bytes or None"),
    ("embedder", frozenset({str, _NONE}), "text or None"),
    ("place", frozenset({Place, _NONE}), "a Place or None"),
    ("readers", None, "a list of texts or None"),  # readers_of tells
)
# Those that say what a record was made of, or what was made of it.
_MARKS = ("parent", "origin", "embedder", "place", "readers")
_ATTRIBUTE_VALUES = attrgetter(*(name for name, _, _ in _ATTRIBUTES))


def day_of_timestamp(timestamp: str | None) -> str | None:
    """Returns the date of a timestamp, as written there."""
    day = fit_date(timestamp)
    if day is not None or not timestamp:
        return day
    time = parse(timestamp)
    return None if time is None else day_of(time)


def _parent_key(parent: str) -> bytes:
    if not is_uuid(parent) or parent != parent.lower():
        raise RecordError(_wrong("parent", "the uuid of a document, in lower case", parent))
    return bytes.fromhex(parent.replace("-", ""))


def _origin(origin: bytes) -> bytes:
    if len(origin) != DIGEST.byte_width:
        raise RecordError(f"origin has {len(origin)} bytes; expected {DIGEST.byte_width}")
    return origin


def _embedder(embedder: str) -> str:
    if not is_unicode(embedder):
        raise RecordError(f"embedder is {embedder!a:.60}, which is not Unicode text")
    return embedder


def _text_key(embedder: str | None, text: str | None) -> bytes | None:
    """Returns by what a vector is found whose embedder is known, or None."""
    if embedder is None or text is None:
        return None
    # Text that is not Unicode is refused elsewhere.
    return xxh3_128_digest(text.encode("utf-8", "surrogatepass"))


def _wrong(name: str, expected: str, value: object) -> str:
    plain = value is None or isinstance(value, str | int | float)
    shown = f"{value!r:.60}" if plain else f"a {type(value).__name__}"
    return f"{name} is {shown}; expected {expected}"
