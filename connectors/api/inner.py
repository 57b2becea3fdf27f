"""What lies below records: lists inside a GraphQL record, and records below records of their kind.

A list inside a record that goes on is read to its end by a query of its own, each with its own
cursor. Records whose children are of the same resource, such as the blocks of a page, make a tree,
which is read from the top, one node after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from contextframe_beam.connectors.api.answer import Answer
from contextframe_beam.connectors.api.config import InnerList, Recursion, Resource
from contextframe_beam.connectors.api.graphql import goes_on, objects_in
from contextframe_beam.connectors.api.incremental import Scope
from contextframe_beam.connectors.api.mapping import UNIQUE_ID, FieldCondition
from contextframe_beam.connectors.api.resource import Endpoint
from contextframe_beam.connectors.http.request import HttpRequest
from contextframe_beam.connectors.mapper import as_text, lookup
from contextframe_beam.errors import ConnectorError

_LISTS = ("nodes", "edges")

#: Sends a request for a scope, and returns the answer.
Ask = Callable[[Endpoint, Scope, HttpRequest], Answer]


def follow(ask: Ask, endpoint: Endpoint, scope: Scope, records: list[Any]) -> None:
    """Reads the lists inside records to their ends, as `inner` of their resource says.

    The elements are added to the lists where they are. A list of which the server does not give the
    rest stays as it is, so that the run is partial and names it.

    Args:
        ask: Sends a request.
        endpoint: The resource.
        scope: What is read.
        records: The records of an answer.

    Raises:
        ConnectorError: a request fails, or a list would never end.
    """
    inner = endpoint.resource.inner
    # Lists inside lists come last, when all of their owners are there.
    for path in sorted(inner, key=lambda one: one.count(".")):
        steps = path.split(".")
        for record in records:
            for owner, held in _owners(record, steps):
                _follow_one(ask, endpoint, scope, inner[path], owner, held, path)


def _owners(value: Any, steps: list[str]) -> Iterator[tuple[Mapping[str, Any], dict[str, Any]]]:
    """Yields the lists at a path, each after the object that holds it."""
    pending: list[tuple[Any, Any, list[str]]] = [(None, value, steps)]
    while pending:
        owner, here, left = pending.pop()
        if isinstance(here, list):
            pending += [(owner, one, left) for one in reversed(here)]
        elif isinstance(here, dict) and left:
            # An edge or a list is on the way, and no owner.
            above = owner if left[0] in (*_LISTS, "node") else here
            pending.append((above, here.get(left[0]), left[1:]))
        elif isinstance(here, dict) and isinstance(owner, Mapping):
            yield owner, here


def _follow_one(
    ask: Ask,
    endpoint: Endpoint,
    scope: Scope,
    inner: InnerList,
    owner: Mapping[str, Any],
    held: dict[str, Any],
    path: str,
) -> None:
    kept = next((name for name in _LISTS if isinstance(held.get(name), list)), None)
    known = {name: lookup(owner, field) for name, field in inner.variables.items()}
    missing = [inner.variables[name] for name, value in known.items() if value in (None, "")]
    seen: set[str] = set()
    while kept is not None and (cursor := _next_cursor(held)) and not missing:
        if cursor in seen:
            raise ConnectorError(
                f"{endpoint.resource.name}: {path} of {_shown(known)} gave the cursor {cursor} a "
                "second time, so reading would never end; let its query take the cursor as "
                f"${inner.variable}"
            )
        seen.add(cursor)
        asked = _request(endpoint, scope, inner, {**known, inner.variable: cursor})
        more = _list_in(ask(endpoint, scope, asked).data, kept)
        if more is None:
            return
        held[kept] += more[kept]
        held["pageInfo"] = more["pageInfo"]


def _next_cursor(held: Mapping[str, Any]) -> str:
    info = held.get("pageInfo")
    if not isinstance(info, Mapping) or not goes_on(held) or not info.get("hasNextPage"):
        return ""
    return as_text(info.get("endCursor")) or ""


def _request(
    endpoint: Endpoint, scope: Scope, inner: InnerList, variables: Mapping[str, Any]
) -> HttpRequest:
    request = endpoint.request(scope)
    body = request.json if isinstance(request.json, Mapping) else {}
    asked = {**body, "query": inner.query, "variables": {**variables}}
    sent = HttpRequest(
        "POST",
        request.url,
        headers=request.headers,
        json=asked,
        safe_to_repeat=True,
        judge=request.judge,
    )
    return endpoint.for_origin(sent)


def _list_in(data: Any, kept: str) -> Mapping[str, Any] | None:
    """Returns the outermost list with pages in an answer."""
    found = [
        (len(path), one)
        for path, one in objects_in(data)
        if isinstance(one.get(kept), list) and isinstance(one.get("pageInfo"), Mapping)
    ]
    return min(found, key=lambda pair: pair[0])[1] if found else None


def _shown(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {as_text(value)}" for name, value in values.items())


@dataclass(frozen=True, slots=True)
class Node:
    """A record whose children are read.

    Attributes:
        values: The fields that requests and records of its children need.
        depth: How many records lie above it.
        name: What it is called in messages.
    """

    values: Mapping[str, Any]
    depth: int
    name: str


@dataclass(slots=True)
class Tree:
    """The records below one record of the parent, as far as they are known.

    Attributes:
        pending: The nodes to read, the next one last.
        found: Those below the node that is read now, in the order of its records.
        seen: The nodes that were met, so that none is read twice.
    """

    pending: list[Node] = field(default_factory=list)
    found: list[Node] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def add(
        self,
        resource: Resource,
        records: list[Any],
        above: Node | None,
        parent: Mapping[str, Any],
        unique_id: Callable[[Mapping[str, Any]], str | None],
    ) -> str:
        """Adds those of some records that have children.

        Args:
            resource: Their resource.
            records: Records of one page.
            above: The node that they lie below; None at the top.
            parent: The fields of the record that they lie below.
            unique_id: Returns the id of a record's document.

        Returns:
            Why some of them are not read; empty if all are.
        """
        recursion = resource.recurse
        if recursion is None:
            return ""
        depth = 1 if above is None else above.depth + 1
        found = []
        for record in filter(_has_children(recursion), records):
            values = {name: _value(record, parent, name) for name in resource.needed_of_parent}
            needed = [as_text(values[name]) for name in resource.parent_fields]
            name = "/".join(one or "" for one in needed)
            if all(needed) and name not in self.seen:
                self.seen.add(name)
                found.append(Node({**values, UNIQUE_ID: unique_id(record)}, depth, name))
        if found and depth >= recursion.depth:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            return (
                f"what lies below {found[0].name}{more} was not read, because it is deeper than "
                f"{recursion.depth}; raise recurse.depth"
            )
        self.found += found
        return ""

    def next(self) -> Node | None:
        """Returns the node to read after the present one, whose nodes come before the others."""
        self.pending += reversed(self.found)
        self.found.clear()
        return self.pending.pop() if self.pending else None


def _has_children(recursion: Recursion) -> Callable[[Any], bool]:
    when = None if recursion.when is None else FieldCondition(recursion.when)

    def has(record: Any) -> bool:
        return isinstance(record, Mapping) and (when is None or bool(when(record)))

    return has


def _value(record: Mapping[str, Any], parent: Mapping[str, Any], name: str) -> Any:
    if name.startswith("parent."):
        return parent.get(name.removeprefix("parent."))
    return lookup(record, name)
