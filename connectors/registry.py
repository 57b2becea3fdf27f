"""Connectors by name: finds a class, lists its arguments, and makes a connector from text.

A connector is named by its entry point (group `contextframe.connectors`), by
`package.module:Class`, or by `path/to/file.py:Class`.
"""

from __future__ import annotations

import collections.abc as abc
import contextlib
import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from functools import reduce
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path, PurePath
from types import ModuleType, SimpleNamespace
from typing import Any, Literal, TypeVar, Union
from uuid import UUID

from contextframe_beam.connectors import identity, secrets
from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.identity import (
    Arguments,
    constructor_arguments,
    line_of,
    module_named,
    read_module,
    reading_arguments,
    reading_methods,
    with_line,
)
from contextframe_beam.connectors.plain_secrets import looks_secret
from contextframe_beam.connectors.secrets import is_reference
from contextframe_beam.errors import ConfigError, ContextFrameError, nearest
from contextframe_beam.lazy import registered

GROUP = identity.GROUP
registered_name = identity.registered_name


@dataclass(frozen=True, slots=True)
class ConnectorInfo:
    """A registered connector.

    Attributes:
        name: Its name.
        class_path: `package.module:Class`.
        distribution: The distribution that brings it, and its version.
        version: The version of that distribution.
        summary: The first line of its documentation.
        error: Why it cannot be loaded; "" if it can.
    """

    name: str
    class_path: str
    distribution: str
    version: str
    summary: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument of a connector, as the command line shows it.

    Attributes:
        name: Its name.
        annotation: Its type; `Any` if it has no annotation.
        default: Its default; None if it is required.
        required: Whether it is required.
        help: Its text in the author's docstring.
        secret: Whether it usually contains a secret, and should be given as a reference.
    """

    name: str
    annotation: Any
    default: Any
    required: bool
    help: str
    secret: bool


def load_connector_class(spec: str) -> type[BaseConnector]:
    """Returns the connector class with this name.

    Args:
        spec: A registered name, `package.module:Class`, or `path/to/file.py:Class`.

    Raises:
        ConfigError: there is no such class, or it cannot be imported.
    """
    where, _, qualname = spec.rpartition(":")
    if where.endswith(".py") or spec.endswith(".py"):
        if not where.endswith(".py"):
            where, qualname = spec, ""
        return _class_in(read_module(where), qualname, where)
    if where:
        return _class_in(module_named(where, spec), qualname, where)
    return _load_entry_point(spec)


def list_connectors() -> list[ConnectorInfo]:
    """Returns all registered connectors by name; `error` says why one cannot be loaded."""
    return [_info(entry) for entry in registered(GROUP)]


def connector_parameters(cls: type[BaseConnector]) -> list[Parameter]:
    """Returns the constructor's arguments, including those of base classes behind `**kwargs`."""
    docs = [text for one in cls.__mro__ for text in _own_docs(one)]
    hints: dict[str, Any] = {}
    for owner in reversed(cls.__mro__):
        if "__init__" in vars(owner):
            hints.update(_hints(vars(owner)["__init__"]))
    return _parameters(constructor_arguments(cls), hints, docs, cls.plain_arguments)


_EVERY_RUN = ("full_sync", "resume_from")


def sync_parameters(cls: type[BaseConnector]) -> list[Parameter]:
    """Returns the arguments for reading: those of `sync_documents`, or of the method in its place.

    They do not include `full_sync` and `resume_from`, which every run has.
    """
    takes = reading_arguments(cls)
    hints: dict[str, Any] = {}
    docs = []
    for method in reading_methods(cls):
        hints = {**_hints(method), **hints}
        docs.append(inspect.getdoc(method) or "")
    return [one for one in _parameters(takes, hints, docs) if one.name not in _EVERY_RUN]


def build_connector(cls: type[BaseConnector], arguments: Mapping[str, Any]) -> BaseConnector:
    """Makes a connector from arguments that may be text, as a command line has them.

    Args:
        cls: The class.
        arguments: Values by name. Text is converted to the annotated type; references to secrets
            and values of other types are passed on as they are.

    Raises:
        ConfigError: an argument is unknown, missing, or not of its type; or the class refuses it.
    """
    takes = constructor_arguments(cls)
    values = convert_arguments(
        arguments, connector_parameters(cls), takes.is_open, f"the connector {cls.__name__}"
    )
    try:
        return cls(**values)
    except ContextFrameError:
        raise
    except (TypeError, ValueError) as error:
        # Most authors refuse an argument with one of these.
        line = line_of(error)
        where = f" ({line})" if line else ""
        raise ConfigError(secrets.redact(f"{cls.__name__}: {error}{where}")) from error
    except Exception as error:
        raise ConfigError(
            secrets.redact(f"{cls.__name__} cannot be made: {with_line(error)}")
        ) from error


def convert_arguments(
    arguments: Mapping[str, Any], parameters: Iterable[Parameter], is_open: bool, whose: str
) -> dict[str, Any]:
    """Returns arguments with text converted to the annotated types.

    Args:
        arguments: Values by name.
        parameters: The known parameters.
        is_open: Whether other names are accepted too; their text stays text.
        whose: The owner of the parameters, for messages.

    Raises:
        ConfigError: an argument is unknown, missing, or not of its type.
    """
    known = {one.name: one for one in parameters}
    values = {}
    for name, value in arguments.items():
        parameter = known.get(name)
        if parameter is None:
            if not is_open:
                raise ConfigError(_unknown(f"{whose} takes no argument {name!r}", name, known))
            values[name] = value
        else:
            values[name] = _converted(parameter, value, whose)
    missing = [one.name for one in known.values() if one.required and one.name not in values]
    if missing:
        raise ConfigError(f"{whose} needs {' and '.join(missing)}")
    return values


def _converted(parameter: Parameter, value: Any, whose: str) -> Any:
    try:
        return from_text(value, parameter.annotation, parameter.default)
    except ValueError as error:
        shown = "the value given" if parameter.secret else repr(value)
        raise ConfigError(f"{parameter.name} of {whose}: {shown} {error}") from None


def _parameters(
    takes: Arguments,
    hints: dict[str, Any],
    docs: list[str],
    plain: frozenset[str] = frozenset(),
) -> list[Parameter]:
    texts: dict[str, str] = {}
    for text in docs:
        for name, described in argument_help(text).items():
            texts.setdefault(name, described)
    return [
        Parameter(
            name=name,
            annotation=_annotation(one, hints),
            default=None if one.default is inspect.Parameter.empty else one.default,
            required=one.default is inspect.Parameter.empty,
            help=texts.get(name, ""),
            secret=looks_secret(name) and name not in plain,
        )
        for name, one in takes.named.items()
    ]


def _annotation(one: inspect.Parameter, hints: dict[str, Any]) -> Any:
    if one.name in hints:
        return hints[one.name]
    if one.annotation is inspect.Parameter.empty or isinstance(one.annotation, str):
        return Any
    return one.annotation


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        # One at a time, so that a name which is only imported for type checkers makes only its own
        # argument's type unknown.
        with contextlib.suppress(Exception):
            alone = SimpleNamespace(__annotations__={name: annotation})
            space = getattr(function, "__globals__", None)
            hints.update(typing.get_type_hints(alone, space, include_extras=True))
    return hints


def _own_docs(cls: type) -> list[str]:
    constructor = vars(cls).get("__init__")
    texts = [cls.__doc__, getattr(constructor, "__doc__", None)]
    return [inspect.cleandoc(text) for text in texts if text]


def argument_help(docstring: str) -> dict[str, str]:
    """Returns the texts of the `Args:` section of a Google-style docstring, by argument."""
    section = re.search(r"^Arg(?:ument)?s:[ \t]*\n((?:[ \t]+.*\n?|[ \t]*\n)*)", docstring, re.M)
    if section is None:
        return {}
    lines = inspect.cleandoc("\n" + section[1]).splitlines()
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in lines:
        start = re.match(r"\*{0,2}(\w+)(?:\s*\(.*?\))?\s*:\s*(.*)", line)
        if start:
            current = found.setdefault(start[1], [start[2]])
        else:
            current.append(line.strip())
    return {name: " ".join(" ".join(parts).split()) for name, parts in found.items()}


def _load_entry_point(name: str) -> type[BaseConnector]:
    known_ones = registered(GROUP)
    matches = [entry for entry in known_ones if entry.name == name]
    if not matches:
        known = sorted({entry.name for entry in known_ones})
        raise ConfigError(
            _unknown(f"there is no connector {name!r}", name, known)
            + "; one of your own is given as package.module:Class or path/to/file.py:Class"
        )
    if len(matches) > 1:
        sources = ", ".join(f"{_distribution(one)[0]} ({one.value})" for one in matches)
        raise ConfigError(
            f"the connector {name!r} is registered more than once, by {sources}; uninstall one, "
            "or give the class as package.module:Class"
        )
    return _load(matches[0])


def _load(entry: EntryPoint) -> type[BaseConnector]:
    distribution, version = _distribution(entry)
    try:
        module = import_module(entry.module)
    except Exception as error:
        raise ConfigError(
            f"the connector {entry.name!r} of {distribution} {version} cannot be imported: "
            f"{type(error).__name__}: {error}; reinstall or update that package"
        ) from error
    return _class_in(module, entry.attr, entry.module)


def _info(entry: EntryPoint) -> ConnectorInfo:
    distribution, version = _distribution(entry)
    summary, error = _written_summary(entry), ""
    if not summary:
        try:
            doc = inspect.getdoc(_load(entry)) or ""
            summary = doc.strip().split("\n", 1)[0]
        except ConfigError as failure:
            error = str(failure)
    return ConnectorInfo(entry.name, entry.value, distribution, version, summary, error)


def _written_summary(entry: EntryPoint) -> str:
    """Returns the summary of a connector of this package as its file has it; "" of any other.

    All of them are listed by the help, which would import Lance and more for that. Others are
    imported: only so it is known whether they can be.
    """
    package, *parts = entry.module.split(".")
    if package != __name__.partition(".")[0]:
        return ""
    path = Path(sys.modules[package].__path__[0], *parts).with_suffix(".py")
    if not path.exists():
        return ""
    pattern = rf'^class {re.escape(entry.attr)}\b[^:]*:\n +[rR]?"""([^\n"]+)'
    found = re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1].strip() if found else ""


def _distribution(entry: EntryPoint) -> tuple[str, str]:
    owner = entry.dist
    return ("an unknown package", "") if owner is None else (owner.name, owner.version)


def _class_in(module: ModuleType, qualname: str, where: str) -> type[BaseConnector]:
    own = [
        value.__qualname__
        for value in vars(module).values()
        if _is_connector(value) and value.__module__ == module.__name__
    ]
    if not qualname:
        raise ConfigError(f"say which class of {where} is meant: {_choices(where, own)}")
    try:
        found = reduce(getattr, qualname.split("."), module)
    except AttributeError:
        raise ConfigError(_unknown(f"{where} has no class {qualname!r}", qualname, own)) from None
    if not _is_connector(found):
        raise ConfigError(
            f"{where}:{qualname} is not a connector: derive it from BaseConnector "
            "(contextframe_beam.connectors.base)"
        )
    return typing.cast("type[BaseConnector]", found)


def _is_connector(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseConnector)


def _choices(where: str, known: list[str]) -> str:
    return ", ".join(f"{where}:{name}" for name in known) or "it defines no connector"


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Returns a message with the nearest known name and all of them."""
    names = list(known)
    there_are = f" (there are: {', '.join(names)})" if names else " (there are none)"
    return f"{what}{nearest(name, names)}{there_are}"


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
    """Returns `value` converted to its annotation.

    Args:
        value: Text, or a list of texts for an argument with several values. References to secrets
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
    """Returns the types that a value may have: the members of a union, or only the annotation."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return members_of(typing.get_args(annotation)[0])
    if origin in _UNIONS:
        return [one for part in typing.get_args(annotation) for one in members_of(part)]
    return [annotation]


def kind_of(annotation: Any) -> Any:
    """Returns the class of an annotation, without the types of its elements."""
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
        # If text is allowed, only text that is clearly a list or an object becomes one.
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
        raise ValueError("is not true or false")
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
