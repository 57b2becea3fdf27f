"""What a cursor makes of the values that sources really have: no record lost, none stored twice."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors import (
    APIConnector,
    Page,
    PaginatedConnector,
    Partition,
    newest_cursor,
)
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.pipelines.ingest import ingest
from tests.support.pipeline_helpers import document


class Given(APIConnector):
    """An API that has just these records; another one of them is the same source."""

    identity_args = ("name",)


def api(server: Any, *values: Any, asked: bool = True, like: str = "", **incremental: Any) -> Given:
    """Returns an API of records 0, 1, ... with these values in the field `at`."""
    items = [{"id": number, "at": value} for number, value in enumerate(values)]
    how = {"field": "at", **({"param": "since"} if asked else {}), **incremental}
    params = {"items": json.dumps(items), **({like: "yes"} if like else {})}
    resource = {"name": "given", "params": params, "paginator": "single", "incremental": how}
    return Given(f"{server.url}/api", name="given", resources=[resource], retries=0)


def read(connector: APIConnector, states: Any = None) -> tuple[set[int], dict[str, Any]]:
    """Returns the ids of the records that a run reads, and the states that it leaves."""
    connector.authenticate()
    pages = list(Source(connector, resume_from=states).pages())
    states = {page.partition: page.state for page in pages if page.state and page.partition}
    return {item["id"] for page in pages for item in page.items}, states


@pytest.mark.parametrize("asked", [True, False], ids=["asked", "chosen here"])
class TestTheBoundary:
    def test_a_later_record_of_the_same_time_is_read(self, server, asked):
        times = ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]
        _, states = read(api(server, *times, asked=asked))
        assert read(api(server, *times, times[1], asked=asked), states)[0] == {1, 2}

    def test_records_of_the_same_time_are_stored_once(self, server, tmp_path, asked):
        kb = str(tmp_path / "kb.lance")
        times = ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]
        ingest(api(server, *times, asked=asked), kb, embed_dim=4)
        receipt = ingest(api(server, *times, times[1], times[1], asked=asked), kb)
        assert (receipt.rows_written, receipt.rows_unchanged) == (2, 1)
        assert len(FrameDataset.open(kb)) == 4

    def test_an_api_that_shows_whole_seconds_loses_no_part_of_one(self, server, asked):
        times = ["2026-01-01T00:00:01.100Z", "2026-01-01T00:00:01.200Z"]
        _, states = read(api(server, times[0], asked=asked, like="cut"))
        assert read(api(server, *times, asked=asked, like="cut"), states)[0] == {0, 1}

    def test_a_record_that_comes_late_is_read_within_the_lookback(self, server, asked):
        times = ["2026-01-01T10:00:00Z", "2026-01-01T12:00:00Z"]
        late = ["2026-01-01T11:30:00Z", "2026-01-01T10:30:00Z"]
        _, states = read(api(server, *times, asked=asked, lookback="1h"))
        again = api(server, *times, *late, asked=asked, lookback="1h")
        assert read(again, states)[0] == {1, 2}


def test_where_the_beginning_does_not_belong_to_an_answer_a_lookback_reads_it(server):
    times = ["2026-01-01T00:00:00Z"]
    for lookback, found in ((None, set()), ("1s", {0, 1})):
        more = {"lookback": lookback} if lookback else {}
        _, states = read(api(server, *times, like="open", **more))
        again = api(server, *times, *times, like="open", **more)
        assert read(again, states)[0] == found


class TestValues:
    def test_a_record_without_one_is_read_by_each_run(self, server):
        values = ["2026-01-01T00:00:00Z", None, "2026-01-03T00:00:00Z", ""]
        found, states = read(api(server, *values, asked=False))
        assert found == {0, 1, 2, 3}
        assert states == {"given": {"cursor": "2026-01-03T00:00:00Z"}}
        assert read(api(server, *values, asked=False), states)[0] == {1, 2, 3}

    def test_a_source_without_any_has_no_state_and_is_read_whole(self, server):
        assert read(api(server, None, None, asked=False)) == ({0, 1}, {})

    def test_an_odd_one_becomes_no_cursor(self, server):
        _, states = read(api(server, "never", "2026-01-03T00:00:00Z", asked=False))
        assert states == {"given": {"cursor": "2026-01-03T00:00:00Z"}}
        found, states = read(api(server, "never", asked=False), states)
        assert (found, states) == ({0}, {"given": {"cursor": "2026-01-03T00:00:00Z"}})

    def test_times_count_whatever_their_offset(self, server):
        values = ["2026-01-02T01:00:00+02:00", "2026-01-01T23:30:00", "2026-01-01T18:00:00-05:00"]
        _, states = read(api(server, *values, asked=False))
        assert states == {"given": {"cursor": values[1]}}
        assert read(api(server, *values, "2026-01-01T23:30:00Z", asked=False), states)[0] == {1, 3}

    @pytest.mark.parametrize("form", [{}, {"format": "number"}], ids=["guessed", "number"])
    def test_numbers_count_as_numbers_also_as_text(self, server, form):
        _, states = read(api(server, "9", "10", asked=False, **form))
        assert states == {"given": {"cursor": "10"}}
        again = api(server, "9", "10", "11", "100", asked=False, **form)
        assert read(again, states)[0] == {1, 2, 3}


class Notes(PaginatedConnector):
    """A connector of one's own that keeps the newest time, never one in the future."""

    def __init__(self, *times: str) -> None:
        super().__init__()
        self.times = times

    def partitions(self, resume_from: Any = None) -> list[Partition]:
        since = (resume_from or {}).get("all", {}).get("since", "")
        return [Partition("all", {"since": since, "began": datetime.now(timezone.utc)})]

    def fetch_page(self, partition: Partition, cursor: Any) -> Page:
        given = partition.params
        items = [{"id": at, "at": at} for at in self.times if at >= given["since"]]
        newest = newest_cursor(items, "at", given["since"] or None, began=given["began"])
        return Page(items, state={"since": newest} if newest else None)

    def map_to_frame_record(self, item: dict[str, Any]) -> Any:
        return document(item["id"])


def test_a_connector_of_ones_own_is_not_stopped_by_a_record_of_the_future(tmp_path):
    kb = str(tmp_path / "kb.lance")
    ingest(Notes("2026-01-01T00:00:00Z", "2999-01-01T00:00:00Z"), kb, embed_dim=4)
    (state,) = FrameDataset.open(kb).states()
    assert state.partitions == {"all": {"since": "2026-01-01T00:00:00Z"}}
