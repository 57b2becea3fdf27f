"""Program: another program that runs, whose lines are read as they come.

What it reads as files (its configuration, which may hold secrets) stands in memory only, and never
among its arguments, which everybody on the machine can see. It never outlives this process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from contextframe_beam.connectors.programs.command import Command
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import ConnectorError

__all__ = ["Program"]

# Larger blocks cost more, as what is made of them leaves the processor's cache.
_READ_BYTES = 1 << 16
_PIPE_BYTES = 1 << 20
_LONGEST_LINE = 256 << 20
_TAIL_LINES = 40
_SHOWN_TAIL = 8
_LONGEST_SHOWN = 2000
# How long a program may take to end once it was asked to, or has closed its output.
_PATIENCE_SECONDS = 10.0
# How long records wait for more of them.
_LINGER_SECONDS = 2.0
# Ends the program when the process that reads it is gone, however it ended: the pipe closes then.
_GUARD = """read -r _
kill -s TERM -- "-$1" && sleep 5 && kill -s KILL -- "-$1"
[ -z "$2" ] || docker rm -f "$2"
"""


class Program:
    """A program that runs; use it in a `with` statement, which ends it.

    Args:
        command: How it is started.
        arguments: What it gets; `{config}` stands for the path of the file `config`.
        files: The values that it reads as files of JSON, by their names.
        logger: Is told what it writes to its standard error.

    Raises:
        ConfigError: there is no such program.
        ConnectorError: it cannot be started.
    """

    def __init__(
        self,
        command: Command,
        arguments: list[str],
        files: Mapping[str, Any],
        logger: logging.Logger,
    ) -> None:
        command.require()
        self._command = command
        self._logger = logger
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._container = f"contextframe-{uuid.uuid4().hex[:12]}" if command.image else ""
        self._guard: subprocess.Popen[bytes] | None = None
        with contextlib.ExitStack() as opened:
            folder, paths, handles = _handed(opened, command, files)
            given = [one.format(**paths) if one.startswith("{") else one for one in arguments]
            line = command.line(given, self._container, folder, list(files))
            try:
                self._process = subprocess.Popen(
                    line,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    bufsize=0,
                    pass_fds=handles,
                    start_new_session=True,
                )
            except OSError as error:
                raise ConnectorError(
                    f"{command.name} cannot be started: {error.strerror or error}"
                ) from None
            # The program may open its files at any time.
            self._opened = opened.pop_all()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._watch()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def blocks(self) -> Iterator[bytes]:
        """Yields what it writes to its standard output, in blocks of whole lines.

        A block of no bytes says that there is nothing new for a while.

        Raises:
            ConnectorError: a line is too long.
        """
        output = self._process.stdout
        assert output is not None
        _enlarge(output.fileno())
        waiting = select.poll()
        waiting.register(output, select.POLLIN)
        rest: list[bytes] = []
        held = 0
        while True:
            if not waiting.poll(_LINGER_SECONDS * 1000):
                yield b""
                continue
            data = output.read(_READ_BYTES)
            if not data:
                break
            cut = data.rfind(b"\n")
            if cut < 0:
                rest.append(data)
                held += len(data)
                if held > _LONGEST_LINE:
                    raise ConnectorError(
                        f"{self._command.name} wrote a line of more than {_LONGEST_LINE >> 20} MB"
                    )
                continue
            yield b"".join([*rest, data[:cut]])
            rest, held = [data[cut + 1 :]], len(data) - cut - 1
        if last := b"".join(rest):
            yield last

    def wait(self) -> int:
        """Waits for its end, and returns its exit code; negative for a signal."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE_SECONDS)
        if self._process.poll() is None:
            self._logger.warning("%s does not end by itself", self._command.name)
            self._end()
        self._listener.join(_PATIENCE_SECONDS)
        return int(self._process.returncode)

    @property
    def last_words(self) -> str:
        """The end of what it wrote to its standard error, without secrets."""
        lines = [line for line in self._tail if line.strip()]
        return redact("\n".join(lines[-_SHOWN_TAIL:]))[-_LONGEST_SHOWN:]

    def _listen(self) -> None:
        errors = self._process.stderr
        assert errors is not None
        # Without a buffer, lines would be read byte by byte.
        with open(errors.fileno(), "rb", closefd=False) as lines:
            for line in iter(lambda: lines.readline(_READ_BYTES), b""):
                text = line.decode("utf-8", "replace").rstrip()
                self._tail.append(text)
                self._logger.debug("%s: %s", self._command.name, text)

    def _watch(self) -> None:
        """Lets another process end it, should this one be killed."""
        reading, self._leash = os.pipe()
        try:
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, "sh", str(self._process.pid), self._container],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            os.close(reading)

    def _end(self) -> None:
        """Ends it and all that it started, and forgets its files."""
        if self._process.poll() is None:
            # All of its group: what it started has to end as well.
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_PATIENCE_SECONDS)
            if self._container:
                remove = [*self._command.words, "rm", "-f", self._container]
                subprocess.run(remove, capture_output=True, check=False)
        if self._guard is not None:
            self._guard.kill()
            self._guard.wait()
            self._guard = None
            os.close(self._leash)
        self._listener.join(_PATIENCE_SECONDS)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        self._opened.close()


def _handed(
    opened: contextlib.ExitStack, command: Command, files: Mapping[str, Any]
) -> tuple[str, dict[str, str], list[int]]:
    """Returns where a program finds its files: their folder, if any, their paths, their handles.

    Where the system has files in memory they have no name, and vanish with the last process that
    holds them. Elsewhere, and for a container, they stand in a folder of this user, in memory if
    there is such a place, and are removed when the program has ended.
    """
    if not files:
        return "", {}, []
    if hasattr(os, "memfd_create") and not command.image:
        handles: dict[str, int] = {}
        for name, value in files.items():
            handle = os.memfd_create(name)
            opened.callback(os.close, handle)
            _write(handle, orjson.dumps(value))
            handles[name] = handle
        paths = {name: f"/proc/self/fd/{handle}" for name, handle in handles.items()}
        return "", paths, list(handles.values())
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None
    folder = tempfile.mkdtemp(prefix="contextframe-", dir=memory)
    opened.callback(shutil.rmtree, folder, ignore_errors=True)
    # In a container another user reads them. On this machine nobody else can enter the folder.
    mode = 0o644 if command.image else 0o600
    for name, value in files.items():
        handle = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            _write(handle, orjson.dumps(value))
        finally:
            os.close(handle)
    place = command.path_inside if command.image else lambda name: f"{folder}/{name}"
    return folder, {name: place(name) for name in files}, []


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _enlarge(handle: int) -> None:
    """Makes a pipe hold more, so that the program waits less often."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(handle, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
