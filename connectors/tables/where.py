"""A condition on rows, as in `year >= 2024 AND lang = 'en'`: parsed once, then asked of columns.

The language is the part of SQL that needs no explanation: comparisons of a column with a value,
`IN`, `BETWEEN`, `LIKE`, `IS NULL`, and `AND`, `OR`, `NOT` with brackets. As in SQL, a comparison
with null is neither true nor false, and only rows for which the whole is true are kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from contextframe_beam.errors import ConfigError, nearest

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    |(?P<text>'(?:[^']|'')*')
    |(?P<name>"(?:[^"]|"")+"|`[^`]+`|[^\W\d][\w$]*(?:\.[^\W\d][\w$]*)*)
    |(?P<sign><=|>=|<>|!=|==|=|<|>|\(|\)|,)
    )""",
    re.VERBOSE,
)
_KEYWORDS = frozenset(("and", "or", "not", "in", "is", "null", "like", "between", "true", "false"))
_SAME = {"==": "=", "<>": "!="}
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": lambda one, other: one == other,
    "!=": lambda one, other: one != other,
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
}
_EXAMPLE = "write it as in year >= 2024 AND lang = 'en'"


@dataclass(frozen=True, slots=True)
class Compare:
    """A comparison of a column with a value: `=`, `!=`, `<`, `<=`, `>`, `>=` or `like`."""

    column: str
    sign: str
    value: Any


@dataclass(frozen=True, slots=True)
class IsNull:
    """Whether a column has no value."""

    column: str


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    inner: Condition


@dataclass(frozen=True, slots=True)
class Both:
    """`and`, or `or`."""

    sign: str
    left: Condition
    right: Condition


Condition = Compare | IsNull | Not | Both


class Where:
    """A condition on rows.

    Args:
        text: As in `year >= 2024 AND lang IN ('en', 'de')`. A name with other signs than letters,
            digits and `_` stands in double quotes; a dot leads into a struct.

    Raises:
        ConfigError: it cannot be read; the message shows the place.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.condition = _Parser(text).parse()

    @property
    def columns(self) -> list[str]:
        """The columns that it asks for, each once."""
        return list(dict.fromkeys(_columns(self.condition)))

    def may_hold(self, values: Mapping[str, str | None]) -> bool:
        """Returns whether rows can meet it of which only some columns are known, as text.

        Args:
            values: What is known. Compared with a number, a text counts as the number that it is.
        """
        return True in _outcomes(self.condition, values)

    def expression(self, schema: pa.Schema, texts: Mapping[str, str | None] | None = None) -> Any:
        """Returns it as an expression of Arrow.

        Args:
            schema: The columns.
            texts: Columns that have one value in all rows.

        Raises:
            ConfigError: a column is missing, or cannot be compared with its value.
        """
        return _expression(self.condition, schema, texts or {})


def _columns(condition: Condition) -> Iterator[str]:
    if isinstance(condition, Both):
        yield from _columns(condition.left)
        yield from _columns(condition.right)
    elif isinstance(condition, Not):
        yield from _columns(condition.inner)
    else:
        yield condition.column


def _outcomes(condition: Condition, values: Mapping[str, str | None]) -> frozenset[bool | None]:
    """Returns what a condition can be by what is known: true, false or, as for null, neither."""
    if isinstance(condition, Both):
        decides = condition.sign == "or"
        lefts, rights = _outcomes(condition.left, values), _outcomes(condition.right, values)
        return frozenset(
            decides if decides in pair else None if None in pair else not decides
            for pair in product(lefts, rights)
        )
    if isinstance(condition, Not):
        inner = _outcomes(condition.inner, values)
        return frozenset(None if one is None else not one for one in inner)
    if condition.column not in values:
        return frozenset((True, False) if isinstance(condition, IsNull) else (True, False, None))
    value = values[condition.column]
    if isinstance(condition, IsNull):
        return frozenset((value is None,))
    return frozenset((_compared(condition, value),))


def _compared(condition: Compare, text: str | None) -> bool | None:
    """Returns whether a text meets a comparison; None where it is null or not of its kind."""
    if text is None or condition.value is None:
        return None
    if condition.sign == "like":
        return re.fullmatch(_like(condition.value), text, re.DOTALL) is not None
    value: Any = text
    if isinstance(condition.value, bool):
        value = {"true": True, "false": False}.get(text.lower())
    elif isinstance(condition.value, int | Decimal):
        try:
            value = Decimal(text)
        except ArithmeticError:
            return None
    if value is None or (isinstance(value, Decimal) and value.is_nan()):
        return None
    return bool(_COMPARE[condition.sign](value, condition.value))


def _like(pattern: str) -> str:
    signs = {"%": ".*", "_": "."}
    return "".join(signs.get(sign, re.escape(sign)) for sign in pattern)


def _expression(condition: Condition, schema: pa.Schema, texts: Mapping[str, str | None]) -> Any:
    if isinstance(condition, Both):
        left = _expression(condition.left, schema, texts)
        right = _expression(condition.right, schema, texts)
        return left | right if condition.sign == "or" else left & right
    if isinstance(condition, Not):
        return ~_expression(condition.inner, schema, texts)
    if condition.column in texts:
        (known,) = _outcomes(condition, texts)
        return pc.scalar(pa.scalar(known, pa.bool_()))
    field, kind = _field(condition.column, schema)
    if isinstance(condition, IsNull):
        return field.is_null()
    if condition.value is None:
        return pc.scalar(pa.scalar(None, pa.bool_()))
    if condition.sign == "like":
        if not _is_text(kind):
            raise ConfigError(f"filter: {condition.column} is {kind}, and LIKE compares texts")
        return pc.match_like(field, condition.value)
    return _COMPARE[condition.sign](field, _scalar(condition, kind))


def _field(name: str, schema: pa.Schema) -> tuple[Any, pa.DataType]:
    if schema.names.count(name) > 1:
        raise ConfigError(f"filter: there are several columns {name!r}")
    if name in schema.names:
        return pc.field(name), schema.field(schema.names.index(name)).type
    head, *rest = name.split(".")
    if rest and head in schema.names:
        kind = schema.field(schema.names.index(head)).type
        for part in rest:
            index = kind.get_field_index(part) if pa.types.is_struct(kind) else -1
            if index < 0:
                break
            kind = kind.field(index).type
        else:
            return pc.field(head, *rest), kind
    known = list(schema.names)
    raise ConfigError(
        f"filter: there is no column {name!r}{nearest(name, known)} (there are: {', '.join(known)})"
    )


def _scalar(condition: Compare, kind: pa.DataType) -> pa.Scalar:
    """Returns the value of a comparison in a type that can be compared with a column's."""
    value, types = condition.value, pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if isinstance(value, bool):
        if types.is_boolean(kind):
            return pa.scalar(value)
        hint = "true and false are for columns of flags"
    elif isinstance(value, int | Decimal):
        if types.is_decimal(kind):
            return pa.scalar(Decimal(value))
        if types.is_integer(kind) or types.is_floating(kind):
            return pa.scalar(value if isinstance(value, int) else float(value))
        hint = "put the value in single quotes"
        if _is_text(kind):
            hint += ", or state that the column is a number (types)"
    else:
        if _is_text(kind):
            return pa.scalar(value)
        if types.is_temporal(kind):
            try:
                return _time(value, kind)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                hint = "write a time as in '2026-01-31' or '2026-01-31T12:00:00Z'"
        else:
            hint = "write a number without quotes"
    raise ConfigError(
        f"filter: {condition.column} is {kind} and cannot be compared with {value!r}; {hint}"
    )


def _time(text: str, kind: pa.DataType) -> pa.Scalar:
    if not pa.types.is_timestamp(kind):
        return pa.scalar(text).cast(kind)
    # A time without an offset is taken as UTC, as the stored ones are.
    has_offset = re.search(r"(Z|[+-]\d\d:?\d\d)$", text) and "T" in text.replace(" ", "T")
    given = pa.scalar(text).cast(pa.timestamp("us", "UTC" if has_offset else None))
    return (
        given.cast(pa.timestamp("us", kind.tz))
        if has_offset or not kind.tz
        else (given.cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us", kind.tz)))
    )


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


class _Parser:
    """Reads a condition from left to right: `or` binds least, then `and`, then `not`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._split())
        self._at = 0

    def parse(self) -> Condition:
        found = self._either()
        if self._at < len(self._tokens):
            raise self._error("and, or or the end was expected")
        return found

    def _split(self) -> Iterator[tuple[str, Any, int]]:
        at = 0
        while self._text[at:].strip():
            match = _TOKEN.match(self._text, at)
            if match is None:
                raise ConfigError(
                    f"filter: {self._text[at:].strip()[:20]!r} cannot be read; {_EXAMPLE}"
                )
            kind = str(match.lastgroup)
            word = match[kind]
            start, at = match.start(kind), match.end()
            if kind == "name" and word.lower() in _KEYWORDS:
                yield "word", word.lower(), start
            elif kind == "name":
                yield kind, _unquoted(word), start
            elif kind == "text":
                yield "value", word[1:-1].replace("''", "'"), start
            elif kind == "number":
                yield (
                    "value",
                    int(word) if re.fullmatch(r"[+-]?\d+", word) else Decimal(word),
                    start,
                )
            else:
                yield kind, _SAME.get(word, word), start

    def _either(self) -> Condition:
        found = self._all()
        while self._takes("word", "or"):
            found = Both("or", found, self._all())
        return found

    def _all(self) -> Condition:
        found = self._one()
        while self._takes("word", "and"):
            found = Both("and", found, self._one())
        return found

    def _one(self) -> Condition:
        if self._takes("word", "not"):
            return Not(self._one())
        if self._takes("sign", "("):
            found = self._either()
            self._needs("sign", ")")
            return found
        column = self._next("name", "the name of a column")
        if self._takes("word", "is"):
            is_not = self._takes("word", "not")
            self._needs("word", "null")
            return Not(IsNull(column)) if is_not else IsNull(column)
        is_not = self._takes("word", "not")
        if self._takes("word", "in"):
            return _maybe_not(self._among(column), is_not)
        if self._takes("word", "between"):
            low = Compare(column, ">=", self._value())
            self._needs("word", "and")
            return _maybe_not(Both("and", low, Compare(column, "<=", self._value())), is_not)
        if self._takes("word", "like"):
            pattern = self._value()
            if not isinstance(pattern, str):
                raise self._error("LIKE needs a text")
            return _maybe_not(Compare(column, "like", pattern), is_not)
        sign = self._next("sign", "a comparison such as =")
        if is_not or sign not in _COMPARE:
            raise self._error("a comparison such as = was expected")
        return Compare(column, sign, self._value())

    def _among(self, column: str) -> Condition:
        self._needs("sign", "(")
        found: Condition = Compare(column, "=", self._value())
        while self._takes("sign", ","):
            found = Both("or", found, Compare(column, "=", self._value()))
        self._needs("sign", ")")
        return found

    def _value(self) -> Any:
        for word, value in (("true", True), ("false", False), ("null", None)):
            if self._takes("word", word):
                return value
        return self._next("value", "a number, or a text in single quotes,")

    def _takes(self, kind: str, word: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at][:2] == (kind, word):
            self._at += 1
            return True
        return False

    def _needs(self, kind: str, word: str) -> None:
        if not self._takes(kind, word):
            raise self._error(f"{word.upper()} was expected")

    def _next(self, kind: str, what: str) -> Any:
        if self._at < len(self._tokens) and self._tokens[self._at][0] == kind:
            self._at += 1
            return self._tokens[self._at - 1][1]
        raise self._error(f"{what} was expected")

    def _error(self, what: str) -> ConfigError:
        rest = self._text[self._tokens[self._at][2] :] if self._at < len(self._tokens) else ""
        place = f"at {rest[:20]!r}" if rest else "at the end"
        return ConfigError(f"filter: {what} {place} of {self._text!r:.80}; {_EXAMPLE}")


def _unquoted(name: str) -> str:
    if name[0] in '"`':
        return name[1:-1].replace('""', '"')
    return name


def _maybe_not(condition: Condition, is_not: bool) -> Condition:
    return Not(condition) if is_not else condition
