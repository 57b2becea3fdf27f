"""Calls of Slack's Web API: what is refused, what passes, and lists page after page.

Every answer has the status 200, and says in `ok` whether it is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from contextframe_beam.connectors.http.client import HttpClient
from contextframe_beam.connectors.http.judges import usual
from contextframe_beam.connectors.http.request import (
    HttpError,
    HttpRequest,
    HttpResponse,
    TokenExpiredError,
)
from contextframe_beam.connectors.http.retry import Verdict, Wait
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.connectors.slack.limits import HISTORY, REPLIES
from contextframe_beam.errors import ConnectorError

#: Refusals that concern one channel or one object, so that others can be read.
LEFT_OUT = frozenset(
    (
        *("not_in_channel", "channel_not_found", "is_archived", "missing_scope", "access_denied"),
        *("thread_not_found", "message_not_found", "file_not_found", "file_deleted"),
        *("user_not_found", "user_not_visible", "restricted_action", "no_permission"),
        *("method_not_supported_for_channel_type", "not_supported", "team_access_not_granted"),
        *("channel_is_limited_access", "not_visible", "org_level_email_display_disabled"),
    )
)
# What of Slack's own passes.
_PASSING = frozenset(
    ("internal_error", "fatal_error", "service_unavailable", "request_timeout", "team_added_to_org")
)
# To join a channel twice is harmless.
_WRITING = frozenset(("conversations.join",))
_LIMITED = frozenset(("ratelimited", "rate_limited"))
_LIMIT_SECONDS = 30.0
_ADVICE = {
    "invalid_auth": "the token is not accepted; copy it again from the app's settings",
    "not_authed": "there is no token; give one, as in token=env:SLACK_TOKEN",
    "account_inactive": "the token belongs to a person or a workspace that is gone",
    "token_revoked": "the token was revoked; install the app again",
    "not_in_channel": "invite the app to the channel (/invite @app), or set join",
    "channel_not_found": "there is no such channel, or it is private and the app is not in it",
    "ekm_access_denied": "an administrator suspended the workspace's encryption key",
    "unknown_method": "check base_url, which ends in /api/",
    "org_login_required": "the workspace is being moved; try again later",
}


class SlackError(HttpError):
    """A refusal by Slack.

    Attributes:
        code: Slack's name for it, as in `channel_not_found`.
        needed: The scope that is missing, of `missing_scope`.
    """

    def __init__(self, message: str, code: str = "", needed: str = "") -> None:
        super().__init__(message, 200)
        self.code = code
        self.needed = needed

    @property
    def is_unreadable(self) -> bool:
        """Whether the app may not read it, or it is gone, while others can be read."""
        return self.code in LEFT_OUT

    @property
    def is_of_one(self) -> bool:
        """Whether Slack refuses this one request, and may well answer others."""
        return self.code in LEFT_OUT


def judged(response: HttpResponse) -> Verdict:
    """Judges an answer of Slack by its `ok` and the name of its error."""
    if response.status != 200:
        return usual(response)
    try:
        told = response.json()
    except ConnectorError:
        return usual(response)
    if not isinstance(told, Mapping) or told.get("ok") is not False:
        return None
    code = str(told.get("error"))
    if code in _LIMITED:
        return Wait(_LIMIT_SECONDS, "a rate limit", doubles=True, shared=True)
    if code in _PASSING:
        return Wait(reason=f"{code}, which passes")
    message = f"{response.sent.method} {response.url} answered {code}"
    if code == "token_expired":
        return TokenExpiredError(redact(f"{message}; renew the token"), 401)
    needed = str(told.get("needed") or "")
    advice = _ADVICE.get(code, "")
    if code == "missing_scope":
        advice = (
            f"the app lacks the scope {needed} (it has {told.get('provided')}); add it under OAuth "
            "& Permissions in the app's settings, and install the app again"
        )
    return SlackError(redact(f"{message}; {advice}" if advice else message), code, needed)


class SlackApi:
    """Calls methods of Slack.

    Args:
        client: Sends the requests.
    """

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._ahead = timedelta()

    @property
    def now(self) -> datetime:
        """The time by Slack's clock, as its answers tell it, to the second."""
        return datetime.now(timezone.utc) + self._ahead

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Calls a method and returns its answer.

        Args:
            method: Such as `auth.test`.
            **arguments: Those that are None are left out.

        Raises:
            SlackError: Slack refuses.
            ConnectorError: there is no answer, or none of Slack's.
        """
        return self.answer(method, **arguments)[0]

    def answer(self, method: str, **arguments: Any) -> tuple[dict[str, Any], list[str]]:
        """Calls a method, and returns its answer and the scopes of the token."""
        params = {
            name: str(value).lower() if isinstance(value, bool) else value
            for name, value in arguments.items()
            if value is not None
        }
        request = HttpRequest("GET", method, params, judge=judged)
        if method in _WRITING:
            request = HttpRequest("POST", method, form=params, safe_to_repeat=True, judge=judged)
        response = self._client.send(request)
        self._set_clock(response.headers.get("Date") or "")
        told = response.json()
        if not isinstance(told, dict) or told.get("ok") is not True:
            raise response.error("is no answer of Slack; check base_url")
        scopes = response.headers.get("x-oauth-scopes") or ""
        return told, [one.strip() for one in scopes.split(",") if one.strip()]

    def all(self, method: str, name: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        """Yields the objects of a list.

        Args:
            method: The method.
            name: The field of the answer that holds them.
            **arguments: Its arguments.

        Raises:
            SlackError: Slack refuses.
            ConnectorError: a cursor comes twice.
        """
        for page in self.pages(method, **arguments):
            for one in page.get(name) or ():
                if isinstance(one, dict):
                    yield one

    def pages(self, method: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        """Yields the answers of a list; some may be empty although it goes on."""
        cursor: str | None = None
        seen: set[str] = set()
        while True:
            told = self.call(method, **arguments, cursor=cursor)
            yield told
            cursor = following(told)
            if cursor is None:
                return
            if cursor in seen:
                raise ConnectorError(
                    f"slack: {method} gave the cursor {cursor!r} twice, so it would never end"
                )
            seen.add(cursor)

    def history(
        self, channel: str, size: int, oldest: str | None, latest: str | None, cursor: str | None
    ) -> dict[str, Any]:
        """Returns a page of the messages of a channel, the newest first.

        Args:
            channel: Its id.
            size: How many messages.
            oldest: The first ts, included; None for the beginning.
            latest: The last ts, included; None for the newest.
            cursor: Where the page before ended.
        """
        return self.call(
            HISTORY,
            channel=channel,
            limit=size,
            oldest=oldest,
            latest=latest,
            inclusive=True if oldest or latest else None,
            cursor=cursor,
        )

    def thread(self, channel: str, ts: str, size: int) -> list[dict[str, Any]]:
        """Returns the messages of a thread, its first message first."""
        found: dict[str, dict[str, Any]] = {}
        for one in self.all(REPLIES, "messages", channel=channel, ts=ts, limit=size):
            # The first message comes on each page.
            found.setdefault(str(one.get("ts")), one)
        return list(found.values())

    def _set_clock(self, date: str) -> None:
        try:
            told = parsedate_to_datetime(date)
        except ValueError:
            return
        if told.tzinfo is not None:
            self._ahead = told - datetime.now(timezone.utc)


def following(told: Mapping[str, Any]) -> str | None:
    """Returns the cursor of the next page; None after the last."""
    metadata = told.get("response_metadata")
    cursor = metadata.get("next_cursor") if isinstance(metadata, Mapping) else None
    return cursor if isinstance(cursor, str) and cursor else None
