"""What headers of an answer say about time: moments, durations, quotas.

A value is read whole or not at all: what has another form than those below is as if it were not
there, because half of a value means something else (the digits at the start of a date are a year).
Moments are compared with the `Date` of the same answer, for the clock of the server need not be
ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timezone
from email.utils import parsedate_to_datetime

from urllib3 import HTTPHeaderDict

from contextframe_beam.times import parse

# Longer values are none of these forms, and are not worth the time to look.
_LONGEST = 500
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
# Numbers between these are seconds or milliseconds since 1970; smaller ones are durations.
_EPOCH_SECONDS = (1e9, 1e11)
_EPOCH_MILLISECONDS = (1e12, 1e14)
# RFC 9110, 5.6.7: the usual form, that of RFC 850, and that of asctime.
_DAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_CLOCK = r"[0-9]{1,2}:[0-9]{2}:[0-9]{2}"
_DAY_SECONDS = 86400
_DATE = re.compile(
    rf"(?:{_DAY}[a-z]{{0,6}},\s*)?[0-9]{{1,2}}[ -][A-Za-z]{{3}}[ -](?:[0-9]{{4}}|[0-9]{{2}})\s+"
    rf"{_CLOCK}\s+(?:GMT|UTC|UT|Z|[+-][0-9]{{4}})"
    rf"|{_DAY}\s+[A-Za-z]{{3}}\s+[0-9]{{1,2}}\s+{_CLOCK}\s+[0-9]{{4}}"
)
_ISO_DURATION = re.compile(
    r"P(?=[0-9T])(?:([0-9]+)D)?(?:T(?=[0-9])(?:([0-9]+)H)?(?:([0-9]+)M)?([0-9.]+S)?)?", re.I
)
_UNITS = {
    unit: seconds
    for units, seconds in (
        ("ns nanosecond nanoseconds", 1e-9),
        ("us µs μs microsecond microseconds", 1e-6),
        ("ms msec millisecond milliseconds", 1e-3),
        ("s sec secs second seconds", 1.0),
        ("m min mins minute minutes", 60.0),
        ("h hr hrs hour hours", 3600.0),
        ("d day days", 86400.0),
    )
    for unit in units.split()
}
_PIECE = r"([0-9]+(?:\.[0-9]+)?)\s*([a-zµμ]+)"
_DURATION = re.compile(rf"[+-]?(?:{_PIECE}\s*)+", re.I)
_PIECES = re.compile(_PIECE, re.I)

_QUOTA = re.compile(r"(?:x-)?rate-?limit-(?:.+-)?remaining(?:-.+)?", re.I)
_PARAMETER = r"\s*[\w-]+\s*=\s*(?:\"[^\"]*\"|[^,;\"]*[^,;\"\s])\s*"
# `limit=100, remaining=0, reset=5`, and the newer `"name";r=0;t=5, "other";r=4;t=60`.
_FIELDS = re.compile(rf"{_PARAMETER}(?:[,;]{_PARAMETER})*")
_POLICIES = re.compile(rf"\s*(?:\"[^\"]*\"|[\w*./:%-]+)\s*(?:;{_PARAMETER})+")
_PAIR = re.compile(r"([\w-]+)\s*=\s*(?:\"([^\"]*)\"|([^,;\"]*[^,;\"\s]))")
_ELEMENT = re.compile(rf"\s*([^,;\"]*[^,;\"\s])\s*(?:;{_PARAMETER})*")


def seconds_until(text: str, now: float) -> float | None:
    """Returns how many seconds after `now` a header means, None where it has none of these forms.

    A number of seconds (`7`, `0.5`), seconds or milliseconds since 1970, a date of HTTP, a time of
    ISO 8601 (UTC unless it says otherwise), a duration (`500ms`, `6m0s`, `30 seconds`, `PT30S`).

    Args:
        text: The header's value.
        now: Seconds since 1970.

    Returns:
        0 for what has passed.
    """
    text = text.strip()
    if len(text) > _LONGEST:
        return None
    if _NUMBER.fullmatch(text):
        wait = _of_number(float(text), now)
    elif (lasting := _duration(text)) is not None:
        wait = lasting
    else:
        moment = _moment(text)
        wait = None if moment is None else moment - now
    return None if wait is None else max(0.0, wait)


def answered_at(headers: HTTPHeaderDict, otherwise: float) -> float:
    """Returns when an answer was made by its own `Date`, in seconds since 1970.

    Args:
        headers: The answer's headers.
        otherwise: What is returned when it does not say.
    """
    text = (headers.get("Date") or "").strip()[:_LONGEST]
    moment = _moment(text) if _DATE.fullmatch(text) else None
    return otherwise if moment is None else moment


def refill(headers: HTTPHeaderDict, now: float) -> float | None:
    """Returns in how many seconds every used-up quota is filled again, None while none is used up.

    `RateLimit` has what remains and when it is filled again in one header; else any header such as
    `X-RateLimit-Remaining`, `RateLimit-Remaining` or `X-RateLimit-Requests-Remaining` has beside it
    one that says `Reset` in its place.

    Args:
        headers: The answer's headers.
        now: Seconds since 1970, by the server's clock.
    """
    waits = list(_combined(headers.get("RateLimit") or "", now))
    if not waits:
        for name in headers:
            if _QUOTA.fullmatch(name):
                waits += _separate(headers, name, now)
    return max(waits, default=None)


def _of_number(number: float, now: float) -> float | None:
    if number < _EPOCH_SECONDS[0]:
        return number
    if number < _EPOCH_SECONDS[1]:
        return number - now
    if _EPOCH_MILLISECONDS[0] <= number < _EPOCH_MILLISECONDS[1]:
        return number / 1000 - now
    return None


def _duration(text: str) -> float | None:
    if _DURATION.fullmatch(text):
        pieces = [(float(n), _UNITS.get(unit.lower())) for n, unit in _PIECES.findall(text)]
        if any(unit is None for _, unit in pieces):
            return None
        whole = sum(number * (unit or 0.0) for number, unit in pieces)
        return -whole if text.startswith("-") else whole
    match = _ISO_DURATION.fullmatch(text)
    if match is None:
        return None
    days, hours, minutes, seconds = match.groups()
    last = (seconds or "0S")[:-1]
    if not _NUMBER.fullmatch(last):
        return None
    return (
        float(days or 0) * 86400 + float(hours or 0) * 3600 + float(minutes or 0) * 60 + float(last)
    )


def _moment(text: str) -> float | None:
    """Returns a date of HTTP or a time of ISO 8601 in seconds since 1970."""
    try:
        if _DATE.fullmatch(text):
            date = parsedate_to_datetime(text)
            return (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    time = parse(text) if text[:1].isdigit() else None
    return None if time is None or time.form.step > _DAY_SECONDS else float(time.at)


def _combined(text: str, now: float) -> Iterator[float]:
    """Yields the waits of the used-up quotas in a `RateLimit` header."""
    policies: list[str] = []
    if len(text) > _LONGEST:
        return
    if _FIELDS.fullmatch(text):
        policies = [text]
    else:
        at = 0
        while match := _POLICIES.match(text, at):
            policies.append(match[0])
            if match.end() == len(text):
                break
            at = match.end() + 1
            if text[match.end()] != ",":
                return
        else:
            return
    for policy in policies:
        found = {name.lower(): quoted or plain for name, quoted, plain in _PAIR.findall(policy)}
        left = found.get("r", found.get("remaining", ""))
        wait = seconds_until(found.get("t", found.get("reset", "")), now)
        if wait is not None and _is_zero(left):
            yield wait


def _separate(headers: HTTPHeaderDict, name: str, now: float) -> list[float]:
    """Returns the waits of the used-up quotas in a `Remaining` header and its `Reset`."""
    left = _elements(headers.get(name) or "")
    if not any(map(_is_zero, left)):
        return []
    for word in ("reset-after", "reset"):
        told = headers.get(re.sub("remaining", word, name, flags=re.I))
        if told is None:
            continue
        wait = seconds_until(told, now)
        waits = [wait] if wait is not None else [seconds_until(o, now) for o in _elements(told)]
        if len(waits) == len(left):
            pairs = zip(left, waits, strict=True)
            return [wait for one, wait in pairs if wait is not None and _is_zero(one)]
        # Several quotas in one header ("0, 4999;w=3600"): the first is the one that counts next.
        if len(waits) == 1 and waits[0] is not None and _is_zero(left[0]):
            return [waits[0]]
    return []


def _elements(text: str) -> list[str]:
    """Returns the elements of a list without their parameters; none if it is no such list."""
    if len(text) > _LONGEST:
        return []
    matches = [_ELEMENT.fullmatch(one) for one in text.split(",")]
    return [one[1] for one in matches if one is not None] if all(matches) else []


def _is_zero(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and float(text) == 0
