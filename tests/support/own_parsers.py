"""Parsers as users write them: some good, some that hang, crash or print."""

import ctypes
import os
import subprocess
import sys
import threading
import time

from contextframe_beam.frames.document import Document
from contextframe_beam.parsers import Limits, ParseError


class Lines:
    """Numbers the lines of a text."""

    suffixes = (".lines",)

    def __init__(self, start: int = 1) -> None:
        self.start = start

    def parse(self, data: bytes, name: str) -> str:
        lines = data.decode().splitlines()
        return "\n".join(f"{number}. {one}" for number, one in enumerate(lines, self.start))


class Versioned(Lines):
    version = "2"


class Told:
    """Does what the text of the file says."""

    suffixes = (".told",)
    version = "1"

    def parse(self, data: bytes, name: str, limits: Limits) -> Document:
        what, _, more = data.decode().partition(" ")
        if what == "hang":
            while True:
                time.sleep(60)
        elif what == "hang-deaf":  # in C, with Python's lock held
            ctypes.PyDLL(None).sleep(60)
        elif what == "exit":
            os._exit(int(more))
        elif what == "segfault":
            ctypes.string_at(0)
        elif what == "fill":
            held = []
            while True:
                held.append(bytearray(1 << 24))
        elif what == "print":
            print(more)
            os.write(1, more.encode())
            os.write(2, more.encode())
        elif what == "raise":
            raise ValueError(more)
        elif what == "refuse":
            raise ParseError("it is refused")
        elif what == "start":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            return Document(str(child.pid))
        elif what == "start-and-hang":
            subprocess.Popen(["sleep", "60"])
            time.sleep(60)
        elif what == "modules":
            return Document("\n".join(sys.modules))
        elif what == "number":
            return 3  # type: ignore[return-value]
        return Document(f"{os.getpid()}")


def shout(data: bytes, name: str) -> str:
    return data.decode().upper() + "\r\n\x00"


def started() -> None:
    """Parses one file, says the process that did, and waits to be killed."""
    from contextframe_beam.parsers import ParserPool, Parsers

    pool = ParserPool(Parsers(["tests.support.own_parsers:Told"]), Limits(timeout=1))
    child = pool.parse("a.told", b"pid").text
    if os.fork() == 0:  # a fork holds the pipes open after its parent died
        time.sleep(600)
    if sys.argv[1] == "busy":
        threading.Thread(target=pool.parse, args=("a.told", b"hang-deaf"), daemon=True).start()
        time.sleep(0.2)
    print(child, flush=True)
    time.sleep(600)


if __name__ == "__main__":
    started()
