"""What is asked of Slack for one document, and what the document becomes.

A document is made of the messages of a list, and of the replies to them, which are asked for here.
Files, and replies that are documents of their own, are its parts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from contextframe_beam.connectors.attachments import Attachments
from contextframe_beam.connectors.conversations import (
    DAY,
    MESSAGE,
    Said,
    changed_at,
    metadata_of,
    title_in,
    transcript,
)
from contextframe_beam.connectors.files.item import FileItem, GoneError
from contextframe_beam.connectors.slack.api import SlackApi, SlackError
from contextframe_beam.connectors.slack.blocks import (
    WITHOUT_CONTENT,
    file_name,
    message_to_markdown,
)
from contextframe_beam.connectors.slack.items import ATTACHMENT, GONE, parts_of
from contextframe_beam.connectors.slack.listing import WHOLE, Reading
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
    version_of_file,
    version_of_messages,
)
from contextframe_beam.connectors.slack.mrkdwn import Found, text_in
from contextframe_beam.connectors.slack.people import People
from contextframe_beam.errors import RecordError
from contextframe_beam.frames.place import Window


@dataclass(frozen=True)
class SlackDocument:
    """What messages or a file become.

    Attributes:
        text: Markdown.
        metadata: What is said of it, with its relationships.
        timestamp: When it was last changed.
        data: The bytes of a file.
    """

    text: str
    metadata: dict[str, Any] = field(default_factory=dict)
    timestamp: str | None = None
    data: bytes | None = None

    @property
    def content(self) -> bytes:
        """Bytes that differ whenever the document does, but for its file."""
        told = json.dumps([self.text, self.metadata, self.timestamp], sort_keys=True, default=str)
        return told.encode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class _Thread:
    """A message that counts, if it does, with its replies that do."""

    root: dict[str, Any]
    shown: tuple[dict[str, Any], ...]
    replies: tuple[dict[str, Any], ...]

    @property
    def all(self) -> tuple[dict[str, Any], ...]:
        return (*self.shown, *self.replies)


class ConversationReader:
    """Reads one document at a time, from any thread.

    Args:
        api: Asks Slack.
        people: Tells names.
        how: How channels are read.
        attachments: What becomes of files.
        has_source: Says of the address of a file whether Slack itself has it.
        count_unknown: Is told of each form that is not known, and how often it occurred.
        skip: Is told of a thread that is gone, and why.
    """

    def __init__(
        self,
        api: SlackApi,
        people: People,
        how: Reading,
        attachments: Attachments,
        has_source: Callable[[str], bool],
        count_unknown: Callable[[str, int], None],
        skip: Callable[[str, object], object],
    ) -> None:
        self._api = api
        self._people = people
        self._how = how
        self._attachments = attachments
        self._has_source = has_source
        self._count_unknown = count_unknown
        self._skip = skip

    def read(self, item: FileItem) -> SlackDocument:
        """Reads what an item is, and sets its parts.

        Raises:
            GoneError: it is not there any more.
            RecordError: the item is not one that the connector gave.
            SlackError: it cannot be read.
        """
        channel, messages = item["channel"], _messages_in(item)
        if not messages:
            raise RecordError("the item has no messages; give one that this connector gave")
        kind, is_part = item.get("kind"), item.get("is_part") is True
        threads = [self._thread(channel, one, is_part) for one in messages]
        if not is_part:
            self._set_parts(item, channel, threads, has_replies=kind in (MESSAGE, GONE))
        if kind in (MESSAGE, GONE):
            threads = [_Thread(one.root, one.shown, ()) for one in threads]
        return self._document(item, channel, threads)

    def address(self, item: Mapping[str, Any]) -> str | None:
        """Returns the address of a file, asked for again; None where it is gone."""
        try:
            told = self._api.call("files.info", file=text_in(item, "file")).get("file")
        except SlackError as error:
            if not error.is_unreadable or error.code == "missing_scope":
                raise
            return None
        return (_source_of(told) or None) if isinstance(told, Mapping) else None

    def _thread(self, channel: Mapping[str, Any], root: dict[str, Any], is_part: bool) -> _Thread:
        """Returns a message with its replies, which are asked for."""
        ts = ts_of(root)
        if is_part or not self._how.replies or not replies_of(root) or thread_of(root) is not None:
            return _Thread(root, (root,), ())
        try:
            found = self._api.thread(str(channel["id"]), ts, self._how.limits.messages)
        except SlackError as error:
            if not error.is_unreadable:
                raise
            name = f"{channel['label']}: thread {ts}"
            self._skip(name, error)
            raise GoneError(f"{name}: {error}") from error
        root = next((cleaned(one) for one in found if ts_of(one) == ts), root)
        replies = [
            cleaned(one)
            for one in found
            if ts_of(one) != ts and point_of_ts(ts_of(one)) is not None and not self._is_out(one)
        ]
        shown = () if self._is_out(root) else (root,)
        return _Thread(root, shown, tuple(sorted(replies, key=at)))

    def _is_out(self, message: Mapping[str, Any]) -> bool:
        is_left_out = is_system(message) or (is_of_bot(message) and not self._how.bots)
        return is_left_out or is_tombstone(message)

    def _document(
        self, item: FileItem, channel: Mapping[str, Any], threads: Sequence[_Thread]
    ) -> SlackDocument:
        found = Found()
        documents = self._how.documents(channel["kind"])
        said = [one for thread in threads for one in self._said(thread, found)]
        text = transcript(said, documents)
        first = threads[0].root
        everything = [one for thread in threads for one in thread.all]
        label = str(channel["label"])
        name = f"{label}, {documents.day_of(at(first))}" if documents.kind == DAY else label
        title = name if documents.kind == DAY else title_in(said[0].text if said else "", name)
        own = f"slack:{item['path']}"
        metadata = {
            "title": title,
            **metadata_of(said),
            "uri": _opened(channel, first),
            "edited": True if any(one.get("edited") for one in everything) else None,
            **_reactions(everything),
            "attachments": [_file_told(one) for message in everything for one in files_of(message)],
            "relationships": self._relationships(own, channel, first, everything, found),
        }
        for form, count in found.unknown.items():
            self._count_unknown(form, count)
        filled = {name: one for name, one in metadata.items() if one not in (None, "", [], {})}
        return SlackDocument(text, filled, changed_at(said) or item.get("modified_at"))

    def _said(self, thread: _Thread, found: Found) -> Iterator[Said]:
        """Yields a message with its replies; without the message where that does not count."""
        replies = tuple(self._one_said(one, found) for one in thread.replies)
        shown = [self._one_said(one, found) for one in thread.shown]
        if not shown and replies:
            shown, replies = [replies[0]], replies[1:]
        for one in shown:
            yield Said(one.point, one.author, one.text, one.changed, replies)

    def _one_said(self, message: Mapping[str, Any], found: Found) -> Said:
        edited = message.get("edited")
        changed = point_of_ts(text_in(edited, "ts")) if isinstance(edited, Mapping) else None
        text = message_to_markdown(message, self._people, found)
        return Said(at(message), self._author(message), text, changed)

    def _author(self, message: Mapping[str, Any]) -> str:
        profile = message.get("bot_profile")
        told = text_in(profile, "name") if isinstance(profile, Mapping) else ""
        name, user = text_in(message, "username") or told, text_in(message, "user")
        if not name and user:
            name = self._people.user(user) or user
        return name or text_in(message, "bot_id")

    def _relationships(
        self,
        own: str,
        channel: Mapping[str, Any],
        first: Mapping[str, Any],
        messages: Sequence[Mapping[str, Any]],
        found: Found,
    ) -> list[dict[str, Any]]:
        thread = thread_of(first)
        parents = [f"slack:{channel['id']}/{thread}"] if thread is not None else []
        files = [
            _id_of_file(channel, one)
            for message in messages
            for one in files_of(message)
            if self._how_of(one) in ("text", "bytes")
        ]
        references = [one for one in found.references if one not in (own, *parents)]
        return [
            *({"relationship_type": "parent", "target_id": one} for one in parents),
            *(
                {"relationship_type": "reference", "target_id": one}
                for one in dict.fromkeys((*references, *files))
            ),
            *(
                {"relationship_type": "mentions", "target_id": f"slack:{_kind_of(one)}/{one}"}
                for one in found.mentions
            ),
        ]

    def _set_parts(
        self,
        item: FileItem,
        channel: Mapping[str, Any],
        threads: Sequence[_Thread],
        has_replies: bool,
    ) -> None:
        place = parts_of(str(channel["id"]))
        for thread in threads:
            ts = ts_of(thread.root)
            for reply in thread.replies if has_replies else ():
                # One that was shown in the channel as well was listed there.
                if reply.get("subtype") != "thread_broadcast":
                    item.parts.append(_reply_item(channel, reply, ts))
            for message in thread.all:
                parent = f"{channel['id']}/{ts_of(message)}" if has_replies else str(item["path"])
                item.parts += self._file_items(channel, message, ts, parent)
            if item.handle != WHOLE and not self._how.keeps_files:
                # All that belongs to the message is known now, so that other parts are gone.
                item.windows.append(Window(place, ts, ts))

    def _file_items(
        self, channel: Mapping[str, Any], message: Mapping[str, Any], root: str, parent: str
    ) -> Iterator[FileItem]:
        for told in files_of(message):
            how = self._how_of(told)
            if how not in ("text", "bytes"):
                continue
            name, identifier = file_name(told), text_in(told, "id")
            yield FileItem(
                f"{channel['id']}/files/{identifier}/{name}",
                told.get("size") if isinstance(told.get("size"), int) else None,
                changed_at([Said(at(message), "", "")]),
                _source_of(told),
                kind=ATTACHMENT,
                id=_id_of_file(channel, told),
                file=identifier,
                how=how,
                name=name,
                type=text_in(told, "mimetype"),
                title=text_in(told, "title"),
                author=self._author(told),
                uri=text_in(told, "permalink"),
                # A conversation may get another first message, which names it.
                version=version_of_file(told, parent),
                channel=dict(channel),
                point=root,
                parent=parent,
            )

    def _how_of(self, told: Mapping[str, Any]) -> str | None:
        """Returns how a file is read; only its name is kept where Slack does not have it."""
        size = told.get("size")
        how = self._attachments.of_file(file_name(told), size if isinstance(size, int) else None)
        is_there = text_in(told, "mode") not in WITHOUT_CONTENT and self._how.has_files
        is_own = told.get("is_external") is not True and self._has_source(_source_of(told))
        return how if how is None or (is_there and is_own) else "metadata"


def _kind_of(identifier: str) -> str:
    """Returns what an id that is mentioned names: a person, or a group of people."""
    return "group" if identifier.startswith("S") else "user"


def _reply_item(channel: Mapping[str, Any], reply: dict[str, Any], root: str) -> FileItem:
    """Returns a reply as a document of its own, which needs no further request."""
    return FileItem(
        f"{channel['id']}/{ts_of(reply)}",
        modified_at=changed_at([Said(at(reply), "", "")]),
        kind=MESSAGE,
        channel=dict(channel),
        point=root,
        is_part=True,
        messages=json.dumps([reply], separators=(",", ":")),
        version=version_of_messages([reply]),
    )


def _messages_in(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    told = item.get("messages")
    try:
        found = json.loads(told) if isinstance(told, str) else told
    except ValueError:
        return []
    return [
        one
        for one in (found if isinstance(found, list) else ())
        if isinstance(one, dict) and point_of_ts(ts_of(one)) is not None
    ]


def _opened(channel: Mapping[str, Any], message: Mapping[str, Any]) -> str:
    """Returns the address at which a person opens a message."""
    url = f"{channel['url']}archives/{channel['id']}/p{ts_of(message).replace('.', '')}"
    thread = thread_of(message)
    return url if thread is None else f"{url}?thread_ts={thread}&cid={channel['id']}"


def _reactions(messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns reactions by name, as tags and with how often each was given."""
    counts: dict[str, int] = {}
    for message in messages:
        told = message.get("reactions")
        for one in told if isinstance(told, list) else ():
            if isinstance(one, Mapping) and text_in(one, "name"):
                count = one.get("count")
                name = text_in(one, "name")
                counts[name] = counts.get(name, 0) + (int(count) if isinstance(count, int) else 1)
    return {"tags": list(counts), "reactions": counts}


def _file_told(told: Mapping[str, Any]) -> dict[str, Any]:
    known = {
        "id": told.get("id"),
        "name": file_name(told),
        "type": told.get("mimetype"),
        "size": told.get("size"),
        "uri": told.get("permalink"),
        "mode": told.get("mode") if told.get("mode") in WITHOUT_CONTENT else None,
    }
    return {name: one for name, one in known.items() if one is not None}


def _id_of_file(channel: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    # A file may be shared in several channels, which others may read.
    return f"slack:file/{channel['id']}/{text_in(told, 'id')}"


def _source_of(told: Mapping[str, Any]) -> str:
    return text_in(told, "url_private_download") or text_in(told, "url_private")
