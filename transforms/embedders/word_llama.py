"""`wordllama[:DIM]`: a static model of 16 MB that comes inside its package; no network, no GPU.

A text is the mean of the vectors of its tokens. The weights and the tokenizer are read from the
package's own files: importing the package would set up the logging of the whole program, and its
way to embed pads each batch to its longest text, at three times the processor time.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.embedders import EmbedderIdentity, EmbeddingError, Kind, Vectors
from contextframe_beam.frames.fingerprint import fingerprint
from contextframe_beam.lazy import missing_extra
from contextframe_beam.transforms.embedders.batching import BaseEmbedder, Piece, normalised
from contextframe_beam.transforms.embedders.tokens import TokenCounter

__all__ = ["WordLlamaEmbedder"]

WEIGHTS = "weights/l2_supercat_256.safetensors"
TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"
#: The dimensions for which the model was trained: each begins with the one before.
DIMS = (64, 128, 256)

_AT_ONCE = 256
# Chunks are counted before they are embedded: of so many tokens it is still known what they are.
_MOST_COUNTED = 2 << 20
# Tokens whose vectors are added up at once, so that a long text takes no more memory.
_BLOCK = 4096

TokenIds: TypeAlias = NDArray[np.int32]


class WordLlamaEmbedder(BaseEmbedder):
    """The static model l2_supercat of the package wordllama.

    Args:
        model: How many dimensions, as text: 64, 128 or 256, which is the default.

    Raises:
        ConfigError: another number, or the package is not installed.
    """

    pays_to_cache = False

    def __init__(self, model: str | None = None) -> None:
        if model is not None and model not in map(str, DIMS):
            raise ConfigError(
                f"wordllama:{model} is not an embedder; after the colon, give one of these "
                f"dimensions: {', '.join(map(str, DIMS))}"
            )
        dim = int(model or DIMS[-1])
        try:
            from safetensors import safe_open
        except ImportError as error:
            raise missing_extra("the embedder wordllama", "embed", error) from error
        folder = _folder()
        weights, tokenizer = folder / WEIGHTS, folder / TOKENIZER
        self._tokens = TokenCounter(tokenizer, "wordllama", "embed")
        try:
            with safe_open(weights, framework="np") as file:
                table = file.get_tensor("embedding.weight")[:, :dim]
            digest = fingerprint("wordllama", 1, dim, files=(weights, tokenizer))
        except Exception as error:  # the library raises its own, and those of the system
            raise ConfigError(
                f"the weights of the package wordllama cannot be read at {weights} ({error}); "
                "install wordllama 0.4 again"
            ) from error
        self._table = np.ascontiguousarray(table, dtype=np.float32)
        self._identity = EmbedderIdentity("wordllama", str(dim), dim, "cosine", True, digest)
        self._counted: dict[str, TokenIds] = {}
        self._counted_tokens = 0
        self._lock = threading.Lock()

    def count(self, texts: Sequence[str]) -> list[int]:
        """Returns how many tokens each text has."""
        counts = []
        for text in texts:
            ids = np.asarray(self._tokens.encoded(text, special=False).ids, np.int32)
            counts.append(len(ids))
            with self._lock:
                self._remember(text, ids)
        return counts

    def pieces(self, texts: Sequence[str], kind: Kind) -> Iterator[Piece]:
        """Yields the vectors of texts in batches; a vector depends on its text alone."""
        for start in range(0, len(texts), _AT_ONCE):
            batch = texts[start : start + _AT_ONCE]
            vectors = np.zeros((len(batch), self.dim), np.float32)
            errors: dict[int, EmbeddingError] = {}
            tokens = 0
            for number, text in enumerate(batch):
                ids = self._ids(text)
                tokens += len(ids)
                if len(ids):
                    vectors[number] = self._mean(ids)
                else:
                    errors[start + number] = EmbeddingError("the model knows nothing of the text")
            yield Piece(
                range(start, start + len(batch)), normalised(vectors), errors, tokens=tokens
            )

    def _remember(self, text: str, ids: TokenIds) -> None:
        """Keeps the tokens of a text until it is embedded, or too many others were counted."""
        if text in self._counted:
            return
        self._counted[text] = ids
        self._counted_tokens += len(ids)
        while self._counted_tokens > _MOST_COUNTED:
            oldest = next(iter(self._counted))
            self._counted_tokens -= len(self._counted.pop(oldest))

    def _ids(self, text: str) -> Sequence[int] | TokenIds:
        with self._lock:
            ids = self._counted.pop(text, None)
            if ids is not None:
                self._counted_tokens -= len(ids)
                return ids
        found: list[int] = self._tokens.encoded(text, special=False).ids
        return found

    def _mean(self, ids: Sequence[int] | TokenIds) -> Vectors:
        rows = np.minimum(ids, len(self._table) - 1)
        total = np.zeros(self.dim, np.float32)
        for start in range(0, len(rows), _BLOCK):
            total += self._table[rows[start : start + _BLOCK]].sum(axis=0)
        mean: Vectors = total / np.float32(len(rows))
        return mean


def _folder() -> Path:
    found = importlib.util.find_spec("wordllama")
    if found is None or found.origin is None:
        raise missing_extra("the embedder wordllama", "embed")
    return Path(found.origin).parent
