"""Buckets of requests: which requests of a server share a quota, and what is left of it.

A server may count some requests apart from others: by method, by resource, by channel. Which those
are is stated in the configuration (`paths` of a budget), or learned from its answers, whose headers
name the bucket of a request. A bucket that is used up holds up its own requests only.

Sources: https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api and
https://discord.com/developers/docs/topics/rate-limits.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from urllib3 import HTTPHeaderDict

from contextframe_beam.connectors.http import request as urls
from contextframe_beam.connectors.http.budget import MARGIN, Budget, Limit
from contextframe_beam.connectors.http.request import HttpRequest, HttpResponse
from contextframe_beam.connectors.http.retry import answered_at, quota_wait, seconds_until
from contextframe_beam.connectors.mapper import lookup
from contextframe_beam.errors import ConnectorError

# Name the bucket of a request: one of the whole account, such as search, and one that each channel
# or server has of its own.
_RESOURCE, _BUCKET = "X-RateLimit-Resource", "X-RateLimit-Bucket"
_AFTER = "X-RateLimit-Reset-After"
_SCOPE, _GLOBAL = "X-RateLimit-Scope", "X-RateLimit-Global"

# The longest addition to a wait for a reset, in seconds. Servers round it, and clocks differ.
_LONGEST_MARGIN = 1.0
# What the same reset may differ by in two answers that tell fractions of seconds.
_PRECISE = 0.1
# How long others wait for the first answer of a bucket, which says how many may go at once.
_FIRST_ANSWER = 5.0
_MOST_ROUTES = 10_000
_DIGIT = re.compile(r"[0-9]")


class Bucket:
    """Requests that a server counts together. `Buckets` guards it by its lock.

    Attributes:
        budget: Their limits and pauses.
        is_own: Whether the server counts them apart from others.
        open: How many of them are under way.
    """

    def __init__(self, budget: Budget, is_own: bool = False, since: float | None = None) -> None:
        self.budget = budget
        self.is_own = is_own
        self.open = 0
        # Until then, the first request of a bucket that nothing is known of goes alone.
        self._alone_until = -math.inf if since is None else since + _FIRST_ANSWER
        self._limit = self._left = 0
        # The end of the present window; infinite before its first answer, None if nothing is known.
        self._until: float | None = None

    def wait(self, now: float) -> float:
        """Returns how long the next of its requests must wait, unless an answer comes earlier."""
        if self._until is None:
            return self._alone_until - now if self.open else 0.0
        if now >= self._until:
            self._left, self._until = self._limit, math.inf
        if self._left > self.open:
            return 0.0
        return min(self._until - now, _FIRST_ANSWER) if self.open else self._until - now

    def note(self, headers: HTTPHeaderDict, now: float, max_wait: float) -> None:
        """Notes what an answer says of the quota, unless its reset is later than `max_wait`."""
        limit, left = (_number(headers, name) for name in ("Limit", "Remaining"))
        wait = _reset(headers)
        if not limit or left is None or wait is None or wait > max_wait:
            return
        until = now + wait + _margin(wait)
        known = math.inf if self._until is None else self._until
        # Answers may come in another order than they were counted in, and tell a rounded time.
        rounded = _PRECISE if _AFTER in headers else _LONGEST_MARGIN
        same = now < known < math.inf and until <= known + rounded
        self._left = min(left, self._left) if same else left
        self._limit, self._until = limit, known if same else until


class Buckets:
    """The requests of one account at one server.

    Args:
        budget: The limits and pauses of all of them.
        base_url: The server's address; paths are below it.
        max_wait: Resets later than this many seconds are not waited for.
    """

    def __init__(self, budget: Budget, base_url: str = "", max_wait: float = math.inf) -> None:
        self.budget = budget
        self._base = base_url
        self._max_wait = max_wait
        self._all = Bucket(budget)
        self._changed = threading.Condition()
        self._named: dict[str, Bucket] = {}
        #: The name of each route's bucket; empty if it has none of its own.
        self._routes: dict[str, str] = {}
        #: Buckets of routes whose first answer has not come yet.
        self._first: dict[str, Bucket] = {}
        # The names of buckets by the beginning of a route, which foretell those of other routes.
        self._known: dict[str, set[str]] = {}
        self._names_routes = False

    def acquire(self, request: HttpRequest) -> tuple[Bucket, float]:
        """Waits until a request's bucket has room.

        Returns:
            The bucket, to be given to `release`, and the seconds that it waited.

        Raises:
            ConnectorError: the Redis server of a budget cannot be asked.
        """
        began = time.monotonic()
        waited = 0.0
        with self._changed:
            while True:
                bucket = self._of(request)
                wait = bucket.wait(time.monotonic())
                if wait <= 0:
                    break
                self._changed.wait(wait)
                waited = time.monotonic() - began
            bucket.open += 1
        try:
            if bucket.is_own:
                waited += bucket.budget.acquire()
        except BaseException:
            self.release(bucket)
            raise
        return bucket, waited

    def release(self, bucket: Bucket) -> None:
        """Says that a request was answered, or failed."""
        with self._changed:
            bucket.open -= 1
            self._changed.notify_all()

    def paused(self, request: HttpRequest) -> float:
        """Returns the seconds until a request may be sent, as far as that is known."""
        with self._changed:
            bucket = self._of(request)
            wait = bucket.wait(time.monotonic())
        return max(wait, bucket.budget.paused(), self.budget.paused())

    def learn(self, request: HttpRequest, response: HttpResponse) -> None:
        """Notes which bucket a request belongs to, and holds it up if it is used up."""
        headers = response.headers
        with self._changed:
            self._learn_name(request, headers, _led_to(response))
            bucket = self._of(request)
            if bucket.is_own:
                bucket.note(headers, time.monotonic(), self._max_wait)
            self._changed.notify_all()
        waits = quota_wait(headers, time.time()), cost_wait(response, time.time())
        wait = max((one for one in waits if one is not None), default=None)
        if wait and wait <= self._max_wait:
            bucket.budget.pause(wait + (_margin(wait) if bucket.is_own else 0.0))

    def refused(self, request: HttpRequest, response: HttpResponse) -> Budget:
        """Returns the budget that waits after a refusal for a limit: the bucket's, or all."""
        headers = response.headers
        with self._changed:
            bucket = self._of(request)
        scope = (headers.get(_SCOPE) or "").lower()
        is_for_all = scope == "global" or (headers.get(_GLOBAL) or "").lower() == "true"
        if not bucket.is_own or is_for_all:
            return self.budget
        stated = self._path_rule(request) is not None or scope in ("user", "shared")
        used_up = quota_wait(headers, time.time()) is not None
        return bucket.budget if stated or used_up else self.budget

    def _of(self, request: HttpRequest) -> Bucket:
        """Returns the bucket of a request, as far as it is known; the lock is held."""
        rule = self._path_rule(request)
        if rule is not None:
            name, limits = rule
            found = self._named.get(name)
            if found is None:
                found = self._named[name] = Bucket(self.budget.part(name, limits), is_own=True)
            return found
        if not (self._names_routes or self._routes or self._known):
            return self._all
        route = self._route(request.url)
        known = self._routes.get(route)
        if known is None:
            known = self._foretold(route)
        if known is not None:
            return self._named[known] if known else self._all
        if not self._names_routes:
            return self._all
        # The server names a bucket for each route, and its first answer will name this one's.
        first = self._first.get(route)
        if first is None:
            part = self.budget.part(f"route {route}")
            first = self._first[route] = Bucket(part, is_own=True, since=time.monotonic())
        return first

    def _learn_name(
        self, request: HttpRequest, headers: HTTPHeaderDict, following: list[str]
    ) -> None:
        """Notes the bucket that headers name.

        Args:
            request: The request.
            headers: The headers of its answer.
            following: Addresses of the same list, which may look quite different.
        """
        of_route, resource = headers.get(_BUCKET), headers.get(_RESOURCE)
        if not (of_route or resource or self._names_routes):
            return
        if self._path_rule(request) is not None:
            return
        route = self._route(request.url)
        self._names_routes = self._names_routes or bool(of_route)
        name = resource or ""
        if of_route:
            name = f"{of_route} {'/'.join(route.split('/')[:2])}"
        self._first.pop(route, None)
        if not name and not self._names_routes:
            return
        if name and name not in self._named:
            self._named[name] = Bucket(self.budget.part(f"bucket {name}"), is_own=True)
        if len(self._routes) >= _MOST_ROUTES:
            self._routes.clear()
        self._routes[route] = name
        if resource and not of_route:
            for one in (route, *map(self._route, following)):
                self._known.setdefault(one.partition("/")[0], set()).add(resource)

    def _foretold(self, route: str) -> str | None:
        """Returns the bucket of all routes with the same beginning, if that is one."""
        names = self._known.get(route.partition("/")[0], set())
        return next(iter(names)) if len(names) == 1 else None

    def _path_rule(self, request: HttpRequest) -> tuple[str, tuple[Limit, ...]] | None:
        """Returns the name and the limits of the bucket that the configuration states."""
        if not self.budget.paths:
            return None
        path = self._path(request.url)
        for pattern, limits in self.budget.paths:
            if fnmatchcase(path, pattern):
                return f"path {path}", limits
        return None

    def _route(self, url: str) -> str:
        """Returns the path of an address without its ids, except one that may be a channel."""
        parts = self._path(url).split("/")
        return "/".join(
            "*" if number > 1 and _DIGIT.search(part) else part for number, part in enumerate(parts)
        )

    def _path(self, url: str) -> str:
        path = urlsplit(url).path.strip("/")
        if not self._base or urls.origin_of(url) != urls.origin_of(self._base):
            return path
        above = urlsplit(self._base).path.strip("/")
        return path.removeprefix(above).strip("/") if path.startswith(f"{above}/") else path


def cost_wait(response: HttpResponse, now: float) -> float | None:
    """Returns the seconds until a query like the answered one may be sent, if its cost says so.

    Servers of GraphQL count the cost of queries, and tell it in the answer: GitHub as the field
    `rateLimit { cost remaining resetAt }` of a query, Shopify under `extensions`
    (https://shopify.dev/docs/api/usage/limits).

    Args:
        response: The answer.
        now: Seconds since 1970; the answer's own `Date` counts more.
    """
    if not _asks_query(response.sent):
        return None  # without a search of the whole body
    if b'"rateLimit"' not in response.body and b'"throttleStatus"' not in response.body:
        return None
    try:
        answer = response.json()
    except ConnectorError:
        return None
    told = lookup(answer, "data.rateLimit")
    if isinstance(told, Mapping):
        cost, left = _amount(told.get("cost")), _amount(told.get("remaining"))
        if left is not None and left < max(cost or 0, 1):
            return seconds_until(str(told.get("resetAt")), answered_at(response.headers, now))
    told = lookup(answer, "extensions.cost")
    if isinstance(told, Mapping):
        cost = _amount(told.get("requestedQueryCost"))
        left = _amount(lookup(told, "throttleStatus.currentlyAvailable"))
        rate = _amount(lookup(told, "throttleStatus.restoreRate"))
        if cost is not None and left is not None and rate and left < cost:
            return (cost - left) / rate
    return None


def _asks_query(request: HttpRequest) -> bool:
    """Returns whether a request may be a query of GraphQL: it has a body, or says so."""
    if request.json is not None or request.form is not None:
        return True
    return "query" in request.params or "query=" in request.url or "graphql" in request.url.lower()


def _amount(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _led_to(response: HttpResponse) -> list[str]:
    """Returns the addresses of HTTP that an answer leads to: its next page, or a redirect."""
    headers = response.headers
    if _RESOURCE not in headers or not ("Link" in headers or "Location" in headers):
        return []
    found = [response.links().get("next", ""), response.absolute(headers.get("Location") or "")]
    return [url for url in found if url.startswith(("http://", "https://"))]


def _number(headers: HTTPHeaderDict, name: str) -> int | None:
    text = (headers.get(f"X-RateLimit-{name}") or "").strip()
    return int(text) if text.isascii() and text.isdecimal() else None


def _reset(headers: HTTPHeaderDict) -> float | None:
    """Returns the seconds until the quota of a bucket is filled again, if the headers say."""
    now = answered_at(headers, time.time())
    for name in (_AFTER, "X-RateLimit-Reset"):
        if name in headers:
            return seconds_until(headers[name], now)
    return None


def _margin(seconds: float) -> float:
    """Returns what a wait is longer than stated."""
    return min(seconds * (MARGIN - 1), _LONGEST_MARGIN)
