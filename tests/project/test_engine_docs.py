"""The commands of docs/engines.md, with the addresses and paths of this machine in them."""

from __future__ import annotations

import os
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from contextframe_beam import FrameDataset
from tests.engines.test_engine_cluster import cluster
from tests.project.test_docs import Block, blocks_of
from tests.support.cli_helpers import environment, write_documents
from tests.support.engines import free_port, program, require
from tests.support.http_fixture import HttpServer

__all__ = ["cluster"]

pytestmark = [pytest.mark.soak, pytest.mark.engine, pytest.mark.xdist_group("FlinkRunner")]

SCRIPTS = Path(sys.executable).parent


def block_with(text: str) -> Block:
    """Returns the only commands of the page that hold a text."""
    (found,) = [one for one in blocks_of("engines.md") if text in one.text and one.kind == "sh"]
    return found


def run(block: Block, folder: Path, **values: str) -> None:
    """Runs commands as they are written, but for values that name what is on a user's machines."""
    text = block.text
    for old, new in values.items():
        assert old in text, old
        text = text.replace(old, new)
    env = environment(PATH=f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}")
    env["PYTHONPATH"] += f"{os.pathsep}{folder / 'site'}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_documents(tmp_path / "docs", {"a.json": {"id": 1, "content": "a"}})
    return tmp_path


def test_each_engine_is_started_and_ended(folder: Path) -> None:
    for runner in ("FlinkRunner", "SparkRunner", "PrismRunner"):
        require(runner)
    run(block_with("--runner SparkRunner"), folder)
    assert len(FrameDataset.open(str(folder / "kb.lance"))) == 1


def test_an_engine_starts_workers_itself(folder: Path) -> None:
    require("PrismRunner")
    worker = str(SCRIPTS / "contextframe-beam-worker")
    run(
        block_with("--environment_type=PROCESS"),
        folder,
        **{"/opt/venv/bin/contextframe-beam-worker": worker},
    )
    assert len(FrameDataset.open(str(folder / "kb.lance"))) == 1


def test_a_cluster_with_a_pool_runs_an_api_and_a_connector_that_is_sent(
    cluster: str, folder: Path, server: HttpServer
) -> None:
    (folder / "crm.yaml").write_text(
        f"base_url: {server.url}/api\nresources: [{{name: things, path: 'pages?n=5'}}]\n"
    )
    with sqlite3.connect(folder / "source.db") as database:
        database.execute("CREATE TABLE documents (id INTEGER PRIMARY KEY, body TEXT)")
        database.execute("INSERT INTO documents VALUES (1, 'hello from a row')")
    port = free_port()
    addresses = {"flink:8081": cluster, "localhost:50000": f"localhost:{port}"}
    pool = shlex.split(block_with("worker-pool --port").text.replace("50000", str(port)))
    with program(pool, port, folder / "pool.log"):
        fewer = {"s3://bucket": str(folder), "--parallelism=8": "--parallelism=4"}
        run(block_with("--sdk_worker_parallelism"), folder, **addresses, **fewer)
        here = "pip install --no-deps --no-index --no-build-isolation --target site"
        of_new = {
            "pip install": here,
            "source.db": str(folder / "source.db"),
            "kb.lance": str(folder / "kb.lance"),
        }
        run(block_with("contextframe-beam new"), folder, **addresses, **of_new)
    assert len(FrameDataset.open(str(folder / "kb.lance"))) == 6
