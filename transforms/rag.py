"""Beam's own RAG types: its chunks and embeddings into our datasets, and back.

`apache_beam.ml.rag` calls a piece of content with its embedding an `EmbeddableItem` (`Chunk` by its
older name). What writes items to a database is a `VectorDatabaseWriteConfig`; what looks up those
near to an item is an `EnrichmentSourceHandler`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import apache_beam as beam
from apache_beam.ml.rag.ingestion.base import VectorDatabaseWriteConfig
from apache_beam.ml.rag.types import Content, EmbeddableItem, Embedding
from apache_beam.transforms.enrichment import EnrichmentSourceHandler

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.identity import digest
from contextframe_beam.connectors.page import SourceInfo, Tally
from contextframe_beam.errors import ConfigError, RecordError
from contextframe_beam.frames.embedders import Embedder, EmbedderIdentity
from contextframe_beam.frames.encode import decode_rows
from contextframe_beam.frames.record import FrameRecord, uuid_of
from contextframe_beam.store.address import Address
from contextframe_beam.store.dataset import FrameDataset
from contextframe_beam.store.filters import Where, sql_of
from contextframe_beam.store.receipt import CommitReceipt
from contextframe_beam.store.search import Hit
from contextframe_beam.store.state import DOCUMENTS
from contextframe_beam.store.versions import open_version
from contextframe_beam.transforms.elements import FrameBatch, letter_of
from contextframe_beam.transforms.pieces import chunk_id
from contextframe_beam.transforms.write import WriteToLance

__all__ = ["LanceSearchHandler", "LanceVectorWriterConfig", "ReadItems", "item_of", "record_of"]

#: Gives the id of the document that an item is a chunk of: a name in its metadata, or a function.
DocumentOf: TypeAlias = str | Callable[[EmbeddableItem], str]

_READ_ROWS = 1024
_ITEMS_TOGETHER = 1024


class LanceVectorWriterConfig(VectorDatabaseWriteConfig):
    """Writes items into a Lance dataset, all in one transaction.

    With `document`, items are chunks: those of one document come together, and its chunks of an
    earlier run that are no longer there go in the same commit. Without it each item is a document
    of its own, known by its `id`. Beam makes up new ids unless a chunker is given `chunk_id_fn`.

    Example:
        >>> config = LanceVectorWriterConfig("kb.lance", document="source", embedder=embedder)
        >>> chunks | MLTransform(...) | VectorDatabaseWriteTransform(config)

    Args:
        uri: The dataset: a folder, or an address such as `s3://bucket/kb.lance`.
        document: Which document an item is a chunk of: a name in its metadata, or a function.
        embedder: What made the embeddings. It is recorded with the dataset, which refuses vectors
            of any other from then on; `as_embedder` makes one of an `EmbeddingsManager`.
        embed: What is to make them instead, as in `wordllama`, of items without embeddings.
        source: Names what the items come from. A run in the mode `mirror` deletes what the same
            source brought before and does not bring now.
        **settings: Of `WriteToLance`, such as `mode`, `run_id` and `storage_options`.

    Raises:
        ConfigError: an argument is wrong.
    """

    def __init__(
        self,
        uri: str,
        *,
        document: DocumentOf | None = None,
        embedder: Embedder | EmbedderIdentity | None = None,
        embed: str | None = None,
        source: str = "rag",
        **settings: Any,
    ) -> None:
        if embedder is not None and embed is not None:
            raise ConfigError("items are embedded already (embedder), or are to be (embed)")
        identity = embedder.identity if isinstance(embedder, Embedder) else embedder
        if identity is not None:
            settings = {"embed_dim": identity.dim, **settings}
        self._document = document
        self._source = _source(source)
        self._identity = identity
        self._settings = {"chunk": "none", "embed": embed or "none", **settings}
        self._uri = uri

    def create_write_transform(self) -> beam.PTransform[EmbeddableItem, Any]:
        """Returns the transform that writes a PCollection of items; it gives the receipt."""
        sink = WriteToLance(self._uri, embedded_by=self._identity, **self._settings)
        return _WriteItems(sink, self._document, self._source)


class _WriteItems(beam.PTransform[Any, Any]):
    def __init__(self, sink: WriteToLance, document: DocumentOf | None, source: SourceInfo) -> None:
        super().__init__()
        self._sink = sink
        self._document = document
        self._source = source

    def expand(self, items: beam.PCollection[EmbeddableItem]) -> beam.PCollection[CommitReceipt]:
        fingerprint = None if self._sink.embedder is None else self._sink.embedder.fingerprint
        document, source = self._document, self._source
        if document is None:
            batches = (
                items
                | "Collect" >> beam.BatchElements(1, _ITEMS_TOGETHER)
                | "Frames"
                >> beam.Map(frames_of_items, fingerprint, source).with_output_types(FrameBatch)
            )
        else:
            batches = (
                items
                | "Document" >> beam.Map(lambda item: (_document_id(item, document), item))
                | "Together" >> beam.GroupByKey()
                | "Frames"
                >> beam.MapTuple(frames_of_document, fingerprint, source).with_output_types(
                    FrameBatch
                )
            )
        receipts: beam.PCollection[CommitReceipt] = batches | "Write" >> self._sink
        return receipts


def _document_id(item: EmbeddableItem, document: DocumentOf) -> str:
    found = document(item) if callable(document) else item.metadata.get(document)
    # Whatever has no document is one, so that nothing is lost.
    return str(found) if found not in (None, "") else str(item.id)


def _source(name: str) -> SourceInfo:
    identity = {"connector": "apache_beam.ml.rag", "arguments": {"source": name}}
    return SourceInfo(digest(identity), name, identity)


def frames_of_items(
    items: Sequence[EmbeddableItem],
    fingerprint: str | None = None,
    source: SourceInfo | None = None,
) -> FrameBatch:
    """Returns a record for each item, known by its id; those that cannot be stored are failures.

    Args:
        items: The items.
        fingerprint: Of the embedder that made their vectors, if it is known.
        source: What they come from.
    """
    batch = FrameBatch([], [], tally=Tally(source, read=len(items)))
    for number, item in enumerate(items):
        try:
            record = record_of(item, fingerprint)
        except RecordError as error:
            batch.failures.append(letter_of("map", error, _told(item), batch, number))
            continue
        batch.records.append(record)
        batch.items.append(item)
    return batch


def frames_of_document(
    name: str,
    items: Iterable[EmbeddableItem],
    fingerprint: str | None = None,
    source: SourceInfo | None = None,
) -> FrameBatch:
    """Returns the record of a document and those of its chunks, which come whole or not at all.

    Args:
        name: The id of the document.
        items: Its chunks, in any order.
        fingerprint: Of the embedder that made their vectors, if it is known.
        source: What they come from.
    """
    # Items may all have the same index, and their ids may be new in each run.
    chunks = sorted(items, key=lambda item: (item.index, item.content.text or "", item.id))
    batch = FrameBatch([], [], tally=Tally(source, read=len(chunks), documents=1))
    parent = uuid_of(name)
    records = [FrameRecord(None, {"title": name}, unique_id=name)]
    for number, item in enumerate(chunks):
        try:
            record = record_of(item, fingerprint)
        except RecordError as error:
            batch.fail("map", error, _told(item), 0, records[:1])
            return batch
        record.unique_id = chunk_id(name, number)
        record.parent = parent
        record.metadata = {
            "title": name,
            **record.metadata,
            "position": number,
            "relationships": [{"type": "parent", "id": parent, "uri": name}],
        }
        records.append(record)
    batch.records = records
    batch.items = [None, *chunks]
    batch.documents = [0] * len(records)
    return batch


def record_of(item: EmbeddableItem, fingerprint: str | None = None) -> FrameRecord:
    """Returns an item as a record.

    Args:
        item: The item.
        fingerprint: Of the embedder that made its vector, if it is known.

    Raises:
        RecordError: it has what a record cannot hold.
    """
    if not isinstance(item, EmbeddableItem):
        raise RecordError(f"this is a {type(item).__name__}; expected an EmbeddableItem of Beam")
    if item.sparse_embedding is not None:
        raise RecordError(f"the item {item.id} has a sparse embedding, and a dataset holds none")
    image = item.content.image
    vector = item.dense_embedding
    return FrameRecord(
        item.content.text,
        {
            "position": item.index,
            **item.metadata,
            **({_IMAGE: image} if isinstance(image, str) else {}),
        },
        unique_id=item.id,
        vector=vector,
        raw_data=image if isinstance(image, bytes) else None,
        embedder=None if vector is None else fingerprint,
    )


def item_of(record: FrameRecord) -> EmbeddableItem:
    """Returns a record as an item: the one that `record_of` made it of, or its like."""
    metadata = {k: v for k, v in record.metadata.items() if k not in _OF_ITEMS}
    image = record.metadata.get(_IMAGE, record.raw_data)
    vector = record.vector
    return EmbeddableItem(
        content=Content(text=record.text_content, image=image),
        id=record.unique_id or record.uuid,
        index=record.metadata.get("position") or 0,
        metadata=metadata,
        embedding=None
        if vector is None
        else Embedding(dense_embedding=[float(number) for number in vector]),
    )


_IMAGE = "image"
_OF_ITEMS = (_IMAGE, "position", "relationships")


def _told(item: Any) -> Any:
    """Returns what a dead letter keeps of an item."""
    if not isinstance(item, EmbeddableItem):
        return item
    return {"id": item.id, "text": item.content.text, "metadata": item.metadata}


class ReadItems(beam.PTransform[Any, Any]):
    """Reads what has a vector in a dataset as items, in parallel.

    Args:
        uri: The dataset.
        where: SQL such as `status = 'open'`, or values as in `{"author": "Ada"}`.
        version: A version; the newest by default.
        storage_options: Credentials and settings of the object store.

    Returns:
        A PCollection of `EmbeddableItem`.

    Raises:
        ConfigError: the filter names no column of the dataset.
        DatasetError: there is no dataset.
    """

    def __init__(
        self,
        uri: str,
        where: Where = None,
        version: int | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        secrets.refuse_credentials(uri, "the dataset")
        dataset = FrameDataset.open(uri, version, storage_options)
        # One version for all workers, whatever is committed meanwhile.
        self._read = _ReadDoFn(Address(dataset.uri, storage_options), dataset.version, where)
        sql_of(where, dataset.schema)  # refuses columns that are not there
        self._fragments = [one.fragment_id for one in dataset.lance.get_fragments()]

    def expand(self, root: Any) -> beam.PCollection[EmbeddableItem]:
        items: beam.PCollection[EmbeddableItem] = (
            root
            | "Fragments" >> beam.Create(self._fragments)
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(self._read).with_output_types(EmbeddableItem)
        )
        return items


class _ReadDoFn(beam.DoFn):
    def __init__(self, at: Address, version: int, where: Where) -> None:
        self._at, self._version, self._where = at, version, where

    def setup(self) -> None:
        secrets.register_store(self._at.storage_options)

    def process(self, fragment: int) -> Iterator[EmbeddableItem]:
        dataset = open_version(self._at, self._version)
        where = sql_of(self._where, dataset.schema)
        conditions = [DOCUMENTS, "vector IS NOT NULL", *([f"({where})"] if where else [])]
        scanner = dataset.scanner(
            filter=" AND ".join(conditions),
            fragments=[one for one in dataset.get_fragments() if one.fragment_id == fragment],
            batch_size=_READ_ROWS,
            blob_handling="all_binary",
        )
        for batch in scanner.to_batches():
            yield from map(item_of, decode_rows(batch))


#: How a handler searches: by the item's text, by its embedding, or by both.
SearchMode: TypeAlias = Literal["text", "vector", "hybrid"]


class LanceSearchHandler(EnrichmentSourceHandler[Any, Any]):
    """Looks up for each item what a dataset holds that is like it, for Beam's `Enrichment`.

    The item's own embedding is used, and its text is embedded by the dataset's embedder where it
    has none. What is found goes into the item's metadata as `enrichment_data`: `id`, that of the
    item, and `chunks`, each with `id`, `text`, `score`, `title`, `document` and `metadata`.

    Args:
        uri: The dataset.
        mode: Whether to search by `text`, by `vector` or by both (`hybrid`).
        limit: The most chunks to return for an item.
        where: A filter, or a function that gives that of an item.
        readers: Who asks, or a function that gives who asks by an item: only what one of them, or
            anyone, may read is found. By default all is.
        parents: Whether to return of each document the best chunk only.
        embedder: The name of the embedder, where it is not found by the recorded one.
        embed_url: Where its service is, if it moved.
        embed_key: The service's key, best as a reference such as `env:NAME`.
        embed_options: Further settings of the embedder that are not recorded, such as `headers`.
        storage_options: Credentials and settings of the object store.

    Raises:
        ConfigError: the mode is unknown.
    """

    def __init__(
        self,
        uri: str,
        *,
        mode: SearchMode = "hybrid",
        limit: int = 10,
        where: Where | Callable[[EmbeddableItem], Where] = None,
        readers: Iterable[str] | Callable[[EmbeddableItem], Iterable[str]] | None = None,
        parents: bool = False,
        embedder: str | None = None,
        embed_url: str | None = None,
        embed_key: str | None = None,
        embed_options: Mapping[str, Any] | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        if mode not in ("text", "vector", "hybrid"):
            raise ConfigError(f"there is no mode {mode!r}; choose text, vector or hybrid")
        secrets.refuse_credentials(uri, "the dataset")
        self._at = Address(uri, storage_options)
        self._where = where
        self._readers = readers
        self._asked: dict[str, Any] = {
            "limit": limit,
            "hybrid": mode == "hybrid",
            "vector": mode == "vector",
            "parents": parents,
            "embedder": embedder,
            "embed_url": embed_url,
            "embed_key": embed_key,
            "embed_options": embed_options,
        }
        # What `Enrichment` asks of handlers of its own types.
        self.join_fn = _with_found
        self.use_custom_types = True

    def __enter__(self) -> None:
        secrets.register_store(self._at.storage_options)
        self._dataset = FrameDataset.open(self._at.uri, storage_options=self._at.storage_options)

    def __call__(
        self, request: Any, *args: Any, **kwargs: Any
    ) -> tuple[EmbeddableItem, dict[str, Any]]:
        """Returns the item with what was found for it."""
        asked = dict(self._asked)
        asked["where"] = self._where(request) if callable(self._where) else self._where
        asked["readers"] = self._readers(request) if callable(self._readers) else self._readers
        if callable(self._readers) and asked["readers"] is None:
            raise ConfigError("the function `readers` gave None for an item; expected who asks")
        if asked["hybrid"] or asked["vector"]:
            asked["query_vector"] = request.dense_embedding
        text = request.content.text
        if not text and isinstance(request.content.image, str):
            text = request.content.image
        found = self._dataset.search(text or "", **asked)
        return request, {"id": request.id, "chunks": [_chunk_of(hit) for hit in found]}

    def __exit__(self, *_: object) -> None:
        """Leaves the dataset; nothing has to be closed."""


def _with_found(item: EmbeddableItem, found: dict[str, Any]) -> EmbeddableItem:
    item.metadata["enrichment_data"] = found
    return item


def _chunk_of(hit: Hit) -> dict[str, Any]:
    return {
        "id": hit.unique_id,
        "text": hit.text_content,
        "score": hit.score,
        "title": hit.title,
        "document": hit.parent or hit.uuid,
        "metadata": dict(hit.metadata),
    }
