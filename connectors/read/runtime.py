"""While a source is read: reads ahead of the writer, keeps live connectors, and counts."""

from __future__ import annotations

import mmap
import os
import pickle
import struct
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

from contextframe_beam.connectors.base import BaseConnector

_T = TypeVar("_T")
_R = TypeVar("_R")

# A task starts its next request while one of its results waits to be taken, but not with two.
_RESULTS_WAITING = 1


def read_ahead(
    tasks: Iterable[_T],
    read: Callable[[_T], Iterator[_R]],
    *,
    threads: int,
    ahead: int,
    key: Callable[[_T], Hashable],
    is_last: Callable[[_R], bool],
) -> Iterator[_R]:
    """Yields the results of all tasks, which several threads read in turns.

    The results of one task come in order, and so do those of tasks with the same key; otherwise
    they come when they are ready. The calling thread takes a task from `tasks` once there is room
    for it, and every started task is read to its end, unless something raises. Then no further
    steps start, and requests under way finish on their own.

    Args:
        tasks: What to read.
        read: Begins a task. Any of the threads may make each step of the iterator.
        threads: How many steps are made at once.
        ahead: How many tasks may be started but not fully taken by the consumer; at least
            `threads`. Each has at most two waiting results.
        key: Returns the group that a task belongs to.
        is_last: Returns whether a result is the last one of its task.

    Raises:
        BaseException: the first exception from `tasks` or `read`.
    """
    crew = _Crew(read, is_last, threads)
    active: deque[_Task[_T, _R]] = deque()
    source = iter(tasks)
    more = True
    try:
        while True:
            while more and len(active) < ahead:
                try:
                    argument = next(source)
                except StopIteration:
                    more = False
                else:
                    active.append(crew.begin(argument, key(argument)))
            if not active:
                return
            yield from crew.take(active)
    finally:
        crew.stop()


class _Task(Generic[_T, _R]):
    """One task, as far as it has been read."""

    __slots__ = ("argument", "done", "error", "is_resting", "key", "results", "steps", "taken")

    def __init__(self, argument: _T, key: Hashable) -> None:
        self.argument = argument
        self.key = key
        self.steps: Iterator[_R] | None = None
        self.results: deque[_R] = deque()
        self.taken = 0
        self.is_resting = False
        self.done = False
        self.error: BaseException | None = None


class _Crew(Generic[_T, _R]):
    """The threads, and the state that they share with the consumer."""

    def __init__(
        self, read: Callable[[_T], Iterator[_R]], is_last: Callable[[_R], bool], size: int
    ) -> None:
        self._read = read
        self._is_last = is_last
        self._size = size
        self._started = 0
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._ready = threading.Condition(self._lock)
        # In turns, so that no task waits for the end of another with many steps.
        self._turns: deque[_Task[_T, _R]] = deque()
        self._stopped = False

    def begin(self, argument: _T, key: Hashable) -> _Task[_T, _R]:
        task = _Task[_T, _R](argument, key)
        with self._lock:
            self._turns.append(task)
            self._work.notify()
        if self._started < self._size:
            self._started += 1
            name = f"read-ahead-{self._started}"
            # A daemon: Ctrl-C must not wait for a request that hangs.
            threading.Thread(target=self._run, name=name, daemon=True).start()
        return task

    def take(self, active: deque[_Task[_T, _R]]) -> list[_R]:
        """Waits until there is a result, and removes a task that is complete.

        Returns:
            The results of one task; empty if a task ended without results.

        Raises:
            BaseException: an exception from the reading of a task.
        """
        with self._lock:
            while (found := _next_ready(active)) is None:
                self._ready.wait()
            results = list(found.results)
            found.taken += len(results)
            found.results.clear()
            if found.done:
                active.remove(found)
            elif found.is_resting:
                found.is_resting = False
                self._turns.append(found)
                self._work.notify()
            return results

    def stop(self) -> None:
        """Makes the threads end after their current step."""
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        self._stopped = True
        self._turns.clear()
        self._work.notify_all()

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._turns and not self._stopped:
                    self._work.wait()
                if self._stopped:
                    return
                task = self._turns.popleft()
            result: list[_R] = []
            error: BaseException | None = None
            try:
                if task.steps is None:
                    task.steps = self._read(task.argument)
                result.append(next(task.steps))
            except StopIteration:
                pass
            except BaseException as raised:
                error = raised
            with self._lock:
                self._note(task, result, error)

    def _note(self, task: _Task[_T, _R], result: list[_R], error: BaseException | None) -> None:
        task.results.extend(result)
        task.error = error
        task.done = not result or self._is_last(result[0])
        self._ready.notify()
        if error is not None:
            self._stop()
        elif task.done or self._stopped:
            task.steps = None
        elif len(task.results) > _RESULTS_WAITING:
            task.is_resting = True
        else:
            self._turns.append(task)
            self._work.notify()


def _next_ready(active: Iterable[_Task[_T, _R]]) -> _Task[_T, _R] | None:
    """Returns the task to take from next: the one with the fewest results taken that is ready.

    Among tasks with the same key, only the first counts. If the first tasks always came first, a
    slow consumer would leave the others for the end, with too few to keep all threads busy.

    Raises:
        BaseException: an exception from the reading of a task.
    """
    found: _Task[_T, _R] | None = None
    before: set[Hashable] = set()
    for task in active:
        if task.error is not None:
            raise task.error
        if (
            (task.results or task.done)
            and task.key not in before
            and (found is None or task.taken < found.taken)
        ):
            found = task
        before.add(task.key)
    return found


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
        arguments = pickle.dumps(connector.__reduce__()[1][1:])
    except Exception:  # only Beam's pickler accepts the arguments; then it is not shared
        return id(connector)
    return kind, arguments


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

_FIELDS = ("items", "rows", "unchanged", "failures", "texts", "tokens")
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
) -> None:
    """Adds to this process's counts; texts are those that were embedded, with their tokens."""
    _COUNTS.add(items, rows, unchanged, failures, texts, tokens)


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
