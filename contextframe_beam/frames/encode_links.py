"""Encodes the relationships of records that are columns; the values are those of single records."""

from __future__ import annotations

from collections.abc import Sequence
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
    count = len(unique_ids)
    columns = [_targets_of(filled(unique_ids, ""), links), links.kinds, links.targets, links.notes]
    # Many documents have the same tags, so that few are different.
    places, codes = _distinct(columns)
    if len(places) < len(codes):
        structs, texts = _laid_out(*(column.take(places) for column in columns))
        structs, texts = structs.take(codes), texts.take(codes)
    else:
        structs, texts = _laid_out(*columns)
    counts = np.bincount(links.rows, minlength=count)
    ends = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    without = counts == 0
    column = pa.ListArray.from_arrays(
        ends, structs, mask=pa.array(without) if without.any() else None
    )
    joined = pc.binary_join(pa.ListArray.from_arrays(ends, texts), ",")
    whole = pc.binary_join_element_wise("[", joined, "]", "")
    return LaidOut(column, Fragment(whole, without), without)


def _distinct(columns: Sequence[pa.Array]) -> tuple[pa.Array, pa.Array]:
    """Returns where each combination of values is first, and which of these each row has."""
    codes = pa.array(np.zeros(len(columns[0]), np.int64))
    for column in columns:
        known = column.dictionary_encode("encode")
        ours = known.indices.to_numpy().astype(np.int64)
        codes = pa.array(codes.to_numpy() * max(len(known.dictionary), 1) + ours)
        codes = codes.dictionary_encode().indices
    numbers = codes.to_numpy()
    places = np.zeros(numbers.max(initial=-1) + 1, np.int64)
    places[numbers[::-1]] = np.arange(len(numbers))[::-1]
    return pa.array(places), codes


def _laid_out(
    ids: pa.Array, kinds: pa.Array, targets: pa.Array, notes: pa.Array
) -> tuple[pa.StructArray, pa.Array]:
    """Returns relationships as the column has them, and as digests see them."""
    uuids = uuids_of(ids)
    nothing = pa.nulls(len(ids), pa.string())
    values = [kinds, uuids, targets, nothing, nothing, nothing, notes]
    structs = pa.StructArray.from_arrays(values, fields=list(RELATIONSHIP))
    fragments = [
        Fragment.of_text(kinds),
        Fragment.of_text(uuids),
        Fragment.of_text(targets),
        Fragment.of_nullable(notes, "null"),
    ]
    parts: list[Any] = [""]
    for name, fragment in zip(_JSON_NAMES, fragments, strict=True):
        fragment.put(parts, name)
    parts[0] = parts[0].removeprefix(",")
    parts[-1] += "}"
    return structs, put_together(parts)


def _targets_of(unique_ids: pa.Array, links: Links) -> pa.Array:
    """Returns the unique_ids of the targets of links, as `target_unique_id` does."""
    rows = pa.array(links.rows)
    shared = _shared_space(unique_ids)
    if shared is not None:
        prefixes, space = [shared[0]], pa.repeat(pa.scalar(shared[1], pa.string()), len(rows))
        source = pa.array(np.zeros(len(rows), np.int32))
    else:
        spaces, sources = _spaces(unique_ids)
        prefixes = sources.dictionary.to_pylist()
        source, space = sources.indices.take(rows), spaces.take(rows)
    for number, prefix in enumerate(prefixes):
        # Ids that begin so are complete.
        whole = pc.and_(pc.equal(source, number), pc.starts_with(links.targets, prefix))
        if prefix and pc.any(whole).as_py():
            space = pc.if_else(whole, "", space)
    return pc.binary_join_element_wise(space, links.targets, "")


def _shared_space(unique_ids: pa.Array) -> tuple[str, str] | None:
    """Returns what the ids of all records begin with: their source, and their space.

    Returns:
        Both; None if some records have others, or none.
    """
    first: str = unique_ids[0].as_py() if len(unique_ids) else ""
    source = first[: first.find(":") + 1]
    space = first[: first.rfind("#") + 1] or source
    if not source or not space.startswith(source):
        return None
    same = pc.and_(
        pc.starts_with(unique_ids, space),
        pc.equal(pc.count_substring(unique_ids, "#"), space.count("#")),
    )
    return (source, space) if pc.all(same).as_py() else None


def _spaces(unique_ids: pa.Array) -> tuple[pa.Array, pa.DictionaryArray]:
    """Returns the space of targets of each record, and its source."""
    spaces = pc.replace_substring_regex(unique_ids, r"(?s)\A([^:]*:).*\z", r"\1")
    has_source = pc.match_substring(unique_ids, ":")
    sources = pc.if_else(has_source, spaces, "").dictionary_encode()
    if len(sources.dictionary) > _MOST_SOURCES:
        raise NotByColumns
    containers = pc.replace_substring_regex(unique_ids, r"(?s)\A(.*#)[^#]*\z", r"\1")
    spaces = pc.if_else(pc.match_substring(unique_ids, "#"), containers, spaces)
    return pc.if_else(has_source, spaces, ""), sources
