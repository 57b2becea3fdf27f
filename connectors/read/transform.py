"""ReadFromConnector: the Beam source that reads any connector.

A Splittable DoFn reads the blocks of a plan. Only the plan crosses a shuffle. The DoFn never
checkpoints itself, because the in-process runner loses deferred work if it has several workers.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam import coders
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import DirectOptions
from apache_beam.transforms.core import RestrictionProvider

from contextframe_beam.connectors.base import BaseConnector, require_connector
from contextframe_beam.connectors.cursors import Bounds
from contextframe_beam.connectors.page import Page, SourceInfo
from contextframe_beam.connectors.read import runtime
from contextframe_beam.connectors.read.runtime import live_connector
from contextframe_beam.connectors.read.source import Chosen, PlanChunk, Source
from contextframe_beam.errors import ConfigError

_LOCAL_RUNNERS = ("BundleBasedDirectRunner", "DirectRunner", "FnApiRunner", "SwitchingDirectRunner")

# The number of workers that we expect in a cluster. Its runner splits further if needed.
_WORKERS_OF_A_CLUSTER = 16


class ReadFromConnector(beam.PTransform[beam.pvalue.PBegin, beam.PCollection[Page]]):
    """Reads a connector the best way it can be read, in parallel where it allows.

    Pages of one partition that one worker reads come in order. A permanent error fails the
    pipeline. Single items that fail travel in their page as `failures`.

    Args:
        connector: What to read. It is sent to the workers as its class and arguments, and
            authenticates there.
        full_sync: Read everything, even if the connector could read only changes.
        resume_from: The states that the last run reached, by the id of the partition.
        bounds: The range of time to read, `Bounds.of(since="2026-01-01", slice="1d")`. The run then
            moves a state only if a run without bounds would not have read more.
        chosen: Read only these parts of an earlier plan.
        made_with: What documents are made with. A connector that leaves out what is known does not
            leave out what was made with something else.
        anew: Whether to make all documents again, also of what has not changed.
        **sync_kwargs: The arguments of the connector's `sync_documents`.

    Returns:
        A PCollection of `Page`; one of them is empty and has the number of planned blocks.

    Raises:
        ConfigError: the connector cannot be read with these arguments, or not by time.
    """

    def __init__(
        self,
        connector: BaseConnector,
        full_sync: bool = False,
        resume_from: Mapping[str, Any] | None = None,
        bounds: Bounds | None = None,
        chosen: Chosen | None = None,
        made_with: str = "",
        anew: bool = False,
        **sync_kwargs: Any,
    ) -> None:
        super().__init__()
        require_connector(connector, "what ReadFromConnector reads")
        self._connector = connector
        self._full_sync = full_sync
        self._resume_from = dict(resume_from or {})
        self._sync_kwargs = sync_kwargs
        self._bounds = bounds
        self._chosen = chosen
        self._made_with = made_with
        self._anew = anew
        self._info = Source(connector, sync_kwargs, bounds=bounds).info

    def type_check_inputs(self, pvalueish: Any) -> None:
        """Refuses a place after another step.

        Raises:
            ConfigError: it comes after another step.
        """
        if isinstance(pvalueish, beam.PCollection):
            raise ConfigError(
                "ReadFromConnector begins a pipeline, and here it comes after another step; write "
                "pipeline | ReadFromConnector(...), and beam.Flatten() for several"
            )

    def default_label(self) -> str:
        return f"ReadFromConnector({self._info.name})"

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection[Page]:
        opener = _Opener(
            self._connector,
            self._sync_kwargs,
            self._full_sync,
            self._resume_from,
            self._info,
            self._bounds,
            self._made_with,
            self._anew,
        )
        workers = _workers_of(pbegin.pipeline)
        chunks = (
            pbegin
            | "Start" >> beam.Impulse()
            | "Plan"
            >> beam.ParDo(_PlanDoFn(opener, workers, self._chosen)).with_output_types(PlanChunk)
        )
        # A shuffle for one worker adds 60 ms to a run's start. Only with this runner are we sure
        # that there is just one: Beam's other local runners may pass the job to an engine.
        if workers > 1 or _runner_of(pbegin.pipeline) != "FnApiRunner":
            chunks |= "Spread" >> beam.Reshuffle()
        read = beam.ParDo(_ReadDoFn(opener)).with_output_types(Page)
        pages: beam.PCollection[Page] = chunks | "Read" >> read
        return pages


class _Opener:
    """Opens the source on a worker, once for each DoFn."""

    def __init__(
        self,
        connector: BaseConnector,
        sync_kwargs: dict[str, Any],
        full_sync: bool,
        resume_from: dict[str, Any],
        info: SourceInfo,
        bounds: Bounds | None = None,
        made_with: str = "",
        anew: bool = False,
    ) -> None:
        self._connector = connector
        self._arguments = (sync_kwargs, full_sync, resume_from, info, bounds)
        self._made: dict[str, Any] = {"made_with": made_with, "anew": anew}
        self._source: Source | None = None

    def open(self) -> Source:
        connector = live_connector(self._connector)
        if self._source is None or self._source.connector is not connector:
            self._source = Source(connector, *self._arguments, **self._made)
        return self._source

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_source": None}


class _HttpCounters:
    """Adds to the run's metrics what a connector has sent since the last time.

    The connector counts its requests itself, because Beam does not know the threads that send them.
    """

    def __init__(self) -> None:
        self._counters = {
            "requests": Metrics.counter(runtime.NAMESPACE, runtime.HTTP_REQUESTS),
            "retries": Metrics.counter(runtime.NAMESPACE, runtime.HTTP_RETRIES),
            "wait_ms": Metrics.counter(runtime.NAMESPACE, runtime.HTTP_WAIT_MS),
        }

    def add(self, connector: BaseConnector) -> None:
        counts = connector.http_counts()
        # Kept with the connector, which outlives a bundle and a run and is shared by both DoFns.
        told: dict[str, int] = vars(connector).setdefault("_http_told", {})
        for name, counter in self._counters.items():
            more = counts.get(name, 0) - told.get(name, 0)
            if more > 0:
                counter.inc(more)
        told.update(counts)


class _PlanDoFn(beam.DoFn):
    def __init__(self, opener: _Opener, workers: int, chosen: Chosen | None) -> None:
        self._opener = opener
        self._workers = workers
        self._chosen = chosen
        self._http = _HttpCounters()

    def process(self, _: bytes) -> Iterator[PlanChunk]:
        source = self._opener.open()
        for chunk in source.plan(self._workers, self._chosen):
            self._http.add(source.connector)
            # Who chose parts has counted those of all commits.
            if self._chosen is None and chunk.header is None:
                runtime.count(planned=chunk.stop - chunk.start)
            yield chunk


class _BlockRanges(RestrictionProvider):
    """A piece's restriction is the range of its blocks; the plan has already split it."""

    def initial_restriction(self, chunk: PlanChunk) -> OffsetRange:
        return OffsetRange(chunk.start, chunk.stop)

    def create_tracker(self, restriction: OffsetRange) -> OffsetRestrictionTracker:
        return OffsetRestrictionTracker(restriction)

    def restriction_size(self, chunk: PlanChunk, restriction: OffsetRange) -> int:
        return int(restriction.size())


class _ReadDoFn(beam.DoFn):
    def __init__(self, opener: _Opener) -> None:
        self._http = _HttpCounters()
        self._opener = opener
        self._pages = Metrics.counter(runtime.NAMESPACE, runtime.PAGES)
        self._items = Metrics.counter(runtime.NAMESPACE, runtime.ITEMS)
        self._failures = Metrics.counter(runtime.NAMESPACE, "read_failures")
        self._bytes = Metrics.counter(runtime.NAMESPACE, runtime.BYTES_READ)
        self._fetch_ms = Metrics.distribution(runtime.NAMESPACE, runtime.FETCH_MS)

    def process(
        self,
        chunk: PlanChunk,
        tracker: Any = beam.DoFn.RestrictionParam(_BlockRanges()),  # noqa: B008
    ) -> Iterator[Page]:
        source = self._opener.open()
        start = tracker.current_restriction().start
        for fetched in source.read_blocks(chunk, tracker.try_claim, start):
            page = fetched.page
            if chunk.parts:
                self._pages.inc()
                self._items.inc(page.count)
                self._fetch_ms.update(round(fetched.seconds * 1000))
                if page.failures:
                    self._failures.inc(len(page.failures))
                if page.size:
                    self._bytes.inc(page.size)
            self._http.add(source.connector)
            yield page
        self._http.add(source.connector)


def _runner_of(pipeline: beam.Pipeline) -> str:
    return type(pipeline.runner).__name__


def _workers_of(pipeline: beam.Pipeline) -> int:
    if _runner_of(pipeline) not in _LOCAL_RUNNERS:
        return _WORKERS_OF_A_CLUSTER
    workers = pipeline.options.view_as(DirectOptions).direct_num_workers
    # 0 means one for each processor.
    return int(workers) if workers else os.cpu_count() or 1


# About the size of a page of short documents; runners use it for buffers and displays.
_ROUGH_BYTES = 1 << 20


class BatchCoder(coders.Coder):
    """Pickles an element, and does not measure its size."""

    def encode(self, value: Any) -> bytes:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

    def decode(self, encoded: bytes) -> Any:
        return pickle.loads(encoded)

    def estimate_size(self, value: Any) -> int:
        return _ROUGH_BYTES

    def is_deterministic(self) -> bool:
        return False


def register(*types: type) -> None:
    """Makes it the coder of PCollections of these types."""
    for kind in types:
        coders.registry.register_coder(kind, BatchCoder)


register(Page)
