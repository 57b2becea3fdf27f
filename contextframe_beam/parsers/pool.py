"""Processes that parse, reused from file to file: what hangs or crashes there ends no run.

A file goes to a process that is free, or to a new one. One that takes too long is killed, and the
file refused; so is the file of a process that dies. As many files are parsed at once as there are
threads that ask, up to the number of processors.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from contextframe_beam.errors import ContextFrameError
from contextframe_beam.frames.document import Document
from contextframe_beam.parsers.child import HEAD, READY, START, document_of
from contextframe_beam.parsers.contract import Limits, ParseError, UnknownTypeError, in_words
from contextframe_beam.parsers.parsing import out_of_memory
from contextframe_beam.parsers.registry import ParserInfo, Parsers

_START_SECONDS = 60
_MOST_ANSWER = 16  # times the text, which JSON escapes, with headings and metadata


class ParserPool:
    """Parses files in processes of their own.

    It may be used by several threads, and sent to other processes, which start their own. A fork
    starts its own as well. Close it, or use it in a `with`; when the program ends, its processes
    end.

    Args:
        parsers: The parsers, by type of file; those that are registered by default.
        limits: What a file may cost.
        processes: How many files are parsed at once at most; by default, one for each processor.
    """

    def __init__(
        self,
        parsers: Parsers | None = None,
        limits: Limits | None = None,
        processes: int | None = None,
    ) -> None:
        self.parsers = parsers if parsers is not None else Parsers()
        self.limits = limits if limits is not None else Limits()
        self._most = processes or os.cpu_count() or 1
        self._begin()

    def _begin(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._free: list[_Child] = []
        self._turns = threading.BoundedSemaphore(self._most)
        weakref.finalize(self, _close_all, self._free, self._owner)
        _pools.add(self)

    def __getstate__(self) -> dict[str, Any]:
        return {"parsers": self.parsers, "limits": self.limits, "_most": self._most}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def __enter__(self) -> ParserPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the processes that are free. The pool can be used again."""
        if os.getpid() == self._owner:
            with self._lock:
                free, self._free[:] = list(self._free), []
            for one in free:
                one.end()

    def parse(self, name: str, data: bytes) -> Document:
        """Returns the document that a file is.

        Args:
            name: The name of the file.
            data: Its bytes.

        Raises:
            UnknownTypeError: no parser reads files of this type; count the file as skipped.
            ParseError: the file cannot be parsed: its parser refused it, took too long, needed too
                much memory, or crashed.
            ConfigError: the parser cannot be used, so that no file of this type can be parsed.
        """
        base = name.replace("\\", "/").rsplit("/", 1)[-1]
        info = self.parsers.find(name, data)
        if info is None:
            raise UnknownTypeError(f"{base}: no parser reads this type of file")
        if len(data) > self.limits.max_file_bytes:
            most = in_words(self.limits.max_file_bytes)
            raise ParseError(f"{base}: it has {in_words(len(data))}, and max_file_bytes is {most}")
        with self._turns:
            return self._parsed(info, base, data)

    def _parsed(self, info: ParserInfo, name: str, data: bytes) -> Document:
        with self._lock:
            child = self._free.pop() if self._free else None
        child = child or _Child()
        outcome, is_final = self._tried(child, info, name, data)
        if not is_final:
            # It had parsed other files before, which may have damaged it: this one is not to blame.
            outcome, _ = self._tried(_Child(), info, name, data)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _tried(
        self, child: _Child, info: ParserInfo, name: str, data: bytes
    ) -> tuple[Document | Exception, bool]:
        was_fresh, child.is_fresh = child.is_fresh, False
        try:
            answer = child.answer(info, name, data, self.limits)
            outcome, retire = document_of(answer)
        except TimeoutError:
            child.kill()
            seconds = f"{self.limits.timeout:g} seconds"
            return ParseError(f"{name}: parsing it took longer than {seconds}"), True
        except (EOFError, ValueError, KeyError, OSError):
            return ParseError(f"{name}: {_ending(child.kill(), self.limits)}"), was_fresh
        except BaseException:
            child.kill()  # an interrupt; its answer would be taken for that of another file
            raise
        if retire:
            child.end()
            return outcome, was_fresh or isinstance(outcome, Document)
        with self._lock:
            self._free.append(child)
        return outcome, True


_pools: weakref.WeakSet[ParserPool] = weakref.WeakSet()


def _begin_anew() -> None:
    """Lets the pools of a fork forget the processes, which are those of the other."""
    for one in list(_pools):
        one._begin()


os.register_at_fork(after_in_child=_begin_anew)


def _close_all(free: list[_Child], owner: int) -> None:
    if os.getpid() == owner:
        for one in free:
            one.end()


def _ending(code: int | None, limits: Limits) -> str:
    # So libraries end that get no memory, and so a system ends processes that have too much.
    if code in (-signal.SIGABRT, -signal.SIGTRAP, -signal.SIGKILL):
        return f"its parser crashed ({signal.Signals(-code).name}), or {out_of_memory(limits)}"
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"its parser crashed ({signal.Signals(-code).name})"
    return f"its parser ended its process (exit code {code})"


class _Child:
    """A process that parses, and the pipes to it."""

    def __init__(self) -> None:
        self.is_fresh = True
        self._is_ready = False
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", START, str(os.getpid()), *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                start_new_session=True,  # an interrupt of the keyboard is for the run, not for it
            )
        except OSError as error:
            raise ContextFrameError(
                f"no process for parsing could be started: {error.strerror}"
            ) from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)

    def answer(self, info: ParserInfo, name: str, data: bytes, limits: Limits) -> bytes:
        """Returns the answer to a request.

        Raises:
            TimeoutError: it took too long.
            EOFError: the process ended.
            OSError: the process ended before it read the request.
            ValueError: its answer is not valid.
        """
        self._wait_until_ready()
        until = time.monotonic() + limits.timeout
        head = orjson.dumps(
            {
                "parser": info.path,
                "settings": dict(info.settings),
                "name": name,
                "limits": asdict(limits),
                "size": len(data),
            }
        )
        self._send(len(head).to_bytes(HEAD, "big") + head, until)
        self._send(data, until)
        size = int.from_bytes(self._receive(HEAD, until), "big")
        if size > _MOST_ANSWER * limits.max_unpacked_bytes:
            raise ValueError(f"an answer of {size} bytes")
        return self._receive(size, until)

    def _wait_until_ready(self) -> None:
        """Waits for a new process, so that no file is blamed where none can be started."""
        if self._is_ready:
            return
        try:
            self._is_ready = self._receive(1, time.monotonic() + _START_SECONDS) == READY
        except (EOFError, TimeoutError):
            self._is_ready = False
        if not self._is_ready:
            raise ContextFrameError(
                "no process for parsing could be started: it ended before it was ready "
                f"(exit code {self.kill()}); is there enough memory?"
            )

    def _send(self, data: bytes, until: float) -> None:
        view = memoryview(data)
        while view:
            _wait(self._to, select.POLLOUT, until)
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(self._to, view[: 1 << 16]) :]

    def _receive(self, size: int, until: float) -> bytes:
        parts, left = [], size
        while left:
            _wait(self._from, select.POLLIN, until)
            try:
                part = os.read(self._from, min(left, 1 << 20))
            except BlockingIOError:
                continue
            if not part:
                raise EOFError
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def kill(self) -> int | None:
        """Ends the process and what it started, at once; returns how it ended.

        None, when it had to be killed.
        """
        if self._process.returncode is not None:
            return self._process.returncode
        code: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            # It may be about to end by itself: its end of the pipe closes a little before.
            code = self._process.wait(0.05)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._closed()
        return code

    def end(self) -> None:
        """Lets the process end by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._closed()

    def _closed(self) -> None:
        for one in (self._process.stdin, self._process.stdout):
            if one is not None:
                with contextlib.suppress(OSError):
                    one.close()
        self._process.wait()


def _wait(fd: int, event: int, until: float) -> None:
    left = until - time.monotonic()
    waiting = select.poll()
    waiting.register(fd, event)
    if left <= 0 or not waiting.poll(left * 1000):
        raise TimeoutError


@dataclass(frozen=True)
class Parsing:
    """How files become documents.

    Attributes:
        parsers: The parsers, by type of file.
        limits: What a file may cost.
    """

    parsers: Parsers = field(default_factory=Parsers)
    limits: Limits = field(default_factory=Limits)

    @property
    def pool(self) -> ParserPool:
        """The processes that parse so: one pool for all threads of this process."""
        key = (self.parsers.identity, self.limits)
        with _POOLS_LOCK:
            if key not in _POOLS:
                _POOLS[key] = ParserPool(self.parsers, self.limits)
            return _POOLS[key]


_POOLS: dict[tuple[bytes, Limits], ParserPool] = {}
_POOLS_LOCK = threading.Lock()
