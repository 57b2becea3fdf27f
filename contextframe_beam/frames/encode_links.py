"""Encodes the relationships of records that are columns; the values are those of single records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contextframe_beam.frames.columns import Links, Mask, NotByColumns, filled
from contextframe_beam.frames.json_columns import Fragment, put_together, uuids_of
from contextframe_beam.frames.schema import RELATIONSHIP

__all__ = ["LaidOut", "relationships_of"]

# What ids begin with is looked for in all targets.
_MOST_SOURCES = 16
_JSON_NAMES = (
    '{"type":',
    '"id":',
    '"uri":',
    '"path":null,"cid":null,"title":null,"description":',
)


@dataclass(frozen=True, slots=True)
class LaidOut:
    """The relationships of rows.

    Attributes:
        column: The column `relationships`.
        seen: What digests see of it.
        without: The rows that have none.
    """

    column: pa.Array
    seen: Fragment
    without: Mask


def relationships_of(links: Links, unique_ids: pa.Array) -> LaidOut:
    """Lays out relationships, whose targets are in the id space of their record.

    Args:
        links: The relationships.
        unique_ids: The id of each record.

    Raises:
        NotByColumns: ids begin with too many names of sources.
    """
    count, rows = len(unique_ids), pa.array(links.rows)
    ids = _targets_of(filled(unique_ids, ""), links).dictionary_encode()
    uuids = uuids_of(ids.dictionary).take(ids.indices)
    nothing = pa.nulls(len(rows), pa.string())
    values = [links.kinds, uuids, links.targets, nothing, nothing, nothing, links.notes]
    structs = pa.StructArray.from_arrays(values, fields=list(RELATIONSHIP))
    counts = np.bincount(links.rows, minlength=count)
    ends = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    without = counts == 0
    column = pa.ListArray.from_arrays(
        ends, structs, mask=pa.array(without) if without.any() else None
    )
    fragments = [
        Fragment.of_text(links.kinds),
        Fragment.of_text(uuids),
        Fragment.of_text(links.targets),
        Fragment.of_nullable(links.notes, "null"),
    ]
    parts: list[Any] = [""]
    for name, fragment in zip(_JSON_NAMES, fragments, strict=True):
        fragment.put(parts, name)
    parts[0] = parts[0].removeprefix(",")
    parts[-1] += "}"
    texts = pa.ListArray.from_arrays(ends, put_together(parts))
    whole = pc.binary_join_element_wise("[", pc.binary_join(texts, ","), "]", "")
    return LaidOut(column, Fragment(whole, without), without)


def _targets_of(unique_ids: pa.Array, links: Links) -> pa.Array:
    """Returns the unique_ids of the targets of links, as `target_unique_id` does."""
    spaces = pc.replace_substring_regex(unique_ids, r"(?s)\A([^:]*:).*\z", r"\1")
    has_source = pc.match_substring(unique_ids, ":")
    sources = pc.if_else(has_source, spaces, "").dictionary_encode()
    if len(sources.dictionary) > _MOST_SOURCES:
        raise NotByColumns
    containers = pc.replace_substring_regex(unique_ids, r"(?s)\A(.*#)[^#]*\z", r"\1")
    spaces = pc.if_else(pc.match_substring(unique_ids, "#"), containers, spaces)
    spaces = pc.if_else(has_source, spaces, "")
    rows = pa.array(links.rows)
    source = sources.indices.take(rows)
    spaces = spaces.take(rows)
    for number, prefix in enumerate(sources.dictionary.to_pylist()):
        # Ids that begin so are complete.
        whole = pc.and_(pc.equal(source, number), pc.starts_with(links.targets, prefix))
        if prefix and pc.any(whole).as_py():
            spaces = pc.if_else(whole, "", spaces)
    return pc.binary_join_element_wise(spaces, links.targets, "")
