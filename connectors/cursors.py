"""The range of time that a run reads, its slices, and the cursors that move the state.

The beginning belongs to a range of time and the end does not, so that each moment belongs to
exactly one of several adjacent slices.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from fractions import Fraction
from typing import Any

from contextframe_beam.connectors.mapper import lookup
from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.times import Time, Value, instant_of, parse, when, write

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw]?)\Z")
_UNIT_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_MOST_SLICES = 100_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """The range of time that a run reads; an end that is None is open.

    Attributes:
        since: Its beginning, included.
        until: Its end, not included.
        slice: The length of its slices; a range with slices has both ends.
        is_open: Whether the user gave no end, so that its slices stop at the time it was made.
        made: When it was made, before the reading began.
    """

    since: datetime | None = None
    until: datetime | None = None
    slice: timedelta | None = None
    is_open: bool = False
    made: datetime = field(default_factory=lambda: datetime.now(timezone.utc), compare=False)

    @classmethod
    def of(
        cls,
        since: str | date | None = None,
        until: str | date | None = None,
        slice: str | timedelta | None = None,
    ) -> Bounds:
        """Makes a range of time from a user's values.

        Args:
            since: A date or time, preferably ISO 8601, in UTC without an offset; included.
            until: The same, not included.
            slice: A duration such as `1d` or `12h`. Without `until`, slices end now.

        Raises:
            ConfigError: one of them cannot be read, or they do not fit together.
        """
        begin, end = _time("since", since), _time("until", until)
        length, made = None, datetime.now(timezone.utc)
        if slice is not None:
            if begin is None:
                raise ConfigError(f"slices of {slice} need a beginning: give since as well")
            length = _length(slice)
            end = end or made
        if begin is not None and end is not None:
            if begin >= end:
                raise ConfigError(f"since {text_of(begin)} is not before until {text_of(end)}")
            if length is not None and (end - begin) / length > _MOST_SLICES:
                raise ConfigError(
                    f"slices of {slice} from {text_of(begin)} to {text_of(end)} are more than "
                    f"{_MOST_SLICES:,}; make them longer"
                )
        return cls(begin, end, length, until is None and end is not None, made)

    @property
    def given(self) -> dict[str, str]:
        """The ends that are not None, as ISO 8601 texts in UTC."""
        ends = {"since": self.since, "until": self.until}
        return {name: text_of(one) for name, one in ends.items() if one is not None}

    @property
    def reaches_ahead(self) -> bool:
        """Whether something in it may still change after a run has read it."""
        return self.until is not None and self.until > self.made

    def slices(self) -> Iterator[Bounds]:
        """Yields the slices, the oldest first; the whole range if it has no slices."""
        if self.slice is None or self.since is None or self.until is None:
            yield Bounds(self.since, self.until)
            return
        begin = self.since
        while begin < self.until:
            end = min(begin + self.slice, self.until)
            yield Bounds(begin, end)
            begin = end

    def __str__(self) -> str:
        return " ".join(f"{name} {text}" for name, text in self.given.items())


def text_of(time: datetime) -> str:
    """Returns a time as the ISO 8601 text that connectors get, in UTC."""
    return time.astimezone(timezone.utc).isoformat()


def seconds_of(duration: str | float) -> float:
    """Returns the seconds of `90`, `"90s"`, `"15m"`, `"12h"`, `"30d"` or `"2w"`.

    Raises:
        ValueError: it is something else.
    """
    match = _DURATION.match(str(duration).strip())
    if match is None:
        raise ValueError(f"{duration!r} is not a duration such as 90s, 15m, 12h, 30d or 2w")
    return float(match[1]) * _UNIT_SECONDS[match[2]]


def _time(name: str, value: str | date | None) -> datetime | None:
    if value is None:
        return None
    text = value.isoformat() if isinstance(value, date) else value.strip()
    time = when(text)
    if time is None:
        raise ConfigError(
            f"{name} is {text!r}; give a date or time such as 2026-01-31 or 2026-01-31T08:00:00Z"
        )
    return time


def _length(value: str | timedelta) -> timedelta:
    try:
        length = value if isinstance(value, timedelta) else timedelta(seconds=seconds_of(value))
    except (ValueError, OverflowError):
        raise ConfigError(f"slice is {value!r}; give a duration such as 12h, 1d or 4w") from None
    if length < timedelta(seconds=1):
        raise ConfigError(f"slice is {value!r}; it must be a second or longer")
    return length


__all__ = [
    "NUMBER",
    "Value",
    "clamped_cursor",
    "is_ahead",
    "is_before",
    "is_known",
    "moved_back",
    "newest_cursor",
    "recent",
    "within",
]

#: The format of values that grow but are not times.
NUMBER = "number"

#: Clocks of two machines may normally differ by this much.
SKEW = timedelta(minutes=1)

#: How late a list may show a change that is read from a copy of a database.
LATE = timedelta(minutes=1)

_KINDS = ("time", "number")
# How many of the changes a state keeps that the next run sees again.
_MOST_RECENT = 1000
# Times of ISO 8601 are compared up to their whole seconds.
_SECONDS = len("2026-01-31T08:00:00")
_NUMBER = re.compile(r"-?[0-9]{1,100}(\.[0-9]{1,100})?")


def newest_cursor(
    items: Iterable[Any],
    field: str,
    known: Value | None = None,
    *,
    began: datetime | None = None,
    form: str | None = None,
) -> Value | None:
    """Returns the greatest value of a field among records.

    Times of any form are compared as times (in UTC without an offset), and numbers as numbers, even
    if they are text. A single odd value of another kind must not become the cursor, so only values
    of the kind of `known` count, or else times before numbers. Other values do not count.

    Args:
        items: The records; those without a value do not count.
        field: The path of the value.
        known: An earlier value, returned if no record has a greater one.
        began: When reading began. Later times do not count, because a record with a date in the
            future would hide all others until then.
        form: How the values are written, if that is known, as for `times.parse`.
    """
    latest = None if began is None else instant_of(began)
    values = [lookup(item, field) for item in items]
    read = [(value, _number_of(value), parse(value, form)) for value in (known, *values)]
    # Some ids may be as large as times.
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
    """Returns whether a value is a time or a number, so that it can be compared."""
    return _number_of(value) is not None or parse(value, form) is not None


def is_before(value: Any, since: Value, form: str | None = None) -> bool:
    """Returns whether a record's value is certainly smaller than `since`.

    A value is as coarse as its form: a date may mean any moment of the day.
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

    A record with a date in the future would otherwise hide all others until then.

    Args:
        value: The newest value in the form of the records: a `datetime`, or a value that
            `times.parse` reads. Other values stay as they are.
        began: When the run began to read, in UTC without an offset. The time at which reading
            ended would be wrong, because the run may have missed later changes.
        form: How the values are written, if that is known; `number` says that they are not times.
    """
    began = began if began.tzinfo else began.replace(tzinfo=timezone.utc)
    if isinstance(value, datetime):
        if instant_of(value) <= instant_of(began):
            return value
        return began.astimezone(value.tzinfo or timezone.utc).replace(tzinfo=value.tzinfo)
    time, latest = parse(value, form), instant_of(began)
    return value if time is None or time.at <= latest else write(latest, time.form)


def moved_back(since: str, late: timedelta = LATE) -> str:
    """Returns a time of ISO 8601 that is a little earlier, in whole seconds.

    A list that is asked from there misses nothing that it shows a little late.

    Args:
        since: The time.
        late: How late a list may show a change.
    """
    time = when(since)
    return since if time is None else (time - late).strftime("%Y-%m-%dT%H:%M:%SZ")


def recent(
    before: Mapping[str, str],
    items: Iterable[tuple[str, str]],
    newest: str | None,
    began: datetime,
    late: timedelta = LATE,
) -> dict[str, str]:
    """Returns which items the next run sees again although it need not read them again.

    Args:
        before: Those of earlier pages.
        items: The items of a page: what each is called, and when it was changed (ISO 8601, UTC).
        newest: The newest change that was seen.
        began: When the run began.
        late: How much earlier the next run asks from.
    """
    if newest is None:
        return {}
    first = moved_back(newest, late)[:_SECONDS]
    last = moved_back(began.isoformat(), late)[:_SECONDS]
    # What has only just changed may change again within the same second.
    found = {**before, **dict(items)}
    kept = [(name, time) for name, time in found.items() if first <= time[:_SECONDS] < last]
    return dict(sorted(kept, key=lambda one: one[1])[-_MOST_RECENT:])


def is_ahead(value: Any, now: datetime, form: str | None = None) -> bool:
    """Returns whether a time is so far in the future that it, or a clock, must be wrong."""
    time = parse(value, form)
    return time is not None and time.at > instant_of(now + SKEW)


def within(value: Any, since: str | None, until: str | None, form: str | None = None) -> bool:
    """Returns whether a record's value lies in a range of time; a value that is not a time does.

    Args:
        value: The record's value in the incremental field. A day or an hour lies in the range if
            a part of it does.
        since: The beginning, included.
        until: The end, not included.
        form: How the values are written, if that is known.
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
    """Returns the kind of a value, or "", and the number by which to compare values of its kind."""
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
