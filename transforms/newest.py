"""Keys that occur twice in one run: keeps the newest row, in any order of writing.

The rows are in data files before their commit. Their keys are known. The timestamps of doubled keys
are read, and files with rows to drop are written again without them. A stored row that the run
found unchanged, and so did not write, competes too, because an older row must not replace it. So
does a deletion. Chunks do not compete: they stay or go with their document.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import lance
import numpy as np
import pyarrow as pa

from contextframe_beam.errors import CommitError
from contextframe_beam.frames.encode import decode_rows
from contextframe_beam.frames.record import Deletion
from contextframe_beam.frames.times import parse
from contextframe_beam.store.address import first_line
from contextframe_beam.store.files import Destination, WrittenFragment, delete_files
from contextframe_beam.store.keys import Mask, Numbers, NumberSet, numbers_of
from contextframe_beam.store.writer import FragmentWriter, preview

#: The columns that decide between rows with the same key.
ORDER_COLUMNS = ("uuid", "uri", "updated_at", "custom_metadata", "x_encoding", "x_digest")

#: Before and after every time, in nanoseconds since 1970.
_EARLIEST, _LATEST = -(2**63), 2**63 - 1

_ROWS_AT_ONCE = 100_000
_BATCH_ROWS = 1024

_Integers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Deletions:
    """Deletions of one run; after `drop_duplicates` at most one for each key.

    Attributes:
        keys: The keys.
        times: The time of each deletion, in nanoseconds since 1970.
    """

    keys: Numbers
    times: _Integers

    @classmethod
    def of(cls, deletions: Iterable[Deletion]) -> Deletions:
        """Reads deletions; a deletion without a time counts as the latest."""
        found = list(deletions)
        keys, _ = numbers_of(pa.array([one.key for one in found], pa.string()))
        times = [_LATEST if (at := _time_of(one.time)) == _EARLIEST else at for one in found]
        return cls(keys, np.array(times, np.int64))

    @classmethod
    def concat(cls, parts: Iterable[Deletions]) -> Deletions:
        """Joins deletions."""
        parts = [*parts, cls.of([])]
        return cls(
            Numbers.concat(part.keys for part in parts),
            np.concatenate([part.times for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Shared:
    """Items that share an id, without times that show which one is the newest.

    Attributes:
        items: Their number.
        ids: The number of their ids.
    """

    items: int = 0
    ids: int = 0

    @classmethod
    def of(cls, counts: Any) -> Shared:
        """Makes it from the number of items of each id."""
        several = np.asarray(counts)[np.asarray(counts) > 1]
        return cls(int(several.sum()), len(several))

    def __add__(self, other: Shared) -> Shared:
        return Shared(self.items + other.items, self.ids + other.ids)

    def __sub__(self, other: Shared) -> Shared:
        return Shared(self.items - other.items, self.ids - other.ids)


@dataclass(frozen=True)
class Deduplicated:
    """The result of removing doubled keys from a run.

    Attributes:
        fragments: The data files to be committed.
        keys: The uuid of every row of them.
        deleted: The keys of the deletions that no row outdated.
        dropped: How many documents lost against something newer of their key.
        outdated: How many unchanged rows lost so, which means that they are replaced or deleted.
        obsolete: Files that were written again; nobody needs them any more.
        rewritten: Those that took their place.
        shared: Items of one id and one time, or none.
    """

    fragments: list[WrittenFragment]
    keys: Numbers
    deleted: Numbers
    dropped: int = 0
    outdated: int = 0
    obsolete: list[WrittenFragment] = field(default_factory=list)
    rewritten: list[WrittenFragment] = field(default_factory=list)
    shared: Shared = Shared()


def keys_of(fragments: Iterable[WrittenFragment]) -> Numbers:
    """Returns the keys of all rows of data files."""
    return Numbers.of_bytes(b"".join(fragment.keys for fragment in fragments))


def drop_duplicates(
    destination: Destination,
    fragments: Sequence[WrittenFragment],
    schema: pa.Schema,
    stored: pa.Table | None = None,
    deletions: Deletions | None = None,
) -> Deduplicated:
    """Keeps one row for each key: the one with the latest timestamp, then the greatest digest.

    The digest decides between rows with the same time, so that the result is the same in every run.
    A deletion wins against rows with its time.

    Args:
        destination: The dataset that the rows were written for.
        fragments: Their data files.
        schema: Their columns.
        stored: `ORDER_COLUMNS` of stored rows that the run found unchanged and whose key it also
            wrote or deleted, and `items`, the number of its items that equal each of them.
        deletions: The run's deletions.

    Raises:
        CommitError: a data file cannot be read, or cannot be written again.
    """
    deletions = deletions or Deletions.of([])
    keys = keys_of(fragments)
    others = [deletions.keys]
    if stored is not None:
        others.append(numbers_of(stored["uuid"].combine_chunks())[0])
    elsewhere = NumberSet(Numbers.concat(others))
    doubled = keys.repeated() | elsewhere.contains(keys)
    keep = np.ones(len(keys), np.bool_)
    try:
        chunks = None
        if doubled.any() or len(elsewhere):
            chunks = _Chunks.of(destination, fragments, schema)
        suspects = np.flatnonzero(doubled if chunks is None else chunks.others(doubled))
        ranks = _ranks_of_rows(destination, fragments, schema, suspects)
        race = _Race(keys.take(suspects), ranks)
        if stored is not None:
            race.add(others[1], *_ranks(stored), is_stored=True, items=stored["items"].to_numpy())
        race.add(deletions.keys, deletions.times, is_deletion=True)
        losers, outdated, deleted, shared = race.run()
        keep[suspects[losers]] = False
        if chunks is not None:
            winners = np.delete(np.arange(len(suspects)), losers)
            left = chunks.of_winners(
                contested=Numbers.concat([keys.take(suspects), *others]),
                winners=keys.take(suspects[winners]),
                digests=ranks[1].take(winners),
                deleted=deletions.keys.take(deleted),
            )
            keep[np.setdiff1d(chunks.places, left)] = False
            # Of one document that came twice, or that came without them.
            suspects = left[doubled[left]]
            race = _Race(
                keys.take(suspects), _ranks_of_rows(destination, fragments, schema, suspects)
            )
            race.add(deletions.keys, deletions.times, is_deletion=True)
            twice, _, effective, _ = race.run()
            keep[suspects[twice]] = False
            deleted = np.intersect1d(deleted, effective)
    except (OSError, ValueError) as error:
        raise CommitError(
            f"the data files that were written to {destination.uri} cannot be read again: "
            f"{first_line(error)}; nothing was committed, run it again"
        ) from error
    gone = deletions.keys.take(deleted)
    if keep.all():
        return Deduplicated(list(fragments), keys, gone, outdated=outdated, shared=shared)
    kept, obsolete, rewritten = _without(destination, fragments, schema, keep)
    return Deduplicated(
        kept, keys_of(kept), gone, len(losers), outdated, obsolete, rewritten, shared
    )


@dataclass(frozen=True)
class _Chunks:
    """The chunks of documents among the rows of data files.

    Attributes:
        places: Where they are, counted over all data files.
        parents: The uuids of their documents.
        origins: The digests of their documents.
        known: Whether they have one: those that came without their document have none.
    """

    places: _Integers
    parents: Numbers
    origins: Numbers
    known: Mask

    @classmethod
    def of(
        cls, destination: Destination, fragments: Sequence[WrittenFragment], schema: pa.Schema
    ) -> _Chunks | None:
        """Reads them; None if there are none."""
        if not any(fragment.chunks for fragment in fragments):
            return None
        places: list[_Integers] = []
        parents: list[Numbers] = []
        origins: list[Numbers] = []
        known: list[Mask] = []
        start = 0
        for fragment in fragments:
            if fragment.chunks:
                rows = preview(destination, schema, [fragment])
                table = rows.to_table(columns=["x_parent", "x_origin"]).combine_chunks()
                there = np.flatnonzero(table["x_parent"].is_valid().to_numpy())
                table = table.take(pa.array(there)).combine_chunks()
                places.append(start + there)
                parents += map(Numbers.of_digests, table["x_parent"].chunks)
                origins += map(Numbers.of_digests, table["x_origin"].chunks)
                known.append(table["x_origin"].is_valid().to_numpy())
            start += fragment.rows
        return cls(
            np.concatenate(places),
            Numbers.concat(parents),
            Numbers.concat(origins),
            np.concatenate(known),
        )

    def others(self, rows: Mask) -> Mask:
        """Returns a mask over all rows without the chunks."""
        left = rows.copy()
        left[self.places] = False
        return left

    def of_winners(
        self, contested: Numbers, winners: Numbers, digests: Numbers, deleted: Numbers
    ) -> _Integers:
        """Returns the places of those chunks whose document stays.

        Args:
            contested: The keys of documents that occur several times.
            winners: The keys of written documents among them that stay.
            digests: The digests of these.
            deleted: The keys of documents that are deleted.
        """
        place = NumberSet(winners).find(self.parents)
        won = np.flatnonzero(place >= 0)
        winner, origin = digests.take(place[won]), self.origins.take(won)
        stays = np.zeros(len(self.places), np.bool_)
        stays[won] = (winner.high == origin.high) & (winner.low == origin.low)
        # A chunk that came without its document may belong to any state of it.
        stays |= ~self.known & ~NumberSet(deleted).contains(self.parents)
        stays |= ~NumberSet(contested).contains(self.parents)
        return self.places[stays]


class _Race:
    """Everything that competes for keys, in columns: millions of doubled keys take little memory.

    Args:
        keys: The keys of written rows.
        ranks: Their times and digests.
    """

    def __init__(self, keys: Numbers, ranks: tuple[_Integers, Numbers]) -> None:
        self._keys: list[Numbers] = []
        self._times: list[_Integers] = []
        self._digests: list[Numbers] = []
        self._deletes: list[Any] = []
        self._stored: list[Any] = []
        self._items: list[_Integers] = []
        self.add(keys, *ranks)

    def add(
        self,
        keys: Numbers,
        times: _Integers,
        digests: Numbers | None = None,
        *,
        is_deletion: bool = False,
        is_stored: bool = False,
        items: _Integers | None = None,
    ) -> None:
        """Adds competitors; `items` is the number of items of each, by default one."""
        self._keys.append(keys)
        self._times.append(times)
        self._digests.append(digests or Numbers.of_bytes(bytes(16 * len(keys))))
        self._deletes.append(np.full(len(keys), is_deletion))
        self._stored.append(np.full(len(keys), is_stored))
        self._items.append(np.ones(len(keys), np.int64) if items is None else items)

    def run(self) -> tuple[_Integers, int, _Integers, Shared]:
        """Returns which written rows lose, how many stored rows lose, and which deletions win.

        The last result counts items that lose to a winner with the same time.
        """
        keys, digests = Numbers.concat(self._keys), Numbers.concat(self._digests)
        deletes, stored = np.concatenate(self._deletes), np.concatenate(self._stored)
        times, items = np.concatenate(self._times), np.concatenate(self._items)
        order = np.lexsort(
            (
                stored,
                digests.low,
                digests.high,
                deletes,
                times,
                keys.low,
                keys.high,
            )
        )
        high, low = keys.high[order], keys.low[order]
        wins = np.ones(len(order), np.bool_)
        wins[:-1] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        won = np.zeros(len(order), np.bool_)
        won[order] = wins
        written = len(self._keys[0])
        first_deletion = len(order) - len(self._keys[-1])
        return (
            np.flatnonzero(~won[:written]),
            int((~won & stored).sum()),
            np.flatnonzero(won[first_deletion:]),
            _shared(times[order], items[order], deletes[order], wins),
        )


def _shared(times: _Integers, items: _Integers, deletes: Any, wins: Any) -> Shared:
    """Counts items that share an id and a time. Competitors for a key are adjacent, winner last.

    Args:
        times: The time of change of each competitor.
        items: The number of its items.
        deletes: Whether it is a deletion.
        wins: Whether it wins.
    """
    last = np.flatnonzero(wins)
    if not len(last):
        return Shared()
    sizes = np.diff(last, prepend=-1)
    winner = np.repeat(last, sizes)
    level = (times == times[winner]) & ~deletes & ~deletes[winner]
    return Shared.of(np.add.reduceat(items * level, last - sizes + 1))


def _ranks_of_rows(
    destination: Destination,
    fragments: Sequence[WrittenFragment],
    schema: pa.Schema,
    places: _Integers,
) -> tuple[_Integers, Numbers]:
    """Reads the times and digests of rows at these places, counted over all data files."""
    if not len(places):
        return np.zeros(0, np.int64), Numbers.of_bytes(b"")
    # Only files with one of these rows are opened.
    ends = np.cumsum([fragment.rows for fragment in fragments])
    owners = np.searchsorted(ends, places, side="right")
    used = np.unique(owners)
    starts = np.concatenate([[0], np.cumsum([fragments[index].rows for index in used])])
    begins = np.concatenate([[0], ends])
    local = places - begins[owners] + starts[np.searchsorted(used, owners)]
    rows = preview(destination, schema, [fragments[index] for index in used])
    times, digests = [], []
    for start in range(0, len(local), _ROWS_AT_ONCE):
        found = rows.take(local[start : start + _ROWS_AT_ONCE], columns=list(ORDER_COLUMNS))
        time, digest = _ranks(found)
        times.append(time)
        digests.append(digest)
    return np.concatenate(times), Numbers.concat(digests)


def _ranks(table: pa.Table) -> tuple[_Integers, Numbers]:
    """Returns the times and digests of rows."""
    times = [
        _time_of(record.timestamp) for batch in table.to_batches() for record in decode_rows(batch)
    ]
    digests = Numbers.concat(map(Numbers.of_digests, table["x_digest"].chunks))
    return np.array(times, np.int64), digests


def _time_of(text: str | None) -> int:
    """Returns a timestamp as a number; text that is not a time counts as the earliest."""
    time = parse(text)
    if time is None:
        return _EARLIEST
    return min(max(int(time.at * 10**9 // 1), _EARLIEST + 1), _LATEST - 1)


def _without(
    destination: Destination,
    fragments: Sequence[WrittenFragment],
    schema: pa.Schema,
    keep: Any,
) -> tuple[list[WrittenFragment], list[WrittenFragment], list[WrittenFragment]]:
    """Writes files again without the rows to drop; returns the remaining old and new files."""
    kept: list[WrittenFragment] = []
    obsolete: list[WrittenFragment] = []
    rewritten: list[WrittenFragment] = []
    start = 0
    try:
        for fragment in fragments:
            mask = keep[start : start + fragment.rows]
            start += fragment.rows
            if mask.all():
                kept.append(fragment)
                continue
            obsolete.append(fragment)
            if mask.any():
                rows = preview(destination, schema, [fragment])
                rewritten += _rewritten(destination, schema, rows, mask)
    except BaseException:
        delete_files(destination, rewritten)
        raise
    return [*kept, *rewritten], obsolete, rewritten


def _rewritten(
    destination: Destination, schema: pa.Schema, rows: lance.LanceDataset, keep: Any
) -> list[WrittenFragment]:
    # Own fields may have been dropped since they were written.
    schema = pa.schema([one for one in schema if one.name in rows.schema.names])
    writer = FragmentWriter(destination, schema)
    scanner = rows.scanner(blob_handling="all_binary", batch_size=_BATCH_ROWS)
    offset = 0
    try:
        for batch in scanner.to_batches():
            mask = pa.array(keep[offset : offset + batch.num_rows])
            writer.add(batch.select(schema.names).cast(schema).filter(mask))
            offset += batch.num_rows
        return writer.close()
    except (OSError, ValueError) as error:
        raise CommitError(
            f"{len(keep) - int(keep.sum())} rows of this run have a key that occurs twice, and "
            f"their data file in {destination.uri} cannot be written again without them "
            f"({first_line(error)}); nothing was committed. Check space there, or remove the "
            "duplicates at the source"
        ) from error
    finally:
        writer.abort()
