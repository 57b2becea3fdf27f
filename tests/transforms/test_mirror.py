"""A mirror deletes what its source no longer has, and nothing else."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import lance
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam import Deletion, FrameDataset
from contextframe_beam.connectors.page import SourceInfo
from contextframe_beam.errors import ConcurrentRunError
from contextframe_beam.transforms import unchanged
from contextframe_beam.transforms.commit import commit_run
from tests.support.laws import examples
from tests.support.pipeline_helpers import (
    EVERY_WAY,
    OTHER,
    SOURCE,
    begin,
    commit,
    document,
    documents,
    ids_in,
    run,
    texts_in,
    write,
)

mirror = partial(commit, mode="mirror")


class TestInPipelines:
    @EVERY_WAY
    def test_what_the_source_no_longer_has_is_deleted(self, kb, how):
        run(documents(1, 2, 3, 4), kb)
        receipt = run(documents(2, {"id": 3, "text": "new"}, 5), kb, mode="mirror", **how)
        assert texts_in(kb) == {"2": "text of 2", "3": "new", "5": "text of 5"}
        assert (receipt.rows_written, receipt.rows_replaced, receipt.rows_deleted) == (2, 1, 2)
        assert (receipt.rows_unchanged, receipt.kept) == (1, "")

    def test_a_source_that_has_nothing_any_more_leaves_nothing(self, kb):
        run(documents(1, 2), kb)
        run(documents(8, source="other"), kb)
        assert run(documents(), kb, mode="mirror", max_deletes=2).rows_deleted == 2
        assert ids_in(kb) == ["8"]

    def test_other_sources_rows_are_never_touched(self, kb):
        run(documents(1, 2, source="a"), kb)
        FrameDataset.open(str(kb)).add(document("by hand"))
        run(documents(3, 4, source="b"), kb)
        run(documents(3, source="b"), kb, mode="mirror")
        assert ids_in(kb) == ["1", "2", "3", "by hand"]

    def test_two_sources_in_one_run_are_both_mirrored(self, kb):
        run([documents(1, 2, source="a"), documents(3, 4, source="b")], kb, mode="mirror")
        run([documents(1, source="a"), documents(4, source="b")], kb, mode="mirror")
        assert ids_in(kb) == ["1", "4"]

    def test_a_run_with_failed_items_deletes_nothing_and_says_so(self, kb):
        run(documents(1, 2), kb)
        receipt = run(documents(2, {"id": 3, "error": "no"}), kb, mode="mirror")
        assert (ids_in(kb), receipt.rows_deleted) == (["1", "2"], 0)
        assert receipt.kept == "1 item failed"

    def test_records_without_a_connector_mirror_nothing(self, kb):
        mirror(kb, 1, 2, run_id="first", source=SOURCE)
        started = begin(kb, "second", "mirror")
        written = write(started, 3, source=SourceInfo("records", "records"))
        assert "do not belong to a source" in commit_run(started, written).kept
        assert ids_in(kb) == ["1", "2", "3"]

    def test_a_run_that_was_not_complete_deletes_nothing_but_what_it_was_told_to(self, kb):
        mirror(kb, 1, 2, 3, run_id="first")
        receipt = mirror(kb, 2, Deletion("doc:3"), run_id="second", narrowed="--limit 1 was given")
        assert (ids_in(kb), receipt.rows_deleted) == (["1", "2"], 1)
        assert receipt.kept == "--limit 1 was given"

    def test_the_reason_stays_with_the_run(self, kb):
        mirror(kb, 1, run_id="first", narrowed="a filter")
        (state,) = FrameDataset.open(str(kb)).states()
        assert state.runs[-1].kept == "a filter"
        assert mirror(kb, 1, run_id="first").kept == "a filter"

    def test_a_doubled_row_of_an_append_is_gone_afterwards(self, kb):
        mirror(kb, 1, 2, run_id="first")
        mirror(kb, 1, run_id="second", mode="append")
        receipt = mirror(kb, 1, 2, run_id="third")
        assert (ids_in(kb), receipt.rows_deleted) == (["1", "2"], 1)

    def test_rows_that_nobody_could_look_up_are_written_again_with_the_same_result(
        self, kb, monkeypatch
    ):
        mirror(kb, 1, 2, 3, run_id="first")
        monkeypatch.setattr(unchanged, "MAX_DIGESTS", 0)
        monkeypatch.setattr(unchanged, "FEW_DIGESTS", 0)
        receipt = mirror(kb, 1, 3, 4, run_id="second")
        assert (receipt.rows_written, receipt.rows_replaced, receipt.rows_deleted) == (3, 2, 1)
        assert ids_in(kb) == ["1", "3", "4"]


def compact(to: Path) -> None:
    lance.dataset(str(to)).optimize.compact_files(target_rows_per_fragment=1_000_000)


def index_keys(to: Path) -> None:
    lance.dataset(str(to)).create_scalar_index("uuid", "BTREE")


def restore(to: Path) -> None:
    dataset = lance.dataset(str(to))
    lance.dataset(str(to), version=dataset.version).restore()


class TestMeanwhile:
    """What happens between the run's reading and its commit."""

    @pytest.mark.parametrize("meanwhile", [compact, index_keys])
    def test_housekeeping_changes_nothing(self, kb, meanwhile):
        for number in range(4):
            mirror(kb, *range(3 * number, 3 * number + 3), run_id=f"{number}", mode="upsert")
        started = begin(kb, "mirror", "mirror")
        written = write(started, 0, 1, document(4, "new"), 7, 11, 12)
        meanwhile(kb)
        receipt = commit_run(started, written)
        assert ids_in(kb) == ["0", "1", "11", "12", "4", "7"]
        assert (receipt.rows_unchanged, receipt.rows_deleted) == (4, 7)

    def test_what_another_source_brought_is_left_to_it(self, kb):
        mirror(kb, 1, 2, 3, run_id="first")
        started = begin(kb, "mirror", "mirror")
        written = write(started, 1)
        mirror(kb, 8, 9, run_id="others", mode="upsert", source=OTHER)
        compact(kb)
        commit_run(started, written)
        assert ids_in(kb) == ["1", "8", "9"]

    def test_a_document_that_another_source_took_over_is_left_to_it(self, kb):
        mirror(kb, 1, 2, 3, run_id="first")
        started = begin(kb, "mirror", "mirror")
        written = write(started, document(1, "new"))
        mirror(kb, document(2, "others'"), run_id="others", mode="upsert", source=OTHER)
        commit_run(started, written)
        assert texts_in(kb) == {"1": "new", "2": "others'"}

    def test_a_rollback_is_noticed(self, kb):
        mirror(kb, 1, 2, run_id="first")
        mirror(kb, 1, run_id="second")
        started = begin(kb, "mirror", "mirror")
        written = write(started, 1)
        lance.dataset(str(kb), version=1).restore()
        with pytest.raises(ConcurrentRunError, match="run it again"):
            commit_run(started, written)
        assert ids_in(kb) == ["1", "2"]

    def test_two_mirrors_of_one_source_do_not_mix(self, kb):
        mirror(kb, 1, 2, 3, run_id="first")
        slow, quick = begin(kb, "slow", "mirror"), begin(kb, "quick", "mirror")
        written = write(slow, 1)
        commit_run(quick, write(quick, 1, 2))
        with pytest.raises(ConcurrentRunError):
            commit_run(slow, written)
        assert ids_in(kb) == ["1", "2"]


KEYS = st.integers(0, 5)
TEXTS = st.sampled_from("ab")
SOURCES = st.sampled_from([SOURCE, OTHER])
MODES = st.sampled_from(["upsert", "mirror"])
CONTENT = st.dictionaries(KEYS, TEXTS, max_size=5)
BETWEEN = st.sampled_from(["nothing", "compact", "restore", "index"])


class TestLaws:
    @settings(max_examples=examples(300, few=20), deadline=None)
    @given(st.data())
    def test_runs_that_overlap_end_as_if_one_came_after_the_other(self, tmp_path_factory, data):
        """Two runs begin, in any order with housekeeping between; the rows are those of a model."""
        kb = tmp_path_factory.mktemp("law") / "kb.lance"
        model: dict[int, tuple[str, str]] = {}
        numbers = iter(range(1000))

        def start(source: SourceInfo, mode: str, content: dict[int, str]):
            started = begin(kb, f"run-{next(numbers)}", mode, max_deletes="100%")
            records = [document(key, text) for key, text in content.items()]
            # The rows that are met unchanged are those of the version at which it began.
            return started, write(started, *records, source=source), dict(model)

        def finish(source, mode, content, begun) -> None:
            started, written, before = begun
            try:
                commit_run(started, written)
            except ConcurrentRunError:
                return
            same = {
                key for key, text in content.items() if before.get(key) == (source.source_id, text)
            }
            if mode == "mirror":
                for key in [key for key, (owner, _) in model.items() if owner == source.source_id]:
                    if key not in content:
                        del model[key]
            model.update(
                {key: (source.source_id, text) for key, text in content.items() if key not in same}
            )

        for _ in range(data.draw(st.integers(1, 3))):
            plans = [(data.draw(SOURCES), data.draw(MODES), data.draw(CONTENT)) for _ in range(2)]
            begun = [start(*plan) for plan in plans]
            if data.draw(st.booleans()):
                plans.reverse()
                begun.reverse()
            finish(*plans[0], begun[0])
            {"compact": compact, "restore": restore, "index": _reindex}.get(
                data.draw(BETWEEN), lambda to: None
            )(kb)
            finish(*plans[1], begun[1])
            rows = lance.dataset(str(kb)).to_table(
                columns=["uri", "x_source", "text_content"], filter="x_state IS NULL"
            )
            stored = sorted(zip(*rows.to_pydict().values(), strict=True))
            assert stored == sorted(
                (f"doc:{key}", owner, text) for key, (owner, text) in model.items()
            )


def _reindex(to: Path) -> None:
    lance.dataset(str(to)).create_scalar_index("uuid", "BTREE", replace=True)
