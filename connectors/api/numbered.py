"""Paginators that can ask for any page: by its number, by an offset, by a range.

Where an answer tells the total, the pages of these are read in parallel. A total may lie, so it
never ends the pages by itself: only a page that is empty, or shorter than the others, does.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from contextframe_beam.connectors.api.answer import Answer, as_count
from contextframe_beam.connectors.api.evidence import (
    Stated,
    in_content_range,
    pages_of,
    stated_by,
    total_of,
)
from contextframe_beam.connectors.api.paginate import Paginator, Place, has_more
from contextframe_beam.connectors.http.request import HttpRequest

_NOT_THERE = (404, 416)
# How APIs refuse what lies behind the end. Behind a total they mean no more than that.
_REFUSED = (400, 404, 410, 416, 422)


@dataclass(frozen=True, slots=True)
class At:
    """Which page a request asks for.

    Attributes:
        position: The page's number, or the offset of its first record.
        size: How many records a full page has, once that is known.
        past: Whether the answers' own total says that there is no such page.
    """

    position: int
    size: int | None = None
    past: bool = False

    def __repr__(self) -> str:
        return str(self.position)


class Numbered(Paginator):
    """A paginator that can ask for any page."""

    __slots__ = ()

    @abstractmethod
    def page_at(self, index: int, size: int | None) -> At:
        """Returns the token of a page.

        Args:
            index: Its number, from 0.
            size: How many records a full page has, as `full_page` said.
        """

    @abstractmethod
    def full_page(self, answer: Answer, items: Sequence[Any]) -> int | None:
        """Returns how many records a full page has, as the first one shows; None if it does not."""

    def is_counted(self, token: At) -> bool:
        # Behind a total that was reached nothing is expected.
        return not token.past

    def missing(self, token: At, answer: Answer, items: Sequence[Any]) -> At | None:
        """Returns the token of what a page lacks of the range that was asked for."""
        return None


@dataclass(frozen=True, slots=True)
class _Settings:
    size: int | None = None
    has_more: str | None = None
    stop_at_short_page: bool = False
    end_status: tuple[int, ...] = ()


class _Counted(Numbered):
    """What numbers and offsets have in common."""

    __slots__ = ()

    @property
    @abstractmethod
    def _settings(self) -> _Settings:
        """What both can be told."""

    @abstractmethod
    def _total(self, answer: Answer) -> int | None:
        """Returns how many records there are."""

    @abstractmethod
    def _reached(self, token: At, answer: Answer, items: Sequence[Any]) -> bool | None:
        """Tells whether the total says that this page is the last; None when there is none."""

    @abstractmethod
    def _following(self, token: At, items: Sequence[Any], size: int | None, past: bool) -> At:
        """Returns the token after a page."""

    def stated(self, answer: Answer, items: Sequence[Any]) -> Stated | None:
        return stated_by(self._total(answer), self._pages(answer), items)

    def _pages(self, answer: Answer) -> int | None:
        """Returns how many pages there are."""
        return None

    def next(self, token: At, answer: Answer, items: Sequence[Any]) -> At | None:
        settings = self._settings
        more = has_more(answer, settings.has_more)
        if more is False or (not items and not more):
            return None
        if more:
            return self._following(token, items, token.size, past=False)
        full = token.size or settings.size
        short = full is not None and len(items) < full
        reached = self._reached(token, answer, items)
        if reached is None:
            if short and settings.stop_at_short_page:
                return None
            return self._following(token, items, token.size, past=False)
        if not reached:
            # APIs cap what they are asked for: a page that is not the last is a full one.
            return self._following(token, items, token.size or len(items), past=False)
        return None if short else self._following(token, items, token.size, past=True)

    def total_pages(self, answer: Answer, items: Sequence[Any]) -> int | None:
        total = self._total(answer)
        size = len(items) or self._settings.size
        # What is below the number of records on one page is not the total.
        if total is None or not size or total < len(items):
            return None
        return -(-total // size)

    def full_page(self, answer: Answer, items: Sequence[Any]) -> int | None:
        if items and (self.total_pages(answer, items) or 0) > 1:
            return len(items)
        return self._settings.size

    def ends_at(self, token: At, status: int) -> bool:
        first: At = self.start()
        if token.position == first.position:
            return False
        refusals = _REFUSED if token.past else _NOT_THERE
        return status in refusals or status in self._settings.end_status


@dataclass(frozen=True, slots=True)
class PageNumber(_Counted):
    """Pages have numbers.

    Attributes:
        param: Where the number goes.
        first: The number of the first page, usually 0 or 1.
        size: How many records a page is asked to have.
        size_param: Where the size goes, such as `per_page`.
        total: The path of the number of records, `header:X-Total` for a header; if neither it nor
            `pages` is given, both are looked for under their usual names.
        pages: The path of the number of pages, or `header:...`; a `Link` header to the last page
            tells as well.
        has_more: The path of a flag that ends the pages when it is false; looked for under its
            usual names when not given.
        stop_at_short_page: Whether a page of fewer than `size` records is the last one where
            nothing else tells. This saves the request for the empty page behind it, and loses
            records if the API gives smaller pages than it is asked for.
        end_status: HTTP errors by which this API says that there is no such page; 404 and 416
            always do.
    """

    param: str = "page"
    first: int = 1
    size: int | None = None
    size_param: str | None = None
    total: str | None = None
    pages: str | None = None
    has_more: str | None = None
    stop_at_short_page: bool = False
    end_status: tuple[int, ...] = ()

    @property
    def _settings(self) -> _Settings:
        return _Settings(self.size, self.has_more, self.stop_at_short_page, self.end_status)

    def start(self) -> At:
        return At(self.first)

    def page_at(self, index: int, size: int | None) -> At:
        return At(self.first + index, size)

    def apply(self, request: HttpRequest, token: At) -> HttpRequest:
        request = Place.of(self.param).put(request, token.position)
        if self.size and self.size_param:
            request = Place.of(self.size_param).put(request, self.size)
        return request

    def total_pages(self, answer: Answer, items: Sequence[Any]) -> int | None:
        pages = self._pages(answer)
        return pages or _Counted.total_pages(self, answer, items)

    def _pages(self, answer: Answer) -> int | None:
        if self.total is not None and self.pages is None:
            return None
        if self.pages is None and "last" in answer.links:
            query = dict(parse_qsl(urlsplit(answer.links["last"]).query))
            last = as_count(query.get(Place.of(self.param).name))
            if last is not None:
                return last - self.first + 1
        return pages_of(answer, self.pages)

    def _total(self, answer: Answer) -> int | None:
        if self.pages is not None and self.total is None:
            return None
        return total_of(answer, self.total)

    def _reached(self, token: At, answer: Answer, items: Sequence[Any]) -> bool | None:
        index = token.position - self.first
        pages = self._pages(answer)
        if pages:
            return index + 1 >= pages
        seen = index * (token.size or self.size or len(items)) + len(items)
        return _is_reached(self._total(answer), seen)

    def _following(self, token: At, items: Sequence[Any], size: int | None, past: bool) -> At:
        return At(token.position + 1, size, past)


class _ByOffset(_Counted):
    """What offsets and ranges have in common: a page begins behind so many records."""

    __slots__ = ()

    def start(self) -> At:
        return At(0)

    def page_at(self, index: int, size: int | None) -> At:
        return At(index * (size or self._settings.size or 0), size)

    def missing(self, token: At, answer: Answer, items: Sequence[Any]) -> At | None:
        size = token.size or self._settings.size or 0
        if not 0 < len(items) < size or self._reached(token, answer, items):
            return None
        return At(token.position + len(items), size - len(items), token.past)

    def _reached(self, token: At, answer: Answer, items: Sequence[Any]) -> bool | None:
        return _is_reached(self._total(answer), token.position + len(items))

    def _following(self, token: At, items: Sequence[Any], size: int | None, past: bool) -> At:
        return At(token.position + (len(items) or size or self._settings.size or 1), size, past)


@dataclass(frozen=True, slots=True)
class Offset(_ByOffset):
    """A page begins behind so many records.

    Attributes:
        param: Where the offset goes.
        size: How many records a page is asked to have.
        size_param: Where the size goes.
        total: The path of the number of records, `header:X-Total` for a header; looked for under
            its usual names when not given.
        has_more: The path of a flag that ends the pages when it is false; looked for under its
            usual names when not given.
        stop_at_short_page: As for `PageNumber`.
        end_status: As for `PageNumber`.
    """

    param: str = "offset"
    size: int | None = None
    size_param: str | None = "limit"
    total: str | None = None
    has_more: str | None = None
    stop_at_short_page: bool = False
    end_status: tuple[int, ...] = ()

    @property
    def _settings(self) -> _Settings:
        return _Settings(self.size, self.has_more, self.stop_at_short_page, self.end_status)

    def apply(self, request: HttpRequest, token: At) -> HttpRequest:
        request = Place.of(self.param).put(request, token.position)
        size = (token.size or self.size) if self.size else None
        if size and self.size_param:
            request = Place.of(self.size_param).put(request, size)
        return request

    def _total(self, answer: Answer) -> int | None:
        return total_of(answer, self.total)


@dataclass(frozen=True, slots=True)
class Range(_ByOffset):
    """A `Range` header asks for records by number, and `Content-Range` tells the total.

    Attributes:
        size: How many records are asked for at once.
        unit: The unit of the header.
    """

    size: int = 100
    unit: str = "items"

    @property
    def _settings(self) -> _Settings:
        return _Settings(self.size)

    def apply(self, request: HttpRequest, token: At) -> HttpRequest:
        last = token.position + (token.size or self.size) - 1
        return Place("header", "Range").put(request, f"{self.unit}={token.position}-{last}")

    def next(self, token: At, answer: Answer, items: Sequence[Any]) -> At | None:
        if answer.status == 200 and answer.header("Content-Range") is None:
            return None  # the header was ignored: this is everything
        return _Counted.next(self, token, answer, items)

    def ends_at(self, token: At, status: int) -> bool:
        return status == 416 or _Counted.ends_at(self, token, status)

    def _total(self, answer: Answer) -> int | None:
        return in_content_range(answer)


def _is_reached(total: int | None, seen: int) -> bool | None:
    # What is below the number of records that were seen is not the total.
    return None if total is None or total < seen else total == seen
