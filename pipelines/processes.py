"""Worker processes of a local run that cannot die unnoticed.

Beam's own subprocess workers leave the runner waiting for ever when one of them is killed. Here a
thread watches each process and answers in its place, so the run fails and says why. It builds on
the environments that Beam's FnApiRunner lets others register.
"""

from __future__ import annotations

import logging
import os
import queue
import subprocess
import sys
import threading
import time
from typing import Any

from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.transforms.environments import Environment, python_sdk_capabilities
from google.protobuf import json_format, text_format

_LOGGER = logging.getLogger(__name__)
_URN = "contextframe_beam:env:local_process:v1"
_PATIENCE_SECONDS = 5.0
_ANSWER_EVERY_SECONDS = 0.2

_running: set[subprocess.Popen[bytes]] = set()
# Not a SimpleQueue: in Python 3.10 a timeout of 0 may make that one wait for ever.
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
        """Returns what the pipeline's description says of it."""
        return _URN, b""

    @staticmethod
    def from_runner_api_parameter(*_: Any) -> LocalProcessEnvironment:
        """Returns it from the pipeline's description."""
        return LocalProcessEnvironment()


@worker_handlers.WorkerHandler.register_environment(_URN, bytes)
class _ProcessHandler(worker_handlers.GrpcWorkerHandler):
    """Starts, watches and ends one worker process."""

    def __init__(self, _: bytes, state: Any, provision_info: Any, grpc_server: Any) -> None:
        super().__init__(state, provision_info, grpc_server)
        self._stopping = threading.Event()

    def start_worker(self) -> None:
        options = self.provision_info.provision_info.pipeline_options
        self._process = subprocess.Popen(
            [sys.executable, "-m", "contextframe_beam.pipelines.worker"],
            stdin=subprocess.DEVNULL,
            stdout=2,  # what connectors print must not get into the launcher's result
            start_new_session=True,  # an interrupt on the terminal is the launcher's to handle
            env={
                **os.environ,
                # Whatever the launcher can import, connectors and enrichers too, workers can.
                "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path),
                "CONTROL_API_SERVICE_DESCRIPTOR": _described(self.control_api_service_descriptor()),
                "LOGGING_API_SERVICE_DESCRIPTOR": _described(self.logging_api_service_descriptor()),
                "PIPELINE_OPTIONS": json_format.MessageToJson(options),
                "WORKER_ID": self.worker_id,
            },
        )
        _running.add(self._process)
        threading.Thread(target=self._watch, name=f"watch-{self.worker_id}", daemon=True).start()

    def stop_worker(self) -> None:
        self._stopping.set()
        try:
            self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        self._stopping.set()
        if sys.exc_info()[0] is not None:
            # The run has failed or was interrupted; what the worker still does is for nothing,
            # and a polite close would wait for it.
            self._process.kill()
        super().close()

    def _watch(self) -> None:
        code = self._process.wait()
        _running.discard(self._process)
        if self._stopping.is_set():
            return
        how = f"was killed by signal {-code}" if code < 0 else f"exited with status {code}"
        message = f"a worker process {how}; nothing was committed, run it again"
        reason = f"contextframe_beam.errors.CommitError: {message}"
        _deaths.put(message)
        _LOGGER.info("worker process %d %s", self._process.pid, how)
        while not self._stopping.wait(_ANSWER_EVERY_SECONDS):
            waiting = self.control_conn._futures_by_id
            for instruction, future in list(waiting.items()):
                waiting.pop(instruction, None)
                future.set(
                    beam_fn_api_pb2.InstructionResponse(instruction_id=instruction, error=reason)
                )


def death_of_worker(patience: float) -> str | None:
    """Returns what became of a worker process that ended by itself, or None.

    Beam may notice that the connection is gone before anybody notices that the process is.

    Args:
        patience: Seconds to wait for the news.
    """
    try:
        return _deaths.get(timeout=patience)
    except queue.Empty:
        return None


def end_all(patience: float) -> None:
    """Ends the worker processes of an interrupted run.

    They are asked first, so that they remove what they have begun to write.

    Args:
        patience: Seconds after which those that have not ended are killed.
    """
    running = list(_running)
    for process in running:
        process.terminate()
    deadline = time.monotonic() + patience
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _described(descriptor: Any) -> str:
    return str(text_format.MessageToString(descriptor))
