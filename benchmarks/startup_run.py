"""Measures the time of a run until its first record, by engine."""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from engine_servers import job_server
from measure import Measurement, in_turn, run

from contextframe_beam.pipelines.runners.engines import ENGINES

HERE = Path(__file__).parent


def measure(rounds: int) -> None:
    """Runs the rounds and prints seconds to the first record and to the end of a tiny run.

    Args:
        rounds: How often each is run.
    """
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as servers:
        to, note = Path(scratch) / "out", Path(scratch) / "note"
        first: dict[str, list[float]] = {}
        jobs: dict[str, Callable[[], Measurement]] = {}

        def add(name: str, *more: str) -> None:
            first[name] = []
            jobs[name] = partial(_tiny, to, note, first[name], more)

        add("in process, 1 worker")
        add("in process, 2 workers", "--workers=2")
        skipped = []
        for runner, engine in ENGINES.items():
            why = engine.missing()
            if why is not None:
                skipped.append(f"{engine.name} was not measured: {why}")
                continue
            add(f"{engine.name}, started", f"--runner={runner}")
            endpoint = servers.enter_context(job_server(runner))
            add(
                f"{engine.name}, running",
                *(f"--runner={runner}", f"--job_endpoint={endpoint}"),
                "--environment_type=LOOPBACK",
            )
        medians = in_turn(jobs, rounds, before=lambda: shutil.rmtree(to, ignore_errors=True))
    print(f"\n{'median of each':30} {'to the first record, s':>23} {'to the end, s':>15}")
    for name, figures in medians.items():
        print(f"{name:30} {statistics.median(first[name]):23.2f} {figures.seconds:15.2f}")
    for line in skipped:
        print(line)


def _tiny(to: Path, note: Path, first: list[float], more: tuple[str, ...]) -> Measurement:
    began = time.time()
    command = [sys.executable, "-m", "contextframe_beam", "ingest"]
    command += [f"{HERE / 'startup_source.py'}:Ten", "--note", str(note), "--to", str(to), *more]
    measurement = run(command)
    first.append(float(note.read_text()) - began)
    return measurement
