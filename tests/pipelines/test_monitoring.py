"""Metrics for Prometheus and events of OpenLineage: what other programs learn of a run."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families
from referencing import Registry, Resource

from contextframe_beam.errors import ConfigError, ConnectorError
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.pipelines.monitoring import lineage_event
from contextframe_beam.store import history
from contextframe_beam.store.history import RunRecord
from tests.support.pipeline_helpers import Documents, documents

SCHEMAS = Path(__file__).parents[1] / "data" / "openlineage"
RECORD = RunRecord(
    "nightly",
    "2026-11-28T01:00:00+00:00",
    "2026-11-28T01:00:05+00:00",
    history.COMMITTED,
    connector="files",
    source="0123456789abcdef",
    counts={"run_id": "nightly", "version": 7, "written": 3, "bytes": 100, "fragments": 1},
    release="0.1.0",
)
FAILED = replace(RECORD, outcome=history.FAILED, counts={}, error='no such "folder"')


class Moody(Documents):
    """A source that is the same one whether it answers or not."""

    def __init__(self, pages: Any, broken: bool = False) -> None:
        super().__init__(pages)
        self._broken = broken

    def authenticate(self) -> bool:
        if self._broken:
            raise ConnectorError("refused")
        return True


@pytest.fixture
def kb(tmp_path: Path) -> str:
    return str(tmp_path / "kb.lance")


def samples(path: Path) -> dict[str, float]:
    """The value of each metric in a file, by its name."""
    families = text_string_to_metric_families(path.read_text())
    return {one.name: one.value for family in families for one in family.samples}


def test_metrics_tell_of_the_last_run(tmp_path, kb):
    file = tmp_path / "textfiles" / "kb.prom"
    ingest(documents(1, 2), kb, metrics=str(file))
    told = samples(file)
    assert told["contextframe_run_success"] == 1
    assert told["contextframe_run_written"] == 2
    assert told["contextframe_dataset_version"] == 1
    assert told["contextframe_run_last_success_time_seconds"] > 1.7e9


def test_metrics_of_other_sources_and_the_last_success_stay(tmp_path, kb):
    file = tmp_path / "kb.prom"
    ingest(documents(1), kb, metrics=str(file))
    ingest(Moody({}), kb, metrics=str(file))
    with pytest.raises(ConnectorError):
        ingest(Moody({}, broken=True), kb, metrics=str(file))
    families = text_string_to_metric_families(file.read_text())
    told = {
        (one.name, one.labels["connector"]): one.value
        for family in families
        for one in family.samples
    }
    of_success = "contextframe_run_success"
    assert (told[of_success, "Documents"], told[of_success, "Moody"]) == (1, 0)
    assert told["contextframe_run_last_success_time_seconds", "Moody"] > 1.7e9
    assert told["contextframe_run_written", "Documents"] == 1


@pytest.mark.parametrize("text", ["my notes\n", "node_load1 0.5\n", b"\xff\x00"])
def test_the_file_of_another_program_is_left_alone(tmp_path, kb, caplog, text):
    file = tmp_path / "notes"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = file.read_bytes()
    ingest(documents(1), kb, metrics=str(file))
    assert "has something else in it; name another file" in caplog.text
    assert file.read_bytes() == before


def test_metrics_name_their_source(tmp_path, kb):
    file = tmp_path / "kb.prom"
    ingest(documents(1), kb, metrics=str(file))
    (family, *_) = text_string_to_metric_families(file.read_text())
    labels = family.samples[0].labels
    assert labels["dataset"] == kb and labels["connector"] == "Documents"


class Recorded(BaseHTTPRequestHandler):
    """Keeps what it is sent."""

    requests: ClassVar[list[tuple[str, str, bytes, str | None]]]

    def _keep(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.requests.append((self.command, self.path, body, self.headers.get("Authorization")))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_PUT = _keep

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[str, str, bytes, str | None]]]]:
    class Handler(Recorded):
        requests: ClassVar[list[tuple[str, str, bytes, str | None]]] = []

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}", Handler.requests
    httpd.shutdown()
    httpd.server_close()


def test_metrics_are_pushed_to_a_gateway_for_each_source(kb, server):
    address, requests = server
    ingest(documents(1), kb, metrics=address)
    ((method, path, body, _),) = requests
    assert method == "POST" and path.startswith("/metrics/job/contextframe_beam/source/")
    assert b"contextframe_run_success" in body


def test_a_run_begins_and_ends_with_an_event(tmp_path, kb):
    file = tmp_path / "lineage.jsonl"
    ingest(documents(1), kb, lineage=str(file))
    with pytest.raises(ConnectorError):
        ingest(Moody({}, broken=True), kb, lineage=str(file))
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert [one["eventType"] for one in events] == ["START", "COMPLETE", "START", "FAIL"]
    assert events[0]["run"]["runId"] == events[1]["run"]["runId"] != events[2]["run"]["runId"]
    assert events[1]["outputs"][0]["name"] == kb


def test_events_go_to_a_server_with_its_key(kb, server, monkeypatch):
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "k3y-of-the-server")
    address, requests = server
    ingest(documents(1), kb, lineage=address)
    assert [path for _, path, _, _ in requests] == ["/api/v1/lineage"] * 2
    assert {key for *_, key in requests} == {"Bearer k3y-of-the-server"}
    assert b"k3y" not in b"".join(body for _, _, body, _ in requests)


@pytest.mark.parametrize(
    "record",
    [
        replace(RECORD, ended="", outcome="", counts={}),
        RECORD,
        FAILED,
        replace(FAILED, outcome=history.INTERRUPTED, source=""),
    ],
)
@pytest.mark.parametrize("to", ["kb.lance", "s3://bucket/a/kb.lance"])
def test_events_follow_the_schema_of_openlineage(record, to):
    schemas = {path.stem: json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")}
    registry: Registry[Any] = Registry().with_resources(
        (schema["$id"], Resource.from_contents(schema)) for schema in schemas.values()
    )
    event = lineage_event(record, to)
    facets = {
        "ErrorMessageRunFacet": event["run"]["facets"],
        "JobTypeJobFacet": event["job"]["facets"],
        "DatasetVersionDatasetFacet": event["outputs"][0]["facets"],
        "OutputStatisticsOutputDatasetFacet": event["outputs"][0].get("outputFacets", {}),
    }
    for name, value in {"OpenLineage": event, **facets}.items():
        jsonschema.Draft202012Validator(
            schemas[name], registry=registry, format_checker=jsonschema.FormatChecker()
        ).validate(value)
    told = {
        one["_schemaURL"].partition("#")[0] for where in facets.values() for one in where.values()
    }
    assert told <= {schema["$id"] for schema in schemas.values()}


@pytest.mark.parametrize("name", ["metrics", "lineage"])
def test_a_monitor_that_is_not_there_ends_no_run(name, kb, caplog):
    receipt = ingest(documents(1), kb, **{name: "http://127.0.0.1:9"})
    assert receipt.rows_written == 1
    assert f"the {name} of the run cannot be written" in caplog.text


@pytest.mark.parametrize("name", ["metrics", "lineage"])
def test_a_credential_in_the_address_of_a_monitor_is_refused(name, kb):
    with pytest.raises(ConfigError, match=f"the address of the {name} holds a credential"):
        ingest(documents(1), kb, **{name: "https://ada:pa55word@push.example"})
