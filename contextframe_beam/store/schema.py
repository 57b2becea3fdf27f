"""The columns of a dataset: adopts datasets of others, and adds, fills and drops own fields.

A new column gets a data file beside those of each fragment, and one transaction names them all.
Whoever writes meanwhile does not know of the column: a run fills it for its rows when it commits.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from lance import LanceDataset

from contextframe_beam.errors import (
    ConfigError,
    DatasetError,
    RecordError,
    SchemaError,
    UnknownCommitError,
    nearest,
)
from contextframe_beam.frames.fields import OwnField, WhoseFields, fields_in, fields_of, with_fields
from contextframe_beam.frames.schema import OWN_COLUMNS, embed_dim_of, frame_schema
from contextframe_beam.store.address import Address
from contextframe_beam.store.columns import (
    commit_columns_anew,
    with_file,
    write_column_file,
)
from contextframe_beam.store.files import (
    Destination,
    WrittenFragment,
    delete_files,
    open_dataset,
    reading,
)
from contextframe_beam.store.keys import Numbers, NumberSet
from contextframe_beam.store.keys import numbers_of as numbers_of_keys
from contextframe_beam.store.numbers import numbers_of
from contextframe_beam.store.rows import CHUNKS, Removal, any_row, file_of, scan_rows
from contextframe_beam.store.state import ANCHOR_KEY, STATES, state_rows
from contextframe_beam.store.transaction import (
    Pending,
    change,
    changing,
    commit_columns,
    commit_guarded,
)
from contextframe_beam.store.versions import dropping, indexing, open_newest
from contextframe_beam.store.writer import preview, write_rows

__all__ = [
    "AddedFields",
    "add_fields",
    "adopt",
    "drop_fields",
    "filled",
    "index_field",
    "indices_of_fields",
    "joined_fields",
    "rows_with_fields",
]

_ROWS_AT_ONCE = 8192
_OFFSET = np.uint64(0xFFFFFFFF)

# What own fields are made of.
_NEEDED = ("uuid", "uri", "custom_metadata", "x_encoding", "x_parent")

# The kind of index that suits a type; others get a tree.
_INDICES: Mapping[str, Any] = {"bool": "BITMAP", "list": "LABEL_LIST"}


def adopt(dataset: LanceDataset, at: Address) -> LanceDataset:
    """Adds what our commits need to a dataset that another program made.

    That is our own columns, all null (only metadata is written), and the anchor row. If several
    processes do it at the same time, it happens once.

    Returns:
        The newest version, with both.
    """
    uri = str(dataset.uri)

    def build(new: list[WrittenFragment]) -> Pending[LanceDataset] | LanceDataset:
        latest = open_dataset(at)
        if latest is None:
            raise DatasetError(f"there is no longer a dataset at {uri}")
        missing = [
            column
            for column in frame_schema()
            if column.name in OWN_COLUMNS and column.name not in latest.schema.names
        ]
        if missing:
            latest = commit_columns(latest, pa.schema(missing))
        # A search for the key itself would read all keys.
        with reading(uri):
            own = latest.to_table(columns=["uuid"], filter=STATES)["uuid"]
        if ANCHOR_KEY in own.to_pylist():
            return latest
        anchor = state_rows([], anchor=True, embed_dim=embed_dim_of(latest.schema))
        new += write_rows(Destination(uri, at.storage_options), [anchor])
        properties = {"contextframe.mode": "adopt"}
        return Pending(
            lambda: commit_guarded(latest, new, properties=properties, at=at),
            lambda committed: committed,
        )

    return change(at, build)


@dataclass(frozen=True)
class AddedFields:
    """What the addition of own fields did.

    Attributes:
        version: The dataset's newest version afterwards.
        fields: The fields that are new.
        filled: How many rows have a value, by the name of the field.
        misfits: How many rows have a value that does not fit, and are null; likewise.
        reason: Why the first of them does not fit.
    """

    version: int
    fields: tuple[OwnField, ...] = ()
    filled: Mapping[str, int] = field(default_factory=dict)
    misfits: Mapping[str, int] = field(default_factory=dict)
    reason: str = ""

    @property
    def what_is_null(self) -> str:
        """How many values do not fit, for people; empty if all do."""
        counts = [
            f"{'1 value' if count == 1 else f'{count:,} values'} of {name}"
            for name, count in self.misfits.items()
        ]
        one = sum(self.misfits.values()) == 1
        said = "does not fit, and is" if one else "do not fit, and are"
        return f"{', '.join(counts)} {said} null in the column: {self.reason}" if counts else ""


def joined_fields(dataset: LanceDataset, wanted: Sequence[OwnField]) -> tuple[OwnField, ...]:
    """Returns the own fields of a dataset, and after them those that are wanted as well.

    Raises:
        SchemaError: one has another type in the dataset.
    """
    stored = {one.name: one for one in fields_of(dataset.schema)}
    for one in wanted:
        other = stored.setdefault(one.name, one)
        if other.kind != one.kind:
            raise SchemaError(
                f"the column {one.name} of {dataset.uri} holds {other.kind}, and {one.kind} is "
                f"asked for; ask for {other}, or drop it first: `contextframe-beam columns drop "
                f"{dataset.uri} {shlex.quote(one.name)}`"
            )
    return tuple(stored.values())


def add_fields(at: Address, wanted: Sequence[OwnField]) -> AddedFields:
    """Makes columns of fields of metadata, and fills them for all rows, in one transaction.

    Others may write meanwhile. If it is killed, the dataset is as it was.

    Args:
        at: The dataset.
        wanted: The fields; those that are columns already stay as they are.

    Raises:
        SchemaError: one is a column of another type.
        ConcurrentRunError: others kept committing.
        DatasetError: the dataset cannot be read or written.
    """
    with _Addition(at, wanted) as addition:
        return change(at, addition.build)


class _Addition:
    """Makes the columns of each fragment once, however often the transaction is built."""

    def __init__(self, at: Address, wanted: Sequence[OwnField]) -> None:
        self._at, self._wanted = at, wanted
        self._parts: dict[tuple[str, int, tuple[OwnField, ...]], _Part] = {}
        self._named: frozenset[str] = frozenset()

    def __enter__(self) -> _Addition:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        in_doubt = isinstance(error, UnknownCommitError)
        # Where nobody knows whether it was committed, a version may yet name the files.
        if not in_doubt and isinstance(error, Exception | None):
            written = [part.file for part in self._parts.values()]
            named = self._named
            delete_files(self._at, [one for one in written if not named.issuperset(one.paths)])

    def build(self, _: list[WrittenFragment]) -> Pending[AddedFields] | AddedFields:
        """Makes the columns of those fragments that have none yet, and the transaction."""
        at = self._at
        dataset = adopt(open_newest(at), at)
        stored = fields_of(dataset.schema)
        fields = joined_fields(dataset, self._wanted)[len(stored) :]
        if not fields:
            return AddedFields(int(dataset.version))
        with reading(at.uri):
            whose = _values_of_documents([dataset], fields)
            parts = {
                one.fragment_id: self._part_of(dataset, one, fields, whose)
                for one in dataset.get_fragments()
            }
        columns = fields_in(fields)
        files = {number: part.file for number, part in parts.items()}
        made = AddedFields(
            0,
            fields,
            _sums(part.filled for part in parts.values()),
            _sums(part.misfits for part in parts.values()),
            next((part.reason for part in parts.values() if part.reason), ""),
        )
        properties = {"contextframe.mode": "columns"}

        def commit() -> LanceDataset:
            nothing = Removal([], [], 0)
            committed = commit_columns_anew(
                dataset, columns, columns, files, nothing, [], properties=properties, at=at
            )
            self._named = frozenset(path for one in files.values() for path in one.paths)
            return committed

        return Pending(commit, lambda committed: replace(made, version=int(committed.version)))

    def _part_of(
        self,
        dataset: LanceDataset,
        fragment: lance.LanceFragment,
        fields: tuple[OwnField, ...],
        whose: WhoseFields | None,
    ) -> _Part:
        # Deletions come and go; what is in a file stays.
        key = (file_of(fragment), int(fragment.num_deletions), fields)
        if key not in self._parts:
            self._parts[key] = _part(self._at, dataset, fragment, fields, whose)
        return self._parts[key]


def _sums(counts: Iterator[Mapping[str, int]]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for one in counts:
        for name, count in one.items():
            sums[name] = sums.get(name, 0) + count
    return sums


@dataclass
class _Part:
    """The columns of one fragment.

    Attributes:
        file: The data file with them.
        filled: How many rows have a value, by the name of the field.
        misfits: How many have one that does not fit.
        reason: Why the first of them does not fit.
    """

    file: WrittenFragment
    filled: dict[str, int]
    misfits: dict[str, int]
    reason: str = ""


def _part(
    at: Address,
    dataset: LanceDataset,
    fragment: lance.LanceFragment,
    fields: Sequence[OwnField],
    whose: WhoseFields | None,
) -> _Part:
    """Writes the columns of all rows of a fragment, of deleted ones as nulls."""
    columns = fields_in(fields)
    filled: dict[str, int] = {}
    misfits: dict[str, int] = {}
    reasons: list[str] = []

    def batches() -> Iterator[pa.RecordBatch]:
        scanner = dataset.scanner(
            columns=[name for name in _NEEDED if name in dataset.schema.names],
            fragments=[fragment],
            with_row_address=True,
            scan_in_order=True,
            batch_size=_ROWS_AT_ONCE,
        )
        reached = 0
        for batch in scanner.to_batches():
            if not batch.num_rows:
                continue
            offsets = (batch.column("_rowaddr").to_numpy() & _OFFSET).astype(np.int64)
            for one in fields:
                rows, errors = with_fields(batch, [one], whose)
                values = rows.column(one.column)
                filled[one.name] = filled.get(one.name, 0) + len(values) - values.null_count
                if errors:
                    misfits[one.name] = misfits.get(one.name, 0) + len(errors)
                    place = min(errors)
                    reasons.append(f"{rows['uri'][place].as_py()}: {errors[place]}")
                made[one.name] = values
            stop = int(offsets[-1]) + 1
            yield _spread(made, columns, offsets - reached, stop - reached)
            reached = stop
        if reached < fragment.physical_rows:
            empty = np.zeros(0, np.int64)
            nothing = {one.name: pa.nulls(0, one.arrow.type) for one in fields}
            yield _spread(nothing, columns, empty, fragment.physical_rows - reached)

    made: dict[str, pa.Array] = {}
    file = write_column_file(at, batches(), columns, dataset.data_storage_version)
    return _Part(file, filled, misfits, next(iter(reasons), ""))


def _spread(
    values: Mapping[str, pa.Array], columns: pa.Schema, offsets: Any, count: int
) -> pa.RecordBatch:
    """Returns a batch of so many rows, with values at their places and nulls between."""
    arrays = list(values.values())
    if len(offsets) != count:
        places = np.full(count, -1, np.int64)
        places[offsets] = np.arange(len(offsets))
        taken = pa.array(places, mask=places < 0)
        arrays = [one.take(taken) for one in arrays]
    return pa.RecordBatch.from_arrays(arrays, schema=columns)


def _values_of_documents(
    datasets: Sequence[LanceDataset], fields: Sequence[OwnField]
) -> WhoseFields | None:
    """Returns what finds the values of the documents that have chunks; None without chunks."""
    chunked = [one for one in datasets if "x_parent" in one.schema.names and any_row(one, CHUNKS)]
    if not chunked:
        return None
    parents = NumberSet(
        Numbers.concat(
            Numbers.of_digests(batch.column("x_parent").unique())
            for one in chunked
            for batch, _ in scan_rows(one, ["x_parent"], filter=CHUNKS)
        )
    )
    keys: list[Numbers] = []
    values: dict[str, list[pa.Array]] = {one.name: [] for one in fields}
    for dataset in datasets:
        columns = [name for name in _NEEDED if name in dataset.schema.names]
        for batch, _ in scan_rows(dataset, columns, filter="x_parent IS NULL"):
            numbers, _ = numbers_of_keys(batch.column("uuid"))
            rows = batch.filter(pa.array(parents.contains(numbers)))
            keys.append(numbers_of_keys(rows.column("uuid"))[0])
            made, _ = with_fields(rows, fields)
            for one in fields:
                values[one.name].append(made.column(one.column))
    documents = NumberSet(Numbers.concat(keys))
    arrays = {
        one.name: pa.concat_arrays([pa.nulls(0, one.arrow.type), *values[one.name]])
        for one in fields
    }

    def whose(asked: pa.Array, of: OwnField) -> pa.Array:
        places = documents.find(Numbers.of_digests(asked))
        return arrays[of.name].take(pa.array(places, mask=places < 0))

    return whose


def filled(
    dataset: LanceDataset,
    destination: Destination,
    schema: pa.Schema,
    new: Sequence[WrittenFragment],
) -> tuple[list[WrittenFragment], list[WrittenFragment]]:
    """Fills columns that were added to a dataset while rows for it were written.

    Args:
        dataset: The version that the rows are committed to.
        destination: What they were written for.
        schema: The columns that they were written with.
        new: The rows.

    Returns:
        The rows with all own fields, and the files that were written for that.
    """
    fields = fields_of(dataset.schema)
    if not fields:
        return list(new), []
    version = dataset.data_storage_version
    numbers = {one: numbers_of(dataset.lance_schema, [one.column], version) for one in fields}
    lacking: dict[tuple[OwnField, ...], list[WrittenFragment]] = {}
    for fragment in new:
        described = json.loads(fragment.metadata)["files"]
        known = {number for file in described for number in file["fields"]}
        missing = tuple(one for one in fields if not known.issuperset(numbers[one]))
        lacking.setdefault(missing, []).append(fragment)
    extended, files = list(lacking.pop((), [])), []
    for missing, fragments in lacking.items():
        rows = preview(destination, schema, fragments)
        whose = _values_of_documents([preview(destination, schema, new)], missing)
        for fragment, there in zip(fragments, rows.get_fragments(), strict=True):
            part = _part(destination, rows, there, missing, whose)
            files.append(part.file)
            own = [number for one in missing for number in numbers[one]]
            extended.append(with_file(fragment, part.file, own))
    return extended, files


def rows_with_fields(
    batches: list[pa.RecordBatch], fields: Sequence[OwnField]
) -> list[pa.RecordBatch]:
    """Adds the columns of own fields to documents and the chunks behind them.

    Raises:
        RecordError: a value does not fit.
    """
    if not fields:
        return batches
    found = []
    # Together, because a chunk has what its document has.
    for batch in pa.Table.from_batches(batches).combine_chunks().to_batches():
        rows, misfits = with_fields(batch, fields)
        for place, misfit in misfits.items():
            raise RecordError(f"{rows['uri'][place].as_py()}: {misfit}") from misfit
        found.append(rows)
    return found


def drop_fields(at: Address, names: Sequence[str]) -> int:
    """Drops the columns of own fields, and their indices. The metadata of documents stays.

    Returns:
        The dataset's newest version afterwards.

    Raises:
        ConfigError: one of them is no own field.
        ConcurrentRunError: others kept committing, or an index is being written.
        DatasetError: the dataset cannot be written.
    """

    def build(_: list[WrittenFragment]) -> Pending[int] | int:
        def commit() -> LanceDataset:
            with dropping(at) as dataset:
                columns = [_field_named(dataset, name).column for name in names]
                changing(at.uri, lambda: dataset.drop_columns(columns), "drop columns of")
            return dataset

        return Pending(
            commit,
            lambda committed: int(committed.version),
        )

    return change(at, build)


def _field_named(dataset: LanceDataset, name: str) -> OwnField:
    fields = {one.name: one for one in fields_of(dataset.schema)}
    if name not in fields:
        known = f"it has {', '.join(map(str, fields.values()))}" if fields else "it has none"
        raise ConfigError(
            f"{dataset.uri} has no own column {name}{nearest(name, fields)}; {known}. "
            f"`contextframe-beam columns add {dataset.uri} NAME:TYPE` makes one of a field of "
            "metadata"
        )
    return fields[name]


def index_field(at: Address, name: str) -> str | None:
    """Makes the index of an own field, by which filters find rows; `compact` keeps it up to date.

    Returns:
        The kind of index: BTREE, BITMAP or LABEL_LIST; None if there was one.

    Raises:
        ConfigError: there is no such field.
        ConcurrentRunError: others kept committing.
        DatasetError: the index cannot be written.
    """

    def build(_: list[WrittenFragment]) -> Pending[str | None] | str | None:
        dataset = open_newest(at)
        one = _field_named(dataset, name)
        if any(list(index.field_names) == [one.column] for index in dataset.describe_indices()):
            return None
        kind = _INDICES.get(one.kind, "BTREE")

        def commit() -> LanceDataset:
            with indexing(at) as newest:
                column = _field_named(newest, name).column
                changing(
                    at.uri,
                    lambda: newest.create_scalar_index(column, kind),
                    "make an index of",
                )
            return newest

        return Pending(commit, lambda _: kind)

    return change(at, build)


def indices_of_fields(dataset: LanceDataset) -> dict[str, str]:
    """Returns the kind of index of each own field that has one, by the name of the field."""
    kinds = {
        name: str(index.index_type)
        for index in dataset.describe_indices()
        for name in index.field_names
    }
    fields = fields_of(dataset.schema)
    return {one.name: kinds[one.column] for one in fields if one.column in kinds}
