"""WriteDeadLetters: what failed, as one JSON Lines file.

Each bundle writes its letters beside the target, so they never travel through a shuffle; then one
step joins those pieces whose bundles succeeded. A bundle that ran twice is in the file once.
"""

from __future__ import annotations

import glob
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import apache_beam as beam
import fsspec
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from contextframe_beam.cleanup import KEEP
from contextframe_beam.errors import ConfigError, DatasetError
from contextframe_beam.fragments import StorageOptions, is_local
from contextframe_beam.transforms.batches import FrameBatch, RowBatch

# What Lance calls a setting of S3, without `aws_`, and what s3fs calls it.
_S3_OPTIONS = {
    "access_key_id": "key",
    "secret_access_key": "secret",
    "session_token": "token",
}
_S3_CLIENT_OPTIONS = {
    "endpoint": "endpoint_url",
    "endpoint_url": "endpoint_url",
    "region": "region_name",
}


@dataclass(frozen=True)
class DeadLetterReport:
    """What `WriteDeadLetters` wrote.

    Attributes:
        path: The file; it does not exist when there were no letters.
        count: How many letters there were.
    """

    path: str
    count: int


class WriteDeadLetters(
    beam.PTransform[beam.PCollection[FrameBatch], beam.PCollection[DeadLetterReport]]
):
    """Writes the dead letters of batches to a JSON Lines file, one letter a line.

    A letter holds the whole item, where it stood, at which stage it failed and why; secrets are
    replaced by their references.

    Args:
        path: The file, local or an fsspec address; it is replaced.
        run_id: Written into each letter; made up when not given.
        storage_options: Credentials and settings of the object store, as the dataset has them.

    Returns:
        A PCollection of one `DeadLetterReport`, after the file is complete.

    Raises:
        ConfigError: nothing is installed that can write to such an address.
    """

    def __init__(self, path: str, run_id: str = "", storage_options: StorageOptions = None) -> None:
        super().__init__()
        self._options = storage_options
        try:
            filesystem_of(path, storage_options)
        except (ImportError, ValueError) as error:
            extra = "gcs" if path.startswith(("gs://", "gcs://")) else "s3"
            raise ConfigError(
                f"cannot write dead letters to {path}: {error}; install what it needs, such as "
                f"contextframe-beam[{extra}], or name another file with --dead-letters"
            ) from error
        self._path = path
        self._run_id = run_id or uuid.uuid4().hex

    def expand(self, batches: beam.PCollection[FrameBatch]) -> beam.PCollection[DeadLetterReport]:
        pieces = batches | "WritePieces" >> beam.ParDo(
            _WritePiecesDoFn(self._path, self._run_id, self._options)
        )
        none = batches.pipeline | "NoPiece" >> beam.Create([(0, ("", 0))])
        reports: beam.PCollection[DeadLetterReport] = (
            (pieces, none)
            | "Pieces" >> beam.Flatten()
            | "Together" >> beam.GroupByKey()
            | "Join" >> beam.MapTuple(_Join(self._path, self._run_id, self._options))
        )
        return reports


class _WritePiecesDoFn(beam.DoFn):
    """Appends the letters of a bundle to a piece of its own."""

    def __init__(self, path: str, run_id: str, options: StorageOptions) -> None:
        self._path = path
        self._run_id = run_id
        self._options = options
        self._file: Any = None

    def start_bundle(self) -> None:
        self._close()
        self._piece = f"{pieces_prefix(self._path, self._run_id)}{uuid.uuid4().hex}.part"
        self._count = 0

    def process(self, batch: FrameBatch | RowBatch) -> Iterable[Any]:
        if batch.failures:
            if self._file is None:
                self._file = open_for_writing(self._piece, storage_options=self._options)
            with _writing(self._piece):
                for letter in batch.failures:
                    letter.run_id = letter.run_id or self._run_id
                    self._file.write(letter.to_json() + "\n")
            self._count += len(batch.failures)
        return ()

    def finish_bundle(self) -> Iterator[Any]:
        if self._count:
            self._close()
            yield WindowedValue(
                (0, (self._piece, self._count)), GlobalWindow().max_timestamp(), (GlobalWindow(),)
            )

    def teardown(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with _writing(self._piece):
                file.close()


class _Join:
    """Puts the pieces together, in the order of their names."""

    def __init__(self, path: str, run_id: str, options: StorageOptions) -> None:
        self._path = path
        self._run_id = run_id
        self._options = options

    def __call__(self, _: int, pieces: Iterable[tuple[str, int]]) -> DeadLetterReport:
        found = sorted(piece for piece in pieces if piece[1])
        if found:
            join_pieces(self._path, [name for name, _ in found], self._options)
        elif is_local(self._path):
            remove_file(self._path)
        # A run without failures does not ask for the right to write to a distant place.
        if found or is_local(self._path):
            remove_pieces(self._path, self._run_id, self._options)
            remove_lost_pieces(f"{self._path}.", KEEP, storage_options=self._options)
        return DeadLetterReport(self._path, sum(count for _, count in found))


def filesystem_of(path: str, storage_options: StorageOptions = None) -> tuple[Any, str]:
    """Returns the file system of an address, and the path in it.

    Args:
        path: A local path or an fsspec address.
        storage_options: Of the dataset's object store, by the names that Lance has for them; those
            of S3 are used for addresses on S3.

    Raises:
        ImportError: nothing is installed for such an address.
        ValueError: there is no such kind of address.
    """
    options: dict[str, Any] = {}
    if storage_options and path.startswith(("s3://", "s3a://")):
        client: dict[str, str] = {}
        for name, value in storage_options.items():
            plain = name.lower().removeprefix("aws_")
            if plain in _S3_OPTIONS:
                options[_S3_OPTIONS[plain]] = value
            elif plain in _S3_CLIENT_OPTIONS:
                client[_S3_CLIENT_OPTIONS[plain]] = value
        if client:
            options["client_kwargs"] = client
    filesystem, plain = fsspec.core.url_to_fs(path, **options)
    return filesystem, plain


def join_pieces(path: str, pieces: list[str], storage_options: StorageOptions = None) -> None:
    """Makes one file of its pieces; repeated after they were removed, does nothing.

    Raises:
        DatasetError: the file cannot be written.
    """
    filesystem, _ = filesystem_of(path, storage_options)
    if not all(filesystem.exists(piece) for piece in pieces):
        return
    with _writing(path), open_for_writing(path, "wb", storage_options) as target:
        for piece in pieces:
            with filesystem.open(piece, "rb") as source:
                shutil.copyfileobj(source, target)


def remove_file(path: str) -> None:
    """Removes the file of an earlier run, if there is one."""
    filesystem, plain = fsspec.core.url_to_fs(path)
    if filesystem.exists(plain):
        filesystem.rm_file(plain)


def remove_pieces(path: str, run_id: str, storage_options: StorageOptions = None) -> None:
    """Removes a run's pieces, those of bundles that failed included."""
    filesystem, plain = filesystem_of(pieces_prefix(path, run_id), storage_options)
    for piece in filesystem.glob(f"{glob.escape(plain)}*.part"):
        filesystem.rm(piece)


def remove_lost_pieces(
    prefix: str,
    lost_after: timedelta,
    *,
    dry_run: bool = False,
    storage_options: StorageOptions = None,
) -> tuple[int, int]:
    """Removes pieces of runs that were killed: a run joins its pieces before it is committed.

    Args:
        prefix: What the addresses of the pieces begin with, such as a folder with a slash.
        lost_after: Pieces that are younger may be those of a run which is under way.
        dry_run: Only count.
        storage_options: Of the dataset.

    Returns:
        How many pieces there were, and their bytes.

    Raises:
        DatasetError: they cannot be listed or removed.
    """
    try:
        filesystem, plain = filesystem_of(f"{prefix}*", storage_options)
    except (ImportError, ValueError):
        return 0, 0  # nor could anything be written there
    before = datetime.now(timezone.utc) - lost_after
    count = size = 0
    try:
        for piece in filesystem.glob(f"{glob.escape(plain.removesuffix('*'))}*.part"):
            if filesystem.modified(piece) <= before:
                count, size = count + 1, size + int(filesystem.size(piece) or 0)
                if not dry_run:
                    filesystem.rm_file(piece)
    except OSError as error:
        raise DatasetError(
            f"cannot clean up {prefix}*.part: {error.strerror or error}; check permissions there"
        ) from error
    return count, size


def pieces_prefix(path: str, run_id: str) -> str:
    """Returns what the names of a run's pieces begin with."""
    return f"{path}.{run_id}."


def open_for_writing(path: str, mode: str = "w", storage_options: StorageOptions = None) -> Any:
    """Opens a local file or an fsspec address, making its folder.

    Raises:
        DatasetError: it cannot be written.
    """
    with _writing(path):
        filesystem, plain = filesystem_of(path, storage_options)
        folder = filesystem._parent(plain)
        if folder:
            filesystem.makedirs(folder, exist_ok=True)
        # Not fsspec.open, which takes a star in the name for a pattern.
        return filesystem.open(plain, mode, encoding=None if "b" in mode else "utf-8")


@contextmanager
def _writing(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DatasetError(
            f"cannot write the dead letters to {path}: {error.strerror or error}; "
            "check space there, or name another file with --dead-letters"
        ) from error
