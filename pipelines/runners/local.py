"""Worker processes of a local run that cannot die unnoticed.

With Beam's own subprocess workers, the runner waits for ever if one of them is killed. Here a
thread watches each process and answers in its place, so the run fails and says why. It uses the
environments that Beam's FnApiRunner allows others to register.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
from contextlib import ExitStack
from types import ModuleType
from typing import Any

import grpc
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.transforms.environments import Environment, python_sdk_capabilities
from google.protobuf import json_format, text_format

from contextframe_beam.pipelines.runners.worker_processes import (
    WorkerProcess,
    how_it_ended,
    serving,
)

_LOGGER = logging.getLogger(__name__)
_URN = "contextframe_beam:env:local_process:v1"
_END_SECONDS = 5.0
_ANSWER_EVERY_SECONDS = 0.2

# Not a SimpleQueue: in Python 3.10 its timeout of 0 may wait for ever.
_deaths: queue.Queue[str] = queue.Queue()


@Environment.register_urn(_URN, bytes)
class LocalProcessEnvironment(Environment):
    """Tells the runner to start each worker as a process of this Python."""

    def __init__(self) -> None:
        super().__init__(capabilities=python_sdk_capabilities(), artifacts=(), resource_hints=None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocalProcessEnvironment)

    def __hash__(self) -> int:
        return hash(_URN)

    def to_runner_api_parameter(self, context: Any) -> tuple[str, bytes]:
        """Returns its entry in the pipeline's description."""
        return _URN, b""

    @staticmethod
    def from_runner_api_parameter(*_: Any) -> LocalProcessEnvironment:
        """Makes it from the pipeline's description."""
        return LocalProcessEnvironment()


@worker_handlers.WorkerHandler.register_environment(_URN, bytes)
class _ProcessHandler(worker_handlers.GrpcWorkerHandler):
    """Starts, watches and ends one worker process."""

    def __init__(self, _: bytes, state: Any, provision_info: Any, grpc_server: Any) -> None:
        super().__init__(state, provision_info, grpc_server)
        self._stopping = threading.Event()
        self._server = ExitStack()
        self._process: WorkerProcess | None = None

    def host_from_worker(self) -> str:
        return _HOST

    def start_worker(self) -> None:
        options = self.provision_info.provision_info.pipeline_options
        server = self._server.enter_context(serving())
        process = server.start(
            {
                "CONTROL_API_SERVICE_DESCRIPTOR": _described(self.control_api_service_descriptor()),
                "LOGGING_API_SERVICE_DESCRIPTOR": _described(self.logging_api_service_descriptor()),
                "PIPELINE_OPTIONS": json_format.MessageToJson(options),
                "WORKER_ID": self.worker_id,
            }
        )
        self._process = process
        name = f"watch-{self.worker_id}"
        threading.Thread(target=self._watch, args=(process,), name=name, daemon=True).start()

    def stop_worker(self) -> None:
        self._stopping.set()
        if self._process is not None and not self._process.wait(_END_SECONDS):
            self._process.kill()
            self._process.wait(_END_SECONDS)

    def close(self) -> None:
        self._stopping.set()
        with self._server:
            if self._process is not None and sys.exc_info()[0] is not None:
                # The run has failed or was interrupted, so the worker's results are useless, and a
                # normal close would wait for them. We ask it to end first, because a worker that is
                # killed while it writes leaves unfinished files.
                self._process.terminate()
                if not self._process.wait(_END_SECONDS):
                    self._process.kill()
            super().close()

    def _watch(self, process: WorkerProcess) -> None:
        process.wait()
        if self._stopping.is_set():
            return
        how = how_it_ended(process.code or 0)
        message = f"a worker process {how}; nothing was committed, run it again"
        reason = f"contextframe_beam.errors.CommitError: {message}"
        _deaths.put(message)
        _LOGGER.info("worker process %d %s", process.pid, how)
        while not self._stopping.wait(_ANSWER_EVERY_SECONDS):
            waiting = self.control_conn._futures_by_id
            for instruction, future in list(waiting.items()):
                waiting.pop(instruction, None)
                future.set(
                    beam_fn_api_pb2.InstructionResponse(instruction_id=instruction, error=reason)
                )


def death_of_worker(patience: float) -> str | None:
    """Returns how a worker process ended unexpectedly, or None.

    Beam may notice the lost connection before we notice the end of the process.

    Args:
        patience: Seconds to wait for the news.
    """
    try:
        return _deaths.get(timeout=patience)
    except queue.Empty:
        return None


def _described(descriptor: Any) -> str:
    told = type(descriptor)(url=descriptor.url.replace("localhost:", f"{_HOST}:"))
    return str(text_format.MessageToString(told))


_HOST = "127.0.0.1"
_EVERYWHERE = ("[::]", "0.0.0.0", "*", "")


def stay_local(*modules: ModuleType) -> None:
    """Makes the servers of these Beam modules listen on the loopback address only."""
    for module in modules:
        vars(module)["grpc"] = _Grpc()


def local_address(address: str) -> str:
    """Returns the loopback address in place of the address for all interfaces.

    It is a number: the name `localhost` has two, and gRPC is content with a port that is free at
    one of them. At the other one, another program would take the calls of engines and workers.

    Args:
        address: An address for gRPC, such as `[::]:0`; any other stays as it is.
    """
    host, _, port = address.rpartition(":")
    return f"{_HOST}:{port}" if host in _EVERYWHERE else address


class _Grpc:
    """The module `grpc`, except for `server`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(grpc, name)

    def server(self, *args: Any, **kwargs: Any) -> Any:
        server = grpc.server(*args, **kwargs)
        listen = server.add_insecure_port
        server.add_insecure_port = lambda address: listen(local_address(address))
        return server
