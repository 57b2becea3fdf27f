"""Transforms: from pages of a source to frames, and from frames to a Lance transaction.

Names are imported when they are first used. Threads of a new worker each begin with another module
of this package: importing one would wait for all that the package imports, and that for the one,
which Python ends with an error.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOME_OF = {
    "CommitReceipt": "receipt",
    "DeadLetterReport": "dead_letters",
    "Enrich": "enrich",
    "Enricher": "enrich",
    "FrameBatch": "batches",
    "KeywordEnricher": "enrich",
    "MapToFrames": "map",
    "RowBatch": "batches",
    "ToRecords": "map",
    "WriteDeadLetters": "dead_letters",
    "WriteToLance": "lance_sink",
}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
