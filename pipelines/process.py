"""What our processes set up first: their streams, signals and settings."""

from __future__ import annotations

import errno
import gc
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO, cast

from contextframe_beam.errors import CommitError
from contextframe_beam.lazy import left_out

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# The control characters of ASCII and Latin-1 except tabs and line ends, and those of Unicode that
# end a line or reverse its direction.
_CONTROL = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069]"
)


#: The exit codes of commands: done, failed with nothing committed, wrong usage, and, where that is
#: asked for, committed and not complete.
DONE, FAILED, WRONG_USAGE, INCOMPLETE = 0, 1, 2, 3


class OutputError(Exception):
    """The standard output cannot be written.

    Args:
        reason: Why, in the system's words.
        is_closed: Whether its reader closed it, as `head` does.
    """

    def __init__(self, reason: str, is_closed: bool = False) -> None:
        super().__init__(f"the standard output cannot be written: {reason}")
        self.is_closed = is_closed


def printable(text: str) -> str:
    """Returns a text with its control characters written out, escape as u001b after a backslash.

    Tabs and line ends stay. JSON stays JSON with the same value.
    """
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str) -> str:
    """Returns a printable text without line ends."""
    return printable(" ".join(text.split("\n")))


@contextmanager
def harmless() -> Iterator[None]:
    """Makes printed control characters visible until the block ends."""
    before = sys.stdout, sys.stderr
    out, err = cast(TextIO, _Printable(sys.stdout)), cast(TextIO, _Printable(sys.stderr))
    sys.stdout, sys.stderr = out, err
    try:
        yield
    finally:
        # Other code may have replaced a stream, or closed it.
        if sys.stdout is out:
            sys.stdout = before[0]
        if sys.stderr is err:
            sys.stderr = before[1]


def as_it_is(stream: TextIO) -> TextIO:
    """Returns the raw stream, for callers that colour text and make it printable themselves."""
    while isinstance(stream, _Printable):
        stream = stream.stream
    return stream


def prepare() -> None:
    """Prepares the standard streams of this process for the rest of the program.

    Call it before any file is opened. If a stream is closed, the next opened file gets its number,
    and printed text would go into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # It gets the lowest free number, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    sys.stdout = _text_file(_Output(1, "w", closefd=False), sys.stdout)
    sys.stderr = _text_file(_Lossy(2, "w", closefd=False), sys.stderr, line_buffering=True)


def import_beam() -> None:
    """Imports Beam for a command of ours, without its sources for MongoDB and BigQuery.

    Nothing here reads with these, and their libraries are a tenth of the start of a run. What is
    left out can still be imported by its own name.
    """
    if "apache_beam" not in sys.modules:
        with left_out("bson", "apache_beam.io.gcp.bigquery"):
            import apache_beam  # noqa: F401


def prepare_worker() -> None:
    """Sends all output of this process to the standard error, where it may be lost."""
    prepare()
    sys.stdout = sys.stderr


def give_up_output() -> None:
    """Discards what is still to be written to the standard output."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):
        return  # not a file of the system
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


class _Printable:
    """A stream that makes control characters visible."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"expected text, not {type(text).__name__}")
        self.stream.write(printable(text))
        return len(text)

    def writelines(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        # Below the text there are only bytes, which need no change.
        if name == "buffer":
            raise AttributeError(name)
        return getattr(self.stream, name)


class _Output(io.FileIO):
    """Distinguishes an error of the standard output from an error of another file."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            is_closed = error.errno == errno.EPIPE
            raise OutputError(error.strerror or str(error), is_closed) from error


class _Lossy(io.FileIO):
    """A file that ignores errors of writing."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            # None if the other end is not reading at the moment.
            return super().write(data) or memoryview(data).nbytes
        except OSError:
            return memoryview(data).nbytes


def _text_file(
    raw: io.FileIO, before: TextIO | None, line_buffering: bool = False
) -> io.TextIOWrapper:
    """Returns the stream that replaces one of Python's.

    Args:
        raw: The file.
        before: Python's stream, with the encoding from the environment; None if it was closed.
        line_buffering: Whether each line is written at once, as on a terminal.
    """
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", None) or "utf-8",
        # A character that the encoding lacks, or half of one in a file name, must not end a run.
        errors="backslashreplace",
        line_buffering=line_buffering or raw.isatty(),
    )


_THRESHOLD = (50_000, 50, 100)


def collect_seldom() -> None:
    """Makes this process collect garbage seldom; called before the imports."""
    gc.set_threshold(*_THRESHOLD)


class Interrupts:
    """How this process handles interrupts.

    Before `postpone`, an interrupt raises KeyboardInterrupt, as in Python. After it, an interrupt
    only sets `asked`, so that it cannot fall between a commit and the message about it.

    Attributes:
        asked: Set when somebody asks this process to stop.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()
        self._postponed = False

    def install(self) -> None:
        """Handles both signals of this process; an ignored one (nohup, `&`) stays ignored."""
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def postpone(self) -> None:
        """Makes interrupts only set `asked` from now on."""
        self._postponed = True

    def ignore(self) -> None:
        """Makes interrupts do nothing: everything is done, and the process is about to end."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.asked.set()
        if not self._postponed:
            raise KeyboardInterrupt


class InterruptedRunError(CommitError):
    """Somebody stopped the run before it was committed."""


@dataclass
class Settings:
    """How a command behaves.

    Attributes:
        debug: Show tracebacks and all logs.
        verbose: Show our own packages' log at level INFO.
        json_logs: Write each line of the log as a JSON object.
        packages: Other packages whose warnings are shown: those of connectors.
        flags: The options of the command, by their names in Python.
        interrupts: How the process handles interrupts.
        abandoned: Whether the run was abandoned, so that the process must end without waiting for
            its threads.
    """

    debug: bool = False
    verbose: bool = False
    json_logs: bool = False
    packages: list[str] = field(default_factory=list)
    flags: dict[str, str] = field(default_factory=dict)
    interrupts: Interrupts = field(default_factory=Interrupts)
    abandoned: bool = False
