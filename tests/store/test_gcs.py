"""Datasets at gs:// behave as those on a disk: Lance's own client against a server on this machine.

The server keeps objects as Google Cloud Storage does, conditional writes included; what only the
real one has (its credentials, its limits) is not tested.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from fsspec.registry import _registry
from lance.file import LanceFileSession

from contextframe_beam import CommitError, ConfigError, DatasetError, FrameDataset
from contextframe_beam.pipelines.compact import compact
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.store.address import Address, filesystem_of
from contextframe_beam.store.upkeep import cleanup
from contextframe_beam.transforms.commit import commit_run
from tests.store.test_s3 import read
from tests.support.cli_helpers import cli
from tests.support.gcs_server import GcsServer
from tests.support.pipeline_helpers import EMBED_DIM, begin, documents, write


@pytest.fixture
def kb(gcs: GcsServer) -> str:
    return gcs.new_place()


@pytest.fixture
def options(gcs: GcsServer) -> dict[str, str]:
    return gcs.options


@pytest.fixture
def run(options, kb):
    """Ingests documents there."""

    def ingested(*ids, **how):
        return ingest(documents(*ids), kb, storage_options=options, **how)

    return ingested


def test_every_mode(kb, options, run):
    run(1, 2, mode="create", embed_dim=EMBED_DIM)
    receipt = run({"id": 1, "text": "new"}, 2, 3, workers=2)
    assert (receipt.rows_written, receipt.rows_replaced, receipt.rows_unchanged) == (2, 1, 1)
    assert read(kb, options) == {"1": "new", "2": "text of 2", "3": "text of 3"}
    run(4, mode="append")
    assert sorted(read(kb, options)) == ["1", "2", "3", "4"]
    run(9, mode="overwrite", max_deletes="100%")
    assert sorted(read(kb, options)) == ["9"]
    assert run(8, mode="mirror", max_deletes=1).rows_deleted == 1
    assert sorted(read(kb, options)) == ["8"]


def test_it_is_searched_compacted_rolled_back_and_cleaned_up(kb, options, run):
    run(1, embed_dim=EMBED_DIM)
    run(1, {"id": 2, "text": "a pear"})
    dataset = FrameDataset.open(kb, storage_options=options)
    assert [hit.unique_id for hit in dataset.search("pear")] == ["doc:2"]
    compact(kb, storage_options=options)
    assert sorted(read(kb, options)) == ["1", "2"]
    FrameDataset.open(kb, storage_options=options).rollback(1)
    assert sorted(read(kb, options)) == ["1"]
    assert cleanup(Address(kb, options), keep=timedelta(0)).versions > 0
    assert sorted(read(kb, options)) == ["1"]


def test_committers_at_once_lose_nothing_and_commit_a_run_once(kb, options, run):
    run(0, embed_dim=EMBED_DIM)
    runs = [begin(kb, f"run-{number}", storage_options=options) for number in range(4)]
    written = [write(one, number, "same") for number, one in enumerate(runs, start=1)]
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(commit_run, runs * 2, written * 2))
    assert sorted(one.run_id for one in done if not one.already_committed) == [
        one.run_id for one in runs
    ]
    assert sorted(read(kb, options)) == ["0", "1", "2", "3", "4", "same"]


def test_a_lost_data_file_is_noticed_before_the_commit(kb, options, run):
    run(1, embed_dim=EMBED_DIM)
    started = begin(kb, "lost", storage_options=options)
    written = write(started, 2)
    (path,) = written.fragments[0].paths
    LanceFileSession(f"{kb}/data", options).delete_file(path)
    with pytest.raises(CommitError, match="nothing was committed"):
        commit_run(started, written)
    assert sorted(read(kb, options)) == ["1"]


def test_the_command_line(kb, options, run):
    flags = [flag for pair in options.items() for flag in ("--storage-option", "=".join(pair))]
    run(1, 2, embed_dim=EMBED_DIM)
    assert cli("inspect", kb, *flags, "--json").json["documents"] == 2
    assert "doc:1" in cli("search", kb, "text", *flags, "--json").out


def test_dead_letters_lie_beside_it(kb, options, run):
    for workers in (1, 2):
        bad = [{"id": number, "error": "no"} for number in (2, 3)]
        run(1, *bad, run_id=f"run-{workers}", embed_dim=EMBED_DIM, workers=workers)
        files, path = filesystem_of(f"{kb}.dead-letters/run-{workers}.jsonl", options)
        letters = [json.loads(line) for line in files.cat(path).decode().splitlines()]
        assert sorted(letter["item"]["id"] for letter in letters) == [2, 3]
    folder = path.rpartition("/")[0]
    assert sorted(files.ls(folder)) == [f"{folder}/run-1.jsonl", f"{folder}/run-2.jsonl"]


def test_pieces_of_dead_letters_that_a_killed_run_left_are_cleaned_up(kb, options, run):
    run(1, embed_dim=EMBED_DIM)
    files, path = filesystem_of(f"{kb}.dead-letters/r.jsonl.r.0.part", options)
    files.pipe(path, b"half a let")
    flags = [flag for pair in options.items() for flag in ("--storage-option", "=".join(pair))]
    assert cli("cleanup", kb, "--lost-after", "0s", "--no-writers", *flags).code == 0
    files.invalidate_cache()
    assert not files.exists(path)


def test_dead_letters_that_cannot_be_written_there_fail_the_run(kb, options, run):
    run(1, embed_dim=EMBED_DIM)
    with pytest.raises(DatasetError, match=r"cannot write the dead letters to gs://nowhere/l"):
        run(1, {"id": 2, "error": "no"}, dead_letters="gs://nowhere/l.jsonl")
    assert sorted(read(kb, options)) == ["1"]


def test_without_gcsfs_dead_letters_beside_it_are_refused_at_once(kb, options, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    for name in ("gs", "gcs"):  # or fsspec remembers it from another test
        monkeypatch.delitem(_registry, name, raising=False)
    with pytest.raises(ConfigError, match=r"install what it needs, such as contextframe-beam\[gcs"):
        ingest(documents(1), kb, storage_options=options, embed_dim=EMBED_DIM)
