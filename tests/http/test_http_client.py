"""The HTTP client against a real server: retries, limits, redirects, and bad answers."""

from __future__ import annotations

import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import HTTPHeaderDict

from contextframe_beam.connectors.http import (
    HttpClient,
    HttpError,
    HttpRequest,
    HttpResponse,
    JsonFormatter,
)
from contextframe_beam.connectors.http import request as urls
from contextframe_beam.connectors.http.retry import Attempts, quota_wait, stated_wait
from contextframe_beam.errors import ConfigError, ConnectorError
from tests.support.http_fixture import HttpServer

NOW = 1_800_000_000.0


def client(server: HttpServer, **options: Any) -> HttpClient:
    """A client that loses no time between attempts."""
    return HttpClient(server.url, **{"backoff": 0.001, **options})


def get(path: str, **params: Any) -> HttpRequest:
    return HttpRequest("GET", path, params=params)


# What is asked.


def test_a_request_arrives_as_it_was_meant(server):
    with client(server, headers={"X-Team": "docs", "Accept": "text/plain"}) as http:
        request = HttpRequest(
            "GET",
            "echo?kept=1",
            params={"a": [1, 2], "none": None, "flag": True, "fields[user]": "näme & co"},
            headers={"x-team": "mine"},
        )
        seen = http.send(request).json()
    assert seen["query"] == "kept=1&a=1&a=2&flag=true&fields%5Buser%5D=n%C3%A4me%20%26%20co"
    assert seen["headers"]["x-team"] == "mine" and seen["headers"]["accept"] == "text/plain"
    assert seen["headers"]["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize("status", [403, 404, 410, 451])
def test_what_may_not_be_read_or_is_gone_is_unreadable(server, status):
    with client(server, retries=0) as http, pytest.raises(HttpError) as caught:
        http.send(get(f"status/{status}"))
    assert caught.value.is_unreadable and not caught.value.is_limit


@pytest.mark.parametrize(
    "params",
    [{"status": 403, "retry_after": 100}, {"status": 429}, {"status": 503}, {"status": 401}],
    ids=str,
)
def test_a_limit_or_a_failing_server_is_not(server, params):
    """A connector leaves out what is unreadable, and must not do so because of a limit."""
    http = client(server, retries=0, max_wait=1)
    with http, pytest.raises(HttpError) as caught:
        http.send(get("flaky", fails=99, **params))
    assert not caught.value.is_unreadable


def test_bodies_go_as_json_or_as_a_form(server):
    with client(server) as http:
        sent = http.send(HttpRequest("POST", "/echo", json={"a": "ä"})).json()
        assert (sent["body"], sent["headers"]["content-type"]) == ('{"a":"ä"}', "application/json")
        sent = http.send(HttpRequest("PUT", "/echo", form={"a": ["ä", 1], "b": False})).json()
        assert sent["body"] == "a=%C3%A4&a=1&b=false"
        assert sent["headers"]["content-type"] == "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("base", "url", "whole"),
    [
        ("https://api.example.com/v2/", "items", "https://api.example.com/v2/items"),
        ("https://api.example.com/v2", "/items", "https://api.example.com/items"),
        ("https://api.example.com/v2", "", "https://api.example.com/v2"),
        ("https://api.example.com/v2", "?page=2", "https://api.example.com/v2?page=2"),
        ("https://api.example.com", "https://else.com/x", "https://else.com/x"),
    ],
)
def test_relative_addresses_are_below_the_base(base, url, whole):
    assert HttpClient(base).absolute(url) == whole


@pytest.mark.parametrize(
    "base",
    [
        "file:///etc/passwd",
        "ftp://host/",
        "host/path",
        "",
        "https://u:pass-w0rd@host",
        "http://h?a=1",
    ],
)
def test_a_base_that_is_none_is_refused(base):
    with pytest.raises(ConfigError, match=r"http:// and https://|write it without user") as caught:
        HttpClient(base)
    assert "pass-w0rd" not in str(caught.value)


def test_connections_are_kept_and_shared_by_threads(server):
    with client(server, pool_size=8) as http, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: http.send(get(f"/ok/{n}")).json()["path"], range(80)))
        assert answers == [f"/ok/{n}" for n in range(80)]
        assert http.stats.requests == 80 and http.stats.retries == 0


def test_requests_of_threads_are_under_way_at_the_same_time(server):
    with client(server) as http, ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: http.send(get("/slow", seconds=0.5)), range(16)))
    assert server.at_once() >= 8


# What is answered.


def test_an_answer_tells_status_headers_and_where_it_leads(server):
    link = '<https://h/2?a=1,2>; rel="next last"; title="a, b; rel=x", </up>; rel=Up, <?p=3>; rel=3'
    with client(server) as http:
        response = http.send(get("/links", link=link))
    assert response.status == 200 and response.headers["content-TYPE"] == "application/json"
    assert response.links() == {
        "next": "https://h/2?a=1,2",
        "last": "https://h/2?a=1,2",
        "up": f"{server.url}/up",
        "3": f"{server.url}/links?p=3",
    }


@given(st.text(max_size=60) | st.text('<>;,="\\ relnxt', max_size=60))
def test_no_link_header_breaks_the_parser(text):
    headers = HTTPHeaderDict({"Link": text})
    links = HttpResponse(200, headers, b"", "http://h/a", HttpRequest("GET", "/a")).links()
    assert all(isinstance(value, str) for value in links.values())


def test_204_and_304_have_no_body_and_are_no_errors(server):
    with client(server) as http:
        response = http.send(get("/status/204"))
        assert (response.status, response.body) == (204, b"")
        assert http.send(get("/status/304")).status == 304
        with pytest.raises(ConnectorError, match="answered 204, but the body is empty"):
            response.json()


def test_compressed_answers_are_read(server):
    with client(server) as http:
        assert http.send(get("/packed")).json()["text"].startswith("word word")
        with pytest.raises(ConnectorError, match="not compressed as it says"):
            http.send(get("/packed", wrong=1))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("html", r"/bad/html answered 200, but the body is HTML or XML, not JSON \('<!doctype"),
        ("truncated", "is cut off: the JSON ends after 26 characters"),
        ("string", "is cut off: the JSON ends after 14 characters"),
        ("text", "is not JSON: Expecting value at line 1, column 1"),
        ("empty", "is empty"),
        ("blank", "is empty"),
        ("latin1", "is not UTF-8 text: byte 0xf6 at 11"),
        ("unknown-charset", "'klingon', which is unknown"),
        ("deep", "cannot be held"),
    ],
)
def test_what_is_not_json_is_told_so(server, name, message):
    with client(server) as http:
        response = http.send(get(f"/bad/{name}"))
    with pytest.raises(ConnectorError, match=message):
        response.json()


def test_json_in_other_encodings_and_with_odd_numbers_is_read(server):
    with client(server) as http:
        for name in ("latin1-said", "utf16", "bom"):
            assert http.send(get(f"/bad/{name}")).json() == {"name": "Jörg"}
        assert http.send(get("/bad/long")).json() == {"id": 123456789012345678901234567890}
        assert str(http.send(get("/bad/nan")).json()) == "{'value': nan}"


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(2**63) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(value=_VALUES)
def test_json_is_read_as_python_reads_it(value):
    body = json.dumps(value).encode()
    request = HttpRequest("GET", "http://localhost/")
    response = HttpResponse(200, HTTPHeaderDict(), body, request.url, request)
    assert repr(response.json()) == repr(json.loads(body))


# What fails.


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 501])
def test_a_refusal_is_final_and_says_why(server, status):
    with client(server) as http:
        with pytest.raises(
            HttpError, match=f"GET .*/status/{status}.* answered {status}"
        ) as caught:
            http.send(get(f"/status/{status}", body="no such thing"))
        assert caught.value.status == status and "no such thing" in str(caught.value)
        assert server.count(f"/status/{status}") == 1
        response = http.send(get(f"/status/{status}"), raise_for_status=False)
        assert response.status == status


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 520])
def test_what_passes_is_tried_again(server, status):
    with client(server) as http:
        assert http.send(get("/flaky", status=status, fails=2)).json() == {"count": 3}
        assert (http.stats.requests, http.stats.retries) == (3, 2)


def test_attempts_end(server):
    with client(server, retries=3) as http:
        with pytest.raises(HttpError, match=r"answered 500 .* after 4 attempts") as caught:
            http.send(get("/status/500"))
        assert caught.value.status == 500
        assert server.count("/status/500") == 4


@pytest.mark.parametrize(
    ("method", "safe", "sent"),
    [("POST", None, 1), ("PATCH", None, 1), ("POST", True, 3), ("PUT", None, 3), ("GET", False, 1)],
)
@pytest.mark.parametrize("path", ["/status/503", "/status/429", "/cut"])
def test_only_what_is_safe_is_repeated(server, method, safe, sent, path):
    with client(server, retries=2) as http, pytest.raises(HttpError):
        http.send(HttpRequest(method, path, json={}, safe_to_repeat=safe))
    assert server.count(path) == sent


@pytest.mark.parametrize("how", ["length", "chunked", "gzip", "head", "nothing"])
def test_a_connection_that_closes_in_the_middle_is_tried_again(server, how):
    with client(server, retries=2) as http:
        assert http.send(get("/cut", how=how, times=2)).json() == {"count": 3}
        with pytest.raises(HttpError, match=r"(in the middle|broke).* after 3 attempts") as caught:
            http.send(get("/cut/ever", how=how))
        assert caught.value.status == 0


def test_a_server_that_is_not_there_is_told(server):
    http = HttpClient("http://127.0.0.1:1", retries=1, backoff=0.001)
    with pytest.raises(HttpError, match=r"could not be connected to.* after 2 attempts"):
        http.send(HttpRequest("POST", "/"))  # nothing was sent, so that is safe


def test_answers_that_say_now_are_attempts_after_the_third(server):
    with client(server, retries=0) as http:
        answer = http.send(get("/flaky", status=429, fails=3, retry_after=0)).json()
        assert answer == {"count": 4}
    past = formatdate(1e9, usegmt=True)
    for number, told in enumerate(["0", "-1", "0.01", "10ms", past, "2001-09-09T01:46:40Z"]):
        with client(server, retries=1) as http, pytest.raises(HttpError) as caught:
            http.send(get(f"/status/429/{number}/429", retry_after=told))
        assert caught.value.status == 429 and http.stats.requests == 5


@pytest.mark.parametrize(
    "told",
    [
        {"status": 429, "retry_after": "0.5"},
        {"status": 503, "retry_after": "0.5"},
        {"status": 403, "retry_after": "0.5"},
        {"status": 429, "remaining": 0, "reset": "0.5"},
        {"status": 429, "ratelimit": '"a";r=5;t=90, "b";r=0;t=60'},
        {"status": 429, "retry_date": 60},
    ],
)
def test_the_wait_that_a_server_asks_for_is_kept(server, told):
    with client(server, retries=1, max_wait=0.5) as http:
        assert http.send(get("/flaky", fails=1, **told)).json() == {"count": 2}
        assert http.stats.wait_ms > 0


def test_waits_are_capped(server):
    with client(server, retries=1, max_wait=0.01) as http:
        assert http.send(get("/flaky", status=429, fails=1, retry_after=7200)).json()
        with pytest.raises(HttpError, match="429"):
            http.send(get("/status/429", retry_after=7200))
    assert server.count("/status/429") == 2


def test_all_threads_wait_when_one_is_told_to(server):
    with client(server, retries=0) as http, ThreadPoolExecutor(4) as pool:
        assert http.send(get("/flaky", status=429, fails=1, retry_after="0.1")).json()
        http.send(get("/used-up", reset="1"))
        list(pool.map(lambda n: http.send(get(f"/ok/{n}")), range(4)))
        assert http.stats.wait_ms > 0


def test_many_threads_at_a_limited_server_all_get_through(server):
    with client(server, retries=30) as http, ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda _: http.send(get("/limited")).json()["count"], range(40)))
    assert len(set(counts)) == 40


def test_a_server_that_drips_is_cut_off(server):
    for headers in (None, 1):
        http = client(server, total_timeout=1.5, retries=5)
        with pytest.raises(HttpError, match=r"it took more than 1\.5 s altogether"):
            http.send(get("/drip", headers=headers))
    assert server.count("/drip") == 2


def test_a_server_that_is_silent_is_tried_again(server):
    with client(server, timeout=(5, 1)) as http:
        assert http.send(get("/slow", seconds=5, times=1)).json()["count"] == 2
        with pytest.raises(HttpError, match=r"sent nothing for 1 s, as long as timeout allows"):
            client(server, timeout=(5, 1), retries=0).send(get("/slow", seconds=5))


def test_the_watchdog_lets_others_live(server):
    hurried, patient = client(server, total_timeout=0.15), client(server)
    with ThreadPoolExecutor(8) as pool:
        slow = [pool.submit(patient.send, get("/slow", seconds=0.3)) for _ in range(4)]
        cut = [pool.submit(hurried.send, get("/drip")) for _ in range(4)]
        assert all(one.result().status == 200 for one in slow)
        assert all(isinstance(one.exception(), HttpError) for one in cut)


@pytest.mark.parametrize("kind", [{}, {"chunked": 1}, {"until_end": 1}])
def test_a_body_that_is_too_large_is_refused(server, kind):
    with client(server, max_response_bytes=100_000) as http:
        assert len(http.send(get("/big", bytes=100_000, **kind)).body) == 100_000
        with pytest.raises(HttpError, match="more than 100000 bytes; ask for smaller pages"):
            http.send(get("/big", bytes=100_001, **kind))
        with pytest.raises(HttpError, match="more than 100000 bytes"):
            http.send(get("/big", bytes=1 << 30, **kind))
        assert http.send(get("/ok")).status == 200
    assert server.count("/big") == 3  # none is asked for again


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_bomb_is_not_unpacked(server, coding):
    import tracemalloc

    with client(server, max_response_bytes=1_000_000) as http:
        tracemalloc.start()
        try:
            with pytest.raises(HttpError, match="more than 1000000 bytes"):
                http.send(get("/bomb", bytes=300_000_000, coding=coding))
            assert tracemalloc.get_traced_memory()[1] < 30_000_000
        finally:
            tracemalloc.stop()


# Redirects.


def test_a_circle_of_redirects_ends(server):
    with client(server) as http, pytest.raises(ConnectorError, match="goes in a circle"):
        http.send(get("/circle"))


# TLS.


def test_tls_is_verified(server):
    with HttpClient(server.tls, retries=3) as http:
        with pytest.raises(HttpError, match=r"no certificate that is trusted.*give ca_bundle"):
            http.send(get("/ok"))
        assert http.stats.requests == 1
    with HttpClient(server.tls, ca_bundle=server.ca) as http:
        assert http.send(get("/ok")).status == 200
    # The time limit shuts TLS connections as well.
    hurried = HttpClient(server.tls, ca_bundle=server.ca, total_timeout=2)
    with pytest.raises(HttpError, match="it took more than"):
        hurried.send(get("/drip"))
    with pytest.raises(ConfigError, match=r"no file or directory '/nowhere\.pem'"):
        HttpClient(server.tls, ca_bundle="/nowhere.pem")


def test_a_proxy_of_the_environment_is_used(server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.other)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with HttpClient("http://docs.example.com") as http:
        http.send(get("/ok"))
    (request,) = server.requests()
    assert request["port"] == "other" and request["headers"]["Host"] == "docs.example.com"


# Logs.


def test_each_request_is_one_line(server, caplog):
    caplog.set_level(logging.DEBUG, logger="contextframe_beam.http")
    with client(server) as http:
        http.send(get("/flaky", fails=1, filter="private"))
    lines = [one for one in caplog.records if one.name == "contextframe_beam.http"]
    host = server.url.removeprefix("http://")
    assert [one.getMessage().split(" in ")[0] for one in lines] == [
        f"GET {host}/flaky 503",
        f"GET {host}/flaky 200",
    ]
    line = json.loads(JsonFormatter().format(lines[1]))
    assert {key: line[key] for key in ("method", "host", "path", "status", "attempt")} == {
        "method": "GET",
        "host": host,
        "path": "/flaky",
        "status": 200,
        "attempt": 2,
    }
    assert line["ms"] > 0 and line["level"] == "debug" and line["time"].endswith("+00:00")


# The decisions alone.


@given(st.text(max_size=40) | st.from_regex(r"-?\d{1,30}(\.\d+)?", fullmatch=True))
def test_no_header_breaks_the_waits(text):
    names = ["Retry-After", "RateLimit", "RateLimit-Remaining", "RateLimit-Reset"]
    headers = HTTPHeaderDict(dict.fromkeys(names, text))
    for wait in (stated_wait(429, headers, NOW), quota_wait(headers, NOW)):
        assert wait is None or wait >= 0


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "-7"}, 0),
        ({"Retry-After": formatdate(NOW + 9, usegmt=True)}, 9),
        ({"Retry-After": formatdate(NOW - 9, usegmt=True)}, 0),
        ({"Retry-After": "soon"}, None),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(NOW) + 5)}, 5),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(NOW + 5) * 1000)}, 5),
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": "30"}, 30),
        ({"RateLimit-Remaining": "3", "RateLimit-Reset": "30"}, None),
        ({"RateLimit": "limit=100, remaining=0, reset=5"}, 5),
        ({"RateLimit": "limit=100, remaining=1, reset=5"}, None),
        ({"RateLimit": '"hour";r=0;t=50, "day";r=0;t=500'}, 500),
        ({}, None),
    ],
)
def test_what_a_server_asks_for(headers, wait):
    assert stated_wait(429, HTTPHeaderDict(headers), NOW) == wait


@given(
    statuses=st.lists(st.sampled_from([429, 500, 503]), min_size=120, max_size=120),
    waits=st.lists(st.integers(1, 50), min_size=120, max_size=120),
)
def test_attempts_always_end(statuses, waits):
    attempts = Attempts(retries=5, backoff=1, max_wait=100, repeatable=True)
    asked = 0.0
    for status, seconds in zip(statuses, waits, strict=True):
        wait = attempts.after_answer(status, HTTPHeaderDict({"Retry-After": str(seconds)}), NOW)
        if wait is None:
            break
        asked += wait.seconds
    else:
        raise AssertionError("it never gives up")
    assert attempts.used <= 5 and asked <= 100 + 1 + 2 + 4 + 8 + 16


def test_backoff_doubles_with_jitter():
    attempts = Attempts(5, 1.0, 300, True, jitter=lambda: 1.0)
    waits = [attempts.after_break(True) for _ in range(6)]
    assert [one.seconds for one in waits[:5] if one] == [1, 2, 4, 8, 16] and waits[5] is None
    low = Attempts(5, 1.0, 300, True, jitter=lambda: 0.0).after_break(True)
    assert low is not None and low.seconds == 0.5


@given(
    st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=8), max_size=4),
    st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=8), max_size=4),
)
def test_a_query_holds_what_was_given_last(first, second):
    from urllib.parse import parse_qsl, urlsplit

    first = {key.encode("utf-8", "replace").decode(): value for key, value in first.items()}
    url = urls.with_query(urls.with_query("https://h/p", first), second)
    found = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    assert found == {**first, **second}


def test_sending_blocks_no_other_thread(server):
    done = threading.Event()
    with client(server) as http:
        thread = threading.Thread(target=lambda: (http.send(get("/slow", seconds=1)), done.set()))
        before = time.monotonic()
        thread.start()
        http.send(get("/ok"))
        assert not done.is_set() or time.monotonic() - before > 1
        thread.join()
