"""Compaction as a pipeline: the plan's tasks run in parallel, and one step commits them all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import apache_beam as beam

from contextframe_beam.connectors import secrets
from contextframe_beam.pipelines.runners.options import pipeline_options, run_to_end, runner_for
from contextframe_beam.store.address import Address
from contextframe_beam.store.dataset import FrameDataset
from contextframe_beam.store.upkeep import (
    commit_tasks,
    do_task,
    make_key_index,
    plan_tasks,
    update_indices,
)
from contextframe_beam.store.versions import open_newest
from contextframe_beam.store.writer import MAX_ROWS_PER_FRAGMENT

# A run that changes fragments while they are rewritten leaves them for the next round.
_ROUNDS = 3


@dataclass(frozen=True)
class CompactionReceipt:
    """What a compaction did.

    Attributes:
        version: The dataset's newest version afterwards.
        fragments_before: Fragments when it began.
        fragments_after: Fragments now.
        tasks: How many tasks were done.
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
    """Makes few large data files of many small ones, and brings the indices up to date.

    Documents, sync state and remembered runs stay as they are, and runs may go on meanwhile.
    Killed at any moment, it leaves the dataset as it was or compacted.

    Args:
        uri: The dataset.
        workers: Number of worker processes of a local run.
        runner: DirectRunner (in this process), or the name of another of Beam's runners.
        beam_args: Beam's own options, as on a command line.
        target_rows: The rows that a fragment should have.
        storage_options: Credentials and settings of the object store of the dataset.

    Returns:
        What was done.

    Raises:
        ContextFrameError: it failed; the documents are as they were.
    """
    secrets.refuse_credentials(uri, "the dataset")
    secrets.register_store(storage_options)
    pipeline_options(runner, workers, beam_args)  # refuses wrong ones before anything is done
    dataset = FrameDataset.open(uri, storage_options=storage_options)
    at = Address(dataset.uri, storage_options)
    before = dataset.lance
    # First, because Lance puts only fragments together that the same indices know.
    indices = update_indices(at)
    newest = open_newest(at)
    tasks = plan_tasks(newest, target_rows)
    done = 0
    for _ in range(_ROUNDS):
        if not tasks:
            break
        # Anew each time, because a runner changes the options that it is given.
        options = pipeline_options(runner, workers, beam_args)
        pipeline = beam.Pipeline(runner=runner_for(options, runner), options=options)
        (
            pipeline
            | "Tasks" >> beam.Create(tasks)
            | "Spread" >> beam.Reshuffle()
            | "Rewrite" >> beam.ParDo(_RewriteDoFn(at))
            | "Together" >> beam.GroupByKey()
            | "Commit" >> beam.MapTuple(partial(_commit, at))
        )
        run_to_end(pipeline, workers)
        done += len(tasks)
        newest = open_newest(at)
        tasks = plan_tasks(newest, target_rows)
    indices += update_indices(at)
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


class _RewriteDoFn(beam.DoFn):
    def __init__(self, at: Address) -> None:
        self._at = at

    def setup(self) -> None:
        secrets.register_store(self._at.storage_options)

    def process(self, task: str) -> Iterator[tuple[int, str]]:
        yield 0, do_task(self._at, task)


def _commit(at: Address, _: int, results: Iterable[str]) -> int:
    return commit_tasks(at, results)
