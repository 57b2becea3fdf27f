"""Session: one connection that reads in one transaction, and its errors as sentences.

Each range of a source is read in a session of its own, so that no connection outlives its use and
each process has its own.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import pyarrow as pa

from contextframe_beam.connectors.secrets import redact
from contextframe_beam.connectors.sql.address import Address
from contextframe_beam.errors import ConfigError, ConnectorError

_ATTEMPTS = 4
_FIRST_WAIT = 0.5
# What a server says that is there but cannot answer now: too many connections, starting, stopping.
_PASSING = re.compile(
    r"too many (?:clients|connections)|remaining connection slots|starting up|shutting down"
    r"|recovery mode|database is locked|connection reset|server closed the connection"
    r"|terminating connection|Connection refused",
    re.IGNORECASE,
)
_LACKING = re.compile(r"not[ _]implemented|not[ _]supported", re.IGNORECASE)
# What an error says, and what to do about it.
_ADVICE = (
    (r"password authentication failed|no password supplied", "check the user and the password"),
    (r"no pg_hba\.conf entry", "the server admits no such user from here; ask who runs it"),
    (r"role \".*\" does not exist", "check the user in the address"),
    (r"database \".*\" does not exist", "check the name of the database in the address"),
    (r"could not translate host name|Name or service", "check the host in the address"),
    (
        r"Connection refused|timeout expired|timed out",
        "check host and port, and whether it runs",
    ),
    (r"permission denied", "the user needs the right to SELECT from it"),
    (r"too many (?:clients|connections)", "run with fewer workers, or let the server admit more"),
    (r"(?:could not set|conflicting) lock", "another process has it open to write; close it there"),
    (r"file is not a database|not a valid duckdb", "the file is of another kind; check the scheme"),
    (r"database is locked", "another process writes to it for long; run again"),
    (
        r"could not identify an ordering|no ordering operator",
        "cast the column in a query to a type that has an order",
    ),
    (
        r"statement timeout|query_canceled|canceling statement",
        "let statements take longer there",
    ),
)
_PREFIX = re.compile(
    r"^(?:[A-Z_]+: )?(?:\[\w+\] )?(?:Failed to (?:connect|prepare query|execute query '.*?'"
    r"|step query|open[^:]*): ?)?(?:Execution error \[\w+\]: )?"
    r"(?:connection to server (?:at|on socket) (?P<at>\".*?\"(?:, port \d+)?) failed: )?"
    r"(?:FATAL: |ERROR: |Error: )? *",
    re.DOTALL,
)
_TAIL = re.compile(r"\s*(?:\.\s*)?(?:Query was:.*|SQLSTATE: \w+.*)\Z", re.DOTALL)


class Session:
    """A connection within a transaction that only reads.

    Args:
        address: The database.
        begin: The first statements of the transaction.
        patient: Whether to try again for some seconds if the database cannot answer now.

    Raises:
        ConnectorError: the database cannot be reached or refuses; the message says what to do.
        ConfigError: the driver is not installed.
    """

    def __init__(
        self, address: Address, begin: tuple[str, ...] = (), patient: bool = False
    ) -> None:
        self.address = address
        wait = _FIRST_WAIT
        attempts = _ATTEMPTS if patient else 1
        for attempt in range(attempts):
            try:
                self._connection = address.connect()
                break
            except (ConfigError, ConnectorError):
                raise
            except Exception as error:
                if attempt == attempts - 1 or not _PASSING.search(str(error)):
                    raise self.problem(error) from None
                time.sleep(wait)
                wait *= 2
        try:
            for statement in begin:
                self.rows(statement)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Returns the rows of a small result.

        Raises:
            ConnectorError: the database refuses the statement, or the connection broke.
        """
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        except Exception as error:
            raise self.problem(error) from None

    def schema(self, statement: str) -> pa.Schema:
        """Returns the columns of a query, without reading its rows.

        Raises:
            ConnectorError: the database refuses the query.
        """
        try:
            with self._connection.cursor() as cursor:
                try:
                    return cursor.adbc_execute_schema(statement)
                except Exception as error:
                    if not _LACKING.search(str(error)):
                        raise
                cursor.execute(statement)
                return cursor.fetch_record_batch().schema
        except Exception as error:
            raise self.problem(error) from None

    def batches(
        self, statement: str, options: Mapping[str, str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yields the rows of a query as the driver gives them, some at a time.

        Args:
            statement: The query.
            options: The driver's own settings of a statement.

        Raises:
            ConnectorError: the database refuses the query, or the connection broke.
        """
        try:
            with self._connection.cursor() as cursor:
                if options:
                    cursor.adbc_statement.set_options(**options)
                cursor.execute(statement)
                reader = cursor.fetch_record_batch()
                try:
                    yield from reader
                finally:
                    # The driver refuses to close a statement whose stream is open.
                    reader.close()
        except GeneratorExit:
            raise
        except Exception as error:
            raise self.problem(error) from None

    def undo(self) -> None:
        """Ends the transaction, for another one after an error."""
        with suppress(Exception):
            self._connection.rollback()

    def close(self) -> None:
        """Ends the transaction and the connection."""
        # It holds nothing that a failure here could lose.
        with suppress(Exception):
            self._connection.rollback()
        with suppress(Exception):
            self._connection.close()

    def problem(self, error: Exception) -> ConnectorError:
        """Returns an error of the driver as one sentence, without credentials."""
        if isinstance(error, ConnectorError):
            return error
        return ConnectorError(f"{self.address.shown}: {sentence_of(str(error))}")


def sentence_of(message: str) -> str:
    """Returns what a driver says as one sentence, with what to do where that is known."""
    text = _TAIL.sub("", message)
    text = _PREFIX.sub("", text, count=1)
    lines = [line.strip() for line in text.splitlines()]
    kept = next((line for line in lines if line), "") or " ".join(message.split())[:200]
    detail = [line for line in lines if line.startswith(("DETAIL:", "HINT:"))]
    said = " ".join([kept, *detail]).strip().rstrip(".")
    advice = next((to_do for found, to_do in _ADVICE if re.search(found, message, re.I)), "")
    return redact(f"{said}; {advice}" if advice else said)
