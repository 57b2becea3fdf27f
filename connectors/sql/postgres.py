"""How PostgreSQL is read: through COPY, in one snapshot for all ranges.

Times are as they are in Arrow, or text where they are infinite or before the year 1. Types that
Arrow lacks are what PostgreSQL itself prints of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from contextframe_beam.connectors.sql.dialect import Column, Dialect, Keys
from contextframe_beam.connectors.sql.duck import keys_of
from contextframe_beam.connectors.sql.query import ROWS, Relation, quoted, text_literal
from contextframe_beam.connectors.sql.session import Session
from contextframe_beam.errors import ConnectorError

_EXACT = frozenset({"bool", "int2", "int4", "int8", "text", "varchar", "bpchar", "name", "char"})
_EXACT_ARRAYS = frozenset(f"_{one}" for one in _EXACT - {"char"})
_TIMES = {
    "date": ("'0001-01-01'::date", "'9999-12-31'::date"),
    "timestamp": ("'0001-01-01'::timestamp", "'9999-12-31 23:59:59.999999'::timestamp"),
    "timestamptz": (
        "'0001-01-01 00:00:00+00'::timestamptz",
        "'9999-12-31 23:59:59.999999+00'::timestamptz",
    ),
}
# What a batch holds; the driver's own default is twice as much.
_BATCH_BYTES = 4 << 20


class PostgresDialect(Dialect):
    """PostgreSQL, and what speaks its protocol."""

    times = ("date", "timestamp")
    text_type = "text"
    row_mark = "xmin"

    def begin(self, snapshot: str = "") -> tuple[str, ...]:
        first = ["SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"]
        if snapshot:
            first.append(f"SET TRANSACTION SNAPSHOT {text_literal(snapshot)}")
        # Values have the same texts whatever a user, a database or a server prefers.
        return (
            *first,
            "SET LOCAL TimeZone = 'UTC'",
            "SET LOCAL DateStyle = 'ISO'",
            "SET LOCAL IntervalStyle = 'postgres'",
            "SET LOCAL extra_float_digits = 1",
            "SET LOCAL bytea_output = 'hex'",
            "SET LOCAL standard_conforming_strings = on",
        )

    def export(self, session: Session) -> str:
        with suppress(ConnectorError):  # a replica may refuse, or another server not know it
            return str(session.rows("SELECT pg_export_snapshot()")[0][0])
        return ""

    def columns(self, session: Session, relation: Relation) -> list[Column]:
        schema = session.schema(f"SELECT * FROM {self.rows(relation)} WHERE false")
        return [
            _column(one.name, (one.metadata or {}).get(b"POSTGRESQL:type", b"").decode())
            for one in schema
        ]

    def keys(self, session: Session, relation: Relation) -> Keys:
        if relation.query:
            return Keys()
        found = session.rows(
            "SELECT i.indexrelid::text, i.indisprimary, a.attname FROM pg_index i "
            "CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(number, place) "
            "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number "
            f"WHERE i.indrelid = {_name(relation)}::regclass AND i.indisunique AND i.indisvalid "
            "AND i.indpred IS NULL AND i.indexprs IS NULL AND k.place <= i.indnkeyatts "
            "ORDER BY i.indisprimary DESC, i.indexrelid, k.place"
        )
        indexes: dict[str, tuple[bool, list[str]]] = {}
        for index, is_primary, column in found:
            indexes.setdefault(index, (bool(is_primary), []))[1].append(str(column))
        return keys_of((is_primary, tuple(names)) for is_primary, names in indexes.values())

    def tables(self, session: Session) -> list[str]:
        found = session.rows(
            "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema "
            "NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2 LIMIT 500"
        )
        return [name if schema == "public" else f"{schema}.{name}" for schema, name in found]

    def read(
        self, session: Session, columns: Sequence[Column], rows: str, where: str
    ) -> tuple[list[Column], Mapping[str, str]]:
        return list(columns), {"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)}

    def type_of(self, expression: str, column: Column) -> str:
        # With its schema, where that is not on the search path.
        return f"pg_typeof({expression})::text"

    def counts(self, expression: str, column: Column) -> str:
        if column.type in _TIMES:
            return f" AND isfinite({expression})"
        if column.type in ("numeric", "float4", "float8"):
            return f" AND {expression} NOT IN ('NaN', 'Infinity')"
        return ""

    def mark(self, session: Session) -> int:
        return int(session.rows("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")[0][0])

    def open_mark(self, session: Session, relation: Relation) -> int | None:
        if relation.query:
            return None
        name = f"{_name(relation)}::regclass"
        # Rows of a view do not say by which transaction they were written.
        # One that ended after the snapshot was taken may have written too, so it counts. One that
        # has not touched the table will get later values.
        found = session.rows(
            f"""
            WITH open AS (
                SELECT x::text::bigint AS x FROM pg_snapshot_xip(pg_current_snapshot()) AS x
            ), held AS (
                SELECT virtualtransaction AS v, transactionid::text::bigint AS x FROM pg_locks
                WHERE locktype = 'transactionid' AND mode = 'ExclusiveLock' AND granted
            ), writers AS (
                SELECT virtualtransaction AS v FROM pg_locks
                WHERE mode = 'RowExclusiveLock' AND granted AND relation IN (
                    SELECT {name}::oid UNION SELECT relid::oid FROM pg_partition_tree({name})
                )
            )
            SELECT min(open.x)::text FROM open LEFT JOIN held ON held.x = open.x % 4294967296
            WHERE (held.v IS NULL OR held.v IN (SELECT v FROM writers))
            AND (SELECT relkind IN ('r', 'p') FROM pg_class WHERE oid = {name})
            """
        )
        return None if found[0][0] is None else int(found[0][0])

    def since_mark(self, mark: int) -> str:
        # The number of a transaction has 32 bits in a row; its age tells the others.
        now = "pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
        return f"{now} - age({ROWS}.xmin) >= {int(mark)}"


def _name(relation: Relation) -> str:
    return text_literal(".".join(map(quoted, relation.parts)))


def _column(name: str, kind: str) -> Column:
    own = quoted(name)
    text = f"{own}::text"
    if kind in _EXACT:
        return Column(name, kind, own)
    if kind == "bytea":
        return Column(name, kind, own, note="as Base64")
    if kind in _TIMES:
        first, last = _TIMES[kind]
        return Column(
            name, kind, own, f"CASE WHEN {own} < {first} OR {own} > {last} THEN {text} END"
        )
    if kind in ("float4", "float8"):
        # A float4 of 1.1 is 1.100000023841858 as a float8, and 1.1 as text.
        value = own if kind == "float8" else f"{text}::float8"
        odd = f"CASE WHEN {own} IN ('NaN', 'Infinity', '-Infinity') THEN {text} END"
        return Column(name, kind, value, odd)
    if kind == "oid":
        return Column(name, kind, f"{own}::int8")
    if kind[:1] == "_":
        # The driver joins the rows of an array of arrays.
        array, note = (own, "") if kind in _EXACT_ARRAYS else (f"{own}::text[]", "as list of text")
        odd = f"CASE WHEN array_ndims({own}) > 1 THEN to_json({array})::text END"
        return Column(name, f"{kind[1:]}[]", array, odd, "json", note)
    return Column(name, kind, text, note="as text")
