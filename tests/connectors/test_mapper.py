"""FieldMapper: from items to records by the names of their fields."""

from __future__ import annotations

import math
import pickle
from datetime import date, datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam.connectors import FieldMapper
from contextframe_beam.connectors.mapper import as_text, as_timestamp, lookup
from contextframe_beam.errors import RecordError
from contextframe_beam.frames.record import FrameRecord

ARTICLE = {
    "id": 4711,
    "title": "Grüße",
    "content": "The text.",
    "updated_at": "2024-01-02T03:04:05Z",
    "author": {"name": "Ada", "team": {"id": 7}},
    "tags": ["a", "b"],
    "parent_id": "1",
    "references": ["2", "3"],
    "files": [{"url": "x", "size": None}, {"url": "y"}],
    "_internal": 1,
}


def test_the_defaults_map_an_ordinary_item():
    assert FieldMapper(prefix="api", constants={"source": "api"}).map(ARTICLE) == FrameRecord(
        text_content="The text.",
        unique_id="api:4711",
        timestamp="2024-01-02T03:04:05Z",
        metadata={
            "id": 4711,
            "title": "Grüße",
            "updated_at": "2024-01-02T03:04:05Z",
            "author": {"name": "Ada", "team": {"id": 7}},
            "tags": ["a", "b"],
            "parent_id": "1",
            "references": ["2", "3"],
            "files": ARTICLE["files"],
            "source": "api",
            "relationships": FieldMapper.build_relationships(ARTICLE),
        },
    )


def test_every_part_can_be_configured():
    mapper = FieldMapper(
        prefix="wiki",
        id=("missing", "author.team.id"),
        title="author.name",
        text="# {title}\n\n{content}{missing} {{x}}",
        timestamp="day",
        tags="files.url",
        relationships=False,
        metadata={"who": "author.name", "first": "files.0.url", "none": "files.0.size", "no": "z"},
        record_type="collection_header",
    )
    assert mapper.map({**ARTICLE, "day": date(2024, 1, 2)}) == FrameRecord(
        text_content="# Grüße\n\nThe text. {x}",
        unique_id="wiki:7",
        timestamp="2024-01-02",
        metadata={"who": "Ada", "first": "x", "none": None, "title": "Ada", "tags": ["x", "y"]},
        record_type="collection_header",
    )
    chosen = FieldMapper(metadata=("author.name", "nothing"), relationships=False).map(ARTICLE)
    assert chosen.metadata == {"author.name": "Ada", "title": "Grüße", "tags": ["a", "b"]}


def test_the_text_field_is_not_repeated_in_the_metadata():
    record = FieldMapper(text="body").map({"body": "b", "content": "c"})
    assert record.text_content == "b" and record.metadata == {"content": "c"}


def test_a_mapper_is_a_value():
    mapper = FieldMapper(prefix="p", metadata={"a": "b.c"})
    assert pickle.loads(pickle.dumps(mapper)) == mapper
    assert mapper == FieldMapper(prefix="p", metadata={"a": "b.c"}) != FieldMapper()
    assert "prefix='p'" in repr(mapper)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("id", 4711),
        ("author.name", "Ada"),
        ("author.team.id", 7),
        ("files.1.url", "y"),
        ("files.url", ["x", "y"]),
        ("files.9.url", None),
        ("files.nothing", None),
        ("author.name.first", None),
        ("author..name", None),
        ("", None),
    ],
)
def test_paths(path, value):
    assert lookup(ARTICLE, path) == value


def test_a_field_whose_name_holds_dots_is_found():
    assert lookup({"a.b": {"c.d": 1}, "a": {"b": {"c.d": 2}}}, "a.b.c.d") == 2
    assert lookup({"a.b": 1, "a": {"b": 2}}, "a.b") == 1
    assert lookup({"a.b": {"c": 1}}, "a.b.c") == 1


def test_text_of_blocks():
    item = {
        "blocks": [
            {"type": "text", "content": "One."},
            {"type": "code", "content": "x = 1"},
            {"type": "image", "content": "x.png"},
            {"type": "heading", "content": "H"},
            {"type": "heading_2", "content": "H2"},
            {"type": "heading", "level": "many", "content": "H3"},
            {"type": "bulleted_list_item", "content": "point"},
            {"type": "paragraph", "content": [{"text": "rich "}, "text", None]},
            {"type": "code", "content": "```\ninner\n```"},
            {"type": "text"},
            {"type": "text", "content": None},
            {"content": "untyped"},
            "bare",
            None,
            5,
        ],
        "content": "not used",
    }
    assert FieldMapper.extract_text_content(item).split("\n\n") == [
        "One.",
        "```\nx = 1\n```",
        "# H",
        "## H2",
        "# H3",
        "- point",
        "rich text",
        "````\n```\ninner\n```\n````",
        "untyped",
        "bare",
    ]


def test_text_of_sections():
    item = {"sections": [{"title": "T", "content": "C"}, {"content": "D"}, {"title": "E"}, None]}
    assert FieldMapper.extract_text_content(item) == "# T\n\nC\n\nD\n\n# E"


def test_text_of_plain_fields():
    item = {"content": "a", "text": "", "body": None, "description": 5, "other": "x"}
    assert FieldMapper.extract_text_content(item) == "a\n\n5"
    assert FieldMapper.extract_text_content({"blocks": None, "sections": [], "text": "t"}) == "t"
    assert FieldMapper.extract_text_content({"body": {"ä": 1}}) == '{"ä": 1}'
    assert FieldMapper.extract_text_content({}) == ""


def test_relationships():
    assert FieldMapper.build_relationships(
        {"parent_id": 12, "references": ["r1", {"id": "r2"}, None], "tags": ["x"]}
    ) == [
        {
            "relationship_type": "parent",
            "target_id": "12",
            "metadata": {"source": "hierarchy"},
        },
        *(
            {
                "relationship_type": "reference",
                "target_id": target,
                "metadata": {"source": "explicit_reference"},
            }
            for target in ("r1", "r2")
        ),
        {
            "relationship_type": "tagged_with",
            "target_id": "tag:x",
            "metadata": {"tag_name": "x"},
        },
    ]
    assert FieldMapper.build_relationships({}) == []
    assert FieldMapper.build_relationships({"references": None, "tags": None}) == []


def test_relationships_that_the_item_has_already_are_kept():
    own = {"type": "child", "uri": "u"}
    record = FieldMapper().map({"relationships": [own], "parent_id": "p"})
    assert record.metadata["relationships"][0] is own
    assert len(record.metadata["relationships"]) == 2


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        (["a", "a", " b "], ["a", "b"]),
        ("a, b,,", ["a", "b"]),
        ([{"name": "a", "id": 1}, {"id": 2}], ["a", "2"]),
        ({"name": "a"}, ["a"]),
        ({"b", "a"}, ["a", "b"]),
        (5, ["5"]),
        ([None, ""], None),
        (None, None),
    ],
)
def test_tags(tags, found):
    metadata = FieldMapper(metadata=()).map({"tags": tags}).metadata
    assert metadata.get("tags") == found


@pytest.mark.parametrize(
    ("value", "time"),
    [
        ("2024-01-02", "2024-01-02"),
        (datetime(2024, 1, 2, tzinfo=timezone.utc), "2024-01-02T00:00:00+00:00"),
        (1704164645, "2024-01-02T03:04:05+00:00"),
        (1704164645000, "2024-01-02T03:04:05+00:00"),
        ("1704164645.5", "2024-01-02T03:04:05.500000+00:00"),
        ("20240102", "20240102"),
        ("2024-01-02 03:04:05 UTC", "2024-01-02 03:04:05 UTC"),
        (1704164645123456, "2024-01-02T03:04:05.123456+00:00"),
        ("1704164645123456", "2024-01-02T03:04:05.123456+00:00"),
        ("Tue, 02 Jan 2024 03:04:05 GMT", "2024-01-02T03:04:05+00:00"),
        ("Tue, 2 Jan 2024 03:04:05 +0200", "2024-01-02T01:04:05+00:00"),
        ("2024/01/02 03:04:05 PM", "2024-01-02T15:04:05+00:00"),
        ("1/2/2024", "1/2/2024"),
        ("Wed, 02 Jan 2024 03:04:05 GMT", "Wed, 02 Jan 2024 03:04:05 GMT"),
        ("yesterday", "yesterday"),
        (20240102, None),
        (math.nan, None),
        (10**400, None),
        (True, None),
        ({}, None),
    ],
)
def test_timestamps(value, time):
    assert as_timestamp(value) == time


@pytest.mark.parametrize(
    ("value", "unique_id"),
    [(0, "p:0"), ("x", "p:x"), (None, None), ("", None), ({"b": 1}, 'p:{"b": 1}')],
)
def test_ids(value, unique_id):
    assert FieldMapper(prefix="p").map({"id": value}).unique_id == unique_id
    if unique_id:
        assert FieldMapper().map({"id": value}).unique_id == unique_id.removeprefix("p:")


def test_what_is_no_object_is_refused():
    for item, kind in ((None, "null"), ([], "a list"), ("text", "text")):
        with pytest.raises(RecordError, match=f"not {kind};"):
            FieldMapper().map(item)  # type: ignore[arg-type]


def test_values_that_json_and_str_refuse_become_text():
    assert as_text(10**5000).startswith("0x")
    assert "__int__" in as_text([10**5000])
    endless: list[Any] = []
    endless.append(endless)
    assert as_text(endless)
    assert as_text(b"\xff") == "\ufffd"


odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
fields = st.sampled_from(
    [
        "id",
        "title",
        "content",
        "text",
        "body",
        "blocks",
        "sections",
        "tags",
        "references",
        "parent_id",
        "author",
        "updated_at",
        "relationships",
        "type",
        "level",
        "name",
    ]
)


@given(item=st.dictionaries(fields | st.text(), odd, max_size=8))
def test_no_item_of_any_shape_fails(item):
    record = FieldMapper(prefix="x", id="id", text=None).map(item)
    assert isinstance(record.text_content, str)
    assert record.unique_id is None or isinstance(record.unique_id, str)
    assert record.timestamp is None or isinstance(record.timestamp, str)
    assert all(isinstance(name, str) for name in record.metadata)


@given(block=st.dictionaries(fields, odd, max_size=5))
def test_no_block_of_any_shape_fails(block):
    assert isinstance(FieldMapper.extract_text_content({"blocks": [block]}), str)
    assert isinstance(FieldMapper.extract_text_content({"sections": [block]}), str)


@pytest.mark.parametrize(
    ("item", "time"),
    [
        ({"updated": "2026-01-02T03:04:05Z"}, "2026-01-02T03:04:05Z"),
        ({"updatedAt": "2026-01-02"}, "2026-01-02"),
        ({"modified": 1767322800}, "2026-01-02T03:00:00+00:00"),
        ({"lastModified": "2026-01-02", "created_at": "2020-01-01"}, "2026-01-02"),
        ({"updated": "2026-01-02", "updated_at": "2026-01-01"}, "2026-01-01"),
        ({"updated": True, "created_at": "2020-01-01"}, "2020-01-01"),
        ({"updated": None, "modified": "", "created_at": "2020-01-01"}, "2020-01-01"),
        ({"modified": {"by": "x"}}, None),
        ({"updated": "by Ada", "created_at": "2020-01-01"}, "2020-01-01"),
        ({"updated_at": "1/2/2026", "created_at": "2020-01-01"}, "1/2/2026"),
        ({"updated": "yesterday"}, "yesterday"),
    ],
)
def test_the_usual_names_of_a_time(item, time):
    assert FieldMapper().map(item).timestamp == time
