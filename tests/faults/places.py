"""Where a campaign's dataset is: in a folder, or on an S3 server behind a proxy that fails."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.s3_faults import Fault, FaultyProxy, Request
from tests.support.s3_server import S3Server

#: What may become of a request.
_FAULTS = (
    Fault(500),
    Fault(503),
    Fault(503, after=True),
    Fault(cut=True),
    Fault(cut=True, after=True),
    Fault(delay=0.1),
)


@dataclass
class Place:
    """A dataset, for those who check it and for processes that have to do with it.

    Attributes:
        uri: Its address.
        options: Of whoever checks it.
        flags: Of the processes.
        proxy: What stands between the processes and the store.
    """

    uri: str
    options: dict[str, str] | None = None
    flags: list[str] = field(default_factory=list)
    proxy: FaultyProxy | None = None

    @property
    def folder(self) -> Path | None:
        """Its folder; None where it is on a store."""
        return None if self.proxy else Path(self.uri)

    @contextmanager
    def trouble(self, chance: random.Random) -> Iterator[None]:
        """While it is entered, some requests fail, or are slow, or all fail for a while."""
        if self.proxy is None:
            yield
            return
        kind = chance.choice(["none", "some", "some", "slow commits", "lost commits", "silence"])
        self.proxy.fault = _Trouble(kind, random.Random(chance.random()))
        try:
            yield
        finally:
            self.proxy.fault = lambda request: None


def on_s3(server: S3Server, proxy: FaultyProxy) -> Place:
    """Returns a new place on a server, whose processes go through the proxy."""
    through = {**server.options, "endpoint": proxy.endpoint, "client_max_retries": "1"}
    flags = [text for one in through.items() for text in ("--storage-option", "=".join(one))]
    return Place(server.new_place(), server.options, flags, proxy)


class _Trouble:
    """Decides about each request.

    Args:
        kind: `some` requests fail or are late; commits are slow (so that a kill meets them), or
            their answers are lost; or from a commit on there is silence for a while.
        chance: What decides.
    """

    def __init__(self, kind: str, chance: random.Random) -> None:
        self._kind = kind
        self._chance = chance
        self._often = chance.choice([0.03, 0.1])
        self._commits = chance.randint(1, 3)
        self._seconds = chance.uniform(1, 8)
        self._silent_until = 0.0
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Fault | None:
        is_commit = request.method == "PUT" and "/_versions/" in request.path
        with self._lock:
            if self._kind == "some":
                return self._chance.choice(_FAULTS) if self._chance.random() < self._often else None
            if self._kind == "slow commits" and is_commit:
                return Fault(delay=self._chance.uniform(0.05, 0.5))
            if self._kind == "lost commits" and is_commit and self._chance.random() < 0.5:
                return Fault(cut=True, after=self._chance.random() < 0.5)
            if self._kind == "silence":
                return self._silence(is_commit)
        return None

    def _silence(self, is_commit: bool) -> Fault | None:
        if time.monotonic() < self._silent_until:
            return Fault(503)
        self._commits -= is_commit
        if not is_commit or self._commits:
            return None
        self._silent_until = time.monotonic() + self._seconds
        return Fault(cut=True, after=self._chance.random() < 0.5)
