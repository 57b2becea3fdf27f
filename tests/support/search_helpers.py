"""Datasets of documents and chunks with vectors, as a run that chunks and embeds writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.frames.embedders import Embedder, EmbedderIdentity
from contextframe_beam.frames.record import uuid_of
from contextframe_beam.frames.text_record import TextRecord
from contextframe_beam.store.state import state_rows
from contextframe_beam.transforms.embedders.hashing import HashEmbedder

DIM = 64


def hash_embedder(dim: int = DIM) -> Embedder:
    return HashEmbedder(str(dim))


def frames_of(
    name: str, texts: Sequence[str], embedder: Embedder, **metadata: Any
) -> list[FrameRecord]:
    """Returns a document and a chunk for each of its texts, with vectors."""
    document = FrameRecord(
        "\n\n".join(texts), {"title": name, "source_file": name, **metadata}, unique_id=name
    )
    vectors = embedder.embed(list(texts))
    chunks = [
        FrameRecord(
            text,
            {"title": f"{name} > {number}", "position": number, "source_file": name, **metadata},
            unique_id=f"{name}#chunk={number}",
            vector=vector,
            parent=uuid_of(name),
            embedder=embedder.identity.fingerprint,
        )
        for number, (text, vector) in enumerate(zip(texts, vectors, strict=True))
    ]
    return [document, *chunks]


def make_library(
    uri: str,
    documents: Mapping[str, Sequence[str]],
    embedder: Embedder | None = None,
    recorded: bool = True,
) -> FrameDataset:
    """Makes a dataset of documents, each cut into the texts that are given for it."""
    embedder = embedder or hash_embedder()
    dataset = FrameDataset.create(uri, embed_dim=embedder.dim)
    dataset.add_many(
        frame for name, texts in documents.items() for frame in frames_of(name, texts, embedder)
    )
    if recorded:
        record_embedder(uri, embedder.identity)
    return FrameDataset.open(uri)


def record_embedder(uri: str, identity: EmbedderIdentity) -> None:
    rows = state_rows([], anchor=False, embed_dim=identity.dim, texts=TextRecord(identity))
    lance.write_dataset(pa.Table.from_batches([rows]), uri, mode="append")


def random_library(uri: str, rows: int, dim: int, groups: int = 0) -> tuple[FrameDataset, Any]:
    """Makes a dataset of random unit vectors around some centres, and returns the vectors too."""
    chance = np.random.default_rng(7)
    centres = chance.normal(size=(50, dim))
    vectors = centres[chance.integers(0, 50, rows)] + 0.5 * chance.normal(size=(rows, dim))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    dataset = FrameDataset.create(uri, embed_dim=dim)
    dataset.add_many(
        FrameRecord(
            f"text {number}",
            {"collection": f"group {number % groups}"} if groups else {},
            unique_id=str(number),
            vector=vector,
        )
        for number, vector in enumerate(vectors)
    )
    identity = EmbedderIdentity("own:Model", "", dim, "cosine", True, "f" * 32)
    record_embedder(uri, identity)
    return FrameDataset.open(uri), vectors
