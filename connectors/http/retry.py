"""Decides when a request is sent again, and reads times and quotas from headers."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import TypeAlias

from urllib3 import HTTPHeaderDict

from contextframe_beam.frames.times import parse

#: The longest wait that we choose ourselves, in seconds.
LONGEST_BACKOFF = 60.0
# If a server asks for a wait of 0, we ask again at once, but not in a tight loop.
_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.25
_MOST_PAUSES = 3

_LIMITED = frozenset({403, 429, 503})
_NEVER = frozenset({501, 505, 506, 508, 510, 511})


@dataclass(frozen=True, slots=True)
class Wait:
    """A judge's verdict that the request should be sent again.

    Attributes:
        seconds: How long to wait, unless the answer's headers state it. None: a short time, longer
            with each attempt; the attempts are counted, as after an error of the server.
        reason: Why, for the message when all attempts are used: "the secondary rate limit".
        doubles: Whether each further wait of the same request is twice as long.
        shared: Whether all requests to this server wait too.
        usable: Whether a successful answer is used as it is when all attempts are used.
    """

    seconds: float | None = None
    reason: str = ""
    doubles: bool = False
    shared: bool = False
    usable: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """How long to wait before the next attempt.

    Attributes:
        seconds: The shortest wait.
        shared: Whether all requests to this server wait too.
        asked: Whether the server asked for it; then it does not count as the request's time.
    """

    seconds: float
    shared: bool = False
    asked: bool = False


class Attempts:
    """The attempts of one request.

    Args:
        retries: How many times it may be sent again.
        backoff: The first wait in seconds; each further one is twice as long.
        max_wait: How many seconds of waiting the server may ask for in total.
        repeatable: Whether it may be sent again if the server may already have carried it out.
        jitter: Returns numbers from 0 to 1.

    Attributes:
        used: The number of attempts so far.
        refused: The seconds that the server asked for but did not get, because `max_wait` is used
            up.
    """

    def __init__(
        self,
        retries: int,
        backoff: float,
        max_wait: float,
        repeatable: bool,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.used = 0
        self.refused: float | None = None
        self._retries = retries
        self._backoff = backoff
        self._allowance = max_wait
        self._repeatable = repeatable
        self._jitter = jitter
        self._pauses = 0
        self._doubled = 0

    def after_answer(
        self,
        status: int,
        headers: HTTPHeaderDict,
        now: float | None = None,
        judged: Wait | None = None,
    ) -> Pause | None:
        """Decides what follows an answer that is a refusal by its status or its verdict.

        Args:
            status: The answer's status.
            headers: Its headers.
            now: Seconds since 1970.
            judged: The verdict of a judge; with a verdict any request is repeated.

        Returns:
            The pause before the next attempt; None to give up.
        """
        now = time.time() if now is None else now
        stated = stated_wait(status, headers, now)
        if judged is not None:
            if stated is None:
                stated = quota_wait(headers, now) if judged.shared else None
            if stated is None and judged.seconds is not None:
                stated = judged.seconds * (2**self._doubled if judged.doubles else 1)
                self._doubled = min(self._doubled + 1, 30)
            return self._after_refusal(stated, limited=True, shared=judged.shared)
        limited = status == 429 or (status == 403 and stated is not None)
        transient = status in (408, 425) or (status >= 500 and status not in _NEVER)
        if not self._repeatable or not (limited or transient):
            return None
        return self._after_refusal(stated, limited, shared=True)

    def after_break(self, sent: bool) -> Pause | None:
        """Decides what follows a failed connection.

        Args:
            sent: Whether the server may have seen the request.

        Returns:
            The pause before the next attempt; None to give up.
        """
        return self._next_backoff() if self._repeatable or not sent else None

    def _after_refusal(self, stated: float | None, limited: bool, shared: bool) -> Pause | None:
        if limited and stated is not None and stated <= self._allowance:
            if stated > _LONGEST_PAUSE:
                self._allowance -= stated
                return Pause(stated, shared, asked=True)
            if self._pauses < _MOST_PAUSES:
                return Pause(max(stated, self._pause()))
        if stated and self._allowance <= 0:
            self.refused = stated
            return None
        wait = self._next_backoff()
        if wait is None or not stated:
            return wait
        granted = min(stated, self._allowance)
        self._allowance -= granted
        return Pause(max(wait.seconds, granted), shared, asked=True)

    def _next_backoff(self) -> Pause | None:
        if self.used >= self._retries:
            return None
        whole = min(LONGEST_BACKOFF, self._backoff * float(2 ** min(self.used, 30)))
        self.used += 1
        return Pause(whole * (0.5 + self._jitter() / 2))

    def _pause(self) -> float:
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * float(2**self._pauses))
        self._pauses += 1
        return pause * (0.5 + self._jitter() / 2)


#: A judge's verdict on an answer: None, a wait before asking again, or the error to raise.
Verdict: TypeAlias = "Wait | Exception | None"


def stated_wait(status: int, headers: HTTPHeaderDict, now: float) -> float | None:
    """Returns how many seconds the server asks us to wait after a refusal, or None.

    `Retry-After` says it. If it is missing, the headers of a used-up quota say when it is filled
    again.

    Args:
        status: The answer's status.
        headers: The answer's headers.
        now: Seconds since 1970; the answer's own `Date` counts more.
    """
    if status not in _LIMITED and "Retry-After" not in headers:
        return None
    asked = seconds_until(headers.get("Retry-After") or "", answered_at(headers, now))
    return quota_wait(headers, now) if asked is None else asked


def quota_wait(headers: HTTPHeaderDict, now: float) -> float | None:
    """Returns the seconds until a used-up quota is filled again; None while some is left.

    Args:
        headers: The answer's headers.
        now: Seconds since 1970; the answer's own `Date` counts more.
    """
    if "RateLimit" not in headers and not any(map(_QUOTA.fullmatch, headers)):
        return None  # most answers, whose Date need not be read
    return refill(headers, answered_at(headers, now))


# Longer values cannot have one of these forms, so we save the time to try.
_LONGEST = 500
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
# Numbers between these are seconds or milliseconds since 1970; smaller ones are durations.
_EPOCH_SECONDS = (1e9, 1e11)
_EPOCH_MILLISECONDS = (1e12, 1e14)
# RFC 9110, 5.6.7: the usual form, the form of RFC 850, and the form of asctime.
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

_QUOTA = re.compile(r"(?:x-)?rate-?limit-(?:(.+)-)?remaining(?:-.+)?", re.I)
_PARAMETER = r"\s*[\w-]+\s*=\s*(?:\"[^\"]*\"|[^,;\"]*[^,;\"\s])\s*"
# `limit=100, remaining=0, reset=5`, and the newer `"name";r=0;t=5, "other";r=4;t=60`.
_FIELDS = re.compile(rf"{_PARAMETER}(?:[,;]{_PARAMETER})*")
_POLICIES = re.compile(rf"\s*(?:\"[^\"]*\"|[\w*./:%-]+)\s*(?:;{_PARAMETER})+")
_PAIR = re.compile(r"([\w-]+)\s*=\s*(?:\"([^\"]*)\"|([^,;\"]*[^,;\"\s]))")
_ELEMENT = re.compile(rf"\s*([^,;\"]*[^,;\"\s])\s*(?:;{_PARAMETER})*")


def seconds_until(text: str, now: float) -> float | None:
    """Returns how many seconds after `now` a header means, or None if its form is unknown.

    It knows a number of seconds (`7`, `0.5`), seconds or milliseconds since 1970, an HTTP date, an
    ISO 8601 time (UTC by default), and a duration (`500ms`, `6m0s`, `30 seconds`, `PT30S`).

    Args:
        text: The header's value.
        now: Seconds since 1970.

    Returns:
        The seconds; 0 for a time in the past.
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
    """Returns the time of an answer from its `Date` header, in seconds since 1970.

    Args:
        headers: The answer's headers.
        otherwise: The result if there is no such header.
    """
    text = (headers.get("Date") or "").strip()[:_LONGEST]
    moment = _moment(text) if _DATE.fullmatch(text) else None
    return otherwise if moment is None else moment


def refill(headers: HTTPHeaderDict, now: float) -> float | None:
    """Returns the seconds until all used-up quotas are filled again; None if there are none.

    `RateLimit` states the rest and the time of the reset in one header. Otherwise each header such
    as `X-RateLimit-Remaining`, `RateLimit-Remaining` or `X-RateLimit-Requests-Remaining` has a
    partner with `Reset` in place of `Remaining`. A quota is used up too if less is left than the
    answer cost: `X-Complexity` beside `X-RateLimit-Complexity-Remaining`.

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
    kind = _QUOTA.fullmatch(name)
    cost = (headers.get(f"X-{kind[1]}") or "").strip() if kind and kind[1] else ""
    if _NUMBER.fullmatch(cost):
        left = ["0" if _NUMBER.fullmatch(one) and float(one) < float(cost) else one for one in left]
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
        # With several quotas in one header ("0, 4999;w=3600"), the first one applies next.
        if len(waits) == 1 and waits[0] is not None and _is_zero(left[0]):
            return [waits[0]]
    return []


def _elements(text: str) -> list[str]:
    """Returns the elements of a list without their parameters; an empty list for other text."""
    if len(text) > _LONGEST:
        return []
    matches = [_ELEMENT.fullmatch(one) for one in text.split(",")]
    return [one[1] for one in matches if one is not None] if all(matches) else []


def _is_zero(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and float(text) == 0
