"""What a dataset must equal: a ledger that is kept from what the sources gave.

Each version of the dataset is looked at. One that holds a new run must equal the version before
with that run applied, row by row; a rollback must equal the version that it returned to, in its
documents and its state; any other version must equal the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contextframe_beam import FrameDataset
from contextframe_beam.fragments import open_dataset
from contextframe_beam.state import STATES, SourceState
from tests.faults.world import Item, Reading

#: What is stored of a document: its text, metadata, timestamp, and the source that wrote it.
Row = tuple[str | None, dict[str, Any], str | None, str]


@dataclass(frozen=True)
class Snapshot:
    """A dataset at one version.

    Attributes:
        rows: Its documents.
        rounds: The round that each source's state says it is in.
        runs: The ids of the runs that its state rows know.
    """

    rows: Mapping[str, Row]
    rounds: Mapping[str, int]
    runs: frozenset[str]


class Ledger:
    """Follows a dataset from version to version.

    Args:
        dataset: Where it is, or will be.
        reading: Returns what a source gave in one of its rounds.
        storage_options: Of the dataset.
    """

    def __init__(
        self,
        dataset: Path | str,
        reading: Callable[[str, int], Reading],
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        self.dataset = str(dataset)
        self.now = Snapshot({}, {}, frozenset())
        self.version = 0
        #: The ids of all runs that were ever committed, those that were rolled back included.
        self.committed: set[str] = set()
        self._snapshots: dict[int, Snapshot] = {}
        self._reading = reading
        self._options = dict(storage_options) if storage_options else None

    def follow(self) -> list[str]:
        """Checks all versions made since the last call; returns the runs in them, in order.

        Raises:
            AssertionError: a version is not what it must be.
        """
        committed: list[str] = []
        newest = self._open()
        if newest is None:
            assert self.version == 0, f"{self.dataset} is gone"
            return committed
        assert newest.version >= self.version, f"version {self.version} is gone"
        for made in [one for one in newest.history() if one.version > self.version]:
            dataset = newest if made.version == newest.version else self._open(made.version)
            assert dataset is not None
            if made.restored is not None:
                self.now = self._snapshots[made.restored]
            committed += self._apply(dataset, made.version)
            self.version = made.version
            self._snapshots[made.version] = self.now
        self.committed.update(committed)
        return committed

    def _open(self, version: int | None = None) -> FrameDataset | None:
        if self.version == 0 and open_dataset(self.dataset, self._options) is None:
            return None
        return FrameDataset.open(self.dataset, version=version, storage_options=self._options)

    def _apply(self, dataset: FrameDataset, version: int) -> list[str]:
        states = {str(one.identity["arguments"]["source"]): one for one in dataset.states()}
        own_rows = dataset.lance.count_rows(filter=STATES)
        assert own_rows == len(states) + 1, f"version {version} has {own_rows} rows of its own"
        known = frozenset(run.run_id for state in states.values() for run in state.runs)
        assert self.now.runs <= known, f"version {version} has forgotten a run"
        new = sorted(known - self.now.runs)
        assert len(new) <= 1, f"version {version} holds {len(new)} new runs: {new}"
        rows, rounds = dict(self.now.rows), dict(self.now.rounds)
        if new:
            source, state = next((n, s) for n, s in states.items() if s.run(new[0]))
            number = _round_of(state)
            assert number >= rounds.get(source, 0), f"version {version}: {source} went back"
            rounds[source] = number
            run = state.run(new[0])
            assert run is not None
            _run(rows, self._reading(source, number), run.mode)
        stored = {name: _round_of(state) for name, state in states.items()}
        assert stored == rounds, f"version {version}: states {stored}, expected {rounds}"
        by = {state.source: name for name, state in states.items()}
        _compare(_rows_of(dataset, by), rows, f"version {version} (new: {new})")
        self.now = Snapshot(rows, rounds, known)
        return new


def _round_of(state: SourceState) -> int:
    found = {value["round"] for value in state.partitions.values()}
    assert len(found) == 1, f"the partitions of {state.name} are in the rounds {found}"
    return int(found.pop())


def _run(rows: dict[str, Row], reading: Reading, mode: str) -> None:
    """Applies a run to the rows."""
    newest = reading.newest()
    if mode == "mirror":
        gone = [key for key, row in rows.items() if row[3] == reading.source and key not in newest]
        for key in gone:
            del rows[key]
    for key, item in newest.items():
        rows[key] = _row_of(item, reading.source)


def _row_of(item: Item, source: str) -> Row:
    return item["text"], item["metadata"], item["at"], source


def _rows_of(dataset: FrameDataset, sources: Mapping[str, str]) -> dict[str, Row]:
    """Returns the rows of a dataset; no key may be there twice."""
    owners: list[str] = []
    for batch in dataset.batches(["x_source"]):
        owners += [sources[owner] for owner in batch.column("x_source").to_pylist()]
    found: dict[str, Row] = {}
    for record, owner in zip(dataset, owners, strict=True):
        key = str(record.unique_id)
        assert key not in found, f"version {dataset.version} holds {key} twice"
        found[key] = (record.text_content, record.metadata, record.timestamp, owner)
    return found


def _compare(have: Mapping[str, Row], want: Mapping[str, Row], where: str) -> None:
    missing, more = sorted(want.keys() - have.keys()), sorted(have.keys() - want.keys())
    wrong = [(have[key], want[key]) for key in sorted(want.keys() & have.keys())]
    wrong = [pair for pair in wrong if pair[0] != pair[1]]
    assert not (missing or more or wrong), (
        f"{where} is not what it must be: {len(missing)} rows are missing {missing[:5]}, "
        f"{len(more)} are too many {more[:5]}, {len(wrong)} are wrong {wrong[:2]}"
    )
