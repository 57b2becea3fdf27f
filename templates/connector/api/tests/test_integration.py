"""A real run: the API into a dataset, in one transaction, and a second run that changes nothing."""

from pathlib import Path

from contextframe_beam import FrameDataset
from contextframe_beam.pipelines.ingest import ingest

from my_connector import MyConnector

from .fake_api import TOKEN


def test_documents_are_found_in_the_dataset(api: str, tmp_path: Path) -> None:
    dataset = str(tmp_path / "kb.lance")
    assert ingest(MyConnector(api, TOKEN), dataset).rows_written == 3
    assert len(FrameDataset.open(dataset).search("hello", limit=5)) == 1
    assert ingest(MyConnector(api, TOKEN), dataset).rows_written == 0
