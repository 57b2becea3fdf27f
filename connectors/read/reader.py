"""What the readers of connectors share: parts, where to resume, what authors wrote.

Each reader turns what authors write into the same thing: partitions of a known number of blocks,
and for each block a sequence of pages. `source.py` plans, claims and reads with any of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.cursors import Bounds
from contextframe_beam.connectors.identity import (
    GIVEN_BY_RUN,
    OURS,
    Arguments,
    arguments_of,
    checked_items,
)
from contextframe_beam.connectors.page import Page, Partition
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.store.runs import NARROWING

#: The arguments by which a connector is told a range of time.
ENDS = {"since", "until"}

_NO_ARGUMENTS = Arguments({}, False)


@dataclass(frozen=True, slots=True)
class Part:
    """A partition as it was planned.

    Attributes:
        partition: What is read.
        blocks: How many blocks it has; each can be read by itself.
        total: How many pages or items it has, where the source tells.
        slice: Which slice of time of the partition it is; empty when time is not sliced.
    """

    partition: Partition
    blocks: int
    total: int | None = None
    slice: str = ""

    @property
    def id(self) -> str:
        """Names the part within the plan."""
        return f"{self.partition.id} {self.slice}" if self.slice else self.partition.id

    @property
    def content(self) -> str:
        """Names what is read.

        Files are something else when one of them has changed, and a slice of time when it ends
        elsewhere; the newest slice, with which the state moves, goes on from that.
        """
        what = self.partition.content
        return f"{self.id} {what!r}" if what else self.id


@dataclass(slots=True)
class Reached:
    """What a plan tells beside its parts.

    Attributes:
        states: The states that hold when all that was planned is read; none where that is not
            known.
        skipped: Which part of the source it leaves out; empty where it is none.
    """

    states: dict[str, Any] = field(default_factory=dict)
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class Resume:
    """Where an earlier run ended, and what of the source this one is to read.

    Attributes:
        full_sync: Read everything, whatever the states say.
        states: The state of each partition, by its id.
        bounds: The range of time to read; the states say nothing about it.
    """

    full_sync: bool
    states: Mapping[str, Any]
    bounds: Bounds

    @property
    def is_bounded(self) -> bool:
        """Whether a range of time is asked for."""
        return bool(self.bounds.given)

    @property
    def known(self) -> dict[str, Any]:
        """The states to go on from; none where everything, or a range of time, is read."""
        return {} if self.full_sync or self.is_bounded else dict(self.states)


class Reader(ABC):
    """Reads a connector by certain methods that its author wrote.

    Attributes:
        at_once: How many blocks are read at the same time; with 1 no thread is used.
        ahead: How many blocks may be claimed before the first of them is through.
    """

    #: What a class defines to be read by this reader; the first one is required.
    methods: ClassVar[tuple[str, ...]]

    def __init__(self, connector: BaseConnector, kwargs: dict[str, Any], resume: Resume) -> None:
        self.connector: Any = connector
        self.kwargs = kwargs
        self.resume = resume
        self.at_once = self.ahead = 1
        #: The arguments that choose less of the source.
        self.chosen = {
            name: kwargs[name]
            for name in sorted(NARROWING & set(kwargs))
            if kwargs[name] not in (None, "", [], ())
        }
        #: After `plan`: what takes the place of all states, where the plan itself knows that.
        self.reached: dict[str, Any] | None = None

    @classmethod
    def takes(cls, connector: BaseConnector) -> Arguments:
        """Returns the arguments with which a connector is read."""
        return arguments_at(connector, cls.methods[0])

    @classmethod
    def ends(cls, connector: BaseConnector) -> set[str]:
        """Returns which of `since` and `until` a connector can be told."""
        return set()

    @property
    def narrowed(self) -> str:
        """Why what is read is not the whole source; empty where it is."""
        if self.resume.is_bounded:
            return f"only what is of {self.resume.bounds} was read"
        if self.chosen:
            return f"it was narrowed by {' and '.join(map(_shown, self.chosen.items()))}"
        return self._left_out()

    def _left_out(self) -> str:
        return ""

    def moves_state(self, part: Part) -> bool:
        """Tells whether the state of a part holds for its partition.

        A range of time says nothing about what lies before it, and neither does a choice.
        """
        return not self.resume.is_bounded and not self.cuts

    @property
    def cuts(self) -> bool:
        """Whether arguments choose less of the source, also within a partition."""
        return not set(self.chosen) <= set(getattr(self.connector, "_by_partition", ()))

    @abstractmethod
    def plan(self) -> Iterator[Part]:
        """Yields the partitions.

        Raises:
            ConnectorError: the source cannot say what it has.
        """

    @abstractmethod
    def read(self, part: Part, block: int) -> Iterator[tuple[Page, int]]:
        """Yields the pages of one block, each with the bytes read for it where that is known.

        The last page of a block, and only that, has `finished` set.
        """


def _shown(argument: tuple[str, Any]) -> str:
    name, value = argument
    shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return redact(f"{name} ({shown})")


def ahead_of(at_once: int) -> int:
    """Returns how many blocks may be claimed where so many are read at once."""
    # Half as much again: where pages must come in order, one slow request does not let the others
    # stand idle, and the requests of twenty partitions are spread evenly over sixteen threads.
    return at_once + at_once // 2


def list_of(items: Any, connector: Any, method: str) -> list[Any]:
    """Returns what a connector gave as a list.

    Raises:
        ConnectorError: it gave nothing that holds items.
    """
    found = checked_items(items, connector, f"{method} returned")
    return found if isinstance(found, list) else list(found)


def owner_of(kind: type, name: str) -> int | None:
    """Returns how far up in the MRO the author's own definition stands; None if there is none."""
    for depth, one in enumerate(kind.__mro__):
        if name in vars(one):
            return None if one.__module__ in OURS or one is object else depth
    return None


def arguments_at(connector: BaseConnector, name: str) -> Arguments:
    """Returns the arguments of a method that the author wrote; none where there is none."""
    kind = type(connector)
    if owner_of(kind, name) is None:
        return _NO_ARGUMENTS
    return arguments_of(getattr(kind, name))


def without_given(arguments: Arguments) -> Arguments:
    """Returns arguments without those that a run gives by itself."""
    named = {name: one for name, one in arguments.named.items() if name not in GIVEN_BY_RUN}
    return Arguments(named, arguments.is_open)
