"""What Slack's markup, blocks and attachments become, in tables of cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam.connectors.slack.blocks import message_to_markdown
from contextframe_beam.connectors.slack.mrkdwn import Found, Mrkdwn
from tests.worlds.slack_blocks import items, mrkdwn, of_every_type, part, plain, rich, section

LINK = "https://acme.slack.com/archives/C1/p1767600007000004"


class Names:
    """One person, one channel and one group have names."""

    def user(self, identifier: str) -> str | None:
        return {"U1": "Ada"}.get(identifier)

    def channel(self, identifier: str) -> str | None:
        return {"C1": "general"}.get(identifier)

    def group(self, identifier: str) -> str | None:
        return {"S1": "eng"}.get(identifier)


def text(written: str) -> str:
    return Mrkdwn(Names(), Found()).markdown(written)


def message(found: Found | None = None, **told: Any) -> str:
    return message_to_markdown(told, Names(), Found() if found is None else found)


@pytest.mark.parametrize(
    ("written", "made"),
    [
        ("*bold* _it_ ~gone~ `co*de`", "**bold** *it* ~~gone~~ `co*de`"),
        ("*_both_ x*, *(so)*", "***both* x**, **(so)**"),
        ("2*3*4 a_b_c *open", "2\\*3\\*4 a_b_c \\*open"),
        ("*a\nb*", "\\*a\nb\\*"),
        ("a ```x\n*y*``` b", "a\n\n```\nx\n*y*\n```\n\nb"),
        ("```<https://x.test|x> &amp; ```", "```\nx & \n```"),
        ("&gt; quote *b*\n&gt; more\nnot", "> quote **b**\n> more\n\nnot"),
        ("&gt;&gt;&gt; all\nof it", "> all\n> of it"),
        ("Do:\n• one\n• two\n    ◦ sub\nafter", "Do:\n- one\n- two\n  - sub\n\nafter"),
        ("1. one\n2. two", "1. one\n2. two"),
        ("# none\n= = =", "\\# none\n= = ="),
        ("<@U1> <@U2|bob> <@U3>", "@Ada @bob @U3"),
        ("<#C1|old-name> <#C2|other> <#C3>", "#general #other #C3"),
        ("<!subteam^S1> <!subteam^S2|@ops>", "@eng @ops"),
        ("<!here> <!channel> <!everyone>", "@here @channel @everyone"),
        ("<!date^1392734382^{date} at {time}|then>", "February 18, 2014 at 14:39 UTC"),
        ("<!date^1392734382^{date_num}^https://x.test|then>", "[2014-02-18](https://x.test)"),
        ("<!date^soon^{date}|then>", "then"),
        ("<!new^x|label>", "label"),
        (
            "<https://x.test/a_b|la*bel> <https://x.test/_b>",
            "[la\\*bel](https://x.test/a_b) https://x.test/_b",
        ),
        ("*<https://x.test|link>*: y", "**[link](https://x.test)**: y"),
        ("<mailto:a@b.c|a@b.c> <tel:+1|call>", "[a@b.c](mailto:a@b.c) [call](tel:+1)"),
        ("&lt;b&gt; &amp;lt; :tada:", "\\<b> &lt; :tada:"),
        ("a\n\n\n\nb", "a\n\nb"),
        ("", ""),
        ("<>", "<>"),
    ],
)
def test_mrkdwn(written, made):
    assert text(written) == made


def test_each_type_of_block_is_in_the_golden_message() -> None:
    golden = Path(__file__).parent.parent / "data" / "slack" / "blocks.md"
    found = Found()
    made = message(found, blocks=of_every_type())
    assert made == golden.read_text(encoding="utf-8").rstrip("\n")
    assert found.unknown == {}


@pytest.mark.parametrize(
    ("told", "made"),
    [
        ({"text": "*x*"}, "**x**"),
        ({"text": "fallback", "blocks": [rich(part("shown"))]}, "shown"),
        ({"text": "fallback", "blocks": [{"type": "rich_text", "elements": []}]}, "fallback"),
        ({"text": "waves", "subtype": "me_message"}, "*waves*"),
        (
            {"files": [{"name": "a.pdf", "permalink": "https://x.test/F1"}]},
            "- [a.pdf](https://x.test/F1)",
        ),
        ({"files": [{"id": "F1", "name": "a.pdf", "title": "Plan"}]}, "- Plan (a.pdf)"),
        ({"files": [{"id": "F1", "mode": "tombstone"}]}, "- F1 (deleted)"),
        (
            {"files": [{"id": "F1", "name": "a", "mode": "hidden_by_limit"}]},
            "- a (hidden by the limit of the plan)",
        ),
        ({"blocks": [rich(part("a "), part("b ", "bold"), part("c", "bold"))]}, "a **b c**"),
        ({"blocks": [rich(part("# a\n- b"))]}, "\\# a\n\\- b"),
        ({"blocks": [rich(items("ordered", "x", offset=4))]}, "5. x"),
        ({"blocks": [rich(items("bullet", "a\nb"))]}, "- a\n  b"),
        ({"blocks": [rich(section(part("a")), section(part("b")))]}, "a\n\nb"),
        (
            {
                "blocks": [
                    {
                        "type": "call",
                        "call": {"v1": {"name": "Standup", "join_url": "https://x.test/j"}},
                    }
                ]
            },
            "[Standup](https://x.test/j)",
        ),
        ({"blocks": [{"type": "hologram", "text": plain("seen")}]}, "seen"),
        ({"blocks": [{"type": "hologram"}]}, "\\[hologram\\]"),
        ({"blocks": [rich({"type": "smell", "text": "roses"})]}, "roses"),
        ({"blocks": "nonsense", "attachments": 7, "files": [1]}, ""),
    ],
)
def test_a_message_is_what_a_person_sees(told, made):
    assert message(**told) == made


@pytest.mark.parametrize(
    ("attachment", "made"),
    [
        (
            {
                "pretext": "New *alert*",
                "author_name": "CI",
                "author_link": "https://x.test/ci",
                "title": "Build 7 &lt;main&gt;",
                "title_link": "https://x.test/7",
                "text": "It _failed_",
                "fields": [{"title": "Stage", "value": "test"}, {"value": "alone"}],
                "image_url": "https://x.test/i.png",
                "footer": "by CI",
                "actions": [{"type": "button", "text": "Retry", "url": "https://x.test/r"}],
                "fallback": "not shown",
            },
            "New **alert**\n\n> [CI](https://x.test/ci)\n>\n"
            "> **[Build 7 \\<main>](https://x.test/7)**\n>\n> It *failed*\n>\n"
            "> **Stage**: test\n> alone\n>\n> ![Build 7 \\<main>](https://x.test/i.png)\n>\n> [Retry](https://x.test/r)\n>\n"
            "> by CI",
        ),
        (
            {"service_name": "News", "title": "T", "from_url": "https://n.test/1", "text": "Body"},
            "> News\n>\n> **[T](https://n.test/1)**\n>\n> Body",
        ),
        (
            {
                "is_msg_unfurl": True,
                "author_name": "Bob",
                "channel_id": "C1",
                "from_url": LINK,
                "text": "fallback",
                "message_blocks": [{"message": {"blocks": [rich(part("said", "bold"))]}}],
            },
            f"> [Bob in #general]({LINK})\n>\n> **said**",
        ),
        ({"blocks": [{"type": "section", "text": mrkdwn("*b*")}]}, "> **b**"),
        ({"fallback": "Only this"}, "> Only this"),
        ({"color": "#fff"}, ""),
    ],
)
def test_a_legacy_attachment_is_a_quotation(attachment, made):
    assert message(attachments=[attachment]) == made


def test_a_shared_message_is_a_reference() -> None:
    found = Found()
    message(
        found,
        text=f"See <{LINK}?thread_ts=1767600000.000001&amp;cid=C1> by <@U1>",
        attachments=[{"is_share": True, "from_url": LINK, "text": "x"}],
    )
    assert list(found.references) == ["slack:C1/1767600000.000001", "slack:C1/1767600007.000004"]
    assert list(found.mentions) == ["U1"]


@pytest.mark.parametrize(
    ("told", "form"),
    [
        ({"text": "<!new^x>"}, "reference new"),
        ({"blocks": [{"type": "hologram"}]}, "block hologram"),
        ({"blocks": [rich({"type": "smell"})]}, "rich text smell"),
        ({"blocks": [rich({"type": "rich_text_ode", "elements": []})]}, "rich text rich_text_ode"),
        ({"blocks": [{"type": "actions", "elements": [{"type": "lever"}]}]}, "element lever"),
    ],
)
def test_what_is_not_known_is_counted_and_stays_visible(told, form):
    found = Found()
    assert message(found, **told)
    assert found.unknown == {form: 1}


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_can_be_read_and_keeps_its_letters(written):
    def letters(one: str) -> list[str]:
        return sorted(sign for sign in one if sign.isalnum())

    escaped = written.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert letters(text(escaped)) == letters(written.replace("\ue000", "").replace("\ue001", ""))
    message(text=written, blocks=[rich(part(written))])


NAMES = ["type", "text", "elements", "style", "blocks", "rows", "fields", "url", "title", "tasks"]
KINDS = ["rich_text", "section", "actions", "table", "card", "plan", "video", "input"]


@pytest.mark.parametrize("sign", ["*a ", "_a ", "~a ", "`a ", "<a ", "```", "&gt;"])
def test_marks_without_an_end_stay_as_they_are(sign):
    made = text(sign * 2000)
    assert made.count("a") == (2000 if "a" in sign else 0)


value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(NAMES), value))
def test_nonsense_in_blocks_ends_nothing(kind, told):
    message(blocks=[{**told, "type": kind}], attachments=[told], files=[told])
