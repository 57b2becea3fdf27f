"""The numbers of columns: a data file names its columns by numbers, and a dataset gives these.

Lance gives a number again when its column was dropped and no file of the dataset has it any more.
A file that is not committed yet would then pass for another column, so a file with own fields says
what its numbers stood for when it was written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from lance import LanceDataset
from lance.schema import LanceSchema

from contextframe_beam.frames.fields import fields_of
from contextframe_beam.store.files import Meanings, WrittenFragment

__all__ = ["Path", "flat", "has_reused", "meanings_of", "numbers_of"]

# The file format that numbers columns and their parts.
_NAMES_ALL = "2.0"

#: Names from a column down to a part of it.
Path: TypeAlias = tuple[str, ...]


def flat(schema: LanceSchema) -> list[tuple[Path, int]]:
    """Returns the numbers of all columns and their parts, each column before its parts."""

    def of(fields: Iterable[Any], above: Path) -> Iterator[tuple[Path, int]]:
        for one in fields:
            path = (*above, one.name())
            yield path, one.id()
            yield from of(one.children(), path)

    return list(of(schema.fields(), ()))


def numbers_of(schema: LanceSchema, columns: Sequence[str], storage_version: str) -> list[int]:
    """Returns the numbers by which a data file names columns, in their order.

    That is the columns themselves. Of one with parts, such as a list, the format 2.0 names the
    column and its parts, and later formats only those parts that have none of their own.
    """
    found = flat(schema)
    with_parts = {path[:-1] for path, _ in found}
    return [
        number
        for name in columns
        for path, number in found
        if path[0] == name and (storage_version == _NAMES_ALL or path not in with_parts)
    ]


def meanings_of(dataset: LanceDataset) -> Meanings:
    """Returns what the numbers of own fields and their parts stand for, with the field's type."""
    kinds = {one.column: one.kind for one in fields_of(dataset.schema)}
    if not kinds:
        return ()
    return tuple(
        (number, (*path, kinds[path[0]]))
        for path, number in flat(dataset.lance_schema)
        if path[0] in kinds
    )


def has_reused(dataset: LanceDataset, files: Iterable[WrittenFragment]) -> bool:
    """Returns whether numbers of own fields in new files stand for other columns by now."""
    told = {one for file in files for one in file.meanings}
    if not told:
        return False
    used, now = {number for _, number in flat(dataset.lance_schema)}, set(meanings_of(dataset))
    return any(number in used and (number, path) not in now for number, path in told)
