"""Parts of a note: its sections by heading, and what an embed shows of another note."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from contextframe_beam.connectors.obsidian.note import (
    Link,
    parse_note,
    tokens,
    with_markdown_links,
)

_HEADING = re.compile(r"^(#{1,6})[ \t]+(\S[^\n]*?)[ \t]*#*[ \t]*$", re.MULTILINE)
_BLOCK_ID = re.compile(r"(?:^|[ \t])\^([\w-]+)[ \t]*$", re.MULTILINE)
_BEFORE = re.compile(r"[ \t>]*\Z")
# Obsidian shows embeds in embeds, and stops somewhere.
_DEEPEST = 5


@dataclass(frozen=True)
class Section:
    """What stands below one heading of a note, up to the next one.

    Attributes:
        path: The headings that it stands under, the highest first; empty before the first one.
        start: Where it begins in the text of the note, in characters: at its heading.
        end: Where it ends, exclusive.
    """

    path: tuple[str, ...]
    start: int
    end: int


def sections_of(text: str) -> list[Section]:
    """Returns the sections of a note in order; signs in code and comments are no headings."""
    heads = list(_headings(text))
    starts = [0, *(start for start, _, _ in heads)]
    ends = [*starts[1:], len(text)]
    above: list[tuple[int, str]] = []
    paths: list[tuple[str, ...]] = [()]
    for _, level, title in heads:
        above = [one for one in above if one[0] < level] + [(level, title)]
        paths.append(tuple(name for _, name in above))
    return [Section(path, start, end) for path, start, end in zip(paths, starts, ends, strict=True)]


def part_of(text: str, part: str) -> str | None:
    """Returns what a link to a part of a note means; None where the note has no such part.

    Args:
        text: The text of the note.
        part: "" for all of it, `Heading` or `Heading#Below` with all below it, or `^block`.
    """
    if not part:
        return text
    if part.startswith("^"):
        return _block(text, part[1:])
    wanted = tuple(one.strip().casefold() for one in part.split("#") if one.strip())
    found = sections_of(text)
    for number, section in enumerate(found):
        path = tuple(one.casefold() for one in section.path)
        if path[-len(wanted) :] != wanted:
            continue
        below = found[number + 1 :]
        end = next((one.start for one in below if len(one.path) <= len(path)), len(text))
        return text[section.start : end]
    return None


class Embeds:
    """Puts the texts of embedded notes in the place of their embeds.

    Args:
        read: Returns the text of a note by its path; None where it is not to be read.
        resolve: Returns the path that a link in a note leads to.
        address: Returns the address of a link, by the link and its target.
    """

    def __init__(
        self,
        read: Callable[[str], str | None],
        resolve: Callable[[str, str], str | None],
        address: Callable[[Link, str | None], str],
    ) -> None:
        self._read = read
        self._resolve = resolve
        self._address = address

    def body(self, text: str, links: Sequence[Link], path: str) -> str:
        """Returns the text of a note in Markdown, with what its embeds show.

        Args:
            text: The text.
            links: The links in it, in order.
            path: The path of the note.
        """
        return self._written(text, links, path, ((path, ""),))

    def _written(
        self, text: str, links: Sequence[Link], path: str, above: tuple[tuple[str, str], ...]
    ) -> str:
        pieces, position = [], 0
        for link in links:
            if link.start < 0 or not link.is_embed:
                continue
            shown = self._shown(link, path, above)
            if shown is None:
                continue
            pieces.append(self._plain(text, links, path, position, link.start))
            line = text[text.rfind("\n", 0, link.start) + 1 : link.start]
            before = line if _BEFORE.match(line) else ""
            pieces.append(shown.strip("\n").replace("\n", f"\n{before}"))
            position = link.end
        pieces.append(self._plain(text, links, path, position, len(text)))
        return "".join(pieces)

    def _plain(self, text: str, links: Sequence[Link], path: str, start: int, end: int) -> str:
        inside = within(links, start, end)
        return with_markdown_links(
            text[start:end],
            inside,
            lambda one: self._address(one, self._resolve(one.target, path)),
        )

    def _shown(self, link: Link, path: str, above: tuple[tuple[str, str], ...]) -> str | None:
        """Returns what an embed shows; None where it stays a link."""
        target = self._resolve(link.target, path) if link.target else path
        if target is None or not target.lower().endswith(".md"):
            return None
        here = (target, link.part)
        if here in above or len(above) > _DEEPEST:
            return None
        text = self._read(target)
        part = None if text is None else part_of(parse_note(text, False).body, link.part)
        if part is None:
            return None
        links = [value for kind, value in tokens(part) if kind == "link"]
        return self._written(part, links, target, (*above, here))


def within(links: Sequence[Link], start: int, end: int) -> list[Link]:
    """Returns the links in a stretch of a text, as they stand in the stretch alone."""
    return [
        replace(one, start=one.start - start, end=one.end - start)
        for one in links
        if start <= one.start < end
    ]


def _headings(text: str) -> Iterator[tuple[int, int, str]]:
    """Yields start, level and title of each heading."""
    hidden = [value for kind, value in tokens(text) if kind not in ("link", "tag")]
    number = 0
    for found in _HEADING.finditer(text):
        while number < len(hidden) and hidden[number][1] <= found.start():
            number += 1
        if number < len(hidden) and hidden[number][0] <= found.start():
            continue
        yield found.start(), len(found[1]), found[2]


def _block(text: str, name: str) -> str | None:
    """Returns the paragraph or the item of a list that has an id."""
    for found in _BLOCK_ID.finditer(text):
        if found[1].casefold() != name.casefold():
            continue
        line = text.rfind("\n", 0, found.start()) + 1
        if text[line : found.start()].strip():
            start = text.rfind("\n\n", 0, line)
            is_item = re.match(r"[ \t]*(?:[-*+]|\d+[.)])[ \t]", text[line:])
            begin = line if is_item else start + 2 if start >= 0 else 0
        else:  # the id stands below its block, as below a table
            above = text[:line].rstrip()
            begin = above.rfind("\n\n") + 2 if "\n\n" in above else 0
        return text[begin : found.start()].rstrip()
    return None
