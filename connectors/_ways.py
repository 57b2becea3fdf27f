"""Which reader is the best one for a class of connectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contextframe_beam.connectors._identity import Arguments
from contextframe_beam.connectors._way import Reader, owner_of
from contextframe_beam.connectors._ways_by_block import BatchesReader, BlocksReader, PagesReader
from contextframe_beam.connectors._ways_by_item import ChangesReader, ListReader, StreamReader
from contextframe_beam.connectors.base import BaseConnector, require_connector
from contextframe_beam.errors import ConfigError, nearest

_BEST_FIRST: tuple[type[Reader], ...] = (
    PagesReader,
    BlocksReader,
    BatchesReader,
    StreamReader,
    ChangesReader,
    ListReader,
)


def choose_reader(connector: BaseConnector, kwargs: Mapping[str, Any]) -> type[Reader]:
    """Returns the best reader for a connector with these arguments.

    What a subclass writes anew comes before what it inherits: one that overrides only
    `sync_documents` wants that to be called.

    Raises:
        ConfigError: the class does not say how to read, or takes no such arguments.
    """
    kind = type(require_connector(connector, "what is read"))
    depths: dict[type[Reader], int] = {}
    for reader in _BEST_FIRST:
        owners = [owner_of(kind, name) for name in reader.methods]
        if owners[0] is not None:
            depths[reader] = min(owner for owner in owners if owner is not None)
    if not depths:
        raise ConfigError(
            f"{kind.__name__} does not say how to read: write sync_documents(self, **kwargs), or "
            "sync_documents_stream, or derive it from one of the classes in connectors.kinds"
        )
    problems: list[str] = []
    for reader in sorted(depths, key=lambda one: depths[one]):
        problem = wrong_arguments(reader.takes(connector), kwargs)
        if not problem:
            return reader
        problems.append(problem)
    raise ConfigError(f"{kind.__name__}: {problems[0]}")


def wrong_arguments(takes: Arguments, given: Mapping[str, Any]) -> str:
    """Returns what is wrong with the arguments given; "" when nothing is."""
    for name in given:
        if name in takes.named or takes.is_open:
            continue
        if not takes.named:
            return f"it takes no arguments to read with, so not {name!r} either"
        hint = nearest(name, takes.named) or f"; it takes {', '.join(takes.named)}"
        return f"there is no argument {name!r} to read with{hint}"
    for name, parameter in takes.named.items():
        if parameter.default is parameter.empty and name not in given:
            return f"it needs {name!r} to read with; give {name}=..."
    return ""
