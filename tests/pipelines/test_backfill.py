"""`--commit-every`: a long run commits as it goes, and one that dies is continued by the next."""

from __future__ import annotations

import json
import os
import signal
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.cursors import Bounds
from contextframe_beam.errors import CommitError, ConcurrentRunError, ConfigError
from contextframe_beam.pipelines.backfill import Every, Progress, bounds_of, letters_of
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.store.address import Address
from contextframe_beam.store.runs import Marks
from contextframe_beam.store.state import SourceState
from contextframe_beam.store.upkeep import reset_state
from tests.support.cli_helpers import (
    assert_error,
    cli,
    start,
    wait_until,
)
from tests.support.cli_helpers import (
    letters_of as all_letters,
)
from tests.support.pipeline_helpers import data_files, documents, ids_in, named_files, texts_in

# Each partition that is read is noted; one is never answered while a file names it.
MODULE = """
import time
from pathlib import Path
from contextframe_beam import FrameRecord
from contextframe_beam.connectors import Page, PaginatedConnector, Partition

class Slow(PaginatedConnector):
    identity_args = ()
    max_in_flight = 1

    def __init__(self, folder: str, count: int = 9):
        super().__init__()
        self.folder, self.count = Path(folder), count

    def partitions(self, since=None, until=None):
        return [Partition(f"part-{n}", {"since": since}) for n in range(self.count)]

    def fetch_page(self, partition, cursor):
        with (self.folder / "read").open("a") as notes:
            notes.write(f"{partition.id}\\n")
        while (self.folder / "stuck").exists() and partition.id in (
            (self.folder / "stuck").read_text().split()
        ):
            (self.folder / "waiting").touch()
            time.sleep(0.01)
        since = partition.params["since"] or ""
        return Page([{"id": f"{partition.id}-{n}{since[:10]}"} for n in range(10)])

    def map_to_frame_record(self, item):
        if (self.folder / "refused").exists() and item["id"] == "part-0-0":
            raise ValueError("refused")
        return FrameRecord(item["id"], unique_id=f"doc:{item['id']}")
"""


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    (tmp_path / "slow.py").write_text(MODULE)
    return tmp_path


def job(folder: Path, *more: object) -> tuple[object, ...]:
    return (
        *("ingest", f"{folder}/slow.py:Slow", "--folder", folder, "--to", folder / "kb.lance"),
        *("--embed-dim", 4, "--json", *more),
    )


def read(folder: Path) -> list[str]:
    """Returns the partitions that were read since this was last asked."""
    notes = folder / "read"
    found = notes.read_text().split() if notes.exists() else []
    notes.unlink(missing_ok=True)
    return found


def state(folder: Path) -> SourceState:
    (found,) = FrameDataset.open(str(folder / "kb.lance")).states()
    return found


def killed_in(folder: Path, partition: str, *more: object) -> None:
    """Runs the job in a process that is killed while it reads a partition."""
    (folder / "stuck").write_text(partition)
    process = start(*job(folder, *more))
    wait_until((folder / "waiting").exists, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (folder / "stuck").unlink()
    (folder / "waiting").unlink()


EVERYTHING = sorted(f"part-{part}-{n}" for part in range(9) for n in range(10))


def test_a_run_that_is_killed_is_continued_by_the_next_one(slow):
    more = ("--commit-every", 2)
    killed_in(slow, "part-5", *more)
    assert len(ids_in(slow / "kb.lance")) == 40
    assert read(slow) == [f"part-{n}" for n in range(6)]
    assert state(slow).backfill["parts"] == 4

    again = cli(*job(slow, *more))
    assert again.code == 0 and "4 parts are committed, 5 are left" in again.err
    assert read(slow) == [f"part-{n}" for n in range(4, 9)]
    assert ids_in(slow / "kb.lance") == EVERYTHING
    assert again.json["rows_written"] == 90
    (run,) = state(slow).runs
    assert (run.run_id, run.written) == (again.json["run_id"], 90)
    assert not state(slow).backfill


def test_a_finished_backfill_is_known_by_its_run_id(slow):
    more = ("--commit-every", 4, "--run-id", "night")
    killed_in(slow, "part-6", *more)
    first = cli(*job(slow, *more))
    assert (first.json["run_id"], first.json["rows_written"]) == ("night", 90)
    read(slow)
    again = cli(*job(slow, *more))
    assert again.json["already_committed"] and again.json["rows_written"] == 90
    assert read(slow) == []


def test_two_deaths_and_workers_lose_and_double_nothing(slow):
    more = ("--commit-every", 3, "--mode", "append")
    killed_in(slow, "part-4", *more)
    killed_in(slow, "part-7", *more)
    assert cli(*job(slow, *more, "--workers", 2)).json["rows_written"] == 90
    assert ids_in(slow / "kb.lance") == EVERYTHING


def test_slices_are_parts_of_a_backfill(slow):
    since = ("--since", "2026-01-01", "--until", "2026-01-04", "--slice", "1d")
    more = (*since, "--commit-every", 3, "--count", 2)
    killed_in(slow, "part-1", *more)
    read(slow)
    assert cli(*job(slow, *more)).json["rows_written"] == 60
    assert len(ids_in(slow / "kb.lance")) == 60


def test_other_arguments_are_another_backfill(slow):
    killed_in(slow, "part-5", "--commit-every", 2)
    read(slow)
    assert cli(*job(slow, "--commit-every", 9, "--full")).json["rows_unchanged"] == 40
    assert len(read(slow)) == 9


def test_an_interrupt_says_what_stays_and_the_files_of_commits_stay(slow):
    (slow / "stuck").write_text("part-5")
    process = start(*job(slow, "--commit-every", 2))
    wait_until((slow / "waiting").exists, process)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "; 2 commits of run " in err
    assert " with 40 documents written stay, and the same command goes on from there" in err
    (slow / "stuck").unlink()
    assert len(list(FrameDataset.open(str(slow / "kb.lance")))) == 40
    assert cli(*job(slow, "--commit-every", 2)).code == 0
    assert ids_in(slow / "kb.lance") == EVERYTHING


def test_an_interrupt_before_the_first_commit_says_that_nothing_was_kept(slow):
    (slow / "stuck").write_text("part-1")
    process = start(*job(slow, "--commit-every", 2))
    wait_until((slow / "waiting").exists, process)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted; nothing was committed" in err
    assert not (slow / "kb.lance").exists()


# Waits for ever at one document while a file is there.
STUCK_AT = """
import time
from pathlib import Path

class Stuck:
    def enrich(self, record, item):
        while item["id"] == 10 and (Path(__file__).parent / "stuck").exists():
            (Path(__file__).parent / "waiting").touch()
            time.sleep(0.01)
        return record
"""


def test_one_large_file_is_committed_in_parts_and_an_interrupt_says_what_was_kept(tmp_path):
    (tmp_path / "docs").mkdir()
    with open(tmp_path / "docs" / "a.jsonl", "w") as file:
        for number in range(20):
            file.write(json.dumps({"id": number, "pad": "x" * (1 << 20)}) + "\n")
    (tmp_path / "stuck.py").write_text(STUCK_AT)
    (tmp_path / "stuck").touch()
    kb = tmp_path / "kb.lance"
    command = (
        *("ingest", "json", "--directory", tmp_path / "docs", "--pattern", "*.jsonl", "--to", kb),
        *("--embed-dim", 4, "--enrich", f"{tmp_path}/stuck.py:Stuck", "--commit-every", 1),
    )
    process = start(*command)
    wait_until((tmp_path / "waiting").exists, process)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "; 1 commit of run " in err and "with 8 documents written stay" in err
    (tmp_path / "stuck").unlink()
    assert len(ids_in(kb)) == 8
    again = cli(*command, "--json")
    assert "1 parts are committed, 2 are left" in again.err
    assert again.json["rows_written"] == 20
    assert [int(one.rpartition("#")[2]) for one in sorted(ids_in(kb), key=len)] == sorted(range(20))


def test_a_failure_says_what_stays_committed(tmp_path):
    kb = tmp_path / "kb.lance"
    source = documents(1, {"id": 2, "error": "no"}, partitions=2)
    with pytest.raises(CommitError, match="1 parts in 1 commits stay committed; run the same"):
        ingest(source, str(kb), commit_every=1, embed_dim=4)
    assert ids_in(kb) == ["1"]


def test_each_commit_has_dead_letters_of_its_own(slow):
    (slow / "refused").touch()
    result = cli(*job(slow, "--commit-every", 3))
    assert (result.json["failed"], result.json["rows_written"]) == (1, 89)
    (letter,) = all_letters(slow / "kb.lance")
    assert letter["item"] == {"id": "part-0-0"}
    assert Path(result.json["dead_letters"]).exists()


def test_letters_of_a_commit_that_was_killed_do_not_stay_when_the_last_one_reads_its_parts(slow):
    letters = slow / "kb.lance.dead-letters"
    letters.mkdir()
    for number in (2, 3):
        (letters / f"r.{number}.jsonl").write_text("of a commit that was killed\n")
    cli(*job(slow, "--commit-every", 3, "--run-id", "r"))
    assert not list(letters.iterdir())


@pytest.mark.parametrize("mode", ["create", "overwrite", "mirror"])
def test_modes_that_replace_a_source_as_a_whole_are_refused(tmp_path, mode):
    with pytest.raises(ConfigError, match=f"with the mode {mode} a source is committed as a whole"):
        ingest(documents(1), str(tmp_path / "kb.lance"), mode=mode, commit_every=2)
    assert not (tmp_path / "kb.lance").exists()


def test_a_wrong_size_is_wrong_usage(slow):
    assert_error(cli(*job(slow, "--commit-every", "often")), 2, "commit-every is 'often'")


def test_two_runs_of_one_backfill_do_not_both_go_on(tmp_path):
    kb = str(tmp_path / "kb.lance")

    class Meeting(type(documents())):  # type: ignore[misc]
        met = False

        def fetch_page(self, partition: Any, cursor: Any) -> Any:
            if partition.id == "part-1" and not Meeting.met:
                Meeting.met = True
                ingest(Meeting(self.pages), kb, commit_every=1, embed_dim=4)
            return super().fetch_page(partition, cursor)

    with pytest.raises(CommitError, match="another run of Meeting was committed") as error:
        ingest(Meeting(documents(1, 2, 3, 4, partitions=4).pages), kb, commit_every=1, embed_dim=4)
    assert isinstance(error.value.__cause__, ConcurrentRunError)
    assert ids_in(kb) == ["1", "2", "3", "4"]


def test_one_that_another_process_has_overtaken_leaves_no_file(slow):
    (slow / "stuck").write_text("part-1")
    process = start(*job(slow, "--commit-every", "3", "--run-id", "nightly"))
    wait_until((slow / "waiting").exists, process)
    (slow / "other").mkdir()
    assert cli(*job(slow, "--folder", slow / "other", "--run-id", "nightly")).code == 0
    (slow / "stuck").unlink()
    said, errors = process.communicate()
    assert process.returncode == 0, errors
    assert json.loads(said)["version"] == 1
    assert "the run was committed before this happened" in errors
    assert data_files(slow / "kb.lance") == named_files(slow / "kb.lance")


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_a_run_that_is_committed_while_the_parts_are_listed_is_not_done_again(tmp_path, mode):
    kb = str(tmp_path / "kb.lance")

    class Met(type(documents())):  # type: ignore[misc]
        listed = False

        def partitions(self) -> Any:
            if not Met.listed:
                Met.listed = True
                ingest(Met(self.pages), kb, mode=mode, commit_every=1, embed_dim=4)
            return super().partitions()

    with pytest.raises(ConcurrentRunError, match=r"the state of Met in .* has changed"):
        ingest(Met(documents(1, 2).pages), kb, mode=mode, commit_every=1, embed_dim=4)
    assert ids_in(kb) == ["1", "2"]


def test_a_rollback_while_the_parts_are_listed_ends_a_backfill(tmp_path):
    kb = str(tmp_path / "kb.lance")

    class RolledBack(type(documents())):  # type: ignore[misc]
        version = 0

        def partitions(self) -> Any:
            if RolledBack.version:
                FrameDataset.open(kb).rollback(RolledBack.version)
            return super().partitions()

    ingest(RolledBack(documents(1, 2).pages), kb, embed_dim=4)
    ingest(RolledBack(documents(1, 2, 3).pages), kb)
    RolledBack.version = 1
    with pytest.raises(ConcurrentRunError, match="was committed or undone"):
        ingest(RolledBack(documents(4).pages), kb, commit_every=1)
    assert ids_in(kb) == ["1", "2"]


def test_a_backfill_begun_anew_under_its_run_id_commits_every_part(tmp_path):
    kb = str(tmp_path / "kb.lance")
    with pytest.raises(CommitError, match="1 parts in 1 commits stay committed"):
        ingest(documents(1, {"id": 2, "error": "no"}), kb, run_id="r", commit_every=1, embed_dim=4)
    (state,) = FrameDataset.open(kb).states()
    reset_state(Address(kb), [state.source])
    ingest(documents({"id": 1, "text": "changed"}, 2), kb, run_id="r", commit_every=1)
    assert texts_in(kb) == {"1": "changed", "2": "text of 2"}


def test_a_backfill_is_begun_anew_when_the_source_was_read_as_a_whole_since(tmp_path):
    kb = str(tmp_path / "kb.lance")
    with pytest.raises(CommitError, match="1 parts in 1 commits stay committed"):
        ingest(documents(1, {"id": 2, "error": "no"}), kb, commit_every=1, embed_dim=4)
    ingest(documents(1, 2), kb)
    ingest(documents({"id": 1, "text": "changed"}, 2), kb, commit_every=1)
    assert texts_in(kb) == {"1": "changed", "2": "text of 2"}


@pytest.mark.parametrize(
    ("text", "every"),
    [
        ("10", Every(10, "partitions")),
        ("500rows", Every(500, "rows")),
        ("100k-rows", Every(100_000, "rows")),
        ("2M rows", Every(2_000_000, "rows")),
        ("15m", Every(900, "seconds")),
    ],
)
def test_what_a_commit_holds(text, every):
    assert Every.of(text) == every


@pytest.mark.parametrize("text", ["0", "", "ten", "-1", "5 parts", "0m", "1.5"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ConfigError, match="give a number of partitions such as 10"):
        Every.of(text)


def test_commits_grow_towards_the_rows_that_were_asked_for():
    every = Every.of("1000rows")
    assert every.parts() == 1
    assert every.parts(1, rows=100) == 4
    assert every.parts(4, rows=400) == 10
    assert every.parts(10, rows=5000) == 2
    assert every.parts(2, rows=0) == 8
    assert every.parts(3, rows=10**9) == 1


@given(st.lists(st.text()), st.text())
def test_marks_are_a_set_that_travels_as_text(names, other):
    marks = Marks()
    marks.add(names)
    packed = Marks(marks.pack())
    assert all(name in packed for name in names)
    assert (other in packed) == (other in names)
    assert len(packed) == len(set(names))


def test_letters_are_numbered_before_the_suffix():
    assert letters_of("a.d/x.jsonl", 3) == "a.d/x.3.jsonl"
    assert letters_of("a.d/x", 3) == "a.d/x.3"


def test_slices_without_an_end_go_on_to_where_they_ended_when_it_began():
    assert Bounds.of("2026-01-01", slice="1d").is_open
    assert not Bounds.of("2026-01-01", "2026-01-03", "1d").is_open


def test_a_range_that_reached_ahead_when_a_backfill_began_does_so_to_its_end():
    began, until = datetime(2026, 1, 1, tzinfo=timezone.utc), datetime(2026, 1, 3)
    bounds = Bounds.of(since="2025-12-01", until=until, slice="1d")
    assert not bounds.reaches_ahead
    progress = Progress("run", "arguments", began.isoformat())
    assert bounds_of(progress, bounds).reaches_ahead
