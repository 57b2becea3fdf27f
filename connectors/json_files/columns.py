"""The records of many JSON documents at once, as the connector maps one without any arguments."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from contextframe_beam.connectors.column_mapper import constant, or_else, together
from contextframe_beam.connectors.item_columns import ItemColumns, strings, texts_of, without_empty
from contextframe_beam.connectors.json_files.lines import id_text
from contextframe_beam.frames.columns import Cells, FrameColumns, NotByColumns, filled

__all__ = ["usual_records"]

_TEXT_FIELDS = ("text", "body", "description", "message")
_PLACES = ("_file_path", "_file_name", "_modified_at", "_line_offset")


def usual_records(items: ItemColumns, id_field: str) -> FrameColumns:
    """Returns the records of documents.

    Args:
        items: The documents, each with the place that it is from.
        id_field: The field that identifies a line.

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
        _text(items),
        _unique_ids(items, path.values, offset, id_field),
        times.values if times.is_text else None,
        "document",
        metadata,
    )


def _there(cells: Cells) -> Cells:
    """Returns values of a place, which are null where they are missing."""
    values = cells.values
    if not cells.is_text and not (isinstance(values, pa.Array) and pa.types.is_null(values.type)):
        raise NotByColumns
    return Cells(values)


def _text(items: ItemColumns) -> pa.Array:
    """Returns the text: `content`, or else the first other field with a value."""
    found = [one for one in ("content", *_TEXT_FIELDS) if one in items.fields]
    columns = [_texts(items.fields[one]) for one in found]
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


def _texts(cells: Cells) -> pa.Array:
    if cells.is_text:
        return cells.values
    if isinstance(cells.values, pa.Array) and pa.types.is_null(cells.values.type):
        return cells.values.cast(pa.string())
    raise NotByColumns


def _unique_ids(
    items: ItemColumns, paths: pa.Array, offset: Cells | None, id_field: str
) -> pa.Array:
    files = together(["json_file:", paths], items)
    if offset is None:
        return files
    if offset.absent is not None:
        raise NotByColumns
    own = items.fields.get(id_field) if id_field else None
    ids: Any = texts_of(offset, items.nowhere)
    if own is not None:
        texts = own.values if own.is_text else strings([id_text(one) for one in own.to_list()])
        ids = pc.coalesce(without_empty(texts), ids)
    return together([files, "#", ids], items)
