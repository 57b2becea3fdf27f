"""Embedders: vectors of texts by a local model or by a service, each text paid for once.

Names are imported when they are first used; so are the libraries of models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from contextframe_beam.lazy import lazy_names

if TYPE_CHECKING:
    from contextframe_beam.transforms.embedders.adapters import as_embedder
    from contextframe_beam.transforms.embedders.batching import Embedded, Usage, embed_texts
    from contextframe_beam.transforms.embedders.hashing import HashEmbedder
    from contextframe_beam.transforms.embedders.onnx_model import OnnxEmbedder
    from contextframe_beam.transforms.embedders.openai import OpenAIEmbedder
    from contextframe_beam.transforms.embedders.vector_cache import VectorCache
    from contextframe_beam.transforms.embedders.vertex import VertexEmbedder
    from contextframe_beam.transforms.embedders.word_llama import WordLlamaEmbedder

__all__ = [
    "Embedded",
    "HashEmbedder",
    "OnnxEmbedder",
    "OpenAIEmbedder",
    "Usage",
    "VectorCache",
    "VertexEmbedder",
    "WordLlamaEmbedder",
    "as_embedder",
    "embed_texts",
]

_HOMES = {
    "batching": ["Embedded", "Usage", "embed_texts"],
    "hashing": ["HashEmbedder"],
    "onnx_model": ["OnnxEmbedder"],
    "openai": ["OpenAIEmbedder"],
    "adapters": ["as_embedder"],
    "vector_cache": ["VectorCache"],
    "vertex": ["VertexEmbedder"],
    "word_llama": ["WordLlamaEmbedder"],
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
