"""What the tests share."""

import sqlite3
from pathlib import Path

import pytest


@pytest.fixture
def database(tmp_path: Path) -> str:
    """A database of two documents."""
    path = str(tmp_path / "source.db")
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE documents (id INTEGER PRIMARY KEY, body TEXT, pages INTEGER)")
    rows = [(1, "hello from a row", 3), (2, "another one", None)]
    connection.executemany("INSERT INTO documents VALUES (?, ?, ?)", rows)
    connection.commit()
    connection.close()
    return path
