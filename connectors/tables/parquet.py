"""Parquet: row groups are read on their own, and only the columns and pages that are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, ClassVar

import pyarrow as pa

from contextframe_beam.connectors.tables.connector import TableConnector
from contextframe_beam.connectors.tables.ranged import RangedFile
from contextframe_beam.connectors.tables.table_format import (
    PAGE_BYTES,
    ROWS_IN_A_PAGE,
    Piece,
    Rows,
    TableFormat,
    Wanted,
    joined,
    pages_of,
)
from contextframe_beam.errors import ConnectorError

_MAGIC = b"PAR1"
_ENCRYPTED = b"PARE"
_SIGNATURE_BYTES = 12 + 16
_BUFFER_BYTES = 1 << 20
_KEYS = "no keys are taken here: write it again without encryption"


class ParquetFormat(TableFormat):
    """Parquet with any codec and any type."""

    endings: ClassVar[tuple[str, ...]] = (".parquet", ".parq", ".pq")

    def schema(self, file: RangedFile) -> pa.Schema:
        """Returns the columns, from the footer."""
        return _opened(file).schema_arrow

    def pieces(self, file: RangedFile, wanted: Wanted, size: int) -> Sequence[Piece] | None:
        """Returns row groups, several small ones together, without those that cannot match."""
        opened = _opened(file)
        begins = [0, *accumulate(_sizes(file, opened))]
        groups = _groups(file, opened, range(opened.num_row_groups), wanted)
        return joined(groups, begins, size)

    def place_of(self, first: int, stop: int) -> str:
        """Returns the name of row groups."""
        return f"row group {first}" if stop - first == 1 else f"row groups {first} to {stop - 1}"

    def rows(self, file: RangedFile, piece: Any, wanted: Wanted) -> Iterator[Rows]:
        """Yields the rows of row groups, some thousand at a time."""
        opened = _opened(file)
        first, stop = piece or (0, opened.num_row_groups)
        names = opened.schema_arrow.names
        columns = list(dict.fromkeys(name for name in names if wanted.has(name)))
        chosen = columns if len(columns) < len(names) else None
        sizes = _sizes(file, opened)
        for group in _groups(file, opened, range(first, stop), wanted):
            facts = opened.metadata.row_group(group)
            rows = max(facts.num_rows, 1)
            width = max(facts.total_byte_size // rows, 1)
            at_once = min(ROWS_IN_A_PAGE, max(PAGE_BYTES // width, 16))
            done = 0
            for batch in _batches(opened, at_once, group, chosen):
                table = pa.Table.from_batches([batch])
                for part, place in pages_of(table, f"row group {group}", done):
                    yield Rows(part, place, size=sizes[group] * part.num_rows // rows)
                done += batch.num_rows


def _batches(
    opened: Any, at_once: int, group: int, chosen: list[str] | None
) -> Iterator[pa.RecordBatch]:
    try:
        yield from opened.iter_batches(at_once, [group], columns=chosen, use_threads=False)
    except OSError as error:
        if "ecrypt" in str(error):
            raise ConnectorError(f"columns of it are encrypted, and {_KEYS}") from None
        raise


def _opened(file: RangedFile) -> Any:
    import pyarrow.parquet as pq

    if file.size >= 4 and file.read_at(file.size - 4, 4) == _ENCRYPTED:
        raise ConnectorError(f"it is encrypted Parquet, and {_KEYS}")
    if file.size < 12 or file.read_at(file.size - 4, 4) != _MAGIC:
        what = "it is empty" if not file.size else "it is not Parquet, or is cut off"
        raise ConnectorError(f"{what}: it does not end as Parquet does; write or copy it again")
    file.seek(0)
    return pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)


def _groups(file: RangedFile, opened: Any, groups: range, wanted: Wanted) -> Iterator[int]:
    """Yields the row groups that may have wanted rows, by their statistics."""
    condition = wanted.expression(opened.schema_arrow)
    if condition is None or not len(groups) or _has_encrypted(file, opened):
        yield from groups
        return
    import pyarrow.dataset as ds

    file.seek(0)
    fragment = ds.ParquetFileFormat().make_fragment(pa.PythonFile(file, mode="r"))
    yield from (one.id for one in fragment.subset(condition).row_groups if one.id in groups)


def _has_encrypted(file: RangedFile, opened: Any) -> bool:
    """Returns whether columns of a file may be encrypted although its footer is not.

    Asking for the facts of such a column ends the whole process. The footer is signed then, with a
    nonce and a tag behind it: https://parquet.apache.org/docs/file-format/data-pages/encryption/
    """
    length = int.from_bytes(file.read_at(file.size - 8, 4), "little")
    return bool(length - opened.metadata.serialized_size == _SIGNATURE_BYTES)


def _sizes(file: RangedFile, opened: Any) -> list[int]:
    """Returns about how many bytes of the file each row group has, without asking its columns."""
    plain = [opened.metadata.row_group(n).total_byte_size for n in range(opened.num_row_groups)]
    return [file.size * size // max(sum(plain), 1) for size in plain]


class ParquetConnector(TableConnector):
    """Parquet files: each row is a document.

    Types become what metadata can hold: numbers stay numbers, decimals keep all their digits, and
    dates, times and uuids become text by their standards.
    """

    _format = ParquetFormat()
