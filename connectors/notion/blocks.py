"""Trees of Notion's blocks become Markdown: lists keep their depth, tables their rows.

The types are those of `BlockObjectResponse` in the types of Notion's own client. A block whose type
is not known stays as visible text, and is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from contextframe_beam.connectors.markdown import (
    apart,
    cell_of,
    escaped,
    fenced,
    indented,
    joined,
    linked,
    quoted,
    table,
)
from contextframe_beam.connectors.notion.rich_text import (
    Found,
    Names,
    RichText,
    opened,
    page_id,
    page_in,
)

#: Where the blocks below a block stand in it, once they are read.
CHILDREN = "children"

#: Other documents stand below these, and nothing of the page itself.
OTHER_DOCUMENTS = frozenset({"child_page", "child_database"})

#: Types whose blocks hold a file.
FILES = frozenset({"image", "video", "audio", "pdf", "file"})

_LISTS = frozenset({"bulleted_list_item", "numbered_list_item", "to_do"})
_HEADINGS = {f"heading_{level}": "#" * level for level in range(1, 7)}
# They show what is elsewhere on the page.
_DROPPED = frozenset({"breadcrumb", "table_of_contents"})
_PLAIN_LANGUAGES = frozenset({"", "plain text"})


def blocks_to_markdown(
    blocks: Sequence[Mapping[str, Any]], names: Names, found: Found | None = None
) -> str:
    """Returns the Markdown of a page.

    Args:
        blocks: Its blocks, each with those below it under `children`.
        names: Tells the names of people and pages.
        found: Where is noted what they refer to.
    """
    return _Writer(names, Found() if found is None else found).many(blocks)


class _Writer:
    """Writes one page."""

    def __init__(self, names: Names, found: Found) -> None:
        self._names = names
        self._found = found
        self._rich = RichText(names, found)
        self._plain: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], str]] = {
            "paragraph": self._paragraph,
            "quote": self._quote,
            "callout": self._callout,
            "toggle": self._paragraph,
            "template": self._paragraph,
            "code": self._code,
            "equation": lambda _, told: f"$$\n{_text(told.get('expression')).strip()}\n$$",
            "divider": lambda *_: "---",
            "column_list": self._inner,
            "column": self._inner,
            "tab": self._inner,
            "synced_block": self._synced,
            "table": self._table,
            "table_row": lambda _, told: f"| {' | '.join(self._cells(told))} |",
            "child_page": self._child,
            "child_database": self._child,
            "link_to_page": self._link_to_page,
            "bookmark": self._address,
            "embed": self._address,
            "link_preview": self._address,
            "meeting_notes": self._meeting,
            "transcription": self._meeting,
            "unsupported": self._unsupported,
        }

    def many(self, blocks: Any) -> str:
        """Returns blocks that stand below each other."""
        made: list[tuple[str, str]] = []
        number = 0
        for block in blocks if isinstance(blocks, Sequence) else ():
            if not isinstance(block, Mapping) or block.get("in_trash") is True:
                continue
            kind = _text(block.get("type"))
            number = number + 1 if kind == "numbered_list_item" else 0
            text = self._one(block, kind, number)
            if text:
                made.append((kind, text))
        written = ""
        before = ""
        for kind, text in made:
            if written:
                # Items of one list stand together, and of two lists in a row do not.
                is_list = {kind, before} <= _LISTS and _list(kind) == _list(before)
                written += "\n" if is_list else "\n\n"
            written += text
            before = kind
        return written

    def _one(self, block: Mapping[str, Any], kind: str, number: int) -> str:
        told = block.get(kind)
        told = told if isinstance(told, Mapping) else {}
        if kind in _DROPPED:
            return ""
        if kind in _HEADINGS:
            title = self._line(told.get("rich_text"))
            head = f"{_HEADINGS[kind]} {title}" if title else ""
            return apart(head, self._inner(block, told))
        if kind in _LISTS:
            return self._item(block, kind, told, number)
        if kind in FILES:
            return apart(self._file(block, kind, told), self._inner(block, told))
        write = self._plain.get(kind)
        if write is not None:
            return write(block, told)
        return self._unknown(block, kind, told)

    def _inner(self, block: Mapping[str, Any], told: Mapping[str, Any]) -> str:
        return self.many(block.get(CHILDREN))

    def _line(self, rich: Any) -> str:
        return " ".join(self._rich.markdown(rich).split())

    def _paragraph(self, block: Mapping[str, Any], told: Mapping[str, Any]) -> str:
        text = self._rich.markdown(told.get("rich_text"), at_start=True).strip("\n")
        return apart(text, self._inner(block, told))

    def _item(
        self, block: Mapping[str, Any], kind: str, told: Mapping[str, Any], number: int
    ) -> str:
        mark = f"{number}. " if kind == "numbered_list_item" else "- "
        text = self._rich.markdown(told.get("rich_text"), at_start=True).strip("\n")
        if kind == "to_do":
            text = f"[{'x' if told.get('checked') is True else ' '}] {text}"
        children = block.get(CHILDREN)
        inner = self._inner(block, told)
        if inner:
            first = next(
                (one.get("type") for one in children or () if isinstance(one, Mapping)), None
            )
            text += f"\n{inner}" if first in _LISTS else f"\n\n{inner}"
        return mark + indented(text, len(mark))

    def _quote(self, block: Mapping[str, Any], told: Mapping[str, Any]) -> str:
        return quoted(self._paragraph(block, told))

    def _callout(self, block: Mapping[str, Any], told: Mapping[str, Any]) -> str:
        icon = told.get("icon")
        emoji = _text(icon.get("emoji")) if isinstance(icon, Mapping) else ""
        text = self._rich.markdown(told.get("rich_text"), at_start=not emoji).strip("\n")
        return quoted(apart(joined((emoji, text)), self._inner(block, told)))

    def _code(self, block: Mapping[str, Any], told: Mapping[str, Any]) -> str:
        # What is written in code has no marks, so that it can be copied.
        parts = told.get("rich_text")
        text = "".join(
            _text(one.get("plain_text"))
            for one in (parts if isinstance(parts, list) else ())
            if isinstance(one, Mapping)
        )
        language = _text(told.get("language"))
        language = "" if language in _PLAIN_LANGUAGES else language.replace(" ", "-")
        return apart(fenced(text, language), self._line(told.get("caption")))

    def _synced(self, block: Mapping[str, Any], told: Mapping[str, Any]) -> str:
        origin = told.get("synced_from")
        identifier = page_id(_text(origin.get("block_id"))) if isinstance(origin, Mapping) else None
        inner = self._inner(block, told)
        if identifier is None or inner:
            return inner
        self._found.blocks[identifier] = None
        return linked("Synced block", opened(identifier))

    def _table(self, block: Mapping[str, Any], told: Mapping[str, Any]) -> str:
        children = block.get(CHILDREN)
        rows = [
            self._cells(row)
            for one in (children if isinstance(children, Sequence) else ())
            if isinstance(one, Mapping) and isinstance(row := one.get("table_row"), Mapping)
        ]
        has_head = told.get("has_column_header") is True
        if told.get("has_row_header") is True:
            for row in rows[1:] if has_head else rows:
                if row and row[0] and not row[0].startswith("**"):
                    row[0] = f"**{row[0]}**"
        return table(rows, has_head)

    def _cells(self, told: Mapping[str, Any]) -> list[str]:
        cells = told.get("cells")
        return [
            cell_of(self._rich.markdown(one)) for one in (cells if isinstance(cells, list) else ())
        ]

    def _child(self, block: Mapping[str, Any], told: Mapping[str, Any]) -> str:
        """Returns a link; what is in it is a document of its own."""
        kind = "page" if block.get("type") == "child_page" else "database"
        identifier = page_id(_text(block.get("id")))
        title = escaped(_text(told.get("title"))) or "Untitled"
        if identifier is None:
            return title
        self._found.children[f"notion:{kind}/{identifier}"] = None
        return linked(title, opened(identifier))

    def _link_to_page(self, block: Mapping[str, Any], told: Mapping[str, Any]) -> str:
        kind = _text(told.get("type"))
        identifier = page_id(_text(told.get(kind)))
        if identifier is None:
            return self._unknown(block, "link_to_page", told)
        document = kind.removesuffix("_id")
        self._found.references[f"notion:{document}/{identifier}"] = None
        title = self._names.page(identifier) if document == "page" else None
        return linked(escaped(title or f"Linked {document}"), opened(identifier))

    def _address(self, block: Mapping[str, Any], told: Mapping[str, Any]) -> str:
        url = _text(told.get("url"))
        identifier = page_in(url)
        if identifier is not None:
            self._found.references[f"notion:page/{identifier}"] = None
        caption = self._line(told.get("caption"))
        return linked(caption or escaped(url), url)

    def _file(self, block: Mapping[str, Any], kind: str, told: Mapping[str, Any]) -> str:
        """Returns a link to an external file, and to the block of one that is Notion's own."""
        self._found.files.append(block)
        external = told.get("external")
        url = _text(external.get("url")) if isinstance(external, Mapping) else ""
        caption = self._line(told.get("caption"))
        name = caption or escaped(file_name(block))
        target = url or opened(page_id(_text(block.get("id"))) or "")
        return ("!" if kind == "image" else "") + linked(name, target)

    def _meeting(self, block: Mapping[str, Any], told: Mapping[str, Any]) -> str:
        event = told.get("calendar_event")
        times = ""
        if isinstance(event, Mapping):
            times = " to ".join(
                filter(None, (_text(event.get("start_time")), _text(event.get("end_time"))))
            )
        title = self._line(told.get("title"))
        head = joined((f"**{title}**" if title else "", f"({times})" if times else ""))
        return apart(head, self._inner(block, told))

    def _unsupported(self, block: Mapping[str, Any], told: Mapping[str, Any]) -> str:
        kind = _text(told.get("block_type")) or "unsupported"
        self._found.unknown[f"block {kind}"] += 1
        return apart(f"\\[{escaped(kind)}\\]", self._inner(block, told))

    def _unknown(self, block: Mapping[str, Any], kind: str, told: Mapping[str, Any]) -> str:
        """Returns what text there is in a block of a type that came after this was written."""
        self._found.unknown[f"block {kind or 'without a type'}"] += 1
        texts = [
            self._rich.markdown(told.get(name), at_start=True)
            for name in ("rich_text", "title", "caption", "text")
        ]
        plain = [escaped(_text(told.get(name))) for name in ("url", "title")]
        shown = "\n".join(filter(None, [*texts, *plain])) or f"\\[{escaped(kind or 'block')}\\]"
        return apart(shown, self._inner(block, told))


def file_name(block: Mapping[str, Any]) -> str:
    """Returns the name of the file in a block: as it states, else from its address."""
    kind = _text(block.get("type"))
    told = block.get(kind)
    told = told if isinstance(told, Mapping) else {}
    if _text(told.get("name")):
        return _text(told.get("name"))
    inner = told.get(_text(told.get("type")))
    url = _text(inner.get("url")) if isinstance(inner, Mapping) else ""
    return name_in(url) or kind


def name_in(address: str) -> str:
    """Returns the name of the file at an address; "" where it has none."""
    return unquote(address.partition("?")[0].rstrip("/").rpartition("/")[2])


def _list(kind: str) -> str:
    """Returns which items make one list in Markdown: those with the same sign."""
    return "1" if kind == "numbered_list_item" else "-"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
