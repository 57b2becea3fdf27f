"""Reads the messages of channels themselves, and finds channels that are gone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from contextframe_beam.connectors.conversations import Documents
from contextframe_beam.connectors.discord.messages import Messages, Step
from contextframe_beam.connectors.discord.plan import How
from contextframe_beam.connectors.discord.records import place_in
from contextframe_beam.connectors.discord.servers import id_at, id_in, listed, point_of_id
from contextframe_beam.connectors.http import HttpClient, HttpRequest
from contextframe_beam.connectors.page import Page, Window
from contextframe_beam.frames.times import when

_PINS_IN_A_PAGE = 50
# No day is longer, also where clocks change.
_LONGEST_DAY = Decimal(26 * 3600)


class ChannelReader:
    """Reads stretches of channels.

    Args:
        http: Asks Discord.
        how: How documents are made.
        messages: Asks for messages.
    """

    def __init__(self, http: HttpClient, how: How, messages: Messages) -> None:
        self._http = http
        self._how = how
        self._messages = messages

    def walk(self, params: Mapping[str, Any]) -> Iterator[Step]:
        """Yields the pages of a stretch of a channel.

        Raises:
            HttpError: Discord refuses the channel.
            LeftOutError: it shows no messages.
        """
        where, newest, documents = params["where"], str(params["newest"]), self._how.channel
        until = None if params["until"] is None else int(params["until"])
        start, end = params["window"]
        pages = self._messages.stream(where, params["after"], until, newest, params)
        for items, messages, is_last in self._messages.gathered(where, documents, pages, params):
            newest = max([newest or "0", *(one["id"] for one in messages)], key=int)
            if not is_last:
                yield Page(items), False
        if pins := params["pins"]:
            items += self._newly_pinned(params, pins)
        state = {"last": newest, "mark": params["mark"]}
        if until is not None:
            state["done"] = True
        elif params["pinned_at"]:
            state["pinned_at"] = params["pinned_at"]
        yield Page(items, windows=[Window(place_in(where), start, end)], state=state), True

    def gone(self, params: Mapping[str, Any]) -> Iterator[Step]:
        """Asks whether a channel is gone that no server lists any more.

        Raises:
            HttpError: Discord refuses the question.
        """
        channel = params["channel"]
        answer = self._http.send(HttpRequest("GET", f"channels/{channel}"), raise_for_status=False)
        if answer.status == 404:
            windows = [Window(f"channel/{channel}", below=True)]
            yield Page([], windows=windows, state={"gone": True}), True
            return
        if answer.status >= 400 and answer.status != 403:
            raise answer.refused("to a question for a channel")
        yield Page([], state={}), True

    def _newly_pinned(self, params: Mapping[str, Any], since: str) -> list[Any]:
        """Returns the documents of older messages that were pinned since a time."""
        where, documents, after = params["where"], self._how.channel, int(params["after"])
        older = [
            one for one in self._pins(where["channel"]["id"], since) if int(one["id"]) <= after
        ]
        if not documents.is_gathered:
            groups = documents.cut(
                self._messages.wanted(older, documents.kind), lambda one: point_of_id(one["id"])
            )
            return self._messages.items(where, groups, documents.kind, documents, params)
        items: list[Any] = []
        for begin in sorted({documents.begin_of(point_of_id(one["id"])) for one in older}):
            until = id_at(_day_after(begin, documents))
            pages = self._messages.stream(where, str(id_at(begin) - 1), until, "", params)
            for some, _, _ in self._messages.gathered(where, documents, pages, params):
                items += some
        return items

    def _pins(self, channel: str, since: str) -> Iterator[dict[str, Any]]:
        """Yields the messages that were pinned at or after a time, the latest first."""
        known = when(since)
        before = ""
        while True:
            params = {"limit": _PINS_IN_A_PAGE, **({"before": before} if before else {})}
            url = f"channels/{channel}/messages/pins"
            response = self._http.send(HttpRequest("GET", url, params=params))
            told = response.json()
            if not isinstance(told, Mapping):
                raise response.error("is no list of pins")
            pins = listed(told.get("items"))
            for one in pins:
                at, message = when(str(one.get("pinned_at"))), one.get("message")
                if at is None or known is None or at < known:
                    return
                if isinstance(message, Mapping) and id_in(message, "id"):
                    yield dict(message)
            following = str(pins[-1].get("pinned_at")) if pins else ""
            if told.get("has_more") is not True or following == before:
                return
            before = following


def _day_after(begin: Decimal, documents: Documents) -> Decimal:
    return documents.begin_of(begin + _LONGEST_DAY)
