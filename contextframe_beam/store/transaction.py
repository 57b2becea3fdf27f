"""One Lance transaction that replaces rows and adds rows together, and never twice.

Lance does not notice when the same transaction is committed twice. It does refuse, as a retryable
conflict, a transaction that removes rows from a fragment that another one changed since. So each
of ours removes a row that every competing one removes too: a state row or the anchor row
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
from contextframe_beam.store.rows import Removal

_LOGGER = logging.getLogger(__name__)
_ATTEMPTS = 20

# What Lance raises; RuntimeError where it makes an index.
_FAILURES = (OSError, ValueError, RuntimeError)

# What Lance says, without a type of its own, where an answer was lost and asking again failed.
_UNKNOWN = re.compile(r"Commit result for version \d+ is unknown")

# What a commit of Lance says that met another one, where its exception has no type of its own.
_CONFLICTS = ("commit conflict", "incompatible with concurrent", "preempted by concurrent")

# What Lance says of a file that the version names which it reads.
_LOST_FILE = re.compile(r"Not found: .*/(data|_deletions|_indices)/")
_LOST_ATTEMPTS = 6

# Held by whoever commits, and for good by a process that must not commit any more.
_MAY_COMMIT = threading.Lock()

T = TypeVar("T")


class ConflictError(Exception):
    """The dataset changed under a transaction, which may be built anew and tried again."""


@dataclass(frozen=True)
class Pending(Generic[T]):
    """A transaction that is built and not yet committed.

    Attributes:
        commit: Commits it.
        result: Makes what is to be returned of the version that it made.
    """

    commit: Callable[[], lance.LanceDataset]
    result: Callable[[lance.LanceDataset], T]


def change(
    at: Address,
    build: Callable[[list[WrittenFragment]], Pending[T] | T],
    files: Sequence[WrittenFragment] = (),
) -> T:
    """Changes a dataset by one transaction, which is built anew when others come first.

    New files stay only where a version names them or may come to name them. They are deleted when
    nothing was sent, and when a conflict was the answer. Where the outcome is not known they stay,
    and a cleanup removes them days later if nobody needs them.

    Args:
        at: The dataset.
        build: Decides from the newest version what is to be done. It is given a list, to which it
            adds the files that it writes. Returns the transaction; or at once what is to be
            returned, where there is nothing to commit.
        files: Files that are written already, for whichever attempt succeeds.

    Raises:
        ConcurrentRunError: others kept coming first.
        UnknownCommitError: the object store does not tell whether it was committed.
        DatasetError: it failed. What `build` raises comes through as well.
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
    """Commits a removal and new fragments to the version that `removal` was found in.

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
    """Makes `new` the whole content of the dataset, if `read_version` is still its version.

    A `read_version` of 0 creates the dataset, if there still is none. `storage_version` is the
    file format of a dataset that is created; one that is overwritten keeps its own, since Lance
    goes on to write in it.

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
    """Calls what makes a commit of Lance's own, which changes no document.

    Args:
        uri: The dataset.
        change: What to call; it may be called again, whether it was committed or not.
        doing: What it does, for messages.

    Raises:
        ConflictError: another commit came first.
        UnknownCommitError: the object store does not tell whether it was committed.
        DatasetError: it failed.
    """
    try:
        return change()
    except _FAILURES as error:
        told = _told(uri, error, doing, "the documents are as they were, do it again")
        raise told from error


def commit_restore(dataset: lance.LanceDataset, version: int, at: Address) -> lance.LanceDataset:
    """Makes the content of an earlier version the newest one.

    What was committed since `dataset` was opened is undone with the rest. What was not committed
    yet conflicts with it: Lance refuses every transaction that was built on an earlier version.

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
    """Adds rows to exactly the version that `dataset` is, whatever they replace.

    For what has no row yet whose replacement would make two such commits conflict. Any other
    commit in between makes it fail, so it suits what happens once in a dataset's life.

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
    fragments = []
    for one in dataset.get_fragments():
        described = updated.get(one.fragment_id, one.metadata)
        with_file = FragmentMetadata.from_json(json.dumps(described.to_json()))
        with_file.files.extend(files[one.fragment_id].to_lance().files)
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
    """Calls `attempt` until it meets no conflict, with growing, jittered pauses.

    So it does, a few times, where a file was gone: a cleanup may have removed the version that the
    attempt was reading, which others have followed.

    Raises:
        ConcurrentRunError: others kept coming first.
    """
    lost = 0
    for number in range(_ATTEMPTS):
        try:
            return attempt()
        except ConflictError as error:
            _LOGGER.info("commit to %s met another one, trying again: %s", uri, error)
            if number == _ATTEMPTS - 1:
                raise ConcurrentRunError(
                    f"{_ATTEMPTS} attempts to commit to {uri} met other commits; "
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
    """Waits for a commit that is under way and lets no other one begin in this process.

    For a process that was interrupted: afterwards it can tell whether its run was committed.

    Args:
        patience: How many seconds to wait.

    Returns:
        Whether no commit is under way any more.
    """
    return _MAY_COMMIT.acquire(timeout=patience)


@lru_cache(maxsize=16)
def lance_schema(schema: pa.Schema, storage_version: Any, *, overwrites: bool) -> Any:
    """Returns the schema with Lance's own field ids and types, as the new files have them.

    Format 2.2 numbers the parts of a blob column after it in a new dataset, and at the end where
    one is overwritten.
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
    # max_retries=0: Lance must not rebase what was decided from the rows of one version.
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
    """Returns what a failure of Lance's means: a conflict, an unknown outcome, or no commit."""
    said = first_line(error)
    if isinstance(error, CommitConflictError) or any(word in said.lower() for word in _CONFLICTS):
        return ConflictError(said)
    # On a path of this machine whoever asks afterwards sees what became of it.
    if _UNKNOWN.search(str(error)) and not is_local(uri):
        return UnknownCommitError(
            f"whether the commit to {uri} was made is not known: {said}; {unknown}"
        )
    if is_removed(error):
        # Others have committed since, and the version it was built on was cleaned up.
        return ConflictError(said)
    return DatasetError(f"cannot {doing} {uri}: {said}; check space and permissions there")
