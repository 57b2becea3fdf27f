"""Documents of Google's editors become Markdown: spreadsheets, presentations, and exported texts.

Spreadsheets come as `Spreadsheet` of Sheets v4, presentations as `Presentation` of Slides v1, and
documents as Markdown that Google exports.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from contextframe_beam.connectors.markdown import (
    apart,
    escaped,
    escaped_at_start,
    linked,
    styled,
    table,
)
from contextframe_beam.parsers.tables import table as table_of_cells

# An exported document holds its images as text at its end.
_IMAGE_DATA = re.compile(r"(?m)^\[([^\]\n]+)\]:\s*<?data:[^>\n]*>?[ \t]*\n?")
_IMAGE = re.compile(r"!\[((?:[^\]\\]|\\.)*)\]\[([^\]\n]+)\]")
_INLINE_IMAGE = re.compile(r"!\[((?:[^\]\\]|\\.)*)\]\(<?data:[^)\s]*>?\)")
_DRIVE_LINK = re.compile(
    r"https?://(?:docs|drive)\.google\.com/(?:a/[^/\s]+/)?"
    r"(?:(?:document|spreadsheets|presentation|forms|drawings|file)/(?:u/\d+/)?d/([\w-]{10,})"
    r"|(?:open|uc)\?(?:[^\s)\"'<>]*&)?id=([\w-]{10,})|drive/(?:u/\d+/)?folders/([\w-]{10,}))"
)
_TITLES = ("TITLE", "CENTERED_TITLE")
# They are the same on all slides.
_FURNITURE = frozenset({"SLIDE_NUMBER", "DATE_AND_TIME", "FOOTER", "HEADER", "SLIDE_IMAGE"})
_NUMBERED = re.compile(r"\(?\w{1,4}[.)]")
_MONOSPACED = re.compile(r"mono|courier|consolas|code", re.I)


def document_to_markdown(text: str, address: str) -> str:
    """Returns the Markdown of a document without the bytes of its images.

    Args:
        text: As Google exports it.
        address: Where a person opens the document; an image leads there.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    held = set(_IMAGE_DATA.findall(text))
    text = _IMAGE_DATA.sub("", text)

    def image(match: re.Match[str]) -> str:
        return match[0] if match[2] not in held else f"!{linked(match[1] or 'Image', address)}"

    text = _IMAGE.sub(image, text)
    text = _INLINE_IMAGE.sub(lambda match: f"!{linked(match[1] or 'Image', address)}", text)
    return text.strip()


def linked_files(text: str) -> list[str]:
    """Returns the ids of the files of Drive that a text links to, each once."""
    found = ("".join(match) for match in _DRIVE_LINK.findall(text))
    return list(dict.fromkeys(found))


def spreadsheet_to_markdown(told: Mapping[str, Any]) -> str:
    """Returns the sheets of a spreadsheet, each as a heading and a table."""
    parts = []
    for sheet in _objects(told.get("sheets")):
        known = _object(sheet.get("properties"))
        title = _text(known.get("title")) or "Sheet"
        kind = _text(known.get("sheetType"))
        note = " (chart)" if kind == "OBJECT" else " (hidden)" if known.get("hidden") else ""
        parts.append(f"## {_line(title)}{note}")
        parts += [table_of_cells(_rows(one)) for one in _objects(sheet.get("data"))]
    return apart(*parts)


def presentation_to_markdown(told: Mapping[str, Any], unknown: Counter[str]) -> str:
    """Returns the slides of a presentation, each below its title.

    Args:
        told: The presentation.
        unknown: Counts the elements whose kind is not known here.
    """
    parts = []
    for number, slide in enumerate(_objects(told.get("slides")), 1):
        title = ""
        body: list[str] = []
        for element in _objects(slide.get("pageElements")):
            shape = _object(element.get("shape"))
            place = _text(_object(shape.get("placeholder")).get("type"))
            if place in _FURNITURE:
                continue
            if place in _TITLES and not title:
                title = _line(_plain(shape.get("text")))
                continue
            body += _element(element, unknown)
        about = _object(slide.get("slideProperties"))
        head = escaped(title) or f"Slide {number}"
        parts.append(f"## {head}{' (skipped)' if about.get('isSkipped') is True else ''}")
        notes = _notes(_object(about.get("notesPage")))
        parts += [*body, f"**Notes:** {notes}" if notes else ""]
    return apart(*parts)


def _rows(data: Mapping[str, Any]) -> Iterator[list[str]]:
    for row in _objects(data.get("rowData")):
        yield [_cell(one) for one in _objects(row.get("values"))]


def _cell(told: Mapping[str, Any]) -> str:
    text, note = escaped(_text(told.get("formattedValue"))), _text(told.get("note"))
    link = _text(told.get("hyperlink"))
    if link and text != link:
        text = linked(text, link)
    return f"{text} ({escaped(note)})".strip() if note else text


def _element(element: Mapping[str, Any], unknown: Counter[str]) -> Iterator[str]:
    """Yields the paragraphs of an element of a slide."""
    if "shape" in element:
        yield _paragraphs(_object(element["shape"]).get("text"))
    elif "table" in element:
        rows = _objects(_object(element["table"]).get("tableRows"))
        cells = [
            [_paragraphs(c.get("text")) for c in _objects(row.get("tableCells"))] for row in rows
        ]
        yield table(cells)
    elif "elementGroup" in element:
        for one in _objects(_object(element["elementGroup"]).get("children")):
            yield from _element(one, unknown)
    elif "wordArt" in element:
        yield escaped(_text(_object(element["wordArt"]).get("renderedText")))
    elif "video" in element:
        yield linked("Video", _text(_object(element["video"]).get("url")))
    else:
        shown = _text(element.get("description")) or _text(element.get("title"))
        if shown:
            yield f"*{escaped(_line(shown))}*"
        elif "image" not in element:
            # A line, a chart, or what came after this was written.
            unknown["element of a slide"] += 1


def _notes(page: Mapping[str, Any]) -> str:
    speaker = _object(page.get("notesProperties")).get("speakerNotesObjectId")
    for element in _objects(page.get("pageElements")):
        if element.get("objectId") == speaker and speaker:
            return _paragraphs(_object(element.get("shape")).get("text"))
    return ""


def _paragraphs(content: Any) -> str:
    """Returns the text of a shape or a cell: paragraphs and lists."""
    made: list[tuple[bool, str]] = []
    marker, line = "", ""
    for one in [*_objects(_object(content).get("textElements")), {"paragraphMarker": {}}]:
        if "paragraphMarker" in one:
            if line.strip():
                text = line.strip()
                made.append((bool(marker), marker + (text if marker else escaped_at_start(text))))
            marker, line = _marker(_object(one["paragraphMarker"])), ""
            continue
        run = _object(one.get("textRun") or one.get("autoText"))
        text = _text(run.get("content")).replace("\v", "\n")
        style = _object(run.get("style"))
        names = {name for name in ("bold", "italic", "strikethrough") if style.get(name) is True}
        if _MONOSPACED.search(_text(style.get("fontFamily"))):
            names = {"code"}
        plain = text if "code" in names else escaped(text)
        line += styled(plain, names, _text(_object(style.get("link")).get("url")) or None)
    written, was_item = "", False
    for is_item, text in made:
        written += ("" if not written else "\n" if is_item and was_item else "\n\n") + text
        was_item = is_item
    return written


def _marker(told: Mapping[str, Any]) -> str:
    """Returns what a paragraph begins with: the sign of a list, as deep as it is."""
    if "bullet" not in told:
        return ""
    bullet = _object(told["bullet"])
    depth = bullet.get("nestingLevel")
    is_numbered = _NUMBERED.fullmatch(_text(bullet.get("glyph"))) is not None
    return "  " * (depth if isinstance(depth, int) else 0) + ("1. " if is_numbered else "- ")


def _plain(content: Any) -> str:
    runs = (_object(one.get("textRun")) for one in _objects(_object(content).get("textElements")))
    return "".join(_text(run.get("content")) for run in runs)


def _line(text: str) -> str:
    return " ".join(text.split())


def _objects(value: Any) -> Sequence[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
