"""The google-drive connector, against a world that is checked by Google's discovery documents."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import pickle
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import xlsxwriter
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.files.item import FileItem, GoneError
from contextframe_beam.connectors.google_drive import account, changes, folders
from contextframe_beam.connectors.google_drive import connector as drive_connector
from contextframe_beam.connectors.google_drive.connector import GoogleDriveConnector
from contextframe_beam.connectors.google_drive.items import OFFICE
from contextframe_beam.connectors.google_drive.sharing import readers_of
from contextframe_beam.connectors.look import look
from contextframe_beam.connectors.testing import ConnectorTests, Status, Subject, run_checks
from contextframe_beam.errors import ConfigError, ConnectorError
from contextframe_beam.frames.record import FrameRecord
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.transforms.commit import CommitReceipt
from tests.support.drive_copy import EVE, Copy, connector, edit
from tests.support.laws import examples
from tests.support.pdf_files import pdf
from tests.worlds.clients import python
from tests.worlds.described import Asked, Window
from tests.worlds.drive_files import ADA, BOB, DRAWING, FORM, may
from tests.worlds.drive_world import REFRESH_TOKEN, DriveWorld


@pytest.fixture
def world() -> Iterator[DriveWorld]:
    with DriveWorld() as made:
        yield made
        assert made.problems == []


@pytest.fixture(scope="module")
def key() -> str:
    """Gives the private key of a service account."""
    made = rsa.generate_private_key(65537, 2048)
    return made.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def run(world: DriveWorld, to: Path, mode: str = "upsert", **settings: Any) -> CommitReceipt:
    made = connector(world, **settings)
    return ingest(made, str(to), mode=mode, max_deletes="100%", embed_dim=2)


def stored(to: Path) -> dict[str, FrameRecord]:
    """Returns the records of a dataset by their unique ids, without `google-drive:`."""
    return {str(one.unique_id).partition(":")[2]: one for one in FrameDataset.open(str(to))}


def record(world: DriveWorld, identifier: str, **settings: Any) -> FrameRecord:
    """Returns what becomes of one file, read outside of a run."""
    made = connector(world, **settings)
    made.authenticate()
    found = made.map_to_frame_record(item_of(made, identifier))
    assert isinstance(found, FrameRecord)
    return found


def item_of(made: GoogleDriveConnector, identifier: str) -> Any:
    pages = (made.fetch_page(one, None) for one in made.partitions())
    return next(one for page in pages for one in page.items if one["id"] == identifier)


def relationships(found: FrameRecord) -> list[tuple[str, str]]:
    return [
        (one["relationship_type"], one["target_id"].partition(":")[2])
        for one in found.metadata["relationships"]
    ]


class TestARun:
    def test_writes_what_changed_and_a_mirror_finds_nothing_more(
        self, world: DriveWorld, tmp_path: Path
    ) -> None:
        to, files = tmp_path / "kb.lance", world.files
        handbook = files.folder("Handbook")
        guide = files.folder("Guide", handbook)
        doc = files.doc("Welcome", "# Welcome", handbook)
        note = files.file("note.txt", b"plain", guide)
        files.sheets("Numbers", {"One": [["a", "b"], ["1", "2"]]}, guide)
        files.reply(files.comment(doc, "Nice"), "Thanks")
        files.file("elsewhere.txt", b"no")
        settings = {"folders": [handbook], "permissions": True}
        assert run(world, to, **settings).rows_written == 5
        asked = len(world.served)
        assert run(world, to, **settings).rows_written == 0
        told = [one.asked.path.rpartition("/")[2] for one in world.served[asked:]]
        assert [one for one in told if one not in ("token", "about")] == ["changes"]

        files.edit(doc, "# Welcome\n\nNew")
        files.move(note, files.folder("Other"))
        receipt = run(world, to, **settings)
        assert (receipt.rows_written, receipt.rows_deleted) == (1, 1)

        # A folder's new name and a share alone cost no content.
        content = world.content_requests
        files.rename(guide, "Guides")
        files.share(doc, may(BOB))
        receipt = run(world, to, **settings)
        assert (receipt.rows_written, receipt.moved, receipt.readers_changed) == (0, 1, 3)
        assert world.content_requests == content
        found = FrameDataset.open(str(to)).search("welcome", readers=[f"user:{BOB}"])
        assert {one.unique_id for one in found} == {f"google-drive:file/{doc}"}
        files.unshare(doc, BOB)
        run(world, to, **settings)
        assert FrameDataset.open(str(to)).search("welcome", readers=[f"user:{BOB}"]) == []

        # With a file go the comments on it, and with a folder all that is in it.
        files.delete(doc)
        files.trash(guide)
        assert run(world, to, **settings).rows_deleted == 4
        files.trash(guide, False)
        assert run(world, to, **settings).rows_written == 1
        mirror = run(world, to, "mirror", **settings)
        assert (mirror.rows_written, mirror.rows_deleted) == (0, 0)
        fresh = tmp_path / "fresh.lance"
        run(world, fresh, **settings)
        rows = [
            {k: (r.text_content, r.metadata, r.readers, r.place) for k, r in stored(one).items()}
            for one in (to, fresh)
        ]
        assert rows[0] == rows[1] and rows[0]
        held = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
        for secret in (REFRESH_TOKEN, "secret-of-the-client", "ya29."):
            assert secret.encode() not in held

    @settings(max_examples=examples(40, few=5), deadline=None)
    @given(st.integers(0, 10**6), st.booleans(), st.sampled_from([3, 1000]))
    def test_whatever_was_done_leaves_what_a_fresh_run_finds(
        self, seed: int, only_folders: bool, page: int
    ) -> None:
        chance = random.Random(seed)
        with DriveWorld() as world, pytest.MonkeyPatch.context() as patch:
            patch.setattr(account, "PAGE_SIZE", page)
            patch.setattr(changes, "_KEPT_BYTES", 900 * page)
            files = world.files
            folders = [files.folder("Top"), files.folder("Inner", files.drive("Team"))]
            how: dict[str, Any] = {"permissions": True}
            how |= {"folders": folders} if only_folders else {}
            for _ in range(30):
                edit(files, chance)
            if only_folders and not all(_is_seen(world, one) for one in folders):
                return
            copy = Copy(world, **how).run()
            for _ in range(3):
                done = [edit(files, chance) for _ in range(chance.randrange(1, 5))]
                if only_folders and not all(_is_seen(world, one) for one in folders):
                    return
                world.expired = len(files.log) if chance.random() < 0.2 else 0
                copy.run()
                world.expired = 0
                fresh = Copy(world, **how).run()
                names = copy.stored.keys() | fresh.stored.keys()
                # A comment is no change of its file, and neither is what a hidden folder does.
                unseen = {one for one in names - copy.stored.keys() if one.startswith("comment/")}
                unseen |= {one for one in names if _is_hidden(world, one.split("/")[1])}
                for name in names - unseen:
                    assert copy.stored.get(name) == fresh.stored.get(name), (name, done)
            assert world.problems == []


def _is_seen(world: DriveWorld, folder: str) -> bool:
    item = world.files.items.get(folder)
    return item is not None and bool(world.files.role(ADA, item)) and not _trashed(world, folder)


def _trashed(world: DriveWorld, identifier: str) -> bool:
    return world.files.is_trashed(world.files.items[identifier])


def _is_hidden(world: DriveWorld, identifier: str) -> bool:
    """Returns whether a file is below a folder that Ada does not see."""
    item = world.files.items.get(identifier)
    while item is not None and world.files.role(ADA, item):
        item = world.files.items.get(item.parent or "")
    return item is not None


class TestLargeDrives:
    """Three drives with 3,000 files in folders six deep."""

    @pytest.fixture(scope="class")
    @staticmethod
    def large() -> Iterator[tuple[DriveWorld, Copy, str]]:
        with DriveWorld() as world:
            files, tops = world.files, []
            for name in ("Sales", "Research", "Team"):
                at = drive = files.drive(name)
                for depth in range(6):
                    at = files.folder(f"Level {depth}", at)
                    for number in range(166):
                        files.file(f"{number}.txt", b"text", at)
                tops.append(drive)
            moved = files.folder("Archive", tops[0])
            for number in range(500):
                files.file(f"Old {number}.txt", b"text", moved)
            copy = Copy(world, drives=["all"], permissions=True, comments="none").run()
            yield world, copy, moved
            assert world.problems == []

    def test_are_listed_fifty_folders_and_a_thousand_files_a_request(self, large):
        world, copy, _ = large
        assert len(copy.stored) == 3 * 6 * 166 + 500
        # Three lists of folders; files of 18 folders and the tops: 1,497 and twice 997 files.
        assert world.sent("/drive/v3/files") == 3 + 2 + 1 + 1
        deepest = [one for one in copy.stored.values() if (one.collection or "").count("/") == 6]
        assert len(deepest) == 3 * 166
        assert world.content_requests == 0

    def test_a_renamed_folder_moves_its_500_files_without_their_content(self, large):
        world, copy, moved = large
        world.files.rename(moved, "Older")
        asked = len(world.served)
        copy.run()
        assert {one.collection for one in copy.read.values()} == {"Sales/Older"}
        assert len(copy.read) == 500 and not copy.gone
        told = [one.asked.path.rpartition("/")[2] for one in world.served[asked:]]
        assert sorted(told) == [
            *("about", *["changes"] * 3, "drives", "files", *["permissions"] * 3),
        ]

    def test_the_members_of_a_drive_are_readers_of_all_in_it(self, large):
        world, copy, _ = large
        drive = next(iter(world.files.drives))
        world.files.share(drive, may("eng@acme.test", kind="group"))
        copy.run()
        assert len(copy.read) == 6 * 166 + 500
        assert {tuple(one.readers or ()) for one in copy.read.values()} == {
            ("group:eng@acme.test", f"user:{ADA}")
        }

    def test_a_drive_whose_member_one_is_no_longer_goes(self, large):
        world, copy, _ = large
        drive = list(world.files.drives)[1]
        world.files.unshare(drive, ADA)
        copy.run()
        assert len(copy.gone) == 6 * 166 and not copy.read
        assert not copy.run().gone
        world.files.share(drive, may(ADA, "organizer"))
        assert len(copy.run().read) == 6 * 166


@pytest.mark.parametrize("limit", ["MOST_KEPT", "MOST_TEXT"])
def test_with_too_many_folders_to_keep_they_are_listed_each_time(
    world: DriveWorld, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    for module in (folders, drive_connector):
        monkeypatch.setattr(module, limit, 0, raising=False)
    files = world.files
    drive = files.drive("Team")
    top = files.folder("Top", drive)
    doc = files.doc("Doc", "a", files.folder("Inner", top))
    old = files.doc("Old", "a", files.folder("Gone", top))
    copy = Copy(world, drives=[drive], permissions=True).run()
    assert copy.states[f"drive/{drive}"]["folders"] is None
    files.rename(top, "Upper")
    files.delete(files.items[old].parent or "")
    new = files.doc("New", "a", top)
    copy.run()
    assert set(copy.stored) == {f"file/{doc}", f"file/{new}"}
    assert copy.stored[f"file/{doc}"].collection == "Team/Upper/Inner"
    files.share(drive, may(BOB))
    copy.run()
    assert {tuple(one.readers or ()) for one in copy.stored.values()} == {
        (f"user:{ADA}", f"user:{BOB}")
    }
    assert not copy.run().read


class TestWhatIsRead:
    def test_folders_drives_and_what_is_shared(self, world: DriveWorld) -> None:
        files = world.files
        own = files.folder("Own")
        mine = files.doc("Mine", "a", own)
        drive = files.drive("Team")
        ours = files.doc("Ours", "a", files.folder("Plans", drive))
        shared = files.folder("Shared", owner=BOB)
        theirs = files.doc("Theirs", "a", shared, owner=BOB)
        single = files.doc("Single", "a", owner=BOB)
        files.doc("Hidden", "a", owner=BOB)
        files.share(shared, may(ADA))
        files.share(single, may(ADA))

        def read(**settings: Any) -> dict[str, str]:
            found = Copy(world, **settings).run().stored
            return {k.removeprefix("file/"): str(v.collection) for k, v in found.items()}

        everything = {
            mine: "My Drive/Own",
            ours: "Team/Plans",
            theirs: "Shared with me/Shared",
            single: "Shared with me",
        }
        assert read() == everything
        assert read(my_drive=True) == {mine: "My Drive/Own"}
        assert set(read(shared_with_me=True)) == {theirs, single}
        assert read(drives=["all"]) == read(drives=[drive]) == {ours: "Team/Plans"}
        address = f"https://drive.google.com/drive/folders/{own}?usp=sharing"
        assert read(folders=[address, shared]) == {mine: "Own", theirs: "Shared"}
        # Whose folder its owner sees no longer is not lost.
        files.move(mine, files.root(BOB))
        assert read(my_drive=True) == {mine: "My Drive"}

    def test_patterns_types_and_queries(self, world: DriveWorld) -> None:
        files = world.files
        top = files.folder("Top")
        kept, old = files.folder("guide", top), files.folder("archive", top)
        note = files.file("a.md", b"a", kept, mime="text/markdown")
        plain = files.file("b.txt", b"b", kept)
        gone = files.file("c.md", b"c", old, mime="text/markdown")

        def read(**settings: Any) -> set[str]:
            found = Copy(world, folders=[top], **settings).run().stored
            return {one.removeprefix("file/") for one in found}

        assert read(include=["guide/**"]) == {note, plain}
        assert read(exclude=["archive"]) == read(exclude=["archive/**"]) == {note, plain}
        assert read(include=["**/*.md"], exclude=["archive"]) == {note}
        assert read(mime_types=["text/plain"]) == {plain}
        assert read(query="name contains '.md'") == {note, gone}

        copy = Copy(world, folders=[top], exclude=["archive"], query="name contains 'a'").run()
        assert set(copy.stored) == {f"file/{note}"}
        files.rename(old, "current")
        files.rename(note, "x.md")
        files.rename(gone, "a again.md")
        copy.run()
        assert (set(copy.read), copy.gone) == ({f"file/{gone}"}, {f"file/{note}"})

    def test_shortcuts_loops_and_same_names(self, world: DriveWorld) -> None:
        files = world.files
        top = files.folder("Top")
        inner = files.folder("Inner", top)
        back = files.shortcut("back", top, inner)
        doc, twin = files.doc("Same", "a", inner), files.doc("Same", "b", inner)
        link = files.shortcut("Same", doc, top)
        found = Copy(world, folders=[top, inner]).run().stored
        assert set(found) == {f"file/{one}" for one in (back, doc, twin, link)}
        told = record(world, link, folders=[top])
        assert (told.text_content, told.metadata["kind"]) == ("", "shortcut")
        assert relationships(told) == [("parent", f"file/{top}"), ("reference", f"file/{doc}")]

    def test_comments_and_replies(self, world: DriveWorld) -> None:
        files = world.files
        doc = files.doc("Plan", "# Plan")
        first = files.comment(
            doc,
            "Really?",
            quotedFileContent={"value": "one &amp; two"},
            mentionedEmailAddresses=[ADA],
        )
        files.reply(first, "Yes")
        files.reply(first, "", action="resolve")
        for number in range(120):
            files.comment(doc, f"Comment {number}")
        copy = Copy(world).run()
        assert len(copy.stored) == 1 + 2 + 120
        made = copy.connector
        items = {one["id"]: one for page in copy.pages for one in page.items}
        comment = made.map_to_frame_record(items[f"{doc}/{first['id']}"])
        reply = made.map_to_frame_record(items[f"{doc}/{first['id']}/{first['replies'][0]['id']}"])
        assert isinstance(comment, FrameRecord) and isinstance(reply, FrameRecord)
        assert comment.text_content == "> one & two\n\nReally?"
        assert relationships(comment) == [("parent", f"file/{doc}"), ("mentions", f"user/{ADA}")]
        assert relationships(reply) == [("parent", f"comment/{doc}/{first['id']}")]
        assert str(comment.metadata["uri"]).endswith(f"?disco={first['id']}")
        inline = str(record(world, doc, comments="inline").text_content)
        assert inline.startswith("# Plan\n\n## Comments\n\n- Bob, 2026-01-01T00:00: > one & two")
        assert record(world, doc, comments="none").text_content == "# Plan"
        # Of a file that changed, comments that are gone go.
        files.items[doc].comments[-1]["deleted"] = True
        files.edit(doc, "# Plans")
        assert len(copy.run().gone) == 1


class TestWhoMayRead:
    @pytest.mark.parametrize(
        ("permission", "readers"),
        [
            (may("Ana@Acme.test"), ["user:ana@acme.test"]),
            (may("eng@acme.test", kind="group"), ["group:eng@acme.test"]),
            (may("acme.test", kind="domain", allowFileDiscovery=True), ["domain:acme.test"]),
            (may("acme.test", kind="domain"), ["google-link:acme.test"]),
            (may("", kind="anyone", allowFileDiscovery=True), ["anyone"]),
            (may("", kind="anyone"), ["google-link:anyone"]),
            ({"type": "user", "id": "17", "role": "reader"}, ["user:17"]),
            (may(BOB, deleted=True), []),
            (may(BOB, view="metadata"), []),
            (may(BOB, expirationTime="2020-01-01T00:00:00Z"), []),
            (may(BOB, expirationTime="2999-01-01T00:00:00Z"), [f"user:{BOB}"]),
        ],
    )
    def test_a_permission_names_readers(self, permission, readers):
        assert readers_of([permission]) == readers

    def test_a_folder_with_limited_access_hides_what_is_in_it(self, world: DriveWorld) -> None:
        files = world.files
        drive = files.drive("Team", may(ADA, "organizer"), may(EVE, "writer"))
        secret = files.folder("Secret", drive)
        open_one, hidden = files.doc("Open", "a", drive), files.doc("Hidden", "a", secret)
        comment = files.comment(hidden, "Nice")["id"]
        copy = Copy(world, drives=[drive], permissions=True).run()
        assert copy.stored[f"file/{hidden}"].readers == sorted([f"user:{ADA}", f"user:{EVE}"])
        files.items[secret].limited = True
        files.share(secret, may(BOB))
        copy.run()
        for name in (f"file/{hidden}", f"comment/{hidden}/{comment}"):
            assert copy.stored[name].readers == sorted([f"user:{ADA}", f"user:{BOB}"])
        assert copy.stored[f"file/{open_one}"].readers == sorted([f"user:{ADA}", f"user:{EVE}"])

    def test_what_is_not_told_is_unknown(self, world: DriveWorld) -> None:
        files = world.files
        doc = files.doc("Theirs", "a", owner=BOB)
        files.share(doc, may(ADA))
        assert Copy(world, permissions=True).run().stored[f"file/{doc}"].readers is None
        assert Copy(world).run().stored[f"file/{doc}"].readers is None


_LATIN = "Die Äpfel fallen nicht weit vom Stamm, und süß sind sie für große Bäume.\n" * 3


class TestContent:
    def test_each_kind_of_file(self, world: DriveWorld, tmp_path: Path) -> None:
        files = world.files
        top = files.folder("Top")
        png = "data:image/png;base64,AAAA"
        link = "https://docs.google.com/document/d/1abcdefghijk/edit"
        doc = files.doc("Doc", f"# A\n\n![][image1] [b]({link})\n\n[image1]: <{png}>", top)
        kinds = {
            "report": files.file("Report", pdf(["Paper of the year"]), top, "application/pdf"),
            "latin": files.file("latin.txt", _LATIN.encode("latin-1"), top),
            "log": files.file("noname", b"a line", top, "application/octet-stream"),
            "blob": files.file("noname2", b"\0\1\2", top, "application/octet-stream"),
            "image": files.file("cat.png", b"png", top, "image/png"),
            "large": files.file("large.txt", b"x" * 5000, top),
            "empty": files.file("empty.txt", b"", top),
            "drawing": files._add("Drawing", DRAWING, top, ADA).id,
            "form": files._add("Form", FORM, top, ADA).id,
        }
        to = tmp_path / "kb.lance"
        receipt = run(world, to, folders=[top], attachments="text", max_file_bytes=4000)
        assert (receipt.rows_written, receipt.failed, receipt.skipped) == (10, 0, 0)
        found = stored(to)
        texts = {name: found[f"file/{one}"].text_content for name, one in kinds.items()}
        assert texts == {
            "report": "Paper of the year",
            "latin": _LATIN,
            "log": "a line",
            **dict.fromkeys(("blob", "image", "large", "empty", "drawing", "form"), ""),
        }
        reasons = {
            name: found[f"file/{one}"].metadata.get("text_left_out") for name, one in kinds.items()
        }
        assert {name: why for name, why in reasons.items() if why} == {"large": "too large"}
        address = f"https://drive.google.com/open?id={doc}"
        one = found[f"file/{doc}"]
        assert one.text_content == f"# A\n\n![Image]({address}) [b]({link})"
        assert ("reference", "file/1abcdefghijk") in relationships(one)
        assert found[f"file/{kinds['drawing']}"].metadata["kind"] == "drawing"
        kept = record(world, kinds["image"], folders=[top], attachments="bytes")
        assert (kept.raw_data, kept.raw_data_type) == (b"png", "image/png")

    def test_sheets_of_a_spreadsheet_and_slides_of_a_presentation(self, world: DriveWorld) -> None:
        files = world.files
        tables = {name: [["a", "b|c"], ["1", ""]] for name in ("One", "Two", "Three")}
        sheets = [files.sheets(f"Numbers {n}", tables) for n in range(4)]
        for one in sheets:
            assert record(world, one).text_content == "\n\n".join(
                f"## {name}\n\n| a | b\\|c |\n| --- | --- |\n| 1 |  |" for name in tables
            )
        assert world.sent("/v4/.*") == 4
        title = {"placeholder": {"type": "TITLE"}, "text": _text("Plan")}
        body = {"text": _text("One", "Two")}
        slides = [{"objectId": "p1", "pageElements": [{"shape": title}, {"shape": body}]}]
        talk = files.slides("Talk", slides, None)
        assert record(world, talk).text_content == "## Plan\n\nOne\n\nTwo"
        world.disabled = {"sheets", "slides"}
        files.items[sheets[0]].exports[OFFICE[".xlsx"]] = _workbook()
        assert record(world, sheets[0]).text_content == "## First\n\n| x |\n| --- |"
        assert record(world, talk).text_content == "Talk"
        assert record(world, sheets[1], export="text").text_content == "a,b|c\n1,"
        assert (
            record(world, sheets[0], export="office").text_content == "## First\n\n| x |\n| --- |"
        )

    def test_what_is_too_large_for_an_export_comes_by_its_link(self, world: DriveWorld) -> None:
        doc = world.files.doc("Long", "word " * (3 << 20))
        assert len(str(record(world, doc).text_content)) > 10 << 20
        sheets = world.files.sheets("Numbers", {"One": [["a"]]})
        world.files.items[sheets].exports["text/csv"] = b"x" * (11 << 20)
        told = record(world, sheets, export="text")
        assert (told.text_content, told.metadata["text_left_out"]) == (
            "",
            "exportSizeLimitExceeded",
        )

    @pytest.mark.parametrize("kind", ["doc", "file"])
    @pytest.mark.parametrize(
        "reason",
        [
            *("insufficientFilePermissions", "cannotDownloadFile", "fileNotDownloadable"),
            *("cannotDownloadAbusiveFile", "downloadRestricted"),
        ],
    )
    def test_what_may_not_be_read_is_told_and_the_rest_goes_on(self, world, reason, kind):
        files = world.files
        one = files.doc("One", "a") if kind == "doc" else files.file("one.bin", b"a")
        made = connector(world)
        made.authenticate()
        item = item_of(made, one)
        world.refusing[one] = reason
        found = made.map_to_frame_record(item)
        assert isinstance(found, FrameRecord)
        assert (found.text_content, found.metadata["text_left_out"]) == ("", reason)
        assert made.get_stats()["content_left_out"] == 1

    def test_what_a_list_says_may_not_be_downloaded_is_not_asked_for(
        self, world: DriveWorld
    ) -> None:
        no = {"capabilities": {"canDownload": False}}
        for one in (world.files.doc("Doc", "a", **no), world.files.file("a.txt", b"a", **no)):
            assert record(world, one).metadata["text_left_out"] == "cannotDownload"
        assert world.content_requests == 0

    def test_malware_is_read_only_if_that_is_wanted(self, world: DriveWorld) -> None:
        one = world.files.file("one", b"text", mime="application/octet-stream")
        world.files.items[one].more["capabilities"] = {"canDownload": True}
        world.refusing[one] = "cannotDownloadAbusiveFile"
        assert record(world, one).text_content == ""
        assert record(world, one, acknowledge_abuse=True).text_content == "text"

    def test_a_download_in_ranges_has_the_checksum_that_drive_tells(
        self, world: DriveWorld
    ) -> None:
        data = bytes(range(256)) * (40 << 10)
        one = world.files.file("large.bin", data, mime="application/octet-stream")
        made = connector(world, attachments="bytes")
        made.authenticate()
        item = item_of(made, one)

        def change(asked: Asked) -> bool:
            if asked.headers.get("range", "").startswith("bytes=8388608-"):
                world.files.items[one].data = data[:-1] + b"!"
                world.closing = None
            return False

        world.closing = change
        found = made.map_to_frame_record(item)
        assert isinstance(found, FrameRecord) and found.raw_data is not None
        digest = hashlib.md5(found.raw_data).hexdigest()
        assert digest == hashlib.md5(data[:-1] + b"!").hexdigest()

    def test_a_file_that_is_gone_meanwhile_is_told_and_stays(self, world: DriveWorld) -> None:
        one = world.files.file("one.txt", b"text")
        made = connector(world)
        made.authenticate()
        item = item_of(made, one)
        world.files.delete(one)
        with pytest.raises(GoneError, match=r"one\.txt.*notFound"):
            made.own_document(item, 100)


def _text(*paragraphs: str) -> dict[str, Any]:
    elements: list[dict[str, Any]] = []
    for one in paragraphs:
        elements += [{"paragraphMarker": {}}, {"textRun": {"content": f"{one}\n"}}]
    return {"textElements": elements}


def _workbook() -> bytes:
    data = io.BytesIO()
    book = xlsxwriter.Workbook(data)
    book.add_worksheet("First").write(0, 0, "x")
    book.close()
    return data.getvalue()


class TestAccounts:
    def test_application_default_credentials_of_a_file(
        self, world: DriveWorld, tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "account.json"
        file.write_text(json.dumps(world.account(key)))
        doc = world.files.doc("Doc", "# A")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        for credentials in (None, str(file), f"file:{file}"):
            found = Copy(world, credentials=credentials).run()
            assert set(found.stored) == {f"file/{doc}"}
        assert world.scopes == {"https://www.googleapis.com/auth/drive.readonly"}
        acted = Copy(world, credentials=None, subject=BOB).run()
        assert not acted.stored and "user/bob@acme.test" in acted.states

    def test_two_subjects_have_a_part_each_and_a_loss_of_one_is_none_of_the_other(
        self, world: DriveWorld, key: str
    ) -> None:
        files = world.files
        mine, theirs = files.doc("Mine", "a"), files.doc("Theirs", "a", owner=BOB)
        given = json.dumps(world.account(key))
        copy = Copy(world, credentials=given, subjects=[ADA, BOB], drives=[], my_drive=True).run()
        places = {name: str(one.place and one.place.partition) for name, one in copy.stored.items()}
        assert places == {
            f"file/{mine}": f"user/{ADA}/{files.root()}",
            f"file/{theirs}": f"user/{BOB}/{files.root(BOB)}",
        }
        files.share(mine, may(BOB))
        copy.run()
        files.unshare(mine, BOB)
        assert not copy.run().gone
        files.delete(theirs)
        assert copy.run().gone == {f"file/{theirs}"}

    def test_another_account_reads_all_anew_as_feeds_are_an_accounts_own(
        self, world: DriveWorld, key: str
    ) -> None:
        folder = world.files.folder("Folder")
        doc = world.files.doc("Doc", "a", folder)
        world.files.share(folder, may(BOB))
        world.robots["second"] = BOB
        accounts = [json.dumps(world.account(key, name)) for name in ("first", "second")]
        copy = Copy(world, credentials=accounts[0], folders=[folder]).run()
        later = Copy(world, credentials=accounts[1], folders=[folder])
        later.stored, later.states = copy.stored, copy.states
        assert set(later.run().read) == {f"file/{doc}"}

    def test_a_subject_that_is_not_delegated_is_told(self, world: DriveWorld, key: str) -> None:
        made = connector(world, credentials=json.dumps(world.account(key)), subject=EVE)
        with pytest.raises(ConnectorError, match="unauthorized_client"):
            made.authenticate()

    def test_all_of_another_account_is_another_source(self, world: DriveWorld) -> None:
        made = connector(world)
        made.authenticate()
        assert made.account_id() == may(ADA)["id"]
        assert connector(world, folders=["1abcdefghijkl"]).account_id() == ""

    @pytest.mark.parametrize(
        ("settings", "reason"),
        [
            ({"folders": ["My folder"]}, "no id and no address"),
            ({"drives": ["x"]}, "drives"),
            ({"export": "html"}, "export"),
            ({"comments": "some"}, "comments"),
            ({"attachments": "all"}, "attachments"),
            ({"requests_per_minute": 0}, "requests_per_minute"),
            ({"client_id": "x"}, "client_id, client_secret and refresh_token"),
            (
                {"client_id": "x", "client_secret": "y", "refresh_token": "z", "subject": ADA},
                "subj",
            ),
            ({"include": ["/absolute"]}, "pattern"),
        ],
    )
    def test_arguments_without_sense_are_refused(self, settings, reason):
        with pytest.raises(ConfigError, match=reason):
            GoogleDriveConnector(**settings)

    def test_two_ways_to_write_a_folder_are_one_source(self) -> None:
        ways = ("1abcdefghijkl", "https://drive.google.com/drive/u/0/folders/1abcdefghijkl")
        one, other = (GoogleDriveConnector(folders=[way]).source_id() for way in ways)
        assert one == other != GoogleDriveConnector().source_id()

    def test_nothing_that_travels_has_a_secret(self, world: DriveWorld) -> None:
        world.files.doc("Doc", "a")
        copy = Copy(world).run()
        assert b"ya29." not in pickle.dumps(copy.pages) + json.dumps(copy.states).encode()
        assert b"env:KEY" in pickle.dumps(GoogleDriveConnector(credentials="env:KEY"))


class TestWhatCannotBeRead:
    def test_a_token_that_expired_lists_all_again_and_finds_what_is_gone(
        self, world: DriveWorld, caplog: pytest.LogCaptureFixture
    ) -> None:
        files = world.files
        folder = files.folder("Folder")
        kept, gone = files.doc("Kept", "a", folder), files.doc("Gone", "a", folder)
        lost = files.doc("Lost", "a", files.folder("Old", folder))
        copy = Copy(world, folders=[folder]).run()
        files.delete(gone)
        files.delete(files.items[lost].parent or "")
        new = files.doc("New", "a", folder)
        for status in (404, 410):
            world.expired, world.expired_status = len(files.log), status
            copy.run()
            world.expired = 0
            assert set(copy.stored) == {f"file/{kept}", f"file/{new}"}
        assert "its changes are forgotten, so all is listed again" in caplog.text
        assert not copy.run().read

    def test_folders_and_drives_that_cannot_be_read_are_named(self, world: DriveWorld) -> None:
        folder = world.files.folder("Folder")
        world.files.doc("Doc", "a", folder)
        made = connector(world, folders=[folder, "1missing000"], drives=["0ADmissing"])
        made.authenticate()
        assert len(list(made.partitions())) == 2
        told = made.get_stats()["skipped"]
        assert set(told) == {"folder 1missing000", "drive 0ADmissing"}
        doc = world.files.doc("Other", "a")
        with pytest.raises(ConfigError, match="no folder"):
            list(connector(world, folders=[doc]).partitions())

    def test_a_named_drive_that_is_lost_is_told_and_stays(self, world: DriveWorld) -> None:
        drive = world.files.drive("Team")
        world.files.doc("Doc", "a", drive)
        copy = Copy(world, drives=[drive]).run()
        world.files.unshare(drive, ADA)
        copy.run()
        assert not copy.gone and "Team" in next(iter(copy.unread))

    def test_a_search_that_was_not_whole_makes_the_run_partial(self, world: DriveWorld) -> None:
        world.incomplete = True
        world.files.doc("Doc", "a")
        assert "searched only a part" in next(iter(Copy(world, my_drive=True).run().unread))

    def test_comments_that_may_not_be_read_are_counted(self, world: DriveWorld) -> None:
        doc = world.files.doc("Doc", "a")
        world.refusing[doc] = "comments"
        copy = Copy(world).run()
        assert set(copy.stored) == {f"file/{doc}"} and not copy.unread
        assert copy.connector.get_stats()["comments_refused"] == 1

    @pytest.mark.parametrize(
        ("reason", "advice"),
        [
            ("dailyLimitExceeded", "used up for today"),
            ("quotaExceeded", "used up for today"),
            ("accessNotConfigured", "enable this API"),
            ("insufficientPermissions", "drive.readonly"),
        ],
    )
    def test_what_concerns_all_requests_ends_the_run(self, world, reason, advice):
        world.files.doc("Doc", "a")
        made = connector(world)
        made.authenticate()
        world.scripted.append(world._fail(403, "No.", reason))
        with pytest.raises(ConnectorError, match=advice):
            list(made.partitions())

    @pytest.mark.parametrize(
        "reason", ["userRateLimitExceeded", "rateLimitExceeded", "sharingRateLimitExceeded"]
    )
    def test_a_limit_that_outlasts_the_wait_fails_in_one_message(self, world, reason):
        made = connector(world, max_wait=0.1)
        made.authenticate()
        world.scripted += [world._fail(403, "Slow down.", reason)] * 2
        with pytest.raises(ConnectorError, match=r"asks to wait .* s more, and max_wait is 0.1 s"):
            list(made.partitions())

    def test_a_token_that_is_refused_in_mid_run_ends_it(
        self, world: DriveWorld, tmp_path: Path
    ) -> None:
        world.files.doc("Doc", "a")
        world.renews = False
        world.closing = lambda asked: _revoked(world, asked)
        with pytest.raises(Exception, match="401"):
            run(world, tmp_path / "kb.lance")
        assert not (tmp_path / "kb.lance").exists()

    def test_a_token_that_ends_in_mid_run_is_renewed(self, world: DriveWorld) -> None:
        doc = world.files.doc("Doc", "a")
        world.closing = lambda asked: _revoked(world, asked)
        assert record(world, doc).text_content == "a"
        exports = [one for one in world.served if one.asked.path.endswith("/export")]
        assert [one.status for one in exports] == [401, 200]


def _revoked(world: DriveWorld, asked: Asked) -> bool:
    """Lets the first token end with the first request for content."""
    if asked.path.endswith("/export") and not world.revoked:
        world.revoked.add(asked.bearer)
    return False


class TestGoogleDriveConnector(ConnectorTests):
    @pytest.fixture(autouse=True)
    def _world(self, world: DriveWorld) -> None:
        self.world = world
        for number in range(2):
            folder = world.files.folder(f"Folder {number}")
            world.files.comment(world.files.doc(f"Doc {number}", "# Text", folder), "Nice")
            world.files.file("a.txt", b"plain", folder)

    def connector(self) -> GoogleDriveConnector:
        return connector(self.world)


def test_a_look_shows_the_account_and_three_frames(world: DriveWorld) -> None:
    folder = world.files.folder("Handbook")
    for number in range(4):
        world.files.doc(f"Doc {number}", "# Text", folder)
    found = look(connector(world, folders=[folder]))
    assert found.access[:2] == ["Ada (ada@acme.test)", "My Drive: Handbook"]
    assert found.ok and [one.title for one in found.samples] == ["Doc 0", "Doc 1", "Doc 2"]


def test_a_dead_letter_keeps_an_item_so_that_it_can_be_tried_again(world: DriveWorld) -> None:
    doc = world.files.doc("Doc", "# Text")
    made = connector(world)
    made.authenticate()
    again = FileItem.of(json.loads(json.dumps(item_of(made, doc))))
    found = made.map_to_frame_record(again)
    assert isinstance(found, FrameRecord)
    assert (found.unique_id, found.text_content) == (f"google-drive:file/{doc}", "# Text")


class TestUnderLoad:
    @pytest.mark.parametrize("at", [2, 5, 7])
    def test_a_request_whose_connection_breaks_is_sent_again(
        self, world: DriveWorld, at: int
    ) -> None:
        doc = world.files.doc("Doc", "a", world.files.folder("Folder"))
        world.closing = lambda asked: asked.number == at
        assert set(Copy(world).run().stored) == {f"file/{doc}"}

    @pytest.mark.soak
    def test_with_googles_limit_hardly_any_request_is_refused(
        self, world: DriveWorld, tmp_path: Path
    ) -> None:
        for number in range(60):
            world.files.doc(f"Doc {number}", "a")
        world.limit = Window(100, 60)
        receipt = run(world, tmp_path / "kb.lance", requests_per_minute=100)
        refused = [one for one in world.served if one.status in (403, 429)]
        assert receipt.rows_written == 60 and len(refused) < 0.05 * len(world.served)

    @pytest.mark.soak
    def test_ended_at_each_request_the_next_run_ends_right(
        self, world: DriveWorld, tmp_path: Path
    ) -> None:
        files = world.files
        folder = files.folder("Folder")
        doc = files.doc("Doc", "a", folder)
        files.comment(doc, "Nice")
        files.file("a.txt", b"plain", files.folder("Inner", folder))
        run(world, tmp_path / "whole.lance")
        whole = {k: v.text_content for k, v in stored(tmp_path / "whole.lance").items()}
        for number in range(1, len(world.served)):
            to = tmp_path / f"{number}.lance"
            first = len(world.served) + number
            world.closing = lambda asked, first=first: asked.number >= first  # type: ignore[misc]
            try:
                run(world, to)
            except ConnectorError:
                world.closing = None
                run(world, to)
            world.closing = None
            assert {k: v.text_content for k, v in stored(to).items()} == whole

    @pytest.mark.soak
    def test_a_hundred_thousand_files_are_read_in_little_memory(self) -> None:
        # In a process of its own, since a world keeps all there is in memory.
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve_files, args=(theirs, 100_000), daemon=True)
        process.start()
        url = ours.recv()
        made = {"client_id": "id", "client_secret": "secret-of-c", "refresh_token": REFRESH_TOKEN}
        subject = Subject(
            lambda: GoogleDriveConnector(
                **made, base_url=url, requests_per_minute=1e6, comments="none"
            ),
            limit=100_000,
        )
        (found,) = run_checks(subject, ["memory_stays_bounded"])
        process.terminate()
        assert found.status is Status.PASSED, found


def _serve_files(told: Any, count: int) -> None:
    """Serves a world with so many files, and tells its address."""
    with DriveWorld() as world:
        for number in range(count // 100):
            folder = world.files.folder(f"Folder {number}")
            for inner in range(100):
                world.files.file(f"{inner}.txt", b"text", folder)
        told.send(world.url)
        threading.Event().wait()


SECOND_OPINION = """
import io
from google.oauth2.credentials import Credentials
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError
from googleapiclient.http import MediaIoBaseDownload

url, token, doc, file, sheets, talk, drive, start = given
def service(name, version, path):
    at = {"api_endpoint": url + path}
    return build(name, version, credentials=Credentials(token), client_options=at)
api = service("drive", "v3", "/drive/v3/")
every = {"supportsAllDrives": True, "includeItemsFromAllDrives": True}
files, request = [], api.files().list(q="trashed=false", pageSize=3, **every)
while request is not None:
    answer = request.execute()
    files += [one["id"] for one in answer["files"]]
    request = api.files().list_next(request, answer)
data = io.BytesIO()
download = MediaIoBaseDownload(data, api.files().get_media(fileId=file), chunksize=4)
while not download.next_chunk()[1]:
    pass
changes = api.changes().list(pageToken=start, **every).execute()
def refused(call):
    try:
        call.execute()
    except HttpError as error:
        return [error.resp.status, error.error_details[0]["reason"]]
cells = service("sheets", "v4", "/").spreadsheets().get(spreadsheetId=sheets).execute()
tell({
    "me": api.about().get(fields="user").execute()["user"]["emailAddress"],
    "files": files,
    "drives": [one["id"] for one in api.drives().list().execute()["drives"]],
    "text": api.files().export(fileId=doc, mimeType="text/markdown").execute().decode(),
    "data": data.getvalue().decode(),
    "comments": len(api.comments().list(fileId=doc, fields="*").execute()["comments"]),
    "members": len(api.permissions().list(fileId=drive, supportsAllDrives=True)
                   .execute()["permissions"]),
    "changed": [one["fileId"] for one in changes["changes"]],
    "next": changes["newStartPageToken"] == api.changes().getStartPageToken().execute()[
        "startPageToken"],
    "sheets": [one["properties"]["title"] for one in cells["sheets"]],
    "slides": len(service("slides", "v1", "/").presentations().get(presentationId=talk)
                  .execute()["slides"]),
    "missing": refused(api.files().get(fileId="none")),
    "no_bytes": refused(api.files().get_media(fileId=doc)),
})
"""


def test_googles_own_client_reads_the_same_world(world: DriveWorld) -> None:
    files = world.files
    folder = files.folder("Folder")
    doc, file = files.doc("Doc", "# Text", folder), files.file("a.txt", b"plain text", folder)
    sheets = files.sheets("Numbers", {"One": [["a"]], "Two": [["b"]]}, folder)
    talk = files.slides("Talk", [{"objectId": "p1"}], folder)
    files.comment(doc, "Nice")
    drive = files.drive("Team")
    start = str(len(files.log))
    files.edit(doc, "# Text\n\nmore")
    given = [world.url, f"ya29.{ADA}", doc, file, sheets, talk, drive, start]
    found = python("googleapiclient", SECOND_OPINION, *given)
    assert {*found["files"]} - {folder} == {
        one.partition("/")[2] for one in Copy(world).run().stored if one.startswith("file/")
    }
    del found["files"]
    assert found == {
        "me": ADA,
        "drives": [drive],
        "text": "# Text\n\nmore",
        "data": "plain text",
        "comments": 1,
        "members": 1,
        "changed": [doc],
        "next": True,
        "sheets": ["One", "Two"],
        "slides": 1,
        "missing": [404, "notFound"],
        "no_bytes": [403, "fileNotDownloadable"],
    }
