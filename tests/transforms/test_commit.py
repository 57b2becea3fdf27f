"""A run is in the dataset once or not at all, whoever else commits at the same moment."""

from __future__ import annotations

import itertools
import json
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import lance
import pyarrow as pa
import pytest

from contextframe_beam import Deletion, FrameDataset
from contextframe_beam.connectors.page import SourceInfo
from contextframe_beam.errors import (
    CommitError,
    ConcurrentRunError,
    ContextFrameError,
    DatasetError,
)
from contextframe_beam.frames.encode import encode_records
from contextframe_beam.frames.schema import FORMAT_COLUMNS
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.store.address import Address
from contextframe_beam.store.files import open_dataset
from contextframe_beam.store.runs import StateChange
from contextframe_beam.store.state import ANCHOR_KEY, MAX_RUNS, read_states
from contextframe_beam.transforms import CommitReceipt
from contextframe_beam.transforms import commit as _commit
from contextframe_beam.transforms.commit import commit_run
from contextframe_beam.transforms.guards import committed_receipt
from tests.support.cli_helpers import start_code
from tests.support.pipeline_helpers import (
    EACH_BUNDLE_TWICE,
    EMBED_DIM,
    OTHER,
    SOURCE,
    Documents,
    PlainDocuments,
    begin,
    commit,
    data_files,
    document,
    documents,
    ids_in,
    named_files,
    run,
    texts_in,
    write,
)


def add_foreign(to: Path, *names: Any) -> None:
    """Appends rows as a program does that knows nothing of us."""
    rows, _ = encode_records([document(name) for name in names], embed_dim=EMBED_DIM)
    lance.write_dataset(pa.Table.from_batches([rows]), str(to), mode="append")


def clean_up(to: Path) -> None:
    """Compacts a dataset and forgets all its older versions."""
    dataset = lance.dataset(str(to))
    dataset.optimize.compact_files()
    dataset.cleanup_old_versions(older_than=timedelta(0))
    assert len(lance.dataset(str(to)).versions()) == 1


class TestRunIds:
    @pytest.mark.sample(2)
    @pytest.mark.parametrize("mode", ["create", "append", "overwrite", "upsert"])
    def test_a_run_that_was_committed_is_not_committed_again(self, kb, mode):
        first = run(documents(1, 2), kb, mode=mode, run_id="nightly")
        again = run(documents(3, 4), kb, mode=mode, run_id="nightly")
        assert ids_in(kb) == ["1", "2"]
        assert again.already_committed and not first.already_committed
        assert again.rows_written == first.rows_written == 2
        assert again.version == first.version == lance.dataset(str(kb)).version

    @pytest.mark.parametrize("mode", ["append", "overwrite", "upsert"])
    def test_it_is_not_after_compaction_and_cleanup(self, kb, mode):
        commit(kb, 0, run_id="before")
        started = begin(kb, "nightly", mode, max_deletes="100%")
        written = write(started, 1, 2)
        commit_run(started, written)
        commit(kb, 3, run_id="after")
        clean_up(kb)
        found = ids_in(kb)
        assert commit_run(started, written).already_committed
        assert ids_in(kb) == found

    def test_it_is_not_after_others_overwrote_the_dataset(self, kb):
        started = begin(kb, "early", "append")
        written = write(started, 1)
        commit_run(started, written)
        commit(kb, 5, run_id="all anew", mode="overwrite", source=OTHER)
        assert commit_run(started, written).already_committed
        assert ids_in(kb) == ["5"]

    def test_a_bundle_that_is_replayed_commits_once(self, kb):
        run(documents(1, 2), kb, mode="append", **EACH_BUNDLE_TWICE)
        assert ids_in(kb) == ["1", "2"]
        assert lance.dataset(str(kb)).version == 1

    def test_the_job_does_not_even_read_again(self, kb):
        source = documents(1, 2)
        receipt = ingest(source, str(kb), run_id="nightly", embed_dim=EMBED_DIM)
        unreadable = documents(1, 2)
        del unreadable.pages
        again = ingest(unreadable, str(kb), run_id="nightly")
        assert again.already_committed
        assert again.rows_written == receipt.rows_written == 2

    @pytest.mark.parametrize("mode", ["append", "overwrite", "upsert"])
    def test_a_run_id_of_another_source_is_refused(self, kb, mode):
        run(documents(1), kb, run_id="nightly")
        with pytest.raises(Exception, match=r"run nightly of another source \(Documents, \w{16}\)"):
            run(documents(2, source="more"), kb, run_id="nightly", mode=mode)
        assert ids_in(kb) == ["1"]

    def test_it_is_refused_also_after_that_source_overwrote_the_dataset(self, kb):
        run(documents(1, source="more"), kb, run_id="first")
        run(documents(2), kb, run_id="nightly", mode="overwrite")
        with pytest.raises(Exception, match="used once in a dataset; nothing of Documents was"):
            run(documents(1, source="more"), kb, run_id="nightly")
        assert ids_in(kb) == ["2"]

    def test_it_is_refused_also_when_that_source_came_first_at_the_last_moment(self, kb):
        commit(kb, 1)
        started = begin(kb, "nightly")
        written = write(started, 2)
        with (
            at_the_commit(lambda: commit(kb, 3, run_id="nightly", source=OTHER)),
            pytest.raises(CommitError, match="of another source"),
        ):
            commit_run(started, written)
        assert ids_in(kb) == ["1", "3"]

    def test_unknown_runs_have_no_receipt(self, kb):
        assert committed_receipt(Address(str(kb)), "run-1") is None
        commit(kb, 1)
        assert committed_receipt(Address(str(kb)), "run-2") is None
        assert committed_receipt(Address(str(kb)), "run-1").rows_written == 1

    def test_the_version_in_a_receipt_is_exact_when_others_came_between(self, kb):
        commit(kb, 1)
        started = begin(kb, "run-2")
        written = write(started, 2)
        with at_the_commit(lambda: add_foreign(kb, 7)):
            receipt = commit_run(started, written)
        assert receipt.version == lance.dataset(str(kb)).version == 3
        assert committed_receipt(Address(str(kb)), "run-2").version == 3


class TestStateRow:
    def test_state_and_documents_come_together(self, kb):
        run(documents(1, 2, 3), kb, run_id="first")
        run(documents(1, 2, 3, 4, 5), kb, run_id="second")
        for version, run_ids, read in ((1, ["first"], [1, 2]), (2, ["first", "second"], [2, 3])):
            (state,) = FrameDataset.open(str(kb), version=version).states()
            assert [one.run_id for one in state.runs] == run_ids
            assert sorted(partition["read"] for partition in state.partitions.values()) == read

    def test_a_failed_run_changes_neither(self, kb):
        run(documents(1, 2), kb)
        before = FrameDataset.open(str(kb)).states()
        with pytest.raises(ContextFrameError):
            run(documents(1, 2, 3, {"id": 4, "error": "no"}), kb, max_failures=0)
        assert FrameDataset.open(str(kb)).states() == before

    def test_it_says_what_each_run_did(self, kb):
        run(documents(1, 2), kb, run_id="first")
        receipt = run(documents(2, {"id": 3, "error": "no"}, 4), kb, run_id="second")
        (state,) = FrameDataset.open(str(kb)).states()
        assert state.name == "Documents"
        assert state.identity["arguments"] == {"source": "documents"}
        last = state.runs[-1]
        assert (last.run_id, last.version, last.mode) == ("second", 2, "upsert")
        assert (last.written, last.unchanged, last.failed) == (1, 1, 1)
        assert (last.fragments, last.bytes) == (receipt.fragments, receipt.bytes)

    def test_a_partition_that_a_complete_run_did_not_see_is_forgotten(self, kb):
        run(Documents({"a": [[{"id": 1}]], "b": [[{"id": 2}]]}), kb)
        run(Documents({"b": [[{"id": 2}, {"id": 3}]]}), kb)
        (state,) = FrameDataset.open(str(kb)).states()
        assert state.partitions == {"b": {"read": 2}}

    def test_one_that_an_incomplete_run_did_not_see_keeps_its_state(self, kb):
        run(Documents({"a": [[{"id": 1}]], "b": [[{"id": 2}]]}), kb)
        some = Documents({"b": [[{"id": 2}, {"id": 3}]]})
        ingest(some, str(kb), commit_every=1)
        (state,) = FrameDataset.open(str(kb)).states()
        assert state.partitions == {"a": {"read": 1}, "b": {"read": 2}}

    def test_a_complete_run_that_gives_no_state_keeps_those_there_are(self, kb):
        commit(kb, 1, run_id="a", state={"at": 1})
        commit(kb, 2, run_id="b")
        assert read_states(lance.dataset(str(kb)))[SOURCE.source_id].partitions == {
            "all": {"at": 1}
        }

    def test_overwriting_forgets_what_sources_had_reached_but_not_their_runs(self, kb):
        commit(kb, 1, run_id="a", source=SOURCE, state={"at": 1})
        commit(kb, 2, run_id="b", source=OTHER, state={"at": 1})
        commit(kb, 3, run_id="c", source=OTHER, state={"at": 2}, mode="overwrite", max_deletes=1)
        states = read_states(lance.dataset(str(kb)))
        assert states[SOURCE.source_id].partitions == {}
        assert states[OTHER.source_id].partitions == {"all": {"at": 2}}
        assert [one.run_id for one in states[SOURCE.source_id].runs] == ["a", "c"]
        assert [one.run_id for one in states[OTHER.source_id].runs] == ["b", "c"]

    def test_there_is_one_row_for_each_source_and_one_anchor(self, kb):
        for number in range(4):
            commit(kb, number, run_id=f"a{number}", mode="append")
            commit(kb, number, run_id=f"b{number}", source=OTHER)
        dataset = lance.dataset(str(kb))
        assert dataset.count_rows(filter="x_state IS NOT NULL") == 3
        assert dataset.count_rows(filter=f"uuid = '{ANCHOR_KEY}'") == 1

    def test_it_remembers_a_bounded_number_of_runs(self, kb):
        commit(kb, 1)
        (state,) = read_states(lance.dataset(str(kb))).values()
        for number in range(2 * MAX_RUNS):
            state = state.after(state.runs[-1], {"all": number})
        assert len(state.runs) == MAX_RUNS

    def test_it_is_no_document(self, kb):
        commit(kb, 1)
        dataset = FrameDataset.open(str(kb))
        assert len(dataset) == len(list(dataset)) == 1
        assert dataset.lance.count_rows() == 3
        assert dataset.search("state contextframe text") == [dataset.get("doc:1")]


class Gate:
    """Holds a committer at the moment when it has decided and is about to commit."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()


@contextmanager
def gated(gates: dict[str, Gate]) -> Iterator[None]:
    """Makes the threads of these names stop at their gates, each once."""
    real = {name: getattr(_commit, name) for name in ("commit_update", "commit_overwrite")}

    def stopping(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            gate = gates.get(threading.current_thread().name)
            if gate is not None and not gate.reached.is_set():
                gate.reached.set()
                assert gate.opened.wait(60)
            return real[name](*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in real:
            patch.setattr(_commit, name, stopping(name))
        yield


@contextmanager
def at_the_commit(action: Callable[[], Any]) -> Iterator[None]:
    """Lets something happen after this thread's next commit was decided and before it is done."""
    real = _commit.commit_update
    pending = [action]

    def call(*args: Any, **kwargs: Any) -> Any:
        if pending:
            pending.pop()()
        return real(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_commit, "commit_update", call)
        yield


def interleave(order: str, committers: dict[str, Callable[[], CommitReceipt]]) -> list[Any]:
    """Runs two committers, `a` and `b`, step by step, and returns their receipts or errors.

    Args:
        order: Such as `abba`: a letter's first occurrence lets that committer go until it is
            about to commit, its second until it is done.
        committers: What each of them does.
    """
    gates = {name: Gate() for name in committers}
    results: dict[str, Future[CommitReceipt]] = {name: Future() for name in committers}

    def work(name: str) -> None:
        try:
            results[name].set_result(committers[name]())
        except ContextFrameError as error:
            results[name].set_exception(error)
        finally:
            gates[name].reached.set()

    threads = {name: threading.Thread(target=work, args=[name], name=name) for name in committers}
    with gated(gates):
        for name in order:
            if not threads[name].ident:
                threads[name].start()
                assert gates[name].reached.wait(60)
            else:
                gates[name].opened.set()
                threads[name].join(60)
    return [results[name].exception() or results[name].result() for name in sorted(committers)]


ORDERS = ["aabb", "abab", "abba", "baab", "baba", "bbaa"]
IN_EVERY_ORDER = pytest.mark.parametrize("order", ORDERS)


class TestTwoAtOnce:
    @pytest.mark.sample
    @IN_EVERY_ORDER
    @pytest.mark.parametrize("mode", ["create", "append", "overwrite", "upsert"])
    @pytest.mark.parametrize("first", [True, False], ids=["new dataset", "old dataset"])
    def test_one_run_with_two_committers_is_committed_once(self, kb, order, mode, first):
        if not first:
            if mode == "create":
                return
            commit(kb, 1, 9, run_id="earlier")
        started = begin(kb, "nightly", mode)
        written = write(started, 1, 2)
        both = interleave(order, dict.fromkeys("ab", lambda: commit_run(started, written)))
        assert sorted(receipt.already_committed for receipt in both) == [False, True]
        expected = {"append": ["1", "1", "2", "9"], "upsert": ["1", "2", "9"]}
        assert ids_in(kb) == (["1", "2"] if first else expected.get(mode, ["1", "2"]))
        assert lance.dataset(str(kb)).version == (1 if first else 2)

    @pytest.mark.sample
    @IN_EVERY_ORDER
    @pytest.mark.parametrize("first", [True, False], ids=["first runs", "later runs"])
    def test_two_runs_of_one_source_leave_one_row_a_key(self, kb, order, first):
        if not first:
            commit(kb, document(1, "earlier"), run_id="earlier")
        runs = {name: begin(kb, name) for name in "ab"}
        written = {name: write(runs[name], 1, 2) for name in "ab"}
        both = interleave(
            order, {name: lambda name=name: commit_run(runs[name], written[name]) for name in "ab"}
        )
        assert ids_in(kb) == ["1", "2"]
        assert sorted(receipt.rows_replaced for receipt in both) == ([0, 2] if first else [1, 2])
        (state,) = read_states(lance.dataset(str(kb))).values()
        assert sorted(one.run_id for one in state.runs)[:2] == ["a", "b"]

    @pytest.mark.sample
    @IN_EVERY_ORDER
    @pytest.mark.parametrize("first", [True, False], ids=["first runs", "later runs"])
    def test_two_runs_of_two_sources_leave_one_row_a_key(self, kb, order, first):
        sources = {"a": SOURCE, "b": OTHER}
        if not first:
            for name, source in sources.items():
                commit(kb, f"of {name}", run_id=f"earlier {name}", source=source)
        runs = {name: begin(kb, name) for name in "ab"}
        written = {
            name: write(runs[name], "same", f"only {name}", source=sources[name]) for name in "ab"
        }
        interleave(
            order, {name: lambda name=name: commit_run(runs[name], written[name]) for name in "ab"}
        )
        earlier = [] if first else ["of a", "of b"]
        assert ids_in(kb) == [*earlier, "only a", "only b", "same"]

    @IN_EVERY_ORDER
    def test_of_two_runs_that_know_what_is_stored_the_later_one_is_told(self, kb, order):
        commit(kb, 1, run_id="earlier", state={"at": 0})
        runs = {name: begin(kb, name) for name in "ab"}
        written = {name: write(runs[name], 1, name, state={"at": name}) for name in "ab"}
        assert all(one.sources[SOURCE.source_id].unchanged for one in written.values())
        both = interleave(
            order, {name: lambda name=name: commit_run(runs[name], written[name]) for name in "ab"}
        )
        winner = "a" if isinstance(both[0], CommitReceipt) else "b"
        assert ids_in(kb) == ["1", winner]
        (error,) = (one for one in both if isinstance(one, Exception))
        assert isinstance(error, ConcurrentRunError)
        assert "another run of documents was committed" in str(error)
        (state,) = read_states(lance.dataset(str(kb))).values()
        assert state.partitions == {"all": {"at": winner}}

    @IN_EVERY_ORDER
    def test_an_overwrite_never_loses_what_it_did_not_see(self, kb, order):
        commit(kb, 1, run_id="earlier")
        runs = {"a": begin(kb, "a", "overwrite", max_deletes=1), "b": begin(kb, "b")}
        written = {name: write(runs[name], name) for name in "ab"}
        overwrite, upsert = interleave(
            order, {name: lambda name=name: commit_run(runs[name], written[name]) for name in "ab"}
        )
        assert isinstance(upsert, CommitReceipt)
        if isinstance(overwrite, CommitReceipt):
            assert ids_in(kb) == ["a", "b"]
        else:
            assert isinstance(overwrite, ConcurrentRunError)
            assert "went from version 1 to 2 while run a was reading" in str(overwrite)
            assert ids_in(kb) == ["1", "b"]

    def test_an_overwrite_of_nothing_does_not_lose_what_came_meanwhile(self, kb):
        started = begin(kb, "a", "overwrite")
        written = write(started, 1)
        commit(kb, 2, run_id="b")
        with pytest.raises(ConcurrentRunError, match="was created while run a was reading"):
            commit_run(started, written)
        assert ids_in(kb) == ["2"]

    def test_a_run_does_not_rely_on_rows_that_another_source_overwrote(self, kb):
        commit(kb, 1, run_id="earlier")
        started = begin(kb, "a")
        written = write(started, 1, 2)
        commit(kb, 5, run_id="b", mode="overwrite", source=OTHER)
        with pytest.raises(ConcurrentRunError):
            commit_run(started, written)
        assert ids_in(kb) == ["5"]

    @pytest.mark.parametrize("mode", ["create", "append", "overwrite", "upsert"])
    def test_threads_that_commit_one_run_at_once(self, kb, mode):
        started = begin(kb, "nightly", mode)
        written = write(started, 1, 2, document(2, "later", timestamp="2026-01-01"))
        together = threading.Barrier(4)

        def work(_: int) -> CommitReceipt:
            together.wait()
            return commit_run(started, written)

        with ThreadPoolExecutor(4) as pool:
            receipts = list(pool.map(work, range(4)))
        assert sorted(receipt.already_committed for receipt in receipts) == [
            False,
            True,
            True,
            True,
        ]
        assert texts_in(kb) == {"1": "text of 1", "2": "later"}

    def test_processes_that_commit_at_once(self, tmp_path):
        jobs = []
        for number, mode in enumerate(["append", "upsert", "overwrite", "create"] * 2):
            kb = tmp_path / f"{number}.lance"
            if mode != "create":
                commit(kb, 0, run_id="earlier")
            one = begin(kb, "one run", mode, max_deletes="100%")
            jobs.append((kb, mode, [(one, write(one, 1, 2))] * 2))
        for number in range(4):
            kb = tmp_path / f"sources{number}.lance"
            runs = [begin(kb, f"run-{source.source_id}") for source in (SOURCE, OTHER)]
            work = [
                (started, write(started, 1, 2, source=source))
                for started, source in zip(runs, (SOURCE, OTHER), strict=True)
            ]
            jobs.append((kb, "sources", work))
        for own in (0, 1):
            Path(tmp_path, f"{own}.pickle").write_bytes(
                pickle.dumps([work[own] for _, _, work in jobs])
            )
        committers = [start_code(_COMMIT_IN_STEP, tmp_path / f"{own}.pickle") for own in (0, 1)]
        try:
            for kb, mode, _ in jobs:
                for committer in committers:
                    assert committer.stdout.readline() == "ready\n"
                for committer in committers:
                    committer.stdin.write("go\n")
                    committer.stdin.flush()
                answers = [json.loads(committer.stdout.readline()) for committer in committers]
                if mode != "sources":
                    assert sorted(answers) == [False, True], mode
                expected = {"append": ["0", "1", "2"], "upsert": ["0", "1", "2"]}
                assert ids_in(kb) == expected.get(mode, ["1", "2"]), mode
        finally:
            for committer in committers:
                committer.kill()
                committer.communicate()


class TestManyAtOnce:
    def test_it_is_as_if_they_had_come_one_after_the_other(self, kb):
        """Sources, appends, edits by hand and a compaction, each in threads of their own."""
        commit(kb, "0", run_id="first", source=OTHER)
        done: list[tuple[int, dict[str, str]]] = [(1, {"0": "text of 0"})]
        ended = threading.Event()

        def runs(number: int) -> None:
            source = SourceInfo(f"{number % 3:016}", f"source {number % 3}", {})
            for count in range(4):
                name = f"run-{number}-{count}"
                mode = "append" if count == 2 else "upsert"
                keys = [f"{name}"] if mode == "append" else [str(number), str(number + 1), "same"]
                texts = {key: f"{key} of {name}" for key in keys}
                started = begin(kb, name, mode)
                written = write(
                    started, *(document(*item) for item in texts.items()), source=source
                )
                done.append((commit_run(started, written).version, texts))

        def edits() -> None:
            for count in range(4):
                dataset = FrameDataset.open(str(kb))
                dataset.add(document(count, f"edit {count}"))
                done.append((dataset.version, {str(count): f"edit {count}"}))

        def compactions() -> None:
            while not ended.is_set():
                # That a run was quicker is what is wanted here.
                with suppress(OSError):
                    lance.dataset(str(kb)).optimize.compact_files()

        with ThreadPoolExecutor(6) as pool:
            compacting = pool.submit(compactions)
            try:
                work = [*(pool.submit(runs, number) for number in range(4)), pool.submit(edits)]
                for one in work:
                    one.result()
            finally:
                ended.set()
            compacting.result()
        expected: dict[str, str] = {}
        for _, texts in sorted(done, key=lambda entry: entry[0]):
            expected.update(texts)
        assert len({version for version, _ in done}) == len(done) == 21
        assert ids_in(kb) == sorted(expected)
        assert texts_in(kb) == expected


_COMMIT_IN_STEP = """
import json, pickle, sys
from contextframe_beam.transforms.commit import commit_run

for run, written in pickle.load(open(sys.argv[1], "rb")):
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(commit_run(run, written).already_committed), flush=True)
"""


class TestForeignWriters:
    """Other programs that write between our decision and our commit."""

    @pytest.fixture
    def started(self, kb: Path) -> Any:
        commit(kb, 1, 2, 3, run_id="earlier")
        commit(kb, 4, run_id="later")
        return begin(kb, "run-3")

    def test_rows_that_they_delete_stay_deleted(self, kb, started):
        written = write(started, document(2, "new"), 5)
        with at_the_commit(lambda: lance.dataset(str(kb)).delete("uri = 'doc:1'")):
            receipt = commit_run(started, written)
        assert texts_in(kb) == {"2": "new", **{n: f"text of {n}" for n in "345"}}
        assert receipt.rows_replaced == 1

    def test_a_row_that_they_delete_is_not_counted_as_replaced(self, kb, started):
        written = write(started, document(2, "new"))
        with at_the_commit(lambda: lance.dataset(str(kb)).delete("uri = 'doc:2'")):
            receipt = commit_run(started, written)
        assert ids_in(kb) == ["1", "2", "3", "4"]
        assert receipt.rows_replaced == 0

    def test_rows_that_they_append_stay(self, kb, started):
        written = write(started, document(2, "new"))
        with at_the_commit(lambda: add_foreign(kb, 7)):
            commit_run(started, written)
        assert ids_in(kb) == ["1", "2", "3", "4", "7"]

    def test_a_compaction_does_not_bring_rows_back(self, kb, started):
        written = write(started, document(2, "new"), 5)
        with at_the_commit(lambda: lance.dataset(str(kb)).optimize.compact_files()):
            commit_run(started, written)
        assert texts_in(kb)["2"] == "new"
        assert ids_in(kb) == ["1", "2", "3", "4", "5"]

    def test_the_same_new_key_added_by_hand_is_replaced(self, kb, started):
        written = write(started, document(5, "of the run"))
        with at_the_commit(lambda: FrameDataset.open(str(kb)).add(document(5, "by hand"))):
            commit_run(started, written)
        assert texts_in(kb)["5"] == "of the run"
        assert ids_in(kb) == ["1", "2", "3", "4", "5"]

    def test_an_index_that_they_make_is_kept(self, kb, started):
        written = write(started, document(5, "unheard of"))
        with at_the_commit(
            lambda: lance.dataset(str(kb)).create_scalar_index("text_content", "INVERTED")
        ):
            commit_run(started, written)
        dataset = FrameDataset.open(str(kb))
        assert dataset.search("unheard") == [document(5, "unheard of")]
        assert len(dataset.lance.describe_indices()) == 1

    def test_a_dataset_that_they_overwrite_is_not_mixed_with_what_was_there(self, kb, started):
        written = write(started, document(2, "new"))

        def overwrite() -> None:
            rows, _ = encode_records([document(8)], embed_dim=EMBED_DIM)
            lance.write_dataset(pa.Table.from_batches([rows]), str(kb), mode="overwrite")

        with at_the_commit(overwrite):
            commit_run(started, written)
        assert ids_in(kb) == ["2", "8"]
        assert lance.dataset(str(kb)).count_rows(filter=f"uuid = '{ANCHOR_KEY}'") == 1

    def test_a_dataset_that_they_overwrite_with_other_columns_is_left_alone(self, kb, started):
        written = write(started, document(2, "new"))
        other = pa.table({"name": ["a"]})
        with (
            at_the_commit(lambda: lance.write_dataset(other, str(kb), mode="overwrite")),
            pytest.raises(CommitError, match=r"the columns of .* changed while run run-3"),
        ):
            commit_run(started, written)
        assert lance.dataset(str(kb)).to_table() == other

    def test_a_dataset_that_is_removed_stays_removed(self, kb, started):
        written = write(started, document(2, "new"))
        shutil.rmtree(kb)
        with pytest.raises(CommitError, match="nothing was committed"):
            commit_run(started, written)
        assert open_dataset(Address(str(kb))) is None

    def test_a_dataset_that_is_removed_at_the_last_moment_stays_removed(self, kb, started):
        written = write(started, document(2, "new"))
        with (
            at_the_commit(lambda: shutil.rmtree(kb)),
            pytest.raises(CommitError, match="run run-3 was not committed"),
        ):
            commit_run(started, written)
        assert open_dataset(Address(str(kb))) is None

    def test_a_lost_anchor_comes_back(self, kb, started):
        written = write(started, document(2, "new"))
        lance.dataset(str(kb)).delete(f"uuid = '{ANCHOR_KEY}'")
        receipt = commit_run(started, written)
        assert receipt.rows_replaced == 1
        assert lance.dataset(str(kb)).count_rows(filter=f"uuid = '{ANCHOR_KEY}'") == 1

    def test_a_base_version_that_was_cleaned_up_fails_the_run(self, kb, started):
        written = write(started, 1, 5)
        commit(kb, 6, run_id="run of another source", source=OTHER)
        clean_up(kb)
        with pytest.raises(ConcurrentRunError, match="from which run run-3 started, was cleaned"):
            commit_run(started, written)
        assert ids_in(kb) == ["1", "2", "3", "4", "6"]


class TestDatasetsMadeMeanwhile:
    """There was no dataset when the run began, and there is one when it commits."""

    @pytest.fixture
    def started(self, kb: Path) -> Any:
        return begin(kb)

    def test_one_of_ours_is_written_to(self, kb, started):
        written = write(started, 1, 2)
        commit(kb, document(2, "earlier"), 3, run_id="other", source=OTHER)
        assert commit_run(started, written).rows_replaced == 1
        assert texts_in(kb) == {n: f"text of {n}" for n in "123"}

    def test_create_refuses_it(self, kb):
        started = begin(kb, mode="create")
        written = write(started, 1)
        commit(kb, 2, run_id="other", source=OTHER)
        with pytest.raises(CommitError, match=r"exists already; choose mode=\"upsert\""):
            commit_run(started, written)
        assert ids_in(kb) == ["2"]

    @pytest.mark.parametrize(
        "settings",
        [{"storage_version": "2.0"}, {"storage_version": "2.2"}, {"embed_dim": 8}],
        ids=str,
    )
    def test_one_of_another_layout_is_left_alone(self, kb, started, settings):
        written = write(started, 1)
        FrameDataset.create(str(kb), **{"embed_dim": EMBED_DIM, **settings}).add(document(9))
        with pytest.raises(CommitError, match=r"the columns of .* changed .* run it again"):
            commit_run(started, written)
        assert texts_in(kb) == {"9": "text of 9"}

    @pytest.mark.parametrize("names", list(itertools.islice(itertools.permutations(range(4)), 6)))
    def test_one_with_columns_in_another_order_is_never_mixed_up(self, kb, started, names):
        written = write(started, document(1, context={"a": 1}))
        rows, _ = encode_records([document(9, context={"b": 2})], embed_dim=EMBED_DIM)
        columns = list(rows.schema.names)
        first = ("text_content", "version", "context", "status")
        order = dict(zip(first, (first[index] for index in names), strict=True))
        table = pa.Table.from_batches([rows]).select([order.get(name, name) for name in columns])
        lance.write_dataset(table, str(kb), data_storage_version="2.1")
        try:
            commit_run(started, written)
        except CommitError as error:
            assert "the columns of" in str(error)
        expected = {"9": "text of 9", "1": "text of 1"}
        assert texts_in(kb).items() <= expected.items()

    def test_one_of_another_program_is_left_alone_or_adopted(self, kb, started):
        written = write(started, 1)
        rows, _ = encode_records([document(9)], embed_dim=EMBED_DIM)
        table = pa.Table.from_batches([rows]).select(list(FORMAT_COLUMNS))
        lance.write_dataset(table, str(kb), data_storage_version="2.1")
        try:
            commit_run(started, written)
        except CommitError as error:
            assert "the columns of" in str(error)
        assert texts_in(kb)["9"] == "text of 9"


class TestCompleteness:
    @pytest.mark.parametrize(("planned", "finished"), [(3, 2), (2, 3), (0, 1), (1, 0)])
    def test_a_run_whose_parts_are_not_all_there_is_refused(self, kb, planned, finished):
        commit(kb, 0, run_id="earlier")
        started = begin(kb)
        written = write(started, 1)
        tally = written.sources[SOURCE.source_id]
        tally.planned, tally.finished = planned, finished
        with pytest.raises(
            CommitError, match=rf"{finished} of the {planned} parts of documents .* run it again"
        ):
            commit_run(started, written)
        assert ids_in(kb) == ["0"]

    @pytest.mark.parametrize("harm", ["remove", "cut off"])
    def test_a_data_file_that_is_not_whole_is_refused(self, kb, harm):
        started = begin(kb)
        written = write(started, 1)
        file = kb / "data" / written.fragments[0].paths[0]
        if harm == "remove":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(CommitError, match=r"data file .*\.lance .* nothing was committed"):
            commit_run(started, written)
        assert open_dataset(Address(str(kb))) is None

    def test_a_data_file_that_cannot_be_read_is_refused(self, kb):
        started = begin(kb)
        written = write(started, 1)
        file = kb / "data" / written.fragments[0].paths[0]
        file.write_bytes(bytes(file.stat().st_size))
        with pytest.raises(CommitError, match="does not end as a Lance file does"):
            commit_run(started, written)
        assert open_dataset(Address(str(kb))) is None

    def test_a_place_that_cannot_be_committed_to_says_so(self, kb):
        started = begin(kb)
        written = write(started, 1)
        (kb / "_versions").write_text("in the way")
        with pytest.raises((CommitError, DatasetError), match=r"kb\.lance"):
            commit_run(started, written)

    def test_retries_leave_no_files_behind(self, kb):
        commit(kb, 1, 2, run_id="earlier")
        started = begin(kb, "run-2")
        written = write(started, *_TWICE)
        files = data_files(kb)
        with at_the_commit(lambda: lance.dataset(str(kb)).delete("uri = 'doc:1'")):
            commit_run(started, written)
        assert texts_in(kb) == {"2": "newer"}
        assert len(files) == 3
        assert data_files(kb) == named_files(kb)

    def test_a_run_that_was_committed_from_other_files_leaves_none_of_its_own(self, kb):
        commit(kb, 1, run_id="earlier")
        late = begin(kb, "nightly")
        written = write(late, *_TWICE)
        quick = begin(kb, "nightly")
        with at_the_commit(lambda: commit_run(quick, write(quick, *_TWICE))):
            assert commit_run(late, written).already_committed
        assert commit_run(late, written).already_committed
        assert texts_in(kb) == {"1": "text of 1", "2": "newer"}
        assert data_files(kb) == named_files(kb)

    @pytest.mark.parametrize("when", ["before", "at"])
    def test_a_refused_run_leaves_nothing_but_what_its_workers_wrote(self, kb, when):
        commit(kb, 1, run_id="earlier", state={"at": 0})
        started = begin(kb, "refused")
        written = write(started, *_TWICE, state={"at": 1})
        files = {path for one in written.fragments for path in one.paths}

        def other() -> None:
            commit(kb, 1, run_id="other", state={"at": 2})

        meanwhile = at_the_commit(other) if when == "at" else nullcontext(other())
        with meanwhile, pytest.raises(ConcurrentRunError):
            commit_run(started, written)
        assert data_files(kb) == named_files(kb) | files


_TWICE = (
    document(2, "older", timestamp="2026-01-01"),
    document(2, "newer", timestamp="2026-01-02"),
)


class Overtaken(PlainDocuments):
    """While it is read into a dataset, another run of it begins and ends, and finds newer texts."""

    def __init__(self, items, into=None):
        super().__init__(items)
        self.into = into

    def sync_documents(self):
        if self.into is not None:
            ingest(Overtaken([{"id": 1, "text": "newer"}]), str(self.into), embed_dim=4)
        return super().sync_documents()


class TestTextsThatGotOlderWhileTheyWereRead:
    """What a run has read is older than what one that began later has read and committed."""

    WHOLE: ClassVar = {"change": StateChange(whole=True)}

    @pytest.mark.parametrize("mode", ["upsert", "mirror"])
    @pytest.mark.parametrize("stored", [(), (1,), (1, 2)], ids=["new", "one", "both"])
    def test_they_do_not_replace_newer_ones_of_their_source(self, kb, mode, stored):
        commit(kb, *stored, run_id="earlier")
        started = begin(kb, "slow", mode)
        written = write(started, document(1, "older"), 2, **self.WHOLE)
        commit(kb, document(1, "newer"), document(2, "newer"), run_id="quick", **self.WHOLE)
        with pytest.raises(ConcurrentRunError, match="another run of documents was committed"):
            commit_run(started, written)
        assert texts_in(kb) == {"1": "newer", "2": "newer"}

    def test_nor_do_they_bring_back_what_was_deleted(self, kb):
        commit(kb, *range(20), run_id="earlier")
        started = begin(kb, "slow")
        written = write(started, document(1, "older"), **self.WHOLE)
        commit(kb, Deletion("doc:1"), run_id="quick")
        with pytest.raises(ConcurrentRunError):
            commit_run(started, written)
        assert "1" not in texts_in(kb)

    def test_where_that_one_creates_the_dataset(self, kb):
        started = begin(kb, "slow")
        written = write(started, document(1, "older"), **self.WHOLE)
        commit(kb, document(1, "newer"), run_id="quick", **self.WHOLE)
        with pytest.raises(ConcurrentRunError):
            commit_run(started, written)
        assert texts_in(kb) == {"1": "newer"}

    @pytest.mark.parametrize("stored", [False, True], ids=["new", "stored"])
    def test_whole_runs_of_a_plain_connector(self, kb, stored):
        if stored:
            ingest(Overtaken([{"id": 1, "text": "oldest"}]), str(kb), embed_dim=4)
        with pytest.raises(ConcurrentRunError, match="another run of"):
            ingest(Overtaken([{"id": 1, "text": "older"}], kb), str(kb), embed_dim=4)
        assert texts_in(kb) == {"1": "newer"}
        ingest(Overtaken([{"id": 1, "text": "newest"}]), str(kb))
        assert texts_in(kb) == {"1": "newest"}

    def test_ranges_of_a_source_may_be_read_at_once(self, kb):
        started = begin(kb, "slow")
        written = write(started, document(1, "slow"), narrowed="--since was given")
        commit(kb, document(2, "quick"), run_id="quick", narrowed="--since was given")
        commit_run(started, written)
        assert texts_in(kb) == {"1": "slow", "2": "quick"}

    def test_appends_may_come_at_once(self, kb):
        started = begin(kb, "slow", "append")
        written = write(started, document(1, "slow"), **self.WHOLE)
        commit(kb, document(2, "quick"), run_id="quick", mode="append", **self.WHOLE)
        commit_run(started, written)
        assert texts_in(kb) == {"1": "slow", "2": "quick"}


def test_sources_without_state_may_run_at_once(kb):
    """A plain connector decides nothing from what is stored when nothing is the same."""
    run(PlainDocuments([{"id": 1}]), kb)
    started = begin(kb, "slow")
    written = write(started, document(1, "slow"))
    run(PlainDocuments([{"id": 1, "text": "quick"}]), kb)
    commit_run(started, written)
    assert texts_in(kb) == {"1": "slow"}


class StartedTwice(PlainDocuments):
    """While it is read under a run id, another start of the same run begins and ends."""

    def __init__(self, items, into=None):
        super().__init__(items)
        self.into = into

    def sync_documents(self):
        if self.into is not None:
            other = ingest(StartedTwice(self.items), str(self.into), embed_dim=4, run_id="nightly")
            assert not other.already_committed
        return super().sync_documents()


def test_of_two_starts_of_one_run_the_later_one_says_that_it_was_committed(kb):
    receipt = ingest(StartedTwice([{"id": 1}], kb), str(kb), embed_dim=4, run_id="nightly")
    assert receipt.already_committed
    assert receipt.rows_written == 1
    assert lance.dataset(str(kb)).version == 1
    again = ingest(StartedTwice([{"id": 1}]), str(kb), run_id="nightly")
    assert again.already_committed
