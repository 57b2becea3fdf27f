"""Whether others have replaced or deleted rows of a source since a run of it began.

Such a run left alone what it met unchanged. If one of these rows is another source's now, or was
deleted by another source's run, and the run's other rows were added on top of that, the dataset
would be what neither order of the two gives. Rows that were deleted by hand are no such case:
nothing else happened with that, so it is as if it had happened just afterwards.
"""

from __future__ import annotations

import lance

from contextframe_beam.dataset import sql_literal
from contextframe_beam.keys import KeySet
from contextframe_beam.removal import file_of


def replaced_by_others(base: lance.LanceDataset, now: lance.LanceDataset, source: str) -> bool:
    """Tells whether a row that was the source's has a successor that is not.

    Reads the keys of what was added since, and only if others added something those of the source.

    Args:
        base: The version that the run began with.
        now: A later one, in which no other run of the source was committed.
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
    """Tells whether rows of the source were replaced or deleted.

    Args:
        base: The version that the run began with.
        now: A later one, in which no other run of the source was committed.
        source: The id of the source.
    """
    before, after = (one.count_rows(filter=_rows_of(source)) for one in (base, now))
    return after < before


def _rows_of(source: str) -> str:
    return f"x_source = {sql_literal(source)}"
