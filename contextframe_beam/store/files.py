"""Data files before their commit: opens datasets, and describes, checks and deletes data files.

`writer.py` writes the files. Their rows are invisible until a commit.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias, TypeVar

import lance
import pyarrow as pa
import pyarrow.compute as pc
from lance.file import LanceFileReader, LanceFileSession
from lance.fragment import FragmentMetadata

from contextframe_beam.errors import CommitError, ContextFrameError, DatasetError
from contextframe_beam.store.address import (
    Address,
    StorageOptions,
    _local_path,
    as_dict,
    file_uri,
    first_line,
    is_local,
)

_LOGGER = logging.getLogger(__name__)

DEFAULT_STORAGE_VERSION = "2.1"

# The last bytes of every Lance file.
_MAGIC = b"LANC"

# Lance's messages about a version or a tag that was removed before it could be read.
_REMOVED = re.compile(
    r"Not found: .*/_(refs|versions)/"
    r"|/_versions/\d+\.manifest was not found"
    r"|Version not found error: version .* does not exist"
)

# It takes seconds to remove thousands of versions.
_ATTEMPTS = 30

T = TypeVar("T")


#: Numbers of own fields in data files, and what they stand for: names from the column down to one
#: of its parts, and the type of the field.
Meanings: TypeAlias = tuple[tuple[int, tuple[str, ...]], ...]


@dataclass(frozen=True)
class WrittenFragment:
    """A written data file that is not yet part of the dataset.

    Attributes:
        metadata: Lance's description of the fragment as JSON, about 400 bytes; workers send it.
        rows: Number of rows.
        size: Bytes of its data files.
        keys: The uuid of each row, 16 bytes each. To read them back from many small files would
            take longer than the rest of a commit.
        side_files: Files with raw data beside the data file, and their bytes.
        chunks: How many of the rows are chunks of documents.
        meanings: What the numbers of own fields in it stood for when it was written.
    """

    metadata: str
    rows: int
    size: int
    keys: bytes = field(default=b"", repr=False)
    side_files: tuple[tuple[str, int], ...] = ()
    chunks: int = 0
    meanings: Meanings = ()

    @classmethod
    def of(
        cls,
        fragment: FragmentMetadata,
        keys: bytes = b"",
        chunks: int = 0,
        meanings: Meanings = (),
    ) -> WrittenFragment:
        """Describes a fragment that Lance wrote."""
        return cls(
            metadata=json.dumps(fragment.to_json()),
            rows=fragment.physical_rows,
            size=sum(file.file_size_bytes or 0 for file in fragment.files),
            keys=keys,
            chunks=chunks,
            meanings=meanings,
        )

    def to_lance(self) -> FragmentMetadata:
        """Returns Lance's own object."""
        return FragmentMetadata.from_json(self.metadata)

    @property
    def paths(self) -> list[str]:
        """The data files, relative to the dataset's `data` folder."""
        return [file["path"] for file in json.loads(self.metadata)["files"]]


@dataclass(frozen=True)
class Destination(Address):
    """The dataset that rows go to.

    Attributes:
        storage_version: The file format of a new dataset; an existing one keeps its own.
        overwrites: Whether the rows replace all others in the dataset.
    """

    storage_version: str = DEFAULT_STORAGE_VERSION
    overwrites: bool = False


def open_dataset(at: Address, version: int | None = None) -> lance.LanceDataset | None:
    """Returns the dataset at an address, or None if there is no dataset.

    Raises:
        DatasetError: there is one, but it cannot be opened.
    """

    def opened() -> lance.LanceDataset | None:
        try:
            return lance.dataset(
                at.uri, version=version, storage_options=as_dict(at.storage_options)
            )
        except (ValueError, FileNotFoundError) as error:
            if version is None and _is_missing(error):
                return None
            raise

    if is_local(at.uri) and os.path.isfile(at.uri):
        raise DatasetError(f"{at.uri} is a file, and a dataset is a folder; correct the path")
    try:
        if version is not None:
            return opened()
        found = despite_removals(opened)
        # A folder may look empty while its only version is being replaced.
        return despite_removals(opened) if found is None else found
    except (ValueError, FileNotFoundError) as error:
        raise DatasetError(f"cannot open {at.uri}: {first_line(error)}") from error
    except OSError as error:
        raise DatasetError(
            f"cannot open {at.uri}: {first_line(error)}; check the path and the storage options"
        ) from error


def _is_missing(error: Exception) -> bool:
    return "was not found" in str(error) and not is_removed(error)


@contextmanager
def reading(uri: str) -> Iterator[None]:
    """Turns Lance's errors of reading into ours, which name the dataset.

    Raises:
        DatasetError: it could not be read.
    """
    try:
        yield
    except ContextFrameError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise DatasetError(f"cannot read {uri}: {first_line(error)}") from error


def despite_removals(call: Callable[[], T]) -> T:
    """Calls a function that lists versions or tags and reads them; repeats it after removals.

    Cleanups remove versions, and cleanups and rollbacks remove their tags, while others read them.

    Args:
        call: The function; it must not change anything before it has read them.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return call()
        except (OSError, ValueError) as error:
            if not is_removed(error):
                raise
        time.sleep(min(0.2, 0.001 * 2**attempt))
    return call()


def is_removed(error: Exception) -> bool:
    """Returns whether Lance failed because a version or a tag was removed meanwhile."""
    return _REMOVED.search(str(error)) is not None


def check_files(at: Address, fragments: Iterable[WrittenFragment]) -> None:
    """Checks that each file exists and is complete, because Lance commits without a check.

    Raises:
        CommitError: a file is missing or differs from its writer's report.
    """
    fragments = list(fragments)
    local = is_local(at.uri)
    check = local_fault if local else partial(_remote_fault, storage_options=at.storage_options)
    files = [
        (file_uri(at.uri, file["path"]), int(file["file_size_bytes"]), fragment.rows)
        for fragment in fragments
        for file in json.loads(fragment.metadata)["files"]
    ]
    for fragment in fragments:
        if fragment.side_files:
            found = side_files_of(at, fragment.paths)
            if found != fragment.side_files:
                raise CommitError(
                    f"the raw data beside {file_uri(at.uri, fragment.paths[0])} is not what a "
                    f"worker wrote ({len(found):,} files, {len(fragment.side_files):,} written); "
                    "nothing was committed, run it again"
                )
    with ThreadPoolExecutor(max_workers=1 if local else 16) as pool:
        for (address, _, _), fault in zip(files, pool.map(lambda f: check(*f), files), strict=True):
            if fault is not None:
                raise CommitError(
                    f"the data file {address} that a worker wrote {fault}; "
                    "nothing was committed, run it again"
                )


def delete_files(at: Address, fragments: Iterable[WrittenFragment]) -> None:
    """Deletes the files of fragments that will never be part of a transaction.

    A file in any version is kept: an object store may have lost the answer to a successful commit,
    and that version may have been replaced or rolled back since. A file that cannot be deleted
    stays until Lance's own cleanup removes it, days later.
    """
    paths = [path for fragment in fragments for path in fragment.paths]
    if not paths:
        return
    try:
        named = _named_files(at, paths)
        paths = [path for path in paths if path not in named]
        session = _session(at)
        for path in paths:
            for blob in session.list(side_folder(path)):
                session.delete_file(blob)
            session.delete_file(path)
    except (OSError, ValueError, DatasetError) as error:
        _LOGGER.warning("cannot delete unused files of %s: %s", at.uri, first_line(error))


def side_folder(path: str) -> str:
    """Returns the folder that may contain the raw data of a data file in separate files."""
    return path.removesuffix(".lance") + "/"


def _session(at: Address) -> LanceFileSession:
    return LanceFileSession(file_uri(at.uri, ""), as_dict(at.storage_options))


def side_files_of(at: Address, paths: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Lists the files beside data files with their bytes; in object stores the bytes are 0."""
    session = _session(at)
    found = sorted(name for path in paths for name in session.list(side_folder(path)))
    if not is_local(at.uri):
        return tuple((name, 0) for name in found)
    return tuple((name, os.stat(_local_path(file_uri(at.uri, name))).st_size) for name in found)


def _named_files(at: Address, paths: Sequence[str]) -> set[str]:
    """Returns the paths that are in any existing version."""
    dataset = open_dataset(at)
    if dataset is None:
        return set()
    wanted = pa.array([f"data/{path}" for path in paths], pa.string())

    def named() -> set[str]:
        return {
            path.removeprefix("data/")
            for batch in dataset.tracked_files()
            for path in batch["path"].filter(pc.is_in(batch["path"], wanted)).to_pylist()
        }

    return despite_removals(named)


def local_fault(address: str, size: int, rows: int) -> str | None:
    """Returns what is wrong with a local data file of an expected size, or None."""
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


def _remote_fault(
    address: str, size: int, rows: int, storage_options: StorageOptions
) -> str | None:
    # The footer shows a missing or cut file; its row count shows other differences.
    try:
        found = _reader(address, None, storage_options).num_rows()
    except (OSError, ValueError) as error:
        return f"cannot be read ({first_line(error)})"
    return None if found == rows else f"holds {found:,} rows instead of {rows:,}"


def _reader(
    address: str, columns: list[str] | None, storage_options: StorageOptions
) -> LanceFileReader:
    return LanceFileReader(address, storage_options=as_dict(storage_options), columns=columns)


def size_of(batch: pa.RecordBatch) -> int:
    """Returns the bytes of a batch in memory."""
    # All-null columns share their memory (see `null_array` in `frames/encode.py`).
    return sum(column.nbytes for column in batch.columns if column.null_count < len(column))
