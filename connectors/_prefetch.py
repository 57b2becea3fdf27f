"""Reading ahead: several tasks that wait for a network run at once, while their results are used.

Beam gives a worker one bundle at a time, so a source that answers in 50 ms would keep it waiting
most of the time. Here a few threads fetch ahead of the consumer, who takes the results one after
the other. How much they may hold is bounded.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Generic, TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")

# One result that waits to be taken keeps the next request of its task going.
_RESULTS_WAITING = 1


def read_ahead(
    tasks: Iterable[_T],
    read: Callable[[_T], Iterable[_R]],
    *,
    threads: int,
    ahead: int,
    key: Callable[[_T], Hashable],
) -> Iterator[_R]:
    """Yields the results of all tasks, read by several threads.

    The results of one task come in their order, and so do those of tasks with the same key;
    otherwise they come as they are ready. Tasks are taken from `tasks` in the calling thread, no
    sooner than there is room for them, and a task that was taken is always read to its end, unless
    something raises. Then nothing more is started; requests under way are left to end by
    themselves.

    Args:
        tasks: What to read.
        read: Gives the results of one task; called in a thread.
        threads: How many tasks are read at once.
        ahead: How many tasks may be begun and not yet fully taken by the consumer; at least
            `threads`. Results outside are at most two for each.
        key: Names what a task belongs to.

    Raises:
        BaseException: what `tasks` or `read` raised first.
    """
    queue = _Queue(read)
    active: deque[_Task[_T, _R]] = deque()
    source = iter(tasks)
    running = 0
    more = True
    try:
        while True:
            while more and len(active) < ahead:
                try:
                    task = _Task[_T, _R](next(source), None)
                except StopIteration:
                    more = False
                    break
                task.key = key(task.argument)
                active.append(task)
                queue.put(task)
                if running < threads:
                    running += 1
                    threading.Thread(
                        target=queue.work, name=f"read-ahead-{running}", daemon=True
                    ).start()
            if not active:
                return
            for result in queue.take(active):
                yield result
    finally:
        queue.close()


class _Task(Generic[_T, _R]):
    """One task, as far as it has been read."""

    __slots__ = ("argument", "done", "error", "key", "results")

    def __init__(self, argument: _T, key: Hashable) -> None:
        self.argument = argument
        self.key = key
        self.results: deque[_R] = deque()
        self.done = False
        self.error: BaseException | None = None


class _Queue(Generic[_T, _R]):
    """What the threads and the consumer share."""

    def __init__(self, read: Callable[[_T], Iterable[_R]]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._ready = threading.Condition(self._lock)
        self._waiting: deque[_Task[_T, _R]] = deque()
        self._closed = False

    def put(self, task: _Task[_T, _R]) -> None:
        with self._lock:
            self._waiting.append(task)
            self._work.notify()

    def take(self, active: deque[_Task[_T, _R]]) -> list[_R]:
        """Waits until there is something to take, and removes tasks that are through.

        Returns:
            The results of one task; none when a task ended without any.
        """
        with self._lock:
            while True:
                found = _first_ready(active)
                if found is not None:
                    break
                self._ready.wait()
            results = list(found.results)
            found.results.clear()
            if found.done:
                active.remove(found)
            self._room.notify_all()
            return results

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._waiting.clear()
            self._work.notify_all()
            self._room.notify_all()

    def work(self) -> None:
        """Reads tasks until there are no more; the body of each thread."""
        while True:
            with self._lock:
                while not self._waiting and not self._closed:
                    self._work.wait()
                if self._closed:
                    return
                task = self._waiting.popleft()
            try:
                for result in self._read(task.argument):
                    if not self._hand_over(task, result):
                        return
            except BaseException as error:
                task.error = error
            with self._lock:
                task.done = True
                self._ready.notify()

    def _hand_over(self, task: _Task[_T, _R], result: _R) -> bool:
        with self._lock:
            while len(task.results) >= _RESULTS_WAITING and not self._closed:
                self._room.wait()
            task.results.append(result)
            self._ready.notify()
            return not self._closed


def _first_ready(active: Iterable[_Task[_T, _R]]) -> _Task[_T, _R] | None:
    """Returns the first task that has something to take and none of its key before it.

    Raises:
        BaseException: what the reading of a task raised.
    """
    found: _Task[_T, _R] | None = None
    before: set[Hashable] = set()
    for task in active:
        if task.error is not None:
            raise task.error
        if found is None and (task.results or task.done) and task.key not in before:
            found = task
        before.add(task.key)
    return found
