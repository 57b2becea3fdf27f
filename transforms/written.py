"""The reports of workers to the commit: fragments and counts, never documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from contextframe_beam.connectors.page import DeadLetter, SourceInfo, Tally, field_names
from contextframe_beam.store.files import WrittenFragment
from contextframe_beam.store.runs import FailureReason, Reasons
from contextframe_beam.transforms.newest import Deletions

_ROWS_A_PART = 1_000_000


@dataclass
class Written:
    """The output of a bundle, or of several added up.

    Attributes:
        fragments: The data files.
        announced: The number of data files to expect, so that a lost one is noticed.
        sources: The tally of each source, by its id.
        deletions: The deletions from the sources.
        failed: Number of dead letters.
        reasons: Why they failed.
        letters: The pieces of the file with the dead letters.
    """

    fragments: list[WrittenFragment] = field(default_factory=list)
    announced: int = 0
    sources: dict[str, Tally] = field(default_factory=dict)
    deletions: list[Deletions] = field(default_factory=list)
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
        """Yields it in parts that any runner can pass on, with the keys of a million rows each."""
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

    def tally(self, info: SourceInfo) -> Tally:
        """Returns the tally of a source, to be changed."""
        return self.sources.setdefault(info.source_id, Tally(info))

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
        """Adds up the output of all bundles, in an order that does not depend on the workers."""
        whole = cls()
        for part in parts:
            whole.fragments += part.fragments
            whole.announced += part.announced
            whole.failed += part.failed
            whole.reasons.add(part.reasons.all())
            whole.letters += part.letters
            whole.deletions += part.deletions
            for source, tally in part.sources.items():
                whole.sources.setdefault(source, Tally())
                whole.sources[source] += tally
        whole.fragments.sort(key=lambda fragment: fragment.metadata)
        return whole


def _places(letter: DeadLetter) -> list[str]:
    """Returns the stage and the place of a letter, without repetitions."""
    places = [letter.partition] if letter.partition not in letter.position else []
    places.append(letter.position)
    return [letter.stage, *(one for one in places if one and one not in letter.message)]
