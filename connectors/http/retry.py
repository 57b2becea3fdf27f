"""When a request is sent again, and how long it waits before: decisions only, nothing is sent here.

A server that states how long to wait is believed, up to a limit. Such waits use up no attempt, so a
server that limits many readers at once does not make one of them give up; all else does. A server
that keeps saying "now" states nothing: after the third time these are attempts like others.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from urllib3 import HTTPHeaderDict

from contextframe_beam.connectors.http.headers import answered_at, refill, seconds_until

#: The longest wait that is made up here, in seconds.
LONGEST_BACKOFF = 60.0
# A server that asks for no wait at all is asked again at once, but not in a tight loop.
_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.25
_MOST_PAUSES = 3

_LIMITED = frozenset({403, 429, 503})
_NEVER = frozenset({501, 505, 506, 508, 510, 511})


@dataclass(frozen=True, slots=True)
class Wait:
    """What a judge of answers says when the request should be sent again.

    Attributes:
        seconds: How long to wait, unless the answer's headers state it. None: a short time, longer
            with each attempt; these are counted, as after an error of the server.
        reason: Why, for the message when all attempts are used: "the secondary rate limit".
        doubles: Each further wait of the same request is twice as long.
        shared: Whether all requests to this server wait as well.
        usable: Whether the answer is used as it is, if it is a success, when all attempts are used.
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
        seconds: At least so long.
        shared: Whether all requests to this server wait as well.
        asked: Whether the server asked for it, so that it takes nothing from the request's time.
    """

    seconds: float
    shared: bool = False
    asked: bool = False


class Attempts:
    """The attempts of one request.

    Args:
        retries: How many times it may be sent again.
        backoff: The first wait in seconds; each further one is twice as long.
        max_wait: How many seconds of waiting the server may ask for, altogether.
        repeatable: Whether it may be sent again when it may have been carried out.
        jitter: Gives numbers from 0 to 1.

    Attributes:
        used: How many attempts are used.
        refused: The seconds that the server asked for in vain, because `max_wait` is used up.
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
        """Decides what follows an answer that is a refusal, by its status or as it was judged.

        Args:
            status: The answer's status.
            headers: Its headers.
            now: Seconds since 1970.
            judged: What a judge says about it; then the request is repeated, whatever it is.

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
        """Decides what follows a connection that failed.

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


#: What a judge says about an answer: nothing, to wait and ask again, or the error to raise.
Verdict: TypeAlias = "Wait | Exception | None"


def stated_wait(status: int, headers: HTTPHeaderDict, now: float) -> float | None:
    """Returns how many seconds the server asks to wait after a refusal, None if it does not.

    `Retry-After` says it. Where it is missing, the headers of a used-up quota say when it is filled
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
    """Returns in how many seconds a used-up quota is filled again, None while some is left.

    Args:
        headers: The answer's headers.
        now: Seconds since 1970; the answer's own `Date` counts more.
    """
    return refill(headers, answered_at(headers, now))
