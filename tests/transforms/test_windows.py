"""What a stretch of a source no longer holds goes in the same commit, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.connectors import DocumentVersion, PaginatedConnector
from contextframe_beam.connectors.page import Page, Partition, Tally
from contextframe_beam.errors import TooManyDeletes
from contextframe_beam.frames.place import Place, Window, point_of
from contextframe_beam.frames.record import uuid_of
from contextframe_beam.frames.schema import POINT
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.transforms.commit import commit_run
from contextframe_beam.transforms.windows import Held
from tests.support.chunked import chunked, chunks_in
from tests.support.laws import examples
from tests.support.pipeline_helpers import (
    EVERY_WAY,
    OTHER,
    SOURCE,
    begin,
    commit,
    document,
    ids_in,
    run,
    write,
)

ROOM = "room"


def at(point: Any, partition: str = ROOM, text: str = "", name: Any = None) -> FrameRecord:
    """Returns the document that lies at a point of a part."""
    name = point if name is None else name
    return document(name, f"text of {name}{text}", place=Place(partition, point))


def told(*windows: Window, partition: str = "all", **more: Any) -> Tally:
    return Tally(SOURCE, windows={(partition, one) for one in windows}, **more)


def key(name: Any) -> bytes:
    return bytes.fromhex(uuid_of(f"doc:{name}").replace("-", ""))


class TestCommits:
    def test_what_is_gone_from_a_window_goes(self, kb):
        commit(kb, *map(at, range(6)), run_id="1")
        receipt = commit(kb, at(2), run_id="2", tally=told(Window(ROOM, 1, 4)), max_deletes=9)
        assert ids_in(kb) == ["0", "2", "5"]
        assert (receipt.rows_deleted, receipt.rows_unchanged, receipt.kept) == (3, 1, "")

    def test_other_parts_and_rows_without_a_place_stay(self, kb):
        commit(kb, at(1), at(1, "hall", name="h"), document("old"), run_id="1")
        commit(kb, run_id="2", tally=told(Window(ROOM)), max_deletes=9)
        assert ids_in(kb) == ["h", "old"]

    def test_another_source_keeps_its_rows_of_a_part_with_the_same_name(self, kb):
        commit(kb, at(1), run_id="1")
        commit(kb, at(2), run_id="2", source=OTHER)
        commit(kb, run_id="3", tally=told(Window(ROOM)), max_deletes=9)
        assert ids_in(kb) == ["2"]

    def test_a_row_that_another_source_took_over_is_no_longer_ours(self, kb):
        commit(kb, at(1), run_id="1")
        commit(kb, at(1), run_id="2", source=OTHER)
        commit(kb, run_id="3", tally=told(Window(ROOM)), max_deletes=9)
        assert ids_in(kb) == ["1"]

    def test_windows_that_overlap_or_lie_apart_hold_what_any_of_them_holds(self, kb):
        commit(kb, *map(at, range(10)), run_id="1")
        windows = [Window(ROOM, None, 1), Window(ROOM, 4, 5), Window(ROOM, 5, 6), Window(ROOM, 9)]
        commit(kb, run_id="2", tally=told(*windows, Window("hall")), max_deletes=9)
        assert ids_in(kb) == ["2", "3", "7", "8"]

    def test_a_row_that_moved_is_met_wherever_it_is(self, kb):
        commit(kb, at(1), at(2), run_id="1")
        moved = at(1, "hall")
        receipt = commit(kb, moved, run_id="2", tally=told(Window(ROOM)), max_deletes=9)
        assert (ids_in(kb), receipt.rows_replaced) == (["1"], 1)
        # From now on it belongs to its new part, although only its place is new.
        commit(kb, run_id="3", tally=told(Window(ROOM)), max_deletes=9)
        assert ids_in(kb) == ["1"]
        commit(kb, run_id="4", tally=told(Window("hall")), max_deletes="100%")
        assert ids_in(kb) == []

    def test_points_are_exact(self, kb):
        many = 2**64
        commit(kb, at(many), at(many + 1), at("1712345678.123456"), run_id="1")
        windows = [Window(ROOM, many + 1), Window(ROOM, 0, "1712345678.123455")]
        commit(kb, run_id="2", tally=told(*windows), max_deletes=9)
        assert ids_in(kb) == ["1712345678.123456", str(many)]

    def test_the_brake_counts_them(self, kb):
        commit(kb, *map(at, range(30)), run_id="1")
        with pytest.raises(TooManyDeletes, match="would delete 20 of the 30"):
            commit(kb, run_id="2", tally=told(Window(ROOM, 10)))
        assert len(ids_in(kb)) == 30

    def test_chunks_go_with_their_document(self, kb):
        for number, place in enumerate([Place(ROOM, 1), Place(ROOM, 2), None]):
            commit(kb, *chunked(number, 3, place=place), run_id=f"of {number}")
        commit(kb, run_id="2", tally=told(Window(ROOM, 2)), max_deletes=9)
        assert chunks_in(kb) == {"0": 3, "2": 3}

    def test_an_append_deletes_nothing(self, kb):
        commit(kb, at(1), run_id="1")
        commit(kb, at(2), run_id="2", mode="append", tally=told(Window(ROOM)))
        assert ids_in(kb) == ["1", "2"]

    def test_a_mirror_that_reads_changes_only_deletes_within_windows(self, kb):
        commit(kb, *map(at, range(4)), run_id="1")
        receipt = commit(
            kb, mode="mirror", narrowed="changes", tally=told(Window(ROOM, 3)), max_deletes=9
        )
        assert (ids_in(kb), receipt.rows_deleted) == (["0", "1", "2"], 1)

    def test_a_run_that_is_done_again_deletes_once(self, kb):
        commit(kb, at(1), at(2), run_id="1")
        window = told(Window(ROOM, 2))
        first, second = (commit(kb, run_id="2", tally=window, max_deletes=9) for _ in range(2))
        assert (first.rows_deleted, second.already_committed) == (1, True)
        assert ids_in(kb) == ["1"]

    def test_another_sources_commit_in_between_changes_nothing_of_it(self, kb):
        """The commit decides from the newest version, whose rows lie at other addresses."""
        commit(kb, *map(at, range(5)), run_id="1")
        late = begin(kb, "late", max_deletes=9)
        written = write(late, at(2), tally=told(Window(ROOM, 1, 3)))
        commit(kb, at(9), run_id="other", source=OTHER)
        lance.dataset(str(kb)).optimize.compact_files(target_rows_per_fragment=1_000_000)
        receipt = commit_run(late, written)
        assert ids_in(kb) == ["0", "2", "4", "9"]
        assert (receipt.rows_deleted, receipt.rows_unchanged) == (2, 1)

    def test_a_dataset_of_an_earlier_release_takes_the_columns_on(self, kb):
        commit(kb, document("old"), run_id="1")
        FrameDataset.open(str(kb)).lance.drop_columns(["x_partition", "x_point"])
        commit(kb, at(1), run_id="2", tally=told(Window(ROOM)))
        commit(kb, run_id="3", tally=told(Window(ROOM)), max_deletes=9)
        assert ids_in(kb) == ["old"]


class TestDoubt:
    def test_of_a_partial_run_no_window_counts(self, kb):
        commit(kb, at(1), run_id="1")
        receipt = commit(kb, run_id="2", partial="cut off", tally=told(Window(ROOM)))
        assert (ids_in(kb), receipt.rows_deleted) == (["1"], 0)
        assert receipt.kept == "what was read may not be all of the source"

    def test_a_part_that_could_not_be_read_takes_nothing_from_other_windows(self, kb):
        commit(kb, at(1), run_id="1")
        commit(kb, run_id="2", tally=told(Window(ROOM), unread={"hall: 403"}), max_deletes=9)
        assert ids_in(kb) == []

    def test_where_pages_may_slip_it_goes_when_two_runs_miss_it(self, kb):
        commit(kb, at(1), at(2), run_id="1")
        window = told(Window(ROOM), may_slip=True)
        receipt = commit(kb, at(1), run_id="2", tally=window, max_deletes=9)
        assert (ids_in(kb), receipt.rows_deleted) == (["1", "2"], 0)
        assert "missed for the first time" in receipt.kept
        assert commit(kb, at(1), run_id="3", tally=window, max_deletes=9).rows_deleted == 1

    def test_a_document_that_failed_stays(self, kb):
        commit(kb, at(1), at(2), run_id="1")
        receipt = commit(kb, run_id="2", tally=told(Window(ROOM), stale=[key(1)]), max_deletes=9)
        assert (ids_in(kb), receipt.kept) == (["1"], "")


class Rooms(PaginatedConnector):
    """Reads rooms; each page is a message, of which some cannot be mapped.

    Args:
        rooms: The messages of each room by their points.
        since: What is read: messages from this point on.
        versions: Whether messages tell their version before they are mapped.
    """

    identity_args = ()

    def __init__(
        self, rooms: Mapping[str, Mapping[int, str]], since: int = 0, versions: bool = False
    ) -> None:
        super().__init__()
        self.rooms, self.since, self.versions = rooms, since, versions

    def partitions(self):
        return [Partition(name) for name in self.rooms]

    def fetch_page(self, partition, cursor):
        found = sorted((at, text) for at, text in self.rooms[partition.id].items())
        new = [(partition.id, at, text) for at, text in found if at >= self.since]
        half = len(new) // 2
        if cursor is None and half:
            # Newest first, as chats are: from here to the end all is told.
            return Page(
                new[half:],
                next_cursor=half,
                windows=[Window(partition.id, new[half][1])],
            )
        return Page(new[:half] or new, windows=[Window(partition.id, self.since)])

    def document_version(self, item):
        room, point, text = item
        name = text.rpartition("=")[0] or f"{room}-{point}"
        place = Place(room, point)
        return DocumentVersion(f"doc:{name}", text, place) if self.versions else None

    def map_to_frame_record(self, item):
        room, point, text = item
        if text == "bad":
            raise ValueError("it cannot be mapped")
        name = text.rpartition("=")[0] or f"{room}-{point}"
        return document(name, text, place=Place(room, point))


HALL = {1: "one", 2: "two", 3: "three", 4: "four"}
YARD = {1: "eins", 2: "zwei"}


class TestPipelines:
    @EVERY_WAY
    def test_the_stretch_that_is_read_again_equals_the_source(self, kb, how):
        run(Rooms({"hall": HALL, "yard": YARD}), kb)
        later = {"hall": {3: "drei", 5: "five"}, "yard": {}}
        receipt = run(Rooms(later, since=2), kb, max_deletes=9, **how)
        assert ids_in(kb) == ["hall-1", "hall-3", "hall-5", "yard-1"]
        assert (receipt.rows_deleted, receipt.rows_replaced) == (3, 1)

    def test_a_backfill_deletes_with_each_of_its_commits(self, kb):
        run(Rooms({"hall": HALL, "yard": YARD}), kb)
        later = Rooms({"hall": {1: "one"}, "yard": {2: "zwei"}})
        receipt = ingest(later, str(kb), commit_every=1, max_deletes=9)
        assert (ids_in(kb), receipt.rows_deleted) == (["hall-1", "yard-2"], 4)

    def test_a_message_that_nobody_can_tell_keeps_its_room_as_it_was(self, kb):
        run(Rooms({"hall": HALL, "yard": YARD}), kb)
        later = {"hall": {1: "one", 9: "bad"}, "yard": {1: "eins"}}
        receipt = run(Rooms(later), kb, max_deletes=9)
        assert ids_in(kb) == ["hall-1", "hall-2", "hall-3", "hall-4", "yard-1"]
        assert receipt.kept == "1 item failed"

    def test_a_message_that_is_known_to_have_failed_keeps_only_itself(self, kb):
        run(Rooms({"hall": HALL}, versions=True), kb)
        receipt = run(Rooms({"hall": {1: "one", 4: "bad"}}, versions=True), kb, max_deletes=9)
        assert (ids_in(kb), receipt.kept) == (["hall-1", "hall-4"], "")

    def test_what_is_recognised_is_met_and_what_moved_is_not_recognised(self, kb):
        run(Rooms({"hall": {1: "a=text", 2: "b=text"}, "yard": {}}, versions=True), kb)
        later = {"hall": {1: "a=text"}, "yard": {2: "b=text"}}
        receipt = run(Rooms(later, versions=True), kb, max_deletes=9)
        assert (receipt.rows_unchanged, receipt.rows_replaced, receipt.rows_deleted) == (1, 1, 0)
        receipt = run(Rooms({"hall": {1: "a=text"}}, versions=True), kb, max_deletes=9)
        assert ids_in(kb) == ["a", "b"]

    def test_a_version_with_another_place_than_the_record_is_refused(self, kb):
        class Forgetful(Rooms):
            def document_version(self, item):
                return DocumentVersion(f"doc:{item[0]}-{item[1]}", item[2])

        with pytest.raises(Exception, match="let both name the same"):
            run(Forgetful({"hall": {1: "one"}}), kb)


names = st.integers(0, 9)
parts = st.sampled_from(["hall", "hall/left", "yard"])
sources = st.dictionaries(names, st.tuples(parts, st.integers(0, 5), st.sampled_from("xy")))
limits = st.none() | st.integers(0, 5)
windows = st.builds(
    lambda part, one, other, below: Window(
        part, *(sorted([one, other]) if None not in (one, other) else (one, other)), below=below
    ),
    parts,
    limits,
    limits,
    st.booleans(),
)
readings = st.lists(st.tuples(sources, st.lists(windows, max_size=3)), min_size=1, max_size=3)


@settings(max_examples=examples(200))
@given(
    st.lists(windows, min_size=1, max_size=6),
    st.lists(
        st.tuples(
            st.sampled_from(["hall", "hall/left", "hallway", "yard/a", "attic"]),
            st.none() | st.integers(0, 5),
        )
    ),
    st.booleans(),
)
def test_a_place_is_held_where_any_window_holds_it(held, places, has_many_points):
    if has_many_points:
        held = [*held, *(Window("hall", point, point, below=True) for point in range(2, 40, 2))]
    names = pa.array([name for name, _ in places], pa.string())
    points = pa.array([point_of(point) for _, point in places], POINT)
    expected = [any(one.holds(Place(*place)) for one in held) for place in places]
    assert Held(held).among(names, points).tolist() == expected


def records_of(source: Mapping[int, Any], held: Iterable[Window]) -> list[FrameRecord]:
    made = {
        name: document(name, f"text {text}", place=Place(part, point))
        for name, (part, point, text) in source.items()
    }
    held = list(held)
    return [one for one in made.values() if any(window.holds(one.place) for window in held)]


@settings(max_examples=examples(60) // 5)  # of some commits each
@given(sources, readings)
def test_the_windows_of_each_run_equal_the_source_and_the_rest_stays(
    tmp_path_factory, first, later
):
    kb: Path = tmp_path_factory.mktemp("law") / "kb.lance"
    whole = [Window("hall"), Window("yard")]
    commit(kb, *records_of(first, whole), run_id="first")
    stored = {record.unique_id: record for record in records_of(first, whole)}
    for number, (source, held) in enumerate(later):
        read = records_of(source, held)
        commit(kb, *read, run_id=f"{number}", tally=told(*held), max_deletes="100%")
        stored = {
            name: one
            for name, one in stored.items()
            if not any(window.holds(one.place) for window in held)
        }
        stored |= {record.unique_id: record for record in read}
        found = {one.unique_id: (one.text_content, one.place) for one in FrameDataset.open(str(kb))}
        assert found == {name: (one.text_content, one.place) for name, one in stored.items()}
