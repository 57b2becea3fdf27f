"""Blocks and attachments of messages become Markdown: all that a person sees in the app.

The types are those of npm `@slack/types` (https://docs.slack.dev/reference/block-kit/blocks), and
those of legacy attachments (https://docs.slack.dev/legacy/legacy-messaging/legacy-message-attachments).
A type that is not known stays as what text it has, and is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from contextframe_beam.connectors.markdown import (
    apart,
    escaped,
    escaped_at_start,
    fenced,
    indented,
    joined,
    linked,
    quoted,
    styled,
    table,
)
from contextframe_beam.connectors.slack.mrkdwn import Found, Mrkdwn, Names, date_text, text_in

#: Modes of files of which only a trace is left.
WITHOUT_CONTENT = {"tombstone": "deleted", "hidden_by_limit": "hidden by the limit of the plan"}

_STYLES = {
    "bold": "bold",
    "italic": "italic",
    "strike": "strikethrough",
    "code": "code",
    "underline": "underline",
}
_LEVELS = {"warning": "Warning", "error": "Error", "success": "Success", "info": "Info"}
_LISTS = "rich_text_list"


def message_to_markdown(message: Mapping[str, Any], names: Names, found: Found) -> str:
    """Returns what a message says: its blocks or else its text, its attachments and its files.

    Args:
        message: As Slack gave it.
        names: Tells the names of people, channels and groups.
        found: Where is noted what it refers to.
    """
    return _Writer(names, found).message(message)


class _Writer:
    """Writes messages."""

    def __init__(self, names: Names, found: Found) -> None:
        self._mrkdwn = Mrkdwn(names, found)
        self._found = found
        self._kinds: dict[str, Callable[[Mapping[str, Any]], str]] = {
            "rich_text": self._rich_text,
            "section": self._section,
            "header": lambda block: _heading(self._text(block.get("text"))),
            "context": lambda block: joined(map(self._element, _objects(block, "elements"))),
            "actions": lambda block: joined(map(self._element, _objects(block, "elements"))),
            "context_actions": lambda block: joined(
                map(self._element, _objects(block, "elements"))
            ),
            "divider": lambda _: "---",
            "image": self._image,
            "input": self._input,
            "file": lambda block: _named(f"file {text_in(block, 'external_id')}"),
            "video": self._video,
            "markdown": lambda block: text_in(block, "text").strip("\n"),
            "table": self._table,
            "data_table": self._table,
            "alert": self._alert,
            "card": self._card,
            "carousel": lambda block: apart(*map(self._card, _objects(block, "elements"))),
            "container": self._container,
            "plan": self._plan,
            "task_card": self._task,
            "call": self._call,
        }
        self._parts: dict[str, Callable[[Mapping[str, Any]], str]] = {
            "user": lambda part: self._mrkdwn.mention(text_in(part, "user_id")),
            "usergroup": lambda part: self._mrkdwn.group(text_in(part, "usergroup_id")),
            "channel": lambda part: self._mrkdwn.channel(text_in(part, "channel_id")),
            "team": lambda part: escaped(f"@{text_in(part, 'team_id')}"),
            "broadcast": lambda part: f"@{text_in(part, 'range')}",
            "color": lambda part: escaped(text_in(part, "value")),
            "emoji": _emoji,
            "date": _date,
        }

    def message(self, message: Mapping[str, Any]) -> str:
        """Returns a message."""
        text = self.blocks(message.get("blocks")) or self._mrkdwn.markdown(message.get("text"))
        if message.get("subtype") == "me_message":
            text = styled(text, ("italic",))
        return apart(
            text,
            *map(self._attachment, _objects(message, "attachments")),
            "\n".join(f"- {self._file(one)}" for one in _objects(message, "files")),
        )

    def blocks(self, blocks: Any) -> str:
        """Returns blocks that stand below each other."""
        return apart(*(self._block(one) for one in _mappings(blocks)))

    def _block(self, block: Mapping[str, Any]) -> str:
        kind = text_in(block, "type")
        write = self._kinds.get(kind)
        if write is not None:
            return write(block)
        self._found.unknown[f"block {kind or 'without a type'}"] += 1
        inner = [self.blocks(block.get(name)) for name in ("blocks", "elements", "child_blocks")]
        texts = [self._text(block.get(name)) for name in ("title", "text", "description")]
        return apart(*texts, *inner) or _named(kind or "block")

    def _text(self, told: Any) -> str:
        """Returns a text object: mrkdwn, plain text, or rich text."""
        if isinstance(told, str):
            return escaped(told)
        if not isinstance(told, Mapping):
            return ""
        if told.get("type") == "rich_text":
            return self._rich_text(told)
        if told.get("type") == "mrkdwn":
            return self._mrkdwn.markdown(told.get("text"))
        return escaped(text_in(told, "text"))

    def _rich_text(self, block: Mapping[str, Any]) -> str:
        written = ""
        before = ""
        for element in _objects(block, "elements"):
            kind = text_in(element, "type")
            text = self._rich_element(element, kind)
            if not text:
                continue
            if written:
                # Lists in lists come one after the other.
                written += "\n" if kind == before == _LISTS else "\n\n"
            written += text
            before = kind
        return written

    def _rich_element(self, element: Mapping[str, Any], kind: str) -> str:
        parts = element.get("elements")
        if kind == "rich_text_section":
            return escaped_at_start(self._line(parts)).strip("\n")
        if kind == "rich_text_quote":
            return quoted(escaped_at_start(self._line(parts)).strip("\n"))
        if kind == "rich_text_preformatted":
            text = "".join(text_in(one, "text") or text_in(one, "url") for one in _mappings(parts))
            language = text_in(element, "language")
            return fenced(text, language) if text else ""
        if kind == _LISTS:
            return self._list(element)
        self._found.unknown[f"rich text {kind or 'without a type'}"] += 1
        return self._line(parts) or escaped(text_in(element, "text")) or _named(kind)

    def _list(self, element: Mapping[str, Any]) -> str:
        indent, offset = element.get("indent"), element.get("offset")
        space = "    " * (indent if isinstance(indent, int) else 0)
        number = offset if isinstance(offset, int) else 0
        lines = []
        for one in _objects(element, "elements"):
            number += 1
            mark = f"{number}. " if element.get("style") == "ordered" else "- "
            text = self._line(one.get("elements")).strip("\n")
            lines.append(space + mark + indented(text, len(space + mark)))
        return "\n".join(lines)

    def _line(self, parts: Any) -> str:
        """Returns the pieces of a text; those that look the same stand together."""
        pieces: list[tuple[str, frozenset[str], str]] = []
        for part in _mappings(parts):
            text, styles, link = self._piece(part)
            if pieces and pieces[-1][1:] == (styles, link):
                pieces[-1] = (pieces[-1][0] + text, styles, link)
            else:
                pieces.append((text, styles, link))
        return "".join(styled(text, styles, link or None) for text, styles, link in pieces)

    def _piece(self, part: Mapping[str, Any]) -> tuple[str, frozenset[str], str]:
        style = part.get("style")
        told = style if isinstance(style, Mapping) else {}
        styles = frozenset(name for key, name in _STYLES.items() if told.get(key) is True)
        kind = text_in(part, "type")
        if kind == "text":
            text = text_in(part, "text")
            return (text if "code" in styles else escaped(text)), styles, ""
        if kind == "link":
            url, text = text_in(part, "url"), text_in(part, "text")
            self._found.link(url)
            if "code" in styles:
                return text or url, styles, url
            made = self._mrkdwn.address(url, escaped(text))
            return styled(made, styles), frozenset(), ""
        make = self._parts.get(kind)
        if make is not None:
            return make(part), styles - {"code"}, ""
        self._found.unknown[f"rich text {kind or 'without a type'}"] += 1
        shown = text_in(part, "text") or text_in(part, "fallback") or text_in(part, "name")
        return escaped(shown) or _named(kind), styles, ""

    def _section(self, block: Mapping[str, Any]) -> str:
        accessory = block.get("accessory")
        return apart(
            self._text(block.get("text")),
            "\n\n".join(filter(None, map(self._text, _objects(block, "fields")))),
            self._element(accessory) if isinstance(accessory, Mapping) else "",
        )

    def _elements(self, block: Mapping[str, Any]) -> str:
        return joined(map(self._element, _objects(block, "elements")))

    def _element(self, element: Mapping[str, Any]) -> str:
        """Returns what is seen of an interactive element, an image or a text."""
        kind = text_in(element, "type")
        if kind in ("mrkdwn", "plain_text", "rich_text"):
            return self._text(element)
        if kind == "image":
            return self._image(element)
        if kind == "feedback_buttons":
            both = (element.get("positive_button"), element.get("negative_button"))
            return joined(self._button(one) for one in both if isinstance(one, Mapping))
        if kind in ("button", "workflow_button", "icon_button"):
            return self._button(element)
        options = [
            self._text(one.get("text"))
            for one in (
                *_objects(element, "initial_options"),
                *_objects(element, "options"),
                *_mappings([element.get("initial_option")]),
            )
        ]
        shown = self._text(element.get("placeholder"))
        if kind in ("checkboxes", "radio_buttons", "overflow"):
            return "\n".join(f"- {one}" for one in dict.fromkeys(options) if one)
        known = kind.endswith(("_select", "picker", "_input"))
        if not known:
            self._found.unknown[f"element {kind or 'without a type'}"] += 1
        return f"\\[{shown}\\]" if shown else "" if known else _named(kind)

    def _button(self, element: Mapping[str, Any]) -> str:
        text = self._text(element.get("text")).strip()
        url = text_in(element, "url")
        if url:
            return self._mrkdwn.address(url, text)
        return f"\\[{text}\\]" if text else ""

    def _image(self, block: Mapping[str, Any]) -> str:
        alt = escaped(text_in(block, "alt_text"))
        title = self._text(block.get("title"))
        url = text_in(block, "image_url")
        image = f"!{linked(alt or 'image', url)}" if url else alt
        return image if title in ("", alt) else apart(title, image)

    def _input(self, block: Mapping[str, Any]) -> str:
        element = block.get("element")
        inner = self._element(element) if isinstance(element, Mapping) else ""
        return apart(self._text(block.get("label")), inner, self._text(block.get("hint")))

    def _video(self, block: Mapping[str, Any]) -> str:
        url = text_in(block, "title_url") or text_in(block, "video_url")
        title = self._text(block.get("title")) or escaped(text_in(block, "alt_text"))
        return apart(linked(title, url), self._text(block.get("description")))

    def _table(self, block: Mapping[str, Any]) -> str:
        rows = block.get("rows")
        cells = [
            [self._cell(one) for one in row if isinstance(one, Mapping)]
            for row in (rows if isinstance(rows, list) else ())
            if isinstance(row, list)
        ]
        return apart(escaped(text_in(block, "caption")), table(cells))

    def _cell(self, cell: Mapping[str, Any]) -> str:
        if cell.get("type") == "rich_text":
            return self._rich_text(cell)
        value = cell.get("text") if cell.get("text") is not None else cell.get("value")
        return escaped("" if value is None else str(value))

    def _alert(self, block: Mapping[str, Any]) -> str:
        level = _LEVELS.get(text_in(block, "level"), "")
        return quoted(joined((f"**{level}**" if level else "", self._text(block.get("text")))))

    def _card(self, block: Mapping[str, Any]) -> str:
        image = block.get("hero_image")
        return apart(
            styled(self._text(block.get("title")), ("bold",)),
            self._text(block.get("subtitle")),
            self._image(image) if isinstance(image, Mapping) else "",
            self._text(block.get("body")),
            joined(map(self._element, _objects(block, "actions"))),
        )

    def _container(self, block: Mapping[str, Any]) -> str:
        title = self._text(block.get("rich_text_title")) or self._text(block.get("title"))
        return apart(
            styled(title, ("bold",)),
            self._text(block.get("subtitle")),
            self.blocks(block.get("child_blocks")),
        )

    def _plan(self, block: Mapping[str, Any]) -> str:
        return apart(
            styled(self._text(block.get("title")), ("bold",)),
            *map(self._task, _objects(block, "tasks")),
        )

    def _task(self, block: Mapping[str, Any]) -> str:
        status = text_in(block, "status").replace("_", " ")
        title = self._text(block.get("title"))
        sources = [
            self._mrkdwn.address(text_in(one, "url"), escaped(text_in(one, "text")))
            for one in _objects(block, "sources")
        ]
        head = joined((title, f"({status})" if status else ""))
        texts = (self._text(block.get("details")), self._text(block.get("output")))
        return apart(head, *texts, "\n".join(f"- {one}" for one in sources))

    def _call(self, block: Mapping[str, Any]) -> str:
        call = block.get("call")
        told = call.get("v1") if isinstance(call, Mapping) else None
        told = told if isinstance(told, Mapping) else {}
        name = escaped(text_in(told, "name") or "Call")
        return linked(name, text_in(told, "join_url"))

    def _attachment(self, told: Mapping[str, Any]) -> str:
        """Returns a legacy attachment, the preview of a link, or a message that was shared."""
        link = text_in(told, "title_link") or text_in(told, "from_url")
        self._found.link(text_in(told, "from_url"))
        if told.get("is_msg_unfurl") is True or told.get("is_share") is True:
            head = self._shared_head(told, link)
        else:
            name = joined((text_in(told, "author_name"), text_in(told, "author_subname")))
            head = linked(escaped(name), text_in(told, "author_link"))
            if not name and text_in(told, "service_name"):
                head = escaped(text_in(told, "service_name"))
        title = self._mrkdwn.plain(told.get("title"))
        body = apart(
            self._shared_blocks(told) or self.blocks(told.get("blocks")),
            "" if told.get("message_blocks") else self._mrkdwn.markdown(told.get("text")),
            "\n".join(self._field(one) for one in _objects(told, "fields")),
            "\n".join(f"- {self._file(one)}" for one in _objects(told, "files")),
            self._attached_image(told, title),
            joined(self._action(one) for one in _objects(told, "actions")),
        )
        whole = apart(head, styled(linked(title, link) if title else "", ("bold",)), body)
        if not whole:
            whole = self._mrkdwn.markdown(told.get("fallback"))
        footer = self._mrkdwn.markdown(told.get("footer"))
        return apart(self._mrkdwn.markdown(told.get("pretext")), quoted(apart(whole, footer)))

    def _shared_head(self, told: Mapping[str, Any], link: str) -> str:
        channel = text_in(told, "channel_id")
        name = escaped(text_in(told, "author_name") or "Somebody")
        where = (
            f" in {self._mrkdwn.channel(channel, text_in(told, 'channel_name'))}" if channel else ""
        )
        return linked(f"{name}{where}", link)

    def _shared_blocks(self, told: Mapping[str, Any]) -> str:
        """Returns the blocks of a message that was shared."""
        made = []
        for one in _objects(told, "message_blocks"):
            message = one.get("message")
            made.append(self.blocks(message.get("blocks")) if isinstance(message, Mapping) else "")
        return apart(*made)

    def _field(self, told: Mapping[str, Any]) -> str:
        title = self._mrkdwn.plain(told.get("title"))
        value = self._mrkdwn.markdown(told.get("value"))
        return joined((f"**{title}**:" if title else "", value))

    def _action(self, told: Mapping[str, Any]) -> str:
        text, url = self._mrkdwn.plain(told.get("text")), text_in(told, "url")
        return linked(text, url) if url else (f"\\[{text}\\]" if text else "")

    def _attached_image(self, told: Mapping[str, Any], title: str) -> str:
        url = text_in(told, "image_url")
        return f"!{linked(title or 'image', url)}" if url else ""

    def _file(self, told: Mapping[str, Any]) -> str:
        """Returns a link to a file, or why it cannot be had."""
        name = file_name(told)
        mode = text_in(told, "mode")
        if mode in WITHOUT_CONTENT:
            return escaped(f"{name} ({WITHOUT_CONTENT[mode]})")
        title = text_in(told, "title") or name
        shown = title if title == name or not text_in(told, "name") else f"{title} ({name})"
        return linked(escaped(shown), text_in(told, "permalink") or text_in(told, "url_private"))


def file_name(told: Mapping[str, Any]) -> str:
    """Returns the name of a file."""
    return text_in(told, "name") or text_in(told, "title") or text_in(told, "id") or "file"


def _named(what: str) -> str:
    """Returns the name of something that has no text, in brackets."""
    return f"\\[{escaped(what)}\\]"


def _heading(text: str) -> str:
    return f"## {' '.join(text.split())}" if text.strip() else ""


def _emoji(part: Mapping[str, Any]) -> str:
    """Returns an emoji as its character, or as `:name:` where it is the workspace's own."""
    code, name = text_in(part, "unicode"), text_in(part, "name")
    try:
        made = "".join(chr(int(one, 16)) for one in code.split("-")) if code else ""
    except (ValueError, OverflowError):
        made = ""
    return made or (f":{name}:" if name else "")


def _date(part: Mapping[str, Any]) -> str:
    text = date_text(part.get("timestamp"), text_in(part, "format")) or text_in(part, "fallback")
    return linked(escaped(text), text_in(part, "url"))


def _objects(told: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    return _mappings(told.get(name))


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    for one in value if isinstance(value, Sequence) and not isinstance(value, str) else ():
        if isinstance(one, Mapping):
            yield one
