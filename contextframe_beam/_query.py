"""What a user asks a dataset: filters as SQL, limits, and results with their scores."""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from lance import LanceDataset

from contextframe_beam.encoding import decode_rows
from contextframe_beam.errors import ConfigError
from contextframe_beam.fragments import first_line
from contextframe_beam.record import FrameRecord

#: A filter: SQL over the columns, or the values that columns must have.
Where = str | Mapping[str, Any] | None

# What Lance says of a name that is no column.
_NO_FIELD = re.compile(r"No field named \"?(.+?)\"?\.")
_NEAR = re.compile(r"Did you mean '(.+?)'\?")

_WANTS_TEXT = "could not convert to literal of type 'Utf8'"

# A comparison with what stands there without quotes, up to the next condition.
_COMPARISON = re.compile(
    r"(?P<start>\b\w+\s*(?:==?|!=|<>|<=?|>=?|\b(?:not\s+)?i?like\b)\s*)"
    r"(?P<value>[^'\"()=<>\s][^'\"()=<>]*?)(?=\s+(?:and|or)\s|\s*\)|\s*$)",
    re.IGNORECASE,
)
_IS_VALUE = re.compile(r"[+-]?[\d.]+(?:e[+-]?\d+)?|true|false|null", re.IGNORECASE)


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


def scored_records(search: Callable[[], Any], score: str, where: Where = None) -> list[FrameRecord]:
    """Runs a search and returns its records, best first, each with its score.

    Args:
        search: Makes Lance's scanner.
        score: The column that Lance puts the score into.
        where: The filter that the user gave, for messages.

    Raises:
        ConfigError: Lance does not understand the search.
    """
    try:
        scanner = search()
        table: pa.Table = scanner.to_table()
    except (ValueError, OSError) as error:
        raise ConfigError(_complaint(first_line(error), where)) from error
    records: list[FrameRecord] = []
    for batch in table.to_batches():
        for record, value in zip(decode_rows(batch), batch.column(score).to_pylist(), strict=True):
            record.score = value
            records.append(record)
    return records


def documents_with_parts(
    dataset: LanceDataset, words: Sequence[str], condition: str | None, limit: int
) -> list[str]:
    """Returns the keys of documents in whose text words stand, be it within others.

    A single letter or digit stands within others in nearly every text, so it counts by itself only.
    Reads every text, about 3 million short ones in a second.

    Args:
        dataset: What to read.
        words: In small letters.
        condition: SQL that the documents fulfil.
        limit: The most to return: those with most of the words.
    """
    held = [
        f"regexp_like(lower(text_content), '\\b{word}\\b')"
        if len(word) == 1 and word.isascii() and word.isalnum()
        else f"contains(lower(text_content), {sql_literal(word)})"
        for word in words
    ]
    scanner = dataset.scanner(
        columns={
            "uuid": "uuid",
            "held": " + ".join(f"cast({one} as int)" for one in held),
        },
        filter=" AND ".join([*([condition] if condition else []), f"({' OR '.join(held)})"]),
    )
    best: list[tuple[int, str]] = []
    for batch in scanner.to_batches():
        rows = zip(batch.column("held").to_pylist(), batch.column("uuid").to_pylist(), strict=True)
        best = heapq.nsmallest(limit, [*best, *((-held, key) for held, key in rows)])
    return [key for _, key in best]


def _complaint(said: str, where: Where) -> str:
    """Returns what to tell about a search that Lance refused."""
    if not isinstance(where, str):
        return f"the search cannot be run: {said}"
    quoted = _with_quotes(where, numbers=_WANTS_TEXT in said)
    if quoted != where:
        return f"the filter {where} cannot be used: text stands in single quotes, as in {quoted}"
    unknown = _NO_FIELD.search(said)
    if unknown:
        near = _NEAR.search(said)
        hint = f"; did you mean {near[1]}?" if near else ", and text stands in single quotes"
        return f"the filter {where} cannot be used: there is no column {unknown[1]}{hint}"
    return (
        f"the filter {where} cannot be used; give SQL such as author = 'Ada' AND "
        f"created_at > '2026-01-31', with text in single quotes. Lance says: {said}"
    )


def _with_quotes(where: str, numbers: bool) -> str:
    """Returns a filter with quotes around what it compares with, where there are none.

    Args:
        where: SQL.
        numbers: Whether numbers get them as well.
    """

    def compared(match: re.Match[str]) -> str:
        value = match["value"].rstrip()
        if _IS_VALUE.fullmatch(value) and not (numbers and value[-1].isdigit()):
            return match[0]
        return f"{match['start']}{sql_literal(value)}{match['value'][len(value) :]}"

    return _COMPARISON.sub(compared, where)


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{text!a:.80} holds a lone surrogate, which is not Unicode text"
        ) from error
    return text
