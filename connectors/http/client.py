"""The client that every connector over HTTP uses.

One `send` takes a request from the budget, adds credentials, follows redirects, repeats a failed
request if that is harmless, renews an expired token, and reads the whole answer within limits of
time and size. Credentials go to the origin of `base_url` only.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.http import judges
from contextframe_beam.connectors.http import request as urls
from contextframe_beam.connectors.http.auth import Auth, auth_from_config
from contextframe_beam.connectors.http.buckets import Bucket, Buckets
from contextframe_beam.connectors.http.budget import Budget
from contextframe_beam.connectors.http.cache import Cache, Kept
from contextframe_beam.connectors.http.credentials import Lane, TokenAuth, TokenPool
from contextframe_beam.connectors.http.judges import (
    Judge,
    expired,
    failure,
    named,
    redirected,
    usual,
    without_secrets,
)
from contextframe_beam.connectors.http.request import (
    HttpError,
    HttpRequest,
    HttpResponse,
    PassedOverError,
    TokenExpiredError,
    log_request,
    logger,
)
from contextframe_beam.connectors.http.retry import Attempts, Pause, Verdict, Wait
from contextframe_beam.connectors.http.together import Together
from contextframe_beam.connectors.http.transport import Broken, Transport
from contextframe_beam.connectors.plain_secrets import looks_secret
from contextframe_beam.errors import ConfigError, ConnectorError

MOST_RESPONSE_BYTES = 64 << 20
MOST_REDIRECTS = 10

_TOKEN_BYTES = 1 << 20
#: Longer waits that a server asks for are logged, in seconds.
_LONG_WAIT = 10.0
# While one request waits for a token, others may use up so many.
_MOST_RENEWALS = 100
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
# Statuses besides 401 by which servers refuse an expired token.
_MAYBE_EXPIRED = frozenset({400, 403, 419, 440, 498})


@dataclass(frozen=True, slots=True)
class HttpStats:
    """The numbers of a client so far.

    Attributes:
        requests: Requests sent, including repeated ones and redirects.
        retries: The repeated requests among them.
        wait_ms: Milliseconds of waiting for the budget, the server's limits and between attempts,
            summed over all threads.
        bytes: Bytes of bodies received, decompressed.
        cache_hits: Answers from the cache, including those that the server confirmed.
    """

    requests: int = 0
    retries: int = 0
    wait_ms: int = 0
    bytes: int = 0
    cache_hits: int = 0


class HttpClient:
    """Sends requests to one server, from any number of threads.

    Args:
        base_url: The server; relative addresses are below it, credentials go to its origin only.
        auth: The credentials.
        timeout: Seconds to connect, and seconds without a byte.
        total_timeout: Seconds for one `send`, with all attempts, but without the waits for the
            budget and those that the server asks for.
        retries: How many times a request is sent again.
        budget: How many requests may be sent; it holds in all processes.
        cache: The cache of answers.
        pool_size: The number of connections to keep open.
        max_response_bytes: The largest body, compressed or not.
        ca_bundle: A file or directory of certificates to trust instead of the usual ones.
        headers: Sent with each request to `base_url`'s origin.
        max_wait: How many seconds of waiting the server may ask for, for one `send`.
        allowed_origins: Other origins that links and redirects may lead to; they get no
            credentials.
        same_server: Origins that the server uses for itself in its links, such as its internal
            address at a gateway; such links are requested from `base_url`.
        backoff: The first wait between attempts, in seconds; it doubles.
        judge: Looks at each answer, and returns None, a `Wait`, or the error to raise; it replaces
            `judges.usual`, which handles some large APIs.

    Raises:
        ConfigError: an address or a number is invalid.
    """

    def __init__(
        self,
        base_url: str,
        *,
        auth: Auth | None = None,
        timeout: float | tuple[float, float] = (10, 60),
        total_timeout: float = 300,
        retries: int = 5,
        budget: Budget | None = None,
        cache: Cache | None = None,
        pool_size: int = 16,
        max_response_bytes: int = MOST_RESPONSE_BYTES,
        ca_bundle: str | PathLike[str] | None = None,
        headers: Mapping[str, str] | None = None,
        max_wait: float = 300,
        allowed_origins: Iterable[str] = (),
        same_server: Iterable[str] = (),
        backoff: float = 0.5,
        judge: Judge = usual,
    ) -> None:
        self.base_url = urls.checked_base(str(base_url))
        self.origin = urls.origin_of(self.base_url)
        self.auth = auth
        self.cache = cache
        self.ca_bundle = ca_bundle
        self.retries = retries
        self.total_timeout = total_timeout
        self.max_wait = max_wait
        self.backoff = backoff
        self.judge = judge
        self.timeout = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        for name, number in (
            ("timeout", min(self.timeout)),
            ("total_timeout", total_timeout),
            ("pool_size", pool_size),
            ("max_response_bytes", max_response_bytes),
        ):
            if not number > 0:
                raise ConfigError(f"{name} is more than 0, not {number}")
        self._most_bytes = max_response_bytes
        self._transport = Transport(self.timeout, pool_size, max_response_bytes, ca_bundle)
        self._allowed = {self.origin, *map(urls.origin_of, allowed_origins)}
        self._same = frozenset(map(urls.origin_of, same_server))
        self._headers: dict[str, str] = secrets.referenced(dict(headers or {}))
        secrets.register_literals(self._headers)
        whole = (budget or Budget()).for_scope(self.origin)
        self._buckets = Buckets(whole, self.base_url, max_wait)
        self._lock = threading.Lock()
        self._together = Together(pool_size)
        self._counts = {one.name: 0 for one in dataclasses.fields(HttpStats)}
        self._warn_of_plain_text()

    @classmethod
    def from_config(
        cls,
        base_url: str,
        *,
        auth: Mapping[str, Any] | None = None,
        budget: Mapping[str, Any] | None = None,
        cache: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> HttpClient:
        """Makes a client from plain values, as in a configuration file.

        Args:
            base_url: The server.
            auth: See `auth_from_config`.
            budget: See `Budget.from_config`.
            cache: See `Cache.from_config`.
            **settings: The other arguments of the constructor.

        Raises:
            ConfigError: a value is invalid.
        """
        client = cls(
            base_url,
            budget=Budget.from_config(budget) if budget else None,
            cache=Cache.from_config(cache) if cache else None,
            **settings,
        )
        client.auth = auth_from_config(auth, client)
        client._warn_of_plain_text()
        return client

    @property
    def stats(self) -> HttpStats:
        """The numbers of the client so far."""
        with self._lock:
            return HttpStats(**self._counts)

    def send(self, request: HttpRequest, *, raise_for_status: bool = True) -> HttpResponse:
        """Sends a request and returns its whole answer.

        Args:
            request: The request; a relative address is below `base_url`.
            raise_for_status: False: a status of 400 or more, or an answer that is judged to be an
                error, is returned like any other once all attempts are used.

        Raises:
            HttpError: the status is 400 or more, or there was no answer, after all attempts.
            Exception: the error that the judge returned for an answer.
            ConnectorError: the address is refused, the body is too large, or there is no token.
        """
        request = self._prepared(request)
        key = self._cache_key(request)
        if self.cache is None or key is None:
            return self._followed(request, raise_for_status)
        kept = self.cache.find(key)
        if kept is not None and kept.fresh:
            self._count(cache_hits=1)
            return _from_cache(kept, request)
        asked = request if kept is None else self.cache.conditional(request, kept)
        response = self._followed(asked, raise_for_status)
        if kept is not None and response.status == 304:
            self.cache.confirm(key)
            self._count(cache_hits=1)
            return _from_cache(kept, request)
        if self._judged(response) is None:
            self.cache.store(key, response)
        return response

    def all(
        self,
        requests: Iterable[HttpRequest],
        *,
        at_once: int = 8,
        most_bytes: int | None = None,
        raise_for_status: bool = True,
    ) -> list[HttpResponse]:
        """Sends the requests of one page, several at once, and returns their answers in order.

        Each takes its turn in the budget. All calls of one client together have at most `pool_size`
        requests open. After the first error no further request begins.

        Args:
            requests: The requests; each is taken when it is its turn.
            at_once: How many requests of this call may be open at the same time.
            most_bytes: No further request begins once the bodies have more bytes than this, 32 MiB
                for example. The answers are then those of the first requests only, and their
                number says with which one the next page begins. At least one request is sent.
            raise_for_status: As for `send`.

        Returns:
            The answers; of the first requests only, where their bytes passed the limit.

        Raises:
            ConnectorError: as `send`; the first error, whichever request it belongs to.
        """

        def send(request: HttpRequest) -> HttpResponse:
            return self.send(request, raise_for_status=raise_for_status)

        return self._together.answers(send, requests, at_once, most_bytes)

    def absolute(self, url: str) -> str:
        """Returns the whole address: `items` is below `base_url`, `/items` below its host."""
        return urls.joined(self.base_url, str(url))

    def for_origin(self, url: str) -> HttpClient:
        """Returns a client for another server, with the same limits but without credentials.

        It is used to request tokens.

        Args:
            url: An address of the other server.
        """
        return HttpClient(
            urls.origin_of(url),
            timeout=self.timeout,
            total_timeout=self.total_timeout,
            retries=self.retries,
            pool_size=1,
            max_response_bytes=min(self._most_bytes, _TOKEN_BYTES),
            ca_bundle=self.ca_bundle,
            max_wait=self.max_wait,
            backoff=self.backoff,
        )

    def close(self) -> None:
        """Closes connections and cache; a later request opens them again."""
        self._transport.close()
        if self.cache is not None:
            self.cache.close()

    def __enter__(self) -> HttpClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"HttpClient({self.base_url!r}, auth={self.auth!r})"

    def _prepared(self, request: HttpRequest) -> HttpRequest:
        """Returns the request with its references resolved, but without credentials yet."""
        url = self.absolute(request.url)
        return HttpRequest(
            request.method.upper(),
            urls.at_own(url, self.base_url, self._same, self._allowed),
            secrets.resolved(dict(request.params)),
            secrets.resolved(dict(request.headers)),
            secrets.resolved(request.json),
            None if request.form is None else secrets.resolved(dict(request.form)),
            request.safe_to_repeat,
            request.judge,
        )

    def _followed(self, request: HttpRequest, raise_for_status: bool) -> HttpResponse:
        """Sends a request and follows its redirects."""
        clock = _Clock(self.total_timeout)
        for number in range(1 + MOST_REDIRECTS):
            self._check_origin(request, number > 0)
            response = self._answered(request, clock, raise_for_status)
            location = response.headers.get("Location")
            if response.status not in judges.STATUSES or not location:
                return response
            request = redirected(request, response, response.absolute(location))
        raise ConnectorError(
            f"{named(request)} was redirected more than {MOST_REDIRECTS} times; it goes in a circle"
        )

    def _answered(
        self, request: HttpRequest, clock: _Clock, raise_for_status: bool
    ) -> HttpResponse:
        """Sends a request until there is no reason to repeat it, and returns the last answer."""
        attempts = Attempts(self.retries, self.backoff, self.max_wait, request.repeatable)
        refusal: HttpResponse | None = None
        verdict: Verdict = None
        number = 0
        renewed = 0
        while True:
            number += 1
            lane = self._lane(request)
            bucket = self._wait_for_budget(request, clock, lane)
            try:
                result = self._exchanged(request, clock, number, lane)
                if isinstance(result, HttpResponse):
                    lane.buckets.learn(request, result)
            finally:
                lane.buckets.release(bucket)
            if isinstance(result, Broken):
                pause = attempts.after_break(result.sent) if result.transient else None
            else:
                verdict = self._judged(result)
                if verdict is None and result.status < 400:
                    return result
                refusal = result
                again = not renewed or (
                    renewed < _MOST_RENEWALS
                    and isinstance(lane.auth, TokenAuth)
                    and lane.auth.may_have_ended(result)
                )
                if again and _needs_token(result, verdict) and self._renewed(result, lane):
                    renewed += 1
                    continue
                pause = _pause_after(result, verdict, attempts)
            if pause is not None and self._waits(pause, clock, lane, request, result):
                continue
            if isinstance(result, HttpResponse):
                usable = isinstance(verdict, Wait) and verdict.usable and result.status < 400
                if usable or not raise_for_status:
                    return result
                if isinstance(verdict, Exception):
                    raise verdict
            raise failure(
                request,
                result,
                refusal,
                verdict,
                refused=None if attempts.refused is None else (attempts.refused, self.max_wait),
                tries=(number, clock.spent()),
                own=urls.origin_of(request.url) == self.origin,
            )

    def _judged(self, response: HttpResponse) -> Verdict:
        return (response.sent.judge or self.judge)(response)

    def _lane(self, request: HttpRequest) -> Lane:
        """Returns the credentials and the budgets of the next request."""
        if isinstance(self.auth, TokenPool):
            return self.auth.next(request)
        return Lane(self.auth, self._buckets)

    def _exchanged(
        self, request: HttpRequest, clock: _Clock, number: int, lane: Lane
    ) -> HttpResponse | Broken:
        left = clock.left()
        if left <= 0:
            spent = f"was given up: the {self.total_timeout:g} s of total_timeout are over"
            return Broken(spent, sent=False, transient=False)
        with self._together.place() as is_open:
            if not is_open:
                return Broken("was given up: another one failed", sent=False, transient=False)
            signed = self._with_credentials(request, lane.auth)
            began = time.perf_counter()
            result = self._transport.exchange(signed, left)
        seconds = time.perf_counter() - began
        if isinstance(result, Broken):
            self._count(requests=1, retries=int(number > 1))
            log_request(request.method, request.url, result.problem, seconds, number)
        else:
            self._count(requests=1, retries=int(number > 1), bytes=len(result.body))
            log_request(request.method, request.url, result.status, seconds, number)
        return result

    def _with_credentials(self, request: HttpRequest, auth: Auth | None) -> HttpRequest:
        if urls.origin_of(request.url) == self.origin:
            for name, value in self._headers.items():
                if request.header(name) is None:
                    request = request.with_header(name, str(value))
            return request if auth is None else auth.apply(request)
        return without_secrets(request)

    def _renewed(self, response: HttpResponse, lane: Lane) -> bool:
        if lane.auth is None or urls.origin_of(response.sent.url) != self.origin:
            return False
        return lane.auth.renew(response)

    def _check_origin(self, request: HttpRequest, was_redirected: bool) -> None:
        origin = urls.origin_of(request.url)
        if origin in self._allowed:
            return
        # A redirect comes from base_url's own server, so `same_server` would not help.
        same = (
            f"the API is there, write base_url: {origin}"
            if was_redirected
            else f"that is another name of the same server, write same_server: [{origin}], and it "
            "is requested from base_url"
        )
        raise ConnectorError(
            f"{urls.shown(request.url)} is not at {self.origin}, so it is not requested; if "
            f"{same}; if it is another server, allow it with allowed_origins: [{origin}] (it gets "
            "no credentials)"
        )

    def _wait_for_budget(self, request: HttpRequest, clock: _Clock, lane: Lane) -> Bucket:
        # The bucket first: who waits for it takes no turn of others in the budget of all.
        bucket, waited = lane.buckets.acquire(request)
        try:
            waited += self._buckets.budget.acquire()
            if lane.buckets is not self._buckets:
                waited += lane.buckets.budget.acquire()
        except BaseException:
            lane.buckets.release(bucket)
            raise
        if waited:
            clock.exclude(waited)
            self._count(wait_ms=int(waited * 1000))
        return bucket

    def _waits(
        self,
        pause: Pause,
        clock: _Clock,
        lane: Lane,
        request: HttpRequest,
        result: HttpResponse | Broken,
    ) -> bool:
        """Waits before the next attempt, unless the time would then be over."""
        budget = lane.buckets.budget
        if isinstance(result, HttpResponse):
            budget = lane.buckets.refused(request, result)
        if pause.asked and pause.seconds >= _LONG_WAIT > budget.paused():
            logger.warning(
                "waiting %.0f s before %s is asked again: its server wants it so",
                pause.seconds,
                urls.shown(request.url),
            )
        if pause.shared:
            # The budget makes all requests wait, including this one.
            budget.pause(pause.seconds)
            return clock.left() > 0
        if pause.seconds >= clock.left() and not pause.asked:
            return False
        time.sleep(pause.seconds)
        if pause.asked:
            clock.exclude(pause.seconds)
        self._count(wait_ms=int(pause.seconds * 1000))
        return True

    def _cache_key(self, request: HttpRequest) -> str | None:
        if self.cache is None:
            return None
        account = ""
        if self.auth is not None:
            tell = getattr(self.auth, "account", None)
            if tell is None:
                return None  # we cannot know whose answer it would be
            account = tell()
        if self._headers:
            account += json.dumps(secrets.resolved(self._headers), sort_keys=True)
        return self.cache.key(request, account)

    def _count(self, **counts: int) -> None:
        with self._lock:
            for name, count in counts.items():
                self._counts[name] += count

    def _warn_of_plain_text(self) -> None:
        secret = self.auth is not None or any(map(looks_secret, self._headers))
        host = urls.parsed(self.base_url).host
        if secret and self.origin.startswith("http:") and host not in _LOOPBACK:
            logger.warning("credentials are sent to %s unencrypted; use https", self.origin)


class _Clock:
    """The time that one `send` has left."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._began = time.monotonic()
        self._excluded = 0.0

    def spent(self) -> float:
        return time.monotonic() - self._began

    def left(self) -> float:
        return self.seconds - (self.spent() - self._excluded)

    def exclude(self, seconds: float) -> None:
        self._excluded += seconds


def _from_cache(kept: Kept, request: HttpRequest) -> HttpResponse:
    target = urls.with_query(request.url, request.params)
    return HttpResponse(200, kept.headers, kept.body, target, request, from_cache=True)


def _needs_token(response: HttpResponse, verdict: Verdict) -> bool:
    """Returns whether a refusal means that the token should be renewed."""
    if response.status == 401 or isinstance(verdict, TokenExpiredError):
        return True
    refused = response.status in _MAYBE_EXPIRED or isinstance(verdict, HttpError)
    return refused and expired(response)


def _pause_after(response: HttpResponse, verdict: Verdict, attempts: Attempts) -> Pause | None:
    """Returns the wait before the next attempt; None to give up."""
    if isinstance(verdict, Wait):
        return attempts.after_answer(response.status, response.headers, judged=verdict)
    # An answer that we can pass over is still requested again while that may help.
    if isinstance(verdict, Exception) and not isinstance(verdict, PassedOverError):
        return None
    return attempts.after_answer(response.status, response.headers)
