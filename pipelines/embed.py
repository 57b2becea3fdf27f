"""embed: the texts that a dataset holds get new vectors, without reading any source.

Each data file gets others beside it with the columns that change: the vectors, and what tells of
them. One transaction puts these into the place of the old ones, whatever their dimension; texts and
their indices stay as they are.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.read import runtime
from contextframe_beam.errors import ConfigError, UnknownCommitError
from contextframe_beam.frames.embedders import (
    EmbedderIdentity,
    EmbedderSpec,
    EmbeddingError,
    Vectors,
)
from contextframe_beam.frames.encode import decode_rows, document_digest, encode_records
from contextframe_beam.frames.record import FrameRecord, is_uuid
from contextframe_beam.frames.schema import DIGEST, frame_schema
from contextframe_beam.store.address import Address
from contextframe_beam.store.columns import commit_columns_anew, joined, write_column_file
from contextframe_beam.store.files import Destination, WrittenFragment, delete_files, reading
from contextframe_beam.store.rows import file_of, remove_rows, scan_rows
from contextframe_beam.store.schema import adopt
from contextframe_beam.store.state import (
    DOCUMENTS,
    EMBEDDER_KEY,
    Contents,
    read_state_rows,
    state_rows,
)
from contextframe_beam.store.transaction import Pending, change
from contextframe_beam.store.versions import open_newest, without_indices
from contextframe_beam.store.writer import write_rows
from contextframe_beam.transforms.embed import TextVectors, text_vectors
from contextframe_beam.transforms.embedders import Usage
from contextframe_beam.transforms.embedders.vector_cache import remove_vectors
from contextframe_beam.transforms.texts import Texts, embedder_settings

__all__ = ["EmbedReceipt", "embed"]

_ROWS_AT_ONCE = 2048
_OFFSET = np.uint64(0xFFFFFFFF)
# Digests cover whether there is a vector, and not which one.
_ANY = np.zeros(1, np.float32)


@dataclass(frozen=True)
class EmbedReceipt:
    """What `embed` did.

    Attributes:
        version: The dataset's newest version afterwards; 0 after a dry run.
        embedder: Whose vectors it holds now; None after a dry run of a service that has not said
            what its vectors are.
        documents: Documents that have a vector now; those with chunks have none of their own.
        chunks: Chunks that have a vector now.
        texts_embedded: Texts that the embedder made vectors of.
        texts_reused: Texts whose vectors were known from before.
        tokens: Tokens of the texts that were embedded, as the embedder counts them.
        requests: Requests that were sent to embed them.
        failed: Chunks and documents whose text cannot be embedded; they have no vector.
        reason: Why the first of them cannot.
    """

    version: int = 0
    embedder: EmbedderIdentity | None = None
    documents: int = 0
    chunks: int = 0
    texts_embedded: int = 0
    texts_reused: int = 0
    tokens: int = 0
    requests: int = 0
    failed: int = 0
    reason: str = ""

    @property
    def embedded(self) -> Contents:
        """What has a vector now."""
        return Contents(self.documents, self.chunks)


def embed(
    to: str,
    embed: str | None = None,
    *,
    embed_url: str | None = None,
    embed_key: str | None = None,
    embed_budget: Mapping[str, Any] | str | None = None,
    embed_options: Mapping[str, Any] | str | None = None,
    max_tokens: int | None = None,
    dry_run: bool = False,
    storage_options: Mapping[str, str] | None = None,
) -> EmbedReceipt:
    """Makes all vectors of a dataset again from its texts, in one transaction.

    Chunks get vectors, and documents that have no chunks. A run that dies goes on where it was: the
    vectors that it has made are kept beside the dataset until all are there.

    Args:
        to: The dataset.
        embed: What makes vectors, as in `wordllama`; by default the embedder that is recorded with
            the dataset.
        embed_url: Where the embedding service is.
        embed_key: Its key, as a reference such as `env:OPENAI_API_KEY`.
        embed_budget: How much it may be sent.
        embed_options: Its further settings, as in `{"query_prefix": "query: "}`.
        max_tokens: So many tokens may be embedded; None for any number.
        dry_run: Count texts and tokens, and change nothing.
        storage_options: Credentials and settings of the dataset's object store.

    Returns:
        What was done.

    Raises:
        ConfigError: a setting cannot be.
        EmbedderError: the embedder cannot be used.
        EmbeddingError: it can embed none of the texts.
        TooManyTokens: more tokens would be needed.
        ConcurrentRunError: others kept committing.
        DatasetError: the dataset cannot be read or written. In each case it is as it was.
    """
    at = Address(to, dict(storage_options) if storage_options else None)
    secrets.refuse_credentials(to, "the dataset")
    secrets.register_store(storage_options)
    given = embedder_settings(embed_url, embed_key, embed_budget, embed_options)
    texts = Texts.embedding(at, embed, given, max_tokens, dry_run)
    dataset = open_newest(at)
    if texts.embedder is None:
        raise ConfigError(
            f"no embedder is recorded with {to}; name one with `embed`, as in wordllama"
        )
    if dry_run:
        return _counted(dataset, texts, at)
    vectors = _vectors_of(texts.embedder, dataset, at, max_tokens)
    identity = texts.identity
    assert identity is not None
    with _Embedding(at, texts, vectors) as work:
        build: Callable[[list[WrittenFragment]], Pending[EmbedReceipt] | EmbedReceipt] = work.build
        receipt = change(at, build)
    remove_vectors(to, at.storage_options, identity)
    return receipt


@dataclass
class _Part:
    """What was made of one fragment.

    Attributes:
        file: The data file with its vectors.
        keys: The uuid of each row as 16 bytes; null for deleted rows and those without a document.
        parents: Its document; null for documents.
        digests: The digest of the row alone.
        origins: What is stored as its origin.
        documents: How many documents have a vector.
        chunks: How many chunks do.
        failed: How many cannot have one.
    """

    file: WrittenFragment | None = None
    keys: list[pa.Array] = field(default_factory=list)
    parents: list[pa.Array] = field(default_factory=list)
    digests: list[pa.Array] = field(default_factory=list)
    origins: list[pa.Array] = field(default_factory=list)
    documents: int = 0
    chunks: int = 0
    failed: int = 0

    def stored(self) -> Iterator[tuple[bytes | None, ...]]:
        """Yields the key, the parent, the digest and the origin of each row."""
        columns = (self.keys, self.parents, self.digests, self.origins)
        for arrays in zip(*columns, strict=True):
            yield from zip(*(one.to_pylist() for one in arrays), strict=True)


class _Embedding:
    """Makes new columns for each fragment once, however often the transaction is built.

    Args:
        at: The dataset.
        texts: Whose vectors it is to hold.
        vectors: Where they come from.
    """

    def __init__(self, at: Address, texts: Texts, vectors: TextVectors) -> None:
        assert texts.identity is not None
        self._at, self._texts, self._vectors = at, texts, vectors
        self._identity = identity = texts.identity
        self._parts: dict[str, _Part] = {}
        self._written: list[WrittenFragment] = []
        self._usage = Usage()
        self._reason: EmbeddingError | None = None
        vector = frame_schema(identity.dim).field("vector")
        names = ("x_embedder", "x_text", "x_digest", "x_origin")
        others = [frame_schema().field(name) for name in names]
        self._columns = pa.schema([vector, *others])
        self._of_vectors = pa.schema([vector, *others[:2]])
        self._of_digests = pa.schema(others[2:])
        #: The data files that the transaction names which was committed.
        self._named: frozenset[str] = frozenset()

    def __enter__(self) -> _Embedding:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._vectors.flush()
        in_doubt = isinstance(error, UnknownCommitError)
        # Where nobody knows whether it was committed, a version may yet name the files.
        if not in_doubt and isinstance(error, Exception | None):
            delete_files(self._at, self._needless())

    def _needless(self) -> list[WrittenFragment]:
        return [one for one in self._written if not self._named.issuperset(one.paths)]

    def build(self, new: list[WrittenFragment]) -> Pending[EmbedReceipt]:
        """Makes the columns of those fragments that have none yet, and the transaction."""
        at, identity = self._at, self._identity
        dataset = adopt(open_newest(at), at)
        rows = read_state_rows(dataset)
        with reading(at.uri):
            cut = _documents_with_chunks(dataset)
            parts = {
                one.fragment_id: self._part_of(dataset, one, cut) for one in dataset.get_fragments()
            }
        documents = sum(part.documents for part in parts.values())
        chunks = sum(part.chunks for part in parts.values())
        failed = sum(part.failed for part in parts.values())
        if failed and not documents + chunks and self._reason is not None:
            raise self._reason
        wholes = _wholes(parts.values())
        files = {
            number: joined([part.file, self._digests_of(dataset, part, wholes)])
            for number, part in parts.items()
            if part.file is not None
        }
        schema = frame_schema(identity.dim)
        texts = replace(self._texts, known=rows.texts)
        # Where texts cannot be embedded, documents are made anew: other chunks may be embedded.
        record = rows.texts.after(texts.record) if failed else texts.standing(bool(cut))
        own = state_rows([], anchor=False, embed_dim=identity.dim, texts=record)
        new += write_rows(Destination(at.uri, at.storage_options, overwrites=True), [own])
        known = [rows.addresses[EMBEDDER_KEY]] if EMBEDDER_KEY in rows.addresses else []
        removal = remove_rows(dataset, np.array(known, np.uint64))
        receipt = EmbedReceipt(
            embedder=identity,
            documents=documents,
            chunks=chunks,
            texts_embedded=self._usage.texts,
            texts_reused=self._usage.reused,
            tokens=self._usage.tokens,
            requests=self._usage.requests,
            failed=failed,
            reason=str(self._reason or ""),
        )
        properties = {
            "contextframe.mode": "embed",
            "contextframe.counts": json.dumps({"embedded": documents + chunks}),
        }

        def committed() -> lance.LanceDataset:
            made = without_indices(
                at,
                lambda: commit_columns_anew(
                    dataset,
                    schema,
                    self._columns,
                    files,
                    removal,
                    new,
                    properties=properties,
                    at=at,
                ),
            )
            self._named = frozenset(path for one in files.values() for path in one.paths)
            return made

        return Pending(committed, lambda made: replace(receipt, version=int(made.version)))

    def _part_of(
        self, dataset: lance.LanceDataset, fragment: lance.LanceFragment, cut: frozenset[bytes]
    ) -> _Part:
        # Deletions come and go; what is in a file stays.
        name = f"{file_of(fragment)} {fragment.num_deletions}"
        if name not in self._parts:
            self._parts[name] = self._made(dataset, fragment, cut)
        return self._parts[name]

    def _made(
        self, dataset: lance.LanceDataset, fragment: lance.LanceFragment, cut: frozenset[bytes]
    ) -> _Part:
        part = _Part()
        batches = self._batches(dataset, fragment, cut, part)
        version = dataset.data_storage_version
        part.file = write_column_file(self._at, batches, self._of_vectors, version)
        self._written.append(part.file)
        return part

    def _batches(
        self,
        dataset: lance.LanceDataset,
        fragment: lance.LanceFragment,
        cut: frozenset[bytes],
        part: _Part,
    ) -> Iterator[pa.RecordBatch]:
        """Yields the columns with vectors of all rows of a fragment, deleted ones as nulls."""
        scanner = dataset.scanner(
            columns=[name for name in dataset.schema.names if name != "vector"],
            fragments=[fragment],
            with_row_address=True,
            scan_in_order=True,
            batch_size=_ROWS_AT_ONCE,
            blob_handling="all_binary",
        )
        size = fragment.physical_rows
        reached = 0
        for batch in scanner.to_batches():
            offsets = (batch.column("_rowaddr").to_numpy() & _OFFSET).astype(np.int64)
            rows = self._rows(batch, cut, part)
            stop = int(offsets[-1]) + 1
            yield from self._spread(rows, offsets - reached, stop - reached, part)
            reached = stop
        if reached < size:
            yield from self._spread([], np.zeros(0, np.int64), size - reached, part)

    def _rows(self, batch: pa.RecordBatch, cut: frozenset[bytes], part: _Part) -> list[_Row]:
        """Returns what is written of some rows."""
        records = list(decode_rows(batch))
        names = ("uuid", "x_state", "x_digest", "x_parent", "x_origin")
        stored = zip(*(batch.column(name).to_pylist() for name in names), strict=True)
        rows = [
            _Row() if state is not None else _Row(_key(key), digest, parent, origin)
            for key, state, digest, parent, origin in stored
        ]
        wanted = [
            place
            for place, (record, row) in enumerate(zip(records, rows, strict=True))
            if row.key is not None and _is_found(record, row.key, cut)
        ]
        found = self._vectors.of([records[place].text_content or "" for place in wanted])
        self._usage += found.usage
        for record in records:
            record.vector = record.embedder = None
        for number, place in enumerate(wanted):
            error = found.errors.get(number)
            if error is not None:
                part.failed += 1
                self._reason = self._reason or error
                continue
            part.documents += records[place].parent is None
            part.chunks += records[place].parent is not None
            records[place].vector, records[place].embedder = _ANY, self._identity.fingerprint
            rows[place].vector = found.vectors[number]
        self._encode(records, rows)
        runtime.count(items=len(records), rows=len(wanted))
        return rows

    def _encode(self, records: Sequence[FrameRecord], rows: Sequence[_Row]) -> None:
        places = [place for place, row in enumerate(rows) if row.key is not None]
        made, errors = encode_records([records[place] for place in places], embed_dim=1)
        refused = {index for index, _ in errors}  # others wrote it; its digest stays
        kept = [place for index, place in enumerate(places) if index not in refused]
        for place, digest, text in zip(
            kept, made["x_digest"].to_pylist(), made["x_text"].to_pylist(), strict=True
        ):
            rows[place].digest, rows[place].text = digest, text

    def _spread(
        self, rows: Sequence[_Row], offsets: Any, count: int, part: _Part
    ) -> Iterator[pa.RecordBatch]:
        """Yields a batch of so many rows, with some at their places and nothing between."""
        spread = [_NOTHING] * count
        for offset, row in zip(offsets.tolist(), rows, strict=True):
            spread[offset] = row
        # As arrays, which take a third of the room of lists.
        part.keys.append(pa.array([row.key for row in spread], pa.binary()))
        part.parents.append(pa.array([row.parent for row in spread], DIGEST))
        part.digests.append(pa.array([row.digest for row in spread], DIGEST))
        part.origins.append(pa.array([row.origin for row in spread], DIGEST))
        embedder = self._identity.fingerprint
        vectors = [row.vector for row in spread]
        yield pa.RecordBatch.from_arrays(
            [
                _vector_array(vectors, self._identity.dim),
                pa.array([None if one is None else embedder for one in vectors], pa.string()),
                pa.array([None if r.vector is None else r.text for r in spread], DIGEST),
            ],
            schema=self._of_vectors,
        )

    def _digests_of(
        self, dataset: lance.LanceDataset, part: _Part, wholes: Mapping[bytes, bytes]
    ) -> WrittenFragment:
        """Writes the digests of a fragment's rows, of documents together with their chunks."""
        digests, origins = [], []
        for key, parent, own, origin in part.stored():
            digests.append(own if key is None or parent is not None else wholes.get(key, own))
            origins.append(origin if parent is None else wholes.get(parent, origin))
        arrays = [pa.array(digests, DIGEST), pa.array(origins, DIGEST)]
        batch = pa.RecordBatch.from_arrays(arrays, schema=self._of_digests)
        version = dataset.data_storage_version
        written = write_column_file(self._at, [batch], self._of_digests, version)
        self._written.append(written)
        return written


@dataclass(slots=True)
class _Row:
    """What is written of a row; without a key it is no document."""

    key: bytes | None = None
    digest: bytes | None = None
    parent: bytes | None = None
    origin: bytes | None = None
    text: bytes | None = None
    vector: Vectors | None = None


_NOTHING = _Row()


def _key(text: str) -> bytes:
    """Returns the key of a row as 16 bytes; of one that others made, as its text."""
    return uuid.UUID(text).bytes if is_uuid(text) else text.encode()


def _is_found(record: FrameRecord, key: bytes, cut: frozenset[bytes]) -> bool:
    """Returns whether a record is found by its own text: as a chunk, or a document without any."""
    if record.record_type != "document" or not (record.text_content or "").strip():
        return False
    return record.parent is not None or key not in cut


def _documents_with_chunks(dataset: lance.LanceDataset) -> frozenset[bytes]:
    batches = scan_rows(dataset, ["x_parent"], filter="x_parent IS NOT NULL")
    return frozenset(key for batch, _ in batches for key in batch.column("x_parent").to_pylist())


def _wholes(parts: Iterable[_Part]) -> dict[bytes, bytes]:
    """Returns the digests of documents together with their chunks, by key."""
    own: dict[bytes, bytes] = {}
    chunks: dict[bytes, list[bytes]] = {}
    for part in parts:
        for key, parent, digest, _ in part.stored():
            if key is None or digest is None:
                continue
            if parent is None:
                own[key] = digest
            else:
                chunks.setdefault(parent, []).append(digest)
    return {key: document_digest(own[key], of) for key, of in chunks.items() if key in own}


def _vector_array(vectors: Sequence[Vectors | None], dim: int) -> pa.Array:
    values = np.zeros((len(vectors), dim), np.float32)
    missing = np.ones(len(vectors), np.bool_)
    for place, vector in enumerate(vectors):
        if vector is not None:
            values[place] = vector
            missing[place] = False
    flat = pa.array(values.reshape(-1), pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, dim, mask=pa.array(missing))


def _vectors_of(
    spec: EmbedderSpec, dataset: lance.LanceDataset, at: Address, max_tokens: int | None = None
) -> TextVectors:
    return text_vectors(spec, at, int(dataset.version), max_tokens, uuid.uuid4().hex)


def _counted(dataset: lance.LanceDataset, texts: Texts, at: Address) -> EmbedReceipt:
    """Counts what would be embedded."""
    spec = texts.embedder
    assert spec is not None
    embedder = spec.load()
    known = None
    if spec.identity is not None:
        known = _vectors_of(spec, dataset, at)
    documents = chunks = embedded = reused = tokens = 0
    chunked = "x_parent" in dataset.schema.names
    cut = _documents_with_chunks(dataset) if chunked else frozenset()
    columns = ["uuid", "text_content", "record_type", *(["x_parent"] if chunked else [])]
    for batch, _ in scan_rows(dataset, columns, filter=DOCUMENTS):
        records = zip(decode_rows(batch), batch.column("uuid").to_pylist(), strict=True)
        wanted = [record for record, key in records if _is_found(record, _key(key), cut)]
        found = [record.text_content or "" for record in wanted]
        different = list(dict.fromkeys(found))
        new = different if known is None else known.unknown(different)
        chunks += sum(record.parent is not None for record in wanted)
        documents += sum(record.parent is None for record in wanted)
        embedded += len(new)
        reused += len(different) - len(new)
        tokens += sum(embedder.count(new))
    return EmbedReceipt(
        embedder=spec.identity,
        documents=documents,
        chunks=chunks,
        texts_embedded=embedded,
        texts_reused=reused,
        tokens=tokens,
    )
