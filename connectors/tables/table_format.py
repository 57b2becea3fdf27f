"""What a format of tables is: how a file of it is cut into pieces, and read as columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

import pyarrow as pa

from contextframe_beam.connectors.tables.ranged import RangedFile
from contextframe_beam.connectors.tables.where import Where

#: A page has no more rows than this, and of large rows fewer.
ROWS_IN_A_PAGE = 8192
PAGE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted of a file.

    Attributes:
        columns: The names of columns, among others.
        takes_all: Whether all other columns are wanted as well.
        where: The rows; None for all.
        texts: Columns that have one value in the whole file, which its path tells.
        text_types: Stated types of such columns.
    """

    columns: frozenset[str] = frozenset()
    takes_all: bool = True
    where: Where | None = None
    texts: Mapping[str, str | None] = field(default_factory=dict)
    text_types: Mapping[str, str] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Returns whether a column has to be read."""
        if self.takes_all or name in self.columns:
            return True
        asked = () if self.where is None else self.where.columns
        return any(one == name or one.startswith(f"{name}.") for one in asked)

    def expression(self, schema: pa.Schema) -> Any:
        """Returns the condition on rows for a file with these columns; None without one.

        Raises:
            ConfigError: a column cannot be compared with its value.
        """
        if self.where is None:
            return None
        # A file that lacks a column which others have has null in it.
        absent = {
            name: None
            for name in self.where.columns
            if name not in schema.names and name.partition(".")[0] not in schema.names
        }
        return self.where.expression(schema, {**absent, **self.texts})


#: What a run that commits as it goes commits at once of one file. Where parts of a file begin
#: depends on the file alone, so that a run which is continued finds those again that are done.
PART_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """What is read at once of a file.

    Attributes:
        first: Where it begins, in bytes, row groups or record batches.
        stop: Where it ends.
        part: Which part of the file it belongs to.
        params: What its format needs to read it, as JSON values.
    """

    first: int
    stop: int
    part: int
    params: Any


@dataclass(slots=True)
class BadRow:
    """A row that cannot be read.

    Attributes:
        place: Where it is in the file.
        data: Its bytes, or their beginning.
        reason: What is wrong, and what to do.
    """

    place: str
    data: bytes
    reason: str


@dataclass(slots=True)
class Rows:
    """Rows that follow one another.

    Attributes:
        table: The rows.
        place: Where they are in the file.
        bad: Rows at this place that cannot be read.
        size: How many bytes were read for them.
        note: What is odd about the file; on its first rows.
    """

    table: pa.Table
    place: str
    bad: list[BadRow] = field(default_factory=list)
    size: int = 0
    note: str = ""


class TableFormat(ABC):
    """A format of files. Its methods raise `ConnectorError` or Arrow's errors for a broken file."""

    #: How names of files end that are read of a folder.
    endings: ClassVar[tuple[str, ...]]

    #: Columns that arguments name, by the argument.
    named: Mapping[str, Sequence[str]] = MappingProxyType({})

    @abstractmethod
    def schema(self, file: RangedFile) -> pa.Schema:
        """Returns the columns of a file."""

    @abstractmethod
    def rows(self, file: RangedFile, piece: Any, wanted: Wanted) -> Iterator[Rows]:
        """Yields the rows of a piece, or of the whole file.

        Args:
            file: The file.
            piece: The parameters of a piece; None for the whole file.
            wanted: Which columns are needed, and which rows. More may be given.
        """

    def pieces(self, file: RangedFile, wanted: Wanted, size: int) -> Sequence[Piece] | None:
        """Returns the pieces in which a large file is read; None if it is read as a whole.

        Args:
            file: The file.
            wanted: What is wanted; a piece without such rows is left out.
            size: About how many bytes a piece should have: `PART_BYTES`, or that halved some times.
        """
        return None

    def place_of(self, first: int, stop: int) -> str:
        """Returns the name of a range of a file, as in `row groups 3 to 5`."""
        return f"bytes {first} to {stop}"

    def said(self, file: RangedFile) -> str:
        """Returns in a few words how a file is written, where that is found out."""
        return ""

    def told(self, file: RangedFile) -> list[str]:
        """Returns what was found out about a file and could have been stated, in words."""
        return []


def pages_of(table: pa.Table, place: str, first: int = 0) -> Iterator[tuple[pa.Table, str]]:
    """Yields a table in slices of the size of a page, each with its place.

    Args:
        table: The table.
        place: Where it is in the file.
        first: The number of its first row there.
    """
    rows = table.num_rows
    largest = max(1, PAGE_BYTES * rows // max(table.nbytes, 1)) if rows else 1
    step = min(ROWS_IN_A_PAGE, largest)
    for start in range(0, rows, step):
        part = table.slice(start, step)
        last = first + start + part.num_rows - 1
        yield part, f"{place + ', ' if place else ''}rows {first + start} to {last}"


def joined(units: Iterable[int], begins: Sequence[int], size: int) -> list[Piece]:
    """Returns pieces of units that follow one another, such as row groups.

    Args:
        units: The numbers of those that are read, in order.
        begins: About where each begins in the file, in bytes, by its number.
        size: Those that begin in the same stretch of so many bytes are one piece.
    """
    found: list[Piece] = []
    for unit in units:
        first, part = unit, begins[unit] // PART_BYTES
        if found and found[-1].stop == unit:
            before = found[-1].first
            if begins[before] // size == begins[unit] // size:
                first = found.pop().first
        found.append(Piece(first, unit + 1, part, [first, unit + 1]))
    return found
