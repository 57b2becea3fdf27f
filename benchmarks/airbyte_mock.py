"""A server and settings made of a manifest of Airbyte, to read any source without its API.

The server knows the manifest's streams by the form of their paths. It gives two pages of records
of the streams' own schemas, and says how to get the second one as the paginator looks for it.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

LARGEST_PAGE = 200
DAYS = 40

_TEMPLATE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.S)
_SECOND = "page-2"


@dataclass
class Kind:
    """What the server knows of a stream.

    Attributes:
        path: The form of its paths.
        literal: How many characters of it are fixed; the most exact form wins.
        place: Where its records are in an answer.
        page: The records of the first page, and of the second.
        second: The places of values that say where the second page is, and how to recognise it.
        method: The HTTP method.
    """

    path: re.Pattern[str]
    literal: int
    place: list[str]
    page: tuple[list[Any], list[Any]]
    cursors: list[list[str]] = field(default_factory=list)
    flags: list[list[str]] = field(default_factory=list)
    token: tuple[str, str] = ("", "")
    strategy: str = ""
    first: int = 0
    by_link: bool = False


def moved(manifest: Any, url: str) -> Any:
    """Returns a manifest whose addresses lead to a server."""
    if isinstance(manifest, list):
        return [moved(one, url) for one in manifest]
    if not isinstance(manifest, dict):
        return manifest
    return {
        key: _moved_address(value, url)
        if key in ("url_base", "url", "token_refresh_endpoint") and isinstance(value, str)
        else moved(value, url)
        for key, value in manifest.items()
    }


def _moved_address(text: str, url: str) -> str:
    if text.startswith("#/"):
        return text
    match = re.match(r"\s*(?:https?://)?((?:\{\{.*?\}\}|\{%.*?%\}|[^/{])*)(.*)", text, re.S)
    assert match is not None
    return f"{url}{match[2]}"


def settings_of(spec: Mapping[str, Any], url: str, name: str = "") -> Any:
    """Returns values for a schema of settings."""
    if "const" in spec:
        return spec["const"]
    if spec.get("default") is not None:
        return spec["default"]
    if spec.get("enum"):
        return spec["enum"][0]
    for way in ("oneOf", "anyOf"):
        if spec.get(way):
            return settings_of(spec[way][0], url, name)
    kind = spec.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object" or "properties" in spec:
        return {key: settings_of(one, url, key) for key, one in spec.get("properties", {}).items()}
    if kind == "array":
        return [settings_of(spec.get("items") or {}, url, name)]
    if kind in ("integer", "number") and re.search(r"date|since|start", name.lower()):
        return int((datetime.now(timezone.utc) - timedelta(days=DAYS)).timestamp())
    if kind in ("integer", "number"):
        return max(int(spec.get("minimum", 1)), 1)
    if kind == "boolean":
        return False
    return _text_for(spec, url, name)


def _text_for(spec: Mapping[str, Any], url: str, name: str) -> str:
    pattern, form = str(spec.get("pattern", "")), str(spec.get("format", ""))
    lower = name.lower()
    if "date" in form or re.search(r"date|time|since|start|until", lower) or "[0-9]{4}-" in pattern:
        start = datetime.now(timezone.utc)
        start -= timedelta(days=0 if re.search(r"end|until", lower) else DAYS)
        is_day = form == "date" or ("T" not in pattern and pattern and form != "date-time")
        return start.strftime("%Y-%m-%d" if is_day else "%Y-%m-%dT%H:%M:%SZ")
    if re.search(r"url|host|endpoint|server", lower):
        return url
    return f"{lower or 'value'}-1"


def kinds_of(manifest: Mapping[str, Any]) -> list[Kind]:
    """Returns what a server has to know of the streams of a resolved manifest."""
    needed: dict[str, set[str]] = {}
    found: dict[str, Mapping[str, Any]] = {}
    for stream in _streams(manifest):
        found.setdefault(json.dumps(stream, sort_keys=True, default=str), stream)
        for config in _parents(stream):
            parent = str(config["stream"].get("name"))
            needed.setdefault(parent, set()).add(str(config.get("parent_key")))
            for path in config.get("extra_fields") or []:
                needed[parent].add("/".join(map(str, path)))
    return [
        _kind(one, needed.get(str(one.get("name")), set()))
        for one in found.values()
        if "requester" in one.get("retriever", {})
    ]


def _streams(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    pending = list(manifest.get("streams") or [])
    while pending:
        stream = pending.pop()
        yield stream
        pending += [one["stream"] for one in _parents(stream)]


def _parents(stream: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    router = stream.get("retriever", {}).get("partition_router") or []
    routers = router if isinstance(router, list) else [router]
    return [one for each in routers for one in each.get("parent_stream_configs") or []]


def _kind(stream: Mapping[str, Any], needed: set[str]) -> Kind:
    retriever = stream["retriever"]
    requester = retriever["requester"]
    base, path = str(requester.get("url_base") or ""), str(requester.get("path") or "")
    parameters = requester.get("$parameters") or {}
    path = re.sub(
        r"\{\{\s*parameters(?:\.|\[['\"])(\w+)(?:['\"]\])?\s*\}\}",
        lambda match: str(parameters.get(match[1], "")),
        path,
    )
    whole = "/".join(["", *(part for part in urlsplit(_plain(base)).path.split("/") if part)])
    whole = f"{whole}/{_plain(path).lstrip('/')}".rstrip("/")
    pattern = "".join(
        re.escape(part).replace("<>", "[^?]*?")
        for part in re.split("(<>)", whole.partition("?")[0])
    ).replace("<>", "[^?]*?")
    place = [
        str(one)
        for one in (
            retriever.get("record_selector", {}).get("extractor", {}).get("field_path") or []
        )
    ]
    name = {key: str(value) for key, value in parameters.items() if isinstance(value, str)}
    place = [
        re.sub(r"\{\{\s*parameters\W+(?:get\W+)?(\w+).*", lambda m: name.get(m[1], ""), one)
        for one in place
    ]
    paginator = retriever.get("paginator") or {}
    strategy = paginator.get("pagination_strategy") or {}
    size = strategy.get("page_size")
    size = int(size) if str(size).isdecimal() and int(size) <= LARGEST_PAGE else 3
    kind = Kind(
        re.compile(f"/?{pattern}/?$"), len(whole.replace("<>", "")), [one for one in place if one],
        (_records(stream, needed, 0, size), _records(stream, needed, size, 2)),
    )  # fmt: skip
    option = paginator.get("page_token_option") or {}
    kind.strategy = str(strategy.get("type") or "")
    kind.by_link = option.get("type") == "RequestPath"
    field_name = option.get("field_name") or ".".join(map(str, option.get("field_path") or []))
    kind.token = (str(option.get("inject_into", "")), str(field_name).strip())
    kind.first = int(strategy.get("start_from_page") or 0)
    kind.cursors = _paths_in(str(strategy.get("cursor_value", "")))
    kind.flags = [
        one for one in _paths_in(str(strategy.get("stop_condition", ""))) if one not in kind.cursors
    ]
    return kind


def _plain(text: str) -> str:
    return _TEMPLATE.sub("<>", text)


def _paths_in(text: str) -> list[list[str]]:
    """Returns the paths of an answer that a template reads."""
    found = []
    for match in re.finditer(
        r"response((?:\.get\(\s*['\"][^'\"]+['\"][^)]*\)|\.\w+|\[['\"][^'\"]+['\"]\])+)", text
    ):
        steps = re.findall(r"get\(\s*['\"]([^'\"]+)|\.(?!get\()(\w+)|\[['\"]([^'\"]+)", match[1])
        found.append([next(filter(None, one)) for one in steps])
    return found


def _records(stream: Mapping[str, Any], needed: set[str], begin: int, count: int) -> list[Any]:
    loader = stream.get("schema_loader") or {}
    loader = loader[0] if isinstance(loader, list) else loader
    schema = loader.get("schema")
    schema = schema if isinstance(schema, dict) else {}
    key = stream.get("primary_key") or []
    keys = [key] if isinstance(key, str) else key
    paths = {tuple(one) if isinstance(one, list) else (str(one),) for one in keys}
    paths |= {tuple(one.replace(".", "/").split("/")) for one in needed}
    cursor = stream.get("incremental_sync") or {}
    made = []
    for number in range(begin, begin + count):
        record = _value(schema, number, "") if schema.get("properties") else {"id": number}
        for path in paths:
            if not any("{" in one or "*" in one for one in path):
                _put(record, path, f"{path[-1]}-{number}")
        name = cursor.get("cursor_field")
        if isinstance(name, str) and "{" not in name:
            time = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(
                days=3, hours=number
            )
            _put(record, (name,), _time(time, cursor))
        made.append(record)
    return made


def _time(time: datetime, cursor: Mapping[str, Any]) -> Any:
    form = (cursor.get("cursor_datetime_formats") or [cursor.get("datetime_format")])[0]
    known = {"%s": int(time.timestamp()), "%ms": int(time.timestamp() * 1000)}
    if form in known:
        return known[form]
    return time.strftime(str(form).replace("%_ms", "%f").replace("%epoch_microseconds", "%f"))


def _value(schema: Any, number: int, name: str, depth: int = 0) -> Any:
    schema = schema if isinstance(schema, dict) else {}
    kind = schema.get("type")
    kinds = [one for one in (kind if isinstance(kind, list) else [kind]) if one != "null"]
    kind = kinds[0] if kinds else None
    if (kind == "object" or "properties" in schema) and depth < 5:
        properties = schema.get("properties") or {}
        return {key: _value(one, number, key, depth + 1) for key, one in properties.items()}
    if kind == "array" and depth < 5:
        items = schema.get("items")
        return [_value(items, number, name, depth + 1)] if isinstance(items, dict) else []
    if kind == "integer":
        return number + 1
    if kind == "number":
        return number + 0.5
    if kind == "boolean":
        return number % 2 == 0
    if kind == "string" and "date" in str(schema.get("format", "")):
        return f"2024-05-{number % 28 + 1:02}T00:00:00Z"
    return f"{name} {number}" if kind == "string" else None


def _put(record: Any, path: tuple[str, ...], value: Any) -> None:
    for step in path[:-1]:
        if not isinstance(record, dict):
            return
        if not isinstance(record.get(step), dict):
            record[step] = {}
        record = record[step]
    if isinstance(record, dict):
        record[path[-1]] = value


@contextmanager
def serving() -> Iterator[tuple[str, list[Kind], list[str]]]:
    """Runs a server; returns its address, the list of what it knows, and what it did not know."""
    kinds: list[Kind] = []
    unknown: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, body = answer(
                kinds, unknown, address, self.path, dict(self.headers), sent
            )
            data = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PUT = do_GET

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    http = Server(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield address, kinds, unknown
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def answer(
    kinds: list[Kind],
    unknown: list[str],
    address: str,
    target: str,
    headers: Mapping[str, str],
    sent: bytes,
) -> tuple[int, dict[str, str], Any]:
    """Returns the status, the headers and the body of the answer to a request."""
    parts = urlsplit(target)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    fitting = [one for one in kinds if one.path.match(unquote(parts.path))]
    if not fitting:
        unknown.append(parts.path)
        token = {"access_token": "t-1", "token": "t-1", "expires_in": 3600, "token_type": "bearer"}
        return 200, {}, {**token, "data": token, "id": "t-1", "session": token}
    kind = max(fitting, key=lambda one: one.literal)
    number = _page_of(kind, query, headers, sent)
    records = kind.page[number] if number < (2 if kind.strategy else 1) else []
    body: Any = records
    for depth, step in enumerate(reversed(kind.place)):
        listed = {"group": body} if depth else [*records]
        body = listed if step == "*" else {step: body}
    told: dict[str, str] = {}
    if kind.strategy and number == 0:
        # The address with a mark for the second page; it may stand in a header or in the body.
        mark = "&" if parts.query else "?"
        link = f"{address}{target}{mark}mock_page={_SECOND}"
        told["Link"] = f'<{link}>; rel="next"'
        told["X-Next-Cursor"] = _SECOND
        if isinstance(body, dict):
            for path in kind.flags:
                _put_missing(body, path, value=True)
            for path in kind.cursors:
                _put_missing(body, path, link if kind.by_link else _SECOND)
    elif isinstance(body, dict):
        for path in kind.flags:
            _put_missing(body, path, value=False)
    return 200, told, body


def _put_missing(body: dict[str, Any], path: list[str], value: Any) -> None:
    here: Any = body
    for step in path[:-1]:
        here = here.setdefault(step, {}) if isinstance(here, dict) else None
    if isinstance(here, dict):
        here.setdefault(path[-1], value)


def _page_of(kind: Kind, query: Mapping[str, str], headers: Mapping[str, str], sent: bytes) -> int:
    """Returns the page that a request asks for, from 0; 2 stands for all that are empty."""
    if query.get("mock_page") == _SECOND:
        return 1
    where, name = kind.token
    text = sent.decode("utf-8", "replace")
    value: Any = query.get(name)
    if where == "header":
        value = headers.get(name)
    elif where == "body_json" and text:
        try:
            value = json.loads(text)
            for step in name.split("."):
                value = value.get(step) if isinstance(value, dict) else None
        except ValueError:
            value = None
    elif where == "body_data":
        value = dict(parse_qsl(text)).get(name)
    if value in (None, ""):
        return 0
    if kind.strategy in ("PageIncrement", "OffsetIncrement"):
        is_page = kind.strategy == "PageIncrement"
        known = (kind.first, kind.first + 1) if is_page else (0, len(kind.page[0]))
        return known.index(int(value)) if value in map(str, known) else 2
    # A cursor that is a value of the last record leads to the page after it.
    last = kind.page[0][-1] if kind.page[0] else {}
    return 1 if value == _SECOND or str(value) in _leaves(last) else 2


def _leaves(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {leaf for one in value.values() for leaf in _leaves(one)}
    if isinstance(value, list):
        return {leaf for one in value for leaf in _leaves(one)}
    return {str(value)}
