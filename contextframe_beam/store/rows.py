"""Rows of a dataset: finds and removes them by key, and selects them by words.

Rows are found by one scan over the keys, which takes about 0.1 s for a million rows and no memory.
If there is an index on `uuid` and only a few keys, the index is used. Lance's own delete-only merge
joins all keys in limited memory, and fails if there are many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import lance
import numpy as np
import pyarrow as pa
from lance import LanceDataset

from contextframe_beam.errors import DatasetError
from contextframe_beam.store.address import first_line
from contextframe_beam.store.files import reading
from contextframe_beam.store.filters import sql_literal
from contextframe_beam.store.keys import KeySet, Mask, Numbers, text_of

#: Addresses of rows in one version: the fragment's id in the upper 32 bits, the offset below.
Addresses: TypeAlias = np.ndarray[Any, np.dtype[np.uint64]]
Places: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

#: Selects chunks, not documents and state rows.
CHUNKS = "x_parent IS NOT NULL"

# With more keys, a scan is faster than the index.
_FEW_KEYS = 1000
_THREADS = 8
_OFFSET_BITS = np.uint64(32)
_OFFSET = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True)
class Removal:
    """Rows to be removed from the fragments of one dataset version.

    Attributes:
        removed_fragment_ids: Fragments that lose all their rows.
        updated_fragments: Fragments that lose some of their rows.
        rows: The number of removed rows.
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
        **options: Options of Lance's scanner, such as `filter` or `fragments`.
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
        Their addresses in increasing order, and the place of each row's key in the set.

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
    """Writes the removal of rows to files, for a commit to the version of `dataset`.

    Args:
        dataset: One version.
        addresses: Addresses of rows in it, in any order, with or without repetitions.

    Raises:
        DatasetError: the removal cannot be written.
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
    """Removes the rows whose uuid is among `keys`, and their chunks; see `remove_rows`."""
    wanted = KeySet.of([keys])
    addresses, _ = find_rows(dataset, wanted)
    chunks = find_chunks(dataset, lambda parents, _: wanted.holds(parents))
    return remove_rows(dataset, np.concatenate([addresses, chunks]))


#: Gets the documents of chunks and the rows that say more of them, and marks some.
WhichChunks: TypeAlias = Callable[[Numbers, pa.RecordBatch], Mask]


def has_chunks(dataset: lance.LanceDataset) -> bool:
    """Returns whether a version holds chunks of documents."""
    with reading(dataset.uri):
        return "x_parent" in dataset.schema.names and any_row(dataset, CHUNKS)


def find_chunks(
    dataset: lance.LanceDataset, which: WhichChunks, columns: Sequence[str] = ()
) -> Addresses:
    """Returns the addresses of those chunks that are marked, in increasing order.

    Args:
        dataset: One version.
        which: Marks them, by the uuids of their documents.
        columns: What it looks at besides; there is also `_rowaddr`.

    Raises:
        DatasetError: the dataset cannot be read.
    """
    found = [no_addresses()]
    if "x_parent" in dataset.schema.names:
        with reading(dataset.uri):
            for batch, addresses in scan_rows(dataset, ["x_parent", *columns], filter=CHUNKS):
                parents = Numbers.of_digests(batch.column("x_parent"))
                found.append(addresses[which(parents, batch)])
    return np.sort(np.concatenate(found))


def keys_at(dataset: lance.LanceDataset, addresses: Addresses) -> KeySet:
    """Returns the keys of the rows at some addresses."""
    keys = [pa.array([], pa.string())]
    for batch, found in scan_rows(dataset, ["uuid"]) if len(addresses) else ():
        keys.append(batch.column("uuid").filter(pa.array(np.isin(found, addresses))))
    return KeySet.of(keys)


def chunks_among(dataset: lance.LanceDataset, addresses: Addresses) -> Mask:
    """Marks those of some rows that are chunks; the addresses are in increasing order."""
    chunks = find_chunks(dataset, lambda _, batch: np.isin(batch["_rowaddr"], addresses))
    among: Mask = np.isin(addresses, chunks)
    return among


def last_of_each_key(rows: pa.Table) -> pa.Table:
    """Returns the last row of each key, without the chunks of earlier states of a document.

    Args:
        rows: Documents and chunks, each chunk behind its document.
    """
    keys = rows["uuid"].to_pylist()
    last = {key: index for index, key in enumerate(keys)}
    if len(last) == rows.num_rows:
        return rows
    several = {key for key, count in Counter(keys).items() if count > 1}
    parents = [one and text_of(one) for one in rows["x_parent"].to_pylist()]
    return rows.take(
        [
            index
            for index in sorted(last.values())
            if parents[index] not in several or index > last[parents[index]]
        ]
    )


def _has_key_index(dataset: lance.LanceDataset) -> bool:
    return any(
        list(index.field_names) == ["uuid"] and index.index_type == "BTree"
        for index in dataset.describe_indices()
    )


def file_of(fragment: lance.LanceFragment) -> str:
    """Returns the name of a fragment's first data file, which is unique for ever."""
    return str(fragment.metadata.files[0].path)


class RowNumbers:
    """Numbers the rows of one version from 0, including deleted rows, fragment by fragment.

    A number means the same row on every machine that opens the version.
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


def any_row(
    dataset: LanceDataset,
    condition: str,
    fragments: Sequence[lance.LanceFragment] | None = None,
) -> bool:
    """Returns whether any row of a dataset, or of some fragments, fulfils a condition, as SQL."""
    scanner = dataset.scanner(
        columns=["uuid"],
        filter=condition,
        limit=1,
        fragments=None if fragments is None else list(fragments),
    )
    return bool(scanner.to_table().num_rows)


def rows_with_parts(
    dataset: LanceDataset,
    words: Sequence[str],
    condition: str | None,
    limit: int,
    columns: Sequence[str],
) -> pa.Table:
    """Returns the rows in whose text words stand, be it within others: those with most of them.

    A single letter or digit counts only as a whole word, because nearly every text contains it. It
    reads every text, about 3 million short ones in a second.

    Args:
        dataset: What to read.
        words: In small letters.
        condition: SQL that the rows fulfil.
        limit: The most to return.
        columns: What to return of them, beside their `_rowaddr`.
    """
    held = [
        f"regexp_like(lower(text_content), '\\b{word}\\b')"
        if len(word) == 1 and word.isascii() and word.isalnum()
        else f"contains(lower(text_content), {sql_literal(word)})"
        for word in words
    ]
    scanner = dataset.scanner(
        columns={
            **{name: name for name in columns},
            "held": " + ".join(f"cast({one} as int)" for one in held),
        },
        filter=" AND ".join([*([condition] if condition else []), f"({' OR '.join(held)})"]),
        with_row_address=True,
    )
    best: pa.Table | None = None
    for batch in scanner.to_batches():
        found = pa.Table.from_batches([batch])
        best = found if best is None else pa.concat_tables([best, found])
        if best.num_rows > limit:
            best = best.sort_by([("held", "descending"), ("uuid", "ascending")])[:limit]
    if best is None:
        return scanner.projected_schema.empty_table()
    return best.sort_by([("held", "descending"), ("uuid", "ascending")])
