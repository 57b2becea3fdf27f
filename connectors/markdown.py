"""Pieces of Markdown that texts of services are put together from.

Services have markup of their own, and each of their connectors reads it. What it becomes is the
same for all: plain text in which nothing reads as a mark, and marks, links, quotes, code and
tables around it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from urllib.parse import quote

#: How a piece of text may look.
STYLES = ("bold", "italic", "strikethrough", "underline", "code")

# The innermost first.
_MARKS = (
    ("strikethrough", "~~", "~~"),
    ("italic", "*", "*"),
    ("bold", "**", "**"),
    ("underline", "<u>", "</u>"),
)
# Only what would read as a mark; a name such as `max_depth` stays as it is.
_SPECIAL = re.compile(
    r"[*`]|~~|\\(?=[!-/:-@\[-`{-~])|(?<!\w)_(?=\S)|(?<=\S)_(?!\w)|\[(?=[^\]]*\]\()|<(?=[A-Za-z/!?])"
)
_AT_START = re.compile(
    r"(?m)^([ \t]*)(#{1,6}(?=\s|$)|>|[-+](?=\s|$)|\d{1,9}(?=[.)](?:\s|$))|\|"
    r"|={2,}\s*$|-{3,}\s*$|~{3,})"
)

# Fenced blocks, spans of code, and comments.
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})[^\n]*\n.*?(?:^ {0,3}\1[`~]*[ \t]*$|\Z)", re.M | re.S)
_HIDDEN = re.compile(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)|<!--.*?(?:-->|\Z)", re.S)


def without_code(text: str) -> str:
    """Returns Markdown without its code and its comments, in which nothing refers to anything."""
    return _HIDDEN.sub(" ", _FENCE.sub("\n", text.replace("\r\n", "\n")))


def escaped(text: str) -> str:
    """Returns plain text so that nothing in it reads as a mark of Markdown."""
    return _SPECIAL.sub(lambda match: "".join(f"\\{sign}" for sign in match[0]), text)


def escaped_at_start(text: str) -> str:
    """Returns text whose lines begin no list, heading or quote, whatever sign they begin with."""
    return _AT_START.sub(_escaped_start, text)


def styled(text: str, styles: Collection[str], link: str | None = None) -> str:
    """Returns a piece of text with its marks; spaces stand outside of them, or they do not count.

    Args:
        text: Markdown; of code the plain text.
        styles: Some of `STYLES`.
        link: Where it leads.
    """
    if not text.strip() or not (styles or link):
        return text
    if "\n" in text:  # marks reach no further than a paragraph
        return "\n".join(styled(line, styles, link) for line in text.split("\n"))
    head = text[: len(text) - len(text.lstrip())]
    tail = text[len(text.rstrip()) :]
    text = text.strip()
    if "code" in styles:
        runs = [len(run) for run in re.findall(r"`+", text)]
        fence = "`" * (max(runs, default=0) + 1 if runs else 1)
        space = " " if text.startswith("`") or text.endswith("`") else ""
        text = f"{fence}{space}{text}{space}{fence}"
    for style, before, after in _MARKS:
        if style in styles:
            text = f"{before}{text}{after}"
    if link:
        text = linked(text, link)
    return f"{head}{text}{tail}"


def linked(text: str, address: str) -> str:
    """Returns a link, or the text alone where there is no address."""
    return f"[{text}]({_target(address)})" if address else text


def fenced(text: str, language: str = "") -> str:
    """Returns a block of code."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip(chr(10))}\n{fence}"


def quoted(text: str) -> str:
    """Returns a quotation; "" of nothing."""
    return "\n".join(f"> {line}" if line else ">" for line in text.split("\n")) if text else ""


def indented(text: str, width: int) -> str:
    """Returns text whose lines after the first stand so far to the right, as in a list."""
    first, *rest = text.split("\n")
    return "\n".join([first, *(f"{' ' * width}{line}" if line else "" for line in rest)])


def table(rows: Sequence[Sequence[str]], has_head: bool = True) -> str:
    """Returns a table; "" of nothing.

    Args:
        rows: Cells in Markdown.
        has_head: Whether the first row is its head, which is empty otherwise.
    """
    width = max(map(len, rows), default=0)
    if not width:
        return ""
    whole = [[cell_of(one) for one in row] + [""] * (width - len(row)) for row in rows]
    if not has_head:
        whole.insert(0, [""] * width)
    lines = [f"| {' | '.join(row)} |" for row in whole]
    return "\n".join([lines[0], f"|{' --- |' * width}", *lines[1:]])


def cell_of(text: str) -> str:
    """Returns text that stands in one cell of a table."""
    return re.sub(r"(?<!\\)\|", r"\\|", text.strip()).replace("\n", "<br>")


def joined(parts: Iterable[str]) -> str:
    """Returns the texts that are not empty, with a space between them."""
    return " ".join(part for part in parts if part)


def apart(*texts: str) -> str:
    """Returns the texts that are not empty as paragraphs."""
    return "\n\n".join(filter(None, texts))


def _target(address: str) -> str:
    address = quote(address, safe="!#$%&'*+,/:;=?@[]~()").strip()
    unbalanced = address.count("(") != address.count(")")
    return address.replace("(", "%28").replace(")", "%29") if unbalanced else address


def _escaped_start(match: re.Match[str]) -> str:
    sign = match[2]
    if sign.isdigit():  # `1.` at the start of a line: the dot follows
        return f"{match[1]}{sign}\\"
    return f"{match[1]}\\{sign}"
