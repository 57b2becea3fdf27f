"""Unstructured's ingestion pipeline on this machine, into files of JSON.

.venv-unstructured/bin/python benchmarks/documents_unstructured.py FOLDER STORE NOTE

It partitions with its own parsers, for which it downloads a language model when it first runs. Its
destination for LanceDB cannot be used in this release: it reads the lines of JSON that the step
before it writes as one value.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from documents_peers import CHARACTERS, OVERLAP, done, embed, note
from unstructured_ingest.embed.interfaces import BaseEmbeddingEncoder, EmbeddingConfig
from unstructured_ingest.interfaces import ProcessorConfig
from unstructured_ingest.pipeline.pipeline import Pipeline
from unstructured_ingest.processes.chunker import ChunkerConfig
from unstructured_ingest.processes.connectors.local import (
    LocalConnectionConfig,
    LocalDownloaderConfig,
    LocalIndexerConfig,
    LocalUploaderConfig,
)
from unstructured_ingest.processes.embedder import EmbedderConfig
from unstructured_ingest.processes.partitioner import Partitioner, PartitionerConfig


class _Encoder(BaseEmbeddingEncoder):
    def get_client(self) -> None:
        return None

    def embed_batch(self, client: None, batch: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = embed([*batch]).tolist()
        return vectors


class _Embedder(EmbedderConfig):
    def get_embedder(self) -> BaseEmbeddingEncoder:
        return _Encoder(EmbeddingConfig(batch_size=100))


class _Partitioner(Partitioner):
    """Counts the files."""

    def partition_locally(self, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        done["parsed"] += 1
        elements: list[dict[str, Any]] = super().partition_locally(*args, **kwargs)
        return elements


if __name__ == "__main__":
    folder, store, told = sys.argv[1:]
    pipeline = Pipeline.from_configs(
        context=ProcessorConfig(
            work_dir=str(Path(store, "work")),
            reprocess=True,  # otherwise it keeps what it made of a file of the same name
            disable_parallelism=True,
            raise_on_error=True,
        ),
        source_connection_config=LocalConnectionConfig(),
        indexer_config=LocalIndexerConfig(input_path=folder, recursive=True),
        downloader_config=LocalDownloaderConfig(),
        partitioner_config=PartitionerConfig(partition_by_api=False),
        chunker_config=ChunkerConfig(
            chunking_strategy="by_title",
            chunk_max_characters=CHARACTERS,
            chunk_overlap=OVERLAP,
            chunk_include_orig_elements=False,
        ),
        embedder_config=_Embedder(embedding_provider="huggingface"),
        uploader_config=LocalUploaderConfig(output_dir=str(Path(store, "documents"))),
    )
    step = pipeline.partitioner_step
    step.process = _Partitioner(step.process.config)
    pipeline.run()
    note(told)
