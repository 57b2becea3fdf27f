"""Which rows a transaction removes, and how that is written down: a fragment a task, in parallel.

Rows are found by one scan over the keys, which costs about 0.1 s a million rows and no memory, or
through an index on `uuid` when there is one and the keys are few. Lance's own delete-only merge
holds all keys in a join of limited memory and fails when they are many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import lance
import numpy as np
import pyarrow as pa

from contextframe_beam._query import sql_literal
from contextframe_beam.errors import DatasetError
from contextframe_beam.fragments import first_line
from contextframe_beam.keys import KeySet

#: Addresses of rows in one version: the fragment's id in the upper 32 bits, the offset below.
Addresses: TypeAlias = np.ndarray[Any, np.dtype[np.uint64]]
Places: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

# With more keys a scan is faster than an index.
_FEW_KEYS = 1000
_THREADS = 8
_OFFSET_BITS = np.uint64(32)
_OFFSET = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True)
class Removal:
    """Rows to be removed from the fragments of one dataset version.

    Attributes:
        removed_fragment_ids: Fragments that lose all their rows.
        updated_fragments: Fragments that lose some.
        rows: Number of rows removed.
    """

    removed_fragment_ids: Sequence[int]
    updated_fragments: Sequence[Any]
    rows: int


def no_addresses() -> Addresses:
    """Returns an empty array of addresses."""
    return np.zeros(0, np.uint64)


def scan_rows(
    dataset: lance.LanceDataset, columns: Sequence[str], **options: Any
) -> Iterator[tuple[pa.RecordBatch, Addresses]]:
    """Yields columns of all rows, in no particular order, with the rows' addresses.

    Args:
        dataset: One version.
        columns: Their names.
        **options: Of Lance's scanner, such as `filter` or `fragments`.
    """
    scanner = dataset.scanner(
        columns=list(columns), with_row_address=True, scan_in_order=False, **options
    )
    for batch in scanner.to_batches():
        if batch.num_rows:
            yield batch, batch.column("_rowaddr").to_numpy()


def find_rows(dataset: lance.LanceDataset, keys: KeySet) -> tuple[Addresses, Places]:
    """Finds the rows whose uuid is among `keys`.

    Returns:
        Their addresses, in increasing order, and the place of each one's key in the set.

    Raises:
        DatasetError: the dataset cannot be read.
    """
    if not len(keys):
        return no_addresses(), np.zeros(0, np.int64)
    options: dict[str, Any] = {}
    if len(keys) <= _FEW_KEYS and _has_key_index(dataset):
        texts = map(sql_literal, keys.texts())
        options["filter"] = f"uuid IN ({', '.join(texts)})"
    addresses, places = [no_addresses()], [np.zeros(0, np.int64)]
    try:
        for batch, found_at in scan_rows(dataset, ["uuid"], **options):
            place = keys.find(batch.column("uuid"))
            rows = np.flatnonzero(place >= 0)
            if len(rows):
                addresses.append(found_at[rows])
                places.append(place[rows])
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"the keys of {dataset.uri} cannot be read: {first_line(error)}"
        ) from error
    found, place = np.concatenate(addresses), np.concatenate(places)
    order = np.argsort(found)
    return found[order], place[order]


def remove_rows(dataset: lance.LanceDataset, addresses: Addresses) -> Removal:
    """Writes down that rows are removed, to be committed to the version of `dataset`.

    Args:
        dataset: One version.
        addresses: Of rows that are in it; in any order, repeated or not.

    Raises:
        DatasetError: the removal cannot be written down.
    """
    addresses = np.unique(addresses)
    fragments, starts = np.unique(addresses >> _OFFSET_BITS, return_index=True)
    offsets = np.split((addresses & _OFFSET).astype(np.int64), starts[1:])

    def remove(task: tuple[int, Places]) -> tuple[int, Any]:
        fragment, rows = task
        found: Any = dataset.get_fragment(fragment)
        return fragment, found.delete_rows(rows.tolist())

    tasks = list(zip(fragments.tolist(), offsets, strict=False))
    try:
        with ThreadPoolExecutor(max_workers=_THREADS) as pool:
            done = list(pool.map(remove, tasks))
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"cannot remove rows from {dataset.uri}: {first_line(error)}; "
            "check space and permissions there"
        ) from error
    return Removal(
        [fragment for fragment, left in done if left is None],
        [left for _, left in done if left is not None],
        len(addresses),
    )


def remove_keys(dataset: lance.LanceDataset, keys: pa.Array) -> Removal:
    """Removes the rows whose uuid is among `keys`; see `remove_rows`."""
    addresses, _ = find_rows(dataset, KeySet.of([keys]))
    return remove_rows(dataset, addresses)


def _has_key_index(dataset: lance.LanceDataset) -> bool:
    return any(
        list(index.field_names) == ["uuid"] and index.index_type == "BTree"
        for index in dataset.describe_indices()
    )


def file_of(fragment: lance.LanceFragment) -> str:
    """Returns the name of a fragment's first data file, which no other one ever has."""
    return str(fragment.metadata.files[0].path)


class RowNumbers:
    """Numbers the rows of one version from 0 on, deleted ones included, fragment by fragment.

    Such a number means the same on every machine that opens the version.
    """

    def __init__(self, dataset: lance.LanceDataset) -> None:
        described = sorted(
            (fragment.metadata for fragment in dataset.get_fragments()), key=lambda one: one.id
        )
        self._ids = np.array([one.id for one in described], np.uint64)
        sizes = [0, *(one.physical_rows for one in described)]
        self._starts = np.cumsum(np.array(sizes, np.int64))

    def of(self, addresses: Addresses) -> Places:
        """Returns the numbers of rows at these addresses."""
        index = np.searchsorted(self._ids, addresses >> _OFFSET_BITS)
        return self._starts[index] + (addresses & _OFFSET).astype(np.int64)

    def addresses(self, numbers: Places) -> Addresses:
        """Returns the addresses of rows with these numbers."""
        index = np.searchsorted(self._starts, numbers, side="right") - 1
        offsets = (numbers - self._starts[index]).astype(np.uint64)
        return (self._ids[index] << _OFFSET_BITS) | offsets
