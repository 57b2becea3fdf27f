"""Reads the partitions of Discord: messages of channels page after page, and whole threads.

Each partition is a walk over pages, from its first to its last. Discord lists messages by their
ids, each page with the newest first whichever way the pages go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from contextframe_beam.connectors.conversations import (
    MESSAGE,
    THREAD,
    Documents,
    Gathered,
    point_of_time,
    version_of,
)
from contextframe_beam.connectors.discord.bot import Bot
from contextframe_beam.connectors.discord.markup import mentioned
from contextframe_beam.connectors.discord.plan import How, thread_of
from contextframe_beam.connectors.discord.records import (
    files_of,
    is_by_program,
    is_shown,
    item_of,
    place_in,
    point_of_message,
)
from contextframe_beam.connectors.discord.servers import (
    PRIVATE_THREAD,
    Skip,
    id_at,
    id_in,
    listed,
    point_of_id,
)
from contextframe_beam.connectors.http import HttpClient, HttpError, HttpRequest, HttpResponse
from contextframe_beam.connectors.page import Page, Partition, Window
from contextframe_beam.errors import ConnectorError
from contextframe_beam.frames.times import when

#: A page of a walk, and whether it is the last one.
Step = tuple[Page, bool]

_MESSAGES_IN_A_PAGE = 100
_THREADS_IN_A_PAGE = 100
# Of so many threads all messages are asked for at once.
_TOGETHER = 8
# A longer thread is read alone.
_SHORT_THREAD = 300
# A longer thread is no single document.
_LONGEST_THREAD = 1000
# Threads in which nothing was written for this long are forgotten; most are archived.
_REMEMBERED = Decimal(90 * 86_400)
_MOST_REMEMBERED = 100_000


class LeftOutError(ConnectorError):
    """A channel that cannot be read although Discord answers."""


@dataclass(frozen=True)
class _Due:
    """A thread that is read.

    Attributes:
        where: Where its messages are.
        documents: How they become documents; None for one document.
        start: Where its reading begins; None for its beginning.
        after: The id after which it begins.
        newest: The id of its last message, as it was listed; "" if none was told.
    """

    where: Mapping[str, Any]
    documents: Documents | None
    start: Decimal | None
    after: str
    newest: str

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.where["thread"]["id"])

    @property
    def kind(self) -> str:
        """What its documents are."""
        return THREAD if self.documents is None else self.documents.kind


class Reader:
    """Reads partitions.

    Args:
        http: Asks Discord.
        how: How documents are made.
        bot: Knows what the bot may see.
        skip: Names what cannot be read.
    """

    def __init__(self, http: HttpClient, how: How, bot: Bot, skip: Skip) -> None:
        self._http = http
        self._how = how
        self._bot = bot
        self._skip = skip

    def walk(self, partition: Partition) -> Iterator[Step]:
        """Yields the pages of a partition, each with whether it is the last one.

        Raises:
            HttpError: Discord refuses a channel, or the bot.
            LeftOutError: the channel shows no messages.
            ConnectorError: Discord cannot be asked.
        """
        walk = {"channel": self._channel, "threads": self._threads, "gone": self._gone}
        return walk[partition.params["what"]](partition.params)

    def _channel(self, params: Mapping[str, Any]) -> Iterator[Step]:
        """Reads a stretch of a channel."""
        where, newest = params["where"], str(params["newest"])
        until = None if params["until"] is None else int(params["until"])
        start, end = params["window"]
        place = place_in(where)
        for messages, groups, is_last in self._stream(
            where, self._how.channel, params["after"], until, params
        ):
            newest = max([newest or "0", *(one["id"] for one in messages)], key=int)
            page = Page(self._items(groups, self._how.channel.kind, self._how.channel, params))
            if is_last:
                page.windows = [Window(place, start, end)]
                page.state = {"last": newest, "mark": params["mark"]}
                if until is not None:
                    page.state["done"] = True
            yield page, is_last

    def _stream(
        self,
        where: Mapping[str, Any],
        documents: Documents,
        after: str,
        until: int | None,
        params: Mapping[str, Any],
        newest: str = "",
    ) -> Iterator[tuple[list[dict[str, Any]], list[list[dict[str, Any]]], bool]]:
        """Yields messages, the documents that are whole with them, and whether these are all."""
        holder = (where.get("thread") or where["channel"])["id"]
        gathered: Gathered[dict[str, Any]] = Gathered(
            documents, point_of_message, newest_first=False
        )
        newest, is_first = newest or str(params.get("newest") or ""), True
        while True:
            found = self._checked(self._http.send(_messages(holder, after)))
            later = [one for one in found if int(one["id"]) > int(after)]
            if is_first and not later and newest and int(newest) > int(after):
                self._require_history(where, params)
            is_first = False
            is_last = len(found) < _MESSAGES_IN_A_PAGE or not later
            if later:
                after = later[-1]["id"]
            if until is not None and int(after) >= until:
                later, is_last = [one for one in later if int(one["id"]) < until], True
            groups = gathered.add(self._wanted(later))
            if is_last:
                groups += gathered.rest()
            yield later, groups, is_last
            if is_last:
                return

    def _threads(self, params: Mapping[str, Any]) -> Iterator[Step]:
        """Reads the threads of a channel in which something is new."""
        known = _Known(params)
        unread: list[str] = []
        is_whole, stop = True, known.stop
        for threads, narrowed in self._listed_threads(params, stop):
            due = [one for one in threads if known.is_due(one)]
            if narrowed:
                is_whole = False
                yield Page([], narrowed=narrowed), False
            for page in self._read(due, params, known):
                unread += page.unread
                yield page, False
        gone = list(self._deleted(known.missed()))
        inside = f"{place_in(params['where'])}/threads"
        windows = [Window(f"{inside}/{one}") for one in gone]
        if stop is None and is_whole and not unread:
            windows.append(Window(inside, below=True))
        state = None if unread else known.state(gone)
        yield Page([], windows=windows, state=state), True

    def _listed_threads(
        self, params: Mapping[str, Any], stop: Decimal | None
    ) -> Iterator[tuple[list[dict[str, Any]], str]]:
        """Yields threads as Discord lists them, and why others cannot be seen.

        Args:
            params: Those of the partition.
            stop: Threads that were archived earlier are known; None to list all.
        """
        channel = params["where"]["channel"]
        yield params["active"], ""
        above = f"channels/{channel['id']}"
        for threads in self._archived(f"{above}/threads/archived/public", stop):
            yield threads, ""
        if not self._how.private:
            return
        try:
            for threads in self._archived(f"{above}/threads/archived/private", stop):
                yield threads, ""
        except HttpError as error:
            if not error.is_unreadable:
                raise
            lacks = (
                f"of #{channel['name']} only those archived private threads can be read that the "
                "bot has joined, since it may not Manage Threads"
            )
            yield [], lacks
            path = f"{above}/users/@me/threads/archived/private"
            for threads in self._archived(path, None, by_id=True):
                yield threads, ""

    def _archived(
        self, path: str, stop: Decimal | None, by_id: bool = False
    ) -> Iterator[list[dict[str, Any]]]:
        """Yields archived threads, those that were archived last first."""
        seen: set[str] = set()
        before = ""
        while True:
            params = {"limit": _THREADS_IN_A_PAGE, **({"before": before} if before else {})}
            response = self._http.send(HttpRequest("GET", path, params=params))
            told = response.json()
            if not isinstance(told, Mapping):
                raise response.error("is no list of threads")
            found = [one for one in map(thread_of, listed(told.get("threads"))) if one["id"]]
            new = [one for one in found if one["id"] not in seen]
            seen.update(one["id"] for one in new)
            yield new if stop is None else [one for one in new if _archived_at(one) >= stop]
            is_past = stop is not None and any(_archived_at(one) < stop for one in found)
            if told.get("has_more") is not True or not new or is_past:
                return
            # Some may have been archived in the same moment as the last one of the page.
            before = new[-1]["id"] if by_id else _just_after(found[-1]["archived_at"], before)

    def _read(
        self, threads: Sequence[dict[str, Any]], params: Mapping[str, Any], known: _Known
    ) -> Iterator[Page]:
        """Yields pages with the messages of threads; short ones are read together."""
        together: list[_Due] = []
        for thread in threads:
            due = self._due(thread, params, known)
            if thread["count"] > _SHORT_THREAD:
                yield from self._read_alone(due, params)
                continue
            together.append(due)
            if len(together) == _TOGETHER:
                yield self._read_together(together, params)
                together = []
        if together:
            yield self._read_together(together, params)

    def _due(self, thread: dict[str, Any], params: Mapping[str, Any], known: _Known) -> _Due:
        documents = self._documents_of(thread)
        start = None if documents is None else known.begin_of(thread, documents)
        first = [one for one in (start, self._how.start) if one is not None]
        after = str(max(id_at(max(first)) - 1, 0)) if first else "0"
        newest = "" if thread["is_empty"] else str(thread["newest"])
        return _Due(where_of(thread, params), documents, start, after, newest)

    def _documents_of(self, thread: Mapping[str, Any]) -> Documents | None:
        """Returns how the messages of a thread become documents; None for one document."""
        if self._how.thread is None and thread["count"] > _LONGEST_THREAD:
            return self._how.long_thread
        return self._how.thread

    def _read_alone(self, due: _Due, params: Mapping[str, Any]) -> Iterator[Page]:
        """Yields the documents of a long thread."""
        documents = due.documents or Documents(MESSAGE)
        whole: list[dict[str, Any]] = []
        try:
            for messages, groups, is_last in self._stream(
                due.where, documents, due.after, None, params, due.newest
            ):
                if due.documents is None:
                    whole += self._wanted(messages)
                    groups = [whole] if is_last and whole else []
                page = Page(self._items(groups, due.kind, documents, params, due.where))
                if is_last:
                    page.windows = [Window(place_in(due.where), due.start)]
                yield page
        except (HttpError, LeftOutError) as error:
            yield self._skipped(due.where, error)

    def _read_together(self, threads: Sequence[_Due], params: Mapping[str, Any]) -> Page:
        """Returns the documents of threads, whose messages are asked for at the same time."""
        page = Page([])
        windows: list[Window] = []
        told: dict[int, list[dict[str, Any]]] = {number: [] for number in range(len(threads))}
        waiting = {number: due.after for number, due in enumerate(threads)}
        while waiting:
            asked = [_messages(threads[number].id, after) for number, after in waiting.items()]
            answers = self._http.all(asked, at_once=_TOGETHER, raise_for_status=False)
            for (number, after), answer in zip(list(waiting.items()), answers, strict=True):
                del waiting[number]
                due = threads[number]
                try:
                    found = self._checked(answer)
                    if not found and due.newest and int(due.newest) > int(after):
                        self._require_history(due.where, params)
                except (HttpError, LeftOutError) as error:
                    page.unread += self._skipped(due.where, error).unread
                    del told[number]
                    continue
                later = [one for one in found if int(one["id"]) > int(after)]
                told[number] += later
                if later and len(found) >= _MESSAGES_IN_A_PAGE:
                    waiting[number] = later[-1]["id"]
        for number, messages in told.items():
            due, wanted = threads[number], self._wanted(messages)
            documents = due.documents or Documents(MESSAGE)
            groups = documents.cut(wanted, point_of_message) if due.documents else [wanted]
            some = [one for one in groups if one]
            page.items += self._items(some, due.kind, documents, params, due.where)
            windows.append(Window(place_in(due.where), due.start))
        page.windows = windows
        return page

    def _skipped(self, where: Mapping[str, Any], error: HttpError | LeftOutError) -> Page:
        """Names a thread that cannot be read.

        Raises:
            HttpError: others could not be read either.
        """
        if isinstance(error, HttpError) and not error.is_unreadable:
            raise error
        page: Page = self._skip(name_of(where), reason_of(error))
        return page

    def _deleted(self, threads: Sequence[str]) -> Iterator[str]:
        """Yields those of some threads that are gone, for lists may leave one out."""
        asked = [HttpRequest("GET", f"channels/{one}") for one in threads]
        answers = self._http.all(asked, at_once=_TOGETHER, raise_for_status=False)
        for one, answer in zip(threads, answers, strict=True):
            if answer.status == 404:
                yield one
            elif answer.status >= 400 and answer.status != 403:
                raise answer.refused("to a question for a thread")

    def _gone(self, params: Mapping[str, Any]) -> Iterator[Step]:
        """Asks whether a channel is gone that no server lists any more."""
        channel = params["channel"]
        answer = self._http.send(HttpRequest("GET", f"channels/{channel}"), raise_for_status=False)
        if answer.status == 404:
            windows = [Window(f"channel/{channel}", below=True)]
            yield Page([], windows=windows, state={"gone": True}), True
            return
        if answer.status >= 400 and answer.status != 403:
            raise answer.refused("to a question for a channel")
        yield Page([], state={}), True

    def _checked(self, response: HttpResponse) -> list[dict[str, Any]]:
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

    def _wanted(self, messages: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            one for one in messages if is_shown(one) and (self._how.bots or not is_by_program(one))
        ]

    def _items(
        self,
        groups: Iterable[Sequence[dict[str, Any]]],
        kind: str,
        documents: Documents,
        params: Mapping[str, Any],
        where: Mapping[str, Any] | None = None,
    ) -> list[Any]:
        """Returns the items of documents, and of their files."""
        where = where or params["where"]
        items: list[Any] = []
        for group in groups:
            names = params["names"]
            item = item_of(group, kind, documents, where, names, self._threads_in(group, names))
            items.append(item)
            items += files_of(group, item, self._how.attachments)
        return items

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

    def _require_history(self, where: Mapping[str, Any], params: Mapping[str, Any]) -> None:
        """Refuses to take a channel for empty whose messages the bot may not see."""
        lacks = self._bot.lacks(where["server"]["id"], params["rules"])
        if lacks:
            raise LeftOutError(lacks)


class _Known:
    """What an earlier run knew of the threads of a channel, and what this one meets.

    Args:
        params: Those of the partition.
    """

    def __init__(self, params: Mapping[str, Any]) -> None:
        state = params["state"]
        self._params = params
        self._since = Decimal(params["since"])
        self._before: dict[str, str] = dict(state.get("threads") or {})
        self._was_active = set(state.get("active") or ())
        self._archived = str(state.get("archived") or "")
        self._met: dict[str, str] = {}
        self._active = [one["id"] for one in params["active"]]

    @property
    def stop(self) -> Decimal | None:
        """Threads that were archived before this are known; None if none is."""
        reached = when(self._archived)
        if reached is None:
            return None
        return min(point_of_time(reached), self._since)

    def is_due(self, thread: Mapping[str, Any]) -> bool:
        """Returns whether a thread is to be read, and notes that it is there."""
        identifier = thread["id"]
        if identifier in self._met:
            return False
        if identifier not in self._active and _archived_at(thread) > _time(self._archived):
            self._archived = thread["archived_at"]
        entry = f"{thread['newest']} {self._mark(thread)}"
        self._met[identifier] = entry
        known = self._before.get(identifier, "")
        if known.partition(" ")[2] != entry.partition(" ")[2]:
            return True
        is_new = int(thread["newest"]) > int(known.partition(" ")[0])
        return is_new or point_of_id(thread["newest"]) >= self._since

    def begin_of(self, thread: Mapping[str, Any], documents: Documents) -> Decimal | None:
        """Returns where the reading of a thread begins; None for its beginning."""
        last, _, mark = self._before.get(thread["id"], "").partition(" ")
        if mark != self._mark(thread):
            return None
        return documents.begin_of(min(point_of_id(last), self._since))

    def missed(self) -> list[str]:
        """Returns the threads that should have been listed and were not."""
        return [
            identifier
            for identifier, entry in self._before.items()
            if identifier not in self._met
            and (
                identifier in self._was_active
                or point_of_id(entry.partition(" ")[0]) >= self._since
            )
        ]

    def state(self, gone: Iterable[str]) -> dict[str, Any]:
        """Returns the state after a run in which all threads could be read."""
        oldest = Decimal(self._params["began"]) - _REMEMBERED
        active = set(self._active)
        known = {**self._before, **self._met}
        for one in gone:
            known.pop(one, None)
        kept = {
            identifier: entry
            for identifier, entry in known.items()
            if identifier in active or point_of_id(entry.partition(" ")[0]) >= oldest
        }
        if len(kept) > _MOST_REMEMBERED:
            newest = sorted(kept, key=lambda one: int(kept[one].partition(" ")[0]))
            kept = {one: kept[one] for one in newest[-_MOST_REMEMBERED:]}
        return {
            "mark": self._params["mark"],
            "archived": self._archived or _EARLIEST,
            "active": sorted(active),
            "threads": kept,
        }

    def _mark(self, thread: Mapping[str, Any]) -> str:
        told = [thread["name"], tags_of(thread, self._params), thread["locked"]]
        return version_of(told, thread["count"] > _LONGEST_THREAD)[:8]


_EARLIEST = "2015-01-01T00:00:00+00:00"
_MOMENT = timedelta(milliseconds=1)


def where_of(thread: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns where the messages of a thread are."""
    where = params["where"]
    told = {
        "id": thread["id"],
        "name": thread["name"] or thread["id"],
        "tags": tags_of(thread, params),
        "locked": thread["locked"],
    }
    # Who is in a private thread is not told.
    is_private = thread["type"] == PRIVATE_THREAD
    readers = [f"discord-channel:{thread['id']}"] if is_private else where["readers"]
    return {**where, "thread": told, "readers": readers}


def tags_of(thread: Mapping[str, Any], params: Mapping[str, Any]) -> list[str]:
    """Returns the tags of a post by name."""
    return [params["tags"].get(one, one) for one in thread["tags"]]


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


def name_of(where: Mapping[str, Any]) -> str:
    """Returns what a channel or a thread is called, for people."""
    thread = where.get("thread")
    whole = f"{where['server']['name']} / #{where['channel']['name']}"
    return f"{whole} / {thread['name']}" if thread else whole


def _messages(channel: str, after: str) -> HttpRequest:
    params = {"after": after, "limit": _MESSAGES_IN_A_PAGE}
    return HttpRequest("GET", f"channels/{channel}/messages", params=params)


def _archived_at(thread: Mapping[str, Any]) -> Decimal:
    return _time(thread["archived_at"])


def _time(text: str) -> Decimal:
    found = when(text)
    return Decimal(0) if found is None else point_of_time(found)


def _just_after(text: str, before: str) -> str:
    """Returns the moment after a time, or the time itself where that was asked for already."""
    found = when(text)
    if found is None:
        return text
    following = (found + _MOMENT).isoformat()
    return found.isoformat() if following == before else following
