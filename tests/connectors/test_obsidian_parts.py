"""Parts of notes: sections by heading, and what embeds show of other notes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.obsidian.connector import ObsidianConnector
from contextframe_beam.connectors.obsidian.sections import part_of, sections_of
from contextframe_beam.errors import ConfigError
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.transforms.commit import CommitReceipt

NOTE = """Before.

# One

Text of one. ^first

```
# no heading
```

## Deeper

- item
- other ^item

# Two

| a |
| - |

^table
"""


def put(vault: Path, **notes: str) -> None:
    """Writes notes that were changed an hour ago, or later than those before."""
    vault.mkdir(exist_ok=True)
    for name, text in notes.items():
        file = vault / f"{name}.md"
        at = time.time() - 3600 + (60 if file.exists() else 0)
        file.write_text(text)
        os.utime(file, (at, at))


def run(vault: Path, to: Path, mode: str = "upsert", **settings: Any) -> CommitReceipt:
    connector = ObsidianConnector(vault, **settings)
    return ingest(connector, str(to), mode=mode, max_deletes="100%", embed_dim=2)


def texts(to: Path) -> dict[str, str]:
    rows = FrameDataset.open(str(to))
    return {str(one.unique_id).partition("/")[2]: str(one.text_content) for one in rows}


def test_sections_reach_from_heading_to_heading() -> None:
    found = {one.path: NOTE[one.start : one.end] for one in sections_of(NOTE)}
    assert list(found) == [(), ("One",), ("One", "Deeper"), ("Two",)]
    assert found[()] == "Before.\n\n" and "# no heading" in found[("One",)]


@given(st.text(alphabet="# abc`\n^-", max_size=120))
def test_sections_together_are_the_note(text: str) -> None:
    assert "".join(text[one.start : one.end] for one in sections_of(text)) == text


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        ("", NOTE),
        ("Deeper", "## Deeper\n\n- item\n- other ^item\n\n"),
        ("one#deeper", "## Deeper\n\n- item\n- other ^item\n\n"),
        ("Two", "# Two\n\n| a |\n| - |\n\n^table\n"),
        ("^first", "Text of one."),
        ("^item", "- other"),
        ("^table", "| a |\n| - |"),
        ("Missing", None),
        ("^missing", None),
    ],
)
def test_a_link_to_a_part_means_a_heading_with_all_below_it_or_a_block(part, shown):
    assert part_of(NOTE, part) == shown


def test_embeds_show_their_notes_in_place_and_follow_their_changes(tmp_path: Path) -> None:
    vault, to = tmp_path / "Notes", tmp_path / "kb.lance"
    put(
        vault,
        A="See:\n\n![[B#Part]]\n\n> ![[C]]\n\n![[A]] ![[Private]] ![[Missing]]",
        B="# Other\n\nx\n\n# Part\n\nShown with [[C|link]].",
        C="one\ntwo ![[A]]",
        Private="secret",
    )
    settings = {"embeds": "inline", "exclude": ["Private.md"]}
    assert run(vault, to, **settings).rows_written == 3
    assert texts(to)["A.md"] == (
        "See:\n\n# Part\n\nShown with [link](C.md).\n\n> one\n> two [A](A.md)\n\n"
        "[A](A.md) [Private](Private.md) [Missing](Missing)"
    )
    assert run(vault, to, **settings).rows_written == 0
    put(vault, B="# Part\n\nEdited.")
    # C shows A, which shows B.
    assert run(vault, to, **settings).rows_written == 3
    assert "Edited." in texts(to)["A.md"]
    assert "![[" not in "".join(texts(to).values())


def test_sections_are_documents_that_come_and_go_with_their_note(tmp_path: Path) -> None:
    vault, to = tmp_path / "Notes", tmp_path / "kb.lance"
    put(vault, A="Start.\n\n# One\n\n[[B]]\n\n## One\n\n# One\n\nagain", B="No heading.")
    assert run(vault, to, split="heading").rows_written == 5
    assert texts(to)["A.md"] == "Start.\n\n"
    assert texts(to)["A.md#One"] == "# One\n\n[B](B.md)"
    assert set(texts(to)) == {"A.md", "B.md", "A.md#One", "A.md#One#One", "A.md#One#2"}
    row = next(one for one in FrameDataset.open(str(to)) if str(one.unique_id).endswith("#One"))
    assert row.metadata["title"] == "One" and row.metadata["kind"] == "section"
    assert [one["target_id"] for one in row.metadata["relationships"]] == [
        "obsidian:Notes/A.md",
        "obsidian:Notes/B.md",
    ]
    for mode in ("upsert", "mirror"):
        again = run(vault, to, mode, split="heading")
        assert (again.rows_written, again.rows_deleted) == (0, 0)
    put(vault, A="Start.\n\n# One\n\n[[B]]")
    changed = run(vault, to, split="heading")
    assert (changed.rows_written, changed.rows_deleted) == (1, 2)
    (vault / "A.md").unlink()
    assert run(vault, to, split="heading").rows_deleted == 2
    assert set(texts(to)) == {"B.md"}


def test_sections_go_when_notes_are_whole_again(tmp_path: Path) -> None:
    vault, to = tmp_path / "Notes", tmp_path / "kb.lance"
    put(vault, A="# One\n\n# Two")
    run(vault, to, split="heading")
    assert run(vault, to).rows_deleted == 2


@pytest.mark.parametrize("settings", [{"embeds": "all"}, {"split": "line"}])
def test_choices_that_there_are_not_are_refused(tmp_path: Path, settings: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="it is"):
        ObsidianConnector(tmp_path, **settings)
