"""Requests that a server counts apart: one bucket that is used up stops no other."""

from __future__ import annotations

import threading
import time
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam.connectors.http import Budget, HttpClient, HttpError, HttpRequest
from contextframe_beam.connectors.http.buckets import Buckets
from contextframe_beam.errors import ConfigError
from tests.support.small_server import Got, serving


@pytest.fixture(autouse=True)
def state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accounts of their own for each test."""
    monkeypatch.setenv("CONTEXTFRAME_BEAM_STATE_DIR", str(tmp_path / "state"))


def get(path: str) -> HttpRequest:
    return HttpRequest("GET", path)


def waited(http: HttpClient, path: str) -> bool:
    """Sends a request, and returns whether it had to wait."""
    before = http.stats.wait_ms
    http.send(get(path))
    return http.stats.wait_ms > before


class Quotas:
    """A server that counts by resource, as GitHub does; `left` is what each has left.

    Its windows end after `seconds`.
    """

    def __init__(self, left: dict[str, int], seconds: float = 1.5) -> None:
        self.left = Counter(left)
        self.ends = time.time() + seconds
        self.refused: list[str] = []

    def __call__(self, got: Got) -> Any:
        first = got.path.split("/")[1]
        resource = first if first in ("search", "graphql") else "core"
        over = time.time() >= self.ends
        is_left = over or self.left[resource] > 0
        self.left[resource] -= is_left
        headers = {
            "X-RateLimit-Resource": resource,
            "X-RateLimit-Limit": "100",
            "X-RateLimit-Remaining": str(100 if over else self.left[resource]),
            "X-RateLimit-Reset-After": f"{0.5 if over else max(self.ends - time.time(), 0):.3f}",
        }
        if is_left:
            return 200, headers, {"resource": resource}
        self.refused.append(got.path)
        return 403, headers, {"message": "API rate limit exceeded"}


def test_a_resource_that_is_used_up_stops_no_other():
    quotas = Quotas({"search": 1, "core": 50, "graphql": 5})
    with serving(quotas) as server, HttpClient(server.url) as http:
        assert not waited(http, "search/issues?q=a")
        assert not waited(http, "repos/acme/app/issues")
        assert not waited(http, "graphql")
        assert waited(http, "search/issues?q=b")
    assert quotas.refused == []


def test_other_addresses_of_a_resource_that_is_used_up_are_not_tried():
    quotas = Quotas({"core": 2})
    with serving(quotas) as server, HttpClient(server.url) as http:
        http.send(get("repos/acme/app/issues"))
        http.send(get("repos/acme/app/pulls"))
        assert waited(http, "repos/acme/another/issues/7/comments")
    assert quotas.refused == []


def test_the_next_page_is_of_the_same_bucket_however_its_address_looks():
    quotas = Quotas({"core": 1})

    def answer(got: Got) -> Any:
        status, headers, body = quotas(got)
        next_page = f'<{got.url}/repositories/11/issues?page=2>; rel="next"'
        return status, {**headers, "Link": next_page}, body

    with serving(answer) as server, HttpClient(server.url) as http:
        following = http.send(get("repos/acme/app/issues")).links()["next"]
        assert waited(http, following)
    assert quotas.refused == []


class Channels:
    """A server that lets 5 requests a window through for each channel, as Discord does."""

    window = 0.4

    def __init__(self) -> None:
        self.began: dict[str, float] = {}
        self.used: Counter[str] = Counter()
        self.refused = 0

    def __call__(self, got: Got) -> Any:
        bucket = "/".join(got.path.split("/")[1:3])
        now = time.monotonic()
        if now - self.began.get(bucket, 0) >= self.window:
            self.began[bucket], self.used[bucket] = now, 0
        self.used[bucket] += 1
        after = f"{self.window - (now - self.began[bucket]):.3f}"
        headers = {
            "X-RateLimit-Bucket": "of-messages",
            "X-RateLimit-Limit": "5",
            "X-RateLimit-Remaining": str(max(5 - self.used[bucket], 0)),
            "X-RateLimit-Reset-After": after,
        }
        if self.used[bucket] <= 5:
            return 200, headers, []
        self.refused += 1
        scope = {"X-RateLimit-Scope": "user", "Retry-After": "1"}
        return 429, {**headers, **scope}, {"retry_after": float(after), "global": False}


def test_no_more_are_sent_than_a_bucket_has_left():
    channels = Channels()
    with serving(channels) as server, HttpClient(server.url) as http:
        http.send(get("users/@me/guilds"))
        asked = [get(f"channels/{1 + n % 2}/messages?page={n}") for n in range(40)]
        assert len(http.all(asked, at_once=16)) == 40
    assert channels.refused <= 2, "the share of refused requests is 5 % at most"


def test_a_channel_that_is_used_up_holds_up_only_itself():
    channels = Channels()
    channels.window = 5.0
    with serving(channels) as server, HttpClient(server.url) as http:
        for _ in range(5):
            http.send(get("channels/1/messages"))
        assert not waited(http, "channels/2/messages")
        assert not waited(http, "channels/3/messages/99/reactions")
    assert channels.refused == 0


def test_requests_that_wait_for_a_bucket_keep_no_place_from_others():
    channels = Channels()
    channels.window = 2.0
    with serving(channels) as server, HttpClient(server.url, pool_size=2) as http:
        http.send(get("channels/1/messages"))
        asked = [get("channels/1/messages") for _ in range(9)]
        thread = threading.Thread(target=http.all, args=(asked,))
        thread.start()
        while channels.used["channels/1"] < 5:
            time.sleep(0.01)
        http.all([get(f"channels/{number}/messages") for number in (2, 3)])
        thread.join()
        came = [one.path for one in server.requests]
    assert channels.refused == 0
    assert came[-5:] == ["/channels/1/messages"] * 5, "others came before it had room again"


def test_a_refusal_for_everything_holds_up_everything():
    answers = [
        (200, {"X-RateLimit-Bucket": "a"}, {}),
        (429, {"X-RateLimit-Bucket": "a", "X-RateLimit-Global": "true", "Retry-After": "1"}, {}),
    ]
    small = serving(lambda _: answers.pop(0) if answers else {})
    with small as server, HttpClient(server.url) as http:
        http.send(get("channels/1/messages"))
        thread = threading.Thread(target=http.send, args=(get("channels/1/messages"),))
        thread.start()
        while answers:
            time.sleep(0.01)
        time.sleep(0.05)
        assert waited(http, "channels/2/messages")
        thread.join()


def test_a_secondary_limit_holds_up_everything_although_quota_is_left():
    def answer(got: Got) -> Any:
        headers = {
            "X-RateLimit-Resource": "core",
            "X-RateLimit-Limit": "5000",
            "X-RateLimit-Remaining": "4000",
            "X-RateLimit-Reset-After": "3000",
        }
        if len(server.requests) == 2:
            told = {"message": "You have exceeded a secondary rate limit"}
            return 403, {**headers, "Retry-After": "1"}, told
        return 200, headers, {}

    with serving(answer) as server, HttpClient(server.url) as http:
        http.send(get("repos/1/issues"))
        assert waited(http, "repos/1/pulls")
        assert http.stats.requests == 3 and not waited(http, "search/issues")


def test_paths_that_count_for_themselves_wait_for_themselves():
    """As Slack's methods do, whose answers name no bucket."""

    def answer(got: Got) -> Any:
        first = sum(one.path == got.path for one in server.requests) == 1
        if got.path == "/api/conversations.history" and first:
            return 429, {"Retry-After": "1"}, {"ok": False, "error": "ratelimited"}
        return {"ok": True}

    with serving(answer) as server:
        budget = {"paths": {"*.*": {}}}
        with HttpClient.from_config(f"{server.url}/api", budget=budget) as http:
            thread = threading.Thread(target=http.send, args=(get("conversations.history"),))
            thread.start()
            while not server.requests:
                time.sleep(0.01)
            time.sleep(0.05)
            assert not waited(http, "users.list")
            thread.join()
            assert http.stats.wait_ms > 0


def test_a_path_has_limits_of_its_own():
    with serving(lambda _: {}) as server:
        budget = {"paths": {"slow.*": {"per_hour": 2}, "*": {"per_second": 1000}}}
        with HttpClient.from_config(server.url, budget=budget) as http:
            for path in ("slow.one", "slow.one", "slow.two", "slow.two", *["fast"] * 20):
                assert not waited(http, path)
            buckets: Buckets = http._buckets
            assert buckets.paused(HttpRequest("GET", f"{server.url}/fast")) == 0


def test_the_pause_of_a_path_holds_in_all_processes():
    answers = [(200, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset-After": "1.5"}, {})]
    with serving(lambda _: answers.pop() if answers else {}) as server:
        one, two = (HttpClient.from_config(server.url, budget={"paths": {"a": {}}}) for _ in "12")
        one.send(get("a"))
        assert not waited(two, "b") and waited(two, "a")


def test_a_budget_of_paths_goes_with_one_of_the_whole_server():
    budget = Budget.from_config({"per_second": 100, "paths": {"a*": {"per_minute": 5}}})
    assert [limit.count for limit in budget.limits] == [100]
    assert [(name, limit.count) for name, (limit,) in budget.paths] == [("a*", 5)]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ({"a": {"per_minut": 5}}, "did you mean per_minute"),
        ({"a": {"burst": 5}}, "burst is not a key"),
        ({"a": 5}, "budget.paths"),
    ],
)
def test_a_wrong_limit_of_a_path_is_refused(paths, message):
    with pytest.raises(ConfigError, match=message):
        Budget.from_config({"paths": paths})


def test_less_left_than_a_query_costs_is_used_up():
    """As at Linear, which tells the complexity of each query."""
    answers = [
        (
            200,
            {
                "X-Complexity": "4620",
                "X-RateLimit-Complexity-Remaining": "500",
                "X-RateLimit-Complexity-Reset": str(int(time.time() * 1000) + 1200),
                "X-RateLimit-Requests-Remaining": "900",
                "X-RateLimit-Requests-Reset": str(int(time.time() * 1000) + 3_600_000),
            },
            {},
        )
    ]
    small = serving(lambda _: answers.pop() if answers else {})
    with small as server, HttpClient(server.url) as http:
        http.send(get("graphql"))
        assert waited(http, "graphql")


def told_costs(kind: str) -> dict[str, Any]:
    """Returns an answer after which less is left than its query cost, for a second."""
    if kind == "Shopify":
        status = {"maximumAvailable": 1000, "currentlyAvailable": 380, "restoreRate": 100}
        cost = {"requestedQueryCost": 500, "actualQueryCost": 12, "throttleStatus": status}
        return {"data": {}, "extensions": {"cost": cost}}
    reset = datetime.fromtimestamp(time.time() + 1.2, timezone.utc).isoformat()
    return {"data": {"rateLimit": {"cost": 10, "remaining": 9, "resetAt": reset}}}


@pytest.mark.parametrize("kind", ["GitHub", "Shopify"])
def test_the_cost_of_a_query_is_kept_to(kind):
    answers = [told_costs(kind)]
    with serving(lambda _: answers.pop() if answers else {"data": {}}) as server:
        http = HttpClient(server.url)
        http.send(get("graphql"))
        assert waited(http, "graphql")


@pytest.mark.parametrize(
    "body",
    [
        {"data": {"rateLimit": {"cost": 1, "remaining": 5000, "resetAt": "2999-01-01"}}},
        {"data": {"rateLimit": "off", "throttleStatus": None}},
        {"data": {"rateLimit": {"cost": None, "remaining": None}}},
        {"extensions": {"cost": {"throttleStatus": {"restoreRate": 0}}}},
        ["throttleStatus"],
    ],
)
def test_other_answers_cost_nothing(body):
    with serving(lambda _: body) as server, HttpClient(server.url) as http:
        http.send(get("graphql"))
        assert not waited(http, "graphql")


def test_a_reset_that_outlasts_the_longest_wait_ends_in_one_message():
    quotas = Quotas({"core": 1}, seconds=1000)
    with serving(quotas) as server, HttpClient(server.url, max_wait=0.2, backoff=0.001) as http:
        http.send(get("repos/1"))
        with pytest.raises(HttpError, match=r"asks to wait \d+ s more, and max_wait is 0.2 s"):
            http.send(get("repos/1"))


def test_each_token_of_a_pool_has_buckets_of_its_own():
    quotas = Quotas({"search": 1, "core": 50}, seconds=5)
    auth = {"type": "tokens", "tokens": ["first-token", "second-token"]}
    with serving(quotas) as server, HttpClient.from_config(server.url, auth=auth) as http:
        assert not waited(http, "search/issues")
        # The other token's turn, which is not known to be used up yet.
        quotas.left["search"] = 1
        assert not waited(http, "search/issues")
        assert not waited(http, "repos/1")
    assert quotas.refused == []
