"""The host of the files of a world: signed addresses, and ranges of bytes."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class FileHost:
    """The host of files: it takes no credentials, but a signature that ends.

    Args:
        signature: The parameter of an address that holds its signature.

    Attributes:
        files: The bytes by their path.
        asked: The path and the range of each request, and its header Authorization.
        ended: Signatures that are no longer accepted.
        ranges: Whether it knows ranges.
        before: Is called with the path of each request, before the answer.
    """

    def __init__(self, signature: str = "X-Amz-Signature") -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.ended: set[str] = set()
        self.ranges = True
        self.before: Callable[[str], None] | None = None
        host = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                told = self.headers.get("Range", "")
                host.asked.append((parts.path, told, self.headers.get("Authorization")))
                if host.before is not None:
                    host.before(parts.path)
                signed = parse_qs(parts.query).get(signature, [""])[0]
                data = host.files.get(parts.path)
                if not signed or signed in host.ended or data is None:
                    self._send(403, b"<Error><Code>AccessDenied</Code></Error>")
                    return
                match = re.fullmatch(r"bytes=(\d+)-(\d+)", told)
                if match is None or not host.ranges:
                    self._send(200, data)
                    return
                first, last = int(match[1]), min(int(match[2]), len(data) - 1)
                if first >= len(data):
                    self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                    return
                where = {
                    "Content-Range": f"bytes {first}-{last}/{len(data)}",
                    "ETag": f'"{len(data)}"',
                }
                self._send(206, data[first : last + 1], where)

            def _send(self, status: int, data: bytes, headers: Mapping[str, str] = {}) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Says nothing of clients that went away."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stops the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
