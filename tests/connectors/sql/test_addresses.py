"""Addresses, names and queries: what is taken, what is refused, and that no password is shown."""

from __future__ import annotations

import logging
import pickle
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam.connectors.secrets import redact
from contextframe_beam.connectors.sql.address import address_of
from contextframe_beam.connectors.sql.connector import SqlConnector
from contextframe_beam.connectors.sql.dialect import BigQueryDialect, Dialect
from contextframe_beam.connectors.sql.query import Relation, parts_of, single
from contextframe_beam.errors import ConfigError, ConnectorError
from contextframe_beam.pipelines.job_file import read_job_file
from tests.connectors.sql.reading import ids, read
from tests.support.cli_helpers import cli
from tests.support.postgres import ENCODED, GUARDED, PASSWORD, USER, Postgres

# One server for all of them: to set one up takes a second of processor time.
pytestmark = pytest.mark.xdist_group("postgres")

SECRETS = (PASSWORD, ENCODED, "odd/signs", "odd%2Fsigns")


@pytest.mark.parametrize(
    ("uri", "kind", "shown"),
    [
        ("postgresql://h/db", "postgresql", "postgresql://h:5432/db"),
        ("postgres://ann@H:5433/db?sslmode=require", "postgresql", "postgresql://h:5433/db"),
        ("postgresql+psycopg://h/db", "postgresql", "postgresql://h:5432/db"),
        ("postgresql:///db?host=/run/pg", "postgresql", "postgresql:///run/pg:5432/db"),
        ("host=h dbname=db", "postgresql", "postgresql://h:5432/db"),
        ("sqlite:////data/a b.db", "sqlite", "sqlite:///data/a b.db"),
        ("duckdb:////data/a.duckdb", "duckdb", "duckdb:///data/a.duckdb"),
        ("snowflake://ann@acme/db/public?warehouse=w", "snowflake", "snowflake://acme/db/public"),
        ("grpc+tls://h:443", "flightsql", "flightsql://h:443"),
        ("oracle://h/db", "oracle", "oracle://h/db"),
    ],
)
def test_an_address_names_a_database(uri: str, kind: str, shown: str) -> None:
    found = address_of(uri)
    assert (found.kind, found.shown) == (kind, shown)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("postgresql://ann:pass-word@h/db", r"uri holds a password: postgresql://ann:\*\*\*@h/db"),
        ("host=h password=pass-word", "uri holds a password"),
        ("snowflake://ann:pass-word@acme/db", "uri holds a password"),
        ("notes.db", "a file is given as sqlite:///notes.db"),
        ("notes", "an address is one such as postgresql://"),
        ("sqlite://notes.db", "sqlite:////data/notes.db for an absolute path"),
        ("duckdb:///:memory:", "a database in memory cannot be read"),
        ("postgresql://h:port/db", "percent-encoded"),
    ],
)
def test_what_is_no_address_is_refused_without_its_password(uri: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        SqlConnector(uri, "t").source_id()
    assert "pass-word" not in str(raised.value)


def test_the_key_of_a_table_is_no_secret(tmp_path: Path) -> None:
    connector = SqlConnector("sqlite:////a.db", "t", key=["number"])
    assert "key=['number']" in repr(connector) and redact("a number") == "a number"
    assert "A secret" not in cli("ingest", "sql", "--help").out.partition("--key")[2][:300]
    job = tmp_path / "job.yaml"
    source = "{connector: sql, uri: 'sqlite:////a.db', table: t, key: number}"
    job.write_text(f"to: {tmp_path}/kb.lance\nsources:\n- {source}\n")
    assert "--key=number" in read_job_file(job)[0].words


def test_a_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "adbc_driver_snowflake", None)
    with pytest.raises(ConfigError, match=r"contextframe-beam\[snowflake\] \(adbc-"):
        address_of("snowflake://acme/db").connect()
    with pytest.raises(ConfigError, match="no ADBC driver is installed for oracle://"):
        address_of("oracle://h/db").connect()
    monkeypatch.setitem(__import__("sys").modules, "adbc_driver_manager.dbapi", None)
    with pytest.raises(ConfigError, match=r"contextframe-beam\[sql\]"):
        address_of("sqlite:////a.db").connect()


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("SELECT 1;", "SELECT 1"),
        ("  SELECT ';' -- ; end\n ; /* all */ ; ", "  SELECT ';'"),
        ('SELECT $a$;$a$, "a;" -- why?', 'SELECT $a$;$a$, "a;"'),
        (r"SELECT E'it\'s; ' ;", r"SELECT E'it\'s; '"),
        ("WITH a AS (SELECT 1) /* ; */ SELECT * FROM a", None),
    ],
)
def test_what_follows_a_query_is_left_out(query: str, kept: str | None) -> None:
    assert single(query) == (query if kept is None else kept)


@pytest.mark.parametrize("query", ["SELECT 1; DROP TABLE t", "SELECT 1;;SELECT 2 -- a"])
def test_several_statements_are_refused(query: str) -> None:
    with pytest.raises(ConfigError, match="several statements"):
        SqlConnector("sqlite:////a.db", query=query, key=["id"])


@pytest.mark.parametrize("query", ["", " ; ", "-- all\n"])
def test_an_empty_query_is_refused(query: str) -> None:
    with pytest.raises(ConfigError, match="query is empty"):
        single(query)


@pytest.mark.parametrize(
    ("table", "parts"),
    [
        ("notes", ("notes",)),
        ("app.Notes", ("app", "Notes")),
        ('app."my.no""tes"', ("app", 'my.no"tes')),
        ("t; DROP TABLE t", ("t; DROP TABLE t",)),
    ],
)
def test_a_table_is_a_name_whatever_it_holds(table: str, parts: tuple[str, ...]) -> None:
    assert parts_of(table) == parts
    assert Dialect().rows(Relation(table=table)).count('"') >= 2 * len(parts)


def test_bigquery_takes_names_and_texts_in_its_own_way() -> None:
    dialect = BigQueryDialect()
    assert dialect.rows(Relation(table="app.no`tes")).startswith("`app`.`no\\`tes` AS ")
    assert dialect.literal("it's \\", "STRING") == "CAST('it\\'s \\\\' AS STRING)"


@pytest.mark.parametrize("table", ["", ".", "a.", ".a", '"a', 'a"b', "a..b"])
def test_what_is_no_name_is_refused(table: str) -> None:
    with pytest.raises(ConfigError, match="not the name of one"):
        SqlConnector("sqlite:////a.db", table)


class TestServer:
    """What a real server says becomes one sentence, and nothing of a password is in it."""

    @pytest.fixture(autouse=True)
    def _server(self, postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        self.server = postgres
        self.patch = monkeypatch
        yield

    def problem(self, uri: str, *arguments: str) -> str:
        self.patch.setenv("SQL_ADDRESS", uri)
        given = arguments or ("--table", "t")
        result = cli("check", "sql", "--uri", "env:SQL_ADDRESS", "--json", *given)
        assert not any(secret in result.out + result.err for secret in SECRETS)
        problem = result.json["problem"]
        assert problem and "\n" not in problem and "Traceback" not in result.err
        return str(problem)

    def test_wrong_addresses(self) -> None:
        here = f"127.0.0.1:{self.server.port}"
        cases = [
            (f"{GUARDED}:odd%2Fsigns@{here}/postgres", "password authentication failed.*check the"),
            (f"{GUARDED}@{here}/postgres", "no password supplied; check the user"),
            (f"{GUARDED}:{ENCODED}@{here}/nope", '"nope" does not exist; check the name'),
            (f"{USER}:{ENCODED}@127.0.0.1:1/postgres", "refused; check host and port"),
            (f"{USER}:{ENCODED}@no.invalid/postgres", "check the host"),
            (f"{USER}:{ENCODED}@{here}/postgres?sslmode=require", "SSL"),
        ]
        for uri, message in cases:
            problem = self.problem(f"postgresql://{uri}")
            with pytest.raises(AssertionError, match=message):
                raise AssertionError(problem)

    def test_a_password_that_is_not_encoded(self) -> None:
        self.patch.setenv("SQL_ADDRESS", f"postgresql://{USER}:{PASSWORD}@127.0.0.1/postgres")
        result = cli("check", "sql", "--uri", "env:SQL_ADDRESS", "--table", "t")
        assert result.code == 2 and "write it percent-encoded" in result.err
        assert not any(secret in result.out + result.err for secret in SECRETS)

    def test_wrong_names(self) -> None:
        self.server.run(
            "DROP TABLE IF EXISTS notes",
            "CREATE TABLE notes (id int, email text UNIQUE, body text)",
        )
        uri = self.server.uri
        cases = [
            (("--table", "note"), "no table 'note'; did you mean notes"),
            (("--table", "notes", "--key", "ID"), "did you mean id"),
            (
                ("--table", "notes", "--key", "id", "--cursor", "at"),
                "cursor is 'at'.*no such column",
            ),
            (("--table", "notes", "--key", "id", "--text", "bod"), "did you mean body"),
            (("--query", "SELECT * FRM notes", "--key", "id"), "the query cannot be read.*syntax"),
            (("--query", "SELECT id, id FROM notes", "--key", "id"), "several columns named id"),
        ]
        for given, message in cases:
            with pytest.raises(AssertionError, match=message):
                raise AssertionError(self.problem(uri, *given))

    def test_a_table_without_a_key_is_refused_where_rows_could_not_replace_documents(
        self, tmp_path: Path
    ) -> None:
        self.server.run(
            "DROP TABLE IF EXISTS notes",
            "CREATE TABLE notes (id int, email text UNIQUE, a int, b int, body text)",
            "CREATE UNIQUE INDEX ON notes (a, b)",
            "CREATE UNIQUE INDEX ON notes (id) WHERE id > 0",
            "INSERT INTO notes VALUES (1, 'a@b', 1, 2, 'text')",
        )
        self.patch.setenv("SQL_ADDRESS", self.server.uri)
        command = (
            "ingest",
            "sql",
            "--uri",
            "env:SQL_ADDRESS",
            "--table",
            "notes",
            "--to",
            tmp_path,
        )
        result = cli(*command)
        assert result.code == 2 and "these are unique: email or a,b" in result.err
        assert cli(*command, "--mode", "append").code == 0
        assert cli(*command, "--key", "a,b").code == 0

    def test_names_are_quoted_and_views_are_read(self) -> None:
        self.server.run(
            'DROP SCHEMA IF EXISTS "My App" CASCADE',
            'CREATE SCHEMA "My App"',
            'CREATE TABLE "My App"."select" (id int PRIMARY KEY, "Text ""a""" text, "order" int)',
            "INSERT INTO \"My App\".\"select\" VALUES (1, 'x', 3), (2, 'y', 4)",
            'CREATE VIEW "My App".shown AS SELECT * FROM "My App"."select" WHERE id > 1',
        )
        self.patch.setenv("SQL_ADDRESS", self.server.uri)
        text = {"text": 'Text "a"', "cursor": "order"}
        assert ids(read(SqlConnector("env:SQL_ADDRESS", "My App.select", **text))) == [1, 2]
        shown: Any = {**text, "key": ["id"]}
        assert ids(read(SqlConnector("env:SQL_ADDRESS", "My App.shown", **shown))) == [2]

    def test_a_connector_shows_no_password(self, caplog: pytest.LogCaptureFixture) -> None:
        self.server.run(
            "DROP TABLE IF EXISTS empty", "CREATE TABLE empty (id int PRIMARY KEY, body text)"
        )
        self.patch.setenv("SQL_ADDRESS", self.server.uri)
        with caplog.at_level(logging.DEBUG):
            connector = SqlConnector("env:SQL_ADDRESS", "empty", cursor="id")
            assert read(connector) == ([], {"all": {"cursor": "id"}})
        told = [repr(connector), str(connector.source_identity()), repr(connector.address)]
        told += [caplog.text, str(pickle.dumps(connector))]
        assert not any(secret in one for one in told for secret in SECRETS)


def test_a_database_file_is_never_made_or_written(tmp_path: Path) -> None:
    missing = tmp_path / "none.db"
    with pytest.raises(ConnectorError, match="there is no database file"):
        read(SqlConnector(f"sqlite:///{missing}", "t"))
    assert not missing.exists()
    (tmp_path / "text.db").write_text("no database, and long enough to be read as one" * 20)
    for kind in ("sqlite", "duckdb"):
        with pytest.raises((ConnectorError, ConfigError), match="check the scheme"):
            read(SqlConnector(f"{kind}:///{tmp_path}/text.db", "t"))
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body)")
    before = (tmp_path / "a.db").read_bytes()
    assert read(SqlConnector(f"sqlite:///{tmp_path}/a.db", "t"))[0] == []
    assert (tmp_path / "a.db").read_bytes() == before
