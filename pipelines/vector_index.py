"""The vector index as a pipeline: its parts are made in parallel, and one step commits them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contextframe_beam.connectors import secrets
from contextframe_beam.errors import ConcurrentRunError, ConfigError
from contextframe_beam.pipelines.compact import bring_up_to_date, run_tasks
from contextframe_beam.pipelines.runners.options import is_local, pipeline_options
from contextframe_beam.store.address import Address
from contextframe_beam.store.dataset import FrameDataset
from contextframe_beam.store.search import metric_of
from contextframe_beam.store.vector_index import (
    TASK_ROWS,
    WORTH_AN_INDEX,
    commit_parts,
    count_vectors,
    do_index_task,
    is_current,
    plan_index,
    vector_index,
)
from contextframe_beam.store.versions import open_newest

__all__ = ["VectorIndexReceipt", "index_vectors"]

# Runs that replace every fragment while parts are made leave nothing for an index to know.
_ROUNDS = 3


@dataclass(frozen=True)
class VectorIndexReceipt:
    """What became of a vector index.

    Attributes:
        version: The dataset's newest version afterwards.
        made: Whether it was made; one that compares vectors as it should may have been there.
        updated: Whether rows were brought into one that was there.
        parts: How many parts it has.
        vectors: How many vectors it knows.
    """

    version: int
    made: bool
    updated: bool
    parts: int
    vectors: int

    @property
    def pays(self) -> bool:
        """Whether there are so many vectors that a search is faster with it."""
        return self.vectors >= WORTH_AN_INDEX


def index_vectors(
    uri: str,
    *,
    workers: int = 1,
    runner: str = "DirectRunner",
    beam_args: Sequence[str] = (),
    task_rows: int = TASK_ROWS,
    storage_options: Mapping[str, str] | None = None,
) -> VectorIndexReceipt:
    """Makes the vector index of a dataset, or brings the one that is there up to date.

    Runs may go on meanwhile; what they write is found without the index until `compact`, or this,
    brings it in. Killed at any moment, it leaves the dataset as it was or with the index.

    Args:
        uri: The dataset.
        workers: Number of worker processes of a local run.
        runner: DirectRunner (in this process), or the name of another of Beam's runners.
        beam_args: Beam's own options, as on a command line.
        task_rows: The rows of a part of the index, about.
        storage_options: Credentials and settings of the object store of the dataset.

    Returns:
        What was done.

    Raises:
        ConfigError: there are no vectors, or an argument is wrong.
        ConcurrentRunError: others kept committing.
        ContextFrameError: it failed; the documents are as they were.
    """
    secrets.refuse_credentials(uri, "the dataset")
    secrets.register_store(storage_options)
    pipeline_options(runner, workers, beam_args)  # refuses wrong ones before anything is done
    at = Address(FrameDataset.open(uri, storage_options=storage_options).uri, storage_options)
    metric = metric_of(open_newest(at))
    made = not is_current(open_newest(at), metric)
    if made:
        _make(at, metric, task_rows, workers, runner, beam_args)
    # What came while it was made, too.
    updated = bring_up_to_date(at, workers, runner, beam_args)
    newest = open_newest(at)
    index = vector_index(newest)
    if index is None:
        raise ConcurrentRunError(
            f"the vector index of {at.uri} was removed meanwhile; make it anew"
        )
    return VectorIndexReceipt(
        version=int(newest.version),
        made=made,
        updated=not made and index.name in updated,
        parts=len(index.segments),
        vectors=count_vectors(newest),
    )


def _make(
    at: Address, metric: str, task_rows: int, workers: int, runner: str, beam_args: Sequence[str]
) -> None:
    for _ in range(_ROUNDS):
        tasks = plan_index(open_newest(at), metric, task_rows)
        if not tasks:
            raise ConfigError(
                f"{at.uri} holds no vectors, so there is nothing to index; embed it first"
            )
        if is_local(runner) and len(tasks) == 1:
            commit_parts(at, [do_index_task(at, tasks[0])])
        else:
            run_tasks(at, tasks, do_index_task, commit_parts, workers, runner, beam_args)
        if is_current(open_newest(at), metric):
            return
    raise ConcurrentRunError(
        f"runs kept replacing all rows of {at.uri}, so no index of them could be committed; make "
        "it again when fewer are under way"
    )
