"""The dataset's own rows, the states and the anchor, which no document may take the place of."""

from __future__ import annotations

from pathlib import Path

import apache_beam as beam
import pytest

from contextframe_beam import Deletion, FrameDataset, FrameRecord
from contextframe_beam.errors import CommitError, TooManyFailures
from contextframe_beam.frames.record import ANCHOR_KEY
from contextframe_beam.pipelines.runners.errors import ours_of
from contextframe_beam.store.runs import NO_SOURCE
from contextframe_beam.store.state import SourceState
from contextframe_beam.transforms import WriteToLance

STATE_KEY = SourceState(NO_SOURCE).key


def write(to: Path, *elements: FrameRecord | Deletion) -> None:
    try:
        with beam.Pipeline(runner="FnApiRunner") as pipeline:
            pipeline | beam.Create(elements) | WriteToLance(str(to), embed_dim=4)
    except Exception as error:
        raise ours_of(error) or error from error


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    write(tmp_path / "kb.lance", *(FrameRecord(name, unique_id=name) for name in ("a", "b")))
    return tmp_path / "kb.lance"


def assert_whole(kb: Path) -> None:
    dataset = FrameDataset.open(str(kb))
    assert sorted(str(record.unique_id) for record in dataset) == ["a", "b"]
    keys = dataset.lance.to_table(columns=["uuid"], filter="x_state IS NOT NULL")["uuid"]
    assert sorted(keys.to_pylist()) == sorted([ANCHOR_KEY, STATE_KEY])


def test_a_document_under_the_key_of_the_anchor_is_a_dead_letter(kb: Path) -> None:
    with pytest.raises(TooManyFailures, match="the key of a row that every dataset has"):
        write(kb, FrameRecord("x", {"uuid": ANCHOR_KEY}))
    assert_whole(kb)


def test_a_document_under_the_key_of_a_state_is_refused(kb: Path) -> None:
    with pytest.raises(CommitError, match="Give it another uuid"):
        write(kb, FrameRecord("x", {"uuid": STATE_KEY}))
    assert_whole(kb)


@pytest.mark.parametrize("key", [ANCHOR_KEY, STATE_KEY])
def test_a_deletion_of_one_of_them_is_refused(kb: Path, key: str) -> None:
    with pytest.raises(CommitError, match="nothing was committed"):
        write(kb, Deletion(uuid=key))
    assert_whole(kb)
