"""Pipelines from a real server into a real dataset, in this process and in two workers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import apache_beam as beam
import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors import ReadFromConnector
from contextframe_beam.connectors.api import APIConnector
from contextframe_beam.errors import ConnectorError, RecordError
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.store.address import Address
from contextframe_beam.store.files import open_dataset
from contextframe_beam.store.state import read_states
from contextframe_beam.transforms import MapToFrames, WriteToLance
from tests.support.http_fixture import HttpServer
from tests.support.pipeline_helpers import EACH_BUNDLE_TWICE, ONE_WORKER, TWO_WORKERS

SECRET = "planted-secret-4711"


def source(server: HttpServer, *resources: dict[str, Any], **settings: Any) -> APIConnector:
    return APIConnector(
        f"{server.url}/api", name="crm", resources=list(resources), retries=0, **settings
    )


def into(folder: Path, connector: APIConnector, **options: Any) -> Any:
    options.setdefault("embed_dim", None if (folder / "kb.lance").exists() else 4)
    return ingest(connector, str(folder / "kb.lance"), **options)


def ids_in(folder: Path) -> list[str]:
    """Returns the unique_ids of all documents; one that is there twice is twice."""
    return sorted(
        str(uri)
        for batch in FrameDataset.open(str(folder / "kb.lance")).batches(["uri"])
        for uri in batch.column("uri").to_pylist()
    )


def expected(n: int, resource: str = "things") -> list[str]:
    return sorted(f"crm:{resource}#{number}" for number in range(n))


def pages_of(server: HttpServer, path: str) -> Counter[str | None]:
    return Counter(dict(parse_qsl(one["query"])).get("page") for one in server.requests(path))


PAGES = {"name": "things", "path": "pages", "params": {"n": 255}, "paginator": "page"}

RESOURCES: tuple[dict[str, Any], ...] = (
    PAGES,
    {
        "name": "events",
        "path": "cursors",
        "params": {"n": 45},
        "paginator": {"type": "cursor", "cursor": "meta.next_cursor"},
    },
    {"name": "contacts", "params": {"n": 30}, "paginator": "page"},
    {
        "name": "notes",
        "parent": "contacts",
        "path": "contacts/{parent.id}/notes",
        "params": {"gone": "2"},
        "mapping": {"id": "{_parent.id}/{id}"},
    },
    {"name": "odd", "path": "odd/objects", "paginator": "single"},
)


@pytest.mark.parametrize("way", [ONE_WORKER, TWO_WORKERS], ids=["one worker", "two workers"])
def test_all_kinds_of_resources_in_one_run(server, tmp_path, way):
    letters = tmp_path / "letters.jsonl"
    receipt = into(tmp_path, source(server, *RESOURCES), dead_letters=str(letters), **way)
    notes = [f"crm:notes#{n}/{k}" for n in range(30) if n != 2 for k in range(n % 4)]
    assert ids_in(tmp_path) == sorted(
        [
            *expected(255),
            *expected(45, "events"),
            *expected(30, "contacts"),
            *notes,
            "crm:odd#1",
            "crm:odd#4",
        ]
    )
    assert receipt.rows_dropped == 0 and receipt.failed == 3
    found = Counter(json.loads(line)["partition"] for line in letters.read_text().splitlines())
    assert found == {"odd": 2, "notes/2": 1}
    rows = {one.unique_id: one for one in FrameDataset.open(str(tmp_path / "kb.lance"))}
    (link,) = rows["crm:notes#3/1"].metadata["relationships"]
    assert link["target_id"] == "crm:contacts#3"
    # The first page is asked for twice when another process counts the pages than reads it.
    asked = pages_of(server, "/api/pages")
    assert set(asked) == {str(number) for number in range(1, 27)} and sum(asked.values()) <= 27


def test_a_bundle_that_is_repeated_gives_the_same_rows(server, tmp_path):
    into(tmp_path, source(server, PAGES), **EACH_BUNDLE_TWICE)
    assert ids_in(tmp_path) == expected(255)


def test_a_second_run_finds_nothing_changed(server, tmp_path):
    into(tmp_path, source(server, PAGES))
    receipt = into(tmp_path, source(server, PAGES))
    assert (receipt.rows_written, receipt.rows_unchanged) == (0, 255)


def test_pages_that_overlap_give_no_duplicate_rows(server, tmp_path):
    overlapping = {**PAGES, "params": {"n": 255, "overlap": 4}}
    into(tmp_path, source(server, overlapping))
    assert ids_in(tmp_path) == expected(255)
    into(tmp_path, source(server, overlapping))
    assert ids_in(tmp_path) == expected(255)


@pytest.mark.parametrize("says", ["100", "100000", '"nonsense"'])
def test_a_total_that_lies_loses_nothing(server, tmp_path, says):
    into(tmp_path, source(server, {**PAGES, "params": {"n": 255, "says": says}}))
    assert ids_in(tmp_path) == expected(255)


def test_the_state_moves_with_the_data(server, tmp_path):
    changes = {
        "name": "things",
        "path": "changes",
        "params": {"n": 25},
        "paginator": "page",
        "incremental": {"field": "updated_at", "param": "since"},
    }
    connector = source(server, changes)
    into(tmp_path, connector)
    states = read_states(open_dataset(Address(str(tmp_path / "kb.lance"))))
    assert states[connector.source_id()].partitions == {
        "things": {"cursor": "2026-01-25T00:00:00Z"}
    }
    changed = source(server, {**changes, "params": {"n": 27, "rise": 0}}, max_in_flight=2)
    server.reset()
    receipt = into(tmp_path, changed)
    assert receipt.rows_written + receipt.rows_unchanged == 3
    assert ids_in(tmp_path) == expected(27)
    (since,) = {
        dict(parse_qsl(one["query"])).get("since") for one in server.requests("/api/changes")
    }
    assert since == "2026-01-25T00:00:00Z"
    assert into(tmp_path, changed, full=True).rows_unchanged == 27


@pytest.mark.parametrize(
    ("resource", "message"),
    [
        ({"path": "odd/html"}, "is HTML or XML, not JSON"),
        ({"path": "odd/cut", "params": {"from": 5}}, "is cut off"),
        ({"path": "odd/moved", "records": "items"}, "the answer has no 'items'"),
        ({"path": "odd/403"}, "403 Forbidden"),
        ({"path": "pages", "params": {"n": 25, "ignore": 1}}, "same records as one before"),
        (
            {
                "path": "cursors",
                "params": {"n": 25, "loop": 1},
                "paginator": {"type": "cursor", "cursor": "meta.next_cursor"},
            },
            "the cursor 'c10' a second time",
        ),
    ],
)
def test_what_cannot_be_read_commits_nothing(server, tmp_path, resource, message):
    odd = {"name": "odd", "paginator": "page", **resource}
    with pytest.raises(ConnectorError) as error:
        into(tmp_path, source(server, PAGES, odd))
    assert message in str(error.value) and "partition odd" in str(error.value)
    assert open_dataset(Address(str(tmp_path / "kb.lance"))) is None


def test_no_credential_is_in_dataset_dead_letters_or_errors(server, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PLANTED", SECRET)
    auth = {"type": "api_key", "in": "query", "name": "api_key", "key": "env:PLANTED"}
    odd = {"name": "odd", "path": "odd/objects", "paginator": "single"}
    letters = tmp_path / "letters.jsonl"
    with caplog.at_level("DEBUG"):
        into(
            tmp_path,
            source(server, PAGES, odd, auth=auth, headers={"X-Key": "env:PLANTED"}),
            dead_letters=str(letters),
        )
        with pytest.raises(ConnectorError) as error:
            failing = {"name": "bad", "path": "odd/403"}
            into(tmp_path, source(server, failing, auth=auth), run_id="r2")
    assert all(SECRET in one["query"] for one in server.requests())
    everything = [str(error.value), caplog.text]
    everything += [
        file.read_bytes().decode("latin-1") for file in tmp_path.rglob("*") if file.is_file()
    ]
    assert not [text for text in everything if SECRET in text]


def test_what_was_sent_is_in_the_metrics(server, tmp_path):
    connector = source(server, PAGES)
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        pages = pipeline | ReadFromConnector(connector)
        pages | MapToFrames(connector) | WriteToLance(str(tmp_path / "kb.lance"), embed_dim=4)
    counters = pipeline.result.metrics().query()["counters"]
    counted: Counter[str] = Counter()
    for one in counters:  # one for each step
        counted[one.key.metric.name] += one.committed
    assert counted["http_requests"] == len(server.requests("/api/pages"))
    assert counted["rows"] == 255


@pytest.mark.parametrize(
    "record", [{"answer": "yes"}, {"value": 1, "flag": True}, {"id": None, "text": ""}, {}]
)
def test_a_record_without_a_text_or_an_id_says_which_keys_of_the_yaml_name_them(record):
    connector = APIConnector("http://localhost", resources=[{"name": "answers"}])
    with pytest.raises(RecordError, match=r"has no text and no id .*mapping\.text, mapping\.id"):
        connector.map_to_frame_record({**record, "_resource": "answers"})
