"""The programs that start workers for engines, without an engine."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from contextframe_beam.errors import CommitError, ConfigError
from contextframe_beam.pipelines.runners.boot import packages_in, python_with
from contextframe_beam.pipelines.runners.engines import serve
from tests.support.cli_helpers import environment, is_running, wait_until

MAKES_A_FOLDER = (
    "import time; from contextframe_beam.pipelines.runners import boot;"
    "print(boot._new_folder(), flush=True); time.sleep(600)"
)


def worker(folder: Path) -> tuple[subprocess.Popen[str], Path]:
    """Starts what makes a worker's folder and waits; returns it and the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAKES_A_FOLDER],
        env=environment(TMPDIR=str(folder)),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_the_folder_of_a_worker_that_was_killed_is_removed_by_the_next_one(tmp_path: Path) -> None:
    killed, folder = worker(tmp_path)
    living, other = worker(tmp_path)
    try:
        assert folder.is_dir() and other.is_dir()
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        last, _ = worker(tmp_path)
        last.kill()
        last.wait()
        assert not folder.exists()
        assert other.is_dir()
    finally:
        for process in (killed, living):
            process.kill()
            process.wait()


def test_a_second_pool_at_one_port_is_refused() -> None:
    with serve("worker", "localhost", 0) as address:
        port = int(address.rpartition(":")[2])
        with (
            pytest.raises(ConfigError, match=rf"^cannot listen at {re.escape(address)}"),
            serve("worker", "localhost", port),
        ):
            pass


def test_one_engine_does_not_stop_the_workers_of_another_with_the_same_numbers(
    tmp_path: Path,
) -> None:
    program = tmp_path / "worker"
    program.write_text(
        f"#!/bin/sh\necho $$ > {tmp_path}/${{5#--control_endpoint=}}\nexec sleep 600\n"
    )
    program.chmod(0o755)

    def pid(name: str) -> int:
        file = tmp_path / name
        wait_until(lambda: file.exists() and file.read_text().strip() != "")
        return int(file.read_text())

    with serve(str(program), "localhost", 0) as address, ExitStack() as stack:
        engines = {}
        for name in ("first", "second"):
            # Else both would have one connection, as engines in one process do.
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = stack.enter_context(grpc.insecure_channel(address, options))
            engines[name] = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
            started = engines[name].StartWorker(
                beam_fn_api_pb2.StartWorkerRequest(worker_id="1-1", control_endpoint={"url": name})
            )
            assert not started.error
        first, second = pid("first"), pid("second")
        engines["second"].StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id="1-1"))
        assert not is_running(second)
        assert is_running(first)
        engines["second"].StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id="1-2"))
        assert is_running(first)
        engines["first"].StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id="1-1"))
        assert not is_running(first)


def test_a_worker_with_nothing_to_install_is_this_python(tmp_path: Path) -> None:
    (tmp_path / "submission_environment_dependencies.txt").write_text("")
    assert python_with(packages_in(tmp_path), tmp_path / "environment") == sys.executable
    assert not (tmp_path / "environment").exists()


def test_another_beam_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataflow_python_sdk.tar").write_text("")
    with pytest.raises(CommitError, match=r"^--sdk_location: "):
        packages_in(tmp_path)


def test_packages_that_break_the_worker_are_told(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "setup.py").write_text(
        "from setuptools import setup\nsetup(name='harm', version='1', packages=['apache_beam'])\n"
    )
    (package / "apache_beam").mkdir()
    (package / "apache_beam" / "__init__.py").write_text("raise ImportError('a foreign package')")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", tmp_path, package], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    (tmp_path / "extra_packages.txt").write_text(f"{wheel.name}\n")
    with pytest.raises(CommitError, match=r"a worker does not start:[^$]*a foreign package"):
        python_with(packages_in(tmp_path), tmp_path / "environment")
