"""Reading: what the lines of a program come to while it reads: items, states, and what went wrong.

A line is a message, an object of JSON. The dialects say what messages mean.
"""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from contextframe_beam.connectors.mapped import MappedConnector
from contextframe_beam.connectors.page import DeadLetter, Page
from contextframe_beam.connectors.programs.process import Program
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.connectors.streams.stream import STREAM_FIELD, Catalog, Stream
from contextframe_beam.errors import ConnectorError

__all__ = ["Reading", "messages_in"]

_ITEMS_IN_A_PAGE = 1000
_BYTES_IN_A_PAGE = 16 << 20
_SHOWN_REASON = 2000
_LOGGED = 500


class Reading(ABC):
    """Reads one run of a program to its end.

    Args:
        program: The name of the program.
        catalog: The streams that it was asked for.
        logger: Is told what the program says.

    Attributes:
        problem: Why the run failed, in the words of the program; "" if nothing did.
        count: The number of records so far.
    """

    #: The field of a record that is set once it is deleted.
    deleted_at: str

    def __init__(self, program: str, catalog: Catalog, logger: logging.Logger) -> None:
        self._name = program
        self._catalog = catalog
        self._logger = logger
        self._items: dict[str, list[dict[str, Any]]] = {}
        self._held = 0
        self._failures: list[DeadLetter] = []
        self._unasked: set[str] = set()
        self.problem = ""
        self.count = 0

    @property
    @abstractmethod
    def state(self) -> dict[str, Any] | None:
        """The new state of the part, by what the program has said so far; None if it said none."""

    @abstractmethod
    def take(self, message: dict[str, Any]) -> None:
        """Takes a message.

        Raises:
            KeyError: a part of it is missing.
            TypeError: a part of it is something else.
        """

    def pages(self, program: Program) -> Iterator[Page]:
        """Yields what a program gives, and its state at the end.

        Raises:
            ConnectorError: it did not come to a good end.
        """
        size = 0
        for block in program.blocks():
            if not block:
                yield from self._flushed(1, size)
                size = 0
                continue
            size += len(block)
            self.take_lines(block)
            most = 1 if size >= _BYTES_IN_A_PAGE else _ITEMS_IN_A_PAGE
            if self._held >= _ITEMS_IN_A_PAGE or most == 1:
                yield from self._flushed(most, size)
                size = 0
        self.require_success(program)
        yield from self._flushed(1, size)
        yield Page([], position=self._position, state=self.state)

    def take_lines(self, block: bytes) -> None:
        """Takes the lines of a block."""
        for message in messages_in(block):
            self.take_one(message)

    def take_one(self, message: Any) -> None:
        """Takes a message; what is none is kept or left out."""
        try:
            self.take(message)
        except (KeyError, TypeError, AttributeError):
            self._strange(message)

    def require_success(self, program: Program) -> None:
        """Waits for the end of a program.

        Raises:
            ConnectorError: it failed, by what it said or by its exit code.
        """
        code = program.wait()
        if not code and not self.problem:
            return
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        reason = self.problem or program.last_words or "it does not say why"
        streams = ", ".join(self._catalog) if len(self._catalog) == 1 else ""
        where = f" while it read {streams}" if streams else ""
        told = f"{self._name} {how}{where}" if code else f"{self._name} failed{where}"
        raise ConnectorError(redact(f"{told}: {reason}")[:_SHOWN_REASON])

    def add(self, stream: Stream, data: dict[str, Any]) -> None:
        """Adds a record to the items."""
        data[STREAM_FIELD] = stream.label
        if data.get(self.deleted_at):
            data[MappedConnector.GONE] = True
        self._items.setdefault(stream.label, []).append(data)
        self._held += 1

    def stream_of(self, name: str, namespace: str = "") -> Stream | None:
        """Returns the stream of a record; None, told once, for one that nobody asked for."""
        found = self._catalog.find(name, namespace)
        if found is None and name not in self._unasked:
            self._unasked.add(name)
            self._logger.warning("%s: left out %s, which was not asked for", self._name, name)
        return found

    def log(self, level: int, text: Any) -> None:
        """Logs what the program says."""
        self._logger.log(level, "%s: %.500s", self._name, redact(str(text)[: 4 * _LOGGED]))

    @property
    def _position(self) -> str:
        return f"after record {self.count:,}"

    def _flushed(self, least: int, size: int) -> Iterator[Page]:
        """Yields the items of each stream that has so many of them."""
        for items in self._items.values():
            while len(items) >= least:
                page = Page(items[:_ITEMS_IN_A_PAGE], size=size)
                page.failures, self._failures, size = self._failures, [], 0
                self.count += page.count
                page.position = self._position
                yield page
                self._held -= page.count
                del items[:_ITEMS_IN_A_PAGE]
        if self._failures and least == 1:
            yield Page([], failures=self._failures, position=self._position)
            self._failures = []

    def _strange(self, message: Any) -> None:
        """Keeps what looks like a record and is none, and leaves out what is no message at all."""
        if isinstance(message, Unreadable):
            if not message.is_record:
                # What begins like a message and is cut off may be the configuration.
                is_object = message.text.lstrip().startswith("{")
                self.log(logging.INFO, "a line is cut off" if is_object else message.text)
                return
            item, reason = {"line": redact(message.text)}, message.reason
        elif isinstance(message, dict) and message.get("type") == "RECORD":
            item, reason = message, "it is no record: a part of it is missing"
        else:
            return
        error = ConnectorError(f"a line of {self._name} cannot be read: {reason}")
        where = f"after record {self.count + self._held:,}"
        self._failures.append(DeadLetter.of("read", error, item, self._name, "", where))


class Unreadable:
    """A line that is not an object of JSON.

    Attributes:
        text: The line.
        reason: Why it cannot be read.
        is_record: Whether it looks like a record. Others may hold the configuration, so that their
            text is not kept.
    """

    __slots__ = ("is_record", "reason", "text")

    def __init__(self, line: bytes, reason: str) -> None:
        self.text = line.decode("utf-8", "replace")
        self.reason = reason
        head = line[:200].replace(b" ", b"")
        self.is_record = head.startswith(b"{") and b'"type":"RECORD"' in head

    def __getitem__(self, name: str) -> Any:
        raise KeyError(name)


def messages_in(block: bytes) -> list[Any]:
    """Returns the messages of a block of lines; `Unreadable` for a line that is none.

    Integers of any size, NaN and infinity are read as Python's own parser reads them.
    """
    from contextframe_beam.connectors.json_files.lines import rows_with_big_integers

    rows = block.split(b"\n")
    try:
        found = list(map(orjson.loads, rows))
    except orjson.JSONDecodeError:
        found = []
    is_plain = bool(found) and {dict}.issuperset(map(type, found))
    if not is_plain:
        found = list(map(_message, rows))
    for index in rows_with_big_integers(block, rows):
        found[index] = _message(rows[index], _exact)
    if is_plain:
        return found
    # Blank lines say nothing.
    return [one for one, row in zip(found, rows, strict=True) if row and not row.isspace()]


def _message(row: bytes, parse: Callable[[bytes], Any] = orjson.loads) -> Any:
    try:
        value = parse(row)
    except (ValueError, RecursionError):
        try:
            value = _exact(row)
        except (ValueError, RecursionError) as error:
            return Unreadable(row, f"it is not JSON ({error})")
    return value if type(value) is dict else Unreadable(row, "it is no object")


def _exact(row: bytes) -> Any:
    value = json.loads(row, parse_constant=lambda _: None)
    # Half of a surrogate pair is no text that can be stored.
    json.dumps(value, ensure_ascii=False).encode()
    return value
