"""Compaction changes no document and no state, whoever writes meanwhile and wherever it dies."""

from __future__ import annotations

import shutil
import signal

import lance
import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.pipelines import compact as compact_module
from contextframe_beam.pipelines.compact import compact
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.store.address import Address
from contextframe_beam.store.receipt import CommitReceipt
from contextframe_beam.store.state import ANCHOR_KEY
from contextframe_beam.store.upkeep import commit_tasks, do_task, plan_tasks
from contextframe_beam.transforms.commit import commit_run
from contextframe_beam.transforms.guards import _version_of
from tests.support.cli_helpers import assert_error, cli, run_code, start_code
from tests.support.pipeline_helpers import (
    EMBED_DIM,
    EVERY_WAY,
    begin,
    data_files,
    document,
    documents,
    texts_in,
    write,
)

RUNS = 4


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset of many small fragments, with deleted rows, raw data, vectors and a text index."""
    path = str(tmp_path_factory.mktemp("made") / "kb.lance")
    for number in range(RUNS):
        ingest(
            documents(f"a{number}", {"id": "same", "text": f"apple {number}"}),
            path,
            run_id=f"run-{number}",
            embed_dim=EMBED_DIM if number == 0 else None,
        )
    dataset = FrameDataset.open(path)
    dataset.add(document("raw", raw_data=b"\0" * 200_000, raw_data_type="image/png"))
    dataset.add(document("vector", vector=[1, 2, 3, 4]))
    dataset.search("apple")
    dataset.add(document("late", "an apple that came after the index"))
    return path


@pytest.fixture
def kb(made, tmp_path):
    return shutil.copytree(made, str(tmp_path / "kb.lance"))


def content(kb):
    dataset = FrameDataset.open(str(kb))
    # Two sources' rows have no order among them that a reader could rely on.
    records = sorted(dataset, key=lambda record: str(record.unique_id))
    return records, sorted(dataset.states(), key=lambda state: state.source)


def check_guards(kb):
    """Checks that the anchor and each state are there once, and each key."""
    stored = lance.dataset(str(kb))
    assert stored.count_rows(filter=f"uuid = '{ANCHOR_KEY}'") == 1
    keys = stored.to_table(columns=["uuid"])["uuid"].to_pylist()
    assert len(keys) == len(set(keys))


class TestWhatItDoes:
    @EVERY_WAY
    def test_one_fragment_with_the_same_content(self, kb, how):
        before = content(kb)
        receipt = compact(kb, **how)
        assert content(kb) == before
        check_guards(kb)
        assert receipt.fragments_after == 1 < receipt.fragments_before
        assert receipt.tasks == 1
        assert not receipt.unfinished
        assert receipt.version == FrameDataset.open(kb).version

    def test_the_indices_know_all_rows_and_keys_get_one(self, kb):
        receipt = compact(kb)
        assert receipt.indices == ("text_content_idx", "uuid_idx")
        stored = lance.dataset(kb)
        for name in receipt.indices:
            assert stored.stats.index_stats(name)["num_unindexed_rows"] == 0
        found = {record.unique_id for record in FrameDataset.open(kb).search("apple")}
        assert found == {"doc:same", "doc:late"}

    def test_an_index_of_vectors_is_brought_up_to_date(self, tmp_path):
        kb = str(tmp_path / "kb.lance")
        dataset = FrameDataset.create(kb, embed_dim=EMBED_DIM)
        vectors = [[i % 7, i % 11, i % 13, i % 17] for i in range(300)]
        dataset.add_many(document(i, vector=vector) for i, vector in enumerate(vectors))
        lance.dataset(kb).create_index("vector", "IVF_FLAT", num_partitions=2)
        dataset.add(document("far", vector=[99, 99, 99, 99]))
        assert "vector_idx" in compact(kb).indices
        assert lance.dataset(kb).stats.index_stats("vector_idx")["num_unindexed_rows"] == 0
        (nearest,) = FrameDataset.open(kb).nearest([100, 100, 100, 100], limit=1)
        assert nearest.unique_id == "doc:far"

    def test_deleted_rows_are_gone_from_the_files(self, kb):
        compact(kb)
        (fragment,) = lance.dataset(kb).get_fragments()
        assert fragment.num_deletions == 0

    def test_several_tasks_are_one_commit(self, kb):
        tasks = plan_tasks(lance.dataset(kb), target_rows=3)
        assert len(tasks) > 1
        results = [do_task(Address(kb), task) for task in tasks]
        before, version = content(kb), FrameDataset.open(kb).version
        assert commit_tasks(Address(kb), results) > 2
        made = FrameDataset.open(kb).history()
        # Lance first sets fragment numbers aside, in a version of the same content.
        assert [one.mode for one in made if one.version > version] == ["compact", "compact"]
        assert content(kb) == before

    def test_a_second_time_there_is_nothing_to_do(self, kb):
        compact(kb)
        version = FrameDataset.open(kb).version
        receipt = compact(kb)
        assert receipt.did_nothing
        assert FrameDataset.open(kb).version == version

    @pytest.mark.parametrize("storage_version", ["2.0", "2.2"])
    def test_other_file_formats(self, tmp_path, storage_version):
        kb = str(tmp_path / "kb.lance")
        dataset = FrameDataset.create(kb, EMBED_DIM, storage_version=storage_version)
        for number in range(3):
            dataset.add(document(number, raw_data=b"\1" * 70_000 * number, raw_data_type="a/b"))
        before = content(kb)
        compact(kb)
        assert content(kb) == before
        assert lance.dataset(kb).data_storage_version == storage_version


class TestRunsAfterIt:
    def test_an_old_run_is_still_known(self, kb):
        compact(kb)
        assert ingest(documents("other"), kb, run_id="run-0").already_committed

    def test_the_next_run_replaces_and_leaves_alone_as_before(self, kb):
        compact(kb)
        receipt = ingest(documents("a0", {"id": "same", "text": "new"}, "b"), kb)
        assert (receipt.rows_unchanged, receipt.rows_replaced, receipt.rows_written) == (1, 1, 2)
        assert texts_in(kb)["same"] == "new"
        check_guards(kb)


class TestRunsMeanwhile:
    def test_a_run_that_began_before_is_committed_after_it(self, kb):
        run = begin(kb, "late")
        written = write(run, document("same", "newest"), "b")
        compact(kb)
        receipt = commit_run(run, written)
        assert receipt.rows_replaced == 1
        assert texts_in(kb)["same"] == "newest"
        check_guards(kb)

    def test_what_a_run_changed_meanwhile_is_left_out(self, kb):
        results = [do_task(Address(kb), task) for task in plan_tasks(lance.dataset(kb))]
        run = begin(kb, "meanwhile")
        commit_run(run, write(run, document("same", "newest")))
        before, files = content(kb), data_files(kb)
        assert commit_tasks(Address(kb), results) == 0
        assert content(kb) == before
        check_guards(kb)
        assert len(data_files(kb)) == len(files) - len(results)

    def test_the_same_commit_again_does_nothing(self, kb):
        results = [do_task(Address(kb), task) for task in plan_tasks(lance.dataset(kb))]
        assert commit_tasks(Address(kb), results + results) > 0
        version = FrameDataset.open(kb).version
        assert commit_tasks(Address(kb), results) == 0
        assert FrameDataset.open(kb).version == version

    def test_the_version_of_a_run_is_found_behind_a_compaction_that_moved_an_index(self, kb):
        compact(kb)
        ingest(documents("new"), kb, run_id="new")
        compact(kb)
        moved = int(lance.dataset(kb).version)
        with pytest.raises(TypeError):
            lance.dataset(kb).read_transaction(moved)
        # As if the run had expected that number, and the compaction had come at that moment.
        expected = CommitReceipt("late", "upsert", version=moved)
        assert ingest(documents("late"), kb, run_id="late").version == moved + 1
        assert _version_of(expected, lance.dataset(kb)) == moved + 1

    def test_processes_that_ingest_and_compact_at_once(self, kb):
        children = [
            start_code(program, kb)
            for program in (_INGEST.format(name="x"), _INGEST.format(name="y"), _COMPACT)
        ]
        for child in children:
            _, err = child.communicate(timeout=300)
            assert child.returncode == 0, err
        check_guards(kb)
        texts = texts_in(kb)
        for name in "xy":
            assert texts[f"{name}-same"] == "text 3"
            assert {f"{name}-{number}" for number in range(4)} <= set(texts)
        known = {run.run_id for state in FrameDataset.open(kb).states() for run in state.runs}
        assert {f"{name}{number}" for name in "xy" for number in range(4)} <= known


_INGEST = """
import sys
from contextframe_beam.pipelines.ingest import ingest
from tests.support.pipeline_helpers import documents
for number in range(4):
    same = {{"id": "{name}-same", "text": f"text {{number}}"}}
    source = documents(f"{name}-{{number}}", same, source="{name}")
    ingest(source, sys.argv[1], run_id=f"{name}{{number}}")
"""

_COMPACT = """
import sys
from contextframe_beam.pipelines.compact import compact
for _ in range(4):
    compact(sys.argv[1])
"""


class TestKilled:
    @pytest.mark.sample
    @pytest.mark.parametrize(
        "point", ["do_task", "commit_tasks", "update_indices", "make_key_index"]
    )
    @pytest.mark.parametrize("when", ["before", "after"])
    def test_the_content_is_the_same_and_the_next_one_finishes(self, kb, point, when):
        before = content(kb)
        assert hasattr(compact_module, point)
        child = run_code(_KILLED, kb, point, when)
        assert child.code == -signal.SIGKILL, child.err
        assert content(kb) == before
        check_guards(kb)
        compact(kb)
        assert content(kb) == before
        assert len(lance.dataset(kb).get_fragments()) == 1


_KILLED = """
import sys
from contextframe_beam.pipelines import compact
from tests.pipelines.test_crash import _deadly
kb, point, when = sys.argv[1:]
setattr(compact, point, _deadly(getattr(compact, point), when))
compact.compact(kb)
"""


class TestOnTheCommandLine:
    def test_it_says_what_it_did_and_that_nothing_is_left_to_do(self, kb):
        result = cli("compact", kb)
        assert result.code == 0, result
        assert "now has 1 fragment" in result.out
        assert "text_content_idx, uuid_idx" in result.out
        assert cli("compact", kb).out.startswith("nothing to do")

    def test_for_scripts(self, kb):
        assert cli("compact", kb, "--json", "--workers", 2).json["fragments_after"] == 1

    def test_what_is_wrong_is_told(self, kb, tmp_path):
        assert_error(cli("compact", tmp_path / "none"), 1, "there is no dataset at")
        assert_error(cli("compact", kb, "--worker", 2), 2, "no such option", "--workers")
        assert_error(cli("compact", kb, "--paralelism", 2), 2, "did you mean --parallelism")
        assert_error(cli("compact", kb, "--runner", "X"), 2, "there is no runner X")


def test_a_run_says_when_a_compaction_is_worth_it(tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    kb = tmp_path / "kb.lance"

    def said(name: str, many: int) -> str:
        monkeypatch.setattr("contextframe_beam.store.upkeep._MANY_FILES", many)
        (tmp_path / "docs" / name).write_text('{"text": "one"}')
        return cli("ingest", "json", "--directory", tmp_path / "docs", "--to", kb).out

    assert "small data files" not in said("a.json", 100)
    assert f"`contextframe-beam compact {kb}` joins them" in said("b.json", 2)
