"""The vector index: what is found under it, how it is made in parts, and beside other commits."""

from __future__ import annotations

import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.pipelines.compact import compact
from contextframe_beam.store.address import Address
from contextframe_beam.store.upkeep import update_indices
from contextframe_beam.store.vector_index import (
    commit_parts,
    do_index_task,
    is_current,
    parts_to_merge,
    plan_index,
    vector_index,
)
from tests.support.search_helpers import random_library

DIM = 16
ROWS = 2000


def made(uri: str, task_rows: int = 10**6) -> FrameDataset:
    at = Address(uri)
    tasks = plan_index(FrameDataset.open(uri).lance, "cosine", task_rows)
    assert commit_parts(at, [do_index_task(at, task) for task in tasks]) == len(tasks)
    return FrameDataset.open(uri)


def keys_of(vectors: Any, query: Any, count: int) -> list[str]:
    return [str(n) for n in np.argsort(-(vectors @ query), kind="stable")[:count]]


@pytest.fixture
def library(tmp_path: Path) -> tuple[FrameDataset, Any]:
    return random_library(str(tmp_path / "kb.lance"), ROWS, DIM, groups=1000)


def unindexed(dataset: FrameDataset) -> int:
    index = vector_index(dataset.lance)
    assert index is not None
    return int(dataset.lance.stats.index_stats(index.name)["num_unindexed_rows"])


class TestUnderTheIndex:
    def test_nearly_all_of_the_nearest_are_found(self, library):
        dataset, vectors = library
        dataset = made(dataset.uri)
        found = [
            len({hit.unique_id for hit in dataset.nearest(one)} & set(keys_of(vectors, one, 10)))
            for one in vectors[:50]
        ]
        assert sum(found) >= 0.95 * 500

    def test_a_filter_that_leaves_one_row_in_a_thousand_is_exact(self, library):
        dataset, vectors = library
        dataset = made(dataset.uri)
        for group in (0, 3, 999):
            members = np.arange(group, ROWS, 1000)
            query = vectors[(group + 500) % ROWS]
            order = members[np.argsort(-(vectors[members] @ query))]
            found = dataset.nearest(query, where={"collection": f"group {group}"})
            assert [hit.unique_id for hit in found] == [str(n) for n in order]

    def test_rows_are_found_before_the_index_knows_them(self, library):
        dataset, vectors = library
        dataset = made(dataset.uri)
        new = -vectors[0]
        dataset.add(FrameRecord("new", unique_id="new", vector=new))
        assert unindexed(dataset) > 0
        assert dataset.nearest(new)[0].unique_id == "new"

    def test_compact_brings_them_in(self, library):
        dataset, vectors = library
        dataset = made(dataset.uri)
        dataset.add(FrameRecord("new", unique_id="new", vector=-vectors[0]))
        receipt = compact(dataset.uri)
        assert "vector_idx" in receipt.indices
        dataset = FrameDataset.open(dataset.uri)
        assert unindexed(dataset) == 0
        assert dataset.nearest(-vectors[0])[0].unique_id == "new"

    def test_parts_and_fragments_stay_few_however_often_rows_come(self, library):
        dataset, vectors = library
        made(dataset.uri)
        for number in range(6):
            new = [
                FrameRecord("new", unique_id=f"{number} {n}", vector=-vectors[n])
                for n in range(number * 20, number * 20 + 20)
            ]
            dataset.add_many(new)
            compact(dataset.uri)
        dataset = FrameDataset.open(dataset.uri)
        assert len(vector_index(dataset.lance).segments) <= 3
        assert len(dataset.lance.get_fragments()) <= 4
        assert unindexed(dataset) == 0
        assert dataset.nearest(-vectors[50])[0].unique_id == "2 50"

    def test_what_was_deleted_or_replaced_is_not_found(self, library):
        dataset, vectors = library
        dataset = made(dataset.uri)
        dataset.delete("0")
        dataset.add(FrameRecord("moved", unique_id="1", vector=-vectors[1]))
        assert "0" not in {hit.unique_id for hit in dataset.nearest(vectors[0], limit=50)}
        assert dataset.nearest(-vectors[1])[0].unique_id == "1"


@given(st.lists(st.integers(1, 10**6), max_size=60))
def test_the_number_of_parts_grows_with_the_logarithm_of_the_rows(additions):
    parts: list[int] = []
    for rows in additions:
        merged = parts_to_merge(parts, rows)
        parts = [*parts[: len(parts) - merged], sum(parts[len(parts) - merged :]) + rows]
        assert all(one >= 2 * after for one, after in pairwise(parts))
        assert len(parts) <= 2 + np.log2(max(sum(parts), 1))


class TestMaking:
    @pytest.mark.parametrize("dim", [1, 3, 8, 20])
    def test_vectors_of_any_length_have_one(self, tmp_path, dim):
        dataset, vectors = random_library(str(tmp_path / "kb.lance"), 300, dim)
        dataset = made(dataset.uri)
        assert is_current(dataset.lance, "cosine")
        query = np.random.default_rng(1).normal(size=dim).astype(np.float32)
        nearest = {hit.score for hit in dataset.nearest(query, limit=3)}
        true = np.sort(1 - vectors @ query / np.linalg.norm(query))[:3]
        assert sorted(nearest)[0] == pytest.approx(true[0], abs=1e-5)

    @pytest.mark.parametrize("rows", [1, 2, 17])
    def test_few_vectors_have_one(self, tmp_path, rows):
        dataset, vectors = random_library(str(tmp_path / "kb.lance"), rows, 8)
        dataset = made(dataset.uri)
        assert len(dataset.nearest(vectors[0])) == min(rows, 10)

    def test_without_vectors_there_is_nothing_to_do(self, tmp_path):
        dataset = FrameDataset.create(str(tmp_path / "kb.lance"), embed_dim=8)
        dataset.add(FrameRecord("text", unique_id="a"))
        assert plan_index(dataset.lance, "cosine") == []

    def test_made_anew_it_takes_the_place_of_the_old_one(self, library):
        dataset, _ = library
        dataset.lance.create_index("vector", "IVF_RQ", name="own", metric="l2", num_partitions=2)
        assert not is_current(FrameDataset.open(dataset.uri).lance, "cosine")
        dataset = made(dataset.uri)
        assert is_current(dataset.lance, "cosine")
        [name] = [one.name for one in dataset.lance.describe_indices()]
        assert name == "own"


class TestInParts:
    @pytest.fixture
    def several(self, library):
        dataset, vectors = library
        for number in range(3):
            dataset.add_many(
                FrameRecord("more", unique_id=f"{number}-{n}", vector=-vectors[n])
                for n in range(number * 100, number * 100 + 100)
            )
        return dataset, vectors

    def test_parts_are_one_index(self, several):
        dataset, vectors = several
        dataset = made(dataset.uri, task_rows=1)
        assert unindexed(dataset) == 0
        assert len(vector_index(dataset.lance).segments) > 2
        for n in (0, 100, 250):
            assert dataset.nearest(-vectors[n])[0].unique_id == f"{n // 100}-{n}"
            assert dataset.nearest(vectors[n])[0].unique_id == str(n)

    @pytest.mark.parametrize("dim", [8, 6])  # as bits, and as whole vectors
    def test_parts_become_one_with_rows_that_come_later(self, tmp_path, dim):
        dataset, vectors = random_library(str(tmp_path / "kb.lance"), 40, dim)
        for number in range(1, 4):
            dataset.add_many(
                FrameRecord("more", unique_id=f"{number}-{n}", vector=-vectors[n])
                for n in range(40)
            )
        made(dataset.uri, task_rows=1)
        dataset.add_many(
            FrameRecord("last", unique_id=f"last-{n}", vector=vectors[n] - 2 * vectors[n + 1])
            for n in range(30)
        )
        assert update_indices(Address(dataset.uri)) == ["vector_idx"]
        dataset = FrameDataset.open(dataset.uri)
        assert unindexed(dataset) == 0
        assert len(vector_index(dataset.lance).segments) < 4
        assert dataset.nearest(vectors[3] - 2 * vectors[4])[0].unique_id == "last-3"

    def test_a_part_travels_between_machines(self, several):
        dataset, _ = several
        at = Address(dataset.uri)
        tasks = pickle.loads(pickle.dumps(plan_index(dataset.lance, "cosine", 1)))
        parts = [pickle.loads(pickle.dumps(do_index_task(at, task))) for task in tasks]
        assert commit_parts(at, [*parts, parts[0]]) == len(tasks)
        assert unindexed(FrameDataset.open(dataset.uri)) == 0

    def test_rows_that_come_while_it_is_made_are_found(self, several):
        dataset, vectors = several
        at = Address(dataset.uri)
        [task] = plan_index(dataset.lance, "cosine")
        part = do_index_task(at, task)
        dataset.add(FrameRecord("new", unique_id="new", vector=10 * vectors[5] - vectors[0]))
        dataset.delete("7")
        commit_parts(at, [part])
        dataset = FrameDataset.open(dataset.uri)
        assert dataset.nearest(10 * vectors[5] - vectors[0])[0].unique_id == "new"
        assert "7" not in {hit.unique_id for hit in dataset.nearest(vectors[7], limit=50)}

    def test_parts_whose_fragments_are_all_gone_are_left_out(self, several):
        dataset, vectors = several
        at = Address(dataset.uri)
        parts = [do_index_task(at, task) for task in plan_index(dataset.lance, "cosine", 1)]
        assert compact(dataset.uri).tasks
        assert commit_parts(at, parts) == 0
        assert FrameDataset.open(dataset.uri).nearest(vectors[3])[0].unique_id == "3"

    def test_fragments_that_are_gone_are_no_part_of_it(self, several):
        dataset, vectors = several
        at = Address(dataset.uri)
        dataset.lance.delete("uri LIKE '2-%'")
        [task] = plan_index(dataset.lance, "cosine")
        part = do_index_task(at, task)
        dataset.lance.delete("uri LIKE '1-%'")
        compact(dataset.uri, target_rows=1)
        assert commit_parts(at, [part]) == 1
        dataset = FrameDataset.open(dataset.uri)
        assert dataset.nearest(-vectors[5])[0].unique_id == "0-5"
        assert "1-100" not in {hit.unique_id for hit in dataset.nearest(-vectors[100], limit=50)}

    def test_a_dataset_that_was_rolled_back_and_went_on_is_searched_as_it_is(self, library):
        dataset, vectors = library
        at = Address(dataset.uri)
        version = dataset.version
        dataset.add(FrameRecord("first", unique_id="first", vector=-vectors[0]))
        parts = [do_index_task(at, task) for task in plan_index(dataset.lance, "cosine", 1)]
        dataset.rollback(version)
        dataset.add(FrameRecord("second", unique_id="second", vector=-vectors[1]))
        commit_parts(at, parts)
        dataset = FrameDataset.open(dataset.uri)
        assert dataset.nearest(-vectors[1])[0].unique_id == "second"
        assert "first" not in {hit.unique_id for hit in dataset.nearest(-vectors[0])}

    def test_no_part_of_a_dataset_that_was_overwritten_is_taken(self, library):
        dataset, _ = library
        at = Address(dataset.uri)
        parts = [do_index_task(at, task) for task in plan_index(dataset.lance, "cosine")]
        lance.write_dataset(pa.Table.from_batches(dataset.batches()), dataset.uri, mode="overwrite")
        assert commit_parts(at, parts) == 0
