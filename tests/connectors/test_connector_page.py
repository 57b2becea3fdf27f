"""Each example of the page about custom connectors works, with our import root.

In the page's own loop (authenticate, sync_documents, map_to_frame_record, dataset.add), and in a
pipeline of two workers; its tests, its set-up file and its quick start run as they stand there.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import unittest
import webbrowser
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import apache_beam as beam
import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors import BaseConnector, ReadFromConnector
from contextframe_beam.transforms import MapToFrames
from tests.support import connector_page as page
from tests.support.cli_helpers import ROOT, environment
from tests.support.http_fixture import HttpServer
from tests.support.pipeline_helpers import finish, new_pipeline, sink

#: The page itself, for those who have it beside the checkout.
PAGES = [parent / "shared" / "spec" / "custom-connectors.md" for parent in ROOT.parents]
PAGE = next((path for path in PAGES if path.exists()), None)

#: Each connector of the page with the ids of the documents that it brings.
EXPECTED = {
    "CustomConnector": ["custom:1", "custom:2"],
    "JSONFileConnector": ["json_file:files/a.json", "json_file:files/b.json"],
    "APIConnector": ["api:0", "api:1", "api:2"],
    "IncrementalConnector": ["incremental:0", "incremental:1", "incremental:2"],
    "BatchConnector": [f"batch:{number}" for number in range(5)],
    "StreamingConnector": ["streaming:0", "streaming:1"],
    "OAuthConnector": ["oauth:0", "oauth:1"],
    "MFAConnector": ["mfa:0", "mfa:1"],
    "AdvancedMapper": ["mapped:a", "mapped:b", "mapped:c"],
    "EnrichmentConnector": [None],
    "PooledConnector": ["pooled:0", "pooled:1"],
    "CachedConnector": ["cached:0", "cached:1"],
    "RobustConnector": ["robust:0", "robust:1"],
    "LoggedConnector": ["logged:0", "logged:1"],
}
BROWSER = "import sys, urllib.request\nurllib.request.urlopen(sys.argv[1]).read()\n"


def connectors(url: str) -> dict[str, tuple[BaseConnector, dict[str, Any]]]:
    """Returns each connector of the page, and what its `sync_documents` is called with."""
    return {
        "CustomConnector": (page.FilledCustomConnector(test_mode=True), {}),
        "JSONFileConnector": (page.JSONFileConnector("files"), {"pattern": "*.json"}),
        "APIConnector": (page.APIConnector(url, "right-key-12345"), {"params": {"n": 3}}),
        "IncrementalConnector": (page.FilledIncrementalConnector(url), {}),
        "BatchConnector": (page.FilledBatchConnector(url), {"total_items": 5}),
        "StreamingConnector": (page.FilledStreamingConnector(), {}),
        "OAuthConnector": (page.FilledOAuthConnector(url, "me", "client-s3cret"), {}),
        "MFAConnector": (page.FilledMFAConnector(url, "ann", "passw0rd-of-ann"), {}),
        "AdvancedMapper": (page.MappedConnector(), {}),
        "EnrichmentConnector": (page.FilledEnrichmentConnector([page.KeywordEnricher()]), {}),
        "PooledConnector": (page.FilledPooledConnector(url), {}),
        "CachedConnector": (page.FilledCachedConnector(url), {}),
        "RobustConnector": (page.FilledRobustConnector(url), {}),
        "LoggedConnector": (page.FilledLoggedConnector(url), {}),
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the examples read, and a browser that agrees to everything."""
    (tmp_path / "files").mkdir()
    for name in ("a", "b"):
        (tmp_path / "files" / f"{name}.json").write_text(json.dumps({"content": f"File {name}."}))
    lines = [{"id": n, "title": f"Line {n}", "content": f"What {n} says."} for n in range(2)]
    (tmp_path / "large_dataset.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    (tmp_path / "browser.py").write_text(BROWSER)
    monkeypatch.setenv("BROWSER", f"{sys.executable} {tmp_path / 'browser.py'} %s &")
    # The module looks for browsers once a process, and another test may have made it look.
    monkeypatch.setattr(webbrowser, "_tryorder", None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stored(dataset: Path) -> dict[str, list[str | None]]:
    """Returns the ids of the stored documents, by the connector's name in them."""
    found: dict[str, list[str | None]] = defaultdict(list)
    for record in FrameDataset.open(str(dataset)):
        unique_id = record.unique_id
        found[str(unique_id).partition(":")[0]].append(unique_id)
    return {name: sorted(ids, key=str) for name, ids in found.items()}


EXPECTED_BY_PREFIX = {str(ids[0]).partition(":")[0]: ids for ids in EXPECTED.values()}


@pytest.mark.skipif(PAGE is None, reason="the page itself is not part of a clone; its blocks are")
def test_the_blocks_kept_here_are_those_of_the_page() -> None:
    assert PAGE is not None
    kept = page.python_blocks(page.COPY.read_text(encoding="utf-8"))
    assert kept == page.python_blocks(PAGE.read_text(encoding="utf-8"))


def test_every_class_of_the_page_is_run_here() -> None:
    classes = {
        line.split()[1].partition("(")[0].rstrip(":")
        for heading, block in page.blocks().items()
        if heading not in page.APART
        for line in block.splitlines()
        if line.startswith("class ")
    }
    assert classes - {"KeywordEnricher"} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_connector_runs_in_the_loop_of_the_page(
    name: str,
    folder: Path,
    server: HttpServer,
) -> None:
    connector, sync = connectors(server.url)[name]
    dataset = FrameDataset.create("kb.lance", embed_dim=2)
    connector.ensure_authenticated()
    documents = connector.sync_documents(**sync)
    for doc in documents:
        dataset.add(connector.map_to_frame_record(doc))
    assert len(dataset) == len(documents) == len(EXPECTED[name])
    assert list(stored(folder / "kb.lance").values()) == [EXPECTED[name]]


def test_all_connectors_run_in_a_pipeline_of_two_workers(
    folder: Path,
    server: HttpServer,
) -> None:
    pipeline = new_pipeline(workers=2)
    batches = [
        pipeline
        | f"Read {name}" >> ReadFromConnector(connector, **sync)
        | f"Map {name}" >> MapToFrames(connector)
        for name, (connector, sync) in connectors(server.url).items()
    ]
    together = batches | beam.Flatten()
    receipt = finish(pipeline, together | sink(folder / "kb.lance"), folder / "kb.lance")
    assert receipt.failed == 0
    assert stored(folder / "kb.lance") == EXPECTED_BY_PREFIX


def test_what_the_mapper_and_the_enricher_of_the_page_found_is_stored(folder: Path) -> None:
    dataset = FrameDataset.create("kb.lance", embed_dim=2)
    mapped = page.MappedConnector()
    enriched = page.FilledEnrichmentConnector([page.KeywordEnricher()])
    for connector in (mapped, enriched):
        connector.sync_to_dataset(dataset)
    found = {record.unique_id: record for record in dataset}
    kinds = {
        name: [one["relationship_type"] for one in record.metadata.get("relationships", [])]
        for name, record in found.items()
    }
    assert kinds == {
        "mapped:a": ["parent"],
        "mapped:b": ["tagged_with"],
        "mapped:c": ["reference", "reference"],
        None: [],
    }
    assert found["mapped:a"].text_content == "Text.\n\n```\nx = 1\n```"
    assert found[None].context == {"keywords": ["beam", "and", "lance"]}


def test_the_incremental_connector_of_the_page_keeps_its_state_in_a_file(
    folder: Path,
    server: HttpServer,
) -> None:
    first = page.FilledIncrementalConnector(server.url, "state.json")
    assert len(first.sync_documents()) == 3
    again = page.FilledIncrementalConnector(server.url, "state.json")
    assert again.sync_documents() == [] and again.last_sync is not None
    assert len(again.sync_documents(full_sync=True)) == 3
    assert json.loads(Path("state.json").read_text())["stats"]["connector"]


def test_the_streaming_connector_of_the_page_writes_to_the_dataset(folder: Path) -> None:
    dataset = FrameDataset.create("kb.lance", embed_dim=2)
    assert page.FilledStreamingConnector().sync_to_dataset(dataset) == 2
    assert len(dataset) == 2


def test_the_oauth_connector_of_the_page_refreshes_its_token(
    folder: Path,
    server: HttpServer,
) -> None:
    connector = page.FilledOAuthConnector(server.url, "me", "client-s3cret")
    connector.authenticate()
    before = connector.access_token
    connector.token_expires = page.datetime.now()
    connector._ensure_authenticated()
    assert connector.access_token != before


def run_tests_of(block: str, **names: Any) -> unittest.TestResult:
    """Runs the unittest classes of a block of the page."""
    module = ModuleType("block")
    vars(module).update(names)
    exec(compile(page.blocks()[block], block, "exec"), vars(module))
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    result = unittest.TextTestRunner(io.StringIO()).run(suite)
    assert result.wasSuccessful(), [text for _, text in (*result.errors, *result.failures)]
    return result


def test_the_unit_tests_of_the_page_pass() -> None:
    result = run_tests_of("Unit Tests", CustomConnector=page.FilledCustomConnector)
    assert result.testsRun == 3


def test_the_integration_test_of_the_page_passes() -> None:
    result = run_tests_of(
        "Integration Tests",
        CustomConnector=page.FilledCustomConnector,
        FrameDataset=FrameDataset,
        Path=Path,
        tempfile=tempfile,
        unittest=unittest,
    )
    assert result.testsRun == 1


def test_the_package_of_the_page_installs_and_its_quick_start_runs(tmp_path: Path) -> None:
    package = tmp_path / "my-connector" / "src" / "my_connector"
    package.mkdir(parents=True)
    (tmp_path / "my-connector" / "setup.py").write_text(page.blocks()["Setup.py"])
    (package / "__init__.py").write_text("from my_connector.connector import MyPlatformConnector\n")
    (package / "connector.py").write_text(
        "from contextframe_beam import FrameRecord\n"
        "from contextframe_beam.connectors.base import BaseConnector\n"
        "class MyPlatformConnector(BaseConnector):\n"
        '    """Reads MyPlatform."""\n'
        "    def __init__(self, api_key: str):\n"
        "        super().__init__()\n"
        "        self.api_key = api_key\n"
        "    def sync_documents(self):\n"
        "        return [{'id': 1}]\n"
        "    def map_to_frame_record(self, item):\n"
        "        return FrameRecord('One document.', unique_id=f'myplatform:{item[\"id\"]}')\n"
    )
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*pip, "--no-index", "--target", str(site), str(tmp_path / "my-connector")], check=True
    )
    there = environment()
    there["PYTHONPATH"] = os.pathsep.join([str(site), there["PYTHONPATH"]])

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=there, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("-c", page.blocks()["Quick Start"])
    assert len(FrameDataset.open(str(tmp_path / "myplatform.lance"))) == 1
    assert "myplatform" in run("-m", "contextframe_beam", "connectors")
