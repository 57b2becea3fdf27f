"""What makes a run void: parts that are missing, and what others changed since it began."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import lance
import pyarrow as pa

from contextframe_beam.errors import CommitError, ConcurrentRunError, DatasetError, SchemaError
from contextframe_beam.fragments import WrittenFragment, open_dataset
from contextframe_beam.history import rollback_after
from contextframe_beam.keys import NumberSet, numbers_of
from contextframe_beam.schema import embed_dim_of
from contextframe_beam.state import SourceState, StateRows, read_states
from contextframe_beam.transforms._overtaken import has_fewer_rows, replaced_by_others
from contextframe_beam.transforms._plan import Plan, Run
from contextframe_beam.transforms._written import Written


def require_complete(run: Run, written: Written) -> None:
    """Refuses a run of which the runner lost or repeated something."""
    for tally in written.sources.values():
        if tally.planned != tally.finished:
            raise CommitError(
                f"only {tally.finished:,} of the {tally.planned:,} parts of {tally.info.name} "
                f"reached the commit of run {run.run_id}; nothing was committed. The runner lost "
                "or repeated elements; run it again, on one worker if it happens again"
            )
    if written.announced != len(written.fragments):
        raise CommitError(
            f"only {len(written.fragments):,} of the {written.announced:,} data files that the "
            f"workers wrote reached the commit of run {run.run_id}; nothing was committed. The "
            "runner lost or repeated elements; run it again, on one worker if it happens again"
        )


def require_no_rollback(run: Run, dataset: lance.LanceDataset) -> None:
    """Refuses a run that began with what a rollback has undone since."""
    found = rollback_after(dataset, run.base_version or 0)
    if found is not None:
        raise ConcurrentRunError(
            f"{run.uri} was rolled back to version {found.restored} while run {run.run_id} was "
            "reading; nothing was committed, run it again"
        )


def require_same_columns(run: Run, dataset: lance.LanceDataset) -> None:
    """Refuses a dataset that somebody made or remade otherwise after the run began."""
    try:
        same = embed_dim_of(dataset.schema) == run.embed_dim
    except SchemaError:
        same = False
    if not same:
        raise _columns_changed(run)


def require_one_layout(run: Run, fragments: list[WrittenFragment]) -> None:
    """Refuses files whose columns carry other field ids than the dataset's.

    Files for a new dataset number their columns by position; if somebody else created it
    meanwhile with other columns, Lance would mix them up.
    """
    layouts = {
        (*file["fields"], file["file_major_version"], file["file_minor_version"])
        for fragment in fragments
        for file in json.loads(fragment.metadata)["files"]
    }
    if len(layouts) > 1:
        raise _columns_changed(run)


def _columns_changed(run: Run) -> CommitError:
    return CommitError(
        f"the columns of {run.uri} changed while run {run.run_id} was writing; "
        "nothing was committed, run it again"
    )


def refuse_own_keys(plan: Plan, rows: StateRows) -> None:
    """Refuses documents under the key of a state row: readers and commits would mix them up."""
    stated = [*rows.addresses, *(SourceState(t.info.source_id).key for t in plan.tallies)]
    numbers, _ = numbers_of(pa.array(stated, pa.string()))
    brought = NumberSet(numbers)
    for keys in (plan.unique.keys, plan.unique.deleted):
        found = brought.find(keys)
        if (found >= 0).any():
            key = stated[int(found.max())]
            raise CommitError(
                f"run {plan.run.run_id} has a document with the uuid {key}, the key of a row that "
                f"{plan.run.uri} has of its own; nothing was committed. Give it another uuid, or "
                "leave it to be made from the unique_id"
            )


def require_same_sources(
    plan: Plan, dataset: lance.LanceDataset, states: Mapping[str, SourceState]
) -> None:
    """Refuses decisions that were made from a state or rows which others have changed since."""
    run = plan.run
    dependent = [
        tally
        for tally in plan.tallies
        if tally.unchanged or tally.partitions or run.mode == "mirror"
    ]
    if not dependent:
        return
    base = base_of(run)
    known = {} if base is None else read_states(base)
    own = {tally.info.source_id for tally in plan.tallies}
    others_ran = any(
        _progress(known.get(source)) != _progress(state)
        for source, state in states.items()
        if source not in own
    )
    for tally in dependent:
        before, now = known.get(tally.info.source_id), states.get(tally.info.source_id)
        if _progress(before) != _progress(now):
            raise ConcurrentRunError(
                f"another run of {tally.info.name} was committed to {run.uri} while run "
                f"{run.run_id} was reading; nothing of this one was committed, run it again"
            )
        if base is None or base.version == dataset.version or not tally.unchanged:
            continue
        source = tally.info.source_id
        if replaced_by_others(base, dataset, source) or (
            others_ran and has_fewer_rows(base, dataset, source)
        ):
            raise ConcurrentRunError(
                f"documents of {tally.info.name} in {run.uri} were replaced by others or deleted "
                f"by another run while run {run.run_id} was reading; nothing of this one was "
                "committed, run it again"
            )


def _progress(state: SourceState | None) -> tuple[Any, ...]:
    return (state.runs[-1:], dict(state.partitions)) if state else ((), {})


def base_of(run: Run) -> lance.LanceDataset | None:
    """Returns the dataset as the run met it, None if there was none."""
    if run.base_version is None:
        return None
    try:
        return open_dataset(run.uri, run.storage_options, run.base_version)
    except DatasetError as error:
        raise ConcurrentRunError(
            f"version {run.base_version} of {run.uri}, from which run {run.run_id} started, was "
            "cleaned up meanwhile; nothing was committed, run it again"
        ) from error
