"""The state of sources in a dataset: one row for each source, replaced by each of its runs.

The row has the sync state and the ids of the last runs, so it moves with the data in the same
transaction. It also prevents doubled commits: every run of a source replaces this row, and Lance
refuses a transaction that replaces a row which another one has replaced meanwhile. The dataset's
anchor row does the same between writers without a common state row: a source's first run has no
state row yet, and runs of two sources, or a manual edit, may add the same new key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import lance
import pyarrow as pa

from contextframe_beam.errors import ConfigError, ConnectorError, DatasetError, RecordError
from contextframe_beam.frames.embedders import EmbedderIdentity
from contextframe_beam.frames.encode import null_array
from contextframe_beam.frames.fields import OwnField, fields_in
from contextframe_beam.frames.record import ANCHOR_KEY as ANCHOR_KEY
from contextframe_beam.frames.record import ANCHOR_URI, RESERVED, uuid_of
from contextframe_beam.frames.schema import frame_schema
from contextframe_beam.frames.text_record import TextRecord
from contextframe_beam.frames.values import dump_json, loaded, mapping_of, of_type
from contextframe_beam.store.files import reading
from contextframe_beam.store.receipt import CommitReceipt as CommitReceipt
from contextframe_beam.store.runs import (
    NARROWING,
    NO_CHANGE,
    SLICE,
    StateChange,
)

_STATE_URI = f"{RESERVED}state:"

#: The row that records the embedder of a dataset's vectors.
EMBEDDER_URI = f"{RESERVED}embedder"
EMBEDDER_KEY = uuid_of(EMBEDDER_URI)

#: Selects documents and their chunks, not state rows.
DOCUMENTS = "x_state IS NULL"
STATES = "x_state IS NOT NULL"


def documents_in(dataset: lance.LanceDataset) -> str | None:
    """Returns what selects documents, neither chunks nor state rows; None where all are.

    Earlier releases and other programs make datasets without these columns.
    """
    conditions = {"x_state": DOCUMENTS, "x_parent": "x_parent IS NULL"}
    names = dataset.schema.names
    return " AND ".join(sql for name, sql in conditions.items() if name in names) or None


class Contents(NamedTuple):
    """How many documents a dataset holds, and how many chunks of them."""

    documents: int
    chunks: int = 0

    def __str__(self) -> str:
        """Returns it in words, as in `29 documents, 217 chunks`."""
        counts = {"document": self.documents, "chunk": self.chunks}
        told = [f"{n:,} {one}{'' if n == 1 else 's'}" for one, n in counts.items() if n]
        return ", ".join(told) or "0 documents"


def contents_of(dataset: lance.LanceDataset) -> Contents:
    """Counts the documents of a version and their chunks.

    Raises:
        DatasetError: it cannot be read.
    """
    has_chunks = "x_parent" in dataset.schema.names
    with reading(dataset.uri):
        documents = dataset.count_rows(filter=documents_in(dataset))
        chunks = dataset.count_rows(filter="x_parent IS NOT NULL") if has_chunks else 0
    return Contents(int(documents), int(chunks))


#: A source's row remembers this many runs; older run ids are no longer recognised.
MAX_RUNS = 200

#: The largest state in a source's row, in bytes; a run that would exceed it fails.
MAX_STATE_BYTES = 16 << 20

#: The mode of another source's run that overwrote the dataset, among a source's runs.
OVERWRITTEN = "overwritten"


#: A run in the state of its source.
RunSummary = CommitReceipt


@dataclass(frozen=True)
class SourceState:
    """Everything that a dataset stores about one source.

    Attributes:
        source: The source's id.
        name: The connector's name.
        identity: The origin of the id: the connector and its identifying arguments.
        partitions: The sync state of each partition.
        runs: The last runs, oldest first.
        backfill: The finished parts of an unfinished backfill; empty without one.
        missed: The uuids of documents that the last mirror missed and did not delete, because
            their pages are counted from the front.
        mapping: A digest of how its documents were made of its items, when all were made last;
            empty if that is unknown.
        account: The account whose content it has, where the identity does not say it.
    """

    source: str
    name: str = ""
    identity: Mapping[str, Any] = field(default_factory=dict)
    partitions: Mapping[str, Any] = field(default_factory=dict)
    runs: tuple[CommitReceipt, ...] = ()
    backfill: Mapping[str, Any] = field(default_factory=dict)
    missed: frozenset[str] = frozenset()
    mapping: str = ""
    account: str = ""

    @property
    def key(self) -> str:
        """The uuid of the state row."""
        return uuid_of(_STATE_URI + self.source)

    def run(self, run_id: str) -> CommitReceipt | None:
        """Returns the source's committed run with an id, or None."""
        own = (run for run in reversed(self.runs) if run.mode != OVERWRITTEN)
        return next((run for run in own if run.run_id == run_id), None)

    def after(
        self,
        run: CommitReceipt,
        partitions: Mapping[str, Any],
        change: StateChange = NO_CHANGE,
        *,
        is_complete: bool = False,
        mapping: str = "",
        account: str = "",
    ) -> SourceState:
        """Returns the state with one more run and the new states of partitions.

        The commits of a backfill are one run, with the counts of all and the id of the last. A run
        that may have missed records does not move partitions, unless it names what it missed.

        Args:
            run: The run.
            partitions: The new states by partition.
            change: The change for all of them.
            is_complete: Whether all of the source was read, so that other partitions are gone. If
                one returns, it is read whole.
            mapping: A digest of how the run made documents of items; empty if that is unknown.
            account: The account whose content it read, if it was told.
        """
        new = dict(partitions)
        if change.sliced:
            # Slices are named by their beginnings, so the newest one with a state is the last.
            new = {name.rpartition(" ")[0]: new[name] for name in sorted(new)}
        # What could not be read is not gone.
        known = {} if is_complete and new and not run.unread else self.partitions
        earlier = self.run(change.continues) if change.continues else None
        runs = [one for one in self.runs if one is not earlier]
        if earlier is not None:
            run = run.with_earlier(earlier)
        if change.partitions is not None:
            known = {**self.partitions, **change.partitions} if run.unread else change.partitions
        reached = _joined({**known, **change.reached}, new)
        anew = mapping and (not self.runs or (is_complete and not run.partial))
        return replace(
            self,
            # The next run must ask again for records that may be missing.
            partitions=reached if run.moves_state else self.partitions,
            mapping=mapping if anew else self.mapping,
            account=account or self.account,
            runs=(*runs, run)[-MAX_RUNS:],
            backfill=self.backfill if change.backfill is None else change.backfill,
        )

    def forgotten(self) -> SourceState:
        """Returns the state without its partitions' states; its runs are still known."""
        return replace(self, partitions={}, backfill={}, missed=frozenset(), account="")

    def to_json(self) -> str:
        """Returns the stored form of the state.

        Raises:
            ConnectorError: the connector's state does not fit into JSON, or is too large.
        """
        value: dict[str, Any] = {
            "source": self.source,
            "name": self.name,
            "identity": dict(self.identity),
            "partitions": dict(self.partitions),
            "runs": [run.to_json() for run in self.runs],
        }
        if self.backfill:
            value["backfill"] = dict(self.backfill)
        if self.missed:
            value["missed"] = sorted(self.missed)
        if self.mapping:
            value["mapping"] = self.mapping
        if self.account:
            value["account"] = self.account
        try:
            text = dump_json(value, "state")
        except RecordError as error:
            raise ConnectorError(
                f"the sync state of {self.name or self.source} cannot be stored: {error}"
            ) from error
        if len(text) > MAX_STATE_BYTES:
            raise ConnectorError(
                f"the sync state of {self.name or self.source} has {len(text):,} bytes in "
                f"{len(self.partitions):,} partitions, and at most {MAX_STATE_BYTES:,} are kept; "
                "let the connector keep less for each, or read fewer, larger partitions. Reading "
                "everything (full=True) forgets those that are gone"
            )
        return text

    @classmethod
    def from_json(cls, text: str) -> SourceState:
        """Reads what `to_json` wrote.

        Raises:
            DatasetError: the text is not a state.
        """
        try:
            value = of_type(loaded(text), dict, "it")
            identity = dict(mapping_of(value.get("identity"), "its identity"))
            for name in ("arguments", "sync"):
                if name in identity:
                    identity[name] = mapping_of(identity[name], f"its {name}")
            partitions = mapping_of(value.get("partitions"), "its partitions")
            return cls(
                source=of_type(value["source"], str, "its source"),
                name=of_type(value.get("name", ""), str, "its name"),
                identity=identity,
                partitions={
                    name: of_type(state, dict, f"the state of {name!r:.40}")
                    for name, state in partitions.items()
                },
                runs=tuple(
                    CommitReceipt.from_json(run) for run in of_type(value["runs"], list, "its runs")
                ),
                backfill=dict(mapping_of(value.get("backfill"), "its backfill")),
                missed=frozenset(
                    of_type(key, str, "a key that was missed")
                    for key in of_type(value.get("missed", []), list, "what was missed")
                ),
                mapping=of_type(value.get("mapping", ""), str, "its mapping"),
                account=of_type(value.get("account", ""), str, "its account"),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(
                f"a state row of this dataset cannot be read ({error}); it was written by a newer "
                "release or changed by hand. `contextframe-beam rollback` returns to a version "
                "before that"
            ) from error


def parts_of(
    states: Mapping[str, SourceState], source: str, identity: Mapping[str, Any]
) -> list[SourceState]:
    """Returns the states that earlier releases kept for selections of a source, oldest first.

    Args:
        states: All states of a dataset, by source id.
        source: The source's id.
        identity: What that was made of.
    """
    found = [
        state
        for state in states.values()
        if state.source != source
        and NARROWING.intersection(state.identity.get("sync") or ())
        and without_narrowing(state.identity) == identity
    ]
    return sorted(found, key=lambda state: max((run.version for run in state.runs), default=0))


def without_narrowing(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an identity without the arguments that only select a part of a source."""
    wider = dict(identity)
    sync = {k: v for k, v in dict(wider.pop("sync", {})).items() if k not in NARROWING}
    return {**wider, "sync": sync} if sync else wider


def state_of(
    states: Mapping[str, SourceState],
    source: str,
    identity: Mapping[str, Any],
    by_partition: Iterable[str] = (),
) -> SourceState | None:
    """Returns the state of a source, completed with the states of its earlier selections.

    Args:
        states: All states of a dataset, by source id.
        source: The source's id.
        identity: What that was made of.
        by_partition: The arguments that leave the states of partitions correct. States of
            selections by other arguments may not hold for the source.
    """
    parts = parts_of(states, source, identity)
    state = states.get(source)
    if not parts:
        return state
    reached: dict[str, Any] = {}
    for part in parts:
        if NARROWING.intersection(part.identity["sync"]) <= set(by_partition):
            reached.update(part.partitions)
    state = state or SourceState(source, identity=identity)
    return replace(state, partitions={**reached, **state.partitions})


@dataclass(frozen=True)
class StateRows:
    """The rows of one version that are not documents.

    Attributes:
        states: The state of every source in the dataset, by source id.
        addresses: The address of each row by its key, including the anchor and the embedder.
        texts: What the dataset records of its texts.
    """

    states: Mapping[str, SourceState] = field(default_factory=dict)
    addresses: Mapping[str, int] = field(default_factory=dict)
    texts: TextRecord = field(default_factory=TextRecord)


def read_state_rows(dataset: lance.LanceDataset) -> StateRows:
    """Reads the states of a dataset and the addresses of their rows.

    Raises:
        DatasetError: they cannot be read.
    """
    if "x_state" not in dataset.schema.names:
        return StateRows()
    columns = ["uuid", "x_state"]
    with reading(dataset.uri):
        table = dataset.to_table(columns=columns, filter=STATES, with_row_address=True)
    rows = list(zip(table["uuid"].to_pylist(), table["x_state"].to_pylist(), strict=True))
    own = (ANCHOR_KEY, EMBEDDER_KEY)
    states = [_state_in(key, text) for key, text in rows if key not in own]
    return StateRows(
        {state.source: state for state in states},
        {key: int(at) for (key, _), at in zip(rows, table["_rowaddr"].to_pylist(), strict=True)},
        next((_texts_in(text) for key, text in rows if key == EMBEDDER_KEY), TextRecord()),
    )


def _texts_in(text: str) -> TextRecord:
    try:
        return TextRecord.from_json(text)
    except ConfigError as error:
        raise DatasetError(
            f"what this dataset says of its embedder cannot be read: {error}; it was written by a "
            "newer release or changed by hand. `contextframe-beam embed` makes all vectors anew"
        ) from error


def _state_in(key: str, text: str) -> SourceState:
    state = SourceState.from_json(text)
    if state.key != key:
        # Its next run would leave this row and add another.
        raise DatasetError(
            f"the state row {key} of this dataset names the source {state.source!r:.60}, whose row "
            f"is {state.key}; it was changed by hand. `contextframe-beam rollback` returns to a "
            "version before that"
        )
    return state


def read_states(dataset: lance.LanceDataset) -> dict[str, SourceState]:
    """Returns the state of every source in the dataset, by source id.

    Raises:
        DatasetError: the states cannot be read.
    """
    return dict(read_state_rows(dataset).states)


def read_embedder(dataset: lance.LanceDataset) -> EmbedderIdentity | None:
    """Returns the embedder of a dataset's vectors; None if it is not recorded.

    Raises:
        DatasetError: it cannot be read.
    """
    return read_texts(dataset).embedder


def read_texts(dataset: lance.LanceDataset) -> TextRecord:
    """Returns what a dataset records of its texts.

    Raises:
        DatasetError: it cannot be read.
    """
    return read_state_rows(dataset).texts


def state_named(states: Mapping[str, SourceState], source: str) -> SourceState | None:
    """Returns the state of a source, by its id or its connector's name.

    Raises:
        ConfigError: several sources have that name.
    """
    if source in states:
        return states[source]
    named = [state for state in states.values() if state.name == source]
    if len(named) > 1:
        ids = ", ".join(state.source for state in named)
        raise ConfigError(f"{len(named)} sources are called {source}; name one of {ids}")
    return named[0] if named else None


def state_rows(
    states: Iterable[SourceState],
    *,
    anchor: bool,
    embed_dim: int,
    texts: TextRecord | None = None,
    fields: Sequence[OwnField] = (),
) -> pa.RecordBatch:
    """Returns the rows of a dataset that are not documents, in `frame_schema`'s order.

    Args:
        states: States of sources.
        anchor: Whether to include the anchor row.
        embed_dim: The vector length of the dataset.
        texts: What it records of its texts; None, or nothing to record, makes no row for it.
        fields: The own fields of the dataset, for rows that are written together with others.
    """
    rows = [
        {
            "uuid": state.key,
            "title": f"State of {state.name or state.source}",
            "uri": _STATE_URI + state.source,
            "x_source": state.source,
            "x_state": state.to_json(),
        }
        for state in states
    ]
    if anchor:
        rows.append(
            {"uuid": ANCHOR_KEY, "title": "contextframe-beam", "uri": ANCHOR_URI, "x_state": "{}"}
        )
    if texts:
        embedder = texts.embedder
        rows.append(
            {
                "uuid": EMBEDDER_KEY,
                "title": "Texts" if embedder is None else f"Vectors of {embedder.spec}",
                "uri": EMBEDDER_URI,
                "x_state": texts.to_json(),
            }
        )
    arrays = []
    schema = pa.schema([*frame_schema(embed_dim), *fields_in(fields)])
    for column in schema:
        values: list[Any] = [row.get(column.name) for row in rows]
        if column.name == "record_type":
            values = ["dataset_header"] * len(rows)
        elif column.name == "custom_metadata":
            values = [[] for _ in rows]
        if all(value is None for value in values):
            arrays.append(null_array(column.type, len(rows)))
        else:
            arrays.append(pa.array(values, column.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _joined(known: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the states of partitions; slices of time are joined once all of them were read.

    Args:
        known: The states so far.
        new: Those that a run reached.
    """
    joined = {**known, **new}
    slices: dict[str, list[tuple[str, str]]] = {}
    complete: set[str] = set()
    for name, state in joined.items():
        mark = state.get(SLICE) if isinstance(state, Mapping) else None
        if isinstance(mark, Mapping):
            slices.setdefault(str(mark.get("of")), []).append((str(mark.get("from")), name))
            if "last" in mark:
                complete.add(str(mark.get("of")))
    for whole in complete:
        reached = known.get(whole)
        for _, name in sorted(slices[whole]):
            found = {key: one for key, one in joined.pop(name).items() if key != SLICE}
            reached = found or reached
        if reached is not None:
            joined[whole] = reached
    return joined
