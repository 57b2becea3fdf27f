"""Measures reading from an HTTP API against its peers and against the latency."""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from http_api import configuration
from http_server import AT_ONCE, LATENCY
from measure import Measurement, in_turn, print_medians, run

HERE = Path(__file__).parent
DLT = HERE.parent / ".venv-dlt" / "bin" / "python"
AIRBYTE = HERE.parent / ".venv-airbyte" / "bin" / "python"

SHAPES = {"pages": "(a) one endpoint by page", "partitions": "(b) 20 partitions by cursor"}

_COUNT_ROWS = """
import sys, lance
print(lance.dataset(sys.argv[1]).count_rows(sys.argv[2]))
"""


def measure(records: int, rounds: int) -> None:
    """Runs the rounds and prints the medians and ratios.

    Args:
        records: The number of records on the server.
        rounds: How often each job is run.
    """
    with tempfile.TemporaryDirectory() as scratch, _server(records) as address:
        bench = _Bench(address, records, Path(scratch))
        jobs: dict[str, Callable[[], Measurement]] = {}
        for shape in SHAPES:
            jobs.update(bench.jobs(shape))
        medians = in_turn(jobs, rounds, before=bench.clear)
    print_medians(medians)
    print(f"\nHTTP, {records:,} records of 1 KB, {LATENCY * 1000:.0f} ms a request")
    for shape, title in SHAPES.items():
        print(f"  {title}")
        _report(shape, medians, bench)
    for name, python in (("dlt", DLT), ("Airbyte", AIRBYTE)):
        if not python.exists():
            print(f"  {name} was not measured: {python.parts[-3]} is missing (make bench makes it)")


class _Bench:
    """The jobs, and their figures beside the time.

    Args:
        address: The server's address.
        records: The number of its records.
        scratch: A folder for all output.
    """

    def __init__(self, address: str, records: int, scratch: Path) -> None:
        self._address = address
        self._records = records
        self._target = scratch / "out"
        self._scratch = scratch
        #: The seconds of reading without imports, by shape.
        self.reading: dict[str, list[float]] = defaultdict(list)
        #: The numbers of requests at the server, by job.
        self.received: dict[str, dict[str, int]] = {}

    def clear(self) -> None:
        shutil.rmtree(self._target, ignore_errors=True)

    def jobs(self, shape: str) -> dict[str, Callable[[], Measurement]]:
        found = {"read": self._read, "ingest": self._ingest}
        if DLT.exists():
            found["dlt"] = self._dlt
        if AIRBYTE.exists():
            found["Airbyte, reading only"] = self._airbyte
        return {
            name_of(job, shape): lambda job=job, how=how: self._counted(  # type: ignore[misc]
                name_of(job, shape), how, shape
            )
            for job, how in found.items()
        }

    def _counted(self, name: str, how: Callable[[str], Measurement], shape: str) -> Measurement:
        _counts(self._address)
        measured = how(shape)
        self.received[name] = _counts(self._address)
        return measured

    def _read(self, shape: str) -> Measurement:
        seconds = self._scratch / "seconds"
        measured = run(
            [
                sys.executable,
                str(HERE / "http_read.py"),
                str(self._config(shape)),
                str(self._records),
                str(seconds),
            ]
        )
        self.reading[shape].append(float(seconds.read_text()))
        return measured

    def _ingest(self, shape: str) -> Measurement:
        command = [sys.executable, "-m", "contextframe_beam", "ingest"]
        command += ["api"]
        command += ["--config", str(self._config(shape)), "--to", str(self._target / "kb.lance")]
        measured = run(command)
        # Beside the documents there are two rows of state.
        self._check_rows(self._target / "kb.lance", "record_type = 'document'")
        return measured

    def _dlt(self, shape: str) -> Measurement:
        measured = run(
            [str(DLT), str(HERE / "http_dlt.py"), shape, self._address, str(self._target)],
            env={"RUNTIME__DLTHUB_TELEMETRY": "false"},
        )
        (table,) = self._target.glob("*/*$items")
        self._check_rows(table)
        return measured

    def _airbyte(self, shape: str) -> Measurement:
        script = str(HERE / "http_airbyte.py")
        return run([str(AIRBYTE), script, shape, self._address, str(self._records)])

    def _config(self, shape: str) -> Path:
        path = self._scratch / f"{shape}.yaml"
        path.write_text(configuration(shape, self._address))
        return path

    def _check_rows(self, dataset: Path, condition: str = "true") -> None:
        # In another process, because our imports would count as memory of those that we start.
        command = [sys.executable, "-c", _COUNT_ROWS, str(dataset), condition]
        rows = int(subprocess.check_output(command, text=True))
        if rows != self._records:
            raise RuntimeError(f"{dataset} holds {rows} records, not {self._records}")


def name_of(job: str, shape: str) -> str:
    """Returns the name of a job in the table."""
    return f"{job}, {SHAPES[shape][:3]}"


def _report(shape: str, medians: dict[str, Measurement], bench: _Bench) -> None:
    ours = medians[name_of("ingest", shape)].seconds
    for peer in ("dlt", "Airbyte, reading only"):
        name = name_of(peer, shape)
        if name in medians:
            sent = bench.received[name]
            print(
                f"    {medians[name].seconds / ours:.1f} times {peer} "
                f"({sent['requests']} requests, at most {sent['at_once']} at once)"
            )
    name = name_of("read", shape)
    sent = bench.received[name]
    bound = sent["requests"] * LATENCY / AT_ONCE
    reading = statistics.median(bench.reading[shape])
    print(
        f"    reading took {reading:.2f} s, {reading / bound:.2f} times the latency bound of "
        f"{bound:.2f} s ({sent['requests']} requests, at most {sent['at_once']} at once)"
    )
    print(f"    the whole ingest took {ours / bound:.2f} times that")


@contextlib.contextmanager
def _server(records: int) -> Iterator[str]:
    command = [sys.executable, str(HERE / "http_server.py"), str(records)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            raise RuntimeError("the benchmark's server did not start")
        try:
            yield address
        finally:
            process.communicate()


def _counts(address: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{address}/_counts") as response:
        found: Any = json.load(response)
    return {str(name): int(number) for name, number in found.items()}
