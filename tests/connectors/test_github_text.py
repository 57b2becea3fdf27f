"""What a text of GitHub refers to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam.connectors.github.text import mentions, references, relationships


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("See #1, GH-2 and (#3).", [("", "issue", 1), ("", "issue", 2), ("", "issue", 3)]),
        ("**#4** _#5_ [#6](x) #7:", [("", "issue", n) for n in (4, 5, 6, 7)]),
        ("acme/app#8 a-b/c.d_e#9", [("acme/app", "issue", 8), ("a-b/c.d_e", "issue", 9)]),
        (
            "https://github.com/acme/app/pull/4#issuecomment-9 "
            "http://GitHub.com/acme/app/issues/5?x=1 <https://github.com/a/b/discussions/6>",
            [("acme/app", "issue", 4), ("acme/app", "issue", 5), ("a/b", "discussion", 6)],
        ),
        ("#1 and again #1", [("", "issue", 1)]),
        ("C#1 a#2 &#3; ##4 x/#5 #6a #0 #-7 https://x.test/#8", []),
        ("https://gitlab.com/a/b/issues/1 github.com.evil.test/a/b/issues/2", []),
        ("https://github.com/acme/app/issues/new", []),
        ("`#1` ``#2 ` #3`` <!-- #4 -->", []),
        ("```\n#1\n```\n~~~md\n#2\n~~~\n#3", [("", "issue", 3)]),
        ("````\n```\n#1\n```\n````\n#2", [("", "issue", 2)]),
        ("```\n#1 in a block without an end", []),
        ("#1\r\n```\r\n#2\r\n```\r\n#3", [("", "issue", 1), ("", "issue", 3)]),
    ],
)
def test_a_text_refers_to(text, found):
    told = [(one.repository, one.kind, one.number) for one in references(text, "github.com")]
    assert told == found


@pytest.mark.parametrize(
    ("text", "closed"),
    [
        ("Closes #1, fixes: #2 and RESOLVED acme/app#3", {1, 2, 3}),
        ("Fix https://github.com/acme/app/issues/4", {4}),
        ("prefixes #5, closing #6, see #7", set()),
        ("#8, which this closes #8", {8}),
    ],
)
def test_a_text_says_what_it_closes(text, closed):
    assert {one.number for one in references(text, "github.com") if one.closes} == closed


@pytest.mark.parametrize(
    ("text", "people"),
    [
        ("@alice, @Bob-b and (@carol).", ["alice", "Bob-b", "carol"]),
        ("@acme/team-one @alice @ALICE", ["acme/team-one", "ALICE"]),
        ("a@b.test x/@dave `@eve` @-f @@g https://x.test/@h @i--j", []),
        ("```\n@alice\n```", []),
    ],
)
def test_a_text_mentions(text, people):
    assert mentions(text) == people


def test_targets_are_ids_where_the_repository_is_read_and_addresses_elsewhere():
    made = relationships(
        "#1 acme/app#1 Acme/Lib#2 who/x#3 @bob",
        11,
        "acme/app",
        {"acme/lib": 12},
        "github.com",
        parents=["github:11/issue/9"],
        own="github:11/issue/7",
    )
    assert [(one["relationship_type"], one["target_id"]) for one in made] == [
        ("parent", "github:11/issue/9"),
        ("reference", "github:11/issue/1"),
        ("reference", "github:12/issue/2"),
        ("reference", "https://github.com/who/x/issues/3"),
        ("mentions", "github:user/bob"),
    ]


@given(st.text(alphabet="#@`~<!->/ab1.\n\r\\:", max_size=200))
def test_any_text_is_read(text):
    assert all(one.number for one in references(text, "github.com"))
    assert all(one.strip("-") == one for one in mentions(text))
