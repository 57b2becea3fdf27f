"""Backfills: a run that commits whole parts of a source as it goes on, each in a transaction.

Each transaction also records the finished parts in the source's state row. So if a run dies, the
next run with the same arguments continues it, even if the source has no cursors.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from contextframe_beam.connectors.cursors import Bounds, seconds_of, text_of
from contextframe_beam.connectors.identity import jsonable
from contextframe_beam.connectors.read import runtime
from contextframe_beam.connectors.read.reader import Part
from contextframe_beam.connectors.read.source import Chosen
from contextframe_beam.errors import CommitError, ConfigError, ContextFrameError, UnknownCommitError
from contextframe_beam.frames.times import when
from contextframe_beam.pipelines.job import Job
from contextframe_beam.store import writer
from contextframe_beam.store.runs import NARROWING, Marks, StateChange
from contextframe_beam.store.state import SourceState
from contextframe_beam.store.upkeep import MODE as BY_HAND
from contextframe_beam.transforms import CommitReceipt
from contextframe_beam.transforms.limits import DELETES
from contextframe_beam.transforms.modes import mode_of

_LOGGER = logging.getLogger(__name__)

_ROWS = re.compile(r"(\d+)\s*([kM]?)[ -]?rows\Z")
_MULTIPLES = {"": 1, "k": 1000, "M": 1_000_000}
# The number of parts grows at most by this factor from one commit to the next.
_GROWTH = 4


@dataclass(frozen=True)
class Every:
    """The size of one commit.

    Attributes:
        amount: The number of units.
        unit: `partitions`, `rows` or `seconds`. Only whole partitions are committed. For rows and
            seconds, the number of partitions follows from the size of those before.
    """

    amount: float
    unit: str

    @classmethod
    def of(cls, text: str | int) -> Every:
        """Reads `10` (partitions), `100k-rows` or `15m`.

        Raises:
            ConfigError: it has none of these forms.
        """
        shown = str(text).strip()
        match = _ROWS.match(shown)
        if match:
            found = cls(int(match[1]) * _MULTIPLES[match[2]], "rows")
        elif shown.isascii() and shown.isdigit():
            found = cls(int(shown), "partitions")
        else:
            try:
                # A plain number means seconds elsewhere, and partitions here.
                found = cls(seconds_of(shown) if shown[-1:].isalpha() else 0, "seconds")
            except ValueError:
                found = cls(0, "")
        if found.amount <= 0:
            raise ConfigError(
                f"commit-every is {shown!r}; give a number of partitions such as 10, of rows such "
                "as 100k-rows, or a time such as 15m"
            )
        return found

    def parts(self, before: int = 0, rows: int = 0, seconds: float = 0.0) -> int:
        """Returns the number of parts for the next commit.

        Args:
            before: The number of parts in the last commit; 0 for the first.
            rows: Its number of rows.
            seconds: How long it took.
        """
        if self.unit == "partitions":
            return int(self.amount)
        if not before:
            return 1
        had = rows if self.unit == "rows" else seconds
        wanted = before * self.amount / had if had else before * _GROWTH
        return max(1, min(int(wanted), before * _GROWTH))


@dataclass(frozen=True)
class Progress:
    """The progress of a backfill.

    Attributes:
        run_id: Its run id.
        arguments: A digest of its arguments; other arguments make another backfill.
        began: When it began, ISO 8601.
        until: The end of its last slice, if the user did not give it; otherwise "".
        commits: The number of commits so far.
        parts: The number of finished parts.
        last: The run id of the last commit.
        done: The finished parts, as `Marks` packs them.
    """

    run_id: str
    arguments: str
    began: str
    until: str = ""
    commits: int = 0
    parts: int = 0
    last: str = ""
    done: str = ""

    @classmethod
    def of(cls, state: SourceState | None, job: Job) -> Progress | None:
        """Returns the progress of the unfinished backfill with a job's arguments, or None.

        A backfill that upserts all of a source is out of date if another run has read the source
        since, because its finished parts may have changed. Doing them again is safe.
        """
        record = dict(state.backfill) if state is not None else {}
        if state is None or record.get("arguments") != arguments_of(job):
            return None
        if mode_of(job.mode).replaces_rows and not job.range.given:
            runs = [run.run_id for run in state.runs if run.mode != BY_HAND]
            if runs[-1:] != [record.get("last")]:
                return None
        try:
            Marks(record.get("done", ""))
            return cls(**{name: one for name, one in record.items() if name != DELETES})
        except (TypeError, ValueError):  # from a newer release: we begin again, which is safe
            return None


def arguments_of(job: Job) -> str:
    """Returns a digest of the arguments that distinguish one backfill from another.

    Arguments that select a part of the source do not change the source, but the backfill.
    """
    bounds = job.range
    given = bounds.given
    if bounds.is_open:
        del given["until"]
    asked = [given, str(bounds.slice or ""), job.mode, job.reads_all]
    chosen = {name: one for name, one in job.reading.items() if name in NARROWING}
    if any(one is not None for one in chosen.values()):
        asked.append(jsonable(chosen))
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def bounds_of(progress: Progress | None, bounds: Bounds) -> Bounds:
    """Returns the range of time of a backfill, which stays as it was at its beginning."""
    if progress is None:
        return bounds
    bounds = replace(bounds, made=when(progress.began) or bounds.made)
    if not progress.until or not bounds.is_open:
        return bounds
    return replace(bounds, until=when(progress.until))


def run_backfill(
    parts: Sequence[Part],
    every: Every,
    progress: Progress,
    commit: Callable[[str, int, Chosen, bool], CommitReceipt],
    reached: dict[str, Any] | None = None,
    unread: tuple[str, ...] = (),
) -> CommitReceipt:
    """Commits parts, some at a time, until all are done.

    Args:
        parts: All parts of the source; finished ones are left out.
        every: The size of a commit.
        progress: The progress so far.
        commit: Reads parts and commits them. Its arguments are a run id, the number of the commit,
            the parts and whether they are the last ones. Its receipt counts all commits of the
            backfill.
        reached: The states of the source after everything is read, if the plan knows them.
        unread: Why parts of the source are not in the plan; the last commit tells.

    Returns:
        The receipt of the last commit, which counts all of them.

    Raises:
        ContextFrameError: a commit failed; the commits before it stay.
    """
    done = Marks(progress.done)
    left = [part for part in parts if part.content not in done]
    planned = sum(part.blocks for part in parts)
    runtime.count(planned=planned, finished=planned - sum(part.blocks for part in left))
    if progress.commits:
        _LOGGER.warning(
            "going on with the backfill of %s: %d parts are committed, %d are left",
            progress.began,
            progress.parts,
            len(left),
        )
    size, rows = every.parts(), 0
    while True:
        chosen, left = left[:size], left[size:]
        number = progress.commits + 1
        run_id = progress.run_id
        if left:
            # A unique id, because another attempt may use the same number for other parts.
            run_id = f"{run_id}.{number}-{uuid.uuid4().hex[:8]}"
        done.add(part.content for part in chosen)
        following = replace(
            progress,
            commits=number,
            parts=progress.parts + len(chosen),
            last=run_id,
            done=done.pack(),
        )
        change = StateChange(
            # Merged, because earlier commits may have left their own states.
            reached={} if left or reached is None else reached,
            backfill=asdict(following) if left else {},
            continues=progress.last,
        )
        writer.begin(run_id)
        began = time.monotonic()
        try:
            choice = Chosen(tuple(chosen), change, () if left else unread)
            receipt = commit(run_id, number, choice, not left)
        except ContextFrameError as error:
            if not progress.commits:
                raise
            told = isinstance(error, CommitError | UnknownCommitError)
            kind = type(error) if told else CommitError
            raise kind(
                f"{error}. Of the backfill, {progress.parts:,} parts in {progress.commits:,} "
                "commits stay committed; run the same command again to go on"
            ) from error
        runtime.count(commits=1)
        if not left:
            return receipt
        progress, before = following, rows
        rows = _rows_of(receipt)
        size = every.parts(len(chosen), max(rows - before, 0), time.monotonic() - began)


def begun(job: Job, bounds: Bounds) -> Progress:
    """Returns a new backfill without finished parts."""
    until = text_of(bounds.until) if bounds.is_open and bounds.until else ""
    return Progress(job.id, arguments_of(job), text_of(bounds.made), until)


def letters_of(path: str, number: int) -> str:
    """Returns the file for the dead letters of a commit before the last one of a run."""
    stem, dot, suffix = path.rpartition(".")
    return f"{stem}.{number}.{suffix}" if dot and "/" not in suffix else f"{path}.{number}"


def _rows_of(receipt: CommitReceipt) -> int:
    return receipt.rows_written + receipt.rows_unchanged + receipt.rows_dropped + receipt.failed
