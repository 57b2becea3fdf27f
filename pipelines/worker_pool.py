"""Serves Beam's protocol by which an engine starts and stops workers on this machine.

Beam's own pool, `apache_beam.runners.worker.worker_pool_main`, listens at every address of the
machine and installs no packages; the protocol and the handling of processes are Beam's here too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from apache_beam.portability.api import beam_fn_api_pb2_grpc
from apache_beam.runners.worker.worker_pool_main import (
    BeamFnExternalWorkerPoolServicer,
    kill_process_gracefully,
)
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
    pool = BeamFnExternalWorkerPoolServicer(use_process=True, container_executable=program)
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
        for process in pool._worker_processes.values():
            kill_process_gracefully(process)
