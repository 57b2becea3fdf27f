"""SingerConnector: any tap of Singer, as a program.

A tap is asked which streams it has. Then it reads, one process a stream, from the state that
the last run left on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from contextframe_beam.connectors.programs.command import Command
from contextframe_beam.connectors.programs.connector import ALL_STREAMS, ProgramConnector
from contextframe_beam.connectors.programs.process import Program
from contextframe_beam.connectors.programs.reading import Reading
from contextframe_beam.connectors.programs.settings import refuse_plain
from contextframe_beam.connectors.streams.stream import Catalog, Stream, cursor_of
from contextframe_beam.errors import ConnectorError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from contextframe_beam.connectors.mapped import MappingOptions

__all__ = ["SingerConnector", "SingerReading"]

_FULL_TABLE = "FULL_TABLE"
_INCREMENTAL = "INCREMENTAL"


class SingerConnector(ProgramConnector):
    """Records of any tap of Singer; each record is a document.

    A unique_id is the stream and the key: `users:42`. The text is the first usual field (content,
    text, body, description), or else all fields of the record, a line each.

    Args:
        command: The tap, as in `tap-github` or `python tap_github.py`.
        config: The configuration of the tap: a file of JSON or YAML. Secrets in it are references:
            `env:NAME`, `file:PATH`, `keyring:NAME`, `gcp-secret:...`.
        streams: The streams to read; all by default.
        cursor: The field that grows when a record changes, where the tap leaves the choice: one
            name for all streams that have it, or one for each stream, {"users": "updated_at"}.
        together: Read all streams in one process.
        **fields: Which field is the text, the title, and so on, as for any `MappedConnector`. A
            mapping file may have one mapping for each stream, and `*` for the others.

    Raises:
        ConfigError: an argument makes no sense, or the configuration holds a secret in plain text.
    """

    def __init__(
        self,
        command: str,
        config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        streams: Sequence[str] = (),
        cursor: str | Mapping[str, str] | None = None,
        together: bool = False,
        **fields: Unpack[MappingOptions],
    ) -> None:
        super().__init__(Command.of(command), config, streams, cursor, together, **fields)

    def _refuse_plain(self) -> None:
        refuse_plain(self.config, None)

    def _discovered(self) -> list[Stream]:
        reading = SingerReading(self.program, Catalog(), self.logger, "")
        files = {"config": self._config()}
        with Program(
            self.command, ["--config", "{config}", "--discover"], files, self.logger
        ) as program:
            written = b"\n".join(program.blocks())
            reading.require_success(program)
        try:
            # Some taps log to their standard output.
            catalog = orjson.loads(written[written.find(b"{") :])
            return [self._stream(one) for one in catalog["streams"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ConnectorError(
                f"{self.program} gives no catalog of its streams ({type(error).__name__}), "
                "so it is no tap of Singer; check the command"
            ) from None

    def _stream(self, entry: Mapping[str, Any]) -> Stream:
        name = str(entry["tap_stream_id"])
        own = _own_metadata(entry)
        properties = _object(_object(entry.get("schema")).get("properties"))
        keys = entry.get("key_properties") or own.get("table-key-properties")
        keys = keys or own.get("view-key-properties") or ()
        method = str(
            own.get("forced-replication-method")
            or entry.get("replication_method")
            or own.get("replication-method")
            or ""
        )
        valid = list(own.get("valid-replication-keys") or ())
        told = entry.get("replication_key") or own.get("replication-key")
        told = told or (valid[0] if len(valid) == 1 else "")
        chosen = cursor_of(self.cursor, name, name, list(properties))
        cursor = chosen or str(told or "")
        is_free = not own.get("forced-replication-method")
        if (chosen and is_free) or (cursor and not method):
            method = _INCREMENTAL
        return Stream(
            name,
            keys=tuple(map(str, keys)),
            cursor=cursor,
            is_incremental=method not in ("", _FULL_TABLE),
            fields=tuple(properties),
            times=tuple(one for one, schema in properties.items() if _object(schema).get("format")),
            entry={**entry, "replication_method": method or None},
        )

    def _reading(self, catalog: Catalog, is_alone: bool) -> SingerReading:
        return SingerReading(self.program, catalog, self.logger, self._mode)

    def _read_arguments(
        self, catalog: Catalog, state: Mapping[str, Any] | None
    ) -> tuple[list[str], dict[str, Any]]:
        entries = [_selected(one, one.label in catalog) for one in self.catalog.values()]
        files: dict[str, Any] = {"catalog": {"streams": entries}}
        arguments = ["--config", "{config}", "--catalog", "{catalog}"]
        if state:
            files["state"] = state["value"]
            arguments += ["--state", "{state}"]
        return arguments, files

    def _known(self, catalog: Catalog, states: Mapping[str, Any]) -> dict[str, Any] | None:
        if not any(one.is_incremental for one in catalog.values()):
            return None
        part = next(iter(catalog)) if len(catalog) == 1 else ALL_STREAMS
        known = [part] if part in states else [*sorted(set(states) & set(catalog)), ALL_STREAMS]
        values = [_object(states[one].get("value")) for one in known if one in states]
        bookmarks: dict[str, Any] = {}
        for value in values:
            bookmarks |= _object(value.get("bookmarks"))
        if not values:
            return None
        value = {**values[-1], **({"bookmarks": bookmarks} if bookmarks else {})}
        return {"value": value} if value else None


class SingerReading(Reading):
    """Reads what a tap writes."""

    deleted_at = "_sdc_deleted_at"

    def __init__(self, program: str, catalog: Catalog, logger: logging.Logger, mode: str) -> None:
        super().__init__(program, catalog, logger)
        self._mode = mode
        self._value: Any = None
        self._streams: dict[str, Stream | None] = {}
        self._began_anew: set[str] = set()

    @property
    def state(self) -> dict[str, Any] | None:
        """The last state of the tap; None where it reads everything each time."""
        keeps = any(one.is_incremental for one in self._catalog.values())
        return {"value": self._value} if keeps and self._value else None

    def take(self, message: dict[str, Any]) -> None:
        """Takes a message."""
        kind = message["type"]
        if kind == "RECORD":
            name = message["stream"]
            try:
                stream = self._streams[name]
            except KeyError:
                stream = self._streams[name] = self.stream_of(name)
            if stream is not None:
                self.add(stream, message["record"])
        elif kind == "STATE":
            self._value = message["value"]
        elif kind == "SCHEMA":
            self._take_schema(message)
        elif kind == "ACTIVATE_VERSION":
            self._take_version(message["stream"])
        elif kind == "BATCH":
            self.problem = self.problem or (
                "it gives files in place of records (BATCH), which are not read; turn off "
                "batch_config in its configuration"
            )

    def stream_of(self, name: str, namespace: str = "") -> Stream | None:
        """Returns the stream of a record, by its id or by its name in the catalog."""
        for one in self._catalog.values():
            if name in (one.label, one.entry.get("stream")):
                return one
        return super().stream_of(name, namespace)

    def _take_schema(self, message: dict[str, Any]) -> None:
        stream, keys = self.stream_of(message["stream"]), message.get("key_properties") or []
        if stream is not None and keys and tuple(keys) != stream.keys:
            self.log(
                logging.WARNING,
                f"{stream.label} has the key {', '.join(keys)}, and the catalog said "
                f"{', '.join(stream.keys) or 'none'}, which counts; name it with id",
            )

    def _take_version(self, name: str) -> None:
        """Says once that what is gone from a table stays, unless the run is a mirror."""
        if self._mode == "mirror" or name in self._began_anew:
            return
        self._began_anew.add(name)
        self.log(
            logging.WARNING,
            f"{name} is read as a whole table anew (ACTIVATE_VERSION), and documents of rows that "
            "are gone stay; a run with the mode mirror deletes them",
        )


def _selected(stream: Stream, is_selected: bool) -> dict[str, Any]:
    """Returns the entry of a catalog, selected or not, in the ways that taps look at."""
    entry = dict(stream.entry)
    own = {**_own_metadata(entry), "selected": is_selected}
    method = entry.get("replication_method")
    if method:
        own["replication-method"] = method
    if stream.cursor:
        own["replication-key"] = entry["replication_key"] = stream.cursor
    others = [one for one in entry.get("metadata") or () if one.get("breadcrumb")]
    entry["metadata"] = [{"breadcrumb": [], "metadata": own}, *others]
    entry["schema"] = {**_object(entry.get("schema")), "selected": is_selected}
    entry["selected"] = is_selected
    return entry


def _own_metadata(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    for one in entry.get("metadata") or ():
        if not one.get("breadcrumb"):
            return _object(one.get("metadata"))
    return {}


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
