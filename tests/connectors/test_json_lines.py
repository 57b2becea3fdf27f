"""JSON Lines: each line is read once and exactly, however long, odd or broken others are."""

import gzip
import json
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contextframe_beam.connectors.json_file import JSONFileConnector
from contextframe_beam.connectors.json_files import content as parts
from contextframe_beam.connectors.json_files import lines as _jsonl
from contextframe_beam.connectors.read.source import Source
from tests.support.laws import examples


def opened(directory, *args, **kwargs):
    connector = JSONFileConnector(directory, *args, **kwargs)
    assert connector.authenticate() is True
    return connector


def read(connector):
    """All items and all dead letters of a source, by the reader that pipelines use."""
    items, failures = [], []
    for page in Source(connector).pages():
        items += page.items
        failures += page.failures
    return items, failures


def lines_of(tmp_path, content, name="a.jsonl", **kwargs):
    (tmp_path / name).write_bytes(content)
    return opened(tmp_path, "*", **kwargs)


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz", "a.ndjson.gz"])
def test_each_line_is_a_document_that_knows_its_place(tmp_path, name):
    content = b'\xef\xbb\xbf{"id": 1}\r\n\r\n  \n{"id": "\xc3\xa9"}\n{"id": 3}'
    connector = lines_of(tmp_path, gzip.compress(content) if name.endswith("gz") else content, name)
    items, failures = read(connector)
    assert failures == []
    assert [(item["id"], item["_line_offset"]) for item in items] == [(1, 0), ("é", 19), (3, 32)]
    assert {item["_file_name"] for item in items} == {name}
    assert connector.sync_documents() == items


def test_gzip_may_have_several_members(tmp_path):
    content = gzip.compress(b'{"id": 1}\n{"id"') + gzip.compress(b": 2}\n")
    items, failures = read(lines_of(tmp_path, content, "a.jsonl.gz"))
    assert [item["id"] for item in items] == [1, 2]
    assert failures == []


@pytest.mark.parametrize(
    ("documents", "bytes_of_each", "blocks"),
    [(20_000, 15, 5), (300_000, 15, 16), (300_000, 100, 29)],
)
def test_a_file_is_several_blocks_and_pages_of_bounded_length(
    tmp_path, documents, bytes_of_each, blocks
):
    lines = ((b'{"n": %d}' % number).ljust(bytes_of_each) for number in range(documents))
    connector = lines_of(tmp_path, b"\n".join(lines))
    pages = [page for page in Source(connector).pages() if page.partition]
    assert sum(page.finished for page in pages) == blocks
    assert max(len(page.items) for page in pages) == 1000
    assert [item["n"] for page in pages for item in page.items] == list(range(documents))


def test_blocks_of_a_file_are_of_one_size_so_that_workers_who_take_turns_get_the_same(tmp_path):
    line = b'{"text": "%s"}\n' % (b"x" * 1000)
    connector = lines_of(tmp_path, line * (_jsonl.BLOCK_BYTES * 11 // 10 // len(line)))
    counts = [0]
    for page in Source(connector).pages():
        counts[-1] += len(page.items)
        if page.partition and page.finished:
            counts.append(0)
    first, second = counts[:2]
    assert abs(first - second) <= 1


def test_the_parts_of_a_large_file_depend_on_it_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_BYTES", 1000)
    monkeypatch.setattr(parts, "SMALLEST_BLOCK_BYTES", 100)
    connector = lines_of(tmp_path, b"".join(b'{"n": %d}\n' % n for n in range(400)), "b.jsonl")
    before = [part.content for part in Source(connector).parts()]
    assert len(before) == 5
    lines_of(tmp_path, b"{}\n" * 3000, "a.jsonl")
    assert [part.content for part in Source(connector).parts()][-5:] == before
    items, failures = read(connector)
    assert failures == []
    assert [item["n"] for item in items if "n" in item] == list(range(400))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "it is cut off: the JSON ends after 1 characters"),
        (b"[1]", "it is a list of 1; expected one JSON object on each line"),
        (b"nonsense", "it is not JSON: Expecting value"),
        (b'{"a": "\xff"}', "it is not UTF-8 (byte 0xff at 7)"),
        (b'{"a": "\\udc00"}', "it has half of a surrogate pair"),
        (b"[" * 100_000, "it is nested too deeply"),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_bad_line_is_a_dead_letter_and_the_others_are_read(tmp_path, name, line, message):
    content = b'{"id": 1}\n' + line + b'\n{"id": 2}\n'
    content = gzip.compress(content) if name.endswith("gz") else content
    items, (letter,) = read(lines_of(tmp_path, content, name))
    assert [(item["id"], item["_line_offset"]) for item in items] == [(1, 0), (2, 11 + len(line))]
    assert letter.position == f"{tmp_path}/{name}, byte 10"
    assert letter.message.startswith(f"{letter.position}: {message}")
    assert letter.partition == f"{tmp_path}/{name}"
    item = letter.original_item()
    assert item["_line_offset"] == 10
    assert item["data"] in (line, line.decode(errors="replace"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_line_that_is_too_long_is_one_dead_letter_and_never_held(tmp_path, name):
    long = '"' + "é" * (20 << 20)
    content = b'{"id": 1}\n' + long.encode() + b'\n{"id": 2}\n'
    if name.endswith("gz"):
        content = gzip.compress(content, 1)
    connector = lines_of(tmp_path, content, name, max_line_bytes=1 << 20)
    del content
    tracemalloc.start()
    items, (letter,) = read(connector)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [item["id"] for item in items] == [1, 2]
    assert letter.position == f"{tmp_path}/{name}, byte 10"
    assert "it is longer than 1048576 bytes" in letter.message
    assert letter.item["data"] == long[:1000]
    assert peak < 12 << 20


def test_a_line_of_just_the_allowed_length_is_read(tmp_path):
    line = json.dumps({"t": "x" * 1_000_000}).encode()
    content = line + b"\n" + line + b" \n"
    connector = lines_of(tmp_path, content, max_line_bytes=len(line))
    items, failures = read(connector)
    assert [item["_line_offset"] for item in items] == [0]
    assert [letter.item["_line_offset"] for letter in failures] == [len(line) + 1]


# Numbers.


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize(
    "number",
    [
        "18446744073709551616",
        "-9223372036854775809",
        "123456789012345678901234567890",
        "1" + "0" * 400,
        "18446744073709551615",
        "-9223372036854775808",
        "0.1234567890123456789012345678901",
        "12345678901234567890.5",
        "12345678901234567890e3",
    ],
)
def test_numbers_of_any_size_are_exact(tmp_path, name, number):
    (tmp_path / name).write_text(f'{{"id": 1, "deep": [{{"n": {number}}}], "s": "0123456789"}}')
    (item,), _ = read(opened(tmp_path, "*"))
    (found,) = item["deep"]
    assert found["n"] == json.loads(number)
    assert type(found["n"]) is type(json.loads(number))


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_not_a_number_is_read_as_other_programs_write_it(tmp_path, name):
    (tmp_path / name).write_text('{"a": NaN, "b": -Infinity}')
    (item,), _ = read(opened(tmp_path, "*"))
    assert item["a"] != item["a"]
    assert item["b"] == float("-inf")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**17, 10**22)
    | st.integers(-(10**22), -(10**17))
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30)
    | st.text("0123456789.-", max_size=60),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
DOCUMENT = st.dictionaries(st.text(max_size=8), JSON, max_size=6)


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(DOCUMENT, min_size=1, max_size=6), st.booleans())
def test_any_document_is_read_exactly(documents, ascii_only):
    try:
        rows = [json.dumps(one, ensure_ascii=ascii_only).encode() for one in documents]
    except UnicodeEncodeError:
        rows = []
    lines = _jsonl.Lines(b"\n".join(rows), 0)
    items, bad = _jsonl.parse_lines(lines, "p", "n", "m", 1 << 20)
    expected = []
    for row in rows:
        document = json.loads(row)
        try:
            json.dumps(document, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            continue
        expected.append(document)
    assert len(items) + len(bad) == len(rows)
    own = [{key: item[key] for key in item if key not in _jsonl.RESERVED} for item in items]
    assert own == expected
    # 1 and 1.0 are equal to Python.
    assert repr(own) == repr(expected)


@settings(max_examples=examples(300), deadline=None)
@given(st.text('0123456789"a.', max_size=120), st.integers(0, 20))
@example("1" * 19, 3)
def test_every_run_of_19_digits_is_found(text, shift):
    data = b" " * shift + b'{"a":' + text.encode() + b"}"
    found = _jsonl.big_integers(data)
    for position in found:
        assert data[position : position + 1].isdigit()
    runs, start = [], None
    for index, byte in enumerate(data):
        if chr(byte).isdigit():
            start = index if start is None else start
            continue
        if start is not None and index - start >= 19 and data[start - 1 : start] != b".":
            runs.append(range(start, index))
        start = None
    assert all(any(position in run for position in found) for run in runs)
