"""The language of filters: a condition asked of columns means what SQL means by it."""

from __future__ import annotations

import sqlite3
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam.connectors.tables.where import Where
from contextframe_beam.errors import ConfigError

TABLE = pa.table(
    {
        "row": [1, 2, 3],
        "year": [2023, 2024, None],
        "lang": ["en", "de", None],
        "day": pa.array([date(2020, 1, 1), date(2024, 5, 5), None]),
        "at": pa.array(
            [datetime(2020, 1, 1), datetime(2024, 5, 5, 12), None],
            pa.timestamp("ns", "Europe/Berlin"),
        ),
        "naive": pa.array([datetime(2020, 1, 1), datetime(2024, 5, 5, 12), None]),
        "price": pa.array([Decimal("1.5"), Decimal("2.5"), None]),
        "author": [{"name": "Ada"}, {"name": "Bob"}, None],
        "flag": [True, False, None],
        "kind": pa.array(["en", "de", None]).dictionary_encode(),
        "two words": ["a", "b", "c"],
    }
)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("year >= 2024", [2]),
        ("year >= 2023.5", [2]),
        ("lang = 'en' or year = 2024", [1, 2]),
        ("lang = 'en' or lang = 'de' and year = 1", [1]),
        ("not lang = 'en'", [2]),
        ("lang in ('en', 'fr')", [1]),
        ("lang not in ('en')", [2]),
        ("lang like 'd%'", [2]),
        ("year is null", [3]),
        ("year is not null", [1, 2]),
        ("year between 2000 and 2023", [1]),
        ("day >= '2024-01-01'", [2]),
        ("at >= '2024-05-05T12:00:00Z'", [2]),
        ("at > '2024-05-05T12:00:00Z'", []),
        ("naive > '2023-01-01'", [2]),
        ("price = 2.5", [2]),
        ("author.name = 'Bob'", [2]),
        ("flag = true", [1]),
        ("kind = 'de'", [2]),
        ("\"two words\" = 'b'", [2]),
        ("(row > 1) AND NOT (row = 3)", [2]),
        ("lang = 'o''clock'", []),
        ("year = null", []),
    ],
)
def test_a_condition_keeps_these_rows(text: str, rows: list[int]) -> None:
    assert TABLE.filter(Where(text).expression(TABLE.schema))["row"].to_pylist() == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "name of a column was expected at the end"),
        ("year", "comparison such as = was expected at the end"),
        ("year = ", "a number, or a text in single quotes"),
        ("(year = 1", r"\) was expected at the end"),
        ("year = 1)", r"at '\)'"),
        ("year ~ 3", "'~ 3' cannot be read"),
        ("yaer = 1", "there is no column 'yaer'; did you mean year?"),
        ("year = 'x'", "year is int64 and cannot be compared with 'x'; write a number"),
        ("lang = 3", "lang is string and cannot be compared with 3; put the value in single"),
        ("day = 'x'", "write a time as in"),
        ("price like 'x'", "LIKE compares texts"),
        ("author.age = 1", "there is no column 'author.age'"),
    ],
)
def test_a_condition_that_makes_no_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Where(text).expression(TABLE.schema)


@pytest.mark.parametrize(
    ("text", "values", "may"),
    [
        ("year >= 2024", {"year": "2023"}, False),
        ("year >= 2024", {"year": "2024"}, True),
        ("year >= 2024", {"year": None}, False),
        ("year >= 2024 or lang = 'en'", {"year": None}, True),
        ("year >= 2024", {"year": "old"}, False),
        ("not year >= 2024", {"year": "old"}, False),
        ("year is null", {"year": None}, True),
        ("year >= 2024 and lang = 'en'", {"year": "2024"}, True),
        ("year >= 2024 and lang = 'en'", {"lang": "de"}, False),
        ("year >= 2024 or lang = 'en'", {"lang": "de"}, True),
        ("month = '01'", {"month": "1"}, False),
        ("lang like 'e_'", {"lang": "en"}, True),
        ("lang like 'e_'", {"lang": "e"}, False),
    ],
)
def test_what_a_path_tells_may_rule_out_a_file(text: str, values: Any, may: bool) -> None:
    assert Where(text).may_hold(values) is may


NUMBERS = st.integers(-3, 3)
LEAVES = (
    st.builds(
        "{} {} {}".format,
        st.sampled_from("ab"),
        st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "<>"]),
        NUMBERS,
    )
    | st.builds("{} in ({}, {})".format, st.sampled_from("ab"), NUMBERS, NUMBERS)
    | st.builds("{} is null".format, st.sampled_from("ab"))
    | st.builds("{} not between {} and {}".format, st.sampled_from("ab"), NUMBERS, NUMBERS)
)
CONDITIONS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds("({} and {})".format, inner, inner)
        | st.builds("({} or {})".format, inner, inner)
        | st.builds("not ({})".format, inner)
    ),
    max_leaves=5,
)


@given(st.lists(st.tuples(st.none() | NUMBERS, st.none() | NUMBERS), max_size=6), CONDITIONS)
def test_it_keeps_the_rows_that_a_database_keeps(rows: Any, text: str) -> None:
    with sqlite3.connect(":memory:") as database:
        database.execute("create table t (a, b)")
        database.executemany("insert into t values (?, ?)", rows)
        known = database.execute(f"select a, b from t where {text} order by rowid").fetchall()
    table = pa.table(
        {
            "a": pa.array([a for a, _ in rows], pa.int64()),
            "b": pa.array([b for _, b in rows], pa.int64()),
        }
    )
    found = table.filter(Where(text).expression(table.schema)).to_pylist()
    assert [(one["a"], one["b"]) for one in found] == known
    for a, b in rows:
        # A path tells texts, and what it tells rules out just the rows that are not kept.
        texts = {name: None if one is None else str(one) for name, one in (("a", a), ("b", b))}
        assert Where(text).may_hold(texts) is ((a, b) in known)
