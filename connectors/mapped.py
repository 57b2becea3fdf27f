"""MappedConnector: the base of connectors whose users say which field is the id, the text, ...

Tables, databases and files of JSON share these arguments, so they are options of the same names
on the command line. What they mean is what the keys of `mapping` mean in the YAML of an API.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.record_mapper import RecordMapper
from contextframe_beam.errors import ConfigError, nearest
from contextframe_beam.frames.record import Deletion, FrameRecord

if TYPE_CHECKING:
    from typing_extensions import TypedDict

    from contextframe_beam.connectors.item_columns import ItemColumns
    from contextframe_beam.frames.columns import FrameColumns

    class MappingOptions(TypedDict, total=False):
        """The arguments of `MappedConnector`."""

        id: str | Sequence[str] | None
        text: str | None
        title: str | Sequence[str] | None
        timestamp: str | Sequence[str] | None
        tags: str | None
        prefix: str | None
        mapping: str | os.PathLike[str] | Mapping[str, Any] | None


class MappedConnector(BaseConnector):
    """A connector whose records are mapped by the names of their fields.

    A subclass passes on these arguments (`**fields` in its constructor). A field is a path:
    `title`, `author.name` inside an object, `files.0.url` inside a list.

    Args:
        id: The field with the id of a record; or several that identify it together; or a template
            such as `{project}-{number}`. By default the first of id, _id and uuid that has a value.
        text: The field with the text, or a template such as `# {title}`. By default content, text,
            body and description, as far as they have a value.
        title: The field with the title; of several the first that has a value.
        timestamp: The field with the time of the last change; of several the first that has one.
        tags: The field with the tags: a list, or text with commas.
        prefix: What ids begin with, so that those of two sources differ in one dataset.
        mapping: A YAML file with the keys of `mapping` in the YAML of an API, or one such mapping
            for each stream by its name. The other arguments come before it.

    Raises:
        ConfigError: the mapping cannot be read, or has a mistake.
    """

    #: The field of an item that names its stream, where a mapping file has several.
    STREAM: ClassVar[str] = "_stream"

    #: The field of an item that says that its document is gone.
    GONE: ClassVar[str] = "_contextframe_gone"

    #: Keys of a mapping that hold where the user states nothing else.
    _defaults: Mapping[str, Any] = MappingProxyType({})

    def __init__(
        self,
        id: str | Sequence[str] | None = None,
        text: str | None = None,
        title: str | Sequence[str] | None = None,
        timestamp: str | Sequence[str] | None = None,
        tags: str | None = None,
        prefix: str | None = None,
        mapping: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        given = {
            "id": id,
            "text": text,
            "title": title,
            "timestamp": timestamp,
            "tags": tags,
            "prefix": prefix,
        }
        self._own = {key: value for key, value in given.items() if value is not None}
        values = None if mapping is None else values_of(mapping)
        self._mappings = {} if values is None else mappings_in(values, _place(mapping))
        self._is_streams = "" not in self._mappings and bool(self._mappings)
        self._mappers: dict[str, RecordMapper] = {}
        if values is not None and "mapping" in self._arguments[1]:
            # A worker on another machine does not have the file.
            self._arguments = (self._arguments[0], {**self._arguments[1], "mapping": values})

    @property
    def is_mapped(self) -> bool:
        """Whether any of the arguments says how records are mapped."""
        return bool(self._own or self._mappings)

    @property
    def _stated(self) -> dict[str, Any]:
        """The keys that hold for all streams."""
        return {**self._mappings.get("", {}), **self._own}

    def mapper_of(self, stream: str = "", **defaults: Any) -> RecordMapper:
        """Returns what maps the records of a stream, the same object each time.

        Args:
            stream: The stream, which a mapping file may name.
            **defaults: Keys of a mapping that hold where the user states nothing else.

        Raises:
            ConfigError: the mapping file has streams, and this one is not among them.
        """
        if self._is_streams and stream not in self._mappings:
            known = list(self._mappings)
            raise ConfigError(
                f"mapping has no stream {stream!r}{nearest(stream, known)} "
                f"(there are: {', '.join(known)}); add it, or leave its records out"
            )
        if stream not in self._mappers:
            stated = {**self._mappings.get(stream, {}), **self._stated}
            keys = {**self._defaults, **defaults, **stated}
            self._mappers[stream] = RecordMapper(stream or self.name, {"source": self.name}, **keys)
        return self._mappers[stream]

    def fields(self) -> dict[str, str] | None:
        """Returns the fields of its records with their types; None where only records tell."""
        return None

    def unmapped(self, names: Sequence[str]) -> list[str]:
        """Returns which fields become no part of a frame.

        Args:
            names: The fields that records have.
        """
        if self._is_streams:
            return []
        mapper = self.mapper_of()
        parts = [path.split(".") for path in mapper.paths]
        heads = {".".join(part[:count]) for part in parts for count in range(1, len(part) + 1)}
        return [
            name
            for name in names
            if name not in heads and (name[:1] == "_" or not mapper.takes_all)
        ]

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord | Deletion:
        """Turns a record into a frame, as the arguments say."""
        mapper = self.mapper_of(item.get(self.STREAM, "") if self._is_streams else "")
        if item.get(self.GONE) is True:
            return Deletion(mapper.unique_id(item))
        return mapper.map(item)

    def map_columns(self, items: ItemColumns) -> FrameColumns:
        """Turns many records into frames at once, the same as `map_to_frame_record` makes.

        A subclass with a `map_to_frame_record` of its own is not asked, unless it has this too.

        Raises:
            NotByColumns: they have to be mapped one by one.
        """
        items.require_none(self.GONE)
        stream = items.common(self.STREAM) if self._is_streams else ""
        return self.mapper_of(stream or "").map_columns(items)


def stream_named(path: str) -> str:
    """Returns the stream that a file is, which is its name without endings: `a/b.csv.gz` is `b`."""
    return path.rpartition("/")[2].partition(".")[0]


def values_of(mapping: str | os.PathLike[str] | Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns what a mapping states: a YAML file, or a mapping itself.

    Raises:
        ConfigError: the file cannot be read, or holds no mapping.
    """
    values: Any = mapping
    if not isinstance(mapping, Mapping):
        from contextframe_beam.connectors.yaml_file import read_yaml_file

        values = read_yaml_file(mapping, "the mapping").values
    if not isinstance(values, Mapping) or not values:
        raise ConfigError(
            f"{_place(mapping)}a mapping has keys such as id and text, each with the path of a "
            "field, or the names of streams, each with such keys"
        )
    return values


def mappings_in(values: Mapping[str, Any], where: str = "") -> dict[str, dict[str, Any]]:
    """Returns the keys that a mapping states, by the name of the stream; "" is for any stream.

    Args:
        values: A mapping of the keys, or of streams to them.
        where: What messages begin with, as in `notes.yaml: `.

    Raises:
        ConfigError: a key is unknown, or a value does not fit.
    """
    from contextframe_beam.connectors.http.section import checked
    from contextframe_beam.connectors.record_mapping import RecordMapping

    keys = RecordMapping.model_fields
    # Two keys are mappings themselves; a stream of such a name stands beside others.
    own = {"metadata", "constants"}
    is_streams = all(isinstance(one, Mapping) for one in values.values()) and not own >= set(values)
    found = {}
    for name, stated in (values if is_streams else {"": values}).items():
        path = f"mapping.{name}" if name else "mapping"
        try:
            section = checked(RecordMapping, dict(stated), path)
        except ConfigError as error:
            raise ConfigError(f"{where}{error}") from None
        given = section.model_fields_set
        found[str(name)] = {key: getattr(section, key) for key in keys if key in given}
    return found


def _place(mapping: Any) -> str:
    return "" if mapping is None or isinstance(mapping, Mapping) else f"{os.fspath(mapping)}: "
