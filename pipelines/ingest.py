"""ingest: the main job, from any connector to one transaction of a Lance dataset."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions

from contextframe_beam.connectors.base import require_connector
from contextframe_beam.connectors.kinds import IncrementalConnector
from contextframe_beam.connectors.page import Page
from contextframe_beam.connectors.read.source import Chosen, Source
from contextframe_beam.connectors.read.transform import ReadFromConnector
from contextframe_beam.errors import CommitError, ConcurrentRunError, ConfigError
from contextframe_beam.pipelines import backfill
from contextframe_beam.pipelines.history import recorded
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
from contextframe_beam.transforms.enrich import method_of
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
        UnknownCommitError: the object store does not say whether the run was committed.
        ContextFrameError: any other failure; the dataset is as it was.
    """
    return recorded(job, lambda: committed(job) or run(job))


def run(job: Job) -> CommitReceipt:
    """Runs a job that the dataset does not have yet.

    Raises:
        UnknownCommitError: the object store does not say whether the run was committed.
        ContextFrameError: any other failure; the dataset is as it was.
    """
    connector = require_connector(job.connector, "what ingest reads")
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
    require_suitable(job)
    known = state_of(job)
    _note_other_mapping(job, known)
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
    """Commits as the run goes on, and continues an earlier run with the same arguments."""
    progress = backfill.Progress.of(known, job)
    bounds = backfill.bounds_of(progress, job.range)
    progress = progress or backfill.begun(job, bounds)
    last = _last_run(known)

    def run_part(run_id: str, number: int, chosen: Chosen, is_last: bool) -> CommitReceipt:
        nonlocal last
        letters = backfill.letters_of(job.letters, number)
        if is_last:
            # A killed commit with this number may have read further parts.
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
        parts, every, replace(progress, run_id=job.id), run_part, source.reached, source.unread
    )


def _making(job: Job) -> dict[str, Any]:
    """Returns what a reader is told of how documents are made."""
    return {"made_with": job.made_with.hex(), "anew": job.full}


def _note_other_mapping(job: Job, known: SourceState | None) -> None:
    """Says in the log that the run leaves documents as another mapping made them."""
    if known is None or not known.partitions or job.reads_all or job.connector.gives_files:
        return  # all is read again, or recognised by what it was made with
    if known.mapping and known.mapping != job.mapping:
        _LOGGER.warning(
            "the mapping of %s has changed since its documents were made; "
            "`full` applies it to all of them",
            job.connector.name,
        )


def unfinished_run(job: Job) -> str | None:
    """Returns the id of the unfinished run that a job with `commit_every` would continue."""
    progress = backfill.Progress.of(state_of(job), job)
    return None if progress is None else progress.run_id


def _last_run(state: SourceState | None) -> str | None:
    return state.runs[-1].run_id if state is not None and state.runs else None


_LOGGER = logging.getLogger(__name__)


class TemplateWritten(CommitError):
    """The job was only described, for the launcher of a Dataflow template."""


def committed(job: Job) -> CommitReceipt | None:
    """Returns the receipt of a job if its run is in the dataset.

    Raises:
        ConfigError: a run with that id read another source.
    """
    receipt = committed_receipt(job.address, job.id)
    if receipt is None:
        return None
    state = state_of(job)
    if state is None or state.run(job.id) is None:
        raise ConfigError(
            f"the run {job.id} of {job.to} read another source than {job.connector.name} as it is "
            "requested now, and a run id is used once in a dataset; give another one"
        )
    return receipt


def finds_nothing(job: Job) -> bool:
    """Returns, and logs, whether there are no items to read and no dataset to change."""
    nothing_found = getattr(job.connector, "_nothing_found", None)
    if nothing_found is None or open_dataset(job.address) is not None:
        return False
    job.connector.ensure_authenticated()
    reason = nothing_found(**job.reading)
    if reason:
        _LOGGER.warning("%s; %s was not made", reason, job.to)
    return bool(reason)


def require_suitable(job: Job) -> None:
    """Refuses a mode that makes no sense for a source, before anything is read.

    Raises:
        ConfigError: it does not; the message says what to do.
    """
    unsuitable = getattr(job.connector, "_unsuitable", None)
    if unsuitable is not None:
        job.connector.ensure_authenticated()
        reason = unsuitable(job.mode)
        if reason:
            raise ConfigError(reason)


def run_pipeline(
    job: Job,
    run_id: str,
    dead_letters: str,
    source: beam.PTransform[Any, beam.PCollection[Page]],
    as_known: Callable[[SourceState | None], bool],
) -> CommitReceipt:
    """Runs the pipeline of a job once, to its commit.

    Args:
        job: The job.
        run_id: The run id of this commit.
        dead_letters: The file for failed items.
        source: What gives the pages.
        as_known: Returns whether the source's state is still the one that `source` was made for.

    Raises:
        ConcurrentRunError: the state has changed; nothing was read.
        TemplateWritten: Dataflow will start the run.
        ContextFrameError: any other failure.
    """
    settings = {**job.sink_settings, "run_id": run_id, "dead_letters": dead_letters}
    sink = WriteToLance(job.to, **settings, mapping=job.mapping, full=job.full)
    # The sink trusts the dataset that it sees. So we have to notice a commit or a rollback
    # between our look at the state and the making of the sink.
    if not as_known(state_of(job)):
        raise ConcurrentRunError(
            f"the state of {job.connector.name} in {job.to} has changed since this run "
            "looked at it, so another run was committed or undone; nothing of this one was "
            "committed, run it again"
        )
    # Made each time, because a runner changes its options.
    options = pipeline_options(job.runner, job.workers, job.beam_args)
    pipeline = beam.Pipeline(runner=runner_for(options, job.runner), options=options)
    pages = pipeline | "Read" >> source
    staged = staged_options(options)
    if staged:
        pages = pages | "RequireStaged" >> beam.ParDo(RequireStaged(list(staged)))
    # A document that an enricher makes beside another is not recognised with that.
    expands = any(method_of(one) == "expand" for one in job.enrichers)
    stored = None if job.full or expands else sink.stored
    parsing = job.parsing if job.connector.gives_files else None
    frames = pages | "Map" >> MapToFrames(job.connector, parsing, job.made_with, stored)
    if job.enrichers:
        frames = frames | "Enrich" >> Enrich(job.enrichers)
    frames | "WriteToLance" >> sink
    result = run_to_end(pipeline, job.workers)
    if job.dry_run:
        return counted(result, run_id, job.mode)
    receipt = committed_receipt(job.address, run_id, start=sink.start)
    if receipt is None and options.view_as(GoogleCloudOptions).template_location:
        raise TemplateWritten(
            f"run {run_id} is described but has not run yet; it will be committed when Dataflow "
            "runs the job"
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
    """Returns the current state of the job's source in the dataset, or None."""
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
    """Returns the state of each partition."""
    return dict(state.partitions) if state is not None else {}
