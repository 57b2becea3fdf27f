"""A run asks an API once for what it wants several times."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from urllib3 import HTTPHeaderDict

from contextframe_beam.connectors.api import APIConnector, check
from contextframe_beam.connectors.api.walk import Answers
from contextframe_beam.connectors.http.request import HttpRequest, HttpResponse
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.pipelines.ingest import ingest
from tests.support.small_server import Got, SmallServer, serving

PAGED = {"type": "page", "stop_at_short_page": True, "size": 2}


def records(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"id": number, **more} for number in range(count)]


def crm(got: Got) -> Any:
    """Five contacts in pages of two; for each two notes, and for each of these a comment."""
    steps = got.path.strip("/").split("/")
    if steps[-1] == "contacts":
        start = (got.number("page", 1) - 1) * 2
        return {"items": records(5)[start : start + 2], "total": 5}
    if steps[-1] == "many":
        return {"items": records(900), "total": 900}
    return {"items": records(2 if steps[-1] == "notes" else 1), "more": False}


def asked(server: SmallServer) -> Counter[tuple[str, str]]:
    return Counter((got.path, got.query.get("page", "")) for got in server.requests)


CONTACTS = {"name": "contacts", "paginator": PAGED}
NOTES = {
    "name": "notes",
    "parent": "contacts",
    "path": "contacts/{parent.id}/notes",
    "paginator": "single",
    "mapping": {"id": "{_parent.id}/{id}"},
}
FILES = {**NOTES, "name": "files", "path": "contacts/{parent.id}/files"}
COMMENTS = {
    "name": "comments",
    "parent": "notes",
    "path": "contacts/{parent.parent.id}/notes/{parent.id}/comments",
    "paginator": "single",
    "mapping": {"id": "{_parent.parent.id}/{_parent.id}/{id}"},
}


@pytest.mark.sample(9)
@pytest.mark.parametrize(
    ("resources", "requests"),
    [
        ([{"name": "notes", "paginator": "single"}], 1),
        ([{"name": "notes"}], 1),
        ([{"name": "many"}], 1),
        ([CONTACTS], 3),
        ([{**CONTACTS, "paginator": "page"}], 3),
        ([CONTACTS, NOTES], 3 + 5),
        ([NOTES, CONTACTS], 3 + 5),
        ([{**CONTACTS, "ingest": False}, NOTES], 3 + 5),
        ([CONTACTS, NOTES, FILES], 3 + 5 + 5),
        ([CONTACTS, NOTES, FILES, COMMENTS], 3 + 5 + 5 + 10),
        ([COMMENTS, {**NOTES, "ingest": False}, {**CONTACTS, "ingest": False}], 3 + 5 + 10),
    ],
    ids=[
        "one page",
        "one page, found out",
        "one large page, found out",
        "pages",
        "counted pages",
        "a parent",
        "a parent behind its child",
        "a parent that is no document",
        "two children",
        "grandchildren",
        "grandchildren alone",
    ],
)
@pytest.mark.parametrize("way", ["a plain loop", "a pipeline", "by parts"])
def test_each_address_is_asked_once(tmp_path, resources, requests, way):
    with serving(crm) as server:
        connector = APIConnector(server.url, name="crm", resources=resources, retries=0)
        if way == "a plain loop":
            connector.authenticate()
            assert connector.sync_documents()
        else:
            parts = {"commit_every": 1000} if way == "by parts" else {}
            ingest(connector, str(tmp_path / "kb.lance"), embed_dim=4, **parts)
    assert set(asked(server).values()) == {1}
    assert len(server.requests) == requests


def test_another_run_asks_anew():
    with serving(crm) as server:
        connector = APIConnector(server.url, resources=[CONTACTS, NOTES], retries=0)
        connector.authenticate()
        for _ in range(2):
            list(Source(connector).pages())
    assert set(asked(server).values()) == {2}


def test_a_check_asks_for_one_page_once():
    with serving(crm) as server:
        check({"base_url": server.url, "resources": [{"name": "many"}]})
    assert len(server.requests) == 1


# The store itself.


def response(body: bytes) -> HttpResponse:
    request = HttpRequest("GET", "https://a.example.com/x")
    headers = HTTPHeaderDict({"Link": '</y>; rel="next"'})
    return HttpResponse(200, headers, body, "https://a.example.com/x", request)


def get(path: str, **more: Any) -> HttpRequest:
    return HttpRequest("GET", f"https://a.example.com/{path}", **more)


def test_an_answer_is_kept_for_as_many_uses_as_are_told():
    answers, sent = Answers(), []

    def ask() -> HttpResponse:
        sent.append(1)
        return response(b"[1]" * 100)

    for _ in range(3):
        found = answers.get("run", get("x"), 3, ask)
        assert found.body == b"[1]" * 100 and found.links() == {"next": "https://a.example.com/y"}
    assert len(sent) == 1 and answers.size == 0
    answers.get("run", get("x"), 3, ask)
    assert len(sent) == 2 and answers.size > 0


@pytest.mark.parametrize(
    "other",
    [
        get("y"),
        get("x", params={"page": 2}),
        get("x", headers={"X-Page": "2"}),
        HttpRequest("POST", "https://a.example.com/x", json={"after": "c"}),
        HttpRequest("POST", "https://a.example.com/x", form={"after": "c"}),
    ],
)
def test_another_request_has_another_answer(other):
    answers = Answers()
    answers.get("run", get("x"), 2, lambda: response(b"1"))
    assert answers.take("run", other) is None
    assert answers.take("another run", get("x")) is None
    assert answers.take("run", get("x")) is not None


def test_what_does_not_fit_is_asked_for_again():
    answers, bodies = Answers(most_bytes=100), [bytes([n]) * 10 + b"x" * n for n in range(20)]
    for number, body in enumerate(bodies):
        answers.get("run", get(str(number)), 2, lambda body=body: response(body))  # type: ignore[misc]
    assert 0 < answers.size <= 100
    kept = [answers.take("run", get(str(number))) is not None for number in range(20)]
    assert kept[-1] and not kept[0]
    answers.get("run", get("large"), 2, lambda: response(bytes(range(256)) * 4))
    assert answers.take("run", get("large")) is None


def test_threads_that_want_the_same_wait_for_one_request():
    answers, sent, gate = Answers(), [], threading.Event()

    def ask() -> HttpResponse:
        sent.append(1)
        gate.wait(10)
        return response(b"1")

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(answers.get, "run", get("x"), 4, ask) for _ in range(4)]
        gate.set()
        assert [one.result().body for one in waiting] == [b"1"] * 4
    assert len(sent) == 1 and answers.size == 0


def test_who_fails_leaves_it_to_the_next():
    answers = Answers()
    with pytest.raises(ValueError, match="broken"):
        answers.get("run", get("x"), 2, lambda: (_ for _ in ()).throw(ValueError("broken")))
    assert answers.get("run", get("x"), 2, lambda: response(b"2")).body == b"2"
