"""Sources of dlt: keys, incremental state, deletions, tables and resources that replace."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.connectors.dlt_source import DltConnector
from contextframe_beam.connectors.testing import ConnectorTests
from contextframe_beam.errors import ConfigError, ConnectorError
from contextframe_beam.pipelines.ingest import ingest
from tests.support.small_server import Got, serving

OWN = "tests.support.own_dlt"
KEY = "sk-tracker-0123456789"
FIRST = {
    "issues": [
        {"id": 1, "title": "One", "changed": 1, "gone": False},
        {"id": 2, "title": "Two", "changed": 2, "gone": False},
    ],
    "people": [{"team": "red", "name": "Ada"}, {"team": "blue", "name": "Bob"}],
    "orders": [{"id": 7, "body": "seven", "gone": None}, {"id": 8, "body": "eight", "gone": None}],
    "events": [{"at": 1}],
}


class Tracker:
    """A file of records, and the dataset that they go into."""

    def __init__(self, folder: Path) -> None:
        self.file, self.to = folder / "tracker.json", folder / "kb.lance"
        self.put(FIRST)

    def put(self, rows: dict[str, Any]) -> None:
        self.file.write_text(json.dumps(rows))

    def source(self, *resources: str, key: str = "env:TRACKER_KEY", **fields: Any) -> DltConnector:
        args = {"path": str(self.file), "key": key}
        return DltConnector(f"{OWN}:tracker", args, resources, **fields)

    def run(self, *resources: str, mode: str = "upsert", **how: Any) -> Any:
        key = how.pop("key", "env:TRACKER_KEY")
        source = self.source(*resources, key=key)
        return ingest(source, str(self.to), mode=mode, embed_dim=2, max_deletes="100%", **how)

    def stored(self) -> dict[str, FrameRecord]:
        return {str(one.unique_id): one for one in FrameDataset.open(str(self.to))}


@pytest.fixture
def tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tracker:
    monkeypatch.setenv("TRACKER_KEY", KEY)
    return Tracker(tmp_path)


class TestDltConnector(ConnectorTests):
    @pytest.fixture(autouse=True)
    def _tracker(self, tracker: Tracker) -> None:
        issues = [{"id": number, "title": f"Issue {number}"} for number in range(10)]
        tracker.put({"issues": issues})
        self.args = {"path": str(tracker.file)}

    def connector(self) -> DltConnector:
        # With an incremental resource, dlt reads what has the last value of its cursor once more,
        # and sources use credentials only when they read.
        return DltConnector(f"{OWN}:alone", self.args)


def test_ids_are_of_the_primary_keys_and_texts_of_the_usual_fields(tracker):
    assert tracker.run().rows_written == 8
    found = tracker.stored()
    assert set(found) == {
        *("issues:1", "issues:2", "people:red/Ada", "people:blue/Bob"),
        *("orders:7", "orders:8", "comments:1", "comments:2"),
    }
    assert found["comments:1"].text_content == "on One"
    assert found["people:red/Ada"].text_content == "team: red\nname: Ada"
    assert found["issues:1"].metadata["stream"] == "issues"


def test_a_later_run_goes_on_from_the_state_in_the_dataset(tracker):
    tracker.run("issues")
    issues = [FIRST["issues"][1], {"id": 3, "title": "Three", "changed": 3, "gone": False}]
    tracker.put({"issues": issues})
    receipt = tracker.run("issues")
    assert (receipt.rows_written, receipt.rows_unchanged) == (1, 0)
    assert set(tracker.stored()) == {"issues:1", "issues:2", "issues:3"}
    assert tracker.run("issues", full=True).rows_unchanged == 2


def test_a_run_that_fails_moves_no_state(tracker):
    tracker.run("issues")
    tracker.put({"issues": [{"id": 3, "changed": 3}]})
    with pytest.raises(ConnectorError, match=r"tracker, \w+: .*KeyError: 'title'"):
        tracker.run("issues", "comments")
    tracker.put({"issues": [{"id": 3, "title": "Three", "changed": 3}]})
    assert tracker.run("issues").rows_written == 1


def test_records_that_are_marked_as_deleted_delete_their_documents(tracker):
    tracker.run("issues", "orders")
    gone = {"id": 1, "title": "One", "changed": 5, "gone": True}
    tracker.put({"issues": [gone], "orders": [{"id": 7, "body": "seven", "gone": "yes"}]})
    assert tracker.run("issues", "orders").rows_deleted == 2
    assert set(tracker.stored()) == {"issues:2", "orders:8"}


def test_a_resource_that_replaces_deletes_what_it_no_longer_gives(tracker):
    tracker.run("people", "orders")
    tracker.put({"people": FIRST["people"][:1], "orders": []})
    assert tracker.run("people", "orders").rows_deleted == 1
    assert set(tracker.stored()) == {"people:red/Ada", "orders:7", "orders:8"}


def test_a_mirror_reads_all_and_deletes_what_is_gone(tracker):
    tracker.run("issues")
    tracker.put({"issues": FIRST["issues"][:1]})
    receipt = tracker.run("issues", mode="mirror")
    assert (receipt.rows_deleted, receipt.rows_unchanged) == (1, 1)


def test_a_resource_without_a_key_is_refused_where_a_record_may_replace_another(tracker):
    with pytest.raises(ConfigError, match="events has no primary key"):
        tracker.run("events")
    assert tracker.run("events", mode="append").rows_written == 1


def test_two_workers_read_as_one_does(tracker):
    assert tracker.run(workers=2).rows_written == 8
    assert tracker.run().rows_written == 0


def test_the_secret_of_a_source_is_stored_nowhere(tracker, monkeypatch):
    source = tracker.source()
    source.authenticate()
    assert KEY.encode() not in pickle.dumps(source)
    tracker.run()
    monkeypatch.setenv("TRACKER_KEY", "wrong")
    with pytest.raises(ConnectorError, match="PermissionError") as failed:
        tracker.run()
    assert "wrong" not in str(failed.value)
    written = [one for one in tracker.to.parent.rglob("*") if one.is_file()]
    assert not any(KEY.encode() in one.read_bytes() for one in written)


def test_a_resource_needs_no_source(tracker):
    source = DltConnector(f"{OWN}:alone", {"path": str(tracker.file)})
    assert ingest(source, str(tracker.to), embed_dim=2).rows_written == 2
    assert set(tracker.stored()) == {"alone:1", "alone:2"}


def test_a_mapping_says_it_otherwise(tracker):
    mapping = {"issues": {"text": "# {title}"}, "*": {"metadata": ["name"]}}
    ingest(tracker.source(mapping=mapping), str(tracker.to), embed_dim=2)
    assert tracker.stored()["issues:1"].text_content == "# One"


def test_a_look_shows_the_resources_with_their_keys(tracker):
    source = tracker.source()
    source.authenticate()
    assert source.access()[:2] == [
        "issues: key id, read from the last changed on",
        "people: key team, name, read whole each time",
    ]


def test_dlts_own_source_of_rest_apis_reads_pages_and_goes_on(tmp_path):
    notes = [{"id": n, "text": f"note {n}", "at": f"2026-01-0{n}"} for n in (1, 2)]
    asked: list[str] = []

    def answer(got: Got) -> Any:
        asked.append(got.query["since"])
        found = [one for one in notes if one["at"] >= got.query["since"]]
        page = got.number("page", 0)
        return {"notes": found[page : page + 1], "total": len(found)}

    endpoint = {
        "path": "notes",
        "data_selector": "notes",
        "paginator": {"type": "page_number", "base_page": 0, "total_path": "total"},
        "incremental": {"cursor_path": "at", "initial_value": "2020", "start_param": "since"},
    }
    resource = {"name": "notes", "primary_key": "id", "endpoint": endpoint}
    with serving(answer) as server:
        config = {"client": {"base_url": server.url}, "resources": [resource]}
        source = DltConnector("dlt.sources.rest_api:rest_api_source", {"config": config})
        to = str(tmp_path / "kb.lance")
        assert ingest(source, to, embed_dim=2).rows_written == 2
        notes.append({"id": 3, "text": "note 3", "at": "2026-01-03"})
        assert ingest(source, to, embed_dim=2).rows_written == 1
    assert (asked[0], asked[-1]) == ("2020", "2026-01-02")


@pytest.mark.parametrize(
    ("source", "args", "resources", "said"),
    [
        (f"{OWN}:traker", {}, (), "did you mean tracker"),
        (f"{OWN}:nothing", {}, (), "gives a int; name a function with @dlt.source"),
        (f"{OWN}:tracker", {"path": "p", "key": "k"}, ("isues",), "no stream 'isues'"),
        (f"{OWN}:tracker", {"pth": "p"}, (), "cannot be made: TypeError"),
        (f"{OWN}:tracker", {"path": "p"}, (), "cannot be made: ConfigFieldMissingException"),
        (f"{OWN}:tracker", ["p"], (), "args is a list"),
    ],
)
def test_a_mistake_is_told_before_anything_is_read(source, args, resources, said):
    with pytest.raises((ConfigError, ConnectorError), match=said):
        DltConnector(source, args, resources).authenticate()
