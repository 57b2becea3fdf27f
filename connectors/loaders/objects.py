"""Objects of other libraries, named in text as `package.module:Class`, with arguments as in JSON.

An object among arguments is `{"class": "package.module:Class", "args": {...}}`; without `args` that
is the class itself. `Class.method` names what makes an object in another way.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date, time
from functools import reduce
from typing import Any

from contextframe_beam.connectors.identity import module_named
from contextframe_beam.errors import ConfigError, nearest

__all__ = ["build", "find", "first_parameter", "plain", "with_file"]

#: What stands for the path of a file among arguments.
FILE = "{file}"

_NAMES = {"class", "args"}


def find(spec: str) -> Any:
    """Returns what a text names.

    Args:
        spec: `package.module:Class`, `package.module:Class.method`, or a Python file in place of
            the module.

    Raises:
        ConfigError: there is no such thing, or its module cannot be imported.
    """
    where, colon, names = spec.rpartition(":")
    if not colon or not where or not names:
        raise ConfigError(f"{spec!r:.120} names nothing; write package.module:Class")
    module = module_named(where, spec)
    try:
        return reduce(getattr, names.split("."), module)
    except AttributeError:
        known = [name for name in vars(module) if not name.startswith("_")]
        hint = nearest(names, known) or ""
        raise ConfigError(f"{where} has no {names!r}{hint}") from None


def build(value: Any) -> Any:
    """Returns arguments with the objects that are described in them.

    Raises:
        ConfigError: a description is wrong, or an object cannot be made.
    """
    if isinstance(value, Mapping):
        if "class" in value and _NAMES.issuperset(value) and ":" in str(value["class"]):
            return _made(value)
        return {name: build(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [build(one) for one in value]
    return value


def _made(value: Mapping[str, Any]) -> Any:
    found = find(str(value["class"]))
    if "args" not in value:
        return found
    args = build(value["args"])
    try:
        return found(**args) if isinstance(args, Mapping) else found(*args)
    except Exception as error:
        raise ConfigError(
            f"{value['class']} cannot be made of {', '.join(map(str, args)) or 'nothing'}: "
            f"{type(error).__name__}: {error}"
        ) from error


def with_file(value: Any, path: Any) -> tuple[Any, bool]:
    """Returns arguments with a path where `{file}` stands, and whether it stands anywhere.

    Args:
        value: The arguments.
        path: The path.
    """
    if isinstance(value, str):
        return (path, True) if value == FILE else (value, False)
    if isinstance(value, Mapping):
        items = {name: with_file(one, path) for name, one in value.items()}
        return {name: one for name, (one, _) in items.items()}, any(
            is_in for _, is_in in items.values()
        )
    if isinstance(value, list | tuple):
        parts = [with_file(one, path) for one in value]
        return [one for one, _ in parts], any(is_in for _, is_in in parts)
    return value, False


def first_parameter(call: Callable[..., Any], names: Sequence[str]) -> str | None:
    """Returns the first of some names that a function or class has as a parameter; None of none."""
    try:
        known = inspect.signature(call).parameters
    except (TypeError, ValueError):
        return None
    return next((name for name in names if name in known), None)


def plain(value: Any) -> Any:
    """Returns a value as JSON has it; what JSON does not have becomes text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # of an enumeration, what it stands for
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, set | frozenset):
        return [plain(one) for one in sorted(value, key=str)]
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value)
