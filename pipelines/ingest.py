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

from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.bounds import Bounds
from contextframe_beam.connectors.kinds import IncrementalConnector
from contextframe_beam.connectors.read import ReadFromConnector
from contextframe_beam.connectors.source import Chosen, Source
from contextframe_beam.errors import ConfigError
from contextframe_beam.fragments import DEFAULT_STORAGE_VERSION, is_local
from contextframe_beam.pipelines import _backfill
from contextframe_beam.pipelines._ingestion import Ingestion, partitions_of, state_of
from contextframe_beam.run_id import check_run_id, file_name_of
from contextframe_beam.state import SourceState
from contextframe_beam.transforms import CommitReceipt
from contextframe_beam.transforms._failures import DEFAULT_MAX_FAILURES
from contextframe_beam.transforms._letter_files import remove_file
from contextframe_beam.transforms.brake import DEFAULT_MAX_DELETES
from contextframe_beam.transforms.enrich import Enricher


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
    max_deletes: int | str = DEFAULT_MAX_DELETES,
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
        max_deletes: A number of documents, or a share of the source's stored documents; a run that
            would delete more of them commits nothing, as in `WriteToLance`. With `commit_every` all
            its commits count together.
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
    check_run_id(run_id)
    run_id, bounds = run_id or new_run_id(), bounds or Bounds()
    ingestion = Ingestion(
        connector=connector,
        to=to,
        mode=mode,
        enrichers=enrichers,
        workers=workers,
        runner=runner,
        beam_args=beam_args,
        # What these do not read is gone, so they must not read changes only.
        full=full or mode in ("overwrite", "mirror"),
        max_failures=max_failures,
        max_deletes=max_deletes,
        embed_dim=embed_dim,
        storage_options=storage_options,
        storage_version=storage_version,
        sync_kwargs=dict(sync_kwargs or {}),
    )
    done = ingestion.committed(run_id)
    if done is not None:
        return done
    every = None if commit_every is None else _backfill.Every.of(commit_every)
    if every is not None and mode not in _backfill.MODES:
        raise ConfigError(
            f"with the mode {mode} a source is committed as a whole, so commit-every cannot be "
            f"given; it goes with {' and '.join(_backfill.MODES)}"
        )
    ingestion.options()  # refuses wrong ones before anything is read
    if ingestion.finds_nothing():
        return CommitReceipt(0, run_id, mode)
    letters = dead_letters or default_dead_letters(to, run_id)
    known = ingestion.state()
    resume_from = partitions_of(known)
    if isinstance(connector, IncrementalConnector):
        resume_from = connector.reconciled(resume_from)
    if every is None:
        receipt = ingestion.run(
            run_id,
            letters,
            ReadFromConnector(
                connector, ingestion.full, resume_from, bounds, **ingestion.sync_kwargs
            ),
            lambda now: ingestion.full or partitions_of(now) == partitions_of(known),
        )
    else:
        receipt = _run_by_parts(ingestion, run_id, letters, every, known, resume_from, bounds)
    if isinstance(connector, IncrementalConnector):
        now = partitions_of(ingestion.state())
        if not bounds.given or now != partitions_of(known):
            connector.committed(now)
    return receipt


def _run_by_parts(
    ingestion: Ingestion,
    run_id: str,
    letters: str,
    every: _backfill.Every,
    known: SourceState | None,
    resume_from: dict[str, Any],
    bounds: Bounds,
) -> CommitReceipt:
    """Commits as the run goes on, from where one with the same arguments has ended."""
    asked = (bounds, ingestion.mode, ingestion.full, ingestion.sync_kwargs)
    arguments = _backfill.arguments_of(*asked)
    progress = _backfill.Progress.of(known, *asked)
    bounds = _backfill.bounds_of(progress, bounds)
    if progress is None:
        progress = _backfill.begun(run_id, arguments, bounds)
    last = _last_run(known)

    def run_part(run_id: str, number: int, chosen: Chosen, is_last: bool) -> CommitReceipt:
        nonlocal last
        letters_of_part = _backfill.letters_of(letters, number)
        if is_last:
            # A commit of that number which was killed had parts behind it, and read these as well.
            if is_local(letters_of_part):
                remove_file(letters_of_part)
            letters_of_part = letters
        receipt = ingestion.run(
            run_id,
            letters_of_part,
            ReadFromConnector(
                ingestion.connector,
                ingestion.full,
                resume_from,
                bounds,
                chosen,
                **ingestion.sync_kwargs,
            ),
            lambda now: _last_run(now) == last,
        )
        last = run_id
        return receipt

    source = Source(
        ingestion.connector, ingestion.sync_kwargs, ingestion.full, resume_from, bounds=bounds
    )
    ingestion.connector.ensure_authenticated()
    parts = list(source.parts())
    return _backfill.run_backfill(
        parts, every, replace(progress, run_id=run_id), run_part, source.reached
    )


def new_run_id() -> str:
    """Returns a run id that nobody has used."""
    return uuid.uuid4().hex


def default_dead_letters(to: str, run_id: str) -> str:
    """Returns where a run's dead letters go when nothing else is said: beside the dataset."""
    return f"{dead_letters_beside(to)}/{file_name_of(run_id)}.jsonl"


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
    state = state_of(connector, to, sync_kwargs or {}, storage_options)
    progress = _backfill.Progress.of(state, bounds or Bounds(), mode, full, sync_kwargs or {})
    return None if progress is None else progress.run_id


def _last_run(state: SourceState | None) -> str | None:
    return state.runs[-1].run_id if state is not None and state.runs else None
