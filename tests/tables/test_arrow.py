"""Arrow on disk: whatever it is called, its content tells how it is read."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import feather

from contextframe_beam.connectors.tables.arrow import ArrowConnector
from contextframe_beam.errors import ConfigError
from tests.support.table_reading import read

ROWS = pa.table(
    {"id": [f"{n:03}" for n in range(200)], "text": ["x" * 900 + str(n) for n in range(200)]}
)


def ipc_file(path: Path, codec: str | None = None) -> None:
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.ipc.new_file(path, ROWS.schema, options=options) as writer:
        writer.write_table(ROWS, max_chunksize=10)


def ipc_stream(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, ROWS.schema) as writer:
        writer.write_table(ROWS, max_chunksize=10)


def packed_stream(path: Path) -> None:
    ipc_stream(path)
    path.write_bytes(gzip.compress(path.read_bytes()))


def feather_1(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        feather.write_feather(ROWS, str(path), version=1)


WRITERS: dict[str, Callable[[Path], None]] = {
    "file": ipc_file,
    "file, LZ4": lambda path: ipc_file(path, "lz4"),
    "file, ZSTD": lambda path: ipc_file(path, "zstd"),
    "stream": ipc_stream,
    "stream, gzip": packed_stream,
    "Feather 1": feather_1,
    "Feather 2": lambda path: feather.write_feather(ROWS, str(path), chunksize=20),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_each_row_is_read_once(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.arrow"
    WRITERS[kind](file)
    found = read(ArrowConnector(file))
    assert found.column("id") == ROWS["id"].to_pylist() and not found.failures
    mapping = {"id": "id", "text": "id", "metadata": []}
    some = read(ArrowConnector(file, mapping=mapping, filter="id < '010'"))
    assert some.items == [{"id": f"{n:03}"} for n in range(10)]


def test_a_large_file_is_cut_between_record_batches(tmp_path: Path) -> None:
    ipc_file(tmp_path / "rows.arrow")
    found = read(ArrowConnector(tmp_path / "rows.arrow"))
    assert found.blocks == 3
    assert any("record batch 7, rows 0 to 9" in one for one in found.positions)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"id,text\n1,2\n", "neither an Arrow file nor an Arrow stream"),
        (b"ARROW1\0\0" + b"x" * 100, "cut off or damaged"),
        (b"PAR1", "it is Parquet"),
    ],
)
def test_a_file_that_is_no_arrow_is_a_dead_letter_that_says_why(
    data: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.arrow").write_bytes(data)
    found = read(ArrowConnector(tmp_path))
    assert message in found.messages and not found.items


def test_only_a_lance_dataset_has_versions(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no Lance dataset"):
        ArrowConnector(tmp_path, version=1)
