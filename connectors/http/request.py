"""Requests and answers as connectors see them."""

from __future__ import annotations

import json as _json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

import orjson
from urllib3 import HTTPHeaderDict

from contextframe_beam.connectors._jsonl import big_integers
from contextframe_beam.connectors.http import urls
from contextframe_beam.connectors.http.errors import HttpError
from contextframe_beam.connectors.http.retry import Verdict
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import ConnectorError

_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_EXCERPT = 200
_QUERY = re.compile(r"\s*(?:query\b|\{|fragment\b|#)")
# Comments and fragments may stand before it.
_CHANGE = re.compile(r"^\s*(?:mutation|subscription)\b", re.M)
_SEARCH = re.compile(r"[/:_](?:search|query|find)/?$", re.I)
# A target, and what follows it up to a comma outside of quotes.
_LINK = re.compile(r'<([^>]*)>((?:[^,"]|"(?:[^"\\]|\\.)*")*)')
_LINK_PARAMETER = re.compile(r';\s*([^\s=;,"]+)\s*(?:=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*)))?')


@dataclass(frozen=True, slots=True, repr=False)
class HttpRequest:
    """What is asked.

    Attributes:
        method: GET, POST, ...
        url: An absolute address, or one below the client's `base_url`.
        params: Goes into the query; None is left out, a list repeats its name.
        headers: Beside those of the client.
        json: The body, sent as JSON.
        form: The body, sent as a form, when there is no `json`.
        safe_to_repeat: Whether sending it twice does no harm. None: GET, HEAD, OPTIONS, PUT and
            DELETE may be repeated, and a POST that only reads: a query of GraphQL, or one to an
            address that ends in search, query or find. Any other POST and PATCH may not.
        judge: Looks at each answer, in place of the client's own judge.
    """

    method: str
    url: str
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    form: Mapping[str, Any] | None = None
    safe_to_repeat: bool | None = None
    judge: Callable[[HttpResponse], Verdict] | None = None

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent again when nobody knows what became of it."""
        if self.safe_to_repeat is not None:
            return self.safe_to_repeat
        method = self.method.upper()
        return method in _REPEATABLE or (method == "POST" and self._only_reads())

    def _only_reads(self) -> bool:
        query = self.json.get("query") if isinstance(self.json, Mapping) else None
        if isinstance(query, str) and _QUERY.match(query):
            return _CHANGE.search(query) is None
        return _SEARCH.search(self.url.partition("?")[0]) is not None

    def header(self, name: str) -> str | None:
        """Returns a header's value, whatever the case of its name."""
        wanted = name.lower()
        return next((v for key, v in self.headers.items() if key.lower() == wanted), None)

    def with_header(self, name: str, value: str) -> HttpRequest:
        """Returns the request with this header in place of any of the same name."""
        kept = {k: v for k, v in self.headers.items() if k.lower() != name.lower()}
        return replace(self, headers={**kept, name: value})

    def with_param(self, name: str, value: str) -> HttpRequest:
        """Returns the request with this parameter in place of any of the same name."""
        url = urls.without_query(self.url, [name]) if "?" in self.url else self.url
        return replace(self, url=url, params={**self.params, name: value})

    def with_cookie(self, name: str, value: str) -> HttpRequest:
        """Returns the request with this cookie beside the others."""
        kept = [
            one
            for one in (self.header("Cookie") or "").split("; ")
            if one and one.partition("=")[0] != name
        ]
        return self.with_header("Cookie", "; ".join([*kept, f"{name}={value}"]))

    def __repr__(self) -> str:
        return f"HttpRequest({self.method} {urls.shown(self.url)})"


class HttpResponse:
    """What was answered, read to its end.

    Attributes:
        status: 200, 404, ...
        headers: Names have no case.
        body: The bytes, decompressed.
        sent: The request as it went out, credentials included; it does not show them.
        from_cache: Whether the body came from the cache.
    """

    __slots__ = ("_target", "body", "from_cache", "headers", "sent", "status")

    def __init__(
        self,
        status: int,
        headers: HTTPHeaderDict,
        body: bytes,
        target: str,
        sent: HttpRequest,
        from_cache: bool = False,
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.sent = sent
        self.from_cache = from_cache
        self._target = target

    @property
    def url(self) -> str:
        """The address that answered (after redirects), without secrets, for messages."""
        return urls.shown(self._target)

    def json(self) -> Any:
        """Returns the body's JSON value; integers of any size are kept.

        Raises:
            ConnectorError: the body is not JSON; the message says what it is instead.
        """
        body = self.body
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError:
            return self._json_slowly()
        return self._json_slowly() if big_integers(body) else value

    def text(self) -> str:
        """Returns the body as text, in the encoding that it says it has.

        Raises:
            ConnectorError: it is not in that encoding.
        """
        charset = self._charset() or "utf-8"
        try:
            return self.body.decode(charset)
        except LookupError:
            problem = f"says its encoding is {charset!r}, which nobody knows"
        except UnicodeDecodeError as error:
            problem = (
                f"is not {charset.upper()} text: byte 0x{self.body[error.start]:02x} at "
                f"{error.start}"
            )
        raise self.error(f"{problem}; the server must say the encoding in its Content-Type")

    def links(self) -> dict[str, str]:
        """Returns the addresses of the `Link` header by their relation (RFC 8288), absolute."""
        found: dict[str, str] = {}
        for match in _LINK.finditer(self.headers.get("Link") or ""):
            for name, quoted, plain in _LINK_PARAMETER.findall(match[2]):
                if name.lower() == "rel":
                    for relation in (quoted or plain).lower().split():
                        found.setdefault(relation, self.absolute(match[1].strip()))
                    break
        return found

    def absolute(self, url: str) -> str:
        """Returns an address in the answer as an absolute one; one that is none stays as it is."""
        return urls.linked(self._target, url)

    def error(self, problem: str) -> ConnectorError:
        """Returns an error that says which answer has which problem."""
        return ConnectorError(
            redact(f"{self.sent.method} {self.url} answered {self.status}, but the body {problem}")
        )

    def refused(self, why: str) -> HttpError:
        """Returns the error for an answer that is a refusal for another reason than its status.

        Args:
            why: What goes on after "answered 200 OK".
        """
        answered = f"{self.sent.method} {self.url} answered {reason_of(self.status)}"
        return HttpError(redact(f"{answered} {why}"), self.status)

    def excerpt(self) -> str:
        """Returns the beginning of the body as one line without secrets."""
        text = redact(self.body[: 4 * _EXCERPT].decode("utf-8", "replace"))
        line = " ".join(text.split())
        return line if len(line) <= _EXCERPT else line[:_EXCERPT] + "..."

    def __repr__(self) -> str:
        return f"HttpResponse({self.status} {self.url}, {len(self.body)} bytes)"

    def _charset(self) -> str | None:
        match = re.search(r"charset=\"?([^\s\";]+)", self.headers.get("Content-Type") or "", re.I)
        return match[1] if match else None

    def _json_slowly(self) -> Any:
        body = self.body
        start = body[:100].lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")
        if not start:
            raise self.error("is empty, where JSON was expected")
        if start[:1] == b"<":
            raise self.error(
                f"is HTML or XML, not JSON ({self.excerpt()!r}); check the address, and that it "
                "needs no other login"
            )
        charset = self._charset()
        if charset is None or charset.lower().replace("-", "") == "utf8":
            # Servers that write UTF-16 or a byte order mark seldom say so.
            charset = _json.detect_encoding(body)
        try:
            text = body.decode(charset)
        except (LookupError, UnicodeDecodeError):
            text = self.text()
        try:
            return _json.loads(text)
        except _json.JSONDecodeError as error:
            if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
                problem = f"is cut off: the JSON ends after {len(text)} characters"
            else:
                problem = (
                    f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno} "
                    f"({self.excerpt()!r})"
                )
        except (ValueError, RecursionError) as error:
            problem = f"is JSON that cannot be held: {error}"
        raise self.error(problem)


def reason_of(status: int) -> str:
    """Returns `404 Not Found` for a status."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
