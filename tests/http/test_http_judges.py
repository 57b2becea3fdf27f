"""What an answer means where its status does not say it: limits, errors, and rules of one's own."""

from __future__ import annotations

from typing import Any

import pytest

from contextframe_beam.connectors.api import APIConnector
from contextframe_beam.connectors.http import HttpClient, HttpError, HttpRequest, Wait, judges
from contextframe_beam.connectors.http.request import HttpResponse
from contextframe_beam.connectors.http.retry import Verdict
from contextframe_beam.errors import ConfigError, ConnectorError
from tests.support.http_fixture import HttpServer

SECONDARY = {
    "status": 403,
    "headers": {"X-RateLimit-Remaining": "4290", "X-RateLimit-Reset": "1999999999"},
    "body": {"message": "You have exceeded a secondary rate limit. Please wait a few minutes."},
}
FINE = {"body": [{"id": 1, "content": "text"}]}


def play(server: HttpServer, *lines: dict[str, Any], path: str = "/script") -> None:
    """Tells the server what to answer, one after the other."""
    with HttpClient(server.url) as http:
        http.send(HttpRequest("PUT", path, json=list(lines)))


def client(server: HttpServer, **options: Any) -> HttpClient:
    return HttpClient(server.url, **{"backoff": 0.001, "max_wait": 0.05, **options})


def sent(server: HttpServer, **options: Any) -> Any:
    """Returns what a client gets in the end."""
    method = options.pop("method", "GET")
    safe = options.pop("safe_to_repeat", None)
    with client(server, **options) as http:
        return http.send(HttpRequest(method, "/script", safe_to_repeat=safe)).json()


def asked(server: HttpServer, path: str = "/script") -> int:
    return len([one for one in server.requests(path) if one["method"] != "PUT"])


def read(server: HttpServer, resource: dict[str, Any] | None = None, **settings: Any) -> list[Any]:
    """Returns the ids that a configured API gives."""
    found = {"name": "things", "path": "script", **(resource or {})}
    api = APIConnector(
        config={"base_url": server.url, "max_wait": 0.05, "resources": [found], **settings}
    )
    api.authenticate()
    return [one["id"] for one in api.sync_documents()]


# Limits that a status of 400 or 403 hides.

LIMITS = {
    "GitHub's secondary limit": SECONDARY,
    "GitHub's abuse detection": {
        "status": 403,
        "body": {"message": "You have triggered an abuse detection mechanism."},
    },
    "GitHub's limit": {"status": 403, "body": {"message": "API rate limit exceeded for user 7"}},
    "Google's limit": {
        "status": 403,
        "body": {
            "error": {
                "code": 403,
                "message": "Rate Limit Exceeded",
                "errors": [{"domain": "usageLimits", "reason": "rateLimitExceeded"}],
            }
        },
    },
    "Google's limit for a user": {
        "status": 403,
        "body": {"error": {"errors": [{"reason": "userRateLimitExceeded"}]}},
    },
    "Google's newer limit": {
        "status": 403,
        "body": {"error": {"details": [{"reason": "RATE_LIMIT_EXCEEDED"}]}},
    },
    "Linear's limit": {
        "status": 400,
        "body": {"errors": [{"message": "Slow down", "extensions": {"code": "RATELIMITED"}}]},
    },
    "a limit in plain text": {"status": 403, "body": "Too many requests"},
    "a throttled request": {"status": 400, "body": {"error": {"code": "Throttled"}}},
    "Slack's limit in a success": {"body": {"ok": False, "error": "ratelimited"}},
    "GraphQL's limit in a success": {
        "body": {"errors": [{"type": "RATE_LIMITED", "message": "API rate limit exceeded"}]}
    },
    "Shopify's limit": {
        "body": {"errors": [{"message": "Throttled", "extensions": {"code": "THROTTLED"}}]}
    },
}


@pytest.mark.parametrize("limit", LIMITS.values(), ids=list(LIMITS))
def test_a_limit_is_waited_for(server, limit):
    play(server, limit, FINE)
    assert sent(server, retries=1) == FINE["body"]
    assert asked(server) == 2


@pytest.mark.parametrize("limit", LIMITS.values(), ids=list(LIMITS))
def test_a_limit_that_lasts_is_told_as_one(server, limit):
    play(server, limit)
    with pytest.raises(HttpError, match=r"rate limit; set a budget|max_wait is"):
        sent(server, retries=2)
    assert asked(server) <= 3


def test_a_secondary_limit_is_waited_for_a_minute_then_two():
    from urllib3 import HTTPHeaderDict

    from contextframe_beam.connectors.http.retry import Attempts

    attempts = Attempts(0, 1, 300, False)
    judged = Wait(60, doubles=True, shared=True)
    headers = HTTPHeaderDict({"X-RateLimit-Remaining": "4290", "X-RateLimit-Reset": "1999999999"})
    pauses = [attempts.after_answer(403, headers, 1_800_000_000, judged) for _ in range(3)]
    assert [one and (one.seconds, one.shared) for one in pauses] == [(60, True), (120, True), None]
    # What the answer itself states counts more.
    stated = Attempts(0, 1, 300, False).after_answer(
        403, HTTPHeaderDict({"Retry-After": "7"}), 1_800_000_000, judged
    )
    assert stated is not None and stated.seconds == 7


def test_a_long_wait_is_said(server, caplog, monkeypatch):
    monkeypatch.setattr("contextframe_beam.connectors.http.client._LONG_WAIT", 0.05)
    play(server, {"status": 429, "headers": {"Retry-After": "0.3"}}, FINE)
    assert sent(server, max_wait=1) == FINE["body"]
    assert "before http" in caplog.text and "its server wants it so" in caplog.text


@pytest.mark.parametrize(
    "refusal",
    [
        {"status": 403, "body": {"message": "Resource not accessible by this account"}},
        {"status": 403, "body": {"message": "The rate of your mortgage has no limit"}},
        {"status": 400, "body": {"message": "page is not a number"}},
        {"status": 404, "body": {"message": "rate limit exceeded"}},
    ],
    ids=str,
)
def test_another_refusal_is_final(server, refusal):
    play(server, refusal, FINE)
    with pytest.raises(HttpError, match=f"answered {refusal['status']}"):
        sent(server)
    assert asked(server) == 1


# Errors that a success hides.


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"ok": False, "error": "channel_not_found"}, "errors: channel_not_found"),
        ({"success": False, "errors": [{"code": 9, "message": "no zone"}]}, "errors: no zone"),
        ({"success": False, "message": "no such view"}, "errors: no such view"),
        ({"data": None, "errors": [{"message": "no field x"}]}, "errors: no field x"),
        ({"errors": [{"message": "a"}, {"message": "b"}]}, "errors: a; b"),
    ],
    ids=str,
)
def test_an_error_in_a_success_is_an_error(server, body, message):
    play(server, {"body": body})
    with pytest.raises(HttpError, match=f"answered 200 OK with {message}") as caught:
        sent(server)
    assert caught.value.status == 200 and asked(server) == 1
    with client(server) as http:
        answer = http.send(HttpRequest("GET", "/script"), raise_for_status=False)
    assert answer.json() == body


@pytest.mark.parametrize(
    "body",
    [
        {"ok": True, "error": "none"},
        {"ok": False},
        {"items": [{"ok": False, "error": "a record's own"}]},
        {"items": [1], "errors": [{"message": "beside the records"}]},
        {"data": {"a": 1}, "errors": [{"message": "beside the data"}]},
        {"errors": []},
        [{"ok": False, "error": "x"}],
        {"text": 'a document about {"ok": false, "error": "x"} and "errors"'},
    ],
    ids=str,
)
def test_what_is_no_error_is_content(server, body):
    play(server, {"body": body})
    assert sent(server) == body


@pytest.mark.parametrize(
    "error",
    [
        {"type": "TIMEOUT", "message": "Something went wrong"},
        {"extensions": {"code": "TIMEOUT"}, "message": "slow"},
        {"message": "The query timed out"},
        {"extensions": {"code": "SERVICE_UNAVAILABLE"}, "message": "x"},
    ],
    ids=str,
)
def test_a_timeout_of_graphql_is_tried_again(server, error):
    play(server, {"body": {"data": {"a": None}, "errors": [error]}}, {"body": {"data": {"a": 1}}})
    assert sent(server, method="POST", safe_to_repeat=True) == {"data": {"a": 1}}


def test_data_beside_errors_that_last_is_given(server):
    """Whoever asked for it knows which errors matter."""
    body = {"data": {"a": 1, "b": None}, "errors": [{"type": "TIMEOUT", "message": "b"}]}
    play(server, {"body": body})
    assert sent(server, retries=2) == body and asked(server) == 3


def test_what_may_not_be_repeated_is_not(server):
    play(server, SECONDARY, FINE)
    with pytest.raises(HttpError, match="answered 403"):
        sent(server, method="POST")
    play(server, {"body": {"ok": False, "error": "ratelimited"}}, FINE)
    with pytest.raises(HttpError, match="answered 200 OK with a rate limit"):
        sent(server, method="POST")


@pytest.mark.parametrize("cut", [1, 10, 25])
def test_json_that_ends_too_early_is_asked_for_again(server, cut):
    """Where only the end of the connection tells how long a body is."""
    play(server, {**FINE, "cut": cut}, FINE)
    assert sent(server) == FINE["body"] and asked(server) == 2
    play(server, {**FINE, "cut": 10_000})
    assert sent(server) == FINE["body"] and asked(server) == 3


# Refusals have an advice of their own.


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (402, "plan or credit"),
        (405, "does not take this method"),
        (410, "gone for good; take the address out"),
        (413, "ask for less at once"),
        (418, "check it against the API's documentation"),
        (422, "not its values; check parameters and body"),
        (451, "for legal reasons"),
        (501, "the server fails"),
    ],
)
def test_a_refusal_says_what_helps(server, status, advice):
    play(server, {"status": status})
    with pytest.raises(HttpError, match=advice) as caught:
        sent(server)
    assert ("the server fails" in str(caught.value)) is (status >= 500)


# A hook for connectors of one's own.


def test_a_judge_returns_nothing_a_wait_or_an_error(server):
    def judge(response: HttpResponse) -> Verdict:
        if response.status == 409:
            return Wait(0.001, "an export is under way")
        if b"secret diary" in response.body:
            return ConnectorError("this may not be read")
        return None

    play(server, {"status": 409}, {"status": 409}, FINE)
    assert sent(server, judge=judge, retries=0) == FINE["body"]
    play(server, {"body": {"title": "secret diary"}})
    with pytest.raises(ConnectorError, match=r"^this may not be read$"):
        sent(server, judge=judge)
    # It takes the place of the usual one.
    play(server, {"body": {"ok": False, "error": "x"}})
    assert sent(server, judge=judge) == {"ok": False, "error": "x"}
    play(server, {"status": 409})
    with pytest.raises(HttpError, match=r"answered 409 .*an export is under way"):
        sent(server, judge=lambda _: Wait(reason="an export is under way"), retries=1)


def test_a_judge_may_ask_the_usual_one(server):
    def judge(response: HttpResponse) -> Verdict:
        return judges.not_ready(response) or judges.usual(response)

    play(server, {"status": 202, "headers": {"Retry-After": "0"}}, SECONDARY, FINE)
    assert sent(server, judge=judge) == FINE["body"] and asked(server) == 3


# Rules in a configuration.


@pytest.mark.parametrize(
    ("rule", "answer"),
    [
        ({"status": 404}, {"status": 404, "body": {"message": "not built yet"}}),
        (409, {"status": 409}),
        ([409, "5xx"], {"status": 501}),
        ({"status": "4xx"}, {"status": 418}),
        ({"status": [403, 404], "text": "QUOTA"}, {"status": 403, "body": "your quota is used"}),
        ({"text": "come back"}, {"body": "please come back later"}),
        ({"field": "state", "equals": "building"}, {"body": {"state": "building", "items": []}}),
        ({"field": "error.code", "one_of": [7, 8]}, {"body": {"error": {"code": 8}}}),
        ({"field": "error"}, {"body": {"error": "busy"}}),
        ({"field": "meta.note", "matches": "^wait"}, {"body": {"meta": {"note": "wait a bit"}}}),
        ({"field": "queued", "exists": True}, {"body": {"queued": 0, "items": []}}),
        ({"status": 404, "wait": 0.001}, {"status": 404}),
    ],
    ids=str,
)
@pytest.mark.parametrize("everywhere", [True, False])
def test_what_is_tried_again_can_be_said(server, rule, answer, everywhere):
    play(server, answer, FINE)
    if everywhere:
        assert read(server, retry_when=rule) == [1]
    else:
        assert read(server, {"retry_when": rule}) == [1]
    assert asked(server) == 2


def test_a_rule_repeats_also_what_is_not_safe_to_repeat(server):
    play(server, {"status": 409}, FINE)
    resource = {"method": "POST", "body": {}, "safe_to_repeat": False, "retry_when": 409}
    assert read(server, resource) == [1]


@pytest.mark.parametrize(
    ("rule", "answer"),
    [
        ({"field": "status", "equals": "error"}, {"body": {"status": "error", "items": []}}),
        ({"status": 200, "text": "maintenance"}, {"body": {"items": [], "note": "Maintenance"}}),
        ({"field": "partial"}, {"body": {"partial": True, "items": [{"id": 1}]}}),
        ({"status": 503}, {"status": 503}),
    ],
    ids=str,
)
def test_what_is_an_error_can_be_said(server, rule, answer):
    play(server, answer)
    with pytest.raises(ConnectorError, match="error_when says that this is an error"):
        read(server, error_when=rule)
    assert asked(server) == 1


@pytest.mark.parametrize(
    ("rule", "answer"),
    [
        (403, {"status": 403}),
        ({"status": [403, 451]}, {"status": 451}),
        (
            {"field": "error", "equals": "is_archived"},
            {"body": {"ok": False, "error": "is_archived"}},
        ),
        ({"status": 400, "text": "empty repository"}, {"status": 400, "body": "Empty Repository"}),
        ("5xx", {"status": 500}),
    ],
    ids=str,
)
def test_what_may_be_passed_over_can_be_said(server, rule, answer):
    play(server, answer)
    assert read(server, ignore_when=rule, retries=1) == []
    # A 500 may pass, so it is tried again before. (The first page is asked for twice.)
    assert asked(server) == (4 if rule == "5xx" else 2)


def test_a_limit_is_never_passed_over(server):
    play(server, SECONDARY, FINE)
    assert read(server, ignore_when=403) == [1]
    play(server, SECONDARY)
    with pytest.raises(ConnectorError, match="answered 403"):
        read(server, ignore_when=403, retries=0)


def test_what_was_passed_over_is_no_reason_to_delete(server):
    """A page that is passed over at first narrows what is read; a later one makes it partial."""

    def pages(**resource: Any) -> list[Any]:
        settings = {"name": "things", "path": "script", "ignore_when": [403, 410], **resource}
        api = APIConnector(config={"base_url": server.url, "resources": [settings]})
        api.authenticate()
        (partition,) = api.partitions()
        found, cursor = [], None
        while True:
            page = api.fetch_page(partition, cursor)
            found.append(page)
            if page.next_cursor is None:
                return found
            cursor = page.next_cursor

    play(server, {"status": 403})
    (page,) = pages()
    assert page.items == [] and "ignore_when" in page.narrowed and not page.partial
    play(server, {"status": 410})
    (page,) = pages()
    assert page.items == [] and not page.narrowed and not page.partial
    more = {"body": {"items": [{"id": 1}], "next": "n"}}
    play(server, more, {"status": 403})
    _, last = pages(paginator={"type": "cursor", "cursor": "next", "param": "after"})
    assert last.items == [] and "ignore_when" in last.partial


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({}, "has no condition; give status, field, text or when"),
        ({"equals": 1, "status": 200}, "give the field that holds it"),
        ({"status": 42}, "ignore_when"),
        ({"status": "6xx"}, "ignore_when"),
        ({"stats": 404}, "did you mean status"),
        ({"field": "a", "matches": "("}, "is not a regular expression"),
        ({"status": 404, "wait": "1m"}, "wait is not a key that exists here"),
    ],
    ids=str,
)
def test_a_wrong_rule_is_told(server, rule, message):
    with pytest.raises(ConfigError, match=message):
        read(server, ignore_when=rule)


def test_what_renews_a_token_can_be_said(server, tmp_path, monkeypatch):
    monkeypatch.setenv("CONTEXTFRAME_BEAM_STATE_DIR", str(tmp_path))
    token = {"body": {"access_token": "a-token", "token_type": "Bearer"}}
    newer = {"body": {"access_token": "newer-token", "token_type": "Bearer"}}
    play(server, token, newer, path="/script/token")
    play(server, {"body": {"status": "session_over", "items": []}}, FINE)
    auth = {
        "type": "oauth2_client_credentials",
        "token_url": "/script/token",
        "client_id": "me",
        "client_secret": "env:CLIENT_SECRET",
    }
    monkeypatch.setenv("CLIENT_SECRET", "client-s3cret")
    rule = {"field": "status", "equals": "session_over"}
    assert read(server, auth=auth, renew_when=rule) == [1]
    sent_tokens = [
        one["headers"]["Authorization"]
        for one in server.requests("/script")
        if one["method"] == "GET"
    ]
    assert sent_tokens == ["Bearer a-token", "Bearer newer-token"]


# Successes that are not 200.


def test_202_is_asked_again_until_there_is_content(server):
    play(server, {"status": 202, "headers": {"Retry-After": "0.01"}}, {"status": 202}, FINE)
    assert read(server) == [1] and asked(server) == 3


@pytest.mark.parametrize("body", [{}, {"items": []}, [], {"status": "queued"}], ids=str)
def test_202_for_ever_is_an_error(server, body):
    play(server, {"status": 202, "body": body})
    with pytest.raises(ConnectorError, match=r"answered 202 Accepted.*no content yet"):
        read(server, retries=2)
    assert asked(server) == 3


def test_202_that_asks_for_too_long_a_wait_is_an_error(server):
    play(server, {"status": 202, "headers": {"Retry-After": "3600"}})
    with pytest.raises(ConnectorError, match=r"202 .*asks to wait 3600 s more, and max_wait is 0"):
        read(server)


def test_204_is_empty_and_206_is_content(server):
    play(server, {"status": 204, "body": b"".decode()})
    assert read(server) == []
    play(server, {**FINE, "status": 206})
    assert read(server, {"paginator": "single"}) == [1]
