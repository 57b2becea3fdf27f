"""Every example of README.md, taken out of it and run."""

from __future__ import annotations

import re
import shlex
import sqlite3
from pathlib import Path

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.api.load import load_config
from tests.support.cli_helpers import ROOT, cli, run_code, without_progress, write_documents

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [text for kind, text in BLOCKS if kind == "python"]
COMMANDS = [
    line.partition("   #")[0].strip()
    for kind, text in BLOCKS
    if kind == "sh"
    for line in text.splitlines()
    if line.startswith("contextframe-beam ")
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the examples speak of."""
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    (tmp_path / "docs" / "reads.md").write_text("# Reads\n\nSplittable reads of large files.\n")
    (tmp_path / "docs" / "deep" / "report.md").write_text("# Quarter\n\nThe quarterly report.\n")
    write_documents(
        tmp_path / "exports" / "deep",
        {"report.json": {"content": "The quarterly report.", "author": "O'Brien"}},
    )
    (tmp_path / "notes.csv").write_text("id,body\n7,From a table\n")
    (tmp_path / "notes.py").write_text(code_with("class Notes"))
    monkeypatch.setenv("CRM_TOKEN", "not-a-real-token")
    (tmp_path / "my_crm.py").write_text(
        "from contextframe_beam import FrameRecord\n"
        "from contextframe_beam.connectors import BaseConnector\n"
        "class CRM(BaseConnector):\n"
        "    def __init__(self, token: str):\n"
        "        super().__init__()\n"
        "        self.token = token\n"
        "    def sync_documents(self):\n"
        "        assert self.token.startswith('not-')\n"
        "        return [{'id': 1}]\n"
        "    def map_to_frame_record(self, item):\n"
        "        return FrameRecord('a customer', unique_id='crm:1')\n"
    )
    with sqlite3.connect(tmp_path / "notes.db") as database:
        database.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT)")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def code_with(text: str) -> str:
    (found,) = [block for block in PYTHON if text in block]
    return found


def run_python(code: str, folder: Path) -> str:
    done = run_code(code, cwd=folder)
    assert done.code == 0, done.err
    return done.out


def test_the_pipeline_writes_what_the_reader_finds(folder: Path) -> None:
    write = code_with("WriteToLance(")
    assert len([line for line in write.splitlines() if line.strip()]) <= 10
    run_python(write, folder)
    out = run_python(code_with("dataset.search("), folder)
    assert "Reads" in out and "Splittable reads of large files." in out


def test_every_command_line_runs_in_order(folder: Path) -> None:
    assert len(COMMANDS) >= 6
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        assert program == "contextframe-beam"
        result = cli(*arguments)
        assert (result.code, without_progress(result.err)) == (0, ""), command
        if arguments[0] == "search":
            assert "The quarterly report." in result.out


def test_the_connector_of_ones_own(folder: Path) -> None:
    assert len([line for line in code_with("class Notes").splitlines() if line.strip()]) <= 15
    command = re.search(r"`contextframe-beam (ingest notes.py:Notes .*?)`", README)
    assert command is not None
    assert cli(*shlex.split(command[1])).code == 0
    ids = {record.unique_id for record in FrameDataset.open(str(folder / "kb.lance"))}
    assert ids == {"note:1", "note:2"}


def test_the_configuration_of_an_api_is_right(tmp_path: Path) -> None:
    (text,) = [block for kind, block in BLOCKS if kind == "yaml"]
    path = tmp_path / "crm.yaml"
    path.write_text(text)
    config, _ = load_config(path, {})
    assert [one.name for one in config.resources] == ["contacts", "notes"]


def test_the_make_targets_it_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:^|`)make (\w+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_files_it_links_to_exist() -> None:
    for link in re.findall(r"\]\((?!https?://)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_what_it_says_about_the_set_up_comes_first() -> None:
    head = README.split("\n## ")[0]
    assert "make demo" in head and "make test" in head and "Python 3.10" in head
