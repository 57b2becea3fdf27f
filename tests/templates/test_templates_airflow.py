"""The Airflow template, imported and run by a real Airflow: `make airflow` installs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from contextframe_beam.store.address import Address
from contextframe_beam.store.files import open_dataset
from contextframe_beam.store.state import SourceState, read_states
from tests.support.cli_helpers import ROOT, cli
from tests.support.http_fixture import HttpServer

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
AIRFLOW = CACHE / "contextframe-beam" / "airflow" / "bin" / "airflow"

pytestmark = [
    pytest.mark.skipif(
        not AIRFLOW.exists(), reason="Airflow is not installed; `make airflow` does it"
    ),
    pytest.mark.airflow,
    pytest.mark.xdist_group("airflow"),  # one process makes the database, which takes a while
]

# Runs the command; the first run that commits is said to have failed, as if the machine had died.
FAILS_AFTER_ITS_FIRST_COMMIT = """\
#!/bin/sh
echo called >> {folder}/calls
{python} -m contextframe_beam "$@" || exit $?
mkdir {folder}/committed 2>/dev/null && exit 1
exit 0
"""


@dataclass(frozen=True)
class Airflow:
    """A home of Airflow's with the template in it, its values edited."""

    home: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs `airflow`."""
        dags = str(self.home / "dags")
        environment = {
            **os.environ,
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": dags,
            "PYTHONPATH": str(ROOT),
            "CRM_TOKEN": "planted-secret-4711",
        }
        return subprocess.run(
            [AIRFLOW, *arguments], env=environment, capture_output=True, text=True, cwd=self.home
        )

    def test(self, date: str, dag: str = "contextframe_ingest") -> subprocess.CompletedProcess[str]:
        """Runs a DAG for one date, retries included, here and now."""
        return self.run("dags", "test", dag, date)

    def calls(self) -> int:
        """Returns how often the command was started."""
        return len((self.home / "calls").read_text().splitlines())

    def state(self) -> SourceState:
        """Returns what the dataset knows of its one source."""
        dataset = open_dataset(Address(str(self.home / "kb.lance")))
        assert dataset is not None
        (state,) = read_states(dataset).values()
        return state


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty database of Airflow's, which takes a while to make."""
    home = tmp_path_factory.mktemp("airflow")
    done = Airflow(home).run("db", "migrate")
    assert done.returncode == 0, done.stderr
    yield home / "airflow.db"


@pytest.fixture
def airflow(database: Path, server: HttpServer, tmp_path: Path) -> Airflow:
    home = tmp_path / "home"
    (home / "dags").mkdir(parents=True)
    (home / "airflow.db").write_bytes(database.read_bytes())
    assert cli("templates", "write", "airflow", home / "dags").code == 0
    (home / "command").write_text(
        FAILS_AFTER_ITS_FIRST_COMMIT.format(python=sys.executable, folder=home)
    )
    (home / "command").chmod(0o755)
    for file, values in (
        (
            "contextframe_ingest.py",
            {
                "/opt/contextframe/bin/contextframe-beam": str(home / "command"),
                "/var/lib/contextframe": str(home),
                "minutes=5": "seconds=0",
            },
        ),
        (
            "job.yaml",
            {"/var/lib/contextframe": str(home), "/etc/contextframe": str(home / "dags")},
        ),
        (
            "crm.yaml",
            {"https://crm.example.com": server.url, "path: contacts": "path: changes?n=31"},
        ),
    ):
        text = (home / "dags" / file).read_text()
        for old, new in values.items():
            assert old in text, (file, old)
            text = text.replace(old, new)
        (home / "dags" / file).write_text(text)
    return Airflow(home)


def test_airflow_imports_the_dag(airflow: Airflow) -> None:
    done = airflow.run("dags", "list-import-errors", "--output", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1] or "[]") == []


def test_a_task_that_is_retried_after_its_commit_is_committed_once(
    airflow: Airflow, server: HttpServer
) -> None:
    done = airflow.test("2026-01-02T01:07:00+00:00")
    assert done.returncode == 0, done.stdout + done.stderr
    assert airflow.calls() == 2
    state = airflow.state()
    (run,) = state.runs
    assert run.run_id.endswith(".crm")
    assert run.run_id.startswith("contextframe_ingest.ingest.")
    # A run that reads an interval moves no state.
    assert not state.partitions
    queries = {one["query"] for one in server.requests("/api/changes")}
    assert any("2026-01-01" in query and "2026-01-02" in query for query in queries)
    assert "planted-secret-4711" not in done.stdout + done.stderr
    compacted = airflow.test("2026-01-04T04:37:00+00:00", "contextframe_compact")
    assert compacted.returncode == 0, compacted.stdout + compacted.stderr
    assert airflow.calls() == 3


def test_a_wrong_command_is_not_tried_again(airflow: Airflow) -> None:
    dag = airflow.home / "dags" / "contextframe_ingest.py"
    dag.write_text(dag.read_text().replace('"--strict"', '"--strct"'))
    done = airflow.test("2026-01-02T01:07:00+00:00")
    assert "did you mean --strict" in done.stdout + done.stderr
    assert airflow.calls() == 1
    assert not (airflow.home / "kb.lance").exists()
