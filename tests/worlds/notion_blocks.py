"""Blocks and rich text of Notion, as its API writes them, for worlds and tables of cases."""

from __future__ import annotations

import uuid
from typing import Any

PLAIN = {
    "bold": False,
    "italic": False,
    "strikethrough": False,
    "underline": False,
    "code": False,
    "color": "default",
}


def uid(number: int) -> str:
    """Returns an id as Notion writes it."""
    return str(uuid.UUID(int=number))


def text(content: str, link: str | None = None, **styles: Any) -> dict[str, Any]:
    """Returns a piece of plain text.

    Args:
        content: The text.
        link: Where it leads.
        **styles: Its annotations that are not as usual: `bold=True`.
    """
    return {
        "type": "text",
        "text": {"content": content, "link": {"url": link} if link else None},
        "annotations": {**PLAIN, **styles},
        "plain_text": content,
        "href": link,
    }


def mention(kind: str, value: Any, plain: str, href: str | None = None) -> dict[str, Any]:
    """Returns a mention of a person, a page, a date, ..."""
    return {
        "type": "mention",
        "mention": {"type": kind, kind: value},
        "annotations": dict(PLAIN),
        "plain_text": plain,
        "href": href,
    }


def equation(expression: str) -> dict[str, Any]:
    """Returns an equation inside of a text."""
    return {
        "type": "equation",
        "equation": {"expression": expression},
        "annotations": dict(PLAIN),
        "plain_text": expression,
        "href": None,
    }


def block(kind: str, *texts: Any, below: Any = (), **more: Any) -> dict[str, Any]:
    """Returns a block; plain strings become rich text, and `below` the blocks in it.

    Args:
        kind: Its type.
        *texts: Its rich text, where its type has some.
        below: The blocks in it, each with those in it.
        **more: What else its type has.
    """
    rich = [text(one) if isinstance(one, str) else one for one in texts]
    told = dict(more)
    if kind in _WITH_TEXT:
        told = {"rich_text": rich, **_WITH_TEXT[kind], **more}
    made: dict[str, Any] = {"object": "block", "type": kind, kind: told}
    if below:
        made["children"] = list(below)
    return made


_COLOR = {"color": "default"}
_WITH_TEXT: dict[str, dict[str, Any]] = {
    "paragraph": {**_COLOR, "icon": None},
    "heading_1": {**_COLOR, "is_toggleable": False},
    "heading_2": {**_COLOR, "is_toggleable": False},
    "heading_3": {**_COLOR, "is_toggleable": False},
    "heading_4": {**_COLOR, "is_toggleable": False},
    "bulleted_list_item": _COLOR,
    "numbered_list_item": _COLOR,
    "to_do": {**_COLOR, "checked": False},
    "toggle": _COLOR,
    "quote": _COLOR,
    "callout": {**_COLOR, "icon": None},
    "template": {},
    "code": {"language": "plain text", "caption": []},
}


def row(*cells: str) -> dict[str, Any]:
    """Returns a row of a table."""
    return block("table_row", cells=[[text(cell)] if cell else [] for cell in cells])


def table(*rows: dict[str, Any], header: bool = True, row_header: bool = False) -> dict[str, Any]:
    """Returns a table."""
    width = max(len(one["table_row"]["cells"]) for one in rows)
    return block(
        "table",
        below=rows,
        table_width=width,
        has_column_header=header,
        has_row_header=row_header,
    )


def hosted(kind: str, url: str, caption: str = "", name: str | None = None) -> dict[str, Any]:
    """Returns a block with a file that Notion keeps.

    Args:
        kind: image, video, audio, pdf or file.
        url: Its signed address.
        caption: What is written below it.
        name: Its name, which only the type `file` has.
    """
    told: dict[str, Any] = {
        "type": "file",
        "file": {"url": url, "expiry_time": "2026-01-01T01:00:00.000Z"},
        "caption": [text(caption)] if caption else [],
    }
    if name is not None:
        told["name"] = name
    return block(kind, **told)


def external(kind: str, url: str, caption: str = "") -> dict[str, Any]:
    """Returns a block with a file that is elsewhere."""
    more = {"name": url.rpartition("/")[2]} if kind == "file" else {}
    caption_parts = [text(caption)] if caption else []
    return block(kind, type="external", external={"url": url}, caption=caption_parts, **more)


def of_every_type(page: str, database: str, synced: str) -> list[dict[str, Any]]:
    """Returns blocks in which each type of the client's types occurs once or more.

    Args:
        page: The id of a page to link to.
        database: The id of a database.
        synced: The id of a block that a copy is synced from.
    """
    web = "https://example.test"
    return [
        block("heading_1", "One"),
        block("heading_2", "Two", is_toggleable=True, below=[block("paragraph", "Under two.")]),
        block("heading_3", "Three"),
        block("heading_4", "Four"),
        block("table_of_contents", color="default"),
        block("breadcrumb"),
        block("paragraph", "Plain ", text("bold", bold=True), " end."),
        block(
            "bulleted_list_item",
            "a",
            below=[
                block("numbered_list_item", "first"),
                block("numbered_list_item", "second", below=[block("paragraph", "inside")]),
            ],
        ),
        block("bulleted_list_item", "b"),
        block("to_do", "open"),
        block("to_do", "done", checked=True),
        block("toggle", "More", below=[block("paragraph", "Hidden until opened.")]),
        block("quote", "Said", below=[block("paragraph", "and meant")]),
        block("callout", "Mind this", icon={"type": "emoji", "emoji": "💡"}),
        block("code", "x = 1", language="python", caption=[text("A line")]),
        block("equation", expression="e = mc^2"),
        block("divider"),
        table(row("Name", "Price"), row("Pen | ink", "2")),
        block(
            "column_list",
            below=[
                block("column", below=[block("paragraph", "left")]),
                block("column", below=[block("paragraph", "right")]),
            ],
        ),
        block("tab", below=[block("paragraph", "in a tab")]),
        block("synced_block", synced_from=None, below=[block("paragraph", "the original")]),
        block("synced_block", synced_from={"type": "block_id", "block_id": synced}),
        block("template", "New task", below=[block("to_do", "step")]),
        block("child_page", title="Chapter 0"),
        block("child_database", title="Tasks"),
        block("link_to_page", type="page_id", page_id=page),
        block("link_to_page", type="database_id", database_id=database),
        block("bookmark", url=f"{web}/b", caption=[text("A bookmark")]),
        block("embed", url=f"{web}/e", caption=[]),
        block("link_preview", url=f"{web}/p"),
        external("image", f"{web}/cat.png", "A cat"),
        external("video", f"{web}/film.mp4"),
        external("audio", f"{web}/song.mp3"),
        external("pdf", f"{web}/paper.pdf"),
        external("file", f"{web}/notes.zip"),
        block("meeting_notes", title=[text("Weekly")], below=[block("paragraph", "We met.")]),
        block("transcription", title=[text("Call")]),
        block("unsupported", block_type="form"),
    ]
