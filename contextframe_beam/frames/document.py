"""A parsed document and its chunks: what parsers give, chunkers take, and embedders see."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Heading(NamedTuple):
    """A heading of a document.

    Attributes:
        offset: Where its section begins in the text, in characters.
        level: 1 for the highest.
        title: Its text, without marks.
    """

    offset: int
    level: int
    title: str


@dataclass(frozen=True)
class Document:
    """What a parser makes of the bytes of a file.

    Attributes:
        text: The text as Markdown: headings, lists, tables, code and links survive. Lines end in
            a line feed; tabs are the only other control characters.
        title: The title that the file states (metadata of a PDF, `<title>`, a front matter).
        headings: The headings, by offset, where the parser knows them better than the text shows
            them (the outline of a PDF). Empty: the headings are those of the Markdown.
        pages: Where each page begins in the text, in characters; empty without pages.
        metadata: What else the file states, as JSON values: `author`, `tags`, `created_at`,
            `modified_at`, `attachments` and the like.
    """

    text: str
    title: str | None = None
    headings: tuple[Heading, ...] = ()
    pages: tuple[int, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Chunk:
    """A piece of a document that is found and embedded by itself.

    Attributes:
        text: What is stored and embedded. It may say more than the document between `start` and
            `end`: the head of a table that is repeated, a fence that is opened again.
        start: Where it begins in the text of the document, in characters.
        end: Where it ends, exclusive.
        headings: The titles of the headings that it stands under, the highest first.
        page: The page on which it begins, from 1; None without pages.
        tokens: The length of `text` as the chunker counted it; None when it counted nothing.
    """

    text: str
    start: int
    end: int
    headings: tuple[str, ...] = ()
    page: int | None = None
    tokens: int | None = None
