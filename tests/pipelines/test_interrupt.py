"""Ctrl-C and SIGTERM at any time: one message, the dataset as it was, and nothing left behind.

Real signals to real processes, each sent when a process has said that it got so far.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from tests.support.cli_helpers import (
    cli,
    environment,
    is_running,
    run_code,
    start,
    start_code,
    state_of,
    wait_until,
    without_progress,
    write_documents,
)

INTERRUPTED = "Error: interrupted; nothing was committed\n"

SLOW = '''
import os
import threading
from pathlib import Path

from contextframe_beam import FrameRecord
from contextframe_beam.connectors import Page, PaginatedConnector


class Slow(PaginatedConnector):
    """Gives pages until it is large enough, then says so and waits for ever.

    Args:
        flags: Where each partition leaves a file with the number of its process.
        pages: How many pages come first; each has about a megabyte.
        endless: Whether it waits at all.
    """

    def __init__(self, flags: Path, pages: int = 1, endless: bool = True):
        super().__init__()
        self.flags, self.pages, self.endless = flags, pages, endless

    def partitions(self):
        return ["left", "right"]

    def fetch_page(self, partition, cursor):
        page = cursor or 0
        if page == self.pages and self.endless:
            flag = self.flags / partition.id
            flag.with_suffix(".new").write_text(str(os.getpid()))
            flag.with_suffix(".new").rename(flag)
            threading.Event().wait()
        items = [{"id": f"{partition.id}-{page}-{n}"} for n in range(500)]
        return Page(items, next_cursor=page + 1 if page < self.pages else None)

    def map_to_frame_record(self, item):
        return FrameRecord(os.urandom(1000).hex(), unique_id=f"slow:{item['id']}")
'''

BLOCKED = """
import sys
import threading
from pathlib import Path

Path(sys.argv[-1]).touch()
threading.Event().wait()
"""

# A run that was committed and does not end.
COMMITTED = """
import sys
import threading
from pathlib import Path

from contextframe_beam.connectors import JSONFileConnector
from contextframe_beam.pipelines.cli import main as cli
from contextframe_beam.pipelines.cli.watch import run_job
from contextframe_beam.pipelines.ingest import run
from contextframe_beam.pipelines.job import Job

folder, dataset, flag = sys.argv[1:]
job = Job(JSONFileConnector(folder), dataset, run_id="r1")


def begin(job):
    run(job)
    Path(flag).touch()
    threading.Event().wait()


def action(settings):
    print(run_job(job, begin, settings, quiet=True))
    return cli.DONE


cli.end_process_with(action)
"""

# A process that was told to stop cannot commit any more, whatever its threads do.
STOPPED = """
import sys
import threading

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.store.transaction import stop_commits

dataset = FrameDataset.open(sys.argv[1])
dataset.add(FrameRecord("before", unique_id="a"))
assert stop_commits(1.0)
late = threading.Thread(target=dataset.add, args=[FrameRecord("after", unique_id="b")], daemon=True)
late.start()
late.join(1.0)
assert late.is_alive()
"""


@pytest.fixture
def slow(tmp_path: Path) -> str:
    path = tmp_path / "slow.py"
    path.write_text(SLOW)
    return f"{path}:Slow"


@pytest.fixture
def flags(tmp_path: Path) -> Path:
    folder = tmp_path / "flags"
    folder.mkdir()
    return folder


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Where temporary files go; nothing may be left in it."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


def start_slowly(
    slow: str, flags: Path, kb: Path, scratch: Path, *more: object, executed: bool = False
) -> Any:
    """Starts a run and waits until it has begun to write files, and reads on for ever."""
    before = set(kb.glob("data/*"))
    process = start(
        "ingest", slow, "--flags", flags, "--pages", 60, "--to", kb, *more,
        env=environment(TMPDIR=str(scratch)), executed=executed,
    )  # fmt: skip
    wait_until((flags / "left").exists, process)
    wait_until(lambda: set(kb.glob("data/*")) - before, process)
    return process


@pytest.mark.sample(4)
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("exists", [False, True], ids=["new dataset", "existing dataset"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_while_reading_and_writing(
    slow: str,
    flags: Path,
    scratch: Path,
    tmp_path: Path,
    workers: int,
    exists: bool,
    number: signal.Signals,
) -> None:
    kb = tmp_path / "kb.lance"
    if exists:
        docs = write_documents(tmp_path / "docs", {"a.json": {"content": "an earlier one"}})
        assert cli("ingest", "json", "--directory", docs, "--to", kb).code == 0
    before = state_of(kb)
    # One of each number of workers is a program as users start it, with all its imports.
    executed = exists and (number == signal.SIGINT) == (workers == 1)
    process = start_slowly(slow, flags, kb, scratch, "--workers", workers, executed=executed)
    if workers == 2:
        wait_until((flags / "right").exists, process)
    sides = (flags / "left", flags / "right")
    readers = {int(flag.read_text()) for flag in sides if flag.exists()}
    assert len(readers) == workers and (process.pid in readers) == (workers == 1)
    # As a terminal does: the whole group gets it.
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, without_progress(err)) == (1, "", INTERRUPTED)
    assert not any(map(is_running, readers))
    assert state_of(kb) == before
    assert list(scratch.iterdir()) == []
    assert not Path(f"{kb}.dead-letters").exists()


def test_an_interrupted_run_can_simply_be_started_again(
    slow: str, flags: Path, scratch: Path, tmp_path: Path
) -> None:
    kb = tmp_path / "kb.lance"
    process = start_slowly(slow, flags, kb, scratch, "--run-id", "r1")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 1
    result = cli(
        "ingest", slow, "--flags", flags, "--pages", 2, "--no-endless", "--to", kb,
        "--run-id", "r1", "--json",
    )  # fmt: skip
    assert result.code == 0
    assert result.json["rows_written"] == len(FrameDataset.open(str(kb))) == 3000


def test_before_anything_has_begun(tmp_path: Path) -> None:
    script, flag = tmp_path / "blocked.py", tmp_path / "flag"
    script.write_text(BLOCKED)
    process = start("ingest", f"{script}:X", "--to", tmp_path / "kb.lance", flag, executed=True)
    wait_until(flag.exists, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, without_progress(err)) == (1, "", INTERRUPTED)


def test_after_the_commit_the_run_counts_as_done(tmp_path: Path, scratch: Path) -> None:
    docs = write_documents(tmp_path / "docs", {"a.json": {"content": "one"}})
    kb, flag = tmp_path / "kb.lance", tmp_path / "flag"
    process = start_code(COMMITTED, docs, kb, flag, env=environment(TMPDIR=str(scratch)))
    wait_until(flag.exists, process)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "rows_written=1" in out and "already_committed=False" in out
    assert len(FrameDataset.open(str(kb))) == 1
    assert list(scratch.iterdir()) == []


def test_workers_end_when_their_launcher_was_killed(
    slow: str, flags: Path, scratch: Path, tmp_path: Path
) -> None:
    kb = tmp_path / "kb.lance"
    process = start_slowly(slow, flags, kb, scratch, "--workers", 2)
    wait_until((flags / "right").exists, process)
    readers = {int(flag.read_text()) for flag in flags.iterdir()}
    process.kill()
    process.communicate(timeout=60)
    wait_until(lambda: not any(map(is_running, readers)))
    assert not (kb / "_versions").exists()


def test_a_stopped_process_commits_no_more(tmp_path: Path) -> None:
    kb = tmp_path / "kb.lance"
    FrameDataset.create(str(kb), embed_dim=4)
    done = run_code(STOPPED, kb)
    assert done.code == 0, done.err
    assert [record.unique_id for record in FrameDataset.open(str(kb))] == ["a"]


def test_a_signal_that_was_ignored_at_the_start_stays_ignored(tmp_path: Path) -> None:
    """As with nohup, and with what a script starts in the background."""
    script, flag = tmp_path / "blocked.py", tmp_path / "flag"
    script.write_text(BLOCKED.replace("threading.Event().wait()", "sys.stdin.read()"))
    command = [sys.executable, "-m", "contextframe_beam", "ingest", f"{script}:X", str(flag)]
    process = subprocess.Popen(
        ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *command],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    wait_until(flag.exists, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(input="", timeout=60)
    assert process.returncode == 2
    assert "has no class 'X'" in err
