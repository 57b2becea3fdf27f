"""The google-drive connector, against a world that is checked by Google's discovery documents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.google_drive.connector import GoogleDriveConnector
from contextframe_beam.connectors.testing import ConnectorTests
from contextframe_beam.frames.record import FrameRecord
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.transforms.commit import CommitReceipt
from tests.worlds.drive_files import BOB, may
from tests.worlds.drive_world import REFRESH_TOKEN, DriveWorld


@pytest.fixture
def world() -> Iterator[DriveWorld]:
    with DriveWorld() as made:
        yield made
        assert made.problems == []


def connector(world: DriveWorld, **settings: Any) -> GoogleDriveConnector:
    """Returns a connector that reads a world as Ada."""
    if "credentials" not in settings:
        oauth = {"client_id": "id", "client_secret": "secret-of-the-client"}
        settings = {**oauth, "refresh_token": REFRESH_TOKEN, **settings}
    return GoogleDriveConnector(**{"base_url": world.url, "requests_per_minute": 1e6, **settings})


def run(world: DriveWorld, to: Path, mode: str = "upsert", **settings: Any) -> CommitReceipt:
    full = settings.pop("full", False)
    made = connector(world, **settings)
    return ingest(made, str(to), mode=mode, full=full, max_deletes="100%", embed_dim=2)


def stored(to: Path) -> dict[str, FrameRecord]:
    """Returns the records of a dataset by their unique ids, without `google-drive:`."""
    return {str(one.unique_id).partition(":")[2]: one for one in FrameDataset.open(str(to))}


def same(one: Path, other: Path) -> None:
    """Requires that two datasets hold the same documents."""
    rows = [
        {k: (r.text_content, r.metadata, r.readers, r.timestamp) for k, r in stored(at).items()}
        for at in (one, other)
    ]
    assert rows[0] == rows[1]


class TestARunWritesWhatChanged:
    def test_from_the_first_run_to_a_mirror(self, world: DriveWorld, tmp_path: Path) -> None:
        to, files = tmp_path / "kb.lance", world.files
        handbook = files.folder("Handbook")
        guide = files.folder("Guide", handbook)
        doc = files.doc("Welcome", "# Welcome", handbook)
        note = files.file("note.txt", b"plain", guide)
        files.sheets("Numbers", {"One": [["a", "b"], ["1", "2"]]}, guide)
        files.reply(files.comment(doc, "Nice"), "Thanks")
        files.file("elsewhere.txt", b"no")

        def go_on(mode: str = "upsert", **settings: Any) -> CommitReceipt:
            return run(world, to, mode, folders=[handbook], **settings)

        assert go_on().rows_written == 5
        asked = len(world.served)
        assert go_on().rows_written == 0
        told = [one.asked.path.rpartition("/")[2] for one in world.served[asked:]]
        assert [one for one in told if one not in ("token", "about")] == ["changes"]

        files.edit(doc, "# Welcome\n\nNew")
        assert go_on().rows_written == 1
        files.move(note, files.folder("Other"))
        assert (go_on().rows_deleted, f"file/{note}" in stored(to)) == (1, False)
        files.move(note, handbook)
        assert go_on().rows_written == 1
        files.trash(guide)
        assert go_on().rows_deleted == 1
        files.trash(guide, False)
        assert go_on().rows_written == 1
        files.delete(doc)
        # With a file go the comments on it.
        assert go_on().rows_deleted == 3
        mirror = go_on("mirror")
        assert (mirror.rows_written, mirror.rows_deleted) == (0, 0)
        run(world, tmp_path / "fresh.lance", folders=[handbook], full=True)
        same(to, tmp_path / "fresh.lance")

    def test_a_change_of_sharing_alone_writes_readers_and_asks_for_no_content(
        self, world: DriveWorld, tmp_path: Path
    ) -> None:
        to, files = tmp_path / "kb.lance", world.files
        doc = files.doc("Secret", "# Secret plans", files.folder("Plans"))
        files.comment(doc, "Nice")
        files.share(doc, may(BOB))
        run(world, to, permissions=True)
        found = FrameDataset.open(str(to)).search("plans", readers=[f"user:{BOB}"])
        assert [one.unique_id for one in found] == [f"google-drive:file/{doc}"]
        files.unshare(doc, BOB)
        asked = world.content_requests
        receipt = run(world, to, permissions=True)
        assert (receipt.rows_written, receipt.readers_changed) == (0, 2)
        assert world.content_requests == asked
        assert not FrameDataset.open(str(to)).search("plans", readers=[f"user:{BOB}"])


class TestGoogleDriveConnector(ConnectorTests):
    @pytest.fixture(autouse=True)
    def _world(self, world: DriveWorld) -> None:
        self.world = world
        for number in range(3):
            folder = world.files.folder(f"Folder {number}")
            world.files.comment(world.files.doc(f"Doc {number}", "# Text", folder), "Nice")
            world.files.file("a.txt", b"plain", folder)

    def connector(self) -> GoogleDriveConnector:
        return connector(self.world)
