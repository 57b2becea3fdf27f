"""Maps the items of a page by columns, as far as that goes, and leaves the others.

The records are those of `map.py`, item by item. A page whose items have nothing in common goes item
by item as a whole; a few that are unlike the others, or are no documents, go alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from contextframe_beam.connectors.column_mapper import fields_in_columns
from contextframe_beam.connectors.item_columns import ItemColumns
from contextframe_beam.connectors.mapper import FieldMapper
from contextframe_beam.connectors.page import Page
from contextframe_beam.errors import ContextFrameError
from contextframe_beam.frames.columns import FrameColumns, NotByColumns, Rows

__all__ = ["ByColumns", "MappedColumns", "columns_of", "mapped_by_columns", "mapped_together"]

_LOGGER = logging.getLogger(__name__)

#: Maps many items at once, the same as one by one, or raises NotByColumns.
ByColumns = Callable[[ItemColumns], FrameColumns]

# With fewer items the calls of Arrow cost more than they save.
_FEWEST_IN_COLUMNS = 100
# The same error comes for the item that is to blame, where there is one.
_NOT_BY_COLUMNS = (ContextFrameError, pa.ArrowException, NotImplementedError)


def columns_of(mapper: Any) -> ByColumns | None:
    """Returns what maps many items at once, the same as one by one; None if nothing does.

    That is the mapper's `map_columns`, unless its mapping of one item was written after that.
    """
    if type(mapper) is FieldMapper:
        return partial(fields_in_columns, mapper)
    names = {"map_columns", "map_to_frame_record"}
    owner: type = next((one for one in type(mapper).__mro__ if names & vars(one).keys()), object)
    if not names <= vars(owner).keys() or "map_to_frame_record" in vars(mapper):
        return None
    found: ByColumns = mapper.map_columns
    return found


@dataclass(frozen=True, slots=True)
class MappedColumns:
    """What was mapped of a page.

    Attributes:
        columns: The records.
        places: The place of each record's item on the page.
        apart: The places of the items that have to be mapped one by one.
    """

    columns: FrameColumns
    places: Rows
    apart: Rows


def mapped_by_columns(page: Page, mapper: ByColumns) -> MappedColumns | None:
    """Returns what was mapped of a page; None if too few of its items can be."""
    count = page.count
    is_apart = np.zeros(count, np.bool_)
    items: ItemColumns | None = None
    while (left := count - int(is_apart.sum())) >= _FEWEST_IN_COLUMNS:
        places = np.flatnonzero(~is_apart)
        try:
            if items is None:
                items = _columns_of(page, places)
            return MappedColumns(mapper(items), places, np.flatnonzero(is_apart))
        except NotByColumns as reason:
            rows = reason.rows
            if rows is None or not rows.any():
                _LOGGER.debug("page %s is mapped item by item: %r", page.position, reason)
                return None
            is_apart[places[rows]] = True
            items = None if items is None else items.take(np.flatnonzero(~rows))
        except _NOT_BY_COLUMNS as reason:
            _LOGGER.debug("page %s is mapped item by item: %r", page.position, reason)
            return None
    _LOGGER.debug("page %s is mapped item by item: %d items are alike", page.position, left)
    return None


def mapped_together(pages: Sequence[Page], mapper: ByColumns) -> list[MappedColumns | None]:
    """Returns for each of several pages of items what `mapped_by_columns` does.

    Their items are mapped together, since the calls of Arrow cost as much for a few.
    """
    full = [page for page in pages if page.count]
    if len(full) > 1:
        whole = Page([item for page in full for item in page.items], position=full[0].position)
        found = mapped_by_columns(whole, mapper)
        if found is not None:
            return _parted(found, pages)
    return [mapped_by_columns(page, mapper) for page in pages]


def _parted(found: MappedColumns, pages: Sequence[Page]) -> list[MappedColumns | None]:
    """Returns the parts of pages that were mapped together."""
    ends = np.cumsum([page.count for page in pages])
    starts = ends - [page.count for page in pages]
    bounds = [np.searchsorted(rows, [starts, ends]).T for rows in (found.places, found.apart)]
    return [
        MappedColumns(
            found.columns.slice(*mapped),
            found.places[slice(*mapped)] - start,
            found.apart[slice(*apart)] - start,
        )
        if page.count
        else None
        for page, start, mapped, apart in zip(pages, starts, *bounds, strict=True)
    ]


def _columns_of(page: Page, places: Rows) -> ItemColumns:
    is_whole = len(places) == page.count
    if page.table is not None:
        return ItemColumns.of_table(page.table if is_whole else page.table.take(places))
    return ItemColumns.of_items(page.items if is_whole else page.items_at(places.tolist()))
