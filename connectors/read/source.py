"""Reads a source of any kind: plans it, claims its blocks, and reads them.

A plan cuts a source into blocks that any worker can read in any order: a page, a range of items
or bytes, or a partition that has only cursors. A worker claims each block before it reads it, so
that a runner may give unclaimed blocks to another worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from contextframe_beam.connectors.ahead import read_ahead
from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.cursors import Bounds
from contextframe_beam.connectors.page import Page, Partition, SourceInfo
from contextframe_beam.connectors.read.reader import Part, Reader, Resume
from contextframe_beam.connectors.read.readers import PagesReader, choose_reader
from contextframe_beam.errors import ConfigError
from contextframe_beam.store.runs import NO_CHANGE, StateChange

#: A plan is made in chunks of at most this many partitions, so that it need not fit into memory.
_PARTITIONS_IN_A_CHUNK = 1000

# Local blocks use the processor, so many pieces balance the work of workers. Remote blocks cost
# waiting time, and with one piece a worker keeps all its requests in flight to the end.
_LOCAL_PIECES = 8
_LARGEST_LOCAL_PIECE = 256
_LARGEST_REMOTE_PIECE = 1000


@dataclass(frozen=True, slots=True)
class PlanChunk:
    """A piece of a plan, small enough to travel: a range of the blocks of some partitions.

    Attributes:
        parts: The partitions; empty on the header of the plan.
        start: The first block of the piece, counted over the blocks of all `parts`.
        stop: The number after its last block.
        header: On the header, a page with the number of blocks in the whole plan, why it is not the
            whole source, and the change of the source's state as a whole.
    """

    parts: tuple[Part, ...]
    start: int
    stop: int
    header: Page | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """Some parts of an earlier plan, to be read in one run.

    Attributes:
        parts: The parts.
        change: The change of the source's state as a whole, for their commit.
        unread: Why parts of the source are not in the plan, for the last commit.
    """

    parts: tuple[Part, ...]
    change: StateChange
    unread: tuple[str, ...] = ()


@dataclass(slots=True)
class Fetched:
    """A page from a source.

    Attributes:
        page: The complete page.
        seconds: How long the source took to give it.
    """

    page: Page
    seconds: float = 0.0


class Source:
    """A connector, and how to read it.

    Args:
        connector: What to read; authenticated before `plan` or `read_blocks` is called.
        sync_kwargs: The arguments of its `sync_documents`, or of the method in its place.
        full_sync: Read everything, regardless of the states.
        resume_from: The states that an earlier run reached, by the id of the partition.
        info: The identity of the source; by default from the connector.
        bounds: The range of time to read; by default everything, or what changed. A run with a
            range moves only the states of partitions that it reads completely.
        reader: The reader; by default chosen by the methods of the class. A connector's method
            that reads through a `Source` must give it; otherwise a subclass that calls the method
            would loop.
        threads: How many blocks are read at once; by default as many as the connector allows.
            With one, this thread reads, and items come in order.
        made_with: What documents are made with, for connectors that leave out what is known.
        anew: Whether to make all documents again, also of what has not changed.

    Raises:
        ConfigError: the connector takes no such arguments, cannot be read at all, or not by time.
    """

    def __init__(
        self,
        connector: BaseConnector,
        sync_kwargs: Mapping[str, Any] | None = None,
        full_sync: bool = False,
        resume_from: Mapping[str, Any] | None = None,
        info: SourceInfo | None = None,
        bounds: Bounds | None = None,
        reader: type[Reader] | None = None,
        threads: int | None = None,
        made_with: str = "",
        anew: bool = False,
    ) -> None:
        kwargs = dict(sync_kwargs or {})
        bounds = bounds or Bounds()
        kind = reader or choose_reader(connector, kwargs)
        _require_ends(connector, kind.ends(connector), bounds)
        self.connector = connector
        self.info = info or SourceInfo(
            connector.source_id(kwargs),
            connector.name,
            connector.source_identity(kwargs),
            tuple(getattr(connector, "_by_partition", ())),
        )
        resume = Resume(full_sync, resume_from or {}, bounds, made_with, anew)
        self._reader = kind(connector, kwargs, resume)
        if threads is not None:
            self._reader.at_once = self._reader.ahead = threads
        self._is_bounded = bool(bounds.given)
        #: After `parts`: why parts of the source are not in it.
        self.unread: tuple[str, ...] = ()

    def parts(self) -> Iterator[Part]:
        """Yields the parts of the source; each can be read on its own.

        Raises:
            ConnectorError: the source cannot say what it has.
        """
        mark = self.connector._skip_mark()
        yield from self._reader.plan()
        self.unread = self.connector._skipped_since(mark, anywhere=True)

    @property
    def reached(self) -> dict[str, Any] | None:
        """After `parts`: the states after all of them are read, if they are known."""
        return None if self._is_bounded or self._reader.cuts else self._reader.reached

    def plan(self, workers: int = 1, chosen: Chosen | None = None) -> Iterator[PlanChunk]:
        """Yields the plan in pieces, and its header at the end.

        Args:
            workers: How many processes will read.
            chosen: The parts to read; all by default.

        Raises:
            ConnectorError: the source cannot say what it has.
        """
        chunk: list[Part] = []
        planned = 0
        # Only then, because a run that changes the state can conflict with the source's other runs.
        sliced = False
        for part in self.parts() if chosen is None else chosen.parts:
            planned += part.blocks
            if part.slice and self._reader.moves_state(part):
                sliced = True
            chunk.append(part)
            if len(chunk) == _PARTITIONS_IN_A_CHUNK:
                yield from self._pieces(chunk, workers)
                chunk = []
        yield from self._pieces(chunk, workers)
        if chosen is None:
            narrowed, unread = self._reader.narrowed, self.unread
            change = StateChange(self.reached, sliced=sliced, whole=not narrowed)
        else:
            narrowed, unread = "it is a part of a backfill", chosen.unread
            change = replace(chosen.change, sliced=sliced)
        header = Page(
            [],
            source=self.info,
            planned=planned,
            narrowed=narrowed,
            unread=unread,
            change=change,
            account=_account_of(self.connector),
        )
        yield PlanChunk((), 0, 1, header)

    def read_blocks(
        self, chunk: PlanChunk, claim: Callable[[int], bool], start: int | None = None
    ) -> Iterator[Fetched]:
        """Reads those blocks of a piece that it can claim.

        Pages of one partition come in order. A bounded number of blocks from a network are claimed
        and read ahead. Every claimed block is read to its end.

        Args:
            chunk: A piece of the plan.
            claim: Called with each block's number in turn, before it is read; False ends reading.
            start: The first block; by default that of the piece.

        Raises:
            ConnectorError: the source failed; the message names the partition, position and cause.
        """
        if chunk.header is not None:
            if claim(chunk.start):
                yield Fetched(chunk.header)
            return
        yield from self._read_all(_claimed(chunk, claim, chunk.start if start is None else start))

    def pages(self) -> Iterator[Page]:
        """Reads the whole source in this process, after `authenticate`."""
        for chunk in self.plan():
            for fetched in self.read_blocks(chunk, lambda _: True):
                yield fetched.page

    def pages_of_part(self, part: Part) -> Iterator[Page]:
        """Reads one part of the plan in this process, after `authenticate`.

        Raises:
            ConnectorError: it cannot be read.
        """
        for block in range(part.blocks):
            for fetched in self._read(part, block):
                yield fetched.page

    def pages_of(self, partitions: Iterable[Partition | str]) -> Iterator[Page]:
        """Reads some partitions of a source of pages in this process, after `authenticate`.

        Args:
            partitions: The partitions, or their names; each is taken once there is room for it.

        Raises:
            ConnectorError: they cannot be read.
        """
        assert isinstance(self._reader, PagesReader)
        parts = self._reader.parts_of(partitions)
        blocks = ((part, block) for part in parts for block in range(part.blocks))
        for fetched in self._read_all(blocks):
            yield fetched.page

    def _pieces(self, parts: list[Part], workers: int) -> Iterator[PlanChunk]:
        ends = list(accumulate(part.blocks for part in parts))
        if not ends:
            return
        total = ends[-1]
        if self._reader.at_once == 1:
            count = max(_LOCAL_PIECES * workers, total // _LARGEST_LOCAL_PIECE)
        else:
            count = max(workers, total // _LARGEST_REMOTE_PIECE)
        # All of the same length except the last. Workers get pieces in turns, so if long and short
        # ones took turns too, one of two workers would get all the long ones.
        length = -(-total // min(count, total))
        first = 0
        for start in range(0, total, length):
            stop = min(start + length, total)
            while ends[first] <= start:
                first += 1
            last = first
            while ends[last] < stop:
                last += 1
            before = ends[first] - parts[first].blocks
            yield PlanChunk(tuple(parts[first : last + 1]), start - before, stop - before)

    def _read_all(self, blocks: Iterator[tuple[Part, int]]) -> Iterator[Fetched]:
        if self._reader.at_once == 1:
            for part, block in blocks:
                yield from self._read(part, block)
            return
        yield from read_ahead(
            blocks,
            lambda one: self._read(*one),
            threads=self._reader.at_once,
            ahead=self._reader.ahead,
            key=lambda one: one[0].id,
            is_last=lambda fetched: bool(fetched.page.finished),
        )

    def _read(self, part: Part, block: int) -> Iterator[Fetched]:
        steps = self._reader.read(part, block)
        unread: tuple[str, ...] = ()
        while True:
            mark, began = self.connector._skip_mark(), time.perf_counter()
            page = next(steps, None)
            if page is None:
                return
            seconds = time.perf_counter() - began
            unread += (*page.unread, *self.connector._skipped_since(mark))
            page.unread = tuple(dict.fromkeys(unread))
            yield Fetched(self._completed(page, part), seconds)

    def _completed(self, page: Page, part: Part) -> Page:
        if page.table is None and not isinstance(page.items, list):
            page = page.copy(items=list(page.items or ()))
        for letter in page.failures:
            letter.connector = letter.connector or self.info.name
            letter.partition = letter.partition or part.id
            letter.position = letter.position or page.position
        return page.copy(
            next_cursor=None,
            partition=part.id,
            source=self.info,
            planned=0,
            change=NO_CHANGE,
            state=None if page.unread or not self._reader.moves_state(part) else page.state,
        )


def _require_ends(connector: BaseConnector, ends: set[str], bounds: Bounds) -> None:
    wanted = list(bounds.given)
    if all(one in ends for one in wanted):
        return
    name = type(connector).__name__
    if not ends:
        raise ConfigError(
            f"{name} cannot be read by time, so {' and '.join(wanted)} cannot be given; that needs "
            "partitions(since, until), or _incremental_sync(since, until)"
        )
    (missing,) = (one for one in wanted if one not in ends)
    why = "slices have an end, and " if bounds.slice else ""
    raise ConfigError(
        f"{why}{name} cannot be told {missing}, only {' and '.join(sorted(ends))}; give its method "
        f"an argument {missing}"
    )


def _claimed(
    chunk: PlanChunk, claim: Callable[[int], bool], start: int
) -> Iterator[tuple[Part, int]]:
    before = 0
    for part in chunk.parts:
        for block in range(max(start - before, 0), min(part.blocks, chunk.stop - before)):
            if not claim(before + block):
                return
            yield part, block
        before += part.blocks


def _account_of(connector: BaseConnector) -> str:
    if type(connector).account_id is BaseConnector.account_id:
        return ""
    connector.ensure_authenticated()
    return connector.account_id()
