"""From texts to vectors in order: equal texts once, short ones together, cached ones for nothing.

An embedder of ours gives its vectors in pieces, as they are done, so that a run that dies keeps
those that it has paid for; any other embedder is called for some texts at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
import xxhash

from contextframe_beam.errors import DatasetError
from contextframe_beam.frames.embedders import (
    Embedder,
    EmbedderError,
    EmbedderIdentity,
    EmbeddingError,
    Kind,
    Vectors,
)

# How many texts an embedder without batches of its own gets at once.
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Usage:
    """What embedding took; sums are made with `+`.

    Attributes:
        texts: Texts that the embedder was given.
        reused: Texts whose vectors came from the cache.
        tokens: Tokens of those that the embedder was given, as it or its service counts them.
        requests: Requests to a service, repeated ones included.
    """

    texts: int = 0
    reused: int = 0
    tokens: int = 0
    requests: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.texts + other.texts,
            self.reused + other.reused,
            self.tokens + other.tokens,
            self.requests + other.requests,
        )


@dataclass(frozen=True)
class Embedded:
    """The vectors of some texts.

    Attributes:
        vectors: One for each text, in order: float32, of the shape (n, dim); zeros for a text that
            has none.
        errors: The texts that cannot be embedded, by position, with the reason.
        usage: What it took.
    """

    vectors: Vectors
    errors: dict[int, EmbeddingError] = field(default_factory=dict)
    usage: Usage = Usage()

    def whole(self) -> Vectors:
        """Returns the vectors.

        Raises:
            EmbeddingError: one of the texts has none.
        """
        for error in self.errors.values():
            raise error
        return self.vectors


@dataclass(frozen=True)
class Piece:
    """The vectors of some of the texts that an embedder was given.

    Attributes:
        positions: Which texts.
        vectors: Theirs.
        errors: Texts that cannot be embedded, by position.
        tokens: What the texts of this piece have.
        requests: What it took.
    """

    positions: Sequence[int]
    vectors: Vectors
    errors: dict[int, EmbeddingError] = field(default_factory=dict)
    tokens: int = 0
    requests: int = 0


@runtime_checkable
class InPieces(Protocol):
    """An embedder that makes its own batches."""

    def pieces(self, texts: Sequence[str], kind: Kind) -> Iterator[Piece]:
        """Yields the vectors of texts, each of them once, in any order.

        Args:
            texts: Different texts with something in them, sorted by length.
            kind: What they are.
        """


class Cache(Protocol):
    """Vectors by text, as `VectorCache` keeps them."""

    def get(self, keys: Sequence[bytes]) -> dict[int, Vectors]:
        """Returns the vectors that there are, by the position of their key."""

    def put(self, keys: Sequence[bytes], vectors: Vectors) -> None:
        """Keeps vectors."""

    def flush(self) -> None:
        """Writes what it holds back."""


class BaseEmbedder:
    """What our embedders share: `embed` is made of `pieces`.

    Attributes:
        pays_to_cache: Whether a vector costs more to make than to write down and read again.
    """

    pays_to_cache = True
    _identity: EmbedderIdentity

    @property
    def identity(self) -> EmbedderIdentity:
        """What makes its vectors comparable with others."""
        return self._identity

    @property
    def dim(self) -> int:
        """How many numbers a vector has."""
        return self.identity.dim

    @property
    def max_tokens(self) -> int | None:
        """The longest text that it reads, in its own tokens; None for any length."""
        return None

    def embed(self, texts: Sequence[str], kind: Kind = "passage") -> Vectors:
        """Returns a vector for each text, in order.

        Raises:
            EmbeddingError: a text that cannot be embedded.
            EmbedderError: none can be.
        """
        return embed_texts(self, texts, kind).whole()

    def count(self, texts: Sequence[str]) -> list[int]:
        """Returns the length of each text, in the embedder's own tokens."""
        raise NotImplementedError

    def pieces(self, texts: Sequence[str], kind: Kind) -> Iterator[Piece]:
        """Yields the vectors of texts in batches; see `InPieces`."""
        raise NotImplementedError


def embed_texts(
    embedder: Embedder, texts: Sequence[str], kind: Kind = "passage", cache: Cache | None = None
) -> Embedded:
    """Embeds texts: equal ones once, sorted by length, those in the cache not at all.

    Args:
        embedder: The embedder.
        texts: The texts.
        kind: Whether they are pieces of documents or questions; only the former are cached.
        cache: Vectors that are there already; new ones are added to it as they come.

    Returns:
        The vectors in order, the texts that have none, and what it took.

    Raises:
        EmbedderError: the embedder cannot be used, or its vectors cannot be right.
    """
    dim = embedder.dim
    places: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        places.setdefault(text, []).append(place)
    wanted = sorted(places, key=lambda text: (len(text), text))
    vectors = np.zeros((len(texts), dim), np.float32)
    errors: dict[int, EmbeddingError] = {}
    usage = Usage()

    def refuse(text: str, error: EmbeddingError) -> None:
        for place in places[text]:
            errors[place] = error

    for text in wanted:
        if not text.strip():
            refuse(text, EmbeddingError("the text is empty, so it has no vector"))
    wanted = [text for text in wanted if text.strip()]
    used = cache if kind == "passage" else None
    keys: list[bytes] = []
    if used is not None and wanted:
        keys = [text_key(text) for text in wanted]
        found = used.get(keys)
        for number, vector in found.items():
            vectors[places[wanted[number]]] = vector
        left = [number for number in range(len(wanted)) if number not in found]
        keys = [keys[number] for number in left]
        wanted = [wanted[number] for number in left]
        usage = Usage(reused=len(found))
    if not wanted:
        return Embedded(vectors, errors, usage)
    try:
        for piece in _pieces(embedder, wanted, kind):
            piece = _judged(piece, dim, embedder)
            good = [place for place in piece.positions if place not in piece.errors]
            rows = piece.vectors
            if piece.errors:
                rows = rows[[place not in piece.errors for place in piece.positions]]
            if used is not None and good:
                used.put([keys[place] for place in good], rows)
            for place, row in zip(good, rows, strict=True):
                vectors[places[wanted[place]]] = row
            for place, error in piece.errors.items():
                refuse(wanted[place], error)
            usage += Usage(len(piece.positions), 0, piece.tokens, piece.requests)
    except BaseException:
        if used is not None:  # what came before is paid for
            with contextlib.suppress(DatasetError):  # the first error is the one to tell
                used.flush()
        raise
    return Embedded(vectors, dict(sorted(errors.items())), usage)


def text_key(text: str) -> bytes:
    """Returns the 16 bytes by which the vector of a text is kept: XXH3-128 of its UTF-8."""
    return xxhash.xxh3_128_digest(text.encode("utf-8", "surrogatepass"))


def normalised(vectors: Vectors) -> Vectors:
    """Returns vectors of length 1; one that is zero or not finite stays as it is."""
    # In 64 bits, or the squares of very large and very small numbers are lost.
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    lengths[~(lengths > 0) | ~np.isfinite(lengths)] = 1
    scaled: Vectors = (vectors / lengths).astype(np.float32, copy=False)
    return scaled


def _pieces(embedder: Embedder, texts: Sequence[str], kind: Kind) -> Iterator[Piece]:
    if isinstance(embedder, InPieces):
        yield from embedder.pieces(texts, kind)
        return
    for start in range(0, len(texts), _AT_ONCE):
        batch = list(texts[start : start + _AT_ONCE])
        positions = range(start, start + len(batch))
        tokens = sum(embedder.count(batch))
        try:
            vectors = embedder.embed(batch, kind)
        except EmbeddingError:
            # It does not say which text it means, so each is asked for by itself.
            yield from _one_by_one(embedder, batch, start, kind)
        else:
            yield Piece(positions, _rows(vectors, len(batch), embedder), tokens=tokens)


def _one_by_one(
    embedder: Embedder, texts: Sequence[str], start: int, kind: Kind
) -> Iterator[Piece]:
    for place, text in enumerate(texts, start):
        tokens = sum(embedder.count([text]))
        try:
            vectors = _rows(embedder.embed([text], kind), 1, embedder)
        except EmbeddingError as error:
            nothing = np.zeros((1, embedder.dim), np.float32)
            yield Piece([place], nothing, {place: error}, tokens)
        else:
            yield Piece([place], vectors, tokens=tokens)


def _rows(vectors: object, count: int, embedder: Embedder) -> Vectors:
    """Returns what an embedder gave as rows of float32."""
    try:
        rows = np.asarray(vectors, np.float32)
    except (TypeError, ValueError) as error:
        raise EmbedderError(f"{embedder.identity.spec} gave no rows of numbers: {error}") from error
    if rows.ndim != 2 or len(rows) != count:
        raise EmbedderError(
            f"{embedder.identity.spec} gave an array of the shape {rows.shape} for {count} texts; "
            f"expected ({count}, {embedder.dim})"
        )
    return rows


def _judged(piece: Piece, dim: int, embedder: Embedder) -> Piece:
    """Returns a piece whose vectors are those of a text each, or errors.

    Raises:
        EmbedderError: the vectors have another dimension.
    """
    if piece.vectors.ndim != 2 or piece.vectors.shape[1] != dim:
        raise EmbedderError(
            f"{embedder.identity.spec} gave vectors of {piece.vectors.shape[-1]} dimensions, not "
            f"{dim}; is it another model under the same name?"
        )
    finite = np.atleast_1d(np.isfinite(piece.vectors).all(axis=1))
    full = np.atleast_1d(piece.vectors.any(axis=1))
    if finite.all() and full.all():
        return piece
    errors = dict(piece.errors)
    for place, is_finite, is_full in zip(piece.positions, finite, full, strict=True):
        if not (is_finite and is_full):
            wrong = "is zero" if is_finite else "has numbers that are not finite"
            errors.setdefault(
                place, EmbeddingError(f"the vector that {embedder.identity.spec} gave {wrong}")
            )
    return replace(piece, errors=errors)
