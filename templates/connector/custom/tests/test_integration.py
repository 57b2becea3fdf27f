"""A real run: rows into a dataset, in one transaction, and a second run that changes nothing."""

from pathlib import Path

from contextframe_beam import FrameDataset
from contextframe_beam.pipelines.ingest import ingest

from my_connector import MyConnector


def test_rows_are_found_in_the_dataset(database: str, tmp_path: Path) -> None:
    dataset = str(tmp_path / "kb.lance")
    assert ingest(MyConnector(database), dataset).rows_written == 2
    assert len(FrameDataset.open(dataset).search("hello", limit=5)) == 1
    assert ingest(MyConnector(database), dataset).rows_written == 0
