"""The stored rows that a run met unchanged, and those of its sources that it did not.

A run knows them by their numbers in the version that it began with. When it commits, the dataset
may have gone on: other sources' runs, edits by hand and compaction move or remove rows, never
change one. So in data files that are still there a row is known by its place in them, and
elsewhere by its key.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contextframe_beam.keys import KeySet, Mask
from contextframe_beam.removal import (
    Addresses,
    Places,
    RowNumbers,
    file_of,
    find_rows,
    no_addresses,
    scan_rows,
)
from contextframe_beam.transforms._duplicates import Shared
from contextframe_beam.transforms._unchanged import unpack_counted


class SeenRows:
    """The rows that a run met unchanged.

    Args:
        base: The version that the run began with.
        packed: Their numbers in it, as `pack` gives them, in pieces.
    """

    def __init__(self, base: lance.LanceDataset, packed: Iterable[bytes]) -> None:
        self._base = base
        self._numbering = RowNumbers(base)
        self._numbers, self._counts = unpack_counted(packed)

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def shared(self) -> Shared:
        """Items of one id that are the same, and so are one row."""
        return Shared.of(self._counts)

    def of_keys(self, keys: KeySet, columns: Sequence[str]) -> pa.Table:
        """Returns those of the rows whose uuid is among `keys`.

        Returns:
            The columns, and `met`: how many items of the run each of them is.
        """
        addresses, _ = find_rows(self._base, keys)
        wanted = addresses[self._among(self._numbering.of(addresses))]
        found: list[Places] = [np.zeros(0, np.int64)]
        counts: list[Places] = [np.zeros(0, np.int64)]
        if len(wanted):
            # Lance takes rows by their rank among those that are left.
            rank = 0
            for batch in self._base.scanner(columns=[], with_row_address=True).to_batches():
                at = batch.column("_rowaddr").to_numpy()
                here = np.flatnonzero(_contains(wanted, at))
                found.append(rank + here)
                numbers = self._numbering.of(at[here])
                counts.append(self._counts[np.searchsorted(self._numbers, numbers)])
                rank += batch.num_rows
        rows = self._base.take(np.concatenate(found), columns=list(columns))
        return rows.append_column("met", pa.array(np.concatenate(counts)))

    def others(self, dataset: lance.LanceDataset, sources: Sequence[str]) -> Addresses:
        """Returns the addresses of all other rows of the sources, in a later version.

        Args:
            dataset: The version; it may be the one that the run began with.
            sources: The ids of the sources.
        """
        if dataset.version == self._base.version:
            addresses = rows_of_sources(dataset, sources)
            return addresses[~self._among(self._numbering.of(addresses))]
        before = {file_of(one): one.fragment_id for one in self._base.get_fragments()}
        same = {
            fragment.fragment_id: before[file_of(fragment)]
            for fragment in dataset.get_fragments()
            if file_of(fragment) in before
        }
        gone = [
            fragment
            for fragment in self._base.get_fragments()
            if fragment.fragment_id not in same.values()
        ]
        moved = self._keys_in(gone)
        others = [no_addresses()]
        for batch, at in scan_rows(dataset, ["uuid", "x_source"]):
            ours = _is_of(batch, sources)
            fragments = at >> np.uint64(32)
            for fragment in np.unique(fragments).tolist():
                here = np.flatnonzero(ours & (fragments == fragment))
                if not len(here):
                    continue
                if fragment in same:
                    offsets = at[here] & np.uint64(0xFFFFFFFF)
                    stayed = np.uint64(same[fragment] << 32) | offsets
                    seen = self._among(self._numbering.of(stayed))
                else:
                    seen = moved.contains(batch.column("uuid").take(pa.array(here)))
                others.append(at[here[~seen]])
        return np.concatenate(others)

    def _keys_in(self, fragments: Sequence[Any]) -> KeySet:
        """Returns the keys of the rows that were met in some fragments of the first version."""
        keys = [pa.array([], pa.string())]
        if fragments:
            for batch, at in scan_rows(self._base, ["uuid"], fragments=list(fragments)):
                seen = self._among(self._numbering.of(at))
                keys.append(batch.column("uuid").filter(pa.array(seen)))
        return KeySet.of(keys)

    def _among(self, numbers: Places) -> Mask:
        return _contains(self._numbers, numbers)


def rows_of_sources(dataset: lance.LanceDataset, sources: Sequence[str]) -> Addresses:
    """Returns the addresses of all rows of some sources, their state rows included."""
    found = [no_addresses()]
    for batch, addresses in scan_rows(dataset, ["x_source"]):
        found.append(addresses[_is_of(batch, sources)])
    return np.concatenate(found)


def _is_of(batch: pa.RecordBatch, sources: Sequence[str]) -> Mask:
    wanted = pa.array(list(sources), pa.string())
    found: Mask = pc.is_in(batch.column("x_source"), value_set=wanted).to_numpy(
        zero_copy_only=False
    )
    return found


def _contains(ordered: Any, values: Any) -> Mask:
    if not len(ordered):
        return np.zeros(len(values), np.bool_)
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    found: Mask = ordered[places] == values
    return found
