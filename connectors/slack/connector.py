"""SlackConnector: messages, threads and files of the channels of a workspace of Slack.

A run lists the last weeks of each channel, which costs a request for each two hundred messages.
Replies and files are fetched afterwards, and only where the dataset does not hold them in the
version that the list tells.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, ClassVar
from urllib.parse import urlsplit

from contextframe_beam.connectors.attachments import MOST_BYTES, Attachments, media_type
from contextframe_beam.connectors.conversations import (
    CONVERSATION,
    THREAD,
    USUAL_GAP,
    Documents,
    point_of_time,
)
from contextframe_beam.connectors.cursors import seconds_of
from contextframe_beam.connectors.files.item import FileItem, GoneError
from contextframe_beam.connectors.hosted import HostedConnector, HostedFiles
from contextframe_beam.connectors.http.auth import token_or_refresh
from contextframe_beam.connectors.http.client import HttpClient
from contextframe_beam.connectors.http.request import origin_of
from contextframe_beam.connectors.page import DocumentVersion, Page, Partition
from contextframe_beam.connectors.slack.api import SlackApi, SlackError
from contextframe_beam.connectors.slack.channels import (
    DIRECT,
    GROUP,
    PRIVATE,
    PUBLIC,
    Choice,
    Team,
    found_channels,
    kind_of,
    label_of,
    shared_with,
)
from contextframe_beam.connectors.slack.items import (
    ATTACHMENT,
    GONE,
    id_of_item,
    metadata_of_file,
    place_of_item,
    readers_of_item,
)
from contextframe_beam.connectors.slack.limits import HISTORY, INTERNAL, Limits
from contextframe_beam.connectors.slack.listing import Listing, Reading
from contextframe_beam.connectors.slack.mrkdwn import text_in
from contextframe_beam.connectors.slack.people import People
from contextframe_beam.connectors.slack.reading import ConversationReader, SlackDocument
from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.record import Deletion, FrameRecord
from contextframe_beam.frames.times import when

_ADDRESS = "https://slack.com/api/"
# A run that takes longer says so where nobody asks for more messages.
_LONG_MINUTES = 10
_HTML = (b"<!doctype html", b"<html")
_PREFIXES = {PUBLIC: "channels", PRIVATE: "groups", GROUP: "mpim", DIRECT: "im"}
_READERS = ("members", "channel")
# What an item has beside that which is read of it.
_NEEDS = (
    "Slack needs the token of an app (token, best as env:SLACK_TOKEN), or client_id, "
    "client_secret and refresh_token where tokens rotate"
)


class SlackConnector(HostedConnector):
    """Messages, threads and files of the channels of a Slack workspace.

    A record's unique_id is `slack:<channel>/<ts>` for a message, a thread or a conversation,
    `slack:<channel>/<day>` for a day, and `slack:file/<channel>/<file>` for a file.

    Args:
        token: The token of a bot (xoxb-) or a person (xoxp-).
        client_id: Instead of a token, where tokens rotate: the id of the app.
        client_secret: Its secret.
        refresh_token: Its refresh token (xoxe-), best in a file, since each renewal changes it.
        team: The id of the workspace, such as `T0123ABCD`, where a dataset holds several; the token
            of another one is refused.
        channels: Ids, names, or patterns of names such as `eng-*`; all that the app is in by
            default.
        exclude: Channels to leave out, in the same way.
        types: Types of channels: `public_channel`, `private_channel`, `mpim` (group messages) and
            `im` (direct messages).
        archived: Read archived channels as well.
        join: Join public channels that the app is not in.
        document: What one document holds: a `thread`, a `message`, a `conversation` without a long
            pause, or a `day`. By default a thread in channels, and a conversation in direct
            messages.
        gap: The pause that ends a conversation.
        time_zone: The zone whose days count, such as `Europe/Berlin`.
        start: The date or time of the first message that is read.
        thread_window: How long before the end of a channel a run looks again for replies, edits
            and deletes.
        replies: Read the replies of threads, a request for each thread.
        bots: Read messages of bots as well.
        readers: Who may read what is in a private channel: its `members` by address, or the
            `channel` as a whole, which saves reading it again when somebody joins or leaves.
        attachments: What becomes of files: `none`, `metadata` (their names, with their message),
            `text` or `bytes`. By default `text` where the parsers of documents are installed.
        max_attachment_bytes: Of larger files only metadata is read.
        app: `internal` for an app of your own workspace or of Slack's marketplace; `unlisted` for
            one that is distributed in another way, which Slack answers once a minute, with 15
            messages.
        page_size: How many messages one request asks for; by default 200, or 15 if unlisted.
        requests_per_minute: How often each method is called; by default as often as its tier
            allows.
        max_wait: How many seconds of waiting Slack may ask for, for one request.
        base_url: The address of the API.

    Raises:
        ConfigError: an argument makes no sense, or there are no credentials.
    """

    identity_args: ClassVar[tuple[str, ...] | None] = (
        *("base_url", "team", "channels", "exclude", "types", "archived", "start"),
    )
    version: ClassVar[str] = "1"
    max_in_flight = 4
    #: Replies are waited for most of the time.
    files_at_once = 4
    _maps_by: ClassVar[tuple[str, ...]] = (
        *("document", "gap", "time_zone", "replies", "bots"),
        *("attachments", "max_attachment_bytes"),
    )

    def __init__(
        self,
        token: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        refresh_token: str | None = None,
        team: str | None = None,
        channels: Sequence[str] = (),
        exclude: Sequence[str] = (),
        types: Sequence[str] = (PUBLIC, PRIVATE),
        archived: bool = True,
        join: bool = False,
        document: str | None = None,
        gap: str = USUAL_GAP,
        time_zone: str = "UTC",
        start: str | None = None,
        thread_window: str = "30d",
        replies: bool = True,
        bots: bool = True,
        readers: str = "members",
        attachments: str | None = None,
        max_attachment_bytes: int = MOST_BYTES,
        app: str = INTERNAL,
        page_size: int | None = None,
        requests_per_minute: float | None = None,
        max_wait: float = 300,
        base_url: str = _ADDRESS,
    ) -> None:
        super().__init__()
        self._choice = Choice(
            _several(channels), _several(exclude), _several(types), archived, join
        )
        if readers not in _READERS:
            raise ConfigError(f"readers is {readers!r}; it is one of {', '.join(_READERS)}")
        self.readers, self.team = readers, team
        in_channels = Documents(document or THREAD, gap, time_zone)
        in_messages = Documents(document or CONVERSATION, gap, time_zone)
        self._attachments = Attachments.of(attachments, max_attachment_bytes)
        self._limits = Limits.of(app, page_size, requests_per_minute)
        self._how = Reading(
            lambda kind: in_messages if kind in (GROUP, DIRECT) else in_channels,
            _duration(thread_window),
            _point(start),
            replies,
            bots,
            self._attachments.choice in ("text", "bytes"),
            False,
            self._limits,
        )
        base_url = base_url.rstrip("/") + "/"
        self.token, self.client_id, self.base_url = token, client_id, base_url
        self._http = self.http_client(
            base_url,
            auth=token_or_refresh(
                _NEEDS,
                *(token, client_id, client_secret, refresh_token),
                token_url=f"{base_url}oauth.v2.access",
                client_auth="post",
                rotates=True,
            ),
            budget=self._limits.budget(_account(base_url, token, refresh_token)),
            max_wait=max_wait,
        )
        self._api = SlackApi(self._http)
        self._people = People(self._api, lambda told: self.logger.warning("slack: %s", told))
        self._files = HostedFiles(self._attachments, self._address, self._client_of_files)
        self._team = Team("", "", "", True)
        self._scopes: list[str] = []
        self._began = ""
        self._begin_reading(self._how)

    def account_id(self) -> str:
        """Returns the id of the workspace, which the token alone says."""
        return self._team.id

    def authenticate(self) -> bool:
        """Asks which workspace the token belongs to, and what it may do.

        Raises:
            SlackError: Slack does not accept the token.
            ConfigError: it is the token of another workspace.
        """
        told, self._scopes = self._api.answer("auth.test")
        url = text_in(told, "url")
        self._team = Team(
            text_in(told, "team_id"),
            text_in(told, "team"),
            url if url.endswith("/") else f"{url}/",
            bool(text_in(told, "bot_id")),
        )
        if self.team is not None and self.team != self._team.id:
            raise ConfigError(
                f"the token is of the workspace {self._team.name} ({self._team.id}), and team is "
                f"{self.team}"
            )
        if self._how.has_files and self._scopes and "files:read" not in self._scopes:
            self._begin_reading(replace(self._how, has_files=False, keeps_files=True))
        self.authenticated = True
        return True

    def access(self) -> list[str]:
        """Returns the workspace, the scopes that it lacks, the channels, and how long it takes."""
        team = self._team
        whose = "a bot" if team.is_bot else "a person"
        told = [f"{team.name} ({team.id}, {team.url}), with the token of {whose}"]
        missing = [one for one in self._needed() if self._scopes and one not in self._scopes]
        if missing:
            told.append(f"scopes that are missing: {', '.join(missing)}")
        channels = list(found_channels(self._api, self._choice, team, self.skip))
        told.append(self._limits.estimate(len(channels)))
        told.append(
            f"later runs see replies to messages of the last {self._how.window.days} days; "
            "--full reads all of them"
        )
        for one in channels:
            archived = ", archived" if one.get("is_archived") is True else ""
            told.append(f"{label_of(one)} ({kind_of(one).replace('_', ' ')}{archived})")
        return told

    def partitions(
        self,
        since: str | None = None,
        until: str | None = None,
        resume_from: Mapping[str, Any] | None = None,
    ) -> Iterator[Partition]:
        """Yields a partition for each channel.

        Args:
            since: The time of the first message, of a run that reads a stretch only.
            until: The time before which its messages are.
            resume_from: The states that an earlier run left; empty to read everything.

        Raises:
            SlackError: Slack refuses the token.
        """
        began = self._api.now.isoformat()
        self._begin_run(began)
        if self._how.keeps_files:
            self.skip(
                "files",
                "the app lacks the scope files:read; give it that, or set attachments to metadata",
            )
        states = resume_from or {}
        bounds = _point(since), _point(until)
        channels = list(
            found_channels(self._api, self._choice, self._team, self.skip, states or None)
        )
        self._people.remember({str(one["id"]): text_in(one, "name") for one in channels})
        recent = [state.get("recent") for state in states.values() if isinstance(state, Mapping)]
        pages = sum(-(-int(one) // self._limits.messages) or 1 for one in recent if one is not None)
        least = self._limits.minutes({HISTORY: pages or len(channels)})
        level = logging.WARNING if least >= _LONG_MINUTES else logging.INFO
        self.logger.log(level, "slack: %s", self._limits.estimate(len(channels), pages))
        by_member = self.readers == "members"
        for one in channels:
            state = states.get(str(one["id"]))
            state = state if isinstance(state, Mapping) else {}
            shared = shared_with(one, self._team, self._people, by_member, state)
            channel: dict[str, Any] = {
                "id": str(one["id"]),
                "label": str(state.get("label") or self._label(one)),
                "kind": kind_of(one),
                "url": self._team.url,
                "readers": shared.readers,
            }
            kept = {"members": shared.members}
            if channel["kind"] == DIRECT:
                kept["label"] = str(channel["label"])
            yield self._listing.partition(channel, state, bounds, kept, began)

    def fetch_page(self, partition: Partition, cursor: Any) -> Page:
        """Returns the documents of up to two hundred messages, without their replies.

        Args:
            partition: One of `partitions()`.
            cursor: None for the first answer, then that of the answer before.

        Raises:
            SlackError: Slack refuses the token.
        """
        self._begin_run(str(partition.params["began"]))
        try:
            return self._listing.page(partition, cursor)
        except SlackError as error:
            if not error.is_unreadable:
                raise
            return self.skip(str(partition.params["channel"]["label"]), error)

    def sync_documents_stream(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """Yields all documents with their replies, and what belongs to each after it."""
        for item in super().sync_documents_stream():
            assert isinstance(item, FileItem)
            try:
                item.document = self._reader.read(item)
            except GoneError:
                continue
            yield item
            yield from item.parts

    def document_version(self, item: Any) -> DocumentVersion | None:
        """Returns the id of the document that an item is, and what its list tells of it."""
        version = item.get("version")
        return DocumentVersion(
            id_of_item(item),
            version if isinstance(version, str) else None,
            place_of_item(item),
            readers_of_item(item),
        )

    def own_document(self, item: FileItem, most: int) -> tuple[Any, bytes] | None:
        """Returns what an item becomes; None for a file that a parser makes a document of.

        Args:
            item: The item.
            most: How many bytes a file may have.

        Raises:
            GoneError: it is not there any more.
            HttpError: Slack refuses it.
        """
        if item.get("kind") != ATTACHMENT:
            document = self._reader.read(item)
            return document, document.content
        made = self._files.begin(item, most)
        if made is None:
            self._require_file(item, self._files.head(item, 512))
            return None
        self._require_file(item, made.data or b"")
        return SlackDocument("", data=made.data), made.content

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord | Deletion:
        """Turns an item into a record, and a message that is gone into its deletion.

        Raises:
            RecordError: the item is not from this connector.
            ContextFrameError: outside of a run, where it is read here: it cannot be.
        """
        if not isinstance(item, FileItem):
            item = FileItem.of(item)
        unique_id = id_of_item(item)
        if item.document is None:
            self._read_alone(item)
        if item["kind"] == GONE:
            return Deletion(unique_id)
        channel, document = item["channel"], item.document
        is_file = item["kind"] == ATTACHMENT
        metadata = metadata_of_file(item, document.metadata) if is_file else dict(document.metadata)
        metadata |= {
            "collection": channel["label"],
            "collection_id": channel["id"],
            "source": "slack",
            "kind": item["kind"],
        }
        data = getattr(document, "data", None)
        changed = item.get("modified_at") if is_file else document.timestamp
        return FrameRecord(
            document.text,
            metadata,
            "document",
            unique_id,
            changed if isinstance(changed, str) else None,
            raw_data=data,
            raw_data_type=None if data is None else item["type"] or media_type(str(item["name"])),
            place=place_of_item(item),
            readers=readers_of_item(item),
        )

    def source_identity(self, sync_kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns the class, and which channels are read, in whatever order they were named."""
        identity = super().source_identity(sync_kwargs)
        identity["arguments"] = {
            name: sorted(one) if isinstance(one, list) else one
            for name, one in identity["arguments"].items()
        }
        return identity

    def _begin_run(self, began: str) -> None:
        """Forgets what an earlier run in this process has learned, once for each run."""
        with self._lock:
            if began == self._began:
                return
            self._began = began
        self._people.forget()
        self._alone.clear()

    def _begin_reading(self, how: Reading) -> None:
        """Makes what reads channels and threads in this way."""
        self._how = how
        self._listing = Listing(self._api, how, self._count_system)
        self._reader = ConversationReader(
            self._api,
            self._people,
            how,
            self._attachments,
            self._is_own_address,
            self._count_unknown,
            self.skip,
        )

    def _needed(self) -> list[str]:
        """Returns the scopes that reading needs."""
        kinds = [_PREFIXES[one] for one in self._choice.types]
        files = ["files:read"] if self._attachments.choice in ("text", "bytes") else []
        reads = [f"{kind}:{what}" for kind in kinds for what in ("read", "history")]
        join = ["channels:join"] if self._choice.join else []
        return [*reads, "users:read", "users:read.email", *files, *join]

    def _label(self, channel: Mapping[str, Any]) -> str:
        """Returns what people call a channel; of direct messages, with whom they are."""
        if kind_of(channel) != DIRECT:
            return label_of(channel)
        user = text_in(channel, "user")
        return f"@{self._people.user(user) or user}"

    def _is_own_address(self, address: str) -> bool:
        """Returns whether a file is at Slack, which alone gets the token."""
        try:
            parts = urlsplit(address)
            host = parts.hostname or ""
        except ValueError:
            return False
        if address and origin_of(address) == self._http.origin:
            return True
        return parts.scheme == "https" and host.endswith((".slack.com", ".slack-gov.com"))

    def _client_of_files(self, origin: str, **settings: Any) -> HttpClient:
        """Returns a client of a host of files, which signs with the same token."""
        ours = {origin_of(self._team.url)} if self._team.url.startswith("http") else set()
        client = self.http_client(origin, allowed_origins=ours, **settings)
        if self._is_own_address(origin):
            client.auth = self._http.auth
        return client

    def _address(self, item: Mapping[str, Any]) -> str | None:
        return self._reader.address(item)

    def _require_file(self, item: FileItem, head: bytes) -> None:
        """Refuses the page on which people sign in, which stands in the place of a file.

        Raises:
            SlackError: it is that page.
        """
        is_page = head[:512].lstrip().lower().startswith(_HTML)
        if is_page and "html" not in f"{item.get('type')} {item.get('name')}".lower():
            raise SlackError(
                f"{item.get('name')}: Slack gave its page to sign in and no file; the app needs "
                "the scope files:read",
                "missing_scope",
                "files:read",
            )

    def _count_system(self, count: int) -> None:
        with self._lock:
            self.add_stats(system_messages=count)


def _account(base_url: str, token: str | None, refresh_token: str | None) -> str:
    """Returns what tells an app in a workspace from others, by the reference to its token."""
    told = "".join(str.__str__(one) for one in (token, refresh_token) if one is not None)
    return hashlib.blake2b(f"{base_url} {told}".encode(), digest_size=8).hexdigest()


def _duration(text: str) -> timedelta:
    try:
        return timedelta(seconds=seconds_of(text))
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"thread_window: {error}") from None


def _point(text: str | None) -> Decimal | None:
    if text is None:
        return None
    time = when(str(text))
    if time is None:
        raise ConfigError(f"start is {text!r}; give a date or a time such as 2026-01-31")
    return point_of_time(time)


def _several(given: Sequence[str] | str) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)
