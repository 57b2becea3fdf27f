"""What was committed stays done, whatever becomes of the standard streams."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.pipelines.cli.main import run
from tests.support.cli_helpers import cli, environment, write_documents

FULL = Path("/dev/full")
needs_full_disk = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")

PROGRAM = f"{sys.executable} -m contextframe_beam"
INGEST = f"{PROGRAM} ingest json --directory in --to kb.lance"


def in_shell(command: str, folder: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_documents(tmp_path / "in", {"1.json": {"id": 1, "text": "doc"}})
    return tmp_path


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "streams_of_run",
    [
        pytest.param(">/dev/full", marks=needs_full_disk, id="the disk of the output is full"),
        pytest.param(
            "--workers 2 -v >/dev/full 2>/dev/full",
            marks=needs_full_disk,
            id="the disk of both is full",
        ),
        pytest.param(">&-", id="the output is closed"),
        pytest.param("--json 2>&-", id="the errors are closed"),
        pytest.param("--workers 2 <&- >&- 2>&-", id="all are closed"),
    ],
)
def test_a_run_is_committed_and_successful(streams_of_run: str, folder: Path) -> None:
    done = in_shell(f"{INGEST} {streams_of_run}", folder)
    assert done.returncode == 0, done
    assert len(FrameDataset.open(str(folder / "kb.lance"))) == 1


def test_a_run_is_successful_when_nobody_reads_what_it_says(folder: Path) -> None:
    unread, both = os.pipe()
    os.close(unread)
    done = subprocess.run(
        [*INGEST.split(), "-v"],
        cwd=folder,
        env=environment(),
        stdout=both,
        stderr=both,
        timeout=120,
    )
    os.close(both)
    assert done.returncode == 0
    assert len(FrameDataset.open(str(folder / "kb.lance"))) == 1


@needs_full_disk
@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_a_receipt_that_cannot_be_written_goes_to_the_errors(
    as_json: list[str], folder: Path
) -> None:
    kb = folder / "kb.lance"
    err = io.StringIO()
    with FULL.open("w") as full, redirect_stdout(full), redirect_stderr(err):
        code = run(["ingest", "json", "--directory", f"{folder}/in", "--to", str(kb), *as_json])
    assert code == 0
    warning, _, receipt = err.getvalue().partition("\n")
    assert warning.startswith("Warning: it is done, but the standard output cannot be written: ")
    assert "No space left on device" in warning
    if as_json:
        assert json.loads(receipt)["rows_written"] == 1
    else:
        assert receipt.startswith("wrote 1 document (version 1 ")


@needs_full_disk
@pytest.mark.parametrize(
    "command",
    [
        ["compact"],
        ["cleanup"],
        ["rollback", "--to", "1"],
        ["state", "reset"],
    ],
    ids=" ".join,
)
def test_so_it_is_with_all_that_changes_a_dataset(command: list[str], folder: Path) -> None:
    kb = str(folder / "kb.lance")
    for _ in range(2):
        assert cli("ingest", "json", "--directory", folder / "in", "--to", kb, "--full").code == 0
    name = command[:2] if command[0] == "state" else command[:1]
    err = io.StringIO()
    with FULL.open("w") as full, redirect_stdout(full), redirect_stderr(err):
        code = run([*name, kb, *command[len(name) :]])
    assert code == 0, err.getvalue()
    assert err.getvalue().startswith("Warning: it is done, but ")


@needs_full_disk
def test_a_command_that_only_tells_something_fails_when_it_cannot(folder: Path) -> None:
    done = in_shell(f"{PROGRAM} connectors >/dev/full", folder)
    assert done.returncode == 1
    assert done.stderr == (
        "Error: the standard output cannot be written: No space left on device\n"
    )


def test_a_reader_who_has_seen_enough_ends_it_in_peace(folder: Path) -> None:
    kb = folder / "kb.lance"
    assert cli("ingest", "json", "--directory", folder / "in", "--to", kb).code == 0
    done = in_shell(f"set -o pipefail; {PROGRAM} inspect kb.lance | true", folder)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_an_encoding_lacks_is_escaped(folder: Path) -> None:
    code = (
        "from contextframe_beam.pipelines import process; process.prepare(); "
        "print('\\u4e2d \\udcff')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(PYTHONIOENCODING="ascii"),
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.returncode) == ("\\u4e2d \\udcff\n", 0)


def test_no_file_takes_the_place_of_a_closed_stream(folder: Path) -> None:
    code = (
        "from contextframe_beam.pipelines import process; process.prepare(); import os, sys; "
        "file = open('opened', 'w'); print('out'); print('err', file=sys.stderr); "
        "sys.stdout.flush(); os._exit(0 if file.fileno() > 2 else 1)"
    )
    done = in_shell(f'{sys.executable} -c "{code}" <&- >&- 2>&-', folder)
    assert done.returncode == 0
    assert (folder / "opened").read_text() == ""
