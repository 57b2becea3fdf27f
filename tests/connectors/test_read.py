"""ReadFromConnector: real pipelines, in this process and in several."""

import json
import os
import subprocess
import sys
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner, worker_handlers
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.testing.util import assert_that

import contextframe_beam
from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.json_file import JSONFileConnector
from contextframe_beam.connectors.kinds import IncrementalConnector, PaginatedConnector
from contextframe_beam.connectors.page import Page
from contextframe_beam.connectors.read.transform import ReadFromConnector
from contextframe_beam.connectors.registry import load_connector_class
from contextframe_beam.errors import ConfigError
from contextframe_beam.pipelines.runners.local import stay_local

IN_PROCESS = ()
REPEATED = ("--direct_runner_bundle_repeat=1",)
stay_local(worker_handlers)

TWO_PROCESSES = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")


@pytest.fixture(autouse=True)
def workers_find_the_package(monkeypatch):
    """Worker processes import what this process imports, installed or not."""
    homes = [str(Path(contextframe_beam.__file__).parent.parent), str(Path(__file__).parent)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*homes, os.environ.get("PYTHONPATH", "")]))


def run(transform, check, options=IN_PROCESS):
    """Runs a pipeline of one source; `check` is given all its pages."""
    settings = PipelineOptions(list(options))
    encoded = JobServiceHandle.encode_pipeline_options(settings.get_all_options())
    runner = fn_runner.FnApiRunner(
        provision_info=fn_runner.ExtendedProvisionInfo(
            beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
        )
    )
    pipeline = beam.Pipeline(runner=runner, options=settings)
    assert_that(pipeline | transform, check)
    result = pipeline.run()
    result.wait_until_finish()
    return result


def complete(*expected):
    """Checks that a run read these items, each once, and finished what it planned."""

    def check(pages):
        assert [page for page in pages if page.planned][1:] == []
        assert sum(page.planned for page in pages) == sum(page.finished for page in pages) > 0
        found = [json.dumps(item) for page in pages for item in page.items]
        assert sorted(found) == sorted(json.dumps(item) for item in expected)
        assert len({page.source.source_id for page in pages}) == 1

    return check


def ids_are(expected):
    """The same for items with an `id`."""

    def check(pages):
        assert sum(page.planned for page in pages) == sum(page.finished for page in pages) > 0
        assert sorted(item["id"] for page in pages for item in page.items) == expected

    return check


class Simple(BaseConnector):
    """Refuses to be read before it was authenticated, and authenticates only once."""

    def authenticate(self):
        if self.authenticated:
            raise AssertionError("authenticated twice")
        self.authenticated = True
        return True

    def sync_documents(self, count=3):
        if not self.authenticated:
            raise RuntimeError("Not authenticated")
        return list(range(count))


@pytest.mark.sample(2)
@pytest.mark.parametrize("options", [IN_PROCESS, REPEATED, TWO_PROCESSES])
def test_large_files_are_read_in_parallel_each_line_once(tmp_path, options):
    for name in ("a", "b"):
        rows = ({"id": f"{name}{number}", "text": "x" * 100} for number in range(20_000))
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = sorted(f"{name}{number}" for name in "ab" for number in range(20_000))
    run(ReadFromConnector(JSONFileConnector(tmp_path, "*.jsonl")), ids_are(expected), options)


@pytest.mark.parametrize("options", [IN_PROCESS, TWO_PROCESSES])
def test_many_small_files_are_read_once(tmp_path, options):
    for number in range(450):
        (tmp_path / f"{number}.json").write_text(json.dumps({"id": number}))
    (tmp_path / "bad.json").write_text("{")

    def check(pages):
        ids_are(list(range(450)))(pages)
        (letter,) = [letter for page in pages for letter in page.failures]
        assert letter.position == f"{tmp_path}/bad.json"

    run(ReadFromConnector(JSONFileConnector(tmp_path)), check, options)


PAGED = """
import os
from contextframe_beam.connectors import Page, PaginatedConnector

class Channels(PaginatedConnector):
    def __init__(self, count):
        super().__init__()
        self.count = count

    def partitions(self):
        return [f"channel-{number}" for number in range(self.count)]

    def fetch_page(self, partition, cursor):
        at = cursor or 0
        items = [{"id": f"{partition.id}-{at}", "worker": os.getpid()}]
        return Page(items, next_cursor=at + 1 if at < 4 else None, state={"at": at})

class Counted(Channels):
    def partitions(self):
        return ["all"]

    def count_pages(self, partition):
        return self.count * 5

    def fetch_page(self, partition, cursor):
        return Page([{"id": f"{cursor:04}", "worker": os.getpid()}])
"""


@pytest.mark.sample
@pytest.mark.parametrize("options", [IN_PROCESS, TWO_PROCESSES])
@pytest.mark.parametrize("name", ["Channels", "Counted"])
def test_pages_are_read_by_all_workers(tmp_path, options, name):
    (tmp_path / "mine.py").write_text(PAGED)
    connector = load_connector_class(f"{tmp_path}/mine.py:{name}")(20)
    parts = [f"channel-{part}-{page}" for part in range(20) for page in range(5)]
    pages = [f"{page:04}" for page in range(100)]
    expected = sorted(parts) if name == "Channels" else pages
    workers = 2 if options else 1

    def check(pages):
        ids_are(expected)(pages)
        assert len({item["worker"] for page in pages for item in page.items}) == workers
        # The header, which is of no partition, says that all of the source is read.
        states = {page.partition: page.state for page in pages if page.state and page.partition}
        assert len(states) == (20 if name == "Channels" else 0)

    run(ReadFromConnector(connector), check, options)


def test_a_connector_authenticates_once_however_much_is_read():
    run(ReadFromConnector(Simple()), complete(0, 1, 2))


def test_arguments_reach_the_connector():
    run(ReadFromConnector(Simple(), count=2), complete(0, 1))


def test_wrong_arguments_are_refused_while_the_pipeline_is_built():
    with pytest.raises(ConfigError, match="no argument 'cuont' to read with; did you mean count"):
        ReadFromConnector(Simple(), cuont=2)


class Changing(IncrementalConnector):
    def _full_sync(self):
        return ["all"]

    def _incremental_sync(self, since):
        return [since]


def test_a_run_goes_on_where_the_last_one_ended():
    states = {"all": {"since": "2024-01-01T00:00:00+00:00"}}

    def check_changes(pages):
        complete("2023-12-31T23:50:00+00:00")(pages)  # a clock may be ten minutes off
        (state,) = [page.state for page in pages if page.state and page.partition]
        assert state["since"] > "2025"

    run(ReadFromConnector(Changing(), resume_from=states), check_changes)
    run(ReadFromConnector(Changing(), True, states), complete("all"))
    run(ReadFromConnector(Changing()), complete("all"))


def test_a_source_without_anything_still_has_its_header():
    class Empty(PaginatedConnector):
        def partitions(self):
            return []

        def fetch_page(self, partition, cursor):
            raise AssertionError("there is nothing to fetch")

    def check(pages):
        (header,) = pages
        assert (header.planned, header.finished, header.items) == (0, 0, [])
        assert header.source.name == "Empty"

    run(ReadFromConnector(Empty()), check)


class Broken(PaginatedConnector):
    def __init__(self, token):
        super().__init__()
        self.token = token

    def partitions(self):
        return ["good", "bad"]

    def fetch_page(self, partition, cursor):
        if partition.id == "bad":
            raise OSError(f"403 for {self.token}")
        return Page([1])


def test_a_source_that_fails_for_good_fails_the_run_and_tells_no_secret():
    with pytest.raises(
        Exception, match="Broken: partition bad, first page: OSError: 403"
    ) as raised:
        run(ReadFromConnector(Broken("t0psecret-t0psecret")), lambda pages: None)
    assert "t0psecret" not in str(raised.value)


def test_a_refused_login_fails_the_run():
    class Refused(Simple):
        def authenticate(self):
            return False

    with pytest.raises(Exception, match="Refused: authentication failed"):
        run(ReadFromConnector(Refused()), lambda pages: None)


def test_a_run_counts_what_it_read(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n{"id": 2}\nbroken\n')
    result = run(ReadFromConnector(JSONFileConnector(tmp_path, "*.jsonl")), lambda pages: None)
    found = result.metrics().query(MetricsFilter().with_namespace("contextframe"))
    counts = {one.key.metric.name: one.committed for one in found["counters"]}
    assert counts == {"pages": 1, "items": 2, "read_failures": 1, "bytes_read": 27}
    (times,) = found["distributions"]
    assert times.key.metric.name == "fetch_ms"
    assert times.committed.count == 1


def test_its_label_names_the_connector():
    pipeline = beam.Pipeline()
    pages = pipeline | ReadFromConnector(Simple())
    assert ReadFromConnector(Simple()).label == "ReadFromConnector(Simple)"
    assert pages.element_type is Page


def test_only_the_plan_crosses_a_shuffle():
    shuffles = []

    class Visitor(beam.pipeline.PipelineVisitor):
        def visit_transform(self, node):
            if isinstance(node.transform, beam.GroupByKey):
                shuffles.append(node.full_label)

        enter_composite_transform = visit_transform

    pipeline = beam.Pipeline()
    pipeline | "Source" >> ReadFromConnector(Simple())
    pipeline.visit(Visitor())
    assert {label.split("/")[1] for label in shuffles} == {"Spread"}


def test_a_plain_loop_does_not_load_beam(tmp_path):
    code = (
        "import sys\n"
        "from contextframe_beam.connectors.json_file import JSONFileConnector\n"
        "from contextframe_beam.connectors.read.source import Source\n"
        f"connector = JSONFileConnector({str(tmp_path)!r})\n"
        "connector.authenticate()\n"
        "assert len(list(Source(connector).pages())) == 1\n"
        "assert 'apache_beam' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
