"""Feeds: the parts of Drive that have changes of their own, and what of each is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from contextframe_beam.connectors.google_drive.account import FOLDER, Account, DriveError
from contextframe_beam.connectors.google_drive.folders import SHARED
from contextframe_beam.connectors.google_drive.items import Feed
from contextframe_beam.errors import ConfigError

#: All shared drives that the account is a member of.
ALL = "all"


@dataclass(frozen=True)
class Choice:
    """What is read.

    Attributes:
        folders: The ids of folders.
        drives: The ids of shared drives, or `all`.
        my_drive: Whether what an account owns is read.
        shared: Whether what was shared with an account is read.
        subjects: Whose accounts are used; "" for the account itself.
    """

    folders: tuple[str, ...]
    drives: tuple[str, ...]
    my_drive: bool
    shared: bool
    subjects: tuple[str, ...]


class Feeds:
    """Finds the feeds of what is read.

    Args:
        choice: What is read.
        account: Returns the account of a subject.
        skip: Is told of a folder or drive that cannot be read, and why.
    """

    def __init__(
        self,
        choice: Choice,
        account: Callable[[str], Account],
        skip: Callable[[str, object], object],
    ) -> None:
        self._choice = choice
        self._account = account
        self._skip = skip

    def found(self, states: Mapping[str, Any]) -> list[Feed]:
        """Returns the feeds, each with the folders that are read of it.

        Args:
            states: What earlier runs reached. What these say is not asked again.
        """
        choice = self._choice
        feeds: dict[str, Feed] = {}
        for feed in self._drives(states):
            feeds[feed.id] = feed
        for subject in choice.subjects:
            tops: list[str] = []
            if choice.my_drive:
                tops.append(
                    _home(states, subject) or str(self._account(subject).file("root")["id"])
                )
            if choice.shared:
                tops.append(SHARED)
            if tops:
                feed = _own(subject)
                feeds[feed.id] = replace(feed, is_whole=True, tops=tuple(tops))
        for folder in choice.folders:
            found = self._feed_of(folder, states)
            if found is not None:
                known = feeds.get(found.id, found)
                tops = [*known.tops, *(one for one in found.tops if one not in known.tops)]
                feeds[found.id] = replace(known, tops=tuple(tops))
        return list(feeds.values())

    def gone(self, found: Sequence[Feed], states: Mapping[str, Any]) -> Iterator[Feed]:
        """Yields the shared drives that an earlier run read and the account sees no longer."""
        if ALL not in self._choice.drives:
            return
        there = {feed.id for feed in found}
        for name, state in states.items():
            known = feed_in(state)
            if known is not None and known.drive and name not in there and known.is_whole:
                yield known

    def drive_ids(self, found: Sequence[Feed]) -> list[str]:
        """Returns the shared drives that are read as a whole."""
        return [feed.drive for feed in found if feed.drive and feed.is_whole]

    def _drives(self, states: Mapping[str, Any]) -> Iterator[Feed]:
        chosen = self._choice.drives
        if ALL in chosen:
            seen = set()
            for subject in self._choice.subjects:
                for told in self._account(subject).drives():
                    if told["id"] not in seen:
                        seen.add(told["id"])
                        yield _whole(told, subject)
            return
        for identifier in chosen:
            known = feed_in(states.get(f"drive/{identifier}"))
            if known is not None and known.is_whole:
                yield known
                continue
            found = self._by_anyone("drive", identifier)
            if found is not None:
                yield _whole(*found)

    def _feed_of(self, folder: str, states: Mapping[str, Any]) -> Feed | None:
        """Returns the feed that a folder is in, with that folder; None if it cannot be read."""
        for state in states.values():
            known = feed_in(state)
            if known is not None and folder in known.tops:
                return replace(known, is_whole=False, tops=(folder,))
        found = self._by_anyone("file", folder)
        if found is None:
            return None
        told, subject = found
        if told.get("mimeType") != FOLDER:
            raise ConfigError(
                f"{folder} is {told.get('name')!r}, which is no folder; give the folder of it"
            )
        if told.get("trashed") is True:
            self._skip(f"folder {told.get('name')}", "it is in the trash")
            return None
        drive = told.get("driveId")
        if isinstance(drive, str):
            try:
                name = str(self._account(subject).drive(drive).get("name"))
            except DriveError as error:
                # The folder was shared, but not its drive, which tells no changes then.
                if not error.is_unreadable:
                    raise
            else:
                return Feed(f"drive/{drive}", name, drive, subject, False, (folder,))
        return replace(_own(subject), tops=(folder,))

    def _by_anyone(self, kind: str, identifier: str) -> tuple[dict[str, Any], str] | None:
        """Returns a drive or a file as the first of the subjects sees it, and who that is."""
        refusal: DriveError | None = None
        for subject in self._choice.subjects:
            try:
                account = self._account(subject)
                ask = account.drive if kind == "drive" else account.file
                return ask(identifier), subject
            except DriveError as error:
                if not error.is_unreadable:
                    raise
                refusal = error
        self._skip(f"{kind.replace('file', 'folder')} {identifier}", refusal)
        return None


def feed_in(state: Any) -> Feed | None:
    """Returns the feed that a state is of; None of another state."""
    try:
        return Feed.of(state)
    except (TypeError, KeyError):
        return None


def _own(subject: str) -> Feed:
    name = f"the Drive of {subject}" if subject else "My Drive"
    return Feed(f"user/{subject or 'me'}", name, None, subject, False)


def _whole(drive: Mapping[str, Any], subject: str) -> Feed:
    identifier = str(drive["id"])
    return Feed(
        f"drive/{identifier}", str(drive.get("name")), identifier, subject, True, (identifier,)
    )


def _home(states: Mapping[str, Any], subject: str) -> str | None:
    """Returns the id of somebody's My Drive, as an earlier run found it."""
    known = feed_in(states.get(_own(subject).id))
    if known is None or not known.is_whole or not known.tops:
        return None
    return known.tops[0] if known.tops[0] != SHARED else None
