"""Rows of a Lance dataset: all of a version, and then only what its versions say has changed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest

from contextframe_beam.connectors import PlannedRun
from contextframe_beam.connectors.tables.arrow import ArrowConnector
from contextframe_beam.errors import ConfigError, ConnectorError
from contextframe_beam.frames.record import Deletion
from tests.support.pipeline_helpers import texts_in
from tests.support.table_reading import Found, read


def made(uri: Path, stable: bool = True, rows: int = 10) -> Any:
    table = pa.table({"id": range(rows), "text": [f"text {n}" for n in range(rows)]})
    return lance.write_dataset(
        table, str(uri), enable_stable_row_ids=stable, max_rows_per_file=4, mode="overwrite"
    )


def changed(uri: Path) -> Any:
    """Deletes 2 and 3, changes 5, gives 6 the id 60, and inserts 3 again and 70."""
    dataset = lance.dataset(str(uri))
    dataset.delete("id IN (2, 3)")
    dataset.update({"text": "'changed'"}, where="id = 5")
    dataset.update({"id": "60"}, where="id = 6")
    rows = pa.table({"id": [3, 70], "text": ["again", "new"]})
    return lance.write_dataset(rows, str(uri), mode="append")


def split(found: Found, connector: ArrowConnector) -> tuple[list[int], list[str | None]]:
    """Returns the ids of rows, and the unique_ids of documents that are gone."""
    records = [(item, connector.map_to_frame_record(item)) for item in found.items]
    gone = [one.unique_id for _, one in records if isinstance(one, Deletion)]
    return sorted(item["id"] for item, one in records if not isinstance(one, Deletion)), gone


def test_a_first_run_reads_all_rows_in_pieces(tmp_path: Path) -> None:
    made(tmp_path / "a.lance")
    found = read(ArrowConnector(tmp_path / "a.lance"))
    assert found.column("id") == list(range(10)) and not found.narrowed
    assert found.states["version"]["version"] == 1
    assert len(found.partitions) == 3


def test_the_next_run_reads_only_what_changed(tmp_path: Path) -> None:
    made(tmp_path / "a.lance")
    connector = ArrowConnector(tmp_path / "a.lance", prefix="n:")
    states = read(connector).states
    changed(tmp_path / "a.lance")
    found = read(connector, states)
    ids, gone = split(found, connector)
    assert (ids, sorted(map(str, gone))) == ([3, 5, 60, 70], ["n:2", "n:6"])
    assert "only what changed since version 1" in found.narrowed
    assert found.states["version"]["version"] == 5
    assert not read(connector, found.states).items


def test_rows_that_no_longer_meet_the_filter_are_gone(tmp_path: Path) -> None:
    made(tmp_path / "a.lance")
    connector = ArrowConnector(tmp_path / "a.lance", prefix="n:", filter="text != 'changed'")
    states = read(connector).states
    changed(tmp_path / "a.lance")
    ids, gone = split(read(connector, states), connector)
    assert (ids, sorted(map(str, gone))) == ([3, 60, 70], ["n:2", "n:5", "n:6"])


@pytest.mark.parametrize("why", ["no stable row ids", "removed", "another dataset"])
def test_all_is_read_where_the_dataset_does_not_tell(why: str, tmp_path: Path) -> None:
    uri = tmp_path / "a.lance"
    made(uri, stable=why != "no stable row ids")
    connector = ArrowConnector(uri)
    states = read(connector).states
    changed(uri)
    if why == "removed":
        lance.dataset(str(uri)).cleanup_old_versions(older_than=timedelta(0))
    if why == "another dataset":
        states["version"]["at"] = "2020-01-01T00:00:00"
    found = read(connector, states)
    assert found.column("id") == [0, 1, 3, 4, 5, 7, 8, 9, 60, 70] and not found.narrowed


def test_a_version_can_be_named(tmp_path: Path) -> None:
    made(tmp_path / "a.lance")
    changed(tmp_path / "a.lance")
    found = read(ArrowConnector(tmp_path / "a.lance", version=1))
    assert found.column("id") == list(range(10))
    with pytest.raises(ConnectorError, match="versions 1 to 5"):
        read(ArrowConnector(tmp_path / "a.lance", version=9))


def test_it_is_the_same_source_in_any_version(tmp_path: Path) -> None:
    one, other = (ArrowConnector(tmp_path / "a.lance", version=version) for version in (None, 3))
    assert one.source_id() == other.source_id()


def test_a_dataset_is_not_read_by_time(tmp_path: Path) -> None:
    made(tmp_path / "a.lance")
    connector = ArrowConnector(tmp_path / "a.lance")
    with pytest.raises(ConfigError, match="by version and not by time"):
        list(connector.plan(PlannedRun(since="2024-01-01")))


def test_two_runs_leave_what_the_source_has(tmp_path: Path) -> None:
    from contextframe_beam.pipelines.ingest import ingest

    made(tmp_path / "a.lance")
    connector = ArrowConnector(tmp_path / "a.lance", prefix="")
    ingest(connector, str(tmp_path / "kb"))
    changed(tmp_path / "a.lance")
    receipt = ingest(connector, str(tmp_path / "kb"))
    assert (receipt.rows_written, receipt.rows_deleted) == (4, 2)
    stored = texts_in(tmp_path / "kb")
    assert {key: stored[key] for key in ("3", "5", "60", "70")} == {
        "3": "again",
        "5": "changed",
        "60": "text 6",
        "70": "new",
    }
    assert sorted(map(int, stored)) == [0, 1, 3, 4, 5, 7, 8, 9, 60, 70]
