"""One pipeline of the main job, from a connector to a transaction, and what the dataset knows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions

from contextframe_beam.connectors.read import ReadFromConnector
from contextframe_beam.errors import CommitError, ConcurrentRunError, ConfigError
from contextframe_beam.fragments import open_dataset
from contextframe_beam.pipelines._staging import RequireStaged, staged_options
from contextframe_beam.pipelines.job import Job
from contextframe_beam.pipelines.runners import pipeline_options, run_to_end, runner_for
from contextframe_beam.state import SourceState, read_states
from contextframe_beam.state import state_of as source_state
from contextframe_beam.transforms import CommitReceipt, Enrich, MapToFrames, WriteToLance
from contextframe_beam.transforms._earlier import committed_receipt

_LOGGER = logging.getLogger(__name__)


class TemplateWritten(CommitError):
    """The job was only described, as the launcher of a Dataflow template asks with its options."""


def committed(job: Job) -> CommitReceipt | None:
    """Returns the receipt of a job if the dataset holds its run.

    Raises:
        ConfigError: it holds a run of that id that read another source.
    """
    receipt = committed_receipt(job.address, job.id)
    if receipt is None:
        return None
    state = state_of(job)
    if state is None or state.run(job.id) is None:
        raise ConfigError(
            f"the run {job.id} of {job.to} read another source than {job.connector.name} as it is "
            "asked for now, and a run id is used once in a dataset; give another one"
        )
    return receipt


def finds_nothing(job: Job) -> bool:
    """Tells, and logs, that there is neither anything to read nor a dataset to change."""
    nothing_found = getattr(job.connector, "_nothing_found", None)
    if nothing_found is None or open_dataset(job.to, job.storage_options) is not None:
        return False
    job.connector.ensure_authenticated()
    reason = nothing_found(**job.reading)
    if reason:
        _LOGGER.warning("%s; %s was not made", reason, job.to)
    return bool(reason)


def run_pipeline(
    job: Job,
    run_id: str,
    dead_letters: str,
    source: ReadFromConnector,
    as_known: Callable[[SourceState | None], bool],
) -> CommitReceipt:
    """Runs the pipeline of a job once, to its commit.

    Args:
        job: The job.
        run_id: Names this commit of it.
        dead_letters: The file for items that fail.
        source: What it reads.
        as_known: Tells whether the source's state is still the one that `source` was made for.

    Raises:
        ConcurrentRunError: it is not; nothing was read.
        TemplateWritten: the run is for Dataflow to start.
        ContextFrameError: whatever else went wrong.
    """
    settings = {**job.sink_settings, "run_id": run_id, "dead_letters": dead_letters}
    sink = WriteToLance(job.to, **settings)
    # A sink takes what it finds for what the run knows. So what was committed, or rolled back,
    # between the look at the state and the making of the sink is for us to notice.
    if not as_known(state_of(job)):
        raise ConcurrentRunError(
            f"what {job.to} says about how far {job.connector.name} was read has changed "
            "since this run looked at it, so another run was committed or undone; nothing of "
            "this one was committed, run it again"
        )
    # Anew each time, because a runner changes those that it is given.
    options = pipeline_options(job.runner, job.workers, job.beam_args)
    pipeline = beam.Pipeline(runner=runner_for(options, job.runner), options=options)
    pages = pipeline | "Read" >> source
    staged = staged_options(options)
    if staged:
        pages = pages | "RequireStaged" >> beam.ParDo(RequireStaged(list(staged)))
    frames = pages | "Map" >> MapToFrames(job.connector)
    if job.enrichers:
        frames = frames | "Enrich" >> Enrich(job.enrichers)
    frames | "WriteToLance" >> sink
    run_to_end(pipeline, job.workers)
    receipt = committed_receipt(job.address, run_id, start=sink.start)
    if receipt is None and options.view_as(GoogleCloudOptions).template_location:
        raise TemplateWritten(
            f"run {run_id} is described and not run yet; it is committed when Dataflow has run "
            "the job"
        )
    if receipt is None:
        raise CommitError(
            f"the pipeline ended, but {job.to} does not hold run {run_id}; run it again and look "
            "into the runner's log"
        )
    return receipt


def state_of(job: Job) -> SourceState | None:
    """Returns what the dataset says of the job's source now, or None where it says nothing."""
    dataset = open_dataset(job.to, job.storage_options)
    if dataset is None:
        return None
    return source_state(
        read_states(dataset),
        job.source,
        job.connector.source_identity(job.reading),
        getattr(job.connector, "_by_partition", ()),
    )


def partitions_of(state: SourceState | None) -> dict[str, Any]:
    """Returns how far each partition was read."""
    return dict(state.partitions) if state is not None else {}
