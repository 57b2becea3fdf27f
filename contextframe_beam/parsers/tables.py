"""Tables as Markdown, and the parsers of files that are tables: CSV, and workbooks."""

from __future__ import annotations

import csv
import datetime
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from contextframe_beam.frames.document import Document
from contextframe_beam.parsers.archive import Archive
from contextframe_beam.parsers.clean import line
from contextframe_beam.parsers.contract import Limits, NoTextError, ParseError, in_words, library
from contextframe_beam.parsers.encodings import decoded


def table(rows: Iterable[Sequence[str]]) -> str:
    """Returns rows as a table of Markdown, the first as its head; "" without any text.

    Empty rows are left out, and so are the empty columns at the end.
    """
    kept = [[_cell(one) for one in row] for row in rows]
    kept = [row for row in kept if any(row)]
    width = max((_width(row) for row in kept), default=0)
    if not width:
        return ""
    lines = ["| " + " | ".join(_filled(row, width)) + " |" for row in kept]
    lines.insert(1, "|" + " --- |" * width)
    return "\n".join(lines)


def _width(row: Sequence[str]) -> int:
    return max((index + 1 for index, one in enumerate(row) if one), default=0)


def _filled(row: list[str], width: int) -> list[str]:
    return [*row[:width], *[""] * (width - len(row))]


def _cell(text: str) -> str:
    text = text.strip()
    if "|" in text:
        text = re.sub(r"(?<!\\)\|", r"\\|", text)
    if "\n" not in text and "\r" not in text:
        return text
    return "<br>".join(filter(None, map(str.strip, text.splitlines())))


class CsvParser:
    """Reads a CSV file as a table; what divides its columns is told by its first lines."""

    version = "1"
    suffixes = (".csv", ".tsv", ".tab")

    def parse(self, data: bytes, name: str, limits: Limits) -> Document:
        """Returns the table of a file."""
        text = decoded(data)
        if "\n" not in text and "\r" in text:  # as old Macs ended lines
            text = text.replace("\r", "\n")
        csv.field_size_limit(2**31 - 1)
        delimiter = "\t" if name.lower().endswith((".tsv", ".tab")) else _delimiter(text)
        try:
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
        except csv.Error as error:
            raise ParseError(f"it is no CSV: {error}") from None
        _check_cells(sum(map(len, rows)), max(map(len, rows), default=0) * len(rows))
        return Document(table(rows))


def _delimiter(text: str) -> str:
    """Returns what divides the first lines into most columns, the same number in each."""
    lines = [one for one in text[:65536].splitlines()[:50] if one.strip()]
    best, most = ",", 0
    for one in (",", ";", "\t", "|"):
        counts = [len(row) for row in csv.reader(lines, delimiter=one)]
        usual = max(set(counts), key=counts.count, default=0)
        score = usual * counts.count(usual) if usual > 1 else 0
        if score > most:
            best, most = one, score
    return best


_MOST_CELLS = 20_000_000


def _check_cells(cells: int, area: int) -> None:
    """Refuses a table that is mostly emptiness, and so would be much larger as text."""
    if area > _MOST_CELLS and area > 20 * cells:
        raise ParseError(f"its table spans {area:,} cells, but only {cells:,} are filled")


class WorkbookParser:
    """Reads the sheets of a workbook (XLSX, XLS, ODS) as tables, each under its name."""

    version = "1"
    suffixes = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")

    def parse(self, data: bytes, name: str, limits: Limits) -> Document:
        """Returns the tables of a workbook."""
        calamine = library("python_calamine")
        if not data:
            raise ParseError("it is empty: 0 bytes")
        if not name.lower().endswith(".xls") or data.startswith(b"PK"):
            archive = Archive(data, "a workbook (XLSX, ODS)", limits)
            for part in archive.names:
                if part.endswith(".xml"):
                    _check_area(archive.read(part))
            data = archive.unpacked()
        try:
            book = calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
        except Exception as error:
            raise ParseError(_why(error)) from None
        parts: list[str] = []
        length = 0
        for number, sheet in enumerate(book.sheets_metadata):
            if not str(sheet.typ).endswith("WorkSheet"):
                continue
            part = _sheet(book, number, sheet.name)
            length += len(part)
            if length > limits.max_unpacked_bytes:
                most = in_words(limits.max_unpacked_bytes)
                raise ParseError(f"its text is longer than max_unpacked_bytes, {most}")
            parts += [part] if part else []
        if not parts:
            raise NoTextError("no text: all its sheets are empty")
        return Document("\n\n".join(parts))


def _sheet(book: Any, number: int, name: str) -> str:
    try:
        sheet = book.get_sheet_by_index(number)
        _check_cells(_MOST_CELLS // 20, sheet.total_height * sheet.total_width)
        rows = [[_value(one) for one in row] for row in sheet.to_python(skip_empty_area=True)]
    except ParseError:
        raise
    except Exception as error:
        raise ParseError(f"its sheet {number + 1} is damaged ({type(error).__name__})") from None
    text = table(rows)
    return f"## {line(name)}\n\n{text}" if text else ""


_PLACE = re.compile(rb"<(?:\w+:)?c\s[^>]*?\br\s*=\s*[\"']([A-Z]{1,3})(\d{1,7})[\"']")


def _check_area(part: bytes) -> None:
    """Refuses a sheet with few cells far apart, which a reader would fill with emptiness."""
    places = _PLACE.findall(part)
    if places:
        rows = [int(row) for _, row in places]
        columns = [_column(one) for one, _ in places]
        area = (max(rows) - min(rows) + 1) * (max(columns) - min(columns) + 1)
        _check_cells(len(places), area)


def _column(letters: bytes) -> int:
    number = 0
    for one in letters:
        number = number * 26 + one - 64
    return number


def _why(error: Exception) -> str:
    if "password" in str(error).lower() or "encrypted" in str(error).lower():
        return "it is protected by a password; save it without one"
    return "it is not a readable workbook; it may be damaged or cut off"


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ", "seconds")
    return str(value)
