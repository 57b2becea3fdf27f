"""One exchange: sends a request and reads its whole answer, within limits of time and size.

urllib3 keeps the connections. A failure is returned rather than raised, because the exceptions of
the libraries contain whole addresses, and Python chains an exception to the one being handled.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike, environ, fspath
from os.path import exists, isdir
from typing import Any
from urllib.parse import urlencode

import certifi
import requests.utils
import urllib3
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import HTTPResponse

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.http import request as urls
from contextframe_beam.connectors.http.request import HttpRequest, HttpResponse
from contextframe_beam.errors import ConfigError

_PIECE = 1 << 20
_BUFFER = 128 << 10
_NOT_SENT = (
    exceptions.NewConnectionError,
    exceptions.ConnectTimeoutError,
    exceptions.ProxyError,
    exceptions.SSLError,
)
_DEFAULT_HEADERS = {
    "Accept": "application/json, */*;q=0.5",
    "Accept-Encoding": "gzip, deflate",
    "User-Agent": "contextframe-beam",
}


@dataclass(frozen=True, slots=True)
class Broken:
    """An exchange without a complete answer.

    Attributes:
        problem: What happened, without secrets.
        sent: Whether the server may have seen the request.
        transient: Whether trying again can help.
        too_large: How many bytes the body has at least, where it has more than are taken.
    """

    problem: str
    sent: bool = True
    transient: bool = True
    too_large: int = 0


class Transport:
    """Pooled connections to a server, and to others that it leads to.

    Args:
        timeout: Seconds to connect, and seconds without a byte.
        pool_size: The number of connections to keep open.
        max_bytes: The largest body, compressed or not.
        ca_bundle: A file or directory of certificates to trust.

    Raises:
        ConfigError: there is no such file.
    """

    def __init__(
        self,
        timeout: tuple[float, float],
        pool_size: int,
        max_bytes: int,
        ca_bundle: str | PathLike[str] | None,
    ) -> None:
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._pool_size = pool_size
        bundle = ca_bundle or environ.get("REQUESTS_CA_BUNDLE") or certifi.where()
        if not exists(bundle):
            raise ConfigError(f"ca_bundle: there is no file or directory {fspath(bundle)!r}")
        self._trusted = {"ca_cert_dir" if isdir(bundle) else "ca_certs": fspath(bundle)}
        self._managers: dict[str | None, urllib3.PoolManager] = {}
        self._proxies: dict[str, str | None] = {}
        self._lock = threading.Lock()

    def exchange(self, request: HttpRequest, seconds: float) -> HttpResponse | Broken:
        """Sends a request and reads the answer.

        Args:
            request: Absolute, with credentials.
            seconds: How long it may take before it is cut off.
        """
        url, headers, body = encoded(request)
        connect, read = (max(0.001, min(one, seconds)) for one in self._timeout)
        with watched(time.monotonic() + seconds) as watch:
            try:
                raw = self._manager(request.url).urlopen(
                    request.method,
                    url,
                    body=body,
                    headers=headers,
                    retries=False,
                    redirect=False,
                    preload_content=False,
                    timeout=urllib3.Timeout(connect=connect, read=read),
                )
                data = self._read(raw, request)
            except (exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:
                return _broken(error, watch.expired, seconds, connect, read)
        if watch.expired:
            return _broken(None, True, seconds, connect, read)
        if isinstance(data, Broken):
            return data
        return HttpResponse(raw.status, raw.headers, data, url, request)

    def close(self) -> None:
        """Closes the connections; a later request opens new ones."""
        with self._lock:
            managers, self._managers = self._managers, {}
        for manager in managers.values():
            manager.clear()

    def _read(self, raw: urllib3.BaseHTTPResponse, request: HttpRequest) -> bytes | Broken:
        pieces: list[bytes] = []
        left = self._max_bytes
        try:
            length = raw.headers.get("Content-Length", "")
            if request.method != "HEAD" and length.isdecimal() and int(length) > left:
                return self._too_large(int(length))
            while piece := raw.read(min(_PIECE, left + 1)):
                pieces.append(piece)
                left -= len(piece)
                if left < 0:
                    return self._too_large(self._max_bytes + 1)
                if raw.length_remaining == 0 and "Content-Encoding" not in raw.headers:
                    break  # without asking once more for nothing
        except BaseException:
            left = -1
            raise
        finally:
            if left < 0 or not raw.closed:
                # The rest of an unfinished answer would look like the next answer.
                raw.close()
            raw.release_conn()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _too_large(self, size: int) -> Broken:
        return Broken(
            f"has a body of more than {self._max_bytes} bytes; ask for smaller pages, or raise "
            "max_response_bytes",
            transient=False,
            too_large=size,
        )

    def _manager(self, url: str) -> urllib3.PoolManager:
        origin = urls.origin_of(url)
        with self._lock:
            if origin not in self._proxies:
                found = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
                self._proxies[origin] = found
            proxy = self._proxies[origin]
            if proxy not in self._managers:
                self._managers[proxy] = self._new_manager(proxy)
            return self._managers[proxy]

    def _new_manager(self, proxy: str | None) -> urllib3.PoolManager:
        options: dict[str, Any] = {
            "num_pools": 10,
            "maxsize": self._pool_size,
            "cert_reqs": "CERT_REQUIRED",
            "ssl_minimum_version": ssl.TLSVersion.TLSv1_2,
            **self._trusted,
        }
        if proxy is None:
            manager = urllib3.PoolManager(**options)
        else:
            proxy = proxy if "://" in proxy else f"http://{proxy}"
            user, password = requests.utils.get_auth_from_url(proxy)
            secrets.register(password)
            shown = urllib3.make_headers(proxy_basic_auth=f"{user}:{password}") if user else None
            manager = urllib3.ProxyManager(proxy, proxy_headers=shown, **options)
        manager.pool_classes_by_scheme = {"http": WatchedPool, "https": WatchedTLSPool}
        return manager


def encoded(request: HttpRequest) -> tuple[str, dict[str, str], bytes | None]:
    """Returns the address, headers and body as they are sent."""
    url = _target(request)
    given = {name.lower() for name in request.headers}
    headers = {name: v for name, v in _DEFAULT_HEADERS.items() if name.lower() not in given}
    headers.update(request.headers)
    body = kind = None
    if request.json is not None:
        body = json.dumps(request.json, ensure_ascii=False, separators=(",", ":")).encode()
        kind = "application/json"
    elif request.form is not None:
        body = urlencode(urls.encoded_pairs(request.form)).encode()
        kind = "application/x-www-form-urlencoded"
    if kind is not None and "content-type" not in given:
        headers["Content-Type"] = kind
    return url, headers, body


def _target(request: HttpRequest) -> str:
    return urls.with_query(request.url, request.params).partition("#")[0]


def _broken(
    error: BaseException | None, expired: bool, seconds: float, connect: float, read: float
) -> Broken:
    """Explains an exception of the libraries, and names the setting that it concerns.

    Args:
        error: The exception; None if the answer was cut off without one.
        expired: Whether the exchange was cut off.
        seconds: How long an exchange may take before it is cut off.
        connect: How many seconds a connection may take.
        read: How many seconds may pass without a byte.
    """
    sent = not isinstance(error, _NOT_SENT)
    if expired or error is None:
        return Broken(
            f"was cut off: it took more than {seconds:.3g} s altogether, and total_timeout allows "
            "no more",
            sent,
        )
    causes = list(_causes(error))
    trust = next((one for one in causes if isinstance(one, ssl.SSLCertVerificationError)), None)
    if trust is not None:
        return Broken(
            f"has no certificate that is trusted ({trust.verify_message}); give ca_bundle if its "
            "certificates are your own",
            sent=False,
            transient=False,
        )
    detail = secrets.redact(getattr(causes[-1], "strerror", None) or str(causes[-1]))
    if isinstance(error, exceptions.ProxyError):
        return Broken(f"could not be reached through the proxy ({detail})", sent=False)
    unknown = next((one for one in causes if isinstance(one, socket.gaierror)), None)
    if unknown is not None:
        return Broken(f"has a host that cannot be found ({unknown.strerror})", sent=False)
    if isinstance(error, exceptions.NewConnectionError):
        return Broken(f"could not be connected to ({detail})", sent=False)
    if isinstance(error, exceptions.ConnectTimeoutError):
        return Broken(
            f"could not be connected to within {connect:.3g} s, as long as timeout allows",
            sent=False,
        )
    if isinstance(error, exceptions.TimeoutError | TimeoutError):
        return Broken(f"sent nothing for {read:.3g} s, as long as timeout allows", sent)
    if isinstance(error, exceptions.DecodeError):
        return Broken("has a body that is not compressed as it says", transient=False)
    if isinstance(error, exceptions.IncompleteRead | http.client.IncompleteRead) or any(
        isinstance(one, exceptions.IncompleteRead | http.client.IncompleteRead) for one in causes
    ):
        return Broken("ended in the middle of its body")
    if isinstance(error, exceptions.ProtocolError | exceptions.SSLError | OSError):
        return Broken(f"broke its connection off ({type(causes[-1]).__name__}: {detail})", sent)
    # The text of other exceptions may contain the value of a header in any form.
    return Broken(
        f"could not be sent ({type(error).__name__}); check its address, and that no header has a "
        "line break in it",
        sent=False,
        transient=False,
    )


def _causes(error: BaseException) -> list[BaseException]:
    found = [error]
    while len(found) < 10:
        last = found[-1]
        reasons = [last.__cause__, last.__context__, *last.args]
        inner = next((one for one in reasons if isinstance(one, BaseException)), None)
        if inner is None or inner in found:
            break
        found.append(inner)
    return found


class Watch:
    """A watched exchange.

    Attributes:
        expired: Whether its connection was shut because its time was over.
    """

    __slots__ = ("at", "expired", "socket")

    def __init__(self, at: float) -> None:
        self.at = at
        self.expired = False
        self.socket: Any = None


class _Watchdog:
    """Shuts connections that take too long; its thread starts with the first exchange."""

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
    # TLS inside TLS (a proxy over TLS) is not a socket, but contains one.
    plain = connection if isinstance(connection, socket.socket) else None
    plain = plain or getattr(connection, "socket", None)
    if plain is not None:
        with contextlib.suppress(OSError):  # it ended in the meantime
            # A TLS socket would drop its session first, while the reader still uses it.
            socket.socket.shutdown(plain, socket.SHUT_RDWR)


_watchdog = _Watchdog()
_current = threading.local()


def _start_anew() -> None:
    global _watchdog
    _watchdog = _Watchdog()


os.register_at_fork(after_in_child=_start_anew)


@contextlib.contextmanager
def watched(at: float) -> Iterator[Watch]:
    """Watches the exchange that this thread makes in the block.

    Args:
        at: When to cut it off, by `time.monotonic`.
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
    """Remembers whether the connection ended in place of a line."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.ended = False

    def readline(self, limit: int = -1) -> bytes:
        line: bytes = self._file.readline(limit)
        self.ended = self.ended or not line
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _LargeBuffer:
    """A socket that is read in pieces of the size of an answer, for each costs several calls."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def makefile(self, mode: str) -> Any:
        return self._connection.makefile(mode, buffering=_BUFFER)


class _WholeResponse(http.client.HTTPResponse):
    """An answer with complete headers; one that is cut off within them would look complete."""

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(_LargeBuffer(sock), *args, **kwargs)  # type: ignore[arg-type]

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
    """Connections that the watchdog can end."""

    ConnectionCls = _Connection


class WatchedTLSPool(HTTPSConnectionPool):
    """The same over TLS."""

    ConnectionCls = _TLSConnection
