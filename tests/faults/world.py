"""The simulated world: sources whose documents come, change, move and go while they are read."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from tests.faults.simulated import SCHEMA

Item = dict[str, Any]

SOURCES = ("left", "right")

#: A source that only grows, so that what it says is new can be appended without looking.
LOG = "log"
PARTITIONS = ("a", "b", "c")

_BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
_WORDS = ["lorem", "ipsum", "dolor", "sit", "amet", "elit", "sed", "eiusmod", "tempor", "ut"]


@dataclass(frozen=True)
class Reading:
    """What a source gives in one of its rounds.

    Attributes:
        source: The source.
        round: The round.
        pages: The pages of each partition.
        changes: Pages of what changed in each partition since the round before.
    """

    source: str
    round: int
    pages: Mapping[str, list[list[Item]]]
    changes: Mapping[str, list[list[Item]]]


def newest(items: Iterable[Item]) -> dict[str, Item]:
    """Returns the newest version of each document that can be mapped, deletions included."""
    found: dict[str, Item] = {}
    for item in items:
        known = found.get(item["id"])
        if "error" not in item and (known is None or _version(item) > _version(known)):
            found[item["id"]] = item
    return found


def _nothing() -> dict[str, list[Item]]:
    return {name: [] for name in PARTITIONS}


@dataclass
class _Source:
    round: int = 0
    documents: dict[str, dict[str, Item]] = field(
        default_factory=lambda: {name: {} for name in PARTITIONS}
    )
    log: dict[str, list[Item]] = field(default_factory=_nothing)


class World:
    """Sources in a file, changed by chance.

    Args:
        path: The file; made anew.
        chance: What decides.
        size: About how many documents a partition has.
    """

    def __init__(self, path: Path, chance: random.Random, size: int = 40) -> None:
        self.path = path
        self.readings: dict[tuple[str, int], Reading] = {}
        self._chance = chance
        self._size = size
        self._versions = 0
        self._sources = {name: _Source() for name in (*SOURCES, LOG)}
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(SCHEMA)
        for name in self._sources:
            self.evolve(name)

    def round_of(self, source: str) -> int:
        """Returns the round that a source is in."""
        return self._sources[source].round

    def evolve(self, source: str) -> Reading:
        """Lets a source live on to its next round, which whoever plans from now on reads."""
        state = self._sources[source]
        state.round += 1
        changes = self._chance.choice([0, 1, 5, self._size]) if state.round > 1 else 0
        if state.round == 1:
            for partition in PARTITIONS:
                for _ in range(self._chance.randint(1, 2 * self._size)):
                    self._insert(source, partition)
        for _ in range(changes):
            self._change(source, self._chance.choice(PARTITIONS))
        # What changes while pages are read may be in them or not, so it belongs to the next round.
        log, state.log = state.log, _nothing()
        reading = Reading(
            source,
            state.round,
            {name: self._read(source, name, log[name]) for name in PARTITIONS},
            {name: self._paged(log[name]) for name in PARTITIONS},
        )
        self.readings[source, state.round] = reading
        self._save(reading)
        return reading

    def items(self, source: str, partition: str, since: int, round: int) -> list[Item]:
        """Returns what is read of a partition: all in a round, or what changed since another."""
        rounds = range(since + 1, round + 1) if since else [round]
        readings = [self.readings[source, number] for number in rounds]
        pages = [(one.changes if since else one.pages)[partition] for one in readings]
        return [item for round in pages for page in round for item in page]

    def _change(self, source: str, partition: str) -> Item | None:
        """Makes one change, and returns the version that is new in the partition."""
        state = self._sources[source]
        documents = state.documents[partition]
        kind = self._chance.choices(["insert", "update", "delete", "move"], [3, 6, 2, 1])[0]
        if kind == "insert" or not documents or source == LOG:
            return self._insert(source, partition)
        key = self._chance.choice(sorted(documents))
        if kind == "update":
            return self._put(source, partition, key)
        del documents[key]
        if kind == "move":
            self._put(source, self._chance.choice([p for p in PARTITIONS if p != partition]), key)
        else:
            item = self._version_of(key)
            state.log[partition].append({**item, "text": None, "deleted": True})
        return None

    def _put(self, source: str, partition: str, key: str) -> Item:
        state, item = self._sources[source], self._version_of(key)
        state.documents[partition][key] = item
        state.log[partition].append(item)
        return item

    def _insert(self, source: str, partition: str) -> Item | None:
        # One document in eight belongs to all sources, so that they replace each other's rows.
        if source != LOG and self._chance.random() < 0.125:
            key = f"doc:shared-{self._chance.randrange(self._size)}"
            if any(key in held for held in self._sources[source].documents.values()):
                return None
        else:
            key = f"doc:{source}-{self._versions}"
        return self._put(source, partition, key)

    def _version_of(self, key: str) -> Item:
        self._versions += 1
        number = self._versions
        at = _BEGIN + timedelta(milliseconds=number)
        text = " ".join(self._chance.choices(_WORDS, k=self._chance.randint(1, 60)))
        return {
            "id": key,
            "text": f"{text} {number}",
            "at": self._chance.choice([at.isoformat(), at.isoformat().replace("+00:00", "Z")]),
            "metadata": {"version": number, "author": self._chance.choice(["Ann", "Bo", ""])},
        }

    def _read(self, source: str, partition: str, log: list[Item]) -> list[list[Item]]:
        """Returns the partition's pages, oldest first, while documents go on changing.

        A document that changes comes again at the end; one that is inserted before the place that
        was reached shifts the next page, which then repeats the last items of the one before. Some
        sources also tell what was deleted.
        """
        documents = self._sources[source].documents[partition]
        waiting = sorted(documents.values(), key=_version)
        moving = source != LOG and self._chance.random() < 0.5
        pages: list[list[Item]] = []
        while waiting or not pages:
            count = self._chance.randint(1, max(2, self._size // 2))
            repeated = pages[-1][-self._chance.randint(1, 3) :] if pages and moving else []
            pages.append([*repeated, *waiting[:count]])
            waiting = [one for one in waiting[count:] if documents.get(one["id"]) is one]
            if moving:
                item = self._change(source, partition)
                if item is not None:
                    waiting = [one for one in waiting if one["id"] != item["id"]] + [item]
                waiting = [one for one in waiting if documents.get(one["id"]) is one]
            if self._chance.random() < 0.1:
                # Nothing but this names the document, so it stays as an earlier run left it.
                pages[-1].append({"id": f"doc:{source}-broken", "error": "cannot be mapped"})
        for item in log:
            if item.get("deleted") and self._chance.random() < 0.5:
                self._chance.choice(pages).append(item)
        return pages

    def _paged(self, log: list[Item]) -> list[list[Item]]:
        """Returns changes in pages, of which one may repeat the last ones of another."""
        pages: list[list[Item]] = []
        rest = list(log)
        while rest:
            count = self._chance.randint(1, max(2, self._size // 2))
            pages.append([*(pages[-1][-1:] if pages else []), *rest[:count]])
            rest = rest[count:]
        return pages

    def _save(self, reading: Reading) -> None:
        rows = [
            (reading.source, feed, reading.round, partition, number, json.dumps(items))
            for feed, parts in (("all", reading.pages), ("changes", reading.changes))
            for partition, pages in parts.items()
            for number, items in enumerate(pages)
        ]
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.executemany("INSERT INTO page VALUES (?, ?, ?, ?, ?, ?)", rows)
            latest = (reading.source, reading.round)
            connection.execute("INSERT OR REPLACE INTO latest VALUES (?, ?)", latest)


def _version(item: Item) -> int:
    return int(item["metadata"]["version"])
