"""AirbyteConnector: any source of Airbyte, as a program, in a container, or as a manifest.

The program is asked for its specification, which says what is secret, and for its catalog. Then it
reads, one process a stream. A stream that can go on where it was keeps its state in the dataset.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from contextframe_beam.connectors.json_files.lines import rows_with_big_integers
from contextframe_beam.connectors.mapped import MappedConnector
from contextframe_beam.connectors.programs.command import Command
from contextframe_beam.connectors.programs.connector import ALL_STREAMS, ProgramConnector
from contextframe_beam.connectors.programs.process import Program
from contextframe_beam.connectors.programs.reading import Reading, messages_in
from contextframe_beam.connectors.programs.settings import (
    read_settings,
    refuse_plain,
    secret_paths,
    store_renewed,
)
from contextframe_beam.connectors.secrets import redact, register_literals
from contextframe_beam.connectors.streams.stream import STREAM_FIELD, Catalog, Stream, cursor_of
from contextframe_beam.errors import ConfigError, ConnectorError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from contextframe_beam.connectors.mapped import MappingOptions

__all__ = ["AirbyteConnector", "AirbyteReading"]

_DECLARATIVE = "source-declarative-manifest"
_INJECTED = "__injected_declarative_manifest"
_LEVELS = dict.fromkeys(("FATAL", "ERROR", "WARN"), logging.WARNING)


class AirbyteConnector(ProgramConnector):
    """Records of any source of Airbyte; each record is a document.

    A unique_id is the stream and the primary key: `users:42`. The text is the first usual field
    (content, text, body, description), or else all fields of the record, a line each.

    Args:
        command: The program, as in `source-faker` or `python -m source_faker`.
        image: In place of it: an image that docker runs, `airbyte/source-postgres:3.6.28`.
        manifest: In place of it: a manifest (YAML) that `source-declarative-manifest` reads. Give
            command as well where that program is not on the PATH.
        config: The configuration of the source: a file of JSON or YAML. Secrets in it are
            references: `env:NAME`, `file:PATH`, `keyring:NAME`, `gcp-secret:...`.
        streams: The streams to read; all by default.
        cursor: The field that grows when a record changes, where the source leaves the choice: one
            name for all streams that have it, or one for each stream, {"users": "updated_at"}.
        together: Read all streams in one process. That is for sources that keep one state for all
            streams, and for those whose refresh token can be used only once.
        **fields: Which field is the text, the title, and so on, as for any `MappedConnector`. A
            mapping file may have one mapping for each stream, and `*` for the others.

    Raises:
        ConfigError: an argument makes no sense, or the configuration holds a secret in plain text.
    """

    def __init__(
        self,
        command: str | None = None,
        image: str | None = None,
        manifest: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        streams: Sequence[str] = (),
        cursor: str | Mapping[str, str] | None = None,
        together: bool = False,
        **fields: Unpack[MappingOptions],
    ) -> None:
        usual = _DECLARATIVE if manifest is not None else ""
        super().__init__(
            Command.of(command, image, usual), config, streams, cursor, together, **fields
        )
        self.manifest = None if manifest is None else Manifest.of(manifest)
        if self.manifest is not None:
            self._travels_with(manifest=self.manifest)

    @property
    def program(self) -> str:
        """The name of the source."""
        return self.command.name if self.manifest is None else self.manifest.name

    def access(self) -> list[str]:
        """Asks the source whether it can connect, and returns its streams, a line each.

        Raises:
            ConnectorError: it cannot.
        """
        for message in self._answers(["check", "--config", "{config}"]):
            status = _object(message.get("connectionStatus"))
            if status and status.get("status") != "SUCCEEDED":
                reason = redact(str(status.get("message") or "it does not say why"))
                raise ConnectorError(f"{self.program} cannot connect: {reason}")
        return super().access()

    def _secrets(self) -> set[tuple[str, ...]] | None:
        """Returns which fields of the configuration are secrets; None where only names tell."""
        if self.manifest is not None:
            schema = _object(self.manifest.get("spec")).get("connection_specification")
            return None if schema is None else secret_paths(schema)
        for message in self._answers(["spec"]):
            spec = message.get("spec")
            if message.get("type") == "SPEC" and isinstance(spec, Mapping):
                return secret_paths(spec.get("connectionSpecification"))
        raise ConnectorError(
            f"{self.program} gives no specification, so it is no source of Airbyte; check the "
            "command"
        )

    def _discovered(self) -> list[Stream]:
        for message in self._answers(["discover", "--config", "{config}"]):
            catalog = message.get("catalog")
            if message.get("type") == "CATALOG" and isinstance(catalog, Mapping):
                return [self._stream(one) for one in catalog.get("streams") or ()]
        raise ConnectorError(f"{self.program} gives no catalog of its streams")

    def _stream(self, entry: Mapping[str, Any]) -> Stream:
        name, namespace = str(entry["name"]), str(entry.get("namespace") or "")
        properties = _object(_object(entry.get("json_schema")).get("properties"))
        label = f"{namespace}.{name}" if namespace else name
        modes = entry.get("supported_sync_modes") or ["full_refresh"]
        default = ".".join(map(str, entry.get("default_cursor_field") or ()))
        cursor = cursor_of(self.cursor, name, label, list(properties))
        is_defined = bool(entry.get("source_defined_cursor"))
        cursor = default if is_defined or not cursor else cursor
        keys = entry.get("source_defined_primary_key") or ()
        return Stream(
            name,
            namespace,
            tuple(".".join(map(str, path)) for path in keys),
            cursor,
            "incremental" in modes and (is_defined or bool(cursor)),
            tuple(properties),
            tuple(one for one, schema in properties.items() if _is_time(schema)),
            dict(entry),
        )

    def _config(self) -> dict[str, Any]:
        config = super()._config()
        return config if self.manifest is None else {**config, _INJECTED: self.manifest}

    def _reading(self, catalog: Catalog, is_alone: bool) -> AirbyteReading:
        return AirbyteReading(self.program, catalog, self.logger, is_alone, self._renewed)

    def _read_arguments(
        self, catalog: Catalog, state: Mapping[str, Any] | None
    ) -> tuple[list[str], dict[str, Any]]:
        configured = [
            {
                "stream": one.entry,
                "sync_mode": "incremental" if one.is_incremental else "full_refresh",
                "destination_sync_mode": "append_dedup" if one.keys else "append",
                "cursor_field": one.cursor.split(".") if one.cursor else [],
                "primary_key": [key.split(".") for key in one.keys],
            }
            for one in catalog.values()
        ]
        files: dict[str, Any] = {"catalog": {"streams": configured}}
        arguments = ["read", "--config", "{config}", "--catalog", "{catalog}"]
        if state:
            files["state"] = _state_messages(catalog, state)
            arguments += ["--state", "{state}"]
        return arguments, files

    def _known(self, catalog: Catalog, states: Mapping[str, Any]) -> dict[str, Any] | None:
        if not any(one.is_incremental for one in catalog.values()):
            return None
        own = states.get(next(iter(catalog)) if len(catalog) == 1 else ALL_STREAMS)
        if own and own.get("kind") == "LEGACY":
            return dict(own)
        shared = [one for one in states.values() if one.get("kind") == "GLOBAL"]
        if shared:
            return dict(shared[0])
        streams: dict[str, Any] = {}
        for part in sorted(states, key=ALL_STREAMS.__eq__):
            streams |= _object(states[part].get("streams"))
        found = {
            label: streams[label]
            for label, one in catalog.items()
            if one.is_incremental and label in streams
        }
        return {"kind": "STREAM", "streams": found} if found else None

    def _is_shared(self, states: Mapping[str, Any]) -> bool:
        return any(one.get("kind") == "GLOBAL" for one in states.values())

    def merge_states(self, states: Mapping[str, Any]) -> dict[str, Any]:
        """Returns one state for each stream, whatever processes read them."""
        if any(one.get("kind") != "STREAM" for one in states.values()):
            return dict(states)
        found: dict[str, Any] = {}
        # Those of one process for all streams are newer than those that they were made of.
        for part in sorted(states, key=ALL_STREAMS.__eq__):
            for label, state in _object(states[part].get("streams")).items():
                found[label] = {"kind": "STREAM", "streams": {label: state}}
        return found

    def _answers(self, arguments: list[str]) -> Iterator[dict[str, Any]]:
        """Yields the messages of a program that answers one question.

        Raises:
            ConnectorError: it fails.
        """
        files = {"config": self._config()} if "{config}" in arguments else {}
        reading = AirbyteReading(self.program, Catalog(), self.logger, True, self._renewed)
        kept: list[dict[str, Any]] = []
        with Program(self.command, arguments, files, self.logger) as program:
            for block in program.blocks():
                for message in messages_in(block):
                    if isinstance(message, dict) and message.get("type") in _ANSWERS:
                        kept.append(message)
                    else:
                        reading.take_one(message)
            # A source that cannot connect may end with a code although it says so.
            if not any(one["type"] == "CONNECTION_STATUS" for one in kept):
                reading.require_success(program)
        yield from kept

    def _renewed(self, told: Mapping[str, Any]) -> None:
        told = {name: value for name, value in told.items() if name != _INJECTED}
        store_renewed(self.config, self._config(), told, self.logger)

    def _refuse_plain(self) -> None:
        refuse_plain(self.config, self._secrets())


class Manifest(dict[str, Any]):
    """A declarative source.

    Attributes:
        name: What it is called, by its file.
    """

    name = _DECLARATIVE

    @classmethod
    def of(cls, given: str | os.PathLike[str] | Mapping[str, Any]) -> Manifest:
        """Reads it.

        Raises:
            ConfigError: it cannot be read.
        """
        if isinstance(given, cls):
            return given
        found = cls(read_settings(given, "the manifest"))
        if not isinstance(given, Mapping):
            path = Path(given).expanduser().resolve()
            found.name = path.parent.name if path.stem == "manifest" else path.stem
        return found


class AirbyteReading(Reading):
    """Reads what a source of Airbyte writes."""

    deleted_at = "_ab_cdc_deleted_at"

    def __init__(
        self,
        program: str,
        catalog: Catalog,
        logger: logging.Logger,
        is_alone: bool,
        renewed: Any,
    ) -> None:
        super().__init__(program, catalog, logger)
        self._is_alone = is_alone
        self._renewed = renewed
        self._state: dict[str, Any] = {}
        self._names: dict[tuple[str, str | None], str] = {}

    @property
    def state(self) -> dict[str, Any] | None:
        """The last state of each stream that keeps one."""
        return self._state or None

    def take_lines(self, block: bytes) -> None:
        """Takes the lines of a block."""
        rows = block.split(b"\n")
        if rows_with_big_integers(block, rows):
            super().take_lines(block)
            return
        # One loop without calls, which forgets each message before the next: it runs for every
        # record, and what is no plain record goes the longer way.
        known, names, count = self._items, self._names, 0
        for row in rows:
            try:
                message = orjson.loads(row)
                if message["type"] == "RECORD":
                    record = message["record"]
                    label = names[record["stream"], record.get("namespace")]
                    data = record["data"]
                    data[STREAM_FIELD] = label
                    if data.get(self.deleted_at):
                        data[MappedConnector.GONE] = True
                    known[label].append(data)
                    count += 1
                    continue
            except (ValueError, KeyError, TypeError, AttributeError):
                pass  # the first of its stream, or no record
            super().take_lines(row)
        self._held += count

    def take(self, message: dict[str, Any]) -> None:
        """Takes a message."""
        kind = message["type"]
        if kind == "RECORD":
            record = message["record"]
            stream = self.stream_of(record["stream"], record.get("namespace") or "")
            if stream is not None:
                self._names[record["stream"], record.get("namespace")] = stream.label
                self.add(stream, record["data"])
        elif kind == "STATE":
            self._take_state(message["state"])
        elif kind == "LOG":
            log = message["log"]
            level = _LEVELS.get(log.get("level"), logging.INFO)
            self.log(level, log.get("message"))
        elif kind == "TRACE":
            self._take_trace(message["trace"])
        elif kind == "CONTROL":
            # It holds the configuration: it goes nowhere else.
            config = _object(_object(message.get("control")).get("connectorConfig")).get("config")
            if isinstance(config, Mapping):
                register_literals(dict(config))
                self._renewed(config)

    def _take_trace(self, trace: dict[str, Any]) -> None:
        if trace.get("type") == "ERROR":
            error = _object(trace.get("error"))
            told = [str(error[key]) for key in ("message", "internal_message") if error.get(key)]
            self.problem = self.problem or ": ".join(dict.fromkeys(told)) or "it does not say why"
            return
        status = _object(trace.get("stream_status"))
        if status.get("status") == "INCOMPLETE" and not self.problem:
            name = _object(status.get("stream_descriptor")).get("name")
            self._incomplete = f"the stream {name} is incomplete"
            reasons = [str(_object(one).get("type")) for one in status.get("reasons") or ()]
            if reasons:
                self._incomplete += f" ({', '.join(reasons)})"

    _incomplete = ""

    def require_success(self, program: Program) -> None:
        """Waits for the end of the source, and refuses a stream that is not complete."""
        # The reason may come after it.
        self.problem = self.problem or self._incomplete
        super().require_success(program)

    def _take_state(self, state: dict[str, Any]) -> None:
        kind = state.get("type") or "LEGACY"
        if kind == "LEGACY":
            self._state = {"kind": "LEGACY", "data": state["data"]}
        elif kind == "STREAM":
            found = self._stream_state(state["stream"])
            if found is not None:
                known = self._state.get("streams", {})
                self._state = {"kind": "STREAM", "streams": {**known, found[0]: found[1]}}
        elif kind == "GLOBAL":
            if not self._is_alone:
                raise ConfigError(
                    f"{self._name} keeps one state for all its streams, so one process has to read "
                    "them: give together=True"
                )
            told = state["global"]
            found_ones = filter(None, map(self._stream_state, told.get("stream_states") or ()))
            streams = dict(found_ones)
            self._state = {
                "kind": "GLOBAL",
                "shared": told.get("shared_state"),
                "streams": streams,
            }

    def _stream_state(self, told: dict[str, Any]) -> tuple[str, Any] | None:
        """Returns the state of a stream that goes on where it was; None for others."""
        descriptor = told["stream_descriptor"]
        stream = self._catalog.find(descriptor["name"], descriptor.get("namespace") or "")
        if stream is None or not stream.is_incremental:
            return None
        return stream.label, told.get("stream_state") or {}


_ANSWERS = ("SPEC", "CATALOG", "CONNECTION_STATUS")


def _state_messages(catalog: Catalog, state: Mapping[str, Any]) -> Any:
    """Returns a state as the source reads it."""
    if state["kind"] == "LEGACY":
        return state["data"]
    streams = [
        {
            "stream_descriptor": {
                "name": catalog[label].name,
                **({"namespace": catalog[label].namespace} if catalog[label].namespace else {}),
            },
            "stream_state": told,
        }
        for label, told in state["streams"].items()
        if label in catalog
    ]
    if state["kind"] == "GLOBAL":
        told = {"shared_state": state.get("shared"), "stream_states": streams}
        return [{"type": "GLOBAL", "global": told}]
    return [{"type": "STREAM", "stream": one} for one in streams]


def _is_time(schema: Any) -> bool:
    return _object(schema).get("format") in ("date-time", "date")


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
