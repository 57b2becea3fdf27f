"""Runs, columns of fields, indices and compactions at once: each value stays where it belongs."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import lance
import pytest

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.connectors.page import SourceInfo
from contextframe_beam.errors import CommitError
from contextframe_beam.frames.record import uuid_of
from contextframe_beam.store.address import Address
from contextframe_beam.store.schema import index_field
from contextframe_beam.store.upkeep import commit_tasks, do_task, plan_tasks, update_indices
from contextframe_beam.transforms.commit import commit_run
from tests.support.pipeline_helpers import EMBED_DIM, begin, document, write

COLUMNS = {"price": "float64", "team": "text", "labels": "list", "count": "int64"}
SECONDS = 15.0


def frames(chance: random.Random, name: str) -> list[FrameRecord]:
    """Returns a document and up to two chunks of it."""
    metadata = {
        "price": chance.random(),
        "team": chance.choice("ab"),
        "labels": [chance.choice("xyz")],
        "count": chance.randrange(9),
    }
    parent = uuid_of(f"doc:{name}")
    chunks = [
        FrameRecord(f"part {chance.random()}", {}, unique_id=f"doc:{name}#{n}", parent=parent)
        for n in range(chance.randrange(3))
    ]
    return [document(name, metadata=metadata), *chunks]


def write_runs(kb: Path, number: int, until: float) -> None:
    chance = random.Random(number)
    source = SourceInfo(f"{number:016x}", "s", {})
    run = 0
    while time.monotonic() < until:
        run += 1
        names = {f"{number}-{chance.randrange(12)}" for _ in range(4)}
        # Another column with the number of one that the run had makes it begin again.
        with suppress(CommitError):
            started = begin(kb, f"{number}-{run}", max_deletes="100%")
            made = [one for name in names for one in frames(chance, name)]
            written = write(started, *made, source=source)
            time.sleep(chance.random() / 20)
            commit_run(started, written)


def change_columns(kb: Path, until: float) -> None:
    chance = random.Random(1)
    while time.monotonic() < until:
        dataset = FrameDataset.open(str(kb))
        name = chance.choice(list(COLUMNS))
        with suppress(CommitError):
            if name not in dataset.columns:
                dataset.add_columns({name: COLUMNS[name]})
            elif chance.random() < 0.5:
                dataset.drop_columns([name])
            else:
                index_field(Address(str(kb)), name)


def keep_up(kb: Path, until: float) -> None:
    at = Address(str(kb))
    while time.monotonic() < until:
        with suppress(CommitError):
            commit_tasks(at, [do_task(at, task) for task in plan_tasks(lance.dataset(str(kb)))])
            update_indices(at)


@pytest.mark.soak
@pytest.mark.parametrize("version", ["2.0", "2.1", "2.2"])
def test_each_value_stays_where_it_belongs(tmp_path: Path, version: str) -> None:
    kb = tmp_path / "kb.lance"
    FrameDataset.create(str(kb), embed_dim=EMBED_DIM, storage_version=version)
    until = time.monotonic() + SECONDS
    failures: list[BaseException] = []

    def doing(work: Callable[[], None]) -> threading.Thread:
        def done() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=done)
        thread.start()
        return thread

    threads = [doing(lambda n=number: write_runs(kb, n, until)) for number in range(3)]
    threads += [doing(lambda: change_columns(kb, until)), doing(lambda: keep_up(kb, until))]
    for thread in threads:
        thread.join()
    assert failures == []
    dataset = FrameDataset.open(str(kb))
    dataset.add_columns(COLUMNS)
    given = {uuid_of(str(one.unique_id)): one.metadata for one in dataset if one.parent is None}
    rows = {
        row["uuid"]: row
        for batch in dataset.batches(["uuid", *COLUMNS])
        for row in batch.to_pylist()
    }
    for one in dataset:
        wanted = given[one.parent or uuid_of(str(one.unique_id))]
        assert rows[one.uuid] == {"uuid": one.uuid, **{name: wanted[name] for name in COLUMNS}}
        for name in COLUMNS:
            value = wanted[name][0] if name == "labels" else wanted[name]
            asked = {"uuid": one.uuid, name: value}
            assert dataset.count(asked) == 1, (one.unique_id, name)
