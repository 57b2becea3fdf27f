"""Budgets of requests, counted over all threads and processes of a machine.

Each request takes a lock, reserves the next moment at which it is allowed, and sleeps until then.
So nothing polls, requests keep their order, and no window of time has too many requests. Redis
keeps the same account for several machines.
"""

from __future__ import annotations

import fcntl
import math
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from contextframe_beam.connectors.http.request import logger
from contextframe_beam.connectors.http.section import checked
from contextframe_beam.connectors.http.settings import BudgetSettings, LimitSettings
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.connectors.shared_files import shared_file
from contextframe_beam.errors import ConfigError, ConnectorError

if TYPE_CHECKING:
    from redis import Redis

#: Windows count as so much longer than stated, because the server's clock is another one, and a
#: request takes its time to arrive.
MARGIN = 1.1
_PERIODS = {"per_second": 1.0, "per_minute": 60.0, "per_hour": 3600.0}
#: Longer waits are logged, in seconds.
_LONG_WAIT = 30.0


@dataclass(frozen=True, slots=True)
class Limit:
    """The largest number of requests in any window of time.

    Attributes:
        count: The number of requests.
        seconds: The length of the window.
        burst: None: the window is exact. Otherwise the number of requests that may come at once
            after a quiet time; the others are spaced evenly, `count / seconds` each second.
    """

    count: int
    seconds: float
    burst: int | None = None


class Account(Protocol):
    """The record of the requests so far."""

    def reserve(self) -> float:
        """Reserves the next moment that all limits allow; returns the seconds until then."""

    def pause(self, seconds: float) -> None:
        """Stops new requests for some seconds."""

    def paused(self) -> float:
        """Returns the seconds until requests may begin again."""


class Budget:
    """The requests that may be sent to one server.

    Args:
        limits: The limits; all of them apply.
        name: Budgets with the same name, limits and scope are shared by all processes.
        redis: The address of a Redis server that counts for several machines.
        scope: The server that it is for; the client fills it in.
        paths: Limits of paths that the server counts each for itself: a pattern, and its limits.
        shared: Whether its pauses hold in all processes even if it has no limits.
    """

    def __init__(
        self,
        limits: Sequence[Limit] = (),
        name: str = "",
        redis: str | None = None,
        scope: str = "",
        paths: Sequence[tuple[str, tuple[Limit, ...]]] = (),
        shared: bool = False,
    ) -> None:
        self.limits = tuple(limits)
        self.paths = tuple(paths)
        self._shared = shared or bool(limits)
        self.name = name
        self.redis = redis
        self.scope = scope
        self._lock = threading.Lock()
        self._account: Account | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Budget:
        """Makes a budget from `per_second`, `per_minute`, `per_hour`, `burst`, `name` and `redis`.

        Each limit is exact for any window of its length, which counts as a tenth longer. With
        `burst`, the shortest limit allows that many requests at once after a quiet time and spaces
        the others evenly. `paths` has limits of paths that the server counts each for itself.

        Raises:
            ConfigError: a name is unknown or a value is invalid; the message says which.
        """
        return cls.of(checked(BudgetSettings, config, "budget"))

    @classmethod
    def of(cls, settings: BudgetSettings) -> Budget:
        """Makes the budget from checked settings."""
        paths = [(pattern, _limits(own)) for pattern, own in settings.paths.items()]
        limits = list(_limits(settings))
        if settings.burst is not None:
            limits[0] = replace(limits[0], burst=settings.burst)
        return cls(limits, str(settings.name or ""), settings.redis, paths=paths)

    def for_scope(self, scope: str) -> Budget:
        """Returns the budget for one server, or itself if it already has a server."""
        if self.scope or self.name:
            return self
        return Budget(self.limits, redis=self.redis, scope=scope, paths=self.paths)

    def part(self, name: str, limits: Sequence[Limit] = ()) -> Budget:
        """Returns the budget of requests that the server counts apart from others.

        Args:
            name: What it counts together.
            limits: The limits of these requests.
        """
        whole = f"{self.name or self.scope} {name}"
        return Budget(limits, whole, self.redis, shared=self._shared or bool(self.paths))

    def acquire(self) -> float:
        """Waits until one more request may be sent.

        Returns:
            The seconds that it waited.

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
        """Stops new requests of this budget for some seconds, because the server asked.

        Raises:
            ConnectorError: the Redis server cannot be asked.
        """
        self._opened().pause(seconds)

    def paused(self) -> float:
        """Returns the seconds until requests may begin again, because the server asked.

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
        if not self._shared:
            return _Pauses()
        terms = [(one.count, one.seconds, one.burst) for one in self.limits]
        if self.redis:
            name = f"{self.name or self.scope} {terms}"
            return RedisAccount(str(self.redis), name, terms, MARGIN)
        return FileAccount(self.name or self.scope, terms, margin=MARGIN)

    def _named(self) -> str:
        return f" {self.name or self.scope}" if self.name or self.scope else ""

    def __repr__(self) -> str:
        return f"Budget({list(self.limits)!r}, name={self.name!r}, scope={self.scope!r})"


class _Pauses:
    """The pauses that a server without a budget asked for, within this process."""

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


def _limits(settings: LimitSettings) -> tuple[Limit, ...]:
    return tuple(
        _limit(rate, seconds)
        for period, seconds in _PERIODS.items()
        if (rate := getattr(settings, period)) is not None
    )


def _limit(rate: float, seconds: float) -> Limit:
    if rate >= 1 and rate.is_integer():
        return Limit(int(rate), seconds)
    # For 2.5 a second, 1 in 0.4 seconds would forbid pairs, so we make the window longer.
    whole = math.ceil(rate)
    return Limit(whole, seconds * whole / rate)


#: Requests, seconds, and how many requests may come at once (None: the window is exact).
Term: TypeAlias = tuple[int, float, int | None]

_HEADER = struct.Struct("<dd")  # the last reserved moment, the end of a pause
_MOMENT = struct.Struct("<d")
_INDEX = struct.Struct("<Q")
# Moments further in the future were written before the clock was set back.
_FURTHEST = 86_400.0


class FileAccount:
    """The account of one machine, in a file that processes lock for each request.

    Args:
        name: Accounts with the same name and terms are shared.
        terms: The limits.
        clock: Gives seconds since 1970, the same for all processes.
        margin: How many times as long as stated each window counts.
    """

    def __init__(
        self,
        name: str,
        terms: Sequence[Term],
        clock: Callable[[], float] = time.time,
        margin: float = 1.0,
    ) -> None:
        self._terms = [(count, seconds * margin, burst) for count, seconds, burst in terms]
        self._clock = clock
        self._lock = threading.Lock()
        self._process = 0
        self._file = -1
        self._path = shared_file("budget", name, repr(list(terms)))
        self._places: list[int] = []
        at = _HEADER.size
        for count, _, burst in terms:
            self._places.append(at)
            at += _INDEX.size + count * _MOMENT.size if burst is None else _MOMENT.size
        self._size = at

    def reserve(self) -> float:
        """Reserves the next moment that all terms allow; returns the seconds until then."""
        with self._locked() as file:
            now = self._clock()
            last, pause = _HEADER.unpack(os.pread(file, _HEADER.size, 0))
            if last > now + _FURTHEST:
                os.ftruncate(file, 0)
                os.ftruncate(file, self._size)
                last = pause = 0.0
            moment = max(now, last, pause)
            indexes: list[int] = []
            for place, (count, seconds, burst) in zip(self._places, self._terms, strict=True):
                if burst is None:
                    index = _INDEX.unpack(os.pread(file, _INDEX.size, place))[0] % count
                    oldest = self._moment(file, place + _INDEX.size + index * _MOMENT.size)
                    moment = max(moment, oldest + seconds)
                    indexes.append(index)
                else:
                    full = self._moment(file, place)
                    moment = max(moment, full - (burst - 1) * seconds / count)
                    indexes.append(0)
            for place, index, (count, seconds, burst) in zip(
                self._places, indexes, self._terms, strict=True
            ):
                if burst is None:
                    at = place + _INDEX.size + index * _MOMENT.size
                    os.pwrite(file, _MOMENT.pack(moment), at)
                    os.pwrite(file, _INDEX.pack((index + 1) % count), place)
                else:
                    full = max(self._moment(file, place), moment) + seconds / count
                    os.pwrite(file, _MOMENT.pack(full), place)
            os.pwrite(file, _HEADER.pack(moment, pause), 0)
            return float(moment - now)

    def pause(self, seconds: float) -> None:
        """Stops new requests for some seconds."""
        with self._locked() as file:
            last, pause = _HEADER.unpack(os.pread(file, _HEADER.size, 0))
            os.pwrite(file, _HEADER.pack(last, max(pause, self._clock() + seconds)), 0)

    def paused(self) -> float:
        """Returns the seconds until requests may begin again."""
        with self._locked() as file:
            pause = _HEADER.unpack(os.pread(file, _HEADER.size, 0))[1]
            return max(0.0, float(pause) - self._clock())

    @staticmethod
    def _moment(file: int, at: int) -> float:
        return float(_MOMENT.unpack(os.pread(file, _MOMENT.size, at))[0])

    @contextmanager
    def _locked(self) -> Iterator[int]:
        with self._lock:
            if self._process != os.getpid():
                # A lock belongs to the open file, which a forked process would share.
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                self._process = os.getpid()
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                if os.fstat(self._file).st_size != self._size:
                    os.ftruncate(self._file, self._size)
                yield self._file
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def __del__(self) -> None:
        if self._file >= 0 and self._process == os.getpid():
            os.close(self._file)


# The same in Redis, by its server's clock. KEYS: the header, then one key for each term.
_RESERVE = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local header = redis.call('HMGET', KEYS[1], 'last', 'pause')
local moment = math.max(now, tonumber(header[1] or 0), tonumber(header[2] or 0))
local longest = 0
for i = 2, #KEYS do
  local count, seconds, burst = unpack(ARGV, 3 * i - 5, 3 * i - 3)
  count, seconds, burst = tonumber(count), tonumber(seconds), tonumber(burst)
  if burst == 0 then
    if redis.call('LLEN', KEYS[i]) >= count then
      moment = math.max(moment, tonumber(redis.call('LINDEX', KEYS[i], 0)) + seconds)
    end
  else
    local full = tonumber(redis.call('GET', KEYS[i]) or 0)
    moment = math.max(moment, full - (burst - 1) * seconds / count)
  end
  longest = math.max(longest, seconds * math.max(1, burst / count))
end
local life = math.ceil((moment - now + longest) * 1000) + 1000
for i = 2, #KEYS do
  local count, seconds, burst = unpack(ARGV, 3 * i - 5, 3 * i - 3)
  count, seconds, burst = tonumber(count), tonumber(seconds), tonumber(burst)
  if burst == 0 then
    redis.call('RPUSH', KEYS[i], string.format('%.6f', moment))
    redis.call('LTRIM', KEYS[i], -count, -1)
  else
    local full = math.max(tonumber(redis.call('GET', KEYS[i]) or 0), moment) + seconds / count
    redis.call('SET', KEYS[i], string.format('%.6f', full))
  end
  redis.call('PEXPIRE', KEYS[i], life)
end
redis.call('HSET', KEYS[1], 'last', string.format('%.6f', moment))
if redis.call('PTTL', KEYS[1]) < life then redis.call('PEXPIRE', KEYS[1], life) end
return string.format('%.6f', moment - now)
"""
_PAUSE = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local pause = math.max(tonumber(redis.call('HGET', KEYS[1], 'pause') or 0), now + ARGV[1])
if tonumber(ARGV[1]) > 0 then
  redis.call('HSET', KEYS[1], 'pause', string.format('%.6f', pause))
  local life = math.ceil((pause - now) * 1000) + 1000
  if redis.call('PTTL', KEYS[1]) < life then redis.call('PEXPIRE', KEYS[1], life) end
end
return string.format('%.6f', pause - now)
"""


class RedisAccount:
    """The account of several machines.

    Args:
        url: The server, `redis://host:6379/0`.
        name: Accounts with the same name are shared.
        terms: The limits.
        margin: How many times as long as stated each window counts.

    Raises:
        ConfigError: the client library is missing, or the address is not valid.
    """

    def __init__(self, url: str, name: str, terms: Sequence[Term], margin: float = 1.0) -> None:
        self._name = name
        self._terms = [
            part
            for count, seconds, burst in terms
            for part in (count, seconds * margin, burst or 0)
        ]
        # The braces keep all keys on one node of a cluster.
        self._keys = [f"contextframe-beam:{{{name}}}:{part}" for part in range(1 + len(terms))]
        self._redis = _connected(url)

    def reserve(self) -> float:
        """Reserves the next moment that all terms allow; returns the seconds until then.

        Raises:
            ConnectorError: the server cannot be asked.
        """
        return max(0.0, self._evaluate(_RESERVE, self._keys, self._terms))

    def pause(self, seconds: float) -> None:
        """Stops new requests for some seconds.

        Raises:
            ConnectorError: the server cannot be asked.
        """
        self._evaluate(_PAUSE, self._keys[:1], [seconds])

    def paused(self) -> float:
        """Returns the seconds until requests may begin again.

        Raises:
            ConnectorError: the server cannot be asked.
        """
        return max(0.0, self._evaluate(_PAUSE, self._keys[:1], [0]))

    def _evaluate(self, script: str, keys: list[str], arguments: Sequence[float]) -> float:
        from redis import RedisError

        call: Any = self._redis.eval
        try:
            return float(call(script, len(keys), *keys, *arguments))
        except RedisError as error:
            message = redact(f"{type(error).__name__}: {error}")
        raise ConnectorError(
            f"the request budget cannot be asked for from Redis ({message}); without it no "
            "request is sent"
        )


def _connected(url: str) -> Redis:
    try:
        from redis import Redis
        from redis.backoff import ExponentialBackoff
        from redis.exceptions import ConnectionError as NotConnected
        from redis.exceptions import TimeoutError as TimedOut
        from redis.retry import Retry
    except ImportError as error:
        raise ConfigError(
            "a budget in Redis needs its client library; install contextframe-beam[redis]"
        ) from error
    try:
        return Redis.from_url(
            url,
            socket_timeout=10,
            socket_connect_timeout=10,
            retry=Retry(ExponentialBackoff(cap=2, base=0.1), 3),
            retry_on_error=[NotConnected, TimedOut],
        )
    except ValueError as error:
        message = redact(str(error))
    raise ConfigError(f"the address of the Redis server of the budget is wrong: {message}")
