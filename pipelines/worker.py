"""The worker process of a local run with several workers: Beam's own, without its noise.

Beam starts it (`python -m contextframe_beam.pipelines.worker`). Its logs reach the launcher over
Beam's log channel, so nothing of it belongs on the terminal, and an interrupt is the launcher's to
handle.
"""

from __future__ import annotations

import logging
import signal
import sys


def main() -> None:
    """Runs the worker until the launcher is done with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Before Beam is imported: its imports log, and the first log call installs a handler.
    logging.getLogger().addHandler(logging.NullHandler())
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
