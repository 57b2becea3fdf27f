"""`onnx:FOLDER`: any sentence-transformers model that was exported to ONNX, without torch.

A vector should depend on its text alone. Padding a batch changes the last bits of its vectors, and
a model that is quantised as it runs gives visibly other ones; so the latter gets one text at a
time, and the others share a batch only where they are short.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.embedders import (
    EmbedderError,
    EmbedderIdentity,
    EmbeddingError,
    Kind,
    Vectors,
)
from contextframe_beam.frames.fingerprint import fingerprint
from contextframe_beam.lazy import missing_extra
from contextframe_beam.transforms.embedders.batching import BaseEmbedder, Piece, normalised
from contextframe_beam.transforms.embedders.model_folder import read_folder
from contextframe_beam.transforms.embedders.tokens import TokenCounter

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["OnnxEmbedder"]

# Tokens of a batch, fillers included: more gain nothing on a processor.
_BATCH_TOKENS = 512
_WHOLE = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
# The operation of a network whose numbers are rounded by what is in the batch.
_DYNAMIC = b"DynamicQuantizeLinear"
_WARNINGS_OFF = 3


class OnnxEmbedder(BaseEmbedder):
    """A model in a folder of this machine.

    Args:
        model: The folder; `model_folder` says what is in it.
        workers: How many processes of this machine embed: each gets its part of the processors.
        threads: How many processors this one uses; by default its part.

    Raises:
        ConfigError: the folder holds no model that runs here, or onnxruntime is not installed.
    """

    def __init__(
        self, model: str | None = None, *, workers: int = 1, threads: int | None = None
    ) -> None:
        if not model:
            raise ConfigError("say which folder holds the model: onnx:FOLDER")
        self._folder = read_folder(model)
        self._tokens = TokenCounter(self._folder.tokenizer, f"onnx:{model}", "embed-onnx")
        self._session = _session(self._folder.model, threads or _share(workers), model)
        self._inputs = {one.name: _WHOLE.get(one.type) for one in self._session.get_inputs()}
        self._check_inputs(model)
        self._output, self._is_pooled = self._chosen_output(model)
        self._at_once = 1 if self._folder.mentions(_DYNAMIC) else _BATCH_TOKENS
        # Runs share the processors, so two at once would only take twice the memory.
        self._lock = threading.Lock()
        folder = self._folder
        parts = (
            "onnx",
            1,
            *(folder.pooling, folder.normalise, folder.metric, folder.lower),
            *(folder.query_prefix, folder.passage_prefix),
        )
        dim = self._run([self._ids("", "")]).shape[1]
        self._identity = EmbedderIdentity(
            "onnx",
            model,
            dim,
            folder.metric,
            folder.normalise,
            fingerprint(*parts, files=folder.files),
        )

    @property
    def max_tokens(self) -> int | None:
        """The longest text that the model reads, in its own tokens."""
        return self._folder.max_tokens

    def count(self, texts: Sequence[str]) -> list[int]:
        """Returns how many tokens each text has as a passage, those around it included."""
        return [len(self._ids(self._folder.passage_prefix, text)) for text in texts]

    def pieces(self, texts: Sequence[str], kind: Kind) -> Iterator[Piece]:
        """Yields the vectors of texts in batches; a text that is too long has none."""
        prefix = self._folder.query_prefix if kind == "query" else self._folder.passage_prefix
        batch: list[tuple[int, list[int]]] = []
        longest = 0
        for place, text in enumerate(texts):
            ids = self._ids(prefix, text)
            if len(ids) > self._folder.max_tokens:
                yield self._too_long(place, len(ids))
                continue
            if batch and max(longest, len(ids)) * (len(batch) + 1) > self._at_once:
                yield self._piece(batch)
                batch, longest = [], 0
            batch.append((place, ids))
            longest = max(longest, len(ids))
        if batch:
            yield self._piece(batch)

    def _ids(self, prefix: str, text: str) -> list[int]:
        whole = prefix + text
        return self._tokens.encoded(whole.lower() if self._folder.lower else whole).ids

    def _piece(self, batch: Sequence[tuple[int, list[int]]]) -> Piece:
        vectors = self._run([ids for _, ids in batch])
        if self._folder.normalise:
            vectors = normalised(vectors)
        return Piece(
            [place for place, _ in batch], vectors, tokens=sum(len(ids) for _, ids in batch)
        )

    def _too_long(self, place: int, count: int) -> Piece:
        error = EmbeddingError(
            f"the text has {count:,} tokens, and {self.identity.spec} reads {self.max_tokens:,}; "
            "cut it into smaller chunks"
        )
        return Piece([place], np.zeros((1, self.dim), np.float32), {place: error}, count)

    def _run(self, texts: Sequence[Sequence[int]]) -> Vectors:
        """Returns the pooled vectors of texts that are given by their tokens."""
        longest = max(1, max(map(len, texts)))
        ids = np.full((len(texts), longest), self._tokens.filler, np.int64)
        mask = np.zeros((len(texts), longest), np.int64)
        for row, tokens in enumerate(texts):
            ids[row, : len(tokens)] = tokens
            mask[row, : max(1, len(tokens))] = 1
        given = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(ids),
            "position_ids": np.broadcast_to(np.arange(longest), ids.shape),
        }
        feed = {
            name: np.ascontiguousarray(given[name], dtype) for name, dtype in self._inputs.items()
        }
        try:
            with self._lock:
                found = np.asarray(self._session.run([self._output], feed)[0], np.float32)
        except Exception as error:  # onnxruntime raises many kinds, without a common base
            raise EmbedderError(
                f"the model {self._folder.model} does not run: {error}; export it again"
            ) from error
        return found if self._is_pooled else _pooled(found, mask, self._folder.pooling)

    def _check_inputs(self, model: str) -> None:
        known = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
        wrong = [one for one, kind in self._inputs.items() if one not in known or kind is None]
        if wrong or "input_ids" not in self._inputs:
            raise ConfigError(
                f"onnx:{model} takes {', '.join(self._inputs)}; a text model takes "
                f"{', '.join(known)}, as whole numbers"
            )

    def _chosen_output(self, model: str) -> tuple[str, bool]:
        """Returns the output that holds the vectors, and whether they are those of whole texts."""
        outputs = {one.name: len(one.shape or ()) for one in self._session.get_outputs()}
        for name in ("sentence_embedding", "last_hidden_state", "token_embeddings"):
            if name in outputs:
                return name, outputs[name] == 2
        for wanted in (3, 2):
            for name, dimensions in outputs.items():
                if dimensions == wanted:
                    return name, wanted == 2
        raise ConfigError(
            f"onnx:{model} gives {', '.join(outputs)}, none of them a vector for each token or text"
        )


def _session(path: os.PathLike[str], threads: int, model: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_extra("the embedder onnx", "embed-onnx", error) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _WARNINGS_OFF
    # Threads that wait would keep their processors busy, which others need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            os.fspath(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # many kinds, without a common base
        raise ConfigError(f"onnx:{model}: {path} is no model that runs here: {error}") from error


def _share(workers: int) -> int:
    """Returns how many processors a worker has for itself."""
    if workers < 1:
        raise ConfigError(f"workers is at least 1, not {workers}")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (usable or 1) // workers)


def _pooled(tokens: Vectors, mask: NDArray[np.int64], pooling: str) -> Vectors:
    """Returns the vector of each text, made of those of its tokens."""
    if pooling == "cls":
        first: Vectors = tokens[:, 0]
        return first
    if pooling == "lasttoken":
        last: Vectors = tokens[np.arange(len(tokens)), mask.sum(axis=1) - 1]
        return last
    weights = mask[..., np.newaxis].astype(np.float32)
    if pooling == "max":
        highest: Vectors = np.where(weights > 0, tokens, -np.inf).max(axis=1).astype(np.float32)
        return highest
    mean: Vectors = (tokens * weights).sum(axis=1) / weights.sum(axis=1)
    return mean
