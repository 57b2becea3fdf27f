"""Gives vectors to documents and chunks that are columns, as `embed.py` does to single records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contextframe_beam.frames.columns import FrameColumns, Mask, Rows, filled
from contextframe_beam.frames.embedders import EmbedderIdentity, Vectors
from contextframe_beam.frames.json_columns import uuids_of
from contextframe_beam.frames.schema import fit_uuid, frame_schema_of
from contextframe_beam.transforms.elements import FrameBatch

__all__ = ["FindableColumns"]


class FindableColumns:
    """Those records and chunks of a batch of columns that are found by their texts.

    Args:
        columns: The columns of the batch.

    Attributes:
        texts: Their texts.
    """

    def __init__(self, columns: FrameColumns) -> None:
        self._columns = columns
        chunks = columns.chunks
        texts = columns.texts.to_pylist()
        found = _findable(texts) & (columns.record_type == "document")
        if chunks is not None:
            cut = np.zeros(columns.count, np.bool_)
            cut[chunks.owners] = True
            found &= ~cut
            if found.any():
                found &= ~_named_by_chunks(columns, np.flatnonzero(found))
            own = chunks.columns.texts.to_pylist()
            found = np.concatenate([found, _findable(own)])
            texts += own
        order = columns.order
        self._rows: Rows = order[found[order]]
        self.texts: list[str] = [texts[row] for row in self._rows.tolist()]

    def with_vectors(
        self,
        batch: FrameBatch,
        rows: Vectors,
        errors: Mapping[int, Exception],
        embedder: EmbedderIdentity,
    ) -> FrameBatch:
        """Returns the batch with vectors; documents without one that they need become dead letters.

        Args:
            batch: The batch, which is changed.
            rows: The vector of each text.
            errors: Why a text has none, by its place.
            embedder: Whose they are.
        """
        columns = self._columns
        count, chunks = columns.count, columns.chunks
        table = np.zeros((columns.rows, rows.shape[1]), np.float32)
        table[self._rows] = rows
        there = np.zeros(columns.rows, np.bool_)
        there[self._rows] = True
        if chunks is not None:
            own = replace(
                chunks.columns,
                vectors=_column(table[count:], there[count:]),
                embedder=embedder.fingerprint,
            )
            chunks = replace(chunks, columns=own)
        batch.columns = replace(
            columns,
            vectors=_column(table[:count], there[:count]),
            embedder=embedder.fingerprint,
            chunks=chunks,
        )
        if errors:
            self._refuse(batch, batch.columns, errors)
        return batch

    def _refuse(
        self, batch: FrameBatch, columns: FrameColumns, errors: Mapping[int, Exception]
    ) -> None:
        """Makes dead letters of documents of which some text has no vector."""
        owners = np.arange(columns.count)
        if columns.chunks is not None:
            owners = np.concatenate([owners, columns.chunks.owners])
        failed: dict[int, Exception] = {}
        for place, error in errors.items():
            failed.setdefault(int(owners[self._rows[place]]), error)
        numbers = _numbers_of(batch, columns)
        page = batch.page
        assert page is not None
        for row, error in sorted(failed.items()):
            records = columns.take(np.array([row])).records()
            number = numbers[row]
            [item] = page.items_at([number])
            batch.fail("embed", error, item, number, records)
        kept = np.setdiff1d(np.arange(columns.count), list(failed))
        batch.columns = columns.take(kept)
        batch.documents = [
            number
            for number, owner in zip(batch.documents, owners[columns.order].tolist(), strict=True)
            if owner not in failed
        ]


def _numbers_of(batch: FrameBatch, columns: FrameColumns) -> list[int]:
    """Returns the number of each document."""
    order = columns.order.tolist()
    return [
        number
        for number, place in zip(batch.documents, order, strict=True)
        if place < columns.count
    ]


def _findable(texts: list[str | None]) -> Mask:
    return np.fromiter((bool(text and text.strip()) for text in texts), np.bool_, len(texts))


def _named_by_chunks(columns: FrameColumns, rows: Rows) -> Mask:
    """Returns which of some documents have the key of another one that was cut."""
    found = np.zeros(columns.count, np.bool_)
    chunks = columns.chunks
    if chunks is not None and chunks.columns.parents is not None:
        places = pa.array(rows)
        own = columns.metadata.get("uuid")
        ids = columns.unique_ids.take(places)
        # What has no id is cut just as any other with its content, or is not.
        keys = pc.if_else(ids.is_valid(), uuids_of(filled(ids, "")), None).to_pylist()
        if own is not None:
            given = map(fit_uuid, own.take(rows).to_list())
            keys = [one or key for one, key in zip(given, keys, strict=True)]
        named = set(chunks.columns.parents.keys.to_pylist())
        found[rows] = [key in named for key in keys]
    return found


def _column(vectors: Vectors, there: Mask) -> pa.Array | None:
    """Returns vectors as a column, null where there is none; None where none is there."""
    if not there.any():
        return None
    kind = frame_schema_of(vectors.shape[1]).field("vector").type
    mask = None if there.all() else pa.array(~there)
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=kind, mask=mask)
