"""Detects how an API pages from its first answer, if the configuration does not say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

from contextframe_beam.connectors.api.answer import Answer, as_count, as_flag, usual_place
from contextframe_beam.connectors.api.evidence import (
    HAS_MORE_NAMES,
    named_total,
    next_address,
    pages_of,
    total_of,
    undecided,
)
from contextframe_beam.connectors.api.numbered import Offset, PageNumber, Range
from contextframe_beam.connectors.api.paginate import (
    Continuation,
    CursorInBody,
    CursorInHeader,
    GraphQL,
    LinkHeader,
    LinkInBody,
    Paginator,
    SinglePage,
    has_more,
)
from contextframe_beam.connectors.http.request import HttpRequest
from contextframe_beam.errors import ConnectorError

_LINK_NAMES = (
    "next",
    "next_url",
    "nextUrl",
    "next_link",
    "nextLink",
    "@odata.nextLink",
    "next_page_url",
    "nextPageUrl",
    "next_page_link",
    "next_uri",
    "nextUri",
    "next_href",
    "nextHref",
    "next_page",
    "nextPage",
)
# The parameter that usually takes the cursor with this name.
_CURSOR_PARAMS = {
    "next_cursor": "cursor",
    "nextCursor": "cursor",
    "next_page_token": "page_token",
    "nextPageToken": "pageToken",
    "next_token": "next_token",
    "nextToken": "nextToken",
    "next_page_cursor": "cursor",
    "after": "after",
    "end_cursor": "after",
    "endCursor": "after",
    "continuation_token": "continuation_token",
    "continuationToken": "continuationToken",
    "cursor": "cursor",
    "offset": "offset",
}
# Objects with several values for the next request.
_CONTINUATION_NAMES = ("continue", "continuation", "query-continue", "next_params", "nextParams")
_PAGE_PARAMS = {
    "page": "page",
    "current_page": "page",
    "currentPage": "page",
    "page_number": "page_number",
    "pageNumber": "pageNumber",
    "number": "page",
}
_OFFSET_NAMES = ("offset", "skip", "startAt", "start_at", "start", "from")
_LIMIT_NAMES = ("limit", "maxResults", "max_results", "count", "per_page", "page_size", "size")
_NEXT_PAGE_NAMES = ("next_page", "nextPage", "next_page_number", "nextPageNumber")
_DEEPEST = 6


@dataclass(frozen=True, slots=True)
class Found:
    """The token of a page after the first one: how the API pages, and its own token."""

    paginator: Paginator
    token: Any

    def __repr__(self) -> str:
        return repr(self.token)


@dataclass(frozen=True, slots=True)
class Detect(Paginator):
    """Detects how to get from page to page from the first answer."""

    def apply(self, request: HttpRequest, token: Found | None) -> HttpRequest:
        return request if token is None else token.paginator.apply(request, token.token)

    def next(self, token: Found | None, answer: Answer, items: Sequence[Any]) -> Found | None:
        if token is None:
            paginator = detect(answer, items)
            following = paginator.next(_first_token(paginator), answer, items)
        else:
            paginator = token.paginator
            following = paginator.next(token.token, answer, items)
        return None if following is None else Found(paginator, following)

    def total_pages(self, answer: Answer, items: Sequence[Any]) -> int | None:
        return detect(answer, items).total_pages(answer, items)

    def ends_at(self, token: Found | None, status: int) -> bool:
        return token is not None and token.paginator.ends_at(token.token, status)

    def is_counted(self, token: Found | None) -> bool:
        return token is not None and token.paginator.is_counted(token.token)

    def doubt(self, token: Found | None, answer: Answer, items: Sequence[Any]) -> str:
        if token is not None:
            return token.paginator.doubt(token.token, answer, items)
        why = undecided(answer, items) if isinstance(detect(answer, items), SinglePage) else ""
        return why and (
            f"{why}; say how it goes on under paginator, or paginator: single if one page is all"
        )


def detect(answer: Answer, items: Sequence[Any]) -> Paginator:
    """Returns how an API pages.

    Args:
        answer: Its first answer, to a request without any parameters about pages.
        items: The records in it.

    Raises:
        ConnectorError: there are more records, but the answer does not show how to request them.
    """
    for find in (
        _by_link,
        _by_range,
        _by_number,
        _by_offset,
        _by_continuation,
        _by_cursor,
        _by_next_page,
        _by_any_address,
    ):
        found = find(answer, items)
        if found is not None:
            return found
    named = usual_place(answer.data, _LINK_NAMES, _as_something)
    if named is not None:
        raise _unclear(f"the answer names a next page at {named[0]!r}")
    if has_more(answer, None):
        raise _unclear("the answer says that there is more")
    total = named_total(answer)
    if total is not None and total[1] > len(items) > 0:
        raise _unclear(f"{total[0]!r} is {total[1]}, and this page has {len(items)} records")
    return SinglePage()


def _unclear(what: str) -> ConnectorError:
    return ConnectorError(
        f"{what}, but how to ask for the next page could not be found out; set 'paginator', for "
        "instance to {type: page} or {type: offset, size: 100}"
    )


def _first_token(paginator: Paginator) -> Any:
    return paginator.start()


def _by_link(answer: Answer, items: Sequence[Any]) -> Paginator | None:
    link = answer.links.get("next")
    found = None if link else usual_place(answer.data, _LINK_NAMES, _as_link)
    if link is None and found is None:
        return None
    numbered = _numbered_by(link or found[1], answer, items)  # type: ignore[index]
    if numbered is not None and numbered.total_pages(answer, items) is not None:
        return numbered
    return LinkHeader() if found is None else LinkInBody(found[0])


def _numbered_by(link: str, answer: Answer, items: Sequence[Any]) -> Paginator | None:
    """Returns a paginator by number, if that is all that the next link does."""
    asked, following = urlsplit(answer.url), urlsplit(urljoin(answer.url, link))
    here, there = dict(parse_qsl(asked.query)), dict(parse_qsl(following.query))
    # A size that the server adds is its default; it does not change what page 2 is.
    changed = [name for name in there if here.get(name) != there[name] and name not in _LIMIT_NAMES]
    if asked[:3] != following[:3] or len(changed) != 1 or not set(here) <= set(there):
        return None
    name, number = changed[0], as_count(there[changed[0]])
    count = len(items)
    if number is None or number == count in (1, 2):
        return None
    if name in _OFFSET_NAMES and number == count and as_count(here.get(name, 0)) == 0:
        size = next((limit for limit in _LIMIT_NAMES if limit in there), None)
        return Offset(param=name, size=count, size_param=size)
    if (
        name in _PAGE_PARAMS
        and number in (1, 2)
        and as_count(here.get(name, number - 1)) == number - 1
    ):
        return PageNumber(param=name, first=number - 1)
    return None


def _as_link(value: Any) -> str | None:
    if isinstance(value, Mapping):
        value = value.get("href") or value.get("url")
    if isinstance(value, str) and (value.startswith(("/", "?")) or "://" in value):
        return value
    return None


def _as_something(value: Any) -> Any:
    return value if isinstance(value, str | Mapping) and value else None


def _by_range(answer: Answer, items: Sequence[Any]) -> Paginator | None:
    unit, _, extent = (answer.header("Content-Range") or "").partition(" ")
    if answer.status != 206 or not extent or not items:
        return None
    return Range(size=len(items), unit=unit)


def _by_number(answer: Answer, items: Sequence[Any]) -> Paginator | None:
    page = usual_place(answer.data, tuple(_PAGE_PARAMS), as_count)
    counted = total_of(answer) is not None or pages_of(answer) is not None
    if page is None or page[1] > 1 or not (counted or has_more(answer, None) is not None):
        return None
    return PageNumber(param=_PAGE_PARAMS[page[0].rpartition(".")[2]], first=page[1])


def _by_offset(answer: Answer, items: Sequence[Any]) -> Paginator | None:
    offset = usual_place(answer.data, _OFFSET_NAMES, as_count)
    if offset is None or offset[1] != 0:
        return None
    container = offset[0].rpartition(".")[0]
    limit = usual_place(answer.data, _LIMIT_NAMES, as_count)
    if limit is None or limit[0].rpartition(".")[0] != container or not limit[1]:
        return None
    name = limit[0].rpartition(".")[2]
    # A count beside the offset is the number on this page, not the number that was requested.
    return Offset(
        param=offset[0].rpartition(".")[2],
        size=limit[1],
        size_param=None if name == "count" else name,
    )


def _by_continuation(answer: Answer, items: Sequence[Any]) -> Paginator | None:
    found = usual_place(answer.data, _CONTINUATION_NAMES, _as_values)
    return None if found is None else Continuation(found[0])


def _as_values(value: Any) -> Any:
    if not isinstance(value, Mapping) or not value:
        return None
    return value if all(isinstance(one, str | int | float) for one in value.values()) else None


def _by_any_address(answer: Answer, items: Sequence[Any]) -> Paginator | None:
    found = next_address(answer)
    if found is None:
        return None
    return LinkInBody(found.path) if found.path else LinkHeader(header=found.name)


def _by_cursor(answer: Answer, items: Sequence[Any]) -> Paginator | None:
    info = _page_info(answer.data, "", 0)
    if info is not None:
        return GraphQL(page_info=info)
    found = usual_place(answer.data, tuple(_CURSOR_PARAMS), _as_cursor)
    if found is None:
        header = next((n for n in ("X-Next-Cursor", "X-Next-Page") if answer.header(n)), None)
        if header is None:
            return None
        return CursorInHeader(header, param="page" if header == "X-Next-Page" else "cursor")
    name = found[0].rpartition(".")[2]
    # A number with this name is where this page begins.
    if name == "offset" and as_count(found[1]) is not None:
        return None
    flag = usual_place(answer.data, HAS_MORE_NAMES, as_flag)
    return CursorInBody(found[0], param=_CURSOR_PARAMS[name], has_more=flag and flag[0])


def _as_cursor(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return value or None


def _by_next_page(answer: Answer, items: Sequence[Any]) -> Paginator | None:
    found = usual_place(answer.data, _NEXT_PAGE_NAMES, as_count)
    return None if found is None or not found[1] else CursorInBody(found[0], param="page")


def _page_info(data: Any, path: str, depth: int) -> str | None:
    """Returns where a GraphQL connection's `pageInfo` is."""
    if not isinstance(data, Mapping) or depth > _DEEPEST:
        return None
    for name, value in data.items():
        here = f"{path}.{name}" if path else str(name)
        if name == "pageInfo" and isinstance(value, Mapping):
            return here if as_flag(value.get("hasNextPage")) is not None else None
        found = _page_info(value, here, depth + 1)
        if found is not None:
            return found
    return None
