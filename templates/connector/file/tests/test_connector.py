"""What every connector must do, and what this one does."""

from pathlib import Path

import pytest
from contextframe_beam.connectors.testing import ConnectorTests
from contextframe_beam.errors import ConnectorError

from my_connector import MyConnector


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two files."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.txt").write_text("# Hello\n\nhello from a file")
    (tmp_path / "deep" / "b.txt").write_text("another one")
    return tmp_path


class TestConformance(ConnectorTests):
    """The suite that comes with contextframe-beam."""

    @pytest.fixture(autouse=True)
    def _folder(self, folder: Path) -> None:
        self.folder = folder

    def connector(self) -> MyConnector:
        return MyConnector(str(self.folder))

    def with_unreadable_item(self) -> MyConnector:
        (self.folder / "c.txt").write_bytes(b"\xff\xfe\xff")
        return self.connector()


def test_a_file_becomes_a_record(folder: Path) -> None:
    connector = MyConnector(str(folder))
    records = [connector.map_to_frame_record(item) for item in connector.sync_documents()]
    assert [record.title for record in records] == ["Hello", "another one"]
    assert records[1].unique_id == "my-connector:deep/b.txt"


def test_a_missing_folder_is_told(folder: Path) -> None:
    with pytest.raises(ConnectorError, match="there is no folder"):
        MyConnector(str(folder / "nowhere")).authenticate()
