"""`skip_unchanged` of the JSON connector: files that an earlier run saw as they are."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.files import seen as seen_files
from contextframe_beam.connectors.files.listing import FileInfo
from contextframe_beam.connectors.files.seen import marks_of, unseen
from tests.support.cli_helpers import cli, lines, write_documents

HOUR = 3600


def put(folder: Path, name: str, content: Any, age: float = HOUR) -> Path:
    """Writes a file that was changed so many seconds ago."""
    write_documents(folder, {name: content})
    at = time.time() - age
    os.utime(folder / name, (at, at))
    return folder / name


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    put(folder, "a.json", {"content": "a"})
    put(folder, "b.json", {"content": "b"})
    put(folder, "c.jsonl", lines([{"id": n, "content": f"c{n}"} for n in range(3)]))
    return folder


def ingest(docs: Path, *more: object) -> dict[str, Any]:
    result = cli(
        *("ingest", "json", "--directory", docs, "--pattern", "*.json*", "--skip-unchanged"),
        *("--to", docs.parent / "kb.lance", "--embed-dim", 4, "--json", *more),
    )
    assert result.code == 0, result
    found: dict[str, Any] = result.json
    return found


def seen(receipt: dict[str, Any]) -> tuple[int, int]:
    return receipt["rows_written"], receipt["rows_unchanged"]


def test_only_files_that_changed_are_read(docs):
    assert seen(ingest(docs)) == (5, 0)
    assert seen(ingest(docs)) == (0, 0)
    put(docs, "a.json", {"content": "A"}, HOUR / 2)
    put(docs, "d.json", {"content": "d"})
    assert seen(ingest(docs)) == (2, 0)
    assert seen(ingest(docs)) == (0, 0)
    assert len(FrameDataset.open(str(docs.parent / "kb.lance"))) == 6


@pytest.mark.parametrize("more", [["--full"], ["--mode", "overwrite"], ["--mode", "mirror"]])
def test_full_runs_read_everything(docs, more):
    ingest(docs)
    assert sum(seen(ingest(docs, *more))) == 5
    assert len(FrameDataset.open(str(docs.parent / "kb.lance"))) == 5


def test_a_file_that_changed_just_now_is_read_again(docs):
    put(docs, "a.json", {"content": "A"}, age=0)
    ingest(docs)
    assert seen(ingest(docs)) == (0, 1)


def test_a_file_that_cannot_be_read_is_tried_again_until_it_can(docs):
    bad = put(docs, "bad.json", b"{")
    assert ingest(docs)["failed"] == 1
    receipt = cli(
        *("ingest", "json", "--directory", docs, "--pattern", "*.json*", "--skip-unchanged"),
        *("--to", docs.parent / "kb.lance"),
    )
    assert receipt.code == 1 and "1 of 1 items failed" in receipt.err
    put(docs, "bad.json", {"content": "good"}, HOUR / 3)
    assert seen(ingest(docs)) == (1, 0)
    assert seen(ingest(docs)) == (0, 0)
    bad.unlink()
    assert seen(ingest(docs)) == (0, 0)


def test_the_state_is_of_the_files_that_are_there(docs):
    ingest(docs)
    kb = str(docs.parent / "kb.lance")
    (before,) = FrameDataset.open(kb).states()
    (docs / "a.json").unlink()
    ingest(docs)
    (after,) = FrameDataset.open(kb).states()
    assert list(after.partitions) == ["files"]
    assert len(after.partitions["files"]["seen"]) < len(before.partitions["files"]["seen"])


def test_a_run_that_commits_as_it_goes_marks_files_at_its_end(docs):
    assert seen(ingest(docs, "--commit-every", 1)) == (5, 0)
    assert seen(ingest(docs, "--commit-every", 1)) == (0, 0)


def test_a_failure_in_an_earlier_commit_is_not_forgotten_at_the_end(docs):
    put(docs, "c.jsonl", lines([{"id": 0}, {"id": 1}]) + "{\n")
    receipt = ingest(docs, "--commit-every", 1)
    assert (receipt["failed"], receipt["rows_written"]) == (1, 4)
    again = ingest(docs, "--commit-every", 1)
    assert (again["failed"], *seen(again)) == (1, 0, 2)


def test_without_being_asked_everything_is_read(docs):
    ingest(docs)
    result = cli(
        *("ingest", "json", "--directory", docs, "--pattern", "*.json*", "--json"),
        *("--to", docs.parent / "kb.lance"),
    )
    assert seen(result.json) == (0, 5)


def test_the_receipt_says_that_files_were_left_out(docs):
    ingest(docs)
    result = cli(
        *("ingest", "json", "--directory", docs, "--pattern", "*.json*", "--skip-unchanged"),
        *("--to", docs.parent / "kb.lance"),
    )
    assert "files that did not change since an earlier run were not read" in result.out


def test_a_range_of_time_is_that_of_the_files(docs):
    put(docs, "old.json", {"content": "old"}, age=40 * 24 * HOUR)
    since = (datetime.now(timezone.utc) - timedelta(days=2)).isoformat()
    assert seen(ingest(docs, "--since", since)) == (5, 0)
    assert seen(ingest(docs, "--until", since)) == (1, 0)
    assert seen(ingest(docs)) == (0, 6)


def test_beyond_the_bound_no_file_is_marked(monkeypatch):
    monkeypatch.setattr(seen_files, "MOST_FILES", 2)
    infos = [FileInfo(f"/x/{n}", n, "2020-01-01T00:00:00") for n in range(3)]
    now = datetime.now(timezone.utc)
    assert unseen(infos[:2], {"files": {"seen": marks_of(infos[:2], now)}}) == []
    assert unseen(infos, {"files": {"seen": marks_of(infos, now)}}) == infos


def test_a_state_that_was_edited_to_nonsense_reads_everything():
    infos = [FileInfo("/x", 1, "2020-01-01T00:00:00")]
    for nonsense in ({"seen": "\x00"}, {"seen": 5}, 7, {"seen": "abc"}):
        assert unseen(infos, {"files": json.loads(json.dumps(nonsense))}) == infos


ZONES = ["America/New_York", "UTC", "Asia/Kolkata", "Pacific/Kiritimati", "Pacific/Pago_Pago"]


@pytest.fixture
def machine_in(monkeypatch):
    """Sets the time zone of this machine."""

    def set_to(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield set_to
    monkeypatch.undo()
    time.tzset()


def ingest_all(docs: Path, kb: Path) -> tuple[int, int]:
    job = ("ingest", "json", "--directory", docs, "--pattern", "*.json*", "--to", kb, "--json")
    return seen(cli(*job, "--embed-dim", 4).json)


def test_the_same_files_give_the_same_rows_in_any_time_zone(docs, machine_in):
    # One in summer and one in winter, where offsets differ.
    for name, at in (("a.json", 1751371200), ("b.json", 1767614400.25)):
        os.utime(docs / name, (at, at))
    kb = docs.parent / "kb.lance"
    machine_in(ZONES[0])
    assert ingest_all(docs, kb) == (5, 0)
    for zone in ZONES[1:]:
        machine_in(zone)
        assert ingest_all(docs, kb) == (0, 5)
    found = {record.metadata["file_name"]: record for record in FrameDataset.open(str(kb))}
    assert found["a.json"].timestamp == "2025-07-01T12:00:00+00:00"
    assert found["b.json"].metadata["modified_at"] == "2026-01-05T12:00:00.250000+00:00"


def test_a_file_that_was_seen_is_seen_in_any_time_zone(docs, machine_in):
    for zone, found in zip(ZONES, [(5, 0), *[(0, 0)] * 4], strict=True):
        machine_in(zone)
        assert seen(ingest(docs)) == found


def test_marks_of_a_release_that_wrote_local_times_still_hold(machine_in):
    machine_in("America/New_York")
    now = datetime.now(timezone.utc)
    before = [FileInfo(f"/x/{n}", n, "2026-01-05T07:00:00.250000") for n in range(2)]
    today = [FileInfo(f"/x/{n}", n, "2026-01-05T12:00:00.250000+00:00") for n in range(2)]
    assert unseen(today, {"files": {"seen": marks_of(before, now)}}) == []
    touched = FileInfo("/x/0", 0, "2026-01-05T12:00:01.250000+00:00")
    assert unseen([touched], {"files": {"seen": marks_of(before, now)}}) == [touched]
