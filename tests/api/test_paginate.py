"""Paginators as values: what they put into requests, and what they find in answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam.connectors.api.answer import Answer, as_count, guess_records, records_at
from contextframe_beam.connectors.api.detect import Detect, detect
from contextframe_beam.connectors.api.numbered import At, Numbered, Offset, PageNumber, Range
from contextframe_beam.connectors.api.paginate import (
    CursorInBody,
    CursorInHeader,
    GraphQL,
    LastId,
    LinkHeader,
    LinkInBody,
    Paginator,
    Place,
    SinglePage,
    quoted,
)
from contextframe_beam.connectors.http import HttpRequest
from contextframe_beam.connectors.secrets import SecretReference
from contextframe_beam.errors import ConnectorError

HERE = "https://api.example.com/v1/things"
FIRST = HttpRequest("GET", HERE, params={"status": "open"})

Api = Callable[[HttpRequest], Answer]


def things(start: int, stop: int) -> list[dict[str, int]]:
    return [{"id": number} for number in range(start, stop)]


def walk(paginator: Paginator, api: Api, first: HttpRequest = FIRST) -> list[int]:
    """Reads an API page after page; gives the ids as they came."""
    token, ids = paginator.start(), []
    for _ in range(200):
        answer = api(paginator.apply(first, token))
        records = guess_records(answer.data)[1]
        ids += [one["id"] for one in records]
        token = paginator.next(token, answer, records)
        if token is None:
            return ids
    raise AssertionError("it never ended")


# Where tokens go.


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("page", HttpRequest("GET", HERE, params={"status": "open", "page": 3})),
        ("query:page", HttpRequest("GET", HERE, params={"status": "open", "page": 3})),
        ("header:X-Page", HttpRequest("GET", HERE, {"status": "open"}, headers={"X-Page": "3"})),
        ("body:page", HttpRequest("GET", HERE, {"status": "open"}, json={"page": 3})),
        (
            "body:variables.page",
            HttpRequest("GET", HERE, {"status": "open"}, json={"variables": {"page": 3}}),
        ),
        ("form:page", HttpRequest("GET", HERE, {"status": "open"}, form={"page": 3})),
    ],
)
def test_a_token_goes_where_it_is_told(place, expected):
    assert Place.of(place).put(FIRST, 3) == expected


def test_a_token_goes_into_the_path():
    request = HttpRequest("GET", f"{HERE}/from/{{cursor}}")
    cursors = CursorInBody("next", param="path:cursor")
    assert cursors.apply(request, "a/b ü").url == f"{HERE}/from/a%2Fb%20%C3%BC"
    assert cursors.apply(request, None).url == f"{HERE}/from"
    assert quoted("..") == "%2E%2E"


def test_a_body_keeps_what_else_it_says():
    request = HttpRequest("POST", HERE, json={"query": "q", "variables": {"n": 1}})
    changed = GraphQL("data.x.pageInfo").apply(request, "c")
    assert changed.json == {"query": "q", "variables": {"n": 1, "after": "c"}}
    assert request.json == {"query": "q", "variables": {"n": 1}}


# Cursors and links.


@pytest.mark.parametrize("end", [None, "", False, 0])
def test_a_cursor_ends_with_nothing(end):
    cursors = CursorInBody("meta.next")
    assert cursors.next("a", Answer({"meta": {"next": end}}), things(0, 3)) is None
    assert cursors.next("a", Answer({"meta": {}}), things(0, 3)) is None
    assert cursors.next("a", Answer({"meta": {"next": "b"}}), []) == "b"


def test_a_flag_ends_a_cursor_that_does_not_end_by_itself():
    cursors = CursorInBody("next", has_more="more")
    assert cursors.next("a", Answer({"next": "b", "more": True}), things(0, 1)) == "b"
    assert cursors.next("a", Answer({"next": "b", "more": "false"}), things(0, 1)) is None
    with pytest.raises(ConnectorError, match="more says that there is more, but there is no curs"):
        cursors.next("a", Answer({"more": True}), things(0, 1))


def test_a_cursor_may_be_an_object_and_have_a_first_value():
    cursors = CursorInBody("next", param="body:after", first="*")
    assert cursors.apply(FIRST, cursors.start()).json == {"after": "*"}
    following = cursors.next("*", Answer({"next": {"id": 7}}), things(0, 1))
    assert cursors.apply(FIRST, following).json == {"after": {"id": 7}}


def test_a_cursor_in_a_header():
    cursors = CursorInHeader("X-Next", param="header:X-Cursor")
    assert cursors.next(None, Answer([], {"x-next": "c2"}), things(0, 1)) == "c2"
    assert cursors.next("c2", Answer([], {}), things(0, 1)) is None
    assert cursors.apply(FIRST, "c2").headers == {"X-Cursor": "c2"}


@pytest.mark.parametrize(
    ("link", "url"),
    [
        ("https://api.example.com/v1/things?page=2", "https://api.example.com/v1/things?page=2"),
        ("/v1/other", "https://api.example.com/v1/other"),
        ("?page=2", f"{HERE}?page=2"),
        ("http://elsewhere.example.com/", "http://elsewhere.example.com/"),
        ({"href": "/v1/more"}, "https://api.example.com/v1/more"),
        (None, None),
        ("", None),
    ],
)
def test_a_link_in_the_body(link, url):
    links = LinkInBody("links.next")
    assert links.next(None, Answer({"links": {"next": link}}, url=HERE), things(0, 1)) == url


def test_a_link_is_complete_but_for_credentials():
    asked = HttpRequest("GET", HERE, {"status": "open", "api_key": SecretReference("env:K")})
    request = LinkHeader().apply(asked, f"{HERE}?page=2")
    assert request.url == f"{HERE}?page=2"
    assert list(request.params) == ["api_key"]


def test_a_link_that_is_a_number_says_what_to_do():
    with pytest.raises(
        ConnectorError, match="'next' is a number, not an address; if it is a number"
    ):
        LinkInBody("next").next(None, Answer({"next": 2}), things(0, 1))


def test_a_link_header():
    answer = Answer([], links={"next": "/v1/things?page=2", "prev": "/x"}, url=HERE)
    assert LinkHeader().next(None, answer, things(0, 1)) == f"{HERE}?page=2"
    assert LinkHeader("prev").next(None, answer, things(0, 1)) == "https://api.example.com/x"
    assert LinkHeader().next(None, Answer([]), things(0, 1)) is None


def test_the_id_of_the_last_record():
    ids = LastId("starting_after", field="meta.id", size=2, size_param="limit")
    page = [{"meta": {"id": 1}}, {"meta": {"id": 5}}]
    assert ids.apply(FIRST, None).params == {"status": "open", "limit": 2}
    assert ids.next(None, Answer({"data": page}), page) == 5
    assert ids.apply(FIRST, 5).params == {"status": "open", "limit": 2, "starting_after": 5}
    assert ids.next(5, Answer({"has_more": False}), page) is None
    assert ids.next(5, Answer({}), page[:1]) is None
    assert ids.next(5, Answer({"has_more": True}), page[:1]) == 1
    assert ids.next(5, Answer({}), []) is None
    with pytest.raises(ConnectorError, match=r"last record of the page has no 'meta\.id'"):
        ids.next(None, Answer({}), [{"meta": {}}, {"meta": {}}])


def test_a_graphql_connection():
    pages = GraphQL("data.issues.pageInfo")

    def answer(**info: Any) -> Answer:
        return Answer({"data": {"issues": {"nodes": [], "pageInfo": info}}})

    assert pages.next(None, answer(hasNextPage=True, endCursor="c"), []) == "c"
    assert pages.next("c", answer(hasNextPage=False, endCursor="d"), []) is None
    with pytest.raises(ConnectorError, match="has no endCursor; ask for it in the query"):
        pages.next(None, answer(hasNextPage=True), [])
    with pytest.raises(ConnectorError, match="the query must ask for pageInfo"):
        pages.next(None, Answer({"data": {"issues": {}}}), [])


def test_a_single_page():
    assert SinglePage().apply(FIRST, None) == FIRST
    assert SinglePage().next(None, Answer({"has_more": True}), things(0, 1)) is None


# Numbers and totals.


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (25, 25),
        ("25", 25),
        (" 25 ", 25),
        (25.0, 25),
        (0, 0),
        (-1, None),
        ("-1", None),
        ("many", None),
        ("", None),
        (2.5, None),
        (True, None),
        (None, None),
        ({"value": 25}, None),
        (float("inf"), None),
        (float("nan"), None),
    ],
)
def test_a_count_is_a_number_or_its_text(value, count):
    assert as_count(value) == count


@pytest.mark.parametrize(
    ("data", "headers", "pages"),
    [
        ({"total": 25}, {}, 3),
        ({"total": "25"}, {}, 3),
        ({"meta": {"pagination": {"total": 30}}}, {}, 3),
        ({"totalElements": 5}, {}, None),
        ({"count": 1000}, {}, 100),
        ({"meta": {"total_pages": "7"}}, {}, 7),
        ({"last_page": 4, "total": 31}, {}, 4),
        ({}, {"X-Total-Count": "99"}, 10),
        ({}, {"x-wp-totalpages": "3"}, 3),
        ({"total": {"value": 5}, "totalCount": 25}, {}, 3),
        ({"total": -1}, {}, None),
        ({}, {}, None),
    ],
)
def test_the_total_is_found_under_its_usual_names(data, headers, pages):
    assert PageNumber().total_pages(Answer(data, headers), things(0, 10)) == pages


def test_the_total_is_where_it_is_said_to_be():
    items = things(0, 10)
    answer = Answer({"total": 25, "info": {"all": 99, "last": 12}}, {"X-All": "45"})
    assert PageNumber(total="info.all").total_pages(answer, items) == 10
    assert PageNumber(pages="info.last").total_pages(answer, items) == 12
    assert PageNumber(total="header:X-All").total_pages(answer, items) == 5
    assert PageNumber(total="nowhere").total_pages(answer, items) is None
    assert Offset(size=10, total="info.all").total_pages(answer, items) == 10


def test_a_link_to_the_last_page_tells_the_number_of_pages():
    answer = Answer([], links={"last": f"{HERE}?status=open&page=34"})
    assert PageNumber().total_pages(answer, things(0, 10)) == 34
    assert PageNumber(first=0).total_pages(answer, things(0, 10)) == 35


def test_a_flag_counts_more_than_a_page_that_is_empty_or_short():
    pages = PageNumber(size=10, stop_at_short_page=True)
    assert pages.next(At(1), Answer({"has_more": False}), things(0, 10)) is None
    assert pages.next(At(1), Answer({"has_more": True}), things(0, 3)) == At(2)
    assert pages.next(At(1), Answer({"hasNext": "true"}), []) == At(2)
    assert pages.next(At(1), Answer({}), things(0, 3)) is None
    assert PageNumber(size=10).next(At(1), Answer({}), things(0, 3)) == At(2)
    assert PageNumber(has_more="m").next(At(1), Answer({"m": 0}), things(0, 3)) is None


def test_a_total_of_a_full_page_is_looked_behind():
    pages = PageNumber(size=10)
    following = pages.next(At(2, 10), Answer({"total": 20}), things(10, 20))
    assert following == At(3, 10, past=True)
    assert pages.next(At(2, 10), Answer({"total": 15}), things(10, 15)) is None


@pytest.mark.parametrize("paginator", [PageNumber(size=10), Offset(size=10), Range(size=10)])
def test_errors_end_the_pages_only_where_they_can_mean_that(paginator):
    first, later = paginator.start(), paginator.page_at(1, 10)
    past = At(later.position, 10, past=True)
    assert not paginator.ends_at(first, 404)
    assert paginator.ends_at(later, 404) and paginator.ends_at(later, 416)
    assert not paginator.ends_at(later, 400) and not paginator.ends_at(later, 500)
    assert paginator.ends_at(past, 400) and paginator.ends_at(past, 422)
    assert not paginator.ends_at(past, 401) and not paginator.ends_at(past, 500)


def test_an_api_may_have_an_error_of_its_own_for_the_end():
    assert PageNumber(end_status=(400,)).ends_at(At(2), 400)
    assert not PageNumber(end_status=(400,)).ends_at(At(1), 400)


def test_a_range_that_is_ignored_is_everything():
    ranges = Range(size=10)
    assert ranges.apply(FIRST, At(20)).headers == {"Range": "items=20-29"}
    assert ranges.next(At(0), Answer(things(0, 25)), things(0, 25)) is None
    part = Answer([], {"Content-Range": "items 0-9/25"}, status=206)
    assert ranges.total_pages(part, things(0, 10)) == 3
    assert ranges.next(At(0), part, things(0, 10)) == At(10, 10)
    assert ranges.ends_at(At(0), 416)


class PageApi:
    """An API of pages as odd as it likes; counts from 0 or 1, caps sizes, lies about its total."""

    def __init__(
        self, n: int, size: int, cap: int, first: int = 1, total: Any = None, behind: str = "empty"
    ) -> None:
        self.n, self.size, self.cap, self.first = n, min(size, cap), cap, first
        self.total, self.behind = total, behind

    def pages(self, request: HttpRequest) -> Answer:
        start = (request.params["page"] - self.first) * self.size
        return self._answer(start, start + self.size)

    def offsets(self, request: HttpRequest) -> Answer:
        start = request.params["offset"]
        return self._answer(start, start + min(request.params["limit"], self.cap))

    def _answer(self, start: int, stop: int) -> Answer:
        items = things(start, min(stop, self.n))
        return Answer({"items": items} | ({} if self.total is None else {"total": self.total}))


TOTALS = st.none() | st.integers(-5, 300) | st.integers(0, 300).map(str) | st.just("many")


@st.composite
def apis(draw: st.DrawFn) -> tuple[PageApi, int]:
    """An API that lies about its total, or gives smaller pages than it is asked for."""
    n, size = draw(st.integers(0, 60)), draw(st.integers(1, 12))
    lies = draw(st.booleans())
    cap = size if lies else draw(st.integers(1, 12))
    total = draw(TOTALS) if lies else draw(st.sampled_from([n, str(n), None]))
    return PageApi(n, size, cap, draw(st.integers(0, 1)), total), size


@given(apis())
def test_walking_gives_each_record_once_whatever_the_total_says(given_api):
    api, size = given_api
    everything = list(range(api.n))
    assert walk(PageNumber(first=api.first, size=size), api.pages) == everything
    assert walk(PageNumber(first=api.first), api.pages) == everything
    assert walk(Offset(size=size), api.offsets) == everything


def counted(paginator: Numbered, api: Api) -> list[int]:
    """Reads the pages that the first one promises, each by itself, and what is behind them."""
    answer = api(paginator.apply(FIRST, paginator.start()))
    records = answer.data["items"]
    pages = paginator.total_pages(answer, records)
    if pages is None:
        return walk(paginator, api)
    size = paginator.full_page(answer, records)
    ids: list[int] = []
    token: At | None = None
    for index in range(max(pages, 1)):
        token = paginator.page_at(index, size)
        while True:
            answer = api(paginator.apply(FIRST, token))
            records = answer.data["items"]
            ids += [one["id"] for one in records]
            rest = paginator.missing(token, answer, records)
            if rest is None:
                break
            token = rest
    token = paginator.next(token, answer, records)
    while token is not None:
        answer = api(paginator.apply(FIRST, token))
        records = answer.data["items"]
        ids += [one["id"] for one in records]
        token = paginator.next(token, answer, records)
    return ids


@given(apis())
def test_counted_pages_give_each_record_once_whatever_the_total_says(given_api):
    api, size = given_api
    everything = list(range(api.n))
    assert counted(PageNumber(first=api.first, size=size), api.pages) == everything
    assert counted(Offset(size=size), api.offsets) == everything


def test_an_honest_total_costs_no_request_too_many():
    asked: list[int] = []
    api = PageApi(25, 10, 10, total=25)

    def pages(request: HttpRequest) -> Answer:
        asked.append(request.params["page"])
        return api.pages(request)

    assert counted(PageNumber(size=10), pages) == list(range(25))
    assert asked == [1, 1, 2, 3]


# Where records are.


def test_records_are_where_their_path_leads():
    nodes = {"data": {"edges": [{"node": {"id": 1}}, {"node": None}, {"node": {"id": 2}}]}}
    assert records_at(nodes, "data.edges.*.node") == [{"id": 1}, None, {"id": 2}]
    assert records_at(nodes, "data.edges.node") == [{"id": 1}, {"id": 2}]
    assert records_at([1, 2], "$") == [1, 2]
    assert records_at({"id": 1}, "$") == [{"id": 1}]
    assert records_at({"a.b": [1]}, "a.b") == [1]
    assert records_at({"a": None}, "a") == records_at({"a": None}, "a.b") == []
    assert records_at({"a": {}}, "a.b?") == []
    assert records_at({"a": {"x": [1], "y": [2]}}, "a.*") == [1, 2]


@pytest.mark.parametrize(
    ("data", "path", "message"),
    [
        ({"itmes": []}, "items", "has no 'items', but 'itmes'; did you mean itmes?"),
        ({"a": {"b": 1}}, "a.c.d", "has no 'a.c', but 'b'; say where the records are"),
        ({}, "items", "has no 'items', but an empty object"),
        ([], "5", "has no '5': there is a list of 0"),
        ({"items": "none"}, "items", "should be at 'items', but there is 'none'; name the list"),
    ],
)
def test_a_path_that_is_not_there_is_named(data, path, message):
    with pytest.raises(ConnectorError) as error:
        records_at(data, path)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ([{"id": 1}], "$"),
        ({"items": [], "data": [{"id": 1}]}, "items"),
        ({"data": {"contacts": [{"id": 1}]}}, "data.contacts"),
        ({"hits": {"hits": [{"id": 1}]}}, "hits.hits"),
        ({"contacts": [{"id": 1}], "tags": ["a"]}, "contacts"),
        ({"contacts": [], "page": 1}, "contacts"),
        ({"items": None}, "$"),
        ({}, "$"),
        (None, "$"),
    ],
)
def test_records_are_found_where_they_usually_are(data, path):
    assert guess_records(data)[0] == path


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"a": [{}], "b": [{}]}, "several lists, a and b; say with 'records'"),
        ({"message": "hello"}, "no list of records was found in the answer, which has 'message'"),
        ("text", "the answer is 'text', not a list"),
    ],
)
def test_where_nobody_can_tell_it_is_asked_for(data, message):
    with pytest.raises(ConnectorError, match=message):
        guess_records(data)


# Finding out.

TEN = things(0, 10)


@pytest.mark.parametrize(
    ("answer", "paginator"),
    [
        (Answer(TEN, links={"next": f"{HERE}?cursor=x"}, url=HERE), LinkHeader()),
        (Answer({"next": "https://api.example.com/2"}, url=HERE), LinkInBody("next")),
        (Answer({"_links": {"next": {"href": "/2"}}}, url=HERE), LinkInBody("_links.next")),
        (Answer({"@odata.nextLink": "/2"}, url=HERE), LinkInBody("@odata.nextLink")),
        (Answer({"paging": {"next": "/2"}}, url=HERE), LinkInBody("paging.next")),
        (Answer({"count": 25, "next": "?page=2"}, url=HERE), PageNumber()),
        (Answer({"count": 25, "next": "?page=1"}, url=f"{HERE}?page=0"), PageNumber(first=0)),
        (
            Answer({"count": 25, "next": "?offset=10&limit=10"}, url=HERE),
            Offset(size=10, size_param="limit"),
        ),
        (Answer({"count": 25, "next": "?page=2&at=9"}, url=HERE), LinkInBody("next")),
        (Answer({"count": 25, "next": "//evil.example.com/?page=2"}, url=HERE), LinkInBody("next")),
        (Answer({"next": "?page=2"}, url=HERE), LinkInBody("next")),
        (
            Answer(TEN, links={"next": f"{HERE}?page=2", "last": f"{HERE}?page=9"}, url=HERE),
            PageNumber(),
        ),
        (Answer(TEN, {"Content-Range": "things 0-9/25"}, status=206), Range(10, "things")),
        (Answer({"page": 1, "total_pages": 3}), PageNumber()),
        (Answer({"number": 0, "totalPages": 3, "content": []}), PageNumber(first=0)),
        (Answer({"meta": {"current_page": 1, "last_page": 3}}), PageNumber()),
        (Answer({"offset": 0, "limit": 10, "total": 25}), Offset(size=10)),
        (
            Answer({"startAt": 0, "maxResults": 10, "total": 25}),
            Offset("startAt", size=10, size_param="maxResults"),
        ),
        (Answer({"next_cursor": "c"}), CursorInBody("next_cursor")),
        (
            Answer({"response_metadata": {"next_cursor": "c"}}),
            CursorInBody("response_metadata.next_cursor"),
        ),
        (Answer({"nextPageToken": "c"}), CursorInBody("nextPageToken", "pageToken")),
        (
            Answer({"paging": {"next": {"after": "c"}}}),
            CursorInBody("paging.next.after", "after"),
        ),
        (Answer(TEN, {"X-Next-Page": "2"}), CursorInHeader("X-Next-Page", "page")),
        (Answer({"next_page": 2}), CursorInBody("next_page", "page")),
        (
            Answer({"data": {"x": {"pageInfo": {"hasNextPage": True, "endCursor": "c"}}}}),
            GraphQL("data.x.pageInfo"),
        ),
        (Answer({"total": 10}), SinglePage()),
        (Answer(TEN), SinglePage()),
    ],
)
def test_how_an_api_pages_is_found_out(answer, paginator):
    assert detect(answer, TEN) == paginator


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (Answer({"has_more": True}), "the answer says that there is more"),
        (Answer({"total": 25}), "'total' is 25, and this page has 10 records"),
        (Answer(TEN, {"X-Total-Count": "25"}), "'X-Total-Count' is 25"),
        (Answer({"next": "opaque"}), "the answer names a next page at 'next'"),
    ],
)
def test_more_that_nobody_knows_how_to_ask_for_is_no_end(answer, what):
    with pytest.raises(ConnectorError, match=what + r".*set 'paginator'"):
        detect(answer, TEN)


def test_what_was_found_out_goes_on():
    def api(request: HttpRequest) -> Answer:
        start = int(request.params.get("cursor", 0))
        following = str(start + 10) if start < 20 else None
        return Answer({"items": things(start, start + 10), "next_cursor": following})

    assert walk(Detect(), api) == list(range(30))
