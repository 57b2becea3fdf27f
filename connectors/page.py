"""The values that travel from a source to the mapping: partitions, pages and dead letters.

A page is the result of one request or of one slice of a file. The bookkeeping of a run (the planned
and the finished blocks, the state of a partition, the items that could not be read) travels inside
the pages, so that it cannot get lost on the way to the commit.
"""

from __future__ import annotations

import json
import traceback as _traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from contextframe_beam.connectors.identity import line_in
from contextframe_beam.connectors.item_json import decode_item as decode_item
from contextframe_beam.connectors.item_json import encode_item as encode_item
from contextframe_beam.connectors.item_json import field_names as field_names
from contextframe_beam.connectors.item_json import type_name
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.frames.place import Place as Place
from contextframe_beam.frames.place import Window as Window
from contextframe_beam.frames.record import readers_of
from contextframe_beam.store.runs import NO_CHANGE, NO_SOURCE, StateChange

if TYPE_CHECKING:
    import pyarrow as pa

#: The only partition of a source without parts.
WHOLE = "all"

_FAILURES_LISTED = 100
_FRAMES_KEPT = 20
_TRACEBACK_LIMIT = 8 * 1024
_MESSAGE_LIMIT = 4 * 1024


@dataclass(frozen=True, slots=True)
class Partition:
    """One independently readable part of a source: a channel, a folder, a file, a time slice.

    Attributes:
        id: Names the partition within its source, the same in every run; states are kept under it.
        params: What the connector needs to read it; picklable, best plain JSON values.
        content: The content to read, if it differs from run to run: the versions of files, or an
            end of time. A continued backfill reads a part again if its content is new.
        resumes_at: For a range of time, where a run without a range would begin, ISO 8601; empty
            for the very beginning. A range that begins no later leaves nothing out, so the state
            may move to its end. None if unknown.
        blocks: Of a connector of parts: how many blocks it has, which any worker can read alone.
    """

    id: str
    params: Any = None
    content: Any = None
    resumes_at: str | None = None
    blocks: int = 1


@dataclass(frozen=True, slots=True)
class DocumentVersion:
    """Which document an item is, and in which version, as far as it is known before it is fetched.

    Attributes:
        unique_id: The id of the record that the item becomes.
        version: What the source calls the version: a strong etag, a blob's digest, the time of the
            last edit. It is another one whenever the document is. None where only the document's
            bytes tell, which is for files.
        place: The place of the record, if it has one. A document that moved is another version.
        readers: Who may read it, as in the record. They are no part of the version: where only they
            are others, the stored rows get them, and nothing is fetched, parsed or embedded.
        collection: What it is filed in, such as the path of its folder, where the record has that
            in its metadata as `collection`. Like the readers, it is no part of the version. None
            where it is not told here.

    Raises:
        RecordError: the readers are not texts that name somebody.
    """

    unique_id: str
    version: str | bytes | None
    place: Place | None = None
    readers: Sequence[str] | None = None
    collection: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "readers", readers_of(self.readers))


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """The identity of the source of pages.

    Attributes:
        source_id: 16 hexadecimal characters, the same for the same source on every machine.
        name: The connector's name, for people.
        identity: The origin of `source_id`, as a JSON object without secrets.
        by_partition: The reading arguments that select a part of it and leave the states of its
            partitions correct, because they select whole partitions or cut parts without a state.
    """

    source_id: str
    name: str
    identity: dict[str, Any] = field(default_factory=dict)
    by_partition: tuple[str, ...] = ()


#: The source of records without a connector.
RECORDS = SourceInfo(NO_SOURCE, NO_SOURCE)


#: The fields of a tally that count what was done to documents on their way, as a receipt has them.
WORK_COUNTED = (
    "documents",
    "parsed",
    "texts_embedded",
    "texts_reused",
    "tokens",
    "requests",
    "skipped",
)


@dataclass(slots=True)
class Tally:
    """The counts and states of a source or a part of it, and whether it was read completely.

    Each element of a pipeline has its own tally, and the commit uses the sum of all. To record
    something new about a run, add it here: as a field, in `__iadd__`, and in `Page.tally` if
    authors set it.

    Attributes:
        source: The source; None for records without a connector.
        read: Read items, including failed ones.
        planned: Blocks in the plan of the source.
        finished: Blocks that were read to their end.
        partitions: The new states of partitions, by their ids.
        change: The change of the source's state as a whole.
        narrowed: Why the run does not ask for all of the source; empty if it does.
        partial: Why records may be missing; empty if nothing is missing.
        unread: Why parts of the source could not be read; empty if all could.
        may_slip: Whether a record may have been missed between counted pages.
        unchanged: The number of items that are already stored as they are.
        unchanged_rows: Their rows in the version of the dataset that the run began with: row
            numbers from `pack`, in pieces.
        recognised_rows: Rows of documents that are completely stored as they are. Each number
            stands for the document and all its chunks. They count in `unchanged` too.
        readers: Who may read recognised documents of which others may by what is stored: the keys
            of these documents, 16 bytes each, joined, by their readers.
        collections: Where recognised documents are filed that are filed elsewhere by what is
            stored: their keys in the same way, by their collections.
        stale: One entry for each failed item whose documents are known: their keys, 16 bytes each,
            joined. The stored content of these documents stays.
        doubtful: Keys of documents of which the source alone said who may read them, not what comes
            after it; in the same way.
        unsure: How many items failed in each partition whose documents are not known.
        windows: Stretches that were told completely, each with the partition whose page said so.
        documents: Documents that were parsed or chunked, or recognised before that.
        parsed: Documents whose bytes were parsed.
        texts_embedded: Texts that an embedder made vectors of.
        texts_reused: Texts whose vectors were known from before.
        tokens: Tokens of the texts that were embedded.
        requests: Requests that were sent to embed them.
        skipped: Items of types without a parser.
        account: The account whose content was read, where the arguments do not say it.
    """

    source: SourceInfo | None = None
    read: int = 0
    planned: int = 0
    finished: int = 0
    partitions: dict[str, dict[str, Any]] = field(default_factory=dict)
    change: StateChange = NO_CHANGE
    narrowed: set[str] = field(default_factory=set)
    partial: set[str] = field(default_factory=set)
    unread: set[str] = field(default_factory=set)
    may_slip: bool = False
    unchanged: int = 0
    unchanged_rows: list[bytes] = field(default_factory=list)
    recognised_rows: list[bytes] = field(default_factory=list)
    readers: dict[tuple[str, ...] | None, bytes] = field(default_factory=dict)
    collections: dict[str, bytes] = field(default_factory=dict)
    stale: list[bytes] = field(default_factory=list)
    doubtful: list[bytes] = field(default_factory=list)
    unsure: dict[str, int] = field(default_factory=dict)
    windows: set[tuple[str, Window]] = field(default_factory=set)
    documents: int = 0
    parsed: int = 0
    texts_embedded: int = 0
    texts_reused: int = 0
    tokens: int = 0
    requests: int = 0
    skipped: int = 0
    account: str = ""

    def __iadd__(self, other: Tally) -> Tally:
        """Adds the tally of another part of the same source."""
        self.source = self.source or other.source
        self.read += other.read
        self.planned += other.planned
        self.finished += other.finished
        self.partitions |= other.partitions
        if other.change != NO_CHANGE:
            self.change = other.change
        self.narrowed |= other.narrowed
        self.partial |= other.partial
        self.unread |= other.unread
        self.may_slip |= other.may_slip
        self.unchanged += other.unchanged
        self.unchanged_rows += other.unchanged_rows
        self.recognised_rows += other.recognised_rows
        for readers, keys in other.readers.items():
            self.readers[readers] = self.readers.get(readers, b"") + keys
        for collection, keys in other.collections.items():
            self.collections[collection] = self.collections.get(collection, b"") + keys
        self.stale += other.stale
        self.doubtful += other.doubtful
        for partition, count in other.unsure.items():
            self.unsure[partition] = self.unsure.get(partition, 0) + count
        self.windows |= other.windows
        self.account = self.account or other.account
        for name in WORK_COUNTED:
            if added := getattr(other, name):
                setattr(self, name, getattr(self, name) + added)
        return self

    def __add__(self, other: Tally) -> Tally:
        """Returns the sum; neither of the two changes."""
        total = Tally()
        total += self
        total += other
        return total

    def note_readers(self, readers: Sequence[str] | None, key: bytes) -> None:
        """Lets the commit write who may read a stored document, which stays as it is."""
        named = None if readers is None else tuple(readers)
        self.readers[named] = self.readers.get(named, b"") + key

    def note_collection(self, collection: str, key: bytes) -> None:
        """Lets the commit write where a stored document is filed, which stays as it is."""
        self.collections[collection] = self.collections.get(collection, b"") + key

    def note_stale(self, readers: Sequence[str] | None, key: bytes) -> None:
        """Notes that a document failed, so that its stored content stays."""
        self.stale.append(key)
        self.doubtful.append(key)
        self.note_readers(readers, key)

    @property
    def info(self) -> SourceInfo:
        """The identity of the source; there is also one for records without a connector."""
        return self.source or RECORDS

    @property
    def met_rows(self) -> list[bytes]:
        """The rows of all documents that are stored as they are already."""
        return [*self.unchanged_rows, *self.recognised_rows]

    @property
    def gave_nothing(self) -> bool:
        """Whether the run asked for all of the source and found no items, not even failed ones."""
        return not self.read and not self.narrowed

    @property
    def moves_state(self) -> bool:
        """Whether it moves the state of the source."""
        return bool(self.partitions) or self.change.moves_state


@dataclass(slots=True)
class DeadLetter:
    """One item that could not be read, mapped, enriched or encoded, complete enough to replay it.

    Every field is free of the secrets that were in use in the process that made the letter.

    Attributes:
        stage: read, map, enrich or encode.
        connector: The connector's name.
        partition: The id of the partition that the item came from.
        position: Its position in the partition (a page, an offset, a file).
        item: The whole item as JSON values; `original_item` turns it back.
        error_type: The qualified name of the exception's class.
        message: The message of the exception.
        traceback: The innermost calls, as Python prints them.
        run_id: The run in which it failed.
        time: When it failed, UTC, ISO 8601.
    """

    stage: str
    connector: str
    partition: str
    position: str
    item: Any
    error_type: str
    message: str
    traceback: str
    run_id: str
    time: str

    @classmethod
    def of(
        cls,
        stage: str,
        error: BaseException,
        item: Any,
        connector: str,
        partition: str,
        position: str,
        run_id: str = "",
    ) -> DeadLetter:
        """Makes the letter for `item`, which failed with `error` at `stage`.

        Args:
            stage: read, map, enrich or encode.
            error: The exception; its traceback is cut to the innermost calls.
            item: Any value. Values that do not fit into JSON are encoded as in `encode_item`.
            connector: The connector's name.
            partition: The id of the partition.
            position: The position of the item in the partition.
            run_id: The run, if known.
        """
        trace = "".join(_traceback.format_exception(error, limit=-_FRAMES_KEPT))
        return cls(
            stage=stage,
            connector=redact(connector),
            partition=redact(partition),
            position=redact(position),
            item=encode_item(item),
            error_type=type_name(error),
            message=_shorten(redact(_text_of(error)), _MESSAGE_LIMIT),
            traceback=_shorten(redact(trace), _TRACEBACK_LIMIT, keep_end=True),
            run_id=run_id,
            time=datetime.now(timezone.utc).isoformat(),
        )

    @property
    def line(self) -> str:
        """The line of a user's file at which it failed, as in `crm.py, line 12`, or ""."""
        return line_in(self.traceback)

    def to_json(self) -> str:
        """Returns the letter as one line of JSON (ASCII, so that no reader splits it)."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(values, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> DeadLetter:
        """Reads a letter from `to_json`; fields of later releases are ignored.

        Raises:
            ValueError: `text` is not a dead letter.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"a dead letter is a JSON object, not {type(values).__name__}")
        missing = [name for name in cls.__slots__ if name not in values]
        if missing:
            raise ValueError(f"not a dead letter: it has no {', '.join(missing)}")
        return cls(**{name: values[name] for name in cls.__slots__})

    def original_item(self) -> Any:
        """Returns the item as the source gave it, to try it again.

        Secrets in it remain replaced; values of which only the `repr` was kept stay encoded.
        """
        return decode_item(self.item)


class ListedFailures:
    """The items that failed in a plain loop: how many, and the first hundred of them."""

    def __init__(self) -> None:
        self._count = 0
        self._listed: list[dict[str, str]] = []

    def add(self, letter: DeadLetter, *names: str) -> None:
        """Counts a letter, and keeps its message with the attributes of these names."""
        self._count += 1
        if len(self._listed) < _FAILURES_LISTED:
            self._listed.append({name: getattr(letter, name) for name in (*names, "message")})

    @property
    def stats(self) -> dict[str, Any]:
        """What `get_stats` tells of them: `failed` and `failures`."""
        return {"failed": self._count, "failures": list(self._listed)}


@dataclass(slots=True)
class Page:
    """A batch of source items with the bookkeeping of the run.

    `fetch_page` of a paginated connector sets `items` and `next_cursor`; the reader sets the rest.

    Attributes:
        items: Some hundred items, in the source's own form. Those of a table are made when they
            are asked for, and take its place.
        table: Instead of items: a table, each row of which is an item. Row i is the item that
            `items_of` makes of it, a dictionary of its columns.
        next_cursor: The cursor for the next `fetch_page`; None on the last page.
        partition: The id of the partition.
        position: The position of the page in the partition.
        source: The source.
        failures: Items that could not be read.
        state: The partition's new state, on its last page.
        planned: The number of blocks in the whole run; on one header page only.
        finished: 1 on the last page of each block, otherwise 0.
        narrowed: Why what the run asks for is not all of the source (a limit, a filter, changes
            only), in words that go on after "because"; empty where it is. One page of a run
            suffices. A mirror then deletes nothing that it did not see.
        partial: Why records may be missing, and what to do about it; empty if nothing is missing.
            One page of a run suffices. The run's rows are committed, but no state of its source
            moves and a mirror deletes nothing.
        unread: Why parts of the source cannot be read, such as a channel that the account may not
            see; `BaseConnector.skip` makes it. The run is partial as well, but only the states of
            these partitions stay: those of partitions that were read to their end move.
        windows: Stretches of which this page and others of the run hold all that there is. What is
            stored of them and was not met in the run is deleted; see `Window`.
        may_slip: Whether pages are counted from the front, so that a record may move across the
            border of a page while others are deleted, and be missed although it exists.
        change: The change of the source's state as a whole; on the header page only.
        account: The account whose content is read, where the arguments do not say it; on the header
            page only.
        size: The number of bytes read for it, if known: for metrics, and to limit how many pages
            wait to be mapped together.
    """

    items: list[Any] = field(default_factory=list)
    next_cursor: Any = None
    partition: str = ""
    position: str = ""
    source: SourceInfo | None = None
    failures: list[DeadLetter] = field(default_factory=list)
    state: dict[str, Any] | None = None
    planned: int = 0
    finished: int = 0
    narrowed: str = ""
    partial: str = ""
    unread: tuple[str, ...] = ()
    windows: Sequence[Window] = ()
    may_slip: bool = False
    change: StateChange = NO_CHANGE
    account: str = ""
    table: pa.Table | None = None
    size: int = 0

    def __post_init__(self) -> None:
        if self.table is not None:
            del self.items

    # Hidden from type checkers, which would accept any misspelt attribute.
    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name != "items":
                raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
            self.items, self.table = items_of(self.table), None
            return self.items

    @property
    def count(self) -> int:
        """The number of its items, or of the rows of its table."""
        return len(self.items) if self.table is None else int(self.table.num_rows)

    def items_at(self, places: Sequence[int]) -> list[Any]:
        """Returns some of its items; those of a table are made for this, and it stays."""
        if self.table is None:
            return [self.items[place] for place in places]
        try:
            return items_of(self.table.take(places))
        except NotImplementedError:  # of views inside of objects, for example
            return [items_of(self.table.slice(place, 1))[0] for place in places]

    @property
    def tally(self) -> Tally:
        """Its counts and states for the commit."""
        return Tally(
            source=self.source,
            read=self.count + len(self.failures),
            planned=self.planned,
            finished=self.finished,
            partitions={} if self.state is None else {self.partition: self.state},
            change=self.change,
            narrowed={self.narrowed} if self.narrowed else set(),
            partial={self.partial} if self.partial else set(),
            unread=set(self.unread),
            windows={(self.partition, one) for one in self.windows},
            may_slip=self.may_slip,
            account=self.account,
        )

    def copy(self, **values: Any) -> Page:
        """Returns a copy with some attributes changed, because authors may keep their page."""
        return Page(**self._values | values)

    @property
    def _values(self) -> dict[str, Any]:
        """Its attributes, without the items where it has a table."""
        names = Page.__slots__ if self.table is None else Page.__slots__[1:]
        return {name: getattr(self, name) for name in names}

    def __getstate__(self) -> dict[str, Any]:
        values = self._values
        if self.table is not None:
            # Pickling a slice of a table would include its parent's whole buffers.
            values["table"] = _packed(self.table)
        return values

    def __setstate__(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            setattr(self, name, _unpacked(value) if name == "table" and value else value)


def items_of(table: pa.Table) -> list[dict[str, Any]]:
    """Returns each row of a table as an item: a dictionary of its columns, with None for null.

    Values that JSON does not have become text: dates, times and durations by ISO 8601, and uuids.
    Decimals stay decimals, and bytes stay bytes. Of columns with the same name the last one counts.
    """
    from contextframe_beam.frames import cells

    return cells.items_of(table)


def _packed(table: pa.Table) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def _unpacked(packed: bytes) -> pa.Table:
    import pyarrow as pa

    with pa.ipc.open_stream(packed) as stream:
        return stream.read_all()


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:
        return f"<{type_name(error)} whose message raises {type(failure).__name__}>"


def _shorten(text: str, limit: int, keep_end: bool = False) -> str:
    if len(text) <= limit:
        return text
    if keep_end:
        return "..." + text[-limit:]
    return text[:limit] + f"... ({len(text)} characters)"
