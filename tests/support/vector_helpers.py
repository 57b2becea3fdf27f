"""Documents with texts for runs that embed, and what a dataset holds of them afterwards."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lance
import numpy as np
import xxhash

from contextframe_beam.frames.embedders import EmbedderIdentity, EmbeddingError, Kind, Vectors
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.store.state import CommitReceipt
from contextframe_beam.transforms.embedders import HashEmbedder
from tests.support.pipeline_helpers import documents


def paragraphs(*words: str) -> str:
    """Returns a text that is cut into a chunk for each word, with chunks of 16 tokens."""
    return "\n\n".join(f"# {word}\n\nThis is what there is to say about {word}." for word in words)


def ingest_texts(texts: Mapping[str, str], to: Path, **settings: Any) -> CommitReceipt:
    """Ingests documents with these texts by id, in chunks of 16 tokens unless told otherwise."""
    items = [{"id": name, "text": text} for name, text in texts.items()]
    if settings.get("embed") != "none":
        settings = {"chunk": "markdown", "chunk_tokens": 16, **settings}
    return ingest(documents(*items), str(to), **settings)


def rows_in(kb: Path) -> dict[str, dict[str, Any]]:
    """Returns the documents and chunks of a dataset by their id, without `doc:`."""
    rows = lance.dataset(str(kb)).to_table(filter="x_state IS NULL").to_pylist()
    found = {str(row["uri"]).removeprefix("doc:"): row for row in rows}
    assert len(found) == len(rows)
    return found


def vectors_in(kb: Path) -> dict[str, Any]:
    """Returns the vector of each row that has one, by the row's text."""
    return {
        row["text_content"]: np.array(row["vector"], np.float32)
        for row in rows_in(kb).values()
        if row["vector"] is not None
    }


class Noisy:
    """Gives vectors that differ a little each time, as services do."""

    version = "1"
    identity = EmbedderIdentity(
        "tests.support.vector_helpers:Noisy", "", 8, "cosine", True, "f" * 32
    )
    dim = 8
    max_tokens = None
    pays_to_cache = False
    calls = 0

    def embed(self, texts: list[str], kind: Kind = "passage") -> Vectors:
        """Returns vectors of the hash embedder, moved by about a thousandth."""
        Noisy.calls += 1
        vectors = HashEmbedder("8").embed(texts)
        return (vectors + 1e-3 * Noisy.calls).astype(np.float32)

    def count(self, texts: list[str]) -> list[int]:
        """Returns the words of each text."""
        return [len(text.split()) for text in texts]


class Fussy(Noisy):
    """Does not take texts about walruses."""

    identity = EmbedderIdentity(
        "tests.support.vector_helpers:Fussy", "", 8, "cosine", True, "e" * 32
    )

    def embed(self, texts: list[str], kind: Kind = "passage") -> Vectors:
        """Returns vectors, unless a text is about a walrus."""
        if any("walrus" in text for text in texts):
            raise EmbeddingError("no walruses")
        return HashEmbedder("8").embed(texts)


class Counted(Noisy):
    """Notes the process in which it is made, in the file that MODELS_LOADED names."""

    identity = EmbedderIdentity(f"{__name__}:Counted", "", 8, "cosine", True, "d" * 32)

    def __init__(self) -> None:
        with open(os.environ["MODELS_LOADED"], "a", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n")


def text_digest(text: str) -> bytes:
    """Returns what the column x_text holds for a text."""
    return xxhash.xxh3_128_digest(text.encode())
