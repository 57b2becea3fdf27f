"""One run of the main job: its pipeline, from a connector to a transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.read import ReadFromConnector
from contextframe_beam.errors import CommitError, ConcurrentRunError, ConfigError
from contextframe_beam.fragments import open_dataset
from contextframe_beam.pipelines._staging import RequireStaged, staged_options
from contextframe_beam.pipelines.runners import pipeline_options, run_to_end, runner_for
from contextframe_beam.state import SourceState, read_states
from contextframe_beam.state import state_of as source_state
from contextframe_beam.transforms import CommitReceipt, Enrich, MapToFrames, WriteToLance
from contextframe_beam.transforms._earlier import committed_receipt
from contextframe_beam.transforms.enrich import Enricher

_LOGGER = logging.getLogger(__name__)


class TemplateWritten(CommitError):
    """The job was only described, as the launcher of a Dataflow template asks with its options."""


@dataclass(frozen=True)
class Ingestion:
    """What all runs of one call of `ingest` share; `ingest` says what the arguments mean."""

    connector: BaseConnector
    to: str
    mode: str
    enrichers: Sequence[Enricher]
    workers: int
    runner: str
    beam_args: Sequence[str]
    full: bool
    max_failures: int | str
    max_deletes: int | str
    embed_dim: int | None
    storage_options: Mapping[str, str] | None
    storage_version: str
    sync_kwargs: Mapping[str, Any]

    def options(self) -> PipelineOptions:
        """Returns Beam's options, anew each time: a runner changes those that it is given.

        Raises:
            ConfigError: they are wrong.
        """
        return pipeline_options(self.runner, self.workers, self.beam_args)

    def state(self) -> SourceState | None:
        """Returns what the dataset says of the source now."""
        return state_of(self.connector, self.to, self.sync_kwargs, self.storage_options)

    def committed(self, run_id: str) -> CommitReceipt | None:
        """Returns the receipt of a run if the dataset holds it.

        Raises:
            ConfigError: it holds a run of that id that read another source.
        """
        receipt = committed_receipt(self.to, run_id, self.storage_options)
        if receipt is None:
            return None
        state = self.state()
        if state is None or state.run(run_id) is None:
            raise ConfigError(
                f"the run {run_id} of {self.to} read another source than {self.connector.name} as "
                "it is asked for now, and a run id is used once in a dataset; give another one"
            )
        return receipt

    def finds_nothing(self) -> bool:
        """Tells, and logs, that there is neither anything to read nor a dataset to change."""
        nothing_found = getattr(self.connector, "_nothing_found", None)
        if nothing_found is None or open_dataset(self.to, self.storage_options) is not None:
            return False
        self.connector.ensure_authenticated()
        reason = nothing_found(**self.sync_kwargs)
        if reason:
            _LOGGER.warning("%s; %s was not made", reason, self.to)
        return bool(reason)

    def run(
        self,
        run_id: str,
        dead_letters: str,
        source: ReadFromConnector,
        as_known: Callable[[SourceState | None], bool],
    ) -> CommitReceipt:
        """Runs the pipeline once, to its commit.

        Args:
            run_id: Names the run.
            dead_letters: The file for items that fail.
            source: What it reads.
            as_known: Tells whether the source's state is still the one that `source` was made for.

        Raises:
            ConcurrentRunError: it is not; nothing was read.
            TemplateWritten: the run is for Dataflow to start.
            ContextFrameError: whatever else went wrong.
        """
        sink = WriteToLance(
            self.to,
            mode=self.mode,
            run_id=run_id,
            embed_dim=self.embed_dim,
            storage_options=self.storage_options,
            storage_version=self.storage_version,
            max_failures=self.max_failures,
            max_deletes=self.max_deletes,
            dead_letters=dead_letters,
        )
        # A sink takes what it finds for what the run knows. So what was committed, or rolled back,
        # between the look at the state and the making of the sink is for us to notice.
        if not as_known(self.state()):
            raise ConcurrentRunError(
                f"what {self.to} says about how far {self.connector.name} was read has changed "
                "since this run looked at it, so another run was committed or undone; nothing of "
                "this one was committed, run it again"
            )
        options = self.options()
        pipeline = beam.Pipeline(runner=runner_for(options, self.runner), options=options)
        pages = pipeline | "Read" >> source
        staged = staged_options(options)
        if staged:
            pages = pages | "RequireStaged" >> beam.ParDo(RequireStaged(list(staged)))
        frames = pages | "Map" >> MapToFrames(self.connector)
        if self.enrichers:
            frames = frames | "Enrich" >> Enrich(self.enrichers)
        frames | "WriteToLance" >> sink
        run_to_end(pipeline, self.workers)
        receipt = committed_receipt(self.to, run_id, self.storage_options, start=sink.start)
        if receipt is None and options.view_as(GoogleCloudOptions).template_location:
            raise TemplateWritten(
                f"run {run_id} is described and not run yet; it is committed when Dataflow has run "
                "the job"
            )
        if receipt is None:
            raise CommitError(
                f"the pipeline ended, but {self.to} does not hold run {run_id}; run it again and "
                "look into the runner's log"
            )
        return receipt


def state_of(
    connector: BaseConnector,
    to: str,
    sync_kwargs: Mapping[str, Any],
    storage_options: Mapping[str, str] | None,
) -> SourceState | None:
    """Returns what a dataset says of a source, or None where there is nothing."""
    dataset = open_dataset(to, storage_options)
    if dataset is None:
        return None
    return source_state(
        read_states(dataset),
        connector.source_id(sync_kwargs),
        connector.source_identity(sync_kwargs),
        getattr(connector, "_by_partition", ()),
    )


def partitions_of(state: SourceState | None) -> dict[str, Any]:
    """Returns how far each partition was read."""
    return dict(state.partitions) if state is not None else {}
