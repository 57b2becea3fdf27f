"""The cache: answers are used again while they are fresh, and asked about when they are not."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam.connectors.http import Cache, HttpClient, HttpRequest
from contextframe_beam.errors import ConfigError
from tests.support.cli_helpers import start_code
from tests.support.http_fixture import HttpServer


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def http(server: HttpServer, tmp_path: Path, clock: Clock) -> HttpClient:
    """A client whose answers are fresh for a minute."""
    return HttpClient(server.url, cache=Cache(60, tmp_path / "c" / "http.sqlite", clock=clock))


def get(path: str = "/versioned", **params: Any) -> HttpRequest:
    return HttpRequest("GET", path, params=params)


def version(http: HttpClient, **params: Any) -> int:
    answer: int = http.send(get(**params)).json()["version"]
    return answer


def set_version(http: HttpClient, number: int) -> None:
    http.send(HttpRequest("PUT", "/versioned", json=number))


def asked(server: HttpServer, method: str = "GET") -> int:
    return sum(one["method"] == method for one in server.requests("/versioned"))


def test_it_is_off_unless_asked_for(server):
    with HttpClient(server.url) as http:
        assert version(http) == version(http) == 1
        assert http.stats.cache_hits == 0
    assert asked(server) == 2


def test_a_fresh_answer_is_not_asked_for_again(http, server, clock):
    first = http.send(get())
    set_version(http, 2)
    clock.now += 59
    again = http.send(get())
    assert again.json() == first.json() and again.from_cache and not first.from_cache
    assert again.headers["etag"] == first.headers["etag"] and again.status == 200
    assert asked(server) == 1 and http.stats.cache_hits == 1


@pytest.mark.parametrize("by", ["etag", "date"])
def test_a_stale_answer_is_asked_about(http, server, clock, by):
    assert version(http, by=by) == 1
    clock.now += 61
    assert version(http, by=by) == 1  # 304: nothing changed
    assert http.stats.cache_hits == 1
    clock.now += 59
    assert version(http, by=by) == 1  # fresh again
    assert asked(server) == 2
    clock.now += 61
    set_version(http, 2)
    assert version(http, by=by) == 2
    assert version(http, by=by) == 2
    assert asked(server) == 3


def test_without_a_validator_a_stale_answer_is_read_again(http, server, clock):
    assert version(http, by="none") == 1
    set_version(http, 2)
    clock.now += 61
    assert version(http, by="none") == 2 and asked(server) == 2


def test_what_is_asked_makes_the_answer(http, server):
    http.send(get("/echo", a=1))
    http.send(get("/echo", a=2))
    http.send(HttpRequest("GET", "/echo?a=1", headers={"Accept-Language": "de"}))
    http.send(HttpRequest("GET", "/echo", params={"a": 1}))
    assert server.count("/echo") == 3 and http.stats.cache_hits == 1


@pytest.mark.parametrize(
    "request_",
    [
        HttpRequest("POST", "/echo", json={"a": 1}),
        HttpRequest("DELETE", "/echo"),
        HttpRequest("GET", "/echo", headers={"Range": "bytes=0-1"}),
        HttpRequest("GET", "/echo", headers={"X-Token": "s3cret-header"}),
        HttpRequest("GET", "/echo", params={"api_key": "s3cret-param"}),
        HttpRequest("GET", "/status/404"),
        HttpRequest("GET", "/status/204"),
        HttpRequest("GET", "/versioned", params={"control": "no-store"}),
        HttpRequest("GET", "/versioned", params={"vary": "*"}),
    ],
    ids=repr,
)
def test_what_must_not_be_kept_is_asked_for_each_time(http, server, request_):
    for _ in range(2):
        http.send(request_, raise_for_status=False)
    assert sum(server.counts().values()) == 2 and http.stats.cache_hits == 0


def test_a_query_by_post_is_kept_when_it_is_said_to_be_safe(http, server):
    for text in ("{a}", "{a}", "{b}"):
        http.send(HttpRequest("POST", "/echo", json={"query": text}, safe_to_repeat=True))
    assert server.count("/echo") == 2


def test_accounts_do_not_see_the_answers_of_one_another(server, tmp_path, monkeypatch):
    monkeypatch.setenv("CONTEXTFRAME_BEAM_STATE_DIR", str(tmp_path / "state"))
    settings: list[dict[str, Any]] = [
        {},
        {"auth": {"type": "bearer", "token": "s3cret-of-ann"}},
        {"auth": {"type": "bearer", "token": "s3cret-of-bob"}},
        {"auth": {"type": "basic", "username": "ann", "password": "s3cret-passw0rd"}},
        {"auth": {"type": "api_key", "key": "s3cret-key", "in": "query", "name": "key"}},
        {"headers": {"Authorization": "Bearer s3cret-header-one"}},
        {"headers": {"Authorization": "Bearer s3cret-header-two"}},
    ]
    seen = []
    for _ in range(2):
        for one in settings:
            cache = {"ttl": 3600, "path": str(tmp_path / "http.sqlite")}
            with HttpClient.from_config(server.url, cache=cache, **one) as http:
                seen.append(http.send(get()).json()["for"])
    assert seen[:7] == seen[7:] and len(set(seen)) == 7
    assert asked(server) == 7
    stored = b"".join(file.read_bytes() for file in tmp_path.glob("http.sqlite*"))
    assert b"version" in stored and b"s3cret" not in stored


def test_an_unknown_kind_of_authentication_is_not_cached(server, tmp_path):
    class Own:
        def apply(self, request: HttpRequest) -> HttpRequest:
            return request.with_header("Authorization", "own")

        def renew(self, response: object) -> bool:
            return False

    with HttpClient(server.url, auth=Own(), cache=Cache(60, tmp_path / "c")) as http:
        assert version(http) == version(http)
    assert asked(server) == 2


def test_a_renewed_token_keeps_the_answers(server, tmp_path, monkeypatch):
    monkeypatch.setenv("CONTEXTFRAME_BEAM_STATE_DIR", str(tmp_path / "state"))
    auth = {
        "type": "oauth2_client_credentials",
        "token_url": "/oauth/token",
        "client_id": "me",
        "client_secret": "client-s3cret",
    }
    cache = {"ttl": 3600, "path": str(tmp_path / "http.sqlite")}
    with HttpClient.from_config(server.url, auth=auth, cache=cache) as http:
        http.send(get())
        http.auth.renew(http.send(get("/echo")))  # type: ignore[union-attr]
        http.send(get())
    assert asked(server) == 1


WORKER = """
import sys
from contextframe_beam.connectors.http import HttpClient, HttpRequest
url, path = sys.argv[1:]
with HttpClient.from_config(url, cache={"ttl": 3600, "path": path}) as http:
    for number in range(20):
        http.send(HttpRequest("GET", f"/ok/{number}"))
    print(http.stats.cache_hits)
"""


def test_processes_and_threads_share_it(server, tmp_path):
    running = [start_code(WORKER, server.url, tmp_path / "http.sqlite") for _ in range(2)]
    hits = sum(int(one.communicate()[0]) for one in running)
    assert sum(server.counts().values()) + hits == 40
    cache = Cache(3600, tmp_path / "http.sqlite")
    with HttpClient(server.url, cache=cache) as http, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: http.send(get(f"/ok/{n % 20}")), range(80)))
        assert http.stats.cache_hits == 80 and http.stats.requests == 0


def test_it_does_not_grow_for_ever(server, tmp_path, clock):
    cache = Cache(3600, tmp_path / "http.sqlite", max_bytes=100_000, clock=clock)
    with HttpClient(server.url, cache=cache) as http:
        for number in range(220):
            clock.now += 1
            http.send(get("/big", bytes=1000, n=number))
        newest = http.send(get("/big", bytes=1000, n=219))
        assert newest.from_cache
    with sqlite3.connect(tmp_path / "http.sqlite") as connection:
        (size,) = connection.execute("SELECT SUM(LENGTH(body)) FROM answers").fetchone()
    assert size < 200_000


def test_only_its_owner_can_read_it(http, tmp_path):
    http.send(get())
    file = tmp_path / "c" / "http.sqlite"
    assert file.stat().st_mode & 0o077 == 0 and file.parent.stat().st_mode & 0o077 == 0


def test_a_broken_file_costs_the_cache_and_nothing_else(server, tmp_path, caplog):
    (tmp_path / "http.sqlite").write_bytes(b"this is no database at all" * 100)
    with HttpClient(server.url, cache=Cache(60, tmp_path / "http.sqlite")) as http:
        assert version(http) == version(http) == 1
    assert asked(server) == 2
    warnings = [one for one in caplog.records if one.levelname == "WARNING"]
    assert len(warnings) == 1 and "http.sqlite cannot be" in warnings[0].getMessage()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "cache.ttl is missing"),
        ({"tll": 5}, "cache.tll is not a key that exists here; did you mean ttl?"),
        ({"ttl": -1}, "cache.ttl is -1; write a duration such as 90s"),
        ({"ttl": "soon"}, "cache.ttl is 'soon'; write a duration such as 90s"),
        (
            {"ttl": 1, "max_bytes": 0},
            "cache.max_bytes is 0; it should be greater than or eq",
        ),
    ],
)
def test_wrong_settings_are_refused(config, message):
    with pytest.raises(ConfigError) as caught:
        Cache.from_config(config)
    assert message in str(caught.value)


def test_it_lives_in_the_cache_directory_of_its_user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Cache.from_config({"ttl": 60}).path == tmp_path / "contextframe-beam" / "http.sqlite"


def test_a_login_is_never_kept(server, tmp_path):
    cache = Cache(60, tmp_path / "http.sqlite")
    with HttpClient(server.url, cache=cache) as http:
        form = {"user": "ann", "password": "passw0rd-of-ann"}
        # A login that somebody calls safe by mistake: its answer is not kept, for it has a secret.
        http.send(HttpRequest("POST", "/login", form=form, safe_to_repeat=True))
        http.send(HttpRequest("POST", "/login", form=form, safe_to_repeat=True))
    assert server.count("/login") == 2
