"""What a worker tells the launcher: its log and its failures, without secrets.

The launcher shows both, and cannot take out what only the worker has looked up.
"""

from __future__ import annotations

import copy
import logging
import traceback
from typing import Any

from apache_beam.runners.worker import sdk_worker, sdk_worker_main
from apache_beam.runners.worker.log_handler import FnApiLogRecordHandler

from contextframe_beam.connectors.secrets import RedactingFilter, redact

_FILTER = RedactingFilter()


def redact_reports() -> None:
    """Makes Beam's worker in this process do so; called before it starts."""
    vars(sdk_worker_main)["FnApiLogRecordHandler"] = _Log
    vars(sdk_worker)["traceback"] = _Traceback()


class _Log(FnApiLogRecordHandler):
    def emit(self, record: logging.LogRecord) -> None:
        # Other handlers get the record as it was; each takes out secrets itself.
        record = copy.copy(record)
        _FILTER.filter(record)
        # The text of it is in the message, and Beam would send it once more as it is.
        record.exc_info = None
        super().emit(record)


class _Traceback:
    """The module `traceback` without secrets in what it returns."""

    def __getattr__(self, name: str) -> Any:
        return getattr(traceback, name)

    def format_exc(self, *args: Any, **kwargs: Any) -> str:
        return redact(traceback.format_exc(*args, **kwargs))

    def format_exception(self, *args: Any, **kwargs: Any) -> list[str]:
        return [redact(line) for line in traceback.format_exception(*args, **kwargs)]
