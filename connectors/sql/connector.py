"""SqlConnector: a table or a query of a database, read as columns in ranges of its key.

A run plans in one transaction: which columns there are, how far the cursor has come, where the
ranges begin. Workers then read the ranges, each in a connection of its own. On PostgreSQL all of
them read the snapshot of the plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from contextframe_beam.connectors.identity import jsonable
from contextframe_beam.connectors.kinds import PartsConnector
from contextframe_beam.connectors.mapped import MappedConnector
from contextframe_beam.connectors.page import WHOLE, Page, Partition
from contextframe_beam.connectors.read import held
from contextframe_beam.connectors.read.reader import PlannedRun
from contextframe_beam.connectors.sql.address import Address, address_of, refuse_password
from contextframe_beam.connectors.sql.dialect import BigQueryDialect, Column, Dialect, Keys
from contextframe_beam.connectors.sql.duck import DuckDialect
from contextframe_beam.connectors.sql.lite import LiteDialect
from contextframe_beam.connectors.sql.postgres import PostgresDialect
from contextframe_beam.connectors.sql.progress import Progress, seconds_back
from contextframe_beam.connectors.sql.query import relation_of
from contextframe_beam.connectors.sql.ranges import Ranges, cut, rows_in_range
from contextframe_beam.connectors.sql.rows import pages_of, selected
from contextframe_beam.connectors.sql.session import Session
from contextframe_beam.connectors.tables.columns import require_columns
from contextframe_beam.errors import ConfigError, ConnectorError, nearest

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from contextframe_beam.connectors.mapped import MappingOptions
    from contextframe_beam.connectors.record_mapper import RecordMapper

_DIALECTS: dict[str, type[Dialect]] = {
    "postgresql": PostgresDialect,
    "sqlite": LiteDialect,
    "duckdb": DuckDialect,
    "bigquery": BigQueryDialect,
}
_SHOWN = 20


class SqlConnector(MappedConnector, PartsConnector):
    """Rows of a table, a view or a query of a database; each row is a document.

    The database is PostgreSQL, SQLite, DuckDB, or any other with an ADBC driver that is installed.
    A unique_id is the prefix and the key: `notes:42` for a table, `sql:42` for a query, and
    `prefix` changes what stands before the key.

    Args:
        uri: The database: `postgresql://user@host/db`, `sqlite:///notes.db`,
            `duckdb:///notes.duckdb`, or the form of another driver. With a password it is a
            reference: `env:DB`.
        table: The table or view, as in `notes` or `app.notes`.
        query: A query in place of a table; it gives a `key`.
        key: The column that identifies a row, or several. By default the primary key of the table.
        cursor: A column that grows when a row changes: a time or a number. A later run then reads
            only rows from the last value on. `xmin` needs no column on PostgreSQL.
        deleted_column: A column that says that a row is deleted: a flag, or the time when it was.
            The document is deleted then.
        lookback: How far before the last value of the cursor the next run begins, because rows may
            be committed late: a duration such as `10m`, or a number for cursors that are numbers.
            By default ten minutes for times and 0 for others.
        **fields: Which column is the text, the title, and so on, as for any `MappedConnector`.

    Raises:
        ConfigError: an argument makes no sense.
    """

    identity_args = ("table", "query")
    by_time = True
    plain_arguments = frozenset({"key"})

    def __init__(
        self,
        uri: str,
        table: str | None = None,
        query: str | None = None,
        key: Sequence[str] | None = None,
        cursor: str | None = None,
        deleted_column: str | None = None,
        lookback: str | None = None,
        **fields: Unpack[MappingOptions],
    ) -> None:
        super().__init__(**fields)
        self.uri = uri
        self.relation = relation_of(table, query)
        self.table = table
        self.query = query
        self.key = [key] if isinstance(key, str) else list(key or ())
        self.cursor = cursor
        self.deleted_column = deleted_column
        self.lookback = lookback
        if lookback is not None:
            seconds_back(lookback)
        refuse_password(uri)
        self._found = Keys()

    @cached_property
    def address(self) -> Address:
        """The database."""
        uri = vars(self).get("_references", {}).get("uri", vars(self).get("uri"))
        return address_of(uri)

    def authenticate(self) -> bool:
        """Connects, and looks for the table and its columns.

        Raises:
            ConnectorError: the database cannot be reached, or refuses.
            ConfigError: there is no such table or column, or nothing identifies a row.
        """
        with self._session() as session:
            self._columns_of(session)
        self.authenticated = True
        return True

    def access(self) -> list[str]:
        """Returns which database is read, and what is missing for a document to be replaced."""
        problem = self._unsuitable("upsert")
        return [f"{self.relation} in {self.address.shown}", *([problem] if problem else [])]

    def fields(self) -> dict[str, str]:
        """Returns the columns with their types, and how they are read where not as they are."""
        with self._session() as session:
            columns, _ = self._columns_of(session)
        return {one.name: f"{one.type}, {one.note}" if one.note else one.type for one in columns}

    def mapper_of(self, stream: str = "", **defaults: Any) -> RecordMapper:
        """Returns what maps the rows; the key is the id, unless the user says otherwise.

        Args:
            stream: The stream, which a mapping file may name; by default the table.
            **defaults: Keys of a mapping that hold where the user states nothing else.

        Raises:
            ConfigError: the mapping file has streams, and this one is not among them.
        """
        prefix = f"{self.table}:" if self.table else "sql:"
        own = {"id": self._keys or None, "prefix": prefix}
        return super().mapper_of(stream or self._stream, **{**own, **defaults})

    def source_identity(self, sync_kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns the class, the database without user and password, and the table or query."""
        identity = super().source_identity(sync_kwargs)
        what = {"table": self.table} if self.table else {"query": self.relation.query}
        what |= {key: value for key, value in self._stated.items() if key in ("id", "prefix")}
        identity["arguments"] = jsonable({"database": self.address.shown, **what})
        return identity

    def sync_documents_stream(self) -> Iterator[dict[str, Any]]:
        """Yields all rows, one after the other.

        Raises:
            ConnectorError: the database cannot be read.
        """
        self.ensure_authenticated()
        with held.released():
            yield from super().sync_documents_stream()

    @property
    def _dialect(self) -> Dialect:
        return _DIALECTS.get(self.address.kind, Dialect)()

    @property
    def _stream(self) -> str:
        """The stream of a mapping file that describes the rows."""
        if not self._is_streams:
            return ""
        return self.relation.parts[-1] if self.table else "query"

    @cached_property
    def _keys(self) -> list[str]:
        """The key, which a worker looks up that has not planned."""
        if self.key:
            return self.key
        with self._session() as session:
            return self._columns_of(session)[1]

    def _session(self, name: str = "", patient: bool = False) -> Session:
        return Session(self.address, self._dialect.begin(name), patient)

    def _importing(self, name: str, patient: bool = False) -> Session | None:
        """Returns a session that reads a snapshot; None if there is none, or it is not there."""
        if not name:
            return None
        try:
            return self._session(name, patient)
        except ConnectorError as error:
            if "snapshot" not in str(error):
                raise
        return None

    def _columns_of(self, session: Session) -> tuple[list[Column], list[str]]:
        """Returns the columns, and which of them are the key.

        Raises:
            ConfigError: there is no such table or column, or nothing identifies a row.
        """
        dialect, relation = self._dialect, self.relation
        try:
            columns = dialect.columns(session, relation)
        except ConnectorError as error:
            session.undo()
            if not relation.table:
                raise ConfigError(f"the query cannot be read: {error}") from None
            with self._session() as other:
                known = dialect.tables(other)
            if not known or relation.table in known:
                raise
            hint = nearest(relation.table, known) or f"; there are {', '.join(known[:_SHOWN])}"
            raise ConfigError(f"there is no table {relation.table!r}{hint} ({error})") from None
        names = [one.name for one in columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(
                f"{relation} has several columns named {', '.join(twice)}; give each its own name "
                "with AS"
            )
        wanted: dict[str, list[str | None]] = {
            "key": list(self.key),
            "cursor": [self.cursor],
            "deleted_column": [self.deleted_column],
        }
        for argument, given in wanted.items():
            for name in given:
                if name is None or name in names or (argument == "cursor" and self._by_mark(names)):
                    continue
                same = [one for one in names if one.lower() == name.lower()]
                hint = f"; did you mean {same[0]}?" if same else nearest(name, names)
                raise ConfigError(
                    f"{argument} is {name!r}, and {relation} has no such column{hint} "
                    f"(there are: {', '.join(names)})"
                )
        self._found = dialect.keys(session, relation)
        keys = self.key or list(self._found.primary)
        vars(self)["_keys"] = keys
        problem = require_columns(self.mapper_of(), {}, names)
        if problem:
            raise ConfigError(f"{relation}: {problem}")
        return columns, keys

    def _by_mark(self, names: Sequence[str]) -> bool:
        """Returns whether the cursor is what the database itself keeps with each row."""
        mark = self._dialect.row_mark
        return bool(mark and self.table and self.cursor == mark and mark not in names)

    def _needed(self, columns: Sequence[Column]) -> list[Column]:
        """Returns the columns that the mapping looks at."""
        unread = {*self.unmapped([one.name for one in columns])}
        unread -= {*self._keys, self.deleted_column}
        return [one for one in columns if one.name not in unread]

    def _unsuitable(self, mode: str) -> str:
        """Returns why a run in a mode makes no sense, and what to do; "" if it does."""
        if mode not in ("upsert", "mirror") or "id" in self._stated or self._is_streams:
            return ""
        if self._keys:
            return ""
        if self.query:
            told = "name the column of the query that identifies a row with key=..."
        else:
            unique = " or ".join(",".join(one) for one in self._found.unique)
            told = (
                f"name it with key=...; these are unique: {unique}"
                if unique
                else (
                    "no column of it is declared unique; name one that is, or several that are "
                    "together, with key=..."
                )
            )
        return (
            f"{self.relation} has no primary key, so {mode} cannot tell which document a row "
            f'replaces: {told}. Or add all rows with mode="append"'
        )

    def plan(self, run: PlannedRun) -> Iterator[Partition]:
        """Yields one partition, with a block for each range of keys.

        Args:
            run: What the run asks for, and what the plan says beside its partitions.
        """
        dialect = self._dialect
        # The transaction that stays open reads no table, so that it is in nobody's way.
        holder = self._session()
        exported = dialect.export(holder)
        keeps = False
        session = self._importing(exported)
        if session is None:
            # What could not be exported may have ended the transaction.
            holder.close()
            session, exported = self._session(), ""
        try:
            params, ranges = self._planned(session, run)
            if exported and len(ranges) > 1:
                held.hold(holder)
                keeps = True
            elif len(ranges) > 1:
                self.logger.info(
                    "%s: each of %d ranges is read as the database is at that time",
                    self.name,
                    len(ranges),
                )
            params["snapshot"] = exported if keeps else ""
            yield Partition(WHOLE, params, blocks=len(ranges))
        finally:
            session.close()
            if not keeps:
                holder.close()

    def _planned(self, session: Session, run: PlannedRun) -> tuple[dict[str, Any], Ranges]:
        """Returns what is read of which rows, and the ranges that they are cut into."""
        dialect, rows = self._dialect, self._dialect.rows(self.relation)
        columns, keys = self._columns_of(session)
        by_name = {one.name: one for one in columns}
        progress = Progress(session, dialect, self.relation, self.cursor or "", by_name)
        known = dict(run.resume_from.get(WHOLE) or {})
        run.narrowed = ""
        where = progress.between(run.since, run.until)
        if not where and self.cursor and known.get("cursor") == self.cursor:
            where = progress.since(known, self.lookback)
            if where:
                run.narrowed = f"only rows were read whose {self.cursor} is new"
        where = where or "1 = 1"
        if self.cursor:
            run.reached = {WHOLE: progress.state(known)}
        nulls = " OR ".join(f"{dialect.quote(name)} IS NULL" for name in keys) or "1 = 0"
        count, without = session.rows(
            f"SELECT count(*), coalesce(sum(CASE WHEN {nulls} THEN 1 ELSE 0 END), 0) "
            f"FROM {rows} WHERE {where}"
        )[0]
        step = rows_in_range(count)
        ranges = Ranges()
        if keys and count > step:
            key_columns = [by_name[name] for name in keys]
            ranges = cut(session, dialect, rows, key_columns, where, step, bool(int(without)))
        return {"columns": self._needed(columns), "ranges": ranges, "where": where}, ranges

    def read_part(self, partition: Partition, block: int) -> Iterator[Page]:
        """Yields the pages of one range of keys."""
        dialect, params = self._dialect, partition.params
        ranges: Ranges = params["ranges"]
        where = f"({params['where']}) AND ({ranges.where(block, dialect)})"
        rows = dialect.rows(self.relation)
        session = self._importing(params["snapshot"], patient=True)
        partial = ""
        if session is None and params["snapshot"]:
            # The process that held it has ended, or a limit of the server ended its transaction.
            partial = (
                "the snapshot that the run began with is gone, so rows that moved meanwhile may be "
                "missing; run again"
            )
        with session or self._session(patient=True) as session:
            columns, options = dialect.read(session, params["columns"], rows, where)
            statement = f"SELECT {selected(columns)} FROM {rows} WHERE {where}"
            batches = session.batches(statement, options)
            place = ranges.shown(block)
            for page in pages_of(batches, columns, self.deleted_column or ""):
                page.position = place
                page.size = page.table.nbytes if page.table is not None else 0
                yield page
            yield Page([], position=place, partial=partial)
