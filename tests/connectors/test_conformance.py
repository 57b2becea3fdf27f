"""The conformance suite: each of our connectors passes, and each broken one is caught."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from contextframe_beam import FrameRecord
from contextframe_beam.connectors import (
    APIConnector,
    BaseConnector,
    FilesConnector,
    JSONFileConnector,
    Page,
    PaginatedConnector,
    Partition,
    Place,
    Window,
)
from contextframe_beam.connectors.discord.connector import DiscordConnector
from contextframe_beam.connectors.dlt_source import DltConnector
from contextframe_beam.connectors.github.connector import GitHubConnector
from contextframe_beam.connectors.google_drive.connector import GoogleDriveConnector
from contextframe_beam.connectors.linear.connector import LinearConnector
from contextframe_beam.connectors.loaders.langchain import LangChainConnector
from contextframe_beam.connectors.loaders.llamaindex import LlamaIndexConnector
from contextframe_beam.connectors.notion.connector import NotionConnector
from contextframe_beam.connectors.obsidian.connector import ObsidianConnector
from contextframe_beam.connectors.programs.airbyte import AirbyteConnector
from contextframe_beam.connectors.programs.singer import SingerConnector
from contextframe_beam.connectors.registry import list_connectors
from contextframe_beam.connectors.slack.connector import SlackConnector
from contextframe_beam.connectors.sql.connector import SqlConnector
from contextframe_beam.connectors.tables.arrow import ArrowConnector
from contextframe_beam.connectors.tables.csv_file import CSVConnector
from contextframe_beam.connectors.tables.parquet import ParquetConnector
from contextframe_beam.connectors.testing import (
    CHECKS,
    ConnectorTests,
    Outcome,
    Status,
    Subject,
    run_checks,
)
from tests.support import broken_connectors as broken
from tests.support import connector_page as page
from tests.support.cli_helpers import assert_error, cli
from tests.support.http_fixture import HttpServer


def outcome(subject: Subject, check: str) -> Outcome:
    (found,) = run_checks(subject, [check])
    return found


#: Each broken connector: what catches it, how it is made, and what the reason says.
BROKEN: list[tuple[str, Callable[..., BaseConnector], str]] = [
    ("authenticates", broken.SaysNothing, "returned None"),
    ("refuses_wrong_credentials", broken.AcceptsAnybody, "credentials and read 10 items"),
    ("travels_without_secrets", broken.CarriesTheSecret, "its pickle holds a secret"),
    (
        "travels_without_secrets",
        lambda token: broken.HoldsALock(token, threading.Lock()),
        "cannot be pickled",
    ),
    ("travels_without_secrets", broken.IsNeverTheSame, "another source"),
    ("refuses_unknown_options", broken.TakesAnything, "the constructor takes no_such_option"),
    ("refuses_unknown_options", broken.ReadsWithAnything, "reading takes no_such_option"),
    ("splits_read_each_item_once", broken.OverlapsByOne, "come twice"),
    ("splits_read_each_item_once", broken.LosesTheFirst, "ranges of 7"),
    ("splits_read_each_item_once", broken.RemembersWhereItWas, "missing"),
    ("same_item_same_uuid", broken.NamesByChance, "the second time"),
    ("same_item_same_uuid", broken.NamesAllAlike, "20 items map to 1 uuids"),
    ("same_item_same_uuid", broken.NamesByHash, "in another process"),
    ("survives_odd_values", broken.TrustsEveryField, "where 'author' is null: AttributeError"),
    ("survives_odd_values", broken.MapsToADict, "returned dict, not a FrameRecord"),
    ("errors_become_dead_letters", broken.EndsTheRun, "SystemExit"),
    ("errors_become_dead_letters", broken.GivesObjects, "a dead letter cannot keep"),
    ("second_run_reads_nothing", broken.AlwaysReadsAll, "reads 20 items of 20"),
    ("interrupted_run_resumes", broken.StatesOfOthers, "are missing"),
    ("memory_stays_bounded", broken.KeepsEverything, "MB at once"),
]


@pytest.mark.parametrize(
    ("check", "make", "reason"), BROKEN, ids=[getattr(one[1], "__name__", "?") for one in BROKEN]
)
def test_a_broken_connector_is_caught_by_the_check_meant_for_it(
    check: str, make: Callable[..., BaseConnector], reason: str
) -> None:
    if not isinstance(make, type) or issubclass(make, broken.Sound):
        make = partial(make, token=broken.GOOD_TOKEN)
    found = outcome(Subject(make), check)
    assert found.status is Status.FAILED, found
    assert reason in found.reason and found.mend


class Listing(PaginatedConnector):
    """Lists a stretch in each run, to find what is gone, and maybe more than that.

    Args:
        more: How many items before the stretch each run reads again.
    """

    def __init__(self, more: int = 0) -> None:
        super().__init__()
        self.more = more

    def partitions(self, resume_from=None):
        return [Partition("all", bool(resume_from))]

    def fetch_page(self, partition, cursor):
        start = 10 - self.more if partition.params else 0
        items = [{"id": number} for number in range(start, 20)]
        return Page(items, windows=[Window("all", 10)], state={"read": 20})

    def map_to_frame_record(self, item):
        place = Place("all", item["id"])
        return FrameRecord(f"text {item['id']}", unique_id=f"l:{item['id']}", place=place)


def test_a_stretch_may_be_listed_again_and_nothing_else() -> None:
    found = outcome(Subject(Listing), "second_run_reads_nothing")
    assert found.status is Status.PASSED and "lists the 10 items of its windows" in found.reason
    found = outcome(Subject(partial(Listing, 2)), "second_run_reads_nothing")
    assert found.status is Status.FAILED and "reads 2 items of 20" in found.reason


def test_an_error_that_is_swallowed_is_caught() -> None:
    subject = Subject(broken.SwallowsErrors, broken=lambda: broken.SwallowsErrors(broken=True))
    found = outcome(subject, "errors_become_dead_letters")
    assert found.status is Status.FAILED and "says nothing" in found.reason


def test_a_state_that_is_ahead_of_the_data_is_caught(tmp_path: Path) -> None:
    def make() -> BaseConnector:
        return broken.SavesItsStateItself(str(tmp_path / "state"))

    subject = Subject(make)
    assert len(subject.first.items) == 20
    found = outcome(subject, "interrupted_run_resumes")
    assert found.status is Status.FAILED and "20 items are missing" in found.reason


def test_every_check_catches_something() -> None:
    assert {check for check, _, _ in BROKEN} | {"errors_become_dead_letters"} == set(CHECKS)


def test_a_sound_connector_passes_and_what_cannot_be_told_says_why() -> None:
    subject = Subject(partial(broken.Sound, broken.GOOD_TOKEN))
    found = {one.check: one for one in run_checks(subject)}
    assert list(found) == list(CHECKS)
    skipped = {name for name, one in found.items() if one.status is Status.NOT_APPLICABLE}
    assert [one for one in found.values() if one.status is Status.FAILED] == []
    assert skipped == {"second_run_reads_nothing", "memory_stays_bounded"}
    assert all(found[name].reason for name in found)
    assert outcome(Subject(broken.YieldsOneByOne), "memory_stays_bounded").status is Status.PASSED


class TestSound(ConnectorTests):
    """The suite as a stranger uses it from pytest."""

    def connector(self) -> BaseConnector:
        return broken.Sound(broken.GOOD_TOKEN)


class TestFilesConnector(ConnectorTests):
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "docs"
        for number in range(10):
            (self.folder / f"{number}").mkdir(parents=True)
            (self.folder / f"{number}/a.md").write_text(f"# {number}")
        (self.folder / "picture.png").write_bytes(b"\x89PNG")

    def connector(self) -> FilesConnector:
        return FilesConnector(self.folder)


class TestObsidianConnector(ConnectorTests):
    @pytest.fixture(autouse=True)
    def _vault(self, tmp_path: Path) -> None:
        self.vault = tmp_path / "Notes"
        (self.vault / ".obsidian").mkdir(parents=True)
        for number in range(10):
            text = f"---\ntags: [a]\n---\n# {number}\n\n[[{(number + 1) % 10}]] and #b\n"
            (self.vault / f"{number}.md").write_text(text)

    def connector(self) -> ObsidianConnector:
        return ObsidianConnector(self.vault)


class TestJSONFileConnector(ConnectorTests):
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        for name in ("good", "bad"):
            (tmp_path / name).mkdir()
            lines = [{"id": n, "content": f"text {n}", "tags": ["a"]} for n in range(30)]
            (tmp_path / name / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
        (tmp_path / "bad" / "b.json").write_text("{cut off")

    def connector(self) -> BaseConnector:
        return JSONFileConnector(self.folder / "good", "*.json*")

    def with_unreadable_item(self) -> BaseConnector:
        return JSONFileConnector(self.folder / "bad", "*.json*")


class TestParquetConnector(ConnectorTests):
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        for name in ("good", "bad"):
            (tmp_path / name).mkdir()
            rows = pa.table({"id": range(30), "text": [f"text {n}" for n in range(30)]})
            pq.write_table(rows, tmp_path / name / "a.parquet", row_group_size=10)
        (tmp_path / "bad" / "b.parquet").write_bytes(b"PAR1 cut off")

    def connector(self) -> BaseConnector:
        return ParquetConnector(self.folder / "good")

    def with_unreadable_item(self) -> BaseConnector:
        return ParquetConnector(self.folder / "bad")


class TestArrowConnector(ConnectorTests):
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        for name in ("good", "bad"):
            (tmp_path / name).mkdir()
            rows = pa.table({"id": range(30), "text": [f"text {n}" for n in range(30)]})
            feather.write_feather(rows, str(tmp_path / name / "a.arrow"))
        (tmp_path / "bad" / "b.arrow").write_bytes(b"ARROW1 cut off")

    def connector(self) -> BaseConnector:
        return ArrowConnector(self.folder / "good")

    def with_unreadable_item(self) -> BaseConnector:
        return ArrowConnector(self.folder / "bad")


class TestLanceDataset(ConnectorTests):
    @pytest.fixture(autouse=True)
    def _dataset(self, tmp_path: Path) -> None:
        self.uri = str(tmp_path / "rows.lance")
        rows = pa.table({"id": range(30), "text": [f"text {n}" for n in range(30)]})
        lance.write_dataset(rows, self.uri, enable_stable_row_ids=True)

    def connector(self) -> BaseConnector:
        return ArrowConnector(self.uri)


class TestCSVConnector(ConnectorTests):
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        rows = "".join(f"{n},text {n}\n" for n in range(30))
        (tmp_path / "good.csv").write_text(f"id,text\n{rows}")
        (tmp_path / "bad.csv").write_text(f"id,text\n{rows}31\n")

    def connector(self) -> BaseConnector:
        return CSVConnector(self.folder / "good.csv")

    def with_unreadable_item(self) -> BaseConnector:
        return CSVConnector(self.folder / "bad.csv")


class TestSqlConnector(ConnectorTests):
    @pytest.fixture(autouse=True)
    def _database(self, tmp_path: Path) -> None:
        self.path = tmp_path / "notes.db"
        with sqlite3.connect(self.path) as database:
            database.execute("CREATE TABLE notes (id integer PRIMARY KEY, body text, changed text)")
            rows = [(n, f"text {n}", f"2026-01-01 00:00:{n:02}") for n in range(30)]
            database.executemany("INSERT INTO notes VALUES (?, ?, ?)", rows)

    def connector(self) -> BaseConnector:
        return SqlConnector(f"sqlite:///{self.path}", "notes", cursor="changed", lookback="0s")


class TestAPIConnector(ConnectorTests):
    @pytest.fixture(autouse=True)
    def _url(self, server: HttpServer, tmp_path: Path) -> None:
        self.url = server.url

    def connector(self) -> BaseConnector:
        resource = {
            "name": "changes",
            "path": "/api/changes",
            "params": {"n": 30},
            "paginator": {"type": "page"},
            "incremental": {"field": "updated_at", "param": "since"},
        }
        return APIConnector(self.url, resources=[resource])


class TestAPIConnectorWithAKey(ConnectorTests):
    sync_kwargs = {"params": {"n": 30}}  # noqa: RUF012

    @pytest.fixture(autouse=True)
    def _url(self, server: HttpServer) -> None:
        self.url = server.url

    def connector(self) -> BaseConnector:
        return APIConnector(self.url, "right-key-12345")


class AuthorsOfThePage(BaseConnector):
    """Maps as the page's APIConnector does, items that have an author."""

    def sync_documents(self) -> list[dict[str, Any]]:
        return [{"id": 1, "content": "text", "author": {"name": "Ann"}}]

    map_to_frame_record = page.APIConnector.map_to_frame_record


def test_the_mapping_of_the_page_is_caught_where_an_author_is_null() -> None:
    found = outcome(Subject(AuthorsOfThePage), "survives_odd_values")
    assert found.status is Status.FAILED and "where 'author' is null" in found.reason


def test_every_registered_connector_is_checked_here() -> None:
    registered = {one.class_path.rpartition(":")[2] for one in list_connectors()}
    checked = {
        AirbyteConnector,  # in programs/test_airbyte.py
        APIConnector,
        ArrowConnector,
        CSVConnector,
        DiscordConnector,  # in test_discord.py
        DltConnector,  # in test_dlt.py
        FilesConnector,
        GitHubConnector,  # in test_github.py
        GoogleDriveConnector,  # in test_google_drive.py
        JSONFileConnector,
        LangChainConnector,  # in test_loaders.py
        LinearConnector,  # in test_linear.py
        LlamaIndexConnector,  # in test_loaders.py
        NotionConnector,  # in test_notion.py
        ObsidianConnector,
        ParquetConnector,
        SingerConnector,  # in programs/test_singer.py
        SlackConnector,  # in test_slack_access.py
        SqlConnector,
    }
    assert registered == {one.__name__ for one in checked}


def test_pytest_is_not_needed() -> None:
    program = "import sys, contextframe_beam.connectors.testing; print('pytest' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


MODULE = "tests.support.broken_connectors"


def test_the_command_reports_each_check(tmp_path: Path) -> None:
    result = cli("test", f"{MODULE}:Sound", "--token", broken.GOOD_TOKEN, "--count", 12)
    assert (result.code, result.err) == (0, "")
    assert "splits_read_each_item_once" in result.out and "12 items in" in result.out
    assert "not applicable" in result.out


def test_the_command_fails_with_the_reason_and_a_way_to_mend_it() -> None:
    result = cli("test", f"{MODULE}:TrustsEveryField", "--token", broken.GOOD_TOKEN)
    assert result.code == 1
    assert "AttributeError" in result.out and "to fix it:" in result.out


def test_where_it_does_not_authenticate_nothing_is_read(tmp_path: Path) -> None:
    result = cli("test", "json", "--directory", tmp_path / "nowhere", "--debug")
    assert result.code == 1 and result.out.count("FAIL") == 1
    assert "Directory not found" in result.out and "it does not authenticate" in result.out
    assert "Traceback" in result.err
    assert_error(cli("test", "json"), 2, "missing option --directory")


def test_the_command_gives_json() -> None:
    result = cli("test", f"{MODULE}:AcceptsAnybody", "--token", broken.GOOD_TOKEN, "--json")
    assert result.code == 1
    assert {one["check"]: one["status"] for one in result.json}["authenticates"] == "passed"


def test_the_command_takes_the_arguments_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "sound.yaml").write_text(f"token: {broken.GOOD_TOKEN}\ncount: 7\n")
    result = cli("test", f"{MODULE}:Sound", "--config", tmp_path / "sound.yaml")
    assert result.code == 0 and "7 items in" in result.out
    (tmp_path / "sound.yaml").write_text("- 7\n")
    assert_error(
        cli("test", f"{MODULE}:Sound", "--config", tmp_path / "sound.yaml"), 2, "names and values"
    )


def test_a_misspelt_option_of_the_command_is_told() -> None:
    assert_error(cli("test", f"{MODULE}:Sound", "--coutn", 3), 2, "--count")
    assert_error(cli("test", "jsno"), 2, "did you mean json")
