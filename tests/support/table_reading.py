"""Reading a connector of tables in this process, with its partitions in any order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from contextframe_beam.connectors.page import DeadLetter, Page, Partition
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.connectors.tables.connector import TableConnector


@dataclass
class Found:
    """What a reading gave: rows, dead letters, names of partitions, states, what was left out."""

    items: list[dict[str, Any]] = field(default_factory=list)
    failures: list[DeadLetter] = field(default_factory=list)
    partitions: list[str] = field(default_factory=list)
    states: dict[str, Any] = field(default_factory=dict)
    narrowed: str = ""
    blocks: int = 0
    positions: list[str] = field(default_factory=list)

    @property
    def messages(self) -> str:
        return "\n".join(letter.message for letter in self.failures)

    def column(self, name: str) -> list[Any]:
        return sorted(item[name] for item in self.items)


def read(connector: TableConnector, states: Mapping[str, Any] | None = None) -> Found:
    """Reads all that a connector plans, the last block first."""
    connector.ensure_authenticated()
    source = Source(connector, resume_from=states)
    chunks = list(source.plan())
    header = chunks[-1].header
    assert header is not None
    found = Found(narrowed=header.narrowed, states=dict(source.reached or {}))
    found.blocks = header.planned
    for chunk in reversed(chunks[:-1]):
        found.partitions += [part.id for part in chunk.parts if part.id not in found.partitions]
        for fetched in source.read_blocks(chunk, lambda _: True):
            page = fetched.page
            found.items += page.items
            found.failures += page.failures
            found.positions.append(page.position)
            if page.state is not None:
                found.states[page.partition] = page.state
    return found


def pages_of(connector: TableConnector, planned: Iterable[Partition]) -> list[Page]:
    """Reads what was planned, all blocks of all partitions."""
    return [
        page
        for partition in planned
        for block in range(partition.blocks)
        for page in connector.read_part(partition, block)
    ]
