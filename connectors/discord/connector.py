"""DiscordConnector: the messages, threads, posts and files of Discord servers.

A run asks each server for its channels and active threads, in three requests. They tell where
something is new. Edits and deletes are told nowhere, so the last two weeks are read again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any, ClassVar

from contextframe_beam import __version__
from contextframe_beam.connectors.attachments import MOST_BYTES, Attachments
from contextframe_beam.connectors.conversations import (
    CONVERSATION,
    MESSAGE,
    THREAD,
    USUAL_GAP,
    Documents,
    point_of_time,
)
from contextframe_beam.connectors.cursors import seconds_of
from contextframe_beam.connectors.discord.bot import Bot
from contextframe_beam.connectors.discord.channels import ChannelReader
from contextframe_beam.connectors.discord.markup import Found
from contextframe_beam.connectors.discord.messages import (
    LeftOutError,
    Messages,
    Step,
    name_of,
    reason_of,
)
from contextframe_beam.connectors.discord.plan import How, Plan
from contextframe_beam.connectors.discord.records import (
    attachment_in,
    file_record,
    holder_in,
    id_of,
    place_of_file,
    record_of,
    where_in,
)
from contextframe_beam.connectors.discord.servers import Servers
from contextframe_beam.connectors.discord.threads import ThreadReader
from contextframe_beam.connectors.files.item import FileItem
from contextframe_beam.connectors.hosted import HostedConnector, HostedFiles, read_alone
from contextframe_beam.connectors.http import HttpError, HttpRequest
from contextframe_beam.connectors.page import DocumentVersion, Page, Partition
from contextframe_beam.errors import ConfigError, RecordError
from contextframe_beam.frames.record import FrameRecord
from contextframe_beam.frames.times import when

_ADDRESS = "https://discord.com/api/v10"
# Discord refuses requests without it.
_AGENT = f"DiscordBot (https://contextframe.org, {__version__})"


@dataclass(frozen=True)
class KeptFile:
    """A file that no parser reads.

    Attributes:
        data: Its bytes; None where they are not kept.
        text: Empty.
        metadata: Empty.
    """

    data: bytes | None
    text: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


class DiscordConnector(HostedConnector):
    """Messages, threads, posts of forums and files of Discord servers.

    It reads as a bot. A record's unique_id is `discord:thread/<id>` for threads and posts, and
    `discord:conversation/<channel>/<first message>`, `discord:message/<channel>/<message>`,
    `discord:day/<channel>/<date>` or `discord:attachment/<id>`.

    Args:
        token: The token of a bot.
        guilds: Servers, by id, name or pattern of names; by default all that the bot is in.
        channels: Channels, by id, name or `category/name`, or by patterns such as `dev-*`; by
            default all.
        exclude: Channels that are left out, in the same way.
        threads: Read threads, and posts of forums and media channels.
        private_threads: Read private threads as well, as far as the bot may.
        document: What a document holds: a `message`, a `conversation` (messages without a pause of
            `gap`), a `thread`, or a `day`. By default a thread or post is one document, and in
            channels a conversation is. With `thread`, a message in a channel is one.
        gap: The pause that ends a conversation.
        time_zone: The zone in which days begin, such as `Europe/Berlin`.
        start: Earlier messages are not read: a date or time.
        edit_window: How long after a message its edits and its deletion are looked for.
        bots: Read messages of bots and webhooks.
        attachments: What becomes of files: `none`, `metadata` (their names, with their message),
            `text` or `bytes`. By default `text` where the parsers of documents are installed.
        max_attachment_bytes: Of larger files only metadata is read.
        requests_per_second: How many requests are sent, by all workers together. Discord allows a
            bot 50.
        max_wait: How many seconds of waiting Discord may ask for, for one request.
        base_url: The address of the API.

    Raises:
        ConfigError: an argument makes no sense.
    """

    identity_args: ClassVar[tuple[str, ...] | None] = (
        *("guilds", "channels", "exclude", "threads", "private_threads"),
    )
    version: ClassVar[str] = "1"
    max_in_flight = 8
    #: Content is waited for most of the time.
    files_at_once = 4
    _maps_by: ClassVar[tuple[str, ...]] = (
        *("attachments", "max_attachment_bytes", "document", "gap", "time_zone", "bots"),
    )

    def __init__(
        self,
        token: str,
        guilds: Sequence[str] = (),
        channels: Sequence[str] = (),
        exclude: Sequence[str] = (),
        threads: bool = True,
        private_threads: bool = False,
        document: str | None = None,
        gap: str = USUAL_GAP,
        time_zone: str = "UTC",
        start: str | None = None,
        edit_window: str = "14d",
        bots: bool = True,
        attachments: str | None = None,
        max_attachment_bytes: int = MOST_BYTES,
        requests_per_second: float = 50,
        max_wait: float = 300,
        base_url: str = _ADDRESS,
    ) -> None:
        super().__init__()
        if not requests_per_second > 0:
            raise ConfigError(f"requests_per_second is {requests_per_second}; give more than 0")
        in_channels = document or CONVERSATION
        in_threads = None
        if document in (None, THREAD):
            in_channels = CONVERSATION if document is None else MESSAGE
        else:
            in_threads = Documents(in_channels, gap, time_zone)
        self._how = How(
            Documents(in_channels, gap, time_zone),
            in_threads,
            Documents(CONVERSATION, gap, time_zone),
            threads,
            private_threads,
            bots,
            Attachments.of(attachments, max_attachment_bytes),
            _duration(edit_window),
            _start(start),
        )
        self.token, self.base_url = token, base_url
        self._http = self.http_client(
            base_url,
            auth={"type": "bearer", "token": token, "prefix": "Bot "},
            headers={"User-Agent": _AGENT},
            budget={"per_second": requests_per_second},
            max_wait=max_wait,
            pool_size=2 * self.max_in_flight,
        )
        self._servers = Servers(
            self._http, _several(guilds), _several(channels), _several(exclude), self.skip
        )
        self._bot = Bot(self._http)
        messages = Messages(self._http, self._how, self._bot)
        channel = ChannelReader(self._http, self._how, messages)
        thread = ThreadReader(self._http, self._how, messages, self.skip)
        self._readers: dict[str, Callable[[Mapping[str, Any]], Iterator[Step]]] = {
            "channel": channel.walk,
            "gone": channel.gone,
            "threads": thread.walk,
        }
        self._files = HostedFiles(self._how.attachments, self._fresh, self.http_client)
        self._walks: dict[str, tuple[int, Iterator[Step]]] = {}
        self._refused: dict[str, HttpError | LeftOutError] = {}
        self._open: set[str] = set()
        self._gates: dict[str, threading.Lock] = {}
        self._began = ""
        self._me: Mapping[str, Any] = {}

    def authenticate(self) -> bool:
        """Asks who the bot is.

        Raises:
            ConfigError: the token is not that of a bot.
            HttpError: Discord does not accept the token.
        """
        kind = str(self.token).partition(" ")
        if kind[1] and kind[0].lower() in ("bot", "bearer"):
            raise ConfigError(
                f"the token begins with {kind[0]!r}; give the token of a bot alone, as the "
                "developer portal shows it"
            )
        self._me = self._bot.me()
        if self._me.get("bot") is False:
            raise ConfigError(
                "the token is that of a person, with which Discord forbids programs to read; give "
                "that of a bot"
            )
        self.authenticated = True
        return True

    def account_id(self) -> str:
        """Returns the id of the bot, unless ids say which servers are read."""
        return "" if self._servers.are_named else str(self._me.get("id") or "")

    def access(self) -> list[str]:
        """Returns the bot, whether it is given content, and its servers with their channels."""
        told = [f"bot {self._me.get('username')}"]
        content = self._bot.reads_content()
        if content is False:
            told.append("no content of messages: the Message Content intent is off")
        for server in self._servers.all():
            reads, lacks = [], []
            for one in self._servers.channels_of(server):
                lacking = self._bot.lacks(server.id, one)
                lacks += [f"not #{one.get('name')}: {lacking}"] if lacking else []
                reads += [] if lacking else [f"#{one.get('name')}"]
            told += [f"server {server.name}: {', '.join(reads) or 'no channel'}", *lacks]
        return told

    def partitions(self, resume_from: Mapping[str, Any] | None = None) -> Iterator[Partition]:
        """Yields the stretches of channels that have something new, and the threads of each.

        Args:
            resume_from: The states that an earlier run left; empty to read everything.

        Raises:
            ConnectorError: the bot is in no server, or Discord refuses it.
        """
        began = point_of_time(datetime.now(timezone.utc))
        plan = Plan(self._how, resume_from or {}, began)
        there: set[str] = set()
        for server in self._servers.all():
            there.update(str(one.get("id")) for one in server.channels)
            yield from plan.partitions(server, list(self._servers.channels_of(server)))
        if self._servers.are_all_read:
            yield from plan.gone(there)

    def fetch_page(self, partition: Partition, cursor: Any) -> Page:
        """Returns a page of a channel, or of the threads of one.

        Args:
            partition: One of `partitions()`.
            cursor: None for the first page, then its number.

        Raises:
            ConnectorError: Discord cannot be asked, or the bot is not given what people write.
        """
        params = partition.params
        self._begin_run(str(params.get("began", "")))
        where = params.get("where")
        channel = where["channel"]["id"] if where else ""
        try:
            page, is_last = self._opened_step(partition, int(cursor or 0), channel)
        except (HttpError, LeftOutError) as error:
            if where is None or (isinstance(error, HttpError) and not error.is_unreadable):
                raise
            return self.skip(name_of(where), reason_of(error))
        page.next_cursor = None if is_last else int(cursor or 0) + 1
        return page

    def document_version(self, item: Any) -> DocumentVersion | None:
        """Returns the id of a file, which never changes; messages come whole and have none."""
        if not self.is_file(item):
            return None
        readers = where_in(item).get("readers")
        return DocumentVersion(id_of(item), item.get("version"), place_of_file(item), readers)

    def is_file(self, item: Any) -> bool:
        """Returns whether an item is a file, which a run parses."""
        return isinstance(item, Mapping) and item.get("kind") == "attachment"

    def own_document(self, item: FileItem, most: int) -> tuple[Any, bytes] | None:
        """Returns what is kept of a file; None for one that a parser makes a document of.

        Args:
            item: The file.
            most: How many bytes it may have.

        Raises:
            GoneError: it is not there any more.
            HttpError: it cannot be had.
        """
        made = self._files.begin(item, most)
        return None if made is None else (KeptFile(made.data), made.content)

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        """Turns an item into a record.

        Raises:
            RecordError: the item is not from this connector, or a file cannot be read.
        """
        if not isinstance(item, Mapping):
            raise RecordError(f"an item of Discord is an object, not {type(item).__name__}")
        if self.is_file(item):
            file = item if isinstance(item, FileItem) else FileItem.of(item)
            if file.document is None:
                read_alone(self, file)
            return file_record(file)
        found = Found()
        record = record_of(item, self._how.channel, found, self._how.thread is None)
        if self._how.attachments.choice == "none":
            record.metadata.pop("attachments", None)
        for form, count in found.unknown.items():
            self._count_unknown(form, count)
        return record

    def source_identity(self, sync_kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns the class, and which servers and channels are read, however that was written."""
        identity = super().source_identity(sync_kwargs)
        arguments = dict(identity["arguments"])
        for name, chosen in self._servers.chosen.items():
            arguments.pop(name, None)
            if chosen:
                arguments[name] = chosen
        return {**identity, "arguments": arguments}

    def _opened_step(self, partition: Partition, number: int, channel: str) -> Step:
        """Returns a page of a walk; until a channel has answered once, it is asked one question.

        Raises:
            HttpError: Discord refuses the channel, or has refused it in this run.
            LeftOutError: it shows no messages.
        """
        if channel in self._open:
            return self._step(partition, number)
        with self._lock:
            gate = self._gates.setdefault(channel, threading.Lock())
        with gate:
            if channel in self._refused:
                raise self._refused[channel]
            try:
                step = self._step(partition, number)
            except (HttpError, LeftOutError) as error:
                if isinstance(error, LeftOutError) or error.is_unreadable:
                    self._refused[channel] = error
                raise
            self._open.add(channel)
            return step

    def _step(self, partition: Partition, number: int) -> Step:
        """Returns the page with a number of a partition's walk."""
        at, walk = self._walks.pop(partition.id, (-1, iter(())))
        if number == 0 or at != number:
            # What another process began is walked anew.
            at, walk = 0, self._readers[partition.params["what"]](partition.params)
        step = next(walk)
        while at < number and not step[1]:
            at, step = at + 1, next(walk)
        if not step[1]:
            self._walks[partition.id] = (at + 1, walk)
        return step

    def _begin_run(self, began: str) -> None:
        """Forgets what an earlier run in this process has learned, once for each run."""
        with self._lock:
            if not began or began == self._began:
                return
            self._began = began
            self._walks.clear()
            self._refused.clear()
            self._open.clear()
            self._gates.clear()
        self._bot.forget()

    def _fresh(self, item: Mapping[str, Any]) -> str | None:
        """Returns an address at which a file can be read now; None where it is gone."""
        holder = holder_in(where_in(item))
        url = f"channels/{holder['id']}/messages/{item['message']}"
        try:
            told = self._http.send(HttpRequest("GET", url)).json()
        except HttpError as error:
            if not error.is_unreadable:
                raise
            return None
        identifier = str(item["id"]).rpartition("/")[2]
        return attachment_in(told, identifier) if isinstance(told, Mapping) else None


def _duration(text: str) -> Decimal:
    try:
        return Decimal(str(seconds_of(text)))
    except ValueError as error:
        raise ConfigError(f"edit_window: {error}") from None


def _start(text: str | None) -> Decimal | None:
    if text is None:
        return None
    found = when(str(text))
    if found is None:
        raise ConfigError(f"start is {text!r}; give a date or time such as 2026-01-31")
    return point_of_time(found)


def _several(given: Sequence[str] | str) -> list[str]:
    return [given] if isinstance(given, str) else [str(one) for one in given]
