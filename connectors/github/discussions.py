"""Discussions with their comments and replies, by GraphQL: GitHub has no other list of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

#: A query costs by the nodes that it may give, so most discussions come whole and long ones go on.
DISCUSSIONS, COMMENTS, REPLIES = 25, 50, 20

_COMMENT = "id databaseId body url createdAt updatedAt isAnswer author { login }"
_PAGE = "pageInfo { hasNextPage endCursor }"
_FIRST_REPLIES = f"replies(first: {REPLIES}) {{ {_PAGE} nodes {{ {_COMMENT} }} }}"
_LIMIT = "rateLimit { cost remaining resetAt }"

_DISCUSSIONS = f"""query($owner: String!, $name: String!, $after: String) {{
  {_LIMIT}
  repository(owner: $owner, name: $name) {{
    discussions(
      first: {DISCUSSIONS}, after: $after, orderBy: {{field: UPDATED_AT, direction: DESC}}
    ) {{
      {_PAGE}
      nodes {{
        id number title body url createdAt updatedAt closedAt author {{ login }}
        category {{ name }} answer {{ id }} labels(first: 100) {{ nodes {{ name }} }}
        comments(first: {COMMENTS}) {{ {_PAGE} nodes {{ {_COMMENT} {_FIRST_REPLIES} }} }}
      }}
    }}
  }}
}}"""
_MORE_COMMENTS = f"""query($id: ID!, $after: String) {{
  {_LIMIT}
  node(id: $id) {{ ... on Discussion {{
    more: comments(first: 100, after: $after) {{ {_PAGE} nodes {{ {_COMMENT} {_FIRST_REPLIES} }} }}
  }} }}
}}"""
_MORE_REPLIES = f"""query($id: ID!, $after: String) {{
  {_LIMIT}
  node(id: $id) {{ ... on DiscussionComment {{
    more: replies(first: 100, after: $after) {{ {_PAGE} nodes {{ {_COMMENT} }} }}
  }} }}
}}"""

#: Sends a query with its variables, and returns the data.
Ask = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]


@dataclass
class DiscussionPage:
    """A page of discussions.

    Attributes:
        discussions: Discussions that changed, the newest first, each with its comments.
        cursor: The next page; None on the last.
        changed: When each of them changed, and those that are known, by their numbers.
    """

    discussions: list[tuple[dict[str, Any], list[dict[str, Any]]]]
    cursor: str | None
    changed: dict[str, str]


def discussion_page(
    ask: Ask, owner: str, name: str, after: str | None, since: str | None, read: Mapping[str, str]
) -> DiscussionPage | None:
    """Reads a page of discussions, and all of their comments and replies.

    Args:
        ask: Sends a query.
        owner: The owner of the repository.
        name: The repository's name.
        after: The cursor of the page before.
        since: What changed before this is known.
        read: Which are known although they changed later, each with the time of that change.

    Returns:
        The page; None where the repository cannot be seen.
    """
    data = ask(_DISCUSSIONS, {"owner": owner, "name": name, "after": after})
    repository = data.get("repository")
    if not repository:
        return None
    found = repository["discussions"]
    nodes = [one for one in found["nodes"] or () if one]
    kept = [one for one in nodes if not since or one["updatedAt"] >= since]
    new = [one for one in kept if read.get(str(one["number"])) != one["updatedAt"]]
    told = [(one, list(_comments(ask, one))) for one in new]
    has_more = found["pageInfo"]["hasNextPage"] and len(kept) == len(nodes)
    return DiscussionPage(
        [({**one, "comments": None}, comments) for one, comments in told],
        found["pageInfo"]["endCursor"] if has_more else None,
        {str(one["number"]): one["updatedAt"] for one in kept},
    )


def _comments(ask: Ask, discussion: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for comment in _followed(ask, _MORE_COMMENTS, discussion["id"], discussion["comments"]):
        replies = comment.pop("replies", None) or {"nodes": [], "pageInfo": {}}
        yield {**comment, "_discussion": discussion["number"]}
        for reply in _followed(ask, _MORE_REPLIES, comment["id"], replies):
            told = {"_discussion": discussion["number"], "_reply_to": comment["databaseId"]}
            yield {**reply, **told}


def _followed(ask: Ask, query: str, id: str, first: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the nodes of a connection to its end."""
    page = first
    while True:
        yield from (dict(one) for one in page["nodes"] or () if one)
        if not page["pageInfo"].get("hasNextPage"):
            return
        data = ask(query, {"id": id, "after": page["pageInfo"]["endCursor"]})
        page = (data.get("node") or {}).get("more") or {"nodes": [], "pageInfo": {}}
