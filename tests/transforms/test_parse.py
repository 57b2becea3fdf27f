"""Files of a folder become documents: read and parsed when they are new, recognised when not."""

from __future__ import annotations

import io
import os
import sys
import time
import zipfile
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.connectors import BaseConnector, DocumentVersion, FileItem, FilesConnector
from contextframe_beam.connectors.cursors import Bounds
from contextframe_beam.errors import ConfigError, ConnectorError, TooManyFailures
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.store.state import CommitReceipt
from tests.support.cli_helpers import cli, letters_of
from tests.support.pdf_files import pdf

HOUR = 3600
TOLD = "tests.support.own_parsers:Told"
_opened: list[str] | None = None


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None and isinstance(arguments[0], str):
        _opened.append(arguments[0])


sys.addaudithook(_heard)


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """The files that this process has opened."""
    global _opened
    _opened = []
    yield _opened
    _opened = None


def put(folder: Path, name: str, content: bytes | str, age: float = HOUR) -> Path:
    """Writes a file that was changed so many seconds ago."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    at = time.time() - age
    os.utime(path, (at, at))
    return path


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    put(folder, "a.md", "# Alpha\n\nText.")
    put(folder, "guide/b.html", "<html><title>Beta</title><body><p>Text.</p></body></html>")
    put(folder, "guide/c.pdf", pdf(["Gamma text."], info={"Title": "Gamma"}))
    put(folder, "guide/d.png", b"\x89PNG\r\n\x1a\n")
    return folder


def kb(docs: Path) -> str:
    return str(docs.parent / "kb.lance")


def run(docs: Path, **how: Any) -> CommitReceipt:
    connector = how.pop("connector", None) or FilesConnector(docs)
    return ingest(connector, how.pop("to", kb(docs)), **{"embed_dim": 4, **how})


def titles(docs: Path, to: str | None = None) -> dict[str, str]:
    return {str(record.unique_id): record.title for record in FrameDataset.open(to or kb(docs))}


ALL = {"files:a.md": "Alpha", "files:guide/b.html": "Beta", "files:guide/c.pdf": "Gamma"}


EACH_MODE = pytest.mark.parametrize("mode", ["upsert", "mirror"])


class TestRuns:
    def test_the_first_one_parses_all_that_can_be_parsed(self, docs):
        receipt = run(docs)
        assert titles(docs) == ALL
        assert (receipt.documents, receipt.parsed, receipt.skipped) == (3, 3, 1)
        assert (receipt.rows_written, receipt.failed) == (3, 0)

    @EACH_MODE
    def test_the_next_one_opens_no_file(self, docs, mode, opened):
        run(docs, mode=mode)
        del opened[:]
        receipt = run(docs, mode=mode)
        assert [path for path in opened if path.startswith(str(docs))] == []
        assert (receipt.documents, receipt.parsed, receipt.skipped) == (3, 0, 1)
        assert (receipt.rows_written, receipt.rows_unchanged) == (0, 3)
        assert titles(docs) == ALL

    def test_files_that_were_touched_are_read_and_not_parsed(self, docs, opened):
        run(docs, mode="mirror")
        put(docs, "a.md", "# Alpha\n\nText.", HOUR / 2)
        del opened[:]
        receipt = run(docs, mode="mirror")
        assert [path for path in opened if path.startswith(str(docs))] == [str(docs / "a.md")]
        assert (receipt.parsed, receipt.rows_written, receipt.rows_unchanged) == (0, 0, 3)

    def test_files_that_changed_or_came_are_parsed_and_others_not(self, docs):
        run(docs)
        put(docs, "a.md", "# Another\n")
        put(docs, "new/e.txt", "Epsilon")
        receipt = run(docs)
        assert (receipt.parsed, receipt.rows_written, receipt.rows_replaced) == (2, 2, 1)
        assert titles(docs) == {**ALL, "files:a.md": "Another", "files:new/e.txt": "e.txt"}

    @EACH_MODE
    def test_a_file_that_was_renamed_is_another_document(self, docs, mode):
        run(docs, mode=mode)
        (docs / "a.md").rename(docs / "z.md")
        receipt = run(docs, mode=mode)
        assert receipt.parsed == 1
        assert ("files:a.md" in titles(docs)) == (mode == "upsert")
        assert titles(docs)["files:z.md"] == "Alpha"

    @EACH_MODE
    def test_a_file_that_cannot_be_parsed_leaves_what_is_stored(self, docs, mode):
        run(docs, mode=mode)
        put(docs, "guide/c.pdf", b"%PDF-1.4 broken")
        (docs / "a.md").unlink()
        receipt = run(docs, mode=mode)
        assert (receipt.failed, receipt.stale) == (1, 1)
        kept = {} if mode == "mirror" else {"files:a.md": "Alpha"}
        assert titles(docs) == {**kept, "files:guide/b.html": "Beta", "files:guide/c.pdf": "Gamma"}
        again = run(docs, mode=mode)
        assert (again.failed, again.stale, again.parsed) == (1, 1, 0)
        put(docs, "guide/c.pdf", pdf(["Text."], info={"Title": "Mended"}), HOUR / 2)
        assert (run(docs, mode=mode).failed, titles(docs)["files:guide/c.pdf"]) == (0, "Mended")


AT_ONCE_AND_AS_IT_GOES = pytest.mark.parametrize(
    "how",
    [{}, pytest.param({"commit_every": 4}, marks=pytest.mark.soak)],
    ids=["at once", "as it goes"],
)


class Refusing:
    """Refuses documents that say so."""

    version = "1"

    def enrich(self, record: FrameRecord, item: Any) -> FrameRecord:
        if "refused" in (record.text_content or ""):
            raise ValueError("refused")
        return record


class TestRecognition:
    @AT_ONCE_AND_AS_IT_GOES
    def test_a_file_that_failed_after_parsing_is_tried_again(self, docs, how):
        run(docs, enrichers=[Refusing()])
        put(docs, "a.md", "# refused")
        assert run(docs, enrichers=[Refusing()], **how).failed == 1
        assert run(docs, enrichers=[Refusing()], **how).failed == 1
        assert titles(docs) == ALL
        put(docs, "a.md", "# Another")
        assert run(docs, enrichers=[Refusing()], **how).failed == 0
        assert run(docs, enrichers=[Refusing()], **how).parsed == 0

    @AT_ONCE_AND_AS_IT_GOES
    def test_what_failed_and_what_was_skipped_is_remembered(self, docs, how):
        put(docs, "broken.pdf", "%PDF-1.4 broken")
        first, then = run(docs, **how), run(docs, **how)
        assert [(one.failed, one.skipped) for one in (first, then)] == [(1, 1), (1, 1)]
        assert (first.parsed, then.parsed) == (3, 0)

    def test_a_document_that_is_gone_from_the_dataset_is_parsed_again(self, docs):
        run(docs)
        FrameDataset.open(kb(docs)).delete("files:a.md")
        assert run(docs).parsed == 1
        assert titles(docs) == ALL

    def test_full_parses_all_anew(self, docs):
        run(docs)
        receipt = run(docs, full=True)
        assert (receipt.parsed, receipt.rows_written, receipt.rows_unchanged) == (3, 0, 3)

    def test_overwrite_reads_all(self, docs):
        run(docs)
        assert run(docs, mode="overwrite").parsed == 3

    def test_append_adds_what_is_new(self, docs):
        run(docs)
        put(docs, "new.md", "# New")
        receipt = run(docs, mode="append")
        assert (receipt.parsed, receipt.rows_written, receipt.rows_unchanged) == (1, 1, 3)
        assert len(FrameDataset.open(kb(docs))) == 4

    def test_a_range_of_time_leaves_the_rest_alone(self, docs):
        run(docs, mode="mirror")
        put(docs, "a.md", "# Another", HOUR / 2)
        put(docs, "old.md", "# Old", 400 * 24 * HOUR)
        since = datetime.now(timezone.utc) - timedelta(days=1)
        receipt = run(docs, mode="mirror", bounds=Bounds.of(since=since.isoformat()))
        assert (receipt.parsed, receipt.rows_deleted) == (1, 0)
        assert titles(docs) == {**ALL, "files:a.md": "Another"}
        assert run(docs, mode="mirror").parsed == 1

    def test_other_parsers_reach_every_document(self, docs):
        run(docs)
        assert run(docs, parsers=[TOLD]).parsed == 3
        assert run(docs, parsers=[TOLD]).parsed == 0

    def test_a_copy_elsewhere_makes_the_same_rows_and_is_recognised(self, docs, tmp_path):
        run(docs)
        copy = tmp_path / "copy"
        for path in docs.rglob("*.*"):
            put(copy, str(path.relative_to(docs)), path.read_bytes(), HOUR / 2)
        receipt = run(copy, to=kb(docs))
        assert (receipt.parsed, receipt.rows_unchanged) == (0, 3)
        assert run(copy, to=str(tmp_path / "other.lance")).parsed == 3
        assert titles(docs, str(tmp_path / "other.lance")) == ALL

    def test_two_folders_with_the_same_names_need_names(self, docs, tmp_path):
        run(docs)
        other = tmp_path / "other"
        put(other, "a.md", "# Of another project")
        with pytest.raises(ConfigError, match="another folder"):
            run(other, to=kb(docs))
        connector = FilesConnector(other, name="other")
        run(other, to=kb(docs), connector=connector, mode="mirror")
        assert titles(docs) == {**ALL, "other:a.md": "Of another project"}
        assert run(docs, mode="mirror").parsed == 0
        assert len(titles(docs)) == 4

    def test_a_run_that_commits_as_it_goes_ends_where_others_do(self, docs):
        assert run(docs, commit_every=1).rows_written == 3
        assert run(docs).parsed == 0

    def test_two_workers_parse_in_processes_of_their_own(self, docs):
        for number in range(20):
            put(docs, f"more/{number}.md", f"# {number}")
        receipt = run(docs, workers=2)
        assert (receipt.parsed, receipt.skipped) == (23, 1)
        assert run(docs, workers=2).parsed == 0


def encrypted() -> bytes:
    """Returns a PDF that asks for a password (ISO 32000-1, 7.6.3)."""
    entry = b"/Encrypt << /Filter /Standard /V 1 /R 2 /O <%s> /U <%s> /P -4 >> /ID [<00> <00>]" % (
        b"1f" * 32,
        b"2e" * 32,
    )
    return pdf(["Secret."]).replace(b"trailer <<", b"trailer << " + entry, 1)


def bomb() -> bytes:
    """Returns an Office file of 30 KB that unpacks to 30 MB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b" " * 30_000_000)
    return buffer.getvalue()


class TestHostileFiles:
    @pytest.fixture
    def hostile(self, docs: Path) -> Path:
        files = {
            "truncated.pdf": pdf(["Text."] * 20)[:3000],
            "encrypted.pdf": encrypted(),
            "empty.pdf": b"",
            "page.pdf": b"<html><body>Not a PDF.</body></html>",
            "scanned.pdf": pdf([""]),
            "bomb.docx": bomb(),
            "junk.docx": b"PK\x03\x04junk",
            "deep.html": b"<div>" * 200_000 + b"x",
            "binary.md": bytes(range(256)) * 10,
        }
        for name, content in files.items():
            put(docs, f"hostile/{name}", content)
        return docs

    def test_each_is_one_letter_without_its_bytes(self, hostile):
        names = sorted(path.name for path in (hostile / "hostile").iterdir())
        receipt = run(hostile, max_unpacked_bytes=20_000_000)
        letters = letters_of(Path(kb(hostile)))
        assert sorted(letter["position"] for letter in letters) == [f"hostile/{n}" for n in names]
        assert {letter["stage"] for letter in letters} == {"parse"}
        for letter in letters:
            assert set(letter["item"]) == {"path", "size", "modified_at", "address", "digest"}
            assert letter["message"].startswith(f"{letter['position']}: ")
        assert receipt.failed == len(names) and titles(hostile) == ALL
        (scanned,) = [one for one in letters if one["position"].endswith("scanned.pdf")]
        assert "no text, perhaps scanned" in scanned["message"]

    def test_a_mirror_deletes_what_is_gone_beside_them(self, hostile):
        limit = 20_000_000
        run(hostile, mode="mirror", max_unpacked_bytes=limit)
        (hostile / "a.md").unlink()
        receipt = run(hostile, mode="mirror", max_unpacked_bytes=limit)
        assert (receipt.rows_deleted, receipt.kept) == (1, "")
        assert "files:a.md" not in titles(hostile)

    def test_what_hangs_is_ended_in_time(self, docs):
        put(docs, "a.told", "hang-deaf")
        receipt = run(docs, parsers=[TOLD], parse_timeout="0.5s")
        assert (receipt.failed, receipt.parsed) == (1, 3)
        assert "took longer than 0.5 seconds" in receipt.reasons[0].message

    def test_what_is_too_large_is_not_read(self, docs, opened):
        put(docs, "large.md", b"x" * 2000)
        put(docs, "large.bin", b"\0" * 2000)
        del opened[:]
        receipt = run(docs, max_file_bytes=1000)
        assert receipt.reasons[0].message == "large.md: it has 2.0 KB, and max_file_bytes is 1.0 KB"
        assert str(docs / "large.md") not in opened
        assert (receipt.failed, receipt.skipped) == (1, 2)

    def test_of_a_large_file_of_unknown_type_only_the_beginning_is_read(self, docs):
        put(docs, "large.bin", b"\0" * 200_000)
        assert run(docs, max_file_bytes=150_000).skipped == 2

    def test_what_is_not_readable_is_a_letter_of_reading(self, docs):
        (docs / "gone.md").symlink_to(docs / "nowhere.md")
        receipt = run(docs)
        assert receipt.failed == 1
        assert receipt.reasons[0].place.startswith("read")
        assert "gone.md: it cannot be read: No such file" in receipt.reasons[0].message

    def test_a_run_in_which_all_fail_commits_nothing(self, tmp_path):
        put(tmp_path / "docs", "a.pdf", b"")
        with pytest.raises(TooManyFailures, match="all of them"):
            run(tmp_path / "docs")


class TestCommandLine:
    def test_options_of_parsing_are_those_of_connectors_that_give_files(self):
        assert "--parse-timeout" in cli("ingest", "files", "--help").out
        assert "--parse-timeout" not in cli("ingest", "json", "--help").out

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            (["--parse-timeout", "soon"], "--parse-timeout"),
            (["--parser", "nothing"], "there is no parser 'nothing'"),
            (["--max-file-bytes", "0"], "not a whole number from 1 on"),
        ],
    )
    def test_what_makes_no_sense_is_refused_before_anything_is_read(self, docs, more, said):
        result = cli("ingest", "files", "--directory", docs, "--to", kb(docs), *more)
        assert result.code != 0 and said in result.err
        assert not Path(kb(docs)).exists()

    def test_a_dataset_in_the_folder_itself_is_left_out(self, docs):
        to = str(docs / "kb.lance")
        assert run(docs, to=to).rows_written == 3
        assert run(docs, to=to, full=True).parsed == 3


class Wiki(BaseConnector):
    """Lists pages with their etags; a page's content is fetched when it is mapped.

    Args:
        folder: Where the pages are, and a note of each page that was fetched.
        suffix: What is put behind each text.
    """

    identity_args = ("folder",)

    def __init__(self, folder: str, suffix: str = "") -> None:
        super().__init__()
        self.folder = folder
        self.suffix = suffix

    def sync_documents(self) -> list[dict[str, Any]]:
        pages = sorted(Path(self.folder).glob("*.txt"))
        return [{"id": one.stem, "etag": str(one.stat().st_mtime_ns)} for one in pages]

    def document_version(self, item: dict[str, Any]) -> DocumentVersion | None:
        if item["id"] == "unversioned":
            return None
        if item["id"] == "refused":
            raise ValueError("no version")
        return DocumentVersion(f"wiki:{item['id']}", item["etag"])

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        with open(Path(self.folder) / "fetched", "a") as file:
            file.write(f"{item['id']}\n")
        text = (Path(self.folder) / f"{item['id']}.txt").read_text()
        name = "other" if text == "misnamed" else item["id"]
        return FrameRecord(text + self.suffix, unique_id=f"wiki:{name}")


class TestVersions:
    @pytest.fixture
    def wiki(self, tmp_path: Path) -> Path:
        folder = tmp_path / "wiki"
        for name in ("one", "two", "unversioned"):
            put(folder, f"{name}.txt", f"text of {name}")
        return folder

    def fetched(self, wiki: Path, **how: Any) -> tuple[list[str], CommitReceipt]:
        """Returns which pages a run has fetched."""
        (wiki / "fetched").unlink(missing_ok=True)
        connector = Wiki(str(wiki), how.pop("suffix", ""))
        receipt = ingest(connector, str(wiki.parent / "kb.lance"), embed_dim=4, **how)
        note = wiki / "fetched"
        return note.read_text().split() if note.exists() else [], receipt

    @EACH_MODE
    def test_what_is_stored_in_its_version_is_not_fetched(self, wiki, mode):
        assert self.fetched(wiki, mode=mode)[0] == ["one", "two", "unversioned"]
        assert self.fetched(wiki, mode=mode)[0] == ["unversioned"]
        put(wiki, "two.txt", "another text", HOUR / 2)
        fetched, receipt = self.fetched(wiki, mode=mode)
        assert fetched == ["two", "unversioned"]
        assert (receipt.rows_written, receipt.rows_unchanged, receipt.rows_deleted) == (1, 2, 0)

    def test_an_argument_of_the_connector_reaches_every_document(self, wiki):
        self.fetched(wiki)
        assert self.fetched(wiki, suffix="!")[0] == ["one", "two", "unversioned"]
        assert self.fetched(wiki, suffix="!")[0] == ["unversioned"]

    def test_an_enricher_reaches_every_document(self, wiki):
        from contextframe_beam.transforms import KeywordEnricher

        few, many = [KeywordEnricher(1)], [KeywordEnricher(2)]
        assert len(self.fetched(wiki, enrichers=few)[0]) == 3
        assert len(self.fetched(wiki, enrichers=few)[0]) == 1
        assert len(self.fetched(wiki, enrichers=many)[0]) == 3

    def test_full_fetches_all(self, wiki):
        self.fetched(wiki)
        assert len(self.fetched(wiki, full=True)[0]) == 3

    def test_two_names_for_one_document_are_refused(self, wiki):
        put(wiki, "two.txt", "misnamed")
        _, receipt = self.fetched(wiki)
        assert receipt.failed == 1
        assert "document_version names the document 'wiki:two'" in receipt.reasons[0].message

    def test_an_item_whose_version_cannot_be_told_is_a_letter(self, wiki):
        put(wiki, "refused.txt", "text")
        _, receipt = self.fetched(wiki)
        assert (receipt.failed, receipt.rows_written) == (1, 3)
        assert receipt.reasons[0].message.startswith("no version")


class Drive(BaseConnector):
    """Gives the files of a folder as a service for files would, with etags if asked.

    Args:
        folder: Where they are, and a note of each file that was fetched.
        versioned: Whether the service tells versions.
    """

    identity_args = ("folder",)
    gives_files = True

    def __init__(self, folder: str, versioned: bool) -> None:
        super().__init__()
        self.folder = folder
        self.versioned = versioned

    def sync_documents(self) -> list[FileItem]:
        found = sorted(Path(self.folder).glob("*.*"))
        return [FileItem(one.name, None, id=one.stem, etag=one.stat().st_mtime_ns) for one in found]

    def document_version(self, item: dict[str, Any]) -> DocumentVersion | None:
        return DocumentVersion(f"drive:{item['id']}", str(item["etag"]) if self.versioned else None)

    def read_file(self, item: FileItem, most: int) -> bytes:
        if item["id"] == "forbidden":
            raise ConnectorError("the service says no")
        with open(Path(self.folder) / "fetched", "a") as file:
            file.write(f"{item['id']}\n")
        return (Path(self.folder) / item["path"]).read_bytes()

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        assert isinstance(item, FileItem)
        return FrameRecord(item.document.text, unique_id=f"drive:{item['id']}")


@pytest.mark.parametrize(("versioned", "fetched"), [(True, []), (False, ["a", "b", "x"])])
def test_files_of_a_connector_of_ones_own_are_parsed(tmp_path, versioned, fetched):
    folder = tmp_path / "drive"
    put(folder, "a.md", "# Alpha")
    put(folder, "b.html", "<p>Beta</p>")
    put(folder, "x.bin", b"\0")
    put(folder, "forbidden.md", "")
    to, connector = str(tmp_path / "kb.lance"), Drive(str(folder), versioned)
    receipt = ingest(connector, to, embed_dim=4, mode="mirror")
    assert (receipt.parsed, receipt.skipped, receipt.failed) == (2, 1, 1)
    assert receipt.reasons[0].message.startswith("forbidden.md: the service says no")
    (folder / "fetched").unlink()
    again = ingest(connector, to, mode="mirror")
    assert (again.parsed, again.rows_unchanged) == (0, 2)
    assert (folder / "fetched").read_text().split() == (fetched or ["x"])
