"""What the bot may see: the content of messages, and the history of channels.

Discord refuses little where a bot lacks something. Without the intent for content it gives empty
messages, and without the permission for history no messages. Both would look like a quiet channel.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from contextframe_beam.connectors.discord.access import (
    Rules,
    bits_of,
    missing,
    needed,
    permissions_of,
)
from contextframe_beam.connectors.discord.records import is_by_program, is_shown
from contextframe_beam.connectors.discord.servers import id_in, listed
from contextframe_beam.connectors.http import HttpClient, HttpError, HttpRequest
from contextframe_beam.errors import ConnectorError

# Flags of an application: the intent for content, of one in many servers and of one in few.
_CONTENT = 1 << 18 | 1 << 19
# What people write; others are sent by programs, or tell what somebody did.
_WRITTEN = (0, 19)
_MOST_ASKED = 200

NO_CONTENT = (
    "the bot is not given the content of messages: turn on the Message Content intent in the "
    "developer portal (Bot, Privileged Gateway Intents), then run again"
)


class Bot:
    """The bot that a token belongs to.

    Args:
        http: Asks Discord.
    """

    def __init__(self, http: HttpClient) -> None:
        self._http = http
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Forgets what was learned in an earlier run."""
        self._reads_content: bool | None = None
        self._asked_content = False
        self._roles: dict[str, tuple[dict[str, int], list[str]] | None] = {}
        self._names: dict[str, str] = {}
        self._id = ""

    def me(self) -> Mapping[str, Any]:
        """Returns what Discord says of the bot.

        Raises:
            HttpError: it does not accept the token.
        """
        told = self._http.send(HttpRequest("GET", "users/@me")).json()
        told = told if isinstance(told, Mapping) else {}
        self._id = id_in(told, "id")
        return told

    def reads_content(self) -> bool | None:
        """Returns whether the bot is given the content of messages; None if that is not told."""
        with self._lock:
            if not self._asked_content:
                self._asked_content = True
                self._reads_content = self._ask_content()
            return self._reads_content

    def require_content(self, messages: Iterable[Mapping[str, Any]]) -> None:
        """Refuses messages without content, if that is for want of the intent.

        Raises:
            ConnectorError: the bot is not given the content of messages.
        """
        written = [
            one
            for one in messages
            if one.get("type") in _WRITTEN and not is_by_program(one) and not one.get("activity")
        ]
        blank = sum(not is_shown(one) for one in written)
        if not blank:
            return
        told = self.reads_content()
        if told is False or (told is None and blank == len(written)):
            raise ConnectorError(NO_CONTENT)

    def lacks(self, server: str, channel: Mapping[str, Any]) -> str:
        """Returns why a channel shows no messages; "" where it may well be empty.

        Args:
            server: The id of its server.
            channel: Its type and its exceptions, as Discord tells them.
        """
        with self._lock:
            if server not in self._roles:
                self._roles[server] = self._ask_roles(server)
            known = self._roles[server]
        told = Rules.of(channel, server)
        if known is None or told is None:
            return (
                "it shows no messages, and whether the bot may read its history is not told; "
                "give it Read Message History"
            )
        roles, own = known
        lacking = missing(permissions_of(roles, server, own, self._id, told), needed(channel))
        return f"the bot lacks the permission {lacking} there" if lacking else ""

    def name_of_channel(self, identifier: str) -> str:
        """Returns the name of a thread; "" if it cannot be had."""
        with self._lock:
            if identifier not in self._names:
                if len(self._names) >= _MOST_ASKED:
                    return ""
                self._names[identifier] = self._ask_name(identifier)
            return self._names[identifier]

    def _ask_name(self, identifier: str) -> str:
        answer = self._http.send(
            HttpRequest("GET", f"channels/{identifier}"), raise_for_status=False
        )
        if answer.status >= 400:
            error = answer.refused("to a question for the name of a thread")
            if not error.is_unreadable:
                raise error
            return ""
        told = answer.json()
        name = told.get("name") if isinstance(told, Mapping) else None
        return name if isinstance(name, str) else ""

    def _ask_content(self) -> bool | None:
        try:
            told = self._http.send(HttpRequest("GET", "applications/@me")).json()
        except HttpError as error:
            if not error.is_of_one:
                raise
            return None
        flags = told.get("flags") if isinstance(told, Mapping) else None
        return bool(flags & _CONTENT) if isinstance(flags, int) else None

    def _ask_roles(self, server: str) -> tuple[dict[str, int], list[str]] | None:
        """Returns the permissions of all roles of a server, and the roles of the bot."""
        if not self._id:
            self.me()
        paths = (f"guilds/{server}", f"guilds/{server}/members/{self._id}")
        try:
            whole, own = (
                one.json() for one in self._http.all(HttpRequest("GET", path) for path in paths)
            )
        except HttpError as error:
            if not error.is_of_one:
                raise
            return None
        roles = {
            id_in(one, "id"): may
            for one in listed(whole.get("roles") if isinstance(whole, Mapping) else None)
            if (may := bits_of(one.get("permissions"))) is not None
        }
        told = own.get("roles") if isinstance(own, Mapping) else None
        if server not in roles or not isinstance(told, list):
            return None
        return roles, [one for one in told if isinstance(one, str)]
