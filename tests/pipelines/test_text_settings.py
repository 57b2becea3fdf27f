"""Settings of chunks and vectors travel with the dataset: runs take what they are not told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors import FilesConnector
from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.embedders import EmbedderError
from contextframe_beam.pipelines.embed import embed
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.store.state import CommitReceipt
from contextframe_beam.transforms import WriteToLance
from tests.support.cli_helpers import assert_error, cli
from tests.support.embedding_server import embedding_server
from tests.support.vector_helpers import paragraphs

HASH = "hash:16"
FUSSY = "tests.support.vector_helpers:Fussy"


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """Returns a folder with one document, of two chunks of at most 16 tokens."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text(paragraphs("one", "two"))
    return tmp_path / "docs"


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    return tmp_path / "kb.lance"


def run(docs: Path, kb: Path, **settings: Any) -> CommitReceipt:
    return ingest(FilesConnector(str(docs)), str(kb), **settings)


def add(docs: Path) -> None:
    (docs / "b.md").write_text(paragraphs("three", "four", "five"))


class TestHowDocumentsAreCut:
    @pytest.mark.parametrize("embedder", ["none", HASH])
    def test_is_known_to_a_run_that_is_not_told(
        self, embedder: str, docs: Path, kb: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        run(docs, kb, chunk_tokens=16, embed=embedder)
        add(docs)
        again = run(docs, kb)
        assert (again.parsed, again.chunks) == (1, 3)
        assert not caplog.records

    def test_can_be_changed_and_says_what_that_does(
        self, docs: Path, kb: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        run(docs, kb, chunk_tokens=16, embed=HASH)
        changed = run(docs, kb, chunk_tokens=64)
        assert (changed.parsed, changed.chunks) == (1, 1)
        (told,) = caplog.messages
        assert "markdown into chunks of 16 tokens" in told
        assert "markdown into chunks of 64 tokens" in told
        assert "made anew" in told
        assert run(docs, kb).parsed == 0

    def test_can_be_that_they_stay_whole(self, docs: Path, kb: Path) -> None:
        run(docs, kb, chunk="none", embed=HASH)
        add(docs)
        assert run(docs, kb).chunks == 0

    def test_of_a_class_has_to_be_named_again(self, docs: Path, kb: Path) -> None:
        lines = "contextframe_beam.transforms.chunkers:MarkdownChunker"
        run(docs, kb, chunk=lines)
        with pytest.raises(ConfigError, match=lines):
            run(docs, kb)
        assert run(docs, kb, chunk=lines).parsed == 0


class TestAfterEmbed:
    @pytest.mark.sample(2)
    @pytest.mark.parametrize(
        "first",
        [
            pytest.param({}, id="nothing was made of texts"),
            pytest.param({"chunk_tokens": 16, "embed": "none"}, id="they were cut"),
            pytest.param({"chunk_tokens": 16, "embed": "hash:8"}, id="they were embedded"),
        ],
    )
    def test_documents_are_recognised(self, first: dict[str, Any], docs: Path, kb: Path) -> None:
        run(docs, kb, **first)
        before = len(FrameDataset.open(str(kb)))
        embed(str(kb), HASH)
        again = run(docs, kb)
        assert (again.parsed, again.rows_written, again.texts_embedded) == (0, 0, 0)
        add(docs)
        assert run(docs, kb).parsed == 1
        assert run(docs, kb).parsed == 0
        assert len(FrameDataset.open(str(kb))) > before

    def test_and_embed_again_too(self, docs: Path, kb: Path) -> None:
        run(docs, kb, chunk_tokens=16, embed="hash:8")
        for embedder in (HASH, "hash:8", HASH):
            embed(str(kb), embedder)
            assert run(docs, kb).parsed == 0


class TestSettingsOfTheEmbedder:
    def test_are_those_of_later_runs_and_searches(self, docs: Path, kb: Path) -> None:
        with embedding_server() as service:
            run(
                docs,
                kb,
                chunk_tokens=64,
                embed="openai:m",
                embed_url=f"{service.url}/v1",
                embed_options={"passage_prefix": "passage: ", "query_prefix": "query: "},
            )
            add(docs)
            assert run(docs, kb).texts_embedded == 1
            assert FrameDataset.open(str(kb)).search("three", vector=True)
            passages = [text for text in service.texts if text.startswith("passage: ")]
            assert len(passages) == 2
            assert service.texts[-1] == "query: three"

    def test_are_kept_by_embed(self, docs: Path, kb: Path) -> None:
        run(docs, kb)
        with embedding_server() as service:
            options = {"query_prefix": "query: "}
            embed(str(kb), "openai:m", embed_url=f"{service.url}/v1", embed_options=options)
            assert FrameDataset.open(str(kb)).search("one", vector=True)
            assert service.texts[-1] == "query: one"

    def test_never_hold_a_credential(self, docs: Path, kb: Path) -> None:
        for wrong in (
            {"embed_url": "https://ada:s3cret-word@models.example.com/v1"},
            {"embed_key": "s3cret-word"},
            {"embed_options": {"headers": {"X-Api-Key": "s3cret-word"}}},
        ):
            with pytest.raises(ConfigError) as raised:
                WriteToLance(str(kb), embed="openai:m", **wrong)  # type: ignore[arg-type]
            assert "s3cret-word" not in str(raised.value)

    @pytest.mark.parametrize("options", ["[]", "{", '{"url": "http://x"}', '{"dim": 8}'])
    def test_that_make_no_sense_are_refused(self, options: str, kb: Path) -> None:
        with pytest.raises(ConfigError):
            WriteToLance(str(kb), embed="openai:m", embed_url="http://x/v1", embed_options=options)

    def test_that_it_does_not_know_are_refused(self, kb: Path) -> None:
        with pytest.raises(ConfigError, match="colour"):
            WriteToLance(str(kb), embed=HASH, embed_options={"colour": "red"})


def test_a_class_is_imported_only_where_a_user_names_it(docs: Path, kb: Path) -> None:
    run(docs, kb, chunk_tokens=16, embed=FUSSY)
    for command in (
        ("ingest", "files", "--directory", docs, "--to", kb),
        ("embed", kb),
        ("search", kb, "one", "--vector"),
    ):
        assert_error(cli(*command), 2, FUSSY)
        assert cli(*command, "--embed", FUSSY).code == 0


def test_a_recorded_key_is_sent_to_a_recorded_address_only_where_it_is_given(
    docs: Path, kb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELS_KEY", "models-key-1")
    with embedding_server() as service:
        service.key = "models-key-1"
        key = {"embed_key": "env:MODELS_KEY"}
        run(docs, kb, embed="openai:m", embed_url=f"{service.url}/v1", **key)
        sent = len(service.requests)
        dataset = FrameDataset.open(str(kb))
        with pytest.raises(ConfigError, match="env:MODELS_KEY"):
            dataset.search("one", vector=True)
        assert len(service.requests) == sent
        assert dataset.search("one", vector=True, **key)
        service.key = "another"
        with pytest.raises(EmbedderError):
            dataset.search("one", vector=True, **key)
