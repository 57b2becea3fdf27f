"""Embed: the texts of a batch get vectors, from the dataset, from the cache, or from the embedder.

A vector depends on its text and its embedder alone, so that of any stored row with the same two is
taken over: a document that was renamed costs nothing, and a changed one costs what was changed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeAlias

import apache_beam as beam
import lance
import numpy as np

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.page import Tally
from contextframe_beam.connectors.read import runtime
from contextframe_beam.errors import ConfigError, RecordError, TooManyTokens
from contextframe_beam.frames.embedders import (
    Embedder,
    EmbedderIdentity,
    EmbedderSpec,
    EmbeddingError,
    Vectors,
)
from contextframe_beam.frames.record import FrameRecord
from contextframe_beam.store.address import Address
from contextframe_beam.store.files import open_dataset, reading
from contextframe_beam.store.filters import sql_literal
from contextframe_beam.store.keys import Numbers, NumberSet
from contextframe_beam.store.rows import Addresses, no_addresses, scan_rows
from contextframe_beam.transforms.elements import (
    FrameBatch,
    Step,
    in_global_window,
    required,
    uuid_of_record,
)
from contextframe_beam.transforms.embed_columns import FindableColumns
from contextframe_beam.transforms.embedders import Embedded, Usage, VectorCache, embed_texts
from contextframe_beam.transforms.embedders.batching import text_key
from contextframe_beam.transforms.pieces import text_of

__all__ = [
    "Embed",
    "StoredVectors",
    "TextVectors",
    "embed_batches",
    "text_vectors",
    "texts_of",
]

# Texts of several batches are embedded together: services take hundreds a request, several at once.
_TEXTS_TOGETHER = 2048
_CHARACTERS_TOGETHER = 8 << 20

#: So few keys are looked up by one scan that keeps nothing; with more all stored ones are kept.
_FEW_KEYS = 16_384
#: Of more rows than this the keys are not kept, so each look-up is a scan.
_MOST_KEPT = 20_000_000
_ROWS_AT_ONCE = 2048


_OWN_VECTOR = (
    "the record has a vector of its own, and the run embeds by {}; leave one of the two out"
)


class Embed(Step[beam.PCollection[FrameBatch], beam.PCollection[FrameBatch]]):
    """Gives vectors to chunks, and to documents that have no chunks.

    Records without text have none. A document of which some text cannot be embedded becomes a dead
    letter of the stage `embed`, as a whole. All that no other text would change, such as refused
    credentials, ends the run.

    Args:
        embedder: What makes vectors; its identity has to be known.
        at: The dataset that the run ends in, whose vectors are taken over.
        version: The version of it to look into; None where there is no dataset.
        max_tokens: So many tokens may be embedded, by all processes of this machine together.
        run: Tells the run from others in the same process.
    """

    takes = (FrameBatch,)
    gives = FrameBatch

    def __init__(
        self,
        embedder: EmbedderSpec,
        at: Address,
        version: int | None = None,
        max_tokens: int | None = None,
        run: str = "",
    ) -> None:
        super().__init__()
        if embedder.identity is None:
            raise ConfigError(f"the embedder {embedder.name} was not asked what its vectors are")
        self._do = _EmbedDoFn(embedder, at, version, max_tokens, run)

    def expand(self, batches: beam.PCollection[FrameBatch]) -> beam.PCollection[FrameBatch]:
        embedded: beam.PCollection[FrameBatch] = batches | "Embed" >> beam.ParDo(
            self._do
        ).with_output_types(FrameBatch)
        return embedded


class _EmbedDoFn(beam.DoFn):
    """Embeds the texts of several batches together."""

    def __init__(
        self,
        embedder: EmbedderSpec,
        at: Address,
        version: int | None,
        max_tokens: int | None,
        run: str,
    ) -> None:
        self._spec, self._at, self._version = embedder, at, version
        self._max_tokens, self._run = max_tokens, run
        self._vectors: TextVectors | None = None

    def setup(self) -> None:
        secrets.register_store(self._at.storage_options)
        self._vectors = text_vectors(
            self._spec, self._at, self._version, self._max_tokens, self._run
        )

    def start_bundle(self) -> None:
        self._batches: list[FrameBatch] = []
        self._texts = self._characters = 0

    def process(self, batch: FrameBatch) -> Iterator[FrameBatch]:
        self._batches.append(required(batch, FrameBatch, "Embed"))
        self._texts += batch.count
        self._characters += _characters_of(batch)
        if self._texts >= _TEXTS_TOGETHER or self._characters >= _CHARACTERS_TOGETHER:
            yield from self._embedded()

    def finish_bundle(self) -> Iterator[Any]:
        yield from map(in_global_window, self._embedded())
        assert self._vectors is not None
        self._vectors.flush()

    def _embedded(self) -> list[FrameBatch]:
        batches = self._batches
        self.start_bundle()
        assert self._vectors is not None
        return embed_batches(batches, self._vectors) if batches else []


def embed_batches(batches: Sequence[FrameBatch], vectors: TextVectors) -> list[FrameBatch]:
    """Gives vectors to those records of batches that have a text to be found by.

    Args:
        batches: The batches, which are changed.
        vectors: Where vectors come from.

    Raises:
        EmbedderError: the embedder cannot be used.
        TooManyTokens: it would take more tokens than it may.
    """
    findable = [_findable_of(batch) for batch in batches]
    found = vectors.of([text for one in findable for text in one.texts])
    if batches:
        _count(batches[-1].tally, found.usage)
    made = []
    start = 0
    for batch, one in zip(batches, findable, strict=True):
        stop = start + len(one.texts)
        errors = {at - start: error for at, error in found.errors.items() if start <= at < stop}
        made.append(one.with_vectors(batch, found.vectors[start:stop], errors, vectors.identity))
        start = stop
    return made


def texts_of(batch: FrameBatch) -> list[str]:
    """Returns the texts of a batch that get a vector."""
    return _findable_of(batch).texts


def _findable_of(batch: FrameBatch) -> FindableRecords | FindableColumns:
    columns = batch.columns
    if columns is None or columns.embedder is not None or not batch.documents or batch.page is None:
        return FindableRecords(batch)
    return FindableColumns(columns)


def _characters_of(batch: FrameBatch) -> int:
    if batch.columns is None:
        return sum(len(text_of(one)) for one in batch.records)
    return batch.columns.characters


class FindableRecords:
    """Those records of a batch that are found by their texts.

    Args:
        batch: The batch.

    Attributes:
        texts: Their texts.
    """

    def __init__(self, batch: FrameBatch) -> None:
        self._places = list(_places_of(batch))
        self.texts = [text_of(batch.records[place]) for place in self._places]

    def with_vectors(
        self,
        batch: FrameBatch,
        rows: Vectors,
        errors: Mapping[int, Exception],
        embedder: EmbedderIdentity,
    ) -> FrameBatch:
        """Returns the batch with vectors; documents without one that they need become dead letters.

        Args:
            batch: The batch, which is changed.
            rows: The vector of each text.
            errors: Why a text has none, by its place.
            embedder: Whose they are.
        """
        failed: dict[int, tuple[int, Exception]] = {}

        def fail(place: int, error: Exception) -> None:
            document = batch.documents[place] if batch.documents else place
            failed.setdefault(document, (place, error))

        for place, record in enumerate(batch.records):
            if getattr(record, "vector", None) is not None:
                fail(place, RecordError(_OWN_VECTOR.format(embedder.spec)))
        for number, place in enumerate(self._places):
            if number in errors:
                fail(place, errors[number])
                continue
            record = batch.records[place]
            record.vector, record.embedder = rows[number], embedder.fingerprint
        return _without(batch, failed)


def _places_of(batch: FrameBatch) -> Iterator[int]:
    """Yields the places of records that get a vector: chunks, and documents without chunks."""
    records = [one if isinstance(one, FrameRecord) else None for one in batch.records]
    cut = {record.parent for record in records if record is not None} - {None}
    for place, record in enumerate(records):
        if record is None or record.record_type != "document" or not text_of(record).strip():
            continue
        if record.parent is not None or not cut or _uuid_of(record) not in cut:
            yield place


def _uuid_of(record: FrameRecord) -> str | None:
    """Returns the key of a document; None for one that the sink refuses."""
    with contextlib.suppress(RecordError):
        return uuid_of_record(record)
    return None


def _without(batch: FrameBatch, failed: dict[int, tuple[int, Exception]]) -> FrameBatch:
    """Returns a batch without the failed documents, which become dead letters."""
    if not failed:
        return batch
    numbers = batch.documents or list(range(len(batch.records)))
    kept = [place for place, number in enumerate(numbers) if number not in failed]
    gone = [place for place, number in enumerate(numbers) if number in failed]
    for number, (place, error) in sorted(failed.items()):
        records = [batch.records[one] for one in gone if numbers[one] == number]
        batch.fail("embed", error, batch.items[place], number, records)
    return replace(
        batch,
        records=[batch.records[place] for place in kept],
        items=[batch.items[place] for place in kept],
        documents=[numbers[place] for place in kept],
    )


def _count(tally: Tally, usage: Usage) -> None:
    tally.texts_embedded += usage.texts
    tally.texts_reused += usage.reused
    tally.tokens += usage.tokens
    tally.requests += usage.requests


class TextVectors:
    """The vectors of texts: those that a dataset has, those in the cache, and new ones.

    Args:
        embedder: What makes new ones.
        stored: Those of a dataset, if there is one.
        cache: Those beside it, if it pays to keep them.
        max_tokens: So many tokens may be embedded.
    """

    def __init__(
        self,
        embedder: Embedder,
        stored: StoredVectors | None = None,
        cache: VectorCache | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self._embedder, self._stored, self._cache = embedder, stored, cache
        self._max_tokens = max_tokens
        self._spent = 0
        self.identity = embedder.identity

    def of(self, texts: Sequence[str]) -> Embedded:
        """Returns the vectors of texts; equal ones are looked for and embedded once.

        Raises:
            EmbedderError: the embedder cannot be used.
            TooManyTokens: it would take more tokens than it may.
        """
        places: dict[str, list[int]] = {}
        for place, text in enumerate(texts):
            places.setdefault(text, []).append(place)
        vectors = np.zeros((len(texts), self._embedder.dim), np.float32)
        errors: dict[int, EmbeddingError] = {}
        new = list(places)
        reused = 0
        if self._stored is not None and new:
            found = self._stored.find([text_key(text) for text in new])
            reused = len(found)
            for number, vector in found.items():
                vectors[places[new[number]]] = vector
            new = [text for number, text in enumerate(new) if number not in found]
        usage = Usage(reused=reused)
        for part in self._affordable(new):
            made = embed_texts(self._embedder, part, cache=self._cache)
            usage += made.usage
            self._spend(made.usage)
            for number, text in enumerate(part):
                if number in made.errors:
                    errors |= dict.fromkeys(places[text], made.errors[number])
                else:
                    vectors[places[text]] = made.vectors[number]
        return Embedded(vectors, errors, usage)

    def unknown(self, texts: Sequence[str]) -> list[str]:
        """Returns the different texts whose vectors are not stored and not in the cache."""
        keys = [text_key(text) for text in texts]
        known = set() if self._stored is None else self._stored.contains(keys)
        if self._cache is not None:
            known |= self._cache.get(keys).keys()
        return [text for place, text in enumerate(texts) if place not in known]

    def flush(self) -> None:
        """Writes down what the cache holds back.

        Raises:
            DatasetError: it cannot be written.
        """
        if self._cache is not None:
            self._cache.flush()

    def _affordable(self, texts: Sequence[str]) -> Iterator[Sequence[str]]:
        """Yields texts in parts, each of which the limit of tokens allows by their count.

        Raises:
            TooManyTokens: the next text is too much.
        """
        if self._max_tokens is None:
            if texts:
                yield texts
            return
        counts = self._embedder.count(texts)
        start = 0
        while start < len(texts):
            left = self._max_tokens - self._spent_here()
            stop = start
            while stop < len(texts) and counts[stop] <= left:
                left -= counts[stop]
                stop += 1
            if stop == start:
                self.flush()  # what came so far is paid for
                raise TooManyTokens(
                    f"{self._spent_here():,} tokens were embedded, and the next text has "
                    f"{counts[start]:,}, which is more than the {self._max_tokens:,} together that "
                    "`max_tokens` allows; nothing was committed. The same run with a higher limit "
                    "goes on from there"
                )
            yield texts[start:stop]
            start = stop

    def _spend(self, usage: Usage) -> None:
        self._spent += usage.tokens
        runtime.count(texts=usage.texts, tokens=usage.tokens)

    def _spent_here(self) -> int:
        return max(self._spent, runtime.counted("tokens"))


class StoredVectors:
    """The vectors in one version of a dataset, known by their texts.

    Args:
        dataset: The version.
        fingerprint: Of the embedder whose vectors they are.
    """

    def __init__(self, dataset: lance.LanceDataset, fingerprint: str) -> None:
        self._dataset = dataset
        self._condition = f"x_embedder = {sql_literal(fingerprint)} AND x_text IS NOT NULL"
        self._is_there = "x_text" in dataset.schema.names
        self._asked = 0
        self._known: tuple[NumberSet, Addresses] | None = None
        self._lock = threading.Lock()

    def find(self, keys: Sequence[bytes]) -> dict[int, Vectors]:
        """Returns the vectors that there are, by the place of their key.

        Args:
            keys: Of texts, as `text_key` makes them.

        Raises:
            DatasetError: the dataset cannot be read.
        """
        with reading(self._dataset.uri):
            return self._vectors(self._at(keys))

    def contains(self, keys: Sequence[bytes]) -> set[int]:
        """Returns the places of keys whose vectors there are, without reading these.

        Raises:
            DatasetError: the dataset cannot be read.
        """
        with reading(self._dataset.uri):
            return set(self._at(keys))

    def _at(self, keys: Sequence[bytes]) -> dict[int, int]:
        """Returns the addresses of rows, by the place of their key."""
        if not self._is_there or not keys:
            return {}
        wanted = Numbers.of_bytes(b"".join(keys))
        with self._lock:
            self._asked += len(keys)
            if self._known is None and self._asked > _FEW_KEYS:
                self._known = self._load()
        if self._known is None:
            return self._look_for(wanted)
        known, addresses = self._known
        places = known.find(wanted)
        return {n: int(addresses[place]) for n, place in enumerate(places) if place >= 0}

    def _load(self) -> tuple[NumberSet, Addresses] | None:
        if self._dataset.count_rows() > _MOST_KEPT:
            return None
        found: list[Numbers] = []
        addresses = [no_addresses()]
        for batch, at in scan_rows(self._dataset, ["x_text"], filter=self._condition):
            found.append(Numbers.of_digests(batch.column("x_text")))
            addresses.append(at)
        return NumberSet(Numbers.concat(found)), np.concatenate(addresses)

    def _look_for(self, wanted: Numbers) -> dict[int, int]:
        asked = NumberSet(wanted)
        found: dict[int, int] = {}
        for batch, at in scan_rows(self._dataset, ["x_text"], filter=self._condition):
            places = asked.find(Numbers.of_digests(batch.column("x_text")))
            rows = np.flatnonzero(places >= 0)
            found |= zip(places[rows].tolist(), at[rows].tolist(), strict=True)
        return found

    def _vectors(self, at: dict[int, int]) -> dict[int, Vectors]:
        rows: dict[int, list[int]] = {}
        for place, address in at.items():
            rows.setdefault(address, []).append(place)
        ordered = sorted(rows)
        found: dict[int, Vectors] = {}
        for start in range(0, len(ordered), _ROWS_AT_ONCE):
            some = ", ".join(map(str, ordered[start : start + _ROWS_AT_ONCE]))
            condition = f"_rowaddr IN ({some}) AND vector IS NOT NULL"
            for batch, addresses in scan_rows(self._dataset, ["vector"], filter=condition):
                table = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
                for address, vector in zip(
                    addresses.tolist(), table.reshape(batch.num_rows, -1), strict=True
                ):
                    found |= dict.fromkeys(rows[address], vector)
        return found


def text_vectors(
    spec: EmbedderSpec, at: Address, version: int | None, max_tokens: int | None, run: str
) -> TextVectors:
    """Returns where the vectors of a run come from, in this process.

    Args:
        spec: The embedder.
        at: The dataset.
        version: The version of it to look into; None where there is no dataset.
        max_tokens: So many tokens may be embedded.
        run: Tells the run from others: another one may find another dataset in the same place.

    Raises:
        EmbedderError: the embedder cannot be used.
        DatasetError: the dataset cannot be opened.
    """
    embedder = spec.load()
    identity = embedder.identity.to_json()
    options = tuple(sorted((at.storage_options or {}).items()))
    stored = None if version is None else _stored(at.uri, version, identity, options, run)
    pays = getattr(embedder, "pays_to_cache", True)
    cache = _cache(at.uri, identity, options, run) if pays else None
    return TextVectors(embedder, stored, cache, max_tokens)


_Options: TypeAlias = tuple[tuple[str, str], ...]


@lru_cache(maxsize=2)
def _stored(
    uri: str, version: int, identity: str, options: _Options, run: str
) -> StoredVectors | None:
    """Returns the vectors of a version, whose keys are read once a process."""
    dataset = open_dataset(Address(uri, dict(options)), version)
    fingerprint = EmbedderIdentity.from_json(identity).fingerprint
    return None if dataset is None else StoredVectors(dataset, fingerprint)


@lru_cache(maxsize=2)
def _cache(uri: str, identity: str, options: _Options, run: str) -> VectorCache:
    """Returns the cache beside a dataset, one for all threads of a process."""
    return VectorCache(uri, EmbedderIdentity.from_json(identity), dict(options))
