"""APIConnector against a real server: page styles, odd answers, changes, parents and checks."""

from __future__ import annotations

import json
import logging
import pickle
from collections import Counter
from typing import Any
from urllib.parse import parse_qsl

import pytest

from contextframe_beam.connectors.api import APIConnector, check
from contextframe_beam.connectors.page import Page
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.errors import ConfigError, ConnectorError, SecretError
from contextframe_beam.store.state import RunSummary, SourceState
from tests.support.http_fixture import HttpServer

QUERY = "query($n: Int!) { repository { issues { edges { node { id } } pageInfo { endCursor } } } }"


def connector(server: HttpServer, *resources: dict[str, Any], **settings: Any) -> APIConnector:
    """Returns a connector that has authenticated and loses no time with retries."""
    made = APIConnector(
        f"{server.url}/api", resources=list(resources), **{"retries": 0, **settings}
    )
    made.authenticate()
    return made


def things(path: str, paginator: Any = None, **settings: Any) -> dict[str, Any]:
    """Returns a resource; what is not one of its keys goes into the query."""
    keys = ("method", "body", "records", "form", "headers", "incremental", "filters", "max_pages")
    own = {key: settings.pop(key) for key in list(settings) if key in (*keys, "max_items")}
    resource = {"name": "things", "path": path, "params": {"n": 25, **settings}, **own}
    return resource if paginator is None else {**resource, "paginator": paginator}


def ids_of(server: HttpServer, resource: dict[str, Any], **settings: Any) -> list[int]:
    return [item["id"] for item in connector(server, resource, **settings).sync_documents()]


def asked(server: HttpServer, path: str, name: str) -> list[str | None]:
    """Returns a parameter of all requests for a path, in order."""
    return [dict(parse_qsl(one["query"])).get(name) for one in server.requests(path)]


# As on the page that describes connectors.


def test_an_endpoint_is_read_page_by_page(server):
    api = APIConnector(server.url, "right-key-12345")
    with pytest.raises(RuntimeError, match="Not authenticated: call authenticate"):
        api.sync_documents()
    assert api.authenticate() is True and api.authenticated
    documents = api.sync_documents(params={"n": 250})
    assert [one["id"] for one in documents] == list(range(250))
    assert asked(server, "/api/v1/documents", "page") == ["1", "2", "3"]
    assert asked(server, "/api/v1/documents", "limit") == ["100"] * 3
    assert server.count("/api/v1/me") == 1


def test_a_record_is_mapped_as_on_the_page():
    item = {
        "id": 7,
        "content": "Text.",
        "url": "https://x.example.com/7",
        "updated_at": "2026-01-02T03:04:05Z",
        "author": {"name": "Ada"},
        "stars": 3,
    }
    record = APIConnector("https://x.example.com").map_to_frame_record(item)
    assert record.unique_id == "api:7" and record.text_content == "Text."
    assert record.timestamp == "2026-01-02T03:04:05Z"
    assert record.metadata == {
        "source": "api",
        "api_id": 7,
        "api_url": "https://x.example.com/7",
        "created_at": None,
        "updated_at": "2026-01-02T03:04:05Z",
        "author": {"name": "Ada"},
        "stars": 3,
    }
    bare = APIConnector("https://x.example.com").map_to_frame_record({"author": "Ada"})
    assert bare.unique_id is None and bare.metadata["author"] == "Ada" and bare.timestamp is None


def test_a_refused_key_is_told_and_not_shown(server):
    api = APIConnector(server.url, "wrong-key-67890")
    with pytest.raises(ValueError, match="Authentication failed: 401") as error:
        api.authenticate()
    assert "wrong-key-67890" not in str(error.value)


def test_an_api_without_an_address_to_check_refuses_nobody(server):
    api = APIConnector(server.url, "right-key-12345", auth_check="/api/v1/nowhere")
    assert api.authenticate() is True
    assert APIConnector(server.url, auth_check="/nowhere").authenticate() is True
    assert APIConnector(server.url).authenticate() is True
    assert server.counts() == {"/api/v1/nowhere": 1, "/nowhere": 1}


def test_a_secret_that_is_not_there_is_named(server):
    api = APIConnector(server.url, "env:NO_SUCH_KEY_ANYWHERE")
    with pytest.raises(SecretError, match="NO_SUCH_KEY_ANYWHERE is not set"):
        api.authenticate()


def test_a_server_that_does_not_know_pages_is_asked_once(server):
    api = APIConnector(server.url)
    api.authenticate()
    documents = api.sync_documents("/api/pages", {"n": 7, "ignore": 1, "kind": "none"})
    assert len(documents) == 7 and server.count("/api/pages") == 1


# Every way to page.

PAGE_STYLES: list[tuple[dict[str, Any], int]] = [
    (things("pages", "page"), 3),
    (things("pages", {"type": "page", "first": 0}, first=0), 3),
    (
        things("pages", {"type": "page", "first": 0, "pages": "meta.pages"}, first=0, kind="pages"),
        3,
    ),
    (things("pages", {"type": "page", "size": 9, "size_param": "per_page"}), 3),
    (things("pages", {"type": "page", "size": 99, "size_param": "per_page"}, cap=7), 4),
    (things("pages", "page", kind="header"), 3),
    (things("pages", "page", kind="has_more"), 3),
    (things("pages", "page", kind="none"), 4),
    (
        things("pages", {"type": "page", "size": 10, "stop_at_short_page": True}, kind="none"),
        3,
    ),
    (things("pages", {"type": "page", "param": "header:X-Page"}), 3),
    (things("pages", {"type": "page", "param": "body:page"}, method="POST"), 3),
    (things("offsets", {"type": "offset", "size": 10}), 3),
    (things("offsets", {"type": "offset", "size": 50}, cap=7), 4),
    (things("offsets", {"type": "offset", "size": 50}, cap=7, kind="none"), 5),
    (things("offsets", {"type": "offset"}), 3),
    (things("offsets", {"type": "offset", "size": 10}, kind="has_more"), 3),
    (
        things(
            "offsets",
            {"type": "offset", "param": "body:offset", "size": 10, "size_param": "body:limit"},
            method="POST",
        ),
        3,
    ),
    (
        things(
            "offsets",
            {"type": "offset", "param": "form:offset", "size": 10, "size_param": "form:limit"},
            method="POST",
        ),
        3,
    ),
    (things("cursors", {"type": "cursor", "cursor": "meta.next_cursor"}), 3),
    (things("cursors", {"type": "cursor", "cursor": "meta.next_cursor"}, end="empty"), 3),
    (things("cursors", {"type": "cursor", "cursor": "meta.next_cursor"}, end="zero"), 3),
    (things("cursors", {"type": "cursor", "cursor": "meta.next_cursor"}, end="absent"), 3),
    (things("cursors", {"type": "cursor", "cursor": "meta.next_cursor", "first": "*"}), 3),
    (
        things("cursors/{c}", {"type": "cursor", "cursor": "meta.next_cursor", "param": "path:c"}),
        3,
    ),
    (
        things(
            "cursors",
            {"type": "cursor", "cursor": "meta.next_cursor", "param": "body:filter.cursor"},
            method="POST",
            body={"filter": {"kind": "x"}},
        ),
        3,
    ),
    (
        things(
            "cursors",
            {"type": "header_cursor", "header": "X-Next-Cursor", "param": "header:X-Cursor"},
            **{"in": "header"},
        ),
        3,
    ),
    (things("links", "link_header"), 3),
    (things("links", {"type": "link", "link": "links.next"}, how="body"), 3),
    (things("links", {"type": "link", "link": "_links.next"}, how="hal", to="absolute"), 3),
    (things("links", "link_header", to="relative"), 3),
    (things("last_ids", {"type": "last_id", "param": "after"}), 3),
    (things("ranges", {"type": "range", "size": 10}), 3),
    (things("ranges", {"type": "range", "size": 10}, cap=7), 4),
    (things("ranges", {"type": "range", "size": 10}, kind="unknown"), 4),
    (things("ranges", {"type": "range", "size": 10}, ignore=1), 1),
    (
        things(
            "graphql",
            {"type": "graphql", "page_info": "data.repository.issues.pageInfo"},
            method="POST",
            body={"query": QUERY, "variables": {"n": 25}},
            records="data.repository.issues.edges.*.node",
        ),
        3,
    ),
    (things("pages", "single", size=25), 1),
    # Found out:
    (things("pages", kind="laravel"), 3),
    (things("pages", size=25), 1),
    (things("offsets", kind="echo"), 3),
    (things("cursors"), 3),
    (things("cursors", **{"in": "header"}), 3),
    (things("links"), 3),
    (things("links", how="body"), 3),
    (things("links", how="hal"), 3),
    (things("links", how="django"), 3),
    (
        things(
            "graphql",
            method="POST",
            body={"query": QUERY, "variables": {"n": 25}},
            records="data.repository.issues.edges.*.node",
        ),
        3,
    ),
]


@pytest.mark.parametrize(
    ("resource", "requests"), [pytest.param(*one, id=json.dumps(one[0])) for one in PAGE_STYLES]
)
def test_each_way_to_page_gives_each_record_once(server, resource, requests):
    assert ids_of(server, resource) == list(range(25))
    assert sum(server.counts().values()) == requests


def test_counted_pages_are_read_at_once_and_each_one_once(server):
    assert ids_of(server, things("pages", "page", n=400, ms=20)) == list(range(400))
    times = Counter(asked(server, "/api/pages", "page"))
    # Behind a full last page one more look is taken.
    assert times == Counter(str(number) for number in range(1, 42))
    assert server.at_once() > 1


def test_no_more_requests_are_open_than_allowed(server):
    contacts = {**CONTACTS, "params": {"n": 40, "ms": 5}}
    notes = {**NOTES, "params": {"ms": 5}}
    api = connector(server, contacts, notes, things("pages", "page", ms=5), max_in_flight=3)
    api.sync_documents()
    assert 1 < server.at_once() <= 3


# A total that lies.


@pytest.mark.sample
@pytest.mark.parametrize("n", [0, 5, 25, 30])
@pytest.mark.parametrize(
    "says", ["1000000", '"25"', "12", "10", "1", "0", "-5", '"many"', "null", "true", "1e300"]
)
@pytest.mark.parametrize(
    "resource",
    [things("pages", "page"), things("offsets", {"type": "offset", "size": 10})],
    ids=["pages", "offsets"],
)
def test_a_total_that_lies_loses_nothing(server, resource, says, n):
    resource = {**resource, "params": {"n": n, "says": says}}
    assert ids_of(server, resource) == list(range(n))
    assert sum(server.counts().values()) < 80


@pytest.mark.parametrize("past", ["404", "400", "422", "clamp"])
@pytest.mark.parametrize("n", [25, 30])
def test_an_api_that_refuses_what_is_behind_the_end(server, past, n):
    assert ids_of(server, things("pages", "page", n=n, past=past)) == list(range(n))


def test_an_error_that_may_be_one_is_one_unless_it_is_said_to_be_the_end(server):
    resource = things("pages", "page", n=30, past="400", kind="none")
    with pytest.raises(ConnectorError, match=r"page 4: GET .* answered 400"):
        ids_of(server, resource)
    resource["paginator"] = {"type": "page", "end_status": [400]}
    assert ids_of(server, resource) == list(range(30))


def test_a_page_without_records_between_others_ends_nothing_that_is_counted(server):
    ids = ids_of(server, things("pages", "page", n=45, holes="2,3"))
    assert ids == [*range(10), *range(30, 45)]


def test_records_that_the_server_takes_out_afterwards_do_not_end_the_pages(server):
    resource = things("offsets", {"type": "offset", "size": 10}, n=45, hide=2)
    assert sorted(set(ids_of(server, resource))) == list(range(1, 45, 2))


# What would never end.


@pytest.mark.parametrize(
    ("resource", "message"),
    [
        # Pages of a known total are read in parallel, so any of them may be met first.
        (things("pages", "page", ignore=1), "has the same records as one before it"),
        (things("pages", "page", ignore=1, kind="none"), "page 2 has the same records as one bef"),
        (
            things("cursors", {"type": "cursor", "cursor": "meta.next_cursor"}, loop=1),
            "the source gave the cursor 'c10' a second time, so reading would never end",
        ),
        (
            things("cursors", {"type": "cursor", "cursor": "meta.next_cursor"}, same=1),
            "page c10 has the same records as one before it",
        ),
        (things("links", to="itself"), "has the same records as one before it"),
        (
            things("cursors", "auto", n=20000, hollow=1),
            "1001 empty pages in a row and says that there is more",
        ),
    ],
)
def test_a_repetition_is_told(server, resource, message):
    with pytest.raises(ConnectorError) as error:
        ids_of(server, resource)
    assert message in str(error.value) and "partition things" in str(error.value)


def test_reading_twice_is_no_repetition(server):
    api = connector(server, things("pages", "page"))
    assert api.sync_documents() == api.sync_documents()


@pytest.mark.parametrize(
    ("limits", "ids", "requests"),
    [
        ({"max_pages": 2}, range(20), 2),
        ({"max_items": 15}, range(15), 2),
        ({"max_items": 10}, range(10), 1),
        ({"max_items": 3, "max_pages": 9}, range(3), 1),
        ({"max_items": 99}, range(25), 3),
    ],
)
@pytest.mark.parametrize("kind", ["total", "has_more"])
def test_a_caller_may_limit_what_is_read(server, limits, ids, requests, kind):
    api = connector(server, things("pages", "page", kind=kind))
    assert [item["id"] for item in api.sync_documents(**limits)] == list(ids)
    assert sum(server.counts().values()) == requests
    assert ids_of(server, things("pages", "page", kind=kind, **limits)) == list(ids)
    with pytest.raises(ConfigError, match="max_pages is 0; it must be at least 1"):
        api.sync_documents(max_pages=0)


# Odd answers.


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("html", "is HTML or XML, not JSON"),
        ("cut", "is cut off: the JSON ends after 30 characters"),
        ("latin", "is not UTF-8 text"),
        ("moved", "has no 'items', but 'result'"),
        ("empty", "is empty, where JSON was expected"),
        ("403", "403 Forbidden"),
        ("401", "401 Unauthorized"),
        ("404", "404 Not Found"),
    ],
)
def test_an_answer_that_makes_no_sense_is_told(server, kind, message):
    with pytest.raises(ConnectorError) as error:
        ids_of(server, things(f"odd/{kind}", "page", records="items"))
    assert message in str(error.value) and "partition things" in str(error.value)


@pytest.mark.parametrize("kind", ["html", "cut", "403"])
def test_and_so_is_a_later_page_that_makes_none(server, kind):
    with pytest.raises(ConnectorError, match="partition things, page 3: "):
        ids_of(server, things(f"odd/{kind}", "page", **{"from": 3}))


def test_no_content_is_no_records(server):
    assert ids_of(server, things("odd/nothing", "page", records="items")) == []


def test_what_is_no_record_is_a_dead_letter_and_the_rest_goes_on(server):
    api = connector(server, things("odd/objects", "single"))
    pages = list(Source(api).pages())
    assert [item["id"] for page in pages for item in page.items] == [1, 4]
    letters = [letter for page in pages for letter in page.failures]
    assert [letter.item for letter in letters] == ["two", None]
    assert letters[0].stage == "read" and letters[0].partition == "things"
    assert "a record is an object, and this is text" in letters[0].message


def test_a_plain_loop_counts_and_logs_them(server, caplog):
    api = connector(server, things("odd/objects", "single"))
    with caplog.at_level(logging.WARNING):
        assert len(api.sync_documents()) == 2
    assert api.get_stats()["failed"] == 2 and len(api.get_stats()["failures"]) == 2
    assert "a record is an object" in caplog.text


def test_the_errors_of_a_graphql_query_are_told(server):
    resource = things(
        "graphql", method="POST", body={"query": QUERY, "variables": {"n": 1, "fails": True}}
    )
    with pytest.raises(ConnectorError, match="with errors: Field 'x' does not exist"):
        ids_of(server, resource)


@pytest.mark.parametrize("to", ["elsewhere", "file"])
@pytest.mark.parametrize("how", ["header", "body", "django"])
def test_a_link_to_another_server_is_not_followed(server, to, how):
    with pytest.raises(ConnectorError, match=r"allowed_origins|not an address of HTTP"):
        ids_of(server, things("links", to=to, how=how))


# What becomes documents.


def test_filters_choose_records_and_end_no_pages(server):
    conditions = [
        {"field": "id", "none_of": [21]},
        {"field": "title", "matches": "1$"},
        {"field": "id", "exists": True},
    ]
    resource = things("pages", "page", kind="has_more", filters=conditions)
    assert ids_of(server, resource) == [1, 11]
    resource["filters"] = [{"field": "id", "one_of": [2, 22]}, {"field": "x", "equals": None}]
    assert ids_of(server, resource) == [2, 22]
    resource["filters"] = [{"field": "id", "equals": True}]
    assert ids_of(server, resource) == []


def test_records_know_their_resource(server):
    api = connector(
        server,
        {**things("pages", "page"), "mapping": {"text": "{title}!"}},
        {"name": "others", "path": "cursors", "params": {"n": 3}},
    )
    records = [api.map_to_frame_record(item) for item in api.sync_documents()]
    host = server.url.removeprefix("http://")
    assert {record.unique_id for record in records} == {
        *(f"{host}:things#{number}" for number in range(25)),
        *(f"{host}:others#{number}" for number in range(3)),
    }
    assert records[0].text_content == "Record 0!"
    assert records[0].metadata["resource"] == "things"


def test_a_field_of_the_api_with_a_name_of_ours_is_kept(server):
    resource = {"name": "odd", "path": "odd/ours", "paginator": "single"}
    (item,) = connector(server, resource).sync_documents()
    assert (item["_resource"], item["record_resource"], item["record_parent"]) == ("odd", "x", 1)


def test_secrets_in_requests_do_not_follow_links_to_other_servers(server, monkeypatch):
    monkeypatch.setenv("INNOCENT", "key-of-the-team")
    resource = things("links", to="other", headers={"X-Innocent": "env:INNOCENT"})
    resource["params"] |= {"plain": "env:INNOCENT"}
    assert ids_of(server, resource, allowed_origins=[server.other]) == list(range(25))
    found = {(one["port"], "key-of-the-team" in str(one["headers"])) for one in server.requests()}
    assert found == {("main", True), ("other", False)}


def test_some_resources_may_be_chosen(server):
    api = connector(server, things("pages", "page"), {"name": "others", "path": "pages"})
    assert {one["_resource"] for one in api.sync_documents(only=["things"])} == {"things"}
    with pytest.raises(ConfigError, match="there is no resource 'thing'; did you mean things"):
        api.sync_documents(only=["thing"])
    with pytest.raises(ConfigError, match="params go with an endpoint"):
        api.sync_documents(params={"a": 1})
    with pytest.raises(ConfigError, match="either an endpoint or the names"):
        api.sync_documents("/api/pages", only=["things"])


def test_requests_say_what_is_configured(server, monkeypatch):
    monkeypatch.setenv("TEAM_KEY", "key-of-the-team")
    resource = things("pages", "page", team="docs", headers={"X-Team-Key": "env:TEAM_KEY"})
    settings = {"headers": {"Accept-Language": "de"}, "params": {"version": "3"}}
    assert len(ids_of(server, resource, **settings)) == 25
    request = server.requests("/api/pages")[0]
    assert request["headers"]["X-Team-Key"] == "key-of-the-team"
    assert request["headers"]["Accept-Language"] == "de"
    assert dict(parse_qsl(request["query"])) == {
        "version": "3",
        "n": "25",
        "team": "docs",
        "page": "1",
    }


def test_a_path_is_below_the_base_and_an_endpoint_at_the_root(server):
    resource = things("/pages", "page")
    api = connector(server, resource)
    assert len(api.sync_documents()) == 25
    assert len(api.sync_documents("/api/pages", {"n": 3})) == 3
    assert len(api.sync_documents("pages", {"n": 3})) == 3
    assert list(server.counts()) == ["/api/pages"]


# Parents and children.

CONTACTS = {"name": "contacts", "params": {"n": 6}, "paginator": "page"}
NOTES = {"name": "notes", "parent": "contacts", "path": "contacts/{parent.id}/notes"}
COMMENTS = {
    "name": "comments",
    "parent": "notes",
    "path": "contacts/{parent.parent.id}/notes/{parent.id}",
}


def test_a_child_is_read_for_each_record_of_its_parent(server):
    notes = {**NOTES, "path": "contacts/{parent.id}/notes", "include": ["title"]}
    api = connector(server, {**CONTACTS, "ingest": False}, notes, COMMENTS, name="crm")
    items = api.sync_documents()
    read = Counter(item["_resource"] for item in items)
    assert read == {"notes": 0 + 1 + 2 + 3 + 0 + 1, "comments": 7}
    note = next(one for one in items if one["_resource"] == "notes")
    assert note["_parent"] == {
        "id": 1,
        "title": "Record 1",
        "_unique_id": "crm:contacts#1",
    }
    relationships = api.map_to_frame_record(note).metadata["relationships"]
    assert relationships == [{"relationship_type": "parent", "target_id": "crm:contacts#1"}]
    texts = {item["body"] for item in items if item["_resource"] == "comments"}
    assert texts == {
        f"comment on {contact}/{note}" for contact in range(6) for note in range(contact % 4)
    }


def test_a_parent_that_comes_twice_is_read_once(server):
    contacts = {**CONTACTS, "params": {"n": 25, "overlap": 3}}
    api = connector(server, contacts, NOTES)
    api.sync_documents(only=["notes"])
    times = {path: count for path, count in server.counts().items() if path.endswith("/notes")}
    assert len(times) == 25 and set(times.values()) == {1}


def test_404_of_one_partition_is_a_dead_letter(server):
    notes = {**NOTES, "params": {"gone": "2"}}
    api = connector(server, CONTACTS, notes)
    pages = list(Source(api, {"only": ["notes"]}).pages())
    (letter,) = [letter for page in pages for letter in page.failures]
    assert letter.partition == "notes/2" and "404 Not Found" in letter.message
    assert letter.item == {
        "resource": "notes",
        "parent": {"id": 2, "_unique_id": letter.item["parent"]["_unique_id"]},
    }
    assert sum(len(page.items) for page in pages) == 5


@pytest.mark.parametrize(("what", "failures"), [("fail", None), ("skip", 0), ("dead_letter", 1)])
def test_what_404_means_may_be_said(server, what, failures):
    notes = {**NOTES, "params": {"gone": "2"}, "not_found": what}
    api = connector(server, CONTACTS, notes)
    if failures is None:
        with pytest.raises(ConnectorError, match=r"partition notes/2, first page: .* 404"):
            api.sync_documents(only=["notes"])
    else:
        assert len(api.sync_documents(only=["notes"])) == 5
        assert api.get_stats()["failed"] == failures


def test_a_parent_without_the_field_is_a_dead_letter(server):
    notes = {**NOTES, "path": "contacts/{parent.key}/notes"}
    api = connector(server, {**CONTACTS, "params": {"n": 2}}, notes)
    assert api.sync_documents(only=["notes"]) == []
    assert api.get_stats()["failures"][0]["message"] == (
        "the record of contacts has no key; it has id, title, content, updated_at"
    )


# Only what changed.


def states_of(pages: list[Page]) -> dict[str, Any]:
    return {page.partition: page.state for page in pages if page.state and page.partition}


def incremental(**settings: Any) -> dict[str, Any]:
    given = {"field": "updated_at", "param": "since", **settings}
    return things("changes", "page", incremental=given)


@pytest.mark.parametrize("kind", ["total", "none"])
@pytest.mark.parametrize("order", ["up", "down"])
def test_the_next_run_asks_since_the_newest_value(server, kind, order):
    resource = incremental()
    resource["params"] |= {"kind": kind, "order": order}
    api = connector(server, resource)
    first = list(Source(api).pages())
    states = states_of(first)
    assert states == {"things": {"cursor": "2026-01-25T00:00:00Z"}}
    assert sum(len(page.items) for page in first) == 25
    server.reset()
    second = list(Source(api, resume_from=states).pages())
    assert [item["id"] for page in second for item in page.items] == [24]
    assert set(asked(server, "/api/changes", "since")) == {"2026-01-25T00:00:00Z"}
    assert states_of(second) == states
    third = list(Source(api, resume_from=states, full_sync=True).pages())
    assert sum(len(page.items) for page in third) == 25


def test_the_first_run_may_have_a_start_and_each_a_lookback(server):
    api = connector(server, incremental(start="2026-01-20T00:00:00Z", lookback="2d"))
    pages = list(Source(api).pages())
    assert sorted(one["id"] for page in pages for one in page.items) == list(range(17, 25))
    state = {"things": {"cursor": "2026-01-24T00:00:00Z"}}
    pages = list(Source(api, resume_from=state).pages())
    assert sorted(one["id"] for page in pages for one in page.items) == [21, 22, 23, 24]


def test_a_value_goes_into_a_template_and_out_of_it_without_one(server):
    resource = things("changes", "page", incremental={"field": "updated_at"}, since="{since}")
    api = connector(server, resource)
    pages = list(Source(api).pages())
    assert sum(len(page.items) for page in pages) == 25
    assert asked(server, "/api/changes", "since") == [None] * 3
    pages = list(Source(api, resume_from=states_of(pages)).pages())
    assert sum(len(page.items) for page in pages) == 1


def test_where_the_api_cannot_choose_records_are_chosen_here(server):
    resource = things("changes", "page", incremental={"field": "updated_at"})
    api = connector(server, resource)
    state = {"things": {"cursor": "2026-01-23T00:00:00Z"}}
    pages = list(Source(api, resume_from=state).pages())
    assert sorted(one["id"] for page in pages for one in page.items) == [22, 23, 24]
    assert states_of(pages) == {"things": {"cursor": "2026-01-25T00:00:00Z"}}


def test_slices_are_partitions_and_the_newest_holds_the_state(server):
    resource = incremental(
        start="2026-01-01T00:00:00Z", slice="10d", until_param="until", format="iso"
    )
    api = connector(server, resource)
    pages = list(Source(api).pages())
    partitions = {page.partition for page in pages if page.partition}
    assert {"things", "things/2026-01-01T00:00:00Z", "things/2026-01-11T00:00:00Z"} <= partitions
    assert {one["id"] for page in pages for one in page.items} == set(range(25))
    run = RunSummary("run", "upsert")
    states = SourceState("api").after(run, states_of(pages)).partitions
    assert states == {"things": {"cursor": "2026-01-25T00:00:00Z"}}
    again = list(Source(api, resume_from=states).pages())
    later = {page.partition for page in again if page.partition} - {"things"}
    assert min(later) == "things/2026-01-25T00:00:00Z"
    assert {one["id"] for page in again for one in page.items} == {24}


def test_slices_of_another_length_are_other_parts_of_a_backfill(server):
    resource = incremental(start="2026-01-01T00:00:00Z", until_param="until", format="iso")
    short, long = (
        {part.content for part in Source(connector(server, settings)).parts()}
        for settings in (with_slice(resource, "10d"), with_slice(resource, "20d"))
    )
    assert short & long == {"things"}
    assert short == {
        part.content for part in Source(connector(server, with_slice(resource, "10d"))).parts()
    }


def with_slice(resource: dict[str, Any], length: str) -> dict[str, Any]:
    return {**resource, "incremental": {**resource["incremental"], "slice": length}}


def test_a_limit_advances_no_state(server):
    api = connector(server, incremental())
    for limits in ({"max_items": 5}, {"max_pages": 1}):
        assert states_of(list(Source(api, limits).pages())) == {}
    assert states_of(list(Source(api, {"max_items": 99}).pages())) != {}


def test_a_limit_that_may_cut_a_slice_short_advances_no_state(server):
    settings = {"start": "2026-01-01T00:00:00Z", "slice": "10d", "until_param": "until"}
    api = connector(server, incremental(**settings, format="iso"))
    pages = list(Source(api, {"max_items": 5}).pages())
    assert {one["id"] for page in pages for one in page.items} < set(range(25))
    assert states_of(pages) == {}


def test_children_have_states_of_their_own(server):
    notes = {**NOTES, "incremental": {"field": "updated_at", "param": "since"}}
    pages = list(Source(connector(server, CONTACTS, notes), {"only": ["notes"]}).pages())
    states = states_of(pages)
    assert sorted(states) == ["notes/1", "notes/2", "notes/3", "notes/5"]
    assert states["notes/3"] == {"cursor": "2026-01-01T00:00:02Z"}


# Trying it out.


def test_a_check_reads_one_page_a_resource_and_maps_it(server):
    report = check(
        {
            "base_url": f"{server.url}/api",
            "name": "crm",
            "retries": 0,
            "resources": [
                {**things("pages", "page"), "mapping": {"title": "title"}},
                CONTACTS,
                NOTES,
                {"name": "broken", "path": "odd/moved", "records": "items"},
                {"name": "strange", "path": "odd/objects", "paginator": "single"},
            ],
        }
    )
    assert not report.ok
    found = {one.name: one for one in report.resources}
    first = found["things"]
    assert (first.records, first.pages, first.next_page) == (10, 3, "by number")
    assert [sample.unique_id for sample in first.samples] == [f"crm:things#{n}" for n in range(3)]
    assert first.samples[1].title == "Record 1"
    assert first.samples[1].text == "What record 1 says."
    assert found["notes"].partition == "notes/0" and "no records" in found["notes"].hint
    assert "has no 'items'" in found["broken"].problem
    assert found["strange"].failed == 2
    assert json.loads(json.dumps(report.to_json()))["ok"] is False
    text = str(report)
    assert "things: 10 records on the first page, 3 pages, next: by number" in text
    assert "crm:things#0  Record 0" in text and "broken: " in text
    assert server.count("/api/pages") == 1


def test_a_check_tells_of_refused_credentials_and_shows_none(server):
    config = {"base_url": server.url, "auth": {"type": "bearer", "token": "wrong-key-67890"}}
    report = check({**config, "auth_check": "/api/v1/me"})
    assert "Authentication failed: 401" in report.problem and not report.ok
    assert "wrong-key-67890" not in f"{report} {report.to_json()}"
    with pytest.raises(ConfigError, match="did you mean base_url"):
        check({"base_ulr": server.url})


def test_a_check_of_an_endpoint(server):
    report = check({"base_url": server.url}, endpoint="/api/pages?n=12")
    assert report.ok and report.resources[0].records == 10


def test_a_connector_pickles_in_the_middle_of_its_work(server):
    api = connector(server, things("pages", "page"))
    api.sync_documents()
    arrived = pickle.loads(pickle.dumps(api))
    assert not arrived.authenticated
    arrived.authenticate()
    assert len(arrived.sync_documents()) == 25


def test_a_subclass_may_change_what_is_read(server):
    class Shouting(APIConnector):
        def sync_documents(self, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
            found = super().sync_documents(*args, **kwargs)
            return [{**item, "title": item["title"].upper()} for item in found]

    api = Shouting(f"{server.url}/api", resources=[things("pages", "page")])
    api.authenticate()
    items = [item for page in Source(api).pages() for item in page.items]
    assert len(items) == 25 and items[3]["title"] == "RECORD 3"
