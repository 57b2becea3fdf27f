"""Opening the database."""

import sqlite3
from pathlib import Path

from contextframe_beam.errors import ConnectorError


def opened(path: str) -> sqlite3.Connection:
    """Opens a database for reading.

    Raises:
        ConnectorError: it cannot be opened.
    """
    try:
        connection = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)
        connection.execute("SELECT name FROM sqlite_master LIMIT 1")
    except sqlite3.Error as error:
        raise ConnectorError(f"{path} cannot be opened ({error}); give another --path") from error
    return connection
