"""MyConnector: the tables of an SQLite database, standing for a system of your own."""

from collections.abc import Iterator
from typing import Any

from contextframe_beam import FrameRecord
from contextframe_beam.connectors import StreamingConnector

from my_connector.auth import opened
from my_connector.utils import rows_of, text_of


class MyConnector(StreamingConnector):
    """Reads the rows of a table, one document each.

    Args:
        path: The database file.
        table: The table; it has a column `id`.
    """

    def __init__(self, path: str, table: str = "documents") -> None:
        super().__init__()
        self.path = path
        self.table = table

    def authenticate(self) -> bool:
        """Verifies that the database can be opened."""
        opened(self.path).close()
        self.authenticated = True
        return True

    def sync_documents_stream(self) -> Iterator[dict[str, Any]]:
        """Yields the rows, in order of their ids; memory stays small whatever their number."""
        connection = opened(self.path)
        try:
            for row in rows_of(connection, self.table):
                yield row
                self.add_stats(rows=1)
        finally:
            connection.close()

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        """Turns a row into a record: its texts become the text, the rest metadata."""
        metadata = {name: value for name, value in item.items() if not isinstance(value, str)}
        return FrameRecord(
            text_of(item),
            {**metadata, "source": self.table},
            unique_id=f"my-connector:{self.table}:{item.get('id')}",
        )
