"""Measures connectors of services beside their peers: what they find, and at what cost.

Each reads the same world, reads it again unchanged, and again after an edit, a comment and a
delete. The world checks each request, so seconds tell of the world as well.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from measure import Measurement, run

HERE = Path(__file__).parent
# The world needs what the tests need.
TESTS = HERE.parent / ".venv" / "bin" / "python"
AIRBYTE = HERE.parent / ".venv-airbyte" / "bin" / "python"
LLAMAINDEX = HERE.parent / ".venv-llamaindex" / "bin" / "python"
TOKEN = "ghp_all"
STEPS = ("first", "unchanged", "edit", "comment", "delete")

_COUNT_KINDS = """
import json, sys
from collections import Counter
from contextframe_beam import FrameDataset
names = {"review-comment": "line comments"}
kinds = Counter(one.metadata["kind"] for one in FrameDataset.open(sys.argv[1]))
print(json.dumps({names.get(kind, f"{kind}s"): count for kind, count in kinds.items()}))
"""


def measure(issues: int) -> None:
    """Reads the repository with each connector, and prints what it found and asked.

    Args:
        issues: How many issues and pull requests the repository has.
    """
    jobs: dict[str, Callable[[str, Path], tuple[Measurement, dict[str, int]]]] = {
        # Peers do not read reviews, which are a request for each pull request.
        "ours": partial(_ours, "files,issues,pulls,comments"),
        "with reviews": partial(_ours, "files,issues,pulls,comments,reviews"),
    }
    for name, python, script in (
        ("Airbyte", AIRBYTE, "connectors_airbyte.py"),
        ("LlamaIndex", LLAMAINDEX, "connectors_llamaindex.py"),
    ):
        if python.exists():
            jobs[name] = _peer(python, script, has_state=name == "Airbyte")
        else:
            print(f"{name} was not measured: {python.parts[-3]} is missing (make bench makes it)")
    for name, job in jobs.items():
        with tempfile.TemporaryDirectory() as scratch, _World(issues) as world:
            _report(name, job, world, Path(scratch))


def _report(
    name: str,
    job: Callable[[str, Path], tuple[Measurement, dict[str, int]]],
    world: _World,
    scratch: Path,
) -> None:
    for step in STEPS:
        world.tell(step)
        measured, found = job(world.url, scratch)
        asked = world.tell("")["requests"]
        print(f"{name:12} {step:10} {asked:5} requests {measured.seconds:7.2f} s", flush=True)
        if step == "first":
            shown = [f"{found.get(kind, 0)} of {n} {kind}" for kind, n in world.there.items()]
            print(f"{'':12} found {', '.join(shown)}", flush=True)


def _ours(resources: str, url: str, scratch: Path) -> tuple[Measurement, dict[str, int]]:
    to = str(scratch / "kb.lance")
    command = [sys.executable, "-m", "contextframe_beam", "ingest", "github", "--base-url", url]
    command += ["--repositories", "acme/app", "--token", "env:BENCH_TOKEN", "--to", to]
    command += ["--resources", resources]
    measured = run(command, env={"BENCH_TOKEN": TOKEN})
    # In another process, because our imports would count as memory of those that we start.
    found = subprocess.check_output([sys.executable, "-c", _COUNT_KINDS, to], text=True)
    return measured, json.loads(found)


def _peer(
    python: Path, script: str, has_state: bool
) -> Callable[[str, Path], tuple[Measurement, dict[str, int]]]:
    def job(url: str, scratch: Path) -> tuple[Measurement, dict[str, int]]:
        printed = scratch / "printed"
        command = [str(python), str(HERE / script), url, TOKEN]
        command += [str(scratch / "state")] if has_state else []
        shell = ["sh", "-c", 'out=$1; shift; exec "$@" > "$out"', "sh", str(printed), *command]
        measured = run(shell)
        return measured, json.loads(printed.read_text().splitlines()[-1])

    return job


class _World:
    """The world's process."""

    def __init__(self, issues: int) -> None:
        command = [str(TESTS), str(HERE / "connectors_world.py"), str(issues)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        told = self._read()
        self.url, self.there = str(told["url"]), dict(told["there"])

    def tell(self, line: str) -> dict[str, Any]:
        """Tells it what to change, and returns what was asked since the last time."""
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)
        return self._read()

    def __enter__(self) -> _World:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        return told
