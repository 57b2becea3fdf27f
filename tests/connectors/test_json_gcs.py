"""JSON files at gs://, on a server on this machine: keys of any text, objects that change."""

from __future__ import annotations

import json
import uuid
from typing import Any

import fsspec
import pytest

from contextframe_beam.connectors.json_file import JSONFileConnector
from contextframe_beam.connectors.json_files import content as parts
from contextframe_beam.connectors.read.source import Source
from tests.support.gcs_server import BUCKET, GcsServer

KEYS = [
    "report1.json",
    "report[1].json",
    "a b+c%20d.json",
    "ünï.json",
    "x#12345.json",
    "what?.json",
    "star*.json",
    "star2.json",
    "sub//double.json",
    "sub/plain.json",
]


@pytest.fixture
def place(gcs: GcsServer, monkeypatch: pytest.MonkeyPatch) -> str:
    gcsfs = pytest.importorskip("gcsfs")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.endpoint)
    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
    gcsfs.GCSFileSystem.clear_instance_cache()
    return f"{BUCKET}/{uuid.uuid4().hex}"


def put(place: str, **objects: bytes) -> None:
    store = fsspec.filesystem("gs")
    for name, content in objects.items():
        store.pipe_file(f"{place}/{name}", content)


def lines(count: int, text: str) -> bytes:
    return b"".join(b'{"id": %d, "content": "%s"}\n' % (n, text.encode()) for n in range(count))


def opened(place: str, pattern: str) -> JSONFileConnector:
    connector = JSONFileConnector(f"gs://{place}", pattern)
    connector.authenticate()
    return connector


def test_keys_of_any_text_are_read(place):
    put(place, **{key: json.dumps({"content": key}).encode() for key in KEYS})
    put(place, **{"lines[1].jsonl": lines(2, "line")})
    pages = list(Source(opened(place, "**/*.json")).pages())
    assert [letter.message for page in pages for letter in page.failures] == []
    items = [item for page in pages for item in page.items]
    assert sorted(item["content"] for item in items) == sorted(KEYS)
    assert len(opened(place, "*.jsonl").sync_documents()) == 2


@pytest.mark.parametrize("text", ["new", "new and longer", "n"])
def test_an_object_that_is_replaced_while_it_is_read_is_never_a_mixture(place, monkeypatch, text):
    monkeypatch.setattr(parts, "SMALLEST_BLOCK_BYTES", 2000)
    put(place, **{"b.jsonl": lines(1000, "old")})
    connector = opened(place, "*.jsonl")
    connector.max_in_flight = 1
    source = Source(connector)
    items: list[Any] = []
    failures: list[str] = []
    for piece in list(source.plan()):
        for fetched in source.read_blocks(piece, lambda _: True):
            items += fetched.page.items
            failures += [letter.message for letter in fetched.page.failures]
            put(place, **{"b.jsonl": lines(1000, text)})
    assert {item["content"] for item in items} <= {"old"}
    assert 0 < len(items) < 1000
    assert all("it changed after it was listed" in one for one in failures) and failures


def test_a_small_object_that_was_replaced_before_it_is_read_is_read_as_it_is(place):
    put(place, **{"a.jsonl": lines(100, "old"), "b.json": lines(100, "old")})
    source = Source(opened(place, "*"))
    pieces = list(source.plan())
    put(place, **{"a.jsonl": lines(200, "newer"), "b.json": lines(200, "newer")})
    pages = [one.page for piece in pieces for one in source.read_blocks(piece, lambda _: True)]
    assert [item["content"] for page in pages for item in page.items] == ["newer"] * 400
