"""Notion's rich text becomes Markdown; what it refers to is noted on the way.

The forms are those of `RichTextItemResponse` in the types of Notion's own client.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from contextframe_beam.connectors.markdown import STYLES, escaped, escaped_at_start, styled

#: Where a page is opened by its id.
SITE = "https://www.notion.so"

_ID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}\Z", re.I)
_HOSTS = re.compile(r"(?:.+\.)?(?:notion\.so|notion\.site|notion\.com)\Z", re.I)


class Names(Protocol):
    """What ids stand for; each returns None where that cannot be found out."""

    def user(self, identifier: str) -> str | None:
        """Returns the name of a person or a bot."""

    def page(self, identifier: str) -> str | None:
        """Returns the title of a page or a database."""


@dataclass
class Found:
    """What texts refer to, gathered while they become Markdown.

    Attributes:
        references: The ids of documents that they link to, as `notion:page/<id>`, in order.
        children: The same of the pages and databases that are inside of a page.
        mentions: The ids of people.
        blocks: The ids of blocks whose page they refer to.
        files: The blocks that hold files.
        unknown: How often each form occurred that is not known here.
    """

    references: dict[str, None] = field(default_factory=dict)
    children: dict[str, None] = field(default_factory=dict)
    mentions: dict[str, None] = field(default_factory=dict)
    blocks: dict[str, None] = field(default_factory=dict)
    files: list[Mapping[str, Any]] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)


class RichText:
    """Makes Markdown of rich text.

    Args:
        names: Tells the names of people and pages.
        found: Where references are gathered.
    """

    def __init__(self, names: Names, found: Found) -> None:
        self._names = names
        self._found = found

    def markdown(self, parts: Any, at_start: bool = False) -> str:
        """Returns the Markdown of the parts of a text.

        Args:
            parts: The list of `RichTextItemResponse`; anything else is an empty text.
            at_start: Whether a line of it begins a block, so that signs such as `#` are escaped.
        """
        pieces: list[tuple[str, frozenset[str], str | None]] = []
        for part in parts if isinstance(parts, list) else ():
            if not isinstance(part, Mapping):
                continue
            text, styles, link = self._piece(part)
            if pieces and pieces[-1][1:] == (styles, link):
                pieces[-1] = (pieces[-1][0] + text, styles, link)
            else:
                pieces.append((text, styles, link))
        made = "".join(styled(*piece) for piece in pieces)
        return escaped_at_start(made) if at_start else made

    def _piece(self, part: Mapping[str, Any]) -> tuple[str, frozenset[str], str | None]:
        """Returns the text of one part, how it looks, and where it leads."""
        annotations = part.get("annotations")
        annotations = annotations if isinstance(annotations, Mapping) else {}
        styles = frozenset(one for one in STYLES if annotations.get(one) is True)
        kind = part.get("type")
        told = part.get(kind) if isinstance(kind, str) else None
        told = told if isinstance(told, Mapping) else {}
        plain = _text(part.get("plain_text"))
        link = part.get("href") if isinstance(part.get("href"), str) else None
        if kind == "text":
            content = _text(told.get("content")) or plain
            return (
                content if "code" in styles else escaped(content),
                styles,
                self.address(link) if link else None,
            )
        if kind == "equation":
            return f"${_text(told.get('expression')) or plain}$", styles - {"code"}, None
        if kind == "mention":
            text, link = self._mention(told, plain, link)
            return text, styles - {"code"}, link
        self._found.unknown[f"rich text {kind}"] += 1
        return escaped(plain), styles, self.address(link) if link else None

    def _mention(
        self, told: Mapping[str, Any], plain: str, link: str | None
    ) -> tuple[str, str | None]:
        kind = told.get("type")
        value = told.get(kind) if isinstance(kind, str) else None
        value = value if isinstance(value, Mapping) else {}
        identifier = page_id(_text(value.get("id")))
        if kind == "user":
            if identifier is None:
                return escaped(plain), None
            self._found.mentions[identifier] = None
            name = _text(value.get("name")) or self._names.user(identifier) or identifier
            return escaped(f"@{name}"), None
        if kind in ("page", "database") and identifier is not None:
            self._found.references[f"notion:{kind}/{identifier}"] = None
            return escaped(plain or identifier), opened(identifier)
        if kind == "date":
            return escaped(date_text(value) or plain), None
        if kind in ("link_preview", "link_mention"):
            to = _text(value.get("url") or value.get("href") or link)
            title = _text(value.get("title")) or plain or to
            return escaped(title), to or None
        if kind == "template_mention":
            inner = value.get(_text(value.get("type")))
            return escaped(plain or f"@{_text(inner)}"), None
        if kind == "custom_emoji":
            return f":{_text(value.get('name')) or plain.strip(':')}:", None
        self._found.unknown[f"mention {kind}"] += 1
        return escaped(plain), link

    def address(self, link: str) -> str:
        """Returns where a link leads, as a whole address; a page of Notion is noted."""
        identifier = page_in(link)
        if identifier is None:
            return link
        self._found.references[f"notion:page/{identifier}"] = None
        return f"{SITE}{link}" if link.startswith("/") else link


def plain_text(parts: Any) -> str:
    """Returns rich text without any marks, as for a title."""
    parts = parts if isinstance(parts, list) else []
    return "".join(_text(one.get("plain_text")) for one in parts if isinstance(one, Mapping))


def page_id(text: str) -> str | None:
    """Returns an id of Notion in the one form that we write: 32 digits with dashes, lower case."""
    if not _ID.fullmatch(text):
        return None
    bare = text.replace("-", "").lower()
    return "-".join((bare[:8], bare[8:12], bare[12:16], bare[16:20], bare[20:]))


def page_in(address: str) -> str | None:
    """Returns the id of the page that an address of Notion opens; None for other addresses.

    Args:
        address: As in `https://www.notion.so/team/Title-<id>?pvs=4#<block>`, or `/<id>`.
    """
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        return None
    if host and not _HOSTS.fullmatch(host):
        return None
    if not host and not parts.path.startswith("/"):
        return None
    # A page that is opened beside a database.
    for shown in parse_qs(parts.query).get("p", ()):
        if page_id(shown):
            return page_id(shown)
    last = parts.path.rstrip("/").rpartition("/")[2]
    return page_id(last) or page_id(last[-32:])


def opened(identifier: str) -> str:
    """Returns the address that opens a page, a database or a block."""
    return f"{SITE}/{identifier.replace('-', '')}"


def date_text(value: Any) -> str:
    """Returns a date or a range of dates: `2026-01-31`, `2026-01-31 to 2026-02-02`."""
    if not isinstance(value, Mapping):
        return ""
    start, end = _text(value.get("start")), _text(value.get("end"))
    zone = _text(value.get("time_zone"))
    return f"{start} to {end}" if end else start + (f" ({zone})" if zone and start else "")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
