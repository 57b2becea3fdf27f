"""A run that was committed and is not complete says so, to people and to schedulers."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam import FrameDataset
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.store.runs import COMMITS, MAX_REASONS, FailureReason, Reasons
from contextframe_beam.store.state import RunSummary
from tests.support.cli_helpers import Result, cli, without_progress
from tests.support.pipeline_helpers import documents, run

MODULE = """
from contextframe_beam import FrameRecord
from contextframe_beam.connectors import Page, PaginatedConnector

class Notes(PaginatedConnector):
    identity_args = ()

    def __init__(self, failing: int = 0, partial: str = ""):
        super().__init__()
        self.failing, self.partial = failing, partial

    def fetch_page(self, partition, cursor):
        return Page([{"id": n} for n in range(10)], partial=self.partial, state={"at": 1})

    def map_to_frame_record(self, item):
        if item["id"] < self.failing:
            raise ValueError(f"note {item['id']} has no text")
        if item["id"] == 9 and self.failing:
            return FrameRecord(item["missing"])
        return FrameRecord(f"note {item['id']}", unique_id=f"note:{item['id']}")
"""

WHY = "notes: the answer does not say whether it is the last one; state `paginator: single` if so"


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    (tmp_path / "notes.py").write_text(MODULE)
    return tmp_path / "kb.lance"


def notes(kb: Path, *more: object) -> Result:
    return cli(
        *("ingest", f"{kb.parent}/notes.py:Notes", "--to", kb, "--embed-dim", 4, *more),
    )


class TestFailedItems:
    def test_they_are_told_on_the_standard_error_by_their_reasons(self, kb):
        result = notes(kb, "--failing", 3, "--run-id", "r")
        assert result.code == 0
        assert without_progress(result.err).splitlines() == [
            f"Warning: 4 items failed, kept in {kb}.dead-letters/r.jsonl:",
            "  map all first page[0], an item with id: note 0 has no text, at notes.py, line 17 "
            "(ValueError, 3 items)",
            "  map all first page[9], an item with id: 'missing', at notes.py, line 19 (KeyError)",
        ]
        assert f"4 items failed, kept in {kb}.dead-letters/r.jsonl\n" in result.out

    def test_the_receipt_and_the_dataset_keep_the_reasons(self, kb):
        receipt = notes(kb, "--failing", 3, "--json").json
        assert [(one["error"], one["count"]) for one in receipt["reasons"]] == [
            ("ValueError", 3),
            ("KeyError", 1),
        ]
        (found,) = cli("inspect", kb, "--json").json["runs"]
        assert found["reasons"] == receipt["reasons"]

    def test_a_log_of_json_has_one_line_for_them(self, kb):
        result = notes(kb, "--failing", 3, "--log-format", "json")
        lines = [json.loads(line) for line in without_progress(result.err).splitlines()]
        assert any("(ValueError, 3 items)" in json.dumps(line) for line in lines)

    def test_in_a_pipeline_of_ones_own_they_are_logged(self, tmp_path, caplog):
        with caplog.at_level(logging.WARNING, COMMITS):
            run(documents(1, {"id": 2, "error": "no"}), tmp_path / "kb.lance")
        (record,) = [one for one in caplog.records if one.name == COMMITS]
        assert ": no, at " in record.getMessage()

    def test_the_commits_of_a_backfill_are_summed_up(self, kb):
        bad = [{"id": f"bad {number}", "error": f"no text {number}"} for number in range(3)]
        receipt = ingest(
            documents(1, bad[0], 2, bad[1], 3, bad[2], partitions=6),
            str(kb),
            commit_every=2,
            embed_dim=4,
        )
        assert [(one.error, one.count) for one in receipt.reasons] == [("ValueError", 3)]


class TestPartialRuns:
    def test_they_end_with_success_and_a_warning(self, kb):
        result = notes(kb, "--partial", WHY, "--run-id", "r")
        assert result.code == 0
        assert without_progress(result.err).splitlines() == [
            "Warning: run r is partial: what was read may not be all, so no sync state moved, and "
            "nothing was deleted because the run did not see it:",
            f"  {WHY}",
        ]
        assert "partial: what was read may not be all; no sync state moved\n" in result.out

    def test_the_receipt_and_inspect_say_why(self, kb):
        assert notes(kb, "--partial", WHY, "--json", "--run-id", "r").json["partial"] == [WHY]
        assert f"run r is partial: {WHY}\n" in cli("inspect", kb).out
        (found,) = cli("inspect", kb, "--json").json["runs"]
        assert found["partial"] == [WHY]

    def test_no_state_moves(self, kb):
        notes(kb, "--partial", WHY)
        (state,) = FrameDataset.open(str(kb)).states()
        assert state.partitions == {}


class TestStrict:
    @pytest.mark.parametrize("more", [("--failing", 3), ("--partial", WHY)])
    def test_a_run_that_is_not_complete_is_committed_and_ends_with_3(self, kb, more):
        command = (*more, "--strict", "--json", "--run-id", "r")
        result = notes(kb, *command)
        assert result.code == 3
        assert result.json["rows_written"] == len(FrameDataset.open(str(kb))) > 0
        again = notes(kb, *command)
        assert (again.code, again.json["already_committed"]) == (3, True)

    def test_a_complete_run_ends_with_0_and_says_nothing(self, kb):
        result = notes(kb, "--strict")
        assert (result.code, without_progress(result.err)) == (0, "")

    def test_a_run_that_was_not_committed_ends_with_1(self, kb):
        assert notes(kb, "--failing", 3, "--max-failures", 2, "--strict").code == 1

    def test_a_wrong_command_ends_with_2(self, kb):
        assert notes(kb, "--strict", "--max-deletes", "many").code == 2


REASONS = st.builds(
    FailureReason.of,
    st.sampled_from(["ValueError", "KeyError", "crm.errors.BadNote"]),
    st.sampled_from(["no text", "line 1", "line 22", "x" * 1000]),
    st.sampled_from(["map all 1", "map all 2", "read part"]),
)


class TestReasons:
    @given(st.lists(REASONS), st.data())
    def test_they_add_up_to_the_same_whatever_the_order(self, reasons, data):
        other = data.draw(st.permutations(reasons))
        cut = data.draw(st.integers(0, len(other)))
        parts = Reasons(Reasons(other[:cut]).all())
        parts.add(Reasons(other[cut:]).all())
        assert parts.all() == Reasons(reasons).all()
        assert sum(one.count for one in parts.all()) == len(reasons)

    def test_messages_that_differ_in_numbers_only_are_one_reason(self):
        lines = (FailureReason.of("ValueError", f"line {n} is no JSON", "") for n in range(500))
        (reason,) = Reasons(lines).all()
        assert str(reason) == "line 0 is no JSON (ValueError, 500 items)"

    def test_a_million_reasons_take_little_memory(self):
        words = (f"{'x' * (n % 251)} {'y' * (n // 251)}" for n in range(2000))
        many = Reasons(FailureReason.of("ValueError", word, "") for word in words)
        assert len(many.all()) <= 201
        assert sum(one.count for one in many.all()) == 2000
        assert len(many.most()) == MAX_REASONS

    @pytest.mark.parametrize("told", [None, 3, {}, {"count": "x"}, {"error": None, "later": 1}])
    def test_a_stored_reason_of_any_content_is_read(self, told):
        assert RunSummary.from_json({"run_id": "r", "reasons": [told]}).reasons[0].count == 1
