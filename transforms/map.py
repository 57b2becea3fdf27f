"""MapToFrames: pages of source items become batches of records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam

from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.page import Page
from contextframe_beam.connectors.read.runtime import live_connector
from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.record import Deletion, FrameRecord
from contextframe_beam.transforms.elements import FrameBatch, Step, letter_of, required, type_shown


class MapToFrames(Step[beam.PCollection[Page], beam.PCollection[FrameBatch]]):
    """Calls the connector's `map_to_frame_record` for each item of each page.

    Args:
        mapper: The connector that the pages are from, or any object with
            `map_to_frame_record(item)` or `map(item)`, such as a `FieldMapper`.

    Returns:
        A PCollection of `FrameBatch`. Items that cannot be mapped travel in it as dead letters.

    Raises:
        ConfigError: `mapper` has neither of these methods.
    """

    takes = (Page,)
    gives = FrameBatch

    def __init__(self, mapper: Any) -> None:
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

    def expand(self, pages: beam.PCollection[Page]) -> beam.PCollection[FrameBatch]:
        frames: beam.PCollection[FrameBatch] = pages | "Map" >> beam.ParDo(
            _MapDoFn(self._mapper)
        ).with_output_types(FrameBatch)
        return frames


class _MapDoFn(beam.DoFn):
    def __init__(self, mapper: Any) -> None:
        self._mapper = mapper

    def process(self, page: Page) -> Iterator[FrameBatch]:
        required(page, Page, "MapToFrames")
        mapper = self._mapper
        if isinstance(mapper, BaseConnector):
            mapper = live_connector(mapper)
        call = getattr(mapper, "map_to_frame_record", None) or mapper.map
        yield map_page(page, call)


class ToRecords(Step[beam.PCollection[FrameBatch], beam.PCollection[FrameRecord]]):
    """Turns batches into single `FrameRecord` elements, for people who want rows.

    Dead letters and sync state stay behind: a sink that is given records does not know them.
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


def map_page(page: Page, mapper: Callable[[Any], FrameRecord | Deletion]) -> FrameBatch:
    """Makes the records of a page, one call of `mapper` an item.

    An item for which it returns a Deletion makes no record. One that it refuses with an exception,
    or for which it returns anything else, becomes a dead letter of the stage `map`.
    """
    records: list[FrameRecord] = []
    items: list[Any] = page.items
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
    batch = FrameBatch(
        records=records,
        items=items if not others else [i for n, i in enumerate(items) if n not in others],
        partition=page.partition,
        position=page.position,
        failures=list(page.failures),
        deletions=[(deletion, items[index]) for index, deletion in deletions.items()],
        tally=page.tally,
    )
    for index, reason in failed.items():
        batch.failures.append(letter_of("map", reason, items[index], batch, index))
    return batch
