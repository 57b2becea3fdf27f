"""Serves Beam's protocol by which an engine starts and stops workers on this machine.

Beam's own pool, `apache_beam.runners.worker.worker_pool_main`, listens at every address of the
machine and installs no packages. It also knows workers by their ids alone, and each task manager of
Flink numbers its own from 1: of two that share a pool, one would stop the workers of the other.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc
from apache_beam.runners.worker.worker_pool_main import kill_process_gracefully
from apache_beam.utils import thread_pool_executor

from contextframe_beam.errors import ConfigError


@contextmanager
def serve(program: str, host: str, port: int) -> Iterator[str]:
    """Starts workers for whoever asks, until the block ends; gives the address.

    Args:
        program: What a worker is, with the arguments of Beam's `boot`.
        host: The name or number of an address of this machine.
        port: Where to listen; 0 takes a free port.

    Raises:
        ConfigError: it cannot listen there.
    """
    # Without the option a second pool would get every other request of the same port.
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
        with self._lock:
            self._workers = [one for one in self._workers if one.process.poll() is None]
            self._workers.append(_Worker(context.peer(), request.worker_id, process))
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, request: Any, context: Any) -> Any:
        with self._lock:
            named = [one for one in self._workers if one.id == request.worker_id]
            # An engine that was idle comes back with another address.
            meant = [one for one in named if one.engine == context.peer()] or named
            if len(meant) > 1:
                # It cannot be told which one; each ends when its engine has closed its channel.
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
