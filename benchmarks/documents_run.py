"""Measures documents to vectors: a first run, and what changes cost, beside the limit and peers.

300 real files are parsed, cut, embedded by the static model of wordllama (256 numbers) and stored
in Lance, then again unchanged, touched, with one paragraph changed, with a file renamed and with
one deleted. Each party has a copy of the folder and its own store, and each run is a process.

- the limit: what ours does with a file, in a loop that neither knows what was there nor stores it
  (`documents_limit.py`); the limit of the peers' libraries is beside it (`documents_peers.py`);
- ours: `contextframe-beam ingest files --mode mirror --embed wordllama`, chunks of 256 tokens;
- CocoIndex, LangChain's `index`, LlamaIndex's pipeline and Unstructured's, chunks of 1,000
  characters; Unstructured's parses in its own way, and stores files of JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import documents_corpus as corpus

HERE = Path(__file__).parent
PEERS = ("cocoindex", "langchain", "llamaindex", "unstructured")

#: What is changed before each step.
STEPS: dict[str, Callable[[Path], None]] = {
    "first run": lambda folder: None,
    "unchanged": lambda folder: None,
    "touched": corpus.touch,
    "one paragraph": corpus.change_paragraph,
    "renamed": corpus.rename_long,
    "deleted": corpus.delete_long,
}

_LIMIT, _LIMIT_OF_PEERS, OURS = "limit", "limit of peers", "ours"
_BECOME_SUBREAPER = 36
_SAMPLE_SECONDS = 0.05
_READ_LONG_AGO = 1_000_000_000

_VERSION = """
import sys, lance
print(lance.dataset(sys.argv[1]).version)
"""


@dataclass(frozen=True)
class Step:
    """What one run took.

    Attributes:
        cpu: Seconds of all its processes.
        seconds: From its start to its end.
        peak_mb: The most memory that its processes had together, what they share counted once.
        read: Files that were read, as the file system says.
        parsed: Files that were parsed.
        embedded: Texts that were embedded.
        versions: Versions that the Lance table grew by.
    """

    cpu: float
    seconds: float
    peak_mb: float
    read: int
    parsed: int
    embedded: int
    versions: int


def measure(rounds: int, kept: Path | None, workers: int = 1) -> None:
    """Runs the rounds and prints the medians and ratios.

    Args:
        rounds: How often each party does all steps.
        kept: A folder in which packages are kept between runs.
        workers: How many workers ours has.
    """
    ctypes.CDLL(None).prctl(_BECOME_SUBREAPER, 1)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "documents")
        corpus.make_corpus(source, kept or Path(scratch))
        files = corpus.files_of(source)
        size = sum(path.stat().st_size for path in files)
        print(f"{len(files)} files, {size / 1e6:.2f} MB", flush=True)
        parties = _parties(workers)
        found: dict[tuple[str, str], list[Step | None]] = {}
        for number in range(rounds):
            for name, command in parties.items():
                place = Path(scratch, "party")
                shutil.copytree(source, place / "documents")
                steps = list(STEPS) if name == OURS or name in PEERS else ["first run"]
                for step in steps:
                    STEPS[step](place / "documents")
                    measured = _step(command, place)
                    found.setdefault((name, step), []).append(measured)
                    print(f"round {number + 1}: {name}: {step}: {measured}", flush=True)
                shutil.rmtree(place)
    _report({key: _median(runs) for key, runs in found.items()}, list(parties))


_Command = Callable[[Path], list[str]]


def _parties(workers: int) -> dict[str, _Command]:
    found: dict[str, _Command] = {
        _LIMIT: partial(_script, sys.executable, "documents_limit.py", store=False),
        OURS: partial(_ours, workers),
    }
    for name in PEERS:
        python = HERE.parent / f".venv-{name}" / "bin" / "python"
        if not python.exists():
            print(f"{name} was not measured: .venv-{name} is missing (make bench makes it)")
            continue
        if _LIMIT_OF_PEERS not in found:
            found[_LIMIT_OF_PEERS] = partial(_script, python, "documents_peers.py", store=False)
        found[name] = partial(_script, python, f"documents_{name}.py", store=True)
    return found


def _ours(workers: int, place: Path) -> list[str]:
    command = [sys.executable, "-m", "contextframe_beam", "ingest", "files", "--mode", "mirror"]
    command += ["--directory", str(place / "documents"), "--to", str(place / "store" / "kb.lance")]
    return [*command, "--embed", "wordllama", "--workers", str(workers), "--json"]


def _script(python: str | Path, script: str, place: Path, *, store: bool) -> list[str]:
    command = [str(python), str(HERE / script), str(place / "documents")]
    return [*command, *([str(place / "store")] if store else []), str(place / "note")]


def _step(command: _Command, place: Path) -> Step | None:
    """Runs a step; None if it fails."""
    files = corpus.files_of(place / "documents")
    for path in files:
        # A file system that notes readings only sometimes does so when the last was that long ago.
        changed = path.stat().st_mtime_ns
        os.utime(path, ns=(_READ_LONG_AGO, changed))
    note = place / "note"
    note.unlink(missing_ok=True)
    before = _version(place / "store")
    ended = _run(command(place))
    if ended is None:
        return None
    cpu, seconds, peak, printed = ended
    told = json.loads(note.read_text() if note.exists() else printed.strip().splitlines()[-1])
    read = sum(path.stat().st_atime_ns != _READ_LONG_AGO for path in files)
    versions = _version(place / "store") - before
    return Step(cpu, seconds, peak, read, told["parsed"], told["texts_embedded"], versions)


def _run(command: list[str]) -> tuple[float, float, float, str] | None:
    """Returns the seconds and memory of a process and all that it started, and what it printed."""
    env = {**os.environ, "COCOINDEX_DISABLE_USAGE_TRACKING": "1", "PYTHONWARNINGS": "ignore"}
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, env=env, text=True
        )
        memory = _Memory(process.pid)
        memory.start()
        assert process.stdout is not None
        printed = process.stdout.read()
        process.stdout.close()
        cpu = 0.0
        # Those that outlive the one that started them become children of this process.
        while True:
            try:
                pid, status, usage = os.wait3(0)
            except ChildProcessError:
                break
            cpu += usage.ru_utime + usage.ru_stime
            if pid == process.pid:
                process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        memory.stop()
        if process.returncode:
            errors.seek(0)
            print(f"failed: {' '.join(errors.read()[-300:].split())}", flush=True)
            return None
    return cpu, seconds, memory.peak / 1e6, printed


class _Memory(threading.Thread):
    """Samples the memory of a process and those it started, shared pages counted once (Linux)."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._pid = pid
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            self.peak = max(self.peak, _memory_of(self._pid))

    def stop(self) -> None:
        self._ended.set()
        self.join()


def _memory_of(pid: int) -> int:
    total = 0
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total = int(line.split()[1]) * 1024
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            total += sum(_memory_of(int(child)) for child in children.read_text().split())
    except OSError:  # it has ended
        return total
    return total


def _version(store: Path) -> int:
    tables = list(store.glob("*.lance"))
    if not tables:
        return 0
    command = [sys.executable, "-c", _VERSION, str(tables[0])]
    return int(subprocess.check_output(command, text=True))


def _median(runs: list[Step | None]) -> Step | None:
    done = [run for run in runs if run is not None]
    if not done:
        return None
    counts = (max(getattr(run, name) for run in done) for name in ("parsed", "embedded"))
    return Step(
        statistics.median(run.cpu for run in done),
        statistics.median(run.seconds for run in done),
        max(run.peak_mb for run in done),
        max(run.read for run in done),
        *counts,
        max(run.versions for run in done),
    )


def _report(medians: dict[tuple[str, str], Step | None], parties: list[str]) -> None:
    print(
        f"\n{'median of each':32} {'CPU s':>7} {'seconds':>8} {'peak MB':>8} {'read':>5} "
        f"{'parsed':>7} {'embedded':>9} {'versions':>9}"
    )
    for step in STEPS:
        for name in parties:
            if (name, step) not in medians:
                continue
            one = medians[name, step]
            title = f"{step}, {name}"
            if one is None:
                print(f"{title:32} {'fails':>7}")
                continue
            print(
                f"{title:32} {one.cpu:7.2f} {one.seconds:8.2f} {one.peak_mb:8.0f} {one.read:5} "
                f"{one.parsed:7} {one.embedded:9} {one.versions:9}"
            )
    limit, ours = medians[_LIMIT, "first run"], medians[OURS, "first run"]
    assert limit is not None
    assert ours is not None
    print(f"\nthe first run takes {ours.cpu / limit.cpu:.2f} times the CPU time of the limit")
    for name in parties:
        one = medians.get((name, "first run"))
        if name in PEERS and one is not None:
            print(f"  {name} takes {one.cpu / ours.cpu:.2f} times as much as ours")
