"""Documents that are stored as they are already are not written again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.connectors import BaseConnector
from contextframe_beam.errors import ConcurrentRunError
from contextframe_beam.frames.encode import encode_records
from contextframe_beam.frames.record import Deletion
from contextframe_beam.frames.schema import FORMAT_COLUMNS
from contextframe_beam.store.keys import KeySet, Numbers
from contextframe_beam.store.rows import RowNumbers, scan_rows
from contextframe_beam.transforms import unchanged
from contextframe_beam.transforms.commit import commit_run
from contextframe_beam.transforms.unchanged import SeenRows, StoredRows, pack, unpack
from tests.support.pipeline_helpers import (
    EMBED_DIM,
    EVERY_WAY,
    SOURCE,
    begin,
    document,
    documents,
    ids_in,
    run,
    texts_in,
    write,
)


class Records(BaseConnector):
    """Its items are the arguments of FrameRecord."""

    identity_args = ()

    def __init__(self, items: list[dict[str, Any]]) -> None:
        super().__init__()
        self.items = items

    def sync_documents(self) -> list[dict[str, Any]]:
        return self.items

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return FrameRecord(**item)


FULL: dict[str, Any] = {
    "text_content": "# Title\ntext",
    "metadata": {
        "title": "A title",
        "author": "Ada",
        "created_at": "2026-01-01",
        "tags": ["a", "b"],
        "position": 1,
        "status": "open",
        "note": "x",
        "numbers": [1, 2.5, None],
        "relationships": [{"relationship_type": "parent", "target_id": "7"}],
    },
    "record_type": "document",
    "timestamp": "2026-01-01T00:00:00Z",
    "context": {"a": {"b": 1}},
    "vector": [0.0, 1.0, 2.0, 3.0],
    "raw_data": b"raw",
    "raw_data_type": "text/plain",
}


def with_metadata(**changes: Any) -> dict[str, Any]:
    return {"metadata": {**FULL["metadata"], **changes}}


CHANGES: list[dict[str, Any]] = [
    {"text_content": "# Title\ntext "},
    {"text_content": ""},
    {"text_content": None},
    {"record_type": "collection_header"},
    {"timestamp": "2026-01-01T00:00:01Z"},
    {"timestamp": None},
    {"context": {"a": {"b": 2}}},
    {"context": {}},
    {"context": None},
    {"vector": [0.0, 1.0, 2.0, 3.5]},
    {"vector": None},
    {"raw_data": b"raw2"},
    {"raw_data": b""},
    {"raw_data": None},
    {"raw_data_type": "text/html"},
    {"metadata": {}},
    with_metadata(title="Another title"),
    with_metadata(title=None),
    with_metadata(author="Bob"),
    with_metadata(author={"name": "Ada"}),
    with_metadata(created_at="2026-01-01T10:00:00Z"),
    with_metadata(tags=["b", "a"]),
    with_metadata(tags=["ab"]),
    with_metadata(tags=[]),
    with_metadata(position=2),
    with_metadata(position="1"),
    with_metadata(status="x", note="open"),
    with_metadata(status="note", note="status"),
    with_metadata(note=None),
    with_metadata(note=""),
    with_metadata(numbers=[1, 2.5]),
    with_metadata(numbers="[1,2.5,null]"),
    with_metadata(another=None),
    with_metadata(another="x"),
    with_metadata(updated_at="2026-01-01"),
    with_metadata(relationships=[{"relationship_type": "child", "target_id": "7"}]),
    with_metadata(relationships=[{"relationship_type": "parent", "target_id": 7}]),
    with_metadata(relationships=[]),
]


@EVERY_WAY
class TestSecondRuns:
    def test_a_run_that_finds_nothing_new_writes_no_document(self, kb, how):
        run(documents(*range(10)), kb)
        before = lance.dataset(str(kb)).get_fragments()[0].data_files()
        receipt = run(documents(*range(10)), kb, **how)
        assert (receipt.rows_written, receipt.rows_replaced, receipt.rows_unchanged) == (0, 0, 10)
        assert (receipt.fragments, receipt.bytes) == (0, 0)
        assert lance.dataset(str(kb)).get_fragments()[0].data_files() == before
        assert ids_in(kb) == [str(number) for number in range(10)]

    def test_only_what_changed_is_written(self, kb, how):
        run(documents(1, 2, 3), kb)
        receipt = run(documents(1, {"id": 2, "text": "new"}, 3, 4), kb, **how)
        assert (receipt.rows_written, receipt.rows_replaced, receipt.rows_unchanged) == (2, 1, 2)
        assert texts_in(kb)["2"] == "new"

    def test_a_change_in_any_field_is_noticed(self, kb, how):
        stay = {**FULL, "unique_id": "stays"}
        first = [{**FULL, "unique_id": f"doc:{number}"} for number in range(len(CHANGES))]
        run(Records([stay, *first]), kb)
        second = [{**item, **change} for item, change in zip(first, CHANGES, strict=True)]
        receipt = run(Records([*second, stay]), kb, **how)
        unnoticed = [
            change
            for item, change in zip(second, CHANGES, strict=True)
            if FrameDataset.open(str(kb)).get(item["unique_id"]) != FrameRecord(**item)
        ]
        assert unnoticed == []
        assert (receipt.rows_written, receipt.rows_unchanged) == (len(CHANGES), 1)


class TestWhatCounts:
    def test_neighbours_and_the_order_of_metadata_do_not_matter(self, kb):
        run(Records([{**FULL, "unique_id": "a"}, {"text_content": "b"}]), kb)
        turned = {**FULL, "metadata": dict(reversed(list(FULL["metadata"].items())))}
        items = [{**turned, "unique_id": "a"}, {"text_content": "c", "metadata": {"z": 1}}]
        assert run(Records(items), kb).rows_unchanged == 1

    def test_a_document_without_an_id_is_known_by_its_content(self, kb):
        run(Records([{"text_content": "a"}, {"text_content": "b"}]), kb)
        receipt = run(Records([{"text_content": "b"}, {"text_content": "c"}]), kb)
        assert (receipt.rows_written, receipt.rows_unchanged) == (1, 1)
        assert len(FrameDataset.open(str(kb))) == 3

    @pytest.mark.parametrize("mode", ["append", "overwrite"])
    def test_other_modes_write_everything(self, kb, mode):
        run(documents(1, 2), kb, mode=mode)
        receipt = run(documents(1, 2), kb, mode=mode)
        assert (receipt.rows_written, receipt.rows_unchanged) == (2, 0)

    def test_the_same_document_of_another_source_is_written(self, kb):
        run(documents(1, source="a"), kb)
        receipt = run(documents(1, source="b"), kb)
        assert (receipt.rows_written, receipt.rows_replaced, receipt.rows_unchanged) == (1, 1, 0)
        assert ids_in(kb) == ["1"]

    def test_a_document_that_was_edited_by_hand_is_restored(self, kb):
        run(documents(1, 2), kb)
        FrameDataset.open(str(kb)).add(document(1, "edited"))
        receipt = run(documents(1, 2), kb)
        assert (receipt.rows_written, receipt.rows_replaced, receipt.rows_unchanged) == (1, 1, 1)
        assert texts_in(kb) == {"1": "text of 1", "2": "text of 2"}

    def test_a_document_that_was_deleted_by_hand_is_restored(self, kb):
        run(documents(1, 2), kb)
        FrameDataset.open(str(kb)).delete("doc:1")
        receipt = run(documents(1, 2), kb)
        assert (receipt.rows_written, receipt.rows_replaced, receipt.rows_unchanged) == (1, 0, 1)
        assert ids_in(kb) == ["1", "2"]

    def test_what_was_stored_in_an_earlier_version_only_does_not_count(self, kb):
        run(documents(1), kb)
        run(documents({"id": 1, "text": "new"}), kb)
        run(documents(1), kb)
        assert texts_in(kb) == {"1": "text of 1"}

    def test_it_holds_after_compaction(self, kb):
        run(documents(1, 2), kb)
        run(documents(1, 3), kb)
        lance.dataset(str(kb)).optimize.compact_files()
        assert run(documents(1, 2, 3), kb).rows_unchanged == 3

    def test_too_many_stored_documents_are_written_again_instead(self, kb, monkeypatch):
        run(documents(1, 2, 3), kb)
        monkeypatch.setattr(unchanged, "MAX_DIGESTS", 2)
        monkeypatch.setattr(unchanged, "FEW_DIGESTS", 2)
        receipt = run(documents(1, 2, 3), kb)
        assert (receipt.rows_written, receipt.rows_replaced, receipt.rows_unchanged) == (3, 3, 0)


class TestMeanwhile:
    def test_rows_deleted_after_they_were_met_stay_deleted(self, kb):
        """As if they had been deleted just after the run."""
        started = begin(kb)
        commit_run(started, write(started, 1, 2))
        started = begin(kb, "run-2")
        written = write(started, 1, 2, 3)
        FrameDataset.open(str(kb)).delete("doc:1")
        assert commit_run(started, written).rows_unchanged == 2
        assert ids_in(kb) == ["2", "3"]

    def test_rows_that_another_run_of_the_source_replaced_are_not_relied_on(self, kb):
        started = begin(kb)
        commit_run(started, write(started, 1))
        slow = begin(kb, "slow")
        written = write(slow, 1)
        quick = begin(kb, "quick")
        commit_run(quick, write(quick, document(1, "new")))
        with pytest.raises(ConcurrentRunError, match="another run of documents was committed"):
            commit_run(slow, written)
        assert texts_in(kb) == {"1": "new"}

    def test_rows_that_another_source_replaced_are_not_relied_on(self, kb):
        """Else 1 would be the other source's and 2 this one's, which no order of them gives."""
        other = replace(SOURCE, source_id="fedcba9876543210", name="other")
        commit_run(started := begin(kb), write(started, 1, 2))
        slow = begin(kb, "slow")
        written = write(slow, 1, document(2, "mine"))
        quick = begin(kb, "quick")
        theirs = [document(1, "theirs"), document(2, "theirs")]
        commit_run(quick, write(quick, *theirs, source=other))
        with pytest.raises(ConcurrentRunError, match="replaced by others"):
            commit_run(slow, written)
        assert texts_in(kb) == {"1": "theirs", "2": "theirs"}

    def test_rows_that_another_source_deleted_are_not_relied_on(self, kb):
        """Else 1 would be gone and 2 this one's, which no order of them gives."""
        other = replace(SOURCE, source_id="fedcba9876543210", name="other")
        commit_run(started := begin(kb), write(started, 1, 2))
        slow = begin(kb, "slow")
        written = write(slow, 1, document(2, "mine"))
        quick = begin(kb, "quick")
        theirs = [Deletion("doc:1"), document(2, "theirs")]
        commit_run(quick, write(quick, *theirs, source=other))
        with pytest.raises(ConcurrentRunError, match="deleted by another run"):
            commit_run(slow, written)
        assert texts_in(kb) == {"2": "theirs"}

    def test_what_another_source_adds_does_not_matter(self, kb):
        other = replace(SOURCE, source_id="fedcba9876543210", name="other")
        commit_run(started := begin(kb), write(started, 1))
        slow = begin(kb, "slow")
        written = write(slow, 1, 2)
        quick = begin(kb, "quick")
        commit_run(quick, write(quick, 2, 3, source=other))
        lance.dataset(str(kb)).optimize.compact_files()
        assert commit_run(slow, written).rows_unchanged == 1
        assert ids_in(kb) == ["1", "2", "3"]


def digests(*values: int) -> pa.Array:
    return pa.array([value.to_bytes(16, "big") for value in values], pa.binary(16))


def digests_of(*records: FrameRecord) -> Numbers:
    rows, _ = encode_records(records, embed_dim=EMBED_DIM, source=SOURCE.source_id)
    return Numbers.of_digests(rows["x_digest"])


@pytest.fixture(params=["by a scan", "all of them loaded"])
def few(request, monkeypatch) -> None:
    """Both ways of finding digests."""
    if request.param != "by a scan":
        monkeypatch.setattr(unchanged, "FEW_DIGESTS", 0)


@pytest.mark.usefixtures("few")
class TestStoredRows:
    def test_rows_are_found_by_their_digests(self, kb):
        started = begin(kb)
        commit_run(started, write(started, *range(100)))
        dataset = lance.dataset(str(kb))
        stored = StoredRows(dataset, SOURCE.source_id)
        found = stored.find(digests_of(*map(document, (5, "new", 3, 5))))
        assert (found < 0).tolist() == [False, True, False, False]
        assert found[0] == found[3]
        addresses = RowNumbers(dataset).addresses(found[[0, 2]])
        keys = {
            int(at): key
            for batch, ats in scan_rows(dataset, ["uuid"])
            for at, key in zip(ats, batch["uuid"].to_pylist(), strict=True)
        }
        assert [keys[int(at)] for at in addresses] == [document(5).uuid, document(3).uuid]

    def test_other_sources_rows_and_those_of_other_programs_are_not(self, kb):
        rows, _ = encode_records([document("f")], embed_dim=EMBED_DIM)
        table = pa.Table.from_batches([rows]).select(list(FORMAT_COLUMNS))
        lance.write_dataset(table, str(kb))
        started = begin(kb)
        commit_run(started, write(started, 1))
        stored = StoredRows(lance.dataset(str(kb)), "another")
        assert stored.find(digests_of(document(1), document("f"))).tolist() == [-1, -1]
        nothing = Numbers.of_digests(digests(0))
        assert StoredRows(lance.dataset(str(kb)), SOURCE.source_id).find(nothing).tolist() == [-1]

    def test_rows_met_are_found_by_their_keys(self, kb):
        started = begin(kb)
        commit_run(started, write(started, *range(300)))
        lance.dataset(str(kb)).delete("uri LIKE '%7%'")
        dataset = lance.dataset(str(kb))
        stored = StoredRows(dataset, SOURCE.source_id)
        met = stored.find(digests_of(*map(document, (3, 255, 8))))
        seen = SeenRows(dataset, [pack(met[:1]), pack(met[1:]), pack(met[:1])])
        assert len(seen) == 3
        keys = KeySet.of([pa.array([document(number).uuid for number in (1, 255, 3, 700)])])
        assert sorted(seen.of_keys(keys, ["uri"])["uri"].to_pylist()) == ["doc:255", "doc:3"]


class TestPacking:
    @given(st.lists(st.lists(st.integers(0, 2**40))))
    def test_row_numbers_come_out_once_and_in_order(self, parts):
        packed = [pack(np.array(part, np.int64)) for part in parts]
        assert unpack(packed).tolist() == sorted({number for part in parts for number in part})

    def test_rows_met_one_after_another_take_next_to_nothing(self):
        assert len(pack(np.arange(1_000_000))) < 50_000
