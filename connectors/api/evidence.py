"""What an answer proves: that it is the last page, that there is more, how many records there are.

A total may be wrong, or mean something else: a number no larger than one page of several is a
count of that page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urljoin, urlsplit

from contextframe_beam.connectors.api.answer import (
    RECORD_NAMES,
    ROOT,
    Answer,
    as_count,
    as_flag,
    usual_place,
    value_at,
)

#: The usual names for the number of items, and for the number of pages.
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
#: What a total counts.
RECORDS, PAGES = "records", "pages"


@dataclass(frozen=True, slots=True)
class Stated:
    """The total that an answer states.

    Attributes:
        number: The total.
        unit: What it counts: records or pages.
    """

    number: int
    unit: str = RECORDS

    def __str__(self) -> str:
        return f"{self.number} {self.unit}"


def total_of(answer: Answer, path: str | None = None, *, is_sure: bool = False) -> int | None:
    """Returns the number of records that an answer states.

    Args:
        answer: The answer.
        path: Where the number is; `header:X-Total` for a header; None looks for the usual names.
        is_sure: Ignores names that may also mean the number of records on this page (`count`).
    """
    if path is not None:
        return _count_at(answer, path)
    found = named_total(answer, is_sure=is_sure)
    return None if found is None else found[1]


def named_total(answer: Answer, *, is_sure: bool = False) -> tuple[str, int] | None:
    """Returns the number of records that an answer states, with the name it has there."""
    names = tuple(name for name in TOTAL_NAMES if name != "count") if is_sure else TOTAL_NAMES
    found = usual_place(answer.data, names, as_count)
    if found is not None:
        return found
    # Beside the records at any depth, as in {"hits": {"total": 5, "hits": []}}.
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
    """Returns the total that one page of several states, or None."""
    return stated_by(total_of(answer), pages_of(answer), items)


def stated_by(total: int | None, pages: int | None, items: Sequence[Any]) -> Stated | None:
    """Returns the total of records, or else of pages, from what an answer states."""
    if total is not None and total > len(items):
        return Stated(total)
    return Stated(pages, PAGES) if pages is not None and pages > 1 else None


def _count_at(answer: Answer, path: str) -> int | None:
    if path.startswith("header:"):
        return as_count(answer.header(path.removeprefix("header:")))
    return _as_total(value_at(answer.data, path))


def _as_total(value: Any) -> int | None:
    """Returns a total from a number, or from the object that search engines give."""
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


#: How answers usually say that there are more pages.
HAS_MORE_NAMES = (
    "has_more",
    "hasMore",
    "has_next",
    "hasNext",
    "has_next_page",
    "hasNextPage",
    "has_more_items",
    "hasMoreItems",
    "has_more_results",
    "hasMoreResults",
    "more_results",
    "moreResults",
    "is_truncated",
    "isTruncated",
    "more",
)
# How they say that they stopped before the end.
_CUT_NAMES = ("truncated", "incomplete_results", "incompleteResults", "timed_out", "timedOut")
# Names are compared in lower case, by their letters and digits only.
_NEXT = re.compile(
    r".*next(?:page|cursor|token|url|uri|link|href|offset|start|marker|key|batch|results?|set|id"
    r"|number|address|query|skip|from|after|params|records?|items?|path)*"
)
_GOES_ON = re.compile(
    r".*(?:continue|continuation|cursor).*|.*token|.*offset|.*truncated|bookmark|marker|scrollid"
    r"|searchafter|(?:has|is)?more(?:results|items|pages|records|available|data)?"
)
_OTHER_TOKEN = re.compile(r".*(?:csrf|xsrf|access|auth|session|refresh|api|id|security|bearer).*")
_SYNC = re.compile(r"nextsynctoken|.*deltalink|.*deltatoken|.*synctoken")
_SIZE = re.compile(
    r".*(?:limit|perpage|pagesize|maxresults|hitsperpage|pagelen|itemsperpage|maxitems)"
    r"|size|top|first|rows|take|count"
)
# Links that lead to other pages than the next, in lists of links.
_HERE = re.compile(r".*(?:self|first|prev|previous|current|canonical|start)(?:page)?(?:url|link)?")
_OTHER_HEADERS = frozenset(
    ("location", "content-location", "referer", "link", "set-cookie", "vary")
)
_SPEAKS_OF_PAGES = ("first", "prev", "previous", "last")
#: An answer with this many records may be a page of more, if it does not say.
_COULD_BE_A_PAGE = 10
_DEEPEST = 6
_MOST_ELEMENTS = 50
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Field:
    """A value beside the records.

    Attributes:
        path: Where it is; "" for a header.
        name: Its key, or the header's name.
        value: A text, number, flag or null.
        relation: The `rel` of the link that it belongs to, in a list of links.
    """

    path: str
    name: str
    value: Any
    relation: str = ""

    @property
    def plain(self) -> str:
        """Its name, in lower-case letters and digits only."""
        return re.sub(r"[^a-z0-9]", "", (self.relation or self.name).lower())

    @property
    def around(self) -> list[str]:
        """The names of the objects around it."""
        return [re.sub(r"[^a-z0-9]", "", one.lower()) for one in self.path.split(".")[:-1]]

    @property
    def is_empty(self) -> bool:
        """Whether it is empty, or says no."""
        return self.value in (None, "", 0, False) or as_flag(self.value) is False

    def __str__(self) -> str:
        where = repr(self.path) if self.path else f"the header {self.name}"
        text = str(self.value)
        return f"{where} is {text[:_SHOWN]!r}{'...' if len(text) > _SHOWN else ''}"


def undecided(answer: Answer, items: Sequence[Any]) -> str:
    """Returns why there may be more than one page; "" if the answer proves that this is all.

    Args:
        answer: The only answer, to a request without a page.
        items: Its records.
    """
    if answer.status in (204, 205):
        return ""
    fields = list(fields_of(answer))
    hint = _hint(fields, answer)
    if hint:
        return hint
    if not items:
        return _nothing_there(answer)
    if _is_stated(answer, items, fields):
        return ""
    asked = _size_asked(answer)
    if asked is not None and asked[1] == len(items):
        return f"the answer has exactly the {len(items)} records that {asked[0]} asks for"
    if len(items) < _COULD_BE_A_PAGE or _is_one_record(answer):
        return ""
    if asked is not None and len(items) < asked[1] and _is_honoured(answer, asked[1], len(items)):
        return ""
    return f"the answer has {len(items)} records, and nothing in it says that these are all"


def hints(answer: Answer, items: Sequence[Any]) -> str:
    """Returns any sign of a further page beside the records, or "".

    For answers without the configured sign of a next page. Many APIs end that way, but a wrong name
    in the configuration looks the same.
    """
    if has_more(answer) is False:
        return ""
    total = total_of(answer)
    if total is not None and total > len(items) > 0:
        return f"the answer states {total} records, and has {len(items)}"
    return _hint(list(fields_of(answer)), answer)


def cut_short(answer: Answer) -> str:
    """Returns any statement that the API itself left records out, or ""."""
    found = usual_place(answer.data, _CUT_NAMES, lambda value: value is True or None)
    return "" if found is None else f"the API says {found[0]}"


def has_more(answer: Answer) -> bool | None:
    """Returns whether an answer states, under a usual name, that there are more pages."""
    found = usual_place(answer.data, HAS_MORE_NAMES, as_flag)
    return None if found is None else bool(found[1])


def next_address(answer: Answer) -> Field | None:
    """Returns the address of the next page under any name with `next`, from the body or a header.

    For a list of links, such as `[{"rel": "next", "href": "..."}]`, it has the path of the list.
    """
    found = (
        one
        for one in fields_of(answer)
        if _NEXT.fullmatch(one.plain)
        and _is_address(one.value)
        and not _SYNC.fullmatch(one.plain)
        and (one.path or not one.relation)
    )
    return next(found, None)


def fields_of(answer: Answer) -> Iterator[Field]:
    """Yields the values beside the records, then the headers, and the values of JSON in headers."""
    steps = answer.place.rstrip("?").split(".") if answer.place else []
    whole = answer.place == ROOT or (not answer.place and isinstance(answer.data, list))
    if not whole:
        yield from _within(answer.data, "", steps, 0)
    for name, text in answer.headers.items():
        if text.lstrip().startswith("{"):
            try:
                inner = json.loads(text)
            except ValueError:
                continue
            for one in _within(inner, "", [], 0):
                yield Field("", name, one.value, one.name)
        elif name.lower() not in _OTHER_HEADERS:
            yield Field("", name, text)


def _within(data: Any, path: str, records: list[str], depth: int) -> Iterator[Field]:
    """Yields the fields of an object, except its records, which are at the path `records`."""
    if not isinstance(data, Mapping) or depth > _DEEPEST:
        return
    for key, value in data.items():
        name = str(key)
        here = f"{path}.{name}" if path else name
        rest = records[1:] if records and records[0] == name else []
        if (
            records
            and name in (records[0], ".".join(records))
            and (not rest or rest[0] == "*" or not isinstance(value, Mapping))
        ):
            continue
        if isinstance(value, Mapping):
            yield from _within(value, here, rest, depth + 1)
        elif isinstance(value, list):
            yield from _links_in(value, here)
        else:
            yield Field(here, name, value)


def _links_in(values: list[Any], path: str) -> Iterator[Field]:
    for one in values[:_MOST_ELEMENTS]:
        if isinstance(one, Mapping):
            relation = one.get("rel") or one.get("relation")
            target = one.get("href") or one.get("url") or one.get("uri")
            if isinstance(relation, str) and isinstance(target, str):
                yield Field(path, path.rpartition(".")[2], target, relation)


def _hint(fields: Sequence[Field], answer: Answer) -> str:
    """Returns a value that speaks of a further page."""
    if any(_SYNC.fullmatch(one.plain) and not one.is_empty for one in fields):
        return ""
    next_ones = [one for one in fields if _NEXT.fullmatch(one.plain)]
    for one in next_ones:
        if not one.is_empty:
            return f"{one}, which may be a further page"
    if next_ones or has_more(answer) is False:
        return ""
    for one in fields:
        is_named = any(_GOES_ON.fullmatch(name) for name in (one.plain, *one.around))
        if is_named and not one.is_empty and not _OTHER_TOKEN.fullmatch(one.plain):
            return f"{one}, which may lead to a further page"
    return _other_address(fields, answer)


def _other_address(fields: Sequence[Field], answer: Answer) -> str:
    """Returns a value that is an address of the same path, other than those of known pages."""
    asked = urlsplit(answer.url)
    known: set[str] = set()
    others: list[tuple[Field, str]] = []
    for one in fields:
        if not _is_address(one.value):
            continue
        url = urljoin(answer.url, one.value)
        parts = urlsplit(url)
        is_same_path = parts.path.rstrip("/") == asked.path.rstrip("/")
        if not is_same_path or parts.netloc != asked.netloc or _asks_no_more(parts, asked):
            continue
        if _HERE.fullmatch(one.plain):
            known.add(url)
        else:
            others.append((one, url))
    for one, url in others:
        if url not in known:
            return f"{one}, which may be a further page"
    return ""


def _asks_no_more(parts: SplitResult, asked: SplitResult) -> bool:
    """Returns whether all parameters of an address were in the request."""
    return set(parse_qsl(parts.query, True)) <= set(parse_qsl(asked.query, True))


def _is_stated(answer: Answer, items: Sequence[Any], fields: Sequence[Field]) -> bool:
    """Returns whether the answer states that its records are all."""
    if has_more(answer) is False or pages_of(answer) == 1:
        return True
    if total_of(answer, is_sure=is_round(len(items))) == len(items):
        return True
    if any(relation in answer.links for relation in _SPEAKS_OF_PAGES):
        return "next" not in answer.links
    return any(
        (_NEXT.fullmatch(one.plain) and one.is_empty) or _SYNC.fullmatch(one.plain)
        for one in fields
    )


def _nothing_there(answer: Answer) -> str:
    total = total_of(answer)
    if total:
        return f"the answer states {total} records and has none"
    data = answer.data
    if answer.place or data is None or total == 0:
        return ""
    if any(name in data and data[name] is None for name in RECORD_NAMES):
        return ""
    return (
        "the answer is an empty object, without a list of records (if that means that there are "
        "no records, write records: items?)"
    )


def _size_asked(answer: Answer) -> tuple[str, int] | None:
    for name, value in answer.asked.items():
        size = as_count(value)
        if size and _SIZE.fullmatch(re.sub(r"[^a-z]", "", name.lower())):
            return name, size
    return None


def _is_honoured(answer: Answer, asked: int, given: int) -> bool:
    """Returns whether a page with too few records is short, rather than cut to a limit.

    It is short if the answer repeats the size. Limits of APIs are round numbers.
    """
    repeated = usual_place(answer.data, _SIZE_NAMES, as_count)
    if repeated is not None:
        return int(repeated[1]) == asked
    return not is_round(given)


def is_round(count: int) -> bool:
    """Returns whether this may be the largest page of an API."""
    return count % 5 == 0 or count & (count - 1) == 0


_SIZE_NAMES = ("limit", "per_page", "perPage", "page_size", "pageSize", "size", "maxResults")


def _is_one_record(answer: Answer) -> bool:
    return answer.place == ROOT and isinstance(answer.data, Mapping)


def _is_address(value: Any) -> bool:
    if not isinstance(value, str) or not value or " " in value or ";" in value:
        return False
    return value.startswith(("/", "?", "http://", "https://"))
