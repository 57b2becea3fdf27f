"""Deletes within a window: what is stored of a stretch that was told completely, and is not there.

A page says that a part of its source is complete between two points (`Page.windows`), and rows know
their place (`FrameRecord.place`). The commit finds the rows of the run's sources that lie in a
window and that the run met nowhere: neither written, nor unchanged, nor failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contextframe_beam.connectors.page import Tally
from contextframe_beam.frames.place import FURTHEST, Window
from contextframe_beam.frames.schema import POINT
from contextframe_beam.store.keys import Mask
from contextframe_beam.store.rows import Addresses, no_addresses, scan_rows
from contextframe_beam.transforms.plan import Plan

_MANY_POINTS = 16
_COLUMNS = ("x_source", "x_parent", "x_partition", "x_point")


@dataclass(frozen=True)
class Claims:
    """The windows of a run that count.

    Attributes:
        windows: Stretches of which all is known.
        kept: Why others do not count; empty if all do.
    """

    windows: tuple[Window, ...] = ()
    kept: str = ""

    @classmethod
    def of(cls, plan: Plan) -> Claims:
        """Returns those of a plan: none of a source that may not have been read completely.

        An item that failed may be any document of the partition that was read, so the windows of
        that partition do not count, unless it is known which document it is.
        """
        told = [tally for tally in plan.tallies if tally.windows]
        if not told or not plan.run.mode.replaces_rows:
            return cls()
        if any(tally.partial for tally in told):
            return cls(kept="what was read may not be all of the source")
        reason = _failed(plan)
        if plan.unknown_failures > sum(sum(one.unsure.values()) for one in plan.tallies):
            return cls(kept=reason)
        windows = [window for tally in told for window in _sure(tally)]
        is_all = len(windows) == sum(len(tally.windows) for tally in told)
        return cls(tuple(windows), "" if is_all else reason)

    def rows(self, plan: Plan, dataset: lance.LanceDataset, sources: Sequence[str]) -> Addresses:
        """Returns the rows in the windows that the run did not find unchanged.

        Args:
            plan: The run.
            dataset: The version that it is committed to.
            sources: The ids of its sources.
        """
        if not self.windows:
            return no_addresses()
        held = Held(self.windows)
        own = pa.array(list(sources), pa.string())
        found = [no_addresses()]
        for batch, at in scan_rows(dataset, _COLUMNS, filter="x_partition IS NOT NULL"):
            ours = pc.is_in(batch["x_source"], value_set=own)
            ours = pc.and_(ours, batch["x_parent"].is_null()).to_numpy(zero_copy_only=False)
            if ours.any():
                rows = batch.filter(pa.array(ours))
                found.append(at[ours][held.among(rows["x_partition"], rows["x_point"])])
        inside = np.concatenate(found)
        return inside if plan.seen is None else plan.seen.without(inside, dataset, sources)


def _sure(tally: Tally) -> Iterable[Window]:
    return [window for partition, window in tally.windows if not tally.unsure.get(partition)]


def _failed(plan: Plan) -> str:
    count = plan.unknown_failures
    return "1 item failed" if count == 1 else f"{count:,} items failed"


class Held:
    """Finds the places that lie in any of some windows, many at a time.

    Args:
        windows: The windows, at least one.
    """

    def __init__(self, windows: Iterable[Window]) -> None:
        by_part: dict[str, list[Window]] = {}
        by_root: dict[str, list[Window]] = {}
        for window in windows:
            by_part.setdefault(window.partition, []).append(window)
            if window.below:
                by_root.setdefault(window.partition, []).append(window)
        self._own = _Stretches(by_part)
        self._below = {f"{root}/": _Stretches({root: own}) for root, own in by_root.items()}

    def among(self, partitions: pa.Array, points: pa.Array) -> Mask:
        """Marks the places that lie in a window."""
        held = self._own.among(partitions, points)
        for root, stretches in self._below.items():
            below = pc.fill_null(pc.starts_with(partitions, root), False)
            if pc.any(below).as_py():
                named = pc.if_else(below, root.removesuffix("/"), None)
                held = pc.or_(held, stretches.among(named, points))
        found: Mask = held.to_numpy(zero_copy_only=False)
        return found


class _Stretches:
    """The stretches that windows cover, by the names of parts."""

    def __init__(self, by_part: Mapping[str, list[Window]]) -> None:
        self._parts = pa.array(list(by_part), pa.string())
        whole = [
            name
            for name, own in by_part.items()
            if any(one.start is None and one.end is None for one in own)
        ]
        self._whole = pa.array(whole, pa.string())
        # There may be very many single points of a part, each of which would be a round.
        self._points: dict[int, pa.Array] = {}
        merged = []
        for number, own in enumerate(by_part.values()):
            single = {one.start for one in own if one.start is not None and one.start == one.end}
            if len(single) > _MANY_POINTS:
                self._points[number] = pa.array(single, POINT)
                own = [one for one in own if one.start != one.end or one.start is None]
            merged.append(_merged(own))
        # The first stretch of each part, then the second one of those that have two, and so on.
        self._rounds = []
        for number in range(max(map(len, merged))):
            nth = [one[number] if number < len(one) else (None, None) for one in merged]
            starts, ends = zip(*nth, strict=True)
            self._rounds.append((pa.array(starts, POINT), pa.array(ends, POINT)))

    def among(self, partitions: pa.Array, points: pa.Array) -> pa.Array:
        held = pc.is_in(partitions, value_set=self._whole)
        places = pc.index_in(partitions, value_set=self._parts)
        for number, single in self._points.items():
            inside = pc.and_(pc.equal(places, number), pc.is_in(points, value_set=single))
            held = pc.or_(held, pc.fill_null(inside, False))
        for starts, ends in self._rounds:
            after = pc.greater_equal(points, starts.take(places))
            before = pc.less_equal(points, ends.take(places))
            held = pc.or_(held, pc.fill_null(pc.and_(after, before), False))
        return held


def _merged(windows: Iterable[Window]) -> list[tuple[object, object]]:
    """Returns the stretches that windows of one part cover, apart from each other, in order."""
    limits = sorted(
        (
            FURTHEST.copy_negate() if one.start is None else one.start,
            FURTHEST if one.end is None else one.end,
        )
        for one in windows
    )
    merged = limits[:1]
    for start, end in limits[1:]:
        if start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return list(merged)
