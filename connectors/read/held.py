"""Transactions that hold a snapshot while a run reads it.

The process that plans a run holds the transaction; the workers, which may be other processes on
other machines, read in transactions of their own that take over its snapshot. It ends with the
run, where the run ends in this process, or with the process, or after a day.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Closes(Protocol):
    """Anything that can be closed."""

    def close(self) -> None:
        """Ends it."""


# An open transaction keeps a database from cleaning up, so a process that lives on lets it go.
_LONGEST_SECONDS = 24 * 3600.0

_lock = threading.Lock()
_held: dict[int, tuple[Closes, threading.Timer]] = {}
_runs = 0


def hold(session: Closes) -> None:
    """Keeps a session open until the runs of this process have ended."""
    timer = threading.Timer(_LONGEST_SECONDS, _let_go, (id(session),))
    timer.daemon = True
    with _lock:
        _held[id(session)] = session, timer
    timer.start()


@contextmanager
def released() -> Iterator[None]:
    """Lets go what is held, after the last run within it in this process has ended."""
    global _runs
    with _lock:
        _runs += 1
    try:
        yield
    finally:
        with _lock:
            _runs -= 1
            ended = [] if _runs else list(_held)
        for one in ended:
            _let_go(one)


def _let_go(number: int) -> None:
    with _lock:
        session, timer = _held.pop(number, (None, None))
    if timer is not None:
        timer.cancel()
    if session is not None:
        session.close()
