"""Paginators that can ask for any page: by number, by offset, or by range.

If an answer states the total, their pages are read in parallel. A total may be wrong, so it never
ends the reading alone: only an empty page does, or one that is shorter than the others.
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
# How APIs refuse pages after the end. After a stated total, this is all that they mean.
_REFUSED = (400, 404, 410, 416, 422)


@dataclass(frozen=True, slots=True)
class At:
    """The page that a request asks for.

    Attributes:
        position: The page's number, or the offset of its first record.
        size: The number of records on a full page, once that is known.
        past: Whether the page lies after the total that the answers state.
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
            size: The number of records on a full page, from `full_page`.
        """

    @abstractmethod
    def full_page(self, answer: Answer, items: Sequence[Any]) -> int | None:
        """Returns the number of records on a full page, if the first page shows it."""

    def is_counted(self, token: At) -> bool:
        # After the stated total we expect no more records.
        return not token.past

    def missing(self, token: At, answer: Answer, items: Sequence[Any]) -> At | None:
        """Returns the token for the rest of the requested range that a page lacks."""
        return None


@dataclass(frozen=True, slots=True)
class _Settings:
    size: int | None = None
    has_more: str | None = None
    stop_at_short_page: bool = False
    end_status: tuple[int, ...] = ()


class _Counted(Numbered):
    """The common part of page numbers and offsets."""

    __slots__ = ()

    @property
    @abstractmethod
    def _settings(self) -> _Settings:
        """The settings that both have."""

    @abstractmethod
    def _total(self, answer: Answer) -> int | None:
        """Returns the total number of records."""

    @abstractmethod
    def _reached(self, token: At, answer: Answer, items: Sequence[Any]) -> bool | None:
        """Returns whether this page is the last by the total; None without a total."""

    @abstractmethod
    def _following(self, token: At, items: Sequence[Any], size: int | None, past: bool) -> At:
        """Returns the token after a page."""

    def stated(self, answer: Answer, items: Sequence[Any]) -> Stated | None:
        return stated_by(self._total(answer), self._pages(answer), items)

    def _pages(self, answer: Answer) -> int | None:
        """Returns the total number of pages."""
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
            # APIs cap the size that they are asked for: any page but the last is full.
            return self._following(token, items, token.size or len(items), past=False)
        return None if short else self._following(token, items, token.size, past=True)

    def total_pages(self, answer: Answer, items: Sequence[Any]) -> int | None:
        total = self._total(answer)
        size = len(items) or self._settings.size
        # A number smaller than one page is not the total.
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
    """Asks for pages by their number.

    Attributes:
        param: Where the number goes; null where `{= cursor }` in the request stands for it.
        first: The number of the first page, usually 0 or 1.
        size: The number of records to ask for on a page.
        size_param: Where the size goes, such as `per_page`.
        total: The path of the number of records, `header:X-Total` for a header; by default it is
            detected, unless `pages` is given.
        pages: The path of the number of pages, or `header:...`; by default it is detected, unless
            `total` is given. A `Link` header to the last page counts too.
        has_more: The path of a flag that ends the pages when it is false; by default it is
            detected by its usual names.
        stop_at_short_page: Whether a page of fewer than `size` records is the last one if nothing
            else shows it. This saves the request for the empty page at the end, but loses records
            if the API gives smaller pages than it is asked for.
        end_status: HTTP errors that mean that a page does not exist; 404 and 416 always do.
    """

    param: str | None = "page"
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
        if self.param is not None:
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
        if self.pages is None and self.param is not None and "last" in answer.links:
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
    """The common part of offsets and ranges: a page begins after a number of records."""

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
    """Asks for a page by the number of records before it.

    Attributes:
        param: Where the offset goes; null where `{= cursor }` in the request stands for it.
        size: The number of records to ask for on a page.
        size_param: Where the size goes.
        total: The path of the number of records, `header:X-Total` for a header; by default it is
            detected by its usual names.
        has_more: The path of a flag that ends the pages when it is false; by default it is
            detected by its usual names.
        stop_at_short_page: As for `PageNumber`.
        end_status: As for `PageNumber`.
    """

    param: str | None = "offset"
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
        if self.param is not None:
            request = Place.of(self.param).put(request, token.position)
        size = (token.size or self.size) if self.size else None
        if size and self.size_param:
            request = Place.of(self.size_param).put(request, size)
        return request

    def _total(self, answer: Answer) -> int | None:
        return total_of(answer, self.total)


@dataclass(frozen=True, slots=True)
class Range(_ByOffset):
    """Asks for records by number in a `Range` header; `Content-Range` states the total.

    Attributes:
        size: The number of records to ask for at once.
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
    # A number smaller than the records that we have seen is not the total.
    return None if total is None or total < seen else total == seen
