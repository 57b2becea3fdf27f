"""Queries of GraphQL for connectors: errors raise, and lists are followed to their end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from contextframe_beam.connectors.http import HttpClient, Queries, QueryError
from contextframe_beam.errors import ConnectorError
from tests.support.small_server import Got, serving

QUERY = "query($after: String) { list(after: $after) { nodes { id } } }"


def page(*nodes: Any, after: str | None = None, more: bool | None = None) -> dict[str, Any]:
    has_more = after is not None if more is None else more
    return {"nodes": list(nodes), "pageInfo": {"hasNextPage": has_more, "endCursor": after}}


@contextmanager
def queries(*replies: Any) -> Iterator[Queries]:
    """Sends queries to a server that gives these answers, the last one for ever."""
    left = list(replies)
    with serving(lambda _: left.pop(0) if len(left) > 1 else left[0]) as server:
        yield Queries(HttpClient(server.url, backoff=0.001))


def test_the_data_of_an_answer_is_returned():
    with serving(lambda got: {"data": {"path": got.path, **got.body}}) as server:
        seen = Queries(HttpClient(server.url)).data("{ viewer { login } }", {"a": 1})
    assert seen == {"path": "/graphql", "query": "{ viewer { login } }", "variables": {"a": 1}}


@pytest.mark.parametrize("data", [{"repository": None}, {"repository": {"id": 1}}])
def test_errors_raise_even_beside_data(data):
    error = {"type": "NOT_FOUND", "message": "no such repository", "path": ["repository"]}
    caught = pytest.raises(QueryError, match="repository: no such repository")
    with queries({"data": data, "errors": [error]}) as asked, caught as found:
        asked.data(QUERY)
    assert found.value.faults[0].code == "NOT_FOUND"


def test_an_error_that_passes_is_asked_again():
    busy = {"errors": [{"message": "timeout"}]}
    with queries(busy, {"data": {"ok": 1}}) as asked:
        assert asked.data(QUERY) == {"ok": 1}


@pytest.mark.parametrize("body", [{}, {"data": None}, [1], "text"])
def test_an_answer_without_data_is_refused(body):
    with queries(body) as asked, pytest.raises(ConnectorError, match="no data, and no errors"):
        asked.data(QUERY)


def test_a_list_is_followed_to_its_end():
    def answer(got: Got) -> Any:
        at = int(got.body["variables"]["after"] or 0)
        return {"data": {"list": page(at, None, at + 1, after=str(at + 2) if at < 6 else None)}}

    with serving(answer) as server, HttpClient(server.url) as http:
        assert list(Queries(http).nodes(QUERY, {}, "list")) == list(range(8))
        first = page("known", after="4")
        assert list(Queries(http).nodes(QUERY, {}, "list", first)) == ["known", 4, 5, 6, 7]


def test_the_nodes_of_edges_are_found():
    found = {"edges": [{"node": 1}, {"node": 2}], "pageInfo": {"hasNextPage": False}}
    with queries({"data": {"list": found}}) as asked:
        assert list(asked.nodes(QUERY, {}, "list")) == [1, 2]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (page(1, after="same"), "gave the cursor same a second time"),
        (page(1, more=True), "gave no cursor; let its query ask for endCursor"),
        ({"nodes": []}, "no list with pageInfo at list"),
        (None, "no list with pageInfo at list"),
    ],
)
def test_a_list_that_cannot_be_followed_is_refused(found, message):
    reply = {"data": {"list": found}}
    with queries(reply) as asked, pytest.raises(ConnectorError, match=message):
        list(asked.nodes(QUERY, {}, "list"))
