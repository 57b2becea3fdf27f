"""A connector with a mapping in Python, as users write one."""

from __future__ import annotations

from typing import Any

from contextframe_beam import FrameRecord
from contextframe_beam.connectors import JSONFileConnector


class OwnMapping(JSONFileConnector):
    """JSON Lines, mapped by a function."""

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        """Turns a document into a record."""
        return FrameRecord(
            item["content"],
            {
                "title": item["title"],
                "author": item["author"]["name"],
                "tags": item["tags"],
                "created_at": item["created_at"],
                "url": item["url"],
            },
            unique_id=f"own:{item['id']}",
            timestamp=item["updated_at"],
        )
