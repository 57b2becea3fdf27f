"""Filters: what users write as SQL or as values becomes SQL that Lance understands, or a message.

Own fields stand in a filter under their own names: `price > 5` is `x_f_price > 5` for Lance. Lance
does not compare a time or a day with a text, so the texts beside them become times and days.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timezone
from typing import Any

import pyarrow as pa
from lance import LanceDataset

from contextframe_beam.errors import ConfigError, RecordError, nearest
from contextframe_beam.frames.fields import OwnField, fields_of, guess_type
from contextframe_beam.frames.record import is_uuid, readers_of, uuid_of
from contextframe_beam.frames.times import when
from contextframe_beam.store.address import first_line

__all__ = ["Where", "check_limit", "projection_of", "sql_literal", "sql_of", "understood"]

#: A filter: an SQL condition on the columns, or the values that columns must have.
Where = str | Mapping[str, Any] | None


def sql_of(where: Where, schema: pa.Schema) -> str:
    """Returns a filter as SQL; empty without a filter.

    Args:
        where: The filter. Own fields stand in it under their own names.
        schema: The columns of the dataset.

    Raises:
        ConfigError: it names a column that is not there, or a value unknown to SQL.
    """
    fields = fields_of(schema)
    if where is None or isinstance(where, str):
        return _translated(_unicode(where or ""), fields)
    known = {one.name: one for one in fields}
    columns = [name for name in schema.names if name not in {one.column for one in fields}]
    _check_columns([name for name in where if name not in known], [*columns, *known])
    return " AND ".join(
        _equals(known[name], value) if name in known else _is(name, value)
        for name, value in where.items()
    )


def of_id(id: str) -> str:
    """Returns as SQL that a row is the one with an id.

    Args:
        id: Its unique_id or uuid.

    Raises:
        ConfigError: it is not text.
    """
    if not isinstance(id, str):
        raise ConfigError(f"the id is {id!r:.80}; expected a unique_id or uuid, as text")
    literal = sql_literal(id)
    keys = [uuid_of(id), *([id.lower()] if is_uuid(id) else [])]
    return f"(uuid IN ({', '.join(map(sql_literal, keys))}) OR uri = {literal})"


def readable_by(readers: Iterable[str] | None, schema: pa.Schema) -> str:
    """Returns as SQL that one of some readers may read a row; empty for None.

    Rows of which nobody knows who may read them are left out, and what anyone may read is in.

    Args:
        readers: Who asks, with all groups and domains that they belong to.
        schema: The columns of the dataset.

    Raises:
        ConfigError: they are not texts that name somebody.
    """
    if readers is None:
        return ""
    try:
        named = readers_of([*(readers_of(readers) or ()), "anyone"]) or []
    except RecordError as error:
        raise ConfigError(str(error)) from error
    if "x_readers" not in schema.names:
        return "false"
    return f"array_has_any(x_readers, [{', '.join(map(sql_literal, named))}])"


def _is(column: str, value: Any) -> str:
    return f"{column} IS NULL" if value is None else f"{column} = {sql_literal(value)}"


def _equals(field: OwnField, value: Any) -> str:
    if value is None:
        return f"{field.sql} IS NULL"
    if isinstance(value, str):
        value = _literal(field, value, repr(value))
    elif field.kind == "timestamp" and isinstance(value, datetime):
        value = _time_literal(value)
    elif field.kind == "date" and isinstance(value, date) and not isinstance(value, datetime):
        value = f"date '{value}'"
    else:
        value = sql_literal(value)
    return f"array_has({field.sql}, {value})" if field.kind == "list" else f"{field.sql} = {value}"


def sql_literal(value: Any) -> str:
    """Returns a value as SQL, with its quotes doubled.

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


def _check_columns(names: Sequence[str], columns: Sequence[str]) -> None:
    """Raises ConfigError if one of `names` is not among a dataset's columns."""
    unknown = [str(name) for name in names if name not in columns]
    if unknown:
        raise ConfigError(
            f"the dataset has no column {', '.join(unknown)}; it has {', '.join(columns)}"
        )


def projection_of(names: Sequence[str], schema: pa.Schema) -> list[str] | dict[str, str]:
    """Returns columns as Lance's scanner takes them; own fields have their own names.

    Raises:
        ConfigError: the dataset has no such column.
    """
    own = {one.name: one.sql for one in fields_of(schema)}
    _check_columns(names, [*schema.names, *own])
    if own.keys().isdisjoint(names):
        return list(names)
    return {name: own.get(name, f"`{name}`") for name in names}


def check_limit(limit: int) -> None:
    """Raises ConfigError if `limit` is not a positive whole number."""
    if not isinstance(limit, int) or limit < 1:
        raise ConfigError(f"limit is {limit!r}; expected a whole number of at least 1")


# Own fields in SQL.

_TOKEN = re.compile(
    r"""
    (?P<text>'(?:[^']|'')*')
    | (?P<quoted>`(?:[^`]|``)*`|"(?:[^"]|"")*")
    | (?P<space>\s+|--[^\n]*|/\*.*?\*/)
    | (?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)
    | (?P<word>[^\W\d]\w*(?:\.[^\W\d]\w*)*)
    | (?P<sign><=|>=|<>|!=|==|::|.)
    """,
    re.VERBOSE | re.DOTALL,
)

_COMPARES = frozenset({"=", "==", "<>", "!=", "<", "<=", ">", ">="})

# Words that are no names where they stand bare; a field of such a name needs quotes.
_RESERVED = frozenset(
    (
        *("and", "as", "between", "case", "cast", "distinct", "else", "end", "escape", "exists"),
        *("false", "from", "ilike", "in", "is", "like", "not", "null", "or", "select", "similar"),
        *("then", "true", "when", "where"),
    )
)


# Signs that end a condition or begin a text that has no end, and what is wrong with them.
_ENDS = {
    "'": "give SQL with text in single quotes, and a quote within it twice: 'O''Brien'",
    '"': 'a " is not closed',
    "`": "a ` is not closed",
    ";": "it is one condition, without a semicolon",
    "$": "text stands in single quotes, not between dollar signs",
}


@dataclass
class _Token:
    kind: str
    text: str
    field: OwnField | None = None

    def is_word(self, *words: str) -> bool:
        return self.kind == "word" and self.text.lower() in words


def _translated(where: str, fields: Sequence[OwnField]) -> str:
    """Returns SQL with the columns of own fields in place of their names."""
    tokens = [_Token(str(found.lastgroup), found[0]) for found in _TOKEN.finditer(where)]
    told = [one for one in tokens if one.kind != "space"]
    _require_one_condition(where, told)
    for place, one in enumerate(told):
        before = told[place - 1] if place else None
        after = told[place + 1] if place + 1 < len(told) else None
        one.field = _field_at(one, before, after, fields)
    for place, one in enumerate(told):
        if one.field is not None:
            for text in _compared_with(told, place):
                if one.field.kind == "list":
                    raise ConfigError(
                        f"{one.field.name} holds {one.field.holds}; ask for one that holds a text "
                        f"by array_has({one.text}, {text.text})"
                    )
                plain = text.text[1:-1].replace("''", "'")
                text.text = _literal(one.field, plain, text.text)
    # A comment at the end would hide what follows the filter.
    texts = (" " if one.text.startswith(("--", "/*")) else one.text for one in tokens)
    return "".join(
        text if one.field is None else one.field.sql
        for one, text in zip(tokens, texts, strict=True)
    )


def _require_one_condition(where: str, told: Iterable[_Token]) -> None:
    """Refuses what would end before its own end, so that conditions joined to it were left out.

    Lance ignores what follows a complete condition, and knows texts between dollar signs.

    Raises:
        ConfigError: brackets or quotes are not closed, or there is more than a condition.
    """
    open_brackets = 0
    for one in told:
        if one.kind != "sign":
            continue
        open_brackets += {"(": 1, ")": -1}.get(one.text, 0)
        if open_brackets < 0:
            raise ConfigError(f"the filter {where} cannot be used: a ) closes nothing")
        if one.text in _ENDS:
            raise ConfigError(f"the filter {where} cannot be used: {_ENDS[one.text]}")
    if open_brackets:
        raise ConfigError(f"the filter {where} cannot be used: a ( is not closed")


def _field_at(
    token: _Token, before: _Token | None, after: _Token | None, fields: Sequence[OwnField]
) -> OwnField | None:
    """Returns the own field that a token names."""
    if token.kind == "quoted":
        quote = token.text[0]
        # Lance takes a name in double quotes for text, and where one is compared with, it is text.
        if quote == '"' and before is not None and before.text.lower() in (*_COMPARES, "like"):
            return None
        name = token.text[1:-1].replace(quote * 2, quote)
        return _named(name, fields)
    if token.kind != "word" or token.text.lower() in _RESERVED:
        return None
    is_type = before is not None and (before.text == "::" or before.is_word("as"))
    is_other = after is not None and (after.text == "(" or after.kind == "text")
    return None if is_type or is_other else _named(token.text, fields)


def _named(name: str, fields: Sequence[OwnField]) -> OwnField | None:
    """Returns the field of a name, whose case may differ as in all SQL if there is but one."""
    exact = [one for one in fields if one.name == name]
    near = exact or [one for one in fields if one.name.lower() == name.lower()]
    return near[0] if len(near) == 1 else None


def _compared_with(told: Sequence[_Token], place: int) -> Iterator[_Token]:
    """Yields the texts that the field at some place is compared with."""

    def at(index: int) -> _Token:
        return told[index] if 0 <= index < len(told) else _Token("end", "")

    if at(place - 1).text in _COMPARES and at(place - 2).kind == "text":
        yield told[place - 2]
    after = place + 1
    if at(after).text in _COMPARES:
        after += 1
        if at(after).kind == "text":
            yield told[after]
    elif at(after).is_word("is"):
        after += 2 if at(after + 1).is_word("not") else 1
        if at(after).is_word("distinct") and at(after + 2).kind == "text":
            yield told[after + 2]
    else:
        after += 1 if at(after).is_word("not") else 0
        if at(after).is_word("between"):
            yield from (at(one) for one in (after + 1, after + 3) if at(one).kind == "text")
        elif at(after).is_word("in") and at(after + 1).text == "(":
            after += 2
            while at(after).kind not in ("end",) and at(after).text != ")":
                if at(after).kind == "text":
                    yield told[after]
                after += 1


def _literal(field: OwnField, text: str, shown: str) -> str:
    """Returns the SQL of a text that a field is compared with.

    Raises:
        ConfigError: nothing that the field holds is equal to it.
    """
    if field.kind in ("text", "list"):
        return sql_literal(text)
    if field.kind == "timestamp":
        time = when(text)
        if time is not None:
            return _time_literal(time)
    elif field.kind == "date" and re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
        return f"date '{text}'"
    elif field.kind in ("int64", "float64", "bool"):
        raise ConfigError(
            f"the filter compares {field.name} with the text {shown}, and it holds {field.holds}; "
            "write them without quotes"
        )
    raise ConfigError(
        f"the filter compares {field.name} with {shown}, and it holds {field.holds}; write them "
        "like that"
    )


def _time_literal(time: datetime) -> str:
    time = time.replace(tzinfo=time.tzinfo or timezone.utc).astimezone(timezone.utc)
    return f"timestamp '{time.replace(tzinfo=None).isoformat(' ', 'microseconds')}'"


# Messages.

# Lance's message about an unknown column.
_NO_FIELD = re.compile(r"No field named \"?(.+?)\"?\.(?:\s|$)")
_NEAR = re.compile(r"Did you mean '(.+?)'\?")

_WANTS_TEXT = "could not convert to literal of type 'Utf8'"

# A comparison with a value without quotes, up to the next condition.
_COMPARISON = re.compile(
    r"(?P<start>\b\w+\s*(?:==?|!=|<>|<=?|>=?|\b(?:not\s+)?i?like\b)\s*)"
    r"(?P<value>[^'\"()=<>\s][^'\"()=<>]*?)(?=\s+(?:and|or)\s|\s*\)|\s*$)",
    re.IGNORECASE,
)
_IS_VALUE = re.compile(r"[+-]?[\d.]+(?:e[+-]?\d+)?|true|false|null", re.IGNORECASE)

# So many rows are looked through for a field that is no column; more would take long.
_ROWS_TO_SEARCH = 200_000
_ROWS_AT_ONCE = 8192


@contextmanager
def understood(dataset: LanceDataset, where: Where) -> Iterator[None]:
    """Turns Lance's refusals of a filter into ours.

    Raises:
        ConfigError: the filter cannot be used; the message says why, and what to write instead.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(_complaint(first_line(error), where, dataset)) from error


def _complaint(said: str, where: Where, dataset: LanceDataset) -> str:
    """Returns the message for a search that Lance refused."""
    if not isinstance(where, str):
        return f"the search cannot be run: {said}"
    unknown = _NO_FIELD.search(said)
    for name in _names_in(where, unknown[1]) if unknown else ():
        kind = _type_in(dataset, name)
        if kind is not None:
            return (
                f"the filter {where} cannot be used: {name} is in the metadata of documents, and "
                f"is no column; `contextframe-beam columns add {dataset.uri} "
                f"{shlex.quote(f'{name}:{kind}')}` makes it one"
            )
    quoted = _with_quotes(where, numbers=_WANTS_TEXT in said)
    if quoted != where:
        return f"the filter {where} cannot be used: text needs single quotes, as in {quoted}"
    if unknown:
        near = _NEAR.search(said)
        own = {one.column: one.name for one in fields_of(dataset.schema)}
        names = [own.get(name, name) for name in dataset.schema.names]
        hint = f"; did you mean {near[1]}?" if near else ""
        hint = nearest(unknown[1], names) or hint or ", and text needs single quotes"
        return f"the filter {where} cannot be used: there is no column {unknown[1]}{hint}"
    return (
        f"the filter {where} cannot be used; give SQL such as author = 'Ada' AND "
        "created_at > '2026-01-31', with text in single quotes and names with spaces in "
        f"backticks. Lance says: {said}"
    )


def _names_in(where: str, unknown: str) -> Iterator[str]:
    """Yields what a filter calls a column that Lance does not know, of `a.b` also the whole."""
    yield unknown
    for found in _TOKEN.finditer(where):
        if found.lastgroup == "word" and found[0].startswith(f"{unknown}."):
            yield found[0]


def _type_in(dataset: LanceDataset, name: str) -> str | None:
    """Returns the type that suits the values of a field in metadata; None where none is found."""
    columns = [one for one in ("custom_metadata", "x_encoding") if one in dataset.schema.names]
    scanner = dataset.scanner(columns=columns, limit=_ROWS_TO_SEARCH, batch_size=_ROWS_AT_ONCE)
    kinds: set[str] = set()
    for batch in scanner.to_batches():
        kind = guess_type(batch, name)
        if kind is not None:
            kinds.add(kind)
    if len(kinds) > 1:
        return "float64" if kinds == {"int64", "float64"} else "text"
    return kinds.pop() if kinds else None


def _with_quotes(where: str, numbers: bool) -> str:
    """Returns a filter with quotes added around its values.

    Args:
        where: SQL.
        numbers: Whether numbers get quotes too.
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
