"""Forks worker processes that already have everything imported.

The import of Beam and Lance takes half a second. This process
(`python -m contextframe_beam.pipelines.runners.worker_server`) does it once, while the launcher
does the same, and forks when the launcher asks for a worker. Each request is a line of JSON on the
standard input, with the worker's environment and folder. It writes a line to the standard output
for each worker that has started or ended. It has no threads and no channels, because a fork would
break them; from Python 3.12 on, a fork of a process with threads is warned of as well.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import select
import signal
import sys
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn

from contextframe_beam.pipelines.process import collect_seldom, import_beam

# The system's own libraries do not survive a fork there.
_FORKS = sys.platform != "darwin"

# Arrow's second allocator, which it does not use by default, starts a thread when it is loaded.
_ALLOCATOR, _WITHOUT_THREAD = "JE_ARROW_MALLOC_CONF", "background_thread:false"

_READ_BYTES = 1 << 16


def main() -> NoReturn:
    """Starts workers until the launcher closes the standard input or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.dup(1)
    os.dup2(2, 1)  # imports and connectors may print
    collect_seldom()
    if _FORKS:
        _import_all()
    signals, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    requests = b""
    while True:
        ready, _, _ = select.select([0, signals], [], [])
        if signals in ready:
            os.read(signals, _READ_BYTES)
            for pid, code in _ended():
                _answer(answers, {"ended": pid, "code": code})
        if 0 in ready:
            read = os.read(0, _READ_BYTES)
            if not read:
                os._exit(0)
            *lines, requests = (requests + read).split(b"\n")
            for line in lines:
                pid = _start(json.loads(line), [answers, signals, wake])
                _answer(answers, {"began": pid})


def _import_all() -> None:
    # Beam logs while it is imported, and the first call would install a handler.
    logging.getLogger().addHandler(logging.NullHandler())
    given = os.environ.get(_ALLOCATOR)
    os.environ[_ALLOCATOR] = f"{given},{_WITHOUT_THREAD}" if given else _WITHOUT_THREAD
    import_beam()
    from apache_beam.runners.worker import sdk_worker_main  # noqa: F401

    # Lance is not imported here, because it warns of forks.
    from contextframe_beam.connectors.read import transform  # noqa: F401
    from contextframe_beam.transforms import elements  # noqa: F401

    # Garbage collections in the workers skip these objects, and so do not copy their memory.
    gc.freeze()


def _start(request: dict[str, Any], ours: list[int]) -> int:
    environment = request["environment"]
    if not _FORKS:
        os.chdir(request["folder"])
        command = [sys.executable, "-m", "contextframe_beam.pipelines.runners.worker"]
        return os.posix_spawn(sys.executable, command, environment, setsid=True)
    pid = os.fork()
    if pid == 0:
        _work(environment, request["folder"], ours)
    return pid


def _work(environment: dict[str, str], folder: str, not_ours: list[int]) -> NoReturn:
    """Becomes a worker, without any state of the server."""
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        for file in not_ours:
            os.close(file)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:] = environment["PYTHONPATH"].split(os.pathsep)
        import numpy as np

        from contextframe_beam.pipelines.runners import worker

        np.random.seed()  # otherwise all workers would draw the same numbers
        worker.main()
    except BaseException:
        from contextframe_beam.connectors.secrets import redact

        sys.stderr.write(redact(traceback.format_exc()))
    finally:
        os._exit(1)


def _ended() -> Iterator[tuple[int, int]]:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, os.waitstatus_to_exitcode(status)


def _answer(file: int, answer: dict[str, int]) -> None:
    os.write(file, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
