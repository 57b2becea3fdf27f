"""Parquet: row groups are read apart, only what is needed is read, and all types become items."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contextframe_beam.connectors.tables.parquet import ParquetConnector, ParquetFormat
from contextframe_beam.connectors.tables.ranged import RangedFile
from contextframe_beam.connectors.tables.table_format import Wanted
from contextframe_beam.errors import ConfigError
from tests.support.table_reading import read

ROWS = pa.table(
    {
        "id": [f"{n:03}" for n in range(1000)],
        "text": [f"text {n}" for n in range(1000)],
        "year": [2000 + n // 100 for n in range(1000)],
        "wide": ["x" * 500 + str(n) for n in range(1000)],
    }
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parquet") / "rows.parquet"
    # Without compression, so that it is large enough to be cut.
    pq.write_table(ROWS, path, row_group_size=100, compression="none", use_dictionary=False)
    return path


def test_row_groups_are_read_apart_and_each_row_once(file: Path) -> None:
    found = read(ParquetConnector(file))
    assert found.column("id") == ROWS["id"].to_pylist()
    assert found.blocks > 4
    assert any("row group 3, rows 0 to 99" in one for one in found.positions)


def test_row_groups_that_cannot_meet_a_filter_are_not_read(file: Path) -> None:
    found = read(ParquetConnector(file, filter="year >= 2008 AND text != 'text 801'"))
    assert found.column("id") == [f"{n:03}" for n in range(800, 1000) if n != 801]
    assert found.blocks <= 3


def test_only_mapped_columns_are_read(file: Path) -> None:
    mapping = {"id": "id", "text": "text", "metadata": ["year"]}
    whole, mapped = (
        read_bytes(file, Wanted()),
        read_bytes(file, ParquetConnector(file, mapping=mapping)._wanted_of("", {})),
    )
    assert mapped < whole / 5
    assert set(read(ParquetConnector(file, mapping=mapping)).items[0]) == {"id", "text", "year"}


def read_bytes(file: Path, wanted: Wanted) -> int:
    data, asked = file.read_bytes(), 0

    def at(offset: int, size: int) -> bytes:
        nonlocal asked
        asked += size
        return data[offset : offset + size]

    list(ParquetFormat().rows(RangedFile(at, len(data)), None, wanted))
    return asked


def test_a_filter_reads_its_columns_even_if_nothing_else_needs_them(file: Path) -> None:
    mapping = {"id": "id", "text": "text", "metadata": []}
    found = read(ParquetConnector(file, mapping=mapping, filter="year = 2003"))
    assert len(found.items) == 100 and set(found.items[0]) == {"id", "text"}


BERLIN = pa.timestamp("ns", "Europe/Berlin")
NOON = dt.datetime(2024, 7, 1, 12, tzinfo=dt.timezone.utc)


@pytest.mark.parametrize(
    ("column", "item"),
    [
        (pa.array([7], pa.uint64()), 7),
        (pa.array([1.5], pa.float16()), 1.5),
        (pa.array([Decimal("1.50")], pa.decimal128(5, 2)), Decimal("1.50")),
        (pa.array([Decimal("1.5")], pa.decimal256(60, 1)), Decimal("1.5")),
        (pa.array([dt.date(2024, 1, 2)]), "2024-01-02"),
        (pa.array([dt.time(1, 2, 3)]), "01:02:03"),
        (pa.array([NOON], BERLIN), "2024-07-01T14:00:00+02:00"),
        (pa.array([dt.datetime(2024, 1, 2)], pa.timestamp("ms")), "2024-01-02T00:00:00"),
        (pa.array(["a"]).dictionary_encode(), "a"),
        (pa.array(["a"], pa.large_string()), "a"),
        (pa.array(["a"], pa.string_view()), "a"),
        (pa.array([b"a"]), b"a"),
        (pa.array([[1, None]]), [1, None]),
        (pa.array([[{"n": "x"}]]), [{"n": "x"}]),
        (pa.array([{"a": {"b": 1}}]), {"a": {"b": 1}}),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int8())), {"k": 1}),
        (pa.array([uuid.UUID(int=1).bytes], pa.uuid()), str(uuid.UUID(int=1))),
        (pa.array([True]), True),
        (pa.nulls(1), None),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_any_type_becomes_what_an_item_can_hold(
    column: pa.Array, item: Any, tmp_path: Path
) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["t"], "value": column}), file)
    assert read(ParquetConnector(file)).items == [{"text": "t", "value": item}]
    # A filter goes another way through Arrow.
    assert read(ParquetConnector(file, filter="text = 't'")).items == [{"text": "t", "value": item}]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"id,text\n1,2 and more\n", "it is not Parquet, or is cut off"),
        (b"PAR1" + b"x" * 100 + b"PARE", "it is encrypted Parquet"),
        (b"PAR1" + b"x" * 100 + b"PAR1", "it cannot be read"),
    ],
)
def test_a_file_that_is_no_parquet_is_a_dead_letter_that_says_why(
    data: bytes, message: str, tmp_path: Path
) -> None:
    pq.write_table(ROWS.slice(0, 3), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(data)
    found = read(ParquetConnector(tmp_path))
    assert found.column("id") == ["000", "001", "002"]
    assert len(found.failures) == 1
    assert found.failures[0].position == str(tmp_path / "b.parquet")
    assert message in found.messages


def test_a_damaged_row_group_leaves_the_others(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.parquet"
    facts = pq.ParquetFile(file).metadata.row_group(0).column(0)
    data = bytearray(file.read_bytes())
    data[facts.data_page_offset : facts.data_page_offset + 40] = b"\xff" * 40
    path.write_bytes(data)
    found = read(ParquetConnector(path))
    assert len(found.items) >= 800
    assert f"{path}, row group" in found.messages and "may be damaged" in found.messages


def test_encrypted_columns_say_what_to_do(tmp_path: Path) -> None:
    encryption = pytest.importorskip("pyarrow.parquet.encryption")

    class Plain(encryption.KmsClient):  # type: ignore[misc]
        def __init__(self, _: Any) -> None:
            super().__init__()

        def wrap_key(self, key: bytes, name: str) -> str:
            return key.hex()

        def unwrap_key(self, key: str, name: str) -> bytes:
            return bytes.fromhex(key)

    factory = encryption.CryptoFactory(Plain)
    for is_plain in (False, True):
        how = encryption.EncryptionConfiguration(
            footer_key="f", column_keys={"c": ["text"]}, plaintext_footer=is_plain
        )
        properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), how)
        path = tmp_path / "e.parquet"
        with pq.ParquetWriter(path, ROWS.schema, encryption_properties=properties) as writer:
            writer.write_table(ROWS.slice(0, 3))
        found = read(ParquetConnector(path))
        assert len(found.failures) == 1 and not found.items
        assert "encrypted" in found.messages and "without encryption" in found.messages


def test_a_filter_that_no_file_can_answer_is_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"'yaer'.*did you mean year"):
        read(ParquetConnector(file, filter="yaer = 1"))
