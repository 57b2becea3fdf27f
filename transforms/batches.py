"""The elements between mapping and writing: batches of records, then batches of rows.

A pipeline's elements are batches because one element costs more than one record. Beside the
records travels what the commit must know: what failed, and a tally of the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from contextframe_beam.connectors.coders import register
from contextframe_beam.connectors.page import DeadLetter, Page, SourceInfo, Tally
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
        failures: Items that could not be read, mapped or enriched.
        deletions: The items that were mapped to a deletion, each with it.
        tally: What the commit is to know of the page.
    """

    records: list[FrameRecord]
    items: list[Any]
    partition: str = ""
    position: str = ""
    failures: list[DeadLetter] = field(default_factory=list)
    deletions: list[tuple[Deletion, Any]] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    @property
    def source(self) -> SourceInfo | None:
        """Which source it is; None for records that no connector made."""
        return self.tally.source

    @property
    def connector(self) -> str:
        """The connector's name; "" for records that no connector made."""
        return self.source.name if self.source else ""


@dataclass(slots=True)
class RowBatch:
    """The rows of a few FrameBatches in the dataset's schema, and what else they say together.

    Attributes:
        rows: The rows, all of one source.
        failures: Items that could not be read, mapped, enriched or encoded.
        deletions: What the items ask to delete.
        tally: What the commit is to know of the pages.
    """

    rows: pa.RecordBatch
    failures: list[DeadLetter] = field(default_factory=list)
    deletions: list[Deletion] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

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
        failures=list(page.failures),
        deletions=[(deletion, items[index]) for index, deletion in deletions.items()],
        tally=page.tally,
    )
    for index, reason in failed.items():
        batch.failures.append(letter_of("map", reason, items[index], batch, index))
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
            batch.failures.append(letter_of("enrich", error, item, batch, index))
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
    encoded = RowBatch(rows)
    start = 0
    for batch in batches:
        stop = start + len(batch.records)
        refused = [(index - start, error) for index, error in errors if start <= index < stop]
        encoded.failures += batch.failures + _refused(batch, refused, deletes)
        encoded.tally += batch.tally
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
        letters.append(letter_of("encode", error, item, batch, index))
    if not deletes:
        for index, (deletion, item) in enumerate(batch.deletions):
            refusal = RecordError(
                f"the item deletes {deletion.unique_id or deletion.key}, and a run in the mode "
                'append adds rows only; choose mode="upsert" or mirror'
            )
            letters.append(letter_of("encode", refusal, item, batch, index))
    return letters


def batch_of_records(elements: Sequence[FrameRecord | Deletion]) -> FrameBatch:
    """Returns a batch of records and deletions that no connector made.

    Anything else among them goes along as a record, which `encode_batches` refuses.
    """
    records = [element for element in elements if not isinstance(element, Deletion)]
    return FrameBatch(
        records=records,
        items=[None if isinstance(record, FrameRecord) else record for record in records],
        deletions=[(element, None) for element in elements if isinstance(element, Deletion)],
        tally=Tally(read=len(elements)),
    )


def letter_of(
    stage: str, error: Exception, item: Any, origin: Page | FrameBatch, index: int
) -> DeadLetter:
    """Returns the dead letter of the item that stands at a place of a page, or of a batch of it."""
    name = origin.source.name if origin.source else ""
    position = f"{origin.position}[{index}]" if origin.position else str(index)
    return DeadLetter.of(stage, error, item, name, origin.partition, position)


def in_global_window(value: Any) -> WindowedValue:
    """Returns what a DoFn gives at the end of a bundle, for the one window that there is."""
    return WindowedValue(value, GlobalWindow().max_timestamp(), (GlobalWindow(),))


def _shown(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
