"""Text from a command line or a configuration file to the type an argument is annotated with.

Each function raises `ValueError` with a message that continues the sentence "'abc' ...".
"""

from __future__ import annotations

import collections.abc as abc
import json
import types
import typing
from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar, Union
from uuid import UUID

from contextframe_beam.connectors.secrets import is_reference

_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_SEQUENCES = {list, tuple, set, frozenset, abc.Sequence, abc.Iterable, abc.Collection, abc.Set}
_MAPPINGS = {dict, abc.Mapping, abc.MutableMapping}
_UNIONS = (Union, types.UnionType)
_SIMPLE: dict[Any, tuple[Callable[[str], Any], str]] = {
    int: (int, "is not a whole number"),
    float: (float, "is not a number"),
    Decimal: (Decimal, "is not a number"),
    UUID: (UUID, "is not a uuid"),
    datetime: (datetime.fromisoformat, "is not a time such as 2026-01-31T12:00:00+00:00"),
    date: (date.fromisoformat, "is not a date such as 2026-01-31"),
    time: (time.fromisoformat, "is not a time of day such as 12:00"),
    bytes: (str.encode, ""),
}


def from_text(value: Any, annotation: Any, default: Any = None) -> Any:
    """Returns `value` as its annotation wants it.

    Args:
        value: Text, or a list of texts for an argument that takes several. References to secrets
            and values of other types are returned as they are.
        annotation: A type; `Any` stands for the type of the default.
        default: The argument's default.

    Raises:
        ValueError: the text does not fit.
    """
    if annotation is Any and isinstance(default, bool | int | float | list | tuple | dict | Path):
        annotation = type(default)
    if isinstance(value, str) and not is_reference(value):
        return _convert(value, annotation)
    if isinstance(value, list):
        several = [one for one in members_of(annotation) if kind_of(one) in _SEQUENCES]
        if several:
            return _sequence(value, several[0])
    return value


def members_of(annotation: Any) -> Sequence[Any]:
    """Returns the types a value may have: those of a union, else the annotation alone."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return members_of(typing.get_args(annotation)[0])
    if origin in _UNIONS:
        return [one for part in typing.get_args(annotation) for one in members_of(part)]
    return [annotation]


def kind_of(annotation: Any) -> Any:
    """Returns the class of an annotation, without what its elements are."""
    return typing.get_origin(annotation) or annotation


def _convert(text: str, annotation: Any) -> Any:
    members = members_of(annotation)
    if len(members) > 1:
        return _union(text, members)
    (annotation,) = members
    kind = kind_of(annotation)
    if kind is str or isinstance(kind, TypeVar):
        return text
    if kind is Any or kind is object:
        return _parsed(text) if text.startswith(("{", "[")) else text
    if kind is Literal:
        return _literal(text, typing.get_args(annotation))
    if kind in _SEQUENCES:
        return _sequence(_elements(text), annotation)
    if kind in _MAPPINGS:
        return _object(text)
    return _simple(text, kind)


def _union(text: str, members: Sequence[Any]) -> Any:
    as_text = str in members
    problems = []
    for one in members:
        if one is str or one is types.NoneType:
            continue
        # Where text is welcome, only what is clearly written as one is a list or an object.
        if as_text and kind_of(one) in _SEQUENCES | _MAPPINGS and not text.startswith(("{", "[")):
            continue
        try:
            return _convert(text, one)
        except ValueError as error:
            problems.append(str(error))
    if as_text:
        return text
    if types.NoneType in members and text.lower() in ("", "none", "null"):
        return None
    raise ValueError(" and ".join(dict.fromkeys(problems)) or "must be left out")


def _literal(text: str, choices: tuple[Any, ...]) -> Any:
    for choice in choices:
        if str(choice) == text:
            return choice
    raise ValueError(f"is not one of {', '.join(map(str, choices))}")


def _elements(text: str) -> list[Any]:
    if not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    elements = _parsed(text)
    assert isinstance(elements, list)
    return elements


def _sequence(values: list[Any], annotation: Any) -> Any:
    kind, wanted = kind_of(annotation), typing.get_args(annotation)
    if kind is tuple and wanted and wanted[-1] is not Ellipsis:
        if len(values) != len(wanted):
            raise ValueError(f"holds {len(values)} values instead of {len(wanted)}")
        return tuple(map(from_text, values, wanted))
    element = wanted[0] if wanted else str
    converted = [from_text(value, element) for value in values]
    return kind(converted) if kind in (tuple, set, frozenset) else converted


def _object(text: str) -> dict[str, Any]:
    value = _parsed(text)
    if not isinstance(value, dict):
        raise ValueError('is not a JSON object such as {"key": "value"}')
    return value


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"is not JSON ({error})") from None


def _simple(text: str, kind: Any) -> Any:
    if kind is bool:
        if text.lower() in _BOOLEANS:
            return _BOOLEANS[text.lower()]
        raise ValueError("is neither true nor false")
    if kind in _SIMPLE:
        convert, problem = _SIMPLE[kind]
        try:
            return convert(text)
        except (ValueError, ArithmeticError):
            raise ValueError(problem) from None
    if isinstance(kind, type) and issubclass(kind, PurePath):
        return kind(text)
    if isinstance(kind, type) and issubclass(kind, Enum):
        for member in kind:
            if text in (member.name, str(member.value)):
                return member
        raise ValueError(f"is not one of {', '.join(member.name for member in kind)}")
    name = getattr(kind, "__name__", str(kind))
    raise ValueError(f"is text, and a {name} cannot be written as text; use it from Python")
