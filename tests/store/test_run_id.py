"""A run id is a name and not a path, of a length that every file system takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam.errors import ConfigError
from contextframe_beam.pipelines.ingest import default_dead_letters
from contextframe_beam.store.runs import LONGEST, check_run_id, file_name_of
from contextframe_beam.transforms import WriteToLance
from contextframe_beam.transforms.letters import pieces_prefix
from tests.support.cli_helpers import assert_error, cli, letters_of, write_documents

ODD = [
    "../../etc/passwd",
    "/etc/passwd",
    "..",
    ".",
    ".hidden",
    "a/b",
    "a\\b",
    "~root",
    "a*?[x]",
    "50%",
    "%2F",
    "a b",
    " padded ",
    "C:con",
    "file://x",
    "s3://bucket/key",
    "gs://a::b",
    "-rf",
    "--help",
    "$(touch x)",
    "'quoted'",
    "scheduled__2026-01-01T00:00:00+00:00",
    "дневной",
    "每日",
    "e\u0301",
    "x" * 255,
    "長" * 255,
    "x" * (LONGEST - 32),
    "/" * 300,
]
REFUSED = [
    *("", " ", "\t", "a\nb", "a\x00b", "\x1b[2J", "a\x7f", "a\u2028b", "\ud800"),
    "x" * (LONGEST + 1),
]

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


class TestFileNames:
    @given(ids)
    def test_they_are_names_that_every_file_system_takes(self, run_id: str) -> None:
        name = file_name_of(run_id)
        assert 0 < len(name) <= 60
        assert name.isascii() and name.isprintable()
        assert not set(name) & set('/\\:*?"<>| ')
        assert not name.startswith(".")

    @given(ids, ids)
    def test_different_ids_have_different_names(self, one: str, other: str) -> None:
        assert (file_name_of(one) == file_name_of(other)) == (one == other)

    def test_no_short_id_has_the_name_of_a_long_one(self) -> None:
        long = file_name_of("x" * 200)
        assert file_name_of(long) != long

    @pytest.mark.parametrize("run_id", ["nightly", "0" * 32, "docs-2026-01-01T07", "a.b_c+d@e=f"])
    def test_plain_ids_are_their_own_names(self, run_id: str) -> None:
        assert file_name_of(run_id) == run_id

    @given(ids)
    def test_no_file_of_a_run_has_a_longer_name_than_143(self, run_id: str) -> None:
        """What an encrypted folder of Linux takes; others take 255."""
        letters = default_dead_letters("kb.lance", run_id)
        last = f"{pieces_prefix(letters, run_id)}{'0' * 32}.part"
        assert len(Path(last).name) <= 143
        assert Path(last).parent == Path("kb.lance.dead-letters")


@pytest.mark.sample(6)
@pytest.mark.parametrize("run_id", ODD)
def test_odd_names_are_names(run_id: str, tmp_path: Path) -> None:
    docs = write_documents(tmp_path / "in" / "docs", {"a.json": {"id": "a"}, "b.json": "{"})
    kb = tmp_path / "in" / "kb.lance"
    command = ["ingest", "json", "--directory", docs, "--to", kb, f"--run-id={run_id}"]
    first = cli(*command, "--max-failures", 1, "--embed-dim", 4, "--json").json
    assert (first["run_id"], first["already_committed"]) == (run_id, False)
    assert Path(first["dead_letters"]).parent == tmp_path / "in" / "kb.lance.dead-letters"
    assert [letter["run_id"] for letter in letters_of(kb)] == [run_id]
    again = cli(*command, "--json").json
    assert again["already_committed"]
    # Nothing was written where the name would lead as a path.
    assert {path.name for path in tmp_path.iterdir()} == {"in"}
    assert {path.name for path in (tmp_path / "in").iterdir()} == {
        "docs",
        "kb.lance",
        "kb.lance.dead-letters",
        "kb.lance.runs",
    }
    records = [path.name for path in (tmp_path / "in" / "kb.lance.runs").iterdir()]
    assert len(records) == 2 and max(map(len, records)) <= 143


@pytest.mark.parametrize("run_id", REFUSED)
def test_what_names_no_run_is_refused_before_anything_is_read(run_id: str, tmp_path: Path) -> None:
    docs = write_documents(tmp_path / "docs", {"a.json": {"id": "a"}})
    command = ["ingest", "json", "--directory", docs, "--to", tmp_path / "kb.lance"]
    assert_error(cli(*command, f"--run-id={run_id}"), 2, "the run id '", "cannot be used: it")
    assert not (tmp_path / "kb.lance").exists()
    with pytest.raises(ConfigError, match="cannot be used"):
        WriteToLance(str(tmp_path / "kb.lance"), run_id=run_id)


def test_an_id_is_text() -> None:
    with pytest.raises(ConfigError, match="it is a int"):
        check_run_id(7)  # type: ignore[arg-type]


def test_parts_of_the_longest_run_have_ids_too(tmp_path: Path) -> None:
    docs = write_documents(
        tmp_path / "docs", {f"{number}.json": {"id": f"{number}"} for number in range(40)}
    )
    kb, run_id = tmp_path / "kb.lance", "x" * (LONGEST - 32)
    command = ["ingest", "json", "--directory", docs, "--to", kb, "--commit-every", 1]
    done = cli(*command, "--run-id", run_id, "--embed-dim", 4, "--json").json
    assert (done["run_id"], done["rows_written"]) == (run_id, 40)
