"""One table in PostgreSQL, SQLite and DuckDB, read in full, by changes and in ranges."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.sql.connector import SqlConnector
from contextframe_beam.pipelines.ingest import ingest
from tests.connectors.sql.reading import read
from tests.support.postgres import Postgres

# One server for all of them: to set one up takes a second of processor time.
pytestmark = pytest.mark.xdist_group("postgres")


@dataclass
class Database:
    """A database of one kind: its address, and what changes it."""

    kind: str
    uri: str
    run: Callable[..., Any]

    def connector(self, **arguments: Any) -> SqlConnector:
        return SqlConnector(self.uri, **{"table": "notes", **arguments})


@pytest.fixture(scope="module", params=["postgresql", "sqlite", "duckdb"])
def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    kind = request.param
    if kind == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SQL_TEST_DB", server.uri)
            yield Database(kind, "env:SQL_TEST_DB", server.run)
        return
    path = tmp_path_factory.mktemp("database") / f"notes.{kind}"

    def run(*statements: str) -> Any:
        library: Any = sqlite3 if kind == "sqlite" else duckdb
        connection = library.connect(path)
        rows = None
        for statement in statements:
            rows = connection.execute(statement).fetchall()
        connection.commit()
        connection.close()
        return rows

    yield Database(kind, f"{kind}:///{path}", run)


TIME = {"postgresql": "timestamptz", "sqlite": "text", "duckdb": "timestamptz"}


@pytest.fixture
def notes(database: Database) -> Database:
    """Ten rows, of which the last has no text."""
    database.run(
        "DROP TABLE IF EXISTS notes",
        "CREATE TABLE notes (id integer PRIMARY KEY, title text, body text, gone boolean, "
        f"changed {TIME[database.kind]})",
        *(
            f"INSERT INTO notes VALUES ({n}, 'T{n}', {'NULL' if n == 9 else repr(f'body {n}')}, "
            f"false, '2026-01-01 00:00:0{n}+00')"
            for n in range(10)
        ),
    )
    return database


class TestATable:
    def test_becomes_documents_also_where_a_text_is_null(
        self, notes: Database, tmp_path: Path
    ) -> None:
        receipt = ingest(notes.connector(text="body"), str(tmp_path / "kb.lance"))
        assert (receipt.rows_written, receipt.failed) == (10, 0)
        frames = {one.unique_id: one for one in FrameDataset.open(str(tmp_path / "kb.lance"))}
        assert sorted(frames) == [f"notes:{n}" for n in range(10)]
        assert frames["notes:3"].text_content == "body 3"
        assert frames["notes:3"].title == "T3"
        assert not frames["notes:9"].text_content

    def test_gives_each_row_once_however_it_is_cut(
        self, notes: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for step in (1, 3):
            monkeypatch.setattr(
                "contextframe_beam.connectors.sql.connector.rows_in_range", lambda _, s=step: s
            )
            items, _ = read(notes.connector())
            assert sorted(one["id"] for one in items) == list(range(10))

    def test_is_read_by_changes_after_the_first_run(self, notes: Database) -> None:
        connector = notes.connector(cursor="changed", lookback="0s")
        items, state = read(connector)
        assert len(items) == 10
        assert [one["id"] for one in read(connector, state)[0]] == [9]  # the last value again
        notes.run("UPDATE notes SET changed = '2026-01-02 00:00:00+00' WHERE id = 3")
        items, state = read(connector, state)
        assert sorted(one["id"] for one in items) == [3, 9]
        assert [one["id"] for one in read(connector, state)[0]] == [3]
