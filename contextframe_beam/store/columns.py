"""Rewrites single columns: the other columns and their indices stay as they are.

A Lance dataset keeps each column under a number, and a fragment may have several data files with
some columns each. A column of another type, or with other values throughout, gets a new number and
a new file in each fragment; one transaction puts these into the place of the old ones. What readers
see of an earlier version does not change, and other commits that were built on it conflict.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import lance
import pyarrow as pa
from lance.file import LanceFileSession, LanceFileWriter
from lance.fragment import DataFile, FragmentMetadata
from lance.schema import LanceSchema

from contextframe_beam.errors import DatasetError
from contextframe_beam.frames.values import null_array
from contextframe_beam.store.address import (
    Address,
    _local_path,
    as_dict,
    file_uri,
    first_line,
    is_local,
)
from contextframe_beam.store.files import WrittenFragment, delete_files
from contextframe_beam.store.numbers import flat, numbers_of
from contextframe_beam.store.rows import Removal
from contextframe_beam.store.transaction import (
    ConflictError,
    commit_column_files,
    commit_update,
    lance_schema,
)
from contextframe_beam.store.writer import note

__all__ = [
    "commit_columns_anew",
    "commit_new_columns",
    "joined",
    "renumbered",
    "schema_with",
    "with_file",
    "write_column_file",
]

_NULLS_AT_ONCE = 8192
_DELETED = pa.schema([pa.field("row_id", pa.uint32(), nullable=False)])


def commit_new_columns(
    dataset: lance.LanceDataset,
    schema: pa.Schema,
    columns: pa.Schema,
    removal: Removal,
    new: Sequence[WrittenFragment],
    *,
    properties: Mapping[str, str],
    at: Address,
) -> lance.LanceDataset:
    """Makes some columns null columns of another type, and removes and adds rows.

    Another commit may have done the first before; then the rows remain.

    Args:
        dataset: The version that all this was made of.
        schema: The columns of the new rows, which were written for a dataset of their own.
        columns: Those among them that the dataset has with another type.
        removal: Rows to remove.
        new: The new rows.
        properties: What is noted of the transaction.
        at: Where it is.

    Raises:
        ConflictError: another commit came first.
        DatasetError: it failed.
    """
    if all(dataset.schema.field(one.name).type == one.type for one in columns):
        written_as = lance_schema(schema, dataset.data_storage_version, overwrites=True)
        rows = renumbered(new, written_as, dataset.lance_schema)
        return commit_update(dataset, removal, rows, properties=properties, at=at)
    files: dict[int, WrittenFragment] = {}
    try:
        for one in dataset.get_fragments():
            nothing = null_batches(columns, one.physical_rows)
            files[one.fragment_id] = write_column_file(
                at, nothing, columns, dataset.data_storage_version
            )
        return commit_columns_anew(
            dataset, schema, columns, files, removal, new, properties=properties, at=at
        )
    except ConflictError:
        delete_files(at, files.values())
        raise


def commit_columns_anew(
    dataset: lance.LanceDataset,
    schema: pa.Schema,
    columns: pa.Schema,
    files: Mapping[int, WrittenFragment],
    removal: Removal,
    new: Sequence[WrittenFragment],
    *,
    properties: Mapping[str, str],
    at: Address,
) -> lance.LanceDataset:
    """Replaces old columns with rewritten ones, and changes rows.

    Args:
        dataset: The version that all this was made of.
        schema: The columns of the new rows, which were written for a dataset of their own.
        columns: The rewritten columns, in the order of the files.
        files: Data files with them (`write_column_file`) of each fragment, by the fragment's id.
        removal: Rows to remove.
        new: The new rows.
        properties: What is noted of the transaction.
        at: Where it is.

    Raises:
        ConflictError: another commit came first.
        DatasetError: it failed.
    """
    version = dataset.data_storage_version
    changed = schema_with(dataset, columns)
    numbers = numbers_of(changed, columns.names, version)
    emptied = [
        _emptied(at, one, int(dataset.version))
        for one in dataset.get_fragments()
        if one.fragment_id in removal.removed_fragment_ids
    ]
    written_as = lance_schema(schema, version, overwrites=True)
    return commit_column_files(
        dataset,
        changed,
        {number: _numbered(one, numbers) for number, one in files.items()},
        Removal([], [*removal.updated_fragments, *emptied], removal.rows),
        renumbered(new, written_as, changed),
        properties=properties,
        at=at,
    )


def schema_with(dataset: lance.LanceDataset, columns: pa.Schema) -> LanceSchema:
    """Returns a dataset's schema with rewritten columns, under new numbers.

    Args:
        dataset: One version.
        columns: Columns, in any order; those that are there are replaced.
    """
    schema = dataset.lance_schema
    first = 1 + max(
        [number for _, number in flat(schema)]
        + [
            number
            for one in dataset.get_fragments()
            for f in one.data_files()
            for number in f.fields
        ]
    )
    # The numbers of a schema can be made, not set: columns before these take the lower ones.
    before = [pa.field(f"before_{number}", pa.int8()) for number in range(first)]
    empty = pa.schema([*before, *columns]).empty_table()
    version: Any = dataset.data_storage_version
    made = lance.write_dataset(
        empty,
        f"memory://columns-{uuid.uuid4().hex}",
        data_storage_version=version,
    ).lance_schema
    _, _, *described = _parts(made)
    # A column is followed by its parts.
    new: dict[str, list[Any]] = {name: [] for name in columns.names}
    for (path, _), one in zip(flat(made)[first:], described[first:], strict=True):
        new[path[0]].append(one)
    of, metadata, *old = _parts(schema)
    kept: list[Any] = []
    for (path, _), one in zip(flat(schema), old, strict=True):
        if path[0] not in columns.names:
            kept.append(one)
        elif len(path) == 1:
            kept += new.pop(path[0])
    changed: LanceSchema = of(metadata, *kept, *(one for parts in new.values() for one in parts))
    return changed


def renumbered(
    fragments: Iterable[WrittenFragment], written_as: LanceSchema, schema: LanceSchema
) -> list[WrittenFragment]:
    """Returns fragments with the numbers that their columns have in a dataset.

    Args:
        fragments: They were written for a dataset of their own.
        written_as: Its schema.
        schema: That of the dataset which they are to be a part of, with columns of the same names.
    """
    target = dict(flat(schema))
    numbers = {number: target[path] for path, number in flat(written_as)}

    def of(fragment: WrittenFragment) -> WrittenFragment:
        described = json.loads(fragment.metadata)
        for file in described["files"]:
            file["fields"] = [numbers.get(number, number) for number in file["fields"]]
        return WrittenFragment(
            json.dumps(described), fragment.rows, fragment.size, fragment.keys, fragment.side_files
        )

    return [of(fragment) for fragment in fragments]


def null_batches(columns: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    """Yields so many rows of columns that are null."""
    for start in range(0, rows, _NULLS_AT_ONCE):
        count = min(_NULLS_AT_ONCE, rows - start)
        arrays = [null_array(column.type, count) for column in columns]
        yield pa.RecordBatch.from_arrays(arrays, schema=columns)


def write_column_file(
    at: Address,
    batches: Iterable[pa.RecordBatch],
    columns: pa.Schema,
    storage_version: str,
) -> WrittenFragment:
    """Writes a data file with some columns of all rows of a fragment, deleted ones included.

    Args:
        at: The dataset.
        batches: The columns.
        columns: Their schema.
        storage_version: The file format of the dataset.

    Raises:
        DatasetError: it cannot be written.
    """
    name = f"{uuid.uuid4().hex}.lance"
    address = file_uri(at.uri, name)
    rows = 0
    try:
        with LanceFileWriter(
            address,
            columns,
            version=storage_version,
            storage_options=as_dict(at.storage_options),
        ) as writer:
            for batch in batches:
                writer.write_batch(batch)
                rows += batch.num_rows
        # Lance asks an object store itself.
        size = os.stat(_local_path(address)).st_size if is_local(at.uri) else None
    except OSError as error:
        raise DatasetError(
            f"cannot write to {at.uri}: {first_line(error)}; nothing was committed, check space "
            "and permissions there"
        ) from error
    major, minor = map(int, storage_version.split("."))
    made = lance_schema(columns, storage_version, overwrites=False)
    places = list(range(len(numbers_of(made, columns.names, storage_version))))
    # The numbers of the columns are known when it is committed.
    file = DataFile(name, places, places, major, minor, size)
    written = WrittenFragment.of(FragmentMetadata(0, [file], rows))
    note(at.uri, [written])
    return written


def joined(parts: Sequence[WrittenFragment]) -> WrittenFragment:
    """Returns data files with some columns each as one with all of them, in this order."""
    described = json.loads(parts[0].metadata)
    described["files"] = [file for one in parts for file in json.loads(one.metadata)["files"]]
    size = sum(one.size for one in parts)
    return WrittenFragment(json.dumps(described), parts[0].rows, size)


def with_file(
    fragment: WrittenFragment, file: WrittenFragment, numbers: Sequence[int]
) -> WrittenFragment:
    """Returns a fragment with one more data file.

    Args:
        fragment: The fragment.
        file: The columns of all its rows (`write_column_file`).
        numbers: The numbers of these columns in the dataset (`numbers_of`).
    """
    described = json.loads(fragment.metadata)
    described["files"] += json.loads(_numbered(file, numbers).metadata)["files"]
    size = fragment.size + file.size
    return replace(fragment, metadata=json.dumps(described), size=size)


def _numbered(written: WrittenFragment, numbers: Sequence[int]) -> WrittenFragment:
    """Returns data files with the numbers that their columns get, from the first file on."""
    described = json.loads(written.metadata)
    left = list(numbers)
    for file in described["files"]:
        count = len(file["fields"])
        file["fields"], left = left[:count], left[count:]
    return WrittenFragment(json.dumps(described), written.rows, written.size)


def _emptied(at: Address, fragment: lance.LanceFragment, version: int) -> FragmentMetadata:
    """Returns a fragment with all rows deleted.

    Where columns change, Lance wants to see every fragment again, and it has no call that deletes
    all rows of one and keeps it. Source: https://lance.org/format/table, deletion files.

    Raises:
        DatasetError: the deletion cannot be written down.
    """
    number = random.getrandbits(63)
    name = f"_deletions/{fragment.fragment_id}-{version}-{number}.arrow"
    offsets = pa.array(range(fragment.physical_rows), pa.uint32())
    rows = pa.record_batch([offsets], schema=_DELETED)
    with tempfile.NamedTemporaryFile(suffix=".arrow") as file:
        with pa.ipc.new_file(file, _DELETED) as sink:
            sink.write_batch(rows)
        file.flush()
        try:
            LanceFileSession(at.uri, as_dict(at.storage_options)).upload_file(file.name, name)
        except OSError as error:
            raise DatasetError(
                f"cannot write to {at.uri}: {first_line(error)}; nothing was committed"
            ) from error
    described = fragment.metadata.to_json()
    described["deletion_file"] = {
        "read_version": version,
        "id": number,
        "file_type": "array",
        "num_deleted_rows": fragment.physical_rows,
        "base_id": None,
    }
    return FragmentMetadata.from_json(json.dumps(described))


def _parts(schema: LanceSchema) -> tuple[Any, ...]:
    """Returns what makes a schema of its metadata and its columns, and these, as in `flat`."""
    # The form in which it is pickled; no other form keeps the numbers.
    reduced: Any = schema.__reduce__()
    make, (metadata, *columns) = reduced
    return (make, metadata, *columns)
