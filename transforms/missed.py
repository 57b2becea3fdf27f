"""Documents that a mirror did not see, on pages that are counted from the front.

Where a page is asked for by its number or an offset, a record slips over its border when another
one is deleted while the pages are read: it is on page 3 as page 2 is read, and on page 2 as page 3
is read. No answer tells. So what one run misses of such a source is only remembered, in the
source's state, and deleted by the next mirror that misses it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import lance
import numpy as np
import pyarrow as pa

from contextframe_beam.removal import Addresses, no_addresses, scan_rows
from contextframe_beam.state import SourceState, parts_of
from contextframe_beam.transforms._plan import Plan

#: So many documents of a source are remembered; the others have to be missed once more.
MOST_REMEMBERED = 50_000


@dataclass(frozen=True)
class Missed:
    """What a mirror missed and does not delete yet.

    Attributes:
        addresses: The rows.
        keys: Their uuids, by the id of the source that they belong to.
    """

    addresses: Addresses = field(default_factory=no_addresses)
    keys: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """Why they are not deleted; empty where there are none."""
        count = len(self.addresses)
        if not count:
            return ""
        some = "1 document was" if count == 1 else f"{count:,} documents were"
        return (
            f"{some} missed for the first time, and pages that are counted from the front can skip "
            "a record while others are deleted; the next mirror that misses them too deletes them"
        )


def missed_for_the_first_time(
    plan: Plan,
    dataset: lance.LanceDataset,
    unseen: Addresses,
    states: Mapping[str, SourceState],
) -> Missed:
    """Returns which rows that a mirror did not see may be there nevertheless.

    Args:
        plan: The run.
        dataset: The version that it is committed to.
        unseen: The documents that it did not see.
        states: The states of the sources in that version.
    """
    # Earlier releases gave documents of a source under other ids too.
    slipping = {
        source: tally.info.source_id
        for tally in plan.tallies
        if tally.may_slip
        for source in (
            tally.info.source_id,
            *(part.source for part in parts_of(states, tally.info.source_id, tally.info.identity)),
        )
    }
    if not slipping or not len(unseen):
        return Missed()
    addresses: list[Addresses] = [no_addresses()]
    found: dict[str, list[str]] = {}
    for batch, at in scan_rows(dataset, ["uuid", "x_source"]):
        places = np.flatnonzero(np.isin(at, unseen))
        here = pa.array(places)
        keys = batch.column("uuid").take(here).to_pylist()
        sources = batch.column("x_source").take(here).to_pylist()
        for place, key, source in zip(places.tolist(), keys, sources, strict=True):
            owner = slipping.get(source)
            if owner is not None and key not in _remembered(states, owner):
                addresses.append(at[place : place + 1])
                found.setdefault(owner, []).append(key)
    return Missed(
        np.concatenate(addresses),
        {source: sorted(keys)[:MOST_REMEMBERED] for source, keys in found.items()},
    )


def _remembered(states: Mapping[str, SourceState], source: str) -> frozenset[str]:
    state = states.get(source)
    return frozenset() if state is None else state.missed
