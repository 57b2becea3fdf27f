"""How many requests may be sent, counted over all threads and processes of a machine.

Each request reserves the next moment at which it is allowed, under a lock and in order, and sleeps
until then. So nobody polls, nobody is overtaken, and no window of time ever holds more requests
than it may. Redis keeps the same account for several machines.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from contextframe_beam.connectors.http._account import FileAccount, RedisAccount
from contextframe_beam.connectors.http.logs import logger
from contextframe_beam.connectors.http.section import checked
from contextframe_beam.connectors.http.settings import BudgetSettings

_PERIODS = {"per_second": 1.0, "per_minute": 60.0, "per_hour": 3600.0}
#: Waits longer than this are worth a line in the log, in seconds.
_LONG_WAIT = 30.0


@dataclass(frozen=True, slots=True)
class Limit:
    """So many requests in any window of so many seconds.

    Attributes:
        count: The requests.
        seconds: The window.
        burst: None: the window is exact. Otherwise so many may come at once after a quiet time,
            and the others follow evenly spaced, at `count / seconds` each second.
    """

    count: int
    seconds: float
    burst: int | None = None


class Account(Protocol):
    """What is kept of the requests so far."""

    def reserve(self) -> float:
        """Reserves the next moment that all limits allow; returns in how many seconds it is."""

    def pause(self, seconds: float) -> None:
        """Lets no request begin for so long."""

    def paused(self) -> float:
        """Returns for how many seconds no request may begin."""


class Budget:
    """The requests that may be sent to one server.

    Args:
        limits: All of them hold.
        name: Budgets of the same name, limits and scope are one and the same, in all processes.
        redis: The address of a Redis server that counts for several machines.
        scope: The server it is for; a client fills it in.
    """

    def __init__(
        self,
        limits: Sequence[Limit] = (),
        name: str = "",
        redis: str | None = None,
        scope: str = "",
    ) -> None:
        self.limits = tuple(limits)
        self.name = name
        self.redis = redis
        self.scope = scope
        self._lock = threading.Lock()
        self._account: Account | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Budget:
        """Makes a budget of `per_second`, `per_minute`, `per_hour`, `burst`, `name` and `redis`.

        Each limit is exact for any window of its length. With `burst`, the shortest of them lets
        so many requests come at once after a quiet time and spaces the others evenly.

        Raises:
            ConfigError: a name or a number that cannot be; the message says which.
        """
        return cls.of(checked(BudgetSettings, config, "budget"))

    @classmethod
    def of(cls, settings: BudgetSettings) -> Budget:
        """Makes the budget of checked settings."""
        limits = [
            _limit(rate, seconds)
            for period, seconds in _PERIODS.items()
            if (rate := getattr(settings, period)) is not None
        ]
        if settings.burst is not None:
            limits[0] = replace(limits[0], burst=settings.burst)
        return cls(limits, str(settings.name or ""), settings.redis)

    def for_scope(self, scope: str) -> Budget:
        """Returns the budget for one server, unless it is for one already."""
        if self.scope or self.name:
            return self
        return Budget(self.limits, redis=self.redis, scope=scope)

    def acquire(self) -> float:
        """Waits until one more request may be sent.

        Returns:
            How many seconds that took.

        Raises:
            ConnectorError: the Redis server cannot be asked.
        """
        account = self._opened()
        wait = account.reserve()
        if wait >= _LONG_WAIT:
            logger.info("waiting %.0f s: the request budget%s is used up", wait, self._named())
        waited = 0.0
        while wait > 0:
            time.sleep(wait)
            waited += wait
            # The server may have asked for a pause while this request slept.
            wait = account.paused()
        return waited

    def pause(self, seconds: float) -> None:
        """Lets no request of this budget begin for so long, as the server asked.

        Raises:
            ConnectorError: the Redis server cannot be asked.
        """
        self._opened().pause(seconds)

    def paused(self) -> float:
        """Returns for how many seconds no request may begin, as the server asked.

        Raises:
            ConnectorError: the Redis server cannot be asked.
        """
        return self._opened().paused()

    def _opened(self) -> Account:
        if self._account is None:
            with self._lock:
                if self._account is None:
                    self._account = self._open()
        return self._account

    def _open(self) -> Account:
        if not self.limits:
            return _Pauses()
        terms = [(one.count, one.seconds, one.burst) for one in self.limits]
        if self.redis:
            return RedisAccount(str(self.redis), f"{self.name or self.scope} {terms}", terms)
        return FileAccount(self.name or self.scope, terms)

    def _named(self) -> str:
        return f" {self.name or self.scope}" if self.name or self.scope else ""

    def __repr__(self) -> str:
        return f"Budget({list(self.limits)!r}, name={self.name!r}, scope={self.scope!r})"


class _Pauses:
    """What a server without limits of ours asked for, within this process."""

    def __init__(self) -> None:
        self._until = -math.inf
        self._lock = threading.Lock()

    def reserve(self) -> float:
        return self.paused()

    def pause(self, seconds: float) -> None:
        with self._lock:
            self._until = max(self._until, time.monotonic() + seconds)

    def paused(self) -> float:
        return max(0.0, self._until - time.monotonic())


def _limit(rate: float, seconds: float) -> Limit:
    if rate >= 1 and rate.is_integer():
        return Limit(int(rate), seconds)
    # 2.5 a second: 1 in 0.4 seconds would forbid pairs, so keep whole requests in a longer window.
    whole = math.ceil(rate)
    return Limit(whole, seconds * whole / rate)
