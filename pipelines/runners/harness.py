"""What we change in Beam's harness of a worker: samples, bundles that fail, reports."""

from __future__ import annotations

import copy
import logging
import traceback
from typing import Any

from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.worker import sdk_worker, sdk_worker_main, statesampler
from apache_beam.runners.worker.bundle_processor import DATA_INPUT_URN
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


_PERIOD_MS = 10


def sample_often() -> None:
    """Lets the workers of this process sample every 10 ms, for which Beam has no option."""
    make: Any = statesampler.StateSampler.__init__
    if make.__defaults__ == (statesampler.DEFAULT_SAMPLING_PERIOD_MS,):
        make.__defaults__ = (_PERIOD_MS,)


def inputs_of(descriptor: Any) -> set[str]:
    """Returns the addresses from which a part of a job gets its elements.

    Args:
        descriptor: A `ProcessBundleDescriptor`.
    """
    return {
        beam_fn_api_pb2.RemoteGrpcPort.FromString(one.spec.payload).api_service_descriptor.url
        for one in descriptor.transforms.values()
        if one.spec.urn == DATA_INPUT_URN
    }


class _Cache(sdk_worker.BundleProcessorCache):
    """Connects to where the input comes from before a failure to load is told."""

    def get(self, instruction_id: str, bundle_descriptor_id: str) -> Any:
        try:
            return super().get(instruction_id, bundle_descriptor_id)
        except Exception:
            for url in inputs_of(self.fns[bundle_descriptor_id]):
                self.data_channel_factory.create_data_channel_from_url(url)
            raise


def take_their_input() -> None:
    """Makes Beam's worker in this process do so; called before it starts."""
    vars(sdk_worker)["BundleProcessorCache"] = _Cache
