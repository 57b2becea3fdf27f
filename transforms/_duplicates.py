"""Keys that occur twice in one run: the newest row stays, whoever wrote it when.

The rows are in data files that are not committed yet. Only their keys are read; where a key is
doubled, the files with rows to drop are written again without them. A row that the run met
unchanged, and so did not write, takes part as well: an older one of its key must not replace it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, TypeAlias

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contextframe_beam.encoding import decode_rows
from contextframe_beam.errors import CommitError
from contextframe_beam.fragments import (
    Destination,
    FragmentWriter,
    WrittenFragment,
    delete_files,
    first_line,
)
from contextframe_beam.preview import preview
from contextframe_beam.transforms._keys import fingerprints, repeated

#: What decides between rows of one key.
ORDER_COLUMNS = ("uuid", "uri", "updated_at", "custom_metadata", "x_encoding", "x_digest")

# The forms that systems write: a space for the T, any number of digits of a second, +0000. Python
# reads them from 3.11 on, and the same row must win on every version.
_TIMESTAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ]([0-9]{2}:[0-9]{2})(:[0-9]{2})?(?:[.,]([0-9]+))?"
    r" ?(?:[Zz]|([+-][0-9]{2}):?([0-9]{2})?)?)?\Z"
)
_EARLIEST = datetime.min.replace(tzinfo=timezone.utc)

_ROWS_AT_ONCE = 100_000
_BATCH_ROWS = 1024

_Rank: TypeAlias = tuple[datetime, bytes]
_Offsets: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Deduplicated:
    """The run's data files after doubled keys were removed.

    Attributes:
        fragments: What is to be committed.
        keys: The uuid of every row of it.
        dropped: How many rows lost against a newer one of their key.
        outdated: How many unchanged rows lost so, which means that they are replaced.
        obsolete: Files that were written again; nobody needs them any more.
        rewritten: Those that took their place.
    """

    fragments: list[WrittenFragment]
    keys: pa.ChunkedArray
    dropped: int = 0
    outdated: int = 0
    obsolete: list[WrittenFragment] = field(default_factory=list)
    rewritten: list[WrittenFragment] = field(default_factory=list)


def drop_duplicates(
    destination: Destination,
    fragments: Sequence[WrittenFragment],
    schema: pa.Schema,
    unchanged: Callable[[pa.ChunkedArray], pa.Table | None] = lambda keys: None,
) -> Deduplicated:
    """Keeps one row of each key: the one with the latest timestamp, then the greatest digest.

    The digest decides between rows of one time, so that the result is the same in every run.

    Args:
        destination: Where the rows were written.
        fragments: Their data files.
        schema: Their columns.
        unchanged: Called with the keys of all rows; returns `ORDER_COLUMNS` of those stored rows
            with one of these keys that the run met unchanged.

    Raises:
        CommitError: a data file cannot be read, or one that must be written again cannot be.
    """
    if not fragments:
        return Deduplicated([], pa.chunked_array([], pa.string()))
    rows = preview(destination, schema, fragments)
    try:
        keys = rows.to_table(columns=["uuid"])["uuid"]
        stored = unchanged(keys)
        doubled = repeated(fingerprints(keys))
        if stored is not None and stored.num_rows:
            among = pc.is_in(keys, value_set=stored["uuid"].combine_chunks())
            doubled |= among.to_numpy()
        losers, outdated = _losers(rows, np.flatnonzero(doubled), stored)
    except (OSError, ValueError) as error:
        raise CommitError(
            f"the data files that were written to {destination.uri} cannot be read again: "
            f"{first_line(error)}; nothing was committed, run it again"
        ) from error
    if not len(losers):
        return Deduplicated(list(fragments), keys, outdated=outdated)
    return _without(destination, fragments, schema, rows, keys, losers, outdated)


def _losers(
    rows: lance.LanceDataset, suspects: _Offsets, stored: pa.Table | None
) -> tuple[_Offsets, int]:
    """Returns the places of the rows that lose, in order, and how many stored rows do."""
    best: dict[str, tuple[_Rank, int]] = {}
    for key, rank in _ranks(stored) if stored is not None else ():
        best[key] = (rank, -1)
    losers: list[int] = []
    for start in range(0, len(suspects), _ROWS_AT_ONCE):
        places = suspects[start : start + _ROWS_AT_ONCE]
        found = rows.take(places, columns=list(ORDER_COLUMNS))
        for place, (key, rank) in zip(places.tolist(), _ranks(found), strict=True):
            other = best.get(key)
            if other is None or rank > other[0]:
                best[key] = (rank, place)
                place = other[1] if other is not None else None
            if place is not None:
                losers.append(place)
    written = np.sort(np.array([place for place in losers if place >= 0], np.int64))
    return written, len(losers) - len(written)


def _ranks(table: pa.Table) -> list[tuple[str, _Rank]]:
    """Returns the key of each row and what decides between rows of one key."""
    return [
        (key, (_time_of(record.timestamp), digest))
        for batch in table.to_batches()
        for key, digest, record in zip(
            batch.column("uuid").to_pylist(),
            batch.column("x_digest").to_pylist(),
            decode_rows(batch),
            strict=True,
        )
    ]


def _time_of(text: str | None) -> datetime:
    """Returns a timestamp to compare; text without a time or zone counts as the earliest, UTC."""
    match = _TIMESTAMP.match(text.strip()) if text else None
    if match is None:
        return _EARLIEST
    day, clock, seconds, fraction, hours, minutes = match.groups()
    try:
        return datetime.fromisoformat(
            f"{day}T{clock or '00:00'}{seconds or ':00'}.{(fraction or '')[:6]:0<6}"
            f"{hours or '+00'}:{minutes or '00'}"
        )
    except ValueError:
        return _EARLIEST


def _without(
    destination: Destination,
    fragments: Sequence[WrittenFragment],
    schema: pa.Schema,
    rows: lance.LanceDataset,
    keys: pa.ChunkedArray,
    losers: _Offsets,
    outdated: int,
) -> Deduplicated:
    """Writes those files again that hold rows to drop."""
    keep = np.ones(len(keys), np.bool_)
    keep[losers] = False
    kept: list[WrittenFragment] = []
    obsolete: list[WrittenFragment] = []
    rewritten: list[WrittenFragment] = []
    start = 0
    try:
        for fragment, written in zip(fragments, rows.get_fragments(), strict=True):
            mask = keep[start : start + fragment.rows]
            start += fragment.rows
            if mask.all():
                kept.append(fragment)
                continue
            obsolete.append(fragment)
            rewritten += _rewritten(destination, schema, rows, written, mask)
    except BaseException:
        delete_files(destination.uri, rewritten, destination.storage_options)
        raise
    return Deduplicated(
        [*kept, *rewritten], keys.filter(pa.array(keep)), len(losers), outdated, obsolete, rewritten
    )


def _rewritten(
    destination: Destination, schema: pa.Schema, rows: lance.LanceDataset, fragment: Any, keep: Any
) -> list[WrittenFragment]:
    writer = FragmentWriter(destination, schema)
    scanner = rows.scanner(fragments=[fragment], blob_handling="all_binary", batch_size=_BATCH_ROWS)
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
