"""Values are exact: what is read prints as the database itself prints it."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam.connectors.sql.connector import SqlConnector
from tests.connectors.sql.reading import read
from tests.support.laws import examples
from tests.support.postgres import Postgres

# One server for all of them: to set one up takes a second of processor time.
pytestmark = pytest.mark.xdist_group("postgres")


def items(connector: SqlConnector) -> list[dict[str, Any]]:
    return read(connector)[0]


@pytest.fixture(scope="module")
def db(postgres: Postgres) -> Iterator[str]:
    postgres.run(
        "CREATE TYPE mood AS ENUM ('sad', 'ok')",
        "CREATE DOMAIN small AS int CHECK (value < 100)",
        "CREATE TYPE pair AS (a int, b text)",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SQL_VALUES", postgres.uri)
        yield "env:SQL_VALUES"


#: An expression of PostgreSQL, and its value.
VALUES = [
    ("true", True),
    ("32767::int2", 32767),
    ("9223372036854775807::int8", 9223372036854775807),
    ("4294967295::oid", 4294967295),
    ("1.10::numeric(10, 2)", "1.10"),
    (
        "123456789012345678901234567890.123456789::numeric",
        "123456789012345678901234567890.123456789",
    ),
    ("'NaN'::numeric", "NaN"),
    ("1.1::float4", 1.1),
    ("0.1::float8", 0.1),
    ("'NaN'::float8", "NaN"),
    ("'-Infinity'::float4", "-Infinity"),
    ("'12.34'::money", "$12.34"),
    ("'a'::char(3)", "a  "),
    ("''::text", ""),
    ("NULL::text", None),
    ("'sad'::mood", "sad"),
    ("7::small", 7),
    ('\'{"b": 1.10, "a": [null]}\'::json', '{"b": 1.10, "a": [null]}'),
    ('\'{"b": 1.10, "a": [null]}\'::jsonb', '{"a": [null], "b": 1.10}'),
    ("'3f2504e0-4f89-11d3-9a0c-0305e82c3301'::uuid", "3f2504e0-4f89-11d3-9a0c-0305e82c3301"),
    ("'\\x00ff'::bytea", base64.b64encode(b"\x00\xff").decode()),
    ("'2026-02-03'::date", "2026-02-03"),
    ("'infinity'::date", "infinity"),
    ("'0044-03-15 BC'::date", "0044-03-15 BC"),
    ("'24:00:00'::time", "24:00:00"),
    ("'01:02:03.000004+05:30'::timetz", "01:02:03.000004+05:30"),
    ("'2026-02-03 04:05:06.000007'::timestamp", "2026-02-03T04:05:06.000007"),
    ("'2026-02-03 04:05:06+02'::timestamptz", "2026-02-03T02:05:06+00:00"),
    ("'-infinity'::timestamptz", "-infinity"),
    ("'1 year 2 days -00:00:03.5'::interval", "1 year 2 days -00:00:03.5"),
    ("'{1,NULL,3}'::int[]", [1, None, 3]),
    ("'{{1,2},{3,4}}'::int[]", [[1, 2], [3, 4]]),
    ("'{1.50,NaN}'::numeric[]", ["1.50", "NaN"]),
    ("'{{1.50},{2}}'::numeric[]", [["1.50"], ["2"]]),
    ("'{sad,ok}'::mood[]", ["sad", "ok"]),
    ('\'{"a, b",NULL,""}\'::text[]', ["a, b", None, ""]),
    ("'{}'::text[]", []),
    ("'{2026-01-01 00:00:00+01}'::timestamptz[]", ["2025-12-31 23:00:00+00"]),
    ("ROW(1, 'x y')::pair", '(1,"x y")'),
    ("'[1,5)'::int4range", "[1,5)"),
    ("'10.0.0.1/8'::inet", "10.0.0.1/8"),
    ("'(1,2)'::point", "(1,2)"),
    ("B'101'::varbit", "101"),
    ("'<a/>'::xml", "<a/>"),
    ("'a b'::tsvector", "'a' 'b'"),
    ("'x'::\"char\"", "x"),
    ("'pg_type'::regclass", "pg_type"),
]


def test_every_type_of_postgresql_is_read_exactly(db: str) -> None:
    columns = ", ".join(f"{expression} AS c{n}" for n, (expression, _) in enumerate(VALUES))
    connector = SqlConnector(db, query=f"SELECT 1 AS id, {columns}", key=["id"], text="id")
    (item,) = items(connector)
    assert {VALUES[n][0]: item[f"c{n}"] for n in range(len(VALUES))} == dict(VALUES)


def test_what_a_user_prefers_changes_no_text(db: str, postgres: Postgres) -> None:
    postgres.run(
        "ALTER DATABASE test_values SET DateStyle = 'German'",
        "ALTER DATABASE test_values SET IntervalStyle = 'iso_8601'",
        "ALTER DATABASE test_values SET TimeZone = 'Asia/Tokyo'",
    )
    try:
        query = (
            "SELECT 1 AS id, '0044-03-15 BC'::date AS d, '1 day'::interval AS i, "
            "'2026-01-01 00:00:00+00'::timestamptz AS t, 0.1::float4 AS f"
        )
        (item,) = items(SqlConnector(db, query=query, key=["id"], text="id"))
        assert item == {
            "id": 1,
            "d": "0044-03-15 BC",
            "i": "1 day",
            "t": "2026-01-01T00:00:00+00:00",
            "f": 0.1,
        }
    finally:
        postgres.run("ALTER DATABASE test_values RESET ALL")


def test_odd_values_stand_beside_others_of_their_column(db: str) -> None:
    query = (
        "SELECT n AS id, CASE WHEN n % 3 = 0 THEN 'infinity'::date ELSE '2026-01-01'::date + n END "
        "AS d, CASE n WHEN 4 THEN 'NaN'::float8 ELSE n / 2.0 END AS f FROM generate_series(0, 9) n"
    )
    found = {one["id"]: one for one in items(SqlConnector(db, query=query, key=["id"], text="id"))}
    assert [found[n]["d"] for n in range(4)] == ["infinity", "2026-01-02", "2026-01-03", "infinity"]
    assert (found[4]["f"], found[5]["f"], len(found)) == ("NaN", 2.5, 10)


def test_every_type_of_duckdb_is_read_exactly(tmp_path: Path) -> None:
    values = [
        ("170141183460469231731687303715884105727::HUGEINT", str(2**127 - 1)),
        ("18446744073709551615::UBIGINT", 2**64 - 1),
        ("1.50::DECIMAL(10, 2)", "1.50"),
        ("1.1::FLOAT", 1.1),
        ("'nan'::DOUBLE", "nan"),
        ("[1, NULL]", [1, None]),
        ("[1.50, 2]", "[1.50, 2.00]"),
        ("{'a': 1, 'b': ['x']}", {"a": 1, "b": ["x"]}),
        ("MAP {'k': 1}", "{k=1}"),
        ("TIMESTAMPTZ '2026-01-01 00:00:00+02'", "2025-12-31T22:00:00+00:00"),
        ("TIMESTAMP_NS '2026-01-01 00:00:00.123456789'", "2026-01-01 00:00:00.123456789"),
        ("'infinity'::TIMESTAMP", "infinity"),
        ("DATE '2026-02-03'", "2026-02-03"),
        ("TIME '01:02:03'", "01:02:03"),
        ("INTERVAL 1 MONTH", "1 month"),
        ("'\\x00\\xFF'::BLOB", base64.b64encode(b"\x00\xff").decode()),
        ("'101'::BIT", "101"),
        ("'3f2504e0-4f89-11d3-9a0c-0305e82c3301'::UUID", "3f2504e0-4f89-11d3-9a0c-0305e82c3301"),
        ("'a'::ENUM('a', 'b')", "a"),
        ("'{\"a\":1}'::JSON", '{"a":1}'),
    ]
    path = tmp_path / "a.duckdb"
    duckdb.connect(str(path)).close()
    columns = ", ".join(f"{expression} AS c{n}" for n, (expression, _) in enumerate(values))
    connector = SqlConnector(
        f"duckdb:///{path}", query=f"SELECT 1 AS id, {columns}", key=["id"], text="id"
    )
    (item,) = items(connector)
    assert {values[n][0]: item[f"c{n}"] for n in range(len(values))} == dict(values)


_SQLITE = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    st.binary(max_size=4),
)


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lite") / "a.db"


@settings(max_examples=examples(100))
@given(rows=st.lists(st.tuples(_SQLITE, _SQLITE), max_size=6))
def test_a_column_of_sqlite_holds_what_it_holds(lite: Path, rows: list[tuple[Any, Any]]) -> None:
    """Whatever it declares: numbers, texts and bytes in one column keep what they are."""
    with sqlite3.connect(lite) as database:
        database.execute("DROP TABLE IF EXISTS t")
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a, b NUMERIC)")
        database.executemany("INSERT INTO t (a, b) VALUES (?, ?)", rows)
        stored = database.execute("SELECT a, b FROM t ORDER BY id").fetchall()
    database.close()
    found = sorted(
        items(SqlConnector(f"sqlite:///{lite}", "t", text="a")), key=lambda one: one["id"]
    )
    for item, row in zip(found, stored, strict=True):
        for value, known in zip((item["a"], item["b"]), row, strict=True):
            wanted = base64.b64encode(known).decode() if isinstance(known, bytes) else known
            assert (type(value), value) == (type(wanted), wanted)
