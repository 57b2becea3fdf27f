"""The elements between mapping and writing: batches of records, then batches of rows.

A pipeline's elements are batches because one element costs more than one record. Beside the
records travels what the commit must know: which source they are from, what failed, how much of
the plan is finished and the state that a partition has reached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from contextframe_beam.connectors.coders import register
from contextframe_beam.connectors.page import DeadLetter, Page, SourceInfo
from contextframe_beam.deletion import Deletion
from contextframe_beam.encoding import encode_records, null_array
from contextframe_beam.errors import RecordError
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
        narrowed: Why what is asked for is not all of the source; empty where it is.
        partial: Why what was read may not be all that was asked for; empty where it is.
        may_slip: Whether a record may have been missed between pages that are counted.
        deletions: The items that were mapped to a deletion, each with it.
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
    narrowed: str = ""
    partial: str = ""
    may_slip: bool = False
    deletions: list[tuple[Deletion, Any]] = field(default_factory=list)

    @property
    def connector(self) -> str:
        """The connector's name, for dead letters."""
        return self.source.name if self.source else ""


@dataclass(slots=True)
class RowBatch:
    """The rows of a few FrameBatches in the dataset's schema, and what else they say together.

    Attributes:
        rows: The rows.
        source: Which source all of them are from; None for records that no connector made.
        partitions: The new state of each partition whose last page is among them.
        failures: Items that could not be read, mapped, enriched or encoded.
        read: How many items the pages had.
        planned: How many blocks the source's plan has, where one of the batches told.
        finished: How many blocks ended with them.
        narrowed: Why what is asked for is not all of the source.
        partial: Why what was read may not be all that was asked for.
        may_slip: Whether a record may have been missed between pages that are counted.
        deletions: What the items ask to delete.
    """

    rows: pa.RecordBatch
    source: SourceInfo | None = None
    partitions: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: list[DeadLetter] = field(default_factory=list)
    read: int = 0
    planned: int = 0
    finished: int = 0
    narrowed: set[str] = field(default_factory=set)
    partial: set[str] = field(default_factory=set)
    may_slip: bool = False
    deletions: list[Deletion] = field(default_factory=list)

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
                    f"map_to_frame_record returned {_shown(record)}; it must return a FrameRecord"
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
        source=page.source,
        failures=list(page.failures),
        read=len(items) + len(page.failures),
        state=page.state,
        planned=page.planned,
        finished=page.finished,
        narrowed=page.narrowed,
        partial=page.partial,
        may_slip=page.may_slip,
        deletions=[(deletion, items[index]) for index, deletion in deletions.items()],
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


def encode_batches(
    batches: Sequence[FrameBatch], embed_dim: int, *, deletes: bool = True
) -> RowBatch:
    """Makes the rows of batches; records that no row can hold become dead letters (`encode`).

    The batches become one, because encoding and writing cost some work a column, filled or not.

    Args:
        batches: The records, all of one source.
        embed_dim: The vector length of the dataset.
        deletes: Whether the run looks at stored rows; else deletions become dead letters too.
    """
    source = batches[0].source
    records = [record for batch in batches for record in batch.records]
    rows, errors = encode_records(
        records, embed_dim=embed_dim, source=source.source_id if source else None
    )
    encoded = RowBatch(rows, source)
    start = 0
    for batch in batches:
        stop = start + len(batch.records)
        refused = [(index - start, error) for index, error in errors if start <= index < stop]
        encoded.failures += batch.failures + _refused(batch, refused, deletes)
        encoded.read += batch.read
        encoded.planned += batch.planned
        encoded.finished += batch.finished
        if batch.state is not None:
            encoded.partitions[batch.partition] = batch.state
        if batch.narrowed:
            encoded.narrowed.add(batch.narrowed)
        encoded.may_slip |= batch.may_slip
        if batch.partial:
            encoded.partial.add(batch.partial)
        if deletes:
            encoded.deletions += [deletion for deletion, _ in batch.deletions]
        start = stop
    return encoded


def _refused(
    batch: FrameBatch, records: list[tuple[int, RecordError]], deletes: bool
) -> list[DeadLetter]:
    letters = []
    for index, error in records:
        item = batch.items[index]
        record = batch.records[index]
        if item is None and isinstance(record, FrameRecord):
            # No connector made the record, so it is all there is to keep.
            names = (name for name in FrameRecord.__slots__ if name != "score")
            item = {name: getattr(record, name) for name in names}
        letters.append(_letter("encode", error, item, batch, index))
    if not deletes:
        for index, (deletion, item) in enumerate(batch.deletions):
            refusal = RecordError(
                f"the item deletes {deletion.unique_id or deletion.key}, and a run in the mode "
                "append adds rows only; choose --mode upsert or mirror"
            )
            letters.append(_letter("encode", refusal, item, batch, index))
    return letters


def batch_of_records(elements: Sequence[FrameRecord | Deletion]) -> FrameBatch:
    """Returns a batch of records and deletions that no connector made.

    Anything else among them goes along as a record, which `encode_batches` refuses.
    """
    records = [element for element in elements if not isinstance(element, Deletion)]
    return FrameBatch(
        records=records,
        items=[None if isinstance(record, FrameRecord) else record for record in records],
        read=len(elements),
        deletions=[(element, None) for element in elements if isinstance(element, Deletion)],
    )


def _letter(stage: str, error: Exception, item: Any, batch: FrameBatch, index: int) -> DeadLetter:
    position = f"{batch.position}[{index}]" if batch.position else str(index)
    return DeadLetter.of(stage, error, item, batch.connector, batch.partition, position)


def _shown(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
