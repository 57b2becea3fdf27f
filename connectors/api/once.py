"""Answers that a run wants more than once, so that the API is asked for them once.

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
from dataclasses import dataclass, field

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
class _Asking:
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
        self._asking: dict[str, _Asking] = {}

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
            asking = self._asking.setdefault(key, _Asking())
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
