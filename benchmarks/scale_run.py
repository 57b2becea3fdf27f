"""Measures work for the processor on one and two workers, in process and on Flink.

The limit is the same work in plain Python on the same number of processes.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from documents import write_documents
from engine_servers import worker_pool
from measure import Measurement, in_turn, print_medians, run

from contextframe_beam.pipelines.runners.engines import ENGINES

HERE = Path(__file__).parent
WORKERS = 2


def measure(documents: int, rounds: int) -> None:
    """Runs the rounds and prints the medians and how much faster two workers are than one.

    Args:
        documents: The number of documents to enrich, at about 3 ms each.
        rounds: How often each job is run.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder, to = Path(scratch) / "documents", Path(scratch) / "out"
        write_documents(folder, documents, 8)
        jobs: dict[str, Callable[[], Measurement]] = {}
        for workers in (1, WORKERS):
            jobs[f"alone, {workers}"] = partial(_alone, folder, workers)
            jobs[f"in process, {workers}"] = partial(_ingest, folder, to, f"--workers={workers}")
        without_flink = ENGINES["FlinkRunner"].missing()
        if without_flink is None:
            for workers in (1, WORKERS):
                jobs[f"Flink, {workers}"] = partial(_on_flink, folder, to, workers)
        medians = in_turn(jobs, rounds, before=lambda: shutil.rmtree(to, ignore_errors=True))
    print_medians(medians)
    print(f"\n{documents:,} documents, {os.cpu_count()} processors: {WORKERS} workers against 1")
    for name in ("alone", "in process", "Flink"):
        if f"{name}, 1" in medians:
            one, several = (medians[f"{name}, {workers}"].seconds for workers in (1, WORKERS))
            limit = medians[f"alone, {WORKERS}"].seconds
            print(
                f"  {name:10} {one / several:.2f} times as fast, {limit / several:.2f} of the limit"
            )
    if without_flink is not None:
        print(f"  Flink was not measured: {without_flink}")


def _alone(documents: Path, processes: int) -> Measurement:
    return run([sys.executable, str(HERE / "scale_alone.py"), str(documents), str(processes)])


def _ingest(documents: Path, to: Path, *more: str) -> Measurement:
    command = [sys.executable, "-m", "contextframe_beam", "ingest", "json"]
    command += ["--directory", str(documents), "--pattern", "*.jsonl", "--to", str(to)]
    command += ["--enrich", f"{HERE / 'fingerprints.py'}:Fingerprints", *more]
    return run(command)


def _on_flink(documents: Path, to: Path, workers: int) -> Measurement:
    # Workers in the launcher would be threads, and share its interpreter.
    with worker_pool() as pool:
        return _ingest(
            *(documents, to, "--runner=FlinkRunner", f"--parallelism={workers}"),
            *("--environment_type=EXTERNAL", f"--environment_config={pool}"),
            f"--sdk_worker_parallelism={workers}",
        )
