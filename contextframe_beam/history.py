"""The versions of a dataset: which exist, what made each of them, and what a rollback forgot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from lance import LanceDataset
from lance.dataset import LanceOperation

from contextframe_beam.address import StorageOptions
from contextframe_beam.errors import DatasetError
from contextframe_beam.fragments import (
    despite_removals,
    is_removed,
    open_dataset,
    reading,
)

# What versions are called that no run and no method of FrameDataset made.
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
        counts: What the run counted: written, replaced, deleted, unchanged, failed.
        restored: For a rollback, the version whose content this one has.
    """

    version: int
    at: datetime
    run_id: str | None = None
    mode: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    restored: int | None = None


def history_of(dataset: LanceDataset) -> list[Version]:
    """Returns the versions that still exist, oldest first, with what made them.

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


def open_newest(uri: str, storage_options: StorageOptions = None) -> LanceDataset:
    """Returns a dataset at its newest version.

    Raises:
        DatasetError: there is none, or it cannot be opened.
    """
    dataset = open_dataset(uri, storage_options)
    if dataset is None:
        raise missing_dataset(uri)
    return dataset


def open_version(uri: str, version: int, storage_options: StorageOptions = None) -> LanceDataset:
    """Returns a dataset at a version.

    Raises:
        DatasetError: there is no dataset, or it has no such version, or has it no more.
    """
    try:
        dataset = open_dataset(uri, storage_options, version) if version > 0 else None
    except DatasetError:
        _require_version(uri, version, storage_options)
        raise
    if dataset is None:
        _require_version(uri, version, storage_options)
        raise missing_dataset(uri)
    return dataset


def _require_version(uri: str, version: int, storage_options: StorageOptions) -> None:
    """Raises a DatasetError that says which versions there are, if `version` is none of them."""
    known = [int(entry["version"]) for entry in _versions_of(open_newest(uri, storage_options))]
    if version in known:
        return
    if 0 < version < known[-1]:
        raise DatasetError(
            f"version {version} of {uri} was cleaned up; {_ranges(known)} can still be read"
        )
    raise DatasetError(f"{uri} has no version {version}; it has {_ranges(known)}")


def missing_dataset(uri: str) -> DatasetError:
    """Returns the error for a place where no dataset is."""
    return DatasetError(
        f"there is no dataset at {uri}; make one with FrameDataset.create or "
        "`contextframe-beam ingest`"
    )


def rollback_after(dataset: LanceDataset, base: int) -> Version | None:
    """Returns the first rollback that happened after version `base`, up to the one that is open.

    Versions that were cleaned up meanwhile are not looked at: then `base` is gone as well, and
    whoever depends on it finds that out.

    Raises:
        DatasetError: a version is there and cannot be read.
    """
    for number in range(base + 1, int(dataset.version) + 1):
        transaction = _transaction_of(dataset, number)
        if transaction is not None and transaction[2] is not None:
            return Version(number, datetime.now(timezone.utc), restored=transaction[2])
    return None


def _transaction_of(
    dataset: LanceDataset, version: int
) -> tuple[dict[str, str], str, int | None] | None:
    """Returns the properties of what made a version, what it did, and which one it restored.

    None if the version is there no more.
    """
    with reading(dataset.uri):
        try:
            transaction = dataset.read_transaction(version)
        except TypeError:
            # Lance 14 fails to show just those compactions that also moved an index.
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
        # What Lance 14 does not show: a compaction sets aside numbers for its fragments.
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
