"""A dataset that an earlier release wrote opens, and is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.frames.schema import OWN_COLUMNS
from contextframe_beam.transforms.commit import commit_run
from tests.support.chunked import chunked, chunks_in
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


def test_its_documents_get_chunks_and_lose_them(kb):
    for number, count in enumerate((3, 1, 0, 2)):
        started = begin(kb, f"now-{number}")
        receipt = commit_run(started, write(started, *chunked(2, count, f"state {number}"), 3))
        assert (receipt.rows_written, receipt.rows_unchanged) == (1, 1)
        assert chunks_in(kb) == {"1": 0, "2": count, "3": 0, "4": 0}
    assert FrameDataset.open(str(kb)).delete("doc:2")
    assert chunks_in(kb) == {"1": 0, "3": 0, "4": 0}


def test_a_run_that_dies_leaves_it_as_it_was_but_for_empty_columns(kb):
    before = list(FrameDataset.open(str(kb)))
    write(begin(kb, "now"), *chunked(2, 3))
    dataset = FrameDataset.open(str(kb))
    assert list(dataset) == before
    assert set(OWN_COLUMNS) <= set(dataset.schema.names)
    assert chunks_in(kb) == {"1": 0, "2": 0, "3": 0, "4": 0}


def test_it_is_overwritten_by_documents_with_chunks(kb):
    started = begin(kb, "now", "overwrite", max_deletes="100%")
    receipt = commit_run(started, write(started, *chunked(2, 3)))
    assert (receipt.rows_replaced, receipt.rows_deleted) == (1, 3)
    assert chunks_in(kb) == {"2": 3}


def test_a_run_that_the_earlier_release_committed_is_not_committed_again(kb):
    started = begin(kb, "run-1")
    assert commit_run(started, write(started, 9)).already_committed
