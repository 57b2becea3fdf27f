"""The chunks of one document as records: what they have of it, and what they are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from contextframe_beam.frames.document import Chunk as Piece
from contextframe_beam.frames.document import Document
from contextframe_beam.frames.record import FrameRecord, uuid_of
from contextframe_beam.transforms.chunkers import Chunker
from contextframe_beam.transforms.elements import type_shown, uuid_of_record

__all__ = ["INHERITED", "chunk_id", "chunk_records", "pieces_of", "records_of", "text_of"]

#: What a chunk has of its document, so that a filter finds both.
INHERITED = (
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
    return records_of(record, pieces_of(chunker, parsed))


def pieces_of(chunker: Chunker, document: Document) -> Sequence[Piece]:
    """Returns the chunks of a document as the chunker gives them.

    Raises:
        ChunkError: the document cannot be cut.
        TypeError: the chunker gave something else than chunks.
    """
    pieces = chunker.chunk(document)
    if not isinstance(pieces, Sequence) or not all(isinstance(one, Piece) for one in pieces):
        raise TypeError(
            f"{type(chunker).__name__}.chunk returned {type_shown(pieces)}; it must return a list "
            "of Chunk"
        )
    return pieces


def records_of(record: FrameRecord, pieces: Sequence[Piece]) -> list[FrameRecord]:
    """Returns the chunks of a document as records.

    Raises:
        RecordError: the document cannot be stored.
    """
    uuid = uuid_of_record(record)
    # A document with a uuid of its own shares its id with others, perhaps.
    named = record.unique_id if record.unique_id and uuid_of(record.unique_id) == uuid else None
    parent = {"type": "parent", "id": uuid, **({"uri": named} if named else {})}
    inherited = {name: record.metadata[name] for name in INHERITED if name in record.metadata}
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
