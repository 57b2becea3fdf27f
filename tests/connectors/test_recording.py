"""Recorded HTTP: asked once, played back afterwards, and nothing secret in the file."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import requests

from contextframe_beam.connectors import APIConnector
from contextframe_beam.connectors.http import HttpClient, HttpRequest
from contextframe_beam.connectors.testing import Subject, recorded, run_checks
from contextframe_beam.errors import ConnectorError
from tests.support.http_fixture import HttpServer

KEY = "right-key-12345"
PASSWORD = "passw0rd-of-ann"


def test_a_connector_is_recorded_once_and_played_back(tmp_path: Path, server: HttpServer) -> None:
    file = tmp_path / "documents.yaml"

    def read() -> list[object]:
        connector = APIConnector(server.url, KEY)
        connector.authenticate()
        return list(connector.sync_documents(params={"n": 250}))

    with recorded(file):
        first = read()
    asked = sum(server.counts().values())
    assert len(first) == 250 and asked >= 4
    with recorded(file):
        assert read() == first
    assert sum(server.counts().values()) == asked
    assert KEY not in file.read_text()


def test_what_was_not_recorded_is_refused(tmp_path: Path, server: HttpServer) -> None:
    file = tmp_path / "ok.yaml"
    with recorded(file), HttpClient(server.url) as client:
        client.send(HttpRequest("GET", "/ok"))
    with (
        pytest.raises(ConnectorError, match=r"ok.yaml does not hold GET .*/200"),
        recorded(file),
    ):
        HttpClient(server.url).send(HttpRequest("GET", "/status/200"))
    with recorded(file, again=True), HttpClient(server.url) as client:
        client.send(HttpRequest("GET", "/status/200"))


def test_requests_of_the_authors_own_are_recorded_as_well(
    tmp_path: Path,
    server: HttpServer,
) -> None:
    for _ in range(2):
        with recorded(tmp_path / "ok.yaml"):
            assert requests.get(f"{server.url}/ok", timeout=10).json()["path"] == "/ok"
    assert server.count("/ok") == 1


def test_no_credential_is_in_the_file(tmp_path: Path, server: HttpServer) -> None:
    """Headers, parameters, bodies, tokens in answers and cookies, in any of their forms."""
    file = tmp_path / "all.yaml"
    oauth = {
        "type": "oauth2_client_credentials",
        "token_url": "/oauth/token",
        "client_id": "me",
        "client_secret": "client-s3cret",
    }
    session = {
        "type": "session",
        "login": {"url": "/login", "json": {"user": "ann", "password": PASSWORD}},
        "token_path": "data.token",
        "name": "X-Session",
    }
    for _ in range(2):
        with recorded(file):
            clients = [
                HttpClient.from_config(server.url, auth=oauth),
                HttpClient.from_config(server.url, auth=session),
            ]
            assert clients[0].send(HttpRequest("GET", "/oauth/api")).json() == {"count": 1}
            assert clients[1].send(HttpRequest("GET", "/session/api")).json() == {"count": 1}
            basic = {"type": "basic", "username": "ann", "password": PASSWORD}
            HttpClient.from_config(server.url, auth=basic).send(HttpRequest("GET", "/echo/a"))
            requests.get(f"{server.url}/echo/b", params={"api_key": KEY}, timeout=10)
            requests.get(f"{server.url}/echo/c", headers={"X-Api-Key": KEY}, timeout=10)
            requests.post(f"{server.url}/ok/form", data={"password": PASSWORD}, timeout=10)
    assert server.count("/oauth/api") == server.count("/echo/a") == 1
    text = file.read_text()
    encoded = base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
    for secret in (KEY, PASSWORD, encoded, "client-s3cret", "access-t0ken-1", "sess1on-1"):
        assert secret not in text, secret


def test_the_conformance_suite_runs_on_a_recording(tmp_path: Path, server: HttpServer) -> None:
    checks = ["authenticates", "splits_read_each_item_once", "survives_odd_values"]
    subject = Subject(lambda: APIConnector(server.url, KEY), sync_kwargs={"params": {"n": 30}})
    for _ in range(2):
        with recorded(tmp_path / "suite.yaml"):
            assert {one.status.value for one in run_checks(subject, checks)} == {"passed"}
