"""PDF: the text of each page, and the outline as headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from contextframe_beam.frames.document import Document, Heading
from contextframe_beam.parsers.clean import line
from contextframe_beam.parsers.contract import Limits, NoTextError, ParseError, in_words, library
from contextframe_beam.parsers.text import as_metadata

# A hyphen at the end of a line is marked so by PDFium, where it divides a word.
_DIVIDED = re.compile(r"[\x02\ufffe\xad](?:\r?\n)?")
_DATE = re.compile(
    r"(?:D:)?(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:(Z)|([+-])(\d\d)'?(\d\d)?)?"
)
_PASSWORD = (
    4  # FPDF_ERR_PASSWORD in https://pdfium.googlesource.com/pdfium/+/main/public/fpdfview.h
)
_DEEPEST_OUTLINE = 15


class PdfParser:
    """Reads the text of a PDF, page by page; its outline gives the headings."""

    version = "1"
    suffixes = (".pdf",)

    def parse(self, data: bytes, name: str, limits: Limits) -> Document:
        """Returns the text of a PDF."""
        if not data:
            raise ParseError("it is empty: 0 bytes")
        if b"%PDF-" not in data[:1024]:
            raise ParseError("it is no PDF: its first bytes are not %PDF")
        pdfium = library("pypdfium2")
        try:
            pdf = pdfium.PdfDocument(data)
        except pdfium.PdfiumError as error:
            raise ParseError(_why(error)) from None
        try:
            return _document(pdf, limits)
        finally:
            pdf.close()


def _why(error: Exception) -> str:
    if getattr(error, "err_code", None) == _PASSWORD or "password" in str(error).lower():
        return "it is protected by a password; save it without one"
    return "it is damaged: no PDF reader can open it; it may be cut off"


def _document(pdf: Any, limits: Limits) -> Document:
    texts: list[str] = []
    pages: list[int] = []
    length = 0
    for text in _pages(pdf):
        pages.append(length)
        texts.append(text)
        length += len(text) + 2
        if length > limits.max_unpacked_bytes:
            most = in_words(limits.max_unpacked_bytes)
            raise ParseError(f"its text is longer than max_unpacked_bytes, {most}")
    if not any(texts):
        raise NoTextError(
            "no text, perhaps scanned: recognise its characters first (OCR), or leave it out"
        )
    whole = "\n\n".join(texts)
    stated = pdf.get_metadata_dict()
    metadata = as_metadata(
        {
            "author": stated.get("Author"),
            "tags": stated.get("Keywords") or "",
            "description": stated.get("Subject"),
            "created_at": _date(stated.get("CreationDate")),
            "modified_at": _date(stated.get("ModDate")),
        }
    )
    return Document(
        whole,
        title=stated.get("Title") or None,
        headings=tuple(sorted(_headings(pdf, whole, pages), key=lambda one: one.offset)),
        pages=tuple(pages),
        metadata=metadata,
    )


def _pages(pdf: Any) -> Iterator[str]:
    """Yields the text of each page; one that is damaged is an empty page."""
    pypdfium2 = library("pypdfium2")

    for index in range(len(pdf)):
        try:
            page = pdf[index]
        except pypdfium2.PdfiumError:
            yield ""
            continue
        try:
            textpage = page.get_textpage()
            text = textpage.get_text_bounded()
            textpage.close()
        except pypdfium2.PdfiumError:
            text = ""
        page.close()
        yield _DIVIDED.sub("", text).replace("\r\n", "\n").replace("\r", "\n").strip()


def _headings(pdf: Any, text: str, pages: list[int]) -> Iterator[Heading]:
    """Yields the entries of the outline, at the place of their title in the text of their page."""
    place = 0
    for entry in pdf.get_toc(max_depth=_DEEPEST_OUTLINE):
        title = line(entry.get_title())
        target = entry.get_dest()
        index = target.get_index() if target else None
        if not title or index is None or not 0 <= index < len(pages):
            continue
        start = max(place, pages[index]) if place < _end(pages, index, text) else pages[index]
        place = _found(title, text, start, _end(pages, index, text))
        yield Heading(place, entry.level + 1, title)


def _end(pages: list[int], index: int, text: str) -> int:
    return pages[index + 1] if index + 1 < len(pages) else len(text)


def _found(title: str, text: str, start: int, end: int) -> int:
    """Returns where a title stands, at the start of a line if it does; else where to look."""
    words = r"\s+".join(re.escape(one) for one in title.split())
    for pattern in (rf"^[\dA-Z.:]*[ \t]*{words}", words):
        found = re.compile(pattern, re.MULTILINE | re.IGNORECASE).search(text, start, end)
        if found:
            return text.rfind("\n", start, found.start()) + 1 or start
    return start


def _date(text: str | None) -> str | None:
    """Returns a date of PDF (ISO 32000-1, 7.9.4) as ISO 8601 has it."""
    found = _DATE.match(text or "")
    if not found:
        return None
    year, month, day, hour, minute, second, utc, sign, hours, minutes = found.groups()
    zone = "Z" if utc else f"{sign}{hours}:{minutes or '00'}" if sign else ""
    date = f"{year}-{month or '01'}-{day or '01'}"
    return f"{date}T{hour or '00'}:{minute or '00'}:{second or '00'}{zone}" if hour else date
