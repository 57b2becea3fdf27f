"""What readers and the commit both know.

It stands by itself, because readers do without Lance: it takes its time to load, and warns of
the forks that workers are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Arguments of `sync_documents` that only choose less of a source: they are no part of its
#: identity. In the release 0.1 they were, so that each choice had an id and a state of its own.
NARROWING = frozenset(
    {
        "limit",
        "max_documents",
        "max_items",
        "max_pages",
        "max_records",
        "max_results",
        "only",
        "since",
        "until",
    }
)

#: Source id of what is written without a connector.
NO_SOURCE = "records"

#: The name, in the state of a partition that is a slice of time of another one, under which it says
#: so: `of` which, `from` when it begins, and `last` on the newest one. They become one state when
#: the newest one is there: that of the last of them that reached anything.
SLICE = "slice_of_time"


@dataclass(frozen=True, slots=True)
class StateChange:
    """What a run says about the state of a source as a whole, beside the states of partitions.

    Attributes:
        partitions: Takes the place of the states of all partitions so far; None leaves them.
        reached: States of partitions that are added to those so far.
        sliced: Whether states come from slices of time of partitions, whose names stand behind
            those of the partitions.
        whole: Whether all of the source is read, and not a range of it.
        backfill: The record of a backfill that goes on after this commit, which is empty at its
            end; None leaves the record that there is.
        continues: The run id of the commit before, which this one takes in; "" where there is none.
    """

    partitions: Mapping[str, Any] | None = None
    reached: Mapping[str, Any] = field(default_factory=dict)
    sliced: bool = False
    whole: bool = False
    backfill: Mapping[str, Any] | None = None
    continues: str = ""

    @property
    def moves_state(self) -> bool:
        """Whether a state is another one after it."""
        return self not in (NO_CHANGE, StateChange(whole=True))


#: A change of nothing.
NO_CHANGE = StateChange()
