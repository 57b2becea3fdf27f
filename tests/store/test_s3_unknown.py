"""Where an object store hides what became of a commit, nobody says that it was made, or was not."""

from __future__ import annotations

import os
import signal
import threading

import lance
import pytest

from contextframe_beam import FrameDataset, UnknownCommitError
from contextframe_beam.frames.schema import OWN_COLUMNS
from contextframe_beam.pipelines.compact import compact
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.store.address import Address
from contextframe_beam.store.schema import adopt
from contextframe_beam.store.upkeep import (
    commit_tasks,
    do_task,
    make_key_index,
    plan_tasks,
    reset_state,
)
from contextframe_beam.store.upkeep import update_indices as bring_indices_up
from contextframe_beam.transforms.commit import commit_run
from tests.store.test_s3 import is_commit, read
from tests.support.cli_helpers import assert_error, cli, start, wait_until
from tests.support.pipeline_helpers import EMBED_DIM, begin, document, documents, write
from tests.support.s3_faults import Fault, FaultyProxy
from tests.support.s3_server import S3Server

#: What becomes of the request of a commit that is never answered.
DONE_AND_CUT = Fault(cut=True, after=True)
CUT = Fault(cut=True)


@pytest.fixture
def proxy(s3):
    with FaultyProxy(s3.endpoint) as proxy:
        yield proxy


@pytest.fixture
def kb(s3):
    place = s3.new_place()
    dataset = FrameDataset.create(place, EMBED_DIM, s3.options)
    for number in range(3):
        dataset.add(document(number))
    return place


@pytest.fixture
def options(s3):
    return s3.options


@pytest.fixture
def through(proxy, options):
    return {**options, "endpoint": proxy.endpoint, "client_max_retries": "0"}


def silence(proxy, fault, number=1):
    """From the commit of that number on, the store answers nothing."""
    commits = 0

    def decide(request):
        nonlocal commits
        commits += is_commit(request)
        if commits < number:
            return None
        return fault if is_commit(request) and not proxy.faults else Fault(503)

    proxy.fault = decide


def heal(proxy):
    proxy.fault = lambda request: None


def compacted(kb, options):
    planned = plan_tasks(lance.dataset(kb, storage_options=options))
    commit_tasks(Address(kb, options), [do_task(Address(kb, options), task) for task in planned])


def searched(kb, options):
    FrameDataset.open(kb, storage_options=options).search("text")


def adopted(kb, options):
    adopt(
        lance.dataset(kb, storage_options=options),
        Address(str(lance.dataset(kb, storage_options=options).uri), options),
    )


def nothing_before(kb, options):
    pass


def with_stale_index(kb, options):
    make_key_index(Address(kb, options))
    FrameDataset.open(kb, storage_options=options).add(document(3))


def without_own_columns(kb, options):
    lance.dataset(kb, storage_options=options).drop_columns(list(OWN_COLUMNS))


def files_of(endpoint, kb):
    return set(S3Server(endpoint).filesystem().ls(f"{kb}/data"))


def bring_up_to_date(kb, options):
    bring_indices_up(Address(kb, options))


def key_index_made(kb, options):
    make_key_index(Address(kb, options))


class TestHousekeeping:
    @pytest.mark.sample
    @pytest.mark.parametrize(
        "fault", [DONE_AND_CUT, pytest.param(CUT, marks=pytest.mark.soak)], ids=["made", "not made"]
    )
    @pytest.mark.parametrize(
        ("number", "before", "change"),
        [
            pytest.param(1, nothing_before, compacted, id="numbers of a compaction"),
            pytest.param(2, nothing_before, compacted, id="a compaction"),
            pytest.param(1, with_stale_index, bring_up_to_date, id="bringing an index up to date"),
            pytest.param(1, nothing_before, key_index_made, id="an index of keys"),
            pytest.param(1, nothing_before, searched, id="an index of texts"),
            pytest.param(1, without_own_columns, adopted, id="new columns"),
        ],
    )
    def test_it_is_unknown_and_may_be_done_again(
        self, proxy, kb, options, through, number, before, change, fault
    ):
        before(kb, options)
        texts = read(kb, options) if before is not without_own_columns else None
        silence(proxy, fault, number)
        with pytest.raises(UnknownCommitError, match="the documents are as they were, do it again"):
            change(kb, through)
        heal(proxy)
        change(kb, through)
        assert texts is None or read(kb, options) == texts

    @pytest.mark.soak
    @pytest.mark.parametrize("workers", [1, 2])
    def test_a_pipeline_of_compaction_says_so(self, s3, proxy, kb, options, through, workers):
        texts = read(kb, options)
        silence(proxy, DONE_AND_CUT, 2)
        flags = S3Server(proxy.upstream).flags
        more = [f"endpoint={proxy.endpoint}", "client_max_retries=0"]
        more = [text for one in more for text in ("--storage-option", one)]
        result = cli("compact", kb, "--workers", workers, *flags, *more)
        assert_error(result, 1, "is not known", "the documents are as they were, do it again")
        heal(proxy)
        assert compact(kb, storage_options=options).fragments_after == 1
        assert read(kb, options) == texts


class TestRuns:
    def test_the_files_stay_that_a_late_request_may_name(self, proxy, kb, options, through):
        run = begin(kb, "nightly", storage_options=through)
        twice = [
            document(9, text, timestamp=at) for text, at in (("a", "2026-01-01"), ("b", "2027"))
        ]
        written = write(run, *twice)
        before = files_of(proxy.upstream, kb)
        asked = 0

        def decide(request):
            # The commit is not answered, and neither are Lance's questions what became of it.
            nonlocal asked
            asked += is_commit(request) or (asked > 0 and "/_versions" in request.path)
            return CUT if asked in range(1, 5) and "/_versions" in request.path else None

        proxy.fault = decide
        with pytest.raises(UnknownCommitError, match="nightly again under the same id"):
            commit_run(run, written)
        after = files_of(proxy.upstream, kb)
        assert after > before
        assert len(after - before) == 2  # the rows without those that are outdated, and the state

    @pytest.mark.soak
    @pytest.mark.parametrize("fault", [DONE_AND_CUT, CUT], ids=["made", "not made"])
    def test_with_two_workers(self, proxy, kb, options, through, fault):
        silence(proxy, fault)
        how = {"run_id": "nightly", "storage_options": through}
        with pytest.raises(UnknownCommitError, match="nightly again under the same id"):
            ingest(documents(1, 2), kb, workers=2, **how)
        heal(proxy)
        again = ingest(documents(1, 2), kb, **how)
        assert again.already_committed == fault.after
        assert sorted(read(kb, options)) == ["0", "1", "2"]

    @pytest.mark.soak
    @pytest.mark.parametrize("fault", [DONE_AND_CUT, CUT], ids=["made", "not made"])
    def test_a_backfill_goes_on_from_what_was_made(self, proxy, kb, options, through, fault):
        def run():
            source = documents(*range(6), partitions=3)
            return ingest(source, kb, commit_every=1, run_id="r", storage_options=through)

        silence(proxy, fault, 2)
        with pytest.raises(UnknownCommitError, match="1 parts in 1 commits stay committed"):
            run()
        (state,) = FrameDataset.open(kb, storage_options=options).states()
        assert state.backfill["parts"] == 1 + fault.after
        heal(proxy)
        run()
        assert sorted(read(kb, options)) == [str(number) for number in range(6)]

    @pytest.mark.soak
    @pytest.mark.parametrize("fault", [DONE_AND_CUT, CUT], ids=["made", "not made"])
    def test_an_edit_of_a_state(self, proxy, kb, options, through, fault):
        ingest(documents(1), kb, storage_options=options)
        (state,) = FrameDataset.open(kb, storage_options=options).states()
        silence(proxy, fault)
        with pytest.raises(UnknownCommitError, match="look there before you do it again"):
            reset_state(Address(kb, through), [state.source])
        (after,) = FrameDataset.open(kb, storage_options=options).states()
        assert len(after.runs) == len(state.runs) + fault.after
        assert sorted(read(kb, options)) == ["0", "1", "2"]

    def test_an_edit_of_a_state_whose_answer_was_lost_is_made_once(self, proxy, kb, options):
        ingest(documents(1), kb, storage_options=options)
        (state,) = FrameDataset.open(kb, storage_options=options).states()
        proxy.fault = lambda one: DONE_AND_CUT if is_commit(one) and not proxy.faults else None
        reset_state(Address(kb, {**options, "endpoint": proxy.endpoint}), [state.source])
        (after,) = FrameDataset.open(kb, storage_options=options).states()
        assert [run.mode for run in after.runs] == ["upsert", "state"]


class TestKilled:
    @pytest.mark.parametrize(
        ("number", "arrives"),
        [
            pytest.param(2, True, id="compaction, arrives"),
            pytest.param(2, False, id="compaction, is lost", marks=pytest.mark.soak),
            pytest.param(1, True, id="numbers for it, arrive", marks=pytest.mark.soak),
            pytest.param(1, False, id="numbers for it, are lost", marks=pytest.mark.soak),
        ],
    )
    def test_a_compaction_that_is_killed_while_the_store_has_its_commit(
        self, proxy, kb, options, number, arrives
    ):
        texts, version = read(kb, options), FrameDataset.open(kb, storage_options=options).version
        asked, killed = threading.Event(), threading.Event()
        commits = 0

        def decide(request):
            nonlocal commits
            commits += is_commit(request)
            if not is_commit(request) or commits != number:
                return None
            asked.set()
            assert killed.wait(60)
            return None if arrives else CUT

        proxy.fault = decide
        flags = S3Server(proxy.upstream).flags
        process = start("compact", kb, *flags, "--storage-option", f"endpoint={proxy.endpoint}")
        wait_until(asked.is_set, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        killed.set()
        made = version + number - (not arrives)
        wait_until(lambda: FrameDataset.open(kb, storage_options=options).version == made)
        heal(proxy)
        assert read(kb, options) == texts
        assert compact(kb, storage_options=options).fragments_after == 1
        assert read(kb, options) == texts
