"""Ranges of time: `--since`, `--until` and `--slice`, for every connector that can be told."""

from __future__ import annotations

import itertools
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.connectors import (
    APIConnector,
    BaseConnector,
    IncrementalConnector,
    Page,
    PaginatedConnector,
    Partition,
    clamped_cursor,
)
from contextframe_beam.connectors.cursors import Bounds
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.errors import ConfigError
from tests.support.cli_helpers import assert_error, cli

DAYS = [f"2026-01-{day:02}T12:00:00+00:00" for day in range(1, 11)]

MODULE = """
from contextframe_beam import FrameRecord
from contextframe_beam.connectors import IncrementalConnector

DAYS = [f"2026-01-{day:02}T12:00:00+00:00" for day in range(1, 11)]

class Days(IncrementalConnector):
    def _full_sync(self):
        return [{"at": at} for at in DAYS]

    def _incremental_sync(self, since, until="9"):
        return [{"at": at} for at in DAYS if since <= at < until]

    def map_to_frame_record(self, item):
        return FrameRecord(item["at"], unique_id=item["at"])


class Own(Days):
    def __init__(self, since: int = 0):
        super().__init__()
"""


class Days(IncrementalConnector):
    """One item a day."""

    lookback = timedelta(0)

    def _full_sync(self) -> list[dict[str, Any]]:
        return [{"at": at} for at in DAYS]

    def _incremental_sync(self, since: str, until: str = "9") -> list[dict[str, Any]]:
        return [{"at": at} for at in DAYS if since <= at < until]

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return FrameRecord(item["at"], unique_id=item["at"])


class Channels(PaginatedConnector):
    """Two channels of ten days each; `fetch_page` knows a channel by its id."""

    def partitions(
        self, resume_from: Any = None, since: str = "", until: str = "9"
    ) -> list[Partition]:
        return [Partition(name, {"since": since, "until": until}) for name in ("a", "b")]

    def fetch_page(self, partition: Partition, cursor: Any) -> Page:
        ends = partition.params
        found = [at for at in DAYS if ends["since"] <= at < ends["until"]]
        return Page([{"in": partition.id, "at": at} for at in found], state={"at": found[-1:]})


def read(connector: BaseConnector, states: Any = None, **bounds: Any) -> list[Page]:
    connector.authenticate()
    source = Source(connector, resume_from=states, bounds=Bounds.of(**bounds))
    return list(source.pages())


def times(pages: list[Page]) -> list[str]:
    return [item["at"] for page in pages for item in page.items]


def test_the_beginning_belongs_to_a_range_and_the_end_does_not():
    assert times(read(Days(), since=DAYS[2], until=DAYS[5])) == DAYS[2:5]
    assert times(read(Days(), until=DAYS[2])) == DAYS[:2]
    assert times(read(Days(), since="2026-01-09")) == DAYS[8:]


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1)),
    st.timedeltas(timedelta(seconds=1), timedelta(days=400)),
    st.timedeltas(timedelta(hours=1), timedelta(days=50)),
)
def test_slices_follow_one_another_without_gap_or_overlap(begin, length, slice):
    begin = begin.replace(tzinfo=timezone.utc)
    found = list(Bounds(begin, begin + length, slice).slices())
    assert (found[0].since, found[-1].until) == (begin, begin + length)
    assert all(one.until == other.since for one, other in itertools.pairwise(found))


@pytest.mark.parametrize("connector", [Days(), Channels()])
def test_slices_are_partitions_that_together_hold_each_item_once(connector):
    pages = read(connector, since="2026-01-01", until="2026-01-11", slice="3d")
    whole = read(connector, since="2026-01-01", until="2026-01-11")
    assert sorted(times(pages)) == sorted(times(whole))
    assert len({page.partition for page in pages} - {""}) == 4 * len(
        {page.partition for page in whole} - {""}
    )


def test_a_range_moves_no_state_and_says_that_it_is_not_the_whole_source():
    states = {"all": {"since": DAYS[8]}}
    pages = read(Days(), states, since=DAYS[0], until=DAYS[1])
    assert [page.state for page in pages] == [None] * len(pages)
    assert {page.narrowed for page in pages if page.planned} == {
        f"only what is of since {DAYS[0]} until {DAYS[1]} was read"
    }


def test_changes_only_say_so_and_a_full_run_does_not():
    (partial,) = (
        page.narrowed for page in read(Days(), {"all": {"since": DAYS[8]}}) if page.planned
    )
    assert partial == f"only what changed since {DAYS[8]} was read"
    assert not any(page.narrowed for page in read(Days()))


def test_a_lookback_begins_before_the_last_run():
    class Late(Days):
        lookback = timedelta(days=2)

    assert times(read(Late(), {"all": {"since": DAYS[8]}})) == DAYS[6:]
    late = Late()
    late.last_sync = DAYS[8]
    assert [item["at"] for item in late.sync_documents()] == DAYS[6:]


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"since": "yesterday"}, "since is 'yesterday'; give a date or time such as 2026-01-31"),
        ({"until": "2026-01-31 nonsense"}, "until is '2026-01-31 nonsense'"),
        ({"since": "2026-02-01", "until": "2026-01-01"}, "is not before until"),
        ({"slice": "1d"}, "need a beginning: give since"),
        ({"since": "2026-01-01", "slice": "a bit"}, "slice is 'a bit'; give a duration such as"),
        ({"since": "2026-01-01", "slice": "0.1s"}, "must be a second or longer"),
        ({"since": "1970-01-01", "slice": "1s"}, "make them longer"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(bounds, message):
    with pytest.raises(ConfigError, match=message):
        Bounds.of(**bounds)


def test_a_connector_that_cannot_be_told_is_refused_before_anything_is_read():
    class Simple(BaseConnector):
        def sync_documents(self) -> list[dict[str, Any]]:
            raise AssertionError("was read")

    class Open(Days):
        def _incremental_sync(self, since: str) -> list[dict[str, Any]]:  # type: ignore[override]
            return []

    with pytest.raises(
        ConfigError, match="Simple cannot be read by time, so since cannot be given"
    ):
        read(Simple(), since="2026-01-01")
    with pytest.raises(ConfigError, match="Open cannot be told until, only since"):
        read(Open(), until="2026-01-01")
    with pytest.raises(ConfigError, match="slices have an end, and Open cannot be told until"):
        read(Open(), since="2026-01-01", slice="30d")


# What a range of time says about how far a source was read.


def states_of(pages: list[Page]) -> dict[str, Any]:
    return {page.partition: page.state for page in pages if page.state and page.partition}


class Late(Days):
    lookback = timedelta(days=2)


@pytest.mark.parametrize(
    ("connector", "bounds", "reached"),
    [
        (Days(), {"since": DAYS[2], "until": DAYS[8]}, DAYS[8]),
        (Days(), {"since": DAYS[4], "until": DAYS[8]}, DAYS[8]),
        (Days(), {"since": DAYS[5], "until": DAYS[8]}, None),
        (Days(), {"since": DAYS[1], "until": DAYS[3]}, None),
        (Days(), {"until": DAYS[8]}, DAYS[8]),
        (Late(), {"since": DAYS[3], "until": DAYS[8]}, None),
        (Late(), {"since": DAYS[2], "until": DAYS[8]}, DAYS[8]),
    ],
)
def test_a_range_that_leaves_nothing_out_moves_the_state_to_its_end(connector, bounds, reached):
    found = states_of(read(connector, {"all": {"since": DAYS[4]}}, **bounds))
    assert found == ({} if reached is None else {"all": {"since": reached}})


@pytest.mark.parametrize("slice", [None, "365d"])
def test_a_range_that_ends_in_the_future_moves_no_state(slice):
    states = {"all": {"since": DAYS[4]}}
    assert states_of(read(Days(), states, since=DAYS[2], until="2100-01-01", slice=slice)) == {}


def test_a_range_without_a_state_before_moves_none():
    assert states_of(read(Days(), since=DAYS[2])) == {}


def test_of_the_slices_the_last_one_moves_the_state():
    states = {"all": {"since": DAYS[4]}}
    pages = read(Days(), states, since=DAYS[2], until=DAYS[8], slice="1d")
    assert list(states_of(pages).values()) == [{"since": DAYS[8]}]


def test_a_connector_that_does_not_say_where_it_resumes_keeps_its_states():
    assert states_of(read(Channels(), {"a": {"at": DAYS[4]}}, since=DAYS[0], until=DAYS[8])) == {}


# An API.


def api(server: Any, **resource: Any) -> APIConnector:
    incremental = {"field": "updated_at", "param": "since", "until_param": "until"}
    things = {"name": "things", "path": "changes", "params": {"n": 25}, "paginator": "page"}
    things = {**things, "incremental": incremental, **resource}
    return APIConnector(f"{server.url}/api", resources=[things], retries=0)


def api_settings(server: Any, incremental: dict[str, Any]) -> str:
    things = {"name": "things", "path": "changes", "params": {"n": 25}, "paginator": "page"}
    resources = [{**things, "incremental": incremental}]
    return json.dumps({"base_url": f"{server.url}/api", "resources": resources})


def numbers(pages: list[Page]) -> list[int]:
    return sorted(item["id"] for page in pages for item in page.items)


def test_an_api_is_asked_for_a_range_and_gives_no_more(server):
    pages = read(api(server), since="2026-01-05", until="2026-01-08")
    assert numbers(pages) == [4, 5, 6]
    queries = [one["query"] for one in server.requests("/api/changes")]
    form, asked = (one for one in queries if "page=1" in one)
    assert "since" not in form
    assert "since=2026-01-04T23:59:59Z" in asked and "until=2026-01-08T00:00:01Z" in asked
    assert not any(page.state for page in pages)


def test_slices_of_an_api_hold_each_record_once(server):
    pages = read(api(server), since="2026-01-01", until="2026-02-01", slice="4d")
    assert numbers(pages) == list(range(25))
    assert len({page.partition for page in pages} - {""}) == 8


def test_an_api_that_cannot_choose_is_read_and_chosen_from_here(server):
    pages = read(api(server, incremental={"field": "updated_at"}), since="2026-01-24")
    assert numbers(pages) == [23, 24]


WHOLE_TIME = {"field": "updated_at", "param": "since", "until_param": "until"}


@pytest.mark.parametrize(
    ("settings", "cursor", "bounds", "reached"),
    [
        ({}, "2026-01-06T00:00:00Z", {"since": "2026-01-05"}, "2026-01-25T00:00:00Z"),
        ({}, "2026-01-06T00:00:00Z", {"since": "2026-01-07"}, None),
        ({}, "2026-01-06T00:00:00Z", {"since": "2026-01-02", "until": "2026-01-04"}, None),
        ({}, None, {"since": "2026-01-01"}, None),
        ({}, None, {"until": "2026-01-09"}, "2026-01-08T00:00:00Z"),
        ({"start": "2026-01-03"}, None, {"since": "2026-01-03"}, "2026-01-25T00:00:00Z"),
        ({}, "2026-01-06T00:00:00Z", {"since": "2026-01-05", "until": "2100-01-01"}, None),
        ({"lookback": "2d"}, "2026-01-06T00:00:00Z", {"since": "2026-01-05"}, None),
        ({"lookback": "2d"}, "2026-01-06", {"since": "2026-01-04"}, "2026-01-25T00:00:00Z"),
    ],
)
@pytest.mark.parametrize("told", [True, False], ids=["asked", "chosen here"])
def test_the_cursor_of_an_api_moves_with_a_range_that_leaves_nothing_out(
    server, told, settings, cursor, bounds, reached
):
    told_how = WHOLE_TIME if told else {"field": "updated_at"}
    connector = api(server, incremental={**told_how, **settings})
    states = {} if cursor is None else {"things": {"cursor": cursor}}
    found = states_of(read(connector, states, **bounds))
    assert found == ({} if reached is None else {"things": {"cursor": reached}})


def test_a_limit_moves_no_cursor_whichever_slices_it_cuts(server):
    connector = api(server)
    connector.authenticate()
    states = {"things": {"cursor": "2026-01-02T00:00:00Z"}}
    bounds = Bounds.of("2026-01-01", "2026-01-26", "10d")
    source = Source(connector, {"max_items": 9}, resume_from=states, bounds=bounds)
    assert states_of(list(source.pages())) == {}


def test_a_resource_without_a_time_is_refused(server):
    with pytest.raises(ConfigError, match="the resource things cannot be read by time"):
        read(api(server, incremental=None), since="2026-01-24")
    with pytest.raises(ConfigError, match="an endpoint cannot be read by time"):
        read(APIConnector(server.url), since="2026-01-24")
    assert not server.requests("/api/changes")


def test_a_limit_that_cuts_a_source_short_says_so(server):
    connector = api(server)
    connector.authenticate()
    for limits in ({"max_items": 5}, {"max_pages": 1}):
        pages = list(Source(connector, limits).pages())
        assert "max_pages or max_items cut things short" in {page.narrowed for page in pages}
    pages = Source(connector, {"max_items": 25}).pages()
    assert not any(page.narrowed for page in pages if page.partition)


NOW = datetime(2026, 3, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("newest", "form", "cursor"),
    [
        ("2026-02-28T00:00:00Z", None, "2026-02-28T00:00:00Z"),
        ("2999-01-01T00:00:00Z", None, "2026-03-01T00:00:00Z"),
        ("2999-01-01", None, "2026-03-01"),
        (4_000_000_000, None, int(NOW.timestamp())),
        (4_000_000_000_000, None, int(NOW.timestamp()) * 1000),
        (4_000_000_000, "number", 4_000_000_000),
        (99_999_999_999, None, 99_999_999_999),
        ("zzz", None, "zzz"),
        ("4000000000", None, str(int(NOW.timestamp()))),
        ("4000000000", "number", "4000000000"),
        ("99999999999", None, "99999999999"),
        (datetime(2999, 1, 1), None, NOW.replace(tzinfo=None)),
        (datetime(2999, 1, 1, tzinfo=timezone(timedelta(hours=2))), None, NOW),
        (datetime(2026, 2, 1), None, datetime(2026, 2, 1)),
    ],
)
def test_a_cursor_is_never_later_than_the_beginning_of_the_run(newest, form, cursor):
    assert clamped_cursor(newest, NOW, form) == cursor


def test_a_state_in_the_future_is_not_believed(server, caplog):
    pages = read(api(server), {"things": {"cursor": "2999-01-01T00:00:00Z"}})
    assert numbers(pages) == list(range(25))
    assert states_of(pages) == {"things": {"cursor": "2026-01-25T00:00:00Z"}}
    assert "the state '2999-01-01T00:00:00Z' lies in the future" in caplog.text


# The command line.


@pytest.fixture
def days(tmp_path: Path) -> Path:
    path = tmp_path / "days.py"
    path.write_text(MODULE)
    return path


def stored(to: Path) -> list[str]:
    return sorted(str(record.unique_id) for record in FrameDataset.open(str(to)))


@pytest.mark.parametrize("every", [(), ("--commit-every", 2)], ids=["at once", "by parts"])
def test_the_run_after_a_sliced_backfill_goes_on_at_its_end(tmp_path, server, every):
    kb, config = tmp_path / "kb.lance", tmp_path / "api.json"
    incremental = {**WHOLE_TIME, "start": "2026-01-01T00:00:00Z"}
    config.write_text(api_settings(server, incremental))
    job = ("ingest", "api", "--config", config, "--to", kb, "--embed-dim", 4, "--json")
    cli(*job, "--since", "2026-01-01", "--until", "2026-02-10", "--slice", "7d", *every)
    assert len(stored(kb)) == 25
    (state,) = FrameDataset.open(str(kb)).states()
    assert state.partitions == {"things": {"cursor": "2026-01-25T00:00:00Z"}}
    server.reset()
    assert cli(*job).json["rows_unchanged"] == 1
    assert all("since=2026-01-25T" in one["query"] for one in server.requests("/api/changes"))


def test_a_backfill_leaves_the_running_cursor_where_it_is(tmp_path, days):
    kb = tmp_path / "kb.lance"
    job = ("ingest", f"{days}:Days", "--to", kb, "--embed-dim", 4, "--json")
    bounded = cli(*job, "--since", "2026-01-03", "--until", "2026-01-07", "--slice", "1d")
    assert bounded.json["rows_written"] == 4 and stored(kb) == DAYS[2:6]
    assert cli(*job).json["rows_written"] == 6
    assert stored(kb) == DAYS
    (state,) = FrameDataset.open(str(kb)).states()
    assert cli(*job, "--until", "2026-01-02").code == 0
    (later,) = FrameDataset.open(str(kb)).states()
    assert later.partitions == state.partitions


def test_a_connectors_own_since_stays_its_option(tmp_path, days):
    kb = tmp_path / "kb.lance"
    result = cli("ingest", f"{days}:Own", "--to", kb, "--embed-dim", 4, "--since", 7)
    assert result.code == 0 and stored(kb) == DAYS


def test_wrong_ranges_are_wrong_usage(tmp_path, days):
    job = ("ingest", f"{days}:Days", "--to", tmp_path / "kb.lance")
    assert_error(cli(*job, "--since", "soon"), 2, "since is 'soon'")
    (tmp_path / "docs").mkdir()
    (tmp_path / "simple.py").write_text(
        "from contextframe_beam.connectors import BaseConnector\n"
        "class Simple(BaseConnector):\n    def sync_documents(self):\n        return []\n"
    )
    job = ("ingest", f"{tmp_path}/simple.py:Simple", "--to", tmp_path / "kb.lance")
    assert_error(cli(*job, "--since", "2026-01-01"), 2, "cannot be read by time")
    assert not (tmp_path / "kb.lance").exists()
