"""A connector that reads the simulated world from its file, page by page."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from contextframe_beam import FrameRecord
from contextframe_beam.connectors import Page, PaginatedConnector, Partition

#: Pages as the source gives them in each round of its life, and the round that it is in.
SCHEMA = """
CREATE TABLE page (
    source TEXT, round INTEGER, partition TEXT, number INTEGER, items TEXT,
    PRIMARY KEY (source, round, partition, number)
);
CREATE TABLE latest (source TEXT PRIMARY KEY, round INTEGER);
"""


class Simulated(PaginatedConnector):
    """Reads one source of a simulated world as it is in its present round.

    Args:
        world: The world's file.
        source: Which of its sources.
        numbered: Whether the source tells how many pages a partition has.
    """

    identity_args = ("source",)

    def __init__(self, world: Path, source: str = "left", numbered: bool = False) -> None:
        super().__init__()
        self.world = world
        self.source = source
        self.numbered = numbered

    def partitions(self) -> list[Partition]:
        ((number,),) = self._rows("SELECT round FROM latest WHERE source = ?", self.source)
        found = self._rows(
            "SELECT partition, count(*) FROM page WHERE source = ? AND round = ? "
            "GROUP BY partition ORDER BY partition",
            self.source,
            number,
        )
        return [Partition(name, {"round": number, "pages": pages}) for name, pages in found]

    def count_pages(self, partition: Partition) -> int | None:
        return partition.params["pages"] if self.numbered else None

    def fetch_page(self, partition: Partition, cursor: Any) -> Page:
        number, pages = cursor or 0, partition.params["pages"]
        ((items,),) = self._rows(
            "SELECT items FROM page WHERE source = ? AND round = ? AND partition = ? "
            "AND number = ?",
            self.source,
            partition.params["round"],
            partition.id,
            number,
        )
        is_last = number == pages - 1
        return Page(
            json.loads(items),
            next_cursor=None if is_last or self.numbered else number + 1,
            state={"round": partition.params["round"]} if is_last else None,
        )

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        if "error" in item:
            raise ValueError(item["error"])
        return FrameRecord(
            item["text"],
            unique_id=item["id"],
            metadata=dict(item["metadata"]),
            timestamp=item["at"],
        )

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        # A connection of its own each time: several threads read, and a fork may lie between.
        with closing(sqlite3.connect(f"file:{self.world}?mode=ro", uri=True)) as connection:
            return connection.execute(query, values).fetchall()
