"""LlamaIndex's ingestion pipeline with `upserts_and_delete`, into a LanceDB table.

.venv-llamaindex/bin/python benchmarks/documents_llamaindex.py FOLDER STORE NOTE
"""

from __future__ import annotations

import sys
from pathlib import Path

from documents_peers import embed, files_in, note, parse, splitter
from llama_index.core import Document
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import LangchainNodeParser
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.vector_stores.lancedb import LanceDBVectorStore


class _Vectors(BaseEmbedding):
    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = embed(texts).tolist()
        return vectors

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


if __name__ == "__main__":
    folder, store, told = sys.argv[1:]
    known = Path(store, "documents.json")
    documents = (
        SimpleDocumentStore.from_persist_path(str(known))
        if known.exists()
        else SimpleDocumentStore()
    )
    pipeline = IngestionPipeline(
        transformations=[LangchainNodeParser(splitter()), _Vectors(embed_batch_size=100)],
        # It makes the table in one of its modes, and adds to it in the other.
        vector_store=LanceDBVectorStore(
            uri=store, table_name="chunks", mode="append" if known.exists() else "create"
        ),
        docstore=documents,
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
    )
    pipeline.run(
        documents=[
            Document(id_=str(file.relative_to(folder)), text=parse(file.name, file.read_text()))
            for file in files_in(folder)
        ]
    )
    documents.persist(str(known))
    note(told)
