"""How DuckDB is read: a file that no other process writes meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from contextframe_beam.connectors.sql.dialect import Column, Dialect, Keys
from contextframe_beam.connectors.sql.query import Relation, quoted, text_literal
from contextframe_beam.connectors.sql.session import Session

_FIRST, _LAST = "0001-01-01", "9999-12-31 23:59:59.999999"
_FINITE = ("FLOAT", "DOUBLE", "DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE")
# Sorting spills to disk beyond it.
_MEMORY = "512MB"


class DuckDialect(Dialect):
    """DuckDB."""

    def begin(self, snapshot: str = "") -> tuple[str, ...]:
        # Times with a zone are written in the zone of the session.
        return ("SET TimeZone = 'UTC'", f"SET memory_limit = '{_MEMORY}'")

    def columns(self, session: Session, relation: Relation) -> list[Column]:
        schema = session.schema(f"SELECT * FROM {self.rows(relation)} LIMIT 0")
        types = session.rows(f"DESCRIBE SELECT * FROM {self.rows(relation)}")
        return [
            _column(one.name, str(row[1]), one.type) for one, row in zip(schema, types, strict=True)
        ]

    def keys(self, session: Session, relation: Relation) -> Keys:
        if relation.query:
            return Keys()
        schema = (
            f" AND schema_name = {text_literal(relation.parts[-2])}"
            if (len(relation.parts) > 1)
            else ""
        )
        found = session.rows(
            "SELECT constraint_type, constraint_column_names FROM duckdb_constraints() "
            f"WHERE lower(table_name) = lower({text_literal(relation.parts[-1])}){schema} "
            "AND constraint_type IN ('PRIMARY KEY', 'UNIQUE') ORDER BY constraint_index"
        )
        return keys_of((kind == "PRIMARY KEY", tuple(names)) for kind, names in found)

    def counts(self, expression: str, column: Column) -> str:
        return f" AND isfinite({expression})" if column.type in _FINITE else ""

    def tables(self, session: Session) -> list[str]:
        found = session.rows(
            "SELECT table_schema, table_name FROM information_schema.tables ORDER BY 1, 2 LIMIT 500"
        )
        return [name if schema == "main" else f"{schema}.{name}" for schema, name in found]


def keys_of(found: Any) -> Keys:
    """Returns keys from pairs of whether one is primary, and its columns."""
    pairs = list(found)
    primary: Sequence[tuple[str, ...]] = [names for is_primary, names in pairs if is_primary]
    unique = tuple(dict.fromkeys(names for is_primary, names in pairs if not is_primary))
    return Keys(primary[0] if primary else (), unique)


def _column(name: str, kind: str, arrow: pa.DataType) -> Column:
    own = quoted(name)
    text = f"CAST({own} AS VARCHAR)"
    if kind in ("FLOAT", "DOUBLE"):
        # A FLOAT of 1.1 is 1.100000023841858 as a DOUBLE, and 1.1 as text.
        value = own if kind == "DOUBLE" else f"TRY_CAST({text} AS DOUBLE)"
        return Column(name, kind, value, f"CASE WHEN NOT isfinite({own}) THEN {text} END")
    if kind in ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"):
        inside = f"{own} BETWEEN '{_FIRST}'::{kind} AND '{_LAST}'::{kind}"
        return Column(name, kind, own, f"CASE WHEN NOT ({inside}) THEN {text} END")
    if kind == "BLOB":
        return Column(name, kind, own, note="as Base64")
    if pa.types.is_boolean(arrow) or _is_exact(arrow):
        return Column(name, kind, own)
    return Column(name, kind, text, note="as text")


def _is_exact(arrow: pa.DataType) -> bool:
    """Returns whether all values of a type are the same in Arrow and in JSON."""
    if pa.types.is_integer(arrow) or pa.types.is_string(arrow) or pa.types.is_boolean(arrow):
        return True
    if pa.types.is_list(arrow):
        return _is_exact(arrow.value_type)
    if pa.types.is_struct(arrow):
        return all(_is_exact(one.type) for one in arrow)
    return False
