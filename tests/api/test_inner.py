"""Lists inside GraphQL records are read to their end, and records below records of their kind."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.api import APIConnector
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.errors import ConfigError, ConnectorError
from contextframe_beam.pipelines.ingest import ingest
from tests.support.laws import examples
from tests.support.small_server import Got, serving

OUTER = "query($after: String) { issues(after: $after) { nodes { id } } }"
INNER = "query($id: ID!, $after: String) { node(id: $id) { ... } }"
REACTIONS = "query reactions($comment: ID!, $after: String) { node(id: $comment) { ... } }"


class Tracker:
    """A GraphQL server of issues with comments, which have reactions; pages of two of each.

    Args:
        issues: The comments of each issue, by its id.
        reactions: The reactions of each comment, by its text.
    """

    def __init__(
        self, issues: dict[str, list[str]], reactions: dict[str, list[str]] | None = None
    ) -> None:
        self.issues, self.reactions = issues, reactions or {}
        self.fails: set[str] = set()
        self.stuck = False

    def __call__(self, got: Got) -> Any:
        query, variables = got.body["query"], got.body.get("variables") or {}
        after = int(variables.get("after") or 0)
        if query == OUTER:
            nodes = [{"id": name, "comments": self._comments(name, 0)} for name in self.issues]
            return {"data": {"issues": self._page(nodes, after)}}
        if query == REACTIONS:
            return {"data": {"node": {"reactions": self._reactions(variables["comment"], after)}}}
        name = variables["id"]
        if name in self.fails:
            return {"data": {"node": None}, "errors": [{"message": "hidden", "path": ["node"]}]}
        comments = self._comments(name, 0 if self.stuck else after)
        return {"data": {"node": {"comments": comments}}}

    def _comments(self, name: str, after: int) -> dict[str, Any]:
        found = [
            {"id": text, "body": text, "reactions": self._reactions(text, 0)}
            for text in self.issues[name]
        ]
        return self._page(found, after)

    def _reactions(self, comment: str, after: int) -> dict[str, Any]:
        return self._page([{"name": one} for one in self.reactions.get(comment, [])], after)

    def _page(self, found: list[Any], after: int) -> dict[str, Any]:
        end = after + 2
        info = {"hasNextPage": end < len(found), "endCursor": str(end)}
        return {"nodes": found[after:end], "pageInfo": info, "totalCount": len(found)}


def issues_of(url: str, **resource: Any) -> APIConnector:
    return APIConnector(
        url,
        name="tracker",
        retries=0,
        resources=[
            {
                "name": "issues",
                "path": "graphql",
                "method": "POST",
                "body": {"query": OUTER},
                "records": "data.issues.nodes",
                "paginator": {"type": "graphql", "page_info": "data.issues.pageInfo"},
                "inner": {"comments": {"query": INNER}},
                **resource,
            }
        ],
    )


def read(connector: APIConnector) -> tuple[list[dict[str, Any]], set[str]]:
    """Returns the records, and why some may be missing."""
    connector.authenticate()
    pages = list(Source(connector).pages())
    return [item for one in pages for item in one.items], {one.partial for one in pages} - {""}


def comments_in(records: list[dict[str, Any]]) -> dict[str, list[str]]:
    return {one["id"]: [node["body"] for node in one["comments"]["nodes"]] for one in records}


@settings(max_examples=examples(40) // 5)
@given(
    st.dictionaries(
        st.sampled_from("abcde"), st.lists(st.text("xyz", min_size=1), max_size=7), min_size=1
    )
)
def test_each_list_is_read_to_its_end_by_its_own_cursor(issues):
    with serving(Tracker(issues)) as server:
        records, partial = read(issues_of(server.url))
    assert (comments_in(records), partial) == (issues, set())


def test_lists_inside_lists_belong_to_the_object_that_holds_them():
    tracker = Tracker({"a": ["one", "two", "three"]}, {"one": list("xyz"), "three": list("uvwxy")})
    inner = {
        "comments": {"query": INNER},
        "comments.nodes.reactions": {"query": REACTIONS, "variables": {"comment": "id"}},
    }
    with serving(tracker) as server:
        (issue,), partial = read(issues_of(server.url, inner=inner))
    found = {
        one["id"]: "".join(node["name"] for node in one["reactions"]["nodes"])
        for one in issue["comments"]["nodes"]
    }
    assert (found, partial) == ({"one": "xyz", "two": "", "three": "uvwxy"}, set())


def test_the_bytes_of_all_answers_count_for_the_page_that_they_are_read_for():
    issues = {"a": ["one", "two", "three"], "b": ["x" * 2000], "c": ["y" * 500]}
    with serving(Tracker(issues)) as server:
        connector = issues_of(server.url)
        connector.authenticate()
        sizes = [page.size for page in Source(connector).pages() if page.items]
        (client,) = connector._clients
        assert sum(sizes) == client.stats.bytes and sizes[0] > 2000 > sizes[1] > 500


def test_a_list_that_nobody_follows_makes_the_run_partial_and_is_named():
    with serving(Tracker({"a": ["1", "2", "3"]}, {"1": list("xyz")})) as server:
        _, partial = read(issues_of(server.url))
    (reason,) = partial
    assert "data.issues.nodes.*.comments.nodes.*.reactions goes on" in reason


def test_an_error_in_the_rest_of_a_list_fails_the_run():
    tracker = Tracker({"a": ["1", "2", "3"]})
    tracker.fails = {"a"}
    with serving(tracker) as server, pytest.raises(ConnectorError, match="node: hidden"):
        read(issues_of(server.url))


def test_a_query_that_ignores_its_cursor_ends_with_a_message():
    tracker = Tracker({"a": ["1", "2", "3"]})
    tracker.stuck = True
    message = pytest.raises(ConnectorError, match="comments of id a gave the cursor 2 a second")
    with serving(tracker) as server, message:
        read(issues_of(server.url))


def test_no_request_is_sent_for_a_list_that_is_complete():
    with serving(Tracker({"a": ["1"], "b": ["1", "2"]})) as server:
        read(issues_of(server.url))
        assert len(server.requests) == 1


class Blocks:
    """A server of pages whose blocks have blocks, two in an answer.

    Args:
        children: The names of the blocks below each block or page, by its name.
    """

    def __init__(self, children: dict[str, list[str]]) -> None:
        self.children = children
        self.hidden: set[str] = set()

    def __call__(self, got: Got) -> Any:
        if got.path == "/pages":
            return {"results": [{"id": name} for name in self.children if name.startswith("page")]}
        name = got.path.split("/")[2]
        if name in self.hidden:
            return 404, {}, {"message": "not found"}
        found, start = self.children.get(name, []), got.number("start", 0)
        end = start + 2
        return {
            "results": [
                {"id": one, "text": f"text of {one}", "has_children": one in self.children}
                for one in found[start:end]
            ],
            "next": str(end) if end < len(found) else None,
        }


def blocks_of(url: str, **recurse: Any) -> APIConnector:
    when = {"field": "has_children", "equals": True}
    return APIConnector(
        url,
        name="notes",
        retries=0,
        paginator={"type": "cursor", "cursor": "next", "param": "start"},
        resources=[
            {"name": "pages", "records": "results", "ingest": False},
            {
                "name": "blocks",
                "path": "blocks/{parent.id}/children",
                "parent": "pages",
                "records": "results",
                "recurse": {"when": when, **recurse},
                "mapping": {"text": "text"},
            },
        ],
    )


TREE = {
    "page1": ["a", "b", "c"],
    "a": ["a1", "a2", "a3"],
    "a2": ["a2x"],
    "c": ["c1"],
    "page2": ["d"],
}


def test_a_tree_is_read_in_the_order_in_which_it_is_shown():
    with serving(Blocks(TREE)) as server:
        records, partial = read(blocks_of(server.url))
        assert [one["id"] for one in records if one["id"] != "d"] == [
            *("a", "b", "c", "a1", "a2", "a3", "a2x", "c1")
        ]
        assert {one["id"] for one in records} >= {"d"} and partial == set()
        # Two for each long list, one for each other, and one for the pages.
        asked = [one.path for one in server.requests]
        assert len(asked) == 8 and asked.count("/blocks/a/children") == 2


def test_each_record_knows_the_one_above_it(tmp_path):
    kb = str(tmp_path / "kb.lance")
    with serving(Blocks(TREE)) as server:
        ingest(blocks_of(server.url), kb, embed_dim=4)
    parents = {
        str(one.unique_id).rpartition("#")[2]: [
            link["target_id"].rpartition("#")[2] for link in one.metadata["relationships"]
        ]
        for one in FrameDataset.open(kb)
    }
    assert parents["a2x"] == ["a2"] and parents["a2"] == ["a"] and parents["a"] == ["page1"]


def test_what_lies_too_deep_makes_the_run_partial_and_is_named():
    with serving(Blocks(TREE)) as server:
        records, partial = read(blocks_of(server.url, depth=2))
    assert "a2x" not in {one["id"] for one in records}
    (reason,) = partial
    assert "what lies below a2 was not read, because it is deeper than 2" in reason


def test_a_circle_is_read_once():
    with serving(Blocks({"page1": ["a"], "a": ["b"], "b": ["a", "b"]})) as server:
        records, partial = read(blocks_of(server.url))
        assert [one["id"] for one in records] == ["a", "b", "a", "b"]
        assert len(server.requests) == 4 and partial == set()


def test_a_block_that_is_gone_becomes_a_letter_and_the_others_are_read():
    blocks = Blocks(TREE)
    blocks.hidden = {"a"}
    with serving(blocks) as server:
        connector = blocks_of(server.url)
        connector.authenticate()
        pages = list(Source(connector).pages())
    assert "c1" in {item["id"] for page in pages for item in page.items}
    (letter,) = [letter for page in pages for letter in page.failures]
    assert "404" in letter.message and "below a" in letter.position


def test_a_limit_ends_a_tree_and_says_so():
    with serving(Blocks(TREE)) as server:
        connector = blocks_of(server.url)
        connector.authenticate()
        pages = list(Source(connector, {"max_items": 4}).pages())
    of_first = [item["id"] for page in pages for item in page.items if item["id"] != "d"]
    assert of_first == ["a", "b", "c", "a1"]
    assert any("cut blocks short" in page.narrowed for page in pages)


def test_without_a_parent_there_is_nothing_to_recurse_from():
    with pytest.raises(ConfigError, match="recurse needs a parent"):
        APIConnector("https://x.example", resources=[{"name": "blocks", "recurse": {}}])
