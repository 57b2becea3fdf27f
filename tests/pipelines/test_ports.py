"""Nobody on another machine reaches a port of ours: whoever does could run any program."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.worker import worker_pool_main

from contextframe_beam.pipelines.runners import options as runners  # noqa: F401, which keeps Beam's servers local
from contextframe_beam.pipelines.runners.engines import serve
from contextframe_beam.pipelines.runners.local import local_address
from tests.support.cli_helpers import cli, run_code, write_documents
from tests.support.listening import HAS_PROC, Port, ports_below, watched

pytestmark = pytest.mark.skipif(not HAS_PROC, reason="there is no /proc/net/tcp")

# What a worker sees while it reads: the ports of the launcher and of everything below it.
LOOKS = """
from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.frames.record import FrameRecord
from tests.support.listening import ports_below


class Looks(BaseConnector):
    def __init__(self, launcher: int):
        self.launcher = launcher

    def authenticate(self):
        return True

    def sync_documents(self):
        return [f"{one.address} {one.number} {one.is_local}" for one in ports_below(self.launcher)]

    def map_to_frame_record(self, item):
        return FrameRecord(text_content=item, metadata={}, unique_id=item)
"""


@pytest.fixture(scope="module")
def kb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of several small fragments."""
    folder = tmp_path_factory.mktemp("ports")
    for number in range(3):
        write_documents(folder / "in", {f"{number}.json": {"id": number, "text": "doc"}})
        assert cli("ingest", "json", "--directory", folder / "in", "--to", folder / "kb").code == 0
    return folder / "kb"


def of_others(before: list[Port], ports: list[Port]) -> list[Port]:
    known = {(one.address, one.number) for one in before}
    return [one for one in ports if (one.address, one.number) not in known]


def assert_local(ports: list[Port]) -> None:
    assert ports, "nobody listened at all, so there was nothing to see"
    assert [one for one in ports if not one.is_local] == []


@pytest.mark.parametrize("options", [[], ["--debug"], ["--direct_runner_bundle_repeat=1"]])
def test_with_worker_processes(options: list[str], kb: Path, tmp_path: Path) -> None:
    before = ports_below(os.getpid())
    command = ["ingest", "json", "--directory", kb.parent / "in", "--to", tmp_path / "kb"]
    with watched() as seen:
        result = cli(*command, "--workers", 2, *options)
    assert result.code == 0, result
    assert_local(of_others(before, seen))


def test_as_a_worker_sees_it_while_it_reads(tmp_path: Path) -> None:
    from contextframe_beam import FrameDataset

    (tmp_path / "looks.py").write_text(LOOKS)
    assert run_code(LAUNCH, tmp_path, cwd=tmp_path).code == 0
    seen = [record.text_content.split() for record in FrameDataset.open(str(tmp_path / "kb"))]
    # Control, data, state and logging, at either kind of address that the machine has.
    assert len({port for _, port, _ in seen}) == 4
    assert {local for *_, local in seen} == {"True"}


LAUNCH = """
import os, sys
from contextframe_beam.pipelines.cli.main import run

folder = sys.argv[1]
code = run(["ingest", f"{folder}/looks.py:Looks", "--launcher", str(os.getpid()),
            "--to", f"{folder}/kb", "--workers", "2"])
os._exit(code)
"""


def test_with_the_worker_processes_of_beam_that_a_pipeline_in_yaml_may_have() -> None:
    from contextframe_beam.pipelines.yaml import transforms  # noqa: F401

    before = ports_below(os.getpid())
    options = PipelineOptions(direct_num_workers=2, direct_running_mode="multi_processing")
    with watched() as seen, beam.Pipeline(runner="FnApiRunner", options=options) as pipeline:
        pipeline | beam.Create([1, 2, 3]) | beam.Map(lambda one: one + 1)
    assert_local(of_others(before, seen))


def test_in_a_compaction(kb: Path) -> None:
    before = ports_below(os.getpid())
    with watched() as seen:
        result = cli("compact", kb, "--workers", 2)
    assert result.code == 0, result
    assert_local(of_others(before, seen))


def test_in_the_pool_of_workers_that_a_launcher_keeps_for_its_engine() -> None:
    before = ports_below(os.getpid())
    _, server = worker_pool_main.BeamFnExternalWorkerPoolServicer.start()
    try:
        assert_local(of_others(before, ports_below(os.getpid())))
    finally:
        server.stop(None)


def test_in_our_own_pool_of_workers() -> None:
    before = ports_below(os.getpid())
    with serve("true", "localhost", 0):
        assert_local(of_others(before, ports_below(os.getpid())))


def test_in_a_login(tmp_path: Path) -> None:
    from contextframe_beam.connectors.http.login import _Loopback

    before = ports_below(os.getpid())
    with _Loopback(0, "/callback"):
        assert_local(of_others(before, ports_below(os.getpid())))


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("[::]:0", "127.0.0.1:0"),
        ("0.0.0.0:8080", "127.0.0.1:8080"),
        (":50000", "127.0.0.1:50000"),
        ("*:1", "127.0.0.1:1"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("[::1]:5", "[::1]:5"),
        ("worker-3.local:5", "worker-3.local:5"),
    ],
)
def test_only_addresses_that_mean_all_become_local(address: str, local: str) -> None:
    assert local_address(address) == local


def test_a_port_that_everybody_reaches_would_be_seen() -> None:
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        with socket.socket(family) as open_to_all:
            open_to_all.bind((address, 0))
            open_to_all.listen()
            number = open_to_all.getsockname()[1]
            (seen,) = (one for one in ports_below(os.getpid()) if one.number == number)
            assert not seen.is_local
