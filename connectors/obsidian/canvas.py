"""A canvas of Obsidian as Markdown: its cards from top to bottom, and its arrows.

The format is that of JSON Canvas 1.0: nodes of text, files, addresses and groups, and edges.
"""

from __future__ import annotations

import json
from typing import Any

from contextframe_beam.connectors.obsidian.note import Link, Note, parse_note
from contextframe_beam.errors import RecordError


def parse_canvas(text: str) -> Note:
    """Returns what is on a canvas.

    Args:
        text: The content of the file; an empty one is an empty canvas.

    Raises:
        RecordError: it is not a canvas.
    """
    try:
        canvas = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise RecordError(f"the canvas is not JSON: {error}; repair it in Obsidian") from error
    if not isinstance(canvas, dict):
        raise RecordError("the canvas is not a JSON object; repair it in Obsidian")
    nodes = sorted(_objects(canvas.get("nodes")), key=_place)
    parts: list[str] = []
    links: list[Link] = []
    tags: dict[str, str] = {}
    names: dict[Any, str] = {}
    position = 0
    for node in nodes:
        part, found = _card(node)
        names[_key(node.get("id"))] = _name(node)
        if not part:
            continue
        links += [
            Link(one.target, one.part, one.shown, one.is_embed, *_moved(one, position), one.is_wiki)
            for one in found.links
        ]
        for tag in found.tags:
            tags.setdefault(tag.casefold(), tag)
        parts.append(part)
        position += len(part) + 2
    arrows = [_arrow(edge, names) for edge in _objects(canvas.get("edges"))]
    if arrows:
        parts.append("\n".join(arrows))
    return Note("\n\n".join(parts), links=links, tags=list(tags.values()))


def _objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _place(node: dict[str, Any]) -> tuple[float, float, bool, str]:
    x, y = (
        float(value) if isinstance(value, int | float) and abs(value) < 1e12 else 0.0
        for value in (node.get("x"), node.get("y"))
    )
    return y, x, node.get("type") != "group", str(node.get("id"))


def _text(node: dict[str, Any], name: str) -> str:
    value = node.get(name)
    return value if isinstance(value, str) else ""


def _card(node: dict[str, Any]) -> tuple[str, Note]:
    kind = node.get("type")
    if kind == "file":
        path, part = _text(node, "file"), _text(node, "subpath")
        text = f"![[{path}{part}]]"
        return text, Note(text, links=[Link(path, part.lstrip("#"), path, True, 0, len(text))])
    if kind == "link":
        return f"<{_text(node, 'url')}>", Note("")
    if kind == "group":
        label = " ".join(_text(node, "label").split())
        return f"## {label}" if label else "", Note("")
    text = _text(node, "text").replace("\r\n", "\n")
    if text.startswith("---"):  # a line: a card has no properties
        text = f"\n{text}"
    return text, parse_note(text)


def _moved(link: Link, by: int) -> tuple[int, int]:
    return (link.start + by, link.end + by) if link.start >= 0 else (-1, -1)


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _name(node: dict[str, Any]) -> str:
    for name in ("label", "file", "url", "text"):
        lines = _text(node, name).strip().splitlines()
        if lines:
            return lines[0].lstrip("# ")[:80]
    return str(node.get("id"))


def _arrow(edge: dict[str, Any], names: dict[Any, str]) -> str:
    ends = [names.get(_key(edge.get(one)), str(edge.get(one))) for one in ("fromNode", "toNode")]
    label = " ".join(_text(edge, "label").split())
    return f"- {ends[0]} → {ends[1]}" + (f": {label}" if label else "")
