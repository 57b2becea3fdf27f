"""A source of ten documents that records when the first one was read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contextframe_beam import FrameRecord
from contextframe_beam.connectors import BaseConnector


class Ten(BaseConnector):
    """Ten documents.

    Args:
        note: The file for the time.
    """

    identity_args = ()

    def __init__(self, note: str) -> None:
        super().__init__()
        self.note = note

    def sync_documents_stream(self) -> Iterator[dict[str, Any]]:
        """Yields the documents."""
        Path(self.note).write_text(str(time.time()))
        for number in range(10):
            yield {"id": number}

    def sync_documents(self) -> list[dict[str, Any]]:
        """Returns the documents."""
        return list(self.sync_documents_stream())

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        """Returns a record with a text."""
        return FrameRecord(f"text of {item['id']}", unique_id=str(item["id"]))
