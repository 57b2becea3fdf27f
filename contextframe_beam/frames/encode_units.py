"""Encodes what makes documents and their chunks units, where both are columns.

A chunk's row names its document, a vector's row names its embedder, and a document has one digest
with its chunks; the values are those that `encode.py` makes of single records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from xxhash import xxh3_128_digest

from contextframe_beam.frames.columns import FrameColumns, NotByColumns, Parents, Rows
from contextframe_beam.frames.encode import document_digest
from contextframe_beam.frames.json_columns import Fragment, put_together
from contextframe_beam.frames.schema import DIGEST, RELATIONSHIP
from contextframe_beam.frames.values import null_array

__all__ = ["as_units", "digest_ends", "embedded", "parent_keys", "parent_links", "rows_at"]


def embedded(records: FrameColumns) -> dict[str, pa.Array]:
    """Returns the columns of vectors, and of what tells where they are from.

    Raises:
        NotByColumns: a vector is one that no search can use.
    """
    vectors, texts = records.vectors, records.texts
    if vectors is None or vectors.null_count == len(vectors):
        return {}
    if not np.isfinite(vectors.flatten().to_numpy(zero_copy_only=False)).all():
        raise NotByColumns
    there = vectors.is_valid().to_pylist()
    known = [
        None if text is None or not has else xxh3_128_digest(text)
        for text, has in zip(texts.cast(pa.binary()).to_pylist(), there, strict=True)
    ]
    names = [records.embedder if has else None for has in there]
    return {
        "vector": vectors,
        "x_embedder": pa.array(names, pa.string()),
        "x_text": pa.array(known, DIGEST),
    }


def parent_keys(parents: Parents) -> pa.Array:
    """Returns the column `x_parent`."""
    return pa.array(_bytes_of(parents.keys), DIGEST)


def _bytes_of(keys: pa.Array) -> list[bytes]:
    packed = bytes.fromhex("".join(keys.to_pylist()).replace("-", ""))
    return [packed[start : start + 16] for start in range(0, len(packed), 16)]


def parent_links(parents: Parents) -> tuple[pa.Array, Fragment]:
    """Returns the column `relationships` of chunks, and what their digests see of it."""
    count = len(parents.keys)
    nothing = pa.nulls(count, pa.string())
    kinds = pa.repeat(pa.scalar("parent"), count)
    values = [kinds, parents.keys, parents.uris, nothing, nothing, nothing, nothing]
    column = pa.ListArray.from_arrays(
        pa.array(np.arange(count + 1, dtype=np.int32)),
        pa.StructArray.from_arrays(values, fields=list(RELATIONSHIP)),
    )
    parts: list[Any] = ['[{"type":"parent"']
    Fragment.of_text(parents.keys).put(parts, '"id":')
    Fragment.of_nullable(parents.uris, "null").put(parts, '"uri":')
    parts[-1] += ',"path":null,"cid":null,"title":null,"description":null}]'
    return column, Fragment(put_together(parts))


def digest_ends(records: FrameColumns) -> list[bytes] | None:
    """Returns what digests end with, as `row_digests` makes it of marks; None for nothing."""
    parents, origins, vectors = records.parents, records.origins, records.vectors
    if parents is None and origins is None and vectors is None:
        return None
    nothing = [None] * records.count
    embedder = (records.embedder or "").encode()
    ends = []
    for parent, origin, has_vector in zip(
        nothing if parents is None else _bytes_of(parents.keys),
        nothing if origins is None else origins.to_pylist(),
        nothing if vectors is None else vectors.is_valid().to_pylist(),
        strict=True,
    ):
        if parent is None and origin is None and not has_vector:
            ends.append(b"")
            continue
        # A vector counts by its embedder, so the two are there together.
        head = bytes([parent is not None, origin is not None, bool(has_vector), bool(has_vector)])
        text = embedder if has_vector else b""
        marks = b"".join([head, parent or b"", origin or b"", text])
        ends.append(b"--%d:%b" % (len(marks), marks))
    return ends


def as_units(
    rows: pa.RecordBatch, chunks: pa.RecordBatch, owners: Rows, order: Rows
) -> pa.RecordBatch:
    """Returns documents and chunks in one batch, with one digest for each document as a whole.

    Args:
        rows: The documents.
        chunks: Their chunks.
        owners: The row of each chunk's document, in order.
        order: The order of all rows, documents first and then chunks.
    """
    digests, parts = rows["x_digest"].to_pylist(), chunks["x_digest"].to_pylist()
    origins = []
    firsts = np.searchsorted(owners, np.arange(len(digests) + 1)).tolist()
    for row, digest in enumerate(digests):
        own = parts[firsts[row] : firsts[row + 1]]
        if own:
            digests[row] = document_digest(digest, own)
            origins += [digests[row]] * len(own)
    columns = dict(zip(rows.schema.names, rows.columns, strict=True))
    others = dict(zip(chunks.schema.names, chunks.columns, strict=True))
    columns["x_digest"] = pa.array(digests, DIGEST)
    others["x_origin"] = pa.array(origins, DIGEST)
    made = [
        pa.RecordBatch.from_arrays(list(one.values()), schema=rows.schema)
        for one in (columns, others)
    ]
    return rows_at(made, order)


def rows_at(batches: Sequence[pa.RecordBatch], places: Rows) -> pa.RecordBatch:
    """Returns some rows of batches, in an order of their own.

    Args:
        batches: The batches, of one schema.
        places: Where the rows are, counted through all batches.
    """
    wanted = pa.array(places)
    arrays = []
    for column in zip(*(batch.columns for batch in batches), strict=True):
        if all(part.null_count == len(part) for part in column):
            arrays.append(null_array(column[0].type, len(places)))
        else:
            whole = column[0] if len(column) == 1 else pa.concat_arrays(column)
            arrays.append(whole.take(wanted))
    return pa.RecordBatch.from_arrays(arrays, schema=batches[0].schema)
