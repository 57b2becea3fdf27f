"""Asks for messages: of one channel page after page, and of several at once.

Discord lists messages by their ids, each page with the newest first whichever way the pages go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from contextframe_beam.connectors.conversations import MESSAGE, Documents, Gathered
from contextframe_beam.connectors.discord.bot import Bot
from contextframe_beam.connectors.discord.markup import mentioned
from contextframe_beam.connectors.discord.plan import How
from contextframe_beam.connectors.discord.records import (
    STARTER_TYPE,
    files_of,
    holder_in,
    is_by_program,
    is_shown,
    item_of,
    point_of_message,
)
from contextframe_beam.connectors.discord.servers import id_in, listed
from contextframe_beam.connectors.http import HttpClient, HttpError, HttpRequest, HttpResponse
from contextframe_beam.connectors.page import Page
from contextframe_beam.errors import ConnectorError

#: A page of a walk through a partition, and whether it is the last one.
Step = tuple[Page, bool]

#: So many messages have the pages of Discord.
MOST_IN_A_PAGE = 100


class LeftOutError(ConnectorError):
    """A channel that cannot be read although Discord answers."""


class Messages:
    """The messages of channels and threads, and what they become.

    Args:
        http: Asks Discord.
        how: How documents are made.
        bot: Knows what the bot may see.
    """

    def __init__(self, http: HttpClient, how: How, bot: Bot) -> None:
        self._http = http
        self._how = how
        self._bot = bot

    def stream(
        self,
        where: Mapping[str, Any],
        after: str,
        until: int | None,
        newest: str,
        params: Mapping[str, Any],
    ) -> Iterator[tuple[list[dict[str, Any]], bool]]:
        """Yields the messages of a channel or thread, the oldest first, and whether these are all.

        Args:
            where: Where they are.
            after: The id after which they begin.
            until: The id before which they end; None for all.
            newest: The id of the last message, as it was listed; "" if none was.
            params: Those of the partition.

        Raises:
            HttpError: Discord refuses.
            LeftOutError: there are no messages that the bot may see.
        """
        holder = str(holder_in(where)["id"])
        is_first = True
        while True:
            found = self.checked(self._http.send(self.asked(holder, after)))
            later = [one for one in found if int(one["id"]) > int(after)]
            if is_first and not later:
                self.require_history(where, after, newest, params)
            is_first = False
            is_last = len(found) < MOST_IN_A_PAGE or not later
            if later:
                after = later[-1]["id"]
            if until is not None and int(after) >= until:
                later, is_last = [one for one in later if int(one["id"]) < until], True
            yield later, is_last
            if is_last:
                return

    def gathered(
        self,
        where: Mapping[str, Any],
        documents: Documents,
        pages: Iterable[tuple[list[dict[str, Any]], bool]],
        params: Mapping[str, Any],
    ) -> Iterator[tuple[list[Any], list[dict[str, Any]], bool]]:
        """Yields the items of a stream page by page, its messages, and whether these are all."""
        open_ones: Gathered[dict[str, Any]] = Gathered(
            documents, point_of_message, newest_first=False
        )
        for messages, is_last in pages:
            groups = open_ones.add(self.wanted(messages, documents.kind))
            if is_last:
                groups += open_ones.rest()
            yield self.items(where, groups, documents.kind, documents, params), messages, is_last

    def asked(self, channel: str, after: str) -> HttpRequest:
        """Returns the request for the messages of a channel or thread after an id."""
        params = {"after": after, "limit": MOST_IN_A_PAGE}
        return HttpRequest("GET", f"channels/{channel}/messages", params=params)

    def checked(self, response: HttpResponse) -> list[dict[str, Any]]:
        """Returns the messages of an answer, the oldest first.

        Raises:
            HttpError: it is a refusal.
            ConnectorError: it holds no messages, or the bot may not see what is in them.
        """
        if response.status >= 400:
            raise response.refused("to a question for messages")
        told = response.json()
        if not isinstance(told, list):
            raise response.error("is no list of messages")
        found = [dict(one) for one in listed(told) if id_in(one, "id")]
        self._bot.require_content(found)
        return sorted(found, key=lambda one: int(one["id"]))

    def wanted(self, messages: Iterable[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
        """Returns those of some messages that become documents of a kind, or parts of these."""
        return [
            one
            for one in messages
            if is_shown(one)
            and (self._how.bots or not is_by_program(one))
            # The message that a thread was started from is a document in its channel.
            and not (kind == MESSAGE and one.get("type") == STARTER_TYPE)
        ]

    def items(
        self,
        where: Mapping[str, Any],
        groups: Iterable[Sequence[dict[str, Any]]],
        kind: str,
        documents: Documents,
        params: Mapping[str, Any],
    ) -> list[Any]:
        """Returns the items of documents and of their files.

        Args:
            where: Where their messages are.
            groups: The messages of each.
            kind: What they are.
            documents: How messages become documents.
            params: Those of the partition.
        """
        items: list[Any] = []
        names = params["names"]
        for group in groups:
            item = item_of(group, kind, documents, where, names, self._threads_in(group, names))
            items.append(item)
            items += files_of(group, item, self._how.attachments)
        return items

    def require_history(
        self, where: Mapping[str, Any], after: str, newest: str, params: Mapping[str, Any]
    ) -> None:
        """Refuses to take a channel for empty whose messages the bot may not see.

        Raises:
            LeftOutError: the bot may not see them.
        """
        if not newest or int(newest) <= int(after):
            return
        if lacks := self._bot.lacks(where["server"]["id"], params["rules"]):
            raise LeftOutError(lacks)

    def _threads_in(
        self, messages: Sequence[Mapping[str, Any]], names: Mapping[str, str]
    ) -> dict[str, str]:
        """Returns the names of threads that messages mention."""
        return {
            identifier: name
            for one in messages
            for kind, identifier in mentioned(one)
            if kind == "channel" and identifier not in names
            if (name := self._bot.name_of_channel(identifier))
        }


def name_of(where: Mapping[str, Any]) -> str:
    """Returns what a channel or a thread is called, for people."""
    thread = where.get("thread")
    whole = f"{where['server']['name']} / #{where['channel']['name']}"
    return f"{whole} / {thread['name']}" if thread else whole


def reason_of(error: HttpError | LeftOutError) -> object:
    """Returns why a channel or a thread cannot be read, for people."""
    if not isinstance(error, HttpError):
        return error
    if error.status == 404:
        return "it is gone (404)"
    return (
        f"the bot may not read it ({error.status}); give it View Channels and Read Message History "
        "there, or exclude it"
    )
