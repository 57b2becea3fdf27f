"""A small web server in this process: it serves the files of a folder, in ranges if asked."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@contextmanager
def serving_files(folder: Path, gives_ranges: bool = True) -> Iterator[str]:
    """Runs a server on a free port of this machine, and gives its address.

    Args:
        folder: Its files are served.
        gives_ranges: Whether it answers with the bytes that are asked for, or always with all.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            file = folder / unquote(urlsplit(self.path).path).lstrip("/")
            data = file.read_bytes() if file.is_file() else b""
            self.answer(200 if file.is_file() else 404, data, file)

        do_HEAD = do_GET

        def answer(self, status: int, data: bytes, file: Path) -> None:
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            headers = {"Content-Length": str(len(data))}
            if status == 200:
                headers["ETag"] = f'"{file.stat().st_mtime_ns}"'
            if status == 200 and asked and gives_ranges:
                start, stop = int(asked[1]), int(asked[2] or len(data) - 1) + 1
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
                status, data = 206, data[start:stop]
                headers["Content-Length"] = str(len(data))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
