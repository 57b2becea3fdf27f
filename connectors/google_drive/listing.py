"""Lists of what is read: the folders first, then their files, some folders together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from contextframe_beam.connectors.google_drive.account import FOLDER, Account, DriveError, Listed
from contextframe_beam.connectors.google_drive.comments import comment_items
from contextframe_beam.connectors.google_drive.folders import SHARED, Folder, Folders
from contextframe_beam.connectors.google_drive.items import Feed, Spot, Taken
from contextframe_beam.connectors.google_drive.sharing import Readers, Sharing, mark_of
from contextframe_beam.connectors.page import Page, Window

#: A query names so many folders.
FOLDERS_TOGETHER = 50

_SHARED_NAME = "Shared with me"
_NO_FOLDERS = f"trashed = false and mimeType != '{FOLDER}'"
_ONLY_FOLDERS = f"trashed = false and mimeType = '{FOLDER}'"


class Listing:
    """Lists one feed.

    Args:
        feed: What is listed.
        account: Is asked.
        taken: Which files are taken.
        query: What else the files have to meet, as Drive takes it.
        other_drives: The shared drives that are read as feeds of their own.
        with_sharing: Whether it is asked who may read files.
        count: Counts what could not be read, by its name.
    """

    def __init__(
        self,
        feed: Feed,
        account: Account,
        taken: Taken,
        query: str,
        other_drives: Sequence[str],
        with_sharing: bool,
        count: Callable[[str, DriveError], object],
    ) -> None:
        self.feed = feed
        self._account = account
        self._taken = taken
        self._query = query
        self._others = frozenset(other_drives)
        self._count = count
        self._sharing = (
            Sharing(account, feed.drive, lambda _, error: count("readers_unknown", error))
            if with_sharing
            else None
        )

    def folders(self) -> Folders:
        """Returns all folders that are read.

        Raises:
            DriveError: they cannot be listed.
        """
        found = Folders(dict(self.top_folders(self.feed.tops)))
        if self.feed.is_whole:
            found.known |= dict(self._told(self.all_folders()))
        else:
            found.known |= dict(self.below(found.known))
        return found.reaching(self.feed.tops, self._taken.wanted.has_folder)

    @property
    def has_sharing(self) -> bool:
        """Whether it is asked who may read files."""
        return self._sharing is not None

    def top_folders(self, tops: Iterable[str]) -> Iterator[tuple[str, Folder]]:
        """Yields folders at the top, as far as the account still sees them."""
        for top in tops:
            if top == SHARED:
                yield top, Folder(_SHARED_NAME, "")
            elif top == self.feed.drive:
                yield top, Folder(self.feed.name, "", self._drive_mark(top))
            else:
                yield from self._told(self._seen(top))

    def below(self, tops: Iterable[str]) -> Iterator[tuple[str, Folder]]:
        """Yields the folders below others, level by level."""
        level, seen = list(tops), set(tops)
        while level:
            found: list[tuple[str, Folder]] = []
            for some in _portions(level):
                query = f"{_ONLY_FOLDERS} and {_in_any(some)}"
                found += self._told(self._all_files(query))
            level = [one for one, _ in found if one not in seen]
            seen |= set(level)
            yield from found

    def all_folders(self) -> Iterator[dict[str, Any]]:
        """Yields all folders of the shared drive, or all that the account sees."""
        return self._all_files(_ONLY_FOLDERS)

    def folder(self, file: Mapping[str, Any], marks: Mapping[str, Readers]) -> Folder:
        """Returns a folder as it is kept.

        Args:
            file: As Drive tells it.
            marks: Who may read those folders that have permissions of their own.
        """
        identifier = str(file.get("id"))
        mark = mark_of(marks[identifier]) if identifier in marks else ""
        return Folder(str(file.get("name")), self.parent(file), mark)

    def parent(self, file: Mapping[str, Any]) -> str:
        """Returns the id of the folder that a file or a folder is in."""
        parents = file.get("parents")
        if isinstance(parents, list) and parents:
            return str(parents[0])
        if self.feed.drive:
            return ""
        # Whose folder the owner sees no longer, a file is still the owner's.
        return self.feed.home if file.get("ownedByMe") is True else SHARED

    def told(self, files: Sequence[Mapping[str, Any]]) -> dict[str, Readers]:
        """Returns who may read those files or folders that have permissions of their own."""
        return {} if self._sharing is None else self._sharing.told(files)

    def spots(self, folders: Folders, identifiers: Iterable[str]) -> dict[str, Spot]:
        """Returns some folders as their files need them."""
        some = list(identifiers)
        readers = {} if self._sharing is None else self._sharing.inherited(folders, some)
        return {one: Spot(folders.path(one), readers.get(one)) for one in some}

    def chunks(self, folders: Iterable[str]) -> Iterator[list[str]]:
        """Yields folders whose files are asked for together."""
        return _portions([one for one in folders if one != SHARED])

    def files_in(self, folders: Sequence[str], token: str | None) -> Listed:
        """Returns the files that are directly in some folders, a thousand at a time."""
        return self._account.files(self._narrowed(_in_any(folders)), self.feed.drive, token)

    @property
    def loose(self) -> list[str]:
        """The folders that hold what is in no folder that the account sees."""
        return [one for one in (self.feed.home, SHARED) if one and one in self.feed.tops]

    def files_loose(self, token: str | None) -> Listed:
        """Returns files of which some are in no folder that the account sees."""
        terms = {self.feed.home: "'me' in owners", SHARED: "sharedWithMe = true"}
        condition = " or ".join(terms[one] for one in self.loose)
        return self._account.files(self._narrowed(f"({condition})"), None, token)

    def page(
        self,
        listed: Listed,
        spots: Mapping[str, Spot],
        folders: Folders | None = None,
        with_comments: bool = True,
    ) -> Page:
        """Returns the items of one answer, without windows of folders.

        Args:
            listed: The answer.
            spots: The folders whose files are read.
            folders: For `files_loose`: all folders that are read, whose files come elsewhere.
            with_comments: Whether comments are asked for.
        """
        files = listed.files
        if folders is not None:
            files = [one for one in files if (one.get("parents") or [""])[0] not in folders]
        page = self.items(files, spots, with_comments)
        if listed.is_cut:
            page.partial = (
                f"Google searched only a part of {self.feed.name}, and says so; run again"
            )
        return page

    def items(
        self,
        files: list[dict[str, Any]],
        spots: Mapping[str, Spot],
        with_comments: bool = True,
    ) -> Page:
        """Returns files as items, with the comments on them.

        Args:
            files: As Drive tells them; they are let go one by one, since they take more than items.
            spots: The folders whose files are read.
            with_comments: Whether comments are asked for.
        """
        readers = self.told(files)
        taken = []
        for number, file in enumerate(files):
            files[number] = {}
            folder = self.parent(file)
            spot = spots.get(folder)
            # A file that was shared by itself may be in a folder that is read.
            if spot is None and SHARED in spots and self.is_shared(file):
                folder, spot = SHARED, spots[SHARED]
            if spot is None or self.is_elsewhere(file):
                continue
            who = readers.get(str(file.get("id")), spot.readers)
            item = self._taken.item(file, self.feed, folder, spot, who)
            if item is not None:
                taken.append(item)
        page = Page(list(taken))
        if with_comments:
            self._add_comments(page, [one for one in taken if self._taken.takes_comments(one)])
        return page

    def is_elsewhere(self, file: Mapping[str, Any]) -> bool:
        """Returns whether a file is read as a part of another feed."""
        return not self.feed.drive and file.get("driveId") in self._others

    def is_shared(self, file: Mapping[str, Any]) -> bool:
        """Returns whether a file was shared with the account by itself."""
        return isinstance(file.get("sharedWithMeTime"), str)

    def matching(self, folders: Iterable[str]) -> set[str] | None:
        """Returns the files in some folders that meet the query; None where there is no query."""
        if not self._query:
            return None
        return {
            str(one.get("id"))
            for some in self.chunks(folders)
            for one in self._all_files(self._narrowed(_in_any(some)))
        }

    def _add_comments(self, page: Page, items: Sequence[Mapping[str, Any]]) -> None:
        lists = self._account.comments([one["id"] for one in items])
        windows: list[Window] = []
        for item, comments in zip(items, lists, strict=True):
            if isinstance(comments, DriveError):
                if comments.is_missing:
                    continue
                self._count("comments_refused", comments)
                comments = []
            page.items += comment_items(item, comments)
            # All comments that may be read are known now. Others are gone, or not to be kept.
            windows.append(self.feed.window(item["id"]))
        page.windows = windows

    def _narrowed(self, condition: str) -> str:
        kinds = " or ".join(
            f"mimeType = '{_quoted(one)}'" for one in sorted(self._taken.mime_types)
        )
        more = [f"({kinds})"] if kinds else []
        more += [f"({self._query})"] if self._query else []
        return " and ".join([_NO_FOLDERS, condition, *more])

    def _told(self, files: Iterable[dict[str, Any]]) -> Iterator[tuple[str, Folder]]:
        for some in _portions(list(files), 1000):
            marks = self.told(some)
            if self._sharing is not None:
                self._sharing.remember(marks)
            for one in some:
                if not self.is_elsewhere(one):
                    yield str(one.get("id")), self.folder(one, marks)

    def _seen(self, folder: str) -> list[dict[str, Any]]:
        try:
            found = self._account.file(folder)
        except DriveError as error:
            if not error.is_unreadable:
                raise
            return []
        return [] if found.get("trashed") is True else [found]

    def _drive_mark(self, drive: str) -> str:
        if self._sharing is None:
            return ""
        found = self._sharing.asked([drive])
        self._sharing.remember(found)
        return mark_of(found[drive])

    def _all_files(self, query: str) -> Iterator[dict[str, Any]]:
        token = None
        while True:
            listed = self._account.files(query, self.feed.drive, token)
            yield from listed.files
            token = listed.following
            if not token:
                return


def _in_any(folders: Sequence[str]) -> str:
    return "(" + " or ".join(f"'{_quoted(one)}' in parents" for one in folders) + ")"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _portions(values: Sequence[Any], size: int = FOLDERS_TOGETHER) -> Iterator[list[Any]]:
    for start in range(0, len(values), size):
        yield list(values[start : start + size])
