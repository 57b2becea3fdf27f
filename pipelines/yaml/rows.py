"""Turns items and records into rows with a schema, for Beam's stock YAML transforms, and back.

A row holds everything that a dataset can store of a document. Nested values (a source's item,
metadata, context) are JSON text, and single fields of them can be separate columns. On the way
back, a column overrides the value of that name in the JSON text, so stock transforms can change it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import apache_beam as beam
import numpy as np
from apache_beam.typehints.row_type import RowTypeConstraint
from apache_beam.utils.timestamp import Timestamp

from contextframe_beam.connectors.item_json import decode_item, encode_item
from contextframe_beam.connectors.mapper import as_text, lookup
from contextframe_beam.errors import ConfigError, RecordError
from contextframe_beam.frames.place import Place
from contextframe_beam.frames.record import FrameRecord
from contextframe_beam.frames.values import dump_json, load_json

# Beam reads Optional of typing, and not the unions of Python 3.10.
_TEXT = Optional[str]  # noqa: UP045
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (float, int),
    "boolean": (bool,),
}
_COLUMN_TYPES: dict[str, Any] = {
    "string": _TEXT,
    "integer": Optional[np.int64],  # noqa: UP045
    "number": Optional[float],  # noqa: UP045
    "boolean": Optional[bool],  # noqa: UP045
}
_LARGEST = 2**63

#: The origin of a row: the id of its source, the partition, the position, the item as JSON.
ORIGIN: dict[str, Any] = {"source": _TEXT, "partition": str, "position": str, "item": _TEXT}
#: The columns of a record.
FRAME: dict[str, Any] = {
    "unique_id": _TEXT,
    "text_content": _TEXT,
    "metadata": str,
    "record_type": str,
    "timestamp": _TEXT,
    "context": _TEXT,
    "vector": Optional[Sequence[np.float32]],  # noqa: UP045
    "raw_data": Optional[bytes],  # noqa: UP045
    "raw_data_type": _TEXT,
    # By the names of the dataset's columns, which no field of a source begins like.
    "x_parent": _TEXT,
    "x_origin": Optional[bytes],  # noqa: UP045
    "x_embedder": _TEXT,
    "x_partition": _TEXT,
    "x_point": _TEXT,
    "x_readers": Optional[Sequence[str]],  # noqa: UP045
}


def row_type(columns: Mapping[str, Any], fields: Mapping[str, str]) -> Any:
    """Returns the type of rows with these columns and chosen fields.

    Raises:
        ConfigError: the type of a field is unknown, or its name is one of the columns.
    """
    for name, kind in fields.items():
        if kind not in _COLUMN_TYPES:
            raise ConfigError(
                f"fields: {name} is {kind!r}; choose one of {', '.join(_COLUMN_TYPES)}"
            )
        if name in columns or not name.isidentifier():
            raise ConfigError(
                f"fields: {name!r} cannot be a separate column; it is already in the row, or is "
                "not a name"
            )
    chosen = {name: _COLUMN_TYPES[kind] for name, kind in fields.items()}
    return RowTypeConstraint.from_fields(list({**columns, **chosen}.items()))


def row_of_item(item: Any, origin: Mapping[str, Any], fields: Mapping[str, str]) -> beam.Row:
    """Returns a source's item as a row.

    Args:
        item: The item.
        origin: The columns `source`, `partition` and `position`.
        fields: Names (not dotted paths) and types of fields for separate columns.

    Raises:
        RecordError: the item, or a field of it, does not fit into a row.
    """
    return beam.Row(**origin, item=text_of_item(item), **_columns(item, fields))


def row_of_record(
    record: FrameRecord, item: Any, origin: Mapping[str, Any], fields: Mapping[str, str]
) -> beam.Row:
    """Returns a record as a row; `fields` are moved out of its metadata.

    Raises:
        RecordError: the record would not fit into a dataset's row either.
    """
    context, vector, place = record.context, record.vector, record.place
    return beam.Row(
        **origin,
        item=None if item is None else text_of_item(item),
        unique_id=_unicode(record.unique_id, "unique_id"),
        text_content=_unicode(record.text_content, "text_content"),
        metadata=dump_json(record.metadata, "metadata"),
        record_type=record.record_type,
        timestamp=record.timestamp,
        context=None if context is None else dump_json(context, "context"),
        vector=None if vector is None else np.asarray(vector, np.float32).tolist(),
        raw_data=record.raw_data,
        raw_data_type=record.raw_data_type,
        x_parent=record.parent,
        x_origin=record.origin,
        x_embedder=_unicode(record.embedder, "x_embedder"),
        x_partition=None if place is None else place.partition,
        x_point=None if place is None or place.point is None else str(place.point),
        x_readers=record.readers,
        **_columns(record.metadata, fields),
    )


def item_of_row(row: Any) -> Any:
    """Returns the item for a mapper from a row: the source's item, or the row's columns.

    Raises:
        RecordError: the column `item` was not made by one of our sources.
    """
    values = values_of(row)
    text = values.pop("item", None)
    if text is None:
        return values
    item = item_of_text(text)
    own = {name: value for name, value in values.items() if name not in ORIGIN}
    if not own:
        return item
    if not isinstance(item, Mapping):
        return own
    changed = {k: v for k, v in own.items() if v is not None or item.get(k) is not None}
    return {**item, **changed}


def record_of_row(row: Any) -> FrameRecord:
    """Returns the record of a row; columns that a record does not have become metadata.

    Raises:
        RecordError: a column does not have the content of its name.
    """
    values = values_of(row)
    metadata = _object(values.get("metadata"), "metadata") or {}
    for name, value in values.items():
        if name in FRAME or name in ORIGIN:
            continue
        if value is not None or metadata.get(name) is not None:
            metadata[name] = value
    vector, part = values.get("vector"), _text(values, "x_partition")
    return FrameRecord(
        text_content=_text(values, "text_content"),
        metadata=metadata,
        record_type=values.get("record_type") or "document",
        unique_id=_text(values, "unique_id"),
        timestamp=_text(values, "timestamp"),
        context=_object(values.get("context"), "context"),
        vector=None if vector is None else np.asarray(vector, np.float32),
        raw_data=values.get("raw_data"),
        raw_data_type=values.get("raw_data_type"),
        parent=_text(values, "x_parent"),
        origin=values.get("x_origin"),
        embedder=_text(values, "x_embedder"),
        place=None if part is None else Place(part, _text(values, "x_point")),
        readers=values.get("x_readers"),
    )


def values_of(row: Any) -> dict[str, Any]:
    """Returns the columns of a row (a `beam.Row` or a named tuple); nested rows become dicts."""
    return {name: _plain(value) for name, value in row._asdict().items()}


def text_of_item(item: Any) -> str:
    """Returns an item as JSON text, which `item_of_text` can read.

    Raises:
        RecordError: it contains a value that JSON text cannot keep.
    """
    text = json.dumps(encode_item(item, clean=str), allow_nan=False)
    if '"__repr__"' in text:
        raise RecordError(
            "the item holds an object that a row cannot hold; let the connector give texts, "
            "numbers, dates, lists and dicts"
        )
    return text


def item_of_text(text: str) -> Any:
    """Returns the item from a row's column `item`.

    Raises:
        RecordError: the text is not an item.
    """
    try:
        return decode_item(json.loads(text))
    except ValueError as error:
        raise RecordError(
            f"the column item is not the JSON text of a source's item ({error}); leave it as it is"
        ) from error


def _columns(values: Any, fields: Mapping[str, str]) -> dict[str, Any]:
    return {name: _column(lookup(values, name), name, kind) for name, kind in fields.items()}


def _column(value: Any, name: str, kind: str) -> Any:
    if value is None:
        return None
    if kind == "string":
        return _unicode(as_text(value), name)
    fits = isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))
    if not fits or (kind == "integer" and not -_LARGEST <= value < _LARGEST):
        raise RecordError(
            f"the field {name} is {type(value).__name__} {as_text(value)[:40]!r} and not "
            f"{kind}; name it a string in `fields`, or leave it out"
        )
    return float(value) if kind == "number" else value


def _unicode(text: str | None, name: str) -> str | None:
    if text is not None and not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RecordError(f"{name} is not Unicode text: {error.reason}") from error
    return text


def _text(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    return None if value is None else as_text(value)


def _object(value: Any, name: str) -> dict[str, Any] | None:
    if isinstance(value, str):
        try:
            value = load_json(value)
        except ValueError as error:
            raise RecordError(f"the column {name} is not JSON: {error}") from error
    if value is not None and not isinstance(value, dict):
        raise RecordError(
            f"the column {name} holds {type(value).__name__}; it must be the JSON text of an object"
        )
    return value


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return values_of(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Timestamp):
        return value.to_rfc3339()
    if isinstance(value, Mapping):
        return {key: _plain(element) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(element) for element in value]
    return value
