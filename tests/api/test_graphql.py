"""GraphQL: lists inside records, errors beside data, and cursors that come again."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.api import APIConnector, check
from contextframe_beam.connectors.api.graphql import (
    FailedNode,
    faults_in,
    list_around,
    unread_lists,
    with_failed_nodes,
)
from contextframe_beam.connectors.page import DeadLetter
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.errors import ConnectorError
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.store.address import Address
from contextframe_beam.store.files import open_dataset
from contextframe_beam.store.state import read_states
from tests.support.http_fixture import HttpServer

QUERY = "query($after: String) { issues(first: 2, after: $after) { nodes { id } } }"
PAGED = {"type": "graphql", "page_info": "data.issues.pageInfo"}
FORBIDDEN = {"type": "FORBIDDEN", "message": "Resource not accessible"}


def page(*nodes: Any, after: str | None = None, **more: Any) -> dict[str, Any]:
    """Returns an answer with these issues; `after` is the cursor of the next one."""
    info = {"hasNextPage": after is not None, "endCursor": after or "last"}
    return {"data": {"issues": {"nodes": list(nodes), "pageInfo": info}}, **more}


def issue(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "title": f"Issue {name}", **more}


def api(
    server: HttpServer, pages: dict[str, Any], retries: int = 0, **resource: Any
) -> APIConnector:
    return APIConnector(
        f"{server.url}/api",
        name="tracker",
        retries=retries,
        resources=[
            {
                "name": "issues",
                "path": "graphql/played",
                "method": "POST",
                "body": {"query": QUERY, "variables": {"pages": pages}},
                "records": "data.issues.nodes",
                "paginator": PAGED,
                **resource,
            }
        ],
    )


def read(connector: APIConnector) -> tuple[list[Any], list[DeadLetter], set[str]]:
    """Returns the ids that are read, what failed, and why the run may be incomplete."""
    connector.authenticate()
    pages = list(Source(connector).pages())
    ids = [item["id"] for one in pages for item in one.items]
    failures = [letter for one in pages for letter in one.failures]
    return ids, failures, {one.partial for one in pages} - {""}


# Lists inside records.

OPEN = {"hasNextPage": True, "endCursor": "c100"}
SHUT = {"hasNextPage": False, "endCursor": "c2"}


@pytest.mark.parametrize(
    "record",
    [
        {"comments": {"nodes": [{"id": 1}], "pageInfo": OPEN}},
        {"comments": {"edges": [{"node": {"id": 1}}], "pageInfo": OPEN}},
        {"comments": {"nodes": [{"id": 1}], "info": OPEN}},
        {"comments": {"nodes": [{"id": 1}], "totalCount": 150}},
        {"comments": {"nodes": [], "pageInfo": {"hasPreviousPage": True}}},
        {"author": {"teams": {"nodes": [{"members": {"nodes": [], "pageInfo": OPEN}}]}}},
    ],
    ids=["nodes", "edges", "an alias", "a count", "the last ones", "deep down"],
)
def test_a_list_in_a_record_that_goes_on_makes_the_run_partial(server, record):
    pages = {"": page(issue("a"), after="c"), "c": page(issue("b", **record))}
    ids, failures, partial = read(api(server, pages))
    assert (ids, failures) == (["a", "b"], [])
    (why,) = partial
    assert why.startswith("issues: data.issues.nodes.*.") and "a resource of its own" in why


@pytest.mark.parametrize(
    "record",
    [
        {"comments": {"nodes": [{"id": 1}], "pageInfo": SHUT, "totalCount": 9}},
        {"comments": {"nodes": [{"id": 1}], "totalCount": 1}},
        {"comments": {"totalCount": 150}},
        {"comments": {"nodes": [{"id": 1}]}},
        {"comments": None},
        {"tags": ["a", "b"], "totalCount": 4, "size": {"nodes": 3}},
    ],
    ids=["no next page", "all of them", "a count alone", "nothing said", "null", "no list"],
)
def test_a_list_in_a_record_that_is_whole_does_not(server, record):
    assert read(api(server, {"": page(issue("a", **record))})) == (["a"], [], set())


def test_lists_around_the_records_count_as_well(server):
    def repository(name: str, info: dict[str, Any]) -> dict[str, Any]:
        return {"name": name, "issues": {"nodes": [issue(name)], "pageInfo": info}}

    repositories = {"nodes": [repository("a", SHUT), repository("b", OPEN)], "pageInfo": SHUT}
    connector = api(
        server,
        {"": {"data": {"repositories": repositories}}},
        records="data.repositories.nodes.*.issues.nodes",
        paginator={"type": "graphql", "page_info": "data.repositories.pageInfo"},
    )
    ids, _, (why,) = read(connector)
    assert ids == ["a", "b"] and "data.repositories.nodes.*.issues goes on" in why


@pytest.mark.parametrize("paginator", [PAGED, None, "auto"])
def test_the_list_that_is_paged_itself_is_followed(server, paginator):
    pages = {"": page(issue("a"), after="c"), "c": page(issue("b"))}
    assert read(api(server, pages, paginator=paginator)) == (["a", "b"], [], set())


def test_a_partial_run_moves_no_state_and_a_mirror_keeps_what_it_did_not_see(server, tmp_path):
    kb = str(tmp_path / "kb.lance")
    changes = {"incremental": {"field": "at"}}
    nodes = [issue(name, at="2026-01-01T00:00:00Z") for name in ("a", "b")]
    ingest(api(server, {"": page(*nodes)}, **changes), kb, embed_dim=4)
    nodes[0] |= {"at": "2026-02-01T00:00:00Z", "comments": {"nodes": [1], "totalCount": 2}}
    connector = api(server, {"": page(nodes[0])}, **changes)
    receipt = ingest(connector, kb, mode="mirror")
    assert receipt.rows_deleted == 0 and len(FrameDataset.open(kb)) == 2
    assert "comments goes on" in receipt.partial[0]
    (state,) = read_states(open_dataset(Address(kb))).values()
    assert state.partitions == {"issues": {"cursor": "2026-01-01T00:00:00Z"}}


# Errors beside data.


def forbidden(*path: Any, **more: Any) -> dict[str, Any]:
    return {**FORBIDDEN, "path": ["issues", *path], **more}


@pytest.mark.parametrize(
    ("nodes", "errors", "ids", "failed"),
    [
        ([issue("a"), None], [forbidden("nodes", 1)], ["a"], 1),
        ([None, issue("b")], [forbidden("nodes", 0)], ["b"], 1),
        ([None, issue("b"), None], [forbidden("nodes", 0), forbidden("nodes", 2)], ["b"], 2),
        ([issue("a", body=None), issue("b")], [forbidden("nodes", 0, "body")], ["b"], 1),
        (
            [issue("a", body=None, x=None), issue("b")],
            [forbidden("nodes", 0, "body"), forbidden("nodes", 0, "x")],
            ["b"],
            1,
        ),
        (
            [issue("a"), issue("b", notes=[{"by": None}])],
            [forbidden("nodes", 1, "notes", 0, "by")],
            ["a"],
            1,
        ),
        ([issue("a"), None], [forbidden("nodes", "1")], ["a"], 1),
        ([issue("a")], [{**FORBIDDEN, "path": ["rateLimit"]}], ["a"], 1),
    ],
    ids=[
        "a null node",
        "the first",
        "two",
        "a field",
        "two fields of one",
        "deep down",
        "numbers as text",
        "elsewhere",
    ],
)
def test_errors_beside_data_fail_those_nodes_where_the_rest_is_to_be_kept(
    server, nodes, errors, ids, failed
):
    pages = {"": page(*nodes, after="c", errors=errors), "c": page(issue("z"))}
    found, failures, partial = read(api(server, pages, partial="keep"))
    assert found == [*ids, "z"] and len(failures) == failed
    assert all("Resource not accessible (FORBIDDEN)" in one.message for one in failures)
    assert partial == {"issues: the API could not give all nodes; the dead letters say which"}
    with pytest.raises(ConnectorError, match=r"answered with errors: .*Resource not accessible"):
        read(api(server, pages))


def test_a_node_that_failed_is_a_dead_letter_with_what_there_is_of_it(server):
    nodes = [issue("a", body=None), issue("b")]
    pages = {"": page(*nodes, errors=[forbidden("nodes", 0, "body")])}
    _, (letter,), _ = read(api(server, pages, partial="keep"))
    assert letter.original_item() == nodes[0] and letter.position == "first page[0]"
    assert letter.message == "issues.nodes.0.body: Resource not accessible (FORBIDDEN)"


def test_nodes_of_edges_fail_as_well(server):
    edges = [{"node": issue("a")}, {"node": None}, None]
    errors = [forbidden("edges", 1, "node"), forbidden("edges", 2)]
    answer = {"data": {"issues": {"edges": edges, "pageInfo": SHUT}}, "errors": errors}
    connector = api(server, {"": answer}, records="data.issues.edges.*.node", partial="keep")
    ids, failures, _ = read(connector)
    assert ids == ["a"] and len(failures) == 2


@pytest.mark.parametrize(
    "answer",
    [
        {"data": None, "errors": [FORBIDDEN]},
        {"data": {"issues": None}, "errors": [FORBIDDEN]},
        {"data": {"issues": None}, "errors": [forbidden()]},
        {"errors": [FORBIDDEN]},
        page(issue("a"), errors=[FORBIDDEN]),
        page(issue("a"), errors=["Resource not accessible"]),
    ],
    ids=["no data", "no list", "no list and its place", "errors alone", "no place", "a text"],
)
@pytest.mark.parametrize("partial", ["keep", "fail"])
def test_errors_that_name_no_node_fail_the_run(server, answer, partial):
    with pytest.raises(ConnectorError, match="Resource not accessible"):
        read(api(server, {"": answer}, partial=partial))


def test_the_message_says_how_to_keep_the_rest(server):
    pages = {"": page(issue("a"), None, errors=[forbidden("nodes", 1)])}
    with pytest.raises(ConnectorError, match="write `partial: keep` to keep"):
        read(api(server, pages))


def test_both_reasons_of_one_page_are_said(server):
    nodes = [issue("a", comments={"nodes": [], "pageInfo": OPEN}), None]
    pages = {"": page(*nodes, errors=[forbidden("nodes", 1)])}
    _, _, (why,) = read(api(server, pages, partial="keep"))
    assert "comments goes on" in why and "could not give all nodes" in why


def test_a_check_fails_for_nodes_that_failed_and_lists_that_go_on(server):
    pages = {"": page(issue("a"), None, errors=[forbidden("nodes", 1)])}
    (resource,) = check(api(server, pages, partial="keep")).resources
    assert resource.failed == 1 and "Resource not accessible" in resource.reasons[0]
    longer = {"": page(issue("a", comments={"nodes": [], "totalCount": 2}))}
    report = check(api(server, longer))
    assert not report.ok and "comments goes on" in str(report)


def test_kept_nodes_are_committed_and_failed_ones_counted(server, tmp_path):
    kb, letters = tmp_path / "kb.lance", tmp_path / "letters.jsonl"
    pages = {"": page(issue("a"), None, errors=[forbidden("nodes", 1)])}
    connector = api(server, pages, partial="keep")
    receipt = ingest(connector, str(kb), embed_dim=4, dead_letters=str(letters))
    assert (receipt.rows_written, receipt.failed, len(receipt.partial)) == (1, 1, 1)
    assert "Resource not accessible" in Path(letters).read_text()


# Errors that pass.

WENT_WRONG = "Something went wrong while executing your query. This may be the result of a timeout"


@pytest.mark.parametrize(
    "answer",
    [
        {"data": {"issues": None}, "errors": [{"type": "TIMEOUT", "message": "went wrong"}]},
        {"data": None, "errors": [{"message": WENT_WRONG}]},
        {"errors": [{"message": "no", "extensions": {"code": "RATE_LIMITED"}}]},
        page(None, errors=[{"type": "TIMEOUT", "message": "m", "path": ["issues", "nodes", 0]}]),
        {"status": 502, "body": {"message": "bad gateway"}},
    ],
    ids=["a type", "a message", "a code of an extension", "a node", "a status"],
)
@pytest.mark.parametrize("partial", ["keep", "fail"])
def test_an_error_that_passes_is_tried_again(server, answer, partial):
    pages = {"": page(issue("a"), after="c"), "c": [answer, page(issue("b"))]}
    ids, failures, why = read(api(server, pages, retries=2, partial=partial))
    assert (ids, failures, why) == (["a", "b"], [], set())
    assert server.count("/api/graphql/played") == 3


def test_one_that_stays_fails_the_run(server):
    answer = {"data": {"issues": None}, "errors": [{"type": "TIMEOUT", "message": "went wrong"}]}
    with pytest.raises(ConnectorError, match=r"went wrong \(TIMEOUT\)"):
        read(api(server, {"": answer}, retries=1))
    assert server.count("/api/graphql/played") == 2


# Cursors.


def test_the_cursor_that_was_asked_for_is_told_as_a_loop(server):
    pages = {"": page(issue("a"), after="c"), "c": page(issue("b"), after="c")}
    with pytest.raises(ConnectorError, match=r"gave the endCursor 'c' again.*after: \$after"):
        read(api(server, pages))


def test_cursors_that_go_round_are_told(server):
    pages = {
        "": page(issue("a"), after="c"),
        "c": page(issue("b"), after="d"),
        "d": page(issue("e"), after="c"),
    }
    with pytest.raises(ConnectorError, match="the cursor 'c' a second time"):
        read(api(server, pages))


# The functions themselves.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["nodes", "edges", "pageInfo", "hasNextPage", "totalCount", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON, st.lists(st.lists(st.text(max_size=2) | st.integers(-1, 3), max_size=4), max_size=3))
def test_no_answer_is_too_odd_and_none_is_changed(data, paths):
    answer = {"data": {"issues": data}, "errors": [{"message": "m", "path": p} for p in paths]}
    before = copy.deepcopy(answer)
    unread_lists(answer, ("data", "issues"))
    records = data if isinstance(data, list) else [data]
    try:
        kept = with_failed_nodes(answer, records, faults_in(answer))
    except ConnectorError:
        kept = []
    assert answer == before
    good = [one for one in kept if not isinstance(one, FailedNode)]
    assert all(any(one is record for record in records) for one in good)


@pytest.mark.parametrize(
    ("path", "around"),
    [
        ("data.issues.nodes", ("data", "issues")),
        ("data.issues.edges.*.node", ("data", "issues")),
        ("data.repos.0.issues.pageInfo", ("data", "repos", 0, "issues")),
        ("data.repos.nodes.*.issues.nodes?", ("data", "repos")),
        ("$", ("$",)),
    ],
)
def test_the_list_around_a_path(path, around):
    assert list_around(path) == around
