"""Sources of dlt for tests, which read what a file holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa

SINCE = dlt.sources.incremental("changed", initial_value=0)


def rows(path: str, name: str) -> list[dict[str, Any]]:
    """Returns the records of a list in a file of JSON."""
    return list(json.loads(Path(path).read_text()).get(name, []))


@dlt.source
def tracker(path: str, key: str = dlt.secrets.value) -> Any:
    """A source with every kind of resource."""

    @dlt.resource(
        primary_key="id",
        write_disposition="merge",
        columns={"gone": {"hard_delete": True, "data_type": "bool"}},
    )
    def issues(changed: Any = SINCE) -> Any:
        if key == "wrong":
            raise PermissionError(f"the key {key} is refused")
        yield [one for one in rows(path, "issues") if one["changed"] >= changed.last_value]

    @dlt.resource(primary_key=("team", "name"), write_disposition="replace")
    def people() -> Iterator[dict[str, Any]]:
        yield from rows(path, "people")

    @dlt.resource(primary_key="id", columns={"gone": {"hard_delete": True}})
    def orders() -> Iterator[pa.Table]:
        yield pa.Table.from_pylist(rows(path, "orders"))

    @dlt.transformer(data_from=issues, primary_key="of")
    def comments(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for one in found:
            yield {"of": one["id"], "body": f"on {one['title']}"}

    @dlt.resource(selected=False)
    def events() -> Iterator[dict[str, Any]]:
        yield from rows(path, "events")

    return issues, people, orders, comments, events


@dlt.resource(primary_key="id", parallelized=True)
def alone(path: str) -> Iterator[dict[str, Any]]:
    """A resource without a source."""
    yield from rows(path, "issues")


def nothing() -> int:
    """No source."""
    return 1
