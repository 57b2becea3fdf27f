"""Stored values: exact JSON text, vectors as Arrow columns, digests of rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from itertools import repeat
from pathlib import PurePath
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from xxhash import xxh3_128, xxh3_128_digest

from contextframe_beam.errors import RecordError

# A dataclass would be written with its NaN as null.
_OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS
# The limit of orjson; deeper values could also not be read from a deep stack.
_MAX_DEPTH = 250
# How much of the path to a value is shown.
_MAX_PLACE = 80


def dump_json(value: Any, where: str) -> str:
    """Returns compact JSON for `value`.

    Dates, times and UUIDs become ISO text, decimals and paths text, enumerations their values,
    tuples lists.

    Args:
        value: Any JSON value.
        where: The name of the value in errors, as in `metadata['author']`.

    Raises:
        RecordError: `value` contains something that JSON cannot express; the message says where.
    """
    try:
        text = orjson.dumps(value, default=_text_of, option=_OPTIONS)
    except TypeError:
        return _dump_slowly(value, where)
    if b"null" in text:
        check_json(value, where)
    return text.decode()


def dump_objects(values: Iterable[Any], where: str) -> list[bytes | None]:
    """Returns the JSON of objects and lists, as `dump_json` makes that of one; None for None.

    Raises:
        RecordError: one of them contains something that JSON cannot express.
    """
    given = list(values)
    try:
        texts = [
            None if one is None else orjson.dumps(one, default=_text_of, option=_OPTIONS)
            for one in given
        ]
    except TypeError:
        return [None if one is None else dump_json(one, where).encode() for one in given]
    for value, text in zip(given, texts, strict=True):
        if text is not None and b"null" in text:
            check_json(value, where)
    return texts


def load_json(text: str) -> Any:
    """Returns the value of JSON text, with integers of any size."""
    return json.loads(text)


def _text_of(value: Any) -> str:
    if isinstance(value, Decimal | PurePath):
        return str(value)
    raise TypeError(type(value).__name__)


def check_json(value: Any, where: str, depth: int = 0) -> None:
    """Checks that JSON can express a value.

    Raises:
        RecordError: it cannot; the message says where in `value`, and why.
    """
    if isinstance(value, str):
        if not value.isascii():
            _check_unicode(value, where)
    elif isinstance(value, dict):
        _check_depth(depth, where)
        for key, inner in value.items():
            if not isinstance(key, str):
                raise RecordError(
                    f"{where} has the key {key!r} ({type(key).__name__}); JSON keys are text"
                )
            place = f"{where}[{key!r}]"
            if not key.isascii():
                _check_unicode(key, f"the key of {place}")
            check_json(inner, place, depth + 1)
    elif isinstance(value, list | tuple):
        _check_depth(depth, where)
        for index, inner in enumerate(value):
            check_json(inner, f"{where}[{index}]", depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise RecordError(f"{where} is {value}; JSON has no such number, use None")
    elif not isinstance(value, int | None):
        try:
            orjson.dumps(value, default=_text_of, option=_OPTIONS)
        except TypeError as error:
            raise RecordError(
                f"{where} is a {type(value).__name__}, which JSON cannot hold; "
                "convert it to text, numbers, lists or dicts"
            ) from error


def _check_depth(depth: int, where: str) -> None:
    if depth >= _MAX_DEPTH:
        place = where if len(where) <= _MAX_PLACE else f"{where[:_MAX_PLACE]}..."
        raise RecordError(
            f"{place} is nested more than {_MAX_DEPTH} levels deep, or holds itself; flatten it"
        )


def _check_unicode(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RecordError(
            f"{where} holds a lone surrogate at character {error.start}, which is not Unicode "
            "text; decode the source with errors='replace' or remove it"
        ) from error


def _dump_slowly(value: Any, where: str) -> str:
    check_json(value, where)
    try:
        return json.dumps(
            value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_slow_text_of
        )
    except (TypeError, ValueError) as error:
        raise RecordError(f"{where} cannot be stored as JSON: {error}") from error


def _slow_text_of(value: Any) -> Any:
    # Only values that orjson supports and json does not come here (dates, UUIDs, ...).
    return orjson.loads(orjson.dumps(value, default=_text_of, option=_OPTIONS))


def is_unicode(text: str) -> bool:
    """Returns whether a text can be stored; a text with half a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def lone_surrogate(record: Any) -> RecordError:
    """Returns an error that says where a record has a lone surrogate."""
    places: dict[str, Any] = {
        name: getattr(record, name)
        for name in ("text_content", "unique_id", "timestamp", "raw_data_type", "metadata")
    }
    if isinstance(record.metadata, dict):
        # In an order that does not depend on where the fields stand.
        names = sorted(record.metadata, key=str)
        places["metadata"] = {name: record.metadata[name] for name in names}
    try:
        for where, value in places.items():
            check_json(value, where)
    except RecordError as error:
        return error
    return RecordError("the record holds text that is not Unicode")


def loaded(text: str) -> Any:
    """Returns the value of JSON text.

    Raises:
        ValueError: it is not JSON, or is too deep to be read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def of_type(value: Any, kind: type, where: str) -> Any:
    """Returns a value if it has a type; a bool does not count as an int.

    Raises:
        TypeError: it has another type; the message says where.
    """
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{where} is {_shown(value)}, not {_NAMES.get(kind, kind.__name__)}")
    return value


def mapping_of(value: Any, where: str) -> Mapping[str, Any]:
    """Returns a JSON object; an empty one for null.

    Raises:
        TypeError: it is another value.
    """
    found: Mapping[str, Any] = of_type({} if value is None else value, dict, where)
    return found


def _shown(value: Any) -> str:
    text = f"{value!r:.40}" if isinstance(value, str | int | float | None) else type(value).__name__
    return _NAMES.get(type(value), text) if isinstance(value, dict | list) else text


_NAMES = {dict: "an object", list: "a list", str: "text", int: "a whole number"}


def fit_vector(value: Any, embed_dim: int | None) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Returns `value` as `embed_dim` float32 values; None allows any length.

    Raises:
        RecordError: it is not a list of that many finite numbers.
    """
    try:
        given = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise RecordError(
            f"vector is a {type(value).__name__} that is no row of numbers: {error}"
        ) from error
    if given.dtype.kind not in "fiu":
        raise RecordError(f"vector is a {type(value).__name__} that is no row of numbers")
    if given.ndim != 1:
        raise RecordError(f"vector has the shape {given.shape}; expected one dimension")
    if embed_dim is not None and len(given) != embed_dim:
        raise RecordError(
            f"vector has {len(given)} values and the dataset holds {embed_dim}; "
            "use the model the dataset was made for, or create one with that embed_dim"
        )
    vector = given
    if given.dtype != np.float32:
        with np.errstate(over="ignore"):
            vector = given.astype(np.float32)
    if not np.isfinite(vector).all():
        raise RecordError("vector holds NaN or infinity (as float32), which no search can use")
    return vector


def null_array(kind: pa.DataType, count: int) -> pa.Array:
    """Returns `count` nulls; those of vectors share memory, since they take 4 bytes a value."""
    if not pa.types.is_fixed_size_list(kind):
        return pa.nulls(count, kind)
    rows = 1024
    while rows < count:
        rows *= 2
    return _null_vectors(kind, rows).slice(0, count)


@lru_cache(maxsize=8)
def _null_vectors(kind: pa.FixedSizeListType, count: int) -> pa.Array:
    values = count * kind.list_size
    # NumPy's zeros are pages that the system shares until they are written to.
    zeros = pa.py_buffer(np.zeros(values * kind.value_type.bit_width // 8, np.uint8))
    child = pa.Array.from_buffers(kind.value_type, values, [None, zeros])
    nulls = pa.py_buffer(np.zeros((count + 7) // 8, np.uint8))
    return pa.Array.from_buffers(kind, count, [nulls], count, children=[child])


def vector_array(vectors: Sequence[Any], kind: pa.FixedSizeListType) -> pa.Array:
    """Returns vectors as a column of fixed-size lists of float32; None becomes null."""
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


def vectors_of(column: pa.Array) -> list[Any]:
    """Returns the vectors of a column as arrays of float32; None for null."""
    if column.null_count == len(column):
        return [None] * len(column)
    size = column.type.list_size
    flat = column.values.to_numpy(zero_copy_only=False)
    flat = flat[column.offset * size :]
    return [
        np.array(flat[index * size : (index + 1) * size], np.float32) if valid else None
        for index, valid in enumerate(column.is_valid().to_pylist())
    ]


def row_digests(
    contents: Iterable[Sequence[Any]],
    vectors: Sequence[Any] | None,
    raw_data: Sequence[Any] | None,
    marks: Sequence[bytes | None] | None = None,
) -> list[bytes]:
    """Returns the XXH3-128 digest of each row.

    Args:
        contents: The content of each row except vector and raw data; see `row_contents`.
        vectors: The vector of each row, or None if no row has one.
        raw_data: The raw data of each row, or None if no row has any.
        marks: Further content of each row, or None; or None if no row has any.

    Raises:
        TypeError: a row has text that is not Unicode.
    """
    # JSON distinguishes text, lists, numbers and missing values, and where each ends.
    rows = map(orjson.dumps, contents)
    if vectors is None and raw_data is None and marks is None:
        return list(map(xxh3_128_digest, rows))
    nothing = repeat(None)
    return list(
        map(_digest, rows, vectors or nothing, raw_data or nothing, marks or nothing),
    )


def row_contents(
    names: Sequence[str],
    metadata: Sequence[Mapping[str, Any]],
    stored: Sequence[Sequence[Any]],
    texts: Sequence[Sequence[Any]],
    shared: Sequence[Sequence[Any]],
) -> Iterable[Sequence[Any]]:
    """Yields the content of each row except vector and raw data.

    Args:
        names: The metadata names of the batch, sorted.
        metadata: The metadata of each row.
        stored: The stored values of each name, in the order of `names`; None for rows without that
            name.
        texts: Columns in which None is a value.
        shared: Columns with the same values in many rows.
    """
    whole = not any(None in column for column in stored)
    heads = _heads([tuple(names)] * len(metadata) if whole else metadata, shared)
    rows: Iterable[Sequence[Any]] = zip(heads, *map(_without_none, texts), *stored, strict=True)
    if whole:
        return rows
    return ([part for part in row if part is not None] for row in rows)


def _heads(names: Iterable[Iterable[str]], columns: Sequence[Sequence[Any]]) -> list[str]:
    """Returns the names and values of each row as JSON, made once for equal ones."""
    known: dict[tuple[Any, ...], str] = {}
    heads = []
    for key in zip(map(tuple, names), *columns, strict=True):
        head = known.get(key)
        if head is None:
            own, *rest = key
            head = known[key] = orjson.dumps((sorted(own), *rest)).decode()
        heads.append(head)
    return heads


def _digest(content: bytes, vector: Any, raw_data: bytes | None, marks: bytes | None) -> bytes:
    if vector is None and raw_data is None and marks is None:
        return xxh3_128_digest(content)
    hashed = xxh3_128(content)
    # Rows without marks keep the digests that they had before marks existed.
    parts = (None if vector is None else vector.tobytes(), raw_data, *([marks] if marks else ()))
    for data in parts:
        hashed.update(b"-" if data is None else b"%d:" % len(data))
        hashed.update(data or b"")
    return hashed.digest()


def _without_none(values: Sequence[Any]) -> Sequence[Any]:
    """Returns `values` with another mark for None, because None later means a missing name."""
    return values if None not in values else [value is not None and value for value in values]
