"""What a process of ours sets up before all else: its streams, its signals, its settings."""

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

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# Of ASCII and Latin-1 all but tabs and line ends, and those of Unicode that end a line or turn its
# direction around.
_CONTROL = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069]"
)


class OutputError(Exception):
    """The standard output cannot be written.

    Args:
        reason: Why, as the system says it.
        is_closed: Whether its reader has seen enough, as `head` has.
    """

    def __init__(self, reason: str, is_closed: bool = False) -> None:
        super().__init__(f"the standard output cannot be written: {reason}")
        self.is_closed = is_closed


def printable(text: str) -> str:
    """Returns a text with its control characters written out, escape as u001b after a backslash.

    Tabs and line ends stay. JSON stays JSON of the same value.
    """
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str) -> str:
    """Returns a printable text without line ends."""
    return printable(" ".join(text.split("\n")))


@contextmanager
def harmless() -> Iterator[None]:
    """Writes out all control characters that are printed until the block ends."""
    before = sys.stdout, sys.stderr
    out, err = cast(TextIO, _Printable(sys.stdout)), cast(TextIO, _Printable(sys.stderr))
    sys.stdout, sys.stderr = out, err
    try:
        yield
    finally:
        # Others may have put a stream in their place, or given one up.
        if sys.stdout is out:
            sys.stdout = before[0]
        if sys.stderr is err:
            sys.stderr = before[1]


def as_it_is(stream: TextIO) -> TextIO:
    """Returns the stream for what colours its own text, and has to make other text printable."""
    while isinstance(stream, _Printable):
        stream = stream.stream
    return stream


def prepare() -> None:
    """Makes the standard streams of this process what the rest of the program takes for granted.

    It has to be called before a file is opened: one that is opened while a stream is closed gets
    that stream's number, and whatever is printed goes into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    sys.stdout = _text_file(_Output(1, "w", closefd=False), sys.stdout)
    sys.stderr = _text_file(_Lossy(2, "w", closefd=False), sys.stderr, line_buffering=True)


def prepare_worker() -> None:
    """Sends all that this process prints to the standard error, where it may be lost."""
    prepare()
    sys.stdout = sys.stderr


def give_up_output() -> None:
    """Sends what is still to be written to the standard output nowhere."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):
        return  # no file of the system's
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


class _Printable:
    """A stream that writes out control characters."""

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
        # Below the text there are only bytes, which nobody looks at.
        if name == "buffer":
            raise AttributeError(name)
        return getattr(self.stream, name)


class _Output(io.FileIO):
    """Tells an error of the standard output from that of another file."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            is_closed = error.errno == errno.EPIPE
            raise OutputError(error.strerror or str(error), is_closed) from error


class _Lossy(io.FileIO):
    """A file whose writer need not care whether it can be written."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            # None where the other end does not read just now.
            return super().write(data) or memoryview(data).nbytes
        except OSError:
            return memoryview(data).nbytes


def _text_file(
    raw: io.FileIO, before: TextIO | None, line_buffering: bool = False
) -> io.TextIOWrapper:
    """Returns the stream that takes the place of one of Python's.

    Args:
        raw: The file.
        before: Python's, which the environment says the encoding of; None where it was closed.
        line_buffering: Whether each line is written at once, as it is on a terminal anyway.
    """
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", None) or "utf-8",
        # A character that the encoding lacks, or half of one in the name of a file, ends no run.
        errors="backslashreplace",
        line_buffering=line_buffering or raw.isatty(),
    )


_THRESHOLD = (50_000, 50, 100)


def collect_seldom() -> None:
    """Lets the rest of this process collect garbage seldom; called before anything is imported."""
    gc.set_threshold(*_THRESHOLD)


class Interrupts:
    """What an interrupt of this process does.

    Until `postpone` is called it raises KeyboardInterrupt, as Python does; from then on it only
    sets `asked`, so that it cannot hit between a commit and the word about it.

    Attributes:
        asked: Set once somebody has asked this process to stop.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()
        self._postponed = False

    def install(self) -> None:
        """Takes over both signals of this process; an ignored one (nohup, `&`) stays ignored."""
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def postpone(self) -> None:
        """Makes interrupts only set `asked` from now on."""
        self._postponed = True

    def ignore(self) -> None:
        """Makes interrupts do nothing any more: all is done but for the end of the process."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.asked.set()
        if not self._postponed:
            raise KeyboardInterrupt


@dataclass
class Settings:
    """How a command behaves, whatever it does.

    Attributes:
        debug: Show tracebacks and everybody's log.
        verbose: Show what our own packages log at level INFO.
        json_logs: Write each line of the log as a JSON object.
        packages: Others whose warnings are shown: those that connectors are from.
        flags: The options of the command, by what Python calls them.
        interrupts: Tells who asked the process to stop.
        abandoned: What was under way was given up, and the process must end without waiting for
            its threads.
    """

    debug: bool = False
    verbose: bool = False
    json_logs: bool = False
    packages: list[str] = field(default_factory=list)
    flags: dict[str, str] = field(default_factory=dict)
    interrupts: Interrupts = field(default_factory=Interrupts)
    abandoned: bool = False
