"""Progress: how far the cursor of a relation has come, and which rows are new.

The database compares the values itself. We only move the last one back: by the lookback, because
rows may be committed late, and to the present, because a date in the future would hide all others.
A smaller value is always safe, since rows that are known already are recognised as unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from contextframe_beam.connectors.cursors import clamped_cursor, seconds_of
from contextframe_beam.connectors.sql.dialect import Column, Dialect
from contextframe_beam.connectors.sql.query import Relation
from contextframe_beam.connectors.sql.session import Session
from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.times import instant_of, parse, when, write

# As far as an incremental connector looks back.
_LOOKBACK = "10m"


class Progress:
    """The cursor of a relation.

    Args:
        session: A session.
        dialect: The database.
        relation: What is read.
        cursor: The name of the cursor; "" for none.
        columns: The relation's columns, by name.
    """

    def __init__(
        self,
        session: Session,
        dialect: Dialect,
        relation: Relation,
        cursor: str,
        columns: Mapping[str, Column],
    ) -> None:
        self._session = session
        self._dialect = dialect
        self._relation = relation
        self._cursor = cursor
        self._column = columns.get(cursor)

    def state(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the state after a run that reads up to now.

        Args:
            known: The state before it; it stays where no row has a cursor.
        """
        state: dict[str, Any] = {"cursor": self._cursor}
        if self._column is None:
            return {**state, "mark": self._dialect.mark(self._session)}
        newest = self._newest()
        if newest is None:
            return dict(known) or state
        text, kind = newest
        if self._dialect.is_time(kind):
            text = str(clamped_cursor(text, datetime.now(timezone.utc)))
        state |= {"reached": text, "type": kind}
        mark = self._dialect.open_mark(self._session, self._relation)
        return state if mark is None else {**state, "mark": mark}

    def since(self, known: Mapping[str, Any], lookback: str | None) -> str:
        """Returns the condition for rows that are new since a state; "" for all rows.

        Args:
            known: The state.
            lookback: How far it is moved back; by default as far as suits the type.
        """
        mark = known.get("mark")
        written = "" if mark is None else self._dialect.since_mark(int(mark))
        if self._column is None:
            return written
        text, kind = known.get("reached"), known.get("type")
        if text is None or kind is None:
            return ""
        name = self._dialect.quote(self._cursor)
        literal = self._dialect.literal(
            self._looked_back(str(text), str(kind), lookback), str(kind)
        )
        # Rows with the last value are read again, since others may have got it meanwhile. A row
        # without a value cannot say that it is old.
        found = [f"{name} >= {literal}", f"{name} IS NULL"]
        return " OR ".join([*found, *([written] if written else [])])

    def between(self, since: str | None, until: str | None) -> str:
        """Returns the condition for a range of time; "" for all rows.

        Raises:
            ConfigError: there is no cursor, or it is not a time.
        """
        if since is None and until is None:
            return ""
        if self._column is None:
            raise ConfigError("a range of time needs cursor: the column with the time of a row")
        newest = self._newest()
        if newest is None:
            return "1 = 0"
        text, kind = newest
        time = parse(text)
        if time is None or not self._dialect.is_time(kind):
            raise ConfigError(
                f"a range of time needs a cursor that is a time; {self._cursor} is of the type "
                f"{kind}, as in {text!r:.60}"
            )
        name, found = self._dialect.quote(self._cursor), []
        for sign, end in ((">=", when(since or "")), ("<", when(until or ""))):
            if end is not None:
                # In the form of the column, because the database may compare them as texts.
                value = write(instant_of(end), time.form, up=sign == "<")
                found.append(f"{name} {sign} {self._dialect.literal(str(value), kind)}")
        return " AND ".join(found)

    def _newest(self) -> tuple[str, str] | None:
        """Returns the greatest value as text, and its type."""
        assert self._column is not None
        dialect, name = self._dialect, self._dialect.quote(self._cursor)
        found = self._session.rows(
            f"SELECT {dialect.text(name)}, {dialect.type_of(name, self._column)} "
            f"FROM {dialect.rows(self._relation)} WHERE {name} IS NOT NULL"
            f"{dialect.counts(name, self._column)} ORDER BY {name} DESC LIMIT 1"
        )
        return (str(found[0][0]), str(found[0][1])) if found else None

    def _looked_back(self, text: str, kind: str, lookback: str | None) -> str:
        if self._dialect.is_time(kind):
            time = parse(text)
            if time is None:
                return text
            return str(write(time.at - int(seconds_back(lookback or _LOOKBACK)), time.form))
        try:
            return text if lookback is None else str(int(text) - int(seconds_back(lookback)))
        except ValueError:
            return text


def seconds_back(lookback: str) -> float:
    """Returns a lookback as a number.

    Raises:
        ConfigError: it is neither a duration nor a number.
    """
    try:
        return seconds_of(lookback)
    except ValueError:
        raise ConfigError(
            f"lookback is {lookback!r}; give a duration such as 90s, 15m or 1d, or a number for a "
            "cursor that is a number"
        ) from None
