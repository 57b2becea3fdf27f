"""Why items of a run failed, grouped: a thousand items mostly have one or two reasons."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

#: The logger that tells of commits which are not complete. The command line says the same itself.
COMMITS = "contextframe_beam.commits"

#: A run's receipt has at most so many reasons, those of most items.
MAX_REASONS = 10

#: So many are told apart while a run goes on; what comes after them is counted by its type.
_MAX_APART = 200

_TEXT_LIMIT = 300
_NUMBER = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class FailureReason:
    """One reason, and how many items failed for it.

    Attributes:
        error: The type of the exception, as in `KeyError`.
        message: What it said of one of the items; those of the others differ in numbers at most.
        count: How many items.
        place: Where that item was: stage, partition, position.
    """

    error: str
    message: str
    count: int = 1
    place: str = ""

    @classmethod
    def of(cls, error_type: str, message: str, place: str) -> FailureReason:
        """Returns the reason of one item.

        Args:
            error_type: The qualified name of the exception's type.
            message: What it said.
            place: Where the item was.
        """
        return cls(error_type.rpartition(".")[2], _shortened(message), 1, _shortened(place))

    @property
    def kind(self) -> tuple[str, str]:
        """What items of one reason have in common."""
        return self.error, _NUMBER.sub("0", self.message)

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        items = f", {self.count:,} items" if self.count > 1 else ""
        return f"{where}{self.message} ({self.error}{items})"

    @classmethod
    def from_json(cls, value: Any) -> FailureReason:
        """Reads a reason of a stored receipt, whatever a later release has put into it."""
        told: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
        count = told.get("count")
        return cls(
            str(told.get("error", "")),
            str(told.get("message", "")),
            count if isinstance(count, int) else 1,
            str(told.get("place", "")),
        )


class Reasons:
    """Adds up reasons, in whatever order they come.

    Args:
        reasons: Those to begin with.
    """

    def __init__(self, reasons: Iterable[FailureReason] = ()) -> None:
        self._by_kind: dict[tuple[str, str], FailureReason] = {}
        self.add(reasons)

    def add(self, reasons: Iterable[FailureReason]) -> None:
        """Adds some more."""
        for one in reasons:
            kind = one.kind
            if kind not in self._by_kind and len(self._by_kind) >= _MAX_APART:
                one = replace(one, message="other reasons", place="")
                kind = one.kind
            known = self._by_kind.get(kind)
            if known is not None:
                first = min(known, one, key=lambda reason: (reason.place, reason.message))
                one = replace(first, count=known.count + one.count)
            self._by_kind[kind] = one

    def most(self, count: int = MAX_REASONS) -> tuple[FailureReason, ...]:
        """Returns the reasons of most items, the most frequent one first."""
        ordered = sorted(
            self._by_kind.values(),
            key=lambda one: (-one.count, one.place, one.error, one.message),
        )
        return tuple(ordered[:count])

    def all(self) -> tuple[FailureReason, ...]:
        """Returns all reasons."""
        return self.most(len(self._by_kind))


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _TEXT_LIMIT else f"{line[:_TEXT_LIMIT]}..."
