"""A workspace of Notion, as its HTTP API shows it to an integration.

Reference: https://developers.notion.com/reference. An answer holds 100 objects at most, and says
how the next ones are asked for.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from contextframe_beam.connectors.http.client import HttpClient
from contextframe_beam.connectors.http.judges import usual
from contextframe_beam.connectors.http.request import HttpError, HttpRequest, HttpResponse
from contextframe_beam.connectors.http.retry import Verdict, Wait
from contextframe_beam.connectors.notion.blocks import CHILDREN, OTHER_DOCUMENTS
from contextframe_beam.connectors.notion.properties import title_of
from contextframe_beam.connectors.notion.rich_text import page_id
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import ConnectorError

#: The most objects of an answer.
PAGE_SIZE = 100

#: The first version that gives a page as Markdown.
MARKDOWN_VERSION = "2026-03-11"


_CAPABILITIES = {"/v1/comments": "comments", "/v1/users": "user information"}
# What of a workspace is remembered: the titles and parents of so many objects.
_REMEMBERED = 1000
_MOST_PARENTS = 100
_T = TypeVar("_T")


class NotionError(HttpError):
    """A refusal by Notion.

    Attributes:
        code: Notion's name for it, as in `object_not_found`.
    """

    def __init__(self, message: str, status: int, code: str) -> None:
        super().__init__(message, status)
        self.code = code

    @property
    def is_missing(self) -> bool:
        """Whether there is no such object, or the integration may not see it."""
        return self.code == "object_not_found"

    @property
    def is_restricted(self) -> bool:
        """Whether the integration lacks a capability."""
        return self.code == "restricted_resource"


def judged(response: HttpResponse) -> Verdict:
    """Judges an answer of Notion by the code that its refusals have."""
    if response.status not in (400, 403, 404, 409):
        return usual(response)
    try:
        told = response.json()
    except ConnectorError:
        return usual(response)
    code = told.get("code") if isinstance(told, Mapping) else None
    if not isinstance(code, str):
        return usual(response)
    if response.status == 409:
        return Wait(reason="a conflict with another change")
    asked = f"{response.sent.method} {response.url}"
    message = f"{asked} answered {response.status} {code}: {told.get('message', '')}"
    if code == "restricted_resource":
        path = response.url
        needed = next((name for part, name in _CAPABILITIES.items() if part in path), "content")
        message += (
            f"; give the integration the capability to read {needed}, under Configuration in its "
            "settings at Notion"
        )
    return NotionError(redact(message), response.status, code)


@dataclass(frozen=True)
class Listed:
    """One answer of a list.

    Attributes:
        results: The objects.
        following: The cursor of the next answer; None after the last.
        is_cut: Whether Notion says that it leaves out the rest.
        at: When Notion answered, by its clock, as the header Date has it; "" without one.
    """

    results: list[dict[str, Any]]
    following: str | None
    is_cut: bool
    at: str


class Workspace:
    """Asks Notion, and remembers names, titles and parents.

    Args:
        client: Sends the requests.
        version: The value of the header Notion-Version.
        max_depth: How deep blocks may lie in blocks.
        tell: Is told once of what cannot be read, and why.
    """

    def __init__(
        self, client: HttpClient, version: str, max_depth: int, tell: Callable[[str, str], object]
    ) -> None:
        self._client = client
        self._version = version
        self._max_depth = max_depth
        self._tell = tell
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Forgets names, titles and parents, which may be others in the next run."""
        with self._lock:
            self._people: dict[str, str | None] | None = None
            self._titles: OrderedDict[str, str | None] = OrderedDict()
            self._parents: OrderedDict[str, tuple[str, str] | None] = OrderedDict()

    def me(self) -> dict[str, Any]:
        """Returns the integration's own user."""
        return self._asked("GET", "users/me")

    def search(self, kind: str, cursor: str | None) -> Listed:
        """Returns pages or data sources, those first that were edited last.

        Args:
            kind: `page` or `data_source`.
            cursor: The `following` of the answer before.
        """
        body = {
            "filter": {"property": "object", "value": kind},
            "sort": {"timestamp": "last_edited_time", "direction": "descending"},
            "page_size": PAGE_SIZE,
            **({"start_cursor": cursor} if cursor else {}),
        }
        return self._listed("POST", "search", body)

    def query(
        self, source: str, since: str | None, cursor: str | None, in_trash: bool = False
    ) -> Listed:
        """Returns rows of a data source.

        The description of the API knows no order by time here. None is needed: the state is from
        before the reading, so that the next run sees again what is edited meanwhile.

        Args:
            source: Its id.
            since: Only those edited at this time or later.
            cursor: The `following` of the answer before.
            in_trash: Only those in the trash, in place of the others.
        """
        edited = {"timestamp": "last_edited_time", "last_edited_time": {"on_or_after": since}}
        body = {
            "page_size": PAGE_SIZE,
            **({"filter": edited} if since else {}),
            **({"start_cursor": cursor} if cursor else {}),
            **({"in_trash": True} if in_trash else {}),
        }
        return self._listed("POST", f"data_sources/{source}/query", body)

    def page(self, identifier: str) -> dict[str, Any]:
        """Returns a page or a row, also one in the trash."""
        return self._remembered(self._asked("GET", f"pages/{identifier}"))

    def database(self, identifier: str) -> dict[str, Any]:
        """Returns a database, with the names of its data sources."""
        return self._remembered(self._asked("GET", f"databases/{identifier}"))

    def data_source(self, identifier: str) -> dict[str, Any]:
        """Returns a data source."""
        return self._remembered(self._asked("GET", f"data_sources/{identifier}"))

    def block(self, identifier: str) -> dict[str, Any]:
        """Returns a block, without those below it."""
        return self._remembered(self._asked("GET", f"blocks/{identifier}"))

    def markdown(self, identifier: str) -> dict[str, Any]:
        """Returns a page as Markdown that Notion makes."""
        version = max(self._version, MARKDOWN_VERSION)
        return self._asked(
            "GET", f"pages/{identifier}/markdown", headers={"Notion-Version": version}
        )

    def comments(self, identifier: str) -> Iterator[dict[str, Any]]:
        """Yields the open comments on a page or a block."""
        return self._all("comments", block_id=identifier)

    def property_items(self, page: str, identifier: str) -> Iterator[dict[str, Any]]:
        """Yields the parts of a property of which a page shows only the first."""
        # Ids come encoded for an address already.
        return self._all(f"pages/{page}/properties/{identifier}")

    def tree(self, identifier: str) -> list[dict[str, Any]]:
        """Returns the blocks of a page, each with those below it under `children`.

        What is deeper than `max_depth`, or lies in itself, is said in a block at its place.

        Raises:
            NotionError: the page is not there, or may not be read.
        """
        return self._below(identifier, 0, frozenset({identifier}))

    def user(self, identifier: str) -> str | None:
        """Returns the name of a person or a bot; None where the integration may not know it."""
        with self._lock:
            if self._people is None:
                self._people = self._listed_people()
            return self._people.get(identifier)

    def title(self, identifier: str) -> str | None:
        """Returns the title of a page; None where it has none, or may not be seen."""
        return self._once(self._titles, identifier, lambda: self._found_title(identifier))

    def parent(self, identifier: str, kind: str) -> tuple[str, str] | None:
        """Returns the kind and the id of what a page, block, data source or database lies in.

        Args:
            identifier: Its id.
            kind: `page`, `block`, `data_source` or `database`.

        Returns:
            None at the top of the workspace, and where it may not be seen.
        """
        ask = {
            "page": self.page,
            "block": self.block,
            "data_source": self.data_source,
            "database": self.database,
        }.get(kind)

        def asked() -> tuple[str, str] | None:
            found = None if ask is None else self._if_seen(ask, identifier)
            return None if found is None else parent_of(found)

        return self._once(self._parents, identifier, asked)

    def above(self, found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yields kind and id of what an object lies in, from the nearest to the top.

        Args:
            found: A page, row, data source, database or block.
        """
        at = parent_of(found)
        for _ in range(_MOST_PARENTS):
            if at is None:
                return
            yield at
            at = self.parent(at[1], at[0])

    def page_of(self, kind: str, identifier: str) -> tuple[str, str] | None:
        """Returns the document that a block is in: a page, a data source or a database."""
        at: tuple[str, str] | None = (kind, identifier)
        for _ in range(_MOST_PARENTS):
            if at is None or at[0] != "block":
                return at
            at = self.parent(at[1], at[0])
        return None

    def remember(self, found: Mapping[str, Any]) -> None:
        """Remembers the title and the parent of an object, so that nobody has to ask for them."""
        self._remembered(found)

    def _below(self, identifier: str, depth: int, above: frozenset[str]) -> list[dict[str, Any]]:
        blocks: list[dict[str, Any]] = []
        try:
            for one in self._all(f"blocks/{identifier}/children"):
                blocks.append(one)
        except NotionError as error:
            # Some new kinds of blocks make the API refuse them with all that follow.
            if error.code != "validation_error":
                raise
            blocks.append(_left_out(error.code))
        for block in blocks:
            kind, inner = block.get("type"), str(block.get("id"))
            if kind in OTHER_DOCUMENTS:
                continue
            below = self._inner_of(block, str(kind))
            if not below:
                continue
            if depth + 1 >= self._max_depth or inner in above:
                block[CHILDREN] = [_left_out("deeper blocks, left out")]
                continue
            block[CHILDREN] = [
                one for at in below for one in self._read_below(at, depth, above | {inner})
            ]
        return blocks

    def _read_below(
        self, identifier: str, depth: int, above: frozenset[str]
    ) -> list[dict[str, Any]]:
        """Returns the blocks below a block; one whose blocks cannot be had says so."""
        try:
            return self._below(identifier, depth + 1, above)
        except NotionError as error:
            if not error.is_missing:
                raise
            return [_left_out(error.code)]

    def _inner_of(self, block: Mapping[str, Any], kind: str) -> list[str]:
        """Returns the ids below which the blocks of a block stand."""
        told = block.get(kind)
        told = told if isinstance(told, Mapping) else {}
        if kind == "synced_block" and (origin := told.get("synced_from")) is not None:
            # The original is read where it is; a copy of what may not be seen is read itself.
            first = page_id(str(origin.get("block_id"))) if isinstance(origin, Mapping) else None
            if first is not None and self.page_of("block", first) is not None:
                return []
        if block.get("has_children") is True:
            return [str(block.get("id"))]
        parts = told.get(CHILDREN)
        if kind in ("meeting_notes", "transcription") and isinstance(parts, Mapping):
            names = ("summary_block_id", "notes_block_id", "transcript_block_id")
            return [str(parts[name]) for name in names if parts.get(name)]
        return []

    def _listed_people(self) -> dict[str, str | None]:
        try:
            found = [*self._all("users")]
        except NotionError as error:
            if not error.is_restricted:
                raise
            self._tell("people", f"{error}. Ids stand in the place of names")
            return {}
        return {str(one.get("id")): one.get("name") for one in found}

    def _found_title(self, identifier: str) -> str | None:
        found = self._if_seen(self.page, identifier)
        return None if found is None else title_of(found) or None

    def _if_seen(
        self, ask: Callable[[str], dict[str, Any]], identifier: str
    ) -> dict[str, Any] | None:
        try:
            return ask(identifier)
        except NotionError as error:
            if error.is_missing or error.code == "validation_error":
                return None
            raise

    def _remembered(self, found: Mapping[str, Any]) -> dict[str, Any]:
        identifier = str(found.get("id"))
        if found.get("object") == "page":
            self._keep(self._titles, identifier, title_of(found) or None)
        self._keep(self._parents, identifier, parent_of(found))
        above = parent_of(found)
        if "database_parent" in found and above is not None:
            self._keep(self._parents, above[1], parent_of({"parent": found["database_parent"]}))
        return dict(found)

    def _keep(self, kept: OrderedDict[str, _T], identifier: str, value: _T) -> None:
        with self._lock:
            kept[identifier] = value
            if len(kept) > _REMEMBERED:
                kept.popitem(last=False)

    def _once(
        self, kept: OrderedDict[str, _T | None], identifier: str, ask: Callable[[], _T | None]
    ) -> _T | None:
        with self._lock:
            if identifier in kept:
                return kept[identifier]
        value = ask()
        self._keep(kept, identifier, value)
        return value

    def _all(self, path: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Yields the objects of all answers of a list."""
        cursor: str | None = None
        seen: set[str] = set()
        while True:
            more = {**params, "page_size": PAGE_SIZE, "start_cursor": cursor}
            listed = self._listed("GET", path, params=more)
            yield from listed.results
            cursor = listed.following
            if cursor is None:
                return
            if cursor in seen:
                raise ConnectorError(
                    f"notion: {path} gave the cursor {cursor!r} twice, so it would never end"
                )
            seen.add(cursor)

    def _listed(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Listed:
        response = self._sent(method, path, body, params)
        told = response.json()
        results = told.get("results") if isinstance(told, Mapping) else None
        if not isinstance(results, list):
            raise response.error("is no list of objects of Notion; check base_url")
        following = told.get("next_cursor") if told.get("has_more") is not False else None
        status = told.get("request_status")
        return Listed(
            [one for one in results if isinstance(one, dict)],
            following if isinstance(following, str) and following else None,
            isinstance(status, Mapping) and status.get("type") == "incomplete",
            response.headers.get("Date") or "",
        )

    def _asked(
        self, method: str, path: str, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        response = self._sent(method, path, headers=headers)
        told = response.json()
        if not isinstance(told, dict):
            raise response.error("is no object of Notion; check base_url")
        return told

    def _sent(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HttpResponse:
        return self._client.send(
            HttpRequest(
                method,
                f"v1/{path}",
                params or {},
                {"Notion-Version": self._version, **(headers or {})},
                json=body,
                # Searching and querying change nothing.
                safe_to_repeat=True,
                judge=judged,
            )
        )


def _left_out(why: str) -> dict[str, Any]:
    """Returns a block in the place of others, which says why these are not there."""
    return {"type": "unsupported", "unsupported": {"block_type": why}}


def parent_of(found: Mapping[str, Any]) -> tuple[str, str] | None:
    """Returns the kind and the id of what an object lies in; None at the top of the workspace."""
    parent = found.get("parent")
    if not isinstance(parent, Mapping):
        return None
    kind = str(parent.get("type"))
    identifier = page_id(str(parent.get(kind)))
    return (kind.removesuffix("_id"), identifier) if identifier is not None else None
