"""Writing rows into Lance files that nobody sees until a transaction names them.

A `FragmentWriter` encodes in a thread of its own: Lance compresses without the interpreter lock,
so the caller goes on mapping documents meanwhile.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from urllib.parse import unquote

import lance
import pyarrow as pa
import pyarrow.compute as pc
from lance.file import LanceFileReader, LanceFileSession
from lance.fragment import FragmentMetadata, write_fragments

from contextframe_beam import journal
from contextframe_beam.errors import CommitError, DatasetError, SchemaError
from contextframe_beam.keys import numbers_of
from contextframe_beam.object_store import in_words

_LOGGER = logging.getLogger(__name__)

#: A fragment is closed at this many rows or bytes, whichever comes first.
MAX_ROWS_PER_FRAGMENT = 1_000_000
MAX_BYTES_PER_FRAGMENT = 2 << 30

DEFAULT_STORAGE_VERSION = "2.1"

# Rows that wait for the encoder; beyond it the caller waits, which bounds memory.
_BUFFER_BYTES = 32 << 20

# What Lance gathers before it writes pages. Its own default counts by column and reached 900 MB
# here; this bounds it to 100 MB and makes the files a little smaller.
_ENCODER_BYTES = 16 << 20

# The last bytes of every Lance file.
_MAGIC = b"LANC"

StorageOptions = Mapping[str, str] | None


@dataclass(frozen=True)
class WrittenFragment:
    """A data file that was written and is not yet part of the dataset.

    Attributes:
        metadata: Lance's description of the fragment as JSON, about 400 bytes; what workers send.
        rows: Number of rows.
        size: Bytes of its data files.
        keys: The uuid of each row, 16 bytes each; reading them back from many small files would
            take longer than all else that a commit does.
        side_files: Files beside the data file that hold raw data, and their bytes.
    """

    metadata: str
    rows: int
    size: int
    keys: bytes = field(default=b"", repr=False)
    side_files: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, fragment: FragmentMetadata, keys: bytes = b"") -> WrittenFragment:
        """Describes a fragment that Lance wrote."""
        return cls(
            metadata=json.dumps(fragment.to_json()),
            rows=fragment.physical_rows,
            size=sum(file.file_size_bytes or 0 for file in fragment.files),
            keys=keys,
        )

    def to_lance(self) -> FragmentMetadata:
        """Returns Lance's own object."""
        return FragmentMetadata.from_json(self.metadata)

    @property
    def paths(self) -> list[str]:
        """The data files, relative to the dataset's `data` folder."""
        return [file["path"] for file in json.loads(self.metadata)["files"]]


@dataclass(frozen=True)
class Destination:
    """Where rows go.

    Attributes:
        uri: The dataset; it need not exist.
        storage_options: For object stores.
        storage_version: The file format of a dataset that is made; one that exists goes on in
            its own.
        overwrites: Whether the rows are to be the dataset's only ones.
    """

    uri: str
    storage_options: StorageOptions = None
    storage_version: str = DEFAULT_STORAGE_VERSION
    overwrites: bool = False


class FragmentWriter:
    """Streams batches into new fragments of one dataset.

    Args:
        destination: The dataset.
        schema: The schema of every batch, in the dataset's order.
        max_rows: A fragment is closed at so many rows.
        max_bytes: A fragment is closed at about so many bytes.
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
        self._changed = threading.Condition()
        self._waiting: deque[tuple[pa.RecordBatch, int]] = deque()
        self._waiting_bytes = 0
        self._closed = False
        self._aborted = False
        self._error: BaseException | None = None
        self._written: list[WrittenFragment] = []
        self._keys: list[bytes] = []
        self._has_raw_data = False
        self._thread: threading.Thread | None = None
        _ACTIVE.add(self)

    def add(self, batch: pa.RecordBatch) -> None:
        """Hands over a batch; waits while the encoder is behind.

        Raises:
            DatasetError: the rows written so far could not be stored.
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
        """Returns the fragments, in the order of their rows; empty when there were no rows.

        Raises:
            DatasetError: the rows could not be stored; nothing is left behind.
        """
        self._finish(aborted=False)
        if self._error is not None:
            raise self._failure() from self._error
        return self._written

    def abort(self) -> None:
        """Stops writing; Lance removes the files it began."""
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

    def _batches(self) -> Iterator[pa.RecordBatch]:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._aborted:
                    raise _AbortedError
                if not self._waiting:
                    return
                batch, size = self._waiting.popleft()
                self._waiting_bytes -= size
                self._changed.notify_all()
            numbers, _ = numbers_of(batch.column("uuid"))
            self._keys.append(numbers.to_bytes())
            raw_data = batch.column("raw_data")
            self._has_raw_data |= raw_data.null_count < len(raw_data)
            yield batch

    def _described(self, fragments: Sequence[FragmentMetadata]) -> list[WrittenFragment]:
        to = self._destination
        keys = memoryview(b"".join(self._keys))
        described, start = [], 0
        for fragment in fragments:
            end = start + 16 * fragment.physical_rows
            described.append(WrittenFragment.of(fragment, bytes(keys[start:end])))
            start = end
        if not self._has_raw_data:
            return described
        return [
            replace(one, side_files=_side_files(to.uri, one.paths, to.storage_options))
            for one in described
        ]

    def _run(self) -> None:
        try:
            to = self._destination
            target: Any = open_dataset(to.uri, to.storage_options)
            mode = "append"
            version: Any = None
            if target is None or to.overwrites:
                # Nothing is overwritten by writing files; "create" would fail if somebody else
                # made the dataset at this moment, which is for the commit to find out.
                mode = "overwrite"
                version = to.storage_version if target is None else target.data_storage_version
                target = to.uri
            fragments = write_fragments(
                pa.RecordBatchReader.from_batches(self._schema, self._batches()),
                target,
                schema=self._schema,
                mode=mode,
                max_rows_per_file=self._max_rows,
                max_bytes_per_file=self._max_bytes,
                data_cache_bytes=_ENCODER_BYTES,
                data_storage_version=version,
                storage_options=_as_dict(to.storage_options),
            )
            self._written = self._described(fragments)
            journal.note(to.uri, self._written)
            if is_local(to.uri):
                _require_whole(to.uri, self._written)
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()


class _AbortedError(Exception):
    """Ends the stream of a writer that is no longer wanted."""


_ACTIVE: weakref.WeakSet[FragmentWriter] = weakref.WeakSet()
_STOPPED = threading.Event()


def abort_all() -> None:
    """Aborts every writer of this process, for good: for a process that is about to end."""
    _STOPPED.set()
    for writer in list(_ACTIVE):
        writer.abort()


def write_rows(
    destination: Destination, batches: Sequence[pa.RecordBatch]
) -> list[WrittenFragment]:
    """Writes batches of one schema into new fragments and returns them."""
    writer = FragmentWriter(destination, batches[0].schema)
    try:
        for batch in batches:
            writer.add(batch)
    except BaseException:
        writer.abort()
        raise
    return writer.close()


def open_dataset(
    uri: str, storage_options: StorageOptions = None, version: int | None = None
) -> lance.LanceDataset | None:
    """Returns the dataset at `uri`, or None where there is none.

    Raises:
        DatasetError: there is something, but it cannot be opened.
    """
    try:
        return lance.dataset(uri, version=version, storage_options=_as_dict(storage_options))
    except (ValueError, FileNotFoundError) as error:
        if version is None and "was not found" in str(error):
            return None
        raise DatasetError(f"cannot open {uri}: {first_line(error)}") from error
    except OSError as error:
        raise DatasetError(
            f"cannot open {uri}: {first_line(error)}; check the path and the storage options"
        ) from error


def _require_whole(uri: str, fragments: Iterable[WrittenFragment]) -> None:
    """Looks at local files just written: of one that a full disk cut off, Lance may not tell.

    Raises:
        OSError: a file is not whole; all of them were deleted.
    """
    fragments = list(fragments)
    for fragment in fragments:
        for file in json.loads(fragment.metadata)["files"]:
            size = int(file["file_size_bytes"])
            fault = _local_fault(file_uri(uri, file["path"]), size, fragment.rows)
            if fault is not None:
                delete_files(uri, fragments)
                raise OSError(f"the data file {file['path']} {fault}")


def file_uri(uri: str, path: str) -> str:
    """Returns the address of a data file of the dataset."""
    return f"{uri.rstrip('/')}/data/{path}"


def check_files(
    uri: str, fragments: Iterable[WrittenFragment], storage_options: StorageOptions = None
) -> None:
    """Checks that each file is there and whole: Lance itself commits whatever it is told.

    Raises:
        CommitError: a file is missing or is not what its writer reported.
    """
    fragments = list(fragments)
    local = is_local(uri)
    check = _local_fault if local else partial(_remote_fault, storage_options=storage_options)
    files = [
        (file_uri(uri, file["path"]), int(file["file_size_bytes"]), fragment.rows)
        for fragment in fragments
        for file in json.loads(fragment.metadata)["files"]
    ]
    for fragment in fragments:
        if fragment.side_files:
            found = _side_files(uri, fragment.paths, storage_options)
            if found != fragment.side_files:
                raise CommitError(
                    f"the raw data beside {file_uri(uri, fragment.paths[0])} is not what a worker "
                    f"wrote ({len(found):,} files, {len(fragment.side_files):,} written); "
                    "nothing was committed, run it again"
                )
    with ThreadPoolExecutor(max_workers=1 if local else 16) as pool:
        for (address, _, _), fault in zip(files, pool.map(lambda f: check(*f), files), strict=True):
            if fault is not None:
                raise CommitError(
                    f"the data file {address} that a worker wrote {fault}; "
                    "nothing was committed, run it again"
                )


def delete_files(
    uri: str, fragments: Iterable[WrittenFragment], storage_options: StorageOptions = None
) -> None:
    """Deletes the files of fragments that no transaction will ever name.

    A file that a version names is kept: an object store may have lost the answer to a commit that
    was done, and that version may have been replaced or rolled back since. What cannot be deleted
    stays until Lance's own cleanup finds it, days later.
    """
    paths = [path for fragment in fragments for path in fragment.paths]
    if not paths:
        return
    try:
        named = _named_files(uri, paths, storage_options)
        paths = [path for path in paths if path not in named]
        session = LanceFileSession(file_uri(uri, ""), _as_dict(storage_options))
        for path in paths:
            for blob in session.list(_side_folder(path)):
                session.delete_file(blob)
            session.delete_file(path)
    except (OSError, ValueError, DatasetError) as error:
        _LOGGER.warning("cannot delete unused files of %s: %s", uri, first_line(error))


def _side_folder(path: str) -> str:
    """Returns where the raw data of a data file may lie in files of its own."""
    return path.removesuffix(".lance") + "/"


def _side_files(
    uri: str, paths: Sequence[str], storage_options: StorageOptions
) -> tuple[tuple[str, int], ...]:
    """Lists the files beside data files with their bytes; those of object stores count as 0."""
    session = LanceFileSession(file_uri(uri, ""), _as_dict(storage_options))
    found = sorted(name for path in paths for name in session.list(_side_folder(path)))
    if not is_local(uri):
        return tuple((name, 0) for name in found)
    return tuple((name, os.stat(_local_path(file_uri(uri, name))).st_size) for name in found)


def _named_files(uri: str, paths: Sequence[str], storage_options: StorageOptions) -> set[str]:
    """Returns those of `paths` that a version names which is still there."""
    dataset = open_dataset(uri, storage_options)
    if dataset is None:
        return set()
    wanted = pa.array([f"data/{path}" for path in paths], pa.string())
    return {
        path.removeprefix("data/")
        for batch in dataset.tracked_files()
        for path in batch.filter(pc.is_in(batch.column("path"), wanted)).column("path").to_pylist()
    }


def is_local(uri: str) -> bool:
    """Tells whether a dataset's address is a path of this machine."""
    return "://" not in uri or uri.startswith(("file://", "file-object-store://"))


def _local_fault(address: str, size: int, rows: int) -> str | None:
    try:
        with open(_local_path(address), "rb") as file:
            found = file.seek(0, os.SEEK_END)
            file.seek(max(0, found - len(_MAGIC)))
            end = file.read()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if found != size:
        return f"has {found:,} bytes instead of {size:,}"
    return None if end == _MAGIC else "does not end as a Lance file does"


def _local_path(address: str) -> str:
    scheme, mark, path = address.partition("://")
    return unquote(path) if mark else scheme


def _remote_fault(
    address: str, size: int, rows: int, storage_options: StorageOptions
) -> str | None:
    # Reading the footer finds a file that is missing or cut off; its row count tells the rest.
    try:
        found = _reader(address, None, storage_options).num_rows()
    except (OSError, ValueError) as error:
        return f"cannot be read ({first_line(error)})"
    return None if found == rows else f"holds {found:,} rows instead of {rows:,}"


def read_columns(
    uri: str,
    fragment: WrittenFragment,
    columns: list[str] | None,
    storage_options: StorageOptions = None,
    batch_size: int = 8192,
) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a fragment that is not committed yet."""
    for path in fragment.paths:
        reader = _reader(file_uri(uri, path), columns, storage_options)
        yield from reader.read_all(batch_size=batch_size).to_batches()


def _reader(
    address: str, columns: list[str] | None, storage_options: StorageOptions
) -> LanceFileReader:
    return LanceFileReader(address, storage_options=_as_dict(storage_options), columns=columns)


def _differences(have: pa.Schema, want: pa.Schema) -> str:
    if have.names != want.names:
        return f"the columns {', '.join(have.names)}"
    return ", ".join(
        f"{found.name} {found.type} instead of {wanted.type}"
        for found, wanted in zip(have, want, strict=True)
        if not found.equals(wanted)
    )


def _as_dict(options: StorageOptions) -> dict[str, str] | None:
    return dict(options) if options else None


def size_of(batch: pa.RecordBatch) -> int:
    """Returns the bytes of a batch in memory."""
    # All-null columns share their memory (see encoding.null_array).
    return sum(column.nbytes for column in batch.columns if column.null_count < len(column))


def first_line(error: BaseException | None) -> str:
    """Returns what an error of Lance says, without the Rust source location behind it."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return in_words(text.split(", /")[0])
