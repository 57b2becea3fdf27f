"""Keys that occur twice in one run: the newest row stays, whoever wrote it when.

The rows are in data files that are not committed yet. Only their keys are read; where a key is
doubled, the files with rows to drop are written again without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contextframe_beam.encoding import decode_rows
from contextframe_beam.errors import CommitError
from contextframe_beam.fragments import (
    Destination,
    FragmentWriter,
    StorageOptions,
    WrittenFragment,
    read_columns,
)

_ORDER_COLUMNS = ["uuid", "uri", "updated_at", "custom_metadata", "x_encoding", "x_digest"]


@dataclass(frozen=True)
class Deduplicated:
    """The run's data files after doubled keys were removed.

    Attributes:
        fragments: What is to be committed.
        keys: The uuid of every row of it.
        dropped: How many rows lost against a newer one of their key.
        obsolete: Files that were written again; nobody needs them any more.
    """

    fragments: list[WrittenFragment]
    keys: pa.Array
    dropped: int
    obsolete: list[WrittenFragment]


def drop_duplicates(
    destination: Destination, fragments: Sequence[WrittenFragment], schema: pa.Schema
) -> Deduplicated:
    """Keeps one row of each key: the one with the latest timestamp, then the greatest digest.

    The digest decides between rows of one time, so that the result is the same in every run.

    Raises:
        CommitError: a file that must be written again cannot be.
    """
    uri, options = destination.uri, destination.storage_options
    columns = [_keys_of(uri, fragment, options) for fragment in fragments]
    if not columns:
        return Deduplicated([], pa.array([], pa.string()), 0, [])
    keys = pa.concat_arrays(columns)
    if len(pc.unique(keys)) == len(keys):
        return Deduplicated(list(fragments), keys, 0, [])

    losers = _losers(uri, fragments, columns, _doubled(keys), options)
    kept: list[WrittenFragment] = []
    obsolete: list[WrittenFragment] = []
    for index, fragment in enumerate(fragments):
        rows = losers.get(index)
        if rows is None:
            kept.append(fragment)
            continue
        obsolete.append(fragment)
        kept += _rewrite(destination, fragment, rows, schema)
    remaining = [_keys_of(uri, fragment, options) for fragment in kept]
    keys = pa.concat_arrays(remaining) if remaining else pa.array([], pa.string())
    return Deduplicated(kept, keys, sum(len(rows) for rows in losers.values()), obsolete)


def _keys_of(uri: str, fragment: WrittenFragment, options: StorageOptions) -> pa.Array:
    batches = list(read_columns(uri, fragment, ["uuid"], options))
    return pa.concat_arrays([batch.column("uuid") for batch in batches])


def _doubled(keys: pa.Array) -> pa.Array:
    counts = pc.value_counts(keys)
    return counts.field("values").filter(pc.greater(counts.field("counts"), 1))


def _losers(
    uri: str,
    fragments: Sequence[WrittenFragment],
    columns: Sequence[pa.Array],
    doubled: pa.Array,
    options: StorageOptions,
) -> dict[int, set[int]]:
    """Returns for each fragment the offsets of the rows that lose."""
    best: dict[str, tuple[tuple[datetime, bytes], int, int]] = {}
    losers: dict[int, set[int]] = {}
    for index, (fragment, keys) in enumerate(zip(fragments, columns, strict=True)):
        suspects = np.flatnonzero(
            pc.is_in(keys, value_set=doubled).to_numpy(zero_copy_only=False)
        )
        if not len(suspects):
            continue
        offset = 0
        for batch in read_columns(uri, fragment, _ORDER_COLUMNS, options):
            here = suspects[(suspects >= offset) & (suspects < offset + batch.num_rows)]
            rows = batch.take(pa.array(here - offset))
            digests = rows.column("x_digest").to_pylist()
            for row, digest, key, record in zip(
                here.tolist(),
                digests,
                rows.column("uuid").to_pylist(),
                decode_rows(rows),
                strict=True,
            ):
                rank = (_time_of(record.timestamp), digest)
                other = best.get(key)
                if other is None:
                    best[key] = (rank, index, row)
                elif rank > other[0]:
                    losers.setdefault(other[1], set()).add(other[2])
                    best[key] = (rank, index, row)
                else:
                    losers.setdefault(index, set()).add(row)
            offset += batch.num_rows
    return losers


def _time_of(text: str | None) -> datetime:
    """Returns a timestamp to compare; text without a time or zone counts as the earliest, UTC."""
    oldest = datetime.min.replace(tzinfo=timezone.utc)
    if text is None:
        return oldest
    try:
        value = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return oldest
    return value if value.tzinfo else value.replace(tzinfo=timezone.utc)


def _rewrite(
    destination: Destination,
    fragment: WrittenFragment,
    losers: set[int],
    schema: pa.Schema,
) -> list[WrittenFragment]:
    writer = FragmentWriter(destination, schema)
    try:
        offset = 0
        for batch in read_columns(
            destination.uri, fragment, None, destination.storage_options
        ):
            keep = np.ones(batch.num_rows, np.bool_)
            keep[[row - offset for row in losers if offset <= row < offset + len(keep)]] = False
            writer.add(batch.filter(pa.array(keep)).select(schema.names).cast(schema))
            offset += batch.num_rows
    except (ValueError, OSError) as error:
        writer.abort()
        raise CommitError(
            f"{len(losers)} rows of this run have a key that occurs twice, and their data file "
            f"cannot be written again without them ({error}); nothing was committed. Remove the "
            "duplicates at the source, or store raw_data in a dataset of storage version 2.1"
        ) from error
    return writer.close()
