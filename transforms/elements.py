"""The elements of a pipeline: batches of records, and batches of rows.

A pipeline's elements are batches because one element costs more than one record. Beside the
records travels what the commit must know: what failed, and a tally of the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from uuid import UUID

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.transforms.window import GlobalWindow
from apache_beam.typehints import Any as Anything
from apache_beam.typehints import Union
from apache_beam.typehints.decorators import IOTypeHints
from apache_beam.typehints.typehints import is_consistent_with
from apache_beam.utils.windowed_value import WindowedValue

from contextframe_beam.connectors.files.item import FileItem
from contextframe_beam.connectors.files.seen import outcome_state
from contextframe_beam.connectors.page import DeadLetter, Page, SourceInfo, Tally
from contextframe_beam.connectors.read.transform import register
from contextframe_beam.errors import ConfigError, RecordError
from contextframe_beam.frames.columns import FrameColumns, Mask
from contextframe_beam.frames.encode import null_array
from contextframe_beam.frames.record import Deletion, FrameRecord, is_uuid, readers_of, uuid_of
from contextframe_beam.frames.values import is_unicode


@dataclass(slots=True)
class FrameBatch:
    """The records from one page, with their items.

    Attributes:
        records: The records. Where the batch has columns, they are made when they are asked for,
            and stand in the place of the columns from then on.
        items: The source item of each record, for enrichers; those of a table are made when they
            are asked for.
        documents: The number of each record's document. The parts of a document are stored
            together, or not at all if one of them fails. Empty: each record is a document.
        partition: The partition that was read.
        position: The position of the page in the partition.
        failures: Items that could not be read, mapped or enriched.
        deletions: The items that were mapped to a deletion, each with its deletion.
        tally: The page's counts and states for the commit.
        columns: The records as columns, where they were mapped so and nobody asked for `records`.
        page: The page that they were mapped from, as long as it is here; `documents` are places
            on it.
    """

    records: list[FrameRecord]
    items: list[Any]
    partition: str = ""
    position: str = ""
    failures: list[DeadLetter] = field(default_factory=list)
    deletions: list[tuple[Deletion, Any]] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    documents: list[int] = field(default_factory=list)
    columns: FrameColumns | None = None
    page: Page | None = None

    @classmethod
    def of_page(cls, page: Page) -> FrameBatch:
        """Makes a batch for the records of a page, with its failures and counts."""
        return cls(
            [],
            [],
            page.partition,
            page.position,
            failures=list(page.failures),
            tally=page.tally,
            page=page,
        )

    def empty(self) -> FrameBatch:
        """Returns a batch of the same page, without its records and counts."""
        tally = Tally(source=self.source)
        return FrameBatch([], [], self.partition, self.position, tally=tally, page=self.page)

    def set_apart(self, which: Mask) -> FrameBatch:
        """Takes documents out of the columns, and returns a batch with their records.

        Args:
            which: Marks these documents.
        """
        columns = self.columns
        assert columns is not None
        gone = which[columns.owners]
        numbers = np.array(self.documents or range(columns.count), np.int64)
        other = self.empty()
        other.documents = numbers[gone].tolist()
        if self.page is not None:
            other.items = self.page.items_at(other.documents)
        else:
            items = list(zip(self.items, gone.tolist(), strict=True))
            other.items = [item for item, is_gone in items if is_gone]
            self.items = [item for item, is_gone in items if not is_gone]
        other.records = columns.take(np.flatnonzero(which)).records()
        self.columns = columns.take(np.flatnonzero(~which))
        self.documents = numbers[~gone].tolist()
        return other

    def with_records(self) -> FrameBatch:
        """Lets its records take the place of its columns, and returns it."""
        self.records = self.records
        return self

    def put_columns(self, columns: FrameColumns, page: Page) -> None:
        """Puts columns of some items of a page in place of its records."""
        del self.records, self.items
        self.columns, self.page = columns, page

    # Hidden from type checkers, which would accept any misspelt attribute.
    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name == "records" and self.columns is not None:
                self.records, self.columns = self.columns.records(), None
                return self.records
            if name == "items" and self.page is not None:
                given, self.page = self.page.items, None
                is_whole = not self.documents and self.count
                self.items = given if is_whole else [given[one] for one in self.documents]
                return self.items
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __getstate__(self) -> tuple[Any, ...]:
        # Records first, because they take the place of the columns.
        given = {one.name: getattr(self, one.name) for one in fields(self)} | {"page": None}
        return None, given

    @property
    def count(self) -> int:
        """The number of records."""
        return len(self.records) if self.columns is None else self.columns.rows

    @property
    def source(self) -> SourceInfo | None:
        """The identity of the source; None for records without a connector."""
        return self.tally.source

    @property
    def connector(self) -> str:
        """The connector's name; "" for records without a connector."""
        return self.source.name if self.source else ""

    def fail(
        self, stage: str, error: Exception, item: Any, number: int, records: Iterable[Any] = ()
    ) -> None:
        """Makes a dead letter of an item.

        Args:
            stage: Where it failed.
            error: Why.
            item: The item that it was made of.
            number: The number of its document.
            records: All records that the item makes, where that is known: what is stored of their
                documents stays as it is.
        """
        self.failures.append(letter_of(stage, error, item, self, number))
        if isinstance(item, FileItem) and item.mark:
            # It is read again by the next run, although it may not change.
            self.tally.partitions[str(item["path"])] = outcome_state([item.mark], []) or {}
        known = {
            key: _readers_of(record)
            for record in records
            if (key := document_key(record)) is not None
        }
        for key in sorted(known):
            self.tally.note_stale(known[key], key)


def _readers_of(record: FrameRecord) -> list[str] | None:
    """Returns who may read a record that failed; nobody knows where it does not name anybody."""
    try:
        return readers_of(record.readers)
    except RecordError:
        return None


@dataclass(slots=True)
class RowBatch:
    """The rows of a few FrameBatches in the dataset's schema, and the rest of their content.

    Attributes:
        rows: The rows, all of one source.
        failures: Items that could not be read, mapped, enriched or encoded.
        deletions: The deletions from the items.
        tally: The pages' counts and states for the commit.
    """

    rows: pa.RecordBatch
    failures: list[DeadLetter] = field(default_factory=list)
    deletions: list[Deletion] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickling an Arrow slice would include its parent's whole buffers; IPC has only the slice.
        # Columns of nulls are left out, because a null vector takes as much space as any other.
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


def batch_of_records(elements: Sequence[FrameRecord | Deletion]) -> FrameBatch:
    """Returns a batch of records and deletions without a connector.

    Anything else among them goes along as a record, which `encode_batches` refuses.
    """
    records = [element for element in elements if not isinstance(element, Deletion)]
    return FrameBatch(
        records=records,
        items=[None if isinstance(record, FrameRecord) else record for record in records],
        deletions=[(element, None) for element in elements if isinstance(element, Deletion)],
        tally=Tally(read=len(elements)),
    )


def document_key(record: Any) -> bytes | None:
    """Returns the key of the document that a record is or is a part of; None if that is unknown."""
    if not isinstance(record, FrameRecord):
        return None
    own = record.metadata.get("uuid") if isinstance(record.metadata, dict) else None
    known = next((one for one in (record.parent, own) if is_uuid(one)), None)
    if known is None and isinstance(record.unique_id, str) and is_unicode(record.unique_id):
        known = uuid_of(record.unique_id) if record.unique_id else None
    return None if known is None else bytes.fromhex(known.replace("-", ""))


def uuid_of_record(record: FrameRecord) -> str:
    """Returns the key of a record that is no part of another; only one without an id is encoded.

    Raises:
        RecordError: it has no id, and cannot be stored.
    """
    key = document_key(record) if record.parent is None else None
    return record.uuid if key is None else str(UUID(bytes=key))


def letter_of(
    stage: str, error: Exception, item: Any, origin: Page | FrameBatch, index: int
) -> DeadLetter:
    """Returns the dead letter of the item at a place of a page, or of a batch of it."""
    name = origin.source.name if origin.source else ""
    if isinstance(item, FileItem):
        position = str(item["path"])
    else:
        position = f"{origin.position}[{index}]" if origin.position else str(index)
    return DeadLetter.of(stage, error, item, name, origin.partition, position)


def in_global_window(value: Any) -> WindowedValue:
    """Returns a value for the end of a bundle, in the only window that there is."""
    return WindowedValue(value, GlobalWindow().max_timestamp(), (GlobalWindow(),))


def type_shown(value: object) -> str:
    """Returns the name of a value's wrong type, for an error."""
    return "None" if value is None else f"a {type(value).__name__}"


_ORDER = (
    "the order is pipeline | ReadFromConnector(...) | MapToFrames(...) | Enrich([...]) | "
    "WriteToLance(...)"
)

_In = TypeVar("_In")
_Out = TypeVar("_Out")
_Element = TypeVar("_Element")


class Step(beam.PTransform[_In, _Out]):
    """A transform that declares its input and output types.

    Attributes:
        takes: The types of its elements.
        gives: The type of its output elements.
        keeps_others: Whether it makes dead letters of elements of other types, except those from
            another step.
    """

    takes: ClassVar[tuple[type, ...]]
    gives: ClassVar[type]
    keeps_others: ClassVar[bool] = False

    def default_type_hints(self) -> IOTypeHints:
        """Returns the types that Beam checks and passes on to the next step."""
        hints = IOTypeHints.empty().with_output_types(self.gives)
        if self.keeps_others:
            return hints
        taken = self.takes[0] if len(self.takes) == 1 else Union[self.takes]
        return hints.with_input_types(taken)

    def type_check_inputs(self, pvalueish: Any) -> None:
        """Refuses input of other types.

        Raises:
            ConfigError: the step is at the wrong place.
        """
        name = type(self).__name__
        if not isinstance(pvalueish, beam.PCollection):
            raise ConfigError(f"{name} cannot begin a pipeline; {_ORDER}")
        given = pvalueish.element_type
        if given is not None and given is not Anything and not self._accepts(given):
            raise _misplaced(name, self.takes, given)

    def _accepts(self, given: Any) -> bool:
        if self.keeps_others and not _is_of_a_step(given):
            return True
        # In either direction, because the declared type may be wider or narrower than the real one.
        return any(
            is_consistent_with(given, one) or is_consistent_with(one, given) for one in self.takes
        )


def required(element: Any, kind: type[_Element], step: str) -> _Element:
    """Returns an element of a collection without a declared type.

    Raises:
        ConfigError: it is not of the step's type.
    """
    if isinstance(element, kind):
        return element
    raise _misplaced(step, (kind,), type(element))


def _is_of_a_step(kind: Any) -> bool:
    return str(getattr(kind, "__module__", "")).partition(".")[0] == __name__.partition(".")[0]


def _misplaced(step: str, takes: tuple[type, ...], given: Any) -> ConfigError:
    taken = " or ".join(kind.__name__ for kind in takes)
    shown = given.__name__ if isinstance(given, type) else str(given)
    return ConfigError(f"{step} takes {taken}, and the step before it gives {shown}; {_ORDER}")
