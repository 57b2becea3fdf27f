"""Sets of keys and digests as pairs of 64-bit numbers: 16 bytes each, exact, searched in bulk.

A canonical uuid is 128 bits written as 36 characters, and a digest is 128 bits. As numbers, ten
million of them take 160 MB; as text they would take three times as much, and be far slower to
search. Keys that are not canonical uuids, which only other programs write, are kept as text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
Halves: TypeAlias = np.ndarray[Any, np.dtype[np.uint64]]

_PAIR = np.dtype([("high", ">u8"), ("low", ">u8")])
_NIL = "00000000-0000-0000-0000-000000000000"
_LENGTH = len(_NIL)
_MIX = np.uint64(0x9E3779B97F4A7C15)

# The kinds of characters in a canonical uuid: a lower-case hexadecimal digit (1) or a dash (2).
_KIND = np.zeros(256, np.uint8)
_KIND[list(b"0123456789abcdef")] = 1
_KIND[ord("-")] = 2
_PATTERN = np.array([2 if character == "-" else 1 for character in _NIL], np.uint8)


@dataclass(frozen=True)
class Numbers:
    """A sequence of 128-bit numbers, stored as two halves."""

    high: Halves
    low: Halves

    def __len__(self) -> int:
        return len(self.high)

    @classmethod
    def of_bytes(cls, data: Any) -> Numbers:
        """Reads numbers of 16 bytes, with the highest byte first."""
        pairs = np.frombuffer(data, _PAIR)
        return cls(pairs["high"].astype(np.uint64), pairs["low"].astype(np.uint64))

    @classmethod
    def of_digests(cls, digests: pa.Array) -> Numbers:
        """Reads an array of 16-byte binaries; a null becomes an arbitrary number."""
        if not len(digests):
            return cls.of_bytes(b"")
        start = digests.offset * _PAIR.itemsize
        return cls.of_bytes(digests.buffers()[1].slice(start, len(digests) * _PAIR.itemsize))

    @classmethod
    def concat(cls, parts: Iterable[Numbers]) -> Numbers:
        """Joins sequences of numbers."""
        parts = [*parts, cls.of_bytes(b"")]
        return cls(
            np.concatenate([part.high for part in parts]),
            np.concatenate([part.low for part in parts]),
        )

    def to_bytes(self) -> bytes:
        """Returns the bytes for `of_bytes`."""
        pairs = np.empty(len(self), _PAIR)
        pairs["high"], pairs["low"] = self.high, self.low
        return pairs.tobytes()

    def take(self, places: Any) -> Numbers:
        """Returns the numbers at some places, or those for which a mask is true."""
        return Numbers(self.high[places], self.low[places])

    def repeated(self) -> Mask:
        """Marks the numbers that occur more than once; it may mark a few others too."""
        mixed = self.low ^ (self.high * _MIX)
        ordered = np.sort(mixed)
        doubled = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        if not len(doubled):
            return np.zeros(len(self), np.bool_)
        places = np.searchsorted(doubled, mixed)
        found: Mask = doubled[np.minimum(places, len(doubled) - 1)] == mixed
        return found


class NumberSet:
    """Finds numbers in a set, and their places."""

    def __init__(self, numbers: Numbers) -> None:
        #: The places of the numbers in increasing order of their high halves.
        self._order = np.argsort(numbers.high)
        self._high, self._low = numbers.high[self._order], numbers.low[self._order]
        # Most numbers are not in the set, and one look into a table shows it. The table has eight
        # slots for each number, and takes 64 KB to 64 MB.
        bits = min(max(16, (8 * len(numbers)).bit_length()), 26)
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, np.bool_)
        self._table[self._slots(numbers)] = True

    def __len__(self) -> int:
        return len(self._high)

    def contains(self, numbers: Numbers) -> Mask:
        """Marks the numbers that are in the set."""
        return self.find(numbers) >= 0

    def find(self, numbers: Numbers) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Returns the first place of each number in the set, or -1."""
        found = np.full(len(numbers), -1, np.int64)
        rows = np.flatnonzero(self._table[self._slots(numbers)]) if len(self) else found[:0]
        places = np.searchsorted(self._high, numbers.high[rows])
        # Numbers with the same first half are adjacent; there is hardly ever a second one.
        while len(rows):
            there = places < len(self)
            rows, places = rows[there], places[there]
            alike = self._high[places] == numbers.high[rows]
            rows, places = rows[alike], places[alike]
            same = self._low[places] == numbers.low[rows]
            hit, at = rows[same], self._order[places[same]]
            found[hit] = np.where(found[hit] < 0, at, np.minimum(found[hit], at))
            places = places + 1
        return found

    def numbers(self) -> list[bytes]:
        """Returns the numbers, 16 bytes each, in no particular order."""
        data = Numbers(self._high, self._low).to_bytes()
        return [data[start : start + 16] for start in range(0, len(data), 16)]

    def _slots(self, numbers: Numbers) -> Halves:
        slots: Halves = ((numbers.high ^ numbers.low) * _MIX) >> self._shift
        return slots


class KeySet:
    """Keys of rows: uuids as numbers, other text as it is.

    Args:
        numbers: Canonical uuids.
        odd: Other keys.
    """

    def __init__(self, numbers: Numbers, odd: pa.Array | None = None) -> None:
        self._uuids = NumberSet(numbers)
        self._odd = pa.array([], pa.string()) if odd is None else odd.unique().drop_null()

    @classmethod
    def of(cls, parts: Iterable[pa.Array]) -> KeySet:
        """Makes the set from arrays of texts, and keeps only their numbers."""
        numbers, texts = [], []
        for keys in parts:
            found, odd = numbers_of(keys)
            numbers.append(found.take(~odd))
            texts.append(keys.filter(pa.array(odd)))
        return cls(Numbers.concat(numbers), pa.concat_arrays([pa.array([], pa.string()), *texts]))

    def __len__(self) -> int:
        return len(self._uuids) + len(self._odd)

    def contains(self, keys: pa.Array) -> Mask:
        """Marks the keys in an array of texts that are in the set."""
        return self.find(keys) >= 0

    def holds(self, uuids: Numbers) -> Mask:
        """Marks the uuids that are in the set."""
        return self._uuids.contains(uuids)

    def find(self, keys: pa.Array) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Returns the place of each key in the set, with odd keys after the others, or -1."""
        found = self._uuids.find(_decode(keys))
        rows = np.flatnonzero(found >= 0)
        if len(rows):
            found[rows[~_is_canonical(keys.take(pa.array(rows)))]] = -1
        if len(self._odd):
            odd = pc.fill_null(pc.index_in(keys, value_set=self._odd), -1).to_numpy()
            found = np.where(odd >= 0, odd + len(self._uuids), found)
        return found

    def texts(self) -> list[str]:
        """Returns the keys as texts, in no particular order."""
        return [*map(text_of, self._uuids.numbers()), *self._odd.to_pylist()]


def numbers_of(keys: pa.Array) -> tuple[Numbers, Mask]:
    """Returns the keys as numbers, and a mask of keys that are not canonical uuids."""
    return _decode(keys), ~_is_canonical(keys)


def text_of(number: bytes) -> str:
    """Returns the canonical uuid of 16 bytes."""
    digits = number.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _decode(keys: pa.Array) -> Numbers:
    """Reads texts as uuids; other text becomes an arbitrary number."""
    count = len(keys)
    if not count:
        return Numbers.of_bytes(b"")
    text = _characters(keys)
    digits = np.empty((count, 32), np.uint8)
    for to, (start, end) in zip((0, 8, 12, 16, 20), _GROUPS, strict=True):
        digits[:, to : to + end - start] = text[:, start:end]
    # Eight digits at once: '0'-'9' are 0x30-0x39, 'a'-'f' are 0x61-0x66.
    words = digits.view(np.uint64)
    nibbles = (words & _0F) + np.uint64(9) * ((words >> np.uint64(6)) & _01)
    # Each byte holds half a byte; the bytes are in the order of the text.
    pairs = ((nibbles << np.uint64(4)) | (nibbles >> np.uint64(8))) & _00FF
    pairs = (pairs | (pairs >> np.uint64(8))) & _0000FFFF
    packed = (pairs | (pairs >> np.uint64(16))).astype(np.uint32)
    return Numbers.of_bytes(packed.tobytes())


_GROUPS = ((0, 8), (9, 13), (14, 18), (19, 23), (24, 36))
_0F = np.uint64(0x0F0F0F0F0F0F0F0F)
_01 = np.uint64(0x0101010101010101)
_00FF = np.uint64(0x00FF00FF00FF00FF)
_0000FFFF = np.uint64(0x0000FFFF0000FFFF)


def _characters(keys: pa.Array) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Returns the characters of each text, 36 in a row; a text of another length gives no uuid."""
    count = len(keys)
    _, buffer, data = keys.buffers()
    offsets = np.frombuffer(buffer, np.int32, count + 1, keys.offset * 4)
    if keys.null_count or (np.diff(offsets) != _LENGTH).any():
        long = pc.fill_null(pc.equal(pc.binary_length(keys), _LENGTH), False)
        return _characters(pc.if_else(long, keys, "x" * _LENGTH))
    text = np.frombuffer(data, np.uint8, count * _LENGTH, int(offsets[0]))
    return text.reshape(count, _LENGTH)


def _is_canonical(keys: pa.Array) -> Mask:
    if not len(keys):
        return np.zeros(0, np.bool_)
    text = _characters(keys)
    canonical: Mask = (_KIND[text] == _PATTERN).all(axis=1)
    return canonical
