"""A message speaks of settings as Python does; the command line says its options instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.pipelines.job import in_flags
from tests.support.cli_helpers import assert_error, cli, write_documents

FLAGS = {"max_deletes": "--max-deletes", "mode": "--mode", "full": "--full", "limit": "--limit"}


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ('If it is empty: max_deletes="100%"', "If it is empty: --max-deletes 100%"),
        (
            "more than the 5% that `max_deletes` allows",
            "more than the 5% that --max-deletes allows",
        ),
        ('choose mode="upsert", append or', "choose --mode upsert, append or"),
        ("reading everything (full=True) helps", "reading everything (--full) helps"),
        ('mode="two words"', "--mode 'two words'"),
        ('max_deletes="1", mode="upsert"', "--max-deletes 1, --mode upsert"),
    ],
)
def test_a_setting_becomes_its_option(said, shown):
    assert in_flags(said, FLAGS) == shown


@pytest.mark.parametrize(
    "said",
    [
        'another="one"',
        "the argument `another`",
        "the mode upsert, and full names",
        'GET https://x.example/?limit="5" failed',
        "GET https://x.example/?limit=5 failed",
        "full=Truely",
        'the field "mode" is missing',
    ],
)
def test_what_is_no_setting_stays_as_it_is(said):
    assert in_flags(said, FLAGS) == said


@pytest.fixture
def emptied(tmp_path: Path) -> tuple[Path, Path]:
    """A folder whose 120 documents are stored, and gone from it."""
    docs = write_documents(
        tmp_path / "docs", {f"{n}.json": {"id": n, "text": "t"} for n in range(120)}
    )
    kb = tmp_path / "kb.lance"
    assert cli("ingest", "json", "--directory", docs, "--to", kb).code == 0
    for file in docs.iterdir():
        file.unlink()
    return docs, kb


def test_the_command_line_says_how_to_delete_all(emptied):
    docs, kb = emptied
    result = cli("ingest", "json", "--directory", docs, "--to", kb, "--mode", "mirror")
    assert result.code == 1
    assert result.err.endswith(
        "Error: the source gave nothing, and 120 of its documents are stored; nothing was deleted. "
        "If it really is empty: --max-deletes 100%\n"
    )
    assert len(FrameDataset.open(str(kb))) == 120


def test_options_of_other_commands_are_meant_as_well(emptied):
    result = cli("cleanup", emptied[1], "--lost-after", "1h")
    assert_error(result, 2, "promise that nobody is writing (--no-writers)")


def test_a_warning_says_the_connectors_own_option(tmp_path):
    docs = write_documents(tmp_path / "docs", {".a.json": {"id": 1}, "b.json": {"id": 2}})
    result = cli("ingest", "json", "--directory", docs, "--to", tmp_path / "kb.lance")
    assert "such files are read with --hidden." in result.err
