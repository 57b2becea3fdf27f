"""While a source is read: keeps live connectors, and counts."""

from __future__ import annotations

import mmap
import os
import pickle
import struct
import threading
from pathlib import Path
from typing import Any

from contextframe_beam.connectors.base import BaseConnector

_LOCAL = threading.local()


def live_connector(connector: BaseConnector) -> BaseConnector:
    """Returns this thread's authenticated connector of the same class and arguments.

    Raises:
        ConnectorError: the source refuses, or `authenticate` returns False.
    """
    known: dict[Any, BaseConnector] = vars(_LOCAL).setdefault("connectors", {})
    key = _key_of(connector)
    live = known.get(key)
    if live is None:
        connector.ensure_authenticated()
        live = known[key] = connector
    return live


def _key_of(connector: BaseConnector) -> Any:
    kind = type(connector)
    try:
        _, arguments, *state = connector.__reduce__()
        made_of = pickle.dumps((arguments[1:], state))
    except Exception:  # only Beam's pickler accepts the arguments; then it is not shared
        return id(connector)
    return kind, made_of, _here()


def _here() -> str:
    """Returns the folder that relative paths begin at, since a notebook may move elsewhere."""
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


NAMESPACE = "contextframe"

PAGES = "pages"
ITEMS = "items"
FAILURES = "failures"
ROWS = "rows"
ROWS_UNCHANGED = "rows_unchanged"
BYTES_READ = "bytes_read"
BYTES_WRITTEN = "bytes_written"
HTTP_REQUESTS = "http_requests"
HTTP_RETRIES = "http_retries"
HTTP_WAIT_MS = "http_wait_ms"
FETCH_MS = "fetch_ms"


#: Names the folder for the processes that a run starts.
FOLDER_VARIABLE = "CONTEXTFRAME_PROGRESS"

_FIELDS = (
    "items",
    "rows",
    "unchanged",
    "failures",
    "texts",
    "tokens",
    "planned",
    "finished",
    "commits",
)
_LAYOUT = struct.Struct(f"<{len(_FIELDS)}q")


class _Counts:
    """This process's counts."""

    def __init__(self) -> None:
        self._file: mmap.mmap | None = None
        self._folder: str | None = None
        self._values = [0] * len(_FIELDS)
        # Some engines have several workers in one process.
        self._lock = threading.Lock()

    def add(self, *amounts: int) -> None:
        folder = os.environ.get(FOLDER_VARIABLE)
        with self._lock:
            if folder != self._folder:
                self._folder = folder
                self._values = [0] * len(_FIELDS)
                self._file = _open(folder) if folder else None
            if self._file is not None:
                for index, amount in enumerate(amounts):
                    self._values[index] += amount
                self._file[:] = _LAYOUT.pack(*self._values)


def _open(folder: str) -> mmap.mmap | None:
    path = Path(folder) / f"{os.getpid()}.counts"
    try:
        path.write_bytes(bytes(_LAYOUT.size))
        with path.open("r+b") as file:
            return mmap.mmap(file.fileno(), _LAYOUT.size)
    except OSError:  # the folder is gone, or on another machine: nobody is watching
        return None


_COUNTS = _Counts()


def count(
    *,
    items: int = 0,
    rows: int = 0,
    unchanged: int = 0,
    failures: int = 0,
    texts: int = 0,
    tokens: int = 0,
    planned: int = 0,
    finished: int = 0,
    commits: int = 0,
) -> None:
    """Adds to this process's counts.

    Texts are those that were embedded, with their tokens. Blocks of the plan are planned and
    finished. Commits are those of a run that commits as it goes on.
    """
    _COUNTS.add(items, rows, unchanged, failures, texts, tokens, planned, finished, commits)


def counted(name: str) -> int:
    """Returns what all processes of a run on this machine counted; 0 where nobody watches it."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return totals(folder)[name] if folder else 0


def totals(folder: str) -> dict[str, int]:
    """Returns the sums over all processes that count into `folder`."""
    sums = [0] * len(_FIELDS)
    for path in Path(folder).glob("*.counts"):
        try:
            values = _LAYOUT.unpack(path.read_bytes())
        except (OSError, struct.error):  # it is just being made
            continue
        sums = [a + b for a, b in zip(sums, values, strict=True)]
    return dict(zip(_FIELDS, sums, strict=True))
