"""DOCX: headings, lists, tables, links, notes and emphasis, as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from contextframe_beam.frames.document import Document
from contextframe_beam.parsers.contract import Limits, NoTextError, library
from contextframe_beam.parsers.office import emphasised, opened, stated
from contextframe_beam.parsers.tables import table
from contextframe_beam.parsers.text import fenced

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_MATH = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_SIGNS = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}
_SKIPPED = {f"{_W}{one}" for one in ("del", "moveFrom", "pPr", "rPr", "instrText", "sdtPr")}
_SKIPPED.add(_FALLBACK)  # the same text once more, for old readers


class WordParser:
    """Reads the body of a DOCX file with its footnotes."""

    version = "1"
    suffixes = (".docx", ".docm", ".dotx")

    def parse(self, data: bytes, name: str, limits: Limits) -> Document:
        """Returns the text of a file."""
        docx = library("docx")
        document = opened(
            data, "a Word file (DOCX)", "word/document.xml", limits, lambda file: _open(docx, file)
        )
        body = document.element.body
        text = _Body(document).text(body) if body is not None else ""
        if not text:
            raise NoTextError("no text, perhaps only pictures")
        title, metadata = stated(document.core_properties)
        return Document(text, title=title, metadata=metadata)


def _open(docx: Any, file: Any) -> Any:
    """Opens a file; the library takes no macro-enabled ones and no templates, which read alike."""
    package = docx.package.Package.open(file)
    part = package.main_document_part
    if hasattr(part, "document"):
        return part.document
    return docx.document.Document(part.element, part)


class _Body:
    """The walk over a document, with what it has to look up."""

    def __init__(self, document: Any) -> None:
        self._part = document.part
        styles = _related(document.part, "/styles")
        self._styles = {one.get(f"{_W}styleId"): one for one in _children(styles, f"{_W}style")}
        self._levels: dict[str | None, tuple[str, int]] = {}
        self._formats = _list_formats(document.part)
        self._notes: list[str] = []

    def text(self, body: Any) -> str:
        blocks = list(self._blocks(body))
        notes = self._footnotes()
        return "\n\n".join(filter(None, [*_joined(blocks), *notes])).strip("\n")

    def _blocks(self, parent: Any) -> Iterator[tuple[str, str]]:
        """Yields kind and text of what stands in a body or a cell."""
        for one in parent:
            if one.tag == f"{_W}p":
                yield from self._paragraph(one)
            elif one.tag == f"{_W}tbl":
                yield "table", self._table(one)
            elif isinstance(one.tag, str) and one.tag not in _SKIPPED:
                yield from self._blocks(one)

    def _paragraph(self, paragraph: Any) -> Iterator[tuple[str, str]]:
        kind, level = self._kind(paragraph)
        text = "".join(self._runs(paragraph, plain=kind in ("heading", "code")))
        if not text.strip():
            return
        if kind == "code":
            yield "code", text
        elif kind == "heading":
            yield "heading", "#" * min(level, 6) + " " + " ".join(text.split())
        elif kind in ("bullet", "number"):
            mark = "- " if kind == "bullet" else "1. "
            indent = "    " * level
            yield "list", indent + mark + text.strip().replace("\n", "\n" + indent + "  ")
        else:
            yield "text", text.strip().replace("\n", "  \n")

    def _kind(self, paragraph: Any) -> tuple[str, int]:
        properties = paragraph.find(f"{_W}pPr")
        if properties is None:
            return "text", 0
        style = _value(properties, "pStyle")
        kind, level = self._style_kind(style)
        outline = _value(properties, "outlineLvl")
        if outline and outline.isdigit() and int(outline) < 9:
            return "heading", int(outline) + 1
        if kind == "heading":
            return kind, level
        numbers = properties.find(f"{_W}numPr")
        if numbers is not None:
            number, depth = _value(numbers, "numId"), _value(numbers, "ilvl") or "0"
            if number == "0":
                return "text", 0
            depth = depth if depth.isdigit() else "0"
            return self._formats.get((number, depth), "bullet"), min(int(depth), 8)
        return kind, level

    def _style_kind(self, style: str | None) -> tuple[str, int]:
        """Returns what a style makes of a paragraph: its own name and those it is based on tell."""
        if style not in self._levels:
            self._levels[style] = ("text", 0)  # styles may be based on each other in a circle
            self._levels[style] = self._told(style)
        return self._levels[style]

    def _told(self, style: str | None) -> tuple[str, int]:
        element = self._styles.get(style)
        if element is None:
            return "text", 0
        name = (_value(element, "name") or "").lower()
        if found := re.fullmatch(r"heading (\d)", name):
            return "heading", int(found.group(1))
        if name == "title":
            return "heading", 1
        if found := re.fullmatch(r"list (bullet|number)(?: (\d))?", name):
            return found.group(1), int(found.group(2) or 1) - 1
        if re.search(r"\b(code|preformatted|source)\b", name):
            return "code", 0
        properties = element.find(f"{_W}pPr")
        outline = _value(properties, "outlineLvl") if properties is not None else None
        if outline and outline.isdigit() and int(outline) < 9:
            return "heading", int(outline) + 1
        based = _value(element, "basedOn")
        return self._style_kind(based) if based else ("text", 0)

    def _runs(self, parent: Any, plain: bool) -> Iterator[str]:
        """Yields the text of a paragraph, with marks for emphasis and links."""
        mark, held = "", ""
        for one in parent:
            if one.tag in _SKIPPED or not isinstance(one.tag, str):
                continue
            if one.tag == f"{_W}r":
                new, text = ("" if plain else _emphasis(one)), "".join(self._run(one))
                if new != mark:
                    yield emphasised(held, mark)
                    mark, held = new, ""
                held += text
                continue
            yield emphasised(held, mark)
            mark, held = "", ""
            if one.tag == f"{_W}hyperlink":
                yield self._link(one, plain)
            elif one.tag.startswith(_MATH):
                yield "".join(text.text or "" for text in one.iter(f"{_MATH}t"))
            else:
                yield from self._runs(one, plain)
        yield emphasised(held, mark)

    def _run(self, run: Any) -> Iterator[str]:
        for one in run:
            if one.tag == f"{_W}t":
                yield one.text or ""
            elif one.tag in _SIGNS:
                yield _SIGNS[one.tag]
            elif one.tag == f"{_W}footnoteReference":
                self._notes.append(one.get(f"{_W}id", ""))
                yield f"[^{len(self._notes)}]"
            elif one.tag not in _SKIPPED and isinstance(one.tag, str):
                yield from self._boxes(one)

    def _boxes(self, parent: Any) -> Iterator[str]:
        """Yields the text of boxes that are drawn beside or over the text."""
        for one in parent:
            if one.tag == f"{_W}txbxContent":
                blocks = [text for _, text in self._blocks(one)]
                yield "\n" + "\n".join(blocks) if blocks else ""
            elif one.tag not in _SKIPPED and isinstance(one.tag, str):
                yield from self._boxes(one)

    def _link(self, link: Any, plain: bool) -> str:
        text = "".join(self._runs(link, plain))
        relation = self._part.rels.get(link.get(f"{_R}id"))
        if plain or not text.strip() or relation is None or not relation.is_external:
            return text
        target = relation.target_ref
        return f"[{text}](<{target}>)" if re.search(r"[\s()]", target) else f"[{text}]({target})"

    def _table(self, element: Any) -> str:
        rows = []
        for row in _children(element, f"{_W}tr"):
            cells: list[str] = []
            for cell in _children(row, f"{_W}tc"):
                properties = cell.find(f"{_W}tcPr")
                merged = properties is not None and properties.find(f"{_W}vMerge") is not None
                goes_on = merged and _value(properties, "vMerge") != "restart"
                texts = [] if goes_on else [text for _, text in self._blocks(cell)]
                span = _value(properties, "gridSpan") if properties is not None else None
                width = int(span) if span and span.isdigit() else 1
                cells += ["\n".join(texts), *[""] * (min(width, 100) - 1)]
            rows.append(cells)
        return table(rows)

    def _footnotes(self) -> list[str]:
        if not self._notes:
            return []
        root = _related(self._part, "/footnotes")
        found = {one.get(f"{_W}id"): one for one in _children(root, f"{_W}footnote")}
        notes = []
        for number, name in enumerate(list(self._notes), 1):
            if name in found:
                text = " ".join(text.strip() for _, text in self._blocks(found[name]))
                notes.append(f"[^{number}]: {text}")
        return notes


def _joined(blocks: list[tuple[str, str]]) -> Iterator[str]:
    """Yields blocks; the lines of a list or of code are one block."""
    kind, held = "", list[str]()
    for new, text in [*blocks, ("", "")]:
        if held and (new != kind or kind not in ("list", "code")):
            whole = "\n".join(held)
            yield fenced(whole) if kind == "code" else whole
            held = []
        kind = new
        held.append(text)


def _emphasis(run: Any) -> str:
    properties = run.find(f"{_W}rPr")
    if properties is None:
        return ""
    bold, italic = _is_on(properties, "b"), _is_on(properties, "i")
    return "***" if bold and italic else "**" if bold else "*" if italic else ""


def _is_on(properties: Any, name: str) -> bool:
    found = properties.find(f"{_W}{name}")
    return found is not None and found.get(f"{_W}val", "1") not in ("0", "false", "off", "none")


def _value(parent: Any, name: str) -> str | None:
    found = parent.find(f"{_W}{name}")
    return found.get(f"{_W}val") if found is not None else None


def _children(parent: Any, tag: str) -> Iterator[Any]:
    """Yields the children of a tag, also those inside content controls and marks of changes."""
    for one in parent if parent is not None else ():
        if one.tag == tag:
            yield one
        elif one.tag in (f"{_W}sdt", f"{_W}sdtContent", f"{_W}ins", f"{_W}customXml"):
            yield from _children(one, tag)


def _related(part: Any, kind: str) -> Any:
    """Returns the XML of a part that belongs to the document, or None."""
    for relation in part.rels.values():
        if not relation.is_external and relation.reltype.endswith(kind):
            target = relation.target_part
            element = getattr(target, "element", None)
            return _parsed(target.blob) if element is None else element
    return None


def _parsed(xml: bytes) -> Any:
    etree = library("lxml.etree")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        return etree.fromstring(xml, parser)
    except etree.XMLSyntaxError:
        return None  # lists lose their numbers then, and the text stays


def _list_formats(part: Any) -> dict[tuple[str | None, str], str]:
    """Returns whether lists have bullets or numbers, by id and level."""
    root = _related(part, "/numbering")
    if root is None:
        return {}
    abstract: dict[str | None, dict[str, str]] = {}
    for one in _children(root, f"{_W}abstractNum"):
        levels = {
            level.get(f"{_W}ilvl", "0"): _value(level, "numFmt") or "bullet"
            for level in _children(one, f"{_W}lvl")
        }
        abstract[one.get(f"{_W}abstractNumId")] = levels
    formats = {}
    for one in _children(root, f"{_W}num"):
        for level, kind in abstract.get(_value(one, "abstractNumId"), {}).items():
            formats[one.get(f"{_W}numId"), level] = (
                "bullet" if kind in ("bullet", "none") else "number"
            )
    return formats
