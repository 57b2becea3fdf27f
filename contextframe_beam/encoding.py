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
  names whose value is None (`null`), columns that were filled in and are not metadata (`made`),
  the form of the relationships (`targets`), a timestamp beside metadata of the same name
  (`timestamp`). It is null where there is nothing to say, and in rows that others wrote.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from contextframe_beam._json import dump_json, load_json
from contextframe_beam.errors import RecordError
from contextframe_beam.record import FrameRecord, is_uuid, target_unique_id, uuid_of
from contextframe_beam.schema import (
    COLLECTION_ID_TYPES,
    DIGEST,
    KEY_VALUE,
    RECORD_TYPES,
    RELATIONSHIP,
    frame_schema,
)

_TITLE_LENGTH = 120
_HEADING = re.compile(r"^#{1,6}[ \t]+(\S.*?)[ \t#]*$", re.MULTILINE)
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+\Z")
_CANONICAL = ("type", "id", "uri", "path", "cid", "title", "description")
# Separates what is hashed; fixed and random, so that no document holds it.
_SEPARATOR = "\x1f8d1c5b0e\x1e"

_ABSENT = "\x1f\x1e"


def record_uuid(record: FrameRecord) -> str:
    """Returns the key of the record's row: its metadata's uuid, or one made from its id.

    Raises:
        RecordError: the record has neither an id nor content.
    """
    given = record.metadata.get("uuid")
    if given is not None and is_uuid(given):
        return str(given).lower()
    if record.unique_id:
        return uuid_of(record.unique_id)
    columns = _Columns(1, None)
    columns.add(record)
    return columns.keys()[0]


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
    columns = _Columns(len(records), embed_dim)
    errors: list[tuple[int, RecordError]] = []
    for index, record in enumerate(records):
        try:
            columns.add(record)
        except RecordError as error:
            errors.append((index, error))
    return columns.batch(source), errors


def decode_rows(batch: pa.RecordBatch) -> Iterator[FrameRecord]:
    """Yields the record of each row of `batch`; columns that were not read count as null."""
    names = [name for name in batch.schema.names if name != "vector"]
    vectors: list[Any] = [None] * batch.num_rows
    if "vector" in batch.schema.names:
        vectors = _vectors_of(batch.column("vector"))
    for row, vector in zip(batch.select(names).to_pylist(), vectors, strict=True):
        yield _decode(row, vector)


class _Columns:
    """The columns of a batch, filled record by record; only columns that occur take memory."""

    def __init__(self, size: int, embed_dim: int | None) -> None:
        self._size = size
        self._embed_dim = embed_dim
        self._count = 0
        self._lists: dict[str, list[Any]] = {name: [None] * size for name in _ALWAYS}
        self._keys: list[str] = []
        self._values: list[str] = []
        self._ends: list[int] = [0]

    def add(self, record: FrameRecord) -> None:
        """Adds one row; on RecordError nothing has been added."""
        text, unique_id, timestamp = record.text_content, record.unique_id, record.timestamp
        if text is not None and type(text) is not str:
            raise RecordError(_wrong("text_content", "text or None", text))
        if unique_id is not None and type(unique_id) is not str:
            raise RecordError(_wrong("unique_id", "text or None", unique_id))
        if record.record_type not in RECORD_TYPES:
            raise RecordError(_wrong("record_type", " or ".join(RECORD_TYPES), record.record_type))

        keys: list[Any] = []
        values: list[str] = []
        row: dict[str, Any] = {}
        as_json: list[str] = []
        nulls: list[str] = []
        made: list[str] = []
        targets = False
        for name, value in record.metadata.items():
            fit = _FIT.get(name)
            if fit is None:
                if type(value) is str:
                    keys.append(name)
                    values.append(value)
                    continue
            elif value is not None:
                if name == "relationships":
                    column, targets, exact = _fit_relationships(value, unique_id)
                else:
                    column = fit(value)
                    exact = column is value
                if column is not None:
                    row[name] = column
                if exact:
                    continue
            if value is None:
                nulls.append(name)
            else:
                keys.append(name)
                if type(value) is str:
                    values.append(value)
                else:
                    values.append(dump_json(value, f"metadata[{name!r}]"))
                    as_json.append(name)

        later_timestamp = None
        if timestamp is not None:
            if type(timestamp) is not str:
                raise RecordError(_wrong("timestamp", "ISO 8601 text or None", timestamp))
            if "timestamp" in record.metadata:
                later_timestamp = timestamp
            else:
                keys.append("timestamp")
                values.append(timestamp)
            if "updated_at" not in row:
                day = _fit_date(timestamp)
                if day is not None:
                    row["updated_at"] = day
                    if "updated_at" not in record.metadata:
                        made.append("updated_at")
        if "title" not in row:
            row["title"] = _title_of(text, unique_id)
            if "title" not in record.metadata:
                made.append("title")
        if record.context is not None:
            if not isinstance(record.context, dict):
                raise RecordError(_wrong("context", "a dict or None", record.context))
            row["context"] = dump_json(record.context, "context")
        if record.raw_data_type is not None:
            if type(record.raw_data_type) is not str:
                raise RecordError(_wrong("raw_data_type", "text or None", record.raw_data_type))
            row["raw_data_type"] = record.raw_data_type
        if unique_id is None:
            made.append("uri")
        if as_json or nulls or made or targets or later_timestamp is not None:
            try:
                row["x_encoding"] = _encoding_of(
                    tuple(as_json), tuple(nulls), tuple(made), targets, later_timestamp
                )
            except TypeError as error:
                raise RecordError(_not_text_key(record)) from error

        parts = [
            record.record_type,
            _ABSENT if unique_id is None else unique_id,
            _ABSENT if text is None else text,
            *keys,
            *values,
        ]
        for name, value in row.items():
            parts.append(name)
            parts.append(value if type(value) is str else repr(value))
        try:
            hashed = hashlib.sha1(_SEPARATOR.join(parts).encode(), usedforsecurity=False)
        except UnicodeEncodeError as error:
            raise RecordError(_not_unicode(record)) from error
        except TypeError as error:
            raise RecordError(_not_text_key(record)) from error
        if record.vector is not None:
            vector = self._fit_vector(record.vector)
            hashed.update(vector.tobytes())
            row["vector"] = vector
        if record.raw_data is not None:
            if not isinstance(record.raw_data, bytes | bytearray | memoryview):
                raise RecordError(_wrong("raw_data", "bytes or None", record.raw_data))
            hashed.update(record.raw_data)
            row["raw_data"] = bytes(record.raw_data)

        digest = hashed.digest()[:16]
        if unique_id is None:
            if not text and "uuid" not in row and record.vector is None and not record.raw_data:
                raise RecordError(
                    "the record has neither text_content nor unique_id, so there is nothing to "
                    "store and nothing to know it by; set one of them in map_to_frame_record"
                )
            unique_id = f"content:{digest.hex()}"
        if "uuid" not in row:
            row["uuid"] = uuid_of(unique_id)
        row["uri"] = unique_id
        row["text_content"] = text
        row["record_type"] = record.record_type
        row["x_digest"] = digest
        self._append(row, keys, values)

    def _append(self, row: dict[str, Any], keys: list[str], values: list[str]) -> None:
        lists, index = self._lists, self._count
        for name, value in row.items():
            try:
                lists[name][index] = value
            except KeyError:
                lists[name] = [None] * self._size
                lists[name][index] = value
        self._keys += keys
        self._values += values
        self._ends.append(len(self._keys))
        self._count = index + 1

    def keys(self) -> list[str]:
        """Returns the uuids of the rows."""
        return self._lists["uuid"][: self._count]

    def _fit_vector(self, value: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
        try:
            vector = np.asarray(value, dtype=np.float32)
        except (TypeError, ValueError) as error:
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

    def batch(self, source: str | None) -> pa.RecordBatch:
        """Returns the rows as one batch in the order of `frame_schema`."""
        count = self._count
        schema = frame_schema_cached(self._embed_dim or 1)
        arrays = []
        for field in schema:
            name = field.name
            if name == "custom_metadata":
                entries = pa.StructArray.from_arrays(
                    [pa.array(self._keys, pa.string()), pa.array(self._values, pa.string())],
                    fields=list(KEY_VALUE),
                )
                arrays.append(
                    pa.ListArray.from_arrays(pa.array(self._ends, pa.int32()), entries)
                )
            elif name == "x_source" and source is not None:
                arrays.append(pa.repeat(pa.scalar(source, pa.string()), count))
            elif name not in self._lists:
                arrays.append(null_array(field.type, count))
            elif name == "vector":
                arrays.append(_vector_array(self._lists[name][:count], field.type))
            else:
                values = self._lists[name]
                arrays.append(
                    pa.array(values if count == self._size else values[:count], field.type)
                )
        return pa.RecordBatch.from_arrays(arrays, schema=schema)


@lru_cache(maxsize=16)
def frame_schema_cached(embed_dim: int) -> pa.Schema:
    """Returns `frame_schema(embed_dim)`, made once."""
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
def _encoding_of(
    as_json: tuple[str, ...],
    nulls: tuple[str, ...],
    made: tuple[str, ...],
    targets: bool,
    timestamp: str | None,
) -> str:
    parts: dict[str, Any] = {}
    if as_json:
        parts["json"] = as_json
    if nulls:
        parts["null"] = nulls
    if made:
        parts["made"] = made
    if targets:
        parts["targets"] = True
    if timestamp is not None:
        parts["timestamp"] = timestamp
    if not all(type(name) is str for name in (*as_json, *nulls)):
        raise TypeError("metadata keys are text")
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
    row = {
        name: item[name] if isinstance(item.get(name), str) else None for name in _CANONICAL
    }
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


def _not_text_key(record: FrameRecord) -> str:
    odd = next((key for key in record.metadata if type(key) is not str), None)
    return f"metadata has the key {odd!r} ({type(odd).__name__}); keys are text"


def _not_unicode(record: FrameRecord) -> str:
    places = [("text_content", record.text_content), ("unique_id", record.unique_id)]
    places += [(f"metadata[{key!a}]", value) for key, value in record.metadata.items()]
    for where, value in places:
        try:
            (value if isinstance(value, str) else "").encode()
        except UnicodeEncodeError as error:
            return (
                f"{where} holds a lone surrogate at character {error.start}, which is not Unicode "
                "text; decode the source with errors='replace' or remove it"
            )
    return "the record holds a lone surrogate, which is not Unicode text"


def _decode(row: dict[str, Any], vector: Any) -> FrameRecord:
    encoding: dict[str, Any] = json.loads(row.get("x_encoding") or "{}")
    made = set(encoding.get("made", ()))
    as_json = set(encoding.get("json", ()))
    metadata: dict[str, Any] = {}
    timestamp = encoding.get("timestamp")
    has_entry = timestamp is not None
    for entry in row.get("custom_metadata") or ():
        name, value = entry["key"], entry["value"]
        if name == "timestamp" and not has_entry and name not in as_json:
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
