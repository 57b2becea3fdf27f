"""`contextframe-beam history` and `status`, and what runs leave for them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from contextframe_beam.pipelines.history import runs_of
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.store.address import Address
from tests.support.cli_helpers import assert_error, cli, start
from tests.support.pipeline_helpers import Documents, documents, run

SLOW = """
import time
from contextframe_beam import FrameRecord
from contextframe_beam.connectors import BaseConnector

class Slow(BaseConnector):
    def sync_documents(self):
        print("reading", flush=True)
        time.sleep(60)
        return []
    def map_to_frame_record(self, item):
        return FrameRecord("", unique_id="a")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "docs"
    made.mkdir()
    (made / "a.jsonl").write_text('{"id": 1, "text": "one"}\nbroken\n')
    return made


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    return tmp_path / "kb.lance"


def ingested(folder: Path, kb: Path, *more: object) -> int:
    reading = ("--directory", folder, "--pattern", "*.jsonl")
    return cli("ingest", "json", *reading, "--to", kb, *more).code


def test_a_run_says_what_it_did_and_which_items_failed(folder, kb):
    ingested(folder, kb, "--max-failures", 7, "--run-id", "first")
    (told,) = cli("history", kb, "--json").json
    assert (told["run_id"], told["state"], told["exit_code"]) == ("first", "committed", 0)
    assert told["arguments"]["directory"] == str(folder)
    assert told["settings"] == {"max_failures": "7"}
    assert (told["counts"]["written"], told["counts"]["failed"]) == (1, 1)
    shown = cli("history", kb).out
    assert "committed" in shown and "1 item failed" in shown
    assert "max_failures=7" in cli("history", kb, "--run-id", "first").out


def test_a_failed_run_is_known_also_without_a_dataset(tmp_path, kb):
    assert ingested(tmp_path / "none", kb) == 1
    assert not kb.exists()
    (told,) = cli("history", kb, "--failed", "--json").json
    assert (told["state"], told["exit_code"]) == ("failed", 1)
    assert "none" in told["error"] and "Traceback" not in told["error"]


def test_a_strict_run_with_failed_items_has_the_exit_code_of_its_process(folder, kb):
    assert ingested(folder, kb, "--strict") == 3
    assert cli("history", kb, "--json").json[0]["exit_code"] == 3


def test_a_run_from_python_is_recorded_and_one_of_an_own_pipeline_is_known(kb):
    ingest(documents(1), str(kb), run_id="from-python")
    run(documents(2), kb, run_id="own-pipeline")
    found = {one.run_id: one for one in runs_of(Address(str(kb)))}
    assert set(found) == {"from-python", "own-pipeline"}
    assert found["from-python"].arguments and not found["own-pipeline"].arguments


def test_a_run_that_was_committed_before_says_so(kb):
    for _ in range(2):
        ingest(documents(1), str(kb), run_id="nightly")
    assert [one.state for one in runs_of(Address(str(kb)))] == ["committed before", "committed"]


def test_a_run_says_when_its_history_is_lost(kb, caplog):
    Path(f"{kb}.runs").write_text("a file")
    assert ingest(documents(1), str(kb)).rows_written == 1
    assert caplog.text.count("the history of the run cannot be written") == 1


def test_a_dry_run_leaves_no_record(folder, kb):
    ingested(folder, kb, "--dry-run")
    assert cli("history", kb).out == f"no run into {kb} is known; check the address\n"


def test_no_secret_is_recorded(kb, monkeypatch):
    monkeypatch.setenv("CRM_TOKEN", "s3cr3t-of-the-crm")

    class Crm(Documents):
        def __init__(self, token: str, password: str) -> None:
            super().__init__([])
            self.token, self.password = token, password

        def authenticate(self) -> bool:
            raise ValueError(f"refused {self.token} and {self.password}")

    with pytest.raises(Exception, match="refused"):
        ingest(Crm("env:CRM_TOKEN", "plain-pa55word"), str(kb))
    (path,) = Path(f"{kb}.runs").iterdir()
    told = path.read_text()
    assert "s3cr3t" not in told and "pa55word" not in told
    assert json.loads(told)["arguments"]["token"] == "env:CRM_TOKEN"


@pytest.mark.parametrize(
    ("number", "state"), [(signal.SIGKILL, "died"), (signal.SIGINT, "interrupted")]
)
def test_a_run_that_is_ended_from_outside_says_so(tmp_path, kb, number, state):
    (tmp_path / "slow.py").write_text(SLOW)
    process = start("ingest", "slow.py:Slow", "--to", kb, cwd=tmp_path)
    while "reading" not in process.stderr.readline():
        pass
    os.kill(process.pid, number)
    process.wait()
    (told,) = cli("history", kb, "--json").json
    assert told["state"] == state


def test_runs_are_chosen_by_source_and_failure(tmp_path, folder, kb):
    ingested(folder, kb)
    cli("ingest", "files", "--directory", tmp_path / "none", "--to", kb)
    assert [one["connector"] for one in cli("history", kb, "--source", "json", "--json").json] == [
        "json"
    ]
    assert "no run of slack" in cli("history", kb, "--source", "slack").out
    assert "there are runs of files, json" in cli("history", kb, "--source", "slack").out


def test_a_monitor_learns_of_failing_and_late_sources(tmp_path, folder, kb):
    (folder / "a.jsonl").write_text('{"id": 1, "text": "one"}\n')
    ingested(folder, kb)
    assert cli("status", kb, "--max-age", "26h").code == 0
    late = cli("status", kb, "--max-age", "0s")
    assert late.code == 1 and late.out.startswith("LATE")
    cli("ingest", "files", "--directory", tmp_path / "none", "--to", kb)
    failing = cli("status", kb)
    assert failing.code == 1 and "FAILING files" in failing.out and "ok      json" in failing.out
    told = cli("status", kb, "--json").json
    assert [(one["connector"], one["failing"]) for one in told] == [
        ("files", True),
        ("json", False),
    ]


def test_a_monitor_that_asks_for_the_wrong_place_is_told(kb):
    assert_error(cli("status", kb), 1, "no run into", "check the address")
