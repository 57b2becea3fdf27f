"""A state that a clock gave: it looks back, and is not taken from the future."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.connectors import IncrementalConnector
from contextframe_beam.connectors.cursors import Bounds
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.pipelines.ingest import ingest
from tests.support.cli_helpers import cli


class Notes(IncrementalConnector):
    """Notes that changed so long ago."""

    ages: tuple[timedelta, ...] = (timedelta(days=30), timedelta(hours=1))

    def __init__(self, state_file: str | None = None) -> None:
        super().__init__(state_file)
        self.asked: list[str] = []

    def _full_sync(self) -> list[dict[str, Any]]:
        self.asked.append("everything")
        return [{"id": number} for number, _ in enumerate(self.ages)]

    def _incremental_sync(self, since: str, until: str = "9999") -> list[dict[str, Any]]:
        self.asked.append(since)
        now = datetime.now(timezone.utc)
        changed = [(now - age).isoformat() for age in self.ages]
        return [{"id": number} for number, at in enumerate(changed) if since <= at < until]

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return FrameRecord(f"Note {item['id']}", unique_id=f"notes:{item['id']}")


class Punctual(Notes):
    """A source whose changes show at once."""

    lookback = timedelta(0)


def read(connector: Notes, reached: str, **bounds: Any) -> tuple[list[int], dict[str, Any], str]:
    """Returns what a run reads that goes on from a state, the state it leaves, and what it asks."""
    source = Source(connector, resume_from={"all": {"since": reached}}, bounds=Bounds.of(**bounds))
    pages = list(source.pages())
    states = {page.partition: page.state for page in pages if page.state and page.partition}
    return [item["id"] for page in pages for item in page.items], states, connector.asked[-1]


def at(**ago: float) -> str:
    return (datetime.now(timezone.utc) - timedelta(**ago)).isoformat()


def test_a_run_looks_back_ten_minutes():
    since = at(hours=2)
    expected = datetime.fromisoformat(since) - timedelta(minutes=10)
    assert read(Notes(), since)[2] == expected.isoformat()


def test_a_class_may_say_otherwise():
    since = at(hours=2)
    assert read(Punctual(), since)[2] == since


def test_what_showed_late_is_read(tmp_path):
    class Late(Notes):
        ages = (timedelta(days=30), timedelta(minutes=65))

    assert read(Late(), at(hours=1))[0] == [1]


@pytest.mark.parametrize("ahead", [{"minutes": 11}, {"hours": 1}, {"days": 2}, {"days": 400_000}])
@pytest.mark.parametrize("kind", [Notes, Punctual])
def test_a_state_in_the_future_reads_everything_and_says_so(caplog, kind, ahead):
    since = at(**{name: -number for name, number in ahead.items()})
    found, states, asked = read(kind(), since)
    assert (found, asked) == ([0, 1], "everything")
    assert datetime.fromisoformat(states["all"]["since"]) <= datetime.now(timezone.utc)
    (said,) = [one.message for one in caplog.records if one.levelno == logging.WARNING]
    assert f"the last run began at {since}, which is later than now" in said


def test_clocks_that_differ_by_seconds_are_no_reason(caplog):
    assert read(Notes(), at(seconds=-5))[2] != "everything"
    assert not caplog.records


@pytest.mark.parametrize("until", [None, at(minutes=1)], ids=["without an end", "with an end"])
def test_a_range_does_not_move_a_state_that_lies_in_the_future(until):
    assert read(Notes(), at(days=-2), since=at(days=1), until=until)[1] == {}
    assert read(Notes(), at(days=1), since=at(days=2), until=until)[1] != {}


def test_a_mirror_of_such_a_run_is_complete():
    source = Source(Notes(), resume_from={"all": {"since": at(days=-2)}})
    assert not any(page.narrowed for page in source.pages())


def test_a_loop_over_a_connector_heeds_the_clock_as_well(tmp_path, caplog):
    file = tmp_path / "state.json"
    file.write_text(json.dumps({"last_sync": at(days=-2)}))
    connector = Notes(str(file))
    assert len(connector.sync_documents()) == 2 and connector.asked == ["everything"]
    assert "which is later than now" in caplog.text
    connector.sync_documents()
    assert connector.asked[-1] < at(minutes=9)


class More(Notes):
    """The same source with one note more, which changed while a clock was ahead."""

    identity_args = ()
    ages = (*Notes.ages, timedelta(minutes=30))

    def source_identity(self, sync_kwargs: Any = None) -> dict[str, Any]:
        return Notes().source_identity(sync_kwargs)


def test_a_clock_that_was_ahead_loses_nothing(tmp_path, caplog):
    kb, states = str(tmp_path / "kb.lance"), tmp_path / "states.json"
    ingest(Notes(), kb, embed_dim=4)
    (shown,) = json.loads(cli("state", "show", kb, "--json").out)
    shown["partitions"]["all"]["since"] = at(days=-2)
    states.write_text(json.dumps([shown]))
    assert cli("state", "set", kb, states).code == 0
    assert ingest(More(), kb).rows_written == 1
    assert "which is later than now" in caplog.text
    (state,) = FrameDataset.open(kb).states()
    assert state.partitions["all"]["since"] <= at()
