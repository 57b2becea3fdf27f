"""Writes data files before their commit, notes them in a journal, and reads them back."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import uuid
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lance
import numpy as np
import pyarrow as pa
from lance import DatasetBasePath
from lance.dataset import LanceOperation
from lance.fragment import FragmentMetadata, write_fragments

from contextframe_beam.errors import CommitError, DatasetError, SchemaError
from contextframe_beam.frames.fields import fields_of
from contextframe_beam.frames.values import null_array
from contextframe_beam.store.address import Address, as_dict, file_uri, first_line, is_local
from contextframe_beam.store.files import (
    Destination,
    Meanings,
    WrittenFragment,
    delete_files,
    local_fault,
    open_dataset,
    side_files_of,
    size_of,
)
from contextframe_beam.store.keys import numbers_of
from contextframe_beam.store.numbers import has_reused, meanings_of
from contextframe_beam.store.transaction import lance_schema

if TYPE_CHECKING:
    from contextframe_beam.store.address import StorageOptions

#: A fragment is closed at this many rows or bytes, whichever comes first.
MAX_ROWS_PER_FRAGMENT = 1_000_000
MAX_BYTES_PER_FRAGMENT = 2 << 30

# The most rows that wait for the encoder; then the caller waits, which bounds memory.
_BUFFER_BYTES = 32 << 20

# How much Lance gets at once. Each batch costs some work for each column, filled or not: documents
# of 1.3 KB take 8.5 us of processor time each in batches of 760, and 7.6 us in batches of 1500.
# Batches of two and four times the size were not faster and took 50 and 100 MB more.
_ROWS_AT_ONCE = 1024
_BYTES_AT_ONCE = 2 << 20

# How much Lance gathers before it writes pages. Its default counts by column and reached 900 MB
# here; this value bounds it to 100 MB and makes the files a little smaller.
_ENCODER_BYTES = 16 << 20


class FragmentWriter:
    """Streams batches into new fragments of one dataset.

    Args:
        destination: The dataset.
        schema: The schema of every batch, in the dataset's order.
        max_rows: The largest number of rows in a fragment.
        max_bytes: About the largest number of bytes in a fragment.
    """

    def __init__(
        self,
        destination: Destination,
        schema: pa.Schema,
        *,
        max_rows: int = MAX_ROWS_PER_FRAGMENT,
        max_bytes: int = MAX_BYTES_PER_FRAGMENT,
    ) -> None:
        self._destination = destination
        self._schema = schema
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        # Lance checks a file's size between batches.
        self._bytes_at_once = min(_BYTES_AT_ONCE, max_bytes)
        self._changed = threading.Condition()
        self._waiting: deque[tuple[pa.RecordBatch, int]] = deque()
        self._waiting_bytes = 0
        self._closed = False
        self._aborted = False
        self._error: BaseException | None = None
        self._written: list[WrittenFragment] = []
        self._keys: list[bytes] = []
        # Whether each row is a chunk of a document.
        self._chunks: list[np.ndarray[Any, np.dtype[np.bool_]]] = []
        self._has_raw_data = False
        self._thread: threading.Thread | None = None
        _ACTIVE.add(self)

    def add(self, batch: pa.RecordBatch) -> None:
        """Adds a batch; waits while the encoder is busy.

        Raises:
            DatasetError: earlier rows could not be stored.
            SchemaError: the batch has other columns; Lance would store it and fail to read it.
        """
        if not batch.schema.equals(self._schema):
            raise SchemaError(
                f"a batch for {self._destination.uri} does not have the writer's columns; "
                f"it has {_differences(batch.schema, self._schema)}"
            )
        if not batch.num_rows:
            return
        if _STOPPED.is_set():
            raise DatasetError(f"writing to {self._destination.uri} was interrupted")
        size = size_of(batch)
        with self._changed:
            if self._closed:
                raise DatasetError(
                    f"the writer to {self._destination.uri} is closed; make another one"
                )
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lance-writer", daemon=True)
                self._thread.start()
            while self._waiting and self._waiting_bytes + size > _BUFFER_BYTES:
                if self._error is not None:
                    break
                self._changed.wait()
            if self._error is not None:
                raise self._failure() from self._error
            self._waiting.append((batch, size))
            self._waiting_bytes += size
            self._changed.notify_all()

    def close(self) -> list[WrittenFragment]:
        """Returns the fragments in the order of their rows; empty if there were no rows.

        Raises:
            DatasetError: the rows could not be stored; all files were removed.
        """
        self._finish(aborted=False)
        # What the rows took is kept for more of them, and the commit needs memory of another kind.
        pa.default_memory_pool().release_unused()
        if self._error is not None:
            raise self._failure() from self._error
        return self._written

    def abort(self) -> None:
        """Stops writing; Lance removes unfinished files."""
        self._finish(aborted=True)

    def _finish(self, *, aborted: bool) -> None:
        with self._changed:
            self._closed = True
            self._aborted = self._aborted or aborted
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _failure(self) -> DatasetError:
        return DatasetError(
            f"cannot write to {self._destination.uri}: {first_line(self._error)}; "
            "nothing was committed, check space and permissions there"
        )

    def _batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        while batches := self._gathered():
            batch = _joined(batches)
            numbers, _ = numbers_of(batch.column("uuid"))
            self._keys.append(numbers.to_bytes())
            self._chunks.append(_is_chunk(batch))
            raw_data = batch.column("raw_data")
            self._has_raw_data |= raw_data.null_count < len(raw_data)
            yield batch if schema is self._schema else batch.select(schema.names)

    def _gathered(self) -> list[pa.RecordBatch]:
        """Waits for enough batches for one call of Lance; returns an empty list at the end."""
        batches: list[pa.RecordBatch] = []
        rows = gathered = 0
        with self._changed:
            while rows < _ROWS_AT_ONCE and gathered < self._bytes_at_once:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._aborted:
                    raise _AbortedError
                if not self._waiting:
                    break
                batch, size = self._waiting.popleft()
                batches.append(batch)
                rows += batch.num_rows
                gathered += size
                self._waiting_bytes -= size
                self._changed.notify_all()
        return batches

    def _described(
        self, fragments: Sequence[FragmentMetadata], meanings: Meanings
    ) -> list[WrittenFragment]:
        to = self._destination
        keys = memoryview(b"".join(self._keys))
        chunks = np.concatenate([*self._chunks, np.zeros(0, np.bool_)])
        described, start = [], 0
        for fragment in fragments:
            end = start + fragment.physical_rows
            own = bytes(keys[16 * start : 16 * end])
            count = int(chunks[start:end].sum())
            described.append(WrittenFragment.of(fragment, own, count, meanings))
            start = end
        if not self._has_raw_data:
            return described
        return [replace(one, side_files=side_files_of(to, one.paths)) for one in described]

    def _run(self) -> None:
        try:
            to = self._destination
            target: Any = open_dataset(to)
            mode = "append"
            version: Any = None
            schema = self._schema
            meanings: Meanings = ()
            if target is None or to.overwrites:
                # Writing files does not overwrite any data. "create" would fail if somebody else
                # made the dataset at this moment, but the commit should find that out.
                mode = "overwrite"
                version = to.storage_version if target is None else target.data_storage_version
                target = to.uri
            else:
                schema = _without_dropped(schema, target.schema)
                meanings = meanings_of(target)
            fragments = write_fragments(
                pa.RecordBatchReader.from_batches(schema, self._batches(schema)),
                target,
                schema=schema,
                mode=mode,
                max_rows_per_file=self._max_rows,
                max_bytes_per_file=self._max_bytes,
                data_cache_bytes=_ENCODER_BYTES,
                data_storage_version=version,
                storage_options=as_dict(to.storage_options),
            )
            self._written = self._described(fragments, meanings)
            note(to.uri, self._written)
            if is_local(to.uri):
                _require_whole(to, self._written)
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()


def _without_dropped(schema: pa.Schema, stored: pa.Schema) -> pa.Schema:
    """Returns columns without those own fields that a dataset has no more, or of another type."""
    own = fields_of(schema)
    gone = {one.column for one in own if one not in fields_of(stored)} if own else set()
    return pa.schema([one for one in schema if one.name not in gone]) if gone else schema


class _AbortedError(Exception):
    """Ends the stream of an aborted writer."""


def _is_chunk(batch: pa.RecordBatch) -> np.ndarray[Any, np.dtype[np.bool_]]:
    # Some write columns of their own choice, such as those of the format only.
    place = batch.schema.get_field_index("x_parent")
    if place < 0:
        return np.zeros(batch.num_rows, np.bool_)
    found: np.ndarray[Any, np.dtype[np.bool_]] = (
        batch.column(place).is_valid().to_numpy(zero_copy_only=False)
    )
    return found


def _joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Joins batches; columns with only nulls continue to share their memory."""
    if len(batches) == 1:
        return batches[0]
    count = sum(batch.num_rows for batch in batches)
    columns = []
    for place, field in enumerate(batches[0].schema):
        parts = [batch.column(place) for batch in batches]
        if all(part.null_count == len(part) for part in parts):
            columns.append(null_array(field.type, count))
        else:
            columns.append(pa.concat_arrays(parts))
    return pa.RecordBatch.from_arrays(columns, schema=batches[0].schema)


_ACTIVE: weakref.WeakSet[FragmentWriter] = weakref.WeakSet()
_STOPPED = threading.Event()


def abort_all() -> None:
    """Aborts all writers of this process permanently, because the process is about to end."""
    _STOPPED.set()
    for writer in list(_ACTIVE):
        writer.abort()


def write_rows(
    destination: Destination, batches: Iterable[pa.RecordBatch]
) -> list[WrittenFragment]:
    """Writes batches of one schema, at least one, into new fragments and returns them."""
    batches = iter(batches)
    first = next(batches)
    writer = FragmentWriter(destination, first.schema)
    try:
        writer.add(first)
        for batch in batches:
            writer.add(batch)
    except BaseException:
        writer.abort()
        raise
    return writer.close()


def _require_whole(at: Address, fragments: Iterable[WrittenFragment]) -> None:
    """Checks new local files, because Lance may not report a file that a full disk cut off.

    Raises:
        OSError: a file is incomplete; all of them were deleted.
    """
    fragments = list(fragments)
    for fragment in fragments:
        for file in json.loads(fragment.metadata)["files"]:
            size = int(file["file_size_bytes"])
            fault = local_fault(file_uri(at.uri, file["path"]), size, fragment.rows)
            if fault is not None:
                delete_files(at, fragments)
                raise OSError(f"the data file {file['path']} {fault}")


def _differences(have: pa.Schema, want: pa.Schema) -> str:
    if have.names != want.names:
        return f"the columns {', '.join(have.names)}"
    return ", ".join(
        f"{found.name} {found.type} instead of {wanted.type}"
        for found, wanted in zip(have, want, strict=True)
        if not found.equals(wanted)
    )


_BASE = 1


def preview(
    destination: Destination, schema: pa.Schema, fragments: Sequence[WrittenFragment]
) -> lance.LanceDataset:
    """Returns a dataset of written fragments in their order; the first one has the id 0.

    Args:
        destination: The dataset that they were written for.
        schema: The columns that they were written with.
        fragments: At least one.

    Raises:
        CommitError: they do not fit together.
    """
    options = dict(destination.storage_options) if destination.storage_options else None
    dataset = open_dataset(Address(destination.uri, options))
    if dataset is None:
        columns = lance_schema(schema, destination.storage_version, overwrites=False)
    elif destination.overwrites:
        columns = lance_schema(schema, dataset.data_storage_version, overwrites=True)
    else:
        columns = dataset.lance_schema
        if has_reused(dataset, fragments):
            raise CommitError(
                f"columns of {destination.uri} were dropped and added since its data files were "
                "written; nothing was committed, run it again"
            )
    uri = destination.uri
    base = DatasetBasePath(
        path=uri if "://" in uri else os.path.abspath(uri),
        id=_BASE,
        is_dataset_root=True,
    )
    try:
        return lance.LanceDataset.commit(
            f"memory://preview-{uuid.uuid4().hex}",
            LanceOperation.Overwrite(
                columns, [_at_base(fragment) for fragment in fragments], initial_bases=[base]
            ),
            storage_options=options,
        )
    except (OSError, ValueError) as error:
        raise CommitError(
            f"the data files that were written to {uri} cannot be read again: "
            f"{first_line(error)}; nothing was committed, run it again"
        ) from error


def _at_base(fragment: WrittenFragment) -> FragmentMetadata:
    """Describes a fragment whose files are in the dataset that they were written for."""
    described = json.loads(fragment.metadata)
    for file in described["files"]:
        file["base_id"] = _BASE
    return FragmentMetadata.from_json(json.dumps(described))


#: Names the folder for the processes that a run starts.
FOLDER_VARIABLE = "CONTEXTFRAME_JOURNAL"

_CURRENT = "current"


def note(uri: str, fragments: Iterable[WrittenFragment]) -> None:
    """Notes that this process has finished files of the dataset at `uri`."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return
    lines = [
        json.dumps([uri, fragment.metadata, fragment.rows, fragment.size]) + "\n"
        for fragment in fragments
    ]
    # The folder may be gone, or on another machine: then nobody will clean up.
    with (
        contextlib.suppress(OSError),
        open(Path(folder) / f"{os.getpid()}.files", "a", encoding="utf-8") as file,
    ):
        file.writelines(lines)


def begin(run_id: str) -> None:
    """Begins the next transaction of a backfill; the files noted so far are committed."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return
    for path in Path(folder).glob("*.files"):
        path.unlink()
    (Path(folder) / _CURRENT).write_text(run_id, encoding="utf-8")


def current(folder: str) -> str | None:
    """Returns the run id of the current transaction of a backfill."""
    try:
        return (Path(folder) / _CURRENT).read_text(encoding="utf-8") or None
    except OSError:
        return None


def delete_noted(folder: str, storage_options: StorageOptions = None) -> None:
    """Deletes noted files that are in no version, for a run that can no longer be committed."""
    from contextframe_beam.store.address import Address
    from contextframe_beam.store.files import WrittenFragment, delete_files

    noted: dict[str, list[WrittenFragment]] = {}
    for path in Path(folder).glob("*.files"):
        for line in path.read_text(encoding="utf-8").splitlines():
            # The last line of a killed process may be incomplete.
            with contextlib.suppress(ValueError):
                uri, metadata, rows, size = json.loads(line)
                noted.setdefault(uri, []).append(WrittenFragment(metadata, rows, size))
    for uri, fragments in noted.items():
        delete_files(Address(uri, storage_options), fragments)
