"""What an incremental run goes on from besides the dataset: a state file, and what was deleted."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import Deletion, FrameDataset, FrameRecord
from contextframe_beam.connectors import APIConnector, IncrementalConnector
from contextframe_beam.errors import ContextFrameError
from contextframe_beam.pipelines.ingest import ingest
from tests.support.cli_helpers import cli

MODULE = """
from pathlib import Path
from contextframe_beam import FrameRecord
from contextframe_beam.connectors import IncrementalConnector

class Notes(IncrementalConnector):
    def _full_sync(self):
        return [{"id": 1}, {"id": 2}]

    def _incremental_sync(self, since):
        return [{"id": since}]

    def map_to_frame_record(self, item):
        if Path(__file__).with_name("refused").exists():
            raise ValueError("no")
        return FrameRecord(str(item["id"]), unique_id=str(item["id"]))
"""


@pytest.fixture
def notes(tmp_path: Path) -> tuple[object, ...]:
    (tmp_path / "notes.py").write_text(MODULE)
    return (
        *("ingest", f"{tmp_path}/notes.py:Notes", "--to", tmp_path / "kb.lance"),
        *("--embed-dim", 4, "--state-file", tmp_path / "state.json", "--json"),
    )


def last_sync(folder: Path) -> str:
    return str(json.loads((folder / "state.json").read_text())["last_sync"])


def stored(folder: Path) -> list[str]:
    found = FrameDataset.open(str(folder / "kb.lance"))
    return sorted(str(record.unique_id) for record in found)


def ten_minutes_before(time: str) -> str:
    return (datetime.fromisoformat(time) - timedelta(minutes=10)).isoformat()


def reached(folder: Path) -> str:
    (state,) = FrameDataset.open(str(folder / "kb.lance")).states()
    return str(state.partitions["all"]["since"])


def test_the_state_file_is_written_after_the_commit_and_heeded(tmp_path, notes):
    assert cli(*notes).json["rows_written"] == 2
    first = last_sync(tmp_path)
    assert first == reached(tmp_path)
    assert cli(*notes).json["rows_written"] == 1
    assert stored(tmp_path) == ["1", "2", ten_minutes_before(first)]
    assert last_sync(tmp_path) == reached(tmp_path) > first


def test_a_run_that_fails_leaves_the_state_file_alone(tmp_path, notes):
    cli(*notes)
    before = (tmp_path / "state.json").read_bytes()
    (tmp_path / "refused").touch()
    assert cli(*notes).code == 1
    assert (tmp_path / "state.json").read_bytes() == before


def test_the_earlier_of_file_and_dataset_counts(tmp_path, notes):
    cli(*notes)
    earlier = "2020-01-01T00:00:00+00:00"
    (tmp_path / "state.json").write_text(json.dumps({"last_sync": earlier}))
    cli(*notes)
    assert ten_minutes_before(earlier) in stored(tmp_path)
    (tmp_path / "state.json").write_text(json.dumps({"last_sync": "2999-01-01T00:00:00+00:00"}))
    since = reached(tmp_path)
    cli(*notes)
    assert ten_minutes_before(since) in stored(tmp_path)


@pytest.mark.parametrize("missing", ["state.json", "kb.lance"])
def test_where_one_of_them_is_gone_everything_is_read(tmp_path, notes, missing):
    cli(*notes)
    (tmp_path / missing).rename(tmp_path / "gone")
    result = cli(*notes).json
    assert result["rows_written"] + result["rows_unchanged"] == 2


def test_a_range_of_time_that_leaves_something_out_leaves_the_state_file_alone(tmp_path, notes):
    cli(*notes)
    before = (tmp_path / "state.json").read_bytes()
    assert cli(*notes, "--since", "2999-01-01").code == 0
    assert (tmp_path / "state.json").read_bytes() == before


def test_one_that_leaves_nothing_out_moves_state_and_file(tmp_path, notes):
    cli(*notes)
    before = last_sync(tmp_path)
    assert cli(*notes, "--since", "2026-01-01").code == 0
    assert last_sync(tmp_path) == reached(tmp_path) > before


# Deletions that an API tells of.


def things(server: Any, **resource: Any) -> APIConnector:
    mapping = {"timestamp": "updated_at"}
    resource = {"name": "things", "path": "changes", "params": {"n": 5}, **resource}
    resource = {"paginator": "page", "mapping": mapping, **resource}
    return APIConnector(f"{server.url}/api", name="crm", resources=[resource], retries=0)


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("deleted", "gone"),
    [
        ({"field": "id", "one_of": [1, 3]}, [1, 3]),
        ({"field": "id"}, [1, 2, 3, 4]),  # 0 is no
        ({"field": "nothing"}, []),
        ({"field": "title", "matches": "4$"}, [4]),
        ({"field": "title", "exists": True}, [0, 1, 2, 3, 4]),
    ],
)
def test_a_record_that_says_that_it_was_deleted_deletes_its_document(
    server, tmp_path, deleted, gone
):
    kb = str(tmp_path / "kb.lance")
    ingest(things(server), kb, embed_dim=4)
    receipt = ingest(things(server, deleted=deleted), kb, max_deletes="100%")
    assert receipt.rows_deleted == len(gone)
    ids = sorted(str(record.unique_id) for record in FrameDataset.open(kb))
    assert ids == [f"crm:things#{n}" for n in range(5) if n not in gone]


def test_filters_do_not_hide_a_deletion(server, tmp_path):
    kb = str(tmp_path / "kb.lance")
    ingest(things(server), kb, embed_dim=4)
    connector = things(
        server,
        deleted={"field": "id", "equals": 2},
        filters=[{"field": "id", "not_equals": 2}],
    )
    assert ingest(connector, kb).rows_deleted == 1


def test_a_deletion_has_the_time_of_its_record(server):
    connector = things(server, deleted={"field": "gone"})
    item = {"id": 7, "gone": True, "updated_at": "2026-01-02T00:00:00Z", "_resource": "things"}
    found = connector.map_to_frame_record(item)
    assert found == Deletion("crm:things#7", "2026-01-02T00:00:00Z")
    for no in (None, False, 0, "", "false", "0"):
        assert isinstance(connector.map_to_frame_record({**item, "gone": no}), FrameRecord)


def test_a_record_without_an_id_deletes_nothing(server, tmp_path):
    connector = things(server, deleted={"field": "title"}, mapping={"id": "nothing"})
    with pytest.raises(ContextFrameError, match="a deletion needs the unique_id"):
        ingest(connector, str(tmp_path / "kb.lance"), embed_dim=4)
    assert IncrementalConnector().reconciled({"all": {"since": "x"}}) == {"all": {"since": "x"}}
