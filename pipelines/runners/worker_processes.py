"""The worker processes of this launcher, and the server that starts them (`worker_server`).

It does not import Beam, so that the server can start before the launcher imports Beam.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO

from contextframe_beam.errors import CommitError

_PATIENCE_SECONDS = 5.0
# To import Beam takes a second, and much longer on a machine that is busy or reads from afar.
_START_SECONDS = 300.0
# Less than others wait for the report of a dead worker, because a dead process may stay in the list
# of processes for a while.
_PATIENCE_WITH_KILLED_SECONDS = 0.3


class WorkerProcess:
    """A worker process: a child of the server, which reports its end.

    Attributes:
        pid: Its process id.
        code: How it ended, as in `subprocess.Popen`; None while it runs.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: int | None = None
        self._has_ended = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until it has ended, at most `timeout` seconds; returns whether it has."""
        return self._has_ended.wait(timeout)

    def ended(self, code: int) -> None:
        """Notes that it has ended."""
        self.code = code
        self._has_ended.set()

    def terminate(self) -> None:
        """Asks it to end."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it."""
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self.code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


class WorkerServer:
    """Starts worker processes."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "contextframe_beam.pipelines.runners.worker_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # only the launcher handles an interrupt on the terminal
            env={**os.environ, "PYTHONPATH": _python_path()},
        )
        self._asking = threading.Lock()
        self._begun: queue.Queue[WorkerProcess | None] = queue.Queue()
        self._running: dict[int, WorkerProcess] = {}
        assert self._process.stdout is not None
        threading.Thread(
            target=self._listen, args=(self._process.stdout,), name="workers", daemon=True
        ).start()

    def start(self, environment: Mapping[str, str]) -> WorkerProcess:
        """Starts a worker.

        Args:
            environment: Further variables for the environment of this process.

        Raises:
            CommitError: the server has ended, or does not answer.
        """
        request = {
            # Workers can import everything that the launcher can, such as connectors and enrichers.
            "environment": {**os.environ, "PYTHONPATH": _python_path(), **environment},
            "folder": os.getcwd(),
        }
        assert self._process.stdin is not None
        with self._asking:
            try:
                self._process.stdin.write(json.dumps(request).encode() + b"\n")
                self._process.stdin.flush()
                worker = self._begun.get(timeout=_START_SECONDS)
            except OSError:
                worker = None
            except queue.Empty:
                self._process.kill()
                raise CommitError(
                    "the process that starts workers did not answer for "
                    f"{_START_SECONDS / 60:.0f} minutes; nothing was committed, run it again"
                ) from None
        if worker is None:
            how = how_it_ended(self._process.wait())
            raise CommitError(
                f"the process that starts workers {how}; nothing was committed, run it again"
            )
        return worker

    def close(self) -> None:
        """Ends the server, and workers that still run."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def end_workers(self, patience: float) -> None:
        """Ends the workers of an interrupted run.

        They are asked first, so that they remove unfinished files.

        Args:
            patience: Seconds after which the remaining workers are killed.
        """
        running = list(self._running.values())
        for worker in running:
            worker.terminate()
        deadline = time.monotonic() + patience
        for worker in running:
            if not worker.wait(max(0.0, deadline - time.monotonic())):
                worker.kill()
                worker.wait(_PATIENCE_SECONDS)

    def _listen(self, answers: IO[bytes]) -> None:
        with answers:
            for line in answers:
                answer = json.loads(line)
                if "began" in answer:
                    worker = WorkerProcess(answer["began"])
                    self._running[worker.pid] = worker
                    self._begun.put(worker)
                else:
                    self._running.pop(answer["ended"]).ended(answer["code"])
        code = self._process.wait()
        left = list(self._running.values())
        # They would end themselves, but only after their current work.
        for worker in left:
            worker.kill()
        _wait_for([worker.pid for worker in left])
        for worker in left:
            worker.ended(code)
        self._begun.put(None)


_lock = threading.Lock()
_server: WorkerServer | None = None
_users = 0


@contextmanager
def serving() -> Iterator[WorkerServer]:
    """Yields the server of this process, which runs until the last of these blocks ends."""
    global _server, _users
    with _lock:
        _server = _server or WorkerServer()
        server = _server
        _users += 1
    try:
        yield server
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _server = None
                server.close()


def end_all(patience: float) -> None:
    """Ends the workers of an interrupted run, as `WorkerServer.end_workers` does."""
    server = _server
    if server is not None:
        server.end_workers(patience)


def how_it_ended(code: int) -> str:
    """Returns in words how a process ended."""
    return f"was killed by signal {-code}" if code < 0 else f"exited with status {code}"


def _wait_for(killed: list[int]) -> None:
    """Waits a moment until killed processes without a parent are gone."""
    deadline = time.monotonic() + _PATIENCE_WITH_KILLED_SECONDS
    for pid in killed:
        with suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                os.kill(pid, 0)
                time.sleep(0.01)


def _python_path() -> str:
    return os.pathsep.join(os.path.abspath(path) for path in sys.path)
