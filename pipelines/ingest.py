"""The main job: a connector's documents into a dataset, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from contextframe_beam.connectors.kinds import IncrementalConnector
from contextframe_beam.connectors.read import ReadFromConnector
from contextframe_beam.connectors.source import Chosen, Source
from contextframe_beam.errors import ConfigError
from contextframe_beam.fragments import is_local
from contextframe_beam.pipelines import _backfill
from contextframe_beam.pipelines._ingestion import (
    committed,
    finds_nothing,
    partitions_of,
    run_pipeline,
    state_of,
)
from contextframe_beam.pipelines.job import Job, called_with, default_dead_letters
from contextframe_beam.pipelines.runners import pipeline_options
from contextframe_beam.run_id import new_run_id
from contextframe_beam.state import SourceState
from contextframe_beam.transforms import CommitReceipt
from contextframe_beam.transforms._letter_files import remove_file
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
    every = None if job.commit_every is None else _backfill.Every.of(job.commit_every)
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
    if every is None:
        receipt = run_pipeline(
            job,
            job.id,
            job.letters,
            ReadFromConnector(connector, job.reads_all, resume_from, job.range, **job.reading),
            lambda now: job.reads_all or partitions_of(now) == partitions_of(known),
        )
    else:
        receipt = _run_by_parts(job, every, known, resume_from)
    if isinstance(connector, IncrementalConnector):
        now = partitions_of(state_of(job))
        if not job.range.given or now != partitions_of(known):
            connector.committed(now)
    return receipt


def _run_by_parts(
    job: Job, every: _backfill.Every, known: SourceState | None, resume_from: Mapping[str, Any]
) -> CommitReceipt:
    """Commits as the run goes on, from where one with the same arguments has ended."""
    progress = _backfill.Progress.of(known, job)
    bounds = _backfill.bounds_of(progress, job.range)
    progress = progress or _backfill.begun(job, bounds)
    last = _last_run(known)

    def run_part(run_id: str, number: int, chosen: Chosen, is_last: bool) -> CommitReceipt:
        nonlocal last
        letters = _backfill.letters_of(job.letters, number)
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
                job.connector, job.reads_all, resume_from, bounds, chosen, **job.reading
            ),
            lambda now: _last_run(now) == last,
        )
        last = run_id
        return receipt

    source = Source(job.connector, job.reading, job.reads_all, resume_from, bounds=bounds)
    job.connector.ensure_authenticated()
    parts = list(source.parts())
    return _backfill.run_backfill(
        parts, every, replace(progress, run_id=job.id), run_part, source.reached
    )


def unfinished_run(job: Job) -> str | None:
    """Returns the id of the run with `commit_every` that a job would go on with, if any."""
    progress = _backfill.Progress.of(state_of(job), job)
    return None if progress is None else progress.run_id


def _last_run(state: SourceState | None) -> str | None:
    return state.runs[-1].run_id if state is not None and state.runs else None
