"""Beam's RAG types: chunks and embeddings of its pipelines into a dataset, and back."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.ml.inference.base import ModelHandler, RunInference
from apache_beam.ml.rag.chunking.base import ChunkingTransformProvider
from apache_beam.ml.rag.embeddings.base import create_text_adapter
from apache_beam.ml.rag.ingestion.base import VectorDatabaseWriteTransform
from apache_beam.ml.rag.types import Content, EmbeddableItem, Embedding
from apache_beam.ml.transforms.base import EmbeddingsManager, MLTransform, _TextEmbeddingHandler
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.enrichment import Enrichment
from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam import ConfigError, FrameDataset, FrameRecord
from contextframe_beam.frames.encode import decode_rows, encode_records
from contextframe_beam.frames.record import uuid_of
from contextframe_beam.transforms import LanceSearchHandler, LanceVectorWriterConfig, ReadItems
from contextframe_beam.transforms.embedders import HashEmbedder, as_embedder
from contextframe_beam.transforms.rag import item_of, record_of
from tests.support.pipeline_helpers import IN_ONE_PROCESS

DIM = 16


class ParagraphChunker(ChunkingTransformProvider):
    """Cuts at empty lines."""

    def get_splitter_transform(self) -> Any:
        return beam.FlatMap(_paragraphs)


def _paragraphs(document: Mapping[str, str]) -> Iterator[EmbeddableItem]:
    for number, text in enumerate(document["text"].split("\n\n")):
        yield EmbeddableItem(
            Content(text=text), index=number, metadata={"source": document["source"]}
        )


class HashModel(ModelHandler[str, Any, HashEmbedder]):
    def load_model(self) -> HashEmbedder:
        return HashEmbedder(str(DIM))

    def run_inference(
        self, batch: Sequence[str], model: HashEmbedder, inference_args: Any = None
    ) -> list[Any]:
        return [[float(n) for n in vector] for vector in model.embed(list(batch))]


class HashEmbeddings(EmbeddingsManager):
    """Embeddings as Beam makes them, by a model that needs no weights."""

    def __init__(self) -> None:
        super().__init__(type_adapter=create_text_adapter())

    def get_model_handler(self) -> Any:
        return HashModel()

    def get_ptransform_for_processing(self, **kwargs: Any) -> Any:
        return RunInference(_TextEmbeddingHandler(self)).with_output_types(EmbeddableItem)


def run(
    texts: Mapping[str, str], config: LanceVectorWriterConfig, folder: Path, how: Any = None
) -> None:
    """Runs a pipeline of Beam's own RAG transforms into a dataset."""
    options = beam.options.pipeline_options.PipelineOptions((how or {}).get("beam_args", []))
    with beam.Pipeline("FnApiRunner", options=options) as pipeline:
        (
            pipeline
            | beam.Create([{"text": text, "source": name} for name, text in texts.items()])
            | MLTransform(write_artifact_location=tempfile.mkdtemp(dir=folder))
            .with_transform(ParagraphChunker())
            .with_transform(HashEmbeddings())
            | VectorDatabaseWriteTransform(config)
        )


DOCUMENTS = {
    "guide.txt": "A walrus lives in the sea.\n\nIt eats clams.\n\nIt has long teeth.",
    "other.txt": "A quokka lives on an island.",
}


def texts_in(uri: str) -> set[str | None]:
    return {one.text_content for one in FrameDataset.open(uri) if one.parent}


class TestWriting:
    def test_chunks_belong_to_their_document_and_are_found(self, tmp_path):
        uri = str(tmp_path / "kb.lance")
        embedder = as_embedder(HashEmbeddings())
        config = LanceVectorWriterConfig(uri, document="source", embedder=embedder)
        run(DOCUMENTS, config, tmp_path)
        dataset = FrameDataset.open(uri)
        assert dataset.embedder == embedder.identity
        hit = dataset.search("It eats many clams", hybrid=True, embedder=embedder)[0]
        assert hit.text_content == "It eats clams."
        assert (hit.parent, hit.unique_id) == (uuid_of("guide.txt"), "guide.txt#chunk=1")
        assert hit.metadata["source"] == "guide.txt"

    @IN_ONE_PROCESS
    def test_chunks_of_a_changed_document_go_with_what_replaces_them(self, tmp_path, how):
        uri = str(tmp_path / "kb.lance")
        config = LanceVectorWriterConfig(uri, document="source", embed_dim=DIM)
        run(DOCUMENTS, config, tmp_path, how)
        run({"guide.txt": "It eats clams."}, config, tmp_path, how)
        assert texts_in(uri) == {"It eats clams.", "A quokka lives on an island."}

    def test_the_same_again_writes_nothing(self, tmp_path):
        uri = str(tmp_path / "kb.lance")
        config = LanceVectorWriterConfig(
            uri, document="source", embedder=as_embedder(HashEmbeddings())
        )
        run(DOCUMENTS, config, tmp_path)
        run(DOCUMENTS, config, tmp_path)
        assert FrameDataset.open(uri).history()[-1].counts["written"] == 0

    def test_a_mirror_deletes_documents_that_are_gone_and_leaves_other_sources_alone(
        self, tmp_path
    ):
        uri = str(tmp_path / "kb.lance")
        given: dict[str, Any] = {"document": "source", "embed_dim": DIM, "max_deletes": "100%"}
        others = LanceVectorWriterConfig(uri, source="others", **given)
        run({"foreign.txt": "An okapi."}, others, tmp_path)
        config = LanceVectorWriterConfig(uri, mode="mirror", **given)
        run(DOCUMENTS, config, tmp_path)
        run({"other.txt": DOCUMENTS["other.txt"]}, config, tmp_path)
        assert texts_in(uri) == {"An okapi.", "A quokka lives on an island."}


class TestWritingItems:
    def write(self, items: list[EmbeddableItem], uri: str, **settings: Any) -> Any:
        config = LanceVectorWriterConfig(uri, **settings)
        with beam.Pipeline("FnApiRunner") as pipeline:
            pipeline | beam.Create(items) | VectorDatabaseWriteTransform(config)
        return FrameDataset.open(uri)

    def item(self, text: str, **more: Any) -> EmbeddableItem:
        [vector] = HashEmbedder(str(DIM)).embed([text])
        return (
            EmbeddableItem.from_text(text, **more)
            if not more.pop("embedded", True)
            else (
                EmbeddableItem(
                    Content(text=text),
                    embedding=Embedding(dense_embedding=[float(n) for n in vector]),
                    **more,
                )
            )
        )

    def test_without_documents_each_item_is_one_by_its_id(self, tmp_path):
        items = [self.item("A walrus.", id="a"), self.item("A quokka.", id="b")]
        dataset = self.write(items, str(tmp_path / "kb.lance"), embed_dim=DIM)
        assert {one.unique_id for one in dataset} == {"a", "b"}

    def test_items_without_embeddings_are_embedded(self, tmp_path):
        items = [EmbeddableItem.from_text("A walrus.", id="a", metadata={"source": "a.txt"})]
        uri = str(tmp_path / "kb.lance")
        dataset = self.write(items, uri, document="source", embed=f"hash:{DIM}")
        [hit] = dataset.search("walrus", hybrid=True)
        assert hit.text_content == "A walrus."
        assert dataset.embedder.spec == f"hash:{DIM}"

    def test_an_embedder_that_did_not_make_the_vectors_of_the_dataset_is_refused(self, tmp_path):
        uri = str(tmp_path / "kb.lance")
        self.write([self.item("A walrus.", id="a")], uri, embedder=HashEmbedder(str(DIM)))
        with pytest.raises(ConfigError, match="cannot be compared"):
            self.write([], uri, embedder=HashEmbedder("8"))

    def test_what_cannot_be_stored_is_a_dead_letter_with_its_whole_document(self, tmp_path):
        sparse = self.item("A sparse walrus.", id="s", metadata={"source": "a"})
        sparse.embedding = Embedding(sparse_embedding=([1], [0.5]))
        items = [
            sparse,
            self.item("A walrus.", id="a", metadata={"source": "a"}),
            self.item("A quokka.", id="b", metadata={"source": "b"}),
        ]
        letters = tmp_path / "dead.jsonl"
        given = {"dead_letters": str(letters), "max_failures": 5, "embed_dim": DIM}
        dataset = self.write(items, str(tmp_path / "kb.lance"), document="source", **given)
        assert texts_in(dataset.uri) == {"A quokka."}
        [letter] = [json.loads(line) for line in letters.read_text().splitlines()]
        assert "sparse embedding" in json.dumps(letter)

    def test_both_embedders_at_once_are_refused(self):
        with pytest.raises(ConfigError, match="embedded already"):
            LanceVectorWriterConfig("kb.lance", embedder=HashEmbedder("8"), embed="hash:8")


names = st.text(st.characters(categories=["Ll"]), min_size=1, max_size=8).filter(
    lambda name: name not in ("image", "position", "relationships", "title", "uuid")
)
items = st.builds(
    EmbeddableItem,
    content=st.builds(Content, text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40)),
    id=names,
    index=st.integers(0, 1000),
    metadata=st.dictionaries(names, st.one_of(st.text("ab"), st.integers(-9, 9), st.booleans())),
    embedding=st.one_of(
        st.none(),
        st.builds(
            Embedding,
            dense_embedding=st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4),
        ),
    ),
)


class TestTheWayBack:
    @settings(max_examples=50)
    @given(items)
    def test_an_item_comes_back_as_it_was(self, item):
        batch, errors = encode_records([record_of(item)], embed_dim=4)
        assert not errors
        assert item_of(next(decode_rows(batch))) == item

    def test_an_image_comes_back(self):
        for image in (b"\x89PNG", "gs://bucket/a.png"):
            item = EmbeddableItem.from_image(image, id="a")
            batch, _ = encode_records([record_of(item)], embed_dim=4)
            assert item_of(next(decode_rows(batch))) == item

    @pytest.fixture
    def kb(self, tmp_path):
        uri = str(tmp_path / "kb.lance")
        embedder = HashEmbedder(str(DIM))
        config = LanceVectorWriterConfig(uri, document="source", embedder=embedder)
        run(DOCUMENTS, config, tmp_path)
        return uri

    def test_chunks_are_read_with_their_embeddings(self, kb):
        with beam.Pipeline("FnApiRunner") as pipeline:
            found = pipeline | ReadItems(kb, where={"source_file": None})
            seen = found | beam.Map(lambda one: (one.content.text, len(one.dense_embedding)))
            texts = [text for whole in DOCUMENTS.values() for text in whole.split("\n\n")]
            assert_that(seen, equal_to([(text, DIM) for text in texts]))

    def test_a_filter_that_names_no_column_is_refused_at_once(self, kb):
        with pytest.raises(ConfigError, match="no column sauce"):
            ReadItems(kb, where={"sauce": "x"})

    @pytest.mark.parametrize("mode", ["text", "vector", "hybrid"])
    def test_items_are_enriched_with_what_is_like_them(self, kb, mode):
        handler = LanceSearchHandler(kb, mode=mode, limit=1)
        [vector] = HashEmbedder(str(DIM)).embed(["eats clams"])
        items = [
            EmbeddableItem.from_text("eats clams", id="asked by text"),
            EmbeddableItem(
                Content(text="eats clams"),
                id="asked by vector",
                embedding=Embedding(dense_embedding=[float(n) for n in np.asarray(vector)]),
            ),
        ]
        with beam.Pipeline("FnApiRunner") as pipeline:
            found = (
                pipeline
                | beam.Create(items)
                | Enrichment(handler)
                | beam.Map(lambda item: (item.id, item.metadata["enrichment_data"]["chunks"]))
                | beam.Map(lambda one: (one[0], one[1][0]["text"], one[1][0]["id"]))
            )
            best = ("It eats clams.", "guide.txt#chunk=1")
            assert_that(found, equal_to([(item.id, *best) for item in items]))

    def test_the_filter_may_depend_on_the_item(self, kb):
        handler = LanceSearchHandler(
            kb, where=lambda item: {"title": item.metadata["of"]}, mode="vector"
        )
        item = EmbeddableItem.from_text("walrus", metadata={"of": "other.txt"})
        with beam.Pipeline("FnApiRunner") as pipeline:
            found = (
                pipeline
                | beam.Create([item])
                | Enrichment(handler)
                | beam.FlatMap(lambda one: one.metadata["enrichment_data"]["chunks"])
                | beam.Map(lambda chunk: chunk["text"])
            )
            assert_that(found, equal_to(["A quokka lives on an island."]))

    def test_only_what_the_one_who_asks_may_read_is_found(self, tmp_path):
        dataset = FrameDataset.create(str(tmp_path / "kb.lance"), embed_dim=DIM)
        dataset.add(FrameRecord("plans of Ana", unique_id="a", readers=["user:ana@example.com"]))
        dataset.add(FrameRecord("plans of Ben", unique_id="b", readers=["user:ben@example.com"]))
        item = EmbeddableItem.from_text("plans", metadata={"for": "user:ben@example.com"})

        def found(readers: Any) -> list[str]:
            handler = LanceSearchHandler(dataset.uri, mode="text", readers=readers)
            with handler:
                return [one["text"] for one in handler(item)[1]["chunks"]]

        assert found(["user:ana@example.com"]) == ["plans of Ana"]
        assert found(lambda one: [one.metadata["for"]]) == ["plans of Ben"]
        assert found([]) == []
        with pytest.raises(ConfigError, match="gave None for an item"):
            found(lambda one: one.metadata.get("nobody"))

    def test_an_unknown_mode_is_refused(self):
        with pytest.raises(ConfigError, match="choose text, vector or hybrid"):
            LanceSearchHandler("kb.lance", mode="words")
