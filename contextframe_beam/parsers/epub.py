"""EPUB: the chapters in the order of the book, each of them a page of XHTML."""

from __future__ import annotations

import posixpath
import re
from typing import Any
from urllib.parse import unquote, urlsplit

from contextframe_beam.frames.document import Document
from contextframe_beam.parsers.archive import Archive
from contextframe_beam.parsers.clean import line
from contextframe_beam.parsers.contract import Limits, NoTextError, ParseError, in_words, library
from contextframe_beam.parsers.encodings import decoded
from contextframe_beam.parsers.text import as_metadata
from contextframe_beam.parsers.web_page import declared_charset, page

_DC = "{http://purl.org/dc/elements/1.1/}"
_FONTS = (b"http://www.idpf.org/2008/embedding", b"http://ns.adobe.com/pdf/enc#RC")


class EpubParser:
    """Reads the chapters of a book (https://www.w3.org/TR/epub-33/)."""

    version = "1"
    suffixes = (".epub",)

    def parse(self, data: bytes, name: str, limits: Limits) -> Document:
        """Returns the text of a book."""
        if not data:
            raise ParseError("it is empty: 0 bytes")
        book = Archive(data, "a book (EPUB)", limits)
        if "META-INF/encryption.xml" in book:
            _refuse_locked(book.read("META-INF/encryption.xml"))
        place, package = _package(book)
        chapters = [text for text in _chapters(book, place, package, limits) if text]
        if not chapters:
            raise NoTextError("no text, perhaps only pictures")
        stated = {
            key: [line(one.text) for one in package.iter(f"{_DC}{tag}") if one.text]
            for key, tag in (
                ("title", "title"),
                ("author", "creator"),
                ("tags", "subject"),
                ("language", "language"),
                ("description", "description"),
                ("created_at", "date"),
            )
        }
        single = ("title", "language", "description", "created_at")
        values: dict[str, Any] = dict(stated)
        values.update({one: next(iter(stated[one]), None) for one in single})
        title = values.pop("title")
        return Document("\n\n".join(chapters), title=title, metadata=as_metadata(values))


def _refuse_locked(xml: bytes) -> None:
    """Refuses a book with digital rights management; fonts alone may be made unreadable."""
    methods = re.findall(rb"Algorithm\s*=\s*[\"']([^\"']+)", xml)
    if any(one not in _FONTS for one in methods):
        raise ParseError("it is protected (DRM), and its text cannot be read")


def _package(book: Archive) -> tuple[str, Any]:
    """Returns path and XML of the file that lists what the book is made of."""
    container = _xml(book.read("META-INF/container.xml"))
    roots = [one.get("full-path") for one in container.iter("{*}rootfile")]
    if not roots or not roots[0]:
        raise ParseError("it is damaged: its container names no package")
    return roots[0], _xml(book.read(roots[0]))


def _xml(data: bytes) -> Any:
    etree = library("lxml.etree")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        return etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError):
        raise ParseError("it is damaged: its list of chapters is no XML") from None


def _chapters(book: Archive, place: str, package: Any, limits: Limits) -> list[str]:
    files = {one.get("id"): one for one in package.iter("{*}item")}
    texts: list[str] = []
    read: set[str] = set()
    length = 0
    for one in package.iter("{*}itemref"):
        item = files.get(one.get("idref"))
        if item is None or not item.get("href"):
            continue
        if "html" not in (item.get("media-type") or "html"):
            continue
        path = unquote(urlsplit(item.get("href")).path)
        path = posixpath.normpath(posixpath.join(posixpath.dirname(place), path))
        if path in read:
            continue
        read.add(path)
        data = book.read(path)
        texts.append(page(decoded(data, declared_charset(data))).text)
        length += len(texts[-1])
        if length > limits.max_unpacked_bytes:
            most = in_words(limits.max_unpacked_bytes)
            raise ParseError(f"its text is longer than max_unpacked_bytes, {most}")
    return texts
