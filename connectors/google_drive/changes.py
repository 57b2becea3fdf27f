"""The changes of a feed, as the next run reads them.

A feed tells each changed file once, as it is now, and nothing of what is below a changed folder. So
all changes of folders are learned first. Then the files of the feed are read, page by page, and at
last the files of folders that came, moved or were shared anew, which tell no change of their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from contextframe_beam.connectors.google_drive.account import FOLDER, Account, DriveError
from contextframe_beam.connectors.google_drive.folders import (
    SHARED,
    Difference,
    Folder,
    Folders,
    Wanted,
)
from contextframe_beam.connectors.google_drive.items import Spot
from contextframe_beam.connectors.google_drive.listing import Listing
from contextframe_beam.connectors.page import Page, Window

# So many bytes of answers are kept, so that they need not be asked for again.
_KEPT_BYTES = 32 << 20
# How Drive refuses a token that is too old.
_EXPIRED = frozenset({400, 404, 410})


class FeedRun:
    """One run over the changes of a feed.

    Args:
        listing: Lists the feed.
        account: Is asked.
        wanted: Which folders are read.
        state: What the run before reached.
        tell: Is told of what matters to people, with a name for it.
    """

    def __init__(
        self,
        listing: Listing,
        account: Account,
        wanted: Wanted,
        state: Mapping[str, Any],
        tell: Callable[[str, str], object],
    ) -> None:
        self._listing = listing
        self._account = account
        self._wanted = wanted
        self._feed = listing.feed
        self._first = str(state["token"])
        self._before = Folders.unpacked(state.get("folders"))
        self._tops_before = state.get("tops")
        self._bodies: dict[str, bytes] = {}
        self._changed: dict[str, dict[str, Any] | None] = {}
        self._lost: set[str] = set()
        self._gone: list[str] = []
        self._come: set[str] = set()
        self._shared: list[str] = []
        self._moved: list[str] = []
        self._is_anew = False
        self.folders = Folders()
        self.token = self._first
        self._learn(tell)

    def page(self, cursor: Mapping[str, Any] | None) -> Page:
        """Returns one page: of the feed, and after its end of folders below which all is read.

        Args:
            cursor: None for the first page, then that of the page before.
        """
        at = dict(cursor or {})
        if "below" in at:
            return self._below(int(at["below"]), at.get("token"))
        if self._is_anew:
            page = Page([], windows=[self._window(one) for one in self._gone])
            page.next_cursor = self._following(0)
            return page
        page, following = self._changes(str(at.get("token", self._first)))
        if not at:
            page.windows = [*page.windows, *(self._window(one) for one in self._gone)]
        page.next_cursor = {"token": following} if following else self._following(0)
        return page

    def _learn(self, tell: Callable[[str, str], object]) -> None:
        """Reads the feed to its end for what became of folders."""
        token: str | None = self._first
        while token is not None:
            try:
                response = self._account.changes(token, self._feed.drive)
            except DriveError as error:
                if token != self._first or error.status not in _EXPIRED or not error.is_of_one:
                    raise
                if self._feed.drive:
                    # A drive that the account sees no longer is refused in the same way.
                    self._account.drive(self._feed.drive)
                tell(self._feed.name, f"{error}; its changes are forgotten, so all is listed again")
                self._list_anew()
                return
            told = response.json()
            if sum(map(len, self._bodies.values())) + len(response.body) <= _KEPT_BYTES:
                self._bodies[token] = response.body
            self._learn_folders(told)
            end = told.get("newStartPageToken")
            self.token = str(end) if end else self.token
            token = told.get("nextPageToken")
        self._compare()

    def _learn_folders(self, told: Mapping[str, Any]) -> None:
        for identifier, file in _files_in(told):
            is_known = self._before is not None and identifier in self._before
            if file is not None and file.get("mimeType") == FOLDER:
                is_there = file.get("trashed") is not True and not self._listing.is_elsewhere(file)
                self._changed[identifier] = file if is_there else None
            elif is_known or self._before is None:
                self._changed[identifier] = None
                self._lost.add(identifier)

    def _compare(self) -> None:
        """Finds what became of the folders since the run before."""
        before, feed = self._before, self._feed
        if before is None:
            self.folders = self._listing.folders()
            self._gone = [one for one in self._changed if one not in self.folders]
            tops = {one: self.folders.known[one].mark for one in feed.tops if one in self.folders}
            changed = [one for one in self._changed if one in self.folders]
            self._shared = list(self.folders.below(changed if tops == self._tops_before else tops))
            return
        now = Folders(before.known)
        there = [one for one in self._changed.values() if one is not None]
        readers = self._listing.told(there)
        for identifier, file in self._changed.items():
            if file is None:
                now.known.pop(identifier, None)
            else:
                now.known[identifier] = self._listing.folder(file, readers)
        for identifier, folder in self._tops(before):
            now.known[identifier] = folder
        reached = now.reaching(feed.tops, self._wanted.has_folder)
        come = [one for one in reached.known if one not in before]
        if come:
            # What came from elsewhere has folders below that show no change.
            now.known |= dict(self._listing.below(come))
            reached = now.reaching(feed.tops, self._wanted.has_folder)
        self._take(before, reached)

    def _tops(self, before: Folders) -> Sequence[tuple[str, Folder]]:
        """Returns the tops that are new, and those whose members show no change in the feed."""
        feed = self._feed
        asked = [top for top in feed.tops if top not in before and top not in self._changed]
        drive = before.known.get(feed.drive or "")
        if drive is not None and (self._listing.has_sharing or drive.name != feed.name):
            asked.append(str(feed.drive))
        return list(self._listing.top_folders(asked)) if asked else []

    def _take(self, before: Folders, now: Folders) -> None:
        difference = Difference.between(before, now)
        self.folders = now
        self._gone, self._come = difference.gone, set(difference.come)
        self._shared, self._moved = difference.shared, difference.moved

    def _list_anew(self) -> None:
        self._is_anew = True
        self.token = self._account.start(self._feed.drive)
        now = self._listing.folders()
        self._gone = [one for one in (self._before or now).known if one not in now]
        self.folders, self._come = now, set(now.known)

    def _changes(self, token: str) -> tuple[Page, str | None]:
        """Returns a page of the feed, and the token of the next one."""
        body = self._bodies.pop(token, None)
        told = (
            json.loads(body)
            if body is not None
            else self._account.changes(token, self._feed.drive).json()
        )
        changed = [(one, file) for one, file in _files_in(told) if not _is_folder(file)]
        there = [
            file for _, file in changed if file is not None and file.get("trashed") is not True
        ]
        spots = self._spots({self._listing.parent(one) for one in there} | {SHARED})
        matching = self._listing.matching(spots)
        if matching is not None:
            there = [one for one in there if str(one.get("id")) in matching]
        page = self._listing.items(there, spots)
        read = {item["id"] for item in page.items}
        # Whatever else there may be stored of them is gone: trashed, moved out, lost.
        gone = [one for one, _ in changed if one not in read]
        page.windows = [*page.windows, *map(self._feed.window, gone)]
        return page, told.get("nextPageToken")

    def _below(self, number: int, token: str | None) -> Page:
        """Returns files of folders whose files show no change."""
        some, is_loose = self._portions[number]
        # Where folders moved, no more than the paths of files are others.
        has_come, has_moved = self._come.issuperset(some), some[0] in set(self._moved)
        if is_loose:
            listed = self._listing.files_loose(token)
        else:
            listed = self._listing.files_in(some, token)
        page = self._listing.page(
            listed, self._spots(some), self.folders if is_loose else None, not has_moved
        )
        if listed.following:
            page.next_cursor = {"below": number, "token": listed.following}
            return page
        windows = map(self._window, some) if has_come else ()
        page.windows = [*page.windows, *windows]
        page.next_cursor = self._following(number + 1)
        return page

    def _following(self, number: int) -> dict[str, Any] | None:
        return {"below": number} if number < len(self._portions) else None

    @cached_property
    def _portions(self) -> list[tuple[list[str], bool]]:
        """Folders whose files are listed together, and whether these are in no folder."""
        listing = self._listing
        # Of a folder that the account sees no longer, its own files are still its own.
        is_lost = not self._lost.isdisjoint(self._gone)
        loose = [one for one in listing.loose if is_lost or one in self._come]
        come = [(some, False) for some in listing.chunks(sorted(self._come))]
        shared = [(some, False) for some in listing.chunks(self._shared)]
        moved = [(some, False) for some in listing.chunks(self._moved)]
        return [*come, *shared, *moved, *([(loose, True)] if loose else [])]

    def _spots(self, folders: Sequence[str] | set[str]) -> dict[str, Spot]:
        return self._listing.spots(self.folders, [one for one in folders if one in self.folders])

    def _window(self, folder: str) -> Window:
        return Window(f"{self._feed.id}/{folder}")


def _files_in(told: Mapping[str, Any]) -> list[tuple[str, dict[str, Any] | None]]:
    """Returns the changed files of an answer with what is known of each; None of one removed."""
    found = []
    for change in told.get("changes") or ():
        if not isinstance(change, Mapping) or change.get("changeType") == "drive":
            continue
        file = change.get("file")
        is_there = isinstance(file, dict) and change.get("removed") is not True
        found.append((str(change.get("fileId")), dict(file) if is_there and file else None))
    return found


def _is_folder(file: Mapping[str, Any] | None) -> bool:
    return file is not None and file.get("mimeType") == FOLDER
