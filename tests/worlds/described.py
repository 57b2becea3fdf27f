"""A world: a local server of a vendor's API that checks each request and answer.

A world is faithful when every request that reaches it is one that the vendor's description allows,
every answer of its own is one that the description promises, and the vendor's own client can read
it. The first two are checked here while a test runs, and what is wrong is kept in `problems`. The
world's state lives in the process of the test, which edits it between runs.

    class Clock(World):
        description = OpenApi.read("clock.openapi.json")

        def answer(self, asked: Asked) -> Answer:
            return Answer(body={"now": "12:00"})

    with Clock() as world:
        ...  # read world.url
        assert world.problems == []
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Asked:
    """A request.

    Attributes:
        method: In capitals.
        path: As it was sent, without the query.
        query: Each parameter with its last value.
        headers: By names in small letters.
        body: The JSON of the body, or its form as a dictionary; None without one.
        template: The path in the description, `/repos/{owner}/{repo}`; "" if it is not there.
        params: The values of the template's names.
        number: Its number among the requests since the world began, from 1.
        data: The bytes of the body.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any = None
    template: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    number: int = 0
    data: bytes = b""

    @property
    def bearer(self) -> str:
        """The token of the header Authorization, "" without one."""
        return self.headers.get("authorization", "").partition(" ")[2]

    def __str__(self) -> str:
        query = "&".join(f"{name}={value}" for name, value in self.query.items())
        return f"{self.method} {self.path}" + (f"?{query}" if query else "")


@dataclass
class Answer:
    """What a world answers.

    Attributes:
        status: The HTTP status.
        headers: Beside Content-Type and Content-Length.
        body: JSON values; bytes, which are sent as they are; None for no body.
    """

    status: int = 200
    headers: dict[str, Any] = field(default_factory=dict)
    body: Any = None

    @property
    def data(self) -> bytes:
        """The bytes of the body."""
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Served:
    """A request and the status that it got; 0 where the connection was closed without an answer."""

    asked: Asked
    status: int


class Description(Protocol):
    """What a world knows of its vendor's API."""

    def find(self, method: str, path: str) -> tuple[str, dict[str, str]]:
        """Returns the path in the description and its values; an empty path if there is none."""

    def request_problems(self, asked: Asked) -> list[str]:
        """Returns what is wrong with a request, in words."""

    def answer_problems(self, asked: Asked, answer: Answer) -> list[str]:
        """Returns what is wrong with an answer, in words."""


class Together:
    """Descriptions of several parts of one API, such as its REST and its GraphQL.

    Args:
        parts: The first that has a path describes it.
    """

    def __init__(self, *parts: Description) -> None:
        self._parts = parts

    def find(self, method: str, path: str) -> tuple[str, dict[str, str]]:
        """Returns the path in the description and its values; an empty path if there is none."""
        return self._of(method, path).find(method, path)

    def request_problems(self, asked: Asked) -> list[str]:
        """Returns what is wrong with a request, in words."""
        return self._of(asked.method, asked.template).request_problems(asked)

    def answer_problems(self, asked: Asked, answer: Answer) -> list[str]:
        """Returns what is wrong with an answer, in words."""
        return self._of(asked.method, asked.template).answer_problems(asked, answer)

    def _of(self, method: str, path: str) -> Description:
        found = (part for part in self._parts if part.find(method, path)[0])
        return next(found, self._parts[0])


class World:
    """A local server. A subclass says what it is described by, and writes `answer`.

    Attributes:
        url: Its address.
        problems: What the description does not allow, of requests and of answers.
        served: The requests so far, with the status that each got.
        scripted: Answers that are given instead, one a request, in this order, and not checked.
        closing: Says of a request whether its connection is closed instead of an answer.
    """

    description: Description

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.served: list[Served] = []
        self.scripted: deque[Answer] = deque()
        self.closing: Callable[[Asked], bool] | None = None
        self.lock = threading.RLock()
        self._count = 0
        self._server = _server(self)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    def answer(self, asked: Asked) -> Answer:
        """Answers a request that the description has; one request after the other."""
        raise NotImplementedError

    def unknown(self, asked: Asked) -> Answer:
        """Answers a request that the description does not have."""
        return Answer(404, body={"message": "Not Found"})

    def beside(self, asked: Asked) -> Answer | None:
        """Answers what is beside the API, such as files of a web server; None for the API."""
        return None

    def described_path(self, path: str) -> str:
        """Returns the path as the description names it, where the vendor has another one too."""
        return path

    def close(self) -> None:
        """Stops the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def respond(
        self, method: str, target: str, headers: dict[str, str], sent: bytes
    ) -> Answer | None:
        """Answers one request and checks both; None where its connection is to be closed."""
        parts = urlsplit(target)
        with self.lock:
            self._count += 1
            template, params = self.description.find(method, self.described_path(parts.path))
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            count, body = self._count, _body(sent)
            asked = Asked(method, parts.path, query, headers, body, template, params, count, sent)
            answer = None
            if self.closing is None or not self.closing(asked):
                answer = self.scripted.popleft() if self.scripted else self._checked(asked)
            self.served.append(Served(asked, answer.status if answer else 0))
            return answer

    def _checked(self, asked: Asked) -> Answer:
        if not asked.template and (answer := self.beside(asked)) is not None:
            return answer
        if not asked.template:
            self.problems.append(f"{asked}: no such operation")
            return self.unknown(asked)
        self.problems += [f"{asked}: {one}" for one in self.description.request_problems(asked)]
        try:
            answer = self.answer(asked)
        except Exception as error:
            self.problems.append(f"{asked}: the world itself failed: {error!r}")
            return Answer(500, body={"message": "the world itself failed"})
        wrong = self.description.answer_problems(asked, answer)
        self.problems += [f"{asked} -> {answer.status}: {one}" for one in wrong]
        return answer


def etag_of(body: Any) -> str:
    """Returns an entity tag for JSON values."""
    text = json.dumps(body, sort_keys=True).encode()
    return f'"{hashlib.sha256(text).hexdigest()[:32]}"'


class Window:
    """A limit of requests in a sliding window, for each key apart.

    Args:
        count: How many requests it allows.
        seconds: How long it is.
    """

    def __init__(self, count: int, seconds: float) -> None:
        self.count = count
        self.seconds = seconds
        self._sent: dict[str, deque[float]] = {}

    def wait(self, key: str = "") -> float:
        """Counts a request and returns 0; or returns the seconds until one is allowed."""
        now = time.monotonic()
        sent = self._sent.setdefault(key, deque())
        while sent and sent[0] <= now - self.seconds:
            sent.popleft()
        if len(sent) >= self.count:
            return sent[0] + self.seconds - now
        sent.append(now)
        return 0.0


def _server(world: World) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Otherwise the body waits for the client to acknowledge the headers, 40 ms each time.
        disable_nagle_algorithm = True

        def serve(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = world.respond(self.command, self.path, headers, sent)
            if answer is None:
                self.close_connection = True
                return
            data = answer.data
            if "Date" in answer.headers:  # the world has a clock of its own
                self.send_response_only(answer.status)
            else:
                self.send_response(answer.status)
            usual = {"Content-Type": "application/json; charset=utf-8"} if data else {}
            for name, value in {**usual, **answer.headers}.items():
                self.send_header(name, str(value))
            if answer.status not in (204, 304):
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD" and answer.status not in (204, 304):
                self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = serve

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            """Says nothing of clients that went away."""

    return Server(("127.0.0.1", 0), Handler)


def _body(sent: bytes) -> Any:
    if not sent:
        return None
    try:
        return json.loads(sent)
    except ValueError:
        return dict(parse_qsl(sent.decode("utf-8", "replace")))
