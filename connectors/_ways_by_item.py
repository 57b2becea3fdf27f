"""Reading item by item: a stream, what changed since the last run, and a plain list."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import Any, ClassVar

from contextframe_beam.connectors._calls import checked_items, each, guarded
from contextframe_beam.connectors._way import ENDS, Part, Reader, arguments_at, owner_of
from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.bounds import text_of
from contextframe_beam.connectors.cursors import is_ahead
from contextframe_beam.connectors.page import WHOLE, Page, Partition
from contextframe_beam.errors import ConnectorError
from contextframe_beam.times import datetime_of, instant_of, seconds_in, when

_ITEMS_IN_A_PAGE = 500
_CHANGED = "changed_since"
_EARLIEST = "1970-01-01T00:00:00+00:00"


class StreamReader(Reader):
    """`sync_documents_stream`: one item after the other, never all of them."""

    methods: ClassVar[tuple[str, ...]] = ("sync_documents_stream",)

    def plan(self) -> Iterator[Part]:
        yield Part(Partition(WHOLE), 1)

    def read(self, part: Part, block: int) -> Iterator[tuple[Page, int]]:
        items = guarded(self.connector, part.id, self.methods[0], self._items)
        items = checked_items(items, self.connector, f"{self.methods[0]} returned")
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
        # A full run would read everything, of which a range of time leaves something out.
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
            return False  # when the last run really began is not known
        if bounds.since is None:
            return True
        begin = instant_of(cursor) - seconds_in(self.connector.lookback)
        return bounds.since <= datetime_of(begin)

    def _left_out(self) -> str:
        return f"only what changed since {self._since} was read" if self._since else ""

    def plan(self) -> Iterator[Part]:
        for bounds in self.resume.bounds.slices():
            name = bounds.given["since"] if self.resume.bounds.slice else ""
            # Said here, so that whoever reads goes on from the same time.
            params: dict[str, Any] = {**bounds.given} or {_CHANGED: self._since}
            yield Part(Partition(WHOLE, params), 1, slice=name)

    def read(self, part: Part, block: int) -> Iterator[tuple[Page, int]]:
        connector = self.connector
        # What changes while this run reads is read again by the next one.
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
    """`sync_documents`, as on the simplest connector."""

    methods = ("sync_documents",)

    def _items(self) -> Any:
        kwargs = self.kwargs
        if self.resume.full_sync and "full_sync" in self.takes(self.connector).named:
            kwargs = {"full_sync": True, **kwargs}
        return self.connector.sync_documents(**kwargs)


def _trusted(connector: BaseConnector, since: str, now: datetime) -> str | None:
    """Returns the time of the last run; None, with a warning, where it lies in the future.

    It was taken from a clock, and that one was wrong or this one is: what changed between the last
    run and now might be missing, so everything is to be read, and the state then moves back.

    Args:
        connector: What is read.
        since: When its last run began.
        now: When this one begins.
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
        ConnectorError: `since` is no time, so that it cannot be moved.
    """
    if not lookback:
        return since
    time = when(since)
    if time is None:
        raise ConnectorError(f"the last run's time is {since!r}, which is no ISO 8601 time")
    return datetime_of(instant_of(time) - seconds_in(lookback)).isoformat()
