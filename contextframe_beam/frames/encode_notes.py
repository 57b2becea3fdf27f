"""Notes on rows that are columns, and the beginning of what their digests see.

The notes are those of `RowNotes`; here a note is on many rows at once. Both the notes of a row and
what its digest begins with depend on few conditions, so each is made once for each combination of
conditions that there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from contextframe_beam.frames.columns import Mask
from contextframe_beam.frames.json_columns import Fragment
from contextframe_beam.frames.layout import RowNotes, note_text

__all__ = ["ColumnNotes"]

# So many conditions are put into a number before the combinations that there are get new numbers.
_CONDITIONS_AT_ONCE = 32


class ColumnNotes(RowNotes):
    """Collects notes on the rows of a batch.

    Args:
        count: The number of rows.
    """

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self._count = count
        # Notes, and the rows that they are on; None for all of them.
        self._found: list[tuple[str, str | None, Mask | None]] = []
        # The time of each row that has a note on it; the time is None where the record has none.
        self._times: dict[int, str | None] = {}

    def add(self, kind: str, name: str | None, rows: Sequence[int]) -> None:
        """Adds a note to the rows with these indices, if there are any."""
        if kind == "timestamp":
            # Another one for each row.
            self._times.update(dict.fromkeys(rows, name))
        elif rows:
            mask = np.zeros(self._count, np.bool_)
            mask[list(rows)] = True
            self.put(kind, name, mask)

    def put(self, kind: str, name: str | None, rows: Mask | None) -> None:
        """Adds a note to rows; None is for all of them."""
        if rows is None or rows.all():
            self._found.append((kind, name, None))
        elif rows.any():
            self._found.append((kind, name, rows))

    def put_times(self, times: Sequence[str | None], rows: Mask) -> None:
        """Notes the time of records of which the metadata has another one."""
        self._times.update((row, times[row]) for row in np.flatnonzero(rows).tolist())

    def heads(
        self, names: Iterable[str], missing: dict[str, Mask], record_type: str
    ) -> tuple[Fragment, pa.Array | None]:
        """Returns what digests begin with, and the notes on each row; None for no notes.

        Args:
            names: The names of the metadata, sorted.
            missing: The rows that do not have a name, of names that some rows do not have.
            record_type: The type of the records.
        """
        all_names = list(names)
        masks = [*missing.values(), *(rows for _, _, rows in self._found if rows is not None)]
        _, examples, which = np.unique(self._codes(masks), return_index=True, return_inverse=True)
        heads, notes = [], []
        for row in examples.tolist():
            own = [name for name in all_names if name not in missing or not missing[name][row]]
            told = [(kind, name) for kind, name, rows in self._found if rows is None or rows[row]]
            if row in self._times:
                told.append(("timestamp", self._times[row]))
            note = note_text(tuple(told))
            notes.append(note)
            heads.append(orjson.dumps((own, record_type, None, None, note)).decode())
        places = pa.array(which.astype(np.int32).reshape(-1))
        texts = pa.array(notes, pa.string()).take(places) if any(notes) else None
        return Fragment.of_text(pa.array(heads, pa.string())).take(places), texts

    def _codes(self, masks: Sequence[Mask]) -> Any:
        """Returns a number for each row, the same for rows of which all conditions are the same."""
        codes = np.zeros(self._count, np.int64)
        for start in range(0, len(masks), _CONDITIONS_AT_ONCE):
            for mask in masks[start : start + _CONDITIONS_AT_ONCE]:
                codes = codes * 2 + mask
            codes = np.unique(codes, return_inverse=True)[1].reshape(-1)
        if self._times:
            numbers: dict[str | None, int] = {}
            times = np.zeros(self._count, np.int64)
            for row, time in self._times.items():
                times[row] = numbers.setdefault(time, len(numbers) + 1)
            codes = codes * (len(numbers) + 1) + times
        return codes
