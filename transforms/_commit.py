"""The commit of a run: all its rows, removals and sync state in one transaction, once.

It may be called twice for a run, at the same time on two machines, or after it was killed; the
run is in the dataset once whenever a call reports success.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone

import lance
import pyarrow as pa

from contextframe_beam.connectors.page import SourceInfo
from contextframe_beam.errors import (
    CommitError,
    ConcurrentRunError,
    DatasetError,
    TooManyFailures,
)
from contextframe_beam.fragments import (
    Destination,
    StorageOptions,
    WrittenFragment,
    check_files,
    open_dataset,
    write_rows,
)
from contextframe_beam.schema import frame_schema
from contextframe_beam.state import (
    ANCHOR_KEY,
    NO_SOURCE,
    RunSummary,
    SourceState,
    read_states,
    state_rows,
)
from contextframe_beam.transaction import (
    Removal,
    commit_overwrite,
    commit_update,
    remove_keys,
    with_retries,
)
from contextframe_beam.transforms._duplicates import Deduplicated, drop_duplicates
from contextframe_beam.transforms._failures import FailureLimit
from contextframe_beam.transforms._written import SourceTally, Written
from contextframe_beam.transforms.receipt import CommitReceipt

@dataclass(frozen=True)
class Run:
    """What a run is to do, known before it starts.

    Attributes:
        uri: The dataset.
        mode: create, append, overwrite or upsert.
        run_id: Its name; a run of a name that was committed is not committed again.
        embed_dim: The dataset's vector length.
        base_version: The dataset's version when the run began; None where there was none.
        storage_options: For object stores.
        storage_version: The file format of a new dataset.
        failures: How many failed items are too many.
        dead_letters: Where the failed items are, for messages.
    """

    uri: str
    mode: str
    run_id: str
    embed_dim: int
    base_version: int | None
    storage_options: Mapping[str, str] | None
    storage_version: str
    failures: FailureLimit
    dead_letters: str | None = None

    @property
    def schema(self) -> pa.Schema:
        """The columns of its rows."""
        return frame_schema(self.embed_dim)

    @property
    def destination(self) -> Destination:
        """Where its rows go."""
        return Destination(
            self.uri, self.storage_options, self.storage_version, self.mode == "overwrite"
        )


def commit_run(run: Run, written: Written) -> CommitReceipt:
    """Commits what the workers wrote.

    Raises:
        TooManyFailures: more items failed than the run allows.
        ConcurrentRunError: another run made this one's decisions void, or kept coming first.
        CommitError: something of the run is missing; in each case nothing was committed.
    """
    earlier = committed_receipt(run.uri, run.run_id, run.storage_options)
    if earlier is not None:
        return earlier
    _check_complete(run, written)
    run.failures.check(written, run.dead_letters)
    check_files(run.uri, written.fragments, run.storage_options)
    unique = drop_duplicates(run.destination, written.fragments, run.schema)
    return with_retries(run.uri, lambda: _attempt(run, written, unique))


def committed_receipt(
    uri: str, run_id: str, storage_options: StorageOptions = None
) -> CommitReceipt | None:
    """Returns the receipt of a run that was committed already, else None."""
    dataset = open_dataset(uri, storage_options)
    if dataset is None:
        return None
    return _receipt_of_earlier(run_id, read_states(dataset))


def _receipt_of_earlier(
    run_id: str, states: Mapping[str, SourceState]
) -> CommitReceipt | None:
    found = [run for run in (state.run(run_id) for state in states.values()) if run]
    if not found:
        return None
    return replace(_receipt_of(found[0]), already_committed=True)


def _receipt_of(summary: RunSummary) -> CommitReceipt:
    return CommitReceipt(
        version=summary.version,
        run_id=summary.run_id,
        mode=summary.mode,
        rows_written=summary.written,
        rows_replaced=summary.replaced,
        rows_deleted=summary.deleted,
        rows_unchanged=summary.unchanged,
        rows_dropped=summary.dropped,
        failed=summary.failed,
        fragments=summary.fragments,
        bytes=summary.bytes,
    )


def _check_complete(run: Run, written: Written) -> None:
    for tally in written.sources.values():
        if tally.planned != tally.finished:
            raise CommitError(
                f"only {tally.finished:,} of the {tally.planned:,} parts of {tally.info.name} "
                f"reached the commit of run {run.run_id}; nothing was committed. The runner lost "
                "or repeated elements; run it again, on one worker if it happens again"
            )


def _attempt(run: Run, written: Written, unique: Deduplicated) -> CommitReceipt:
    dataset = open_dataset(run.uri, run.storage_options)
    states = {} if dataset is None else read_states(dataset)
    earlier = _receipt_of_earlier(run.run_id, states)
    if earlier is not None:
        return earlier
    if dataset is None:
        if run.base_version is not None:
            raise CommitError(f"{run.uri} was removed while run {run.run_id} was reading")
        return _write(run, written, unique, None, states, Removal([], [], 0))
    if run.mode == "create":
        raise CommitError(
            f"{run.uri} exists already; choose --mode upsert, append or overwrite, or another path"
        )
    if run.mode == "overwrite":
        _require_base(run, dataset)
        return _write(run, written, unique, dataset, {}, Removal([], [], 0))
    _require_same_sources(run, written, states)
    replaced = unique.keys if run.mode == "upsert" else pa.array([], pa.string())
    own = [state.key for state in _states_of(written, states)]
    removed = pa.array([*own, ANCHOR_KEY] if _is_first(written, states) else own)
    removal = remove_keys(dataset, pa.concat_arrays([replaced.cast(pa.string()), removed]))
    return _write(run, written, unique, dataset, states, removal)


def _require_base(run: Run, dataset: lance.LanceDataset) -> None:
    if run.base_version != dataset.version:
        raise ConcurrentRunError(
            f"{run.uri} went from version {run.base_version} to {dataset.version} while run "
            f"{run.run_id} was reading, and overwriting it would lose that; nothing was "
            "committed, run it again"
        )


def _require_same_sources(
    run: Run, written: Written, states: Mapping[str, SourceState]
) -> None:
    """Refuses decisions that were made from a state which another run has changed since."""
    for source, tally in written.sources.items():
        if not tally.unchanged and not tally.partitions:
            continue
        before = _states_at_base(run).get(source)
        now = states.get(source)
        if (before.runs[-1:] if before else ()) != (now.runs[-1:] if now else ()):
            raise ConcurrentRunError(
                f"another run of {tally.info.name} was committed to {run.uri} while run "
                f"{run.run_id} was reading; nothing of this one was committed, run it again"
            )


def _states_at_base(run: Run) -> Mapping[str, SourceState]:
    if run.base_version is None:
        return {}
    try:
        dataset = open_dataset(run.uri, run.storage_options, run.base_version)
    except DatasetError as error:
        raise ConcurrentRunError(
            f"version {run.base_version} of {run.uri}, from which run {run.run_id} started, was "
            "cleaned up meanwhile; nothing was committed, run it again"
        ) from error
    return {} if dataset is None else read_states(dataset)


def _tallies(written: Written) -> list[SourceTally]:
    if written.sources:
        return list(written.sources.values())
    return [SourceTally(SourceInfo(NO_SOURCE, NO_SOURCE))]


def _states_of(written: Written, states: Mapping[str, SourceState]) -> list[SourceState]:
    """Returns the states of the run's sources, new ones for new sources."""
    return [
        replace(
            states.get(tally.info.source_id) or SourceState(tally.info.source_id),
            name=tally.info.name,
            identity=tally.info.identity,
        )
        for tally in _tallies(written)
    ]


def _is_first(written: Written, states: Mapping[str, SourceState]) -> bool:
    """Tells whether a source has no row yet whose replacement would guard the commit."""
    return any(tally.info.source_id not in states for tally in _tallies(written))


def _write(
    run: Run,
    written: Written,
    unique: Deduplicated,
    dataset: lance.LanceDataset | None,
    states: Mapping[str, SourceState],
    removal: Removal,
) -> CommitReceipt:
    """Commits rows and removal with the sources' new state rows, and says what was done."""
    whole = dataset is None or run.mode == "overwrite"
    base = dataset.version if dataset is not None else 0
    before = _states_of(written, states)
    known = sum(state.source in states for state in before)
    anchor = whole or _is_first(written, states)
    replaced = 0 if whole else removal.rows - known - int(anchor and _has_anchor(dataset))
    deleted = _count_documents(dataset) if run.mode == "overwrite" and dataset is not None else 0
    summary = RunSummary(
        run_id=run.run_id,
        mode=run.mode,
        at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        version=base + 1,
        written=sum(fragment.rows for fragment in unique.fragments),
        replaced=replaced,
        deleted=deleted,
        unchanged=written.unchanged,
        dropped=unique.dropped,
        failed=written.failed,
        fragments=len(unique.fragments),
        bytes=sum(fragment.size for fragment in unique.fragments),
    )
    after = [
        state.after(summary, tally.partitions)
        for state, tally in zip(before, _tallies(written), strict=True)
    ]
    rows = state_rows(after, anchor=anchor, embed_dim=run.embed_dim)
    new = [*unique.fragments, *write_rows(run.destination, [rows])]
    _check_columns(run, new)
    properties = {
        "contextframe.run_id": run.run_id,
        "contextframe.mode": run.mode,
        "contextframe.counts": json.dumps(
            {
                name: value
                for name, value in asdict(summary).items()
                if isinstance(value, int) and name != "version"
            }
        ),
    }
    try:
        if whole:
            committed = commit_overwrite(
                run.uri,
                run.schema,
                new,
                read_version=base,
                storage_version=run.storage_version,
                properties=properties,
                storage_options=run.storage_options,
            )
        else:
            assert dataset is not None
            committed = commit_update(
                dataset,
                removal,
                new,
                properties=properties,
                storage_options=run.storage_options,
            )
    except DatasetError as error:
        # The answer may have been lost on the way after the commit was done.
        done = committed_receipt(run.uri, run.run_id, run.storage_options)
        if done is None:
            raise CommitError(f"run {run.run_id} was not committed: {error}") from error
        return replace(done, already_committed=False)
    return replace(_receipt_of(summary), version=int(committed.version))


def _has_anchor(dataset: lance.LanceDataset | None) -> bool:
    return dataset is not None and bool(dataset.count_rows(filter=f"uuid = '{ANCHOR_KEY}'"))


def _count_documents(dataset: lance.LanceDataset) -> int:
    condition = "x_state IS NULL" if "x_state" in dataset.schema.names else None
    return int(dataset.count_rows(filter=condition))


def _check_columns(run: Run, fragments: list[WrittenFragment]) -> None:
    """Refuses files whose columns carry other field ids than the dataset's.

    Files for a new dataset number their columns by position; if somebody else created it
    meanwhile with other columns, Lance would mix them up.
    """
    layouts = {
        tuple(file["fields"])
        for fragment in fragments
        for file in json.loads(fragment.metadata)["files"]
    }
    if len(layouts) > 1:
        raise CommitError(
            f"the columns of {run.uri} changed while run {run.run_id} was writing; "
            "nothing was committed, run it again"
        )
