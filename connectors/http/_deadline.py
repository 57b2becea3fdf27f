"""A time limit for a whole exchange, however slowly the server drips its bytes.

A socket's timeout starts again with each byte that arrives. So one thread of the process watches
the exchanges that are under way, and shuts the socket of one whose time is over; the thread that
waits for it sees the connection end.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import HTTPResponse


class Watch:
    """One exchange that is watched.

    Attributes:
        expired: Whether its connection was shut because its time was over.
    """

    __slots__ = ("at", "expired", "socket")

    def __init__(self, at: float) -> None:
        self.at = at
        self.expired = False
        self.socket: Any = None


class _Watchdog:
    """Shuts what takes too long; its thread starts with the first exchange."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watches: set[Watch] = set()
        self._wakes_at = float("inf")
        self._thread: threading.Thread | None = None

    def add(self, watch: Watch) -> None:
        with self._changed:
            self._watches.add(watch)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="http-deadline", daemon=True)
                self._thread.start()
            elif watch.at < self._wakes_at:
                self._changed.notify()

    def remove(self, watch: Watch) -> None:
        with self._changed:
            self._watches.discard(watch)

    def _run(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                for watch in [one for one in self._watches if one.at <= now]:
                    self._watches.discard(watch)
                    watch.expired = True
                    _shut(watch.socket)
                self._wakes_at = min((one.at for one in self._watches), default=float("inf"))
                idle = self._wakes_at == float("inf")
                self._changed.wait(None if idle else max(0.0, self._wakes_at - now))


def _shut(connection: Any) -> None:
    # TLS inside of TLS (a proxy reached over TLS) is not a socket, but has one.
    plain = connection if isinstance(connection, socket.socket) else None
    plain = plain or getattr(connection, "socket", None)
    if plain is not None:
        with contextlib.suppress(OSError):  # it ended by itself in the meantime
            # TLS sockets would forget their session first, under the hands of the reader.
            socket.socket.shutdown(plain, socket.SHUT_RDWR)


_watchdog = _Watchdog()
_current = threading.local()


def _start_anew() -> None:
    global _watchdog
    _watchdog = _Watchdog()


os.register_at_fork(after_in_child=_start_anew)


@contextlib.contextmanager
def watched(at: float) -> Iterator[Watch]:
    """Watches the exchange that this thread makes inside.

    Args:
        at: When its time is over, by `time.monotonic`.
    """
    watch = Watch(at)
    _current.watch = watch
    watchdog = _watchdog
    watchdog.add(watch)
    try:
        yield watch
    finally:
        _current.watch = None
        watchdog.remove(watch)


def _found(connection: Any) -> None:
    watch: Watch | None = getattr(_current, "watch", None)
    if watch is not None:
        watch.socket = connection
        if watch.expired:
            _shut(connection)


class _Lines:
    """Notes whether the connection ended where a line was expected."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.ended = False

    def readline(self, limit: int = -1) -> bytes:
        line: bytes = self._file.readline(limit)
        self.ended = self.ended or not line
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _WholeResponse(http.client.HTTPResponse):
    """An answer whose headers ended; one that is cut off within them would look complete."""

    def begin(self) -> None:
        file: Any = self.fp
        self.fp = lines = _Lines(file)  # type: ignore[assignment]
        try:
            super().begin()
        finally:
            self.fp = file
        if lines.ended:
            raise http.client.IncompleteRead(b"")


class _Connection(HTTPConnection):
    response_class = _WholeResponse

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        _found(self.sock)
        return super().getresponse()


class _TLSConnection(HTTPSConnection):
    response_class = _WholeResponse

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        _found(self.sock)
        return super().getresponse()


class WatchedPool(HTTPConnectionPool):
    """Connections that end when their watch says so."""

    ConnectionCls = _Connection


class WatchedTLSPool(HTTPSConnectionPool):
    """The same over TLS."""

    ConnectionCls = _TLSConnection
