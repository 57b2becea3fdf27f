"""What documents can look like: hypothesis strategies that several tests share."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from contextframe_beam import FrameRecord
from contextframe_beam.frames.place import Place
from contextframe_beam.frames.record import is_uuid, uuid_of
from contextframe_beam.frames.schema import FORMAT_COLUMNS, OWN_COLUMNS, RECORD_TYPES

EMBED_DIM = 4

# Text that a careless encoder would take for something else.
TELLING_TEXTS = (
    "",
    " ",
    "\x00",
    "null",
    "true",
    "1",
    "-0.0",
    '"quoted"',
    "[]",
    '{"a": 1}',
    "2024-02-29",
    "2024-02-30",
    "2024-02-29T10:00:00Z",
    "1.2.3",
    "uuid",
    "F47AC10B-58CC-4372-A567-0E02B2C3D479",
    "f47ac10b-58cc-4372-a567-0e02b2c3d479",
    "Ünïcödé 😀 \u2028 \u202e",
    "it's",
    "\r\n# Heading\r\n",
    "# C#",
)
TELLING_NUMBERS = (0, 1, -1, 2**31 - 1, 2**31, 2**63, -(2**63) - 1, 10**100)
TELLING_FLOATS = (0.0, -0.0, 1.0, 1e308, -1e308, 5e-324, 0.1, 1e16)

texts = st.text(max_size=12) | st.sampled_from(TELLING_TEXTS)
numbers = st.integers() | st.sampled_from(TELLING_NUMBERS)
floats = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(TELLING_FLOATS)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | floats | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(texts, json_values, max_size=3)

target_relationships = st.fixed_dictionaries(
    {"relationship_type": texts, "target_id": texts | numbers},
    optional={"metadata": json_values, "other": texts},
)
canonical_relationships = st.fixed_dictionaries(
    {"type": st.sampled_from(["parent", "child", "tagged_with"])},
    optional={
        "id": texts | st.none(),
        "uri": texts,
        "path": texts,
        "cid": texts,
        "title": texts | st.none(),
        "description": texts,
        "weight": numbers,
    },
)
relationships = (
    st.lists(target_relationships, max_size=3)
    | st.lists(canonical_relationships, max_size=3)
    | st.lists(target_relationships | canonical_relationships | json_values, max_size=3)
    | json_values
)

column_names = st.sampled_from([*FORMAT_COLUMNS, *OWN_COLUMNS])
names = (
    column_names
    | st.sampled_from(["", "timestamp", "uuid", "unique_id", "custom_metadata", "score", "né"])
    | st.text(max_size=5)
)
metadata = st.builds(
    lambda plain, columns: {**plain, **columns},
    st.dictionaries(names, json_values, max_size=6),
    st.fixed_dictionaries(
        {},
        optional={
            "title": texts,
            "version": st.sampled_from(["1.0.0", "01.2.3", "1.0", "v1.0.0"]),
            "position": st.integers(-1, 2**31),
            "tags": st.lists(texts, max_size=3),
            "contributors": st.lists(texts | st.none(), max_size=3),
            "author": texts | st.fixed_dictionaries({"name": texts}, optional={"id": numbers}),
            "created_at": st.dates().map(str) | st.datetimes().map(str) | texts,
            "updated_at": st.dates().map(str) | st.none(),
            "collection_id_type": st.sampled_from(["uuid", "uri", "cid", "string", "other"]),
            "relationships": relationships,
            "uuid": st.uuids().map(str) | st.uuids().map(lambda value: str(value).upper()) | texts,
            "timestamp": json_values,
        },
    ),
)
vectors = st.lists(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    min_size=EMBED_DIM,
    max_size=EMBED_DIM,
)
unique_ids = (
    st.none()
    | texts
    | st.sampled_from(["api:4711", "json_file:/a/b.jsonl#7", "https://example.org/a?b=c#d"])
)


places = st.none() | st.builds(
    Place, st.text(min_size=1, max_size=5), st.none() | st.integers(-(2**64), 2**64)
)
links = st.tuples(st.just("parent"), st.none() | st.uuids().map(str)) | st.tuples(
    st.just("origin"), st.binary(min_size=16, max_size=16)
)


@st.composite
def records(draw: st.DrawFn) -> FrameRecord:
    """Any record that can be stored: one with content, or with an identity of its own."""
    record = FrameRecord(
        text_content=draw(st.none() | texts | st.text(max_size=200)),
        metadata=draw(metadata),
        record_type=draw(st.sampled_from(RECORD_TYPES)),
        unique_id=draw(unique_ids),
        timestamp=draw(st.none() | st.datetimes().map(lambda time: time.isoformat()) | texts),
        context=draw(st.none() | json_objects),
        vector=draw(st.none() | vectors),
        raw_data=draw(st.none() | st.binary(max_size=40)),
        raw_data_type=draw(st.none() | st.sampled_from(["application/pdf", ""])),
        embedder=draw(st.none() | texts),
        place=draw(places),
    )
    setattr(record, *draw(links))
    if record.unique_id and draw(st.integers(0, 9)) == 0:
        made = uuid_of(record.unique_id)
        record.metadata["uuid"] = draw(st.sampled_from([made, made.upper()]))
    has_content = record.text_content or record.raw_data or record.vector is not None
    if not (has_content or record.unique_id or is_uuid(record.metadata.get("uuid"))):
        record.text_content = "text"
    return record


def exact(record: FrameRecord) -> tuple[Any, ...]:
    """Returns all that a record holds, telling apart what Python calls equal: 1, 1.0 and True."""
    return (
        record.text_content,
        json.dumps(record.metadata, sort_keys=True),
        record.record_type,
        record.unique_id,
        record.timestamp,
        json.dumps(record.context, sort_keys=True),
        None if record.vector is None else as_float32(record.vector),
        record.raw_data,
        record.raw_data_type,
        record.parent,
        record.origin,
        record.embedder,
    )


def as_float32(vector: Any) -> bytes:
    import numpy as np

    return np.asarray(vector, np.float32).tobytes()
