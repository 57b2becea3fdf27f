"""The commit of a run: all its rows, removals and sync state in one transaction, once.

It may be called twice for a run, at the same time on two machines, or again after it was killed.
Whenever a call reports success, the run is in the dataset exactly once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contextframe_beam.errors import (
    CommitError,
    ConcurrentRunError,
    ContextFrameError,
    DatasetError,
    UnknownCommitError,
)
from contextframe_beam.store.columns import commit_new_columns
from contextframe_beam.store.files import (
    WrittenFragment,
    check_files,
    delete_files,
    open_dataset,
    reading,
)
from contextframe_beam.store.keys import KeySet, Mask, Numbers, NumberSet
from contextframe_beam.store.rows import (
    Addresses,
    Removal,
    chunks_among,
    find_chunks,
    find_rows,
    has_chunks,
    keys_at,
    no_addresses,
    remove_rows,
    scan_rows,
)
from contextframe_beam.store.schema import adopt, filled
from contextframe_beam.store.state import (
    ANCHOR_KEY,
    EMBEDDER_KEY,
    OVERWRITTEN,
    CommitReceipt,
    SourceState,
    StateRows,
    contents_of,
    documents_in,
    parts_of,
    read_state_rows,
    state_of,
    state_rows,
)
from contextframe_beam.store.transaction import Pending, change, commit_overwrite, commit_update
from contextframe_beam.store.writer import write_rows
from contextframe_beam.transforms.guards import (
    base_of,
    committed_before,
    receipt_of_earlier,
    refuse_foreign_run,
    refuse_other_embedder,
    refuse_own_keys,
    require_complete,
    require_few_deletes,
    require_few_overwritten,
    require_few_tokens,
    require_no_rollback,
    require_one_layout,
    require_same_accounts,
    require_same_columns,
    require_same_sources,
)
from contextframe_beam.transforms.limits import Deleted
from contextframe_beam.transforms.newest import (
    ORDER_COLUMNS,
    Deletions,
    Shared,
    drop_duplicates,
    keys_of,
)
from contextframe_beam.transforms.plan import (
    Missed,
    Plan,
    Run,
    missed_for_the_first_time,
    sources_of,
)
from contextframe_beam.transforms.readers import Reshared, readers_appended
from contextframe_beam.transforms.unchanged import SeenRows, rows_of_sources
from contextframe_beam.transforms.windows import Claims
from contextframe_beam.transforms.written import Written


def commit_run(run: Run, written: Written) -> CommitReceipt:
    """Commits what the workers wrote.

    Raises:
        TooManyFailures: more items failed than the run allows.
        TooManyDeletes: it would delete more than it allows.
        ConcurrentRunError: another run made this one's decisions invalid, or kept coming first.
        CommitError: a part of the run is missing.
        DatasetError: the dataset cannot be read or written. In all these cases nothing was
        committed.
        UnknownCommitError: the object store did not answer, and cannot say what it did.
    """
    try:
        with reading(run.uri):
            receipt = _commit(run, written)
    except ContextFrameError as error:
        # Another committer of this run may have come first and removed unneeded files, or the
        # answer to our own commit was lost.
        try:
            done = committed_before(run, written)
        except ContextFrameError:
            raise error from error.__cause__
        if done is None:
            raise
        receipt = done
    if receipt.already_committed:
        # By a committer with the same files, or with its own files: then these are not needed.
        delete_files(run.address, written.fragments)
    return receipt


def _commit(run: Run, written: Written) -> CommitReceipt:
    earlier = committed_before(run, written)
    if earlier is not None:
        return earlier
    require_complete(run, written)
    run.failures.check(written, run.letters.path if run.letters else None)
    require_few_tokens(run, written)
    check_files(run.address, written.fragments)
    seen = _seen_rows(run, written)
    deletions = Deletions.concat(written.deletions)
    contested = None
    if seen is not None:
        keys = Numbers.concat([keys_of(written.fragments), deletions.keys])
        contested = seen.of_keys(KeySet(keys), ORDER_COLUMNS)
    unique = drop_duplicates(run.destination, written.fragments, run.schema, contested, deletions)
    shared = unique.shared
    if seen is not None and contested is not None:
        # Some of these items are already in the count of written ones.
        shared += seen.shared - Shared.of(contested["items"])
    plan = Plan(run, written, unique, seen, shared)
    with reading(run.uri):
        receipt = change(
            run.address,
            lambda new: _attempt(plan, new),
            files=unique.rewritten,
        )
    if not receipt.already_committed:
        delete_files(run.address, unique.obsolete)
    return receipt


def _seen_rows(run: Run, written: Written) -> SeenRows | None:
    """Returns the stored rows that the run found unchanged, or None."""
    tallies = written.sources.values()
    unchanged = [part for tally in tallies for part in tally.unchanged_rows]
    whole = [part for tally in tallies for part in tally.recognised_rows]
    if whole and not run.mode.goes_on:
        raise CommitError(
            f"run {run.run_id} has left out documents that are stored, and the mode "
            f"{run.mode.name} does not keep these; nothing was committed. Recognise documents in "
            "runs that go on with what is stored: upsert, mirror or append"
        )
    base = base_of(run) if unchanged or whole else None
    return SeenRows(base, unchanged, whole) if base is not None else None


def _attempt(plan: Plan, new: list[WrittenFragment]) -> Pending[CommitReceipt] | CommitReceipt:
    """Decides from the newest version what the run changes, and writes its state rows to `new`."""
    run = plan.run
    dataset = open_dataset(run.address)
    if dataset is None:
        if run.base_version is not None:
            raise CommitError(
                f"{run.uri} was removed while run {run.run_id} was reading; nothing was committed"
            )
        return _replace_all(plan, new, 0, {}, _summary(plan, version=1))
    require_no_rollback(run, dataset)
    if run.mode.goes_on:
        require_same_columns(run, dataset, plan.unique.fragments)
        dataset = adopt(dataset, run.address)
        refuse_other_embedder(run, dataset)
    # All decisions are made from this version; after a later commit we start again.
    rows = read_state_rows(dataset)
    states = rows.states
    refuse_foreign_run(run, plan.tallies, states)
    earlier = receipt_of_earlier(run.run_id, dataset, states)
    if earlier is not None:
        return earlier
    if run.mode.needs_new:
        raise CommitError(
            f'{run.uri} exists already; choose mode="upsert", append or overwrite, or another path'
        )
    if run.mode.replaces_all:
        return _overwrite(plan, new, dataset, states)
    require_same_sources(plan, dataset, states)
    require_same_accounts(plan, states)
    return _update(plan, new, dataset, rows)


def _overwrite(
    plan: Plan,
    new: list[WrittenFragment],
    dataset: lance.LanceDataset,
    states: Mapping[str, SourceState],
) -> Pending[CommitReceipt]:
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
    if plan.partial:
        raise CommitError(
            f"run {run.run_id} may not have read all of its source, and overwriting {run.uri} "
            f"would delete what it missed; nothing was committed. {'; '.join(plan.partial)}. "
            'mode="upsert" keeps what is stored'
        )
    stored = contents_of(dataset).documents
    found, _ = find_rows(dataset, KeySet(plan.unique.keys))
    replaced = len(found) - int(chunks_among(dataset, found).sum())
    require_few_overwritten(plan, dataset, stored, states)
    summary = _summary(
        plan, version=dataset.version + 1, replaced=replaced, deleted=stored - replaced
    )
    return _replace_all(plan, new, dataset.version, states, summary)


def _replace_all(
    plan: Plan,
    new: list[WrittenFragment],
    read_version: int,
    states: Mapping[str, SourceState],
    summary: CommitReceipt,
) -> Pending[CommitReceipt]:
    """Replaces all rows of the dataset with those of the run.

    The sources in it are remembered with their runs, so that no run is applied again. Their states
    are gone with their rows.
    """
    forgotten = {source: state.forgotten() for source, state in states.items()}
    own = _own_states(plan, forgotten, summary)
    ended = CommitReceipt(summary.run_id, OVERWRITTEN, summary.at, summary.version)
    others = [state.after(ended, {}) for source, state in forgotten.items() if source not in own]
    run = plan.run
    return _pending(
        plan,
        new,
        summary,
        lambda files: commit_overwrite(
            run.address,
            run.schema,
            files,
            read_version=read_version,
            storage_version=run.storage_version,
            properties=_properties(summary),
        ),
        state_rows(
            [*own.values(), *others],
            anchor=True,
            embed_dim=run.embed_dim,
            fields=run.fields,
            texts=run.texts,
        ),
    )


def _update(
    plan: Plan, new: list[WrittenFragment], dataset: lance.LanceDataset, rows: StateRows
) -> Pending[CommitReceipt]:
    """Adds the run's rows, and removes replaced and deleted rows."""
    run, unique = plan.run, plan.unique
    refuse_own_keys(plan, rows)
    sources = sources_of(plan, rows.states)
    own = [rows.states[source].key for source in sources if source in rows.states]
    # The state row protects against other runs of the source. Runs of other sources may add the
    # same new key, and a source's first run has no state row: these conflict at the anchor row.
    # So do runs that say what they make of texts.
    texts = rows.texts.after(run.texts)
    records = texts != rows.texts
    anchored = run.mode.replaces_rows or len(own) < len(sources) or bool(run.texts)
    replaced = [*own, *([ANCHOR_KEY] if anchored else []), *([EMBEDDER_KEY] if records else [])]
    guards = np.array([rows.addresses[key] for key in replaced if key in rows.addresses], np.uint64)
    matched = succeeded = no_addresses()
    chunks = matched
    chunked = has_chunks(dataset)
    stale, _ = find_rows(dataset, KeySet(plan.stale))
    if run.mode.replaces_rows:
        keys = KeySet(Numbers.concat([unique.keys, unique.deleted]))
        matched, places = find_rows(dataset, keys)
        if chunked:
            is_chunk = chunks_among(dataset, matched)
            chunks, matched, places = matched[is_chunk], matched[~is_chunk], places[~is_chunk]
        succeeded = matched[places < len(unique.keys)]
    claims = Claims.of(plan)
    unseen = np.union1d(_unseen(plan, dataset, sources), claims.rows(plan, dataset, sources))
    unseen = np.setdiff1d(unseen, stale)
    own_rows = np.array(list(rows.addresses.values()), np.uint64)
    documents = np.setdiff1d(np.union1d(matched, unseen), own_rows)
    missed = missed_for_the_first_time(plan, dataset, np.setdiff1d(documents, matched), rows.states)
    documents = np.setdiff1d(documents, missed.addresses)
    deleted = require_few_deletes(plan, dataset, np.setdiff1d(documents, succeeded), rows.states)
    if chunked and run.mode.replaces_rows:
        lost = keys_at(dataset, np.setdiff1d(documents, matched))
        gone = _chunks_to_remove(plan, dataset, sources, documents, lost, missed)
        chunks = np.union1d(chunks, gone)
    gone = np.concatenate([documents, chunks, guards])
    told = plan.readers
    if run.mode.only_adds:
        told |= readers_appended(
            dataset, run.destination, run.schema, unique.fragments, unique.keys
        )
    reshared = Reshared(dataset, told, sources, gone, plan.collections, plan.doubtful)
    removal = remove_rows(dataset, np.concatenate([gone, reshared.rows]))
    rewritten = []
    if len(reshared):
        rewritten = write_rows(run.destination, reshared.batches(run.embed_dim, run.fields))
        new += rewritten
    summary = _summary(
        plan,
        version=dataset.version + 1,
        replaced=len(succeeded),
        deleted=len(documents) - len(succeeded),
        missed=missed,
        kept=claims.kept,
        stale=len(np.setdiff1d(stale, matched)),
        readers_changed=reshared.with_other_readers,
        moved=reshared.with_other_collections,
    )
    return _pending(
        plan,
        new,
        summary,
        lambda files: _commit_rows(run, dataset, removal, files, _properties(summary)),
        state_rows(
            _own_states(plan, rows.states, summary, deleted, missed).values(),
            anchor=anchored,
            embed_dim=run.embed_dim,
            fields=run.fields,
            texts=texts if records else None,
        ),
        dataset,
        rewritten,
    )


def _chunks_to_remove(
    plan: Plan,
    dataset: lance.LanceDataset,
    sources: Sequence[str],
    documents: Addresses,
    lost: KeySet,
    missed: Missed,
) -> Addresses:
    """Returns the chunks of documents that are replaced or deleted, or have other chunks now.

    A run that writes a document also writes all its chunks. A run that found it unchanged has
    either found all its chunks unchanged too, or written the present ones.

    Args:
        plan: The run.
        dataset: The version that it is committed to.
        sources: The ids of its sources.
        documents: The documents that it removes.
        lost: The keys of those among them that it did not meet.
        missed: The documents that a mirror missed and keeps.
    """
    unique, seen = plan.unique, plan.seen
    gone = [KeySet(Numbers.concat([unique.keys, unique.deleted])), lost]
    if not plan.deletes_unseen:
        gone += [seen.keys(whole=False)] if seen is not None else []
        return find_chunks(
            dataset, lambda parents, _: np.any([keys.holds(parents) for keys in gone], axis=0)
        )
    kept = [keys_at(dataset, missed.addresses), KeySet(plan.stale)]
    kept += [seen.keys(whole=True)] if seen is not None else []
    # An append may have stored several states of a document, of which one stays.
    states = _digests_of(dataset, kept, documents)

    def which(parents: Numbers, rows: pa.RecordBatch) -> Mask:
        own = pc.is_in(rows["x_source"], value_set=pa.array(list(sources), pa.string()))
        origins = rows["x_origin"]
        stays = np.any([keys.holds(parents) for keys in kept], axis=0) & (
            states.contains(Numbers.of_digests(origins))
            | origins.is_null().to_numpy(zero_copy_only=False)
        )
        found: Mask = own.to_numpy(zero_copy_only=False) & ~stays | gone[0].holds(parents)
        return found

    return find_chunks(dataset, which, ["x_source", "x_origin"])


def _digests_of(
    dataset: lance.LanceDataset, keys: Sequence[KeySet], without: Addresses
) -> NumberSet:
    """Returns the digests of the documents with some keys, without those at some addresses."""
    found = []
    columns = ["uuid", "x_digest"]
    for batch, at in scan_rows(dataset, columns, filter=documents_in(dataset)):
        wanted = np.any([one.contains(batch["uuid"]) for one in keys], axis=0)
        wanted &= ~np.isin(at, without)
        found.append(Numbers.of_digests(batch["x_digest"]).take(wanted))
    return NumberSet(Numbers.concat(found))


def _commit_rows(
    run: Run,
    dataset: lance.LanceDataset,
    removal: Removal,
    files: list[WrittenFragment],
    properties: Mapping[str, str],
) -> lance.LanceDataset:
    if not run.new_dim:
        return commit_update(dataset, removal, files, properties=properties, at=run.address)
    return commit_new_columns(
        dataset,
        run.schema,
        pa.schema([run.schema.field("vector")]),
        removal,
        files,
        properties=properties,
        at=run.address,
    )


def _unseen(plan: Plan, dataset: lance.LanceDataset, sources: Sequence[str]) -> Addresses:
    """Returns the rows of a complete mirror's sources that it did not find unchanged."""
    if not plan.deletes_unseen:
        return no_addresses()
    if plan.seen is None:
        return rows_of_sources(dataset, sources)
    return plan.seen.others(dataset, sources)


def _own_states(
    plan: Plan,
    states: Mapping[str, SourceState],
    summary: CommitReceipt,
    deleted: Deleted | None = None,
    missed: Missed | None = None,
) -> dict[str, SourceState]:
    """Returns the states of the run's sources after the run.

    Args:
        plan: The run.
        states: Their states before the run.
        summary: The receipt of the run.
        deleted: The deletions of this commit and earlier ones of the backfill, for the next.
        missed: The rows that the run did not see; the next run deletes them if it misses them too.
    """
    after = {}
    for tally in plan.tallies:
        info = tally.info
        about = (states, info.source_id, info.identity)
        before = state_of(*about, info.by_partition) or SourceState(info.source_id)
        for part in parts_of(*about):
            # From here on, its state is part of the source's state.
            after[part.source] = part.forgotten()
        now = replace(before, name=info.name, identity=info.identity)
        state = now.after(
            summary,
            tally.partitions,
            tally.change,
            is_complete=not tally.narrowed,
            mapping=plan.run.mapping,
            account=tally.account,
        )
        if tally.change.backfill:
            state = replace(state, backfill=(deleted or Deleted(0)).recorded_in(state.backfill))
        now_missed = frozenset(() if missed is None else missed.keys.get(info.source_id, ()))
        if plan.deletes_unseen and missed is not None:
            state = replace(state, missed=now_missed)
        elif now_missed:
            state = replace(state, missed=state.missed | now_missed)
        after[info.source_id] = state
    return after


def _summary(
    plan: Plan,
    *,
    version: int,
    replaced: int = 0,
    deleted: int = 0,
    missed: Missed | None = None,
    kept: str = "",
    stale: int = 0,
    readers_changed: int = 0,
    moved: int = 0,
) -> CommitReceipt:
    unique = plan.unique
    chunks = sum(fragment.chunks for fragment in unique.fragments)
    return CommitReceipt(
        run_id=plan.run.run_id,
        mode=plan.run.mode.name,
        at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        version=version,
        rows_written=sum(fragment.rows for fragment in unique.fragments) - chunks,
        rows_replaced=replaced,
        rows_deleted=deleted,
        rows_unchanged=plan.unchanged,
        rows_dropped=unique.dropped + plan.unchanged_items - plan.unchanged,
        sharing=plan.shared.items,
        shared_ids=plan.shared.ids,
        failed=plan.written.failed,
        fragments=len(unique.fragments),
        bytes=sum(fragment.size for fragment in unique.fragments),
        partial=plan.partial,
        unread=plan.unread,
        kept=plan.why_kept or (missed.reason if missed else "") or kept,
        reasons=plan.written.reasons.most(),
        start=plan.run.start,
        chunks=chunks,
        stale=stale,
        readers_changed=readers_changed,
        moved=moved,
        **plan.work,
    )


def _properties(summary: CommitReceipt) -> dict[str, str]:
    return {
        "contextframe.run_id": summary.run_id,
        "contextframe.mode": summary.mode,
        "contextframe.counts": json.dumps(summary.counts),
    }


def _pending(
    plan: Plan,
    new: list[WrittenFragment],
    summary: CommitReceipt,
    commit: Callable[[list[WrittenFragment]], lance.LanceDataset],
    states: pa.RecordBatch,
    dataset: lance.LanceDataset | None = None,
    rewritten: Sequence[WrittenFragment] = (),
) -> Pending[CommitReceipt]:
    """Returns the transaction of the run's data files together with its state rows.

    Columns that were added to the dataset since the run began are filled for its rows.
    """
    run, fragments = plan.run, [*plan.unique.fragments, *rewritten]
    own = write_rows(run.destination, [states])
    new += own
    require_one_layout(run, [*fragments, *own])
    if dataset is not None and not run.new_dim:
        fragments, columns = filled(dataset, run.destination, run.schema, fragments)
        new += columns
    files = [*fragments, *own]

    def committed() -> lance.LanceDataset:
        try:
            return commit(files)
        except DatasetError as error:
            raise CommitError(f"run {run.run_id} was not committed: {error}") from error
        except UnknownCommitError as error:
            raise UnknownCommitError(
                f"{error}. To do run {run.run_id} again under the same id (`run_id`) is safe: it "
                "is never applied twice"
            ) from error

    return Pending(committed, lambda dataset: replace(summary, version=int(dataset.version)))
