"""The blocks of a Markdown text: where headings, paragraphs, fences, tables and items stand.

The text is read once, line by line. Blocks never overlap, are in order, and cover every character
that is not white space; each begins and ends with a line. Lists and quotes are no blocks of their
own: the borders between blocks say how deep they lie, which is enough to keep a list together.

Source: CommonMark 0.31.2, with the tables of GitHub Flavored Markdown. Two things differ: a fence
that stands in an HTML block counts as a fence, as the author of a README meant it, and a link
definition is a paragraph.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from contextframe_beam.frames.document import Heading
from contextframe_beam.transforms.chunkers.titles import plain_title

# How strongly a border separates what stands on its two sides. A list is kept together before a
# section is, and an item before its list.
SECTION = 100  # less the level of the heading
AFTER_RULE = 61
_OUTSIDE = 60  # between blocks; two less for each list or quote around them
_DEEPEST = 15
_LOWEST_LEVEL = 20

_QUOTED = 0  # among the containers of a block; an item is there as the width of its indent

_QUOTE = re.compile(r" {0,3}> ?")
_ITEM = re.compile(r"( {0,3})([-+*]|(\d{1,9})[.)])(?:( +)(?=[^ ])|$)", re.A)
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]|$)")
_FENCE = re.compile(r"( {0,3})(?:(`{3,})[^`]*|(~{3,}).*)$")
_RULE_LINE = re.compile(r" {0,3}(?:(?:- *){3,}|(?:_ *){3,}|(?:\* *){3,})$")
_UNDERLINE = re.compile(r" {0,3}(=+|-+) *$")
# In reStructuredText and AsciiDoc; a fence that stands right below a line is rare, and shorter.
_TILDES = re.compile(r" {0,3}(~{4,}) *$")
_DELIMITERS = re.compile(r" {0,3}\|? *:?-+:? *(?:\| *:?-+:? *)*\|? *$")
_PIPE = re.compile(r"(?<!\\)\|")
_FRONT = re.compile(r"(---|\+\+\+)[ \t]*\n(?=[^\s])(?:.*\n)*?(?:\1|\.\.\.)[ \t]*(?:\n|\Z)")

# What an HTML block begins with, and what ends it.
_VERBATIM = re.compile(r" {0,3}<(script|pre|style|textarea)(?:[\s>]|$)", re.I | re.A)
_MARKED = (
    (re.compile(r" {0,3}<!--"), "-->"),
    (re.compile(r" {0,3}<\?"), "?>"),
    (re.compile(r" {0,3}<![A-Za-z]"), ">"),
    (re.compile(r" {0,3}<!\[CDATA\["), "]]>"),
)
_NAMED = re.compile(
    r" {0,3}</?(?:address|article|aside|base|basefont|blockquote|body|caption|center|col|colgroup"
    r"|dd|details|dialog|dir|div|dl|dt|fieldset|figcaption|figure|footer|form|frame|frameset"
    r"|h[1-6]|head|header|hr|html|iframe|legend|li|link|main|menu|menuitem|nav|noframes|ol"
    r"|optgroup|option|p|param|search|section|summary|table|tbody|td|tfoot|th|thead|title|tr"
    r"|track|ul)(?:\s|/?>|$)",
    re.I | re.A,
)
_TAG = re.compile(
    r" {0,3}(?:<[A-Za-z][A-Za-z0-9-]*"
    r"""(?:\s+[A-Za-z_:][\w:.-]*(?:\s*=\s*(?:[^\s"'=<>`]+|'[^']*'|"[^"]*"))?)*\s*/?>"""
    r"|</[A-Za-z][A-Za-z0-9-]*\s*>)\s*$",
    re.A,
)
_AT_AN_EMPTY_LINE = ""

# A line of a paragraph that begins with any other character only goes on with it.
_MAY_BEGIN_A_BLOCK = frozenset("#>`~-=*+_<|:\t 0123456789")


@dataclass(slots=True)
class Block:
    """A block of a text.

    Attributes:
        kind: heading, paragraph, fence, code (by its indent), table, html, rule or front (matter).
        start: Where its first line begins, in characters.
        end: Where the text of its last line ends, exclusive.
        border: How strongly it is separated from the block before it.
        headings: Level and title of the heading that it is, or of those that the document says
            stand here.
        opening: What a later part of it begins with: the line that opens the fence, the head of
            the table. "" for nothing.
        closing: What a part of it ends with, but for the last: the line that closes the fence.
        is_left_open: Whether it is a fence that its text never closes.
    """

    kind: str
    start: int
    end: int
    border: int
    headings: tuple[tuple[int, str], ...] = ()
    opening: str = ""
    closing: str = ""
    is_left_open: bool = False


def blocks_of(text: str, headings: Sequence[Heading] = ()) -> list[Block]:
    """Returns the blocks of a text, in order.

    Args:
        text: The text, as Markdown.
        headings: The headings of the document, where they are known. The marks of headings in the
            text then say nothing.
    """
    scanner = _Scanner(headings)
    position = 0
    front = _FRONT.match(text)
    if front and not headings:
        scanner.blocks.append(Block("front", 0, len(front[0].rstrip()), _OUTSIDE))
        position = front.end()
    for line in text[position:].split("\n"):
        scanner.read(line, position)
        position += len(line) + 1
    scanner.close()
    return scanner.blocks


class _Scanner:
    """Reads lines into blocks; what it knows of the open block is in the attributes."""

    def __init__(self, headings: Sequence[Heading]) -> None:
        self.blocks: list[Block] = []
        self._outline = sorted(headings, key=lambda one: one.offset)[::-1]
        self._reads_headings = not headings
        self._pending: list[tuple[int, str]] = []
        self._block: Block | None = None
        self._kind = ""  # of the open block
        self._containers: list[int] = []
        self._lines: list[str] = []  # of an open paragraph, without the marks of lists and quotes
        self._last_start = 0  # where the last of them begins
        self._fence = ""
        self._html_end = _AT_AN_EMPTY_LINE

    def read(self, line: str, start: int) -> None:
        """Takes the next line, without its end."""
        end = start + len(line)
        if self._outline and self._outline[-1].offset <= end:
            self._take_outline(end)
        if not line or line.isspace():
            self._read_empty()
        elif (
            self._kind == "paragraph" and not self._containers and line[0] not in _MAY_BEGIN_A_BLOCK
        ) or (self._kind == "fence" and not self._containers and self._fence not in line):
            self._go_on(line, start, end)
        else:
            shown = line.expandtabs(4).rstrip()
            self._read_text(shown, start, end - len(line) + len(line.rstrip()))

    def close(self, is_left_open: bool = True) -> None:
        """Ends the open block, if there is one; a fence may have been closed by its mark."""
        if self._block is not None:
            self._block.is_left_open = is_left_open and self._kind == "fence"
            self.blocks.append(self._block)
        self._block = None
        self._kind = ""

    def _take_outline(self, line_end: int) -> None:
        """Lets sections begin with this line that the document says begin in it."""
        while self._outline and self._outline[-1].offset <= line_end:
            heading = self._outline.pop()
            self._pending.append((max(1, min(heading.level, _LOWEST_LEVEL)), heading.title))
        self.close()

    def _go_on(self, shown: str, start: int, end: int) -> None:
        """Makes a line a part of the open block."""
        assert self._block is not None
        self._block.end = end
        if self._kind == "paragraph":
            self._lines.append(shown)
            self._last_start = start

    def _read_empty(self) -> None:
        if self._kind == "fence":
            # A quote ends at an empty line, and with it what stands in it.
            if _QUOTED in self._containers:
                self.close()
        elif self._kind != "code" and not (self._kind == "html" and self._html_end):
            self.close()

    def _read_text(self, shown: str, start: int, end: int) -> None:
        rest, matched = self._inside(shown)
        goes_on = matched == len(self._containers)
        if not rest and not (goes_on and self._kind in ("fence", "html")):
            self._read_empty_quote(rest, start, end, matched)
        elif self._kind == "fence":
            if goes_on:
                self._go_on(rest, start, end)
                if self._closes_fence(rest):
                    self.close(is_left_open=False)
                return
            self._read_block(rest, start, end, matched)
        elif self._kind == "html":
            if goes_on and (self._html_end or not _FENCE.match(rest)):
                self._go_on(rest, start, end)
                if self._html_end and self._html_end in rest.lower():
                    self._html_end = _AT_AN_EMPTY_LINE
                    self.close()
                return
            self._read_block(rest, start, end, matched)
        elif not (self._kind == "paragraph" and goes_on and self._transforms(rest, start, end)):
            self._read_block(rest, start, end, matched)

    def _read_empty_quote(self, rest: str, start: int, end: int, matched: int) -> None:
        """Reads a line of a quote that is empty but for its marks."""
        if self._block is None or self._kind == "fence":
            self.close()
            self._begin("paragraph", rest, start, end, _border(matched))
        else:
            self._go_on(rest, start, end)
            self.close()
        del self._containers[matched:]

    def _inside(self, shown: str) -> tuple[str, int]:
        """Returns what a line says in the open lists and quotes, and in how many of them it is."""
        rest = shown
        for number, width in enumerate(self._containers):
            if width == _QUOTED:
                quote = _QUOTE.match(rest)
                if quote is None:
                    return rest, number
                rest = rest[quote.end() :]
            elif not rest or (len(rest) > width and rest[:width].isspace()):
                rest = rest[width:]
            else:
                return rest, number
        return rest, len(self._containers)

    def _closes_fence(self, rest: str) -> bool:
        mark = rest.strip()
        return (
            len(mark) >= len(self._fence)
            and mark == self._fence[0] * len(mark)
            and not rest.startswith("    ")
        )

    def _transforms(self, rest: str, start: int, end: int) -> bool:
        """Makes the open paragraph a heading or a table if a line says so; returns whether."""
        block = self._block
        assert block is not None
        head = self._lines[-1]
        if "|" in head + rest and _DELIMITERS.match(rest) and _cells(head) == _cells(rest):
            self._begin_table(block, head, rest, end)
            return True
        level = self._level_of(rest)
        if not level or not self._reads_headings:
            return False
        block.kind = "heading"
        block.headings = ((level, plain_title(" ".join(self._lines))),)
        block.border = SECTION - level
        block.end = end
        self.close()
        return True

    def _level_of(self, line: str) -> int:
        """Returns the level of the heading that the open paragraph is above a line; 0 for none."""
        underline = _UNDERLINE.match(line)
        if underline is not None:
            return 1 if underline[1][0] == "=" else 2
        tildes = _TILDES.match(line)
        if tildes is None or len(self._lines) > 1:
            return 0
        title = self._lines[0].strip()
        return 3 if len(tildes[1]) >= len(title) - 2 and not title.endswith(":") else 0

    def _begin_table(self, block: Block, head: str, delimiters: str, end: int) -> None:
        """Makes the last line of the open paragraph the head of a table."""
        table = block
        if len(self._lines) > 1:
            table = Block("table", self._last_start, end, _border(len(self._containers)))
            block.end = self._last_start - 1
            self.close()
            self._block = table
        table.kind = self._kind = "table"
        table.end = end
        prefix = _prefix(self._containers)
        table.opening = f"{prefix}{head}\n{prefix}{delimiters}\n"

    def _read_block(self, rest: str, start: int, end: int, matched: int) -> None:
        """Reads a line that may begin a block."""
        in_paragraph = self._kind == "paragraph"
        goes_on = matched == len(self._containers)
        rest, opened = _open_containers(rest, interrupts=in_paragraph and goes_on)
        kind = self._kind_of(rest, in_paragraph and not opened)
        if not opened:
            if in_paragraph and not kind:
                # Perhaps a lazy line, without the marks of the list or quote that it belongs to.
                self._go_on(rest, start, end)
                return
            if goes_on and (self._kind, kind) in (("table", ""), ("code", "code")):
                self._go_on(rest, start, end)
                return
        self.close()
        siblings = matched < len(self._containers) and self._containers[matched] != _QUOTED
        is_next_item = bool(opened) and opened[0] != _QUOTED and siblings
        border = _border(matched + is_next_item) + is_next_item
        self._containers[matched:] = opened
        self._begin(kind or "paragraph", rest, start, end, border)

    def _kind_of(self, rest: str, in_paragraph: bool) -> str:
        """Returns the kind of the block that begins with a line; "" when none has to."""
        if rest.startswith("    "):
            return "" if in_paragraph else "code"
        first = rest.lstrip(" ")[:1]
        if first == "#":
            return "heading" if self._reads_headings and _HEADING.match(rest) else ""
        if first in ("`", "~"):
            return "fence" if _FENCE.match(rest) else ""
        if first in ("-", "_", "*"):
            return "rule" if _RULE_LINE.match(rest) else ""
        return "html" if first == "<" and _begins_html(rest, in_paragraph) else ""

    def _begin(self, kind: str, rest: str, start: int, end: int, border: int) -> None:
        block = Block(kind, start, end, border)
        self._block, self._kind = block, kind
        if kind == "paragraph":
            self._lines, self._last_start = [rest], start
        elif kind == "fence":
            found = _FENCE.match(rest)
            assert found is not None
            self._fence = found[2] or found[3]
            prefix = _prefix(self._containers)
            block.opening = f"{prefix}{rest}\n"
            block.closing = f"\n{prefix}{found[1]}{self._fence}"
        elif kind == "html":
            self._html_end = _html_end(rest)
        elif kind == "heading":
            marks = rest.strip()
            level = len(marks) - len(marks.lstrip("#"))
            title = plain_title(re.sub(r"(?:^| )#+$", "", marks[level:].strip()))
            block.headings = ((level, title),)
            block.border = SECTION - level
        if self._pending:
            block.headings = tuple(self._pending)
            block.border = SECTION - min(level for level, _ in self._pending)
            self._pending = []
        is_whole = (
            kind in ("heading", "rule") or not rest or (kind == "html" and _is_closed_html(rest))
        )
        if is_whole:
            self._html_end = _AT_AN_EMPTY_LINE
            self.close()


def _open_containers(rest: str, interrupts: bool) -> tuple[str, list[int]]:
    """Returns what a line says in the items and quotes that it opens, and those.

    Args:
        rest: The line, in the open containers.
        interrupts: Whether a paragraph is open, which an empty item and a list that does not begin
            with 1 leave as it is.
    """
    opened: list[int] = []
    while rest[:1] in _MAY_BEGIN_A_BLOCK:
        quote = _QUOTE.match(rest)
        if quote:
            opened.append(_QUOTED)
            rest = rest[quote.end() :]
            continue
        item = _ITEM.match(rest)
        if item is None or _RULE_LINE.match(rest):
            break
        if interrupts and not opened and (not item[4] or item[3] not in (None, "1")):
            break
        # Five spaces after the mark are one, and code that is indented by four.
        gap = len(item[4]) if item[4] and len(item[4]) < 5 else 1
        width = len(item[1]) + len(item[2]) + gap
        opened.append(width)
        rest = rest[width:]
    return rest, opened


def _begins_html(rest: str, in_paragraph: bool) -> bool:
    return bool(_html_end(rest) or _NAMED.match(rest) or (not in_paragraph and _TAG.match(rest)))


def _html_end(rest: str) -> str:
    """Returns what ends the HTML block that a line begins, in small letters."""
    verbatim = _VERBATIM.match(rest)
    if verbatim:
        return f"</{verbatim[1].lower()}>"
    for begins, end in _MARKED:
        if begins.match(rest):
            return end
    return _AT_AN_EMPTY_LINE


def _is_closed_html(rest: str) -> bool:
    end = _html_end(rest)
    return bool(end) and end in rest.lower()


def _border(depth: int) -> int:
    """Returns how strong the border between blocks is in so many lists and quotes."""
    return _OUTSIDE - 2 * min(depth, _DEEPEST)


def _prefix(containers: Sequence[int]) -> str:
    """Returns what a line begins with that goes on in lists and quotes."""
    return "".join("> " if width == _QUOTED else " " * width for width in containers)


def _cells(row: str) -> int:
    """Returns how many cells a row has; 0 for a single mark, which makes none."""
    inner = row.strip()
    if inner == "|":
        return 0
    ends = inner.startswith("|") + (inner.endswith("|") and not inner.endswith("\\|"))
    return len(_PIPE.findall(inner)) + 1 - ends
