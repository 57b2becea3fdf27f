"""How SQLite is read: each value in the class that it is stored in, whatever its column declares.

A column of SQLite may hold numbers, texts and blobs at once. The values of one range mostly are of
one class; where they are not, each is read as text with a letter for its class before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from contextframe_beam.connectors.sql.dialect import Column, Dialect, Keys
from contextframe_beam.connectors.sql.duck import keys_of
from contextframe_beam.connectors.sql.query import Relation, quoted, text_literal
from contextframe_beam.connectors.sql.session import Session

_CLASSES = ("integer", "real", "text", "blob")
_BATCH_BYTES = 8 << 20
_MOST_ROWS, _FEWEST_ROWS = 16_384, 16


class LiteDialect(Dialect):
    """SQLite."""

    text_type = "TEXT"

    def begin(self, snapshot: str = "") -> tuple[str, ...]:
        return ("PRAGMA busy_timeout = 10000",)

    def columns(self, session: Session, relation: Relation) -> list[Column]:
        schema = session.schema(f"SELECT * FROM {self.rows(relation)} LIMIT 0")
        declared: dict[str, str] = {}
        if relation.table:
            name = text_literal(relation.parts[-1])
            declared = dict(session.rows(f"SELECT name, type FROM pragma_table_xinfo({name})"))
        return [
            Column(one.name, (declared.get(one.name) or "any").lower(), quoted(one.name))
            for one in schema
        ]

    def keys(self, session: Session, relation: Relation) -> Keys:
        if relation.query:
            return Keys()
        name = text_literal(relation.parts[-1])
        primary = session.rows(f"SELECT name FROM pragma_table_info({name}) WHERE pk ORDER BY pk")
        found = session.rows(
            f"SELECT i.name, c.name FROM pragma_index_list({name}) i, pragma_index_info(i.name) c "
            "WHERE i.\"unique\" AND i.origin <> 'pk' AND NOT i.partial AND c.name IS NOT NULL "
            "ORDER BY i.seq, c.seqno"
        )
        unique: dict[str, list[str]] = {}
        for index, column in found:
            unique.setdefault(index, []).append(column)
        pairs = [(True, tuple(one for (one,) in primary))] if primary else []
        return keys_of([*pairs, *((False, tuple(names)) for names in unique.values())])

    def tables(self, session: Session) -> list[str]:
        found = session.rows(
            "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') "
            "AND name NOT LIKE 'sqlite~_%' ESCAPE '~' ORDER BY 1 LIMIT 500"
        )
        return [name for (name,) in found]

    def read(
        self, session: Session, columns: Sequence[Column], rows: str, where: str
    ) -> tuple[list[Column], Mapping[str, str]]:
        if not columns:
            return [], {}
        flags = [
            f"coalesce(max(typeof({quoted(one.name)}) = '{kind}'), 0)"
            for one in columns
            for kind in _CLASSES
        ]
        size = " + ".join(f"coalesce(octet_length({quoted(one.name)}), 0)" for one in columns)
        found = session.rows(f"SELECT avg({size}), {', '.join(flags)} FROM {rows} WHERE {where}")[0]
        count = round(_BATCH_BYTES / max(found[0] or 0, 1))
        chosen = []
        for place, column in enumerate(columns):
            held = found[1 + 4 * place : 5 + 4 * place]
            chosen.append(_mixed(column) if sum(held) > 1 else _single(column, held))
        wanted = min(max(count, _FEWEST_ROWS), _MOST_ROWS)
        return chosen, {"adbc.sqlite.query.batch_rows": str(wanted)}

    def text(self, expression: str) -> str:
        return (
            f"CASE {self._kind(expression)} WHEN 'text' THEN {expression} WHEN 'real' THEN "
            f"quote({expression}) WHEN 'integer' THEN CAST({expression} AS TEXT) "
            f"ELSE hex(CAST({expression} AS BLOB)) END"
        )

    def type_of(self, expression: str, column: Column) -> str:
        return self._kind(expression)

    def literal(self, text: str, kind: str) -> str:
        if kind == "text":
            # A literal has no affinity, as a cast would: a number beside it stays a number.
            return text_literal(text)
        return {"blob": f"X'{text}'", "odd text": f"CAST(X'{text}' AS TEXT)"}.get(kind, text)

    def _kind(self, expression: str) -> str:
        # A literal would end at the character 0.
        ends = f"instr(CAST({expression} AS BLOB), X'00')"
        odd = f"typeof({expression}) = 'text' AND {ends}"
        return f"CASE WHEN {odd} THEN 'odd text' ELSE typeof({expression}) END"


def _single(column: Column, held: Sequence[int]) -> Column:
    # Of a column with only nulls, the driver would choose a type by itself.
    is_empty = not sum(held)
    return Column(column.name, column.type, "CAST(NULL AS TEXT)" if is_empty else column.value)


def _mixed(column: Column) -> Column:
    own = column.value
    tagged = (
        f"CASE typeof({own}) WHEN 'integer' THEN 'i' || {own} WHEN 'real' THEN 'r' || quote({own}) "
        f"WHEN 'text' THEN 't' || {own} WHEN 'blob' THEN 'b' || hex({own}) END"
    )
    return Column(column.name, column.type, "CAST(NULL AS TEXT)", tagged, "tagged")
