"""Jupyter notebooks: the text, the code in fences, and what it printed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from contextframe_beam.frames.document import Document
from contextframe_beam.parsers.clean import clean_text, line
from contextframe_beam.parsers.contract import Limits, NoTextError, ParseError
from contextframe_beam.parsers.encodings import decoded
from contextframe_beam.parsers.text import as_metadata, fenced


class NotebookParser:
    """Reads the cells of a notebook (https://nbformat.readthedocs.io); pictures are left out."""

    version = "1"
    suffixes = (".ipynb",)

    def parse(self, data: bytes, name: str, limits: Limits) -> Document:
        """Returns the cells of a notebook."""
        try:
            book = orjson.loads(decoded(data))
        except (orjson.JSONDecodeError, RecursionError):
            raise ParseError("it is not a notebook: no JSON, cut off, or nested too deep") from None
        if not isinstance(book, dict) or not ("cells" in book or "worksheets" in book):
            raise ParseError("it is not a notebook: it has no cells")
        about = _dict(book.get("metadata"))
        language = line(str(_dict(about.get("language_info")).get("name") or ""))
        language = language or line(str(_dict(about.get("kernelspec")).get("language") or "python"))
        text = "\n\n".join(filter(None, _cells(book, language)))
        if not text:
            raise NoTextError("no text: its cells are empty")
        title = about.get("title")
        stated = {"author": about.get("authors"), "tags": about.get("tags"), "language": language}
        return Document(
            text,
            title=title if isinstance(title, str) else None,
            metadata=as_metadata({key: value for key, value in stated.items() if value}),
        )


def _cells(book: dict[str, Any], language: str) -> Iterator[str]:
    cells = _list(book.get("cells"))
    for sheet in _list(book.get("worksheets")):  # the form before version 4
        cells = [*cells, *_list(_dict(sheet).get("cells"))]
    for one in map(_dict, cells):
        source = _text(one.get("source", one.get("input"))).strip("\n")
        kind = one.get("cell_type")
        if kind == "heading":
            level = one.get("level")
            yield "#" * (level if isinstance(level, int) and 0 < level < 7 else 1) + f" {source}"
        elif kind == "code":
            yield fenced(source, str(one.get("language") or language)) if source.strip() else ""
            for output in map(_dict, _list(one.get("outputs"))):
                yield _output(output)
        else:
            yield source


def _output(output: dict[str, Any]) -> str:
    """Returns what a cell printed, without colours and pictures."""
    if output.get("output_type") in ("error", "pyerr"):
        name, value = _text(output.get("ename")), _text(output.get("evalue"))
        return fenced(clean_text(f"{name}: {value}"), "text")
    data = _dict(output.get("data")) or output
    markdown = _text(data.get("text/markdown"))
    if markdown.strip():
        return markdown.strip("\n")
    text = _text(data.get("text/plain", data.get("text")))
    return fenced(clean_text(text), "text") if text.strip() else ""


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "".join(one for one in value if isinstance(one, str))
    return value if isinstance(value, str) else ""


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
