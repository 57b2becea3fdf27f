"""Measures upserts into datasets of several sizes, against `merge_insert` by hand and dlt.

Each is a whole process, from its start to its end. It reads the same file of JSON Lines and leaves
a dataset with the same documents, without an index on their keys:

- ours: `contextframe-beam ingest json`, an Apache Beam pipeline in one process; half a second of
  its CPU time is the import of Beam;
- by hand: only `merge_insert` with a digest and a state row (`upsert_by_hand.py`);
- dlt: its merge into its Lance destination (`upsert_dlt.py`), in separate commits for data and
  state. It continues in the dataset that it made, so after the first round it has all rows.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from measure import Measurement, in_turn, print_medians, run
from upsert_data import make_dataset, write_changes

HERE = Path(__file__).parent
DLT = HERE.parent / ".venv-dlt" / "bin" / "python"
CHANGES = 10_000
SIZES = (100_000, 1_000_000, 5_000_000)
PEERS_AT = 1_000_000
MANY = 1_000_000
FILES = 10_000


def measure(rounds: int) -> None:
    """Runs the rounds and prints the medians and ratios; needs about 10 GB of disk."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, kept = Path(scratch) / "docs", Path(scratch) / "kept"
        write_changes(folder, 0, CHANGES)
        for size in SIZES:
            make_dataset(folder, kept / str(size), size)
        jobs: dict[str, Callable[[], Measurement]] = {}
        for size in SIZES:
            jobs[f"upsert into {size:,}"] = partial(_ingest, folder, kept, size, CHANGES)
        jobs[f"{MANY:,} into {SIZES[-1]:,}"] = partial(_ingest, folder, kept, SIZES[-1], MANY)
        _run_script(sys.executable, "upsert_by_hand.py", "--from", kept / str(PEERS_AT), kept / "h")
        jobs["by hand"] = partial(_by_hand, folder, kept)
        if DLT.exists():
            state = kept / "dlt" / "state"
            _run_script(DLT, "upsert_dlt.py", "--make", PEERS_AT, folder, kept / "dlt/data", state)
            jobs["dlt"] = partial(_dlt, folder, kept)
        medians = in_turn(jobs, rounds, before=lambda: None)
    print_medians(medians)
    small, ours = (medians[f"upsert into {size:,}"] for size in (SIZES[0], PEERS_AT))
    large = medians[f"upsert into {SIZES[-1]:,}"]
    print(f"\n{SIZES[-1]:,} rows take {large.seconds / small.seconds:.2f} times {SIZES[0]:,}")
    for peer in ("by hand", "dlt"):
        if peer in medians:
            ratio = medians[peer].seconds / ours.seconds
            print(f"at {PEERS_AT:,}: {peer} takes {ratio:.2f} times as long")
    subprocess.run([sys.executable, str(HERE / "upsert_fragments.py"), str(FILES)], check=True)


def _fresh(source: Path, to: Path) -> Path:
    """Copies a dataset by hard links, because its files are never changed in place."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(source, to, copy_function=lambda one, other: Path(other).hardlink_to(one))
    return to


def _ingest(folder: Path, kept: Path, size: int, changes: int) -> Measurement:
    write_changes(folder, size - changes // 2, changes)
    to = _fresh(kept / str(size), kept / "out")
    command = [sys.executable, "-m", "contextframe_beam", "ingest", "json"]
    command += ["--directory", str(folder), "--pattern", "*.jsonl", "--to", str(to)]
    return run(command)


def _by_hand(folder: Path, kept: Path) -> Measurement:
    write_changes(folder, PEERS_AT - CHANGES // 2, CHANGES)
    return _run_script(
        sys.executable, "upsert_by_hand.py", folder, _fresh(kept / "h", kept / "out")
    )


def _dlt(folder: Path, kept: Path) -> Measurement:
    write_changes(folder, PEERS_AT - CHANGES // 2, CHANGES)
    # dlt keeps addresses in its state, so it continues in the same place: from the second round
    # on it already has all its rows.
    return _run_script(DLT, "upsert_dlt.py", folder, kept / "dlt/data", kept / "dlt" / "state")


def _run_script(python: object, script: str, *arguments: object) -> Measurement:
    command = [str(python), str(HERE / script), *map(str, arguments)]
    return run(command, env={"RUNTIME__DLTHUB_TELEMETRY": "false"})
