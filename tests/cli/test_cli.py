"""The command line: its commands, a connector's arguments as options, receipts and progress."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.errors import ConnectorError
from contextframe_beam.pipelines import progress
from contextframe_beam.pipelines.cli import watch
from contextframe_beam.pipelines.cli.outcome import Outcome
from contextframe_beam.pipelines.cli.show import snippet_of
from contextframe_beam.pipelines.runners.errors import ours_of, report_of
from contextframe_beam.transforms import CommitReceipt
from tests.support.cli_helpers import (
    Result,
    assert_error,
    cli,
    cli_process,
    environment,
    letters_of,
    lines,
    start,
    without_progress,
    write_documents,
)

NOTES = '''
"""A connector as on the page for their authors, in a file of its own."""

import enum
from pathlib import Path
from typing import Literal

from contextframe_beam import FrameRecord
from contextframe_beam.connectors import BaseConnector


class Size(enum.Enum):
    SMALL = 1
    LARGE = 2


class Notes(BaseConnector):
    """Notes of somebody.

    Args:
        owner: Whose notes.
        api_key: What the notes are locked with.
        mode: How they are read.
        tags: Which tags.
    """

    def __init__(
        self,
        owner: str,
        count: int = 3,
        api_key: str | None = None,
        mode: str = "slow",
        verify: bool = True,
        tags: list[str] | None = None,
        headers: dict[str, str] | None = None,
        kind: Literal["note", "memo"] = "note",
        size: Size = Size.SMALL,
        folder: Path | None = None,
    ):
        super().__init__()
        self.owner, self.count, self.api_key, self.folder = owner, count, api_key, folder
        self.said = {
            "mode": mode, "verify": verify, "tags": tags, "headers": headers, "kind": kind,
            "size": size.name, "folder": str(folder), "has_key": bool(api_key),
        }

    def sync_documents(self, since: int = 0, drafts: bool = False):
        """Reads them.

        Args:
            since: The first note.
        """
        print("printed by the connector")
        self.logger.info("told by the connector")
        return [{"number": n, "drafts": drafts} for n in range(since, self.count)]

    def map_to_frame_record(self, item):
        if self.folder and self.folder.name == "marks":
            with self.folder.open("a") as file:
                file.write("x")
        return FrameRecord(
            f"note {item['number']} of {self.owner}",
            {**self.said, "drafts": item["drafts"]},
            unique_id=f"{self.owner}:{item['number']}",
        )


class Open(BaseConnector):
    def __init__(self, **kwargs):
        super().__init__()
        self.given = kwargs

    def sync_documents(self, **kwargs):
        return [{"n": 1}]

    def map_to_frame_record(self, item):
        return FrameRecord("x", self.given, unique_id="open:1")


class Marks:
    """An enricher."""

    def enrich(self, record, source_item):
        record.context = {"number": source_item["number"], "calls": type(self).__name__}
        return record


class Needy:
    def __init__(self, model):
        self.model = model

    def enrich(self, record, source_item):
        return record
'''


# Reads each page when somebody has seen how far it was before.
WAITING = """
import threading
from pathlib import Path

from contextframe_beam import FrameRecord
from contextframe_beam.connectors import Page, PaginatedConnector


class Waiting(PaginatedConnector):
    def __init__(self, seen: Path):
        super().__init__()
        self.seen = seen

    def fetch_page(self, partition, cursor):
        page = cursor or "first"
        while not (self.seen / page).exists():
            threading.Event().wait(0.01)
        if page == "first":
            return Page([{"id": number} for number in range(1000)], next_cursor="last")
        return Page([{"id": "last"}])

    def map_to_frame_record(self, item):
        return FrameRecord("text", unique_id=f"waiting:{item['id']}")
"""


def read_terminal(terminal: int) -> str:
    """Returns what was written to a terminal; empty when nobody writes to it any more."""
    try:
        return os.read(terminal, 65536).decode(errors="replace")
    except OSError:  # Linux's way to say so
        return ""


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    return write_documents(
        tmp_path / "docs",
        {
            f"{name}.json": {"title": name.title(), "content": f"{name} is stored by Lance"}
            for name in ("alpha", "beta", "gamma")
        },
    )


@pytest.fixture
def notes(tmp_path: Path) -> str:
    path = tmp_path / "notes.py"
    path.write_text(NOTES)
    return f"{path}:Notes"


@pytest.fixture
def stored(docs: Path, kb: Path) -> Path:
    assert cli("ingest", "json", "--directory", docs, "--to", kb).code == 0
    return kb


def rows(dataset: Path) -> dict[str, Any]:
    return {str(record.unique_id): record for record in FrameDataset.open(str(dataset))}


def test_what_needs_no_pipeline_answers_without_loading_beam(stored: Path) -> None:
    commands = [["--help"], ["ingest", "json", "--help"]]
    script = (
        "import sys\n"
        "from contextframe_beam.pipelines.cli.main import run\n"
        "for command in {commands}:\n"
        "    assert run(command) == 0\n"
        "print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    for wanted, heavy in [
        (commands, ["apache_beam", "lance", "pyarrow"]),
        (
            [
                ["search", str(stored), "lance"],
                ["inspect", str(stored)],
                # These load every connector, to say what it reads.
                ["connectors"],
                ["ingest", "--help"],
            ],
            ["apache_beam"],
        ),
    ]:
        done = subprocess.run(
            [sys.executable, "-c", script.format(commands=wanted, heavy=heavy)],
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "[]\n")


# While it is read, another source's run of the same id is committed to the same dataset.
_MEETING = """
from contextframe_beam import FrameRecord
from contextframe_beam.connectors import Page, PaginatedConnector
from contextframe_beam.pipelines.ingest import ingest

class First(PaginatedConnector):
    def fetch_page(self, partition, cursor):
        return Page([{"id": "first"}])

    def map_to_frame_record(self, item):
        return FrameRecord(item["id"], unique_id=f"doc:{item['id']}")

class Meeting(First):
    def fetch_page(self, partition, cursor):
        ingest(First(), KB, run_id="nightly")
        return Page([{"id": "second"}])
"""


class TestIngest:
    def test_commits_the_documents_and_gives_a_receipt(self, docs: Path, kb: Path) -> None:
        result = cli("ingest", "json", "--directory", docs, "--to", kb)
        assert (result.code, without_progress(result.err)) == (0, "")
        assert result.out.startswith(f"wrote 3 documents (version 1 of {kb}, ")
        assert set(rows(kb)) == {f"json_file:{path}" for path in docs.iterdir()}

    def test_a_second_run_finds_nothing_changed_writes_nothing_and_says_so(
        self, docs: Path, stored: Path
    ) -> None:
        result = cli("ingest", "json", "--directory", docs, "--to", stored)
        assert result.code == 0
        assert result.out.startswith(
            "nothing changed: 3 documents are stored already, none was written (version 2 of "
        )
        assert FrameDataset.open(str(stored)).history()[-1].counts["written"] == 0

    def test_a_changed_document_replaces_its_earlier_self(self, docs: Path, stored: Path) -> None:
        write_documents(docs, {"alpha.json": {"content": "new"}, "delta.json": {"content": "too"}})
        result = cli("ingest", "json", "--directory", docs, "--to", stored)
        assert result.out.startswith("wrote 2 documents (1 new, 1 replaced), 2 unchanged (version")
        assert len(rows(stored)) == 4

    def test_json_is_one_object_with_the_receipt(self, docs: Path, kb: Path) -> None:
        result = cli("ingest", "json", "--directory", docs, "--to", kb, "--json", "--run-id", "r1")
        assert (result.code, without_progress(result.err)) == (0, "")
        receipt = result.json
        assert receipt.pop("seconds") > 0
        assert receipt.pop("bytes") > 0
        assert receipt.pop("at")
        assert receipt == {
            "version": 1,
            "run_id": "r1",
            "mode": "upsert",
            "rows_written": 3,
            "rows_replaced": 0,
            "rows_deleted": 0,
            "rows_unchanged": 0,
            "rows_dropped": 0,
            "sharing": 0,
            "shared_ids": 0,
            "failed": 0,
            "fragments": 1,
            "partial": [],
            "unread": [],
            "kept": "",
            "reasons": [],
            "already_committed": False,
            "to": str(kb),
            "dead_letters": None,
        }

    def test_a_run_id_of_another_source_is_wrong_usage(self, tmp_path: Path, kb: Path) -> None:
        for name in "ab":
            (tmp_path / name).mkdir()
            (tmp_path / name / "one.json").write_text(f'{{"id": "{name}", "content": "text"}}')
        command = ("ingest", "json", "--to", kb, "--run-id", "nightly", "--directory")
        assert cli(*command, tmp_path / "a").code == 0
        refused = cli(*command, tmp_path / "b")
        assert_error(refused, 2, "the run nightly of", "read another source than json", "once")
        (record,) = FrameDataset.open(str(kb))
        assert str(record.unique_id).endswith("a/one.json")

    def test_a_run_id_that_another_source_takes_meanwhile_is_no_success(
        self, tmp_path: Path, kb: Path
    ) -> None:
        (tmp_path / "meeting.py").write_text(_MEETING.replace("KB", repr(str(kb))))
        command = ("ingest", f"{tmp_path}/meeting.py:Meeting", "--to", kb, "--run-id", "nightly")
        assert_error(cli(*command), 1, "was committed to", "nothing of Meeting was committed")
        assert [record.text_content for record in FrameDataset.open(str(kb))] == ["first"]
        assert len(list((kb / "data").iterdir())) == 1 + len(FrameDataset.open(str(kb)).states())

    def test_a_run_id_is_committed_once(self, docs: Path, kb: Path) -> None:
        command = ("ingest", "json", "--directory", docs, "--to", kb, "--run-id", "nightly-1")
        assert cli(*command).code == 0
        write_documents(docs, {"delta.json": {"content": "later"}})
        again = cli(*command)
        assert again.code == 0
        assert again.out.startswith("this run was committed before, and nothing was done now")
        assert len(rows(kb)) == 3

    def test_modes(self, docs: Path, stored: Path) -> None:
        command = ("ingest", "json", "--directory", docs, "--to", stored, "--mode")
        assert_error(cli(*command, "create"), 1, str(stored), "exists already", "another path")
        assert "wrote 3 documents" in cli(*command, "append").out
        assert len(FrameDataset.open(str(stored))) == 6
        (docs / "beta.json").unlink()
        assert "wrote 2 documents (4 replaced), deleted 2" in cli(*command, "overwrite").out
        assert len(FrameDataset.open(str(stored))) == 2

    def test_failed_items_go_to_the_file_that_is_named(self, docs: Path, kb: Path) -> None:
        write_documents(docs, {"bad.json": "{"})
        letters = kb.parent / "letters.jsonl"
        result = cli("ingest", "json", "--directory", docs, "--to", kb, "--dead-letters", letters)
        assert result.code == 0
        assert f"1 item failed, kept in {letters}\n" in result.out
        assert json.loads(letters.read_text())["item"]["data"] == "{"

    def test_max_failures(self, docs: Path, kb: Path) -> None:
        write_documents(docs, {"bad.json": "{"})
        command = ("ingest", "json", "--directory", docs, "--to", kb, "--max-failures")
        assert_error(cli(*command, "0"), 1, "1 of 4 items failed", "--max-failures", "bad.json")
        assert_error(cli(*command, "20%"), 1, "1 of 4 items failed")
        assert not kb.exists()
        assert cli(*command, "25%").code == 0

    def test_a_source_without_items_is_no_error_and_is_said(self, docs: Path, kb: Path) -> None:
        result = cli("ingest", "json", "--directory", docs, "--pattern", "*.xml", "--to", kb)
        assert result.code == 0
        assert result.out.startswith("nothing to write: the source gave no items")

    def test_embed_dim_and_storage_version_are_those_of_a_new_dataset(
        self, docs: Path, kb: Path
    ) -> None:
        assert cli(
            "ingest", "json", "--directory", docs, "--to", kb,
            "--embed-dim", 8, "--storage-version", "2.2",
        ).code == 0  # fmt: skip
        facts = cli("inspect", kb, "--json").json
        assert (facts["embed_dim"], facts["storage_version"]) == (8, "2.2")

    def test_beams_own_options_are_passed_on(self, notes: str, kb: Path) -> None:
        each_bundle_twice = "--direct_runner_bundle_repeat=1"
        marks = kb.parent / "marks"
        result = cli(
            "ingest", notes, "--owner", "ada", "--folder", marks, "--to", kb, each_bundle_twice
        )
        assert result.code == 0, result
        assert marks.read_text() == "x" * 6
        assert len(rows(kb)) == 3

    def test_the_same_with_python_m(self, docs: Path, kb: Path) -> None:
        arguments = ("json", "--directory", docs, "--to", kb)
        result = cli_process("ingest", *arguments, module="contextframe_beam", executed=True)
        assert (result.code, without_progress(result.err)) == (0, "")
        assert len(FrameDataset.open(str(kb)).history()) == 1

    def test_worker_processes_are_as_quiet_as_one(self, tmp_path: Path, kb: Path) -> None:
        documents = lines({"id": n, "content": f"text {n}"} for n in range(5000))
        docs = write_documents(tmp_path / "docs", {"all.jsonl": documents})
        result = cli_process(
            "ingest", "json", "--directory", docs, "--pattern", "*.jsonl", "--to", kb,
            "--workers", 2, "--json",
        )  # fmt: skip
        assert (result.code, without_progress(result.err)) == (0, "")
        assert result.json["rows_written"] == 5000
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "docs",
            "kb.lance",
            "kb.lance.runs",
        ]


class TestConnectorArguments:
    def test_help_lists_them_with_type_default_and_description(self, notes: str) -> None:
        text = " ".join(cli("ingest", notes, "--help").out.split())
        for part in (
            "Notes of somebody.",
            "--owner TEXT Whose notes. [required]",
            "--count INTEGER [default: 3]",
            "--api-key TEXT What the notes are locked with. A secret: give a reference",
            "--source-mode TEXT How they are read. [default: slow]",
            "--verify / --no-verify [default: yes]",
            "--tags TEXT Which tags. Repeat it, or separate values by commas.",
            "--headers JSON",
            "--kind note|memo [default: note]",
            "--size SMALL|LARGE [default: SMALL]",
            "--folder PATH",
            "--since INTEGER The first note. [default: 0]",
            "--to DATASET",
            "--mode [create|append|overwrite|upsert|mirror]",
        ):
            assert part in text, part

    def test_help_of_the_json_connector(self) -> None:
        text = " ".join(cli("ingest", "json", "--help").out.split())
        assert "--directory PATH" in text
        assert "--pattern TEXT Which files" in text
        assert text.count("--pattern") == 1

    def test_values_reach_constructor_and_reading_with_their_types(
        self, notes: str, kb: Path
    ) -> None:
        result = cli(
            "ingest", notes, "--to", kb, "--owner", "ada", "--count", "5", "--source-mode", "fast",
            "--no-verify", "--tags", "a,b", "--headers", '{"X": "1"}', "--kind", "memo",
            "--size", "LARGE", "--folder", "/tmp", "--since", "3", "--drafts",
        )  # fmt: skip
        assert result.code == 0, result
        assert set(rows(kb)) == {"ada:3", "ada:4"}
        metadata = rows(kb)["ada:3"].metadata
        assert {
            "mode": "fast",
            "verify": False,
            "tags": ["a", "b"],
            "headers": {"X": "1"},
            "kind": "memo",
            "size": "LARGE",
            "folder": "/tmp",
            "drafts": True,
        }.items() <= metadata.items()

    def test_an_option_may_be_repeated_or_written_as_in_python(self, notes: str, kb: Path) -> None:
        result = cli(
            "ingest", notes, "--to", kb, "--owner", "ada", "--tags", "a", "--tags", "b,c",
            "--source_mode", "fast",
        )  # fmt: skip
        assert result.code == 0, result
        metadata = rows(kb)["ada:0"].metadata
        assert (metadata["tags"], metadata["mode"]) == (["a", "b,c"], "fast")

    def test_arguments_that_no_signature_names(self, notes: str, kb: Path) -> None:
        spec = notes.replace(":Notes", ":Open")
        assert "--argument NAME=VALUE" in cli("ingest", spec, "--help").out
        result = cli("ingest", spec, "--to", kb, "--argument", "colour=red", "--argument", "n=2")
        assert result.code == 0, result
        assert rows(kb)["open:1"].metadata == {"colour": "red", "n": "2"}

    def test_a_secret_is_resolved_where_it_is_used_and_never_shown(
        self, notes: str, kb: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NOTES_KEY", "open-sesame-4711")
        result = cli(
            "ingest", notes, "--to", kb, "--owner", "ada", "--api-key", "env:NOTES_KEY", "--debug"
        )
        assert result.code == 0
        assert rows(kb)["ada:0"].metadata["has_key"] is True
        assert "open-sesame-4711" not in result.out + result.err
        facts = cli("inspect", kb, "--json").out
        assert "open-sesame-4711" not in facts and "NOTES_KEY" not in facts

    def test_a_missing_one_is_named_with_what_it_is(self, notes: str, kb: Path) -> None:
        result = cli("ingest", notes, "--to", kb)
        assert_error(result, 2, "missing option --owner (Whose notes)")

    @pytest.mark.parametrize("workers", [1, 2])
    def test_a_class_in_a_file_runs_with_an_enricher_from_a_file(
        self, notes: str, kb: Path, workers: int
    ) -> None:
        result = cli_process(
            "ingest", notes, "--owner", "ada", "--to", kb, "--workers", workers,
            "--enrich", notes.replace(":Notes", ":Marks"), "--enrich", "keywords", "-v", "--json",
        )  # fmt: skip
        assert result.code == 0, result.err
        assert result.json["rows_written"] == 3
        assert rows(kb)["ada:2"].context == {
            "number": 2,
            "calls": "Marks",
            "keywords": ["note", "2", "of", "ada"],
        }
        # What it prints cannot get between a script and the receipt, and its log is shown.
        assert "printed by the connector" in result.err
        assert result.err.count("INFO ") == 1 and "told by the connector" in result.err


class TestEnrichers:
    @pytest.mark.parametrize(
        ("spec", "parts"),
        [
            ("keyword", ["no enricher 'keyword'", "did you mean keywords?"]),
            ("json:dumps", ["json:dumps is not an enricher", "enrich(self, record, source_item)"]),
            ("no.such.module:X", ["no module 'no'", "PYTHONPATH"]),
            ("json:Nothing", ["json has no class 'Nothing'"]),
            ("{file}:Mark", ["no class 'Mark'", "did you mean Marks?"]),
            ("{file}:Needy", ["cannot be made without arguments", "model"]),
            ("gone.py:X", ["cannot read gone.py"]),
        ],
    )
    def test_a_wrong_one_is_refused(
        self, notes: str, docs: Path, kb: Path, spec: str, parts: list[str]
    ) -> None:
        spec = spec.format(file=notes.rpartition(":")[0])
        result = cli("ingest", "json", "--directory", docs, "--to", kb, "--enrich", spec)
        assert_error(result, 2, *parts)
        assert not kb.exists()


class TestSearch:
    def test_shows_score_title_id_and_the_place(self, stored: Path, docs: Path) -> None:
        result = cli("search", stored, "beta")
        assert result.code == 0
        head, name, text = result.out.splitlines()
        assert head.split()[1:] == ["Beta"] and float(head.split()[0]) > 0
        assert name.strip() == f"json_file:{docs}/beta.json"
        assert text.strip() == "beta is stored by Lance"

    def test_json(self, stored: Path) -> None:
        hits = cli("search", stored, "lance", "--json", "--limit", 2).json
        assert len(hits) == 2
        assert hits[0].keys() >= {"score", "title", "unique_id", "uuid", "text_content", "before"}

    def test_where(self, stored: Path) -> None:
        hits = cli("search", stored, "lance", "--json", "--where", "title = 'Gamma'").json
        assert [hit["title"] for hit in hits] == ["Gamma"]
        assert_error(cli("search", stored, "lance", "--where", "titel = 'x'"), 2, "titel", "title")

    def test_nothing_found_is_said(self, stored: Path) -> None:
        result = cli("search", stored, "zebra")
        assert result.code == 0
        assert result.out == f"no document of {stored} matches 'zebra'; it holds 3 documents\n"
        assert cli("search", stored, "zebra", "--json").json == []

    @pytest.mark.parametrize("command", [["search", "{path}", "x"], ["inspect", "{path}"]])
    def test_a_dataset_that_is_not_there(self, command: list[str], tmp_path: Path) -> None:
        path = str(tmp_path / "gone.lance")
        result = cli(*(part.format(path=path) for part in command))
        assert_error(result, 1, path, "no dataset", "contextframe-beam ingest")

    def test_a_snippet_begins_near_the_first_word_that_matches(self) -> None:
        text = "word " * 100 + "the needle is here\nand there " + "more " * 100
        snippet = snippet_of(text, "Needle")
        assert "needle is here and there" in snippet
        assert snippet.startswith("... ") and snippet.endswith(" ...")
        assert snippet_of("short", "absent") == "short"

    def test_a_reader_that_goes_away_is_no_error(self, stored: Path) -> None:
        process = start("search", stored, "lance")
        process.stdout.close()
        assert (process.wait(), without_progress(process.stderr.read())) == (0, "")


def on_terminal(*command: object, columns: int) -> str:
    """Returns what a command shows on a terminal of this width."""
    ours, theirs = pty.openpty()
    env = environment(TERM="xterm", COLUMNS=str(columns), NO_COLOR="1")
    process = start(*command, env=env, terminal=theirs)
    shown = ""
    while part := read_terminal(ours):
        shown += part
    assert process.wait() == 0, shown
    return re.sub(r"\x1b\[[\d;]*m", "", shown)


class TestInspect:
    def test_shows_columns_sources_runs_and_versions(self, stored: Path, docs: Path) -> None:
        text = cli("inspect", stored).out
        for part in (
            f"{stored}: 3 documents, version 1",
            "Sources\n",
            f"directory={docs}",
            "Runs\n",
            "Versions\n",
            " ago)",
        ):
            assert part in text, part
        assert "Columns\n" not in text
        columns = cli("inspect", stored, "--columns").out
        assert "Columns\n" in columns and "fixed_size_list<item: float>[1536]" in columns

    def test_names_runs_that_did_not_succeed(self, stored: Path, tmp_path: Path) -> None:
        cli("ingest", "files", "--directory", tmp_path / "none", "--to", stored)
        assert "1 of the last 2 runs did not succeed; `context" in cli("inspect", stored).out

    def test_breaks_no_word_on_a_narrow_terminal(self, stored: Path) -> None:
        shown = on_terminal("inspect", stored, columns=50)
        (source,) = FrameDataset.open(str(stored)).states()
        assert f"source: {source.source}" in shown
        assert f"run: {source.runs[-1].run_id}" in shown

    def test_tells_documents_and_chunks_apart(self, kb: Path, tmp_path: Path) -> None:
        (tmp_path / "guide").mkdir()
        for name in ("a", "b"):
            text = f"# {name}\n\n" + "\n\n".join(
                f"## {n}\n\n{f'word {name} ' * 10}" for n in range(3)
            )
            (tmp_path / "guide" / f"{name}.md").write_text(text)
        ingest = ("ingest", "files", "--directory", tmp_path / "guide", "--to", kb)
        assert cli(*ingest, "--embed", "hash:16", "--chunk-tokens", "32").code == 0
        facts = cli("inspect", kb, "--json").json
        chunks = facts["runs"][0]["chunks"]
        assert (facts["documents"], facts["chunks"]) == (2, chunks)
        text = cli("inspect", kb).out
        assert text.startswith(f"{kb}: 2 documents, {chunks} chunks, version 1, ")
        assert "vectors of 16 by hash:16" in text
        assert f"2 parsed, {chunks} chunks, {chunks} texts embedded" in text
        told = cli("rollback", kb, "--to", "1").out
        assert "is already the newest one" in told
        cli("search", kb, "word")
        told = cli("rollback", kb, "--to", "1").out
        assert f"with 2 documents, {chunks} chunks and the sync state" in told

    def test_json_has_all_of_it(self, docs: Path, stored: Path) -> None:
        cli("ingest", "json", "--directory", docs, "--to", stored, "--run-id", "second")
        facts = cli("inspect", stored, "--json").json
        assert (facts["documents"], facts["version"]) == (3, 2)
        assert [run["written"] for run in facts["runs"]] == [3, 0]
        assert facts["runs"][1]["run_id"] == "second"
        (source,) = facts["sources"]
        assert source["name"] == "json" and source["runs"][-1] == "second"
        assert facts["runs"][0]["sources"] == [source["source"]]
        assert facts["versions"][1]["run_id"] == "second"
        assert {"name": "uuid", "type": "string", "nullable": False} in facts["columns"]


class TestConnectors:
    def test_lists_what_is_registered(self) -> None:
        listed = {one["name"]: one for one in cli("connectors", "--json").json}
        assert listed["json"]["class_path"].endswith(":JSONFileConnector")
        text = cli("connectors").out
        assert "json" in text and listed["json"]["summary"] in text


class TestHelp:
    def test_without_arguments_the_help_is_shown_as_wrong_usage(self) -> None:
        for command in ([], ["ingest"]):
            result = cli(*command)
            assert result.code == 2 and result.err.startswith("Usage: contextframe-beam")

    def test_ingest_lists_the_connectors(self) -> None:
        text = cli("ingest", "--help").out
        assert "json" in text and "path/to/file.py:Class" in text

    def test_version(self) -> None:
        assert cli("--version").out.startswith("contextframe-beam 0.")


class TestProgress:
    def test_elsewhere_than_on_a_terminal_a_line_now_and_then(
        self, docs: Path, kb: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
        # A run of few documents may be over before it is looked at.
        monkeypatch.setattr(watch, "_LOOK_EVERY", 0.001)
        result = cli("ingest", "json", "--directory", docs, "--to", kb)
        assert result.code == 0
        assert result.err.splitlines()[0].startswith("json: ")

    def test_counts_in_words(self) -> None:
        status = progress._Status("json")
        counts = {"items": 0, "rows": 0, "unchanged": 0, "failures": 0}
        assert status.text(counts) == "json: starting, 0:00"
        counts = {"items": 12_000, "rows": 11_000, "unchanged": 998, "failures": 2}
        text = status.text(counts)
        assert text.startswith("json: 12,000 items, ")
        assert text.endswith(" rows/s, 998 unchanged, 2 failed, 0:00")

    def test_a_known_plan_gives_a_share_and_the_time_left(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        status = progress._Status("json")
        began = status._began
        counts = {"items": 10, "rows": 10, "unchanged": 0, "failures": 0, "commits": 2}
        monkeypatch.setattr(progress.time, "monotonic", lambda: began + 30)
        text = status.text({**counts, "planned": 40, "finished": 10})
        assert text.startswith("json: 25%, 10 items, ")
        assert text.endswith(" 0 failed, 2 commits, 0:30, about 1:30 left")
        assert progress.share_of({**counts, "planned": 1, "finished": 0}) is None
        assert progress.share_of(counts) is None

    @pytest.mark.parametrize(
        ("seconds", "shown"), [(0, "0:00"), (61, "1:01"), (3600 * 11 + 62, "11:01:02")]
    )
    def test_durations(self, seconds: float, shown: str) -> None:
        assert progress._duration(seconds) == shown

    def test_on_a_terminal_it_is_live_and_gone_at_the_end(self, tmp_path: Path, kb: Path) -> None:
        script, seen = tmp_path / "waiting.py", tmp_path / "seen"
        script.write_text(WAITING)
        seen.mkdir()
        command = ["ingest", f"{script}:Waiting", "--seen", str(seen), "--to", str(kb)]
        ours, theirs = pty.openpty()
        env = environment(TERM="xterm", COLUMNS="200")
        process = start(*command, env=env, terminal=theirs)
        shown = ""
        while part := read_terminal(ours):
            shown += part
            if re.search(r"Waiting: starting, \d+:\d\d", shown):
                (seen / "first").touch()
            if "1,000 items, " in shown:
                (seen / "last").touch()
        os.close(ours)
        assert process.wait() == 0
        assert re.search(r"Waiting: starting, \d+:\d\d", shown)
        assert shown.rindex("wrote 1,001 documents") > shown.rindex("Waiting: ")


class TestReceipt:
    @pytest.mark.parametrize(
        ("counts", "text"),
        [
            ({"rows_written": 1}, "wrote 1 document"),
            ({"rows_written": 1200, "rows_replaced": 200}, "wrote 1,200 documents (1,000 new, 200"),
            ({"rows_unchanged": 1}, "nothing changed: 1 document is stored already, none was"),
            ({"rows_written": 1, "rows_replaced": 2}, "wrote 1 document (2 replaced)"),
            ({"rows_deleted": 4}, "deleted 4 documents"),
            ({"rows_written": 1, "rows_dropped": 2}, "2 left out for a newer one of the same id"),
            ({}, "the source gave no items"),
            ({"failed": 1, "rows_unchanged": 0}, "the source gave no other items"),
            ({"already_committed": True, "rows_written": 3}, "was committed before"),
        ],
    )
    def test_in_words(self, counts: dict[str, Any], text: str) -> None:
        outcome = Outcome(CommitReceipt("r", "upsert", version=1, **counts), "kb.lance", None, 1.25)
        first = outcome.text().splitlines()[0]
        assert text in first
        assert first.endswith("(version 1 of kb.lance, 1.2 s)")

    @pytest.mark.parametrize(
        ("counts", "line"),
        [
            ({"documents": 3, "parsed": 2, "chunks": 1}, "3 documents, 2 parsed, 1 chunk"),
            ({"documents": 1, "skipped": 1}, "1 document, 1 skipped (nothing reads its type)"),
            # That documents were looked at is said by the line before.
            ({"documents": 3}, "run r, mode upsert"),
        ],
    )
    def test_what_was_done_to_documents(self, counts: dict[str, int], line: str) -> None:
        receipt = CommitReceipt("r", "upsert", version=1, rows_unchanged=3, **counts)
        outcome = Outcome(receipt, "kb.lance", None, 1.0)
        assert outcome.text().splitlines()[1] == line
        assert json.loads(outcome.to_json())["documents"] == counts["documents"]

    def test_bytes_and_dead_letters(self) -> None:
        receipt = CommitReceipt(
            "r", "upsert", version=3, rows_written=5, fragments=2, bytes=5_400_000, failed=2
        )
        text = Outcome(receipt, "kb.lance", "letters.jsonl", 1.0).text()
        assert text.splitlines()[1:] == [
            "2 items failed, kept in letters.jsonl",
            "run r, mode upsert, 5.4 MB in 2 data files",
        ]


class TestErrors:
    """What Beam makes of an exception becomes the message it had."""

    WORKER = """Traceback (most recent call last):
  File "worker.py", line 1, in process
KeyError: 'x'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "worker.py", line 2, in process
    raise {name}(
{raised}
"""

    def test_a_steps_name_is_taken_off(self) -> None:
        error = ConnectorError("docs: cannot be read [while running 'Read/ReadFromConnector/Read']")
        assert report_of(error).message == "docs: cannot be read"
        assert not report_of(error).wrong_usage

    def test_an_error_that_takes_more_than_a_message_keeps_its_message(self) -> None:
        raised = "contextframe_beam.connectors.files.listing.FileTooLargeError: it has 9 bytes"
        found = ours_of(RuntimeError(f"Traceback (most recent call last):\n{raised}"))
        assert type(found) is ConnectorError and str(found) == "it has 9 bytes"

    def test_an_error_of_ours_from_a_worker(self) -> None:
        raised = (
            "contextframe_beam.errors.TooManyFailures: 3 of 3 items failed.\n"
            "All are in x.jsonl [while running 'WriteToLance/Commit-ptransform-4']\n"
        )
        report = report_of(RuntimeError(self.WORKER.format(name="TooManyFailures", raised=raised)))
        assert report.message == "3 of 3 items failed.\nAll are in x.jsonl"
        assert not report.unexpected

    def test_wrong_usage_that_only_a_worker_finds(self) -> None:
        raised = "contextframe_beam.errors.ConfigError: workers is 0"
        report = report_of(RuntimeError(self.WORKER.format(name="ConfigError", raised=raised)))
        assert (report.message, report.wrong_usage) == ("workers is 0", True)

    def test_anything_else_from_a_worker(self) -> None:
        raised = "some.module.OddError: no idea [while running 'Map']"
        report = report_of(RuntimeError(self.WORKER.format(name="OddError", raised=raised)))
        assert (report.message, report.unexpected) == ("OddError: no idea", True)
        assert "--debug" in report.text()
        assert "--debug" not in report.text(debug=True)

    def test_that_a_bundle_has_failed_is_no_news(self) -> None:
        raised = "RuntimeError: Original Exception: OddError: no idea"
        first = self.WORKER.format(name="OddError", raised="some.module.OddError: no idea")
        text = (
            f"{raised}\n{first}\nThe above exception was the direct cause of the following "
            "exception:\n\nTraceback (most recent call last):\nRuntimeError: Bundle processing "
            "associated with inst003 has failed. Check prior failing response and attached "
            "exception for details.\n"
        )
        assert report_of(RuntimeError(text)).message == "OddError: no idea"

    def test_what_nobody_foresaw(self) -> None:
        assert report_of(ZeroDivisionError("division by zero")).message == (
            "ZeroDivisionError: division by zero"
        )
        assert report_of(MemoryError()).message == "MemoryError"

    def test_secrets_are_kept_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from contextframe_beam.connectors.secrets import resolve

        monkeypatch.setenv("KEY_OF_TEST", "hush-hush-1234")
        resolve("env:KEY_OF_TEST")
        text = report_of(ValueError("401 for key hush-hush-1234")).text()
        assert text.startswith("Error: ValueError: 401 for key env:KEY_OF_TEST\n")

    def test_debug_shows_the_traceback(self, kb: Path, tmp_path: Path) -> None:
        command = ("ingest", "json", "--directory", tmp_path / "gone", "--to", kb)
        plain, debug = cli(*command), cli(*command, "--debug")
        assert_error(plain, 1, "gone")
        assert "Traceback" in debug.err and debug.err.splitlines()[-1] == plain.err.rstrip()


def test_letters_tell_the_run_that_they_are_from(docs: Path, kb: Path) -> None:
    write_documents(docs, {"bad.json": "{"})
    result: Result = cli("ingest", "json", "--directory", docs, "--to", kb, "--run-id", "r7")
    assert result.code == 0
    assert [letter["run_id"] for letter in letters_of(kb)] == ["r7"]
