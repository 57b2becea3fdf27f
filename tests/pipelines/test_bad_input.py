"""Bad input, each kind through the real command line: what is said, and that nothing is harmed.

A run that fails says in one message what was wrong, where, and what to do, and leaves the dataset
as it was. An item that fails goes to the dead letters, and the rest is committed.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest

from contextframe_beam import FrameDataset
from tests.support.cli_helpers import (
    Result,
    assert_error,
    cli,
    cli_process,
    letters_of,
    lines,
    state_of,
    without_progress,
    write_documents,
)
from tests.support.small_disk import small_disk_at

CONNECTOR = '''
from contextframe_beam import FrameRecord
from contextframe_beam.connectors import BaseConnector


class Items(BaseConnector):
    """Ten items, the one with the number 7 of which is bad in the way that is asked for."""

    def __init__(self, bad: str = ""):
        super().__init__()
        self.bad = bad

    def sync_documents(self):
        if self.bad == "source":
            raise OSError("the backend does not answer")
        return [{"number": number} for number in range(10)]

    def map_to_frame_record(self, item):
        number = item["number"]
        record = FrameRecord(f"text {number}", {}, unique_id=f"items:{number}")
        if number == 7 or self.bad.startswith("all "):
            return self.spoiled(record, self.bad.removeprefix("all "))
        return record

    def spoiled(self, record, bad):
        if bad == "raises":
            raise KeyError("author")
        if bad == "None":
            return None
        if bad == "dict":
            return {"text_content": "x"}
        if bad == "nothing":
            return FrameRecord()
        if bad == "object":
            record.metadata["owner"] = object()
        if bad == "vector":
            record.vector = [1.0, 2.0, 3.0]
        if bad == "surrogate":
            record.text_content = "half of a pair: \\ud800"
        return record
'''


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    return write_documents(
        tmp_path / "docs", {f"{n}.json": {"content": f"document {n}"} for n in range(3)}
    )


@pytest.fixture
def items(tmp_path: Path) -> str:
    path = tmp_path / "items.py"
    path.write_text(CONNECTOR)
    return f"{path}:Items"


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset of another source, and what lies beside it."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("earlier")
    write_documents(source, {"e.json": {"content": "an earlier one"}})
    assert cli("ingest", "json", "--directory", source, "--to", made / "kb.lance").code == 0
    return made


@pytest.fixture(params=["new dataset", "existing dataset"])
def kb(request: pytest.FixtureRequest, earlier: Path, tmp_path: Path) -> Path:
    if request.param == "existing dataset":
        shutil.copytree(earlier, tmp_path, dirs_exist_ok=True)
    return tmp_path / "kb.lance"


@pytest.fixture
def unharmed(kb: Path) -> Iterator[Path]:
    """A dataset that has to be as it was when the test ends."""
    before = state_of(kb)
    yield kb
    assert state_of(kb) == before


def ingest_json(directory: object, to: Path, *more: object) -> Result:
    return cli("ingest", "json", "--directory", directory, "--to", to, *more)


def documents_in(dataset: Path) -> int:
    return len(FrameDataset.open(str(dataset)))


class TestDirectory:
    def test_missing(self, tmp_path: Path, unharmed: Path) -> None:
        gone = tmp_path / "gone"
        assert_error(ingest_json(gone, unharmed), 1, f"Directory not found: {gone}", "check")

    def test_a_file(self, docs: Path, unharmed: Path) -> None:
        file = docs / "1.json"
        result = ingest_json(file, unharmed)
        assert_error(result, 1, f"Not a directory: {file}", "give its folder")

    @pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for root")
    def test_unreadable(self, docs: Path, unharmed: Path) -> None:
        docs.chmod(0)
        try:
            assert_error(ingest_json(docs, unharmed), 1, str(docs), "make it readable")
        finally:
            docs.chmod(0o700)


#: A file's name, what is in it, and what has to be said about it.
BAD_FILES: dict[str, tuple[str, bytes, tuple[str, ...]]] = {
    "not JSON": ("bad.json", b"hello", ("it is not JSON", "line 1, column 1")),
    "cut off": ("bad.json", b'{"content": "abc', ("it is cut off", "16 characters")),
    "not UTF-8": ("bad.json", '{"a": "é"}'.encode("latin-1"), ("not UTF-8", "convert it first")),
    "a list": ("bad.json", b'[{"content": "x"}]', ("it is a list of 1", "on lines of their own")),
    "null": ("bad.json", b"null", ("it is null", "expected one JSON object")),
    "empty": ("bad.json", b"", ("it is empty", "expected one JSON object")),
    "half a pair": ("bad.json", b'{"a": "\\ud800"}', ("surrogate pair", "write both halves")),
    "nested": ("bad.json", b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", ("nested", "deep")),
    "no number": ("bad.json", b'{"content": "x", "n": 1e999}', ("metadata['n'] is inf", "None")),
    "damaged": ("bad.json.gz", gzip.compress(b'{"a": 1}' * 99)[:-9], ("ended before the end",)),
    "long": ("bad.jsonl", b'{"content": "' + b"x" * 5000 + b'"}\n', ("longer than 4000 bytes",)),
}


@pytest.fixture(params=sorted(BAD_FILES))
def bad_file(request: pytest.FixtureRequest) -> tuple[str, bytes, tuple[str, ...]]:
    return BAD_FILES[request.param]


OPTIONS = ("--pattern", "*", "--max-line-bytes", 4000)


@pytest.mark.sample
class TestFiles:
    def test_a_bad_one_goes_to_the_dead_letters_and_the_rest_is_committed(
        self, docs: Path, kb: Path, bad_file: tuple[str, bytes, tuple[str, ...]]
    ) -> None:
        name, content, parts = bad_file
        write_documents(docs, {name: content})
        before = documents_in(kb) if kb.exists() else 0
        result = ingest_json(docs, kb, *OPTIONS)
        assert result.code == 0
        warning, reason = without_progress(result.err).splitlines()
        assert warning.startswith(f"Warning: 1 item failed, kept in {kb}.dead-letters/")
        assert str(docs / name) in reason
        assert result.out.startswith("wrote 3 documents (version ")
        assert f"1 item failed, kept in {kb}.dead-letters/" in result.out
        assert documents_in(kb) == before + 3
        (letter,) = letters_of(kb)
        assert letter["item"]["_file_path"] == str(docs / name)
        for part in parts:
            assert part in letter["message"]

    def test_a_run_of_bad_ones_alone_fails(
        self, tmp_path: Path, unharmed: Path, bad_file: tuple[str, bytes, tuple[str, ...]]
    ) -> None:
        name, content, parts = bad_file
        folder = write_documents(tmp_path / "bad", {name: content})
        result = ingest_json(folder, unharmed, *OPTIONS)
        letters = f"{unharmed}.dead-letters/"
        assert_error(result, 1, "1 of 1 items failed", letters, str(folder / name), *parts)

    def test_a_line_that_is_cut_off(self, tmp_path: Path, kb: Path) -> None:
        content = b'{"id": 1, "content": "whole"}\n{"id": 2, "content": "ab'
        folder = write_documents(tmp_path / "lines", {"cut.jsonl": content})
        result = ingest_json(folder, kb, "--pattern", "*.jsonl")
        assert result.code == 0 and "1 item failed" in result.out
        (letter,) = letters_of(kb)
        assert letter["message"].startswith(f"{folder}/cut.jsonl, byte 30: it is cut off")

    @pytest.mark.soak
    def test_a_gigabyte_on_one_line_takes_no_gigabyte_of_memory(
        self, docs: Path, tmp_path: Path
    ) -> None:
        with (docs / "big.jsonl").open("wb") as file:
            file.write(b'{"content": "')
            for _ in range(1024):
                file.write(b"x" * (1 << 20))
            file.write(b'"}\n{"content": "the next one"}\n')
        kb = tmp_path / "kb.lance"
        result = cli_process("ingest", "json", "--directory", docs, "--pattern", "*", "--to", kb)
        assert (result.code, result.err.count("\nError")) == (0, 0), result
        assert "wrote 4 documents" in result.out and "1 item failed" in result.out
        (letter,) = letters_of(kb)
        assert "longer than" in letter["message"] and "max_line_bytes" in letter["message"]
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        assert peak < 800 << 20

    def test_two_documents_of_one_id_the_newest_of_which_wins(
        self, tmp_path: Path, kb: Path
    ) -> None:
        for order in ([1, 2], [2, 1]):
            folder = tmp_path / f"order{order[0]}"
            found = []
            for place, age in enumerate(order):
                file = f"{place}.jsonl"
                write_documents(folder, {file: lines([{"id": "same", "content": f"age {age}"}])})
                os.utime(folder / file, (age * 1000, age * 1000))
            script = tmp_path / "same.py"
            script.write_text(
                "from contextframe_beam.connectors import JSONFileConnector\n"
                "class Same(JSONFileConnector):\n"
                "    def map_to_frame_record(self, item):\n"
                "        record = super().map_to_frame_record(item)\n"
                "        record.unique_id = 'same'\n"
                "        return record\n"
            )
            result = cli(
                "ingest", f"{script}:Same", "--directory", folder, "--pattern", "*.jsonl",
                "--to", kb,
            )  # fmt: skip
            assert result.code == 0
            assert "1 left out for a newer one of the same id" in result.out
            record = FrameDataset.open(str(kb)).get("same")
            assert record is not None
            found.append(record.text_content)
            assert found == ["age 2"]


#: What the connector does wrong, at which stage that fails, and what has to be said.
BAD_ITEMS = {
    "raises": ("map", ["author"]),
    "None": ("map", ["map_to_frame_record returned None", "must return a FrameRecord"]),
    "dict": ("map", ["map_to_frame_record returned a dict", "must return a FrameRecord"]),
    "nothing": ("encode", ["no text_content and no unique_id"]),
    "object": ("encode", ["metadata['owner']"]),
    "vector": ("encode", ["vector", "3", "1536"]),
    "surrogate": ("encode", ["surrogate"]),
}


@pytest.mark.sample
class TestItems:
    @pytest.mark.parametrize("bad", BAD_ITEMS)
    def test_a_bad_one_goes_to_the_dead_letters_and_the_rest_is_committed(
        self, items: str, kb: Path, bad: str
    ) -> None:
        before = documents_in(kb) if kb.exists() else 0
        result = cli("ingest", items, "--bad", bad, "--to", kb)
        assert result.code == 0
        warning, reason = without_progress(result.err).splitlines()
        assert warning.startswith(f"Warning: 1 item failed, kept in {kb}.dead-letters/")
        assert reason.startswith(f"  {BAD_ITEMS[bad][0]}")
        assert result.out.startswith("wrote 9 documents")
        assert f"1 item failed, kept in {kb}.dead-letters/" in result.out
        assert documents_in(kb) == before + 9
        (letter,) = letters_of(kb)
        stage, parts = BAD_ITEMS[bad]
        assert (letter["stage"], letter["item"]) == (stage, {"number": 7})
        for part in parts:
            assert part in letter["message"]

    @pytest.mark.parametrize("bad", BAD_ITEMS)
    def test_a_run_of_bad_ones_alone_fails(self, items: str, unharmed: Path, bad: str) -> None:
        result = cli("ingest", items, "--bad", f"all {bad}", "--to", unharmed)
        stage, parts = BAD_ITEMS[bad]
        letters = f"{unharmed}.dead-letters/"
        assert_error(result, 1, "10 of 10 items failed", letters, f" {stage} ", *parts)

    @pytest.mark.parametrize("workers", [1, 2])
    def test_more_than_the_limit_fail(self, items: str, unharmed: Path, workers: int) -> None:
        result = cli_process(
            "ingest", items, "--bad", "raises", "--to", unharmed, "--max-failures", "5%",
            "--workers", workers,
        )  # fmt: skip
        assert_error(result, 1, "1 of 10 items failed", "--max-failures", "author")

    @pytest.mark.parametrize("workers", [1, 2])
    def test_the_source_itself_fails(self, items: str, unharmed: Path, workers: int) -> None:
        result = cli_process(
            "ingest", items, "--bad", "source", "--to", unharmed, "--workers", workers
        )
        assert_error(result, 1, "Items", "the backend does not answer")


class TestUsage:
    """Nothing has been read or written when one of these is found."""

    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            (["jsno"], ["no connector 'jsno'", "did you mean json?", "path/to/file.py:Class"]),
            (["no.such:Thing"], ["no module 'no'", "PYTHONPATH"]),
            (["gone.py:Thing"], ["cannot read gone.py", "path/to/file.py:ClassName"]),
            (["{items}s"], ["no class 'Itemss'", "did you mean Items?"]),
            (["json", "--directory", "{docs}", "--max-line-bytes", "much"],
             ["max_line_bytes", "'much' is not a whole number"]),
            (["json", "--directory", "{docs}", "--max-line-bytes", "0"],
             ["max_line_bytes is 0", "at least 1"]),
            (["json"], ["missing option --directory"]),
            (["json", "--directry", "{docs}"], ["no such option: --directry", "--directory?"]),
            (["json", "--directory", "{docs}", "--paralelism", "4"], ["mean --parallelism?"]),
            (["json", "--directory", "{docs}", "--parallelism", "four"], ["--parallelism", "four"]),
            (["json", "--directory", "{docs}", "more"], ["unexpected argument 'more'"]),
            (["json", "--directory", "{docs}", "--mode", "merge"], ["merge", "upsert"]),
            (["json", "--directory", "{docs}", "--runner", "Flnk"], ["no runner Flnk", "Flink"]),
            (["json", "--directory", "{docs}", "--workers", "0"], ["--workers", "from 1 on"]),
            (["json", "--directory", "{docs}", "--workers", "2", "--runner", "FlinkRunner"],
             ["--workers is for local runs", "--parallelism"]),
            (["json", "--directory", "{docs}", "--direct_num_workers", "2"], ["give --workers"]),
            (["json", "--directory", "{docs}", "--max-failures", "few"], ["'few'", "5%"]),
            (["json", "--directory", "{docs}", "--storage-option", "key"], ["KEY=VALUE"]),
            (["json", "--directory", "ftpx://docs"], ["ftpx"]),
        ],
    )  # fmt: skip
    def test_is_refused_with_exit_code_2(
        self, docs: Path, items: str, tmp_path: Path, arguments: list[str], parts: list[str]
    ) -> None:
        kb = tmp_path / "kb.lance"
        given = [part.format(docs=docs, items=items) for part in arguments]
        assert_error(cli("ingest", *given, "--to", kb), 2, *parts)
        assert not kb.exists()

    def test_no_dataset_is_named(self, docs: Path) -> None:
        result = cli("ingest", "json", "--directory", docs)
        assert_error(result, 2, "missing option --to", "--to kb.lance")

    def test_a_command_or_an_order_that_is_not_there(self) -> None:
        assert_error(cli("ingset", "json"), 2, "no such command: ingset", "did you mean ingest?")
        assert_error(cli("ingest", "--to", "x", "json"), 2, "name the connector first")
        assert_error(cli("search", "kb.lance", "x", "--limt", 3), 2, "did you mean --limit?")
        assert_error(cli("search", "kb.lance"), 2, "TEXT")


class TestDataset:
    def test_of_another_schema(self, docs: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.lance"
        lance.write_dataset(pa.table({"name": ["x"]}), str(other))
        result = ingest_json(docs, other)
        assert_error(result, 1, str(other), "uuid")
        assert lance.dataset(str(other)).version == 1

    def test_of_other_vectors(self, docs: Path, tmp_path: Path) -> None:
        kb = tmp_path / "kb.lance"
        FrameDataset.create(str(kb), embed_dim=4)
        before = state_of(kb)
        result = ingest_json(docs, kb, "--embed-dim", 8)
        assert_error(result, 1, str(kb), "vectors of 4", "8", "another path")
        assert state_of(kb) == before

    def test_that_is_a_file(self, docs: Path, tmp_path: Path) -> None:
        file = tmp_path / "file.lance"
        file.write_text("something else")
        result = ingest_json(docs, file)
        assert_error(result, 1, str(file))
        assert file.read_text() == "something else"

    def test_that_is_damaged(self, docs: Path, tmp_path: Path) -> None:
        kb = tmp_path / "kb.lance"
        assert ingest_json(docs, kb).code == 0
        for manifest in (kb / "_versions").iterdir():
            manifest.write_bytes(b"nonsense")
        assert_error(ingest_json(docs, kb), 1, str(kb))

    def test_dead_letters_that_cannot_be_written(self, docs: Path, unharmed: Path) -> None:
        write_documents(docs, {"bad.json": b"{"})
        result = ingest_json(docs, unharmed, "--dead-letters", docs / "1.json" / "letters")
        assert_error(result, 1, "dead letters", "1.json/letters", "--dead-letters")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk_at(tmp_path / "disk", megabytes=2) as folder:
        yield folder


class TestFullDisk:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_nothing_is_committed_and_nothing_stays(
        self, small_disk: Path, tmp_path: Path, docs: Path, workers: int
    ) -> None:
        kb = small_disk / "kb.lance"
        assert ingest_json(docs, kb).code == 0
        before = state_of(kb)
        noise = lines({"id": n, "content": os.urandom(5000).hex()} for n in range(1000))
        large = write_documents(tmp_path / "large", {"noise.jsonl": noise})
        result = cli_process(
            "ingest", "json", "--directory", large, "--pattern", "*.jsonl", "--to", kb,
            "--workers", workers,
        )  # fmt: skip
        assert_error(result, 1, str(kb), "No space left", "nothing was committed", "space")
        assert state_of(kb) == before
        # There is room again for what fits.
        write_documents(docs, {"another.json": {"content": "one more"}})
        assert ingest_json(docs, kb).code == 0
        assert documents_in(kb) == 4


def test_a_message_is_all_that_a_failed_process_writes(docs: Path, tmp_path: Path) -> None:
    """Also what libraries print past Python's own streams would be seen here."""
    write_documents(docs, {"bad.json": b"{"})
    options: list[Any] = ["--directory", docs, "--to", tmp_path / "kb.lance", "--max-failures", 0]
    done = cli_process("ingest", "json", *options, "--workers", 2)
    assert (done.code, done.out) == (1, "")
    written = without_progress(done.err)
    assert written.startswith("Error: 1 of 4 items failed") and written.count("\n") == 1


def test_json_output_is_empty_when_a_run_fails(docs: Path, tmp_path: Path) -> None:
    result = ingest_json(docs / "gone", tmp_path / "kb.lance", "--json")
    assert_error(result, 1, "Directory not found")
    with pytest.raises(json.JSONDecodeError):
        json.loads(result.out)


@pytest.mark.parametrize(
    ("name", "content", "advice"),
    [
        ("a.csv", "id,text\n1,hello\n", "looks like CSV"),
        ("a.csv", "id;text\n1;hello\n", "the connector csv reads"),
        ("a.tsv", "id\ttext\n1\thello\n", "looks like CSV"),
        ("a.html", "<!doctype html><p>x", "looks like HTML or XML"),
        ("a.xml", "\n  <?xml version='1.0'?><x/>", "looks like HTML or XML"),
        ("a.md", "# Title\n\nText.\n", "only JSON and JSON Lines are read"),
        ("a.yaml", "id: a\ntext: b\n", "only JSON and JSON Lines are read"),
    ],
)
def test_files_of_another_kind_are_named_as_what_they_are(
    name: str, content: str, advice: str, tmp_path: Path
) -> None:
    docs = write_documents(tmp_path / "docs", {name: content})
    pattern = f"*{Path(name).suffix}"
    command = ["ingest", "json", "--directory", docs, "--pattern", pattern]
    assert_error(cli(*command, "--to", tmp_path / "kb.lance"), 1, name, "it is not JSON", advice)
