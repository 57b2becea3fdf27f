"""What people see of a message of Discord becomes Markdown, and permissions become readers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam.connectors.discord.access import (
    ADMINISTRATOR,
    CONNECT,
    READ_HISTORY,
    VIEW_CHANNEL,
    Rules,
    missing,
    needed,
    permissions_of,
    readers_of,
)
from contextframe_beam.connectors.discord.markup import Markup

NAMES = {"1": "Ana", "2": "staff", "3": "general"}
READ = VIEW_CHANNEL | READ_HISTORY


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("Hi <@1>, <@!1>", "Hi @Ana, @Ana"),
        ("<@&2> see <#3>", "@staff see #general"),
        ("<@9> <@&9> <#9>", "@9 @9 #9"),
        ("@everyone and @here", "@everyone and @here"),
        ("<:party:7> <a:dance:8>", ":party: :dance:"),
        ("<t:1767225600>", "2026-01-01 00:00 UTC"),
        ("<t:1767225600:d> <t:1767225600:T>", "2026-01-01 00:00:00 UTC"),
        (
            "<t:1767225600:R> <t:9999999999999>",
            "2026-01-01 00:00 UTC <t:9999999999999>",
        ),
        ("</remind me:12> in <id:browse>", "/remind me in Browse Channels"),
        ("`<@1>` and ``<#3> ` ``", "`<@1>` and ``<#3> ` ``"),
        ("```py\n<@1> ||x||\n```\n<@1>", "```py\n<@1> ||x||\n```\n@Ana"),
        ("||the end|| -# no", "the end -# no"),
        ("-# small\n- list", "small\n- list"),
        (
            "# Title\n> quote\n>>> all\nthis\n\nbelongs",
            "# Title\n> quote\n> all\n> this\n>\n> belongs",
        ),
        ("**bold** __u__ a__b__c ~~s~~", "**bold** <u>u</u> a<u>b</u>c ~~s~~"),
        ("[text](https://a.test) <https://b.test>", "[text](https://a.test) <https://b.test>"),
        ("a < b > c <not:a form>", "a < b > c <not:a form>"),
    ],
)
def test_text_has_the_names_of_what_it_mentions(written: str, seen: str) -> None:
    assert Markup(NAMES).text(written) == seen


def test_a_form_that_is_not_known_stays_and_is_counted() -> None:
    markup = Markup(NAMES)
    assert markup.text("<sound:9:12> <sound:9:12>") == "<sound:9:12> <sound:9:12>"
    assert markup.found.unknown == {"<sound:>": 2}


def test_addresses_of_messages_and_people_are_noted() -> None:
    markup = Markup(NAMES)
    markup.text("https://discord.com/channels/5/6/7 and https://ptb.discord.com/channels/5/6 <@1>")
    assert list(markup.found.addresses) == [("6", "7"), ("6", "")]
    assert list(markup.found.people) == ["1"]


EMBED = {
    "type": "rich",
    "author": {"name": "CI", "url": "https://ci.test"},
    "title": "Build <@1>",
    "url": "https://ci.test/1",
    "description": "failed\nagain",
    "fields": [{"name": "Branch", "value": "main"}, {"name": "Log", "value": "a\nb"}],
    "footer": {"text": "in 3 s"},
}


def component(kind: int, **told: Any) -> dict[str, Any]:
    return {"type": kind, "id": 1, **told}


CARD = component(
    17,
    components=[
        component(10, content="## Vote, <@1>"),
        component(
            9,
            components=[component(10, content="Which one?")],
            accessory=component(2, style=5, label="Open", url="https://a.test"),
        ),
        component(14),
        component(12, items=[{"media": {"url": "https://x.test/a.png"}, "description": "A cat"}]),
        component(13, file={"url": "attachment://r.pdf"}, name="r.pdf"),
        component(
            1,
            components=[
                component(2, style=1, label="Yes"),
                component(2, style=1, emoji={"name": "x"}),
            ],
        ),
        component(1, components=[component(3, placeholder="Day", options=[{"label": "Mon"}])]),
    ],
)


@pytest.mark.parametrize(
    ("message", "seen"),
    [
        (
            {"content": "See", "embeds": [EMBED]},
            "See\n\n> [CI](https://ci.test)\n>\n> **[Build @Ana](https://ci.test/1)**\n>\n> failed"
            "\n> again\n>\n> **Branch:** main\n>\n> **Log:**\n> a\n> b\n>\n> in 3 s",
        ),
        (
            {"components": [CARD]},
            "## Vote, @Ana\n\nWhich one?\n\n[Open](https://a.test)\n\nAttachment: a.png (A cat)\n\n"
            "Attachment: r.pdf\n\n[Yes] | [x]\n\nDay: Mon",
        ),
        (
            {
                "poll": {
                    "question": {"text": "Lunch?"},
                    "answers": [
                        {"answer_id": 1, "poll_media": {"text": "Yes", "emoji": {"name": "x"}}},
                        {"answer_id": 2, "poll_media": {"text": "No"}},
                    ],
                    "results": {"answer_counts": [{"id": 1, "count": 1}]},
                }
            },
            "**Poll: Lunch?**\n\n- x Yes (1 vote)\n- No (0 votes)",
        ),
        ({"sticker_items": [{"name": "Wave"}]}, "Sticker: Wave"),
        (
            {
                "type": 20,
                "content": "Done",
                "interaction": {"name": "deploy", "user": {"global_name": "Ana"}},
            },
            "> Ana used /deploy\n\nDone",
        ),
        (
            {"attachments": [{"filename": "a.png", "description": "A cat"}, {"filename": "b.pdf"}]},
            "Attachment: a.png (A cat)\n\nAttachment: b.pdf",
        ),
        (
            {
                "message_snapshots": [
                    {"message": {"content": "News\nfor <@1>", "sticker_items": [{"name": "Wave"}]}}
                ]
            },
            "> Forwarded:\n>\n> News\n> for @Ana\n>\n> Sticker: Wave",
        ),
        (
            {
                "type": 19,
                "content": "Yes",
                "referenced_message": {"author": {"username": "bob"}, "content": "Is it\nso?"},
            },
            "> bob: Is it\n\nYes",
        ),
        (
            {"type": 19, "content": "Yes", "referenced_message": None},
            "> (a deleted message)\n\nYes",
        ),
        (
            {"content": "x", "embeds": [{"type": "gifv", "url": "https://g.test/1"}]},
            "x\n\n> https://g.test/1",
        ),
        ({"content": "x", "embeds": [{"type": "poll_result"}], "flags": 4}, "x"),
        ({"content": None, "embeds": "broken", "attachments": [None, 3]}, ""),
    ],
)
def test_nothing_that_people_see_of_a_message_is_left_out(
    message: dict[str, Any], seen: str
) -> None:
    assert Markup(NAMES).message(message) == seen


def test_a_component_that_is_not_known_shows_its_text() -> None:
    markup = Markup(NAMES)
    told = component(99, label="New", components=[component(10, content="inside")])
    assert markup.message({"components": [told]}) == "New\n\ninside"
    assert markup.found.unknown == {"component 99": 1}


def rule(of: str, allow: int = 0, deny: int = 0, kind: int = 0) -> dict[str, Any]:
    return {"id": of, "type": kind, "allow": str(allow), "deny": str(deny)}


def channel(*rules: dict[str, Any], kind: int = 0) -> dict[str, Any]:
    return {"id": "7", "type": kind, "permission_overwrites": list(rules)}


G = "100"  # the server, and the role of everyone
ALL = [f"discord-guild:{G}"]
OWNER = ["user:1"]


@pytest.mark.parametrize(
    ("told", "roles", "readers"),
    [
        (channel(), {G: READ}, ALL),
        (channel(kind=2), {G: READ}, OWNER),
        (channel(kind=2), {G: READ | CONNECT}, ALL),
        (channel(), {G: 0}, OWNER),
        (channel(), {G: VIEW_CHANNEL, "5": READ_HISTORY}, ["discord-role:5", *OWNER]),
        (channel(rule(G, deny=READ)), {G: READ, "5": READ}, OWNER),
        (
            channel(rule(G, deny=READ), rule("5", READ)),
            {G: READ, "5": 0},
            ["discord-role:5", *OWNER],
        ),
        (channel(rule(G, deny=READ)), {G: READ, "5": ADMINISTRATOR}, ["discord-role:5", *OWNER]),
        (channel(rule(G, deny=READ), rule("9", READ, kind=1)), {G: READ}, [*OWNER, "user:9"]),
        # Of two roles, one hides what the other one only has by itself.
        (channel(rule("5", deny=READ)), {G: READ, "5": 0, "6": 0}, OWNER),
        (
            channel(rule("5", deny=READ), rule("6", READ)),
            {G: READ, "5": 0, "6": 0},
            ["discord-role:6", *OWNER],
        ),
        # One member may not, who may be in any role.
        (channel(rule("9", deny=READ, kind=1)), {G: READ, "5": READ}, OWNER),
        (
            channel(rule("9", deny=READ, kind=1)),
            {G: READ, "5": ADMINISTRATOR},
            ["discord-role:5", *OWNER],
        ),
        ({"id": "7", "type": 0}, {G: READ}, []),
        (channel(), {"5": READ}, []),
        (channel({"id": "5", "type": 0, "allow": "x", "deny": "0"}), {G: READ}, []),
    ],
)
def test_readers_are_those_of_whom_it_is_certain(
    told: dict[str, Any], roles: dict[str, int], readers: list[str]
) -> None:
    assert readers_of(told, G, "1", roles) == ["discord-channel:7", *readers]


_SOME = st.integers(0, 2).map(lambda number: (0, VIEW_CHANNEL, READ)[number])
_RULES = st.dictionaries(
    st.tuples(st.sampled_from([G, "5", "6", "8", "9"]), st.integers(0, 1)), st.tuples(_SOME, _SOME)
)
_ROLES = st.fixed_dictionaries({one: _SOME | st.just(ADMINISTRATOR) for one in (G, "5", "6")})


@given(_RULES, _ROLES, st.sets(st.sampled_from(["5", "6"])), st.sampled_from(["8", "9"]))
def test_whoever_is_among_the_readers_may_read(
    told: dict[tuple[str, int], tuple[int, int]],
    roles: dict[str, int],
    own: set[str],
    member: str,
) -> None:
    one = channel(*(rule(of, *some, kind) for (of, kind), some in told.items()))
    is_member = {*(f"discord-role:{role}" for role in own), f"discord-guild:{G}", f"user:{member}"}
    rules = Rules.of(one, G)
    assert rules is not None
    if is_member & set(readers_of(one, G, "1", roles)):
        assert not missing(permissions_of(roles, G, own, member, rules), needed(one))


@pytest.mark.parametrize(
    ("told", "own", "lacks"),
    [
        (channel(), [], ""),
        (channel(rule(G, deny=READ_HISTORY)), [], "Read Message History"),
        (channel(rule(G, deny=READ)), ["5"], "View Channels, Read Message History"),
        (channel(rule(G, deny=READ), rule("5", READ)), ["5"], ""),
        (
            channel(rule(G, deny=READ), rule("5", READ), rule("8", deny=READ, kind=1)),
            ["5"],
            "View Channels, Read Message History",
        ),
        (channel(rule("5", deny=READ), rule("6", READ)), ["5", "6"], ""),
        (channel(kind=2), [], "Connect"),
    ],
)
def test_what_the_bot_lacks_is_told_by_name(
    told: dict[str, Any], own: list[str], lacks: str
) -> None:
    rules = Rules.of(told, G)
    assert rules is not None
    may = permissions_of({G: READ, "5": 0, "6": 0}, G, own, "8", rules)
    assert missing(may, needed(told)) == lacks
