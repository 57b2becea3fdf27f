"""The columns of a frame, and the values that each column accepts."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from functools import lru_cache
from typing import Any

import pyarrow as pa

from contextframe_beam.errors import ConfigError, SchemaError
from contextframe_beam.frames.place import DECIMALS, DIGITS
from contextframe_beam.frames.record import is_uuid, target_unique_id, uuid_of
from contextframe_beam.frames.values import dump_json

DEFAULT_EMBED_DIM = 1536

#: File format versions of Lance for new datasets. Readers of the original format can open 2.1 since
#: pylance 1.0, and 2.2 since pylance 14.
STORAGE_VERSIONS = ("2.0", "2.1", "2.2")

RECORD_TYPES = ("document", "collection_header", "dataset_header", "frameset")
COLLECTION_ID_TYPES = ("uuid", "uri", "cid", "string")

#: What the columns of own fields begin with (`fields.py`).
FIELD_PREFIX = "x_f_"

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
POINT = pa.decimal128(DIGITS, DECIMALS)

_BLOB = {b"lance-encoding:blob": b"true"}

# By default Lance makes symbols of common parts of texts. The digits of a random uuid have none:
# they took 0.5 us a row and became 16 bytes smaller. Addresses mostly repeat the one before them,
# which LZ4 finds faster, and makes them a third smaller; titles take half the time with it, and 14
# bytes more.
_AS_IT_IS = {b"lance-encoding:compression": b"none"}
_LZ4 = {b"lance-encoding:compression": b"lz4"}


def frame_schema(embed_dim: int = DEFAULT_EMBED_DIM) -> pa.Schema:
    """Returns the schema of a dataset whose vectors have `embed_dim` float32 values.

    Columns beginning with `x_` are ours: `x_source` (which source wrote the row), `x_digest`
    (16 bytes over the row's content, equal exactly when nothing changed), `x_encoding` (JSON,
    what a reader needs beyond the columns to rebuild an equal `FrameRecord`), `x_state`
    (JSON, set on a source's state row only), `x_parent` (16 bytes, set on chunks only: the uuid of
    the document's row), `x_origin` (16 bytes, what the row was made of: of a document its content
    at the source and the settings, of a chunk the digest of its document), `x_embedder` (the
    fingerprint of the embedder that made the row's vector), `x_text` (the XXH3-128 of the text
    that it was made of, by which an equal text finds it), `x_partition` and `x_point` (the place
    of a document in its source, by which a run finds that it is gone), and `x_readers` (who may
    read it; null where that is unknown).

    Raises:
        SchemaError: `embed_dim` is not a positive integer.
    """
    if not isinstance(embed_dim, int) or embed_dim < 1:
        raise SchemaError(f"embed_dim is {embed_dim!r}; expected a whole number from 1 on")
    string = pa.string()
    return pa.schema(
        [
            pa.field("uuid", string, nullable=False, metadata=_AS_IT_IS),
            pa.field("text_content", string),
            pa.field("vector", pa.list_(pa.float32(), embed_dim)),
            pa.field("title", string, nullable=False, metadata=_LZ4),
            pa.field("version", string),
            pa.field("context", string),
            pa.field("uri", string, metadata=_LZ4),
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
            pa.field("x_parent", DIGEST),
            pa.field("x_origin", DIGEST),
            pa.field("x_embedder", string),
            pa.field("x_text", DIGEST),
            pa.field("x_partition", string),
            pa.field("x_point", POINT),
            pa.field("x_readers", pa.list_(string)),
        ]
    )


@lru_cache(maxsize=16)
def frame_schema_of(embed_dim: int) -> pa.Schema:
    """Returns `frame_schema`, the same object each time."""
    return frame_schema(embed_dim)


FORMAT_COLUMNS = tuple(name for name in frame_schema().names if not name.startswith("x_"))
OWN_COLUMNS = tuple(name for name in frame_schema().names if name.startswith("x_"))


def embed_dim_of(schema: pa.Schema) -> int:
    """Returns the vector length of a dataset's schema, and checks the schema.

    Only names and types are compared: Lance finds columns by name, may show `raw_data` as an
    extension type and does not keep every nullability flag.

    Raises:
        SchemaError: a column is missing or has another type, or there is an extra column.
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


def check_storage_version(version: str) -> None:
    """Raises ConfigError if files of that format version cannot be made."""
    if version not in STORAGE_VERSIONS:
        raise ConfigError(
            f"storage version {version} is unknown; choose one of {', '.join(STORAGE_VERSIONS)}"
        )


def _is_blob(have: pa.DataType) -> bool:
    """Returns whether a column can hold raw data; format 2.2 has its own type for it."""
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


#: What a version looks like, as a regular expression.
VERSION_FORM = r"[0-9]+\.[0-9]+\.[0-9]+"
_VERSION = re.compile(rf"{VERSION_FORM}\Z")
_CANONICAL = ("type", "id", "uri", "path", "cid", "title", "description")
_CANONICAL_NAMES = frozenset(_CANONICAL)


def fit_text(value: Any) -> str | None:
    """Returns text; None for anything else."""
    return value if type(value) is str else None


def fit_title(value: Any) -> str | None:
    """Returns text that is not empty; None for anything else."""
    return value if type(value) is str and value else None


def _fit_author(value: Any) -> str | None:
    if type(value) is str:
        return value
    # Most systems give an object with a name, which is kept whole beside the column.
    name = value.get("name") if isinstance(value, dict) else None
    return name if type(name) is str else None


def fit_date(value: Any) -> str | None:
    """Returns the date at the beginning of ISO text; the text itself if it is only a date."""
    if type(value) is not str or value[4:5] != "-" or value[7:8] != "-":
        return None
    day = value if len(value) == 10 else value[:10]
    return day if is_date(day) else None


@lru_cache(maxsize=65536)
def is_date(text: str) -> bool:
    """Returns whether text is a day, YYYY-MM-DD."""
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


def fit_texts(value: Any) -> list[str] | None:
    """Returns a list of texts; None for anything else."""
    if type(value) is not list:
        return None
    for item in value:
        if type(item) is not str:
            return None
    return value


def fit_uuid(value: Any) -> str | None:
    """Returns a uuid in lower case; None for anything else."""
    if not is_uuid(value):
        return None
    return value if value == value.lower() else str(value).lower()


FIT: dict[Any, Callable[[Any], Any]] = {
    "uuid": fit_uuid,
    "title": fit_title,
    "version": _fit_version,
    "local_path": fit_text,
    "cid": fit_text,
    "collection": fit_text,
    "collection_id": fit_text,
    "collection_id_type": _fit_id_type,
    "position": _fit_position,
    "author": _fit_author,
    "contributors": fit_texts,
    "created_at": fit_date,
    "updated_at": fit_date,
    "tags": fit_texts,
    "status": fit_text,
    "source_file": fit_text,
    "source_type": fit_text,
    "source_url": fit_text,
    "relationships": lambda value: value,
}


def fit_relationships(
    value: Any, unique_id: str | None
) -> tuple[list[dict[str, Any]] | None, bool, bool]:
    """Returns the column's value, whether all have the target form, whether nothing is lost."""
    if type(value) is not list:
        return None, False, False
    column: list[dict[str, Any]] = []
    targets = 0
    exact = True
    for index, item in enumerate(value):
        row, kept = None, False
        if isinstance(item, dict) and "relationship_type" in item:
            row, kept = _target_relationship(item, unique_id, index)
            targets += 1
        elif isinstance(item, dict):
            row, kept = _canonical_relationship(item)
        exact = exact and kept
        if row is not None:
            column.append(row)
    if targets and targets < len(value):
        exact = False
    return column, targets > 0 and exact, exact


def _target_relationship(
    item: dict[str, Any], unique_id: str | None, index: int
) -> tuple[dict[str, Any] | None, bool]:
    kind, target, metadata = item["relationship_type"], item.get("target_id"), item.get("metadata")
    if type(kind) is not str or type(target) not in (str, int) or target == "":
        return None, False
    text = str(target)
    row: dict[str, Any] = dict.fromkeys(_CANONICAL)
    row["type"] = kind
    row["uri"] = text
    row["id"] = uuid_of(target_unique_id(unique_id, text))
    if metadata is not None:
        where = f"metadata['relationships'][{index}]['metadata']"
        row["description"] = dump_json(metadata, where)
    kept = (
        type(target) is str
        and item.keys() <= {"relationship_type", "target_id", "metadata"}
        and ("metadata" not in item or metadata is not None)
    )
    return row, kept


def _canonical_relationship(item: dict[str, Any]) -> tuple[dict[str, Any] | None, bool]:
    kinds = set(map(type, item.values()))
    if kinds == {str} and item.keys() <= _CANONICAL_NAMES:
        # Many chunks have the same document.
        row, kept = _relationship_of(tuple(item.items()))
        return row and dict(row), kept
    return _canonical(item)


@lru_cache(maxsize=1024)
def _relationship_of(items: tuple[tuple[str, str], ...]) -> tuple[dict[str, Any] | None, bool]:
    return _canonical(dict(items))


def _canonical(item: dict[str, Any]) -> tuple[dict[str, Any] | None, bool]:
    if type(item.get("type")) is not str:
        return None, False
    row = {name: item[name] if type(item.get(name)) is str else None for name in _CANONICAL}
    if row["id"] is not None:
        # The column has only lower-case uuids, like the key; any other id of the source is a name
        # for readers.
        own = fit_uuid(row["id"])
        if own is None:
            row["uri"] = row["uri"] or row["id"]
        row["id"] = own
    if not (row["id"] or row["uri"] or row["path"] or row["cid"]):
        return None, False
    return row, {name: text for name, text in row.items() if text is not None} == item
