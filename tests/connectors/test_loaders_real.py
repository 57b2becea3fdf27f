"""Loaders of LangChain, readers of LlamaIndex, a database by dlt; `make loaders` installs them."""

from __future__ import annotations

import json
import mailbox
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from tests.support.pdf_files import pdf

pytestmark = pytest.mark.soak

FOLDER = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "contextframe-beam/loaders"
)
LANGCHAIN = "langchain_community.document_loaders"
LLAMAINDEX = "llama_index.readers.file"
SECRET = "sqlite:///secret-name.db"


def ingest(folder: Path, library: str, name: str, *options: str) -> dict[str, Any]:
    """Runs the command with two workers, and returns what it says in JSON."""
    if not (FOLDER / ".installed").exists():
        pytest.skip("the libraries are not installed; `make loaders` installs them")
    flag = {"langchain": "--loader", "llamaindex": "--reader", "dlt": "--source"}[library]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "contextframe_beam", "ingest", library, flag, name),
            *("--to", "kb.lance", "--embed-dim", "2", "--workers", "2", "--json"),
            *("--mode", "mirror", "--max-deletes", "100%", *options),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(FOLDER), "NOTES_DB": SECRET},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def texts(folder: Path) -> list[str]:
    return sorted(str(one.text_content) for one in FrameDataset.open(str(folder / "kb.lance")))


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def page(folder: Path, text: str) -> None:
    write(folder, "site/a.html", f"<html><body><p>{text}</p></body></html>")


def table(folder: Path, text: str) -> None:
    with sqlite3.connect(folder / "secret-name.db") as db:
        db.execute("create table if not exists notes (id integer primary key, body text)")
        db.execute("insert or replace into notes values (1, ?)", [text])
    db.close()


def commit(folder: Path, text: str) -> None:
    write(folder, "repo/a.txt", text)
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
    for command in (("init", "-q", "-b", "main"), ("add", "."), (*who, "commit", "-qm", "More")):
        subprocess.run(["git", *command], cwd=folder / "repo", check=True)


def mails(folder: Path, text: str) -> None:
    (folder / "all.mbox").unlink(missing_ok=True)
    box = mailbox.mbox(folder / "all.mbox")
    box.add(f"From: ada@example.com\nSubject: Notes\nMessage-ID: <1@example.com>\n\n{text}\n")
    box.close()


SQL = {
    "query": "select * from notes",
    "db": {
        "class": "langchain_community.utilities:SQLDatabase.from_uri",
        "args": {"database_uri": "env:NOTES_DB"},
    },
}
CASES: dict[str, tuple[str, str, list[str], Callable[[Path, str], object]]] = {
    "html": ("langchain", f"{LANGCHAIN}:BSHTMLLoader", ["--files", "site/**/*.html"], page),
    "csv": (
        *("langchain", f"{LANGCHAIN}:CSVLoader", ["--files", "t.csv"]),
        lambda folder, text: write(folder, "t.csv", f"name,body\nAda,{text}\nBob,other\n"),
    ),
    "git": (
        *("langchain", f"{LANGCHAIN}:GitLoader"),
        ["--args", json.dumps({"repo_path": "repo", "branch": "main"})],
        commit,
    ),
    "notion export": (
        *("langchain", f"{LANGCHAIN}:NotionDirectoryLoader", ["--args", '{"path": "notion"}']),
        lambda folder, text: write(folder, "notion/Page 0123.md", f"# Page\n\n{text}"),
    ),
    "vault": (
        *("langchain", f"{LANGCHAIN}:ObsidianLoader", ["--args", '{"path": "vault"}']),
        lambda folder, text: write(folder, "vault/Note.md", f"# Note #tag\n\n{text}"),
    ),
    "pdf": (
        *("langchain", f"{LANGCHAIN}:PyPDFLoader", ["--files", "*.pdf"]),
        lambda folder, text: (folder / "a.pdf").write_bytes(pdf([text, "second page"])),
    ),
    "sql": ("langchain", f"{LANGCHAIN}:SQLDatabaseLoader", ["--args", json.dumps(SQL)], table),
    "directory": (
        *("langchain", f"{LANGCHAIN}:DirectoryLoader"),
        [
            "--args",
            json.dumps({"path": "d", "loader_cls": {"class": f"{LANGCHAIN}:TextLoader"}}),
        ],
        lambda folder, text: write(folder, "d/a.txt", text),
    ),
    "markdown": (
        *("llamaindex", f"{LLAMAINDEX}:MarkdownReader", ["--files", "m/*.md"]),
        lambda folder, text: write(folder, "m/a.md", f"# Title\n\n{text}\n\n# Other\n\nmore"),
    ),
    "mailbox": ("llamaindex", f"{LLAMAINDEX}:MboxReader", ["--files", "*.mbox"], mails),
    "html tags": (
        *("llamaindex", f"{LLAMAINDEX}:HTMLTagReader"),
        ["--args", '{"tag": "body"}', "--files", "site/*.html"],
        page,
    ),
    "database by dlt": (
        *("dlt", "dlt.sources.sql_database:sql_database"),
        ["--args", json.dumps({"credentials": "env:NOTES_DB", "table_names": ["notes"]})],
        table,
    ),
    "simple directory": (
        *("llamaindex", "llama_index.core:SimpleDirectoryReader"),
        ["--args", '{"input_dir": "s"}'],
        lambda folder, text: write(folder, "s/a.txt", text),
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_a_real_loader_reads_a_first_time_and_a_change(kind, tmp_path):
    library, name, options, put = CASES[kind]
    put(tmp_path, "quokkas eat grass")
    first = ingest(tmp_path, library, name, *options)
    assert first["rows_written"] >= 1 and any("quokkas eat grass" in one for one in texts(tmp_path))
    again = ingest(tmp_path, library, name, *options)
    assert (again["rows_written"], again["rows_deleted"]) == (0, 0)
    put(tmp_path, "wombats dig burrows")
    changed = ingest(tmp_path, library, name, *options)
    found = texts(tmp_path)
    assert len(found) == first["rows_written"] and changed["rows_deleted"] == 0
    assert any("wombats dig burrows" in one for one in found)
    assert not any("quokkas" in one for one in found)
    written = [one for one in (tmp_path / "kb.lance").rglob("*") if one.is_file()]
    assert not any(SECRET.encode() in one.read_bytes() for one in written)
