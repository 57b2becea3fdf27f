"""The queries of files.list: which files a `q` means.

The terms are those of https://developers.google.com/workspace/drive/api/guides/ref-search-terms
that the worlds need; another one is an error, as it is in Drive.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Test = Callable[[Mapping[str, Any]], bool]

_TOKENS = re.compile(r"\s*('(?:[^'\\]|\\.)*'|<=|>=|!=|=|<|>|\(|\)|[A-Za-z]+)")
_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda one, other: one == other,
    "!=": lambda one, other: one != other,
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
    "contains": lambda one, other: str(other).lower() in str(one).lower(),
}
_FIELDS = {"name", "mimeType", "createdTime", "modifiedTime", "trashed", "starred", "sharedWithMe"}


def query_of(text: str) -> Test:
    """Returns what says of a file whether a query means it.

    Raises:
        ValueError: it is no query.
    """
    tokens = _tokens(text)
    test, rest = _either(tokens)
    if rest:
        raise ValueError(f"unexpected {rest[0]!r}")
    return test


def _tokens(text: str) -> list[str]:
    found, at = [], 0
    while at < len(text.rstrip()):
        match = _TOKENS.match(text, at)
        if match is None:
            raise ValueError(f"unexpected {text[at:]!r}")
        found.append(match[1])
        at = match.end()
    return found


def _either(tokens: list[str]) -> tuple[Test, list[str]]:
    first, tokens = _both(tokens)
    tests = [first]
    while tokens[:1] == ["or"]:
        one, tokens = _both(tokens[1:])
        tests.append(one)
    return lambda file: any(test(file) for test in tests), tokens


def _both(tokens: list[str]) -> tuple[Test, list[str]]:
    first, tokens = _term(tokens)
    tests = [first]
    while tokens[:1] == ["and"]:
        one, tokens = _term(tokens[1:])
        tests.append(one)
    return lambda file: all(test(file) for test in tests), tokens


def _term(tokens: list[str]) -> tuple[Test, list[str]]:
    if tokens[:1] == ["not"]:
        inner, tokens = _term(tokens[1:])
        return lambda file: not inner(file), tokens
    if tokens[:1] == ["("]:
        test, tokens = _either(tokens[1:])
        if tokens[:1] != [")"]:
            raise ValueError("a bracket is not closed")
        return test, tokens[1:]
    if len(tokens) < 3:
        raise ValueError("a term is not whole")
    (one, how, other), tokens = tokens[:3], tokens[3:]
    if how == "in" and one.startswith("'") and other in ("parents", "owners"):
        wanted = _text(one)
        return lambda file: wanted in file.get(other, ()), tokens
    if one not in _FIELDS or how not in _COMPARED:
        raise ValueError(f"{one} {how} is no term")
    value: Any = other == "true" if other in ("true", "false") else _text(other)
    compare = _COMPARED[how]
    return lambda file: compare(file.get(one, False if value in (True, False) else ""), value), (
        tokens
    )


def _text(token: str) -> str:
    if not token.startswith("'"):
        raise ValueError(f"{token} is no text")
    return re.sub(r"\\(.)", r"\1", token[1:-1])
