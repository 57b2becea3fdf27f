"""The process that has imported what workers need, and forks them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contextframe_beam import FrameRecord
from contextframe_beam.errors import CommitError
from contextframe_beam.pipelines.ingest import ingest
from tests.support.cli_helpers import wait_until
from tests.support.pipeline_helpers import (
    EMBED_DIM,
    TWO_WORKERS,
    Documents,
    document,
    run,
    texts_in,
)

SERVER = "contextframe_beam.pipelines.runners.worker_server"


class Draws(Documents):
    """Its texts are what a worker draws first."""

    def map_to_frame_record(self, item: Any) -> FrameRecord:
        if not hasattr(self, "drawn"):
            self.drawn = np.random.random()
        return document(item["id"], f"{os.getpid()} {self.drawn}")


class KillsTheServer(Documents):
    """Over the first document the server of its worker dies."""

    def map_to_frame_record(self, item: Any) -> FrameRecord:
        Path(self.pages["all"][0][0]["file"]).write_text(str(os.getpid()))
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()
        return document(item["id"])


@pytest.mark.usefixtures("own_worker_server")
def test_workers_draw_numbers_of_their_own(tmp_path):
    kb = tmp_path / "kb.lance"
    run(Draws({f"part-{n}": [[{"id": f"{n}"}]] for n in range(40)}), kb, **TWO_WORKERS)
    drawn = dict(str(text).split() for text in texts_in(kb).values())
    assert len(drawn) == 2
    assert len(set(drawn.values())) == 2


@pytest.mark.usefixtures("own_worker_server")
def test_a_server_that_is_killed_fails_the_run_and_takes_its_workers_with_it(tmp_path):
    kb, file = tmp_path / "kb.lance", tmp_path / "worker"
    source = KillsTheServer({"all": [[{"id": "1", "file": str(file)}]]})
    with pytest.raises(CommitError, match="was killed by signal 9; nothing was committed"):
        ingest(source, str(kb), embed_dim=EMBED_DIM, workers=2)
    assert not kb.exists()
    wait_until(lambda: not Path(f"/proc/{file.read_text()}").exists())


def test_what_it_imports_starts_no_thread_and_is_no_library_that_warns_of_forks():
    code = (
        f"import os, sys, threading; from {SERVER} import _import_all; _import_all();"
        "os.fork() or os._exit(0);"  # before which some libraries end the threads that they have
        "print(len(os.listdir('/proc/self/task')), threading.active_count(),"
        "'lance' in sys.modules, 'apache_beam' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["1", "1", "False", "True"]


@pytest.mark.parametrize("forks", [True, False])
def test_it_tells_which_workers_begin_and_how_they_end(tmp_path, forks):
    code = f"import {SERVER} as server; server._FORKS = {forks}; server.main()"
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PIPELINE_OPTIONS": "nonsense"}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        request = {"environment": environment, "folder": str(tmp_path)}
        server.stdin.write(json.dumps(request).encode() + b"\n")
        server.stdin.flush()
        began, ended = (json.loads(server.stdout.readline()) for _ in range(2))
        server.communicate()
    assert ended == {"ended": began["began"], "code": 1}
    assert server.returncode == 0
