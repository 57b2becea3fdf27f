"""PPTX: each slide with its title, lists, tables and notes, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from contextframe_beam.frames.document import Document
from contextframe_beam.parsers.clean import line
from contextframe_beam.parsers.contract import Limits, NoTextError, library
from contextframe_beam.parsers.office import opened, stated
from contextframe_beam.parsers.tables import table

_DEEPEST_GROUP = 20


class SlidesParser:
    """Reads the slides of a PPTX file; each is a page."""

    version = "1"
    suffixes = (".pptx", ".pptm", ".potx", ".ppsx")

    def parse(self, data: bytes, name: str, limits: Limits) -> Document:
        """Returns the text of the slides."""
        pptx = library("pptx")
        show = opened(
            data,
            "a presentation (PPTX)",
            "ppt/presentation.xml",
            limits,
            lambda file: pptx.package.Package.open(file).main_document_part.presentation,
        )
        parts: list[str] = []
        pages: list[int] = []
        length = 0
        for number, slide in enumerate(show.slides, 1):
            text = _slide(slide, number)
            pages.append(length)
            parts.append(text)
            length += len(text) + 2
        if parts == [_head("", number) for number in range(1, len(parts) + 1)]:
            raise NoTextError("no text, perhaps only pictures")
        title, metadata = stated(show.core_properties)
        return Document("\n\n".join(parts), title=title, pages=tuple(pages), metadata=metadata)


def _slide(slide: Any, number: int) -> str:
    title = slide.shapes.title
    name = line(title.text_frame.text) if title is not None and title.has_text_frame else ""
    blocks = [_head(name, number)]
    for shape in _shapes(slide.shapes, 0):
        if title is not None and shape.shape_id == title.shape_id:
            continue
        if getattr(shape, "has_table", False):
            blocks.append(
                table([[one.text_frame.text for one in row.cells] for row in shape.table.rows])
            )
        elif shape.has_text_frame:
            blocks.append(_paragraphs(shape))
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        notes = slide.notes_slide.notes_text_frame.text.strip()
        blocks.append("Notes: " + notes.replace("\v", "\n") if notes else "")
    return "\n\n".join(filter(None, blocks))


def _head(name: str, number: int) -> str:
    return f"## {name or f'Slide {number}'}"


def _shapes(shapes: Any, depth: int) -> Iterator[Any]:
    """Yields shapes from top to bottom as they are stored, those inside groups included."""
    for one in shapes:
        if hasattr(one, "shapes"):
            if depth < _DEEPEST_GROUP:
                yield from _shapes(one.shapes, depth + 1)
        else:
            yield one


def _paragraphs(shape: Any) -> str:
    """Returns the paragraphs of a shape: a list where it is a body of more than one."""
    paragraphs = [(one.level, _with_links(one)) for one in shape.text_frame.paragraphs]
    paragraphs = [(level, text) for level, text in paragraphs if text]
    is_body = shape.is_placeholder and shape.placeholder_format.type is not None
    if len(paragraphs) < 2 or not is_body:
        return "\n\n".join(text for _, text in paragraphs)
    return "\n".join("  " * level + "- " + text for level, text in paragraphs)


def _with_links(paragraph: Any) -> str:
    parts = []
    for run in paragraph.runs:
        address = run.hyperlink.address if run._r.rPr is not None else None
        parts.append(f"[{run.text}]({address})" if address and run.text.strip() else run.text)
    # Line breaks and fields stand between the runs; a paragraph that has some is taken as text.
    plain = paragraph.text
    text = "".join(parts) if "".join(run.text for run in paragraph.runs) == plain else plain
    return text.replace("\v", " ").strip()
