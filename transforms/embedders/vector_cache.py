"""Vectors beside a dataset, so that a run that dies does not pay for them again.

`KB.vectors/FINGERPRINT/` holds segments: files or objects that are written once, by any number of
workers, and never changed. A segment is

    "CFVEC" 0 0 1 | dim, count: u32 | count keys of 16 bytes | count checksums of vectors: u64
    | XXH3-128 of all that | count vectors of dim float32

with all numbers little-endian; a key is the XXH3-128 of a text, a checksum the XXH3-64 of a vector.
What is cut off or damaged is passed over: a wrong index loses its segment, a wrong vector itself.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
import xxhash

from contextframe_beam.errors import ConfigError, DatasetError
from contextframe_beam.frames.embedders import EmbedderIdentity, Vectors
from contextframe_beam.store.address import StorageOptions, filesystem_of, is_local
from contextframe_beam.transforms.letters import remove_lost_pieces

__all__ = ["VectorCache", "remove_lost_vectors", "remove_vectors"]

SUFFIX = ".vectors"

_MAGIC = b"CFVEC\0\0\1"
_HEAD = struct.Struct("<8sII")
_KEY = _DIGEST = 16
_CHECK = 8
# What is read of a segment at first: the index of all but the largest.
_BEGINNING = 1 << 16
# A segment is written when this much is there, or when the oldest of it waits so many seconds.
_ROWS, _SECONDS = 256, 1.0
# Bytes of vectors that are kept in memory once they were read.
_MOST_HELD = 64 << 20
# Keys that are held one by one before they are sorted into the others.
_MOST_LOOSE = 50_000


class VectorCache:
    """The vectors of one embedder beside one dataset, for all threads of a process.

    Vectors are written when 256 are there, or a second after the first; call `flush` at the end.

    Args:
        dataset: The address of the dataset, which need not exist.
        identity: Whose vectors.
        storage_options: Of the dataset's object store, by Lance's names.

    Raises:
        ConfigError: nothing is installed for such an address.
    """

    def __init__(
        self, dataset: str, identity: EmbedderIdentity, storage_options: StorageOptions = None
    ) -> None:
        self._files, root = _opened(dataset, storage_options)
        self.path = f"{root}/{identity.fingerprint}"
        self._dim = identity.dim
        self._lock = threading.Lock()
        self._segments: list[str] = []
        self._known: set[str] = set()
        self._index = _Index()
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._held = 0
        self._waiting: dict[bytes, bytes] = {}
        self._since = 0.0
        self._read = False

    def get(self, keys: Sequence[bytes]) -> dict[int, Vectors]:
        """Returns the vectors that there are, by the position of their key.

        Args:
            keys: Of texts, as `text_key` makes them.

        Raises:
            DatasetError: the folder cannot be read.
        """
        if not self._read:
            self.refresh()
        found: dict[int, Vectors] = {}
        with self._lock:
            for place, key in enumerate(keys):
                row = self._waiting.get(key)
                if row is not None:
                    found[place] = np.frombuffer(row, "<f4")
            wanted = self._index.find(keys)
        for place, where in wanted.items():
            if place in found:
                continue
            vector = self._vector(where)
            if vector is not None:
                found[place] = vector
        return found

    def put(self, keys: Sequence[bytes], vectors: Vectors) -> None:
        """Keeps vectors.

        Args:
            keys: Of their texts.
            vectors: One for each.

        Raises:
            DatasetError: they cannot be written.
        """
        rows = np.ascontiguousarray(vectors, "<f4")
        with self._lock:
            if not self._waiting:
                self._since = time.monotonic()
            for key, row in zip(keys, rows, strict=True):
                self._waiting[key] = row.tobytes()
            due = len(self._waiting) >= _ROWS or time.monotonic() - self._since >= _SECONDS
        if due:
            self.flush()

    def flush(self) -> None:
        """Writes what was put and is not written yet.

        Raises:
            DatasetError: it cannot be written.
        """
        with self._lock:
            rows = self._waiting
            self._waiting = {}
        if not rows:
            return
        # Its own name each time: workers never write the same file.
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex}"
        data = _segment(rows, self._dim)
        try:
            self._write(f"{self.path}/{name}", data)
        except Exception as error:  # each kind of store has its own
            raise DatasetError(
                f"vectors cannot be kept at {self.path} ({type(error).__name__}: {error}); make "
                "room or allow writing there, or run without the cache of vectors"
            ) from error
        with self._lock:
            self._known.add(name)
            self._segments.append(name)
            self._index.add(list(rows), len(self._segments) - 1)

    def refresh(self) -> None:
        """Takes in what other processes have written since.

        Raises:
            DatasetError: the folder cannot be read.
        """
        with self._lock:
            self._read = True
            for name, size in sorted(self._sizes().items()):
                if name in self._known:
                    continue
                keys = self._keys_of(name, size)
                if keys is None:
                    continue  # being written, or cut off: it is looked at again the next time
                self._known.add(name)
                self._segments.append(name)
                self._index.add(keys, len(self._segments) - 1)

    def __len__(self) -> int:
        """Returns how many vectors are there, as far as this process knows."""
        with self._lock:
            return len(self._index) + len(self._waiting)

    def _sizes(self) -> dict[str, int]:
        """Returns the names of all segments, with their bytes."""
        self._files.invalidate_cache(self.path)
        try:
            found = self._files.ls(self.path, detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise self._unreadable(error) from error
        return {
            one["name"].rpartition("/")[2]: int(one["size"] or 0)
            for one in found
            if one["type"] == "file"
        }

    def _keys_of(self, name: str, size: int) -> list[bytes] | None:
        data = self._bytes(name, 0, min(size, _BEGINNING)) if size > _HEAD.size else None
        if data is None or len(data) < _HEAD.size:
            return None
        magic, dim, count = _HEAD.unpack_from(data)
        index = _index_size(count)
        if magic != _MAGIC or dim != self._dim or size < index:
            return None
        if len(data) < index:
            data = self._bytes(name, 0, index)
        if data is None or not _is_whole(data[:index], index):
            return None
        keys = data[_HEAD.size : _HEAD.size + count * _KEY]
        return [keys[at : at + _KEY] for at in range(0, len(keys), _KEY)]

    def _vector(self, where: _Place) -> Vectors | None:
        block = self._block(where.segment)
        if block is None or len(block) < _HEAD.size:
            return None
        count = _HEAD.unpack_from(block)[2]
        at = _HEAD.size + count * _KEY + where.row * _CHECK
        start = _index_size(count) + where.row * self._dim * 4
        row = block[start : start + self._dim * 4]
        if len(row) < self._dim * 4 or _check(row) != block[at : at + _CHECK]:
            return None
        return np.frombuffer(row, "<f4")

    def _block(self, number: int) -> bytes | None:
        """Returns a segment, which is read once for many vectors."""
        with self._lock:
            block = self._blocks.get(number)
            if block is not None:
                self._blocks.move_to_end(number)
                return block
            name = self._segments[number]
        block = self._bytes(name)
        if block is None:
            return None
        with self._lock:
            if number not in self._blocks:
                self._held += len(block)
                self._blocks[number] = block
            while self._held > _MOST_HELD and len(self._blocks) > 1:
                self._held -= len(self._blocks.popitem(last=False)[1])
        return block

    def _bytes(self, name: str, start: int | None = None, end: int | None = None) -> bytes | None:
        try:
            data: bytes = self._files.cat_file(f"{self.path}/{name}", start=start, end=end)
        except FileNotFoundError:  # another run has committed, and removed the cache
            return None
        except Exception as error:
            raise self._unreadable(error) from error
        return data

    def _unreadable(self, error: Exception) -> DatasetError:
        return DatasetError(
            f"the cache of vectors at {self.path} cannot be read ({type(error).__name__}: "
            f"{error}); allow reading there, or run without it"
        )

    def _write(self, path: str, data: bytes) -> None:
        try:
            self._files.pipe_file(path, data)
        except FileNotFoundError:  # no such folder yet, or another run has just removed it
            self._files.makedirs(self.path, exist_ok=True)
            self._files.pipe_file(path, data)


def remove_vectors(
    dataset: str,
    storage_options: StorageOptions = None,
    identity: EmbedderIdentity | None = None,
) -> bool:
    """Removes the vectors beside a dataset.

    Args:
        dataset: The address of the dataset.
        storage_options: Of its object store.
        identity: Whose vectors; None for those of all embedders.

    Returns:
        Whether there were any.

    Raises:
        ConfigError: nothing is installed for such an address.
        DatasetError: they cannot be removed.
    """
    files, folder = _opened(dataset, storage_options)
    path = folder if identity is None else f"{folder}/{identity.fingerprint}"
    files.invalidate_cache(path)
    try:
        # Some object stores keep a folder, as an empty object, after all in it is gone.
        were_there = any(one["size"] for one in files.find(path, detail=True).values())
        if were_there or files.exists(path):
            files.rm(path, recursive=True)
    except FileNotFoundError:
        return False  # another run was faster
    except Exception as error:
        raise DatasetError(
            f"the cache of vectors at {path} cannot be removed ({type(error).__name__}: {error}); "
            "remove it by hand, it is needed no more"
        ) from error
    if were_there and identity is not None:
        with contextlib.suppress(OSError):  # of other embedders something may be there
            files.rmdir(folder)
    return were_there


def remove_lost_vectors(
    dataset: str,
    lost_after: timedelta,
    *,
    dry_run: bool = False,
    storage_options: StorageOptions = None,
) -> tuple[int, int]:
    """Removes vectors of killed runs that nobody went on with.

    Args:
        dataset: The address of the dataset.
        lost_after: Younger vectors may belong to a run under way.
        dry_run: Only count.
        storage_options: Of its object store.

    Returns:
        The number of files, and their bytes.

    Raises:
        DatasetError: they cannot be listed or removed.
    """
    folder = dataset.rstrip("/") + SUFFIX
    found = remove_lost_pieces(
        f"{folder}/",
        lost_after,
        pattern="*/*",
        dry_run=dry_run,
        storage_options=storage_options,
    )
    if is_local(dataset) and not dry_run:
        for empty, _, _ in os.walk(folder, topdown=False):
            with contextlib.suppress(OSError):  # it is not
                os.rmdir(empty)
    return found


class _Place(NamedTuple):
    """Where a vector is: in which segment, at which row."""

    segment: int
    row: int


class _Index:
    """Where the vector of each key is, in 24 bytes a key."""

    def __init__(self) -> None:
        self._keys = np.zeros((0, 2), "<u8")
        self._places = np.zeros((0, 2), np.int32)
        self._loose: dict[bytes, _Place] = {}

    def add(self, keys: Sequence[bytes], segment: int) -> None:
        self._loose.update((key, _Place(segment, row)) for row, key in enumerate(keys))
        if len(self._loose) >= _MOST_LOOSE:
            keys_there = [self._keys, _numbers(list(self._loose))]
            places = [self._places, np.array(list(self._loose.values()), np.int32)]
            merged = np.concatenate(keys_there)
            order = np.argsort(merged[:, 0], kind="stable")
            self._keys = merged[order]
            self._places = np.concatenate(places)[order]
            self._loose = {}

    def find(self, keys: Sequence[bytes]) -> dict[int, _Place]:
        """Returns the places that there are, by the position of their key."""
        found = {n: self._loose[key] for n, key in enumerate(keys) if key in self._loose}
        if not len(self._keys) or not keys:
            return found
        wanted = _numbers(keys)
        at = np.searchsorted(self._keys[:, 0], wanted[:, 0])
        at[at == len(self._keys)] = 0
        for n in np.flatnonzero((self._keys[at] == wanted).all(axis=1)):
            found.setdefault(int(n), _Place(*map(int, self._places[at[n]])))
        return found

    def __len__(self) -> int:
        return len(self._keys) + len(self._loose)


def _opened(dataset: str, storage_options: StorageOptions) -> tuple[Any, str]:
    try:
        files, path = filesystem_of(dataset, storage_options)
    except (ImportError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"vectors cannot be kept beside {dataset} ({error}); install the extra for its object "
            "store (s3 or gcs), or run without the cache of vectors"
        ) from error
    return files, path.rstrip("/") + SUFFIX


def _segment(rows: dict[bytes, bytes], dim: int) -> bytes:
    index = b"".join(
        [_HEAD.pack(_MAGIC, dim, len(rows)), *rows, *(_check(row) for row in rows.values())]
    )
    return b"".join([index, xxhash.xxh3_128_digest(index), *rows.values()])


def _index_size(count: int) -> int:
    return _HEAD.size + count * (_KEY + _CHECK) + _DIGEST


def _is_whole(index: bytes, size: int) -> bool:
    return len(index) == size and xxhash.xxh3_128_digest(index[:-_DIGEST]) == index[-_DIGEST:]


def _check(row: bytes) -> bytes:
    return xxhash.xxh3_64_digest(row)


def _numbers(keys: Sequence[bytes]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.frombuffer(b"".join(keys), "<u8").reshape(-1, 2)
