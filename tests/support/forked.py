"""Programs of this package in processes of their own that take no time to start.

To import Beam and Lance takes longer than most runs. One process has imported them, and forks for
each program: `Forked` stands for that program as a `subprocess.Popen` does for one that was
executed. The process has not used Lance or Beam when it forks, so no thread of theirs is lost. What
Python or a library reads only when it starts cannot be changed in this way: see `can_fork`.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import IO, Any

import numpy as np
import pytest

from contextframe_beam.pipelines import logs
from contextframe_beam.pipelines.cli import main
from contextframe_beam.pipelines.runners import worker_processes
from tests.support.quick_beam import keep_what_beam_finds

_IMPORTED = (
    "contextframe_beam.pipelines.cli.commands",
    "contextframe_beam.pipelines.cli.ingest",
    "contextframe_beam.pipelines.cli.watch",
    "contextframe_beam.pipelines.ingest",
    "contextframe_beam.pipelines.cli.upkeep",
    "contextframe_beam.pipelines.runners.local",
    "contextframe_beam.pipelines.runners.worker",
    "contextframe_beam.connectors.json_file",
    "contextframe_beam.connectors.api.check",
    "apache_beam.runners.portability.fn_api_runner.fn_runner",
    "apache_beam.runners.worker.sdk_worker_main",
    "fsspec.implementations.local",
    "rich.console",
    "rich.table",
    "s3fs",
    "IPython",  # Beam asks it with each pipeline whether this is a notebook
    "tests.support.pipeline_helpers",
)
# Read when Python or a library starts.
_READ_AT_START = ("PYTHON", "LC_", "LANG", "LANCE_LOG", "GRPC_", "RUST_", "OMP_", "MALLOC_", "LD_")
_AT_START = dict(os.environ)
_MESSAGE_BYTES = 1 << 17
_LOOK_AFTER_PARENT_SECONDS = 2.0


def can_fork(environment: Mapping[str, str]) -> bool:
    """Returns whether a process with this environment may be forked, instead of executed."""
    return sys.platform == "linux" and _read_at_start(environment) == _read_at_start(_AT_START)


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in {**logs._QUIET, **environment}.items()
        if name.startswith(_READ_AT_START) and name != "PYTHONPATH"
    }


class _Process:
    """A process that was forked, in a session of its own.

    Args:
        command: What would stand after `python`: -m or -c, with what to run, and its arguments.
        environment: All of it.
        folder: In which it runs.
        files: What are to be its standard input, output and error.

    Attributes:
        pid: Its process id.
        returncode: How it ended, as of a `subprocess.Popen`; None until that was asked for.
    """

    def __init__(
        self,
        command: list[str],
        environment: Mapping[str, str],
        folder: str,
        files: list[int],
    ) -> None:
        request = {
            "command": command,
            "environment": dict(environment),
            "folder": folder,
            "imports from": folder,
        }
        news, tell = os.pipe()
        socket.send_fds(_server(), [json.dumps(request).encode()], [*files, tell])
        os.close(tell)
        self._news = os.fdopen(news, "rb", buffering=0)
        began, _, pid = self._news.readline().partition(b" ")
        assert began == b"began", f"{command} was not forked"
        self.pid = int(pid)
        self.returncode: int | None = None
        self._asking = threading.Lock()

    def poll(self) -> int | None:
        """Returns how it ended, or None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Waits until it has ended.

        Raises:
            subprocess.TimeoutExpired: it runs after `timeout` seconds.
        """
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Sends it a signal, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Asks it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        with self._asking:
            if self.returncode is None and select.select([self._news], [], [], timeout)[0]:
                self.returncode = int(self._news.readline().removeprefix(b"ended "))
                self._news.close()
            return self.returncode


class Forked(_Process):
    """A program that was forked, and whose output is read.

    Args:
        command: What would stand after `python`: -m or -c, with what to run, and its arguments.
        environment: All of it.
        folder: In which it runs.
        terminal: What is to be its standard input, output and error, which are not read here.

    Attributes:
        stdin: What it is told; it can wait for that.
        stdout: What it writes.
        stderr: What it complains about.
    """

    def __init__(
        self,
        command: list[str],
        environment: Mapping[str, str],
        folder: str,
        terminal: int | None = None,
    ) -> None:
        if terminal is not None:
            super().__init__(command, environment, folder, [terminal] * 3)
            return
        its_in, to_it = os.pipe()
        out, its_out = os.pipe()
        err, its_err = os.pipe()
        self.stdin: IO[str] = os.fdopen(to_it, "w", encoding="utf-8")
        self.stdout: IO[str] = os.fdopen(out, encoding="utf-8")
        self.stderr: IO[str] = os.fdopen(err, encoding="utf-8")
        files = [its_in, its_out, its_err]
        super().__init__(command, environment, folder, files)
        for file in files:
            os.close(file)

    def communicate(self, input: str = "", timeout: float | None = None) -> tuple[str, str]:
        """Tells it the rest of its input, reads all it writes, and waits until it has ended.

        Raises:
            subprocess.TimeoutExpired: it runs after `timeout` seconds.
        """
        with suppress(BrokenPipeError), self.stdin:
            self.stdin.write(input)
        deadline = time.monotonic() + (threading.TIMEOUT_MAX if timeout is None else timeout)
        texts = {self.stdout: "", self.stderr: ""}

        def read(file: IO[str]) -> None:
            with file:
                texts[file] = file.read()

        readers = [threading.Thread(target=read, args=(file,), daemon=True) for file in texts]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(max(0.0, min(deadline - time.monotonic(), threading.TIMEOUT_MAX)))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        self.wait(None if timeout is None else max(0.0, deadline - time.monotonic()))
        return texts[self.stdout], texts[self.stderr]


class _WorkerServer(_Process):
    """The server of worker processes: instead of the `subprocess.Popen` of `_worker_processes`."""

    def __init__(self, command: list[str], *, env: Mapping[str, str], **_: Any) -> None:
        its_in, to_it = os.pipe()
        from_it, its_out = os.pipe()
        self.stdin = os.fdopen(to_it, "wb")
        self.stdout = os.fdopen(from_it, "rb")
        super().__init__(command[1:], env, os.getcwd(), [its_in, its_out, 2])
        os.close(its_in)
        os.close(its_out)


#: Instead of the module `subprocess` in `_worker_processes`.
forks_worker_servers: Any = SimpleNamespace(
    Popen=_WorkerServer, PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired
)


def as_programs(folder: Path) -> int:
    """Writes programs `contextframe-beam` and `python` that are forked too, for shells.

    Args:
        folder: Where they are written, for the PATH.

    Returns:
        A file that has to be open in the shell, under this number.
    """
    file = _server().fileno()
    folder.mkdir(parents=True, exist_ok=True)
    for name, begins in {"contextframe-beam": ["-m", "contextframe_beam"], "python": []}.items():
        program = folder / name
        text = _PROGRAM.format(python=sys.executable, file=file, begins=begins)
        program.write_text(text, encoding="utf-8")
        program.chmod(0o755)
    return file


_PROGRAM = """\
#!{python} -IS
import json, os, socket, sys

command = [*{begins}, *sys.argv[1:]]
if not command or command[0] not in ("-m", "-c"):
    os.execv({python!r}, [{python!r}, *command])
news, tell = os.pipe()
request = {{
    "command": command,
    "environment": dict(os.environ),
    "folder": os.getcwd(),
    "imports from": os.getcwd() if command == sys.argv[1:] else os.path.dirname(sys.executable),
}}
files = [0, 1, 2, tell]
try:
    forks = socket.socket(fileno={file})
except OSError:  # this was started by a program that does not pass it on
    os.execv({python!r}, [{python!r}, *command])
socket.send_fds(forks, [json.dumps(request).encode()], files)
os.close(tell)
with os.fdopen(news) as lines:
    lines.readline()
    code = int(lines.readline().removeprefix("ended "))
os._exit(code if code >= 0 else 128 - code)
"""


@cache
def _server() -> socket.socket:
    """Returns the connection to the process that forks, and starts that when it is first asked."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.support.forked",
                str(theirs.fileno()),
                str(ours.fileno()),
            ],
            pass_fds=[theirs.fileno(), ours.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            cwd=Path(__file__).parents[2],
            env={**logs._QUIET, **_AT_START},
        )
    return ours


def _serve(requests: socket.socket) -> dict[str, Any]:
    """Forks for each request, and returns it in the process that was forked."""
    base = import_all()
    running: dict[int, int] = {}
    parent = os.getppid()
    signals, wake = os.pipe()
    os.set_blocking(signals, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Those that were forked hold the other end of the connection too, so its end may not come.
    while os.getppid() == parent:
        ready, _, _ = select.select([requests, signals], [], [], _LOOK_AFTER_PARENT_SECONDS)
        if signals in ready:
            os.read(signals, _MESSAGE_BYTES)
            _tell_ends(running)
        if requests in ready:
            message, files, _, _ = socket.recv_fds(
                requests, _MESSAGE_BYTES, 4, socket.MSG_CMSG_CLOEXEC
            )
            if not message:
                break
            *streams, news = files
            pid = os.fork()
            if pid == 0:
                for file in (signals, wake, *running.values()):
                    os.close(file)
                requests.close()
                request: dict[str, Any] = json.loads(message)
                _become(request, streams, news, base)
                return request
            running[pid] = news
            for file in streams:
                os.close(file)
    os._exit(0)


def import_all() -> list[str]:
    """Imports what runs import, and returns the path without what differs from run to run."""
    quiet = logging.NullHandler()
    logging.getLogger().addHandler(quiet)  # Beam logs while it is imported
    for module in _IMPORTED:
        importlib.import_module(module)
    logging.getLogger().removeHandler(quiet)
    keep_what_beam_finds(pytest.MonkeyPatch())
    warnings.filterwarnings("ignore", message="lance is not fork-safe")
    gc.freeze()
    own = {os.getcwd(), *os.environ.get("PYTHONPATH", "").split(os.pathsep)}
    return [path for path in sys.path if path not in own]


def _become(request: dict[str, Any], streams: list[int], news: int, base: list[str]) -> None:
    """Makes this process what one is that was just executed."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for number, file in enumerate(streams):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    added = os.environ.get("PYTHONPATH")
    sys.path[:] = [request["imports from"], *(added.split(os.pathsep) if added else []), *base]
    tests = Path(sys.path[0], "tests")
    if tests.is_dir() and not tests.samefile(Path(__file__).parents[1]):
        for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
            del sys.modules[name]
    tempfile.tempdir = None
    time.tzset()
    np.random.seed()  # else all would draw the same numbers
    os.write(news, b"began %d\n" % os.getpid())
    os.close(news)


def _tell_ends(running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        news = running.pop(pid)
        with suppress(BrokenPipeError):
            os.write(news, b"ended %d\n" % os.waitstatus_to_exitcode(status))
        os.close(news)


if __name__ == "__main__":
    requests, again = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    asked = _serve(requests)
    if can_fork(os.environ):
        _server = cache(lambda: again)
        worker_processes.subprocess = forks_worker_servers
    warnings.filterwarnings("ignore", message=".* found in sys.modules", category=RuntimeWarning)
    kind, program, *sys.argv[1:] = asked["command"]
    if kind == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        sys.argv[0] = kind
        this, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        exec(compile(program, "<string>", "exec"), vars(sys.modules["__main__"]))
        main._exit(0)
