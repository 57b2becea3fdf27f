"""Several requests of one page at once: in order, bounded, and ended by the first error."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from contextframe_beam.connectors.ahead import read_ahead
from contextframe_beam.connectors.http.request import HttpRequest, HttpResponse


class Together:
    """What the calls of one client share.

    Args:
        most_open: How many requests of all calls may be open at the same time.
    """

    def __init__(self, most_open: int) -> None:
        self._places = threading.BoundedSemaphore(most_open)
        # In a thread that sends for a call, that call's end.
        self._own = threading.local()

    def answers(
        self,
        send: Callable[[HttpRequest], HttpResponse],
        requests: Iterable[HttpRequest],
        at_once: int,
        most_bytes: int | None,
    ) -> list[HttpResponse]:
        """Returns the answers to requests in their order.

        Args:
            send: Sends one, in any of several threads.
            requests: The requests.
            at_once: How many of them are on their way at the same time.
            most_bytes: After more bytes of bodies than this no further request begins.
        """
        ended = threading.Event()
        received = 0
        lock = threading.Lock()

        def begun() -> Iterator[tuple[int, HttpRequest]]:
            for numbered in enumerate(requests):
                if most_bytes is not None and received > most_bytes:
                    return
                yield numbered

        def sent(numbered: tuple[int, HttpRequest]) -> Iterator[tuple[int, HttpResponse]]:
            nonlocal received
            number, request = numbered
            self._own.ended = ended
            response = send(request)
            with lock:
                received += len(response.body)
            yield number, response

        try:
            # Each is a group of its own, so that a slow one does not hold up those behind it.
            answers = dict(
                read_ahead(
                    begun(),
                    sent,
                    threads=at_once,
                    ahead=at_once,
                    key=lambda numbered: numbered[0],
                    is_last=lambda _: True,
                )
            )
        finally:
            ended.set()
        return [answers[number] for number in sorted(answers)]

    @contextmanager
    def place(self) -> Iterator[bool]:
        """Holds a place among the open requests, if this thread sends for a call.

        It is taken for the exchange alone: who waits for a budget keeps no place from others.

        Yields:
            Whether the request may be sent: its call has not ended.
        """
        ended: threading.Event | None = getattr(self._own, "ended", None)
        if ended is None:
            yield True
            return
        with self._places:
            yield not ended.is_set()
