"""Which times a run reads: since when, until when, and in slices of which length.

The beginning belongs to a range of time and the end does not, so that slices that follow one
another hold each moment once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone

from contextframe_beam.errors import ConfigError
from contextframe_beam.times import when

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw]?)\Z")
_UNIT_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_MOST_SLICES = 100_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """The range of time that a run reads; an end that is None is open.

    Attributes:
        since: Its beginning, included.
        until: Its end, not included.
        slice: Cut it into slices of this length; it then has both ends.
        is_open: Whether its end is only where slices had to stop, the time when it was made.
        made: When it was made, before anything was read.
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
        """Reads what a user gives.

        Args:
            since: A date or time, best ISO 8601, UTC where it has no offset; included.
            until: The same, not included.
            slice: A duration such as `1d` or `12h`. Where there is no `until`, slices end now.

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
        """The ends that are closed, as ISO 8601 texts in UTC."""
        ends = {"since": self.since, "until": self.until}
        return {name: text_of(one) for name, one in ends.items() if one is not None}

    @property
    def reaches_ahead(self) -> bool:
        """Whether things may still change in it, behind whoever has read that piece of it."""
        return self.until is not None and self.until > self.made

    def slices(self) -> Iterator[Bounds]:
        """Yields the slices, the oldest first; the whole range when it is not sliced."""
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
