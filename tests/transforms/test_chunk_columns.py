"""Chunks and vectors by columns: the same rows, letters and counts as one by one."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import lance
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contextframe_beam.connectors import FieldMapper, JSONFileConnector, Page
from contextframe_beam.connectors.record_mapper import RecordMapper
from contextframe_beam.errors import ContextFrameError
from contextframe_beam.frames.columns import NotByColumns
from contextframe_beam.frames.document import Chunk as Piece
from contextframe_beam.frames.document import Document
from contextframe_beam.frames.embedders import EmbeddingError
from contextframe_beam.frames.fields import parse_fields
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.transforms import map_columns as mapping
from contextframe_beam.transforms.chunk import chunk_batch
from contextframe_beam.transforms.chunk_columns import ColumnCut
from contextframe_beam.transforms.chunkers import MarkdownChunker
from contextframe_beam.transforms.contents import ContentOrigins
from contextframe_beam.transforms.elements import FrameBatch
from contextframe_beam.transforms.embed import TextVectors, embed_batches
from contextframe_beam.transforms.embedders.batching import Piece as Vectors
from contextframe_beam.transforms.embedders.hashing import HashEmbedder
from contextframe_beam.transforms.encode import encode_batches
from contextframe_beam.transforms.map import map_batches
from contextframe_beam.transforms.map_columns import columns_of
from tests.support.laws import examples
from tests.support.pipeline_helpers import SOURCE
from tests.support.table_strategies import json_items, tables
from tests.transforms.test_columns import RELATED, assert_same_rows, by_columns, in_order

DIM = 8
OWN = parse_fields(["n:float64", "start:int64"])


class Odd:
    """Makes chunks of all kinds, some of which are none, by the letters of a text."""

    def chunk(self, document: Document) -> Any:
        text = document.text
        if "#" in text:
            raise ContextFrameError("no headings")
        if "x" in text:
            return text
        if text == "z":
            return []
        found = [
            Piece(text, 0, len(text), (one.strip(),), len(one) % 3 or None)
            for one in text.split(",")
        ]
        if '"' in text:
            found[0] = Piece("\ud800", 0, -1)
        if "name" in text or "null" in text:
            found.append(Piece(cast("Any", b"bytes" if "name" in text else None), 0, 0))
        if "é" in text:
            found.append(Piece(" ", 2**70, 1))
        return found


class Choosy(HashEmbedder):
    """Embeds no text that begins with `2`."""

    def pieces(self, texts: Sequence[str], kind: Any) -> Any:
        for piece in super().pieces(texts, kind):
            refused = [at for at in piece.positions if texts[at].startswith("2")]
            errors = {at: EmbeddingError(f"not {texts[at]}") for at in refused}
            yield Vectors(piece.positions, piece.vectors, errors, piece.tokens)


CHUNKERS: dict[str, Any] = {"markdown": MarkdownChunker(tokens=16), "odd": Odd(), "none": None}
EMBEDDERS: dict[str, Any] = {
    "all": HashEmbedder(str(DIM)),
    "choosy": Choosy(str(DIM)),
    "none": None,
}
MAPPERS: dict[str, Any] = {
    "usual": FieldMapper(),
    "template": FieldMapper(id="id", text="# {title}\n\n{{{a.b}}} {body}", tags="a.name"),
    "unrelated": FieldMapper(id="id", relationships=False, record_type="frameset"),
    "record": RecordMapper("r", {"source": "r", "n": 1}, prefix="r#"),
}
MADE = st.tuples(
    st.sampled_from(sorted(CHUNKERS)),
    st.sampled_from(sorted(EMBEDDERS)),
    st.sampled_from([None, ContentOrigins(b"made")]),
    st.sampled_from([1, 3, 1024]),
)


@pytest.fixture(autouse=True, scope="module")
def small_pages_too():
    """Lets pages of a few items go by columns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapping, "_FEWEST_IN_COLUMNS", 1)
        yield


@given(table=tables(), mapper=st.sampled_from([*MAPPERS.values()]), made=MADE)
@settings(max_examples=examples(400))
def test_rows_of_a_table_are_cut_and_embedded_as_single_documents_are(table, mapper, made):
    page = Page(table=table, partition="p", position="rows", source=SOURCE)
    assert_same_parts(page, mapper.map, columns_of(mapper) or mapper.map_columns, *made)


@example(
    items=[{"id": "1", "body": "a,é"}, {"id": "1", "body": "\u2003"}, {"id": "b", "body": "2024"}],
    mapper=MAPPERS["usual"],
    made=("odd", "choosy", None, 1024),
)
@example(
    items=[{"id": n, "body": text, "uuid": RELATED["id"]} for n, text in enumerate("az")],
    mapper=MAPPERS["usual"],
    made=("odd", "all", None, 1024),
)
@example(items=[{"body": "\u2003"}], mapper=MAPPERS["usual"], made=("odd", "none", None, 1024))
@example(
    items=[{"id": 1, "body": "a,b", "n": "x"}, {"id": 2, "body": "c"}],
    mapper=MAPPERS["usual"],
    made=("odd", "none", None, 1024),
)
@example(
    items=[{"id": 1, "body": "a"}, {"id": 2, "body": "name"}],
    mapper=MAPPERS["usual"],
    made=("odd", "all", None, 9),
)
@example(
    items=[{"id": 1, "body": "null"}, {"id": 2, "body": "b"}],
    mapper=MAPPERS["usual"],
    made=("odd", "all", None, 9),
)
@given(items=json_items(), mapper=st.sampled_from([*MAPPERS.values()]), made=MADE)
@settings(max_examples=examples(400))
def test_objects_are_cut_and_embedded_as_single_documents_are(items, mapper, made):
    page = Page(items, partition="p", position="lines", source=SOURCE)
    assert_same_parts(page, mapper.map, columns_of(mapper) or mapper.map_columns, *made)


@given(items=json_items(), made=MADE)
@settings(max_examples=examples(200))
def test_lines_of_json_are_cut_and_embedded_as_single_documents_are(items, made):
    connector = JSONFileConnector(tempfile.gettempdir())
    for number, item in enumerate(items):
        item.update(_file_path="f.jsonl", _line_offset=number)
    page = Page(items, partition="p", position="lines", source=SOURCE)
    assert_same_parts(page, connector.map_to_frame_record, columns_of(connector), *made)


def table_of(count: int, **columns: Any) -> pa.Table:
    numbers = range(count)
    return pa.table(
        {
            "id": [f"doc-{n}" for n in numbers],
            "body": [f"# Part {n}\n\n" + "words and words. " * 30 for n in numbers],
            "author": [{"name": f"user {n % 5}"} for n in numbers],
            "tags": [["a", f"b{n % 3}"] if n % 7 else None for n in numbers],
            "updated_at": pa.array(numbers, pa.timestamp("ms", "UTC")),
            **columns,
        }
    )


def test_usual_documents_stay_columns_until_they_are_rows():
    [batch] = by_columns(Page(table=table_of(120), source=SOURCE), FieldMapper())
    parts = list(chunk_batch(batch, CHUNKERS["markdown"], origins=ContentOrigins(b"made")))
    embedded = embed_batches(parts, TextVectors(EMBEDDERS["all"]))
    assert all(part.columns is not None for part in embedded)
    rows = encode_batches(embedded, DIM).rows
    assert rows.num_rows == sum(part.count for part in embedded) > 360
    assert rows["vector"].null_count == 120
    assert all(part.columns is not None for part in embedded)


def test_only_documents_with_the_same_content_have_the_same_origin():
    mapper = FieldMapper()
    origins = []
    for changed in ({}, {"tags": [["c"]] * 120}, {"body": ["other"] * 120}):
        page = Page(table=table_of(120, **changed), source=SOURCE)
        [batch] = by_columns(page, mapper)
        cut = ColumnCut(batch, ContentOrigins(b"made"))
        [part, *_] = cut.parts(None, 1024, 1 << 20)
        origins.append(part.columns.origins)
    assert len(set(pa.concat_arrays(origins).to_pylist())) == 360


def write_lines(path: Path, texts: Sequence[str]) -> None:
    items = ({"id": n, "text": text, "updated_at": "2026-01-31"} for n, text in enumerate(texts))
    path.write_text("\n".join(map(json.dumps, items)))


def rows_of(dataset: Path) -> list[dict[str, Any]]:
    table = lance.dataset(str(dataset)).to_table(filter="x_state IS NULL")
    return sorted(table.to_pylist(), key=lambda row: str(row["uri"]))


def test_documents_that_are_stored_are_found_before_they_are_cut(tmp_path):
    texts = [f"# Part {n}\n\n" + "words and words. " * 9 for n in range(120)]
    made: dict[str, Any] = {"chunk": "markdown", "chunk_tokens": 16, "embed": f"hash:{DIM}"}
    lines, kb = tmp_path / "docs.jsonl", tmp_path / "kb.lance"
    source = JSONFileConnector(tmp_path, pattern="*.jsonl", text="text")
    write_lines(lines, texts)
    ingest(source, str(kb), mode="mirror", **made)
    texts[7] += " More."
    write_lines(lines, texts[:-1])
    receipt = ingest(source, str(kb), mode="mirror", **made)
    assert (receipt.rows_unchanged, receipt.rows_written, receipt.rows_deleted) == (118, 1, 1)
    assert receipt.texts_embedded == 1
    ingest(source, str(tmp_path / "new.lance"), **made)
    assert rows_of(kb) == rows_of(tmp_path / "new.lance")


def test_a_batch_that_was_cut_is_not_cut_again_by_columns():
    [batch] = by_columns(Page(table=table_of(120)), FieldMapper())
    [part, *_] = chunk_batch(batch, CHUNKERS["markdown"])
    with pytest.raises(NotByColumns):
        ColumnCut(part, None)


def assert_same_parts(
    page: Page, one: Any, many: Any, chunker: str, embedder: str, origins: Any, most: int
) -> None:
    """Holds documents that are cut by columns against those that are cut one by one."""

    def made(way: Any) -> list[FrameBatch]:
        batches = map_batches(page.copy(), one, way)
        parts = [
            part
            for batch in batches
            for part in chunk_batch(batch, CHUNKERS[chunker], most, origins=origins)
        ]
        chosen = EMBEDDERS[embedder]
        return parts if chosen is None else embed_batches(parts, TextVectors(chosen))

    assert in_order(made(many)) == in_order(made(None))
    for fields in ((), OWN):
        assert_same_rows(*(encode_batches(made(way), DIM, fields) for way in (many, None)))
