"""Documents from any system into a Lance dataset of frames, one transaction a run.

Names are imported when they are first used, so that the command line answers at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from contextframe_beam.lazy import lazy_names

if TYPE_CHECKING:
    from contextframe_beam.errors import (
        CommitError,
        ConcurrentRunError,
        ConfigError,
        ConnectorError,
        ContextFrameError,
        DatasetError,
        RecordError,
        SchemaError,
        SecretError,
        TooManyDeletes,
        TooManyFailures,
        UnknownCommitError,
    )
    from contextframe_beam.frames.record import Deletion, FrameRecord
    from contextframe_beam.frames.schema import frame_schema
    from contextframe_beam.store.dataset import FrameDataset
    from contextframe_beam.store.search import Hit
    from contextframe_beam.store.state import RunSummary, SourceState
    from contextframe_beam.store.versions import Version

__version__ = "0.1.0"

__all__ = [
    "CommitError",
    "ConcurrentRunError",
    "ConfigError",
    "ConnectorError",
    "ContextFrameError",
    "DatasetError",
    "Deletion",
    "FrameDataset",
    "FrameRecord",
    "Hit",
    "RecordError",
    "RunSummary",
    "SchemaError",
    "SecretError",
    "SourceState",
    "TooManyDeletes",
    "TooManyFailures",
    "UnknownCommitError",
    "Version",
    "frame_schema",
]

_HOMES = {
    "errors": [
        "CommitError",
        "ConcurrentRunError",
        "ConfigError",
        "ConnectorError",
        "ContextFrameError",
        "DatasetError",
        "RecordError",
        "SchemaError",
        "SecretError",
        "TooManyDeletes",
        "TooManyFailures",
        "UnknownCommitError",
    ],
    "frames.record": ["Deletion", "FrameRecord"],
    "frames.schema": ["frame_schema"],
    "store.dataset": ["FrameDataset"],
    "store.search": ["Hit"],
    "store.state": ["RunSummary", "SourceState"],
    "store.versions": ["Version"],
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
