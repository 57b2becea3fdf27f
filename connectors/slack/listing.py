"""Lists of a channel: what its messages become, what of them changed, and what is gone.

A list of messages shows no replies, and a reply changes nothing of its message but the number of
its replies and the last of them. So each run lists the last weeks of a channel again. What changed
is told by versions, which the dataset holds; replies are asked for of those messages only.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

from contextframe_beam.connectors.conversations import (
    MESSAGE,
    THREAD,
    Documents,
    Gathered,
    point_of_time,
    time_of,
)
from contextframe_beam.connectors.files.item import FileItem
from contextframe_beam.connectors.page import Page, Partition, Window
from contextframe_beam.connectors.slack.api import SlackApi, following
from contextframe_beam.connectors.slack.items import GONE, parts_of
from contextframe_beam.connectors.slack.limits import Limits
from contextframe_beam.connectors.slack.messages import (
    at,
    cleaned,
    files_of,
    is_of_bot,
    is_system,
    is_tombstone,
    point_of_ts,
    replies_of,
    thread_of,
    ts_of,
    version_of_messages,
)

#: Of an item of a run that tells all that belongs to messages, so that the item need not.
WHOLE = "whole"

# Of so many messages of a channel it is remembered that they may have replies or files.
_MOST_PARTS = 20_000
# A day of 25 hours is the longest that a document may go on.
_LONGEST_DAY = Decimal(90_000)
_STEP = Decimal("0.000001")


@dataclass(frozen=True)
class Reading:
    """How channels are read.

    Attributes:
        documents: How the messages of a type of channel become documents.
        window: How far before its end a channel is listed again.
        start: Where reading begins; None for the beginning.
        replies: Whether replies are read.
        bots: Whether messages of programs are read.
        has_files: Whether files are documents of their own.
        keeps_files: Whether files that are stored stay, since the app may not read files now.
        limits: How often Slack may be asked.
    """

    documents: Callable[[str], Documents]
    window: timedelta
    start: Decimal | None
    replies: bool
    bots: bool
    has_files: bool
    keeps_files: bool
    limits: Limits


@dataclass
class _Progress:
    """How far a channel was read in this run.

    Attributes:
        gathered: Cuts messages to documents.
        newest: The greatest ts seen.
        oldest: The smallest ts seen.
        is_limited: Whether Slack says that it hides older messages, because of its plan.
        missing: Messages of the run before that were not seen yet.
        recent_from: Where the stretch begins that a later run lists again.
        recent: How many messages it has.
        parts: Those of them that may have replies or files.
    """

    gathered: Gathered[dict[str, Any]]
    newest: str
    missing: set[str]
    recent_from: Decimal
    recent: int = 0
    oldest: str = ""
    is_limited: bool = False
    parts: list[str] = field(default_factory=list)


class Listing:
    """Lists channels.

    Args:
        api: Asks Slack.
        how: How they are read.
        count: Is told how many messages of Slack itself were left out.
    """

    def __init__(self, api: SlackApi, how: Reading, count: Callable[[int], None]) -> None:
        self._api = api
        self._how = how
        self._count = count
        self._lock = threading.Lock()
        self._progress: dict[str, _Progress] = {}

    def partition(
        self,
        channel: Mapping[str, Any],
        state: Mapping[str, Any],
        bounds: tuple[Decimal | None, Decimal | None],
        kept: Mapping[str, Any],
        began: str,
    ) -> Partition:
        """Returns the part of a channel that this run reads.

        Args:
            channel: What is known of it: `id`, `label`, `kind`, `url` and `readers`.
            state: What an earlier run reached; empty to read everything.
            bounds: The first point, and the first that does not belong to it, of a run that reads
                a stretch only.
            kept: What the next run finds in its state as well.
            began: When the run began, which tells it from others.
        """
        documents = self._how.documents(channel["kind"])
        known = dict(state)
        start = self._how.start
        params: dict[str, Any] = {
            "channel": dict(channel),
            "anew": "all",
            "state": known,
            "began": began,
            "kept": {name: one for name, one in kept.items() if one},
        }
        since, until = bounds
        if since is not None or until is not None:
            first = max((one for one in (since, start) if one is not None), default=None)
            params |= {"only": [_text(since), _text(until)]}
            if until is not None:
                params["latest"] = _text(until + (_LONGEST_DAY if documents.is_gathered else 0))
        elif (reached := point_of_ts(str(known.get("ts")))) is not None:
            first = self._from(reached)
            params["anew"] = ""
            if known.get("readers") != channel["readers"]:
                # All of it has other readers now, and so have its replies and files.
                first, params["anew"] = start, "parts"
        else:
            first = start
        params["oldest"] = None if first is None else _text(documents.begin_of(first))
        return Partition(str(channel["id"]), params)

    def page(self, partition: Partition, cursor: str | None) -> Page:
        """Returns the documents of one answer.

        Args:
            partition: One that `partition` returned.
            cursor: None for the first answer, then that of the answer before.

        Raises:
            SlackError: the channel cannot be read.
        """
        params = partition.params
        told = self._api.history(
            partition.id,
            self._how.limits.messages,
            params["oldest"],
            params.get("latest"),
            cursor,
        )
        key = f"{partition.id} {params.get('only')}"
        progress = self._begun(key, partition, is_first=cursor is None)
        messages = [
            cleaned(one)
            for one in told.get("messages") or ()
            if isinstance(one, Mapping) and point_of_ts(ts_of(one)) is not None
        ]
        progress.is_limited |= told.get("is_limited") is True
        page = Page(list(self._items(messages, partition, progress)))
        page.next_cursor = following(told)
        if page.next_cursor is None:
            rest = progress.gathered.rest()
            page.items += [self._item(one, params) for one in self._within(rest, params)]
            page.windows = list(self._windows(partition, progress))
            if progress.is_limited:
                page.narrowed = "Slack hides older messages, because of the limit of its plan"
            page.state = self._state(params, progress)
            with self._lock:
                self._progress.pop(key, None)
        return page

    def _from(self, reached: Decimal) -> Decimal:
        """Returns the first point that a later run lists again."""
        first = min(reached, self._recent_from())
        return first if self._how.start is None else max(first, self._how.start)

    def _begun(self, key: str, partition: Partition, is_first: bool) -> _Progress:
        params = partition.params
        with self._lock:
            known = self._progress.get(key)
            if known is None or is_first:
                documents = self._how.documents(params["channel"]["kind"])
                state = params["state"]
                known = self._progress[key] = _Progress(
                    Gathered(documents, at, newest_first=True),
                    str(state.get("ts") or ""),
                    set(state.get("parts") or ()),
                    self._recent_from(),
                )
            return known

    def _items(
        self, messages: list[dict[str, Any]], partition: Partition, progress: _Progress
    ) -> Iterator[FileItem]:
        """Yields documents that are whole now."""
        params = partition.params
        kind = self._how.documents(params["channel"]["kind"]).kind
        roots, left_out = [], 0
        for message in messages:
            ts = ts_of(message)
            progress.newest = max(progress.newest, ts, key=lambda one: point_of_ts(one) or 0)
            progress.oldest = min(progress.oldest or ts, ts, key=lambda one: point_of_ts(one) or 0)
            if at(message) >= progress.recent_from:
                progress.recent += 1
                if replies_of(message) or message.get("files"):
                    progress.parts.append(ts)
            if thread_of(message) is not None and kind != MESSAGE:
                # It was shown in the channel too; it is read with its thread.
                if kind == THREAD and (old := self._old_thread(message, params)) is not None:
                    yield old
                continue
            if self.is_left_out(message) and not (self._how.replies and replies_of(message)):
                left_out += is_system(message)
                continue
            progress.missing.discard(ts)
            roots.append(message)
        if left_out:
            self._count(left_out)
        for group in self._within(progress.gathered.add(roots), params):
            yield self._item(group, params)

    def is_left_out(self, message: Mapping[str, Any]) -> bool:
        """Returns whether a message itself is not read, although its replies may be."""
        return is_system(message) or (is_of_bot(message) and not self._how.bots)

    def _old_thread(self, message: Mapping[str, Any], params: Mapping[str, Any]) -> FileItem | None:
        """Returns the thread of a reply, if it began before what is listed."""
        thread, oldest = str(thread_of(message)), params["oldest"]
        point = point_of_ts(thread)
        if oldest is None or point is None or point >= Decimal(oldest) or not self._how.replies:
            return None
        # Nothing is known of it but this reply; it is read when a later one is shown.
        first = {
            "ts": thread,
            "thread_ts": thread,
            "reply_count": 1,
            "latest_reply": ts_of(message),
        }
        return self._item([first], {**params, "anew": ""})

    def _within(
        self, groups: list[list[dict[str, Any]]], params: Mapping[str, Any]
    ) -> Iterator[list[dict[str, Any]]]:
        """Yields the documents that begin in the stretch of a run that reads only one."""
        documents = self._how.documents(params["channel"]["kind"])
        only = params.get("only")
        since, until = (None if one is None else Decimal(one) for one in only or (None, None))
        for group in groups:
            first = _anchor(group, documents)
            if (since is None or since <= first) and (until is None or first < until):
                yield group

    def _item(self, group: list[dict[str, Any]], params: Mapping[str, Any]) -> FileItem:
        channel = params["channel"]
        documents = self._how.documents(channel["kind"])
        first = group[0]
        name = documents.name_of(ts_of(first), at(first))
        is_gone = documents.kind == MESSAGE and (is_tombstone(first) or self.is_left_out(first))
        has_parts = any(self._may_have_parts(one, documents.kind) for one in group)
        return FileItem(
            f"{channel['id']}/{name}",
            modified_at=time_of(max(map(_changed, group))).isoformat(),
            is_anew=params["anew"] == "all" or (params["anew"] == "parts" and has_parts),
            kind=GONE if is_gone else documents.kind,
            channel=channel,
            point=_text(_anchor(group, documents)),
            # As text it takes a tenth of the memory of its many small parts.
            messages=json.dumps(group, separators=(",", ":")),
            version=version_of_messages(group),
            handle=WHOLE if params["anew"] == "all" and not params.get("only") else None,
        )

    def _may_have_parts(self, message: Mapping[str, Any], kind: str) -> bool:
        """Returns whether documents of their own may belong to a message: replies or files."""
        has_replies = bool(replies_of(message)) and self._how.replies
        if kind == MESSAGE and has_replies:
            return True
        return self._how.has_files and (has_replies or any(files_of(message)))

    def _windows(self, partition: Partition, progress: _Progress) -> Iterator[Window]:
        """Yields the stretches of which the run has seen all documents, or all parts of them."""
        params, channel = partition.params, partition.id
        if params.get("only"):
            return  # a run that reads a stretch deletes nothing that it did not see
        first = params["oldest"]
        if progress.is_limited and progress.oldest:
            first = max(first or "0", progress.oldest, key=Decimal)
        yield Window(channel, first)
        if self._how.keeps_files:
            return
        if params["anew"] == "all":
            yield Window(parts_of(channel), first)
            return
        oldest = Decimal(first or 0)
        for ts in progress.missing:
            point = point_of_ts(ts)
            if point is not None and point >= oldest:
                yield Window(parts_of(channel), ts, ts)

    def _recent_from(self) -> Decimal:
        return point_of_time(self._api.now) - Decimal(self._how.window.total_seconds())

    def _state(self, params: Mapping[str, Any], progress: _Progress) -> dict[str, Any]:
        parts = sorted(progress.parts, key=lambda ts: point_of_ts(ts) or 0)
        return {
            # An empty channel is known to be that, from the time of this run on.
            "ts": progress.newest or _text(point_of_time(self._api.now)),
            "readers": params["channel"]["readers"],
            "parts": parts[-_MOST_PARTS:],
            "recent": progress.recent,
            **params["kept"],
        }


def _anchor(group: list[dict[str, Any]], documents: Documents) -> Decimal:
    """Returns the point at which a document stands: its first message, or its day."""
    first = at(group[0])
    return documents.begin_of(first) if documents.kind == "day" else first


def _changed(message: Mapping[str, Any]) -> Decimal:
    edited = message.get("edited")
    told = (
        ts_of(message),
        str(message.get("latest_reply")),
        str(edited.get("ts")) if isinstance(edited, Mapping) else "",
    )
    return max(point_of_ts(one) or Decimal(0) for one in told)


def _text(point: Decimal | None) -> str | None:
    """Returns a point as Slack writes it, with six decimals."""
    return None if point is None else f"{point.quantize(_STEP)}"
