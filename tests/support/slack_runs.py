"""Runs of the slack connector against its world, and what they store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.connectors.slack.connector import SlackConnector
from contextframe_beam.frames.record import FrameRecord
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.transforms.commit import CommitReceipt
from tests.worlds.slack_world import TOKEN, SlackWorld


@pytest.fixture
def world() -> Iterator[SlackWorld]:
    with SlackWorld() as made:
        yield made
        assert not made.problems, made.problems


def connector(world: SlackWorld, **settings: Any) -> SlackConnector:
    """Returns a connector for a world that does not wait between requests."""
    return SlackConnector(
        **{"token": TOKEN, "base_url": world.api, "requests_per_minute": 600_000, **settings}
    )


def run(world: SlackWorld, to: Path, mode: str = "upsert", **settings: Any) -> CommitReceipt:
    full = settings.pop("full", False)
    made = connector(world, **settings)
    return ingest(made, str(to), mode=mode, full=full, max_deletes="100%", embed_dim=2)


def stored(to: Path) -> dict[str, FrameRecord]:
    """Returns the records of a dataset by their unique ids, without `slack:`."""
    return {str(one.unique_id).partition(":")[2]: one for one in FrameDataset.open(str(to))}


def told(to: Path) -> dict[str, Any]:
    """Returns what is stored, to be compared."""
    return {
        name: (one.text_content, one.metadata, one.timestamp, one.readers)
        for name, one in stored(to).items()
    }


def methods(world: SlackWorld, since: int = 0) -> list[str]:
    """Returns the methods that were called since a request."""
    return [one.asked.path.removeprefix("/api/") for one in world.served[since:]]


def items(world: SlackWorld, **settings: Any) -> list[Any]:
    made = connector(world, **settings)
    made.authenticate()
    return [item for page in Source(made).pages() for item in page.items]


def record(world: SlackWorld, path: str, **settings: Any) -> FrameRecord:
    """Returns what becomes of one document, read outside of a run."""
    made = connector(world, **settings)
    made.authenticate()
    item = next(one for one in made.sync_documents() if one["path"] == path)
    found = made.map_to_frame_record(item)
    assert isinstance(found, FrameRecord)
    return found


def relationships(found: FrameRecord) -> list[tuple[str, str]]:
    return [
        (one["relationship_type"], one["target_id"].partition(":")[2])
        for one in found.metadata.get("relationships", ())
    ]
