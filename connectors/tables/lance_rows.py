"""Rows of a Lance dataset: all of one version, or what changed between two of its versions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from contextframe_beam.connectors.record_mapper import RecordMapper
from contextframe_beam.connectors.tables.columns import completed
from contextframe_beam.connectors.tables.table_format import Rows, Wanted, pages_of
from contextframe_beam.errors import ConnectorError, DatasetError
from contextframe_beam.store.address import Address, first_line
from contextframe_beam.store.files import open_dataset

if TYPE_CHECKING:
    import lance

#: The name under which the version that was read is kept among the states of partitions.
VERSION = "version"

_FRAGMENTS_AT_ONCE = 50
_KEYS_AT_ONCE = 10_000
_CHANGED = "_row_last_updated_at_version"
_CREATED = "_row_created_at_version"


def is_lance(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path is that of a Lance dataset, by its name or by what is in it."""
    text = os.fspath(path).rstrip("/")
    return text.endswith(".lance") or os.path.isdir(os.path.join(text, "_versions"))


@dataclass(frozen=True, slots=True)
class Since:
    """What an earlier run read.

    Attributes:
        version: The version.
        at: When it was made, which tells it from a version of another dataset at the same place.
    """

    version: int
    at: str

    @classmethod
    def of(cls, states: Mapping[str, Any]) -> Since | None:
        """Returns what states say of it; None if they say nothing."""
        state = states.get(VERSION)
        if not isinstance(state, Mapping) or not isinstance(state.get("version"), int):
            return None
        return cls(state["version"], str(state.get("at", "")))

    def state(self) -> dict[str, dict[str, Any]]:
        """Returns it as the states of partitions."""
        return {VERSION: {"version": self.version, "at": self.at}}


class LanceRows:
    """Reads a dataset.

    Args:
        uri: Its address.
        version: The version to read; the newest one by default.
    """

    def __init__(self, uri: str, version: int | None = None) -> None:
        self.uri = uri
        self.version = version

    def opened(self, version: int | None = None) -> lance.LanceDataset:
        """Opens the dataset in a version.

        Raises:
            ConnectorError: there is no dataset, or it has no such version any more.
        """
        wanted = version or self.version
        try:
            found = open_dataset(Address(self.uri), wanted)
        except DatasetError as error:
            hint = f"; it has the versions {self._versions()}" if wanted else ""
            raise ConnectorError(f"{error}{hint}") from error
        if found is None:
            raise ConnectorError(f"there is no Lance dataset at {self.uri}; check the path")
        return found

    def now(self) -> Since:
        """Returns the version that is read, as a state."""
        dataset = self.opened()
        return self._since(dataset, int(dataset.version))

    def changed(self, known: Since | None) -> tuple[bool, str]:
        """Returns whether only what changed can be read, and why not.

        Args:
            known: What an earlier run read.
        """
        if known is None:
            return False, ""
        dataset = self.opened()
        try:
            same = self._since(self.opened(known.version), known.version) == known
        except ConnectorError:
            return False, f"version {known.version}, which was read before, was removed"
        if not same or known.version > dataset.version:
            return False, "it is another dataset, or an earlier version, than was read before"
        if known.version == dataset.version:
            return True, ""
        if not dataset.has_stable_row_ids:
            return False, "it has no stable row ids, so it does not tell which rows changed"
        return True, ""

    def pieces(self, size: int) -> Iterator[tuple[str, list[int]]]:
        """Yields the pieces of a version: a name, and the fragment with a range of its rows.

        Args:
            size: About how many bytes a piece should have.
        """
        for fragment in self.opened().get_fragments():
            rows = fragment.count_rows()
            held = sum(file.file_size_bytes or 0 for file in fragment.metadata.files)
            count = max(min(-(-held // size), rows), 1)
            borders = [rows * number // count for number in range(count + 1)]
            for first, stop in pairwise(borders):
                rest = f", rows {first} to {stop - 1}" if count > 1 else ""
                name = f"fragment {fragment.fragment_id}{rest}"
                yield name, [fragment.fragment_id, first, stop]

    def rows(self, piece: Sequence[int], wanted: Wanted) -> Iterator[Rows]:
        """Yields the rows of a piece."""
        number, first, stop = piece
        dataset = self.opened()
        fragment = dataset.get_fragment(number)
        if fragment is None:
            raise ConnectorError(
                f"{self.uri} has no fragment {number} in version {dataset.version}"
            )
        scanner = fragment.scanner(
            columns=_columns(dataset.schema, wanted),
            offset=first,
            limit=stop - first,
            blob_handling="all_binary",
        )
        for batch in scanner.to_batches():
            table = completed(pa.Table.from_batches([batch]), wanted, {})
            for part, place in pages_of(table, f"fragment {number}", first):
                yield Rows(part, place, size=part.nbytes)
            first += batch.num_rows

    def changes(self, known: Since) -> Iterator[tuple[str, list[int]]]:
        """Yields groups of fragments in which rows changed after a version."""
        numbers = [one.fragment_id for one in self.opened().get_fragments()]
        for start in range(0, len(numbers), _FRAGMENTS_AT_ONCE):
            group = numbers[start : start + _FRAGMENTS_AT_ONCE]
            yield f"changes in fragments {group[0]} to {group[-1]}", group

    def changed_rows(self, known: Since, numbers: Sequence[int], wanted: Wanted) -> Iterator[Rows]:
        """Yields the rows of fragments that were inserted or changed after a version."""
        dataset = self.opened()
        chosen = set(numbers)
        fragments = [one for one in dataset.get_fragments() if one.fragment_id in chosen]
        scanner = dataset.scanner(
            columns=_columns(dataset.schema, wanted),
            fragments=fragments,
            filter=f"{_CHANGED} > {known.version}",
            blob_handling="all_binary",
        )
        done = 0
        for batch in scanner.to_batches():
            table = completed(pa.Table.from_batches([batch]), wanted, {})
            for part, place in pages_of(table, f"after version {known.version}", done):
                yield Rows(part, place, size=part.nbytes)
            done += batch.num_rows

    def gone(
        self, known: Since, mapper: RecordMapper, wanted: Wanted, items_of: Callable[[Any], Any]
    ) -> list[dict[str, Any]]:
        """Returns the items of an earlier version whose ids no wanted row has any more.

        Args:
            known: The earlier version.
            mapper: What makes ids.
            wanted: Which rows are documents.
            items_of: Makes items of a table.
        """
        dataset, before = self.opened(), self.opened(known.version)
        names = [name for name in dataset.schema.names if _is_of(name, mapper.id_paths)]
        if not names or not set(names) <= set(before.schema.names):
            return []
        numbers = self._touched(dataset, known)
        items: dict[str, dict[str, Any]] = {}
        first: list[pa.Array] = []
        for start in range(0, len(numbers), _KEYS_AT_ONCE):
            rows = before._take_rows(numbers[start : start + _KEYS_AT_ONCE], columns=names)
            table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
            first += table.column(names[0]).chunks
            for item in items_of(table):
                key = mapper.unique_id(item)
                if key is not None:
                    items[key] = item
        if not items:
            return []
        asked = [] if wanted.where is None else wanted.where.columns
        others = [name for name in dataset.schema.names if _is_of(name, asked)]
        condition = wanted.expression(dataset.schema)
        kind = dataset.schema.field(names[0]).type
        known_values = pa.chunked_array(first) if first[0].type == kind else None
        scanner = dataset.scanner(columns=list(dict.fromkeys([*names, *others])))
        for batch in scanner.to_batches():
            table = pa.Table.from_batches([batch])
            if known_values is not None and not pa.types.is_nested(kind):
                table = table.filter(pc.is_in(table.column(names[0]), known_values))
            if condition is not None:
                table = table.filter(condition)
            for item in items_of(table.select(names)):
                items.pop(mapper.unique_id(item) or "", None)
        return list(items.values())

    def _touched(self, dataset: lance.LanceDataset, known: Since) -> list[int]:
        """Returns the row ids of an earlier version's rows that were deleted or changed since."""
        delta = dataset.delta(begin_version=known.version, end_version=dataset.version)
        deleted = delta.get_deleted_row_ids().read_all().column("_rowid").to_pylist()
        changed = dataset.scanner(
            columns=[],
            with_row_id=True,
            filter=f"{_CHANGED} > {known.version} AND {_CREATED} <= {known.version}",
        ).to_table()
        return [*deleted, *changed.column("_rowid").to_pylist()]

    def _since(self, dataset: lance.LanceDataset, version: int) -> Since:
        for one in dataset.versions():
            if one["version"] == version:
                at = one["timestamp"]
                return Since(version, at.isoformat() if isinstance(at, datetime) else str(at))
        return Since(version, "")

    def _versions(self) -> str:
        try:
            known = [one["version"] for one in self._newest().versions()]
        except (OSError, ValueError, RuntimeError) as error:
            return f"which cannot be listed ({first_line(error)})"
        return f"{known[0]} to {known[-1]}" if known else "none"

    def _newest(self) -> lance.LanceDataset:
        found = open_dataset(Address(self.uri))
        if found is None:
            raise ValueError("there is no dataset")
        return found


def _columns(schema: pa.Schema, wanted: Wanted) -> list[str]:
    return [name for name in schema.names if wanted.has(name)] or schema.names[:1]


def _is_of(name: str, paths: Sequence[str]) -> bool:
    return any(path == name or path.startswith(f"{name}.") for path in paths)
