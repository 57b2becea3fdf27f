"""What a world of Google Drive holds: files, folders, drives, permissions and their changes."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

APPS = "application/vnd.google-apps."
FOLDER, SHORTCUT = f"{APPS}folder", f"{APPS}shortcut"
DOCUMENT, SHEETS, SLIDES = f"{APPS}document", f"{APPS}spreadsheet", f"{APPS}presentation"
DRAWING, FORM = f"{APPS}drawing", f"{APPS}form"

ADA, BOB = "ada@acme.test", "bob@acme.test"
SHARES = frozenset({"owner", "organizer", "fileOrganizer", "writer"})


def may(who: str, role: str = "reader", kind: str = "user", **more: Any) -> dict[str, Any]:
    """Returns a permission: `may("eng@acme.test", kind="group")`, `may("", kind="anyone")`."""
    names = {"user": "emailAddress", "group": "emailAddress", "domain": "domain"}
    told = {names[kind]: who} if kind in names else {}
    number = int.from_bytes(hashlib.sha256(f"{kind}{who}".encode()).digest()[:6], "big")
    told |= {"displayName": who.partition("@")[0]} if who else {}
    if kind in ("domain", "anyone"):
        more = {"allowFileDiscovery": False, **more}
    return {"id": str(number), "type": kind, "role": role, **told, **more}


@dataclass
class Item:
    """A file, a folder or a shortcut.

    Attributes:
        id: Its id.
        name: Its name.
        mime: Its media type.
        parent: The id of its folder.
        drive: The id of its shared drive; None in somebody's own.
        owner: The address of its owner; "" in a shared drive.
        created: When it was made.
        modified: When its content or its name changed.
        data: Its bytes.
        exports: What it is exported as, by media type.
        content: What the API of its editor gives.
        own: Its own permissions, beside those of its folder.
        limited: Whether it does not inherit permissions.
        trashed: Whether it was put into the trash itself.
        more: What else its resource has.
        version: Counts all its changes.
    """

    id: str
    name: str
    mime: str
    parent: str | None
    drive: str | None
    owner: str
    created: str
    modified: str
    data: bytes = b""
    exports: dict[str, bytes] = field(default_factory=dict)
    content: dict[str, Any] | None = None
    own: list[dict[str, Any]] = field(default_factory=list)
    limited: bool = False
    trashed: bool = False
    more: dict[str, Any] = field(default_factory=dict)
    version: int = 1
    comments: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Entry:
    """A change.

    Attributes:
        number: Its number in the feed of all.
        file: The id of the file, or of the drive.
        drive: The shared drive that it is in.
        seen_by: Who saw it before or sees it now.
        is_drive: Whether it is a change of a drive.
    """

    number: int
    file: str
    drive: str | None
    seen_by: frozenset[str]
    is_drive: bool = False


class Files:
    """Everybody's files, which a test edits as people do.

    Attributes:
        items: All of them by id.
        people: The addresses of those who have an account.
        groups: The members of groups.
        log: The changes, in order.
        now: The time.
    """

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        self.people = [ADA, BOB]
        self.groups: dict[str, list[str]] = {}
        self.drives: dict[str, str] = {}
        self.log: list[Entry] = []
        self.now = datetime(2026, 1, 1, tzinfo=timezone.utc)
        self._numbers = itertools.count(1)
        for person in self.people:
            root = self._new("My Drive", FOLDER, None, None, person, f"0A{person[:3]}")
            root.own = [may(person, "owner")]

    def root(self, person: str = ADA) -> str:
        """Returns the id of somebody's My Drive."""
        return f"0A{person[:3]}"

    def drive(self, name: str, *members: dict[str, Any]) -> str:
        """Adds a shared drive, and returns its id.

        Args:
            name: Its name.
            *members: Permissions; by default Ada is an organizer.
        """
        identifier = f"0ADrive{next(self._numbers):05d}"
        root = self._new("Drive", FOLDER, None, identifier, "", identifier)
        root.own = list(members) or [may(ADA, "organizer")]
        self.drives[identifier] = name
        self._log(root, is_drive=True)
        return identifier

    def folder(self, name: str, parent: str | None = None, owner: str = ADA) -> str:
        """Adds a folder, and returns its id."""
        return self._add(name, FOLDER, parent, owner).id

    def file(
        self,
        name: str,
        data: bytes,
        parent: str | None = None,
        mime: str = "text/plain",
        owner: str = ADA,
        **more: Any,
    ) -> str:
        """Adds a file with bytes, and returns its id."""
        return self._add(name, mime, parent, owner, data=data, more=more).id

    def doc(
        self, name: str, markdown: str, parent: str | None = None, owner: str = ADA, **more: Any
    ) -> str:
        """Adds a document of Google Docs, and returns its id."""
        return self._add(
            name, DOCUMENT, parent, owner, exports=self._exports(markdown), more=more
        ).id

    def sheets(
        self, name: str, tables: Mapping[str, Sequence[Sequence[str]]], parent: str | None = None
    ) -> str:
        """Adds a spreadsheet, and returns its id."""
        sheets = [
            {
                "properties": {
                    "sheetId": number,
                    "title": title,
                    "index": number,
                    "sheetType": "GRID",
                },
                "data": [
                    {
                        "rowData": [
                            {"values": [{"formattedValue": cell} if cell else {} for cell in row]}
                            for row in rows
                        ]
                    }
                ],
            }
            for number, (title, rows) in enumerate(tables.items())
        ]
        content = {"properties": {"title": name}, "sheets": sheets}
        item = self._add(name, SHEETS, parent, ADA, content=content)
        first = next(iter(tables.values()), ())
        item.exports = {"text/csv": "\n".join(",".join(row) for row in first).encode()}
        return item.id

    def slides(self, name: str, slides: Sequence[Mapping[str, Any]], parent: str | None) -> str:
        """Adds a presentation of pages as the API has them, and returns its id."""
        item = self._add(name, SLIDES, parent, ADA, content={"title": name, "slides": list(slides)})
        item.exports = {"text/plain": name.encode()}
        return item.id

    def shortcut(self, name: str, target: str, parent: str | None = None) -> str:
        """Adds a shortcut, and returns its id."""
        to = {"targetId": target, "targetMimeType": self.items[target].mime}
        return self._add(name, SHORTCUT, parent, ADA, more={"shortcutDetails": to}).id

    def edit(self, identifier: str, content: bytes | str) -> None:
        """Changes what a file or a document holds."""
        item = self.items[identifier]
        if isinstance(content, str):
            item.exports = self._exports(content)
        else:
            item.data = content
        item.modified = self._tick()
        self._log(item)

    def rename(self, identifier: str, name: str) -> None:
        """Gives another name."""
        item = self.items[identifier]
        item.name, item.modified = name, self._tick()
        self._log(item)

    def move(self, identifier: str, parent: str) -> None:
        """Moves to another folder, which moves no time."""
        item = self.items[identifier]
        before = self.seen_by(item)
        item.parent = parent
        drive = self.items[parent].drive
        for one in self.below(identifier):
            one.drive = drive
        self._log(item, before)

    def trash(self, identifier: str, is_trashed: bool = True) -> None:
        """Puts into the trash, or takes out of it; what is below a folder shows no change."""
        item = self.items[identifier]
        item.trashed = is_trashed
        self._log(item)

    def delete(self, identifier: str) -> None:
        """Deletes for good; what is below a folder shows no change."""
        item = self.items[identifier]
        before = self.seen_by(item)
        for one in list(self.below(identifier)):
            del self.items[one.id]
        self.log.append(Entry(len(self.log) + 1, identifier, item.drive, before))

    def share(self, identifier: str, *permissions: dict[str, Any]) -> None:
        """Shares; what is below a folder shows no change."""
        item = self.items[identifier]
        before = self.seen_by(item)
        item.own += permissions
        self._log(item, before)

    def unshare(self, identifier: str, who: str) -> None:
        """Takes a share away."""
        item = self.items[identifier]
        before = self.seen_by(item)
        item.own = [one for one in item.own if who not in (one.get("emailAddress"), one["type"])]
        self._log(item, before, is_drive=identifier in self.drives)

    def comment(self, identifier: str, said: str, by: str = "Bob", **more: Any) -> dict[str, Any]:
        """Adds a comment, which is no change of the file, and returns it."""
        at = self._tick()
        made = {
            "kind": "drive#comment",
            "id": f"AAAA{next(self._numbers):04d}",
            "createdTime": at,
            "modifiedTime": at,
            "author": {"kind": "drive#user", "displayName": by, "me": False},
            "deleted": False,
            "content": said,
            "htmlContent": said,
            "replies": [],
            **more,
        }
        self.items[identifier].comments.append(made)
        return made

    def reply(self, comment: dict[str, Any], said: str, **more: Any) -> None:
        """Answers a comment."""
        at = self._tick()
        comment["modifiedTime"] = at
        comment["replies"].append(
            {
                "kind": "drive#reply",
                "id": f"AAAB{next(self._numbers):04d}",
                "createdTime": at,
                "modifiedTime": at,
                "author": {"kind": "drive#user", "displayName": "Ada", "me": False},
                "deleted": False,
                **({"content": said, "htmlContent": said} if said else {}),
                **more,
            }
        )

    def below(self, identifier: str) -> Iterator[Item]:
        """Yields a file, and all that is below it."""
        yield self.items[identifier]
        for one in list(self.items.values()):
            if one.parent == identifier:
                yield from self.below(one.id)

    def is_trashed(self, item: Item) -> bool:
        """Returns whether a file is in the trash, by itself or with a folder above."""
        above = self.items.get(item.parent or "")
        return item.trashed or (above is not None and self.is_trashed(above))

    def permissions(self, item: Item) -> list[dict[str, Any]]:
        """Returns all permissions of a file, with those of the folders above."""
        above = self.items.get(item.parent or "")
        if above is None:
            return item.own
        inherited = self.permissions(above)
        if item.limited:
            inherited = [one for one in inherited if one["role"] in ("owner", "organizer")]
        known = {one["id"] for one in item.own}
        return [*item.own, *(one for one in inherited if one["id"] not in known)]

    def role(self, person: str, item: Item) -> str:
        """Returns what somebody may do with a file; "" where nothing."""
        for one in self.permissions(item):
            if self._means(one, person):
                return str(one["role"])
        return ""

    def seen_by(self, item: Item) -> frozenset[str]:
        """Returns who sees a file."""
        return frozenset(one for one in self.people if self.role(one, item))

    def _means(self, permission: Mapping[str, Any], person: str) -> bool:
        who = permission.get("emailAddress", "")
        if permission["type"] == "group":
            return person in self.groups.get(who, ())
        if permission["type"] == "domain":
            return person.endswith(f"@{permission['domain']}") and permission["allowFileDiscovery"]
        return bool(who == person)

    def _add(self, name: str, mime: str, parent: str | None, owner: str, **more: Any) -> Item:
        parent = parent or self.root(owner)
        drive = self.items[parent].drive
        identifier = f"1{mime.rpartition('.')[2][:3]}{next(self._numbers):06d}"
        item = self._new(name, mime, parent, drive, "" if drive else owner, identifier, **more)
        if not drive:
            item.own = [may(owner, "owner")]
        self._log(item)
        return item

    def _new(
        self,
        name: str,
        mime: str,
        parent: str | None,
        drive: str | None,
        owner: str,
        identifier: str,
        **more: Any,
    ) -> Item:
        at = self._tick()
        item = Item(identifier, name, mime, parent, drive, owner, at, at, **more)
        self.items[identifier] = item
        return item

    def _log(
        self, item: Item, before: frozenset[str] = frozenset(), is_drive: bool = False
    ) -> None:
        item.version += 1
        seen_by = before | self.seen_by(item)
        self.log.append(Entry(len(self.log) + 1, item.id, item.drive, seen_by, is_drive))

    def _tick(self) -> str:
        self.now += timedelta(seconds=7)
        return self.now.strftime("%Y-%m-%dT%H:%M:%S.000Z")

    def _exports(self, markdown: str) -> dict[str, bytes]:
        data = markdown.encode()
        return {"text/markdown": data, "text/plain": data}
