"""A FrameRecord: what it holds, when two are equal, and how a document is identified."""

import copy
import pickle
import uuid
from datetime import date, datetime, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam import FrameRecord, RecordError
from contextframe_beam.frames.record import NAMESPACE, RESERVED, is_uuid, target_unique_id, uuid_of
from tests.support.frame_strategies import records


class TestAttributes:
    def test_an_empty_record_is_a_document_without_content(self):
        record = FrameRecord()
        assert record.record_type == "document"
        assert record.metadata == {}
        for name in ("text_content", "unique_id", "timestamp", "context", "vector", "raw_data"):
            assert getattr(record, name) is None

    def test_all_attributes_can_be_changed(self):
        record = FrameRecord("text")
        for name in FrameRecord.__slots__:
            setattr(record, name, "new")
            assert getattr(record, name) == "new"

    def test_two_records_do_not_share_their_metadata(self):
        first, second = FrameRecord("a"), FrameRecord("b")
        first.metadata["author"] = "Ada"
        assert second.metadata == {}

    @pytest.mark.parametrize(
        ("moment", "text"),
        [
            (date(2024, 2, 29), "2024-02-29"),
            (datetime(2024, 2, 29, 8, 30, tzinfo=timezone.utc), "2024-02-29T08:30:00+00:00"),
            ("yesterday", "yesterday"),
        ],
    )
    def test_a_timestamp_is_text_whatever_it_is_given_as(self, moment, text):
        assert FrameRecord("a", timestamp=moment).timestamp == text


class TestEquality:
    @given(records())
    @settings(max_examples=30)
    def test_a_copy_is_equal(self, record):
        assert copy.deepcopy(record) == record
        assert pickle.loads(pickle.dumps(record)) == record

    @pytest.mark.parametrize(
        "name",
        [name for name in FrameRecord.__slots__ if name not in ("score", "vector", "metadata")],
    )
    def test_each_attribute_counts(self, name):
        changed = FrameRecord("a")
        setattr(changed, name, "other")
        assert changed != FrameRecord("a")

    def test_metadata_counts_but_not_its_order(self):
        assert FrameRecord(metadata={"a": 1, "b": 2}) == FrameRecord(metadata={"b": 2, "a": 1})
        assert FrameRecord(metadata={"a": 1}) != FrameRecord(metadata={"a": 2})

    def test_vectors_are_compared_as_float32(self):
        assert FrameRecord(vector=[0.1, 1]) == FrameRecord(vector=np.array([0.1, 1], np.float32))
        assert FrameRecord(vector=[0.1]) != FrameRecord(vector=[0.2])
        assert FrameRecord(vector=[0.1]) != FrameRecord()
        assert FrameRecord(vector=[0.1]) != FrameRecord(vector=[0.1, 0.1])

    def test_the_score_of_a_search_does_not_count(self):
        found = FrameRecord("a")
        found.score = 0.5
        assert found == FrameRecord("a")

    def test_something_else_is_never_equal(self):
        assert FrameRecord("a") != "a"

    def test_a_subclass_is_compared_the_same_way(self):
        class Named(FrameRecord):
            __slots__ = ("name",)

        assert Named("a") == Named("a")
        assert Named("a") != Named("b")

    def test_what_a_subclass_adds_survives_pickling(self):
        record = Tagged("a")
        record.tag = "t"
        assert pickle.loads(pickle.dumps(record)).tag == "t"

    def test_a_record_is_mutable_and_so_no_dictionary_key(self):
        with pytest.raises(TypeError, match="unhashable"):
            hash(FrameRecord())


class Tagged(FrameRecord):
    """A subclass that has a dictionary."""


class TestRepr:
    def test_it_shows_the_id_and_the_beginning_of_the_text(self):
        shown = repr(FrameRecord("x" * 5000, {"b": 1, "a": 2}, unique_id="api:1"))
        assert "api:1" in shown
        assert "xxx...'" in shown
        assert "['a', 'b']" in shown
        assert len(shown) < 200

    @pytest.mark.parametrize("odd", [5, b"bytes", None, ["list"], {1: 2}])
    def test_it_works_whatever_a_mapper_put_where(self, odd):
        record = FrameRecord()
        for name in FrameRecord.__slots__:
            setattr(record, name, odd)
        assert repr(record).startswith("FrameRecord(")


class TestUuid:
    @given(st.text())
    def test_it_is_uuid5_of_the_unique_id(self, unique_id):
        assert uuid_of(unique_id) == str(uuid.uuid5(NAMESPACE, unique_id))

    def test_it_is_the_same_in_every_release(self):
        assert str(NAMESPACE) == str(
            uuid.uuid5(uuid.NAMESPACE_URL, "https://contextframe.org/frames")
        )
        assert uuid_of("api:4711") == "448c3ccc-ae14-554f-a4d6-78211b82da00"

    @given(st.uuids())
    def test_a_valid_one_in_metadata_comes_first_and_is_stored_in_lower_case(self, given_uuid):
        shouted = str(given_uuid).upper()
        record = FrameRecord("a", {"uuid": shouted}, unique_id="api:1")
        assert record.uuid == str(given_uuid)

    @pytest.mark.parametrize("odd", ["", "4711", "{" + "0" * 34 + "}", 4711, None, ["a"]])
    def test_anything_else_called_uuid_is_ordinary_metadata(self, odd):
        assert FrameRecord("a", {"uuid": odd}, unique_id="api:1").uuid == uuid_of("api:1")

    def test_without_a_unique_id_the_content_identifies_the_record(self):
        first = FrameRecord("same text", {"author": "Ada", "year": 1843})
        again = FrameRecord("same text", {"year": 1843, "author": "Ada"})
        assert first.uuid == again.uuid
        assert first.uuid != FrameRecord("same text", {"author": "Ada", "year": 1844}).uuid
        assert first.uuid != FrameRecord("other text", first.metadata).uuid

    def test_an_empty_unique_id_is_none_at_all(self):
        first, second = FrameRecord("a", unique_id=""), FrameRecord("b", unique_id="")
        assert first.uuid != second.uuid
        assert first.uuid == FrameRecord("a", unique_id="").uuid

    @pytest.mark.parametrize("record", [FrameRecord(), FrameRecord("", unique_id="")])
    def test_neither_id_nor_content_is_an_error_that_says_what_to_do(self, record):
        with pytest.raises(RecordError, match=r"no text_content and no unique_id.*set one"):
            _ = record.uuid

    def test_ids_of_the_datasets_own_rows_are_refused(self):
        with pytest.raises(RecordError, match="choose another prefix"):
            _ = FrameRecord("a", unique_id=f"{RESERVED}anchor").uuid

    @given(st.uuids())
    def test_is_uuid_knows_the_canonical_form_only(self, value):
        assert is_uuid(str(value))
        assert is_uuid(str(value).upper())
        for other in (value.hex, "{" + str(value) + "}", value.urn, f" {value}", value, None):
            assert not is_uuid(other)


class TestTargetOfARelationship:
    """A relationship points at an id in the source's own words."""

    @pytest.mark.parametrize(
        ("unique_id", "target_id", "expected"),
        [
            ("api:1", "2", "api:2"),
            ("api:1", "api:2", "api:2"),
            ("json_file:/a/b.json", "/a/c.json", "json_file:/a/c.json"),
            ("json_file:/a/b.jsonl#7", "8", "json_file:/a/b.jsonl#8"),
            ("json_file:/a/b.jsonl#7", "json_file:/a/c.jsonl#1", "json_file:/a/c.jsonl#1"),
            ("https://example.org/a#b", "https://example.org/c", "https://example.org/c"),
            ("plain", "2", "2"),
            ("", "2", "2"),
            (None, "2", "2"),
        ],
    )
    def test_it_is_in_the_id_space_of_the_record(self, unique_id, target_id, expected):
        assert target_unique_id(unique_id, target_id) == expected
