"""Compaction in steps that can run on different machines: plan, rewrite, commit, bring indices up.

Small data files become large ones and deleted rows go; what a reader sees stays the same. All of
it is Lance's own work, in transactions of Lance's own, which conflict with those of a run that
changes the same files: whichever comes second decides anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import lance
from lance import optimize
from lance.fragment import FragmentMetadata
from lance.optimize import Compaction

from contextframe_beam.address import Address, StorageOptions
from contextframe_beam.errors import DatasetError
from contextframe_beam.fragments import (
    WrittenFragment,
    delete_files,
    first_line,
    open_dataset,
)
from contextframe_beam.history import missing_dataset, open_newest
from contextframe_beam.transaction import changing, with_retries
from contextframe_beam.writer import MAX_BYTES_PER_FRAGMENT, MAX_ROWS_PER_FRAGMENT

_KEY = "uuid"

# Lance's type information does not know how to read these from JSON.
_CompactionTask: Any = optimize.CompactionTask
_RewriteResult: Any = optimize.RewriteResult


def plan_tasks(dataset: lance.LanceDataset, target_rows: int = MAX_ROWS_PER_FRAGMENT) -> list[str]:
    """Returns the tasks of a compaction as JSON, each of which any machine may do.

    Args:
        dataset: What to compact.
        target_rows: The rows that a fragment should have.
    """
    plan: Any = Compaction.plan(
        dataset,
        {
            "target_rows_per_fragment": target_rows,
            "max_bytes_per_file": MAX_BYTES_PER_FRAGMENT,
        },
    )
    return [task.json() for task in plan.tasks]


def do_task(uri: str, task: str, storage_options: StorageOptions = None) -> str:
    """Writes the new files of a task, which nobody sees yet, and returns what to commit, as JSON.

    Raises:
        DatasetError: they cannot be written, or the version of the plan is gone.
    """
    planned = _CompactionTask.from_json(task)
    dataset = open_dataset(uri, storage_options, planned.read_version)
    if dataset is None:
        raise missing_dataset(uri)
    try:
        return str(planned.execute(dataset).json())
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"cannot rewrite fragments of {uri}: {first_line(error)}; the dataset is as it was. "
            "Check space and permissions there"
        ) from error


def commit_tasks(uri: str, results: Iterable[str], storage_options: StorageOptions = None) -> int:
    """Puts the rewritten fragments in the place of the old ones, in one transaction.

    What a run has changed meanwhile is left out: its rewritten files are out of date, and are
    deleted. Called again with the same results it does nothing.

    Returns:
        How many fragments were replaced.

    Raises:
        ConcurrentRunError: runs kept coming first.
        UnknownCommitError: the object store does not tell whether it was committed.
        DatasetError: it cannot be committed; the dataset is as it was.
    """
    written = list(results)
    # A task that was done twice counts once.
    unique = {_originals(result): result for result in written}
    committed: list[str] = []

    def attempt() -> int:
        dataset = open_newest(uri, storage_options)
        stored = {_described(fragment.metadata) for fragment in dataset.get_fragments()}
        fitting = [result for originals, result in unique.items() if stored.issuperset(originals)]
        if not fitting:
            return 0
        metrics = changing(
            uri,
            lambda: Compaction.commit(dataset, [_RewriteResult.from_json(one) for one in fitting]),
        )
        committed.extend(fitting)
        return int(metrics.fragments_removed)

    replaced = with_retries(uri, attempt)
    needless = [new for one in written if one not in committed for new in _rewritten(one)]
    delete_files(Address(uri, storage_options), needless)
    return replaced


def _rewritten(result: str) -> list[WrittenFragment]:
    """Returns the fragments that a task has made."""
    return [
        WrittenFragment.of(FragmentMetadata.from_json(json.dumps(fragment)))
        for fragment in json.loads(result)["new_fragments"]
    ]


def _originals(result: str) -> tuple[str, ...]:
    """Returns the fragments that a task has rewritten, as they were then."""
    return tuple(
        _described(FragmentMetadata.from_json(json.dumps(fragment)))
        for fragment in json.loads(result)["original_fragments"]
    )


def _described(fragment: FragmentMetadata) -> str:
    return json.dumps(fragment.to_json(), sort_keys=True)


def update_indices(uri: str, storage_options: StorageOptions = None) -> list[str]:
    """Brings rows that no index knows yet into the indices there are, and returns their names.

    Raises:
        ConcurrentRunError: others kept committing.
        UnknownCommitError: the object store does not tell whether it was committed.
        DatasetError: an index cannot be written.
    """

    def attempt() -> list[str]:
        dataset = open_newest(uri, storage_options)
        behind = [name for name in _index_names(dataset) if _unindexed(dataset, name)]
        if behind:
            changing(uri, lambda: dataset.optimize.optimize_indices(index_names=behind))
        return behind

    return with_retries(uri, attempt)


def make_key_index(uri: str, storage_options: StorageOptions = None) -> bool:
    """Makes the index by which small upserts find the rows that they replace.

    Returns:
        Whether there was none before.
    """

    def attempt() -> bool:
        dataset = open_newest(uri, storage_options)
        if any(_KEY in index.field_names for index in dataset.describe_indices()):
            return False
        changing(uri, lambda: dataset.create_scalar_index(_KEY, "BTREE"))
        return True

    return with_retries(uri, attempt)


def _index_names(dataset: lance.LanceDataset) -> Sequence[str]:
    return [str(index.name) for index in dataset.describe_indices()]


def _unindexed(dataset: lance.LanceDataset, name: str) -> int:
    return int(dataset.stats.index_stats(name).get("num_unindexed_fragments", 0))
