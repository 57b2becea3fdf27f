"""Reads the threads of a channel: which of them have something new, and their messages.

All threads of a channel are one partition, so that its state remembers them together: it moves
where all of them were read, and forgets those in which nothing is written any more.
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
    point_of_time,
    version_of,
)
from contextframe_beam.connectors.discord.messages import (
    MOST_IN_A_PAGE,
    LeftOutError,
    Messages,
    Step,
    name_of,
    reason_of,
)
from contextframe_beam.connectors.discord.plan import How, thread_of
from contextframe_beam.connectors.discord.records import place_in, point_of_message
from contextframe_beam.connectors.discord.servers import (
    PRIVATE_THREAD,
    Skip,
    id_at,
    listed,
    point_of_id,
)
from contextframe_beam.connectors.http import HttpClient, HttpError, HttpRequest
from contextframe_beam.connectors.page import Page, Window
from contextframe_beam.frames.times import when

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
_EARLIEST = "2015-01-01T00:00:00+00:00"
_MOMENT = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Due:
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


class ThreadReader:
    """Reads the threads of channels.

    Args:
        http: Asks Discord.
        how: How documents are made.
        messages: Asks for messages.
        skip: Names what cannot be read.
    """

    def __init__(self, http: HttpClient, how: How, messages: Messages, skip: Skip) -> None:
        self._http = http
        self._how = how
        self._messages = messages
        self._skip = skip

    def walk(self, params: Mapping[str, Any]) -> Iterator[Step]:
        """Yields pages with the threads of a channel in which something is new.

        Raises:
            HttpError: Discord refuses the channel.
        """
        known = Known(params)
        unread: list[str] = []
        is_whole, stop = True, known.stop
        for threads, narrowed in self._listed(params, stop):
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

    def _listed(
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
        self, threads: Sequence[dict[str, Any]], params: Mapping[str, Any], known: Known
    ) -> Iterator[Page]:
        """Yields pages with the messages of threads; short ones are read together."""
        together: list[Due] = []
        for thread in threads:
            due = self._due(thread, params, known)
            if thread["count"] > _SHORT_THREAD:
                yield from self._read_alone(due, params)
                continue
            together.append(due)
            if len(together) == _TOGETHER:
                yield from self._read_together(together, params)
                together = []
        if together:
            yield from self._read_together(together, params)

    def _due(self, thread: dict[str, Any], params: Mapping[str, Any], known: Known) -> Due:
        documents = self._documents_of(thread)
        start = None if documents is None else known.begin_of(thread, documents)
        first = [one for one in (start, self._how.start) if one is not None]
        after = str(max(id_at(max(first)) - 1, 0)) if first else "0"
        newest = "" if thread["is_empty"] else str(thread["newest"])
        return Due(where_of(thread, params), documents, start, after, newest)

    def _documents_of(self, thread: Mapping[str, Any]) -> Documents | None:
        """Returns how the messages of a thread become documents; None for one document."""
        if self._how.thread is None and thread["count"] > _LONGEST_THREAD:
            return self._how.long_thread
        return self._how.thread

    def _read_alone(self, due: Due, params: Mapping[str, Any]) -> Iterator[Page]:
        """Yields the documents of a long thread."""
        try:
            if due.documents is None and (whole := self._whole(due, params)) is not None:
                yield self._page_of([(due, whole)], params)
                return
            documents = due.documents or self._how.long_thread
            pages = self._messages.stream(due.where, due.after, None, due.newest, params)
            for items, _, is_last in self._messages.gathered(due.where, documents, pages, params):
                windows = [Window(place_in(due.where), due.start)] if is_last else []
                yield Page(items, windows=windows)
        except (HttpError, LeftOutError) as error:
            yield self._skipped(due.where, error)

    def _whole(self, due: Due, params: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """Returns all messages of a thread; None for one that is too long for a document."""
        found: list[dict[str, Any]] = []
        for messages, _ in self._messages.stream(due.where, due.after, None, due.newest, params):
            found += messages
            if len(found) > _LONGEST_THREAD:
                return None
        return found

    def _read_together(self, threads: Sequence[Due], params: Mapping[str, Any]) -> Iterator[Page]:
        """Yields the documents of threads, whose messages are asked for at the same time."""
        unread: list[str] = []
        told: dict[int, list[dict[str, Any]]] = {number: [] for number in range(len(threads))}
        waiting = {number: due.after for number, due in enumerate(threads)}
        long_ones: list[Due] = []
        while waiting:
            asked = [
                self._messages.asked(threads[number].id, after) for number, after in waiting.items()
            ]
            answers = self._http.all(asked, at_once=_TOGETHER, raise_for_status=False)
            for (number, after), answer in zip(list(waiting.items()), answers, strict=True):
                del waiting[number]
                due = threads[number]
                try:
                    found = self._messages.checked(answer)
                    if not found:
                        self._messages.require_history(due.where, after, due.newest, params)
                except (HttpError, LeftOutError) as error:
                    unread += self._skipped(due.where, error).unread
                    del told[number]
                    continue
                later = [one for one in found if int(one["id"]) > int(after)]
                told[number] += later
                if later and len(found) >= MOST_IN_A_PAGE:
                    waiting[number] = later[-1]["id"]
                    if len(told[number]) > _SHORT_THREAD:
                        # Discord does not count all messages of old threads.
                        long_ones.append(due)
                        del told[number], waiting[number]
        page = self._page_of([(threads[number], one) for number, one in told.items()], params)
        page.unread = tuple(unread)
        yield page
        for due in long_ones:
            yield from self._read_alone(due, params)

    def _page_of(
        self, threads: Iterable[tuple[Due, list[dict[str, Any]]]], params: Mapping[str, Any]
    ) -> Page:
        """Returns a page with the documents of threads of which all messages are there."""
        page = Page([])
        windows: list[Window] = []
        for due, messages in threads:
            wanted = self._messages.wanted(messages, due.kind)
            documents = due.documents or Documents(MESSAGE)
            groups = documents.cut(wanted, point_of_message) if due.documents else [wanted]
            some = [one for one in groups if one]
            page.items += self._messages.items(due.where, some, due.kind, documents, params)
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


class Known:
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
        told = [thread["name"], tags_of(thread, self._params), thread["locked"], thread["pinned"]]
        return version_of(told, thread["count"] > _LONGEST_THREAD)[:8]


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
