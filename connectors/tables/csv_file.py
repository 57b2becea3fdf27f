"""CSV and its relatives: read by Arrow in pieces, in any encoding, with each bad row told."""

from __future__ import annotations

import codecs
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from contextframe_beam.connectors.json_files.content import decompressed, is_compressed
from contextframe_beam.connectors.tables.connector import TableConnector
from contextframe_beam.connectors.tables.csv_cuts import Cut, chunks_of, cuts_of, record_places
from contextframe_beam.connectors.tables.csv_dialect import (
    HEAD_BYTES,
    Dialect,
    EncodingWatch,
    Stated,
    by_bytes,
    dialect_of,
    encoding_in,
    is_encoding,
)
from contextframe_beam.connectors.tables.csv_types import (
    TYPES,
    looks_like,
    sounds_like_id,
    stated_types,
    typed,
)
from contextframe_beam.connectors.tables.ranged import RangedFile, unpacked
from contextframe_beam.connectors.tables.table_format import (
    PART_BYTES,
    BadRow,
    Piece,
    Rows,
    TableFormat,
    Wanted,
    pages_of,
)
from contextframe_beam.errors import ConfigError, ConnectorError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from contextframe_beam.connectors.tables.connector import TableOptions

# A larger file that cannot be cut is read a block after the other.
_WHOLE_BYTES = 16 << 20
_BLOCK_BYTES = 4 << 20
_LONGEST_RECORD = 64 << 20
_MOST_BYTES = 4 * _LONGEST_RECORD
_KEPT_BYTES = 64 << 10
_UNSOUND = (
    'quotes stand where values neither begin nor end, as in 5" nails; if a quote is missing '
    "somewhere, rows after it are read as one"
)
_LOOKED_AT = 1000
_KINDS = (".csv", ".tsv", ".tab")
_PACKED = ("", ".gz", ".bz2", ".xz", ".zst")
# Bytes that no text in the encoding has are carried through the parser as characters that no
# program gives a meaning to: the last ones of Unicode's last private area.
_MARK = 0x10FF00
_MARKED = re.compile(f"[{chr(_MARK)}-{chr(_MARK + 0xFF)}]")
_MARK_BYTES = chr(_MARK).encode()[:2]
_CARRY = "contextframe_beam.carry"


def _carried(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    odd = error.object[error.start : error.end]
    return "".join(chr(_MARK + byte) for byte in odd), error.end


codecs.register_error(_CARRY, _carried)

_NOTHING_STATED = Stated()


class CsvFormat(TableFormat):
    """Delimited text.

    Args:
        stated: What a user states of the files.
        types: The names of types, by columns.
        nulls: What stands for no value.
        expected: Columns that the files should have.
    """

    endings: ClassVar[tuple[str, ...]] = tuple(f"{kind}{one}" for kind in _KINDS for one in _PACKED)

    def __init__(
        self,
        stated: Stated = _NOTHING_STATED,
        types: Mapping[str, str] | None = None,
        nulls: Sequence[str] = ("",),
        expected: Sequence[str] = (),
    ) -> None:
        self._stated = stated
        self._types = dict(types or {})
        self._nulls = list(nulls)
        self._expected = expected
        self.named = {"types": list(self._types)}
        self._quote = stated.quote.encode()

    def schema(self, file: RangedFile) -> pa.Schema:
        """Returns the columns: texts, unless a type is stated."""
        return self._schema(self.dialect(file, by_head=True))

    def said(self, file: RangedFile) -> str:
        """Returns how a file is written, by its beginning."""
        types = ", ".join(f"{name} is {kind}" for name, kind in self._types.items())
        others = "all others are text" if types else "all columns are text"
        return "; ".join(filter(None, [str(self.dialect(file, by_head=True)), types, others]))

    def told(self, file: RangedFile) -> list[str]:
        """Returns how the file is written, and the types that its first values look like."""
        dialect = self.dialect(file)
        lines = self.said(file).split("; ", 1)
        lines[0] = str(dialect)
        first = next(self.rows(file, None, Wanted()), None)
        looks = {}
        for name in dialect.names if first is not None else ():
            assert first is not None
            column = first.table.column(name).combine_chunks().slice(0, _LOOKED_AT)
            if name not in self._types and not sounds_like_id(name):
                kind = looks_like(column)
                if kind:
                    looks[name] = kind
        if looks:
            pairs = ",".join(f"{name}:{kind}" for name, kind in looks.items())
            lines.append(f'some look like more, which can be stated: types="{pairs}"')
        return lines

    def dialect(self, file: RangedFile, by_head: bool = False) -> Dialect:
        """Returns how a file is written: the same whether it is read as a whole or in pieces.

        Args:
            file: The file.
            by_head: Whether to look at its beginning only, which may leave its encoding open.
        """
        head = file.head(HEAD_BYTES)
        is_whole = len(head) == file.size
        stated = self._stated
        if is_compressed(head):
            with unpacked(file) as text:
                head, is_whole = _first_bytes(text, HEAD_BYTES)
        elif not by_head and self._is_open(file, head):
            stated = replace(stated, encoding=encoding_in(file.read_at, file.size))
        decompressed(head, io.BytesIO(head))  # refuses other formats
        return dialect_of(head, is_whole, stated, self._expected)

    def pieces(self, file: RangedFile, wanted: Wanted, size: int) -> Sequence[Piece] | None:
        """Returns ranges of bytes that begin and end between records; None if that is unknown."""
        if is_compressed(file.head(8)):
            return None
        dialect = self.dialect(file, by_head=True)
        if not dialect.is_by_bytes:
            return None
        watch = EncodingWatch()
        chunks = watch.over(chunks_of(file.read_at, dialect.start.offset, file.size))
        found = self._cuts(chunks, dialect, size)
        if found is None:
            return None
        if self._is_open(file, file.head(HEAD_BYTES)):
            dialect = replace(dialect, encoding=watch.encoding())
            if not by_bytes(dialect.encoding):
                return None
        stops = [*(cut.offset for cut in found[1:]), file.size]
        written = [dialect.encoding, dialect.delimiter, dialect.names]
        return [
            Piece(cut.offset, stop, part, [cut.offset, cut.line, stop, *written])
            for cut, stop, part in zip(found, stops, _parts(found), strict=True)
        ]

    def rows(self, file: RangedFile, piece: Any, wanted: Wanted) -> Iterator[Rows]:
        """Yields rows, a page at a time."""
        if piece is not None:
            offset, line, stop, encoding, delimiter, names = piece
            dialect = Dialect(encoding, delimiter, tuple(names), Cut(offset, line), True)
            if stop - offset > _MOST_BYTES:
                raise ConnectorError(_too_long(line, stop - offset))
            yield from self._parsed(file.read_at(offset, stop - offset), dialect, wanted)
            return
        dialect = self.dialect(file)
        is_plain = dialect.is_by_bytes and not is_compressed(file.head(8))
        if is_plain and file.size <= _WHOLE_BYTES:
            data = file.read_at(dialect.start.offset, file.size - dialect.start.offset)
            if self._cuts([data], dialect, len(data) + 1) is not None:
                yield from self._parsed(data, dialect, wanted)
                return
        # Without pieces although it could have them.
        note = _UNSOUND if is_plain and not self._stated.escape else ""
        for rows in self._streamed(file, dialect, wanted):
            rows.note, note = note, ""
            yield rows

    def _is_open(self, file: RangedFile, head: bytes) -> bool:
        """Returns whether the beginning of a file leaves its encoding open."""
        is_plain = head.isascii() and b"\0" not in head
        return is_plain and len(head) < file.size and not self._stated.encoding

    def _cuts(self, chunks: Iterable[bytes], dialect: Dialect, size: int) -> list[Cut] | None:
        delimiter = dialect.delimiter.encode(dialect.encoding)
        if len(delimiter) != 1 or self._stated.escape:
            return None
        return cuts_of(chunks, dialect.start, size, delimiter, self._quote)

    def _schema(self, dialect: Dialect) -> pa.Schema:
        kinds = [TYPES[self._types.get(name, "text")] for name in dialect.names]
        return pa.schema(list(zip(dialect.names, kinds, strict=True)))

    def _parsed(self, data: bytes, dialect: Dialect, wanted: Wanted) -> Iterator[Rows]:
        """Yields the rows of bytes whose quotes are sound."""
        if len(data) > _LONGEST_RECORD:
            yield from self._around_long(data, dialect, wanted)
            return
        size = len(data)
        text = _as_utf8(data, dialect.encoding)
        skipped: list[Any] = []
        reader = self._reader(io.BytesIO(text), dialect, wanted, skipped, len(text) + 1)
        if reader is None:
            return
        table = reader.read_all().combine_chunks()
        table, wrong = self._typed(table, _MARK_BYTES in text, dialect)
        ragged = [one.number for one in skipped]
        bad = []
        if skipped or wrong:
            # Numbers of records, of which those that are ragged are no rows.
            count = table.num_rows + len(skipped)
            kept = [n for n in range(1, count + 1) if n not in set(ragged)]
            reasons = {one.number: _ragged(one) for one in skipped}
            reasons |= {kept[row]: reason for row, reason in wrong.items()}
            numbers = sorted(reasons)
            begins = record_places(data, dialect.start, numbers, self._quote)
            ends = record_places(data, dialect.start, [n + 1 for n in numbers], self._quote)
            for number, begin, end in zip(numbers, begins, ends, strict=True):
                raw = data[begin.offset - dialect.start.offset : end.offset - dialect.start.offset]
                bad.append(BadRow(f"line {begin.line}", raw.rstrip(b"\r\n"), reasons[number]))
            table = _without(table, wrong)
        name = f"from line {dialect.start.line}"
        yield from _paged(table, name, 0, bad, size)

    def _around_long(self, data: bytes, dialect: Dialect, wanted: Wanted) -> Iterator[Rows]:
        """Yields the rows before and after records that are too long to be read."""
        cuts = self._cuts([data], dialect, 1) or []
        base, pending = dialect.start.offset, dialect.start
        for cut, stop in zip(
            cuts, [*(one.offset for one in cuts[1:]), base + len(data)], strict=True
        ):
            if stop - cut.offset <= _LONGEST_RECORD:
                continue
            before = data[pending.offset - base : cut.offset - base]
            yield from self._parsed(before, replace(dialect, start=pending), wanted)
            raw = data[cut.offset - base : cut.offset - base + _KEPT_BYTES]
            reason = _too_long(cut.line, stop - cut.offset)
            empty = self._schema(dialect).empty_table()
            bad = BadRow(f"line {cut.line}", raw, reason)
            yield Rows(empty.select([n for n in dialect.names if wanted.has(n)]), "", [bad])
            pending = Cut(stop, cut.line + data.count(b"\n", cut.offset - base, stop - base))
        rest = data[pending.offset - base :]
        if len(rest) <= _LONGEST_RECORD:
            yield from self._parsed(rest, replace(dialect, start=pending), wanted)

    def _streamed(self, file: RangedFile, dialect: Dialect, wanted: Wanted) -> Iterator[Rows]:
        """Yields the rows of a file that is read from its beginning."""
        with unpacked(file) as text:
            utf8 = _Utf8(text, dialect, self._stated.quote)
            skipped: list[Any] = []
            try:
                reader = self._reader(utf8, dialect, wanted, skipped, _BLOCK_BYTES)
                done = 0
                while reader is not None:
                    try:
                        batch = reader.read_next_batch()
                    except StopIteration:
                        break
                    table = pa.Table.from_batches([batch])
                    table, wrong = self._typed(table, utf8.is_marked, dialect)
                    bad = [
                        BadRow(f"record {one.number}", _raw(one.text), _ragged(one))
                        for one in skipped
                    ]
                    for row, reason in wrong.items():
                        line = self._line(table, row)
                        bad.append(BadRow(f"row {done + row}", line, reason))
                    skipped.clear()
                    first, done = done, done + table.num_rows
                    yield from _paged(_without(table, wrong), "", first, bad, utf8.passed())
            except pa.ArrowInvalid as error:
                if "straddl" not in str(error):
                    raise
                raise ConnectorError(
                    f"a record has more than {_BLOCK_BYTES:,} bytes; a quote may be missing"
                ) from None
            if skipped:
                bad = [
                    BadRow(f"record {one.number}", _raw(one.text), _ragged(one)) for one in skipped
                ]
                empty = self._schema(dialect).empty_table()
                yield Rows(empty.select([n for n in dialect.names if wanted.has(n)]), "", bad)

    def _reader(
        self, text: Any, dialect: Dialect, wanted: Wanted, skipped: list[Any], block: int
    ) -> Any:
        """Returns what reads texts by columns; None if there is no text."""
        from pyarrow import csv

        def keep(row: Any) -> str:
            skipped.append(row)
            return "skip"

        names = list(dialect.names)
        chosen = [name for name in names if wanted.has(name)]
        try:
            return csv.open_csv(
                pa.PythonFile(text, mode="r"),
                read_options=csv.ReadOptions(
                    use_threads=False, block_size=block, column_names=names
                ),
                parse_options=csv.ParseOptions(
                    delimiter=dialect.delimiter,
                    quote_char=self._stated.quote or False,
                    double_quote=bool(self._stated.quote),
                    escape_char=self._stated.escape or False,
                    newlines_in_values=bool(self._stated.quote),
                    invalid_row_handler=keep,
                ),
                convert_options=csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    include_columns=chosen or names[:1],
                    null_values=self._nulls,
                    strings_can_be_null=bool(self._nulls),
                    quoted_strings_can_be_null=False,
                ),
            )
        except pa.ArrowInvalid as error:
            if "Empty CSV" in str(error):
                return None
            raise

    def _typed(
        self, table: pa.Table, is_marked: bool, dialect: Dialect
    ) -> tuple[pa.Table, dict[int, str]]:
        """Returns the columns in their types, and why rows are bad, by their numbers."""
        wrong: dict[int, str] = {}
        for place, name in enumerate(table.schema.names):
            column = table.column(place)
            column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
            if is_marked:
                for row in _marked_rows(column):
                    wrong.setdefault(row, _undecodable(column[row].as_py(), name, dialect))
            kind = self._types.get(name, "text")
            if kind == "text":
                continue
            values, bad = typed(column, kind)
            for row in bad:
                given = column[row].as_py()
                wrong.setdefault(row, f"{name} is {given[:40]!r}, which is not {kind}")
            table = table.set_column(place, pa.field(name, TYPES[kind]), values)
        return table, wrong

    def _line(self, table: pa.Table, row: int) -> bytes:
        values = table.slice(row, 1).to_pylist()[0]
        return _raw(str({name: value for name, value in values.items() if value is not None}))


class _Utf8(io.RawIOBase):
    """Text as UTF-8 from its first record on, in which odd bytes are marked."""

    def __init__(self, file: Any, dialect: Dialect, quote: str) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(dialect.encoding)(_CARRY)
        self._rest = b""
        self._passed = 0
        self._is_ended = False
        self.is_marked = False
        left = dialect.start.offset
        while left > 0 and (skipped := file.read(min(left, 1 << 20))):
            left -= len(skipped)

    def readable(self) -> bool:
        return True

    def passed(self) -> int:
        """Returns how many bytes were read since it was asked last."""
        size, self._passed = self._passed, 0
        return size

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = 1 << 20 if size is None or size < 0 else size
        while len(self._rest) < wanted and not self._is_ended:
            data = self._file.read(1 << 20)
            self._passed += len(data)
            self._is_ended = not data
            text = self._decoder.decode(data, not data).encode()
            self.is_marked = self.is_marked or _MARK_BYTES in text
            self._rest += text
        found, self._rest = self._rest[:wanted], self._rest[wanted:]
        return found


def _parts(cuts: Sequence[Cut]) -> list[int]:
    """Returns which part each piece belongs to that begins at a cut.

    A part begins with the first record that begins at or behind a multiple of the size of parts.
    """
    return [cut.offset // PART_BYTES for cut in cuts]


def _as_utf8(data: bytes, encoding: str) -> bytes:
    """Returns bytes of an encoding as UTF-8, in which those that no text has are marked."""
    if encoding == "utf-8":
        if data.isascii():
            return data
        try:
            data.decode()
        except UnicodeDecodeError:
            pass
        else:
            return data
    return data.decode(encoding, _CARRY).encode()


def _raw(text: str) -> bytes:
    """Returns a text with its marked bytes as they were."""
    parts = re.split(f"({_MARKED.pattern})", text)
    return b"".join(
        bytes([ord(part) - _MARK]) if _MARKED.fullmatch(part) else part.encode() for part in parts
    )


def _marked_rows(column: pa.Array) -> list[int]:
    found = pc.match_substring_regex(column, f"[{chr(_MARK)}-{chr(_MARK + 0xFF)}]")
    rows: list[int] = pc.indices_nonzero(pc.fill_null(found, False)).to_pylist()
    return rows


def _undecodable(text: str, name: str, dialect: Dialect) -> str:
    match = _MARKED.search(text)
    byte = f"the byte 0x{ord(match[0]) - _MARK:02x}" if match else "a byte"
    return (
        f"{name} has {byte}, which is not {dialect.encoding.upper()}; correct it, or state the "
        "encoding (encoding=...)"
    )


def _ragged(row: Any) -> str:
    return (
        f"it has {row.actual_columns} values, and there are {row.expected_columns} columns; "
        "quotes or delimiters may be missing"
    )


def _too_long(line: int, size: int) -> str:
    return (
        f"the record at line {line} has {size:,} bytes, the limit is {_LONGEST_RECORD:,}; a quote "
        "may be missing"
    )


def _without(table: pa.Table, wrong: Mapping[int, str]) -> pa.Table:
    if not wrong:
        return table
    return table.take([row for row in range(table.num_rows) if row not in wrong])


def _paged(table: pa.Table, place: str, first: int, bad: list[BadRow], size: int) -> Iterator[Rows]:
    """Yields pages of a table; bad rows and bytes are on the first one."""
    for part, where in pages_of(table, place, first):
        yield Rows(part, where, bad, size)
        bad, size = [], 0
    if bad or size:
        yield Rows(table.slice(0, 0), place, bad, size)


def _first_bytes(file: Any, size: int) -> tuple[bytes, bool]:
    """Returns the first bytes of a file, and whether they are all."""
    data = b""
    while len(data) <= size and (piece := file.read(size + 1 - len(data))):
        data += piece
    return data[:size], len(data) <= size


class CSVConnector(TableConnector):
    r"""CSV, TSV and other delimited text: each record is a document.

    Values are text unless a type is stated: an id such as 007 stays as it is. A value without
    quotes that is empty is no value. A record with too many or too few values becomes a dead
    letter. Compressed files are decompressed.

    Args:
        path: A file, a folder, or several files as in `notes/*.csv` and `s3://bucket/notes/*.tsv`.
        delimiter: The sign between values; by default each file tells.
        quote: The sign around values; "" if values have none.
        escape: The sign before one that is meant as it is, such as a backslash; by default a quote
            inside of quotes is doubled.
        encoding: The encoding of all files; by default each file tells, or is refused.
        header: Whether the first record of each file has the names of the columns.
        columns: The names of the columns of files without a header.
        types: The types of columns, as in `price:float64`: text, int64, float64, bool, date or
            timestamp. A value that is not of the type makes its record a dead letter.
        nulls: What else than an empty value stands for no value, such as `NULL`.
        **options: As for any `TableConnector`.

    Raises:
        ConfigError: an argument makes no sense.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        delimiter: str = "",
        quote: str = '"',
        escape: str = "",
        encoding: str = "",
        header: bool = True,
        columns: Sequence[str] = (),
        types: Sequence[str] = (),
        nulls: Sequence[str] = (),
        **options: Unpack[TableOptions],
    ) -> None:
        super().__init__(path, **options)
        delimiter = {r"\t": "\t", "tab": "\t"}.get(delimiter, delimiter)
        for name, value in (("delimiter", delimiter), ("quote", quote), ("escape", escape)):
            if len(value) > 1 or not value.isascii():
                raise ConfigError(f"{name} is {value!r}; it is one sign of ASCII")
        columns, nulls = _listed(columns), _listed(nulls)
        # Whoever names columns says that the files do not.
        header = header and not columns
        if encoding and not is_encoding(encoding):
            raise ConfigError(
                f"encoding is {encoding!r}, which is unknown; give one such as utf-8 or cp1252"
            )
        stated = Stated(delimiter, quote, escape, encoding, tuple(columns), header)
        expected = [
            name
            for key in ("id", "text", "title", "timestamp", "tags")
            for name in _listed(self._stated.get(key))
            if "{" not in name
        ]
        self._text_types = stated_types(types)
        self._format = CsvFormat(stated, self._text_types, ("", *nulls), expected)


def _listed(value: Any) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)
