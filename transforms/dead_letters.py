"""WriteDeadLetters: what failed, as one JSON Lines file (`_letter_files.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from contextframe_beam.address import StorageOptions
from contextframe_beam.run_id import new_run_id
from contextframe_beam.transforms._letter_files import LetterFile, LetterPiece
from contextframe_beam.transforms.batches import FrameBatch, in_global_window
from contextframe_beam.transforms.order import Step, required


@dataclass(frozen=True)
class DeadLetterReport:
    """What `WriteDeadLetters` wrote.

    Attributes:
        path: The file; it does not exist when there were no letters.
        count: How many letters there were.
    """

    path: str
    count: int


class WriteDeadLetters(Step[beam.PCollection[FrameBatch], beam.PCollection[DeadLetterReport]]):
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
    """Writes the letters of a bundle to a piece of its own."""

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
