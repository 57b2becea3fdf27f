"""Batches of records become batches of rows.

What was mapped by columns is encoded so. What cannot be is encoded as single records, which gives
the same rows, or a dead letter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.utils.windowed_value import WindowedValue

from contextframe_beam.connectors.read import runtime
from contextframe_beam.errors import RecordError
from contextframe_beam.frames.columns import FrameColumns, Mask, NotByColumns, Rows
from contextframe_beam.frames.encode import encode_records
from contextframe_beam.frames.encode_columns import encode_columns
from contextframe_beam.frames.encode_units import rows_at
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
# A batch that would go beyond the limits by more than this waits for the next time: to join two
# that nearly fill them copies both, and takes 30 MB more.
_MOST_FILLED = 1.25


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
        before = self._batches[-1].page if self._batches else None
        share = _share(batch, goes_on=before is not None and batch.page is before)
        if self._batches and self._filled + share > _MOST_FILLED:
            yield self._encoded()
        self._batches.append(batch)
        self._filled += share
        if self._filled >= 1:
            yield self._encoded()

    def _collected(self) -> FrameBatch:
        records, self._records, self._size = self._records, [], 0
        return batch_of_records(records)

    def _encoded(self) -> RowBatch:
        batches, self._batches = self._batches, []
        self._filled = 0.0
        return encode_batches(batches, self._embed_dim, self._fields, deletes=self._deletes)


def _share(batch: FrameBatch, goes_on: bool) -> float:
    """Returns the share of a batch in the limits of encoding together.

    Args:
        batch: The batch.
        goes_on: Whether it goes on with the page of the one before it.
    """
    columns = batch.columns
    if columns is not None:
        share = max(batch.count / _COLUMNS_TOGETHER, columns.size / _COLUMNS_SIZE_TOGETHER)
        return max(share, 1 / (2 * _BATCHES_TOGETHER))
    share = max(batch.count / _RECORDS_TOGETHER, 0 if goes_on else 1 / _BATCHES_TOGETHER)
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
    rows, batches = _rows_of_columns(batches, embed_dim, fields)
    singles = [batch for batch in batches if batch.columns is None]
    others, errors = encode_records(
        [record for batch in singles for record in batch.records],
        embed_dim=embed_dim,
        source=_source_of(batches),
        documents=_numbers_of(singles),
        fields=fields,
    )
    refused = _by_batch(batches, errors)
    encoded = RowBatch(_in_order(batches, rows, others, refused))
    for batch, records in zip(batches, refused, strict=True):
        _refuse(batch, records, deletes)
        encoded.failures += batch.failures
        encoded.tally += batch.tally
        if deletes:
            encoded.deletions += [deletion for deletion, _ in batch.deletions]
    return encoded


def _rows_of_columns(
    batches: Sequence[FrameBatch], embed_dim: int, fields: Sequence[OwnField]
) -> tuple[pa.RecordBatch | None, list[FrameBatch]]:
    """Encodes the batches that have columns.

    Returns:
        Their rows, and all batches. Documents that cannot be encoded so are batches of their own;
        if none can be, all are records from here on, and there are no rows.
    """
    given = list(batches)
    parts = [batch.columns for batch in given if batch.columns is not None]
    if not parts:
        return None, given
    try:
        rows, apart = encode_columns(
            FrameColumns.concat(parts),
            embed_dim=embed_dim,
            source=_source_of(batches),
            fields=fields,
        )
    except NotByColumns:
        return None, [batch.with_records() for batch in given]
    if not apart.any():
        return rows, given
    found: list[FrameBatch] = []
    start = 0
    for batch in given:
        found.append(batch)
        if batch.columns is not None:
            which = apart[start : start + batch.columns.count]
            start += len(which)
            if which.any():
                found.append(batch.set_apart(which))
    return rows, found


def _source_of(batches: Sequence[FrameBatch]) -> str | None:
    source = batches[0].source
    return source.source_id if source else None


def _numbers_of(batches: Sequence[FrameBatch]) -> list[int]:
    """Returns the number of each record's document; nothing where each is one of its own."""
    numbers: list[int] = []
    if any(len(batch.documents) > len(set(batch.documents)) for batch in batches):
        for batch in batches:
            first = 1 + max(numbers, default=-1)
            numbers += [first + one for one in batch.documents or range(len(batch.records))]
    return numbers


_Refused = list[tuple[int, RecordError]]


def _by_batch(batches: Sequence[FrameBatch], errors: _Refused) -> list[_Refused]:
    """Returns which records of each batch do not fit into a row; columns have no such records."""
    found: list[_Refused] = []
    start = 0
    for batch in batches:
        stop = start + (len(batch.records) if batch.columns is None else 0)
        found.append([(at - start, error) for at, error in errors if start <= at < stop])
        start = stop
    return found


def _in_order(
    batches: Sequence[FrameBatch],
    rows: pa.RecordBatch | None,
    others: pa.RecordBatch,
    refused: Sequence[_Refused],
) -> pa.RecordBatch:
    """Returns rows in the order of their documents, without parts of documents with refused parts.

    Args:
        batches: The batches.
        rows: The rows of those with columns; None where there are none.
        others: The rows of the records of the others, as far as they fit.
        refused: The records of each batch that do not fit.
    """
    if not any(refused) and (rows is None or not others.num_rows):
        return others if rows is None else rows
    pages: dict[int, int] = {}
    # The page and the document of each row, and whether it stays; those with columns come first.
    by_columns: list[tuple[Rows, Rows, Mask]] = []
    single: list[tuple[Rows, Rows, Mask]] = []
    for number, (batch, errors) in enumerate(zip(batches, refused, strict=True)):
        page = number if batch.page is None else pages.setdefault(id(batch.page), number)
        documents = np.array(batch.documents or range(batch.count), np.int64)
        gone = np.array([index for index, _ in errors], np.int64)
        stored = np.delete(documents, gone)
        stays = ~np.isin(stored, documents[gone])
        found = single if batch.columns is None else by_columns
        found.append((np.full(len(stored), page), stored, stays))
    page_of, document_of, stays = map(np.concatenate, zip(*by_columns, *single, strict=True))
    order = np.lexsort((document_of, page_of))
    given = [others] if rows is None else [rows, others]
    return rows_at(given, order[stays[order]])


def _parts_of(batch: FrameBatch, number: int) -> list[FrameRecord]:
    if not batch.documents:
        return [batch.records[number]]
    numbered = zip(batch.records, batch.documents, strict=True)
    return [record for record, one in numbered if one == number]


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
