"""The history of runs: what is kept of each, in which order, and how sources are doing by it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from contextframe_beam.errors import DatasetError
from contextframe_beam.store import history
from contextframe_beam.store.address import Address
from contextframe_beam.store.history import History, RunRecord, joined, statuses
from contextframe_beam.store.receipt import CommitReceipt
from contextframe_beam.store.runs import own_mark

NOW = datetime(2026, 11, 28, 12, tzinfo=timezone.utc)


def record(hours_ago: float, outcome: str = history.COMMITTED, **told: object) -> RunRecord:
    time = (NOW - timedelta(hours=hours_ago)).isoformat()
    return replace(
        RunRecord(f"run-{hours_ago}", time, time if outcome else "", outcome, source="s"), **told
    )


@pytest.fixture
def kept(tmp_path: Path) -> History:
    return History(Address(str(tmp_path / "kb.lance")))


def test_records_come_back_as_they_were_the_newest_first(kept):
    old, new = record(2, arguments={"a": [1]}, counts={"written": 3}), record(1, error="no")
    kept.write(new)
    kept.write(old)
    assert kept.records() == [new, old]
    assert kept.records(last=1) == [new]


def test_the_end_of_a_run_replaces_its_beginning(kept):
    begun = record(1, "")
    kept.write(begun)
    kept.write(history.ended(begun, history.FAILED, error="no such folder"))
    (found,) = kept.records()
    assert (found.outcome, found.error) == (history.FAILED, "no such folder")
    assert found.seconds is not None and found.seconds > 0


def test_a_second_start_of_a_run_has_a_record_of_its_own(kept):
    kept.write(record(2, run_id="nightly"))
    kept.write(record(1, run_id="nightly"))
    assert len(kept.records()) == 2


def test_run_ids_of_any_characters_have_their_own_files(kept):
    ids = ["a/b", "a%2Fb", "..", "ü" * 300, "a b\\c"]
    for run_id in ids:
        kept.write(record(1, run_id=run_id))
    assert sorted(one.run_id for one in kept.records()) == sorted(ids)


def test_the_oldest_records_go_when_there_are_too_many(kept, monkeypatch):
    monkeypatch.setattr(history, "KEPT", 3)
    for hours in (5, 4, 3, 2, 1):
        kept.write(record(hours))
    assert [one.run_id for one in kept.records()] == ["run-1", "run-2", "run-3"]


def test_what_is_no_record_is_left_out_and_said(kept, caplog):
    kept.write(record(1))
    for name, text in {"x": "{", "y": "[]", "z": '{"run_id": 7, "began": "2026"}'}.items():
        Path(kept.folder, f"{name}.json").write_text(text)
    assert [one.run_id for one in kept.records()] == ["run-1"]
    assert caplog.text.count("is no record of a run") == 3


def test_later_releases_may_add_fields():
    read = RunRecord.from_json('{"run_id": "a", "began": "2026-01-01T00:00Z", "new": 1}')
    assert read.run_id == "a"


def test_a_history_that_cannot_be_written_is_said_and_ends_nothing(kept):
    assert kept.write(record(1)) == ""
    Path(kept.folder).rename(f"{kept.folder}.old")
    Path(kept.folder).write_text("a file")
    told = kept.write(record(1))
    assert told.startswith(f"the history of the run cannot be written to {kept.folder}: ")


def test_a_history_that_cannot_be_read_names_the_folder(tmp_path):
    kept = History(Address("unknown://bucket/kb.lance"))
    with pytest.raises(DatasetError, match=r"cannot read the history in unknown://bucket"):
        kept.records()


def test_a_run_whose_process_is_gone_has_died():
    machine, process, _ = own_mark().split("-")
    assert record(1, "", mark=own_mark()).state == history.RUNNING
    assert record(1, "", mark=f"{machine}-{process}-1").state == history.DIED
    assert record(1, "", mark="elsewhere-1-1").state == history.NO_END


def test_committed_runs_of_other_programs_are_joined():
    other = CommitReceipt("other", "upsert", "2026-11-28T11:30:00+00:00", 2, rows_written=1)
    known = record(1, run_id="known", counts={"written": 1})
    committed = [
        RunRecord.of_receipt(other, "s", "files"),
        RunRecord.of_receipt(replace(other, run_id="known"), "s", "files"),
    ]
    assert [one.run_id for one in joined([known], committed)] == ["other", "known"]


@pytest.mark.parametrize(
    ("runs", "late", "failing"),
    [
        ([record(1)], False, False),
        ([record(30)], True, False),
        ([record(30), record(1, history.FAILED)], True, True),
        ([record(2), record(1, history.FAILED)], False, True),
        ([record(2, history.FAILED), record(1)], False, False),
        ([record(1, history.INTERRUPTED)], True, True),
        ([record(2), record(1, "", mark="elsewhere-1-1")], False, True),
        ([record(2), record(1, "", mark=own_mark())], False, False),
        ([record(30), record(1, history.NOTHING)], False, False),
    ],
)
def test_a_source_is_late_or_failing_by_its_last_runs(runs, late, failing):
    (status,) = statuses(runs, timedelta(hours=26), NOW)
    assert (status.is_late, status.is_failing) == (late, failing)


def test_each_source_is_judged_by_its_own_runs():
    found = statuses([record(1), record(1, history.FAILED, source="t")], None, NOW)
    assert {one.source: one.is_well for one in found} == {"s": True, "t": False}
