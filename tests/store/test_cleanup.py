"""Cleanup removes old versions and what killed runs left, and nothing that anybody needs."""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import lance
import pytest

from contextframe_beam import ConfigError, DatasetError, FrameDataset
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.store.address import Address
from contextframe_beam.store.upkeep import cleanup
from contextframe_beam.transforms.commit import commit_run
from tests.pipelines.test_crash import POINT_VARIABLE, killed
from tests.support.cli_helpers import assert_error, cli, environment, run_code
from tests.support.pipeline_helpers import (
    EMBED_DIM,
    begin,
    data_files,
    document,
    documents,
    ids_in,
    write,
)

NOTHING = timedelta(0)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("made") / "kb.lance")
    for number in range(3):
        text = {"id": "same", "text": f"text {number}"}
        ingest(documents(number, text), path, embed_dim=EMBED_DIM if number == 0 else None)
    return path


@pytest.fixture
def kb(made, tmp_path):
    return shutil.copytree(made, str(tmp_path / "kb.lance"))


@pytest.fixture(scope="module")
def killed_in(made, tmp_path_factory):
    """A dataset in which a run was killed."""
    copy = shutil.copytree(made, tmp_path_factory.mktemp("killed") / "kb.lance")
    assert killed("before commit", copy, "upsert", "lost")
    return copy


def make_old(kb, age=timedelta(days=30)):
    """Makes the files of a dataset as old as if they had been written before."""
    then = time.time() - age.total_seconds()
    for file in Path(kb).rglob("*"):
        os.utime(file, (then, then))


def size_of(kb):
    return sum(file.stat().st_size for file in Path(kb).rglob("*") if file.is_file())


class TestVersions:
    def test_old_ones_go_and_the_newest_stays(self, kb):
        before, size = sorted(map(repr, FrameDataset.open(kb))), size_of(kb)
        receipt = cleanup(Address(kb), keep=NOTHING)
        assert receipt.versions == 2
        assert receipt.bytes == size - size_of(kb) > 0
        assert [one.version for one in FrameDataset.open(kb).history()] == [3]
        assert sorted(map(repr, FrameDataset.open(kb))) == before

    @pytest.mark.parametrize("times", [5, pytest.param(30, marks=pytest.mark.soak)])
    def test_whoever_looks_at_them_meanwhile_does_not_fail(self, kb, times):
        def clean_up_again_and_again():
            for _ in range(times):
                for number in range(10):
                    FrameDataset.open(kb).add(document(number))
                cleanup(Address(kb), keep=NOTHING)

        looks = [
            lambda: FrameDataset.open(kb).history(),
            lambda: cleanup(Address(kb), dry_run=True),
            lambda: cleanup(Address(kb), keep=NOTHING),
        ]
        with ThreadPoolExecutor(1) as pool:
            cleaning = pool.submit(clean_up_again_and_again)
            while not cleaning.done():
                for look in looks:
                    look()
            cleaning.result()
        assert [one.version for one in FrameDataset.open(kb).history()] == [3 + 10 * times]

    def test_young_ones_stay(self, kb):
        assert cleanup(Address(kb)).versions == 0
        assert len(FrameDataset.open(kb).history()) == 3

    def test_tags_stay(self, kb):
        lance.dataset(kb).tags.create("release", 1)
        assert cleanup(Address(kb), keep=NOTHING).versions == 1
        assert FrameDataset.open(kb, version=1).get("doc:same").text_content == "text 0"

    def test_a_dry_run_tells_the_same_and_removes_nothing(self, kb):
        files = data_files(kb)
        told = cleanup(Address(kb), keep=NOTHING, dry_run=True)
        assert (data_files(kb), len(FrameDataset.open(kb).history())) == (files, 3)
        done = cleanup(Address(kb), keep=NOTHING)
        assert (told.versions, told.files, told.bytes) == (done.versions, done.files, done.bytes)

    def test_a_run_under_way_that_needs_an_old_version_is_refused_in_words(self, kb):
        before = ids_in(kb)
        run = begin(kb, "late")
        written = write(run, "b", state={"read": 1})
        ingest(documents("c"), kb)
        cleanup(Address(kb), keep=NOTHING)
        with pytest.raises(Exception, match="cleaned up meanwhile; nothing was committed"):
            commit_run(run, written)
        assert ids_in(kb) == sorted([*before, "c"])


class TestFilesOfLostAttempts:
    @pytest.fixture
    def lost(self, killed_in, made, kb):
        """Names of the files that the killed run left in this dataset."""
        shutil.copytree(killed_in, kb, dirs_exist_ok=True)
        files = data_files(kb) - data_files(made)
        assert files
        return files

    def test_they_go_when_they_are_old_enough(self, kb, lost):
        cleanup(Address(kb))
        assert lost <= data_files(kb)
        make_old(kb)
        ids = ids_in(kb)
        size = size_of(kb)
        receipt = cleanup(Address(kb))
        assert receipt.lost_files >= len(lost)  # there is a file of removed rows as well
        assert not lost & data_files(kb)
        assert receipt.bytes == size - size_of(kb)
        assert ids_in(kb) == ids
        for version in (1, 2, 3):
            assert list(FrameDataset.open(kb, version=version))

    def test_a_dry_run_tells_them(self, kb, lost):
        make_old(kb)
        assert cleanup(Address(kb), dry_run=True).lost_files >= len(lost)
        assert lost <= data_files(kb)

    def test_raw_data_in_files_of_its_own_goes_and_stays_with_its_data_file(self, tmp_path):
        kb = str(tmp_path / "kb.lance")
        dataset = FrameDataset.create(kb, EMBED_DIM, storage_version="2.2")
        raw = {"raw_data": b"\1" * 5_000_000, "raw_data_type": "a/b"}
        dataset.add(document("kept", **raw))
        before = {file for file in Path(kb).rglob("*") if file.is_file()}
        run = begin(kb)
        write(run, document("lost", **raw))
        after = {file for file in Path(kb).rglob("*") if file.is_file()}
        assert len(after - before) > 1
        make_old(kb)
        cleanup(Address(kb))
        assert not {file for file in after - before if file.exists()}
        assert FrameDataset.open(kb).get("doc:kept").raw_data == raw["raw_data"]

    def test_a_run_under_way_keeps_its_files_and_is_committed(self, kb):
        run = begin(kb, "slow")
        written = write(run, "b")
        cleanup(Address(kb), keep=NOTHING, lost_after=DAY)
        commit_run(run, written)
        assert "b" in ids_in(kb)

    def test_a_run_that_lost_its_files_is_not_committed(self, kb):
        ids = ids_in(kb)
        run = begin(kb, "slow")
        written = write(run, "b")
        cleanup(Address(kb), lost_after=NOTHING, no_writers=True)
        with pytest.raises(Exception, match="nothing was committed"):
            commit_run(run, written)
        assert ids_in(kb) == ids

    def test_indices_that_were_replaced_go_with_their_versions_only(self, kb):
        dataset = FrameDataset.open(kb)
        dataset.search("text")
        dataset.add(document("more"))
        lance.dataset(kb).optimize.optimize_indices()
        make_old(kb)
        assert cleanup(Address(kb), keep=timedelta(days=3650)).lost_files == 0
        assert len(FrameDataset.open(kb).search("text", limit=50)) == 5

    def test_a_branch_stays_whole(self, kb):
        branch = lance.dataset(kb).create_branch("experiment")
        ids = branch.to_table(columns=["uri"])
        ingest(documents("b"), kb, mode="overwrite", max_deletes="100%")
        make_old(kb)
        assert cleanup(Address(kb), keep=NOTHING).lost_files == 0
        branch = lance.dataset(kb).checkout_version(("experiment", None))
        assert branch.to_table(columns=["uri"]) == ids


class TestDangerousAges:
    def test_less_than_a_day_for_lost_files_needs_a_promise(self, kb):
        with pytest.raises(ConfigError, match="may belong to a run under way"):
            cleanup(Address(kb), lost_after=timedelta(hours=1))
        cleanup(Address(kb), lost_after=timedelta(hours=1), no_writers=True)

    def test_more_than_lance_itself_allows(self, kb):
        with pytest.raises(ConfigError, match="at most 7d"):
            cleanup(Address(kb), lost_after=timedelta(days=8))

    def test_negative_ages(self, kb):
        with pytest.raises(ConfigError, match="negative"):
            cleanup(Address(kb), keep=-DAY)

    def test_no_dataset(self, tmp_path):
        with pytest.raises(DatasetError, match="there is no dataset at"):
            cleanup(Address(str(tmp_path / "none")))


class TestOnTheCommandLine:
    def test_it_says_what_went(self, kb):
        told = cli("cleanup", kb, "--keep", "0s", "--dry-run")
        assert told.out.startswith("would remove 2 old versions")
        done = cli("cleanup", kb, "--keep", "0s", "--json").json
        assert (done["versions"], done["lost_files"], done["dry_run"]) == (2, 0, False)
        assert cli("cleanup", kb).out.startswith("removed 0 old versions")

    def test_pieces_of_dead_letters_go_as_lost_files_do(self, kb):
        code = (
            "import sys; from tests.pipelines.test_crash import documents, ingest; "
            "ingest(documents({'id': 1, 'error': 'no'}), sys.argv[1], run_id='lost')"
        )
        killed_there = environment(**{POINT_VARIABLE: "before joining letters"})
        assert run_code(code, kb, env=killed_there).code == -9
        folder = Path(f"{kb}.dead-letters")
        (piece,) = folder.glob("*.part")
        size = piece.stat().st_size
        letters = folder / "earlier.jsonl"
        letters.touch()
        make_old(kb)
        assert cli("cleanup", kb, "--json").json["lost_files"] == 0
        assert piece.exists()
        make_old(folder)
        told = cli("cleanup", kb, "--json", "--dry-run").json
        assert (told["lost_files"], told["bytes"]) == (1, size)
        assert piece.exists()
        assert cli("cleanup", kb, "--json").json["lost_files"] == 1
        assert list(folder.iterdir()) == [letters]

    def test_what_is_wrong_is_told(self, kb):
        assert_error(cli("cleanup", kb, "--keep", "soon"), 2, "'soon' is not an age", "7d")
        assert_error(cli("cleanup", kb, "--lost-after", "1h"), 2, "--no-writers")
