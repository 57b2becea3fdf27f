"""A dataset that an earlier release wrote opens, and is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.transforms.commit import commit_run
from tests.support.pipeline_helpers import begin, document, ids_in, texts_in, write

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(params=["2.0", "2.1"])
def kb(request, tmp_path: Path) -> Path:
    to = tmp_path / "kb.lance"
    shutil.copytree(DATA / f"release-0.1-{request.param}.lance", to)
    return to


def test_it_is_read_and_searched(kb):
    dataset = FrameDataset.open(str(kb))
    assert ids_in(kb) == ["1", "2", "3", "4"]
    assert dataset.get("doc:2") == document(2)
    assert [record.unique_id for record in dataset.search("4")] == ["doc:4"]
    (state,) = dataset.states()
    assert [one.run_id for one in state.runs] == ["run-0", "run-1"]
    assert state.partitions == {"all": {"at": 1}}


def test_an_upsert_replaces_what_changed_only(kb):
    started = begin(kb, "now")
    receipt = commit_run(started, write(started, 1, document(2, "new"), 5))
    assert (receipt.rows_written, receipt.rows_replaced, receipt.rows_unchanged) == (2, 1, 1)
    assert texts_in(kb)["2"] == "new"
    assert ids_in(kb) == ["1", "2", "3", "4", "5"]


def test_a_mirror_deletes_what_is_gone(kb):
    started = begin(kb, "now", "mirror")
    assert commit_run(started, write(started, 3, 4)).rows_deleted == 2
    assert ids_in(kb) == ["3", "4"]


def test_a_run_that_the_earlier_release_committed_is_not_committed_again(kb):
    started = begin(kb, "run-1")
    assert commit_run(started, write(started, 9)).already_committed
