"""The blocks of a Markdown text, beside those that another parser finds."""

from __future__ import annotations

from bisect import bisect_right

import pytest
from hypothesis import given, settings
from markdown_it import MarkdownIt

from contextframe_beam.frames.document import Heading
from contextframe_beam.transforms.chunkers.blocks import blocks_of
from contextframe_beam.transforms.chunkers.titles import plain_title
from tests.support.chunk_helpers import MARKDOWN
from tests.support.laws import examples

KINDS = {"fence": "fence", "heading_open": "heading", "table_open": "table"}
# Line ends of other kinds, tabs within lists and HTML are read in more than one way.
PLAIN = MARKDOWN.filter(
    lambda text: (
        (text.isprintable() or set(text) - {"\n"} == {one for one in text if one.isprintable()})
        and not text.startswith(("---", "+++"))
        and "<" not in text
    )
)


def kinds_of(text, headings=()):
    return [block.kind for block in blocks_of(text, headings)]


def places(text):
    """Returns kind, first line and the line behind the last of each block of ours."""
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    return [
        (block.kind, bisect_right(starts, block.start) - 1, bisect_right(starts, block.end - 1))
        for block in blocks_of(text)
        if block.kind in KINDS.values()
    ]


def without_empty_end(text, kind, first, behind):
    lines = text.split("\n")
    while behind > first and not lines[behind - 1].strip("> "):
        behind -= 1
    return kind, first, behind


@settings(max_examples=examples(200))
@given(PLAIN)
def test_fences_headings_and_tables_stand_where_another_parser_finds_them(text):
    parser = MarkdownIt("commonmark").enable("table")
    parser.core.ruler.enableOnly(["normalize", "block"])
    theirs = [
        without_empty_end(text, KINDS[token.type], *token.map)
        for token in parser.parse(text)
        if token.type in KINDS
    ]
    assert [without_empty_end(text, *place) for place in places(text)] == theirs


@settings(max_examples=examples(200))
@given(MARKDOWN)
def test_blocks_cover_all_that_is_not_white_space(text):
    covered = 0
    for block in blocks_of(text):
        assert covered <= block.start <= block.end
        assert not text[covered : block.start].strip()
        covered = block.end
    assert not text[covered:].strip()


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("---\ntitle: a\n---\n# b", ["front", "heading"]),
        ("+++\ntitle = 1\n+++\n\nb", ["front", "paragraph"]),
        ("---\n\na", ["rule", "paragraph"]),
        ("a\nb\n===\nc", ["heading", "paragraph"]),
        ("a\n\n    code\n\n    more\n\nb", ["paragraph", "code", "paragraph"]),
        ("text\na | b\n--|--\n1 | 2\n\nc", ["paragraph", "table", "paragraph"]),
        ("<div>\n# no heading\n</div>\n\n# a", ["html", "heading"]),
        ("<details>\n```sh\nls\n```\n</details>", ["html", "fence", "html"]),
        ("<!-- a\n\nb -->\nc", ["html", "paragraph"]),
        ("<pre>\n```\n\n</pre>\nb", ["html", "paragraph"]),
        ("```\n# no heading\n~~~\n```", ["fence"]),
        ("````\n```\n````\na", ["fence", "paragraph"]),
        ("- a\n- b\n\n  c", ["paragraph"] * 3),
        ("- ```\n  a\n  ```\n- b", ["fence", "paragraph"]),
        ("> ```\n> a\n\nb", ["fence", "paragraph"]),
        ("#no heading", ["paragraph"]),
        ("Loose objects\n~~~~~~~~~~~~~\nThey", ["heading", "paragraph"]),
        ("Loose objects\n~~~~~~~~~~~~~~~~~~~~\nThey", ["heading", "paragraph"]),
        ("Loose objects\n~~~~~\nls\n~~~~~", ["paragraph", "fence"]),
        ("For example:\n~~~~~~~~~~~~\nls\n~~~~~~~~~~~~", ["paragraph", "fence"]),
        ("\n~~~~~~~~~~~~\nls\n~~~~~~~~~~~~", ["fence"]),
        ("", []),
        (" \n\t\n", []),
    ],
)
def test_each_block_has_its_kind(text, kinds):
    assert kinds_of(text) == kinds


def test_a_fence_that_its_text_leaves_open_is_told():
    assert [one.is_left_open for one in blocks_of("```\na\n```\n\n~~~\nb")] == [False, True]
    assert [one.is_left_open for one in blocks_of("- ```\n  a\n\nb")] == [True, False]


def test_a_fence_in_a_list_is_opened_and_closed_with_its_indent():
    [block] = blocks_of("- ```py title=x\n  a\n  ```")
    assert (block.opening, block.closing) == ("  ```py title=x\n", "\n  ```")


def test_items_are_weaker_apart_than_blocks_and_stronger_than_items_in_them():
    text = "a\n\n- b\n- c\n  - d\n  - e\n- f\n\ng"
    _, before_list, item, _, inner, _, behind = [block.border for block in blocks_of(text)]
    assert inner < item < before_list == behind


def test_known_headings_begin_blocks_and_marks_in_the_text_say_nothing():
    text = "# a\nb\nc"
    blocks = blocks_of(text, [Heading(4, 2, "B"), Heading(4, 3, "B1")])
    assert [(one.kind, one.headings) for one in blocks] == [
        ("paragraph", ()),
        ("paragraph", ((2, "B"), (3, "B1"))),
    ]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("**Bold** and _it_", "Bold and it"),
        ("`a_b_c` of [x](https://a.example/(y))", "a_b_c of x"),
        ("[![badge](a.svg)](b) Name", "badge Name"),
        ("snake_case_name", "snake_case_name"),
        ("2 * 3 * 4", "2 * 3 * 4"),
        ("Install {#install}", "Install"),
        ('<a name="x"></a>Tom &amp; Co', "Tom & Co"),
        (r"\*args and `**kw`", "*args and **kw"),
        ("<https://a.example>", "https://a.example"),
    ],
)
def test_a_title_has_no_marks(text, title):
    assert plain_title(text) == title
