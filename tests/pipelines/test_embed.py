"""Stored texts that are embedded anew: in one version, without the source, as a run leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lance
import numpy as np
import pytest

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.errors import ConfigError, DatasetError, TooManyTokens
from contextframe_beam.frames.embedders import EmbedderRefusedError, EmbeddingError
from contextframe_beam.pipelines.embed import embed
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.store import vector_index
from contextframe_beam.store.address import Address
from contextframe_beam.store.vector_index import commit_parts, do_index_task, plan_index
from contextframe_beam.transforms.embedders import HashEmbedder
from tests.support.embedding_server import embedding_server
from tests.support.pipeline_helpers import documents
from tests.support.vector_helpers import ingest_texts, paragraphs, rows_in, vectors_in

HASH, OTHER = "hash:16", "hash:32"
TEXTS = {"a": paragraphs("one", "two"), "b": paragraphs("three"), "empty": " "}
NOISY = "tests.support.vector_helpers:Noisy"
FUSSY = "tests.support.vector_helpers:Fussy"

#: What `embed` writes.
CHANGED = ("vector", "x_embedder", "x_text", "x_digest", "x_origin")


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    return tmp_path / "kb.lance"


def rest_of(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns rows without the columns that change."""
    return {
        name: {column: value for column, value in row.items() if column not in CHANGED}
        for name, row in rows.items()
    }


class TestWhatIsStored:
    @pytest.mark.parametrize(("version", "other"), [("2.0", OTHER), ("2.1", NOISY), ("2.2", OTHER)])
    def test_is_what_a_run_with_that_embedder_would_have_stored(
        self, kb: Path, tmp_path: Path, version: str, other: str
    ) -> None:
        ingest_texts(TEXTS, kb, embed="hash:8", storage_version=version)
        before = rows_in(kb)
        receipt = embed(str(kb), other)
        assert receipt.version == 2
        assert (receipt.chunks, receipt.texts_embedded) == (3, 3)
        after = rows_in(kb)
        assert rest_of(after) == rest_of(before)
        wanted = tmp_path / "wanted.lance"
        ingest_texts(TEXTS, wanted, embed=other)
        # Who counts tokens in another way may cut documents in another way.
        cut_so = () if other == NOISY else ("x_digest", "x_origin")
        for name, row in rows_in(wanted).items():
            for column in ("x_embedder", "x_text", *cut_so):
                assert after[name][column] == row[column], (name, column)

    def test_has_the_vectors_of_the_new_embedder(self, kb: Path) -> None:
        ingest_texts(TEXTS, kb, embed=HASH)
        embed(str(kb), OTHER)
        dataset = FrameDataset.open(str(kb))
        assert dataset.embed_dim == 32
        assert dataset.embedder == HashEmbedder("32").identity
        found = vectors_in(kb)
        assert np.array_equal(np.stack(list(found.values())), HashEmbedder("32").embed(list(found)))
        assert FrameDataset.open(str(kb), version=1).embed_dim == 16

    def test_is_taken_as_unchanged_by_the_next_run(self, kb: Path) -> None:
        ingest_texts(TEXTS, kb, embed=HASH)
        embed(str(kb), OTHER)
        receipt = ingest_texts(TEXTS, kb)
        assert (receipt.rows_written, receipt.texts_embedded) == (0, 0)

    def test_documents_without_chunks_have_vectors_too(self, kb: Path) -> None:
        ingest_texts(TEXTS, kb, embed="none")
        receipt = embed(str(kb), HASH)
        assert (receipt.documents, receipt.chunks) == (2, 0)
        assert rows_in(kb)["a"]["vector"] is not None
        assert rows_in(kb)["empty"]["vector"] is None

    def test_vectors_of_nobody_knows_whom_are_replaced(self, kb: Path) -> None:
        items = [{"id": "a", "text": "One.", "vector": [1.0] * 4}, {"id": "b", "text": "Two."}]
        ingest(documents(*items), str(kb), embed_dim=4)
        embed(str(kb), HASH)
        assert len(vectors_in(kb)) == 2
        assert ingest(documents(items[1]), str(kb)).failed == 0

    def test_records_without_an_id_stay_who_they_are(self, kb: Path) -> None:
        dataset = FrameDataset.create(str(kb), embed_dim=4)
        dataset.add_many([FrameRecord("Some words."), FrameRecord("Others.", {"author": "Ada"})])
        before = {record.uuid for record in FrameDataset.open(str(kb))}
        embed(str(kb), HASH)
        assert {record.uuid for record in FrameDataset.open(str(kb))} == before

    def test_deleted_rows_stay_deleted(self, kb: Path) -> None:
        ingest_texts({f"d{n}": f"Text {n}." for n in range(9)}, kb, embed=HASH)
        dataset = FrameDataset.open(str(kb))
        for number in (0, 4, 8):
            assert dataset.delete(f"doc:d{number}")
        left = set(vectors_in(kb))
        embed(str(kb), OTHER)
        assert set(vectors_in(kb)) == left
        assert len(left) == 6
        lance.dataset(str(kb)).optimize.compact_files()
        assert set(vectors_in(kb)) == left

    def test_indices_of_texts_stay_and_those_of_vectors_go(self, kb: Path) -> None:
        texts = {f"d{n}": f"Text number {n} of many." for n in range(300)}
        ingest_texts(texts, kb, embed=HASH)
        dataset = FrameDataset.open(str(kb))
        dataset.index_text()
        dataset.lance.create_index("vector", "IVF_FLAT", num_partitions=2, metric="cosine")
        embed(str(kb), OTHER)
        dataset = FrameDataset.open(str(kb))
        assert [list(one.field_names) for one in dataset.lance.describe_indices()] == [
            ["text_content"]
        ]
        assert dataset.search("number 7")[0].unique_id.startswith("doc:d7")
        question = HashEmbedder("32").embed(["Text number 7 of many."], "query")[0]
        nearest = dataset.nearest(question, 1)[0]
        assert np.array_equal(np.asarray(nearest.vector, np.float32), question)

    def test_the_version_says_what_made_it(self, kb: Path) -> None:
        ingest_texts(TEXTS, kb, embed=HASH)
        embed(str(kb), OTHER)
        version = FrameDataset.open(str(kb)).history()[-1]
        assert (version.mode, version.counts) == ("embed", {"embedded": 3})

    def test_files_of_older_vectors_are_named_no_more(self, kb: Path) -> None:
        ingest_texts(TEXTS, kb, embed=HASH)
        for other in ("hash:8", OTHER, HASH):
            embed(str(kb), other)
            for fragment in lance.dataset(str(kb)).get_fragments():
                assert len(fragment.data_files()) <= 3
        assert FrameDataset.open(str(kb)).embed_dim == 16
        assert len(vectors_in(kb)) == 3

    def test_a_rollback_brings_the_old_vectors_back(self, kb: Path) -> None:
        ingest_texts(TEXTS, kb, embed=HASH)
        before = rows_in(kb)
        embed(str(kb), OTHER)
        FrameDataset.open(str(kb)).rollback(1)
        assert rows_in(kb) == before
        assert FrameDataset.open(str(kb)).embedder == HashEmbedder("16").identity


class TestWhatIsPaidFor:
    def test_nothing_for_vectors_of_the_same_embedder(self, kb: Path) -> None:
        ingest_texts(TEXTS, kb, embed=HASH)
        FrameDataset.open(str(kb)).add(FrameRecord("New words.", unique_id="doc:new"))
        receipt = embed(str(kb))
        assert (receipt.texts_embedded, receipt.texts_reused) == (1, 3)
        assert len(vectors_in(kb)) == 4

    def test_what_was_embedded_before_it_died_is_kept(self, kb: Path) -> None:
        ingest_texts({f"d{n}": f"Text {n} with words." for n in range(60)}, kb)
        before = FrameDataset.open(str(kb)).version
        with embedding_server() as service:
            settings = {"embed_url": f"{service.url}/v1"}
            with pytest.raises(TooManyTokens):
                embed(str(kb), "openai:m", max_tokens=150, **settings)
            assert FrameDataset.open(str(kb)).version == before
            assert not list((kb / "data").glob("*.tmp"))
            sent = len(service.texts)
            receipt = embed(str(kb), "openai:m", **settings)
            assert 10 < sent < 60
            assert receipt.texts_reused == sent - 1  # the other one asks for the dimension
            assert len(set(service.texts)) == 61
        assert not Path(f"{kb}.vectors").exists()

    def test_is_counted_by_a_dry_run(self, kb: Path) -> None:
        ingest_texts(TEXTS, kb, embed=HASH)
        assert embed(str(kb), HASH, dry_run=True).texts_embedded == 0
        with embedding_server() as service:
            counted = embed(str(kb), "openai:m", embed_url=f"{service.url}/v1", dry_run=True)
            assert not service.requests
        assert (counted.chunks, counted.texts_embedded, counted.version) == (3, 3, 0)
        assert counted.tokens > 0
        assert FrameDataset.open(str(kb)).version == 1


class TestWhatGoesWrong:
    def test_a_text_that_cannot_be_embedded_has_no_vector_and_is_told(self, kb: Path) -> None:
        ingest_texts({"a": "A walrus.", "b": "One."}, kb, embed=HASH)
        receipt = embed(str(kb), FUSSY)
        assert (receipt.documents + receipt.chunks, receipt.failed) == (1, 1)
        assert "no walruses" in receipt.reason
        assert list(vectors_in(kb)) == ["One."]

    def test_where_none_can_be_embedded_nothing_changes(self, kb: Path) -> None:
        ingest_texts({"a": "A walrus."}, kb, embed=HASH)
        with pytest.raises(EmbeddingError, match="no walruses"):
            embed(str(kb), FUSSY)
        assert FrameDataset.open(str(kb)).version == 1

    def test_a_key_that_is_refused_changes_nothing(self, kb: Path, monkeypatch: Any) -> None:
        ingest_texts(TEXTS, kb, embed=HASH)
        files = sorted((kb / "data").iterdir())
        monkeypatch.setenv("KEY", "wrong")
        with embedding_server(key="right") as service, pytest.raises(EmbedderRefusedError):
            embed(str(kb), "openai:m", embed_url=f"{service.url}/v1", embed_key="env:KEY")
        assert FrameDataset.open(str(kb)).version == 1
        assert sorted((kb / "data").iterdir()) == files

    def test_a_dataset_is_needed_and_an_embedder(self, kb: Path) -> None:
        with pytest.raises(DatasetError, match="no dataset"):
            embed(str(kb), HASH)
        ingest_texts(TEXTS, kb, embed="none")
        with pytest.raises(ConfigError, match="no embedder is recorded"):
            embed(str(kb))

    def test_a_run_that_was_committed_meanwhile_is_embedded_too(
        self, kb: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ingest_texts(TEXTS, kb, embed=HASH)
        embed_once = HashEmbedder.pieces
        came = []

        def with_another_run(self: HashEmbedder, texts: Any, kind: Any) -> Any:
            if self.dim == 32 and not came:
                came.append(1)
                ingest_texts({**TEXTS, "late": paragraphs("four")}, kb, embed=HASH)
            return embed_once(self, texts, kind)

        monkeypatch.setattr(HashEmbedder, "pieces", with_another_run)
        receipt = embed(str(kb), OTHER)
        assert (receipt.version, receipt.chunks, receipt.texts_embedded) == (3, 4, 4)
        assert len(rows_in(kb)["late#chunk=0"]["vector"]) == 32
        assert len(vectors_in(kb)) == 4

    def test_a_run_that_began_before_is_refused(self, kb: Path) -> None:
        ingest_texts(TEXTS, kb, embed=HASH)
        embed(str(kb), OTHER)
        with pytest.raises(ConfigError, match=r"are of hash:32.*embeds by hash:16"):
            ingest_texts({"c": "New."}, kb, embed=HASH)


def test_an_index_of_the_vectors_that_were_replaced_is_never_committed(
    kb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lance would commit it, and then search nothing any more."""
    ingest(documents(*range(300)), str(kb), embed=HASH, chunk="none")
    at = Address(str(kb))
    tasks = plan_index(FrameDataset.open(str(kb)).lance, "cosine")
    parts = [do_index_task(at, task) for task in tasks]
    real = vector_index.indexing

    def after_others(at: Address) -> Any:
        monkeypatch.setattr(vector_index, "indexing", real)
        embed(str(kb), OTHER)
        return real(at)

    monkeypatch.setattr(vector_index, "indexing", after_others)
    assert commit_parts(at, parts) == 0
    dataset = FrameDataset.open(str(kb))
    assert len(dataset.search("text", vector=True)) == 10
    assert dataset.lance.list_indices() == []
