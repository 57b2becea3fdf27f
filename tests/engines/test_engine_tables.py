"""Tables on engines: Parquet, CSV and Lance give there what they give in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from contextframe_beam.connectors.tables.arrow import ArrowConnector
from contextframe_beam.connectors.tables.csv_file import CSVConnector
from contextframe_beam.connectors.tables.parquet import ParquetConnector
from contextframe_beam.pipelines.ingest import ingest
from tests.support.engines import EACH_ENGINE, Running, engine, engines

__all__ = ["engine", "engines"]

ROWS = pa.table(
    {
        "id": [f"{number:04}" for number in range(3000)],
        "text": [f'row "{number}",\nand more ' * 10 for number in range(3000)],
        "year": [2000 + number % 30 for number in range(3000)],
    }
)


def stored(kb: Path) -> Any:
    columns = ["uuid", "text_content", "custom_metadata", "x_digest"]
    table = lance.dataset(str(kb)).to_table(columns, filter="x_state IS NULL")
    return table.sort_by([("uuid", "ascending")])


@EACH_ENGINE
def test_two_workers_read_each_row_once(engine: Running, tmp_path: Path) -> None:
    pq.write_table(ROWS, tmp_path / "a.parquet", row_group_size=200, compression="none")
    pyarrow.csv.write_csv(ROWS, tmp_path / "a.csv")
    lance.write_dataset(ROWS, str(tmp_path / "a.lance"), max_rows_per_file=500)
    sources = (
        ParquetConnector(tmp_path / "a.parquet", filter="year >= 2010", prefix="p:"),
        CSVConnector(tmp_path / "a.csv", types=["year:int64"], prefix="c:"),
        ArrowConnector(tmp_path / "a.lance", prefix="l:"),
    )
    for source in sources:
        ingest(source, str(tmp_path / "here"))
        receipt = ingest(
            source,
            str(tmp_path / "engine"),
            runner=engine.runner,
            beam_args=engine.arguments(),
        )
        assert receipt.failed == 0
    there = stored(tmp_path / "engine")
    assert there.num_rows == 2000 + 3000 + 3000
    assert there.equals(stored(tmp_path / "here"))
