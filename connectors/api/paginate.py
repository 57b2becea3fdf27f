"""How an API pages: where a value goes in a request, and which page comes next."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from contextframe_beam.connectors.api import evidence
from contextframe_beam.connectors.api import evidence as totals
from contextframe_beam.connectors.api.answer import Answer, as_flag, value_at
from contextframe_beam.connectors.api.expression import read
from contextframe_beam.connectors.api.template import NOTHING, template
from contextframe_beam.connectors.http import request as urls
from contextframe_beam.connectors.http.request import HttpRequest
from contextframe_beam.connectors.mapper import kind_of, lookup
from contextframe_beam.connectors.plain_secrets import looks_secret
from contextframe_beam.connectors.record_mapper import quoted
from contextframe_beam.connectors.secrets import SecretReference, redact
from contextframe_beam.errors import ConnectorError

# Parameters that count pages or records from the front.
_COUNTED = re.compile(
    r"(?!per|itemsper|rowsper).*page(?:number|no|num|index)?|p|pg|.*offset|.*skip|from"
    r"|start(?:at|index|row|record)?"
)

WHERE = ("query", "header", "body", "form", "path")

#: A name alone is a query parameter; `header:X-Page` and `body:variables.after` name other places.
#: `query:date:min` is a query parameter with a colon in its name.
PATTERN = rf"^(?:(?:{'|'.join(WHERE)}):\S+|[^\s:]+)$"


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a request.

    Attributes:
        where: query, header, body, form or path.
        name: The parameter, header or field; in a body a dotted path such as `variables.after`;
            in a path the name of a placeholder, as in `/items/{page}`.
    """

    where: str
    name: str

    @classmethod
    def of(cls, text: str) -> Place:
        """Reads `page`, `header:X-Page`, `body:variables.after`, `form:page` or `path:page`."""
        where, colon, name = text.partition(":")
        return cls(where, name) if colon and where in WHERE else cls("query", text)

    def put(self, request: HttpRequest, value: Any) -> HttpRequest:
        """Returns the request with a value at this place."""
        if self.where == "query":
            return replace(request, params={**request.params, self.name: value})
        if self.where == "header":
            return replace(request, headers={**request.headers, self.name: str(value)})
        if self.where == "body":
            return replace(request, json=_with(request.json, self.name.split("."), value))
        if self.where == "form":
            return replace(request, form={**(request.form or {}), self.name: value})
        return replace(request, url=request.url.replace(f"{{{self.name}}}", quoted(value)))


def without_placeholder(request: HttpRequest, place: Place) -> HttpRequest:
    """Returns the request without a placeholder in its path and the slash before it."""
    if place.where != "path":
        return request
    url = re.sub(rf"/?\{{{re.escape(place.name)}\}}", "", request.url)
    return replace(request, url=url)


def is_counted(name: str, value: Any) -> bool:
    """Returns whether a parameter counts the pages or records before the requested page."""
    plain = re.sub(r"[^a-z]", "", name.lower())
    return _COUNTED.fullmatch(plain) is not None and re.fullmatch(r"\d+", str(value)) is not None


def _with(body: Any, names: list[str], value: Any) -> dict[str, Any]:
    changed = dict(body) if isinstance(body, Mapping) else {}
    if len(names) == 1:
        changed[names[0]] = value
    else:
        changed[names[0]] = _with(changed.get(names[0]), names[1:], value)
    return changed


_NOTHING: Any = object()

_SHOWN_CURSOR = 80


class Paginator(ABC):
    """How to get from page to page of an API."""

    __slots__ = ()

    def start(self) -> Any:
        """Returns the token of the first page; None if the first request has no token."""
        return None

    @abstractmethod
    def apply(self, request: HttpRequest, token: Any) -> HttpRequest:
        """Returns the request for the page of a token."""

    @abstractmethod
    def next(self, token: Any, answer: Answer, items: Sequence[Any]) -> Any:
        """Returns the token of the page after this one, or None if it was the last.

        Args:
            token: The token of this page.
            answer: The API's answer.
            items: All records of the page, before any filter.

        Raises:
            ConnectorError: the answer says that there is more, but not how to get it.
        """

    def total_pages(self, answer: Answer, items: Sequence[Any]) -> int | None:
        """Returns the number of pages, if the first shows it and any page can be asked for."""
        return None

    def ends_at(self, token: Any, status: int) -> bool:
        """Returns whether an HTTP error for this token means that there are no more pages."""
        return False

    def stated(self, answer: Answer, items: Sequence[Any]) -> totals.Stated | None:
        """Returns the total that a page of several states."""
        return totals.stated(answer, items)

    def is_counted(self, token: Any) -> bool:
        """Returns whether a token counts the pages or records before its page.

        If a record is deleted, another moves from such a page to the page before it.
        """
        return False

    def doubt(self, token: Any, answer: Answer, items: Sequence[Any]) -> str:
        """Returns why there may be a page after the one that `next` takes for the last, or ""."""
        return ""


@dataclass(frozen=True, slots=True)
class SinglePage(Paginator):
    """One request gives everything."""

    def apply(self, request: HttpRequest, token: Any) -> HttpRequest:
        return request

    def next(self, token: Any, answer: Answer, items: Sequence[Any]) -> None:
        return None

    def stated(self, answer: Answer, items: Sequence[Any]) -> None:
        return None


@dataclass(frozen=True, slots=True)
class CursorInBody(Paginator):
    """The answer holds a cursor, which goes into the next request.

    The pages end when the cursor is null, an empty text, false, 0 or missing.

    Attributes:
        cursor: The path of the cursor in the answer, or an expression about the answer, such as
            `{= records[-1].id }` or `{= headers['x-next'] }`.
        param: Where it goes; null where `{= cursor }` in the request stands for it.
        first: The cursor of the first request, for APIs that require one (`*`).
        has_more: The path of a flag that ends the pages when it is false.
        stop_when: An expression that ends the pages when it holds, such as `length(records) < 100`.
    """

    cursor: str
    param: str | None = "cursor"
    first: Any = None
    has_more: str | None = None
    stop_when: str | None = None

    def start(self) -> Any:
        return self.first

    def apply(self, request: HttpRequest, token: Any) -> HttpRequest:
        return _with_token(request, self.param, token)

    def is_counted(self, token: Any) -> bool:
        return self.param is not None and is_counted(Place.of(self.param).name, token)

    def next(self, token: Any, answer: Answer, items: Sequence[Any]) -> Any:
        if _stops(self.stop_when, token, answer, items):
            return None
        found = _computed(self.cursor, token, answer, items)
        return _cursor(found, self.has_more, answer, self.cursor)

    def doubt(self, token: Any, answer: Answer, items: Sequence[Any]) -> str:
        is_said = (
            self.stop_when is not None
            or template(self.cursor) is not None
            or is_there(answer.data, self.cursor)
            or _says(answer, self.has_more)
        )
        return "" if is_said or token != self.first else evidence.hints(answer, items)


@dataclass(frozen=True, slots=True)
class CursorInHeader(Paginator):
    """A header of the answer holds a cursor, which goes into the next request.

    Attributes:
        header: The header's name.
        param: Where the cursor goes.
        first: The cursor of the first request.
        has_more: The path, in the body, of a flag that ends the pages when it is false.
    """

    header: str
    param: str = "cursor"
    first: Any = None
    has_more: str | None = None

    def start(self) -> Any:
        return self.first

    def apply(self, request: HttpRequest, token: Any) -> HttpRequest:
        return _with_token(request, self.param, token)

    def is_counted(self, token: Any) -> bool:
        return is_counted(Place.of(self.param).name, token)

    def next(self, token: Any, answer: Answer, items: Sequence[Any]) -> Any:
        found = (answer.header(self.header) or "").strip()
        return _cursor(found, self.has_more, answer, f"header {self.header}")

    def doubt(self, token: Any, answer: Answer, items: Sequence[Any]) -> str:
        is_said = answer.header(self.header) is not None or _says(answer, self.has_more)
        return "" if is_said or token != self.first else evidence.hints(answer, items)


@dataclass(frozen=True, slots=True)
class Continuation(Paginator):
    """The answer holds an object of values, which all become parameters of the next request.

    As in `{"continue": {"apcontinue": "Baker", "continue": "-||"}}`. The pages end without it.

    Attributes:
        values: The path of the object.
    """

    values: str = "continue"

    def apply(self, request: HttpRequest, token: Any) -> HttpRequest:
        for name, value in (token or {}).items():
            request = Place("query", name).put(request, value)
        return request

    def is_counted(self, token: Any) -> bool:
        return any(is_counted(name, value) for name, value in (token or {}).items())

    def next(self, token: Any, answer: Answer, items: Sequence[Any]) -> dict[str, Any] | None:
        found = value_at(answer.data, self.values)
        if not found:
            return None
        if not isinstance(found, Mapping):
            raise ConnectorError(
                f"{self.values!r} is not an object of values but {kind_of(found)}; if it is a "
                "cursor, use a paginator of the type cursor"
            )
        return dict(found)

    def doubt(self, token: Any, answer: Answer, items: Sequence[Any]) -> str:
        is_said = token is not None or is_there(answer.data, self.values)
        return "" if is_said else evidence.hints(answer, items)


@dataclass(frozen=True, slots=True)
class LinkInBody(Paginator):
    """The answer holds the next page's address, absolute or relative.

    Attributes:
        link: Its path, such as `links.next`; an object with `href` or `url` will do as well, and so
            will a list of these objects, in which `rel` or `relation` marks the next one. Or an
            expression about the answer.
        stop_when: An expression that ends the pages when it holds.
    """

    link: str
    stop_when: str | None = None

    def apply(self, request: HttpRequest, token: Any) -> HttpRequest:
        return _at_link(request, token)

    def is_counted(self, token: Any) -> bool:
        return any(is_counted(*one) for one in parse_qsl(urlsplit(token or "").query))

    def next(self, token: Any, answer: Answer, items: Sequence[Any]) -> str | None:
        if _stops(self.stop_when, token, answer, items):
            return None
        value = _computed(self.link, token, answer, items)
        if isinstance(value, list):
            value = next((one for one in value if _is_next(one)), None)
        if isinstance(value, Mapping):
            value = value.get("href") or value.get("url") or value.get("uri")
        if value is None or value is False or value == "":
            return None
        if not isinstance(value, str):
            raise ConnectorError(
                f"the next link at {self.link!r} is {kind_of(value)}, not an address; if "
                "it is a number or a cursor, use a paginator of the type page or cursor"
            )
        return urls.linked(answer.url, value)

    def doubt(self, token: Any, answer: Answer, items: Sequence[Any]) -> str:
        is_said = (
            token is not None
            or self.stop_when is not None
            or template(self.link) is not None
            or is_there(answer.data, self.link)
        )
        return "" if is_said else evidence.hints(answer, items)


@dataclass(frozen=True, slots=True)
class LinkHeader(Paginator):
    """A header holds the next page's address: `Link` (RFC 8288), or a header with only the address.

    Attributes:
        rel: The relation of the link.
        header: The header's name, such as `Next-Page`.
    """

    rel: str = "next"
    header: str = "Link"

    def apply(self, request: HttpRequest, token: Any) -> HttpRequest:
        return _at_link(request, token)

    def is_counted(self, token: Any) -> bool:
        return any(is_counted(*one) for one in parse_qsl(urlsplit(token or "").query))

    def next(self, token: Any, answer: Answer, items: Sequence[Any]) -> str | None:
        plain = self.header.lower() != "link"
        target = (answer.header(self.header) or "").strip() if plain else answer.links.get(self.rel)
        return urls.linked(answer.url, target) if target else None

    def doubt(self, token: Any, answer: Answer, items: Sequence[Any]) -> str:
        is_said = token is not None or answer.header(self.header) is not None
        return "" if is_said else evidence.hints(answer, items)


@dataclass(frozen=True, slots=True)
class Unsized:
    """The id that a page comes after, if the API gives smaller pages than it is asked for."""

    value: Any

    def __repr__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True, slots=True)
class LastId(Paginator):
    """The next request names the last record of this page; an empty page ends the reading.

    Attributes:
        param: Where the id goes, such as `starting_after`.
        field: The path of the id in a record.
        has_more: The path of a flag that ends the pages when it is false; by default it is
            detected by its usual names.
        size: The number of records to ask for on a page; a shorter page is the last, unless the
            first page was already shorter.
        size_param: Where the size goes.
    """

    param: str
    field: str = "id"
    has_more: str | None = None
    size: int | None = None
    size_param: str | None = None

    def apply(self, request: HttpRequest, token: Any) -> HttpRequest:
        if self.size and self.size_param:
            request = Place.of(self.size_param).put(request, self.size)
        value = token.value if isinstance(token, Unsized) else token
        return _with_token(request, self.param, value)

    def next(self, token: Any, answer: Answer, items: Sequence[Any]) -> Any:
        more = has_more(answer, self.has_more)
        if more is False or not items:
            return None
        is_short = more is None and self.size is not None and len(items) < self.size
        is_unsized = isinstance(token, Unsized) or (is_short and token is None)
        if is_short and not is_unsized:
            return None
        last = lookup(items[-1], self.field)
        if last is None or last == "":
            raise ConnectorError(
                f"the last record of the page has no {self.field!r}, which the next request needs"
            )
        return Unsized(last) if is_unsized else last


@dataclass(frozen=True, slots=True)
class GraphQL(Paginator):
    """A GraphQL connection: `pageInfo { hasNextPage endCursor }`.

    Attributes:
        page_info: The path of `pageInfo` in the answer, such as `data.issues.pageInfo`.
        variable: The variable of the query that takes the cursor.
    """

    page_info: str
    variable: str = "after"

    def apply(self, request: HttpRequest, token: Any) -> HttpRequest:
        # Some REST APIs page like GraphQL.
        is_query = request.method != "GET"
        place = f"body:variables.{self.variable}" if is_query else self.variable
        return _with_token(request, place, token)

    def next(self, token: Any, answer: Answer, items: Sequence[Any]) -> Any:
        info = value_at(answer.data, self.page_info)
        if not isinstance(info, Mapping):
            raise ConnectorError(
                f"the answer has no {self.page_info!r}; the query must ask for "
                "pageInfo { hasNextPage endCursor }"
            )
        cursor = info.get("endCursor")
        more = as_flag(info.get("hasNextPage"))
        if more and not cursor:
            raise ConnectorError(
                f"{self.page_info} says that there is more, but has no endCursor; ask for it in "
                "the query"
            )
        if more and cursor == token:
            raise ConnectorError(
                f"{self.page_info} gave the endCursor {_shown(cursor)} again that was asked for, "
                f"so reading would never end; the query must hand it on, as in `first: 100, after: "
                f"${self.variable}`"
            )
        return cursor if more else None


def has_more(answer: Answer, path: str | None) -> bool | None:
    """Returns whether an answer says that there are more pages; None if it does not say.

    Args:
        answer: The answer.
        path: Where the flag is; None looks for the usual names.
    """
    return evidence.has_more(answer) if path is None else as_flag(value_at(answer.data, path))


def is_there(data: Any, path: str) -> bool:
    """Returns whether a path exists in an answer, even if its value is null."""
    return lookup(data, path, _NOTHING) is not _NOTHING


def _says(answer: Answer, flag: str | None) -> bool:
    return flag is not None and as_flag(value_at(answer.data, flag)) is not None


def _stops(condition: str | None, token: Any, answer: Answer, items: Sequence[Any]) -> bool:
    return condition is not None and bool(read(condition).value(_known(token, answer, items)))


def _computed(place: str, token: Any, answer: Answer, items: Sequence[Any]) -> Any:
    """Returns the value at a path of an answer, or of an expression about it."""
    found = template(place) if "{" in place else None
    if found is None:
        return value_at(answer.data, place)
    value = found.value(_known(token, answer, items))
    return None if value is NOTHING else value


def _known(token: Any, answer: Answer, items: Sequence[Any]) -> dict[str, Any]:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    records = items if isinstance(items, list) else list(items)
    return {"response": answer.data, "headers": headers, "records": records, "cursor": token}


def _is_next(link: Any) -> bool:
    return isinstance(link, Mapping) and "next" in (link.get("rel"), link.get("relation"))


def _cursor(value: Any, flag: str | None, answer: Answer, where: str) -> Any:
    more = has_more(answer, flag) if flag is not None else None
    if more is False:
        return None
    if value is None or value is False or value in ("", 0):
        if more:
            raise ConnectorError(
                f"{flag} says that there is more, but there is no cursor at {where!r}"
            )
        return None
    return value


def _shown(cursor: Any) -> str:
    text = redact(repr(cursor))
    return text if len(text) <= _SHOWN_CURSOR else text[:_SHOWN_CURSOR] + "..."


def _with_token(request: HttpRequest, param: str | None, token: Any) -> HttpRequest:
    if param is None:
        return request
    place = Place.of(param)
    return without_placeholder(request, place) if token is None else place.put(request, token)


def _at_link(request: HttpRequest, token: Any) -> HttpRequest:
    if token is None:
        return request
    # A link is complete: it already has the parameters of the first request, with their new values.
    # Only credentials are often left out.
    kept = {
        name: value
        for name, value in request.params.items()
        if isinstance(value, SecretReference) or looks_secret(name)
    }
    return replace(request, url=token, params=kept)
