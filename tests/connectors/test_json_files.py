"""Which files of a folder the json connector reads, in which version, and what it finds in them."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam.connectors import json_file
from contextframe_beam.connectors.files import listing
from contextframe_beam.connectors.files.listing import Match, match_names, parts_of
from contextframe_beam.connectors.json_file import JSONFileConnector
from contextframe_beam.connectors.json_files import content as parts
from contextframe_beam.connectors.json_files.content import holds_lines
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.pipelines.ingest import ingest
from tests.support.cli_helpers import cli
from tests.support.pipeline_helpers import ids_in

TWO = b'{"id": 1, "text": "alpha"}\n{"id": 2, "text": "beta"}\n'


def opened(directory: Any, *args: Any, **kwargs: Any) -> JSONFileConnector:
    connector = JSONFileConnector(directory, *args, **kwargs)
    connector.authenticate()
    return connector


def read(connector: JSONFileConnector) -> tuple[list[Any], list[str], str]:
    """Returns the items, the messages of what failed, and why it is not the whole source."""
    items, failures, narrowed = [], [], ""
    for page in Source(connector).pages():
        items += page.items
        failures += [letter.message for letter in page.failures]
        narrowed = narrowed or page.narrowed
    return items, failures, narrowed


def write(folder: Path, **files: bytes) -> None:
    for name, content in files.items():
        put(folder / name, content)


def put(path: Path, content: bytes = b"{}") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(folder: Path, pattern: str = "**/*.json", **more: Any) -> list[str]:
    items, failures, _ = read(opened(folder, pattern, **more))
    assert failures == []
    return [os.path.relpath(item["_file_path"], folder) for item in items]


# JSON Lines by their content.


@pytest.mark.sample
@pytest.mark.parametrize(
    "name",
    ["part-00000.json", "EXPORT.JSONL", "events.jsonl.1", "events.jsonl-20260131", "data", "x.txt"],
)
@pytest.mark.parametrize("size", [1, 100_000])
def test_lines_are_read_whatever_the_name_of_the_file(tmp_path, name, size):
    put(tmp_path / name, TWO * size)
    items, failures, _ = read(opened(tmp_path, "*"))
    assert failures == []
    assert [item["id"] for item in items] == [1, 2] * size
    assert items[1]["_line_offset"] == 27
    assert opened(tmp_path, "*").sync_documents() == items


@pytest.mark.parametrize(
    "content",
    [
        b'{"id": 1}',
        b'{"id": 1}\n\n  \n',
        b'\n\n{"id": 1}\r\n',
        b'\xef\xbb\xbf{"id": 1}\n',
        b'{\n  "id": 1\n}\n',
        b'{"id": 1,\n"more": [\n{"a": 1}\n]}',
    ],
)
def test_one_document_in_a_file_is_named_by_its_path(tmp_path, content):
    put(tmp_path / "a.json", content)
    (item,), _, _ = read(connector := opened(tmp_path))
    assert "_line_offset" not in item
    assert connector.map_to_frame_record(item).unique_id == f"json_file:{tmp_path}/a.json"


@pytest.mark.parametrize("content", [b"", b"\n\n", b'{"id": 1}\n'])
def test_a_name_says_that_there_are_lines_where_the_content_cannot(tmp_path, content):
    put(tmp_path / "events.jsonl.1", content)
    items, failures, _ = read(opened(tmp_path, "*"))
    assert failures == []
    assert [item["_line_offset"] for item in items] == [0] * content.count(b"{")


def test_a_bad_line_of_a_file_of_another_name_is_one_dead_letter(tmp_path):
    put(tmp_path / "a.json", b'{"id": 1}\nbroken\n{"id": 2}\n')
    put(tmp_path / "b.json", b'broken\n{"id": 3}\n{"id": 4}\n')
    items, failures, _ = read(opened(tmp_path))
    assert [item["id"] for item in items] == [1, 2, 3, 4]
    assert [one.partition(": it is not JSON")[0] for one in failures] == [
        f"{tmp_path}/a.json, byte 10",
        f"{tmp_path}/b.json, byte 0",
    ]


def test_a_large_file_of_lines_of_another_name_is_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(json_file, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(parts, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(parts, "SMALLEST_BLOCK_BYTES", 100)
    put(tmp_path / "part-0.json", b"".join(b'{"n": %d}\n' % n for n in range(400)))
    pages = list(Source(opened(tmp_path)).pages())
    assert sum(page.finished for page in pages) > 3
    assert [item["n"] for page in pages for item in page.items] == list(range(400))


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers()), min_size=2), st.booleans())
def test_what_is_written_as_lines_is_recognised_and_what_is_written_as_one_is_not(
    documents, pretty
):
    rows = [json.dumps(one).encode() for one in documents]
    assert holds_lines(b"\n".join(rows))
    whole = json.dumps({"all": documents}, indent=2 if pretty else None).encode()
    assert not holds_lines(whole)
    assert not holds_lines(whole + b"\n \n")


# The names of lines.


def line_names(connector: JSONFileConnector) -> list[str]:
    items, failures, _ = read(connector)
    assert failures == []
    records = map(connector.map_to_frame_record, items)
    return [str(record.unique_id).rpartition("#")[2] for record in records]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"id": 1}\n{"id": 2}\n', ["1", "2"]),
        (b'{"a": 1}\n{"a": 2}\n', ["0", "9"]),
        (b'{"id": 9, "n": 1}\n{"a": 2}\n', ["9", "18"]),
        (b'{"id": 10}\n{"a": 2}\n{"id": 20}\n', ["10", "11", "20"]),
        (b'{"id": 11}\n{"a": 2}\n', ["11", "byte 11"]),
        (b'{"a": 2}\n{"id": "0"}\n', ["byte 0", "0"]),
        (b'{"id": ""}\n{"id": null}\n{"id": 0}\n', ["byte 0", "11", "0"]),
        (b'{"id": 11}\n{"a": 2}\n{"id": "byte 11"}\n', ["11", "byte 11_", "byte 11"]),
    ],
)
def test_the_name_of_a_line_without_an_id_is_no_other_lines_id(tmp_path, name, content, expected):
    put(tmp_path / name, gzip.compress(content) if name.endswith("gz") else content)
    assert line_names(opened(tmp_path, "*")) == expected


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_lines_of_a_large_file_have_names_of_their_own_in_whatever_blocks(tmp_path, name, blocks):
    # Each tenth line has no id, and the ids are what offsets of such lines are.
    rows, at = [], 0
    for number in range(900):
        row = b'{"text": "nameless"}' if number % 10 == 9 else b'{"id": %d}' % (number * 7)
        rows.append(row)
        at += len(row) + 1
    content = b"\n".join(rows)
    put(tmp_path / name, gzip.compress(content) if name.endswith("gz") else content)
    found = line_names(opened(tmp_path, "*"))
    assert len(set(found)) == 900
    assert found[:9] == [str(number * 7) for number in range(9)]


@pytest.mark.parametrize("row", [b'{"id": "x%d"}', b'{"text": "%d"}'])
def test_lines_of_one_kind_keep_their_names_in_files_of_any_size(tmp_path, row, blocks):
    rows = [row % number for number in range(1000)]
    put(tmp_path / "large.jsonl", b"\n".join(rows))
    put(tmp_path / "small.jsonl", b"\n".join(rows[:5]))
    names = line_names(opened(tmp_path, "large.jsonl"))
    assert names[:5] == line_names(opened(tmp_path, "small.jsonl"))
    assert not any("byte" in name for name in names)


# Compressed files.


def zstd(data: bytes) -> bytes:
    packed: bytes = pa.Codec("zstd").compress(data, asbytes=True)
    return packed


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd,
}


@pytest.mark.parametrize("suffix", COMPRESSIONS)
@pytest.mark.parametrize("stem", ["a.json", "a.jsonl", "a"])
@pytest.mark.parametrize("name_tells", [True, False])
@pytest.mark.parametrize("members", [1, 2])
def test_compressed_files_are_read_whatever_their_name(tmp_path, suffix, stem, name_tells, members):
    name = f"{stem}.{suffix}" if name_tells else stem
    put(tmp_path / name, COMPRESSIONS[suffix](TWO) * members)
    items, failures, _ = read(opened(tmp_path, "*"))
    assert failures == []
    assert [item["id"] for item in items] == [1, 2] * members


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_a_compressed_document_is_one_document(tmp_path, suffix):
    put(tmp_path / f"a.json.{suffix}", COMPRESSIONS[suffix](b'{\n"id": 1\n}\n'))
    (item,), _, _ = read(opened(tmp_path, "*"))
    assert item["id"] == 1 and "_line_offset" not in item


@pytest.mark.parametrize("suffix", COMPRESSIONS)
@pytest.mark.parametrize("stem", ["a.json", "a.jsonl"])
def test_compressed_data_that_is_cut_off_is_a_dead_letter(tmp_path, suffix, stem):
    put(tmp_path / f"{stem}.{suffix}", COMPRESSIONS[suffix](TWO * 5000)[:-9])
    _, (failure,), _ = read(opened(tmp_path, "*"))
    assert "data is damaged or cut off" in failure


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_large_compressed_lines_of_any_name_are_never_held_as_a_whole(
    tmp_path, suffix, monkeypatch
):
    monkeypatch.setattr(json_file, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(parts, "BLOCK_BYTES", 1000)
    rows = b"".join(b'{"id": "%s"}\n' % os.urandom(20).hex().encode() for _ in range(3000))
    put(tmp_path / f"a.json.{suffix}", COMPRESSIONS[suffix](rows))
    items, failures, _ = read(opened(tmp_path, "*", max_document_bytes=2000))
    assert failures == []
    assert len(items) == 3000


def test_a_plain_file_named_as_a_compressed_one_is_what_it_is(tmp_path):
    put(tmp_path / "a.json.gz", b'{"id": 1}')
    put(tmp_path / "b.jsonl.gz", TWO)
    assert len(names(tmp_path, "*")) == 3


def archive(kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as zipped:
            zipped.writestr("a.json", "{}")
    else:
        with tarfile.open(fileobj=file, mode="w:gz" if kind == "tar.gz" else "w") as tar:
            tar.addfile(tarfile.TarInfo("a.json"))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive("zip"), "it is a ZIP archive, which is not read; unpack it into the directory"),
        (archive("tar"), "it is a tar archive, which is not read; unpack it into the directory"),
        (archive("tar.gz"), "it is a tar archive, which is not read"),
        (b"PAR1\x15\x04", "it is Parquet, which is not read; read it with the connector parquet"),
        (b"SQLite format 3\x00", "it is an SQLite database"),
        (b"%PDF-1.7", "it is a PDF, which is not read; choose a pattern that leaves it out"),
        (b"\x04\x22\x4d\x18", "it is compressed with lz4, which is not read; decompress it first"),
    ],
    ids=["zip", "tar", "tar.gz", "parquet", "sqlite", "pdf", "lz4"],
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_another_format_is_named_as_what_it_is(tmp_path, content, message, name):
    put(tmp_path / name, content)
    items, (failure,), _ = read(opened(tmp_path, "*"))
    assert items == []
    assert message in failure


def test_a_large_archive_is_named_too(tmp_path):
    put(tmp_path / "a.json", archive("zip") + bytes(2 << 20))
    _, (failure,), _ = read(opened(tmp_path, max_document_bytes=1000))
    assert "it is a ZIP archive" in failure


# Hidden files, and links.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as programs leave it: with what they hide."""
    root = tmp_path / "docs"
    for name in (
        "a.json",
        "sub/b.json",
        ".hidden.json",
        "._a.json",
        ".git/config.json",
        ".ipynb_checkpoints/a-checkpoint.json",
        "..2026_11_28/data.json",
    ):
        put(root / name)
    (root / "..data").symlink_to("..2026_11_28")
    (root / "data.json").symlink_to("..data/data.json")
    return root


def test_hidden_files_and_folders_are_read_only_when_asked_for(folder):
    assert names(folder) == ["a.json", "data.json", "sub/b.json"]
    assert names(folder, hidden=True) == [
        "..2026_11_28/data.json",
        "..data/data.json",
        "._a.json",
        ".git/config.json",
        ".hidden.json",
        ".ipynb_checkpoints/a-checkpoint.json",
        "a.json",
        "data.json",
        "sub/b.json",
    ]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.json", ["a.json", "data.json"]),
        (".*.json", ["._a.json", ".hidden.json"]),
        (".hidden.json", [".hidden.json"]),
        (".git/*", [".git/config.json"]),
        (".git/**/*.json", [".git/config.json"]),
        ("*/*.json", ["sub/b.json"]),
        ("**/a-*.json", []),
    ],
)
def test_a_pattern_that_names_what_is_hidden_means_it(folder, pattern, found):
    assert names(folder, pattern) == found


def test_hidden_files_are_no_other_source(tmp_path):
    plain = JSONFileConnector(tmp_path)
    assert JSONFileConnector(tmp_path, hidden=True).source_id() == plain.source_id()


def test_links_to_folders_are_followed_within_the_directory(tmp_path):
    put(tmp_path / "docs/real/x.json")
    (tmp_path / "docs/real/up").symlink_to("..")
    (tmp_path / "docs/real/self").symlink_to(".")
    (tmp_path / "docs/again").symlink_to("real")
    assert names(tmp_path / "docs") == ["again/x.json", "real/x.json"]
    assert names(tmp_path / "docs/real") == ["x.json"]


def test_a_directory_that_is_a_link_itself_is_the_folder_it_leads_to(tmp_path):
    put(tmp_path / "real/sub/x.json")
    (tmp_path / "real/again").symlink_to(tmp_path / "real/sub")
    (tmp_path / "docs").symlink_to("real")
    assert names(tmp_path / "docs") == ["again/x.json", "sub/x.json"]


def test_folders_that_all_link_to_each_other_are_gone_through_in_short_time(tmp_path):
    for one in range(12):
        put(tmp_path / f"{one}/x.json")
        for other in range(12):
            (tmp_path / f"{one}/to-{other}").symlink_to(tmp_path / str(other))
    found = names(tmp_path)
    assert {f"{one}/x.json" for one in range(12)} <= set(found)
    assert len(found) < 12**3


def test_links_out_of_the_directory_are_counted_and_keep_a_mirror_from_deleting(tmp_path, caplog):
    put(tmp_path / "elsewhere/x.json")
    docs = tmp_path / "docs"
    put(docs / "a.json", b'{"text": "a"}')
    put(docs / "b.json", b'{"text": "b"}')
    (docs / "out").symlink_to(tmp_path / "elsewhere")
    (docs / "away").symlink_to("../elsewhere")
    assert names(docs) == ["a.json", "b.json"]
    reason = f"2 links to folders, such as {docs}/away, lead out of the directory"
    assert read(opened(docs, "**/*.json"))[2] == reason
    assert f"{reason}; such links are not followed: give their folders as" in caplog.text

    kb = str(tmp_path / "kb.lance")
    source = JSONFileConnector(docs, "**/*.json")
    ingest(source, kb, embed_dim=4)
    (docs / "b.json").unlink()
    receipt = ingest(source, kb, mode="mirror")
    assert (receipt.rows_deleted, receipt.kept) == (0, reason)
    assert len(ids_in(kb)) == 2


def test_a_folder_that_a_pattern_names_may_be_a_link_to_anywhere(tmp_path):
    put(tmp_path / "elsewhere/sub/x.json")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/out").symlink_to(tmp_path / "elsewhere")
    assert names(tmp_path / "docs", "out/*/*.json") == ["out/sub/x.json"]


def test_hidden_files_that_an_earlier_run_has_read_are_not_taken_for_gone_unsaid(folder, caplog):
    kb = str(folder.parent / "kb.lance")

    def mirror(**more: Any) -> tuple[int, int, str]:
        receipt = ingest(JSONFileConnector(folder, "**/*.json", **more), kb, mode="mirror", **new)
        return len(ids_in(kb)), receipt.rows_deleted, receipt.kept

    new: dict[str, Any] = {"embed_dim": 4}
    ingest(JSONFileConnector(folder, "**/*.json", hidden=True), kb, embed_dim=4)
    new = {}
    reason = f"5 hidden files, such as {folder}/..2026_11_28/data.json, were left out"
    assert mirror() == (9, 0, reason)
    assert "are read with hidden=True" in caplog.text
    assert mirror(hidden=True) == (9, 0, "")
    assert mirror() == (9, 0, reason)
    assert mirror() == (3, 6, "")
    (folder / "a.json").unlink()
    assert mirror() == (2, 1, "")


def test_a_mirror_beside_hidden_files_deletes_from_its_second_run_on(folder):
    kb = str(folder.parent / "kb.lance")
    source = JSONFileConnector(folder, "**/*.json")
    ingest(source, kb, mode="mirror", embed_dim=4)
    (folder / "a.json").unlink()
    assert ingest(source, kb, mode="mirror").rows_deleted == 1


def test_files_that_did_not_change_are_still_known_where_others_are_hidden(folder):
    kb = str(folder.parent / "kb.lance")
    for path in folder.rglob("*.json"):
        os.utime(path, (1e9, 1e9))
    source = JSONFileConnector(folder, "**/*.json", skip_unchanged=True)
    assert ingest(source, kb, embed_dim=4).rows_written == 3
    receipt = ingest(source, kb)
    assert (receipt.rows_written, receipt.rows_unchanged) == (0, 0)
    ingest(JSONFileConnector(folder, "**/*.json"), kb, full=True)
    assert ingest(source, kb).rows_unchanged == 0


# A folder without a match.


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "there is no file in it"),
        (["a.csv", "b.csv"], "there are 2 *.csv; the pattern '*.csv' would match some"),
        (
            ["a.txt", "b.txt", "sub/c.jsonl"],
            "there are 2 *.txt, 1 **/*.jsonl; the pattern '**/*.jsonl' would match some",
        ),
        ([".git/a.json"], "there is no file in it"),
    ],
)
def test_a_folder_without_a_match_says_what_is_there_and_makes_no_dataset(
    tmp_path, caplog, store, files, said
):
    docs, kb = tmp_path / "docs", tmp_path / "kb.lance"
    docs.mkdir()
    for name in files:
        put(docs / name)
        store.pipe_file(f"/docs/{name}", b"{}")
    for mode in ("upsert", "mirror", "overwrite", "create"):
        receipt = ingest(JSONFileConnector(docs), str(kb), mode=mode)
        assert (receipt.version, receipt.rows_written) == (0, 0)
        assert not kb.exists()
    assert f"no file in {docs} matches '*.json'; {said}" in caplog.text
    caplog.clear()
    if files:
        ingest(JSONFileConnector("memory://docs"), str(kb))
        assert f"no file in memory://docs matches '*.json'; {said}" in caplog.text


def test_the_command_line_warns_of_a_folder_without_a_match(tmp_path):
    put(tmp_path / "docs/a.csv")
    kb = tmp_path / "kb.lance"
    result = cli("ingest", "json", "--directory", tmp_path / "docs", "--to", kb)
    assert result.code == 0
    assert "no file in" in result.err and "there are 1 *.csv" in result.err
    assert result.out == f"nothing to write: the source gave no items, and {kb} was not made\n"
    assert not kb.exists()


def test_a_folder_that_was_emptied_is_an_ordinary_upsert_that_warns(tmp_path, caplog):
    put(tmp_path / "docs/a.json")
    kb = str(tmp_path / "kb.lance")
    ingest(JSONFileConnector(tmp_path / "docs"), kb, embed_dim=4)
    (tmp_path / "docs/a.json").unlink()
    assert ingest(JSONFileConnector(tmp_path / "docs"), kb).version == 2
    assert "there is no file in it" in caplog.text
    assert len(ids_in(kb)) == 1


NAMES = st.lists(st.sampled_from(["a", "b", ".h", "a.json", ""]), min_size=1, max_size=5)
PARTS = st.lists(st.sampled_from(["**", "*", "a", "a*", ".*", "[ab]"]), min_size=1, max_size=5)


def naive(parts: list[str], path: list[str], hidden: bool) -> bool:
    """What a pattern means, said in the plainest way."""
    if not parts or not path:
        return not parts and not path
    seen = hidden or not path[0].startswith(".")
    if parts[0] == "**":
        return naive(parts[1:], path, hidden) or (seen and naive(parts, path[1:], hidden))
    fits = listing.fnmatch.fnmatchcase(path[0], parts[0])
    named = seen or parts[0].startswith(".")
    return fits and named and naive(parts[1:], path[1:], hidden)


@given(PARTS, NAMES)
def test_a_pattern_means_the_same_for_any_path(parts, path):
    found = match_names(parts, path)
    assert (found is Match.YES) == naive(parts, path, False)
    assert (found is not Match.NO) == naive(parts, path, True)


# What is opened is what was listed.


def changes(path: Path, how: str) -> None:
    """Changes a file of lines so that each line says so."""
    new = path.read_bytes().replace(b"old", b"new")
    before = path.stat()
    if how == "replaced by a larger one":
        put(path.parent / ".new", new.replace(b"new", b"new and longer")).replace(path)
    elif how == "replaced by one of the same size and time":
        put(path.parent / ".new", new).replace(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif how == "written anew":
        path.write_bytes(new)
    elif how == "cut":
        path.write_bytes(new[: len(new) // 2])
    elif how == "added to":
        with path.open("ab") as file:
            file.write(b'{"id": "more", "content": "old"}\n')
    elif how == "emptied":
        path.write_bytes(b"")
    else:
        path.unlink()


HOW = [
    "replaced by a larger one",
    "replaced by one of the same size and time",
    "written anew",
    "cut",
    "added to",
    "emptied",
    "removed",
]


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(json_file, "BLOCK_BYTES", 4000)
    monkeypatch.setattr(parts, "BLOCK_BYTES", 4000)
    monkeypatch.setattr(parts, "SMALLEST_BLOCK_BYTES", 1000)
    monkeypatch.setattr(json_file, "CACHED_BYTES", 500)
    yield


def lines(count: int) -> bytes:
    return b"".join(b'{"id": %d, "content": "old"}\n' % number for number in range(count))


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.jsonl.gz"])
def test_a_small_file_that_changed_before_it_is_read_is_read_as_it_is(tmp_path, how, name):
    path = put(tmp_path / name, lines(20))
    source = Source(opened(tmp_path, "*"))
    pieces = list(source.plan())
    changes(path, how)
    pages = [one.page for piece in pieces for one in source.read_blocks(piece, lambda _: True)]
    items = [item for page in pages for item in page.items]
    failures = [letter for page in pages for letter in page.failures]
    if how == "added to":
        assert len(items) == 21
    elif how in ("removed", "emptied"):
        assert items == [] and len(failures) == (how == "removed" or name == "a.json")
    else:
        assert all(item["content"] != "old" for item in items)
        assert len(items) + len(failures) == (11 if how == "cut" else 20)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_large_file_that_changes_while_it_is_read_is_never_a_mixture(
    tmp_path, how, after, blocks
):
    path = put(tmp_path / "a.jsonl", lines(500))
    source = Source(opened(tmp_path, "*"))
    pieces = [piece for piece in source.plan(4) if piece.parts]
    read_so_far = after
    items, failures = [], []
    for piece in pieces:
        # Each piece by a connector of its own, as workers do.
        worker = Source(opened(tmp_path, "*"))
        for fetched in worker.read_blocks(piece, lambda _: True):
            if not read_so_far:
                changes(path, how)
            read_so_far -= 1
            items += fetched.page.items
            failures += [letter.message for letter in fetched.page.failures]
    assert {item["content"] for item in items} <= {"old"}
    assert len(items) < 500
    assert failures
    for message in failures:
        assert "it changed after it was listed" in message or "No such file" in message


def test_a_file_that_is_written_to_while_it_is_streamed_is_never_a_mixture(tmp_path, blocks):
    path = put(tmp_path / "a.jsonl.gz", gzip.compress(os.urandom(100)) + gzip.compress(lines(900)))
    path.write_bytes(gzip.compress(lines(900), 0))
    source = Source(opened(tmp_path, "*"))
    (piece,) = (piece for piece in source.plan() if piece.parts)
    connector = source.connector
    chunks = connector._streamed(json_file.FileInfo(*piece.parts[0].partition.params["file"]))
    items = []
    for number, (_, part) in enumerate(chunks):
        if number == 1:
            path.write_bytes(gzip.compress(lines(900).replace(b"old", b"new"), 0))
        items.append(part)
    assert b"new" not in b"".join(part.data for part in items)
    (bad,) = items[-1].bad
    assert "it changed after it was listed" in str(bad.error)


def test_a_mirror_keeps_the_documents_of_a_file_that_changed_under_it(tmp_path, blocks):
    docs = tmp_path / "docs"
    path = put(docs / "b.jsonl", lines(500))
    kb = str(tmp_path / "kb.lance")

    class Changing(JSONFileConnector):
        is_calm = True

        def read_part(self, partition: Any, block: int) -> Any:
            if not self.is_calm and block == 2:
                changes(path, "replaced by a larger one")
            return super().read_part(partition, block)

    ingest(Changing(docs, "*.jsonl"), kb, embed_dim=4)
    Changing.is_calm = False
    receipt = ingest(Changing(docs, "*.jsonl"), kb, mode="mirror")
    assert receipt.failed and not receipt.rows_deleted
    assert len(ids_in(kb)) == 500


# Object stores by way of fsspec: the names of objects are any text.


ODD = [
    "report1.json",
    "report[1].json",
    "a b+c%20d.json",
    "ünï.json",
    "x#y.json",
    "q&=.json",
    "what?.json",
    "star*.json",
    "star2.json",
    "sub//double.json",
    "sub/plain.json",
    "new\nline.json",
    "{a,b}.json",
]


@pytest.fixture
def store() -> Iterator[Any]:
    found = fsspec.filesystem("memory")
    found.store.clear()
    found.pseudo_dirs[:] = [""]
    yield found
    found.store.clear()


def test_objects_of_any_name_are_read(store):
    for name in ODD:
        store.pipe_file(f"/docs/{name}", json.dumps({"content": name}).encode())
    items, failures, _ = read(opened("memory://docs", "**/*.json"))
    assert failures == []
    assert sorted(item["content"] for item in items) == sorted(ODD)
    assert all(item["_file_path"] == f"memory:///docs/{item['content']}" for item in items)


@pytest.mark.parametrize("pattern", ["*.json", "sub/*.json", "s?b/*.json", "*/*.json", "**/*.json"])
def test_an_object_store_means_by_a_pattern_what_a_disk_means(store, tmp_path, pattern):
    for name in ("a.json", ".h.json", "sub/b.json", "sub/.g/c.json", ".s/d.json", "sub/e/f.json"):
        put(tmp_path / name)
        store.pipe_file(f"/docs/{name}", b"{}")
    items, _, _ = read(opened("memory://docs", pattern))
    there = sorted(item["_file_path"].removeprefix("memory:///docs/") for item in items)
    assert there == names(tmp_path, pattern)


def test_an_object_that_changes_while_it_is_read_is_never_a_mixture(store, blocks):
    store.pipe_file("/docs/b.jsonl", lines(500))
    source = Source(opened("memory://docs", "*.jsonl"))
    items, failures = [], []
    for piece in list(source.plan()):
        for fetched in source.read_blocks(piece, lambda _: True):
            items += fetched.page.items
            failures += [letter.message for letter in fetched.page.failures]
            store.pipe_file("/docs/b.jsonl", lines(500).replace(b"old", b"newer"))
    assert {item["content"] for item in items} <= {"old"}
    assert any("it changed after it was listed" in one for one in failures)


def test_a_pattern_without_a_name_is_refused():
    with pytest.raises(Exception, match="names no file"):
        parts_of("./")


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_file_that_is_written_to_all_the_time_is_never_read_as_a_mixture(tmp_path, name):
    path = put(tmp_path / name, lines(3000))
    contents = [lines(3000).replace(b"old", word) for word in (b"old", b"new")]
    stopped = threading.Event()

    def write_by_turns() -> None:
        with path.open("r+b", buffering=0) as file:
            while not stopped.is_set():
                for content in contents:
                    file.seek(0)
                    file.write(content)
                    stopped.wait(0.03)

    writer = threading.Thread(target=write_by_turns)
    writer.start()
    try:
        for _ in range(20):
            items, failures, _ = read(opened(tmp_path, "*"))
            assert len({item["content"] for item in items}) == 1 or not items
            assert len(items) == 3000 or failures
    finally:
        stopped.set()
        writer.join()
