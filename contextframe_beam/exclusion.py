"""Keeps a rollback from a version that a cleanup is just removing.

Lance would restore a version while a cleanup deletes the files of it, and the newest version
would name files that are gone. So each of the two leaves a tag before it looks whether the other
one left one: whatever the order, at least one of them sees the other. The rollback's tag also
keeps the cleanups of other programs from the version. A tag names the process that left it, and
counts no more when that is gone.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from typing import Any

from lance import LanceDataset

from contextframe_beam.address import StorageOptions
from contextframe_beam.errors import ConcurrentRunError, DatasetError
from contextframe_beam.fragments import (
    despite_removals,
    first_line,
    reading,
)
from contextframe_beam.history import open_newest, open_version
from contextframe_beam.intact import require_files
from contextframe_beam.process_mark import is_gone, own_mark

_CLEANUP = "contextframe.cleanup."
_ROLLBACK = "contextframe.rollback."

#: A tag of a process on another machine that is older was left by one that was killed.
STALE = timedelta(days=1)


@contextmanager
def cleaning_up(dataset: LanceDataset, storage_options: StorageOptions = None) -> Iterator[None]:
    """Holds off rollbacks while versions are removed.

    Args:
        dataset: The newest version.
        storage_options: Of the dataset.

    Raises:
        ConcurrentRunError: a rollback is under way.
        DatasetError: the store refuses to write.
    """
    # What is stale keeps a version for ever.
    for name, tag in _tags(dataset, _CLEANUP, _ROLLBACK).items():
        if _is_stale(name, tag):
            _remove(dataset, name)
    with _tagged(dataset, _CLEANUP, None, storage_options):
        _refuse(dataset, _ROLLBACK, "a rollback", "cleaned up")
        yield


@contextmanager
def rolling_back(
    dataset: LanceDataset, version: int, storage_options: StorageOptions = None
) -> Iterator[None]:
    """Keeps a version from being removed while it is restored.

    Args:
        dataset: The newest version.
        version: The one to restore.
        storage_options: Of the dataset.

    Raises:
        ConcurrentRunError: a cleanup is under way.
        DatasetError: one has removed the version or a part of it, or the store refuses to write.
    """
    with _tagged(dataset, _ROLLBACK, version, storage_options):
        _refuse(dataset, _CLEANUP, "a cleanup", "rolled back")
        # From here on it stays as it is; a cleanup may have ended just before.
        require_files(open_version(dataset.uri, version, storage_options))
        yield


@contextmanager
def _tagged(
    dataset: LanceDataset, prefix: str, version: int | None, storage_options: StorageOptions
) -> Iterator[None]:
    """Sets a tag at a version, or at the newest one, until the block ends."""
    name = f"{prefix}{uuid.uuid4().hex[:12]}.{own_mark()}"

    def tag_newest() -> None:
        newest = open_newest(dataset.uri, storage_options)
        newest.tags.create(name, int(newest.version))

    try:
        if version is None:
            despite_removals(tag_newest)
        else:
            dataset.tags.create(name, version)
    except (OSError, ValueError) as error:
        if version is not None:
            # Says that a cleanup has removed the version meanwhile, where that is so.
            open_version(dataset.uri, version, storage_options)
        raise DatasetError(
            f"cannot set a tag in {dataset.uri}: {first_line(error)}; check permissions there"
        ) from error
    try:
        yield
    finally:
        _remove(dataset, name)


def _refuse(dataset: LanceDataset, prefix: str, what: str, done: str) -> None:
    for name, tag in _tags(dataset, prefix).items():
        if not _is_stale(name, tag):
            raise ConcurrentRunError(
                f"{what} of {dataset.uri} is under way since {tag['created_at']:%Y-%m-%d %H:%M} "
                f"UTC, so nothing was {done}; do it again when that has ended. If it was killed on "
                f"another machine, its tag {name} stops to count after a day; "
                f"lance.dataset({dataset.uri!r}).tags.delete({name!r}) removes it at once"
            )


def _tags(dataset: LanceDataset, *prefixes: str) -> dict[str, dict[str, Any]]:
    with reading(dataset.uri):
        tags: Any = despite_removals(dataset.tags.list)
    return {name: tag for name, tag in tags.items() if name.startswith(prefixes)}


def _is_stale(name: str, tag: dict[str, Any]) -> bool:
    is_old = bool(tag["created_at"] < datetime.now(timezone.utc) - STALE)
    return is_old or is_gone(name.rpartition(".")[2])


def _remove(dataset: LanceDataset, name: str) -> None:
    # Another process may have found it to be stale; and what it stood for is done by now.
    with suppress(OSError, ValueError):
        dataset.tags.delete(name)
