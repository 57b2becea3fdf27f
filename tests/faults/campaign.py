"""What happens to one dataset, drawn from a seed: runs that succeed, die, repeat and meet.

After each step the ledger checks every version that it made. A run that reported success must be
in the dataset, one that reported failure must not be, and one that was killed, or to which an
object store gave no answer, may be either. Of a run that commits as it goes, whole parts may be
in it however it ended.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

from contextframe_beam import FrameDataset
from contextframe_beam.pipelines.ingest import default_dead_letters
from tests.faults.forks import Forks, Job, Outcome
from tests.faults.jobs import REFUSED, Jobs, action_of, argument
from tests.faults.ledger import Ledger
from tests.faults.places import Place
from tests.faults.points import OF_HOUSEKEEPING
from tests.faults.simulated import pieces_of
from tests.faults.tally import Tally
from tests.faults.world import LOG, PARTITIONS, SOURCES, World
from tests.support.cli_helpers import start

# What a run says that does not know what became of it.
_UNKNOWN = re.compile("is not known|cannot be seen")

# What a run says whose id another source's run has: wrong usage where that was there before.
_REUSED = "a run id is used once"

# Lets Beam do each bundle twice.
_REPEAT = "--direct_runner_bundle_repeat=1"

# What may go wrong where several meet, and nothing else does: all that helps is to do it again.
_MET = re.compile("(run|do) it again|give it another run id|was cleaned up|exists already")

# Of fewer documents of a source the brake on deletion says nothing.
_SOME = 25

_TWO_DAYS = 2 * 24 * 3600.0


class Campaign:
    """The life of one dataset under faults.

    Args:
        seed: Decides all of it, except at which instruction a clock's kill meets a process. Odd
            ones are of documents with chunks.
        folder: For the dataset and the world.
        forks: Runs its processes.
        kinds: The steps it may take, by name, with their weights.
        is_small_disk: Whether the folder is on a disk that may be filled up.
        place: Where the dataset is, if not in the folder.
    """

    def __init__(
        self,
        seed: int,
        folder: Path,
        forks: Forks,
        kinds: dict[str, int] | None = None,
        is_small_disk: bool = False,
        place: Place | None = None,
    ) -> None:
        folder.mkdir(parents=True)
        self.tally = Tally()
        self.story: list[str] = []
        self._seed = seed
        self._folder = folder
        self._forks = forks
        self._chance = random.Random(seed)
        self._world = World(folder / "world.sqlite", self._chance)
        self._place = place or Place(str(folder / "kb.lance"))
        chunked = seed % 2 == 1
        self._jobs = Jobs(self._chance, self._world.path, self._place, chunked)
        self._ledger = Ledger(
            self._place.uri,
            self._world.items,
            self._place.options,
            pieces_of if chunked else lambda text: [],
        )
        self._kinds = kinds or (KINDS if place is None else S3_KINDS)
        self._is_small_disk = is_small_disk

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
        except Exception as error:  # a dataset that cannot be read is a failure as well
            story = "\n  ".join(self.story)
            where = "" if self._place.folder else " --s3"
            kinds = "" if self._kinds in (KINDS, S3_KINDS) else f" --only '{','.join(self._kinds)}'"
            raise AssertionError(
                f"{error}\nseed {self._seed}:\n  {story}\n"
                f"again: python -m tests.faults --seed {self._seed} --steps {steps}{where}{kinds}"
            ) from error
        finally:
            if self._place.proxy is not None:
                self.tally.faults = self._place.proxy.faults
        return self.tally

    def _first(self) -> str:
        return self._chance.choice(["succeed", "kill", "meet", "commit twice", "create"])

    def create(self) -> None:
        """Runs that want no dataset to be there, at the same time, killed or not."""
        self._evolve()
        jobs = [self._jobs.create() for _ in range(self._chance.randint(1, 3))]
        jobs = [self._jobs.deadly(job) if self._chance.random() < 0.5 else job for job in jobs]
        self._do(*(self._some_time(job, share=1 / 3) for job in jobs))
        assert len(self._ledger.committed) <= 1, "several created it"
        self._succeed()

    def refuse(self) -> None:
        """A run that would lose too much or must not be done; it commits nothing, killed or not."""
        self._evolve()
        source = self._jobs.source()
        while sum(row[3] == source for row in self._ledger.now.rows.values()) < _SOME:
            self._succeed(self._jobs.run(source, parts=False))
            self._world.evolve(source)
        kind = self._chance.choice(list(REFUSED))
        before = self._ledger.version
        for job in (self._jobs.deadly(self._jobs.refused(kind, source)), None):
            job = job or self._jobs.refused(kind, source)
            (outcome,) = self._do(job, quiet=True, refused=True)
            if not outcome.killed:
                told = re.search(REFUSED[kind][1], outcome.err)
                assert outcome.code == 1 and told, f"{kind}: {outcome}"
            # A dataset may be prepared, which changes no document; the ledger has looked.
            assert not any(run == job.name for _, run in self._ledger.committed)
        assert self._ledger.version >= before
        self._succeed()

    def same_run(self) -> None:
        """One run that several processes do at once, and one more afterwards."""
        self._evolve()
        job = self._jobs.run()
        jobs = [self._jobs.again(job) for _ in range(self._chance.randint(2, 3))]
        jobs = [self._jobs.deadly(one) if self._chance.random() < 0.4 else one for one in jobs]
        self._do(*(self._some_time(one, share=1 / 2) for one in jobs), lives_on=True)
        (outcome,) = self._do(self._jobs.again(job), quiet=True)
        assert outcome.code == 0, f"{job.name} failed: {outcome.err}"
        self._succeed()

    def succeed(self) -> None:
        """A run that nothing disturbs; sometimes with each bundle done twice."""
        self._evolve()
        job = self._jobs.run()
        if self._chance.random() < 0.3:
            job = replace(job, arguments=[*job.arguments, _REPEAT])
        self._succeed(job)

    def kill(self) -> None:
        """Runs that are killed, one after the other, and at last one that is not."""
        for _ in range(self._chance.randint(1, 4)):
            self._evolve()
            job = self._jobs.deadly(self._jobs.run())
            (outcome,) = self._do(job)
            if outcome.killed and self._chance.random() < 0.4:
                # What a scheduler does: the same run once more.
                again = self._jobs.again(replace(job, point="", kill_after=None))
                self._do(self._jobs.deadly(again) if self._chance.random() < 0.5 else again)
        self._succeed()

    def kill_parts(self) -> None:
        """One run that commits its parts as it goes, killed until it may end."""
        job = self._jobs.run(parts=True)
        for _ in range(self._chance.randint(1, 3)):
            self._evolve()
            self._do(self._jobs.deadly(self._jobs.again(job)))
        self._succeed(self._jobs.again(job))

    def meet(self) -> None:
        """Runs at the same time: of one source or two, of one name or several, killed or not."""
        self._evolve()
        source, run_id = self._jobs.source(), self._jobs.name()
        jobs: list[Job] = []
        for _ in range(self._chance.randint(2, 3)):
            if self._chance.random() < 0.4:
                source = self._jobs.source()
            if self._chance.random() < 0.6:
                run_id = self._jobs.name()
            job = self._jobs.run(source, run_id)
            if self._chance.random() < 0.3:
                job = self._jobs.deadly(job)
            jobs.append(self._some_time(job, share=1 / 3))
        self._do(*jobs, lives_on=True)
        self._succeed()

    def commit_twice(self) -> None:
        """Commit steps done by several threads of several processes, of one source or of both."""
        self._evolve()
        chosen = list(SOURCES) if self._chance.random() < 0.5 else [self._jobs.source()]
        committers = []
        for source in chosen:
            job = self._jobs.run(source, parts=False)
            file = self._folder / f"{job.name}.commit"
            (outcome,) = self._do(replace(job, hand_over=str(file)), quiet=True)
            assert outcome.killed and file.exists(), f"nothing was handed over: {outcome}"
            committers += [
                replace(job, commit=str(file), threads=threads)
                for threads in self._chance.choice([[1, 1], [2], [2, 2], [1, 1, 1]])
            ]
        doomed = []
        if self._chance.random() < 0.4:
            doomed = [self._jobs.deadly(committers[0], ["files", "duplicates", "commit"])]
        self._do(*committers, *doomed)
        if self._place.folder:
            names = {_run_of(job) for job in committers}
            assert names & self._ledger.committed, "nobody committed a run"
        self._do(replace(committers[0], threads=1))

    def fill_disk(self) -> None:
        """A run or a compaction that finds too little space, and one that finds enough."""
        self._evolve()
        job = self._jobs.run() if self._chance.random() < 0.8 else self._jobs.house("compact")
        size = round(100 * 500 ** self._chance.random())
        if self._is_small_disk:
            ballast = self._folder / "ballast"
            with open(ballast, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(1, self._free() - size))
            self._do(job, is_starved=True)
            ballast.unlink()
        else:
            self._do(replace(job, file_limit=size), is_starved=True)
        self._succeed()

    def _free(self) -> int:
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize

    def keep_house(self) -> None:
        """A command of housekeeping, killed or not, alone or beside a run or another of them."""
        self._evolve()
        kind = self._chance.choice(
            ["compact"] * 2 + ["cleanup", "rollback", "state reset", "index"]
        )
        is_alone = self._chance.random() < 0.3
        job = self._housekeeping(kind, is_alone)
        jobs = [self._jobs.deadly(job) if self._chance.random() < 0.5 else job]
        if not is_alone:
            jobs[0] = self._some_time(jobs[0])
            jobs.append(self._jobs.run(parts=False if kind == "cleanup" else None))
            if self._chance.random() < 0.3 and kind != "cleanup":
                jobs.append(self._some_time(self._housekeeping("compact", is_alone=False)))
        self._do(*jobs, lives_on=True)
        if kind in ("compact", "cleanup", "index"):
            self._keep_house_well(kind)
        self._succeed()

    def kill_house(self) -> None:
        """Housekeeping that is killed, again and again after runs, and at last some that is not."""
        for _ in range(self._chance.randint(1, 4)):
            self._evolve()
            self._succeed()
            kinds = ["compact"] * 4 + ["cleanup", "rollback", "state reset", "index"]
            kind = self._chance.choice(kinds)
            self._do(self._jobs.deadly(self._housekeeping(kind, is_alone=True)))
        for kind in ("compact", "cleanup", "index"):
            self._keep_house_well(kind)
        self._succeed()

    def _keep_house_well(self, kind: str) -> None:
        """Does housekeeping that must succeed, and must leave nothing to do."""
        (outcome,) = self._do(self._housekeeping(kind, is_alone=True), quiet=True)
        assert outcome.code == 0, f"{kind} failed: {outcome.err}"
        if kind == "cleanup":
            assert not self._lost_files(), f"cleanup left {self._lost_files()}"
            assert not self._open().lance.tags.list(), "a tag of one that was killed is left"
        elif kind == "index":
            self._search()
        elif self._place.folder:
            assert len(self._open().lance.get_fragments()) == 1, "it is not compact"

    def _housekeeping(self, kind: str, is_alone: bool) -> Job:
        if kind == "rollback":
            known = [one.version for one in self._open().history()]
            return self._jobs.house(kind, "--to", str(self._chance.choice(known)))
        if kind == "state reset":
            # What is appended without looking must not be read twice.
            name = self._chance.choice([one for one in sorted(self._ledger.ids) if one != LOG])
            return self._jobs.house(kind, "--source", self._ledger.ids[name])
        if kind == "compact":
            return self._jobs.house(kind, "--json")
        if kind == "index":
            return self._jobs.house(kind, "--language", self._chance.choice(["any", "zh", "de"]))
        if is_alone:
            return self._jobs.house(kind, "--keep", "0s", "--lost-after", "0s", "--no-writers")
        if self._place.folder:
            # All that was written before may be removed, and nothing that is written from now on.
            then = time.time() - _TWO_DAYS
            for file in self._place.folder.rglob("*"):
                os.utime(file, (then, then))
        return self._jobs.house(kind, "--keep", "0s", "--lost-after", "1d")

    def _search(self) -> None:
        """Checks that the full-text index finds some documents, each by the number in its text."""
        dataset, rows = self._open(), sorted(self._ledger.now.rows.items())
        for key, (text, *_) in self._chance.sample(rows, min(len(rows), 5)):
            found = dataset.search(str(text).rpartition(" ")[2], limit=len(rows))
            ids = {str(record.unique_id).partition("#chunk=")[0] for record in found}
            assert key in ids, f"{key} is not found"

    def _lost_files(self) -> set[str]:
        """Returns the data files that no version names; a store's are not looked at."""
        if self._place.folder is None:
            return set()
        stored = self._open().lance
        named = {path for batch in stored.tracked_files() for path in batch["path"].to_pylist()}
        there = stored.all_files().read_all()["path"].to_pylist()
        return {path for path in there if path.startswith("data/")} - named

    def _open(self) -> FrameDataset:
        return FrameDataset.open(self._place.uri, storage_options=self._place.options)

    def workers(self) -> None:
        """The true command with two workers, of which one or the launcher is killed."""
        self._evolve()
        job = self._jobs.run(parts=False)
        job = replace(job, arguments=[*job.arguments, "--workers", "2"])
        process = start(*job.arguments)
        time.sleep(self._chance.uniform(0.3, 3.5))
        workers = _started_by(process.pid)
        victim, who = process.pid, "launcher"
        if workers and self._chance.random() < 0.5:
            victim, who = self._chance.choice(workers), "worker"
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                self.tally.kill(action_of(job), f"two workers: {who}")
        out, err = process.communicate(timeout=120)
        _wait_for(workers)
        self._settle([job], [Outcome(process.returncode, "starting", 0.0, out, err)])
        self._succeed()

    def _evolve(self) -> None:
        for source in (*SOURCES, LOG):
            if self._chance.random() < 0.6:
                self._world.evolve(source)

    def _some_time(self, job: Job, share: float = 1.0) -> Job:
        return replace(job, begin=self._chance.uniform(0, self._jobs.seconds * share))

    def _succeed(self, job: Job | None = None) -> None:
        """Does a run that must succeed, and must have read all that it was to read."""
        job = job or self._jobs.run()
        source, attempt = argument(job, "--source"), int(argument(job, "--attempt"))
        (outcome,) = self._do(job, quiet=True)
        assert outcome.code == 0, f"{job.name} failed: {outcome.err}"
        reached = self._ledger.now.reached[source]
        read = [one for one in reached.values() if one["attempt"] == attempt]
        assert {one["round"] for one in read} <= {self._world.round_of(source)}, "read too little"
        is_whole = "--commit-every" not in job.arguments and "--partial" not in job.arguments
        assert len(read) == len(PARTITIONS) or not is_whole, f"only {read} were read"
        self._jobs.seconds += (outcome.seconds - self._jobs.seconds) / 4

    def _do(
        self,
        *jobs: Job,
        quiet: bool = False,
        lives_on: bool = False,
        is_starved: bool = False,
        refused: bool = False,
    ) -> list[Outcome]:
        """Does jobs at the same time.

        Args:
            *jobs: Which.
            quiet: No faults of a store.
            lives_on: A source goes on to its next round meanwhile.
            is_starved: They may find too little space.
            refused: They fail for good reason.
        """
        living = None
        if lives_on and self._chance.random() < 0.6:
            source, delay = self._jobs.source(), self._chance.uniform(0, self._jobs.seconds)
            living = threading.Timer(delay, self._world.evolve, [source])
        lost = self._lost_files() if self._ledger.version else None
        with nullcontext() if quiet else self._place.trouble(self._chance):
            outcomes = self._run(jobs, living)
        if self._place.proxy is not None:
            # A request of a process that was killed may still be on its way to the store.
            self._place.proxy.wait_until_idle()
        for job, outcome in zip(jobs, outcomes, strict=True):
            if outcome.killed:
                action = action_of(job)
                is_house = action in OF_HOUSEKEEPING
                self.tally.kill(f"{action}: {outcome.phase}" if is_house else action, outcome.phase)
        self._settle(list(jobs), outcomes)
        if self._place.folder and not is_starved:
            self._require_good_end(jobs, outcomes, lost, refused)
        return outcomes

    def _require_good_end(
        self, jobs: Sequence[Job], outcomes: list[Outcome], lost: set[str] | None, refused: bool
    ) -> None:
        """Checks what holds where neither disk nor store failed.

        Who was killed leaves files to the cleanup. So do bundles that were done twice, and
        housekeeping that gave up.
        """
        is_tidy = lost is not None
        for job, outcome in zip(jobs, outcomes, strict=True):
            is_told = refused or _MET.search(outcome.err)
            assert outcome.code != 1 or is_told, f"without reason: {outcome.err}"
            gave_up = outcome.code == 1 and action_of(job) in OF_HOUSEKEEPING
            is_tidy = is_tidy and outcome.code >= 0 and not gave_up and _REPEAT not in job.arguments
        if is_tidy:
            more = self._lost_files() - (lost or set())
            assert not more, f"files were left that nobody names: {more}"

    def _run(self, jobs: tuple[Job, ...], living: threading.Timer | None) -> list[Outcome]:
        if living is None:
            return self._forks.run(*jobs)
        living.start()
        try:
            return self._forks.run(*jobs)
        finally:
            living.join()

    def _settle(self, jobs: list[Job], outcomes: list[Outcome]) -> None:
        """Compares what the processes said with what the dataset says."""
        before, version = set(self._ledger.committed), self._ledger.version
        for job, outcome in zip(jobs, outcomes, strict=True):
            self.story.append(_told(job, outcome))
        self._ledger.follow()
        for _, run_id in self._ledger.committed - before:
            known = any(run_id == job.name or run_id.startswith(f"{job.name}.") for job in jobs)
            assert known or run_id.startswith("state-"), f"nobody did {run_id}"
        for job, outcome in zip(jobs, outcomes, strict=True):
            is_reused = outcome.code == 2 and _REUSED in outcome.err
            assert outcome.code in (0, 1, -signal.SIGKILL) or is_reused, (
                f"{outcome.code}: {outcome.err}"
            )
            if argument(job, "--run-id"):
                others = [one for one in jobs if _run_of(one) == _run_of(job)]
                self._settle_run(job, outcome, len(others) > 1 or _run_of(job) in before)
            elif outcome.code == 1:
                self.tally.outcomes[f"{action_of(job)} reported a failure"] += 1
            elif outcome.code == 0:
                self.tally.outcomes[f"{action_of(job)} succeeded"] += 1
        if self._place.folder:
            self._check_letters(jobs, {run_id for _, run_id in self._ledger.committed - before})
        self.tally.versions += self._ledger.version - version
        self.tally.rows += len(self._ledger.now.rows) * (self._ledger.version - version)

    def _check_letters(self, jobs: list[Job], new: set[str]) -> None:
        """Checks the files of dead letters of runs that were committed: no letter lost or doubled.

        Where several processes did one run, which may have read other things, the file holds what
        one of them met.
        """
        for run_id in new:
            at_once = [job for job in jobs if job.name == run_id]
            if len(at_once) == 0 or "--commit-every" in at_once[0].arguments:
                continue
            path = Path(default_dead_letters(self._place.uri, run_id))
            lines = path.read_text().splitlines() if path.exists() else []
            letters = [json.loads(line) for line in lines]
            assert all(letter["run_id"] == run_id for letter in letters), f"{path}: of others"
            places = {(one["partition"], one["position"]) for one in letters}
            assert len(places) == len(letters), f"{path} holds a letter twice"
            expected = self._ledger.failed[run_id]
            if len(at_once) == 1:
                assert len(letters) == expected, f"{path}: {len(letters)}, not {expected}"

    def _settle_run(self, job: Job, outcome: Outcome, may_be_anothers: bool) -> None:
        there = _run_of(job) in self._ledger.committed
        state = "after" if there else "before"
        if outcome.code == 0:
            assert there, f"{job.name} said that it is committed, and is not"
            self.tally.outcomes["success"] += 1
        elif outcome.code == 1 and _UNKNOWN.search(outcome.err):
            assert self._place.proxy, f"{job.name} does not know: {outcome.err}"
            self.tally.outcomes[f"said unknown, as {state} the run"] += 1
        elif outcome.code in (1, 2):
            assert not there or may_be_anothers, (
                f"{job.name} said that it failed, and is committed: {outcome.err}"
            )
            self.tally.outcomes["failure reported"] += 1
        else:
            self.tally.outcomes[f"killed, as {state} the run"] += 1


_STEPS: dict[str, Callable[[Campaign], None]] = {
    "succeed": Campaign.succeed,
    "kill": Campaign.kill,
    "kill parts": Campaign.kill_parts,
    "meet": Campaign.meet,
    "commit twice": Campaign.commit_twice,
    "fill disk": Campaign.fill_disk,
    "keep house": Campaign.keep_house,
    "kill house": Campaign.kill_house,
    "two workers": Campaign.workers,
    "create": Campaign.create,
    "refuse": Campaign.refuse,
    "same run": Campaign.same_run,
}

#: How often each step is taken.
KINDS = {
    "succeed": 2,
    "kill": 9,
    "kill parts": 3,
    "meet": 4,
    "commit twice": 2,
    "fill disk": 1,
    "keep house": 5,
    "kill house": 4,
    "two workers": 1,
    "refuse": 2,
    "same run": 3,
}

#: The same on an object store.
S3_KINDS = {
    "succeed": 1,
    "kill": 4,
    "kill parts": 1,
    "meet": 3,
    "commit twice": 2,
    "keep house": 3,
    "kill house": 2,
    "refuse": 1,
    "same run": 1,
}


def _run_of(job: Job) -> tuple[str, str]:
    return argument(job, "--source"), job.name


def _told(job: Job, outcome: Outcome) -> str:
    moment = f" {job.when} {job.point} {job.passage}" if job.point else ""
    end = f"killed while {outcome.phase}" if outcome.killed else f"exit {outcome.code}"
    last = (outcome.err.strip().splitlines() or [""])[-1]
    return f"   {job.name} ({action_of(job)}) {argument(job, '--source')}{moment}: {end} {last}"


def _started_by(process: int) -> list[int]:
    """Returns the processes that a process has started, and those that these have started."""
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False
    )
    children = [int(pid) for pid in found.stdout.split()]
    return [*children, *(one for child in children for one in _started_by(child))]


def _wait_for(processes: list[int]) -> None:
    """Waits until processes that are not ours have ended."""
    for process in processes:
        while Path(f"/proc/{process}").exists():
            time.sleep(0.02)


def fresh_seed() -> int:
    """Returns a seed that nobody has used."""
    return int.from_bytes(os.urandom(4), "big")
