"""Who may read a document: stored with it and its chunks, and kept as the source says it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.connectors import BaseConnector
from contextframe_beam.connectors.page import DocumentVersion, Tally
from contextframe_beam.errors import ConfigError, RecordError
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.store.state import DOCUMENTS
from contextframe_beam.transforms import WriteToLance
from contextframe_beam.transforms.readers import mark_of, marks_of, readers_told
from tests.support.laws import examples

ANA, BEN, ENG = "user:ana@example.com", "user:ben@example.com", "group:eng@example.com"
SECTIONS = (
    "# Rivers\n\nThe Danube is long, and it goes through ten countries on its way to the sea.\n\n"
    "# Lakes\n\nThe Balaton is shallow: its water is warm in summer, and freezes in winter.\n"
)


class Shares(BaseConnector):
    """Gives the documents of a file: their id, version, text and readers.

    Args:
        file: The file; beside it, `fetched` lists what was mapped.
        versioned: Whether versions are told before documents are mapped.
    """

    identity_args = ("file",)

    def __init__(self, file: str, versioned: bool = True) -> None:
        super().__init__()
        self.file = file
        self.versioned = versioned

    def sync_documents(self) -> list[dict[str, Any]]:
        return json.loads(Path(self.file).read_text())

    def document_version(self, item: dict[str, Any]) -> DocumentVersion | None:
        if not self.versioned:
            return None
        version = str(item.get("version", 1))
        collection = item.get("collection")
        return DocumentVersion(
            f"doc:{item['id']}", version, readers=item["readers"], collection=collection
        )

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        with open(f"{self.file}.fetched", "a") as file:
            file.write(f"{item['id']}\n")
        if item.get("broken"):
            raise ValueError("it cannot be mapped")
        return FrameRecord(
            item.get("text", SECTIONS),
            {"pages": 3, **({"collection": item["collection"]} if "collection" in item else {})},
            unique_id=f"doc:{item['id']}",
            raw_data=b"bytes",
            raw_data_type="text/plain",
            readers=item["readers"],
        )


class Source:
    """A file of documents and the dataset that it goes into."""

    def __init__(self, folder: Path, versioned: bool = True) -> None:
        folder.mkdir(exist_ok=True)
        self.file = folder / "shares.json"
        self.to = str(folder / "kb.lance")
        self.versioned = versioned

    def run(self, *items: dict[str, Any], **how: Any) -> Any:
        """Runs with these documents; `fetched` are those that were mapped."""
        self.file.write_text(json.dumps(items))
        note = Path(f"{self.file}.fetched")
        note.unlink(missing_ok=True)
        settings = {"chunk": "markdown", "chunk_tokens": 16, "embed": "hash", "mode": "mirror"}
        receipt = ingest(Shares(str(self.file), self.versioned), self.to, **{**settings, **how})
        self.fetched = note.read_text().split() if note.exists() else []
        return receipt

    def search(self, text: str, *readers: str) -> set[str]:
        """Returns which documents somebody finds."""
        found = FrameDataset.open(self.to).search(text, readers=readers, hybrid=True)
        return {str(one.unique_id).partition("#")[0].removeprefix("doc:") for one in found}

    def rows(self) -> list[dict[str, Any]]:
        """Returns all rows, without where they lie."""
        rows = FrameDataset.open(self.to).lance.to_table(
            filter=DOCUMENTS, blob_handling="all_binary"
        )
        return sorted(rows.to_pylist(), key=lambda row: str(row["uuid"]))


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "shared")


def document(name: str, *readers: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "readers": list(readers), **fields}


def test_a_share_that_was_taken_away_hides_the_document_from_who_lost_it(source):
    source.run(document("plan", ANA, BEN), document("menu", ANA))
    assert source.search("Danube", BEN) == {"plan"}
    receipt = source.run(document("plan", ANA), document("menu", ANA))
    assert source.search("Danube", BEN) == set()
    assert source.search("Danube", ANA) == {"plan", "menu"}
    assert source.fetched == []
    assert (receipt.readers_changed, receipt.rows_unchanged, receipt.rows_written) == (1, 2, 0)
    assert (receipt.texts_embedded, receipt.texts_reused, receipt.chunks) == (0, 0, 0)


def test_rows_with_new_readers_are_those_of_a_run_that_reads_all(source, tmp_path):
    source.run(document("plan", ANA), document("menu", ANA))
    source.run(document("plan", ENG), document("menu", ANA))
    fresh = Source(tmp_path / "shared")
    fresh.to = str(tmp_path / "fresh.lance")
    fresh.run(document("plan", ENG), document("menu", ANA))
    assert source.rows() == fresh.rows()
    again = source.run(document("plan", ENG), document("menu", ANA), full=True)
    assert (again.rows_unchanged, again.rows_written, again.readers_changed) == (2, 0, 0)


def test_own_fields_vectors_and_bytes_stay_as_they_were(source):
    source.run(document("plan", ANA), columns={"pages": "int64"})
    before = source.rows()
    source.run(document("plan", BEN), columns={"pages": "int64"})
    changing = {"x_readers", "x_digest", "x_origin"}
    kept = [{k: v for k, v in row.items() if k not in changing} for row in source.rows()]
    assert kept == [{k: v for k, v in row.items() if k not in changing} for row in before]
    assert {tuple(row["x_readers"]) for row in source.rows()} == {(BEN,)}
    assert {row["x_f_pages"] for row in before if row["x_parent"] is None} == {3}


def test_what_is_not_known_is_found_by_nobody_who_says_who_asks(source):
    source.run({"id": "plan", "readers": None}, document("menu", "anyone"))
    assert source.search("Danube", ANA) == {"menu"}
    assert len(FrameDataset.open(source.to).search("Danube")) == 2


def test_readers_that_nobody_knows_any_more_become_unknown(source):
    source.run(document("plan", ANA))
    source.run({"id": "plan", "readers": None})
    assert source.search("Danube", ANA) == set()


def test_without_versions_a_new_share_is_all_that_is_made_anew(tmp_path):
    source = Source(tmp_path / "plain", versioned=False)
    source.run(document("plan", ANA), document("menu", ANA))
    receipt = source.run(document("plan", ANA, BEN), document("menu", ANA))
    assert (receipt.readers_changed, receipt.rows_unchanged, receipt.rows_written) == (1, 2, 0)
    assert (receipt.texts_embedded, receipt.texts_reused) == (0, 0)
    assert source.search("Danube", BEN) == {"plan"}


def test_a_document_that_failed_keeps_its_text_and_loses_its_readers(source):
    source.run(document("plan", ANA, BEN), document("menu", ENG))
    failing = document("plan", ANA, version=2, broken=True)
    receipt = source.run(failing, document("menu", ENG), max_failures="60%")
    assert (receipt.failed, receipt.stale, receipt.readers_changed) == (1, 1, 1)
    assert source.search("Danube", BEN) == set()
    assert source.search("Danube", ANA) == {"plan"}


def test_a_document_that_failed_is_shown_to_nobody_new(source):
    source.run(document("plan", ANA), document("menu", ENG))
    failing = document("plan", BEN, ANA, version=2, broken=True)
    receipt = source.run(failing, document("menu", ENG), max_failures="60%")
    assert (receipt.stale, receipt.readers_changed) == (1, 0)
    assert source.search("Danube", BEN) == set()
    source.run(document("plan", BEN, ANA, version=2), document("menu", ENG))
    assert source.search("Danube", BEN) == {"plan"}


def test_a_document_that_changes_gets_its_readers_with_its_text(source):
    source.run(document("plan", ANA))
    receipt = source.run(document("plan", BEN, version=2, text="# Seas\n\nThe Aral is small."))
    assert (receipt.rows_replaced, receipt.readers_changed) == (1, 0)
    assert (source.search("Aral", BEN), source.search("Aral", ANA)) == ({"plan"}, set())


def test_all_states_of_a_document_that_were_appended_get_its_readers(source):
    source.run(document("plan", ANA), mode="append")
    source.run(document("plan", ANA, version=2, text=f"{SECTIONS}!"), mode="append")
    source.run(document("plan", BEN, version=2, text=f"{SECTIONS}!"), mode="append")
    rows = source.rows()
    states = {row["x_digest"] for row in rows if row["x_parent"] is None}
    assert len(states) == 2
    assert {row["x_origin"] for row in rows if row["x_parent"] is not None} == states
    assert {tuple(row["x_readers"]) for row in rows} == {(BEN,)}


def test_what_was_shared_before_an_append_is_no_longer_shared_after_it(source):
    source.run(document("plan", ANA, BEN), mode="append")
    source.run(document("plan", ANA, version=2, text=f"{SECTIONS}!"), mode="append")
    assert source.search("Danube", BEN) == set()
    assert {tuple(row["x_readers"]) for row in source.rows()} == {(ANA,)}


def test_records_without_a_connector_that_are_appended_hide_what_was_shared_before(tmp_path):
    to = str(tmp_path / "kb.lance")
    for text, readers in (("the Danube", [ANA, BEN]), ("the long Danube", [ANA])):
        with beam.Pipeline("DirectRunner") as pipeline:
            record = FrameRecord(text, unique_id="doc:plan", readers=readers)
            _ = pipeline | beam.Create([record]) | WriteToLance(to, mode="append", embed_dim=2)
    dataset = FrameDataset.open(to)
    assert dataset.search("Danube", readers=[BEN]) == []
    assert len(dataset.search("Danube", readers=[ANA])) == 2


def test_a_document_of_another_source_with_the_same_id_keeps_its_chunks_and_readers(
    source, tmp_path
):
    other = Source(tmp_path / "other")
    other.to = source.to
    source.run(document("plan", ANA), mode="append")
    other.run(document("plan", BEN), mode="append")
    before = [row for row in source.rows() if row["x_readers"] == [BEN]]
    source.run(document("plan", ENG), mode="append")
    assert [row for row in source.rows() if row["x_readers"] == [BEN]] == before
    assert {row["x_source"] for row in source.rows() if row["x_readers"] == [ENG]} == {
        row["x_source"] for row in source.rows()
    } - {row["x_source"] for row in before}


def test_what_stands_around_a_passage_is_only_what_the_one_who_asks_may_read(source, tmp_path):
    other = Source(tmp_path / "other")
    other.to = source.to
    source.run(
        document("plan", ANA, text=f"{SECTIONS}\n# Safe\n\nThe code is 1234."), mode="append"
    )
    other.run(document("plan", BEN), mode="append")
    hits = FrameDataset.open(source.to).search("Danube", readers=[BEN], context=9)
    assert hits and all("1234" not in hit.passage for hit in hits)
    assert {who for hit in hits for one in (*hit.before, *hit.after) for who in one.readers} == {
        BEN
    }


class Confidential:
    """Says of each document that Ben only may read it; some it refuses."""

    def enrich(self, record: FrameRecord, source_item: dict[str, Any]) -> FrameRecord:
        if source_item.get("refused"):
            raise ValueError("it is refused")
        record.readers = [BEN]
        return record


class ConfidentialParts(Confidential):
    """Does the same as what may make several records of one."""

    enrich = None

    def expand(self, record: FrameRecord, source_item: dict[str, Any]) -> list[FrameRecord]:
        return [Confidential.enrich(self, record, source_item)]


@pytest.mark.sample
@pytest.mark.parametrize("enricher", [Confidential(), ConfidentialParts()])
@pytest.mark.parametrize("versioned", [True, False])
def test_what_an_enricher_says_of_readers_holds_in_all_runs(tmp_path, versioned, enricher):
    source = Source(tmp_path / "narrow", versioned)
    how = {"enrichers": [enricher], "max_failures": "60%"}
    menu = document("menu", ANA)
    source.run(document("plan", "anyone"), menu, **how)
    for _ in range(2):
        source.run(document("plan", "anyone"), menu, **how)
        assert source.search("Danube", ANA) == set()
    for how_it_fails in ({"refused": True}, {"broken": True}):
        source.run(document("plan", "anyone", version=2, **how_it_fails), menu, **how)
        assert source.search("Danube", ANA) == set()
        assert source.search("Danube", BEN) == {"plan", "menu"}


@pytest.mark.sample(3)
@pytest.mark.parametrize("readers", ["anyone", 7, [7], [[BEN]], {BEN: 1}, [None], ["a\0b"], [""]])
def test_an_enricher_that_names_nobody_spoils_that_document_only(source, readers):
    class Wrong:
        def enrich(self, record: FrameRecord, source_item: dict[str, Any]) -> FrameRecord:
            if source_item["id"] == "plan":
                record.readers = readers
            return record

    how = {"embed": None, "embed_dim": 2}
    source.run(document("plan", ANA), **how)
    items = (document("plan", ANA, version=2), document("menu", ANA))
    receipt = source.run(*items, enrichers=[Wrong()], max_failures="60%", **how)
    assert (receipt.failed, receipt.stale, receipt.rows_written) == (1, 1, 1)
    assert "reader" in receipt.reasons[0].message
    found = FrameDataset.open(source.to).search("Danube", readers=[ANA])
    assert {str(one.unique_id).partition("#")[0] for one in found} == {"doc:menu"}


def test_what_was_filed_elsewhere_is_written_without_being_fetched(source):
    source.run(document("plan", ANA, collection="a/old"), document("menu", ANA, collection="b"))
    moved = [document("plan", ANA, collection="a/new"), document("menu", ANA, collection="b")]
    receipt = source.run(*moved)
    assert source.fetched == []
    assert (receipt.moved, receipt.readers_changed, receipt.rows_written) == (1, 0, 0)
    plan = [row for row in source.rows() if row["collection"] != "b"]
    assert {row["collection"] for row in plan} == {"a/new"} and len(plan) > 1
    assert {tuple(row["x_readers"]) for row in source.rows()} == {(ANA,)}
    assert source.run(*moved).moved == 0


def test_a_collection_that_is_not_told_stays(source):
    source.run(document("plan", ANA, collection="a"))
    receipt = source.run(document("plan", BEN))
    assert (receipt.moved, receipt.readers_changed) == (0, 1)
    assert {row["collection"] for row in source.rows()} == {"a"}


def test_a_connector_that_names_other_readers_than_its_record_is_told_so(source):
    class Wrong(Shares):
        def document_version(self, item: dict[str, Any]) -> DocumentVersion:
            return DocumentVersion(f"doc:{item['id']}", "1", readers=[BEN])

    source.file.write_text(json.dumps([document("plan", ANA), document("menu", BEN)]))
    receipt = ingest(Wrong(str(source.file)), source.to, max_failures="60%", embed_dim=4)
    assert "let both name the same" in receipt.reasons[0].message


@settings(max_examples=examples(40, few=4), deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from("abc"),
            st.tuples(
                st.integers(1, 2),
                st.none() | st.sets(st.sampled_from([ANA, BEN, ENG])),
                st.sampled_from(["plans", "plans/old"]),
            ),
            min_size=1,
        ),
        min_size=2,
        max_size=3,
    ),
    st.booleans(),
)
def test_any_runs_leave_the_rows_of_one_run_over_the_last_state(tmp_path_factory, runs, versioned):
    folder = tmp_path_factory.mktemp("law")
    source, fresh = Source(folder, versioned=versioned), Source(folder, versioned=versioned)
    fresh.to = str(folder / "fresh.lance")
    how = {"embed": None, "embed_dim": 2, "max_deletes": "100%"}
    for state in runs:
        items = [
            {
                "id": name,
                "version": version,
                "text": f"{SECTIONS}{version}",
                "readers": None if readers is None else sorted(readers),
                "collection": collection,
            }
            for name, (version, readers, collection) in state.items()
        ]
        source.run(*items, **how)
    fresh.run(*items, **how)
    assert source.rows() == fresh.rows()


class TestReaders:
    def test_they_are_in_order_and_once_each(self):
        assert FrameRecord("text", readers=[BEN, ANA, BEN]).readers == [ANA, BEN]

    @pytest.mark.parametrize("readers", ["anyone", [""], [None], ["a\nb"], [7], 7, {"a": 1}])
    def test_what_names_nobody_is_refused(self, readers):
        with pytest.raises(RecordError, match="reader"):
            FrameRecord("text", readers=readers)
        with pytest.raises(RecordError, match="reader"):
            DocumentVersion("doc:1", "1", readers=readers)

    def test_a_search_refuses_what_names_nobody(self, source):
        source.run(document("plan", ANA))
        with pytest.raises(ConfigError, match="a reader is"):
            FrameDataset.open(source.to).search("Danube", readers=[""])

    @pytest.mark.parametrize(
        "where",
        [
            "true) OR (true",
            "true) OR (true --",
            "true); ",
            "true)",
            "(true",
            "$$'$$) OR ($$'$$ = ''",
        ],
    )
    def test_no_filter_reaches_beyond_who_asks(self, source, where):
        source.run(document("plan", ANA))
        dataset = FrameDataset.open(source.to)
        for how in ({}, {"vector": True}):
            with pytest.raises(ConfigError, match="cannot be used"):
                dataset.search("Danube", where=where, readers=[BEN], **how)
        with pytest.raises(ConfigError, match="cannot be used"):
            dataset.count(where)

    def test_brackets_and_quotes_within_texts_are_text(self, source):
        source.run(document("plan", ANA, text="The Danube :) is (long; $1"))
        dataset = FrameDataset.open(source.to)
        where = "(text_content LIKE '%:)%' AND text_content <> 'it''s ); $') -- a ) comment"
        assert len(dataset.search("Danube", where=where, readers=[ANA])) == 1
        assert dataset.search("Danube", where=where, readers=[BEN]) == []

    def test_different_answers_about_one_document_leave_it_unknown(self):
        one, two = Tally(), Tally()
        one.note_readers([ANA], b"k" * 16)
        two.note_readers([BEN], b"k" * 16)
        two.note_readers([BEN], b"l" * 16)
        assert readers_told([one, two]) == {b"k" * 16: None, b"l" * 16: (BEN,)}

    def test_a_column_has_the_numbers_of_its_values(self):
        import pyarrow as pa

        values = [None, [], [ANA], [ANA, BEN], None, [ANA]]
        found = marks_of(pa.array(values, pa.list_(pa.string())))
        assert found.tolist() == [mark_of(one) for one in values]
        assert len(np.unique(found)) == 4
