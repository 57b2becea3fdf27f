"""How a CSV file is written, told by its beginning: encoding, delimiter, names of its columns."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from contextframe_beam.connectors.files.listing import ReadAt
from contextframe_beam.connectors.tables.csv_cuts import Cut, chunks_of
from contextframe_beam.errors import ConnectorError, ContextFrameError
from contextframe_beam.parsers.contract import DamagedTextError
from contextframe_beam.parsers.encodings import encoding_of

#: So much of the beginning tells how a file is written.
HEAD_BYTES = 256 << 10

_DELIMITERS = ",\t;|"
_RECORDS_LOOKED_AT = 100
_SAMPLE_BYTES = 256 << 10
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# The first line of files for a well-known spreadsheet program.
_STATED = re.compile(r'\A"?sep=(.)"?\r?\n', re.IGNORECASE)
# A byte below 128 is in these only what it is in ASCII.
_BY_BYTES = re.compile(r"utf-8|ascii|cp125|iso8859|koi8|latin|mac|cp437|cp85|cp86|tis")
_NAMES = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars", " ": "spaces"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a file is written.

    Attributes:
        encoding: Python's name of its encoding.
        delimiter: What separates values.
        names: The names of its columns.
        start: Where its first record begins, behind the names.
        is_by_bytes: Whether delimiters and newlines can be looked for in its bytes.
    """

    encoding: str
    delimiter: str
    names: tuple[str, ...]
    start: Cut
    is_by_bytes: bool

    def __str__(self) -> str:
        separated = _NAMES.get(self.delimiter, repr(self.delimiter))
        return f"encoding {self.encoding}, values separated by {separated}"


@dataclass(frozen=True, slots=True)
class Stated:
    """What a user states of files.

    Attributes:
        delimiter: What separates values; "" if each file tells.
        quote: What stands around values; "" for nothing.
        escape: What stands before a sign that is meant as it is; "" for nothing.
        encoding: The encoding; "" if each file tells.
        names: The names of columns; empty if they are in the files.
        header: Whether the first record of a file has the names of its columns.
    """

    delimiter: str = ""
    quote: str = '"'
    escape: str = ""
    encoding: str = ""
    names: tuple[str, ...] = ()
    header: bool = True


def dialect_of(head: bytes, is_whole: bool, stated: Stated, expected: Sequence[str]) -> Dialect:
    """Returns how a file is written.

    Args:
        head: Its first bytes, decompressed.
        is_whole: Whether they are all.
        stated: What a user states.
        expected: Columns that it should have, which tell a delimiter from a sign in a text.

    Raises:
        ConnectorError: it is no text, or nothing tells its encoding.
    """
    encoding = encoding_told(head, is_whole, stated.encoding)
    mark = next((one for one in _MARKS if head.startswith(one)), b"")
    text = head[len(mark) :].decode(encoding, "ignore")
    skipped = ""
    told = _STATED.match(text)
    if told is not None:
        skipped, text = told[0], text[told.end() :]
    delimiter = stated.delimiter or (told[1] if told else "")
    delimiter = delimiter or _delimiter(text, is_whole, stated, expected)
    first, consumed = _first_record(text, delimiter, stated)
    if not stated.header:
        consumed = ""
    names = stated.names or (
        _named(first) if stated.header else tuple(f"column_{n + 1}" for n in range(len(first)))
    )
    before = skipped + consumed
    offset = len(mark) + len(before.encode(encoding))
    return Dialect(
        encoding,
        delimiter,
        names,
        Cut(offset, 1 + before.count("\n")),
        # Where records end with a carriage return alone, as on old machines, nothing is cut.
        by_bytes(encoding) and ("\n" in text or "\r" not in text),
    )


def by_bytes(encoding: str) -> bool:
    """Returns whether delimiters and newlines can be looked for in the bytes of an encoding."""
    return _BY_BYTES.match(encoding.replace("_", "")) is not None


def is_encoding(name: str) -> bool:
    """Returns whether texts can be in an encoding of this name."""
    try:
        return bool(getattr(codecs.lookup(name), "_is_text_encoding", True))
    except LookupError:
        return False


def encoding_told(head: bytes, is_whole: bool, stated: str = "") -> str:
    """Returns the encoding of a file, by its beginning.

    Raises:
        ConnectorError: it is no text, or nothing tells its encoding.
    """
    if stated:
        name = codecs.lookup(stated).name
        if name == "utf-16":
            return "utf-16-be" if head.startswith(codecs.BOM_UTF16_BE) else "utf-16-le"
        return "utf-8" if name == "utf-8-sig" else name
    if not is_whole:
        # Half of a character may stand at the end; UTF-16 has two bytes for each sign.
        cut = head.rfind(b"\n") + 1
        head = head[: cut + cut % 2] if b"\0" in head[:1000] else head[: cut or None]
    try:
        return encoding_of(head)
    except DamagedTextError:
        return "utf-8"  # what is damaged are some records
    except ContextFrameError as error:
        raise ConnectorError(f"{error}, or state its encoding (encoding=...)") from None


class EncodingWatch:
    """Tells the encoding of a file whose beginning is ASCII, by all of its bytes in one pass.

    Only lines with other bytes tell anything, so a sample of them is kept.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._is_utf8 = True
        self._sample: list[bytes] = []
        self._held = 0
        self._rest = b""

    def over(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yields chunks of the file as they are, and looks at each."""
        for chunk in chunks:
            self._look_at(chunk)
            yield chunk

    def encoding(self) -> str:
        """Returns the encoding, after all chunks.

        Raises:
            ConnectorError: nothing tells it.
        """
        if self._is_utf8:
            return "utf-8"
        lines = b"\n".join([*self._sample, self._rest])
        return encoding_told(lines[: 2 * _SAMPLE_BYTES], True)

    def _look_at(self, chunk: bytes) -> None:
        if chunk.isascii() and not self._rest:
            return
        if self._is_utf8:
            try:
                self._decoder.decode(chunk)
            except UnicodeDecodeError:
                self._is_utf8 = False
        if self._held < _SAMPLE_BYTES:
            lines = (self._rest + chunk).split(b"\n")
            self._rest = lines.pop()[-_SAMPLE_BYTES:]
            found = [line for line in lines if not line.isascii()]
            self._sample += found
            self._held += sum(map(len, found))


def encoding_in(read: ReadAt, size: int) -> str:
    """Returns the encoding of a whole file whose beginning is ASCII.

    Args:
        read: Gives bytes of the file.
        size: How many bytes it has.

    Raises:
        ConnectorError: nothing tells its encoding.
    """
    watch = EncodingWatch()
    for _ in watch.over(chunks_of(read, 0, size)):
        pass
    return watch.encoding()


def _delimiter(text: str, is_whole: bool, stated: Stated, expected: Sequence[str]) -> str:
    """Returns the sign that separates values: it gives all records as many as the first has."""
    best, most = ",", (False, 0.0, 0)
    for sign in _DELIMITERS:
        counts = []
        for number, record in enumerate(_records(text, sign, stated)):
            if number == _RECORDS_LOOKED_AT:
                break
            counts.append(len(record))
            if not number:
                has_all = bool(expected) and set(expected) <= set(record)
        if not is_whole and len(counts) < _RECORDS_LOOKED_AT:
            counts = counts[:-1] or counts
        if not counts or counts[0] < 2:
            continue
        share = Counter(counts)[counts[0]] / len(counts)
        if (has_all, round(share, 1), counts[0]) > most:
            best, most = sign, (has_all, round(share, 1), counts[0])
    return best


def _records(text: str, delimiter: str, stated: Stated) -> Iterator[list[str]]:
    """Yields the records of a text, without empty lines."""
    reader = _reader(io.StringIO(text, newline=""), delimiter, stated)
    try:
        yield from (record for record in reader if record)
    except csv.Error:
        return


def _first_record(text: str, delimiter: str, stated: Stated) -> tuple[list[str], str]:
    """Returns the first record, and the text up to its end.

    Raises:
        ConnectorError: there is none.
    """
    end = "\n" if "\n" in text else "\r"
    lines = [line + end for line in text.split(end)]
    reader = _reader(iter(lines), delimiter, stated)
    try:
        record = next((record for record in reader if record), None)
    except csv.Error as error:
        raise ConnectorError(f"its first record cannot be read: {error}") from None
    if record is None:
        raise ConnectorError("it is empty; its first line has to name its columns")
    consumed = "".join(lines[: reader.line_num])
    quote = stated.quote
    if quote and not stated.escape and consumed.count(quote) % 2:
        raise ConnectorError("a quote in its first record is never closed")
    return record, consumed[: len(text)]


def _reader(lines: Iterator[str], delimiter: str, stated: Stated) -> Any:
    csv.field_size_limit(1 << 30)
    escape = stated.escape or None
    if not stated.quote:
        return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE, escapechar=escape)
    return csv.reader(lines, delimiter=delimiter, quotechar=stated.quote, escapechar=escape)


def _named(record: Sequence[str]) -> tuple[str, ...]:
    """Returns names for columns: of two with the same name the second one gets another."""
    names: list[str] = []
    for place, given in enumerate(record):
        name = given.strip() or f"column_{place + 1}"
        count = 1
        while name in names:
            count += 1
            name = f"{given.strip() or f'column_{place + 1}'}_{count}"
        names.append(name)
    return tuple(names)
