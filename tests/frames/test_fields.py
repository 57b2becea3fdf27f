"""Own fields: a name of metadata as a typed column, beside a record that stays what it is."""

from __future__ import annotations

import math
import re
from datetime import date
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam import ConfigError, FrameRecord, SchemaError
from contextframe_beam.frames.encode import decode_rows, encode_records
from contextframe_beam.frames.fields import (
    FIELD_TYPES,
    OwnField,
    fields_in,
    fields_of,
    guess_type,
    parse_fields,
    with_fields,
)
from contextframe_beam.frames.record import uuid_of
from contextframe_beam.frames.schema import FORMAT_COLUMNS, frame_schema
from contextframe_beam.frames.times import day_of, parse, when
from tests.support.frame_strategies import EMBED_DIM, json_values, records, texts
from tests.support.laws import examples

MISFIT = "does not fit"
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def encode(*given: FrameRecord) -> pa.RecordBatch:
    rows, errors = encode_records(given, embed_dim=EMBED_DIM)
    assert not errors
    return rows


def number_of(value: Any) -> Any:
    """Returns a number, also of a text; MISFIT for all else."""
    if isinstance(value, str) and NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return MISFIT
    return value if abs(value) < 10**309 and math.isfinite(value) else MISFIT


def expected(value: Any, kind: str) -> Any:
    """Returns what a column of a type holds of a value, as its users would say."""
    if value is None:
        return None
    if kind == "text":
        return value if isinstance(value, str) else MISFIT
    if kind == "list":
        is_list = isinstance(value, list) and all(isinstance(one, str) for one in value)
        return value if is_list else MISFIT
    if kind == "bool":
        if isinstance(value, str):
            return {"true": True, "1": True, "false": False, "0": False}.get(value.lower(), MISFIT)
        return bool(value) if type(value) in (bool, int) and value in (0, 1) else MISFIT
    if kind == "timestamp":
        return when(value) or MISFIT
    if kind == "date":
        time = parse(value)
        return MISFIT if time is None else date.fromisoformat(day_of(time))
    number = number_of(value)
    if kind == "float64" or number is MISFIT:
        return number if number is MISFIT or abs(number) < 2**1024 else MISFIT
    if isinstance(value, str) and value.lstrip("+-").isdigit():
        number = int(value)
    return int(number) if int(number) == number and -(2**63) <= number < 2**63 else MISFIT


values = json_values | st.sampled_from(
    ["5", "-7.25", "1e3", "+2", ".5", "nan", "0x10", "1_000", " 1", "1e999", "True", "٣", "5.0"]
)


class TestColumns:
    @settings(max_examples=examples(400))
    @given(
        st.lists(st.none() | values, min_size=1, max_size=8), st.sampled_from(sorted(FIELD_TYPES))
    )
    def test_hold_what_fits_their_type_and_tell_what_does_not(self, given, kind):
        own = OwnField("a field", kind)
        made = [FrameRecord("a", {own.name: one}, unique_id=str(n)) for n, one in enumerate(given)]
        rows, errors = with_fields(encode(*made), [own])
        wanted = [expected(one, kind) for one in given]
        assert sorted(errors) == [n for n, one in enumerate(wanted) if one is MISFIT]
        assert rows.column(own.column).to_pylist() == [
            None if one is MISFIT else one for one in wanted
        ]

    @settings(max_examples=examples(200))
    @given(st.lists(records(), min_size=1, max_size=4), st.data())
    def test_leave_the_rest_of_a_row_and_its_record_as_they_are(self, given, data):
        names = {name for record in given for name in record.metadata if may_be_column(name)}
        kinds = st.sampled_from(sorted(FIELD_TYPES))
        own = [OwnField(name, data.draw(kinds)) for name in sorted(names)]
        rows, errors = encode_records(given, embed_dim=EMBED_DIM, fields=own)
        refused = {index for index, _ in errors}
        kept = [record for index, record in enumerate(given) if index not in refused]
        assert rows.select(frame_schema(EMBED_DIM).names).equals(encode(*kept))
        assert list(decode_rows(rows)) == kept
        assert fields_of(rows.schema) == tuple(own)

    def test_of_chunks_are_those_of_their_document_unless_they_have_some(self):
        whole = FrameRecord("a", {"price": 5}, unique_id="a")
        others = [
            FrameRecord("b", {"price": 7}, unique_id="b"),
            FrameRecord("1", {}, unique_id="a#1", parent=uuid_of("a")),
            FrameRecord("2", {"price": 6}, unique_id="a#2", parent=uuid_of("a")),
            FrameRecord("3", {}, unique_id="c#1", parent=uuid_of("c")),
        ]
        rows, _ = encode_records(
            [whole, *others], embed_dim=EMBED_DIM, fields=parse_fields("price:int64")
        )
        assert rows.column("x_f_price").to_pylist() == [5, 7, 5, 6, None]

    def test_are_null_in_rows_that_others_wrote_without_metadata(self):
        rows = encode(FrameRecord("a", {"price": 5}, unique_id="a"))
        empty = rows.set_column(
            rows.schema.get_field_index("custom_metadata"),
            "custom_metadata",
            pa.nulls(1, rows.column("custom_metadata").type),
        ).drop_columns(["x_encoding", "x_parent"])
        made, errors = with_fields(empty, parse_fields("price:int64"))
        assert (made.column("x_f_price").to_pylist(), errors) == ([None], {})


def may_be_column(name: str) -> bool:
    try:
        OwnField(name)
    except ConfigError:
        return False
    return True


class TestNames:
    @settings(max_examples=examples(200))
    @given(st.dictionaries(texts.filter(may_be_column), st.sampled_from(sorted(FIELD_TYPES))))
    def test_and_types_are_read_from_the_columns_again(self, given):
        own = parse_fields(given)
        assert {one.name: one.kind for one in fields_of(fields_in(own))} == given

    @pytest.mark.parametrize(
        ("given", "found"),
        [
            (None, {}),
            ((), {}),
            ("price:float64", {"price": "float64"}),
            (["team", " price : int64 "], {"team": "text", "price": "int64"}),
            (["a:b:date"], {"a:b": "date"}),
            (["team", "team:text"], {"team": "text"}),
            ({"team": None, "a:b": "bool"}, {"team": "text", "a:b": "bool"}),
        ],
    )
    def test_are_given_with_their_types(self, given, found):
        assert {one.name: one.kind for one in parse_fields(given)} == found

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ("price:flaot64", "did you mean float64"),
            ("price:", "has the type ''"),
            (":text", "no name of a column"),
            (["price:int64", "price:text"], "given as int64 and as text"),
            ([5], "5 is no column"),
            ({5: "text"}, "5 is no name"),
            ("\ud800", "Unicode"),
            ("a" * 201, "at most 200"),
            ("Timestamp", "time of the record itself"),
            ("x_price", "begin with x_"),
            *((name.title(), "a column of every frame") for name in FORMAT_COLUMNS),
        ],
    )
    def test_that_cannot_be_columns_are_refused(self, given, said):
        with pytest.raises(ConfigError, match=re.escape(said)):
            parse_fields(given)

    def test_a_column_of_a_type_that_no_field_has_is_refused(self):
        with pytest.raises(SchemaError, match="column x_f_price is int8"):
            fields_of(pa.schema([pa.field("x_f_price", pa.int8())]))


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ([5, 7], "int64"),
        ([5, 7.5], "float64"),
        ([True, False], "bool"),
        ([["a"], []], "list"),
        (["2026-01-31"], "date"),
        (["2026-01-31T08:00Z", "2026-01-31"], "timestamp"),
        (["red", "2026-01-31"], "text"),
        ([{"a": 1}], "text"),
        ([None], None),
    ],
)
def test_a_type_is_guessed_by_all_values(given, kind):
    made = [FrameRecord("a", {"of": one}, unique_id=str(n)) for n, one in enumerate(given)]
    assert guess_type(encode(*made), "of") == kind
