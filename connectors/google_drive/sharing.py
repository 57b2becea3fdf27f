"""Who may read files of Google Drive.

Of somebody's own file all permissions are told with it, if the account may share the file. In a
shared drive each folder and file may have permissions beside those of the drive's members. Those of
an item that has some of its own are asked for; they hold what it inherits as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from xxhash import xxh3_64_hexdigest

from contextframe_beam.connectors.google_drive.account import Account, DriveError
from contextframe_beam.connectors.google_drive.folders import Folders
from contextframe_beam.frames.times import when

#: Who may read something; None where nobody tells.
Readers = list[str] | None

_NAMED = {"user": "emailAddress", "group": "emailAddress", "domain": "domain"}


def readers_of(permissions: Iterable[Mapping[str, Any]], now: datetime | None = None) -> list[str]:
    """Returns the readers that permissions name.

    What everybody with the link may open is not found by others in Drive's search, so that they
    are no readers. It stands as `google-link:anyone`, or with the domain.

    Args:
        permissions: As Drive tells them.
        now: The time, by which some may have ended.
    """
    now = now or datetime.now(timezone.utc)
    found = []
    for one in permissions:
        ends = when(one["expirationTime"]) if isinstance(one.get("expirationTime"), str) else None
        if one.get("deleted") is True or one.get("view") or (ends is not None and ends <= now):
            continue
        kind = str(one.get("type"))
        name = str(one.get(_NAMED.get(kind, "")) or one.get("id") or "").lower()
        if kind == "anyone":
            name = kind
        if kind in ("anyone", "domain") and one.get("allowFileDiscovery") is not True:
            found.append(f"google-link:{name}")
        elif kind == "anyone":
            found.append("anyone")
        elif kind in _NAMED and name:
            found.append(f"{kind}:{name}")
    return sorted(set(found))


def mark_of(readers: Readers) -> str:
    """Returns a text that is another one when the readers are, and never empty."""
    return "?" if readers is None else xxh3_64_hexdigest("\0".join(readers).encode())[:8]


class Sharing:
    """Tells who may read files of one feed.

    Args:
        account: Is asked.
        drive: The shared drive; None for what is somebody's own.
        refused: Is told of each item whose permissions may not be read.
    """

    def __init__(
        self, account: Account, drive: str | None, refused: Callable[[str, DriveError], object]
    ) -> None:
        self._account = account
        self._drive = drive
        self._refused = refused
        self._folders: dict[str, Readers] = {}

    def told(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Readers]:
        """Returns who may read those files and folders that have permissions of their own.

        Others of a shared drive have those of their folder. Several requests are sent at once.
        """
        found: dict[str, Readers] = {}
        asked = []
        for one in items:
            identifier, permissions = str(one.get("id")), one.get("permissions")
            if isinstance(permissions, list):
                found[identifier] = readers_of(permissions)
            elif one.get("driveId") and (self._drive is None or _has_own(one)):
                asked.append(identifier)
            elif self._drive is None:
                found[identifier] = None
        return {**found, **self.asked(asked)}

    def remember(self, folders: Mapping[str, Readers]) -> None:
        """Remembers who may read folders, for what is in them."""
        self._folders |= folders

    def inherited(self, folders: Folders, identifiers: Iterable[str]) -> dict[str, Readers]:
        """Returns who may read what is in folders of a shared drive and has nothing of its own.

        Args:
            folders: All folders; those with permissions of their own have a mark.
            identifiers: The folders.
        """
        if self._drive is None:
            return {}
        nearest = {one: folders.nearest_marked(one) for one in identifiers}
        unknown = {top for top in nearest.values() if top is not None} - self._folders.keys()
        self._folders |= self.asked(sorted(unknown))
        return {one: self._folders.get(top or "") for one, top in nearest.items()}

    def asked(self, identifiers: Sequence[str]) -> dict[str, Readers]:
        """Asks for all permissions of files, folders or drives; None of what is refused."""
        found: dict[str, Readers] = {}
        lists = self._account.permissions(identifiers) if identifiers else []
        for identifier, told in zip(identifiers, lists, strict=True):
            if isinstance(told, DriveError):
                self._refused(identifier, told)
            found[identifier] = None if isinstance(told, DriveError) else readers_of(told)
        return found


def _has_own(item: Mapping[str, Any]) -> bool:
    own = ("hasAugmentedPermissions", "inheritedPermissionsDisabled")
    return any(item.get(name) is True for name in own)
