"""Where a run can be killed: real functions of ours and of Lance, wrapped in the process to die.

The functions do what they always do. The wrapper notes how far the process is, where whoever
kills it can see that, and kills it when it comes to the point that was asked for.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

#: How far a process is, in order.
PHASES = (
    "starting",
    "planning",
    "reading",
    "writing",
    "deciding",
    "committing",
    "tidying up",
    "reporting",
    "rewriting",
    "reindexing",
    "removing",
    "ended",
)


@dataclass(frozen=True)
class Point:
    """A function at which a process can be killed.

    Attributes:
        module: Its module.
        name: Its name in the module.
        phase: What the process is in once it calls it.
        afterwards: What it is in when it returned; None leaves it as it is.
    """

    module: str
    name: str
    phase: str
    afterwards: str | None = None


_COMMIT = "contextframe_beam.transforms.commit"
_COMPACT = "contextframe_beam.pipelines.compact"
_SIMULATED = "tests.faults.simulated"

POINTS = {
    "plan": Point(_SIMULATED, "Simulated.partitions", "planning", "reading"),
    "page": Point(_SIMULATED, "Simulated.fetch_page", "reading"),
    "rows": Point("contextframe_beam.store.writer", "FragmentWriter.add", "writing"),
    "fragment": Point("contextframe_beam.store.writer", "FragmentWriter.close", "writing"),
    "decide": Point("contextframe_beam.transforms.write", "commit_run", "deciding", "reporting"),
    "files": Point(_COMMIT, "check_files", "deciding"),
    "duplicates": Point(_COMMIT, "drop_duplicates", "deciding"),
    "removal": Point(_COMMIT, "remove_rows", "deciding"),
    "states": Point(_COMMIT, "write_rows", "deciding"),
    "commit": Point("lance", "LanceDataset.commit", "committing", "tidying up"),
    "tidy": Point(_COMMIT, "delete_files", "tidying up"),
    "receipt": Point("contextframe_beam.pipelines.ingest", "committed_receipt", "starting"),
    "task": Point(_COMPACT, "_TaskDoFn.process", "rewriting"),
    "indices": Point(_COMPACT, "update_indices", "reindexing"),
    # What Lance commits by itself: a compaction and the numbers for it, and indices.
    "own commit": Point("contextframe_beam.store.upkeep", "changing", "committing", "reporting"),
    "text index": Point(
        "contextframe_beam.store.text_index", "changing", "committing", "reporting"
    ),
    "index files": Point("lance", "LanceDataset.create_scalar_index", "reindexing"),
    "lost files": Point("contextframe_beam.store.upkeep", "_delete", "removing"),
    "old versions": Point("lance", "LanceDataset.cleanup_old_versions", "removing", "reporting"),
}

#: Where housekeeping comes to, by its command.
OF_HOUSEKEEPING = {
    "compact": ["task", "indices", "own commit", "own commit", "own commit"],
    "cleanup": ["lost files", "old versions"],
    "index": ["text index", "text index", "index files", "indices"],
    "rollback": ["commit"],
    "state": ["commit"],
}

#: Where runs come to.
OF_RUNS = sorted(
    POINTS.keys() - {name for of in OF_HOUSEKEEPING.values() for name in of} | {"commit"}
)

WHEN = ("before", "during", "after")


class Progress:
    """How far a process is, in one byte that another process sees.

    Args:
        memory: Shared by both.
    """

    def __init__(self, memory: Any) -> None:
        self._memory = memory

    @property
    def phase(self) -> str:
        """The phase that the process is in, or was in when it ended."""
        return PHASES[self._memory[0]]

    def enter(self, phase: str) -> None:
        """Notes a phase; what reads and writes does so also later, which tells nothing."""
        number = PHASES.index(phase)
        if number > PHASES.index("writing") or number > self._memory[0]:
            self._memory[0] = number


def install(
    progress: Progress, point: str, when: str, passage: int, kill: Callable[[], Any]
) -> None:
    """Wraps all points in this process.

    Args:
        progress: Where phases are noted.
        point: The point to kill at; empty for none.
        when: before, during or after it.
        passage: At which time that the process comes there, from 1.
        kill: Called for "during", before the function itself; whoever it tells kills a little
            later.
    """
    passed = 0
    lock = threading.Lock()

    def is_due(name: str) -> bool:
        nonlocal passed
        with lock:
            passed += name == point
            return name == point and passed == passage

    for name, one in POINTS.items():
        owner: Any = importlib.import_module(one.module)
        *path, last = one.name.split(".")
        for part in path:
            owner = getattr(owner, part)
        static = isinstance(vars(owner).get(last), staticmethod)
        wrapped = _wrapped(getattr(owner, last), name, one, progress, is_due, when, kill)
        setattr(owner, last, staticmethod(wrapped) if static else wrapped)


def _wrapped(
    real: Callable[..., Any],
    name: str,
    point: Point,
    progress: Progress,
    is_due: Callable[[str], bool],
    when: str,
    kill: Callable[[], Any],
) -> Callable[..., Any]:
    @wraps(real)
    def call(*args: Any, **kwargs: Any) -> Any:
        due = is_due(name)
        progress.enter(point.phase)
        if due and when == "before":
            kill_this_process()
        if due and when == "during":
            kill()
        result = real(*args, **kwargs)
        if point.afterwards is not None:
            progress.enter(point.afterwards)
        if due and when == "after":
            kill_this_process()
        return result

    return call


def kill_this_process() -> None:
    """Kills the process as the kernel would when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def hand_over_commit(file: str) -> None:
    """Makes this process write down what it would commit, and die instead of committing it."""
    sink: Any = importlib.import_module("contextframe_beam.transforms.write")

    def keep(*args: Any) -> None:
        with open(f"{file}.part", "wb") as output:
            pickle.dump(args, output)
        os.replace(f"{file}.part", file)
        kill_this_process()

    sink.commit_run = keep
