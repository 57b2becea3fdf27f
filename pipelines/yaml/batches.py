"""Passes batches between our YAML transforms, and rows through stock transforms.

Dead letters, the sync state and the count of finished parts do not fit into rows. They bypass the
stock transforms as batches without records. Our next transform finds them by walking up the
pipeline, so that nothing is lost and the run stays one transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pipeline import PipelineVisitor
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.page import DeadLetter, Page, SourceInfo, Tally
from contextframe_beam.errors import ConfigError, RecordError
from contextframe_beam.frames.record import FrameRecord
from contextframe_beam.pipelines.yaml import rows as _yaml_rows
from contextframe_beam.transforms.elements import FrameBatch, in_global_window, letter_of
from contextframe_beam.transforms.map import map_page

_ROWS_AT_ONCE = 1000
_REST = "rest"
_ERRORS = "errors"


class Failure(NamedTuple):
    """A failed item, as `error_handling` outputs it: Beam's columns, and its position."""

    element: str
    msg: str
    stack: str
    stage: str
    connector: str
    partition: str
    position: str
    time: str


@dataclass(frozen=True)
class ReadSource:
    """A source that a pipeline reads.

    Attributes:
        info: The identity of the source.
        connector: The connector that reads it.
        resumed: The dataset with the state that the run continues from, and that state.
    """

    info: SourceInfo
    connector: BaseConnector
    resumed: tuple[str, Mapping[str, Any]] | None = None


@dataclass(eq=False)
class _Origin:
    """The batches and sources of the rows from one of our transforms.

    Attributes:
        batches: The batches of the rows, with the bookkeeping of the run.
        rest: The batches without their records: only the bookkeeping.
        to_rows: Makes the rows.
        guard: Fails the run if nothing in the pipeline takes the failures in `rest`.
        sources: The sources that are read.
        is_mapped: Whether the batches contain records; otherwise they are pages.
    """

    batches: Any
    rest: Any
    to_rows: _ToRowsDoFn
    guard: _GuardDoFn
    sources: tuple[ReadSource, ...]
    is_mapped: bool


def origin_of(rows: Any) -> _Origin | None:
    """Returns the origin of rows from one of our transforms; None for other rows."""
    origin: _Origin | None = getattr(rows, "_contextframe_origin", None)
    return origin


def origins_above(rows: Any) -> list[_Origin]:
    """Returns the nearest of our transforms on each way up, each once."""
    found: dict[_Origin, None] = {}
    seen: set[Any] = set()
    waiting = [rows]
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        origin = origin_of(one)
        if origin is not None:
            found[origin] = None
        elif getattr(one, "producer", None) is not None:
            sides = (side.pvalue for side in one.producer.side_inputs)
            waiting += [*one.producer.inputs, *sides]
    return list(found)


def sources_above(rows: Any) -> tuple[ReadSource, ...]:
    """Returns the sources that rows may come from."""
    sources = {one.info.source_id: one for o in origins_above(rows) for one in o.sources}
    return tuple(sources.values())


def frames_of(given: Any, whose: str) -> Any:
    """Returns the frames of rows as batches.

    Raises:
        ConfigError: they are items that did not pass a MapToFrames.
    """
    origin = origin_of(given)
    if origin is not None and not origin.is_mapped:
        raise ConfigError(f"{whose} is given items of a source; put MapToFrames before it")
    return batches_behind(given, FramesOfRowsDoFn, FrameBatch)


def batches_behind(given: Any, from_rows: type[FromRowsDoFn], kind: type) -> Any:
    """Returns the batches of rows, or makes them from the rows and the bookkeeping beside them."""
    origins = origins_above(given)
    for above in origins:
        above.guard.is_relieved = True
    origin = origin_of(given)
    if origin is not None:
        return origin.batches
    if not given.windowing.is_default():
        # Batches of rows are made for the whole run, regardless of a stock transform's windows.
        given = given | "OneWindow" >> beam.WindowInto(GlobalWindows())
    for above in origins:
        above.to_rows.is_rest_taken = True
    infos = {one.info.source_id: one.info for one in sources_above(given)}
    counted = {one.info.source_id for above in origins if above.is_mapped for one in above.sources}
    batches = given | "FromRows" >> beam.ParDo(from_rows(infos, counted)).with_output_types(kind)
    if not origins:
        return batches
    rests = [
        above.rest | f"Rest{number}" >> beam.Map(_rest_as, kind).with_output_types(kind)
        for number, above in enumerate(origins)
    ]
    return [batches, *rests] | "WithRest" >> beam.Flatten()


def _rest_as(rest: Page | FrameBatch, kind: type) -> Page | FrameBatch:
    # It has no items, so the mapper is not called.
    return map_page(rest, _same) if isinstance(rest, Page) and kind is FrameBatch else rest


def with_rows(
    batches: Any,
    row_type: Any,
    columns: dict[str, str],
    sources: tuple[ReadSource, ...],
    is_mapped: bool,
    errors: str | None,
) -> Any:
    """Returns batches as rows, and records where our next transform can find the batches."""
    kind = FrameBatch if is_mapped else Page
    failures = None
    if errors is not None:
        split = batches | "TakeErrors" >> beam.ParDo(_TakeErrorsDoFn()).with_outputs(
            _ERRORS, main="batches"
        )
        failures = split[_ERRORS] | "Errors" >> beam.Map(_same).with_output_types(Failure)
        batches = split.batches | "Batches" >> beam.Map(_same).with_output_types(kind)
    to_rows = _RowsParDo(_ToRowsDoFn(columns))
    out = batches | "ToRows" >> to_rows.with_outputs(_REST, main="rows")
    rows, rest = out.rows, out[_REST]
    rows.element_type, rest.element_type = row_type, kind
    to_rows.rows = rows
    guarding = beam.ParDo(_GuardDoFn())
    rest | "Guard" >> guarding
    rows._contextframe_origin = _Origin(batches, rest, to_rows.fn, guarding.fn, sources, is_mapped)
    return rows if errors is None else {"good": rows, errors: failures}


def _same(value: Any) -> Any:
    return value


class _RowsParDo(beam.ParDo):
    """Makes rows only if a transform takes them."""

    rows: Any = None

    def to_runner_api_parameter(  # type: ignore[override]  # as ParDo has it, unlike its base
        self, context: Any, **more: Any
    ) -> Any:
        consumers = _Consumers(self.rows)
        self.rows.pipeline.visit(consumers)
        self.fn.is_wanted = consumers.found
        return super().to_runner_api_parameter(context, **more)


class _Consumers(PipelineVisitor):
    def __init__(self, rows: Any) -> None:
        self._rows = rows
        self.found = False

    def visit_transform(self, node: Any) -> None:
        self.found = self.found or self._rows in (
            *node.inputs,
            *(s.pvalue for s in node.side_inputs),
        )


class _ToRowsDoFn(beam.DoFn):
    """Splits a batch into its rows and the rest, which does not fit into rows."""

    def __init__(self, columns: dict[str, str]) -> None:
        self._columns = columns
        self.is_wanted = True
        self.is_rest_taken = False

    def process(self, batch: Page | FrameBatch) -> Iterator[Any]:
        if isinstance(batch, Page):
            rest: Page | FrameBatch = batch.copy(
                items=[], table=None, failures=list(batch.failures)
            )
            pairs: Iterable[tuple[Any, Any]] = ((item, item) for item in batch.items)
        else:
            rest = replace(batch, records=[], items=[], failures=list(batch.failures))
            pairs = zip(batch.records, batch.items, strict=True)
        if self.is_wanted:
            yield from self._rows(batch, rest, pairs)
        yield beam.pvalue.TaggedOutput(_REST, rest)

    def _rows(self, batch: Page | FrameBatch, rest: Any, pairs: Iterable[tuple[Any, Any]]) -> Any:
        origin = {
            "source": batch.source.source_id if batch.source else None,
            "partition": batch.partition,
            "position": batch.position,
        }
        for index, (value, item) in enumerate(pairs):
            try:
                if isinstance(value, FrameRecord):
                    row = _yaml_rows.row_of_record(value, item, origin, self._columns)
                else:
                    row = _yaml_rows.row_of_item(item, origin, self._columns)
            except RecordError as error:
                if not self.is_rest_taken:
                    raise
                rest.failures.append(letter_of("encode", error, item, batch, index))
            else:
                yield row


class _GuardDoFn(beam.DoFn):
    """Fails the run for failed items that neither a WriteToLance nor an error output takes."""

    def __init__(self) -> None:
        self.is_relieved = False

    def process(self, rest: Page | FrameBatch) -> Iterable[Any]:
        if rest.failures and not self.is_relieved:
            first = rest.failures[0]
            raise ConfigError(
                f"an item of {first.connector} failed at the stage {first.stage} "
                f"({first.position}: {first.message}), and nothing in this pipeline takes failed "
                "items: end it in WriteToLance, or give error_handling: {output: NAME}"
            )
        return ()


class _TakeErrorsDoFn(beam.DoFn):
    def process(self, batch: Page | FrameBatch) -> Iterator[Any]:
        for letter in batch.failures:
            yield beam.pvalue.TaggedOutput(_ERRORS, _failure(letter))
        yield replace(batch, failures=[]) if batch.failures else batch


def _failure(letter: DeadLetter) -> Failure:
    return Failure(
        json.dumps(letter.item),
        letter.message,
        letter.traceback,
        letter.stage,
        letter.connector,
        letter.partition,
        letter.position,
        letter.time,
    )


class FromRowsDoFn(beam.DoFn):
    """Collects rows into batches, one for each source in a bundle."""

    def __init__(self, infos: dict[str, SourceInfo], counted: set[str]) -> None:
        self._infos = infos
        self._counted = counted

    def start_bundle(self) -> None:
        self._rows: dict[str, list[Any]] = {}

    def process(self, row: Any) -> Iterator[Any]:
        source = getattr(row, "source", None)
        if source not in self._infos:
            # A stock transform dropped the column; with one source above, the source is clear.
            source = next(iter(self._infos)) if len(self._infos) == 1 else ""
        rows = self._rows.setdefault(source, [])
        rows.append(row)
        if len(rows) >= _ROWS_AT_ONCE:
            yield self._batch(source)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for source in list(self._rows):
            yield in_global_window(self._batch(source))

    def _batch(self, source: str) -> Any:
        rows = self._rows.pop(source)
        # When frames became rows, their count stayed with the rest.
        return self._made(
            rows, self._infos.get(source), 0 if source in self._counted else len(rows)
        )

    def _made(self, rows: list[Any], info: SourceInfo | None, read: int) -> Any:
        raise NotImplementedError


class PagesOfRowsDoFn(FromRowsDoFn):
    """Turns rows of items back into pages."""

    def _made(self, rows: list[Any], info: SourceInfo | None, read: int) -> Page:
        page = Page(items=[], source=info)
        for row in rows:
            try:
                page.items.append(_yaml_rows.item_of_row(row))
            except RecordError as error:
                page.failures.append(_row_letter(error, row))
        return page


class FramesOfRowsDoFn(FromRowsDoFn):
    """Turns rows of records back into batches of frames."""

    def _made(self, rows: list[Any], info: SourceInfo | None, read: int) -> FrameBatch:
        batch = FrameBatch([], [], tally=Tally(info, read=read))
        for row in rows:
            try:
                text = getattr(row, "item", None)
                record = _yaml_rows.record_of_row(row)
                batch.items.append(None if text is None else _yaml_rows.item_of_text(text))
                batch.records.append(record)
            except RecordError as error:
                batch.failures.append(_row_letter(error, row))
        return batch


def _row_letter(error: Exception, row: Any) -> DeadLetter:
    partition, position = getattr(row, "partition", ""), getattr(row, "position", "")
    return DeadLetter.of(
        "encode", error, _yaml_rows.values_of(row), "", str(partition), str(position)
    )
