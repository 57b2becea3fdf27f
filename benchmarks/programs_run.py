"""Measures a source of Airbyte read by ours, by dlt and by Airbyte's own library, in one run.

All run the same program, source-faker, with the same configuration. Its own time, with its lines
going nowhere, is what none of them can be faster than.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from measure import Measurement, run

HERE = Path(__file__).parent
DLT = HERE.parent / ".venv-dlt" / "bin" / "python"
PYAIRBYTE = HERE.parent / ".venv-pyairbyte" / "bin" / "python"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
FAKER = _CACHE / "contextframe-beam" / "programs" / "faker" / "bin" / "source-faker"


def measure(records: int) -> None:
    """Reads the users of the source in each way, once, and prints what it took.

    Args:
        records: How many users there are.
    """
    if not FAKER.exists():
        print("programs were not measured: source-faker is missing (make programs installs it)")
        return
    ways: dict[str, Callable[[Path, Path], Measurement]] = {
        "the program alone": _alone,
        "ours": _ours,
        "dlt": _peer(DLT, "programs_dlt.py"),
        "PyAirbyte": _peer(PYAIRBYTE, "programs_airbyte.py"),
    }
    for name, way in ways.items():
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            config = folder / "faker.json"
            # A seed, so that all read the same; each process counts in its processor time.
            config.write_text(json.dumps({"count": records, "seed": 1, "parallelism": 1}))
            try:
                measured = way(config, folder)
            except FileNotFoundError as error:
                print(f"{name} was not measured: {error.filename} is missing (make bench makes it)")
                continue
            print(
                f"{name:18} {records:,} records {measured.seconds:7.1f} s "
                f"{measured.cpu_seconds:7.1f} CPU s {measured.peak_mb:6.0f} MB",
                flush=True,
            )


def _alone(config: Path, folder: Path) -> Measurement:
    catalog = folder / "catalog.json"
    stream = {
        "name": "users",
        "json_schema": {},
        "supported_sync_modes": ["full_refresh", "incremental"],
    }
    configured = {"stream": stream, "sync_mode": "full_refresh", "destination_sync_mode": "append"}
    catalog.write_text(json.dumps({"streams": [configured]}))
    read = f"{FAKER} read --config {config} --catalog {catalog} > /dev/null"
    return run(["sh", "-c", read])


def _ours(config: Path, folder: Path) -> Measurement:
    command = [sys.executable, "-m", "contextframe_beam", "ingest", "airbyte"]
    command += ["--command", str(FAKER), "--config", str(config), "--streams", "users"]
    return run([*command, "--to", str(folder / "kb.lance")])


def _peer(python: Path, script: str) -> Callable[[Path, Path], Measurement]:
    def read(config: Path, folder: Path) -> Measurement:
        return run([str(python), str(HERE / script), str(FAKER), str(config), str(folder)])

    return read
