"""MyConnector: the text files of a folder, one document each."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contextframe_beam import FrameRecord
from contextframe_beam.connectors import StreamingConnector

from my_connector.auth import check_folder
from my_connector.utils import read_file, title_of


class MyConnector(StreamingConnector):
    """Reads the text files of a folder.

    Args:
        directory: The folder; files in folders below it are read as well.
        pattern: Which files, as in `*.md`.
    """

    def __init__(self, directory: str, pattern: str = "*.txt") -> None:
        super().__init__()
        self.directory = Path(directory)
        self.pattern = pattern

    def authenticate(self) -> bool:
        """Verifies that the folder can be read."""
        check_folder(self.directory)
        self.authenticated = True
        return True

    def sync_documents_stream(self) -> Iterator[dict[str, Any]]:
        """Yields one item a file, in order of their paths."""
        for path in sorted(self.directory.rglob(self.pattern)):
            yield read_file(path, self.directory)

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        """Turns a file into a record."""
        text = str(item.get("text") or "")
        metadata = {"title": title_of(text), "source_file": item.get("path")}
        # The same file is the same document forever, so the id is made of its path alone.
        return FrameRecord(
            text,
            metadata,
            unique_id=f"my-connector:{item.get('path')}",
            timestamp=str(item.get("modified_at") or "") or None,
        )
