"""What Linear's Markdown refers to, case by case."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam.connectors.linear.text import (
    Upload,
    handles,
    profiles,
    relationships,
    targets,
    uploads,
)

HOST = "https://uploads.linear.app"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("https://linear.app/acme/issue/ENG-12", [("issue", "ENG-12")]),
        ("https://linear.app/acme/issue/eng-12/a-title#comment-1f", [("issue", "ENG-12")]),
        ("[Fix](https://linear.app/acme/issue/ENG-12/fix), too", [("issue", "ENG-12")]),
        ("<https://linear.app/acme/issue/A1-2>.", [("issue", "A1-2")]),
        (
            "https://linear.app/acme/issue/ENG-12. https://linear.app/acme/issue/ENG-12/x",
            [("issue", "ENG-12")],
        ),
        ("**https://linear.app/acme/issue/ENG-12**", [("issue", "ENG-12")]),
        (
            "https://linear.app/acme/project/new-app-1f2e3d4c5b6a/overview",
            [("project", "1f2e3d4c5b6a")],
        ),
        ("https://linear.app/acme/document/spec-1f2e3d4c5b6a?x=1", [("document", "1f2e3d4c5b6a")]),
        (
            "https://linear.app/acme/initiative/growth-1f2e3d4c5b6a",
            [("initiative", "1f2e3d4c5b6a")],
        ),
        ("https://linear.app/ACME/issue/ENG-12", [("issue", "ENG-12")]),
        ("https://linear.app/other/issue/ENG-12", []),
        ("https://linear.app/acme/issue/new", []),
        ("https://linear.app/acme/profiles/ana", []),
        ("https://linear.app.example.com/acme/issue/ENG-12", []),
        ("`https://linear.app/acme/issue/ENG-12`", []),
        ("```\nhttps://linear.app/acme/issue/ENG-12\n```", []),
    ],
)
def test_what_an_address_leads_to(text, found):
    assert [one[:2] for one in targets(text, "acme")] == found


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("@ana and @bob.ray, thanks", ["ana", "bob.ray"]),
        ("(@ana)", ["ana"]),
        ("@ana.", ["ana"]),
        ("ana@example.com, `@ana`, @acme/team, a/@ana", []),
        ("@ana @ana", ["ana"]),
        ("https://example.com/@ana", []),
        ("@Zoë", ["Zoë"]),
    ],
)
def test_names_after_an_at(text, names):
    assert handles(text) == names


def test_people_are_mentioned_by_their_address():
    text = "https://linear.app/acme/profiles/ana and https://linear.app/acme/profiles/Bob%20Ray."
    assert profiles(text, "acme") == ["ana", "Bob Ray"]
    found = relationships(text, "acme", {}, {"ana": "u1"}, "linear:issue/1")
    assert [one["target_id"] for one in found] == ["linear:user/u1", "linear:user/Bob Ray"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"[a.pdf]({HOST}/o/1/2)", [Upload(f"{HOST}/o/1/2", "a.pdf")]),
        (f"![shot.png]({HOST}/o/1/2)", [Upload(f"{HOST}/o/1/2", "shot.png", True)]),
        (f"![]({HOST}/o/1/2)", [Upload(f"{HOST}/o/1/2", "2", True)]),
        (f"[a \\[1\\].pdf](<{HOST}/o/1/2>)", [Upload(f"{HOST}/o/1/2", "a [1].pdf")]),
        (f"{HOST}/o/1/a%20b.pdf.", [Upload(f"{HOST}/o/1/a%20b.pdf", "a b.pdf")]),
        (f"{HOST}/o/1/2?signature=x", [Upload(f"{HOST}/o/1/2", "2")]),
        (f"{HOST}/o/1/2 and [a.pdf]({HOST}/o/1/2)", [Upload(f"{HOST}/o/1/2", "a.pdf")]),
        (f"`{HOST}/o/1/2` and https://uploads.linear.app.example.com/o/1", []),
    ],
)
def test_uploaded_files(text, found):
    assert uploads(text, HOST) == found


@given(st.text(alphabet="[]()!<>`@/.-:ab1 \n", max_size=80))
def test_any_text_is_read(text):
    address = f"https://linear.app/acme/issue/ENG-1{text}{HOST}/{text}"
    assert targets(address, "") is not None
    assert all(one.name for one in uploads(address, HOST)) and handles(address) is not None
