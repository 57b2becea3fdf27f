"""Transforms: from pages of a source to frames, and from frames to a Lance transaction."""

from contextframe_beam.transforms.batches import FrameBatch, RowBatch
from contextframe_beam.transforms.dead_letters import DeadLetterReport, WriteDeadLetters
from contextframe_beam.transforms.enrich import Enrich, Enricher, KeywordEnricher
from contextframe_beam.transforms.lance_sink import WriteToLance
from contextframe_beam.transforms.map import MapToFrames, ToRecords
from contextframe_beam.transforms.receipt import CommitReceipt

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
