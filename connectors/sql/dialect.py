"""Dialect: what differs from database to database, as SQL; and how each column is read.

A value is read in a type of Arrow that holds it exactly. Where a database has values that the type
does not hold (infinite dates, arrays of arrays), a second expression gives just these as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from contextframe_beam.connectors.sql.query import ROWS, Relation, quoted, text_literal
from contextframe_beam.connectors.sql.session import Session

_TYPES = (
    (pa.types.is_boolean, "BOOLEAN"),
    (pa.types.is_integer, "BIGINT"),
    (pa.types.is_floating, "DOUBLE PRECISION"),
    (pa.types.is_date, "DATE"),
    (pa.types.is_timestamp, "TIMESTAMP"),
    (pa.types.is_time, "TIME"),
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column, and how its values are read.

    Attributes:
        name: Its name.
        type: Its type, as the database names it.
        value: The expression that is read.
        odd: An expression that is null unless `value` cannot hold the row's value; "" for none.
        decoder: What `odd` gives: `text`, `json`, or `tagged` text (of SQLite).
        note: How it is read, where not as it is: `as text`.
    """

    name: str
    type: str
    value: str
    odd: str = ""
    decoder: str = "text"
    note: str = ""


@dataclass(frozen=True, slots=True)
class Keys:
    """The columns that identify the rows of a table.

    Attributes:
        primary: Those of the primary key; empty without one.
        unique: Those of each other unique constraint or index.
    """

    primary: tuple[str, ...] = ()
    unique: tuple[tuple[str, ...], ...] = ()


class Dialect:
    """A database of which only the SQL standard is known.

    Its values come as the driver gives them.
    """

    #: Types of times with and without a zone, whose texts can be moved back.
    times: ClassVar[tuple[str, ...]] = ("date", "time", "timestamp", "datetime")
    #: The type whose texts hold any value.
    text_type: ClassVar[str] = "VARCHAR"
    #: The type of times with a zone.
    zoned_type: ClassVar[str] = "TIMESTAMP WITH TIME ZONE"
    #: What every row of a table has that says when it was written; "" if nothing does.
    row_mark: ClassVar[str] = ""

    def quote(self, name: str) -> str:
        """Returns a name as an identifier, whatever its characters."""
        return quoted(name)

    def remainder(self, dividend: str, divisor: int) -> str:
        """Returns the expression of what is left of a division."""
        return f"({dividend}) % {divisor}"

    def rows(self, relation: Relation) -> str:
        """Returns what stands after FROM."""
        if relation.query:
            # On a line of its own, since a query may end with a comment.
            return f"(\n{relation.query}\n) AS {ROWS}"
        return f"{'.'.join(map(self.quote, relation.parts))} AS {ROWS}"

    def begin(self, snapshot: str = "") -> tuple[str, ...]:
        """Returns the first statements of a session.

        Args:
            snapshot: The snapshot to read, from `export`.
        """
        return ()

    def export(self, session: Session) -> str:
        """Returns the name of the session's snapshot for others to read; "" if it has none."""
        return ""

    def columns(self, session: Session, relation: Relation) -> list[Column]:
        """Returns the columns of a relation.

        Raises:
            ConnectorError: there is no such table, or the query is wrong.
        """
        schema = session.schema(f"SELECT * FROM {self.rows(relation)} WHERE 1 = 0")
        return [
            Column(one.name, self.type_in_sql(one.type), self.quote(one.name)) for one in schema
        ]

    def type_in_sql(self, kind: pa.DataType) -> str:
        """Returns the name of a type of Arrow, for a cast."""
        if pa.types.is_decimal(kind):
            return f"DECIMAL({kind.precision}, {kind.scale})"
        if pa.types.is_timestamp(kind) and kind.tz:
            return self.zoned_type
        known = ((applies, name) for applies, name in _TYPES if applies(kind))
        return next((name for _, name in known), self.text_type)

    def keys(self, session: Session, relation: Relation) -> Keys:
        """Returns the keys of a table; none of a view or a query."""
        return Keys()

    def tables(self, session: Session) -> list[str]:
        """Returns the names of tables and views, for messages."""
        return []

    def read(
        self, session: Session, columns: Sequence[Column], rows: str, where: str
    ) -> tuple[list[Column], Mapping[str, str]]:
        """Returns how the columns of one range are read, and the driver's settings for it."""
        return list(columns), {}

    def text(self, expression: str) -> str:
        """Returns an expression of the text that `literal` turns back into the value."""
        return f"CAST({expression} AS {self.text_type})"

    def type_of(self, expression: str, column: Column) -> str:
        """Returns an expression of the type's name, for `literal`."""
        return text_literal(column.type)

    def literal(self, text: str, kind: str) -> str:
        """Returns a value as it stands in a statement.

        Args:
            text: Its text.
            kind: Its type.
        """
        return f"CAST({text_literal(text)} AS {kind})"

    def is_time(self, kind: str) -> bool:
        """Returns whether values of a type may be times; a text may be one too."""
        name = kind.lower()
        return name.startswith(self.times) or any(one in name for one in ("char", "text", "string"))

    def counts(self, expression: str, column: Column) -> str:
        """Returns a further condition for values that a cursor may reach: no infinite ones."""
        return ""

    def mark(self, session: Session) -> int:
        """Returns a mark of the present, for `since_mark`."""
        raise NotImplementedError

    def open_mark(self, session: Session, relation: Relation) -> int | None:
        """Returns a mark from before the transactions that are writing to a table just now.

        What they write may have smaller cursors than what others have written already. None if
        there are none, or nothing tells.
        """
        return None

    def since_mark(self, mark: int) -> str:
        """Returns the condition for rows that were written at a mark or later."""
        raise NotImplementedError


class BigQueryDialect(Dialect):
    """BigQuery, which writes some of it in its own way."""

    text_type = "STRING"
    zoned_type = "TIMESTAMP"

    def quote(self, name: str) -> str:
        # In double quotes it would be a text.
        escaped = name.replace("\\", "\\\\").replace("`", "\\`")
        return f"`{escaped}`"

    def remainder(self, dividend: str, divisor: int) -> str:
        return f"MOD({dividend}, {divisor})"

    def type_in_sql(self, kind: pa.DataType) -> str:
        if pa.types.is_floating(kind):
            return "FLOAT64"
        if pa.types.is_timestamp(kind) and not kind.tz:
            return "DATETIME"
        return super().type_in_sql(kind)

    def literal(self, text: str, kind: str) -> str:
        # There a backslash begins an escape.
        escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
        return f"CAST('{escaped}' AS {kind})"
