"""Expressions of a configuration: `record.status == 'open' and length(record.tags) > 1`.

The language is small on purpose. It reads the values that it is given, and nothing else: it has no
loops, no assignments, no access to Python, and no patterns that could run for long. Its time grows
with the length of the expression and of the values only.

    or, and, not            as in Python: they return one of their values
    a if condition else b
    == != < <= > >= in, not in
    + - * / // %            + also joins two texts or two lists
    record.name  record['a name']  record.items[0]  text[:4]
    'text'  12  1.5  true  false  null  ['a', 'b']
    function(argument, ...)

A value that is missing is null. Arithmetic with null is null, and an order with null is false.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

from contextframe_beam.connectors.api.functions import (
    FUNCTIONS,
    LONGEST_TEXT,
    BadValue,
    Function,
    shown_kind,
)
from contextframe_beam.connectors.mapper import lookup
from contextframe_beam.connectors.secrets import SecretReference
from contextframe_beam.errors import ConfigError, nearest

#: The longest expression, and how deep its parts may lie inside each other.
LONGEST = 4000
DEEPEST = 40

_LARGEST = 2**63
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>\d+(?:\.\d+)?)
      | (?P<name>[A-Za-z_]\w*)
      | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<sign>==|!=|<=|>=|//|[-+*/%<>()\[\]{}.,:])
    )""",
    re.X | re.S,
)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}
_WORDS = {"true": True, "false": False, "null": None}
_OPERATORS = ("and", "or", "not", "in", "if", "else")
_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: bool(a < b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    ">=": lambda a, b: bool(a >= b),
}

#: Values by the name of their root, such as `record` and `settings`.
Known = Mapping[str, Any]
_Value = Callable[[Known], Any]


class ExpressionError(ConfigError):
    """An expression is wrong, or cannot be computed; the message says where in it."""


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression that was read.

    Attributes:
        text: The expression.
        paths: The places that it reads: a root and the names below it.
        value: Returns its value for known values.
    """

    text: str
    paths: frozenset[tuple[str, ...]]
    value: _Value

    @property
    def roots(self) -> frozenset[str]:
        """The names that its paths begin with."""
        return frozenset(path[0] for path in self.paths)


@lru_cache(maxsize=4096)
def read(text: str) -> Expression:
    """Returns the expression in a text.

    Raises:
        ExpressionError: it is not an expression.
    """
    expression, end = read_in(text, 0)
    if text[end:].strip():
        _fail(text, _skipped(text, end), f"{text[end:].strip()[:20]!r} was not expected")
    return expression


def read_in(text: str, begin: int) -> tuple[Expression, int]:
    """Returns the expression that begins at a place in a text, and where it ends.

    Raises:
        ExpressionError: there is no expression.
    """
    parser = _Parser(text, begin)
    value = parser.choice()
    whole = text[begin : parser.end].strip()
    return Expression(whole, frozenset(parser.paths), value), parser.end


def _fail(text: str, at: int, problem: str) -> NoReturn:
    shown = text if len(text) <= 200 else f"{text[:200]}..."
    raise ExpressionError(f"{problem}, at character {at + 1} of {shown!r}")


def _skipped(text: str, at: int) -> int:
    return at + len(text[at:]) - len(text[at:].lstrip())


class _Parser:
    """Reads an expression by recursive descent; each method returns the function of its value."""

    def __init__(self, text: str, begin: int) -> None:
        self.text = text
        self.paths: set[tuple[str, ...]] = set()
        self.end = begin  # behind the last token that was taken
        self._limit = begin + LONGEST
        self._depth = 0
        self._look()

    def choice(self) -> _Value:
        self._depth += 1
        if self._depth > DEEPEST:
            self._fail("the expression has too many parts inside each other")
        value = self._any()
        if self._takes("if"):
            condition = self._any()
            if not self._takes("else"):
                self._fail("else is missing after if")
            value = _chosen(condition, value, self.choice())
        self._depth -= 1
        return value

    def _any(self) -> _Value:
        value = self._all()
        while self._takes("or"):
            value = _or(value, self._all())
        return value

    def _all(self) -> _Value:
        value = self._negated()
        while self._takes("and"):
            value = _and(value, self._negated())
        return value

    def _negated(self) -> _Value:
        if not self._takes("not"):
            return self._compared()
        self._depth += 1
        if self._depth > DEEPEST:
            self._fail("the expression has too many parts inside each other")
        inner = self._negated()
        self._depth -= 1
        return lambda known: not inner(known)

    def _compared(self) -> _Value:
        left = self._sum()
        at, word = self._at, self._word
        if word in ("==", "!=", *_ORDERS, "in"):
            self._next()
            return self._guarded(at, _compare(word, left, self._sum()))
        if word == "not":
            self._next()
            if not self._takes("in"):
                self._fail("in is missing after not")
            inner = self._guarded(at, _compare("in", left, self._sum()))
            return lambda known: not inner(known)
        return left

    def _sum(self) -> _Value:
        value = self._product()
        while self._word in ("+", "-"):
            at, word = self._at, self._next()
            value = self._guarded(at, _computed(word, value, self._product()))
        return value

    def _product(self) -> _Value:
        value = self._signed()
        while self._word in ("*", "/", "//", "%"):
            at, word = self._at, self._next()
            value = self._guarded(at, _computed(word, value, self._signed()))
        return value

    def _signed(self) -> _Value:
        at = self._at
        if not self._takes("-"):
            return self._below()
        inner = self._below()
        return self._guarded(at, _computed("-", lambda known: 0, inner))

    def _below(self) -> _Value:
        """Reads a value, and the fields and elements that follow it."""
        at, path = self._at, self._path()
        value = self._plain() if path is None else _looked_up(path)
        while self._word in (".", "["):
            at = self._at
            if self._takes("."):
                value = self._guarded(at, _element(value, _constant(self._field())))
            else:
                self._next()
                value = self._guarded(at, self._bracket(value))
        return value

    def _path(self) -> tuple[str, ...] | None:
        """Reads a root and the fields below it that the text names; None for any other value."""
        if self._kind != "name" or self._word in _WORDS or self._word in _OPERATORS:
            return None
        if _follows(self.text, self.end_of_token, "("):
            return None
        path = [self._next()]
        while True:
            if self._takes("."):
                path.append(self._field())
            elif self._word == "[" and (name := _NAMED.match(self.text, self._at)):
                path.append(_unescaped(name[1]))
                self._jump(name.end())
            else:
                break
        self.paths.add(tuple(path))
        return tuple(path)

    def _field(self) -> str:
        match = re.compile(r"\s*([\w@$]+)").match(self.text, self.end)
        if match is None:
            self._fail("the name of a field is missing after the dot")
        self._jump(match.end())
        return match[1]

    def _bracket(self, value: _Value) -> _Value:
        begin = None if self._word == ":" else self.choice()
        if self._takes(":"):
            end = None if self._word == "]" else self.choice()
            self._close("]")
            return _part(value, begin, end)
        self._close("]")
        assert begin is not None
        return _element(value, begin)

    def _plain(self) -> _Value:
        kind, word, at = self._kind, self._word, self._at
        if kind == "number":
            self._next()
            return _constant(float(word) if "." in word else int(word))
        if kind == "text":
            self._next()
            return _constant(_unescaped(word))
        if self._takes("("):
            value = self.choice()
            self._close(")")
            return value
        if self._takes("["):
            elements = self._several("]")
            return lambda known: [one(known) for one in elements]
        if kind == "name" and word in _WORDS:
            self._next()
            return _constant(_WORDS[word])
        if kind == "name" and word not in _OPERATORS:
            return self._call(at, self._next())
        found = f"before {word!r}" if word else "at the end"
        self._fail(f"a value is missing {found}")

    def _call(self, at: int, name: str) -> _Value:
        function = FUNCTIONS.get(name)
        if function is None:
            hint = nearest(name, FUNCTIONS) or f"; there are {', '.join(FUNCTIONS)}"
            _fail(self.text, at, f"there is no function {name!r}{hint}")
        self._next()  # the bracket that made it a call
        arguments = self._several(")")
        if not function.takes(len(arguments)):
            given = f"{len(arguments)} value{'s' if len(arguments) != 1 else ''}"
            _fail(self.text, at, f"{function.usage} was given {given}")
        return self._guarded(at, _called(function, arguments))

    def _several(self, closing: str) -> list[_Value]:
        found: list[_Value] = []
        while self._word != closing:
            found.append(self.choice())
            if not self._takes(","):
                break
        self._close(closing)
        return found

    def _close(self, closing: str) -> None:
        if not self._takes(closing):
            found = f"before {self._word!r}" if self._word else "at the end"
            self._fail(f"{closing!r} is missing {found}")

    def _guarded(self, at: int, value: _Value) -> _Value:
        """Returns a function that adds the place to the errors of another."""
        text = self.text

        def guarded(known: Known) -> Any:
            try:
                return value(known)
            except BadValue as error:
                _fail(text, at, str(error))
            except OverflowError:
                _fail(text, at, "the number becomes too large")

        return guarded

    def _takes(self, word: str) -> bool:
        if self._word != word or self._kind == "text":
            return False
        self._next()
        return True

    def _next(self) -> str:
        word = self._word
        self._jump(self.end_of_token)
        return word

    def _jump(self, end: int) -> None:
        self.end = end
        if end > self._limit:
            self._fail(f"the expression is longer than {LONGEST:,} characters")
        self._look()

    def _look(self) -> None:
        """Looks at the next token; an unknown sign ends the expression like its end does."""
        match = _TOKEN.match(self.text, self.end)
        self._kind = "" if match is None else str(match.lastgroup)
        self._word = "" if match is None else match[self._kind]
        self._at = _skipped(self.text, self.end) if match is None else match.start(self._kind)
        self.end_of_token = self.end if match is None else match.end()

    def _fail(self, problem: str) -> NoReturn:
        _fail(self.text, self._at, problem)


_NAMED = re.compile(r"""\[\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\s*\]""")


def _follows(text: str, at: int, sign: str) -> bool:
    return text[at:].lstrip().startswith(sign)


def _unescaped(literal: str) -> str:
    inner = literal[1:-1]
    return re.sub(r"\\(.)", lambda match: _ESCAPED.get(match[1], match[1]), inner, flags=re.S)


def _constant(value: Any) -> _Value:
    return lambda known: value


def _looked_up(path: tuple[str, ...]) -> _Value:
    root, below = path[0], ".".join(path[1:])
    if not below:
        return lambda known: known.get(root)
    return lambda known: lookup(known.get(root), below)


def _chosen(condition: _Value, value: _Value, other: _Value) -> _Value:
    return lambda known: value(known) if condition(known) else other(known)


def _or(left: _Value, right: _Value) -> _Value:
    return lambda known: left(known) or right(known)


def _and(left: _Value, right: _Value) -> _Value:
    return lambda known: left(known) and right(known)


def _called(function: Function, arguments: list[_Value]) -> _Value:
    call, names = function.call, function.name

    def called(known: Known) -> Any:
        values = [one(known) for one in arguments]
        if names != "default":
            _refuse_secrets(*values)
        return _bounded(call(*values))

    return called


def _compare(word: str, left: _Value, right: _Value) -> _Value:
    if word == "==":
        return lambda known: same(left(known), right(known))
    if word == "!=":
        return lambda known: not same(left(known), right(known))
    if word == "in":
        return lambda known: _is_in(left(known), right(known))
    order = _ORDERS[word]

    def compared(known: Known) -> bool:
        a, b = left(known), right(known)
        if a is None or b is None:
            return False
        if (_is_number(a) and _is_number(b)) or (isinstance(a, str) and isinstance(b, str)):
            _refuse_secrets(a, b)
            return order(a, b)
        raise BadValue(f"{shown_kind(a)} and {shown_kind(b)} have no order")

    return compared


def same(left: Any, right: Any) -> bool:
    """Returns whether two values are equal; true is not 1."""
    return isinstance(left, bool) is isinstance(right, bool) and bool(left == right)


def _is_in(value: Any, holder: Any) -> bool:
    if holder is None:
        return False
    if isinstance(holder, str):
        _refuse_secrets(value, holder)
        return isinstance(value, str) and value in holder
    if isinstance(holder, list | tuple):
        return any(same(value, one) for one in holder)
    if isinstance(holder, Mapping):
        return isinstance(value, str) and value in holder
    raise BadValue(f"nothing is in {shown_kind(holder)}")


def _computed(word: str, left: _Value, right: _Value) -> _Value:
    def computed(known: Known) -> Any:
        a, b = left(known), right(known)
        if a is None or b is None:
            return None
        _refuse_secrets(a, b)
        if _is_number(a) and _is_number(b):
            return _bounded(_number(word, a, b))
        if word == "+" and any(isinstance(a, k) and isinstance(b, k) for k in (str, list)):
            return _bounded(a + b)
        hint = "; text(...) joins values of any kind" if word == "+" else ""
        raise BadValue(f"{word} does not take {shown_kind(a)} and {shown_kind(b)}{hint}")

    return computed


def _number(word: str, a: Any, b: Any) -> Any:
    if word in ("/", "//", "%") and b == 0:
        raise BadValue("a number is divided by 0")
    if word == "+":
        return a + b
    if word == "-":
        return a - b
    if word == "*":
        return a * b
    if word == "/":
        return a / b
    return a // b if word == "//" else a % b


def _element(value: _Value, index: _Value) -> _Value:
    def element(known: Known) -> Any:
        holder, at = value(known), index(known)
        if holder is None or at is None:
            return None
        _refuse_secrets(holder)
        if isinstance(at, str):
            return lookup(holder, at)
        if not isinstance(at, int) or isinstance(at, bool):
            raise BadValue(f"{shown_kind(at)} is not the place of an element")
        if not isinstance(holder, list | tuple | str):
            return lookup(holder, str(at))
        return holder[at] if -len(holder) <= at < len(holder) else None

    return element


def _part(value: _Value, begin: _Value | None, end: _Value | None) -> _Value:
    def part(known: Known) -> Any:
        whole = value(known)
        if whole is None:
            return None
        _refuse_secrets(whole)
        ends = [None if one is None else one(known) for one in (begin, end)]
        if not isinstance(whole, str | list | tuple):
            raise BadValue(f"{shown_kind(whole)} has no parts")
        for one in ends:
            if one is not None and (isinstance(one, bool) or not isinstance(one, int)):
                raise BadValue(f"a part ends at whole numbers, and this is {shown_kind(one)}")
        return whole[ends[0] : ends[1]]

    return part


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bounded(value: Any) -> Any:
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        raise BadValue(f"the text becomes longer than {LONGEST_TEXT:,} characters")
    if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        raise BadValue("the number becomes larger than 64 bits")
    return value


def _refuse_secrets(*values: Any) -> None:
    if any(isinstance(one, SecretReference) for one in values):
        raise BadValue("a secret can be handed on as it is, but not become a part of a text")
