"""The servers for runs on engines: a job server and a pool of workers."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from contextframe_beam.pipelines.runners.engines import ENGINES

_PATIENCE_SECONDS = 60.0
# The packages that Beam itself opens to Spark.
_OPENED = [
    f"--add-opens=java.base/{package}=ALL-UNNAMED"
    for package in ("sun.nio.ch", "java.nio", "java.util", "java.lang.invoke")
]


@contextmanager
def job_server(runner: str) -> Iterator[str]:
    """Runs an engine with its job server until the block ends; yields its address."""
    engine, port = ENGINES[runner], _free_port()
    path = str(engine.path())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as artifacts:
        if engine.needs_java:
            command = ["java", *_OPENED, "-jar", path, "--job-port", str(port)]
            command += ["--artifact-port", "0", "--expansion-port", "0"]
            command += ["--artifacts-dir", artifacts]
        else:
            command = [path, "--job_port", str(port), "--serve_http=false"]
        with _program(command, port):
            yield f"localhost:{port}"


@contextmanager
def worker_pool() -> Iterator[str]:
    """Runs a pool that starts worker processes for an engine; yields its address."""
    port = _free_port()
    command = [sys.executable, "-m", "contextframe_beam", "worker-pool", "--port", str(port)]
    with _program(command, port):
        yield f"localhost:{port}"


@contextmanager
def _program(command: list[str], port: int) -> Iterator[None]:
    silent = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=silent, stdout=silent, stderr=silent)
    try:
        _wait_until_it_listens(process, port)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} does not listen")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
