"""Documents and their chunks: what a chunk has of its document, and how batches are cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam import FrameRecord
from contextframe_beam.connectors.page import SourceInfo, Tally
from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.document import Chunk as Piece
from contextframe_beam.frames.document import Document, Heading
from contextframe_beam.frames.embedders import EmbedderSpec
from contextframe_beam.frames.encode import encode_records
from contextframe_beam.frames.record import uuid_of
from contextframe_beam.transforms.chunk import Chunk, ChunkerSpec, chunk_batch, chunk_records
from contextframe_beam.transforms.chunkers import MarkdownChunker
from contextframe_beam.transforms.elements import FrameBatch

CHUNKER = MarkdownChunker(tokens=16)
GUIDE = "# Guide\n\nOne two three four five.\n\n## Install\n\nSix seven eight nine ten eleven."


def document(text: str | None = GUIDE, **more: Any) -> FrameRecord:
    return FrameRecord(text, **{"unique_id": "doc:a", **more})


def batch_of(*records: FrameRecord, documents: list[int] | None = None) -> FrameBatch:
    items = [{"id": record.unique_id} for record in records]
    tally = Tally(SourceInfo("s", "s"), read=len(records))
    return FrameBatch(list(records), items, "p", "page 1", tally=tally, documents=documents or [])


class Refusing:
    """Cuts nothing that mentions a walrus."""

    def chunk(self, found: Document) -> list[Piece]:
        if "walrus" in found.text:
            raise ValueError("no walruses")
        return [Piece(found.text, 0, len(found.text))]


class TestAChunk:
    def test_stands_under_its_headings_and_says_where_it_was(self) -> None:
        first, second = chunk_records(document(), CHUNKER)
        assert (first.title, second.title) == ("Guide", "Guide > Install")
        for number, chunk in enumerate((first, second)):
            start, end = chunk.metadata["start"], chunk.metadata["end"]
            assert chunk.text_content == GUIDE[start:end]
            assert chunk.metadata["position"] == number
            assert chunk.unique_id == f"doc:a#chunk={number}"
            assert chunk.parent == uuid_of("doc:a")

    def test_names_its_document_as_a_relationship(self) -> None:
        [chunk] = chunk_records(document("Text."), CHUNKER)
        row = encode_records([chunk], embed_dim=4)[0].to_pylist()[0]
        [found] = row["relationships"]
        assert (found["type"], found["id"], found["uri"]) == ("parent", uuid_of("doc:a"), "doc:a")

    def test_is_found_by_the_filters_of_its_document(self) -> None:
        about = {
            "author": "Ada",
            "tags": ["one", "two"],
            "created_at": "2026-01-31",
            "collection": "guides",
            "source_file": "a.md",
            "title": "All of it",
            "custom": 7,
        }
        [chunk] = chunk_records(
            document("Text.", metadata=about, timestamp="2026-02-01T08:00Z"), CHUNKER
        )
        row = encode_records([chunk], embed_dim=4)[0].to_pylist()[0]
        for name in ("author", "tags", "created_at", "collection", "source_file"):
            assert row[name] == about[name]
        assert row["updated_at"] == "2026-02-01"
        assert chunk.title == "All of it"
        assert "custom" not in chunk.metadata

    def test_has_the_page_of_a_parsed_document_and_its_outline(self) -> None:
        text = "First page.\n\nSecond page."
        parsed = Document(text, headings=(Heading(0, 1, "Book"),), pages=(0, 13))
        [chunk] = chunk_records(document(text), CHUNKER, parsed)
        assert (chunk.title, chunk.metadata["page"]) == ("Book", 1)

    def test_is_of_the_text_that_an_enricher_has_made(self) -> None:
        parsed = Document("Old.", headings=(Heading(0, 1, "Old"),))
        [chunk] = chunk_records(document("New."), CHUNKER, parsed)
        assert (chunk.text_content, chunk.title) == ("New.", "New.")

    @pytest.mark.parametrize(
        "record",
        [
            document(None),
            document(""),
            document(" \n\t"),
            document(record_type="collection_header"),
            document(parent=uuid_of("doc:b")),
        ],
    )
    def test_is_made_of_documents_with_text_only(self, record: FrameRecord) -> None:
        assert chunk_records(record, CHUNKER) == []

    @pytest.mark.parametrize(
        ("record", "named"),
        [
            (document("Text.", unique_id=None), None),
            (document("Text.", metadata={"uuid": uuid_of("other")}), uuid_of("other")),
        ],
        ids=["without an id", "with a uuid of its own"],
    )
    def test_of_a_document_that_no_id_names_is_named_by_its_uuid(self, record, named) -> None:
        [chunk] = chunk_records(record, CHUNKER)
        assert chunk.parent == record.uuid
        assert chunk.unique_id == f"{record.uuid}#chunk=0"
        assert named in (None, record.uuid)

    @given(st.text(max_size=400))
    def test_can_be_stored_whatever_the_text(self, text: str) -> None:
        records = chunk_records(document(text), CHUNKER)
        rows, errors = encode_records(records, embed_dim=4)
        assert not errors
        assert rows.num_rows == len(set(rows["uuid"].to_pylist())) == len(records)


class TestABatch:
    def test_holds_each_document_and_its_chunks_as_one(self) -> None:
        [cut] = chunk_batch(batch_of(document(), document("B.", unique_id="doc:b")), CHUNKER)
        names = [record.unique_id for record in cut.records]
        assert names == ["doc:a", "doc:a#chunk=0", "doc:a#chunk=1", "doc:b", "doc:b#chunk=0"]
        assert cut.documents == [0, 0, 0, 1, 1]
        assert [item["id"] for item in cut.items] == ["doc:a"] * 3 + ["doc:b"] * 2
        assert cut.tally.documents == 2

    def test_is_cut_between_documents_and_tells_of_the_run_once(self) -> None:
        records = [document(f"Text {number}.", unique_id=f"doc:{number}") for number in range(9)]
        parts = list(chunk_batch(batch_of(*records), CHUNKER, most_records=5))
        assert [len(part.records) for part in parts] == [4, 4, 4, 4, 2]
        assert [part.tally.read for part in parts] == [0, 0, 0, 0, 9]
        assert all(part.source == SourceInfo("s", "s") for part in parts)
        assert [number for part in parts for number in part.documents[::2]] == list(range(9))

    def test_never_parts_a_document_however_long(self) -> None:
        long = document("\n\n".join(f"Paragraph {n} has some words of its own." for n in range(99)))
        parts = list(chunk_batch(batch_of(document("B.", unique_id="b"), long), CHUNKER, 5, 100))
        assert [set(part.documents) for part in parts] == [{0}, {1}]
        assert len(parts[1].records) > 50

    def test_goes_on_without_a_document_that_cannot_be_cut(self) -> None:
        given = batch_of(
            document("One.", unique_id="doc:1"),
            document("A walrus.", unique_id="doc:2"),
            document("Three.", unique_id="doc:3"),
        )
        parts = list(chunk_batch(given, Refusing(), most_records=1))
        assert [record.unique_id for part in parts for record in part.records][::2] == [
            "doc:1",
            "doc:3",
        ]
        [letter] = [letter for part in parts for letter in part.failures]
        assert (letter.stage, letter.item, letter.position) == (
            "chunk",
            {"id": "doc:2"},
            "page 1[1]",
        )
        assert "no walruses" in letter.message
        [key] = parts[-1].tally.stale
        assert key.hex() == uuid_of("doc:2").replace("-", "")

    @pytest.mark.parametrize("made", [None, "text", ["text"], {"a": 1}])
    def test_makes_a_letter_where_a_chunker_gives_something_else(self, made: Any) -> None:
        class Odd:
            def chunk(self, found: Document) -> Any:
                return made

        [part] = chunk_batch(batch_of(document()), Odd())
        assert not part.records
        assert "must return a list of Chunk" in part.failures[0].message

    def test_stays_whole_without_a_chunker(self) -> None:
        [part] = chunk_batch(batch_of(document(), document("B.", unique_id="b")), None)
        assert [record.unique_id for record in part.records] == ["doc:a", "b"]
        assert part.tally.documents == 2

    def test_keeps_the_parts_that_an_enricher_made_together(self) -> None:
        chunk = FrameRecord("Own.", unique_id="doc:a#1", parent=uuid_of("doc:a"))
        [part] = chunk_batch(batch_of(document("Text."), chunk, documents=[0, 0]), CHUNKER)
        names = [record.unique_id for record in part.records]
        assert names == ["doc:a", "doc:a#chunk=0", "doc:a#1"]
        assert part.tally.documents == 1


class TestTheTransform:
    def test_refuses_at_once_what_no_chunker_takes(self) -> None:
        with pytest.raises(ConfigError, match=r"markdwon.*did you mean markdown"):
            Chunk(ChunkerSpec("markdwon"))
        with pytest.raises(ConfigError, match="too short"):
            Chunk(ChunkerSpec(tokens=2))

    def test_counts_in_the_tokens_of_the_embedder(self) -> None:
        chunker = ChunkerSpec(tokens=20).load(EmbedderSpec.of("hash:16", {}))
        assert chunker is not None
        text = "word " * 50
        counts = [len(piece.text.split()) for piece in chunker.chunk(Document(text))]
        assert counts == [20, 20, 10]
