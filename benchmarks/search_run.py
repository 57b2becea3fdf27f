"""Measures search by meaning over chunks of documentation, with an index and without.

The documentation that is installed here (packages of the system and of Python) is ingested by the
product itself, until there are enough chunks. The questions are pieces of a dozen words out of
chunks. What the flat search finds is right; recall is the share of it that the index finds.

With a filter, a share of the chunks is searched, those with the smallest keys.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.frames.embedders import load_embedder
from contextframe_beam.pipelines.vector_index import index_vectors

FOLDERS = (
    "/usr/share/doc",
    f"{sys.prefix}/lib",
    f"{sys.base_prefix}/lib",
    "/usr/share/perl",
    "/usr/lib/node_modules",
)
EMBEDDER = "wordllama"
CHUNK_TOKENS = 128
QUESTIONS = 200
WORDS = 12
LIMIT = 10
LEAST_RECALL = 0.95

T = TypeVar("T")


def measure(chunks: int, folder: Path | None) -> None:
    """Makes the dataset, asks the questions and prints what they cost and find.

    Args:
        chunks: How many chunks there are to be.
        folder: Where the dataset is kept between runs; a temporary one by default.

    Raises:
        SystemExit: the index finds less than it has to.
    """
    with tempfile.TemporaryDirectory() as scratch:
        kept = (folder or Path(scratch)) / f"search-{chunks}.lance"
        if not kept.exists():
            _make(kept, chunks)
        uri = str(Path(scratch) / "measured.lance")
        shutil.copytree(kept, uri)
        recall = _measure(uri)
    if recall < LEAST_RECALL:
        raise SystemExit(f"recall@{LIMIT} is {recall:.3f}, and {LEAST_RECALL} is asked for")


def _make(path: Path, chunks: int) -> None:
    for number, folder in enumerate(FOLDERS):
        if not Path(folder).is_dir():
            continue
        print(f"reading {folder}", flush=True)
        command = [
            *(sys.executable, "-m", "contextframe_beam", "ingest", "files"),
            *("--directory", folder, "--name", f"docs{number}", "--to", str(path)),
            *("--embed", EMBEDDER, "--chunk-tokens", str(CHUNK_TOKENS)),
            *("--max-failures", "100%"),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        dataset = FrameDataset.open(str(path)).lance
        if dataset.count_rows(filter="x_parent IS NOT NULL") >= chunks:
            break
    # Exactly so many, so that runs can be compared.
    dataset = FrameDataset.open(str(path)).lance
    keys = dataset.to_table(columns=["uuid"], filter="x_parent IS NOT NULL")["uuid"].to_pylist()
    if len(keys) < chunks:
        raise SystemExit(f"the documentation of this machine gives {len(keys):,} chunks only")
    surplus = ", ".join(f"'{key}'" for key in sorted(keys)[chunks:])
    if surplus:
        dataset.delete(f"uuid IN ({surplus})")


def _measure(uri: str) -> float:
    dataset = FrameDataset.open(uri)
    embedder = load_embedder(EMBEDDER)
    condition = "x_parent IS NOT NULL"
    texts = dataset.lance.to_table(columns=["text_content"], filter=condition)["text_content"]
    questions = _questions(texts.to_pylist())
    vectors = embedder.embed(questions, "query")
    filters = {"all": None, "1 in 100": _share(dataset, 100), "1 in 1,000": _share(dataset, 1000)}

    def asked(where: Any) -> list[list[str | None]]:
        opened = FrameDataset.open(uri)
        return [[hit.unique_id for hit in opened.nearest(one, LIMIT, where)] for one in vectors]

    flat = {name: _timed(lambda where=where: asked(where)) for name, where in filters.items()}
    receipt, built = _timed(lambda: index_vectors(uri))
    print(f"\n{len(texts):,} chunks; index of {receipt.parts} parts made in {built:.1f} CPU s")
    print(f"{'filter':12} {'flat ms':>9} {'index ms':>9} {'recall@10':>10}")
    recalls = {}
    for name, where in filters.items():
        found, seconds = _timed(lambda where=where: asked(where))
        right, flat_seconds = flat[name]
        recalls[name] = _recall(found, right)
        each = [1000 * one / len(vectors) for one in (flat_seconds, seconds)]
        print(f"{name:12} {each[0]:9.1f} {each[1]:9.1f} {recalls[name]:10.3f}")
    opened = FrameDataset.open(uri)
    opened.search(questions[0])
    for name, is_hybrid in {"text": False, "hybrid": True}.items():
        ask = partial(opened.search, hybrid=is_hybrid)
        _, seconds = _timed(lambda ask=ask: [ask(one) for one in questions])
        print(f"{name:12} {'':9} {1000 * seconds / len(questions):9.1f}")
    new = -vectors[0]
    dataset.add(FrameRecord("new", unique_id="new", vector=new))
    first = FrameDataset.open(uri).nearest(new)[0].unique_id
    print(f"a row that came after the index is found first: {first == 'new'}")
    return min(recalls.values())


def _questions(texts: Sequence[str]) -> list[str]:
    chance = random.Random(20261101)
    found: list[str] = []
    while len(found) < QUESTIONS:
        words = chance.choice(texts).split()
        start = chance.randrange(max(len(words) - WORDS, 0) + 1)
        if len(words) >= WORDS:
            found.append(" ".join(words[start : start + WORDS]))
    return found


def _share(dataset: FrameDataset, parts: int) -> str:
    """Returns a filter that a share of the chunks fulfils, those with the smallest keys."""
    keys = dataset.lance.to_table(columns=["uuid"], filter="x_parent IS NOT NULL")["uuid"]
    ordered = sorted(keys.to_pylist())
    return f"uuid < '{ordered[len(ordered) // parts]}'"


def _recall(found: list[list[str | None]], right: list[list[str | None]]) -> float:
    shares = [len(set(a) & set(b)) / max(len(b), 1) for a, b in zip(found, right, strict=True)]
    return sum(shares) / len(shares)


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    """Returns what a call gives, and its processor seconds."""
    start = time.process_time()
    return call(), time.process_time() - start
