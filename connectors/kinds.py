"""Base classes for sources that can stream, batch, page, or give only what changed.

The methods that a connector defines decide how a pipeline reads it, the best way first: pages of
several partitions, parts whose pages come as a stream, ranges of a known total, a stream, changes
since the last run. Each kind also works in a plain loop through `sync_documents`.
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
from contextframe_beam.connectors.page import WHOLE, ListedFailures, Page, Partition
from contextframe_beam.connectors.read.reader import PlannedRun
from contextframe_beam.connectors.read.readers import (
    BatchesReader,
    ChangesReader,
    PagesReader,
    PartsReader,
)
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.connectors.secrets import without_known
from contextframe_beam.errors import ConfigError, ConnectorError
from contextframe_beam.frames.times import when


class StreamingConnector(BaseConnector):
    """A source that gives its items one after the other: write `sync_documents_stream`."""

    def sync_documents_stream(self, *args: Any, **kwargs: Any) -> Iterator[dict[str, Any]]:
        """Yields the items of the source; memory stays small for a source of any size.

        Raises:
            ConnectorError: the class does not say how to read.
        """
        raise self._unwritten("sync_documents_stream(self, **kwargs)", "yield the items")


class BatchConnector(BaseConnector):
    """A source with a known number of items that can fetch any range of them.

    Write `_fetch_batch(start, end)`, and `total_items()` if the source knows its size; otherwise
    `total_items` is an argument of `sync_documents`. A pipeline reads ranges in parallel and gives
    them to any free worker.

    Args:
        batch_size: The number of items in a range.
        max_workers: The number of ranges that one process fetches at the same time.
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
        """Returns the number of items in the source.

        Raises:
            ConnectorError: the class does not define it.
        """
        raise ConnectorError(
            f"{type(self).__name__} does not know how many items there are: give total_items=N, "
            "or write total_items(self)"
        )

    def sync_documents(self, total_items: int | None = None) -> list[dict[str, Any]]:
        """Fetches all ranges, several at once, and returns their items in order.

        Args:
            total_items: The number of items; by default the connector's `total_items()`.

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
    """A source that can give what changed: write `_full_sync` and `_incremental_sync`.

    A pipeline stores the time of the last run with the data, in the dataset. `state_file` is for
    plain loops over `sync_documents`, which have no dataset. `ingest` uses the file too: it reads
    since the earlier of the two times, or everything if one of them is unknown. So no documents
    are missed after the file was deleted, or with a new dataset. It writes the file after the
    commit.

    Args:
        state_file: The file for the time of the last run, as JSON; by default only the dataset
            has it.

    Attributes:
        lookback: How far before the beginning of the last run the next one reads, because sources
            show changes late and clocks differ; ten minutes by default.
        last_sync: The beginning of the last run, ISO 8601; None before the first run.
    """

    lookback: ClassVar[timedelta] = timedelta(minutes=10)

    def __init__(self, state_file: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        self.state_file = state_file
        self.last_sync: str | None = None
        self._load_state()

    def sync_documents(self, full_sync: bool = False) -> list[dict[str, Any]]:
        """Reads what changed since the last run; everything in the first run.

        The new state is the time at which reading began, so that the next run reads changes from
        that time again. It is kept only if the reading succeeds.

        Args:
            full_sync: Read everything, regardless of the state.
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

        If it also takes an argument `until`, and leaves out what changed at or after that time,
        the source can be read in slices.
        """
        raise self._unwritten("_incremental_sync(self, since)", "return what changed since then")

    def reconciled(self, states: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the states that a run starts from, including the state file.

        Args:
            states: The states in the dataset, by the id of the partition.
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
        """Writes the state file, if there is one, after the commit of a run.

        Args:
            states: The new states in the dataset.

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
        # An author may add dates or paths to the statistics; the state must be saved anyway.
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
    """A source that gives pages: write `fetch_page`, and `partitions` if it has parts.

    Partitions (channels, folders, time slices) are read in parallel. Pages within one are read in
    order, unless `count_pages` returns their number: then they are read in parallel too.

    Attributes:
        max_in_flight: The largest number of requests that one process keeps open.
    """

    max_in_flight: int = 16

    # The reading arguments that select a part and leave the states of partitions correct.
    _by_partition: ClassVar[tuple[str, ...]] = ()

    if TYPE_CHECKING:
        # With this type, a subclass may take the arguments of sync_documents here.
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
            cursor: None for the first page, then the `next_cursor` of the page before; if
                `count_pages` gives a number, the number of the page, from 0.

        Returns:
            Its items, and the cursor of the next page or None.
        """
        raise self._unwritten("fetch_page(self, partition, cursor)", "return a Page of items")

    def count_pages(self, partition: Partition) -> int | None:
        """Returns the number of pages of a partition, or None if only its last page shows it."""
        return None

    def sync_documents_stream(self, **kwargs: Any) -> Iterator[dict[str, Any]]:
        """Yields the items of all partitions, page after page.

        Raises:
            ConnectorError: a page could not be fetched, or a cursor came twice.
        """
        # One thread: a plain loop gets items in order, and only when it asks for them.
        source = Source(self, reader=PagesReader, threads=1)
        for page in source.pages_of(self.partitions(**kwargs)):
            yield from page.items


class PartsConnector(BaseConnector):
    """A source of parts whose pages come as a stream: write `plan` and `read_part`.

    Files, tables and other programs are such sources. A plan says which parts there are, and any
    worker reads them, in any order. A part may have several blocks, which are read apart.

    Attributes:
        max_in_flight: How many blocks one process reads at the same time. With one, which suits
            what uses the processor, it reads without threads.
        by_time: Whether `plan` heeds the range of time that a run may ask for.
    """

    max_in_flight: int = 1
    by_time: ClassVar[bool] = False

    if TYPE_CHECKING:
        # With this type, a subclass may take the arguments of sync_documents here.
        def plan(self, run: PlannedRun, *args: Any, **kwargs: Any) -> Iterable[Partition | str]:
            """Returns the parts of the source, each named by the same id in every run."""

    else:

        def plan(self, run):
            """Returns the parts of the source, each named by the same id in every run.

            Args:
                run: What the run asks for, and what the plan says beside its parts.
            """
            return [Partition(WHOLE)]

    def read_part(self, partition: Partition, block: int) -> Iterator[Page]:
        """Yields the pages of a block of a part, as they come.

        Args:
            partition: One of `plan(run)`.
            block: The number of the block, from 0.

        Yields:
            Pages of items or of a table. The last `state` of a page is the part's new state, once
            all of them have come.
        """
        raise self._unwritten("read_part(self, partition, block)", "yield Pages of items")

    def merge_states(self, states: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the states that a run starts from, and keeps in place of those of many parts.

        Parts that change from run to run, such as slices of time, leave a state each. A subclass
        may make one of them all, so that they do not add up. It may be called with what it returned
        together with states of new parts, and with the same ones twice.

        Args:
            states: The states that earlier runs left, by the id of the part.
        """
        return dict(states)

    def sync_documents_stream(self, *args: Any, **kwargs: Any) -> Iterator[dict[str, Any]]:
        """Yields the items of all parts; those that cannot be read are logged and counted.

        Raises:
            ConnectorError: a part could not be read.
        """
        self.ensure_authenticated()
        # One thread: a plain loop gets items in order, and only when it asks for them.
        return self._items_of(Source(self, kwargs, reader=PartsReader, threads=1))

    def _items_of(self, source: Source) -> Iterator[dict[str, Any]]:
        failures = self._failures
        for page in source.pages():
            for letter in page.failures:
                self.logger.warning("skipped %s", letter.message)
                failures.add(letter, "position")
            yield from page.items

    @property
    def _failures(self) -> ListedFailures:
        failures: ListedFailures = vars(self).setdefault("_listed_failures", ListedFailures())
        return failures

    def get_stats(self) -> dict[str, Any]:
        """Returns the base class's numbers, and `failed` and the first hundred `failures`."""
        return {**super().get_stats(), **self._failures.stats}


def _replace(target: Path, text: str) -> None:
    """Writes a file so that a reader sees the old content or the new, never a mix of them."""
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
