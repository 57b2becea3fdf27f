"""Dead letters are tried again: once, from where they failed, and never over something newer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.connectors import BaseConnector
from contextframe_beam.errors import ConfigError
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.pipelines.replay import replay
from tests.support.cli_helpers import assert_error, cli

#: What the connector's mapping refuses, as a user's mapping with a mistake does.
REFUSED: set[str] = set()
ITEMS: list[dict[str, Any]] = []


class Notes(BaseConnector):
    """Gives ITEMS, and refuses to map those in REFUSED."""

    version = 1

    def __init__(self, token: str = "") -> None:
        super().__init__()
        self.token = token

    def sync_documents(self) -> list[dict[str, Any]]:
        return [dict(one) for one in ITEMS]

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        if item["id"] in REFUSED:
            raise ValueError(f"cannot map {item['id']}")
        return FrameRecord(item["text"], unique_id=item["id"])


@pytest.fixture(autouse=True)
def items(monkeypatch: pytest.MonkeyPatch) -> None:
    ITEMS[:] = [{"id": name, "text": f"text of {name}"} for name in "abc"]
    REFUSED.clear()


@pytest.fixture
def kb(tmp_path: Path) -> str:
    return str(tmp_path / "kb.lance")


def texts(kb: str) -> dict[str, str]:
    return {str(one.unique_id): str(one.text_content) for one in FrameDataset.open(kb)}


def letters(kb: str, run_id: str) -> list[dict[str, Any]]:
    path = Path(f"{kb}.dead-letters", f"{run_id}.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def failed_run(kb: str, *refused: str) -> None:
    REFUSED.update(refused)
    ingest(Notes(), kb, run_id="nightly")
    REFUSED.clear()


def test_what_succeeds_is_stored_and_marked_and_tried_once(kb):
    failed_run(kb, "b", "c")
    done = replay(kb, "nightly")
    assert (done.letters, done.succeeded, done.superseded) == (2, 2, 0)
    assert texts(kb) == {name: f"text of {name}" for name in "abc"}
    assert all(one["replayed"] == done.receipt.run_id for one in letters(kb, "nightly"))
    again = replay(kb, "nightly")
    assert (again.receipt, again.letters) == (None, 0)


def test_what_fails_again_stays_open(kb):
    failed_run(kb, "b", "c")
    REFUSED.update("bc")
    none = replay(kb, "nightly")
    assert (none.receipt, none.succeeded) == (None, 0)
    assert "cannot map" in none.reasons[0]
    REFUSED.remove("b")
    done = replay(kb, "nightly")
    assert (done.letters, done.succeeded) == (2, 1)
    assert set(texts(kb)) == {"a", "b"}
    assert [bool(one.get("replayed")) for one in letters(kb, "nightly")] == [True, False]
    REFUSED.clear()
    assert replay(kb, "nightly").succeeded == 1
    assert set(texts(kb)) == {"a", "b", "c"}


def test_a_letter_is_left_out_where_the_document_is_newer(kb):
    failed_run(kb, "b", "c")
    ITEMS[1] = {"id": "b", "text": "newer"}
    del ITEMS[2]
    ingest(Notes(), kb)
    done = replay(kb, "nightly")
    assert (done.succeeded, done.superseded) == (1, 1)
    assert texts(kb) == {"a": "text of a", "b": "newer", "c": "text of c"}


def test_a_document_that_was_deleted_since_does_not_return(kb):
    ingest(Notes(), kb)
    ITEMS[1] = {"id": "b", "text": "changed"}
    failed_run(kb, "b")
    FrameDataset.open(kb).delete("b")
    assert replay(kb, "nightly").superseded == 1
    assert set(texts(kb)) == {"a", "c"}


def test_an_older_document_is_replaced_by_its_letter(kb):
    ingest(Notes(), kb)
    ITEMS[1] = {"id": "b", "text": "changed"}
    failed_run(kb, "b")
    assert replay(kb, "nightly").succeeded == 1
    assert texts(kb)["b"] == "changed"


def test_a_replay_that_died_after_its_commit_only_marks(kb, monkeypatch):
    failed_run(kb, "b")
    with monkeypatch.context() as patch:

        def die(*_: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr("contextframe_beam.pipelines.replay.replace_letters", die)
        with pytest.raises(KeyboardInterrupt):
            replay(kb, "nightly")
    version = FrameDataset.open(kb).version
    done = replay(kb, "nightly")
    assert done.succeeded + done.superseded == 1
    assert FrameDataset.open(kb).version == version
    assert replay(kb, "nightly").letters == 0


def test_the_state_of_the_source_stays(kb):
    failed_run(kb, "b")
    before = FrameDataset.open(kb).states()[0].partitions
    replay(kb, "nightly")
    assert FrameDataset.open(kb).states()[0].partitions == before


def test_what_could_not_be_read_is_read_again(tmp_path, kb):
    (tmp_path / "docs").mkdir()
    file = tmp_path / "docs" / "notes.jsonl"
    file.write_text('{"id": "a", "text": "one"}\n{"id": "b", "text": \n')
    reading = ("--directory", tmp_path / "docs", "--pattern", "*.jsonl", "--run-id", "nightly")
    cli("ingest", "json", *reading, "--to", kb)
    file.write_text('{"id": "a", "text": "one"}\n{"id": "b", "text": "two"}\n')
    told = cli("replay", kb, "--run-id", "nightly")
    assert told.code == 0 and told.out.startswith("tried 1 letter again: 1 succeeded\n")
    assert len(texts(kb)) == 2
    assert cli("replay", kb, "--run-id", "nightly").out.startswith("no letters to try")


def test_a_file_that_could_not_be_parsed_is_read_again(tmp_path, kb):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# Good")
    broken = tmp_path / "docs" / "b.ipynb"
    broken.write_text("{")
    cli("ingest", "files", "--directory", tmp_path / "docs", "--to", kb, "--run-id", "nightly")
    still = cli("replay", kb, "--run-id", "nightly")
    assert still.code == 1 and "1 failed again" in still.out
    cell = {"cell_type": "markdown", "source": "# B", "metadata": {}}
    notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    broken.write_text(json.dumps(notebook))
    assert cli("replay", kb, "--run-id", "nightly").code == 0


def test_a_secret_that_was_given_in_plain_text_has_to_be_given_again(kb):
    REFUSED.add("b")
    ingest(Notes(token="plain-t0ken-of-notes"), kb, run_id="nightly")
    REFUSED.clear()
    with pytest.raises(ConfigError, match=r"--argument token=env:NAME"):
        replay(kb, "nightly")
    assert replay(kb, "nightly", arguments={"token": "other"}).succeeded == 1


def test_a_connector_may_be_given(kb):
    class Local(Notes):
        pass

    REFUSED.add("b")
    ingest(Local(), kb, run_id="nightly")
    REFUSED.clear()
    with pytest.raises(ConfigError, match="cannot be found from outside of its program"):
        replay(kb, "nightly")
    assert replay(kb, "nightly", connector=Local()).succeeded == 1


def test_an_unknown_run_is_said(kb):
    failed_run(kb)
    assert_error(cli("replay", kb, "--run-id", "weekly"), 2, "has no run weekly")
