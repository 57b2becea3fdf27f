"""Times of an API in all forms: nothing newer is left out, and requests write them alike."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam import FrameDataset
from contextframe_beam.connectors import APIConnector
from contextframe_beam.connectors.api.config import Incremental
from contextframe_beam.connectors.api.incremental import bound, request_value, resumed, slices
from contextframe_beam.connectors.cursors import Bounds, is_before, newest_cursor, within
from contextframe_beam.frames.times import instant_of, parse, write
from contextframe_beam.pipelines.ingest import ingest
from tests.connectors.test_times import VALUES

UTC = timezone.utc
DAY = timedelta(days=1)
MORNING = datetime(2026, 1, 1, 10, tzinfo=UTC)

#: How an API writes times, and a value of it. The server reads nothing else.
FORMS = {
    "iso": "2026-01-01T10:00:00Z",
    "date": "2026-01-01",
    "rails": "2026-01-01 10:00:00 UTC",
    "mail": "Thu, 01 Jan 2026 10:00:00 GMT",
    "am": "2026/01/01 10:00:00 AM",
    "compact": "20260101100000",
    "integer": "1767261600000",
    "decimal": "1767261600.000100",
}


class Times(APIConnector):
    """An API of records 0, 1, ... with these values; another one of them is the same source."""

    identity_args = ("name",)


def api(server: Any, reads: str, values: list[Any], told: bool = True, **more: Any) -> Times:
    items = [{"id": number, "text": f"{at}", "at": at} for number, at in enumerate(values)]
    asked = {"param": "since", "until_param": "until"} if told else {}
    incremental = {"field": "at", **asked, **more}
    params = {"items": json.dumps(items), "reads": reads}
    resource = {"name": "times", "params": params, "paginator": "single"}
    resource["incremental"] = incremental
    return Times(f"{server.url}/api", name="times", resources=[resource], retries=0)


def values_in(form: str, *times: datetime) -> list[Any]:
    like = parse(FORMS[form]).form
    return [write(instant_of(time), like) for time in times]


def asked_for(server: Any) -> list[dict[str, str]]:
    """Returns `since` and `until` of each request."""
    found = []
    for one in server.requests("/api/times"):
        query = parse_qs(urlsplit("?" + one["query"]).query)
        found.append({name: query[name][0] for name in ("since", "until") if name in query})
    return found


def stored(kb: str) -> set[str]:
    return {str(record.unique_id)[-1] for record in FrameDataset.open(kb)}


def state_of(kb: str) -> Any:
    (state,) = FrameDataset.open(kb).states()
    return state.partitions


@pytest.mark.sample
@pytest.mark.parametrize("told", [True, False], ids=["asked", "chosen here"])
@pytest.mark.parametrize("lookback", [None, "25h"])
@pytest.mark.parametrize("form", FORMS)
def test_the_next_run_reads_what_is_newer(server, tmp_path, form, lookback, told):
    kb, more = str(tmp_path / "kb.lance"), {"lookback": lookback} if lookback else {}
    values = values_in(form, MORNING, MORNING + DAY, MORNING + 3 * DAY, MORNING + 4 * DAY)
    ingest(api(server, form, values[:2], told, **more), kb, embed_dim=4)
    assert state_of(kb) == {"times": {"cursor": values[1]}}
    receipt = ingest(api(server, form, values, told, **more), kb)
    assert (receipt.rows_written, stored(kb)) == (2, {"0", "1", "2", "3"})
    assert state_of(kb) == {"times": {"cursor": values[3]}}
    for one in asked_for(server)[1:]:
        assert not told or parse(one["since"]).form.pattern == parse(values[0]).form.pattern


@pytest.mark.sample
@pytest.mark.parametrize("how", ["state", "nothing", "start"])
@pytest.mark.parametrize("form", FORMS)
def test_a_range_is_asked_for_in_the_form_of_the_records(server, tmp_path, form, how):
    kb = str(tmp_path / "kb.lance")
    values = values_in(form, *(MORNING + number * DAY for number in range(6)))
    more = {"start": values[0]} if how == "start" else {}
    if how == "state":
        ingest(api(server, form, values[:1]), kb, embed_dim=4)
    bounds = Bounds.of("2026-01-02", "2026-01-05")
    ingest(api(server, form, values, **more), kb, embed_dim=4, bounds=bounds)
    assert stored(kb) - {"0"} == {"1", "2", "3"}


@pytest.mark.sample(4)
@pytest.mark.parametrize("form", FORMS)
def test_slices_are_asked_for_in_the_form_of_the_records(server, tmp_path, form):
    kb = str(tmp_path / "kb.lance")
    values = values_in(form, *(MORNING + number * DAY for number in range(6)))
    connector = api(server, form, values, start=values[1], slice="40d")
    ingest(connector, kb, embed_dim=4)
    assert stored(kb) == {"1", "2", "3", "4", "5"}
    assert state_of(kb) == {"times": {"cursor": values[5]}}
    assert len(asked_for(server)) > 1


def test_an_offset_decides_which_day_is_asked_for():
    """The earlier one of the day in UTC and in the zone of the record."""
    settings = Incremental(field="at", format="date")
    assert request_value("2026-01-06T03:00:00+09:00", settings) == "2026-01-05"
    assert request_value("2026-01-05T23:30:00-05:00", settings) == "2026-01-05"
    assert request_value("2026-01-05T12:00:00+00:00", settings) == "2026-01-05"
    assert request_value("2026-01-05 22:00:00 America/New_York", settings) == "2026-01-05"
    pattern = Incremental(field="at", format="%Y/%m/%d", field_format="iso")
    assert request_value("2026-01-05T23:30:00-05:00", pattern) == "2026/01/05"


AMBIGUOUS = [
    ["1/2/2026", "2/2/2026", "3/2/2026"],
    ["12/31/2025", "01/01/2026", "01/02/2026"],
    ["31.12.2025", "1.1.2026", "2.1.2026"],
    ["2026-01-05 10:00 IST", "2026-01-06 10:00 IST", "2026-01-07 10:00 IST"],
    ["2026-10-25T02:30:00[Europe/Berlin]"] * 3,
    ["0000-00-00 00:00:00", "soon", "01HV5Z7W6M"],
    ["20260105 was it", "2026-01-05 or so", "about 2026-01-05"],
]


@pytest.mark.sample(3)
@pytest.mark.parametrize("values", AMBIGUOUS, ids=lambda values: values[0])
def test_what_can_be_read_in_two_ways_is_said_once_and_kept(server, tmp_path, values, caplog):
    kb = str(tmp_path / "kb.lance")
    ingest(api(server, "iso", values[:1], told=False), kb, embed_dim=4)
    caplog.clear()
    receipt = ingest(api(server, "iso", values, told=False), kb)
    assert (receipt.rows_written, stored(kb)) == (2, {"0", "1", "2"})
    assert state_of(kb) == {}
    said = [one for one in caplog.messages if "not a time that can be read in only one way" in one]
    assert len(said) == 1 and f"times: at is {values[0]!r}" in said[0]
    bounds = Bounds.of("2026-01-01", "2026-01-02")
    ingest(api(server, "iso", values, told=False), kb, bounds=bounds)
    assert stored(kb) == {"0", "1", "2"}


def test_ids_as_large_as_times_are_said(server, tmp_path, caplog):
    kb = str(tmp_path / "kb.lance")
    ids = [2_700_000_001, 2_700_000_002]
    ingest(api(server, "integer", ids, told=False), kb, embed_dim=4)
    assert "in the future, and does not move the state" in caplog.text
    assert "format: number" in caplog.text
    ingest(api(server, "integer", ids, told=False, format="number"), kb)
    assert state_of(kb) == {"times": {"cursor": ids[1]}}


def test_the_time_of_a_document_that_cannot_be_read_is_said_once(server, tmp_path, caplog):
    kb = str(tmp_path / "kb.lance")
    resource = {"name": "times", "paginator": "single", "mapping": {"timestamp": "at"}}
    items = [{"id": number, "text": "t", "at": "1/2/2026"} for number in range(3)]
    resource["params"] = {"items": json.dumps(items), "reads": "iso"}
    source = Times(f"{server.url}/api", name="times", resources=[resource], retries=0)
    assert ingest(source, kb, embed_dim=4).rows_written == 3
    said = [one for one in caplog.messages if "the time of a record is '1/2/2026'" in one]
    assert len(said) == 1
    assert {record.timestamp for record in FrameDataset.open(kb)} == {"1/2/2026"}


@pytest.mark.parametrize("told", [True, False], ids=["asked", "chosen here"])
def test_what_is_stated_is_read_so(server, tmp_path, told, caplog):
    kb = str(tmp_path / "kb.lance")
    values = ["31/12/2025", "01/01/2026", "02/01/2026", "01/12/2025"]
    more = {"format": "%d/%m/%Y"} if told else {"field_format": "%d/%m/%Y"}
    ingest(api(server, "day first", values[:2], told, **more), kb, embed_dim=4)
    assert state_of(kb) == {"times": {"cursor": "01/01/2026"}}
    receipt = ingest(api(server, "day first", values, told, **more), kb)
    assert (receipt.rows_written, stored(kb)) == (1, {"0", "1", "2"})
    assert "one way" not in caplog.text


def test_an_odd_record_among_others_is_kept_and_moves_nothing(server, tmp_path):
    kb = str(tmp_path / "kb.lance")
    values = ["2026-01-01T10:00:00Z", "1/2/2026", "2026-01-02T10:00:00Z", "never"]
    ingest(api(server, "iso", values[:2], told=False), kb, embed_dim=4)
    assert state_of(kb) == {"times": {"cursor": values[0]}}
    ingest(api(server, "iso", values, told=False), kb)
    assert stored(kb) == {"0", "1", "2", "3"}


@pytest.mark.sample
@pytest.mark.parametrize("zero", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00", "0001-01-01"])
@pytest.mark.parametrize("lookback", ["1d", "9999d"])
def test_the_zero_time_asks_for_all(server, tmp_path, zero, lookback):
    kb = str(tmp_path / "kb.lance")
    ingest(api(server, "iso", [zero], told=False, lookback=lookback), kb, embed_dim=4)
    assert state_of(kb) == {"times": {"cursor": zero}}
    ingest(api(server, "iso", [zero, "2026-01-05T00:00:00Z"], told=False, lookback=lookback), kb)
    assert stored(kb) == {"0", "1"}
    assert request_value(zero, Incremental(field="at", lookback=lookback)) == zero


def test_slices_after_a_zero_time_begin_at_the_start(server, tmp_path):
    kb = str(tmp_path / "kb.lance")
    more = {"start": "2026-01-01T00:00:00Z", "slice": "30d"}
    zero = "0001-01-01T00:00:00Z"
    ingest(api(server, "iso", [zero], told=True, start=zero), kb, embed_dim=4)
    ingest(api(server, "iso", [zero, "2026-01-05T00:00:00Z"], **more), kb)
    assert stored(kb) == {"0", "1"}


class TestStates:
    @pytest.mark.parametrize("state", ["2999-01-01T00:00:00Z", 4_100_000_000, "4100000000000"])
    def test_one_in_the_future_is_not_believed(self, server, tmp_path, state, caplog):
        kb = str(tmp_path / "kb.lance")
        values = ["2026-01-01T10:00:00Z", "2026-01-02T10:00:00Z"]
        ingest(api(server, "iso", values[:1]), kb, embed_dim=4)
        connector = api(server, "iso", values)
        (one,) = connector.partitions(resume_from={"times": {"cursor": state}})
        assert one.params.since is None and one.params.reached is None
        assert "lies in the future" in caplog.text

    def test_one_of_an_earlier_release_that_is_no_time_is_not_believed(self, server, caplog):
        connector = api(server, "iso", [])
        (one,) = connector.partitions(resume_from={"times": {"cursor": "12/31/2025"}})
        assert one.params.since is None
        assert "is not a number, and not a time that can be read in only one way" in caplog.text

    @pytest.mark.sample(3)
    @pytest.mark.parametrize("form", FORMS)
    def test_a_record_of_the_future_is_none(self, server, tmp_path, form):
        kb = str(tmp_path / "kb.lance")
        values = values_in(form, MORNING, datetime(2098, 1, 1, tzinfo=UTC), MORNING + DAY)
        ingest(api(server, form, values[:2], told=False), kb, embed_dim=4)
        assert state_of(kb) == {"times": {"cursor": values[0]}}
        ingest(api(server, form, values, told=False), kb)
        assert stored(kb) == {"0", "1", "2"}

    def test_slices_without_anything_new_keep_it(self, server, tmp_path):
        kb = str(tmp_path / "kb.lance")
        values = values_in("iso", MORNING, MORNING + DAY)
        more = {"start": values[0], "slice": "5d"}
        for _ in range(3):
            ingest(api(server, "iso", values, **more), kb, embed_dim=4)
            assert state_of(kb) == {"times": {"cursor": values[1]}}
        ingest(api(server, "iso", [], **more), kb)
        assert state_of(kb) == {"times": {"cursor": values[1]}}

    @pytest.mark.sample(2)
    @pytest.mark.parametrize("every", [None, "1", "2"])
    def test_a_record_that_shows_late_is_read_by_the_next_run_with_slices(
        self, server, tmp_path, every
    ):
        """As when our clock is ahead of the API's."""
        kb = str(tmp_path / "kb.lance")
        now = datetime.now(UTC).replace(microsecond=0)
        values = values_in("iso", *(now - timedelta(hours=hours) for hours in (25, 1)))
        late = values_in("iso", now - timedelta(minutes=9))
        start = values_in("iso", now - timedelta(hours=48))[0]
        more = {"start": start, "slice": "1d"}
        ingest(api(server, "iso", values, **more), kb, embed_dim=4, commit_every=every)
        assert state_of(kb) == {"times": {"cursor": values[1]}}
        receipt = ingest(api(server, "iso", values + late, **more), kb, commit_every=every)
        assert (receipt.rows_written, receipt.rows_unchanged) == (1, 1)

    def test_slices_that_were_not_all_read_are_no_state(self, server, tmp_path):
        kb = str(tmp_path / "kb.lance")
        values = values_in("iso", MORNING, MORNING + DAY)
        more = {"start": values[0], "slice": "5d"}
        ingest(api(server, "iso", values, **more), kb, embed_dim=4, sync_kwargs={"max_items": 1})
        assert state_of(kb) == {}


recent = st.datetimes(datetime(1980, 1, 1), datetime(2098, 1, 1)).map(
    lambda time: time.replace(tzinfo=UTC)
)
likes = st.sampled_from([one for one in VALUES if not parse(one).form.ends])


@given(st.lists(recent, min_size=1, max_size=5), likes, recent, likes)
def test_nothing_that_is_newer_than_the_state_is_left_out(times, like, later, unlike):
    now = max(times)
    values = [write(instant_of(time), parse(like).form) for time in times]
    state = newest_cursor([{"at": one} for one in values], "at", began=now)
    if state is None:
        return
    assert state in values
    new = write(instant_of(later), parse(unlike).form)
    if instant_of(later) >= parse(state).at:
        assert not is_before(new, state)
    settings = Incremental(field="at", lookback="90m")
    assert parse(request_value(state, settings)).at <= parse(state).at
    assert parse(resumed(state, settings)).at <= parse(state).at


@given(recent, likes, st.sampled_from([None, "iso", "date", "epoch", "epoch_ms", "%Y/%m/%d"]))
def test_the_ends_of_a_range_hold_it(time, like, format):
    settings = Incremental(field="at", format=format)
    ends = [bound(time, settings, like, is_end=is_end) for is_end in (False, True)]
    begin, end = (parse(one, format) for one in ends)
    if begin is not None and end is not None:  # or an hour that clocks show twice
        assert begin.at < instant_of(time) < end.at
    written = write(instant_of(time), parse(like).form)
    since = (time - timedelta(seconds=1)).isoformat()
    assert within(written, None, (time + timedelta(seconds=1)).isoformat())
    assert within(written, since, None)


@given(recent, likes, st.integers(30, 400), st.sampled_from([None, "iso", "date", "epoch"]))
def test_slices_hold_all_the_time_in_every_form(start, like, days, format):
    first = write(instant_of(start), parse(like).form)
    if parse(first) is None:
        return
    settings = Incremental(field="at", start=first, slice=f"{days}d", format=format)
    now = start + timedelta(days=1000)
    found = list(slices(settings, first, now))
    ends = [(parse(one.since), parse(one.until)) for one in found]
    if all(begin is not None and end is not None for begin, end in ends):
        assert ends[0][0].at <= instant_of(start) and ends[-1][1].at >= instant_of(now)
        assert all(one[1].at > other[0].at for one, other in pairwise(ends))
    assert Fraction(len(found)) <= 1000 // days + 2
