"""Who may read documents that a run left as they are: the commit writes it into their rows.

A share that was given or taken away changes no text. So the source is asked who may read a document
even if the document itself is recognised as stored. Where the answer is another one, the rows of
the document and of its chunks are written anew, with everything else as it was. The same is done
with what documents are filed in, since a renamed folder changes no text of what is in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh3_64_intdigest

from contextframe_beam.connectors.page import Tally
from contextframe_beam.frames.encode import decode_rows, encode_records
from contextframe_beam.frames.fields import OwnField
from contextframe_beam.frames.record import FrameRecord
from contextframe_beam.store.files import Destination, WrittenFragment
from contextframe_beam.store.keys import KeySet, Numbers, NumberSet
from contextframe_beam.store.rows import Addresses, any_row, find_chunks, find_rows, scan_rows
from contextframe_beam.store.runs import NO_SOURCE
from contextframe_beam.store.writer import preview

__all__ = [
    "Reshared",
    "collection_mark",
    "collection_marks",
    "collections_told",
    "mark_of",
    "marks_of",
    "readers_appended",
    "readers_told",
]

#: Who may read a document; None where that is unknown.
Readers = tuple[str, ...] | None

# So many rows are read and written together, but always a document with all its chunks.
_ROWS_TOGETHER = 1024
_DOCUMENT_COLUMNS = ("uuid", "x_source", "x_digest", "x_readers", "collection")


def mark_of(readers: Sequence[str] | None) -> int:
    """Returns a number for some readers, by which they are compared with stored ones."""
    return 0 if readers is None else xxh3_64_intdigest("\0".join(readers).encode())


def marks_of(stored: pa.Array) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Returns the numbers of a column of readers; most documents share a few sets of them."""
    if stored.null_count == len(stored):
        return np.zeros(len(stored), np.uint64)
    coded = pc.dictionary_encode(pc.binary_join(stored, "\0"))
    known = [xxh3_64_intdigest(one.encode()) for one in coded.dictionary.to_pylist()]
    places = pc.fill_null(coded.indices, len(known)).to_numpy(zero_copy_only=False)
    marks: np.ndarray[Any, np.dtype[np.uint64]] = np.array([*known, 0], np.uint64)[places]
    return marks


def collection_mark(collection: str | None) -> int:
    """Returns a number for what a document is filed in, by which it is compared."""
    return 0 if collection is None else xxh3_64_intdigest(collection.encode())


def collection_marks(stored: pa.Array) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Returns the numbers of a column of collections, of which many documents share each."""
    coded = pc.dictionary_encode(stored)
    known = [*map(collection_mark, coded.dictionary.to_pylist()), 0]
    places = pc.fill_null(coded.indices, len(known) - 1).to_numpy(zero_copy_only=False)
    marks: np.ndarray[Any, np.dtype[np.uint64]] = np.array(known, np.uint64)[places]
    return marks


def collections_told(tallies: Iterable[Tally]) -> dict[bytes, str]:
    """Returns what documents are filed in by what a run was told, by their keys, 16 bytes each."""
    return {
        keys[start : start + 16]: collection
        for tally in tallies
        for collection, keys in tally.collections.items()
        for start in range(0, len(keys), 16)
    }


def readers_told(tallies: Iterable[Tally]) -> dict[bytes, Readers]:
    """Returns the readers that a run was told, by the keys of documents, 16 bytes each.

    Where it was told different readers of one document, nobody knows who may read it.
    """
    told: dict[bytes, Readers] = {}
    for tally in tallies:
        for readers, keys in tally.readers.items():
            for start in range(0, len(keys), 16):
                key = keys[start : start + 16]
                told[key] = readers if told.get(key, readers) == readers else None
    return told


def readers_appended(
    dataset: lance.LanceDataset,
    destination: Destination,
    schema: pa.Schema,
    fragments: Sequence[WrittenFragment],
    keys: Numbers,
) -> dict[bytes, Readers]:
    """Returns who may read documents of which a run adds one more state, by their keys.

    Earlier states stay, and are for the same readers as the newest.

    Args:
        dataset: The version that the run is committed to.
        destination: The dataset that its rows were written for.
        schema: Their columns.
        fragments: Their data files.
        keys: The keys of all of its rows.
    """
    if not fragments or not any_row(dataset, "x_readers IS NOT NULL"):
        return {}
    known = KeySet(keys)
    _, stored = find_rows(dataset, known)
    if not len(stored):
        return {}
    told: dict[bytes, Readers] = {}
    rows = preview(destination, schema, fragments)
    columns = ["uuid", "x_readers"]
    for batch, _ in scan_rows(rows, columns, filter="x_parent IS NULL"):
        both = batch.filter(pa.array(np.isin(known.find(batch["uuid"]), stored)))
        for uuid, readers in zip(
            both["uuid"].to_pylist(), both["x_readers"].to_pylist(), strict=True
        ):
            told[UUID(uuid).bytes] = None if readers is None else tuple(readers)
    return told


def _in_both(some: Readers, others: Readers) -> Readers:
    """Returns who is certain to be among both."""
    if some is None or others is None:
        return None
    if "anyone" in some:
        return others
    return some if "anyone" in others else tuple(one for one in some if one in others)


@dataclass(frozen=True)
class _Document:
    """A stored document that others may read now, or that is filed elsewhere.

    Attributes:
        address: The address of its row.
        key: Its uuid.
        digest: What its chunks have as their origin.
        source: The id of its source.
        readers: Who may read it from now on.
        collection: What it is filed in from now on; None where that stays.
    """

    address: int
    key: bytes
    digest: bytes | None
    source: str | None
    readers: Readers
    collection: str | None


class Reshared:
    """The stored documents whose readers or collections are others now, with their chunks.

    Args:
        dataset: The version that the run is committed to.
        told: The readers that the run was told, by the keys of documents.
        sources: The ids of the run's sources.
        others: Rows that the run removes anyway.
        collections: What documents are filed in by what the run was told, by their keys.
        doubtful: The keys of documents that failed: they lose readers, and get none.

    Attributes:
        with_other_readers: How many of them have other readers.
        with_other_collections: How many are filed elsewhere.
    """

    def __init__(
        self,
        dataset: lance.LanceDataset,
        told: Mapping[bytes, Readers],
        sources: Sequence[str],
        others: Addresses,
        collections: Mapping[bytes, str] | None = None,
        doubtful: Set[bytes] = frozenset(),
    ) -> None:
        self._dataset = dataset
        self.with_other_readers = self.with_other_collections = 0
        self._documents: list[_Document] = []
        self._chunks: dict[int, list[int]] = {}
        if told and not any(told.values()) and not any_row(dataset, "x_readers IS NOT NULL"):
            told = {}
        if told or collections:
            self._find_documents(told, collections or {}, sources, others, doubtful)
        if self._documents:
            self._find_chunks(others)

    def __len__(self) -> int:
        """The number of documents."""
        return len(self._documents)

    @property
    def rows(self) -> Addresses:
        """The addresses of all rows that are written anew."""
        documents = [one.address for one in self._documents]
        chunks = [address for own in self._chunks.values() for address in own]
        return np.array([*documents, *chunks], np.uint64)

    def batches(self, embed_dim: int, fields: Sequence[OwnField]) -> Iterator[pa.RecordBatch]:
        """Yields the rows with their new readers.

        Args:
            embed_dim: The vector length of the dataset.
            fields: Its own fields.
        """
        some: list[int] = []
        rows = 0
        for number in range(len(self._documents)):
            more = 1 + len(self._chunks.get(number, ()))
            if some and rows + more > _ROWS_TOGETHER:
                yield from self._written(some, embed_dim, fields)
                some, rows = [], 0
            some.append(number)
            rows += more
        if some:
            yield from self._written(some, embed_dim, fields)

    def _find_documents(
        self,
        told: Mapping[bytes, Readers],
        collections: Mapping[bytes, str],
        sources: Sequence[str],
        others: Addresses,
        doubtful: Set[bytes],
    ) -> None:
        named = list(dict.fromkeys([*told, *collections]))
        asked = KeySet(Numbers.of_bytes(b"".join(named)))
        has_readers = np.array([one in told for one in named])
        marks = np.array([mark_of(told.get(one)) for one in named], np.uint64)
        is_filed = np.array([one in collections for one in named])
        filed = np.array([collection_mark(collections.get(one)) for one in named], np.uint64)
        # Rows of records without a connector have no source.
        own = pa.array([None if one == NO_SOURCE else one for one in sources], pa.string())
        for batch, at in scan_rows(self._dataset, _DOCUMENT_COLUMNS, filter="x_parent IS NULL"):
            places = asked.find(batch.column("uuid"))
            ours = pc.is_in(batch.column("x_source"), value_set=own)
            found = (places >= 0) & ours.to_numpy(zero_copy_only=False) & ~np.isin(at, others)
            reshared = found & has_readers[places]
            reshared &= marks_of(batch.column("x_readers")) != marks[places]
            moved = found & is_filed[places]
            moved &= collection_marks(batch.column("collection")) != filed[places]
            self.with_other_collections += int(moved.sum())
            found = reshared | moved
            chosen = batch.filter(pa.array(found))
            for address, is_moved, digest, source, stored, place in zip(
                at[found].tolist(),
                moved[found].tolist(),
                chosen["x_digest"].to_pylist(),
                chosen["x_source"].to_pylist(),
                chosen["x_readers"].to_pylist(),
                places[found],
                strict=True,
            ):
                key = named[place]
                kept = None if stored is None else tuple(stored)
                readers = told.get(key, kept)
                # Of what failed, enrichers have not said who may read it: nobody is added.
                if key in doubtful:
                    readers = _in_both(readers, kept)
                self.with_other_readers += readers != kept
                if readers == kept and not is_moved:
                    continue
                self._documents.append(
                    _Document(address, key, digest, source, readers, collections.get(key))
                )

    def _find_chunks(self, others: Addresses) -> None:
        """Finds the chunks of each document: an append may have stored several states of one."""
        # Several sources may have appended a document with one key.
        by_key: dict[tuple[bytes, str | None], dict[bytes | None, int]] = {}
        for number, one in enumerate(self._documents):
            by_key.setdefault((one.key, one.source), {})[one.digest] = number
        keys = NumberSet(Numbers.of_bytes(b"".join(key for key, _ in by_key)))

        def collect(parents: Numbers, batch: pa.RecordBatch) -> Any:
            found = keys.contains(parents) & ~np.isin(batch["_rowaddr"], others)
            chosen = batch.filter(pa.array(found))
            for address, parent, source, origin in zip(
                chosen["_rowaddr"].to_pylist(),
                chosen["x_parent"].to_pylist(),
                chosen["x_source"].to_pylist(),
                chosen["x_origin"].to_pylist(),
                strict=True,
            ):
                states = by_key.get((parent, source))
                if states is None:
                    continue
                number = states.get(origin, next(iter(states.values())))
                self._chunks.setdefault(number, []).append(address)
            return found

        find_chunks(self._dataset, collect, ["x_source", "x_origin"])

    def _written(
        self, numbers: Sequence[int], embed_dim: int, fields: Sequence[OwnField]
    ) -> Iterator[pa.RecordBatch]:
        """Yields the rows of some documents, those of each source together."""
        owners: dict[int, int] = {}
        for number in numbers:
            owners[self._documents[number].address] = number
            owners.update(dict.fromkeys(self._chunks.get(number, ()), number))
        by_source: dict[str | None, list[tuple[int, FrameRecord]]] = {}
        for address, record in self._records(sorted(owners)):
            number = owners[address]
            document = self._documents[number]
            record.readers = None if document.readers is None else list(document.readers)
            if document.collection is not None:
                record.metadata["collection"] = document.collection
            by_source.setdefault(document.source, []).append((number, record))
        for source, owned in by_source.items():
            rows, errors = encode_records(
                [record for _, record in owned],
                embed_dim=embed_dim,
                source=source,
                documents=[number for number, _ in owned],
                fields=fields,
            )
            for _, error in errors:
                raise error
            yield rows

    def _records(self, addresses: Sequence[int]) -> Iterator[tuple[int, FrameRecord]]:
        wanted = {address >> 32 for address in addresses}
        scanner = self._dataset.scanner(
            filter=f"_rowaddr IN ({', '.join(map(str, addresses))})",
            fragments=[one for one in self._dataset.get_fragments() if one.fragment_id in wanted],
            with_row_address=True,
            blob_handling="all_binary",
        )
        for batch in scanner.to_batches():
            yield from zip(batch["_rowaddr"].to_pylist(), decode_rows(batch), strict=True)
