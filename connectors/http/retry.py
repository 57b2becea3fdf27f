"""When a request is sent again, and how long it waits before: decisions only, nothing is sent here.

A server that states how long to wait is believed, up to a limit. Such waits use up no attempt, so a
server that limits many readers at once does not make one of them give up; all else does.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from urllib3 import HTTPHeaderDict

#: The longest wait that is made up here, in seconds.
LONGEST_BACKOFF = 60.0
# A server that asks for no wait at all is asked again at once, but not in a tight loop.
_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.25

_LIMITED = frozenset({403, 429, 503})
_NEVER = frozenset({501, 505, 506, 508, 510, 511})
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_EPOCH_SECONDS = 1e9
_EPOCH_MILLISECONDS = 1e12


@dataclass(frozen=True, slots=True)
class Wait:
    """How long to wait before the next attempt.

    Attributes:
        seconds: At least so long.
        shared: Whether all requests to this server wait as well: the server asked for it.
    """

    seconds: float
    shared: bool = False


class Attempts:
    """The attempts of one request.

    Args:
        retries: How many times it may be sent again.
        backoff: The first wait in seconds; each further one is twice as long.
        max_wait: How many seconds of waiting the server may ask for, altogether.
        repeatable: Whether it may be sent again when it may have been carried out.
        jitter: Gives numbers from 0 to 1.
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
        self._retries = retries
        self._backoff = backoff
        self._allowance = max_wait
        self._repeatable = repeatable
        self._jitter = jitter
        self._pauses = 0

    def after_answer(
        self, status: int, headers: HTTPHeaderDict, now: float | None = None
    ) -> Wait | None:
        """Decides what follows an answer of 400 or more.

        Returns:
            The wait before the next attempt; None to give up.
        """
        stated = stated_wait(status, headers, time.time() if now is None else now)
        limited = status == 429 or (status == 403 and stated is not None)
        transient = status in (408, 425) or (status >= 500 and status not in _NEVER)
        if not self._repeatable or not (limited or transient):
            return None
        if limited and stated is not None and stated <= self._allowance:
            self._allowance -= stated
            return Wait(stated, True) if stated else Wait(self._pause())
        wait = self._next_backoff()
        if wait is None or not stated:
            return wait
        granted = min(stated, self._allowance)
        self._allowance -= granted
        return Wait(max(wait.seconds, granted), granted > 0)

    def after_break(self, sent: bool) -> Wait | None:
        """Decides what follows a connection that failed.

        Args:
            sent: Whether the server may have seen the request.

        Returns:
            The wait before the next attempt; None to give up.
        """
        return self._next_backoff() if self._repeatable or not sent else None

    def _next_backoff(self) -> Wait | None:
        if self.used >= self._retries:
            return None
        whole = min(LONGEST_BACKOFF, self._backoff * float(2 ** min(self.used, 30)))
        self.used += 1
        return Wait(whole * (0.5 + self._jitter() / 2))

    def _pause(self) -> float:
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * float(2 ** min(self._pauses, 10)))
        self._pauses += 1
        return pause * (0.5 + self._jitter() / 2)


def stated_wait(status: int, headers: HTTPHeaderDict, now: float) -> float | None:
    """Returns how many seconds the server asks to wait after a refusal, None if it does not.

    `Retry-After` says it in seconds or as a date. Where it is missing, the headers of a used-up
    quota say when it is filled again.

    Args:
        status: The answer's status.
        headers: The answer's headers.
        now: Seconds since 1970.
    """
    if status not in _LIMITED and "Retry-After" not in headers:
        return None
    asked = _retry_after(headers.get("Retry-After") or "", now)
    return quota_wait(headers, now) if asked is None else asked


def quota_wait(headers: HTTPHeaderDict, now: float) -> float | None:
    """Returns in how many seconds a used-up quota is filled again, None while some is left.

    Known are `RateLimit` (remaining and reset in one header), `RateLimit-Remaining` and `-Reset`
    and the same with `X-` in front; a reset is a number of seconds or a time since 1970.
    """
    if (combined := headers.get("RateLimit")) is not None:
        found = _combined_wait(combined)
        if found is not None:
            return found
    for prefix in ("RateLimit", "X-RateLimit", "X-Rate-Limit"):
        if _number(headers.get(f"{prefix}-Remaining")) != 0:
            continue
        reset = _number(headers.get(f"{prefix}-Reset"))
        if reset is None:
            continue
        if reset > _EPOCH_MILLISECONDS:
            reset /= 1000
        return max(0.0, reset - now if reset > _EPOCH_SECONDS else reset)
    return None


def _retry_after(text: str, now: float) -> float | None:
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return max(0.0, float(text))
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    wait = date - datetime.fromtimestamp(now, timezone.utc)
    return max(0.0, float(wait.total_seconds()))


def _combined_wait(text: str) -> float | None:
    """Reads `limit=100, remaining=0, reset=5` and the newer `"name";r=0;t=5`."""
    waits = []
    for policy in [text] if "remaining" in text else text.split(","):
        fields = dict(re.findall(r"\b(remaining|reset|r|t)\s*=\s*(\d+)", policy))
        remaining = fields.get("r", fields.get("remaining"))
        reset = fields.get("t", fields.get("reset"))
        if remaining == "0" and reset is not None:
            waits.append(float(reset))
    return max(waits, default=None)


def _number(text: str | None) -> float | None:
    # Several quotas in one header ("0, 4999;w=3600"): the first is the one that counts next.
    match = _NUMBER.match((text or "").strip())
    return float(match[0]) if match else None
