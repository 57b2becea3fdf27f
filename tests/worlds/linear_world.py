"""A Linear workspace whose queries are checked and run against Linear's own schema.

Faithful in: the price of a query and its limit; limits of requests and of points, refused with
status 400 and told in headers in milliseconds; pages whose cursors are items; sorting and filters;
inner lists; archived and trashed items; previous identifiers; private and restricted teams; keys
without `Bearer`; errors with status 200 and beside data; uploaded files, which need credentials.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar
from uuid import UUID

from graphql import GraphQLError, parse
from graphql.language import ast

from tests.worlds.described import Answer, Asked, World
from tests.worlds.graphql import GraphQL, fields_of

GRAPHQL = GraphQL.read("linear.graphql")
KEY = "lin_api_0123456789abcdef"
TOKEN = "oauth-token-of-the-world"
WORKSPACE = "acme"

Node = dict[str, Any]
#: The lists of the query type, and what is in them.
LISTS = {
    "issues": "issue",
    "comments": "comment",
    "projects": "project",
    "projectUpdates": "projectUpdate",
    "documents": "document",
    "initiatives": "initiative",
    "initiativeUpdates": "initiativeUpdate",
    "teams": "team",
    "users": "user",
}
# How Linear calls its kinds of errors, by their codes.
_TYPES = {
    "AUTHENTICATION_ERROR": "authentication error",
    "FORBIDDEN": "forbidden",
    "INPUT_ERROR": "invalid input",
    "RATELIMITED": "ratelimited",
}
_TIME = "%Y-%m-%dT%H:%M:%S.000Z"


def uid(number: int) -> str:
    """Returns an id as Linear has them."""
    return str(UUID(int=number + (4 << 76) + (8 << 60)))


class LinearWorld(World):
    """A server of one workspace.

    Attributes:
        objects: What there is, by kind and id.
        seconds: Its time; changes move it by one.
        most_points: What a query may cost.
        quota: How many requests, and how many points, may be spent in `quota_seconds`.
        hidden: Ids of teams that the account may not see.
        costs: What each query has cost.
        broken: The ids of nodes of which a field fails, and that field.
        forbidden: Lists that the account may not read.
        files: The bytes of uploaded files by their path.
        fetched: The path and the credentials of each request for a file.
    """

    description = GRAPHQL

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Node]] = {kind: {} for kind in LISTS.values()}
        self.seconds = 1_767_225_600
        self.most_points = 10_000
        self.quota: tuple[float, float] = (math.inf, math.inf)
        self.quota_seconds = 3600.0
        self.hidden: set[str] = set()
        self.costs: list[int] = []
        self.broken: dict[str, str] = {}
        self.forbidden: set[str] = set()
        self.tokens = {KEY, f"Bearer {TOKEN}"}
        self.files: dict[str, bytes] = {}
        self.fetched: list[tuple[str, str | None]] = []
        self.grants: list[Mapping[str, Any]] = []
        self._spent, self._reset = [0.0, 0.0], 0.0
        self._added = self._deleted = 0
        # The pages of a long list are asked for one after the other.
        self._latest: tuple[str, list[Node], dict[Any, int]] = "", [], {}
        self.organization = {"id": uid(1), "name": "Acme", "urlKey": WORKSPACE}
        super().__init__()
        self.ana = self.user("Ana Lima", "ana")
        self.bob = self.user("Bob Ray", "bob")

    # What there is.

    def user(self, name: str, display: str) -> Node:
        """Adds a member of the workspace."""
        told = {"name": name, "displayName": display, "email": f"{display}@Example.com"}
        return self._add("user", told)

    def team(
        self, key: str, name: str, visibility: str = "public", within: Node | None = None
    ) -> Node:
        """Adds a team."""
        told = {"key": key, "name": name, "visibility": visibility, "restrictedBy": within}
        one = self._add("team", told)
        one["issues"] = self._connection(lambda: self._of("issue", team=one))
        one["issueCount"] = lambda **_: len(self._of("issue", team=one))
        return one

    def issue(self, team: Node, title: str = "Title", text: str | None = None, **more: Any) -> Node:
        """Adds an issue to a team."""
        number = self._numbered(team)
        told = {
            "team": team,
            "number": float(number),
            "identifier": f"{team['key']}-{number}",
            "title": title,
            "description": text,
            "state": {"id": uid(7), "name": "Todo", "type": "unstarted"},
            "creator": self.ana,
            "priority": 2.0,
            "priorityLabel": "High",
            "previousIdentifiers": [],
            "_labels": [],
            "_relations": [],
            "_attachments": [],
            "_shared": [],
            **more,
        }
        one = self._add("issue", told)
        one["url"] = f"https://linear.app/{WORKSPACE}/issue/{one['identifier']}/title"
        one["labels"] = self._connection(lambda: one["_labels"])
        one["relations"] = self._connection(lambda: one["_relations"])
        one["attachments"] = self._connection(lambda: one["_attachments"])
        one["comments"] = self._connection(lambda: self._of("comment", issue=one))
        one["sharedAccess"] = lambda **_: {"sharedWithUsers": one["_shared"]}
        return one

    def comment(self, on: Node, body: str = "Nice", **more: Any) -> Node:
        """Adds a comment on an issue, a project, an update, or a document."""
        kind = on["_kind"]
        place = {"documentContent": on["_content"]} if kind == "document" else {kind: on}
        reply = more.pop("reply_to", None)
        parent = {"parentId": reply["id"], "parent": reply} if reply else {}
        told = {"body": body, "user": self.bob, **place, **parent, **more}
        one = self._add("comment", told)
        one["url"] = f"https://linear.app/{WORKSPACE}/comment/{one['id'][-6:]}"
        return one

    def project(self, name: str, *teams: Node, **more: Any) -> Node:
        """Adds a project of some teams."""
        told = {"name": name, "description": "", "creator": self.ana, "_teams": list(teams), **more}
        one = self._add("project", {"content": None, "_labels": [], "_links": [], **told})
        one["slugId"] = f"{one['_number']:012x}"
        one["url"] = f"https://linear.app/{WORKSPACE}/project/{name.lower()}-{one['slugId']}"
        one["teams"] = self._connection(lambda: one["_teams"])
        one["labels"] = self._connection(lambda: one["_labels"])
        one["externalLinks"] = self._connection(lambda: one["_links"])
        one["initiatives"] = self._connection(lambda: one.get("_initiatives", []))
        one["comments"] = self._connection(lambda: self._of("comment", project=one))
        return one

    def update(self, on: Node, body: str = "On track", **more: Any) -> Node:
        """Adds an update of a project or an initiative."""
        kind = f"{on['_kind']}Update"
        told = {"body": body, "user": self.bob, on["_kind"]: on, "health": "onTrack", **more}
        one = self._add(kind, told)
        one["url"] = f"https://linear.app/{WORKSPACE}/updates/{one['id'][-6:]}"
        one["comments"] = self._connection(lambda: self._of("comment", **{kind: one}))
        return one

    def document(self, title: str, content: str = "", **on: Any) -> Node:
        """Adds a document, `issue=` an issue, or in a project, an initiative or a team."""
        one = self._add("document", {"title": title, "content": content, "creator": self.ana, **on})
        one["slugId"] = f"{one['_number']:012x}"
        one["url"] = f"https://linear.app/{WORKSPACE}/document/{title.lower()}-{one['slugId']}"
        one["_content"] = {"id": uid(500_000 + one["_number"]), "document": one}
        one["comments"] = self._connection(
            lambda: self._of("comment", documentContent=one["_content"])
        )
        return one

    def initiative(self, name: str, team: Node | None = None, **more: Any) -> Node:
        """Adds an initiative, of a team or of all."""
        visibility = "public" if team is None else team["visibility"]
        told = {"name": name, "visibility": visibility, "leadTeam": team, "creator": self.ana}
        one = self._add("initiative", {**told, "status": "Active", "_links": [], **more})
        one["slugId"] = f"{one['_number']:012x}"
        one["url"] = f"https://linear.app/{WORKSPACE}/initiative/{name.lower()}-{one['slugId']}"
        one["links"] = self._connection(lambda: one["_links"])
        return one

    def upload(self, name: str, data: bytes) -> str:
        """Adds a file, and returns its address."""
        path = f"/uploads/{uid(1)}/{uid(900_000 + len(self.files))}/{name}"
        self.files[path] = data
        return f"{self.url}{path}"

    # What happens to it.

    def edit(self, one: Node, **values: Any) -> None:
        """Changes an item, at a later time."""
        self.seconds += 1
        one.update(values, updatedAt=self.now)

    def archive(self, one: Node, at: bool = True) -> None:
        """Archives an item, or brings it back."""
        self.edit(one, archivedAt=self.now if at else None)

    def trash(self, one: Node, at: bool = True) -> None:
        """Puts an item into the trash, or restores it. What is on it is not touched."""
        self.edit(one, trashed=at or None, archivedAt=self.now if at else None)

    def move(self, issue: Node, team: Node) -> None:
        """Moves an issue to another team."""
        number = self._numbered(team)
        before = [*issue["previousIdentifiers"], issue["identifier"]]
        identifier = f"{team['key']}-{number}"
        self.edit(
            issue,
            team=team,
            number=float(number),
            identifier=identifier,
            previousIdentifiers=before,
        )

    def delete(self, one: Node) -> None:
        """Deletes an item for ever, with what is on it."""
        self._deleted += 1
        del self.objects[one["_kind"]][one["id"]]
        for comment in self._of("comment", **{one["_kind"]: one}):
            del self.objects["comment"][comment["id"]]

    def relate(self, one: Node, other: Node, kind: str = "blocks") -> None:
        """Relates two issues."""
        relation = {
            "id": uid(600_000 + len(one["_relations"])),
            "type": kind,
            "relatedIssue": other,
        }
        one["_relations"].append(relation)
        self.edit(one)

    @property
    def now(self) -> str:
        """The world's time."""
        return time.strftime(_TIME, time.gmtime(self.seconds))

    @contextmanager
    def limited(self, requests: float, points: float, seconds: float) -> Iterator[None]:
        """Switches the limits on."""
        self.quota, self.quota_seconds, self._reset = (requests, points), seconds, 0.0
        yield
        self.quota = (math.inf, math.inf)

    # How it answers.

    def answer(self, asked: Asked) -> Answer:
        if asked.headers.get("authorization") not in self.tokens:
            return refused(
                "AUTHENTICATION_ERROR", "Authentication required, not authenticated", 401
            )
        body = asked.body if isinstance(asked.body, Mapping) else {}
        cost = price(str(body.get("query")), body.get("variables") or {})
        self.costs.append(cost)
        if cost > self.most_points:
            told = f"Complexity: {cost}. Maximum allowed complexity: {self.most_points}."
            return refused("INPUT_ERROR", f"Query too complex. {told}", 400)
        if time.time() >= self._reset:
            self._spent, self._reset = [0.0, 0.0], time.time() + self.quota_seconds
        self._spent[0] += 1
        self._spent[1] += cost
        is_over = any(used > most for used, most in zip(self._spent, self.quota, strict=True))
        if is_over:
            self._spent[0] -= 1
            self._spent[1] -= cost
            answer = refused("RATELIMITED", "Rate limit exceeded.", 400)
        else:
            answer = Answer(body=GRAPHQL.run(body, self._root()))
        answer.headers |= {"X-Complexity": cost, **self._limits()}
        return answer

    def beside(self, asked: Asked) -> Answer | None:
        if asked.path == "/oauth/token":
            self.grants.append(asked.body)
            told = {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 86_400}
            if asked.body.get("grant_type") == "refresh_token":
                told["refresh_token"] = "refresh-token-0002"
            return Answer(body=told)
        if not asked.path.startswith("/uploads/"):
            return None
        credentials = asked.headers.get("authorization")
        self.fetched.append((asked.path, credentials))
        data = self.files.get(asked.path)
        if credentials not in self.tokens:
            return Answer(401, body=b"")
        if data is None:
            return Answer(404, body=b"")
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", asked.headers.get("range", ""))
        if match is None:
            return Answer(body=data)
        first, last = int(match[1]), min(int(match[2]), len(data) - 1)
        if first >= len(data):
            return Answer(416, {"Content-Range": f"bytes */{len(data)}"}, b"")
        where = {"Content-Range": f"bytes {first}-{last}/{len(data)}", "ETag": '"1"'}
        return Answer(206, where, data[first : last + 1])

    def _limits(self) -> dict[str, Any]:
        told: dict[str, Any] = {}
        for name, used, most in zip(
            ("Requests", "Complexity"), self._spent, self.quota, strict=True
        ):
            if most != math.inf:
                told |= {
                    f"X-RateLimit-{name}-Limit": int(most),
                    f"X-RateLimit-{name}-Remaining": int(most - used),
                    f"X-RateLimit-{name}-Reset": int(self._reset * 1000),
                }
        return told

    def _root(self) -> dict[str, Any]:
        """Returns the fields of the query type."""

        def one_of(kind: str) -> Callable[..., Any]:
            def find(id: str) -> Any:
                for node in self._seen(kind):
                    names = [node.get(name) for name in ("id", "key", "identifier", "slugId")]
                    if id in (*names, *node.get("previousIdentifiers", ())):
                        return node
                raise EntityNotFoundError(f"Entity not found: {kind.capitalize()}")

            return find

        def listing(field: str, kind: str) -> Callable[..., Any]:
            pages = self._connection(lambda: self._seen(kind), field)

            def given(**arguments: Any) -> Any:
                if field in self.forbidden:
                    raise ForbiddenError("You do not have access to this")
                return pages(**arguments)

            return given

        lists = {field: listing(field, kind) for field, kind in LISTS.items()}
        kinds = {kind: one_of(kind) for kind in LISTS.values()}
        return {**lists, **kinds, "viewer": self.ana, "organization": self.organization}

    def _seen(self, kind: str) -> list[Node]:
        """Returns what the account may see of a kind."""
        return [
            {**one, self.broken[one["id"]]: _fails} if one["id"] in self.broken else one
            for one in self.objects[kind].values()
            if not self.hidden & _teams_of(one)
        ]

    def _numbered(self, team: Node) -> int:
        """Returns the number of the next issue of a team; none is given twice."""
        team["_issues"] = team.get("_issues", 0) + 1
        return int(team["_issues"])

    def _of(self, kind: str, **on: Node) -> list[Node]:
        ((name, node),) = on.items()
        found = (one for one in self.objects[kind].values())
        return [one for one in found if (one.get(name) or {}).get("id") == node["id"]]

    def _add(self, kind: str, values: Mapping[str, Any]) -> Node:
        self._added += 1
        self.seconds += 1
        number = self._added
        own = {"id": uid(1000 + number), "createdAt": self.now, "updatedAt": self.now}
        one = {
            **own,
            "archivedAt": None,
            "trashed": None,
            "_kind": kind,
            "_number": number,
            **values,
        }
        self.objects[kind][one["id"]] = one
        return one

    def _connection(self, items: Callable[[], list[Node]], kept_as: str = "") -> Callable[..., Any]:
        """Returns the resolver of a list.

        Args:
            items: All that is in it.
            kept_as: The name under which what was selected is kept for the next page.
        """

        def page(
            first: int = 50,
            after: str | None = None,
            includeArchived: bool = False,
            filter: Mapping[str, Any] | None = None,
            sort: Any = None,
            orderBy: str = "createdAt",
            **_: Any,
        ) -> Node:
            seen = sorted(self.hidden), sorted(self.broken), self.seconds, self._added
            asked = repr((kept_as, includeArchived, filter, sort, orderBy, seen, self._deleted))
            if not kept_as or self._latest[0] != asked:
                found = [
                    one
                    for one in items()
                    if (includeArchived or not one.get("archivedAt")) and matches(one, filter or {})
                ]
                name, order = "updatedAt" if orderBy == "updatedAt" else "createdAt", "Descending"
                if sort:
                    ((name, told),) = sort[0].items()
                    order = told.get("order", "Ascending")
                if found and "createdAt" in found[0]:
                    is_down = order == "Descending"
                    found.sort(key=lambda one: (one[name], one["id"]), reverse=is_down)
                places = {one["id"]: number for number, one in enumerate(found)}
                self._latest = asked, found, places
            _, found, places = self._latest
            start = places.get(after, -1) + 1
            part = found[start : start + first]
            info = {
                "hasNextPage": start + first < len(found),
                "hasPreviousPage": start > 0,
                "startCursor": part[0]["id"] if part else None,
                "endCursor": part[-1]["id"] if part else None,
            }
            edges = [{"node": one, "cursor": one["id"]} for one in part]
            return {"nodes": part, "edges": edges, "pageInfo": info}

        return page


class ForbiddenError(Exception):
    """The account may not read it."""

    extensions: ClassVar = {"code": "FORBIDDEN", "type": "forbidden"}


class EntityNotFoundError(Exception):
    """There is none with this id."""

    extensions: ClassVar = {"code": "INPUT_ERROR", "type": "invalid input"}


def price(query: str, variables: Mapping[str, Any]) -> int:
    """Returns what a query costs: an object 1, a field 0.1, times `first` of each list around."""
    document = parsed(query)
    if document is None:
        return 0

    def of(node: Any) -> float:
        total = 0.0
        for one in fields_of(document, node):
            if one.name.value in ("nodes", "edges", "node"):
                total += of(one)
                continue
            times = 1
            if any(inner.name.value in ("nodes", "edges") for inner in fields_of(document, one)):
                given = {arg.name.value: arg.value for arg in one.arguments or ()}
                size = given.get("first", given.get("last"))
                if isinstance(size, ast.IntValueNode):
                    times = int(size.value)
                else:
                    told = variables.get(size.name.value) if size is not None else None
                    times = 50 if told is None else int(told)
            total += times * ((1 if one.selection_set else 0.1) + of(one))
        return total

    operations = [d for d in document.definitions if isinstance(d, ast.OperationDefinitionNode)]
    return math.ceil(round(of(operations[0]), 6))


@lru_cache
def parsed(query: str) -> ast.DocumentNode | None:
    """Returns a query as it was parsed; None if it is none."""
    try:
        return parse(query)
    except GraphQLError:
        return None


def matches(node: Any, wanted: Mapping[str, Any]) -> bool:
    """Returns whether an item, or a value, is as a filter wants it."""
    if "null" in wanted and (node is None) != wanted["null"]:
        return False
    return all(_holds(node, name, told) for name, told in wanted.items() if name != "null")


def refused(code: str, message: str, status: int = 200) -> Answer:
    """Returns an answer as Linear refuses."""
    told = {"code": code, "type": _TYPES.get(code, "other"), "userPresentableMessage": message}
    return Answer(status, body={"errors": [{"message": message, "extensions": told}]})


def _holds(node: Any, name: str, told: Any) -> bool:
    if name == "and":
        return all(matches(node, one) for one in told)
    if name == "or":
        return any(matches(node, one) for one in told)
    if name in ("eq", "in", "gte", "lte", "gt", "lt", "eqIgnoreCase"):
        return _compares(node, name, told)
    if not isinstance(node, Mapping):
        return False
    value = node.get("teams" if name == "accessibleTeams" else name)
    if callable(value):
        inner = value(first=10_000, includeArchived=True)["nodes"]
        return any(matches(one, told["some"]) for one in inner)
    return matches(value, told)


def _compares(value: Any, name: str, told: Any) -> bool:
    if value is None:
        return False
    if name == "in":
        return value in told
    if name == "eqIgnoreCase":
        return str(value).lower() == str(told).lower()
    if isinstance(value, str) and name not in ("eq", "in"):
        value, told = (datetime.fromisoformat(one.replace("Z", "+00:00")) for one in (value, told))
    compared = {"eq": value == told}
    if name != "eq":
        compared = {
            "gte": value >= told,
            "lte": value <= told,
            "gt": value > told,
            "lt": value < told,
        }
    return compared[name]


def _teams_of(one: Mapping[str, Any]) -> set[str]:
    """Returns the teams that have to be seen for an item to be."""
    if one["_kind"] == "team":
        return {one["id"]}
    team = one.get("team") or (one.get("issue") or {}).get("team")
    return {team["id"]} if team else set()


def _fails(**_: Any) -> Any:
    raise RuntimeError("Something went wrong")
