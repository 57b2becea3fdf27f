"""ProgramConnector: the base of connectors that run another program and read its lines.

The process that starts a run asks the program for its streams. What it finds travels with the
connector, so that workers need not ask again. Each stream is a part that one process reads.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.identity import jsonable, named_arguments
from contextframe_beam.connectors.page import Page, Partition
from contextframe_beam.connectors.programs.command import Command
from contextframe_beam.connectors.programs.process import Program
from contextframe_beam.connectors.programs.reading import Reading
from contextframe_beam.connectors.programs.settings import holds_text, identity_of, read_settings
from contextframe_beam.connectors.read.reader import READ_ON, PlannedRun
from contextframe_beam.connectors.streams.connector import StreamsConnector
from contextframe_beam.connectors.streams.stream import Catalog

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from contextframe_beam.connectors.mapped import MappingOptions

__all__ = ["ALL_STREAMS", "ProgramConnector"]

#: The part of a run that reads all streams in one process.
ALL_STREAMS = "all streams"


class ProgramConnector(StreamsConnector):
    """A program that gives records of streams, a message a line.

    Args:
        command: How it is started.
        config: Its configuration: a file of JSON or YAML, with references in place of secrets.
        streams: The streams to read; all by default.
        cursor: The field that grows when a record changes, where the program leaves the choice.
        together: Read all streams in one process.
        **fields: Which field is the text, the title, and so on, as for any `MappedConnector`.

    Raises:
        ConfigError: an argument makes no sense.
    """

    #: A stream is a process, which waits for its service most of the time.
    max_in_flight = 4

    def __init__(
        self,
        command: Command,
        config: str | os.PathLike[str] | Mapping[str, Any] | None,
        streams: Sequence[str],
        cursor: str | Mapping[str, str] | None,
        together: bool,
        **fields: Unpack[MappingOptions],
    ) -> None:
        super().__init__(**fields)
        self.command = command
        self.config: dict[str, Any] = {}
        if config is not None:
            # A worker on another machine does not have the file.
            given = read_settings(config, "the configuration")
            self.config = secrets.referenced(given)
            secrets.register_literals(self.config)
            self._travels_with(config=self.config)
        self.streams = [streams] if isinstance(streams, str) else list(streams)
        self.cursor = cursor
        self.together = together
        self._mode = ""

    @property
    def program(self) -> str:
        """The name of the program."""
        return self.command.name

    def authenticate(self) -> bool:
        """Asks the program for its streams, and refuses secrets in plain text.

        Raises:
            ConfigError: there is no such program or stream, or a secret stands in plain text.
            ConnectorError: the program fails.
        """
        if "catalog" not in vars(self):
            self.command.require()
            if holds_text(self.config):
                self._refuse_plain()
        self.authenticated = bool(self.catalog)
        return True

    def source_identity(self, sync_kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns the class, the program, its configuration without secrets, and the streams."""
        identity = super().source_identity(sync_kwargs)
        arguments: dict[str, Any] = {"program": self.program, **identity_of(self.config)}
        if self.streams:
            arguments["streams"] = sorted(set(self.streams))
        arguments |= {key: value for key, value in self._stated.items() if key in ("id", "prefix")}
        identity["arguments"] = jsonable(arguments)
        return identity

    def plan(self, run: PlannedRun) -> Iterator[Partition]:
        """Yields the streams, or one part with all of them."""
        catalog = self.catalog
        states = run.resume_from
        is_together = self.together or len(catalog) == 1 or self._is_shared(run.known_states)
        groups = (
            [Catalog(catalog)]
            if is_together
            else [Catalog({label: stream}) for label, stream in catalog.items()]
        )
        read_on = []
        for group in groups:
            state = self._known(group, states)
            if state:
                read_on += list(group)
            name = next(iter(group)) if len(group) == 1 else ALL_STREAMS
            yield Partition(name, {"catalog": group, "state": state, "alone": is_together})
        run.narrowed = READ_ON if read_on else ""

    def read_part(self, partition: Partition, block: int) -> Iterator[Page]:
        """Yields the pages of one process, and its state at the end."""
        catalog: Catalog = partition.params["catalog"]
        arguments, files = self._read_arguments(catalog, partition.params["state"])
        reading = self._reading(catalog, partition.params["alone"])
        files = {"config": self._config(), **files}
        with Program(self.command, arguments, files, self.logger) as program:
            yield from reading.pages(program)

    def __reduce__(self) -> tuple[Any, ...]:
        *made, state = super().__reduce__()
        return (*made, {**state, "mode": self._mode})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._mode = state["mode"]

    @abstractmethod
    def _refuse_plain(self) -> None:
        """Refuses secrets in plain text.

        Raises:
            ConfigError: there are some.
        """

    @abstractmethod
    def _reading(self, catalog: Catalog, is_alone: bool) -> Reading:
        """Returns what reads these streams; `is_alone` if one process reads all there are."""

    @abstractmethod
    def _read_arguments(
        self, catalog: Catalog, state: Mapping[str, Any] | None
    ) -> tuple[list[str], dict[str, Any]]:
        """Returns what the program gets to read these streams from a state on, and its files."""

    @abstractmethod
    def _known(self, catalog: Catalog, states: Mapping[str, Any]) -> dict[str, Any] | None:
        """Returns the state that these streams go on from; None to read them from the beginning."""

    def _is_shared(self, states: Mapping[str, Any]) -> bool:
        """Returns whether one state is kept for all streams."""
        return False

    def _config(self) -> dict[str, Any]:
        """Returns the configuration with its secrets."""
        found: dict[str, Any] = secrets.resolved(self.config)
        return found

    def _travels_with(self, **arguments: Any) -> None:
        """Gives arguments to the connector that is made of this one on a worker."""
        named = named_arguments(type(self), *self._arguments)
        self._arguments = ((), {**named, **arguments})

    def _unsuitable(self, mode: str) -> str:
        """Returns why a run in a mode makes no sense, and what to do; "" if it does."""
        self._mode = mode
        return super()._unsuitable(mode)
