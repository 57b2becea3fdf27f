"""Cursors: values in records that grow, how they compare, and what may be kept of them.

A value is kept as the records have it: a time as text or as seconds or milliseconds since 1970, or
a number that only grows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

from contextframe_beam.connectors.bounds import parsed_time
from contextframe_beam.connectors.mapper import as_timestamp, lookup

#: The format of values that grow but are no times.
NUMBER = "number"

Value = str | int | float

_MILLISECONDS = 100_000_000_000
# Numbers between now and then are taken for times in the future, and larger ones for ids.
_LATEST_SECONDS = 4_102_444_800  # 2100-01-01
_DATE_LENGTH = 10
_NUMBER = re.compile(r"-?[0-9]{1,100}(\.[0-9]{1,100})?")
_KINDS = ("time", "number", "text")


def newest_cursor(items: Iterable[Any], field: str, known: Value | None = None) -> Value | None:
    """Returns the greatest value that records have in a field.

    Times are compared as times, whatever their offsets (UTC where there is none), and numbers as
    numbers, also where they are text. Where there are values of several kinds, a single odd one
    must not become the cursor: those of the kind of `known` count, otherwise times come before
    numbers, and numbers before other text.

    Args:
        items: The records; those without a value do not count.
        field: The path of the value.
        known: A value from before, returned when none is greater.
    """
    best: dict[str, tuple[Any, Value]] = {}
    for item in items:
        value = lookup(item, field)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            continue
        if value == "" or value != value:  # NaN is not even itself
            continue
        name, rank = _rank(value)
        if name not in best or rank > best[name][0]:
            best[name] = rank, value
    before = (None, None) if known is None else _rank(known)
    kind = before[0] if before[0] in best and before[0] != "text" else None
    kind = kind or next((one for one in _KINDS if one in best), None)
    if kind is None or (kind == "text" and before[0] not in (None, "text")):
        return known
    rank, newest = best[kind]
    return known if before[0] == kind and before[1] > rank else newest


def is_before(value: Any, since: Value) -> bool:
    """Tells whether a record's value is certainly smaller than `since`."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    here, there = _rank(value), _rank(since)
    return here[0] == there[0] and bool(here[1] < there[1])


def clamped_cursor(
    value: Value | datetime, began: datetime, form: str | None = None
) -> Value | datetime:
    """Returns a cursor that is not later than the time when reading began.

    A record that is dated in the future would otherwise hide all others until then.

    Args:
        value: The newest value, as the records have it: a `datetime`, text, or a number of seconds
            or milliseconds since 1970. What is no time stays as it is.
        began: When the run began to read, UTC where it has no offset; what changed after that may
            not have been seen, so it is not the time at which reading ended.
        form: `number` says that values are no times.
    """
    began = _aware(began)
    if isinstance(value, datetime):
        if _aware(value) <= began:
            return value
        return began.astimezone(value.tzinfo or timezone.utc).replace(tzinfo=value.tzinfo)
    number = _number_of(value)
    if form == NUMBER or (number is not None and not _is_epoch(number)):
        return value
    time = time_of(value)
    if time is None or time <= began:
        return value
    latest = written(began, None, value)
    return str(latest) if isinstance(value, str) else latest


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


def written(time: datetime, form: str | None, like: Value) -> Value:
    """Returns a time in a format; without one, in the form of another value."""
    if form is None:
        form = form_of(like)
    if form == "iso":
        text = time.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
        return text
    if form == "date":
        return time.astimezone(timezone.utc).date().isoformat()
    if form in ("epoch", "epoch_ms"):
        seconds = time.timestamp()
        return int(seconds * 1000) if form == "epoch_ms" else int(seconds)
    return time.astimezone(timezone.utc).strftime(form)


def form_of(value: Value) -> str:
    """Returns the format of a value that says a time: iso, date, epoch or epoch_ms."""
    if isinstance(value, str):
        if value.isdecimal():
            return "epoch"
        return "date" if len(value) == _DATE_LENGTH else "iso"
    return "epoch_ms" if abs(value) >= _MILLISECONDS else "epoch"


def time_of(value: Value) -> datetime | None:
    """Returns the time that a value says; None if it says none."""
    text = as_timestamp(value)
    return None if text is None else parsed_time(text)


def _rank(value: Value) -> tuple[str, Any]:
    """Returns the kind of a value, and something to compare values of one kind by."""
    number = _number_of(value)
    if number is not None:
        return "number", number
    assert isinstance(value, str)
    time = parsed_time(value)
    return ("text", value) if time is None else ("time", time)


def _number_of(value: Value) -> int | float | Decimal | None:
    if not isinstance(value, str):
        return value
    if not _NUMBER.fullmatch(value):
        return None
    return Decimal(value) if "." in value else int(value)


def _is_epoch(value: int | float | Decimal) -> bool:
    number = float(value)
    return (number / 1000 if abs(number) >= _MILLISECONDS else number) < _LATEST_SECONDS


def _aware(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)
