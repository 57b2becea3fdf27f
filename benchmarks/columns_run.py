"""Measures what mapping by columns costs: processor time beside Arrow's readers into Lance.

JSON Lines with our mapping and with one in Python, an unchanged run, Parquet, and a table of
PostgreSQL where `BENCH_DATABASE` is the address of a database that may be written to.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.json as reader
import pyarrow.parquet as parquet
from documents import write_documents
from measure import Measurement, in_turn, print_medians, run

HERE = Path(__file__).parent
DLT = HERE.parent / ".venv-dlt" / "bin" / "python"
TABLE = "contextframe_bench"
_FILES = 8


def measure(documents: int, rounds: int, kept: Path | None) -> None:
    """Runs the rounds and prints the medians and ratios.

    Args:
        documents: The number of documents, and of rows.
        rounds: How often each job is run.
        kept: The folder where inputs are kept between runs.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = kept or Path(scratch)
        lines = folder / str(documents)
        if not lines.exists():
            write_documents(lines, documents, _FILES)
        tables = _tables(lines, folder / f"{documents}-parquet")
        out, stored = Path(scratch) / "out", Path(scratch) / "stored"
        target, known = str(out / "kb.lance"), str(stored / "kb.lance")
        from_lines = ["--directory", str(lines), "--pattern", "*.jsonl"]
        own = f"{HERE / 'own_mapper.py'}:OwnMapping"
        jobs: dict[str, Callable[[], Measurement]] = {
            "json: limit": lambda: _script("limit.py", lines, out),
            "json: by hand": lambda: _script("by_hand.py", lines, out),
            "json": lambda: _ingest("json", *from_lines, to=target),
            "json, 2 workers": lambda: _ingest("json", *from_lines, "--workers", "2", to=target),
            "json, 1 core": lambda: _ingest("json", *from_lines, to=target, cores=1),
            "json, own mapping": lambda: _ingest(own, *from_lines, to=target),
            "json, unchanged": lambda: _ingest("json", *from_lines, to=known),
            "parquet: limit": lambda: _script("limit_parquet.py", tables, out),
            "parquet": lambda: _ingest("parquet", "--path", str(tables), to=target),
        }
        database = os.environ.get("BENCH_DATABASE")
        if database:
            _fill(database, tables)
            rows = ["--uri", "env:BENCH_DATABASE", "--table", TABLE, "--key", "id"]
            jobs["sql"] = lambda: _ingest("sql", *rows, to=target)
            if DLT.exists():
                asked = [str(DLT), str(HERE / "dlt_sql.py"), database, TABLE, str(out / "dlt")]
                jobs["sql: dlt"] = lambda: run(asked)
                jobs["sql: dlt with Arrow"] = lambda: run([*asked, "pyarrow"])
        else:
            print("sql is not measured: BENCH_DATABASE is not set")
        _ingest("json", *from_lines, to=known)
        medians = in_turn(jobs, rounds, before=lambda: shutil.rmtree(out, ignore_errors=True))
    print_medians(medians)
    _report(medians, documents)


def _report(medians: dict[str, Measurement], documents: int) -> None:
    cpu = {name: one.cpu_seconds for name, one in medians.items()}
    wall = {name: one.seconds for name, one in medians.items()}
    print(f"\nprocessor time, {documents:,} documents or rows")
    for name in ("json", "json, own mapping", "parquet"):
        limit = cpu[f"{name.partition(',')[0]}: limit"]
        print(f"  {name}: {limit / cpu[name]:.2f} of the limit")
    print(f"  json: {cpu['json: by hand'] / cpu['json']:.2f} times the hand-written script")
    print(f"  json, unchanged: {cpu['json, unchanged'] / cpu['json']:.2f} of the first run")
    cores = len(os.sched_getaffinity(0))
    two = wall["json, 2 workers"]
    print(f"  json, 2 workers, {cores} cores: {wall['json'] / two:.2f} times 1, by the clock")
    print(f"  json, 2 workers, {cores} cores: {wall['json, 1 core'] / two:.2f} times 1 with 1 core")
    for name in ("parquet", "sql"):
        if name in cpu:
            print(f"  {name}: {documents / cpu[name]:,.0f} rows a second")
    for name in ("sql: dlt", "sql: dlt with Arrow"):
        if name in cpu:
            print(f"  {name}: {cpu[name] / cpu['sql']:.1f} times as much as ours")


def _tables(lines: Path, folder: Path) -> Path:
    """Returns the same documents as Parquet."""
    if not folder.exists():
        made = folder.with_suffix(".part")
        made.mkdir()
        for file in sorted(lines.glob("*.jsonl")):
            parquet.write_table(reader.read_json(file), made / f"{file.stem}.parquet")
        made.rename(folder)
    return folder


def _fill(database: str, tables: Path) -> None:
    """Writes the same rows to a table, without what a database has no simple type for."""
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(database, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS {TABLE}")
        for number, file in enumerate(sorted(tables.glob("*.parquet"))):
            rows = pa.table(parquet.read_table(file).drop_columns(["author", "tags"]))
            cursor.adbc_ingest(TABLE, rows, mode="append" if number else "create")
        cursor.execute(f"ALTER TABLE {TABLE} ADD PRIMARY KEY (id)")


def _script(name: str, source: Path, target: Path) -> Measurement:
    return run([sys.executable, str(HERE / name), str(source), str(target)])


def _ingest(connector: str, *options: str, to: str, cores: int | None = None) -> Measurement:
    command = [sys.executable, "-m", "contextframe_beam", "ingest", connector, *options]
    return run([*command, "--to", to], cores=cores)
