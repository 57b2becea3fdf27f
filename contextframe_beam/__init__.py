"""Documents from any system into a Lance dataset of frames, one transaction a run.

Names are imported when they are first used, so that the command line answers at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from contextframe_beam._lazy import lazy_names

if TYPE_CHECKING:
    from contextframe_beam.dataset import FrameDataset
    from contextframe_beam.deletion import Deletion
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
    from contextframe_beam.history import Version
    from contextframe_beam.record import FrameRecord
    from contextframe_beam.schema import frame_schema
    from contextframe_beam.state import RunSummary, SourceState

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
    "deletion": ["Deletion"],
    "dataset": ["FrameDataset"],
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
    "history": ["Version"],
    "record": ["FrameRecord"],
    "schema": ["frame_schema"],
    "state": ["RunSummary", "SourceState"],
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
