"""The common part of all readers: parts of a plan, where to resume, the author's methods.

Each reader turns an author's methods into the same form: partitions with a known number of blocks,
and a sequence of pages for each block. `source.py` plans, claims and reads with any reader.
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

#: The arguments for a range of time.
ENDS = {"since", "until"}

#: Why a run leaves something out that continues an earlier one.
READ_ON = "it was read on from where an earlier run ended"

_NO_ARGUMENTS = Arguments({}, False)


@dataclass(frozen=True, slots=True)
class Part:
    """A planned partition.

    Attributes:
        partition: What is read.
        blocks: The number of its blocks; each can be read on its own.
        total: The number of its pages or items, if the source knows it.
        slice: Its slice of time; empty without slices.
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
        """Names the content to read.

        The name changes when one of its files changes, or when its slice of time gets another end;
        the newest slice, which moves the state, continues from there.
        """
        what = self.partition.content
        return f"{self.id} {what!r}" if what else self.id


@dataclass(slots=True)
class PlannedRun:
    """A run as a plan sees it: what it asks for, and what the plan says beside its parts.

    Attributes:
        since: Only what changed at this time or later, ISO 8601; None for the beginning of all.
        until: Only what changed before this time; None without an end.
        resume_from: The states to continue from, by the id of the part; empty if the run reads
            everything, or a range of time.
        known_states: The states that an earlier run left, in any case.
        made_with: What documents are made with. What an earlier run made with something else is
            made again. Empty where that is unknown.
        anew: Whether to make all documents again, also of what has not changed.
        reached: To be set by a plan that knows them: the states after all parts are read. They
            replace those of all parts; a part may still add its own.
        narrowed: To be set: which part of the source the plan leaves out, in words that go on after
            "because"; empty if it leaves nothing out. A mirror then deletes nothing that it did not
            see. By default a run that has states to continue from leaves something out.
    """

    since: str | None = None
    until: str | None = None
    resume_from: Mapping[str, Any] = field(default_factory=dict)
    known_states: Mapping[str, Any] = field(default_factory=dict)
    made_with: str = ""
    anew: bool = False
    reached: dict[str, Any] = field(default_factory=dict)
    narrowed: str | None = None


@dataclass(frozen=True, slots=True)
class Resume:
    """Where an earlier run ended, and what this run should read.

    Attributes:
        full_sync: Read everything, regardless of the states.
        states: The state of each partition, by its id.
        bounds: The range of time to read, regardless of the states.
        made_with: What documents are made with. What an earlier run made with something else is
            made again. Empty where that is unknown.
        anew: Whether to make all documents again, also of what has not changed.
    """

    full_sync: bool
    states: Mapping[str, Any]
    bounds: Bounds
    made_with: str = ""
    anew: bool = False

    @property
    def is_bounded(self) -> bool:
        """Whether a range of time is asked for."""
        return bool(self.bounds.given)

    @property
    def known(self) -> dict[str, Any]:
        """The states to continue from; empty if everything, or a range of time, is read."""
        return {} if self.full_sync or self.is_bounded else dict(self.states)


class Reader(ABC):
    """Reads a connector through certain methods of its author.

    Attributes:
        at_once: How many blocks are read at the same time; 1 does not use threads.
        ahead: How many blocks may be claimed before the first of them is complete.
    """

    #: The methods of a class for this reader; the first one is required.
    methods: ClassVar[tuple[str, ...]]

    def __init__(self, connector: BaseConnector, kwargs: dict[str, Any], resume: Resume) -> None:
        self.connector: Any = connector
        self.kwargs = kwargs
        self.resume = resume
        self.at_once = self.ahead = 1
        #: The arguments that select a part of the source.
        self.chosen = {
            name: kwargs[name]
            for name in sorted(NARROWING & set(kwargs))
            if kwargs[name] not in (None, "", [], ())
        }
        #: After `plan`: the new states, if the plan knows them, which replace all others.
        self.reached: dict[str, Any] | None = None

    @classmethod
    def takes(cls, connector: BaseConnector) -> Arguments:
        """Returns the arguments for reading a connector."""
        return arguments_at(connector, cls.methods[0])

    @classmethod
    def ends(cls, connector: BaseConnector) -> set[str]:
        """Returns which of `since` and `until` a connector accepts."""
        return set()

    @property
    def narrowed(self) -> str:
        """Why the run does not read the whole source; empty if it does."""
        if self.resume.is_bounded:
            return f"only what is of {self.resume.bounds} was read"
        if self.chosen:
            return f"it was narrowed by {' and '.join(map(_shown, self.chosen.items()))}"
        return self._left_out()

    def _left_out(self) -> str:
        return ""

    def moves_state(self, part: Part) -> bool:
        """Returns whether the state of a part holds for its partition.

        After a run over a range of time, or over a selection, we know nothing about the rest.
        """
        return not self.resume.is_bounded and not self.cuts

    @property
    def cuts(self) -> bool:
        """Whether arguments select a part of the source, even within a partition."""
        return not set(self.chosen) <= set(getattr(self.connector, "_by_partition", ()))

    @abstractmethod
    def plan(self) -> Iterator[Part]:
        """Yields the partitions.

        Raises:
            ConnectorError: the source cannot be planned.
        """

    @abstractmethod
    def read(self, part: Part, block: int) -> Iterator[Page]:
        """Yields the pages of one block.

        Only the last page of a block has `finished` set.
        """


def _shown(argument: tuple[str, Any]) -> str:
    name, value = argument
    shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return redact(f"{name} ({shown})")


def ahead_of(at_once: int) -> int:
    """Returns how many blocks may be claimed if `at_once` of them are read at once."""
    # Half as many again: if pages must come in order, the others go on during one slow request,
    # and the requests of twenty partitions are spread evenly over sixteen threads.
    return at_once + at_once // 2


def list_of(items: Any, connector: Any, method: str) -> list[Any]:
    """Returns the items from a connector as a list.

    Raises:
        ConnectorError: the value cannot contain items.
    """
    found = checked_items(items, connector, f"{method} returned")
    return found if isinstance(found, list) else list(found)


def owner_of(kind: type, name: str) -> int | None:
    """Returns the position of the author's own definition in the MRO, or None."""
    for depth, one in enumerate(kind.__mro__):
        if name in vars(one):
            return None if one.__module__ in OURS or one is object else depth
    return None


def arguments_at(connector: BaseConnector, name: str) -> Arguments:
    """Returns the arguments of the author's method; empty if the author did not write it."""
    kind = type(connector)
    if owner_of(kind, name) is None:
        return _NO_ARGUMENTS
    return arguments_of(getattr(kind, name))


def without_given(arguments: Arguments) -> Arguments:
    """Returns arguments without those that the run itself provides."""
    named = {name: one for name, one in arguments.named.items() if name not in GIVEN_BY_RUN}
    return Arguments(named, arguments.is_open)
