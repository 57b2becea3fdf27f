"""Messages of chats become documents: each alone, by thread, by conversation or by day.

A chat lists messages in pages, from the newest or from the oldest. A document of several messages
may go on in the next page, and a later run has to find the same borders although it reads only the
last weeks. So conversations end at a pause and with their day, and a stretch that is read begins
with a day.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Generic, TypeVar
from zoneinfo import ZoneInfo

from contextframe_beam.connectors.cursors import seconds_of
from contextframe_beam.connectors.markdown import quoted
from contextframe_beam.errors import ConfigError, nearest

MESSAGE, THREAD, CONVERSATION, DAY = "message", "thread", "conversation", "day"

#: What one document may hold.
DOCUMENTS = (MESSAGE, THREAD, CONVERSATION, DAY)

#: A pause of this length ends a conversation.
USUAL_GAP = "30m"

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_TITLE_LENGTH = 80
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
# Marks, and the backslash of a sign that would read as one.
_MARKS = re.compile(r"\*+|`+|~~|\\(?=[!-/:-@\[-`{-~])")
# Texts that begin so are blocks of their own, which a name before them would spoil.
_BLOCKS = ("```", "~~~", "> ", "- ", "* ", "+ ", "1.", "|", "#", "    ")

T = TypeVar("T")


class Documents:
    """How messages become documents.

    Points are seconds since 1970 as exact decimals, such as a `Place` has.

    Args:
        kind: `message` for each message alone, `thread` for a message with its replies,
            `conversation` for messages without a long pause, `day` for all messages of a day.
        gap: The pause that ends a conversation, such as `30m`.
        time_zone: The zone whose days count, such as `Europe/Berlin`. A conversation ends with its
            day, so that it does not grow for ever and a later run finds the same borders.

    Raises:
        ConfigError: there is no such kind or zone, or the gap is no duration.
    """

    def __init__(self, kind: str, gap: str = USUAL_GAP, time_zone: str = "UTC") -> None:
        if kind not in DOCUMENTS:
            hint = nearest(kind, DOCUMENTS) or f"; it must be one of {', '.join(DOCUMENTS)}"
            raise ConfigError(f"document is {kind!r}{hint}")
        try:
            self.gap = Decimal(str(seconds_of(gap)))
        except ValueError as error:
            raise ConfigError(f"gap: {error}") from None
        try:
            self.zone = ZoneInfo(time_zone)
        except (KeyError, ValueError, OSError):
            raise ConfigError(
                f"time_zone is {time_zone!r}, which is no zone; give one such as Europe/Berlin"
            ) from None
        self.kind = kind

    @property
    def is_gathered(self) -> bool:
        """Whether a document may hold several messages of the list itself."""
        return self.kind in (CONVERSATION, DAY)

    def begin_of(self, point: Decimal) -> Decimal:
        """Returns the last border at or before a point: a day begins there, or the point itself.

        What is read from there on holds only whole documents.
        """
        if not self.is_gathered:
            return point
        local = time_of(point).astimezone(self.zone)
        return point_of_time(local.replace(hour=0, minute=0, second=0, microsecond=0))

    def day_of(self, point: Decimal) -> str:
        """Returns the day of a point, as in `2026-01-31`."""
        return time_of(point).astimezone(self.zone).date().isoformat()

    def name_of(self, first: str, point: Decimal) -> str:
        """Returns what names a document among those of its channel.

        Args:
            first: The id of its first message.
            point: When that was sent.
        """
        return self.day_of(point) if self.kind == DAY else first

    def cut(self, messages: Iterable[T], at: Callable[[T], Decimal]) -> list[list[T]]:
        """Returns the messages of each document, the oldest first.

        Args:
            messages: Messages in any order.
            at: Tells when a message was sent.
        """
        groups: list[list[T]] = []
        before: Decimal | None = None
        for message in sorted(messages, key=at):
            point = at(message)
            if before is None or self._parts(before, point):
                groups.append([])
            groups[-1].append(message)
            before = point
        return groups

    def _parts(self, before: Decimal, point: Decimal) -> bool:
        """Returns whether two messages that follow each other are in two documents."""
        if not self.is_gathered or self.day_of(before) != self.day_of(point):
            return True
        return self.kind == CONVERSATION and point - before >= self.gap


class Gathered(Generic[T]):
    """Cuts messages that come page after page; what may go on in the next page is kept back.

    Args:
        documents: How messages become documents.
        at: Tells when a message was sent.
        newest_first: Whether pages come from the newest to the oldest. The order within a page is
            of no account.
    """

    def __init__(
        self, documents: Documents, at: Callable[[T], Decimal], newest_first: bool
    ) -> None:
        self._documents = documents
        self._at = at
        self._newest_first = newest_first
        self._open: list[T] = []

    def add(self, page: Iterable[T]) -> list[list[T]]:
        """Takes a page, and returns the documents that are whole now."""
        groups = self._documents.cut([*self._open, *page], self._at)
        if not self._documents.is_gathered or not groups:
            return groups
        self._open = groups.pop(0 if self._newest_first else -1)
        return groups

    def rest(self) -> list[list[T]]:
        """Returns the last document, after the last page."""
        groups, self._open = self._documents.cut(self._open, self._at), []
        return groups


@dataclass(frozen=True)
class Said:
    """A message, ready to be written.

    Attributes:
        point: When it was sent, in seconds since 1970.
        author: The name of who wrote it.
        text: Markdown.
        changed: When it was last changed, if it was.
        replies: The replies to it, the oldest first.
    """

    point: Decimal
    author: str
    text: str
    changed: Decimal | None = None
    replies: tuple[Said, ...] = ()

    @property
    def all(self) -> tuple[Said, ...]:
        """The message and its replies."""
        return (self, *self.replies)


def transcript(messages: Sequence[Said], documents: Documents) -> str:
    """Returns messages as one text: `**name** (time): text`, and replies below what they reply to.

    A message alone is its text. The replies of a thread follow its first message; where a document
    holds several threads, they are quoted below theirs.
    """
    if len(messages) == 1:
        (first,) = messages
        if not first.replies:
            return first.text
        return "\n\n".join(_line(one, documents) for one in first.all)
    written: list[str] = []
    for one in messages:
        written.append(_line(one, documents))
        written += [quoted(_line(reply, documents)) for reply in one.replies]
    return "\n\n".join(written)


def metadata_of(messages: Sequence[Said]) -> dict[str, Any]:
    """Returns `author`, `created_at`, and of several messages `participants` and `message_count`.

    The author is who wrote first; participants come in the order in which they did.
    """
    everything = [one for message in messages for one in message.all]
    if not everything:
        return {}
    first = everything[0]
    told: dict[str, Any] = {"author": first.author, "created_at": time_of(first.point).isoformat()}
    if len(everything) > 1:
        told["participants"] = list(dict.fromkeys(one.author for one in everything if one.author))
        told["message_count"] = len(everything)
    return told


def changed_at(messages: Iterable[Said]) -> str | None:
    """Returns when a document was last changed: the latest of its messages and their edits."""
    points = [
        point
        for message in messages
        for one in message.all
        for point in (one.point, one.changed)
        if point is not None
    ]
    return time_of(max(points)).isoformat() if points else None


def title_in(text: str, otherwise: str) -> str:
    """Returns the first words of a text in Markdown as a title, without its marks."""
    for line in text.splitlines():
        words = _MARKS.sub("", _LINK.sub(r"\1", line.lstrip("#>*-+`|_~ \t"))).strip()
        if not words:
            continue
        if len(words) <= _TITLE_LENGTH:
            return words
        cut = words[:_TITLE_LENGTH]
        return f"{cut.rpartition(' ')[0] or cut}..."
    return otherwise


def version_of(*told: Any) -> str:
    """Returns a digest of JSON values, which is another one whenever they are."""
    text = json.dumps(told, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def time_of(point: Decimal) -> datetime:
    """Returns a point as a time in UTC, exact to the microsecond."""
    return _EPOCH + timedelta(microseconds=int(point * 1_000_000))


def point_of_time(time: datetime) -> Decimal:
    """Returns a time as a point, exactly."""
    past = time - _EPOCH
    return Decimal(past.days * 86400 + past.seconds) + Decimal(past.microseconds).scaleb(-6)


def _line(one: Said, documents: Documents) -> str:
    at = time_of(one.point).astimezone(documents.zone).strftime("%Y-%m-%d %H:%M")
    head = f"**{one.author or 'Somebody'}** ({at}):"
    if not one.text:
        return head
    return f"{head}\n\n{one.text}" if one.text.startswith(_BLOCKS) else f"{head} {one.text}"
