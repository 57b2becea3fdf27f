"""Chunk: a document becomes its own row and the rows of its chunks, which come together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam

from contextframe_beam.connectors.files.item import FileItem
from contextframe_beam.connectors.page import Tally
from contextframe_beam.frames.document import Chunk as Piece
from contextframe_beam.frames.document import Document
from contextframe_beam.frames.embedders import EmbedderSpec
from contextframe_beam.frames.record import FrameRecord, uuid_of
from contextframe_beam.transforms.chunkers import Chunker, load_chunker
from contextframe_beam.transforms.elements import (
    FrameBatch,
    Step,
    required,
    type_shown,
    uuid_of_record,
)

__all__ = ["Chunk", "ChunkerSpec", "chunk_batch", "chunk_id", "chunk_records", "text_of"]

#: Batches end at so many records or characters, but never within a document.
_MOST_RECORDS = 1024
_MOST_CHARACTERS = 4 << 20

# What a chunk has of its document, so that a filter finds both.
_INHERITED = (
    "author",
    "collection",
    "collection_id",
    "collection_id_type",
    "contributors",
    "created_at",
    "source_file",
    "source_type",
    "source_url",
    "status",
    "tags",
    "updated_at",
)


@dataclass(frozen=True)
class ChunkerSpec:
    """A chunker on its way to other processes.

    Attributes:
        name: `none`, a registered name such as `markdown`, or `package.module:Class`.
        tokens: How long a chunk may be; None for the chunker's own default.
        overlap: How many tokens of the chunk before a chunk repeats at most; likewise.
    """

    name: str = "markdown"
    tokens: int | None = None
    overlap: int | None = None

    def load(self, embedder: EmbedderSpec | None = None) -> Chunker | None:
        """Returns the chunker of this process; None for `none`.

        Args:
            embedder: Who counts tokens; the chunker has a way of its own without one.

        Raises:
            ConfigError: there is no such chunker, or it does not take what was given.
        """
        counter = None if embedder is None else embedder.load()
        return load_chunker(self.name, tokens=self.tokens, overlap=self.overlap, counter=counter)


class Chunk(Step[beam.PCollection[FrameBatch], beam.PCollection[FrameBatch]]):
    """Adds the chunks of each document after it.

    A chunk is a record of type `document` whose `parent` is the document's uuid. It has the path
    of its headings as title, its number as `position`, its page and offsets, and the author, tags
    and dates of the document. Its id is `{document}#chunk={n}`. A document that cannot be cut
    becomes a dead letter of the stage `chunk`.

    Args:
        chunker: What cuts.
        embedder: Who counts tokens; the chunker has a way of its own without one.

    Raises:
        ConfigError: there is no such chunker, or it does not take what was given.
    """

    takes = (FrameBatch,)
    gives = FrameBatch

    def __init__(self, chunker: ChunkerSpec, embedder: EmbedderSpec | None = None) -> None:
        super().__init__()
        # With the embedder that this process has: workers have theirs.
        chunker.load(None if embedder is None else replace(embedder, workers=1))
        self._chunker, self._embedder = chunker, embedder

    def expand(self, batches: beam.PCollection[FrameBatch]) -> beam.PCollection[FrameBatch]:
        cut: beam.PCollection[FrameBatch] = batches | "Chunk" >> beam.ParDo(
            _ChunkDoFn(self._chunker, self._embedder)
        ).with_output_types(FrameBatch)
        return cut


class _ChunkDoFn(beam.DoFn):
    def __init__(self, chunker: ChunkerSpec, embedder: EmbedderSpec | None) -> None:
        self._spec, self._embedder = chunker, embedder
        self._chunker: Chunker | None = None

    def setup(self) -> None:
        self._chunker = self._spec.load(self._embedder)

    def process(self, batch: FrameBatch) -> Iterator[FrameBatch]:
        required(batch, FrameBatch, "Chunk")
        yield from chunk_batch(batch, self._chunker)


def chunk_batch(
    batch: FrameBatch,
    chunker: Chunker | None,
    most_records: int = _MOST_RECORDS,
    most_characters: int = _MOST_CHARACTERS,
) -> Iterator[FrameBatch]:
    """Adds the chunks of each document after it, and yields the batch in parts of some size.

    Args:
        batch: The documents. Records that are chunks already, or no documents, stay as they are.
        chunker: What cuts; None leaves all documents whole.
        most_records: So many records end a part.
        most_characters: So many characters of text do.

    Yields:
        Parts that hold whole documents; at least one.
    """
    part, tally = _part_of(batch), batch.tally
    size = 0
    for number, places in _by_document(batch):
        made: list[tuple[FrameRecord, Any]] = []
        try:
            for place in places:
                record, item = batch.records[place], batch.items[place]
                if not isinstance(record, FrameRecord):
                    made.append((record, item))  # the sink says what is wrong with it
                    continue
                # Files were counted when they were parsed.
                tally.documents += record.parent is None and not isinstance(item, FileItem)
                made.append((record, item))
                if chunker is not None:
                    made += [(one, item) for one in chunk_records(record, chunker, _parsed(item))]
        except Exception as error:
            records = [batch.records[one] for one in places]
            batch.fail("chunk", error, batch.items[place], number, records)
            continue
        characters = sum(len(text_of(record)) for record, _ in made)
        full = len(part.records) + len(made) > most_records or size + characters > most_characters
        if part.records and full:
            yield part
            part, size = _part_of(batch), 0
        part.records += [record for record, _ in made]
        part.items += [item for _, item in made]
        part.documents += [number] * len(made)
        size += characters
    # At the end, when all is known that went wrong.
    part.failures, part.deletions, part.tally = batch.failures, batch.deletions, tally
    yield part


def chunk_records(
    record: FrameRecord, chunker: Chunker, parsed: Document | None = None
) -> list[FrameRecord]:
    """Returns the chunks of a document, in order; empty for other records, or without text.

    Args:
        record: The document.
        chunker: What cuts.
        parsed: The document as a parser made it. It tells more than the text, and counts as long
            as nothing has changed the text since.

    Raises:
        ChunkError: the document cannot be cut.
        RecordError: it cannot be stored.
        TypeError: the chunker gave something else than chunks.
    """
    text = text_of(record)
    if record.parent is not None or record.record_type != "document" or not text:
        return []
    if parsed is None or parsed.text != text:
        parsed = Document(text)
    pieces = chunker.chunk(parsed)
    if not isinstance(pieces, Sequence) or not all(isinstance(one, Piece) for one in pieces):
        raise TypeError(
            f"{type(chunker).__name__}.chunk returned {type_shown(pieces)}; it must return a list "
            "of Chunk"
        )
    uuid = uuid_of_record(record)
    # A document with a uuid of its own shares its id with others, perhaps.
    named = record.unique_id if record.unique_id and uuid_of(record.unique_id) == uuid else None
    parent = {"type": "parent", "id": uuid, **({"uri": named} if named else {})}
    inherited = {name: record.metadata[name] for name in _INHERITED if name in record.metadata}
    return [
        FrameRecord(
            piece.text,
            {
                **inherited,
                "title": " > ".join(piece.headings) or record.title,
                "position": number,
                "relationships": [dict(parent)],
                "start": piece.start,
                "end": piece.end,
                **({} if piece.page is None else {"page": piece.page}),
            },
            unique_id=chunk_id(named or uuid, number),
            timestamp=record.timestamp,
            parent=uuid,
            readers=record.readers,
        )
        for number, piece in enumerate(pieces)
    ]


def text_of(record: Any) -> str:
    """Returns the text of a record; "" for what has none, or for what the sink refuses."""
    text = getattr(record, "text_content", None)
    return text if isinstance(text, str) else ""


def chunk_id(document: str, number: int) -> str:
    """Returns the id of a document's chunk, whose number counts from 0."""
    return f"{document}#chunk={number}"


def _by_document(batch: FrameBatch) -> Iterator[tuple[int, list[int]]]:
    """Yields the number of each document of a batch, with the places of its records."""
    if not batch.documents:
        yield from ((place, [place]) for place in range(len(batch.records)))
        return
    places: dict[int, list[int]] = {}
    for place, number in enumerate(batch.documents):
        places.setdefault(number, []).append(place)
    yield from places.items()


def _part_of(batch: FrameBatch) -> FrameBatch:
    return FrameBatch([], [], batch.partition, batch.position, tally=Tally(source=batch.source))


def _parsed(item: Any) -> Document | None:
    """Takes the document that a parser left beside its record: nobody needs it after this."""
    if not isinstance(item, FileItem):
        return None
    found, item.document = item.document, None
    return found if isinstance(found, Document) else None
