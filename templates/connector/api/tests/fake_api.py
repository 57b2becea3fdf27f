"""A small API for the tests. With a real one, record it instead: see `recorded` in
contextframe_beam.connectors.testing.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

TOKEN = "the-right-token"
PAGES = [
    [{"id": 1, "title": "Hello", "content": "hello from the API"}, {"id": 2, "content": "two"}],
    [{"id": 3, "content": "three", "author": "Ann"}],
]


class Api(BaseHTTPRequestHandler):
    """Answers `/me` and `/documents?page=N` to those who know the token."""

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, {"error": "who are you?"})
        elif address.path == "/me":
            self.answer(200, {"name": "Ann"})
        elif address.path == "/documents":
            page = int(parse_qs(address.query)["page"][0])
            self.answer(200, {"items": PAGES[page - 1], "has_more": page < len(PAGES)})
        else:
            self.answer(404, {"error": "there is no such thing"})

    def answer(self, status: int, body: object) -> None:
        """Sends a status and a JSON body."""
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def running_api() -> Iterator[str]:
    """Runs the API and gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
