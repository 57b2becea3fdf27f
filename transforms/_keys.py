"""Sets of keys as sorted numbers: 8 bytes a key, where text takes ten times as much."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Fingerprints: TypeAlias = np.ndarray[tuple[int], np.dtype[np.uint64]]
Mask: TypeAlias = np.ndarray[tuple[int], np.dtype[np.bool_]]

_NIL = "00000000-0000-0000-0000-000000000000"
_ODD = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5], np.uint64
)


def fingerprints(keys: pa.ChunkedArray) -> Fingerprints:
    """Returns a 64-bit number for each uuid, equal for equal uuids.

    Different uuids hardly ever share a number, but whoever finds equal ones compares the uuids.
    Text that is no uuid, which only other programs write, has the number of the nil uuid.
    """
    parts = [_of_chunk(chunk) for chunk in keys.chunks if len(chunk)]
    return np.concatenate([*parts, np.zeros(0, np.uint64)])


def _of_chunk(keys: pa.Array) -> Fingerprints:
    count = len(keys)
    _, buffer, data = keys.buffers()
    offsets = np.frombuffer(buffer, np.int32, count + 1, keys.offset * 4)
    if keys.null_count or (np.diff(offsets) != len(_NIL)).any():
        is_uuid = pc.fill_null(pc.equal(pc.binary_length(keys), len(_NIL)), False)
        return _of_chunk(pc.if_else(is_uuid, keys, _NIL))
    size = len(_NIL)
    text = np.frombuffer(data, np.uint8, count * size, int(offsets[0])).reshape(count, size)
    # The 36 characters as four words and, overlapping them, the last eight characters.
    words = np.ascontiguousarray(text[:, :32]).view(np.uint64)
    mixed = np.bitwise_xor.reduce(words * _ODD, axis=1)
    last = np.ascontiguousarray(text[:, 28:]).view(np.uint64)[:, 0]
    numbers: Fingerprints = (mixed ^ (mixed >> np.uint64(29))) * _ODD[0] ^ last * _ODD[1]
    return numbers


def repeated(numbers: Fingerprints) -> Mask:
    """Marks the numbers that occur more than once."""
    ordered = np.sort(numbers)
    doubled = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    return contains(doubled, numbers)


def contains(ordered: Fingerprints, numbers: Fingerprints) -> Mask:
    """Marks the numbers that are among `ordered`, which is sorted."""
    if not len(ordered):
        return np.zeros(len(numbers), np.bool_)
    places = np.searchsorted(ordered, numbers)
    found: Mask = ordered[np.minimum(places, len(ordered) - 1)] == numbers
    return found
