"""CSV: each record is read once and exactly, however files are written, cut and compressed."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam.connectors.tables.csv_dialect import Stated
from contextframe_beam.connectors.tables.csv_file import CSVConnector, CsvFormat
from contextframe_beam.connectors.tables.csv_types import looks_like, stated_types
from contextframe_beam.connectors.tables.ranged import RangedFile
from contextframe_beam.connectors.tables.table_format import BadRow, Wanted
from contextframe_beam.errors import ConfigError, ConnectorError

Read = tuple[list[dict[str, Any]], list[BadRow]]


def read(data: bytes, pieces: Any = (None,), **stated: Any) -> Read:
    form = stated.pop("form", None) or CsvFormat(Stated(**stated))
    rows: list[dict[str, Any]] = []
    bad: list[BadRow] = []
    for piece in pieces:
        for found in form.rows(RangedFile.of(data), piece, Wanted()):
            rows += found.table.to_pylist()
            bad += found.bad
    return rows, bad


def texts(data: bytes, **stated: Any) -> list[list[Any]]:
    return [list(row.values()) for row in read(data, **stated)[0]]


#: Values with everything that has to be quoted, as programs write them.
VALUES = st.text('ab,"\n\r;é \t', max_size=5)
RECORDS = st.lists(st.lists(VALUES, min_size=2, max_size=2), max_size=8)


@given(RECORDS, st.integers(1, 40), st.sampled_from([",", ";", "\t"]), st.booleans())
def test_any_cutting_gives_each_record_once(
    records: list[list[str]], size: int, delimiter: str, crlf: bool
) -> None:
    out = io.StringIO(newline="")
    end = "\r\n" if crlf else "\n"
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([["one", "two"], *records])
    data = out.getvalue().encode()
    form = CsvFormat(Stated(delimiter=delimiter))
    pieces = form.pieces(RangedFile.of(data), Wanted(), size)
    assert pieces is not None
    cut = read(data, [one.params for one in pieces], form=form)
    assert [list(row.values()) for row in cut[0]] == records
    assert cut == read(data, form=form)


@given(RECORDS, st.integers(1, 5))
def test_a_finer_cutting_keeps_the_cuts_of_a_coarser_one(
    records: list[list[str]], times: int
) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows([["one", "two"], *records])
    file = RangedFile.of(out.getvalue().encode())
    form = CsvFormat(Stated(delimiter=","))
    coarse, fine = (form.pieces(file, Wanted(), size) for size in (4 * times, times))
    assert coarse is not None and fine is not None
    assert {one.first for one in coarse} <= {one.first for one in fine}


#: Anything at all, with quotes where none should be.
NONSENSE = st.lists(
    st.sampled_from(["a", ",", "\n", '"', '""', '"x,\ny"', "\r\n", "é"]), max_size=30
).map("".join)


@given(NONSENSE, st.integers(1, 20))
def test_a_file_is_cut_only_where_each_piece_reads_as_the_whole(text: str, size: int) -> None:
    data = f"one,two\n{text}".encode()
    form = CsvFormat(Stated(delimiter=","))
    pieces = form.pieces(RangedFile.of(data), Wanted(), size)
    if pieces is None:
        return
    rows, bad = read(data, [one.params for one in pieces], form=form)
    assert (rows, bad) == read(data, form=form)
    records = [one for one in csv.reader(io.StringIO(text, newline="")) if one]
    assert [[value or "" for value in row.values()] for row in rows] == [
        one for one in records if len(one) == 2
    ]
    assert len(bad) == len(records) - len(rows)


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        (b"a,b\n007,x\n", [["007", "x"]]),
        (b"a;b\n1,5;x\n", [["1,5", "x"]]),
        (b"a\tb\n1\tx,y\n", [["1", "x,y"]]),
        (b"a|b\n1|x\n", [["1", "x"]]),
        (b"sep=;\r\na;b\r\n1;x\r\n", [["1", "x"]]),
        (b"\xef\xbb\xbfa,b\n1,x\n", [["1", "x"]]),
        ("a,b\n1,é\n".encode("utf-16"), [["1", "é"]]),
        ("a,b\n1,schöne Grüße für Jürgen\n".encode("cp1252"), [["1", "schöne Grüße für Jürgen"]]),
        (b"\n\na,b\n\n1,x\n", [["1", "x"]]),
        (b"a,b\r1,x\r2,y\r", [["1", "x"], ["2", "y"]]),
        (b'a,b\n1,\n2,""\n', [["1", None], ["2", ""]]),
        (b'a,b\n1,5" nails\n2,x\n', [["1", '5" nails'], ["2", "x"]]),
        (b'"a","b, c"\n1,x\n', [["1", "x"]]),
        (b"a,b", []),
        (b'a,b\n1,"x\ny"\n', [["1", "x\ny"]]),
        (b"only\n1\n2\n", [["1"], ["2"]]),
    ],
)
def test_a_file_tells_how_it_is_written(data: bytes, rows: list[Any]) -> None:
    assert texts(data) == rows
    assert texts(gzip.compress(data)) == rows


@pytest.mark.parametrize(
    ("stated", "data", "rows"),
    [
        ({"delimiter": ":"}, b"a:b\n1:x\n", [["1", "x"]]),
        ({"quote": "'"}, b"a,b\n1,'x,y'\n", [["1", "x,y"]]),
        ({"escape": "\\"}, b'a,b\n1,"x \\"y\\" z"\n2,p\\,q\n', [["1", 'x "y" z'], ["2", "p,q"]]),
        ({"quote": ""}, b'a,b\n1,"x\n', [["1", '"x']]),
        ({"header": False}, b"1,x\n2,y\n", [["1", "x"], ["2", "y"]]),
        ({"encoding": "cp1251"}, "a,b\n1,да\n".encode("cp1251"), [["1", "да"]]),
        ({"encoding": "utf-16"}, "a,b\n1,é\n".encode("utf-16-le"), [["1", "é"]]),
        ({"encoding": "shift_jis"}, "a,b\n1,表\n".encode("shift_jis"), [["1", "表"]]),
    ],
)
def test_what_is_stated_comes_first(stated: Any, data: bytes, rows: list[Any]) -> None:
    assert texts(data, **stated) == rows


def test_columns_without_a_header_have_stated_names_or_numbers() -> None:
    assert read(b"1,x\n", header=False)[0] == [{"column_1": "1", "column_2": "x"}]
    assert read(b"1,x\n", header=False, names=("id", "t"))[0] == [{"id": "1", "t": "x"}]


def test_of_two_columns_with_one_name_both_are_kept() -> None:
    assert read(b"a,a,\n1,2,3\n")[0] == [{"a": "1", "a_2": "2", "column_3": "3"}]


@pytest.mark.parametrize("packed", [False, True])
def test_a_record_with_too_few_or_too_many_values_is_told_with_its_place(packed: bool) -> None:
    data = b'a,b\n1,"x\ny"\n2\n3,4,5\n6,z\n'
    rows, bad = read(gzip.compress(data) if packed else data)
    assert [row["a"] for row in rows] == ["1", "6"]
    assert [one.data for one in bad] == [b"2", b"3,4,5"]
    places = ["record 2", "record 3"] if packed else ["line 4", "line 5"]
    assert [one.place for one in bad] == places
    assert bad[0].reason.startswith("it has 1 values, and there are 2 columns")


@pytest.mark.parametrize("packed", [False, True])
def test_bytes_that_are_no_text_are_no_reason_to_lose_other_records(packed: bool) -> None:
    data = "a,b\n1,é ü ö ß é ü\n".encode() + b"2,\xff!\n3\xfe\n4,x\n"
    rows, bad = read(gzip.compress(data) if packed else data)
    assert [row["a"] for row in rows] == ["1", "4"]
    assert any("b has the byte 0xff, which is not UTF-8" in one.reason for one in bad)
    assert any(b"3\xfe" in one.data for one in bad)


def test_an_encoding_that_nothing_tells_is_refused() -> None:
    with pytest.raises(ConnectorError, match="state its encoding"):
        read(b"a,b\n1,\x81\x8d\x8f\x90\x9d\xfe\n")


def test_the_encoding_is_the_same_whether_a_large_file_is_read_whole_or_in_pieces() -> None:
    plain = b"1,plain\n" * 40_000
    data = b"a,b\n" + plain + "2,schöne Grüße für Jürgen\n".encode("cp1252")
    form = CsvFormat()
    pieces = form.pieces(RangedFile.of(data), Wanted(), 64 << 10)
    assert pieces is not None and len(pieces) > 3
    whole = read(data, form=form)
    assert whole == read(data, [one.params for one in pieces], form=form)
    assert whole[0][-1] == {"a": "2", "b": "schöne Grüße für Jürgen"} and not whole[1]


TYPED = b"id,n,x,f,d,t\n007,1,1.5,true,2024-01-02,2024-01-02T03:04:05+01:00\n8,,,,,\n9,x,1,no,b,c\n"
KINDS = {"n": "int64", "x": "float64", "f": "bool", "d": "date", "t": "timestamp"}


def test_a_value_that_is_not_of_a_stated_type_makes_its_record_a_dead_letter() -> None:
    rows, bad = read(TYPED, form=CsvFormat(types=KINDS))
    assert [row["id"] for row in rows] == ["007", "8"]
    assert (rows[0]["n"], rows[0]["x"], rows[0]["f"]) == (1, 1.5, True)
    assert rows[0]["d"].isoformat() == "2024-01-02"
    assert rows[0]["t"].isoformat() == "2024-01-02T02:04:05+00:00"
    assert set(rows[1].values()) == {"8", None}
    assert [(one.place, one.reason) for one in bad] == [("line 4", "n is 'x', which is not int64")]


def test_types_are_told_and_never_guessed() -> None:
    told = "\n".join(CsvFormat().told(RangedFile.of(TYPED[: TYPED.index(b"9,x")])))
    assert "values separated by commas" in told
    assert "all columns are text" in told
    assert 'types="n:int64,x:float64,f:bool,d:date,t:timestamp"' in told


def test_types_are_stated_with_a_colon_or_an_equals_sign() -> None:
    stated = stated_types(["a:int64", "env=bool", "b:c:date"])
    assert stated == {"a": "int64", "env": "bool", "b:c": "date"}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-20", None], "int64"),
        (["007"], ""),
        (["1.50", "2"], "float64"),
        (["1e400x"], ""),
        ([None], ""),
        (["true", "False"], "bool"),
        (["2024-01-02"], "date"),
    ],
)
def test_texts_look_like_a_type_if_all_of_them_do(values: Any, kind: str) -> None:
    assert looks_like(pa.array(values, pa.string())) == kind


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"delimiter": "::"}, "it is one sign"),
        ({"encoding": "utf-99"}, "utf-99.*unknown"),
        ({"encoding": "rot13"}, "rot13.*unknown"),
        ({"types": ["price"]}, "as price:float64"),
        ({"types": ["price:flaot"]}, "price is 'flaot'"),
        ({"filter": "a ="}, "filter: "),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    arguments: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        CSVConnector(tmp_path, **arguments)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"PAR1....", "it is Parquet"),
        (b'a,"b\n1,2\n', "never closed"),
        (b"a,b\n1,\x00\x01\x02\n", "it is not text"),
    ],
)
def test_a_file_that_is_no_table_says_why(data: bytes, message: str) -> None:
    with pytest.raises(ConnectorError, match=message):
        read(data)
