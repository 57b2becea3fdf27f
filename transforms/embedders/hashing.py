"""`hash:DIM`: vectors without a model, for tests and demos.

Texts that share words get near vectors; meaning plays no part. The same text has the same vector on
every machine, so that what a test finds stays the same.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import xxhash

from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.embedders import EmbedderIdentity, Kind, Vectors
from contextframe_beam.frames.fingerprint import fingerprint
from contextframe_beam.transforms.embedders.batching import BaseEmbedder, Piece, normalised

__all__ = ["HashEmbedder"]

DEFAULT_DIM = 256
_LEAST, _MOST = 2, 65_536
_WORD = re.compile(r"\w+")
_AT_ONCE = 256


class HashEmbedder(BaseEmbedder):
    """Hashes words into a vector of length 1, without meaning: for tests and demos only.

    Each word adds the square root of its count, or takes it away, at a place; its hash says which.
    Source: Weinberger et al., Feature Hashing for Large Scale Multitask Learning (2009).

    Args:
        model: How many dimensions, as text; 256 by default.

    Raises:
        ConfigError: it is not a number from 2 to 65,536.
    """

    pays_to_cache = False

    def __init__(self, model: str | None = None) -> None:
        given = model or str(DEFAULT_DIM)
        dim = int(given) if given.isascii() and given.isdecimal() else 0
        if not _LEAST <= dim <= _MOST:
            raise ConfigError(
                f"hash:{given} is not an embedder; give the number of dimensions after the colon, "
                f"{_LEAST} to {_MOST:,}, as in hash:{DEFAULT_DIM}"
            )
        self._identity = EmbedderIdentity(
            "hash", str(dim), dim, "cosine", True, fingerprint("hash", 1, dim)
        )

    def count(self, texts: Sequence[str]) -> list[int]:
        """Returns how many words each text has."""
        return [len(_words(text)) for text in texts]

    def pieces(self, texts: Sequence[str], kind: Kind) -> Iterator[Piece]:
        """Yields the vectors of texts in batches."""
        for start in range(0, len(texts), _AT_ONCE):
            words = [_words(text) for text in texts[start : start + _AT_ONCE]]
            yield Piece(
                range(start, start + len(words)),
                self._vectors(words),
                tokens=sum(map(len, words)),
            )

    def _vectors(self, texts: Sequence[Sequence[str]]) -> Vectors:
        vectors = np.zeros((len(texts), self.dim), np.float32)
        for vector, words in zip(vectors, texts, strict=True):
            for word, times in Counter(words).items():
                number = xxhash.xxh3_64_intdigest(word.encode("utf-8", "surrogatepass"))
                weight = math.sqrt(times)
                vector[(number >> 1) % self.dim] += weight if number & 1 else -weight
            if not vector.any():  # words that cancel each other
                vector[0] = 1
        return normalised(vectors)


def _words(text: str) -> list[str]:
    """Returns the words of a text; one without words is a word itself."""
    return _WORD.findall(text.casefold()) or [text.strip()]
