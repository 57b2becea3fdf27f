"""Chunk: a document becomes its own row and the rows of its chunks, which come together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam

from contextframe_beam.connectors.files.item import FileItem
from contextframe_beam.frames.columns import NotByColumns
from contextframe_beam.frames.document import Document
from contextframe_beam.frames.embedders import EmbedderSpec
from contextframe_beam.frames.record import FrameRecord
from contextframe_beam.transforms.chunk_columns import ColumnCut
from contextframe_beam.transforms.chunkers import Chunker, load_chunker
from contextframe_beam.transforms.contents import ContentOrigins
from contextframe_beam.transforms.elements import FrameBatch, Step, required
from contextframe_beam.transforms.pieces import chunk_records, text_of

__all__ = ["Chunk", "ChunkerSpec", "chunk_batch"]

#: Batches end at so many records or characters, but never within a document.
_MOST_RECORDS = 1024
_MOST_CHARACTERS = 4 << 20


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
        origins: Gives documents their origins, and leaves out those that are stored; None for
            neither.

    Raises:
        ConfigError: there is no such chunker, or it does not take what was given.
    """

    takes = (FrameBatch,)
    gives = FrameBatch

    def __init__(
        self,
        chunker: ChunkerSpec,
        embedder: EmbedderSpec | None = None,
        origins: ContentOrigins | None = None,
    ) -> None:
        super().__init__()
        # With the embedder that this process has: workers have theirs.
        chunker.load(None if embedder is None else replace(embedder, workers=1))
        self._do = _ChunkDoFn(chunker, embedder, origins)

    def expand(self, batches: beam.PCollection[FrameBatch]) -> beam.PCollection[FrameBatch]:
        cut: beam.PCollection[FrameBatch] = batches | "Chunk" >> beam.ParDo(
            self._do
        ).with_output_types(FrameBatch)
        return cut


class _ChunkDoFn(beam.DoFn):
    def __init__(
        self, chunker: ChunkerSpec, embedder: EmbedderSpec | None, origins: ContentOrigins | None
    ) -> None:
        self._spec, self._embedder, self._origins = chunker, embedder, origins
        self._chunker: Chunker | None = None

    def setup(self) -> None:
        self._chunker = self._spec.load(self._embedder)

    def process(self, batch: FrameBatch) -> Iterator[FrameBatch]:
        required(batch, FrameBatch, "Chunk")
        yield from chunk_batch(batch, self._chunker, origins=self._origins)


def chunk_batch(
    batch: FrameBatch,
    chunker: Chunker | None,
    most_records: int = _MOST_RECORDS,
    most_characters: int = _MOST_CHARACTERS,
    origins: ContentOrigins | None = None,
) -> Iterator[FrameBatch]:
    """Adds the chunks of each document after it, and yields the batch in parts of some size.

    Args:
        batch: The documents. Records that are chunks already, or no documents, stay as they are.
        chunker: What cuts; None leaves all documents whole.
        most_records: So many records end a part.
        most_characters: So many characters of text do.
        origins: Gives documents their origins, and leaves out those that are stored; None for
            neither.

    Yields:
        Parts that hold whole documents; at least one.
    """
    if batch.columns is not None:
        try:
            cut = ColumnCut(batch, origins)
        except NotByColumns:
            pass  # as single records, which takes longer
        else:
            yield from cut.parts(chunker, most_records, most_characters)
            if cut.others is None:
                return
            batch = cut.others
    if origins is not None:
        origins.prepare(batch)
    part, tally = batch.empty(), batch.tally
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
            part, size = batch.empty(), 0
        part.records += [record for record, _ in made]
        part.items += [item for _, item in made]
        part.documents += [number] * len(made)
        size += characters
    # At the end, when all is known that went wrong.
    part.failures, part.deletions, part.tally = batch.failures, batch.deletions, tally
    yield part


def _by_document(batch: FrameBatch) -> Iterator[tuple[int, list[int]]]:
    """Yields the number of each document of a batch, with the places of its records."""
    if not batch.documents:
        yield from ((place, [place]) for place in range(len(batch.records)))
        return
    places: dict[int, list[int]] = {}
    for place, number in enumerate(batch.documents):
        places.setdefault(number, []).append(place)
    yield from places.items()


def _parsed(item: Any) -> Document | None:
    """Takes the document that a parser left beside its record: nobody needs it after this."""
    if not isinstance(item, FileItem):
        return None
    found, item.document = item.document, None
    return found if isinstance(found, Document) else None
