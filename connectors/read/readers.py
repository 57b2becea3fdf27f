"""A reader for each kind of connector: pages, blocks, batches, streams, changes and lists."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from functools import cached_property, partial
from typing import Any, ClassVar, cast

from contextframe_beam.connectors.ahead import read_ahead
from contextframe_beam.connectors.base import BaseConnector, require_connector
from contextframe_beam.connectors.cursors import Bounds, is_ahead, text_of
from contextframe_beam.connectors.identity import (
    Arguments,
    arguments_of,
    checked_items,
    each,
    guarded,
    page_name,
    shown,
    whole_number,
)
from contextframe_beam.connectors.page import WHOLE, Page, Partition
from contextframe_beam.connectors.read.reader import (
    ENDS,
    READ_ON,
    Part,
    PlannedRun,
    Reader,
    Resume,
    ahead_of,
    arguments_at,
    list_of,
    owner_of,
    without_given,
)
from contextframe_beam.errors import ConfigError, ConnectorError, nearest
from contextframe_beam.frames.times import datetime_of, instant_of, seconds_in, when


class _PlannedReader(Reader):
    """Plans with a method of the author, which gets the states and the range of time."""

    #: The method that plans.
    planner: ClassVar[str]

    @classmethod
    def takes(cls, connector: BaseConnector) -> Arguments:
        return without_given(arguments_at(connector, cls.planner))

    @classmethod
    def ends(cls, connector: BaseConnector) -> set[str]:
        return ENDS & set(arguments_at(connector, cls.planner).named)

    def _checked(self, found: Iterable[Partition | str]) -> Iterator[Partition]:
        if found is None or isinstance(found, str):
            raise ConnectorError(
                f"{self.connector.name}: {self.planner}() returned {found!r}; "
                "return a list of names"
            )
        seen: set[str] = set()
        for given in each(self.connector, "", lambda _: f"{self.planner}()", found):
            one = Partition(given) if isinstance(given, str) else given
            if not isinstance(one, Partition):
                raise ConnectorError(
                    f"{self.connector.name}: {self.planner}() gave a {type(one).__name__}; "
                    "give texts or Partition objects"
                )
            if not one.id:
                raise ConnectorError(
                    f"{self.connector.name}: {self.planner}() gave a partition without a name"
                )
            if one.id in seen:
                raise ConnectorError(
                    f"{self.connector.name}: {self.planner}() gave {one.id!r} twice; its items "
                    "would be read twice"
                )
            seen.add(one.id)
            yield one


class PagesReader(_PlannedReader):
    """`partitions` and `fetch_page`: by cursor, or by number if `count_pages` returns one."""

    methods = ("fetch_page", "partitions", "count_pages")
    planner = "partitions"

    def __init__(self, connector: BaseConnector, kwargs: dict[str, Any], resume: Resume) -> None:
        super().__init__(connector, kwargs, resume)
        self.at_once = max(int(getattr(connector, "max_in_flight", 16)), 1)
        self.ahead = ahead_of(self.at_once)

    def moves_state(self, part: Part) -> bool:
        bounds, resumes_at = self.resume.bounds, part.partition.resumes_at
        if self.cuts:
            return False
        if not bounds.given:
            return True
        if bounds.reaches_ahead or resumes_at is None:
            return False
        resumes = when(resumes_at)
        return bounds.since is None or (resumes is not None and bounds.since <= resumes)

    def _left_out(self) -> str:
        if self.resume.known and "resume_from" in arguments_at(self.connector, self.planner).named:
            return READ_ON
        return ""

    def plan(self) -> Iterator[Part]:
        for bounds in self.resume.bounds.slices():
            name = bounds.given["since"] if self.resume.bounds.slice else ""
            yield from self.parts_of(self._partitions(bounds), name)

    def parts_of(
        self, partitions: Iterable[Partition | str], slice_name: str = ""
    ) -> Iterator[Part]:
        """Yields partitions as parts, with the number of their pages if the source knows it.

        Args:
            partitions: The result of the author's `partitions`.
            slice_name: The slice of time that they belong to.

        Raises:
            ConnectorError: they are not partitions, or cannot be counted.
        """
        found = self._checked(partitions)
        if owner_of(type(self.connector), "count_pages") is None:
            for partition in found:
                yield Part(partition, 1, slice=slice_name)
            return
        counted: Iterable[tuple[Partition, int | None]]
        if self.at_once == 1:
            counted = map(self._counted, found)
        else:
            # Counting is a request too, so a thousand partitions are counted in parallel.
            counted = read_ahead(
                found,
                lambda one: iter([self._counted(one)]),
                threads=self.at_once,
                ahead=self.ahead,
                key=lambda _: None,
                is_last=lambda _: True,
            )
        for partition, total in counted:
            yield Part(partition, max(total or 1, 1), total, slice_name)

    def _partitions(self, bounds: Bounds) -> Iterable[Partition | str]:
        kwargs = {**self.kwargs, **bounds.given}
        partitions = getattr(self.connector, "partitions", None)
        if partitions is None:
            return [WHOLE]
        takes = arguments_at(self.connector, self.planner).named
        if "resume_from" in takes:
            # No states with a range of time: most connectors would take a state for its beginning.
            kwargs["resume_from"] = self.resume.known
        if "known_states" in takes:
            kwargs["known_states"] = {} if self.resume.full_sync else dict(self.resume.states)
        if "made_with" in takes:
            kwargs.update(made_with=self.resume.made_with, anew=self.resume.anew)
        found = guarded(self.connector, "", "partitions()", lambda: partitions(**kwargs))
        return cast("Iterable[Partition | str]", found)

    def _counted(self, partition: Partition) -> tuple[Partition, int | None]:
        connector, kind = self.connector, type(self.connector)
        # Our own connectors may add to the partition what they learned by counting.
        depths = owner_of(kind, "_counted_partition"), owner_of(kind, "count_pages")
        count = connector.count_pages
        if depths[0] is not None and depths[0] == depths[1]:
            count = connector._counted_partition
        found = guarded(connector, partition.id, "count_pages()", lambda: count(partition))
        if isinstance(found, tuple):
            partition, found = found
        if found is not None:
            found = whole_number(found, f"{connector.name}: count_pages({partition.id!r})")
        return partition, found

    def read(self, part: Part, block: int) -> Iterator[Page]:
        if part.total == 0:
            yield Page([], finished=1)
            return
        partition = part.partition
        numbered = part.total is not None
        cursor: Any = block if numbered else None
        seen = {_fingerprint(cursor)}
        state = None
        while True:
            where = page_name(self.connector, partition, cursor)
            fetch = partial(self.connector.fetch_page, partition, cursor)
            page = guarded(self.connector, part.id, where, fetch)
            if not isinstance(page, Page):
                raise ConnectorError(
                    f"{self.connector.name}: partition {partition.id}, {where}: fetch_page "
                    f"returned a {type(page).__name__}; return a Page"
                )
            if page.table is None:
                checked_items(page.items, self.connector, "fetch_page made a Page of")
            # A total may be too small: the last counted page may name another page.
            cursor = page.next_cursor if block == part.blocks - 1 else None
            state = page.state if page.state is not None else state
            # A new page, because authors may keep the one that they returned. Only the last one
            # has the state, because the partition is not complete before it.
            is_last = cursor is None and block == part.blocks - 1
            yield page.copy(
                position=page.position or where,
                state=state if is_last else None,
                finished=int(cursor is None),
            )
            if cursor is None:
                return
            if _fingerprint(cursor) in seen:
                raise ConnectorError(
                    f"{self.connector.name}: partition {partition.id}, {where}: the source gave "
                    f"the cursor {shown(cursor)} a second time, so reading would never end; "
                    "its pages may have changed meanwhile: run again, or correct fetch_page"
                )
            seen.add(_fingerprint(cursor))


class PartsReader(_PlannedReader):
    """`plan` and `read_part`: parts that know their blocks, each a stream of pages."""

    methods = ("read_part", "plan")
    planner = "plan"

    def __init__(self, connector: BaseConnector, kwargs: dict[str, Any], resume: Resume) -> None:
        super().__init__(connector, kwargs, resume)
        self.at_once = max(int(getattr(connector, "max_in_flight", 1)), 1)
        self.ahead = self.at_once
        self._skipped = ""

    @classmethod
    def ends(cls, connector: BaseConnector) -> set[str]:
        return ENDS if getattr(connector, "by_time", False) else set()

    def plan(self) -> Iterator[Part]:
        connector, resume = self.connector, self.resume
        states = dict(connector.merge_states(resume.states)) if resume.states else {}
        run = PlannedRun(
            since=resume.bounds.given.get("since"),
            until=resume.bounds.given.get("until"),
            resume_from={} if resume.full_sync or resume.is_bounded else states,
            known_states=states,
            made_with=resume.made_with,
            anew=resume.anew,
        )
        found = guarded(connector, "", "plan()", lambda: connector.plan(run, **self.kwargs))
        for partition in self._checked(found):
            yield Part(partition, partition.blocks)
        if run.narrowed is None:
            run.narrowed = READ_ON if run.resume_from else ""
        self._skipped = run.narrowed
        # What was merged takes the place of what it was merged from.
        is_merged = run.resume_from and states != resume.states
        self.reached = run.reached or (states if is_merged else None)

    def _left_out(self) -> str:
        return self._skipped

    def read(self, part: Part, block: int) -> Iterator[Page]:
        connector, name = self.connector, part.partition.id
        where = f"block {block}" if part.blocks > 1 else ""
        found = guarded(connector, name, where, lambda: connector.read_part(part.partition, block))
        pages = each(connector, name, lambda _: where, found)
        page, state = Page([]), None
        for count, following in enumerate(pages):
            if not isinstance(following, Page):
                raise ConnectorError(
                    f"{connector.name}: partition {name}: read_part gave a "
                    f"{type(following).__name__}; give Page objects"
                )
            state = page.state if page.state is not None else state
            if count:
                yield page.copy(state=None)
            page = following
        # Only the last page has the state, because the part is not complete before it.
        yield page.copy(state=page.state if page.state is not None else state, finished=1)


class BatchesReader(Reader):
    """A total and `_fetch_batch(start, end)`."""

    methods = ("_fetch_batch", "total_items")

    def __init__(self, connector: BaseConnector, kwargs: dict[str, Any], resume: Resume) -> None:
        super().__init__(connector, kwargs, resume)
        self.at_once = max(int(getattr(connector, "max_workers", 4)), 1)
        self.ahead = ahead_of(self.at_once)
        self._size = whole_number(
            getattr(connector, "batch_size", 100), f"{connector.name}: batch_size", least=1
        )

    @classmethod
    def takes(cls, connector: BaseConnector) -> Arguments:
        known = (
            "total_items" in vars(connector) or owner_of(type(connector), "total_items") is not None
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
        if total is None or owner_of(type(self.connector), "total_items") is None:
            return ""
        return f"only {total:,} items were asked for"

    def read(self, part: Part, block: int) -> Iterator[Page]:
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
        items = list_of(items, self.connector, f"{where}: _fetch_batch")
        yield Page(items, position=where, finished=1)


def _fingerprint(cursor: Any) -> bytes:
    # Sources of a million pages exist, and so do cursors of a kilobyte.
    return hashlib.blake2b(repr(cursor).encode(errors="replace"), digest_size=12).digest()


def _total_known(total_items: int | None = None) -> None:
    """Has the signature for reading batches if the connector knows their total."""


def _total_unknown(total_items: int) -> None:
    """Has the signature for reading batches if the user must give their total."""


_ITEMS_IN_A_PAGE = 500
_CHANGED = "changed_since"
_EARLIEST = "1970-01-01T00:00:00+00:00"


class StreamReader(Reader):
    """`sync_documents_stream`: one item after the other, never all of them at once."""

    methods: ClassVar[tuple[str, ...]] = ("sync_documents_stream",)

    def plan(self) -> Iterator[Part]:
        yield Part(Partition(WHOLE), 1)

    def read(self, part: Part, block: int) -> Iterator[Page]:
        items = guarded(self.connector, part.id, self.methods[0], self._items)
        items = checked_items(items, self.connector, f"{self.methods[0]} returned")
        return self._paged(part.id, items)

    def _items(self) -> Any:
        return getattr(self.connector, self.methods[0])(**self.kwargs)

    def _paged(
        self, partition: str, items: Iterable[Any], state: dict[str, Any] | None = None
    ) -> Iterator[Page]:
        checked = each(self.connector, partition, lambda count: f"item {count}", items)
        start = 0
        found = list(itertools.islice(checked, _ITEMS_IN_A_PAGE))
        while True:
            # One more item shows whether this page is the last one.
            beyond = list(itertools.islice(checked, 1))
            page = Page(found, position=f"items {start} to {start + len(found)}")
            if not beyond:
                page.state, page.finished = state, 1
                yield page
                return
            yield page
            start += len(found)
            found = [*beyond, *itertools.islice(checked, _ITEMS_IN_A_PAGE - 1)]


class ChangesReader(StreamReader):
    """`_full_sync` and `_incremental_sync(since)`: what changed since the last run."""

    methods = ("_full_sync", "_incremental_sync")

    @classmethod
    def ends(cls, connector: BaseConnector) -> set[str]:
        if owner_of(type(connector), "_incremental_sync") is None:
            return set()
        return {"since"} | (ENDS & set(arguments_at(connector, "_incremental_sync").named))

    def _reached(self, states: Mapping[str, Any]) -> str | None:
        known = states.get(WHOLE)
        since = known.get("since") if isinstance(known, Mapping) else None
        return since if since and hasattr(self.connector, "_incremental_sync") else None

    @cached_property
    def _since(self) -> str | None:
        since = self._reached(self.resume.known)
        return _trusted(self.connector, since, datetime.now(timezone.utc)) if since else None

    def moves_state(self, part: Part) -> bool:
        bounds = self.resume.bounds
        # A full run would read everything, and a range of time leaves something out.
        reached = None if self.resume.full_sync else self._reached(self.resume.states)
        if self.cuts:
            return False
        if not bounds.given:
            return True
        if bounds.reaches_ahead or reached is None:
            return False
        if part.partition.params.get("until") != bounds.given.get("until"):
            return False
        cursor = when(reached)
        if cursor is None or (bounds.until is not None and bounds.until <= cursor):
            return False
        if is_ahead(reached, bounds.made):
            return False  # we do not know when the last run really began
        if bounds.since is None:
            return True
        begin = instant_of(cursor) - seconds_in(self.connector.lookback)
        return bounds.since <= datetime_of(begin)

    def _left_out(self) -> str:
        return f"only what changed since {self._since} was read" if self._since else ""

    def plan(self) -> Iterator[Part]:
        for bounds in self.resume.bounds.slices():
            name = bounds.given["since"] if self.resume.bounds.slice else ""
            # Set here, so that every reader of the plan continues from the same time.
            params: dict[str, Any] = {**bounds.given} or {_CHANGED: self._since}
            yield Part(Partition(WHOLE, params), 1, slice=name)

    def read(self, part: Part, block: int) -> Iterator[Page]:
        connector = self.connector
        # The next run reads again what changes while this run reads.
        began = datetime.now(timezone.utc)
        params = part.partition.params
        since = params.get(_CHANGED)
        if _CHANGED not in params:
            arguments = {"since": _EARLIEST, **params}
            name, call = (
                "_incremental_sync",
                lambda: connector._incremental_sync(**arguments, **self.kwargs),
            )
        elif since:
            name, call = (
                "_incremental_sync",
                lambda: connector._incremental_sync(
                    _looked_back(since, connector.lookback), **self.kwargs
                ),
            )
        else:
            name, call = "_full_sync", lambda: connector._full_sync(**self.kwargs)
        items = guarded(connector, part.id, name, call)
        items = checked_items(items, connector, f"{name} returned")
        reached = self.resume.bounds.until or began
        return self._paged(part.id, items, {"since": text_of(reached)})


class ListReader(StreamReader):
    """`sync_documents`, for the simplest connectors."""

    methods = ("sync_documents",)

    def _items(self) -> Any:
        kwargs = self.kwargs
        if self.resume.full_sync and "full_sync" in self.takes(self.connector).named:
            kwargs = {"full_sync": True, **kwargs}
        return self.connector.sync_documents(**kwargs)


def _trusted(connector: BaseConnector, since: str, now: datetime) -> str | None:
    """Returns the time of the last run; None, with a warning, if it is in the future.

    Then the clock was wrong at that time, or is wrong now. Changes between the last run and now
    might be missed, so everything is read, and the state moves back.

    Args:
        connector: The connector.
        since: When its last run began.
        now: When this run begins.
    """
    if not is_ahead(since, now):
        return since
    connector.logger.warning(
        "%s: the last run began at %s, which is later than now (%s): one of the two clocks is "
        "wrong, so everything is read, and the state goes back to now",
        connector.name,
        since,
        now.isoformat(timespec="seconds"),
    )
    return None


def _looked_back(since: str, lookback: timedelta) -> str:
    """Returns a time moved back, as ISO 8601 text.

    Raises:
        ConnectorError: `since` is not a time, so it cannot be moved.
    """
    if not lookback:
        return since
    time = when(since)
    if time is None:
        raise ConnectorError(f"the last run's time is {since!r}, which is not an ISO 8601 time")
    return datetime_of(instant_of(time) - seconds_in(lookback)).isoformat()


_BEST_FIRST: tuple[type[Reader], ...] = (
    PagesReader,
    PartsReader,
    BatchesReader,
    StreamReader,
    ChangesReader,
    ListReader,
)


def choose_reader(connector: BaseConnector, kwargs: Mapping[str, Any]) -> type[Reader]:
    """Returns the best reader for a connector with these arguments.

    A subclass's own methods come before inherited ones: if it overrides only `sync_documents`, that
    method should be called.

    Raises:
        ConfigError: the class does not say how to read, or does not take these arguments.
    """
    kind = type(require_connector(connector, "what is read"))
    depths: dict[type[Reader], int] = {}
    for reader in _BEST_FIRST:
        owners = [owner_of(kind, name) for name in reader.methods]
        if owners[0] is not None:
            depths[reader] = min(owner for owner in owners if owner is not None)
    if not depths:
        raise ConfigError(
            f"{kind.__name__} does not say how to read: write sync_documents(self, **kwargs), or "
            "sync_documents_stream, or derive it from one of the classes in connectors.kinds"
        )
    problems: list[str] = []
    for reader in sorted(depths, key=lambda one: depths[one]):
        problem = wrong_arguments(reader.takes(connector), kwargs)
        if not problem:
            return reader
        problems.append(problem)
    raise ConfigError(f"{kind.__name__}: {problems[0]}")


def wrong_arguments(takes: Arguments, given: Mapping[str, Any]) -> str:
    """Returns what is wrong with the arguments; "" if they are right."""
    for name in given:
        if name in takes.named or takes.is_open:
            continue
        if not takes.named:
            return f"it takes no arguments to read with, so not {name!r} either"
        hint = nearest(name, takes.named) or f"; it takes {', '.join(takes.named)}"
        return f"there is no argument {name!r} to read with{hint}"
    for name, parameter in takes.named.items():
        if parameter.default is parameter.empty and name not in given:
            return f"it needs {name!r} to read with; give {name}=..."
    return ""
