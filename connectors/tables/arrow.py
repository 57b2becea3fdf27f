"""ArrowConnector: Arrow files, streams and Feather; and Lance datasets, by their own changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from contextframe_beam.connectors.page import Page, Partition, items_of
from contextframe_beam.connectors.plain_secrets import without_credentials
from contextframe_beam.connectors.read.reader import PlannedRun
from contextframe_beam.connectors.tables.arrow_file import ArrowFormat
from contextframe_beam.connectors.tables.connector import TableConnector
from contextframe_beam.connectors.tables.lance_rows import LanceRows, Since, is_lance
from contextframe_beam.connectors.tables.table_format import Rows, TableFormat
from contextframe_beam.errors import ConfigError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from contextframe_beam.connectors.files.listing import Listing
    from contextframe_beam.connectors.tables.connector import TableOptions

_PIECE_BYTES = 8 << 20
_LOOKED_AT = 1000


class ArrowConnector(TableConnector):
    """Arrow IPC files and streams, Feather, and Lance datasets: each row is a document.

    A run over a Lance dataset keeps the version that it read. If the dataset has stable row ids,
    the next run reads only rows that were inserted, changed or deleted since; else it reads all
    rows, and recognises those that are stored.

    Args:
        path: A file, a folder, several files as in `notes/*.arrow`, or a Lance dataset.
        version: The version of a Lance dataset to read; the newest one by default.
        **options: As for any `TableConnector`.

    Raises:
        ConfigError: an argument makes no sense.
    """

    _format: ClassVar[TableFormat] = ArrowFormat()  # type: ignore[misc]

    def __init__(
        self,
        path: str | os.PathLike[str],
        version: int | None = None,
        **options: Unpack[TableOptions],
    ) -> None:
        super().__init__(path, **options)
        self.version = version
        self._lance: LanceRows | None = None
        if is_lance(path):
            uri = (
                str(self._files.root)
                if self._takes_endings
                else f"{self._files.root}/{self.pattern}"
            )
            self._lance = LanceRows(uri, version)
            self.path = without_credentials(uri)
            self._defaults = {"prefix": f"{self.name}:{self.path}#"}
        elif version is not None:
            raise ConfigError(f"version is {version}, and {self.path} is no Lance dataset")

    def authenticate(self) -> bool:
        """Verifies that the files can be listed, or that the dataset can be opened.

        Raises:
            ConnectorError: it is missing or not readable.
        """
        if self._lance is None:
            return super().authenticate()
        self._lance.opened()
        self.authenticated = True
        return True

    def access(self) -> list[str]:
        """Returns which files are read, or which version of a dataset."""
        if self._lance is None:
            return super().access()
        dataset = self._lance.opened()
        told = (
            "only what changed" if dataset.has_stable_row_ids else "all rows, as it has no row ids"
        )
        return [
            f"{self.path}: version {dataset.version}, {dataset.count_rows():,} rows",
            f"a later run reads {told}",
        ]

    def fields(self) -> dict[str, str] | None:
        """Returns the columns with their types."""
        if self._lance is None:
            return super().fields()
        return {field.name: str(field.type) for field in self._lance.opened().schema}

    def plan(self, run: PlannedRun) -> Iterator[Partition]:
        """Yields partitions of one block each, as any table's; or pieces and changes of a dataset.

        Args:
            run: What the run asks for, and what the plan says beside its partitions.

        Raises:
            ConfigError: a range of time is asked of a Lance dataset, which has versions.
        """
        if self._lance is None:
            yield from super().plan(run)
            return
        if run.since is not None or run.until is not None:
            raise ConfigError(
                f"{self.path} is a Lance dataset, which is read by version and not by time"
            )
        yield from self._plan_lance(self._lance, run)

    def _plan_lance(self, rows: LanceRows, run: PlannedRun) -> Iterator[Partition]:
        schema = rows.opened().schema
        problem = self._missing("", list(schema.names))
        if problem:
            raise ConfigError(f"{self.path}: {problem}")
        self._wanted_of("", {}).expression(schema)
        now, known = rows.now(), Since.of(run.resume_from)
        run.reached, run.narrowed = now.state(), ""
        by_changes, reason = rows.changed(known)
        if reason:
            self.logger.info("all rows of %s are read: %s", self.path, reason)
        params: dict[str, Any] = {"version": now.version}
        if not by_changes or known is None:
            for name, piece in rows.pieces(_PIECE_BYTES):
                content = [now.version, now.at]
                yield Partition(name, {**params, "piece": piece}, content=content)
            return
        run.narrowed = f"only what changed since version {known.version} was read"
        params["known"] = [known.version, known.at]
        if known.version == now.version:
            return
        yield Partition(f"rows gone since version {known.version}", params, content=now.at)
        for name, numbers in rows.changes(known):
            yield Partition(name, {**params, "fragments": numbers}, content=now.at)

    def read_part(self, partition: Partition, block: int) -> Iterator[Page]:
        """Yields the pages of a partition."""
        if self._lance is None:
            yield from super().read_part(partition, block)
            return
        params = partition.params
        rows = LanceRows(self._lance.uri, params["version"])
        wanted = self._wanted_of("", {})
        if "piece" in params:
            found = rows.rows(params["piece"], wanted)
        elif "fragments" in params:
            found = rows.changed_rows(Since(*params["known"]), params["fragments"], wanted)
        else:
            gone = rows.gone(Since(*params["known"]), self.mapper_of(), wanted, items_of)
            items = [{**item, self.GONE: True} for item in gone]
            yield Page(items, position=partition.id)
            return
        for one in found:
            yield self._lance_page(one)

    def _lance_page(self, rows: Rows) -> Page:
        where = ", filtered" if self._where is not None else ""
        place = f"{self.path}, {rows.place}{where}"
        return Page(table=rows.table, position=place, size=rows.size)

    def _nothing_found(self, listing: Listing | None = None) -> str:
        return "" if self._lance is not None else super()._nothing_found(listing)

    def _seen(self) -> Iterator[tuple[list[str], Callable[[], pa.Table | None]]]:
        if self._lance is None:
            yield from super()._seen()
            return
        dataset = self._lance.opened()
        yield list(dataset.schema.names), lambda: dataset.to_table(limit=_LOOKED_AT)
