"""Loaders of LangChain and readers of LlamaIndex as sources."""

from __future__ import annotations

import os
import pickle
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.connectors.loaders.connector import LoaderConnector
from contextframe_beam.connectors.loaders.langchain import LangChainConnector
from contextframe_beam.connectors.loaders.llamaindex import LlamaIndexConnector
from contextframe_beam.connectors.loaders.objects import build, find, plain, with_file
from contextframe_beam.connectors.testing import ConnectorTests
from contextframe_beam.errors import ConfigError, ConnectorError, TooManyFailures
from contextframe_beam.pipelines.ingest import ingest

pytest.importorskip("langchain_core")
OWN = "tests.support.own_loaders"
OLD = 1_600_000_000


def put(folder: Path, name: str, text: str, age: int = 0) -> None:
    """Writes a file that was changed long ago, so that a run can tell that it stays the same."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (OLD + age, OLD + age))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    put(folder, "one.txt", "alpha\nbeta")
    put(folder, "sub/two.txt", "gamma")
    return folder


def lines(site: Path, **settings: Any) -> LangChainConnector:
    return LangChainConnector(f"{OWN}:Lines", files=f"{site}/**/*.txt", **settings)


def stored(to: Path) -> dict[str, FrameRecord]:
    """Returns what a dataset holds, by ids without the folder of the test."""
    folder = f"{to.parent}/"
    return {str(one.unique_id).replace(folder, ""): one for one in FrameDataset.open(str(to))}


def run(connector: LoaderConnector, to: Path, **how: Any) -> Any:
    return ingest(connector, str(to), embed_dim=2, **how)


class TestFiles:
    def test_each_file_gets_a_loader_and_its_documents_their_places_as_ids(self, site, kb):
        assert run(lines(site), kb).rows_written == 3
        found = stored(kb)
        assert {name: one.text_content for name, one in found.items()} == {
            "langchain:site/one.txt": "alpha",
            "langchain:site/one.txt#1": "beta",
            "langchain:site/sub/two.txt": "gamma",
        }
        told = found["langchain:site/sub/two.txt"]
        assert told.metadata["source_file"] == str(site / "sub/two.txt")
        assert told.metadata["at"] == str(site / "sub/two.txt")
        assert str(told.timestamp).startswith("2020-09-13T12:26:40")

    def test_files_that_did_not_change_are_not_read_again(self, site, kb):
        run(lines(site), kb)
        put(site, "one.txt", "alpha\nbeta\ndelta", age=1)
        receipt = run(lines(site), kb)
        assert (receipt.rows_written, receipt.rows_replaced, receipt.rows_unchanged) == (3, 2, 0)
        assert len(stored(kb)) == 4

    def test_what_a_changed_file_no_longer_holds_is_deleted(self, site, kb):
        run(lines(site), kb)
        put(site, "one.txt", "alpha", age=1)
        assert run(lines(site), kb).rows_deleted == 1
        assert set(stored(kb)) == {"langchain:site/one.txt", "langchain:site/sub/two.txt"}

    def test_a_mirror_deletes_what_a_removed_file_held(self, site, kb):
        run(lines(site), kb)
        (site / "one.txt").unlink()
        assert run(lines(site), kb).rows_deleted == 0
        receipt = run(lines(site), kb, mode="mirror", max_deletes="100%")
        assert (receipt.rows_deleted, receipt.rows_unchanged) == (2, 1)

    def test_a_file_that_fails_keeps_what_is_stored_and_is_tried_again(self, site, kb):
        run(lines(site), kb)
        put(site, "one.txt", "alpha\nboom", age=1)
        put(site, "sub/two.txt", "epsilon", age=1)
        receipt = run(lines(site), kb, max_failures="60%")
        assert (receipt.failed, receipt.rows_deleted, len(stored(kb))) == (1, 0, 3)
        assert "this line fails" in receipt.reasons[0].message
        put(site, "one.txt", "zeta", age=1)
        assert run(lines(site), kb).rows_deleted == 1

    def test_other_arguments_read_all_files_again(self, site, kb):
        run(lines(site, prefix="notes"), kb)
        assert run(lines(site, prefix="notes"), kb).rows_unchanged == 0
        assert run(lines(site, prefix="notes"), kb, full=True).rows_unchanged == 3

    def test_a_mistake_in_the_arguments_is_told_and_commits_nothing(self, site, kb):
        with pytest.raises(TooManyFailures, match="unexpected keyword argument 'encodin'"):
            run(lines(site, args={"encodin": "utf-8"}), kb)
        assert not kb.exists()

    def test_the_path_stands_where_it_is_asked_for(self, site, kb):
        nested = {"sources": ["{file}"], "style": {"class": f"{OWN}:Style.plain", "args": {}}}
        connector = LangChainConnector(f"{OWN}:Pages", args=nested, files=str(site / "*.txt"))
        run(connector, kb)
        found = stored(kb)
        assert set(found) == {
            "langchain:site/one.txt#page=1",
            "langchain:site/one.txt#page=2",
            "langchain:site/one.txt#page=2.1",
        }
        (told, *_) = found.values()
        assert (told.metadata["style"], told.metadata["stated_uuid"]) == ("<plain>", "no-key")

    def test_a_secret_is_looked_up_when_a_loader_is_made_and_shown_nowhere(
        self, site, kb, monkeypatch
    ):
        monkeypatch.setenv("LOADER_KEY", "sk-very-secret-123")
        put(site, "sub/two.txt", "boom")
        connector = lines(site, args={"key": "env:LOADER_KEY"})
        assert b"very-secret" not in pickle.dumps(connector)
        receipt = run(connector, kb, max_failures="60%")
        assert receipt.reasons[0].message.startswith("this line fails with ")
        written = [one for one in kb.parent.rglob("*") if one.is_file()]
        assert not any(b"very-secret" in one.read_bytes() for one in written)

    def test_ids_begin_with_the_path_as_it_was_written(self, tmp_path, kb, monkeypatch):
        put(tmp_path / "here", "written/one.txt", "alpha")
        put(tmp_path / "there", "written/two.txt", "beta and more")
        monkeypatch.chdir(tmp_path / "here")
        run(LangChainConnector(f"{OWN}:Lines", files="./written/*.txt"), kb)
        assert set(stored(kb)) == {"langchain:written/one.txt"}
        monkeypatch.chdir(tmp_path / "there")
        with pytest.raises(ConfigError, match="holds documents of another folder"):
            run(LangChainConnector(f"{OWN}:Lines", files="./written/*.txt"), kb, mode="mirror")

    def test_two_workers_read_as_one_does(self, site, kb):
        assert run(lines(site), kb, workers=2).rows_written == 3
        assert run(lines(site), kb).rows_written == 0


class TestLangChainConnector(ConnectorTests):
    @pytest.fixture(autouse=True)
    def _files(self, site: Path) -> None:
        self.site = site
        for number in range(8):
            put(site, f"{number}.txt", f"text {number}")

    def connector(self) -> LangChainConnector:
        return lines(self.site)


class TestLlamaIndexConnector(ConnectorTests):
    @pytest.fixture(autouse=True)
    def _files(self, site: Path) -> None:
        self.files = f"{site}/**/*.txt"
        for number in range(8):
            put(site, f"{number}.txt", f"text {number}")

    def connector(self) -> LlamaIndexConnector:
        return LlamaIndexConnector(f"{OWN}:FileReader", files=self.files)


class TestWhole:
    def test_ids_are_made_of_the_sources_that_a_loader_states(self, kb):
        connector = LangChainConnector(f"{OWN}:Pages", args={"sources": ["https://a", "https://b"]})
        assert run(connector, kb).rows_written == 6
        assert run(connector, kb).rows_unchanged == 6
        assert set(stored(kb)) >= {"langchain:https://a#page=1", "langchain:https://b#page=2.1"}

    def test_a_name_that_others_may_have_too_is_not_the_whole_id(self, kb):
        for style in ("a", "b"):
            args = {"sources": ["Note.md"], "style": style}
            run(LangChainConnector(f"{OWN}:Pages", args=args), kb)
        assert len(stored(kb)) == 6
        assert all(one.partition("#")[0].endswith("/Note.md") for one in stored(kb))

    def test_a_loader_that_fails_commits_nothing(self, site, kb):
        put(site, "one.txt", "alpha\nboom")
        connector = LangChainConnector(
            f"{OWN}:Lines", args={"file_path": str(site / "one.txt"), "key": "K"}
        )
        with pytest.raises(ConnectorError, match="ValueError: this line fails with K"):
            run(connector, kb)
        assert not kb.exists()


class TestReaders:
    def test_the_path_goes_to_load_data_or_to_the_reader(self, site, kb):
        connector = LlamaIndexConnector(f"{OWN}:FileReader", files=str(site / "**/*.txt"))
        assert run(connector, kb).rows_written == 2
        assert set(stored(kb)) == {"llamaindex:site/one.txt", "llamaindex:site/sub/two.txt"}
        assert run(connector, kb, full=True).rows_unchanged == 2

    def test_ids_of_its_own_are_kept(self, site, kb):
        connector = LlamaIndexConnector(f"{OWN}:FilesReader", files=str(site / "**/*.txt"))
        run(connector, kb)
        assert set(stored(kb)) == {"llamaindex:own-one.txt", "llamaindex:own-two.txt"}

    def test_arguments_of_load_data_reach_it(self, site, kb):
        load = {"extra_info": {"team": "sales"}}
        run(LlamaIndexConnector(f"{OWN}:FileReader", load=load, files=str(site / "one.txt")), kb)
        assert stored(kb)["llamaindex:site/one.txt"].metadata["team"] == "sales"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LangChainConnector(f"{OWN}:Linse"), "did you mean Lines"),
        (lambda: LangChainConnector("no.such:Loader"), "there is no module 'no'"),
        (lambda: LangChainConnector("Lines"), "write package.module:Class"),
        (lambda: LangChainConnector(f"{OWN}:Style"), "neither lazy_load nor load"),
        (lambda: LlamaIndexConnector(f"{OWN}:Lines"), "has no load_data"),
        (lambda: LangChainConnector(f"{OWN}:Lines", args=["x"]), "args is a list"),
        (lambda: LlamaIndexConnector(f"{OWN}:FileReader", load="x"), "load is a str"),
    ],
)
def test_a_mistake_is_told_before_anything_is_read(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


class TestObjects:
    def test_a_class_without_arguments_is_the_class(self):
        style = find(f"{OWN}:Style")
        assert build({"loader_cls": {"class": f"{OWN}:Style"}}) == {"loader_cls": style}

    def test_arguments_may_hold_objects_at_any_depth(self):
        inner = {"class": f"{OWN}:Style", "args": ["bold"]}
        assert repr(build([{"a": {"b": inner}}])) == "[{'a': {'b': <bold>}}]"

    def test_an_object_that_cannot_be_made_says_why(self):
        with pytest.raises(ConfigError, match=r"Style cannot be made of nmae: TypeError"):
            build({"class": f"{OWN}:Style", "args": {"nmae": 1}})

    def test_other_objects_with_these_names_stay(self):
        for value in ({"class": "math"}, {"class": "a:b", "size": 3}):
            assert build(value) == value

    def test_only_the_whole_text_stands_for_a_path(self):
        given = {"a": "{file}", "b": ["x", "{file}"], "c": "a {file}"}
        assert with_file(given, "p") == ({"a": "p", "b": ["x", "p"], "c": "a {file}"}, True)

    def test_what_json_does_not_have_becomes_text(self):
        class Level(str, Enum):
            HIGH = "high"

        given = {"d": date(2026, 1, 2), "s": {"b", "a"}, "l": Level.HIGH, "n": float("nan"), 1: 2.5}
        told = {"d": "2026-01-02", "s": ["a", "b"], "l": "high", "n": "nan", "1": 2.5}
        assert plain(given) == told
