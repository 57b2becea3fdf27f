"""Chunks and vectors from the command line: `ingest` with an embedder, and `embed`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.frames.embedders import EmbedderIdentity
from contextframe_beam.transforms.embedders import HashEmbedder, VectorCache
from tests.support.cli_helpers import assert_error, cli
from tests.support.embedding_server import embedding_server
from tests.support.vector_helpers import paragraphs, vectors_in

HASH = ("--embed", "hash:16")


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """Returns a folder with two documents, of two chunks and of one."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for name, text in {"a": paragraphs("one", "two"), "b": paragraphs("three")}.items():
        (folder / f"{name}.json").write_text(json.dumps({"id": name, "text": text}))
    return folder


def ingest(docs: Path, kb: Path, *more: Any) -> Any:
    given = ("json", "--directory", docs, "--to", kb, "--chunk-tokens", 16)
    return cli("ingest", *given, *more)


def test_the_receipt_says_what_was_done_in_words(docs: Path, tmp_path: Path) -> None:
    kb = tmp_path / "kb.lance"
    first = ingest(docs, kb, *HASH)
    assert first.code == 0
    assert "2 documents, 3 chunks, 3 texts embedded" in first.out
    (docs / "b.json").write_text(json.dumps({"id": "b", "text": paragraphs("three", "four")}))
    again = ingest(docs, kb)
    assert "1 text embedded, 1 text known before" in again.out


def test_the_receipt_as_json_has_the_counts(docs: Path, tmp_path: Path) -> None:
    receipt = json.loads(ingest(docs, tmp_path / "kb.lance", *HASH, "--json").out)
    wanted = {"documents": 2, "chunks": 3, "texts_embedded": 3, "texts_reused": 0, "requests": 0}
    assert {name: receipt[name] for name in wanted} == wanted
    assert receipt["tokens"] > 0
    assert receipt["rows_written"] == 2


def test_a_dry_run_counts_before_anything_is_paid(docs: Path, tmp_path: Path) -> None:
    kb = tmp_path / "kb.lance"
    with embedding_server() as service:
        service_at = ("--embed", "openai:m", "--embed-url", f"{service.url}/v1")
        told = ingest(docs, kb, *service_at, "--dry-run")
        assert told.code == 0
        assert "dry run: 2 documents, 3 chunks, 3 texts to embed, with about" in told.out
        counted = json.loads(ingest(docs, kb, *service_at, "--dry-run", "--json").out)
        assert not service.requests
    assert (counted["dry_run"], counted["chunks"], counted["version"]) == (True, 3, 0)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["docs"]


def test_documents_and_chunks_are_told_apart(docs: Path, tmp_path: Path) -> None:
    kb = tmp_path / "kb.lance"
    ingest(docs, kb, *HASH)
    dataset = FrameDataset.open(str(kb))
    assert dataset.contents == (2, 3)
    assert len(dataset) == len(list(dataset)) == 5
    assert "it holds 2 documents, 3 chunks\n" in cli("search", kb, "walrus").out
    assert "which knows 3 vectors " in cli("index", kb, "--vector").out
    assert "2 documents, 3 chunks, version" in cli("inspect", kb).out
    assert "\n3 chunks, 3 texts embedded\n" in cli("embed", kb, "--embed", "hash:8").out
    told = json.loads(cli("embed", kb, "--json").out)
    assert (told["documents"], told["chunks"]) == (0, 3)
    assert "3 embedded" in cli("inspect", kb).out


def test_another_embedder_is_refused_with_both_names(docs: Path, tmp_path: Path) -> None:
    kb = tmp_path / "kb.lance"
    ingest(docs, kb, *HASH)
    refused = ingest(docs, kb, "--embed", "hash:32")
    assert_error(refused, 2, "hash:16", "hash:32", "contextframe-beam embed", "--embed out")


def test_a_key_that_is_refused_ends_at_once(docs: Path, tmp_path: Path, monkeypatch: Any) -> None:
    kb = tmp_path / "kb.lance"
    monkeypatch.setenv("EMBED_KEY", "sk-wrong-1234567")
    with embedding_server(key="right") as service:
        given = ("--embed", "openai:m", "--embed-url", f"{service.url}/v1", "--embed-dim", 16)
        refused = ingest(docs, kb, *given, "--embed-key", "env:EMBED_KEY")
    assert_error(refused, 1, "401")
    assert "sk-wrong" not in refused.err
    assert len(service.requests) == 1
    assert sorted(one.name for one in tmp_path.iterdir()) == ["docs", "kb.lance.runs"]


def test_a_limit_of_tokens_stops_before_the_commit(docs: Path, tmp_path: Path) -> None:
    refused = ingest(docs, tmp_path / "kb.lance", *HASH, "--max-tokens", 5)
    assert_error(refused, 1, "--max-tokens", "nothing was committed")
    assert not (tmp_path / "kb.lance").exists()


def test_options_that_say_nothing_are_refused(docs: Path, tmp_path: Path) -> None:
    refused = ingest(docs, tmp_path / "kb.lance", "--embed-url", "http://localhost/v1")
    assert_error(refused, 2, "--embed-url says nothing without an embedder", "--embed")
    refused = ingest(docs, tmp_path / "kb.lance", *HASH, "--embed-key", "sk-12345678901234567")
    assert_error(refused, 2, "--embed-key", "env:OPENAI_API_KEY")
    assert "sk-123" not in refused.err


def test_embed_makes_all_vectors_again(docs: Path, tmp_path: Path) -> None:
    kb = tmp_path / "kb.lance"
    ingest(docs, kb, *HASH)
    done = cli("embed", kb, "--embed", "hash:32")
    assert done.code == 0
    assert f"{kb} has vectors of hash:32 (32 dimensions" in done.out
    assert "3 chunks, 3 texts embedded" in done.out
    assert {len(vector) for vector in vectors_in(kb).values()} == {32}
    told = json.loads(cli("embed", kb, "--json").out)
    assert (told["texts_embedded"], told["texts_reused"], told["chunks"]) == (0, 3, 3)
    facts = json.loads(cli("inspect", kb, "--json").out)
    assert EmbedderIdentity(**facts["embedder"]).spec == "hash:32"
    assert "vectors of 32 by hash:32" in cli("inspect", kb).out


def test_embed_counts_first_if_asked(docs: Path, tmp_path: Path) -> None:
    kb = tmp_path / "kb.lance"
    ingest(docs, kb, *HASH)
    told = cli("embed", kb, "--embed", "hash:32", "--dry-run")
    assert "dry run: 3 chunks, 3 texts to embed, with about" in told.out
    assert_error(cli("embed", tmp_path / "none.lance", *HASH), 1, "no dataset")


def test_cleanup_removes_vectors_that_nobody_went_on_with(docs: Path, tmp_path: Path) -> None:
    kb = tmp_path / "kb.lance"
    ingest(docs, kb, *HASH)
    embedder = HashEmbedder("16")
    cache = VectorCache(str(kb), embedder.identity)
    cache.put([b"k" * 16], embedder.embed(["a text"]))
    cache.flush()
    kept = json.loads(cli("cleanup", kb, "--json").out)
    assert (kept["lost_files"], Path(f"{kb}.vectors").exists()) == (0, True)
    command = ("cleanup", kb, "--lost-after", "0s", "--no-writers", "--json")
    assert json.loads(cli(*command, "--dry-run").out)["lost_files"] == 1
    assert json.loads(cli(*command).out)["lost_files"] == 1
    assert not Path(f"{kb}.vectors").exists()
