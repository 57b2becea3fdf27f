"""The processes of a campaign: runs of every mode and housekeeping, and when they are killed."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from tests.faults.forks import Job
from tests.faults.places import Place
from tests.faults.points import OF_HOUSEKEEPING, OF_RUNS, WHEN
from tests.faults.world import LOG, SOURCES

_CONNECTOR = "tests.faults.simulated:Simulated"
_CHUNKER = "tests.faults.simulated:Pieces"

#: How often a process comes to a point at most, as far as it matters.
_PASSAGES = {
    "page": 12,
    "rows": 12,
    "states": 2,
    "commit": 2,
    "receipt": 2,
    "own commit": 2,
    "indices": 2,
    "text index": 2,
}

#: Sources of a campaign lose more than a true one may, so its runs say that they know.
_MAY_DELETE = ["--max-deletes", "100%"]

#: A run goes on from the states that it finds, or reads all; by whole partitions, or as one.
HOW = {
    "upsert": ([], 5),
    "changes": (["--changes"], 5),
    "full": (["--full"], 1),
    "mirror": (["--mode", "mirror"], 3),
    "overwrite": (["--mode", "overwrite"], 1),
}

#: These read a source as a whole.
_WHOLE = ("mirror", "overwrite")

#: Runs that commit nothing, whatever is stored, and what they say.
REFUSED = {
    "empty mirror": (["--mode", "mirror", "--fault", "empty"], "the source gave nothing"),
    "empty overwrite": (["--mode", "overwrite", "--fault", "empty"], "gave nothing|would delete"),
    "poor mirror": (["--mode", "mirror", "--fault", "poor"], "the run would delete"),
    "all deleted": (["--fault", "deleting"], "the run would delete"),
    "partial overwrite": (
        ["--mode", "overwrite", "--partial", *_MAY_DELETE],
        "may not have read all",
    ),
    "create": (["--mode", "create"], "exists already"),
}


class Jobs:
    """Makes the processes.

    Args:
        chance: What decides.
        world: The file that sources are read from.
        place: The dataset.
        chunked: Whether documents are cut into chunks.
    """

    def __init__(
        self, chance: random.Random, world: Path, place: Place, chunked: bool = False
    ) -> None:
        self._chance = chance
        self._chunks = ["--chunk", _CHUNKER] if chunked else []
        self._world = world
        self._place = place
        self._runs = 0
        self._attempts = 0
        #: About how long a run takes, so that a clock's kill meets it.
        self.seconds = 0.5

    def source(self) -> str:
        """Returns one of the sources."""
        return self._chance.choice(SOURCES)

    def name(self) -> str:
        """Returns a run id that nobody has used."""
        self._runs += 1
        return f"run-{self._runs}"

    def run(
        self, source: str | None = None, run_id: str | None = None, parts: bool | None = None
    ) -> Job:
        """Returns a run of some mode.

        Args:
            source: What it reads; any if not given.
            run_id: Its id; a new one if not given.
            parts: Whether it commits its parts as it goes; now and then if not given.
        """
        how, weights = list(HOW), [weight for _, weight in HOW.values()]
        kind = self._chance.choices(how, weights)[0]
        more = [*HOW[kind][0], *_MAY_DELETE]
        if source is None and self._chance.random() < 0.15:
            source, kind, more = LOG, "append", ["--mode", "append", "--changes"]
        if kind not in ("changes", "append") and self._chance.random() < 0.4:
            more.append("--windows")
        if parts and kind in _WHOLE:
            kind, more = "upsert", ["--windows", *_MAY_DELETE]
        if parts or (parts is None and kind not in _WHOLE and self._chance.random() < 0.15):
            more += ["--commit-every", self._chance.choice("12")]
        elif kind not in ("append", "overwrite") and self._chance.random() < 0.1:
            more.append("--partial")
        return self._ingest(source or self.source(), run_id or self.name(), more)

    def create(self) -> Job:
        """Returns a run that wants no dataset to be there."""
        return self._ingest(self.source(), self.name(), ["--mode", "create"])

    def refused(self, kind: str, source: str) -> Job:
        """Returns a run that must not commit anything."""
        return self._ingest(source, self.name(), list(REFUSED[kind][0]))

    def _ingest(self, source: str, run_id: str, more: list[str]) -> Job:
        if self._chance.random() < 0.5:
            more.append("--numbered")
        arguments = [
            *("ingest", _CONNECTOR, "--world", str(self._world)),
            *("--source", source, "--to", self._place.uri),
            *("--run-id", run_id, "--embed-dim", "4", "--json", *more, *self._chunks),
            *self._place.flags,
        ]
        return self.again(Job(run_id, arguments))

    def again(self, job: Job) -> Job:
        """Returns a run as the next attempt of it, such as a scheduler's."""
        self._attempts += 1
        arguments = list(job.arguments)
        if "--attempt" in arguments:
            arguments[arguments.index("--attempt") + 1] = str(self._attempts)
        else:
            arguments += ["--attempt", str(self._attempts)]
        return replace(job, arguments=arguments)

    def house(self, command: str, *arguments: str) -> Job:
        """Returns a command of housekeeping."""
        words = [*command.split(), self._place.uri, *arguments, *self._place.flags]
        return Job(" ".join([command, *arguments]), words)

    def deadly(self, job: Job, among: list[str] | None = None) -> Job:
        """Returns the job with the moment at which it is killed."""
        action = action_of(job)
        if among is None and action not in OF_HOUSEKEEPING and self._chance.random() < 0.35:
            return replace(job, kill_after=self._chance.uniform(0.1, 1.1) * self.seconds)
        point = self._chance.choice(among or OF_HOUSEKEEPING.get(action, OF_RUNS))
        # A commit takes some milliseconds, and more on a store; other steps longer.
        longest = self._chance.choice([0.004, 0.03] + [0.6] * (self._place.proxy is not None))
        return replace(
            job,
            point=point,
            when=self._chance.choice(WHEN),
            passage=self._chance.randint(1, _PASSAGES.get(point, 1)),
            delay=self._chance.uniform(0, longest),
        )


def argument(job: Job, option: str) -> str:
    """Returns the value of an option of a job, empty when it has none."""
    arguments = job.arguments
    return arguments[arguments.index(option) + 1] if option in arguments else ""


def action_of(job: Job) -> str:
    """Returns what a job does, in a word or two."""
    words = job.arguments
    if words[:1] != ["ingest"]:
        return words[0] if words else "commit"
    if "--commit-every" in words:
        return "commit-every"
    if "--mode" in words:
        return argument(job, "--mode")
    return "incremental" if "--changes" in words else "upsert"
