"""Digests of rows: 16 bytes over what a row stores, by which a later run knows it again.

The digest of a row depends on nothing but the row: not on the order of its metadata, and not on the
rows that happen to be encoded with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

import orjson
from xxhash import xxh3_128, xxh3_128_digest


def row_digests(
    contents: Iterable[Sequence[Any]],
    vectors: Sequence[Any] | None,
    raw_data: Sequence[Any] | None,
) -> list[bytes]:
    """Returns the XXH3-128 digest of each row.

    Args:
        contents: What each row holds except vector and raw data; see `row_contents`.
        vectors: The vector of each row, or None when no row has one.
        raw_data: The raw data of each row, or None when no row has any.

    Raises:
        TypeError: a row holds text that is not Unicode.
    """
    # JSON keeps apart what is text, list, number or missing, and where each ends.
    rows = map(orjson.dumps, contents)
    if vectors is None and raw_data is None:
        return list(map(xxh3_128_digest, rows))
    nothing = repeat(None)
    return list(map(_digest, rows, vectors or nothing, raw_data or nothing))


def row_contents(
    names: Sequence[str],
    metadata: Sequence[Mapping[str, Any]],
    stored: Sequence[Sequence[Any]],
    texts: Sequence[Sequence[Any]],
    shared: Sequence[Sequence[Any]],
) -> Iterable[Sequence[Any]]:
    """Yields what each row holds except vector and raw data.

    Args:
        names: The metadata names of the batch, sorted.
        metadata: The metadata of each row.
        stored: What the rows store of each name, in the order of `names`; None where a row has
            nothing of that name.
        texts: Columns in which None is a value.
        shared: Columns of which many rows have the same values.
    """
    whole = not any(None in column for column in stored)
    heads = _heads([tuple(names)] * len(metadata) if whole else metadata, shared)
    rows: Iterable[Sequence[Any]] = zip(heads, *map(_without_none, texts), *stored, strict=True)
    if whole:
        return rows
    return ([part for part in row if part is not None] for row in rows)


def _heads(names: Iterable[Iterable[str]], columns: Sequence[Sequence[Any]]) -> list[str]:
    """Returns the names and values of each row as JSON, made once for equal ones."""
    known: dict[tuple[Any, ...], str] = {}
    heads = []
    for key in zip(map(tuple, names), *columns, strict=True):
        head = known.get(key)
        if head is None:
            own, *rest = key
            head = known[key] = orjson.dumps((sorted(own), *rest)).decode()
        heads.append(head)
    return heads


def _digest(content: bytes, vector: Any, raw_data: bytes | None) -> bytes:
    if vector is None and raw_data is None:
        return xxh3_128_digest(content)
    hashed = xxh3_128(content)
    for data in (None if vector is None else vector.tobytes(), raw_data):
        hashed.update(b"-" if data is None else b"%d:" % len(data))
        hashed.update(data or b"")
    return hashed.digest()


def _without_none(values: Sequence[Any]) -> Sequence[Any]:
    """Returns `values` with another mark for None, which means no such name further on."""
    return values if None not in values else [value is not None and value for value in values]
