"""Which engine runs a job; every way of running gives the same dataset."""

from __future__ import annotations

import copy
import json
import os
import signal
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import apache_beam as beam
import lance
import pytest
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    SetupOptions,
    WorkerOptions,
)
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.worker.statesampler import get_current_tracker

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.connectors import IncrementalConnector
from contextframe_beam.errors import (
    CommitError,
    ConfigError,
    DatasetError,
    SchemaError,
    TooManyFailures,
)
from contextframe_beam.pipelines.ingest import default_dead_letters, ingest
from contextframe_beam.pipelines.runners.options import is_local, pipeline_options, runner_for
from contextframe_beam.transforms import KeywordEnricher
from tests.support.pipeline_helpers import (
    EACH_BUNDLE_TWICE,
    EMBED_DIM,
    ONE_WORKER,
    TWO_WORKERS,
    Documents,
    document,
    documents,
    ids_in,
    new_pipeline,
    run,
    texts_in,
)


class TestOptions:
    @pytest.mark.parametrize("name", ["DirectRunner", "FnApiRunner", "apache_beam.DirectRunner"])
    def test_the_local_runner_is_always_the_same(self, name):
        options = pipeline_options(name)
        assert is_local(name)
        assert type(runner_for(options, name)) is FnApiRunner

    @pytest.mark.parametrize("workers", [1, 3])
    def test_it_has_so_many_workers(self, workers):
        options = pipeline_options("DirectRunner", workers)
        assert options.view_as(DirectOptions).direct_num_workers == workers

    def test_options_of_beam_pass_through(self):
        options = pipeline_options(
            "FlinkRunner", beam_args=["--flink_master=[local]", "--streaming"]
        )
        assert options.get_all_options()["flink_master"] == "[local]"
        assert options.get_all_options()["streaming"] is True
        assert not options.view_as(SetupOptions).save_main_session

    def test_what_one_view_sets_all_others_see_and_no_copy_does(self):
        options = pipeline_options()
        copied = copy.deepcopy(options)
        options.view_as(SetupOptions).requirements_file = "r.txt"
        assert options.view_as(SetupOptions).requirements_file == "r.txt"
        assert options.get_all_options()["requirements_file"] == "r.txt"
        assert copied.view_as(SetupOptions).requirements_file is None

    def test_beam_is_quiet_unless_asked(self):
        assert pipeline_options().view_as(WorkerOptions).default_sdk_harness_log_level == "WARN"
        loud = pipeline_options(beam_args=["--default_sdk_harness_log_level=INFO"])
        assert loud.view_as(WorkerOptions).default_sdk_harness_log_level == "INFO"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--flink_mater=x"], "no such option: --flink_mater; did you mean --flink_master?"),
            (["--qqq", "1"], "no such option: --qqq"),
            (["stray"], "no such option: stray"),
        ],
    )
    def test_an_unknown_option_is_refused(self, arguments, message):
        with pytest.raises(ConfigError) as caught:
            pipeline_options(beam_args=arguments)
        assert str(caught.value) == message

    def test_workers_are_at_least_one_and_local(self):
        with pytest.raises(ConfigError, match="workers is 0; give at least 1"):
            pipeline_options(workers=0)
        with pytest.raises(ConfigError, match="--workers is for local runs; set the parallelism"):
            pipeline_options("FlinkRunner", workers=2)

    @pytest.mark.parametrize("name", ["NoRunner", "no.such.Runner", ""])
    def test_an_unknown_runner_is_refused(self, name):
        with pytest.raises(ConfigError, match=f"there is no runner {name}; choose DirectRunner"):
            runner_for(PipelineOptions([]), name)


class WhoReads(Documents):
    """Its texts say which process mapped them, with what options."""

    def map_to_frame_record(self, item: Any) -> FrameRecord:
        return document(item["id"], str(os.getpid()))


class HowOftenSampled(Documents):
    """Its texts say how often Beam samples in which step the worker is, in milliseconds."""

    def map_to_frame_record(self, item: Any) -> FrameRecord:
        return document(item["id"], str(get_current_tracker().sampling_period_ms))


class Unmapped(Documents):
    """Nothing of it can be mapped."""

    def map_to_frame_record(self, item: Any) -> FrameRecord:
        raise ValueError("cannot be mapped")


class KillsItsWorker(Documents):
    """Its worker dies over the first document."""

    def map_to_frame_record(self, item: Any) -> FrameRecord:
        os.kill(os.getpid(), signal.SIGKILL)
        return document(item["id"], "")


class TestWorkers:
    def test_one_worker_is_this_process(self, kb):
        run(WhoReads({"all": [[{"id": 1}], [{"id": 2}]]}), kb)
        assert set(texts_in(kb).values()) == {str(os.getpid())}

    def test_two_workers_are_two_processes_and_share_the_work(self, kb):
        pages = {f"part-{number}": [[{"id": f"{number}"}]] for number in range(40)}
        run(WhoReads(pages), kb, **TWO_WORKERS)
        processes = set(texts_in(kb).values())
        assert len(processes) == 2
        assert str(os.getpid()) not in processes

    @pytest.mark.parametrize("workers", [1, 2])
    def test_what_a_step_raises_is_ours_and_says_no_more_than_it_should(self, kb, workers):
        pages = {"all": [[{"id": 1, "broken": True}], [{"id": 2, "broken": True}]]}
        with pytest.raises(TooManyFailures) as caught:
            ingest(Unmapped(pages), str(kb), workers=workers)
        assert str(caught.value).startswith("2 of 2 items failed, all of them; nothing was commit")
        assert "while running" not in str(caught.value)

    @pytest.mark.parametrize("workers", [2])
    def test_a_worker_that_is_killed_fails_the_run_and_commits_nothing(self, kb, workers):
        with pytest.raises(CommitError, match="a worker process was killed by signal 9; nothing"):
            ingest(KillsItsWorker({"all": [[{"id": 1}]]}), str(kb), workers=workers)
        assert not kb.exists()

    @pytest.mark.parametrize("workers", [1, 2])
    def test_a_bundle_does_not_wait_long_for_beams_last_sample(self, kb, workers):
        ingest(HowOftenSampled({"all": [[{"id": 1}]]}), str(kb), workers=workers)
        assert texts_in(kb) == {"1": "10"}

    def test_workers_end_with_the_run(self, kb):
        run(WhoReads({"all": [[{"id": 1}], [{"id": 2}]]}), kb, **TWO_WORKERS)
        for process in set(texts_in(kb).values()):
            with pytest.raises(ProcessLookupError):
                os.kill(int(str(process)), 0)

    def test_workers_know_the_options_of_the_run(self, tmp_path):
        pipeline = new_pipeline(2, ["--job_name=nightly"])
        seen = pipeline | beam.Create([1]) | beam.Map(_options_seen)
        seen | beam.Map(_store, str(tmp_path / "options.json"))
        pipeline.run().wait_until_finish()
        assert json.loads((tmp_path / "options.json").read_text()) == "nightly"


def _options_seen(_: int) -> Any:
    from apache_beam.options.value_provider import RuntimeValueProvider

    return RuntimeValueProvider.get_value("job_name", str, None)


def _store(value: Any, file: str) -> None:
    Path(file).write_text(json.dumps(value))


@pytest.mark.sample(2)
@pytest.mark.parametrize("mode", ["create", "append", "overwrite", "upsert"])
def test_every_way_of_running_gives_the_same_dataset(tmp_path, mode):
    first = [{"id": number} for number in range(30)]
    second = [
        *({"id": number, "text": f"new {number}"} for number in range(5, 10)),
        *({"id": number} for number in range(10, 20)),
        *({"id": 50, "text": text, "at": f"2026-01-0{day}"} for day, text in [(2, "b"), (1, "a")]),
        *({"id": 60, "text": text} for text in "abc"),
        {"id": 70, "error": "no"},
    ]
    tables = {}
    for name, how in {"one": ONE_WORKER, "two": TWO_WORKERS, "twice": EACH_BUNDLE_TWICE}.items():
        kb = tmp_path / f"{name}.lance"
        if mode != "create":
            run(documents(*first), kb)
        receipt = run(documents(*second, partitions=5), kb, mode=mode, run_id="second", **how)
        table = lance.dataset(str(kb)).to_table(filter="x_state IS NULL")
        counts = (
            receipt.version,
            receipt.rows_written,
            receipt.rows_replaced,
            receipt.rows_deleted,
            receipt.rows_unchanged,
            receipt.rows_dropped,
            receipt.failed,
        )
        states = FrameDataset.open(str(kb)).states()
        tables[name] = (
            table.drop(["raw_data"]).sort_by([("uuid", "ascending"), ("x_digest", "ascending")]),
            counts,
            states[0].partitions,
        )
    assert tables["one"] == tables["two"] == tables["twice"]


class Changes(IncrementalConnector):
    """Gives everything first, then what changed since."""

    identity_args = ()

    def __init__(self, items: list[dict[str, Any]]) -> None:
        super().__init__()
        self.items = items

    def _full_sync(self) -> list[dict[str, Any]]:
        return [{**item, "text": "from a full sync"} for item in self.items]

    def _incremental_sync(self, since: str) -> list[dict[str, Any]]:
        return [{**item, "text": f"since {since}"} for item in self.items[-1:]]

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return document(item["id"], item["text"])


class TestJob:
    ITEMS = ({"id": 1}, {"id": 2})

    def test_it_goes_on_where_the_last_run_ended(self, kb):
        ingest(Changes([*self.ITEMS]), str(kb), embed_dim=EMBED_DIM)
        (state,) = FrameDataset.open(str(kb)).states()
        ((_, reached),) = state.partitions.items()
        receipt = ingest(Changes([*self.ITEMS]), str(kb))
        # What shows late at the source is read as well.
        since = datetime.fromisoformat(reached["since"]) - timedelta(minutes=10)
        assert texts_in(kb) == {"1": "from a full sync", "2": f"since {since.isoformat()}"}
        assert (receipt.rows_written, receipt.rows_replaced) == (1, 1)

    def test_it_starts_again_when_told_to(self, kb):
        for _ in range(2):
            ingest(Changes([*self.ITEMS]), str(kb), embed_dim=EMBED_DIM, full=True)
        assert set(texts_in(kb).values()) == {"from a full sync"}

    def test_overwriting_reads_everything(self, kb):
        for _ in range(2):
            ingest(Changes([*self.ITEMS]), str(kb), embed_dim=EMBED_DIM, mode="overwrite")
        assert texts_in(kb) == {"1": "from a full sync", "2": "from a full sync"}

    def test_it_starts_again_after_a_run_that_failed(self, kb):
        ingest(Changes([{"id": 1}]), str(kb), embed_dim=EMBED_DIM)
        before = FrameDataset.open(str(kb)).states()
        with pytest.raises(TooManyFailures):
            ingest(Changes([{"id": 1}, {"id": 2}]), str(kb), enrichers=[Refusing()])
        assert FrameDataset.open(str(kb)).states() == before

    def test_it_returns_the_receipt_of_what_it_did(self, kb):
        receipt = ingest(
            documents(1, 2, {"id": 3, "error": "no"}),
            str(kb),
            run_id="nightly",
            enrichers=[KeywordEnricher()],
            embed_dim=EMBED_DIM,
            workers=2,
        )
        assert (receipt.run_id, receipt.rows_written, receipt.failed) == ("nightly", 2, 1)
        assert not receipt.already_committed
        assert FrameDataset.open(str(kb)).get("doc:1").context == {"keywords": ["text", "of", "1"]}

    def test_dead_letters_are_beside_the_dataset_unless_told(self, kb):
        source = documents(1, {"id": 3, "error": "no"})
        ingest(source, str(kb), run_id="nightly", embed_dim=EMBED_DIM)
        file = Path(default_dead_letters(str(kb), "nightly"))
        assert file.parent.parent == kb.parent
        assert json.loads(file.read_text())["item"] == {"id": 3, "error": "no"}
        ingest(source, f"{kb}/", run_id="second", dead_letters=str(kb.with_name("own.jsonl")))
        assert kb.with_name("own.jsonl").exists()

    def test_arguments_of_the_reading_make_it_another_source(self, kb):
        for sync_kwargs in ({}, {"matching": "2"}):
            ingest(Filtered([*self.ITEMS]), str(kb), embed_dim=EMBED_DIM, sync_kwargs=sync_kwargs)
        assert len(FrameDataset.open(str(kb)).states()) == 2
        assert ids_in(kb) == ["1", "2"]

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"mode": "create"}, DatasetError),
            ({"embed_dim": 7}, SchemaError),
            ({"beam_args": ["--nonsense"]}, ConfigError),
            ({"runner": "NoRunner"}, ConfigError),
            ({"workers": 0}, ConfigError),
            ({"sync_kwargs": {"nonsense": 1}}, ConfigError),
            ({"max_failures": "some"}, ConfigError),
        ],
        ids=str,
    )
    def test_wrong_usage_is_refused_before_anything_is_read(self, kb, options, error):
        run(documents(9), kb)
        unreadable = Documents({"all": [[{"id": 3}]]})
        del unreadable.pages
        with pytest.raises(error):
            ingest(unreadable, str(kb), **options)
        assert FrameDataset.open(str(kb)).version == 1


class Filtered(Changes):
    """Takes an argument to read with."""

    def sync_documents(self, matching: str = "") -> list[dict[str, Any]]:
        return [
            {**item, "text": "x"}
            for item in self.items
            if not matching or item["id"] == int(matching)
        ]


class Refusing:
    """Refuses everything."""

    def enrich(self, record: FrameRecord, source_item: Any) -> FrameRecord:
        raise ValueError("no")
