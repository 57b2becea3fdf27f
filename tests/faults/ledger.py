"""What a dataset must equal: a ledger that is kept from what the sources gave.

Each version of the dataset is looked at. One that holds a new run must equal the version before
with that run applied, row by row: what the partitions' states say was read, which must go on from
where the states before ended. A rollback must equal the version that it returned to, in its
documents and its state; any other version, such as a compaction, must equal the one before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contextframe_beam import FrameDataset
from contextframe_beam.frames.record import uuid_of
from contextframe_beam.store.address import Address
from contextframe_beam.store.files import open_dataset
from contextframe_beam.store.state import EMBEDDER_KEY, STATES, RunSummary, SourceState
from tests.faults.world import PARTITIONS, Item, newest

#: What is stored of a document: its text, metadata, timestamp, the source that wrote it, and the
#: partition that it lies in.
Row = tuple[str | None, dict[str, Any], str | None, str, str | None]


@dataclass(frozen=True)
class Snapshot:
    """A dataset at one version.

    Attributes:
        rows: Its documents.
        reached: The state of each source's partitions.
        runs: The ids of the runs that its state rows know.
        parts: The last run of each source that has committed some of its parts, and not yet all.
    """

    rows: Mapping[str, Row]
    reached: Mapping[str, Mapping[str, Any]]
    runs: frozenset[str]
    parts: Mapping[str, str]


class Ledger:
    """Follows a dataset from version to version.

    Args:
        dataset: Where it is, or will be.
        items: Returns what a source gave of a partition, since a round (0: all), in a round.
        storage_options: Of the dataset.
        pieces: Returns the texts of a document's chunks.
    """

    def __init__(
        self,
        dataset: Path | str,
        items: Callable[[str, str, int, int], Iterable[Item]],
        storage_options: Mapping[str, str] | None = None,
        pieces: Callable[[str], list[str]] = lambda text: [],
    ) -> None:
        self.dataset = str(dataset)
        self.now = Snapshot({}, {}, frozenset(), {})
        self.version = 0
        #: The id of each source that the dataset knows.
        self.ids: dict[str, str] = {}
        #: Source and id of all runs that were ever committed, those that were rolled back included.
        self.committed: set[tuple[str, str]] = set()
        #: How many items of each of them failed.
        self.failed: dict[str, int] = {}
        self._snapshots: dict[int, Snapshot] = {}
        self._items = items
        self._pieces = pieces
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
        return committed

    def _open(self, version: int | None = None) -> FrameDataset | None:
        if self.version == 0 and open_dataset(Address(self.dataset, self._options)) is None:
            return None
        return FrameDataset.open(self.dataset, version=version, storage_options=self._options)

    def _apply(self, dataset: FrameDataset, version: int) -> list[str]:
        states = {str(one.identity["arguments"]["source"]): one for one in dataset.states()}
        self.ids = {name: state.source for name, state in states.items()}
        # Beside the states lie the anchor, and how texts are cut.
        own_rows = dataset.lance.count_rows(filter=STATES)
        records = dataset.lance.count_rows(filter=f"uuid = '{EMBEDDER_KEY}'")
        assert records <= 1, f"version {version} says {records} times how texts are cut"
        own_rows -= records
        assert own_rows == len(states) + 1, f"version {version} has {own_rows} rows of its own"
        known = frozenset(run.run_id for state in states.values() for run in state.runs)
        forgotten = self.now.runs - known - set(self.now.parts.values())
        assert not forgotten, f"version {version} has forgotten {forgotten}"
        new = sorted(known - self.now.runs)
        assert len(new) <= 1, f"version {version} holds {len(new)} new runs: {new}"
        now = Snapshot(dict(self.now.rows), self.now.reached, known, self.now.parts)
        for run_id in new:
            source, state = next((n, s) for n, s in states.items() if s.run(run_id))
            run = state.run(run_id)
            assert run is not None
            self.committed.add((source, run_id))
            self.failed[run_id] = run.failed
            try:
                now = self._after(now, source, state, run)
            except AssertionError as error:
                raise AssertionError(
                    f"version {version}, run {run_id} of {source}: {error}"
                ) from None
        stored = {name: dict(state.partitions) for name, state in states.items()}
        stored = {name: one for name, one in stored.items() if one or name in now.reached}
        assert stored == now.reached, f"version {version}: {stored}, expected {now.reached}"
        by = {state.source: name for name, state in states.items()}
        rows, chunks = _rows_of(dataset, by)
        _compare(rows, now.rows, f"version {version} (new: {new})")
        _compare(chunks, self._chunks_of(rows), f"version {version} (new: {new}), in its chunks,")
        self.now = now
        return new

    def _chunks_of(self, rows: Mapping[str, Row]) -> dict[str, Row]:
        """Returns the chunks that documents must have, which are of the same source."""
        return {
            f"{key}#chunk={number}": (piece, {"parent": uuid_of(key)}, at, owner, None)
            for key, (text, _, at, owner, _) in rows.items()
            for number, piece in enumerate(self._pieces(text or ""))
        }

    def _after(self, now: Snapshot, source: str, state: SourceState, run: RunSummary) -> Snapshot:
        """Returns what must be there after a run."""
        if run.mode == "overwrite":  # of all sources
            now = replace(now, rows={}, reached={name: {} for name in now.reached}, parts={})
        before, parts = now.reached.get(source, {}), dict(now.parts)
        is_part = source in parts or bool(state.backfill)
        parts.pop(source, None)
        if state.backfill:
            parts[source] = str(state.backfill["last"])
        if run.mode == "state":  # by hand: forgets what was reached, and changes no document
            return replace(now, reached={**now.reached, source: {}}, parts=parts)
        read = {name: one for name, one in state.partitions.items() if one != before.get(name)}
        if run.partial:  # and so no state has moved
            assert not read, f"a partial run has moved {read}"
            read = dict(json.loads(reason) for reason in run.partial)
        assert is_part or set(read) == set(PARTITIONS), f"only {sorted(read)} were read"
        attempts = {one["attempt"] for one in read.values()}
        assert len(attempts) == 1, f"the attempts {attempts} were mixed"
        items: list[Item] = []
        for name, one in read.items():
            reached = before.get(name, {"round": 0})["round"]
            assert one["since"] in (0, reached), f"{name} has a gap: {before.get(name)}, then {one}"
            assert one["round"] >= reached, f"{name} went back from {before.get(name)} to {one}"
            found = self._items(source, name, one["since"], one["round"])
            items += [{**item, "partition": name} for item in found]
        failed = {item["partition"] for item in items if "error" in item}
        told = {name for name, one in read.items() if one["windows"]}
        complete = set() if run.partial or run.mode == "overwrite" else told - failed
        mirrors = run.mode == "mirror" and not failed and not run.partial
        kept = complete != told and run.mode != "overwrite"
        kept = not mirrors if run.mode == "mirror" else kept
        assert bool(run.kept) == kept, f"kept: {run.kept!r}"
        rows = dict(now.rows)
        _run(rows, source, newest(items), None if mirrors else complete)
        reached = {**now.reached, source: before if run.partial else {**before, **read}}
        return replace(now, rows=rows, reached=reached, parts=parts)


def _run(
    rows: dict[str, Row], source: str, newest: Mapping[str, Item], complete: set[str] | None
) -> None:
    """Applies a run to the rows, of which `complete` names the partitions; None stands for all."""
    gone = [
        key
        for key, row in rows.items()
        if row[3] == source and key not in newest and (complete is None or row[4] in complete)
    ]
    gone += [key for key, item in newest.items() if item.get("deleted")]
    for key in gone:
        rows.pop(key, None)
    for key, item in newest.items():
        if not item.get("deleted"):
            rows[key] = _row_of(item, source)


def _row_of(item: Item, source: str) -> Row:
    return item["text"], item["metadata"], item["at"], source, item["partition"]


def _rows_of(
    dataset: FrameDataset, sources: Mapping[str, str]
) -> tuple[dict[str, Row], dict[str, Row]]:
    """Returns the documents of a dataset, and their chunks; no key may be there twice."""
    owners: list[str] = []
    for batch in dataset.batches(["x_source"]):
        owners += [sources[owner] for owner in batch.column("x_source").to_pylist()]
    found: dict[str, Row] = {}
    chunks: dict[str, Row] = {}
    for record, owner in zip(dataset, owners, strict=True):
        key = str(record.unique_id)
        assert key not in found and key not in chunks, (
            f"version {dataset.version} holds {key} twice"
        )
        if record.parent is None:
            part = None if record.place is None else record.place.partition
            found[key] = (record.text_content, record.metadata, record.timestamp, owner, part)
        else:
            about = {"parent": record.parent}
            chunks[key] = (record.text_content, about, record.timestamp, owner, None)
    return found, chunks


def _compare(have: Mapping[str, Row], want: Mapping[str, Row], where: str) -> None:
    missing, more = sorted(want.keys() - have.keys()), sorted(have.keys() - want.keys())
    wrong = [(have[key], want[key]) for key in sorted(want.keys() & have.keys())]
    wrong = [pair for pair in wrong if pair[0] != pair[1]]
    assert not (missing or more or wrong), (
        f"{where} is not what it must be: {len(missing)} rows are missing {missing[:5]}, "
        f"{len(more)} are too many {more[:5]}, {len(wrong)} are wrong {wrong[:2]}"
    )
