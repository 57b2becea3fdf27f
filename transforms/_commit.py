"""The commit of a run: all its rows, removals and sync state in one transaction, once.

It may be called twice for a run, at the same time on two machines, or after it was killed; the
run is in the dataset once whenever a call reports success.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from contextframe_beam.connectors.page import SourceInfo
from contextframe_beam.dataset import adopt
from contextframe_beam.errors import (
    CommitError,
    ConcurrentRunError,
    ContextFrameError,
    DatasetError,
    SchemaError,
    UnknownCommitError,
)
from contextframe_beam.fragments import (
    Destination,
    StorageOptions,
    WrittenFragment,
    check_files,
    delete_files,
    open_dataset,
    write_rows,
)
from contextframe_beam.history import rollback_after
from contextframe_beam.keys import KeySet, Numbers, NumberSet, numbers_of
from contextframe_beam.removal import Addresses, find_rows, no_addresses, remove_rows
from contextframe_beam.schema import embed_dim_of, frame_schema
from contextframe_beam.state import (
    ANCHOR_KEY,
    DOCUMENTS,
    NO_SOURCE,
    OVERWRITTEN,
    RunSummary,
    SourceState,
    StateRows,
    read_state_rows,
    read_states,
    state_rows,
)
from contextframe_beam.transaction import commit_overwrite, commit_update, with_retries
from contextframe_beam.transforms._duplicates import (
    ORDER_COLUMNS,
    Deduplicated,
    Deletions,
    drop_duplicates,
    keys_of,
)
from contextframe_beam.transforms._failures import FailureLimit
from contextframe_beam.transforms._overtaken import replaced_by_others
from contextframe_beam.transforms._seen import SeenRows, rows_of_sources
from contextframe_beam.transforms._written import SourceTally, Written
from contextframe_beam.transforms.receipt import CommitReceipt

#: How many versions after the expected one may be the one that a run made.
_VERSIONS_LOOKED_AT = 100


@dataclass(frozen=True)
class Run:
    """What a run is to do, known before it starts.

    Attributes:
        uri: The dataset.
        mode: create, append, overwrite, upsert or mirror.
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
    def replaces(self) -> bool:
        """Whether it replaces stored rows of its keys, and leaves those alone that are the same."""
        return self.mode in ("upsert", "mirror")

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
        UnknownCommitError: the object store did not answer, and cannot be asked what it did.
    """
    try:
        receipt = _commit(run, written)
    except ContextFrameError as error:
        # Another committer of this run may have come first, and removed what is not needed any
        # more; or the answer to our own commit was lost.
        try:
            done = _committed_before(run, written)
        except ContextFrameError:
            raise error from error.__cause__
        if done is None:
            raise
        receipt = done
    if receipt.already_committed:
        # By a committer that had the same files, or files of its own: then nobody needs these.
        delete_files(run.uri, written.fragments, run.storage_options)
    return receipt


def _commit(run: Run, written: Written) -> CommitReceipt:
    earlier = _committed_before(run, written)
    if earlier is not None:
        return earlier
    _check_complete(run, written)
    run.failures.check(written, run.dead_letters)
    check_files(run.uri, written.fragments, run.storage_options)
    seen = _seen_rows(run, written)
    deletions = Deletions.concat(
        part for tally in written.sources.values() for part in tally.deletions
    )
    contested = None
    if seen is not None:
        keys = Numbers.concat([keys_of(written.fragments), deletions.keys])
        contested = seen.of_keys(KeySet(keys), ORDER_COLUMNS)
    unique = drop_duplicates(run.destination, written.fragments, run.schema, contested, deletions)
    attempts: list[WrittenFragment] = []
    plan = _Plan(run, written, unique, seen, attempts)
    try:
        receipt = with_retries(run.uri, lambda: _attempt(plan))
    except ContextFrameError as error:
        # After other failures of an attempt, a request may still be under way that names the files.
        if not attempts or isinstance(error, ConcurrentRunError):
            delete_files(run.uri, [*unique.rewritten, *attempts], run.storage_options)
        raise
    if receipt.already_committed:
        needless = [*unique.rewritten, *attempts]
    else:
        # Each attempt looked for the run's id first, so those before the last one did fail.
        needless = [*unique.obsolete, *attempts[:-1]]
    delete_files(run.uri, needless, run.storage_options)
    return receipt


def _seen_rows(run: Run, written: Written) -> SeenRows | None:
    """Returns the rows that the run met unchanged; None where there are none."""
    unchanged = [part for tally in written.sources.values() for part in tally.unchanged]
    base = _base(run) if unchanged else None
    return SeenRows(base, unchanged) if base is not None else None


@dataclass(frozen=True)
class _Plan:
    """What every attempt of a commit has in common.

    Attributes:
        run: The run.
        written: What its workers reported.
        unique: Its data files, keys once.
        seen: The stored rows that the run met unchanged; None where there are none.
        attempts: The data file of state rows of each attempt, in order; attempts add to it.
    """

    run: Run
    written: Written
    unique: Deduplicated
    seen: SeenRows | None
    attempts: list[WrittenFragment]

    @property
    def unchanged(self) -> int:
        """Stored documents that stay as they are."""
        return len(self.seen) - self.unique.outdated if self.seen is not None else 0

    @property
    def met(self) -> int:
        """Items of the run that were such a document, or were when they were read."""
        return sum(tally.met for tally in self.tallies)

    @property
    def kept(self) -> str:
        """Why a mirror must not delete what it did not see; empty where it may."""
        if self.run.mode != "mirror":
            return ""
        reasons = sorted({reason for tally in self.tallies for reason in tally.partial})
        if self.written.failed:
            some = "1 item" if self.written.failed == 1 else f"{self.written.failed:,} items"
            reasons.append(f"{some} failed")
        if NO_SOURCE in self.written.sources:
            reasons.append("records that no connector made belong to no source")
        return "; ".join(reasons)

    @property
    def tallies(self) -> list[SourceTally]:
        """What each source gave; at least one."""
        return _tallies(self.written)


def _tallies(written: Written) -> list[SourceTally]:
    found = list(written.sources.values())
    return found or [SourceTally(SourceInfo(NO_SOURCE, NO_SOURCE))]


def committed_receipt(
    uri: str, run_id: str, storage_options: StorageOptions = None
) -> CommitReceipt | None:
    """Returns the receipt of a run that was committed already, else None."""
    dataset = open_dataset(uri, storage_options)
    if dataset is None:
        return None
    return _receipt_of_earlier(run_id, dataset, read_states(dataset))


def _committed_before(run: Run, written: Written) -> CommitReceipt | None:
    dataset = open_dataset(run.uri, run.storage_options)
    if dataset is None:
        return None
    states = read_states(dataset)
    _refuse_foreign_run(run, _tallies(written), states)
    return _receipt_of_earlier(run.run_id, dataset, states)


def _refuse_foreign_run(
    run: Run, tallies: Iterable[SourceTally], states: Mapping[str, SourceState]
) -> None:
    """Refuses a run id under which other sources were committed: it would pass for done."""
    of = {source: state for source, state in states.items() if state.run(run.run_id)}
    new = [tally.info for tally in tallies if tally.info.source_id not in of]
    if of and new:
        known = " and ".join(sorted(state.name or source for source, state in of.items()))
        raise CommitError(
            f"a run {run.run_id} of another source ({known}) was committed to {run.uri} before, "
            f"and a run id is used once in a dataset; nothing of {new[0].name} was committed, give "
            "it another run id"
        )


def _receipt_of_earlier(
    run_id: str, dataset: lance.LanceDataset, states: Mapping[str, SourceState]
) -> CommitReceipt | None:
    found = [run for run in (state.run(run_id) for state in states.values()) if run]
    if not found:
        return None
    return replace(
        _receipt_of(found[0]), version=_version_of(found[0], dataset), already_committed=True
    )


def _version_of(summary: RunSummary, dataset: lance.LanceDataset) -> int:
    """Returns the version that a run made.

    The run itself could only expect one when it wrote its state: where another program added
    rows at the same moment, it became a later one. Versions that were cleaned up cannot tell.
    """
    last = min(int(dataset.version), summary.version + _VERSIONS_LOOKED_AT)
    for version in range(summary.version, last + 1):
        try:
            transaction = dataset.read_transaction(version)
        except (OSError, ValueError):
            continue
        properties = (transaction.transaction_properties if transaction else None) or {}
        if properties.get("contextframe.run_id") == summary.run_id:
            return version
    return summary.version


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
        kept=summary.kept,
    )


def _check_complete(run: Run, written: Written) -> None:
    for tally in written.sources.values():
        if tally.planned != tally.finished:
            raise CommitError(
                f"only {tally.finished:,} of the {tally.planned:,} parts of {tally.info.name} "
                f"reached the commit of run {run.run_id}; nothing was committed. The runner lost "
                "or repeated elements; run it again, on one worker if it happens again"
            )
    if written.announced != len(written.fragments):
        raise CommitError(
            f"only {len(written.fragments):,} of the {written.announced:,} data files that the "
            f"workers wrote reached the commit of run {run.run_id}; nothing was committed. The "
            "runner lost or repeated elements; run it again, on one worker if it happens again"
        )


def _attempt(plan: _Plan) -> CommitReceipt:
    run = plan.run
    dataset = open_dataset(run.uri, run.storage_options)
    if dataset is None:
        if run.base_version is not None:
            raise CommitError(
                f"{run.uri} was removed while run {run.run_id} was reading; nothing was committed"
            )
        return _create(plan)
    _require_no_rollback(run, dataset)
    if run.mode == "append" or run.replaces:
        _require_same_columns(run, dataset)
        dataset = adopt(dataset, run.storage_options)
    # From here on all is decided from one version: what is committed later makes us start again.
    rows = read_state_rows(dataset)
    states = rows.states
    _refuse_foreign_run(run, plan.tallies, states)
    earlier = _receipt_of_earlier(run.run_id, dataset, states)
    if earlier is not None:
        return earlier
    if run.mode == "create":
        raise CommitError(
            f"{run.uri} exists already; choose --mode upsert, append or overwrite, or another path"
        )
    if run.mode == "overwrite":
        return _overwrite(plan, dataset, states)
    _require_same_sources(plan, dataset, states)
    return _update(plan, dataset, rows)


def _create(plan: _Plan) -> CommitReceipt:
    return _replace_all(plan, 0, {}, _summary(plan, version=1))


def _overwrite(
    plan: _Plan, dataset: lance.LanceDataset, states: Mapping[str, SourceState]
) -> CommitReceipt:
    run = plan.run
    if run.base_version is None:
        raise ConcurrentRunError(
            f"{run.uri} was created while run {run.run_id} was reading, and overwriting it would "
            "lose that; nothing was committed, run it again"
        )
    if run.base_version != dataset.version:
        raise ConcurrentRunError(
            f"{run.uri} went from version {run.base_version} to {dataset.version} while run "
            f"{run.run_id} was reading, and overwriting it would lose that; nothing was "
            "committed, run it again"
        )
    documents = DOCUMENTS if "x_state" in dataset.schema.names else None
    stored = dataset.count_rows(filter=documents)
    found, _ = find_rows(dataset, KeySet(plan.unique.keys))
    replaced = len(found)
    summary = _summary(
        plan, version=dataset.version + 1, replaced=replaced, deleted=stored - replaced
    )
    return _replace_all(plan, dataset.version, states, summary)


def _replace_all(
    plan: _Plan, read_version: int, states: Mapping[str, SourceState], summary: RunSummary
) -> CommitReceipt:
    """Makes the run's rows the dataset's only ones.

    The sources that were in it are remembered with their runs, so that none of these is applied
    again; what they had reached is gone with their rows.
    """
    forgotten = {source: state.forgotten() for source, state in states.items()}
    own = _own_states(plan, forgotten, summary)
    ended = RunSummary(summary.run_id, OVERWRITTEN, summary.at, summary.version)
    others = [state.after(ended, {}) for source, state in forgotten.items() if source not in own]
    run = plan.run
    return _answer(
        plan,
        summary,
        lambda new: commit_overwrite(
            run.uri,
            run.schema,
            new,
            read_version=read_version,
            storage_version=run.storage_version,
            properties=_properties(summary),
            storage_options=run.storage_options,
        ),
        state_rows([*own.values(), *others], anchor=True, embed_dim=run.embed_dim),
    )


def _update(plan: _Plan, dataset: lance.LanceDataset, rows: StateRows) -> CommitReceipt:
    """Adds the run's rows, and removes what they replace and what is deleted."""
    run, unique = plan.run, plan.unique
    _refuse_own_keys(plan, rows)
    sources = [tally.info.source_id for tally in plan.tallies]
    own = [rows.states[source].key for source in sources if source in rows.states]
    # The state row guards against the source's other runs. Runs of other sources may bring the
    # same new key, and a source's first run has no row yet: these meet at the anchor.
    anchored = run.replaces or len(own) < len(sources)
    guards = np.array(
        [rows.addresses[key] for key in ([*own, ANCHOR_KEY] if anchored else own)], np.uint64
    )
    matched, replaced = no_addresses(), 0
    if run.replaces:
        keys = KeySet(Numbers.concat([unique.keys, unique.deleted]))
        matched, places = find_rows(dataset, keys)
        replaced = int((places < len(unique.keys)).sum())
    unseen = _unseen(plan, dataset)
    own_rows = np.array(list(rows.addresses.values()), np.uint64)
    documents = np.setdiff1d(np.union1d(matched, unseen), own_rows)
    removal = remove_rows(dataset, np.concatenate([documents, guards]))
    summary = _summary(
        plan,
        version=dataset.version + 1,
        replaced=replaced,
        deleted=len(documents) - replaced,
    )
    return _answer(
        plan,
        summary,
        lambda new: commit_update(
            dataset,
            removal,
            new,
            properties=_properties(summary),
            storage_options=run.storage_options,
        ),
        state_rows(
            _own_states(plan, rows.states, summary).values(),
            anchor=anchored,
            embed_dim=run.embed_dim,
        ),
    )


def _unseen(plan: _Plan, dataset: lance.LanceDataset) -> Addresses:
    """Returns the rows of a complete mirror's sources that it did not meet unchanged."""
    if plan.run.mode != "mirror" or plan.kept:
        return no_addresses()
    sources = [tally.info.source_id for tally in plan.tallies]
    if plan.seen is None:
        return rows_of_sources(dataset, sources)
    return plan.seen.others(dataset, sources)


def _refuse_own_keys(plan: _Plan, rows: StateRows) -> None:
    """Refuses documents under the key of a state row: readers and commits would mix them up."""
    stated = [*rows.addresses, *(SourceState(t.info.source_id).key for t in plan.tallies)]
    numbers, _ = numbers_of(pa.array(stated, pa.string()))
    brought = NumberSet(numbers)
    for keys in (plan.unique.keys, plan.unique.deleted):
        found = brought.find(keys)
        if (found >= 0).any():
            key = stated[int(found.max())]
            raise CommitError(
                f"run {plan.run.run_id} has a document with the uuid {key}, the key of a row that "
                f"{plan.run.uri} has of its own; nothing was committed. Give it another uuid, or "
                "leave it to be made from the unique_id"
            )


def _require_same_sources(
    plan: _Plan, dataset: lance.LanceDataset, states: Mapping[str, SourceState]
) -> None:
    """Refuses decisions that were made from a state or rows which others have changed since."""
    run = plan.run
    dependent = [
        tally
        for tally in plan.tallies
        if tally.unchanged or tally.partitions or run.mode == "mirror"
    ]
    if not dependent:
        return
    base = _base(run)
    known = {} if base is None else read_states(base)
    for tally in dependent:
        before, now = known.get(tally.info.source_id), states.get(tally.info.source_id)
        if _progress(before) != _progress(now):
            raise ConcurrentRunError(
                f"another run of {tally.info.name} was committed to {run.uri} while run "
                f"{run.run_id} was reading; nothing of this one was committed, run it again"
            )
        if base is None or base.version == dataset.version or not tally.unchanged:
            continue
        if replaced_by_others(base, dataset, tally.info.source_id):
            raise ConcurrentRunError(
                f"documents of {tally.info.name} in {run.uri} were replaced by others while run "
                f"{run.run_id} was reading; nothing of this one was committed, run it again"
            )


def _progress(state: SourceState | None) -> tuple[Any, ...]:
    return (state.runs[-1:], dict(state.partitions)) if state else ((), {})


def _base(run: Run) -> lance.LanceDataset | None:
    """Returns the dataset as the run met it, None if there was none."""
    if run.base_version is None:
        return None
    try:
        return open_dataset(run.uri, run.storage_options, run.base_version)
    except DatasetError as error:
        raise ConcurrentRunError(
            f"version {run.base_version} of {run.uri}, from which run {run.run_id} started, was "
            "cleaned up meanwhile; nothing was committed, run it again"
        ) from error


def _require_no_rollback(run: Run, dataset: lance.LanceDataset) -> None:
    """Refuses a run that began with what a rollback has undone since."""
    found = rollback_after(dataset, run.base_version or 0)
    if found is not None:
        raise ConcurrentRunError(
            f"{run.uri} was rolled back to version {found.restored} while run {run.run_id} was "
            "reading; nothing was committed, run it again"
        )


def _require_same_columns(run: Run, dataset: lance.LanceDataset) -> None:
    """Refuses a dataset that somebody made or remade otherwise after the run began."""
    try:
        same = embed_dim_of(dataset.schema) == run.embed_dim
    except SchemaError:
        same = False
    if not same:
        raise _columns_changed(run)


def _columns_changed(run: Run) -> CommitError:
    return CommitError(
        f"the columns of {run.uri} changed while run {run.run_id} was writing; "
        "nothing was committed, run it again"
    )


def _summary(plan: _Plan, *, version: int, replaced: int = 0, deleted: int = 0) -> RunSummary:
    unique = plan.unique
    return RunSummary(
        run_id=plan.run.run_id,
        mode=plan.run.mode,
        at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        version=version,
        written=sum(fragment.rows for fragment in unique.fragments),
        replaced=replaced,
        deleted=deleted,
        unchanged=plan.unchanged,
        dropped=unique.dropped + plan.met - plan.unchanged,
        failed=plan.written.failed,
        fragments=len(unique.fragments),
        bytes=sum(fragment.size for fragment in unique.fragments),
        kept=plan.kept,
    )


def _own_states(
    plan: _Plan, states: Mapping[str, SourceState], summary: RunSummary
) -> dict[str, SourceState]:
    """Returns the states of the run's sources after it."""
    after = {}
    for tally in plan.tallies:
        info = tally.info
        before = states.get(info.source_id) or SourceState(info.source_id)
        now = replace(before, name=info.name, identity=info.identity)
        after[info.source_id] = now.after(summary, tally.partitions, is_complete=not tally.partial)
    return after


def _properties(summary: RunSummary) -> dict[str, str]:
    counts = {
        name: value
        for name, value in asdict(summary).items()
        if isinstance(value, int) and name != "version"
    }
    return {
        "contextframe.run_id": summary.run_id,
        "contextframe.mode": summary.mode,
        "contextframe.counts": json.dumps(counts),
    }


def _answer(
    plan: _Plan,
    summary: RunSummary,
    commit: Callable[[list[WrittenFragment]], lance.LanceDataset],
    states: pa.RecordBatch,
) -> CommitReceipt:
    """Commits the run's data files together with its state rows."""
    run = plan.run
    with_states = write_rows(run.destination, [states])
    plan.attempts.extend(with_states)
    new = [*plan.unique.fragments, *with_states]
    _check_columns(run, new)
    try:
        committed = commit(new)
    except DatasetError as error:
        raise CommitError(f"run {run.run_id} was not committed: {error}") from error
    except UnknownCommitError as error:
        raise UnknownCommitError(
            f"{error}. To do run {run.run_id} again under the same id (--run-id) is safe: it is "
            "never applied twice"
        ) from error
    return replace(_receipt_of(summary), version=int(committed.version))


def _check_columns(run: Run, fragments: list[WrittenFragment]) -> None:
    """Refuses files whose columns carry other field ids than the dataset's.

    Files for a new dataset number their columns by position; if somebody else created it
    meanwhile with other columns, Lance would mix them up.
    """
    layouts = {
        (*file["fields"], file["file_major_version"], file["file_minor_version"])
        for fragment in fragments
        for file in json.loads(fragment.metadata)["files"]
    }
    if len(layouts) > 1:
        raise _columns_changed(run)
