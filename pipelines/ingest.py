"""The main job: a connector's documents into a dataset, in one transaction."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

if __name__ == "__main__":  # first of all, because Beam logs while it is imported
    from contextframe_beam.pipelines.cli import main

    main(["ingest", *sys.argv[1:]])

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions

from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.bounds import Bounds
from contextframe_beam.connectors.kinds import IncrementalConnector
from contextframe_beam.connectors.read import ReadFromConnector
from contextframe_beam.connectors.source import Chosen, Source
from contextframe_beam.errors import CommitError, ConcurrentRunError, ConfigError
from contextframe_beam.fragments import DEFAULT_STORAGE_VERSION, open_dataset
from contextframe_beam.pipelines import _backfill
from contextframe_beam.pipelines._staging import RequireStaged, staged_options
from contextframe_beam.pipelines.runners import pipeline_options, run_to_end, runner_for
from contextframe_beam.state import SourceState, read_states
from contextframe_beam.transforms import CommitReceipt, Enrich, MapToFrames, WriteToLance
from contextframe_beam.transforms._commit import committed_receipt
from contextframe_beam.transforms._failures import DEFAULT_MAX_FAILURES
from contextframe_beam.transforms.enrich import Enricher


class TemplateWritten(CommitError):
    """The job was only described, as the launcher of a Dataflow template asks with its options."""


def ingest(
    connector: BaseConnector,
    to: str,
    *,
    mode: str = "upsert",
    enrichers: Sequence[Enricher] = (),
    workers: int = 1,
    runner: str = "DirectRunner",
    beam_args: Sequence[str] = (),
    run_id: str | None = None,
    full: bool = False,
    bounds: Bounds | None = None,
    commit_every: str | int | None = None,
    dead_letters: str | None = None,
    max_failures: int | str = DEFAULT_MAX_FAILURES,
    embed_dim: int | None = None,
    storage_options: Mapping[str, str] | None = None,
    storage_version: str = DEFAULT_STORAGE_VERSION,
    sync_kwargs: Mapping[str, Any] | None = None,
) -> CommitReceipt:
    """Reads a source, maps and enriches its items, and commits the rows at once.

    Args:
        connector: What to read.
        to: The dataset, a path or an address; made if there is none.
        mode: upsert, append, overwrite or create, as in `WriteToLance`.
        enrichers: What adds to the records, in order.
        workers: Number of worker processes of a local run.
        runner: DirectRunner (in this process), or the name of another of Beam's runners.
        beam_args: Beam's own options, as on a command line.
        run_id: Names the run; a run of that id that was committed is not done again.
        full: Read everything, whatever an earlier run has read; overwriting and mirroring do.
        bounds: The range of time to read, as `Bounds.of(since="2026-01-01", slice="1d")`. The state
            moves to its end where the range leaves nothing out that a run without it would read,
            and stays where it is otherwise, so that the next one without it misses nothing.
        commit_every: Commit as the run goes on, whole partitions at a time: `10` of them, about
            `"100k-rows"`, or what takes about `"15m"`. A run that dies is continued by the next
            one with the same arguments. For the modes upsert and append; `max_failures` holds for
            each commit.
        dead_letters: A JSON Lines file for items that fail; beside the dataset if not given.
        max_failures: A number of items or a share such as `"5%"`; with more failures nothing is
            committed.
        embed_dim: Length of the vectors of a new dataset.
        storage_options: Credentials and settings of the object store of the dataset.
        storage_version: The file format of a new dataset.
        sync_kwargs: Arguments of the connector's `sync_documents`.

    Returns:
        The receipt of the committed run.

    Raises:
        UnknownCommitError: the object store does not tell whether the run was committed.
        ContextFrameError: whatever else went wrong; the dataset is as it was.
    """
    run_id = run_id or new_run_id()
    sync_kwargs, bounds = dict(sync_kwargs or {}), bounds or Bounds()
    is_bounded = bool(bounds.given)
    done = committed_receipt(to, run_id, storage_options)
    if done is not None:
        state = _state_of(connector, to, sync_kwargs, storage_options)
        if state is None or state.run(run_id) is None:
            raise ConfigError(
                f"the run {run_id} of {to} read another source than {connector.name} as it is "
                "asked for now, and a run id is used once in a dataset; give another one"
            )
        return done
    every = None if commit_every is None else _backfill.Every.of(commit_every)
    if every is not None and mode not in _backfill.MODES:
        raise ConfigError(
            f"with the mode {mode} a source is committed as a whole, so commit-every cannot be "
            f"given; it goes with {' and '.join(_backfill.MODES)}"
        )
    pipeline_options(runner, workers, beam_args)  # refuses wrong ones before anything is read
    letters = dead_letters or default_dead_letters(to, run_id)
    # What these do not read is gone, so they must not read changes only.
    full = full or mode in ("overwrite", "mirror")
    state = _state_of(connector, to, sync_kwargs, storage_options)
    resume_from = dict(state.partitions) if state is not None and not full else {}
    if isinstance(connector, IncrementalConnector):
        resume_from = connector.reconciled(resume_from)
    last = _last_run(state)

    def require_known_state() -> None:
        # A sink takes what it finds for what the run knows. So what was committed, or rolled back,
        # between the look at the state and the making of the sink is for us to notice.
        now = _state_of(connector, to, sync_kwargs, storage_options)
        if every is None:
            same = full or _partitions(now) == _partitions(state)
        else:
            same = _last_run(now) == last
        if not same:
            raise ConcurrentRunError(
                f"what {to} says about how far {connector.name} was read has changed since this "
                "run looked at it, so another run was committed or undone; nothing of this one "
                "was committed, run it again"
            )

    def run_once(run_id: str, letters: str, chosen: Chosen | None = None) -> CommitReceipt:
        nonlocal last
        sink = WriteToLance(
            to,
            mode=mode,
            run_id=run_id,
            embed_dim=embed_dim,
            storage_options=storage_options,
            storage_version=storage_version,
            max_failures=max_failures,
            dead_letters=letters,
        )
        require_known_state()
        source = ReadFromConnector(connector, full, resume_from, bounds, chosen, **sync_kwargs)
        # Anew each time, because a runner changes the options that it is given.
        options = pipeline_options(runner, workers, beam_args)
        pipeline = beam.Pipeline(runner=runner_for(options, runner), options=options)
        pages = pipeline | "Read" >> source
        staged = staged_options(options)
        if staged:
            pages = pages | "RequireStaged" >> beam.ParDo(RequireStaged(list(staged)))
        frames = pages | "Map" >> MapToFrames(connector)
        if enrichers:
            frames = frames | "Enrich" >> Enrich(enrichers)
        frames | "WriteToLance" >> sink
        run_to_end(pipeline, workers)
        receipt = committed_receipt(to, run_id, storage_options)
        if receipt is None and options.view_as(GoogleCloudOptions).template_location:
            raise TemplateWritten(
                f"run {run_id} is described and not run yet; it is committed when Dataflow has run "
                "the job"
            )
        if receipt is None:
            raise CommitError(
                f"the pipeline ended, but {to} does not hold run {run_id}; run it again and look "
                "into the runner's log"
            )
        last = run_id
        return replace(receipt, already_committed=False)

    def keep(receipt: CommitReceipt) -> CommitReceipt:
        if isinstance(connector, IncrementalConnector):
            now = _partitions(_state_of(connector, to, sync_kwargs, storage_options))
            if not is_bounded or now != _partitions(state):
                connector.committed(now)
        return receipt

    if every is None:
        return keep(run_once(run_id, letters))
    arguments = _backfill.arguments_of(bounds, mode, full)
    progress = _backfill.Progress.of(state, bounds, mode, full)
    bounds = _backfill.bounds_of(progress, bounds)
    if progress is None:
        progress = _backfill.begun(run_id, arguments, bounds)
    source = Source(connector, sync_kwargs, full, resume_from, bounds=bounds)
    connector.ensure_authenticated()
    parts = list(source.parts())
    receipt = _backfill.run_backfill(
        parts,
        every,
        replace(progress, run_id=run_id),
        lambda one, number, chosen: run_once(one, _backfill.letters_of(letters, number), chosen),
        source.reached,
    )
    return keep(receipt)


def new_run_id() -> str:
    """Returns a run id that nobody has used."""
    return uuid.uuid4().hex


def default_dead_letters(to: str, run_id: str) -> str:
    """Returns where a run's dead letters go when nothing else is said: beside the dataset."""
    return f"{dead_letters_beside(to)}/{run_id}.jsonl"


def dead_letters_beside(to: str) -> str:
    """Returns the folder of the dead letters of all runs into a dataset."""
    return f"{str(to).rstrip('/')}.dead-letters"


def unfinished_run(
    connector: BaseConnector,
    to: str,
    *,
    mode: str = "upsert",
    full: bool = False,
    bounds: Bounds | None = None,
    storage_options: Mapping[str, str] | None = None,
    sync_kwargs: Mapping[str, Any] | None = None,
) -> str | None:
    """Returns the id of the run with `commit_every` that `ingest` would go on with, if any.

    Args:
        connector: As for `ingest`, and so are the others.
        to: The dataset.
        mode: The mode.
        full: Whether everything is read.
        bounds: The range of time.
        storage_options: Of the dataset.
        sync_kwargs: Arguments of the connector's `sync_documents`.
    """
    state = _state_of(connector, to, sync_kwargs or {}, storage_options)
    progress = _backfill.Progress.of(state, bounds or Bounds(), mode, full)
    return None if progress is None else progress.run_id


def _state_of(
    connector: BaseConnector,
    to: str,
    sync_kwargs: Mapping[str, Any],
    storage_options: Mapping[str, str] | None,
) -> SourceState | None:
    dataset = open_dataset(to, storage_options)
    if dataset is None:
        return None
    return read_states(dataset).get(connector.source_id(sync_kwargs))


def _last_run(state: SourceState | None) -> str | None:
    return state.runs[-1].run_id if state is not None and state.runs else None


def _partitions(state: SourceState | None) -> dict[str, Any]:
    return dict(state.partitions) if state is not None else {}
