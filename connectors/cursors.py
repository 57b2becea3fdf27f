"""Cursors: values in records that grow, how they compare, and what may be kept of them.

A value is kept as the records have it: a time, whose form `times.py` knows, or a number that only
grows. What is neither is never compared: its record counts as new, and it becomes no cursor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from typing import Any

from contextframe_beam.connectors.mapper import lookup
from contextframe_beam.times import Time, Value, instant_of, parse, when, write

__all__ = [
    "NUMBER",
    "Value",
    "clamped_cursor",
    "is_ahead",
    "is_before",
    "is_known",
    "newest_cursor",
    "within",
]

#: The format of values that grow but are no times.
NUMBER = "number"

#: Clocks of two machines may differ by so much without anything being wrong.
SKEW = timedelta(minutes=1)

_KINDS = ("time", "number")
_NUMBER = re.compile(r"-?[0-9]{1,100}(\.[0-9]{1,100})?")


def newest_cursor(
    items: Iterable[Any],
    field: str,
    known: Value | None = None,
    *,
    began: datetime | None = None,
    form: str | None = None,
) -> Value | None:
    """Returns the greatest value that records have in a field.

    Times are compared as times, whatever their forms (UTC where they have no offset), and numbers
    as numbers, also where they are text. Where there are values of several kinds, a single odd one
    must not become the cursor: those of the kind of `known` count, otherwise times come before
    numbers. Values that are neither do not count.

    Args:
        items: The records; those without a value do not count.
        field: The path of the value.
        known: A value from before, returned when none is greater.
        began: When reading began. Times after it do not count, because a record that is dated in
            the future would hide all others until then.
        form: What is known about how the values are written, as for `times.parse`.
    """
    latest = None if began is None else instant_of(began)
    values = [lookup(item, field) for item in items]
    read = [(value, _number_of(value), parse(value, form)) for value in (known, *values)]
    # Of ids, some may be as large as times.
    are_times = all(time is not None for _, number, time in read if number is not None)
    ranked = [(value, _rank(number, time, are_times)) for value, number, time in read]
    best: dict[str, tuple[Fraction, Value]] = {}
    for value, (kind, rank) in ranked[1:]:
        is_late = kind == "time" and latest is not None and rank > latest
        if kind and not is_late and (kind not in best or rank > best[kind][0]):
            best[kind] = rank, value
    before, reached = ranked[0][1]
    kind = before if before in best else next((one for one in _KINDS if one in best), "")
    if not kind or (kind == before and reached >= best[kind][0]):
        return known
    return best[kind][1]


def is_known(value: Any, form: str | None = None) -> bool:
    """Tells whether a value is a time or a number, so that it can be compared."""
    return _number_of(value) is not None or parse(value, form) is not None


def is_before(value: Any, since: Value, form: str | None = None) -> bool:
    """Tells whether a record's value is certainly smaller than `since`.

    A value is as coarse as its form: one that says a day may be any moment of it.
    """
    here, there = parse(value, form), parse(since, form)
    number, other = _number_of(value), _number_of(since)
    if number is not None and other is not None and number >= other:
        return False
    if here is not None and there is not None:
        return here.at + here.form.step <= there.at
    return number is not None and other is not None


def clamped_cursor(
    value: Value | datetime, began: datetime, form: str | None = None
) -> Value | datetime:
    """Returns a cursor that is not later than the time when reading began.

    A record that is dated in the future would otherwise hide all others until then.

    Args:
        value: The newest value, as the records have it: a `datetime`, or a value that
            `times.parse` reads. What is no time stays as it is.
        began: When the run began to read, UTC where it has no offset; what changed after that may
            not have been seen, so it is not the time at which reading ended.
        form: What is known about how the values are written; `number` says that they are no times.
    """
    began = began if began.tzinfo else began.replace(tzinfo=timezone.utc)
    if isinstance(value, datetime):
        if instant_of(value) <= instant_of(began):
            return value
        return began.astimezone(value.tzinfo or timezone.utc).replace(tzinfo=value.tzinfo)
    time, latest = parse(value, form), instant_of(began)
    return value if time is None or time.at <= latest else write(latest, time.form)


def is_ahead(value: Any, now: datetime, form: str | None = None) -> bool:
    """Tells whether a time lies so far in the future that it is wrong, or some clock is."""
    time = parse(value, form)
    return time is not None and time.at > instant_of(now + SKEW)


def within(value: Any, since: str | None, until: str | None, form: str | None = None) -> bool:
    """Tells whether a record's value lies in a range of time; one that is no time does.

    Args:
        value: What the record has in the incremental field. One that says a day, or an hour, lies
            in the range if some of it does.
        since: The beginning, included.
        until: The end, not included.
        form: What is known about how the values are written.
    """
    time = parse(value, form)
    if time is None:
        return True
    begin, end = when(since or ""), when(until or "")
    is_early = begin is not None and (
        time.at < instant_of(begin) and time.at + time.form.step <= instant_of(begin)
    )
    return not is_early and (end is None or time.at < instant_of(end))


def _rank(number: Fraction | None, time: Time | None, are_times: bool) -> tuple[str, Fraction]:
    """Returns the kind of a value, "" for none, and what to compare values of the kind by."""
    if number is not None and not are_times:
        return "number", number
    return ("", Fraction()) if time is None else ("time", time.at)


def _number_of(value: Any) -> Fraction | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return Fraction(value)
    if isinstance(value, float):
        return Fraction(value) if value - value == 0 else None
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return Fraction(value)
    return None
