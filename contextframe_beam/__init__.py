"""Documents from any system into a Lance dataset of frames, one transaction a run.

Names are imported when they are first used, so that the command line answers at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
    "TooManyFailures",
    "UnknownCommitError",
    "Version",
    "frame_schema",
]

_HOMES = {
    "deletion": ["Deletion"],
    "dataset": ["FrameDataset"],
    "history": ["Version"],
    "record": ["FrameRecord"],
    "schema": ["frame_schema"],
    "state": ["RunSummary", "SourceState"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name, "errors" if name in __all__ else None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
