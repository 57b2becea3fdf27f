"""Progress: what the processes of a run count, as terminals, logs and notebooks show it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from contextframe_beam.connectors import shared_files
from contextframe_beam.connectors.read import runtime
from contextframe_beam.pipelines.logs import line
from contextframe_beam.pipelines.process import Settings, as_it_is, printable
from contextframe_beam.store import writer

if TYPE_CHECKING:
    from rich.live import Live

SECONDS_BETWEEN_LINES = 5.0
_RATE_SECONDS = 10.0
_LINE_EVERY = 1.0
_BAR_WIDTH = 24
# Before that, what is left cannot be told from what is done.
_LEFT_AFTER = 3.0
_LEFT_FROM = 0.02


@contextmanager
def progress(name: str = "run") -> Iterator[None]:
    """Shows the progress of a run that the block starts in this process, as in a notebook.

    Example:
        >>> with progress("docs"):
        ...     ingest(connector, "kb.lance")

    Args:
        name: What it is shown under.
    """
    with (
        scratch_folder(runtime.FOLDER_VARIABLE) as folder,
        display(name, False, Settings()) as shown,
        watching(shown, lambda: ("starting", runtime.totals(folder))),
    ):
        yield


@contextmanager
def scratch_folder(*names: str) -> Iterator[str]:
    """A folder that variables of the environment name until the block ends.

    Without names it is for everything that the processes of a local run write: their counts and
    notes, and Beam's temporary files.
    """
    folder = tempfile.mkdtemp(prefix="contextframe-")
    before_here = tempfile.tempdir
    named = dict.fromkeys(names, folder)
    if not names:
        own = (runtime.FOLDER_VARIABLE, writer.FOLDER_VARIABLE, "TMPDIR")
        # Budgets and tokens are shared with other runs and last longer than this one.
        shared = {shared_files.DIRECTORY_VARIABLE: shared_files.shared_path()}
        named = {**dict.fromkeys(own, folder), **shared}
        tempfile.tempdir = folder
    before = {name: os.environ.get(name) for name in named}
    os.environ.update(named)
    try:
        yield folder
    finally:
        tempfile.tempdir = before_here
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)


class Display(Protocol):
    """A display of counts."""

    def show(self, counts: Mapping[str, int], state: str = "starting") -> None:
        """Shows the newest counts since the run began, by the names that `runtime` counts.

        Args:
            counts: The counts.
            state: Shown while there are no counts.
        """


@contextmanager
def display(name: str, quiet: bool, settings: Settings) -> Iterator[Display]:
    """Returns the right display for the standard error.

    Args:
        name: The name of the source.
        quiet: Show nothing.
        settings: Decide how lines are written.
    """
    if quiet:
        yield _Nothing()
    elif _notebook() is not None:
        yield _InNotebook(name)
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
    """Shows the result of `look` every second while the block waits for something else.

    Args:
        shown: The display.
        look: Returns a state in a word, and the newest counts.
    """
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_LINE_EVERY):
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
    """Writes a line every few seconds, so that a scheduler's log shows that the run is alive."""

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
    """Updates one line in place, with a bar as soon as the size of the plan is known."""

    def __init__(self, name: str, live: Live) -> None:
        from rich.progress_bar import ProgressBar
        from rich.spinner import Spinner
        from rich.text import Text

        self._status = _Status(name)
        self._text = Text(self._status.text(_NOTHING_YET))
        self._bar: Any = ProgressBar(total=1.0, width=_BAR_WIDTH)
        self._spinner: Any = Spinner("dots")
        self._live = live
        self._show(None)

    def show(self, counts: Mapping[str, int], state: str = "starting") -> None:
        self._text.plain = printable(self._status.text(counts, state))
        self._show(share_of(counts))

    def _show(self, share: float | None) -> None:
        from rich.table import Table

        line = Table.grid(padding=(0, 1))
        if share is None:
            line.add_row(self._spinner, self._text)
        else:
            self._bar.update(share)
            line.add_row(self._spinner, self._bar, self._text)
        self._live.update(line)


class _InNotebook:
    """Updates a line below the cell that runs."""

    def __init__(self, name: str) -> None:
        self._status = _Status(name)
        self._handle: Any = None

    def show(self, counts: Mapping[str, int], state: str = "starting") -> None:
        shown: Any = import_module("IPython.display")
        text = shown.Pretty(self._status.text(counts, state))
        if self._handle is None:
            self._handle = shown.display(text, display_id=True)
        else:
            self._handle.update(text)


def _notebook() -> Any:
    """Returns the shell of the notebook that this process is the kernel of, or None."""
    shell = sys.modules.get("IPython")
    found = None if shell is None else shell.get_ipython()
    return found if found is not None and getattr(found, "kernel", None) is not None else None


def share_of(counts: Mapping[str, int]) -> float | None:
    """Returns how much of the plan is done, from 0 to 1; None if its size is not known."""
    planned = counts.get("planned", 0)
    return min(counts.get("finished", 0) / planned, 1.0) if planned > 1 else None


_NOTHING_YET = {"items": 0, "rows": 0, "unchanged": 0, "failures": 0}


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
        if texts := counts.get("texts"):  # engines do not tell
            parts.append("1 text embedded" if texts == 1 else f"{texts:,} texts embedded")
        parts.append(f"{counts['failures']:,} failed")
        if commits := counts.get("commits"):
            parts.append("1 commit" if commits == 1 else f"{commits:,} commits")
        parts.append(elapsed)
        share = share_of(counts)
        if share is not None:
            parts.insert(0, f"{share:.0%}")
            if left := self._left(now, share):
                parts.append(left)
        return f"{self._name}: {', '.join(parts)}"

    def _left(self, now: float, share: float) -> str:
        """Returns how long the rest takes if it goes on as until now; "" if that cannot be told."""
        passed = now - self._began
        if passed < _LEFT_AFTER or not _LEFT_FROM <= share < 1:
            return ""
        return f"about {_duration(passed * (1 - share) / share)} left"

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
