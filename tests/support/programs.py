"""Sources of Airbyte and taps of Singer for tests: real processes that do as a script says."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contextframe_beam.connectors.page import DeadLetter
from contextframe_beam.connectors.programs.airbyte import AirbyteConnector
from contextframe_beam.connectors.programs.singer import SingerConnector
from contextframe_beam.connectors.read.source import Source

SPEAKING = Path(__file__).with_name("speaking.py")
# Without the site's packages it starts in 20 milliseconds.
PYTHON = f"{sys.executable} -I -S"

SECRET = "s3cr3t-t0ken-0123456789"
SPEC = {
    "connectionSpecification": {
        "properties": {
            "script": {"type": "string"},
            "credentials": {
                "oneOf": [{"properties": {"token": {"type": "string", "airbyte_secret": True}}}]
            },
        }
    }
}


def stream(name: str, keys: Sequence[Any] = (("id",),), cursor: str = "", **more: Any) -> Any:
    """Returns a stream of Airbyte's catalog."""
    return {
        "name": name,
        "json_schema": {"properties": {"id": {}, "name": {}, "at": {"format": "date-time"}}},
        "supported_sync_modes": ["full_refresh", *(["incremental"] if cursor else [])],
        "source_defined_cursor": bool(cursor),
        "default_cursor_field": [cursor] if cursor else [],
        "source_defined_primary_key": [list(key) for key in keys],
        **more,
    }


def entry(name: str, cursor: str = "", keys: Sequence[str] = ("id",)) -> Any:
    """Returns a stream of Singer's catalog."""
    own: dict[str, Any] = {"table-key-properties": list(keys)}
    if cursor:
        own["valid-replication-keys"] = [cursor]
    return {
        "tap_stream_id": name,
        "stream": name,
        "schema": {"properties": {"id": {}, "name": {}, "at": {"format": "date-time"}}},
        "metadata": [{"breadcrumb": [], "metadata": own}],
    }


def record(stream: str, /, **data: Any) -> Any:
    """Returns a record of Airbyte's protocol."""
    return {"type": "RECORD", "record": {"stream": stream, "data": data, "emitted_at": 1}}


@dataclass
class Script:
    """What a program is to say.

    Attributes:
        path: Its file.
        dialect: airbyte or singer.
        values: Its content, which `write` writes.
    """

    path: Path
    dialect: str
    values: dict[str, Any] = field(default_factory=dict)

    def write(self, **values: Any) -> Script:
        """Changes what the program says."""
        self.values |= values
        self.path.write_text(json.dumps(self.values), encoding="utf-8")
        return self

    @property
    def command(self) -> str:
        """The command that starts it."""
        return f"{PYTHON} {SPEAKING} {self.dialect}"

    def connector(self, **arguments: Any) -> AirbyteConnector | SingerConnector:
        """Returns a connector that runs it."""
        config = {"script": str(self.path), **arguments.pop("config", {})}
        kind = AirbyteConnector if self.dialect == "airbyte" else SingerConnector
        arguments.setdefault("command", self.command)
        return kind(config=config, **arguments)

    @property
    def got(self) -> list[dict[str, Any]]:
        """What the program got each time it ran."""
        path = Path(f"{self.path}.got")
        return [json.loads(line) for line in path.read_text().splitlines()]


@dataclass
class Found:
    """What a reading gave: frames by their ids, dead letters and states."""

    frames: dict[str, Any] = field(default_factory=dict)
    letters: list[DeadLetter] = field(default_factory=list)
    states: dict[str, Any] = field(default_factory=dict)
    narrowed: str = ""


def read(connector: Any, states: Any = None, mode: str = "upsert") -> Found:
    """Reads all that a connector plans, in this process."""
    problem = connector._unsuitable(mode)
    assert not problem, problem
    connector.ensure_authenticated()
    source = Source(connector, resume_from=states, threads=1)
    found = Found()
    for page in source.pages():
        found.narrowed = found.narrowed or page.narrowed
        found.letters += page.failures
        for item in page.items:
            frame = connector.map_to_frame_record(item)
            found.frames[frame.unique_id] = frame
        if page.state is not None:
            found.states[page.partition] = page.state
    return found
