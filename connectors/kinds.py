"""What a source can do beyond giving all its documents at once.

What a connector defines decides how a pipeline reads it, the best way first: pages of several
partitions, ranges of a known total, a stream, changes since the last run. Each of them also works
in a plain loop through `sync_documents`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.page import WHOLE, Page, Partition
from contextframe_beam.connectors.read.readers import BatchesReader, ChangesReader, PagesReader
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.connectors.secrets import without_known
from contextframe_beam.errors import ConfigError, ConnectorError
from contextframe_beam.frames.times import when


class StreamingConnector(BaseConnector):
    """A source that gives its items one after the other: write `sync_documents_stream`."""

    def sync_documents_stream(self, *args: Any, **kwargs: Any) -> Iterator[dict[str, Any]]:
        """Yields the items of the source; memory stays small whatever its size.

        Raises:
            ConnectorError: the class does not say how to read.
        """
        raise self._unwritten("sync_documents_stream(self, **kwargs)", "yield the items")


class BatchConnector(BaseConnector):
    """A source of a known number of items, any range of which can be fetched by itself.

    Write `_fetch_batch(start, end)`, and `total_items()` where the source can tell its size;
    otherwise `total_items` is an argument of `sync_documents`. A pipeline reads ranges in parallel
    and gives them to whatever worker is free.

    Args:
        batch_size: Items a range.
        max_workers: Ranges fetched at the same time by one process.
    """

    def __init__(self, batch_size: int = 100, max_workers: int = 4) -> None:
        super().__init__()
        if batch_size < 1 or max_workers < 1:
            raise ConfigError(
                f"batch_size and max_workers are at least 1, not {batch_size} and {max_workers}"
            )
        self.batch_size = batch_size
        self.max_workers = max_workers

    def total_items(self) -> int:
        """Returns how many items the source has.

        Raises:
            ConnectorError: the class does not say.
        """
        raise ConnectorError(
            f"{type(self).__name__} does not know how many items there are: give total_items=N, "
            "or write total_items(self)"
        )

    def sync_documents(self, total_items: int | None = None) -> list[dict[str, Any]]:
        """Fetches all ranges, several at once, and returns their items in order.

        Args:
            total_items: How many items there are; asked of the source when not given.

        Raises:
            ConnectorError: a range could not be fetched; the message says which.
        """
        total = self.total_items() if total_items is None else total_items
        source = Source(self, {"total_items": total}, reader=BatchesReader)
        return [item for page in source.pages() for item in page.items]

    def _fetch_batch(self, start: int, end: int) -> list[dict[str, Any]]:
        """Returns the items `start <= index < end`."""
        raise self._unwritten("_fetch_batch(self, start, end)", "return that range of items")


class IncrementalConnector(BaseConnector):
    """A source that can tell what changed: write `_full_sync` and `_incremental_sync`.

    A pipeline keeps the time of the last run with the data, in the dataset. `state_file` is for
    plain loops over `sync_documents`, which have no dataset to keep it in. `ingest` heeds it as
    well: it reads since the earlier of the two times, and everything where one of them is not
    known, so neither a deleted file nor a new dataset leads to documents that are missing. It
    writes the file after the commit.

    Args:
        state_file: Where the time of the last run is kept, as JSON; only in the dataset if not
            given.

    Attributes:
        lookback: How far before the beginning of the last run the next one reads, because sources
            show changes late and clocks differ; ten minutes unless the class says otherwise.
        last_sync: That time, ISO 8601; None before the first run.
    """

    lookback: ClassVar[timedelta] = timedelta(minutes=10)

    def __init__(self, state_file: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        self.state_file = state_file
        self.last_sync: str | None = None
        self._load_state()

    def sync_documents(self, full_sync: bool = False) -> list[dict[str, Any]]:
        """Reads what changed since the last run; everything in the first run.

        The new state is the time at which reading began, so that what changes meanwhile is read
        again by the next run; it is kept only when reading went well.

        Args:
            full_sync: Read everything whatever the state.
        """
        known = {WHOLE: {"since": self.last_sync}}
        documents: list[dict[str, Any]] = []
        began = self.last_sync
        source = Source(self, full_sync=full_sync, resume_from=known, reader=ChangesReader)
        for page in source.pages():
            documents += page.items
            if page.state is not None:
                began = page.state["since"]
        self.last_sync = began
        self._save_state()
        return documents

    def _full_sync(self) -> list[dict[str, Any]]:
        """Returns all items (any iterable will do in a pipeline)."""
        raise self._unwritten("_full_sync(self)", "return all items")

    def _incremental_sync(self, since: str) -> list[dict[str, Any]]:
        """Returns the items changed at or after `since`, an ISO 8601 time.

        One that takes an argument `until` as well, and then leaves out what changed at or after
        that time, can be read in slices.
        """
        raise self._unwritten("_incremental_sync(self, since)", "return what changed since then")

    def reconciled(self, states: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the states that a run goes on from, with what the state file says.

        Args:
            states: What the dataset says, by the id of the partition.
        """
        if not self.state_file:
            return dict(states)
        self.last_sync = None
        self._load_state()
        known = states.get(WHOLE)
        stored = known.get("since") if isinstance(known, Mapping) else None
        ours, theirs = when(self.last_sync or ""), when(stored or "")
        if ours is None or theirs is None:
            return {}
        return {WHOLE: {"since": stored if theirs <= ours else self.last_sync}}

    def committed(self, states: Mapping[str, Any]) -> None:
        """Writes the state file, if there is one, after a run was committed.

        Args:
            states: What the dataset says now.

        Raises:
            ConnectorError: it cannot be written.
        """
        known = states.get(WHOLE)
        if self.state_file and isinstance(known, Mapping) and known.get("since"):
            self.last_sync = str(known["since"])
            self._save_state()

    def _load_state(self) -> None:
        if not self.state_file or not Path(self.state_file).exists():
            return
        try:
            state = json.loads(Path(self.state_file).read_bytes())
            self.last_sync = state.get("last_sync")
        except (OSError, ValueError, AttributeError) as error:
            raise ConnectorError(
                f"the state file {self.state_file} cannot be read ({error}); delete it to read "
                "everything again"
            ) from error

    def _save_state(self) -> None:
        if not self.state_file:
            return
        # What an author puts into the statistics (dates, paths) must not cost the state.
        state = {"last_sync": self.last_sync, "stats": self.get_stats()}
        text = json.dumps(state, indent=2, default=str, skipkeys=True)
        target = Path(self.state_file)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _replace(target, without_known(text))
        except OSError as error:
            raise ConnectorError(
                f"the state cannot be written to {target} ({error.strerror}); the next run would "
                "read everything again"
            ) from error


class PaginatedConnector(BaseConnector):
    """A source that is asked page by page: write `fetch_page`, and `partitions` if it has parts.

    Partitions (channels, folders, time slices) are read in parallel. Pages within one are read in
    order, unless `count_pages` tells how many there are: then they are read in parallel as well.

    Attributes:
        max_in_flight: How many requests one process keeps open.
    """

    max_in_flight: int = 16

    # Those of its arguments to read with that choose less and leave the states of partitions right.
    _by_partition: ClassVar[tuple[str, ...]] = ()

    if TYPE_CHECKING:
        # So typed, a subclass may take the arguments of sync_documents here.
        def partitions(self, *args: Any, **kwargs: Any) -> Iterable[Partition | str]:
            """Returns the parts of the source, each named by the same id in every run."""

    else:

        def partitions(self):
            """Returns the parts of the source, each named by the same id in every run."""
            return [Partition(WHOLE)]

    def fetch_page(self, partition: Partition, cursor: Any) -> Page:
        """Returns one page of a partition.

        Args:
            partition: One of `partitions()`.
            cursor: None for the first page, then the `next_cursor` of the page before; where
                `count_pages` gives a number, that of the page, from 0.

        Returns:
            Its items, and the cursor of the next page or None.
        """
        raise self._unwritten("fetch_page(self, partition, cursor)", "return a Page of items")

    def count_pages(self, partition: Partition) -> int | None:
        """Returns how many pages a partition has, or None if only its last page tells."""
        return None

    def sync_documents_stream(self, **kwargs: Any) -> Iterator[dict[str, Any]]:
        """Yields the items of all partitions, page after page.

        Raises:
            ConnectorError: a page could not be fetched, or a cursor came twice.
        """
        # One thread: what is read in a plain loop comes in order, and only when it is wanted.
        source = Source(self, reader=PagesReader, threads=1)
        for page in source.pages_of(self.partitions(**kwargs)):
            yield from page.items


def _replace(target: Path, text: str) -> None:
    """Writes a file so that a reader sees the old content or the new, never a part of it."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
