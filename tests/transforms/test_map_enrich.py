"""Items become records, records become better ones; what fails travels along as dead letters."""

from __future__ import annotations

import pickle
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, TimestampedValue
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.connectors import BaseConnector, DeadLetter, FieldMapper, Page
from contextframe_beam.connectors.page import SourceInfo, Tally
from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.record import Deletion
from contextframe_beam.transforms import Enrich, FrameBatch, KeywordEnricher, MapToFrames
from contextframe_beam.transforms.encode import encode_batches
from contextframe_beam.transforms.enrich import enrich_batch
from contextframe_beam.transforms.map import map_page, map_pages
from contextframe_beam.transforms.map_columns import columns_of
from tests.support.frame_strategies import records
from tests.support.pipeline_helpers import (
    EMBED_DIM,
    SOURCE,
    TWO_WORKERS,
    document,
    documents,
    finish,
    new_pipeline,
    run,
    sink,
    texts_in,
)

#: What a mapper does with an item, by the item itself.
ITEMS = st.lists(st.sampled_from(["good", "raises", "none", "dict", "exit"]))


def odd_mapper(item: str) -> Any:
    if item == "raises":
        raise KeyError("title")
    return {"good": FrameRecord(item), "none": None, "dict": {}, "exit": FrameRecord}[item]


#: Has no text and no id.
UNSTORABLE = FrameRecord("")


class Numbering:
    """Refuses some records and numbers the others."""

    def __init__(self, refused: set[str]) -> None:
        self.refused = refused

    def enrich(self, record: FrameRecord, source_item: Any) -> FrameRecord:
        record.metadata["item"] = source_item
        if source_item in self.refused:
            raise RuntimeError(f"not {source_item}")
        return record


RETURNED = "map_to_frame_record returned {}; it must return a FrameRecord"


class TestMapping:
    @given(items=ITEMS)
    def test_each_item_becomes_a_record_or_a_letter(self, items):
        batch = map_page(Page(items=list(items), partition="p", position="page 3"), odd_mapper)
        assert len(batch.records) == items.count("good")
        assert batch.items == ["good"] * items.count("good")
        bad = [(place, item) for place, item in enumerate(items) if item != "good"]
        assert [(letter.position, letter.item) for letter in batch.failures] == [
            (f"page 3[{place}]", item) for place, item in bad
        ]
        assert batch.tally.read == len(items)

    def test_a_page_keeps_what_the_commit_must_know(self):
        letter = DeadLetter.of("read", OSError("gone"), 1, "c", "p", "0")
        page = Page(
            items=["good"],
            partition="p",
            position="0",
            source=SOURCE,
            failures=[letter],
            state={"at": 1},
            planned=7,
            finished=1,
        )
        batch = enrich_batch(map_page(page, odd_mapper), [])
        assert batch.partition == "p"
        rows = encode_batches([batch], EMBED_DIM)
        for one in (batch, rows):
            assert one.tally.source == SOURCE
            assert one.tally.partitions == {"p": {"at": 1}}
            assert (one.tally.read, one.tally.planned, one.tally.finished) == (2, 7, 1)
            assert one.failures == [letter]
        assert page.failures == [letter]
        assert rows.rows["x_source"].to_pylist() == [SOURCE.source_id]

    @pytest.mark.parametrize(
        ("item", "message"),
        [
            ("raises", "'title'"),
            (
                "none",
                RETURNED.format("None"),
            ),
            (
                "dict",
                RETURNED.format("a dict"),
            ),
            (
                "exit",
                RETURNED.format("a type"),
            ),
        ],
    )
    def test_a_letter_says_what_went_wrong(self, item, message):
        info = SourceInfo("1", "json")
        (letter,) = map_page(Page(items=[item], partition="p", source=info), odd_mapper).failures
        assert (letter.stage, letter.connector, letter.message) == ("map", "json", message)

    def test_an_interrupt_is_not_an_item_that_failed(self):
        def interrupted(item: Any) -> Any:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            map_page(Page(items=[1]), interrupted)

    def test_a_mapper_may_be_any_object_with_a_map(self, kb):
        mapper = FieldMapper(text="body", title="name", id="key")
        pages = [Page(items=[{"body": "hello", "name": "Greeting", "key": "greeting:1"}])]
        pipeline = new_pipeline()
        batches = pipeline | beam.Create(pages) | MapToFrames(mapper)
        finish(pipeline, batches | sink(kb), kb)
        record = FrameDataset.open(str(kb)).get("greeting:1")
        assert (record.text_content, record.metadata["title"]) == ("hello", "Greeting")

    def test_small_pages_are_mapped_together_and_stay_batches_of_their_own(self):
        pages = [
            Page([{"id": f"{n}-{m}"} for m in range(60)], position=f"page {n}", source=SOURCE)
            for n in range(4)
        ]
        columns = columns_of(FieldMapper())
        assert columns is not None
        batches = list(map_pages(pages, FieldMapper().map, columns))
        assert all(batch.columns is not None for batch in batches)
        assert [(batch.position, batch.count) for batch in batches] == [
            (f"page {n}", 60) for n in range(4)
        ]

    def test_pages_in_windows_are_mapped_there(self):
        def second_of(batch: FrameBatch, window: Any = beam.DoFn.WindowParam) -> tuple[str, int]:
            return batch.position, int(window.start)

        with new_pipeline() as pipeline:
            batches = (
                pipeline
                | beam.Create([1, 2, 3])
                | beam.Map(lambda n: TimestampedValue(Page([{"id": n}], position=str(n)), n))
                | beam.WindowInto(FixedWindows(1))
                | MapToFrames(FieldMapper())
                | beam.Map(second_of)
            )
            assert_that(batches, equal_to([("1", 1), ("2", 2), ("3", 3)]))

    def test_each_row_of_a_table_is_an_item(self):
        table = pa.table({"id": ["1", "2"], "n": [1, None]})
        page = Page(table=table, partition="p", position="file 1, row")
        batch = map_page(page, lambda item: FrameRecord(unique_id=item["id"] if item["n"] else 1))
        assert batch.items[:1] == [{"id": "1", "n": 1}]
        assert batch.tally.read == page.count == 2

    def test_a_page_travels_with_the_rows_of_its_table_alone(self):
        table = pa.table({"text": ["x" * 1000] * 1000})[7:9]
        packed = pickle.dumps(Page(table=table, partition="p", finished=1))
        assert pickle.loads(packed) == Page(table=table, partition="p", finished=1)
        assert len(packed) < 10_000
        assert pickle.loads(pickle.dumps(Page(["item"]))) == Page(["item"])

    def test_what_cannot_map_is_refused_before_anything_is_read(self):
        with pytest.raises(ConfigError, match="has neither map_to_frame_record"):
            MapToFrames(object())

    def test_a_connector_maps_with_what_it_prepared_when_it_authenticated(self, kb):
        run(NeedsSession(), kb, **TWO_WORKERS)
        assert texts_in(kb) == {"1": "mapped in a session"}


class NeedsSession(BaseConnector):
    """Cannot map before it has authenticated."""

    def authenticate(self) -> bool:
        self.session = "a session"
        self.authenticated = True
        return True

    def sync_documents(self) -> list[dict[str, Any]]:
        return [{"id": 1}]

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return document(item["id"], f"mapped in {self.session}")


class TestEnriching:
    @given(
        items=st.lists(st.sampled_from("abc")),
        first=st.sets(st.sampled_from("abc")),
        second=st.sets(st.sampled_from("abc")),
    )
    def test_each_record_passes_all_enrichers_or_becomes_a_letter(self, items, first, second):
        batch = FrameBatch([document(item) for item in items], list(items), position="page 1")
        batch = enrich_batch(batch, [Numbering(first), Numbering(second)])
        bad = first | second
        good = [item for item in items if item not in bad]
        assert batch.items == good
        assert [record.metadata["item"] for record in batch.records] == good
        assert [(letter.stage, letter.item, letter.position) for letter in batch.failures] == [
            ("enrich", item, f"page 1[{place}]") for place, item in enumerate(items) if item in bad
        ]

    def test_they_work_in_order_and_may_replace_the_record(self, kb):
        run(documents(1), kb, enrichers=[Suffix("a"), Suffix("b")])
        assert texts_in(kb) == {"1": "text of 1ab"}

    def test_a_record_without_an_item_can_be_enriched(self):
        batch = FrameBatch([document(1)], [None])
        assert enrich_batch(batch, [Suffix("!")]).records[0].text_content == "text of 1!"

    def test_what_is_no_enricher_is_refused_before_anything_is_read(self):
        with pytest.raises(
            ConfigError, match=r"'keywords' is not an enricher: it has no method enrich"
        ):
            Enrich(["keywords"])
        with pytest.raises(ConfigError, match="KeywordEnricher is a class; give an object of it"):
            Enrich([KeywordEnricher])


class Suffix:
    """Adds to the text."""

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix

    def enrich(self, record: FrameRecord, source_item: Any) -> FrameRecord:
        return FrameRecord(f"{record.text_content}{self.suffix}", unique_id=record.unique_id)


class TestKeywords:
    def keywords(self, text: str | None, **options: Any) -> list[str]:
        record = KeywordEnricher(**options).enrich(FrameRecord(text, unique_id="a"), None)
        return record.context["keywords"]

    def test_the_most_frequent_words_come_first_then_those_of_the_text(self):
        assert self.keywords("B a, b! c A b d") == ["b", "a", "c", "d"]
        assert self.keywords("one two three", limit=2) == ["one", "two"]

    def test_short_words_and_stop_words_do_not_count(self):
        text = "the cat and The dog"
        assert self.keywords(text, stop_words=["THE", "and"]) == ["cat", "dog"]
        assert self.keywords("a bb ccc", min_length=2) == ["bb", "ccc"]

    @pytest.mark.parametrize("text", [None, "", " -- "])
    def test_a_text_without_words_has_none(self, text):
        assert self.keywords(text) == []

    def test_other_context_stays(self):
        record = FrameRecord("word", context={"language": "en", "keywords": ["old"]})
        assert KeywordEnricher().enrich(record, None).context == {
            "language": "en",
            "keywords": ["word"],
        }

    def test_they_are_stored(self, kb):
        run(documents({"id": 1, "text": "beam beam lance"}), kb, enrichers=[KeywordEnricher()])
        record = FrameDataset.open(str(kb)).get("doc:1")
        assert record.context == {"keywords": ["beam", "lance"]}


class TestEncoding:
    @given(pages=st.lists(st.lists(records() | st.just(UNSTORABLE), max_size=3), min_size=1))
    def test_batches_encoded_together_are_what_each_is_by_itself(self, pages):
        def batches() -> list[FrameBatch]:
            return [
                FrameBatch(list(page), list(range(len(page))), f"p{number}", tally=Tally(SOURCE))
                for number, page in enumerate(pages)
            ]

        together = encode_batches(batches(), EMBED_DIM)
        alone = [encode_batches([batch], EMBED_DIM) for batch in batches()]
        assert pa.Table.from_batches([together.rows]) == pa.Table.from_batches(
            [one.rows for one in alone]
        )
        assert [(letter.partition, letter.item) for letter in together.failures] == [
            (f"p{number}", place)
            for number, page in enumerate(pages)
            for place, one in enumerate(page)
            if one is UNSTORABLE
        ]

    def test_what_batches_tell_the_commit_is_added_up(self):
        deletion = Deletion(unique_id="doc:1")
        rows = encode_batches(
            [
                FrameBatch([], [], tally=Tally(read=2, planned=7, partitions={"p1": {"at": 1}})),
                FrameBatch(
                    [],
                    [],
                    deletions=[(deletion, None)],
                    tally=Tally(read=3, finished=1, narrowed={"cut short"}),
                ),
                FrameBatch([], [], tally=Tally(finished=2, partitions={"p3": {"at": 3}})),
            ],
            EMBED_DIM,
        )
        assert rows.tally == Tally(
            read=5,
            planned=7,
            finished=3,
            partitions={"p1": {"at": 1}, "p3": {"at": 3}},
            narrowed={"cut short"},
        )
        assert rows.deletions == [deletion]


@pytest.mark.parametrize(
    ("text", "keywords"),
    [
        ("The pipeline and the dataset are in the lake of the pipeline", ["pipeline", "dataset"]),
        ("Die Daten und die Leitung sind in dem See mit den Daten", ["daten", "leitung"]),
        ("Les données et la chaîne sont dans le lac avec les données", ["données", "chaîne"]),
        ("alpha beta gamma alpha 4711", ["alpha", "beta"]),
        ("", []),
    ],
)
def test_keywords_leave_out_the_common_words_of_the_language(text, keywords):
    record = KeywordEnricher(limit=2).enrich(FrameRecord(text, unique_id="a"), None)
    assert record.context == {"keywords": keywords}


def test_keywords_may_keep_common_words():
    record = KeywordEnricher(stop_words=()).enrich(FrameRecord("of the of", unique_id="a"), None)
    assert record.context == {"keywords": ["of", "the"]}
