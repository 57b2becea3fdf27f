"""JSONFileConnector: what becomes an item, what becomes a dead letter, and what a record holds."""

import gzip
import json
import logging
import os
import pickle
import stat
import tempfile
import tracemalloc
from datetime import datetime, timezone
from pathlib import Path

import fsspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam.connectors import json_file
from contextframe_beam.connectors.json_file import JSONFileConnector
from contextframe_beam.connectors.json_files import content as parts
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.errors import ConfigError, ConnectorError
from contextframe_beam.frames.record import FrameRecord
from tests.support.laws import examples


def opened(directory, *args, **kwargs):
    connector = JSONFileConnector(directory, *args, **kwargs)
    assert connector.authenticate() is True
    return connector


def read(connector, **kwargs):
    """All items and all dead letters of a source, by the reader that pipelines use."""
    items, failures = [], []
    for page in Source(connector, kwargs).pages():
        items += page.items
        failures += page.failures
    return items, failures


def only_failure(connector):
    items, (failure,) = read(connector)
    assert items == []
    return failure


# Documents: one a file.


def test_a_file_is_one_document_that_says_where_it_came_from(tmp_path):
    (tmp_path / "a.json").write_text('{"id": 1, "content": "Ünïcode"}')
    changed = (tmp_path / "a.json").stat().st_mtime
    modified = datetime.fromtimestamp(changed, timezone.utc).isoformat()
    (item,) = opened(tmp_path).sync_documents()
    assert item == {
        "id": 1,
        "content": "Ünïcode",
        "_file_path": str(tmp_path / "a.json"),
        "_file_name": "a.json",
        "_modified_at": modified,
    }
    assert read(opened(tmp_path)) == ([item], [])


def test_files_come_sorted_and_the_pattern_chooses_them(tmp_path):
    for name in ("b.json", "a.json", "c.txt", "sub/d.json", "sub/deep/e.json", ".hidden.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    connector = opened(tmp_path)

    def names(pattern):
        found = connector.sync_documents(pattern=pattern)
        assert [item["_file_path"] for item in read(connector, pattern=pattern)[0]] == [
            item["_file_path"] for item in found
        ]
        return [os.path.relpath(item["_file_path"], tmp_path) for item in found]

    assert names("*.json") == ["a.json", "b.json"]
    assert names("*") == ["a.json", "b.json", "c.txt"]
    assert names(".*.json") == [".hidden.json"]
    assert names("**/*.json") == [
        "a.json",
        "b.json",
        "sub/d.json",
        "sub/deep/e.json",
    ]
    assert names("sub/*") == ["sub/d.json"]
    assert names("s?b/**/*.json") == ["sub/d.json", "sub/deep/e.json"]
    assert names("sub/**") == ["sub/d.json", "sub/deep/e.json"]
    assert names("[ab].json") == ["a.json", "b.json"]


def test_a_link_to_a_folder_above_does_not_lead_in_circles(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert len(opened(tmp_path, "**/*.json").sync_documents()) == 1


@pytest.mark.parametrize(
    ("files", "groups"), [(3, [1, 1, 1]), (450, [29] * 15 + [15]), (3400, [200] * 17)]
)
def test_small_files_are_read_in_groups_of_which_several_workers_get_some(tmp_path, files, groups):
    for number in range(files):
        (tmp_path / f"{number:04}.json").write_text(f'{{"n": {number}}}')
    connector = opened(tmp_path)
    pages = [page for page in Source(connector).pages() if page.partition]
    assert [len(page.items) for page in pages] == groups
    more = f" and {groups[0] - 1} more" if groups[0] > 1 else ""
    assert pages[0].partition == f"{tmp_path}/0000.json{more}"
    assert [item["n"] for page in pages for item in page.items] == list(range(files))


def test_a_group_holds_no_more_bytes_than_a_page_should(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "GROUP_BYTES", 100)
    monkeypatch.setattr(parts, "LEAST_BLOCKS", 1)
    for number in range(9):
        (tmp_path / f"{number}.json").write_text(json.dumps({"n": number, "text": "x" * 30}))
    pages = [page for page in Source(opened(tmp_path)).pages() if page.partition]
    assert [len(page.items) for page in pages] == [2, 2, 2, 2, 1]


def test_a_gzipped_document_is_unzipped(tmp_path):
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(b'{"id": 1}', mtime=0))
    (item,) = opened(tmp_path, "*.gz").sync_documents()
    assert (item["id"], item["_file_name"]) == (1, "a.json.gz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty; expected one JSON object"),
        (b" \n\t ", "it is empty"),
        (b"\xef\xbb\xbf", "it is empty"),
        (b"hello", "it is not JSON: Expecting value (line 1, column 1)"),
        (b'{"a": 1,}', "it is not JSON"),
        (
            b'{"a": 1} {"b": 2}',
            "it is not JSON: Extra data (line 1, column 10); put documents on lines of their own, "
            "as `jq -c . FILE > FILE.jsonl` does",
        ),
        (
            b'{\n "a": 1\n}\n{\n "b": 2\n}\n',
            "it is not JSON: Extra data (line 4, column 1); put do",
        ),
        (b'{"a": [1, 2', "it is cut off: the JSON ends after 11 characters"),
        (b'{"a": "never ends', "it is cut off"),
        (b'{"a": "\xff"}', "it is not UTF-8 (byte 0xff at 7)"),
        ('{"a": 1}'.encode("utf-16"), "it is not UTF-8 (byte 0xff at 0)"),
        (
            b"[1, 2]",
            "it is a list of 2; expected one JSON object in the file; put documents on lines of "
            "their own, as `jq -c '.[]' FILE > FILE.jsonl` does",
        ),
        (b"3", "it is a number; expected one JSON object"),
        (b'"text"', "it is a text;"),
        (b"null", "it is null;"),
        (b"true", "it is true or false;"),
        (b'{"a": "\\ud800"}', "it has half of a surrogate pair"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "it has a number that is too long"),
        (b'{"a": "' + b"x" * 300 + b'"}', "it has 309 bytes or more, the limit is 300"),
    ],
)
def test_what_is_no_document_becomes_a_dead_letter(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    (tmp_path / "b.json").write_text("{}")
    limit = 300 if b"x" * 300 in content else 256 << 20
    connector = opened(tmp_path, max_document_bytes=limit)
    items, (letter,) = read(connector)
    assert [item["_file_name"] for item in items] == ["b.json"]
    assert letter.message.startswith(f"{tmp_path}/a.json: {message}")
    assert (letter.stage, letter.connector) == ("read", connector.name)
    assert letter.position == f"{tmp_path}/a.json"


def test_a_dead_letter_keeps_what_the_file_held(tmp_path):
    (tmp_path / "a.json").write_text('["é"]')
    assert only_failure(opened(tmp_path)).item["data"] == '["é"]'
    (tmp_path / "a.json").write_bytes(b"\xff")
    assert only_failure(opened(tmp_path)).original_item()["data"] == b"\xff"


def test_a_document_larger_than_the_limit_is_not_loaded(tmp_path):
    with open(tmp_path / "a.json", "wb") as file:
        file.truncate(300 << 20)
    with gzip.open(tmp_path / "b.json.gz", "wb", compresslevel=1) as file:
        file.write(bytes(8 << 20))
    connector = opened(tmp_path, "*", max_document_bytes=1 << 20)
    tracemalloc.start()
    _, failures = read(connector)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [letter.message.split(": ")[1][:20] for letter in failures] == [
        "it has 314572800 byt",
        "it has 1048577 bytes",
    ]
    assert peak < 8 << 20


@pytest.mark.parametrize("name", ["a.json.gz", "a.jsonl.gz"])
@pytest.mark.parametrize(
    "content",
    # Without a time, which would make the names of the tests different in each process.
    [
        b"not gzip",
        gzip.compress(b'{"a": 1}\n' * 999, mtime=0)[:-9],
        gzip.compress(b"{}", mtime=0) + b"x",
    ],
)
def test_damaged_gzip_is_a_dead_letter(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    _, (letter,) = read(opened(tmp_path, "*"))
    assert name in letter.message


def test_what_is_no_ordinary_file_is_a_dead_letter(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    os.mkfifo(tmp_path / "b.jsonl")
    (tmp_path / "c.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "d.jsonl").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.json").mkdir()
    items, failures = read(opened(tmp_path, "*"))
    assert items == []
    assert sorted(letter.message.removeprefix(f"{tmp_path}/") for letter in failures) == [
        "a.json: not a regular file",
        "b.jsonl, byte 0: it cannot be read: not a regular file",
        "c.json: No such file or directory",
        "d.jsonl, byte 0: it cannot be read: No such file or directory",
    ]


def test_a_file_name_that_is_no_unicode_is_shown_escaped(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff.json"
    with open(name, "wb") as file:
        file.write(b"{}")
    (item,) = opened(tmp_path).sync_documents()
    assert item["_file_name"] == "\\xff.json"
    item["_file_path"].encode()


def test_a_plain_sync_logs_and_counts_what_it_skips(tmp_path, caplog, capsys):
    for number in range(150):
        (tmp_path / f"{number:03}.json").write_text("[]" if number else "{}")
    connector = opened(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert len(connector.sync_documents()) == 1
    assert len(caplog.records) == 149
    assert "001.json: it is a list of 0" in caplog.text
    stats = connector.get_stats()
    assert stats["failed"] == 149
    assert len(stats["failures"]) == 100
    assert stats["failures"][0]["position"] == f"{tmp_path}/001.json"
    assert json.loads(json.dumps(stats)) == stats
    assert capsys.readouterr() == ("", "")


# A document's own fields.


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_field_of_a_reserved_name_is_kept_under_another(tmp_path, name):
    own = {
        "_file_path": "/etc/passwd",
        "_file_name": 1,
        "_line_offset": "mine",
        "_modified_at": None,
        "document_file_name": "taken",
    }
    (tmp_path / name).write_text(json.dumps(own))
    connector = opened(tmp_path, "*")
    (item,), _ = read(connector)
    assert item["_file_path"] == str(tmp_path / name)
    assert item["document_file_path"] == "/etc/passwd"
    assert item["document_file_name_"] == 1
    record = connector.map_to_frame_record(item)
    assert record.metadata["document_line_offset"] == "mine"
    assert record.unique_id.startswith(f"json_file:{tmp_path / name}")


# Records.


def record_of(item, **kwargs):
    return JSONFileConnector("/d", **kwargs).map_to_frame_record(
        {"_file_path": "/d/a.json", "_file_name": "a.json", "_modified_at": "2024-05-06", **item}
    )


def record_of_the_guide(item):
    """What the guide for connector authors says a record of this connector is."""
    text = item.get("content", "")
    if not text:
        for field in ["text", "body", "description", "message"]:
            if field in item:
                text = str(item[field])
                break
    metadata = {
        "source": "json_file",
        "file_path": item.get("_file_path"),
        "file_name": item.get("_file_name"),
        "modified_at": item.get("_modified_at"),
    }
    for key, value in item.items():
        if not key.startswith("_") and key not in ["content", "text"]:
            metadata[key] = value
    return FrameRecord(
        text_content=text,
        metadata=metadata,
        record_type="document",
        unique_id=f"json_file:{item['_file_path']}",
        timestamp=item["_modified_at"],
    )


FIELDS = st.sampled_from(
    [
        "content",
        "text",
        "body",
        "description",
        "message",
        "source",
        "file_path",
        "id",
        "_x",
        "",
        "é",
    ]
)


@settings(max_examples=examples(200), deadline=None)
@given(st.dictionaries(FIELDS, st.text(max_size=5) | st.lists(st.integers()), max_size=8))
def test_a_record_is_what_the_guide_says(fields):
    if not isinstance(fields.get("content", ""), str):
        fields["content"] = str(fields["content"])
    item = {"_file_path": "/d/a.json", "_file_name": "a.json", "_modified_at": "2024", **fields}
    before = json.loads(json.dumps(item))
    assert JSONFileConnector("/d").map_to_frame_record(item) == record_of_the_guide(item)
    assert item == before


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({"content": "a", "text": "b"}, "a"),
        ({"content": "", "text": "b"}, "b"),
        ({"content": None, "text": None, "body": "c"}, "c"),
        ({"description": "d", "message": "e"}, "d"),
        ({"message": 5}, "5"),
        ({"content": 42}, "42"),
        ({"content": 0}, "0"),
        ({"content": ["a"]}, "['a']"),
        ({"content": []}, ""),
        ({"content": {}, "body": "c"}, "c"),
        ({"content": None}, None),
        ({}, ""),
    ],
)
def test_the_text_is_the_first_field_that_has_one(item, text):
    assert record_of(item).text_content == text


@pytest.mark.parametrize(
    ("identifier", "name"),
    [
        ({"id": "x"}, "x"),
        ({"id": 7}, "7"),
        ({"id": 0}, "0"),
        ({"id": 2**70}, str(2**70)),
        ({"id": 1.5}, "1.5"),
        ({"id": True}, "true"),
        ({"id": {"a": [1]}}, '{"a":[1]}'),
        ({"id": None}, "31"),
        ({"id": ""}, "31"),
        ({}, "31"),
    ],
)
def test_a_line_is_identified_by_its_id_or_its_offset(identifier, name):
    record = record_of({**identifier, "_line_offset": 31})
    assert record.unique_id == f"json_file:/d/a.json#{name}"
    assert "_line_offset" not in record.metadata


def test_another_field_can_identify_a_line():
    record = record_of({"id": 1, "key": "k", "_line_offset": 31}, id_field="key")
    assert record.unique_id == "json_file:/d/a.json#k"


def test_a_file_is_identified_by_its_path_whatever_its_id():
    assert record_of({"id": 1}).unique_id == "json_file:/d/a.json"


# Directories.


@pytest.fixture
def as_nobody():
    """Gives up root's right to read everything, and a folder that others may enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        if os.geteuid():
            yield Path(folder), lambda: None
            return
        try:
            yield Path(folder), lambda: os.seteuid(65534)
        finally:
            os.seteuid(0)


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"^Directory not found: {tmp_path}/x; check"):
        JSONFileConnector(tmp_path / "x").authenticate()


def test_a_file_is_not_a_directory(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ConnectorError, match=f"^Not a directory: {tmp_path}/a.json; give its fo"):
        JSONFileConnector(tmp_path / "a.json").authenticate()


def test_an_unreadable_directory_is_named(as_nobody):
    folder, give_up_rights = as_nobody
    (folder / "closed").mkdir()
    os.chmod(folder / "closed", 0)
    give_up_rights()
    with pytest.raises(ConnectorError, match="closed cannot be listed: Permission denied; make"):
        JSONFileConnector(folder / "closed").authenticate()
    # A folder further down must not be passed over: its documents would seem to be deleted.
    with pytest.raises(ConnectorError, match="closed cannot be listed"):
        opened(folder, "**/*.json").sync_documents()
    assert opened(folder).sync_documents() == []


def test_an_unreadable_file_is_one_dead_letter(as_nobody):
    folder, give_up_rights = as_nobody
    (folder / "a.json").write_text("{}")
    (folder / "b.jsonl").write_text("{}\n" * 1_000_000)
    for name in ("a.json", "b.jsonl"):
        os.chmod(folder / name, stat.S_IWUSR)
    give_up_rights()
    items, failures = read(opened(folder, "*"))
    assert items == []
    assert [letter.message.rpartition(": ")[2] for letter in failures] == ["Permission denied"] * 2


def test_home_and_relative_directories_become_absolute(tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.json").write_text("{}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for directory in (
        "~/docs",
        "docs",
        "./docs/",
        str(tmp_path / "docs"),
        f"file://{tmp_path}/docs",
    ):
        connector = opened(directory)
        (item,) = connector.sync_documents()
        assert item["_file_path"] == str(tmp_path / "docs" / "a.json")
        # Two folders of one name are two sources.
        assert connector.source_identity()["arguments"]["directory"] == str(tmp_path / "docs")
        assert connector.source_id() == opened(tmp_path / "docs").source_id()


def test_the_pattern_is_part_of_the_identity_however_it_is_given(tmp_path):
    lines = JSONFileConnector(tmp_path, pattern="*.jsonl")
    documents = JSONFileConnector(tmp_path, max_line_bytes=5)
    assert lines.source_id() == documents.source_id({"pattern": "*.jsonl"})
    assert lines.source_id() != documents.source_id() == JSONFileConnector(tmp_path).source_id()


def test_no_match_is_no_error_but_is_warned_of(tmp_path, caplog):
    assert opened(tmp_path).sync_documents() == []
    assert f"no file in {tmp_path} matches '*.json'; there is no file in it" in caplog.text


@pytest.mark.parametrize("pattern", ["", "/etc/*", "../*.json", "a/../../b"])
def test_a_pattern_stays_below_the_directory(tmp_path, pattern):
    with pytest.raises(ConfigError, match="must name files below the directory"):
        JSONFileConnector(tmp_path, pattern)
    if pattern:
        with pytest.raises(ConfigError, match="must name files below the directory"):
            opened(tmp_path).sync_documents(pattern=pattern)


@pytest.mark.parametrize("name", ["max_line_bytes", "max_document_bytes"])
def test_limits_are_at_least_one(tmp_path, name):
    with pytest.raises(ConfigError, match=f"{name} is 0; it must be at least 1"):
        JSONFileConnector(tmp_path, **{name: 0})


def test_reading_needs_authenticate_as_on_the_guide(tmp_path):
    with pytest.raises(RuntimeError, match="Not authenticated"):
        JSONFileConnector(tmp_path).sync_documents()


def test_it_travels_as_its_arguments(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    copy = pickle.loads(pickle.dumps(opened(tmp_path)))
    assert not copy.authenticated
    copy.authenticate()
    assert len(copy.sync_documents()) == 1


# Object stores, through fsspec.


@pytest.fixture
def bucket():
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]
    yield store
    store.store.clear()


def test_an_object_store_is_read_like_a_disk(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(json_file, "BLOCK_BYTES", 64)
    monkeypatch.setattr(parts, "BLOCK_BYTES", 64)
    rows = b"".join(orjson.dumps({"id": number, "t": "é" * number}) + b"\n" for number in range(40))
    contents = {
        "a.json": b'{"id": "doc"}',
        "b.json": b"[]",
        "c.jsonl": rows,
        "d.jsonl.gz": gzip.compress(rows),
        "e.json.gz": gzip.compress(b'{"id": "zipped"}', mtime=0),
        "f.json": b'{"big": "' + b"x" * 600 + b'"}',
        "sub/g.json": b"{}",
    }
    for name, content in contents.items():
        bucket.pipe_file(f"/docs/{name}", content)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)

    def found(directory):
        items, failures = read(opened(directory, "**/*", max_document_bytes=500))
        for item in items:
            item["_file_path"] = item["_file_path"].removeprefix(str(directory))
            assert item.pop("_modified_at")
        shown = [letter.message.replace(str(directory), "") for letter in failures]
        return sorted(items, key=lambda item: json.dumps(item, sort_keys=True)), sorted(shown)

    assert found("memory:///docs") == found(tmp_path)
    assert len(found("memory:///docs")[0]) == 83


def test_an_object_store_is_listed_anew_for_each_run(bucket):
    bucket.pipe_file("/docs/a.json", b"{}")
    connector = opened("memory://docs/")
    (item,) = connector.sync_documents()
    assert item["_file_path"] == "memory:///docs/a.json"
    bucket.pipe_file("/docs/b.json", b"{}")
    assert len(connector.sync_documents()) == 2


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://nothing", "Directory not found: memory://nothing; check the URL"),
        ("memory://docs/a.json", "Not a directory: memory://docs/a.json"),
    ],
)
def test_a_wrong_url_is_named(bucket, url, message):
    bucket.pipe_file("/docs/a.json", b"{}")
    with pytest.raises(ConnectorError, match=message):
        JSONFileConnector(url).authenticate()


def test_an_unknown_kind_of_url_is_refused():
    with pytest.raises(ConfigError, match=r"nosuch://x: .*use a path, s3:// or gs://"):
        JSONFileConnector("nosuch://x")
