"""Live counts of the worker processes on this machine, for whoever started them.

A runner tells its metrics when it is done. Until then each process counts into a small file of
its own in a folder that the environment names, and the launcher adds the files up. Without that
folder counting does nothing.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from pathlib import Path

#: Names the folder, to the processes that a run starts.
FOLDER_VARIABLE = "CONTEXTFRAME_PROGRESS"

_FIELDS = ("items", "rows", "unchanged", "failures")
_LAYOUT = struct.Struct(f"<{len(_FIELDS)}q")


class _Counts:
    """This process's counts."""

    def __init__(self) -> None:
        self._file: mmap.mmap | None = None
        self._folder: str | None = None
        self._values = [0] * len(_FIELDS)
        # Some engines have several workers in one process.
        self._lock = threading.Lock()

    def add(self, items: int, rows: int, unchanged: int, failures: int) -> None:
        folder = os.environ.get(FOLDER_VARIABLE)
        with self._lock:
            if folder != self._folder:
                self._folder = folder
                self._values = [0] * len(_FIELDS)
                self._file = _open(folder) if folder else None
            if self._file is not None:
                for index, amount in enumerate((items, rows, unchanged, failures)):
                    self._values[index] += amount
                self._file[:] = _LAYOUT.pack(*self._values)


def _open(folder: str) -> mmap.mmap | None:
    path = Path(folder) / f"{os.getpid()}.counts"
    try:
        path.write_bytes(bytes(_LAYOUT.size))
        with path.open("r+b") as file:
            return mmap.mmap(file.fileno(), _LAYOUT.size)
    except OSError:  # the folder is gone, or is another machine's: nobody is watching
        return None


_COUNTS = _Counts()


def count(*, items: int = 0, rows: int = 0, unchanged: int = 0, failures: int = 0) -> None:
    """Adds to this process's counts."""
    _COUNTS.add(items, rows, unchanged, failures)


def totals(folder: str) -> dict[str, int]:
    """Returns the sums over all processes that count into `folder`."""
    sums = [0] * len(_FIELDS)
    for path in Path(folder).glob("*.counts"):
        try:
            values = _LAYOUT.unpack(path.read_bytes())
        except (OSError, struct.error):  # being made just now
            continue
        sums = [a + b for a, b in zip(sums, values, strict=True)]
    return dict(zip(_FIELDS, sums, strict=True))
