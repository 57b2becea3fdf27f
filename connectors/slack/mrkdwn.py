"""Slack's own markup, mrkdwn, becomes Markdown; what it refers to is noted on the way.

The markup is told in https://docs.slack.dev/messaging/formatting-message-text. In it `&`, `<` and
`>` of people's texts are written as entities, so that each `<...>` is Slack's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Protocol

from contextframe_beam.connectors.markdown import (
    escaped,
    escaped_at_start,
    fenced,
    linked,
    styled,
)

_FENCE = re.compile(r"[ \t]*```(.*?)```[ \t]*", re.S)
_CODE = re.compile(r"`([^`\n]+)`")
_REFERENCE = re.compile(r"<([^<>\n]+)>")
# A mark counts where no letter stands outside of it, and no space inside. Its end is looked for
# within a thousand characters, or a text of nothing but marks would take minutes.
_STYLES = (
    ("bold", re.compile(r"(?<![\w*])\*(?=[^\s*])([^\n]{0,1000}?[^\s*])\*(?![\w*])")),
    ("italic", re.compile(r"(?<![\w_])_(?=[^\s_])([^\n]{0,1000}?[^\s_])_(?![\w_])")),
    ("strikethrough", re.compile(r"(?<![\w~])~(?=[^\s~])([^\n]{0,1000}?[^\s~])~(?![\w~])")),
)
_QUOTE = re.compile(r"(?m)^&gt; ?")
_QUOTE_ALL = re.compile(r"(?ms)^&gt;&gt;&gt; ?(.*)\Z")
# What people and programs begin the items of a list with.
_BULLET = re.compile(r"(\s*)[•◦▪‣-]\ufe0e?[ \t]+")
_PERMALINK = re.compile(
    r"https?://[^/]+\.slack(?:-gov)?\.[a-z]+/archives/([A-Z0-9]+)/p(\d{10})(\d{6})"
)
_THREAD = re.compile(r"[?&]thread_ts=(\d+\.\d+)")
_DATE_PART = re.compile(r"\{(\w+)\}")
_DATES = {
    "date_num": "%Y-%m-%d",
    "date_slash": "%Y-%m-%d",
    "date": "%B %-d, %Y",
    "date_short": "%b %-d, %Y",
    "date_long": "%A, %B %-d, %Y",
    "date_pretty": "%B %-d, %Y",
    "date_short_pretty": "%b %-d, %Y",
    "date_long_pretty": "%A, %B %-d, %Y",
    "day_divider_pretty": "%A, %B %-d",
    "time": "%H:%M UTC",
    "time_secs": "%H:%M:%S UTC",
}
# Pieces that are finished stand so in a text while the rest of it is read.
_KEPT = re.compile("\ue000(\\d+)\ue001")


class Names(Protocol):
    """What ids stand for; each returns None where that cannot be found out."""

    def user(self, identifier: str) -> str | None:
        """Returns the name of a person or a bot."""

    def channel(self, identifier: str) -> str | None:
        """Returns the name of a channel, without `#`."""

    def group(self, identifier: str) -> str | None:
        """Returns the handle of a group of people, without `@`."""


@dataclass
class Found:
    """What texts refer to, gathered while they become Markdown.

    Attributes:
        references: The ids of documents that they link to, in order.
        mentions: The ids of people and groups.
        unknown: How often each form occurred that is not known here.
    """

    references: dict[str, None] = field(default_factory=dict)
    mentions: dict[str, None] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)

    def link(self, address: str) -> None:
        """Notes the message that an address opens, if it does."""
        match = _PERMALINK.match(address)
        if match is None:
            return
        thread = _THREAD.search(address)
        ts = thread[1] if thread else f"{match[2]}.{match[3]}"
        self.references[f"slack:{match[1]}/{ts}"] = None


class Mrkdwn:
    """Makes Markdown of mrkdwn.

    Args:
        names: Tells the names of people, channels and groups.
        found: Where references are gathered.
    """

    def __init__(self, names: Names, found: Found) -> None:
        self._names = names
        self._found = found

    def markdown(self, text: Any) -> str:
        """Returns the Markdown of a text; anything that is no text is empty."""
        if not isinstance(text, str) or not text:
            return ""
        kept: list[str] = []

        def keep(made: str) -> str:
            kept.append(made)
            return f"\ue000{len(kept) - 1}\ue001"

        text = _KEPT.sub("", text)
        # Code is a block of its own, wherever it stands.
        text = _FENCE.sub(lambda match: f"\n{keep(self._fenced(match[1]))}\n", text)
        blocks = len(kept)
        text = _CODE.sub(lambda match: keep(styled(self._plain(match[1]), ("code",))), text)
        text = _REFERENCE.sub(lambda match: keep(self._reference(match[1])), text)
        text = _QUOTE_ALL.sub(lambda match: _each_line(match[1], "&gt; "), text)
        lines = [self._line(line, keep) for line in text.split("\n")]
        made = _apart(lines, blocks)
        while _KEPT.search(made):
            made = _KEPT.sub(lambda match: _placed(match, kept), made)
        return made.strip("\n")

    def plain(self, text: Any) -> str:
        """Returns text without markup, such as a title, with its entities read."""
        return escaped(unescaped(text)) if isinstance(text, str) else ""

    def mention(self, identifier: str, label: str = "") -> str:
        """Returns `@name` of a person.

        Args:
            identifier: Their id.
            label: The name that the text itself tells, where it does.
        """
        self._found.mentions[identifier] = None
        return escaped(f"@{self._names.user(identifier) or label or identifier}")

    def group(self, identifier: str, label: str = "") -> str:
        """Returns `@handle` of a group of people."""
        self._found.mentions[identifier] = None
        return escaped(f"@{self._names.group(identifier) or label or identifier}")

    def channel(self, identifier: str, label: str = "") -> str:
        """Returns `#name` of a channel."""
        return escaped(f"#{self._names.channel(identifier) or label or identifier}")

    def address(self, url: str, label: str = "") -> str:
        """Returns a link; the message that it opens is noted.

        Args:
            url: Where it leads.
            label: Its text in Markdown; by default the address.
        """
        self._found.link(url)
        shown = url.removeprefix("mailto:").removeprefix("tel:")
        if label in ("", url, shown):
            return shown if url == shown else linked(escaped(shown), url)
        return linked(label, url)

    def _line(self, line: str, keep: Callable[[str], str]) -> str:
        depth = 0
        while (match := _QUOTE.match(line)) is not None:
            line, depth = line[match.end() :], depth + 1
        bullet = _BULLET.match(line)
        mark = ""
        if bullet is not None:
            line = line[bullet.end() :]
            mark = f"{'  ' * (len(bullet[1].expandtabs(4)) // 4)}- "
        text = self._marked(line, keep)
        # A number at the start of a line is a list in Slack too.
        text = text if bullet or re.match(r"\s*\d+[.)]\s", text) else escaped_at_start(text)
        return "> " * depth + mark + text

    def _marked(self, text: str, keep: Callable[[str], str]) -> str:
        """Returns text with its marks, of which one may stand inside of another."""
        for style, pattern in _STYLES:
            made: list[str] = []
            end = 0
            for match in pattern.finditer(text):
                inner = styled(self._marked(match[1], keep), (style,))
                made += [text[end : match.start()], keep(inner)]
                end = match.end()
            text = "".join([*made, text[end:]])
        return escaped(unescaped(text))

    def _fenced(self, text: str) -> str:
        return fenced(self._plain(text).strip("\n"))

    def _plain(self, text: str) -> str:
        """Returns the text of code, in which references stand as they are shown."""
        return unescaped(_REFERENCE.sub(lambda match: self._shown(match[1]), text))

    def _shown(self, reference: str) -> str:
        target, _, label = reference.partition("|")
        if target[:1] in ("@", "#", "!"):
            return self._reference(reference)
        return label or target.removeprefix("mailto:")

    def _reference(self, reference: str) -> str:
        """Returns what `<...>` stands for."""
        target, _, label = reference.partition("|")
        label = unescaped(label)
        if target.startswith("@"):
            return self.mention(target[1:], label.removeprefix("@"))
        if target.startswith("#"):
            return self.channel(target[1:], label.removeprefix("#"))
        if target.startswith("!subteam^"):
            return self.group(target.removeprefix("!subteam^"), label.removeprefix("@"))
        if target.startswith("!date^"):
            return self._date(target.removeprefix("!date^"), label)
        if target.startswith("!"):
            name = target[1:].partition("^")[0]
            if name not in ("here", "channel", "everyone", "group"):
                self._found.unknown[f"reference {name}"] += 1
            return escaped(label or f"@{name}")
        return self.address(unescaped(target), escaped(label))

    def _date(self, told: str, label: str) -> str:
        seconds, _, rest = told.partition("^")
        form, _, link = rest.partition("^")
        text = date_text(seconds, unescaped(form)) or label
        return linked(escaped(text), unescaped(link))


def date_text(seconds: Any, form: str) -> str:
    """Returns a date as Slack shows it, in UTC; "" where it is none.

    Args:
        seconds: Since 1970.
        form: Such as `{date} at {time}`.
    """
    try:
        at = datetime.fromtimestamp(int(seconds), timezone.utc)
    except (ValueError, TypeError, OverflowError, OSError):
        return ""

    def part(match: re.Match[str]) -> str:
        if match[1] == "ago":
            return at.strftime("%Y-%m-%d %H:%M UTC")
        known = _DATES.get(match[1])
        return at.strftime(known) if known else match[0]

    return _DATE_PART.sub(part, form)


def unescaped(text: str) -> str:
    """Returns text with Slack's three entities read."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def text_in(told: Mapping[str, Any], name: str) -> str:
    """Returns a text of an object; "" where it has none."""
    value = told.get(name)
    return value if isinstance(value, str) else ""


def _each_line(text: str, before: str) -> str:
    return "\n".join(f"{before}{line}" for line in text.split("\n"))


def _placed(match: re.Match[str], kept: list[str]) -> str:
    number = int(match[1])
    return kept[number] if number < len(kept) else ""


def _apart(lines: list[str], blocks: int) -> str:
    """Returns lines, with an empty one between those that are not of one block.

    Args:
        lines: Lines in which finished pieces are numbered.
        blocks: How many of these, the first ones, are blocks of code.
    """
    made: list[str] = []
    before = ""
    for line in lines:
        kind = _kind_of(line, blocks)
        is_other = kind != before and (before or kind != "-")
        if made and made[-1] and line and is_other:
            made.append("")
        if line or (made and made[-1]):
            made.append(line)
        before = kind if line else ""
    return "\n".join(made)


def _kind_of(line: str, blocks: int) -> str:
    piece = _KEPT.fullmatch(line)
    if piece is not None and int(piece[1]) < blocks:
        return "code"
    stripped = line.lstrip()
    if stripped.startswith("> "):
        return ">"
    return "-" if re.match(r"(?:-|\d+[.)])\s", stripped) else ""
