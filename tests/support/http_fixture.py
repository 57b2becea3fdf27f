"""The fixture `server`: the real HTTP server of the tests, reset before each of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam.connectors.shared_files import DIRECTORY_VARIABLE


@dataclass(frozen=True)
class HttpServer:
    """The server's addresses, and what it counted.

    Attributes:
        url: The main origin.
        other: Another origin of the same server.
        tls: The origin with TLS.
        ca: The file of the certificate that makes `tls` trusted.
    """

    url: str
    other: str
    tls: str
    ca: str

    def counts(self) -> dict[str, int]:
        """Returns how many requests each path got since the last reset."""
        counts: dict[str, int] = self._control("GET", "_counts")["paths"]
        return counts

    def count(self, path: str) -> int:
        """Returns how many requests a path got since the last reset."""
        return self.counts().get(path, 0)

    def at_once(self) -> int:
        """Returns how many requests were under way at the same time, at most."""
        return int(self._control("GET", "_counts")["at_once"])

    def requests(self, path: str | None = None) -> list[dict[str, Any]]:
        """Returns what was received: port, method, path, query, headers, body of each request."""
        received = self._control("GET", "_requests")
        return [one for one in received if path is None or one["path"] == path]

    def reset(self) -> None:
        """Forgets all of it, and what the routes remember."""
        self._control("POST", "_reset")

    def _control(self, method: str, name: str) -> Any:
        request = urllib.request.Request(f"{self.url}/{name}", method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request) as answer:
            return json.loads(answer.read())


@pytest.fixture(scope="session")
def http_server() -> Iterator[HttpServer]:
    """Runs the server for all tests of this process."""
    program = Path(__file__).with_name("http_server.py")
    process = subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    with process:
        found = json.loads(process.stdout.readline())
        yield HttpServer(found["main"], found["other"], found["tls"], found["ca"])
        process.stdin.close()


@pytest.fixture
def server(http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HttpServer:
    """Gives the server, reset, of which no token of an earlier test is known."""
    if DIRECTORY_VARIABLE not in os.environ:
        monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path.with_name(f"{tmp_path.name}-state")))
    http_server.reset()
    return http_server
