"""LangChain's `index` with its record manager, full cleanup, into a LanceDB table.

.venv-langchain/bin/python benchmarks/documents_langchain.py FOLDER STORE NOTE
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from documents_peers import embed, files_in, note, parse, splitter
from langchain_classic.indexes import SQLRecordManager
from langchain_community.vectorstores import LanceDB
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import index


class _Vectors(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = embed(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def _chunks(folder: str) -> Iterator[Document]:
    cutter = splitter()
    for file in files_in(folder):
        source = str(file.relative_to(folder))
        for text in cutter.split_text(parse(file.name, file.read_text())):
            yield Document(page_content=text, metadata={"source": source})


if __name__ == "__main__":
    folder, store, told = sys.argv[1:]
    Path(store).mkdir(parents=True, exist_ok=True)
    records = SQLRecordManager("documents", db_url=f"sqlite:///{store}/records.sqlite")
    records.create_schema()
    # Its own default would overwrite the table with each batch.
    table = LanceDB(uri=store, embedding=_Vectors(), table_name="chunks", mode="append")
    index(
        _chunks(folder),
        records,
        table,
        cleanup="full",
        source_id_key="source",
        key_encoder="sha256",
    )
    note(told)
