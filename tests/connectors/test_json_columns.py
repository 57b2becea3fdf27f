"""JSON Lines as tables: the rows are the items that single lines become."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam import FrameRecord
from contextframe_beam.connectors import JSONFileConnector, Page, json_file
from contextframe_beam.connectors.json_files import content
from contextframe_beam.connectors.json_files.columns import table_of_lines
from contextframe_beam.connectors.json_files.lines import Lines, parse_lines
from contextframe_beam.connectors.page import items_of
from contextframe_beam.connectors.read.source import Source
from tests.support.laws import examples
from tests.support.table_strategies import json_items

PLACE = {"_file_path": "a/f.jsonl", "_file_name": "f.jsonl", "_modified_at": None}
LONGEST = 1 << 20


def table_of(data: bytes, offset: int = 0) -> Any:
    return table_of_lines(Lines(data, offset), PLACE, "id", LONGEST)


def items(data: bytes, offset: int = 0) -> list[dict[str, Any]]:
    found, bad = parse_lines(Lines(data, offset), "a/f.jsonl", "f.jsonl", None, LONGEST)
    assert not bad
    return found


@given(rows=json_items(), offset=st.integers(0, 2**40), ascii_only=st.booleans())
@settings(max_examples=examples(200))
def test_a_table_of_lines_gives_back_the_items(rows, offset, ascii_only):
    lines = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    table = table_of(data, offset)
    if table is not None:
        assert items_of(table) == items(data, offset)
        assert repr(items_of(table)[0]["id"]) == repr(items(data, offset)[0]["id"])


USUAL = {"id": "1", "n": 1, "f": 1.5, "b": True, "t": None, "tags": ["a"], "by": {"name": "x"}}


def test_usual_lines_are_a_table():
    data = "\n".join(json.dumps({**USUAL, "id": str(n)}) for n in range(3)).encode()
    assert items_of(table_of(data, 7)) == items(data, 7)


def test_the_order_of_fields_does_not_matter():
    data = b'{"id": "1", "n": 1, "by": {"a": 1}}\n{"by": {"a": 2}, "n": 2, "id": "2"}'
    assert items_of(table_of(data)) == items(data)


@pytest.mark.parametrize(
    "line",
    [
        b'{"id": "1", "by": {"b": 1, "a": 2}}',  # its JSON is part of a row
        b'{"id": "1", "by": {"a": 1}} {"id": "2", "by": {"a": 1}}',
        b'{"id": "1", "by": {"a": 1}, "new": null}',
        b'{"id": "1", "by": null}',
        b' {"id": "1", "by": {"a": 1}}',
    ],
)
def test_lines_unlike_the_first_stay_items(line):
    first = b'{"id": "1", "by": {"a": 1, "b": 2}}'
    assert table_of(first) is not None
    assert table_of(first + b"\n" + line) is None


def test_lines_may_end_as_on_windows():
    lines = [b'{"id": "1", "n": 1}\r', b'{"id": "2", "n": 2}\r', b'{"id": "3", "n": 3}']
    for data in (b"\n".join(lines), b"\n".join(lines[:2]), lines[0]):
        assert items_of(table_of(data)) == items(data)


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "", "f0", "class", "é", "a b", "__dict__"])
def test_names_of_fields_may_be_any(name):
    data = b"\n".join(json.dumps({"id": "1", name: n}).encode() for n in range(2))
    table = table_of(data)
    assert table is None or items_of(table) == items(data)
    assert [one[name] for one in items(data)] == [0, 1]


@pytest.mark.parametrize(
    "lines",
    [
        (b'{"id": "1", "t": "a', b'b"}', b'{"id": "2", "t": "c"}, {"id": "3", "t": "d"}'),
        (b'{"id": "1", "t": [{}', b"{}]}", b'{"id": "2", "t": []}, {"id": "3", "t": []}'),
        (b'{"id": "1", "t": [1', b"1, 1]}", b'{"id": "2", "t": [1]}, 7, {"id": "3", "t": [1]}'),
        (b'{"id": "1"', b'"t": 1}', b'{"id": "2", "t": 1}, {"id": "3", "t": 1}'),
        (b'{"id": "1"}], [{"id": "2"}', b'{"id": "3"}'),
        (b'{"id": "1"}', b"", b'{"id": "2"}'),
        (b'{"id": "1"}', b'{"id": "2"},'),
        (b'{"id": "1"}', b'/* a */ {"id": "2"}'),
    ],
)
def test_lines_that_are_values_only_together_are_no_table(lines):
    assert table_of(b"\n".join(lines)) is None


@pytest.mark.parametrize(
    "line",
    [
        b'{"id": "2"}',
        b'{"id": null, "n": 1}',
        b'{"id": "", "n": 1}',
        b'{"id": "2", "n": 1.0}',
        b'{"id": "2", "n": "1"}',
        b'{"id": "2", "n": true}',
        b'{"id": "2", "n": 9223372036854775808}',
        b'{"id": "2", "n": 123456789012345678901234567890}',
        b'{"id": "2", "n": NaN}',
        b'{"id": "2", "n": ' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"id": "2", "n": 1, "_file_path": "x"}',
        b'["2", 1]',
        b"",
        b'{"id": "\xff", "n": 1}',
        b'{"id": "\\ud800", "n": 1}',
    ],
    ids=lambda line: str(line[:44]),
)
def test_what_a_table_cannot_hold_exactly_stays_items(line):
    first = b'{"id": "1", "n": 1}'
    assert table_of(first) is not None
    assert table_of(first + b"\n" + line) is None


class ItemByItem(JSONFileConnector):
    """Reads the same with a mapping of its own."""

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        raise NotImplementedError


def pages_of(kind: type[JSONFileConnector], folder: Path) -> list[Page]:
    connector = kind(folder, "*.jsonl")
    connector.ensure_authenticated()
    return list(Source(connector).pages())


def write_lines(folder: Path, odd: int | None, count: int = 6000) -> None:
    with (folder / "lines.jsonl").open("w") as file:
        for number in range(count):
            row = {**USUAL, "id": f"doc-{number}", "text": "x" * 200, "n": number}
            file.write(json.dumps({"odd": 1} if number == odd else row) + "\n")


@pytest.mark.parametrize("odd", [None, 100, 5999], ids=lambda at: f"odd line {at}")
def test_a_file_of_lines_has_the_same_items_as_tables_and_as_items(tmp_path, odd):
    write_lines(tmp_path, odd)
    found = []
    for kind in (JSONFileConnector, ItemByItem):
        pages = pages_of(kind, tmp_path)
        assert any(one.table is not None for one in pages) is (kind is JSONFileConnector)
        found.append([(page.partition, item) for page in pages for item in page.items])
        assert sum(page.size for page in pages) == (tmp_path / "lines.jsonl").stat().st_size
    assert found[0] == found[1]


@pytest.mark.parametrize("at", ["first", "middle", "last"])
def test_an_odd_line_makes_items_of_the_lines_around_it_only(tmp_path, monkeypatch, at):
    monkeypatch.setattr(json_file, "BLOCK_BYTES", 10_000)
    monkeypatch.setattr(content, "BLOCK_BYTES", 100_000)
    write_lines(tmp_path, {"first": 0, "middle": 3000, "last": 5999}[at])
    pages = pages_of(JSONFileConnector, tmp_path)
    assert 0 < sum(len(page.items) for page in pages if page.table is None) < 300
    assert sum(len(page.items) for page in pages) == 6000
