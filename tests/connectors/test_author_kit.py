"""What a connector's author need not write: each is reached in a few lines of a class."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameRecord
from contextframe_beam.connectors import BaseConnector
from contextframe_beam.connectors.http import HttpRequest, JsonFormatter
from contextframe_beam.connectors.read.runtime import HTTP_REQUESTS
from tests.support.cli_helpers import cli
from tests.support.http_fixture import HttpServer
from tests.support.pipeline_helpers import ids_in, run

ONE_TIME_SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"


class Kit(BaseConnector):
    """Asks one address for its documents, with whatever the client is told."""

    def __init__(self, url: str, path: str = "/api/pages?n=2", **settings: Any):
        super().__init__()
        self.path = path
        self.http = self.http_client(url, **settings)

    def ask(self) -> Any:
        return self.http.send(HttpRequest("GET", self.path)).json()

    def sync_documents(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.ask()["items"]
        self.add_stats(pages=1)
        self.logger.info("read a page", extra={"documents": len(items)})
        return items

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return FrameRecord(item["content"], unique_id=f"doc:{item['id']}")


def test_statistics_and_metrics_of_the_client(tmp_path: Path, server: HttpServer) -> None:
    counters: dict[str, int] = {}
    run(Kit(server.url), tmp_path / "kb", counters=counters)
    assert ids_in(tmp_path / "kb") == ["0", "1"]
    assert counters[HTTP_REQUESTS] == 1
    connector = Kit(server.url)
    connector.sync_documents()
    stats = connector.get_stats()
    assert (stats["requests"], stats["retries"], stats["pages"]) == (1, 0, 1)


def test_retries_and_budgets(server: HttpServer) -> None:
    connector = Kit(server.url, "/flaky?fails=2", retries=3, backoff=0.01)
    assert connector.ask() == {"count": 3}
    assert connector.http_counts()["retries"] == 2


def test_caching(tmp_path: Path, server: HttpServer) -> None:
    cache = {"ttl": 3600, "path": str(tmp_path / "cache")}
    for _ in range(2):
        assert Kit(server.url, cache=cache).ask()["items"]
    assert server.count("/api/pages") == 1


def test_oauth(server: HttpServer) -> None:
    auth = {
        "type": "oauth2_client_credentials",
        "token_url": "/oauth/token",
        "client_id": "me",
        "client_secret": "client-s3cret",
    }
    assert Kit(server.url, "/oauth/api", auth=auth).ask() == {"count": 1}


def test_a_login_with_several_factors(server: HttpServer) -> None:
    auth = {
        "type": "session",
        "login": {
            "url": f"/login/challenge?otp={ONE_TIME_SECRET}",
            "json": {"user": "ann", "password": "passw0rd-of-ann"},
        },
        "challenge": {
            "url": "/login/code",
            "json": {"session_id": "{challenge}", "code": "{code}"},
        },
        "totp_secret": ONE_TIME_SECRET,
        "name": "X-Session",
    }
    assert Kit(server.url, "/session/api", auth=auth).ask() == {"count": 1}


def test_an_authenticate_with_arguments_gets_those_of_the_constructor() -> None:
    class Named(Kit):
        def __init__(self, username: str, password: str):
            BaseConnector.__init__(self)
            self.username, self.password = username, password

        def authenticate(self, username: str, password: str) -> bool:  # type: ignore[override]
            return (username, password) == ("ann", "passw0rd")

    Named("ann", "passw0rd").ensure_authenticated()
    with pytest.raises(ValueError, match="authentication failed"):
        Named("ann", "other").ensure_authenticated()


def test_structured_logs_hold_what_was_given_and_no_secret(
    server: HttpServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    connector = Kit(server.url, auth={"type": "bearer", "token": "a-t0ken-of-mine"})
    connector.sync_documents()
    connector.logger.info("a token", extra={"token": "a-t0ken-of-mine"})
    lines = [json.loads(JsonFormatter().format(one)) for one in caplog.records]
    assert lines[0]["message"] == "read a page" and lines[0]["documents"] == 2
    assert lines[1]["token"] == "***"


def test_the_command_line_writes_its_log_as_json(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    arguments = ("ingest", "json", "--directory", tmp_path / "docs", "--to", tmp_path / "kb.lance")
    result = cli(*arguments, "-v", "--log-format", "json")
    assert result.code == 0
    lines = [json.loads(line) for line in result.err.splitlines()]
    assert any("no file in" in one["message"] for one in lines)
    (tmp_path / "docs").rmdir()
    failed = cli(*arguments, "--log-format", "json")
    assert failed.code == 1
    last = json.loads(failed.err.splitlines()[-1])
    assert last["level"] == "error" and last["message"].startswith("Error: ")
    assert not (tmp_path / "kb.lance").exists()
