"""A process that is killed at any point leaves the dataset as it was or as it should be.

The killed process is a real one, killed with SIGKILL; then the run is started again, under its own
id and under a new one, and the dataset holds exactly one copy of each document.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import pytest

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.connectors import Page, Partition
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.store.address import Address
from contextframe_beam.store.files import open_dataset
from contextframe_beam.transforms import CommitReceipt, commit, letters
from tests.support.cli_helpers import environment, run_code
from tests.support.pipeline_helpers import (
    EMBED_DIM,
    Documents,
    data_files,
    documents,
    ids_in,
    texts_in,
)

#: Names the point where the process kills itself, as in `before commit`.
POINT_VARIABLE = "CONTEXTFRAME_TEST_KILL"

#: Functions at whose beginning or end a process can be killed.
FUNCTIONS = {
    "commit": (commit, ["commit_update", "commit_overwrite"]),
    "state rows": (commit, ["write_rows"]),
    "duplicates": (commit, ["drop_duplicates"]),
    "tidying up": (commit, ["delete_files"]),
    "joining letters": (letters, ["join_pieces"]),
}


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str) -> None:
    """Makes this process kill itself when it comes to a point."""
    when, _, name = point.partition(" ")
    if name not in FUNCTIONS:
        return
    module, functions = FUNCTIONS[name]
    for function in functions:
        setattr(module, function, _deadly(getattr(module, function), when))


def _deadly(real: Callable[..., Any], when: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            kill_this_process()
        result = real(*args, **kwargs)
        kill_this_process()
        return result

    return call


# Worker processes import this module with the connector, and so come to the point as well.
if POINT_VARIABLE in os.environ:
    arm(os.environ[POINT_VARIABLE])


class Deadly(Documents):
    """Its last page, or the mapping of its last item, kills the process if that is the point."""

    def fetch_page(self, partition: Partition, cursor: Any) -> Page:
        page = super().fetch_page(partition, cursor)
        if any(item.get("last") for item in page.items):
            self._kill_at("while reading")
        return page

    def map_to_frame_record(self, item: Any) -> FrameRecord:
        if item.get("last"):
            self._kill_at("while mapping")
        return super().map_to_frame_record(item)

    def _kill_at(self, point: str) -> None:
        if os.environ.get(POINT_VARIABLE) == point:
            kill_this_process()


PAGES = {
    "all": [
        [{"id": 1, "text": "new"}, {"id": 2}],
        [{"id": 3, "at": "2026-01-01", "text": "old"}, {"id": 4, "error": "no"}],
        [{"id": 3, "at": "2026-01-02", "text": "new"}, {"id": 5, "last": True}],
    ]
}
NEW = {"1": "new", "2": "text of 2", "3": "new", "5": "text of 5"}
OLD = {"1": "text of 1", "9": "text of 9"}


def ingest_deadly(kb: Path, mode: str, run_id: str, workers: int = 1) -> CommitReceipt:
    return ingest(
        Deadly(PAGES),
        str(kb),
        mode=mode,
        run_id=run_id,
        workers=workers,
        embed_dim=EMBED_DIM if open_dataset(Address(str(kb))) is None else None,
        dead_letters=str(kb.with_name("letters.jsonl")),
    )


def ingest_in_child(arguments: str) -> None:
    kb, mode, run_id = json.loads(arguments)
    ingest_deadly(Path(kb), mode, run_id)


def killed(point: str, kb: Path, mode: str, run_id: str) -> bool:
    """Runs the job in a process that is to be killed; tells whether it came to the point."""
    child = run_code(
        "import sys; from tests.pipelines.test_crash import ingest_in_child; "
        "ingest_in_child(sys.argv[1])",
        json.dumps([str(kb), mode, run_id]),
        env=environment(**{POINT_VARIABLE: point}),
    )
    assert child.code in (0, -signal.SIGKILL), child.err
    return child.code == -signal.SIGKILL


def expected(mode: str, new_dataset: bool) -> dict[str, str]:
    return {**({} if new_dataset or mode == "overwrite" else OLD), **NEW}


def copies_of(kb: Path, *names: str) -> list[Path]:
    """Copies a dataset with the letters beside it, so that each copy can go on in its own way."""
    copies = []
    for name in names:
        folder = kb.parent.with_name(f"{kb.parent.name}-{name}")
        shutil.copytree(kb.parent, folder)
        copies.append(folder / kb.name)
    return copies


def check(kb: Path, mode: str, new_dataset: bool) -> None:
    """Checks that the dataset is as after one run that nothing disturbed."""
    want = expected(mode, new_dataset)
    if mode == "append" and not new_dataset:
        assert ids_in(kb) == sorted([*OLD, *NEW])
    else:
        assert ids_in(kb) == sorted(want)
        assert texts_in(kb) == want
    dataset = lance.dataset(str(kb))
    states = 2 if not new_dataset else 1
    assert dataset.count_rows(filter="x_state IS NOT NULL") == states + 1
    (letter,) = kb.with_name("letters.jsonl").read_text().splitlines()
    assert json.loads(letter)["item"]["id"] == 4
    assert not list(kb.parent.glob("*.part"))


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here" / "kb.lance"


def begin_with(kb: Path, new_dataset: bool) -> None:
    if not new_dataset:
        ingest(documents(1, 9, source="earlier"), str(kb), embed_dim=EMBED_DIM)


SETTINGS = pytest.mark.parametrize(
    ("mode", "new_dataset"),
    [
        ("create", True),
        ("upsert", False),
        ("append", False),
        ("overwrite", False),
    ],
    ids=lambda value: value if isinstance(value, str) else ("new" if value else "old"),
)


@SETTINGS
class TestKilledAtTheCommit:
    def test_before_it_nothing_is_visible_and_any_rerun_is_whole(self, kb, mode, new_dataset):
        begin_with(kb, new_dataset)
        assert killed("before commit", kb, mode, "nightly")
        if new_dataset:
            assert open_dataset(Address(str(kb))) is None
        else:
            assert texts_in(kb) == OLD
            assert lance.dataset(str(kb)).version == 1
        assert data_files(kb)
        same, other = copies_of(kb, "same", "other")
        assert not ingest_deadly(same, mode, "nightly").already_committed
        check(same, mode, new_dataset)
        ingest_deadly(other, mode, "another")
        check(other, mode, new_dataset)

    def test_after_it_the_run_is_there_and_any_rerun_leaves_one_copy(self, kb, mode, new_dataset):
        begin_with(kb, new_dataset)
        assert killed("after commit", kb, mode, "nightly")
        version = lance.dataset(str(kb)).version
        assert version == (1 if new_dataset else 2)
        same, other = copies_of(kb, "same", "other")
        receipt = ingest_deadly(same, mode, "nightly")
        assert (receipt.rows_written, receipt.rows_dropped, receipt.failed) == (4, 1, 1)
        assert lance.dataset(str(same)).version == version
        check(same, mode, new_dataset)
        if mode not in ("append", "create"):  # which do not look, or want no dataset there
            again = ingest_deadly(other, mode, "another")
            check(other, mode, new_dataset)
            assert again.rows_written == (0 if mode == "upsert" else 4)


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    "point",
    [
        "while reading",
        "while mapping",
        "before joining letters",
        "after joining letters",
        "after duplicates",
        "after state rows",
        "before tidying up",
    ],
)
def test_killed_anywhere_else(kb, point):
    begin_with(kb, new_dataset=False)
    assert killed(point, kb, "upsert", "nightly")
    assert texts_in(kb) == (OLD if point != "before tidying up" else {**OLD, **NEW})
    same, other = copies_of(kb, "same", "other")
    ingest_deadly(same, "upsert", "nightly")
    check(same, "upsert", new_dataset=False)
    ingest_deadly(other, "upsert", "another")
    # Pieces of letters of a run that is given up stay beside the letters of its successor.
    for piece in other.parent.glob("*.nightly.*.part"):
        piece.unlink()
    check(other, "upsert", new_dataset=False)


def test_killed_again_and_again(kb):
    begin_with(kb, new_dataset=False)
    for point in ("while mapping", "after state rows", "after commit"):
        assert killed(point, kb, "upsert", "nightly")
    assert ingest_deadly(kb, "upsert", "nightly").rows_written == 4
    check(kb, "upsert", new_dataset=False)


def test_files_of_a_killed_run_do_not_trouble_a_compaction(kb):
    begin_with(kb, new_dataset=False)
    assert killed("before commit", kb, "upsert", "nightly")
    assert len(data_files(kb)) > 2
    lance.dataset(str(kb)).optimize.compact_files()
    assert texts_in(kb) == OLD
    ingest_deadly(kb, "upsert", "nightly")
    check(kb, "upsert", new_dataset=False)
    assert len(FrameDataset.open(str(kb)).search("new")) == 2


class TestWorkersThatAreKilled:
    """The launcher lives on and says what happened."""

    @pytest.mark.parametrize("point", ["while reading", "before commit", "after commit"])
    def test_the_run_fails_or_is_there_and_a_rerun_is_whole(self, kb, monkeypatch, point):
        begin_with(kb, new_dataset=False)
        monkeypatch.setenv(POINT_VARIABLE, point)
        with pytest.raises(Exception, match=r"killed by signal 9|Channel closed"):
            ingest_deadly(kb, "upsert", "nightly", workers=2)
        monkeypatch.delenv(POINT_VARIABLE)
        assert texts_in(kb) == (OLD if point != "after commit" else {**OLD, **NEW})
        receipt = ingest_deadly(kb, "upsert", "nightly")
        assert receipt.already_committed == (point == "after commit")
        check(kb, "upsert", new_dataset=False)
