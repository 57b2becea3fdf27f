"""Incremental reading of an API: how requests write values that grow, and slices of time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import lru_cache
from typing import Any

from contextframe_beam.connectors.api.config import Incremental
from contextframe_beam.connectors.api.evidence import Stated
from contextframe_beam.connectors.cursors import (
    NUMBER,
    is_ahead,
    is_before,
    is_known,
    newest_cursor,
    seconds_of,
    within,
)
from contextframe_beam.connectors.mapper import lookup
from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.times import (
    ISO,
    Form,
    Time,
    Value,
    datetime_of,
    form_named,
    instant_of,
    iso_of,
    offset_of,
    parse,
    seconds_in,
    write,
)
from contextframe_beam.store.runs import SLICE

_MOST_SLICES = 100_000
_SECOND = Fraction(1)


@lru_cache(maxsize=64)
def _second_of(moment: datetime) -> str:
    # Each request of a run asks for the same moment.
    return iso_of(instant_of(moment.replace(microsecond=0)))


def newest_of(
    items: Iterable[Any],
    settings: Incremental,
    scope: Scope,
    known: Value | None = None,
) -> Value | None:
    """Returns the greatest value among the records of a partition; see `newest_cursor`.

    Args:
        items: The records, including any that the API gave from outside a range of time.
        settings: The incremental settings of the resource.
        scope: What is read.
        known: An earlier value.
    """
    field, form, bounds = settings.field, settings.reading, scope.bounds
    if bounds:
        ends = bounds.get("since"), bounds.get("until")
        items = [one for one in items if within(lookup(one, field), *ends, form)]
    return newest_cursor(items, field, known, began=scope.began, form=form)


def request_value(value: Value, settings: Incremental) -> Value:
    """Returns a value as a request writes it, moved back by the lookback.

    Without a format, it keeps the form of the value.

    Raises:
        ConfigError: requests write times, and the value is not a time.
    """
    if settings.format is None or settings.format == NUMBER:
        return resumed(value, settings)
    return _asked(_resumed_time(value, settings), settings)


def resumed(value: Value, settings: Incremental) -> Value:
    """Returns a value moved back by the lookback, in the form that the records have.

    Raises:
        ConfigError: the value is not a time or a number, so it cannot be moved back.
    """
    if settings.lookback is None:
        return value
    if parse(value, settings.reading) is None:
        return moved_back(value, settings)
    time = _resumed_time(value, settings)
    return write(time.at, time.form)


def _resumed_time(value: Value, settings: Incremental) -> Time:
    return time_of(value, settings).moved(-_lookback(settings))


def time_of(value: Value, settings: Incremental) -> Time:
    """Returns the time of a value.

    Raises:
        ConfigError: it is not a time, or can be read in two ways.
    """
    time = parse(value, settings.reading)
    if time is None:
        raise ConfigError(
            f"incremental: {value!r} is not a time that can be read in only one way, so it has no "
            "lookback, no slices and no other format; say how it is written in field_format, such "
            f"as %d/%m/%Y, or write it as {ISO.pattern}"
        )
    return time


def moved_back(value: Value, settings: Incremental) -> Value:
    """Returns a number, such as an id, moved back by the lookback.

    Raises:
        ConfigError: it is text that is not a number.
    """
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise ConfigError(
            f"incremental: {value!r} is not a time or a number, so it has no lookback"
        ) from None
    moved = number - Decimal(str(seconds_of(settings.lookback or 0)))
    shown = int(moved) if moved == int(moved) else float(moved)
    return str(shown) if isinstance(value, str) else shown


def bound(time: datetime, settings: Incremental, known: Value | None, *, is_end: bool) -> Value:
    """Returns an end of a range of time as a request writes it.

    APIs differ in whether the ends belong to a range, so the range is made larger by the smallest
    step that can be written; `within` then removes the extra records.

    Args:
        time: The end.
        settings: The incremental settings of the resource.
        known: A value in the form that the records have.
        is_end: Whether it is the later one.
    """
    like = parse(known, settings.reading) or parse(settings.start, settings.reading)
    end = Time(instant_of(time), like.form if like is not None else ISO)
    step = max(_form_of(end, settings).step, _SECOND)
    return _asked(end.moved(step if is_end else -step), settings, up=is_end)


@dataclass(frozen=True, slots=True)
class Slice:
    """A piece of time.

    Attributes:
        since: Its beginning, as a request writes it.
        until: Its end, as a request writes it.
        begin: Its beginning, in the form of the value that the first slice began with.
        at: Its beginning as a time.
    """

    since: Value
    until: Value
    begin: Value
    at: datetime


def slices(settings: Incremental, since: Value, now: datetime) -> Iterator[Slice]:
    """Yields slices of time, the oldest first.

    They overlap by the smallest step that requests can write, because APIs differ in whether the
    ends belong to them. The last one ends at `now`, or at the `end` of the settings if that is
    earlier, or at `since` when that is later.

    Raises:
        ConfigError: `since` is not a time, or there would be too many slices.
    """
    first = _resumed_time(since, settings)
    last = instant_of(now)
    if settings.end is not None:
        last = min(last, time_of(settings.end, settings).at)
    length = Fraction(seconds_of(settings.slice or 0))
    if length <= 0 or (last - first.at) / length > _MOST_SLICES:
        raise ConfigError(
            f"incremental: slices of {settings.slice} from {since} on are more than "
            f"{_MOST_SLICES:,}; make them longer"
        )
    overlap = max(_form_of(first, settings).step, _SECOND)
    begin = first
    while True:
        end = begin.moved(length)
        is_last = end.at >= last
        if is_last:
            end = Time(max(last, begin.at), end.form)
        yield Slice(
            _asked(begin if begin is first else begin.moved(-overlap), settings),
            _asked(end, settings, up=True),
            write(begin.at, begin.form),
            datetime_of(begin.at),
        )
        if is_last:
            return
        begin = end


def state_reached(newest: Value, settings: Incremental, scope: Scope) -> dict[str, Any]:
    """Returns the state of a partition that was read to its end.

    Args:
        newest: The greatest value that was seen.
        settings: The incremental settings of the resource.
        scope: What was read.
    """
    if scope.reached is not None and is_before(newest, scope.reached, settings.reading):
        newest = scope.reached
    state: dict[str, Any] = {"cursor": newest}
    if scope.slice is not None:
        state[SLICE] = scope.slice
    return state


def unreadable(value: Any, settings: Incremental, began: datetime | None) -> str:
    """Returns why a value cannot move the state, and what to do; "" if it can.

    Args:
        value: The value of the field in a record.
        settings: The incremental settings of the resource.
        began: When the run began to read.
    """
    form = settings.reading
    if not is_known(value, form):
        return (
            "which is not a time that can be read in only one way; every run reads records like "
            "this one again, and they do not move the state. Say how they write it: "
            "field_format: '%d/%m/%Y' or '%m/%d/%Y', for instance"
        )
    time = parse(value, form)
    if began is None or time is None or time.form.pattern or not is_ahead(value, began, form):
        return ""
    return (
        f"which would be {iso_of(time.at)}, in the future, and does not move the state. If these "
        "are not times but ids that grow, say format: number"
    )


def lookback_of(settings: Incremental) -> timedelta:
    """Returns how far before the last value a run begins, if values are times."""
    return timedelta(seconds=seconds_of(settings.lookback or 0))


def _lookback(settings: Incremental) -> Fraction:
    return seconds_in(lookback_of(settings))


def _form_of(time: Time, settings: Incremental) -> Form:
    return form_named(settings.format, time.at) if settings.format else time.form


def _asked(time: Time, settings: Incremental, *, up: bool = False) -> Value:
    """Returns a time as a request writes it: not later, or with `up` not earlier.

    A day is the earlier of the days in UTC and in the record's own zone, with `up` the later one,
    because we do not know which of them the API means.
    """
    form, at = _form_of(time, settings), time.at
    if form.is_of_days and settings.format:
        offset = offset_of(at, time.form.zone)
        at += max(offset, Fraction()) if up else min(offset, Fraction())
    return write(at, form, up=up)


@dataclass(frozen=True, slots=True)
class Counted:
    """What the first page of a partition shows about all its pages.

    Attributes:
        pages: The number of pages to read.
        size: The number of records on a full page, if that is known.
        first: The digest of the first page's records; None if it has no records.
        place: Where its records were; empty if the page does not show it.
        stated: The total that it states.
        newest: The greatest value of the incremental field on it.
        is_cut: Whether a limit leaves pages out.
        paginator: The paginator, as in a configuration, if it was detected from the page.
    """

    pages: int
    size: int | None
    first: int | None = None
    place: str = ""
    stated: Stated | None = None
    newest: Value | None = None
    is_cut: bool = False
    paginator: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """What is read of an API in one partition: the `params` of the partition.

    Attributes:
        run: Distinguishes the partitions of this run from those of another.
        resource: The name of the resource; empty if an endpoint is read.
        endpoint: The address to read if there is no resource.
        params: The query parameters of the endpoint.
        parent: The fields of the parent's record that requests and records need.
        each: The values of the resource's lists that it is read for.
        since: Where it begins: as the records write it, or as `ends_are_written` says.
        until: Where it ends, as a request writes it.
        bounds: The range of time that a run asks for: its ends, both included, ISO 8601.
        slice: The slice of time in its state: `of`, `from`, and `last` for the last slice.
        reached: The value that an earlier run reached; the state never goes back before it.
        began: When the run began.
        is_stateless: Whether it has no state.
        max_pages: The largest number of pages to read.
        max_items: The largest number of records to read.
        is_counted_first: Whether its pages are counted before they are read.
        problem: Why it cannot be requested; `item` then becomes a dead letter.
        item: The parent's record with the problem.
        counted: What counting its pages showed.
    """

    run: str = ""
    resource: str = ""
    endpoint: str = ""
    params: Mapping[str, Any] | None = None
    parent: Mapping[str, Any] | None = None
    each: Mapping[str, Any] | None = None
    since: Value | None = None
    until: Value | None = None
    bounds: Mapping[str, str] | None = None
    slice: Mapping[str, str] | None = None
    reached: Value | None = None
    began: datetime | None = None
    is_stateless: bool = False
    max_pages: int | None = None
    max_items: int | None = None
    is_counted_first: bool = False
    problem: str = ""
    item: Any = None
    counted: Counted | None = None

    @property
    def name(self) -> str:
        """The name of what is read, for messages."""
        return self.resource or self.endpoint

    @property
    def now(self) -> str | None:
        """When the run began, as text."""
        return None if self.began is None else _second_of(self.began)

    @property
    def ends_are_written(self) -> bool:
        """Whether `since` already has the form of a request, and includes the lookback.

        That holds for the ends of slices and of ranges.
        """
        return self.until is not None or self.bounds is not None

    @property
    def known(self) -> Value | None:
        """The value of an earlier run that counts as seen; None if it may lie outside."""
        return self.reached if self.bounds is None and self.slice is None else None

    @property
    def content(self) -> Value | None:
        """Where it ends, if its end decides which part of the partition it is."""
        is_last = self.slice is None or "last" in self.slice
        return None if is_last and not self.is_stateless else self.until
