"""MapToFrames: pages of source items become batches of records."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.utils.windowed_value import WindowedValue

from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.page import Page, SourceInfo
from contextframe_beam.connectors.read.runtime import live_connector
from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.record import Deletion, FrameRecord
from contextframe_beam.parsers import Parsing
from contextframe_beam.transforms.elements import (
    FrameBatch,
    Step,
    in_global_window,
    required,
    type_shown,
)
from contextframe_beam.transforms.map_columns import (
    ByColumns,
    MappedColumns,
    columns_of,
    mapped_by_columns,
    mapped_together,
)
from contextframe_beam.transforms.parse import Making, Ready, is_prepared, ready_items
from contextframe_beam.transforms.recognise import StoredIn


class MapToFrames(Step[beam.PCollection[Page], beam.PCollection[FrameBatch]]):
    """Calls the connector's `map_to_frame_record` for each item of each page.

    Files are parsed before that, and items that the dataset holds as they are, are left out.

    Args:
        mapper: The connector that the pages are from, or any object with
            `map_to_frame_record(item)` or `map(item)`, such as a `FieldMapper`.
        parsing: How files are parsed, where the connector gives files; by the registered parsers
            if not given.
        made_with: What the documents of this run are made with, as `made_with` returns it.
        stored: Where what is stored is looked up; without it nothing is recognised.

    Returns:
        A PCollection of `FrameBatch`. Items that cannot be parsed or mapped travel in it as dead
        letters.

    Raises:
        ConfigError: `mapper` has neither of these methods.
    """

    takes = (Page,)
    gives = FrameBatch

    def __init__(
        self,
        mapper: Any,
        parsing: Parsing | None = None,
        made_with: bytes = b"",
        stored: StoredIn | None = None,
    ) -> None:
        super().__init__()
        if isinstance(mapper, type):
            name = mapper.__name__
            raise ConfigError(f"what MapToFrames maps with is the class {name}; give {name}(...)")
        methods = ("map_to_frame_record", "map")
        if not any(callable(getattr(mapper, name, None)) for name in methods):
            raise ConfigError(
                f"{mapper!r} has neither map_to_frame_record(item) nor map(item); give a "
                "connector, or an object such as a FieldMapper"
            )
        self._mapper = mapper
        if parsing is None and getattr(mapper, "gives_files", False):
            parsing = Parsing()
        self._how = (parsing, made_with, stored)

    def expand(self, pages: beam.PCollection[Page]) -> beam.PCollection[FrameBatch]:
        # What waits for other pages comes out in the one window that there usually is.
        waits = pages.windowing.is_default()
        frames: beam.PCollection[FrameBatch] = pages | "Map" >> beam.ParDo(
            _MapDoFn(self._mapper, *self._how, waits)
        ).with_output_types(FrameBatch)
        return frames


class _MapDoFn(beam.DoFn):
    def __init__(
        self,
        mapper: Any,
        parsing: Parsing | None,
        made_with: bytes,
        stored: StoredIn | None,
        waits: bool = False,
    ) -> None:
        self._mapper = mapper
        self._parsing = parsing
        self._made_with = made_with
        self._stored = stored
        self._waits = waits

    def start_bundle(self) -> None:
        self._live: Any = None
        self._waiting = _Waiting()

    def process(self, page: Page) -> Iterator[FrameBatch]:
        required(page, Page, "MapToFrames")
        if self._live is None:
            self._begin()
        if self._is_prepared:
            yield from self._prepared(page)
            return
        if not self._waits or self._columns is None or page.table is not None:
            yield from self._mapped(self._waiting.all())
            yield from map_batches(page, self._call, self._columns)
        else:
            yield from self._mapped(self._waiting.add(page, self._kind_of(page)))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        yield from map(in_global_window, self._mapped(self._waiting.all()))

    def _begin(self) -> None:
        mapper = self._mapper
        if isinstance(mapper, BaseConnector):
            mapper = live_connector(mapper)
        self._live = mapper
        self._call = getattr(mapper, "map_to_frame_record", None) or mapper.map
        self._columns = columns_of(mapper)
        self._is_prepared = isinstance(mapper, BaseConnector) and is_prepared(mapper)
        self._told_apart_by: str = getattr(mapper, "_told_apart_by", "")

    def _kind_of(self, page: Page) -> str | None:
        """Returns which pages can be mapped with a page."""
        first = page.items[0] if page.items and self._told_apart_by else None
        kind = first.get(self._told_apart_by) if isinstance(first, dict) else None
        return kind if isinstance(kind, str) else None

    def _prepared(self, page: Page) -> Iterator[FrameBatch]:
        stored = None
        if self._stored is not None and page.source is not None:
            stored = self._stored.of(page.source.source_id)
        making = Making(self._live, self._made_with, self._parsing, stored)
        for ready in ready_items(page, making):
            yield map_ready(page, ready, self._call)

    def _mapped(self, together: Iterable[list[Page]]) -> Iterator[FrameBatch]:
        for pages in together:
            assert self._columns is not None
            yield from map_pages(pages, self._call, self._columns)


class _Waiting:
    """Pages that wait for others of their kind, to be mapped together."""

    def __init__(self) -> None:
        self._pages: dict[str | None, list[Page]] = {}
        self._source: SourceInfo | None = None
        self._filled = 0.0
        self._since = 0.0

    def add(self, page: Page, kind: str | None) -> Iterator[list[Page]]:
        """Lets a page wait, and yields those of each kind that wait no more."""
        now = time.monotonic()
        if page.source != self._source or now > self._since + _LONGEST_WAIT:
            yield from self.all()
        if not self._pages:
            self._source, self._since = page.source, now
        together = self._pages.setdefault(kind, [])
        together.append(page)
        self._filled += _share(page)
        if self._filled >= 1:
            yield from self.all()
        elif sum(one.count for one in together) >= _ENOUGH_TOGETHER:
            del self._pages[kind]
            self._filled -= sum(map(_share, together))
            yield together

    def all(self) -> Iterator[list[Page]]:
        """Yields all pages of each kind; none waits any more."""
        pages, self._pages, self._filled = self._pages, {}, 0.0
        yield from pages.values()


def _share(page: Page) -> float:
    """Returns the share of a page in the limits of what waits."""
    size = page.size / _SIZE_WAITING if page.size else 1 / _UNKNOWN_WAITING
    return max(page.count / _ITEMS_WAITING, size)


# Records of 1 KB took 3.5 us each to map in pages of 100, 1.3 us in ten of them together, and
# 1.2 us in eighty.
_ENOUGH_TOGETHER = 1000
# Pages of all kinds wait up to these limits on their items and their bytes, or on the number of
# those whose bytes are unknown.
_ITEMS_WAITING = 8192
_SIZE_WAITING = 8 << 20
_UNKNOWN_WAITING = 16
# After so many seconds those that wait are mapped with the next page that comes, because documents
# of a slow source should be counted soon.
_LONGEST_WAIT = 0.5


class ToRecords(Step[beam.PCollection[FrameBatch], beam.PCollection[FrameRecord]]):
    """Turns batches into single `FrameRecord` elements, for people who want rows.

    Dead letters and sync state are left out: a sink that gets records does not know them.
    """

    takes = (FrameBatch,)
    gives = FrameRecord

    def expand(self, batches: beam.PCollection[FrameBatch]) -> beam.PCollection[FrameRecord]:
        records: beam.PCollection[FrameRecord] = batches | "Records" >> beam.FlatMap(
            _records_of
        ).with_output_types(FrameRecord)
        return records


def _records_of(batch: FrameBatch) -> list[FrameRecord]:
    return required(batch, FrameBatch, "ToRecords").records


def map_batches(
    page: Page, mapper: Callable[[Any], FrameRecord | Deletion], columns: ByColumns | None
) -> Iterator[FrameBatch]:
    """Makes the records of a page by columns, and what cannot be made so as `map_page` does.

    Args:
        page: The page.
        mapper: Maps one item.
        columns: Maps many items at once, the same as `mapper`; None if nothing does.

    Yields:
        The records by columns, and then the others, with the failures and counts of the page.
    """
    found = None if columns is None else mapped_by_columns(page, columns)
    yield from _batches(page, found, mapper)


def map_pages(
    pages: Sequence[Page], mapper: Callable[[Any], FrameRecord | Deletion], columns: ByColumns
) -> Iterator[FrameBatch]:
    """Makes the records of pages of items together, as `map_batches` does of each page.

    Args:
        pages: The pages, best with items that are alike.
        mapper: Maps one item.
        columns: Maps many items at once, the same as `mapper`.
    """
    for page, found in zip(pages, mapped_together(pages, columns), strict=True):
        yield from _batches(page, found, mapper)


def _batches(
    page: Page, found: MappedColumns | None, mapper: Callable[[Any], FrameRecord | Deletion]
) -> Iterator[FrameBatch]:
    """Makes the batches of a page of which some records were made by columns, or none."""
    if found is None:
        yield map_page(page, mapper)
        return
    batch = FrameBatch.of_page(page)
    if not len(found.apart):
        batch.put_columns(found.columns, page)
        yield _with_unsure(batch)
        return
    others = batch.empty()
    others.documents = found.places.tolist()
    others.put_columns(found.columns, page)
    yield others
    places = found.apart.tolist()
    yield _mapped(batch, page.items_at(places), places, mapper)


def map_page(page: Page, mapper: Callable[[Any], FrameRecord | Deletion]) -> FrameBatch:
    """Makes the records of a page, one call of `mapper` an item.

    An item for which it returns a Deletion makes no record. One that it refuses with an exception,
    or for which it returns anything else, becomes a dead letter of the stage `map`.
    """
    items = page.items
    return _mapped(FrameBatch.of_page(page), items, range(len(items)), mapper)


def map_ready(page: Page, ready: Ready, mapper: Callable[[Any], Any]) -> FrameBatch:
    """Makes the records of those items of a page that are ready, as `map_page` does of all."""
    batch = FrameBatch(
        [], [], page.partition, page.position, failures=ready.failures, tally=ready.tally
    )
    return _mapped(batch, ready.items, ready.places, ready.mapper(mapper))


def _mapped(
    batch: FrameBatch,
    items: list[Any],
    places: Sequence[int],
    mapper: Callable[[Any], FrameRecord | Deletion],
) -> FrameBatch:
    """Fills a batch with what a mapper makes of items, which have these places on their page."""
    records: list[FrameRecord] = []
    failed: dict[int, Exception] = {}
    deletions: dict[int, Deletion] = {}
    for index, item in enumerate(items):
        try:
            record = mapper(item)
            if isinstance(record, Deletion):
                deletions[index] = record
                continue
            if not isinstance(record, FrameRecord):
                raise TypeError(
                    f"map_to_frame_record returned {type_shown(record)}; it must return a "
                    "FrameRecord"
                )
        except Exception as error:
            failed[index] = error
        else:
            records.append(record)
    others = failed.keys() | deletions.keys()
    kept = [number for number in range(len(items)) if number not in others]
    batch.records = records
    batch.items = items if not others else [items[number] for number in kept]
    if len(kept) < len(places) or places != range(len(places)):
        batch.documents = [places[number] for number in kept]
    batch.deletions = [(deletion, items[index]) for index, deletion in deletions.items()]
    for index, reason in failed.items():
        batch.fail("map", reason, items[index], places[index])
    return _with_unsure(batch)


def _with_unsure(batch: FrameBatch) -> FrameBatch:
    """Counts the failures whose documents are not known."""
    unsure = len(batch.failures) - len(batch.tally.stale)
    if unsure > 0:
        batch.tally.unsure[batch.partition] = unsure
    return batch
