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
from typing import Any

import apache_beam as beam
import fsspec
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from contextframe_beam.errors import ConfigError, DatasetError
from contextframe_beam.fragments import is_local
from contextframe_beam.transforms.batches import FrameBatch, RowBatch


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

    Returns:
        A PCollection of one `DeadLetterReport`, after the file is complete.

    Raises:
        ConfigError: nothing is installed that can write to such an address.
    """

    def __init__(self, path: str, run_id: str = "") -> None:
        super().__init__()
        try:
            fsspec.core.url_to_fs(path)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"cannot write dead letters to {path}: {error}; install what it needs, such as "
                "contextframe-beam[s3], or name another file with --dead-letters"
            ) from error
        self._path = path
        self._run_id = run_id or uuid.uuid4().hex

    def expand(self, batches: beam.PCollection[FrameBatch]) -> beam.PCollection[DeadLetterReport]:
        pieces = batches | "WritePieces" >> beam.ParDo(_WritePiecesDoFn(self._path, self._run_id))
        none = batches.pipeline | "NoPiece" >> beam.Create([(0, ("", 0))])
        reports: beam.PCollection[DeadLetterReport] = (
            (pieces, none)
            | "Pieces" >> beam.Flatten()
            | "Together" >> beam.GroupByKey()
            | "Join" >> beam.MapTuple(_Join(self._path, self._run_id))
        )
        return reports


class _WritePiecesDoFn(beam.DoFn):
    """Appends the letters of a bundle to a piece of its own."""

    def __init__(self, path: str, run_id: str) -> None:
        self._path = path
        self._run_id = run_id
        self._file: Any = None

    def start_bundle(self) -> None:
        self._close()
        self._piece = f"{pieces_prefix(self._path, self._run_id)}{uuid.uuid4().hex}.part"
        self._count = 0

    def process(self, batch: FrameBatch | RowBatch) -> Iterable[Any]:
        if batch.failures:
            if self._file is None:
                self._file = open_for_writing(self._piece)
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

    def __init__(self, path: str, run_id: str) -> None:
        self._path = path
        self._run_id = run_id

    def __call__(self, _: int, pieces: Iterable[tuple[str, int]]) -> DeadLetterReport:
        found = sorted(piece for piece in pieces if piece[1])
        if found:
            join_pieces(self._path, [name for name, _ in found])
        elif is_local(self._path):
            remove_file(self._path)
        # A run without failures does not ask for the right to write to a distant place.
        if found or is_local(self._path):
            remove_pieces(self._path, self._run_id)
        return DeadLetterReport(self._path, sum(count for _, count in found))


def join_pieces(path: str, pieces: list[str]) -> None:
    """Makes one file of its pieces; repeated after they were removed, does nothing.

    Raises:
        DatasetError: the file cannot be written.
    """
    filesystem, _ = fsspec.core.url_to_fs(path)
    if not all(filesystem.exists(piece) for piece in pieces):
        return
    with _writing(path), open_for_writing(path, "wb") as target:
        for piece in pieces:
            with filesystem.open(piece, "rb") as source:
                shutil.copyfileobj(source, target)


def remove_file(path: str) -> None:
    """Removes the file of an earlier run, if there is one."""
    filesystem, plain = fsspec.core.url_to_fs(path)
    if filesystem.exists(plain):
        filesystem.rm_file(plain)


def remove_pieces(path: str, run_id: str) -> None:
    """Removes a run's pieces, those of bundles that failed included."""
    filesystem, plain = fsspec.core.url_to_fs(pieces_prefix(path, run_id))
    for piece in filesystem.glob(f"{glob.escape(plain)}*.part"):
        filesystem.rm(piece)


def pieces_prefix(path: str, run_id: str) -> str:
    """Returns what the names of a run's pieces begin with."""
    return f"{path}.{run_id}."


def open_for_writing(path: str, mode: str = "w") -> Any:
    """Opens a local file or an fsspec address, making its folder.

    Raises:
        DatasetError: it cannot be written.
    """
    with _writing(path):
        filesystem, plain = fsspec.core.url_to_fs(path)
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
