"""FrameDataset: a Lance dataset of frames, to read, search and edit from Python.

Bulk writes belong to the pipeline (`transforms.WriteToLance`); what is written here goes through
the same transactions.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from lance import LanceDataset

from contextframe_beam.errors import (
    ConcurrentRunError,
    ConfigError,
    DatasetError,
    RecordError,
    SchemaError,
)
from contextframe_beam.frames.embedders import Embedder, EmbedderIdentity, Vectors
from contextframe_beam.frames.encode import batches_of, decode_rows, encode_records, fit_vector
from contextframe_beam.frames.record import FrameRecord, is_uuid, uuid_of
from contextframe_beam.frames.schema import (
    DEFAULT_EMBED_DIM,
    OWN_COLUMNS,
    STORAGE_VERSIONS,
    embed_dim_of,
    frame_schema,
)
from contextframe_beam.store.address import Address, StorageOptions
from contextframe_beam.store.files import (
    DEFAULT_STORAGE_VERSION,
    Destination,
    WrittenFragment,
    open_dataset,
    reading,
)
from contextframe_beam.store.rows import (
    Where,
    any_row,
    check_columns,
    last_of_each_key,
    remove_keys,
    sql_of,
)
from contextframe_beam.store.rows import sql_literal as sql_literal
from contextframe_beam.store.search import Hit, Question, nearest, search
from contextframe_beam.store.state import (
    ANCHOR_KEY,
    DOCUMENTS,
    STATES,
    Contents,
    SourceState,
    contents_of,
    read_embedder,
    read_states,
    state_rows,
)
from contextframe_beam.store.text_index import (
    TextAnalysis,
    analysis_wanted,
    make_text_index,
    text_index,
)
from contextframe_beam.store.transaction import (
    Pending,
    change,
    commit_columns,
    commit_guarded,
    commit_overwrite,
    commit_restore,
    commit_update,
)
from contextframe_beam.store.versions import (
    Version,
    history_of,
    open_newest,
    open_version,
    rolling_back,
)
from contextframe_beam.store.writer import write_rows

_LOGGER = logging.getLogger(__name__)

# How many rows are read at once.
_BATCH_ROWS = 1024


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
        self._adopted = False
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
        path = _address(path)
        check_storage_version(storage_version)
        schema = frame_schema(embed_dim)

        def build(new: list[WrittenFragment]) -> Pending[LanceDataset]:
            if open_dataset(Address(path, storage_options)) is not None:
                raise DatasetError(f"{path} exists already; use FrameDataset.open or another path")
            anchor = state_rows([], anchor=True, embed_dim=embed_dim)
            new += write_rows(Destination(path, storage_options, storage_version), [anchor])
            return _pending(
                lambda: commit_overwrite(
                    Address(path, storage_options),
                    schema,
                    new,
                    read_version=0,
                    storage_version=storage_version,
                    properties={"contextframe.mode": "create"},
                )
            )

        return cls(change(Address(path, storage_options), build), storage_options)

    @classmethod
    def open(
        cls, path: str, version: int | None = None, storage_options: StorageOptions = None
    ) -> FrameDataset:
        """Opens a dataset, at its newest version or at an earlier one.

        Raises:
            DatasetError: there is no dataset or no such version.
            SchemaError: it is not a dataset of frames.
        """
        path = _address(path)
        if version is not None:
            return cls(
                open_version(Address(path, storage_options), version), storage_options, pinned=True
            )
        return cls(open_newest(Address(path, storage_options)), storage_options)

    @property
    def uri(self) -> str:
        """The address of the dataset."""
        return str(self._dataset.uri)

    @property
    def _address(self) -> Address:
        return Address(self.uri, self._options)

    @property
    def version(self) -> int:
        """The version that is being read."""
        return int(self._dataset.version)

    @property
    def lance(self) -> LanceDataset:
        """Lance's own dataset, for everything that this class does not offer."""
        return self._dataset

    @property
    def embedder(self) -> EmbedderIdentity | None:
        """The embedder of its vectors; None if it is not recorded."""
        return read_embedder(self._dataset)

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        return self._dataset.schema

    @property
    def contents(self) -> Contents:
        """How many documents it holds, and how many chunks of them; `len` counts both."""
        return contents_of(self._dataset)

    def __len__(self) -> int:
        return int(self._dataset.count_rows(filter=self._documents()))

    def __repr__(self) -> str:
        return f"FrameDataset({self.uri!r}, version={self.version})"

    def add(self, record: FrameRecord) -> None:
        """Adds a record, replacing the one of the same key and its chunks, in a commit of its own.

        Prefer `add_many`: a commit takes longer than a thousand rows.

        Raises:
            RecordError: the record cannot be stored.
        """
        self.add_many([record])

    def add_many(self, records: Iterable[FrameRecord]) -> int:
        """Adds records in one commit, and replaces those with the same keys, with their chunks.

        If several records have the same key, the last one is kept. Give the chunks of a document
        together with it, after it.

        Returns:
            The number of stored records.

        Raises:
            RecordError: a record cannot be stored; nothing was stored.
        """
        self._require_newest()
        batches: list[pa.RecordBatch] = []
        for chunk in batches_of(records):
            batch, errors = encode_records(chunk, embed_dim=self.embed_dim)
            if errors:
                index, error = errors[0]
                raise RecordError(f"{chunk[index]!r}: {error}") from error
            batches.append(batch)
        if not batches:
            return 0
        rows = last_of_each_key(pa.Table.from_batches(batches))
        self._replace(rows["uuid"].combine_chunks(), rows.to_batches(), "add")
        return int(rows.num_rows)

    def delete(self, id: str) -> bool:
        """Deletes the record of a unique_id or uuid, with its chunks.

        Returns:
            Whether there was such a record.
        """
        self._require_newest()
        self._dataset = self._latest()
        found = self._find(id)
        if found is None:
            return False
        self._replace(pa.array([found]), [], "delete")
        return True

    def get(self, id: str) -> FrameRecord | None:
        """Returns the record with a unique_id or uuid, or None."""
        return next(self._records(self._key_filter(id), limit=1), None)

    def __iter__(self) -> Iterator[FrameRecord]:
        return self._records(self._documents())

    def batches(
        self, columns: Sequence[str] | None = None, batch_size: int = _BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """Yields the documents as Arrow batches, reading `columns` only.

        Raises:
            ConfigError: the dataset has no such column.
        """
        check_columns(columns or (), self._dataset.schema.names)
        scanner = self._dataset.scanner(
            columns=list(columns) if columns is not None else None,
            filter=self._documents(),
            batch_size=batch_size,
            blob_handling="all_binary",
        )
        yield from scanner.to_batches()

    def search(
        self,
        text: str,
        limit: int = 10,
        where: Where = None,
        *,
        hybrid: bool = False,
        vector: bool = False,
        parents: bool = False,
        context: int = 0,
        query_vector: Any = None,
        embedder: Embedder | str | None = None,
        embed_url: str | None = None,
        embed_key: str | None = None,
        embed_options: Mapping[str, Any] | None = None,
    ) -> list[Hit]:
        """Finds the passages that match best, best first, with their `score`.

        A passage is a chunk, or a document without a chunk that fulfils `where`.

        By default those are found whose text holds the words (BM25). That makes the full-text index
        when there is none, which takes a commit; an earlier version without one is read through
        instead, and so is a dataset that cannot be written. Where no passage holds any of the
        words, those are returned in which one stands within a longer word, as `control` in
        `uncontrolled`; their score is 0.

        Args:
            text: Words, or a question.
            limit: The most passages to return.
            where: SQL such as `status = 'open'`, or values as in `{"author": "O'Brien"}`.
            hybrid: Whether to find by words and by meaning, and to join both rankings. The score
                is the sum of 1 / (60 + place) over them.
            vector: Whether to find by meaning only: what has a vector near that of the text. The
                score is the similarity; of cosine, 1 is the same.
            parents: Whether to return of each document the best passage only.
            context: How many chunks before and after each passage to return with it.
            query_vector: The vector of the text, where you have it; `embed_dim` numbers.
            embedder: What makes the vector of the text, or its name, as in `onnx:models/minilm`.
                The default is the embedder that made the vectors of the dataset; others are
                refused.
            embed_url: Where the embedder's service is, if it moved.
            embed_key: The service's key, best as a reference such as `env:NAME`.
            embed_options: Settings of the embedder that are not recorded, such as `headers`.

        Raises:
            ConfigError: the search cannot be understood, or another embedder made the vectors.
            EmbedderError: the embedder cannot be used.
            EmbeddingError: it cannot take this text.
        """
        if hybrid and vector:
            raise ConfigError("hybrid finds by words and by meaning, and vector by meaning only")
        question = Question(
            text,
            limit,
            where,
            by_words=not vector,
            by_meaning=hybrid or vector,
            each_document=parents,
            around=context,
            vector=None if query_vector is None else self._vector(query_vector),
            embedder=embedder,
            settings={"url": embed_url, "key": embed_key, **(embed_options or {})},
        )
        condition = self._documents(where)
        if question.by_words and not self._pinned:
            self._make_sure_of_index()
        return search(self._dataset, question, condition)

    def index_text(self, language: str | None = None) -> bool:
        """Makes the full-text index, and replaces one that splits text in another way.

        Without an index, a search makes one for text in any language. Rows that came after it
        was made are found as well; `compact` brings them into it.

        Args:
            language: Such as `de`, for its stems, or `zh`, `ja` or `ko`, whose words are found in
                part as well. The default is the one given last, and at first any language.

        Returns:
            Whether it was made; one of that kind may have been there.

        Raises:
            ConfigError: nothing is known about that language.
            DatasetError: the index cannot be written.
        """
        self._require_newest()
        analysis = TextAnalysis.of(language) if language is not None else None

        def build(_: list[WrittenFragment]) -> Pending[bool] | bool:
            self._dataset = latest = self._latest()
            made: list[bool] = []

            def commit() -> LanceDataset:
                made.append(make_text_index(latest, analysis or analysis_wanted(latest)))
                return latest

            return Pending(commit, lambda _: made[-1])

        return change(self._address, build)

    def nearest(self, vector: Any, limit: int = 10, where: Where = None) -> list[Hit]:
        """Finds the passages whose vectors are nearest, nearest first.

        `score` is the distance, as the embedder of the dataset compares: cosine or another. Where
        none is recorded, it is the squared L2 distance.

        Args:
            vector: `embed_dim` numbers.
            limit: The most passages to return.
            where: As in `search`.

        Raises:
            ConfigError: the search cannot be understood.
        """
        condition = self._documents(where)
        return nearest(self._dataset, self._vector(vector), limit, condition, where)

    def history(self) -> list[Version]:
        """Returns the versions that still exist, oldest first, with the runs that made them."""
        return history_of(self._dataset)

    def rollback(self, version: int) -> int:
        """Makes the content and the sync state of an earlier version the newest ones again.

        Nothing is lost: the versions in between stay until they are cleaned up, and can be rolled
        back to as well. A run that they committed counts as never done, and one that began before
        the rollback is not committed after it.

        Args:
            version: The version to return to; the newest one stays as it is.

        Returns:
            The version that is the newest now.

        Raises:
            DatasetError: there is no such version, or the store refuses to write.
            SchemaError: at that version it was no dataset of frames.
            ConcurrentRunError: others kept committing, or a cleanup is under way.
        """
        self._require_newest()
        _checked_embed_dim(open_version(self._address, version))

        def build(_: list[WrittenFragment]) -> Pending[LanceDataset] | LanceDataset:
            latest = self._latest()
            if latest.version == version:
                return latest
            return _pending(lambda: commit_restore(latest, version, self._address))

        with rolling_back(self._latest(), version, self._address):
            self._dataset = change(self._address, build)
        self.embed_dim = _checked_embed_dim(self._dataset)
        self._adopted = False
        return self.version

    def states(self) -> list[SourceState]:
        """Returns the state of each source in the dataset."""
        return list(read_states(self._dataset).values())

    def state(self, source: str) -> SourceState | None:
        """Returns the state of a source, by its id or its connector's name.

        Raises:
            ConfigError: several sources have that name.
        """
        states = read_states(self._dataset)
        named = [state for state in states.values() if state.name == source]
        if len(named) > 1 and source not in states:
            ids = ", ".join(state.source for state in named)
            raise ConfigError(f"{len(named)} sources are called {source}; name one of {ids}")
        return states.get(source) or next(iter(named), None)

    def _replace(self, keys: pa.Array, batches: list[pa.RecordBatch], mode: str) -> None:
        """Removes the rows of `keys` and adds `batches` in one transaction."""
        dataset = self._latest()
        if not self._adopted:
            dataset = adopt(dataset, self._address)
            self._adopted = True
        layout = dataset.lance_schema
        anchor = state_rows([], anchor=True, embed_dim=self.embed_dim)
        new = write_rows(Destination(self.uri, self._options), [*batches, anchor])
        removed = pa.concat_arrays([keys.cast(pa.string()), pa.array([ANCHOR_KEY])])
        rows = sum(batch.num_rows for batch in batches)

        def build(_: list[WrittenFragment]) -> Pending[LanceDataset]:
            dataset = self._latest()
            if dataset.lance_schema != layout:
                # The columns of the files are numbered for a schema that no longer exists.
                raise ConcurrentRunError(
                    f"the columns of {self.uri} were changed meanwhile; nothing was committed, "
                    "open the dataset again"
                )
            removal = remove_keys(dataset, removed)
            counts = {"written": rows} if rows else {"deleted": len(keys)}
            properties = {"contextframe.mode": mode, "contextframe.counts": json.dumps(counts)}
            at = self._address
            return _pending(
                lambda: commit_update(dataset, removal, new, properties=properties, at=at)
            )

        self._dataset = change(self._address, build, files=new)

    def _vector(self, given: Any) -> Vectors:
        try:
            return fit_vector(given, self.embed_dim)
        except RecordError as error:
            raise ConfigError(str(error)) from error

    def _latest(self) -> LanceDataset:
        dataset = open_dataset(self._address)
        if dataset is None:
            raise DatasetError(f"there is no longer a dataset at {self.uri}")
        return dataset

    def _require_newest(self) -> None:
        if self._pinned:
            raise DatasetError(
                f"version {self.version} of {self.uri} was opened to read; "
                "open the dataset without a version to write"
            )

    def _make_sure_of_index(self) -> None:
        """Makes the full-text index, unless there is one of any kind."""
        if text_index(self._dataset) is not None:
            return
        try:
            self._dataset = self._latest()
            has_text = any_row(self._dataset, "text_content IS NOT NULL")
            if has_text and text_index(self._dataset) is None:
                self.index_text()
        except (DatasetError, ConcurrentRunError) as error:
            _LOGGER.warning("every text is read, without a full-text index: %s", error)

    def _find(self, id: str) -> str | None:
        table = self._dataset.to_table(columns=["uuid"], filter=self._key_filter(id), limit=1)
        return next(iter(table["uuid"].to_pylist()), None)

    def _key_filter(self, id: str) -> str | None:
        if not isinstance(id, str):
            raise ConfigError(f"the id is {id!r:.80}; expected a unique_id or uuid, as text")
        literal = sql_literal(id)
        keys = [uuid_of(id), *([id.lower()] if is_uuid(id) else [])]
        values = ", ".join(f"'{key}'" for key in keys)
        return self._documents(f"(uuid IN ({values}) OR uri = {literal})")

    def _documents(self, *conditions: Where) -> str | None:
        names = self._dataset.schema.names
        parts = [DOCUMENTS] if "x_state" in names else []
        parts += [f"({sql})" for sql in (sql_of(where, names) for where in conditions) if sql]
        return " AND ".join(parts) or None

    def _records(self, condition: str | None, limit: int | None = None) -> Iterator[FrameRecord]:
        scanner = self._dataset.scanner(
            filter=condition, limit=limit, batch_size=_BATCH_ROWS, blob_handling="all_binary"
        )
        for batch in scanner.to_batches():
            yield from decode_rows(batch)


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
        return _pending(lambda: commit_guarded(latest, new, properties=properties, at=at))

    return change(at, build)


def _pending(commit: Callable[[], LanceDataset]) -> Pending[LanceDataset]:
    return Pending(commit, lambda committed: committed)


def check_storage_version(version: str) -> None:
    """Raises ConfigError if files of that format version cannot be made."""
    if version not in STORAGE_VERSIONS:
        raise ConfigError(
            f"storage version {version} is unknown; choose one of {', '.join(STORAGE_VERSIONS)}"
        )


def _address(path: str | os.PathLike[str]) -> str:
    """Returns a dataset's address, independent of later changes of the working directory."""
    address = os.fspath(path)
    return os.path.abspath(address) if "://" not in address else address


def _checked_embed_dim(dataset: LanceDataset) -> int:
    try:
        return embed_dim_of(dataset.schema)
    except SchemaError as error:
        raise SchemaError(f"{dataset.uri}: {error}") from error
