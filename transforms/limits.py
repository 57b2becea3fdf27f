"""The limits of a run: how many items may fail, and how many documents it may delete."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

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

#: The number of reasons in the message.
_SHOWN = 3

_AnyLimit = TypeVar("_AnyLimit", bound="_Limit")


@dataclass(frozen=True)
class _Limit:
    """A number, or a share of what there is.

    Attributes:
        count: The largest number that is allowed, or None.
        share: The largest share that is allowed, from 0 to 1, or None.
    """

    count: int | None = None
    share: float | None = None

    #: For messages: what the setting is called, and the two forms that it may have.
    _setting: ClassVar[str]
    _forms: ClassVar[str]

    @classmethod
    def of(cls: type[_AnyLimit], value: int | str | _AnyLimit) -> _AnyLimit:
        """Reads `100` or `"100"` as a number and `"5%"` as a share.

        Raises:
            ConfigError: it has neither form.
        """
        if isinstance(value, cls):
            return value
        found = count_or_share(value)
        if found is None:
            raise ConfigError(f"{cls._setting} is {value!r}; give {cls._forms}")
        return cls(*found)

    def _of(self, total: int) -> float:
        """Returns how many of a total the share allows."""
        # Rounded, because 0.29 * 100 is a little less than 29.
        return round((self.share or 0) * total, 6)

    def _shown(self) -> str:
        return f"{self.count:,}" if self.share is None else f"{self.share * 100:.4g}%"


@dataclass(frozen=True)
class FailureLimit(_Limit):
    """How many items may fail: a number, or a share of the items read."""

    count: int | None = DEFAULT_MAX_FAILURES

    _setting = "max failures"
    _forms = "a number of items such as 100, or a share such as 5%"

    def __str__(self) -> str:
        return self._shown() if self.share is None else f"{self._shown()} of the items read"

    def check(self, written: Written, dead_letters: str | None) -> None:
        """Refuses a run if too many items failed, or all of them.

        Raises:
            TooManyFailures: with the first failures, and the file with the others.
        """
        failed, read = written.failed, written.read
        if not failed:
            return
        total = max(read, failed)
        allowed = self.count if self.share is None else int(self._of(total))
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


def count_or_share(value: object) -> tuple[int | None, float | None] | None:
    """Reads `100` or `"100"` as a number and `"5%"` as a share from 0 to 1; else returns None."""
    text = str(value).strip()
    if re.fullmatch(r"[0-9]+", text):
        return int(text), None
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*%", text)
    if match and float(match[1]) <= 100:
        return None, float(match[1]) / 100
    return None


DEFAULT_MAX_DELETES = "50%"

#: For fewer deletions a share means little, and only the deletion of all documents exceeds it.
_FEW = 10

#: The key of the deletions so far in the record of a backfill.
DELETES = "deletes"


@dataclass(frozen=True)
class Loss:
    """The loss of one source by a run.

    Attributes:
        name: The source's name, for people.
        stored: The number of its stored documents.
        deleted: How many of them would be deleted.
        gave_nothing: Whether the run read all of the source, and it was empty.
    """

    name: str
    stored: int
    deleted: int
    gave_nothing: bool = False


@dataclass(frozen=True)
class DeletionLimit(_Limit):
    """How many documents a run may delete: a number, or a share of a source's stored documents."""

    share: float | None = 0.5

    _setting = "max deletes"
    _forms = (
        "a number of documents such as 100, or a share of a source's stored documents such as 50%"
    )

    def __str__(self) -> str:
        return self._shown()

    def allows(self, deleted: int, stored: int) -> bool:
        """Returns whether one run may delete this many of a source's stored documents."""
        if self.share is None:
            return deleted <= (self.count or 0)
        if deleted <= self._of(stored):
            return True
        return self.share > 0 and deleted < min(_FEW, stored)

    def check(self, losses: Sequence[Loss]) -> None:
        """Refuses a run that would delete too much of a source.

        Raises:
            TooManyDeletes: with both numbers, and the option that allows it.
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
    """The deletions of a backfill so far; the limit counts its commits as one run.

    Attributes:
        base: The version before its first commit; 0 if there was no dataset.
        counts: The number of deleted documents of that version, by the id of their source.
    """

    base: int
    counts: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, backfill: Mapping[str, Any]) -> Deleted | None:
        """Reads it from the record of a backfill; None if the record does not have it."""
        told = backfill.get(DELETES)
        if not isinstance(told, dict) or not isinstance(told.get("base"), int):
            return None
        return cls(told["base"], dict(told.get("counts") or {}))

    def recorded_in(self, backfill: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the record of a backfill with these deletions."""
        return {**backfill, DELETES: {"base": self.base, "counts": dict(self.counts)}}


def count_gone(
    dataset: lance.LanceDataset,
    columns: Iterable[str],
    is_gone: Callable[[pa.RecordBatch, Addresses], Mask],
) -> dict[str, tuple[int, int]]:
    """Counts the documents of each source in a version, and those that would be deleted.

    Args:
        dataset: The version.
        columns: The columns that `is_gone` needs.
        is_gone: Marks the rows that would be deleted, from the rows and their addresses.

    Returns:
        Both numbers by the id of the source, which is empty for documents without a source.
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
