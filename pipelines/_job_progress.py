"""How far a job on an engine is, while this process waits for it.

Workers that run here count as those of a local run do. What others have done only the engine can
tell: Prism does so all the time, Flink and Spark when the job is done.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.runners.portability.portable_runner import PipelineResult

from contextframe_beam.connectors import metrics, progress

_COUNTERS = {
    "items": metrics.ITEMS,
    "rows": metrics.ROWS,
    "unchanged": metrics.ROWS_UNCHANGED,
    "failures": metrics.FAILURES,
}

_job: PipelineResult | None = None


@contextmanager
def watched(job: Any) -> Iterator[None]:
    """Makes `how_far` tell of a job until the block ends; only job servers tell of theirs."""
    global _job
    _job = job if isinstance(job, PipelineResult) else None
    try:
        yield
    finally:
        _job = None


def how_far(folder: str) -> tuple[str, Mapping[str, int]]:
    """Returns the state of the job in a word, and its counts.

    Args:
        folder: Where workers of this machine count (`connectors.progress`).
    """
    here, job = progress.totals(folder), _job
    if job is None:
        return "starting", here
    if here["items"]:
        return "running", here
    try:
        return job.state.lower(), counts_of(job)
    except grpc.RpcError:  # the job server is busy or gone: the run itself will notice
        return "running", here


def counts_of(job: PipelineResult) -> dict[str, int]:
    """Returns the counts that an engine tells of a job: items, rows, unchanged and failures."""
    # Of a copy, because a result keeps the first metrics that it was asked for.
    found = copy.copy(job).metrics().query(MetricsFilter().with_namespace(metrics.NAMESPACE))
    counts = dict.fromkeys(_COUNTERS.values(), 0)
    for counter in found["counters"]:
        if counter.key.metric.name in counts:
            # Engines give one of both while the job runs, and some never give the other.
            counts[counter.key.metric.name] += max(counter.attempted or 0, counter.committed or 0)
    return {name: counts[counter] for name, counter in _COUNTERS.items()}
