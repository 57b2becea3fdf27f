"""The connector under test, made again for each check, and the outcome of a check."""

from __future__ import annotations

import hashlib
import itertools
import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.identity import named_arguments
from contextframe_beam.connectors.item_json import encode_item
from contextframe_beam.connectors.page import Page, Window
from contextframe_beam.connectors.plain_secrets import looks_secret
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.store.state import RunSummary, SourceState


class Status(Enum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one check.

    Attributes:
        check: Its name.
        status: How it ended.
        reason: What was found.
        mend: How to fix a failure.
        error: The connector's exception, if that is the failure.
    """

    check: str
    status: Status
    reason: str
    mend: str = ""
    error: Exception | None = None


class Failed(Exception):
    """A check that failed.

    Args:
        reason: What is wrong.
        mend: How to fix it.
    """

    def __init__(self, reason: str, mend: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.mend = mend


class NotApplicable(Exception):
    """A check that does not apply to this source; the message says why."""


#: The most items that a check reads.
LIMIT = 20_000


@dataclass
class Reading:
    """The result of reading.

    Attributes:
        items: The items, in order.
        states: The state that each partition reached, by its id.
        failures: How many items could not be read.
        windows: The stretches that pages told completely.
        is_whole: Whether the source was read to its end.
    """

    items: list[Any] = field(default_factory=list)
    states: dict[str, Any] = field(default_factory=dict)
    failures: int = 0
    windows: list[Window] = field(default_factory=list)
    is_whole: bool = True

    def add(self, page: Page) -> None:
        """Adds a page."""
        self.items += page.items
        self.failures += len(page.failures)
        self.windows += page.windows
        if page.state is not None:
            self.states[page.partition] = page.state


class Subject:
    """A connector, with everything that the checks need.

    Args:
        make: Makes it, with the right credentials.
        wrong: Makes it with wrong ones. By default the secrets among its arguments are replaced
            with nonsense; a connector without secrets skips the check.
        broken: Makes it for a source with an unreadable item.
        sync_kwargs: The arguments of `sync_documents`.
        limit: The most items that a check reads.
    """

    def __init__(
        self,
        make: Callable[[], BaseConnector],
        *,
        wrong: Callable[[], BaseConnector | None] | None = None,
        broken: Callable[[], BaseConnector | None] | None = None,
        sync_kwargs: Mapping[str, Any] | None = None,
        limit: int = LIMIT,
    ) -> None:
        self.make = make
        self.wrong = wrong or self.with_nonsense
        self.broken = broken or (lambda: None)
        self.sync_kwargs = dict(sync_kwargs or {})
        self.limit = limit

    def opened(self) -> BaseConnector:
        """Returns a new connector, authenticated."""
        connector = self.make()
        connector.ensure_authenticated()
        return connector

    def source(
        self, connector: BaseConnector | None = None, states: Mapping[str, Any] | None = None
    ) -> Source:
        """Returns a connector as a pipeline reads it; a new one unless given."""
        return Source(connector or self.opened(), self.sync_kwargs, resume_from=states)

    def read(
        self, connector: BaseConnector | None = None, states: Mapping[str, Any] | None = None
    ) -> Reading:
        """Reads the source, up to the limit."""
        reading = Reading()
        for page in self.source(connector, states).pages():
            reading.add(page)
            if len(reading.items) >= self.limit:
                reading.is_whole = False
                break
        # As a commit keeps them: without the change for the run as a whole.
        kept = SourceState("").after(RunSummary(""), reading.states)
        reading.states = dict(kept.partitions)
        return reading

    @cached_property
    def first(self) -> Reading:
        """The result of a first run."""
        return self.read()

    def whole(self) -> Reading:
        """Returns the result of a first run.

        Raises:
            NotApplicable: there are no items, or more than the limit.
        """
        if not self.first.is_whole:
            raise NotApplicable(
                f"the source has more than {self.limit:,} items; test with a smaller part of it, "
                "or raise the limit"
            )
        return self.some()

    def some(self) -> Reading:
        """Returns the result of a first run.

        Raises:
            NotApplicable: there are no items.
        """
        if not self.first.items:
            raise NotApplicable("the source has no items; test with a source that has some")
        return self.first

    def time_of(self, item: Any) -> str:
        """Returns the time of the last change from an item's record, or ""."""
        try:
            return str(self._mapper.map_to_frame_record(item).timestamp or "")
        except Exception:  # another check reports items that cannot be mapped
            return ""

    def lies_in(self, windows: Sequence[Window], item: Any) -> bool:
        """Returns whether an item's record has its place in a window."""
        try:
            place = getattr(self._mapper.map_to_frame_record(item), "place", None)
        except Exception:  # as above
            return False
        return place is not None and any(window.holds(place) for window in windows)

    @cached_property
    def _mapper(self) -> BaseConnector:
        return self.opened()

    def secret_values(self) -> list[str]:
        """Returns the secrets among its arguments, references resolved."""
        found: list[str] = []

        def noted(value: str) -> str:
            found.append(str(value))
            return value

        self.rebuilt(noted)
        return [value for value in found if len(value) >= secrets.SHORTEST_REDACTED]

    def with_nonsense(self) -> BaseConnector | None:
        """Returns the connector with nonsense for all its secrets; None if it has no secrets."""
        return self.rebuilt(lambda _: f"wrong-{uuid.uuid4().hex}")

    def rebuilt(self, change: Callable[[str], str]) -> BaseConnector | None:
        """Returns the connector with all secret arguments changed; None if it has no secrets."""
        connector = self.make()
        named = named_arguments(type(connector), *connector._arguments)
        count = itertools.count()

        def changed(value: str) -> Any:
            next(count)
            return change(value)

        plain = connector.plain_arguments
        arguments = {
            name: _changed(value, "" if name in plain else name, changed)
            for name, value in named.items()
        }
        return type(connector)(**arguments) if next(count) else None


def fingerprints(items: Iterable[Any]) -> Counter[str]:
    """Returns how many times each item occurs."""
    return Counter(map(_fingerprint, items))


def blocks_of(source: Source, workers: int) -> Iterator[tuple[Any, int]]:
    """Yields each block of a source's plan: the piece it is in, and its number there."""
    for chunk in source.plan(workers):
        for block in range(chunk.start, chunk.stop if chunk.parts else chunk.start):
            yield chunk, block


def _fingerprint(item: Any) -> str:
    text = json.dumps(encode_item(item), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _changed(value: Any, name: str, change: Callable[[str], Any]) -> Any:
    """Returns an argument with the secrets in it changed, found as `register_literals` does."""
    kind = type(value)
    if kind is secrets.SecretReference:
        return change(value)
    if kind is str:
        return change(value) if looks_secret(name) else value
    if kind is dict:
        secret = looks_secret(name)
        return {
            key: _changed(element, name if secret else str(key), change)
            for key, element in value.items()
        }
    if kind is list or kind is tuple:
        return kind(_changed(element, name, change) for element in value)
    return value
