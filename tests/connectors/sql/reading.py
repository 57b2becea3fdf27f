"""Reading a connector in tests: its items, and the state after them."""

from __future__ import annotations

from typing import Any

from contextframe_beam.connectors.cursors import Bounds
from contextframe_beam.connectors.read.held import released
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.connectors.sql.connector import SqlConnector


def read(
    connector: SqlConnector, state: dict[str, Any] | None = None, bounds: Bounds | None = None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Returns the items of a run, and the state after it."""
    source = Source(connector, resume_from=state, bounds=bounds)
    with released():
        items = [item for page in source.pages() for item in page.items]
    return items, dict(source.reached or {})


def ids(found: tuple[list[dict[str, Any]], Any] | list[dict[str, Any]]) -> list[Any]:
    """Returns the sorted ids of items, or of what `read` returned."""
    items = found[0] if isinstance(found, tuple) else found
    return sorted(item["id"] for item in items)
