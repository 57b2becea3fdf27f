"""FieldMapper in columns: the records of many items at once, the same as one by one.

Each function here is the counterpart of one in `mapper.py`, for a whole column. What Arrow does not
do as Python does is done by the functions of `mapper.py`, for each value of that one column.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contextframe_beam.connectors.item_columns import (
    ItemColumns,
    marked,
    strings,
    texts_of,
    without_empty,
)
from contextframe_beam.connectors.mapper import (
    PLAIN_TEXTS,
    TARGET_NAMES,
    FieldMapper,
    as_metadata,
    as_timestamp,
    hidden_names,
    names,
    template_parts,
)
from contextframe_beam.errors import RecordError
from contextframe_beam.frames.columns import (
    MISSING,
    Cells,
    FrameColumns,
    Links,
    Mask,
    NotByColumns,
    filled,
)
from contextframe_beam.frames.json_columns import escaped
from contextframe_beam.frames.values import dump_json, is_unicode

if TYPE_CHECKING:
    from typing import TypeGuard

__all__ = [
    "any_unreadable",
    "constant",
    "each_text",
    "fields_in_columns",
    "joined",
    "links_to",
    "or_else",
    "together",
    "together_with",
]

# What Python strips from text.
_SPACES = "".join(one for one in map(chr, range(0x3001)) if one.isspace())
_ISO = r"\A[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])([T ][0-2][0-9]:[0-5][0-9]|\z)"
_DIGIT = re.compile(r"\d")


def fields_in_columns(mapper: FieldMapper, items: ItemColumns) -> FrameColumns:
    """Returns the records that a mapper makes of items, all with an id.

    Raises:
        NotByColumns: the items have to be mapped one by one.
    """
    metadata = dict(_selected(mapper, items))
    for name, value in mapper.constants.items():
        metadata[name] = constant(value, items.count)
    titles = _stripped(texts_of(items.first(mapper.title), items.nowhere))
    put(metadata, "title", Cells(titles), np.asarray(pc.not_equal(titles, ""), np.bool_))
    tags = _tags(items.get(mapper.tags))
    if tags is not None:
        put(metadata, "tags", tags, _lengths(tags) > 0)
    links = _links(items, tags) if mapper.relationships else []
    return FrameColumns(
        _text(mapper, items),
        _unique_ids(mapper, items),
        time_of(items, mapper.timestamp),
        mapper.record_type,
        metadata,
        together_with(metadata, links),
    )


def constant(value: Any, count: int) -> Cells:
    """Returns a value for each of so many rows."""
    if isinstance(value, str):
        return Cells(pa.repeat(_one_text(value), count))
    return Cells.of([value] * count)


def _one_text(value: str) -> pa.Scalar:
    try:
        return pa.scalar(value, pa.string())
    except UnicodeEncodeError:
        raise NotByColumns from None


def put(metadata: dict[str, Cells], name: str, cells: Cells, rows: Mask) -> None:
    """Puts values into metadata in some rows; the others keep what they have."""
    if rows.all():
        metadata[name] = Cells(cells.values)
    elif rows.any():
        known = metadata.get(name)
        if known is None:
            values = cells.to_list()
            kept = [one if put_in else MISSING for one, put_in in zip(values, rows, strict=True)]
            metadata[name] = Cells.of(kept)
        else:
            metadata[name] = _chosen(rows, cells, known)


def or_else(metadata: dict[str, Cells], name: str, value: Cells) -> None:
    """Puts values into metadata where it does not have the name."""
    known = metadata.get(name)
    if known is None:
        metadata[name] = value
    elif known.missing is not None:
        metadata[name] = _chosen(known.missing, value, known)


def _chosen(rows: Mask, cells: Cells, others: Cells) -> Cells:
    """Returns values in some rows, and others in the rest."""
    if cells.is_text and others.is_text:
        missing = None if others.missing is None else others.missing & ~rows
        return Cells(pc.if_else(pa.array(rows), cells.values, others.values), missing)
    pairs = zip(rows, cells.to_list(), others.to_list(MISSING), strict=True)
    return Cells.of([one if chosen else other for chosen, one, other in pairs])


def _selected(mapper: FieldMapper, items: ItemColumns) -> Mapping[str, Cells]:
    if mapper.metadata is None:
        hidden = hidden_names(mapper.text)
        return {
            name: _as_metadata(cells)
            for name, cells in items.fields.items()
            if name not in hidden and name[:1] != "_"
        }
    wanted = mapper.metadata
    if not isinstance(wanted, Mapping):
        wanted = {path: path for path in wanted}
    found = ((name, items.get(path)) for name, path in wanted.items())
    return {name: _as_metadata(cells) for name, cells in found if cells is not None}


def _as_metadata(cells: Cells) -> Cells:
    values = cells.values
    if isinstance(values, pa.Array):
        if not (pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)):
            return cells
    elif bytes not in set(map(type, values)):
        return cells
    return Cells.of([as_metadata(one) for one in cells.to_list(MISSING)])


def _stripped(texts: pa.Array) -> pa.Array:
    return pc.utf8_trim(texts, characters=_SPACES)


def _text(mapper: FieldMapper, items: ItemColumns) -> pa.Array:
    if mapper.text is None:
        return _usual_text(items)
    if "{" not in mapper.text:
        return texts_of(items.get(mapper.text), items.nowhere)
    parts: list[Any] = []
    for literal, path in template_parts(mapper.text):
        parts.append(literal)
        if path is not None:
            parts.append(texts_of(items.get(path), items.nowhere))
    return _stripped(together(parts, items))


def together(parts: Sequence[Any], items: ItemColumns) -> pa.Array:
    """Returns literals and columns put together; null where a column is null."""
    if all(isinstance(part, str) for part in parts):
        return pa.repeat(_one_text("".join(parts)), items.count)
    try:
        return pc.binary_join_element_wise(*parts, "")
    except pa.ArrowInvalid:  # more than a column can hold
        raise NotByColumns from None


def _usual_text(items: ItemColumns) -> pa.Array:
    structured = list(map(_structured_text, items.rows(("blocks", "sections"))))
    plain = _plain_text(items)
    if all(one is None for one in structured):
        return plain
    return pc.coalesce(strings(structured), plain)


def _structured_text(item: Mapping[str, Any]) -> str | None:
    if not any(map(_is_filled, item.values())):
        return None
    return FieldMapper.extract_text_content(item)


def _plain_text(items: ItemColumns) -> pa.Array:
    parts = [_truthy_text(items.fields[name]) for name in PLAIN_TEXTS if name in items.fields]
    parts = [part for part in parts if part.null_count < items.count]
    if len(parts) == 1:
        return filled(parts[0], "")
    return joined(parts, "\n\n", items, skips=True)


def joined(
    columns: Sequence[pa.Array], separator: str, items: ItemColumns, skips: bool = False
) -> pa.Array:
    """Returns texts with a separator between them, without those that are null if `skips`.

    Otherwise text of which a part is empty is empty.

    Raises:
        NotByColumns: it is more than a column can hold.
    """
    if not columns:
        return filled(items.nowhere, "")
    given = [column if skips else without_empty(column) for column in columns]
    how = "skip" if skips else "emit_null"
    if skips:
        # Arrow leaves out rows of which every part is null.
        given[0] = pc.if_else(pc.coalesce(*given).is_null(), "", given[0])
    try:
        made = pc.binary_join_element_wise(*given, separator, null_handling=how)
    except pa.ArrowInvalid:
        raise NotByColumns from None
    return filled(made, "")


def each_text(convert: Callable[[str], str], column: pa.Array) -> pa.Array:
    """Returns texts converted, unless all consist of letters, digits, _ and -."""
    if pc.all(pc.match_substring_regex(column, r"\A[A-Za-z0-9_-]*\z")).as_py():
        return column
    return strings([convert(one) for one in column.to_pylist()])


def any_unreadable(times: pa.Array, tell: Callable[[str], None]) -> None:
    """Tells of times that are not like 2026-01-31T08:00:00Z; another function reads them."""
    plain = pc.match_substring_regex(times, _ISO)
    for one in times.filter(pc.invert(plain)).to_pylist():
        if one:
            tell(one)


def _is_filled(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value)


def _truthy_text(cells: Cells) -> pa.Array:
    """Returns values as text; null for those that are false in Python, and for empty text."""
    if cells.is_text:
        return without_empty(cells.values)
    values = [one or None for one in cells.to_list()]
    return without_empty(texts_of(Cells.of(values), pa.nulls(0, pa.string())))


def _unique_ids(mapper: FieldMapper, items: ItemColumns) -> pa.Array:
    ids = without_empty(texts_of(items.first(mapper.id), items.nowhere))
    if not mapper.prefix:
        return ids
    return pc.binary_join_element_wise(f"{mapper.prefix}:", ids, "")


def time_of(items: ItemColumns, paths: str | tuple[str, ...]) -> pa.Array | None:
    """Returns the first time at one of the paths; None if no item has one."""
    given = (items.get(path) for path in ((paths,) if isinstance(paths, str) else paths))
    found = [_times(cells) for cells in given if cells is not None]
    found = [times for times in found if times.null_count < items.count]
    if not found:
        return None
    if all(pc.all(pc.match_substring_regex(times, "[0-9]")).as_py() for times in found):
        return pc.coalesce(*found)
    rows = zip(*(times.to_pylist() for times in found), strict=True)
    return strings([_best_time(row) for row in rows])


def _best_time(times: Sequence[str | None]) -> str | None:
    found = [time for time in times if time]
    return next((time for time in found if _DIGIT.search(time)), next(iter(found), None))


def _times(cells: Cells) -> pa.Array:
    """Returns values as times; null where there is none."""
    if cells.is_text:
        texts = without_empty(cells.values)
        if pc.all(pc.equal(pc.utf8_slice_codeunits(texts, 4, 5), "-")).as_py() is not False:
            return texts
    return strings([as_timestamp(one) or None for one in cells.to_list()])


def _tags(cells: Cells | None) -> Cells | None:
    """Returns the names of tags as lists; None if no item has any."""
    if cells is None:
        return None
    values = cells.values
    if _is_list_of_texts(values):
        flat = values.flatten()
        if not flat.null_count and _are_names(flat, pc.list_parent_indices(values)):
            return cells
    found = [names(one, separator=",") for one in cells.to_list()]
    return Cells.of(found) if any(found) else None


def _are_names(flat: pa.Array, rows: pa.Array) -> bool:
    """Returns whether texts are names as they are: stripped, not empty, once in each list."""
    if pc.any(pc.equal(flat, "")).as_py() or not flat.equals(_stripped(flat)):
        return False
    known = flat.dictionary_encode()
    codes = rows.to_numpy().astype(np.int64) * max(len(known.dictionary), 1)
    codes += known.indices.to_numpy()
    return bool(pc.count_distinct(pa.array(codes)).as_py() == len(codes))


def _lengths(cells: Cells) -> Any:
    if isinstance(cells.values, pa.Array):
        return pc.fill_null(pc.list_value_length(cells.values), 0).to_numpy()
    return np.fromiter(map(len, cells.to_list()), np.int64)


def _links(items: ItemColumns, tags: Cells | None) -> list[Links]:
    """Returns relationships to parents, references and tags, as `build_relationships` does."""
    parents, references = (items.fields.get(name) for name in ("parent_id", "references"))
    found: list[Links] = []
    if parents is not None:
        texts = _truthy_text(parents)
        rows = np.flatnonzero(texts.is_valid())
        found.append(_linked("parent", rows, texts.drop_null(), '{"source":"hierarchy"}'))
    if references is not None:
        targets = [names(one, TARGET_NAMES) for one in references.to_list()]
        found.append(links_to("reference", targets, '{"source":"explicit_reference"}'))
    if tags is not None:
        values = tags.values
        if not _is_list_of_texts(values):
            raise NotByColumns
        flat, rows = values.flatten(), pc.list_parent_indices(values).to_numpy()
        notes = pc.binary_join_element_wise('{"tag_name":"', escaped(flat), '"}', "")
        targets = pc.binary_join_element_wise("tag:", flat, "")
        found.append(_linked("tagged_with", rows, targets, notes))
    return found


def links_to(kind: str, targets: Sequence[list[str]], note: str | None = None) -> Links:
    """Returns relationships of one kind.

    Args:
        kind: Their kind.
        targets: The ids that each row points to.
        note: Their metadata, as JSON.
    """
    rows = np.repeat(np.arange(len(targets)), list(map(len, targets)))
    try:
        flat = pa.array(chain.from_iterable(targets), pa.string())
    except UnicodeEncodeError:
        raise NotByColumns(marked(not all(map(is_unicode, one)) for one in targets)) from None
    return _linked(kind, rows, flat, note)


def _linked(kind: str, rows: Any, targets: pa.Array, notes: pa.Array | str | None) -> Links:
    count = len(targets)
    if not isinstance(notes, pa.Array):
        notes = pa.repeat(pa.scalar(notes, pa.string()), count)
    kinds = pa.repeat(pa.scalar(kind, pa.string()), count)
    return Links(rows.astype(np.int64), kinds, targets, notes)


def together_with(metadata: dict[str, Cells], links: Sequence[Links]) -> Links | None:
    """Returns links joined, after those that the metadata has; they leave it.

    They go into the metadata where it has relationships of another form.
    """
    links = [one for one in links if len(one.rows)]
    own = metadata.get("relationships")
    if own is None or (own.missing is not None and own.missing.all()):
        metadata.pop("relationships", None)
        return Links.of(links) if links else None
    own_links = _own_links(own)
    if own_links is not None:
        del metadata["relationships"]
        return Links.of([own_links, *links])
    if links:
        found = Links.of(links).by_row()
        metadata["relationships"] = Cells.of(
            [
                [*(known if isinstance(known, list) else ()), *found[row]]
                if row in found
                else known
                for row, known in enumerate(own.to_list(MISSING))
            ]
        )
    return None


def _own_links(own: Cells) -> Links | None:
    """Returns relationships of a source's own as links; None if any cannot be one exactly."""
    rows: list[int] = []
    found: list[tuple[str, str, str | None]] = []
    for row, value in enumerate(own.to_list(MISSING)):
        if value is MISSING:
            continue
        if type(value) is not list or not value:
            return None
        for one in value:
            if (link := _link_of(one)) is None:
                return None
            rows.append(row)
            found.append(link)
    kinds, targets, notes = zip(*found, strict=True)
    try:
        columns = [pa.array(values, pa.string()) for values in (kinds, targets, notes)]
    except UnicodeEncodeError:
        return None
    return Links(np.array(rows, np.int64), *columns)


def _link_of(value: Any) -> tuple[str, str, str | None] | None:
    if type(value) is not dict or not value.keys() <= _LINK_NAMES:
        return None
    kind, target = value.get("relationship_type"), value.get("target_id")
    if type(kind) is not str or type(target) is not str or not target:
        return None
    if "metadata" not in value:
        return kind, target, None
    notes = value["metadata"]
    # Other values may not be the same again once they are JSON.
    if type(notes) is not dict or not _TEXT.issuperset(map(type, chain(notes, notes.values()))):
        return None
    try:
        return kind, target, dump_json(notes, "metadata")
    except RecordError:
        return None


_TEXT = frozenset({str})
_LINK_NAMES = {"relationship_type", "target_id", "metadata"}


def _is_list_of_texts(values: Any) -> TypeGuard[pa.ListArray]:
    if not isinstance(values, pa.Array) or not pa.types.is_list(values.type):
        return False
    return bool(pa.types.is_string(values.type.value_type))
