"""Cuts documents that are columns: their texts go to the chunker, and all else stays columns.

The parts, rows, letters and counts are those of `chunk_batch` with single records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contextframe_beam.connectors.page import Tally
from contextframe_beam.frames.columns import (
    MISSING,
    Cells,
    Chunks,
    FrameColumns,
    NotByColumns,
    Parents,
    filled,
)
from contextframe_beam.frames.document import Chunk as Piece
from contextframe_beam.frames.document import Document
from contextframe_beam.frames.encode_columns import contents_of
from contextframe_beam.frames.json_columns import uuids_of
from contextframe_beam.frames.schema import DIGEST
from contextframe_beam.transforms.chunkers import Chunker
from contextframe_beam.transforms.contents import ContentOrigins
from contextframe_beam.transforms.elements import FrameBatch
from contextframe_beam.transforms.pieces import INHERITED, chunk_id, pieces_of, records_of

__all__ = ["ColumnCut"]


class ColumnCut:
    """The documents of a batch on their way to the chunker.

    Args:
        batch: The batch, which has columns.
        origins: Gives origins; None for none.

    Attributes:
        others: Those that have to be cut as single records, with the failures and counts of the
            batch once all parts were made; None if there are none.

    Raises:
        NotByColumns: all have to be cut as single records.
    """

    def __init__(self, batch: FrameBatch, origins: ContentOrigins | None) -> None:
        columns, page = batch.columns, batch.page
        if columns is None or page is None or columns.chunks is not None:
            raise NotByColumns
        contents, apart = contents_of(columns)
        self.others: FrameBatch | None = None
        if apart.any():
            self.others = batch.set_apart(apart)
            columns = columns.take(np.flatnonzero(~apart))
        self._batch, self._page = batch, page
        uris = columns.unique_ids
        if "uuid" in columns.metadata:
            # A document with a uuid of its own shares its id with others, perhaps.
            named = pc.equal(uuids_of(filled(uris, "")), contents.keys)
            uris = pc.if_else(named, uris, pa.scalar(None, pa.string()))
        self._numbers = np.array(batch.documents or range(columns.count), np.int64)
        self._columns, self._titles = columns, contents.titles
        self._parents = Parents(contents.keys, uris)
        if origins is not None and columns.origins is None:
            self._identify(origins, contents.digests.to_pylist())

    def _identify(self, origins: ContentOrigins, digests: Sequence[bytes]) -> None:
        """Gives the documents their origins, and leaves out those that are stored."""
        made = origins.of(digests)
        self._columns = replace(self._columns, origins=pa.array(made, DIGEST))
        tally = Tally()
        keys = self._parents.keys
        known = origins.known(
            made, self._batch.source, tally, [None] * len(made), lambda row: str(keys[row])
        )
        if any(known):
            kept = np.flatnonzero(~np.array(known))
            places = pa.array(kept)
            self._columns = self._columns.take(kept)
            self._titles, self._parents = self._titles.take(places), self._parents.take(places)
            self._numbers = self._numbers[kept]
            self._batch.tally += tally

    def parts(
        self, chunker: Chunker | None, most_records: int, most_characters: int
    ) -> Iterator[FrameBatch]:
        """Yields the documents with their chunks, in parts of some size.

        The last part has the failures and counts, unless there are others.

        Args:
            chunker: What cuts; None leaves all documents whole.
            most_records: So many records end a part.
            most_characters: So many characters of text do.
        """
        batch, columns = self._batch, self._columns
        cuts = chunker if columns.record_type == "document" else None
        part = _Part()
        for row, text in enumerate(columns.texts.to_pylist()):
            batch.tally.documents += 1
            pieces: Sequence[Piece] = ()
            try:
                if cuts is not None and text:
                    pieces = pieces_of(cuts, Document(text))
                headings = [" > ".join(piece.headings) for piece in pieces]
                characters = len(text or "") + sum(len(one) for one in _texts_of(pieces))
            except Exception as error:
                number = int(self._numbers[row])
                records = columns.take(np.array([row])).records()
                [item] = self._page.items_at([number])
                batch.fail("chunk", error, item, number, records)
                continue
            rows = 1 + len(pieces)
            is_full = part.count + rows > most_records or part.characters + characters > (
                most_characters
            )
            if part.count and is_full:
                yield self._made(part)
                part = _Part()
            part.add(row, pieces, headings, characters)
        last = self._made(part)
        # At the end, when all is known that went wrong.
        end = last if self.others is None else self.others
        end.failures, end.deletions, end.tally = batch.failures, batch.deletions, batch.tally
        if end is last or part.count:
            yield last

    def _made(self, part: _Part) -> FrameBatch:
        """Returns a part as a batch."""
        batch = self._batch.empty()
        if not part.rows:
            return batch
        rows = np.array(part.rows)
        documents = self._columns.take(rows)
        counts = [1 + len(pieces) for pieces in part.pieces]
        batch.documents = np.repeat(self._numbers[rows], counts).tolist()
        try:
            chunks = self._chunks(part, documents, rows)
        except (NotByColumns, UnicodeError, TypeError, pa.ArrowException):
            # What a chunker gave has no place in columns.
            batch.records = [
                one
                for record, pieces in zip(documents.records(), part.pieces, strict=True)
                for one in (record, *records_of(record, pieces))
            ]
            batch.items = self._page.items_at(batch.documents)
            return batch
        batch.put_columns(replace(documents, chunks=chunks), self._page)
        return batch

    def _chunks(self, part: _Part, documents: FrameColumns, rows: Any) -> Chunks | None:
        pieces = [piece for own in part.pieces for piece in own]
        if not pieces:
            return None
        texts = _texts_of(pieces)
        if len(texts) < len(pieces):
            raise NotByColumns
        counts = np.array([len(own) for own in part.pieces])
        owners = np.repeat(np.arange(len(rows)), counts)
        numbers = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        places = pa.array(rows[owners])
        parents = self._parents.take(places)
        names = pc.coalesce(parents.uris, parents.keys).to_pylist()
        ids = [chunk_id(name, number) for name, number in zip(names, numbers.tolist(), strict=True)]
        headings = pa.array([one or None for own in part.headings for one in own], pa.string())
        metadata = {
            name: documents.metadata[name].take(owners)
            for name in INHERITED
            if name in documents.metadata
        }
        metadata["title"] = Cells(pc.coalesce(headings, self._titles.take(places)))
        metadata["position"] = Cells(pa.array(numbers))
        metadata["start"] = Cells.of([piece.start for piece in pieces])
        metadata["end"] = Cells.of([piece.end for piece in pieces])
        if any(piece.page is not None for piece in pieces):
            pages = [MISSING if piece.page is None else piece.page for piece in pieces]
            metadata["page"] = Cells.of(pages)
        times = documents.timestamps
        columns = FrameColumns(
            pa.array(texts, pa.string()),
            pa.array(ids, pa.string()),
            None if times is None else times.take(pa.array(owners)),
            "document",
            metadata,
            parents=parents,
        )
        return Chunks(owners, columns)


def _texts_of(pieces: Sequence[Piece]) -> list[str]:
    """Returns the texts of chunks, without what a chunker gave in place of texts."""
    return [piece.text for piece in pieces if isinstance(piece.text, str)]


@dataclass(slots=True)
class _Part:
    """Documents that go on together.

    Attributes:
        rows: Which.
        pieces: The chunks of each.
        headings: The headings that each of these stands under, as one text.
        count: The number of documents and chunks.
        characters: The length of their texts.
    """

    rows: list[int] = field(default_factory=list)
    pieces: list[Sequence[Piece]] = field(default_factory=list)
    headings: list[list[str]] = field(default_factory=list)
    count: int = 0
    characters: int = 0

    def add(self, row: int, pieces: Sequence[Piece], headings: list[str], characters: int) -> None:
        self.rows.append(row)
        self.pieces.append(pieces)
        self.headings.append(headings)
        self.count += 1 + len(pieces)
        self.characters += characters
