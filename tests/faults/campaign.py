"""What happens to one dataset, drawn from a seed: runs that succeed, die, repeat and meet.

After each step the ledger checks every version that it made. A run that reported success must be
in the dataset, one that reported failure must not be, and one that was killed may be either.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.cli_helpers import start
from tests.faults.forks import Forks, Job, Outcome
from tests.faults.ledger import Ledger
from tests.faults.points import POINTS, WHEN
from tests.faults.world import SOURCES, World

_CONNECTOR = "tests.faults.simulated:Simulated"

#: How often a run comes to a point at most, as far as it matters.
_PASSAGES = {"page": 12, "rows": 12, "states": 2, "commit": 2, "receipt": 2}


@dataclass
class Tally:
    """What campaigns have seen.

    Attributes:
        kills: Processes that were killed while they ran, by their phase.
        outcomes: Runs by what became of them.
        rows: Rows compared.
        steps: Steps taken, by kind.
    """

    kills: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    versions: int = 0

    def add(self, other: Tally) -> None:
        """Adds what another campaign has seen."""
        self.kills += other.kills
        self.outcomes += other.outcomes
        self.steps += other.steps
        self.rows += other.rows
        self.versions += other.versions


class Campaign:
    """The life of one dataset under faults.

    Args:
        seed: Decides all of it, except at which instruction a clock's kill meets a process.
        folder: For the dataset and the world.
        forks: Runs its processes.
        kinds: The steps it may take, by name, with their weights.
        is_small_disk: Whether the folder is on a disk that may be filled up.
    """

    def __init__(
        self,
        seed: int,
        folder: Path,
        forks: Forks,
        kinds: dict[str, int] | None = None,
        is_small_disk: bool = False,
    ) -> None:
        folder.mkdir(parents=True)
        self.tally = Tally()
        self.story: list[str] = []
        self._seed = seed
        self._folder = folder
        self._forks = forks
        self._chance = random.Random(seed)
        self._world = World(folder / "world.sqlite", self._chance)
        self._dataset = folder / "kb.lance"
        self._ledger = Ledger(self._dataset, lambda source, n: self._world.readings[source, n])
        self._kinds = kinds or KINDS
        self._is_small_disk = is_small_disk
        self._runs = 0
        # About how long a run takes, so that a clock's kill meets it.
        self._seconds = 0.5

    def run(self, steps: int) -> Tally:
        """Takes so many steps.

        Raises:
            AssertionError: something was lost, doubled, half visible or wrongly reported; the
                message holds what happened and the command that does it again.
        """
        try:
            for number in range(steps):
                names, weights = list(self._kinds), list(self._kinds.values())
                # Housekeeping wants a dataset.
                kind = self._chance.choices(names, weights)[0] if number else self._first()
                self.story.append(f"{number}. {kind}")
                self.tally.steps[kind] += 1
                _STEPS[kind](self)
        except AssertionError as error:
            story = "\n  ".join(self.story)
            raise AssertionError(
                f"{error}\nseed {self._seed}:\n  {story}\n"
                f"again: python -m tests.faults --seed {self._seed} --steps {steps}"
            ) from error
        return self.tally

    def _first(self) -> str:
        return self._chance.choice(["succeed", "kill", "meet", "commit twice"])

    def succeed(self) -> None:
        """A run that nothing disturbs; sometimes with each bundle done twice."""
        self._evolve()
        more = ["--direct_runner_bundle_repeat=1"] if self._chance.random() < 0.3 else []
        self._succeed(self._job(self._source(), None, *more))

    def kill(self) -> None:
        """Runs that are killed, one after the other, and at last one that is not."""
        for _ in range(self._chance.randint(1, 4)):
            self._evolve()
            job = self._deadly(self._job(self._source()))
            (outcome,) = self._do(job)
            if outcome.killed and self._chance.random() < 0.4:
                # What a scheduler does: the same run once more.
                again = replace(self._job(_argument(job, "--source"), _argument(job, "--run-id")))
                self._do(self._deadly(again) if self._chance.random() < 0.5 else again)
        self._succeed(self._job(self._source()))

    def meet(self) -> None:
        """Runs at the same time: of one source or two, of one name or several, killed or not."""
        self._evolve()
        source, run_id = self._source(), self._name()
        jobs: list[Job] = []
        for _ in range(self._chance.randint(2, 3)):
            if self._chance.random() < 0.4:
                source = self._source()
            if self._chance.random() < 0.6:
                run_id = self._name()
            job = self._job(source, run_id)
            if self._chance.random() < 0.3:
                job = self._deadly(job)
            jobs.append(replace(job, begin=self._chance.uniform(0, self._seconds / 3)))
        self._do(*jobs)
        self._succeed(self._job(self._source()))

    def commit_twice(self) -> None:
        """Commit steps done by several threads of several processes, of one source or of both."""
        self._evolve()
        chosen = list(SOURCES) if self._chance.random() < 0.5 else [self._source()]
        committers = []
        for source in chosen:
            job = self._job(source)
            file = self._folder / f"{job.name}.commit"
            (outcome,) = self._do(replace(job, hand_over=str(file)))
            assert outcome.killed and file.exists(), f"nothing was handed over: {outcome}"
            committers += [
                replace(job, commit=str(file), threads=threads)
                for threads in self._chance.choice([[1, 1], [2], [2, 2], [1, 1, 1]])
            ]
        doomed = []
        if self._chance.random() < 0.4:
            doomed = [self._deadly(committers[0], ["files", "duplicates", "commit"])]
        self._do(*committers, *doomed)
        names = {job.name for job in committers}
        assert names & self._ledger.committed, "nobody committed a run"
        self._do(replace(committers[0], threads=1))

    def fill_disk(self) -> None:
        """A run that finds too little space, and one that finds enough."""
        self._evolve()
        job = self._job(self._source())
        size = round(100 * 500 ** self._chance.random())
        if self._is_small_disk:
            ballast = self._folder / "ballast"
            with open(ballast, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(1, self._free() - size))
            self._do(job)
            ballast.unlink()
        else:
            self._do(replace(job, file_limit=size))
        self._succeed(self._job(self._source()))

    def _free(self) -> int:
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize

    def keep_house(self) -> None:
        """A rollback, killed or not, and perhaps while a run is under way."""
        self._evolve()
        target = self._chance.randint(1, self._ledger.version)
        house = Job(
            f"rollback to {target}", ["rollback", str(self._dataset), "--to", str(target), "--json"]
        )
        if self._chance.random() < 0.5:
            house = replace(house, kill_after=self._chance.uniform(0.02, 0.25))
        jobs = [replace(house, begin=self._chance.uniform(0, self._seconds))]
        if self._chance.random() < 0.7:
            jobs.append(self._job(self._source()))
        self._do(*jobs)
        self._succeed(self._job(self._source()))

    def workers(self) -> None:
        """The true command with two workers, of which one or the launcher is killed."""
        self._evolve()
        job = self._job(self._source(), None, "--workers", "2")
        process = start(*job.arguments)
        time.sleep(self._chance.uniform(0.3, 3.5))
        workers = _children_of(process.pid)
        victim, who = process.pid, "launcher"
        if workers and self._chance.random() < 0.5:
            victim, who = self._chance.choice(workers), "worker"
        if process.poll() is None:
            os.kill(victim, signal.SIGKILL)
            self.tally.kills[f"two workers: {who}"] += 1
        out, err = process.communicate(timeout=120)
        _wait_for(workers)
        self._settle([job], [Outcome(process.returncode, "starting", 0.0, out, err)])
        self._succeed(self._job(self._source()))

    def _evolve(self) -> None:
        for source in SOURCES:
            if self._chance.random() < 0.6:
                self._world.evolve(source)

    def _source(self) -> str:
        return self._chance.choice(SOURCES)

    def _name(self) -> str:
        self._runs += 1
        return f"run-{self._runs}"

    def _job(self, source: str, run_id: str | None = None, *more: str) -> Job:
        run_id = run_id or self._name()
        arguments = [
            *("ingest", _CONNECTOR, "--world", str(self._world.path), "--source", source),
            *("--to", str(self._dataset), "--run-id", run_id, "--json", *more),
        ]
        if self._ledger.version == 0:
            arguments += ["--embed-dim", "4"]
        if self._chance.random() < 0.5:
            arguments.append("--numbered")
        return Job(run_id, arguments)

    def _deadly(self, job: Job, among: list[str] | None = None) -> Job:
        """Returns the job with the moment at which it is killed."""
        if among is None and self._chance.random() < 0.35:
            return replace(job, kill_after=self._chance.uniform(0.2, 1.1) * self._seconds)
        point = self._chance.choice(among or sorted(POINTS))
        return replace(
            job,
            point=point,
            when=self._chance.choice(WHEN),
            passage=self._chance.randint(1, _PASSAGES.get(point, 1)),
            # A commit takes some milliseconds, other steps longer.
            delay=self._chance.uniform(0, self._chance.choice([0.004, 0.03])),
        )

    def _succeed(self, job: Job) -> None:
        (outcome,) = self._do(job)
        assert outcome.code == 0, f"{job.name} failed: {outcome.err}"
        source = _argument(job, "--source")
        assert self._ledger.now.rounds[source] == self._world.round_of(source), "read too little"
        self._seconds += (outcome.seconds - self._seconds) / 4

    def _do(self, *jobs: Job) -> list[Outcome]:
        outcomes = self._forks.run(*jobs)
        for job, outcome in zip(jobs, outcomes, strict=True):
            if outcome.killed:
                house = "" if _argument(job, "--run-id") else "keeping house"
                self.tally.kills[house or outcome.phase] += 1
        self._settle(list(jobs), outcomes)
        return outcomes

    def _settle(self, jobs: list[Job], outcomes: list[Outcome]) -> None:
        """Compares what the processes said with what the dataset says."""
        before, version = set(self._ledger.committed), self._ledger.version
        for job, outcome in zip(jobs, outcomes, strict=True):
            self.story.append(_told(job, outcome))
        self._ledger.follow()
        for job, outcome in zip(jobs, outcomes, strict=True):
            assert outcome.code in (0, 1, -signal.SIGKILL), f"{outcome.code}: {outcome.err}"
            if not _argument(job, "--run-id"):
                continue
            run_id = _argument(job, "--run-id")
            there = run_id in self._ledger.committed
            if outcome.code == 0:
                assert there, f"{run_id} said that it is committed, and is not"
                self.tally.outcomes["success"] += 1
            elif outcome.code == 1:
                others = [one for one in jobs if _argument(one, "--run-id") == run_id]
                assert not there or len(others) > 1 or run_id in before, (
                    f"{run_id} said that it failed, and is committed: {outcome.err}"
                )
                self.tally.outcomes["failure reported"] += 1
            else:
                state = "after" if there else "before"
                self.tally.outcomes[f"killed, as {state} the run"] += 1
        self.tally.versions += self._ledger.version - version
        self.tally.rows += len(self._ledger.now.rows) * (self._ledger.version - version)


_STEPS: dict[str, Callable[[Campaign], None]] = {
    "succeed": Campaign.succeed,
    "kill": Campaign.kill,
    "meet": Campaign.meet,
    "commit twice": Campaign.commit_twice,
    "fill disk": Campaign.fill_disk,
    "keep house": Campaign.keep_house,
    "two workers": Campaign.workers,
}

#: How often each step is taken.
KINDS = {
    "succeed": 2,
    "kill": 10,
    "meet": 4,
    "commit twice": 3,
    "fill disk": 1,
    "keep house": 2,
    "two workers": 1,
}


def _argument(job: Job, option: str) -> str:
    """Returns the value of an option of a job, empty when it has none."""
    arguments = job.arguments
    return arguments[arguments.index(option) + 1] if option in arguments else ""


def _told(job: Job, outcome: Outcome) -> str:
    moment = f" {job.when} {job.point} {job.passage}" if job.point else ""
    end = f"killed while {outcome.phase}" if outcome.killed else f"exit {outcome.code}"
    last = (outcome.err.strip().splitlines() or [""])[-1]
    return f"   {job.name} {_argument(job, '--source')}{moment}: {end} {last}"


def _children_of(process: int) -> list[int]:
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in found.stdout.split()]


def _wait_for(processes: list[int]) -> None:
    """Waits until processes that are not ours have ended."""
    for process in processes:
        while Path(f"/proc/{process}").exists():
            time.sleep(0.02)


def fresh_seed() -> int:
    """Returns a seed that nobody has used."""
    return int.from_bytes(os.urandom(4), "big")


def print_tally(tally: Tally, seconds: float) -> None:
    """Prints what campaigns have seen."""
    sys.stdout.write(
        f"{tally.kills.total()} kills {dict(tally.kills)}\n"
        f"outcomes {dict(tally.outcomes)}\nsteps {dict(tally.steps)}\n"
        f"{tally.versions} versions and {tally.rows} rows compared in {seconds:.0f} s\n"
    )
