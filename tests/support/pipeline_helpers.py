"""Real pipelines for the tests: a connector that workers can import, and how to run one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import apache_beam as beam
import lance
import pytest

from contextframe_beam import Deletion, FrameDataset, FrameRecord
from contextframe_beam.connectors import (
    BaseConnector,
    Page,
    PaginatedConnector,
    Partition,
    ReadFromConnector,
)
from contextframe_beam.connectors.page import SourceInfo, Tally
from contextframe_beam.connectors.read.runtime import NAMESPACE
from contextframe_beam.pipelines.runners.options import pipeline_options, runner_for
from contextframe_beam.store.address import Address
from contextframe_beam.store.files import open_dataset
from contextframe_beam.store.runs import NO_CHANGE, FailureReason, StateChange
from contextframe_beam.transforms import (
    CommitReceipt,
    Enrich,
    FrameBatch,
    MapToFrames,
    WriteToLance,
)
from contextframe_beam.transforms.begin import begin_run
from contextframe_beam.transforms.commit import commit_run
from contextframe_beam.transforms.encode import encode_batches
from contextframe_beam.transforms.limits import DEFAULT_MAX_DELETES, DeletionLimit
from contextframe_beam.transforms.modes import mode_of
from contextframe_beam.transforms.plan import Run
from contextframe_beam.transforms.write import _WriteFragmentsDoFn
from contextframe_beam.transforms.written import Written

EMBED_DIM = 4

ONE_WORKER: dict[str, Any] = {"workers": 1}
TWO_WORKERS: dict[str, Any] = {"workers": 2}
EACH_BUNDLE_TWICE: dict[str, Any] = {
    "workers": 1,
    "beam_args": ["--direct_runner_bundle_repeat=1"],
}

#: For tests that must end alike however the pipeline is run. Processes take seconds to start, so
#: not every test is for all of them. One worker that does each bundle once is what all other tests
#: have.
_PLAIN = pytest.param(ONE_WORKER, marks=pytest.mark.soak, id="one worker")
_TWICE = pytest.param(EACH_BUNDLE_TWICE, id="each bundle twice")
EVERY_WAY = pytest.mark.parametrize(
    "how", [_PLAIN, pytest.param(TWO_WORKERS, id="two workers"), _TWICE]
)
IN_ONE_PROCESS = pytest.mark.parametrize("how", [_PLAIN, _TWICE])

Item = Mapping[str, Any]


class Documents(PaginatedConnector):
    """Gives the pages it is made with, each as one block that any worker may read.

    An item's `id`, `text`, `at` and `metadata` become a record; an item with an `error` cannot be
    mapped.

    Args:
        pages: For each partition its pages, for each page its items.
        source: Names the source; the pages do not, so that they can change between runs.
    """

    identity_args = ("source",)

    def __init__(
        self, pages: Mapping[str, Sequence[Sequence[Item]]], source: str = "documents"
    ) -> None:
        super().__init__()
        self.pages = pages
        self.source = source

    def partitions(self) -> list[Partition]:
        return [Partition(name) for name in self.pages]

    def count_pages(self, partition: Partition) -> int:
        return len(self.pages[partition.id])

    def fetch_page(self, partition: Partition, cursor: Any) -> Page:
        pages = self.pages[partition.id]
        read = sum(map(len, pages))
        return Page(
            items=list(pages[cursor]),
            position=f"page {cursor}",
            state={"read": read} if cursor == len(pages) - 1 else None,
        )

    def map_to_frame_record(self, item: Item) -> FrameRecord:
        if "error" in item:
            raise ValueError(item["error"])
        return document(
            item["id"],
            item.get("text"),
            metadata=dict(item.get("metadata", {})),
            timestamp=item.get("at"),
            vector=item.get("vector"),
        )


class PlainDocuments(BaseConnector):
    """A connector written as on the interface's page and no further; it keeps no state."""

    identity_args = ("source",)

    def __init__(self, items: Sequence[Item], source: str = "plain") -> None:
        super().__init__()
        self.items = items
        self.source = source

    def sync_documents(self) -> list[dict[str, Any]]:
        return [dict(item) for item in self.items]

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return document(item["id"], item.get("text"), timestamp=item.get("at"))


def documents(*ids: Any, source: str = "documents", partitions: int = 2) -> Documents:
    """Returns a connector of documents with these ids, an item a page, dealt to the partitions."""
    items = [one if isinstance(one, dict) else {"id": one} for one in ids]
    pages: dict[str, list[list[Item]]] = {f"part-{number}": [] for number in range(partitions)}
    for number, item in enumerate(items):
        pages[f"part-{number % partitions}"].append([item])
    return Documents(pages, source)


def sink(to: Path | str, **options: Any) -> WriteToLance:
    """Returns the sink of a dataset with short vectors."""
    if open_dataset(Address(str(to))) is None:
        options.setdefault("embed_dim", EMBED_DIM)
    return WriteToLance(str(to), **options)


def new_pipeline(workers: int = 1, beam_args: Sequence[str] = ()) -> beam.Pipeline:
    """Returns a pipeline on the in-process runner with so many worker processes."""
    options = pipeline_options("DirectRunner", workers, beam_args)
    return beam.Pipeline(runner=runner_for(options, "DirectRunner"), options=options)


def run(
    sources: BaseConnector | Sequence[BaseConnector],
    to: Path | str,
    *,
    workers: int = 1,
    beam_args: Sequence[str] = (),
    enrichers: Sequence[Any] = (),
    counters: dict[str, int] | None = None,
    **options: Any,
) -> CommitReceipt:
    """Reads sources into a dataset and returns the receipt that came out of the pipeline.

    Args:
        sources: One connector, or several whose batches go into one sink.
        to: The dataset.
        workers: Number of worker processes.
        beam_args: Beam's own options.
        enrichers: What the records pass through.
        counters: Filled with the run's counters by name.
        **options: What `WriteToLance` takes.
    """
    if isinstance(sources, BaseConnector):
        sources = [sources]
    pipeline = new_pipeline(workers, beam_args)
    frames = []
    for number, connector in enumerate(sources):
        batches = (
            pipeline
            | f"Read {number}" >> ReadFromConnector(connector)
            | f"Map {number}" >> MapToFrames(connector)
        )
        if enrichers:
            batches = batches | f"Enrich {number}" >> Enrich(enrichers)
        frames.append(batches)
    together = frames[0] if len(frames) == 1 else frames | beam.Flatten()
    return finish(pipeline, together | sink(to, **options), Path(to), counters)


def finish(
    pipeline: beam.Pipeline,
    receipts: beam.PCollection[CommitReceipt],
    to: Path,
    counters: dict[str, int] | None = None,
) -> CommitReceipt:
    """Runs a pipeline and returns its one receipt."""
    file = to.with_name(f"{to.name}.receipts.jsonl")
    file.unlink(missing_ok=True)
    receipts | "Keep" >> beam.combiners.ToList() | beam.Map(_append, str(file))
    result = pipeline.run()
    result.wait_until_finish()
    if counters is not None:
        found = result.metrics().query(beam.metrics.MetricsFilter().with_namespace(NAMESPACE))
        counters.update({one.key.metric.name: one.committed for one in found["counters"]})
    (receipt,) = json.loads(file.read_text().splitlines()[-1])
    for name in ("partial", "unread"):
        receipt[name] = tuple(receipt[name])
    receipt["reasons"] = tuple(map(FailureReason.from_json, receipt["reasons"]))
    return CommitReceipt(**receipt)


def _append(receipts: list[CommitReceipt], file: str) -> None:
    with open(file, "a") as lines:
        lines.write(json.dumps([asdict(receipt) for receipt in receipts]) + "\n")


def ids_in(to: Path | str) -> list[str]:
    """Returns the ids of a dataset's documents in order; one that is there twice is twice."""
    return sorted(
        str(uri).removeprefix("doc:")
        for batch in FrameDataset.open(str(to)).batches(["uri"])
        for uri in batch.column("uri").to_pylist()
    )


def texts_in(to: Path | str) -> dict[str, str | None]:
    """Returns the text of each document by its id."""
    return {
        str(record.unique_id).removeprefix("doc:"): record.text_content
        for record in FrameDataset.open(str(to))
    }


def data_files(to: Path | str) -> set[str]:
    """Returns the names of all files in the dataset's data folder, those of no version included."""
    return {file.name for file in Path(to, "data").iterdir()}


def named_files(to: Path | str) -> set[str]:
    """Returns the data files that any version names."""
    return {
        file.path
        for version in lance.dataset(str(to)).versions()
        for fragment in lance.dataset(str(to), version=version["version"]).get_fragments()
        for file in fragment.data_files()
    }


SOURCE = SourceInfo("0123456789abcdef", "documents", {"connector": "documents"})
OTHER = SourceInfo("fedcba9876543210", "others", {})


def begin(to: Path | str, run_id: str = "run-1", mode: str = "upsert", **options: Any) -> Run:
    """Begins a run by hand, for tests that stop between its steps."""
    there = open_dataset(Address(str(to), options.get("storage_options")))
    embed_dim = options.pop("embed_dim", EMBED_DIM if there is None else None)
    address = Address(str(to), options.pop("storage_options", None))
    if "max_deletes" in options:
        options["deletes"] = DeletionLimit.of(options.pop("max_deletes"))
    return begin_run(Run(address, mode_of(mode), run_id, **options), embed_dim)


def write(
    run: Run,
    *records: FrameRecord | Deletion | Any,
    source: SourceInfo = SOURCE,
    state: dict[str, Any] | None = None,
    change: StateChange = NO_CHANGE,
    partition: str = "all",
    narrowed: str = "",
    partial: str = "",
    together: bool = True,
    tally: Tally | None = None,
) -> Written:
    """Writes what the workers of a run would: one data file of these records or ids.

    A document's chunks follow it; `together` says whether they came with it, as enrichers give
    them. What `tally` says is added to the run's own.
    """
    deletions = [(one, None) for one in records if isinstance(one, Deletion)]
    made = [
        one if isinstance(one, FrameRecord) else document(one)
        for one in records
        if not isinstance(one, Deletion)
    ]
    writer = _WriteFragmentsDoFn(run)
    writer.start_bundle()
    batch = FrameBatch(
        made,
        made,
        partition,
        deletions=deletions,
        documents=_numbers(made) if together else [],
        tally=Tally(
            source,
            read=len(records),
            planned=1,
            finished=1,
            partitions={partition: state} if state is not None else {},
            change=change,
            narrowed={narrowed} if narrowed else set(),
            partial={partial} if partial else set(),
        )
        + (tally or Tally(source)),
    )
    writer.process(encode_batches([batch], run.embed_dim, run.fields))
    ((_, written),) = (element.value for element in writer.finish_bundle())
    return written


def _numbers(records: Sequence[FrameRecord]) -> list[int]:
    starts = [not isinstance(one, FrameRecord) or one.parent is None for one in records]
    return [sum(starts[: place + 1]) for place in range(len(records))]


def commit(
    to: Path | str,
    *records: Any,
    run_id: str = "run-1",
    mode: str = "upsert",
    max_deletes: int | str = DEFAULT_MAX_DELETES,
    **what: Any,
) -> CommitReceipt:
    """Runs all steps of a run by hand."""
    started = begin(to, run_id, mode, max_deletes=max_deletes)
    return commit_run(started, write(started, *records, **what))


def document(name: Any, text: str | None = None, **fields: Any) -> FrameRecord:
    """Returns the record that `Documents` makes of an item."""
    return FrameRecord(text or f"text of {name}", unique_id=f"doc:{name}", **fields)
