"""A copy of a Google Drive, kept by the pages of the connector as a dataset is by a run.

It holds which documents there are, in which version, place and collection, and for whom. So what
runs after changes leave is compared with what a fresh run finds, without the cost of a pipeline.
"""

from __future__ import annotations

import random
from typing import Any

from contextframe_beam.connectors.google_drive.connector import GoogleDriveConnector
from contextframe_beam.connectors.page import DocumentVersion, Page
from contextframe_beam.connectors.read.source import Source
from tests.worlds.drive_files import ADA, BOB, DOCUMENT, FOLDER, Files, Item, may
from tests.worlds.drive_world import REFRESH_TOKEN, DriveWorld

EVE = "eve@example.test"
_EDITS = (
    *("folder", "folder", "doc", "doc", "doc", "edit", "rename", "rename", "move", "move"),
    *("trash", "restore", "restore", "delete", "share", "share", "unshare", "comment"),
)


def connector(world: DriveWorld, **settings: Any) -> GoogleDriveConnector:
    """Returns a connector that reads a world as Ada, by default with her own refresh token."""
    if "credentials" not in settings:
        oauth = {"client_id": "id", "client_secret": "secret-of-the-client"}
        settings = {**oauth, "refresh_token": REFRESH_TOKEN, **settings}
    return GoogleDriveConnector(**{"base_url": world.url, "requests_per_minute": 1e6, **settings})


class Copy:
    """What a dataset would hold.

    Args:
        world: What is read.
        **settings: Arguments of the connector.

    Attributes:
        stored: The documents.
        states: The states of the source.
        pages: Those of the last run.
        read: The documents that the last run met.
        gone: The documents that the last run deleted.
    """

    def __init__(self, world: DriveWorld, **settings: Any) -> None:
        self.connector = connector(world, **settings)
        self.stored: dict[str, DocumentVersion] = {}
        self.states: dict[str, Any] = {}
        self.pages: list[Page] = []
        self.read: dict[str, DocumentVersion] = {}
        self.gone: set[str] = set()

    def run(self, full: bool = False) -> Copy:
        """Runs once, and returns itself."""
        self.connector.authenticated = False
        self.connector.ensure_authenticated()
        source = Source(self.connector, resume_from={} if full else self.states)
        self.pages = list(source.pages())
        self.read = {}
        for page in self.pages:
            told = (self.connector.document_version(one) for one in page.items)
            self.read |= {one.unique_id.partition(":")[2]: one for one in told if one is not None}
            if page.state is not None:
                self.states = {**self.states, page.partition: page.state}
        windows = [window for page in self.pages for window in page.windows]
        self.gone = {
            name
            for name, one in self.stored.items()
            if name not in self.read and any(w.holds(one.place) for w in windows if one.place)
        }
        kept = {name: one for name, one in self.stored.items() if name not in self.gone}
        self.stored = kept | self.read
        return self

    @property
    def unread(self) -> set[str]:
        """What the last run could not read."""
        return {one for page in self.pages for one in (*page.unread, page.partial) if one}


def edit(files: Files, chance: random.Random) -> str:
    """Changes something, as some person may, and returns what was done."""
    items = [one for one in files.items.values() if one.parent is not None]
    folders = [one.id for one in items if one.mime == FOLDER]
    parent = chance.choice([*folders, files.root(ADA), files.root(BOB), *files.drives])
    kind = chance.choice(_EDITS)
    who = chance.choice([ADA, BOB, EVE])
    if kind == "folder":
        files.folder(f"Folder {chance.randrange(9)}", parent, owner=chance.choice([ADA, BOB]))
    elif kind == "doc" or not items:
        name = f"Doc {chance.randrange(99)}"
        files.doc(name, "text", parent, owner=chance.choice([ADA, BOB]))
    else:
        _change(files, chance, kind, chance.choice(items), parent, who)
    return kind


def _change(
    files: Files, chance: random.Random, kind: str, one: Item, parent: str, who: str
) -> None:
    below = {inner.id for inner in files.below(one.id)}
    if kind == "rename":
        files.rename(one.id, f"Name {chance.randrange(99)}")
    elif kind == "move" and parent not in below and files.items[parent].drive == one.drive:
        files.move(one.id, parent)
    elif kind in ("trash", "restore"):
        files.trash(one.id, kind == "trash")
    elif kind == "delete":
        files.delete(one.id)
    elif kind == "share":
        files.share(one.id, may(who, chance.choice(["reader", "writer"])))
    elif kind == "unshare" and who != one.owner:
        files.unshare(one.id, who)
    elif one.mime == DOCUMENT and kind == "edit":
        files.edit(one.id, f"text {chance.random()}")
    elif one.mime == DOCUMENT and kind == "comment":
        files.comment(one.id, "Nice")
