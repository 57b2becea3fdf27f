"""The versions of a dataset: their history, their completeness, and locks for their removal."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from lance import LanceDataset
from lance.dataset import LanceOperation

from contextframe_beam.errors import ConcurrentRunError, DatasetError
from contextframe_beam.store.address import Address, first_line
from contextframe_beam.store.files import (
    despite_removals,
    is_removed,
    open_dataset,
    reading,
    side_folder,
)
from contextframe_beam.store.runs import is_gone, own_mark

# Names for versions that were not made by a run or a method of FrameDataset.
_OPERATIONS = {
    "Append": "append",
    "CreateIndex": "index",
    "Delete": "delete",
    "Merge": "columns",
    "Overwrite": "overwrite",
    "Project": "columns",
    "Restore": "rollback",
    "Rewrite": "compact",
    "Update": "update",
    "UpdateConfig": "settings",
}


@dataclass(frozen=True)
class Version:
    """One version of a dataset.

    Attributes:
        version: Its number.
        at: When it was made, in local time with its offset.
        run_id: The run that made it, or None.
        mode: The run's mode, or what else made the version (add, delete, index, compact, ...).
        counts: The counts of the run: written, replaced, deleted, unchanged, failed.
        restored: For a rollback, the version that it restored.
    """

    version: int
    at: datetime
    run_id: str | None = None
    mode: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    restored: int | None = None


def history_of(dataset: LanceDataset) -> list[Version]:
    """Returns the existing versions, oldest first, with their origins.

    Raises:
        DatasetError: they cannot be read.
    """
    versions = []
    for entry in _versions_of(dataset):
        number = int(entry["version"])
        at = entry["timestamp"]
        at = at if isinstance(at, datetime) else datetime.fromtimestamp(at / 1e9, timezone.utc)
        transaction = _transaction_of(dataset, number)
        if transaction is None:
            continue
        properties, operation, restored = transaction
        versions.append(
            Version(
                version=number,
                at=at.astimezone(),
                run_id=properties.get("contextframe.run_id"),
                mode=properties.get("contextframe.mode") or operation,
                counts=json.loads(properties.get("contextframe.counts", "{}")),
                restored=restored,
            )
        )
    return versions


def _versions_of(dataset: LanceDataset) -> Sequence[Mapping[str, Any]]:
    with reading(dataset.uri):
        versions: Any = despite_removals(dataset.versions)
    return list(versions)


def open_newest(at: Address) -> LanceDataset:
    """Returns a dataset at its newest version.

    Raises:
        DatasetError: there is no dataset, or it cannot be opened.
    """
    dataset = open_dataset(at)
    if dataset is None:
        raise missing_dataset(at.uri)
    return dataset


def open_version(at: Address, version: int) -> LanceDataset:
    """Returns a dataset at a version.

    Raises:
        DatasetError: the dataset or the version does not exist, or the version was removed.
    """
    try:
        dataset = open_dataset(at, version) if version > 0 else None
    except DatasetError:
        _require_version(at, version)
        raise
    if dataset is None:
        _require_version(at, version)
        raise missing_dataset(at.uri)
    return dataset


def _require_version(at: Address, version: int) -> None:
    """Raises a DatasetError that lists the versions, if `version` is not one of them."""
    known = [int(entry["version"]) for entry in _versions_of(open_newest(at))]
    if version in known:
        return
    if 0 < version < known[-1]:
        raise DatasetError(
            f"version {version} of {at.uri} was cleaned up; {_ranges(known)} can still be read"
        )
    raise DatasetError(f"{at.uri} has no version {version}; it has {_ranges(known)}")


def missing_dataset(uri: str) -> DatasetError:
    """Returns the error for an address without a dataset."""
    return DatasetError(
        f"there is no dataset at {uri}; make one with FrameDataset.create or "
        "`contextframe-beam ingest`"
    )


def rollback_after(dataset: LanceDataset, base: int) -> Version | None:
    """Returns the first rollback after version `base`, up to the open version.

    Removed versions are skipped: then `base` is gone too, and whatever depends on it will fail.

    Raises:
        DatasetError: a version exists but cannot be read.
    """
    for number in range(base + 1, int(dataset.version) + 1):
        transaction = _transaction_of(dataset, number)
        if transaction is not None and transaction[2] is not None:
            return Version(number, datetime.now(timezone.utc), restored=transaction[2])
    return None


def _transaction_of(
    dataset: LanceDataset, version: int
) -> tuple[dict[str, str], str, int | None] | None:
    """Returns the properties of a version's transaction, its kind, and the version it restored.

    It is None if the version was removed.
    """
    with reading(dataset.uri):
        try:
            transaction = dataset.read_transaction(version)
        except TypeError:
            # Lance 14 cannot show compactions that also moved an index.
            return {}, "compact", None
        except (OSError, ValueError) as error:
            if is_removed(error):
                return None
            raise
    if transaction is None:
        return {}, "", None
    operation: Any = transaction.operation
    restored = int(operation.version) if isinstance(operation, LanceOperation.Restore) else None
    name = type(operation).__name__
    if name == "BaseOperation":
        # Lance 14 cannot show this one: a compaction reserves numbers for its fragments.
        name = "Rewrite"
    return (
        dict(transaction.transaction_properties or {}),
        _OPERATIONS.get(name, name.lower()),
        restored,
    )


def _ranges(versions: Sequence[int]) -> str:
    """Returns numbers in words, as in `versions 2, 5 to 9 and 12`."""
    parts: list[list[int]] = []
    for number in sorted(versions):
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    words = [" to ".join(map(str, part)) for part in parts]
    if len(versions) == 1:
        return f"version {words[0]}"
    return f"versions {' and '.join([', '.join(words[:-1]), words[-1]]) if words[1:] else words[0]}"


# Blobs of these kinds are in files beside their data file: one file for several, or one for each.
_SIDE_KINDS = pa.array([1, 2], pa.uint8())
_BESIDE = ("kind", "blob_id")


def require_files(dataset: LanceDataset) -> None:
    """Checks that the version of `dataset` is complete.

    Raises:
        DatasetError: a file is missing or too short.
    """
    with reading(dataset.uri):
        present: dict[str, int] = {}
        for batch in dataset.all_files():
            present.update(
                zip(batch["path"].to_pylist(), batch["size_bytes"].to_pylist(), strict=True)
            )
        lost = next(_lost(dataset, present), None)
    if lost is not None:
        raise DatasetError(
            f"version {dataset.version} of {dataset.uri} is not whole: {lost} is missing. A "
            "cleanup that was killed had begun to remove it; another one, with the same `keep`, "
            "removes the rest"
        )


def _lost(dataset: LanceDataset, present: Mapping[str, int]) -> Iterator[str]:
    """Yields the missing files of the version in its own folder."""
    for fragment in dataset.get_fragments():
        for file in fragment.metadata.files:
            path = f"data/{file.path}"
            if file.base_id is None and present.get(path, -1) < (file.file_size_bytes or 0):
                yield path
        deletions: Any = fragment.metadata.deletion_file
        if deletions is not None and deletions.base_id is None:
            path = deletions.path(fragment.fragment_id)
            if path not in present:
                yield path
    for index in dataset.describe_indices():
        for segment in index.segments:
            folder = f"_indices/{segment.uuid}/"
            size = sum(size for path, size in present.items() if path.startswith(folder))
            if segment.base_id is None and size < (segment.size_bytes or 1):
                yield f"a part of the index {index.name}"
    if isinstance(dataset.schema.field("raw_data").type, pa.ExtensionType):
        yield from _lost_raw_data(dataset, present)


def _lost_raw_data(dataset: LanceDataset, present: Mapping[str, int]) -> Iterator[str]:
    """Yields data files with missing raw data beside them, as in format 2.2.

    Only the rows show how many files there should be.
    """
    beside = Counter(path.rpartition("/")[0] + "/" for path in present)
    for fragment in dataset.get_fragments():
        wanted = set()
        for batch in fragment.to_batches(columns=["raw_data"]):
            kind, number = (pc.struct_field(batch["raw_data"], name) for name in _BESIDE)
            wanted.update(number.filter(pc.is_in(kind, _SIDE_KINDS)).to_pylist())
        folders = [f"data/{side_folder(file.path)}" for file in fragment.metadata.files]
        if len(wanted) > sum(beside[folder] for folder in folders):
            yield f"raw data in {folders[0]}"


_CLEANUP = "contextframe.cleanup."
_ROLLBACK = "contextframe.rollback."
_INDEX = "contextframe.index."
_DROP = "contextframe.drop."

# So long an index waits for columns that are being dropped, which takes a moment.
_PATIENCE = 10.0

T = TypeVar("T")

#: An older tag of a process on another machine was left by a killed process.
STALE = timedelta(days=1)


@contextmanager
def cleaning_up(dataset: LanceDataset, at: Address) -> Iterator[None]:
    """Holds off rollbacks while versions are removed.

    Args:
        dataset: The newest version.
        at: Where it is.

    Raises:
        ConcurrentRunError: a rollback is under way.
        DatasetError: the store refuses to write.
    """
    # A stale tag would keep its version for ever.
    for name, tag in _tags(dataset, _CLEANUP, _ROLLBACK, _INDEX, _DROP).items():
        if _is_stale(name, tag):
            _remove(dataset, name)
    with _tagged(dataset, _CLEANUP, None, at):
        _refuse(dataset, _ROLLBACK, "a rollback", "cleaned up")
        yield


@contextmanager
def rolling_back(dataset: LanceDataset, version: int, at: Address) -> Iterator[None]:
    """Keeps a version from being removed while it is restored.

    Args:
        dataset: The newest version.
        version: The version to restore.
        at: Where it is.

    Raises:
        ConcurrentRunError: a cleanup is under way.
        DatasetError: a cleanup has removed the version or a part of it, or the store refuses to
        write.
    """
    with _tagged(dataset, _ROLLBACK, version, at):
        _refuse(dataset, _CLEANUP, "a cleanup", "rolled back")
        # From here on it stays; a cleanup may have ended just before.
        require_files(open_version(at, version))
        yield


@contextmanager
def indexing(at: Address) -> Iterator[LanceDataset]:
    """Keeps columns from being dropped while an index of them is written.

    Lance commits an index of a column that was dropped meanwhile, and then reads nothing any more.

    Yields:
        The newest version, which has all columns that are there until the block ends.

    Raises:
        ConcurrentRunError: columns are being dropped, and that does not end.
        DatasetError: the store refuses to write.
    """
    dataset = open_newest(at)
    with _tagged(dataset, _INDEX, None, at):
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until and _under_way(dataset, _DROP):
            time.sleep(random.uniform(0.02, 0.1))
        _refuse(dataset, _DROP, "a removal of columns", "indexed")
        yield open_newest(at)


@contextmanager
def dropping(at: Address) -> Iterator[LanceDataset]:
    """Holds off indices while columns are dropped or replaced; see `indexing`.

    Yields:
        The newest version.

    Raises:
        ConcurrentRunError: an index is being written.
        DatasetError: the store refuses to write.
    """
    dataset = open_newest(at)
    with _tagged(dataset, _DROP, None, at):
        _refuse(dataset, _INDEX, "an index", "dropped")
        yield open_newest(at)


def without_indices(at: Address, replace: Callable[[], T]) -> T:
    """Replaces columns while no index of them is written; waits for those under way.

    Args:
        at: The dataset.
        replace: Commits the new columns.

    Raises:
        ConcurrentRunError: an index is being written, and that does not end.
        DatasetError: the store refuses to write.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            with dropping(at):
                return replace()
        except ConcurrentRunError:
            if time.monotonic() >= until:
                raise
        time.sleep(random.uniform(0.02, 0.1))


@contextmanager
def _tagged(dataset: LanceDataset, prefix: str, version: int | None, at: Address) -> Iterator[None]:
    """Sets a tag at a version, or at the newest one, until the block ends."""
    name = f"{prefix}{uuid.uuid4().hex[:12]}.{own_mark()}"

    def tag_newest() -> None:
        newest = open_newest(at)
        newest.tags.create(name, int(newest.version))

    try:
        if version is None:
            despite_removals(tag_newest)
        else:
            dataset.tags.create(name, version)
    except (OSError, ValueError) as error:
        if version is not None:
            # Raises the right error if a cleanup has removed the version meanwhile.
            open_version(at, version)
        raise DatasetError(
            f"cannot set a tag in {dataset.uri}: {first_line(error)}; check permissions there"
        ) from error
    try:
        yield
    finally:
        _remove(dataset, name)


def _refuse(dataset: LanceDataset, prefix: str, what: str, done: str) -> None:
    for name, tag in _under_way(dataset, prefix).items():
        raise ConcurrentRunError(
            f"{what} of {dataset.uri} is under way since {tag['created_at']:%Y-%m-%d %H:%M} "
            f"UTC, so nothing was {done}; do it again when that has ended. If it was killed on "
            f"another machine, its tag {name} expires after a day; "
            f"lance.dataset({dataset.uri!r}).tags.delete({name!r}) removes it at once"
        )


def _under_way(dataset: LanceDataset, prefix: str) -> dict[str, dict[str, Any]]:
    """Returns the tags of those that have not been killed."""
    tags = _tags(dataset, prefix)
    return {name: tag for name, tag in tags.items() if not _is_stale(name, tag)}


def _tags(dataset: LanceDataset, *prefixes: str) -> dict[str, dict[str, Any]]:
    with reading(dataset.uri):
        tags: Any = despite_removals(dataset.tags.list)
    return {name: tag for name, tag in tags.items() if name.startswith(prefixes)}


def _is_stale(name: str, tag: dict[str, Any]) -> bool:
    is_old = bool(tag["created_at"] < datetime.now(timezone.utc) - STALE)
    return is_old or is_gone(name.rpartition(".")[2])


def _remove(dataset: LanceDataset, name: str) -> None:
    # Another process may have removed it as stale, and it is no longer needed.
    with suppress(OSError, ValueError):
        dataset.tags.delete(name)
