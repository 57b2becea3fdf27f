"""Rows that are stored already, known by their digests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from contextframe_beam.dataset import sql_literal
from contextframe_beam.fragments import StorageOptions, open_dataset
from contextframe_beam.transforms._keys import Fingerprints, Mask, contains, fingerprints

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

    def contains(self, digests: pa.Array) -> Mask:
        """Tells for each digest whether a stored row has it."""
        pairs = _pairs_of(digests)
        high, low = pairs["high"].astype(np.uint64), pairs["low"].astype(np.uint64)
        found = np.zeros(len(high), np.bool_)
        rows, places = np.arange(len(high)), np.searchsorted(self._high, high)
        # Digests with the same first half follow each other; there is hardly ever a second one.
        while len(rows):
            rows, places = rows[places < len(self)], places[places < len(self)]
            alike = self._high[places] == high[rows]
            rows, places = rows[alike], places[alike]
            found[rows] |= self._low[places] == low[rows]
            rows, places = rows[~found[rows]], places[~found[rows]] + 1
        return found


def heads_of(digests: pa.Array) -> Fingerprints:
    """Returns the first 8 bytes of each digest as a number."""
    return _pairs_of(digests)["high"].astype(np.uint64)


def _pairs_of(digests: pa.Array) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    if not len(digests):
        return np.zeros(0, _HALVES)
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


class LeftAlone:
    """The stored rows that a run met unchanged, and so did not write.

    Args:
        heads: The first 8 bytes of their digests, as `heads_of` gives them, in pieces.
    """

    def __init__(self, heads: Iterable[bytes]) -> None:
        met = np.frombuffer(b"".join(heads), np.uint64)
        self._heads = np.unique(met)
        #: How many items of the run were such rows.
        self.items = len(met)

    def __len__(self) -> int:
        return len(self._heads)

    def rows_of(self, dataset: Any, keys: pa.ChunkedArray, columns: Sequence[str]) -> pa.Table:
        """Returns those of the rows whose uuid is among `keys`, in the version met."""
        wanted = np.sort(fingerprints(keys))
        found: list[np.ndarray[Any, Any]] = []
        offset = 0
        for batch in dataset.scanner(columns=["uuid", "x_digest"]).to_batches():
            digests = batch.column("x_digest")
            rows = np.flatnonzero(digests.is_valid().to_numpy(zero_copy_only=False))
            rows = rows[contains(self._heads, heads_of(digests)[rows])]
            if len(rows):
                uuids = pa.chunked_array([batch.column("uuid").take(pa.array(rows))])
                found.append(offset + rows[contains(wanted, fingerprints(uuids))])
            offset += batch.num_rows
        return dataset.take(np.concatenate([*found, np.zeros(0, np.int64)]), columns=list(columns))
