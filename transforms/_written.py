"""What the workers tell the commit: fragments and counts, never documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from contextframe_beam.connectors.page import DeadLetter, SourceInfo, field_names
from contextframe_beam.fragments import WrittenFragment
from contextframe_beam.reasons import FailureReason, Reasons
from contextframe_beam.state import PLAN
from contextframe_beam.transforms._duplicates import Deletions

_ROWS_A_PART = 1_000_000


@dataclass
class SourceTally:
    """What one source gave.

    Attributes:
        info: Which source.
        read: Items read, failed ones included.
        planned: Blocks that its plan has.
        finished: Blocks that were read to their end.
        met: How many items are stored as they are already.
        unchanged: Which rows of the version that the run began with they are, as `pack` gives it.
        partitions: New states of partitions.
        narrowed: Why what was asked for is not all of the source; empty where it is.
        may_slip: Whether a record may have been missed between pages that are counted.
        partial: Why what was read may not be all that was asked for; empty where it is.
        deletions: What the source says is gone.
    """

    info: SourceInfo
    read: int = 0
    planned: int = 0
    finished: int = 0
    met: int = 0
    unchanged: list[bytes] = field(default_factory=list)
    partitions: dict[str, Any] = field(default_factory=dict)
    narrowed: set[str] = field(default_factory=set)
    may_slip: bool = False
    partial: set[str] = field(default_factory=set)
    deletions: list[Deletions] = field(default_factory=list)

    @property
    def gave_nothing(self) -> bool:
        """Whether all of the source was asked for and there was not even an item that failed."""
        return not self.read and not self.narrowed

    @property
    def plan(self) -> dict[str, Any]:
        """What holds for the state of the source as a whole, as `PLAN` says."""
        return dict(self.partitions.get(PLAN) or {})

    @property
    def moves_state(self) -> bool:
        """Whether it says anything about what the source has reached."""
        return bool(self.partitions) and self.partitions != {PLAN: {"whole": True}}

    def add(self, other: SourceTally) -> None:
        """Adds what another worker counted."""
        self.read += other.read
        self.planned += other.planned
        self.finished += other.finished
        self.met += other.met
        self.unchanged += other.unchanged
        self.partitions.update(other.partitions)
        self.narrowed |= other.narrowed
        self.may_slip |= other.may_slip
        self.partial |= other.partial
        self.deletions += other.deletions


@dataclass
class Written:
    """What a bundle wrote, or several of them added up.

    Attributes:
        fragments: The data files.
        announced: How many data files there are to come, so that none is lost on the way.
        sources: What each source gave, by its id.
        failed: Number of dead letters.
        reasons: Why they failed.
        letters: The pieces of the file that they are in.
    """

    fragments: list[WrittenFragment] = field(default_factory=list)
    announced: int = 0
    sources: dict[str, SourceTally] = field(default_factory=dict)
    failed: int = 0
    reasons: Reasons = field(default_factory=Reasons)
    letters: list[str] = field(default_factory=list)

    @property
    def read(self) -> int:
        """Items read from all sources."""
        return sum(tally.read for tally in self.sources.values())

    @property
    def rows(self) -> int:
        """Rows in all fragments."""
        return sum(fragment.rows for fragment in self.fragments)

    def parts(self) -> Iterator[Written]:
        """Yields it in parts of a size that any runner passes on: the keys of a million rows."""
        files, self.fragments = self.fragments, []
        self.announced = len(files)
        part, rows = self, 0
        for file in files:
            if part.fragments and rows + file.rows > _ROWS_A_PART:
                yield part
                part, rows = Written(), 0
            part.fragments.append(file)
            rows += file.rows
        yield part

    def tally(self, info: SourceInfo) -> SourceTally:
        """Returns the counts of a source, to be changed."""
        found = self.sources.get(info.source_id)
        if found is None:
            found = self.sources[info.source_id] = SourceTally(info)
        return found

    def fail(self, letters: Iterable[DeadLetter]) -> None:
        """Counts dead letters."""
        for letter in letters:
            self.failed += 1
            place = " ".join(_places(letter))
            message = f"{letter.message}, at {letter.line}" if letter.line else letter.message
            fields = field_names(letter.item) if letter.stage in ("map", "enrich") else ""
            if fields:
                place = f"{place}, an item with {fields}"
            self.reasons.add([FailureReason.of(letter.error_type, message, place)])

    @classmethod
    def sum(cls, parts: Iterable[Written]) -> Written:
        """Adds up what all bundles wrote, in an order that does not depend on the workers."""
        whole = cls()
        for part in parts:
            whole.fragments += part.fragments
            whole.announced += part.announced
            whole.failed += part.failed
            whole.reasons.add(part.reasons.all())
            whole.letters += part.letters
            for tally in part.sources.values():
                whole.tally(tally.info).add(tally)
        whole.fragments.sort(key=lambda fragment: fragment.metadata)
        return whole


def _places(letter: DeadLetter) -> list[str]:
    """Returns the stage and the place of a letter, without what is said twice."""
    places = [letter.partition] if letter.partition not in letter.position else []
    places.append(letter.position)
    return [letter.stage, *(one for one in places if one and one not in letter.message)]
