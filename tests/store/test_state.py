"""What a dataset remembers of its sources: a row each, which moves with the data."""

import json
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam import ConnectorError, DatasetError, FrameDataset, RunSummary, SourceState
from contextframe_beam.store.address import Address
from contextframe_beam.store.files import Destination
from contextframe_beam.store.rows import Removal
from contextframe_beam.store.runs import StateChange
from contextframe_beam.store.schema import adopt
from contextframe_beam.store.state import ANCHOR_KEY, MAX_RUNS, SLICE, read_states, state_rows
from contextframe_beam.store.transaction import commit_update
from contextframe_beam.store.writer import write_rows
from contextframe_beam.transforms import CommitReceipt
from tests.support.frame_strategies import EMBED_DIM, json_objects, texts

counts = st.integers(0, 10**9)
runs = st.builds(
    RunSummary,
    run_id=texts,
    mode=st.sampled_from(["create", "append", "upsert"]),
    at=texts,
    version=counts,
    rows_written=counts,
    failed=counts,
)
states = st.builds(
    SourceState,
    source=texts,
    name=texts,
    identity=json_objects,
    partitions=st.dictionaries(texts, json_objects, max_size=3),
    runs=st.lists(runs, max_size=3).map(tuple),
)


def run(number: int) -> RunSummary:
    return RunSummary(
        f"run-{number}", "upsert", "2024-02-29T08:30:00+00:00", number, rows_written=1
    )


class TestJson:
    @given(states)
    def test_a_state_comes_back_as_it_went_in(self, state):
        assert SourceState.from_json(state.to_json()) == state

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "no json",
            "null",
            "[]",
            "{}",
            '{"source": "s"}',
            '{"source": "s", "name": "n", "identity": {}, "partitions": [1], "runs": []}',
            '{"source": "s", "name": "n", "identity": {}, "partitions": {}, "runs": [{}]}',
            '{"source": "s", "name": "n", "identity": {}, "partitions": {}, "runs": 5}',
        ],
    )
    def test_what_cannot_be_read_is_an_error_that_says_so(self, text):
        with pytest.raises(DatasetError, match=r"state row.*cannot be read.*newer release"):
            SourceState.from_json(text)

    def test_runs_with_more_or_fewer_fields_than_ours_are_read(self):
        state = SourceState("s", runs=(run(1),))
        value = json.loads(state.to_json())
        value["runs"][0]["energy"] = 5
        value["energy"] = 5
        assert SourceState.from_json(json.dumps(value)) == state
        value["runs"] = [{"run_id": "early"}]
        assert SourceState.from_json(json.dumps(value)).run("early") == RunSummary("early")

    def test_earlier_releases_read_what_says_nothing_new(self):
        stored = json.loads(SourceState("s", runs=(run(1),)).to_json())
        assert "kept" not in stored["runs"][0]
        told = SourceState("s", runs=(replace(run(1), kept="a filter"),))
        assert SourceState.from_json(told.to_json()) == told

    @pytest.mark.parametrize(
        "cursor", [{1, 2}, float("nan"), b"bytes", "\ud800", {1: "x"}, object()]
    )
    def test_a_cursor_that_cannot_be_stored_is_named(self, cursor):
        state = SourceState("s", name="wiki", partitions={"p": {"cursor": cursor}})
        with pytest.raises(ConnectorError, match=r"sync state of wiki.*\['p'\]\['cursor'\]"):
            state.to_json()


class TestRuns:
    def test_a_run_is_found_by_its_id(self):
        state = SourceState("s").after(run(1), {}).after(run(2), {})
        assert state.run("run-2") == run(2)
        assert state.run("run-3") is None

    def test_the_last_ones_are_remembered(self):
        state = SourceState("s")
        for number in range(MAX_RUNS + 5):
            state = state.after(run(number), {})
        assert len(state.runs) == MAX_RUNS
        assert state.runs[-1] == run(MAX_RUNS + 4)
        assert state.run("run-4") is None
        assert state.run("run-5") is not None

    def test_a_partition_that_a_run_did_not_see_keeps_its_state(self):
        state = SourceState("s", partitions={"a": {"cursor": 1}, "b": {"cursor": 2}})
        after = state.after(run(1), {"b": {"cursor": 3}, "c": {}})
        assert after.partitions == {"a": {"cursor": 1}, "b": {"cursor": 3}, "c": {}}
        assert state.partitions == {"a": {"cursor": 1}, "b": {"cursor": 2}}


class TestRows:
    def store(self, dataset: FrameDataset, several: list[SourceState]) -> FrameDataset:
        rows = state_rows(several, anchor=False, embed_dim=EMBED_DIM)
        new = write_rows(Destination(dataset.uri), [rows])
        commit_update(
            dataset.lance,
            Removal([], [], 0),
            new,
            properties={},
            at=Address(str(dataset.lance.uri)),
        )
        return FrameDataset.open(dataset.uri)

    @pytest.fixture
    def dataset(self, tmp_path):
        return FrameDataset.create(str(tmp_path / "kb"), embed_dim=EMBED_DIM)

    def test_states_are_read_back_and_are_no_documents(self, dataset):
        several = [
            SourceState("1", "wiki", {"url": "w"}, {"p": {"cursor": "ü"}}, (run(1),)),
            SourceState("2", "wiki"),
            SourceState("3", "json"),
        ]
        dataset = self.store(dataset, several)
        assert read_states(dataset.lance) == {state.source: state for state in several}
        assert sorted(dataset.states(), key=lambda state: state.source) == several
        assert len(dataset) == 0
        assert list(dataset) == []

    def test_a_state_is_found_by_id_or_by_name_if_that_is_clear(self, dataset):
        several = [SourceState("1", "wiki"), SourceState("2", "wiki"), SourceState("3", "json")]
        dataset = self.store(dataset, several)
        assert dataset.state("2") == several[1]
        assert dataset.state("json") == several[2]
        assert dataset.state("mail") is None
        with pytest.raises(ValueError, match="2 sources are called wiki; name one of"):
            dataset.state("wiki")

    def test_the_key_is_the_sources_own(self, dataset):
        assert SourceState("1").key == SourceState("1", "renamed").key
        assert SourceState("1").key != SourceState("2").key

    def test_a_row_that_cannot_be_read_is_an_error(self, dataset):
        rows = state_rows([SourceState("1")], anchor=False, embed_dim=EMBED_DIM)
        index = rows.schema.get_field_index("x_state")
        broken = rows.set_column(index, rows.schema.field(index), pa.array(["{broken"]))
        new = write_rows(Destination(dataset.uri), [broken])
        commit_update(
            dataset.lance,
            Removal([], [], 0),
            new,
            properties={},
            at=Address(str(dataset.lance.uri)),
        )
        with pytest.raises(DatasetError, match="cannot be read"):
            FrameDataset.open(dataset.uri).states()

    def test_a_dataset_has_one_anchor_and_it_is_no_source(self, dataset):
        for _ in range(2):
            adopt(dataset.lance, Address(str(dataset.lance.uri)))
            latest = FrameDataset.open(dataset.uri)
            assert latest.lance.count_rows(filter=f"uuid = '{ANCHOR_KEY}'") == 1
            assert latest.states() == []

    def test_a_receipt_is_stored_under_the_names_that_earlier_releases_read(self):
        receipt = CommitReceipt("r", "upsert", "2024", 3, 1, 2, 3, 4, 5, already_committed=True)
        stored = {
            "run_id": "r",
            "mode": "upsert",
            "at": "2024",
            "version": 3,
            "written": 1,
            "replaced": 2,
            "deleted": 3,
            "unchanged": 4,
            "dropped": 5,
            "failed": 0,
            "fragments": 0,
            "bytes": 0,
        }
        assert receipt.to_json() == stored
        again = RunSummary.from_json({**stored, "already_committed": True})
        assert again == replace(receipt, already_committed=False)
        assert (again.written, again.rows_written, again.dropped) == (1, 1, 5)

    def test_no_rows_is_an_empty_batch(self):
        assert state_rows([], anchor=False, embed_dim=EMBED_DIM).num_rows == 0


def test_a_state_is_bounded():
    large = SourceState("s", "crm", partitions={f"p{n}": {"x": "y" * 10_000} for n in range(1700)})
    with pytest.raises(ConnectorError, match=r"crm has 17,\d+,\d+ bytes in 1,700 partitions"):
        large.to_json()


def test_the_commits_of_a_backfill_are_one_run():
    first = SourceState("s").after(run(1), {"a": {"x": 1}}, StateChange(backfill={"last": "run-1"}))
    assert first.backfill == {"last": "run-1"}
    both = first.after(run(2), {"b": {"x": 2}}, StateChange(backfill={}, continues="run-1"))
    assert [(one.run_id, one.written) for one in both.runs] == [("run-2", 2)]
    assert both.partitions == {"a": {"x": 1}, "b": {"x": 2}} and not both.backfill
    assert SourceState.from_json(first.to_json()) == first


def test_a_plan_may_add_to_all_states_or_take_their_place():
    state = SourceState("s", partitions={"a": {"x": 1}})
    added = state.after(run(1), {}, StateChange(reached={"b": {}}))
    assert set(added.partitions) == {"a", "b"}
    replaced = state.after(run(1), {"c": {}}, StateChange({"b": {}}))
    assert set(replaced.partitions) == {"b", "c"}


class TestSlicesOfTime:
    """A partition that is read in slices has one state, once all of them were read."""

    def slice_of(self, begin: str, cursor: str | None = None, last: bool = False) -> dict:
        mark = {"of": "things", "from": begin, **({"last": "yes"} if last else {})}
        return {**({"cursor": cursor} if cursor else {}), SLICE: mark}

    def test_the_last_that_reached_anything_counts(self):
        states = {
            "things/1": self.slice_of("1", "a"),
            "things/2": self.slice_of("2", "b"),
            "things/3": self.slice_of("3"),
            "things": self.slice_of("4", last=True),
            "others": {"cursor": "z"},
        }
        after = SourceState("api", partitions={"things": {"cursor": "0"}}).after(run(1), states)
        assert after.partitions == {"things": {"cursor": "b"}, "others": {"cursor": "z"}}

    def test_until_the_newest_was_read_the_state_stays(self):
        known = SourceState("api", partitions={"things": {"cursor": "0"}})
        first = known.after(run(1), {"things/1": self.slice_of("1", "a")})
        assert first.partitions["things"] == {"cursor": "0"}
        second = first.after(run(2), {"things/2": self.slice_of("2", "b")})
        last = second.after(run(3), {"things": self.slice_of("3", last=True)})
        assert last.partitions == {"things": {"cursor": "b"}}

    def test_where_nothing_was_reached_the_state_stays(self):
        known = SourceState("api", partitions={"things": {"cursor": "0"}})
        states = {"things/1": self.slice_of("1"), "things": self.slice_of("2", last=True)}
        assert known.after(run(1), states).partitions == {"things": {"cursor": "0"}}
        assert SourceState("api").after(run(1), states).partitions == {}

    @given(st.dictionaries(texts, json_objects, max_size=3), json_objects)
    def test_a_state_of_any_content_is_no_error(self, partitions, mark):
        states = {**partitions, "x": {SLICE: mark}}
        assert SourceState("api").after(run(1), states).partitions.keys() <= {*states, "None"}
