"""Requests and answers: their addresses, their errors with a status, and their log lines."""

from __future__ import annotations

import json
import json as _json
import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, quote, unquote_plus, urlencode, urljoin, urlsplit, urlunsplit

import msgspec
from urllib3 import HTTPHeaderDict
from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from contextframe_beam.connectors.http.retry import Verdict
from contextframe_beam.connectors.item_json import encode_item
from contextframe_beam.connectors.plain_secrets import STARS, looks_secret
from contextframe_beam.connectors.secrets import RedactingFilter, redact, redacted
from contextframe_beam.errors import ConfigError, ConnectorError

_DECODER = msgspec.json.Decoder()
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_EXCERPT = 200
# Refusals of the account, and limits.
_OF_ALL = frozenset({401, 402, 407, 408, 429})
_QUERY = re.compile(r"\s*(?:query\b|\{|fragment\b|#)")
# Comments and fragments may come before it.
_CHANGE = re.compile(r"^\s*(?:mutation|subscription)\b", re.M)
_SEARCH = re.compile(r"[/:_](?:search|query|find)/?$", re.I)
# A target, and the text after it up to a comma outside of quotes.
_LINK = re.compile(r'<([^>]*)>((?:[^,"]|"(?:[^"\\]|\\.)*")*)')
_LINK_PARAMETER = re.compile(r';\s*([^\s=;,"]+)\s*(?:=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*)))?')


@dataclass(frozen=True, slots=True, repr=False)
class HttpRequest:
    """A request.

    Attributes:
        method: GET, POST, ...
        url: An absolute address, or one below the client's `base_url`.
        params: The parameters of the query; None is left out, a list repeats its name.
        headers: Further headers beside those of the client.
        json: The body, sent as JSON.
        form: The body, sent as a form, if there is no `json`.
        safe_to_repeat: Whether it is harmless to send it twice. By default that is so for GET,
            HEAD, OPTIONS, PUT and DELETE, and for a POST that only reads: a GraphQL query, or a
            request to an address that ends in search, query or find. Other POSTs and PATCH are
            not sent twice.
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
        """Whether it may be sent again if the server may already have carried it out."""
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
        """Returns the value of a header; upper and lower case in its name are the same."""
        wanted = name.lower()
        return next((v for key, v in self.headers.items() if key.lower() == wanted), None)

    def with_header(self, name: str, value: str) -> HttpRequest:
        """Returns the request with this header, which replaces any with the same name."""
        kept = {k: v for k, v in self.headers.items() if k.lower() != name.lower()}
        return replace(self, headers={**kept, name: value})

    def with_param(self, name: str, value: str) -> HttpRequest:
        """Returns the request with this parameter, which replaces any with the same name."""
        url = without_query(self.url, [name]) if "?" in self.url else self.url
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
        return f"HttpRequest({self.method} {shown(self.url)})"


class HttpResponse:
    """A whole answer.

    Attributes:
        status: 200, 404, ...
        headers: The headers; upper and lower case in names are the same.
        body: The bytes, decompressed.
        sent: The request with its credentials, as it was sent; its text does not show them.
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
        return shown(self._target)

    def json(self) -> Any:
        """Returns the body's JSON value, with integers of any size.

        Raises:
            ConnectorError: the body is not JSON; the message says what it is instead.
        """
        try:
            return _DECODER.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._json_slowly()

    def text(self) -> str:
        """Returns the body as text, decoded with the encoding that the server states.

        Raises:
            ConnectorError: it is not in that encoding.
        """
        charset = self._charset() or "utf-8"
        try:
            return self.body.decode(charset)
        except LookupError:
            problem = f"says that its encoding is {charset!r}, which is unknown"
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
        """Returns an address in the answer as an absolute one; any other text stays as it is."""
        if not url and "#" not in self._target:
            # Pages of one list differ in their queries, which stay as they are.
            place, _, query = self._target.partition("?")
            return f"{_place_of(place)}?{query}" if query else _place_of(place)
        return linked(self._target, url)

    def error(self, problem: str) -> ConnectorError:
        """Returns an exception that names this answer and its problem."""
        return ConnectorError(
            redact(f"{self.sent.method} {self.url} answered {self.status}, but the body {problem}")
        )

    def refused(self, why: str) -> HttpError:
        """Returns the exception for an answer that is a refusal for another reason than its status.

        Args:
            why: The text after "answered 200 OK".
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
            # Servers seldom say that they write UTF-16 or a byte order mark.
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


#: Statuses that say of a part of a source: the account may not read it, or it is gone.
UNREADABLE = frozenset({403, 404, 410, 451})


class HttpError(ConnectorError):
    """A request that was refused, or got no answer after all attempts.

    The message names the method, the address, the status and what to do. It never contains
    credentials.

    Attributes:
        status: The status of the last answer; 0 if there was no answer.
        is_limit: Whether a limit of requests was the reason, which passes.
    """

    def __init__(self, message: str, status: int = 0, is_limit: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.is_limit = is_limit

    @property
    def is_unreadable(self) -> bool:
        """Whether the account may not read it, or it is gone: `BaseConnector.skip` is for that."""
        return self.status in UNREADABLE and not self.is_limit

    @property
    def is_of_one(self) -> bool:
        """Whether the server refuses this one request, and may well answer others.

        Without an answer, with one that the server fails, and where it refuses the account or asks
        for a wait that is too long, others would end in the same way.
        """
        is_own = 400 <= self.status < 500 and self.status not in _OF_ALL
        return is_own and not self.is_limit


class BodyTooLargeError(HttpError):
    """An answer of more bytes than the client takes.

    Attributes:
        size: How many bytes it has at least.
    """

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size

    @property
    def is_of_one(self) -> bool:
        """True: other answers may be smaller."""
        return True


class TokenExpiredError(HttpError):
    """The token expired: it is renewed, and the request is sent again.

    A judge returns it. It is raised if a new token does not help.
    """


class PassedOverError(HttpError):
    """An answer that may be passed over: the reader goes on as if there were no records.

    A judge returns it. It is raised once there is no reason to send the request again.
    """


_PORTS = {"http": 80, "https": 443}
_AMPERSAND = re.compile(r"&(?:amp|#38|#x26);", re.I)
# An address without a query or a fragment, to which a query can be added as it is.
_PLAIN = re.compile(r"https?://[!-\"$->@-~]+")
_LINE_BREAK = re.compile(r"[\t\r\n]")


def parsed(url: str) -> Url:
    """Returns the parts of an address, as the code that opens connections reads them.

    Raises:
        ConnectorError: it is not an HTTP address.
    """
    try:
        parts = parse_url(url)
    except LocationParseError:
        parts = Url()
    if parts.scheme not in _PORTS or not parts.host:
        raise ConnectorError(
            f"{shown(url)!r} is not an address of HTTP; only http:// and https:// are opened"
        )
    return parts


@lru_cache(maxsize=1024)
def origin_of(url: str) -> str:
    """Returns `https://host:443` for an address.

    Raises:
        ConnectorError: it is no address of HTTP.
    """
    parts = parsed(url)
    host = (parts.host or "").rstrip(".")
    return f"{parts.scheme}://{host}:{parts.port or _PORTS[parts.scheme or '']}"


def checked_base(url: str) -> str:
    """Returns the base address of a client, without a slash at its end.

    Raises:
        ConfigError: it is not an HTTP address, or it contains a password, a query or a fragment.
    """
    try:
        parts = parsed(url)
    except ConnectorError as error:
        message = str(error)
    else:
        if parts.auth is None and parts.query is None and parts.fragment is None:
            return url.strip().rstrip("/")
        message = (
            f"base_url is {shown(url)!r}; write it without user, query and fragment, and give "
            "credentials as auth"
        )
    raise ConfigError(message)


def joined(base: str, url: str) -> str:
    """Returns `url` as an absolute address.

    `items` is below the base, `/items` is at the root of its host, and `?page=2` is the base with
    that query.

    Raises:
        ConnectorError: it is not an address.
    """
    if not url or url.startswith("?"):
        return base + url
    try:
        return urljoin(base + "/", url)
    except ValueError:
        pass
    raise ConnectorError(f"{redact(url)!r} is not an address")


def linked(url: str, link: str) -> str:
    """Returns an address in an answer as an absolute one.

    It accepts what servers write: addresses relative to the answer or to its scheme, `&amp;` for
    `&`, blanks, a fragment, capitals in scheme and host, and the default port of the scheme.

    Args:
        url: The address of the answer.
        link: The link; text that is not an address stays as it is.
    """
    text = _AMPERSAND.sub("&", _LINE_BREAK.sub("", link.strip())).replace(" ", "%20")
    try:
        parts = urlsplit(urljoin(url, text))
        user, at, host = parts.netloc.rpartition("@")
        host = host.lower()
        if parts.scheme in _PORTS:
            host = host.removesuffix(f":{_PORTS[parts.scheme]}")
    except ValueError:
        return link
    return urlunsplit(parts._replace(netloc=f"{user}{at}{host}", fragment=""))


@lru_cache(maxsize=1024)
def _place_of(url: str) -> str:
    return linked(url, "")


def at_own(url: str, base: str, names: Collection[str], others: Collection[str]) -> str:
    """Returns an address of our server under the name that we use for it.

    Servers behind a proxy often do not know the scheme, port or name of their public address, and
    write their internal one into links. Addresses of other servers stay as they are.

    Args:
        url: The address.
        base: An address of our server.
        names: Origins that are other names of it.
        others: Origins that are other servers, even if they look like ours.

    Raises:
        ConnectorError: it is no address of HTTP.
    """
    own, origin = origin_of(base), origin_of(url)
    if origin == own or origin in others:
        return url
    here, there = parsed(base), parsed(url)
    port = int(own.rpartition(":")[2])
    is_alike = here.host == there.host and there.port in (None, port, *_PORTS.values())
    if not is_alike and origin not in names:
        return url
    parts = urlsplit(base)
    return urlunsplit(urlsplit(url)._replace(scheme=parts.scheme, netloc=parts.netloc))


def encoded_pairs(params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns names and values for a query or a form.

    None is left out, lists repeat the name, and True becomes `true`.
    """
    pairs: list[tuple[str, str]] = []
    for name, value in params.items():
        values = value if isinstance(value, list | tuple) else [value]
        pairs.extend((name, _text(one)) for one in values if one is not None)
    return pairs


def with_query(url: str, params: Mapping[str, Any]) -> str:
    """Returns the address with `params` in its query, which replace any with the same names."""
    pairs = encoded_pairs(params)
    if not pairs:
        return url
    added = urlencode(pairs, safe=":,/@", quote_via=quote)
    if _PLAIN.fullmatch(url):
        return f"{url}?{added}"
    parts = urlsplit(without_query(url, {name for name, _ in pairs}))
    return urlunsplit(parts._replace(query=f"{parts.query}&{added}" if parts.query else added))


def without_query(url: str, names: Iterable[str]) -> str:
    """Returns the address without the parameters with these names; the others stay as written."""
    gone = set(names)
    parts = urlsplit(url)
    kept = [
        piece
        for piece in parts.query.split("&")
        if piece and unquote_plus(piece.partition("=")[0]) not in gone
    ]
    return urlunsplit(parts._replace(query="&".join(kept)))


def shown(url: str) -> str:
    """Returns the address for messages: without secrets, user and long query."""
    # First, because secrets cannot be recognized in the form that is made below.
    url = redact(url)
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        names = [
            (name, STARS if looks_secret(name) or len(value) > 100 else redact(value))
            for name, value in parse_qsl(parts.query, keep_blank_values=True)
        ]
    except ValueError:
        return url.partition("?")[0]
    query = urlencode(names, safe="*[]:,/@", quote_via=quote)
    return redact(urlunsplit((parts.scheme, host, parts.path, query, "")))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


logger = logging.getLogger("contextframe_beam.http")

_FILTER = RedactingFilter()
_CHATTY = (
    "urllib3.connectionpool",
    "urllib3.connection",
    "urllib3.poolmanager",
    "urllib3.util.retry",
)

for _name in (logger.name, *_CHATTY):
    logging.getLogger(_name).addFilter(_FILTER)


_STANDARD = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "http"})


class JsonFormatter(logging.Formatter):
    """Writes each log record as one line of JSON without secrets.

    Fields: time, level, logger, message; for a request, method, host, path, status, ms and
    attempt; the fields of `extra={...}`; and exception, if there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        given = {name: one for name, one in vars(record).items() if name not in _STANDARD}
        line: dict[str, object] = {
            **redacted(encode_item(given)),
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
            **getattr(record, "http", {}),
        }
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            line["exception"] = redact(record.exc_text)
        return json.dumps(line, default=str)


def log_request(method: str, url: str, status: int | str, seconds: float, attempt: int) -> None:
    """Logs one request, if its level is enabled.

    Args:
        method: GET, POST, ...
        url: The address; only its host and path are written.
        status: The answer's status, or a word for what happened instead.
        seconds: From the request to the end of the body.
        attempt: 1 for the first.
    """
    if not logger.isEnabledFor(logging.DEBUG):
        return
    parts = urlsplit(url)
    fields = {
        "method": method,
        "host": parts.netloc.rpartition("@")[2],
        "path": redact(parts.path or "/"),
        "status": status,
        "ms": round(seconds * 1000, 1),
        "attempt": attempt,
    }
    logger.debug(
        "%(method)s %(host)s%(path)s %(status)s in %(ms)s ms, attempt %(attempt)d",
        fields,
        extra={"http": fields},
    )
