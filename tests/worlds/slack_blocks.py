"""Blocks of messages of Slack, at least one of each type, as its package of types has them."""

from __future__ import annotations

from typing import Any


def plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text}


def mrkdwn(text: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": text}


def rich(*elements: Any) -> dict[str, Any]:
    """Returns a block of rich text; texts and parts stand in one section."""
    if all(not str(one.get("type")).startswith("rich_text") for one in elements):
        elements = (section(*elements),)
    return {"type": "rich_text", "elements": list(elements)}


def section(*parts: Any) -> dict[str, Any]:
    return {"type": "rich_text_section", "elements": list(parts)}


def part(text: str, *styles: str) -> dict[str, Any]:
    told: dict[str, Any] = {"type": "text", "text": text}
    return {**told, "style": dict.fromkeys(styles, True)} if styles else told


def items(style: str, *texts: str, indent: int = 0, **more: Any) -> dict[str, Any]:
    elements = [section(part(one)) for one in texts]
    return {
        "type": "rich_text_list",
        "style": style,
        "indent": indent,
        "elements": elements,
        **more,
    }


def of_every_type() -> list[dict[str, Any]]:
    """Returns blocks of all types."""
    image = {
        "type": "image",
        "image_url": "https://x.test/i.png",
        "alt_text": "A chart",
    }
    button = {"type": "button", "action_id": "a", "text": plain("Approve")}
    link = {"type": "button", "text": plain("Open"), "url": "https://x.test/run/1"}
    options = [{"text": plain("One"), "value": "1"}, {"text": plain("Two"), "value": "2"}]
    card = {
        "type": "card",
        "title": mrkdwn("A card"),
        "subtitle": mrkdwn("below"),
        "body": mrkdwn("with *text*"),
        "actions": [link],
    }
    task = {
        "type": "task_card",
        "task_id": "t",
        "title": "Look it up",
        "status": "in_progress",
        "output": rich(part("Found.")),
        "sources": [{"type": "url", "url": "https://x.test/s", "text": "Source"}],
    }
    return [
        {"type": "header", "text": plain("Deploy *7*")},
        {
            "type": "section",
            "text": mrkdwn("*Bold* and <https://x.test|a link>"),
            "accessory": button,
        },
        {"type": "section", "fields": [mrkdwn("*Stage*\nlive"), plain("a_b")]},
        {
            "type": "section",
            "text": plain("Choose"),
            "accessory": {"type": "radio_buttons", "options": options},
        },
        {"type": "context", "elements": [image, mrkdwn("by <@U1>")]},
        {"type": "divider"},
        {"type": "actions", "elements": [button, link]},
        {
            "type": "context_actions",
            "elements": [
                {
                    "type": "feedback_buttons",
                    "positive_button": {"text": plain("Good"), "value": "1"},
                    "negative_button": {"text": plain("Bad"), "value": "0"},
                }
            ],
        },
        {**image, "title": plain("Chart of the week")},
        {
            "type": "input",
            "label": plain("Name"),
            "element": {"type": "plain_text_input", "placeholder": plain("Your name")},
            "hint": plain("As in the passport"),
        },
        {"type": "file", "external_id": "ext-1", "source": "remote"},
        {
            "type": "video",
            "video_url": "https://x.test/v",
            "thumbnail_url": "https://x.test/t",
            "alt_text": "Film",
            "title": plain("A film"),
            "title_url": "https://x.test/film",
            "description": plain("of ten minutes"),
        },
        {"type": "markdown", "text": "**As it is** | [x](https://x.test)"},
        {
            "type": "table",
            "rows": [
                [{"type": "raw_text", "text": "Name"}, {"type": "raw_text", "text": "Size"}],
                [rich(part("a|b", "bold")), {"type": "raw_text", "text": "3"}],
            ],
        },
        {
            "type": "data_table",
            "caption": "Numbers",
            "rows": [
                [{"type": "raw_text", "text": "N"}],
                [{"type": "raw_number", "value": 7, "text": "7.0"}],
            ],
        },
        {"type": "alert", "level": "warning", "text": mrkdwn("Take *care*")},
        card,
        {"type": "carousel", "elements": [{"type": "card", "title": mrkdwn("Second card")}]},
        {
            "type": "container",
            "title": plain("A container"),
            "child_blocks": [{"type": "section", "text": mrkdwn("inside")}],
        },
        {"type": "plan", "title": "The plan", "tasks": [task]},
        rich(
            section(
                part("Plain, "),
                part("bold", "bold"),
                part(" and "),
                part("both", "bold", "italic"),
                part(", "),
                part("code", "code"),
                part(", "),
                part("gone", "strike"),
                part(" "),
                {"type": "user", "user_id": "U1"},
                part(" "),
                {"type": "usergroup", "usergroup_id": "S1"},
                part(" "),
                {"type": "channel", "channel_id": "C1"},
                part(" "),
                {"type": "broadcast", "range": "here"},
                part(" "),
                {"type": "emoji", "name": "tada", "unicode": "1f389"},
                {"type": "emoji", "name": "party-parrot"},
                part(" "),
                {"type": "link", "url": "https://x.test/a_b", "text": "a link"},
                part(" "),
                {"type": "link", "url": "https://x.test/bare"},
                part(" "),
                {"type": "color", "value": "#FF0000"},
                part(" "),
                {
                    "type": "date",
                    "timestamp": 1720710212,
                    "format": "{date_num} {time}",
                    "fallback": "x",
                },
                part(" "),
                {"type": "team", "team_id": "T1"},
            ),
            items("bullet", "one", "two"),
            items("ordered", "first", "second", indent=1),
            items("bullet", "three"),
            {"type": "rich_text_quote", "elements": [part("quoted\ntwice")]},
            {"type": "rich_text_preformatted", "elements": [part("x = *1*\n```")]},
        ),
    ]
