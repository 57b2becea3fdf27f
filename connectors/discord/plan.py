"""What a run reads of a server: stretches of its channels, and the threads of each channel.

The last message that a server tells of a channel says whether there is something new. Edits and
deletes are told nowhere, so the last weeks of a channel are read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from contextframe_beam.connectors.attachments import Attachments
from contextframe_beam.connectors.conversations import Documents, version_of
from contextframe_beam.connectors.discord.servers import (
    FORUMS,
    PRIVATE_THREAD,
    WITH_THREADS,
    Server,
    id_at,
    id_in,
    listed,
    point_of_id,
)
from contextframe_beam.connectors.page import Partition

#: A channel is read in stretches of this length, in seconds, which may be read in parallel.
STRETCH = Decimal(2 * 365 * 86_400)

_EARLIEST = "2015-01-01T00:00:00+00:00"
_LEAST = Decimal("0.001")


@dataclass(frozen=True)
class How:
    """How documents are made, and what is read.

    Attributes:
        channel: How the messages of channels become documents.
        thread: The same for threads; None where a thread is a document.
        long_thread: The same for threads that are too long for one document.
        threads: Whether threads are read.
        private: Whether private ones are as well.
        bots: Whether messages of bots and webhooks are read.
        attachments: What becomes of files.
        edit_window: How long edits and deletes of a message are looked for, in seconds.
        start: Earlier messages are not read; in seconds since 1970.
    """

    channel: Documents
    thread: Documents | None
    long_thread: Documents
    threads: bool
    private: bool
    bots: bool
    attachments: Attachments
    edit_window: Decimal
    start: Decimal | None

    @property
    def mark(self) -> list[Any]:
        """What decides which messages a document holds; if it differs, all is read again."""
        kinds = [self.channel, self.thread]
        told = [[one.kind, str(one.gap), str(one.zone)] if one else None for one in kinds]
        return [*told, self.bots, self.private, str(self.start)]


class Plan:
    """What a run reads.

    Args:
        how: How documents are made.
        states: What earlier runs reached in each partition; empty to read everything.
        began: When the run began, in seconds since 1970.
    """

    def __init__(self, how: How, states: Mapping[str, Any], began: Decimal) -> None:
        self._how = how
        self._states = states
        self._began = began
        # What was sent before this is read again only where something is new.
        self._since = began - how.edit_window

    def partitions(
        self, server: Server, channels: Sequence[Mapping[str, Any]]
    ) -> Iterator[Partition]:
        """Yields what is read of the wanted channels of a server."""
        active: dict[str, list[dict[str, Any]]] = {}
        for one in server.active:
            active.setdefault(id_in(one, "parent_id"), []).append(thread_of(one))
        for channel in channels:
            shared = self._shared(server, channel)
            if channel.get("type") not in FORUMS:
                yield from self._stretches(channel, shared)
            if self._how.threads and channel.get("type") in WITH_THREADS:
                yield self._threads(channel, shared, active.get(channel["id"], []))

    def gone(self, listed_ids: set[str]) -> Iterator[Partition]:
        """Yields the channels that earlier runs read and no server lists any more."""
        known = {
            name.split("/")[1] for name, state in self._states.items() if state and "/" in name
        }
        for identifier in sorted(known - listed_ids):
            name = f"gone/{identifier}"
            if not self._states.get(name):
                yield Partition(name, {"what": "gone", "channel": identifier})

    def _shared(self, server: Server, channel: Mapping[str, Any]) -> dict[str, Any]:
        readers = server.readers(channel)
        where = {
            "server": {"id": server.id, "name": server.name},
            "channel": {"id": channel["id"], "name": str(channel.get("name") or channel["id"])},
            "readers": readers,
        }
        rules = {name: channel.get(name) for name in ("type", "permission_overwrites")}
        return {
            "where": where,
            "names": dict(server.names),
            "rules": rules,
            "mark": version_of(where, self._how.mark)[:16],
            "began": str(self._began),
        }

    def _stretches(self, channel: Mapping[str, Any], shared: dict[str, Any]) -> Iterator[Partition]:
        """Yields the stretches of a channel that may have something new."""
        newest = id_in(channel, "last_message_id")
        latest = point_of_id(newest) if newest else self._began
        ends = list(self._borders(channel["id"], latest))
        begins = [None, *ends]
        for number, (begin, end) in enumerate(zip(begins, [*ends, None], strict=True)):
            name = f"channel/{channel['id']}" + (f"/{number}" if number else "")
            state = self._states.get(name)
            state = state if isinstance(state, Mapping) else {}
            is_known = state.get("mark") == shared["mark"]
            if is_known and state.get("done") and end is not None and end <= self._since:
                continue
            start = begin
            if is_known:
                start = self._resumed(str(state.get("last") or ""), begin)
                last = int(state.get("last") or 0)
                # A channel in which nothing was ever written names no last message.
                is_quiet = int(newest or 0) <= last and point_of_id(last) < self._since
                is_pinned = channel.get("last_pin_timestamp") != state.get("pinned_at")
                if end is None and is_quiet and not is_pinned:
                    continue
            pinned_at = str(channel.get("last_pin_timestamp") or "")
            pins = str(state.get("pinned_at") or _EARLIEST) if is_known and end is None else ""
            has_pins = pinned_at and pinned_at != state.get("pinned_at")
            told = {
                **shared,
                "what": "channel",
                "pinned_at": pinned_at,
                "pins": pins if has_pins else "",
                "newest": newest if end is None else "",
                "after": _before(_latest(start, self._how.start)),
                "until": None if end is None else str(id_at(end)),
                "window": [_text(start), _text(None if end is None else end - _LEAST)],
            }
            yield Partition(name, told)

    def _borders(self, channel: str, last: Decimal) -> Iterator[Decimal]:
        """Yields where the stretches of a channel end, but for the last one."""
        number = 1
        while True:
            border = self._how.channel.begin_of(point_of_id(channel) + number * STRETCH)
            if border >= last:
                return
            yield border
            number += 1

    def _resumed(self, last: str, begin: Decimal | None) -> Decimal | None:
        """Returns where reading goes on after an earlier run."""
        if not last:
            return begin
        start = self._how.channel.begin_of(min(point_of_id(last), self._since))
        return start if begin is None else max(start, begin)

    def _threads(
        self, channel: Mapping[str, Any], shared: dict[str, Any], active: list[dict[str, Any]]
    ) -> Partition:
        name = f"threads/{channel['id']}"
        state = self._states.get(name)
        is_known = isinstance(state, Mapping) and state.get("mark") == shared["mark"]
        told = {
            **shared,
            "what": "threads",
            "since": str(self._since),
            "active": [one for one in active if self._how.private or one["type"] != PRIVATE_THREAD],
            "tags": {
                one["id"]: str(one.get("name"))
                for one in listed(channel.get("available_tags"))
                if id_in(one, "id")
            },
            "state": dict(state) if is_known and isinstance(state, Mapping) else {},
        }
        return Partition(name, told)


def thread_of(told: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is needed of a thread that Discord told."""
    about = told.get("thread_metadata")
    about = about if isinstance(about, Mapping) else {}
    return {
        "id": id_in(told, "id"),
        "name": str(told.get("name") or ""),
        "type": told.get("type"),
        "newest": id_in(told, "last_message_id") or id_in(told, "id"),
        "is_empty": not id_in(told, "last_message_id"),
        "count": max(_number(told.get("total_message_sent")), _number(told.get("message_count"))),
        "tags": [one for one in told.get("applied_tags") or () if isinstance(one, str)],
        "locked": about.get("locked") is True,
        "pinned": str(told.get("last_pin_timestamp") or ""),
        "archived_at": str(about.get("archive_timestamp") or ""),
    }


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _before(point: Decimal | None) -> str:
    """Returns the id after which a point begins."""
    return str(max(id_at(point) - 1, 0)) if point is not None else "0"


def _latest(*points: Decimal | None) -> Decimal | None:
    return max((one for one in points if one is not None), default=None)


def _text(point: Decimal | None) -> str | None:
    return None if point is None else str(point)
