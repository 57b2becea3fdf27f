"""The files connector: which files of a folder it reads, and what makes a folder the same one."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam.connectors import FileItem, FilesConnector
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.errors import ConfigError, ConnectorError, RecordError

HOUR = 3600


def put(path: Path, content: bytes | str = "text", age: float = HOUR) -> Path:
    """Writes a file that was changed so many seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    at = time.time() - age
    os.utime(path, (at, at))
    return path


def listed(directory: Path, **settings: Any) -> list[str]:
    """Returns the paths of the items that a connector gives."""
    connector = FilesConnector(directory, **settings)
    connector.authenticate()
    return sorted(item["path"] for item in connector.sync_documents())


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    for name in ("a.md", "guide/b.md", "guide/deep/c.txt", "guide/d.png", "drafts/e.md"):
        put(folder / name)
    return folder


class TestWhichFiles:
    def test_all_of_a_folder_by_paths_within_it(self, docs):
        paths = ["a.md", "drafts/e.md", "guide/b.md", "guide/d.png", "guide/deep/c.txt"]
        assert listed(docs) == paths

    def test_those_of_a_pattern(self, docs):
        assert listed(docs, pattern="guide/**/*.md") == ["guide/b.md"]

    @pytest.mark.parametrize(
        ("exclude", "left"),
        [
            (["*.md"], ["guide/d.png", "guide/deep/c.txt"]),
            (["drafts", "*.png"], ["a.md", "guide/b.md", "guide/deep/c.txt"]),
            (["guide/*.md", "drafts/"], ["a.md", "guide/d.png", "guide/deep/c.txt"]),
            (["guide/**"], ["a.md", "drafts/e.md"]),
            ("deep", ["a.md", "drafts/e.md", "guide/b.md", "guide/d.png"]),
        ],
    )
    def test_what_is_excluded_is_left_out_with_all_that_is_in_it(self, docs, exclude, left):
        assert listed(docs, exclude=exclude) == left

    def test_hidden_ones_only_if_asked(self, docs):
        put(docs / ".git/config.txt")
        assert ".git/config.txt" not in listed(docs)
        assert ".git/config.txt" in listed(docs, hidden=True)

    def test_never_a_dataset_nor_what_runs_write_beside_it(self, docs):
        put(docs / "kb.lance/data/1.txt")
        put(docs / "kb.lance.dead-letters/1.jsonl")
        put(docs / "kb.dead-letters/1.jsonl")
        assert len(listed(docs)) == 5

    def test_a_name_that_is_no_unicode_has_an_id(self, docs):
        put(docs / os.fsdecode(b"caf\xe9.md"))
        connector = FilesConnector(docs, pattern="caf*")
        connector.authenticate()
        (item,) = connector.sync_documents()
        assert connector.map_to_frame_record(item).unique_id == "files:caf\\xe9.md"


class TestLinks:
    @pytest.fixture
    def linked(self, docs: Path) -> Path:
        put(docs.parent / "outside/secret.md")
        (docs / "file.md").symlink_to(docs.parent / "outside/secret.md")
        (docs / "folder").symlink_to(docs.parent / "outside")
        (docs / "gone.md").symlink_to("/no/such/file")
        (docs / "latest").symlink_to("guide")
        (docs / "same.md").symlink_to("a.md")
        return docs

    def test_those_within_the_folder_are_followed_and_others_counted(self, linked, caplog):
        found = listed(linked, pattern="**/*.md")
        assert found == ["a.md", "drafts/e.md", "guide/b.md", "latest/b.md", "same.md"]
        assert "3 links, such as" in caplog.text and "lead out of the directory" in caplog.text

    def test_a_pattern_that_names_a_folder_does_not_follow_its_link(self, linked):
        assert listed(linked, pattern="*/secret.md") == []

    def test_all_are_followed_if_asked(self, linked):
        found = listed(linked, pattern="**/*.md", follow_links=True)
        assert {"file.md", "folder/secret.md", "gone.md"} <= set(found)

    def test_a_link_to_a_folder_above_has_an_end(self, linked):
        (linked / "up").symlink_to("..")
        assert "up/outside/secret.md" in listed(linked, follow_links=True)


class TestItems:
    def test_an_item_is_what_is_known_of_a_file_without_its_bytes(self, docs):
        connector = FilesConnector(docs, pattern="a.md")
        connector.authenticate()
        (item,) = connector.sync_documents()
        assert set(item) == {"path", "size", "modified_at", "address"}
        assert item["size"] == 4 and item["address"] == str(docs / "a.md")

    def test_an_item_travels_whole(self):
        item = FileItem("a.md", 4, None, handle=["a"], mark="m", is_stored=True, path2=1)
        item.document = "parsed"
        again = pickle.loads(pickle.dumps(item))
        assert again == item
        assert all(getattr(again, name) == getattr(item, name) for name in FileItem.__slots__)

    def test_a_record_says_what_the_file_states_and_where_it_is(self, docs):
        text = "---\ntitle: T\nauthor: A\nuuid: 1\nlastmod: 2020-01-02\ntags: [x]\n---\nText"
        put(docs / "a.md", text)
        connector = FilesConnector(docs, pattern="a.md", name="handbook")
        connector.authenticate()
        (item,) = connector.sync_documents()
        record = connector.map_to_frame_record(item)
        assert record.unique_id == "handbook:a.md"
        assert record.text_content == "Text"
        assert record.timestamp == item["modified_at"]
        assert record.metadata == {
            "title": "T",
            "author": "A",
            "tags": ["x"],
            "updated_at": "2020-01-02",
            "stated_uuid": 1,
            "source_file": "a.md",
            "source_type": "md",
            "file_size": len(text),
        }

    @pytest.mark.parametrize(
        ("name", "content", "title"),
        [
            ("x.md", "intro\n\n## A heading ##\n", "A heading"),
            ("x.py", "# a comment\nx = 1\n", "x.py"),
            ("notes/x.txt", "first line", "x.txt"),
        ],
    )
    def test_the_title_is_stated_or_the_first_heading_or_the_name(
        self, tmp_path, name, content, title
    ):
        put(tmp_path / name, content)
        connector = FilesConnector(tmp_path)
        connector.authenticate()
        (item,) = connector.sync_documents()
        assert connector.map_to_frame_record(item).title == title

    @pytest.mark.parametrize(
        "path", ["/etc/passwd", "../secret.md", "guide/../../secret.md", 7, ""]
    )
    def test_an_item_from_elsewhere_does_not_lead_out_of_the_folder(self, docs, path):
        put(docs.parent / "secret.md")
        with pytest.raises(RecordError, match=r"leads out|no path"):
            FilesConnector(docs).map_to_frame_record({"path": path})

    def test_what_is_left_of_an_item_in_a_dead_letter_is_an_item(self, docs):
        put(docs / "a..b.md", "# Mended")
        record = FilesConnector(docs).map_to_frame_record({"path": "a..b.md", "size": 3})
        assert (record.title, record.metadata["file_size"]) == ("Mended", 8)


class TestSources:
    def test_the_same_folder_elsewhere_is_the_same_source(self, tmp_path):
        here, there = FilesConnector(tmp_path / "a"), FilesConnector("memory://b/docs")
        assert here.source_id() == there.source_id()

    @pytest.mark.parametrize(
        "other", [{"name": "handbook"}, {"pattern": "*.md"}, {"exclude": ["x"]}]
    )
    def test_another_name_or_choice_is_another_source(self, tmp_path, other):
        assert FilesConnector(tmp_path).source_id() != FilesConnector(tmp_path, **other).source_id()

    @pytest.mark.parametrize("name", ["", "a b", "a:b", "a/b", "a#b"])
    def test_a_name_that_cannot_begin_ids_is_refused(self, tmp_path, name):
        with pytest.raises(ConfigError, match="ids begin with it"):
            FilesConnector(tmp_path, name=name)


def planned(connector: FilesConnector, states: dict[str, Any], **how: Any) -> dict[str, Any]:
    """Returns the states that a run reaches, and which files it finds unchanged."""
    source = Source(connector, {}, resume_from=states, **how)
    connector.authenticate()
    items = [item for page in source.pages() for item in page.items]
    return {
        "states": source.reached,
        "unchanged": sorted(item["path"] for item in items if item.is_stored),
        "changed": sorted(item["path"] for item in items if not item.is_stored),
    }


class TestWhatIsRemembered:
    def test_files_that_did_not_change_are_told_apart(self, docs):
        connector = FilesConnector(docs, pattern="**/*.md")
        first = planned(connector, {}, made_with="x")
        assert first["unchanged"] == []
        put(docs / "a.md", "text", HOUR / 2)  # touched
        put(docs / "guide/b.md", "other text")
        put(docs / "new.md", "text")
        then = planned(connector, first["states"], made_with="x")
        assert then["unchanged"] == ["drafts/e.md"]
        assert then["changed"] == ["a.md", "guide/b.md", "new.md"]

    def test_a_file_that_changed_just_now_is_read_again(self, docs):
        put(docs / "a.md", age=0)
        connector = FilesConnector(docs, pattern="a.md")
        first = planned(connector, {})
        assert planned(connector, first["states"])["changed"] == ["a.md"]

    def test_all_is_read_again_where_documents_are_made_with_something_else(self, docs):
        connector = FilesConnector(docs, pattern="*.md")
        first = planned(connector, {}, made_with="x")
        assert planned(connector, first["states"], made_with="y")["changed"] == ["a.md"]
        assert planned(connector, first["states"], made_with="x", anew=True)["changed"] == ["a.md"]

    def test_a_folder_that_moved_goes_on_where_it_was(self, docs):
        first = planned(FilesConnector(docs, pattern="**/*.md"), {})
        moved = docs.rename(docs.parent / "elsewhere")
        put(moved / "a.md", "changed meanwhile")
        then = planned(FilesConnector(moved, pattern="**/*.md"), first["states"])
        assert then["unchanged"] == ["drafts/e.md", "guide/b.md"]

    def test_another_folder_with_the_same_names_is_refused(self, docs, tmp_path):
        first = planned(FilesConnector(docs), {})
        put(tmp_path / "other/a.md", "of another project")
        other = FilesConnector(tmp_path / "other")
        with pytest.raises(ConfigError, match=r'name="\.\.\."'):
            planned(other, first["states"])
        assert planned(other, first["states"], anew=True)["changed"] == ["a.md"]

    def test_a_folder_that_was_empty_says_nothing(self, docs, tmp_path):
        (tmp_path / "empty").mkdir()
        first = planned(FilesConnector(tmp_path / "empty"), {})
        assert len(planned(FilesConnector(docs), first["states"])["changed"]) == 5

    @pytest.mark.parametrize("nonsense", [None, 7, {"seen": "\0"}, {"seen": 1, "directory": 3}])
    def test_a_state_that_was_edited_to_nonsense_reads_everything(self, docs, nonsense):
        states = {"files": nonsense, "other": nonsense}
        assert len(planned(FilesConnector(docs), states)["changed"]) == 5


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConnectorError, match="Directory not found"):
        FilesConnector(tmp_path / "no").authenticate()
