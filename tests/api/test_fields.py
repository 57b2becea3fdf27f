"""Values in a configuration: lists to read for, fields, filters, settings, the ends of pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lance
import pytest

from contextframe_beam.connectors.api import APIConnector
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.errors import ConfigError
from contextframe_beam.pipelines.ingest import ingest
from tests.support.small_server import Got, SmallServer, serving

RECORDS = [
    {"id": 1, "name": "Ada", "state": "open", "internal": "x", "lines": [{"raw": 1, "n": 2}]},
    {"id": 2, "name": "Bob", "state": "closed", "internal": "y", "lines": []},
]


def answer(got: Got) -> Any:
    if got.path.startswith("/accounts"):
        return [{"id": "a", "org": {"name": "A"}}, {"id": "b", "org": {"name": "B"}}]
    return [dict(one) for one in RECORDS]


def source(url: str, *, more: list[dict[str, Any]] | None = None, **resource: Any) -> APIConnector:
    one = {"name": "items", "paginator": "single", **resource}
    return APIConnector(url, name="shop", retries=0, resources=[*(more or []), one])


def read(connector: APIConnector, only: str = "items") -> list[dict[str, Any]]:
    connector.authenticate()
    pages = Source(connector, {"only": [only]}).pages()
    found = [item for one in pages for item in one.items]
    return [{k: v for k, v in one.items() if k not in ("_resource", "_parent")} for one in found]


def asked_of(server: SmallServer, path: str) -> list[tuple[str, dict[str, str]]]:
    found = [(one.path, dict(one.query)) for one in server.requests if one.path.startswith(path)]
    return sorted(found, key=repr)


@pytest.fixture(scope="module")
def server():
    with serving(answer) as running:
        yield running


@pytest.fixture(autouse=True)
def _forget(server):
    server.requests.clear()


ACCOUNTS = {"name": "accounts", "paginator": "single", "ingest": False}


def test_a_resource_is_read_once_for_each_value_of_its_lists(server):
    each = {"state": ["open", "to do"], "year": [2025, 2026]}
    api = source(server.url, path="items/{each.state}", params={"year": "{each.year}"}, each=each)
    assert len(read(api)) == 8
    assert asked_of(server, "/items") == [
        ("/items/open", {"year": "2025"}),
        ("/items/open", {"year": "2026"}),
        ("/items/to%20do", {"year": "2025"}),
        ("/items/to%20do", {"year": "2026"}),
    ]


def test_lists_and_parents_are_combined(server):
    api = source(
        server.url,
        more=[ACCOUNTS],
        parent="accounts",
        path="items",
        params={"account": "{parent.id}", "org": "{= lower(parent.org.name) }", "s": "{each.s.k}"},
        each={"s": [{"k": 1}, {"k": 2}]},
    )
    assert len(read(api)) == 8
    assert [query for _, query in asked_of(server, "/items")] == [
        {"account": one, "org": one, "s": number} for one in "ab" for number in "12"
    ]


def test_each_value_and_each_parent_is_read_in_slices_of_time(server):
    api = source(
        server.url,
        more=[ACCOUNTS],
        parent="accounts",
        path="items/{parent.id}",
        each={"s": ["x"]},
        params={"from": "{since}", "to": "{until}", "s": "{each.s}"},
        incremental={"field": "day", "start": "{= shift(now, '-3d') }", "slice": "2d"},
    )
    api.authenticate()
    names = [one.id for one in api.partitions()]
    assert len(names) == len(set(names)) == 4
    assert {one.split("/")[1] for one in names} == {"a", "b"}


def test_records_get_fields_and_lose_fields(server):
    api = source(
        server.url,
        more=[ACCOUNTS],
        parent="accounts",
        path="items",
        add_fields={
            "account": "{parent.id}",
            "about.title": "{record.name} ({= upper(parent.org.name) })",
            "about.n": "{= record.id + 1 }",
            "about.long": "{= length(record.about.title) > 3 }",
            "none": "{record.missing}",
        },
        remove_fields=["internal", "lines.*.raw", "missing.x"],
    )
    first = next(one for one in read(api) if (one["account"], one["id"]) == ("a", 1))
    assert first == {
        "id": 1,
        "name": "Ada",
        "state": "open",
        "lines": [{"n": 2}],
        "account": "a",
        "about": {"title": "Ada (A)", "n": 2, "long": True},
        "none": None,
    }


@pytest.mark.parametrize(
    "resource",
    [
        {"add_fields": {"n": "{= 10 / (record.id - 1) }"}},
        {"filters": ["10 / (record.id - 1) > 1"]},
    ],
    ids=["add_fields", "filters"],
)
def test_a_record_that_cannot_be_computed_with_becomes_a_dead_letter(server, tmp_path, resource):
    receipt = ingest(source(server.url, **resource), to=tmp_path / "kb.lance")
    assert (receipt.written, receipt.failed) == (1, 1)


def test_an_expression_filters_records_before_fields_are_removed(server):
    api = source(
        server.url,
        filters=[{"field": "name", "exists": True}, "record.state == 'open' and record.id < 5"],
        remove_fields=["state"],
    )
    assert [one["name"] for one in read(api)] == ["Ada"]


def test_columns_and_items_give_the_same_rows(server, tmp_path):
    def rows(name: str, **mapping: Any) -> list[tuple[str, str]]:
        api = source(
            server.url,
            each={"n": [1, 2]},
            path="items/{each.n}",
            add_fields={"id": "{= text(record.id, '-', each.n) }", "body": "{record.name}!"},
            remove_fields=["lines", "internal"],
            mapping={"text": "body", **mapping},
        )
        ingest(api, to=tmp_path / name)
        found = lance.dataset(tmp_path / name).to_table().to_pylist()
        documents = [one for one in found if one["record_type"] == "document"]
        return sorted([(one["uri"], one["text_content"]) for one in documents])

    by_columns = rows("columns.lance")
    by_items = rows("items.lance", relationships=[{"type": "related", "target": "missing"}])
    assert by_columns == by_items and len(by_columns) == 4


def test_an_expression_ends_the_pages_and_names_the_next_one():
    def paged(got: Got) -> Any:
        page = got.number("after", 0)
        items = [{"id": page + 1}, {"id": page + 2}] if page < 6 else []
        return 200, {"X-Left": str(6 - page)}, {"items": items, "never": "done"}

    paginator = {
        "type": "cursor",
        "cursor": "{= records[-1].id }",
        "param": "after",
        "stop_when": "headers['x-left'] == '2' or length(records) < 2 or response.never != 'done'",
    }
    with serving(paged) as server:
        found = read(source(server.url, records="items", paginator=paginator))
    assert [one["id"] for one in found] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("paginator", "asked"),
    [
        (
            {"type": "cursor", "cursor": "next", "param": None},
            ["size 2", "size 2 after 2", "size 2 after 4"],
        ),
        (
            {"type": "offset", "size": 2, "param": None, "size_param": None},
            ["size 2 after 0", "size 2 after 2", "size 2 after 4", "size 2 after 6"],
        ),
    ],
)
def test_the_next_page_can_be_named_inside_of_another_text(paginator, asked):
    def paged(got: Got) -> Any:
        begin = int(got.query["q"].partition("after ")[2] or 0)
        items = [{"id": one} for one in range(begin, min(begin + 2, 6))]
        return {"items": items, "next": begin + 2 if begin < 4 else None}

    query = "size 2{= text(' after ', cursor) if cursor != null else '' }"
    with serving(paged) as server:
        api = source(server.url, records="items", paginator=paginator, params={"q": query})
        assert len(read(api)) == 6
        assert [one.query["q"] for one in server.requests] == asked


def test_slices_end_where_the_configuration_says(server):
    api = source(
        server.url,
        incremental={
            "field": "day",
            "param": "query:day:from",
            "until_param": "query:day:to",
            "start": "2026-01-01",
            "end": "2026-01-05",
            "slice": "2d",
        },
    )
    read(api)
    ends = [query["day:to"] for _, query in asked_of(server, "/items")]
    assert len(ends) == 2 and max(ends) == "2026-01-05"


def test_a_rule_about_an_answer_can_be_an_expression():
    def refusing(got: Got) -> Any:
        refused = {"code": 403, "errors": [{"kind": "plan"}]}
        return (400, {"X-Kind": "plan"}, refused) if got.path == "/items/b" else [{"id": 1}]

    when = "status == 400 and response.errors[0].kind == headers['x-kind']"
    with serving(refusing) as server:
        api = source(
            server.url, path="items/{each.n}", each={"n": list("ab")}, ignore_when=[{"when": when}]
        )
        assert len(read(api)) == 1


CRM = """\
settings:
  domain: 127.0.0.1
  port: {port}
  days: 3
  key: env:CRM_KEY
  states: open,closed
  team:
base_url: http://{{settings.domain}}:{{settings.port}}/
auth: {{type: api_key, key: "{{settings.key}}", name: X-Key}}
resources:
  - name: items
    paginator: single
    params:
      team: "{{settings.team}}"
      days: "{{= settings.days * 2 }}"
      s: "{{each.s}}{{settings.days}}"
    each: {{s: "{{= split(settings.states, ',') }}"}}
    mapping: {{constants: {{site: "{{settings.domain}}"}}}}
"""


def test_settings_are_written_once_and_used_everywhere(server, tmp_path, monkeypatch):
    monkeypatch.setenv("CRM_KEY", "sesame-77")
    file = tmp_path / "crm.yaml"
    file.write_text(CRM.format(port=server.url.rpartition(":")[2]))
    api = APIConnector(config=file)
    assert len(read(api)) == 4
    assert [query for _, query in asked_of(server, "/items")] == [
        {"days": "6", "s": "closed3"},
        {"days": "6", "s": "open3"},
    ]
    assert "sesame" not in repr(api.source_identity()) + repr(api.config)
    record = api.map_to_frame_record({"id": 1, "_resource": "items"})
    assert record.metadata["site"] == "127.0.0.1"


def test_settings_can_be_given_instead_of_those_in_the_file(server, tmp_path, monkeypatch):
    monkeypatch.setenv("CRM_KEY", "sesame-77")
    file = tmp_path / "crm.yaml"
    file.write_text(CRM.format(port=1))
    given = {"domain": "127.0.0.1", "port": 1, "key": "env:CRM_KEY", "states": "x", "days": 1}
    api = APIConnector(config=file, settings={**given, "team": "blue"})
    assert api.config.resources[0].params["team"] == "blue"
    assert api.source_identity() != APIConnector(config=file).source_identity()


WRONG = [
    (
        "path: 'x/{settings.domian}'",
        "uses settings.domian, which is not there; did you mean domain",
    ),
    ("path: 'x/{settings.team}'", "line 2: settings.team has no value, and resources[0].path"),
    ("path: 'x/{= lower( }'", "a value is missing before '}', at character 13"),
    ("path: 'x/{parent.id}'", "uses {parent...}, but the resource has no parent"),
    ("path: 'x/{each.n}'", "path uses each.n, which each does not list"),
    ("params: {q: '{record.id}'}", "params uses record.id, but only settings, parent, each"),
    ("filters: ['recrd.id == 1']", "uses recrd.id, but only record, settings"),
    ("filters: ['record.id =']", "is not an expression: '=' was not expected, at character 11"),
    ("paginator: {type: cursor, cursor: c, stop_when: 'respons.x'}", "did you mean response"),
    ("ignore_when: [{when: 'record.x'}]", "uses record.x, but only response, headers, status"),
    ("add_fields: {x: '{= upper(1, 2) }'}", "upper(text) was given 2 values"),
]


@pytest.mark.parametrize(("line", "problem"), WRONG, ids=[one for one, _ in WRONG])
def test_a_wrong_value_is_refused_with_its_line(tmp_path: Path, line, problem):
    file = tmp_path / "crm.yaml"
    head = (
        "settings: {domain: x,\n  team: }\nbase_url: http://127.0.0.1:1\nresources:\n  - name: a\n"
    )
    file.write_text(f"{head}    {line}\n")
    with pytest.raises(ConfigError) as caught:
        APIConnector(config=file)
    assert problem in str(caught.value) and "crm.yaml, line" in str(caught.value)
