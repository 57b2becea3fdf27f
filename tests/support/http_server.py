"""A real HTTP server for the tests: a process of its own, a route for each behaviour, and counters.

Routes are functions in `http_routes.py` and `http_routes_api.py`, found by path: a key of `ROUTES`
that ends in `/` is the beginning of one. Beside the main port it listens on a second one (another
origin) and on one with TLS, whose certificate is made at the start.

    GET  /_counts      {"paths": {path: requests}, "at_once": most requests at the same time}
    GET  /_requests    [{"port", "method", "path", "query", "headers", "body"}], the last 10,000
    POST /_reset       forgets all of that, and what the routes remember

It prints one line of JSON with its addresses, and ends when its standard input does.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import socket
import ssl
import sys
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Route = Callable[["Exchange"], None]

ROUTE_MODULES = ("tests.support.http_routes", "tests.support.http_routes_api")
KEPT_REQUESTS = 10_000


class State:
    """What the server counts, and what routes remember between requests."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.generation = 0
        self.reset()

    def reset(self) -> None:
        with self.lock:
            self.generation += 1
            self.paths: Counter[str] = Counter()
            self.requests: deque[dict[str, Any]] = deque(maxlen=KEPT_REQUESTS)
            self.running = 0
            self.at_once = 0
            #: Free for routes; use it under `lock`.
            self.memory: dict[str, Any] = {}


class Exchange:
    """One request, and the ways to answer it.

    Attributes:
        port: main, other or tls.
        path: Without the query, decoded.
        query: Each name with its last value.
        count: How many requests came for this path since the last reset, this one included.
        memory: What routes remember; use it under `lock`.
    """

    def __init__(self, handler: _Handler, state: State) -> None:
        self._handler = handler
        self.method = handler.command
        parts = urlsplit(handler.path)
        self.path = unquote(parts.path)
        self.raw_query = parts.query
        found = parse_qs(parts.query, keep_blank_values=True)
        self.query = {name: values[-1] for name, values in found.items()}
        self.headers = handler.headers
        self.body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.port = handler.server.label  # type: ignore[attr-defined]
        self.addresses: dict[str, str] = handler.server.addresses  # type: ignore[attr-defined]
        self.memory = state.memory
        self.lock = state.lock
        self.count = 0

    def number(self, name: str, default: float = 0) -> float:
        """Returns a parameter of the query as a number."""
        return float(self.query.get(name, default))

    def json(self) -> Any:
        """Returns the body as JSON."""
        return json.loads(self.body)

    def form(self) -> dict[str, str]:
        """Returns the body as a form."""
        found = parse_qs(self.body.decode(), keep_blank_values=True)
        return {name: values[-1] for name, values in found.items()}

    def reply(
        self,
        body: Any = b"",
        status: int = 200,
        headers: dict[str, str] | list[tuple[str, str]] | None = None,
        kind: str | None = None,
    ) -> None:
        """Answers with bytes, text, or anything else as JSON."""
        if isinstance(body, str):
            data, usual = body.encode(), "text/plain; charset=utf-8"
        elif isinstance(body, bytes):
            data, usual = body, "application/octet-stream"
        else:
            data, usual = json.dumps(body).encode(), "application/json"
        pairs = list(headers.items() if isinstance(headers, dict) else headers or ())
        given = {name.lower() for name, _ in pairs}
        if "content-length" not in given and status not in (204, 304):
            pairs.append(("Content-Length", str(len(data))))
        if "content-type" not in given and data:
            pairs.append(("Content-Type", kind or usual))
        self.raw(self.head(status, pairs) + (b"" if self.method == "HEAD" else data))

    def head(self, status: int, headers: list[tuple[str, str]]) -> bytes:
        """Returns the first lines of an answer."""
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "Unknown"
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def raw(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self._handler.wfile.write(data)

    def cut(self) -> None:
        """Closes the connection at once, whatever was promised."""
        self._handler.close_connection = True
        self._handler.wfile.flush()
        self._handler.connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    state: State
    routes: dict[str, Route]

    def handle_any(self) -> None:
        state = self.state
        exchange = Exchange(self, state)
        if exchange.path.startswith("/_"):
            self._control(exchange)
            return
        with state.lock:
            state.paths[exchange.path] += 1
            exchange.count = state.paths[exchange.path]
            generation = state.generation
            state.running += 1
            state.at_once = max(state.at_once, state.running)
            state.requests.append(
                {
                    "port": exchange.port,
                    "method": exchange.method,
                    "path": exchange.path,
                    "query": exchange.raw_query,
                    "headers": dict(exchange.headers.items()),
                    "body": exchange.body.decode("utf-8", "replace"),
                }
            )
        try:
            route(self.routes, exchange.path)(exchange)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with state.lock:
                if state.generation == generation:
                    state.running -= 1

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = handle_any

    def _control(self, exchange: Exchange) -> None:
        state = self.state
        with state.lock:
            if exchange.path == "/_reset":
                state.reset()
                exchange.reply({})
            elif exchange.path == "/_counts":
                exchange.reply({"paths": state.paths, "at_once": state.at_once})
            elif exchange.path == "/_requests":
                exchange.reply(list(state.requests))
            else:
                exchange.reply("unknown", 404)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, label: str, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.label = label
        self.tls = tls
        self.addresses: dict[str, str] = {}

    def finish_request(self, request: Any, client_address: Any) -> None:
        # The handshake waits for the client, so it belongs into the connection's own thread.
        if self.tls is not None:
            request = self.tls.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def route(routes: dict[str, Route], path: str) -> Route:
    """Returns the route of a path: the path itself, else the longest beginning that has one."""
    if path in routes:
        return routes[path]
    found = [key for key in routes if key.endswith("/") and path.startswith(key)]
    if not found:
        return lambda exchange: exchange.reply({"error": "no such route"}, 404)
    return routes[max(found, key=len)]


def load_routes() -> dict[str, Route]:
    """Returns the routes of all modules."""
    routes: dict[str, Route] = {}
    for name in ROUTE_MODULES:
        if importlib.util.find_spec(name) is not None:
            routes.update(importlib.import_module(name).ROUTES)
    return routes


def make_certificate(folder: Path) -> Path:
    """Writes a key with a certificate for 127.0.0.1 that nobody trusts yet; returns its path."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return path


def main() -> None:
    """Serves until standard input ends."""
    _Handler.state = State()
    _Handler.routes = load_routes()
    with tempfile.TemporaryDirectory() as folder:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(make_certificate(Path(folder)))
        servers = {"main": _Server("main"), "other": _Server("other"), "tls": _Server("tls", tls)}
        addresses = {
            label: f"{'https' if server.tls else 'http'}://127.0.0.1:{server.server_port}"
            for label, server in servers.items()
        }
        for server in servers.values():
            server.addresses = addresses
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        print(json.dumps({**addresses, "ca": f"{folder}/ca.pem"}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])
    import tests.support.http_server

    tests.support.http_server.main()
