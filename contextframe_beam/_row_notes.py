"""What `x_encoding` says of a row: all of its layout that cannot be seen from the row itself.

`encoding.py` lists the kinds of notes; most batches have the same ones in every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from contextframe_beam._json import dump_json
from contextframe_beam.errors import RecordError


class RowNotes:
    """Collects notes on the rows of a batch.

    Args:
        count: How many rows the batch has.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._common: list[tuple[str, str | None]] = []
        self._special: list[tuple[str, str | None, Sequence[int]]] = []

    def add(self, kind: str, name: str | None, rows: Sequence[int]) -> None:
        """Notes something on rows, given by their indices; nothing where there are none."""
        # What is common to several rows is a name, and names are Unicode.
        if len(rows) == self._count > 1:
            self._common.append((kind, name))
        elif rows:
            self._special.append((kind, name, rows))

    def texts(self) -> tuple[list[str | None], list[int]]:
        """Returns the text of each row, and the rows whose notes hold no Unicode text."""
        texts = [_text(tuple(self._common))] * self._count
        by_row: dict[int, list[tuple[str, str | None]]] = {}
        for kind, name, rows in self._special:
            for index in rows:
                by_row.setdefault(index, list(self._common)).append((kind, name))
        refused = []
        for index, notes in by_row.items():
            try:
                texts[index] = _text(tuple(notes))
            except RecordError:
                refused.append(index)
        return texts, refused


@lru_cache(maxsize=1024)
def _text(notes: tuple[tuple[str, str | None], ...]) -> str | None:
    if not notes:
        return None
    parts: dict[str, Any] = {}
    for kind, name in sorted(notes, key=str):
        if kind == "targets":
            parts[kind] = True
        elif kind == "timestamp":
            parts[kind] = name
        else:
            parts.setdefault(kind, []).append(name)
    return dump_json(parts, "metadata")
