"""Laws of lines: any block of them is read as one by one, and columns give what items give."""

from __future__ import annotations

import json
import logging
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam.connectors.item_columns import ItemColumns
from contextframe_beam.connectors.programs.airbyte import AirbyteConnector, AirbyteReading
from contextframe_beam.connectors.programs.reading import Unreadable, messages_in
from contextframe_beam.connectors.streams.stream import STREAM_FIELD, Catalog, Stream
from contextframe_beam.connectors.streams.texts import described, described_columns
from contextframe_beam.frames.columns import NotByColumns

FINITE = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(max_size=4), JSON, max_size=4)
LINES = st.lists(
    OBJECTS.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=20).map(lambda data: data.replace(b"\n", b""))
    | st.sampled_from([b"", b" \t", b"[1", b"2]", b'{"a":[{}', b"{}]}", b"{},{}", b'{"n":NaN}']),
    max_size=8,
)


@given(LINES)
def test_a_block_of_lines_is_read_as_its_lines_are_one_by_one(lines: list[bytes]):
    together = messages_in(b"\n".join(lines))
    alone = [message for line in lines for message in messages_in(line)]
    assert list(map(shown, together)) == list(map(shown, alone))


@given(st.lists(OBJECTS, min_size=1, max_size=5))
def test_values_are_what_the_program_wrote(values: list[Any]):
    block = "\n".join(map(json.dumps, values)).encode()
    assert messages_in(block) == values


@given(st.lists(OBJECTS, max_size=20), st.integers(1, 200))
def test_no_record_is_lost_or_doubled_wherever_blocks_end(values: list[Any], size: int):
    stream = Stream("users", keys=("id",))
    reading = AirbyteReading("x", Catalog(users=stream), logging.getLogger(), True, None)
    lines = [
        orjson.dumps({"type": "RECORD", "record": {"stream": "users", "data": {"value": number}}})
        for number, _ in enumerate(values)
    ]
    for start in range(0, len(lines), size):
        reading.take_lines(b"\n".join(lines[start : start + size]))
    pages = list(reading._flushed(1, 0))
    numbers = [item["value"] for page in pages for item in page.items]
    assert numbers == list(range(len(values)))


RECORDS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "id": st.integers() | st.text(max_size=3),
            "name": st.text(max_size=5) | st.none(),
            "body": st.text(max_size=5) | st.none(),
            "tags": st.lists(st.text(max_size=3), max_size=2),
            "_hidden": st.text(max_size=3),
            "at": st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
        },
    ),
    min_size=1,
    max_size=5,
)


@given(RECORDS, st.permutations(["id", "name", "at"]))
def test_records_are_described_in_columns_as_one_by_one(records: list[Any], fields: list[str]):
    try:
        found = described_columns(ItemColumns.of_items(records), fields).to_pylist()
    except NotByColumns:
        return
    assert found == [described(one, fields) for one in records]


@given(RECORDS)
def test_columns_give_the_frames_that_records_give(records: list[Any]):
    connector = AirbyteConnector("source-x")
    connector.catalog = Catalog(users=Stream("users", keys=("id",), fields=("name", "id")))
    items = [{**one, STREAM_FIELD: "users"} for one in records]
    try:
        columns = connector.map_columns(ItemColumns.of_items(items)).records()
    except NotByColumns:
        return
    assert columns == [connector.map_to_frame_record(one) for one in items]


def shown(message: Any) -> Any:
    return (message.text, message.reason) if isinstance(message, Unreadable) else message
