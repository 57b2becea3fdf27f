"""How often Slack may be asked, and how long a run takes by that.

Each method has its own limit, by tier. Apps that are sold or given away outside of Slack's
marketplace may ask for messages once a minute.
Source: https://docs.slack.dev/apis/web-api/rate-limits
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contextframe_beam.errors import ConfigError

#: Requests a minute by tier.
TIER_2, TIER_3, TIER_4 = 20.0, 50.0, 100.0

HISTORY, REPLIES = "conversations.history", "conversations.replies"

#: What an app is to Slack: made for its own workspace or listed in the marketplace, or neither.
INTERNAL, UNLISTED = "internal", "unlisted"

_TIERS: Mapping[str, float] = {
    "conversations.list": TIER_2,
    "users.list": TIER_2,
    "usergroups.list": TIER_2,
    HISTORY: TIER_3,
    REPLIES: TIER_3,
    "conversations.join": TIER_3,
    "conversations.info": TIER_3,
    "conversations.members": TIER_4,
    "users.info": TIER_4,
}
_UNLISTED: Mapping[str, float] = {HISTORY: 1.0, REPLIES: 1.0}
_UNLISTED_MESSAGES = 15
#: The most messages of a page that Slack recommends.
_USUAL_MESSAGES = 200
_MOST_MESSAGES = 999
# No method of ours, and all together, is asked more often than so many times a second.
_TOGETHER = 50.0


@dataclass(frozen=True)
class Limits:
    """What Slack allows an app.

    Attributes:
        per_minute: How often each method may be called.
        messages: How many messages one request asks for.
    """

    per_minute: Mapping[str, float]
    messages: int

    @classmethod
    def of(cls, app: str, page_size: int | None, requests_per_minute: float | None) -> Limits:
        """Returns the limits of a kind of app.

        Args:
            app: `internal` or `unlisted`.
            page_size: How many messages one request asks for; by default what suits the app.
            requests_per_minute: How often each method may be called; by default its tier.

        Raises:
            ConfigError: there is no such kind, or a number makes no sense.
        """
        if app not in (INTERNAL, UNLISTED):
            raise ConfigError(
                f"app is {app!r}; give {INTERNAL} for an app of your own workspace or of Slack's "
                f"marketplace, or {UNLISTED} for one that is distributed in another way"
            )
        most = _UNLISTED_MESSAGES if app == UNLISTED else _MOST_MESSAGES
        if page_size is not None and not 1 <= page_size <= most:
            raise ConfigError(f"page_size is {page_size}; give 1 to {most} messages a request")
        if requests_per_minute is not None and not requests_per_minute > 0:
            raise ConfigError(f"requests_per_minute is {requests_per_minute}; give more than 0")
        tiers = {**_TIERS, **(_UNLISTED if app == UNLISTED else {})}
        if requests_per_minute is not None:
            tiers = dict.fromkeys(tiers, requests_per_minute)
        return cls(tiers, page_size or min(most, _USUAL_MESSAGES))

    def budget(self, account: str) -> dict[str, Any]:
        """Returns the settings of the budget of a client.

        Args:
            account: What tells the app and the workspace from others.
        """
        most = max(_TOGETHER, max(self.per_minute.values()) / 60)
        paths = {name: {"per_minute": rate} for name, rate in self.per_minute.items()}
        return {"per_second": most, "paths": paths, "name": f"slack {account}"}

    def minutes(self, requests: Mapping[str, int]) -> float:
        """Returns how many minutes some requests take: methods do not wait for each other.

        Args:
            requests: How many, by method.
        """
        return max((count / self.per_minute[name] for name, count in requests.items()), default=0.0)

    def estimate(self, channels: int, known: int = 0) -> str:
        """Returns how long a run will take, in words, as far as Slack lets it be known.

        Args:
            channels: How many channels are read.
            known: How many requests for messages the last run needed; 0 before the first.
        """
        rate = _amount(self.per_minute[HISTORY])
        if known:
            took = _duration(self.minutes({HISTORY: known}))
            return (
                f"{_counted(channels, 'channel')}: about {_counted(known, 'request')} for messages "
                f"like the last run, at {rate} a minute ({took}), and one for each thread that "
                "changed"
            )
        pages = -(-10_000 // self.messages)
        least, more = (_duration(self.minutes({HISTORY: count})) for count in (channels, pages))
        threads = _duration(self.minutes({REPLIES: 1000}))
        return (
            f"{_counted(channels, 'channel')}: at least as many requests for messages, at {rate} a "
            f"minute ({least}). Slack does not tell how many messages there are: each 10,000 take "
            f"{_counted(pages, 'request')} ({more}), and each 1,000 threads a request each "
            f"({threads})"
        )


def _duration(minutes: float) -> str:
    if minutes <= 1:
        return "up to a minute"
    if minutes < 90:
        return f"{minutes:.0f} minutes"
    return f"{minutes / 60:.0f} hours" if minutes < 48 * 60 else f"{minutes / 1440:.0f} days"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _amount(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 1 else f"{rate:g}"
