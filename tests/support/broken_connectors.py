"""Connectors that are broken on purpose, each in one way, with the check that is meant for it."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contextframe_beam import FrameRecord
from contextframe_beam.connectors import (
    BaseConnector,
    BatchConnector,
    IncrementalConnector,
    Page,
    PaginatedConnector,
    Partition,
    StreamingConnector,
)

GOOD_TOKEN = "right-t0ken-of-ann"


def items(count: int = 20) -> list[dict[str, Any]]:
    return [{"id": n, "text": f"text {n}", "author": {"name": "Ann"}} for n in range(count)]


class Sound(BatchConnector):
    """Keeps every promise; the broken ones below differ in one thing."""

    def __init__(self, token: str, count: int = 20):
        super().__init__(batch_size=5)
        self.token = token
        self.count = count

    def authenticate(self) -> bool:
        if self.token != GOOD_TOKEN:
            raise PermissionError("the token is not accepted")
        self.authenticated = True
        return True

    def total_items(self) -> int:
        return self.count

    def _fetch_batch(self, start: int, end: int) -> list[dict[str, Any]]:
        return items(self.count)[start:end]

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        author = item.get("author")
        name = author.get("name") if isinstance(author, dict) else author
        return FrameRecord(str(item.get("text")), {"author": name}, unique_id=f"s:{item.get('id')}")


class SaysNothing(Sound):
    def authenticate(self) -> None:  # type: ignore[override]
        super().authenticate()


class AcceptsAnybody(Sound):
    def authenticate(self) -> bool:
        self.authenticated = True
        return True


class CarriesTheSecret(Sound):
    def __reduce__(self) -> tuple[Any, ...]:
        return CarriesTheSecret, (f"{self.token}", self.count)


class HoldsALock(Sound):
    def __init__(self, token: str, on_item: Any = None):
        super().__init__(token)


class IsNeverTheSame(Sound):
    def source_identity(self, sync_kwargs: Any = None) -> dict[str, Any]:
        return {**super().source_identity(sync_kwargs), "at": time.time_ns()}


class TakesAnything(Sound):
    def __init__(self, token: str, **kwargs: Any):
        super().__init__(token)


class ReadsWithAnything(BaseConnector):
    def sync_documents(self, **kwargs: Any) -> list[dict[str, Any]]:
        return items()

    map_to_frame_record = Sound.map_to_frame_record


class OverlapsByOne(Sound):
    def _fetch_batch(self, start: int, end: int) -> list[dict[str, Any]]:
        return items(self.count)[start : end + 1]


class LosesTheFirst(Sound):
    def _fetch_batch(self, start: int, end: int) -> list[dict[str, Any]]:
        return items(self.count)[start + 1 : end]


class RemembersWhereItWas(Sound):
    def __init__(self, token: str):
        super().__init__(token)
        self.at = 0

    def _fetch_batch(self, start: int, end: int) -> list[dict[str, Any]]:
        self.at += end - start
        return items(self.count)[self.at - (end - start) : self.at]


class NamesByChance(Sound):
    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return FrameRecord(item["text"], unique_id=f"s:{uuid.uuid4()}")


class NamesAllAlike(Sound):
    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return FrameRecord(item["text"], unique_id="s:document")


class NamesByHash(Sound):
    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return FrameRecord("text", unique_id=f"s:{hash(item['text'])}")


class TrustsEveryField(Sound):
    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        author = item.get("author", {}).get("name")
        return FrameRecord(item["text"], {"author": author}, unique_id=f"s:{item['id']}")


class MapsToADict(Sound):
    def map_to_frame_record(self, item: dict[str, Any]) -> Any:
        return item


class EndsTheRun(Sound):
    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        if not isinstance(item, dict):
            sys.exit("this is no item")
        return super().map_to_frame_record(item)


class GivesObjects(StreamingConnector):
    def sync_documents_stream(self) -> Iterator[dict[str, Any]]:
        for item in items():
            yield {**item, "file": Path("x")}

    map_to_frame_record = Sound.map_to_frame_record


class SwallowsErrors(BaseConnector):
    """Goes on after a file that it cannot read, and tells nobody."""

    def __init__(self, broken: bool = False):
        super().__init__()
        self.broken = broken

    def sync_documents(self) -> list[dict[str, Any]]:
        found = []
        for text in [*map(json.dumps, items()), *(["{cut off"] if self.broken else [])]:
            try:
                found.append(json.loads(text))
            except ValueError:
                continue
        return found

    map_to_frame_record = Sound.map_to_frame_record


class AlwaysReadsAll(IncrementalConnector):
    def _full_sync(self) -> list[dict[str, Any]]:
        return items()

    def _incremental_sync(self, since: str) -> list[dict[str, Any]]:
        return items()

    map_to_frame_record = Sound.map_to_frame_record


class SavesItsStateItself(BaseConnector):
    """Writes down that everything was read before anybody has it."""

    def __init__(self, state: str):
        super().__init__()
        self.state = Path(state)

    def sync_documents_stream(self) -> Iterator[dict[str, Any]]:
        done = self.state.exists()
        self.state.write_text("done")
        yield from () if done else items()

    map_to_frame_record = Sound.map_to_frame_record


class StatesOfOthers(PaginatedConnector):
    """Gives with each partition a state that ends the next one as well."""

    def partitions(self, resume_from: dict[str, Any] | None = None) -> list[Partition]:
        done = {name for state in (resume_from or {}).values() for name in state["done"]}
        return [Partition(name) for name in "abcd" if name not in done]

    def fetch_page(self, partition: Partition, cursor: Any) -> Page:
        found = [{**item, "id": f"{partition.id}{item['id']}"} for item in items(3)]
        following = chr(ord(partition.id) + 1)
        return Page(found, state={"done": [partition.id, following]})

    map_to_frame_record = Sound.map_to_frame_record


class KeepsEverything(StreamingConnector):
    """Makes a list of a large source before it gives the first item."""

    def __init__(self, count: int = 12_000):
        super().__init__()
        self.count = count

    def sync_documents_stream(self) -> Iterator[dict[str, Any]]:
        yield from list(self._found())

    def _found(self) -> Iterator[dict[str, Any]]:
        for number in range(self.count):
            yield {"id": number, "text": os.urandom(250).hex()}

    map_to_frame_record = Sound.map_to_frame_record


class YieldsOneByOne(KeepsEverything):
    """Does the same without the list."""

    def sync_documents_stream(self) -> Iterator[dict[str, Any]]:
        yield from itertools.islice(self._found(), self.count)
