"""Chunkers: from a document to the pieces that are found and embedded by themselves.

Names are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from contextframe_beam.lazy import lazy_names

if TYPE_CHECKING:
    from contextframe_beam.transforms.chunkers.counting import (
        ChunkError,
        PlainCounter,
        TokenCounter,
    )
    from contextframe_beam.transforms.chunkers.markdown import MarkdownChunker
    from contextframe_beam.transforms.chunkers.registry import (
        Chunker,
        chunker_identity,
        chunker_names,
        load_chunker,
    )

__all__ = [
    "ChunkError",
    "Chunker",
    "MarkdownChunker",
    "PlainCounter",
    "TokenCounter",
    "chunker_identity",
    "chunker_names",
    "load_chunker",
]

_HOMES = {
    "counting": ["ChunkError", "PlainCounter", "TokenCounter"],
    "markdown": ["MarkdownChunker"],
    "registry": ["Chunker", "chunker_identity", "chunker_names", "load_chunker"],
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
