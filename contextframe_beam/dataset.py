"""FrameDataset: a Lance dataset of frames, to read, search and edit from Python.

Bulk writes belong to the pipeline (`transforms.WriteToLance`); what is written here goes through
the same transactions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from lance import LanceDataset

from contextframe_beam.encoding import decode_rows, encode_records
from contextframe_beam.errors import ConfigError, DatasetError, RecordError
from contextframe_beam.fragments import (
    DEFAULT_STORAGE_VERSION,
    Destination,
    StorageOptions,
    first_line,
    open_dataset,
    write_rows,
)
from contextframe_beam.record import FrameRecord, is_uuid, uuid_of
from contextframe_beam.schema import (
    DEFAULT_EMBED_DIM,
    OWN_COLUMNS,
    STORAGE_VERSIONS,
    embed_dim_of,
    frame_schema,
)
from contextframe_beam.state import (
    ANCHOR_KEY,
    DOCUMENTS,
    SourceState,
    read_states,
    state_rows,
)
from contextframe_beam.transaction import (
    ConflictError,
    Removal,
    commit_overwrite,
    commit_update,
    remove_keys,
    with_retries,
)

#: A filter: SQL over the columns, or the values that columns must have.
Where = str | Mapping[str, Any] | None

_BATCH_ROWS = 1024


@dataclass(frozen=True)
class Version:
    """One version of a dataset.

    Attributes:
        version: Its number.
        at: When it was made, in local time with its offset.
        run_id: The run that made it, or None.
        mode: The run's mode, or what else made the version (add, delete, index, ...).
        counts: What the run counted: written, replaced, deleted, unchanged, failed.
    """

    version: int
    at: datetime
    run_id: str | None = None
    mode: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)


class FrameDataset:
    """A dataset of frames; made by `create` or `open`.

    Example:
        >>> dataset = FrameDataset.create("kb.lance", embed_dim=384)
        >>> dataset.add(FrameRecord("Beam runs pipelines.", unique_id="doc:1"))
        >>> [record.title for record in dataset.search("pipelines")]
    """

    def __init__(
        self, dataset: LanceDataset, storage_options: StorageOptions, pinned: bool = False
    ) -> None:
        self._dataset = dataset
        self._options = storage_options
        self._pinned = pinned
        self.embed_dim = _checked_embed_dim(dataset)

    @classmethod
    def create(
        cls,
        path: str,
        embed_dim: int = DEFAULT_EMBED_DIM,
        storage_options: StorageOptions = None,
        storage_version: str = DEFAULT_STORAGE_VERSION,
    ) -> FrameDataset:
        """Creates an empty dataset.

        Args:
            path: A folder, or an address such as `s3://bucket/kb.lance`.
            embed_dim: Number of float32 values of a vector.
            storage_options: Credentials and settings of an object store.
            storage_version: The file format: 2.1 (the default) is read by pylance 1.0 and later,
                2.2 by pylance 14.

        Raises:
            DatasetError: there is a dataset already, or the place cannot be written.
        """
        path = str(path)
        check_storage_version(storage_version)
        schema = frame_schema(embed_dim)
        if open_dataset(path, storage_options) is not None:
            raise DatasetError(f"{path} exists already; use FrameDataset.open or another path")
        new = write_rows(
            Destination(path, storage_options, storage_version),
            [state_rows([], anchor=True, embed_dim=embed_dim)],
        )
        try:
            dataset = commit_overwrite(
                path,
                schema,
                new,
                read_version=0,
                storage_version=storage_version,
                properties={"contextframe.mode": "create"},
                storage_options=storage_options,
            )
        except ConflictError as error:
            raise DatasetError(
                f"{path} exists already; use FrameDataset.open or another path"
            ) from error
        return cls(dataset, storage_options)

    @classmethod
    def open(
        cls, path: str, version: int | None = None, storage_options: StorageOptions = None
    ) -> FrameDataset:
        """Opens a dataset, at its newest version or at an earlier one.

        Raises:
            DatasetError: there is no dataset or no such version.
            SchemaError: it is not a dataset of frames.
        """
        path = str(path)
        dataset = open_dataset(path, storage_options, version)
        if dataset is None:
            raise DatasetError(
                f"there is no dataset at {path}; make one with FrameDataset.create or "
                "`contextframe-beam ingest`"
            )
        return cls(dataset, storage_options, pinned=version is not None)

    @property
    def uri(self) -> str:
        """Where the dataset is."""
        return str(self._dataset.uri)

    @property
    def version(self) -> int:
        """The version that is being read."""
        return int(self._dataset.version)

    @property
    def lance(self) -> LanceDataset:
        """Lance's own dataset, for all that this class does not do."""
        return self._dataset

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        return self._dataset.schema

    def __len__(self) -> int:
        return int(self._dataset.count_rows(filter=self._documents()))

    def __repr__(self) -> str:
        return f"FrameDataset({self.uri!r}, version={self.version})"

    def add(self, record: FrameRecord) -> None:
        """Adds a record, replacing the one of the same key, in a commit of its own.

        Prefer `add_many`: a commit takes longer than a thousand rows.

        Raises:
            RecordError: the record cannot be stored.
        """
        self.add_many([record])

    def add_many(self, records: Iterable[FrameRecord]) -> int:
        """Adds records in one commit, replacing those of the same keys.

        Of records with one key the last one given is kept.

        Returns:
            How many records were stored.

        Raises:
            RecordError: a record cannot be stored; none was.
        """
        self._require_newest()
        self._require_own_columns()
        batches: list[pa.RecordBatch] = []
        remaining = iter(list({record.uuid: record for record in records}.values()))
        while chunk := list(islice(remaining, _BATCH_ROWS)):
            batch, errors = encode_records(chunk, embed_dim=self.embed_dim)
            if errors:
                index, error = errors[0]
                raise RecordError(f"{chunk[index]!r}: {error}") from error
            batches.append(batch)
        if not batches:
            return 0
        keys = pa.concat_arrays([batch["uuid"] for batch in batches])
        self._replace(keys, batches, "add")
        return len(keys)

    def delete(self, id: str) -> bool:
        """Deletes the record of a unique_id or uuid.

        Returns:
            Whether there was one.
        """
        self._require_newest()
        found = self._find(id)
        if found is None:
            return False
        self._require_own_columns()
        self._replace(pa.array([found]), [], "delete")
        return True

    def get(self, id: str) -> FrameRecord | None:
        """Returns the record of a unique_id or uuid, or None."""
        return next(self._records(self._key_filter(id), limit=1), None)

    def __iter__(self) -> Iterator[FrameRecord]:
        return self._records(self._documents())

    def batches(
        self, columns: Sequence[str] | None = None, batch_size: int = _BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """Yields the documents as Arrow batches, reading `columns` only."""
        scanner = self._dataset.scanner(
            columns=list(columns) if columns is not None else None,
            filter=self._documents(),
            batch_size=batch_size,
            blob_handling="all_binary",
        )
        yield from scanner.to_batches()

    def search(self, text: str, limit: int = 10, where: Where = None) -> list[FrameRecord]:
        """Finds the documents whose text matches best (BM25), best first, with their `score`.

        Makes the full-text index when there is none, which takes a commit.

        Args:
            text: Words.
            limit: The most records to return.
            where: SQL such as `status = 'open'`, or values as in `{"author": "O'Brien"}`.
        """
        if not text.strip():
            raise ConfigError("the search text is empty; give at least one word")
        self._index_text()
        scanner = self._scanner(
            self._documents(where),
            limit,
            full_text_query=text,
        )
        return _scored(scanner, "_score")

    def nearest(self, vector: Any, limit: int = 10, where: Where = None) -> list[FrameRecord]:
        """Finds the documents whose vectors are nearest (L2), nearest first.

        `score` is the distance.

        Args:
            vector: `embed_dim` numbers.
            limit: The most records to return.
            where: As in `search`.
        """
        query = np.asarray(vector, np.float32)
        if query.shape != (self.embed_dim,):
            raise ConfigError(
                f"the vector has the shape {query.shape}; this dataset's have ({self.embed_dim},)"
            )
        condition = self._documents(where, "vector IS NOT NULL")
        scanner = self._scanner(
            condition, None, nearest={"column": "vector", "q": query, "k": limit}
        )
        return _scored(scanner, "_distance")

    def history(self) -> list[Version]:
        """Returns the versions that still exist, oldest first, with the runs that made them."""
        versions = []
        for entry in self._dataset.versions():
            number = int(entry["version"])
            at = entry["timestamp"]
            at = at if isinstance(at, datetime) else datetime.fromtimestamp(at / 1e9, timezone.utc)
            transaction = self._dataset.read_transaction(number)
            properties = dict(transaction.transaction_properties or {}) if transaction else {}
            versions.append(
                Version(
                    version=number,
                    at=at.astimezone(),
                    run_id=properties.get("contextframe.run_id"),
                    mode=properties.get("contextframe.mode")
                    or (type(transaction.operation).__name__.lower() if transaction else ""),
                    counts=json.loads(properties.get("contextframe.counts", "{}")),
                )
            )
        return versions

    def states(self) -> list[SourceState]:
        """Returns what the dataset knows about each of its sources."""
        return list(read_states(self._dataset).values())

    def state(self, source: str) -> SourceState | None:
        """Returns what the dataset knows about a source, by its id or its connector's name.

        Raises:
            ConfigError: several sources have that name.
        """
        states = read_states(self._dataset)
        if source in states:
            return states[source]
        named = [state for state in states.values() if state.name == source]
        if len(named) > 1:
            ids = ", ".join(state.source for state in named)
            raise ConfigError(f"{len(named)} sources are called {source}; name one of {ids}")
        return named[0] if named else None

    def _replace(self, keys: pa.Array, batches: list[pa.RecordBatch], mode: str) -> None:
        """Removes the rows of `keys` and adds `batches` in one transaction."""
        anchor = state_rows([], anchor=True, embed_dim=self.embed_dim)
        new = write_rows(Destination(self.uri, self._options), [*batches, anchor])
        removed = pa.concat_arrays([keys.cast(pa.string()), pa.array([ANCHOR_KEY])])
        rows = sum(batch.num_rows for batch in batches)

        def attempt() -> LanceDataset:
            dataset = self._latest()
            removal = remove_keys(dataset, removed)
            counts = {"written": rows} if rows else {"deleted": len(keys)}
            return commit_update(
                dataset,
                removal,
                new,
                properties={
                    "contextframe.mode": mode,
                    "contextframe.counts": json.dumps(counts),
                },
                storage_options=self._options,
            )

        self._dataset = with_retries(self.uri, attempt)

    def _latest(self) -> LanceDataset:
        dataset = open_dataset(self.uri, self._options)
        if dataset is None:
            raise DatasetError(f"there is no dataset at {self.uri} any more")
        return dataset

    def _require_newest(self) -> None:
        if self._pinned:
            raise DatasetError(
                f"version {self.version} of {self.uri} was opened to read; "
                "open the dataset without a version to write"
            )

    def _require_own_columns(self) -> None:
        if any(name not in self._dataset.schema.names for name in OWN_COLUMNS):
            self._dataset = adopt(self._latest(), self._options)

    def _index_text(self) -> None:
        indexed = any("text_content" in index.field_names for index in _indices(self._dataset))
        if not indexed and not self._pinned:
            self._dataset = self._latest()
            if self._dataset.count_rows(filter="text_content IS NOT NULL"):
                self._dataset.create_scalar_index("text_content", "INVERTED")

    def _find(self, id: str) -> str | None:
        table = self._dataset.to_table(columns=["uuid"], filter=self._key_filter(id), limit=1)
        return str(table["uuid"][0].as_py()) if table.num_rows else None

    def _key_filter(self, id: str) -> str:
        keys = [uuid_of(id), *([id.lower()] if is_uuid(id) else [])]
        values = ", ".join(f"'{key}'" for key in keys)
        return self._documents(f"(uuid IN ({values}) OR uri = {sql_literal(id)})")

    def _documents(self, *conditions: Where) -> str | None:
        parts = [DOCUMENTS] if "x_state" in self._dataset.schema.names else []
        parts += [f"({sql})" for sql in map(self._sql, conditions) if sql]
        return " AND ".join(parts) or None

    def _sql(self, where: Where) -> str:
        if where is None or isinstance(where, str):
            return where or ""
        unknown = [name for name in where if name not in self._dataset.schema.names]
        if unknown:
            raise ConfigError(
                f"the dataset has no column {', '.join(unknown)}; it has "
                + ", ".join(self._dataset.schema.names)
            )
        return " AND ".join(
            f"{name} IS NULL" if value is None else f"{name} = {sql_literal(value)}"
            for name, value in where.items()
        )

    def _scanner(self, condition: str | None, limit: int | None, **query: Any) -> Any:
        return self._dataset.scanner(
            filter=condition, prefilter=True, limit=limit, blob_handling="all_binary", **query
        )

    def _records(self, condition: str | None, limit: int | None = None) -> Iterator[FrameRecord]:
        scanner = self._dataset.scanner(
            filter=condition, limit=limit, batch_size=_BATCH_ROWS, blob_handling="all_binary"
        )
        for batch in scanner.to_batches():
            yield from decode_rows(batch)


def adopt(dataset: LanceDataset, storage_options: StorageOptions = None) -> LanceDataset:
    """Adds what our commits need to a dataset that another program made.

    That is our own columns, all null (only metadata is written), and the anchor row.

    Returns:
        The newest version, with both.
    """
    missing = [
        column
        for column in frame_schema()
        if column.name in OWN_COLUMNS and column.name not in dataset.schema.names
    ]
    if missing:
        dataset.add_columns(pa.schema(missing))
    if not dataset.count_rows(filter=f"uuid = '{ANCHOR_KEY}'"):
        anchor = state_rows([], anchor=True, embed_dim=embed_dim_of(dataset.schema))
        new = write_rows(Destination(dataset.uri, storage_options), [anchor])
        dataset = commit_update(
            dataset,
            Removal([], [], 0),
            new,
            properties={"contextframe.mode": "adopt"},
            storage_options=storage_options,
        )
    return dataset


def check_storage_version(version: str) -> None:
    """Raises ConfigError when files of that format version cannot be made."""
    if version not in STORAGE_VERSIONS:
        raise ConfigError(
            f"storage version {version} is unknown; choose one of {', '.join(STORAGE_VERSIONS)}"
        )


def sql_literal(value: Any) -> str:
    """Returns a value as SQL, quotes doubled."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return "'" + str(value).replace("'", "''") + "'"


def _checked_embed_dim(dataset: LanceDataset) -> int:
    try:
        return embed_dim_of(dataset.schema)
    except ValueError as error:
        raise type(error)(f"{dataset.uri}: {error}") from error


def _indices(dataset: LanceDataset) -> list[Any]:
    return list(dataset.describe_indices())


def _scored(scanner: Any, column: str) -> list[FrameRecord]:
    try:
        table = scanner.to_table()
    except (ValueError, OSError) as error:
        raise ConfigError(f"the search cannot be run: {first_line(error)}") from error
    records: list[FrameRecord] = []
    for batch in table.to_batches():
        scores = batch.column(column).to_pylist() if column in batch.schema.names else []
        for record, score in zip(decode_rows(batch), scores, strict=False):
            record.score = score
            records.append(record)
    return records
