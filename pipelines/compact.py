"""Compaction as a pipeline: the plan's tasks run in parallel, and one step commits them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import apache_beam as beam

from contextframe_beam.connectors import secrets
from contextframe_beam.pipelines.runners.options import (
    is_local,
    pipeline_options,
    run_to_end,
    runner_for,
)
from contextframe_beam.store.address import Address
from contextframe_beam.store.dataset import FrameDataset
from contextframe_beam.store.upkeep import (
    commit_tasks,
    do_task,
    indices_behind,
    make_key_index,
    plan_tasks,
    update_index,
    update_indices,
)
from contextframe_beam.store.versions import open_newest
from contextframe_beam.store.writer import MAX_ROWS_PER_FRAGMENT

# Fragments that a run changes while we rewrite them are left for the next round.
_ROUNDS = 3

T = TypeVar("T")


@dataclass(frozen=True)
class CompactionReceipt:
    """The result of a compaction.

    Attributes:
        version: The dataset's newest version afterwards.
        fragments_before: Fragments when it began.
        fragments_after: Fragments now.
        tasks: The number of finished tasks.
        unfinished: Whether runs kept changing fragments, so that there is more to do.
        indices: The indices that were made or brought up to date.
    """

    version: int
    fragments_before: int
    fragments_after: int
    tasks: int
    unfinished: bool
    indices: tuple[str, ...]

    @property
    def did_nothing(self) -> bool:
        """Whether there was nothing to do."""
        return not self.tasks and not self.indices


def compact(
    uri: str,
    *,
    workers: int = 1,
    runner: str = "DirectRunner",
    beam_args: Sequence[str] = (),
    target_rows: int = MAX_ROWS_PER_FRAGMENT,
    storage_options: Mapping[str, str] | None = None,
) -> CompactionReceipt:
    """Merges many small data files into few large ones, and brings the indices up to date.

    Documents, sync state and the history of runs stay as they are, and runs may go on meanwhile.
    If it is killed, the dataset is either unchanged or compacted.

    Args:
        uri: The dataset.
        workers: Number of worker processes of a local run.
        runner: DirectRunner (in this process), or the name of another Beam runner.
        beam_args: Beam's own options, as on a command line.
        target_rows: The rows that a fragment should have.
        storage_options: Credentials and settings of the object store of the dataset.

    Returns:
        The receipt.

    Raises:
        ContextFrameError: it failed; the documents are as they were.
    """
    secrets.refuse_credentials(uri, "the dataset")
    secrets.register_store(storage_options)
    pipeline_options(runner, workers, beam_args)  # refuses wrong ones before anything is done
    dataset = FrameDataset.open(uri, storage_options=storage_options)
    at = Address(dataset.uri, storage_options)
    before = dataset.lance
    # First, because Lance merges only fragments with the same indices.
    indices = bring_up_to_date(at, workers, runner, beam_args)
    newest = open_newest(at)
    tasks = plan_tasks(newest, target_rows)
    done = 0
    for _ in range(_ROUNDS):
        if not tasks:
            break
        run_tasks(at, tasks, do_task, commit_tasks, workers, runner, beam_args)
        done += len(tasks)
        newest = open_newest(at)
        tasks = plan_tasks(newest, target_rows)
    indices += bring_up_to_date(at, workers, runner, beam_args)
    if len(dataset) and make_key_index(at):
        indices.append("uuid_idx")
    after = open_newest(at)
    return CompactionReceipt(
        version=int(after.version),
        fragments_before=len(before.get_fragments()),
        fragments_after=len(after.get_fragments()),
        tasks=done,
        unfinished=bool(tasks),
        indices=tuple(dict.fromkeys(indices)),
    )


def bring_up_to_date(at: Address, workers: int, runner: str, beam_args: Sequence[str]) -> list[str]:
    """Brings rows that no index knows yet into the indices there are, on an engine if one is asked.

    Args:
        at: The dataset.
        workers: Number of worker processes of a local run.
        runner: The name of the runner.
        beam_args: Beam's own options, as on a command line.

    Returns:
        The names of the indices that were behind.
    """
    if is_local(runner):
        return update_indices(at)
    behind = indices_behind(open_newest(at))
    if behind:
        run_tasks(at, behind, update_index, _nothing, workers, runner, beam_args)
    return behind


def _nothing(at: Address, made: Iterable[Any]) -> None:
    """Commits nothing: an index is committed where it is brought up to date."""


def run_tasks(
    at: Address,
    tasks: Sequence[T],
    do: Callable[[Address, T], Any],
    commit: Callable[[Address, Iterable[Any]], object],
    workers: int,
    runner: str,
    beam_args: Sequence[str],
) -> None:
    """Does tasks of upkeep in parallel, and then commits what they made, all at once.

    Args:
        at: The dataset.
        tasks: What is to be done.
        do: Does one of them on a worker.
        commit: Commits what all of them made; it may be called again with the same.
        workers: Number of worker processes of a local run.
        runner: The name of the runner.
        beam_args: Beam's own options, as on a command line.
    """
    # Made each time, because a runner changes its options.
    options = pipeline_options(runner, workers, beam_args)
    pipeline = beam.Pipeline(runner=runner_for(options, runner), options=options)
    (
        pipeline
        | "Tasks" >> beam.Create(tasks)
        | "Spread" >> beam.Reshuffle()
        | "Do" >> beam.ParDo(_TaskDoFn(at, do))
        | "Together" >> beam.GroupByKey()
        | "Commit" >> beam.MapTuple(lambda _, made: commit(at, made))
    )
    run_to_end(pipeline, workers)


class _TaskDoFn(beam.DoFn):
    def __init__(self, at: Address, do: Callable[[Address, Any], Any]) -> None:
        self._at = at
        self._do = do

    def setup(self) -> None:
        secrets.register_store(self._at.storage_options)

    def process(self, task: Any) -> list[tuple[int, Any]]:
        return [(0, self._do(self._at, task))]
