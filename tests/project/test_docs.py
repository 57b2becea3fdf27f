"""Every example of the documentation, run as a reader would who follows a page from its top.

A block with a title is saved under that name, `python` and `sh` blocks are run, in order, in one
folder. A `text` block shows what the block before it prints, or some lines of it; `...` stands for
more. A block that cannot be run says why in a comment before it: `<!-- not run: the reason -->`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.cli_helpers import ROOT, cli_process, environment, run_code
from tests.support.forked import as_programs
from tests.support.http_fixture import HttpServer

DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
BLOCK = re.compile(
    r"(?:^<!-- not run:(?P<reason>.*?)-->\n)?"
    r'^```(?P<kind>\w*)(?: title="(?P<title>[^"]+)")?[^\n]*\n(?P<text>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
# What is different each time: ids, times, durations, sizes, scores, and the folder.
VARYING = re.compile(
    r"\b[0-9a-f]{32}\b|\b[0-9a-f]{16}\b|\d{4}-\d\d-\d\d[T ][\d:.+]+|\d+(?:\.\d+)? (?:s|B|kB|MB)\b"
    r"|\b\d+\.\d+\b|(?:/[\w.-]+)*/(?:work|ada)(?=/)"
)
# The API that the pages speak of is played by the test server.
API = "https://crm.example.com/api"


@dataclass(frozen=True)
class Block:
    kind: str
    title: str | None
    reason: str | None
    text: str


def blocks_of(page: str) -> list[Block]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return [
        Block(one["kind"], one["title"], one["reason"], one["text"]) for one in BLOCK.finditer(text)
    ]


def runs(page: str) -> bool:
    return any(one.kind in ("sh", "python") and one.reason is None for one in blocks_of(page))


def lines_of(text: str) -> list[str]:
    """Returns the lines without what is different each time, and without alignment."""
    return [" ".join(VARYING.sub("*", line).split()) for line in text.splitlines() if line.strip()]


def is_shown_of(shown: str, printed: str) -> bool:
    """Returns whether each shown line is among the printed ones, in the same order."""
    rest = iter(lines_of(printed))
    for line in lines_of(shown):
        start, dots, _ = line.partition("...")
        if line != "..." and not any(
            one.startswith(start) if dots else one == line for one in rest
        ):
            return False
    return True


@pytest.mark.parametrize("page", [page for page in PAGES if runs(page)])
def test_the_page_does_what_it_says(page: str, tmp_path: Path, server: HttpServer) -> None:
    scripts = Path(sys.executable).parent
    forks = as_programs(tmp_path / "programs")
    programs = os.pathsep.join([str(tmp_path / "programs"), str(scripts), os.environ["PATH"]])
    env = environment(HOME=str(tmp_path / "home"), PATH=programs)
    folder = tmp_path / "work"
    folder.mkdir()
    printed = ""
    hosts = "crm.example.com", server.url.partition("://")[2]
    for block in blocks_of(page):
        text = block.text.replace(API, f"{server.url}/api").replace(*hosts)
        if block.reason is not None:
            continue
        if block.title:
            path = folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif block.kind == "python":
            result = run_code(text, cwd=folder, env=env)
            assert result.code == 0, f"{text}\n{result.out}\n{result.err}"
            printed = result.out + result.err
        elif block.kind == "sh":
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text],
                cwd=folder, env=env, pass_fds=[forks], capture_output=True, text=True,
            )  # fmt: skip
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
            printed = done.stdout + done.stderr
        elif block.kind == "text":
            assert is_shown_of(text, printed), f"the page shows\n{text}\nand this is:\n{printed}"


@pytest.mark.parametrize("page", PAGES)
def test_what_is_not_run_says_why(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert text.startswith("# ")
    for block in blocks_of(page):
        assert block.reason is None or len(block.reason.split()) >= 3, block


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    assert [page for page in PAGES if page not in navigation] == []


def test_messages_in_troubleshooting_are_those_of_the_code() -> None:
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    folders = ("contextframe_beam", "connectors", "transforms", "pipelines")
    files = {path for folder in folders for path in (ROOT / folder).rglob("*.py")}
    code = "".join(path.read_text(encoding="utf-8") for path in sorted(files))
    # Messages are put together over several lines, around the values that are theirs each time.
    joined = re.sub(r'"\s*\n\s*f?"', "", code)
    messages = re.findall(r"^### `(.+)`$", text, re.MULTILINE)
    assert len(messages) >= 15
    for message in messages:
        for part in re.split(r"\s*\.\.\.\s*", message):
            assert part in joined, f"no message of ours says {part!r}"


@pytest.mark.soak  # continuous integration builds it with each change
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    done = cli_process(
        *("build", "--strict", "--quiet", "--site-dir", tmp_path),
        module="mkdocs", cwd=ROOT, env=environment(NO_MKDOCS_2_WARNING="1"),
    )  # fmt: skip
    assert done.code == 0, done.err
    pages = {
        path.relative_to(tmp_path).with_suffix(".md").as_posix()
        for path in tmp_path.rglob("*.html")
    }
    assert pages >= set(PAGES)
    assert "--max-failures" in (tmp_path / "reference" / "commands.html").read_text()
    assert "class_path" not in (tmp_path / "reference" / "python.html").read_text()
