"""FrameDataset: create, add, read, search and delete; what others wrote; many at once."""

import os
import random
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam import (
    ConcurrentRunError,
    ConfigError,
    DatasetError,
    FrameDataset,
    FrameRecord,
    RecordError,
    SchemaError,
    frame_schema,
)
from contextframe_beam.frames.record import RESERVED, uuid_of
from contextframe_beam.frames.schema import FORMAT_COLUMNS, OWN_COLUMNS, STORAGE_VERSIONS
from contextframe_beam.store import transaction
from contextframe_beam.store.state import ANCHOR_KEY
from tests.support.cli_helpers import start_code
from tests.support.frame_strategies import EMBED_DIM, exact, records
from tests.support.laws import examples
from tests.support.small_disk import read_only_disk_at


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "kb.lance")


@pytest.fixture
def dataset(uri):
    return FrameDataset.create(uri, embed_dim=EMBED_DIM)


@pytest.fixture
def unwritable(tmp_path: Path) -> Iterator[Path]:
    """A folder that can be read and not written; root may write to any but a read-only disk."""
    path = tmp_path / "unwritable"
    if os.geteuid() == 0:
        with read_only_disk_at(path):
            yield path
        return
    path.mkdir()
    path.chmod(0o555)
    yield path
    path.chmod(0o755)


def document(number: int, text: str = "text", **metadata: Any) -> FrameRecord:
    return FrameRecord(text, metadata, unique_id=f"doc:{number}")


def files_below(path: str) -> set[str]:
    return {str(file) for file in Path(path).rglob("*") if file.is_file()}


def at_once(count: int, act: Callable[[int], object]) -> list[BaseException]:
    """Calls `act` in so many threads that begin together; returns what they raised."""
    barrier = threading.Barrier(count)
    raised: list[BaseException] = []

    def run(number: int) -> None:
        barrier.wait()
        try:
            act(number)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


class TestRoundTrip:
    @pytest.mark.parametrize("version", STORAGE_VERSIONS)
    @given(several=st.lists(records(), min_size=1, max_size=8))
    @settings(max_examples=examples(100, few=10))
    def test_records_are_read_as_they_were_added(self, version, several):
        expected = {record.uuid: record for record in several}
        with tempfile.TemporaryDirectory() as folder:
            dataset = FrameDataset.create(
                f"{folder}/kb", embed_dim=EMBED_DIM, storage_version=version
            )
            assert dataset.add_many(several) == len(expected)
            read = {record.uuid: record for record in FrameDataset.open(f"{folder}/kb")}
        assert read.keys() == expected.keys()
        for key, record in read.items():
            assert exact(record) == exact(expected[key])

    @pytest.mark.parametrize("version", STORAGE_VERSIONS)
    def test_raw_data_of_any_size(self, uri, version):
        dataset = FrameDataset.create(uri, embed_dim=EMBED_DIM, storage_version=version)
        several = [
            FrameRecord("t", unique_id=str(size), raw_data=os.urandom(size), raw_data_type="a/b")
            for size in (0, 1, 5_000, 100_000, 5_000_000)
        ]
        dataset.add_many([*several, FrameRecord("t", unique_id="none")])
        for record in several:
            assert dataset.get(record.unique_id) == record
        assert dataset.get("none").raw_data is None
        dataset.add(dataset.get("5000"))
        assert dataset.get("5000") == several[2]

    def test_a_record_read_changed_and_added_is_replaced(self, dataset):
        for record in (FrameRecord("no id", {"b": 1, "a": [2]}), document(1, tags=["t"])):
            dataset.add(record)
            [read] = [found for found in dataset if found == record]
            dataset.add(read)
        assert len(dataset) == 2


class TestCreating:
    def test_a_new_dataset_is_empty_and_has_the_columns_of_the_format(self, uri):
        dataset = FrameDataset.create(uri)
        assert len(dataset) == 0
        assert list(dataset) == []
        assert dataset.embed_dim == 1536
        assert tuple(dataset.schema.names) == (*FORMAT_COLUMNS, *OWN_COLUMNS)
        assert dataset.schema.field("uuid").nullable is False
        assert "version=1" in repr(dataset)

    @pytest.mark.parametrize("version", STORAGE_VERSIONS)
    def test_in_each_file_format(self, uri, version):
        FrameDataset.create(uri, storage_version=version).add(document(1))
        assert FrameDataset.open(uri).lance.data_storage_version == version

    def test_the_default_format_is_one_that_earlier_readers_open(self, dataset):
        assert dataset.lance.data_storage_version == "2.1"

    def test_folders_above_it_are_made(self, tmp_path):
        FrameDataset.create(tmp_path / "a" / "b" / "kb.lance").add(document(1))
        assert len(FrameDataset.open(tmp_path / "a" / "b" / "kb.lance")) == 1

    @pytest.mark.parametrize("name", ["with space", "100%", "a%20b", "it's", "ü#?&=:", "slash/"])
    def test_names_of_any_kind(self, tmp_path, name):
        path = f"{tmp_path}/{name}"
        FrameDataset.create(path, embed_dim=EMBED_DIM).add(document(1))
        FrameDataset.open(path).add(document(1, "new"))
        assert FrameDataset.open(path).delete("doc:1")
        assert (tmp_path / name / "data").is_dir()

    def test_a_relative_path_survives_a_change_of_directory(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        dataset = FrameDataset.create("kb", embed_dim=EMBED_DIM)
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        dataset.add(document(1))
        assert len(FrameDataset.open(tmp_path / "kb")) == 1

    def test_where_there_is_one_already(self, dataset):
        dataset.add(document(1))
        before = files_below(dataset.uri)
        with pytest.raises(DatasetError, match=r"exists already; use FrameDataset\.open"):
            FrameDataset.create(dataset.uri)
        assert files_below(dataset.uri) == before
        assert len(FrameDataset.open(dataset.uri)) == 1

    def test_many_at_once_make_one(self, uri):
        raised = at_once(4, lambda _: FrameDataset.create(uri, embed_dim=EMBED_DIM))
        assert all(isinstance(error, DatasetError) for error in raised)
        assert all("exists already" in str(error) for error in raised)
        assert len(raised) == 3
        assert FrameDataset.open(uri).version == 1
        assert len(list(Path(uri, "data").iterdir())) == 1

    @pytest.mark.parametrize("embed_dim", [0, -1, 1.5, "384", None])
    def test_a_vector_has_a_whole_number_of_dimensions(self, uri, embed_dim):
        with pytest.raises(SchemaError, match=r"embed_dim is .* expected a whole number"):
            FrameDataset.create(uri, embed_dim=embed_dim)
        assert not Path(uri).exists()

    def test_a_file_format_that_does_not_exist(self, uri):
        with pytest.raises(ConfigError, match=r"choose one of 2\.0, 2\.1, 2\.2"):
            FrameDataset.create(uri, storage_version="1.0")

    def test_where_there_is_a_file(self, tmp_path):
        (tmp_path / "file").write_text("text")
        for path in (tmp_path / "file", tmp_path / "file" / "kb"):
            with pytest.raises(DatasetError, match="file"):
                FrameDataset.create(path)
        assert (tmp_path / "file").read_text() == "text"

    def test_where_nothing_may_be_written(self, unwritable):
        message = "cannot write to .*(Permission denied|Read-only).*nothing was committed, check"
        with pytest.raises(DatasetError, match=message) as error:
            FrameDataset.create(unwritable / "kb")
        assert str(unwritable) in str(error.value)
        assert os.listdir(unwritable) == []


class TestOpening:
    def test_where_there_is_none(self, tmp_path):
        for path in (tmp_path / "no", tmp_path):
            with pytest.raises(DatasetError, match="there is no dataset at"):
                FrameDataset.open(path)

    def test_an_earlier_version_can_be_read_but_not_written(self, dataset):
        dataset.add(document(1, "old"))
        version = dataset.version
        dataset.add(document(1, "new"))
        dataset.add(document(2))
        earlier = FrameDataset.open(dataset.uri, version=version)
        assert [record.text_content for record in earlier] == ["old"]
        for write in (
            lambda: earlier.add(document(3)),
            lambda: earlier.add_many([]),
            lambda: earlier.delete("doc:1"),
        ):
            with pytest.raises(DatasetError, match="opened to read"):
                write()
        assert len(FrameDataset.open(dataset.uri)) == 2

    @pytest.mark.parametrize("version", [99, 0, -1])
    def test_a_version_that_does_not_exist(self, dataset, version):
        with pytest.raises(DatasetError, match=str(version)):
            FrameDataset.open(dataset.uri, version=version)


class TestAdding:
    def test_a_record_of_the_same_id_is_replaced(self, dataset):
        dataset.add(document(1, "old", author="A"))
        dataset.add(document(1, "new"))
        assert list(dataset) == [document(1, "new")]

    def test_many_records_are_one_version(self, dataset):
        several = [document(number) for number in range(3000)]
        assert dataset.add_many(iter(several)) == 3000
        assert dataset.version == 2
        assert sorted(record.unique_id for record in dataset) == sorted(
            record.unique_id for record in several
        )

    def test_of_one_id_given_twice_the_last_record_counts(self, dataset):
        several = [document(1, "first"), document(2), document(1, "last")]
        assert dataset.add_many(several) == 2
        assert dataset.get("doc:1").text_content == "last"

    def test_also_when_they_are_far_apart(self, dataset):
        several = [document(number % 1500, str(number)) for number in range(3000)]
        assert dataset.add_many(several) == 1500
        assert dataset.get("doc:7").text_content == "1507"

    def test_nothing_to_add_makes_no_version(self, dataset):
        assert dataset.add_many([]) == 0
        assert FrameDataset.open(dataset.uri).version == 1

    def test_one_bad_record_and_none_is_added(self, dataset):
        before = files_below(dataset.uri)
        bad = document(2, score=float("nan"))
        with pytest.raises(RecordError, match=r"doc:2.*metadata\['score'\] is nan"):
            dataset.add_many([document(1), bad, document(3)])
        assert len(dataset) == 0
        assert files_below(dataset.uri) == before

    @pytest.mark.parametrize("odd", [None, {"text_content": "a"}, "text"])
    def test_what_is_no_record(self, dataset, odd):
        with pytest.raises(RecordError, match="is not a FrameRecord"):
            dataset.add(odd)

    def test_a_vector_of_another_length(self, dataset):
        with pytest.raises(RecordError, match="vector has 3 values and the dataset holds 4"):
            dataset.add(FrameRecord("a", vector=[1, 2, 3]))

    def test_the_datasets_own_rows_cannot_be_replaced(self, dataset):
        with pytest.raises(RecordError, match="choose another prefix"):
            dataset.add(FrameRecord("a", unique_id=f"{RESERVED}anchor"))

    def test_a_handle_that_is_behind_adds_to_what_is_there_now(self, dataset):
        behind = FrameDataset.open(dataset.uri)
        dataset.add(document(1, "old"))
        behind.add(document(1, "new"))
        behind.add(document(2))
        assert len(behind) == 2
        assert FrameDataset.open(dataset.uri).get("doc:1").text_content == "new"

    def test_a_dataset_that_is_gone(self, dataset):
        for file in files_below(dataset.uri):
            Path(file).unlink()
        with pytest.raises(DatasetError, match="no longer a dataset"):
            dataset.add(document(1))


class TestManyAtOnce:
    def test_threads_that_add_the_same_new_id_leave_one_row(self, dataset):
        opened = [FrameDataset.open(dataset.uri) for _ in range(4)]
        assert at_once(4, lambda n: opened[n].add(document(1, str(n)))) == []
        assert len(FrameDataset.open(dataset.uri)) == 1

    def test_so_do_processes(self, dataset):
        program = (
            "import sys\n"
            "from contextframe_beam import FrameDataset, FrameRecord\n"
            "dataset = FrameDataset.open(sys.argv[1])\n"
            "sys.stdin.readline()\n"
            "for number in range(5):\n"
            "    dataset.add(FrameRecord(sys.argv[2], unique_id=str(number)))\n"
        )
        children = [start_code(program, dataset.uri, name) for name in ("a", "b")]
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        assert [child.wait() for child in children] == [0, 0]
        assert sorted(record.unique_id for record in FrameDataset.open(dataset.uri)) == [
            str(number) for number in range(5)
        ]

    def test_also_on_a_dataset_that_another_program_made(self, uri):
        write_foreign(uri, [{"uuid": uuid_of("a"), "title": "t"}])
        opened = [FrameDataset.open(uri) for _ in range(4)]
        assert at_once(4, lambda n: opened[n].add(document(1, str(n)))) == []
        latest = FrameDataset.open(uri)
        assert len(latest) == 2
        assert latest.lance.count_rows(filter=f"uuid = '{ANCHOR_KEY}'") == 1

    def test_searches_that_all_find_no_index(self, dataset):
        dataset.add_many([document(number, "walrus") for number in range(5)])
        opened = [FrameDataset.open(dataset.uri) for _ in range(4)]
        found: list[int] = []
        assert at_once(4, lambda n: found.append(len(opened[n].search("walrus")))) == []
        assert found == [5] * 4

    def test_whoever_never_gets_through_leaves_no_files(self, dataset, monkeypatch):
        monkeypatch.setattr(transaction, "_ATTEMPTS", 2)
        dataset.add(document(1))
        latest = dataset._latest

        def latest_and_then_another() -> lance.LanceDataset:
            found = latest()
            FrameDataset.open(dataset.uri).add(document(1, "theirs"))
            return found

        unlucky = FrameDataset.open(dataset.uri)
        unlucky.add(document(2))
        monkeypatch.setattr(unlucky, "_latest", latest_and_then_another)
        with pytest.raises(ConcurrentRunError, match="nothing was committed"):
            unlucky.add(document(3, "mine"))
        final = FrameDataset.open(dataset.uri)
        assert final.get("doc:3") is None
        assert set(os.listdir(f"{dataset.uri}/data")) == {
            file.path
            for version in final.history()
            for fragment in FrameDataset.open(dataset.uri, version.version).lance.get_fragments()
            for file in fragment.metadata.files
        }

    def test_columns_that_change_under_an_edit_stop_it(self, dataset, monkeypatch):
        dataset.add(document(1))
        calls: list[int] = []
        latest = dataset._latest

        def latest_with_another_column() -> lance.LanceDataset:
            calls.append(1)
            if len(calls) == 2:
                lance.dataset(dataset.uri).add_columns(pa.schema([pa.field("x_new", pa.string())]))
            return latest()

        monkeypatch.setattr(dataset, "_latest", latest_with_another_column)
        with pytest.raises(ConcurrentRunError, match=r"columns .* were changed"):
            dataset.add(document(2))
        FrameDataset.open(dataset.uri).add(document(2))
        assert len(FrameDataset.open(dataset.uri)) == 2


ODD_IDS = ["it's", 'a "b"', "x'; DROP TABLE", "' OR '1'='1", "\\", "%", "", "ü", "a\nb", "--"]


class TestGettingAndDeleting:
    def test_by_unique_id_and_by_uuid_in_any_case(self, dataset):
        dataset.add_many([document(1), document(2)])
        key = uuid_of("doc:2")
        for id in ("doc:2", key, key.upper()):
            assert dataset.get(id) == document(2)
        assert dataset.get("doc:3") is None

    def test_by_the_unique_id_of_a_record_whose_uuid_is_its_own(self, dataset):
        key = "f47ac10b-58cc-4372-a567-0e02b2c3d479"
        dataset.add(document(1, uuid=key.upper()))
        assert dataset.get(key) == dataset.get("doc:1") == document(1, uuid=key.upper())

    def test_a_record_without_an_id_is_found_by_its_uuid(self, dataset):
        record = FrameRecord("no id")
        dataset.add(record)
        assert dataset.get(record.uuid) == record
        assert dataset.delete(record.uuid)
        assert len(dataset) == 0

    def test_quotes_and_the_like_in_ids(self, dataset):
        several = [FrameRecord(id, unique_id=id) for id in ODD_IDS if id]
        dataset.add_many(several)
        for record in several:
            assert dataset.get(record.unique_id) == record
            assert dataset.delete(record.unique_id)
            assert dataset.get(record.unique_id) is None
        assert len(dataset) == 0
        assert dataset.get("") is None

    def test_deleting_says_whether_there_was_one(self, dataset):
        dataset.add(document(1))
        version = dataset.version
        assert dataset.delete("doc:2") is False
        assert FrameDataset.open(dataset.uri).version == version
        assert dataset.delete("doc:1") is True
        assert dataset.delete("doc:1") is False
        assert list(FrameDataset.open(dataset.uri)) == []

    def test_a_handle_that_is_behind_deletes_what_is_there_now(self, dataset):
        behind = FrameDataset.open(dataset.uri)
        dataset.add(document(1))
        assert behind.delete("doc:1") is True

    @pytest.mark.parametrize("id", [None, 5, b"doc:1"])
    def test_an_id_is_text(self, dataset, id):
        for act in (dataset.get, dataset.delete):
            with pytest.raises(ConfigError, match="expected a unique_id or uuid"):
                act(id)
        with pytest.raises(ConfigError, match="lone surrogate"):
            dataset.get("\ud800")

    def test_the_datasets_own_rows_are_not_found(self, dataset):
        for id in (ANCHOR_KEY, f"{RESERVED}anchor"):
            assert dataset.get(id) is None
            assert dataset.delete(id) is False


class TestReadingInBatches:
    def test_columns_and_sizes_are_as_asked(self, dataset):
        dataset.add_many([document(number, author="A") for number in range(10)])
        batches = list(dataset.batches(["author", "uuid"], batch_size=4))
        assert all(batch.schema.names == ["author", "uuid"] for batch in batches)
        assert all(batch.num_rows <= 4 for batch in batches)
        assert sum(batch.num_rows for batch in batches) == 10

    def test_all_columns_unless_asked(self, dataset):
        dataset.add(FrameRecord("a", unique_id="1", raw_data=b"raw"))
        [batch] = dataset.batches()
        assert batch.schema.names == dataset.schema.names
        assert batch["raw_data"].to_pylist() == [b"raw"]

    def test_a_column_that_does_not_exist(self, dataset):
        with pytest.raises(ConfigError, match="no column autor; it has uuid"):
            list(dataset.batches(["autor"]))


class TestSearching:
    @pytest.fixture
    def library(self, dataset):
        dataset.add_many(
            [
                document(1, "walrus", author="O'Brien", position=1, status="open"),
                document(2, "walrus " * 5 + "penguin", author='say "hi"', position=2),
                document(3, "penguin", author="O'Brien", tags=["ice", "sea"]),
            ]
        )
        return dataset

    def test_the_best_match_comes_first_with_its_score(self, library):
        found = library.search("walrus")
        assert [record.unique_id for record in found] == ["doc:2", "doc:1"]
        assert found[0].score > found[1].score > 0
        assert found[1] == document(1, "walrus", author="O'Brien", position=1, status="open")

    def test_the_index_is_made_once(self, library):
        library.search("walrus")
        version = library.version
        library.search("penguin")
        FrameDataset.open(library.uri).search("walrus")
        assert FrameDataset.open(library.uri).version == version
        assert library.history()[-1].mode == "index"

    def test_rows_added_and_replaced_after_it_was_made_are_found(self, library):
        library.search("walrus")
        library.add_many([document(4, "narwhal"), document(1, "seagull")])
        for searched in (library, FrameDataset.open(library.uri)):
            assert [record.unique_id for record in searched.search("narwhal")] == ["doc:4"]
            assert [record.unique_id for record in searched.search("walrus")] == ["doc:2"]

    def test_deleted_rows_are_not_found(self, library):
        library.search("walrus")
        library.delete("doc:2")
        assert [record.unique_id for record in library.search("walrus")] == ["doc:1"]

    def test_a_limit_keeps_the_best(self, library):
        assert [record.unique_id for record in library.search("walrus", limit=1)] == ["doc:2"]

    @pytest.mark.parametrize(
        ("where", "expected"),
        [
            ({"author": "O'Brien"}, ["doc:1"]),
            ({"author": 'say "hi"'}, ["doc:2"]),
            ("author = 'O''Brien'", ["doc:1"]),
            ({"position": 2}, ["doc:2"]),
            ({"position": 2, "author": "O'Brien"}, []),
            ({"status": None}, ["doc:2"]),
            ("position = 1 OR position = 2", ["doc:2", "doc:1"]),
            ("position > 1 -- and no more\n", ["doc:2"]),
            ("array_has(tags, 'sea')", []),
            ({}, ["doc:2", "doc:1"]),
            ("", ["doc:2", "doc:1"]),
        ],
    )
    def test_filters(self, library, where, expected):
        found = library.search("walrus", where=where)
        assert [record.unique_id for record in found] == expected

    @pytest.mark.parametrize("value", ODD_IDS)
    def test_a_filter_value_is_never_sql(self, library, value):
        library.add(document(9, "walrus", author=value))
        found = library.search("walrus", where={"author": value})
        assert [record.unique_id for record in found] == ["doc:9"]

    def test_a_filter_works_on_each_column_with_one_value(self, library):
        for field in library.schema:
            if field.type in (pa.string(), pa.int32()):
                value = 1 if field.type == pa.int32() else "x"
                library.search("walrus", where={field.name: value})
                library.nearest([0] * EMBED_DIM, where={field.name: value})

    @pytest.mark.parametrize(
        ("where", "message"),
        [
            ({"autor": "x"}, "no column autor; it has uuid"),
            ("autor = 'x'", "autor"),
            ("author =", "cannot be used"),
            ("author = 'x", "cannot be used"),
            ({"position": "one"}, "cannot be run"),
            ({"author": ["x"]}, "cannot compare with"),
            ({"position": float("nan")}, "cannot compare with"),
            ({"author": "\ud800"}, "lone surrogate"),
            ("author = '\ud800'", "lone surrogate"),
        ],
    )
    def test_a_filter_that_cannot_be_understood(self, library, where, message):
        with pytest.raises(ConfigError, match=message):
            library.search("walrus", where=where)
        with pytest.raises(ConfigError, match=message):
            library.nearest([0] * EMBED_DIM, where=where)

    @pytest.mark.parametrize("text", ["", "  ", "\n"])
    def test_a_search_for_nothing(self, library, text):
        with pytest.raises(ConfigError, match="at least one word"):
            library.search(text)

    @pytest.mark.parametrize(
        "text",
        ["'", '"unclosed', "!!!", "AND", "a OR", "the", "\x00", "\ud800", "x" * 50_000, "(*"],
    )
    def test_odd_words_find_nothing_and_break_nothing(self, library, text):
        assert library.search(text) == []

    @pytest.mark.parametrize("limit", [0, -1, 1.5, None, "3"])
    def test_a_limit_is_a_number_from_one_on(self, library, limit):
        with pytest.raises(ConfigError, match="limit is"):
            library.search("walrus", limit=limit)
        with pytest.raises(ConfigError, match="limit is"):
            library.nearest([0] * EMBED_DIM, limit=limit)

    def test_a_dataset_without_text_finds_nothing(self, dataset):
        assert dataset.search("walrus") == []
        dataset.add(FrameRecord(None, unique_id="1"))
        assert dataset.search("walrus") == []
        assert not list(dataset.lance.describe_indices())

    def test_an_earlier_version_without_an_index_is_read_through(self, library):
        version = library.version
        found = [record.unique_id for record in library.search("walrus")]
        earlier = FrameDataset.open(library.uri, version=version)
        assert [record.unique_id for record in earlier.search("walrus")] == found
        assert len(earlier.search("walrus", where={"author": "O'Brien"})) == 1
        assert earlier.search("nothing") == []
        assert earlier.version == version
        assert FrameDataset.open(library.uri).version == version + 1


class TestNearest:
    @pytest.fixture
    def library(self, dataset):
        dataset.add_many(
            [
                FrameRecord("a", {"author": "O'Brien"}, unique_id="1", vector=[1, 0, 0, 0]),
                FrameRecord("b", {"author": "Ada"}, unique_id="2", vector=[0.9, 0, 0, 0]),
                FrameRecord("c", {"author": "O'Brien"}, unique_id="3", vector=[0, 0, 0, 5]),
                FrameRecord("d", {"author": "O'Brien"}, unique_id="4"),
            ]
        )
        return dataset

    def test_the_nearest_comes_first_with_its_distance(self, library):
        found = library.nearest(np.array([1, 0, 0, 0]))
        assert [record.unique_id for record in found] == ["1", "2", "3"]
        assert found[0].score == 0
        assert found[0].score < found[1].score < found[2].score
        assert found[0].vector.tolist() == [1, 0, 0, 0]

    def test_with_a_filter_the_limit_counts_what_passes_it(self, library):
        found = library.nearest([0.9, 0, 0, 0], limit=2, where={"author": "O'Brien"})
        assert [record.unique_id for record in found] == ["1", "3"]

    def test_rows_added_later_are_found(self, library):
        library.add(FrameRecord("e", unique_id="5", vector=[1, 0, 0, 0.01]))
        assert {record.unique_id for record in library.nearest([1, 0, 0, 0], limit=2)} == {"1", "5"}

    @pytest.mark.parametrize(
        ("vector", "message"),
        [
            ([1, 2], "vector has 2 values and the dataset holds 4"),
            ([[1, 2, 3, 4]], "shape"),
            (None, "no row of numbers"),
            ("abcd", "no row of numbers"),
            ([1, 2, 3, float("nan")], "NaN"),
            ([1, 2, 3, 1e300], "infinity"),
        ],
    )
    def test_a_vector_that_is_none(self, library, vector, message):
        with pytest.raises(ConfigError, match=message):
            library.nearest(vector)

    def test_without_vectors_nothing_is_near(self, dataset):
        dataset.add(document(1))
        assert dataset.nearest([1, 0, 0, 0]) == []


class TestOwnRows:
    """What the dataset keeps for itself never shows among the documents."""

    def test_they_are_in_no_answer(self, dataset):
        dataset.add_many(
            [document(number, "contextframe state anchor beam") for number in range(3)]
        )
        assert dataset.lance.count_rows() == 4
        assert len(dataset) == 3
        shown = [
            *dataset,
            *dataset.search("contextframe state anchor beam", limit=50),
            *dataset.search("beam", limit=50, where="uuid IS NOT NULL OR TRUE"),
            *dataset.nearest([0] * EMBED_DIM, limit=50, where="TRUE OR TRUE"),
        ]
        assert {record.unique_id for record in shown} == {f"doc:{number}" for number in range(3)}
        assert sum(batch.num_rows for batch in dataset.batches()) == 3


class TestHistory:
    def test_each_version_says_what_made_it_and_what_it_counted(self, dataset):
        dataset.add_many([document(1), document(2)])
        dataset.delete("doc:1")
        dataset.search("text")
        dataset.lance.optimize.compact_files()
        history = FrameDataset.open(dataset.uri).history()
        assert [(entry.mode, dict(entry.counts)) for entry in history[:4]] == [
            ("create", {}),
            ("add", {"written": 2}),
            ("delete", {"deleted": 1}),
            ("index", {}),
        ]
        assert history[-1].mode == "compact"
        assert [entry.version for entry in history] == list(range(1, len(history) + 1))
        moments = [entry.at for entry in history]
        assert moments == sorted(moments)
        assert all(moment.tzinfo for moment in moments)

    def test_versions_that_were_cleaned_up_are_not_in_it(self, dataset):
        for number in range(3):
            dataset.add(document(number))
        from datetime import timedelta

        dataset.lance.cleanup_old_versions(timedelta(0))
        history = FrameDataset.open(dataset.uri).history()
        assert [entry.version for entry in history] == [dataset.version]


def write_foreign(
    uri: str,
    rows: list[dict[str, Any]],
    *,
    names: tuple[str, ...] = FORMAT_COLUMNS,
    version: str = "2.1",
    extra: pa.Field | None = None,
) -> None:
    """Writes a dataset as another program of the format does: its 27 columns and no more."""
    schema = pa.schema([frame_schema(EMBED_DIM).field(name) for name in names])
    if extra is not None:
        schema = schema.append(extra)
    lance.write_dataset(
        pa.Table.from_pylist(rows, schema=schema), uri, data_storage_version=version
    )


class TestDatasetsOfOthers:
    ROWS: tuple[dict[str, Any], ...] = (
        {
            "uuid": uuid_of("one"),
            "title": "One",
            "text_content": "walrus",
            "tags": ["t"],
            "context": "plain words",
            "custom_metadata": [{"key": "k", "value": "[1]"}],
            "relationships": [{"type": "parent", "uri": "two"}],
            "vector": [1.0, 0, 0, 0],
            "raw_data": b"raw",
        },
        {"uuid": uuid_of("two"), "title": "Two", "uri": "https://example.org/two"},
    )

    @pytest.mark.sample
    @pytest.mark.parametrize("version", STORAGE_VERSIONS)
    @pytest.mark.parametrize("order", ["format", "reversed", "shuffled"])
    @pytest.mark.parametrize("extra", [None, pa.field("x_more", pa.int64())])
    def test_they_are_read_searched_and_added_to(self, uri, version, order, extra):
        names = {
            "format": FORMAT_COLUMNS,
            "reversed": FORMAT_COLUMNS[::-1],
            "shuffled": tuple(random.Random(7).sample(FORMAT_COLUMNS, len(FORMAT_COLUMNS))),
        }[order]
        rows = [{**row, "raw_data": None} if version == "2.2" else dict(row) for row in self.ROWS]
        write_foreign(uri, rows, names=names, version=version, extra=extra)
        dataset = FrameDataset.open(uri)
        one, two = dataset
        assert (one.text_content, one.raw_data) == ("walrus", rows[0]["raw_data"])
        assert one.metadata["relationships"] == [{"type": "parent", "uri": "two"}]
        assert one.metadata["k"] == "[1]"
        assert one.context == {"text": "plain words"}
        assert two.unique_id == "https://example.org/two"

        record = FrameRecord(
            "penguin", {"n": {"a": 1}}, unique_id="n", vector=[0, 1, 0, 0], raw_data=b"new"
        )
        one.text_content = "seal"
        dataset.add_many([record, one])
        assert set(OWN_COLUMNS) < set(dataset.schema.names)
        latest = FrameDataset.open(uri)
        assert len(latest) == 3
        assert latest.get("n") == record
        assert latest.get(uuid_of("one")) == one
        assert [found.unique_id for found in latest.search("penguin")] == ["n"]
        assert [found.unique_id for found in latest.nearest([0, 1, 0, 0], limit=1)] == ["n"]
        assert latest.search("walrus") == []

    def test_reading_changes_nothing(self, uri):
        write_foreign(uri, list(self.ROWS))
        dataset = FrameDataset.open(uri)
        assert len(list(dataset)) == len(dataset) == 2
        assert dataset.states() == []
        assert dataset.get(uuid_of("two")).metadata["title"] == "Two"
        assert dataset.delete("nothing") is False
        assert FrameDataset.open(uri).version == 1

    def test_an_empty_one(self, uri):
        write_foreign(uri, [])
        dataset = FrameDataset.open(uri)
        assert (len(dataset), list(dataset), dataset.search("x")) == (0, [], [])
        dataset.add(document(1))
        assert list(FrameDataset.open(uri)) == [document(1)]

    def test_a_uuid_that_may_be_null_is_fine(self, uri):
        schema = frame_schema(EMBED_DIM)
        columns = [schema.field(name).with_nullable(True) for name in FORMAT_COLUMNS]
        table = pa.Table.from_pylist(list(self.ROWS), schema=pa.schema(columns))
        lance.write_dataset(table, uri, data_storage_version="2.1")
        FrameDataset.open(uri).add(document(1))
        assert len(FrameDataset.open(uri)) == 3


def changed(name: str, kind: pa.DataType) -> pa.Schema:
    schema = pa.schema([frame_schema(EMBED_DIM).field(column) for column in FORMAT_COLUMNS])
    return schema.set(schema.get_field_index(name), pa.field(name, kind))


def without(name: str) -> pa.Schema:
    return pa.schema(
        [frame_schema(EMBED_DIM).field(column) for column in FORMAT_COLUMNS if column != name]
    )


class TestOtherSchemas:
    @pytest.mark.parametrize(
        ("schema", "message"),
        [
            (pa.schema([("id", pa.int64())]), "it has no column uuid"),
            (without("relationships"), "it has no column relationships"),
            (without("vector").append(pa.field("embedding", pa.float32())), "no column vector"),
            (frame_schema(4).append(pa.field("more", pa.int64())), "extra column more.*x_"),
            (changed("position", pa.int64()), "column position is int64.*has int32"),
            (changed("uuid", pa.int64()), "column uuid is int64"),
            (changed("text_content", pa.large_string()), "column text_content is large_string"),
            (changed("vector", pa.list_(pa.float32())), "column vector is list"),
            (changed("vector", pa.list_(pa.float64(), 4)), "column vector is fixed_size_list"),
            (changed("tags", pa.string()), "column tags is string"),
            (changed("raw_data", pa.string()), "column raw_data is string"),
            (changed("raw_data", pa.int64()), "column raw_data is int64"),
            (
                changed("custom_metadata", pa.list_(pa.struct([("key", pa.string())]))),
                "column custom_metadata is list",
            ),
            (changed("title", pa.string()).append(pa.field("x_digest", pa.string())), "x_digest"),
        ],
    )
    def test_they_are_refused_with_the_column_that_is_wrong(self, uri, schema, message):
        lance.write_dataset(schema.empty_table(), uri, data_storage_version="2.1")
        with pytest.raises(SchemaError, match=message) as error:
            FrameDataset.open(uri)
        assert uri in str(error.value)
        assert lance.dataset(uri).version == 1

    @pytest.mark.parametrize("embed_dim", [1, 2, 4096])
    def test_any_length_of_vector_is_fine(self, uri, embed_dim):
        FrameDataset.create(uri, embed_dim=embed_dim).add(
            FrameRecord("a", unique_id="1", vector=[1] * embed_dim)
        )
        dataset = FrameDataset.open(uri)
        assert dataset.embed_dim == embed_dim
        assert dataset.get("1").vector.tolist() == [1] * embed_dim
