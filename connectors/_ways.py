"""The ways in which a connector can be read, and which one is the best for a class.

Each way turns what authors write into the same thing: partitions of a known number of blocks, and
for each block a sequence of pages. `source.py` plans, claims and reads with any of them.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import Any, ClassVar

from contextframe_beam.connectors import base, kinds
from contextframe_beam.connectors._calls import each, guarded, shown, whole_number
from contextframe_beam.connectors._identity import GIVEN_BY_RUN, Arguments, arguments_of
from contextframe_beam.connectors._prefetch import read_ahead
from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.bounds import RESUMES_AT, Bounds, parsed_time, text_of
from contextframe_beam.connectors.kinds import looked_back
from contextframe_beam.connectors.page import WHOLE, Page, Partition
from contextframe_beam.errors import ConfigError, ConnectorError

_ITEMS_IN_A_PAGE = 500
_OURS = (base.__name__, kinds.__name__)
_NO_ARGUMENTS = Arguments({}, False)
_ENDS = {"since", "until"}
#: Under this name a plan says which part of the source it leaves out.
SKIPPED = ""
_EARLIEST = "1970-01-01T00:00:00+00:00"


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
        elsewhere; the newest slice, which has a state, goes on from that.
        """
        params = self.partition.params
        what = None
        if isinstance(params, Mapping):
            what = params.get("files") or params.get("file")
            if params.get("stateless"):
                what = params.get("until")
        return f"{self.id} {what!r}" if what else self.id


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


class Way(ABC):
    """A way of reading a connector.

    Attributes:
        at_once: How many blocks are read at the same time; with 1 no thread is used.
        ahead: How many blocks may be claimed before the first of them is through.
    """

    #: What a class defines to be read like this; the first one is required.
    methods: ClassVar[tuple[str, ...]]

    def __init__(self, connector: BaseConnector, kwargs: dict[str, Any], resume: Resume) -> None:
        self.connector: Any = connector
        self.kwargs = kwargs
        self.resume = resume
        self.at_once = self.ahead = 1
        #: After `plan`: what takes the place of all states, where the plan itself knows that.
        self.reached: dict[str, Any] | None = None

    @classmethod
    def takes(cls, connector: BaseConnector) -> Arguments:
        """Returns the arguments with which a connector is read in this way."""
        return _arguments(connector, cls.methods[0])

    @classmethod
    def ends(cls, connector: BaseConnector) -> set[str]:
        """Returns which of `since` and `until` a connector can be told in this way."""
        return set()

    @property
    def partial(self) -> str:
        """Why what is read is not the whole source; empty where it is."""
        if self.resume.is_bounded:
            return f"only what is of {self.resume.bounds} was read"
        return self._left_out()

    def _left_out(self) -> str:
        return ""

    def moves_state(self, part: Part) -> bool:
        """Tells whether the state of a part holds for its partition.

        A range of time says nothing about what lies before it.
        """
        return not self.resume.is_bounded

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


class PagesWay(Way):
    """`partitions` and `fetch_page`: by cursor, or by number where `count_pages` gives one."""

    methods = ("fetch_page", "partitions", "count_pages")

    def __init__(self, connector: BaseConnector, kwargs: dict[str, Any], resume: Resume) -> None:
        super().__init__(connector, kwargs, resume)
        self.at_once = max(int(getattr(connector, "max_in_flight", 16)), 1)
        self.ahead = _ahead_of(self.at_once)

    @classmethod
    def takes(cls, connector: BaseConnector) -> Arguments:
        return _without_given(_arguments(connector, "partitions"))

    @classmethod
    def ends(cls, connector: BaseConnector) -> set[str]:
        return _ENDS & set(_arguments(connector, "partitions").named)

    def moves_state(self, part: Part) -> bool:
        bounds, params = self.resume.bounds, part.partition.params
        if not bounds.given:
            return True
        if not isinstance(params, Mapping) or RESUMES_AT not in params:
            return False
        resumes = parsed_time(params[RESUMES_AT])
        return bounds.since is None or (resumes is not None and bounds.since <= resumes)

    def _left_out(self) -> str:
        if self.resume.known and "resume_from" in _arguments(self.connector, "partitions").named:
            return "it was read on from where an earlier run ended"
        return ""

    def plan(self) -> Iterator[Part]:
        for bounds in self.resume.bounds.slices():
            partitions = self._partitions(bounds)
            name = bounds.given["since"] if self.resume.bounds.slice else ""
            if _owner(type(self.connector), "count_pages") is None:
                for partition in partitions:
                    yield Part(partition, 1, slice=name)
                continue
            # The count is a request as well, so a thousand partitions are asked in parallel.
            for partition, total in read_ahead(
                partitions,
                lambda one: iter([(one, self._count(one))]),
                threads=self.at_once,
                ahead=self.ahead,
                key=lambda _: None,
                is_last=lambda _: True,
            ):
                yield Part(partition, max(total or 1, 1), total, name)

    def _partitions(self, bounds: Bounds) -> Iterator[Partition]:
        kwargs = {**self.kwargs, **bounds.given}
        partitions = getattr(self.connector, "partitions", None)
        if partitions is None:
            yield Partition(WHOLE)
            return
        if "resume_from" in _arguments(self.connector, "partitions").named:
            # Most connectors would take a state for another beginning of the range.
            tells = bounds.given and getattr(self.connector, "_tells_where_it_resumes", False)
            states = self.resume.states if tells and not self.resume.full_sync else None
            kwargs["resume_from"] = self.resume.known if states is None else dict(states)
        found = guarded(self.connector, "", "partitions()", lambda: partitions(**kwargs))
        if found is None or isinstance(found, str):
            raise ConnectorError(
                f"{self.connector.name}: partitions() returned {found!r}; return a list of names"
            )
        seen: set[str] = set()
        for given in each(self.connector, "", lambda _: "partitions()", found):
            one = Partition(given) if isinstance(given, str) else given
            if not isinstance(one, Partition):
                raise ConnectorError(
                    f"{self.connector.name}: partitions() gave a {type(one).__name__}; "
                    "give texts or Partition objects"
                )
            if not one.id:
                raise ConnectorError(
                    f"{self.connector.name}: partitions() gave a partition without a name"
                )
            if one.id in seen:
                raise ConnectorError(
                    f"{self.connector.name}: partitions() gave {one.id!r} twice; its items would "
                    "be read twice"
                )
            seen.add(one.id)
            yield one

    def _count(self, partition: Partition) -> int | None:
        total = guarded(
            self.connector,
            partition.id,
            "count_pages()",
            lambda: self.connector.count_pages(partition),
        )
        if total is None:
            return None
        return whole_number(total, f"{self.connector.name}: count_pages({partition.id!r})")

    def read(self, part: Part, block: int) -> Iterator[tuple[Page, int]]:
        if part.total == 0:
            yield Page([], finished=1), 0
            return
        partition = part.partition
        numbered = part.total is not None
        cursor: Any = block if numbered else None
        seen = {_fingerprint(cursor)}
        state = None
        while True:
            where = "first page" if cursor is None else f"page {shown(cursor)}"
            fetch = partial(self.connector.fetch_page, partition, cursor)
            page = guarded(self.connector, part.id, where, fetch)
            if not isinstance(page, Page):
                raise ConnectorError(
                    f"{self.connector.name}: partition {partition.id}, {where}: fetch_page "
                    f"returned a {type(page).__name__}; return a Page"
                )
            # A total may be too small: the last page of those that were counted may name another.
            cursor = page.next_cursor if block == part.blocks - 1 else None
            state = page.state if page.state is not None else state
            page = Page(
                page.items,
                position=page.position or where,
                failures=page.failures,
                partial=page.partial,
            )
            if cursor is None:
                # Only the last page carries the state: before it, the partition is not through.
                page.state = state if block == part.blocks - 1 else None
                page.finished = 1
                yield page, 0
                return
            yield page, 0
            if _fingerprint(cursor) in seen:
                raise ConnectorError(
                    f"{self.connector.name}: partition {partition.id}, {where}: the source gave "
                    f"the cursor {shown(cursor)} a second time, so reading would never end; "
                    "its pages may have changed meanwhile: run again, or correct fetch_page"
                )
            seen.add(_fingerprint(cursor))


class BlocksWay(Way):
    """`_plan` and `_read_block`: our own connectors that know their blocks, such as files."""

    methods = ("_read_block", "_plan")

    def __init__(self, connector: BaseConnector, kwargs: dict[str, Any], resume: Resume) -> None:
        super().__init__(connector, kwargs, resume)
        self.at_once = max(int(getattr(connector, "max_in_flight", 1)), 1)
        self.ahead = self.at_once
        self._skipped = ""

    @classmethod
    def takes(cls, connector: BaseConnector) -> Arguments:
        return _without_given(_arguments(connector, "_plan"))

    @classmethod
    def ends(cls, connector: BaseConnector) -> set[str]:
        return _ENDS & set(_arguments(connector, "_plan").named)

    def plan(self) -> Iterator[Part]:
        arguments = {**self.kwargs, **self.resume.bounds.given}
        reached: dict[str, Any] = {}
        if "reached" in _arguments(self.connector, "_plan").named:
            arguments.update(resume_from=self.resume.known, reached=reached)
        found = self.connector._plan(**arguments)
        for partition, blocks in each(self.connector, "", lambda _: "list", found):
            yield Part(partition, blocks)
        self._skipped = reached.pop(SKIPPED, "")
        self.reached = reached or None

    def _left_out(self) -> str:
        return self._skipped

    def read(self, part: Part, block: int) -> Iterator[tuple[Page, int]]:
        found = self.connector._read_block(part.partition, block)
        pages = each(self.connector, part.partition.id, lambda _: f"block {block}", found)
        page, size = next(pages, (Page([]), 0))
        for following in pages:
            yield page, size
            page, size = following
        page.finished = 1
        yield page, size


class BatchesWay(Way):
    """A total and `_fetch_batch(start, end)`."""

    methods = ("_fetch_batch", "total_items")

    def __init__(self, connector: BaseConnector, kwargs: dict[str, Any], resume: Resume) -> None:
        super().__init__(connector, kwargs, resume)
        self.at_once = max(int(getattr(connector, "max_workers", 4)), 1)
        self.ahead = _ahead_of(self.at_once)
        self._size = whole_number(
            getattr(connector, "batch_size", 100), f"{connector.name}: batch_size", least=1
        )

    @classmethod
    def takes(cls, connector: BaseConnector) -> Arguments:
        known = (
            "total_items" in vars(connector) or _owner(type(connector), "total_items") is not None
        )
        return arguments_of(_total_known if known else _total_unknown)

    def plan(self) -> Iterator[Part]:
        connector = self.connector
        total = self.kwargs.get("total_items")
        if total is None:
            total = connector.total_items
            if callable(total):
                total = guarded(connector, "", "total_items()", total)
        total = whole_number(total, f"{connector.name}: total_items")
        yield Part(Partition(WHOLE), max(-(-total // self._size), 1), total)

    def _left_out(self) -> str:
        total = self.kwargs.get("total_items")
        if total is None or _owner(type(self.connector), "total_items") is None:
            return ""
        return f"only {total:,} items were asked for"

    def read(self, part: Part, block: int) -> Iterator[tuple[Page, int]]:
        start = block * self._size
        end = min(start + self._size, part.total or 0)
        items: Any = []
        where = f"items {start} to {end}"
        if start < end:
            items = guarded(
                self.connector,
                part.partition.id,
                where,
                lambda: self.connector._fetch_batch(start, end),
            )
        items = _list_of(items, self.connector, "_fetch_batch")
        yield Page(items, position=where, finished=1), 0


class StreamWay(Way):
    """`sync_documents_stream`: one item after the other, never all of them."""

    methods: ClassVar[tuple[str, ...]] = ("sync_documents_stream",)

    def plan(self) -> Iterator[Part]:
        yield Part(Partition(WHOLE), 1)

    def read(self, part: Part, block: int) -> Iterator[tuple[Page, int]]:
        items = guarded(self.connector, part.id, self.methods[0], self._items)
        if items is None:
            _list_of(items, self.connector, self.methods[0])
        return self._paged(part.id, items)

    def _items(self) -> Any:
        return getattr(self.connector, self.methods[0])(**self.kwargs)

    def _paged(
        self, partition: str, items: Iterable[Any], state: dict[str, Any] | None = None
    ) -> Iterator[tuple[Page, int]]:
        checked = each(self.connector, partition, lambda count: f"item {count}", items)
        start = 0
        found = list(itertools.islice(checked, _ITEMS_IN_A_PAGE))
        while True:
            # One item more tells whether this page is the last one.
            beyond = list(itertools.islice(checked, 1))
            page = Page(found, position=f"items {start} to {start + len(found)}")
            if not beyond:
                page.state, page.finished = state, 1
                yield page, 0
                return
            yield page, 0
            start += len(found)
            found = [*beyond, *itertools.islice(checked, _ITEMS_IN_A_PAGE - 1)]


class ChangesWay(StreamWay):
    """`_full_sync` and `_incremental_sync(since)`: what changed since the last run."""

    methods = ("_full_sync", "_incremental_sync")

    @classmethod
    def ends(cls, connector: BaseConnector) -> set[str]:
        if _owner(type(connector), "_incremental_sync") is None:
            return set()
        return {"since"} | (_ENDS & set(_arguments(connector, "_incremental_sync").named))

    def _reached(self, states: Mapping[str, Any]) -> str | None:
        known = states.get(WHOLE)
        since = known.get("since") if isinstance(known, Mapping) else None
        return since if since and hasattr(self.connector, "_incremental_sync") else None

    @property
    def _since(self) -> str | None:
        return self._reached(self.resume.known)

    def moves_state(self, part: Part) -> bool:
        bounds, reached = self.resume.bounds, self._reached(self.resume.states)
        if not bounds.given:
            return True
        if reached is None or part.partition.params.get("until") != bounds.given.get("until"):
            return False
        since = parsed_time(looked_back(reached, self.connector.lookback))
        end = self._end(datetime.now(timezone.utc))
        return (
            since is not None
            and (bounds.since is None or bounds.since <= since)
            and text_of(end) > reached
        )

    def _end(self, began: datetime) -> datetime:
        """Returns up to when all is known that was read."""
        return min(began, self.resume.bounds.until or began)

    def _left_out(self) -> str:
        return f"only what changed since {self._since} was read" if self._since else ""

    def plan(self) -> Iterator[Part]:
        for bounds in self.resume.bounds.slices():
            name = bounds.given["since"] if self.resume.bounds.slice else ""
            yield Part(Partition(WHOLE, bounds.given), 1, slice=name)

    def read(self, part: Part, block: int) -> Iterator[tuple[Page, int]]:
        connector = self.connector
        # What changes while this run reads is read again by the next one.
        began = datetime.now(timezone.utc)
        bounds, since = part.partition.params, self._since
        if bounds:
            arguments = {"since": _EARLIEST, **bounds}
            name, call = (
                "_incremental_sync",
                lambda: connector._incremental_sync(**arguments, **self.kwargs),
            )
        elif since:
            name, call = (
                "_incremental_sync",
                lambda: connector._incremental_sync(
                    looked_back(since, connector.lookback), **self.kwargs
                ),
            )
        else:
            name, call = "_full_sync", lambda: connector._full_sync(**self.kwargs)
        items = guarded(connector, part.id, name, call)
        if items is None:
            _list_of(items, connector, name)
        return self._paged(part.id, items, {"since": text_of(self._end(began))})


class ListWay(StreamWay):
    """`sync_documents`, as on the simplest connector."""

    methods = ("sync_documents",)

    def _items(self) -> Any:
        kwargs = self.kwargs
        if self.resume.full_sync and "full_sync" in self.takes(self.connector).named:
            kwargs = {"full_sync": True, **kwargs}
        return self.connector.sync_documents(**kwargs)


_BEST_FIRST: tuple[type[Way], ...] = (
    PagesWay,
    BlocksWay,
    BatchesWay,
    StreamWay,
    ChangesWay,
    ListWay,
)


def choose_way(connector: BaseConnector, kwargs: Mapping[str, Any]) -> type[Way]:
    """Returns the best way in which a connector can be read with these arguments.

    What a subclass writes anew comes before what it inherits: one that overrides only
    `sync_documents` wants that to be called.

    Raises:
        ConfigError: the class does not say how to read, or takes no such arguments.
    """
    kind = type(connector)
    depths: dict[type[Way], int] = {}
    for way in _BEST_FIRST:
        owners = [_owner(kind, name) for name in way.methods]
        if owners[0] is not None:
            depths[way] = min(owner for owner in owners if owner is not None)
    if not depths:
        raise ConfigError(
            f"{kind.__name__} does not say how to read: write sync_documents(self, **kwargs), or "
            "sync_documents_stream, or derive it from one of the classes in connectors.kinds"
        )
    problems: list[str] = []
    for way in sorted(depths, key=lambda one: depths[one]):
        problem = wrong_arguments(way.takes(connector), kwargs)
        if not problem:
            return way
        problems.append(problem)
    raise ConfigError(f"{kind.__name__}: {problems[0]}")


def wrong_arguments(takes: Arguments, given: Mapping[str, Any]) -> str:
    """Returns what is wrong with the arguments given; "" when nothing is."""
    for name in given:
        if name in takes.named or takes.is_open:
            continue
        if not takes.named:
            return f"it takes no arguments to read with, so not {name!r} either"
        near = difflib.get_close_matches(name, takes.named, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(takes.named)}"
        return f"there is no argument {name!r} to read with; {hint}"
    for name, parameter in takes.named.items():
        if parameter.default is parameter.empty and name not in given:
            return f"it needs {name!r} to read with; give {name}=..."
    return ""


def _ahead_of(at_once: int) -> int:
    # Half as much again: where pages must come in order, one slow request does not let the others
    # stand idle, and the requests of twenty partitions are spread evenly over sixteen threads.
    return at_once + at_once // 2


def _list_of(items: Any, connector: Any, method: str) -> list[Any]:
    if items is None:
        raise ConnectorError(
            f"{connector.name}: {method} returned None; return the items, [] when there are none"
        )
    return items if isinstance(items, list) else list(items)


def _fingerprint(cursor: Any) -> bytes:
    # Sources of a million pages exist, and so do cursors of a kilobyte.
    return hashlib.blake2b(repr(cursor).encode(errors="replace"), digest_size=12).digest()


def _owner(kind: type, name: str) -> int | None:
    """Returns how far up in the MRO the author's own definition stands; None if there is none."""
    for depth, one in enumerate(kind.__mro__):
        if name in vars(one):
            return None if one.__module__ in _OURS or one is object else depth
    return None


def _arguments(connector: BaseConnector, name: str) -> Arguments:
    kind = type(connector)
    if _owner(kind, name) is None:
        return _NO_ARGUMENTS
    return arguments_of(getattr(kind, name))


def _without_given(arguments: Arguments) -> Arguments:
    """Returns arguments without those that a run gives by itself."""
    named = {name: one for name, one in arguments.named.items() if name not in GIVEN_BY_RUN}
    return Arguments(named, arguments.is_open)


def _total_known(total_items: int | None = None) -> None:
    """Has the signature of reading batches when the connector knows their total."""


def _total_unknown(total_items: int) -> None:
    """Has the signature of reading batches when it must be told."""
