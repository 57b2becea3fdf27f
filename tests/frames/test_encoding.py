"""Records become rows and come back: nothing is lost, equal rows have equal digests."""

import datetime
import decimal
import json
import os
import subprocess
import sys
import uuid
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from contextframe_beam import DatasetError, FrameRecord, RecordError, frame_schema
from contextframe_beam.frames.encode import decode_rows, encode_records, record_uuid
from contextframe_beam.frames.record import uuid_of
from contextframe_beam.frames.schema import FORMAT_COLUMNS
from tests.support.frame_strategies import (
    EMBED_DIM,
    exact,
    json_values,
    names,
    records,
    relationships,
    target_relationships,
    texts,
)
from tests.support.laws import examples

LONE = "\ud800"


def encode(*items: FrameRecord, embed_dim: int = EMBED_DIM) -> pa.RecordBatch:
    batch, errors = encode_records(items, embed_dim=embed_dim, source="s")
    assert errors == []
    return batch


def row_of(record: FrameRecord) -> dict[str, Any]:
    return encode(record).to_pylist()[0]


def round_trip(record: FrameRecord) -> FrameRecord:
    return next(decode_rows(encode(record)))


def error_of(record: Any) -> str:
    batch, errors = encode_records([record], embed_dim=EMBED_DIM)
    assert batch.num_rows == 0
    [(index, error)] = errors
    assert index == 0
    assert isinstance(error, RecordError)
    return str(error)


class TestRoundTrip:
    @given(records())
    @settings(max_examples=examples(250))
    def test_a_record_comes_back_as_it_went_in(self, record):
        assert exact(round_trip(record)) == exact(record)

    @given(st.lists(records(), max_size=6))
    @settings(max_examples=examples(200))
    def test_so_do_many_in_one_batch(self, several):
        decoded = list(decode_rows(encode(*several)))
        assert [exact(record) for record in decoded] == [exact(record) for record in several]

    @given(names, json_values)
    @settings(max_examples=examples(300))
    def test_any_name_may_hold_any_value(self, name, value):
        record = FrameRecord("text", {name: value})
        assert exact(round_trip(record)) == exact(record)

    @pytest.mark.parametrize("name", [*FORMAT_COLUMNS, "x_state", "timestamp", "uuid", "", "score"])
    def test_a_name_of_a_column_is_not_special(self, name):
        values = ["text", "", None, 0, -1.5, True, [], ["a"], [None], {}, {"name": "n"}, [{}], "[]"]
        several = [
            FrameRecord("text", {name: value}, unique_id="api:1", timestamp=time)
            for value in values
            for time in ("2024-01-01T00:00", None)
        ]
        read = [round_trip(record) for record in several]
        assert list(map(exact, read)) == list(map(exact, several))

    @given(relationships, st.none() | st.just("json_file:/a.jsonl#1"))
    @settings(max_examples=examples(300))
    def test_relationships_of_any_form(self, value, unique_id):
        record = FrameRecord("text", {"relationships": value}, unique_id=unique_id)
        assert exact(round_trip(record)) == exact(record)

    @pytest.mark.parametrize("text", ['{"a": 1}', "[1]", "null", "1", "true", '"a"', "NaN"])
    def test_text_that_looks_like_json_stays_text(self, text):
        record = FrameRecord(text, {"a": text, "author": text, "tags": [text]}, unique_id=text)
        assert exact(round_trip(record)) == exact(record)

    @pytest.mark.parametrize("unique_id", [None, "", "api:1"])
    @pytest.mark.parametrize("text", [None, "", "text"])
    @pytest.mark.parametrize("context", [None, {}, {"text": "a"}])
    @pytest.mark.parametrize("raw_data", [None, b"", b"\x00\xff"])
    def test_missing_and_empty_are_told_apart(self, unique_id, text, context, raw_data):
        metadata = {"uuid": str(uuid.UUID(int=1))}
        record = FrameRecord(
            text, metadata, unique_id=unique_id, context=context, raw_data=raw_data
        )
        assert exact(round_trip(record)) == exact(record)

    @pytest.mark.parametrize("form", [str, lambda value: str(value).upper()])
    def test_a_uuid_that_is_the_one_made_from_the_unique_id(self, form):
        record = FrameRecord("a", {"uuid": form(uuid_of("api:1"))}, unique_id="api:1")
        assert exact(round_trip(record)) == exact(record)

    def test_a_record_read_and_written_again_is_the_same_row(self):
        record = FrameRecord(
            "text",
            {"zeta": 1, "tags": ["t"], "author": {"name": "A"}, "title": None, "alpha": "2"},
            timestamp="2024-01-01T10:00:00",
            vector=[1, 2, 3, 4],
        )
        first = encode(record)
        again = encode(*decode_rows(first))
        assert again.equals(first)

    def test_vectors_keep_every_bit_of_float32(self):
        vector = np.array([-0.0, 1e-45, 3.4028235e38, 0.1], np.float32)
        assert round_trip(FrameRecord("a", vector=vector)).vector.tobytes() == vector.tobytes()

    @pytest.mark.parametrize(
        "vector",
        [[1, 2, 3, 4], (1.0, 2.0, 3.0, 4.0), np.arange(1, 5), np.arange(1, 5, dtype=np.float16)],
    )
    def test_any_row_of_numbers_is_a_vector(self, vector):
        assert round_trip(FrameRecord("a", vector=vector)) == FrameRecord("a", vector=[1, 2, 3, 4])

    @pytest.mark.parametrize("data", [b"ab", bytearray(b"ab"), memoryview(b"a-b-")[::2]])
    def test_any_bytes_are_raw_data(self, data):
        assert round_trip(FrameRecord("a", raw_data=data)).raw_data == bytes(data)

    def test_integers_have_no_limit_and_floats_are_exact(self):
        metadata = {"i": 10**300, "n": -(2**64), "f": 1e308, "z": -0.0, "t": 0.1 + 0.2}
        assert exact(round_trip(FrameRecord("a", metadata))) == exact(FrameRecord("a", metadata))

    def test_a_slice_of_a_batch_reads_the_same(self):
        several = [
            FrameRecord(f"t{n}", {"n": n}, vector=[n] * 4 if n % 2 else None) for n in range(6)
        ]
        assert list(decode_rows(encode(*several).slice(2, 3))) == several[2:5]


class TestValuesThatAreNoJson:
    """Common Python values are stored as what JSON has for them, and come back as that."""

    class Colour(Enum):
        RED = "red"

    @pytest.mark.parametrize(
        ("value", "stored"),
        [
            (datetime.date(2024, 2, 29), "2024-02-29"),
            (datetime.datetime(2024, 2, 29, 8, 30), "2024-02-29T08:30:00"),
            (uuid.UUID(int=0), "00000000-0000-0000-0000-000000000000"),
            (decimal.Decimal("1.10"), "1.10"),
            (PurePosixPath("/a/b"), "/a/b"),
            (Colour.RED, "red"),
            ((1, (2,)), [1, [2]]),
            (OrderedDict(a=1), {"a": 1}),
            (defaultdict(int, a=1), {"a": 1}),
            (np.str_("text"), "text"),
            (np.float64(0.5), 0.5),
        ],
    )
    def test_they_are_converted(self, value, stored):
        for holder, expected in (
            (value, stored),
            ([value], [stored]),
            ({"k": value, "big": 2**70}, {"k": stored, "big": 2**70}),
        ):
            assert round_trip(FrameRecord("a", {"m": holder})).metadata["m"] == expected

    def test_metadata_context_and_text_may_be_of_subclasses(self):
        record = FrameRecord(
            np.str_("text"),
            OrderedDict(a="1"),
            unique_id=np.str_("api:1"),
            context=OrderedDict(b=2),
        )
        assert exact(round_trip(record)) == exact(
            FrameRecord("text", {"a": "1"}, unique_id="api:1", context={"b": 2})
        )


class TestColumns:
    """What other readers of the format find where."""

    def test_the_batch_has_the_columns_of_the_format_in_order(self):
        assert encode(FrameRecord("a")).schema.equals(frame_schema(EMBED_DIM), check_metadata=True)
        assert encode().schema.equals(frame_schema(EMBED_DIM))
        assert encode().num_rows == 0

    def test_known_names_become_columns_and_the_rest_custom_metadata(self):
        row = row_of(
            FrameRecord(
                "text",
                {"author": "Ada", "tags": ["a", "b"], "position": 3, "pages": 12, "lang": "en"},
                unique_id="api:1",
            )
        )
        assert (row["author"], row["tags"], row["position"]) == ("Ada", ["a", "b"], 3)
        assert row["custom_metadata"] == [
            {"key": "lang", "value": "en"},
            {"key": "pages", "value": "12"},
        ]
        assert row["uri"] == "api:1"
        assert row["uuid"] == uuid_of("api:1")
        assert row["x_source"] == "s"
        assert row["x_state"] is None

    def test_no_custom_metadata_is_an_empty_list(self):
        assert row_of(FrameRecord("a"))["custom_metadata"] == []

    def test_a_column_takes_the_part_of_a_value_that_it_can_hold(self):
        row = row_of(
            FrameRecord(
                "a",
                {"author": {"name": "Ada", "id": 7}, "created_at": "2024-02-29T08:30:00Z"},
            )
        )
        assert (row["author"], row["created_at"]) == ("Ada", "2024-02-29")
        entries = {entry["key"]: entry["value"] for entry in row["custom_metadata"]}
        assert json.loads(entries["author"]) == {"name": "Ada", "id": 7}
        assert entries["created_at"] == "2024-02-29T08:30:00Z"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("created_at", "29.2.2024"),
            ("created_at", "2024-02-30"),
            ("created_at", "2024-W09-4"),
            ("version", "1.0"),
            ("position", -1),
            ("position", 2**31),
            ("position", True),
            ("collection_id_type", "isbn"),
            ("tags", ["a", 1]),
            ("author", 5),
            ("uuid", "4711"),
        ],
    )
    def test_a_value_that_does_not_fit_leaves_the_column_empty(self, name, value):
        row = row_of(FrameRecord("a", {name: value}, unique_id="api:1"))
        assert row[name] == (uuid_of("api:1") if name == "uuid" else None)
        assert [entry["key"] for entry in row["custom_metadata"]] == [name]

    def test_the_timestamp_fills_updated_at_and_is_kept_whole(self):
        row = row_of(FrameRecord("a", timestamp="2024-02-29T08:30:00Z"))
        assert row["updated_at"] == "2024-02-29"
        assert row["custom_metadata"] == [{"key": "timestamp", "value": "2024-02-29T08:30:00Z"}]

    @pytest.mark.parametrize(
        ("timestamp", "day"),
        [
            ("Thu, 29 Feb 2024 08:30:00 GMT", "2024-02-29"),
            ("1709195400", "2024-02-29"),
            ("1709195400000", "2024-02-29"),
            ("2024/02/29 08:30", "2024-02-29"),
            ("20240229T083000Z", "2024-02-29"),
            ("2024-W09-4", "2024-02-29"),
            ("2024-02-29T23:30:00-08:00", "2024-02-29"),  # as it is written, in its own zone
            ("Thu, 29 Feb 2024 23:30:00 -0800", "2024-02-29"),
            ("1/2/2024", None),
            ("29/02/2024", None),
            ("yesterday", None),
            ("", None),
        ],
    )
    def test_a_timestamp_of_any_form_fills_updated_at(self, timestamp, day):
        record = FrameRecord("a", timestamp=timestamp)
        row = row_of(record)
        assert row["updated_at"] == day
        assert row["custom_metadata"] == [{"key": "timestamp", "value": timestamp}]

    def test_an_updated_at_of_its_own_comes_before_the_timestamp(self):
        record = FrameRecord("a", {"updated_at": "2020-01-01"}, timestamp="2024-02-29T08:30:00Z")
        assert row_of(record)["updated_at"] == "2020-01-01"

    def test_context_is_json_text(self):
        assert json.loads(row_of(FrameRecord("a", context={"é": [1]}))["context"]) == {"é": [1]}

    @pytest.mark.parametrize(
        ("text", "title"),
        [
            ("# One\ntext", "One"),
            ("intro\n\n## Two ##\n", "Two"),
            ("# C#\n", "C#"),
            ("#\tF# and C# #\r\nmore", "F# and C#"),
            ("# #\n## Second", "Second"),
            ("#hashtag\nline", "#hashtag"),
            ("\n\n  first line  \nsecond", "first line"),
            ("x" * 500, "x" * 120),
            ("# " + "y" * 500, "y" * 120),
            ("", "api:1"),
            (" \n\t\n", "api:1"),
            (None, "api:1"),
        ],
    )
    def test_the_title_is_the_first_heading_or_line_or_the_id(self, text, title):
        assert row_of(FrameRecord(text, unique_id="api:1"))["title"] == title

    def test_a_title_in_metadata_comes_first_unless_it_is_empty(self):
        assert row_of(FrameRecord("# One", {"title": "Two"}))["title"] == "Two"
        assert row_of(FrameRecord("# One", {"title": ""}))["title"] == "One"
        assert row_of(FrameRecord("# One", {"title": ["Two"]}))["title"] == "One"

    def test_a_row_always_has_a_title(self):
        row = row_of(FrameRecord(vector=[1, 2, 3, 4]))
        assert row["title"] == row["uri"]

    def test_a_heading_of_hash_marks_and_spaces_takes_no_time(self):
        text = "# a" + " #" * 2000 + "b"
        assert row_of(FrameRecord(text))["title"] == text[2:122]


class TestRelationships:
    def test_a_join_of_relationships_with_uuid_finds_the_targets(self):
        child = FrameRecord(
            "child",
            {
                "relationships": [
                    {"relationship_type": "parent", "target_id": "1"},
                    {"relationship_type": "reference", "target_id": 2, "metadata": {"page": 4}},
                ]
            },
            unique_id="api:3",
        )
        batch = encode(
            FrameRecord("one", unique_id="api:1"), FrameRecord("two", unique_id="api:2"), child
        )
        titles = dict(zip(batch["uuid"].to_pylist(), batch["title"].to_pylist(), strict=True))
        found = batch["relationships"][2].as_py()
        assert [titles[relationship["id"]] for relationship in found] == ["one", "two"]
        assert [relationship["uri"] for relationship in found] == ["1", "2"]
        assert json.loads(found[1]["description"]) == {"page": 4}

    def test_a_uuid_in_another_case_is_found_as_well(self):
        target = FrameRecord("one", unique_id="api:1")
        link = {"type": "parent", "id": target.uuid.upper()}
        row = row_of(FrameRecord("two", {"relationships": [link]}))
        assert row["relationships"][0]["id"] == target.uuid

    @given(st.lists(target_relationships, max_size=3))
    def test_ids_in_the_column_are_uuids(self, value):
        row = row_of(FrameRecord("a", {"relationships": value}, unique_id="api:1"))
        for relationship in row["relationships"]:
            assert str(uuid.UUID(relationship["id"])) == relationship["id"]

    def test_an_id_that_is_no_uuid_is_a_uri_to_the_outside(self):
        row = row_of(FrameRecord("a", {"relationships": [{"type": "parent", "id": "4711"}]}))
        assert row["relationships"][0]["id"] is None
        assert row["relationships"][0]["uri"] == "4711"

    @pytest.mark.parametrize(
        "item",
        [
            {"relationship_type": "parent"},
            {"relationship_type": "parent", "target_id": ""},
            {"relationship_type": "parent", "target_id": None},
            {"relationship_type": "parent", "target_id": True},
            {"relationship_type": None, "target_id": "1"},
            {"type": "parent"},
            {"type": "parent", "title": "no target"},
            {"type": 5, "uri": "x"},
            {},
            "text",
            None,
            5,
        ],
    )
    def test_what_points_nowhere_is_kept_beside_the_column(self, item):
        good = {"type": "child", "uri": "x"}
        row = row_of(FrameRecord("a", {"relationships": [item, good]}))
        assert [relationship["uri"] for relationship in row["relationships"]] == ["x"]
        assert json.loads(row["custom_metadata"][0]["value"]) == [item, good]


def content_of(row: dict[str, Any]) -> str:
    """Returns what of a row is not made from its digest, as text that keeps types apart."""
    made = {"x_digest"}
    if row["uri"].startswith("content:"):
        made |= {"uuid", "uri", "title"}
    return repr({name: value for name, value in row.items() if name not in made})


few_values = st.sampled_from(
    ["", "x", "1", "[]", '["x"]', "null", 1, 1.0, True, None, [], ["x"], ["x", "1"], ["x1"], {}]
)
similar_records = st.builds(
    FrameRecord,
    text_content=st.sampled_from([None, "", "x", "null"]),
    metadata=st.dictionaries(
        st.sampled_from(["a", "x", "title", "author", "tags", "position", "status", "timestamp"])
        | st.sampled_from(["contributors", "relationships", "created_at"]),
        few_values,
        max_size=2,
    ),
    unique_id=st.sampled_from(["x", "1", "x1"]),
    timestamp=st.sampled_from([None, "", "x", "2024-01-01"]),
    context=st.sampled_from([None, {}, {"x": 1}]),
    vector=st.sampled_from([None, [0.0] * 4, [1.0] * 4]),
    raw_data=st.sampled_from([None, b"", bytes(16), b"x"]),
    raw_data_type=st.sampled_from([None, "", "x"]),
)


class TestDigest:
    """`x_digest` is 16 bytes over a row: a source's unchanged documents are found by it."""

    @given(st.lists(similar_records, min_size=2, max_size=12))
    @settings(max_examples=examples(400))
    def test_it_is_equal_exactly_when_the_rows_are(self, several):
        by_content: dict[str, bytes] = {}
        for row in encode(*several).to_pylist():
            assert by_content.setdefault(content_of(row), row["x_digest"]) == row["x_digest"]
        assert len(set(by_content.values())) == len(by_content)

    @pytest.mark.parametrize(
        ("left", "right"),
        [
            ({"tags": ["x"]}, {"tags": "x"}),
            ({"tags": ["a", "b"]}, {"tags": ["ab"]}),
            ({"position": 5}, {"position": "5"}),
            ({"a": 5}, {"a": "5"}),
            ({"a": 1}, {"a": True}),
            ({"a": 1}, {"a": 1.0}),
            ({"a": 0.0}, {"a": -0.0}),
            ({"a": None}, {"a": ""}),
            ({"a": None}, {}),
            ({"a": "b", "c": "d"}, {"a": "d", "c": "b"}),
            ({"x": "1", "author": "z", "title": "t"}, {"x": "author", "1": "z", "title": "t"}),
            ({"title": "text"}, {}),
            ({"relationships": []}, {"relationships": "[]"}),
            ({"relationships": []}, {"relationships": None}),
        ],
    )
    def test_metadata_that_differs_differs(self, left, right):
        batch = encode(
            FrameRecord("text", left, unique_id="1"), FrameRecord("text", right, unique_id="1")
        )
        assert batch["x_digest"][0] != batch["x_digest"][1]
        for index, metadata in enumerate((left, right)):
            alone = encode(*[FrameRecord("text", metadata, unique_id="1")] * 2)
            assert alone["x_digest"].to_pylist() == [batch["x_digest"][index].as_py()] * 2

    def test_a_vector_is_not_raw_data(self):
        vector = np.ones(EMBED_DIM, np.float32)
        batch = encode(
            FrameRecord("a", vector=vector),
            FrameRecord("a", raw_data=vector.tobytes()),
            FrameRecord("a", vector=vector, raw_data=b""),
        )
        assert len(set(batch["x_digest"].to_pylist())) == 3

    @given(st.lists(records(), min_size=2, max_size=5))
    @settings(max_examples=examples(200))
    def test_it_does_not_depend_on_the_rows_beside_it(self, several):
        together = encode(*several)
        for index, record in enumerate(several):
            assert encode(record).equals(together.slice(index, 1))

    @given(records(), st.randoms(use_true_random=False))
    def test_it_does_not_depend_on_the_order_of_the_metadata(self, record, random):
        items = list(record.metadata.items())
        random.shuffle(items)
        before = encode(record)
        record.metadata = dict(items)
        assert encode(record).equals(before)

    def test_it_does_not_depend_on_the_process(self):
        program = (
            "from contextframe_beam import FrameRecord\n"
            "from contextframe_beam.frames.encode import encode_records\n"
            "record = FrameRecord('text', {'b': {'y': 1, 'x': 2}, 'a': {1.5: 1}.popitem()[0],"
            " 'tags': ['t']}, vector=[1, 2], raw_data=b'r', context={'c': None})\n"
            "batch, errors = encode_records([record], embed_dim=2)\n"
            "print(batch['x_digest'][0].as_py().hex(), record.uuid, errors)"
        )
        outputs = {
            subprocess.run(
                [sys.executable, "-c", program],
                env={**os.environ, "PYTHONHASHSEED": seed},
                capture_output=True,
                check=True,
                text=True,
            ).stdout
            for seed in ("1", "2")
        }
        assert len(outputs) == 1
        assert outputs.pop().endswith("[]\n")


class TestKeys:
    @given(st.lists(records(), min_size=1, max_size=4))
    @settings(max_examples=examples(200))
    def test_the_key_of_a_row_is_the_records_uuid(self, several):
        keys = encode(*several)["uuid"].to_pylist()
        assert keys == [record.uuid for record in several]
        assert keys == [record_uuid(record) for record in several]

    def test_the_length_of_the_vector_does_not_change_the_key(self):
        assert record_uuid(FrameRecord("a", vector=[1.0] * 7)) is not None


@dataclass
class Point:
    x: float


class TestBadRecords:
    """A record that cannot be stored says what is wrong, and where."""

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_numbers_that_json_does_not_have(self, value):
        assert "metadata['a'] is" in error_of(FrameRecord("t", {"a": value}))
        message = error_of(FrameRecord("t", {"a": [1, {"b": value}]}))
        assert "metadata['a'][1]['b'] is" in message
        assert "context['a'] is" in error_of(FrameRecord("t", context={"a": value}))

    @pytest.mark.parametrize("value", [{1}, b"bytes", object(), 1j, np.int64(1), Point(1.0)])
    def test_values_that_json_does_not_have(self, value):
        kind = type(value).__name__
        assert f"metadata['a'] is a {kind}" in error_of(FrameRecord("t", {"a": value}))
        assert f"metadata['a']['b'] is a {kind}" in error_of(FrameRecord("t", {"a": {"b": value}}))
        assert f"context['a'][0] is a {kind}" in error_of(FrameRecord("t", context={"a": [value]}))

    @pytest.mark.parametrize("name", ["title", "tags", "author", "created_at", "position", "uuid"])
    def test_also_under_the_name_of_a_column(self, name):
        assert f"metadata['{name}'] is" in error_of(FrameRecord("t", {name: float("nan")}))
        assert f"metadata['{name}'][0] is a set" in error_of(FrameRecord("t", {name: [{1}]}))

    @pytest.mark.parametrize("key", [1, None, 1.5, ("a",), b"k"])
    @pytest.mark.parametrize("value", ["text", 1, None, ["list"]])
    def test_keys_that_are_no_text(self, key, value):
        message = error_of(FrameRecord("t", {"a": 1, key: value}))
        assert message.startswith(f"metadata has the key {key!r} ({type(key).__name__})")
        assert f"metadata['a'] has the key {key!r}" in error_of(FrameRecord("t", {"a": {key: 1}}))
        assert f"context has the key {key!r}" in error_of(FrameRecord("t", context={key: 1}))

    @pytest.mark.parametrize(
        ("record", "place"),
        [
            (FrameRecord(f"ab{LONE}"), "text_content holds a lone surrogate at character 2"),
            (FrameRecord("t", unique_id=LONE), "unique_id"),
            (FrameRecord("t", timestamp=LONE), "timestamp"),
            (FrameRecord("t", {"timestamp": 1}, timestamp=LONE), "timestamp"),
            (FrameRecord("t", raw_data_type=LONE), "raw_data_type"),
            (FrameRecord("t", {"a": LONE}), "metadata['a']"),
            (FrameRecord("t", {"a": [{"b": LONE}]}), "metadata['a'][0]['b']"),
            (FrameRecord("t", {"a": {LONE: 1}}), "metadata['a']"),
            (FrameRecord("t", {LONE: "text"}), "metadata"),
            (FrameRecord("t", {LONE: None}), "metadata"),
            (FrameRecord("t", {LONE: [1]}), "metadata"),
            (FrameRecord("t", {"title": LONE}), "metadata['title']"),
            (FrameRecord("t", {"created_at": "2024-01-01" + LONE}), "metadata['created_at']"),
            (FrameRecord("t", {"tags": ["a", LONE]}), "metadata['tags'][1]"),
            (FrameRecord("t", {"author": {"name": LONE}}), "metadata['author']['name']"),
            (FrameRecord("t", {"uuid": LONE * 36}), "metadata['uuid']"),
            (FrameRecord("t", context={"a": LONE}), "context['a']"),
            (
                FrameRecord("t", {"relationships": [{"type": "a", "uri": LONE}]}),
                "metadata['relationships'][0]['uri']",
            ),
            (
                FrameRecord(
                    "t", {"relationships": [{"relationship_type": "a", "target_id": LONE}]}
                ),
                "metadata['relationships'][0]['target_id']",
            ),
            (
                FrameRecord(
                    "t",
                    {"relationships": [{"relationship_type": "a", "target_id": "1"}]},
                    unique_id=f"api:{LONE}",
                ),
                "unique_id",
            ),
        ],
    )
    def test_text_that_is_not_unicode(self, record, place):
        message = error_of(record)
        assert place in message
        assert "lone surrogate" in message
        message.encode()

    @pytest.mark.parametrize(
        "metadata", [{"page": float("nan")}, {"page": {1}}, {1: "page"}, [b"page"]]
    )
    def test_the_metadata_of_a_relationship(self, metadata):
        item = {"relationship_type": "parent", "target_id": "1", "metadata": metadata}
        message = error_of(FrameRecord("t", {"relationships": [{"type": "a", "uri": "x"}, item]}))
        assert "metadata['relationships'][1]['metadata']" in message

    @pytest.mark.parametrize(
        ("attribute", "value", "expected"),
        [
            ("text_content", 5, "text_content is 5; expected text or None"),
            ("text_content", b"bytes", "text_content is a bytes; expected text"),
            ("unique_id", 5, "unique_id is 5; expected text"),
            ("timestamp", 1709195400, "timestamp is 1709195400; expected ISO 8601 text"),
            ("record_type", "page", "record_type is 'page'; expected document or"),
            ("record_type", None, "record_type is None; expected document or"),
            ("record_type", ["document"], "record_type is a list; expected document or"),
            ("metadata", None, "metadata is None; expected a dict"),
            ("metadata", [("a", 1)], "metadata is a list; expected a dict"),
            ("context", "text", "context is 'text'; expected a dict or None"),
            ("context", ["list"], "context is a list; expected a dict or None"),
            ("raw_data", "text", "raw_data is 'text'; expected bytes or None"),
            ("raw_data_type", 5, "raw_data_type is 5; expected text or None"),
            ("vector", [1, 2], "vector has 2 values and the dataset holds 4"),
            ("vector", [], "vector has 0 values"),
            ("vector", [[1, 2, 3, 4]], "vector has the shape (1, 4); expected one dimension"),
            ("vector", 5, "vector has the shape (); expected one dimension"),
            ("vector", [1, 2, 3, float("nan")], "vector holds NaN or infinity"),
            ("vector", [1, 2, 3, 1e300], "vector holds NaN or infinity"),
            ("vector", [1, 2, 3, "4"], "vector is a list that is no row of numbers"),
            ("vector", ["1", "2", "3", "4"], "vector is a list that is no row of numbers"),
            ("vector", [1, 2, 3, None], "vector is a list that is no row of numbers"),
            ("vector", [[1], [2, 3]], "vector is a list that is no row of numbers"),
            ("vector", [1, 2, 3, 10**400], "vector is a list that is no row of numbers"),
            ("vector", "abcd", "vector is a str that is no row of numbers"),
            ("vector", {1: 2}, "vector is a dict that is no row of numbers"),
        ],
    )
    def test_attributes_of_the_wrong_type(self, attribute, value, expected):
        record = FrameRecord("t", unique_id="api:1")
        setattr(record, attribute, value)
        assert expected in error_of(record)

    def test_no_text_and_no_id(self):
        for record in (
            FrameRecord(),
            FrameRecord("", {"a": 1}),
            FrameRecord(None, {"uuid": "no uuid"}, unique_id=""),
            FrameRecord(raw_data=b""),
        ):
            assert "no text_content and no unique_id" in error_of(record)

    def test_metadata_that_holds_itself_or_is_too_deep(self):
        loop: dict[str, Any] = {}
        loop["loop"] = [loop]
        deep: Any = []
        for _ in range(5000):
            deep = [deep]
        for value in (loop, deep, {"big": 2**70, "deep": deep}):
            message = error_of(FrameRecord("t", {"a": value}))
            assert message.startswith("metadata['a']")
            assert "nested more than" in message
            assert len(message) < 200
            assert "nested more than" in error_of(FrameRecord("t", context={"a": value}))

    @given(st.integers(1, 249))
    @settings(max_examples=5)
    def test_reasonable_depth_is_fine(self, depth):
        value: Any = 2**70
        for _ in range(depth):
            value = [value]
        assert round_trip(FrameRecord("t", {"a": value})).metadata == {"a": value}

    @pytest.mark.parametrize("odd", [None, {"text_content": "a"}, "text", 5])
    def test_what_is_no_record_at_all(self, odd):
        assert "expected a FrameRecord" in error_of(odd)


class TestBadRecordsAmongGoodOnes:
    @given(
        st.lists(st.just(None) | records(), max_size=8),
        st.sampled_from(
            [
                None,
                FrameRecord(),
                FrameRecord("t", {"a": float("nan")}),
                FrameRecord("t", {"tags": [LONE]}),
                FrameRecord("t", {LONE: None, "a": 1}),
                FrameRecord("t", {1: "x"}),
                FrameRecord("t", vector=[1.0]),
                FrameRecord("t", record_type="no"),
                FrameRecord(
                    "t", {"relationships": [{"relationship_type": "a", "target_id": LONE}]}
                ),
            ]
        ),
    )
    def test_they_are_named_and_the_others_stored_as_if_alone(self, several, bad):
        items = [bad if record is None else record for record in several]
        good = [record for record in several if record is not None]
        batch, errors = encode_records(items, embed_dim=EMBED_DIM, source="s")
        assert [index for index, _ in errors] == [
            index for index, record in enumerate(several) if record is None
        ]
        assert all(isinstance(error, RecordError) for _, error in errors)
        assert batch.equals(encode(*good))

    def test_each_kind_of_fault_in_one_batch(self):
        faults = [
            FrameRecord(),
            "no record",
            FrameRecord("t", {1: 2}),
            FrameRecord("t", {"a": {1}}),
            FrameRecord(LONE),
            FrameRecord("t", vector=[1]),
            FrameRecord(5),  # type: ignore[arg-type]
            FrameRecord("t", record_type="x"),
            FrameRecord("t", context=[1]),  # type: ignore[arg-type]
        ]
        good = [FrameRecord(f"good {n}", unique_id=str(n)) for n in range(len(faults))]
        mixed = [item for pair in zip(faults, good, strict=True) for item in pair]
        batch, errors = encode_records(mixed, embed_dim=EMBED_DIM)
        assert [index for index, _ in errors] == list(range(0, len(mixed), 2))
        assert list(decode_rows(batch)) == good

    def test_the_records_are_not_changed(self):
        record = FrameRecord(None, {"tags": ["a"]}, unique_id="", vector=[1, 2, 3, 4])
        before = exact(record)
        encode_records([record, FrameRecord()], embed_dim=EMBED_DIM)
        assert exact(record) == before


class TestManyDifferentNames:
    """Records that share few names of metadata cost in proportion to what they hold."""

    def test_they_are_stored_like_any_others(self):
        several = [
            FrameRecord("t", {f"only {n} has {k}": k for k in range(20)}, unique_id=str(n))
            for n in range(300)
        ]
        several[7].metadata = {"a": {1}}
        batch, errors = encode_records(several, embed_dim=EMBED_DIM, source="s")
        assert [index for index, _ in errors] == [7]
        del several[7]
        assert list(decode_rows(batch)) == several
        assert batch.slice(100, 1).equals(encode(several[100]))


class TestRowsOfOthers:
    """Rows without `x_` columns, as other programs of the format write them."""

    def row(self, **columns: Any) -> FrameRecord:
        schema = pa.schema([frame_schema(EMBED_DIM).field(name) for name in FORMAT_COLUMNS])
        row = {"uuid": str(uuid.UUID(int=5)), "title": "T", **columns}
        [record] = decode_rows(pa.RecordBatch.from_pylist([row], schema=schema))
        return record

    def test_columns_are_metadata(self):
        record = self.row(text_content="t", author="A", tags=["x"], uri="https://example.org")
        assert record.metadata == {
            "uuid": str(uuid.UUID(int=5)),
            "title": "T",
            "author": "A",
            "tags": ["x"],
        }
        assert record.unique_id == "https://example.org"
        assert record.record_type == "document"

    def test_written_again_such_a_record_keeps_its_key(self):
        assert self.row(uri="https://example.org").uuid == str(uuid.UUID(int=5))
        assert self.row(uri=None).uuid == str(uuid.UUID(int=5))

    def test_custom_metadata_is_text(self):
        entries = [{"key": "a", "value": "[1]"}, {"key": "b", "value": None}]
        assert self.row(custom_metadata=entries).metadata["a"] == "[1]"
        assert self.row(custom_metadata=entries).metadata["b"] is None

    def test_gaps_in_lists_are_passed_over(self):
        record = self.row(custom_metadata=[None, {"key": None, "value": "v"}], relationships=[None])
        assert record.metadata == {
            "uuid": str(uuid.UUID(int=5)),
            "title": "T",
            "relationships": [],
        }

    @pytest.mark.parametrize(
        ("context", "expected"),
        [
            ('{"a": 1}', {"a": 1}),
            ("plain words", {"text": "plain words"}),
            ("[1, 2]", {"text": "[1, 2]"}),
            ("42", {"text": "42"}),
            ("NaN", {"text": "NaN"}),
            ("", {"text": ""}),
            ("[" * 100_000, {"text": "[" * 100_000}),
        ],
    )
    def test_a_context_that_is_no_json_object_comes_as_text(self, context, expected):
        assert self.row(context=context).context == expected

    def test_columns_that_were_not_read_are_missing(self):
        batch = encode(FrameRecord("t", {"author": "A"}, unique_id="api:1"))
        [record] = decode_rows(batch.select(["uuid", "text_content"]))
        assert record.text_content == "t"

    @pytest.mark.parametrize("encoding", ["no json", "[]", '{"json": ["a"]}', '{"made": 5}'])
    def test_an_encoding_that_makes_no_sense_is_an_error(self, encoding):
        batch = encode(FrameRecord("t", {"a": "no json"}, unique_id="api:1"))
        index = batch.schema.get_field_index("x_encoding")
        broken = batch.set_column(index, batch.schema.field(index), pa.array([encoding]))
        with pytest.raises(DatasetError, match=f"the row {uuid_of('api:1')} cannot be read"):
            list(decode_rows(broken))


@given(texts, texts)
def test_different_unique_ids_have_different_keys(left, right):
    assume(left and right and left != right)
    assert FrameRecord("t", unique_id=left).uuid != FrameRecord("t", unique_id=right).uuid
