"""How many items may fail, and what happens to the run when more do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.page import DeadLetter, Tally
from contextframe_beam.errors import ConfigError, TooManyFailures
from contextframe_beam.store.address import Address
from contextframe_beam.store.files import open_dataset
from contextframe_beam.store.runs import FailureReason, Reasons
from contextframe_beam.transforms import WriteToLance
from contextframe_beam.transforms.limits import FailureLimit
from contextframe_beam.transforms.written import Written
from tests.support.pipeline_helpers import (
    EVERY_WAY,
    IN_ONE_PROCESS,
    SOURCE,
    TWO_WORKERS,
    documents,
    ids_in,
    run,
)


def written(read: int, failed: int) -> Written:
    return Written(
        sources={SOURCE.source_id: Tally(SOURCE, read=read)},
        failed=failed,
        reasons=Reasons(
            FailureReason("ValueError", "no", 1, f"map all page 0[{number}]")
            for number in range(failed)
        ),
    )


def passes(limit: int | str, read: int, failed: int) -> bool:
    try:
        FailureLimit.of(limit).check(written(read, failed), None)
    except TooManyFailures:
        return False
    return True


class TestLimit:
    @given(limit=st.integers(0, 50), read=st.integers(1, 100), failed=st.integers(0, 100))
    def test_a_number_is_the_most_that_may_fail(self, limit, read, failed):
        failed = min(failed, read)
        allowed = failed == 0 or (failed <= limit and failed < read)
        assert passes(limit, read, failed) == allowed
        assert passes(str(limit), read, failed) == allowed

    @given(percent=st.integers(0, 100), read=st.integers(1, 1000), failed=st.integers(0, 1000))
    def test_a_share_is_of_the_items_read_and_exact(self, percent, read, failed):
        failed = min(failed, read)
        allowed = failed == 0 or (100 * failed <= percent * read and failed < read)
        assert passes(f"{percent}%", read, failed) == allowed

    def test_a_share_may_have_decimals(self):
        assert passes("0.1%", 1000, 1)
        assert not passes("0.1%", 999, 1)
        assert passes(" 2.5 % ", 40, 1)

    def test_all_failed_is_too_many_whatever_is_allowed(self):
        assert not passes(1000, 1, 1)
        assert not passes("100%", 5, 5)

    def test_no_failure_is_fine_whatever_was_read(self):
        assert passes(0, 0, 0)
        assert passes("0%", 10, 0)

    @pytest.mark.parametrize("value", ["-1", "", "many", "1.5", "101%", "-5%", "5%%", "%", -1])
    def test_what_is_neither_is_refused(self, value):
        with pytest.raises(ConfigError, match="give a number of items such as 100, or a share"):
            FailureLimit.of(value)
        with pytest.raises(ConfigError, match="max failures is"):
            WriteToLance("kb.lance", max_failures=value)

    def test_the_message_says_what_failed_and_where_the_rest_is(self):
        with pytest.raises(TooManyFailures) as caught:
            FailureLimit.of("5%").check(written(2000, 1500), "letters.jsonl")
        assert str(caught.value) == (
            "1,500 of 2,000 items failed, more than the 5% of the items read that `max_failures` "
            "allows; nothing was committed. All are in letters.jsonl. The first: map all page "
            "0[0]: no (ValueError, 1,500 items)"
        )
        with pytest.raises(TooManyFailures, match="3 of 3 items failed, all of them; nothing"):
            FailureLimit.of(10).check(written(3, 3), None)


class TestRuns:
    ITEMS = (1, {"id": 2, "error": "no text"}, 3, {"id": 4, "error": "no id"}, 5)

    @IN_ONE_PROCESS
    def test_bad_items_are_left_out_and_the_rest_is_committed(self, kb, how):
        receipt = run(documents(*self.ITEMS), kb, max_failures=2, **how)
        assert ids_in(kb) == ["1", "3", "5"]
        assert (receipt.rows_written, receipt.failed) == (3, 2)

    @pytest.mark.sample
    @pytest.mark.parametrize("limit", [1, "39%"])
    @EVERY_WAY
    def test_too_many_of_them_fail_the_run(self, kb, how, limit):
        run(documents(9), kb)
        letters = kb.with_name("letters.jsonl")
        with pytest.raises(
            Exception, match=r"TooManyFailures|2 of 5 items failed, more than"
        ) as caught:
            run(documents(*self.ITEMS), kb, max_failures=limit, dead_letters=str(letters), **how)
        message = str(caught.value)
        assert "nothing was committed" in message
        assert f"All are in {letters}" in message
        assert "map part-1 page 0[0], an item with id, error: no text, at " in message
        if how is not TWO_WORKERS:
            assert isinstance(caught.value, TooManyFailures)
        assert FrameDataset.open(str(kb)).version == 1
        assert ids_in(kb) == ["9"]
        assert len(letters.read_text().splitlines()) == 2

    @IN_ONE_PROCESS
    def test_a_run_of_which_all_failed_makes_no_dataset(self, kb, how):
        with pytest.raises(Exception, match="1 of 1 items failed, all of them"):
            run(documents({"id": 1, "error": "no"}), kb, **how)
        assert open_dataset(Address(str(kb))) is None


class TestSums:
    LETTER = DeadLetter.of("map", ValueError("no"), 1, "documents", "part", "page 0[1]")

    def test_what_bundles_counted_adds_up_whatever_their_order(self):
        parts = []
        for number in range(4):
            part = Written()
            tally = part.tally(SOURCE)
            tally.read, tally.planned, tally.finished = number, 4 * (number == 2), 1
            tally.partitions[f"part-{number}"] = {"at": number}
            tally.unchanged_rows.append(bytes([number]) * 8)
            part.fail([self.LETTER] * number)
            parts.append(part)
        one, other = Written.sum(parts), Written.sum(reversed(parts))
        for whole in (one, other):
            tally = whole.sources[SOURCE.source_id]
            assert (whole.read, whole.failed, tally.planned, tally.finished) == (6, 6, 4, 4)
            assert tally.partitions == {f"part-{number}": {"at": number} for number in range(4)}
            assert sorted(tally.unchanged_rows) == [bytes([number]) * 8 for number in range(4)]
        reason = FailureReason("ValueError", "no", 6, "map part page 0[1]")
        assert one.reasons.all() == other.reasons.all() == (reason,)

    def test_adding_up_changes_no_part(self):
        parts = [Written(), Written()]
        for part in parts:
            part.tally(SOURCE).read = 1
        assert Written.sum(parts).read == Written.sum(parts).read == 2
