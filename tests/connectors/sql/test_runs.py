"""While a run reads a database, others write to it, and connections break."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors import PlannedRun
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.connectors.sql.connector import SqlConnector
from contextframe_beam.errors import ConnectorError
from contextframe_beam.pipelines.ingest import ingest
from tests.connectors.sql.reading import ids, read
from tests.support.postgres import Postgres

# One server for all of them: to set one up takes a second of processor time.
pytestmark = pytest.mark.xdist_group("postgres")

OPEN = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'contextframe-beam' "
    "AND datname = current_database()"
)


def open_connections(db: Postgres, wanted: int) -> int:
    """Returns how many a run has open; the server takes a moment to notice that one has ended."""
    deadline = time.monotonic() + 10
    while (found := int(db.run(OPEN)[0][0])) != wanted and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


@pytest.fixture
def db(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Postgres:
    """A table of a hundred rows, which a run cuts into three ranges."""
    monkeypatch.setenv("SQL_RUNS", postgres.uri)
    monkeypatch.setattr("contextframe_beam.connectors.sql.connector.rows_in_range", lambda _: 40)
    postgres.run(
        "DROP TABLE IF EXISTS t CASCADE",
        "CREATE TABLE t AS SELECT n AS id, 'text ' || n AS body FROM generate_series(1, 100) n",
        "ALTER TABLE t ADD PRIMARY KEY (id)",
    )
    return postgres


@pytest.fixture
def after_plan(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Calls a function between the plan of a run and its reading."""

    def set_up(call: Callable[[], Any]) -> None:
        plan = SqlConnector.plan

        def then(self: SqlConnector, run: PlannedRun) -> Iterator[Any]:
            yield from plan(self, run)
            call()

        monkeypatch.setattr(SqlConnector, "plan", then)

    return set_up


def test_all_ranges_are_read_as_the_database_was_at_one_moment(
    db: Postgres, after_plan: Callable[[Callable[[], Any]], None]
) -> None:
    """Rows whose keys move to other ranges meanwhile are neither missed nor read twice."""
    after_plan(
        lambda: db.run(
            "UPDATE t SET id = 1000 - id WHERE id % 2 = 0", "DELETE FROM t WHERE id < 10"
        )
    )
    assert ids(read(SqlConnector("env:SQL_RUNS", "t"))) == list(range(1, 101))
    assert open_connections(db, 0) == 0


def test_the_snapshot_is_in_nobody_s_way_and_ends_with_the_run(
    db: Postgres, after_plan: Callable[[Callable[[], Any]], None], tmp_path: Path
) -> None:
    found = []

    def write() -> None:
        found.append(open_connections(db, 1))
        db.run("SET lock_timeout = '1s'", "ALTER TABLE t ADD note text")

    after_plan(write)
    assert ingest(SqlConnector("env:SQL_RUNS", "t"), str(tmp_path / "kb.lance")).rows_written == 100
    assert (found, open_connections(db, 0)) == ([1], 0)


def test_without_its_snapshot_a_run_is_partial(
    db: Postgres, after_plan: Callable[[Callable[[], Any]], None], tmp_path: Path
) -> None:
    """The process that holds it may end; no state moves then, and a mirror deletes nothing."""
    connector, kb = SqlConnector("env:SQL_RUNS", "t", cursor="id"), str(tmp_path / "kb.lance")
    ingest(connector, kb, mode="mirror")
    db.run("DELETE FROM t WHERE id = 7")
    kill = f"SELECT pg_terminate_backend(pid) FROM ({OPEN.replace('count(*)', 'pid')}) AS p"
    after_plan(lambda: db.run(kill))
    receipt = ingest(connector, kb, mode="mirror")
    assert (receipt.rows_unchanged, receipt.rows_deleted) == (99, 0)
    assert "snapshot" in " ".join(receipt.partial)


def test_a_connection_that_breaks_fails_the_run(
    db: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows of a range whose first pages are on their way is not read once more."""
    monkeypatch.setattr("contextframe_beam.connectors.sql.connector.rows_in_range", lambda _: 10**6)
    db.run("INSERT INTO t SELECT n, repeat('x', 9000) FROM generate_series(101, 8000) n")
    connector = SqlConnector("env:SQL_RUNS", "t")
    pages = Source(connector, threads=1).pages()
    assert next(page for page in pages if page.count)
    db.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'contextframe-beam' AND query LIKE 'COPY%'"
    )
    with pytest.raises(ConnectorError, match=r"terminating connection|closed the connection"):
        list(pages)


def test_a_table_that_grows_and_shrinks_meanwhile_gives_what_stays_once(
    tmp_path: Path,
    after_plan: Callable[[Callable[[], Any]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SQLite has no snapshot for several connections; each range is read as it is then."""
    monkeypatch.setattr("contextframe_beam.connectors.sql.connector.rows_in_range", lambda _: 20)
    path = tmp_path / "a.db"

    def change(*statements: str) -> None:
        with sqlite3.connect(path) as database:
            for statement in statements:
                database.execute(statement)
        database.close()

    change("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)")
    change(*(f"INSERT INTO t VALUES ({n}, 'x')" for n in range(100)))
    after_plan(lambda: change("DELETE FROM t WHERE id % 2", "INSERT INTO t VALUES (1000, 'y')"))
    assert ids(read(SqlConnector(f"sqlite:///{path}", "t"))) == [*range(0, 100, 2), 1000]


def test_a_query_is_cut_as_a_table_is(db: Postgres, tmp_path: Path) -> None:
    query = "SELECT id, body, id % 10 AS team FROM t WHERE id <= 60 ORDER BY body; -- all"
    connector = SqlConnector("env:SQL_RUNS", query=query, key=["id"], prefix="q:")
    assert ingest(connector, str(tmp_path / "kb.lance")).rows_written == 60
    frames = {one.unique_id: one for one in FrameDataset.open(str(tmp_path / "kb.lance"))}
    assert frames["q:42"].metadata["team"] == 2


def test_only_columns_that_are_mapped_are_read(db: Postgres) -> None:
    db.run("ALTER TABLE t ADD large text DEFAULT 'large', ADD at timestamptz, ADD gone boolean")
    mapping = {"text": "body", "metadata": ["at"]}
    connector = SqlConnector("env:SQL_RUNS", "t", deleted_column="gone", mapping=mapping)
    items, _ = read(connector)
    assert {name for item in items for name in item} == {"id", "body", "at", "gone"}
    assert connector.unmapped(list(connector.fields())) == ["large", "gone"]
