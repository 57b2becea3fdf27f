"""Time zones as texts name them: offsets, abbreviations, and places such as Europe/Berlin."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone, tzinfo
from fractions import Fraction
from functools import lru_cache
from zoneinfo import ZoneInfo

UTC = timezone.utc
DAY = 86400
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_DAY = EPOCH.toordinal()
#: The first and the last day that Python knows, in days since 1970.
FIRST_DAY, LAST_DAY = 1 - EPOCH_DAY, date.max.toordinal() - EPOCH_DAY

# Abbreviations that mean one offset everywhere, and those that RFC 2822 fixes. CST, IST and BST
# have several meanings.
_ABBREVIATIONS = {
    **dict.fromkeys(("Z", "z", "UTC", "utc", "GMT", "gmt", "UT", "WET"), 0.0),
    **{"CET": 1.0, "MET": 1.0, "WEST": 1.0, "EET": 2.0, "CEST": 2.0, "EEST": 3.0, "MSK": 3.0},
    **{"JST": 9.0, "KST": 9.0, "AEST": 10.0, "AEDT": 11.0, "NZST": 12.0, "NZDT": 13.0},
    **{"EST": -5.0, "EDT": -4.0, "MST": -7.0, "MDT": -6.0, "PST": -8.0, "PDT": -7.0},
    **{"AKST": -9.0, "AKDT": -8.0, "HST": -10.0},
}
_IN_MAILS = {"CST": -6.0, "CDT": -5.0}


def zone_of(
    wall: Fraction,
    offset: str | None = None,
    name: str | None = None,
    place: str | None = None,
    *,
    in_mails: bool = False,
) -> tzinfo | None:
    """Returns the zone of a text.

    Args:
        wall: The local time, in seconds since 1970 as if it were UTC.
        offset: An offset such as +01:00 or -5.
        name: An abbreviation, or a place.
        place: The text in brackets at the end.
        in_mails: Whether abbreviations have the meaning of RFC 2822.

    Returns:
        The zone; UTC without one. None if it is unknown or contradictory: an offset that is not
        that of the place, or a local time that occurs twice or never there.

    Raises:
        ValueError: the offset is not valid.
    """
    fixed: tzinfo | None = None
    if offset is not None:
        fixed = UTC if offset == "Z" else fixed_zone(offset)
    elif name is not None and "/" in name:
        place = place or name
    elif name is not None:
        hours = _ABBREVIATIONS.get(name, _IN_MAILS.get(name) if in_mails else None)
        if hours is None:
            return None
        fixed = timezone(timedelta(hours=hours))
    if place is None:
        return fixed or UTC
    zone = fixed_zone(place) if place[0] in "+-" else _placed(place)
    if zone is None:
        return None
    if fixed is None:
        local = datetime_of(wall).replace(tzinfo=zone)
        return zone if local.utcoffset() == local.replace(fold=1).utcoffset() else None
    if offset is None:
        return fixed  # Z means that the offset is unknown, and the place says only where it was
    at = wall - offset_of(wall, fixed)
    return zone if offset_of(at, zone) == wall - at else None


def offset_of(at: Fraction, zone: tzinfo) -> Fraction:
    """Returns how far a zone is ahead of UTC at an instant, in seconds."""
    offset = zone.utcoffset(None)
    if offset is None:
        try:
            offset = datetime_of(at).astimezone(zone).utcoffset()
        except OverflowError:  # at the very beginning or end
            offset = None
    return seconds_in(offset or timedelta())


def offset_at_wall(wall: Fraction, zone: tzinfo) -> Fraction:
    """Returns how far a zone is ahead of UTC at a local time, in seconds."""
    local = datetime_of(wall).replace(tzinfo=zone)
    return seconds_in(local.utcoffset() or timedelta())


def fixed_zone(offset: str) -> tzinfo:
    """Returns the zone of an offset such as +01:00, -0330 or +1.

    Raises:
        ValueError: the offset is not valid.
    """
    digits = offset[1:].replace(":", "")
    digits = digits.zfill(len(digits) + len(digits) % 2)
    hours, minutes, seconds = (int(digits[at : at + 2] or 0) for at in (0, 2, 4))
    if minutes > 59 or seconds > 59:
        raise ValueError(f"{offset} is not an offset")
    length = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    return timezone(-length if offset[0] == "-" else length)


def datetime_of(at: Fraction) -> datetime:
    """Returns an instant in UTC, cut to microseconds, and within the years 1 to 9999.

    Args:
        at: Seconds since 1970.
    """
    day, rest = divmod(at, DAY)
    if day < FIRST_DAY:
        return datetime.min.replace(tzinfo=UTC)
    if day > LAST_DAY:
        return datetime.max.replace(tzinfo=UTC)
    return EPOCH + timedelta(days=day, microseconds=rest * 10**6 // 1)


def seconds_in(length: timedelta) -> Fraction:
    """Returns the exact number of seconds in a length of time."""
    return Fraction(length // timedelta(microseconds=1), 10**6)


@lru_cache(maxsize=1024)
def _placed(name: str) -> tzinfo | None:
    if name in ("Z", "UTC", "GMT"):
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None
