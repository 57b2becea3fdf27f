"""Lance transactions that replace and add rows together, and never commit twice.

Lance does not notice if the same transaction is committed twice. But it refuses, as a retryable
conflict, a transaction that removes rows from a fragment that another one has changed. So each of
our transactions removes a row that every competing one removes too: a state row or the anchor row
(`state.py`).
"""

from __future__ import annotations

import json
import logging
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

import lance
import pyarrow as pa
from lance.commit import CommitConflictError
from lance.dataset import LanceOperation, Transaction
from lance.fragment import FragmentMetadata

from contextframe_beam.errors import (
    CommitError,
    ConcurrentRunError,
    DatasetError,
    UnknownCommitError,
)
from contextframe_beam.store.address import Address, first_line, is_local
from contextframe_beam.store.files import WrittenFragment, delete_files, is_removed, open_dataset
from contextframe_beam.store.numbers import flat
from contextframe_beam.store.rows import Removal

_LOGGER = logging.getLogger(__name__)
_ATTEMPTS = 20

# Lance's exceptions; RuntimeError comes from making an index.
_FAILURES = (OSError, ValueError, RuntimeError)

# Lance's message (without its own type) after an answer was lost and a second request failed.
_UNKNOWN = re.compile(r"Commit result for version \d+ is unknown")

# Lance's messages (without their own type) after a conflict with another commit.
_CONFLICTS = ("commit conflict", "incompatible with concurrent", "preempted by concurrent")

# Lance's message about a missing file of the version that it reads.
_LOST_FILE = re.compile(r"Not found: .*/(data|_deletions|_indices)/")
_LOST_ATTEMPTS = 6

# Held during a commit, and for ever in a process that must not commit any more.
_MAY_COMMIT = threading.Lock()

T = TypeVar("T")


class ConflictError(Exception):
    """The dataset changed during a transaction, which may be built again and retried."""


@dataclass(frozen=True)
class Pending(Generic[T]):
    """A transaction before its commit.

    Attributes:
        commit: Commits it.
        result: Makes the result from the committed version.
    """

    commit: Callable[[], lance.LanceDataset]
    result: Callable[[lance.LanceDataset], T]


def change(
    at: Address,
    build: Callable[[list[WrittenFragment]], Pending[T] | T],
    files: Sequence[WrittenFragment] = (),
) -> T:
    """Changes a dataset by one transaction, and builds it again if another commit comes first.

    New files stay only if a version has them or may still get them. They are deleted if nothing was
    sent, and after a conflict. If the outcome is unknown they stay, and a cleanup removes them days
    later if they are not needed.

    Args:
        at: The dataset.
        build: Decides from the newest version what to do. It adds the files that it writes to the
            list in its argument. It returns the transaction, or the result itself if there is
            nothing to commit.
        files: Files that are already written, for any attempt.

    Raises:
        ConcurrentRunError: other commits kept coming first.
        UnknownCommitError: the object store does not say whether it was committed.
        DatasetError: it failed. Exceptions of `build` pass through too.
    """
    in_doubt = False
    needless: list[WrittenFragment] = []

    def attempt() -> T:
        nonlocal in_doubt
        own: list[WrittenFragment] = []
        is_sent = False
        try:
            built = build(own)
            if isinstance(built, Pending):
                is_sent = True
                return built.result(built.commit())
            needless.extend(own if in_doubt else [*own, *files])
            return built
        except BaseException as error:
            if is_sent and not isinstance(error, ConflictError):
                in_doubt = True
            else:
                needless.extend(own)
            raise

    try:
        return with_retries(at.uri, attempt)
    except BaseException:
        needless.extend([] if in_doubt else files)
        raise
    finally:
        delete_files(at, needless)


def commit_update(
    dataset: lance.LanceDataset,
    removal: Removal,
    new: Sequence[WrittenFragment],
    *,
    properties: Mapping[str, str],
    at: Address,
) -> lance.LanceDataset:
    """Commits a removal and new fragments to the version that `removal` is for.

    Raises:
        ConflictError: another commit changed the same fragments first.
    """
    return _commit(
        at,
        Transaction(
            dataset.version,
            LanceOperation.Update(
                removed_fragment_ids=list(removal.removed_fragment_ids),
                updated_fragments=list(removal.updated_fragments),
                new_fragments=[fragment.to_lance() for fragment in new],
            ),
            transaction_properties=dict(properties),
        ),
    )


def commit_overwrite(
    at: Address,
    schema: pa.Schema,
    new: Sequence[WrittenFragment],
    *,
    read_version: int,
    storage_version: str,
    properties: Mapping[str, str],
) -> lance.LanceDataset:
    """Makes `new` the whole content of the dataset, if it is still at `read_version`.

    A `read_version` of 0 creates the dataset, if it still does not exist. `storage_version` is the
    file format of a new dataset. An overwritten one keeps its own, because Lance continues to write
    in it.

    Raises:
        ConflictError: another commit came first.
    """
    if read_version:
        replaced = open_dataset(at)
        if replaced is not None:
            storage_version = replaced.data_storage_version
    fields = lance_schema(schema, storage_version, overwrites=read_version > 0)
    return _commit(
        at,
        Transaction(
            read_version,
            LanceOperation.Overwrite(fields, [fragment.to_lance() for fragment in new]),
            transaction_properties=dict(properties),
        ),
        creates=read_version == 0,
    )


def commit_columns(dataset: lance.LanceDataset, columns: pa.Schema) -> lance.LanceDataset:
    """Adds columns that are null in every row; only metadata is written.

    Raises:
        ConflictError: another commit came first.
    """
    changing(dataset.uri, lambda: dataset.add_columns(columns), "add columns to")
    return dataset


def changing(uri: str, change: Callable[[], T], doing: str = "commit to") -> T:
    """Calls a function that makes one of Lance's own commits, which does not change documents.

    Args:
        uri: The dataset.
        change: The function; a second call must be harmless.
        doing: What it does, for messages.

    Raises:
        ConflictError: another commit came first.
        UnknownCommitError: the object store does not say whether it was committed.
        DatasetError: it failed.
    """
    try:
        return change()
    except _FAILURES as error:
        told = _told(uri, error, doing, "the documents are as they were, do it again")
        raise told from error


def commit_restore(dataset: lance.LanceDataset, version: int, at: Address) -> lance.LanceDataset:
    """Makes the content of an earlier version the newest one.

    Commits since `dataset` was opened are undone too. Transactions that are not committed yet will
    conflict: Lance refuses every transaction that was built on an earlier version.

    Raises:
        ConflictError: another commit came at the same moment.
    """
    return _commit(
        at,
        Transaction(
            dataset.version,
            LanceOperation.Restore(version),
            transaction_properties={"contextframe.mode": "rollback"},
        ),
    )


def commit_guarded(
    dataset: lance.LanceDataset,
    new: Sequence[WrittenFragment],
    *,
    properties: Mapping[str, str],
    at: Address,
) -> lance.LanceDataset:
    """Adds rows to exactly the version that `dataset` is at.

    Use it if there is no row yet whose replacement would make two of these commits conflict. Any
    other commit in between makes it fail, so it suits steps that happen once in a dataset's life.

    Raises:
        ConflictError: another commit came first.
    """
    fragments = [fragment.metadata for fragment in dataset.get_fragments()]
    return _commit(
        at,
        Transaction(
            dataset.version,
            LanceOperation.Merge(
                [*fragments, *(fragment.to_lance() for fragment in new)], dataset.lance_schema
            ),
            transaction_properties=dict(properties),
        ),
    )


def commit_column_files(
    dataset: lance.LanceDataset,
    schema: Any,
    files: Mapping[int, WrittenFragment],
    removal: Removal,
    new: Sequence[WrittenFragment],
    *,
    properties: Mapping[str, str],
    at: Address,
) -> lance.LanceDataset:
    """Puts columns that were written anew into the place of the old ones, and adds rows.

    Args:
        dataset: The version that all this was made of.
        schema: Its schema with the new columns (`columns.schema_with`).
        files: The data file with the new columns of each fragment, by the fragment's id.
        removal: Rows to remove; of no fragment all of them.
        new: Fragments that have the new columns already.
        properties: What is noted of the transaction.
        at: Where it is.

    Raises:
        ConflictError: another commit came first.
    """
    updated = {fragment.id: fragment for fragment in removal.updated_fragments}
    # A file may have only parts of a column, such as the items of a list.
    used = {number for _, number in flat(schema)}
    fragments = []
    for one in dataset.get_fragments():
        described = updated.get(one.fragment_id, one.metadata)
        with_file = FragmentMetadata.from_json(json.dumps(described.to_json()))
        # Files of columns that were written anew before are needed no more.
        kept = [file for file in with_file.files if used.intersection(file.fields)]
        with_file.files = [*kept, *files[one.fragment_id].to_lance().files]
        fragments.append(with_file)
    return _commit(
        at,
        Transaction(
            dataset.version,
            LanceOperation.Merge([*fragments, *(one.to_lance() for one in new)], schema),
            transaction_properties=dict(properties),
        ),
    )


def with_retries(uri: str, attempt: Callable[[], T]) -> T:
    """Calls `attempt` until there is no conflict, with growing, jittered pauses.

    It also repeats the call a few times if a file is gone: a cleanup may have removed the version
    that the attempt was reading, because there are newer ones.

    Raises:
        ConcurrentRunError: other commits kept coming first.
    """
    lost = 0
    for number in range(_ATTEMPTS):
        try:
            return attempt()
        except ConflictError as error:
            _LOGGER.info("commit to %s conflicted with another one, trying again: %s", uri, error)
            if number == _ATTEMPTS - 1:
                raise ConcurrentRunError(
                    f"{_ATTEMPTS} attempts to commit to {uri} conflicted with other commits; "
                    "nothing was committed, run it again when fewer runs write there"
                ) from error
        except (OSError, ValueError, DatasetError) as error:
            lost += 1
            if not _LOST_FILE.search(str(error)) or lost == _LOST_ATTEMPTS:
                raise
            _LOGGER.info("a version of %s was removed, trying again: %s", uri, error)
        time.sleep(random.uniform(0, min(2.0, 0.02 * 2**number)))
    raise AssertionError("unreachable")


def stop_commits(patience: float) -> bool:
    """Waits for a commit under way, and prevents any other in this process.

    An interrupted process can then find out whether its run was committed.

    Args:
        patience: The seconds to wait.

    Returns:
        Whether all commits have ended.
    """
    return _MAY_COMMIT.acquire(timeout=patience)


@lru_cache(maxsize=16)
def lance_schema(schema: pa.Schema, storage_version: Any, *, overwrites: bool) -> Any:
    """Returns the schema with Lance's own field ids and types, as in the new files.

    Format 2.2 numbers the parts of a blob column after it in a new dataset, and at the end in an
    overwritten one.
    """
    empty = pa.Table.from_batches([], schema)
    made = lance.write_dataset(
        empty, f"memory://schema-{uuid.uuid4().hex}", data_storage_version=storage_version
    )
    if overwrites:
        made = lance.write_dataset(empty, made, mode="overwrite")
    return made.lance_schema


def _commit(
    at: Address,
    transaction: Transaction,
    *,
    creates: bool = False,
) -> lance.LanceDataset:
    # max_retries=0: Lance must not rebase decisions that were made from the rows of one version.
    try:
        with _MAY_COMMIT:
            return lance.LanceDataset.commit(
                at.uri,
                transaction,
                storage_options=dict(at.storage_options) if at.storage_options else None,
                max_retries=0,
            )
    except _FAILURES as error:
        told = _told(at.uri, error, "commit to", "look there before you do it again")
        if isinstance(told, DatasetError):
            if creates and open_dataset(at) is not None:
                told = ConflictError(f"{at.uri} was created by someone else")
            elif isinstance(error, ValueError):
                told = CommitError(
                    f"Lance refuses the transaction on {at.uri}: {first_line(error)}; "
                    "nothing was committed"
                )
        raise told from error


def _told(uri: str, error: Exception, doing: str, unknown: str) -> Exception:
    """Returns our exception for a failure: a conflict, an unknown outcome, or no commit."""
    said = first_line(error)
    if isinstance(error, CommitConflictError) or any(word in said.lower() for word in _CONFLICTS):
        return ConflictError(said)
    # On a path of this machine, the caller can look afterwards and see the outcome.
    if _UNKNOWN.search(str(error)) and not is_local(uri):
        return UnknownCommitError(
            f"it is not known whether the commit to {uri} was made: {said}; {unknown}"
        )
    if is_removed(error):
        # There are newer commits, and its base version was cleaned up.
        return ConflictError(said)
    return DatasetError(f"cannot {doing} {uri}: {said}; check space and permissions there")
