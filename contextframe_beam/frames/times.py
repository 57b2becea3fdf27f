"""Times as sources write them: reads a value as an instant and a form, and writes it back.

A form is learned from a value, so that another instant can be written in the same way. A value that
can be read in two ways, such as 1/2/2026, is not read: nothing here guesses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, tzinfo
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any, TypeAlias

from contextframe_beam.frames.zones import (
    DAY,
    EPOCH,
    EPOCH_DAY,
    FIRST_DAY,
    LAST_DAY,
    UTC,
    datetime_of,
    fixed_zone,
    offset_at_wall,
    offset_of,
    seconds_in,
    zone_of,
)

__all__ = [
    "DATE",
    "ISO",
    "UNITS",
    "Form",
    "Time",
    "Value",
    "datetime_of",
    "day_of",
    "form_named",
    "instant_of",
    "iso_of",
    "offset_of",
    "parse",
    "seconds_in",
    "when",
    "write",
]

Value: TypeAlias = str | int | float

#: How many units make a second, by the name of the format.
UNITS = {"epoch": 1, "epoch_ms": 10**3, "epoch_us": 10**6, "epoch_ns": 10**9}

# A number counts as a time between 1973 and 2100. Smaller numbers may be ids or anything else, and
# units do not overlap in this range.
_LEAST, _MOST = 100_000_000, 4_102_444_800
_GUESSED_UNITS = (1, 10**3, 10**6)
# 0001-01-01T00:00:00Z, where Go and .NET begin.
_ZERO_SECONDS = -62_135_596_800
# Longer texts are not times, and are not worth remembering.
_LONGEST = 120
_NUMBER = re.compile(r"-?\d{1,20}(?:\.(\d{1,18}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Form:
    """How a source writes times.

    Attributes:
        pattern: The parts of a text, by their names in `strftime`; "" for a number. `%-d` has no
            leading zero, `%_d` has a space; `%f` has `digits` digits; `%P` is am or pm; `%:z` is as
            in +01:00.
        digits: How many decimals follow the smallest part.
        scale: The length of the smallest part of a text, in seconds.
        zone: The zone of the text; UTC if the text does not say.
        unit: For a number, how many make a second.
        kind: `str`, `int` or `float`.
        ends: "24" if the end of a day is written as 24:00, "60" in a leap second.
    """

    pattern: str = ""
    digits: int = 0
    scale: int = 1
    zone: tzinfo = UTC
    unit: int = 1
    kind: type = str
    ends: str = ""

    @property
    def step(self) -> Fraction:
        """The smallest difference that it can express, in seconds."""
        return Fraction(self.scale, self.unit * 10**self.digits)

    @property
    def is_of_days(self) -> bool:
        """Whether it has no time of day."""
        return self.scale >= DAY


@dataclass(frozen=True, slots=True)
class Time:
    """The time of a value.

    Attributes:
        at: The instant, in seconds since 1970, UTC; for a day, its beginning.
        form: How it is written.
    """

    at: Fraction
    form: Form

    def moved(self, seconds: Fraction) -> Time:
        """Returns the time some seconds later, in the same form."""
        return Time(self.at + seconds, replace(self.form, ends=""))


#: ISO 8601 in UTC, in whole seconds, and in microseconds; a date alone.
ISO = Form("%Y-%m-%dT%H:%M:%SZ")
ISO_MICROSECONDS = Form("%Y-%m-%dT%H:%M:%S.%fZ", digits=6)
DATE = Form("%Y-%m-%d", scale=DAY)


def parse(value: Any, stated: str | None = None) -> Time | None:
    """Reads a value.

    Args:
        value: Text or a number.
        stated: How it is written, if known: `iso`, `date`, one of `UNITS`, `number` for values that
            are not times, or a pattern such as `%d/%m/%Y`. Text in another form is read as if the
            form were unknown.

    Returns:
        The time, from which `write` makes the value again; None if the value is not a time, or
        can be read in two ways.
    """
    if stated == "number" or isinstance(value, bool):
        return None
    if isinstance(value, str):
        return _parsed_text(value, stated) if len(value) <= _LONGEST else None
    if isinstance(value, int | float):
        return _parsed_number(value, stated)
    return None


def write(at: Fraction, form: Form, *, up: bool = False) -> Value:
    """Writes an instant in a form.

    Args:
        at: Seconds since 1970, UTC. An instant before the year 1 is written as its beginning, and
            one after 9999 as its end.
        form: The form.
        up: If the form is coarser than the instant, writes the next value instead of the previous.
    """
    if not form.pattern:
        return _written_number(at, form, up)
    step = form.step
    if up and (step > DAY or (at + offset_of(at, form.zone)) % step):
        at += step
    return _written_text(at, form)


def when(value: Any, stated: str | None = None) -> datetime | None:
    """Returns the time of a value, in UTC and cut to microseconds; None if it is not a time."""
    time = parse(value, stated)
    return None if time is None else datetime_of(time.at)


def instant_of(time: datetime) -> Fraction:
    """Returns a time as seconds since 1970; without an offset it is in UTC."""
    past = (time if time.tzinfo else time.replace(tzinfo=UTC)) - EPOCH
    return seconds_in(past)


def iso_of(at: Fraction) -> str:
    """Writes an instant as ISO 8601 in UTC, without decimals if it is a whole second."""
    return str(write(at, ISO if at.denominator == 1 else ISO_MICROSECONDS))


def day_of(time: Time) -> str:
    """Returns the date of a value, in its own zone."""
    return str(write(time.at, replace(DATE, zone=time.form.zone)))


def form_named(stated: str, at: Fraction) -> Form:
    """Returns the form that a name or a pattern states, for an instant.

    Raises:
        ValueError: the pattern has an unknown part.
    """
    if stated in UNITS:
        return Form(unit=UNITS[stated], kind=int)
    if stated == "date":
        return DATE
    if stated == "iso":
        return ISO if at.denominator == 1 else ISO_MICROSECONDS
    return _form_of_pattern(stated)


# Numbers.


def _parsed_number(value: int | float, stated: str | None) -> Time | None:
    if isinstance(value, float):
        if value != value or abs(value) >= 1e20:
            return None
        exact = Decimal(repr(value))
        exponent = exact.as_tuple().exponent
        digits = max(-exponent, 0) if isinstance(exponent, int) else 0
        return _time_of_number(value, Fraction(exact), digits, stated)
    return _time_of_number(value, Fraction(value), 0, stated)


def _time_of_number(value: Value, number: Fraction, digits: int, stated: str | None) -> Time | None:
    unit = UNITS.get(stated or "") or _guessed_unit(int(number))
    if unit is None:
        return None
    time = Time(number / unit, _form_of_number(unit, digits, type(value).__name__))
    return time if type(value) is int else _if_exact(time, value)


def _guessed_unit(number: int) -> int | None:
    size = abs(number)
    if not size:
        return 1
    for unit in _GUESSED_UNITS:
        if _LEAST * unit <= size <= _MOST * unit or number == _ZERO_SECONDS * unit:
            return unit
    return None


@lru_cache(maxsize=256)
def _form_of_number(unit: int, digits: int, kind: str) -> Form:
    return Form(digits=digits, unit=unit, kind={"str": str, "int": int, "float": float}[kind])


def _written_number(at: Fraction, form: Form, up: bool) -> Value:
    scaled = at * form.unit * 10**form.digits
    whole = -(-scaled // 1) if up else scaled // 1
    if form.kind is int:
        return int(whole)
    if not form.digits:
        return str(whole) if form.kind is str else float(whole)
    head, tail = divmod(abs(whole), 10**form.digits)
    text = f"{'-' if whole < 0 else ''}{head}.{tail:0{form.digits}}"
    return text if form.kind is str else float(text)


# Texts.

_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September"),
    *("October", "November", "December"),
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTH = rf"(?P<b>{'|'.join((*_MONTHS, *(name[:3] for name in _MONTHS)))})"
_WEEKDAY = rf"(?P<a>{'|'.join((*_DAYS, *(name[:3] for name in _DAYS)))})"
_TIME = (
    r"(?P<H>\d\d?)(?::(?P<M>\d\d)(?::(?P<S>\d\d))?)?(?:[.,](?P<f>\d{1,18}))?"
    "(?:[ \u00a0\u202f]?(?P<p>[AP]M|[ap]m))?"
)
_BASIC_TIME = r"(?P<H>\d\d)(?:(?P<M>\d\d)(?P<S>\d\d)?)?(?:[.,](?P<f>\d{1,18}))?"
_OFFSET = r"(?:UTC|GMT)(?P<o>[+-]\d\d?(?::?\d\d)?)|(?P<z>[+-]\d\d(?::?\d\d(?::?\d\d)?)?)"
_PLACE = r"[A-Za-z_]+(?:/[A-Za-z0-9_+-]+)+"
# An offset may be followed by a name of the same zone, as Java, Go and JavaScript write it.
_ZONE = (
    rf"(?:(?: ?(?:{_OFFSET}|(?P<n>[Zz]|utc|gmt|[A-Z]{{2,5}}|{_PLACE})))?"
    rf"(?: ?\[(?P<k>[A-Za-z0-9_/+:-]+)\]| \([^()]*\)| (?:[A-Z]{{2,5}}|[+-]\d\d(?:\d\d)?))?)?"
)
# Nearly all texts have this form, and reading their parts one by one takes thirty times as long.
_USUAL = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)([T ])([01]\d|2[0-3]):([0-5]\d):([0-5]\d)(?:\.(\d{1,18}))?"
    r"(Z|[+-](?:0\d|1[0-4]):[0-5]\d)?",
    re.ASCII,
)
_FORMS = tuple(
    re.compile(rf"\s*{text}\s*", re.ASCII)
    for text in (
        rf"(?P<Y>\d{{4}})(?P<s>[-/.])(?P<m>\d\d?)(?P=s)(?P<d>\d\d?)(?:[Tt ]{_TIME}{_ZONE})?",
        r"(?P<Y>\d{4})-(?P<m>\d\d)-(?P<d>\d\d)(?:(?P<n>Z)|(?P<z>[+-]\d\d:\d\d))",
        r"(?P<Y>\d{4})-(?P<m>\d\d)",
        # Other eight digits may be ids.
        r"(?P<Y>19\d\d|20\d\d)(?P<m>\d\d)(?P<d>\d\d)",
        rf"(?P<Y>\d{{4}})(?P<m>\d\d)(?P<d>\d\d)[Tt ]{_BASIC_TIME}{_ZONE}",
        rf"(?P<Y>\d{{4}})(?P<m>\d\d)(?P<d>\d\d)[Tt ]{_TIME}{_ZONE}",
        r"(?P<Y>\d{4})(?P<m>\d\d)(?P<d>\d\d)(?P<H>\d\d)(?P<M>\d\d)(?P<S>\d\d)"
        rf"(?:[.,](?P<f>\d{{1,18}}))?{_ZONE}",
        rf"(?P<G>\d{{4}})-W(?P<V>\d\d)(?:-(?P<u>[1-7])(?:[Tt]{_TIME}{_ZONE})?)?",
        rf"(?P<G>\d{{4}})W(?P<V>\d\d)(?:(?P<u>[1-7])(?:[Tt]{_BASIC_TIME}{_ZONE})?)?",
        rf"(?P<Y>\d{{4}})-(?P<j>\d{{3}})(?:[Tt]{_TIME}{_ZONE})?",
        rf"(?P<Y>\d{{4}})(?P<j>\d{{3}})[Tt]{_BASIC_TIME}{_ZONE}",
        rf"(?:{_WEEKDAY},? )?(?P<d>[ \d]?\d)(?P<s>[ -]){_MONTH}(?P=s)(?P<Y>\d{{4}})"
        rf"(?:,? {_TIME}{_ZONE})?",
        rf"(?:{_WEEKDAY},? )?{_MONTH} (?P<d>\d\d?),? (?P<Y>\d{{4}})(?:,? (?:at )?{_TIME}{_ZONE})?",
        rf"{_WEEKDAY} {_MONTH} (?P<d>[ \d]\d) {_TIME}{_ZONE} (?P<Y>\d{{4}})",
    )
)
# The parts that some write without the zero before them.
_MAY_BE_SHORT = "mdHI"
_TOKENS: Mapping[str, str] = {
    **dict.fromkeys("YG", r"\d{4}"),
    **dict.fromkeys("mdHIMSV", r"\d\d?"),
    **{"y": r"\d\d", "j": r"\d{1,3}", "u": "[1-7]", "f": r"\d{1,18}", "p": "[AaPp][Mm]"},
    **{"b": _MONTH[5:-1], "a": _WEEKDAY[5:-1]},
    **{"z": r"[+-]\d\d(?::?\d\d)?|Z", "n": rf"[Zz]|[A-Z]{{2,5}}|{_PLACE}"},
}
_SHORT_FOR = {"F": "%Y-%m-%d", "T": "%H:%M:%S", "R": "%H:%M", "D": "%m/%d/%y"}
_SAME_AS = {"B": "b", "A": "a", "P": "p", "Z": "n", "e": "d"}
_PART = re.compile(r"%([-_:]?)([A-Za-z%])")
_SECONDS_OF_PARTS = (
    *(("S", 1), ("M", 60), ("H", 3600), ("I", 3600), ("d", DAY), ("j", DAY), ("u", DAY)),
    *(("V", 7 * DAY), ("m", 31 * DAY), ("b", 31 * DAY)),
)
_ENDS = (("H", "24"), ("S", "60"))


@lru_cache(maxsize=8192)
def _parsed_text(text: str, stated: str | None) -> Time | None:
    if stated and "%" in stated:
        match = _regex_of(stated).fullmatch(text)
        found = None if match is None else _read(match, text)
        if found is not None:
            return found
    else:
        usual = _USUAL.fullmatch(text)
        if usual is not None:
            return _read_usual(*usual.groups())
    number = _NUMBER.fullmatch(text)
    if number is not None:
        found = _time_of_number(text, Fraction(text), len(number[1] or ""), stated)
        if found is not None or stated in UNITS:
            return found
    elif not text.strip()[:1].isalnum():
        return None
    for form in _FORMS:
        match = form.fullmatch(text)
        found = None if match is None else _read(match, text)
        if found is not None:
            return found
    return None


def _read_usual(*parts: str | None) -> Time | None:
    year, month, day, between, hour, minute, second, fraction, zone = parts
    try:
        days = date(int(year or 0), int(month or 0), int(day or 0)).toordinal() - EPOCH_DAY
    except ValueError:
        return None
    digits = len(fraction or "")
    form, offset = _usual_form(between or "", digits, zone or "")
    whole = days * DAY + int(hour or 0) * 3600 + int(minute or 0) * 60 + int(second or 0) - offset
    if not digits:
        return Time(Fraction(whole), form)
    return Time(Fraction(whole * 10**digits + int(fraction or 0), 10**digits), form)


@lru_cache(maxsize=1024)
def _usual_form(between: str, digits: int, zone: str) -> tuple[Form, int]:
    """Returns the form of a usual text, and its zone's offset in seconds."""
    place = UTC if zone in ("", "Z") else fixed_zone(zone)
    pattern = f"%Y-%m-%d{between}%H:%M:%S{'.%f' if digits else ''}{zone}"
    return Form(pattern, digits, zone=place), int(offset_of(Fraction(), place))


def _read(match: re.Match[str], text: str) -> Time | None:
    """Returns the time of a match whose groups have the names of pattern parts."""
    parts = {name: part for name, part in match.groupdict().items() if part is not None}
    try:
        day = _day_in(parts)
        seconds = _seconds_in(parts)
        if day is None or seconds is None:
            return None
        wall = (day.toordinal() - EPOCH_DAY) * DAY + seconds
        zone = zone_of(
            wall,
            parts.get("z") or parts.get("o"),
            parts.get("n"),
            parts.get("k"),
            in_mails="b" in parts,
        )
        if zone is None:
            return None
        form = Form(
            _pattern_in(match, parts, zone),
            len(parts.get("f", "")),
            next((size for part, size in _SECONDS_OF_PARTS if part in parts), 366 * DAY),
            zone,
            ends=next((end for part, end in _ENDS if parts.get(part) == end), ""),
        )
    except (ValueError, OverflowError):
        return None
    return _if_exact(Time(wall - offset_at_wall(wall, zone), form), text)


def _if_exact(time: Time, value: Value) -> Time | None:
    """Returns a time if it writes back to its value, which fails with a wrong weekday."""
    back = write(time.at, time.form)
    return time if type(back) is type(value) and back == value else None


def _day_in(parts: Mapping[str, str]) -> date | None:
    if "G" in parts:
        return date.fromisocalendar(int(parts["G"]), int(parts["V"]), int(parts.get("u", 1)))
    if "y" in parts:
        short = int(parts["y"])
        year = short + (2000 if short < 69 else 1900)  # as POSIX has it
    elif "Y" in parts:
        year = int(parts["Y"])
    else:
        return None
    if "j" in parts:
        found = date(year, 1, 1) + timedelta(days=int(parts["j"]) - 1)
        return found if found.year == year else None
    month = int(parts.get("m", 1))
    if "b" in parts:
        month = next(n for n, name in enumerate(_MONTHS, 1) if name.startswith(parts["b"][:3]))
    return date(year, month, int(parts.get("d", 1)))


def _seconds_in(parts: Mapping[str, str]) -> Fraction | None:
    """Returns the time of day in seconds, or None if it is not valid."""
    hour, minute = int(parts.get("H", parts.get("I", 0))), int(parts.get("M", 0))
    second = int(parts.get("S", 0))
    if "p" in parts:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + 12 * (parts["p"] in ("PM", "pm"))
    elif "H" in parts and "M" not in parts and len(parts["H"]) != 2:
        return None
    scale = 1 if "S" in parts else 60 if "M" in parts else 3600
    fraction = Fraction(int(parts.get("f") or 0) * scale, 10 ** len(parts.get("f", "")))
    whole = hour * 3600 + minute * 60 + second
    if hour == 24:
        return Fraction(DAY) if whole == DAY and not fraction else None
    if hour > 23 or minute > 59 or second > 60 or (second == 60 and fraction):
        return None
    return whole + fraction


def _pattern_in(match: re.Match[str], parts: Mapping[str, str], zone: tzinfo) -> str:
    """Returns the pattern of a text, from the parts that were found in it."""
    is_short = any(len(parts.get(name, "00").strip()) == 1 for name in _MAY_BE_SHORT)
    pattern, end = [], 0
    for name in sorted(parts, key=match.start):
        token = _token_of(name, parts, zone, is_short)
        if token is not None:
            pattern += [match.string[end : match.start(name)].replace("%", "%%"), token]
            end = match.end(name)
    return "".join(pattern) + match.string[end:].replace("%", "%%")


def _token_of(name: str, parts: Mapping[str, str], zone: tzinfo, is_short: bool) -> str | None:
    """Returns the token of a part of a pattern; None for a part that always stays as it is."""
    text = parts[name]
    if name in ("b", "a"):
        return f"%{name if len(text) == 3 else name.upper()}"
    if name == "p":
        return "%p" if text.isupper() else "%P"
    if name == "z" and zone.utcoffset(None) is None:
        return "%:z" if ":" in text else "%z"
    if name not in "YGmdHIMSVyjuf":
        return None
    letter = "I" if name == "H" and "p" in parts else name
    if text[0] == " ":
        return f"%_{letter}"
    unpadded = len(text) == 1 or (is_short and text[0] != "0")
    return f"%-{letter}" if letter in _MAY_BE_SHORT and unpadded else f"%{letter}"


@lru_cache(maxsize=256)
def _regex_of(pattern: str) -> re.Pattern[str]:
    """Returns a regular expression for the parts of a stated pattern.

    Raises:
        ValueError: it has an unknown part, or a part twice.
    """
    found, end = [], 0
    pattern = _PART.sub(lambda part: _SHORT_FOR.get(part[2], part[0]), pattern)
    for part in _PART.finditer(pattern):
        found.append(re.escape(pattern[end : part.start()]))
        end = part.end()
        name = _SAME_AS.get(part[2], part[2])
        if name == "%":
            found.append("%")
        elif name not in _TOKENS:
            raise ValueError(f"{part[0]} is not known in a pattern of times")
        elif name == "d" and part[2] == "e":
            found.append(r"(?P<d>[ \d]?\d)")
        else:
            found.append(f"(?P<{name}>{_TOKENS[name]})")
    found.append(re.escape(pattern[end:]))
    try:
        return re.compile("".join(found), re.ASCII)
    except re.error as error:
        raise ValueError(f"{pattern!r} has a part twice") from error


@lru_cache(maxsize=256)
def _form_of_pattern(pattern: str) -> Form:
    """Returns the form of a stated pattern, without an example value."""
    regex = _regex_of(pattern)
    pattern = _PART.sub(lambda part: _SHORT_FOR.get(part[2], part[0]), pattern)
    scale = next((size for part, size in _SECONDS_OF_PARTS if part in regex.groupindex), 366 * DAY)
    return Form(pattern, digits=6 if "f" in regex.groupindex else 0, scale=scale)


def _written_text(at: Fraction, form: Form) -> str:
    offset = offset_of(at, form.zone)
    day, rest = divmod(at + offset, DAY)
    if form.ends == "24" and not rest:
        day, rest = day - 1, Fraction(DAY)
    elif form.ends == "60":
        rest = rest - 1 if rest else Fraction(DAY - 1)
        day -= rest == DAY - 1
    if not FIRST_DAY <= day <= LAST_DAY:
        day, rest = (FIRST_DAY, Fraction()) if day < 0 else (LAST_DAY, Fraction(DAY - 1))
    shown = date.fromordinal(day + EPOCH_DAY)
    hour, minute, second = int(rest // 3600), int(rest % 3600 // 60), int(rest % 60)
    year, week, weekday = shown.isocalendar()
    month_name, day_name = _MONTHS[shown.month - 1], _DAYS[shown.weekday()]
    zone = _text_of_offset(offset)
    values: dict[str, tuple[int, int] | str] = {
        **{"Y": (shown.year, 4), "y": (shown.year % 100, 2), "m": (shown.month, 2)},
        **{"d": (shown.day, 2), "e": (shown.day, 2), "j": (shown.timetuple().tm_yday, 3)},
        **{"G": (year, 4), "V": (week, 2), "u": (weekday, 1)},
        **{"H": (hour, 2), "I": (hour % 12 or 12, 2), "M": (minute, 2)},
        "S": (60 if form.ends == "60" else second, 2),
        "f": (int(rest % form.scale * 10**form.digits // form.scale), form.digits),
        **{"p": "AM" if hour % 24 < 12 else "PM", "P": "am" if hour % 24 < 12 else "pm"},
        **{"B": month_name, "b": month_name[:3], "A": day_name, "a": day_name[:3]},
        **{"z": zone.replace(":", ""), "Z": "UTC", "%": "%"},
    }

    def filled(part: re.Match[str]) -> str:
        flag, letter = part.groups()
        if flag == ":":
            return zone
        found = values[letter]
        if isinstance(found, str):
            return found
        number, width = found
        if flag == "-":
            return str(number)
        return f"{number:{width}}" if flag == "_" or letter == "e" else f"{number:0{width}}"

    return _PART.sub(filled, form.pattern)


def _text_of_offset(offset: Fraction) -> str:
    minutes, seconds = divmod(int(abs(offset)), 60)
    text = f"{'-' if offset < 0 else '+'}{minutes // 60:02}:{minutes % 60:02}"
    return f"{text}:{seconds:02}" if seconds else text
