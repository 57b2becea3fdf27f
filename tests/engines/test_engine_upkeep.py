"""Indices and compaction on engines: tasks run on its workers, and one step commits them."""

from __future__ import annotations

from pathlib import Path

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.pipelines.compact import compact
from contextframe_beam.pipelines.vector_index import index_vectors
from contextframe_beam.store.vector_index import vector_index
from tests.support.engines import EACH_ENGINE, Running, engine, engines
from tests.support.search_helpers import random_library

__all__ = ["engine", "engines"]

VECTORS, PART = 300, 50


def unknown_to_the_index(dataset: FrameDataset) -> int:
    index = vector_index(dataset.lance)
    assert index is not None
    return int(dataset.lance.stats.index_stats(index.name)["num_unindexed_rows"])


@EACH_ENGINE
def test_parts_of_an_index_are_made_there_and_compaction_keeps_up(
    engine: Running, tmp_path: Path
) -> None:
    how = {"runner": engine.runner, "beam_args": engine.arguments()}
    dataset, vectors = random_library(str(tmp_path / "kb.lance"), VECTORS, 8)
    uri = dataset.uri

    def add(part: int) -> None:
        numbers = range(part * PART, (part + 1) * PART)
        FrameDataset.open(uri).add_many(
            FrameRecord("more", unique_id=f"{part}-{n}", vector=-vectors[n]) for n in numbers
        )

    def finds_all(parts: int) -> bool:
        found = FrameDataset.open(uri)
        return all(
            found.nearest(-vectors[n])[0].unique_id == f"{n // PART}-{n}"
            and found.nearest(vectors[n])[0].unique_id == str(n)
            for n in range(0, parts * PART, 20)
        )

    add(0)
    add(1)
    before = FrameDataset.open(uri).version
    made = index_vectors(uri, task_rows=1, **how)
    assert (made.made, made.parts, made.version) == (True, 3, before + 1)
    assert made.vectors == VECTORS + 2 * PART
    assert finds_all(parts=2)

    add(2)
    dataset = FrameDataset.open(uri)
    fragments = len(dataset.lance.get_fragments())
    assert unknown_to_the_index(dataset) >= PART
    rows = {record.unique_id for record in dataset}
    receipt = compact(uri, **how)
    assert receipt.fragments_after < receipt.fragments_before == fragments
    dataset = FrameDataset.open(uri)
    assert unknown_to_the_index(dataset) == 0
    assert {record.unique_id for record in dataset} == rows
    assert finds_all(parts=3)
    assert compact(uri, **how).did_nothing
