"""Later runs read what changed: no row that is committed late, tied or without a cursor is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.cursors import Bounds
from contextframe_beam.connectors.page import WHOLE
from contextframe_beam.connectors.sql.connector import SqlConnector
from contextframe_beam.connectors.sql.rows import is_deleted
from contextframe_beam.errors import ConfigError
from contextframe_beam.pipelines.ingest import ingest
from tests.connectors.sql.reading import ids, read
from tests.support.postgres import Postgres

# One server for all of them: to set one up takes a second of processor time.
pytestmark = pytest.mark.xdist_group("postgres")

DAY = "2026-01-0"


@pytest.fixture(scope="module")
def db(postgres: Postgres) -> Iterator[Postgres]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SQL_CHANGES", postgres.uri)
        yield postgres


@pytest.fixture
def table(db: Postgres) -> Callable[..., SqlConnector]:
    """Makes the table `t` with a cursor of a type and its first values, and a connector of it."""

    def make(kind: str, *values: str, **arguments: Any) -> SqlConnector:
        db.run(
            "DROP TABLE IF EXISTS t CASCADE",
            f"CREATE TABLE t (id int PRIMARY KEY, body text, at {kind})",
            *(f"INSERT INTO t VALUES ({n}, 'x', {value})" for n, value in enumerate(values)),
        )
        return SqlConnector("env:SQL_CHANGES", "t", **{"cursor": "at", **arguments})

    return make


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("kind", "values", "later"),
    [
        ("timestamptz", (f"'{DAY}1 00:00+05'", f"'{DAY}1 00:00+00'"), f"'{DAY}2'"),
        ("date", (f"'{DAY}1'", f"'{DAY}2'"), f"'{DAY}3'"),
        ("numeric", ("1.5", "10"), "10.01"),
        ('text COLLATE "C"', ("'B'", "'a'"), "'b'"),
        ("uuid", (f"'{0:032}'", f"'{1:032}'"), f"'{2:032}'"),
    ],
    ids=lambda one: one if isinstance(one, str) and one.isalpha() else "",
)
def test_a_cursor_is_of_any_type_that_the_database_sorts(
    table: Callable[..., SqlConnector], db: Postgres, kind: str, values: tuple[str, ...], later: str
) -> None:
    connector = table(kind, *values, lookback="0")
    found, state = read(connector)
    assert ids(found) == [0, 1]
    db.run(f"INSERT INTO t VALUES (2, 'x', {later})", f"INSERT INTO t VALUES (3, 'x', {values[1]})")
    found, state = read(connector, state)
    assert ids(found) == [1, 2, 3]  # 3 has the last value that was read, so has 1
    assert ids(read(connector, state)) == [2]


def test_rows_without_a_cursor_are_read_each_time(
    table: Callable[..., SqlConnector], db: Postgres
) -> None:
    connector = table("int", "1", "NULL", "2")
    assert ids(read(connector, read(connector)[1])) == [1, 2]
    db.run("UPDATE t SET at = NULL")
    found, state = read(connector)
    assert (ids(found), state) == ([0, 1, 2], {WHOLE: {"cursor": "at"}})


@pytest.mark.parametrize("end", ["'infinity'", "'2999-01-01'"])
def test_a_time_in_the_future_hides_nothing(
    table: Callable[..., SqlConnector], db: Postgres, end: str
) -> None:
    connector = table("timestamptz", f"'{DAY}1'", end)
    _, state = read(connector)
    db.run("INSERT INTO t VALUES (2, 'x', now())")
    assert 2 in ids(read(connector, state))


def test_a_row_that_is_committed_late_is_read(
    table: Callable[..., SqlConnector], db: Postgres
) -> None:
    """A transaction that has the smaller number of two may be committed after the other."""
    connector = table("int", "1")
    with db.connect() as late, late.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO t VALUES (7, 'x', 2)")
        db.run("INSERT INTO t VALUES (8, 'x', 3)")
        found, state = read(connector)
        assert ids(found) == [0, 8]
        cursor.execute("COMMIT")
    found, state = read(connector, state)
    assert ids(found) == [7, 8]
    assert ids(read(connector, state)) == [8]


def test_rows_of_partitions_are_found_late_and_views_are_read_without_it(
    table: Callable[..., SqlConnector], db: Postgres
) -> None:
    table("int", "1")
    db.run(
        "DROP TABLE IF EXISTS parts CASCADE",
        "CREATE TABLE parts (id int PRIMARY KEY, body text, at int) PARTITION BY RANGE (id)",
        "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20)",
        "CREATE VIEW shown AS SELECT * FROM parts",
    )
    whole = SqlConnector("env:SQL_CHANGES", "parts", cursor="at")
    view = SqlConnector("env:SQL_CHANGES", "shown", cursor="at", key=["id"])
    with db.connect() as late, late.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO parts_1 VALUES (1, 'x', 2)")
        db.run("INSERT INTO parts VALUES (11, 'x', 3)")
        states = [read(one)[1] for one in (whole, view)]
        cursor.execute("COMMIT")
    assert [ids(read(one, known)) for one, known in zip((whole, view), states, strict=True)] == [
        [1, 11],
        [11],
    ]


def test_times_are_looked_back_by_ten_minutes_or_as_told(
    table: Callable[..., SqlConnector],
) -> None:
    values = [f"'{DAY}1 00:{minute:02}'" for minute in (0, 5, 11, 20)]
    _, state = read(table("timestamptz", *values))
    assert ids(read(table("timestamptz", *values), state)) == [2, 3]
    assert ids(read(table("timestamptz", *values, lookback="1h"), state)) == [0, 1, 2, 3]
    _, state = read(table("int", "9"))
    assert ids(read(table("int", "1", "5", "9", lookback="4"), state)) == [1, 2]


def test_xmin_finds_changes_of_a_table_without_a_cursor(
    table: Callable[..., SqlConnector], db: Postgres
) -> None:
    connector = table("int", "1", "2", "3", cursor="xmin")
    found, state = read(connector)
    assert ids(found) == [0, 1, 2]
    with db.connect() as late, late.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("UPDATE t SET body = 'y' WHERE id = 1")
        found, state = read(connector, state)
        assert found == []
        cursor.execute("COMMIT")
    found, state = read(connector, state)
    assert ids(found) == [1]
    assert read(connector, state)[0] == []


def test_another_cursor_begins_anew(table: Callable[..., SqlConnector], db: Postgres) -> None:
    _, state = read(table("int", "1", "2"))
    assert ids(read(table("int", "1", "2", cursor="id"), state)) == [0, 1]


def test_the_end_of_the_cursor_is_that_of_the_plan(
    table: Callable[..., SqlConnector], db: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector = table("int", "1", "2")
    planned = type(connector)._planned

    def then_write(self: Any, *arguments: Any) -> Any:
        found = planned(self, *arguments)
        db.run("INSERT INTO t VALUES (9, 'x', 9)")
        return found

    monkeypatch.setattr(type(connector), "_planned", then_write)
    _, state = read(connector)
    monkeypatch.undo()
    assert 9 in ids(read(connector, state))


def test_a_range_of_time_is_read_by_the_cursor(table: Callable[..., SqlConnector]) -> None:
    values = [f"'{DAY}{day} 12:00'" for day in (1, 2, 3)]
    bounds = Bounds.of(since="2026-01-02", until="2026-01-03T12:00:00Z")
    for kind in ("timestamptz", "text"):
        assert ids(read(table(kind, *values), bounds=bounds)) == [1]
    assert ids(read(table("date", *values), bounds=bounds)) == [1, 2]
    with pytest.raises(ConfigError, match="needs a cursor that is a time; at is of the type int"):
        read(table("int", "1"), bounds=bounds)
    with pytest.raises(ConfigError, match="needs cursor"):
        read(table("int", "1", cursor=None), bounds=bounds)


@pytest.mark.parametrize("value", [True, 1, 2.5, "yes", "t", "2026-01-01", "infinity"])
def test_these_values_say_that_a_row_is_deleted(value: Any) -> None:
    assert is_deleted(value)


@pytest.mark.parametrize("value", [None, False, 0, 0.0, "", "No", " false ", "F", "0"])
def test_these_values_say_that_it_is_not(value: Any) -> None:
    assert not is_deleted(value)


def test_a_soft_delete_deletes_the_document(
    table: Callable[..., SqlConnector], db: Postgres, tmp_path: Path
) -> None:
    connector = table("timestamptz", *[f"'{DAY}1'"] * 4, deleted_column="gone")
    db.run("ALTER TABLE t ADD gone timestamptz")
    kb = str(tmp_path / "kb.lance")
    assert ingest(connector, kb).rows_written == 4
    db.run(f"UPDATE t SET gone = '{DAY}2', at = '{DAY}2' WHERE id = 1")
    db.run(f"UPDATE t SET gone = 'infinity', at = '{DAY}2' WHERE id = 3")
    assert ingest(connector, kb).rows_deleted == 2
    assert sorted(one.unique_id or "" for one in FrameDataset.open(kb)) == ["t:0", "t:2"]


def test_a_mirror_deletes_what_the_table_no_longer_has(
    table: Callable[..., SqlConnector], db: Postgres, tmp_path: Path
) -> None:
    connector, kb = table("int", "1", "2", "3"), str(tmp_path / "kb.lance")
    ingest(connector, kb, mode="mirror")
    db.run("DELETE FROM t WHERE id = 1")
    receipt = ingest(connector, kb, mode="mirror")
    assert (receipt.rows_deleted, receipt.rows_unchanged) == (1, 2)


def test_an_unchanged_table_is_stored_once(
    table: Callable[..., SqlConnector], tmp_path: Path
) -> None:
    now = datetime.now(timezone.utc) - timedelta(minutes=1)
    connector, kb = table("timestamptz", f"'{now.isoformat()}'"), str(tmp_path / "kb.lance")
    assert ingest(connector, kb).rows_written == 1
    receipt = ingest(connector, kb)
    assert (receipt.rows_written, receipt.rows_unchanged) == (0, 1)
