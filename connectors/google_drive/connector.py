"""GoogleDriveConnector: files, documents of the editors and comments of Google Drive.

The first run lists folders, and the files of some folders together. Later runs read the feeds of
changes. Content is fetched afterwards, and only of what the dataset does not hold in that version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, ClassVar

from contextframe_beam.connectors.attachments import Attachments
from contextframe_beam.connectors.files.item import FileItem, GoneError
from contextframe_beam.connectors.google_drive.account import Account, Clients, DriveError, judged
from contextframe_beam.connectors.google_drive.arguments import auth_of, choice_of, several
from contextframe_beam.connectors.google_drive.changes import FeedRun
from contextframe_beam.connectors.google_drive.content import Contents
from contextframe_beam.connectors.google_drive.feeds import Feeds, feed_in
from contextframe_beam.connectors.google_drive.folders import MOST_TEXT, SHARED, Folders, Wanted
from contextframe_beam.connectors.google_drive.items import Feed, Spot, Taken
from contextframe_beam.connectors.google_drive.listing import FOLDERS_TOGETHER, Listing
from contextframe_beam.connectors.google_drive.records import (
    comment_record,
    file_record,
    id_of,
    place_of,
)
from contextframe_beam.connectors.hosted import HostedConnector
from contextframe_beam.connectors.http.request import origin_of
from contextframe_beam.connectors.page import DocumentVersion, Page, Partition, Window
from contextframe_beam.errors import ConfigError, RecordError
from contextframe_beam.frames.record import Deletion, FrameRecord

#: Larger files are told by their metadata.
MOST_BYTES = 50 << 20

_DRIVE, _SHEETS, _SLIDES, _LINKS = (
    f"https://{name}.com"
    for name in ("www.googleapis", "sheets.googleapis", "slides.googleapis", "docs.google")
)
_EXPORTS = ("markdown", "text", "office")
_COMMENTS = ("documents", "inline", "none")
# Google allows an account that many requests a minute of each of its APIs.
_PER_MINUTE = 12_000
_SHEETS_PER_MINUTE, _SLIDES_PER_MINUTE = 60, 600
_MADE_BY = ("made_with", "account")
# A listing is cut into so many partitions at most.
_MOST_PARTS = 64


class GoogleDriveConnector(HostedConnector):
    """Files, documents, spreadsheets, presentations and comments of Google Drive.

    A record's unique_id is `google-drive:file/<id>`, or `google-drive:comment/<file>/<comment>`.
    Without folders and drives it reads all that the account sees.

    Args:
        credentials: The JSON of a service account's key or of an authorized user, or the path of
            its file; the application default credentials of the machine by default.
        subject: Whom a service account acts for (domain-wide delegation).
        subjects: Several of them, whose Drives are all read.
        client_id: Instead of credentials: the id of an OAuth client.
        client_secret: Its secret.
        refresh_token: The refresh token of a person who agreed.
        folders: Ids or addresses of folders, which are read with all below them.
        drives: Ids or addresses of shared drives, or `all`.
        my_drive: Read what the account owns.
        shared_with_me: Read what was shared with the account.
        query: What files have to meet besides, as in `modifiedTime > '2025-01-01'`.
        include: Patterns of paths below the folders, as in `guide/**` or `**/*.pdf`.
        exclude: What is left out: names, or paths where a pattern has a slash.
        mime_types: Only files of these media types.
        export: What documents of the editors become: `markdown`, `text`, or `office` files that
            the parsers of documents read.
        comments: `documents` makes a document of each comment, `inline` puts them below the text,
            `none` leaves them out.
        attachments: What becomes of files that are no documents of the editors: `none`, `metadata`,
            `text` or `bytes`. By default `text` where the parsers of documents are installed.
        max_file_bytes: Of larger files only metadata is read.
        permissions: Ask who may read each file, and store it as its readers.
        acknowledge_abuse: Download files that Google takes for malware as well.
        quota_project: The project whose quota is used.
        requests_per_minute: How many requests are sent to Drive for each account, by all workers
            together.
        max_wait: How many seconds of waiting for limits one request may take.
        max_in_flight: How many requests one process keeps open.
        base_url: The address of the APIs, if it is another one than Google's.

    Raises:
        ConfigError: an argument makes no sense.
    """

    identity_args: ClassVar[tuple[str, ...] | None] = (
        *("subject", "subjects", "folders", "drives", "my_drive", "shared_with_me", "query"),
        *("include", "exclude", "mime_types"),
    )
    version: ClassVar[str] = "1"
    _maps_by: ClassVar[tuple[str, ...]] = (
        *("export", "comments", "attachments", "max_file_bytes", "permissions"),
        "acknowledge_abuse",
    )

    def __init__(
        self,
        credentials: str | None = None,
        subject: str | None = None,
        subjects: Sequence[str] = (),
        client_id: str | None = None,
        client_secret: str | None = None,
        refresh_token: str | None = None,
        folders: Sequence[str] = (),
        drives: Sequence[str] = (),
        my_drive: bool = False,
        shared_with_me: bool = False,
        query: str = "",
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        mime_types: Sequence[str] = (),
        export: str = "markdown",
        comments: str = "documents",
        attachments: str | None = None,
        max_file_bytes: int = MOST_BYTES,
        permissions: bool = False,
        acknowledge_abuse: bool = False,
        quota_project: str | None = None,
        requests_per_minute: float = _PER_MINUTE,
        max_wait: float = 300,
        max_in_flight: int = 8,
        base_url: str | None = None,
    ) -> None:
        super().__init__()
        for name, value, known in (("export", export, _EXPORTS), ("comments", comments, _COMMENTS)):
            if value not in known:
                raise ConfigError(f"{name} is {value!r}; it is one of {', '.join(known)}")
        if not requests_per_minute > 0:
            raise ConfigError(f"requests_per_minute is more than 0, not {requests_per_minute}")
        self.choice = choice_of(folders, drives, my_drive, shared_with_me, subject, subjects)
        self.taken = Taken(
            Wanted(several(include), several(exclude)),
            frozenset(several(mime_types)),
            export,
            Attachments.of(attachments, max_file_bytes),
            comments,
        )
        self.query, self.permissions = query, permissions
        self.files_at_once = max(1, max_in_flight)
        # A page is a thousand files, with requests of its own for comments and permissions.
        self.max_in_flight = max(1, max_in_flight // 2)
        self._settings = {
            "max_wait": max_wait,
            "judge": judged,
            "pool_size": 2 * self.files_at_once,
        }
        self._auth = auth_of(
            credentials, client_id, client_secret, refresh_token, quota_project, base_url
        )
        if any(self.choice.subjects) and self._auth["type"] != "google":
            raise ConfigError("a subject needs a service account; leave out client_id and the like")
        self.base_url, self.requests_per_minute = base_url, requests_per_minute
        self._accounts: dict[str, Account] = {}
        self._people: dict[str, dict[str, Any]] = {}
        self._runs: dict[str, FeedRun] = {}
        self._told: set[str] = set()
        self._began = ""
        self._files = Contents(
            self._account, self.taken, acknowledge_abuse, self._tell, self._count_unknown
        )
        self._feeds = Feeds(self.choice, self._account, self.skip)

    def authenticate(self) -> bool:
        """Asks who each account is.

        Raises:
            HttpError: Google does not accept the credentials.
        """
        for subject in self.choice.subjects:
            self._people[subject] = self._account(subject).me()
        self.authenticated = True
        return True

    def account_id(self) -> str:
        """Returns the id of the account, where it is the account alone that says what is read."""
        choice = self.choice
        is_named = any(choice.subjects) or not (choice.my_drive or choice.shared)
        return "" if is_named else self._id_of_account("")

    def access(self) -> list[str]:
        """Returns each account, and the folders and drives that are read."""
        told = [
            f"{me.get('displayName')} ({me.get('emailAddress')})" for me in self._people.values()
        ]
        for feed in self._feeds.found({}):
            tops = ["all of it"] if feed.is_whole and feed.drive else []
            for top in () if tops else feed.tops:
                shared = "what was shared with it"
                found = self._account(feed.subject)
                tops.append(shared if top == SHARED else str(found.file(top).get("name")))
            told.append(f"{feed.name}: {', '.join(tops)}")
        if not self.permissions:
            told.append("no permissions: with permissions=True it stores who may read each file")
        return told

    def partitions(
        self,
        resume_from: Mapping[str, Any] | None = None,
        made_with: str = "",
        anew: bool = False,
    ) -> Iterator[Partition]:
        """Yields the changes of each feed, or its folders, some together, where it is listed.

        Args:
            resume_from: The states that an earlier run left; empty to read everything.
            made_with: What documents are made with.
            anew: Whether all documents are made again.

        Raises:
            ConnectorError: Google refuses the account.
        """
        began = datetime.now(timezone.utc).isoformat()
        states = {} if anew else dict(resume_from or {})
        feeds = self._feeds.found(states)
        drives = self._feeds.drive_ids(feeds)
        sizes = {feed.id: _kept_size(states.get(feed.id)) for feed in feeds}
        for feed in feeds:
            room = MOST_TEXT - sum(size for name, size in sizes.items() if name != feed.id)
            params = {"feed": feed.params, "drives": drives, "began": began, "room": room}
            state = states.get(feed.id)
            made_by = {"made_with": made_with, "account": self._id_of_account(feed.subject)}
            if isinstance(state, Mapping) and _goes_on(feed, state, states, made_by):
                yield Partition(feed.id, {**params, "state": dict(state)})
                continue
            try:
                for part in self._listed(feed, params, state, made_by):
                    sizes[feed.id] = _kept_size(part.params.get("reached"))
                    yield part
            except DriveError as error:
                if not error.is_unreadable:
                    raise
                self.skip(feed.name, error)
        for feed in self._feeds.gone(feeds, states):
            yield Partition(feed.id, {"feed": feed.params, "began": began, "is_gone": True})

    def fetch_page(self, partition: Partition, cursor: Any) -> Page:
        """Returns a page of files without their content, with the comments on them.

        Args:
            partition: One of `partitions()`.
            cursor: None for the first answer, then that of the answer before.
        """
        params, feed = partition.params, Feed.of(partition.params)
        self._begin_run(params["began"])
        if params.get("is_gone"):
            return Page([], state={"gone": True}, windows=[Window(feed.id, below=True)])
        try:
            if "state" in params:
                return self._changed(partition, cursor)
            return self._list(partition, feed, cursor)
        except DriveError as error:
            if not error.is_unreadable:
                raise
            return self.skip(feed.name, error)

    def sync_documents_stream(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """Yields all files with their content, and the comments on them."""
        for item in super().sync_documents_stream():
            if isinstance(item, FileItem):
                try:
                    self._read_alone(item)
                except GoneError:
                    continue
            yield item

    def document_version(self, item: Any) -> DocumentVersion | None:
        """Returns the id of the document that an item is, its version, place and readers."""
        version = item.get("version")
        return DocumentVersion(
            id_of(item),
            version if isinstance(version, str) else None,
            place_of(item),
            item.get("readers"),
            item.get("collection"),
        )

    def is_file(self, item: Any) -> bool:
        """Returns whether an item is a file, whose content is read; others are comments."""
        return isinstance(item, FileItem) or item.get("kind") != "comment"

    def own_document(self, item: FileItem, most: int) -> tuple[Any, bytes] | None:
        """Returns what a file becomes; None for one that a parser makes a document of.

        Args:
            item: The item.
            most: How many bytes a file may have.

        Raises:
            GoneError: it is not there any more.
            HttpError: Google refuses all requests.
        """
        id_of(item)
        document = self._files.own(item, most)
        return None if document is None else (document, document.content)

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord | Deletion:
        """Turns an item into a record.

        Raises:
            RecordError: the item is not from this connector.
            ContextFrameError: outside of a run, where its content is read here: it cannot be.
        """
        if not isinstance(item, Mapping):
            raise RecordError(f"an item of Drive is an object, not {type(item).__name__}")
        if item.get("kind") == "comment":
            return comment_record(item)
        file = item if isinstance(item, FileItem) else FileItem.of(item)
        if file.document is None:
            self._read_alone(file)
        return file_record(file, file.document)

    def source_identity(self, sync_kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns the class and what is read, however it was written."""
        identity = super().source_identity()
        arguments = {
            name: value
            for name, value in identity["arguments"].items()
            if value and name not in ("subject", "subjects", "folders", "drives")
        }
        choice = self.choice
        for name, values in (("folders", choice.folders), ("drives", choice.drives)):
            if values:
                arguments[name] = sorted(values)
        if any(choice.subjects):
            arguments["subjects"] = sorted(choice.subjects)
        identity["arguments"] = arguments
        return identity

    def _listed(
        self, feed: Feed, params: dict[str, Any], state: Any, made_by: Mapping[str, Any]
    ) -> Iterator[Partition]:
        """Yields the partitions of a feed that is listed, that with its new state at the end."""
        listing = self._listing(feed, params["drives"])
        token = self._account(feed.subject).start(feed.drive)
        folders = listing.folders()
        some = [one for one in folders.known if one != SHARED]
        count = min(-(-len(some) // FOLDERS_TOGETHER), _MOST_PARTS)
        # As many in each, and neighbours together.
        size = -(-len(some) // count) if count else 0
        by = {**made_by, "listing": params["began"], "parts": count}
        for number in range(count):
            spots = listing.spots(folders, some[number * size : (number + 1) * size])
            told = {one: spot.values for one, spot in spots.items()}
            done = {"listing": params["began"]}
            yield Partition(_part_of(feed, number), {**params, "spots": told, "reached": done})
        before = Folders.unpacked(state.get("folders")) if isinstance(state, Mapping) else None
        gone = [one for one in (before.known if before else ()) if one not in folders]
        reached = _state(feed, token, folders, by, params["room"])
        yield Partition(feed.id, {**params, "reached": reached, "gone": gone})

    def _list(self, partition: Partition, feed: Feed, cursor: Any) -> Page:
        """Returns files of some folders, or at last those that were shared one by one."""
        params, at = partition.params, cursor or {"number": 0}
        listing = self._listing(feed, params["drives"])
        token = at.get("token")
        if "spots" in params:
            groups = list(listing.chunks(params["spots"]))
            spots = {one: Spot.of(params["spots"][one]) for one in groups[at["number"]]}
            listed = listing.files_in(list(spots), token)
            page = listing.page(listed, spots)
            following = {"number": at["number"] + 1} if groups[at["number"] + 1 :] else None
        else:
            spots, following = dict.fromkeys(params["gone"], Spot(())), None
            if not listing.loose:
                windows = [Window(f"{feed.id}/{one}") for one in spots]
                return Page([], state=params["reached"], windows=windows)
            folders = Folders.unpacked(params["reached"]["folders"]) or Folders()
            listed = listing.files_loose(token)
            page = listing.page(listed, listing.spots(folders, listing.loose), folders)
            if SHARED in listing.loose:
                spots[SHARED] = Spot(())
        if listed.following:
            page.next_cursor = {"number": at["number"], "token": listed.following}
            return page
        page.windows = [*page.windows, *(Window(f"{feed.id}/{one}") for one in spots)]
        page.next_cursor = following
        page.state = None if following else params["reached"]
        return page

    def _changed(self, partition: Partition, cursor: Any) -> Page:
        params, feed = partition.params, Feed.of(partition.params)
        run = self._runs.get(partition.id)
        if run is None or cursor is None:
            account = self._account(feed.subject)
            listing = self._listing(feed, params["drives"])
            run = FeedRun(listing, account, self.taken.wanted, params["state"], self._tell)
            self._runs[partition.id] = run
        page = run.page(cursor)
        if page.next_cursor is None:
            page.state = _state(feed, run.token, run.folders, params["state"], params["room"])
            self._runs.pop(partition.id, None)
        return page

    def _listing(self, feed: Feed, drives: Sequence[str]) -> Listing:
        account = self._account(feed.subject)
        return Listing(
            feed, account, self.taken, self.query, drives, self.permissions, self._count_refused
        )

    def _account(self, subject: str) -> Account:
        with self._lock:
            if subject not in self._accounts:
                self._accounts[subject] = Account(
                    self._clients_of(subject), self.permissions, self.files_at_once
                )
            return self._accounts[subject]

    def _id_of_account(self, subject: str) -> str:
        return str(self._people.get(subject, {}).get("permissionId", ""))

    def _clients_of(self, subject: str) -> Clients:
        auth = {**self._auth, "subject": subject} if subject else self._auth
        limits = {
            _DRIVE: self.requests_per_minute,
            _SHEETS: _SHEETS_PER_MINUTE,
            _SLIDES: _SLIDES_PER_MINUTE,
            _LINKS: self.requests_per_minute,
        }
        made = [
            self.http_client(
                self.base_url or address,
                auth=auth,
                budget={"per_minute": limit, "name": f"{address} {subject}".strip()},
                **self._settings,
            )
            for address, limit in limits.items()
        ]
        drive, sheets, slides, links = made
        return Clients(drive, sheets, slides, {origin_of(self.base_url or _LINKS): links})

    def _begin_run(self, began: str) -> None:
        """Forgets what an earlier run in this process has told, once for each run."""
        with self._lock:
            if began == self._began:
                return
            self._began = began
            self._told.clear()
            self._alone.clear()

    def _tell(self, name: str, why: str) -> None:
        """Says something once a run."""
        with self._lock:
            self.add_stats(content_left_out=int(name.startswith("the content of ")))
            if name in self._told:
                return
            self._told.add(name)
        self.logger.warning("google-drive: %s: %s", name, why)

    def _count_refused(self, name: str, error: DriveError) -> None:
        with self._lock:
            self.add_stats(**{name: 1})
            if name in self._told:
                return
            self._told.add(name)
        what = {
            "comments_refused": "the account may not read the comments on some files",
            "readers_unknown": "the account may not know who reads some files",
        }[name]
        self.logger.warning("google-drive: %s, such as: %s", what, error)

    def _count_unknown(self, form: str, count: int) -> None:
        with self._lock:
            self.add_stats(unknown_markup=count)
        self._tell(form, "it is not known here, and left out")


def _part_of(feed: Feed, number: int) -> str:
    return f"{feed.id}/files/{number}"


def _kept_size(state: Any) -> int:
    folders = state.get("folders") if isinstance(state, Mapping) else None
    return len(folders) if isinstance(folders, str) else 0


def _state(
    feed: Feed, token: str, folders: Folders, made_by: Mapping[str, Any], room: int
) -> dict[str, Any]:
    known = {name: made_by.get(name) for name in (*_MADE_BY, "listing", "parts")}
    # Folders may be too many to be kept; then those at the top are compared by their marks.
    tops = {one: folders.known[one].mark for one in feed.tops if one in folders}
    told = {"feed": feed.params, "token": token, "folders": folders.packed(room), "tops": tops}
    return {**told, **known}


def _goes_on(
    feed: Feed, state: Mapping[str, Any], states: Mapping[str, Any], made_by: Mapping[str, Any]
) -> bool:
    """Returns whether a run may go on from a state.

    It has to be that of the same account and the same settings, and of a listing whose parts were
    all read.
    """
    count, listing = state.get("parts"), state.get("listing")
    if not isinstance(state.get("token"), str) or not isinstance(count, int):
        return False
    parts = [states.get(_part_of(feed, number)) for number in range(count)]
    return (
        all(state.get(name) == made_by[name] for name in _MADE_BY)
        and all(isinstance(one, Mapping) and one.get("listing") == listing for one in parts)
        and feed_in(state) is not None
    )
