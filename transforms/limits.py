"""What a run may lose: how many items may fail, how many documents may be deleted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contextframe_beam.errors import ConfigError, TooManyDeletes, TooManyFailures
from contextframe_beam.store.keys import KeySet, Mask
from contextframe_beam.store.rows import Addresses, scan_rows
from contextframe_beam.store.state import documents_in
from contextframe_beam.transforms.written import Written

DEFAULT_MAX_FAILURES = 1000

#: How many reasons the message names.
_SHOWN = 3


@dataclass(frozen=True)
class FailureLimit:
    """A number of items, or a share of the items read.

    Attributes:
        count: The most items that may fail, or None.
        share: The largest share of them, from 0 to 1, or None.
    """

    count: int | None = DEFAULT_MAX_FAILURES
    share: float | None = None

    @classmethod
    def of(cls, value: int | str | FailureLimit) -> FailureLimit:
        """Reads `100` or `"100"` as a number and `"5%"` as a share.

        Raises:
            ConfigError: it is neither.
        """
        if isinstance(value, FailureLimit):
            return value
        found = count_or_share(value)
        if found is None:
            raise ConfigError(
                f"max failures is {value!r}; give a number of items such as 100, or a share such "
                "as 5%"
            )
        return cls(*found)

    def __str__(self) -> str:
        if self.share is None:
            return f"{self.count:,}"
        return f"{self.share * 100:.4g}% of the items read"

    def check(self, written: Written, dead_letters: str | None) -> None:
        """Refuses a run in which too many items failed, or in which all did.

        Raises:
            TooManyFailures: with the first failures and where the others are.
        """
        failed, read = written.failed, written.read
        if not failed:
            return
        total = max(read, failed)
        # Rounded, because 0.29 * 100 is a little less than 29.
        allowed = self.count if self.share is None else int(round(self.share * total, 6))
        if failed >= max(read, 1):
            reason = "all of them"
        elif allowed is not None and failed > allowed:
            reason = f"more than the {self} that `max_failures` allows"
        else:
            return
        where = f" All are in {dead_letters}." if dead_letters else ""
        raise TooManyFailures(
            f"{failed:,} of {total:,} items failed, {reason}; nothing was committed."
            f"{where} The first: " + "; ".join(map(str, written.reasons.most(_SHOWN)))
        )


def count_or_share(value: int | str) -> tuple[int | None, float | None] | None:
    """Reads `100` or `"100"` as a number and `"5%"` as a share, from 0 to 1; None for all else."""
    text = str(value).strip()
    if re.fullmatch(r"[0-9]+", text):
        return int(text), None
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*%", text)
    if match and float(match[1]) <= 100:
        return None, float(match[1]) / 100
    return None


DEFAULT_MAX_DELETES = "50%"

#: A share of a source says little of so few deletions; one of fewer is exceeded by all only.
_FEW = 10

#: Under this name the record of a backfill says what its commits have deleted so far.
DELETES = "deletes"


@dataclass(frozen=True)
class Loss:
    """What a run would take away from one source.

    Attributes:
        name: The source's name, for people.
        stored: How many documents of it are stored.
        deleted: How many of them would be gone.
        gave_nothing: The run read all of the source, and there was nothing.
    """

    name: str
    stored: int
    deleted: int
    gave_nothing: bool = False


@dataclass(frozen=True)
class DeletionLimit:
    """A number of documents, or a share of a source's stored documents.

    Attributes:
        count: The most documents that a run may delete, or None.
        share: The largest share of a source that it may delete, from 0 to 1, or None.
    """

    count: int | None = None
    share: float | None = 0.5

    @classmethod
    def of(cls, value: int | str | DeletionLimit) -> DeletionLimit:
        """Reads `100` or `"100"` as a number and `"50%"` as a share.

        Raises:
            ConfigError: it is neither.
        """
        if isinstance(value, DeletionLimit):
            return value
        found = count_or_share(value)
        if found is None:
            raise ConfigError(
                f"max deletes is {value!r}; give a number of documents such as 100, or a share of "
                "a source's stored documents such as 50%"
            )
        return cls(*found)

    def __str__(self) -> str:
        return f"{self.count:,}" if self.share is None else f"{self.share * 100:.4g}%"

    def allows(self, deleted: int, stored: int) -> bool:
        """Tells whether so many of a source's stored documents may be deleted by one run."""
        if self.share is None:
            return deleted <= (self.count or 0)
        # Rounded, because 0.29 * 100 is a little less than 29.
        if deleted <= round(self.share * stored, 6):
            return True
        return self.share > 0 and deleted < min(_FEW, stored)

    def check(self, losses: Sequence[Loss]) -> None:
        """Refuses a run that takes too much away from a source.

        Raises:
            TooManyDeletes: with both numbers, and what allows it.
        """
        for loss in losses:
            if self.allows(loss.deleted, loss.stored):
                continue
            if loss.gave_nothing:
                source = "the source" if len(losses) == 1 else loss.name
                stored = (
                    "1 of its documents is"
                    if loss.stored == 1
                    else (f"{loss.stored:,} of its documents are")
                )
                raise TooManyDeletes(
                    f"{source} gave nothing, and {stored} stored; nothing was deleted. If it "
                    'really is empty: max_deletes="100%"'
                )
            reason = f"more than the {self} that `max_deletes` allows"
            if loss.deleted >= loss.stored:
                reason = "all of them"
            documents = "document" if loss.stored == 1 else "documents"
            raise TooManyDeletes(
                f"the run would delete {loss.deleted:,} of the {loss.stored:,} stored {documents} "
                f"of {loss.name}, {reason}; nothing was committed. If they really are gone: "
                f'max_deletes="100%", or a number such as {loss.deleted}'
            )


@dataclass(frozen=True)
class Deleted:
    """What the commits of one backfill have deleted so far; the brake takes them as one run.

    Attributes:
        base: The version before its first commit; 0 where there was none.
        counts: How many of the documents in it were deleted, by the id of their source.
    """

    base: int
    counts: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, backfill: Mapping[str, Any]) -> Deleted | None:
        """Reads it from the record of a backfill; None where that says nothing."""
        told = backfill.get(DELETES)
        if not isinstance(told, dict) or not isinstance(told.get("base"), int):
            return None
        return cls(told["base"], dict(told.get("counts") or {}))

    def recorded_in(self, backfill: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the record of a backfill with this in it."""
        return {**backfill, DELETES: {"base": self.base, "counts": dict(self.counts)}}


def count_gone(
    dataset: lance.LanceDataset,
    columns: Iterable[str],
    is_gone: Callable[[pa.RecordBatch, Addresses], Mask],
) -> dict[str, tuple[int, int]]:
    """Counts the documents of each source in a version, and those that would be gone.

    Args:
        dataset: The version.
        columns: What `is_gone` looks at.
        is_gone: Gets rows and their addresses, and marks those that would be gone.

    Returns:
        Both numbers by the id of the source; that of documents without one is empty.
    """
    found: dict[str, tuple[int, int]] = {}
    wanted = [*columns, "x_source"]
    for batch, addresses in scan_rows(dataset, wanted, filter=documents_in(dataset)):
        sources = pc.fill_null(batch.column("x_source"), "")
        gone = sources.filter(pa.array(is_gone(batch, addresses)))
        for place, values in enumerate((sources, gone)):
            for one in pc.value_counts(values).to_pylist():
                counts = list(found.get(one["values"], (0, 0)))
                counts[place] += one["counts"]
                found[one["values"]] = (counts[0], counts[1])
    return found


def at(addresses: Addresses) -> Callable[[pa.RecordBatch, Addresses], Mask]:
    """Marks the rows at these addresses, for `count_gone`."""
    return lambda _, found: np.isin(found, addresses)


def without(keys: KeySet) -> Callable[[pa.RecordBatch, Addresses], Mask]:
    """Marks the rows whose uuid is not among these, for `count_gone`."""
    return lambda batch, _: ~keys.contains(batch.column("uuid"))


def among(keys: KeySet) -> Callable[[pa.RecordBatch, Addresses], Mask]:
    """Marks the rows whose uuid is among these, for `count_gone`."""
    return lambda batch, _: keys.contains(batch.column("uuid"))
