"""Data files that nobody sees until a transaction names them: all of them, or none."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pytest
from lance.file import LanceFileReader

from contextframe_beam import (
    CommitError,
    DatasetError,
    FrameDataset,
    FrameRecord,
    SchemaError,
    frame_schema,
)
from contextframe_beam.frames.encode import encode_records
from contextframe_beam.frames.schema import STORAGE_VERSIONS
from contextframe_beam.store import files
from contextframe_beam.store import writer as writer_module
from contextframe_beam.store.address import Address, file_uri
from contextframe_beam.store.files import (
    Destination,
    WrittenFragment,
    check_files,
    delete_files,
    open_dataset,
)
from contextframe_beam.store.writer import FragmentWriter, write_rows
from tests.support.cli_helpers import run_code
from tests.support.small_disk import small_disk_at

EMBED_DIM = 3
SCHEMA = frame_schema(EMBED_DIM)


def rows(count: int, *, start: int = 0, text: str = "text", raw_data: bytes | None = None):
    records = [
        FrameRecord(text, unique_id=str(number), raw_data=raw_data)
        for number in range(start, start + count)
    ]
    batch, errors = encode_records(records, embed_dim=EMBED_DIM)
    assert not errors
    return batch


def files_below(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


def until_files_appear(writer: FragmentWriter, path: Path, batch: pa.RecordBatch) -> None:
    """Feeds a writer until Lance has begun to write, at most some 100 MB."""
    for _ in range(2000):
        writer.add(batch)
        if files_below(path):
            return
    raise AssertionError("Lance wrote nothing")


class TestWriting:
    def test_nothing_to_write_makes_no_fragment_and_no_file(self, tmp_path):
        writer = FragmentWriter(Destination(str(tmp_path / "kb")), SCHEMA)
        writer.add(rows(0))
        assert writer.close() == []
        assert files_below(tmp_path) == set()

    def test_fragments_close_at_their_number_of_rows_and_keep_the_order(self, tmp_path):
        uri = str(tmp_path / "kb")
        writer = FragmentWriter(Destination(uri), SCHEMA, max_rows=10)
        for start in range(0, 35, 7):
            writer.add(rows(7, start=start))
        written = writer.close()
        assert [fragment.rows for fragment in written] == [10, 10, 10, 5]
        read = [
            name
            for fragment in written
            for path in fragment.paths
            for batch in LanceFileReader(file_uri(uri, path), columns=["uri"])
            .read_all()
            .to_batches()
            for name in batch["uri"].to_pylist()
        ]
        assert read == [str(number) for number in range(35)]

    def test_fragments_close_at_their_bytes(self, tmp_path):
        writer = FragmentWriter(Destination(str(tmp_path / "kb")), SCHEMA, max_bytes=200_000)
        for start in range(10):
            writer.add(rows(1, start=start, text=os.urandom(100_000).hex()))
        written = writer.close()
        assert len(written) > 2
        assert sum(fragment.rows for fragment in written) == 10

    def test_what_is_written_is_not_in_the_dataset(self, tmp_path):
        dataset = FrameDataset.create(str(tmp_path / "kb"), embed_dim=EMBED_DIM)
        write_rows(Destination(dataset.uri), [rows(5)])
        assert len(FrameDataset.open(dataset.uri)) == 0

    def test_a_fragment_is_described_by_a_few_bytes_of_text(self, tmp_path):
        [fragment] = write_rows(Destination(str(tmp_path / "kb")), [rows(3), rows(4, start=3)])
        assert fragment.rows == 7
        assert WrittenFragment.of(fragment.to_lance(), fragment.keys) == fragment
        assert len(fragment.keys) == 7 * 16
        sizes = [(tmp_path / "kb/data" / path).stat().st_size for path in fragment.paths]
        assert fragment.size == sum(sizes)
        assert len(fragment.metadata) < 1000

    @pytest.mark.parametrize("version", STORAGE_VERSIONS)
    def test_a_new_dataset_gets_the_format_asked_for_and_an_old_one_keeps_its_own(
        self, tmp_path, version
    ):
        uri = str(tmp_path / "kb")
        dataset = FrameDataset.create(uri, embed_dim=EMBED_DIM, storage_version=version)
        for overwrites in (False, True):
            destination = Destination(uri, storage_version="2.1", overwrites=overwrites)
            for fragment in write_rows(destination, [rows(1)]):
                [file] = fragment.to_lance().files
                assert f"{file.file_major_version}.{file.file_minor_version}" == version
        assert dataset.lance.data_storage_version == version

    def test_a_batch_with_other_columns_is_refused_at_once(self, tmp_path):
        """Lance would write it, commit it, and then fail to read it."""
        writer = FragmentWriter(Destination(str(tmp_path / "kb")), SCHEMA)
        other, _ = encode_records([FrameRecord("a")], embed_dim=EMBED_DIM + 1)
        with pytest.raises(SchemaError, match=r"vector fixed_size_list.*\[4\] instead of .*\[3\]"):
            writer.add(other)
        with pytest.raises(SchemaError, match="the columns uuid, title"):
            writer.add(rows(1).select(["uuid", "title"]))
        writer.abort()

    def test_a_closed_writer_takes_no_more(self, tmp_path):
        writer = FragmentWriter(Destination(str(tmp_path / "kb")), SCHEMA)
        writer.add(rows(1))
        assert len(writer.close()) == 1
        with pytest.raises(DatasetError, match="closed"):
            writer.add(rows(1))


class TestBackpressure:
    def test_rows_that_wait_for_the_encoder_are_bounded(self, tmp_path, monkeypatch):
        batch = rows(10, text="x" * 1000)
        size = files.size_of(batch)
        monkeypatch.setattr(writer_module, "_BUFFER_BYTES", 3 * size)
        writer = FragmentWriter(Destination(str(tmp_path / "kb")), SCHEMA)
        most = 0
        for _ in range(200):
            writer.add(batch)
            most = max(most, writer._waiting_bytes)
        assert sum(fragment.rows for fragment in writer.close()) == 2000
        assert size <= most <= 3 * size

    def test_a_batch_larger_than_the_buffer_passes_alone(self, tmp_path, monkeypatch):
        monkeypatch.setattr(writer_module, "_BUFFER_BYTES", 1)
        writer = FragmentWriter(Destination(str(tmp_path / "kb")), SCHEMA)
        for _ in range(5):
            writer.add(rows(2))
        assert sum(fragment.rows for fragment in writer.close()) == 10

    def test_missing_vectors_take_no_room_in_it(self):
        batch, _ = encode_records([FrameRecord("a")] * 1000, embed_dim=1536)
        assert batch["vector"].nbytes > 6_000_000
        assert files.size_of(batch) < 500_000


class TestGivingUp:
    @pytest.mark.parametrize("version", STORAGE_VERSIONS)
    def test_abort_leaves_no_file_of_any_fragment(self, tmp_path, version):
        path = tmp_path / "kb"
        writer = FragmentWriter(Destination(str(path), None, version), SCHEMA, max_rows=20)
        until_files_appear(writer, path, rows(50, raw_data=os.urandom(1000)))
        writer.abort()
        assert files_below(tmp_path) == set()

    def test_abort_before_the_first_row(self, tmp_path):
        FragmentWriter(Destination(str(tmp_path / "kb")), SCHEMA).abort()
        assert files_below(tmp_path) == set()

    def test_an_aborted_writer_has_nothing_to_hand_over(self, tmp_path):
        writer = FragmentWriter(Destination(str(tmp_path / "kb")), SCHEMA)
        writer.add(rows(1))
        writer.abort()
        with pytest.raises(DatasetError):
            writer.close()

    def test_a_source_that_fails_halfway_leaves_no_file(self, tmp_path):
        def batches() -> Iterator[pa.RecordBatch]:
            yield from [rows(20, start=start) for start in range(0, 200, 20)]
            raise OSError("the source broke")

        with pytest.raises(OSError, match="the source broke"):
            write_rows(Destination(str(tmp_path / "kb")), _Lazy(batches()))
        assert files_below(tmp_path) == set()

    def test_a_place_that_cannot_be_written_is_named(self, tmp_path):
        (tmp_path / "file").write_text("no folder")
        writer = FragmentWriter(Destination(str(tmp_path / "file" / "kb")), SCHEMA)
        with pytest.raises(DatasetError, match="file/kb"):
            writer.add(rows(1))
            writer.close()

    def test_an_error_inside_lance_reaches_whoever_waits_for_room(self, tmp_path, monkeypatch):
        monkeypatch.setattr(writer_module, "_BUFFER_BYTES", 1)
        (tmp_path / "file").write_text("no folder")
        writer = FragmentWriter(Destination(str(tmp_path / "file" / "kb")), SCHEMA)
        caught: list[BaseException] = []

        def feed() -> None:
            try:
                while True:
                    writer.add(rows(1))
            except DatasetError as error:
                caught.append(error)

        feeder = threading.Thread(target=feed, daemon=True)
        feeder.start()
        feeder.join(timeout=60)
        assert len(caught) == 1
        assert "nothing was committed" in str(caught[0]) or "cannot open" in str(caught[0])


class _Lazy(list):  # type: ignore[type-arg]
    """A sequence whose first batch is known and whose others are still to come."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        super().__init__([rows(1)])
        self._batches = batches

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self._batches


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    with small_disk_at(tmp_path / "small", 2) as path:
        yield path


class TestAFullDisk:
    def test_the_dataset_stays_as_it_was(self, small_disk):
        dataset = FrameDataset.create(str(small_disk / "kb"), embed_dim=EMBED_DIM)
        dataset.add(FrameRecord("alpha", unique_id="a"))
        before = files_below(small_disk)
        many = [FrameRecord(os.urandom(3000).hex(), unique_id=str(n)) for n in range(1000)]
        with pytest.raises(DatasetError, match=r"No space left.*nothing was committed"):
            dataset.add_many(many)
        assert files_below(small_disk) == before
        assert list(FrameDataset.open(dataset.uri)) == [FrameRecord("alpha", unique_id="a")]

    def test_no_edit_gets_through_halfway(self, small_disk):
        dataset = FrameDataset.create(str(small_disk / "kb"), embed_dim=EMBED_DIM)
        dataset.add(FrameRecord("alpha", unique_id="a"))
        filler = small_disk / "filler"
        with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        before = files_below(small_disk)
        for edit in (
            lambda: dataset.add(FrameRecord("beta", unique_id="b")),
            lambda: dataset.delete("a"),
            dataset.index_text,
        ):
            with pytest.raises(DatasetError, match="No space left"):
                edit()
        assert [one.unique_id for one in dataset.search("alpha")] == ["a"]  # without an index
        assert files_below(small_disk) == before
        filler.unlink()
        dataset.add(FrameRecord("beta", unique_id="b"))
        assert len(FrameDataset.open(dataset.uri)) == 2


# Lance reports success for some files whose last bytes did not fit.
CUT_OFF = """
import resource
import sys

import tests.store.test_fragments as here
from contextframe_beam.errors import DatasetError
from contextframe_beam.store.files import Destination
from contextframe_beam.store.writer import write_rows

to, batch = Destination(sys.argv[1]), here.rows(40)
(whole,) = write_rows(to, [batch])
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
for size in range(64, whole.size, 64):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        write_rows(to, [batch])
    except DatasetError:
        continue
    raise SystemExit(f"{size} of {whole.size} bytes went for a whole file")
"""


def test_a_file_that_was_cut_off_while_it_was_written_is_an_error(tmp_path):
    written = tmp_path / "kb"
    done = run_code(CUT_OFF, written)
    assert done.code == 0, done.err
    assert len(files_below(written)) == 1


class TestCheckingFiles:
    """Lance commits whatever it is told; what is missing then breaks the dataset."""

    @pytest.fixture
    def uri(self, tmp_path):
        return str(tmp_path / "with space & %41/kb")

    @pytest.fixture
    def written(self, uri):
        writer = FragmentWriter(Destination(uri), SCHEMA, max_rows=2)
        writer.add(rows(5))
        return writer.close()

    def test_whole_files_pass(self, uri, written):
        assert len(written) == 3
        check_files(Address(uri), written)
        check_files(Address(f"file://{quote(uri)}"), written)
        check_files(Address(uri), [])

    def test_a_missing_file_is_named(self, uri, written):
        lost = Path(file_uri(uri, written[1].paths[0]))
        lost.unlink()
        with pytest.raises(CommitError, match=f"{lost.name}.*cannot be read.*run it again"):
            check_files(Address(uri), written)

    def test_a_truncated_file_is_named(self, uri, written):
        cut = Path(file_uri(uri, written[2].paths[0]))
        cut.write_bytes(cut.read_bytes()[:-1])
        with pytest.raises(CommitError, match=f"{cut.name}.* bytes instead of "):
            check_files(Address(uri), written)

    def test_raw_data_in_a_file_of_its_own_must_be_whole_too(self, uri):
        # In format 2.2 large raw data lies beside the data file, in a folder of its name.
        written = write_rows(Destination(uri, None, "2.2"), [rows(2, raw_data=bytes(200_000))])
        check_files(Address(uri), written)
        beside = Path(file_uri(uri, written[0].paths[0].removesuffix(".lance")))
        lost = next(file for file in beside.iterdir())
        lost.unlink()
        with pytest.raises(CommitError, match=r"raw data beside .* is not what a worker wrote"):
            check_files(Address(uri), written)

    def test_through_an_object_store_as_well(self, uri, written):
        path = uri
        uri = f"file-object-store://{quote(uri)}"
        check = files._remote_fault
        for fragment in written:
            for name in fragment.paths:
                assert check(file_uri(uri, name), 0, fragment.rows, None) is None
                found = check(file_uri(uri, name), 0, fragment.rows + 1, None)
                assert found == f"holds {fragment.rows} rows instead of {fragment.rows + 1}"
        assert "cannot be read" in str(check(file_uri(uri, "lost.lance"), 0, 1, None))
        [name] = written[0].paths
        cut = Path(file_uri(path, name))
        cut.write_bytes(cut.read_bytes()[:-100])
        assert "cannot be read" in str(check(file_uri(uri, name), 0, 2, None))


class TestDeletingFiles:
    @pytest.mark.parametrize("version", STORAGE_VERSIONS)
    def test_nothing_of_the_fragments_is_left(self, tmp_path, version):
        uri = str(tmp_path / "kb")
        kept = write_rows(Destination(uri, None, version), [rows(2, raw_data=bytes(200_000))])
        before = files_below(tmp_path)
        lost = write_rows(Destination(uri, None, version), [rows(2, raw_data=bytes(200_000))])
        delete_files(Address(uri), lost)
        assert files_below(tmp_path) == before
        check_files(Address(uri), kept)

    def test_files_that_are_gone_already_are_no_error(self, tmp_path, caplog):
        uri = str(tmp_path / "kb")
        lost = write_rows(Destination(uri), [rows(2)])
        delete_files(Address(uri), lost)
        delete_files(Address(uri), lost)
        delete_files(Address(uri), [])
        assert "cannot delete unused files" in caplog.text


class TestOpening:
    def test_where_there_is_nothing(self, tmp_path):
        assert open_dataset(Address(str(tmp_path / "no" / "kb"))) is None
        (tmp_path / "empty").mkdir()
        assert open_dataset(Address(str(tmp_path / "empty"))) is None

    def test_what_is_no_dataset(self, tmp_path):
        (tmp_path / "file").write_text("text")
        with pytest.raises(DatasetError, match="file"):
            open_dataset(Address(str(tmp_path / "file")))

    def test_a_broken_manifest(self, tmp_path):
        dataset = FrameDataset.create(str(tmp_path / "kb"), embed_dim=EMBED_DIM)
        for manifest in (tmp_path / "kb" / "_versions").glob("*.manifest"):
            manifest.write_bytes(b"cut")
        with pytest.raises(DatasetError, match="cannot open"):
            open_dataset(Address(dataset.uri))


def test_a_file_that_a_version_names_is_not_deleted_also_when_it_was_rolled_back(tmp_path):
    dataset = FrameDataset.create(str(tmp_path / "kb.lance"), embed_dim=4)
    before = dataset.version
    dataset.add(FrameRecord("text", unique_id="a:1"))
    named = [WrittenFragment.of(one.metadata) for one in dataset.lance.get_fragments()]
    added = dataset.version
    delete_files(Address(dataset.uri), named)
    assert FrameDataset.open(dataset.uri).get("a:1").text_content == "text"
    dataset.rollback(before)
    delete_files(Address(dataset.uri), named)
    assert FrameDataset.open(dataset.uri, version=added).get("a:1").text_content == "text"
