"""One transaction replaces and adds rows together, never twice and never over another one."""

import json
import random
from datetime import timedelta
from pathlib import Path

import lance
import pyarrow as pa
import pytest

from contextframe_beam import (
    ConcurrentRunError,
    DatasetError,
    FrameDataset,
    FrameRecord,
    UnknownCommitError,
    frame_schema,
)
from contextframe_beam.frames.encode import encode_records
from contextframe_beam.frames.schema import FORMAT_COLUMNS, OWN_COLUMNS, STORAGE_VERSIONS
from contextframe_beam.store import transaction
from contextframe_beam.store.address import Address
from contextframe_beam.store.files import Destination
from contextframe_beam.store.rows import Removal, remove_keys
from contextframe_beam.store.schema import adopt
from contextframe_beam.store.state import ANCHOR_KEY, state_rows
from contextframe_beam.store.transaction import (
    ConflictError,
    Pending,
    change,
    commit_overwrite,
    commit_update,
    with_retries,
)
from contextframe_beam.store.upkeep import cleanup
from contextframe_beam.store.writer import write_rows
from tests.support.pipeline_helpers import data_files, named_files

EMBED_DIM = 3
NOTHING = Removal([], [], 0)


def document(number: int, text: str = "text") -> FrameRecord:
    return FrameRecord(text, {"tags": ["t"]}, unique_id=str(number), vector=[number, 0, 1])


def rows_of(*records: FrameRecord, embed_dim: int = EMBED_DIM) -> pa.RecordBatch:
    batch, errors = encode_records(records, embed_dim=embed_dim)
    assert not errors
    return batch


def anchor(embed_dim: int = EMBED_DIM) -> pa.RecordBatch:
    return state_rows([], anchor=True, embed_dim=embed_dim)


def keys_of(*records: FrameRecord) -> pa.Array:
    return pa.array([*(record.uuid for record in records), ANCHOR_KEY])


def overtake(uri: str) -> None:
    """Commits a new version and removes all others, with their files."""
    FrameDataset.open(uri).add_many([document(number, "theirs") for number in range(5)])
    cleanup(Address(uri), keep=timedelta(0))


@pytest.fixture
def dataset(tmp_path):
    dataset = FrameDataset.create(str(tmp_path / "kb"), embed_dim=EMBED_DIM)
    dataset.add_many([document(number) for number in range(5)])
    return dataset


def texts_in(uri: str) -> dict[str, str]:
    return {record.unique_id: record.text_content for record in FrameDataset.open(uri)}


class TestRemoving:
    def test_it_counts_the_rows_that_are_there(self, dataset):
        removal = remove_keys(dataset.lance, pa.array([document(1).uuid, document(9).uuid]))
        assert removal.rows == 1

    def test_a_key_may_be_named_twice(self, dataset):
        removal = remove_keys(dataset.lance, pa.array([document(1).uuid] * 2))
        assert removal.rows == 1

    def test_a_key_with_a_quote_is_found_by_an_index_as_well(self, tmp_path):
        keys = pa.array(["it's", "other"])
        stored = lance.write_dataset(pa.table({"uuid": keys}), str(tmp_path / "kb.lance"))
        stored.create_scalar_index("uuid", "BTREE")
        assert remove_keys(lance.dataset(stored.uri), keys[:1]).rows == 1

    def test_no_keys_remove_nothing(self, dataset):
        assert remove_keys(dataset.lance, pa.array([], pa.string())) == NOTHING

    def test_a_fragment_that_loses_all_its_rows_goes(self, dataset):
        removal = remove_keys(dataset.lance, keys_of(*map(document, range(5))))
        assert removal.rows == 6
        assert len(removal.removed_fragment_ids) == 1
        assert not removal.updated_fragments

    def test_nothing_changes_before_the_commit(self, dataset):
        remove_keys(dataset.lance, keys_of(*map(document, range(5))))
        assert len(FrameDataset.open(dataset.uri)) == 5


class TestReplacing:
    def test_rows_go_and_come_in_one_version(self, dataset):
        new = write_rows(Destination(dataset.uri), [rows_of(document(1, "new"), document(7))])
        removal = remove_keys(dataset.lance, keys_of(document(1)))
        committed = commit_update(
            dataset.lance,
            removal,
            [*new, *write_rows(Destination(dataset.uri), [anchor()])],
            properties={"contextframe.run_id": "r1", "contextframe.counts": json.dumps({"x": 1})},
            at=Address(str(dataset.lance.uri)),
        )
        assert committed.version == dataset.version + 1
        assert texts_in(dataset.uri) == {
            "0": "text", "1": "new", "2": "text", "3": "text", "4": "text", "7": "text",
        }  # fmt: skip
        version = FrameDataset.open(dataset.uri).history()[-1]
        assert (version.run_id, version.counts) == ("r1", {"x": 1})

    def test_the_same_transaction_twice_is_a_conflict_and_no_duplicate(self, dataset):
        record = document(7)
        new = write_rows(Destination(dataset.uri), [rows_of(record), anchor()])
        removal = remove_keys(dataset.lance, keys_of(record))
        commit_update(
            dataset.lance, removal, new, properties={}, at=Address(str(dataset.lance.uri))
        )
        for _ in range(2):
            with pytest.raises(ConflictError):
                commit_update(
                    dataset.lance, removal, new, properties={}, at=Address(str(dataset.lance.uri))
                )
        assert len(FrameDataset.open(dataset.uri)) == 6

    def test_what_another_commit_changed_meanwhile_is_a_conflict(self, dataset):
        new = write_rows(Destination(dataset.uri), [rows_of(document(1, "mine")), anchor()])
        removal = remove_keys(dataset.lance, keys_of(document(1)))
        FrameDataset.open(dataset.uri).add(document(1, "theirs"))
        with pytest.raises(ConflictError):
            commit_update(
                dataset.lance, removal, new, properties={}, at=Address(str(dataset.lance.uri))
            )
        assert texts_in(dataset.uri)["1"] == "theirs"

    def test_a_compaction_meanwhile_is_a_conflict(self, dataset):
        FrameDataset.open(dataset.uri).add(document(8))
        stale = FrameDataset.open(dataset.uri)
        removal = remove_keys(stale.lance, keys_of(document(1)))
        lance.dataset(dataset.uri).optimize.compact_files()
        with pytest.raises(ConflictError):
            commit_update(stale.lance, removal, [], properties={}, at=Address(str(stale.lance.uri)))
        assert len(FrameDataset.open(dataset.uri)) == 6

    def test_a_commit_and_a_cleanup_meanwhile_are_a_conflict(self, dataset):
        removal = remove_keys(dataset.lance, keys_of(document(1)))
        overtake(dataset.uri)
        with pytest.raises(ConflictError):
            commit_update(
                dataset.lance, removal, [], properties={}, at=Address(str(dataset.lance.uri))
            )
        assert texts_in(dataset.uri)["1"] == "theirs"

    def test_an_overwrite_meanwhile_is_a_conflict(self, dataset):
        removal = remove_keys(dataset.lance, keys_of(document(1)))
        overwrite(dataset.uri, [document(9)])
        with pytest.raises(ConflictError):
            commit_update(
                dataset.lance, removal, [], properties={}, at=Address(str(dataset.lance.uri))
            )
        assert texts_in(dataset.uri) == {"9": "text"}


class TestRetrying:
    def test_what_conflicts_is_decided_anew_from_what_is_there_then(self, dataset):
        record = document(7, "mine")
        new = write_rows(Destination(dataset.uri), [rows_of(record), anchor()])
        found: list[int] = []

        def attempt() -> lance.LanceDataset:
            latest = lance.dataset(dataset.uri)
            removal = remove_keys(latest, keys_of(record))
            if not found:
                FrameDataset.open(dataset.uri).add(document(7, "theirs"))
            found.append(removal.rows)
            return commit_update(latest, removal, new, properties={}, at=Address(str(latest.uri)))

        with_retries(dataset.uri, attempt)
        assert found == [1, 2]  # the anchor, then the other's row as well
        assert texts_in(dataset.uri)["7"] == "mine"
        assert len(FrameDataset.open(dataset.uri)) == 6

    def test_what_was_read_of_a_version_that_was_removed_is_read_anew(self, dataset):
        seen = []

        def attempt() -> list[str]:
            latest = lance.dataset(dataset.uri)
            seen.append(latest.version)
            if len(seen) == 1:
                overtake(dataset.uri)
            return latest.to_table()["text_content"].to_pylist()

        assert "theirs" in with_retries(dataset.uri, attempt)
        assert len(seen) == 2

    def test_what_the_newest_version_lacks_is_an_error_at_last(self, dataset):
        for fragment in dataset.lance.get_fragments():
            for file in fragment.data_files():
                Path(dataset.uri, "data", file.path).unlink()
        with pytest.raises(DatasetError, match="Not found"):
            FrameDataset.open(dataset.uri).add(document(9))
        assert lance.dataset(dataset.uri).version == dataset.version

    def test_it_gives_up_in_the_end_and_says_so(self, monkeypatch):
        monkeypatch.setattr(transaction, "_ATTEMPTS", 3)
        attempts: list[int] = []

        def attempt() -> None:
            attempts.append(1)
            raise ConflictError("somebody was faster")

        with pytest.raises(ConcurrentRunError, match=r"3 attempts.*nothing was committed") as error:
            with_retries("kb.lance", attempt)
        assert len(attempts) == 3
        assert isinstance(error.value.__cause__, ConflictError)

    def test_other_errors_are_not_repeated(self):
        attempts: list[int] = []

        def attempt() -> None:
            attempts.append(1)
            raise DatasetError("full disk")

        with pytest.raises(DatasetError):
            with_retries("kb.lance", attempt)
        assert len(attempts) == 1


def overwrite(uri: str, records: list[FrameRecord], embed_dim: int = EMBED_DIM) -> None:
    current = lance.dataset(uri)
    new = write_rows(
        Destination(uri, overwrites=True),
        [rows_of(*records, embed_dim=embed_dim), anchor(embed_dim)],
    )
    commit_overwrite(
        Address(uri),
        frame_schema(embed_dim),
        new,
        read_version=current.version,
        storage_version="2.1",
        properties={},
    )


class TestOverwriting:
    def test_only_the_version_that_was_read_is_overwritten(self, dataset):
        new = write_rows(
            Destination(dataset.uri, overwrites=True), [rows_of(document(9)), anchor()]
        )
        FrameDataset.open(dataset.uri).add(document(7))
        with pytest.raises(ConflictError):
            commit_overwrite(
                Address(dataset.uri),
                frame_schema(EMBED_DIM),
                new,
                read_version=dataset.version,
                storage_version="2.1",
                properties={},
            )
        assert len(FrameDataset.open(dataset.uri)) == 6

    def test_a_dataset_is_created_once(self, tmp_path):
        uri = str(tmp_path / "kb")
        new = write_rows(Destination(uri), [anchor()])

        def create() -> lance.LanceDataset:
            return commit_overwrite(
                Address(uri),
                frame_schema(EMBED_DIM),
                new,
                read_version=0,
                storage_version="2.1",
                properties={},
            )

        assert create().version == 1
        with pytest.raises(ConflictError):
            create()
        assert FrameDataset.open(uri).version == 1

    @pytest.mark.parametrize("version", STORAGE_VERSIONS)
    @pytest.mark.parametrize("embed_dim", [EMBED_DIM, EMBED_DIM + 2])
    def test_each_column_finds_its_own_values_again(self, tmp_path, version, embed_dim):
        """Lance tells columns apart by numbers that differ between formats and modes."""
        uri = str(tmp_path / "kb")
        dataset = FrameDataset.create(uri, embed_dim=EMBED_DIM, storage_version=version)
        dataset.add(document(1))
        record = FrameRecord(
            "new", {"author": "A", "x": {"y": 1}}, unique_id="1", vector=[5] * embed_dim
        )
        with_raw = FrameRecord("raw", unique_id="2", raw_data=b"bytes", raw_data_type="t/x")
        for _ in range(2):
            overwrite(uri, [record, with_raw], embed_dim)
            assert list(FrameDataset.open(uri)) == [record, with_raw]
        FrameDataset.open(uri).add(FrameRecord("more", unique_id="3", raw_data=b"more"))
        lance.dataset(uri).optimize.compact_files()
        read = FrameDataset.open(uri)
        assert [item.raw_data for item in read] == [None, b"bytes", b"more"]
        assert read.lance.data_storage_version == version

    @pytest.mark.parametrize("version", STORAGE_VERSIONS)
    def test_also_over_columns_in_another_order(self, tmp_path, version):
        uri = str(tmp_path / "kb")
        columns = [frame_schema(EMBED_DIM).field(name) for name in FORMAT_COLUMNS]
        random.Random(1).shuffle(columns)
        lance.write_dataset(
            pa.Table.from_pylist([{"uuid": "u", "title": "t"}], schema=pa.schema(columns)),
            uri,
            data_storage_version=version,
        )
        overwrite(uri, [document(1)])
        assert list(FrameDataset.open(uri)) == [document(1)]


class TestAdopting:
    """A dataset that another program made gets what our commits need."""

    @pytest.fixture
    def foreign(self, tmp_path):
        uri = str(tmp_path / "kb")
        schema = pa.schema([frame_schema(EMBED_DIM).field(name) for name in FORMAT_COLUMNS])
        rows = [{"uuid": document(n).uuid, "title": "t", "text_content": "a"} for n in range(3)]
        return lance.write_dataset(pa.Table.from_pylist(rows, schema=schema), uri)

    def test_own_columns_and_one_anchor_appear(self, foreign):
        for _ in range(2):
            adopted = adopt(foreign, Address(str(foreign.uri)))
            assert set(OWN_COLUMNS) < set(adopted.schema.names)
            assert adopted.count_rows(filter=f"uuid = '{ANCHOR_KEY}'") == 1
        assert adopted.version == lance.dataset(foreign.uri).version
        assert len(FrameDataset.open(foreign.uri)) == 3

    def test_indices_stay(self, foreign):
        foreign.create_scalar_index("uuid", "BTREE")
        foreign.create_scalar_index("text_content", "INVERTED")
        adopted = adopt(foreign, Address(str(foreign.uri)))
        assert {index.name for index in adopted.describe_indices()} == {
            "uuid_idx",
            "text_content_idx",
        }
        # The index knows no stop words, so the texts are read for it.
        assert len(FrameDataset.open(foreign.uri).search("a", limit=5)) == 3
        FrameDataset.open(foreign.uri).add(document(8, "walrus"))
        assert len(FrameDataset.open(foreign.uri).search("walrus")) == 1

    def test_an_empty_dataset_can_be_adopted(self, tmp_path):
        schema = pa.schema([frame_schema(EMBED_DIM).field(name) for name in FORMAT_COLUMNS])
        uri = str(tmp_path / "kb")
        adopt(lance.write_dataset(schema.empty_table(), uri), Address(uri))
        FrameDataset.open(uri).add(document(1))
        assert list(FrameDataset.open(uri)) == [document(1)]

    def test_a_lost_anchor_comes_back(self, dataset):
        lance.dataset(dataset.uri).delete(f"uuid = '{ANCHOR_KEY}'")
        FrameDataset.open(dataset.uri).add(document(1, "new"))
        reopened = FrameDataset.open(dataset.uri)
        assert reopened.lance.count_rows(filter=f"uuid = '{ANCHOR_KEY}'") == 1
        assert len(reopened) == 5


class TestChange:
    """New files stay where a version names them, or may come to name them; others are deleted."""

    @pytest.fixture
    def uri(self, tmp_path):
        dataset = FrameDataset.create(str(tmp_path / "kb.lance"), EMBED_DIM)
        dataset.add(document(0))
        return dataset.uri

    @pytest.fixture
    def shared(self, uri):
        return write_rows(Destination(uri), [rows_of(document(1, "shared"))])

    def added(self, uri, new, shared, meet=lambda: None, fail=None):
        """Builds a transaction that adds what was written before, and an anchor row."""
        latest = lance.dataset(uri)
        new += write_rows(Destination(uri), [anchor()])
        removal = remove_keys(latest, pa.array([ANCHOR_KEY]))

        def commit():
            meet()
            if fail is not None:
                raise fail
            return commit_update(
                latest, removal, [*shared, *new], properties={}, at=Address(str(latest.uri))
            )

        return Pending(commit, lambda committed: int(committed.version))

    def test_what_was_committed_stays_and_the_version_is_told(self, uri, shared):
        version = change(Address(uri), lambda new: self.added(uri, new, shared), files=shared)
        assert version == lance.dataset(uri).version
        assert data_files(uri) == named_files(uri)
        assert FrameDataset.open(uri).get("1").text_content == "shared"

    def test_who_meets_another_commit_builds_anew_and_leaves_no_file_of_the_first_attempt(
        self, uri, shared
    ):
        others = iter([document(2, "theirs")])

        def meet():
            for other in others:
                FrameDataset.open(uri).add(other)

        change(Address(uri), lambda new: self.added(uri, new, shared, meet), files=shared)
        assert data_files(uri) == named_files(uri)
        assert {one.text_content for one in FrameDataset.open(uri)} == {"text", "shared", "theirs"}

    def test_a_refusal_leaves_no_files(self, uri, shared):
        def refuse(new):
            self.added(uri, new, shared)
            raise ConcurrentRunError("another run came first")

        with pytest.raises(ConcurrentRunError, match="came first"):
            change(Address(uri), refuse, files=shared)
        assert data_files(uri) == named_files(uri)

    def test_where_nothing_is_to_be_done_no_file_stays(self, uri, shared):
        def done(new):
            self.added(uri, new, shared)
            return "done before"

        before = lance.dataset(uri).version
        assert change(Address(uri), done, files=shared) == "done before"
        assert lance.dataset(uri).version == before
        assert data_files(uri) == named_files(uri)

    @pytest.mark.parametrize("failure", [UnknownCommitError("no answer"), DatasetError("no route")])
    def test_files_stay_that_a_late_request_may_name(self, uri, shared, failure):
        named = named_files(uri)
        with pytest.raises(type(failure)):
            change(
                Address(uri), lambda new: self.added(uri, new, shared, fail=failure), files=shared
            )
        assert named_files(uri) == named
        assert len(data_files(uri) - named) == 2

    def test_they_stay_when_a_later_attempt_is_refused(self, uri, shared):
        named = named_files(uri)
        gone = OSError("Not found: kb.lance/data/0.lance")

        def build(new):
            if data_files(uri) - named > {path for one in shared for path in one.paths}:
                raise ConcurrentRunError("another run came first")
            return self.added(uri, new, shared, fail=gone)

        with pytest.raises(ConcurrentRunError, match="came first"):
            change(Address(uri), build, files=shared)
        assert len(data_files(uri) - named) == 2
