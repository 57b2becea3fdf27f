"""A document comes with all its chunks or stays as it was: no orphan, no two states of one."""

from __future__ import annotations

from typing import Any

import lance
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam import Deletion, FrameDataset
from contextframe_beam.connectors.page import Tally
from contextframe_beam.errors import CommitError, ConcurrentRunError, TooManyDeletes
from contextframe_beam.frames.record import uuid_of
from contextframe_beam.store.rows import RowNumbers, scan_rows
from contextframe_beam.transforms import plan
from contextframe_beam.transforms.commit import commit_run
from contextframe_beam.transforms.unchanged import pack
from tests.support.chunked import chunked, chunks_in
from tests.support.laws import examples
from tests.support.pipeline_helpers import OTHER, SOURCE, begin, commit, document, write

BOTH_MODES = pytest.mark.parametrize("mode", ["upsert", "mirror"])


def stored_rows(kb: Any, run: Any) -> Any:
    """Returns the numbers of the documents a, b and plain in the version that a run began with."""
    dataset = lance.dataset(str(kb), version=run.base_version)
    names = ("doc:a", "doc:b", "doc:plain")
    found = {
        uri: number
        for batch, at in scan_rows(dataset, ["uri"])
        for uri, number in zip(
            batch["uri"].to_pylist(), RowNumbers(dataset).of(at).tolist(), strict=True
        )
    }
    return np.array([found[name] for name in names], np.int64)


def stored(kb: Any, **what: Any) -> Any:
    return commit(kb, *chunked("a", 5), *chunked("b", 2), "plain", **{"run_id": "first", **what})


class TestOneDocument:
    @BOTH_MODES
    def test_it_shrinks_vanishes_and_grows(self, kb, mode):
        for number, count in enumerate((5, 3, 0, 5, 5)):
            records = [*chunked("a", count, f"state {number}"), *chunked("b", 2)]
            receipt = commit(kb, *records, run_id=f"{number}", mode=mode)
            assert chunks_in(kb) == {"a": count, "b": 2}
            assert receipt.chunks == count + (2 if number == 0 else 0)
            assert receipt.rows_written == (2 if number == 0 else 1)
            assert (receipt.rows_replaced, receipt.rows_deleted) == (int(number > 0), 0)

    @BOTH_MODES
    def test_one_that_is_stored_as_it_is_stays_with_its_chunks(self, kb, mode):
        stored(kb, mode=mode)
        receipt = stored(kb, mode=mode, run_id="second")
        assert (receipt.rows_written, receipt.chunks, receipt.rows_unchanged) == (0, 0, 3)
        assert (receipt.rows_deleted, receipt.rows_dropped) == (0, 0)
        assert chunks_in(kb) == {"a": 5, "b": 2, "plain": 0}

    def test_vectors_that_differ_a_little_write_nothing(self, kb):
        commit(kb, *chunked("a", 5), run_id="first")
        receipt = commit(kb, *chunked("a", 5, noise=1e-3), run_id="second")
        assert (receipt.rows_written, receipt.chunks, receipt.rows_unchanged) == (0, 0, 1)

    def test_a_chunk_that_changed_brings_the_whole_document_anew(self, kb):
        commit(kb, *chunked("a", 3), run_id="first")
        records = chunked("a", 3)
        records[2].text_content = "text a one"
        receipt = commit(kb, *records, run_id="second")
        assert (receipt.rows_written, receipt.chunks) == (1, 3)
        assert chunks_in(kb) == {"a": 3}

    def test_what_was_whole_and_is_cut_now_is_known_as_changed(self, kb):
        commit(kb, *chunked("a", 0), run_id="first")
        assert commit(kb, *chunked("a", 4), run_id="second").rows_replaced == 1
        assert commit(kb, *chunked("a", 0), run_id="third").rows_replaced == 1
        assert chunks_in(kb) == {"a": 0}


class TestDeletes:
    def test_a_deletion_takes_the_chunks_along_and_counts_documents(self, kb):
        stored(kb)
        receipt = commit(kb, Deletion("doc:a"), run_id="second")
        assert (receipt.rows_deleted, chunks_in(kb)) == (1, {"b": 2, "plain": 0})

    def test_a_mirror_deletes_documents_with_their_chunks(self, kb):
        stored(kb)
        receipt = commit(kb, *chunked("b", 2), run_id="second", mode="mirror")
        assert (receipt.rows_deleted, chunks_in(kb)) == (2, {"b": 2})

    def test_the_brake_counts_documents(self, kb):
        many = [record for name in range(10) for record in chunked(name, 1)]
        commit(kb, *chunked("large", 90), *many, run_id="first")
        assert commit(kb, *many, run_id="second", mode="mirror", max_deletes=1).rows_deleted == 1
        with pytest.raises(TooManyDeletes, match="delete 9 of the 10 stored documents"):
            commit(kb, *chunked(0, 1), run_id="third", mode="mirror", max_deletes=8)

    def test_a_mirror_that_may_not_delete_still_removes_what_changed_documents_had(self, kb):
        stored(kb)
        commit(kb, *chunked("a", 1, "new"), run_id="second", mode="mirror", narrowed="a limit")
        assert chunks_in(kb) == {"a": 1, "b": 2, "plain": 0}

    def test_what_may_have_slipped_between_pages_keeps_its_chunks(self, kb, monkeypatch):
        monkeypatch.setattr(plan, "MOST_REMEMBERED", 1)
        stored(kb)
        slipping = Tally(SOURCE, may_slip=True)
        commit(kb, "plain", run_id="second", mode="mirror", tally=slipping)
        assert chunks_in(kb) == {"a": 5, "b": 2, "plain": 0}

    def test_overwriting_counts_documents(self, kb):
        stored(kb)
        receipt = commit(kb, *chunked("a", 1), run_id="second", mode="overwrite", max_deletes=2)
        assert (receipt.rows_replaced, receipt.rows_deleted) == (1, 2)
        assert chunks_in(kb) == {"a": 1}


def test_only_runs_that_keep_what_is_stored_may_leave_out_what_they_recognise(kb):
    stored(kb)
    met = Tally(SOURCE, recognised_rows=[pack(np.array([1]))])
    commit(kb, "c", run_id="second", mode="append", tally=met)
    assert chunks_in(kb) == {"a": 5, "b": 2, "c": 0, "plain": 0}
    with pytest.raises(CommitError, match="the mode overwrite does not keep these"):
        commit(kb, "c", run_id="third", mode="overwrite", tally=met)


def test_a_mirror_leaves_one_of_several_states_that_were_appended(kb):
    commit(kb, *chunked("a", 5, "old"), run_id="first")
    commit(kb, *chunked("a", 3, "new"), run_id="second", mode="append")
    receipt = commit(kb, *chunked("a", 3, "new"), run_id="third", mode="mirror")
    assert (chunks_in(kb), receipt.rows_unchanged, receipt.rows_deleted) == ({"a": 3}, 1, 1)


@BOTH_MODES
def test_what_is_recognised_before_it_is_made_counts_with_its_chunks(kb, mode):
    stored(kb)
    run = begin(kb, "second", mode)
    source = stored_rows(kb, run)
    met = Tally(SOURCE, read=2, unchanged=2, recognised_rows=[pack(source[:1]), pack(source[:1])])
    receipt = commit_run(run, write(run, *chunked("b", 1, "new"), tally=met))
    left = {"a": 5, "b": 1} if mode == "mirror" else {"a": 5, "b": 1, "plain": 0}
    assert (chunks_in(kb), receipt.rows_unchanged, receipt.rows_dropped) == (left, 1, 1)


class TestOtherSources:
    def test_a_document_of_the_same_name_elsewhere_keeps_its_chunks(self, kb):
        commit(kb, *chunked("left/a", 5), run_id="first", source=SOURCE)
        commit(kb, *chunked("right/a", 4), run_id="second", source=OTHER)
        commit(kb, *chunked("left/a", 2, "new"), run_id="third", source=SOURCE, mode="mirror")
        assert chunks_in(kb) == {"left/a": 2, "right/a": 4}
        commit(kb, run_id="fourth", source=SOURCE, mode="mirror", max_deletes="100%")
        assert chunks_in(kb) == {"right/a": 4}

    def test_one_that_two_sources_bring_is_whole_whoever_was_last(self, kb):
        commit(kb, *chunked("a", 5, "ours"), run_id="first", source=SOURCE)
        commit(kb, *chunked("a", 2, "theirs"), run_id="second", source=OTHER)
        assert chunks_in(kb) == {"a": 2}
        commit(kb, *chunked("a", 5, "ours"), run_id="third", source=SOURCE, mode="mirror")
        assert chunks_in(kb) == {"a": 5}

    def test_it_is_whole_beside_their_commit_while_a_run_was_reading(self, kb):
        commit(kb, *chunked("a", 5), *chunked("b", 1), run_id="first", source=SOURCE)
        run = begin(kb, "second")
        written = write(run, *chunked("a", 3, "new"), source=SOURCE)
        commit(kb, *chunked("c", 2), *chunked("b", 4, "theirs"), run_id="third", source=OTHER)
        commit_run(run, written)
        assert chunks_in(kb) == {"a": 3, "b": 4, "c": 2}

    def test_what_a_run_met_and_others_replaced_makes_it_void(self, kb):
        commit(kb, *chunked("a", 5), run_id="first", source=SOURCE)
        run = begin(kb, "second")
        written = write(run, *chunked("a", 5), source=SOURCE)
        commit(kb, *chunked("a", 2, "theirs"), run_id="third", source=OTHER)
        with pytest.raises(ConcurrentRunError, match="replaced by others"):
            commit_run(run, written)
        assert chunks_in(kb) == {"a": 2}


@BOTH_MODES
def test_a_compaction_between_start_and_commit_changes_nothing(kb, mode):
    for number in range(3):
        commit(kb, *chunked("abc"[number], 4), run_id=f"{number}")
    run = begin(kb, "last", mode)
    written = write(run, *chunked("a", 4), *chunked("b", 2, "new"))
    lance.dataset(str(kb)).optimize.compact_files(target_rows_per_fragment=1_000_000)
    receipt = commit_run(run, written)
    left = {"a": 4, "b": 2} if mode == "mirror" else {"a": 4, "b": 2, "c": 4}
    assert (chunks_in(kb), receipt.rows_unchanged) == (left, 1)


class TestTwiceInOneRun:
    def test_the_newest_state_wins_with_its_chunks(self, kb):
        old = chunked("a", 5, "old", timestamp="2026-01-01")
        new = chunked("a", 3, "new", timestamp="2026-01-02")
        for number, records in enumerate(([*old, *new], [*new, *old])):
            receipt = commit(kb, *records, *chunked("b", 1), run_id=f"{number}", mode="mirror")
            assert chunks_in(kb) == {"a": 3, "b": 1}
            assert receipt.rows_dropped == 1

    def test_without_times_one_state_wins_with_its_chunks(self, kb):
        commit(kb, *chunked("a", 5, "one"), *chunked("a", 3, "two"), run_id="first")
        assert chunks_in(kb)["a"] in (3, 5)

    def test_the_same_state_twice_is_one(self, kb):
        receipt = commit(kb, *chunked("a", 5), *chunked("a", 5), run_id="first")
        assert (receipt.rows_written, receipt.chunks, chunks_in(kb)) == (1, 5, {"a": 5})

    def test_an_older_state_does_not_take_chunks_from_one_that_is_stored(self, kb):
        commit(kb, *chunked("a", 3, timestamp="2026-01-02"), run_id="first")
        old = chunked("a", 5, "old", timestamp="2026-01-01")
        receipt = commit(kb, *chunked("a", 3, timestamp="2026-01-02"), *old, run_id="second")
        assert (receipt.chunks, receipt.rows_unchanged, chunks_in(kb)) == (0, 1, {"a": 3})

    def test_a_newer_state_takes_them(self, kb):
        commit(kb, *chunked("a", 5, timestamp="2026-01-01"), run_id="first")
        new = chunked("a", 2, "new", timestamp="2026-01-02")
        commit(kb, *chunked("a", 5, timestamp="2026-01-01"), *new, run_id="second", mode="mirror")
        assert chunks_in(kb) == {"a": 2}

    @pytest.mark.parametrize(("day", "left"), [("2026-01-03", {}), ("2026-01-01", {"a": 3})])
    def test_a_deletion_beside_it_decides_over_its_chunks_too(self, kb, day, left):
        records = chunked("a", 3, timestamp="2026-01-02")
        commit(kb, *records, Deletion("doc:a", timestamp=day), run_id="first")
        assert chunks_in(kb) == left


class TestChunksThatComeAlone:
    """Where records travel one by one, a document's chunks may be in other batches than it."""

    @BOTH_MODES
    def test_they_replace_those_that_were_there(self, kb, mode):
        for number, count in enumerate((5, 3, 3, 0, 2)):
            commit(kb, *chunked("a", count), run_id=f"{number}", mode=mode, together=False)
            assert chunks_in(kb) == {"a": count}

    def test_a_mirror_deletes_those_whose_document_is_nowhere(self, kb):
        (_, *chunks) = chunked("a", 3)
        commit(kb, *chunks, "b", run_id="first", mode="mirror", together=False)
        commit(kb, *chunks[:2], "b", run_id="second", mode="mirror", together=False)
        commit(kb, "b", run_id="third", mode="mirror")
        assert chunks_in(kb) == {"b": 0}

    def test_a_chunk_alone_leaves_the_others(self, kb):
        commit(kb, *chunked("a", 3), run_id="first")
        (_, _, chunk, _) = chunked("a", 3)
        commit(kb, chunk, run_id="second", together=False)
        assert chunks_in(kb) == {"a": 3}


class TestByHand:
    def test_adding_a_document_anew_drops_its_old_chunks(self, kb):
        dataset = FrameDataset.create(str(kb), embed_dim=4)
        for count in (5, 3, 0, 5):
            dataset.add_many(chunked("a", count, f"state {count}"))
            assert chunks_in(kb) == {"a": count}
        dataset.add(document("a"))
        assert chunks_in(kb) == {"a": 0}

    def test_of_two_states_that_are_added_the_last_one_stays(self, kb):
        dataset = FrameDataset.create(str(kb), embed_dim=4)
        dataset.add_many([*chunked("a", 5, "one"), *chunked("b", 1), *chunked("a", 3, "two")])
        assert chunks_in(kb) == {"a": 3, "b": 1}

    def test_deleting_a_document_deletes_its_chunks(self, kb):
        stored(kb)
        dataset = FrameDataset.open(str(kb))
        assert dataset.delete("doc:a")
        assert chunks_in(kb) == {"b": 2, "plain": 0}
        assert dataset.delete(uuid_of("doc:b"))
        assert chunks_in(kb) == {"plain": 0}
        assert len(dataset.history()) == 3

    def test_a_chunk_comes_back_as_it_was_stored(self, kb):
        stored(kb)
        chunk = FrameDataset.open(str(kb)).get("doc:a#chunk=2")
        assert chunk == chunked("a", 5)[3]


steps = st.lists(
    st.tuples(
        st.sampled_from(["upsert", "mirror", "delete", "delete by hand", "add", "compact"]),
        st.sampled_from([SOURCE, OTHER]),
        st.dictionaries(st.sampled_from("abc"), st.integers(0, 4), max_size=3),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


@given(steps)
@settings(max_examples=examples(100))
def test_whatever_happens_documents_have_exactly_the_chunks_they_came_with(tmp_path_factory, story):
    kb = tmp_path_factory.mktemp("law") / "kb.lance"
    dataset = FrameDataset.create(str(kb), embed_dim=4)
    have: dict[str, tuple[int, str]] = {}
    for number, (kind, source, brings, is_new) in enumerate(story):
        text = f"state {number}" if is_new else "same"
        records = [one for name, count in brings.items() for one in chunked(name, count, text)]
        what = {"run_id": f"{number}", "source": source, "max_deletes": "100%"}
        brought = {name: (count, source.source_id) for name, count in brings.items()}
        if kind in ("upsert", "mirror"):
            commit(kb, *records, mode=kind, **what)
            if kind == "mirror":
                have = {name: one for name, one in have.items() if one[1] != source.source_id}
            have |= brought
        elif kind == "delete":
            commit(kb, *(Deletion(f"doc:{name}") for name in brings), **what)
            have = {name: one for name, one in have.items() if name not in brings}
        elif kind == "delete by hand":
            for name in brings:
                FrameDataset.open(str(kb)).delete(f"doc:{name}")
                have.pop(name, None)
        elif kind == "add" and records:
            FrameDataset.open(str(kb)).add_many(records)
            have |= {name: (count, "") for name, count in brings.items()}
        elif kind == "compact":
            lance.dataset(str(kb)).optimize.compact_files(target_rows_per_fragment=1_000_000)
        assert chunks_in(kb) == {name: count for name, (count, _) in have.items()}
    for version in dataset.lance.versions():
        chunks_in(kb, version["version"])
