"""Arrow on disk: IPC files, streams and Feather, read a record batch at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import pyarrow as pa

from contextframe_beam.connectors.json_files.content import is_compressed
from contextframe_beam.connectors.tables.ranged import RangedFile, unpacked
from contextframe_beam.connectors.tables.table_format import (
    Piece,
    Rows,
    TableFormat,
    Wanted,
    joined,
    pages_of,
)
from contextframe_beam.errors import ConnectorError

_FILE = b"ARROW1"
_FEATHER_1 = b"FEA1"


class ArrowFormat(TableFormat):
    """IPC files (Feather 2), IPC streams, and Feather 1; what a file is, its content tells."""

    endings: ClassVar[tuple[str, ...]] = (".arrow", ".feather", ".ipc", ".arrows")

    def schema(self, file: RangedFile) -> pa.Schema:
        """Returns the columns of a file."""
        head = file.head(8)
        if head.startswith(_FEATHER_1):
            return _feather(file, None).schema
        if head.startswith(_FILE):
            return _opened(file).schema
        with _stream(file) as stream:
            return stream.schema

    def pieces(self, file: RangedFile, wanted: Wanted, size: int) -> Sequence[Piece] | None:
        """Returns ranges of record batches; None for what is read from its beginning only."""
        if not file.head(8).startswith(_FILE):
            return None
        count = _opened(file).num_record_batches
        # Only the batches themselves tell how large they are; most writers make them alike.
        begins = [file.size * number // max(count, 1) for number in range(count)]
        return joined(range(count), begins, size)

    def place_of(self, first: int, stop: int) -> str:
        """Returns the name of record batches."""
        if stop - first == 1:
            return f"record batch {first}"
        return f"record batches {first} to {stop - 1}"

    def rows(self, file: RangedFile, piece: Any, wanted: Wanted) -> Iterator[Rows]:
        """Yields the rows of record batches, some thousand at a time."""
        head = file.head(8)
        if head.startswith(_FEATHER_1):
            for part, place in pages_of(_feather(file, wanted), ""):
                yield Rows(part, place)
            return
        if not head.startswith(_FILE):
            yield from _streamed(file, wanted)
            return
        opened = _opened(file)
        chosen = _chosen(opened.schema, wanted)
        if chosen is not None:
            opened = _opened(file, chosen)
        first, stop = piece or (0, opened.num_record_batches)
        for number in range(first, stop):
            table = _sound(opened.get_batch(number))
            size = file.size // max(opened.num_record_batches, 1)
            for part, place in pages_of(table, f"record batch {number}"):
                yield Rows(part, place, size=size * part.num_rows // max(table.num_rows, 1))


def _opened(file: RangedFile, chosen: list[int] | None = None) -> Any:
    file.seek(0)
    options = pa.ipc.IpcReadOptions(included_fields=chosen, use_threads=False)
    try:
        return pa.ipc.open_file(pa.PythonFile(file, mode="r"), options=options)
    except pa.ArrowInvalid as error:
        raise ConnectorError(
            f"it is an Arrow file that is cut off or damaged ({error}); write or copy it again"
        ) from None


def _chosen(schema: pa.Schema, wanted: Wanted) -> list[int] | None:
    """Returns the places of the columns to read; None for all, which a dictionary may need."""
    chosen = [place for place, name in enumerate(schema.names) if wanted.has(name)]
    return None if len(chosen) in (0, len(schema.names)) else chosen


def _stream(file: RangedFile, chosen: list[int] | None = None) -> Any:
    head = file.head(512)
    if not head:
        raise ConnectorError("it is empty; write or copy it again")
    file.seek(0)
    source: Any = unpacked(file)  # which refuses other formats
    if not is_compressed(head):
        source = file
    options = pa.ipc.IpcReadOptions(included_fields=chosen, use_threads=False)
    try:
        return pa.ipc.open_stream(pa.PythonFile(source, mode="r"), options=options)
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ConnectorError(
            f"it is neither an Arrow file nor an Arrow stream ({error}); CSV and Parquet have "
            "connectors of their own"
        ) from None


def _streamed(file: RangedFile, wanted: Wanted) -> Iterator[Rows]:
    with _stream(file) as stream:
        chosen = _chosen(stream.schema, wanted)
    with _stream(file, chosen) as stream:
        passed, done = 0, 0
        for batch in stream:
            table = _sound(batch)
            size, passed = file.tell() - passed, file.tell()
            for part, place in pages_of(table, "", done):
                yield Rows(part, place, size=size * part.num_rows // max(table.num_rows, 1))
            done += table.num_rows


def _sound(batch: pa.RecordBatch) -> pa.Table:
    """Returns a batch as a table, if its columns are what they claim to be.

    Arrow believes what a file says of lengths and offsets. Of a damaged file that may be anything,
    and using it could end the whole process.
    """
    batch.validate(full=True)
    return pa.Table.from_batches([batch])


def _feather(file: RangedFile, wanted: Wanted | None) -> pa.Table:
    from pyarrow import feather

    file.seek(0)
    with warnings.catch_warnings():
        # That the format is old is the concern of whoever writes it.
        warnings.simplefilter("ignore", DeprecationWarning)
        table = feather.read_table(pa.PythonFile(file, mode="r"), use_threads=False)
    table.validate(full=True)
    chosen = None if wanted is None else _chosen(table.schema, wanted)
    return table if chosen is None else table.select(chosen)
