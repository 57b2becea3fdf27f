"""Places in a source: exact points of numbers and times, and the stretches that hold them."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam import FrameRecord
from contextframe_beam.errors import RecordError
from contextframe_beam.frames.encode import decode_rows, encode_records
from contextframe_beam.frames.place import FURTHEST, Place, Window, point_of

numbers = st.integers(-(2**80), 2**80)
points = st.none() | numbers | st.decimals(-(10**12), 10**12, places=9)


@pytest.mark.parametrize(
    ("value", "point"),
    [
        (2**64 + 1, "18446744073709551617"),
        ("1712345678.123456", "1712345678.123456"),
        (1712345678.123456, "1712345678.123456"),
        ("2024-04-05T19:34:38.123456Z", "1712345678.123456"),
        ("2024-04-05T21:34:38.123456789+02:00", "1712345678.123456789"),
        (datetime(2024, 4, 5, 19, 34, 38, 123456, timezone.utc), "1712345678.123456"),
        (datetime(2024, 4, 5), "1712275200"),
        ("2024-04-05", "1712275200"),
        (-0.0, "0"),
        (0.1 + 0.2, "0.300000000"),
    ],
)
def test_a_number_or_a_time_is_an_exact_point(value, point):
    assert point_of(value) == Decimal(point)


@pytest.mark.parametrize(
    "value", [True, "soon", "", "NaN", float("inf"), 10**29, [1], "1/2/2026", b"1"]
)
def test_anything_else_is_none(value):
    with pytest.raises(RecordError, match="no point in an order"):
        point_of(value)


@given(st.integers(-(10**28), 10**28), st.integers(-(10**28), 10**28))
def test_points_are_in_the_order_of_their_numbers(one, other):
    assert (point_of(one) < point_of(other)) == (one < other)


@given(st.text(min_size=1).filter(str.isprintable), points)
def test_a_place_is_stored_with_its_row(partition, point):
    record = FrameRecord("text", unique_id="a:1", place=Place(partition, point))
    batch, errors = encode_records([record, FrameRecord("t", unique_id="a:2")], embed_dim=2)
    assert errors == []
    assert [one.place for one in decode_rows(batch)] == [record.place, None]


@given(st.lists(st.tuples(st.sampled_from("ab"), points), min_size=2, max_size=2))
def test_a_row_has_another_digest_exactly_if_it_moved(places):
    records = [FrameRecord("text", unique_id="a:1", place=Place(*one)) for one in places]
    digests = encode_records(records, embed_dim=2)[0]["x_digest"].to_pylist()
    assert (digests[0] == digests[1]) == (Place(*places[0]) == Place(*places[1]))


def test_a_row_without_a_place_has_the_digest_that_it_always_had():
    batch, _ = encode_records([FrameRecord("text", unique_id="a:1")], embed_dim=2)
    assert batch["x_digest"][0].as_py().hex() == "7493e1fc09b619d418d128a34202f7fe"


@pytest.mark.parametrize("partition", ["", None, 7, "\ud800"])
def test_a_part_has_a_name(partition):
    with pytest.raises(RecordError, match="partition of a place"):
        Place(partition)


def test_a_window_ends_after_its_start():
    with pytest.raises(RecordError, match="before its start"):
        Window("a", 2, 1)
    assert Window("a", 1, 1).holds(Place("a", 1))


def test_both_ends_belong_to_a_window_and_a_missing_one_has_no_end():
    window = Window("a", 1, "3")
    assert [window.holds(Place("a", at)) for at in (0, 1, 2, 3, 3.5)] == [False, *[True] * 3, False]
    assert Window("a", 1).holds(Place("a", FURTHEST)) and not Window("a", 1).holds(Place("b", 2))


def test_what_has_no_point_is_only_in_a_whole_part():
    assert Window("a").holds(Place("a")) and not Window("a", 1).holds(Place("a"))


def test_a_window_may_hold_the_parts_below_its_own():
    window = Window("drive", 1, 1, below=True)
    parts = ("drive", "drive/a", "drive/a/b", "drives", "driv")
    assert [window.holds(Place(one, 1)) for one in parts] == [True, True, True, False, False]
    assert not window.holds(Place("drive/a", 2)) and not Window("drive").holds(Place("drive/a"))


def test_a_record_with_another_kind_of_place_is_refused():
    _, [(_, error)] = encode_records([FrameRecord("t", unique_id="a:1", place="here")], embed_dim=2)
    assert "place is 'here'; expected a Place or None" in str(error)
