"""Shows how far a run is: live on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from contextframe_beam.pipelines._logs import line
from contextframe_beam.pipelines.streams import as_it_is, printable

if TYPE_CHECKING:
    from rich.live import Live

    from contextframe_beam.pipelines._settings import Settings

SECONDS_BETWEEN_LINES = 5.0
_RATE_SECONDS = 10.0
_LOOK_EVERY = 1.0


class Display(Protocol):
    """Something that shows counts."""

    def show(self, counts: Mapping[str, int], state: str = "starting") -> None:
        """Shows the newest counts: items, rows, unchanged and failures, since the run began.

        Args:
            counts: The counts.
            state: Shown while there are none.
        """


@contextmanager
def display(name: str, quiet: bool, settings: Settings) -> Iterator[Display]:
    """Gives the display that suits the standard error.

    Args:
        name: What is read.
        quiet: Show nothing.
        settings: Say how lines are written.
    """
    if quiet:
        yield _Nothing()
    elif sys.stderr.isatty() and not settings.json_logs:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=as_it_is(sys.stderr))
        with Live(console=console, refresh_per_second=8, transient=True) as live:
            yield _OnTerminal(name, live)
    else:
        yield _Lines(name, settings)


@contextmanager
def watching(shown: Display, look: Callable[[], tuple[str, Mapping[str, int]]]) -> Iterator[None]:
    """Shows what `look` tells, every second, while the block waits for something else.

    Args:
        shown: Where to show it.
        look: Returns a state in a word, and the newest counts.
    """
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_LOOK_EVERY):
            state, counts = look()
            shown.show(counts, state)

    watcher = threading.Thread(target=watch, name="progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


class _Nothing:
    def show(self, counts: Mapping[str, int], state: str = "starting") -> None:
        return


class _Lines:
    """Writes a line every few seconds, so that the log of a scheduler shows life."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._status = _Status(name)
        self._settings = settings
        self._next = time.monotonic() + SECONDS_BETWEEN_LINES

    def show(self, counts: Mapping[str, int], state: str = "starting") -> None:
        text = self._status.text(counts, state)
        if time.monotonic() >= self._next:
            self._next += SECONDS_BETWEEN_LINES
            sys.stderr.write(line(self._settings, text) + "\n")
            sys.stderr.flush()


class _OnTerminal:
    """Renews one line in place."""

    def __init__(self, name: str, live: Live) -> None:
        from rich.spinner import Spinner
        from rich.text import Text

        self._status = _Status(name)
        self._text = Text()
        self._spinner: Any = Spinner("dots", text=self._text)
        live.update(self._spinner)

    def show(self, counts: Mapping[str, int], state: str = "starting") -> None:
        self._text.plain = printable(self._status.text(counts, state))


class _Status:
    """Puts counts into words, with the rate of the last seconds."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._began = time.monotonic()
        self._recent: deque[tuple[float, int]] = deque()

    def text(self, counts: Mapping[str, int], state: str = "starting") -> str:
        now = time.monotonic()
        elapsed = _duration(now - self._began)
        if not counts["items"]:
            return f"{self._name}: {state}, {elapsed}"
        rate = self._rate(now, counts["rows"] + counts["unchanged"])
        parts = [f"{counts['items']:,} items", f"{rate:,.0f} rows/s"]
        if counts["unchanged"]:
            parts.append(f"{counts['unchanged']:,} unchanged")
        parts.append(f"{counts['failures']:,} failed")
        return f"{self._name}: {', '.join(parts)}, {elapsed}"

    def _rate(self, now: float, rows: int) -> float:
        self._recent.append((now, rows))
        while len(self._recent) > 2 and self._recent[1][0] < now - _RATE_SECONDS:
            self._recent.popleft()
        began, before = self._recent[0]
        return (rows - before) / max(now - began, 1.0)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
