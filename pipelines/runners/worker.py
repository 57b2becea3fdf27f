"""The worker process: Beam's own worker, without its noise, which cleans up after itself.

In a local run it is a fork of `worker_server`, or without forks a process
(`python -m contextframe_beam.pipelines.runners.worker`). For an engine, `boot` becomes it. It sends
its logs to its launcher over Beam's log channel, and prints only what the launcher would show too.
It ends when the launcher asks it to or is gone, and then removes unfinished files.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

from contextframe_beam.pipelines import logs, process
from contextframe_beam.pipelines.process import collect_seldom

#: Names a folder to remove when this worker ends.
FOLDER_VARIABLE = "CONTEXTFRAME_WORKER_FOLDER"

_COMMIT_PATIENCE = 30.0


def main() -> NoReturn:
    """Runs the worker until its launcher no longer needs it."""
    process.prepare_worker()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_follow, args=(os.getppid(),), name="follow", daemon=True).start()
    collect_seldom()
    # Before Beam is imported: its imports log, and the first log call installs a handler.
    with logs.of_launcher():
        from apache_beam.runners.worker import sdk_worker_main

        from contextframe_beam.pipelines.runners.harness import redact_reports, sample_often

        sample_often()
        redact_reports()
        if FOLDER_VARIABLE in os.environ:  # a worker of an engine
            from contextframe_beam.pipelines.runners import harness

            harness.take_their_input()
        sdk_worker_main.main(sys.argv)
    end(0)


def end(code: int) -> NoReturn:
    """Ends this process and removes its folder.

    All work is done and reported, so a normal exit of the interpreter would only cost time.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(code)


def _follow(parent: int) -> NoReturn:
    """Stops the worker if its launcher was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    _stop()


def _stop(number: int = 0, frame: FrameType | None = None) -> NoReturn:
    """Ends this process; a commit under way is finished, but files are not."""
    transaction = sys.modules.get("contextframe_beam.store.transaction")
    if transaction is not None:
        from contextframe_beam.store.writer import abort_all

        transaction.stop_commits(_COMMIT_PATIENCE)
        abort_all()
    end(1)


if __name__ == "__main__":
    main()
