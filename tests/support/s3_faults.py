"""A proxy before an S3 server that answers some requests with errors, or late.

    with FaultyProxy(server.endpoint) as proxy:
        proxy.fault = lambda request: Fault(503) if request.method == "PUT" else None
        ... use proxy.endpoint instead of server.endpoint ...

The signature of a request covers the host that the client spoke to, so the proxy passes that on.
"""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}


@dataclass(frozen=True)
class Request:
    """What the client asks.

    Attributes:
        method: GET, PUT, ...
        path: The object, with the query.
        number: How many requests came before.
    """

    method: str
    path: str
    number: int


@dataclass(frozen=True)
class Fault:
    """What happens to a request.

    Attributes:
        status: The answer in place of the server's; 0 passes the request on.
        delay: Seconds before that.
        after: The server does the work first, and only its answer is lost.
        cut: The connection is closed in place of an answer.
    """

    status: int = 0
    delay: float = 0.0
    after: bool = False
    cut: bool = False

    @property
    def has_answer(self) -> bool:
        """Whether the client gets another answer than the server's, or none."""
        return bool(self.status) or self.cut


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Says nothing about clients that were killed."""


@dataclass
class FaultyProxy:
    """Runs in a thread of this process while it is entered.

    Attributes:
        upstream: The server.
        fault: Decides about each request; None leaves it alone.
        requests: What was asked so far.
        faults: How many of them met a fault.
    """

    upstream: str
    fault: Callable[[Request], Fault | None] = lambda request: None
    requests: list[Request] = field(default_factory=list)
    faults: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way = 0
        self._idle = threading.Condition(self._lock)

    def wait_until_idle(self) -> None:
        """Waits until no request is under way, those of clients included that were killed."""
        with self._idle:
            self._idle.wait_for(lambda: not self._under_way)

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FaultyProxy:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                with proxy._idle:
                    proxy._under_way += 1
                try:
                    proxy._handle(self)
                finally:
                    with proxy._idle:
                        proxy._under_way -= 1
                        proxy._idle.notify_all()

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            request = Request(handler.command, handler.path, len(self.requests))
            self.requests.append(request)
        size = int(handler.headers.get("Content-Length") or 0)
        body = handler.rfile.read(size)
        if len(body) < size:  # the client was killed, and no store takes half of a request
            handler.close_connection = True
            return
        fault = self.fault(request)
        if fault is not None:
            with self._lock:
                self.faults += 1
            time.sleep(fault.delay)
            if fault.has_answer and not fault.after:
                _answer_with(fault, handler)
                return
        status, headers, answer = self._pass_on(handler, body)
        if fault is not None and fault.has_answer:
            _answer_with(fault, handler)
        else:
            _answer(handler, status, headers, answer)

    def _pass_on(
        self, handler: BaseHTTPRequestHandler, body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(urlsplit(self.upstream).netloc, timeout=60)
        try:
            connection.putrequest(
                handler.command, handler.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in handler.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


def _answer_with(fault: Fault, handler: BaseHTTPRequestHandler) -> None:
    if fault.cut:
        # Not only closed, which would look like an empty answer.
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.shutdown(socket.SHUT_RDWR)
        handler.close_connection = True
    else:
        _answer(handler, fault.status, [], b"")


def _answer(
    handler: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], body: bytes
) -> None:
    try:
        handler.send_response_only(status)
        length = str(len(body))
        for name, value in headers:
            if name.lower() == "content-length" and handler.command == "HEAD":
                length = value
            elif name.lower() not in {*_HOP_BY_HOP, "content-length"}:
                handler.send_header(name, value)
        handler.send_header("Content-Length", length)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)
    except (BrokenPipeError, ConnectionResetError):
        handler.close_connection = True
