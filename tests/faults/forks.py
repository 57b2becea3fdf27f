"""Runs in processes that take no time to start: one that has imported everything forks for each.

`Forks` talks to that process. It has not used Lance or Beam when it forks, so no thread of theirs
is lost. Each run is the command line's own code in a process of its own, killed with SIGKILL.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import mmap
import os
import pickle
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.faults import points
from tests.support.cli_helpers import environment
from tests.support.forked import import_all

_LOOK_EVERY = 0.002

# What these runs import besides what others do.
_IMPORTED = (
    "contextframe_beam.store.upkeep",
    "contextframe_beam.pipelines.compact",
    "tests.faults.simulated",
)


@dataclass(frozen=True)
class Job:
    """A process to be forked.

    Attributes:
        name: What it is called in the story of a seed.
        arguments: Of the command line; or empty, and `commit` says what is committed.
        commit: A file that `hand_over` left, committed by each of `threads` threads at once.
        threads: See `commit`.
        hand_over: A file for what would be committed; the process then dies.
        begin: Seconds after the first job of its group.
        kill_after: Seconds after its own begin at which it is killed; None for never.
        point: The point at which it is killed; empty for none.
        when: before, during or after the point.
        passage: At which time that it comes there.
        delay: Seconds between coming to the point and being killed, for "during".
        file_limit: The size that its files cannot pass; None for no limit.
    """

    name: str
    arguments: list[str] = field(default_factory=list)
    commit: str = ""
    threads: int = 1
    hand_over: str = ""
    begin: float = 0.0
    kill_after: float | None = None
    point: str = ""
    when: str = "before"
    passage: int = 1
    delay: float = 0.0
    file_limit: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        code: Its exit code; -9 when it was killed.
        phase: How far it was when it ended.
        seconds: How long it ran.
        out: What it wrote.
        err: What it complained about.
    """

    code: int
    phase: str
    seconds: float
    out: str
    err: str

    @property
    def killed(self) -> bool:
        """Whether it was killed while it ran."""
        return self.code == -signal.SIGKILL and self.phase != "ended"


class Forks:
    """The process that forks.

    Args:
        folder: For temporary files.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(TMPDIR=str(folder), PYTHONWARNINGS="ignore"),
        )

    def run(self, *jobs: Job) -> list[Outcome]:
        """Runs jobs at the same time and waits for all of them."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([asdict(job) for job in jobs]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the process that forks has died"
        return [Outcome(**one) for one in json.loads(line)]

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve() -> None:
    """Forks for each line of jobs on the standard input, and answers with their outcomes."""
    import_all()
    for module in _IMPORTED:
        importlib.import_module(module)
    for line in sys.stdin:
        outcomes = _run_group([Job(**one) for one in json.loads(line)])
        sys.stdout.write(json.dumps([asdict(one) for one in outcomes]) + "\n")
        sys.stdout.flush()


class _Pipe:
    """What a process writes; not a file, because a limit on its files must not silence it."""

    def __init__(self) -> None:
        self._read, self.write = os.pipe()
        os.set_blocking(self._read, False)
        self._parts: list[bytes] = []

    def drain(self) -> None:
        """Takes what is there, so that the process can write on."""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._read, 65536):
                self._parts.append(part)

    def close(self) -> str:
        """Returns all that was written."""
        self.drain()
        os.close(self._read)
        return b"".join(self._parts).decode(errors="replace")


@dataclass
class _Child:
    job: Job
    progress: points.Progress
    out: _Pipe = field(default_factory=_Pipe)
    err: _Pipe = field(default_factory=_Pipe)
    pid: int = 0
    began: float = 0.0
    outcome: Outcome | None = None


def _run_group(jobs: list[Job]) -> list[Outcome]:
    began = time.monotonic()
    children = [_Child(job, points.Progress(mmap.mmap(-1, 1))) for job in jobs]
    while any(child.outcome is None for child in children):
        for child in children:
            if not child.pid and time.monotonic() - began >= child.job.begin:
                _fork(child)
            elif child.pid and child.outcome is None:
                child.out.drain()
                child.err.drain()
                pid, status = os.waitpid(child.pid, os.WNOHANG)
                if pid:
                    child.outcome = _outcome_of(child, os.waitstatus_to_exitcode(status))
        time.sleep(_LOOK_EVERY)
    return [child.outcome for child in children if child.outcome is not None]


def _outcome_of(child: _Child, code: int) -> Outcome:
    seconds = time.monotonic() - child.began
    return Outcome(code, child.progress.phase, seconds, child.out.close(), child.err.close())


def _fork(child: _Child) -> None:
    child.began = time.monotonic()
    child.pid = os.fork()
    if child.pid:
        os.close(child.out.write)
        os.close(child.err.write)
        return
    code = 99
    try:
        code = _in_child(child)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        child.progress.enter("ended")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _in_child(child: _Child) -> int:
    job = child.job
    os.setsid()
    os.dup2(child.out.write, 1)
    os.dup2(child.err.write, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    points.install(child.progress, job.point, job.when, job.passage, _killer(job))
    if job.hand_over:
        points.hand_over_commit(job.hand_over)
    if job.file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job.file_limit, job.file_limit))
    if job.commit:
        return _commit(job)
    from contextframe_beam.pipelines.cli.main import run

    return run(job.arguments)


def _commit(job: Job) -> int:
    """Commits what another process handed over, in several threads at once."""
    from contextframe_beam.errors import ContextFrameError
    from contextframe_beam.transforms import write

    sink: Any = write
    arguments = pickle.loads(Path(job.commit).read_bytes())
    together = threading.Barrier(job.threads)
    codes = [99] * job.threads

    def commit(number: int) -> None:
        together.wait()
        try:
            sys.stdout.write(f"{sink.commit_run(*arguments)}\n")
            codes[number] = 0
        except ContextFrameError as error:
            sys.stderr.write(f"{error}\n")
            codes[number] = 1

    threads = [threading.Thread(target=commit, args=[number]) for number in range(job.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(codes)


def _killer(job: Job) -> Any:
    """Forks what kills this process: some time from now, or some time after it is told to."""
    told, tell = os.pipe()
    if job.kill_after is None and job.when != "during":
        return lambda: None
    victim = os.getpid()
    if os.fork() == 0:
        os.close(tell)
        # It reads the end of the pipe, and not a byte, when the process has ended by itself.
        ready, _, _ = select.select([told], [], [], job.kill_after)
        if ready and not os.read(told, 1):
            os._exit(0)
        if ready:
            time.sleep(job.delay)
        if os.getppid() == victim:
            os.kill(victim, signal.SIGKILL)
        os._exit(0)
    os.close(told)
    return lambda: os.write(tell, b"!")


if __name__ == "__main__":
    serve()
