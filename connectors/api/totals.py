"""How many records or pages an answer states, and under which names APIs do so.

A total may lie, or mean something else: what is not above the number of records on one page of
several is a count of that page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contextframe_beam.connectors.api.answer import (
    Answer,
    as_count,
    usual_place,
    value_at,
)

#: How answers usually tell the number of items, and that of pages.
TOTAL_NAMES = (
    "total",
    "total_count",
    "totalCount",
    "total_items",
    "totalItems",
    "total_results",
    "totalResults",
    "total_records",
    "totalRecords",
    "totalElements",
    "total_elements",
    "totalSize",
    "total_size",
    "total_rows",
    "filtered_table_rows_count",
    "num_found",
    "numFound",
    "nbHits",
    "@odata.count",
    "count",
)
PAGES_NAMES = (
    "total_pages",
    "totalPages",
    "page_count",
    "pageCount",
    "num_pages",
    "numPages",
    "nbPages",
    "pages",
    "last_page",
    "lastPage",
)
_TOTAL_HEADER = re.compile(
    r"(?!.*(?:rate|quota))(?:x-)?(?:[a-z]+-)?total-?(?:count|records?|objects?|items?|results?|entries|elements)?$"
    r"|x-result-count$|x-count$",
    re.IGNORECASE,
)
_PAGES_HEADER = re.compile(
    r"(?:x-)?(?:[a-z]+-)?(?:total-?pages|pages?-?(?:count|total))$", re.IGNORECASE
)
#: What is counted.
RECORDS, PAGES = "records", "pages"


@dataclass(frozen=True, slots=True)
class Stated:
    """What an answer states about the whole.

    Attributes:
        number: How many there are.
        unit: Of what: records or pages.
    """

    number: int
    unit: str = RECORDS

    def __str__(self) -> str:
        return f"{self.number} {self.unit}"


def total_of(answer: Answer, path: str | None = None, *, is_sure: bool = False) -> int | None:
    """Returns the number of records that an answer states.

    Args:
        answer: The answer.
        path: Where it is; `header:X-Total` for a header; None looks for the usual names.
        is_sure: Leaves out what may also be the number of records on this page (`count`).
    """
    if path is not None:
        return _count_at(answer, path)
    found = named_total(answer, is_sure=is_sure)
    return None if found is None else found[1]


def named_total(answer: Answer, *, is_sure: bool = False) -> tuple[str, int] | None:
    """Returns the number of records that an answer states, and how it is called there."""
    names = tuple(name for name in TOTAL_NAMES if name != "count") if is_sure else TOTAL_NAMES
    found = usual_place(answer.data, names, as_count)
    if found is not None:
        return found
    # Beside the records, however deep these are, as in {"hits": {"total": 5, "hits": []}}.
    around = answer.place.rpartition(".")[0]
    beside = value_at(answer.data, around) if around else None
    if isinstance(beside, Mapping):
        found = usual_place(beside, names, _as_total)
        if found is not None:
            return f"{around}.{found[0]}", found[1]
    return _in_headers(answer, _TOTAL_HEADER) or _in_content_range(answer)


def in_content_range(answer: Answer) -> int | None:
    """Returns the total that a `Content-Range` of records states."""
    found = _in_content_range(answer)
    return None if found is None else found[1]


def pages_of(answer: Answer, path: str | None = None) -> int | None:
    """Returns the number of pages that an answer states; see `total_of`."""
    if path is not None:
        return _count_at(answer, path)
    found = usual_place(answer.data, PAGES_NAMES, as_count)
    found = found or _in_headers(answer, _PAGES_HEADER)
    return None if found is None else int(found[1])


def stated(answer: Answer, items: Sequence[Any]) -> Stated | None:
    """Returns what one page of several states about the whole, None where it does not."""
    return stated_by(total_of(answer), pages_of(answer), items)


def stated_by(total: int | None, pages: int | None, items: Sequence[Any]) -> Stated | None:
    """Returns what a total and a number of pages state; the total where both are there."""
    if total is not None and total > len(items):
        return Stated(total)
    return Stated(pages, PAGES) if pages is not None and pages > 1 else None


def _count_at(answer: Answer, path: str) -> int | None:
    if path.startswith("header:"):
        return as_count(answer.header(path.removeprefix("header:")))
    return _as_total(value_at(answer.data, path))


def _as_total(value: Any) -> int | None:
    """Returns a total as a number, or as the object that search engines make of it."""
    return as_count(value.get("value") if isinstance(value, Mapping) else value)


def _in_headers(answer: Answer, name: re.Pattern[str]) -> tuple[str, int] | None:
    for key, text in answer.headers.items():
        count = as_count(text) if name.fullmatch(key) else None
        if count is not None:
            return key, count
    return None


def _in_content_range(answer: Answer) -> tuple[str, int] | None:
    given = answer.header("Content-Range") or ""
    count = None if given.startswith("bytes") else as_count(given.rpartition("/")[2])
    return None if count is None else ("Content-Range", count)
