"""Mapping and encoding by columns: the same records, rows and dead letters as one by one."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contextframe_beam.connectors import (
    APIConnector,
    DeadLetter,
    FieldMapper,
    JSONFileConnector,
    Page,
)
from contextframe_beam.connectors.mapped import MappedConnector
from contextframe_beam.connectors.page import Tally
from contextframe_beam.connectors.record_mapper import RecordMapper
from contextframe_beam.connectors.record_mapping import Relationship
from contextframe_beam.frames import json_columns
from contextframe_beam.frames.encode_columns import encode_columns
from contextframe_beam.frames.fields import parse_fields
from contextframe_beam.frames.record import FrameRecord
from contextframe_beam.transforms import map_columns as mapping
from contextframe_beam.transforms.chunk import chunk_batch
from contextframe_beam.transforms.chunkers import MarkdownChunker
from contextframe_beam.transforms.elements import FrameBatch, RowBatch
from contextframe_beam.transforms.encode import encode_batches
from contextframe_beam.transforms.map import map_batches, map_pages
from contextframe_beam.transforms.map_columns import ByColumns, columns_of
from tests.support.laws import examples
from tests.support.pipeline_helpers import EMBED_DIM, SOURCE
from tests.support.table_strategies import TEXTS, json_items, tables

#: Names that tables have, as columns of their own.
OWN = parse_fields(["n:float64", "a:text", "a.b:timestamp", "é:list", "body:text"])

MAPPERS: dict[str, Any] = {
    "usual": FieldMapper(),
    "prefix": FieldMapper(prefix="p", id=("n", "id", "a.b"), constants={"source": "s", "k": [1]}),
    "template": FieldMapper(id="id", text="# {title}\n\n{{{a.b}}} {body}", tags="a.name"),
    "chosen": FieldMapper(id="id", text="a.b", metadata=("title", "a.b", "n", "gone"), title="a"),
    "named": FieldMapper(
        id="id", metadata={"price": "n", "tags": "tags", "b": "a.b.c"}, timestamp="modified"
    ),
    "unrelated": FieldMapper(id="id", relationships=False, record_type="frameset"),
    "record": RecordMapper("r", {"source": "r", "n": 1}, prefix="r#"),
    "together": RecordMapper("r", {}, id=["id", "n", "a.b"], prefix="r#", title="name"),
    "id template": RecordMapper("r", {}, id="{id}-{a.b}", prefix="r#", text="body"),
    "linked": RecordMapper(
        "r",
        {"source": "r"},
        id="id",
        prefix="r#",
        relationships=[Relationship(type="child", target="references")],
    ),
}


LINK = {"relationship_type": "child", "target_id": "x", "metadata": {"a": "b"}}
RELATED = {"type": "reference", "id": "51190bb4-d7f6-4346-860e-5e9468c1ceed"}


@pytest.fixture(autouse=True, scope="module")
def small_pages_too():
    """Lets pages of a few items go by columns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapping, "_FEWEST_IN_COLUMNS", 1)
        yield


def test_rows_of_a_table_are_mapped_as_single_items_are():
    ways = Ways()

    @given(table=tables(), mapper=st.sampled_from([*MAPPERS.values()]))
    @settings(max_examples=examples(240))
    def law(table, mapper):
        page = Page(table=table, partition="p", position="rows", source=SOURCE)
        ways.hold(page, mapper.map, columns_of(mapper) or mapper.map_columns)

    law()
    assert ways.share > 0.9


def test_objects_are_mapped_as_single_items_are():
    ways = Ways()

    @example(items=[{"body": "\u2003"}, {"body": "x"}], mapper=MAPPERS["usual"])
    @example(
        items=[
            {"id": 1, "timestamp": "then", "updated_at": "2024-01-31"},
            {"id": 2, "timestamp": 5, "updated_at": "2025-01-31"},
            {"id": 3, "updated_at": "2026-01-31"},
            {"id": 4, "timestamp": "now", "updated_at": "2027-01-31"},
        ],
        mapper=MAPPERS["usual"],
    )
    @example(
        items=[
            {"id": 1, "blocks": [{"type": "heading", "content": "H"}], "body": "no"},
            {"id": 2, "sections": [], "body": "yes"},
        ],
        mapper=MAPPERS["usual"],
    )
    @example(items=[{"id": 1, "tags": ["a"], "relationships": [LINK]}], mapper=MAPPERS["usual"])
    @given(items=json_items(), mapper=st.sampled_from([*MAPPERS.values()]))
    @settings(max_examples=examples(240))
    def law(items, mapper):
        page = Page(items, partition="p", position="lines", source=SOURCE)
        ways.hold(page, mapper.map, columns_of(mapper) or mapper.map_columns)

    law()
    assert ways.share > 0.9


#: What users may say of lines of JSON.
SAID: list[dict[str, Any]] = [
    {},
    {},
    {"id": "n"},
    {"text": "body", "title": "a.b"},
    {"text": "{title}", "prefix": "p:"},
    {"id": ["id", "n"], "tags": "references"},
]
#: Where a document is in its file: a line, which has a place or is told apart from numbers, or all.
PLACES = st.sampled_from([{"_line_offset": 10}, {"_line_offset": "byte 20"}, {}])


def test_lines_of_json_are_mapped_as_single_documents_are():
    ways = Ways()

    @example(
        items=[{"timestamp": None}, {"timestamp": False}, {"timestamp": []}],
        places=[{}],
        files=["f.json"],
        modified=None,
        said={},
    )
    @example(
        items=[{"id": "1", "body": "x"}, {"body": "y"}],
        places=[{}],
        files=["f.json", "g.json"],
        modified=None,
        said={"text": "body", "title": "a.b"},
    )
    @given(
        items=json_items(),
        places=st.lists(PLACES, min_size=1, max_size=2),
        files=st.lists(st.sampled_from(["f.jsonl", "g.json"]), min_size=1, max_size=2),
        modified=st.none() | TEXTS,
        said=st.sampled_from(SAID),
    )
    @settings(max_examples=examples(240))
    def law(items, places, files, modified, said):
        connector = JSONFileConnector(tempfile.gettempdir(), **said)
        for item, place, file in zip(items, cycle(places), cycle(files), strict=False):
            item.update(_file_path=file, _file_name=file, _modified_at=modified, **place)
        page = Page(items, partition="p", source=SOURCE)
        ways.hold(page, connector.map_to_frame_record, columns_of(connector))

    law()
    assert ways.share > 0.9


class Notes(MappedConnector):
    """Records of which some are gone."""

    def sync_documents(self) -> list[Any]:
        return []


def test_records_that_are_gone_are_deleted_as_single_ones_are():
    ways = Ways()

    @given(
        items=json_items(),
        gone=st.lists(st.sampled_from([True, False, None, 1]), min_size=1, max_size=3),
        said=st.sampled_from([{}, {"id": "n"}, {"id": ["id", "n"], "prefix": "p:"}]),
    )
    @settings(max_examples=examples(80))
    def law(items, gone, said):
        for item, value in zip(items, cycle(gone), strict=False):
            item[Notes.GONE] = value
        connector = Notes(**said)
        page = Page(items, partition="p", source=SOURCE)
        ways.hold(page, connector.map_to_frame_record, columns_of(connector))

    law()
    assert ways.share > 0.9


#: Conditions under which records of an API are deleted.
DELETED: list[dict[str, Any]] = [
    {"field": "n"},
    {"field": "a.b"},
    {"field": "status", "equals": "x"},
    {"field": "n", "exists": False},
    {"field": "title", "matches": "^[a-z2]", "not_equals": "x"},
    {"field": "body", "one_of": ["", None, "x", 0]},
]
PARENTS = st.sampled_from(
    [{"_unique_id": "p:1"}, {"_unique_id": "p:2#x", "name": "P"}, {"_unique_id": None}, {}, None]
)


def test_records_of_an_api_are_mapped_as_single_records_are():
    ways = Ways()
    resource = {"name": "notes", "path": "/n"}
    kinds: list[list[dict[str, Any]]] = [
        [],
        [resource],
        [{**resource, "mapping": {"metadata": {"of": "_parent.name", "n": "n"}, "text": "body"}}],
        [{**resource, "mapping": {"relationships": False}}],
        *([{**resource, "deleted": one}] for one in DELETED),
    ]

    @given(
        items=json_items(),
        resources=st.sampled_from(kinds),
        marked=st.booleans(),
        parents=st.lists(PARENTS, max_size=3),
    )
    @settings(max_examples=examples(240))
    def law(items, resources, marked, parents):
        for item, parent in zip(items, cycle(parents or [None]), strict=False):
            item["_parent"] = parent
        for item in items if marked and resources else ():
            item["_resource"] = "notes"
        connector = APIConnector("http://localhost", resources=resources)
        page = Page(items, partition="p", source=SOURCE)
        ways.hold(page, connector.map_to_frame_record, columns_of(connector))

    law()
    assert ways.share > 0.9


@example(
    pages=[[{"id": "1", "tags": ["a"]}], [{"id": "2", "relationships": [RELATED]}, {"id": "3"}]],
    parents=[False, False],
)
@given(
    pages=st.lists(json_items() | st.just([]), min_size=2, max_size=4),
    parents=st.lists(st.booleans(), min_size=4, max_size=4),
)
@settings(max_examples=examples(80))
def test_pages_are_mapped_together_as_they_are_alone(pages, parents):
    for number, (items, has_parent) in enumerate(zip(pages, parents, strict=False)):
        for item in items if has_parent else ():
            item["_parent"] = {"_unique_id": f"p:{number}"}
    given = [
        Page(items, partition="p", position=f"page {number}", source=SOURCE)
        for number, items in enumerate(pages)
    ]
    given[0].failures = [DeadLetter.of("read", ValueError("no"), 5, "api", "p", "page 0[9]")]
    connector = APIConnector("http://localhost", resources=[{"name": "notes", "path": "/n"}])
    one, many = connector.map_to_frame_record, columns_of(connector)
    assert many is not None
    for page in given:
        alone = list(map_batches(page, one, None))
        found = [batch for batch in map_pages(given, one, many) if batch.position == page.position]
        assert in_order(found) == in_order(alone)
        found = [batch for batch in map_pages(given, one, many) if batch.position == page.position]
        assert_same_rows(*(encode_batches(each, EMBED_DIM) for each in (found, alone)))
    together = [batch for page in given for batch in map_batches(page, one, None)]
    found = [batch for page in given for batch in map_batches(page, one, many)]
    assert_same_rows(*(encode_batches(each, EMBED_DIM) for each in (found, together)))


@given(
    texts=st.lists(
        st.none() | st.text(st.sampled_from('\\"au\n\x01\x1f\x7fé\u2028😀'), max_size=9)
    ),
    size=st.sampled_from([1, 8, 1 << 20]),
)
@settings(max_examples=examples(240))
def test_text_is_escaped_as_in_json_in_pieces_of_any_size(texts, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_columns, "_BYTES_AT_ONCE", size)
        column = json_columns.escaped(pa.array(['"', *texts], pa.string())[1:])
    assert column.to_pylist() == [
        None if text is None else orjson.dumps(text).decode()[1:-1] for text in texts
    ]


def broken_text(kind: pa.DataType) -> pa.Array:
    """Returns text of which Arrow did not check that it is Unicode."""
    width = pa.int64() if pa.types.is_large_string(kind) else pa.int32()
    ends = pa.array([0, 1, 4], width).buffers()[1]
    return pa.Array.from_buffers(kind, 2, [None, ends, pa.py_buffer(b"a\xed\xa0\x80")])


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()], ids=str)
@pytest.mark.parametrize("name", ["id", "body", "title", "n", "a"])
def test_text_that_is_not_unicode_is_a_letter_as_of_a_single_item(name, kind):
    column = broken_text(kind)
    nested = pa.StructArray.from_arrays([column], names=["name"])
    table = pa.table({"key": ["1", "2"], name: nested if name == "a" else column})
    mapper = FieldMapper(id="id" if name == "id" else "key")
    page = Page(table=table, partition="p", position="rows", source=SOURCE)
    Ways().hold(page, mapper.map, columns_of(mapper))
    (letter,) = encode_batches([*map_batches(page, mapper.map, columns_of(mapper))], 4).failures
    assert letter.position == "rows[1]"


def table_of(count: int, **columns: Any) -> pa.Table:
    numbers = range(count)
    return pa.table(
        {
            "id": [f"doc-{n}" for n in numbers],
            "title": ["A title"] * count,
            "body": ["Some text\n"] * count,
            "updated_at": pa.array(numbers, pa.timestamp("ms", "UTC")),
            "price": [n / 7 for n in numbers],
            "count": numbers,
            "tags": [["a", f"b{n % 3}"] for n in numbers],
            "author": [{"name": f"user {n % 5}"} for n in numbers],
            **columns,
        }
    )


def test_usual_tables_go_by_columns_to_the_end():
    [batch] = by_columns(Page(table=table_of(100)), FieldMapper())
    assert batch.columns is not None
    rows, apart = encode_columns(batch.columns, embed_dim=EMBED_DIM, source=None)
    assert (rows.num_rows, apart.sum()) == (100, 0)


def test_records_take_the_place_of_columns_once_somebody_asks_for_them():
    [batch] = by_columns(Page(table=table_of(150)), FieldMapper())
    batch.records[3].metadata["found"] = "later"
    assert batch.columns is None
    assert batch.items[3]["id"] == "doc-3"
    (row,) = encode_batches([batch], EMBED_DIM).rows.slice(3, 1).to_pylist()
    assert {"key": "found", "value": "later"} in row["custom_metadata"]
    travelled = pickle.loads(pickle.dumps(batch))
    assert (travelled.records, travelled.items) == (batch.records, batch.items)


def test_only_the_items_that_need_it_go_one_by_one():
    items: list[Any] = [{"id": str(n), "body": "Text", "title": "Title"} for n in range(150)]
    items[7], items[70], items[71] = "no object", {1: 2}, {"id": "\ud800", "body": "Text"}
    good, odd = by_columns(Page(items, position="page 3", source=SOURCE), FieldMapper())
    assert (good.columns is None, good.count) == (False, 147)
    assert odd.documents == [70, 71]
    encoded = encode_batches([good, odd], EMBED_DIM)
    failed = [letter.position for letter in encoded.failures]
    assert failed == ["page 3[7]", "page 3[70]", "page 3[71]"]
    assert (encoded.tally.read, encoded.tally.unsure) == (150, {"": 1})
    assert encoded.rows["uri"].to_pylist() == [str(n) for n in range(150) if n not in (7, 70, 71)]


def test_only_the_rows_that_need_it_are_encoded_one_by_one():
    table = table_of(150, n=[*["1"] * 60, "cheap", *["2"] * 88, "dear"])
    [batch] = by_columns(Page(table=table, position="rows", source=SOURCE), FieldMapper())
    encoded = encode_batches([batch], EMBED_DIM, OWN)
    assert batch.columns is not None
    assert (batch.count, encoded.rows.num_rows) == (148, 148)
    assert [letter.position for letter in encoded.failures] == ["rows[60]", "rows[149]"]


def test_documents_of_a_table_have_the_chunks_of_single_documents():
    table = table_of(120, body=[f"# Part {n}\n\n" + "words and words. " * 30 for n in range(120)])
    mapper, chunker = FieldMapper(), MarkdownChunker(tokens=16)
    found = []
    for columns in (columns_of(mapper), None):
        [batch] = map_batches(Page(table=table, source=SOURCE), mapper.map, columns)
        assert (batch.columns is None) is (columns is None)
        parts = list(chunk_batch(batch, chunker))
        found.append(encode_batches(parts, EMBED_DIM).rows)
    assert found[0].num_rows > 240
    assert found[0].equals(found[1])


class Own(JSONFileConnector):
    """Maps one item in a way of its own."""

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return FrameRecord("own", unique_id=item["id"])


def test_a_mapping_of_ones_own_is_called_for_each_item(tmp_path):
    assert columns_of(JSONFileConnector(tmp_path)) is not None
    assert columns_of(Own(tmp_path)) is None
    changed: Any = JSONFileConnector(tmp_path)
    changed.map_to_frame_record = FrameRecord
    assert columns_of(changed) is None
    assert columns_of(object()) is None


def by_columns(page: Page, mapper: Any) -> list[FrameBatch]:
    return list(map_batches(page, mapper.map, columns_of(mapper)))


class Ways:
    """Holds pages that are mapped by columns against the same item by item, and counts the ways."""

    def __init__(self) -> None:
        self._documents = self._by_columns = 0

    def hold(self, page: Page, one: Callable[[Any], Any], many: ByColumns | None) -> None:
        assert many is not None

        def mapped(way: ByColumns | None) -> list[FrameBatch]:
            # A copy, because a page makes items of its table for whoever asks.
            return list(map_batches(page.copy(), one, way))

        assert in_order(mapped(many)) == in_order(mapped(None))
        for fields in ((), OWN):
            found, expected = mapped(many), mapped(None)
            rows = [encode_batches(batches, EMBED_DIM, fields) for batches in (found, expected)]
            self._documents += rows[0].rows.num_rows
            self._by_columns += sum(batch.count for batch in found if batch.columns is not None)
            assert_same_rows(*rows)

    @property
    def share(self) -> float:
        """The share of rows that were columns until then."""
        return self._by_columns / self._documents


def in_order(batches: Sequence[FrameBatch]) -> list[tuple[int, Any, Any]]:
    """Returns the records and items of the batches of a page with their places there, in order."""
    return sorted(
        (
            one
            for batch in batches
            for one in zip(
                batch.documents or range(batch.count), batch.records, batch.items, strict=True
            )
        ),
        key=lambda one: one[0],
    )


def assert_same_rows(rows: RowBatch, expected_rows: RowBatch) -> None:
    assert rows.rows.schema == expected_rows.rows.schema
    for name in expected_rows.rows.schema.names:
        assert rows.rows[name].equals(expected_rows.rows[name]), name
    rows.rows.validate(full=True)
    assert sorted(told(rows.failures), key=str) == sorted(told(expected_rows.failures), key=str)
    assert rows.deletions == expected_rows.deletions
    assert counted(rows.tally) == counted(expected_rows.tally)


def counted(tally: Tally) -> Tally:
    """Returns a tally with the keys of failed documents in an order that tells nothing."""
    keys = {
        who: b"".join(sorted(joined[start : start + 16] for start in range(0, len(joined), 16)))
        for who, joined in tally.readers.items()
    }
    return replace(tally, stale=sorted(tally.stale), doubtful=sorted(tally.doubtful), readers=keys)


def told(letters: Sequence[Any]) -> list[Any]:
    return [(one.stage, one.position, one.item, one.message, one.error_type) for one in letters]
