"""The Arrow schema of a dataset of frames: the 27 columns of the format and our own four.

The format's columns keep their names, order and types whatever happens, because other readers
depend on them. Extra columns are nullable and begin with `x_`, as the format allows.
"""

from __future__ import annotations

import pyarrow as pa

from contextframe_beam.errors import SchemaError

DEFAULT_EMBED_DIM = 1536

#: File format versions of Lance that a dataset can be created with. Readers of the original
#: format open 2.1 from pylance 1.0 on and 2.2 from pylance 14 on.
STORAGE_VERSIONS = ("2.0", "2.1", "2.2")

RECORD_TYPES = ("document", "collection_header", "dataset_header", "frameset")
COLLECTION_ID_TYPES = ("uuid", "uri", "cid", "string")

RELATIONSHIP = pa.struct(
    [
        pa.field("type", pa.string(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("path", pa.string()),
        pa.field("cid", pa.string()),
        pa.field("title", pa.string()),
        pa.field("description", pa.string()),
    ]
)
KEY_VALUE = pa.struct([pa.field("key", pa.string()), pa.field("value", pa.string())])
DIGEST = pa.binary(16)

_BLOB = {b"lance-encoding:blob": b"true"}


def frame_schema(embed_dim: int = DEFAULT_EMBED_DIM) -> pa.Schema:
    """Returns the schema of a dataset whose vectors have `embed_dim` float32 values.

    Columns beginning with `x_` are ours: `x_source` (which source wrote the row), `x_digest`
    (16 bytes over the row's content, equal exactly when nothing changed), `x_encoding` (JSON,
    what a reader needs beyond the columns to rebuild an equal `FrameRecord`) and `x_state`
    (JSON, set on a source's state row only).

    Raises:
        SchemaError: `embed_dim` is not a positive integer.
    """
    if not isinstance(embed_dim, int) or embed_dim < 1:
        raise SchemaError(f"embed_dim is {embed_dim!r}; expected a whole number from 1 on")
    string = pa.string()
    return pa.schema(
        [
            pa.field("uuid", string, nullable=False),
            pa.field("text_content", string),
            pa.field("vector", pa.list_(pa.float32(), embed_dim)),
            pa.field("title", string, nullable=False),
            pa.field("version", string),
            pa.field("context", string),
            pa.field("uri", string),
            pa.field("local_path", string),
            pa.field("cid", string),
            pa.field("collection", string),
            pa.field("collection_id", string),
            pa.field("collection_id_type", string),
            pa.field("position", pa.int32()),
            pa.field("author", string),
            pa.field("contributors", pa.list_(string)),
            pa.field("created_at", string),
            pa.field("updated_at", string),
            pa.field("tags", pa.list_(string)),
            pa.field("status", string),
            pa.field("source_file", string),
            pa.field("source_type", string),
            pa.field("source_url", string),
            pa.field("relationships", pa.list_(RELATIONSHIP)),
            pa.field("custom_metadata", pa.list_(KEY_VALUE)),
            pa.field("record_type", string),
            pa.field("raw_data_type", string),
            pa.field("raw_data", pa.large_binary(), metadata=_BLOB),
            pa.field("x_source", string),
            pa.field("x_digest", DIGEST),
            pa.field("x_encoding", string),
            pa.field("x_state", string),
        ]
    )


FORMAT_COLUMNS = tuple(name for name in frame_schema().names if not name.startswith("x_"))
OWN_COLUMNS = tuple(name for name in frame_schema().names if name.startswith("x_"))


def embed_dim_of(schema: pa.Schema) -> int:
    """Returns the vector length of a dataset's schema, checking the schema on the way.

    Only names and types are compared: Lance finds columns by name, may show `raw_data` as an
    extension type and does not keep every nullability flag.

    Raises:
        SchemaError: a column of the format is missing or of another type, or there is one more.
    """
    columns = [name for name in schema.names if not name.startswith("x_")]
    missing = [name for name in FORMAT_COLUMNS if name not in columns]
    if missing:
        raise SchemaError(
            f"this is not a dataset of frames: it has no column {', '.join(missing)}; "
            "write to another path, or create one with FrameDataset.create"
        )
    foreign = [name for name in columns if name not in FORMAT_COLUMNS]
    if foreign:
        raise SchemaError(
            f"this is not a dataset of frames: it has the extra column {', '.join(foreign)}; "
            "extra columns must begin with x_"
        )
    vector = schema.field("vector").type
    if not pa.types.is_fixed_size_list(vector):
        raise SchemaError(f"column vector is {vector}; expected fixed_size_list<float32>")
    expected = frame_schema(vector.list_size)
    for name in FORMAT_COLUMNS:
        have, want = schema.field(name).type, expected.field(name).type
        same = _is_blob(have) if name == "raw_data" else _same_type(have, want)
        if not same:
            raise SchemaError(f"column {name} is {have}; a dataset of frames has {want}")
    for name in OWN_COLUMNS:
        if name in schema.names and not _same_type(
            schema.field(name).type, expected.field(name).type
        ):
            raise SchemaError(
                f"column {name} is {schema.field(name).type}; expected {expected.field(name).type}"
            )
    embed_dim: int = vector.list_size
    return embed_dim


def _is_blob(have: pa.DataType) -> bool:
    """Tells whether a column can hold raw data; files of format 2.2 have a type of their own."""
    name = getattr(have, "extension_name", "")
    return bool(pa.types.is_large_binary(have)) or name.startswith("lance.blob")


def _same_type(have: pa.DataType, want: pa.DataType) -> bool:
    """Compares types without the nullability of nested fields."""
    if pa.types.is_fixed_size_list(want):
        return (
            pa.types.is_fixed_size_list(have)
            and have.list_size == want.list_size
            and _same_type(have.value_type, want.value_type)
        )
    if pa.types.is_list(want):
        return pa.types.is_list(have) and _same_type(have.value_type, want.value_type)
    if pa.types.is_struct(want):
        return (
            pa.types.is_struct(have)
            and [f.name for f in have] == [f.name for f in want]
            and all(_same_type(have.field(f.name).type, f.type) for f in want)
        )
    return bool(have == want)
