"""Reading only what changed of an API: how requests write values that grow, and slices of time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from contextframe_beam.connectors.api.config import Incremental
from contextframe_beam.connectors.bounds import seconds_of
from contextframe_beam.connectors.cursors import (
    NUMBER,
    Value,
    form_of,
    newest_cursor,
    time_of,
    within,
    written,
)
from contextframe_beam.connectors.mapper import lookup
from contextframe_beam.errors import ConfigError

_MOST_SLICES = 100_000


def newest_of(
    items: Iterable[Any], field: str, params: Mapping[str, Any], known: Value | None = None
) -> Value | None:
    """Returns the greatest value of those records that belong to a partition; see `newest_cursor`.

    Args:
        items: The records, with those that an API gave from outside a range of time.
        field: The path of the value.
        params: What the partition says: `bounds` where a range of time is read.
        known: A value from before.
    """
    bounds = params.get("bounds")
    if bounds:
        ends = bounds.get("since"), bounds.get("until")
        items = [one for one in items if within(lookup(one, field), *ends)]
    return newest_cursor(items, field, known)


def request_value(value: Value, settings: Incremental) -> Value:
    """Returns a value as a request writes it, moved back by the lookback.

    Raises:
        ConfigError: it is to be written as a time, and is none.
    """
    if settings.format is None or settings.format == NUMBER:
        return resumed(value, settings)
    return written(_resumed_time(value, settings), settings.format, value)


def resumed(value: Value, settings: Incremental) -> Value:
    """Returns a value moved back by the lookback, in the form that the records have.

    Raises:
        ConfigError: it is to be moved back, and is neither a time nor, with its format, a number.
    """
    if settings.lookback is None:
        return value
    if settings.format == NUMBER:
        return moved_back(value, settings)
    return written(_resumed_time(value, settings), None, value)


def _resumed_time(value: Value, settings: Incremental) -> datetime:
    time = time_of(value)
    if time is None:
        raise ConfigError(
            f"incremental: {value!r} is not a time, so it has no lookback and no format"
        )
    return time - lookback_of(settings)


def moved_back(value: Value, settings: Incremental) -> Value:
    """Returns a number that is no time moved back by the lookback.

    Raises:
        ConfigError: it is text that says no number.
    """
    by = seconds_of(settings.lookback or 0)
    try:
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        raise ConfigError(f"incremental: {value!r} is not a number, as the format says") from None
    moved = number - by
    moved = int(moved) if moved == int(moved) else moved
    return str(moved) if isinstance(value, str) else moved


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
    like = settings.start if settings.start is not None else known
    form = settings.format or ("iso" if like is None else form_of(like))
    step = timedelta(days=1) if form == "date" or "%" in form else timedelta(seconds=1)
    return written(time + step if is_end else time - step, form, "")


@dataclass(frozen=True, slots=True)
class Slice:
    """A piece of time.

    Attributes:
        since: Its beginning, as a request writes it.
        until: Its end, as a request writes it.
        begin: Its beginning, in the form of the value that the slices began with.
    """

    since: Value
    until: Value
    begin: Value


def slices(settings: Incremental, since: Value, now: datetime) -> Iterator[Slice]:
    """Yields slices of time, the oldest first.

    They overlap by the smallest step that requests can write, because APIs differ in whether the
    ends belong to them. The last one ends at `now`, or at `since` when that is later.

    Raises:
        ConfigError: `since` is not a time, or there would be too many slices.
    """
    start = time_of(since)
    if start is None:
        raise ConfigError(f"incremental: slices need times, and {since!r} is none")
    start -= lookback_of(settings)
    length = timedelta(seconds=seconds_of(settings.slice or 0))
    if length <= timedelta() or (now - start) / length > _MOST_SLICES:
        raise ConfigError(
            f"incremental: slices of {settings.slice} from {since} on are more than "
            f"{_MOST_SLICES:,}; make them longer"
        )
    form = settings.format or form_of(since)
    overlap = timedelta(days=1) if form == "date" else timedelta(seconds=1)
    begin = start
    while True:
        end = begin + length
        last = end >= now
        end = max(now, begin) if last else end
        shown = begin if begin == start else begin - overlap
        yield Slice(
            written(shown, form, since), written(end, form, since), written(begin, None, since)
        )
        if last:
            return
        begin = end


def lookback_of(settings: Incremental) -> timedelta:
    """Returns how far before what was reached a run begins, where values are times."""
    return timedelta(seconds=seconds_of(settings.lookback or 0))
