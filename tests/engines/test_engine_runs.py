"""Runs on Flink, Spark and Prism: each gives the dataset that the in-process runner gives."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lance
import pytest

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.connectors import (
    BaseConnector,
    BatchConnector,
    JSONFileConnector,
    Page,
    PaginatedConnector,
    Partition,
)
from contextframe_beam.connectors.api import APIConnector
from contextframe_beam.connectors.read import runtime
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.pipelines.runners import options
from contextframe_beam.pipelines.runners.options import counts_of, how_far
from contextframe_beam.store.address import Address
from contextframe_beam.store.files import open_dataset
from contextframe_beam.transforms import write
from tests.support.cli_helpers import assert_error, cli_process, letters_of, write_documents
from tests.support.engines import EACH_ENGINE, Running, each_engine, engine, engines, worker_pool
from tests.support.http_fixture import HttpServer
from tests.support.pipeline_helpers import (
    EMBED_DIM,
    Documents,
    document,
    documents,
    ids_in,
    texts_in,
)

__all__ = ["engine", "engines"]


class Numbers(BatchConnector):
    """A source of known length, read in slices."""

    identity_args = ("total",)

    def __init__(self, total: int) -> None:
        super().__init__(batch_size=10)
        self.total = total

    def total_items(self) -> int:
        return self.total

    def _fetch_batch(self, start: int, end: int) -> list[int]:
        return list(range(start, end))

    def map_to_frame_record(self, item: int) -> FrameRecord:
        return document(item, f"number {item}")


class Channels(PaginatedConnector):
    """Several partitions that only a cursor can walk."""

    identity_args = ()

    def partitions(self) -> list[Partition]:
        return [Partition(f"channel-{number}") for number in range(6)]

    def fetch_page(self, partition: Partition, cursor: Any) -> Page:
        at = (cursor or {}).get("at", 0)
        items = [f"{partition.id}-{number}" for number in range(at, at + 5)]
        is_last = at == 20
        return Page(
            items,
            next_cursor=None if is_last else {"at": at + 5},
            state={"at": 25} if is_last else None,
        )

    def map_to_frame_record(self, item: str) -> FrameRecord:
        return document(item)


def api(server: HttpServer) -> APIConnector:
    """Returns a source of pages and one of a cursor behind HTTP."""
    pages = {"name": "things", "path": "pages", "params": {"n": 75}, "paginator": "page"}
    events = {
        "name": "events",
        "path": "cursors",
        "params": {"n": 45},
        "paginator": {"type": "cursor", "cursor": "meta.next_cursor"},
    }
    return APIConnector(f"{server.url}/api", name="crm", resources=[pages, events], retries=0)


def outcome(to: Path, receipt: Any) -> tuple[Any, ...]:
    """Returns what must be the same on every engine: rows, counts, states and dead letters."""
    table = lance.dataset(str(to)).to_table(filter="x_state IS NULL")
    states = [(state.name, dict(state.partitions)) for state in FrameDataset.open(str(to)).states()]
    counts = (
        receipt.version,
        receipt.mode,
        receipt.rows_written,
        receipt.rows_replaced,
        receipt.rows_deleted,
        receipt.rows_unchanged,
        receipt.rows_dropped,
        receipt.failed,
        receipt.already_committed,
    )
    letters = sorted(json.dumps(one["item"], sort_keys=True) for one in letters_of(to))
    return (
        table.drop(["raw_data"]).sort_by([("uuid", "ascending"), ("x_digest", "ascending")]),
        counts,
        sorted(states, key=str),
        letters,
    )


def assert_same_as_in_process(
    engine: Running, folder: Path, steps: Sequence[tuple[BaseConnector, str]]
) -> None:
    """Runs the steps on the engine and here, each into a dataset of its own, and compares them."""
    found: dict[str, list[Any]] = {"here": [], "engine": []}
    for connector, mode in steps:
        for name, how in {
            "here": {},
            "engine": {"runner": engine.runner, "beam_args": engine.arguments()},
        }.items():
            to = folder / f"{name}.lance"
            receipt = ingest(
                connector,
                str(to),
                mode=mode,
                run_id=f"{len(found[name])}-{mode}",
                embed_dim=None if to.exists() else EMBED_DIM,
                **how,
            )
            found[name].append(outcome(to, receipt))
    for step, (here, there) in enumerate(zip(found["here"], found["engine"], strict=True)):
        assert here[1:] == there[1:], steps[step]
        assert here[0].equals(there[0]), steps[step]


@EACH_ENGINE
def test_changes_deletes_and_failures_give_the_same_dataset_as_in_process(
    engine: Running, tmp_path: Path
) -> None:
    changed = [{"id": number, "text": f"new {number % 3}"} for number in range(5, 30)]
    assert_same_as_in_process(
        engine,
        tmp_path,
        [
            (documents(*range(20), {"id": 99, "error": "no"}, partitions=3), "create"),
            (documents(*changed, {"id": 7, "text": "again"}, {"id": 98, "error": "no"}), "upsert"),
            (documents(*range(5, 22)), "mirror"),
        ],
    )


@each_engine(soak=["SparkRunner"])
def test_every_kind_of_source_gives_the_same_dataset_as_in_process(
    engine: Running, server: HttpServer, tmp_path: Path
) -> None:
    folder = write_documents(
        tmp_path / "docs",
        {f"{number}.json": {"title": f"T{number}", "content": "x"} for number in range(20)},
    )
    assert_same_as_in_process(
        engine,
        tmp_path,
        [
            (Channels(), "append"),
            (JSONFileConnector(directory=str(folder)), "upsert"),
            (api(server), "upsert"),
            (Numbers(95), "overwrite"),
        ],
    )


class KillsItsWorkerOnce(Documents):
    """Over its last document the worker dies, the first time that it is read."""

    identity_args = ("source",)

    def __init__(self, pages: Any, marker: str) -> None:
        super().__init__(pages)
        self.marker = marker

    def map_to_frame_record(self, item: Any) -> FrameRecord:
        if item["id"] == "19" and not os.path.exists(self.marker):
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return document(item["id"])


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[str]:
    with worker_pool(tmp_path) as address:
        yield address


def in_pool(engine: Running, address: str, *more: str) -> dict[str, Any]:
    """Returns how to run in worker processes of a pool."""
    arguments = engine.arguments(f"--environment_config={address}", *more, workers="EXTERNAL")
    return {"runner": engine.runner, "beam_args": arguments}


class LooksHowFar(BaseConnector):
    """Behind its first thousand documents it asks how far the run is; the last one is broken."""

    identity_args = ()

    def sync_documents(self) -> Iterator[Any]:
        yield from ({"id": f"{number}"} for number in range(1000))
        state, counts = how_far(os.environ[runtime.FOLDER_VARIABLE])
        yield {"id": "then", "text": json.dumps([state, counts])}
        yield {}

    def map_to_frame_record(self, item: Any) -> FrameRecord:
        return document(item["id"], item.get("text", ""))


@EACH_ENGINE
def test_counts_come_from_workers_here_while_it_runs_and_from_the_engine_at_its_end(
    engine, tmp_path, monkeypatch
):
    at_the_end, really_watched = [], options.watched

    @contextmanager
    def watched(job: Any) -> Iterator[None]:
        with really_watched(job):
            yield
        at_the_end.append(counts_of(job))

    monkeypatch.setattr(options, "watched", watched)
    monkeypatch.setenv(runtime.FOLDER_VARIABLE, str(tmp_path))
    kb = tmp_path / "kb.lance"
    how = {"runner": engine.runner, "beam_args": engine.arguments()}
    receipt = ingest(LooksHowFar(), str(kb), embed_dim=EMBED_DIM, **how)
    state, counts = json.loads(str(texts_in(kb)["then"]))
    assert state == "running"
    assert 0 < counts["items"] <= 1000
    assert at_the_end == [{"items": 1002, "rows": 1001, "unchanged": 0, "failures": 1}]
    assert (receipt.rows_written, receipt.failed) == (1001, 1)


@EACH_ENGINE
def test_a_worker_that_is_killed_leaves_no_run_or_a_whole_one(engine, pool, tmp_path):
    if engine.runner == "SparkRunner":
        pytest.skip("Beam's job server for Spark waits for ever for a worker that was killed")
    pages = {f"part-{number}": [[{"id": f"{number}"}]] for number in range(20)}
    kb = tmp_path / "kb.lance"
    connector = KillsItsWorkerOnce(pages, str(tmp_path / "killed"))
    how = in_pool(engine, pool)
    try:
        ingest(connector, str(kb), run_id="nightly", embed_dim=EMBED_DIM, **how)
    except Exception:
        assert open_dataset(Address(str(kb))) is None
    assert (tmp_path / "killed").exists()
    ingest(connector, str(kb), run_id="nightly", embed_dim=EMBED_DIM, **how)
    assert ids_in(kb) == sorted(str(number) for number in range(20))
    assert FrameDataset.open(str(kb)).version == 1


@EACH_ENGINE
def test_a_commit_step_that_is_repeated_commits_once(engine, tmp_path, monkeypatch):
    commit_run, receipts = write.commit_run, []

    def commit_and_fail(*arguments: Any) -> Any:
        receipts.append(commit_run(*arguments))
        if len(receipts) == 1:
            raise OSError("the answer was lost")
        return receipts[-1]

    # Workers of LOOPBACK are threads of this process.
    monkeypatch.setattr(write, "commit_run", commit_and_fail)
    kb = tmp_path / "kb.lance"
    (tmp_path / "config.yaml").write_text(
        "restart-strategy.type: fixed-delay\nrestart-strategy.fixed-delay.attempts: 2\n"
    )
    more = [f"--flink_conf_dir={tmp_path}"] if engine.runner == "FlinkRunner" else []
    how = {"runner": engine.runner, "beam_args": engine.arguments(*more)}
    try:
        receipt = ingest(
            documents(*range(20)), str(kb), run_id="nightly", embed_dim=EMBED_DIM, **how
        )
    except Exception as error:  # this engine does not try again, and the scheduler does
        assert engine.runner == "PrismRunner"
        assert "the answer was lost" in str(error)
        receipt = ingest(
            documents(*range(20)), str(kb), run_id="nightly", embed_dim=EMBED_DIM, **how
        )
        assert receipt.already_committed
    else:
        assert [one.already_committed for one in receipts] == [False, True]
    assert receipt.rows_written == 20
    assert ids_in(kb) == sorted(str(number) for number in range(20))
    assert FrameDataset.open(str(kb)).version == 1


@EACH_ENGINE
def test_the_command_line_says_in_one_message_what_a_step_raised(engine, tmp_path):
    folder = write_documents(tmp_path / "docs", {"a.json": '{"content": "cut off'})
    to = tmp_path / "kb.lance"
    result = cli_process(
        *("ingest", "json", "--directory", folder, "--to", to, "--runner", engine.runner),
        *engine.arguments(),
    )
    assert_error(result, 1, "1 of 1 items failed, all of them; nothing was committed")
