"""The ranges of a relation's keys: how they are cut, and how one is asked for.

The database sorts and compares the keys itself, so that any type and any collation will do. A range
begins with its first key and ends before that of the next one, so each row is in exactly one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contextframe_beam.connectors.sql.dialect import Column, Dialect
from contextframe_beam.connectors.sql.session import Session

# A range costs a connection, so it is not too small; and all workers need some to the end.
_RANGES_WANTED = 32
_FEWEST_ROWS, _MOST_ROWS = 2_000, 100_000

#: The values of a key, each with its type: what `Dialect.literal` takes.
Bound = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Ranges:
    """How a relation is cut.

    Attributes:
        keys: The columns of the key; none for a relation that is read as a whole.
        bounds: The first key of each range but the first.
        nulls: Whether rows without a whole key are a range of their own, the last one.
    """

    keys: tuple[str, ...] = ()
    bounds: tuple[Bound, ...] = ()
    nulls: bool = False

    def __len__(self) -> int:
        return len(self.bounds) + 1 + self.nulls

    def where(self, index: int, dialect: Dialect) -> str:
        """Returns the condition for the rows of a range."""
        names = list(map(dialect.quote, self.keys))
        if self.nulls and index == len(self.bounds) + 1:
            return "(" + " OR ".join(f"{name} IS NULL" for name in names) + ")"
        found = [f"{name} IS NOT NULL" for name in names] if self.nulls else []
        if index > 0:
            found.append(_compared(names, self.bounds[index - 1], ">", dialect))
        if index < len(self.bounds):
            found.append(_compared(names, self.bounds[index], "<", dialect))
        return " AND ".join(found) or "1 = 1"

    def shown(self, index: int) -> str:
        """Returns a range for messages."""
        if self.nulls and index == len(self.bounds) + 1:
            return f"rows without {', '.join(self.keys)}"
        ends = []
        if index > 0:
            ends.append(f"from {_shown(self.bounds[index - 1])}")
        if index < len(self.bounds):
            ends.append(f"before {_shown(self.bounds[index])}")
        return f"{', '.join(self.keys)} {' '.join(ends)}" if ends else "all rows"


def rows_in_range(count: int) -> int:
    """Returns how many of `count` rows make a range."""
    return min(max(-(-count // _RANGES_WANTED), _FEWEST_ROWS), _MOST_ROWS)


def cut(
    session: Session,
    dialect: Dialect,
    rows: str,
    keys: Sequence[Column],
    where: str,
    step: int,
    nulls: bool,
) -> Ranges:
    """Cuts a relation into ranges of `step` rows: at each quantile of its keys.

    Args:
        session: A session.
        dialect: The database.
        rows: What stands after FROM.
        keys: The columns of the key.
        where: The condition for the rows that are read.
        step: How many rows a range has.
        nulls: Whether some rows have no key.

    Raises:
        ConnectorError: the database cannot sort by the key.
    """
    names = [dialect.quote(one.name) for one in keys]
    order = ", ".join(names)
    present = " AND ".join([f"({where})", *(f"{name} IS NOT NULL" for name in names)])
    values = [
        f"{dialect.text(name)}, {dialect.type_of(name, one)}"
        for name, one in zip(names, keys, strict=True)
    ]
    found = session.rows(
        f"SELECT {', '.join(values)} FROM (SELECT {order}, row_number() OVER (ORDER BY {order}) "
        f"AS contextframe_place FROM {rows} WHERE {present}) AS contextframe_keys "
        f"WHERE {dialect.remainder('contextframe_place - 1', step)} = 0 AND contextframe_place > 1 "
        "ORDER BY contextframe_place"
    )
    bounds = [
        tuple((str(row[at]), str(row[at + 1])) for at in range(0, len(row), 2)) for row in found
    ]
    # A key that many rows share would begin several ranges.
    return Ranges(tuple(one.name for one in keys), tuple(dict.fromkeys(bounds)), nulls)


def _compared(names: Sequence[str], bound: Bound, sign: str, dialect: Dialect) -> str:
    """Returns the condition that a key is at least (`>`), or less than (`<`), a bound."""
    (name, *others), (value, *rest) = names, bound
    literal = dialect.literal(*value)
    if not others:
        return f"{name} {'>=' if sign == '>' else '<'} {literal}"
    inner = _compared(others, tuple(rest), sign, dialect)
    # The first part lets an index of the first column serve.
    return f"({name} {sign}= {literal} AND ({name} {sign} {literal} OR {inner}))"


def _shown(bound: Bound) -> str:
    return ", ".join(text if len(text) <= 60 else f"{text[:60]}..." for text, _ in bound)
