"""The vector index of a dataset: how nearest vectors are found, and how the index is made.

The kind is IVF_RQ: vectors lie in partitions around centres and are kept as a few bits a dimension,
after "RaBitQ: Quantizing High-Dimensional Vectors with a Theoretical Error Bound for Approximate
Nearest Neighbor Search", SIGMOD 2024. The nearest by those bits are compared again by their whole
vectors. An index of many vectors is made in parts, which any machine may make, and committed at
once. Rows that no part knows are compared one by one, so a search always finds them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from lance import LanceDataset, LanceFragment
from lance.indices import IndicesBuilder
from lance.lance import indices as lance_indices

from contextframe_beam.errors import DatasetError
from contextframe_beam.frames.embedders import Vectors
from contextframe_beam.frames.schema import embed_dim_of
from contextframe_beam.store.address import Address, first_line
from contextframe_beam.store.files import WrittenFragment, open_dataset
from contextframe_beam.store.rows import any_row
from contextframe_beam.store.transaction import Pending, change, changing
from contextframe_beam.store.versions import indexing, missing_dataset, open_newest

__all__ = [
    "TASK_ROWS",
    "WORTH_AN_INDEX",
    "IndexModel",
    "IndexPart",
    "IndexTask",
    "commit_parts",
    "count_vectors",
    "do_index_task",
    "has_vectors",
    "is_current",
    "nearest_rows",
    "parts_to_merge",
    "plan_index",
    "similarity",
    "update_vector_index",
    "vector_index",
    "vectors_without_index",
]

COLUMN = "vector"

#: With fewer vectors an index saves about a tenth of a second a search.
WORTH_AN_INDEX = 50_000

#: Rows of a part of the index, about.
TASK_ROWS = 1_000_000

# Rows of a partition, about.
_PARTITION_ROWS = 1_600

# Vectors for each partition, from which the centres are learnt.
_SAMPLE_RATE = 256

# Partitions that are searched at least, and the share of them where there are many. With fewer,
# more of the nearest vectors are missed than one in twenty: see benchmarks/search_run.py.
_PROBES = 20
_PROBED_SHARE = 0.25

# So many times the wanted vectors are compared again, whole.
_REFINE = 5

# Up to this many filtered rows are compared one by one, which is exact.
_FEW_ROWS = 10_000

# Of other lengths Lance makes no IVF_RQ; its vectors stay whole then.
_RQ_MULTIPLE = 8
_KINDS = {"rq": "IVF_RQ", "flat": "IVF_FLAT"}
_NAME = "vector_idx"


def vector_index(dataset: LanceDataset) -> Any | None:
    """Returns Lance's description of the vector index, or None without an index."""
    found = (one for one in dataset.describe_indices() if list(one.field_names) == [COLUMN])
    return next(found, None)


def nearest_rows(
    dataset: LanceDataset,
    vector: Vectors,
    limit: int,
    *,
    metric: str,
    columns: Sequence[str],
    condition: str | None,
    filtered: bool,
) -> pa.Table:
    """Finds the rows whose vectors are nearest, nearest first, with their `_distance`.

    Where a filter leaves few rows, they are compared one by one. Otherwise the more partitions are
    searched the fewer of their rows it leaves.

    Args:
        dataset: What to search.
        vector: The vector of the question.
        limit: The most rows to return.
        metric: How vectors are compared: cosine, dot or l2.
        columns: What to read of the rows.
        condition: SQL that the rows fulfil.
        filtered: Whether the condition may leave out many rows.
    """
    nearest: dict[str, Any] = {"column": COLUMN, "q": vector, "k": limit, "metric": metric}
    index = vector_index(dataset)
    if index is not None:
        probes = max(_PROBES, _PROBED_SHARE * _partitions(index))
        if filtered:
            left = dataset.count_rows(filter=condition)
            nearest["use_index"] = left > _FEW_ROWS
            probes *= dataset.count_rows() / max(left, 1)
        nearest |= {"minimum_nprobes": math.ceil(probes), "refine_factor": _REFINE}
    scanner = dataset.scanner(
        columns=[*columns, "_distance"],
        filter=condition,
        prefilter=True,
        nearest=nearest,
        with_row_address=True,
    )
    return scanner.to_table()


def _partitions(index: Any) -> float:
    """Returns about how many partitions each part of an index has; to count them takes longer."""
    rows = int(index.num_rows_indexed) / max(len(index.segments), 1)
    return rows / _PARTITION_ROWS


def similarity(distance: float, metric: str) -> float:
    """Returns how near two vectors are, the larger the nearer; of equal ones it is about 1."""
    return 1 / (1 + distance) if metric == "l2" else 1 - distance


@dataclass(frozen=True)
class IndexModel:
    """What the parts of an index have in common, without which they could never become one.

    Attributes:
        centres: The centres of the partitions, float32, a row each.
        rotation: How vectors are rotated before they become bits, as Lance writes it; None where
            vectors stay whole.
    """

    centres: Vectors
    rotation: str | None


@dataclass(frozen=True)
class IndexTask:
    """A part of an index that is to be made.

    Attributes:
        version: The version of the dataset whose rows it holds.
        files: The data files of each fragment, by the fragment's id.
        rows: How many rows that are.
        metric: How vectors are compared.
        kind: What Lance calls the kind of the index.
        model: What it shares with other parts; None for the only one.
    """

    version: int
    files: dict[int, tuple[str, ...]]
    rows: int
    metric: str
    kind: str
    model: IndexModel | None = None


@dataclass(frozen=True)
class IndexPart:
    """A part of an index that is made and that no search uses yet.

    Attributes:
        task: What it was to be.
        made: Lance's description of it.
    """

    task: IndexTask
    made: Any


def is_current(dataset: LanceDataset, metric: str) -> bool:
    """Returns whether there is a vector index that compares vectors as it should."""
    index = vector_index(dataset)
    return index is not None and str(index.details.get("metric_type", "")).lower() == metric


def vectors_without_index(dataset: LanceDataset) -> int:
    """Returns how many vectors of ours a dataset holds that an index would pay for, or 0.

    No vector is read for it.
    """
    is_small = dataset.count_rows() < WORTH_AN_INDEX
    if is_small or "x_embedder" not in dataset.schema.names or vector_index(dataset) is not None:
        return 0
    count = int(dataset.count_rows(filter="x_embedder IS NOT NULL"))
    return count if count >= WORTH_AN_INDEX else 0


def count_vectors(dataset: LanceDataset) -> int:
    """Returns how many vectors a dataset holds, those that nobody says whose they are included."""
    return int(dataset.count_rows(filter=f"{COLUMN} IS NOT NULL"))


def has_vectors(dataset: LanceDataset, fragments: Sequence[LanceFragment] | None = None) -> bool:
    """Returns whether any row of a dataset, or of some of its fragments, has a vector."""
    return any_row(dataset, f"{COLUMN} IS NOT NULL", fragments)


def plan_index(dataset: LanceDataset, metric: str, task_rows: int = TASK_ROWS) -> list[IndexTask]:
    """Returns the tasks that make a vector index of all rows; empty without vectors.

    Args:
        dataset: What to index.
        metric: How vectors are compared: cosine, dot or l2.
        task_rows: The rows of a task, about.
    """
    has_bits = embed_dim_of(dataset.schema) % _RQ_MULTIPLE == 0
    kind = _KINDS["rq" if has_bits else "flat"]
    parts = _parts(dataset, task_rows)
    model = _trained(dataset, metric, max(map(_rows_of, parts)), kind) if len(parts) > 1 else None
    return [
        IndexTask(
            int(dataset.version),
            {one.fragment_id: _files_of(one) for one in fragments},
            _rows_of(fragments),
            metric,
            kind,
            model,
        )
        for fragments in parts
    ]


def _trained(dataset: LanceDataset, metric: str, rows: int, kind: str) -> IndexModel:
    """Returns the model of parts of so many rows at most, from a sample of all vectors."""
    partitions = _partitions_for(rows)
    sample = max(1, min(_SAMPLE_RATE, dataset.count_rows() // partitions))
    ivf = IndicesBuilder(dataset, COLUMN).train_ivf(
        partitions, distance_type=metric, sample_rate=sample
    )
    dim = embed_dim_of(dataset.schema)
    centres = ivf.centroids.values.to_numpy(zero_copy_only=False).reshape(-1, dim)
    rotation = lance_indices.build_rq_model(dim) if kind == _KINDS["rq"] else None
    return IndexModel(centres, rotation)


def _partitions_for(rows: int) -> int:
    return max(round(rows / _PARTITION_ROWS), 1)


def _parts(dataset: LanceDataset, task_rows: int) -> list[list[LanceFragment]]:
    """Returns fragments by part; each part has vectors, without which it could not be made."""
    parts: list[list[LanceFragment]] = []
    rest: list[LanceFragment] = []
    for fragment in dataset.get_fragments():
        rest.append(fragment)
        if _rows_of(rest) >= task_rows and has_vectors(dataset, rest):
            parts.append(rest)
            rest = []
    if rest and has_vectors(dataset, rest):
        parts.append(rest)
    elif parts:
        parts[-1] += rest
    return parts


def _rows_of(fragments: Iterable[LanceFragment]) -> int:
    return sum(int(one.metadata.num_rows) for one in fragments)


def do_index_task(at: Address, task: IndexTask) -> IndexPart:
    """Makes a part of the index, which no search uses yet.

    Raises:
        DatasetError: it cannot be written, or the version of the plan is gone.
    """
    dataset = open_dataset(at, task.version)
    if dataset is None:
        raise missing_dataset(at.uri)
    model = task.model
    shared: dict[str, Any] = {"num_partitions": _partitions_for(task.rows)}
    if model is not None:
        shared = {"num_partitions": len(model.centres), "ivf_centroids": model.centres}
        shared |= {} if model.rotation is None else {"rabitq_model": model.rotation}
    try:
        made = dataset.create_index_uncommitted(
            COLUMN,
            task.kind,
            name=_name(dataset),
            metric=task.metric,
            replace=True,
            fragment_ids=list(task.files),
            **shared,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise DatasetError(
            f"cannot make the vector index of {at.uri}: {first_line(error)}; the dataset is as it "
            "was. Check space and permissions there"
        ) from error
    return IndexPart(task, made)


def commit_parts(at: Address, parts: Iterable[IndexPart]) -> int:
    """Makes parts the vector index of the dataset, in the place of one that is there.

    Called again with the same parts it does nothing. Fragments that were compacted away meanwhile
    are no part of it any more: their rows are found without the index, until `compact` brings them
    in.

    Returns:
        How many parts were committed; those of a dataset that was overwritten or rolled back
        meanwhile are not.

    Raises:
        ConcurrentRunError: runs kept coming first.
        UnknownCommitError: the object store does not tell whether it was committed.
        DatasetError: it cannot be committed; the documents are as they were.
    """
    # A task that was done twice counts once.
    unique = {tuple(part.task.files): part for part in parts}

    def fitting_in(dataset: LanceDataset) -> list[IndexPart]:
        stored = {one.fragment_id: _files_of(one) for one in dataset.get_fragments()}
        return [part for part in unique.values() if _fits(part.task, stored)]

    def build(_: list[WrittenFragment]) -> Pending[int] | int:
        dataset = open_newest(at)
        fitting = fitting_in(dataset)
        index = vector_index(dataset)
        known = {str(one.uuid) for one in index.segments} if index is not None else set()
        if known.issuperset(str(part.made.uuid) for part in fitting):
            return len(fitting)

        committed = 0

        def commit() -> LanceDataset:
            nonlocal committed
            # The vectors may just be replaced by others, and Lance commits an index of none.
            with indexing(at) as newest:
                made = [part.made for part in fitting_in(newest)]
                committed = len(made)
                if not made:
                    return newest
                return newest.commit_existing_index_segments(_name(newest), COLUMN, made)

        return Pending(
            lambda: changing(at.uri, commit, "make the vector index of"), lambda _: committed
        )

    return change(at, build)


def parts_to_merge(rows_of_parts: Sequence[int], new_rows: int) -> int:
    """Returns how many of the last parts of an index become one with new rows.

    Lance would make a part of each addition. Every part is searched, and fragments of two parts are
    never put together, so the parts are kept few: each is at least twice as large as the
    next, and so their number grows with the logarithm of the rows.

    Args:
        rows_of_parts: The rows of each part, in the order in which they were made.
        new_rows: How many rows are to come in.
    """
    merged, size = 0, new_rows
    for rows in reversed(rows_of_parts):
        if rows >= 2 * size:
            break
        merged, size = merged + 1, size + rows
    return merged


def update_vector_index(dataset: LanceDataset, name: str) -> None:
    """Brings the rows that a vector index does not know into it, in a commit of Lance's own."""
    stats = dataset.stats.index_stats(name)
    merged = parts_to_merge(stats["num_indexed_rows_per_delta"], int(stats["num_unindexed_rows"]))
    dataset.optimize.optimize_indices(index_names=[name], num_indices_to_merge=merged)


def _fits(task: IndexTask, stored: dict[int, tuple[str, ...]]) -> bool:
    """Returns whether what a part says of fragments is true of those that there are now."""
    known = [number for number in task.files if number in stored]
    return bool(known) and all(stored[number] == task.files[number] for number in known)


def _files_of(fragment: LanceFragment) -> tuple[str, ...]:
    return tuple(str(file.path) for file in fragment.metadata.files)


def _name(dataset: LanceDataset) -> str:
    index = vector_index(dataset)
    return _NAME if index is None else str(index.name)
