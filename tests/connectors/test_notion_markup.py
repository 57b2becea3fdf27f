"""What Notion's blocks, rich text and properties become, in tables of cases."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam.connectors.notion.blocks import blocks_to_markdown
from contextframe_beam.connectors.notion.properties import Properties, tags_of, title_of
from contextframe_beam.connectors.notion.rich_text import Found, RichText, page_in
from tests.worlds.notion_blocks import (
    block,
    equation,
    external,
    hosted,
    mention,
    of_every_type,
    row,
    table,
    text,
    uid,
)
from tests.worlds.notion_world import DESCRIPTION

PAGE, OTHER, PERSON = uid(0xA), uid(0xB), uid(0xC)
BARE = PAGE.replace("-", "")
SITE = "https://www.notion.so"


class Names:
    """One person and one page have names."""

    def user(self, identifier: str) -> str | None:
        return {PERSON: "Ada"}.get(identifier)

    def page(self, identifier: str) -> str | None:
        return {PAGE: "Handbook"}.get(identifier)


def rich(*parts: Any) -> str:
    return RichText(Names(), Found()).markdown(
        [text(p) if isinstance(p, str) else p for p in parts]
    )


def markdown(*blocks: Any) -> str:
    return blocks_to_markdown(blocks, Names())


def value(kind: str, told: Any) -> Any:
    return Properties(Names(), Found()).value({"id": "x", "type": kind, kind: told})


@pytest.mark.parametrize(
    ("parts", "made"),
    [
        (["plain"], "plain"),
        ([text("b", bold=True), text("c", bold=True)], "**bc**"),
        ([text(" b ", bold=True), "c"], " **b** c"),
        ([text("x", bold=True, italic=True, strikethrough=True)], "***~~x~~***"),
        ([text("x", underline=True)], "<u>x</u>"),
        ([text("a`b", code=True)], "``a`b``"),
        ([text("`", code=True)], "`` ` ``"),
        ([text("2*3", code=True)], "`2*3`"),
        ([text("a\nb", bold=True)], "**a**\n**b**"),
        ([text("site", "https://a.b/c d")], "[site](https://a.b/c%20d)"),
        ([text("site", "https://a.b/c(d)")], "[site](https://a.b/c(d))"),
        ([text("page", f"/{BARE}")], f"[page]({SITE}/{BARE})"),
        ([text("x", "https://a.b", bold=True)], "[**x**](https://a.b)"),
        (
            ["2*3 _x_ [a](b) <b> snake_case ~~s~~"],
            "2\\*3 \\_x\\_ \\[a](b) \\<b> snake_case \\~\\~s\\~\\~",
        ),
        ([equation("x^2")], "$x^2$"),
        ([mention("user", {"object": "user", "id": PERSON}, "@x")], "@Ada"),
        ([mention("user", {"object": "user", "id": OTHER}, "@x")], f"@{OTHER}"),
        ([mention("page", {"id": PAGE}, "Handbook")], f"[Handbook]({SITE}/{BARE})"),
        ([mention("database", {"id": PAGE}, "Tasks")], f"[Tasks]({SITE}/{BARE})"),
        (
            [mention("date", {"start": "2026-01-01", "end": "2026-01-02"}, "")],
            "2026-01-01 to 2026-01-02",
        ),
        ([mention("date", {"start": "2026-01-01", "end": None}, "")], "2026-01-01"),
        ([mention("link_preview", {"url": "https://a.b"}, "a.b")], "[a.b](https://a.b)"),
        ([mention("link_mention", {"href": "https://a.b", "title": "T"}, "x")], "[T](https://a.b)"),
        (
            [
                mention(
                    "template_mention",
                    {"type": "template_mention_user", "template_mention_user": "me"},
                    "@Me",
                )
            ],
            "@Me",
        ),
        ([mention("custom_emoji", {"id": PAGE, "name": "ok"}, ":ok:")], ":ok:"),
        ([mention("robot", {"id": PAGE}, "a new kind")], "a new kind"),
        ([{"type": "sparkle", "plain_text": "new", "annotations": {}, "href": None}], "new"),
        ([None, "a", 3], "a"),
    ],
)
def test_rich_text_keeps_words_links_and_styles(parts, made):
    assert rich(*parts) == made


@pytest.mark.parametrize(
    ("blocks", "made"),
    [
        ([block("paragraph", "# no heading\n1. no list")], "\\# no heading\n1\\. no list"),
        ([block("heading_2", "A\nB")], "## A B"),
        (
            [block("heading_1", "A", is_toggleable=True, below=[block("paragraph", "b")])],
            "# A\n\nb",
        ),
        (
            [
                block("numbered_list_item", "a"),
                block("numbered_list_item", "b"),
                block("paragraph", "x"),
                block("numbered_list_item", "c"),
            ],
            "1. a\n2. b\n\nx\n\n1. c",
        ),
        (
            [
                block(
                    "bulleted_list_item",
                    "a",
                    below=[
                        block("bulleted_list_item", "b", below=[block("bulleted_list_item", "c")])
                    ],
                )
            ],
            "- a\n  - b\n    - c",
        ),
        (
            [block("numbered_list_item", "a", below=[block("to_do", "b", checked=True)])],
            "1. a\n   - [x] b",
        ),
        ([block("bulleted_list_item", "a\nb")], "- a\n  b"),
        ([block("bulleted_list_item", "a"), block("numbered_list_item", "b")], "- a\n\n1. b"),
        ([block("to_do", "a"), block("to_do", "b", checked=True)], "- [ ] a\n- [x] b"),
        ([block("toggle", "a", below=[block("paragraph", "b")])], "a\n\nb"),
        ([block("quote", "a\nb")], "> a\n> b"),
        ([block("callout", "a", icon={"type": "emoji", "emoji": "!"})], "> ! a"),
        ([block("code", "a\n```\nb", language="python")], "````python\na\n```\nb\n````"),
        ([block("code", "*a*", language="plain text")], "```\n*a*\n```"),
        ([block("equation", expression="x")], "$$\nx\n$$"),
        ([block("divider")], "---"),
        ([table(row("a", "b"), row("c|d", ""))], "| a | b |\n| --- | --- |\n| c\\|d |  |"),
        ([table(row("a"), header=False)], "|  |\n| --- |\n| a |"),
        (
            [table(row("", "x"), row("y", "1"), row_header=True)],
            "|  | x |\n| --- | --- |\n| **y** | 1 |",
        ),
        (
            [
                block(
                    "column_list",
                    below=[
                        block("column", below=[block("paragraph", "l")]),
                        block("column", below=[block("paragraph", "r")]),
                    ],
                )
            ],
            "l\n\nr",
        ),
        ([block("synced_block", synced_from=None, below=[block("paragraph", "a")])], "a"),
        (
            [block("synced_block", synced_from={"type": "block_id", "block_id": PAGE})],
            f"[Synced block]({SITE}/{BARE})",
        ),
        ([{**block("child_page", title="C"), "id": PAGE}], f"[C]({SITE}/{BARE})"),
        ([block("link_to_page", type="page_id", page_id=PAGE)], f"[Handbook]({SITE}/{BARE})"),
        (
            [block("link_to_page", type="page_id", page_id=OTHER)],
            f"[Linked page]({SITE}/{OTHER.replace('-', '')})",
        ),
        (
            [block("link_to_page", type="comment_id", comment_id=PAGE)],
            f"[Linked comment]({SITE}/{BARE})",
        ),
        ([block("bookmark", url="https://a.b", caption=[text("c")])], "[c](https://a.b)"),
        ([block("embed", url="https://a.b", caption=[])], "[https://a.b](https://a.b)"),
        ([external("image", "https://a.b/c.png", "Cat")], "![Cat](https://a.b/c.png)"),
        (
            [{**hosted("pdf", "https://s3.test/x/a.pdf?X-Amz-Signature=s"), "id": PAGE}],
            f"[a.pdf]({SITE}/{BARE})",
        ),
        (
            [{**hosted("file", "https://s3.test/x", name="b.zip"), "id": PAGE}],
            f"[b.zip]({SITE}/{BARE})",
        ),
        ([block("breadcrumb"), block("table_of_contents", color="default")], ""),
        ([block("unsupported", block_type="ai_block")], "\\[ai\\_block\\]".replace("\\_", "_")),
        ([{"object": "block", "type": "poll", "poll": {"rich_text": [text("Tea?")]}}], "Tea?"),
        ([{"object": "block", "type": "poll"}], "\\[poll\\]"),
        ([{"object": "block"}, None, 3, {"type": "paragraph", "paragraph": None}], "\\[block\\]"),
        ([{**block("paragraph", "gone"), "in_trash": True}], ""),
        (
            [
                block(
                    "meeting_notes",
                    title=[text("W")],
                    calendar_event={"start_time": "1", "end_time": "2"},
                )
            ],
            "**W** (1 to 2)",
        ),
    ],
)
def test_blocks_become_markdown(blocks, made):
    assert markdown(*blocks) == made


def test_of_the_clients_types_of_blocks_each_has_a_case_and_is_known():
    options = DESCRIPTION.definitions["BlockObjectResponse"]["anyOf"]
    names = [one["$ref"].rpartition("/")[2] for one in options]
    types = {DESCRIPTION.definitions[n]["properties"]["type"]["const"] for n in names}
    found = Found()
    blocks = of_every_type(PAGE, OTHER, PAGE)
    blocks_to_markdown(blocks, Names(), found)

    def in_blocks(some):
        return {one["type"] for one in some}.union(
            *(in_blocks(one.get("children", ())) for one in some)
        )

    assert in_blocks(blocks) == types
    assert dict(found.unknown) == {"block form": 1}


def test_what_a_text_refers_to_is_gathered():
    found = Found()
    blocks_to_markdown(
        [
            block(
                "paragraph",
                mention("page", {"id": PAGE}, "p"),
                mention("user", {"id": PERSON}, "u"),
            ),
            {**block("child_page", title="C"), "id": OTHER},
            block("link_to_page", type="database_id", database_id=OTHER),
            block("paragraph", text("x", f"https://acme.notion.site/T-{BARE}")),
            block("synced_block", synced_from={"type": "block_id", "block_id": PAGE}),
        ],
        Names(),
        found,
    )
    assert list(found.references) == [f"notion:page/{PAGE}", f"notion:database/{OTHER}"]
    assert list(found.children) == [f"notion:page/{OTHER}"]
    assert (list(found.mentions), list(found.blocks)) == ([PERSON], [PAGE])


@pytest.mark.parametrize(
    ("kind", "told", "made"),
    [
        ("number", 2.5, 2.5),
        ("number", 0, 0),
        ("url", "https://a.b", "https://a.b"),
        ("email", "a@b.c", "a@b.c"),
        ("phone_number", "1", "1"),
        ("checkbox", False, False),
        ("select", {"id": "1", "name": "Open"}, "Open"),
        ("status", {"id": "1", "name": "Done"}, "Done"),
        ("multi_select", [{"name": "a"}, {"name": "b"}], ["a", "b"]),
        ("date", {"start": "2026-01-01", "end": None, "time_zone": None}, "2026-01-01"),
        ("created_time", "2026-01-01T00:00:00.000Z", "2026-01-01T00:00:00.000Z"),
        ("last_edited_time", "2026-01-01T00:00:00.000Z", "2026-01-01T00:00:00.000Z"),
        ("created_by", {"object": "user", "id": PERSON}, "Ada"),
        ("last_edited_by", {"object": "user", "id": OTHER}, OTHER),
        (
            "people",
            [{"object": "user", "id": PERSON}, {"object": "group", "id": OTHER, "name": "All"}],
            ["Ada", "All"],
        ),
        (
            "files",
            [{"name": "a.pdf", "type": "external", "external": {"url": "https://a.b"}}],
            ["a.pdf"],
        ),
        ("rich_text", [text("a", bold=True)], "**a**"),
        ("relation", [{"id": PAGE}], [f"notion:page/{PAGE}"]),
        ("formula", {"type": "string", "string": "x"}, "x"),
        ("formula", {"type": "number", "number": 3}, 3),
        ("formula", {"type": "boolean", "boolean": True}, True),
        ("formula", {"type": "date", "date": {"start": "2026-01-01"}}, "2026-01-01"),
        ("formula", {"type": "unsupported", "unsupported": {}}, None),
        ("rollup", {"type": "number", "number": 7, "function": "sum"}, 7),
        ("rollup", {"type": "date", "date": None, "function": "latest_date"}, None),
        (
            "rollup",
            {
                "type": "array",
                "function": "show_original",
                "array": [{"type": "title", "title": [text("t")]}, {"type": "number", "number": 1}],
            },
            ["t", 1],
        ),
        ("unique_id", {"prefix": "TASK", "number": 7}, "TASK-7"),
        ("unique_id", {"prefix": None, "number": 7}, "7"),
        (
            "verification",
            {"state": "verified", "verified_by": {"object": "user", "id": PERSON}, "date": None},
            {"state": "verified", "verified_by": "Ada"},
        ),
        (
            "place",
            {"lat": 1.5, "lon": 2, "name": "Here", "address": None},
            {"name": "Here", "lat": 1.5, "lon": 2},
        ),
        ("button", {}, None),
        ("hologram", {"a": 1}, {"a": 1}),
    ],
)
def test_properties_become_plain_values(kind, told, made):
    assert value(kind, told) == made


def test_of_the_clients_types_of_properties_each_is_known():
    options = DESCRIPTION.definitions["PageObjectResponse"]["properties"]["properties"]
    types = {one["properties"]["type"]["const"] for one in options["additionalProperties"]["anyOf"]}
    found = Found()
    for kind in types:
        Properties(Names(), found).value({"type": kind, kind: {}})
    assert not found.unknown


def test_the_title_is_the_property_of_that_type_and_tags_that_of_that_name():
    page = {
        "properties": {
            "Aufgabe": {"type": "title", "title": [text("Do "), text("it", bold=True)]},
            "Tags": {"type": "multi_select", "multi_select": [{"name": "x"}]},
        }
    }
    assert (title_of(page), tags_of(page)) == ("Do it", ["x"])
    assert Properties(Names(), Found()).values(page["properties"]) == {"Tags": ["x"]}


@pytest.mark.parametrize(
    ("address", "is_page"),
    [
        (f"https://www.notion.so/acme/Title-{BARE}?pvs=4#{OTHER}", True),
        (f"https://app.notion.com/p/{BARE}", True),
        (f"https://acme.notion.site/{PAGE}", True),
        (f"/{BARE}", True),
        (f"https://www.notion.so/{OTHER.replace('-', '')}?v=1&p={BARE}", True),
        (f"https://example.test/{BARE}", False),
        ("https://www.notion.so/product", False),
        ("http://[", False),
        ("", False),
    ],
)
def test_addresses_of_pages_are_known(address, is_page):
    assert page_in(address) == (PAGE if is_page else None)


@given(
    st.text(alphabet="*_`~[]()<>\\#->1.|!ab \n", max_size=40),
    st.sampled_from(["bold", "italic", "code"]),
)
def test_no_character_of_a_text_is_lost(content, style):
    made = markdown(block("paragraph", content, text(content, **{style: True})))
    assert all(made.count(sign) >= 2 * content.count(sign) for sign in "ab1[]()!")
