"""A small HTTP server in this process, of which a test says in one function what it answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Got:
    """A request.

    Attributes:
        path: Without the query.
        query: Each parameter with its last value.
        body: The JSON body, None without one.
        url: The server's own address.
    """

    path: str
    query: Mapping[str, str]
    body: Any
    url: str

    def number(self, name: str, default: int) -> int:
        """Returns a parameter of the query as a number."""
        return int(self.query.get(name, default))


@dataclass
class SmallServer:
    """The server's address, and what it was asked.

    Attributes:
        url: Its address.
        requests: All requests so far, in the order in which they came.
    """

    url: str
    requests: list[Got] = field(default_factory=list)


#: An answer: its JSON; or its status, headers and JSON.
Reply = Any


@contextmanager
def serving(answer: Callable[[Got], Reply]) -> Iterator[SmallServer]:
    """Runs a server on a free port of this machine.

    Args:
        answer: Gives the answer to a request; called one request after the other.
    """
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(parts.query, True).items()}
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            got = Got(parts.path, query, json.loads(sent) if sent else None, server.url)
            with lock:
                server.requests.append(got)
                reply = answer(got)
            status, headers, body = reply if isinstance(reply, tuple) else (200, {}, reply)
            data = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    http = Server(("127.0.0.1", 0), Handler)
    server = SmallServer(f"http://127.0.0.1:{http.server_port}")
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
