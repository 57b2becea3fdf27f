"""JSON files in an object store, a real S3 server: keys of any text, objects that change."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.json_file import JSONFileConnector
from contextframe_beam.connectors.json_files import content
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.pipelines.ingest import ingest
from tests.support.s3_server import BUCKET

KEYS = [
    "report1.json",
    "report[1].json",
    "a b+c%20d.json",
    "ünï.json",
    "x#y.json",
    "q&=.json",
    "what?.json",
    "star*.json",
    "star2.json",
    "alone[2].json",
    "sub/plain.json",
    "{a,b}.json",
    "-dash.json",
    "percent%.json",
]


@pytest.fixture
def place(s3, monkeypatch):
    for name, value in s3.variables.items():
        monkeypatch.setenv(name, value)
    return f"{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def store(s3):
    return s3.filesystem()


def opened(place: str, pattern: str) -> JSONFileConnector:
    connector = JSONFileConnector(f"s3://{place}", pattern)
    connector.authenticate()
    return connector


def read(connector: JSONFileConnector) -> tuple[list[Any], list[str]]:
    items, failures = [], []
    for page in Source(connector).pages():
        items += page.items
        failures += [letter.message for letter in page.failures]
    return items, failures


def lines(count: int, text: str) -> bytes:
    return b"".join(b'{"id": %d, "content": "%s"}\n' % (n, text.encode()) for n in range(count))


@pytest.mark.parametrize("at_once", [8, 1])
def test_keys_of_any_text_are_read(place, store, at_once):
    for key in KEYS:
        store.pipe_file(f"{place}/{key}", json.dumps({"content": key}).encode())
    store.pipe_file(f"{place}/lines[1].jsonl", lines(2, "line"))
    connector = opened(place, "**/*.json")
    connector.max_in_flight = at_once
    items, failures = read(connector)
    assert failures == []
    assert sorted(item["content"] for item in items) == sorted(KEYS)
    assert sorted(item["_file_path"] for item in items) == sorted(f"s3://{place}/{k}" for k in KEYS)
    items, failures = read(opened(place, "*.jsonl"))
    assert (len(items), failures) == (2, [])
    assert len(connector.sync_documents(pattern="sub/*.json")) == 1


def test_a_folder_of_any_name_is_read(place, store):
    for folder in ("a[1]", "b*", "c d+%", "plain"):
        store.pipe_file(f"{place}/{folder}/x.json", b"{}")
        items, failures = read(opened(f"{place}/{folder}", "*.json"))
        assert (len(items), failures) == (1, [])
    assert len(read(opened(place, "*/*.json"))[0]) == 4


def test_keys_that_stand_for_folders_are_passed_over_and_those_with_content_are_told_of(
    place, store, caplog
):
    store.call_s3("put_object", Bucket=BUCKET, Key=f"{place.partition('/')[2]}/sub/", Body=b"")
    store.call_s3("put_object", Bucket=BUCKET, Key=f"{place.partition('/')[2]}/x.json/", Body=b"{}")
    store.pipe_file(f"{place}/sub/a.json", b"{}")
    items, failures = read(opened(place, "**/*.json"))
    assert (len(items), failures) == (1, [])


@pytest.mark.sample(3)
@pytest.mark.parametrize("text", ["new", "new and longer", "n"])
@pytest.mark.parametrize("after", [0, 1, 5])
def test_an_object_that_is_replaced_while_it_is_read_is_never_a_mixture(
    place, store, monkeypatch, text, after
):
    monkeypatch.setattr(content, "SMALLEST_BLOCK_BYTES", 2000)
    store.pipe_file(f"{place}/b.jsonl", lines(1000, "old"))
    connector = opened(place, "*.jsonl")
    connector.max_in_flight = 1
    items: list[Any] = []
    failures: list[str] = []
    source = Source(connector)
    read_so_far = 0
    for piece in list(source.plan()):
        for fetched in source.read_blocks(piece, lambda _: True):
            if read_so_far == after:
                store.pipe_file(f"{place}/b.jsonl", lines(1000, text))
            read_so_far += 1
            items += fetched.page.items
            failures += [letter.message for letter in fetched.page.failures]
    assert {item["content"] for item in items} <= {"old"}
    assert 0 < len(items) < 1000
    assert failures
    assert all("it changed after it was listed" in one for one in failures)


def test_a_small_object_that_was_replaced_before_it_is_read_is_read_as_it_is(place, store):
    for name in ("a.jsonl", "b.json"):
        store.pipe_file(f"{place}/{name}", lines(100, "old"))
    source = Source(opened(place, "*"))
    pieces = list(source.plan())
    for name in ("a.jsonl", "b.json"):
        store.pipe_file(f"{place}/{name}", lines(200, "new and longer"))
    pages = [one.page for piece in pieces for one in source.read_blocks(piece, lambda _: True)]
    assert [item["content"] for page in pages for item in page.items] == ["new and longer"] * 400


def test_a_pipeline_reads_odd_keys_on_two_workers(place, store, tmp_path):
    for key in KEYS:
        store.pipe_file(f"{place}/{key}", json.dumps({"content": key}).encode())
    kb = str(tmp_path / "kb.lance")
    ingest(JSONFileConnector(f"s3://{place}", "**/*.json"), kb, workers=2, embed_dim=4)
    assert sorted(str(one.text_content) for one in FrameDataset.open(kb)) == sorted(KEYS)
