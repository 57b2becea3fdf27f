"""Reading only what changed: values that grow, how requests write them, and slices of time.

A value is kept as the records have it: a time as text or as seconds or milliseconds since 1970, or
a number that only grows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from contextframe_beam.connectors.api.config import Incremental
from contextframe_beam.connectors.bounds import parsed_time, seconds_of
from contextframe_beam.connectors.mapper import as_timestamp, lookup
from contextframe_beam.errors import ConfigError

#: The format of values that grow but are no times.
NUMBER = "number"

_MILLISECONDS = 100_000_000_000
# Numbers between now and then are taken for times in the future, and larger ones for ids.
_LATEST_SECONDS = 4_102_444_800  # 2100-01-01
_MOST_SLICES = 100_000
_DATE_LENGTH = 10

Value = str | int | float


def newest(items: Iterable[Any], field: str, known: Value | None = None) -> Value | None:
    """Returns the greatest value that records have in a field.

    Args:
        items: The records; those without a value do not count, and of several kinds (text,
            number) the first one does.
        field: The path of the value.
        known: A value from before, returned when none is greater.
    """
    best, rank = None, None
    for item in items:
        value = lookup(item, field)
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
            continue
        here = _rank(value)
        if rank is None or (here[0] == rank[0] and here[1] > rank[1]):
            best, rank = value, here
    if known is None or rank is None:
        return known if best is None else best
    there = _rank(known)
    return known if there[0] == rank[0] and there[1] > rank[1] else best


def newest_of(
    items: Iterable[Any], field: str, params: Mapping[str, Any], known: Value | None = None
) -> Value | None:
    """Returns the greatest value of those records that belong to a partition; see `newest`.

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
    return newest(items, field, known)


def is_before(value: Any, since: Value) -> bool:
    """Tells whether a record's value is certainly smaller than `since`."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    here, there = _rank(value), _rank(since)
    return here[0] == there[0] and bool(here[1] < there[1])


def request_value(value: Value, settings: Incremental) -> Value:
    """Returns a value as a request writes it, moved back by the lookback.

    Raises:
        ConfigError: it is to be written as a time, and is none.
    """
    if settings.format == NUMBER:
        return value if settings.lookback is None else moved_back(value, settings)
    if settings.lookback is None and settings.format is None:
        return value
    time = time_of(value)
    if time is None:
        raise ConfigError(
            f"incremental: {value!r} is not a time, so it has no lookback and no format"
        )
    if settings.lookback is not None:
        time -= lookback_of(settings)
    return written(time, settings.format, value)


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


def clamped(value: Value, began: datetime, form: str | None) -> Value:
    """Returns a cursor that is not later than the time when reading began.

    A record that is dated in the future would otherwise hide all others until then.

    Args:
        value: The newest value, as the records have it.
        began: When the run began to read.
        form: How requests write times; `number` says that values are none.
    """
    if form == NUMBER:
        return value
    if not isinstance(value, str) and not _is_epoch(value):
        return value
    time = time_of(value)
    if time is None or time <= began:
        return value
    return written(began, None, value)


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
    form = settings.format or ("iso" if like is None else _form_of(like))
    step = timedelta(days=1) if form == "date" or "%" in form else timedelta(seconds=1)
    return written(time + step if is_end else time - step, form, "")


def within(value: Any, since: str | None, until: str | None) -> bool:
    """Tells whether a record's value lies in a range of time; one that is no time does.

    Args:
        value: What the record has in the incremental field.
        since: The beginning, included.
        until: The end, not included.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return True
    time = time_of(value)
    if time is None:
        return True
    begin, end = parsed_time(since or ""), parsed_time(until or "")
    return (begin is None or time >= begin) and (end is None or time < end)


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
    form = settings.format or _form_of(since)
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


def written(time: datetime, form: str | None, like: Value) -> Value:
    """Returns a time in a format; without one, in the form of another value."""
    if form is None:
        form = _form_of(like)
    if form == "iso":
        text = time.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
        return text
    if form == "date":
        return time.astimezone(timezone.utc).date().isoformat()
    if form in ("epoch", "epoch_ms"):
        seconds = time.timestamp()
        return int(seconds * 1000) if form == "epoch_ms" else int(seconds)
    return time.astimezone(timezone.utc).strftime(form)


def _form_of(value: Value) -> str:
    if isinstance(value, str):
        if value.isdecimal():
            return "epoch"
        return "date" if len(value) == _DATE_LENGTH else "iso"
    return "epoch_ms" if abs(value) >= _MILLISECONDS else "epoch"


def _is_epoch(value: int | float) -> bool:
    seconds = value / 1000 if abs(value) >= _MILLISECONDS else value
    return seconds < _LATEST_SECONDS


def _rank(value: Value) -> tuple[str, Any]:
    """Returns something to compare values of one kind by."""
    if not isinstance(value, str):
        return "number", value
    time = parsed_time(value)
    return ("text", value) if time is None else ("time", time)


def lookback_of(settings: Incremental) -> timedelta:
    """Returns how far before what was reached a run begins, where values are times."""
    return timedelta(seconds=seconds_of(settings.lookback or 0))


def time_of(value: Value) -> datetime | None:
    """Returns the time that a value says; None if it says none."""
    text = as_timestamp(value)
    return None if text is None else parsed_time(text)
