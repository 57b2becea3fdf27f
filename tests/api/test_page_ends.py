"""What an answer proves about the end of its pages, in the manner of APIs that many people read.

Complete readings are not called partial, and cut ones are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from contextframe_beam.connectors.api import APIConnector, check
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.errors import ConnectorError
from tests.support.small_server import Got, serving

Answer = Callable[[Got], Any]


def rows(start: int, stop: int) -> list[dict[str, Any]]:
    return [{"id": number, "title": f"Row {number}"} for number in range(start, stop)]


def read(answer: Answer, **resource: Any) -> tuple[list[Any], list[str]]:
    """Reads a resource `things` of a server; returns the ids and why it may be incomplete."""
    with serving(answer) as server:
        settings = {"name": "things", "path": "things", **resource}
        api = APIConnector(server.url, resources=[settings], retries=0)
        api.authenticate()
        pages = list(Source(api).pages())
    assert not [letter for page in pages for letter in page.failures]
    reasons = sorted({page.partial for page in pages if page.partial})
    return [item.get("id") for page in pages for item in page.items], reasons


def always(body: Any, headers: dict[str, str] | None = None) -> Answer:
    return lambda got: (200, headers or {}, body)


def part(got: Got, n: int, start: int, size: int) -> tuple[list[dict[str, Any]], bool]:
    """Returns a page of n rows, and whether more follow."""
    return rows(start, min(start + size, n)), start + size < n


# Servers of many kinds. Each gives n records, ten a page.


def kinto(n: int) -> Answer:
    def answer(got: Got) -> Any:
        start = got.number("_token", 0)
        items, more = part(got, n, start, 10)
        headers = {"Total-Records": str(n)}
        if more:
            headers["Next-Page"] = f"{got.url}/things?_limit=10&_token={start + 10}"
        return 200, headers, {"data": items}

    return answer


def kinto_without_a_total(n: int) -> Answer:
    def answer(got: Got) -> Any:
        status, headers, body = kinto(n)(got)
        del headers["Total-Records"]
        return status, headers, body

    return answer


def mediawiki(n: int) -> Answer:
    def answer(got: Got) -> Any:
        start = got.number("gapcontinue", 0)
        items, more = part(got, n, start, 10)
        pages = {str(one["id"]): one for one in items}
        body: dict[str, Any] = {"batchcomplete": "", "query": {"pages": pages}}
        if more:
            assert start == 0 or got.query["continue"] == "gapcontinue||"
            body["continue"] = {"gapcontinue": str(start + 10), "continue": "gapcontinue||"}
        return body

    return answer


def datasette(n: int) -> Answer:
    def answer(got: Got) -> Any:
        start = got.number("_next", 0)
        items, more = part(got, n, start, 10)
        return {
            "database": "db",
            "rows": [[one["id"], one["title"]] for one in items],
            "columns": ["id", "title"],
            "truncated": False,
            "filtered_table_rows_count": n,
            "next": str(start + 10) if more else None,
            "next_url": f"{got.url}/things?_next={start + 10}" if more else None,
        }

    return answer


def django(n: int) -> Answer:
    def answer(got: Got) -> Any:
        page = got.number("page", 1)
        if page > 1 and (page - 1) * 10 >= n:
            return 404, {}, {"detail": "Invalid page."}
        items, more = part(got, n, page * 10 - 10, 10)
        following = f"{got.url}/things?page={page + 1}" if more else None
        return {"count": n, "next": following, "previous": None, "results": items}

    return answer


def django_by_cursor(n: int) -> Answer:
    def answer(got: Got) -> Any:
        start = got.number("cursor", 0)
        items, more = part(got, n, start, 10)
        following = f"{got.url}/things?cursor={start + 10}" if more else None
        return {"next": following, "previous": None, "results": items}

    return answer


def fastapi_pagination(n: int) -> Answer:
    def answer(got: Got) -> Any:
        page = got.number("page", 1)
        items, _ = part(got, n, page * 10 - 10, 10)
        return {"items": items, "total": n, "page": page, "size": 10, "pages": -(-n // 10)}

    return answer


def fastapi_by_offset(n: int) -> Answer:
    def answer(got: Got) -> Any:
        start, size = got.number("offset", 0), got.number("limit", 10)
        return {"items": part(got, n, start, size)[0], "total": n, "limit": size, "offset": start}

    return answer


def json_server(n: int) -> Answer:
    def answer(got: Got) -> Any:
        page = got.number("_page", 1)
        items, more = part(got, n, page * 10 - 10, 10)
        links = [f'<{got.url}/things?_page=1>; rel="first"']
        if more:
            links.append(f'<{got.url}/things?_page={page + 1}>; rel="next"')
        return 200, {"X-Total-Count": str(n), "Link": ", ".join(links)}, items

    return answer


def relay(n: int) -> Answer:
    def answer(got: Got) -> Any:
        start = got.number("after", 0)
        items, more = part(got, n, start, 10)
        edges = [{"cursor": str(one["id"]), "node": one} for one in items]
        return {"edges": edges, "pageInfo": {"hasNextPage": more, "endCursor": str(start + 10)}}

    return answer


def github(n: int) -> Answer:
    def answer(got: Got) -> Any:
        page = got.number("page", 1)
        items, more = part(got, n, page * 10 - 10, 10)
        links = f'<{got.url}/things?page={page + 1}>; rel="next"' if more else ""
        links = links or (f'<{got.url}/things?page={page - 1}>; rel="prev"' if page > 1 else "")
        return 200, {"Link": links} if links else {}, items

    return answer


def token_that_is_absent_at_the_end(n: int) -> Answer:
    def answer(got: Got) -> Any:
        start = got.number("pageToken", 0)
        items, more = part(got, n, start, 10)
        return {"files": items, **({"nextPageToken": str(start + 10)} if more else {})}

    return answer


def airtable(n: int) -> Answer:
    def answer(got: Got) -> Any:
        start = int(got.query.get("offset", "itr0").removeprefix("itr"))
        items, more = part(got, n, start, 10)
        return {"records": items, **({"offset": f"itr{start + 10}"} if more else {})}

    return answer


def slack(n: int) -> Answer:
    def answer(got: Got) -> Any:
        start = int(got.query.get("cursor") or 0)
        items, more = part(got, n, start, 10)
        following = str(start + 10) if more else ""
        return {"ok": True, "members": items, "response_metadata": {"next_cursor": following}}

    return answer


def fhir(n: int) -> Answer:
    def answer(got: Got) -> Any:
        start = got.number("_getpagesoffset", 0)
        items, more = part(got, n, start, 10)
        links = [{"relation": "self", "url": f"{got.url}/things"}]
        if more:
            target = f"{got.url}/things?_getpagesoffset={start + 10}&_count=10"
            links.append({"relation": "next", "url": target})
        return {"resourceType": "Bundle", "total": n, "link": links, "entry": items}

    return answer


def laravel(n: int) -> Answer:
    def answer(got: Got) -> Any:
        page = got.number("page", 1)
        items, more = part(got, n, page * 10 - 10, 10)
        last = max(-(-n // 10), 1)
        links = {
            "first": f"{got.url}/things?page=1",
            "last": f"{got.url}/things?page={last}",
            "prev": None,
            "next": f"{got.url}/things?page={page + 1}" if more else None,
        }
        meta = {"current_page": page, "last_page": last, "per_page": 10, "total": n}
        return {"data": items, "links": links, "meta": meta}

    return answer


def odata(n: int) -> Answer:
    def answer(got: Got) -> Any:
        start = got.number("$skip", 0)
        items, more = part(got, n, start, 10)
        more_link = {"@odata.nextLink": f"{got.url}/things?$skip={start + 10}"} if more else {}
        return {"@odata.context": f"{got.url}/$metadata#things", "value": items, **more_link}

    return answer


def trino(n: int) -> Answer:
    def answer(got: Got) -> Any:
        start = got.number("at", 0)
        items, more = part(got, n, start, 10)
        return {
            "columns": [{"name": "id", "type": "bigint"}, {"name": "title", "type": "varchar"}],
            "data": [[one["id"], one["title"]] for one in items],
            **({"nextUri": f"{got.url}/things?at={start + 10}"} if more else {}),
        }

    return answer


def range_in_a_200(n: int) -> Answer:
    def answer(got: Got) -> Any:
        page = got.number("page", 1)
        items, _ = part(got, n, page * 10 - 10, 10)
        return 200, {"Content-Range": f"things {page * 10 - 10}-{page * 10 - 1}/{n}"}, items

    return answer


# Those that end without a word; their only page is known to be all where it is short.
WORDLESS = [
    kinto_without_a_total,
    mediawiki,
    github,
    token_that_is_absent_at_the_end,
    airtable,
    odata,
    trino,
]
TELLING = [
    kinto,
    datasette,
    django,
    django_by_cursor,
    fastapi_pagination,
    fastapi_by_offset,
    json_server,
    relay,
    slack,
    fhir,
    laravel,
]


@pytest.mark.parametrize("n", [0, 1, 9, 10, 11, 20, 25])
@pytest.mark.parametrize("server", TELLING)
def test_what_an_api_tells_is_read_whole_and_known_to_be_all(server, n):
    assert read(server(n)) == (list(range(n)), [])


@pytest.mark.parametrize("n", [0, 1, 9, 11, 20, 25])
@pytest.mark.parametrize("server", WORDLESS)
def test_so_is_what_an_api_leaves_out_at_the_end(server, n):
    resource = {"records": "query.pages.*"} if server is mediawiki else {}
    assert read(server(n), **resource) == (list(range(n)), [])


@pytest.mark.parametrize("server", WORDLESS)
def test_one_page_of_ten_or_more_without_a_word_may_not_be_all(server):
    resource = {"records": "query.pages.*"} if server is mediawiki else {}
    ids, reasons = read(server(10), **resource)
    assert ids == list(range(10))
    assert reasons == [
        "things: the answer has 10 records, and nothing in it says that these are all; say how it "
        "goes on under paginator, or paginator: single if one page is all"
    ]
    assert read(server(10), paginator="single", **resource) == (ids, [])


@pytest.mark.parametrize(
    ("body", "headers", "asked"),
    [
        (rows(0, 9), {}, {}),
        (rows(0, 12), {"X-Total-Count": "12"}, {}),
        (rows(0, 12), {"X-Total-Pages": "1"}, {}),
        (rows(0, 12), {"X-Next-Page": ""}, {}),
        (rows(0, 12), {"Link": '</things?page=1>; rel="first", </things?page=1>; rel="last"'}, {}),
        (rows(0, 12), {"Content-Range": "things 0-11/12"}, {}),
        (rows(0, 12), {"X-Pagination": '{"TotalCount": 12, "HasNext": false}'}, {}),
        (rows(0, 13), {}, {"limit": 50}),
        ({"data": rows(0, 20), "limit": 50}, {}, {"limit": 50}),
        ({"items": rows(0, 12), "total": 12}, {}, {}),
        ({"items": rows(0, 12), "total": "12"}, {}, {}),
        ({"items": rows(0, 12), "count": 12}, {}, {}),
        ({"items": rows(0, 12), "has_more": False}, {}, {}),
        ({"items": rows(0, 12), "hasNextPage": False, "endCursor": "x"}, {}, {}),
        ({"items": rows(0, 12), "next": None}, {}, {}),
        ({"items": rows(0, 12), "paging": {"next": ""}}, {}, {}),
        ({"items": rows(0, 12), "meta": {"deep": {"next_cursor": None}}}, {}, {}),
        ({"items": rows(0, 12), "NextPageLink": None, "Self": "/things?page=1"}, {}, {}),
        ({"items": rows(0, 12), "nextSyncToken": "CPDAlvWDx70CEPDAlvWDx70CGAU="}, {}, {}),
        ({"value": rows(0, 12), "@odata.deltaLink": "/things?deltatoken=1"}, {}, {}),
        ({"items": rows(0, 5), "csrf_token": "abc", "links": {"self": "/things?x=1"}}, {}, {}),
        (
            {"items": rows(0, 5), "href": "/things", "docs": "https://docs.example.com/"},
            {},
            {},
        ),
        ({"hits": {"total": {"value": 12, "relation": "eq"}, "hits": rows(0, 12)}}, {}, {}),
        ({"items": [], "cursor": ""}, {}, {}),
        ({"items": None}, {}, {}),
        ([], {}, {}),
        (None, {}, {}),
        (rows(0, 5), {"x-nextjs-cache": "HIT", "X-Request-Id": "1"}, {}),
        ([{"id": 1, "next": "/things?page=2", "cursor": "x", "token": "y"}], {}, {}),
    ],
)
def test_what_an_answer_proves_is_known(body, headers, asked):
    assert read(always(body, headers), params=asked)[1] == []


@pytest.mark.parametrize(
    ("body", "headers", "asked", "why"),
    [
        (rows(0, 10), {}, {}, "has 10 records, and nothing in it says"),
        (rows(0, 30), {}, {}, "has 30 records"),
        ({"data": rows(0, 20)}, {}, {}, "has 20 records"),
        ({"items": rows(0, 20), "count": 20}, {}, {}, "has 20 records"),
        (rows(0, 100), {}, {"limit": 1000}, "has 100 records"),
        (rows(0, 7), {}, {"per_page": 7}, "exactly the 7 records that per_page asks for"),
        (rows(0, 7), {}, {"page[size]": "7"}, "exactly the 7 records that page[size] asks for"),
        (rows(0, 5), {"X-Continuation": "abc"}, {}, "the header X-Continuation is 'abc'"),
        (rows(0, 5), {"X-Cursor": "abc"}, {}, "the header X-Cursor is 'abc'"),
        (rows(0, 5), {"X-Pagination": '{"HasNext": true}'}, {}, "the header X-Pagination"),
        (rows(0, 5), {"X-More-At": "/things?from=5"}, {}, "X-More-At is '/things?from=5'"),
        ({"items": rows(0, 5), "more": "abc"}, {}, {}, "'more' is 'abc'"),
        ({"items": rows(0, 5), "HasMore": True}, {}, {}, "'HasMore' is 'True'"),
        ({"items": rows(0, 5), "page": {"scrollToken": "abc"}}, {}, {}, "'page.scrollToken' is"),
        ({"items": rows(0, 5), "info": {"deep": {"nextKey": 7}}}, {}, {}, "'info.deep.nextKey' is"),
        ({"items": rows(0, 5), "offset": 5}, {}, {}, "'offset' is '5'"),
        ({"items": rows(0, 5), "continueFrom": "abc"}, {}, {}, "'continueFrom' is 'abc'"),
        ({"items": rows(0, 5), "links": {"forward": "/things?p=2"}}, {}, {}, "'links.forward' is"),
        (
            {"items": rows(0, 5), "links": {"first": "/things?p=1", "last": "/things?p=9"}},
            {},
            {},
            "'links.last' is '/things?p=9'",
        ),
        ({"rows": [[1]], "columns": ["id"], "truncated": True}, {}, {}, "the API says truncated"),
        ({}, {}, {}, "an empty object, without a list of records"),
        ({"total": 25, "items": []}, {}, {}, "states 25 records and has none"),
    ],
)
def test_what_could_go_on_makes_the_run_partial(body, headers, asked, why):
    _, reasons = read(always(body, headers), params=asked)
    assert len(reasons) == 1 and reasons[0].startswith("things: ") and why in reasons[0]


@pytest.mark.parametrize(
    ("body", "paginator"),
    [
        (
            {"items": rows(0, 5), "meta": {"next_token": "abc"}},
            {"type": "cursor", "cursor": "meta.nxt_token"},
        ),
        ({"items": rows(0, 5), "paging": {"next": "/things?p=2"}}, "link_header"),
        ({"items": rows(0, 5), "paging": {"next": "/things?p=2"}}, {"type": "link", "link": "n"}),
        (
            {"items": rows(0, 5), "continue": {"a": "b", "c": "d"}},
            {"type": "continuation", "values": "x"},
        ),
        ({"items": rows(0, 5), "total": 25}, {"type": "header_cursor", "header": "X-Nxt"}),
    ],
)
def test_a_paginator_that_finds_nothing_beside_what_looks_like_more_is_told(body, paginator):
    ids, (reason,) = read(always(body), paginator=paginator)
    assert ids == list(range(5)) and reason.startswith("things: ")


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({"items": rows(0, 10), "has_more": True}, "says that there is more"),
        ({"hits": {"total": {"value": 25}, "hits": rows(0, 10)}}, "'hits.total' is 25"),
        ({"hits": {"total": 25, "hits": rows(0, 10)}}, "'hits.total' is 25"),
    ],
)
def test_what_says_that_there_is_more_without_a_way_to_it_is_an_error(body, what):
    with pytest.raises(ConnectorError, match=what):
        read(always(body))


def test_a_check_says_it_and_is_not_content():
    with serving(always(rows(0, 30))) as server:
        config = {"base_url": server.url, "resources": [{"name": "things"}]}
        report = check(config)
        assert not report.ok
        assert report.resources[0].partial.startswith("things: the answer has 30 records")
        assert "may be incomplete: " in str(report)
        config["resources"][0]["paginator"] = "single"
        assert check(config).ok


def test_pages_that_give_less_than_they_are_asked_for_are_no_short_ones():
    def answer(got: Got) -> Any:
        start = got.number("after", -1) + 1
        return {"items": rows(start, min(start + min(got.number("limit", 10), 5), 13))}

    paginator = {"type": "last_id", "param": "after", "size": 10, "size_param": "limit"}
    assert read(answer, paginator=paginator) == (list(range(13)), [])


def test_several_fields_make_one_id():
    body = {"rows": [["a/b", "c"], ["a", "b/c"], ["a", None]], "columns": ["x", "y"], "next": None}
    with serving(always(body)) as server:
        resource = {"name": "things", "mapping": {"id": ["x", "y"], "text": "x"}}
        api = APIConnector(server.url, name="db", resources=[resource], retries=0)
        api.authenticate()
        ids = [api.map_to_frame_record(item).unique_id for item in api.sync_documents()]
    assert ids == ["db:things#a%2Fb/c", "db:things#a/b%2Fc", None]
