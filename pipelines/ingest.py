"""ingest: the main job, from any connector to one transaction of a Lance dataset."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions

from contextframe_beam.connectors.kinds import IncrementalConnector
from contextframe_beam.connectors.read.source import Chosen, Source
from contextframe_beam.connectors.read.transform import ReadFromConnector
from contextframe_beam.errors import CommitError, ConcurrentRunError, ConfigError
from contextframe_beam.pipelines import backfill
from contextframe_beam.pipelines.job import Job, called_with, default_dead_letters
from contextframe_beam.pipelines.runners.options import pipeline_options, run_to_end, runner_for
from contextframe_beam.pipelines.runners.packages import RequireStaged, staged_options
from contextframe_beam.store.address import is_local
from contextframe_beam.store.files import open_dataset
from contextframe_beam.store.runs import new_run_id
from contextframe_beam.store.state import SourceState, read_states
from contextframe_beam.store.state import state_of as source_state
from contextframe_beam.transforms import CommitReceipt, Enrich, MapToFrames, WriteToLance
from contextframe_beam.transforms.dry_run import counted
from contextframe_beam.transforms.embedders.vector_cache import remove_vectors
from contextframe_beam.transforms.guards import committed_receipt
from contextframe_beam.transforms.letters import remove_file
from contextframe_beam.transforms.modes import MODES, mode_of

__all__ = ["default_dead_letters", "ingest", "new_run_id", "run", "unfinished_run"]


@called_with(Job)
def ingest(job: Job) -> CommitReceipt:  # noqa: D417 (the decorator documents the settings)
    """Reads a source, maps and enriches its items, and commits the rows at once.

    Args:
        {settings}

    Returns:
        The receipt of the committed run.

    Raises:
        UnknownCommitError: the object store does not tell whether the run was committed.
        ContextFrameError: whatever else went wrong; the dataset is as it was.
    """
    return committed(job) or run(job)


def run(job: Job) -> CommitReceipt:
    """Does a job that the dataset does not hold yet.

    Raises:
        UnknownCommitError: the object store does not tell whether the run was committed.
        ContextFrameError: whatever else went wrong; the dataset is as it was.
    """
    connector = job.connector
    every = None if job.commit_every is None else backfill.Every.of(job.commit_every)
    if every is not None and not mode_of(job.mode).by_parts:
        by_parts = [one.name for one in MODES.values() if one.by_parts]
        raise ConfigError(
            f"with the mode {job.mode} a source is committed as a whole, so commit-every cannot be "
            f"given; it goes with {' and '.join(by_parts)}"
        )
    pipeline_options(job.runner, job.workers, job.beam_args)  # refuses wrong ones before it reads
    if finds_nothing(job):
        return CommitReceipt(job.id, job.mode)
    known = state_of(job)
    resume_from = partitions_of(known)
    if isinstance(connector, IncrementalConnector):
        resume_from = connector.reconciled(resume_from)
    if every is None or job.dry_run:
        receipt = run_pipeline(
            job,
            job.id,
            job.letters,
            ReadFromConnector(
                connector, job.reads_all, resume_from, job.range, **_making(job), **job.reading
            ),
            lambda now: job.reads_all or partitions_of(now) == partitions_of(known),
        )
    else:
        receipt = _run_by_parts(job, every, known, resume_from)
    if isinstance(connector, IncrementalConnector) and not job.dry_run:
        now = partitions_of(state_of(job))
        if not job.range.given or now != partitions_of(known):
            connector.committed(now)
    return receipt


def _run_by_parts(
    job: Job, every: backfill.Every, known: SourceState | None, resume_from: Mapping[str, Any]
) -> CommitReceipt:
    """Commits as the run goes on, from where one with the same arguments has ended."""
    progress = backfill.Progress.of(known, job)
    bounds = backfill.bounds_of(progress, job.range)
    progress = progress or backfill.begun(job, bounds)
    last = _last_run(known)

    def run_part(run_id: str, number: int, chosen: Chosen, is_last: bool) -> CommitReceipt:
        nonlocal last
        letters = backfill.letters_of(job.letters, number)
        if is_last:
            # A commit of that number which was killed had parts behind it, and read these as well.
            if is_local(letters):
                remove_file(letters)
            letters = job.letters
        receipt = run_pipeline(
            job,
            run_id,
            letters,
            ReadFromConnector(
                job.connector,
                job.reads_all,
                resume_from,
                bounds,
                chosen,
                **_making(job),
                **job.reading,
            ),
            lambda now: _last_run(now) == last,
        )
        last = run_id
        return receipt

    source = Source(
        job.connector, job.reading, job.reads_all, resume_from, bounds=bounds, **_making(job)
    )
    job.connector.ensure_authenticated()
    parts = list(source.parts())
    return backfill.run_backfill(
        parts, every, replace(progress, run_id=job.id), run_part, source.reached
    )


def _making(job: Job) -> dict[str, Any]:
    """Returns what a reader is told of how documents are made."""
    return {"made_with": job.made_with.hex(), "anew": job.full}


def unfinished_run(job: Job) -> str | None:
    """Returns the id of the run with `commit_every` that a job would go on with, if any."""
    progress = backfill.Progress.of(state_of(job), job)
    return None if progress is None else progress.run_id


def _last_run(state: SourceState | None) -> str | None:
    return state.runs[-1].run_id if state is not None and state.runs else None


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
    if nothing_found is None or open_dataset(job.address) is not None:
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
    stored = None if job.full else sink.stored
    frames = pages | "Map" >> MapToFrames(job.connector, job.parsing, job.made_with, stored)
    if job.enrichers:
        frames = frames | "Enrich" >> Enrich(job.enrichers)
    frames | "WriteToLance" >> sink
    result = run_to_end(pipeline, job.workers)
    if job.dry_run:
        return counted(result, run_id, job.mode)
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
    if sink.embedder is not None:
        # What was paid for is in the dataset now.
        remove_vectors(job.to, job.storage_options, sink.embedder)
    return receipt


def state_of(job: Job) -> SourceState | None:
    """Returns what the dataset says of the job's source now, or None where it says nothing."""
    dataset = open_dataset(job.address)
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
