"""Rows that are stored already, known by their digests, and which of them a run met.

What was met goes to the commit as row numbers of the version that the run began with, which are
exact and take a byte or so a row.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contextframe_beam.address import StorageOptions
from contextframe_beam.dataset import sql_literal
from contextframe_beam.errors import DatasetError
from contextframe_beam.fragments import open_dataset
from contextframe_beam.keys import Numbers, NumberSet
from contextframe_beam.removal import Addresses, Places, RowNumbers, scan_rows

#: Beyond this many stored rows a worker does not keep their digests; all is written anew then.
MAX_DIGESTS = 20_000_000

#: So many digests are looked up by one scan that keeps nothing; with more all stored ones are kept.
FEW_DIGESTS = 16_384


class StoredRows:
    """The rows of one source in one version of a dataset, known by their digests.

    Args:
        dataset: The version.
        source: The source's id.
    """

    def __init__(self, dataset: lance.LanceDataset, source: str) -> None:
        self._dataset = dataset
        self._source = source
        self._numbers = RowNumbers(dataset)
        self._asked = 0
        self._known: tuple[NumberSet, Places] | None = None

    def find(self, digests: Numbers) -> Places:
        """Returns the number of the stored row that has each digest, the first one; -1 if none.

        Nothing is found when the source has more than `MAX_DIGESTS` rows and more digests than
        `FEW_DIGESTS` are asked for.
        """
        self._asked += len(digests)
        if self._known is None and self._asked <= FEW_DIGESTS:
            return self._look_for(digests)
        if self._known is None:
            self._known = self._load()
        known, numbers = self._known
        places = known.find(digests)
        return np.where(places >= 0, numbers[places], -1) if len(known) else places

    def _look_for(self, digests: Numbers) -> Places:
        asked = NumberSet(digests)
        nowhere = np.iinfo(np.int64).max
        found = np.full(len(digests) + 1, nowhere, np.int64)
        for batch, addresses in scan_rows(self._dataset, ["x_digest", "x_source"]):
            places = asked.find(Numbers.of_digests(batch.column("x_digest")))
            rows = np.flatnonzero(places >= 0)
            if len(rows):
                ours = self._is_ours(batch.take(pa.array(rows)))
                rows = rows[ours]
                np.minimum.at(found, places[rows], self._numbers.of(addresses[rows]))
        numbers = found[asked.find(digests)]
        return np.where(numbers == nowhere, -1, numbers)

    def _is_ours(self, rows: pa.RecordBatch) -> Any:
        ours = pc.equal(rows.column("x_source"), self._source)
        there = pc.and_(pc.fill_null(ours, False), rows.column("x_digest").is_valid())
        return there.to_numpy(zero_copy_only=False)

    def _load(self) -> tuple[NumberSet, Places]:
        condition = f"x_source = {sql_literal(self._source)} AND x_digest IS NOT NULL"
        digests: list[Numbers] = []
        addresses: list[Addresses] = []
        if (
            self._dataset.count_rows() <= MAX_DIGESTS
            or self._dataset.count_rows(filter=condition) <= MAX_DIGESTS
        ):
            for batch, at in scan_rows(self._dataset, ["x_digest"], filter=condition):
                digests.append(Numbers.of_digests(batch.column("x_digest")))
                addresses.append(at)
        numbers = self._numbers.of(np.concatenate([*addresses, np.zeros(0, np.uint64)]))
        # In the order of the rows, so that the first one of several is found.
        order = np.argsort(numbers)
        return NumberSet(Numbers.concat(digests).take(order)), numbers[order]


@lru_cache(maxsize=4)
def stored_rows(
    uri: str,
    version: int,
    run_id: str,
    source: str,
    storage_options: tuple[tuple[str, str], ...],
) -> StoredRows:
    """Returns a source's rows in a version; what is loaded is loaded once a process and run.

    Another run may find another dataset of that version, made anew in its place.
    """
    options: StorageOptions = dict(storage_options)
    dataset = open_dataset(uri, options, version)
    if dataset is None:
        raise DatasetError(f"there is no dataset at {uri} any more")
    return StoredRows(dataset, source)


def pack(numbers: Places) -> bytes:
    """Returns row numbers as bytes; those of rows that were met one after another take least."""
    ordered = np.sort(numbers)
    return zlib.compress(np.diff(ordered, prepend=0).astype("<u8").tobytes(), 1)


def unpack(packed: Iterable[bytes]) -> Places:
    """Returns the row numbers that were packed, each once, in order."""
    return unpack_counted(packed)[0]


def unpack_counted(packed: Iterable[bytes]) -> tuple[Places, Places]:
    """Returns the row numbers that were packed, each once, in order, and how often each was."""
    parts = [
        np.cumsum(np.frombuffer(zlib.decompress(part), "<u8"), dtype=np.int64) for part in packed
    ]
    together = np.concatenate([*parts, np.zeros(0, np.int64)])
    return np.unique(together, return_counts=True)
