"""A connector that reads the simulated world from its file, page by page."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from contextframe_beam import Deletion, FrameRecord
from contextframe_beam.connectors import Page, PaginatedConnector, Partition, Place, Window
from contextframe_beam.frames.document import Chunk, Document

#: Pages as the source gives them in each round of its life, and the round that it is in. The feed
#: `all` has what is in a partition, the feed `changes` what changed there since the round before.
SCHEMA = """
CREATE TABLE page (
    source TEXT, feed TEXT, round INTEGER, partition TEXT, number INTEGER, items TEXT,
    PRIMARY KEY (source, feed, round, partition, number)
);
CREATE TABLE latest (source TEXT PRIMARY KEY, round INTEGER);
"""


#: How many words a chunk of a document has.
WORDS_OF_CHUNK = 15

_LATE = "2030-01-01T00:00:00+00:00"


def pieces_of(text: str) -> list[str]:
    """Returns the texts of a document's chunks; none for a short document."""
    words = text.split()
    if len(words) <= WORDS_OF_CHUNK:
        return []
    starts = range(0, len(words), WORDS_OF_CHUNK)
    return [" ".join(words[start : start + WORDS_OF_CHUNK]) for start in starts]


class Pieces:
    """Cuts documents as `pieces_of` says."""

    version = "1"

    def chunk(self, document: Document) -> list[Chunk]:
        """Returns the chunks; each tells how long the document is."""
        return [Chunk(piece, 0, len(document.text)) for piece in pieces_of(document.text)]


class Simulated(PaginatedConnector):
    """Reads one source of a simulated world as it is in its present round.

    The state of a partition says what was read for it: `round`, `since` which round (0 when all of
    it was read), and by which `attempt`.

    Args:
        world: The world's file.
        source: Which of its sources.
        numbered: Whether the source tells how many pages a partition has.
        changes: Whether to read what changed since the round of a partition's state.
        attempt: Told in the states.
        partial: Whether it says that it may not have read all; what it read is told in the reasons.
        windows: Whether it says of each partition, when it has read all of it, that it is complete.
        fault: What else is wrong with it: `empty`, where it gives nothing, as a share that is not
            mounted; `poor`, where it gives one item only; `deleting`, where each item is deleted.
    """

    identity_args = ("source",)

    def __init__(
        self,
        world: Path,
        source: str = "left",
        numbered: bool = False,
        changes: bool = False,
        attempt: int = 0,
        partial: bool = False,
        windows: bool = False,
        fault: str = "",
    ) -> None:
        super().__init__()
        self.world = world
        self.source = source
        self.numbered = numbered
        self.changes = changes
        self.attempt = attempt
        self.partial = partial
        self.windows = windows
        self.fault = fault

    def partitions(self, resume_from: Mapping[str, Any] | None = None) -> list[Partition]:
        ((latest,),) = self._rows("SELECT round FROM latest WHERE source = ?", self.source)
        names = self._rows(
            "SELECT DISTINCT partition FROM page WHERE source = ? ORDER BY partition", self.source
        )
        found = []
        for (name,) in names:
            known = (resume_from or {}).get(name) if self.changes else None
            since = known["round"] if known else 0
            params = {"round": latest, "since": since}
            found.append(Partition(name, {**params, "pages": len(self._pages(name, **params))}))
        return found

    def count_pages(self, partition: Partition) -> int | None:
        return max(partition.params["pages"], 1) if self.numbered else None

    def fetch_page(self, partition: Partition, cursor: Any) -> Page:
        read = dict(partition.params)
        number, count = cursor or 0, read.pop("pages")
        pages = self._pages(partition.id, **read)
        is_last = number >= count - 1
        state = {**read, "attempt": self.attempt, "windows": self.windows}
        items = self._with_fault(json.loads(pages[number]) if pages else [], partition, number)
        return Page(
            [{**item, "partition": partition.id} for item in items],
            next_cursor=None if is_last or self.numbered else number + 1,
            windows=[Window(partition.id)] if is_last and self.windows else [],
            state=state if is_last else None,
            partial=json.dumps([partition.id, state]) if is_last and self.partial else "",
        )

    def _with_fault(self, items: list[Any], partition: Partition, number: int) -> list[Any]:
        if self.fault == "deleting":
            return [{**item, "text": None, "deleted": True, "at": _LATE} for item in items]
        if self.fault == "poor" and partition.id == "a" and number == 0:
            return items[:1]
        return [] if self.fault else items

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord | Deletion:
        if "error" in item:
            raise ValueError(item["error"])
        if item.get("deleted"):
            return Deletion(item["id"], item["at"])
        return FrameRecord(
            item["text"],
            unique_id=item["id"],
            metadata=dict(item["metadata"]),
            timestamp=item["at"],
            place=Place(item["partition"], item["metadata"]["version"]),
        )

    def _pages(self, partition: str, round: int, since: int) -> list[str]:
        feed, after = ("changes", since) if since else ("all", round - 1)
        found = self._rows(
            "SELECT items FROM page WHERE source = ? AND feed = ? AND partition = ? "
            "AND round > ? AND round <= ? ORDER BY round, number",
            *(self.source, feed, partition, after, round),
        )
        return [items for (items,) in found]

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        # A connection of its own each time: several threads read, and a fork may lie between.
        with closing(sqlite3.connect(f"file:{self.world}?mode=ro", uri=True)) as connection:
            return connection.execute(query, values).fetchall()
