"""A dataset's documents as tables of Arrow, pandas and Polars, and how notebooks show it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from lance import LanceDataset

from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.html import definition_list, table
from contextframe_beam.store.filters import Where, projection_of, sql_of, understood
from contextframe_beam.store.state import contents_of, documents_in, read_embedder, read_states

if TYPE_CHECKING:
    import pandas
    import polars

_RUNS_SHOWN = 5


class DocumentTables(ABC):
    """What a dataset of frames offers to notebooks and to programs that work on tables."""

    @property
    @abstractmethod
    def lance(self) -> LanceDataset:
        """The version of the dataset."""

    def to_arrow(self, columns: Sequence[str] | None = None, where: Where = None) -> pa.Table:
        """Returns the documents as an Arrow table, without their chunks and without state rows.

        Args:
            columns: Names of columns, also of own fields; all by default.
            where: As in `search`.

        Raises:
            ConfigError: the dataset has no such column, or the filter cannot be used.
        """
        dataset = self.lance
        wanted = None if columns is None else projection_of(columns, dataset.schema)
        parts = [documents_in(dataset), sql_of(where, dataset.schema)]
        condition = " AND ".join(f"({one})" for one in parts if one)
        with understood(dataset, where):
            found: pa.Table = dataset.to_table(
                columns=wanted, filter=condition or None, blob_handling="all_binary"
            )
        return found

    def to_pandas(
        self, columns: Sequence[str] | None = None, where: Where = None
    ) -> pandas.DataFrame:
        """Returns the documents as a data frame of pandas; the arguments are those of `to_arrow`.

        Raises:
            ConfigError: pandas is not installed, or as in `to_arrow`.
        """
        _library("pandas")
        frame: pandas.DataFrame = self.to_arrow(columns, where).to_pandas()
        return frame

    def to_polars(
        self, columns: Sequence[str] | None = None, where: Where = None
    ) -> polars.DataFrame:
        """Returns the documents as a data frame of Polars; the arguments are those of `to_arrow`.

        Raises:
            ConfigError: Polars is not installed, or as in `to_arrow`.
        """
        frame: polars.DataFrame = _library("polars").from_arrow(self.to_arrow(columns, where))
        return frame

    def _repr_html_(self) -> str:
        dataset = self.lance
        embedder = read_embedder(dataset)
        told = {
            "Dataset": dataset.uri,
            "Version": f"{dataset.version:,}",
            "Contents": str(contents_of(dataset)),
            "Vectors": f"by {embedder.spec}" if embedder else "",
        }
        rows = [
            (state.name, run.at, run.mode, run.rows_written, run.rows_deleted, run.failed)
            for state in read_states(dataset).values()
            for run in state.runs
        ]
        newest = sorted(rows, key=lambda row: row[1], reverse=True)[:_RUNS_SHOWN]
        columns = ("Connector", "Committed", "Mode", "Written", "Deleted", "Failed")
        return definition_list(told) + (table(columns, newest) if newest else "")


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"{name} is not installed; run: pip install {name}, or use to_arrow()"
        ) from error
