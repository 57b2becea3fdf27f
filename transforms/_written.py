"""What the workers tell the commit: fragments and counts, never documents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from contextframe_beam.connectors.page import DeadLetter, SourceInfo
from contextframe_beam.deletion import Deletion
from contextframe_beam.fragments import WrittenFragment

_SAMPLES = 3


@dataclass
class SourceTally:
    """What one source gave.

    Attributes:
        info: Which source.
        read: Items read, failed ones included.
        planned: Blocks that its plan has.
        finished: Blocks that were read to their end.
        unchanged: The first 8 bytes of the digest of each item that is stored as it is already.
        partitions: New states of partitions.
        partial: Why what was read is not all of the source; empty where it is.
        deletions: What the source says is gone.
    """

    info: SourceInfo
    read: int = 0
    planned: int = 0
    finished: int = 0
    unchanged: list[bytes] = field(default_factory=list)
    partitions: dict[str, Any] = field(default_factory=dict)
    partial: set[str] = field(default_factory=set)
    deletions: list[Deletion] = field(default_factory=list)

    def add(self, other: SourceTally) -> None:
        """Adds what another worker counted."""
        self.read += other.read
        self.planned += other.planned
        self.finished += other.finished
        self.unchanged += other.unchanged
        self.partitions.update(other.partitions)
        self.partial |= other.partial
        self.deletions += other.deletions


@dataclass
class Written:
    """What a bundle wrote, or several of them added up.

    Attributes:
        fragments: The data files.
        sources: What each source gave, by its id.
        failed: Number of dead letters.
        samples: The first few of them, in words.
    """

    fragments: list[WrittenFragment] = field(default_factory=list)
    sources: dict[str, SourceTally] = field(default_factory=dict)
    failed: int = 0
    samples: list[str] = field(default_factory=list)

    @property
    def read(self) -> int:
        """Items read from all sources."""
        return sum(tally.read for tally in self.sources.values())

    @property
    def unchanged(self) -> list[bytes]:
        """The same of all sources, as `SourceTally.unchanged`."""
        return [heads for tally in self.sources.values() for heads in tally.unchanged]

    @property
    def rows(self) -> int:
        """Rows in all fragments."""
        return sum(fragment.rows for fragment in self.fragments)

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
            if len(self.samples) < _SAMPLES:
                self.samples.append(f"{' '.join(_places(letter))}: {letter.message}")

    @classmethod
    def sum(cls, parts: Iterable[Written]) -> Written:
        """Adds up what all bundles wrote, in an order that does not depend on the workers."""
        whole = cls()
        for part in parts:
            whole.fragments += part.fragments
            whole.failed += part.failed
            whole.samples += part.samples
            for tally in part.sources.values():
                whole.tally(tally.info).add(tally)
        whole.fragments.sort(key=lambda fragment: fragment.metadata)
        whole.samples = sorted(whole.samples)[:_SAMPLES]
        return whole


def _places(letter: DeadLetter) -> list[str]:
    """Returns the stage and the place of a letter, without what is said twice."""
    places = [letter.partition] if letter.partition not in letter.position else []
    places.append(letter.position)
    return [letter.stage, *(one for one in places if one and one not in letter.message)]
