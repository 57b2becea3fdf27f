"""The elements between mapping and writing: batches of records, then batches of rows.

A pipeline's elements are batches because one element costs more than one record. Beside the
records travels what the commit must know: which source they are from, what failed, how much of
the plan is finished and the state that a partition has reached.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from contextframe_beam.connectors.coders import register
from contextframe_beam.connectors.page import DeadLetter, Page, SourceInfo
from contextframe_beam.encoding import encode_records, null_array
from contextframe_beam.record import FrameRecord


@dataclass(slots=True)
class FrameBatch:
    """The records made of one page, with the items they were made of.

    Attributes:
        records: The records.
        items: The source item of each record, for enrichers.
        partition: The partition that was read.
        position: Where in the partition the page stood.
        source: Which source it is; None for records that no connector made.
        failures: Items that could not be read, mapped or enriched.
        read: How many items the page had, failed ones included.
        state: The new state of the partition, on its last page.
        planned: How many blocks the source's plan has, on one batch of a run.
        finished: How many blocks ended with this batch.
    """

    records: list[FrameRecord]
    items: list[Any]
    partition: str = ""
    position: str = ""
    source: SourceInfo | None = None
    failures: list[DeadLetter] = field(default_factory=list)
    read: int = 0
    state: dict[str, Any] | None = None
    planned: int = 0
    finished: int = 0

    @property
    def connector(self) -> str:
        """The connector's name, for dead letters."""
        return self.source.name if self.source else ""


@dataclass(slots=True)
class RowBatch:
    """The rows of one FrameBatch in the dataset's schema; the other fields are FrameBatch's."""

    rows: pa.RecordBatch
    partition: str = ""
    source: SourceInfo | None = None
    failures: list[DeadLetter] = field(default_factory=list)
    read: int = 0
    state: dict[str, Any] | None = None
    planned: int = 0
    finished: int = 0

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickling an Arrow slice would carry its parent's whole buffers; IPC carries the slice.
        # Columns of nulls are left out, since a null vector takes as much room as any other.
        rows = self.rows
        filled = [name for name in rows.schema.names if rows[name].null_count < rows.num_rows]
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.select(filled).schema) as stream:
            stream.write_batch(rows.select(filled))
        rest = tuple(getattr(self, name) for name in self.__slots__ if name != "rows")
        return _row_batch_of, (sink.getvalue().to_pybytes(), rows.num_rows, rows.schema, rest)


def _row_batch_of(filled: bytes, count: int, schema: pa.Schema, rest: tuple[Any, ...]) -> RowBatch:
    with pa.ipc.open_stream(filled) as stream:
        batch = stream.read_next_batch()
    columns = [
        batch[field.name] if field.name in batch.schema.names else null_array(field.type, count)
        for field in schema
    ]
    return RowBatch(pa.RecordBatch.from_arrays(columns, schema=schema), *rest)


register(FrameBatch, RowBatch)


def map_page(page: Page, mapper: Callable[[Any], FrameRecord]) -> FrameBatch:
    """Makes the records of a page, one call of `mapper` an item.

    An item that the mapper refuses with an exception, or for which it returns anything but a
    FrameRecord, becomes a dead letter of the stage `map`.
    """
    records: list[FrameRecord] = []
    items: list[Any] = page.items
    failed: dict[int, Exception] = {}
    for index, item in enumerate(items):
        try:
            record = mapper(item)
            if not isinstance(record, FrameRecord):
                raise TypeError(
                    f"map_to_frame_record returned {_shown(record)}; it must return a FrameRecord"
                )
        except Exception as error:
            failed[index] = error
        else:
            records.append(record)
    batch = FrameBatch(
        records=records,
        items=items if not failed else [i for n, i in enumerate(items) if n not in failed],
        partition=page.partition,
        position=page.position,
        source=page.source,
        failures=list(page.failures),
        read=len(items) + len(page.failures),
        state=page.state,
        planned=page.planned,
        finished=page.finished,
    )
    for index, reason in failed.items():
        batch.failures.append(_letter("map", reason, items[index], batch, index))
    return batch


def enrich_batch(batch: FrameBatch, enrichers: list[Any]) -> FrameBatch:
    """Passes each record through every enricher's `enrich(record, item)`, in order.

    A record that an enricher refuses, or for which it returns anything but a FrameRecord, becomes
    a dead letter of the stage `enrich`; the others go on.
    """
    kept_records: list[FrameRecord] = []
    kept_items: list[Any] = []
    for index, (record, item) in enumerate(zip(batch.records, batch.items, strict=True)):
        try:
            for enricher in enrichers:
                record = enricher.enrich(record, item)
                if not isinstance(record, FrameRecord):
                    raise TypeError(
                        f"{type(enricher).__name__}.enrich returned {_shown(record)}; "
                        "it must return the FrameRecord"
                    )
        except Exception as error:
            batch.failures.append(_letter("enrich", error, item, batch, index))
        else:
            kept_records.append(record)
            kept_items.append(item)
    batch.records, batch.items = kept_records, kept_items
    return batch


def encode_batch(batch: FrameBatch, embed_dim: int) -> RowBatch:
    """Makes rows of the records; those that no row can hold become dead letters (`encode`)."""
    source = batch.source.source_id if batch.source else None
    rows, errors = encode_records(batch.records, embed_dim=embed_dim, source=source)
    failures = batch.failures
    for index, error in errors:
        item = batch.items[index]
        if item is None:  # no connector made the record, so it is all there is to keep
            record = batch.records[index]
            names = (name for name in FrameRecord.__slots__ if name != "score")
            item = {name: getattr(record, name) for name in names}
        failures.append(_letter("encode", error, item, batch, index))
    return RowBatch(
        rows=rows,
        partition=batch.partition,
        source=batch.source,
        failures=failures,
        read=batch.read,
        state=batch.state,
        planned=batch.planned,
        finished=batch.finished,
    )


def batch_of_records(records: list[FrameRecord]) -> FrameBatch:
    """Returns a batch of records that no connector made."""
    return FrameBatch(records=records, items=[None] * len(records), read=len(records))


def _letter(stage: str, error: Exception, item: Any, batch: FrameBatch, index: int) -> DeadLetter:
    position = f"{batch.position}[{index}]" if batch.position else str(index)
    return DeadLetter.of(stage, error, item, batch.connector, batch.partition, position)


def _shown(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
