"""Changes to Beam's worker harness: sampling, failing bundles, and reports without secrets."""

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
    """Removes secrets from the worker's reports; called before Beam's worker starts."""
    vars(sdk_worker_main)["FnApiLogRecordHandler"] = _Log
    vars(sdk_worker)["traceback"] = _Traceback()


class _Log(FnApiLogRecordHandler):
    def emit(self, record: logging.LogRecord) -> None:
        # Other handlers get the original record; each removes secrets itself.
        record = copy.copy(record)
        _FILTER.filter(record)
        # The message already contains it, and Beam would send it again with its secrets.
        record.exc_info = None
        super().emit(record)


class _Traceback:
    """The module `traceback`, with secrets removed from its results."""

    def __getattr__(self, name: str) -> Any:
        return getattr(traceback, name)

    def format_exc(self, *args: Any, **kwargs: Any) -> str:
        return redact(traceback.format_exc(*args, **kwargs))

    def format_exception(self, *args: Any, **kwargs: Any) -> list[str]:
        return [redact(line) for line in traceback.format_exception(*args, **kwargs)]


_PERIOD_MS = 10


def sample_often() -> None:
    """Makes the workers of this process sample every 10 ms, because Beam has no option for it."""
    make: Any = statesampler.StateSampler.__init__
    if make.__defaults__ == (statesampler.DEFAULT_SAMPLING_PERIOD_MS,):
        make.__defaults__ = (_PERIOD_MS,)


def inputs_of(descriptor: Any) -> set[str]:
    """Returns the addresses of the services that send elements to a part of a job.

    Args:
        descriptor: A `ProcessBundleDescriptor`.
    """
    return {
        beam_fn_api_pb2.RemoteGrpcPort.FromString(one.spec.payload).api_service_descriptor.url
        for one in descriptor.transforms.values()
        if one.spec.urn == DATA_INPUT_URN
    }


class _Cache(sdk_worker.BundleProcessorCache):
    """Connects to the source of the input before it reports a failure to load."""

    def get(self, instruction_id: str, bundle_descriptor_id: str) -> Any:
        try:
            return super().get(instruction_id, bundle_descriptor_id)
        except Exception:
            for url in inputs_of(self.fns[bundle_descriptor_id]):
                self.data_channel_factory.create_data_channel_from_url(url)
            raise


def take_their_input() -> None:
    """Makes failing bundles connect to their input; called before Beam's worker starts."""
    vars(sdk_worker)["BundleProcessorCache"] = _Cache
