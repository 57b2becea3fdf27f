"""A Flink session cluster, with its workers in a pool of their own: more than one of them reads."""

from __future__ import annotations

import json
import os
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameRecord
from contextframe_beam.pipelines.ingest import ingest
from tests.support.cli_helpers import wait_until
from tests.support.engines import free_port, java, job_server, pool, program
from tests.support.pipeline_helpers import EMBED_DIM, Documents, document, texts_in

pytestmark = [pytest.mark.soak, pytest.mark.engine, pytest.mark.xdist_group("FlinkRunner")]

RUNTIME = "org.apache.flink.runtime"
TASK_MANAGERS = 2
SLOTS = 2


class WhoReads(Documents):
    """Its texts say which process mapped them."""

    def map_to_frame_record(self, item: Any) -> FrameRecord:
        return document(item["id"], str(os.getpid()))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """Runs a job manager and its task managers; gives the cluster's address."""
    rest = free_port()
    settings: dict[str, Any] = {
        "jobmanager.rpc.address": "localhost",
        "jobmanager.rpc.port": free_port(),
        "jobmanager.memory.process.size": "1g",
        "rest.address": "localhost",
        "rest.port": rest,
        "taskmanager.numberOfTaskSlots": SLOTS,
        # Flink's own scripts work these out; its classes want each of them.
        "taskmanager.cpu.cores": SLOTS,
        "taskmanager.memory.task.heap.size": "256m",
        "taskmanager.memory.task.off-heap.size": "0",
        "taskmanager.memory.framework.heap.size": "128m",
        "taskmanager.memory.framework.off-heap.size": "128m",
        "taskmanager.memory.jvm-metaspace.size": "256m",
        "taskmanager.memory.jvm-overhead.min": "64m",
        "taskmanager.memory.jvm-overhead.max": "64m",
        "taskmanager.memory.network.min": "128m",
        "taskmanager.memory.network.max": "128m",
        "taskmanager.memory.managed.size": "32m",
        "io.tmp.dirs": tmp_path,
    }
    lines = [f"{name}: {value}\n" for name, value in settings.items()]
    (tmp_path / "config.yaml").write_text("".join(lines))
    where = ("--configDir", str(tmp_path))
    manager = f"{RUNTIME}.entrypoint.StandaloneSessionClusterEntrypoint"
    tasks = f"{RUNTIME}.taskexecutor.TaskManagerRunner"
    with ExitStack() as stack:
        command = java("FlinkRunner", manager, *where)
        stack.enter_context(program(command, rest, tmp_path / "manager.log"))
        for number in range(TASK_MANAGERS):
            port = free_port()
            command = java("FlinkRunner", tasks, *where, f"-Dtaskmanager.data.port={port}")
            stack.enter_context(program(command, port, tmp_path / f"tasks-{number}.log"))
        wait_until(lambda: _slots(rest) == TASK_MANAGERS * SLOTS)
        yield f"localhost:{rest}"


def _slots(port: int) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://localhost:{port}/overview") as answer:
        return int(json.loads(answer.read())["slots-total"])


def test_partitions_are_read_by_several_workers(cluster, tmp_path):
    pages = {f"part-{number}": [[{"id": f"{number}"}]] for number in range(40)}
    kb = tmp_path / "kb.lance"
    with (
        pool(tmp_path) as address,
        job_server("FlinkRunner", tmp_path, "--flink-master", cluster) as server,
    ):
        arguments = server.arguments(
            f"--environment_config={address}",
            f"--parallelism={TASK_MANAGERS * SLOTS}",
            "--sdk_worker_parallelism=2",
            workers="EXTERNAL",
        )
        receipt = ingest(
            WhoReads(pages), str(kb), embed_dim=EMBED_DIM, runner="FlinkRunner", beam_args=arguments
        )
    # Mapping is fused with reading, and each text names the process that mapped it. Beam deals the
    # processes of a task manager out to all steps in turn: its tasks may share one, those of two
    # task managers never do.
    readers = Counter(texts_in(kb).values())
    assert receipt.rows_written == len(pages)
    assert len(readers) >= TASK_MANAGERS
    assert min(readers.values()) >= len(pages) // (TASK_MANAGERS * SLOTS) // 2
