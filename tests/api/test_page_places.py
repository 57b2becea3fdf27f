"""Pages that are no end: records that are not where they were, errors in a 200, equal pages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from contextframe_beam.connectors.api import APIConnector
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.errors import ConnectorError
from tests.support.small_server import Got, serving

CURSOR = {"type": "cursor", "cursor": "next", "param": "at"}


def rows(start: int, stop: int) -> list[dict[str, Any]]:
    return [{"id": number} for number in range(start, stop)]


def read(answer: Callable[[Got], Any], **resource: Any) -> tuple[list[Any], list[str]]:
    """Reads a resource `things` of a server; returns its records and why it may be incomplete."""
    with serving(answer) as server:
        settings = {"name": "things", "path": "things", **resource}
        # Some refusals speak of a rate limit, which would be waited for.
        api = APIConnector(server.url, resources=[settings], retries=0, max_wait=1)
        api.authenticate()
        pages = list(Source(api).pages())
    reasons = sorted({page.partial for page in pages if page.partial})
    items = [item for page in pages for item in page.items]
    for item in items:
        del item["_resource"]
    return items, reasons


def in_turn(*bodies: Any, param: str = "at", first: int = 0) -> Callable[[Got], Any]:
    """Returns what answers page after page with these bodies, and the last one behind them."""
    return lambda got: bodies[min(int(got.query.get(param) or first) - first, len(bodies) - 1)]


# Errors inside of a 200.

REFUSALS = [
    {"code": 99991400, "msg": "request trigger frequency limit", "data": None},
    {"code": 99991400, "msg": "request trigger frequency limit", "data": {"items": []}},
    {"errcode": 45009, "errmsg": "reach max api daily quota limit", "data": {"items": None}},
    {"success": False, "cause": "Key throttle", "throttle": True},
    {"success": False, "data": {"items": []}},
    {"ok": False, "error": "ratelimited"},
    {"ok": False, "error": "ratelimited", "data": {"items": []}},
    {"error": {"message": "too many requests"}, "data": {"items": []}},
    {"errors": ["not today"], "data": {}},
    {"status": "error", "message": "down", "data": {"items": []}},
    {"status": 503, "message": "down", "data": {"items": []}},
    {"message": "Internal error"},
    {},
    {"data": "none"},
    {"data": {"items": "none"}},
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=str)
@pytest.mark.parametrize("place", [None, "data.items"])
def test_a_later_answer_without_the_records_place_is_no_end(refusal, place):
    answer = in_turn({"code": 0, "data": {"items": rows(0, 3)}, "next": "1"}, refusal)
    settings = {} if place is None else {"records": place}
    with pytest.raises(ConnectorError, match="partition things"):
        read(answer, paginator=CURSOR, **settings)


@pytest.mark.parametrize("refusal", REFUSALS[:11], ids=str)
@pytest.mark.parametrize("place", [None, "data.items?"])
def test_nor_is_a_first_answer_that_holds_an_error(refusal, place):
    settings = {} if place is None else {"records": place}
    with pytest.raises(ConnectorError, match="partition things"):
        read(in_turn(refusal), paginator=CURSOR, **settings)


@pytest.mark.parametrize("refusal", [{"error": "no"}, {"message": "no", "code": 429}, {"a": 1}])
def test_an_object_behind_pages_that_are_lists_is_no_end(refusal):
    with pytest.raises(ConnectorError, match="partition things"):
        read(in_turn(rows(0, 10), refusal, param="page", first=1), paginator="page")
    paginator = {"type": "offset", "size": 10}
    with pytest.raises(ConnectorError, match="partition things"):
        read(lambda got: refusal if got.number("offset", 0) else rows(0, 10), paginator=paginator)


def test_counted_pages_have_the_records_where_the_first_one_had_them():
    bodies = [{"total": 30, "data": {"items": rows(n, n + 10)}} for n in (0, 10, 20)]
    bodies[1] = {"code": 500, "msg": "later", "data": None}
    with pytest.raises(ConnectorError, match="answered with an error: 500, later"):
        read(in_turn(*bodies, param="page", first=1), paginator="page")


@pytest.mark.parametrize(
    "last",
    [
        {"items": [], "next": None},
        {"items": None},
        {"items": [], "errors": [], "error": None, "code": 0, "msg": "ok", "success": True},
        {"items": [], "status": "success", "code": 200, "message": "no more"},
        {"items": []},
        {"items": [{"id": 3}]},
        {"items": [{"id": 3}], "next": ""},
    ],
    ids=str,
)
def test_records_in_their_place_without_a_cursor_are_the_end(last):
    items, reasons = read(in_turn({"items": rows(0, 3), "next": "1"}, last), paginator=CURSOR)
    assert items == rows(0, 3) + (last["items"] or []) and reasons == []


def test_an_absent_flag_beside_records_is_the_end():
    answer = in_turn({"items": rows(0, 3), "next": "1", "more": True}, {"items": rows(3, 4)})
    assert read(answer, paginator={**CURSOR, "has_more": "more"}) == (rows(0, 4), [])


def test_an_empty_list_that_is_left_out_is_said_to_be():
    answer = in_turn({"items": rows(0, 3), "next": "1"}, {"took": 3})
    with pytest.raises(ConnectorError, match=r"write 'items\?' when answers without records leave"):
        read(answer, paginator=CURSOR, records="items")
    assert read(answer, paginator=CURSOR, records="items?") == (rows(0, 3), [])
    assert read(in_turn({}), records="items?") == ([], [])


# Equal pages.

POLL = [["yes", "no"], ["yes", "no"], ["no", "no"]]


def poll(pages: Sequence[Sequence[str]], **stated: Any) -> Callable[[Got], Any]:
    def answer(got: Got) -> Any:
        number = got.number("page", 1)
        answers = pages[number - 1] if number <= len(pages) else []
        return {"page": number, **stated, "answers": [{"answer": one} for one in answers]}

    return answer


@pytest.mark.parametrize(
    "stated", [{"total_pages": 3}, {"total": 6}, {"total_pages": 3, "total": 6}]
)
@pytest.mark.parametrize("paginator", [None, "page"])
def test_equal_pages_within_a_stated_number_are_no_loop(stated, paginator):
    settings = {} if paginator is None else {"paginator": paginator}
    items, reasons = read(poll(POLL, **stated), **settings)
    assert [item["answer"] for item in items] == [one for page in POLL for one in page]
    assert reasons == []


def test_nor_are_pages_that_are_all_the_same():
    items, reasons = read(poll([["yes", "yes"]] * 4, total=8))
    assert len(items) == 8 and reasons == []


@pytest.mark.parametrize("stated", [{"total": 6}, {"meta": {"total_pages": 3}}])
def test_nor_are_those_behind_links_or_cursors(stated):
    bodies = [{"answers": [{"answer": one} for one in page], **stated} for page in POLL]
    for number, body in enumerate(bodies[:-1]):
        body["next"] = str(number + 1)
    items, reasons = read(in_turn(*bodies), paginator=CURSOR)
    assert len(items) == 6 and reasons == []


def test_offsets_may_give_equal_pages_too():
    answers = [one for page in POLL for one in page]

    def answer(got: Got) -> Any:
        start = got.number("offset", 0)
        return {"total": 6, "answers": [{"answer": one} for one in answers[start : start + 2]]}

    items, reasons = read(answer, paginator={"type": "offset", "size": 2})
    assert [item["answer"] for item in items] == answers and reasons == []


def test_without_a_stated_number_they_are_a_loop():
    with pytest.raises(ConnectorError, match="has the same records as one before it"):
        read(poll(POLL), paginator="page")


@pytest.mark.parametrize("total", [4, 6, 7])
def test_a_server_that_ignores_the_page_is_found_out_whatever_it_states(total):
    def answer(got: Got) -> Any:
        return {"total": total, "items": [{"answer": "yes"}, {"answer": "no"}]}

    with pytest.raises(ConnectorError, match="has the same records as one before it"):
        read(answer, paginator="page")


def test_the_same_ids_on_two_counted_pages_are_told():
    pages = [rows(0, 2), rows(0, 2), rows(4, 6)]

    def answer(got: Got) -> Any:
        number = got.number("page", 1)
        return {"total_pages": 3, "items": pages[number - 1] if number <= 3 else []}

    items, (reason,) = read(answer, paginator="page")
    assert len(items) == 6 and "has the records of one before it" in reason


def test_records_beyond_the_stated_number_are_read_and_said(caplog):
    def answer(got: Got) -> Any:
        start = got.number("page", 1) * 10 - 10
        return {"total": 12, "items": rows(start, min(start + 10, 25))}

    with caplog.at_level(logging.WARNING):
        items, reasons = read(answer, paginator="page")
    assert items == rows(0, 25) and reasons == []
    assert "things: 25 records were read up to the end, and the API stated 12" in caplog.text


# A total that changes.


@pytest.mark.parametrize("later", [29, 31])
@pytest.mark.parametrize(
    "paginator",
    ["page", {"type": "offset", "size": 10}, {"type": "cursor", "cursor": "next", "param": "at"}],
    ids=lambda one: str(one),
)
def test_a_total_that_changes_while_it_is_read_makes_the_run_partial(later, paginator):
    def answer(got: Got) -> Any:
        start = got.number("page", 1) * 10 - 10 + got.number("offset", 0) + got.number("at", 0)
        body = {"total": later if start >= 20 else 30, "items": rows(start, min(start + 10, 30))}
        return {**body, "next": str(start + 10)} if start < 20 else body

    items, reasons = read(answer, paginator=paginator)
    assert items == rows(0, 30)
    assert reasons == [
        f"things: the API stated 30 records, and later {later}, so it changed while it was read "
        "and some records may have been missed; run it again"
    ]


def test_the_number_of_records_on_each_page_is_no_total():
    def answer(got: Got) -> Any:
        start = got.number("at", 0)
        items = rows(start, min(start + 10, 25))
        following = {"next": str(start + 10)} if start < 20 else {}
        return {"count": len(items), "items": items, **following}

    assert read(answer, paginator=CURSOR) == (rows(0, 25), [])
