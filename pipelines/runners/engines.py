"""Engines that Beam starts on this machine, and the pool of workers for other engines."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc
from apache_beam.runners.worker.worker_pool_main import kill_process_gracefully
from apache_beam.utils import thread_pool_executor

from contextframe_beam.errors import ConfigError
from contextframe_beam.pipelines.runners import boot
from contextframe_beam.pipelines.runners.worker_processes import how_it_ended

_LOGGER = logging.getLogger(__name__)

BEAM_VERSION = version("apache-beam")

#: Names another folder for the engines.
FOLDER_VARIABLE = "CONTEXTFRAME_ENGINES"

_ABOUT = "engine.json"


@dataclass(frozen=True)
class Engine:
    """An engine that Beam starts as a program.

    Attributes:
        name: Flink, Spark or Prism.
        file: The name of the jar or program in the engine's folder.
        option: Beam's option that names it.
    """

    name: str
    file: str
    option: str

    @property
    def needs_java(self) -> bool:
        """Whether it is a job server in Java."""
        return self.file.endswith(".jar")

    @property
    def folder(self) -> Path:
        """Its folder, which may not exist; there is one for each version of Beam."""
        return engines_folder() / BEAM_VERSION / self.name.lower()

    def path(self) -> str | None:
        """Returns its jar or program, or None if it is not installed."""
        return str(self.folder / self.file) if (self.folder / _ABOUT).is_file() else None

    def missing(self) -> str | None:
        """Returns why it cannot be started here, or None if it can."""
        if self.path() is None:
            return f"{self.name} is not in {self.folder}; `make engines` fetches it"
        if self.needs_java and shutil.which("java") is None:
            return f"{self.name} needs Java, and there is no java on PATH"
        return None

    def about(self) -> str:
        """Returns its version in words; "" if it is not installed."""
        try:
            return str(json.loads((self.folder / _ABOUT).read_text())["about"])
        except (OSError, ValueError, KeyError):
            return ""


#: By the name of Beam's runner.
ENGINES: Mapping[str, Engine] = {
    "FlinkRunner": Engine("Flink", "job-server.jar", "flink_job_server_jar"),
    "SparkRunner": Engine("Spark", "job-server.jar", "spark_job_server_jar"),
    "PrismRunner": Engine("Prism", "prism", "prism_location"),
}


def engines_folder() -> Path:
    """Returns the folder for all engines, which checkouts and environments share."""
    own = os.environ.get(FOLDER_VARIABLE)
    if own:
        return Path(own).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "contextframe-beam" / "engines"


def write_about(folder: Path, about: str) -> None:
    """Marks the engine in a folder as complete."""
    (folder / _ABOUT).write_text(json.dumps({"about": about}) + "\n")


@contextmanager
def serve(program: str, host: str, port: int) -> Iterator[str]:
    """Starts workers on request until the block ends; yields the address.

    Args:
        program: The program of a worker, which takes the arguments of Beam's `boot`.
        host: The name or number of an address of this machine.
        port: The port to listen on; 0 takes a free one.

    Raises:
        ConfigError: it cannot listen there.
    """
    host = _number_of(host)
    # Without the option, a second pool on the same port would get every other request.
    server = grpc.server(
        thread_pool_executor.shared_unbounded_instance(), options=[("grpc.so_reuseport", 0)]
    )
    pool = _Pool(program)
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    try:
        port = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise ConfigError(f"cannot listen at {host}:{port}: {error}") from error
    server.start()
    try:
        yield f"{host}:{port}"
    finally:
        server.stop(None)
        pool.close()


def _number_of(host: str) -> str:
    """Returns the number of a name: of a name with several, gRPC is content with one free port."""
    try:
        return socket.gethostbyname(host)
    except OSError:  # a number of IPv6
        return host


@dataclass(frozen=True)
class _Worker:
    engine: str
    id: str
    process: subprocess.Popen[bytes]


class _Pool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    def __init__(self, program: str) -> None:
        self._program = program
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()

    def StartWorker(self, request: Any, context: Any) -> Any:
        command = [self._program, f"--id={request.worker_id}"]
        for name in ("logging", "artifact", "provision", "control"):
            command.append(f"--{name}_endpoint={getattr(request, f'{name}_endpoint').url}")
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2)
        except OSError as error:
            return beam_fn_api_pb2.StartWorkerResponse(error=f"{self._program}: {error}")
        worker = _Worker(context.peer(), request.worker_id, process)
        with self._lock:
            self._workers = [one for one in self._workers if one.process.poll() is None]
            self._workers.append(worker)
        name = f"watch-{worker.id}"
        threading.Thread(target=self._watch, args=(worker, command), name=name, daemon=True).start()
        return beam_fn_api_pb2.StartWorkerResponse()

    def _watch(self, worker: _Worker, command: list[str]) -> None:
        """Lets another process answer in the place of a worker that ends unasked.

        Some engines wait for ever for a worker that has ended before it connected.
        """
        code = worker.process.wait()
        with self._lock:
            if code == 0 or worker not in self._workers:
                return
            self._workers.remove(worker)
            reason = (
                f"a worker of the pool {how_it_ended(code)}; nothing was committed, run it again; "
                "the log of the pool has more"
            )
            _LOGGER.warning("%s (%s)", reason, worker.id)
            answers = [sys.executable, "-m", boot.__name__, *command[1:], f"--refuse={reason}"]
            process = subprocess.Popen(answers, stdin=subprocess.DEVNULL, stdout=2)
            self._workers.append(_Worker(worker.engine, worker.id, process))

    def StopWorker(self, request: Any, context: Any) -> Any:
        with self._lock:
            named = [one for one in self._workers if one.id == request.worker_id]
            # An engine that was idle returns with another address.
            meant = [one for one in named if one.engine == context.peer()] or named
            if len(meant) > 1:
                # We cannot know which one; each ends when its engine closes the channel.
                meant = []
            self._workers = [one for one in self._workers if one not in meant]
        for one in meant:
            kill_process_gracefully(one.process)
        return beam_fn_api_pb2.StopWorkerResponse()

    def close(self) -> None:
        """Ends all workers."""
        with self._lock:
            workers, self._workers = self._workers, []
        for one in workers:
            kill_process_gracefully(one.process)
