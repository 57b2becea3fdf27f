"""Items that fail are kept whole, in one file, with what is needed to try them again."""

from __future__ import annotations

import json
import os
import shutil
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from fsspec.implementations.local import LocalFileSystem

from contextframe_beam import FrameRecord
from contextframe_beam.connectors import DeadLetter, Page, PaginatedConnector
from contextframe_beam.errors import ConfigError, DatasetError
from contextframe_beam.transforms import DeadLetterReport, FrameBatch, WriteDeadLetters
from contextframe_beam.transforms.letters import (
    LetterFile,
    join_pieces,
    pieces_prefix,
    remove_lost_pieces,
    remove_pieces,
)
from tests.support.pipeline_helpers import (
    EVERY_WAY,
    IN_ONE_PROCESS,
    document,
    documents,
    finish,
    ids_in,
    new_pipeline,
    run,
    sink,
)


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    return tmp_path / "letters" / "failed.jsonl"


def letters_in(file: Path) -> list[DeadLetter]:
    return [DeadLetter.from_json(line) for line in file.read_text().splitlines()]


class Refusing:
    """Refuses records with one id, or gives back something that is no record."""

    def __init__(self, refused: str, answer: Any = None) -> None:
        self.refused = refused
        self.answer = answer

    def enrich(self, record: FrameRecord, source_item: Any) -> Any:
        if record.unique_id != self.refused:
            return record
        if self.answer is None:
            raise LookupError(f"nothing known about {record.unique_id}")
        return self.answer


class HalfReadable(PaginatedConnector):
    """One of its items cannot be read."""

    def fetch_page(self, partition: Any, cursor: Any) -> Page:
        letter = DeadLetter.of("read", OSError("gone"), {"id": 2}, "", "", "file-2.json")
        return Page(items=[{"id": 1}], failures=[letter])

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return document(item["id"])


class TestRuns:
    @EVERY_WAY
    def test_each_failed_item_is_in_the_file_once(self, kb, letters, how):
        good = list(range(20))
        bad = [{"id": f"bad-{number}", "error": f"reason {number}"} for number in range(10)]
        receipt = run(
            documents(*good, *bad, partitions=5),
            kb,
            run_id="nightly",
            dead_letters=str(letters),
            **how,
        )
        found = sorted(letters_in(letters), key=lambda letter: letter.message)
        assert [letter.original_item() for letter in found] == bad
        assert [letter.message for letter in found] == [f"reason {number}" for number in range(10)]
        assert receipt.failed == 10
        for letter in found:
            assert (letter.stage, letter.connector, letter.run_id) == (
                "map",
                "Documents",
                "nightly",
            )
            assert letter.error_type == "ValueError"
            assert "in map_to_frame_record" in letter.traceback
            assert letter.partition.startswith("part-")
            assert letter.position.startswith("page ")
            assert letter.time.startswith("20")
        assert list(letters.parent.iterdir()) == [letters]

    @IN_ONE_PROCESS
    def test_every_stage_has_letters(self, kb, letters, how):
        bad = [
            {"id": "map", "error": "no"},
            {"id": "encode", "vector": [1.0, 2.0]},
            {"id": "enrich", "text": "x"},
        ]
        run(
            documents(1, *bad),
            kb,
            enrichers=[Refusing("doc:enrich")],
            dead_letters=str(letters),
            **how,
        )
        assert ids_in(kb) == ["1"]
        found = {letter.stage: letter for letter in letters_in(letters)}
        assert sorted(found) == ["encode", "enrich", "map"]
        for stage, letter in found.items():
            assert letter.original_item() == next(item for item in bad if item["id"] == stage)
        assert found["enrich"].message == "nothing known about doc:enrich"
        assert "vector has 2 values and the dataset holds 4" in found["encode"].message

    @EVERY_WAY
    def test_the_file_is_there_although_the_run_failed(self, kb, letters, how):
        items = [1, {"id": 2, "error": "no"}, {"id": 3, "error": "no"}]
        with pytest.raises(Exception, match="2 of 3 items failed"):
            run(documents(*items), kb, max_failures=1, dead_letters=str(letters), **how)
        assert len(letters_in(letters)) == 2
        assert list(letters.parent.iterdir()) == [letters]

    @IN_ONE_PROCESS
    def test_without_failures_there_is_no_file(self, kb, letters, how):
        run(documents(1, 2), kb, dead_letters=str(letters), **how)
        assert not letters.exists()


class TestLetters:
    def test_items_that_could_not_be_read_are_in_the_file_too(self, kb, letters):
        receipt = run(HalfReadable(), kb, run_id="nightly", dead_letters=str(letters))
        (letter,) = letters_in(letters)
        assert (letter.stage, letter.connector, letter.partition, letter.position) == (
            "read",
            "HalfReadable",
            "all",
            "file-2.json",
        )
        assert (letter.run_id, letter.original_item()) == ("nightly", {"id": 2})
        assert receipt.failed == 1

    @pytest.mark.parametrize(
        ("answer", "shown"), [("text", "a str"), (0, "a int"), ({"a": 1}, "a dict")]
    )
    def test_an_enricher_that_returns_no_record_is_named(self, kb, letters, answer, shown):
        run(
            documents(1, 2),
            kb,
            enrichers=[Refusing("doc:2", answer)],
            dead_letters=str(letters),
        )
        (letter,) = letters_in(letters)
        assert letter.message == f"Refusing.enrich returned {shown}; it must return the FrameRecord"

    def test_a_record_without_a_source_item_is_kept_itself(self, kb, letters):
        bad = document(2, metadata={"of": {1, 2}}, raw_data=b"\0", timestamp="2026-01-01")
        pipeline = new_pipeline()
        records = pipeline | beam.Create([document(1), bad])
        receipt = finish(pipeline, records | sink(kb, dead_letters=str(letters)), kb)
        (letter,) = letters_in(letters)
        assert FrameRecord(**letter.original_item()) == bad
        assert (letter.stage, receipt.failed, ids_in(kb)) == ("encode", 1, ["1"])

    def test_odd_items_come_back_as_they_were(self, kb, letters):
        item = {"id": 2, "error": "no", "bytes": b"\xff", "pair": (1, None), "big": 10**40}
        run(documents(1, item), kb, dead_letters=str(letters))
        (letter,) = letters_in(letters)
        assert letter.original_item() == item


class TestFile:
    def test_it_replaces_the_letters_of_an_earlier_run(self, kb, letters):
        for number in (1, 2):
            bad = {"id": f"bad-{number}", "error": f"reason {number}"}
            run(documents(0, bad), kb, dead_letters=str(letters))
        assert [letter.message for letter in letters_in(letters)] == ["reason 2"]

    def test_letters_of_an_earlier_run_do_not_look_like_those_of_this_one(self, kb, letters):
        run(documents(1, {"id": 2, "error": "no"}), kb, dead_letters=str(letters))
        run(documents(1, 2), kb, dead_letters=str(letters))
        assert not letters.exists()

    @pytest.mark.parametrize("name", ["a*b.jsonl", "a[1].jsonl", "a?b.jsonl", "ä ö.jsonl"])
    def test_its_name_may_hold_anything(self, kb, letters, name):
        file = letters.with_name(name)
        other = letters.with_name("aXb.jsonl.run.0.part")
        other.parent.mkdir()
        other.touch()
        run(documents(1, {"id": 2, "error": "no"}), kb, run_id="run", dead_letters=str(file))
        assert len(letters_in(file)) == 1
        assert sorted(letters.parent.iterdir()) == sorted([file, other])

    def test_it_can_be_written_without_a_sink(self, letters):
        bad = FrameBatch(
            [], [], failures=[DeadLetter.of("map", ValueError("no"), 1, "c", "p", "0")]
        )
        pipeline = new_pipeline()
        reports = pipeline | beam.Create([bad, FrameBatch([], [])]) | WriteDeadLetters(str(letters))
        reports | beam.Map(_keep, str(letters.with_name("report.json")))
        pipeline.run().wait_until_finish()
        report = DeadLetterReport(**json.loads(letters.with_name("report.json").read_text()))
        assert report == DeadLetterReport(str(letters), 1)
        (letter,) = letters_in(letters)
        assert letter.run_id

    def test_a_place_that_cannot_be_written_fails_the_run(self, kb, tmp_path):
        (tmp_path / "file").write_text("in the way")
        letters = tmp_path / "file" / "letters.jsonl"
        with pytest.raises(Exception, match=r"cannot write the dead letters to .*`dead_letters`"):
            run(documents(1, {"id": 2, "error": "no"}), kb, dead_letters=str(letters))
        assert not kb.exists() or not list(kb.glob("_versions/*"))

    def test_an_address_that_nothing_can_write_to_is_refused_before_anything_is_read(self, kb):
        with pytest.raises(ConfigError, match=r"cannot write dead letters to nowhere://bucket/x"):
            WriteDeadLetters("nowhere://bucket/x")


def _keep(report: DeadLetterReport, file: str) -> None:
    Path(file).write_text(json.dumps({"path": report.path, "count": report.count}))


class TestPieces:
    """What a killed run leaves, and joining that happens twice."""

    def test_joining_again_after_the_pieces_are_gone_keeps_the_file(self, letters):
        letters.parent.mkdir()
        pieces = [f"{pieces_prefix(str(letters), 'run')}{number}.part" for number in range(2)]
        for number, piece in enumerate(pieces):
            Path(piece).write_text(f"{number}\n")
        for _ in range(2):
            join_pieces(str(letters), pieces)
            assert letters.read_text() == "0\n1\n"
        remove_pieces(str(letters), "run")
        join_pieces(str(letters), pieces)
        assert letters.read_text() == "0\n1\n"
        assert list(letters.parent.iterdir()) == [letters]

    def test_pieces_that_another_process_removes_meanwhile_leave_its_file_as_it_is(
        self, letters, monkeypatch
    ):
        letters.parent.mkdir()
        letters.write_text("joined by the other one\n")
        pieces = [f"{pieces_prefix(str(letters), 'run')}{number}.part" for number in range(2)]
        for piece in pieces:
            Path(piece).write_text("a letter\n")
        copy = shutil.copyfileobj

        def copy_and_lose_the_rest(source, target):
            copy(source, target)
            Path(pieces[1]).unlink()

        monkeypatch.setattr(shutil, "copyfileobj", copy_and_lose_the_rest)
        join_pieces(str(letters), pieces)
        assert letters.read_text() == "joined by the other one\n"

    def test_pieces_that_a_run_left_a_week_ago_go_with_the_next_one(self, kb, letters):
        letters.parent.mkdir()
        old, young = (Path(f"{pieces_prefix(str(letters), name)}0.part") for name in "ab")
        for piece in (old, young):
            piece.touch()
        os.utime(old, (0, time.time() - 8 * 24 * 3600))
        run(documents(1, {"id": 2, "error": "no"}), kb, run_id="r", dead_letters=str(letters))
        assert sorted(letters.parent.iterdir()) == [letters, young]

    def test_pieces_of_a_killed_attempt_are_not_joined_and_are_removed(self, kb, letters):
        letters.parent.mkdir()
        left = Path(f"{pieces_prefix(str(letters), 'nightly')}left.part")
        left.write_text("half a let")
        other = Path(f"{pieces_prefix(str(letters), 'another')}1.part")
        other.write_text("of a run that goes on")
        run(
            documents(1, {"id": 2, "error": "no"}),
            kb,
            run_id="nightly",
            dead_letters=str(letters),
        )
        assert len(letters_in(letters)) == 1
        assert sorted(letters.parent.iterdir()) == sorted([letters, other])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_letters_that_find_no_space_say_so(tmp_path):
    piece = tmp_path / "piece"
    piece.write_text("letter\n")
    with pytest.raises(DatasetError, match="No space left on device; check space"):
        join_pieces("/dev/full", [str(piece)])


def test_a_cleanup_passes_over_a_piece_that_its_run_joins_meanwhile(tmp_path, monkeypatch):
    for name in ("joined", "lost"):
        (tmp_path / f"{name}.part").write_text("{}\n")
    modified = LocalFileSystem.modified

    def joined_when_looked_at(self, path):
        (tmp_path / "joined.part").unlink(missing_ok=True)
        return modified(self, path)

    monkeypatch.setattr(LocalFileSystem, "modified", joined_when_looked_at)
    assert remove_lost_pieces(f"{tmp_path}/", timedelta(0)) == (1, 3)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_file_for_dead_letters(tmp_path):
    with pytest.raises(ConfigError, match="it is a folder; name a file with `dead_letters`"):
        LetterFile(str(tmp_path), "run")
