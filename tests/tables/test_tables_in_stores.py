"""Tables in object stores and on the web: ranges of one version, and no credential anywhere."""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from contextframe_beam.connectors import PlannedRun
from contextframe_beam.connectors.tables.csv_file import CSVConnector
from contextframe_beam.connectors.tables.parquet import ParquetConnector
from contextframe_beam.errors import ConnectorError
from tests.support.file_server import serving_files
from tests.support.s3_server import BUCKET
from tests.support.table_reading import pages_of, read

ROWS = pa.table({"id": range(4000), "text": [f"row {n} " * 9 for n in range(4000)]})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables")
    pq.write_table(ROWS, path / "a.parquet", row_group_size=500, compression="none")
    pyarrow.csv.write_csv(ROWS, path / "a.csv")
    return path


class TestS3:
    @pytest.fixture()
    def place(self, s3: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        for name, value in s3.variables.items():
            monkeypatch.setenv(name, value)
        place = f"{BUCKET}/{uuid.uuid4().hex}"
        for file in folder.iterdir():
            s3.filesystem().pipe_file(f"{place}/year=2024/{file.name}", file.read_bytes())
        return place

    def test_pieces_of_files_are_read(self, place: str) -> None:
        for connector in (
            ParquetConnector(f"s3://{place}", filter="year >= 2024"),
            CSVConnector(f"s3://{place}/year=*/a.csv", types=["id:int64"]),
        ):
            found = read(connector)
            assert found.column("id") == list(range(4000)) and found.blocks > 2
            assert {item["year"] for item in found.items} == {"2024"}

    def test_an_object_that_is_replaced_is_not_read_as_a_mixture(
        self, place: str, s3: Any, folder: Path
    ) -> None:
        connector = CSVConnector(f"s3://{place}/year=2024/a.csv")
        connector.authenticate()
        planned = list(connector.plan(PlannedRun()))
        data = (folder / "a.csv").read_bytes().replace(b"row", b"new")
        s3.filesystem().pipe_file(f"{place}/year=2024/a.csv", data)
        pages = pages_of(connector, planned)
        assert sum(page.count for page in pages) == 0
        assert all("it changed after it was listed" in page.failures[0].message for page in pages)

    def test_an_object_that_is_missing_is_named(self, place: str) -> None:
        with pytest.raises(ConnectorError, match=r"there is no file s3://.*/b.csv"):
            read(CSVConnector(f"s3://{place}/b.csv"))


SECRET = "s3cr3t-s1gn4ture-0123456789"


@pytest.mark.parametrize("gives_ranges", [True, False])
def test_a_file_on_the_web_is_read_and_its_signature_is_shown_nowhere(
    folder: Path, gives_ranges: bool
) -> None:
    with serving_files(folder, gives_ranges) as url:
        for cls, name in ((ParquetConnector, "a.parquet"), (CSVConnector, "a.csv")):
            connector = cls(f"{url}/{name}?sig={SECRET}", id="id")
            found = read(connector)
            assert len({str(item["id"]) for item in found.items}) == 4000
            wrong = read(CSVConnector(f"{url}/a.parquet?sig={SECRET}"))
            told = [
                found.partitions,
                found.positions,
                connector.source_identity(),
                connector.map_to_frame_record(found.items[0]).unique_id,
                [asdict(one) for one in wrong.failures],
                [part.content for part in connector.plan(PlannedRun())],
            ]
            assert wrong.failures and SECRET not in json.dumps(told)
