"""A real run: files into a dataset, in one transaction, and a second run that changes nothing."""

from pathlib import Path

from contextframe_beam import FrameDataset
from contextframe_beam.pipelines.ingest import ingest

from my_connector import MyConnector


def test_files_are_found_in_the_dataset(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("hello from a file")
    dataset = str(tmp_path / "kb.lance")
    assert ingest(MyConnector(str(tmp_path / "files")), dataset).rows_written == 1
    assert len(FrameDataset.open(dataset).search("hello", limit=5)) == 1
    assert ingest(MyConnector(str(tmp_path / "files")), dataset).rows_written == 0
