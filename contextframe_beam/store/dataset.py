"""FrameDataset: a Lance dataset of frames, to read, search and edit from Python.

Bulk writes belong to the pipeline (`transforms.WriteToLance`); what is written here goes through
the same transactions.
"""

from __future__ import annotations

import json
import logging
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
from contextframe_beam.frames.encode import decode_rows, encode_records, fit_vector
from contextframe_beam.frames.fields import Fields, fields_in, fields_of, parse_fields
from contextframe_beam.frames.record import FrameRecord, batches_of
from contextframe_beam.frames.schema import (
    DEFAULT_EMBED_DIM,
    check_storage_version,
    embed_dim_of,
    frame_schema,
)
from contextframe_beam.store.address import Address, StorageOptions, absolute
from contextframe_beam.store.files import (
    DEFAULT_STORAGE_VERSION,
    Destination,
    WrittenFragment,
    open_dataset,
)
from contextframe_beam.store.filters import (
    Where,
    of_id,
    projection_of,
    readable_by,
    sql_of,
    understood,
)
from contextframe_beam.store.rows import any_row, last_of_each_key, remove_keys
from contextframe_beam.store.schema import (
    AddedFields,
    add_fields,
    adopt,
    drop_fields,
    rows_with_fields,
)
from contextframe_beam.store.search import Hit, Question, nearest, search
from contextframe_beam.store.state import (
    ANCHOR_KEY,
    DOCUMENTS,
    Contents,
    SourceState,
    contents_of,
    read_embedder,
    read_states,
    state_named,
    state_rows,
)
from contextframe_beam.store.tables import DocumentTables
from contextframe_beam.store.text_index import index_text, text_index
from contextframe_beam.store.transaction import (
    Pending,
    change,
    commit_overwrite,
    commit_restore,
    commit_update,
)
from contextframe_beam.store.vector_index import has_vectors
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


class FrameDataset(DocumentTables):
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
        columns: Fields = None,
    ) -> FrameDataset:
        """Creates an empty dataset.

        Args:
            path: A folder, or an address such as `s3://bucket/kb.lance`.
            embed_dim: Number of float32 values of a vector.
            storage_options: Credentials and settings of an object store.
            storage_version: The file format: 2.1 (the default) is read by pylance 1.0 and later,
                2.2 by pylance 14.
            columns: Fields of metadata to filter and index by, with the types of their columns, as
                in `{"price": "float64", "team": "text"}`.

        Raises:
            ConfigError: a field cannot be a column.
            DatasetError: there is a dataset already, or the place cannot be written.
        """
        path = absolute(path)
        check_storage_version(storage_version)
        fields = parse_fields(columns)
        schema = pa.schema([*frame_schema(embed_dim), *fields_in(fields)])

        def build(new: list[WrittenFragment]) -> Pending[LanceDataset]:
            if open_dataset(Address(path, storage_options)) is not None:
                raise DatasetError(f"{path} exists already; use FrameDataset.open or another path")
            anchor = state_rows([], anchor=True, embed_dim=embed_dim, fields=fields)
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
        path = absolute(path)
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

    @property
    def columns(self) -> dict[str, str]:
        """The fields of metadata that have a column of their own, with its type."""
        return {one.name: one.kind for one in fields_of(self._dataset.schema)}

    def add_columns(self, columns: Fields) -> AddedFields:
        """Makes columns of fields of metadata, and fills them for all documents, in one commit.

        Args:
            columns: The fields, with their types: text, int64, float64, bool, timestamp, date or
                list (of texts). Those that are columns already stay as they are.

        Raises:
            ConfigError: a field cannot be a column.
            SchemaError: one is a column of another type.
            DatasetError: the dataset cannot be written.
        """
        self._require_newest()
        added = add_fields(self._address, parse_fields(columns))
        self._dataset = self._latest()
        return added

    def drop_columns(self, names: Iterable[str]) -> None:
        """Drops columns of fields of metadata; the metadata of documents stays.

        Raises:
            ConfigError: a field has no column.
            DatasetError: the dataset cannot be written.
        """
        self._require_newest()
        drop_fields(self._address, list(names))
        self._dataset = self._latest()

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
        table = self._dataset.to_table(columns=["uuid"], filter=self._documents(of_id(id)), limit=1)
        if table.num_rows:
            self._replace(table["uuid"].combine_chunks(), [], "delete")
        return bool(table.num_rows)

    def get(self, id: str) -> FrameRecord | None:
        """Returns the record with a unique_id or uuid, or None."""
        return next(self._records(self._documents(of_id(id)), limit=1), None)

    def __iter__(self) -> Iterator[FrameRecord]:
        return self._records(self._documents())

    def batches(
        self,
        columns: Sequence[str] | None = None,
        batch_size: int = _BATCH_ROWS,
        where: Where = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yields the documents and chunks as Arrow batches, reading `columns` only.

        Args:
            columns: Names of columns, also of own fields; all by default.
            batch_size: The most rows of a batch.
            where: As in `search`.

        Raises:
            ConfigError: the dataset has no such column, or the filter cannot be used.
        """
        wanted = None if columns is None else projection_of(columns, self._dataset.schema)
        condition = self._documents(where)
        with understood(self._dataset, where):
            scanner = self._dataset.scanner(
                columns=wanted,
                filter=condition,
                batch_size=batch_size,
                blob_handling="all_binary",
            )
            yield from scanner.to_batches()

    def count(self, where: Where = None) -> int:
        """Returns how many documents and chunks fulfil a filter, which is as in `search`."""
        condition = self._documents(where)
        with understood(self._dataset, where):
            return int(self._dataset.count_rows(filter=condition))

    def search(
        self,
        text: str,
        limit: int = 10,
        where: Where = None,
        *,
        readers: Iterable[str] | None = None,
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
        when there is none, which takes a commit; an earlier version without one, or a dataset that
        cannot be written, is read through. Where no passage holds any of the words, those are
        returned in which one stands within a longer word, with the score 0.

        Args:
            text: Words, or a question.
            limit: The most passages to return.
            where: SQL such as `status = 'open'`, or values as in `{"author": "O'Brien"}`.
            readers: Who asks, as in `["user:ana@example.com", "group:eng@example.com"]`: only what
                one of them, or anyone, may read is found. What nobody knows the readers of is not.
            hybrid: Whether to find by words and by meaning, and to join both rankings. The score
                is the sum of 1 / (60 + place) over them.
            vector: Whether to find by meaning only: what has a vector near that of the text. The
                score is the similarity; of cosine, 1 is the same.
            parents: Whether to return of each document the best passage only.
            context: How many chunks before and after each passage to return with it.
            query_vector: The vector of the text, `embed_dim` numbers.
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
        readable = readable_by(readers, self._dataset.schema)
        condition = self._documents(where, readable)
        if question.by_words and not self._pinned:
            self._make_sure_of_index()
        return search(self._dataset, question, condition, readable)

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
        made = index_text(self._address, language)
        self._dataset = self._latest()
        return made

    def nearest(
        self,
        vector: Any,
        limit: int = 10,
        where: Where = None,
        *,
        readers: Iterable[str] | None = None,
    ) -> list[Hit]:
        """Finds the passages whose vectors are nearest, nearest first.

        `score` is the distance, as the embedder of the dataset compares: cosine or another. Where
        none is recorded, it is the squared L2 distance.

        Args:
            vector: `embed_dim` numbers.
            limit: The most passages to return.
            where: As in `search`.
            readers: As in `search`.

        Raises:
            ConfigError: the search cannot be understood.
        """
        readable = readable_by(readers, self._dataset.schema)
        condition = self._documents(where, readable)
        found = nearest(self._dataset, self._vector(vector), limit, condition, where, readable)
        if not found and not has_vectors(self._dataset):
            _LOGGER.warning(
                "nothing is near: no document of %s has a vector; embed them with "
                "`contextframe-beam embed`, or bring vectors with the records",
                self.uri,
            )
        return found

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
        return state_named(read_states(self._dataset), source)

    def _replace(self, keys: pa.Array, batches: list[pa.RecordBatch], mode: str) -> None:
        """Removes the rows of `keys` and adds `batches` in one transaction."""
        dataset = self._latest()
        if not self._adopted:
            dataset = adopt(dataset, self._address)
            self._adopted = True
        layout = dataset.lance_schema
        anchor = state_rows([], anchor=True, embed_dim=self.embed_dim)
        own = rows_with_fields([*batches, anchor], fields_of(dataset.schema))
        new = write_rows(Destination(self.uri, self._options), own)
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

    def _documents(self, *conditions: Where) -> str | None:
        schema = self._dataset.schema
        parts = [DOCUMENTS] if "x_state" in schema.names else []
        parts += [f"({sql})" for sql in (sql_of(where, schema) for where in conditions) if sql]
        return " AND ".join(parts) or None

    def _records(self, condition: str | None, limit: int | None = None) -> Iterator[FrameRecord]:
        scanner = self._dataset.scanner(
            filter=condition, limit=limit, batch_size=_BATCH_ROWS, blob_handling="all_binary"
        )
        for batch in scanner.to_batches():
            yield from decode_rows(batch)


def _pending(commit: Callable[[], LanceDataset]) -> Pending[LanceDataset]:
    return Pending(commit, lambda committed: committed)


def _checked_embed_dim(dataset: LanceDataset) -> int:
    try:
        return embed_dim_of(dataset.schema)
    except SchemaError as error:
        raise SchemaError(f"{dataset.uri}: {error}") from error
