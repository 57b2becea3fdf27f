"""A key that occurs twice in one run: the newest row wins, whatever the order."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam import Deletion, FrameDataset, FrameRecord
from contextframe_beam.errors import CommitError
from contextframe_beam.transforms import CommitReceipt
from contextframe_beam.transforms.commit import commit_run
from contextframe_beam.transforms.newest import drop_duplicates
from contextframe_beam.transforms.written import Written
from tests.support.cli_helpers import cli, lines, write_documents
from tests.support.laws import examples
from tests.support.pipeline_helpers import (
    EVERY_WAY,
    IN_ONE_PROCESS,
    Documents,
    begin,
    data_files,
    document,
    documents,
    ids_in,
    run,
    texts_in,
    write,
)


def version_of(name: Any, at: str | None, text: str | None = None, **fields: Any) -> FrameRecord:
    return document(name, text or f"of {at}", timestamp=at, **fields)


def commit_files(
    to: Path, *files: Sequence[FrameRecord], run_id: str = "run-1", mode: str = "upsert"
) -> CommitReceipt:
    """Commits a run whose workers wrote these files."""
    started = begin(to, run_id, mode)
    return commit_run(started, Written.sum(write(started, *records) for records in files))


def winner(to: Path, *files: Sequence[FrameRecord], **options: Any) -> str | None:
    """Returns the text of the only document that is left."""
    commit_files(to, *files, **options)
    (text,) = texts_in(to).values()
    return text


class TestInPipelines:
    @IN_ONE_PROCESS
    def test_the_newest_wins_within_a_page(self, kb, how):
        page = [{"id": 1, "at": f"2026-01-0{day}", "text": f"day {day}"} for day in (2, 3, 1)]
        receipt = run(Documents({"all": [page]}), kb, **how)
        assert texts_in(kb) == {"1": "day 3"}
        assert (receipt.rows_written, receipt.rows_dropped) == (1, 2)

    @EVERY_WAY
    def test_the_newest_wins_across_pages_partitions_and_workers(self, kb, how):
        items = [
            {"id": number % 7, "at": f"2026-01-{1 + number * 11 % 28:02}", "text": str(number)}
            for number in range(28)
        ]
        newest = {
            str(key): max(
                (item for item in items if item["id"] == key), key=lambda item: str(item["at"])
            )["text"]
            for key in range(7)
        }
        receipt = run(documents(*items, partitions=4), kb, **how)
        assert texts_in(kb) == newest
        assert (receipt.rows_written, receipt.rows_dropped) == (7, 21)

    @EVERY_WAY
    def test_the_newest_wins_between_two_sources(self, kb, how):
        older = documents({"id": 1, "at": "2026-01-01", "text": "older"}, source="a")
        newer = documents({"id": 1, "at": "2026-01-02", "text": "newer"}, source="b")
        run([newer, older], kb, **how)
        assert texts_in(kb) == {"1": "newer"}

    @pytest.mark.sample
    @pytest.mark.parametrize("mode", ["create", "append", "overwrite", "upsert"])
    @IN_ONE_PROCESS
    def test_no_mode_stores_a_key_twice_in_one_run(self, kb, how, mode):
        run(documents(1, 2, 1, 2, 1), kb, mode=mode, **how)
        assert ids_in(kb) == ["1", "2"]


TIMES = [
    None,
    "",
    "not a time",
    "2026-13-45",
    "0001-01-01",
    "1999-12-31",
    "2026-01-01",
    "2026-01-01T00:00:00.000001Z",
    "2026-01-01 12:00",
    "2026-01-01T12:00:01",
    "2026-01-01T12:00:01.5Z",
    "2026-01-01T12:00:01,6Z",
    "2026-01-01T23:59:59-01:00",  # on the second, by UTC
    "2026-01-02T01:00:00+00:00",
    "2026-01-02T12:30:00.1234567+0530",
    "2026-01-02T08:00:00-00",
    "2026-01-02T09:00:00 z",
    "9999-12-31T23:59:59-14:00",
]


class TestOrder:
    @settings(max_examples=examples(100, few=10))
    @given(order=st.permutations(range(len(TIMES))), cuts=st.lists(st.integers(0, 18), max_size=3))
    def test_the_newest_wins_in_every_order_and_division(self, tmp_path_factory, order, cuts):
        """The times above are in order; those that cannot be read come before all others."""
        records = [version_of(1, TIMES[place], f"time {place}") for place in order]
        edges = [0, *sorted(min(cut, len(records)) for cut in cuts), len(records)]
        files = [records[a:b] for a, b in itertools.pairwise(edges) if a < b]
        kb = tmp_path_factory.mktemp("order") / "kb.lance"
        assert winner(kb, *files) == f"time {len(TIMES) - 1}"

    @pytest.mark.sample(5)
    @pytest.mark.parametrize("later", range(5, len(TIMES)))
    def test_of_two_times_the_later_one_wins(self, kb, later):
        old, new = version_of(1, TIMES[later - 1], "old"), version_of(1, TIMES[later], "new")
        assert winner(kb, [new], [old]) == "new"
        assert winner(kb, [old, new], run_id="run-2", mode="overwrite") == "new"

    @pytest.mark.sample(3)
    @pytest.mark.parametrize("time", [None, "", "not a time", "2026-01-01", "2026-02-30"])
    @settings(max_examples=examples(40, few=4))
    @given(order=st.permutations(range(4)))
    def test_rows_of_one_time_are_chosen_in_the_same_way_by_every_run(
        self, tmp_path_factory, time, order
    ):
        records = [version_of(1, time, f"text {place}") for place in order]
        kb = tmp_path_factory.mktemp("ties") / "kb.lance"
        expected = winner(kb, [version_of(1, time, f"text {place}") for place in range(4)])
        assert winner(kb, records[:2], records[2:], run_id="r", mode="overwrite") == expected

    def test_the_same_moment_in_two_zones_is_the_same_time(self, kb):
        here, there = "2026-01-01T12:00:00+02:00", "2026-01-01T10:00:00Z"
        texts = {
            winner(kb.with_name(f"{a}{b}.lance"), [version_of(1, x, a)], [version_of(1, y, b)])
            for a, b, x, y in [("p", "q", here, there), ("q", "p", there, here)]
        }
        assert len(texts) == 1

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("Fri, 02 Jan 2026 10:00:00 GMT", "Sat, 03 Jan 2026 10:00:00 GMT"),
            ("Thu, 31 Dec 2026 10:00:00 GMT", "Fri, 01 Jan 2027 10:00:00 GMT"),
            ("1767225600000", "1767225600001"),
            ("1767225600.000100", "1767225600.000200"),
            ("2026-01-05T10:00:00.123456788Z", "2026-01-05T10:00:00.123456789Z"),
            ("2026-01-05 09:00:00 AM", "2026-01-05 01:00:00 PM"),
            ("2026-01-05T10:00:00+01:00[Europe/Berlin]", "2026-01-05 09:30:00 UTC"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:01Z"),
            ("1/2/2026", "2026-01-01"),  # what can be read in two ways is the earliest
            ("2026-W01-7", "2026-01-05"),
        ],
    )
    def test_times_are_compared_in_every_form(self, kb, old, new):
        for number, (first, second) in enumerate([(old, new), (new, old)]):
            to = kb.with_name(f"{number}.lance")
            assert winner(to, [version_of(1, first)], [version_of(1, second)]) == f"of {new}"

    def test_a_timestamp_among_the_metadata_does_not_decide(self, kb):
        old = document(1, "old", metadata={"timestamp": "2030-01-01"}, timestamp="2026-01-01")
        assert winner(kb, [version_of(1, "2026-01-02", "new"), old]) == "new"


class TestRows:
    def test_equal_rows_are_one(self, kb):
        receipt = commit_files(kb, [document(1), document(1)], [document(1)])
        assert ids_in(kb) == ["1"]
        assert (receipt.rows_written, receipt.rows_dropped) == (1, 2)

    def test_all_others_stay_as_they_are(self, kb):
        vector = [0.5, 1.0, 1.5, 2.0]
        others = [
            document(number, vector=vector, raw_data=bytes([number]) * 1000, context={"a": number})
            for number in range(2, 50)
        ]
        old, new = version_of(1, "2026-01-01"), version_of(1, "2026-01-02", raw_data=b"new")
        commit_files(kb, [old, *others, new])
        stored = {record.unique_id: record for record in FrameDataset.open(str(kb))}
        assert stored == {record.unique_id: record for record in [*others, new]}

    @pytest.mark.parametrize("storage_version", ["2.0", "2.1", "2.2"])
    def test_they_are_found_in_every_file_format(self, kb, storage_version):
        started = begin(kb, storage_version=storage_version)
        large = bytes(range(256)) * 1000
        records = [
            version_of(1, "2026-01-01", raw_data=large),
            document(2, raw_data=large, raw_data_type="image/png"),
            version_of(1, "2026-01-02", raw_data=b"small"),
        ]
        receipt = commit_run(started, write(started, *records))
        assert receipt.rows_dropped == 1
        dataset = FrameDataset.open(str(kb))
        assert [dataset.get("doc:1"), dataset.get("doc:2")] == [records[2], records[1]]

    @pytest.mark.parametrize("mode", ["append", "upsert", "overwrite"])
    def test_they_are_found_in_a_dataset_that_exists(self, kb, mode):
        commit_files(kb, [document(1), document(9)])
        receipt = commit_files(
            kb,
            [version_of(1, "2026-01-02"), document(2)],
            [version_of(1, "2026-01-01"), version_of(2, "2026-01-01")],
            run_id="run-2",
            mode=mode,
        )
        assert (receipt.rows_written, receipt.rows_dropped) == (2, 2)
        expected = {"append": ["1", "1", "2", "9"], "upsert": ["1", "2", "9"]}
        assert ids_in(kb) == expected.get(mode, ["1", "2"])
        assert texts_in(kb)["2"] == "of 2026-01-01"

    def test_a_file_of_which_nothing_is_left_is_dropped(self, kb):
        receipt = commit_files(
            kb, [version_of(1, "2026-01-01")], [version_of(1, "2026-01-02"), document(2)]
        )
        assert receipt.fragments == 1
        assert ids_in(kb) == ["1", "2"]

    def test_files_that_were_written_again_are_removed(self, kb):
        started = begin(kb)
        written = write(started, version_of(1, "2026-01-01"), version_of(1, "2026-01-02"))
        (old,) = written.fragments[0].paths
        assert old in data_files(kb)
        commit_run(started, written)
        assert len(data_files(kb)) == 2  # the rows and the state
        assert old not in data_files(kb)

    def test_a_uuid_of_its_own_is_a_key_like_any_other(self, kb):
        own = "0190a6c0-0000-7000-8000-000000000001"
        records = [
            FrameRecord("a", {"uuid": own}, timestamp="2026-01-02"),
            FrameRecord("b", {"uuid": own.upper()}, timestamp="2026-01-01", unique_id="other"),
        ]
        assert winner(kb, records) == "a"

    def test_no_files_have_no_duplicates(self, kb):
        started = begin(kb)
        found = drop_duplicates(started.destination, [], started.schema)
        assert (found.fragments, len(found.keys), len(found.deleted)) == ([], 0, 0)

    def test_files_that_cannot_be_read_are_refused(self, kb):
        started = begin(kb)
        written = write(started, 1)
        (file,) = written.fragments
        gone = replace(file, metadata=file.metadata.replace(file.paths[0], "gone.lance"))
        with pytest.raises(CommitError, match="cannot be read again"):
            drop_duplicates(started.destination, [file, gone], started.schema)


class TestAgainstUnchangedRows:
    """A row that is stored already is not written, but takes part."""

    ITEMS = (
        {"id": 1, "at": "2026-01-02", "text": "newer"},
        {"id": 1, "at": "2026-01-01", "text": "older"},
        {"id": 2, "at": "2026-01-01", "text": "other"},
    )

    def test_a_second_run_of_a_source_with_doubled_keys_changes_nothing(self, kb):
        first = run(documents(*self.ITEMS), kb)
        assert (first.rows_written, first.rows_dropped) == (2, 1)
        for _ in range(3):
            again = run(documents(*self.ITEMS), kb)
            assert texts_in(kb) == {"1": "newer", "2": "other"}
            assert (again.rows_written, again.rows_replaced) == (0, 0)
            assert (again.rows_unchanged, again.rows_dropped) == (2, 1)

    def test_a_newer_one_replaces_it(self, kb):
        run(documents(*self.ITEMS), kb)
        newest = {"id": 1, "at": "2026-01-03", "text": "newest"}
        receipt = run(documents(*self.ITEMS, newest), kb)
        assert texts_in(kb) == {"1": "newest", "2": "other"}
        assert (receipt.rows_written, receipt.rows_replaced) == (1, 1)
        assert (receipt.rows_unchanged, receipt.rows_dropped) == (1, 2)

    def test_an_older_one_replaces_what_the_source_no_longer_has(self, kb):
        run(documents(*self.ITEMS), kb)
        receipt = run(documents(*self.ITEMS[1:]), kb)
        assert texts_in(kb) == {"1": "older", "2": "other"}
        assert (receipt.rows_written, receipt.rows_unchanged, receipt.rows_dropped) == (1, 1, 0)

    def test_equal_items_that_are_stored_already_are_one_document(self, kb):
        run(documents(1), kb)
        receipt = run(documents(1, 1, 1), kb)
        assert (receipt.rows_written, receipt.rows_unchanged, receipt.rows_dropped) == (0, 1, 2)

    @settings(max_examples=examples(60, few=6))
    @given(
        first=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), max_size=8),
        second=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), max_size=8),
    )
    def test_what_is_stored_is_what_a_reader_of_everything_would_store(
        self, tmp_path_factory, first, second
    ):
        kb = tmp_path_factory.mktemp("law") / "kb.lance"
        expected: dict[str, str] = {}
        for number, items in enumerate((first, second, second)):
            records = [version_of(key, f"2026-01-0{day}", f"day {day}") for key, day in items]
            files = [records[:4], records[4:]]
            receipt = commit_files(kb, *files, run_id=f"run-{number}")
            days = {key: max(day for other, day in items if other == key) for key, _ in items}
            expected.update({str(key): f"day {day}" for key, day in days.items()})
            assert texts_in(kb) == expected
            counted = receipt.rows_written + receipt.rows_unchanged + receipt.rows_dropped
            assert counted == len(items)
            assert receipt.rows_written + receipt.rows_unchanged == len(days)
        assert receipt.rows_written == 0


class TestItemsOfOneId:
    """Items that share an id, and of which no time says which is newer, are named as that."""

    @IN_ONE_PROCESS
    def test_those_without_a_time_are_counted(self, kb, how):
        items = [{"id": n, "text": f"text {place}"} for place, n in enumerate([1, 2, 1, 2, 1, 3])]
        receipt = run(documents(*items), kb, **how)
        assert (receipt.sharing, receipt.shared_ids) == (5, 2)
        assert (receipt.rows_written, receipt.rows_dropped) == (3, 3)

    @pytest.mark.parametrize("at", [None, "not a time", "2026-01-01", "2026-01-01T10:00:00Z"])
    def test_so_are_those_of_one_time(self, kb, at):
        receipt = commit_files(kb, [version_of(1, at, "a")], [version_of(1, at, "b")])
        assert (receipt.sharing, receipt.shared_ids, receipt.rows_dropped) == (2, 1, 1)

    def test_older_ones_are_not(self, kb):
        days = ("2026-01-01", "2026-01-02", "2026-01-03", "2026-01-03")
        files = [[version_of(1, day, f"{place}")] for place, day in enumerate(days)]
        receipt = commit_files(kb, *files)
        assert (receipt.sharing, receipt.shared_ids, receipt.rows_dropped) == (2, 1, 3)

    def test_nor_are_those_that_a_deletion_outdates(self, kb):
        receipt = commit_files(kb, [version_of(1, None, "a"), Deletion("doc:1")], [document(1)])
        assert (receipt.sharing, receipt.rows_written, receipt.rows_dropped) == (0, 0, 2)

    @given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab")), max_size=12))
    @settings(max_examples=examples(100, few=10), deadline=None)
    def test_the_count_is_the_same_where_some_are_stored_already(self, tmp_path_factory, items):
        kb = tmp_path_factory.mktemp("law") / "kb.lance"
        records = [document(name, text) for name, text in items]
        names = [name for name, _ in items]
        several = {name for name in names if names.count(name) > 1}
        expected = (sum(name in several for name in names), len(several))
        for run_id in ("first", "again"):
            receipt = commit_files(kb, records[::2], records[1::2], run_id=run_id)
            assert (receipt.sharing, receipt.shared_ids) == expected
            assert receipt.rows_dropped == len(names) - len(set(names))

    def test_the_receipt_names_them_and_calls_them_no_older_ones(self, tmp_path):
        notes = [{"id": n % 2, "text": str(n)} for n in range(5)] + [{"id": 7, "text": "alone"}]
        folder = write_documents(tmp_path / "notes", {"a.jsonl": lines(notes)})
        job = ("ingest", "json", "--directory", folder, "--pattern", "*.jsonl")
        result = cli(*job, "--to", tmp_path / "kb.lance")
        assert "5 items share 2 ids, and no time says which is newer; one of each was kept" in (
            result.out
        )
        assert "left out for a newer" not in result.out
        again = cli(*job, "--to", tmp_path / "kb.lance")
        assert "5 items share 2 ids" in again.out
        found = cli(*job, "--to", tmp_path / "other.lance", "--json").json
        assert (found["sharing"], found["shared_ids"]) == (5, 2)
