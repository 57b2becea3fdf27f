"""Rows hold all that a dataset holds: records and items come back from them equal."""

from __future__ import annotations

import json
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam import coders
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam import FrameRecord
from contextframe_beam.errors import ConfigError, RecordError
from contextframe_beam.pipelines.yaml import rows
from tests.support.frame_strategies import exact, records

FRAME_TYPE = rows.row_type({**rows.ORIGIN, **rows.FRAME}, {})
ORIGIN = {"source": "0123456789abcdef", "partition": "all", "position": "page 1"}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.datetimes() | st.dates() | st.decimals(allow_nan=False) | st.uuids(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    | st.tuples(inner, inner),
    max_leaves=8,
)  # fmt: skip


def through_coder(row: beam.Row, kind: Any) -> Any:
    """Sends a row over the wire, as between stages."""
    coder = coders.registry.get_coder(kind)
    return coder.decode(coder.encode(row))


@given(records())
def test_a_record_that_a_dataset_can_hold_comes_back_equal_from_its_row(
    record: FrameRecord,
) -> None:
    row = through_coder(rows.row_of_record(record, None, ORIGIN, {}), FRAME_TYPE)
    assert exact(rows.record_of_row(row)) == exact(record)


@given(json_values)
def test_an_item_comes_back_from_its_text(item: Any) -> None:
    text = rows.text_of_item(item)
    back = rows.item_of_text(text)
    assert rows.text_of_item(back) == text
    if "nan" not in repr(item).lower():
        assert back == item


def test_what_looks_like_a_secret_in_use_stays_in_an_item(monkeypatch: Any) -> None:
    from contextframe_beam.connectors import secrets

    monkeypatch.setenv("PLANTED", "planted-secret-4711")
    assert secrets.resolve("env:PLANTED") == "planted-secret-4711"
    assert rows.item_of_text(rows.text_of_item(["planted-secret-4711"])) == ["planted-secret-4711"]


def test_an_item_that_text_cannot_hold_is_refused() -> None:
    with pytest.raises(RecordError, match="object that a row cannot hold"):
        rows.text_of_item({"a": object()})


def test_fields_are_columns_of_their_type() -> None:
    fields = {"year": "integer", "score": "number", "open": "boolean", "name": "string"}
    kind = rows.row_type(rows.ORIGIN, fields)
    item = {"year": 2026, "score": 1, "open": True, "name": 7, "more": [1]}
    row = through_coder(rows.row_of_item(item, ORIGIN, fields), kind)
    assert (row.year, row.score, row.open, row.name) == (2026, 1.0, True, "7")
    missing = through_coder(rows.row_of_item({}, ORIGIN, fields), kind)
    assert (missing.year, missing.score, missing.open, missing.name) == (None,) * 4
    assert rows.item_of_row(missing) == {}


@pytest.mark.parametrize(
    ("kind", "value"),
    [("integer", "7"), ("integer", True), ("integer", 2**63), ("number", "x"), ("boolean", 1)],
)
def test_a_field_of_another_type_is_refused_with_its_value(kind: str, value: Any) -> None:
    with pytest.raises(RecordError, match=f"field x is .* not {kind}"):
        rows.row_of_item({"x": value}, ORIGIN, {"x": kind})


def test_a_column_that_a_stock_transform_changed_wins_over_the_item() -> None:
    row = beam.Row(**ORIGIN, item=json.dumps({"title": "old", "body": "b", "n": 1}), title="new")
    assert rows.item_of_row(row) == {"title": "new", "body": "b", "n": 1}
    cleared = beam.Row(**ORIGIN, item=json.dumps({"title": "old"}), title=None)
    assert rows.item_of_row(cleared) == {"title": None}


def test_columns_that_a_record_does_not_have_are_metadata() -> None:
    row = beam.Row(unique_id="1", text_content="t", metadata='{"a": 1, "b": 2}', b=3, c=None)
    assert rows.record_of_row(row) == FrameRecord("t", {"a": 1, "b": 3}, unique_id="1")


def test_values_of_other_libraries_become_plain_ones() -> None:
    class Inner:
        def _asdict(self) -> dict[str, Any]:
            return {"n": np.int64(1)}

    row = beam.Row(inner=Inner(), several=[np.float64(0.5)], mapping={"a": np.bool_(True)})
    assert rows.values_of(row) == {"inner": {"n": 1}, "several": [0.5], "mapping": {"a": True}}


@pytest.mark.parametrize(
    ("name", "value"), [("metadata", "{"), ("metadata", "[1]"), ("context", 7)]
)
def test_a_column_that_does_not_hold_what_its_name_says_is_refused(name: str, value: Any) -> None:
    with pytest.raises(RecordError, match=name):
        rows.record_of_row(beam.Row(**{name: value}))


def test_fields_with_no_such_type_or_name_are_refused() -> None:
    for fields in ({"a": "text"}, {"item": "string"}, {"a.b": "string"}):
        with pytest.raises(ConfigError, match="fields"):
            rows.row_type(rows.ORIGIN, fields)
