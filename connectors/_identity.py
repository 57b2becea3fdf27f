"""What makes a source itself: its class and the arguments that decide what is read.

Also how a constructor's arguments get their names, which `repr`, redaction and the command line
need as well.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Mapping
from datetime import date, time
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import PurePath
from types import MappingProxyType
from typing import Any
from uuid import UUID

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors._file_module import source_file
from contextframe_beam.connectors.plain_secrets import looks_secret, without_credentials
from contextframe_beam.shared_names import NARROWING

#: Arguments that change how a source is read but not which documents it has.
TUNING = frozenset(
    {
        "batch_size",
        "cache_ttl",
        "chunk_size",
        "enrichers",
        "full_sync",
        "log_level",
        "max_in_flight",
        "max_retries",
        "max_workers",
        "page_size",
        "per_page",
        "pool_size",
        "rate_limit",
        "redirect_uri",
        "requests_per_second",
        "retries",
        "retry_delay",
        "state_file",
        "timeout",
        "total_items",
        "verbose",
    }
)
#: The arguments of `partitions` and of a plan that a run gives by itself.
GIVEN_BY_RUN = frozenset({"resume_from", "known_states", "reached", "since", "until"})
#: The modules of our base classes, whose methods are nothing that an author wrote.
OURS = (f"{__package__}.base", f"{__package__}.kinds")

#: The group of entry points that names connectors.
GROUP = "contextframe.connectors"

_DEPTH_LIMIT = 20
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclasses.dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments a callable takes.

    Attributes:
        named: Each argument that can be given by name, in order.
        is_open: Whether it also takes any other name.
    """

    named: Mapping[str, inspect.Parameter]
    is_open: bool


@lru_cache(maxsize=512)
def constructor_arguments(cls: type) -> Arguments:
    """Returns what the constructor takes, with what its `**kwargs` passes on to base classes."""
    named: dict[str, inspect.Parameter] = {}
    is_open = False
    for owner in cls.__mro__:
        if "__init__" in vars(owner):
            found = arguments_of(vars(owner)["__init__"])
            named = {**found.named, **named}
            # A base class without arguments gets none: then the class keeps all names to itself.
            if not found.is_open:
                return Arguments(MappingProxyType(named), is_open and not found.named)
            is_open = True
    return Arguments(MappingProxyType(named), is_open)


def reading_arguments(cls: type) -> Arguments:
    """Returns what a connector class takes to read with, wherever its author wrote it.

    That is `sync_documents`, or what does its work: `sync_documents_stream` or `partitions`. What
    `partitions` gets from the run (states and the range of time) is none of them.
    """
    methods = reading_methods(cls)
    takes = [arguments_of(method) for method in methods]
    named = {
        name: one
        for method, found in reversed(list(zip(methods, takes, strict=True)))
        for name, one in found.named.items()
        if method.__name__ != "partitions" or name not in GIVEN_BY_RUN
    }
    return Arguments(MappingProxyType(named), all(found.is_open for found in takes))


def reading_methods(cls: type) -> list[Callable[..., Any]]:
    """Returns the methods whose arguments a connector class is read with."""
    names = ("sync_documents", "sync_documents_stream", "partitions")
    methods = [getattr(cls, name) for name in names if hasattr(cls, name)]
    return [one for one in methods if one.__module__ not in OURS] or methods


def arguments_of(function: Callable[..., Any]) -> Arguments:
    """Returns what a function or an unbound method takes, without `self`."""
    parameters = list(inspect.signature(function).parameters.values())
    if parameters and parameters[0].name in ("self", "cls"):
        del parameters[0]
    return Arguments(
        MappingProxyType({one.name: one for one in parameters if one.kind in _NAMED}),
        any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters),
    )


def named_arguments(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a constructor call by name; defaults are not added.

    A call that does not fit the signature gives what can be named.
    """
    constructor: Callable[..., Any] = cls.__init__  # type: ignore[misc]
    signature = inspect.signature(constructor)
    try:
        bound = signature.bind_partial(None, *args, **kwargs).arguments
    except TypeError:
        return dict(kwargs)
    named: dict[str, Any] = {}
    for name, value in list(bound.items())[1:]:
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            named.update(value)
        else:
            named[name] = value
    return named


def essential(values: Mapping[str, Any], known: Arguments) -> dict[str, Any]:
    """Returns the arguments that say which documents there are.

    Defaults are left out, so that a new argument of a later release changes no identity; so are
    secrets and what `TUNING` lists.
    """
    kept = {}
    for name, value in values.items():
        if name in TUNING or looks_secret(name):
            continue
        parameter = known.named.get(name)
        if parameter is not None and _same(value, parameter.default):
            continue
        kept[name] = value
    return kept


def without_narrowing(sync_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns arguments to read with, without those that only choose less of a source."""
    return {name: value for name, value in sync_kwargs.items() if name not in NARROWING}


def jsonable(value: Any) -> Any:
    """Returns a value as JSON values that are the same in every process, without secrets."""
    return _jsonable(value, 0, "")


def digest(identity: Mapping[str, Any]) -> str:
    """Returns 16 hexadecimal characters for an identity."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def class_path(cls: type) -> str:
    """Returns `module:Class`; for a class loaded from a file, `file.py:Class`."""
    file = source_file(cls)
    module = cls.__module__ if file is None else PurePath(file[0]).name
    return f"{module}:{cls.__qualname__}"


def registered_name(cls: type) -> str | None:
    """Returns the name a class is registered under, if it is."""
    path = f"{cls.__module__}:{cls.__qualname__}"
    found = (entry.name for entry in registered() if entry.value.replace(" ", "") == path)
    return next(found, None)


def registered() -> list[EntryPoint]:
    """Returns the entry points of connectors."""
    # An editable install and a copy beside it show the same entry point twice.
    found = {(one.name, one.value): one for one in entry_points(group=GROUP)}
    return list(found.values())


def _same(value: Any, default: Any) -> bool:
    try:
        return bool(value == default)
    except Exception:  # an array compares element by element
        return False


def _jsonable(value: Any, depth: int, name: str) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return _json_number(value)
    if isinstance(value, secrets.SecretReference):
        return None
    if isinstance(value, str):
        return without_credentials(str.__str__(value), name)
    simple = _as_text(value)
    if simple is not None:
        return simple
    if depth >= _DEPTH_LIMIT:
        return class_path(type(value))
    depth += 1
    if isinstance(value, Mapping):
        return {
            str(key): _jsonable(element, depth, str(key))
            for key, element in value.items()
            if not _is_secret(str(key), element)
        }
    if isinstance(value, list | tuple):
        return [_jsonable(element, depth, name) for element in value]
    if isinstance(value, set | frozenset):
        return sorted((_jsonable(element, depth, name) for element in value), key=json.dumps)
    if hasattr(value, "source_identity"):
        return value.source_identity()
    return {"class": class_path(type(value)), **_jsonable(_public_state(value), depth, "")}


def _json_number(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    return value.value if isinstance(value, Enum) else value


def _as_text(value: Any) -> str | None:
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, PurePath):
        return value.as_posix()
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, re.Pattern):
        return str(value.pattern)
    if isinstance(value, type):
        return class_path(value)
    if inspect.isroutine(value):
        return f"{value.__module__}:{value.__qualname__}"
    return None


def _public_state(value: Any) -> dict[str, Any]:
    state: dict[str, Any] = {}
    if dataclasses.is_dataclass(value):
        for one in dataclasses.fields(value):
            state[one.name] = getattr(value, one.name)
            # A default that became another one makes no other source.
            if "identity" in one.metadata and state[one.name] == one.default:
                state[one.name] = one.metadata["identity"]
    else:
        state = {name: getattr(value, name) for name in sorted(getattr(value, "__dict__", ()))}
    return {name: one for name, one in state.items() if not name.startswith("_")}


def _is_secret(name: str, value: Any) -> bool:
    return isinstance(value, secrets.SecretReference) or looks_secret(name)
