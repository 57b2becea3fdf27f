"""Messages become documents by message, thread, conversation and day, however their pages fall."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam.connectors.conversations import (
    DOCUMENTS,
    Documents,
    Gathered,
    Said,
    changed_at,
    metadata_of,
    point_of_time,
    time_of,
    title_in,
    transcript,
    version_of,
)
from contextframe_beam.errors import ConfigError

DAY = 86400
#: 2026-01-05, midnight in UTC.
MONDAY = Decimal(1_767_571_200)


def at(hours: int, minutes: int = 0, seconds: str = "0") -> Decimal:
    """Returns a point on that Monday."""
    return MONDAY + hours * 3600 + minutes * 60 + Decimal(seconds)


def itself(point: Decimal) -> Decimal:
    return point


class TestBorders:
    @pytest.mark.parametrize(
        ("kind", "points", "sizes"),
        [
            ("message", [at(8), at(8, 1)], [1, 1]),
            ("thread", [at(8), at(8, 1)], [1, 1]),
            ("conversation", [at(8), at(8, 29), at(8, 58)], [3]),
            ("conversation", [at(8), at(8, 30)], [1, 1]),
            ("conversation", [at(8), at(8, 29, "59.999999")], [2]),
            ("conversation", [at(23, 59), at(24, 1)], [1, 1]),
            ("day", [at(0), at(23, 59), at(24)], [2, 1]),
            ("day", [at(8, 0, "0.000001"), at(8, 0, "0.000002")], [2]),
            ("day", [], []),
        ],
    )
    def test_messages_are_cut_by_kind(self, kind, points, sizes):
        assert [len(one) for one in Documents(kind).cut(reversed(points), itself)] == sizes

    def test_days_are_those_of_the_zone(self) -> None:
        berlin = Documents("day", time_zone="Europe/Berlin")
        assert [len(one) for one in berlin.cut([at(22, 59), at(23), at(24)], itself)] == [1, 2]
        assert berlin.begin_of(at(24)) == at(23)
        # The day on which clocks go forward has 23 hours.
        forward = point_of_time(time_of(at(8)).replace(month=3, day=29, hour=12))
        assert berlin.begin_of(forward + DAY) - berlin.begin_of(forward) == 23 * 3600

    @pytest.mark.parametrize(
        ("kind", "name"), [("thread", "m1"), ("conversation", "m1"), ("day", "2026-01-05")]
    )
    def test_a_document_is_named_by_its_first_message_or_its_day(self, kind, name):
        assert Documents(kind).name_of("m1", at(8)) == name

    @pytest.mark.parametrize(
        ("settings", "reason"),
        [
            ({"kind": "threads"}, "did you mean"),
            ({"kind": "hour"}, "one of message, thread, conversation, day"),
            ({"kind": "day", "time_zone": "Mars/Base"}, "no zone"),
            ({"kind": "day", "time_zone": "../etc"}, "no zone"),
            ({"kind": "conversation", "gap": "soon"}, "gap"),
        ],
    )
    def test_settings_without_sense_are_refused(self, settings, reason):
        with pytest.raises(ConfigError, match=reason):
            Documents(**settings)


@given(
    kind=st.sampled_from(DOCUMENTS),
    seconds=st.lists(st.integers(0, 4 * DAY), unique=True, max_size=40),
    size=st.integers(1, 7),
    newest_first=st.booleans(),
)
def test_pages_of_any_size_and_direction_give_the_same_documents(kind, seconds, size, newest_first):
    documents = Documents(kind)
    points = sorted((MONDAY + one for one in seconds), reverse=newest_first)
    gathered = Gathered(documents, itself, newest_first)
    found = [
        group
        for start in range(0, len(points), size)
        for group in gathered.add(reversed(points[start : start + size]))
    ]
    assert sorted([*found, *gathered.rest()]) == documents.cut(points, itself)


@given(
    kind=st.sampled_from(DOCUMENTS),
    seconds=st.lists(st.integers(0, 4 * DAY), unique=True, max_size=40),
    start=st.integers(0, 4 * DAY),
)
def test_a_later_run_that_reads_from_a_border_finds_the_same_documents(kind, seconds, start):
    documents = Documents(kind)
    points = [MONDAY + one for one in seconds]
    border = documents.begin_of(MONDAY + start)
    later = documents.cut([one for one in points if one >= border], itself)
    assert later == [one for one in documents.cut(points, itself) if one[0] >= border]


class TestText:
    def test_a_message_alone_is_its_text(self) -> None:
        assert transcript([Said(at(8), "Ada", "Hello")], Documents("thread")) == "Hello"

    def test_a_thread_is_its_messages_in_order(self) -> None:
        replies = (Said(at(9), "Bob", "- one\n- two"), Said(at(10), "", ""))
        thread = Said(at(8), "Ada", "What?", replies=replies)
        assert transcript([thread], Documents("thread")) == (
            "**Ada** (2026-01-05 08:00): What?\n\n"
            "**Bob** (2026-01-05 09:00):\n\n- one\n- two\n\n"
            "**Somebody** (2026-01-05 10:00):"
        )

    def test_replies_stand_below_their_message_where_there_are_several(self) -> None:
        first = Said(at(8), "Ada", "What?", replies=(Said(at(9), "Bob", "This\n\nand that"),))
        second = Said(at(8, 5), "Cem", "Hi")
        assert transcript([first, second], Documents("day", time_zone="Europe/Berlin")) == (
            "**Ada** (2026-01-05 09:00): What?\n\n"
            "> **Bob** (2026-01-05 10:00): This\n>\n> and that\n\n"
            "**Cem** (2026-01-05 09:05): Hi"
        )

    @pytest.mark.parametrize(
        ("text", "title"),
        [
            ("# Plan\n\nText", "Plan"),
            ("\n> *q*, `a_b` and [a link](https://x.test)", "q, a_b and a link"),
            ("```\ncode\n```", "code"),
            ("word " * 30, "word " * 15 + "word..."),
            ("x" * 100, "x" * 80 + "..."),
            ("", "#general"),
            ("---", "#general"),
        ],
    )
    def test_a_title_is_the_first_words(self, text, title):
        assert title_in(text, "#general") == title


class TestMetadata:
    def test_who_took_part_and_when_it_changed(self) -> None:
        reply = Said(at(9), "Bob", "b", changed=at(12))
        both = [Said(at(8), "Ada", "a", replies=(reply,)), Said(at(10), "Ada", "c")]
        assert metadata_of(both) == {
            "author": "Ada",
            "created_at": "2026-01-05T08:00:00+00:00",
            "participants": ["Ada", "Bob"],
            "message_count": 3,
        }
        assert changed_at(both) == "2026-01-05T12:00:00+00:00"

    def test_one_message_has_an_author_and_a_time(self) -> None:
        one = [Said(at(8, 0, "0.000001"), "Ada", "a")]
        assert metadata_of(one) == {
            "author": "Ada",
            "created_at": "2026-01-05T08:00:00.000001+00:00",
        }

    def test_without_messages_nothing_is_told(self) -> None:
        assert (metadata_of([]), changed_at([])) == ({}, None)

    def test_a_version_differs_with_its_content_alone(self) -> None:
        assert version_of({"a": 1, "b": [2]}) == version_of({"b": [2], "a": 1})
        assert version_of("a", "b") != version_of("ab")


@given(st.integers(0, 4_000_000_000), st.integers(0, 999_999))
def test_a_point_is_a_time_to_its_sixth_decimal(seconds, micro):
    point = Decimal(f"{seconds}.{micro:06}")
    assert point_of_time(time_of(point)) == point
