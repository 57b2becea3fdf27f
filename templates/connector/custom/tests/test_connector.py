"""What every connector must do, and what this one does."""

from pathlib import Path

import pytest
from contextframe_beam.connectors.testing import ConnectorTests
from contextframe_beam.errors import ConnectorError

from my_connector import MyConnector


class TestConformance(ConnectorTests):
    """The suite that comes with contextframe-beam."""

    @pytest.fixture(autouse=True)
    def _database(self, database: str) -> None:
        self.database = database

    def connector(self) -> MyConnector:
        return MyConnector(self.database)


def test_a_row_becomes_a_record(database: str) -> None:
    connector = MyConnector(database)
    records = [connector.map_to_frame_record(item) for item in connector.sync_documents()]
    assert [record.text_content for record in records] == ["hello from a row", "another one"]
    assert records[0].unique_id == "my-connector:documents:1"
    assert connector.get_stats()["rows"] == 2


def test_what_is_no_database_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConnectorError, match="cannot be opened"):
        MyConnector(str(tmp_path / "nothing.db")).authenticate()


def test_a_missing_table_is_told(database: str) -> None:
    with pytest.raises(ConnectorError, match="nothing cannot be read"):
        MyConnector(database, table="nothing").sync_documents()
