"""WriteToLance: what each mode does, whoever writes, and what it refuses before it reads."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import apache_beam as beam
import lance
import pyarrow as pa
import pytest

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.connectors.page import SourceInfo, Tally
from contextframe_beam.errors import ConfigError, DatasetError, SchemaError
from contextframe_beam.frames.encode import encode_records
from contextframe_beam.frames.schema import FORMAT_COLUMNS
from contextframe_beam.transforms import CommitReceipt, MapToFrames, ToRecords, WriteToLance
from contextframe_beam.transforms.elements import FrameBatch, RowBatch
from contextframe_beam.transforms.encode import _EncodeDoFn, encode_batches
from tests.support.pipeline_helpers import (
    EACH_BUNDLE_TWICE,
    EMBED_DIM,
    EVERY_WAY,
    IN_ONE_PROCESS,
    Documents,
    PlainDocuments,
    begin,
    document,
    documents,
    finish,
    ids_in,
    new_pipeline,
    run,
    sink,
    texts_in,
)


def write_records(to: Path, records: list[FrameRecord], **options: Any) -> CommitReceipt:
    pipeline = new_pipeline()
    return finish(pipeline, pipeline | beam.Create(records) | sink(to, **options), to)


def foreign_dataset(to: Path, records: list[FrameRecord], **options: Any) -> lance.LanceDataset:
    """Writes a dataset of the format's 27 columns, as another program does."""
    rows, errors = encode_records(records, embed_dim=EMBED_DIM)
    assert not errors
    table = pa.Table.from_batches([rows]).select(list(FORMAT_COLUMNS))
    return lance.write_dataset(table, str(to), **options)


def batch_of(records: list[FrameRecord], source: SourceInfo | None = None) -> FrameBatch:
    return FrameBatch(records, records, tally=Tally(source, read=len(records)))


class TestModes:
    @IN_ONE_PROCESS
    def test_create_makes_a_dataset_of_all_documents(self, kb, how):
        receipt = run(documents(*range(9)), kb, mode="create", **how)
        assert ids_in(kb) == [str(number) for number in range(9)]
        assert (receipt.mode, receipt.version, receipt.rows_written) == ("create", 1, 9)

    @IN_ONE_PROCESS
    def test_append_adds_without_looking_at_keys(self, kb, how):
        run(documents(1, 2), kb, mode="append", **how)
        receipt = run(documents(2, 3), kb, mode="append", **how)
        assert ids_in(kb) == ["1", "2", "2", "3"]
        assert (receipt.rows_written, receipt.rows_replaced, receipt.rows_deleted) == (2, 0, 0)

    @EVERY_WAY
    def test_upsert_replaces_rows_of_the_same_key(self, kb, how):
        run(documents(1, 2, 3), kb)
        receipt = run(documents({"id": 2, "text": "new"}, 4), kb, **how)
        assert texts_in(kb) == {
            "1": "text of 1",
            "2": "new",
            "3": "text of 3",
            "4": "text of 4",
        }
        assert (receipt.rows_written, receipt.rows_replaced, receipt.rows_deleted) == (2, 1, 0)

    @EVERY_WAY
    def test_overwrite_leaves_only_what_the_run_wrote(self, kb, how):
        run(documents(1, 2, 3), kb)
        receipt = run(documents(3, 4), kb, mode="overwrite", **how)
        assert ids_in(kb) == ["3", "4"]
        assert (receipt.rows_written, receipt.rows_replaced, receipt.rows_deleted) == (2, 1, 2)

    @IN_ONE_PROCESS
    def test_one_run_is_one_version(self, kb, how):
        run(documents(*range(20)), kb, **how)
        receipt = run(documents(*range(10, 30)), kb, **how)
        versions = FrameDataset.open(str(kb)).history()
        assert [version.run_id for version in versions][1:] == [receipt.run_id]
        assert [version.version for version in versions] == [1, 2]

    @EVERY_WAY
    def test_a_source_without_items_makes_a_dataset_without_documents(self, kb, how):
        receipt = run(documents(), kb, **how)
        assert ids_in(kb) == []
        assert (receipt.rows_written, receipt.fragments, receipt.bytes) == (0, 0, 0)
        assert run(documents(1), kb).rows_written == 1
        assert ids_in(kb) == ["1"]

    @EVERY_WAY
    def test_two_sources_share_a_dataset(self, kb, how):
        run([documents(1, 2, source="a"), documents(2, 3, source="b")], kb, **how)
        assert ids_in(kb) == ["1", "2", "3"]
        states = FrameDataset.open(str(kb)).states()
        assert sorted(state.identity["arguments"]["source"] for state in states) == ["a", "b"]
        run(documents(3, 4, source="c"), kb)
        assert ids_in(kb) == ["1", "2", "3", "4"]
        assert len(FrameDataset.open(str(kb)).states()) == 3


class TestReceipts:
    @EVERY_WAY
    def test_a_receipt_counts_what_is_in_the_dataset(self, kb, how):
        run(documents(1, 2, 3), kb)
        before = {fragment.fragment_id for fragment in lance.dataset(str(kb)).get_fragments()}
        receipt = run(
            documents(
                1,
                {"id": 2, "text": "new"},
                {"id": 4, "at": "2026-01-01"},
                {"id": 4, "at": "2026-01-02"},
                {"id": 5, "error": "cannot be mapped"},
            ),
            kb,
            run_id="second",
            **how,
        )
        dataset = lance.dataset(str(kb))
        new = [
            fragment
            for fragment in dataset.get_fragments()
            if fragment.fragment_id not in before and fragment.count_rows(filter="x_state IS NULL")
        ]
        assert receipt == CommitReceipt(
            version=dataset.version,
            run_id="second",
            mode="upsert",
            rows_written=2,
            rows_replaced=1,
            rows_unchanged=1,
            rows_dropped=1,
            failed=1,
            fragments=len(new),
            bytes=sum(
                (kb / "data" / file.path).stat().st_size
                for fragment in new
                for file in fragment.data_files()
            ),
            already_committed=how is EACH_BUNDLE_TWICE,
            reasons=receipt.reasons,
            at=receipt.at,
            start=receipt.start,
        )
        (reason,) = receipt.reasons
        assert (reason.error, reason.count) == ("ValueError", 1)
        assert reason.message.startswith("cannot be mapped, at pipeline_helpers.py, line ")
        assert reason.place.endswith("an item with id, error")

    @IN_ONE_PROCESS
    def test_the_history_tells_the_same(self, kb, how):
        receipt = run(documents(1, 2, 3), kb, **how)
        (version,) = FrameDataset.open(str(kb)).history()
        assert (version.run_id, version.mode) == (receipt.run_id, "upsert")
        assert version.counts["written"] == 3

    @EVERY_WAY
    def test_the_counters_of_the_run_tell_the_same(self, kb, how):
        run(documents(1, 2, 3), kb)
        counters: dict[str, int] = {}
        receipt = run(documents(1, 2, 4, {"id": 5, "error": "no"}), kb, counters=counters, **how)
        expected = {
            "pages": 4,
            "items": 4,
            "failures": 1,
            "rows": 1,
            "rows_unchanged": 2,
            "bytes_written": receipt.bytes,
        }
        assert {name: counters.get(name) for name in expected} == expected


class TestElements:
    def test_records_can_be_written_without_a_connector(self, kb):
        receipt = write_records(kb, [document(number) for number in range(2500)])
        assert receipt.rows_written == len(ids_in(kb)) == 2500

    def test_records_without_a_connector_keep_a_state_too(self, kb):
        write_records(kb, [document(1)], run_id="once")
        assert write_records(kb, [document(1)], run_id="once").already_committed
        (state,) = FrameDataset.open(str(kb)).states()
        assert [one.run_id for one in state.runs] == ["once"]

    def test_batches_can_be_turned_into_records(self, kb):
        pipeline = new_pipeline()
        connector = documents(1, 2, {"id": 3, "error": "no"})
        pages = [connector.fetch_page(part, 0) for part in connector.partitions()]
        records = pipeline | beam.Create(pages) | MapToFrames(connector) | ToRecords()
        upper = records | beam.Map(_upper_case).with_output_types(FrameRecord)
        finish(pipeline, upper | sink(kb), kb)
        assert texts_in(kb) == {"1": "TEXT OF 1", "2": "TEXT OF 2"}

    def test_nothing_at_all_makes_a_dataset_without_documents(self, kb):
        assert write_records(kb, []).rows_written == 0
        assert len(FrameDataset.open(str(kb))) == 0

    def test_windows_of_the_input_make_no_difference(self, kb):
        pipeline = new_pipeline()
        records = (
            pipeline
            | beam.Create([document(1), document(2)])
            | beam.Map(_at_its_number)
            | beam.WindowInto(beam.window.FixedWindows(1))
        )
        assert finish(pipeline, records | sink(kb), kb).rows_written == 2
        assert ids_in(kb) == ["1", "2"]

    def test_batches_of_several_sources_and_single_records_meet_in_one_run(self, kb):
        sources = [SourceInfo("s1", "one"), SourceInfo("s2", "two"), None]
        elements = [
            document(number) if info is None else batch_of([document(number)], info)
            for number, info in enumerate(sources * 4)
        ]
        pipeline = new_pipeline()
        receipt = finish(pipeline, pipeline | beam.Create(elements) | sink(kb), kb)
        assert receipt.rows_written == 12
        rows = lance.dataset(str(kb)).to_table(filter="record_type = 'document'").to_pylist()
        found = {row["uri"].removeprefix("doc:"): row["x_source"] for row in rows}
        assert found == {str(number): ("s1", "s2", None)[number % 3] for number in range(12)}

    def test_what_is_no_record_fails_instead_of_vanishing(self, kb, tmp_path):
        letters = tmp_path / "letters.jsonl"
        pipeline = new_pipeline()
        elements = pipeline | beam.Create([document(1), {"text": "two"}, None])
        receipt = finish(pipeline, elements | sink(kb, dead_letters=str(letters)), kb)
        assert (receipt.rows_written, receipt.failed) == (1, 2)
        found = [json.loads(line) for line in letters.read_text().splitlines()]
        assert [(one["item"], one["message"]) for one in found] == [
            ({"text": "two"}, "the record is a dict; expected a FrameRecord"),
            (None, "the record is None; expected a FrameRecord"),
        ]

    @pytest.mark.parametrize(
        ("each", "held"),
        [
            pytest.param(batch_of([document(1)]), 8, id="a record each"),
            pytest.param(batch_of([document(1, "x" * (1 << 20))]), 4, id="much text each"),
            pytest.param(
                batch_of([document(1, raw_data=bytes(1 << 20))]), 4, id="much raw data each"
            ),
            pytest.param(batch_of([document(1)] * 256), 4, id="many records each"),
            pytest.param(batch_of([document(1)] * 1024), 1, id="enough records each"),
        ],
    )
    def test_few_batches_wait_to_be_encoded_together(self, kb, each, held):
        encoder = _EncodeDoFn(begin(kb))
        encoder.start_bundle()
        *waiting, (together,) = [list(encoder.process(each)) for _ in range(held)]
        assert waiting == [[]] * (held - 1)
        assert together.rows.num_rows == held * len(each.records)
        assert list(encoder.finish_bundle()) == []

    def test_few_large_records_wait_to_be_encoded_together(self, kb):
        encoder = _EncodeDoFn(begin(kb))
        encoder.start_bundle()
        record = document(1, "x" * (1 << 20), raw_data=bytes(1 << 20))
        (first, (together,)) = [list(encoder.process(record)) for _ in range(2)]
        assert (first, together.rows.num_rows) == ([], 2)

    def test_a_batch_of_rows_pickles_without_what_it_was_cut_from(self):
        rows = encode_batches([FrameBatch([document(n, "x" * 1000) for n in range(500)], [])], 1536)
        one = RowBatch(rows.rows.slice(7, 1), tally=Tally(read=1, partitions={"p": {"at": 1}}))
        pickled = pickle.dumps(one)
        assert len(pickled) < 12_000
        assert pickle.loads(pickled) == one

    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_a_batch_of_rows_pickles_whatever_it_holds(self, count):
        records = [
            document(number, vector=[1, 2, 3, number] if number else None, raw_data=b"\0")
            for number in range(count)
        ]
        rows = encode_batches([FrameBatch(records, records)], EMBED_DIM)
        assert pickle.loads(pickle.dumps(rows)) == rows


def _upper_case(record: FrameRecord) -> FrameRecord:
    record.text_content = str(record.text_content).upper()
    return record


def _at_its_number(record: FrameRecord) -> Any:
    return beam.window.TimestampedValue(record, int(str(record.unique_id)[-1]))


class TestExistingDatasets:
    def test_vectors_of_another_length_are_refused_before_anything_is_read(self, kb):
        run(documents(1), kb)
        with pytest.raises(SchemaError, match="for vectors of 4 values, and the run asks for 8"):
            sink(kb, embed_dim=8)
        assert sink(kb, embed_dim=4) and sink(kb)

    def test_the_length_of_an_existing_dataset_need_not_be_told(self, kb):
        run(documents(1), kb)
        run(documents({"id": 2, "vector": [1.0, 2.0, 3.0, 4.0]}), kb)
        assert list(FrameDataset.open(str(kb)).get("doc:2").vector) == [1, 2, 3, 4]

    def test_overwriting_may_change_the_length_of_vectors(self, kb):
        run(documents({"id": 1, "vector": [1.0] * 4}), kb)
        run(
            documents({"id": 2, "vector": [1.0] * 8}),
            kb,
            mode="overwrite",
            embed_dim=8,
            max_deletes="100%",
        )
        assert FrameDataset.open(str(kb)).embed_dim == 8
        assert len(FrameDataset.open(str(kb)).get("doc:2").vector) == 8

    @pytest.mark.parametrize("storage_version", ["2.0", "2.1", "2.2"])
    def test_a_dataset_keeps_its_file_format_in_every_mode(self, kb, storage_version):
        write_records(kb, [document(1, raw_data=b"one")], storage_version=storage_version)
        other = "2.1" if storage_version != "2.1" else "2.2"
        for number, mode in enumerate(("append", "upsert", "overwrite", "upsert"), 2):
            new = document(number, raw_data=b"x" * 100_000)
            write_records(kb, [new], mode=mode, storage_version=other)
            dataset = FrameDataset.open(str(kb))
            assert dataset.lance.data_storage_version == storage_version
            assert dataset.get(f"doc:{number}") == new
        assert ids_in(kb) == ["4", "5"]

    @pytest.mark.sample
    @pytest.mark.parametrize("mode", ["append", "upsert", "overwrite"])
    @pytest.mark.parametrize(
        "options",
        [
            {"data_storage_version": "2.0"},
            {"data_storage_version": "2.1"},
            {"data_storage_version": "2.2"},
            {"enable_stable_row_ids": True},
        ],
        ids=str,
    )
    def test_a_dataset_of_another_program_is_adopted(self, kb, mode, options):
        foreign_dataset(kb, [document(1), document(2, "old", raw_data=b"raw")], **options)
        receipt = write_records(kb, [document(2, "new"), document(3)], mode=mode)
        expected = {
            "append": ["1", "2", "2", "3"],
            "upsert": ["1", "2", "3"],
            "overwrite": ["2", "3"],
        }
        assert ids_in(kb) == expected[mode]
        assert receipt.rows_replaced == (0 if mode == "append" else 1)
        assert receipt.rows_deleted == (1 if mode == "overwrite" else 0)
        if mode == "upsert":
            assert texts_in(kb) == {"1": "text of 1", "2": "new", "3": "text of 3"}
        assert write_records(kb, [document(3, "newer")]).rows_replaced == 1
        assert texts_in(kb)["3"] == "newer"

    def test_extra_columns_of_another_program_stay(self, kb):
        foreign_dataset(kb, [document(1)]).add_columns({"x_language": "lower(title)"})
        write_records(kb, [document(2)])
        table = lance.dataset(str(kb)).to_table(["uri", "x_language"], filter="x_state IS NULL")
        assert table.to_pydict() == {"uri": ["doc:1", "doc:2"], "x_language": ["text of 1", None]}

    def test_another_kind_of_dataset_is_refused_before_anything_is_read(self, kb):
        lance.write_dataset(pa.table({"name": ["a"]}), str(kb))
        for mode in ("append", "upsert", "overwrite"):
            with pytest.raises(SchemaError, match=r"kb\.lance: this is not a dataset of frames"):
                WriteToLance(str(kb), mode=mode)
        assert lance.dataset(str(kb)).version == 1

    def test_create_refuses_a_dataset_that_is_there(self, kb):
        run(documents(1), kb)
        with pytest.raises(DatasetError, match=r"kb\.lance exists already; choose the mode upsert"):
            WriteToLance(str(kb), mode="create")


class TestArguments:
    def test_an_unknown_mode_is_refused(self, kb):
        with pytest.raises(ConfigError, match="'merge'; choose one of create, append, overwrite"):
            WriteToLance(str(kb), mode="merge")

    def test_an_unknown_storage_version_is_refused(self, kb):
        with pytest.raises(ConfigError, match=r"3\.0 is unknown; choose one of 2\.0, 2\.1, 2\.2"):
            WriteToLance(str(kb), storage_version="3.0")

    @pytest.mark.parametrize("embed_dim", [0, -1])
    def test_a_length_that_no_vector_has_is_refused(self, kb, embed_dim):
        with pytest.raises(SchemaError, match=f"embed_dim is {embed_dim}"):
            WriteToLance(str(kb), embed_dim=embed_dim)

    def test_a_folder_may_be_given_as_a_path(self, kb):
        pipeline = new_pipeline()
        records = pipeline | beam.Create([document(1)])
        finish(pipeline, records | WriteToLance(kb, embed_dim=EMBED_DIM), kb)
        assert ids_in(kb) == ["1"]

    def test_each_run_has_an_id(self, kb):
        assert sink(kb).run_id != sink(kb).run_id
        assert sink(kb, run_id="mine").run_id == "mine"

    def test_beginning_a_run_leaves_no_dataset(self, kb):
        begin(kb)
        assert not kb.exists()


def test_a_connector_that_does_nothing_special_is_enough(kb):
    run(PlainDocuments([{"id": 1}, {"id": 2}]), kb)
    run(PlainDocuments([{"id": 2, "text": "new"}]), kb)
    assert texts_in(kb) == {"1": "text of 1", "2": "new"}


def test_documents_keep_all_they_have(kb):
    items = [{"id": 1, "metadata": {"tags": ["a"], "nested": {"deep": [1, None]}}, "at": "2026-01"}]
    run(Documents({"all": [items]}), kb)
    record = FrameDataset.open(str(kb)).get("doc:1")
    assert record.metadata == items[0]["metadata"]
    assert record.timestamp == "2026-01"
