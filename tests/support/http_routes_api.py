"""What APIs do with their pages, as routes of the test server.

Each route has `n` records, `{"id": 0, ...}` to `{"id": n - 1, ...}`, and is told by its query how
to behave.
"""

from __future__ import annotations

import json
import operator
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlencode

from tests.support.http_server import Exchange, Route


@dataclass(frozen=True)
class Reply:
    """An answer; a body that is not bytes is sent as JSON."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def record(number: int, **more: Any) -> dict[str, Any]:
    """Returns one record of a source; the same number gives the same record."""
    return {
        "id": number,
        "title": f"Record {number}",
        "content": f"What record {number} says.",
        "updated_at": f"2026-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}Z",
        **more,
    }


class Asked:
    """A request, and what its query says."""

    def __init__(self, exchange: Exchange) -> None:
        self.method = exchange.method
        self.other = exchange.addresses["other"]
        self.path = exchange.path
        self.query = exchange.query
        self.headers = exchange.headers
        self.body = exchange.body
        form = "form" in (exchange.headers.get("Content-Type") or "")
        self.given: dict[str, Any] = dict(exchange.query)
        if exchange.body:
            self.given |= exchange.form() if form else exchange.json()

    def number(self, name: str, default: int = 0) -> int:
        return int(self.query.get(name, default))


def _route(answer: Callable[[Asked], Reply]) -> Route:
    def route(exchange: Exchange) -> None:
        asked = Asked(exchange)
        if "ms" in asked.query:
            time.sleep(asked.number("ms") / 1000)
        reply = answer(asked)
        exchange.reply(reply.body, reply.status, dict(reply.headers))

    return route


def _records(asked: Asked, start: int, stop: int) -> list[dict[str, Any]]:
    overlap = asked.number("overlap") if start else 0
    pad = "x" * asked.number("pad")
    more = {"pad": pad} if pad else {}
    return [
        record(number, **more)
        for number in range(max(start - overlap, 0), min(stop, asked.number("n")))
    ]


def _pages(asked: Asked) -> Reply:
    """Page numbers. `first`, `size` or `per_page`, `cap`; `kind` says what tells the end."""
    n, first = asked.number("n"), asked.number("first", 1)
    size = min(asked.number("per_page", asked.number("size", 10)), asked.number("cap", 10**9))
    page = int(asked.headers.get("X-Page", asked.given.get("page", first)))
    index = page - first
    count = -(-n // size)
    behind = index >= max(count, 1)
    past = asked.query.get("past", "empty")
    if asked.query.get("ignore"):
        index = 0
    elif behind and past == "clamp":
        index = count - 1
    elif behind and past != "empty":
        return Reply({"detail": "Invalid page."}, int(past))
    items = _records(asked, index * size, (index + 1) * size)
    if str(page) in asked.query.get("holes", "").split(","):
        items = []
    kind = asked.query.get("kind", "total")
    says = asked.query.get("says")
    answer: dict[str, Any] = {"items": items}
    headers = {}
    if kind == "total":
        answer["total"] = n if says is None else json.loads(says)
    elif kind == "pages":
        answer["meta"] = {"pages": count if says is None else json.loads(says)}
    elif kind == "header":
        headers["X-Total-Count"] = str(n)
    elif kind == "has_more":
        answer["has_more"] = index < count - 1
    elif kind == "laravel":
        answer |= {"current_page": page, "last_page": count}
    return Reply(items if kind == "header" else answer, headers=headers)


def _offsets(asked: Asked) -> Reply:
    """Offset and limit, in the query, in a JSON body or in a form; `cap` bounds the limit."""
    given = asked.given
    offset = int(given.get("offset", 0))
    limit = min(int(given.get("limit", asked.number("size", 10))), asked.number("cap", 10**9))
    hidden = asked.number("hide")
    items = _records(asked, offset, offset + limit)
    if hidden:
        # A server that takes out what the account may not see after it has counted.
        items = [one for one in items if one["id"] % hidden]
    answer: dict[str, Any] = {"results": items}
    kind = asked.query.get("kind", "total")
    says = asked.query.get("says")
    if kind == "total":
        answer["total"] = asked.number("n") if says is None else json.loads(says)
    elif kind == "echo":
        answer |= {"offset": offset, "limit": limit, "total": asked.number("n")}
    elif kind == "has_more":
        answer["has_more"] = offset + limit < asked.number("n")
    return Reply(answer)


def _cursors(asked: Asked) -> Reply:
    """A cursor, in the body or (`in=header`) in a header; `loop` makes it come back: A, B, A."""
    cursor = (
        asked.given.get("cursor")
        or asked.headers.get("X-Cursor")
        or asked.given.get("filter", {}).get("cursor")
        or asked.path.removeprefix("/api/cursors").strip("/")
    )
    size = asked.number("size", 10)
    start = int(cursor.removeprefix("c")) if cursor and cursor != "*" else 0
    following: str | None = f"c{start + size}" if start + size < asked.number("n") else None
    if asked.query.get("loop"):
        following = {0: f"c{size}", size: f"c{2 * size}", 2 * size: f"c{size}"}[start]
    items = _records(asked, start, start + size)
    if asked.query.get("hollow"):
        items = []
    if asked.query.get("same"):
        items = _records(asked, 0, size)
    end = {"empty": "", "zero": 0, "absent": None, "null": None}[asked.query.get("end", "null")]
    if asked.query.get("in") == "header":
        return Reply({"data": items}, headers={"X-Next-Cursor": following} if following else {})
    meta = {"next_cursor": following or end}
    if asked.query.get("end") == "absent" and not following:
        meta = {}
    answer = {"data": {"contacts": items}, "meta": meta}
    if "more" in asked.query:
        answer["has_more"] = following is not None
        if asked.query["more"] == "lost":
            del answer["meta"]
    return Reply(answer)


def _links(asked: Asked) -> Reply:
    """The next page's address; `how` says where it is and `to` where it leads."""
    size, start = asked.number("size", 10), asked.number("start")
    items = _records(asked, start, start + size)
    query = {**asked.query, "start": start + size}
    target = f"{asked.path}?{urlencode(query)}"
    if asked.query.get("to") == "itself":
        target = f"{asked.path}?{urlencode(asked.query)}"
    elif asked.query.get("to") == "elsewhere":
        target = f"http://localhost:9/{asked.path}?{urlencode(query)}"
    elif asked.query.get("to") == "relative":
        target = f"?{urlencode(query)}"
    elif asked.query.get("to") == "absolute":
        target = f"http://{asked.headers['Host']}{target}"
    elif asked.query.get("to") == "other":
        target = f"{asked.other}{asked.path}?{urlencode({**query, 'plain': ''})}"
    elif asked.query.get("to") == "file":
        target = "file:///etc/passwd"
    last = start + size >= asked.number("n") and asked.query.get("to") != "itself"
    how = asked.query.get("how", "header")
    if how == "header":
        links = f'<{target}>; rel="next", <{asked.path}>; rel="first"'
        return Reply(items, headers={} if last else {"Link": links})
    answers = {
        "body": {"results": items, "links": {"next": None if last else target}},
        "hal": {
            "_embedded": {"things": items},
            "_links": {} if last else {"next": {"href": target}},
        },
        "django": {
            "count": asked.number("n"),
            "next": None if last else target,
            "previous": None,
            "results": items,
        },
    }
    return Reply(answers[how])


def _last_ids(asked: Asked) -> Reply:
    """The next page comes after the id of the last record."""
    size = asked.number("limit", 10)
    start = int(asked.query["after"]) + 1 if "after" in asked.query else 0
    items = _records(asked, start, start + size)
    return Reply({"data": items, "has_more": start + size < asked.number("n")})


def _ranges(asked: Asked) -> Reply:
    """Records by a `Range` header; 416 behind the last one."""
    n = asked.number("n")
    header = asked.headers.get("Range")
    if header is None or asked.query.get("ignore"):
        return Reply(_records(asked, 0, n))
    first, last = (int(part) for part in header.partition("=")[2].split("-"))
    if first >= n:
        return Reply({"error": "behind the end"}, 416, {"Content-Range": f"items */{n}"})
    last = min(last, n - 1, first + asked.number("cap", 10**9) - 1)
    total = "*" if asked.query.get("kind") == "unknown" else n
    return Reply(
        _records(asked, first, last + 1), 206, {"Content-Range": f"items {first}-{last}/{total}"}
    )


def _graphql(asked: Asked) -> Reply:
    """A GraphQL connection of `variables.n` records."""
    variables = asked.given["variables"]
    if variables.get("fails"):
        return Reply({"data": None, "errors": [{"message": "Field 'x' does not exist"}]})
    after, size, n = variables.get("after"), 10, variables["n"]
    start = int(after.removeprefix("e")) if after else 0
    nodes = [record(number) for number in range(start, min(start + size, n))]
    info = {"hasNextPage": start + size < n, "endCursor": f"e{start + size}"}
    connection = {"edges": [{"node": node} for node in nodes], "pageInfo": info}
    return Reply({"data": {"repository": {"issues": connection}}})


def _played(exchange: Exchange) -> None:
    """What the variable `pages` of a query holds for `after`; a list is given one by one."""
    variables = exchange.json()["variables"]
    after = variables.get("after") or ""
    answer = variables["pages"][after]
    if isinstance(answer, list):
        with exchange.lock:
            given = exchange.memory.setdefault("played", Counter())
            answer = answer[min(given[after], len(answer) - 1)]
            given[after] += 1
    exchange.reply(answer.get("body", answer), answer.get("status", 200))


def _odd(asked: Asked) -> Reply:
    """Answers that are not what they should be; the last part of the path says which."""
    kind = asked.path.rpartition("/")[2]
    page = asked.number("page", 1)
    if kind not in ("objects", "nothing", "moved") and page < asked.number("from", 1):
        return Reply({"items": [record(page * 10 + number) for number in range(10)]})
    html = {"Content-Type": "text/html"}
    answers = {
        "html": Reply(b"<!doctype html><title>Log in</title>", headers=html),
        "cut": Reply(b'{"items": [{"id": 1}, {"id": 2'),
        "latin": Reply('{"items": [{"id": 1, "title": "caf\xe9"}]}'.encode("latin-1")),
        "moved": Reply({"result": {"itmes": [record(1)]}}),
        "nothing": Reply(b"", 204),
        "empty": Reply(b"", 200),
        "ours": Reply({"items": [record(1, _resource="x", _parent=1)]}),
        "objects": Reply({"items": [record(1), "two", None, record(4)]}),
        "403": Reply({"error": "no"}, 403),
        "404": Reply({"error": "no"}, 404),
        "401": Reply({"error": "no"}, 401),
    }
    return answers[kind]


def _contacts(asked: Asked) -> Reply:
    """Parents: contacts, each with notes at /api/contacts/N/notes; `gone` ones answer 404."""
    parts = asked.path.split("/")
    if len(parts) == 3:
        return _pages(asked)
    contact = int(parts[3])
    if str(contact) in asked.query.get("gone", "").split(","):
        return Reply({"error": "no such contact"}, 404)
    if len(parts) == 5:
        notes = [record(number, author={"name": f"A{contact}"}) for number in range(contact % 4)]
        return Reply({"items": notes})
    note = int(parts[5])
    return Reply({"items": [record(0, body=f"comment on {contact}/{note}")]})


def _changes(asked: Asked) -> Reply:
    """Records that have a time; `since` and `until` leave out the others, both ends included.

    Record k is of k days after 2026-01-01; `rise` moves all by so many days.
    """
    rise, n = asked.number("rise"), asked.number("n")
    found = []
    for number in range(n):
        day = number + rise
        at = f"2026-{1 + day // 28:02}-{1 + day % 28:02}T00:00:00Z"
        if asked.query.get("since", "") <= at <= asked.query.get("until", "9"):
            found.append(record(number, updated_at=at))
    if asked.query.get("order") == "down":
        found.reverse()
    size = asked.number("size", 10)
    start = (asked.number("page", 1) - 1) * size
    answer: dict[str, Any] = {"items": found[start : start + size]}
    if asked.query.get("kind", "total") == "total":
        answer["total"] = len(found)
    return Reply(answer)


def _given(asked: Asked) -> Reply:
    """The records that `items` gives as JSON, those whose `at` is not before `since`.

    With `open` the beginning does not belong to them, and with `cut` they show whole seconds only.
    """
    found = json.loads(asked.query["items"])
    if "since" in asked.query:
        since = _time(asked.query["since"])
        belongs = operator.gt if "open" in asked.query else operator.ge
        found = [one for one in found if belongs(_time(one["at"]), since)]
    if "cut" in asked.query:
        found = [{**one, "at": one["at"][:19] + "Z"} for one in found]
    return Reply({"items": found})


def _times(asked: Asked) -> Reply:
    """The records that `items` gives as JSON, those whose `at` lies between `since` and `until`.

    The API understands times only as `reads` says; any other one is refused, as real ones do. Both
    ends belong to the range, or with `open` neither does.
    """
    reads = _READS[asked.query["reads"]]
    found = json.loads(asked.query["items"])
    belongs = operator.lt if "open" in asked.query else operator.le
    try:
        if "since" in asked.query:
            since = reads(asked.query["since"])
            found = [one for one in found if belongs(since, reads(str(one["at"])))]
        if "until" in asked.query:
            until = reads(asked.query["until"])
            found = [one for one in found if belongs(reads(str(one["at"])), until)]
    except ValueError as error:
        return Reply({"error": str(error)}, 400)
    return Reply({"items": found})


def _pattern(pattern: str) -> Callable[[str], datetime]:
    return lambda text: datetime.strptime(text, pattern).replace(tzinfo=timezone.utc)


def _number(text: str) -> int:
    return int(text)


_READS: dict[str, Callable[[str], Any]] = {
    "iso": lambda text: datetime.fromisoformat(text.replace("Z", "+00:00")),
    "date": _pattern("%Y-%m-%d"),
    "rails": _pattern("%Y-%m-%d %H:%M:%S UTC"),
    "mail": _pattern("%a, %d %b %Y %H:%M:%S GMT"),
    "day first": _pattern("%d/%m/%Y"),
    "am": _pattern("%Y/%m/%d %I:%M:%S %p"),
    "compact": _pattern("%Y%m%d%H%M%S"),
    "integer": _number,
    "decimal": float,
}


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _documents(asked: Asked) -> Reply:
    """`/api/v1/me` and `/api/v1/documents`, as the simplest API has them; the key is `right`."""
    what = asked.path.removeprefix("/api/v1/")
    allowed = asked.headers.get("Authorization") == "Bearer right-key-12345"
    if what == "me":
        return Reply({"name": "me"}) if allowed else Reply({"error": "who?"}, 401)
    if what == "documents" and allowed:
        size = asked.number("limit", 10)
        start = (asked.number("page", 1) - 1) * size
        items = _records(asked, start, start + size)
        return Reply({"items": items, "has_more": start + size < asked.number("n")})
    return Reply({"error": "no"}, 403 if what == "documents" else 404)


ROUTES: dict[str, Route] = {
    "/api/pages": _route(_pages),
    "/api/offsets": _route(_offsets),
    "/api/cursors": _route(_cursors),
    "/api/cursors/": _route(_cursors),
    "/api/links": _route(_links),
    "/api/last_ids": _route(_last_ids),
    "/api/ranges": _route(_ranges),
    "/api/graphql": _route(_graphql),
    "/api/graphql/played": _played,
    "/api/odd/": _route(_odd),
    "/api/contacts": _route(_contacts),
    "/api/contacts/": _route(_contacts),
    "/api/changes": _route(_changes),
    "/api/given": _route(_given),
    "/api/times": _route(_times),
    "/api/v1/": _route(_documents),
}
