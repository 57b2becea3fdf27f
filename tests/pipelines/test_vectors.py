"""Runs that cut and embed: what is paid for, what is stored, and what is refused."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import apache_beam as beam
import lance
import numpy as np
import pytest

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.errors import ConfigError, SchemaError, TooManyFailures, TooManyTokens
from contextframe_beam.frames.embedders import EmbedderError, EmbedderRefusedError
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.transforms import WriteToLance
from contextframe_beam.transforms.embedders import HashEmbedder
from tests.support.cli_helpers import cli, start, wait_until
from tests.support.embedding_server import embedding_server
from tests.support.pipeline_helpers import (
    EACH_BUNDLE_TWICE,
    ONE_WORKER,
    TWO_WORKERS,
    document,
    documents,
    new_pipeline,
)
from tests.support.vector_helpers import ingest_texts, paragraphs, rows_in, text_digest, vectors_in

HASH = "hash:16"
NOISY = "tests.support.vector_helpers:Noisy"
COUNTED = "tests.support.vector_helpers:Counted"
FUSSY = "tests.support.vector_helpers:Fussy"


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    return tmp_path / "kb.lance"


class TestWhatIsStored:
    def test_chunks_have_vectors_and_documents_have_none(self, kb: Path) -> None:
        receipt = ingest_texts(
            {"a": paragraphs("one", "two"), "b": paragraphs("three")}, kb, embed=HASH
        )
        rows = rows_in(kb)
        assert sorted(rows) == ["a", "a#chunk=0", "a#chunk=1", "b", "b#chunk=0"]
        fingerprint = HashEmbedder("16").identity.fingerprint
        for name, row in rows.items():
            is_chunk = "#" in name
            assert (row["vector"] is not None) == is_chunk
            assert row["x_embedder"] == (fingerprint if is_chunk else None)
            assert row["x_text"] == (text_digest(row["text_content"]) if is_chunk else None)
        texts = list(vectors_in(kb))
        found = np.stack(list(vectors_in(kb).values()))
        assert np.array_equal(found, HashEmbedder("16").embed(texts))
        assert (receipt.documents, receipt.texts_embedded, receipt.texts_reused) == (2, 3, 0)
        assert receipt.tokens == sum(HashEmbedder("16").count(texts))

    def test_documents_have_vectors_where_nothing_is_cut(self, kb: Path) -> None:
        ingest_texts({"a": "One.", "b": " "}, kb, embed=HASH, chunk="none", chunk_tokens=None)
        rows = rows_in(kb)
        assert sorted(rows) == ["a", "b"]
        assert rows["a"]["vector"] is not None
        assert rows["b"]["vector"] is None
        assert rows["b"]["x_embedder"] is None

    def test_documents_without_an_id_stay_who_they_are(self, kb: Path) -> None:
        items = [{"text": "Some words."}, {"text": "Other words.", "metadata": {"author": "Ada"}}]
        for embed in ("none", HASH):
            with new_pipeline() as pipeline:
                records = [FrameRecord(one["text"], one.get("metadata")) for one in items]
                sink = WriteToLance(str(kb), chunk="none", embed=embed, embed_dim=16)
                pipeline | beam.Create(records) | sink
        assert len(rows_in(kb)) == len(vectors_in(kb)) == 2

    def test_chunks_are_made_without_an_embedder_too(self, kb: Path) -> None:
        ingest_texts({"a": paragraphs("one", "two")}, kb)
        rows = rows_in(kb)
        assert sorted(rows) == ["a", "a#chunk=0", "a#chunk=1"]
        assert all(row["vector"] is None for row in rows.values())
        assert FrameDataset.open(str(kb)).embedder is None

    def test_nothing_is_cut_unless_asked_for(self, kb: Path) -> None:
        ingest(documents({"id": "a", "text": paragraphs("one", "two")}), str(kb))
        assert list(rows_in(kb)) == ["a"]

    def test_texts_that_are_embedded_are_cut_unless_told_otherwise(self, kb: Path) -> None:
        ingest(documents({"id": "a", "text": paragraphs("one", "two")}), str(kb), embed=HASH)
        assert sorted(rows_in(kb)) == ["a", "a#chunk=0"]

    def test_the_embedder_is_recorded_in_the_same_version(self, kb: Path) -> None:
        ingest_texts({"a": "One."}, kb, embed=HASH)
        assert FrameDataset.open(str(kb), version=1).embedder == HashEmbedder("16").identity
        assert FrameDataset.open(str(kb)).version == 1

    def test_the_next_run_goes_on_with_the_embedder_of_the_dataset(self, kb: Path) -> None:
        ingest_texts({"a": "One."}, kb, embed=HASH)
        ingest_texts({"a": "One.", "b": "Two."}, kb)
        assert len(vectors_in(kb)) == 2
        ingest_texts({"c": "Three."}, kb, embed="none")
        assert len(vectors_in(kb)) == 2


class TestWhatIsPaidFor:
    def test_nothing_for_what_has_not_changed(self, kb: Path) -> None:
        with embedding_server() as service:
            texts = {"a": paragraphs("one", "two"), "b": paragraphs("three")}
            settings = {"embed": "openai:m", "embed_url": f"{service.url}/v1"}
            first = ingest_texts(texts, kb, **settings)
            sent = list(service.texts)
            again = ingest_texts(texts, kb, **settings)
            full = ingest_texts(texts, kb, full=True, **settings)
        assert len(sent) == 3 + 1  # one of them asks for the dimension
        assert (first.texts_embedded, first.requests) == (3, 1)
        assert service.texts == sent  # the dataset says what the dimension is
        assert (again.documents, again.rows_unchanged) == (2, 2)
        assert (again.texts_embedded, again.texts_reused, again.rows_written) == (0, 0, 0)
        assert (full.texts_embedded, full.texts_reused, full.rows_written) == (0, 3, 0)

    def test_only_what_has_changed(self, kb: Path) -> None:
        words = [f"word{n}" for n in range(40)]
        ingest_texts({"a": paragraphs(*words)}, kb, embed=HASH)
        words[20] = "another"
        receipt = ingest_texts({"a": paragraphs(*words)}, kb, embed=HASH)
        assert (receipt.texts_embedded, receipt.texts_reused) == (1, 39)

    @pytest.mark.parametrize("mode", ["mirror", "overwrite"])
    def test_nothing_for_a_document_under_another_name(self, kb: Path, mode: str) -> None:
        ingest_texts({"a": paragraphs("one", "two")}, kb, embed=HASH)
        receipt = ingest_texts(
            {"b": paragraphs("one", "two")}, kb, embed=HASH, mode=mode, max_deletes="100%"
        )
        assert (receipt.texts_embedded, receipt.texts_reused) == (0, 2)
        assert rows_in(kb)["b#chunk=1"]["vector"] is not None

    def test_nothing_for_vectors_that_differ_a_little_each_time(self, kb: Path) -> None:
        texts = {"a": paragraphs("one", "two")}
        ingest_texts(texts, kb, embed=NOISY)
        before = vectors_in(kb)
        # As it would be if the vectors were made anew.
        receipt = ingest_texts(texts, kb, embed=NOISY, mode="upsert", full=True)
        assert receipt.rows_written == 0
        assert all(np.array_equal(vector, before[text]) for text, vector in vectors_in(kb).items())

    def test_each_text_once_in_a_run(self, kb: Path) -> None:
        texts = {name: paragraphs("same", "also same") for name in "abcdef"}
        receipt = ingest_texts(texts, kb, embed=HASH)
        assert receipt.texts_embedded == 2
        assert len(rows_in(kb)) == 6 * 3

    def test_vectors_of_a_run_that_dies_are_not_paid_for_again(self, kb: Path) -> None:
        texts = {f"d{n}": paragraphs(*(f"d{n}w{m}" for m in range(20))) for n in range(5)}
        with embedding_server() as service:
            settings = {
                "embed": "openai:m",
                "embed_url": f"{service.url}/v1",
                "embed_dim": 16,
            }
            with pytest.raises(TooManyTokens):
                ingest_texts(texts, kb, max_tokens=600, **settings)
            assert not kb.exists() or not rows_in(kb)
            paid = set(service.texts)
            receipt = ingest_texts(texts, kb, **settings)
        assert 20 <= len(paid) == receipt.texts_reused
        assert receipt.texts_embedded > 50
        assert len(service.texts) == receipt.texts_embedded + receipt.texts_reused
        assert not Path(f"{kb}.vectors").exists()


class TestWhatIsRefused:
    def test_another_embedder_with_both_names(self, kb: Path) -> None:
        ingest_texts({"a": "One."}, kb, embed="hash:8")
        for other, mode in (("hash:32", "upsert"), (NOISY, "append")):  # of 8 dimensions, too
            with pytest.raises(ConfigError, match=r"are of hash:8 .*embeds by (hash:32|.*Noisy)"):
                ingest_texts({"b": "Two."}, kb, embed=other, mode=mode)
        assert FrameDataset.open(str(kb)).version == 1

    def test_but_not_where_all_is_overwritten(self, kb: Path) -> None:
        ingest_texts({"a": "One."}, kb, embed=HASH)
        ingest_texts({"a": "One."}, kb, embed="hash:32", mode="overwrite")
        dataset = FrameDataset.open(str(kb))
        assert (dataset.embed_dim, str(dataset.embedder)[:7]) == (32, "hash:32")

    def test_vectors_of_which_nobody_knows_the_embedder(self, kb: Path) -> None:
        ingest(documents({"id": "a", "text": "One.", "vector": [1.0] * 16}), str(kb), embed_dim=16)
        with pytest.raises(ConfigError, match="which embedder made them is not recorded"):
            ingest_texts({"b": "Two."}, kb, embed=HASH)

    def test_a_dimension_that_is_not_the_embedders(self, kb: Path) -> None:
        with pytest.raises(ConfigError, match="has 16 dimensions, not 8"):
            ingest_texts({"a": "One."}, kb, embed=HASH, embed_dim=8)
        ingest_texts({"a": "One."}, kb, embed=HASH, embed_dim=16)
        with pytest.raises(ConfigError, match="16 dimensions, and `embed_dim` is 8"):
            ingest_texts({"a": "One."}, kb, embed=HASH, embed_dim=8)

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"embed": "hsh:8"}, "did you mean hash"),
            ({"embed": HASH, "embed_key": "sk-123456"}, "give a reference"),
            ({"embed": HASH, "embed_budget": "much"}, "is not a JSON object"),
            ({"embed": "none", "embed_url": "http://x/v1"}, "`embed_url` says nothing without"),
            ({"max_tokens": 7}, "`max_tokens` says nothing without"),
            ({"chunk": "none", "chunk_tokens": 8}, "tokens says nothing without a chunker"),
            ({"chunk": "markdwon"}, "did you mean markdown"),
            ({"embed": HASH, "chunk_tokens": 2}, "too short"),
        ],
    )
    def test_settings_that_cannot_be(self, kb: Path, settings: dict[str, Any], said: str) -> None:
        with pytest.raises(ConfigError, match=said) as caught:
            ingest(documents({"id": "a", "text": "One."}), str(kb), **settings)
        assert "sk-123456" not in str(caught.value)
        assert not kb.exists()

    @pytest.mark.parametrize("how", [ONE_WORKER, TWO_WORKERS], ids=["one worker", "two workers"])
    def test_a_key_that_is_refused_ends_the_run_at_once(
        self, kb: Path, how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KEY", "wrong")
        texts = {f"d{n}": paragraphs("one", "two") for n in range(20)}
        with (
            embedding_server(key="right") as service,
            pytest.raises(EmbedderRefusedError, match="401"),
        ):
            ingest_texts(
                texts,
                kb,
                embed="openai:m",
                embed_url=f"{service.url}/v1",
                embed_key="env:KEY",
                embed_dim=16,
                **how,
            )
        assert len(service.requests) <= 2
        assert not kb.exists()
        assert not Path(f"{kb}.dead-letters").exists()

    def test_vectors_of_another_length_than_the_service_said(self, kb: Path) -> None:
        with embedding_server(dim=8) as service, pytest.raises(EmbedderError, match="8 dimensions"):
            ingest_texts(
                {"a": "One."}, kb, embed="openai:m", embed_url=f"{service.url}/v1", embed_dim=16
            )
        assert not kb.exists()


class TestADocumentThatCannotBeEmbedded:
    def test_keeps_its_rows_whole_while_others_are_replaced(self, kb: Path) -> None:
        ingest_texts({"a": paragraphs("one", "two", "three"), "b": "Old."}, kb, embed=FUSSY)
        before = rows_in(kb)
        texts = {"a": paragraphs("four", "five", "a walrus"), "b": "New."}
        receipt = ingest_texts(texts, kb, embed=FUSSY)
        after = rows_in(kb)
        for name in ("a", "a#chunk=0", "a#chunk=1", "a#chunk=2"):
            assert after[name] == before[name]
        assert after["b#chunk=0"]["text_content"] == "New."
        assert receipt.failed == 1
        assert "no walruses" in str(receipt.reasons[0])

    def test_is_one_dead_letter(self, kb: Path, tmp_path: Path) -> None:
        letters = tmp_path / "letters.jsonl"
        texts = {"a": paragraphs("walrus", "one", "a walrus"), "b": "B."}
        ingest_texts(texts, kb, embed=FUSSY, dead_letters=str(letters))
        [letter] = letters.read_text().splitlines()
        assert '"stage": "embed"' in letter
        assert sorted(rows_in(kb)) == ["b", "b#chunk=0"]

    @pytest.mark.parametrize("chunk", ["none", "markdown"])
    def test_has_perhaps_a_vector_of_its_own(self, kb: Path, chunk: str) -> None:
        own = [1.0] * 16
        items = [{"id": name, "text": name, "vector": own} for name in ("a", " ")]
        receipt = ingest(
            documents({"id": "b", "text": "Two."}, *items), str(kb), embed=HASH, chunk=chunk
        )
        assert {name.partition("#")[0] for name in rows_in(kb)} == {"b"}
        assert receipt.failed == 2
        assert "a vector of its own" in str(receipt.reasons[0])

    @pytest.mark.parametrize("chunk", ["none", "markdown"])
    def test_is_perhaps_none_at_all(self, kb: Path, tmp_path: Path, chunk: str) -> None:
        odd = [
            {"a": "dict"},
            FrameRecord(7, unique_id="number"),  # type: ignore[arg-type]
            FrameRecord("Text.", ["no"], unique_id="list"),  # type: ignore[arg-type]
            FrameRecord("Text.", unique_id="type", record_type="odd"),
            FrameRecord("Text.", unique_id="parent", parent="no uuid"),
            FrameRecord("\ud800", unique_id="surrogate"),
            FrameRecord(unique_id=None),
        ]
        good = [
            document("good", "Text."),
            FrameRecord("Without an id."),
            FrameRecord(unique_id="empty"),
        ]
        letters = tmp_path / "letters.jsonl"
        with new_pipeline() as pipeline:
            sink = WriteToLance(str(kb), chunk=chunk, embed=HASH, dead_letters=str(letters))
            pipeline | beam.Create([*odd, *good]) | sink
        assert len(letters.read_text().splitlines()) == len(odd)
        documents_stored = [row for row in rows_in(kb).values() if row["x_parent"] is None]
        assert len(documents_stored) == len(good)
        assert len(vectors_in(kb)) == 2

    def test_ends_the_run_where_all_are_so(self, kb: Path) -> None:
        with pytest.raises(TooManyFailures, match="no walruses"):
            ingest_texts({"a": "A walrus."}, kb, embed=FUSSY)


class TestANewDimension:
    @pytest.mark.sample(2)
    @pytest.mark.parametrize(
        ("version", "mode"), [("2.0", "upsert"), ("2.1", "append"), ("2.2", "upsert")]
    )
    def test_comes_with_the_first_vectors(self, kb: Path, version: str, mode: str) -> None:
        ingest_texts({"a": "Old words.", "b": "Older."}, kb, embed="none", storage_version=version)
        dataset = FrameDataset.open(str(kb))
        assert dataset.search("words")
        assert dataset.embed_dim == 1536
        indexed = dataset.version
        ingest_texts({"c": paragraphs("one", "two")}, kb, embed=HASH, mode=mode)
        dataset = FrameDataset.open(str(kb))
        assert dataset.version == indexed + 1
        assert dataset.embed_dim == 16
        assert sorted(rows_in(kb)) == ["a", "b", "c", "c#chunk=0", "c#chunk=1"]
        assert [one.unique_id for one in dataset.search("older")] == ["doc:b"]
        [index] = [
            one for one in dataset.lance.describe_indices() if "text" in str(one.field_names)
        ]
        assert index.num_rows_indexed == 2
        # What is written afterwards fits.
        ingest_texts({"a": paragraphs("three"), "d": "New."}, kb, embed=HASH)
        assert len(vectors_in(kb)) == 4
        assert FrameDataset.open(str(kb), version=indexed).embed_dim == 1536

    def test_may_have_come_with_another_run_meanwhile(self, kb: Path) -> None:
        ingest_texts({"a": "Old words."}, kb, embed="none")
        late = new_pipeline()
        late | beam.Create([document("late", "Late words.")]) | WriteToLance(str(kb), embed=HASH)
        ingest_texts({"b": "New words."}, kb, embed=HASH)
        late.run().wait_until_finish()
        assert sorted(rows_in(kb)) == ["a", "b", "b#chunk=0", "late", "late#chunk=0"]
        assert sorted(vectors_in(kb)) == ["Late words.", "New words."]

    def test_of_another_embedder_that_came_meanwhile_is_refused(self, kb: Path) -> None:
        ingest_texts({"a": "Old words."}, kb, embed="none")
        late = new_pipeline()
        late | beam.Create([document("late", "Late words.")]) | WriteToLance(str(kb), embed=HASH)
        ingest_texts({"b": "New words."}, kb, embed="hash:8")
        with pytest.raises(Exception, match=r"the columns of .* changed while run"):
            late.run().wait_until_finish()
        assert sorted(rows_in(kb)) == ["a", "b", "b#chunk=0"]

    def test_is_refused_without_an_embedder(self, kb: Path) -> None:
        ingest_texts({"a": "Old words."}, kb, embed="none")
        with pytest.raises(SchemaError, match="is made for vectors of 1536"):
            ingest_texts({"a": "Old words."}, kb, embed="none", embed_dim=8)

    def test_is_left_alone_by_compaction_and_rollback(self, kb: Path) -> None:
        ingest_texts({"a": "Old words.", "b": "Older."}, kb, embed="none")
        ingest_texts({"c": "One."}, kb, embed=HASH)
        lance.dataset(str(kb)).optimize.compact_files()
        assert len(rows_in(kb)) == 4
        assert len(vectors_in(kb)) == 1
        dataset = FrameDataset.open(str(kb))
        dataset.rollback(1)
        assert (dataset.embed_dim, dataset.embedder) == (1536, None)
        ingest_texts({"c": "One."}, kb, embed="hash:8")
        assert FrameDataset.open(str(kb)).embed_dim == 8


class TestHoweverItIsRun:
    def test_two_workers_load_one_model_each_and_store_the_same(
        self, kb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loaded = tmp_path / "loaded"
        monkeypatch.setenv("MODELS_LOADED", str(loaded))
        texts = {f"d{n}": paragraphs(f"d{n}", "same") for n in range(8)}
        two = ingest_texts(texts, kb, embed=COUNTED, workers=2)
        processes = loaded.read_text().split()
        assert 2 <= len(processes) <= 3  # this one asks what its vectors are
        assert len(set(processes)) == len(processes)
        one = ingest_texts(texts, tmp_path / "one.lance", embed=COUNTED)
        assert two.documents == one.documents == 8
        assert vectors_in(kb).keys() == vectors_in(tmp_path / "one.lance").keys()
        again = ingest_texts(texts, kb, embed=COUNTED)
        assert (again.texts_embedded, again.rows_written) == (0, 0)
        assert loaded.read_text().split() == processes

    def test_bundles_that_are_repeated_store_once(self, kb: Path) -> None:
        texts = {f"d{n}": paragraphs(f"d{n}", "same") for n in range(3)}
        ingest_texts(texts, kb, embed=HASH, **EACH_BUNDLE_TWICE)
        assert len(rows_in(kb)) == 9
        assert len(vectors_in(kb)) == 4

    def test_commits_on_the_way_take_over_vectors_of_the_ones_before(self, kb: Path) -> None:
        texts = {f"d{n}": paragraphs("same") for n in range(4)}
        receipt = ingest_texts(texts, kb, embed=HASH, commit_every=1)
        assert FrameDataset.open(str(kb)).version == 2
        assert len(rows_in(kb)) == 8
        assert receipt.documents == 4
        assert FrameDataset.open(str(kb)).embedder == HashEmbedder("16").identity

    def test_records_without_a_connector_are_cut_and_embedded_too(self, kb: Path) -> None:
        with new_pipeline() as pipeline:
            records = [document(name, paragraphs(name, "same")) for name in "ab"]
            sink = WriteToLance(str(kb), chunk_tokens=16, embed=HASH)
            pipeline | beam.Create(records) | sink
        assert sorted(rows_in(kb)) == ["a", "a#chunk=0", "a#chunk=1", "b", "b#chunk=0", "b#chunk=1"]
        assert len(vectors_in(kb)) == 3

    def test_a_killed_run_is_not_paid_for_again(self, kb: Path, tmp_path: Path) -> None:
        texts = [f"This text has the number {n}." for n in range(700)]
        (tmp_path / "docs").mkdir()
        lines = [json.dumps({"id": n, "text": text}) for n, text in enumerate(texts)]
        (tmp_path / "docs" / "all.jsonl").write_text("\n".join(lines))
        hangs = threading.Event()

        def answer(given: Any) -> Any:
            if len(service.requests) > 2:
                hangs.wait(60)
            return given

        with embedding_server(change=answer) as service:
            command = ["ingest", "json", "--directory", tmp_path / "docs", "--pattern", "*.jsonl"]
            command += ["--to", kb, "--embed", "openai:m", "--embed-url", f"{service.url}/v1"]
            command += ["--embed-dim", 16]
            run = start(*command)
            kept = kb.with_name("kb.lance.vectors")
            wait_until(lambda: len(service.requests) > 2 and list(kept.glob("*/*")), run)
            run.kill()
            run.communicate()
            paid = len(service.texts)
            assert not kb.exists()
            hangs.set()
            service.requests.clear()
            receipt = json.loads(cli(*command, "--json").out)
        assert receipt["texts_embedded"] + receipt["texts_reused"] == 700
        assert len(service.texts) == receipt["texts_embedded"] < paid
        assert receipt["texts_reused"] >= 256
        assert not kept.exists()


class TestADryRun:
    @pytest.mark.parametrize("how", [ONE_WORKER, TWO_WORKERS], ids=["one worker", "two workers"])
    def test_counts_and_writes_nothing(self, kb: Path, how: dict[str, Any]) -> None:
        texts = {"a": paragraphs("one", "two"), "b": paragraphs("three")}
        with embedding_server() as service:
            settings = {"embed": "openai:m", "embed_url": f"{service.url}/v1", **how}
            receipt = ingest_texts(texts, kb, dry_run=True, **settings)
            assert not service.requests
            assert (receipt.documents, receipt.chunks, receipt.texts_embedded) == (2, 3, 3)
            assert receipt.tokens > 0
            assert receipt.version == 0
            assert not list(kb.parent.glob("kb.lance*"))

    def test_knows_what_the_dataset_has(self, kb: Path) -> None:
        texts = {"a": paragraphs("one", "two")}
        ingest_texts(texts, kb, embed=HASH)
        receipt = ingest_texts({**texts, "b": paragraphs("three")}, kb, dry_run=True)
        assert (receipt.documents, receipt.rows_unchanged) == (2, 1)
        assert (receipt.chunks, receipt.texts_embedded, receipt.texts_reused) == (1, 1, 0)
        assert FrameDataset.open(str(kb)).version == 1
