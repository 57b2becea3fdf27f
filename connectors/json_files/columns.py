"""The records of many JSON documents at once, as the connector maps one without any arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from contextframe_beam.connectors.column_mapper import constant, or_else, together, together_with
from contextframe_beam.connectors.item_columns import ItemColumns, strings, without_empty
from contextframe_beam.connectors.json_files.lines import (
    Lines,
    ends_of_objects,
    id_text,
    objects_of,
    offsets_of,
)
from contextframe_beam.frames.columns import Cells, FrameColumns, NotByColumns, filled

if TYPE_CHECKING:
    from contextframe_beam.connectors.record_mapper import RecordMapper

__all__ = ["named_records", "table_of_lines", "usual_records"]

# Deeper objects stay objects.
_DEEPEST = 4
_TEXT_FIELDS = ("text", "body", "description", "message")
_PLACES = ("_file_path", "_file_name", "_modified_at", "_line_offset")


def usual_records(
    items: ItemColumns, id_field: str, text_of: Callable[[Mapping[str, Any]], str | None]
) -> FrameColumns:
    """Returns the records of documents.

    Args:
        items: The documents, each with the place that it is from.
        id_field: The field that identifies a line.
        text_of: Returns the text of one document.

    Raises:
        NotByColumns: they have to be mapped one by one.
    """
    fields = items.fields
    path, name, modified, offset = (fields.get(one) for one in _PLACES)
    if path is None or path.absent is not None or not path.is_text:
        raise NotByColumns
    metadata = {
        key: cells
        for key, cells in fields.items()
        if key not in ("content", "text") and key[:1] != "_"
    }
    nothing = Cells(pa.nulls(items.count))
    or_else(metadata, "source", constant("json_file", items.count))
    or_else(metadata, "file_path", path)
    or_else(metadata, "file_name", _there(name or nothing))
    or_else(metadata, "modified_at", _there(modified or nothing))
    times = _there(modified or nothing)
    return FrameColumns(
        _text(items, text_of),
        _unique_ids(items, path.values, offset, id_field),
        times.values if times.is_text else None,
        "document",
        metadata,
        together_with(metadata, []),
    )


def named_records(
    mapper: RecordMapper, items: ItemColumns, is_asked: bool, is_plain: bool
) -> FrameColumns:
    """Returns the records of documents of files, as arguments map them.

    Args:
        mapper: The mapping.
        items: The documents, each with the place that it is from.
        is_asked: Whether somebody said which field is the id.
        is_plain: Whether that is one field, so that a number may be its value.

    Raises:
        NotByColumns: they have to be mapped one by one.
    """
    made = mapper.map_columns(items)
    own, path = made.unique_ids, items.fields.get("_file_path")
    if mapper.prefix and not own.null_count:
        return made
    if path is None or path.absent is not None or not path.is_text:
        raise NotByColumns
    files = together(["json_file:", path.values], items)
    offset = items.fields.get("_line_offset")
    lines = items.nowhere if offset is None else _lines_of(offset, is_plain)
    # Those with a prefix have their whole id.
    ids = lines if mapper.prefix else pc.coalesce(own, lines)
    named = together([files, "#", ids], items)
    if not is_asked:
        # A file of one document is named by its path.
        named = pc.if_else(lines.is_valid(), named, pa.scalar(None, pa.string()))
    made.unique_ids = pc.coalesce(*([own] if mapper.prefix else []), named, files)
    return made


def _lines_of(offsets: Cells, is_plain: bool) -> pa.Array:
    """Returns what names lines without an id, null for files of one document."""
    values = offsets.values
    if is_plain and isinstance(values, pa.Array) and pa.types.is_integer(values.type):
        return values.cast(pa.string())
    texts = [None if one is None else str(one) for one in offsets.to_list()]
    if not is_plain:
        texts = [one and f"byte {one.removeprefix('byte ')}" for one in texts]
    return pa.array(texts, pa.string())


def table_of_lines(
    lines: Lines, place: Mapping[str, str | None], id_field: str, longest: int
) -> pa.Table | None:
    """Returns lines as a table whose rows are the items that `parse_lines` makes of them.

    Args:
        lines: What to parse.
        place: What each item gets beside its offset.
        id_field: The field that identifies a line.
        longest: The length of the longest line that is read.

    Returns:
        The table. None if one of the lines is no object, is without an id, or has what a table
        cannot hold exactly: other names than the first, values of several types, large numbers.
    """
    ends = None if lines.bad else ends_of_objects(lines.data, longest)
    if ends is None:
        return None
    fields = _fields_of(lines.data, int(ends[0]), len(ends))
    if fields is None or id_field not in fields or fields.keys() & {*place, "_line_offset"}:
        return None
    ids = fields[id_field]
    if ids.null_count or (pa.types.is_string(ids.type) and pc.any(pc.equal(ids, "")).as_py()):
        return None
    for name, value in place.items():
        fields[name] = pa.repeat(pa.scalar(value, pa.string()), len(ends))
    fields["_line_offset"] = pa.array(offsets_of(lines, ends), pa.int64())
    return pa.table(fields)


def _fields_of(data: bytes, first: int, count: int) -> dict[str, pa.Array] | None:
    """Returns lines as columns that give back just their objects; None if there are none.

    Args:
        data: The lines, each of which begins and ends as an object does.
        first: The length of the first one.
        count: How many they are.
    """
    try:
        example = orjson.loads(data[:first])
    except orjson.JSONDecodeError:
        return None
    # Deeper values are looked at one by one.
    shape = tuple((name, _kind_of(one)) for name, one in example.items())
    decoder = _decoder_of(shape)
    values = None if decoder is None else objects_of(data, count, decoder)
    if values is None:
        return None
    fields: dict[str, pa.Array] = {}
    columns = zip(*map(msgspec.structs.astuple, values), strict=True)
    for (name, kind), column in zip(shape, columns, strict=True):
        made = _exact(column, 1) if kind is None else pa.array(column, _KINDS[kind][1])
        if made is None:
            return None
        fields[name] = made
    return fields


# Of values whose types are known when they are parsed. Others are numbers, of which a whole one may
# stand among fractions, and what a first line does not tell, such as null.
_KINDS: dict[Any, tuple[Any, pa.DataType]] = {
    str: (str | None, pa.string()),
    bool: (bool | None, pa.bool_()),
    list: (list[str] | None, pa.list_(pa.string())),
}


def _kind_of(value: Any) -> type | None:
    """Returns the type that a value tells of all those of its field; None if it tells none."""
    kind = type(value)
    if kind is list and not (value and {str}.issuperset(map(type, value))):
        return None
    return kind if kind in _KINDS else None


@lru_cache(maxsize=64)
def _decoder_of(
    shape: tuple[tuple[str, type | None], ...],
) -> msgspec.json.Decoder[Any] | None:
    """Returns what parses lines that have just these fields, into tuples of their values.

    None if nothing does, because there are no fields, or one has a quotation mark in its name.
    """
    if not shape:
        return None
    places = [(f"f{place}", name, kind) for place, (name, kind) in enumerate(shape)]
    fields = [(place, Any if kind is None else _KINDS[kind][0]) for place, _, kind in places]
    names = {place: name for place, name, _ in places}
    try:
        line = msgspec.defstruct("Line", fields, rename=names, forbid_unknown_fields=True, gc=False)
    except ValueError:
        return None
    return msgspec.json.Decoder(line)


def _exact_fields(values: Sequence[Any], depth: int = 0) -> dict[str, pa.Array] | None:
    """Returns objects as columns that give back just these objects; None if there are none."""
    if depth > _DEEPEST or not {dict}.issuperset(map(type, values)):
        return None
    names = tuple(values[0])
    if not names or len(set(map(tuple, values))) > 1:
        return None
    columns = [_exact(one, depth + 1) for one in zip(*map(dict.values, values), strict=True)]
    fields = dict(zip(names, columns, strict=True))
    found = {name: column for name, column in fields.items() if column is not None}
    return found if len(found) == len(fields) else None


def _exact(values: Sequence[Any], depth: int) -> pa.Array | None:
    """Returns values as a column that gives back just these values; None if there is none."""
    if type(values[0]) is dict:
        fields = _exact_fields(values, depth)
        return None if fields is None else pa.StructArray.from_arrays([*fields.values()], [*fields])
    cells = Cells.of(values)
    return cells.values if isinstance(cells.values, pa.Array) else None


def _there(cells: Cells) -> Cells:
    """Returns values of a place, which are null where they are missing."""
    if _as_text(cells) is None:
        raise NotByColumns
    return Cells(cells.values)


def _text(items: ItemColumns, one: Callable[[Mapping[str, Any]], str | None]) -> pa.Array:
    """Returns the text: `content`, or else the first other field with a value."""
    found = [name for name in ("content", *_TEXT_FIELDS) if name in items.fields]
    columns = [text for name in found if (text := _as_text(items.fields[name])) is not None]
    if len(columns) < len(found):
        return strings(list(map(one, items.rows(found))))
    content = items.fields.get("content")
    if content is None:
        return filled(pc.coalesce(*columns), "") if columns else filled(items.nowhere, "")
    own, *others = columns
    if not others and not own.null_count:
        return own
    last = own
    if content.missing is not None:
        last = pc.if_else(pa.array(content.missing), "", own)
    return pc.coalesce(without_empty(own), *others, last)


def _as_text(cells: Cells) -> pa.Array | None:
    """Returns values that are text or null; None if there are others."""
    values = cells.values
    if not isinstance(values, pa.Array):
        return None
    if pa.types.is_null(values.type):
        return values.cast(pa.string())
    return values if cells.is_text else None


def _unique_ids(
    items: ItemColumns, paths: pa.Array, offset: Cells | None, id_field: str
) -> pa.Array:
    files = together(["json_file:", paths], items)
    if offset is None:
        return files
    lines = _lines_of(offset, is_plain=True)
    ids, own = lines, items.fields.get(id_field) if id_field else None
    if own is not None:
        texts = own.values if own.is_text else strings([id_text(one) for one in own.to_list()])
        ids = pc.coalesce(without_empty(texts), lines)
    named = together([files, "#", ids], items)
    return pc.if_else(lines.is_valid(), named, files) if lines.null_count else named
