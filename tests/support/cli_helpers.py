"""Running `contextframe-beam` in tests: in this process, which is fast, or in one of its own."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contextframe_beam import FrameDataset
from contextframe_beam.pipelines.cli.main import run
from tests.support.forked import Forked, can_fork

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Result:
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The standard output, which has to be one JSON value on one line."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)


def cli(*arguments: object) -> Result:
    """Runs a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run([str(argument) for argument in arguments])
    return Result(code, out.getvalue(), err.getvalue())


def start(
    *arguments: object,
    module: str = "contextframe_beam",
    executed: bool = False,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    terminal: int | None = None,
) -> Any:
    """Starts a command in a process of its own, in a session of its own.

    Args:
        arguments: Those of the command.
        module: What `python -m` runs.
        executed: Whether Python has to start anew, which takes longer than most commands.
        cwd: The folder in which it runs.
        env: Its environment; that of this process, in which this checkout is found, by default.
        terminal: What its standard streams are, instead of pipes; it is closed here.
    """
    process = _start(["-m", module, *map(str, arguments)], cwd, env, executed, terminal)
    if terminal is not None:
        os.close(terminal)
    return process


def start_code(
    code: str,
    *arguments: object,
    executed: bool = False,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Any:
    """Starts Python code in a process of its own, as `start` does a command."""
    return _start(["-c", code, *map(str, arguments)], cwd, env, executed)


def _start(
    command: list[str],
    cwd: Path | None,
    env: Mapping[str, str] | None,
    executed: bool,
    terminal: int | None = None,
) -> Any:
    env = environment() if env is None else env
    if not executed and can_fork(env):
        return Forked(command, env, str(cwd or Path.cwd()), terminal)
    streams = subprocess.PIPE if terminal is None else terminal
    return subprocess.Popen(
        [sys.executable, *command],
        stdin=streams,
        stdout=streams,
        stderr=streams,
        text=True,
        start_new_session=True,
        cwd=cwd,
        env=env,
    )


def cli_process(*arguments: object, timeout: float = 120, **options: Any) -> Result:
    """Runs a command in a process of its own; takes the options of `start`."""
    return _result_of(start(*arguments, **options), "", timeout)


def run_code(
    code: str, *arguments: object, told: str = "", timeout: float = 120, **options: Any
) -> Result:
    """Runs Python code that is told something in a process of its own; see `start_code`."""
    return _result_of(start_code(code, *arguments, **options), told, timeout)


def _result_of(process: Any, told: str, timeout: float) -> Result:
    out, err = process.communicate(told, timeout=timeout)
    return Result(process.returncode, out, err)


def environment(**more: str) -> dict[str, str]:
    """Returns this process's environment, in which this checkout is found."""
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{known}" if known else str(ROOT), **more}


def wait_until(condition: Callable[[], object], process: Any = None) -> None:
    """Waits for a condition; fails when `process` ends without it, or after two minutes."""
    deadline = time.monotonic() + 120
    while not condition():
        if process is not None and process.poll() is not None:
            raise AssertionError(f"the process ended: {process.communicate()}")
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def without_progress(text: str) -> str:
    """Leaves out the lines that a run prints every few seconds, which a slow machine gets to."""
    time = r"(?:\d+:)?\d+:\d\d"
    line = rf"^[\w.-]+(?: on \w+)?: [^\n]*, {time}(?:, about {time} left)?\n"
    return re.sub(line, "", text, flags=re.MULTILINE)


def assert_error(result: Result, code: int, *parts: str) -> None:
    """Checks that a command failed with one message, which says all of `parts`, and no more."""
    assert result.code == code, result
    assert result.out == "", result
    err = without_progress(result.err)
    assert err.startswith("Error: "), err
    assert "Traceback" not in err, err
    assert "\nError: " not in err, err
    # A message, and perhaps a line that says where to read on.
    assert len(err.splitlines()) <= 2, err
    for part in parts:
        assert part in err, (part, err)


def state_of(path: Path) -> tuple[int, list[str | None], list[Path]] | None:
    """Returns what must not change when a run fails: version, documents and files; None if none."""
    if not path.exists():
        return None
    dataset = FrameDataset.open(str(path))
    ids = sorted(str(record.unique_id) for record in dataset)
    return dataset.version, ids, sorted(file for file in path.rglob("*") if file.is_file())


def write_documents(folder: Path, documents: Mapping[str, Any]) -> Path:
    """Writes JSON files; bytes and text as they are, other values as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in documents.items():
        if isinstance(document, bytes):
            (folder / name).write_bytes(document)
        else:
            text = document if isinstance(document, str) else json.dumps(document)
            (folder / name).write_text(text, encoding="utf-8")
    return folder


def lines(values: Iterable[Any]) -> str:
    """Returns JSON Lines."""
    return "".join(json.dumps(value) + "\n" for value in values)


def letters_of(dataset: Path) -> list[dict[str, Any]]:
    """Returns all dead letters beside a dataset."""
    files = Path(f"{dataset}.dead-letters").glob("*.jsonl")
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def is_running(process: int) -> bool:
    """Returns whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        pass
    except ProcessLookupError:
        return False
    if Path("/proc").exists():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
