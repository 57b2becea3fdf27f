"""One Lance transaction that replaces rows and adds rows together, and never twice.

Lance does not notice when the same transaction is committed twice. It does refuse, as a retryable
conflict, a transaction that removes rows from a fragment that another one changed since. So each
of ours removes a row that every competing one removes too: a state row or the anchor row
(`state.py`).
"""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import lance
import pyarrow as pa
from lance.commit import CommitConflictError
from lance.dataset import LanceOperation, Transaction

from contextframe_beam.errors import CommitError, ConcurrentRunError, DatasetError
from contextframe_beam.fragments import StorageOptions, WrittenFragment, first_line, open_dataset

_LOGGER = logging.getLogger(__name__)
_ATTEMPTS = 20

T = TypeVar("T")


class ConflictError(Exception):
    """The dataset changed under a transaction, which may be built anew and tried again."""


@dataclass(frozen=True)
class Removal:
    """Rows to be removed from the fragments of one dataset version.

    Attributes:
        removed_fragment_ids: Fragments that lose all their rows.
        updated_fragments: Fragments that lose some.
        rows: Number of rows removed.
    """

    removed_fragment_ids: Sequence[int]
    updated_fragments: Sequence[Any]
    rows: int


def remove_keys(dataset: lance.LanceDataset, keys: pa.Array) -> Removal:
    """Finds the rows whose uuid is among `keys`, to be removed in a transaction."""
    if not len(keys):
        return Removal([], [], 0)
    table = pa.table({"uuid": keys})
    transaction, counts = (
        dataset.merge_insert("uuid")
        .use_index(False)
        .when_matched_delete()
        .execute_uncommitted(table)
    )
    operation: Any = transaction.operation
    return Removal(
        operation.removed_fragment_ids,
        operation.updated_fragments,
        int(counts["num_deleted_rows"]),
    )


def commit_update(
    dataset: lance.LanceDataset,
    removal: Removal,
    new: Sequence[WrittenFragment],
    *,
    properties: Mapping[str, str],
    storage_options: StorageOptions = None,
) -> lance.LanceDataset:
    """Commits a removal and new fragments to the version that `removal` was found in.

    Raises:
        ConflictError: another commit changed the same fragments first.
    """
    return _commit(
        dataset.uri,
        Transaction(
            dataset.version,
            LanceOperation.Update(
                removed_fragment_ids=list(removal.removed_fragment_ids),
                updated_fragments=list(removal.updated_fragments),
                new_fragments=[fragment.to_lance() for fragment in new],
            ),
            transaction_properties=dict(properties),
        ),
        storage_options,
    )


def commit_overwrite(
    uri: str,
    schema: pa.Schema,
    new: Sequence[WrittenFragment],
    *,
    read_version: int,
    storage_version: str,
    properties: Mapping[str, str],
    storage_options: StorageOptions = None,
) -> lance.LanceDataset:
    """Makes `new` the whole content of the dataset, if `read_version` is still its version.

    Args:
        read_version: 0 creates the dataset, if there still is none.

    Raises:
        ConflictError: another commit came first.
    """
    return _commit(
        uri,
        Transaction(
            read_version,
            LanceOperation.Overwrite(
                _lance_schema(schema, storage_version), [fragment.to_lance() for fragment in new]
            ),
            transaction_properties=dict(properties),
        ),
        storage_options,
        creates=read_version == 0,
    )


def with_retries(uri: str, attempt: Callable[[], T]) -> T:
    """Calls `attempt` until it meets no conflict, with growing, jittered pauses.

    Raises:
        ConcurrentRunError: others kept coming first.
    """
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
            time.sleep(random.uniform(0, min(2.0, 0.02 * 2**number)))
    raise AssertionError("unreachable")


@lru_cache(maxsize=16)
def _lance_schema(schema: pa.Schema, storage_version: Any) -> Any:
    """Returns the schema with Lance's own field ids and types, as a file of that version has."""
    empty = pa.Table.from_batches([], schema)
    made = lance.write_dataset(
        empty, f"memory://schema-{uuid.uuid4().hex}", data_storage_version=storage_version
    )
    return made.lance_schema


def _commit(
    uri: str,
    transaction: Transaction,
    storage_options: StorageOptions,
    *,
    creates: bool = False,
) -> lance.LanceDataset:
    # max_retries=0: Lance must not rebase what was decided from the rows of one version.
    try:
        return lance.LanceDataset.commit(
            uri,
            transaction,
            storage_options=dict(storage_options) if storage_options else None,
            max_retries=0,
        )
    except CommitConflictError as error:
        raise ConflictError(first_line(error)) from error
    except (OSError, ValueError) as error:
        if creates and open_dataset(uri, storage_options) is not None:
            raise ConflictError(f"{uri} was created by someone else") from error
        if isinstance(error, ValueError):
            raise CommitError(
                f"Lance refuses the transaction on {uri}: {first_line(error)}; "
                "nothing was committed"
            ) from error
        raise DatasetError(
            f"cannot commit to {uri}: {first_line(error)}; check space and permissions there"
        ) from error
