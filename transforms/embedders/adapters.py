"""Embedders of others: a class of one's own, LangChain's `Embeddings`, Beam's `EmbeddingsManager`.

They are taken as they are. What tells their vectors from others is the class, its `version` (or
else its source), the model and the dimension.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from contextframe_beam.errors import ConfigError, ContextFrameError
from contextframe_beam.frames.embedders import (
    Embedder,
    EmbedderError,
    EmbedderIdentity,
    Kind,
    Vectors,
)
from contextframe_beam.frames.fingerprint import code_version, fingerprint
from contextframe_beam.lazy import named
from contextframe_beam.transforms.embedders.batching import normalised
from contextframe_beam.transforms.embedders.tokens import estimated_tokens

__all__ = ["as_embedder", "own_embedder"]

_PROBE = "How many dimensions does a vector have?"


def own_embedder(path: str | None, *, dim: int | None = None, **settings: Any) -> Embedder:
    """Makes the embedder that `package.module:Class` names.

    Args:
        path: A class or function that gives an embedder, or an object that is one.
        dim: How many dimensions its vectors have; a class that does not say it is asked.
        **settings: Its arguments.

    Raises:
        ConfigError: it does not exist, or is not an embedder.
    """
    path = path or ""
    found = named(path, "embedder")
    if isinstance(found, type) or not _is_embedder(found):
        if not callable(found):
            raise ConfigError(_not_one(path, found))
        found = _called(found, path, settings)
    return as_embedder(found, name=str(path), dim=dim)


def _called(make: Callable[..., Any], path: str | None, settings: dict[str, Any]) -> Any:
    try:
        return make(**settings)
    except ContextFrameError:
        raise
    except Exception as error:  # how an author's class refuses its arguments
        raise ConfigError(
            f"the embedder {path} cannot be made ({type(error).__name__}: {error})"
        ) from error


def as_embedder(given: Any, *, name: str | None = None, dim: int | None = None) -> Embedder:
    """Returns an embedder of ours for an object of one of the known kinds.

    Args:
        given: An `Embedder`, an object with `embed(texts)`, an `Embeddings` of LangChain, or an
            `EmbeddingsManager` of Beam.
        name: What it is called; its class by default.
        dim: How many dimensions its vectors have; it is asked by default.

    Raises:
        ConfigError: it is not one of them.
        EmbedderError: it gives no vectors.
    """
    if isinstance(given, Embedder):
        return given
    embed = _way(given)
    if embed is None:
        raise ConfigError(_not_one(name, given))
    return _Adapted(given, embed, name or _path_of(type(given)), dim)


_Embed = Callable[[list[str], Kind], Any]


class _Adapted:
    """An embedder of others.

    Args:
        given: The object.
        embed: How vectors are had of it.
        name: What it is called.
        dim: How many dimensions; None to ask.
    """

    def __init__(self, given: Any, embed: _Embed, name: str, dim: int | None) -> None:
        self._given = given
        self._embed = embed
        # Vectors that are compared have one length; those of others may have any.
        told = getattr(given, "dim", None) if dim is None else dim
        if not isinstance(told, int):
            told = self.embed([_PROBE], "query").shape[1]
        model = _model_of(given)
        self.identity = EmbedderIdentity(
            name, model, told, "cosine", True, fingerprint(name, model, told, _version_of(given))
        )

    @property
    def dim(self) -> int:
        """How many numbers a vector has."""
        return self.identity.dim

    @property
    def max_tokens(self) -> int | None:
        """The longest text that it reads, where the object says so."""
        told = getattr(self._given, "max_tokens", None)
        return told if isinstance(told, int) else None

    def embed(self, texts: Sequence[str], kind: Kind = "passage") -> Vectors:
        """Returns a vector of length 1 for each text, in order.

        Raises:
            EmbedderError: the object did not return vectors.
        """
        given = self._embed(list(texts), kind)
        try:
            rows = np.asarray(given, np.float32)
        except (TypeError, ValueError) as error:
            raise EmbedderError(f"{self._called()} gave no rows of numbers: {error}") from error
        if rows.ndim != 2 or len(rows) != len(texts):
            raise EmbedderError(
                f"{self._called()} gave an array of the shape {rows.shape} for {len(texts)} texts; "
                "expected a row for each"
            )
        return normalised(rows)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Returns the length of each text in tokens: as the object counts, or about that."""
        count = getattr(self._given, "count", None)
        if callable(count):
            return [int(one) for one in count(list(texts))]
        return [estimated_tokens(text) for text in texts]

    def _called(self) -> str:
        return f"the embedder {_path_of(type(self._given))}"


def _is_embedder(given: Any) -> bool:
    return isinstance(given, Embedder) or _way(given) is not None


def _way(given: Any) -> _Embed | None:
    if callable(getattr(given, "embed_documents", None)) and callable(
        getattr(given, "embed_query", None)
    ):
        return lambda texts, kind: (
            given.embed_documents(texts)
            if kind == "passage"
            else [given.embed_query(text) for text in texts]
        )
    if callable(getattr(given, "get_model_handler", None)):
        return _BeamModel(given)
    if callable(getattr(given, "embed", None)):
        if "kind" in inspect.signature(given.embed).parameters:
            return lambda texts, kind: given.embed(texts, kind=kind)
        return lambda texts, kind: given.embed(texts)
    return None


class _BeamModel:
    """The model of an `EmbeddingsManager`, loaded once and used without a pipeline."""

    def __init__(self, manager: Any) -> None:
        self._handler = manager.get_model_handler()
        self._arguments = getattr(manager, "inference_args", None) or None
        self._lock = threading.Lock()
        self._model: Any = None
        self._is_loaded = False

    def __call__(self, texts: list[str], kind: Kind) -> list[Any]:
        with self._lock:
            if not self._is_loaded:
                self._model = self._handler.load_model()
                self._is_loaded = True
        found = self._handler.run_inference(texts, self._model, self._arguments)
        # A handler gives vectors, or predictions that hold them.
        return [getattr(one, "inference", one) for one in found]


def _model_of(given: Any) -> str:
    for name in ("model", "model_name", "model_id"):
        told = getattr(given, name, None)
        if isinstance(told, str):
            return told
    return ""


def _version_of(given: Any) -> str:
    """Returns the version that a class states, or a digest of its source."""
    told = getattr(given, "version", None)
    if isinstance(told, str | int):
        return str(told)
    cls = type(given)
    if _of_a_library(cls):
        return ""  # its model decides the vectors, and an update does not change the model
    return code_version(cls)


def _of_a_library(cls: type) -> bool:
    return cls.__module__.partition(".")[0].startswith(("langchain", "apache_beam"))


def _path_of(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _not_one(name: str | None, given: Any) -> str:
    return (
        f"{name or 'this'} is {type(given).__name__}, which is not an embedder: it needs "
        "embed(texts) that gives a row of numbers for each text, or to be an Embeddings of "
        "LangChain or an EmbeddingsManager of Beam"
    )
