"""Whether a run was committed before: its own receipt, and who else has its id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import lance

from contextframe_beam.address import Address
from contextframe_beam.connectors.page import Tally
from contextframe_beam.errors import CommitError
from contextframe_beam.fragments import open_dataset
from contextframe_beam.state import CommitReceipt, SourceState, read_states
from contextframe_beam.transforms._plan import Run, tallies_of
from contextframe_beam.transforms._written import Written

#: How many versions after the expected one may be the one that a run made.
_VERSIONS_LOOKED_AT = 100


def committed_receipt(
    at: Address,
    run_id: str,
    source: str | None = None,
    start: str = "",
) -> CommitReceipt | None:
    """Returns the receipt of a run that was committed already, else None.

    Args:
        at: The dataset.
        run_id: The run.
        source: The id of the source that it must have read; any if not given.
        start: The start of the run that asks; if it was this one, it was no earlier one.
    """
    dataset = open_dataset(at.uri, at.storage_options)
    if dataset is None:
        return None
    states = read_states(dataset)
    if source is not None:
        states = {one: state for one, state in states.items() if one == source}
    return receipt_of_earlier(run_id, dataset, states, start)


def committed_before(run: Run, written: Written) -> CommitReceipt | None:
    """Returns the receipt of a run whose workers have written, if it was committed already.

    Raises:
        CommitError: a run of other sources has its id.
    """
    dataset = open_dataset(run.uri, run.storage_options)
    if dataset is None:
        return None
    states = read_states(dataset)
    refuse_foreign_run(run, tallies_of(written), states)
    return receipt_of_earlier(run.run_id, dataset, states)


def refuse_foreign_run(
    run: Run, tallies: Iterable[Tally], states: Mapping[str, SourceState]
) -> None:
    """Refuses a run id under which other sources were committed: it would pass for done.

    Raises:
        CommitError: it is one.
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
    """Returns the receipt of a run that the states of a version know, else None."""
    found = [run for run in (state.run(run_id) for state in states.values()) if run]
    if not found:
        return None
    return replace(
        found[0],
        version=_version_of(found[0], dataset),
        already_committed=not start or found[0].start != start,
    )


def _version_of(summary: CommitReceipt, dataset: lance.LanceDataset) -> int:
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
