"""Decides what a command shows of its own log and of the logs of its worker processes.

Warnings of connectors are shown. Beam, Lance and the workers are quiet, except with `--debug`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from copy import copy
from typing import Any, TextIO, cast

from contextframe_beam.connectors.secrets import RedactingFilter, redact
from contextframe_beam.pipelines.job import in_flags
from contextframe_beam.pipelines.process import Settings, printable
from contextframe_beam.store.runs import COMMITS

#: The variable that tells the workers what to show.
_VARIABLE = "CONTEXTFRAME_LOG"

# Read when Lance and gRPC are imported, here and in the workers.
_QUIET = {"LANCE_LOG": "error", "GRPC_VERBOSITY": "ERROR"}

_OURS = "contextframe_beam"
_OF_A_FILE = "_contextframe_file_"


@contextmanager
def on_stderr(settings: Settings) -> Iterator[None]:
    """Logs to the standard error what `settings` asks for, until the block ends.

    It has to begin before Beam is imported, because Beam logs during its import.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    root = logging.getLogger()
    level = root.level
    handler = _StderrHandler(settings)
    handler.addFilter(_Shown(settings))
    handler.addFilter(RedactingFilter())
    root.addHandler(handler)
    tell_more(settings)
    # Beam logs the end of each job server, which comes after this block.
    logging.getLogger("apache_beam.utils.subprocess_server").setLevel(logging.ERROR)
    logging.captureWarnings(True)
    before, threading.excepthook = threading.excepthook, _end_of_thread
    try:
        yield
    finally:
        threading.excepthook = before
        logging.captureWarnings(False)
        root.removeHandler(handler)
        root.setLevel(level)


def tell_more(settings: Settings) -> None:
    """Applies `settings` that changed since; `on_stderr` undoes it."""
    if settings.debug or settings.verbose:
        logging.getLogger().setLevel(logging.INFO)


@contextmanager
def shared_with_workers(settings: Settings) -> Iterator[None]:
    """Makes worker processes that start in the block show what this process shows."""
    os.environ[_VARIABLE] = json.dumps(
        [settings.debug, settings.verbose, settings.json_logs, settings.packages]
    )
    try:
        yield
    finally:
        del os.environ[_VARIABLE]


@contextmanager
def of_launcher() -> Iterator[None]:
    """In a worker: shows what the launcher shows, or nothing if the launcher did not say."""
    told = os.environ.get(_VARIABLE)
    if told is None:
        logging.getLogger().addHandler(logging.NullHandler())
        yield
        return
    debug, verbose, json_logs, packages = json.loads(told)
    # With --debug, Beam's own records are in the launcher's log.
    settings = Settings(verbose=debug or verbose, json_logs=json_logs, packages=packages)
    if not debug:
        sys.stderr = _WithoutBeam(sys.stderr)
    with on_stderr(settings):
        if settings.verbose:
            # Beam sets the level of the root logger from its options.
            for package in (_OURS, *packages):
                logging.getLogger(package).setLevel(logging.INFO)
        yield


def line(settings: Settings, text: str, level: int = logging.INFO) -> str:
    """Returns a line for the standard error in the form of the log."""
    text = in_flags(text, settings.flags)
    if not settings.json_logs:
        return text
    told = {"name": _OURS, "levelno": level, "levelname": logging.getLevelName(level), "msg": text}
    return _json_of(logging.makeLogRecord(told))


def _json_of(record: logging.LogRecord) -> str:
    from contextframe_beam.connectors.http.request import JsonFormatter

    return JsonFormatter().format(record)


@contextmanager
def without_beam(settings: Settings) -> Iterator[None]:
    """Hides what Beam's workers print to the standard error, except with `--debug`.

    Some engines have their workers in the launcher's process.
    """
    with ExitStack() as stack:
        if not settings.debug:
            stack.enter_context(redirect_stderr(cast(TextIO, _WithoutBeam(sys.stderr))))
        yield


def show_traceback(error: BaseException) -> None:
    """Writes an exception's traceback to the standard error, without secrets."""
    sys.stderr.write(redact("".join(traceback.format_exception(error))))


class _StderrHandler(logging.Handler):
    """Writes to the current standard error, because a live display replaces it."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        self._text = logging.Formatter("%(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        told = copy(record)
        told.msg, told.args = in_flags(record.getMessage(), self._settings.flags), ()
        # A live display would interpret colours and links.
        return _json_of(told) if self._settings.json_logs else printable(self._text.format(told))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


class _WithoutBeam:
    """The standard error without Beam's prints, which Beam also sends to the launcher."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        writer = sys._getframe(1).f_globals.get("__name__", "")
        if writer.startswith("apache_beam."):
            return len(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _end_of_thread(ended: threading.ExceptHookArgs) -> None:
    """Logs the exception that ended a thread; Beam's threads end so when a worker process ends."""
    name = ended.thread.name if ended.thread else "?"
    beams = ended.exc_type.__module__.partition(".")[0] == "grpc"
    logging.getLogger("apache_beam" if beams else _OURS).error(
        "the thread %s ended", name, exc_info=ended.exc_value
    )


class _Shown(logging.Filter):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def filter(self, record: logging.LogRecord) -> bool:
        if self._settings.debug:
            return True
        if record.name == COMMITS:
            return False  # said with the receipt
        if record.levelno < (logging.INFO if self._settings.verbose else logging.WARNING):
            return False
        package = record.name.partition(".")[0]
        return (
            package == _OURS
            or package.startswith(_OF_A_FILE)
            or (package in self._settings.packages)
        )
