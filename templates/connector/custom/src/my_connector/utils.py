"""Reading rows, and what of them is text."""

import sqlite3
from collections.abc import Iterator
from typing import Any

from contextframe_beam.errors import ConnectorError


def rows_of(connection: sqlite3.Connection, table: str) -> Iterator[dict[str, Any]]:
    """Yields the rows of a table as dicts.

    Raises:
        ConnectorError: there is no such table, or it has no ids.
    """
    quoted = table.replace('"', '""')
    try:
        cursor = connection.execute(f'SELECT * FROM "{quoted}" ORDER BY id')
    except sqlite3.Error as error:
        raise ConnectorError(f"{table} cannot be read ({error}); give another --table") from error
    names = [column[0] for column in cursor.description]
    for row in cursor:
        yield dict(zip(names, row, strict=True))


def text_of(item: dict[str, Any]) -> str:
    """Returns the texts of a row, one paragraph each."""
    return "\n\n".join(value for value in item.values() if isinstance(value, str) and value)
