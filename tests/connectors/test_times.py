"""Times as sources write them: what a value says, and that it can be written just so again."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from email.utils import format_datetime, parsedate_to_datetime
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam.frames.times import (
    Time,
    datetime_of,
    form_named,
    instant_of,
    parse,
    when,
    write,
)
from contextframe_beam.frames.zones import EPOCH, offset_of

UTC = timezone.utc

#: One value of each shape, with the instant that it says.
SHAPES: list[tuple[Any, str]] = [
    # ISO 8601, extended and basic.
    ("2026-01-05T15:04:05Z", "2026-01-05T15:04:05Z"),
    ("2026-01-05t15:04:05z", "2026-01-05T15:04:05Z"),
    ("2026-01-05T15:04:05", "2026-01-05T15:04:05Z"),
    ("2026-01-05T15:04", "2026-01-05T15:04:00Z"),
    ("2026-01-05T15", "2026-01-05T15:00:00Z"),
    ("2026-01-05T15:04.5Z", "2026-01-05T15:04:30Z"),
    ("2026-01-05T15:04:05.1Z", "2026-01-05T15:04:05.100000Z"),
    ("2026-01-05T15:04:05,123Z", "2026-01-05T15:04:05.123000Z"),
    ("2026-01-05T15:04:05.123456789+01:00", "2026-01-05T14:04:05.123456Z"),
    ("2026-01-05T15:04:05+01", "2026-01-05T14:04:05Z"),
    ("2026-01-05T15:04:05-0330", "2026-01-05T18:34:05Z"),
    ("2026-01-05T15:04:05-00:00", "2026-01-05T15:04:05Z"),
    ("2026-01-05T24:00:00Z", "2026-01-06T00:00:00Z"),
    ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
    ("2016-12-31T18:59:60-05:00", "2017-01-01T00:00:00Z"),
    ("20260105T150405Z", "2026-01-05T15:04:05Z"),
    ("20260105T1504", "2026-01-05T15:04:00Z"),
    ("20260105150405", "2026-01-05T15:04:05Z"),
    ("20260105150405.25Z", "2026-01-05T15:04:05.250000Z"),
    ("2026-W02-1T15:04:05Z", "2026-01-05T15:04:05Z"),
    ("2026W021", "2026-01-05T00:00:00Z"),
    ("2026-W02", "2026-01-05T00:00:00Z"),
    ("2026-005T15:04:05Z", "2026-01-05T15:04:05Z"),
    ("2026-01", "2026-01-01T00:00:00Z"),
    # A space, names of zones, places.
    ("2026-01-05 15:04:05", "2026-01-05T15:04:05Z"),
    ("2026-01-05 15:04:05 UTC", "2026-01-05T15:04:05Z"),
    ("2026-01-05 15:04:05 GMT", "2026-01-05T15:04:05Z"),
    ("2026-01-05 15:04:05.5 +0100", "2026-01-05T14:04:05.500000Z"),
    ("2026-01-05 15:04:05 CET", "2026-01-05T14:04:05Z"),
    ("2026-01-05 15:04:05 PST", "2026-01-05T23:04:05Z"),
    ("2026-01-05 15:04:05.123 +0100 CET", "2026-01-05T14:04:05.123000Z"),
    ("2026-01-05 15:04 GMT+1", "2026-01-05T14:04:00Z"),
    ("2026-07-05 15:04:05 Europe/Berlin", "2026-07-05T13:04:05Z"),
    ("2026-01-05T15:04:05+01:00[Europe/Berlin]", "2026-01-05T14:04:05Z"),
    ("2026-07-05T15:04:05[America/New_York]", "2026-07-05T19:04:05Z"),
    ("2026-01-05T15:04:05Z[UTC]", "2026-01-05T15:04:05Z"),
    ("2026-01-05T15:04:05Z[Europe/Berlin]", "2026-01-05T15:04:05Z"),
    # AM and PM, slashes and dots with the year first.
    ("2026-01-05 03:04:05 PM", "2026-01-05T15:04:05Z"),
    ("2026-01-05 12:04 am", "2026-01-05T00:04:00Z"),
    ("2026-01-05 3:04:05PM +01:00", "2026-01-05T14:04:05Z"),
    ("2026/01/05", "2026-01-05T00:00:00Z"),
    ("2026/1/5 9:04", "2026-01-05T09:04:00Z"),
    ("2026/01/05 15:04:05 +0000", "2026-01-05T15:04:05Z"),
    ("2026.01.05", "2026-01-05T00:00:00Z"),
    # RFC 2822 and what else names the month.
    ("Mon, 05 Jan 2026 15:04:05 GMT", "2026-01-05T15:04:05Z"),
    ("Mon, 5 Jan 2026 15:04:05 -0800", "2026-01-05T23:04:05Z"),
    ("5 Jan 2026 15:04 EST", "2026-01-05T20:04:00Z"),
    ("Mon, 05 Jan 2026 15:04:05 +0000 (UTC)", "2026-01-05T15:04:05Z"),
    ("Mon Jan  5 15:04:05 2026", "2026-01-05T15:04:05Z"),
    ("Mon Jan 05 15:04:05 +0000 2026", "2026-01-05T15:04:05Z"),
    ("Mon Jan 05 2026 15:04:05 GMT+0100 (Central European Standard Time)", "2026-01-05T14:04:05Z"),
    ("January 5, 2026", "2026-01-05T00:00:00Z"),
    ("05-Jan-2026 15:04:05", "2026-01-05T15:04:05Z"),
    # Dates alone.
    ("2026-01-05", "2026-01-05T00:00:00Z"),
    ("20260105", "2026-01-05T00:00:00Z"),
    ("2026-01-05+01:00", "2026-01-04T23:00:00Z"),
    # Numbers, and texts of them.
    (1767625445, "2026-01-05T15:04:05Z"),
    ("1767625445", "2026-01-05T15:04:05Z"),
    (1767625445.25, "2026-01-05T15:04:05.250000Z"),
    ("1767625445.000100", "2026-01-05T15:04:05.000100Z"),
    (1767625445123, "2026-01-05T15:04:05.123000Z"),
    ("1767625445123", "2026-01-05T15:04:05.123000Z"),
    ("1767625445123.5", "2026-01-05T15:04:05.123500Z"),
    (1767625445123456, "2026-01-05T15:04:05.123456Z"),
    ("1767625445123456", "2026-01-05T15:04:05.123456Z"),
    (0, "1970-01-01T00:00:00Z"),
    # The zero time, and the last one.
    ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
    ("0001-01-01T00:00:00", "0001-01-01T00:00:00Z"),
    (-62135596800, "0001-01-01T00:00:00Z"),
    (-62135596800000, "0001-01-01T00:00:00Z"),
    ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
]
VALUES = [value for value, _ in SHAPES]

#: What is no time, or could be two.
UNKNOWN = [
    *("1/2/2026", "01/02/2026", "31/12/2025", "12/31/2025", "1.2.2026", "01-02-2026", "1/2/26"),
    *("2026-13-01", "2026-02-30", "2026-01-05T25:00:00Z", "2026-01-05T10:60:00Z", "2026-W54-1"),
    *("2026-01-05 15:04 IST", "2026-01-05 15:04 CST", "2026-01-05T10:00:00 Europe/Nowhere"),
    *("2026-01-05T10:00:00+05:00[Europe/Berlin]", "2026-10-25T02:30:00[Europe/Berlin]"),
    *("2026-03-29T02:30:00[Europe/Berlin]", "Tue, 05 Jan 2026 15:04:05 GMT", "2026-367"),
    *("0000-00-00 00:00:00", "0000-00-00", "never", "", " ", "N/A", "2026", "12:00", "v1.2.3"),
    *("2026-01-05T10:00:00Z and more", "2026-01-05garbage", "13:00 PM", "2026-01-05 13:00 PM"),
    *(5, "99", 20260105, 99_999_999_999, 10**30, 1e300, float("nan"), float("inf"), True, None),
    *(
        [],
        {},
        "2026-01-05" + " " * 200,
        "01HV5Z7W6M",
        "\u0661\u0662/\u0661",
        "2026-01-05T10:00:00+99:00",
    ),
]


@pytest.mark.parametrize(("value", "at"), SHAPES, ids=repr)
def test_a_value_says_an_instant(value, at):
    assert when(value) == datetime.fromisoformat(at.replace("Z", "+00:00"))


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_is_written_back_as_it_was(value):
    time = parse(value)
    back = write(time.at, time.form)
    assert (back, type(back)) == (value, type(value))


@pytest.mark.parametrize("value", UNKNOWN, ids=repr)
def test_what_is_no_time_or_could_be_two_is_not_read(value):
    assert parse(value) is None


instants = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(
    lambda time: time.replace(tzinfo=UTC)
)
recent = st.datetimes(datetime(1975, 1, 1), datetime(2099, 1, 1)).map(
    lambda time: time.replace(tzinfo=UTC)
)
offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(recent, st.sampled_from(VALUES))
def test_any_instant_is_written_in_any_form_and_read_as_it_was_written(time, like):
    form = parse(like).form if not parse(like).form.ends else parse(VALUES[0]).form
    written = write(instant_of(time), form)
    again = parse(written)
    if again is None:  # an hour that the clocks of a place show twice
        assert "/" in str(like) or "[" in str(like)
        return
    assert write(again.at, again.form) == written
    assert 0 <= instant_of(time) - again.at < again.form.step
    up = parse(write(instant_of(time), form, up=True))
    assert up is None or 0 <= up.at - instant_of(time) < 2 * up.form.step


@given(instants, offsets, st.sampled_from("T "), st.integers(0, 6))
def test_iso_8601_is_read_as_python_reads_it(time, zone, between, digits):
    try:
        local = time.astimezone(zone)
    except OverflowError:
        return
    text = local.isoformat(between, "microseconds")
    text = text[:19] + (f".{text[20 : 20 + digits]}" if digits else "") + text[26:]
    found = parse(text)
    assert write(found.at, found.form) == text
    assert 0 <= instant_of(time) - found.at < found.form.step


@given(recent, offsets)
def test_mail_dates_are_read_as_the_standard_library_reads_them(time, zone):
    text = format_datetime(time.replace(microsecond=0).astimezone(zone))
    assert when(text) == parsedate_to_datetime(text)
    assert write(parse(text).at, parse(text).form) == text


@given(recent, st.sampled_from([1, 1000, 10**6]), st.integers(0, 9), st.booleans())
def test_numbers_come_back_with_all_their_digits(time, unit, digits, is_text):
    number = instant_of(time) * unit * 10**digits // 1
    text = f"{number // 10**digits}" + (f".{number % 10**digits:0{digits}}" if digits else "")
    value: Any = text if is_text else float(text) if digits else int(text)
    found = parse(value)
    back = write(found.at, found.form)
    assert (back, type(back)) == (value, type(value))
    assert found.at * unit == Fraction(text if is_text else repr(value))


@given(recent, recent, st.sampled_from(VALUES), st.sampled_from(VALUES))
def test_values_of_all_forms_are_ordered_by_their_instants(one, other, like, unlike):
    forms = [parse(like).form, parse(unlike).form]
    written = [write(instant_of(at), form) for at, form in zip((one, other), forms, strict=True)]
    first, second = map(parse, written)
    if first is None or second is None or forms[0].ends or forms[1].ends:
        return
    if first.at + first.form.step <= second.at:
        assert one < other
    if second.at + second.form.step <= first.at:
        assert other < one


places = st.sampled_from(["Europe/Berlin", "America/St_Johns", "Asia/Kolkata", "Pacific/Chatham"])


@given(recent, places)
def test_a_place_gives_the_offset_of_the_day(time, place):
    local = time.replace(microsecond=0).astimezone(ZoneInfo(place))
    text = f"{local.isoformat()}[{place}]"
    assert when(text) == local
    half_a_year = parse(text).moved(Fraction(183 * 86400))
    expected = (time.replace(microsecond=0) + timedelta(days=183)).astimezone(ZoneInfo(place))
    assert write(half_a_year.at, half_a_year.form) == f"{expected.isoformat()}[{place}]"


@pytest.mark.parametrize(
    ("pattern", "value", "at"),
    [
        ("%d/%m/%Y", "1/2/2026", "2026-02-01"),
        ("%m/%d/%Y", "01/02/2026", "2026-01-02"),
        ("%d.%m.%Y %H:%M", "31.12.2025 10:05", "2025-12-31T10:05"),
        ("%m/%d/%y", "01/02/26", "2026-01-02"),
        ("%y%m%d", "260105", "2026-01-05"),
        ("%b %e %Y %I:%M%p", "Jan  5 2026 03:04PM", "2026-01-05T15:04"),
        ("%d/%m/%Y %T %z", "05/01/2026 10:00:00 +0100", "2026-01-05T09:00"),
        ("%A %d %B %Y", "Monday 05 January 2026", "2026-01-05"),
        ("%d/%m/%Y %H:%M:%S.%f", "05/01/2026 10:00:00.5", "2026-01-05T10:00:00.500000"),
        ("%Y-%m-%d", "2026-01-05T10:00:00Z", "2026-01-05T10:00"),  # as if nothing were stated
        ("epoch", 86400, "1970-01-02"),
        ("epoch", "20260105", "1970-08-23T11:48:25"),
        ("epoch_ns", "1767225600000000001", "2026-01-01"),
        ("epoch_ms", "253402300799000", "9999-12-31T23:59:59"),
    ],
)
def test_what_is_stated_decides(pattern, value, at):
    time = parse(value, pattern)
    assert datetime_of(time.at) == datetime.fromisoformat(at).replace(tzinfo=UTC)
    assert write(time.at, time.form) == value


@given(recent, st.sampled_from(["%d/%m/%Y %H:%M", "%m/%d/%Y %I:%M:%S %p", "%d.%m.%y", "%Y%j"]))
def test_a_stated_pattern_is_written_as_python_writes_it(time, pattern):
    written = write(instant_of(time), form_named(pattern, Fraction()))
    assert written == time.strftime(pattern)
    read = parse(written, pattern)
    assert write(read.at, read.form) == written


@pytest.mark.parametrize("pattern", ["%q", "%c", "%d/%d/%Y"])
def test_a_pattern_that_is_not_known_is_refused(pattern):
    with pytest.raises(ValueError, match="%"):
        form_named(pattern, Fraction())


@pytest.mark.parametrize("value", ["0001-01-01T00:00:00Z", -62135596800, "0001-01-01"])
def test_before_the_zero_time_there_is_only_it(value):
    before = parse(value).moved(Fraction(-86400 * 400))
    assert datetime_of(before.at) == datetime.min.replace(tzinfo=UTC)
    if isinstance(value, str):
        assert write(before.at, before.form) == value


def test_a_moment_after_a_leap_second_is_an_ordinary_one():
    leap = parse("2016-12-31T23:59:60Z")
    assert parse("2016-12-31T23:59:59Z").at < leap.at <= parse("2017-01-01T00:00:00Z").at
    hour_before: Time = leap.moved(Fraction(-3600))
    assert write(hour_before.at, hour_before.form) == "2016-12-31T23:00:00Z"


@given(st.dates(date(2, 1, 1), date(9998, 1, 1)), places)
def test_the_offset_of_a_place_is_known_in_every_year(day, place):
    at = instant_of(datetime(day.year, day.month, day.day, tzinfo=UTC))
    assert abs(offset_of(at, ZoneInfo(place))) < 86400
    assert datetime(1970, 1, 1, tzinfo=UTC) == EPOCH
