"""Which field is what: the arguments that connectors of tables and of files of JSON share."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam.connectors.json_file import JSONFileConnector
from contextframe_beam.connectors.mapped import MappedConnector, mappings_in, stream_named
from contextframe_beam.errors import ConfigError

ROW = {"key": "007", "shop": "a/b", "body": "Hello", "head": "Title", "at": "2026-01-02", "n": 7}

LINE = {**ROW, "_file_path": "/d/a.jsonl", "_file_name": "a.jsonl", "_line_offset": 31}
DOCUMENT = {**ROW, "_file_path": "/d/a.json", "_file_name": "a.json", "_modified_at": "2025"}


def mapped(**arguments: Any) -> Any:
    return MappedConnector(**arguments).map_to_frame_record(ROW)


def test_fields_become_what_the_arguments_say() -> None:
    record = mapped(id="key", text="body", title="head", timestamp="at", prefix="notes:")
    assert record.unique_id == "notes:007"
    assert (record.text_content, record.metadata["title"]) == ("Hello", "Title")
    assert record.timestamp == "2026-01-02"
    assert record.metadata["n"] == 7
    assert "body" not in record.metadata


@pytest.mark.parametrize(
    ("id", "known"),
    [
        ("key", "007"),
        (["key"], "007"),
        (["shop", "key"], "a%2Fb/007"),
        ("{shop}-{key}", "a/b-007"),
        ("missing", None),
    ],
)
def test_an_id_is_a_field_or_several_or_a_template(id: Any, known: str | None) -> None:
    assert mapped(id=id).unique_id == known


def test_a_text_may_be_a_template() -> None:
    assert mapped(text="# {head}\n\n{body}").text_content == "# Title\n\nHello"


def test_a_mapping_file_has_the_keys_of_the_apis_yaml(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text("id: [shop, key]\nprefix: 'n:'\ntext: body\nmetadata: {count: n}\n")
    record = mapped(mapping=str(file))
    assert record.unique_id == "n:a%2Fb/007"
    assert {name: record.metadata[name] for name in ("count",)} == {"count": 7}
    assert "head" not in record.metadata


def test_arguments_come_before_the_mapping_file() -> None:
    assert mapped(mapping={"id": "key", "text": "head"}, text="body").text_content == "Hello"


def test_each_stream_may_have_a_mapping_of_its_own() -> None:
    connector = MappedConnector(mapping={"users": {"id": "key"}, "text": {"id": "shop"}})
    assert connector.mapper_of("users").map(ROW).unique_id == "007"
    assert connector.mapper_of("text").map(ROW).unique_id == "a/b"
    with pytest.raises(ConfigError, match=r"no stream 'user'.*users"):
        connector.mapper_of("user")


def test_two_keys_that_are_mappings_are_no_streams() -> None:
    assert list(mappings_in({"metadata": {"a": "b"}, "constants": {"c": 1}})) == [""]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("idd: key", r"m.yaml: mapping.idd is not a key that exists here.*id"),
        ("users: {text: [a]}", r"m.yaml: mapping.users.text is a list; it should be text"),
        ("[id]", r"m.yaml: a mapping has keys such as id and text"),
        ("", r"m.yaml: a mapping has keys such as id and text"),
        ("a: b: c", r"m.yaml, line 1"),
    ],
)
def test_a_mapping_file_with_a_mistake_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        MappedConnector(mapping=file)


def test_a_connector_travels_without_its_mapping_file(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text("id: key\ntext: body\n")
    travelling = pickle.dumps(JSONFileConnector(tmp_path, mapping=file))
    file.unlink()
    assert pickle.loads(travelling).map_to_frame_record(dict(LINE)).text_content == "Hello"


def test_the_stream_of_a_file_is_its_name_without_endings() -> None:
    assert [stream_named(one) for one in ("a/b.csv.gz", "s3://x/c.json", "d")] == ["b", "c", "d"]


class TestJson:
    """The same arguments on files of JSON, whose own mapping holds without them."""

    @pytest.mark.parametrize(
        ("arguments", "item", "known"),
        [
            ({"id": "key"}, LINE, "json_file:/d/a.jsonl#007"),
            ({"id_field": "key"}, LINE, "json_file:/d/a.jsonl#007"),
            ({"id": ["shop", "key"]}, LINE, "json_file:/d/a.jsonl#a%2Fb/007"),
            ({"id": "inner.key"}, LINE, "json_file:/d/a.jsonl#byte 31"),
            ({"id": "key", "prefix": "notes:"}, LINE, "notes:007"),
            ({"text": "body"}, LINE, "json_file:/d/a.jsonl#31"),
            ({"text": "body"}, DOCUMENT, "json_file:/d/a.json"),
            ({"id": "key", "text": "body"}, DOCUMENT, "json_file:/d/a.json#007"),
            ({"id": "key", "prefix": "notes:"}, DOCUMENT, "notes:007"),
        ],
    )
    def test_an_id(self, arguments: Any, item: Any, known: str, tmp_path: Path) -> None:
        connector = JSONFileConnector(tmp_path, **arguments)
        assert connector.map_to_frame_record(dict(item)).unique_id == known

    def test_a_field_is_the_text(self, tmp_path: Path) -> None:
        connector = JSONFileConnector(tmp_path, text="body", title="head")
        record = connector.map_to_frame_record(dict(DOCUMENT))
        assert (record.text_content, record.metadata["title"]) == ("Hello", "Title")
        assert record.timestamp == "2025"

    def test_streams_are_files(self, tmp_path: Path) -> None:
        connector = JSONFileConnector(tmp_path, mapping={"a": {"text": "body"}})
        assert connector.map_to_frame_record(dict(LINE)).text_content == "Hello"

    def test_two_ids_that_differ_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="give one"):
            JSONFileConnector(tmp_path, id="a", id_field="b")

    def test_it_is_the_same_source_by_either_name(self, tmp_path: Path) -> None:
        one = JSONFileConnector(tmp_path, id="key").source_id()
        assert one == JSONFileConnector(tmp_path, id_field="key", text="body").source_id()
        assert one != JSONFileConnector(tmp_path, id="key", prefix="x:").source_id()
