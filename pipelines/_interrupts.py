"""Ctrl-C and SIGTERM: at once before a run, in order while one goes on, ignored after it."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Interrupts:
    """What an interrupt of this process does.

    Until `postpone` is called it raises KeyboardInterrupt, as Python does; from then on it only
    sets `asked`, so that it cannot hit between a commit and the word about it.

    Attributes:
        asked: Set once somebody has asked this process to stop.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()
        self._postponed = False

    def install(self) -> None:
        """Takes over both signals of this process; an ignored one (nohup, `&`) stays ignored."""
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def postpone(self) -> None:
        """Makes interrupts only set `asked` from now on."""
        self._postponed = True

    def ignore(self) -> None:
        """Makes interrupts do nothing any more: all is done but for the end of the process."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.asked.set()
        if not self._postponed:
            raise KeyboardInterrupt
