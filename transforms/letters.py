"""WriteDeadLetters: writes failed items to one JSON Lines file, in pieces that are joined."""

from __future__ import annotations

import glob
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import apache_beam as beam
import fsspec

from contextframe_beam.connectors.page import DeadLetter
from contextframe_beam.errors import ConfigError, ContextFrameError, DatasetError
from contextframe_beam.store.address import StorageOptions, filesystem_of, is_local
from contextframe_beam.store.runs import file_name_of, new_run_id
from contextframe_beam.store.upkeep import KEEP
from contextframe_beam.transforms.elements import FrameBatch, Step, in_global_window, required


@dataclass(frozen=True)
class DeadLetterReport:
    """The result of `WriteDeadLetters`.

    Attributes:
        path: The file; it does not exist if there are no letters.
        count: The number of letters.
    """

    path: str
    count: int


class WriteDeadLetters(Step[beam.PCollection[FrameBatch], beam.PCollection[DeadLetterReport]]):
    """Writes the dead letters of batches to a JSON Lines file, one letter per line.

    A letter has the whole item, its position, the stage at which it failed, and the reason. Secrets
    are replaced by their references.

    Args:
        path: The file, local or an fsspec address; it is replaced.
        run_id: The run id in each letter; a new one by default.
        storage_options: Credentials and settings of the object store, as for the dataset.

    Returns:
        A PCollection of one `DeadLetterReport`, after the file is complete.

    Raises:
        ConfigError: the library for this kind of address is not installed.
    """

    takes = (FrameBatch,)
    gives = DeadLetterReport

    def __init__(self, path: str, run_id: str = "", storage_options: StorageOptions = None) -> None:
        super().__init__()
        self._file = LetterFile(path, run_id or new_run_id(), storage_options)

    def expand(self, batches: beam.PCollection[FrameBatch]) -> beam.PCollection[DeadLetterReport]:
        pieces = batches | "WritePieces" >> beam.ParDo(_WritePiecesDoFn(self._file))
        none = batches.pipeline | "NoPiece" >> beam.Create([(0, ("", 0))])
        reports: beam.PCollection[DeadLetterReport] = (
            (pieces, none)
            | "Pieces" >> beam.Flatten()
            | "Together" >> beam.GroupByKey()
            | "Join" >> beam.MapTuple(_Join(self._file))
        )
        return reports


class _WritePiecesDoFn(beam.DoFn):
    """Writes the letters of each bundle to a separate piece."""

    def __init__(self, file: LetterFile) -> None:
        self._file = file
        self._piece: LetterPiece | None = None

    def start_bundle(self) -> None:
        self.teardown()
        self._piece = LetterPiece(self._file)

    def process(self, batch: FrameBatch) -> Iterable[Any]:
        assert self._piece is not None
        self._piece.add(required(batch, FrameBatch, "WriteDeadLetters").failures)
        return ()

    def finish_bundle(self) -> Iterator[Any]:
        piece = self._piece
        assert piece is not None
        if piece.count:
            piece.close()
            yield in_global_window((0, (piece.name, piece.count)))

    def teardown(self) -> None:
        if self._piece is not None:
            self._piece.close()


class _Join:
    def __init__(self, file: LetterFile) -> None:
        self._file = file

    def __call__(self, _: int, pieces: Iterable[tuple[str, int]]) -> DeadLetterReport:
        found = [(name, count) for name, count in pieces if count]
        self._file.join(name for name, _ in found)
        return DeadLetterReport(self._file.path, sum(count for _, count in found))


# After the name of the file, which contains the same id.
_IN_PIECES = 32


@dataclass(frozen=True)
class LetterFile:
    """The file for the dead letters of a run.

    Attributes:
        path: The file, local or an fsspec address.
        run_id: The run.
        options: Credentials and settings of the object store, as for the dataset.

    Raises:
        ConfigError: the library for this kind of address is not installed.
    """

    path: str
    run_id: str
    options: StorageOptions = None

    def __post_init__(self) -> None:
        if is_local(self.path) and os.path.isdir(self.path):
            raise ConfigError(
                f"cannot write dead letters to {self.path}: it is a folder; name a file with "
                "`dead_letters`"
            )
        try:
            filesystem_of(self.path, self.options)
        except ConfigError:
            raise
        except (ImportError, ValueError) as error:
            extra = "gcs" if self.path.startswith(("gs://", "gcs://")) else "s3"
            raise ConfigError(
                f"cannot write dead letters to {self.path}: {error}; install what it needs, such "
                f"as contextframe-beam[{extra}], or name another file with `dead_letters`"
            ) from error

    def join(self, pieces: Iterable[str]) -> None:
        """Joins the pieces in the order of their names, and removes all pieces of the run.

        Without pieces it removes the file of an earlier run. A second call changes nothing.

        Raises:
            DatasetError: the file cannot be written.
        """
        found = sorted(pieces)
        if found:
            join_pieces(self.path, found, self.options)
        elif is_local(self.path):
            remove_file(self.path)
        # A run without failures need not have the right to write to a remote file.
        if found or is_local(self.path):
            remove_pieces(self.path, self.run_id, self.options)
            remove_lost_pieces(f"{self.path}.", KEEP, storage_options=self.options)


class LetterPiece:
    """One piece of a file of dead letters; it exists once a letter was added.

    Args:
        file: The file that it belongs to.

    Attributes:
        name: Its address.
        count: The number of its letters.
    """

    def __init__(self, file: LetterFile) -> None:
        self.name = f"{pieces_prefix(file.path, file.run_id)}{uuid.uuid4().hex}.part"
        self.count = 0
        self._run = file
        self._open: Any = None

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Writes letters, with the run's id.

        Raises:
            DatasetError: they cannot be written.
        """
        if not letters:
            return
        if self._open is None:
            self._open = open_for_writing(self.name, storage_options=self._run.options)
        with _writing(self.name):
            for letter in letters:
                letter.run_id = letter.run_id or self._run.run_id
                self._open.write(letter.to_json() + "\n")
        self.count += len(letters)

    def close(self) -> None:
        """Ends the piece; a second call does nothing."""
        if self._open is not None:
            file, self._open = self._open, None
            with _writing(self.name):
                file.close()


def join_pieces(path: str, pieces: list[str], storage_options: StorageOptions = None) -> None:
    """Makes one file from its pieces; does nothing after they were removed.

    Another process with the same run may remove them at any moment. So we read all of them before
    we begin the file, which that process may have written.

    Raises:
        DatasetError: the file cannot be written.
    """
    filesystem, _ = filesystem_of(path, storage_options)
    with _writing(path), tempfile.TemporaryFile() as joined:
        for piece in pieces:
            try:
                with filesystem.open(piece, "rb") as source:
                    shutil.copyfileobj(source, joined)
            except FileNotFoundError:
                return
        joined.seek(0)
        with open_for_writing(path, "wb", storage_options) as target:
            shutil.copyfileobj(joined, target)


def read_letters(path: str, storage_options: StorageOptions = None) -> list[dict[str, Any]]:
    """Returns the lines of a file of dead letters, as JSON values; none if there is no file.

    Raises:
        DatasetError: it cannot be read, or a line is not a letter.
    """
    filesystem, plain = filesystem_of(path, storage_options)
    try:
        lines = filesystem.cat_file(plain).decode().splitlines()
        found = [json.loads(line) for line in lines if line.strip()]
        for line in found:
            DeadLetter.from_json(json.dumps(line))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot read the dead letters in {path}: {error}") from error
    return found


def replace_letters(
    path: str, lines: Sequence[Mapping[str, Any]], storage_options: StorageOptions = None
) -> None:
    """Replaces a file of dead letters at once.

    Raises:
        DatasetError: it cannot be written.
    """
    text = "".join(json.dumps(line) + "\n" for line in lines)
    with _writing(path):
        filesystem, plain = filesystem_of(path, storage_options)
        if not is_local(path):
            filesystem.pipe_file(plain, text.encode())  # an object is replaced at once
            return
        new = f"{plain}.{uuid.uuid4().hex}.part"
        with open(new, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(new, plain)


def remove_file(path: str) -> None:
    """Removes the file of an earlier run, if there is one."""
    filesystem, plain = fsspec.core.url_to_fs(path)
    if filesystem.exists(plain):
        filesystem.rm_file(plain)


def remove_pieces(path: str, run_id: str, storage_options: StorageOptions = None) -> None:
    """Removes a run's pieces, including those of failed bundles."""
    filesystem, plain = filesystem_of(pieces_prefix(path, run_id), storage_options)
    for piece in filesystem.glob(f"{glob.escape(plain)}*.part"):
        filesystem.rm(piece)


def remove_lost_pieces(
    prefix: str,
    lost_after: timedelta,
    *,
    pattern: str = "*.part",
    dry_run: bool = False,
    storage_options: StorageOptions = None,
) -> tuple[int, int]:
    """Removes pieces of killed runs; other runs join their pieces before their commit.

    Args:
        prefix: The beginning of the pieces' addresses, such as a folder with a slash.
        lost_after: Younger pieces may belong to a run under way.
        pattern: What follows in their addresses.
        dry_run: Only count.
        storage_options: The dataset's storage options.

    Returns:
        The number of pieces, and their bytes.

    Raises:
        DatasetError: they cannot be listed or removed.
    """
    try:
        filesystem, plain = filesystem_of(f"{prefix}*", storage_options)
    except ConfigError:
        raise
    except (ImportError, ValueError):
        return 0, 0  # pieces could not be written there either
    before = datetime.now(timezone.utc) - lost_after
    count = size = 0
    try:
        for piece in filesystem.glob(f"{glob.escape(plain.removesuffix('*'))}{pattern}"):
            try:
                if filesystem.modified(piece) > before:
                    continue
                length = int(filesystem.size(piece) or 0)
                if not dry_run:
                    filesystem.rm_file(piece)
            except FileNotFoundError:
                continue  # its run has since joined it
            count, size = count + 1, size + length
    except OSError as error:
        raise DatasetError(
            f"cannot clean up {prefix}{pattern}: {error.strerror or error}; check permissions there"
        ) from error
    return count, size


def pieces_prefix(path: str, run_id: str) -> str:
    """Returns the beginning of the names of a run's pieces."""
    return f"{path}.{file_name_of(run_id, _IN_PIECES)}."


def open_for_writing(path: str, mode: str = "w", storage_options: StorageOptions = None) -> Any:
    """Opens a local file or an fsspec address, and makes its folder.

    Raises:
        DatasetError: it cannot be written.
    """
    with _writing(path):
        filesystem, plain = filesystem_of(path, storage_options)
        folder = filesystem._parent(plain)
        if folder:
            filesystem.makedirs(folder, exist_ok=True)
        # Not fsspec.open, which would read a star in the name as a pattern.
        return filesystem.open(plain, mode, encoding=None if "b" in mode else "utf-8")


@contextmanager
def _writing(path: str) -> Iterator[None]:
    try:
        yield
    except ContextFrameError:
        raise
    except Exception as error:  # clients of object stores have their own errors
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DatasetError(
            f"cannot write the dead letters to {path}: {reason}; "
            "check space and permissions there, or name another file with `dead_letters`"
        ) from error
