"""Credentials go to the configured origin only, and nothing shows them: planted ones are searched
for in exceptions, logs, reprs, dead letters, pickles and files.
"""

from __future__ import annotations

import io
import json
import logging
import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, unquote

import pytest

from contextframe_beam.connectors import Page, PaginatedConnector, Partition, secrets
from contextframe_beam.connectors.http import (
    HttpClient,
    HttpError,
    HttpRequest,
    JsonFormatter,
    auth_from_config,
)
from contextframe_beam.connectors.page import DeadLetter
from contextframe_beam.errors import ConfigError, ConnectorError
from tests.support.http_fixture import HttpServer

#: Planted everywhere; what they have in common is searched for.
MARK = "pl4nted"
PASSWORD = f"{MARK} p&ss/w=rd"
KEY = f"{MARK}-key+42"
TOKEN = f"{MARK}.token_1"


@pytest.fixture(autouse=True)
def state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTEXTFRAME_BEAM_STATE_DIR", str(tmp_path / "state"))
    for name, value in [("PASSWORD", PASSWORD), ("KEY", KEY), ("TOKEN", TOKEN)]:
        monkeypatch.setenv(f"PLANTED_{name}", value)


# Where credentials go.

AUTHS: list[dict[str, Any]] = [
    {"type": "bearer", "token": TOKEN},
    {"type": "basic", "username": "ann", "password": PASSWORD},
    {"type": "api_key", "key": KEY},
    {"type": "api_key", "key": KEY, "in": "query", "name": "api_key"},
    {"type": "api_key", "key": KEY, "in": "cookie", "name": "sid"},
]


def everything_received(server: HttpServer, port: str) -> str:
    return json.dumps([one for one in server.requests() if one["port"] == port])


def has_secret(text: str) -> bool:
    encoded = ["YW5u", "cGw0bnRlZ", "wbDRudGVk", "BsNG50ZWQ"]  # Basic: ann, and the mark
    return MARK in text or any(one in text for one in encoded)


@pytest.mark.parametrize("auth", AUTHS, ids=str)
def test_another_origin_is_refused(server, auth):
    with HttpClient.from_config(server.url, auth=auth) as http:
        for request in (
            HttpRequest("GET", "/redirect", params={"to": "/echo", "port": "other"}),
            HttpRequest("GET", f"{server.other}/echo"),
            HttpRequest("GET", server.url.replace("127.0.0.1", "localhost") + "/echo"),
        ):
            with pytest.raises(ConnectorError, match="allow it with allowed_origins"):
                http.send(request)
    assert everything_received(server, "other") == "[]"


@pytest.mark.parametrize("auth", AUTHS, ids=str)
def test_an_origin_that_is_allowed_gets_no_credentials(server, auth):
    own = quote(next(auth[name] for name in ("token", "password", "key") if name in auth))
    settings: dict[str, Any] = {
        "auth": auth,
        "headers": {"X-Token": TOKEN, "X-Team": "docs"},
        "allowed_origins": [server.other],
    }
    with HttpClient.from_config(server.url, **settings) as http:
        here = http.send(HttpRequest("GET", "/redirect", params={"to": "/echo"}))
        assert has_secret(json.dumps(here.json())) and here.json()["headers"]["x-token"] == TOKEN
        for request in (
            HttpRequest("GET", "/redirect", params={"to": "/echo", "port": "other"}),
            HttpRequest("GET", f"{server.other}/echo"),
            # A server that repeats what it was given in a link to another place.
            HttpRequest("GET", f"{server.other}/echo?page=2&k={own}&t={quote(TOKEN)}"),
            HttpRequest(
                "GET",
                f"{server.other}/echo",
                params={"cursor": unquote(own)},
                headers={"Authorization": "Bearer " + TOKEN, "X-Own": TOKEN, "Cookie": "a=b"},
            ),
        ):
            there = http.send(request).json()
            assert not has_secret(json.dumps(there)) and "x-team" not in there["headers"]
        with pytest.raises(ConnectorError, match="gets neither bodies nor credentials"):
            http.send(HttpRequest("GET", f"{server.other}/echo/{own}"))
        body = {"secret": "x"}
        for status in (307, 308):
            away = {"status": status, "to": "/echo", "port": "other"}
            with pytest.raises(ConnectorError, match="gets neither bodies nor credentials"):
                http.send(HttpRequest("POST", "/redirect", params=away, json=body))
    assert not has_secret(everything_received(server, "other"))


def test_tls_is_not_left_by_a_redirect(server):
    auth = {"type": "bearer", "token": TOKEN}
    http = HttpClient.from_config(server.tls, auth=auth, ca_bundle=server.ca)
    with pytest.raises(ConnectorError, match="so it is not requested"):
        http.send(HttpRequest("GET", "/redirect", params={"port": "main"}))
    assert everything_received(server, "main") == "[]"


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "ftp://127.0.0.1/x",
        "gopher://127.0.0.1/x",
        "data:text/plain,x",
        "javascript:alert(1)",
        "//127.0.0.2/echo",
        "http://",
        "http://127.0.0.1:99999/",
        "http://[::1/",
        "http://127.0.0.1\\@127.0.0.2/",
        "http:///etc",
    ],
)
def test_other_schemes_and_strange_addresses_are_refused(server, url):
    """Given as an address, and as the aim of a redirect."""
    with HttpClient(server.url) as http:
        with pytest.raises(ConnectorError):
            http.send(HttpRequest("GET", url))
        with pytest.raises(ConnectorError):
            http.send(HttpRequest("GET", "/redirect", params={"to": url}))


def test_credentials_over_plain_http_are_warned_of(caplog):
    HttpClient.from_config("http://api.example.com", auth={"type": "bearer", "token": TOKEN})
    HttpClient.from_config("http://127.0.0.1:80", auth={"type": "bearer", "token": TOKEN})
    HttpClient.from_config("https://api.example.com", auth={"type": "bearer", "token": TOKEN})
    HttpClient("http://api.example.com")
    HttpClient("http://docs.example.com", headers={"X-Api-Key": KEY})
    assert [one.getMessage() for one in caplog.records] == [
        "credentials are sent to http://api.example.com:80 unencrypted; use https",
        "credentials are sent to http://docs.example.com:80 unencrypted; use https",
    ]


# What shows credentials: nothing.


class Everything:
    """All that a user, a log or a tracker could see of what happened."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.text = io.StringIO()
        self.json = io.StringIO()

    def add(self, *things: object) -> None:
        for one in things:
            self.seen += [str(one), repr(one)]

    def add_error(self, error: BaseException) -> None:
        self.seen += traceback.format_exception(error)
        self.seen.append(DeadLetter.of("read", error, {}, "api", "p", "1").to_json())
        self.seen.append(repr(pickle.dumps(error)))
        chain: BaseException | None = error
        while chain is not None:
            self.add(chain, chain.args, vars(chain))
            # Trackers show what was suppressed as well.
            chain = chain.__cause__ or chain.__context__

    def all(self) -> str:
        return "\n".join([*self.seen, self.text.getvalue(), self.json.getvalue()])


@pytest.fixture
def everything() -> Iterator[Everything]:
    """Collects the logs of all libraries at debug level, as text and as JSON."""
    found = Everything()
    root = logging.getLogger()
    plain, as_json = logging.StreamHandler(found.text), logging.StreamHandler(found.json)
    plain.setFormatter(logging.Formatter("%(name)s %(message)s"))
    as_json.setFormatter(JsonFormatter())
    level = root.level
    for handler in (plain, as_json):
        root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield found
    root.setLevel(level)
    for handler in (plain, as_json):
        root.removeHandler(handler)


def planted_settings(server: HttpServer) -> list[dict[str, Any]]:
    oauth = {"type": "oauth2_client_credentials", "token_url": "/oauth/token", "client_id": "me"}
    login = {"url": "/login", "json": {"user": "ann", "password": PASSWORD}}
    return [
        *({"auth": auth} for auth in AUTHS),
        {"auth": {"type": "bearer", "token": "env:PLANTED_TOKEN"}},
        {"auth": {"type": "api_key", "key": "env:PLANTED_KEY", "in": "query", "name": "k"}},
        {"auth": {**oauth, "client_secret": PASSWORD}},
        {"auth": {**oauth, "client_secret": "env:PLANTED_PASSWORD", "client_auth": "post"}},
        {"auth": {**oauth, "type": "oauth2_refresh_token", "refresh_token": TOKEN}},
        {"auth": {"type": "session", "login": login, "name": "X-Session"}},
        {"auth": {"type": "jwt_bearer", "key": KEY, "algorithm": "RS256"}},
        {"headers": {"X-Api-Key": KEY, "Authorization": "env:PLANTED_TOKEN"}},
        # A line break: no header can hold it, and libraries show what they refuse.
        {"auth": {"type": "bearer", "token": TOKEN + "\n"}},
        {"auth": {"type": "api_key", "key": KEY + "\r\nX: y"}},
    ]


def requests_that_fail(server: HttpServer) -> list[HttpRequest]:
    return [
        HttpRequest("GET", "/status/401"),
        HttpRequest("GET", "/status/500"),
        HttpRequest("GET", "/guarded"),
        HttpRequest("GET", "/cut", params={"how": "head"}),
        HttpRequest("GET", "/cut", params={"how": "length"}),
        HttpRequest("GET", "/drip"),
        HttpRequest("GET", "/big", params={"bytes": 10_000_000}),
        HttpRequest("GET", "/circle"),
        HttpRequest("GET", "/packed", params={"wrong": 1}),
        HttpRequest("GET", "/redirect", params={"port": "other"}),
        HttpRequest("GET", f"{server.other}/ok?api_key={quote_plus(KEY)}"),
        HttpRequest("GET", f"/ok/{quote(KEY)}/../../status/404"),
        HttpRequest("GET", "/status/404", params={"token": KEY, "q": PASSWORD}),
        HttpRequest("POST", "/status/503", json={"password": PASSWORD}),
    ]


def test_planted_credentials_are_nowhere(server, everything, tmp_path):
    for name in ("PASSWORD", "KEY", "TOKEN"):  # as secrets they are known from here on
        secrets.resolve(f"env:PLANTED_{name}")
    options = {"retries": 1, "backoff": 0.001, "total_timeout": 0.1, "max_response_bytes": 100_000}
    cache = {"ttl": 60, "path": str(tmp_path / "http.sqlite")}
    with HttpClient(server.url) as http:
        guard = {"where": "header", "name": "Authorization", "value": "nobody"}
        http.send(HttpRequest("POST", "/guarded", json=guard))
    failed = 0
    for settings in planted_settings(server):
        http = HttpClient.from_config(server.url, cache=cache, **options, **settings)
        everything.add(http, http.auth, http.stats)
        for request in [*requests_that_fail(server), HttpRequest("GET", "/echo")]:
            everything.add(request)
            try:
                response = http.send(request)
            except (ConnectorError, ConfigError) as error:
                failed += 1
                everything.add_error(error)
            else:
                everything.add(response, response.url, response.sent, response.error("is odd"))
                everything.add(response.excerpt())
        http.close()
    assert failed > 150
    found = everything.all()
    assert "GET" in everything.text.getvalue() and "urllib3" in everything.text.getvalue()
    lines = [line for line in found.splitlines() if has_secret(line)]
    assert lines == []
    # What was planted did arrive where it belongs, and is in no file but the private tokens.
    assert has_secret(everything_received(server, "main"))
    assert not has_secret(everything_received(server, "other"))
    for file in tmp_path.glob("http.sqlite*"):
        assert MARK.encode() not in file.read_bytes()
    for file in (tmp_path / "state").iterdir():
        assert file.stat().st_mode & 0o077 == 0


def test_tokens_that_a_server_gave_are_nowhere(server, everything):
    """They are known to nobody beforehand."""
    auth = {
        "type": "oauth2_client_credentials",
        "token_url": "/oauth/token",
        "client_id": "me",
        "client_secret": "client-s3cret",
    }
    login = {"url": "/login", "json": {"user": "ann", "password": "passw0rd-of-ann"}}
    session = {"type": "session", "login": login, "token_path": "data.token", "name": "X-Session"}
    for one in (auth, {**auth, "in": "query", "name": "access_token"}, session):
        with HttpClient.from_config(server.url, auth=one, retries=0) as http:
            for path in ("/status/401", "/echo", "/cut"):
                try:
                    everything.add(http.send(HttpRequest("GET", path)))
                except ConnectorError as error:
                    everything.add_error(error)
    sent = everything_received(server, "main")
    for secret in ("client-s3cret", "passw0rd", "access-t0ken", "sess1on-"):
        assert secret not in everything.all()
    assert "access-t0ken" in sent and "sess1on-" in sent


def test_a_proxy_s_password_is_not_shown(server, everything, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://ann:{quote(PASSWORD, safe='')}@127.0.0.1:1")
    with HttpClient("http://docs.example.com", retries=0) as http:
        with pytest.raises(HttpError, match="could not be reached through the proxy") as caught:
            http.send(HttpRequest("GET", "/"))
        everything.add(http)
        everything.add_error(caught.value)
    assert not has_secret(everything.all())


class Notes(PaginatedConnector):
    """Reads through a client that it builds where it runs."""

    def __init__(self, base_url: str, auth: dict[str, Any]):
        super().__init__()
        self.base_url = base_url
        self.auth = auth
        self._http: HttpClient | None = None

    def fetch_page(self, partition: Partition, cursor: Any) -> Page:
        if self._http is None:
            self._http = HttpClient.from_config(self.base_url, auth=self.auth, retries=0)
        return Page([self._http.send(HttpRequest("GET", "/status/500")).json()])


def test_a_connector_travels_with_references_and_fails_without_secrets(server, everything):
    auth = {"type": "api_key", "key": "env:PLANTED_KEY", "in": "query", "name": "api_key"}
    connector = Notes(server.url, auth)
    for stage in range(2):
        pickled = pickle.dumps(connector)
        assert MARK.encode() not in pickled
        connector = pickle.loads(pickled)
        with pytest.raises(ConnectorError, match="answered 500") as caught:
            connector.sync_documents()
        everything.add_error(caught.value)
        everything.add(connector, connector.source_identity(), stage)
    assert has_secret(server.requests("/status/500")[0]["query"])
    assert not has_secret(everything.all())


def test_what_holds_credentials_does_not_show_them():
    request = HttpRequest(
        "GET", f"https://h/?api_key={quote(KEY)}", headers={"Authorization": TOKEN}
    )
    auths = [auth_from_config(one) for one in AUTHS]
    for auth in auths:
        assert auth is not None
        request = auth.apply(request)
    shown = repr([request, auths])
    assert not has_secret(shown) and "HttpRequest(GET https://h/)" in shown
