"""A note of Obsidian: its properties, tags, links and fields, and its text as plain Markdown.

One pass over the text finds what a reader sees. Code, math and comments are passed over, so that
nothing in them is a tag or a link. The time is in proportion to the length, whatever is in it.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

import yaml

#: Properties are at most so long, in characters, and what is longer is text.
LONGEST_PROPERTIES = 1 << 20

_PROPERTIES = re.compile(
    r"\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE
)
# Beyond so many brackets the loader in C is not trusted, which crashes where values nest deep.
_FEW_BRACKETS = 200
_MOST_VALUES = 20_000
_DEEPEST = 60

# How far the end of inline code and of math is looked for. Without an end, what opens it is text.
_NEAR = 8192
_LONGEST_MATH = 2000
_TOKENS = re.compile(
    r"""
      (?P<fence>^[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?(?P<marks>`{3,}|~{3,})[^\n]*(?:\n|\Z))
    | (?P<indented>(?:(?<=\n\n)|\A)(?:[ ]{4}|\t)[^\n]*(?:\n(?:[ ]{4}|\t)[^\n]*)*)
    | (?P<escape>\\[^\w\s])
    | (?P<code>`+)
    | (?P<comment>%%)
    | (?P<html><!--)
    | (?P<block>\$\$)
    | (?P<math>\$(?=[^\s$]))
    | (?P<wiki>!?\[\[(?P<inside>[^\[\]\n]{1,1000})\]\])
    | (?P<link>!?\[(?P<shown>[^\[\]\n]{0,1000})\]\(
        [ ]?(?:<(?P<angled>[^<>\n]{0,1000})>|(?P<plain>
            [^\s()<>]{0,1000}(?:\([^\s()<>]{0,200}\)[^\s()<>]{0,200})?))
        (?:[ \t]+(?:"[^"\n]{0,500}"|'[^'\n]{0,500}'))?[ ]?\))
    | (?P<address>\b[A-Za-z][A-Za-z0-9+.-]{1,30}://[^\s<>]+)
    | (?P<tag>(?<![^\s(\[*_~,"'>])\#(?P<name>
        [^\u2000-\u206f\u2e00-\u2e7f'!"\#$%&()*+,.:;<=>?@^`{|}~\[\]\\\s]+))
    """,
    re.VERBOSE | re.MULTILINE,
)
_LIST_ITEM = re.compile(r"[ \t>]*(?:[-*+]|\d{1,9}[.)])[ \t]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_WIKI_IN_VALUE = re.compile(r"\[\[([^\[\]\n]{1,1000})\]\]")
_PICTURE = re.compile(r"\.(?:avif|bmp|gif|jpe?g|png|svg|webp)\Z", re.IGNORECASE)
_FIELD_LINE = re.compile(
    r"^[ \t>]*(?:[-*+][ \t]+(?:\[.\][ \t]+)?)?(?P<key>[^\s:\[\]()#`|][^:\n\[\]()`|]{0,60})::"
    r"[ \t]+(?P<value>[^\n]+)$",
    re.MULTILINE,
)
_FIELD_INSIDE = re.compile(
    r"[\[(](?P<key>[^\s:\[\]()#`|][^:\n\[\]()`|]{0,60})::[ \t]+(?P<value>[^\[\]()\n]{1,1000})[\])]"
)


@dataclass(frozen=True)
class Link:
    """A link or an embed in a note.

    Attributes:
        target: What it names: a path or a name, without its heading; "" for the note itself.
        part: The heading, or the block with its `^`; "" for all of the target.
        shown: The text that a reader sees.
        is_embed: Whether the target is shown in the note.
        start: Where it begins in the text, in characters; -1 in a property.
        end: Where it ends, exclusive.
        is_wiki: Whether it is written between double brackets.
    """

    target: str
    part: str
    shown: str
    is_embed: bool = False
    start: int = -1
    end: int = -1
    is_wiki: bool = True


@dataclass
class Note:
    """What is in a note.

    Attributes:
        body: The text without properties, as it is written; lines end in a line feed.
        properties: The properties as JSON values; dates and `yes` are text.
        error: Why the properties cannot be read; "" where they can, or there are none.
        links: The links, those of the text in order, then those in properties.
        tags: The tags without `#`, those of the properties first; each once, without case.
        fields: Inline fields, as in `key:: value`.
    """

    body: str
    properties: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    links: list[Link] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def aliases(self) -> list[str]:
        """Its other names."""
        found = [*listed(self.properties.get("aliases")), *listed(self.properties.get("alias"))]
        return list(dict.fromkeys(found))


def parse_note(text: str, with_fields: bool = True) -> Note:
    """Returns what is in a note; it never fails.

    Args:
        text: The note.
        with_fields: Whether inline fields are looked for.
    """
    properties, error, body = split_properties(text)
    note = Note(body.replace("\r\n", "\n"), properties, error)
    inline: list[str] = []
    hidden: list[tuple[int, int]] = []
    for kind, value in tokens(note.body):
        if kind == "link":
            note.links.append(value)
        elif kind == "tag":
            inline.append(value[0])
        else:
            hidden.append(value)
    note.links += links_in_values(properties.values())
    stated = [*tags_of(properties.get("tags")), *tags_of(properties.get("tag"))]
    unique: dict[str, str] = {}
    for tag in (*stated, *inline):
        unique.setdefault(tag.casefold(), tag)
    note.tags = list(unique.values())
    if with_fields and "::" in note.body:
        note.fields = fields_of(note.body, hidden)
    return note


def split_properties(text: str) -> tuple[dict[str, Any], str, str]:
    """Returns the properties of a note, why they cannot be read, and the text without them."""
    if not text.startswith(("---", "\ufeff---")):
        return {}, "", text.removeprefix("\ufeff")
    found = _PROPERTIES.match(text[: LONGEST_PROPERTIES + 8])
    if found is None:
        return {}, "", text.removeprefix("\ufeff")
    body = text[found.end() :]
    try:
        values = load_yaml(found[1])
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        return {}, " ".join(str(error).split())[:300] or type(error).__name__, body
    if values is None:
        return {}, "", body
    if not isinstance(values, dict):
        return {}, "the properties are not names with values", body
    return values, "", body


def load_yaml(text: str) -> Any:
    """Returns YAML as JSON values, by the core schema of YAML 1.2.

    Of 1.1, `yes`, dates, octal and sexagesimal numbers stay text, as Obsidian has them.

    Raises:
        yaml.YAMLError: it is not YAML, or its values are too many or nest too deep.
        ValueError: a value cannot be read.
    """
    nested = text.count("[") + text.count("{") + text.count("- -")
    deep = max((len(line) - len(line.lstrip()) for line in text.splitlines()), default=0)
    quick = nested < _FEW_BRACKETS and deep < _FEW_BRACKETS
    if not quick and _opened(text) > 2 * _DEEPEST:
        raise yaml.YAMLError("the properties nest too deep")
    value = yaml.load(text, _FAST if quick else _SLOW)
    return _Values().plain(value)


def _opened(text: str) -> int:
    """Returns how many brackets are open at once."""
    most = count = 0
    for sign in re.findall(r"[\[\]{}]", text):
        count = count + 1 if sign in "[{" else max(count - 1, 0)
        most = max(most, count)
    return most


class _Values:
    """Makes JSON values; an anchor that is used again and again may stand for millions."""

    def __init__(self) -> None:
        self._count = 0

    def plain(self, value: Any, depth: int = 0) -> Any:
        self._count += 1
        if self._count > _MOST_VALUES or depth > _DEEPEST:
            raise yaml.YAMLError("the properties hold too many values, or nest too deep")
        if isinstance(value, dict):
            return {_key(one): self.plain(of, depth + 1) for one, of in value.items()}
        if isinstance(value, list | tuple | set):
            return [self.plain(one, depth + 1) for one in value]
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        if value is None or isinstance(value, str | bool | int | float):
            return value
        return str(value)


def _key(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


_RESOLVED = (
    ("tag:yaml.org,2002:bool", r"(?:true|True|TRUE|false|False|FALSE)\Z", "tTfF"),
    ("tag:yaml.org,2002:null", r"(?:~|null|Null|NULL|)\Z", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", r"[-+]?(?:0|[1-9][0-9]{0,17})\Z", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?\Z",
        "-+0123456789.",
    ),
    ("tag:yaml.org,2002:merge", r"<<\Z", "<"),
)


def _loader(base: Any) -> Any:
    loader: Any = type("ObsidianLoader", (base,), {"yaml_implicit_resolvers": {}})
    for tag, pattern, first in _RESOLVED:
        loader.add_implicit_resolver(tag, re.compile(pattern), list(first))
    return loader


_SLOW = _loader(yaml.SafeLoader)
_FAST = _loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def listed(value: Any) -> list[str]:
    """Returns the texts of a property that has one or several."""
    if value is None or isinstance(value, dict):
        return []
    found = value if isinstance(value, list) else [value]
    texts = (
        str(one).strip() for one in found if one is not None and not isinstance(one, dict | list)
    )
    return [one for one in texts if one]


def tags_of(value: Any) -> list[str]:
    """Returns the tags of a property: an item of a list is one tag, and plain text is split."""
    if isinstance(value, str):
        value = re.split(r"[,\s]+", value)
    cleaned = (one.lstrip("#").strip().rstrip("/") for one in listed(value))
    return [one for one in cleaned if one]


def links_in_values(values: Iterable[Any]) -> Iterator[Link]:
    """Yields the links that the texts of properties hold."""
    for value in values:
        if isinstance(value, str):
            for found in _WIKI_IN_VALUE.finditer(value):
                yield wiki_link(found[1])
        elif isinstance(value, list):
            yield from links_in_values(value)
        elif isinstance(value, Mapping):
            yield from links_in_values(value.values())


def wiki_link(inside: str, start: int = -1, end: int = -1, is_embed: bool = False) -> Link:
    """Returns the link with this between its double brackets."""
    # In a table the bar is written with a backslash before it.
    named, _, shown = inside.replace("\\|", "|").partition("|")
    target, _, part = named.strip().partition("#")
    shown = shown.strip()
    if not shown:
        shown = " > ".join(one for one in (target.strip(), *part.split("#")) if one) or inside
    return Link(target.strip(), part.strip(), shown, is_embed, start, end)


def tokens(text: str) -> Iterator[tuple[str, Any]]:
    """Yields what is in a text, in order.

    Yields:
        `("link", Link)`, `("tag", (name, start, end))` and, for what is no text to a reader (code,
        math and comments), `("hidden", (start, end))`.
    """
    position, ends = 0, _Ends(text)
    while (found := _TOKENS.search(text, position)) is not None:
        kind, start, position = found.lastgroup or "", found.start(), found.end()
        if found["fence"] is not None:
            position = ends.of_fence(found)
            yield "hidden", (start, position)
        elif found["indented"] is not None:
            if ends.is_in_list(start):
                position = start + (4 if text[start] == " " else 1)
            else:
                yield "hidden", (start, position)
        elif found["wiki"] is not None:
            link = wiki_link(found["inside"], start, position, text[start] == "!")
            if link.target or link.part:
                yield "link", link
        elif found["link"] is not None:
            written = _markdown_link(found)
            if written is not None:
                yield "link", written
        elif found["tag"] is not None:
            name = found["name"].rstrip("/")
            if name and not name.replace("/", "").isdigit():
                yield "tag", (name, start, start + 1 + len(name))
        elif kind in _CLOSED_BY:
            end = _CLOSED_BY[kind](ends, found)
            if end > position:
                yield "hidden", (start, end)
                position = end


def _markdown_link(found: re.Match[str]) -> Link | None:
    """Returns a link of Markdown; None where it leads out of the vault."""
    address = found["angled"] if found["angled"] is not None else found["plain"]
    if not address or _SCHEME.match(address) or address.startswith("//"):
        return None
    target, _, part = unquote(address).partition("#")
    is_embed = found[0].startswith("!")
    return Link(target, part, found["shown"], is_embed, found.start(), found.end(), False)


class _Ends:
    """Finds where what was opened is closed; what has no end is looked for once only."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._unclosed: set[str] = set()
        self._no_math_before = 0
        self._paragraph_end = -1

    def of_fence(self, found: re.Match[str]) -> int:
        marks = found["marks"]
        closing = re.compile(
            rf"^[ \t>]*{re.escape(marks[0])}{{{len(marks)},}}[ \t]*$", re.MULTILINE
        )
        end = closing.search(self._text, found.end())
        return len(self._text) if end is None else end.end()

    def of_code(self, found: re.Match[str]) -> int:
        marks = found["code"]
        stop = self._near(found.end())
        closing = re.compile(rf"(?<!`){marks}(?!`)")
        end = closing.search(self._text, found.end(), stop)
        return found.end() if end is None else end.end()

    def of_math(self, found: re.Match[str]) -> int:
        # Where none was found up to some place, it is looked for behind that only.
        stop = min(self._near(found.end()), found.end() + _LONGEST_MATH)
        end = _MATH_END.search(self._text, max(found.end(), self._no_math_before), stop)
        if end is None:
            self._no_math_before = stop
            return found.end()
        return end.end()

    def of_block(self, found: re.Match[str]) -> int:
        return self._of("$$", found.end(), found.end())

    def of_comment(self, found: re.Match[str]) -> int:
        # A comment without an end hides what follows.
        return self._of("%%", found.end(), len(self._text))

    def of_html(self, found: re.Match[str]) -> int:
        return self._of("-->", found.end(), found.end())

    def is_in_list(self, start: int) -> bool:
        """Returns whether indented text after an empty line belongs to an item of a list."""
        stop = start
        for _ in range(20):
            line_start = self._text.rfind("\n", 0, max(stop - 1, 0)) + 1
            line = self._text[line_start:stop]
            if line.strip():
                if _LIST_ITEM.match(line[:200]):
                    return True
                if line[0] not in " \t":
                    return False
            if line_start == 0:
                return False
            stop = line_start
        return False

    def _of(self, marks: str, start: int, without: int) -> int:
        if marks in self._unclosed:
            return without
        end = self._text.find(marks, start)
        if end < 0:
            self._unclosed.add(marks)
            return without
        return end + len(marks)

    def _near(self, start: int) -> int:
        """Returns where the paragraph ends, or what is near enough."""
        if self._paragraph_end < start:
            end = self._text.find("\n\n", start)
            self._paragraph_end = len(self._text) if end < 0 else end
        return min(start + _NEAR, self._paragraph_end)


_MATH_END = re.compile(r"(?<=[^\s\\])\$(?!\d)")
_CLOSED_BY: dict[str, Callable[[_Ends, re.Match[str]], int]] = {
    "code": _Ends.of_code,
    "comment": _Ends.of_comment,
    "html": _Ends.of_html,
    "block": _Ends.of_block,
    "math": _Ends.of_math,
}


def fields_of(text: str, hidden: list[tuple[int, int]]) -> dict[str, Any]:
    """Returns inline fields, as in `key:: value` on a line or `[key:: value]` in one.

    Args:
        text: The text.
        hidden: Where code, math and comments are, in order.
    """
    starts = [start for start, _ in hidden]
    found: dict[str, Any] = {}
    for pattern in (_FIELD_INSIDE, _FIELD_LINE):
        for one in pattern.finditer(text):
            place = bisect_right(starts, one.start("key")) - 1
            if place >= 0 and one.start("key") < hidden[place][1]:
                continue
            key, value = one["key"].strip(" *_"), one["value"].strip()
            if not key or (key in found and found[key] == value):
                continue
            before = found.get(key)
            if before is None:
                found[key] = value
            else:
                found[key] = [*(before if isinstance(before, list) else [before]), value]
    return found


def with_markdown_links(text: str, links: Iterable[Link], address_of: Callable[[Link], str]) -> str:
    """Returns a text in which links between double brackets are links of Markdown.

    Args:
        text: The text.
        links: The links in it, in order.
        address_of: Returns where a link leads.
    """
    parts, position = [], 0
    for link in links:
        if not link.is_wiki or link.start < 0:
            continue
        shown = link.shown.replace("[", "\\[").replace("]", "\\]")
        mark = "!" if link.is_embed and _PICTURE.search(link.target) else ""
        parts += [text[position : link.start], f"{mark}[{shown}]({address_of(link)})"]
        position = link.end
    return "".join([*parts, text[position:]])


def address(path: str, part: str = "") -> str:
    """Returns a path in the vault as the address of a link of Markdown."""
    return quote(path, safe="/!$&'*+,;=:@~") + (f"#{quote(part, safe='/^#')}" if part else "")
