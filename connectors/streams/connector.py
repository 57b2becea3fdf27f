"""StreamsConnector: the base of connectors of others that give records of several streams.

A stream says itself what its key is, so a user need not map anything: the key is the id, and a
record without a usual text is its fields, a line each.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from contextframe_beam.connectors.kinds import PartsConnector
from contextframe_beam.connectors.mapped import MappedConnector
from contextframe_beam.connectors.mapper import FieldMapper
from contextframe_beam.connectors.record_mapper import RecordMapper
from contextframe_beam.connectors.streams.stream import STREAM_FIELD, Catalog, Stream
from contextframe_beam.connectors.streams.texts import described, described_columns
from contextframe_beam.errors import ConfigError, nearest
from contextframe_beam.frames.record import Deletion, FrameRecord

if TYPE_CHECKING:
    from contextframe_beam.connectors.item_columns import ItemColumns
    from contextframe_beam.frames.columns import FrameColumns

__all__ = ["StreamsConnector"]

# What holds in a mapping for all streams that it does not name.
_OTHERS = "*"
_SHOWN = 30


class StreamsConnector(MappedConnector, PartsConnector):
    """Records of streams, each with a key and perhaps a cursor.

    A subclass says what streams there are (`_discovered`), plans and reads them, and gives each
    item the label of its stream under `STREAM`.

    Raises:
        ConfigError: the mapping cannot be read, or has a mistake.
    """

    STREAM: ClassVar[str] = STREAM_FIELD

    #: The names of the streams to read; empty for all.
    streams: Sequence[str] = ()

    # Those that are read where none are named, once they are discovered; empty for all.
    _usual: Sequence[str] = ()

    @property
    @abstractmethod
    def program(self) -> str:
        """The name of what gives the streams."""

    @abstractmethod
    def _discovered(self) -> list[Stream]:
        """Returns all streams that there are."""

    @cached_property
    def catalog(self) -> Catalog:
        """The streams that are read."""
        found = self._discovered()
        self._require_mappings(found)
        return Catalog.of(found, self.streams or self._usual, self.program)

    def access(self) -> list[str]:
        """Returns the streams with their keys and cursors, a line each."""
        return list(map(str, self.catalog.values()))

    def mapper_of(self, stream: str = "", **defaults: Any) -> RecordMapper:
        """Returns what maps the records of a stream; its key is the id, unless the user decides.

        Args:
            stream: The label of the stream.
            **defaults: Keys of a mapping that hold where the user states nothing else.
        """
        if stream in self._mappers:
            return self._mappers[stream]
        if stream not in self.catalog:
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

        items.require_none(self.GONE)
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

    def __reduce__(self) -> tuple[Any, ...]:
        # Finding the streams may take seconds, so a worker gets what was found.
        return (*super().__reduce__(), {"catalog": vars(self).get("catalog")})

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["catalog"] is not None:
            self.catalog = state["catalog"]

    def _fields_of(self, stream: str) -> Sequence[str]:
        found = self.catalog.get(stream)
        return () if found is None else found.fields

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
