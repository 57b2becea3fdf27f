"""Measures the time of whole processes, and the memory of the largest process of each."""

from __future__ import annotations

import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SAMPLE_SECONDS = 0.05


@dataclass(frozen=True)
class Measurement:
    """One run of a command.

    Attributes:
        seconds: From its start to its end.
        cpu_seconds: Processor time of the process and of those it waited for.
        peak_mb: The largest resident size of any one of its processes.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float


def run(
    command: Sequence[str], env: dict[str, str] | None = None, cores: int | None = None
) -> Measurement:
    """Runs a command to its end.

    Args:
        command: The command.
        env: What its environment has beside ours.
        cores: How many cores all its threads together may use; all by default.

    Raises:
        RuntimeError: it failed; the message contains its output.
    """
    start = time.perf_counter()
    with _only(cores):
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            text=True,
        )
    with process:
        sampler = _PeakMemory(process.pid)
        sampler.start()
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        peak = sampler.stop()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{printed[-4000:]}")
    return Measurement(
        seconds,
        usage.ru_utime + usage.ru_stime,
        # What the system tells includes the size that this process had when it began the other.
        (peak or usage.ru_maxrss * 1024) / 1e6,
    )


@contextmanager
def _only(cores: int | None) -> Iterator[None]:
    """Lets the processes that begin in the block use so many cores."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def median(runs: Sequence[Measurement]) -> Measurement:
    """Returns the median of each figure."""
    return Measurement(
        statistics.median(run.seconds for run in runs),
        statistics.median(run.cpu_seconds for run in runs),
        max(run.peak_mb for run in runs),
    )


def in_turn(
    jobs: Mapping[str, Callable[[], Measurement]], rounds: int, before: Callable[[], object]
) -> dict[str, Measurement]:
    """Runs all jobs one after the other, `rounds` times, and returns the median of each.

    Args:
        jobs: The jobs, by name.
        rounds: How often each is run.
        before: Called before each run.
    """
    results: dict[str, list[Measurement]] = {name: [] for name in jobs}
    for number in range(rounds):
        for name, job in jobs.items():
            before()
            results[name].append(job())
            print(f"round {number + 1}: {name}: {results[name][-1].seconds:.2f} s", flush=True)
    return {name: median(runs) for name, runs in results.items()}


def print_medians(medians: Mapping[str, Measurement]) -> None:
    """Prints a table of the medians."""
    print(f"\n{'median of each':30} {'seconds':>9} {'CPU s':>9} {'peak MB a process':>18}")
    for name, figures in medians.items():
        print(
            f"{name:30} {figures.seconds:9.2f} {figures.cpu_seconds:9.2f} {figures.peak_mb:18.0f}"
        )


class _PeakMemory(threading.Thread):
    """Samples the peak resident size of a process and its descendants (Linux)."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._peak = 0.0
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            for pid in _family(self._pid):
                self._peak = max(self._peak, _peak_bytes(pid))

    def stop(self) -> float:
        self._ended.set()
        self.join()
        return self._peak


def _family(pid: int) -> list[int]:
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            pids = children.read_text().split()
        except OSError:
            continue
        for child in pids:
            found += _family(int(child))
    return found


def _peak_bytes(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) * 1024
    return 0.0
