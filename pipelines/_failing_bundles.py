"""Lets a worker tell an engine that a part of a job cannot even be loaded.

Flink and Spark send the input of a bundle before they look at the answer, and wait for somebody who
takes it. Beam's worker connects for that only when it has loaded the functions, so where one cannot
be unpickled, because its module is not there, the engine would never learn why. Prism has no such
wait.
"""

from __future__ import annotations

from typing import Any

from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.worker import sdk_worker
from apache_beam.runners.worker.bundle_processor import DATA_INPUT_URN


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
