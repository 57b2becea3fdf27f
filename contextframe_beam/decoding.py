"""Rows back to records: the inverse of `encoding.py`, which says how a row is laid out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from contextframe_beam._fields import FIT
from contextframe_beam._json import load_json
from contextframe_beam._vectors import vectors_of
from contextframe_beam.errors import DatasetError
from contextframe_beam.record import FrameRecord, uuid_of


def decode_rows(batch: pa.RecordBatch) -> Iterator[FrameRecord]:
    """Yields the record of each row of `batch`; columns that were not read count as null.

    Raises:
        DatasetError: what a row says about its own encoding makes no sense.
    """
    names = [name for name in batch.schema.names if name != "vector"]
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
    )


def _context_of(text: str) -> dict[str, Any]:
    """Returns the context; text that others wrote and that is no JSON object comes as `text`."""
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
