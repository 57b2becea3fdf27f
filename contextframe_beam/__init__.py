"""Documents from any system into a Lance dataset of frames, one transaction a run."""

from contextframe_beam.dataset import FrameDataset, Version
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
    TooManyFailures,
)
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
    "FrameDataset",
    "FrameRecord",
    "RecordError",
    "RunSummary",
    "SchemaError",
    "SecretError",
    "SourceState",
    "TooManyFailures",
    "Version",
    "frame_schema",
]
