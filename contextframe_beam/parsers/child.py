"""The process that parses: reads requests from its standard input, and writes answers.

Its arguments are the id of the process that started it, and where that one imports from. It says
one byte when it is ready. It imports no Beam, and a library when the first file needs it. It ends
when it was idle for a minute, when its input ends, and when its parent does, even if another
process holds the pipe open.

A message is eight bytes of length, JSON, and for requests the bytes of the file. Answers are JSON
and no pickles: what a hostile file makes of this process must not run in the other.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from typing import Any

import orjson

from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.document import Document, Heading
from contextframe_beam.parsers.clean import clean_text
from contextframe_beam.parsers.contract import Limits, NoTextError, OutOfMemory, ParseError
from contextframe_beam.parsers.parsing import out_of_memory, parse_with
from contextframe_beam.parsers.registry import made

# The folder that Python puts before all others holds what the user works with, which may be named
# as a module of ours is. So it imports from where the parent does, and from nowhere else.
START = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    "from contextframe_beam.parsers.child import main; main()"
)
READY = b"r"
HEAD = 8
_LOOK_SECONDS = 2  # how often an idle process looks whether its parent lives
_IDLE_SECONDS = 60  # after which it ends; the pool starts another one when there are files again
_GRACE_SECONDS = 5  # for a process without a parent, which would end it if it takes too long
_ERRORS: dict[str, type[Exception]] = {
    "no_text": NoTextError,
    "memory": OutOfMemory,
    "parse": ParseError,
    "config": ConfigError,
}


def main() -> None:
    """Answers requests until the input ends."""
    parent = int(sys.argv[1])
    reading, writing = os.dup(0), os.dup(1)
    # What a library prints must not stand between the answers, nor show what a file holds.
    nothing = os.open(os.devnull, os.O_RDWR)
    for one in (0, 1, 2):
        os.dup2(nothing, one)
    parsers: dict[str, Any] = {}
    memory = 0
    _write(writing, READY)
    while _waits(reading, parent):
        request = orjson.loads(_read(reading, int.from_bytes(_read(reading, HEAD), "big")))
        limits = Limits(**request["limits"])
        # The kernel ends the process, even where a library never gives Python its turn.
        signal.setitimer(signal.ITIMER_REAL, limits.timeout + _GRACE_SECONDS)
        if memory != limits.max_memory_bytes:
            memory = limits.max_memory_bytes
            _limit_memory(memory)
        answer = _answer(request, reading, limits, parsers)
        _write(writing, len(answer).to_bytes(HEAD, "big") + answer)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(
    request: dict[str, Any], reading: int, limits: Limits, parsers: dict[str, Any]
) -> bytes:
    try:
        data = _read(reading, request["size"])
        key = request["parser"] + repr(sorted(request["settings"].items()))
        if key not in parsers:
            parsers[key] = made(request["parser"], request["settings"])
        document = parse_with(parsers[key], data, request["name"], limits)
        del data
        # A heading is a tuple with names, which is another type to orjson.
        values = {**vars(document), "headings": [tuple(one) for one in document.headings]}
        return orjson.dumps({"document": values, "retire": _is_large(limits)})
    except (ParseError, ConfigError) as error:
        kind = next(name for name, one in _ERRORS.items() if isinstance(error, one))
        retire = kind == "memory" or _is_large(limits)
        message = clean_text(str(error)).encode("utf-8", "replace").decode()
        return orjson.dumps({"error": kind, "message": message, "retire": retire})
    except MemoryError:
        message = f"{request['name']}: {out_of_memory(limits)}"
        return orjson.dumps({"error": "memory", "message": message, "retire": True})


def document_of(answer: bytes) -> tuple[Document | Exception, bool]:
    """Returns what an answer says, and whether the process is to be replaced.

    Raises:
        ValueError: it is not an answer.
    """
    values = orjson.loads(answer)
    retire = bool(values["retire"])
    if "error" in values:
        return _ERRORS[values["error"]](values["message"]), retire
    given = values["document"]
    headings = tuple(Heading(*one) for one in given["headings"])
    return Document(**{**given, "headings": headings, "pages": tuple(given["pages"])}), retire


def _waits(reading: int, parent: int) -> bool:
    """Waits for a request; returns False when there will be none."""
    waiting = select.poll()
    waiting.register(reading, select.POLLIN)
    until = time.monotonic() + _IDLE_SECONDS
    while not waiting.poll(_LOOK_SECONDS * 1000):
        if os.getppid() != parent or time.monotonic() > until:
            return False
    first = waiting.poll(0)
    return bool(first and first[0][1] & select.POLLIN) and os.getppid() == parent


def _read(reading: int, size: int) -> bytes:
    """Reads so many bytes; ends the process where the other end closed first."""
    parts, left = [], size
    while left:
        part = os.read(reading, min(left, 1 << 20))
        if not part:
            os._exit(0)
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _write(writing: int, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(writing, view) :]
    except BrokenPipeError:
        os._exit(0)


def _limit_memory(size: int) -> None:
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_AS)
    size = size if most == resource.RLIM_INFINITY else min(size, most)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses
        resource.setrlimit(resource.RLIMIT_AS, (size, most))


def _is_large(limits: Limits) -> bool:
    """Returns whether the process holds a quarter of what it may: libraries keep, and some leak."""
    try:
        with open("/proc/self/statm", "rb") as file:
            pages = int(file.read().split()[1])
    except OSError:
        return False
    return pages * os.sysconf("SC_PAGE_SIZE") * 4 > limits.max_memory_bytes
