"""What a source says is gone is deleted."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam import Deletion, FrameDataset, FrameRecord
from contextframe_beam.connectors import BaseConnector
from contextframe_beam.errors import RecordError
from contextframe_beam.frames.record import uuid_of
from contextframe_beam.transforms.commit import commit_run
from contextframe_beam.transforms.written import Written
from tests.support.laws import examples
from tests.support.pipeline_helpers import EMBED_DIM, EVERY_WAY, begin, document, ids_in, run, write


class Changes(BaseConnector):
    """A feed of changes: an item is a document's id, or `{"gone": id}`."""

    identity_args = ()

    def __init__(self, *items: Any) -> None:
        super().__init__()
        self.items = items

    def sync_documents(self) -> list[Any]:
        return list(self.items)

    def map_to_frame_record(self, item: Any) -> FrameRecord | Deletion:
        if isinstance(item, dict):
            return Deletion(f"doc:{item['gone']}")
        return document(item)


class TestDeletion:
    def test_it_has_the_key_of_its_document(self):
        assert Deletion("doc:1").key == uuid_of("doc:1")
        own = "0123ABCD-0123-4123-8123-0123456789AB"
        assert Deletion(uuid=own).key == own.lower()

    def test_its_time_may_be_a_date(self):
        assert Deletion("a", date(2026, 1, 2)).time == "2026-01-02"
        assert Deletion("a", datetime(2026, 1, 2, 3)).time == "2026-01-02T03:00:00"

    @pytest.mark.parametrize(
        "wrong",
        [
            {},
            {"unique_id": ""},
            {"unique_id": 5},
            {"unique_id": "a", "uuid": uuid_of("a")},
            {"uuid": "a"},
            {"unique_id": "contextframe-beam:anchor"},
            {"unique_id": "\ud800"},
            {"unique_id": "a", "timestamp": 5},
        ],
        ids=str,
    )
    def test_one_that_names_no_document_is_refused(self, wrong):
        with pytest.raises(RecordError):
            Deletion(**wrong)


class TestInPipelines:
    @EVERY_WAY
    def test_an_upsert_deletes_the_row(self, kb, how):
        run(Changes(1, 2, 3), kb)
        run(Changes({"gone": 2}, {"gone": 7}, 4), kb, **how)
        assert ids_in(kb) == ["1", "3", "4"]

    def test_appending_refuses_it_as_a_dead_letter(self, kb):
        run(Changes(1), kb)
        receipt = run(Changes({"gone": 1}, 2), kb, mode="append")
        assert (receipt.rows_written, receipt.failed) == (1, 1)
        assert ids_in(kb) == ["1", "2"]

    def test_without_a_pipeline_it_is_done_where_it_stands(self, kb):
        dataset = FrameDataset.create(str(kb), embed_dim=EMBED_DIM)
        assert Changes(1, {"gone": 1}, 2, 3, {"gone": 3}, 1).sync_to_dataset(dataset) == 4
        assert ids_in(kb) == ["1", "2"]


DAYS = st.sampled_from([None, "2026-01-01", "2026-01-02", "2026-01-03"])
CHANGES = st.lists(st.tuples(st.integers(0, 2), st.booleans(), DAYS), max_size=8)


class TestAgainstRows:
    @settings(max_examples=examples(100, few=10), deadline=None)
    @given(CHANGES, st.data())
    def test_a_row_stays_if_it_is_later_than_every_deletion(self, tmp_path_factory, changes, data):
        """Whatever the order, and however they are dealt to workers."""
        kb = tmp_path_factory.mktemp("law") / "kb.lance"
        first = begin(kb, "first")
        commit_run(first, write(first, document(0, "stored"), document(9, "stored")))
        elements = [
            Deletion(f"doc:{key}", day) if gone else document(key, f"of {day}", timestamp=day)
            for key, gone, day in data.draw(st.permutations(changes))
        ]
        started = begin(kb, "second")
        cut = data.draw(st.integers(0, len(elements)))
        parts = [write(started, *elements[:cut]), write(started, *elements[cut:])]
        commit_run(started, Written.sum(parts))
        expected = {"9"}
        for key in range(3):
            deletions = [day or "9999" for other, gone, day in changes if other == key and gone]
            rows = [day or "" for other, gone, day in changes if other == key and not gone]
            is_stored = key == 0 and not rows and not deletions
            if is_stored or (rows and (not deletions or max(rows) > max(deletions))):
                expected.add(str(key))
        assert ids_in(kb) == sorted(expected)
