"""HTML: pages of the web, and the chapters and mails that are written in it."""

from __future__ import annotations

import re
from typing import Any

from contextframe_beam.frames.document import Document
from contextframe_beam.parsers.contract import Limits, NoTextError, ParseError, library
from contextframe_beam.parsers.encodings import decoded
from contextframe_beam.parsers.text import as_metadata

_CHARSET = re.compile(
    rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})"
    rb"|<\?xml[^>]{0,100}?encoding\s*=\s*[\"']([\w.-]{1,40})",
    re.IGNORECASE,
)
_XHTML = re.compile(r"\A\s*<\?xml\b|XHTML|<html[^>]*\sxmlns=", re.IGNORECASE)
_ENDED = re.compile(
    r"<(?!(?:area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr)\b)"
    r"([a-z][\w:-]*)((?:\s[^<>]*)?)/>",
    re.IGNORECASE,
)


class HtmlParser:
    """Reads HTML as Markdown; the title and the `<meta>` of a page become metadata."""

    version = "1"
    suffixes = (".html", ".htm", ".xhtml", ".xht")

    def parse(self, data: bytes, name: str, limits: Limits) -> Document:
        """Returns the text of a page."""
        text = decoded(data, declared_charset(data))
        document = page(text)
        if not document.text:
            raise NoTextError("it has no text")
        return document


def declared_charset(data: bytes) -> str | None:
    """Returns the encoding that a page or an XML file states in its first 4,096 bytes."""
    found = _CHARSET.search(data[:4096])
    return (found.group(1) or found.group(2)).decode("ascii") if found else None


def page(html: str) -> Document:
    """Returns a page as Markdown.

    Raises:
        ParseError: its tags are nested deeper than can be read.
    """
    html_to_markdown = library("html_to_markdown")
    if _XHTML.search(html[:2048]):
        # In HTML, elements that XHTML ends at once, such as <title/>, would never end.
        html = _ENDED.sub(r"<\1\2></\1>", html)
    options = html_to_markdown.ConversionOptions(
        br_in_tables=True,
        compact_tables=True,
        inline_data_media="alt_text_only",
    )
    try:
        result = html_to_markdown.convert(html, options)
    except Exception as error:
        raise ParseError(f"it cannot be read as HTML ({type(error).__name__})") from None
    if any("depth_limit" in str(one.kind) for one in result.warnings):
        raise ParseError("its tags are nested more than 1,000 deep")
    text = re.sub(r"\A---\n(?:[^\n]+\n)+---\n", "", result.content or "")
    title, metadata = _stated(result.metadata.document if result.metadata else None)
    return Document(text.replace("\xad", "").strip("\n"), title=title, metadata=metadata)


_DATES = ("article:published_time", "dcterms.created", "dc.date", "date")
_CHANGES = ("article:modified_time", "dcterms.modified", "last-modified")


def _stated(about: Any) -> tuple[str | None, dict[str, Any]]:
    if about is None:
        return None, {}
    tags = {key.lower(): value for key, value in {**about.open_graph, **about.meta_tags}.items()}
    return about.title, as_metadata(
        {
            "author": about.author,
            "tags": list(about.keywords),
            "description": about.description,
            "language": about.language,
            "created_at": next((tags[one] for one in _DATES if tags.get(one)), None),
            "modified_at": next((tags[one] for one in _CHANGES if tags.get(one)), None),
        }
    )
