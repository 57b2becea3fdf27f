"""Stored rows, found by their digests, and which of them a run found unchanged.

The commit gets these rows as row numbers of the version that the run began with. They are exact
and take about one byte for each row.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contextframe_beam.connectors.page import Tally
from contextframe_beam.errors import DatasetError
from contextframe_beam.store.address import Address, StorageOptions
from contextframe_beam.store.files import open_dataset
from contextframe_beam.store.filters import sql_literal
from contextframe_beam.store.keys import KeySet, Mask, Numbers, NumberSet
from contextframe_beam.store.rows import (
    Addresses,
    Places,
    RowNumbers,
    file_of,
    find_rows,
    no_addresses,
    scan_rows,
)
from contextframe_beam.transforms.newest import Shared

#: With more stored rows than this, a worker does not keep their digests, and writes all rows again.
MAX_DIGESTS = 20_000_000

#: Up to this many digests are looked up by a scan; for more, all stored digests are loaded.
FEW_DIGESTS = 16_384


class StoredRows:
    """The rows of one source in one version of a dataset, to find by their digests.

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
        """Returns the number of the first stored row with each digest, or -1.

        It finds nothing if the source has more than `MAX_DIGESTS` rows and there are more than
        `FEW_DIGESTS` digests to look up.
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
        # In the order of the rows, so that the first of several is found.
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
    """Returns a source's rows in a version; they are loaded once for each process and run.

    Another run may find another dataset with that version, made in its place.
    """
    options: StorageOptions = dict(storage_options)
    dataset = open_dataset(Address(uri, options), version)
    if dataset is None:
        raise DatasetError(f"there is no longer a dataset at {uri}")
    return StoredRows(dataset, source)


def pack(numbers: Places) -> bytes:
    """Returns row numbers as bytes; numbers in sequence take the least space."""
    ordered = np.sort(numbers)
    return zlib.compress(np.diff(ordered, prepend=0).astype("<u8").tobytes(), 1)


def unpack_all(packed: bytes) -> Places:
    """Returns the row numbers of one piece, in order, as often as they are in it."""
    return np.cumsum(np.frombuffer(zlib.decompress(packed), "<u8"), dtype=np.int64)


def unpack(packed: Iterable[bytes]) -> Places:
    """Returns packed row numbers, each once, in order."""
    return unpack_counted(packed)[0]


def unpack_counted(packed: Iterable[bytes]) -> tuple[Places, Places]:
    """Returns packed row numbers, each once, in order, and how often each occurred."""
    together = np.concatenate([*map(unpack_all, packed), np.zeros(0, np.int64)])
    return np.unique(together, return_counts=True)


@dataclass(frozen=True)
class Units:
    """Rows by what tells whether they are stored: a document and its chunks are one.

    Attributes:
        digests: The digest of each row; of a chunk that of its document, which is over all of them.
        is_chunk: Which rows are chunks.
        alone: Which are chunks that came without their document: nothing tells of these.
        has_chunks: Which are documents that came with chunks.
    """

    digests: Numbers
    is_chunk: Mask
    alone: Mask
    has_chunks: Mask

    @classmethod
    def of(cls, rows: pa.RecordBatch) -> Units:
        """Makes it of rows among which a document's chunks all are."""
        own = Numbers.of_digests(rows.column("x_digest"))
        parents = rows.column("x_parent")
        if parents.null_count == len(parents):
            none = np.zeros(len(own), np.bool_)
            return cls(own, none, none, none)
        is_chunk = parents.is_valid().to_numpy(zero_copy_only=False)
        known = rows.column("x_origin").is_valid().to_numpy(zero_copy_only=False)
        of_document = Numbers.of_digests(rows.column("x_origin"))
        together = is_chunk & known
        digests = Numbers(
            np.where(together, of_document.high, own.high),
            np.where(together, of_document.low, own.low),
        )
        has_chunks = NumberSet(digests.take(together)).contains(own) & ~is_chunk
        return cls(digests, is_chunk, is_chunk & ~known, has_chunks)

    @classmethod
    def concat(cls, parts: Iterable[Units]) -> Units:
        """Joins the rows of several batches, at least one."""
        parts = list(parts)
        return cls(
            Numbers.concat(part.digests for part in parts),
            np.concatenate([part.is_chunk for part in parts]),
            np.concatenate([part.alone for part in parts]),
            np.concatenate([part.has_chunks for part in parts]),
        )


class MetRows:
    """Collects the stored documents that a worker found unchanged, for the commit."""

    def __init__(self) -> None:
        self._alone: dict[str, list[Places]] = {}
        self._whole: dict[str, list[Places]] = {}

    def add(self, source: str, numbers: Places, has_chunks: Mask) -> None:
        """Adds the numbers of a source's documents, and of those found with all their chunks."""
        for known, mask in ((self._alone, ~has_chunks), (self._whole, has_chunks)):
            if mask.any():
                known.setdefault(source, []).append(numbers[mask])

    def tell(self, tallies: Mapping[str, Tally]) -> None:
        """Puts them into the tallies of their sources, with what was recognised before."""
        for source, numbers in self._alone.items():
            tallies[source].unchanged_rows = [pack(np.concatenate(numbers))]
        for source, tally in tallies.items():
            whole = [*map(unpack_all, tally.recognised_rows), *self._whole.get(source, ())]
            if whole:
                tally.recognised_rows = [pack(np.concatenate(whole))]


class SeenRows:
    """The rows of documents that a run found unchanged.

    Args:
        base: The version that the run began with.
        packed: Their numbers in that version, in pieces from `pack`.
        whole: The same for documents that were found with all their chunks.
    """

    def __init__(
        self, base: lance.LanceDataset, packed: Iterable[bytes], whole: Iterable[bytes] = ()
    ) -> None:
        self._base = base
        self._numbering = RowNumbers(base)
        whole = list(whole)
        self._numbers, self._counts = unpack_counted([*packed, *whole])
        self._whole = unpack(whole)

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def shared(self) -> Shared:
        """Equal items with the same id, which are one row."""
        return Shared.of(self._counts)

    def of_keys(self, keys: KeySet, columns: Sequence[str]) -> pa.Table:
        """Returns the rows whose uuid is among `keys`.

        Returns:
            The columns, and `items`: the number of the run's items that equal each row.
        """
        addresses, _ = find_rows(self._base, keys)
        wanted = addresses[self._among(self._numbering.of(addresses))]
        found: list[Places] = [np.zeros(0, np.int64)]
        counts: list[Places] = [np.zeros(0, np.int64)]
        if len(wanted):
            # Lance takes rows by their rank among the remaining ones.
            rank = 0
            for batch in self._base.scanner(columns=[], with_row_address=True).to_batches():
                at = batch.column("_rowaddr").to_numpy()
                here = np.flatnonzero(_contains(wanted, at))
                found.append(rank + here)
                numbers = self._numbering.of(at[here])
                counts.append(self._counts[np.searchsorted(self._numbers, numbers)])
                rank += batch.num_rows
        rows = self._base.take(np.concatenate(found), columns=list(columns))
        return rows.append_column("items", pa.array(np.concatenate(counts)))

    def keys(self, *, whole: bool) -> KeySet:
        """Returns the keys of documents that were found with all their chunks, or of the others."""
        keys = [pa.array([], pa.string())]
        if len(self._whole) if whole else len(self._numbers) > len(self._whole):
            for batch, at in scan_rows(self._base, ["uuid"]):
                numbers = self._numbering.of(at)
                with_chunks = _contains(self._whole, numbers)
                chosen = with_chunks if whole else self._among(numbers) & ~with_chunks
                keys.append(batch.column("uuid").filter(pa.array(chosen)))
        return KeySet.of(keys)

    def without(
        self, addresses: Addresses, dataset: lance.LanceDataset, sources: Sequence[str]
    ) -> Addresses:
        """Returns those of some documents of the sources that are not among them.

        Args:
            addresses: The documents, in a later version.
            dataset: The version; it may be the base version of the run.
            sources: The ids of the sources.
        """
        if dataset.version == self._base.version:
            return addresses[~self._among(self._numbering.of(addresses))]
        return np.intersect1d(addresses, self.others(dataset, sources))

    def others(self, dataset: lance.LanceDataset, sources: Sequence[str]) -> Addresses:
        """Returns the addresses of all other documents of the sources, in a later version.

        Args:
            dataset: The version; it may be the base version of the run.
            sources: The ids of the sources.
        """
        if dataset.version == self._base.version:
            return self.without(rows_of_sources(dataset, sources), dataset, sources)
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
        for batch, at in scan_rows(dataset, ["uuid", "x_source", "x_parent"]):
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
        """Returns the keys of the unchanged rows in some fragments of the first version."""
        keys = [pa.array([], pa.string())]
        if fragments:
            for batch, at in scan_rows(self._base, ["uuid"], fragments=list(fragments)):
                seen = self._among(self._numbering.of(at))
                keys.append(batch.column("uuid").filter(pa.array(seen)))
        return KeySet.of(keys)

    def _among(self, numbers: Places) -> Mask:
        return _contains(self._numbers, numbers)


def rows_of_sources(dataset: lance.LanceDataset, sources: Sequence[str]) -> Addresses:
    """Returns the addresses of all documents of some sources, and of their state rows."""
    found = [no_addresses()]
    for batch, addresses in scan_rows(dataset, ["x_source", "x_parent"]):
        found.append(addresses[_is_of(batch, sources)])
    return np.concatenate(found)


def _is_of(batch: pa.RecordBatch, sources: Sequence[str]) -> Mask:
    wanted = pa.array(list(sources), pa.string())
    ours = pc.is_in(batch.column("x_source"), value_set=wanted)
    found: Mask = pc.and_(ours, batch.column("x_parent").is_null()).to_numpy(zero_copy_only=False)
    return found


def _contains(ordered: Any, values: Any) -> Mask:
    if not len(ordered):
        return np.zeros(len(values), np.bool_)
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    found: Mask = ordered[places] == values
    return found
