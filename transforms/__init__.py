"""Transforms: from pages of a source to frames, and from frames to a Lance transaction.

Names are imported when they are first used. The threads of a new worker begin with different
modules of this package. If the package imported them all, each thread would wait for the other, and
Python would end that with an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from contextframe_beam.lazy import lazy_names

if TYPE_CHECKING:
    from contextframe_beam.store.state import CommitReceipt
    from contextframe_beam.transforms.elements import FrameBatch, RowBatch
    from contextframe_beam.transforms.enrich import Enrich, Enricher, KeywordEnricher
    from contextframe_beam.transforms.letters import DeadLetterReport, WriteDeadLetters
    from contextframe_beam.transforms.map import MapToFrames, ToRecords
    from contextframe_beam.transforms.rag import (
        LanceSearchHandler,
        LanceVectorWriterConfig,
        ReadItems,
    )
    from contextframe_beam.transforms.write import WriteToLance

__all__ = [
    "CommitReceipt",
    "DeadLetterReport",
    "Enrich",
    "Enricher",
    "FrameBatch",
    "KeywordEnricher",
    "LanceSearchHandler",
    "LanceVectorWriterConfig",
    "MapToFrames",
    "ReadItems",
    "RowBatch",
    "ToRecords",
    "WriteDeadLetters",
    "WriteToLance",
]

_HOMES = {
    "elements": ["FrameBatch", "RowBatch"],
    "enrich": ["Enrich", "Enricher", "KeywordEnricher"],
    "letters": ["DeadLetterReport", "WriteDeadLetters"],
    "map": ["MapToFrames", "ToRecords"],
    "rag": ["LanceSearchHandler", "LanceVectorWriterConfig", "ReadItems"],
    "write": ["CommitReceipt", "WriteToLance"],
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
