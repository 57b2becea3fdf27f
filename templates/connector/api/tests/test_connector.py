"""What every connector must do, and what this one does."""

import pytest
from contextframe_beam.connectors.testing import ConnectorTests

from my_connector import MyConnector

from .fake_api import TOKEN


class TestConformance(ConnectorTests):
    """The suite that comes with contextframe-beam."""

    @pytest.fixture(autouse=True)
    def _api(self, api: str) -> None:
        self.api = api

    def connector(self) -> MyConnector:
        return MyConnector(self.api, TOKEN, per_second=1000)


def test_all_pages_are_read(api: str) -> None:
    connector = MyConnector(api, TOKEN)
    assert [item["id"] for item in connector.sync_documents()] == [1, 2, 3]
    assert connector.get_stats()["requests"] == 2


def test_an_item_becomes_a_record(api: str) -> None:
    item = {"id": 3, "content": "three", "author": "Ann"}
    record = MyConnector(api, TOKEN).map_to_frame_record(item)
    assert record.text_content == "three"
    assert record.unique_id == "my-connector:3"
    assert record.metadata["author"] == "Ann"
