"""What the files of a vault become: documents, what is said of them, and their addresses."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from contextframe_beam.connectors.obsidian.note import Link, Note, address, listed
from contextframe_beam.frames.times import when

_CREATED = ("created", "date", "created_at")


@dataclass(frozen=True)
class VaultDocument:
    """What a file of a vault becomes.

    Attributes:
        text: Its text as Markdown.
        note: What is in a note or a canvas; None for attachments.
        targets: The path that each link of the note leads to; None where nothing has its name.
        data: The bytes of an attachment.
    """

    text: str
    note: Note | None = None
    targets: tuple[str | None, ...] = ()
    data: bytes | None = None


def told_of(document: VaultDocument, path: str, target_id: Callable[[str], str]) -> dict[str, Any]:
    """Returns what a note says of itself, and where its links lead.

    Args:
        document: The note.
        path: Its path in the vault.
        target_id: Returns the id of the document that a path is.
    """
    note = document.note
    if note is None:
        return {}
    told: dict[str, Any] = {}
    properties = {**note.fields, **note.properties}
    if properties:
        told["properties"] = properties
    if note.error:
        told["properties_error"] = note.error
    if note.tags:
        told["tags"] = note.tags
    if note.aliases:
        told["aliases"] = note.aliases
    author = ", ".join(listed(note.properties.get("author")))
    if author:
        told["author"] = author
    for name in _CREATED:
        value = note.properties.get(name)
        if isinstance(value, str) and when(value) is not None:
            told["created_at"] = value
            break
    relationships: dict[tuple[str, str], dict[str, Any]] = {}
    unresolved: list[str] = []
    for link, target in zip(note.links, document.targets, strict=True):
        if target is None:
            unresolved.append(link.target)
        elif target != path:
            kind = "child" if link.is_embed else "reference"
            identifier = target_id(target)
            more = {"title": link.shown, **({"part": link.part} if link.part else {})}
            relationships.setdefault(
                (kind, identifier),
                {"relationship_type": kind, "target_id": identifier, "metadata": more},
            )
    if relationships:
        told["relationships"] = list(relationships.values())
    if unresolved:
        told["unresolved_links"] = list(dict.fromkeys(unresolved))
    return told


def told_of_section(item: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is said of a section of a note."""
    headings = [str(one) for one in item.get("headings") or ["Section"]]
    pairs = [("parent", str(item.get("note"))), *map(tuple, item.get("targets") or ())]
    return {
        "title": headings[-1],
        "headings": headings,
        "kind": "section",
        "relationships": [
            {"relationship_type": kind, "target_id": target}
            for kind, target in dict.fromkeys(pairs)
        ],
    }


def link_address(link: Link, target: str | None) -> str:
    """Returns where a link of the text leads; a local one leads to the heading alone."""
    if not link.target:
        return address("", link.part)
    return address(target or link.target, link.part)


_ENDING = re.compile(r"\.md\Z", re.IGNORECASE)


def opens(vault: str, path: str) -> str:
    """Returns the address that opens a file in Obsidian."""
    name = quote(_ENDING.sub("", path), safe="")
    return f"obsidian://open?vault={quote(vault, safe='')}&file={name}"
