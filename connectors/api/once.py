"""Asking an API, once for each answer, however often a run wants it.

The first page of a resource is wanted when its pages are counted and when it is read, and a parent
is read for its children as well as for itself. What is kept is kept in memory, compressed, for all
connectors of this process; what does not fit is asked for again.
"""

from __future__ import annotations

import hashlib
import json
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from contextframe_beam.connectors.api.answer import ROOT, Answer
from contextframe_beam.connectors.api.numbered import At
from contextframe_beam.connectors.api.paginate import Paginator
from contextframe_beam.connectors.api.resource import Endpoint
from contextframe_beam.connectors.api.scope import Scope
from contextframe_beam.connectors.http.request import HttpRequest, HttpResponse

#: How many compressed bytes are kept; those unused for longest go first.
MOST_BYTES = 64 << 20

# Documents shrink to a fifth or a tenth of their size; more effort gains little.
_EFFORT = 1


@dataclass(slots=True)
class _Kept:
    response: HttpResponse
    body: bytes
    uses: int


@dataclass(slots=True)
class _Waiting:
    lock: threading.Lock = field(default_factory=threading.Lock)
    waiting: int = 0


class Answers:
    """Answers by the run and the request, each for as many uses as are still to come.

    Args:
        most_bytes: How many compressed bytes are kept.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.size = 0
        self._most = most_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._asking: dict[str, _Waiting] = {}

    def get(
        self, run: str, request: HttpRequest, uses: int, ask: Callable[[], HttpResponse]
    ) -> HttpResponse:
        """Returns the answer to a request, which is sent once even where several threads want it.

        Args:
            run: Whose answers these are; nothing is shared between runs.
            request: The request.
            uses: How often a run wants its answer altogether.
            ask: Sends the request.
        """
        if uses < 2:
            return ask()
        key = _key(run, request)
        with self._lock:
            asking = self._asking.setdefault(key, _Waiting())
            asking.waiting += 1
        try:
            with asking.lock:
                found = self._taken(key)
                if found is None:
                    found = ask()
                    self._keep(key, found, uses - 1)
                return found
        finally:
            with self._lock:
                asking.waiting -= 1
                if not asking.waiting:
                    del self._asking[key]

    def take(self, run: str, request: HttpRequest) -> HttpResponse | None:
        """Returns the answer to a request if it is kept."""
        return self._taken(_key(run, request))

    def _taken(self, key: str) -> HttpResponse | None:
        with self._lock:
            kept = self._kept.get(key)
            if kept is None:
                return None
            kept.uses -= 1
            if kept.uses:
                self._kept.move_to_end(key)
            else:
                self._drop(key)
        return _with_body(kept.response, zlib.decompress(kept.body))

    def _keep(self, key: str, response: HttpResponse, uses: int) -> None:
        body = zlib.compress(response.body, _EFFORT)
        if len(body) > self._most:
            return
        with self._lock:
            self._kept[key] = _Kept(_with_body(response, b""), body, uses)
            self.size += len(body)
            while self.size > self._most:
                self._drop(next(iter(self._kept)))

    def _drop(self, key: str) -> None:
        self.size -= len(self._kept.pop(key).body)


_ANSWERS = Answers()


class Asking:
    """Asks for pages.

    Args:
        send: Sends a request.
    """

    def __init__(self, send: Callable[[HttpRequest], HttpResponse]) -> None:
        self._send = send

    def ask(
        self,
        endpoint: Endpoint,
        scope: Scope,
        paginator: Paginator,
        token: Any,
        place: str = "",
        uses: int = 1,
    ) -> tuple[Answer, list[Any]]:
        """Returns an answer and its records.

        Args:
            endpoint: What is asked.
            scope: What is read.
            paginator: How its pages follow each other.
            token: Which page.
            place: Where the records of an earlier page were.
            uses: How often one reading of the partition wants this answer.

        Raises:
            HttpError: the request fails.
            ConnectorError: the answer holds no records.
        """
        request = _request(endpoint, scope, paginator, token)
        response = _ANSWERS.get(
            scope.run, request, uses * endpoint.passes, lambda: self._send(request)
        )
        return _read(endpoint, response, place)

    def first_or_asked(
        self, endpoint: Endpoint, scope: Scope, paginator: Paginator, token: Any, place: str
    ) -> tuple[Answer, list[Any]]:
        """Returns what counting was answered, the first time that it is wanted, or asks."""
        if scope.is_counted_first and _is_first(paginator, token):
            first = _request(endpoint, scope, endpoint.paginator, endpoint.paginator.start())
            counted = _ANSWERS.take(scope.run, first)
            if counted is not None:
                return _read(endpoint, counted, place)
        return self.ask(endpoint, scope, paginator, token, place)


def place_learned(answer: Answer) -> str:
    """Returns where the records of later pages have to be; empty where the first does not tell."""
    is_one_record = answer.place == ROOT and not isinstance(answer.data, list)
    return "" if is_one_record else answer.place


def _request(endpoint: Endpoint, scope: Scope, paginator: Paginator, token: Any) -> HttpRequest:
    return endpoint.for_origin(paginator.apply(endpoint.request(scope), token))


def _read(endpoint: Endpoint, response: HttpResponse, place: str) -> tuple[Answer, list[Any]]:
    answer = endpoint.answer(response)
    found, records = endpoint.records(answer, place)
    return replace(answer, place=found), records


def _is_first(paginator: Paginator, token: Any) -> bool:
    if isinstance(token, At):
        first = paginator.start()
        return isinstance(first, At) and token.position == first.position
    return bool(token == paginator.start())


def _key(run: str, request: HttpRequest) -> str:
    asked = [
        request.method,
        request.url,
        list(request.params.items()),
        sorted(request.headers.items()),
        request.json,
        request.form,
    ]
    text = json.dumps([run, asked], default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _with_body(response: HttpResponse, body: bytes) -> HttpResponse:
    return HttpResponse(
        response.status,
        response.headers,
        body,
        response.absolute(""),
        response.sent,
        response.from_cache,
    )
