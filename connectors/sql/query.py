"""Relation: what is read of a database, a table or a user's query, and the SQL around it.

A name is quoted wherever it stands in a statement, so that it can be no part of one. A query is the
user's own; it stands in parentheses, so that a database reads from it and does nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from contextframe_beam.errors import ConfigError

#: What the rows are called in our statements.
ROWS = "contextframe_rows"

# What may hide a semicolon: texts, quoted names, dollar quotes of PostgreSQL, comments.
_TOKEN = re.compile(
    r"""(?P<text>[eE]'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\[[^\[\]\n;]*\])"""
    r"""|(?P<dollar>\$(?P<tag>[A-Za-z_]*)\$.*?\$(?P=tag)\$)"""
    r"""|(?P<comment>--[^\n]*|/\*.*?\*/)|(?P<space>\s+)|(?P<end>;)|(?P<other>.)""",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Relation:
    """What is read: one of a table and a query.

    Attributes:
        table: The name of a table or a view, as in `notes`, `app.notes` or `app."Notes"`.
        query: A query.
    """

    table: str = ""
    query: str = ""

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the table's name: its schema, if given, and the name itself."""
        return parts_of(self.table)

    def __str__(self) -> str:
        return self.table or "the query"


def relation_of(table: str | None, query: str | None) -> Relation:
    """Returns what the user wants to read.

    Raises:
        ConfigError: it is neither a table nor a query, or both, or the query is no single one.
    """
    if (table is None) == (query is None):
        given = "both were given" if table is not None else "none was given"
        raise ConfigError(f"give either table or query; {given}")
    if table is not None:
        parts_of(table)
        return Relation(table=table.strip())
    return Relation(query=single(query or ""))


def single(query: str) -> str:
    """Returns a query without what may follow it: a semicolon, comments, empty lines.

    Raises:
        ConfigError: it is empty, or several statements.
    """
    end = stop = 0
    for token in _TOKEN.finditer(query):
        kind = token.lastgroup if token.lastgroup != "tag" else "dollar"
        if kind in ("comment", "space"):
            continue
        if kind == "end":
            stop = stop or token.start() + 1
            continue
        if stop:
            raise ConfigError(
                "query holds several statements, divided by a semicolon; give one that selects"
            )
        end = token.end()
    if not end:
        raise ConfigError("query is empty; give one that selects, such as SELECT * FROM notes")
    return query[:end]


def quoted(name: str) -> str:
    """Returns a name as an identifier of SQL, whatever its characters."""
    return '"' + name.replace('"', '""') + '"'


def text_literal(text: str) -> str:
    """Returns a text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def parts_of(table: str) -> tuple[str, ...]:
    """Returns the parts of a table's name; a part with a dot stands in double quotes.

    Raises:
        ConfigError: it is not a name.
    """
    found: list[str] = []
    rest = table.strip()
    pattern = re.compile(r'(?:"((?:[^"]|"")+)"|([^".]+))(\.|\Z)')
    at = 0
    while at < len(rest) or not found:
        match = pattern.match(rest, at)
        if match is None or "\0" in rest or (match[3] and match.end() == len(rest)):
            raise ConfigError(
                f"table is {table!r}, which is not the name of one; give it as notes or "
                'app.notes, and a part that has a dot in double quotes: app."my.notes"'
            )
        found.append(match[1].replace('""', '"') if match[1] is not None else match[2])
        at = match.end()
    return tuple(found)
