"""Measures the main job, from files, against the limit and its peers."""

from __future__ import annotations

import itertools
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from documents import write_documents
from measure import Measurement, in_turn, print_medians, run

HERE = Path(__file__).parent
DLT = HERE.parent / ".venv-dlt" / "bin" / "python"
#: dlt is measured with this many documents, because more would take minutes.
DLT_DOCUMENTS = 100_000


def measure(documents: int, rounds: int, kept: Path | None) -> None:
    """Runs the rounds and prints the medians and ratios.

    Args:
        documents: The number of documents to ingest.
        rounds: How often each job is run.
        kept: The folder where documents are kept between runs.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = kept or Path(scratch)
        large = _documents(folder, documents)
        small = _documents(folder, min(DLT_DOCUMENTS, documents))
        tiny = _documents(folder, min(10_000, documents))
        target = Path(scratch) / "out"
        jobs: dict[str, Callable[[], Measurement]] = {
            "limit": lambda: _python("limit.py", large, target),
            "by hand": lambda: _python("by_hand.py", large, target),
            "ingest, 1 worker": lambda: _ingest(large, target, 1),
            "ingest, 2 workers": lambda: _ingest(large, target, 2),
            f"ingest {_count(small)}, 1 worker": lambda: _ingest(small, target, 1),
            f"ingest {_count(small)}, 2 workers": lambda: _ingest(small, target, 2),
            f"ingest {_count(tiny)}, 1 worker": lambda: _ingest(tiny, target, 1),
        }
        if DLT.exists():
            jobs[f"dlt {_count(small)}"] = lambda: _dlt(small, target)
        medians = in_turn(jobs, rounds, before=lambda: shutil.rmtree(target, ignore_errors=True))
    print_medians(medians)
    _report(medians, large, small, tiny)


def _report(medians: dict[str, Measurement], large: Path, small: Path, tiny: Path) -> None:
    limit, by_hand = medians["limit"].seconds, medians["by hand"].seconds
    print(f"\nspeed with {_count(large)} documents")
    for workers in (1, 2):
        seconds = medians[f"ingest, {workers} worker{'s' * (workers > 1)}"].seconds
        print(
            f"  {workers} worker(s): {limit / seconds:.2f} of the limit, "
            f"{by_hand / seconds:.2f} times the hand-written script"
        )
    dlt = medians.get(f"dlt {_count(small)}")
    if dlt is None:
        print("  dlt was not measured: .venv-dlt is missing (make bench makes it)")
    else:
        one = medians[f"ingest {_count(small)}, 1 worker"].seconds
        two = medians[f"ingest {_count(small)}, 2 workers"].seconds
        print(
            f"  {_count(small)} documents: {dlt.seconds / one:.1f} times dlt with 1 worker, "
            f"{dlt.seconds / two:.1f} with 2"
        )
    sizes = [
        (tiny, f"ingest {_count(tiny)}, 1 worker"),
        (small, f"ingest {_count(small)}, 1 worker"),
    ]
    sizes.append((large, "ingest, 1 worker"))
    for (before, first), (after, second) in itertools.pairwise(sizes):
        added = _number(after) - _number(before)
        if added > 0:
            micros = (medians[second].seconds - medians[first].seconds) / added * 1e6
            print(f"  from {_count(before)} to {_count(after)}: {micros:.1f} us a document more")


def _documents(folder: Path, number: int) -> Path:
    path = folder / str(number)
    if not path.exists():
        write_documents(path, number, 8)
    return path


def _number(documents: Path) -> int:
    return int(documents.name)


def _count(documents: Path) -> str:
    return f"{_number(documents):,}"


def _python(script: str, documents: Path, target: Path) -> Measurement:
    return run([sys.executable, str(HERE / script), str(documents), str(target)])


def _dlt(documents: Path, target: Path) -> Measurement:
    return run(
        [str(DLT), str(HERE / "dlt_load.py"), str(documents), str(target)],
        env={"RUNTIME__DLTHUB_TELEMETRY": "false"},
    )


def _ingest(documents: Path, target: Path, workers: int) -> Measurement:
    command = [sys.executable, "-m", "contextframe_beam", "ingest", "json"]
    command += ["--directory", str(documents), "--pattern", "*.jsonl"]
    command += ["--to", str(target / "kb.lance"), "--workers", str(workers)]
    return run(command)
