"""Transforms: from pages of a source to frames, and from frames to a Lance transaction.

Names are imported when they are first used. Threads of a new worker each begin with another module
of this package: importing one would wait for all that the package imports, and that for the one,
which Python ends with an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from contextframe_beam._lazy import lazy_names

if TYPE_CHECKING:
    from contextframe_beam.state import CommitReceipt
    from contextframe_beam.transforms.batches import FrameBatch, RowBatch
    from contextframe_beam.transforms.dead_letters import DeadLetterReport, WriteDeadLetters
    from contextframe_beam.transforms.enrich import Enrich, Enricher, KeywordEnricher
    from contextframe_beam.transforms.lance_sink import WriteToLance
    from contextframe_beam.transforms.map import MapToFrames, ToRecords

__all__ = [
    "CommitReceipt",
    "DeadLetterReport",
    "Enrich",
    "Enricher",
    "FrameBatch",
    "KeywordEnricher",
    "MapToFrames",
    "RowBatch",
    "ToRecords",
    "WriteDeadLetters",
    "WriteToLance",
]

_HOMES = {
    "batches": ["FrameBatch", "RowBatch"],
    "dead_letters": ["DeadLetterReport", "WriteDeadLetters"],
    "enrich": ["Enrich", "Enricher", "KeywordEnricher"],
    "lance_sink": ["CommitReceipt", "WriteToLance"],
    "map": ["MapToFrames", "ToRecords"],
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
