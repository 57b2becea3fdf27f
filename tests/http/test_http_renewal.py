"""Tokens are renewed and asked for again wherever that may help, by any number of runs at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam.connectors.api import APIConnector
from contextframe_beam.connectors.http import HttpError, HttpRequest
from contextframe_beam.pipelines.ingest import ingest
from tests.http.test_http_auth import (
    API,
    WORKER,
    behave,
    client,
    client_credentials,
    directories,
    refusal,
)
from tests.support.cli_helpers import environment, start_code

__all__ = ["directories"]


def refreshing(file: Path) -> dict[str, Any]:
    """Settings with a refresh token in a file, which is made."""
    file.write_text("refresh-t0ken-0\n")
    return {
        "type": "oauth2_refresh_token",
        "token_url": "/oauth/token",
        "client_id": "me",
        "client_secret": "client-s3cret",
        "refresh_token": f"file:{file}",
    }


@pytest.mark.parametrize("never", [0, -1, "0", "-3600", "", "never"])
def test_a_token_that_is_said_to_have_expired_when_it_is_given_out_is_used(server, never):
    behave(server, lifetime=never)
    with client(server, client_credentials(server)) as http:
        assert [http.send(API).status for _ in range(5)] == [200] * 5
    assert server.count("/oauth/token") == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("kind", ["client_credentials", "refresh_token", "jwt_bearer"])
def test_a_token_endpoint_that_is_busy_is_asked_again(server, tmp_path, kind, status):
    auth = {
        "client_credentials": client_credentials(server),
        "refresh_token": refreshing(tmp_path / "token"),
        "jwt_bearer": {
            "type": "jwt_bearer",
            "key": "a shared secret of the two",
            "algorithm": "HS256",
            "token_url": "/oauth/token",
        },
    }[kind]
    behave(server, refusals=[status, status])
    with client(server, auth) as http:
        assert http.send(API).status == 200
    assert server.count("/oauth/token") == 3


def test_a_login_that_is_busy_is_asked_again(server):
    login = {"url": "/flaky?status=503&fails=1", "json": {"user": "ann"}}
    with client(server, {"type": "session", "login": login, "token_path": "count"}) as http:
        assert (
            http.send(HttpRequest("GET", "/echo")).json()["headers"]["authorization"] == "Bearer 2"
        )


def test_a_token_that_is_given_out_a_second_time_is_used(server):
    """The server forgot it, and makes the same one again."""
    behave(server)
    with client(server, client_credentials(server)) as http:
        assert http.send(API).status == 200
        server.reset()
        behave(server)
        assert http.send(API).status == 200
    assert server.count("/oauth/token") == 1


EXPIRED = [
    {"status": 401, "body": "{}"},
    {"status": 400, "body": '{"error": "invalid_token", "message": "Access token expired"}'},
    {"status": 403, "body": '{"message": "The access token has expired"}'},
    {"status": 403, "body": '{"error": {"code": "ExpiredAuthenticationToken"}}'},
    {"status": 403, "body": "{}", "challenge": 'Bearer error="invalid_token"'},
    {"status": 400, "body": '{"errorCode": "INVALID_SESSION_ID"}'},
    {"status": 400, "body": '{"detail": "Token is invalid or expired"}'},
    {"status": 403, "body": "jwt expired"},
    {"status": 419, "body": "session expired"},
    {"status": 498, "body": "Invalid Token"},
    {"status": 440, "body": '{"error": "token_expired"}'},
    {"status": 200, "body": '{"ok": false, "error": "token_expired"}'},
]


@pytest.mark.parametrize("refused", EXPIRED, ids=str)
def test_an_expired_token_is_renewed_however_it_is_refused(server, refused):
    asked = HttpRequest("GET", "/oauth/api", params={"uses": 2, **refused})
    behave(server)
    with client(server, client_credentials(server)) as http:
        assert all("count" in http.send(asked).json() for _ in range(6))
    assert server.count("/oauth/token") == 3


@pytest.mark.parametrize(
    "refused",
    [
        {"status": 403, "body": '{"message": "you may not read this"}'},
        {"status": 400, "body": '{"message": "the parameter page is invalid"}'},
        {"status": 404, "body": '{"message": "token expired"}'},
    ],
    ids=str,
)
def test_another_refusal_renews_no_token(server, refused):
    asked = HttpRequest("GET", "/oauth/api", params={"uses": 0, **refused})
    behave(server)
    refusal(server, client_credentials(server), f"answered {refused['status']}", HttpError, asked)
    assert server.count("/oauth/token") == 1 and server.count("/oauth/api") == 1


@pytest.mark.parametrize(
    "apart", [False, True], ids=["one machine", "containers that share a file"]
)
def test_two_runs_at_once_use_no_refresh_token_twice(server, tmp_path, apart):
    """The server revokes everything when it sees one a second time."""
    behave(server, rotate=True, strict=True, delay=0.05)
    file = tmp_path / "token"
    auth = refreshing(file)
    if apart:  # then the file is all they share, so it holds the access token as well
        file.write_text('{"refresh_token": "refresh-t0ken-0"}')
    asked = json.dumps([server.url, auth, 30, {"uses": 1000}])
    running = [
        start_code(
            WORKER,
            asked,
            env=environment(CONTEXTFRAME_BEAM_STATE_DIR=str(tmp_path / f"state-{number}"))
            if apart
            else None,
        )
        for number in range(2)
    ]
    answered = [int(one.communicate()[0] or 0) for one in running]
    told = behave(server)
    assert answered == [30, 30] and not told.get("revoked")
    assert told["refresh"] in file.read_text() and server.count("/oauth/token") == 1


def test_a_token_that_is_put_back_by_hand_counts(server, tmp_path):
    behave(server, rotate=True, strict=True)
    auth = refreshing(tmp_path / "token")
    with client(server, auth) as http:
        assert http.send(API).status == 200
    # The server begins anew, and so does its user, with the very token of the first time.
    server.reset()
    behave(server, rotate=True, strict=True)
    with client(server, refreshing(tmp_path / "token")) as http:
        assert http.send(API).status == 200


def test_one_token_serves_several_runs(server, tmp_path, monkeypatch):
    """A run has a folder of its own for temporary files, but tokens outlive it."""
    monkeypatch.delenv("CONTEXTFRAME_BEAM_STATE_DIR")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    behave(server)
    for name in ("one", "two"):
        api = {
            "name": "api",
            "path": "oauth/api",
            "records": "$",
            "paginator": "single",
            "mapping": {"id": "count"},
        }
        connector = APIConnector(server.url, auth=client_credentials(server), resources=[api])
        ingest(connector, str(tmp_path / f"{name}.lance"))
    assert server.count("/oauth/token") == 1
