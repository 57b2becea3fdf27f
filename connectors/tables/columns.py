"""Columns of tables: which are needed and missing, which look unique, and which a path adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from contextframe_beam.connectors.record_mapper import TEXT_FIELDS, RecordMapper
from contextframe_beam.connectors.tables.csv_types import typed
from contextframe_beam.connectors.tables.table_format import Wanted
from contextframe_beam.errors import ConnectorError, nearest

#: What a mapping may name beside the columns: where a row is from.
RESERVED = ("_file_path", "_file_name", "_modified_at")

_SHOWN = 30


def require_columns(
    mapper: RecordMapper, named: Mapping[str, Sequence[str]], known: Sequence[str]
) -> str:
    """Returns which named column is missing, and what there is; "" if all are there.

    Args:
        mapper: The mapping that names columns.
        named: Other columns that arguments name, by the argument.
        known: The columns that there are.
    """
    fields = mapper.fields
    usual = RecordMapper("", {})
    every: list[tuple[str, Sequence[str]]] = []
    if mapper.id_paths != usual.id_paths:
        every.append(("id", mapper.id_paths))
    if fields.text is not None:
        every.append(("text", mapper.text_paths))
    if fields.tags != usual.fields.tags:
        every.append(("tags", [fields.tags]))
    if fields.metadata is not None:
        chosen = fields.metadata
        every.append(("metadata", [*(chosen.values() if isinstance(chosen, Mapping) else chosen)]))
    every += named.items()
    for what, paths in every:
        for path in paths:
            if not leads_to(path, known):
                return f"{what} names {path!r}, and there is no such column" + _there_are(
                    path, known
                )
    for what in ("title", "timestamp"):
        stated = getattr(fields, what)
        either = [stated] if isinstance(stated, str) else list(stated)
        is_usual = stated == getattr(usual.fields, what)
        if not is_usual and not any(leads_to(path, known) for path in either):
            return f"{what} names {', '.join(map(repr, either))}, and there is no such column" + (
                _there_are(either[0], known)
            )
    if fields.text is None and not any(name in known for name in TEXT_FIELDS):
        return (
            f"no column is called {', '.join(TEXT_FIELDS[2:-1])} or {TEXT_FIELDS[-1]}, so say "
            'which holds the text, as in text="notes"' + _there_are("", known)
        )
    return ""


def leads_to(path: str, known: Sequence[str]) -> bool:
    """Returns whether a path begins with a column, or says where a row is from."""
    parts = path.split(".")
    heads = {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
    return not heads.isdisjoint((*known, *RESERVED))


def unique_columns(table: pa.Table) -> list[str]:
    """Returns the columns that have another value in each of some rows, and never none."""
    found = []
    for name, column in zip(table.schema.names, table.columns, strict=True):
        kind = column.type
        if column.null_count or not (_is_plain_text(kind) or pa.types.is_integer(kind)):
            continue
        if pc.count_distinct(column).as_py() == table.num_rows:
            found.append(name)
    return found


def completed(table: pa.Table, wanted: Wanted, origin: Mapping[str, str | None]) -> pa.Table:
    """Returns the rows of a table that are wanted, with the columns that its path adds.

    Args:
        table: What was read of a file.
        wanted: Which columns and rows are wanted.
        origin: Where the rows are from; each is added where a mapping names it.
    """
    table = _without_views(table)
    condition = wanted.expression(table.schema)
    if condition is not None:
        table = table.filter(condition)
    if not wanted.takes_all:
        chosen = [place for place, name in enumerate(table.schema.names) if name in wanted.columns]
        table = table.select(chosen)
    for name, text in wanted.texts.items():
        if name not in table.schema.names and (wanted.takes_all or name in wanted.columns):
            table = _with(table, name, text, wanted.text_types.get(name, "text"))
    for name, value in origin.items():
        if value is not None and (name in wanted.columns or name not in RESERVED):
            table = _with(table, name, value)
    return table


def _with(table: pa.Table, name: str, text: str | None, kind: str = "text") -> pa.Table:
    value = pa.array([text], pa.string())
    if kind != "text":
        value, bad = typed(value, kind)
        if bad:
            raise ConnectorError(f"{name} is {text!r} in its path, which is not {kind}")
    return table.append_column(name, pa.repeat(value[0], table.num_rows))


def _without_views(table: pa.Table) -> pa.Table:
    """Returns a table without views of texts, which Arrow cannot filter."""
    for place, field in enumerate(table.schema):
        kind = None
        if pa.types.is_string_view(field.type):
            kind = pa.large_string()
        elif pa.types.is_binary_view(field.type):
            kind = pa.large_binary()
        if kind is not None:
            table = table.set_column(place, field.name, table.column(place).cast(kind))
    return table


def _there_are(name: str, known: Sequence[str]) -> str:
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"{nearest(name, known)} (there are: {', '.join(known[:_SHOWN])}{more})"


def _is_plain_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
