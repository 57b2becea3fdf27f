"""Enrichers take one record, a batch of them, or make several of one."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import ConfigError, FrameRecord
from contextframe_beam.transforms.elements import FrameBatch
from contextframe_beam.transforms.encode import encode_batches
from contextframe_beam.transforms.enrich import checked_enrichers, enrich_batch, load_enrichers
from tests.support.pipeline_helpers import documents, run, texts_in


class Shout:
    def enrich(self, record: FrameRecord, source_item: Any) -> FrameRecord:
        record.text_content = (record.text_content or "").upper()
        return record


class Lengths:
    """Writes down how many records it was given at a time, and refuses what is bad."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def enrich_batch(
        self, records: Sequence[FrameRecord], source_items: Sequence[Any]
    ) -> Sequence[FrameRecord]:
        self.calls.append(len(records))
        assert len(source_items) == len(records)
        for record in records:
            if record.text_content == "bad":
                raise ValueError("a bad text")
            record.metadata = {"length": len(record.text_content or "")}
        return records


class Words:
    def expand(self, record: FrameRecord, source_item: Any) -> Iterable[FrameRecord]:
        yield record
        for number, word in enumerate((record.text_content or "").split()):
            yield FrameRecord(word, unique_id=f"{record.unique_id}/{number}")


def batch_of(*texts: str) -> FrameBatch:
    records = [FrameRecord(text, unique_id=str(n)) for n, text in enumerate(texts)]
    return FrameBatch(records, [{"text": text} for text in texts])


def texts(batch: FrameBatch) -> list[str | None]:
    return [record.text_content for record in batch.records]


def test_a_batch_enricher_is_called_once_a_batch():
    enricher = Lengths()
    batch = enrich_batch(batch_of("a", "bb", "ccc"), [enricher])
    assert enricher.calls == [3]
    assert [(record.metadata or {})["length"] for record in batch.records] == [1, 2, 3]


def test_one_record_that_a_batch_enricher_refuses_takes_no_other_with_it():
    enricher = Lengths()
    batch = enrich_batch(batch_of("a", "bad", "ccc"), [enricher])
    assert texts(batch) == ["a", "ccc"]
    [letter] = batch.failures
    assert (letter.stage, letter.item, letter.position) == ("enrich", {"text": "bad"}, "1")
    assert enricher.calls == [3, 1, 1, 1]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_batch_enricher_must_return_each_record(count):
    class Loses:
        def enrich_batch(self, records: Sequence[Any], source_items: Sequence[Any]) -> list[Any]:
            return [records[0]] * (count if len(records) == 2 else 0)

    batch = enrich_batch(batch_of("a", "b"), [Loses()])
    assert texts(batch) == []
    assert {letter.message for letter in batch.failures} == {
        "Loses.enrich_batch returned 0 for 1 records; it must return each"
    }


def test_an_expander_makes_several_records_of_one():
    batch = enrich_batch(batch_of("one two", "three"), [Words(), Shout()])
    assert texts(batch) == ["ONE TWO", "ONE", "TWO", "THREE", "THREE"]
    assert [item["text"] for item in batch.items] == ["one two"] * 3 + ["three"] * 2
    assert batch.documents == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ([], "returned no record; it must return one FrameRecord or more"),
        (["text"], "returned a str; it must return the FrameRecord"),
        (None, "object is not iterable"),
    ],
)
def test_an_expander_must_return_records(made, said):
    class Odd:
        def expand(self, record: FrameRecord, source_item: Any) -> Any:
            return made

    batch = enrich_batch(batch_of("a"), [Odd()])
    [letter] = batch.failures
    assert said in letter.message


def test_a_document_of_which_a_part_is_refused_is_refused_whole_and_once():
    class NoTwo:
        def enrich(self, record: FrameRecord, source_item: Any) -> FrameRecord:
            if record.text_content in {"two", "three"}:
                raise ValueError("no number above one")
            return record

    batch = enrich_batch(batch_of("zero", "one two three", "four"), [Words(), NoTwo()])
    assert texts(batch) == ["zero", "zero", "four", "four"]
    [letter] = batch.failures
    assert (letter.item, letter.position) == ({"text": "one two three"}, "1")


def test_a_document_of_which_a_part_cannot_be_stored_is_refused_whole_and_once():
    class Breaks:
        def enrich(self, record: FrameRecord, source_item: Any) -> FrameRecord:
            if record.text_content in {"one", "two"}:
                record.vector = [1.0, 2.0, 3.0]
            return record

    batch = enrich_batch(batch_of("zero", "one two"), [Words(), Breaks()])
    rows = encode_batches([batch], embed_dim=2)
    assert rows.rows["text_content"].to_pylist() == ["zero", "zero"]
    [letter] = rows.failures
    assert (letter.stage, letter.item, letter.position) == ("encode", {"text": "one two"}, "1")


def test_all_parts_are_stored(kb):
    run(documents({"id": "1", "text": "one two"}), kb, enrichers=[Words()])
    assert texts_in(kb) == {"1": "one two", "1/0": "one", "1/1": "two"}


def test_an_object_without_any_of_the_methods_is_refused():
    with pytest.raises(ConfigError, match=r"enrich_batch\(records, source_items\) or expand"):
        checked_enrichers([object()])


@pytest.mark.parametrize(
    "method", ["enrich_batch(self, records, items)", "expand(self, record, item)"]
)
def test_a_class_in_a_file_may_have_any_of_the_methods(tmp_path: Path, method):
    returned = "records" if "records" in method else "[record, record]"
    file = tmp_path / "own.py"
    file.write_text(f"class Own:\n    def {method}:\n        return {returned}\n")
    enrichers = pickle.loads(pickle.dumps(load_enrichers([f"{file}:Own"])))
    count = 1 if "records" in method else 2
    assert len(enrich_batch(batch_of("a"), enrichers).records) == count
