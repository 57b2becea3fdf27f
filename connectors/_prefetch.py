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

# A task goes on to its next request while one of its results waits to be taken, not while two do.
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
    """Yields the results of all tasks, read by several threads that take turns with them.

    The results of one task come in their order, and so do those of tasks with the same key;
    otherwise they come as they are ready. Tasks are taken from `tasks` in the calling thread, no
    sooner than there is room for them, and a task that was taken is always read to its end, unless
    something raises. Then nothing more is started; requests under way are left to end by
    themselves.

    Args:
        tasks: What to read.
        read: Begins a task. Each step of the iterator is made in any of the threads.
        threads: How many steps are made at once.
        ahead: How many tasks may be begun and not yet fully taken by the consumer; at least
            `threads`. Results outside are at most two for each.
        key: Names what a task belongs to.
        is_last: Tells that a result is the last one of its task.

    Raises:
        BaseException: what `tasks` or `read` raised first.
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
    """The threads, and what they share with the consumer."""

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
        # In turn, so that one task of many steps does not wait for another to end.
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
        """Waits until there is something to take, and removes a task that is through.

        Returns:
            The results of one task; none when a task ended without any.

        Raises:
            BaseException: what the reading of a task raised.
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
        """Lets the threads end when they are through with the step that they are at."""
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
    """Returns the task to take from next: the least far of those that may be, and are, ready.

    Of tasks with the same key only the first may be. Else the tasks that were begun first would
    always be served first where the consumer is the slower one, and the others would be left over
    for the end, when there are too few of them to keep all threads busy.

    Raises:
        BaseException: what the reading of a task raised.
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
