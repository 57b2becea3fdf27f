"""Rows that are stored already, known by their digests."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa

from contextframe_beam.dataset import sql_literal
from contextframe_beam.fragments import StorageOptions, open_dataset

#: Beyond this many digests a worker does not keep them; everything is written anew then.
MAX_DIGESTS = 20_000_000

_HALVES = np.dtype([("high", ">u8"), ("low", ">u8")])


class KnownDigests:
    """The digests of a source's stored rows, 16 bytes each, searched by halves.

    Args:
        digests: An Arrow array of 16-byte binaries without nulls.
    """

    def __init__(self, digests: pa.Array) -> None:
        pairs = _pairs_of(digests)
        order = np.lexsort((pairs["low"], pairs["high"]))
        self._high = pairs["high"][order].astype(np.uint64)
        self._low = pairs["low"][order].astype(np.uint64)

    def __len__(self) -> int:
        return len(self._high)

    def contains(self, digests: pa.Array) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Tells for each digest whether a stored row has it."""
        pairs = _pairs_of(digests)
        high, low = pairs["high"].astype(np.uint64), pairs["low"].astype(np.uint64)
        first = np.searchsorted(self._high, high, side="left")
        last = np.searchsorted(self._high, high, side="right")
        found = np.zeros(len(high), np.bool_)
        for index in np.flatnonzero(first < last):
            found[index] = low[index] in self._low[first[index] : last[index]]
        return found


def _pairs_of(digests: pa.Array) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    data = digests.buffers()[1]
    return np.frombuffer(data, _HALVES, count=len(digests), offset=digests.offset * 16)


@lru_cache(maxsize=4)
def known_digests(
    uri: str, version: int, source: str, storage_options: tuple[tuple[str, str], ...]
) -> KnownDigests:
    """Returns the digests of a source's rows in a version; loaded once a process.

    Empty when there are more than `MAX_DIGESTS`.
    """
    options: StorageOptions = dict(storage_options)
    dataset = open_dataset(uri, options, version)
    digests = pa.array([], pa.binary(16))
    if dataset is not None:
        table = dataset.to_table(
            columns=["x_digest"],
            filter=f"x_source = {sql_literal(source)} AND x_digest IS NOT NULL",
            limit=MAX_DIGESTS + 1,
        )
        if table.num_rows <= MAX_DIGESTS:
            digests = table["x_digest"].combine_chunks()
    return KnownDigests(digests)
