"""Nothing that a document, an error or a state holds is obeyed by a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.pipelines.process import one_line, printable
from contextframe_beam.store.address import Address
from contextframe_beam.store.upkeep import set_states
from tests.support.cli_helpers import Result, cli, environment, start, write_documents

# Clear the screen, name the window, write to the clipboard, link, go back, ring, C1, direction.
ATTACKS = [
    "\x1b[2J\x1b[H",
    "\x1b]0;owned\x07",
    "\x1b]52;c;b3duZWQ=\x07",
    "\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\",
    "safe\rpwned",
    "\x08\x08\x08",
    "\x07",
    "\x9b2J",
    "\x00",
    "\x7f",
    "\u202etxt.exe",
    "\u2066x\u2069",
    "line\u2028separator",
    "\x85",
]
EVIL = "".join(ATTACKS)

RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def assert_harmless(result: Result) -> None:
    for text in (result.out, result.err):
        found = RAW.search(text)
        assert found is None, text[max(found.start() - 40, 0) : found.end() + 40]


@pytest.fixture(scope="module")
def kb(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("evil")
    docs = write_documents(
        folder / "docs",
        {
            "a.json": {"id": f"id{EVIL}", "title": f"title{EVIL}\nsecond", "text": f"word {EVIL}"},
            "b.json": {"id": "b", "text": "fine"},
        },
    )
    kb = str(folder / "kb.lance")
    assert cli("ingest", "json", "--directory", docs, "--to", kb, "--embed-dim", 4).code == 0
    dataset = FrameDataset.open(kb)
    (state,) = dataset.states()
    partitions = {f"part{EVIL}": {"cursor": f"value{EVIL}"}}
    set_states(Address(kb), [{"source": state.source, "partitions": partitions}])
    dataset = FrameDataset.open(kb)
    dataset.index_text()
    return kb


class TestPrintable:
    @given(st.text())
    def test_nothing_is_left_that_a_terminal_obeys(self, text: str) -> None:
        assert RAW.search(printable(text)) is None
        assert "\n" not in one_line(text)

    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def test_json_keeps_its_value(self, text: str) -> None:
        assert json.loads(printable(json.dumps(text, ensure_ascii=False))) == text

    @pytest.mark.parametrize(
        "text", ["", "plain", "tab\tand\nlines", "é 认证 🎉 👩‍💻", "\u200fעברית"]
    )
    def test_other_text_stays(self, text: str) -> None:
        assert printable(text) == text


class TestCommands:
    @pytest.mark.parametrize(
        "command",
        [
            ["search", "{kb}", "word"],
            ["search", "{kb}", "word", "--json"],
            ["search", "{kb}", f"nothing{EVIL[1:]}"],
            ["search", "{kb}", "word", "--where", f"x = {EVIL[1:]}"],
            ["inspect", "{kb}"],
            ["inspect", "{kb}", "--json"],
            ["inspect", f"{{kb}}{ATTACKS[0]}"],
            ["state", "show", "{kb}"],
            ["state", "show", "{kb}", "--json"],
            ["state", "reset", "{kb}", "--source", ATTACKS[0]],
            ["state", "reset", "{kb}", "--partition", ATTACKS[0]],
            ["index", "{kb}", "--language", ATTACKS[1]],
            ["rollback", "{kb}", "--to", ATTACKS[0]],
            [ATTACKS[0]],
            [f"--{ATTACKS[0]}"],
            ["ingest", ATTACKS[0]],
            ["ingest", "json", "--directory", ATTACKS[0], "--to", "x"],
            ["ingest", "json", "--directory", ".", "--to", "x", "--run-id", ATTACKS[0]],
            ["ingest", f"{ATTACKS[0]}.py:Class", "--to", "x"],
            ["compact", f"{{kb}}{ATTACKS[1]}"],
        ],
    )
    def test_what_they_print_is_harmless(
        self, kb: str, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        result = cli(*(part.replace("{kb}", kb) for part in command))
        assert result.out or result.err
        assert_harmless(result)

    def test_the_state_that_is_shown_can_be_set_again(self, kb: str, tmp_path: Path) -> None:
        shown = cli("state", "show", kb, "--json")
        assert_harmless(shown)
        (state,) = json.loads(shown.out)
        assert state["partitions"] == {f"part{EVIL}": {"cursor": f"value{EVIL}"}}

    def test_a_title_takes_one_line(self, kb: str) -> None:
        found = cli("search", kb, "word").out.splitlines()
        assert found[0].endswith(" second")
        assert found[1].strip().startswith("json_file:")

    @pytest.mark.parametrize("content", [f'{{"x": {EVIL[:6]}', f"{EVIL}", f'{{"id": "{EVIL}"}}'])
    def test_failed_items(self, content: str, tmp_path: Path) -> None:
        docs = write_documents(tmp_path / "docs", {f"a{ATTACKS[0]}.json": content})
        result = cli("ingest", "json", "--directory", docs, "--to", tmp_path / "kb.lance")
        assert result.code == 1
        assert_harmless(result)

    def test_warnings_and_tracebacks(self, tmp_path: Path) -> None:
        (tmp_path / "evil.py").write_text(
            "import logging, warnings\n"
            "from contextframe_beam.connectors import BaseConnector\n"
            "from contextframe_beam import FrameRecord\n"
            f"EVIL = {EVIL!r}\n"
            "class Evil(BaseConnector):\n"
            "    def authenticate(self): pass\n"
            "    def sync_documents(self, **kwargs):\n"
            "        logging.getLogger(__name__).warning('log %s', EVIL)\n"
            "        warnings.warn(EVIL)\n"
            "        print('print', EVIL)\n"
            "        raise ValueError(EVIL)\n"
            "    def map_to_frame(self, item): raise AssertionError\n"
        )
        connector = f"{tmp_path}/evil.py:Evil"
        for more in ([], ["--debug"], ["--verbose"], ["--log-format", "json"]):
            result = cli("ingest", connector, "--to", tmp_path / "kb.lance", *more)
            assert result.code == 1
            assert_harmless(result)


def test_on_a_terminal_only_our_own_colours_are_left(kb: str) -> None:
    master, slave = pty.openpty()
    env = environment(TERM="xterm-256color", COLUMNS="200")
    process = start("search", kb, "word", env=env, terminal=slave)
    written = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the end of a terminal
            break
        if not part:
            break
        written += part
    os.close(master)
    assert process.wait() == 0
    text = written.decode().replace("\r\n", "\n")
    assert "\x1b[1m" in text  # a title is bold
    assert_harmless(Result(0, re.sub(r"\x1b\[[0-9;]*m", "", text), ""))


def test_python_gives_documents_as_they_are(kb: str) -> None:
    records: list[FrameRecord] = FrameDataset.open(kb).search("word")
    assert records[0].text_content is not None and EVIL in records[0].text_content
