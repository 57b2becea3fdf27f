"""The ledger notices whatever may go wrong; otherwise a campaign could not fail."""

from __future__ import annotations

import random
from pathlib import Path

import lance
import pytest

from contextframe_beam.frames.schema import frame_schema
from contextframe_beam.pipelines.ingest import ingest
from tests.faults.ledger import Ledger
from tests.faults.simulated import Simulated, pieces_of
from tests.faults.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world.sqlite", random.Random(4), size=8)


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    return tmp_path / "kb.lance"


@pytest.fixture
def ledger(world: World, kb: Path) -> Ledger:
    return Ledger(kb, world.items, pieces=pieces_of)


CHUNKER = "tests.faults.simulated:Pieces"


def sync(world: World, kb: Path, run_id: str, source: str = "left") -> None:
    embed_dim = None if kb.exists() else 4
    connector = Simulated(world.path, source)
    ingest(connector, str(kb), run_id=run_id, embed_dim=embed_dim, chunk=CHUNKER)


def test_runs_that_went_well_are_told_in_order(world, kb, ledger):
    assert ledger.follow() == []
    sync(world, kb, "one")
    sync(world, kb, "two", "right")
    assert ledger.follow() == ["one", "two"]
    world.evolve("left")
    sync(world, kb, "three")
    assert ledger.follow() == ["three"]
    reached = {
        name: {one["round"] for one in of.values()} for name, of in ledger.now.reached.items()
    }
    assert reached == {"left": {2}, "right": {1}}


def test_a_row_that_is_lost(world, kb, ledger):
    sync(world, kb, "one")
    ledger.follow()
    dataset = lance.dataset(str(kb))
    documents = "x_state IS NULL AND x_parent IS NULL"
    key = dataset.to_table(columns=["uuid"], filter=documents, limit=1)["uuid"][0]
    dataset.delete(f"uuid = '{key}'")
    with pytest.raises(AssertionError, match="1 rows are missing"):
        ledger.follow()


def test_a_chunk_that_is_lost(world, kb, ledger):
    sync(world, kb, "one")
    ledger.follow()
    dataset = lance.dataset(str(kb))
    key = dataset.to_table(columns=["uuid"], filter="x_parent IS NOT NULL", limit=1)["uuid"][0]
    dataset.delete(f"uuid = '{key}'")
    with pytest.raises(AssertionError, match=r"in its chunks, .* 1 rows are missing"):
        ledger.follow()


def test_chunks_of_another_state_of_their_document(world, kb, ledger):
    sync(world, kb, "one")
    ledger.follow()
    chunks = "x_parent IS NOT NULL AND position = 0"
    lance.dataset(str(kb)).update({"text_content": "'older'"}, where=chunks)
    with pytest.raises(AssertionError, match=r"in its chunks, .* are wrong"):
        ledger.follow()


def test_a_state_that_is_lost(world, kb, ledger):
    sync(world, kb, "one")
    ledger.follow()
    lance.dataset(str(kb)).delete("x_state IS NOT NULL AND x_source IS NOT NULL")
    with pytest.raises(AssertionError, match="has forgotten"):
        ledger.follow()


def test_a_row_that_is_there_twice(world, kb, ledger):
    sync(world, kb, "one")
    ledger.follow()
    dataset = lance.dataset(str(kb))
    rows = dataset.scanner(filter="x_state IS NULL", limit=1, blob_handling="all_binary")
    lance.write_dataset(rows.to_table().cast(frame_schema(4)), dataset, mode="append")
    with pytest.raises(AssertionError, match="twice"):
        ledger.follow()


def test_a_row_that_was_changed(world, kb, ledger):
    sync(world, kb, "one")
    ledger.follow()
    dataset = lance.dataset(str(kb))
    dataset.update({"text_content": "'other'"}, where="x_state IS NULL")
    with pytest.raises(AssertionError, match="wrong"):
        ledger.follow()


def test_a_run_that_left_out_what_it_read(world, kb, ledger):
    sync(world, kb, "one")
    reading = world.readings["left", 1]
    reading.pages["a"][0].append(
        {"id": "doc:late", "text": "late", "at": "2026-02-01", "metadata": {"version": 10**6}}
    )
    with pytest.raises(AssertionError, match="1 rows are missing"):
        ledger.follow()


@pytest.mark.parametrize("skipped", [0, 1])
def test_an_incremental_run_that_skips_a_round(world, kb, ledger, monkeypatch, skipped):
    real = Simulated.partitions

    def skipping(self, resume_from=None):
        for known in (resume_from or {}).values():
            known["round"] += skipped
        return real(self, resume_from)

    sync(world, kb, "one")
    world.evolve("left")
    world.evolve("left")
    monkeypatch.setattr(Simulated, "partitions", skipping)
    connector = Simulated(world.path, "left", changes=True, attempt=2)
    ingest(connector, str(kb), run_id="two", chunk=CHUNKER)
    if skipped:
        with pytest.raises(AssertionError, match="has a gap"):
            ledger.follow()
    else:
        assert ledger.follow() == ["one", "two"]
