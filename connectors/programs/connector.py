"""ProgramConnector: the base of connectors that run another program and read its lines.

The process that starts a run asks the program for its streams. What it finds travels with the
connector, so that workers need not ask again. Each stream is a part that one process reads.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.identity import jsonable, named_arguments
from contextframe_beam.connectors.kinds import PartsConnector
from contextframe_beam.connectors.mapped import MappedConnector
from contextframe_beam.connectors.mapper import FieldMapper
from contextframe_beam.connectors.page import Page, Partition
from contextframe_beam.connectors.programs.command import Command
from contextframe_beam.connectors.programs.process import Program
from contextframe_beam.connectors.programs.reading import Reading
from contextframe_beam.connectors.programs.settings import holds_text, identity_of, read_settings
from contextframe_beam.connectors.programs.streams import STREAM_FIELD, Catalog, Stream
from contextframe_beam.connectors.programs.texts import described, described_columns
from contextframe_beam.connectors.read.reader import READ_ON, PlannedRun
from contextframe_beam.connectors.record_mapper import RecordMapper
from contextframe_beam.errors import ConfigError, nearest
from contextframe_beam.frames.record import Deletion, FrameRecord

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from contextframe_beam.connectors.item_columns import ItemColumns
    from contextframe_beam.connectors.mapped import MappingOptions
    from contextframe_beam.frames.columns import FrameColumns

__all__ = ["ALL_STREAMS", "ProgramConnector"]

#: The part of a run that reads all streams in one process.
ALL_STREAMS = "all streams"
_OTHERS = "*"
_SHOWN = 30


class ProgramConnector(MappedConnector, PartsConnector):
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

    STREAM: ClassVar[str] = STREAM_FIELD

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

    @cached_property
    def catalog(self) -> Catalog:
        """The streams that are read."""
        streams = self._discovered()
        self._require_mappings(streams)
        return Catalog.of(streams, self.streams, self.program)

    def access(self) -> list[str]:
        """Returns the streams with their keys and cursors, a line each."""
        return list(map(str, self.catalog.values()))

    def mapper_of(self, stream: str = "", **defaults: Any) -> RecordMapper:
        """Returns what maps the records of a stream; its key is the id, unless the user decides.

        Args:
            stream: The label of the stream.
            **defaults: Keys of a mapping that hold where the user states nothing else.
        """
        if stream in self._mappers or stream not in self.catalog:
            return super().mapper_of(stream, **defaults)
        found = self.catalog[stream]
        stated = self._stated_of(found)
        times = [*FieldMapper().timestamp]
        if found.cursor in found.times:
            times.append(found.cursor)
        keys: dict[str, Any] = {"id": list(found.keys) or None, "timestamp": times}
        if "stream" not in found.fields:
            keys["constants"] = {"stream": stream}
        keys = {**keys, **defaults, **stated}
        if "prefix" not in self._mapping_of(found):
            # Records of two streams may have the same key.
            keys["prefix"] = f"{keys.get('prefix') or ''}{stream}:"
        self._mappers[stream] = RecordMapper(stream, {"source": self.program}, **keys)
        return self._mappers[stream]

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord | Deletion:
        """Turns a record into a frame, as the arguments say."""
        stream = item.get(self.STREAM, "")
        mapper = self.mapper_of(stream)
        if item.get(self.GONE) is True:
            return Deletion(mapper.unique_id(item))
        record = mapper.map(item)
        if not record.text_content and mapper.fields.text is None:
            record.text_content = described(item, self._fields_of(stream))
        return record

    def map_columns(self, items: ItemColumns) -> FrameColumns:
        """Turns many records into frames at once, the same as `map_to_frame_record` makes.

        Raises:
            NotByColumns: they have to be mapped one by one.
        """
        import pyarrow.compute as pc

        from contextframe_beam.frames.columns import NotByColumns

        if self.GONE in items.fields:
            raise NotByColumns
        stream = items.common(self.STREAM) or ""
        mapper = self.mapper_of(stream)
        made = mapper.map_columns(items)
        if mapper.fields.text is None:
            empty = pc.equal(made.texts, "")
            if pc.any(empty).as_py():
                lines = described_columns(items, self._fields_of(stream))
                made.texts = pc.if_else(empty, lines, made.texts)
        return made

    def unmapped(self, names: Sequence[str]) -> list[str]:
        """Returns which fields become no part of a frame; each stream has its own."""
        return []

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
        is_together = self.together or len(catalog) == 1 or self._is_shared(states)
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
        # Asking the program takes seconds, so a worker gets its answer.
        return (*super().__reduce__(), {"catalog": vars(self).get("catalog"), "mode": self._mode})

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["catalog"] is not None:
            self.catalog = state["catalog"]
        self._mode = state["mode"]

    @abstractmethod
    def _discovered(self) -> list[Stream]:
        """Returns all streams of the program."""

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

    def _fields_of(self, stream: str) -> Sequence[str]:
        found = self.catalog.get(stream)
        return () if found is None else found.fields

    def _travels_with(self, **arguments: Any) -> None:
        """Gives arguments to the connector that is made of this one on a worker."""
        named = named_arguments(type(self), *self._arguments)
        self._arguments = ((), {**named, **arguments})

    def _stated_of(self, stream: Stream) -> dict[str, Any]:
        """Returns the keys of the mapping that a user states for a stream."""
        return {**self._mapping_of(stream), **self._stated}

    def _mapping_of(self, stream: Stream) -> dict[str, Any]:
        """Returns the keys of the mapping for this stream alone, or for all that have none."""
        names = (stream.label, stream.name, _OTHERS)
        return next((self._mappings[one] for one in names if one in self._mappings), {})

    def _require_mappings(self, streams: Sequence[Stream]) -> None:
        """Refuses a mapping of a stream that does not exist."""
        known = {label for one in streams for label in (one.label, one.name)}
        for name in self._mappings if self._is_streams else ():
            if name not in known and name != _OTHERS:
                raise ConfigError(
                    f"mapping has {name!r}, and {self.program} has no such stream"
                    f"{nearest(name, known)} (there are: {', '.join(sorted(known)[:_SHOWN])})"
                )

    def _unsuitable(self, mode: str) -> str:
        """Returns why a run in a mode makes no sense, and what to do; "" if it does."""
        self._mode = mode
        if mode not in ("upsert", "mirror"):
            return ""
        without = [
            label
            for label, stream in self.catalog.items()
            if not stream.keys and "id" not in self._stated_of(stream)
        ]
        if not without:
            return ""
        one = len(without) == 1
        has = f"{', '.join(without)} {'has' if one else 'have'}"
        return (
            f"{has} no primary key, so {mode} cannot tell "
            "which document a record replaces: name the field that identifies a record with id "
            f"(in a mapping), leave {'it' if one else 'them'} out with streams, or add all records "
            'with mode="append"'
        )
