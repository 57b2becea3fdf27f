"""DryRun: what a run would cut and embed, counted before anything is paid, and nothing written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.runners.runner import PipelineResult
from apache_beam.utils.windowed_value import WindowedValue

from contextframe_beam.connectors.read import runtime
from contextframe_beam.errors import ContextFrameError
from contextframe_beam.frames.embedders import Embedder, EmbedderSpec
from contextframe_beam.store.state import CommitReceipt
from contextframe_beam.transforms.elements import FrameBatch, in_global_window, required
from contextframe_beam.transforms.embed import TextVectors, text_vectors, texts_of
from contextframe_beam.transforms.plan import Run
from contextframe_beam.transforms.texts import Texts

__all__ = ["DryRun", "counted"]

#: What is counted, by its name in the receipt.
COUNTS = (
    "documents",
    "parsed",
    "chunks",
    "texts_embedded",
    "texts_reused",
    "tokens",
    "skipped",
    "failed",
    "rows_unchanged",
)
_TEXTS_TOGETHER = 2048
# A repeated bundle counts once: what is told is the largest of equal values.
_METRIC = "dry_run_"


class DryRun(beam.PTransform[Any, Any]):
    """Counts what the batches of a run hold, and gives a receipt of version 0.

    Args:
        texts: What would become of their texts.
        run: The run.
    """

    def __init__(self, texts: Texts, run: Run) -> None:
        super().__init__()
        self._texts, self._run = texts, run

    def expand(self, batches: beam.PCollection[FrameBatch]) -> beam.PCollection[CommitReceipt]:
        counts = batches | "Count" >> beam.ParDo(_CountDoFn(self._texts.embedder, self._run))
        nothing = batches.pipeline | beam.Impulse() | "Nothing" >> beam.Map(lambda _: (0, {}))
        receipts: beam.PCollection[CommitReceipt] = (
            (counts, nothing)
            | "Counts" >> beam.Flatten()
            | "Together" >> beam.GroupByKey()
            | "Tell" >> beam.ParDo(_TellDoFn(self._run)).with_output_types(CommitReceipt)
        )
        return receipts


class _CountDoFn(beam.DoFn):
    def __init__(self, embedder: EmbedderSpec | None, run: Run) -> None:
        self._spec, self._run = embedder, run
        self._embedder: Embedder | None = None
        self._vectors: TextVectors | None = None

    def setup(self) -> None:
        if self._spec is None:
            return
        run = self._run
        self._embedder = self._spec.load()
        # A service that was never asked what its vectors are has made none that are stored.
        if self._spec.identity is not None:
            self._vectors = text_vectors(self._spec, run.address, run.base_version, None, run.start)

    def start_bundle(self) -> None:
        self._counts = dict.fromkeys(COUNTS, 0)
        self._waiting: list[str] = []

    def process(self, batch: FrameBatch) -> Iterable[Any]:
        required(batch, FrameBatch, "DryRun")
        counts, tally = self._counts, batch.tally
        runtime.count(
            items=tally.read,
            failures=len(batch.failures),
            finished=tally.finished,
        )
        counts["documents"] += tally.documents
        counts["parsed"] += tally.parsed
        counts["skipped"] += tally.skipped
        counts["rows_unchanged"] += tally.unchanged
        counts["failed"] += len(batch.failures)
        counts["chunks"] += sum(record.parent is not None for record in batch.records)
        if self._embedder is not None:
            self._waiting += texts_of(batch)
            if len(self._waiting) >= _TEXTS_TOGETHER:
                self._ask()
        return ()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        self._ask()
        yield in_global_window((0, self._counts))

    def _ask(self) -> None:
        texts, self._waiting = list(dict.fromkeys(self._waiting)), []
        if self._embedder is None or not texts:
            return
        new = texts if self._vectors is None else self._vectors.unknown(texts)
        self._counts["texts_embedded"] += len(new)
        self._counts["texts_reused"] += len(texts) - len(new)
        self._counts["tokens"] += sum(self._embedder.count(new))


class _TellDoFn(beam.DoFn):
    def __init__(self, run: Run) -> None:
        self._run = run

    def process(self, element: tuple[int, Iterable[Mapping[str, int]]]) -> Iterator[CommitReceipt]:
        counts = dict.fromkeys(COUNTS, 0)
        for part in element[1]:
            for name, count in part.items():
                counts[name] += count
        for name, count in counts.items():
            Metrics.distribution(runtime.NAMESPACE, _METRIC + name).update(count)
        yield _receipt(self._run.run_id, self._run.mode.name, counts)


def counted(result: PipelineResult, run_id: str, mode: str) -> CommitReceipt:
    """Returns what a dry run has counted, as the engine tells it.

    Args:
        result: The pipeline's, which has ended.
        run_id: What the run was called.
        mode: Its mode.

    Raises:
        ContextFrameError: the engine does not tell.
    """
    found = result.metrics().query(MetricsFilter().with_namespace(runtime.NAMESPACE))
    counts = {}
    for one in found["distributions"]:
        told = one.committed if one.committed is not None else one.attempted
        if one.key.metric.name.startswith(_METRIC) and told is not None:
            counts[one.key.metric.name.removeprefix(_METRIC)] = int(told.max)
    if not counts:
        raise ContextFrameError(
            "the engine does not tell what a dry run has counted; do it on this machine, with the "
            "DirectRunner"
        )
    return _receipt(run_id, mode, counts)


def _receipt(run_id: str, mode: str, counts: Mapping[str, int]) -> CommitReceipt:
    known: dict[str, Any] = dict(counts)
    return CommitReceipt(run_id, mode, **known)
