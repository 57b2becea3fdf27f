"""What is known of a source adds up, whatever the order in which its parts arrive."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam.connectors.page import DeadLetter, Page, SourceInfo, Tally
from contextframe_beam.frames.place import Window
from contextframe_beam.store.runs import StateChange

SOURCE = SourceInfo("0" * 16, "documents")

counts = st.integers(0, 100)
reasons = st.sets(st.sampled_from("abc"))
tallies = st.builds(
    Tally,
    source=st.just(SOURCE) | st.none(),
    read=counts,
    planned=counts,
    finished=counts,
    partitions=st.dictionaries(st.sampled_from("pqr"), st.just({"at": 1})),
    narrowed=reasons,
    partial=reasons,
    unread=reasons,
    may_slip=st.booleans(),
    unsure=st.dictionaries(st.sampled_from("pq"), st.integers(1, 9)),
    windows=st.sets(st.tuples(st.just("p"), st.builds(Window, st.sampled_from("ab")))),
    unchanged=counts,
    unchanged_rows=st.lists(st.binary(max_size=2), max_size=2),
    recognised_rows=st.lists(st.binary(max_size=2), max_size=2),
    readers=st.dictionaries(st.sampled_from([None, (), ("anyone",)]), st.binary(max_size=2)),
    collections=st.dictionaries(st.sampled_from(["", "a/b"]), st.binary(max_size=2)),
    stale=st.lists(st.binary(max_size=2), max_size=2),
    doubtful=st.lists(st.binary(max_size=2), max_size=2),
    documents=counts,
    texts_embedded=counts,
)


@given(tallies, tallies, tallies)
def test_a_sum_does_not_depend_on_how_its_parts_were_put_together(one, two, three):
    assert (one + two) + three == one + (two + three)
    assert one + Tally() == Tally() + one == one


@given(tallies, tallies)
def test_adding_changes_neither_part(one, two):
    before = repr((one, two))
    total = one + two
    total += one
    assert repr((one, two)) == before


TOLD = {
    "source": SOURCE,
    "partitions": {"p": {"at": 1}},
    "change": StateChange(whole=True),
    "narrowed": {"a limit"},
    "partial": {"a page is missing"},
    "unread": {"a channel is hidden"},
    "may_slip": True,
    "unchanged_rows": [b"1"],
    "recognised_rows": [b"1"],
    "readers": {("user:ana@example.com",): b"1"},
    "collections": {"a/b": b"1"},
    "stale": [b"1"],
    "doubtful": [b"1"],
    "unsure": {"p": 1},
    "windows": {("p", Window("c", 1, 2))},
}


@pytest.mark.parametrize("name", [field.name for field in fields(Tally)])
def test_nothing_that_a_part_tells_is_lost_in_a_sum(name):
    told = Tally(**{name: TOLD.get(name, 1)})
    assert told != Tally()
    assert Tally() + told == told + Tally() == told


def test_the_last_that_was_said_about_the_whole_state_holds():
    first, last = (Tally(change=StateChange(continues=run)) for run in ("run-1", "run-2"))
    assert (first + Tally() + last + Tally()).change.continues == "run-2"


def test_a_page_tells_what_its_author_and_its_reader_said():
    failed = DeadLetter.of("read", OSError("gone"), 1, "c", "p", "0")
    page = Page(
        [1, 2],
        partition="p",
        source=SOURCE,
        failures=[failed],
        state={"at": 1},
        finished=1,
        narrowed="a limit",
        partial="a page is missing",
        unread=("a channel is hidden",),
        windows=[Window("c", 1, 2)],
        may_slip=True,
    )
    assert page.tally == Tally(
        SOURCE,
        read=3,
        finished=1,
        partitions={"p": {"at": 1}},
        narrowed={"a limit"},
        partial={"a page is missing"},
        unread={"a channel is hidden"},
        windows={("p", Window("c", 1, 2))},
        may_slip=True,
    )
    assert Page([]).tally == Tally()
