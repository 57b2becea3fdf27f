"""The standard streams of a process, none of which can undo what was done.

A terminal is closed, a disk is full, a reader has seen enough, or a program is started without
streams at all. What cannot be said on the standard error is lost and nothing else. What cannot be
written to the standard output is an `OutputError`, so that nobody mistakes it for a file's.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class OutputError(Exception):
    """The standard output cannot be written.

    Args:
        reason: Why, as the system says it.
        is_closed: Whether its reader has seen enough, as `head` has.
    """

    def __init__(self, reason: str, is_closed: bool = False) -> None:
        super().__init__(f"the standard output cannot be written: {reason}")
        self.is_closed = is_closed


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
