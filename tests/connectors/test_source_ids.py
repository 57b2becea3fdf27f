"""Which source a source is: its id is stored with every document, so it never changes.

The ids are literal, because a module that is moved, an argument that gets another default or a
field that is added would change both sides of any comparison.
"""

from __future__ import annotations

from typing import Any

import pytest

from contextframe_beam.connectors import BaseConnector, FieldMapper
from contextframe_beam.connectors.api import APIConnector
from contextframe_beam.connectors.json_file import JSONFileConnector
from contextframe_beam.connectors.registry import load_connector_class
from contextframe_beam.connectors.sql.connector import SqlConnector
from contextframe_beam.connectors.tables.arrow import ArrowConnector
from contextframe_beam.connectors.tables.csv_file import CSVConnector
from contextframe_beam.connectors.tables.parquet import ParquetConnector

CONTACTS = {"name": "contacts", "path": "people", "params": {"kind": "c"}}
DEALS = {
    "name": "deals",
    "method": "POST",
    "body": {"query": "{ deals { nodes { id } } }"},
    "parent": "contacts",
    "filters": [{"field": "open", "equals": True}],
}

WIKI = """
from contextframe_beam.connectors import BaseConnector, FieldMapper

class Wiki(BaseConnector):
    def __init__(self, space, mapper=None):
        super().__init__()
        self.space, self.mapper = space, mapper

    def sync_documents(self, label=None):
        return []
"""


def api(**settings: Any) -> APIConnector:
    return APIConnector("https://a.example.com/v1", **settings)


@pytest.mark.parametrize(
    ("connector", "reading", "known"),
    [
        (api(), {}, "cc8eb0ca38121a4d"),
        (api(), {"endpoint": "/b", "params": {"x": 1}}, "3ff23de42fcdc75d"),
        (api(name="crm"), {}, "a956c9ce153ad33e"),
        (api(name="crm", resources=[CONTACTS]), {}, "ee4682f4b09c5022"),
        (api(resources=[CONTACTS, DEALS]), {}, "9877dddcd28a8589"),
        (api(params={"region": "eu"}, resources=[CONTACTS]), {}, "727508391d531fc7"),
    ],
    ids=[
        "one endpoint",
        "another endpoint",
        "a name",
        "a name and resources",
        "resources",
        "parameters",
    ],
)
def test_an_api_keeps_its_id(connector, reading, known):
    assert connector.source_id(reading) == known


@pytest.mark.parametrize(
    ("arguments", "reading", "known"),
    [
        ({}, {}, "dbaa091dd5c7dac2"),
        ({}, {"pattern": "**/*.jsonl"}, "8453cb978150399e"),
        ({"pattern": "*.jsonl", "id_field": "key"}, {}, "bcc575c3e77c3e42"),
        ({"skip_unchanged": True, "max_line_bytes": 10}, {}, "dbaa091dd5c7dac2"),
    ],
    ids=["documents", "a pattern to read with", "lines", "tuning"],
)
def test_a_folder_of_json_files_keeps_its_id(arguments, reading, known):
    connector = JSONFileConnector("s3://bucket/docs", **arguments)
    assert connector.source_id(reading) == known


@pytest.mark.parametrize(
    ("uri", "arguments", "known"),
    [
        (
            "postgresql://ann@DB.example.com/app?sslmode=require",
            {"table": "notes"},
            "3c80958ffbaec547",
        ),
        (
            "host=db.example.com dbname=app user=bob",
            {"table": "notes", "cursor": "t"},
            "3c80958ffbaec547",
        ),
        (
            "sqlite:////data/notes.db",
            {"query": "SELECT * FROM notes;", "key": ["id"]},
            "ffb16e32cbe213f3",
        ),
    ],
    ids=["a table", "the same table in other words", "a query"],
)
def test_a_database_keeps_its_id(uri, arguments, known):
    assert SqlConnector(uri, **arguments).source_id() == known


@pytest.mark.parametrize(
    ("mapper", "reading", "known"),
    [
        (None, {}, "2d333cc65ce53cd1"),
        (FieldMapper(), {}, "040443d759da0230"),
        (FieldMapper(prefix="w:", timestamp="edited", constants={"a": 1}), {}, "d668fbaac6244f6c"),
        (
            FieldMapper(metadata=("author", "state"), id=("key",)),
            {"label": "x"},
            "e0b923924bee08e2",
        ),
    ],
    ids=["no mapper", "a mapper", "a mapper with settings", "an argument to read with"],
)
def test_a_connector_of_ones_own_keeps_its_id(tmp_path, mapper, reading, known):
    file = tmp_path / "wiki.py"
    file.write_text(WIKI)
    cls: type[BaseConnector] = load_connector_class(f"{file}:Wiki")
    connector = cls("docs", mapper) if mapper else cls("docs")  # type: ignore[call-arg]
    assert connector.source_id(reading) == known


@pytest.mark.parametrize(
    ("arguments", "known"),
    [
        ({}, "308483572ce594b2"),
        ({"id": "key", "prefix": "n:"}, "552e6fd5cfd95b19"),
        ({"filter": "year >= 2024"}, "bbef85fafc00b729"),
        ({"delimiter": ";", "types": ["n:int64"], "text": "t"}, "308483572ce594b2"),
    ],
    ids=["a path", "ids", "a filter", "how files are written and mapped"],
)
def test_a_table_keeps_its_id(arguments, known):
    assert CSVConnector("memory://tables/*.csv", **arguments).source_id() == known


def test_tables_of_other_formats_keep_their_ids():
    assert ParquetConnector("memory://tables").source_id() == "906866076e18d1fb"
    assert ArrowConnector("memory://tables/a.lance", version=3).source_id() == "d368175288129a36"
