"""A workspace of Notion as an integration sees it.

Requests are checked against the OpenAPI document that Notion publishes, answers against the types
of its own client. The world is faithful in what a connector trips over: a hundred objects a page;
times of edits in whole minutes; trees of blocks of which each level is asked for by itself; 25
parts of a long property; what is not shared is not found; search without what is in the trash;
signed addresses of files, on another host and for an hour; capabilities; three requests a second.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

from tests.worlds.described import Answer, Asked, Window, World
from tests.worlds.file_host import FileHost
from tests.worlds.notion_blocks import block, text, uid
from tests.worlds.openapi import DESCRIPTIONS, JsonTypes, OpenApi

TOKEN = "ntn_reader_0123456789"
ANSWERS = {
    "/v1/users/me": "GetSelfResponse",
    "/v1/users": "ListUsersResponse",
    "/v1/search": "SearchResponse",
    "/v1/blocks/{block_id}": "BlockObjectResponse",
    "/v1/blocks/{block_id}/children": "ListBlockChildrenResponse",
    "/v1/pages/{page_id}": "GetPageResponse",
    "/v1/pages/{page_id}/markdown": "GetPageMarkdownResponse",
    "/v1/comments": "ListCommentsResponse",
    "/v1/data_sources/{data_source_id}": "GetDataSourceResponse",
    "/v1/data_sources/{data_source_id}/query": "QueryDataSourceResponse",
    "/v1/databases/{database_id}": "GetDatabaseResponse",
}
PARTS = 25
_ERRORS = {400, 401, 403, 404, 409, 429, 500, 529}


class NotionDescription:
    """What Notion publishes: requests by OpenAPI, answers by the types of its client."""

    def __init__(self) -> None:
        types = json.loads((DESCRIPTIONS / "notion.types.json").read_text(encoding="utf-8"))
        self.requests = OpenApi.read("notion.openapi.json")
        self.types = JsonTypes(types)
        self.definitions: Mapping[str, Any] = types["definitions"]

    def find(self, method: str, path: str) -> tuple[str, dict[str, str]]:
        """Returns the path in the description and its values."""
        return self.requests.find(method, path)

    def request_problems(self, asked: Asked) -> list[str]:
        """Returns what is wrong with a request, in words."""
        found = self.requests.request_problems(asked)
        if "notion-version" not in asked.headers:
            found.append("header Notion-Version is missing")
        return found

    def answer_problems(self, asked: Asked, answer: Answer) -> list[str]:
        """Returns what is wrong with an answer, in words."""
        if answer.status in _ERRORS:
            names = {"object", "status", "code", "message", "request_id"}
            return [] if set(answer.body) == names else ["answer: it is no error of Notion"]
        name = ANSWERS.get(asked.template)
        return self.types.problems(name, answer.body) if name else []


DESCRIPTION = NotionDescription()


class NotionWorld(World):
    """A workspace, which a test fills and edits.

    Attributes:
        now: Seconds since 1970, by the workspace's clock; each edit moves it seven seconds.
        objects: Pages, rows, databases and data sources by their ids.
        blocks: All blocks by their ids.
        below: The ids of the blocks in a page or block, in order.
        comments: The comments on a page or block.
        hidden: The ids of objects that are not shared with the integration.
        capabilities: What the integration may do.
        limit: The limit of requests, if there is one.
        late: The ids of pages that search does not show yet.
    """

    description = DESCRIPTION

    def __init__(self) -> None:
        self.now = 1_767_225_600
        self.objects: dict[str, dict[str, Any]] = {}
        self.blocks: dict[str, dict[str, Any]] = {}
        self.below: dict[str, list[str]] = {}
        self.comments: dict[str, list[dict[str, Any]]] = {}
        self.hidden: set[str] = set()
        self.late: set[str] = set()
        self.capabilities = {"content", "comments", "people"}
        self.limit: Window | None = None
        self.tokens = {TOKEN}
        self.long: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self._number = 0
        self._lists: dict[Any, tuple[Any, list[dict[str, Any]], dict[str, int]]] = {}
        self._signed = 0
        self._uploads: dict[str, str] = {}
        self.files = FileHost()
        self.people = [self._person("Ada"), self._person("Bob")]
        self.bot = {
            "object": "user",
            "id": uid(950),
            "name": "Reader",
            "avatar_url": None,
            "type": "bot",
            "bot": {
                "owner": {"type": "workspace", "workspace": True},
                "workspace_id": uid(1),
                "workspace_limits": {"max_file_upload_size_in_bytes": 5 << 20},
                "workspace_name": "Acme",
            },
        }
        super().__init__()

    def close(self) -> None:
        """Stops the servers."""
        super().close()
        self.files.close()

    def page(
        self,
        title: str,
        parent: Mapping[str, Any] | str | None = None,
        blocks: Sequence[Mapping[str, Any]] = (),
        properties: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> str:
        """Adds a page, or a row of a data source, and returns its id.

        Args:
            title: Its title.
            parent: The id of a page or a data source; the workspace by default.
            blocks: Its blocks.
            properties: Those besides the title.
            **more: What else the page has: `icon={...}`.
        """
        identifier = self._next()
        at = self._tick()
        self.objects[identifier] = {
            "object": "page",
            "id": identifier,
            **self._known(at),
            "cover": None,
            "icon": None,
            "parent": self._parent(parent),
            "is_archived": False,
            "is_locked": False,
            "properties": {
                "Name": {"id": "title", "type": "title", "title": [text(title)]},
                **(properties or {}),
            },
            "url": f"https://www.notion.so/{title.replace(' ', '-')}-{identifier.replace('-', '')}",
            "public_url": None,
            **more,
        }
        self.add(identifier, *blocks)
        return identifier

    def data_source(
        self, title: str, parent: str | None = None, properties: Sequence[str] = (), about: str = ""
    ) -> str:
        """Adds a database with one data source, and returns the id of that.

        Args:
            title: The title of both.
            parent: The id of a page; the workspace by default.
            properties: The names of text properties of its rows.
            about: What people wrote of it.
        """
        database, identifier = self._next(), self._next()
        at = self._tick()
        above = self._parent(parent)
        description = [text(about)] if about else []
        shared = {"cover": None, "icon": None, "is_inline": False, "public_url": None}
        known = self._known(at)
        self.objects[database] = {
            "object": "database",
            "id": database,
            **{name: known[name] for name in ("created_time", "last_edited_time")},
            "archived": False,
            "in_trash": False,
            **shared,
            "title": [text(title)],
            "description": description,
            "parent": above,
            "is_locked": False,
            "data_sources": [{"id": identifier, "name": title}],
            "url": f"https://www.notion.so/{database.replace('-', '')}",
        }
        told = {
            name: {"id": name[:3], "name": name, "type": "rich_text", "rich_text": {}}
            for name in properties
        }
        self.objects[identifier] = {
            "object": "data_source",
            "id": identifier,
            **known,
            **shared,
            "title": [text(title)],
            "description": description,
            "parent": {"type": "database_id", "database_id": database},
            "database_parent": above,
            "properties": {
                name: {"description": None, **one}
                for name, one in {
                    "Name": {"id": "title", "name": "Name", "type": "title", "title": {}},
                    **told,
                }.items()
            },
            "url": f"https://www.notion.so/{database.replace('-', '')}",
        }
        return identifier

    def add(self, parent: str, *blocks: Mapping[str, Any]) -> list[str]:
        """Adds blocks below a page or a block, and returns their ids."""
        made = []
        for one in blocks:
            identifier = self._next()
            owner = "page_id" if parent in self.objects else "block_id"
            below = one.get("children", ())
            self.blocks[identifier] = {
                **{name: value for name, value in one.items() if name != "children"},
                "id": identifier,
                "parent": {"type": owner, owner: parent},
                **self._known(self._time()),
                "has_children": bool(below),
            }
            self.below.setdefault(parent, []).append(identifier)
            if parent in self.blocks:
                self.blocks[parent]["has_children"] = True
            self.add(identifier, *below)
            made.append(identifier)
        return made

    def comment(self, on: str, said: str, thread: str | None = None, **more: Any) -> str:
        """Adds a comment to a page or a block, which moves no time of it, and returns its id."""
        identifier = self._next()
        at = self._tick()
        owner = "page_id" if on in self.objects else "block_id"
        known = self._known(at)
        self.comments.setdefault(on, []).append(
            {
                "object": "comment",
                "id": identifier,
                "parent": {"type": owner, owner: on},
                "discussion_id": thread or identifier,
                **{n: known[n] for n in ("created_time", "last_edited_time", "created_by")},
                "rich_text": [text(said)],
                "display_name": {"type": "user", "resolved_name": "Bob"},
                **more,
            }
        )
        return identifier

    def edit(self, page: str, said: str, seconds: float = 7) -> None:
        """Adds a paragraph to a page, as a person does in the app."""
        self._tick(seconds)
        self.add(page, block("paragraph", said))
        self.objects[page]["last_edited_time"] = self._time()

    def edit_block(self, identifier: str, said: str, by_api: bool = False) -> None:
        """Changes the text of a block; through the API, its page's time may stay."""
        self._tick()
        one = self.blocks[identifier]
        one[one["type"]]["rich_text"] = [text(said)]
        one["last_edited_time"] = self._time()
        at = one["parent"]
        while at["type"] == "block_id":
            at = self.blocks[at["block_id"]]["parent"]
        if not by_api:
            self.objects[at["page_id"]]["last_edited_time"] = self._time()

    def trash(self, identifier: str) -> None:
        """Puts a page or row into the trash."""
        self._tick()
        self.objects[identifier].update(
            in_trash=True, archived=True, is_archived=True, last_edited_time=self._time()
        )

    def upload(self, name: str, data: bytes) -> str:
        """Keeps a file, and returns what stands for its signed address in blocks and properties."""
        path = f"/{uid(1)}/{self._next()}/{name}"
        self.files.files[path] = data
        return f"upload:{path}"

    def sent(self, path: str) -> int:
        """Returns how many requests went to paths that a pattern matches."""
        return sum(re.fullmatch(path, one.asked.path) is not None for one in self.served)

    @contextmanager
    def limited(self, per_second: int = 3) -> Iterator[None]:
        """Switches on Notion's limit of requests."""
        self.limit = Window(per_second, 1.0)
        yield
        self.limit = None

    def answer(self, asked: Asked) -> Answer:
        """Answers a request."""
        answer = self._allowed(asked) or self._content(asked)
        answer.headers.setdefault("Date", self._date())
        return answer

    def unknown(self, asked: Asked) -> Answer:
        """Answers a request that the description does not have."""
        return self._fail(400, "invalid_request_url", "Invalid request URL.")

    def _allowed(self, asked: Asked) -> Answer | None:
        if asked.bearer not in self.tokens:
            return self._fail(401, "unauthorized", "API token is invalid.")
        if "notion-version" not in asked.headers:
            return self._fail(400, "missing_version", "Notion-Version header failed validation")
        wait = self.limit.wait() if self.limit else 0.0
        if wait:
            refused = self._fail(429, "rate_limited", "You have been rate limited.")
            refused.headers["Retry-After"] = str(max(1, round(wait + 0.5)))
            return refused
        needed = {"/v1/comments": "comments", "/v1/users": "people"}.get(asked.template, "content")
        if asked.template != "/v1/users/me" and needed not in self.capabilities:
            return self._fail(403, "restricted_resource", f"Insufficient permissions: {needed}")
        size = asked.query.get("page_size") or (asked.body or {}).get("page_size") or 100
        if not 1 <= int(size) <= 100:
            return self._fail(400, "validation_error", "page_size should be at most 100")
        return None

    def _content(self, asked: Asked) -> Answer:
        body = asked.body or {}
        at = asked.params
        if asked.template == "/v1/users/me":
            return self._one(self.bot)
        if asked.template == "/v1/users":
            return self._list([*self.people, self.bot], asked.query, "user")
        if asked.template == "/v1/search":
            return self._search(body)
        if asked.template.endswith("/query"):
            return self._query(at["data_source_id"], body)
        if asked.template == "/v1/comments":
            on = asked.query.get("block_id", "")
            if not self._is_seen(on):
                return self._missing(on)
            return self._list(self.comments.get(on, []), asked.query, "comment")
        if asked.template.endswith("/children"):
            if not self._is_seen(at["block_id"]):
                return self._missing(at["block_id"])
            ids = self.below.get(at["block_id"], [])
            return self._list([self.blocks[one] for one in ids], asked.query, "block")
        if asked.template.endswith("/properties/{property_id}"):
            return self._property(at["page_id"], at["property_id"], asked.query)
        if asked.template.endswith("/markdown"):
            return self._markdown(at["page_id"])
        identifier = next(iter(at.values()))
        if asked.template == "/v1/blocks/{block_id}":
            found = self.blocks.get(identifier)
        else:
            kind = asked.template.split("/")[2].removesuffix("s")
            found = self.objects.get(identifier)
            found = found if found is not None and found["object"] == kind else None
        if found is None or not self._is_seen(identifier):
            return self._missing(identifier)
        return self._one(found)

    def _search(self, body: Mapping[str, Any]) -> Answer:
        kind = body.get("filter", {}).get("value", "page")
        descending = body.get("sort", {}).get("direction") != "ascending"

        def found() -> list[dict[str, Any]]:
            shown = [
                one
                for one in self.objects.values()
                if one["object"] == kind
                and not one["in_trash"]
                and one["id"] not in self.late
                and self._is_seen(one["id"])
            ]
            shown.sort(key=lambda one: (one["last_edited_time"], one["id"]), reverse=descending)
            return shown

        return self._long_list((kind, descending, len(self.late)), found, body)

    def _query(self, source: str, body: Mapping[str, Any]) -> Answer:
        if source not in self.objects or not self._is_seen(source):
            return self._missing(source)
        after = body.get("filter", {}).get("last_edited_time", {}).get("on_or_after", "")
        trash = bool(body.get("in_trash"))

        def found() -> list[dict[str, Any]]:
            return [
                one
                for one in self.objects.values()
                if one["parent"].get("data_source_id") == source
                and one["in_trash"] is trash
                and one["last_edited_time"] >= after
                and self._is_seen(one["id"])
            ]

        return self._long_list((source, after, trash), found, body)

    def _long_list(
        self, asked: Any, found: Callable[[], list[dict[str, Any]]], body: Mapping[str, Any]
    ) -> Answer:
        """Answers with a page of a list, which is made once for all pages while nothing changes."""
        state = (self.now, len(self.objects), len(self.hidden))
        kept = self._lists.get(asked)
        if kept is None or not body.get("start_cursor") or kept[0] != state:
            objects = found()
            places = {one["id"]: place for place, one in enumerate(objects)}
            kept = self._lists[asked] = (state, objects, places)
        return self._list(kept[1], body, "page_or_data_source", kept[2])

    def _property(self, page: str, identifier: str, query: Mapping[str, str]) -> Answer:
        properties = self.objects[page]["properties"].values()
        # Ids are written as they stand in an address.
        told = next((one for one in properties if unquote(one["id"]) == identifier), None)
        if told is None:
            return self._missing(identifier)
        kind = told["type"]
        items = [
            {"object": "property_item", "id": identifier, "type": kind, kind: one}
            for one in told[kind]
        ]
        return self._list(items, query, "property_item")

    def _markdown(self, page: str) -> Answer:
        if not self._is_seen(page):
            return self._missing(page)
        lines = []
        for one in map(self.blocks.__getitem__, self.below.get(page, [])):
            rich = one[one["type"]].get("rich_text", [])
            lines.append("".join(part["plain_text"] for part in rich))
        body = {
            "object": "page_markdown",
            "id": page,
            "markdown": "\n\n".join(lines),
            "truncated": False,
            "unknown_block_ids": [],
            "request_id": uid(2),
        }
        return Answer(body=body)

    def _list(
        self,
        found: Sequence[Any],
        query: Mapping[str, Any],
        kind: str,
        places: Mapping[str, int] | None = None,
    ) -> Answer:
        size = int(query.get("page_size") or 100)
        start = 0
        if cursor := query.get("start_cursor"):
            if places is None:
                named = (
                    str(n) if kind == "property_item" else one["id"] for n, one in enumerate(found)
                )
                places = {name: place for place, name in enumerate(named)}
            if cursor not in places:
                return self._fail(400, "validation_error", "The start_cursor provided is invalid")
            start = places[cursor]
        following = None
        if start + size < len(found):
            following = str(start + size) if kind == "property_item" else found[start + size]["id"]
        body = {
            "object": "list",
            "results": [self._shown(one) for one in found[start : start + size]],
            "next_cursor": following,
            "has_more": following is not None,
            "type": kind,
            kind: {},
            "request_id": uid(2),
        }
        return Answer(body=body)

    def _one(self, found: Mapping[str, Any]) -> Answer:
        return Answer(body={**self._shown(found), "request_id": uid(2)})

    def _shown(self, told: Any) -> Any:
        """Returns an object as an answer has it: 25 parts of a property, new signed addresses."""
        if isinstance(told, dict) and told.get("object") == "page":
            told = {**told, "properties": {n: _cut(p) for n, p in told["properties"].items()}}
        return self._signed_in(told)

    def _signed_in(self, told: Any) -> Any:
        if isinstance(told, dict):
            return {name: self._signed_in(one) for name, one in told.items()}
        if isinstance(told, list):
            return [self._signed_in(one) for one in told]
        if isinstance(told, str) and told.startswith("upload:"):
            self._signed += 1
            path = told.removeprefix("upload:")
            return (
                f"{self.files.url}{path}?X-Amz-Algorithm=AWS4-HMAC-SHA256"
                f"&X-Amz-Credential=AKIAWORLD&X-Amz-Signature=sig{self._signed:08d}"
            )
        return told

    def _is_seen(self, identifier: str) -> bool:
        at: Mapping[str, Any] | None = self.blocks.get(identifier) or self.objects.get(identifier)
        while at is not None:
            if at["id"] in self.hidden:
                return False
            parent = at["parent"]
            above = parent.get(parent["type"])
            at = None if above is True else self.blocks.get(above) or self.objects.get(above)
            if parent["type"] == "workspace":
                return True
        return False

    def _missing(self, identifier: str) -> Answer:
        return self._fail(404, "object_not_found", f"Could not find object with ID: {identifier}.")

    def _fail(self, status: int, code: str, message: str) -> Answer:
        body = {
            "object": "error",
            "status": status,
            "code": code,
            "message": message,
            "request_id": uid(2),
        }
        return Answer(status, body=body)

    def _parent(self, parent: Mapping[str, Any] | str | None) -> dict[str, Any]:
        if parent is None:
            return {"type": "workspace", "workspace": True}
        if not isinstance(parent, str):
            return dict(parent)
        if parent in self.blocks:
            return {"type": "block_id", "block_id": parent}
        found = self.objects[parent]
        if found["object"] == "data_source":
            database = found["parent"]["database_id"]
            return {"type": "data_source_id", "data_source_id": parent, "database_id": database}
        return {"type": "page_id", "page_id": parent}

    def _known(self, at: str) -> dict[str, Any]:
        return {
            "created_time": at,
            "last_edited_time": at,
            "created_by": {"object": "user", "id": self.people[0]["id"]},
            "last_edited_by": {"object": "user", "id": self.people[1]["id"]},
            "archived": False,
            "in_trash": False,
        }

    def _person(self, name: str) -> dict[str, Any]:
        return {
            "object": "user",
            "id": self._next(),
            "name": name,
            "avatar_url": None,
            "type": "person",
            "person": {"email": f"{name.lower()}@acme.test"},
        }

    def _next(self) -> str:
        self._number += 1
        return uid(0xF00000000000 + self._number)

    def _time(self) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:00.000Z", time.gmtime(self.now))

    def _date(self) -> str:
        return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(self.now))

    def _tick(self, seconds: float = 7) -> str:
        self.now += int(seconds)
        return self._time()


def _cut(told: Mapping[str, Any]) -> dict[str, Any]:
    kind = told["type"]
    if kind in ("relation", "people", "rich_text", "title"):
        more = {"has_more": len(told[kind]) > PARTS} if kind == "relation" else {}
        return {**told, kind: told[kind][:PARTS], **more}
    return dict(told)
