"""The engines of the tests: job servers of Flink, Spark and Prism, each started once.

from tests.support.engines import EACH_ENGINE, engine, engines  # noqa: F401
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from contextframe_beam.pipelines.runners.engines import ENGINES
from tests.support.cli_helpers import ROOT, environment, wait_until

#: Enough for a few hundred documents; several of these run beside each other.
HEAP = "-Xmx512m"
QUIET = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
OPENED = [
    f"--add-opens=java.base/{package}=ALL-UNNAMED"
    for package in ("sun.nio.ch", "java.nio", "java.util", "java.lang.invoke", "java.lang")
]

#: Makes two tasks of each step, which Prism decides by itself.
_PARALLEL = {"FlinkRunner": ["--parallelism=2"], "SparkRunner": [], "PrismRunner": []}


@dataclass(frozen=True)
class Running:
    """A job server that runs.

    Attributes:
        runner: The name of Beam's runner.
        endpoint: Where it takes jobs.
    """

    runner: str
    endpoint: str

    def arguments(self, *more: str, workers: str = "LOOPBACK") -> list[str]:
        """Returns the options that make a run use it, its workers started by the launcher."""
        return [
            f"--job_endpoint={self.endpoint}",
            f"--environment_type={workers}",
            *_PARALLEL[self.runner],
            *more,
        ]


def require(runner: str) -> str:
    """Returns the path of an engine; skips the test when it is not there."""
    engine = ENGINES[runner]
    why = engine.missing()
    if why is not None:
        pytest.skip(why)
    return str(engine.path())


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def listens(port: int) -> bool:
    """Returns whether somebody listens on a port of this machine."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def program(command: Sequence[str], port: int, log: Path, **env: str) -> Iterator[int]:
    """Runs a server until the block ends, and waits until it listens; gives its process id."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=ROOT,
            env=environment(PATH=path, **env),
            start_new_session=True,
        )
    try:
        wait_until(lambda: _alive(process, log) and listens(port))
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _alive(process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text(errors="replace")[-3000:]
    return True


def java(runner: str, *arguments: str, properties: Sequence[str] = ()) -> list[str]:
    """Returns the command of an engine's Java."""
    path = require(runner)
    return ["java", HEAP, QUIET, *OPENED, *properties, *_main(path, arguments)]


def _main(jar: str, arguments: Sequence[str]) -> list[str]:
    if arguments and re.fullmatch(r"(\w+\.)+\w+", arguments[0]):
        return ["-cp", jar, *arguments]
    return ["-jar", jar, *arguments]


@contextmanager
def job_server(runner: str, folder: Path, *more: str) -> Iterator[Running]:
    """Runs an engine's job server until the block ends.

    Args:
        runner: The name of Beam's runner.
        folder: For its log and what it stages.
        *more: Arguments of a job server in Java, instead of those for a local engine.
    """
    port = free_port()
    local = {
        "FlinkRunner": ("--flink-master", "[local]"),
        "SparkRunner": ("--spark-master-url", "local[2,3]"),
    }
    if runner == "PrismRunner":
        command = [require(runner), "--job_port", str(port), "--serve_http=false"]
    else:
        command = java(
            runner,
            *(more or local[runner]),
            *("--artifacts-dir", str(folder / "artifacts")),
            *("--job-port", str(port), "--artifact-port", "0", "--expansion-port", "0"),
        )
    with program(command, port, folder / f"{runner}.log"):
        yield Running(runner, f"localhost:{port}")


@contextmanager
def worker_pool(folder: Path, **env: str) -> Iterator[str]:
    """Runs Beam's own pool, which starts workers when an engine asks it to; gives its address."""
    port = free_port()
    command = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main"]
    with program([*command, f"--service_port={port}"], port, folder / f"pool-{port}.log", **env):
        yield f"localhost:{port}"


@contextmanager
def pool(folder: Path, **env: str) -> Iterator[str]:
    """Runs `contextframe-beam worker-pool`, whose workers have `env` too; gives its address."""
    port = free_port()
    command = [sys.executable, "-m", "contextframe_beam", "worker-pool", f"--port={port}"]
    with program(command, port, folder / "pool.log", TMPDIR=str(folder), **env):
        yield f"localhost:{port}"


class Engines:
    """Job servers by the name of their runner, started when they are first asked for."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._running: dict[str, Running] = {}

    def get(self, runner: str) -> Running:
        if runner not in self._running:
            started = self._stack.enter_context(job_server(runner, self._folder))
            self._running[runner] = started
        return self._running[runner]


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    """Keeps job servers for all tests of this process."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        yield Engines(stack, Path(folder))


def each_engine(*, soak: Sequence[str] = ()) -> pytest.MarkDecorator:
    """Makes a test for each engine; those of one stay in one process, which has its job server.

    Args:
        soak: The runners on which it takes too long for every day.
    """
    return pytest.mark.parametrize(
        "engine",
        [
            pytest.param(
                name,
                marks=[
                    pytest.mark.engine,
                    pytest.mark.xdist_group(name),
                    *([pytest.mark.soak] if name in soak else []),
                ],
                id=one.name,
            )
            for name, one in ENGINES.items()
        ],
        indirect=True,
    )


EACH_ENGINE = each_engine()


@pytest.fixture
def engine(engines: Engines, request: pytest.FixtureRequest) -> Running:
    """Gives the job server of the engine that the test is for."""
    return engines.get(request.param)
