"""Ranges of keys: whatever a key is, each row is in exactly one range."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam.connectors.secrets import SecretReference
from contextframe_beam.connectors.sql.address import address_of
from contextframe_beam.connectors.sql.dialect import Dialect
from contextframe_beam.connectors.sql.duck import DuckDialect
from contextframe_beam.connectors.sql.lite import LiteDialect
from contextframe_beam.connectors.sql.postgres import PostgresDialect
from contextframe_beam.connectors.sql.query import Relation
from contextframe_beam.connectors.sql.ranges import cut, rows_in_range
from contextframe_beam.connectors.sql.session import Session
from tests.support.laws import examples
from tests.support.postgres import Postgres

# One server for all of them: to set one up takes a second of processor time.
pytestmark = pytest.mark.xdist_group("postgres")


def numbers_by_range(
    session: Session, dialect: Dialect, keys: list[str], step: int
) -> list[list[int]]:
    """Cuts the table t, and returns the numbers `n` of the rows in each range."""
    relation = Relation(table="t")
    columns = {one.name: one for one in dialect.columns(session, relation)}
    found = cut(
        session,
        dialect,
        dialect.rows(relation),
        [columns[key] for key in keys],
        "1 = 1",
        step,
        True,
    )
    return [
        sorted(
            number
            for (number,) in session.rows(
                f"SELECT n FROM {dialect.rows(relation)} WHERE {found.where(index, dialect)}"
            )
        )
        for index in range(len(found))
    ]


@pytest.fixture(scope="module")
def session(postgres: Postgres) -> Any:
    postgres.run(
        "CREATE TYPE size AS ENUM ('small', 'large', 'huge')",
        "CREATE COLLATION folded (provider = icu, locale = 'en-u-ks-level2', "
        "deterministic = false)",
        """CREATE TABLE t AS SELECT n,
            n * n * n - 900 AS whole,
            CASE WHEN n % 9 = 0 THEN NULL ELSE n / 7 END AS shared,
            (CASE WHEN n % 2 = 0 THEN 'Ä' ELSE 'b''"\\' END || n) COLLATE "en-x-icu" AS name,
            (CASE WHEN n % 2 = 0 THEN 'K' ELSE 'k' END || n / 4) COLLATE folded AS folded,
            md5(n::text)::uuid AS uid,
            timestamptz 'epoch' + n * n * interval '1 hour 0.000001 s' AS moment,
            date '2026-01-01' + n AS day,
            n / 3.0 AS fraction,
            CASE WHEN n = 5 THEN 'NaN' WHEN n = 6 THEN '-Infinity' ELSE n / 7.0 END::float8 AS odd,
            (enum_range(NULL::size))[n % 3 + 1] AS size,
            decode(md5(n::text), 'hex') AS bytes,
            ('[' || n || ',' || n + 3 || ')')::int4range AS range,
            ('10.0.0.' || n)::inet AS host
            FROM generate_series(0, 40) n""",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SQL_RANGES", postgres.uri)
        address = address_of(SecretReference("env:SQL_RANGES"))
    dialect = PostgresDialect()
    with Session(address, dialect.begin()) as opened:
        yield opened


@pytest.mark.parametrize(
    "keys",
    [
        ["whole"],
        ["shared"],
        ["name"],
        ["folded"],
        ["uid"],
        ["moment"],
        ["day"],
        ["fraction"],
        ["odd"],
        ["bytes"],
        ["range"],
        ["host"],
        ["size", "n"],
        ["shared", "name"],
        ["day", "shared", "uid"],
    ],
    ids=",".join,
)
def test_a_key_of_any_type_cuts_a_table_of_postgresql(session: Session, keys: list[str]) -> None:
    found = numbers_by_range(session, PostgresDialect(), keys, 7)
    assert sorted(number for one in found for number in one) == list(range(41))
    assert 4 <= len(found) <= 8
    assert sum(map(bool, found)) >= 4


_VALUE = st.one_of(
    st.none(),
    st.integers(-3, 3),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "a", "A", "a\0b", "'", "é", "1", "10"]),
    st.binary(max_size=2),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranges") / "a.db"


@settings(max_examples=examples(120))
@given(
    rows=st.lists(st.tuples(_VALUE, _VALUE, _VALUE), min_size=1, max_size=12),
    step=st.integers(1, 5),
    keys=st.sampled_from([["a"], ["b"], ["c"], ["a", "b"], ["c", "a"], ["b", "c", "a"]]),
)
def test_values_of_several_kinds_cut_a_table_of_sqlite(
    path: Path, rows: list[tuple[Any, ...]], step: int, keys: list[str]
) -> None:
    """A column of SQLite may hold numbers, texts and bytes, and has an order over all of them."""
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE IF EXISTS t")
        database.execute("CREATE TABLE t (n INTEGER, a, b NUMERIC, c TEXT COLLATE NOCASE)")
        numbered = [(n, *row) for n, row in enumerate(rows)]
        database.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", numbered)
    database.close()
    dialect = LiteDialect()
    with Session(address_of(f"sqlite:///{path}"), dialect.begin()) as session:
        found = numbers_by_range(session, dialect, keys, step)
    assert sorted(number for one in found for number in one) == list(range(len(rows)))


def test_a_key_of_any_type_cuts_a_table_of_duckdb(tmp_path: Path) -> None:
    file = tmp_path / "a.duckdb"
    with duckdb.connect(str(file)) as database:
        database.execute(
            """CREATE TABLE t AS SELECT n::INTEGER AS n,
            CASE WHEN n % 9 = 0 THEN NULL ELSE n // 7 END AS shared, 'x''' || n AS name,
            (n / 3)::DOUBLE AS fraction, (n / 3)::DECIMAL(9, 4) AS exact,
            md5(n::VARCHAR)::UUID AS u,
            TIMESTAMPTZ '2026-01-01 00:00:00Z' + to_seconds(n) AS moment,
            DATE '2026-01-01' + n::INTEGER AS day, encode('b' || n) AS bytes FROM range(41) t(n)"""
        )
    dialect = DuckDialect()
    with Session(address_of(f"duckdb:///{file}"), dialect.begin()) as session:
        for keys in ("n", "shared", "name", "fraction", "exact", "u", "moment", "day", "bytes"):
            found = numbers_by_range(session, dialect, [keys], 7)
            assert sorted(number for one in found for number in one) == list(range(41)), keys
            # As a database of which only the standard is known.
            if keys not in ("u", "bytes"):
                found = numbers_by_range(session, Dialect(), [keys], 7)
                assert sorted(number for one in found for number in one) == list(range(41)), keys
        found = numbers_by_range(session, dialect, ["shared", "name"], 7)
        assert sorted(number for one in found for number in one) == list(range(41))


def test_ranges_are_neither_too_many_nor_too_large() -> None:
    assert [rows_in_range(count) for count in (0, 10, 64_000, 640_000, 10**9)] == [
        2_000,
        2_000,
        2_000,
        20_000,
        100_000,
    ]
