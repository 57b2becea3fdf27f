"""`search` by meaning and by both, and `index --vector`, from the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.pipelines.cli import show
from contextframe_beam.pipelines.embed import embed
from contextframe_beam.pipelines.vector_index import index_vectors
from contextframe_beam.store import vector_index
from contextframe_beam.transforms.embedders import OpenAIEmbedder
from tests.store.test_search import GUIDE
from tests.support.cli_helpers import assert_error, cli
from tests.support.embedding_server import embedding_server
from tests.support.pipeline_helpers import EVERY_WAY
from tests.support.search_helpers import frames_of, hash_embedder, make_library, random_library


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("guide") / "kb.lance")
    make_library(path, GUIDE).search("walrus")
    return path


@pytest.fixture
def kb(guide: str, tmp_path: Path) -> str:
    return str(shutil.copytree(guide, str(tmp_path / "kb.lance")))


class TestSearch:
    @pytest.mark.parametrize("flags", [[], ["--hybrid"], ["--vector"]])
    def test_shows_the_heading_path_the_chunk_and_its_passage(self, guide, flags):
        result = cli("search", guide, "Linux package walrus", "--limit", 1, *flags)
        assert result.code == 0, result.err
        head, place, passage = result.out.splitlines()
        assert float(head.split()[0]) > 0
        assert head.endswith("install.md > 1")
        assert place.strip() == "install.md#chunk=1"
        assert passage.strip() == "On Linux the package is called walrus."

    def test_parents_shows_each_document_once(self, guide):
        hits = cli("search", guide, "walrus file", "--hybrid", "--parents", "--json").json
        assert len({hit["parent"] for hit in hits}) == len(hits) == 3

    def test_context_shows_the_chunks_around(self, guide):
        shown = cli("search", guide, "tables", "--context", 1).out.splitlines()
        assert [line.strip() for line in shown[2:]] == GUIDE["use.md"]
        [hit] = cli("search", guide, "tables", "--context", 1, "--json").json
        assert (hit["before"], hit["after"]) == ([GUIDE["use.md"][0]], [GUIDE["use.md"][2]])

    def test_where_leaves_out_what_is_near_in_meaning_too(self, guide):
        where = "source_file = 'colours.md'"
        hits = cli("search", guide, "walrus", "--vector", "--json", "--where", where).json
        assert [hit["source_file"] for hit in hits] == ["colours.md"]

    def test_nothing_found_by_meaning_says_what_the_filter_left_out(self, guide):
        result = cli("search", guide, "walrus", "--vector", "--where", "author = 'Ada'")
        assert result.code == 0
        assert "Without --where there are 7 documents" in result.err

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (["--hybrid", "--vector"], "by meaning only"),
            (["--context", "-1"], "is not a number of chunks"),
            (["--vector", "--embed", "hash:32"], "are of hash:64"),
            (["--vector", "--embed", "hush:64"], "there is no embedder 'hush'"),
        ],
    )
    def test_what_cannot_be_asked(self, guide, flags, said):
        assert_error(cli("search", guide, "walrus", *flags), 2, said)

    def test_an_embedder_that_moved_is_asked_where_it_is(self, tmp_path, monkeypatch):
        monkeypatch.setenv("OWN_KEY", "k-1")
        with embedding_server(dim=16, key="k-1") as service:
            given = {"url": f"{service.url}/v1", "key": "env:OWN_KEY"}
            kb = str(tmp_path / "kb.lance")
            make_library(kb, GUIDE, OpenAIEmbedder("small", dim=16, **given))
        with embedding_server(dim=16, key="k-1") as moved:
            flags = ["--embed-url", f"{moved.url}/v1", "--embed-key", "env:OWN_KEY"]
            hits = cli("search", kb, "walrus tables", "--hybrid", "--json", *flags).json
            assert hits[0]["unique_id"] == "use.md#chunk=1"
            assert moved.texts == ["walrus tables"]

    def test_words_of_the_question_are_marked(self):
        marked = show._with_words("The Walrus file", {"walrus"})
        assert marked.markup == "The [bold]Walrus[/bold] file"


class TestIndexVector:
    def test_it_is_made_once_and_then_brought_up_to_date(self, kb):
        first = cli("index", kb, "--vector")
        assert first.out.startswith(f"made the vector index of {kb}, which knows ")
        assert "about as fast without it" in first.err
        assert cli("index", kb, "--vector").out.startswith("there is a vector index already")
        dataset = FrameDataset.open(kb)
        dataset.add_many(frames_of("new.md", ["A new walrus."], hash_embedder()))
        told = cli("index", kb, "--vector", "--json").json
        assert (told["made"], told["updated"]) == (False, True)
        hits = cli("search", kb, "A new walrus.", "--vector", "--json").json
        assert hits[0]["unique_id"] == "new.md#chunk=0"

    def test_a_dataset_without_vectors_is_refused(self, tmp_path):
        kb = str(tmp_path / "kb.lance")
        FrameDataset.create(kb, embed_dim=8)
        assert_error(cli("index", kb, "--vector"), 2, "holds no vectors")

    @pytest.mark.parametrize(
        "flags", [["--vector", "--language", "de"], ["--workers", "2"], ["--runner", "FlinkRunner"]]
    )
    def test_flags_of_the_other_index_are_refused(self, kb, flags):
        assert cli("index", kb, *flags).code == 2

    @EVERY_WAY
    def test_several_parts_are_made_in_parallel_and_committed_at_once(self, tmp_path, how):
        dataset, vectors = random_library(str(tmp_path / "kb.lance"), 400, 8)
        for number in range(2):
            dataset.add_many(
                FrameRecord("more", unique_id=f"{number}-{n}", vector=-vectors[n])
                for n in range(number * 100, number * 100 + 100)
            )
        before = dataset.version
        receipt = index_vectors(dataset.uri, task_rows=1, **how)
        assert (receipt.parts, receipt.version) == (3, before + 1)
        dataset = FrameDataset.open(dataset.uri)
        for n in (0, 150):
            assert dataset.nearest(-vectors[n])[0].unique_id == f"{n // 100}-{n}"
            assert dataset.nearest(vectors[n])[0].unique_id == str(n)

    def test_a_dataset_that_is_embedded_anew_is_searched_by_its_new_vectors(self, kb):
        cli("index", kb, "--vector")
        for spec in ("hash:128", "hash:64"):
            embed(kb, spec)
            hits = cli("search", kb, "A walrus file holds many tables.", "--vector", "--json").json
            assert hits[0]["unique_id"] == "use.md#chunk=1"
            assert hits[0]["score"] == pytest.approx(1, abs=1e-5)
            assert cli("index", kb, "--vector", "--json").json["made"]


class TestWhenAnIndexPays:
    @pytest.fixture
    def few_are_many(self, monkeypatch):
        monkeypatch.setattr(vector_index, "WORTH_AN_INDEX", 3)

    def test_a_run_says_so_until_there_is_one(self, tmp_path, few_are_many):
        folder = tmp_path / "guide"
        folder.mkdir()
        for number in range(4):
            (folder / f"{number}.md").write_text(f"# Walrus {number}\n\nA walrus, number {number}.")
        kb = str(tmp_path / "kb.lance")
        ingest = ("ingest", "files", "--directory", folder, "--to", kb, "--embed", "hash:16")
        said = f"4 vectors are compared one by one in each search; `contextframe-beam index {kb}"
        assert said in cli(*ingest).out
        cli("index", kb, "--vector")
        (folder / "0.md").write_text("# Quokka\n\nA quokka.")
        assert "one by one" not in cli(*ingest).out
        told = cli(*ingest, "--full", "--json").json
        assert "vectors_without_index" not in told

    def test_a_small_dataset_says_nothing(self, kb):
        assert vector_index.vectors_without_index(FrameDataset.open(kb).lance) == 0

    def test_vectors_that_others_made_are_not_counted(self, tmp_path, few_are_many):
        dataset, _ = random_library(str(tmp_path / "kb.lance"), 10, 8)
        assert vector_index.vectors_without_index(dataset.lance) == 0
