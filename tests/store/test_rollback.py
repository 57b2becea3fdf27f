"""A rollback makes an earlier version the newest one: documents and sync state, together."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import lance
import pyarrow as pa
import pytest

from contextframe_beam import ConcurrentRunError, DatasetError, FrameDataset, SchemaError
from contextframe_beam.frames.schema import frame_schema
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.store.address import Address
from contextframe_beam.store.files import Destination, despite_removals
from contextframe_beam.store.rows import remove_keys
from contextframe_beam.store.state import ANCHOR_KEY, state_rows
from contextframe_beam.store.transaction import ConflictError, commit_update
from contextframe_beam.store.upkeep import cleanup
from contextframe_beam.store.versions import cleaning_up, rolling_back
from contextframe_beam.store.writer import write_rows
from contextframe_beam.transforms.commit import commit_run
from contextframe_beam.transforms.guards import committed_receipt
from tests.support.cli_helpers import assert_error, cli, run_code
from tests.support.pipeline_helpers import (
    EMBED_DIM,
    begin,
    data_files,
    document,
    documents,
    ids_in,
    texts_in,
    write,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset of two runs of one source; the second one adds a document and changes another."""
    path = str(tmp_path_factory.mktemp("made") / "kb.lance")
    ingest(documents(1, 2), path, run_id="first", embed_dim=EMBED_DIM)
    ingest(documents({"id": 1, "text": "changed"}, 2, 3), path, run_id="second")
    return path


@pytest.fixture
def kb(made, tmp_path):
    return str(shutil.copytree(Path(made).parent, tmp_path, dirs_exist_ok=True) / "kb.lance")


def rolled_back(kb, version=1):
    FrameDataset.open(kb).rollback(version)


def corrupt(kb, version):
    """Makes a version unreadable."""
    # Lance names manifests so that the newest comes first.
    Path(kb, "_versions", f"{2**64 - 1 - version}.manifest").write_bytes(b"no manifest at all")


class TestWhatItRestores:
    def test_documents_and_state_are_those_of_the_version(self, kb):
        (before,) = FrameDataset.open(kb, version=1).states()
        assert FrameDataset.open(kb).states() != [before]
        dataset = FrameDataset.open(kb)
        assert dataset.rollback(1) == 3
        assert dataset.version == 3
        assert texts_in(kb) == {"1": "text of 1", "2": "text of 2"}
        assert dataset.states() == [before]

    def test_it_stands_in_the_history(self, kb):
        rolled_back(kb)
        made = FrameDataset.open(kb).history()[-1]
        assert (made.version, made.mode, made.restored, made.run_id) == (3, "rollback", 1, None)

    def test_a_rollback_can_be_rolled_back(self, kb):
        rolled_back(kb, 1)
        rolled_back(kb, 2)
        assert texts_in(kb) == {"1": "changed", "2": "text of 2", "3": "text of 3"}

    def test_the_newest_version_stays_as_it_is(self, kb):
        assert FrameDataset.open(kb).rollback(2) == 2
        assert FrameDataset.open(kb).version == 2

    def test_vectors_of_another_length_come_back(self, kb):
        ingest(documents(4), kb, mode="overwrite", embed_dim=2, max_deletes="100%")
        dataset = FrameDataset.open(kb)
        dataset.rollback(2)
        assert dataset.embed_dim == EMBED_DIM
        dataset.add(document(5, vector=[1, 2, 3, 4]))
        assert ids_in(kb) == ["1", "2", "3", "5"]


class TestRunsAfterIt:
    def test_a_run_that_was_forgotten_can_be_applied_again(self, kb):
        rolled_back(kb)
        assert committed_receipt(Address(kb), "second") is None
        assert committed_receipt(Address(kb), "first") is not None
        receipt = ingest(documents({"id": 1, "text": "changed"}, 2, 3), kb, run_id="second")
        assert not receipt.already_committed
        assert (receipt.version, receipt.rows_written, receipt.rows_unchanged) == (4, 2, 1)
        assert committed_receipt(Address(kb), "second").version == 4

    def test_a_run_that_was_kept_is_not(self, kb):
        rolled_back(kb)
        assert ingest(documents(8), kb, run_id="first").already_committed
        assert ids_in(kb) == ["1", "2"]

    def test_what_was_unchanged_in_a_forgotten_version_is_written(self, kb):
        rolled_back(kb)
        ingest(documents({"id": 1, "text": "changed"}, 2, 3), kb)
        assert texts_in(kb) == {"1": "changed", "2": "text of 2", "3": "text of 3"}


class TestRunsUnderWay:
    @pytest.mark.parametrize("mode", ["upsert", "append", "overwrite"])
    def test_a_run_that_began_before_is_refused_and_can_be_run_again(self, kb, mode):
        run = begin(kb, "third", mode)
        written = write(run, 7)
        rolled_back(kb)
        with pytest.raises(ConcurrentRunError, match=r"rolled back to version 1|went from version"):
            commit_run(run, written)
        assert ids_in(kb) == ["1", "2"]
        again = begin(kb, "third", mode)
        commit_run(again, write(again, 7))
        assert ids_in(kb) == (["7"] if mode == "overwrite" else ["1", "2", "7"])

    def test_what_it_met_unchanged_is_not_lost_although_the_state_is_the_same(self, tmp_path):
        # Document 1 comes and goes by rollbacks and an edit by hand: no run shows in the state.
        kb = str(tmp_path / "kb.lance")
        ingest(documents(1), kb, embed_dim=EMBED_DIM)
        FrameDataset.open(kb).delete("doc:1")
        rolled_back(kb, 1)
        run = begin(kb, "late")
        states = FrameDataset.open(kb).states()
        rolled_back(kb, 2)
        assert FrameDataset.open(kb).states() == states
        with pytest.raises(ConcurrentRunError, match="rolled back to version 2"):
            commit_run(run, write(run, 2))
        assert ids_in(kb) == []

    def test_it_is_refused_where_a_version_since_then_cannot_be_read(self, kb):
        run = begin(kb, "third")
        written = write(run, 7)
        # For all that can be known then, this was a rollback.
        rolled_back(kb)
        restored = FrameDataset.open(kb).version
        FrameDataset.open(kb).add(document("new"))
        corrupt(kb, restored)
        with pytest.raises(DatasetError, match=f"cannot read {kb}.*corrupt"):
            commit_run(run, written)
        assert ids_in(kb) == ["1", "2", "new"]

    def test_a_rollback_between_the_decision_and_the_commit_conflicts(self, kb):
        stale = lance.dataset(kb)
        removal = remove_keys(stale, pa.array([ANCHOR_KEY]))
        new = write_rows(Destination(kb), [state_rows([], anchor=True, embed_dim=EMBED_DIM)])
        rolled_back(kb)
        with pytest.raises(ConflictError):
            commit_update(stale, removal, new, properties={}, at=Address(str(stale.uri)))

    def test_a_late_attempt_of_a_forgotten_run_does_not_bring_it_back(self, kb):
        run = begin(kb, "third", "append")
        first, late = write(run, 7), write(run, 7)
        commit_run(run, first)
        rolled_back(kb)
        with pytest.raises(ConcurrentRunError):
            commit_run(run, late)
        assert ids_in(kb) == ["1", "2"]

    def test_edits_through_a_dataset_that_was_opened_before_build_on_it(self, kb):
        dataset = FrameDataset.open(kb)
        rolled_back(kb)
        dataset.add(document(5))
        assert ids_in(kb) == ["1", "2", "5"]
        assert not dataset.delete("doc:3")

    def test_rollbacks_and_edits_at_once_leave_a_state_that_some_order_explains(self, kb):
        failures = []

        def repeatedly(action):
            try:
                for number in range(8):
                    action(number)
            except Exception as error:
                failures.append(error)

        threads = [
            threading.Thread(target=repeatedly, args=[action])
            for action in (
                lambda number: FrameDataset.open(kb).add(document(f"x{number}")),
                lambda number: FrameDataset.open(kb).add(document(f"y{number}")),
                lambda _: rolled_back(kb, 2),
            )
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        # Replays the history: each version holds what the one before it or the restored one held.
        content = {}
        for version in FrameDataset.open(kb).history():
            held = set(ids_in_version(kb, version.version))
            if version.restored:
                assert held == content[version.restored]
            elif version.mode == "add":
                before = content[version.version - 1]
                assert before < held or held == before
                assert len(held - before) <= 1
            content[version.version] = held
            stored = lance.dataset(kb, version=version.version)
            assert stored.count_rows(filter=f"uuid = '{ANCHOR_KEY}'") == 1


def ids_in_version(kb, version):
    return [record.unique_id for record in FrameDataset.open(kb, version=version)]


class TestWhatItRefuses:
    def test_a_version_that_never_was(self, kb):
        with pytest.raises(DatasetError, match="has no version 9; it has versions 1 to 2"):
            rolled_back(kb, 9)
        assert FrameDataset.open(kb).version == 2

    def test_a_version_that_was_cleaned_up(self, kb):
        lance.dataset(kb).cleanup_old_versions(timedelta(0))
        with pytest.raises(DatasetError, match="was cleaned up; version 2 can still be read"):
            rolled_back(kb, 1)

    def test_a_version_that_was_no_dataset_of_frames(self, tmp_path):
        kb = str(tmp_path / "kb.lance")
        lance.write_dataset(pa.table({"a": [1]}), kb)
        empty = pa.Table.from_batches([], frame_schema(EMBED_DIM))
        lance.write_dataset(empty, kb, mode="overwrite")
        with pytest.raises(SchemaError, match="not a dataset of frames"):
            rolled_back(kb, 1)
        assert lance.dataset(kb).version == 2

    def test_a_dataset_that_was_opened_at_a_version(self, kb):
        with pytest.raises(DatasetError, match="opened to read"):
            FrameDataset.open(kb, version=1).rollback(1)


def list_tags_while_they_come_and_go(kb, storage_options=None):
    """Lists tags until one was gone when Lance came to read it, and expects to notice nothing."""
    ended = threading.Event()
    calls, answers = [], []

    def toggle():
        tags = lance.dataset(kb, storage_options=storage_options).tags
        while not ended.is_set():
            tags.create("release", 1)
            tags.delete("release")

    def listing():
        calls.append(None)
        return lance.dataset(kb, storage_options=storage_options).tags.list()

    with ThreadPoolExecutor(1) as pool:
        toggling = pool.submit(toggle)
        try:
            while len(calls) == len(answers):
                answers.append(despite_removals(listing))
        finally:
            ended.set()
        toggling.result()
    assert {name for answer in answers for name in answer} <= {"release"}


class TestCleanupsUnderWay:
    def test_neither_begins_while_the_other_one_is_under_way(self, kb):
        with cleaning_up(lance.dataset(kb), Address(str(lance.dataset(kb).uri))):
            assert_error(cli("rollback", kb, "--to", 1), 1, "a cleanup of", "nothing was rolled")
        with rolling_back(lance.dataset(kb), 1, Address(str(lance.dataset(kb).uri))):
            refused = cli("cleanup", kb, "--keep", "0s")
            assert_error(refused, 1, "a rollback of", "nothing was cleaned up")
        assert [one.version for one in FrameDataset.open(kb).history()] == [1, 2]
        assert lance.dataset(kb).tags.list() == {}

    @pytest.mark.parametrize("holder", ["cleaning_up(dataset, at)", "rolling_back(dataset, 1, at)"])
    def test_one_that_was_killed_holds_nobody_off(self, kb, holder):
        code = (
            "import lance, os, signal\n"
            "from contextframe_beam.store.versions import cleaning_up, rolling_back\n"
            "from contextframe_beam.store.address import Address\n"
            f"at = Address({kb!r})\n"
            "dataset = lance.dataset(at.uri)\n"
            f"with {holder}:\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        run_code(code)
        assert len(lance.dataset(kb).tags.list()) == 1
        rolled_back(kb)
        cleanup(Address(kb), keep=timedelta(0))
        assert lance.dataset(kb).tags.list() == {}

    def test_one_that_was_killed_elsewhere_holds_the_other_off_for_a_day(self, kb):
        lance.dataset(kb).tags.create("contextframe.cleanup.killed", 1)
        with pytest.raises(ConcurrentRunError, match=r"tag contextframe\.cleanup\.killed"):
            rolled_back(kb)
        (tag,) = Path(kb, "_refs", "tags").iterdir()
        made = json.loads(tag.read_text())
        made["createdAt"] = (datetime.now(timezone.utc) - timedelta(hours=25)).isoformat()
        tag.write_text(json.dumps(made))
        rolled_back(kb)
        cleanup(Address(kb), keep=timedelta(0))
        assert lance.dataset(kb).tags.list() == {}
        assert [one.version for one in FrameDataset.open(kb).history()] == [3]

    def test_tags_that_come_and_go_disturb_neither(self, kb):
        list_tags_while_they_come_and_go(kb)

    def test_at_once_they_leave_a_dataset_that_can_be_read(self, kb):
        for _ in range(10):
            FrameDataset.open(kb).add(document("new"))
            version = FrameDataset.open(kb).version
            FrameDataset.open(kb).delete("doc:new")
            with ThreadPoolExecutor(2) as pool:
                done = [
                    pool.submit(cleanup, Address(kb), keep=timedelta(0)),
                    pool.submit(rolled_back, kb, version),
                ]
            failures = [one.exception() for one in done if one.exception()]
            assert all(isinstance(one, ConcurrentRunError | DatasetError) for one in failures)
            newest = FrameDataset.open(kb)
            assert ("new" in ids_in(kb)) == (done[1].exception() is None)
            assert newest.get("doc:1").text_content == "changed"


class TestVersionsThatAKilledCleanupBeganToRemove:
    """Lance deletes files first, and the versions that name them last."""

    @pytest.fixture
    def version(self, tmp_path):
        """A version with files of all kinds, which no newer version names."""
        kb = str(tmp_path / "kb.lance")
        # In this format large raw data lies beside the data file.
        dataset = FrameDataset.create(kb, embed_dim=EMBED_DIM, storage_version="2.2")
        raw = {"raw_data": bytes(200_000), "raw_data_type": "application/octet-stream"}
        dataset.add_many([document(1, **raw), document(2)])
        dataset.delete("doc:2")
        dataset.search("text", 1)
        ingest(documents(9), kb, mode="overwrite", embed_dim=EMBED_DIM)
        return lance.dataset(kb, version=dataset.version)

    @pytest.mark.parametrize(
        "files",
        ["data/*.lance", "data/*/*.blob", "_deletions/*", "_indices/*/*"],
        ids=["a data file", "raw data", "a deletion file", "a part of an index"],
    )
    def test_are_not_rolled_back_to(self, version, files):
        kb = version.uri
        named = version.tracked_files(min_version=version.version).read_all().to_pylist()
        mine = {one["path"] for one in named if one["version"] == version.version}
        folders = tuple(path.removesuffix(".lance") for path in mine)
        lost = [
            path for path in Path(kb).glob(files) if str(path.relative_to(kb)).startswith(folders)
        ]
        lost[0].unlink()
        refused = cli("rollback", kb, "--to", version.version)
        assert_error(refused, 1, f"version {version.version}", "is not whole", "--keep")
        assert ids_in(kb) == ["9"]
        assert lance.dataset(kb).tags.list() == {}

    def test_are_rolled_back_to_when_nothing_is_missing_yet(self, version):
        FrameDataset.open(version.uri).rollback(version.version)
        assert ids_in(version.uri) == ["1"]
        assert FrameDataset.open(version.uri).search("text", 1)


class TestOnTheCommandLine:
    def test_it_says_what_is_there_now_and_how_to_undo_it(self, kb):
        result = cli("rollback", kb, "--to", 1)
        assert result.code == 0
        assert "2 documents" in result.out
        assert "version 3" in result.out
        assert f"rollback {kb} --to 2" in result.out
        assert cli("rollback", kb, "--to", 3).out.endswith("nothing was done\n")

    def test_inspect_shows_it(self, kb):
        assert cli("rollback", kb, "--to", 1, "--json").json == {
            "uri": kb,
            "version": 3,
            "restored": 1,
        }
        assert "rollback to 1" in cli("inspect", kb).out
        assert cli("inspect", kb, "--json").json["versions"][-1]["restored"] == 1

    def test_inspect_and_search_look_at_an_earlier_version(self, kb):
        facts = cli("inspect", kb, "--at", 1, "--json").json
        assert (facts["version"], facts["documents"]) == (1, 2)
        assert [run["run_id"] for run in facts["runs"]] == ["first"]
        files = data_files(kb)
        found = cli("search", kb, "changed", "--at", 2, "--json").json
        assert [hit["unique_id"] for hit in found] == ["doc:1"]
        assert cli("search", kb, "changed", "--at", 1, "--json").json == []
        assert (FrameDataset.open(kb).version, data_files(kb)) == (2, files)

    @pytest.mark.parametrize(
        "command", [["inspect"], ["search", "word"], ["rollback"]], ids=lambda command: command[0]
    )
    def test_versions_that_are_not_there_are_told(self, kb, command):
        name, *rest = command
        option = "--to" if name == "rollback" else "--at"
        assert_error(cli(name, kb, *rest, option, 9), 1, "has no version 9", "versions 1 to 2")
        assert_error(cli(name, kb, *rest, option, 0), 2, option)
