"""Batches of records become batches of rows.

What was mapped by columns is encoded so. What cannot be is encoded as single records, which gives
the same rows, or a dead letter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
import pyarrow as pa
from apache_beam.utils.windowed_value import WindowedValue

from contextframe_beam.connectors.read import runtime
from contextframe_beam.errors import RecordError
from contextframe_beam.frames.columns import FrameColumns, NotByColumns
from contextframe_beam.frames.encode import encode_records
from contextframe_beam.frames.encode_columns import encode_columns
from contextframe_beam.frames.fields import OwnField
from contextframe_beam.frames.record import Deletion, FrameRecord
from contextframe_beam.transforms.elements import (
    FrameBatch,
    RowBatch,
    batch_of_records,
    in_global_window,
    letter_of,
)
from contextframe_beam.transforms.plan import Run

__all__ = ["encode", "encode_batches"]

# Batches are encoded together up to these limits on their number, their text and raw data, and
# their records. One by one, pages of 100 records of 1 KB took 10 us longer for each record. The
# limit on the number of batches keeps memory in proportion to a page, whatever a record contains.
_BATCHES_TOGETHER = 8
_SIZE_TOGETHER = 4 << 20
_RECORDS_TOGETHER = 1024
# Columns cost work for each call of Arrow: documents of 1.3 KB took 4.8 us each in batches of 1,500
# rows, 3.9 us in those of 3,000, and 3.1 us in those of 6,000.
_COLUMNS_TOGETHER = 8192
_COLUMNS_SIZE_TOGETHER = 8 << 20


def encode(
    batches: beam.PCollection[FrameBatch | FrameRecord | Deletion], run: Run
) -> beam.PCollection[RowBatch]:
    """Makes rows of the batches and single records of a run, of small ones together."""
    rows: beam.PCollection[RowBatch] = batches | "Encode" >> beam.ParDo(
        _EncodeDoFn(run)
    ).with_output_types(RowBatch)
    return rows


class _EncodeDoFn(beam.DoFn):
    """Makes rows from batches, with small ones together, and from single records."""

    def __init__(self, run: Run) -> None:
        self._embed_dim = run.embed_dim
        self._fields = run.fields
        self._deletes = not run.mode.only_adds

    def start_bundle(self) -> None:
        self._records: list[FrameRecord | Deletion] = []
        self._size = 0
        self._batches: list[FrameBatch] = []
        self._filled = 0.0

    def process(self, element: FrameBatch | FrameRecord | Deletion) -> Iterator[RowBatch]:
        if not isinstance(element, FrameBatch):
            self._records.append(element)
            self._size += _size_of([element])
            if len(self._records) < _RECORDS_TOGETHER and self._size < _SIZE_TOGETHER:
                return
            element = self._collected()
        yield from self._add(element)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._records:
            yield from map(in_global_window, self._add(self._collected()))
        if self._batches:
            yield in_global_window(self._encoded())

    def _add(self, batch: FrameBatch) -> Iterator[RowBatch]:
        if self._batches and self._batches[0].source != batch.source:
            yield self._encoded()
        # Counted as soon as they are read, although they wait here.
        tally = batch.tally
        runtime.count(items=tally.read, finished=tally.finished)
        self._batches.append(batch)
        self._filled += _share(batch)
        if self._filled >= 1:
            yield self._encoded()

    def _collected(self) -> FrameBatch:
        records, self._records, self._size = self._records, [], 0
        return batch_of_records(records)

    def _encoded(self) -> RowBatch:
        batches, self._batches = self._batches, []
        self._filled = 0.0
        return encode_batches(batches, self._embed_dim, self._fields, deletes=self._deletes)


def _share(batch: FrameBatch) -> float:
    """Returns the share of a batch in the limits of encoding together."""
    columns = batch.columns
    if columns is not None:
        share = max(batch.count / _COLUMNS_TOGETHER, columns.size / _COLUMNS_SIZE_TOGETHER)
        return max(share, 1 / (2 * _BATCHES_TOGETHER))
    share = max(batch.count / _RECORDS_TOGETHER, 1 / _BATCHES_TOGETHER)
    return share if share >= 1 else max(share, _size_of(batch.records) / _SIZE_TOGETHER)


def _size_of(records: Iterable[FrameRecord | Deletion]) -> int:
    """Counts the characters of texts and the bytes of raw data; the rest is small."""
    size = 0
    for record in records:
        if isinstance(record, FrameRecord):
            text, raw = record.text_content, record.raw_data
            if isinstance(text, str):
                size += len(text)
            if isinstance(raw, bytes):
                size += len(raw)
    return size


def encode_batches(
    batches: Sequence[FrameBatch],
    embed_dim: int,
    fields: Sequence[OwnField] = (),
    *,
    deletes: bool = True,
) -> RowBatch:
    """Makes the rows of batches; records that do not fit into a row become dead letters (`encode`).

    The batches become one, because each column costs some work, filled or not.

    Args:
        batches: The records, all of one source.
        embed_dim: The vector length of the dataset.
        fields: Its own fields.
        deletes: Whether the run looks at stored rows; otherwise deletions become dead letters too.
    """
    source = batches[0].source
    source_id = source.source_id if source else None
    errors: list[tuple[int, RecordError]] = []
    rows = _rows_of_columns(batches, embed_dim, source_id, fields)
    if rows is None:
        rows, errors = encode_records(
            [record for batch in batches for record in batch.records],
            embed_dim=embed_dim,
            source=source_id,
            documents=_numbers_of(batches),
            fields=fields,
        )
    encoded = RowBatch(rows)
    start = 0
    incomplete: set[int] = set()
    for batch in batches:
        stop = start + batch.count
        refused = [(index - start, error) for index, error in errors if start <= index < stop]
        _refuse(batch, refused, deletes)
        encoded.failures += batch.failures
        incomplete |= {start + index for index in _parts_with(batch, refused)}
        encoded.tally += batch.tally
        if deletes:
            encoded.deletions += [deletion for deletion, _ in batch.deletions]
        start = stop
    if incomplete:
        stored = sorted(set(range(start)) - {index for index, _ in errors})
        kept = [index not in incomplete for index in stored]
        encoded.rows = rows.filter(pa.array(kept, pa.bool_()))
    return encoded


def _rows_of_columns(
    batches: Sequence[FrameBatch],
    embed_dim: int,
    source_id: str | None,
    fields: Sequence[OwnField],
) -> pa.RecordBatch | None:
    """Returns the rows of batches of columns; None if their records have to be encoded."""
    parts = [batch.columns for batch in batches if batch.columns is not None]
    if not parts or any(batch.columns is None and batch.records for batch in batches):
        return None
    try:
        return encode_columns(
            FrameColumns.concat(parts), embed_dim=embed_dim, source=source_id, fields=fields
        )
    except NotByColumns:
        return None


def _numbers_of(batches: Sequence[FrameBatch]) -> list[int]:
    """Returns the number of each record's document; nothing where each is one of its own."""
    numbers: list[int] = []
    if any(len(batch.documents) > len(set(batch.documents)) for batch in batches):
        for batch in batches:
            first = 1 + max(numbers, default=-1)
            numbers += [first + one for one in batch.documents or range(len(batch.records))]
    return numbers


def _parts_of(batch: FrameBatch, number: int) -> list[FrameRecord]:
    if not batch.documents:
        return [batch.records[number]]
    numbered = zip(batch.records, batch.documents, strict=True)
    return [record for record, one in numbered if one == number]


def _parts_with(batch: FrameBatch, refused: list[tuple[int, RecordError]]) -> Iterator[int]:
    """Yields the other parts of documents that have a refused part."""
    if refused and batch.documents:
        gone = {batch.documents[index] for index, _ in refused}
        yield from (index for index, number in enumerate(batch.documents) if number in gone)


def _refuse(batch: FrameBatch, records: list[tuple[int, RecordError]], deletes: bool) -> None:
    """Makes dead letters of records that do not fit into a row, and of unsupported deletions."""
    told: set[int] = set()
    for index, error in records:
        item = batch.items[index]
        record = batch.records[index]
        if batch.documents:
            index = batch.documents[index]
            if index in told:
                continue
            told.add(index)
        if item is None and isinstance(record, FrameRecord):
            # Without a connector, we can keep only the record.
            names = (name for name in FrameRecord.__slots__ if name != "score")
            item = {name: getattr(record, name) for name in names}
        batch.fail("encode", error, item, index, _parts_of(batch, index))
    if not deletes:
        for index, (deletion, item) in enumerate(batch.deletions):
            refusal = RecordError(
                f"the item deletes {deletion.unique_id or deletion.key}, and a run in the mode "
                'append adds rows only; choose mode="upsert" or mirror'
            )
            batch.failures.append(letter_of("encode", refusal, item, batch, index))
