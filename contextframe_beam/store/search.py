"""Search: by words, by meaning, or by both, for passages or for the documents that hold them.

A dataset may hold documents, chunks of documents, or both. What is ranked is a passage: a chunk, or
a document none of whose chunks is a candidate, so that nothing counts twice. Ranking reads keys and
scores only; the records of the best are read afterwards, by where they are.

Two rankings are joined by reciprocal rank fusion: Cormack, Clarke and Buettcher, "Reciprocal rank
fusion outperforms Condorcet and individual rank learning methods", SIGIR 2009.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import pyarrow as pa
from lance import LanceDataset
from lance.query import FullTextQuery

from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.embedders import (
    Embedder,
    Vectors,
    load_embedder,
)
from contextframe_beam.frames.encode import decode_rows
from contextframe_beam.frames.record import FrameRecord
from contextframe_beam.frames.schema import embed_dim_of
from contextframe_beam.frames.text_record import TextRecord
from contextframe_beam.store.filters import Where, check_limit, understood
from contextframe_beam.store.rows import any_row, rows_with_parts
from contextframe_beam.store.state import read_embedder, read_texts
from contextframe_beam.store.text_index import (
    loose_query_of,
    query_of,
    text_index,
    unknown_words,
    words_of,
)
from contextframe_beam.store.vector_index import has_vectors, nearest_rows, similarity

__all__ = ["Hit", "Question", "metric_of", "nearest", "query_vector", "search"]

# Of the paper: how little the first places of a ranking count more than those that follow.
_RRF_K = 60

# So many times the wanted passages are ranked, where rankings are joined or passages left out; and
# so many at least, so that the first few are the same however many are wanted.
_DEPTH = 4
_DEPTH_AT_LEAST = 40

# How vectors are compared whose embedder is not recorded, as Lance does by default.
_UNKNOWN_METRIC = "l2"

_PARENT = "x_parent"


class Hit(FrameRecord):
    """A record that was found, with its `score` and the chunks around it.

    Attributes:
        before: The chunks of the same document before it, in order, up to the requested number.
        after: The chunks after it.
    """

    __slots__ = ("after", "before")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.before: list[FrameRecord] = []
        self.after: list[FrameRecord] = []

    @classmethod
    def of(cls, record: FrameRecord, score: float) -> Hit:
        """Makes a hit of a record."""
        hit = cls()
        for name in FrameRecord.__slots__:
            setattr(hit, name, getattr(record, name))
        hit.score = score
        return hit

    @property
    def passage(self) -> str:
        """The text of the chunks before it, of itself and of the chunks after it."""
        texts = (one.text_content for one in (*self.before, self, *self.after))
        return "\n\n".join(text for text in texts if text)


@dataclass(frozen=True)
class Question:
    """What is looked for.

    Attributes:
        text: Words, or a question.
        limit: The most hits to return.
        where: The filter that the user gave, for messages.
        by_words: Whether passages that hold the words are found.
        by_meaning: Whether those are found whose vectors are near that of the text.
        each_document: Whether of each document the best passage only is returned.
        around: How many chunks before and after each hit are returned with it.
        vector: That of the text, where it is known.
        embedder: Makes the vector of the text, or the name of what does; None for the one that is
            recorded with the dataset.
        settings: What the embedder takes, such as `url` and `key`.
    """

    text: str
    limit: int = 10
    where: Where = None
    by_words: bool = True
    by_meaning: bool = False
    each_document: bool = False
    around: int = 0
    vector: Vectors | None = None
    embedder: Embedder | str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.text.strip() and (self.by_words or self.vector is None):
            raise ConfigError("the search text is empty; give at least one word")
        check_limit(self.limit)
        _check_around(self.around)


def search(
    dataset: LanceDataset, question: Question, condition: str | None, readable: str = ""
) -> list[Hit]:
    """Finds the passages that answer a question best, best first, each with its score.

    Args:
        dataset: What to search.
        question: What is looked for.
        condition: SQL that rows fulfil.
        readable: The part of it that says who asks; the rows around hits fulfil it too.

    Raises:
        ConfigError: the search cannot be understood, or needs an embedder that is not known.
        EmbedderError: the embedder cannot be used.
        EmbeddingError: it cannot take this text.
    """
    # Only Unicode text is a word.
    text = question.text.encode(errors="replace").decode()
    candidates = _Candidates(dataset, condition, question.where, readable)
    rankings: list[_Ranking] = []
    if question.by_words:
        rankings.append(candidates.by_words(text))
    if question.by_meaning:
        vector = question.vector
        if vector is None:
            vector = query_vector(dataset, text, question.embedder, **question.settings)
        rankings.append(candidates.by_meaning(vector, metric_of(dataset)))
    matches = candidates.best(rankings, question.limit, question.each_document)
    return candidates.hits(matches, question.around)


def metric_of(dataset: LanceDataset) -> str:
    """Returns how the vectors of a dataset are compared: cosine, dot or l2."""
    known = read_embedder(dataset)
    return _UNKNOWN_METRIC if known is None else known.metric


def query_vector(
    dataset: LanceDataset, text: str, embedder: Embedder | str | None = None, **settings: Any
) -> Vectors:
    """Returns the vector of a question, made as the vectors of the dataset were.

    Args:
        dataset: What is searched.
        text: The question.
        embedder: The embedder or its name, where it is not found by the recorded one, such as a
            folder that moved, and for a dataset that records none.
        **settings: What the embedder takes, such as `url` and `key`; None is left out.

    Raises:
        ConfigError: there are no vectors, no embedder is known, or another one is given than made
            the vectors.
        EmbedderError: it cannot be used.
        EmbeddingError: it cannot take this text.
    """
    texts = read_texts(dataset)
    known = texts.embedder
    if known is None and not has_vectors(dataset):
        raise ConfigError(
            f"{dataset.uri} holds no vectors, so nothing is found by meaning; search by words, or "
            "embed its documents first"
        )
    found = _embedder(dataset, texts, embedder, settings)
    if known is not None and found.identity.fingerprint != known.fingerprint:
        raise ConfigError(
            f"the vectors of {dataset.uri} are of {known}, and the question would be embedded by "
            f"{found.identity}; vectors of two embedders cannot be compared. Give the one that "
            "made them, or embed the dataset again"
        )
    if found.dim != embed_dim_of(dataset.schema):
        raise ConfigError(
            f"the vectors of {dataset.uri} have {embed_dim_of(dataset.schema)} dimensions, and "
            f"those of {found.identity.spec} have {found.dim}; give the embedder that made them"
        )
    vector: Vectors = found.embed([text], "query")[0]
    return vector


def _embedder(
    dataset: LanceDataset,
    texts: TextRecord,
    given: Embedder | str | None,
    settings: dict[str, Any],
) -> Embedder:
    if isinstance(given, Embedder):
        return given
    if given is not None and not isinstance(given, str):
        raise ConfigError(
            f"the embedder is {type(given).__name__}, which has no identity; make one of it with "
            "transforms.embedders.as_embedder"
        )
    chosen = texts.embedder_of(str(dataset.uri), given, settings)
    if chosen is None:
        raise ConfigError(
            f"{dataset.uri} does not say which embedder made its vectors; name it, as in wordllama"
        )
    name, told = chosen
    known = texts.embedder
    # A service is not asked then how long its vectors are.
    dim = known.dim if known is not None and known.spec == name else None
    return load_embedder(name, dim=dim, **told)


def nearest(
    dataset: LanceDataset,
    vector: Vectors,
    limit: int,
    condition: str | None,
    where: Where,
    readable: str = "",
) -> list[Hit]:
    """Finds the passages whose vectors are nearest; their score is the distance.

    Args:
        dataset: What to search.
        vector: A vector.
        limit: The most hits to return.
        condition: SQL that rows fulfil.
        where: The filter that the user gave.
        readable: As in `search`.

    Raises:
        ConfigError: the filter cannot be used.
    """
    check_limit(limit)
    candidates = _Candidates(dataset, condition, where, readable)
    ranking = candidates.by_meaning(vector, metric_of(dataset), distance=True)
    return candidates.hits(candidates.best([ranking], limit))


@dataclass(frozen=True)
class _Match:
    """A row that was found: its key, that of the document it is a chunk of, where it is."""

    key: str
    parent: str | None
    address: int
    score: float

    @property
    def document(self) -> str:
        return self.parent or self.key


#: Returns so many of the best rows, best first.
_Ranking: TypeAlias = Callable[[int], list[_Match]]


class _Candidates:
    """The rows of one version that a search may find.

    Args:
        dataset: The version.
        condition: SQL that the rows fulfil.
        where: The part of it that the user gave, for messages.
        readable: The part of it that says who asks.
    """

    def __init__(
        self, dataset: LanceDataset, condition: str | None, where: Where, readable: str
    ) -> None:
        self._dataset = dataset
        self._condition = condition
        self._where = where
        self._readable = readable
        names = dataset.schema.names
        self._columns = ["uuid", *([_PARENT] if _PARENT in names else [])]
        self._has_chunks = _PARENT in names and any_row(dataset, f"{_PARENT} IS NOT NULL")
        self._is_cut: dict[str, bool] = {}

    def by_words(self, text: str) -> _Ranking:
        """Ranks what holds words of a text (BM25).

        Where nothing holds any of them, those rows come in which one stands within a longer word,
        as `control` in `uncontrolled`; their score is 0.
        """
        dataset = self._dataset
        if text_index(dataset) is None and not any_row(dataset, "text_content IS NOT NULL"):
            return lambda count: []

        def ranked(count: int) -> list[_Match]:
            found = self._holding(query_of(dataset, text), count)
            unasked = unknown_words(dataset, text) if found else words_of(text)
            if unasked and len(found) < count:
                keys = {match.key for match in found}
                table = self._understood(
                    lambda: rows_with_parts(dataset, unasked, self._condition, count, self._columns)
                )
                more = self._matches(table, lambda row: 0.0)
                found += [match for match in more if match.key not in keys][: count - len(found)]
            return found or self._holding(loose_query_of(dataset, text), count)

        return ranked

    def by_meaning(self, vector: Vectors, metric: str, distance: bool = False) -> _Ranking:
        """Ranks what has a vector near to one.

        Args:
            vector: The vector of a question.
            metric: How vectors are compared.
            distance: Whether the score is the distance; otherwise it grows with the similarity.
        """

        def ranked(count: int) -> list[_Match]:
            table = self._understood(
                lambda: nearest_rows(
                    self._dataset,
                    vector,
                    count,
                    metric=metric,
                    columns=self._columns,
                    condition=self._condition,
                    filtered=bool(self._where or self._readable),
                )
            )
            score = float if distance else lambda value: similarity(value, metric)
            return self._matches(table.sort_by("_distance"), lambda row: score(row["_distance"]))

        return ranked

    def best(
        self, rankings: Sequence[_Ranking], limit: int, each_document: bool = False
    ) -> list[_Match]:
        """Returns the best passages of one ranking, or of several joined.

        Args:
            rankings: How rows are ranked.
            limit: The most to return.
            each_document: Whether to return the best passage only of each document.
        """
        is_joined = len(rankings) > 1
        depth = limit * (2 if self._has_chunks else 1)
        if is_joined or each_document:
            depth = max(limit * _DEPTH, _DEPTH_AT_LEAST)
        while True:
            ranked = [ranking(depth) for ranking in rankings]
            passages = [self._passages(matches) for matches in ranked]
            found = _joined(passages) if is_joined else passages[0]
            if each_document:
                found = _first_of_each_document(found)
            if len(found) >= limit or all(len(matches) < depth for matches in ranked):
                return found[:limit]
            depth *= _DEPTH

    def hits(self, matches: Sequence[_Match], around: int = 0) -> list[Hit]:
        """Reads the records of matches, in order, with the chunks around them."""
        if not matches:
            return []
        addresses = ", ".join(str(match.address) for match in matches)
        records = {
            row["_rowaddr"]: (record, row["position"])
            for record, row in self._records(f"_rowaddr IN ({addresses})", ["position"])
        }
        hits = [Hit.of(records[match.address][0], match.score) for match in matches]
        if around:
            places = [records[match.address][1] for match in matches]
            self._add_neighbours(matches, hits, places, around)
        return hits

    def _add_neighbours(
        self,
        matches: Sequence[_Match],
        hits: Sequence[Hit],
        places: Sequence[int | None],
        around: int,
    ) -> None:
        wanted = [
            f"({_PARENT} = {_bytes_literal(match.parent)} AND position "
            f"BETWEEN {place - around} AND {place + around})"
            for match, place in zip(matches, places, strict=True)
            if match.parent is not None and place is not None
        ]
        if not wanted:
            return
        chunks: dict[str, list[tuple[int, FrameRecord]]] = defaultdict(list)
        around_them = _both(self._readable, f"({' OR '.join(wanted)})")
        for record, row in self._records(around_them, [_PARENT, "position"]):
            chunks[_uuid_text(row[_PARENT])].append((row["position"], record))
        for match, hit, place in zip(matches, hits, places, strict=True):
            if match.parent is None or place is None:
                continue
            for position, record in sorted(chunks[match.parent], key=lambda one: one[0]):
                if place - around <= position < place:
                    hit.before.append(record)
                elif place < position <= place + around:
                    hit.after.append(record)

    def _holding(self, query: FullTextQuery | None, count: int) -> list[_Match]:
        if query is None:
            return []
        table = self._understood(
            lambda: self._dataset.scanner(
                columns=[*self._columns, "_score"],
                filter=self._condition,
                prefilter=True,
                full_text_query=query,
                limit=count,
                with_row_address=True,
            ).to_table()
        )
        order = [("_score", "descending"), ("uuid", "ascending")]
        return self._matches(table.sort_by(order), lambda row: row["_score"])

    def _understood(self, scan: Callable[[], pa.Table]) -> pa.Table:
        with understood(self._dataset, self._where):
            return scan()

    def _matches(self, table: pa.Table, score: Callable[[dict[str, Any]], float]) -> list[_Match]:
        matches = []
        for row in table.to_pylist():
            parent = row.get(_PARENT)
            parent = None if parent is None else _uuid_text(parent)
            matches.append(_Match(row["uuid"], parent, row["_rowaddr"], score(row)))
        return matches

    def _passages(self, matches: list[_Match]) -> list[_Match]:
        """Leaves out documents that are cut into chunks which may be found themselves."""
        if not self._has_chunks:
            return matches
        whole = [match.key for match in matches if match.parent is None]
        unknown = [key for key in whole if key not in self._is_cut]
        if unknown:
            literals = ", ".join(map(_bytes_literal, unknown))
            of_them = f"{_PARENT} IN ({literals})"
            table = self._dataset.scanner(
                columns=[_PARENT], filter=_both(self._condition, of_them)
            ).to_table()
            cut = {_uuid_text(parent) for parent in table[_PARENT].unique().to_pylist()}
            self._is_cut.update((key, key in cut) for key in unknown)
        return [one for one in matches if one.parent or not self._is_cut[one.key]]

    def _records(
        self, condition: str, columns: Sequence[str]
    ) -> Iterator[tuple[FrameRecord, dict[str, Any]]]:
        """Reads rows as records, with some of their columns and `_rowaddr`."""
        scanner = self._dataset.scanner(
            filter=condition, with_row_address=True, blob_handling="all_binary"
        )
        for batch in scanner.to_batches():
            rows = batch.select([*columns, "_rowaddr"]).to_pylist()
            yield from zip(decode_rows(batch), rows, strict=True)


def _joined(rankings: Iterable[Sequence[_Match]]) -> list[_Match]:
    """Joins rankings; the score of a passage is the sum of 1 / (60 + its place) over them."""
    scores: dict[str, float] = defaultdict(float)
    found: dict[str, _Match] = {}
    for ranking in rankings:
        for place, match in enumerate(ranking, 1):
            scores[match.key] += 1 / (_RRF_K + place)
            found.setdefault(match.key, match)
    ordered = sorted(found.values(), key=lambda match: (-scores[match.key], match.key))
    return [replace(match, score=scores[match.key]) for match in ordered]


def _first_of_each_document(matches: Iterable[_Match]) -> list[_Match]:
    first: dict[str, _Match] = {}
    for match in matches:
        first.setdefault(match.document, match)
    return list(first.values())


def _both(condition: str | None, other: str) -> str:
    return f"{condition} AND {other}" if condition else other


def _bytes_literal(key: str | None) -> str:
    """Returns the bytes of a uuid as SQL."""
    return f"X'{uuid.UUID(key).hex}'"


def _uuid_text(key: bytes) -> str:
    return str(uuid.UUID(bytes=key))


def _check_around(around: int) -> None:
    if not isinstance(around, int) or around < 0:
        raise ConfigError(f"context is {around!r}; expected how many chunks, from 0 on")
