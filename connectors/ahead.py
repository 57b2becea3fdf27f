"""Reads ahead: several threads read tasks in turns, and their results come in order.

A source reads pages ahead of the writer with it, and a client sends the requests of one page.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Generic, TypeVar

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
