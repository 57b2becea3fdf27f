"""How many requests the world of Discord answers: by bucket and channel, and altogether."""

from __future__ import annotations

import hashlib
import time

from tests.worlds.described import Answer, Asked


class Limits:
    """The limits of one bot, each in a window that begins with its first request.

    Attributes:
        bucket: How many requests a bucket has in how many seconds, for each channel and guild
            apart; None without a limit.
        in_a_second: How many requests are allowed in a second altogether; 0 without a limit.
        shared: Paths in the description whose limit others use up as well, and has no headers
            of a bucket; each of its requests is refused once.
    """

    def __init__(self) -> None:
        self.bucket: tuple[int, float] | None = None
        self.in_a_second = 0
        self.shared: set[str] = set()
        self._spent: dict[str, tuple[float, int]] = {}
        self._refused: set[str] = set()

    def refused(self, asked: Asked) -> Answer | None:
        """Counts a request; returns the answer where it is one too many."""
        if asked.template in self.shared and asked.path not in self._refused:
            self._refused.add(asked.path)
            return _too_many(0.2, "shared")
        if self.in_a_second and (wait := self._take("all", self.in_a_second, 1.0)):
            return _too_many(wait, "global")
        if self.bucket is not None and (wait := self._take(_key(asked), *self.bucket)):
            return _too_many(wait, "user")
        return None

    def told(self, asked: Asked) -> dict[str, str]:
        """Returns the headers that tell of a request's bucket."""
        if self.bucket is None or asked.template in self.shared:
            return {}
        most, _ = self.bucket
        until, used = self._spent.get(_key(asked), (time.monotonic(), 0))
        after = max(until - time.monotonic(), 0.0)
        name = hashlib.md5(asked.template.encode(), usedforsecurity=False).hexdigest()
        return {
            "X-RateLimit-Limit": str(most),
            "X-RateLimit-Remaining": str(most - used),
            "X-RateLimit-Reset": f"{time.time() + after:.3f}",
            "X-RateLimit-Reset-After": f"{after:.3f}",
            "X-RateLimit-Bucket": name,
        }

    def _take(self, key: str, most: int, seconds: float) -> float:
        """Counts a request and returns 0, or the seconds until another one is allowed."""
        now = time.monotonic()
        until, used = self._spent.get(key, (0.0, 0))
        if now >= until:
            until, used = now + seconds, 0
        if used >= most:
            return until - now
        self._spent[key] = until, used + 1
        return 0.0


def _key(asked: Asked) -> str:
    return f"{asked.template} {asked.params.get('channel_id') or asked.params.get('guild_id')}"


def _too_many(wait: float, scope: str) -> Answer:
    told = {
        "message": "You are being rate limited.",
        "code": 0,
        "retry_after": round(wait, 3),
        "global": scope == "global",
    }
    headers = {"Retry-After": str(max(round(wait), 1)), "X-RateLimit-Scope": scope}
    if scope == "global":
        headers["X-RateLimit-Global"] = "true"
    return Answer(429, headers, told)
