"""Reading only what changed of an API: how requests write values that grow, and slices of time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from fractions import Fraction
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


def newest_of(
    items: Iterable[Any],
    settings: Incremental,
    scope: Scope,
    known: Value | None = None,
) -> Value | None:
    """Returns the greatest value of those records that belong to a partition; see `newest_cursor`.

    Args:
        items: The records, with those that an API gave from outside a range of time.
        settings: What the resource says.
        scope: What is read.
        known: A value from before.
    """
    field, form, bounds = settings.field, settings.reading, scope.bounds
    if bounds:
        ends = bounds.get("since"), bounds.get("until")
        items = [one for one in items if within(lookup(one, field), *ends, form)]
    return newest_cursor(items, field, known, began=scope.began, form=form)


def request_value(value: Value, settings: Incremental) -> Value:
    """Returns a value as a request writes it, moved back by the lookback.

    Without a format, that is the form that the value itself has.

    Raises:
        ConfigError: it is to be written as a time, and is none.
    """
    if settings.format is None or settings.format == NUMBER:
        return resumed(value, settings)
    return _asked(_resumed_time(value, settings), settings)


def resumed(value: Value, settings: Incremental) -> Value:
    """Returns a value moved back by the lookback, in the form that the records have.

    Raises:
        ConfigError: it is to be moved back, and is neither a time nor a number.
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
    """Returns the time that a value says.

    Raises:
        ConfigError: it says none, or can be read in two ways.
    """
    time = parse(value, settings.reading)
    if time is None:
        raise ConfigError(
            f"incremental: {value!r} is no time that can be read in one way, so it has no "
            "lookback, no slices and no other format; say how it is written in field_format, such "
            f"as %d/%m/%Y, or write it as {ISO.pattern}"
        )
    return time


def moved_back(value: Value, settings: Incremental) -> Value:
    """Returns a number that is no time moved back by the lookback.

    Raises:
        ConfigError: it is text that says no number.
    """
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise ConfigError(
            f"incremental: {value!r} is neither a time nor a number, so it has no lookback"
        ) from None
    moved = number - Decimal(str(seconds_of(settings.lookback or 0)))
    shown = int(moved) if moved == int(moved) else float(moved)
    return str(shown) if isinstance(value, str) else shown


def bound(time: datetime, settings: Incremental, known: Value | None, *, is_end: bool) -> Value:
    """Returns an end of a range of time as a request writes it.

    APIs differ in whether the ends belong to a range, so it is made larger by the smallest step
    that can be written; `within` then leaves out what was too much.

    Args:
        time: The end.
        settings: What the resource says.
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
        begin: Its beginning, in the form of the value that the slices began with.
        at: Its beginning.
    """

    since: Value
    until: Value
    begin: Value
    at: datetime


def slices(settings: Incremental, since: Value, now: datetime) -> Iterator[Slice]:
    """Yields slices of time, the oldest first.

    They overlap by the smallest step that requests can write, because APIs differ in whether the
    ends belong to them. The last one ends at `now`, or at `since` when that is later.

    Raises:
        ConfigError: `since` is not a time, or there would be too many slices.
    """
    first = _resumed_time(since, settings)
    last = instant_of(now)
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
        settings: What the resource says.
        scope: What was read.
    """
    if scope.reached is not None and is_before(newest, scope.reached, settings.reading):
        newest = scope.reached
    state: dict[str, Any] = {"cursor": newest}
    if scope.slice is not None:
        state[SLICE] = scope.slice
    return state


def unreadable(value: Any, settings: Incremental, began: datetime | None) -> str:
    """Returns why a value moves no state, and what to do; "" where it may.

    Args:
        value: What a record has in the field.
        settings: What the resource says.
        began: When the run began to read.
    """
    form = settings.reading
    if not is_known(value, form):
        return (
            "which is no time that can be read in one way; records like this one are kept, by each "
            "run anew, and move no state. Say how they write it: field_format: '%d/%m/%Y' or "
            "'%m/%d/%Y', for instance"
        )
    time = parse(value, form)
    if began is None or time is None or time.form.pattern or not is_ahead(value, began, form):
        return ""
    return (
        f"which would be {iso_of(time.at)}, in the future, and moves no state. If these are no "
        "times but ids that grow, say format: number"
    )


def lookback_of(settings: Incremental) -> timedelta:
    """Returns how far before what was reached a run begins, where values are times."""
    return timedelta(seconds=seconds_of(settings.lookback or 0))


def _lookback(settings: Incremental) -> Fraction:
    return seconds_in(lookback_of(settings))


def _form_of(time: Time, settings: Incremental) -> Form:
    return form_named(settings.format, time.at) if settings.format else time.form


def _asked(time: Time, settings: Incremental, *, up: bool = False) -> Value:
    """Returns a time as a request writes it: not later, or with `up` not earlier.

    Where that is a day, it is the earlier one of UTC's and the record's own zone, with `up` the
    later: which of them the API means is not known.
    """
    form, at = _form_of(time, settings), time.at
    if form.is_of_days and settings.format:
        offset = offset_of(at, time.form.zone)
        at += max(offset, Fraction()) if up else min(offset, Fraction())
    return write(at, form, up=up)


@dataclass(frozen=True, slots=True)
class Counted:
    """What the first page of a partition tells about all of them.

    Attributes:
        pages: How many are read.
        size: The number of records on a full page, where that is known.
        first: The digest of the first page's records; None where it has none.
        place: Where its records were; empty where it does not tell.
        stated: What it states about the whole.
        newest: The greatest value of the incremental field on it.
        is_cut: Whether a limit leaves pages out.
        paginator: How pages follow each other, as a configuration says it, where the page told.
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
        run: Tells the partitions of one run from those of another.
        resource: The name of the resource; empty where an endpoint is read.
        endpoint: The address that is read where there is no resource.
        params: The query parameters of the endpoint.
        parent: The fields of the parent's record that requests and records need.
        since: Where it begins: as the records write it, or as `ends_are_written` says.
        until: Where it ends, as a request writes it.
        bounds: The range of time that a run asks for: its closed ends, ISO 8601.
        slice: What its state says about the slice of time: `of`, `from`, and for the last `last`.
        reached: The value that an earlier run reached, behind which its state does not fall.
        began: When the run began.
        is_stateless: Whether it has no state.
        max_pages: The most pages that are read.
        max_items: The most records that are read.
        is_counted_first: Whether its pages are counted before they are read.
        problem: Why there is nothing to ask; `item` then becomes a dead letter.
        item: The parent's record that has the problem.
        counted: What counting its pages told.
    """

    run: str = ""
    resource: str = ""
    endpoint: str = ""
    params: Mapping[str, Any] | None = None
    parent: Mapping[str, Any] | None = None
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
        """What is read, for messages."""
        return self.resource or self.endpoint

    @property
    def ends_are_written(self) -> bool:
        """Whether `since` is written as a request wants it, and moved back as far as it should be.

        The ends of slices and of ranges are.
        """
        return self.until is not None or self.bounds is not None

    @property
    def known(self) -> Value | None:
        """The value of an earlier run that counts as seen; none where it may lie outside."""
        return self.reached if self.bounds is None and self.slice is None else None

    @property
    def content(self) -> Value | None:
        """Where it ends, if it is another part of its partition with each end."""
        is_last = self.slice is None or "last" in self.slice
        return None if is_last and not self.is_stateless else self.until
