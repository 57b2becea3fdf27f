"""Vectors as Arrow columns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from contextframe_beam.errors import RecordError


def fit_vector(value: Any, embed_dim: int | None) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Returns `value` as `embed_dim` float32 values, or as many as it has if that is None.

    Raises:
        RecordError: it is no such row of finite numbers.
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
    # NumPy's zeros are pages that the system shares until somebody writes to them.
    zeros = pa.py_buffer(np.zeros(values * kind.value_type.bit_width // 8, np.uint8))
    child = pa.Array.from_buffers(kind.value_type, values, [None, zeros])
    nulls = pa.py_buffer(np.zeros((count + 7) // 8, np.uint8))
    return pa.Array.from_buffers(kind, count, [nulls], count, children=[child])


def vector_array(vectors: Sequence[Any], kind: pa.FixedSizeListType) -> pa.Array:
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
    if column.null_count == len(column):
        return [None] * len(column)
    size = column.type.list_size
    flat = column.values.to_numpy(zero_copy_only=False)
    flat = flat[column.offset * size :]
    return [
        np.array(flat[index * size : (index + 1) * size], np.float32) if valid else None
        for index, valid in enumerate(column.is_valid().to_pylist())
    ]
