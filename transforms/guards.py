"""The checks that can stop a commit: missing parts, changes by others, too many deletions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import lance
import pyarrow as pa

from contextframe_beam.connectors.page import Tally
from contextframe_beam.errors import (
    CommitError,
    ConcurrentRunError,
    ConfigError,
    DatasetError,
    SchemaError,
    TooManyDeletes,
    TooManyTokens,
)
from contextframe_beam.frames.embedders import EmbedderIdentity
from contextframe_beam.frames.fields import fields_of
from contextframe_beam.frames.schema import embed_dim_of
from contextframe_beam.store.address import Address
from contextframe_beam.store.files import WrittenFragment, open_dataset
from contextframe_beam.store.filters import sql_literal
from contextframe_beam.store.keys import KeySet, NumberSet, numbers_of
from contextframe_beam.store.numbers import has_reused
from contextframe_beam.store.rows import Addresses, file_of, keys_at
from contextframe_beam.store.state import (
    EMBEDDER_KEY,
    CommitReceipt,
    SourceState,
    StateRows,
    parts_of,
    read_embedder,
    read_states,
)
from contextframe_beam.store.vector_index import has_vectors
from contextframe_beam.store.versions import rollback_after
from contextframe_beam.transforms.limits import Deleted, Loss, among, at, count_gone, without
from contextframe_beam.transforms.plan import Plan, Run, tallies_of
from contextframe_beam.transforms.written import Written


def require_complete(run: Run, written: Written) -> None:
    """Refuses a run if the runner lost or repeated elements."""
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


def require_no_rollback(run: Run, dataset: lance.LanceDataset) -> None:
    """Refuses a run that began with a version that was rolled back since."""
    found = rollback_after(dataset, run.base_version or 0)
    if found is not None:
        raise ConcurrentRunError(
            f"{run.uri} was rolled back to version {found.restored} while run {run.run_id} was "
            "reading; nothing was committed, run it again"
        )


def require_same_columns(
    run: Run, dataset: lance.LanceDataset, files: Sequence[WrittenFragment]
) -> None:
    """Refuses a dataset that somebody made or replaced with other columns after the run began."""
    try:
        same = embed_dim_of(dataset.schema) == run.embed_dim
        same = same or (run.new_dim and not has_vectors(dataset))
        # Files for a dataset of their own number their columns by position.
        if run.new_dim or (run.base_version is None and run.fields):
            same = same and fields_of(dataset.schema) == run.fields
        same = same and not has_reused(dataset, files)
    except SchemaError:
        same = False
    if not same:
        raise _columns_changed(run)


def refuse_other_embedder(run: Run, dataset: lance.LanceDataset) -> EmbedderIdentity | None:
    """Refuses vectors that cannot be compared with those that a dataset holds.

    Returns:
        Whose vectors are recorded in it.

    Raises:
        ConfigError: there are vectors of another embedder, or of nobody knows which.
    """
    if run.embedder is None or run.mode.replaces_all:
        return None
    known = read_embedder(dataset)
    anew = f"`contextframe-beam embed {run.uri}` with this embedder embeds all again"
    if known is None and has_vectors(dataset):
        raise ConfigError(
            f"{run.uri} holds vectors already, and which embedder made them is not recorded, so "
            f"those of {run.embedder} cannot be told from them; {anew}"
        )
    if known is not None and known.fingerprint != run.embedder.fingerprint:
        raise ConfigError(
            f"the vectors of {run.uri} are of {known}, and this run embeds by {run.embedder}; "
            f"vectors of two embedders cannot be compared. Leave `embed` out to go on with "
            f"{known.spec}, or {anew}"
        )
    return known


def require_one_layout(run: Run, fragments: list[WrittenFragment]) -> None:
    """Refuses files whose columns have other field ids than the dataset's.

    Files for a new dataset number their columns by position; if somebody else created it
    meanwhile with other columns, Lance would mix them up.
    """
    files = [file for one in fragments for file in json.loads(one.metadata)["files"]]
    ids = [file["fields"] for file in files]
    # Own fields may be added and dropped while workers write; all files have the other columns.
    everywhere = set.intersection(*map(set, ids)) if ids else set()
    layouts = {
        (
            *(number for number in file["fields"] if number in everywhere),
            file["file_major_version"],
            file["file_minor_version"],
        )
        for file in files
    }
    if len(layouts) > 1 or len(everywhere) < min(map(len, ids), default=0):
        raise _columns_changed(run)


def require_few_tokens(run: Run, written: Written) -> None:
    """Refuses a run for which more tokens were embedded than it may.

    Raises:
        TooManyTokens: with both numbers.
    """
    spent = sum(tally.tokens for tally in written.sources.values())
    if run.max_tokens is not None and spent > run.max_tokens:
        raise TooManyTokens(
            f"{spent:,} tokens were embedded, more than the {run.max_tokens:,} that `max_tokens` "
            "allows; nothing was committed. The same run with a higher limit goes on from there"
        )


def _columns_changed(run: Run) -> CommitError:
    return CommitError(
        f"the columns of {run.uri} changed while run {run.run_id} was writing; "
        "nothing was committed, run it again"
    )


def require_few_overwritten(
    plan: Plan, dataset: lance.LanceDataset, stored: int, states: Mapping[str, SourceState]
) -> None:
    """Refuses to overwrite too much of the run's own sources, or everything with nothing.

    Args:
        plan: The run.
        dataset: The version that it overwrites.
        stored: The number of documents in it.
        states: The states of its sources.

    Raises:
        TooManyDeletes: it would overwrite too much.
    """
    limit, losses = plan.run.deletes, []
    if {"x_source", "x_state"} <= set(dataset.schema.names):
        counts = count_gone(dataset, ["uuid"], without(KeySet(plan.unique.keys)))
        counts = _with_parts(plan, states, counts)
        losses = [_loss(plan, tally, counts) for tally in plan.tallies]
    limit.check(losses)
    if not plan.written.read and not limit.allows(stored, stored):
        raise TooManyDeletes(
            f"the source gave nothing, and overwriting {plan.run.uri} would delete all "
            f"{stored:,} documents in it; nothing was deleted. If it shall be empty: "
            'max_deletes="100%"'
        )


def require_few_deletes(
    plan: Plan,
    dataset: lance.LanceDataset,
    gone: Addresses,
    states: Mapping[str, SourceState],
) -> Deleted:
    """Refuses an upsert or a mirror that would delete too much of a source.

    The commits of a backfill count as one run: their deletions from the version before the first
    one are added up.

    Args:
        plan: The run.
        dataset: The version that it is committed to.
        gone: The documents in it that would be deleted without a successor.
        states: The states of the sources in it.

    Returns:
        The deletions of the run, including earlier commits.

    Raises:
        TooManyDeletes: it would delete too much.
    """
    run = plan.run
    earlier = _deleted_earlier(plan.tallies, states)
    so_far = earlier or Deleted(int(dataset.version))
    silent = [one for one in plan.tallies if run.mode.deletes_unseen and one.gave_nothing]
    if not len(gone) and not silent:
        return so_far
    counts = count_gone(dataset, [], at(gone))
    if earlier is not None:
        counts = _counts_since(run, earlier, dataset, gone, counts)
    counts = _with_parts(plan, states, counts)
    names = {source: state.name for source, state in states.items()}
    names.update((tally.info.source_id, tally.info.name) for tally in plan.tallies)
    losses = [
        Loss(names.get(source) or "unknown origin", stored, deleted)
        for source, (stored, deleted) in counts.items()
        if deleted
    ]
    run.deletes.check([*(_loss(plan, tally, counts) for tally in silent), *losses])
    deleted = {source: deleted for source, (_, deleted) in counts.items() if deleted}
    return Deleted(so_far.base, {**so_far.counts, **deleted})


def _with_parts(
    plan: Plan, states: Mapping[str, SourceState], counts: Mapping[str, tuple[int, int]]
) -> dict[str, tuple[int, int]]:
    """Adds the counts of a source's selections, which had their own ids, to the source."""
    found = dict(counts)
    for info in (tally.info for tally in plan.tallies):
        for part in parts_of(states, info.source_id, info.identity):
            stored, deleted = found.pop(part.source, (0, 0))
            before = found.get(info.source_id, (0, 0))
            if stored:
                found[info.source_id] = (before[0] + stored, before[1] + deleted)
    return found


def _loss(plan: Plan, tally: Tally, counts: Mapping[str, tuple[int, int]]) -> Loss:
    """Returns the loss of a source by the run; all of it if the source gave nothing."""
    stored, deleted = counts.get(tally.info.source_id, (0, 0))
    if not tally.gave_nothing:
        return Loss(tally.info.name, stored, deleted)
    name = "the source" if len(plan.tallies) == 1 else tally.info.name
    return Loss(name, stored, stored, gave_nothing=True)


def _deleted_earlier(tallies: Iterable[Tally], states: Mapping[str, SourceState]) -> Deleted | None:
    """Returns the deletions so far of the backfill that the run continues, or None."""
    for tally in tallies:
        state = states.get(tally.info.source_id)
        if state is not None and tally.change.continues:
            return Deleted.of(state.backfill)
    return None


def _counts_since(
    run: Run,
    earlier: Deleted,
    dataset: lance.LanceDataset,
    gone: Addresses,
    counts: Mapping[str, tuple[int, int]],
) -> dict[str, tuple[int, int]]:
    """Counts like `count_gone`, but for all commits of a backfill, in the version before it.

    Documents that the backfill itself added are not a loss. If that version was cleaned up,
    everything counts.
    """
    if not earlier.base:
        return {}
    try:
        base = open_dataset(run.address, earlier.base)
    except DatasetError:
        base = None
    if base is not None:
        counts = count_gone(base, ["uuid"], among(keys_at(dataset, gone)))
    else:
        counts = {
            source: (stored + earlier.counts.get(source, 0), deleted)
            for source, (stored, deleted) in counts.items()
        }
    return {
        source: (stored, deleted + earlier.counts.get(source, 0))
        for source, (stored, deleted) in counts.items()
    }


def refuse_own_keys(plan: Plan, rows: StateRows) -> None:
    """Refuses documents with the key of a state row, which readers and commits would confuse."""
    sources = (SourceState(tally.info.source_id).key for tally in plan.tallies)
    stated = list(dict.fromkeys([*rows.addresses, EMBEDDER_KEY, *sources]))
    numbers, _ = numbers_of(pa.array(stated, pa.string()))
    brought = NumberSet(numbers)
    for keys in (plan.unique.keys, plan.unique.deleted):
        found = brought.find(keys)
        if (found >= 0).any():
            key = stated[int(found.max())]
            raise CommitError(
                f"run {plan.run.run_id} has a document with the uuid {key}, the key of an internal "
                f"row of {plan.run.uri}; nothing was committed. Give it another uuid, or let it be "
                "made from the unique_id"
            )


def require_same_accounts(plan: Plan, states: Mapping[str, SourceState]) -> None:
    """Refuses a run that reads another account as the same source."""
    for tally in plan.tallies:
        state = states.get(tally.info.source_id)
        if state is None or not state.account or not tally.account:
            continue
        if state.account != tally.account:
            raise CommitError(
                f"{plan.run.uri} holds what {tally.info.name} read with an account of "
                f"{state.account!r:.80}, and the account of run {plan.run.run_id} is of "
                f"{tally.account!r:.80}: it may delete what the other one has; nothing was "
                "committed. Write to another dataset, or say in the arguments what is read, "
                "which makes it a source of its own"
            )


def require_same_sources(
    plan: Plan, dataset: lance.LanceDataset, states: Mapping[str, SourceState]
) -> None:
    """Refuses decisions from a state or rows that others have changed since.

    That includes an upsert of a whole source: it has read older content than another run, which
    began later and was committed first. Runs that read ranges may be committed in any order.
    """
    run = plan.run
    dependent = [
        tally
        for tally in plan.tallies
        if tally.met_rows
        or tally.moves_state
        or run.mode.deletes_unseen
        or tally.windows
        or (run.mode.replaces_rows and tally.change.whole)
    ]
    if not dependent:
        return
    base = base_of(run)
    known = {} if base is None else read_states(base)
    own = {tally.info.source_id for tally in plan.tallies}
    others_ran = any(
        _progress(known.get(source)) != _progress(state)
        for source, state in states.items()
        if source not in own
    )
    for tally in dependent:
        before, now = known.get(tally.info.source_id), states.get(tally.info.source_id)
        if _progress(before) != _progress(now):
            raise ConcurrentRunError(
                f"another run of {tally.info.name} was committed to {run.uri} while run "
                f"{run.run_id} was reading; nothing of this one was committed, run it again"
            )
        if base is None or base.version == dataset.version or not tally.met_rows:
            continue
        source = tally.info.source_id
        if replaced_by_others(base, dataset, source) or (
            others_ran and has_fewer_rows(base, dataset, source)
        ):
            raise ConcurrentRunError(
                f"documents of {tally.info.name} in {run.uri} were replaced by others or deleted "
                f"by another run while run {run.run_id} was reading; nothing of this one was "
                "committed, run it again"
            )


def _progress(state: SourceState | None) -> tuple[Any, ...]:
    return (state.runs[-1:], dict(state.partitions)) if state else ((), {})


def base_of(run: Run) -> lance.LanceDataset | None:
    """Returns the dataset at the run's base version, or None if it did not exist."""
    if run.base_version is None:
        return None
    try:
        return open_dataset(run.address, run.base_version)
    except DatasetError as error:
        raise ConcurrentRunError(
            f"version {run.base_version} of {run.uri}, from which run {run.run_id} started, was "
            "cleaned up meanwhile; nothing was committed, run it again"
        ) from error


def replaced_by_others(base: lance.LanceDataset, now: lance.LanceDataset, source: str) -> bool:
    """Returns whether a row of the source was replaced by a row of another source.

    It reads the keys of added rows, and only if others added rows, the keys of the source.

    Args:
        base: The version that the run began with.
        now: A later version, without another run of the source in between.
        source: The id of the source.
    """
    known = {file_of(fragment) for fragment in base.get_fragments()}
    added = [one for one in now.get_fragments() if file_of(one) not in known]
    if not added:
        return False
    own = _rows_of(source)
    scanner = now.scanner(
        columns=["uuid"], filter=f"x_state IS NULL AND ({own}) IS NOT TRUE", fragments=added
    )
    others = KeySet.of(batch.column("uuid") for batch in scanner.to_batches())
    if not len(others):
        return False
    return any(
        bool(others.contains(batch.column("uuid")).any())
        for batch in base.scanner(columns=["uuid"], filter=own).to_batches()
    )


def has_fewer_rows(base: lance.LanceDataset, now: lance.LanceDataset, source: str) -> bool:
    """Returns whether rows of the source were replaced or deleted.

    Args:
        base: The version that the run began with.
        now: A later version, without another run of the source in between.
        source: The id of the source.
    """
    before, after = (one.count_rows(filter=_rows_of(source)) for one in (base, now))
    return after < before


def _rows_of(source: str) -> str:
    return f"x_source = {sql_literal(source)}"


#: How many versions after the expected one are searched for the version of a run.
_VERSIONS_LOOKED_AT = 100


def committed_receipt(
    at: Address,
    run_id: str,
    source: str | None = None,
    start: str = "",
) -> CommitReceipt | None:
    """Returns the receipt of a run that was already committed, or None.

    Args:
        at: The dataset.
        run_id: The run.
        source: The id of the source that it must have read; any by default.
        start: The start of the present run; a commit of this start does not count as earlier.
    """
    dataset = open_dataset(at)
    if dataset is None:
        return None
    states = read_states(dataset)
    if source is not None:
        states = {one: state for one, state in states.items() if one == source}
    return receipt_of_earlier(run_id, dataset, states, start)


def committed_before(run: Run, written: Written) -> CommitReceipt | None:
    """Returns the receipt of a run whose workers have written, if it was already committed.

    Raises:
        CommitError: a run of other sources has its id.
    """
    dataset = open_dataset(run.address)
    if dataset is None:
        return None
    states = read_states(dataset)
    refuse_foreign_run(run, tallies_of(written), states)
    return receipt_of_earlier(run.run_id, dataset, states)


def refuse_foreign_run(
    run: Run, tallies: Iterable[Tally], states: Mapping[str, SourceState]
) -> None:
    """Refuses the run id of a commit of other sources, because the run would count as done.

    Raises:
        CommitError: it is the run id of other sources.
    """
    of = {source: state for source, state in states.items() if state.run(run.run_id)}
    new = [tally.info for tally in tallies if tally.info.source_id not in of]
    if of and new:
        known = " and ".join(sorted(f"{state.name}, {source}" for source, state in of.items()))
        raise CommitError(
            f"a run {run.run_id} of another source ({known}) was committed to {run.uri} before, "
            f"and a run id is used once in a dataset; nothing of {new[0].name} was committed, give "
            "it another run id"
        )


def receipt_of_earlier(
    run_id: str,
    dataset: lance.LanceDataset,
    states: Mapping[str, SourceState],
    start: str = "",
) -> CommitReceipt | None:
    """Returns the receipt of a run from the states of a version, or None."""
    found = [run for run in (state.run(run_id) for state in states.values()) if run]
    if not found:
        return None
    return replace(
        found[0],
        version=_version_of(found[0], dataset),
        already_committed=not start or found[0].start != start,
    )


def _version_of(summary: CommitReceipt, dataset: lance.LanceDataset) -> int:
    """Returns the version of a run.

    When the run wrote its state it could only expect a version number. If another program added
    rows at the same moment, the real number is higher. It is unknown after a cleanup.
    """
    last = min(int(dataset.version), summary.version + _VERSIONS_LOOKED_AT)
    for version in range(summary.version, last + 1):
        try:
            transaction = dataset.read_transaction(version)
        except (OSError, ValueError, TypeError):
            # Removed; or, as a TypeError, a compaction that also moved an index, which Lance 14
            # cannot show.
            continue
        properties = (transaction.transaction_properties if transaction else None) or {}
        if properties.get("contextframe.run_id") == summary.run_id:
            return version
    return summary.version
