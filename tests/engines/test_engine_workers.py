"""Connectors of users and their secrets, in workers that share nothing with the launcher."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameRecord
from contextframe_beam.connectors.registry import build_connector, load_connector_class
from contextframe_beam.errors import CommitError, UnknownCommitError
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.pipelines.runners.engines import serve
from tests.support.cli_helpers import start, wait_until
from tests.support.engines import (
    Engines,
    Running,
    each_engine,
    engine,
    engines,
    free_port,
    program,
    require,
    worker_pool,
)
from tests.support.pipeline_helpers import EMBED_DIM, Documents, document, documents, texts_in
from tests.support.vault import KEY, PASSWORD, vault

__all__ = ["engine", "engines"]

#: Each document says in which process its secrets were looked up, and what they were.
CONNECTOR = vault(
    "import hashlib\nimport os",
    "{os.getpid()} {hashlib.sha256(item['value'].encode()).hexdigest()}",
)


def digests(engine: Running, name: str, folder: Path, **more: str) -> set[str]:
    """Runs the connector in a pool that alone has its key; returns the digests of its secrets."""
    (folder / "password").write_text(PASSWORD)
    assert "VAULT_KEY" not in os.environ
    arguments = {"api_key": "env:VAULT_KEY", "password": f"file:{folder / 'password'}"}
    connector = build_connector(load_connector_class(name), arguments)
    kb = folder / "kb.lance"
    with worker_pool(folder, VAULT_KEY=KEY, **more) as pool:
        options = (f"--environment_config={pool}", "--sdk_worker_parallelism=2")
        how = engine.arguments(*options, workers="EXTERNAL")
        ingest(connector, str(kb), embed_dim=EMBED_DIM, runner=engine.runner, beam_args=how)
    said = [str(text).split() for text in texts_in(kb).values()]
    assert str(os.getpid()) not in {process for process, _ in said}
    return {digest for _, digest in said}


EXPECTED = {hashlib.sha256(value.encode()).hexdigest() for value in (KEY, PASSWORD)}


@each_engine(soak=["SparkRunner"])
def test_a_file_of_ones_own_travels_and_secrets_are_looked_up_in_the_workers(
    engine: Running, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(CONNECTOR)
    assert digests(engine, f"{tmp_path / 'own.py'}:Vault", tmp_path) == EXPECTED


# How a class is found in a worker is Python's doing, and the same on every engine.
@pytest.mark.engine
@pytest.mark.xdist_group("PrismRunner")
def test_a_registered_connector_that_the_workers_have_runs_in_them(
    engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    info = site / "vault-1.dist-info"
    info.mkdir(parents=True)
    (site / "vault_plugin.py").write_text(CONNECTOR)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vault\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[contextframe.connectors]\nvault = vault_plugin:Vault\n"
    )
    monkeypatch.syspath_prepend(str(site))
    prism = engines.get("PrismRunner")
    assert digests(prism, "vault", tmp_path, PYTHONPATH=str(site)) == EXPECTED


SLOW = """
import time

from contextframe_beam import FrameRecord
from contextframe_beam.connectors import BaseConnector


class Slow(BaseConnector):
    def sync_documents(self):
        time.sleep(600)
        yield {}

    def map_to_frame_record(self, item):
        return FrameRecord("x")
"""


@pytest.mark.engine
@pytest.mark.xdist_group("PrismRunner")
def test_an_interrupted_run_ends_the_engine_that_it_started_and_says_so(tmp_path: Path) -> None:
    require("PrismRunner")
    (tmp_path / "slow.py").write_text(SLOW)
    kb = tmp_path / "kb.lance"
    process = start(
        *("ingest", f"{tmp_path / 'slow.py'}:Slow", "--to", kb, "--embed-dim", 4),
        *("--runner", "PrismRunner"),
    )
    said = iter(process.stderr.readline, "")
    assert any("on PrismRunner: running, 0:" in line and _programs(process.pid) for line in said)
    started = _programs(process.pid)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "The PrismRunner that this command started ends with it" in errors
    assert any("prism" in command for command in started.values())
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started))
    assert not kb.exists()


def _programs(process: int) -> dict[int, str]:
    """Returns the command lines of what a process has started, by process id."""
    children = " ".join(
        one.read_text() for one in Path(f"/proc/{process}/task").glob("*/children")
    ).split()
    return {int(pid): Path(f"/proc/{pid}/cmdline").read_text() for pid in children}


@each_engine(soak=["SparkRunner"])
def test_a_worker_that_ends_before_it_connects_fails_the_job(
    engine: Running, tmp_path: Path
) -> None:
    program = tmp_path / "worker"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    with serve(str(program), "127.0.0.1", 0) as pool:
        how = engine.arguments(f"--environment_config={pool}", workers="EXTERNAL")
        with pytest.raises(CommitError, match="a worker of the pool exited with status 3"):
            ingest(documents(1), str(tmp_path / "kb.lance"), runner=engine.runner, beam_args=how)


class KillsTheJobServer(Documents):
    """The job server is gone before its first document is mapped."""

    def map_to_frame_record(self, item: Any) -> FrameRecord:
        os.kill(item["server"], signal.SIGKILL)
        return document(item["id"])


@pytest.mark.engine
@pytest.mark.xdist_group("PrismRunner")
def test_a_job_server_that_is_gone_leaves_the_outcome_to_the_next_run(tmp_path: Path) -> None:
    port = free_port()
    command = [require("PrismRunner"), "--job_port", str(port), "--serve_http=false"]
    with program(command, port, tmp_path / "prism.log") as server:
        connector = KillsTheJobServer({"all": [[{"id": 1, "server": server}]]})
        how = Running("PrismRunner", f"localhost:{port}")
        with pytest.raises(UnknownCommitError, match="the connection to the job server was lost"):
            ingest(
                connector,
                str(tmp_path / "kb.lance"),
                embed_dim=EMBED_DIM,
                runner=how.runner,
                beam_args=how.arguments(),
            )
