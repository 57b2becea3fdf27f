"""DltConnector: any source of dlt, with its incremental state in the dataset.

A resource is a part of the run, which one worker reads: it makes the source anew, gives it the
state that the last run left, and takes the state from it at the end. dlt's own pipelines,
destinations and working folders are not used.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.identity import jsonable
from contextframe_beam.connectors.loaders.objects import build, find
from contextframe_beam.connectors.page import Page, Partition, Place, Window
from contextframe_beam.connectors.read.reader import READ_ON, PlannedRun
from contextframe_beam.connectors.streams.connector import StreamsConnector
from contextframe_beam.connectors.streams.stream import Stream
from contextframe_beam.errors import ConfigError, ConnectorError, ContextFrameError
from contextframe_beam.frames.record import Deletion, FrameRecord

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from contextframe_beam.connectors.item_columns import ItemColumns
    from contextframe_beam.connectors.mapped import MappingOptions
    from contextframe_beam.frames.columns import FrameColumns

__all__ = ["DltConnector"]

_ITEMS_IN_A_PAGE = 1000
_ROWS_IN_A_PAGE = 20_000
_STATE = "dlt"


class DltConnector(StreamsConnector):
    """A source of dlt: its resources with their keys, cursors and deletions.

    A record's unique_id is the resource and its primary key, as in `issues:42`. Without a usual
    text, the text is its fields, a line each.

    Args:
        source: The function of the source, or a resource, as `package.module:function`. It is
            imported on the workers, too.
        args: Its arguments. An argument may be an object: `{"class": "package.module:Class",
            "args": {...}}`. References to secrets are looked up when the source is made.
        resources: The resources to read; by default those that the source selects.
        **fields: Which field is the text, the title, and so on, as for any `MappedConnector`.

    Raises:
        ConfigError: an argument makes no sense, or dlt is not installed.
    """

    def __init__(
        self,
        source: str,
        args: Mapping[str, Any] | None = None,
        resources: Sequence[str] = (),
        **fields: Unpack[MappingOptions],
    ) -> None:
        super().__init__(**fields)
        if not isinstance(args, Mapping | None):
            raise ConfigError(f"args is a {type(args).__name__}; give an object, as in JSON")
        try:
            import dlt  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                "dlt is not installed; install contextframe-beam with the extra dlt"
            ) from error
        self.source = source
        self.args = dict(args or {})
        self.streams = [resources] if isinstance(resources, str) else list(resources)
        self._found = find(source)

    @property
    def program(self) -> str:
        """The name of the source."""
        return self.source.rpartition(":")[2]

    def authenticate(self) -> bool:
        """Makes the source, and finds its resources.

        Raises:
            ConfigError: there is no such resource, or none that a mapping names.
            ConnectorError: the source cannot be made.
        """
        self.authenticated = bool(self.catalog)
        return True

    def source_identity(self, sync_kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns the class, the source with its arguments, and the resources."""
        identity = super().source_identity(sync_kwargs)
        arguments: dict[str, Any] = {"source": self.source, "args": self.args}
        if self.streams:
            arguments["resources"] = sorted(set(self.streams))
        arguments |= {key: value for key, value in self._stated.items() if key in ("id", "prefix")}
        identity["arguments"] = jsonable(arguments)
        return identity

    def plan(self, run: PlannedRun) -> Iterator[Partition]:
        """Yields a part for each resource.

        Args:
            run: What the run asks for, and what the plan says beside its parts.
        """
        read_on = False
        for label, stream in self.catalog.items():
            known = run.resume_from.get(label)
            state = known.get(_STATE) if isinstance(known, Mapping) else None
            if stream.entry["replaces"]:
                state = None
            read_on = read_on or bool(state)
            yield Partition(label, {"state": state, "stream": stream})
        run.narrowed = READ_ON if read_on else ""

    def read_part(self, partition: Partition, block: int) -> Iterator[Page]:
        """Yields what a resource gives, and at the end its state.

        Raises:
            ConnectorError: it fails.
        """
        from dlt.common import json
        from dlt.common.configuration.container import Container
        from dlt.common.pipeline import StateInjectableContext

        stream: Stream = partition.params["stream"]
        known = partition.params["state"]
        state: Any = json.typed_loads(known) if known else {}
        try:
            with Container().injectable_context(StateInjectableContext(state=state)):
                source = self._made()
                if _is_source(source):
                    source = source.with_resources(stream.name)
                yield from _pages(source, stream)
        except ContextFrameError:
            raise
        except Exception as error:
            first = _first_cause(error)
            told = f"{self.program}, {stream.name}: {type(first).__name__}: {first}"
            raise ConnectorError(secrets.redact(told)) from error
        windows = [Window(stream.label)] if stream.entry["replaces"] else []
        ended = {_STATE: json.typed_dumps(state)} if state or known else None
        yield Page([], state=ended, windows=windows)

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord | Deletion:
        """Turns a record into a frame, as the arguments say."""
        record = super().map_to_frame_record(item)
        stream = self.catalog.get(item.get(self.STREAM, ""))
        if isinstance(record, FrameRecord) and stream is not None and stream.entry["replaces"]:
            record.place = Place(stream.label)
        return record

    def map_columns(self, items: ItemColumns) -> FrameColumns:
        """Turns many records into frames at once, the same as `map_to_frame_record` makes.

        Raises:
            NotByColumns: they have to be mapped one by one.
        """
        from contextframe_beam.frames.columns import NotByColumns

        stream = self.catalog.get(items.common(self.STREAM) or "")
        if stream is None or stream.entry["replaces"]:
            raise NotByColumns
        return super().map_columns(items)

    def _discovered(self) -> list[Stream]:
        source = self._made()
        if not _is_source(source):
            return [_stream_of(source)]
        self._usual = list(source.selected_resources)
        return list(map(_stream_of, source.resources.values()))

    def _made(self) -> Any:
        """Returns the source, made anew: it can be read once.

        Raises:
            ConnectorError: it cannot be made.
        """
        from dlt.extract import DltResource, DltSource

        try:
            made = self._found
            if isinstance(made, DltSource):
                return made.clone()
            made = made(**build(secrets.resolved(self.args)))
        except ContextFrameError:
            raise
        except Exception as error:
            told = f"{self.source} cannot be made: {type(error).__name__}: {error}"
            raise ConnectorError(secrets.redact(told)) from error
        if not isinstance(made, DltSource | DltResource):
            raise ConfigError(
                f"{self.source} gives a {type(made).__name__}; name a function with @dlt.source or "
                "@dlt.resource"
            )
        return made


def _is_source(made: Any) -> bool:
    from dlt.extract import DltSource

    return isinstance(made, DltSource)


def _stream_of(resource: Any) -> Stream:
    """Returns what the hints of a resource say of its records.

    Hints that depend on each record say nothing of all.
    """
    dynamic = resource.has_dynamic_table_name or resource.has_other_dynamic_hints
    schema: Mapping[str, Any] = {} if dynamic else resource.compute_table_schema()
    columns: Mapping[str, Any] = schema.get("columns") or {}

    def with_hint(name: str) -> tuple[str, ...]:
        return tuple(key for key, hints in columns.items() if hints.get(name))

    cursor = _cursor_of(resource)
    gone = with_hint("hard_delete")
    return Stream(
        resource.name,
        keys=with_hint("primary_key") or with_hint("merge_key"),
        cursor=cursor,
        is_incremental=bool(cursor),
        fields=tuple(columns),
        times=tuple(
            key for key, hints in columns.items() if hints.get("data_type") in ("timestamp", "date")
        ),
        entry={
            "replaces": schema.get("write_disposition") == "replace",
            "gone": gone[0] if gone else "",
        },
    )


def _cursor_of(resource: Any) -> str:
    """Returns the field that a resource goes on from; "" without one.

    dlt itself looks for it among the defaults of the function, once that is called.
    """
    from dlt.sources import incremental

    function: Any = getattr(getattr(resource, "_pipe", None), "gen", None)
    try:
        defaults = [one.default for one in inspect.signature(function).parameters.values()]
    except (TypeError, ValueError):  # it is no function
        defaults = []
    given = [resource.incremental, *defaults]
    found = (one.cursor_path for one in given if isinstance(one, incremental))
    return next((path for path in found if isinstance(path, str)), "")


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _pages(source: Any, stream: Stream) -> Iterator[Page]:
    """Yields what a source gives, tables as they are."""
    items: list[Any] = []
    for given in source:
        for one in given if isinstance(given, list) else [given]:
            table = _table_of(one)
            if table is not None:
                yield from _table_pages(table, stream)
                continue
            items.append(_marked(one, stream))
            if len(items) == _ITEMS_IN_A_PAGE:
                yield Page(items)
                items = []
    if items:
        yield Page(items)


def _marked(item: Any, stream: Stream) -> Any:
    """Returns a record with its stream, and whether it is gone."""
    if not isinstance(item, Mapping):
        item = {"value": item}
    marked = {**item, DltConnector.STREAM: stream.label}
    gone = item.get(stream.entry["gone"]) if stream.entry["gone"] else None
    if gone is not None and gone is not False:
        marked[DltConnector.GONE] = True
    return marked


def _table_of(item: Any) -> Any:
    """Returns a table of Arrow or pandas as one of Arrow; None for other items."""
    import pyarrow as pa

    if isinstance(item, pa.Table):
        return item
    if isinstance(item, pa.RecordBatch):
        return pa.Table.from_batches([item])
    if type(item).__module__.partition(".")[0] == "pandas" and type(item).__name__ == "DataFrame":
        return pa.Table.from_pandas(item, preserve_index=False)
    return None


def _table_pages(table: Any, stream: Stream) -> Iterator[Page]:
    """Yields a table, and the records in it that are gone one by one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    gone = stream.entry["gone"]
    if gone in table.column_names:
        column = table.column(gone)
        is_gone = column.is_valid()
        if pa.types.is_boolean(column.type):
            is_gone = pc.fill_null(column, False)
        lost = table.filter(is_gone)
        if lost.num_rows:
            yield Page([_marked(one, stream) for one in lost.to_pylist()])
            table = table.filter(pc.invert(is_gone))
    label = pa.repeat(pa.scalar(stream.label, pa.string()), table.num_rows)
    marked = table.append_column(DltConnector.STREAM, label)
    for start in range(0, table.num_rows, _ROWS_IN_A_PAGE):
        yield Page(table=marked.slice(start, _ROWS_IN_A_PAGE))
