"""Our transforms for Beam YAML; `templates/beam_yaml/providers.yaml` names them.

Rows with a schema go in and out, so that Beam's stock transforms can go in between. A run is still
one transaction with its state, its dead letters and its receipt. If a stock transform drops rows,
that is on purpose.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, fields
from typing import Any, TypeVar, get_type_hints

import apache_beam as beam
from apache_beam.typehints.row_type import RowTypeConstraint

from contextframe_beam import transforms
from contextframe_beam.connectors import registry
from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.cursors import Bounds
from contextframe_beam.connectors.mapper import FieldMapper
from contextframe_beam.connectors.page import Page, SourceInfo
from contextframe_beam.connectors.read import transform
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.errors import ConcurrentRunError, ConfigError
from contextframe_beam.pipelines.job import (
    default_dead_letters,
    parameters,
    parsing_of,
    settings,
    with_arguments,
)
from contextframe_beam.pipelines.yaml import rows as _yaml_rows
from contextframe_beam.pipelines.yaml.batches import (
    PagesOfRowsDoFn,
    ReadSource,
    batches_behind,
    frames_of,
    origins_above,
    sources_above,
    with_rows,
)
from contextframe_beam.store.address import Address
from contextframe_beam.store.files import open_dataset
from contextframe_beam.store.runs import check_run_id, new_run_id
from contextframe_beam.store.state import read_states, state_of
from contextframe_beam.transforms.enrich import load_enrichers

T = TypeVar("T")


def ReadFromConnector(
    connector: str,
    arguments: Mapping[str, Any] | None = None,
    reading: Mapping[str, Any] | None = None,
    fields: Mapping[str, str] | None = None,
    resume_from: str | None = None,
    bounds: Mapping[str, str] | None = None,
    error_handling: Mapping[str, Any] | None = None,
) -> beam.PTransform[Any, Any]:
    """Reads any connector; its rows have the columns source, partition, position and item (JSON).

    Args:
        connector: A registered name, `package.module:Class` or `path/to/file.py:Class`.
        arguments: The connector's arguments, with secrets as references such as `env:TOKEN`.
        reading: The arguments of its `sync_documents`.
        fields: Fields of the item that become separate columns, with their types: string, integer,
            number or boolean.
        resume_from: The dataset that the run writes; read what changed since its last run.
        bounds: The range of time to read, `{since: ..., until: ..., slice: 1d}`; the run then does
            not move the state.
        error_handling: `{output: NAME}` outputs failed items as rows; otherwise WriteToLance gets
            them.
    """
    cls = registry.load_connector_class(connector)
    made = registry.build_connector(cls, dict(arguments or {}))
    range_of_time = Bounds.of(**bounds) if bounds else None
    return _Read(
        made, dict(reading or {}), dict(fields or {}), resume_from, range_of_time, error_handling
    )


def ReadFromJson(
    fields: Mapping[str, str] | None = None,
    resume_from: str | None = None,
    error_handling: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> beam.PTransform[Any, Any]:
    """Reads JSON and JSON Lines files, with the arguments of the connector `json`."""
    return ReadFromConnector("json", arguments, None, fields, resume_from, None, error_handling)


def ReadFromApi(
    fields: Mapping[str, str] | None = None,
    resume_from: str | None = None,
    bounds: Mapping[str, str] | None = None,
    error_handling: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> beam.PTransform[Any, Any]:
    """Reads an HTTP API, with the arguments of the connector `api`, such as `config`."""
    return ReadFromConnector("api", arguments, None, fields, resume_from, bounds, error_handling)


class _Read(beam.PTransform[Any, Any]):
    def __init__(
        self,
        connector: BaseConnector,
        reading: dict[str, Any],
        columns: dict[str, str],
        resume_from: str | None,
        bounds: Bounds | None,
        error_handling: Mapping[str, Any] | None,
    ) -> None:
        super().__init__()
        info = Source(connector, reading, bounds=bounds).info
        state = None
        if resume_from is not None:
            state = _state_in(open_dataset(Address(resume_from)), info)
        self._read = transform.ReadFromConnector(
            connector, resume_from=state, bounds=bounds, **reading
        )
        resumed = (resume_from, state) if resume_from is not None and state else None
        self._source = ReadSource(info, connector, resumed)
        self._columns = columns
        self._type = _yaml_rows.row_type(_yaml_rows.ORIGIN, columns)
        self._errors = _error_output(error_handling)

    def default_label(self) -> str:
        return f"Read({self._source.info.name})"

    def expand(self, pbegin: beam.pvalue.PBegin) -> Any:
        pages = pbegin | "Pages" >> self._read
        return with_rows(pages, self._type, self._columns, (self._source,), False, self._errors)


def _with_settings(of: Sequence[Field[Any]], keeps_others: bool) -> Callable[[type[T]], type[T]]:
    """Gives a transform whose constructor takes any settings their names and texts.

    Args:
        of: The settings.
        keeps_others: Whether it takes arguments of other names as well.
    """

    def decorated(cls: type[T]) -> type[T]:
        signature = inspect.signature(cls.__init__)
        given = list(signature.parameters.values())
        own = [one for one in given if one.kind is not one.VAR_KEYWORD]
        others = [one for one in given if one.kind is one.VAR_KEYWORD and keeps_others]
        vars(cls.__init__)["__signature__"] = signature.replace(
            parameters=[*own, *parameters(of), *others]
        )
        cls.__doc__ = with_arguments(cls.__doc__ or "", of)
        return cls

    return decorated


@_with_settings(settings(for_files=True), keeps_others=True)
class MapToFrames(beam.PTransform[Any, Any]):
    """Turns the items of a source, or any rows, into frames.

    Without arguments, the connector maps its items, and other rows are mapped by the usual names of
    their columns. With arguments, `FieldMapper` maps them; see its documentation.

    Args:
        fields: Names of the metadata that become columns of their own, with their types.
        error_handling: `{output: NAME}` gives failed items as rows instead of to WriteToLance.
        {settings}
        **mapping: `id`, `title`, `text`, `timestamp`, `prefix`, `metadata`, ... of FieldMapper.
    """

    def __init__(
        self,
        fields: Mapping[str, str] | None = None,
        error_handling: Mapping[str, Any] | None = None,
        **mapping: Any,
    ) -> None:
        super().__init__()
        self._columns = dict(fields or {})
        self._type = _yaml_rows.row_type({**_yaml_rows.ORIGIN, **_yaml_rows.FRAME}, self._columns)
        self._errors = _error_output(error_handling)
        of_files = [one.name for one in settings(for_files=True) if one.name in mapping]
        self._parsing = parsing_of(**{name: mapping.pop(name) for name in of_files})
        try:
            self._mapper = FieldMapper(**_tuples(mapping)) if mapping else None
        except TypeError as error:
            raise ConfigError(f"MapToFrames: {error}") from error

    def expand(self, given: beam.PCollection[Any]) -> Any:
        if any(origin.is_mapped for origin in origins_above(given)):
            raise ConfigError("MapToFrames is given frames already; take one of the two out")
        sources = sources_above(given)
        mapper = self._mapper or _only_connector(sources) or FieldMapper()
        pages = batches_behind(given, PagesOfRowsDoFn, Page)
        frames = pages | "Map" >> transforms.MapToFrames(mapper, self._parsing)
        return with_rows(frames, self._type, self._columns, sources, True, self._errors)


class Enrich(beam.PTransform[Any, Any]):
    """Passes each frame through enrichers.

    Args:
        enrichers: `keywords`, `package.module:Class` or `path/to/file.py:Class`, in order.
        fields: Names of the metadata that become columns of their own, with their types.
        error_handling: `{output: NAME}` gives failed items as rows instead of to WriteToLance.
    """

    def __init__(
        self,
        enrichers: Sequence[str],
        fields: Mapping[str, str] | None = None,
        error_handling: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._enrich = transforms.Enrich(load_enrichers(enrichers))
        self._columns = dict(fields or {})
        self._type = _yaml_rows.row_type({**_yaml_rows.ORIGIN, **_yaml_rows.FRAME}, self._columns)
        self._errors = _error_output(error_handling)

    def expand(self, given: beam.PCollection[Any]) -> Any:
        frames = frames_of(given, "Enrich") | "Enrich" >> self._enrich
        sources = sources_above(given)
        return with_rows(frames, self._type, self._columns, sources, True, self._errors)


@_with_settings(settings(in_sink=True), keeps_others=False)
class WriteToLance(beam.PTransform[Any, Any]):
    """Commits frames to a Lance dataset, with the state and the dead letters of their sources.

    It outputs one row, the receipt. It accepts rows with any schema: `unique_id`, `text_content`
    and the other columns of a frame keep their meaning, and all others become metadata.

    Args:
        uri: The dataset; made if there is none.
        {settings}
    """

    def __init__(self, uri: str, **settings: Any) -> None:
        super().__init__()
        check_run_id(settings.get("run_id"))
        run_id = settings.get("run_id") or new_run_id()
        letters = settings.get("dead_letters") or default_dead_letters(uri, run_id)
        self._uri = uri
        self._sink = transforms.WriteToLance(
            uri, **{**settings, "run_id": run_id, "dead_letters": letters}
        )

    def expand(self, given: beam.PCollection[Any]) -> beam.PCollection[Any]:
        self._check(sources_above(given))
        receipts = frames_of(given, "WriteToLance") | "Write" >> self._sink
        hints = get_type_hints(transforms.CommitReceipt)
        columns = [
            (one.name, Sequence[str] if isinstance(one.default, tuple) else hints[one.name])
            for one in fields(transforms.CommitReceipt)
        ]
        rows: beam.PCollection[Any] = receipts | "Receipt" >> beam.Map(
            _row_of_receipt
        ).with_output_types(RowTypeConstraint.from_fields(columns))
        return rows

    def _check(self, sources: Iterable[ReadSource]) -> None:
        for source in sources:
            if source.resumed is None:
                continue
            mode = self._sink.mode
            if mode.reads_all:
                raise ConfigError(
                    f"WriteToLance in the mode {mode} needs all of {source.info.name}, which is "
                    "read from where its last run ended, so older documents would be lost; remove "
                    "resume_from, or choose the mode upsert"
                )
            dataset, state = source.resumed
            met = open_dataset(Address(dataset))
            if dataset == self._uri and _state_in(met, source.info) != state:
                raise ConcurrentRunError(
                    f"another run of {source.info.name} was committed to {dataset} while this one "
                    "began; nothing was committed, run it again"
                )


def _row_of_receipt(receipt: transforms.CommitReceipt) -> beam.Row:
    values = {one.name: getattr(receipt, one.name) for one in fields(receipt)}
    return beam.Row(
        **{
            name: list(map(str, value)) if isinstance(value, tuple) else value
            for name, value in values.items()
        }
    )


def _state_in(dataset: Any, info: SourceInfo) -> dict[str, Any] | None:
    if dataset is None:
        return None
    state = state_of(read_states(dataset), info.source_id, info.identity, info.by_partition)
    return dict(state.partitions) if state else None


def _tuples(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in mapping.items()}


def _error_output(error_handling: Mapping[str, Any] | None) -> str | None:
    if error_handling is None:
        return None
    if set(error_handling) != {"output"}:
        raise ConfigError("error_handling takes one thing: output, the name of the failed items")
    return str(error_handling["output"])


def _only_connector(sources: Sequence[ReadSource]) -> BaseConnector | None:
    if len(sources) > 1:
        names = ", ".join(source.info.name for source in sources)
        raise ConfigError(
            f"MapToFrames is given items of several sources ({names}); map each of them before "
            "they are flattened, or say here what is where"
        )
    return sources[0].connector if sources else None
