"""What people see of a message, as Markdown: its text, embeds, components, polls, forwards, files.

Discord's text is Markdown with forms of its own for people, roles, channels, emoji and times. They
mean something only with their names, which come beside it. In code they mean nothing.

Source: https://discord.com/developers/docs/reference#message-formatting and
https://discord.com/developers/docs/resources/message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from contextframe_beam.connectors.attachments import without_signature
from contextframe_beam.connectors.conversations import title_in
from contextframe_beam.connectors.markdown import apart, joined, linked, quoted

#: What a member did, and not what somebody wrote: joins, boosts, pins, new threads, calls.
#: The type 21 is the message that a thread was started from.
SYSTEM_TYPES = frozenset((*range(1, 19), 22, *range(24, 40), 44, 46, 55))

_FENCE = re.compile(r"```.*?(?:```|\Z)|(?<!`)(`{1,2})(?!`).+?(?<!`)\1(?!`)", re.S)
_FORM = re.compile(
    r"<(?:@!?(?P<user>\d+)|@&(?P<role>\d+)|#(?P<channel>\d+)|a?:(?P<emoji>\w+):\d+"
    r"|t:(?P<time>-?\d{1,13})(?::(?P<style>[a-zA-Z]))?|/(?P<command>[^:<>\n]+):\d+"
    r"|id:(?P<guide>[a-z-]+)(?::\d+)?|(?P<other>[a-z]+:[^\s<>]*:\d+))>"
)
_ADDRESS = re.compile(
    r"https?://(?:\w+\.)?discord(?:app)?\.com/channels/(?P<guild>\d+|@me)/(?P<channel>\d+)"
    r"(?:/(?P<message>\d+))?"
)
_SIGNED = re.compile(r"https?://(?:cdn|media)\.discordapp\.(?:com|net)/[^\s<>)\"']+")
_SPOILER = re.compile(r"\|\|(.+?)\|\|", re.S)
_UNDERLINE = re.compile(r"(?<![_\\])__(?=[^\s_])(.+?)(?<=[^\s_])__(?!_)", re.S)
_SMALL = re.compile(r"^-# +", re.M)
_LONG_QUOTE = re.compile(r"^>>> ?(.*)\Z", re.M | re.S)
_GUIDES = {
    "customize": "Channels & Roles",
    "browse": "Browse Channels",
    "guide": "Server Guide",
    "home": "Server Guide",
    "linked-roles": "Linked Roles",
}
_STYLES = {
    "t": "%H:%M",
    "T": "%H:%M:%S",
    "d": "%Y-%m-%d",
    "D": "%Y-%m-%d",
}
_USUAL_STYLE = "%Y-%m-%d %H:%M"
_LAST_SECOND = 253_402_300_799  # of the year 9999


@dataclass
class Found:
    """What a message refers to, noted while it is written.

    Attributes:
        unknown: How often each form occurs that is not known here.
        people: The ids of mentioned people.
        addresses: Channel and message (or "") of addresses of messages.
    """

    unknown: dict[str, int] = field(default_factory=dict)
    people: dict[str, None] = field(default_factory=dict)
    addresses: dict[tuple[str, str], None] = field(default_factory=dict)


class Markup:
    """Writes messages as Markdown.

    Args:
        names: The names of people, roles and channels by their ids.
        found: Where is noted what they refer to.
    """

    def __init__(self, names: Mapping[str, str], found: Found | None = None) -> None:
        self._names = names
        self.found = Found() if found is None else found

    def message(self, told: Mapping[str, Any]) -> str:
        """Returns all that people see of a message."""
        parts = [self._reply(told), _command(told), self.text(_text(told.get("content")))]
        parts += map(self._snapshot, _dicts(told.get("message_snapshots")))
        parts += map(self._embed, _dicts(told.get("embeds")))
        parts += self._components(told.get("components"))
        parts.append(self._poll(told.get("poll")))
        stickers = _dicts(told.get("sticker_items")) or _dicts(told.get("stickers"))
        parts += [f"Sticker: {_text(one.get('name'))}" for one in stickers]
        parts += map(_attachment, _dicts(told.get("attachments")))
        return apart(*parts)

    def text(self, text: str) -> str:
        """Returns a text with the names of what it mentions, outside of code."""
        pieces: list[str] = []
        at = 0
        for code in _FENCE.finditer(text):
            pieces += [self._plain(text[at : code.start()]), code[0]]
            at = code.end()
        pieces.append(self._plain(text[at:]))
        return _LONG_QUOTE.sub(_quoted_to_end, "".join(pieces)).strip("\n")

    def _plain(self, text: str) -> str:
        for match in _ADDRESS.finditer(text):
            self.found.addresses[match["channel"], match["message"] or ""] = None
        text = _FORM.sub(self._form, text)
        text = _UNDERLINE.sub(r"<u>\1</u>", _SPOILER.sub(r"\1", text))
        return _SMALL.sub("", text)

    def _form(self, match: re.Match[str]) -> str:
        if user := match["user"]:
            self.found.people[user] = None
            return f"@{self._names.get(user, user)}"
        if role := match["role"]:
            return f"@{self._names.get(role, role)}"
        if channel := match["channel"]:
            return f"#{self._names.get(channel, channel)}"
        if match["emoji"]:
            return f":{match['emoji']}:"
        if match["command"]:
            return f"/{match['command']}"
        if match["guide"] in _GUIDES:
            return _GUIDES[match["guide"]]
        if match["time"]:
            return _time(int(match["time"]), match["style"] or "")
        form = (match["other"] or match[0].strip("<>")).partition(":")[0]
        self._note(f"<{form}:>")
        return match[0]

    def _reply(self, told: Mapping[str, Any]) -> str:
        """Returns the first words of the message that one replies to, as Discord shows them."""
        if told.get("type") != 19 or "referenced_message" not in told:
            return ""
        before = told["referenced_message"]
        if not isinstance(before, Mapping):
            return "> (a deleted message)"
        quiet = Markup(self._names)
        text = title_in(quiet.message({**before, "type": 0}), "...")
        return f"> {author_of(before)}: {text}"

    def _snapshot(self, told: Mapping[str, Any]) -> str:
        inner = told.get("message")
        text = self.message(inner) if isinstance(inner, Mapping) else ""
        return quoted(apart("Forwarded:", text)) if text else ""

    def _embed(self, told: Mapping[str, Any]) -> str:
        if told.get("type") == "poll_result":
            return ""
        lines: list[str] = []
        for name in ("provider", "author"):
            about = told.get(name)
            if isinstance(about, Mapping) and _text(about.get("name")):
                lines.append(_linked(_text(about["name"]), about.get("url")))
        if title := _text(told.get("title")):
            lines.append(f"**{_linked(self.text(title), told.get('url'))}**")
        elif told.get("type") in ("image", "video", "gifv", "link") and _text(told.get("url")):
            lines.append(without_signature(_text(told["url"])))
        if about := _text(told.get("description")):
            lines.append(self.text(about))
        for one in _dicts(told.get("fields")):
            name, value = self.text(_text(one.get("name"))), self.text(_text(one.get("value")))
            lines.append(f"**{name}:** {value}" if "\n" not in value else f"**{name}:**\n{value}")
        image = told.get("image")
        if isinstance(image, Mapping) and (about := _text(image.get("description"))):
            lines.append(f"Image: {about}")
        footer = told.get("footer")
        if isinstance(footer, Mapping) and (text := _text(footer.get("text"))):
            lines.append(text)
        lines += self._components(told.get("components"))
        return quoted(apart(*lines))

    def _components(self, told: Any) -> list[str]:
        """Returns components, which bots lay out: texts, galleries, files, buttons, choices."""
        return [text for one in _dicts(told) if (text := self._component(one))]

    def _component(self, told: Mapping[str, Any]) -> str:
        kind = told.get("type")
        write = _COMPONENTS.get(kind) if isinstance(kind, int) else None
        if write is not None:
            return write(self, told)
        self._note(f"component {kind}")
        inner = self._components(told.get("components"))
        own = (self.text(_text(told.get(name))) for name in ("content", "label", "description"))
        return apart(*own, *inner)

    def _inside(self, told: Mapping[str, Any]) -> str:
        return apart(*self._components(told.get("components")))

    def _row(self, told: Mapping[str, Any]) -> str:
        return " | ".join(self._components(told.get("components")))

    def _button(self, told: Mapping[str, Any]) -> str:
        emoji = told.get("emoji")
        symbol = _text(emoji.get("name")) if isinstance(emoji, Mapping) else ""
        label = self.text(_text(told.get("label"))) or symbol
        return _linked(label, told["url"]) if _text(told.get("url")) else f"[{label}]"

    def _choice(self, told: Mapping[str, Any]) -> str:
        labels = [_text(one.get("label")) for one in _dicts(told.get("options"))]
        head = self.text(_text(told.get("placeholder")))
        return f"{head or 'Choose'}: {', '.join(labels)}" if labels else head

    def _input(self, told: Mapping[str, Any]) -> str:
        return ": ".join(filter(None, (_text(told.get("label")), _text(told.get("value")))))

    def _section(self, told: Mapping[str, Any]) -> str:
        accessory = told.get("accessory")
        beside = self._component(accessory) if isinstance(accessory, Mapping) else ""
        return apart(self._inside(told), beside)

    def _gallery(self, told: Mapping[str, Any]) -> str:
        return "\n".join(filter(None, map(self._media, _dicts(told.get("items")))))

    def _media(self, told: Mapping[str, Any]) -> str:
        where = told.get("media") or told.get("file")
        address = _text(where.get("url")) if isinstance(where, Mapping) else ""
        name = _text(told.get("name")) or _name_in(address)
        about = self.text(_text(told.get("description")))
        return _file_line(name, about) if name or about else ""

    def _poll(self, told: Any) -> str:
        if not isinstance(told, Mapping):
            return ""
        results = told.get("results")
        counts = results.get("answer_counts") if isinstance(results, Mapping) else None
        votes = {one.get("id"): one.get("count") for one in _dicts(counts)}
        question = told.get("question")
        lines = [f"**Poll: {self._poll_media(question)}**", ""]
        for one in _dicts(told.get("answers")):
            count = votes.get(one.get("answer_id"), 0)
            shown = f"{count} vote" if count == 1 else f"{count} votes"
            lines.append(f"- {self._poll_media(one.get('poll_media'))} ({shown})")
        return "\n".join(lines)

    def _poll_media(self, told: Any) -> str:
        if not isinstance(told, Mapping):
            return ""
        emoji = told.get("emoji")
        symbol = emoji_name(emoji) if isinstance(emoji, Mapping) else ""
        return joined((symbol, self.text(_text(told.get("text")))))

    def _note(self, form: str) -> None:
        self.found.unknown[form] = self.found.unknown.get(form, 0) + 1


_COMPONENTS: dict[int, Callable[[Markup, Mapping[str, Any]], str]] = {
    1: Markup._row,
    2: Markup._button,
    3: Markup._choice,
    4: Markup._input,
    5: Markup._choice,
    6: Markup._choice,
    7: Markup._choice,
    8: Markup._choice,
    9: Markup._section,
    10: lambda self, told: self.text(_text(told.get("content"))),
    11: Markup._media,
    12: Markup._gallery,
    13: Markup._media,
    14: lambda self, told: "",
    17: Markup._inside,
}


def author_of(told: Mapping[str, Any]) -> str:
    """Returns the name that people see of who wrote a message."""
    author = told.get("author")
    return person_name(author) if isinstance(author, Mapping) else ""


def person_name(told: Mapping[str, Any]) -> str:
    """Returns the display name of a user, or else the user name, or the id."""
    names = (told.get("global_name"), told.get("username"), told.get("id"))
    return next((one for one in map(_text, names) if one), "")


def emoji_name(told: Mapping[str, Any]) -> str:
    """Returns an emoji as a sign, or one of a server by its name."""
    name = _text(told.get("name"))
    return f":{name}:" if told.get("id") and name else name


def mentioned(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the kind (user, role or channel) and the id of all that a message mentions."""
    for text in _texts_in(told):
        for match in _FORM.finditer(text):
            for kind in ("user", "role", "channel"):
                if match[kind]:
                    yield kind, match[kind]


def addressed(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the server and the channel of each address in a message that leads into Discord."""
    for text in _texts_in(told):
        for match in _ADDRESS.finditer(text):
            yield match["guild"], match["channel"]


def unsigned(text: str) -> str:
    """Returns a text whose addresses of files have no signatures."""
    return _SIGNED.sub(lambda match: without_signature(match[0]), text)


def _texts_in(told: Any) -> Iterator[str]:
    if isinstance(told, str):
        yield told
    elif isinstance(told, Mapping):
        for value in told.values():
            yield from _texts_in(value)
    elif isinstance(told, list):
        for value in told:
            yield from _texts_in(value)


def _quoted_to_end(match: re.Match[str]) -> str:
    return quoted(match[1])


def _time(seconds: int, style: str) -> str:
    if not 0 <= seconds <= _LAST_SECOND:
        return f"<t:{seconds}{':' * bool(style)}{style}>"
    at = datetime.fromtimestamp(seconds, timezone.utc)
    form = _STYLES.get(style, _USUAL_STYLE)
    return at.strftime(form) + (" UTC" if "%H" in form else "")


def _command(told: Mapping[str, Any]) -> str:
    """Returns who asked a program for the answer that a message is, and by which command."""
    asked = told.get("interaction")
    if told.get("type") not in (20, 23) or not isinstance(asked, Mapping):
        return ""
    user, name = asked.get("user"), _text(asked.get("name"))
    who = person_name(user) if isinstance(user, Mapping) else ""
    return f"> {who} used {'/' if told['type'] == 20 else ''}{name}" if who and name else ""


def _attachment(told: Mapping[str, Any]) -> str:
    name = _text(told.get("title")) or _text(told.get("filename"))
    return _file_line(name, _text(told.get("description")))


def _file_line(name: str, about: str) -> str:
    return f"Attachment: {name} ({about})" if name and about else f"Attachment: {name or about}"


def _name_in(address: str) -> str:
    return without_signature(address).partition("?")[0].rpartition("/")[2]


def _linked(text: str, address: Any) -> str:
    return linked(text, without_signature(_text(address)))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _dicts(value: Any) -> list[Mapping[str, Any]]:
    found: Iterable[Any] = value if isinstance(value, list) else ()
    return [one for one in found if isinstance(one, Mapping)]
