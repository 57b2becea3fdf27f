"""What a user asks a dataset: filters as SQL, limits, and results with their scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from contextframe_beam.encoding import decode_rows
from contextframe_beam.errors import ConfigError
from contextframe_beam.fragments import first_line
from contextframe_beam.record import FrameRecord

#: A filter: SQL over the columns, or the values that columns must have.
Where = str | Mapping[str, Any] | None


def sql_of(where: Where, columns: Sequence[str]) -> str:
    """Returns a filter as SQL, empty when there is none.

    Raises:
        ConfigError: it names a column that is not among `columns`, or holds what SQL cannot.
    """
    if where is None or isinstance(where, str):
        return _unicode(where or "")
    check_columns(list(where), columns)
    return " AND ".join(
        f"{name} IS NULL" if value is None else f"{name} = {sql_literal(value)}"
        for name, value in where.items()
    )


def sql_literal(value: Any) -> str:
    """Returns a value as SQL, quotes doubled.

    Raises:
        ConfigError: SQL has no such value.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    if isinstance(value, str):
        return "'" + _unicode(value).replace("'", "''") + "'"
    raise ConfigError(
        f"a filter cannot compare with {value!r:.80}; give text, a number, a bool or None, "
        "or write the filter as SQL"
    )


def check_columns(names: Sequence[str], columns: Sequence[str]) -> None:
    """Raises ConfigError when one of `names` is not among a dataset's columns."""
    unknown = [str(name) for name in names if name not in columns]
    if unknown:
        raise ConfigError(
            f"the dataset has no column {', '.join(unknown)}; it has {', '.join(columns)}"
        )


def check_limit(limit: int) -> None:
    """Raises ConfigError when `limit` is not a positive whole number."""
    if not isinstance(limit, int) or limit < 1:
        raise ConfigError(f"limit is {limit!r}; expected a whole number from 1 on")


def scored_records(search: Callable[[], Any], score: str) -> list[FrameRecord]:
    """Runs a search and returns its records, best first, each with its score.

    Args:
        search: Makes Lance's scanner.
        score: The column that Lance puts the score into.

    Raises:
        ConfigError: Lance does not understand the search.
    """
    try:
        table: pa.Table = search().to_table()
    except (ValueError, OSError) as error:
        raise ConfigError(f"the search cannot be run: {first_line(error)}") from error
    records: list[FrameRecord] = []
    for batch in table.to_batches():
        for record, value in zip(decode_rows(batch), batch.column(score).to_pylist(), strict=True):
            record.score = value
            records.append(record)
    return records


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{text!a:.80} holds a lone surrogate, which is not Unicode text"
        ) from error
    return text
