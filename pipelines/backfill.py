"""Committing as a run goes on: whole parts of a source at a time, each time a transaction.

What is done is remembered in the source's state row, in the transaction that did it. So a run that
dies is continued by the next one with the same arguments, also where the source has no cursors.
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
# From one commit to the next, the number of parts grows by no more than this.
_GROWTH = 4


@dataclass(frozen=True)
class Every:
    """How much goes into one commit.

    Attributes:
        amount: How much.
        unit: `partitions`, `rows` or `seconds`. Only whole partitions are committed: for rows and
            seconds, their number follows from what the partitions before had.
    """

    amount: float
    unit: str

    @classmethod
    def of(cls, text: str | int) -> Every:
        """Reads `10` (partitions), `100k-rows` or `15m`.

        Raises:
            ConfigError: it is none of these.
        """
        shown = str(text).strip()
        match = _ROWS.match(shown)
        if match:
            found = cls(int(match[1]) * _MULTIPLES[match[2]], "rows")
        elif shown.isascii() and shown.isdigit():
            found = cls(int(shown), "partitions")
        else:
            try:
                # A number alone would be seconds elsewhere, and is partitions here.
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
        """Returns how many parts the next commit should have.

        Args:
            before: How many the last one had; 0 for the first.
            rows: Rows that it had.
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
    """Where a backfill stands.

    Attributes:
        run_id: The run that it is.
        arguments: A digest of what it is asked for; with other arguments it is another backfill.
        began: When it began, ISO 8601.
        until: The end of its last slice, where that was not given; "" otherwise.
        commits: How many commits there were.
        parts: How many parts are done.
        last: The run id of the last commit.
        done: Which parts are done, as `Marks` packs them.
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
        """Returns how far an unfinished backfill with a job's arguments is, if there is one.

        One that upserts all of a source is out of date when another run has read the source since:
        what it did may have changed again, and doing it again loses nothing.
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
        except (TypeError, ValueError):  # of a newer release: begun anew, which loses nothing
            return None


def arguments_of(job: Job) -> str:
    """Returns a digest of a job's arguments that make a backfill another one.

    What chooses less of the source makes another source of nothing, but another backfill.
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
    """Returns the range of time of a backfill, which is what it was when the backfill began."""
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
) -> CommitReceipt:
    """Commits parts, some at a time, until all are done.

    Args:
        parts: All parts of the source; those that are done are left out.
        every: How many at a time.
        progress: Where it stands.
        commit: Reads parts and commits them; gets a run id, the number of the commit, the parts and
            whether they are the last ones. Its receipt counts all commits of the backfill so far.
        reached: The states of the source when all is read, where the plan knows them.

    Returns:
        The receipt of the last commit, which counts all of them.

    Raises:
        ContextFrameError: a commit failed; what was committed before stays.
    """
    done = Marks(progress.done)
    left = [part for part in parts if part.content not in done]
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
            # Unlike any other: that number of another attempt may stand for other parts.
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
            # Added, because the commits before this one may have left states of their own.
            reached={} if left or reached is None else reached,
            backfill=asdict(following) if left else {},
            continues=progress.last,
        )
        writer.begin(run_id)
        began = time.monotonic()
        try:
            receipt = commit(run_id, number, Chosen(tuple(chosen), change), not left)
        except ContextFrameError as error:
            if not progress.commits:
                raise
            told = isinstance(error, CommitError | UnknownCommitError)
            kind = type(error) if told else CommitError
            raise kind(
                f"{error}. Of the backfill, {progress.parts:,} parts in {progress.commits:,} "
                "commits stay committed; run the same command again to go on"
            ) from error
        if not left:
            return receipt
        progress, before = following, rows
        rows = _rows_of(receipt)
        size = every.parts(len(chosen), max(rows - before, 0), time.monotonic() - began)


def begun(job: Job, bounds: Bounds) -> Progress:
    """Returns a backfill of which nothing is done yet."""
    until = text_of(bounds.until) if bounds.is_open and bounds.until else ""
    return Progress(job.id, arguments_of(job), text_of(bounds.made), until)


def letters_of(path: str, number: int) -> str:
    """Returns where the dead letters of a commit go that is not the last one of a run."""
    stem, dot, suffix = path.rpartition(".")
    return f"{stem}.{number}.{suffix}" if dot and "/" not in suffix else f"{path}.{number}"


def _rows_of(receipt: CommitReceipt) -> int:
    return receipt.rows_written + receipt.rows_unchanged + receipt.rows_dropped + receipt.failed
