"""The identity of a source: its class, its file or package, and its arguments; and its errors.

The names of constructor arguments, which it finds, also serve `repr`, redaction and the command
line. The functions that call an author's code name the connector and the place in each error.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.abc
import importlib.util
import inspect
import json
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, time
from decimal import Decimal
from enum import Enum
from functools import lru_cache, reduce
from pathlib import Path, PurePath
from traceback import extract_tb
from types import CodeType, MappingProxyType, ModuleType
from typing import Any
from uuid import UUID

import contextframe_beam
from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.plain_secrets import looks_secret, without_credentials
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import ConfigError, ConnectorError, ContextFrameError
from contextframe_beam.lazy import registered
from contextframe_beam.store.runs import NARROWING

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
#: The arguments of `partitions` and of a plan that the run itself provides.
GIVEN_BY_RUN = frozenset(
    {"run", "resume_from", "known_states", "made_with", "anew", "since", "until"}
)
#: The modules of our base classes, whose methods do not count as an author's.
OURS = (f"{__package__}.base", f"{__package__}.kinds")

#: The group of entry points for connectors.
GROUP = "contextframe.connectors"

_DEPTH_LIMIT = 20
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclasses.dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of a callable.

    Attributes:
        named: The arguments that can be given by name, in order.
        is_open: Whether it also accepts any other name.
    """

    named: Mapping[str, inspect.Parameter]
    is_open: bool


@lru_cache(maxsize=512)
def constructor_arguments(cls: type) -> Arguments:
    """Returns the constructor's arguments, with those that `**kwargs` passes to base classes."""
    named: dict[str, inspect.Parameter] = {}
    is_open = False
    for owner in cls.__mro__:
        if "__init__" in vars(owner):
            found = arguments_of(vars(owner)["__init__"])
            # In the order in which a user meets them: first those of the class itself.
            named |= {name: one for name, one in found.named.items() if name not in named}
            # A base class without arguments gets none, so the class itself uses all names.
            if not found.is_open:
                return Arguments(MappingProxyType(named), is_open and not found.named)
            is_open = True
    return Arguments(MappingProxyType(named), is_open)


def reading_arguments(cls: type) -> Arguments:
    """Returns the arguments for reading a connector class, from the method that its author wrote.

    That is `sync_documents`, or the method in its place: `sync_documents_stream`, `partitions` or
    the `plan` of a connector of parts. What the run gives those (states and the range of time) is
    left out.
    """
    methods = reading_methods(cls)
    takes = [arguments_of(method) for method in methods]
    named = {
        name: one
        for method, found in reversed(list(zip(methods, takes, strict=True)))
        for name, one in found.named.items()
        if method.__name__ not in ("partitions", "plan") or name not in GIVEN_BY_RUN
    }
    return Arguments(MappingProxyType(named), all(found.is_open for found in takes))


def reading_methods(cls: type) -> list[Callable[..., Any]]:
    """Returns the methods that define the arguments for reading a connector class."""
    planner = ("plan",) if hasattr(cls, "read_part") else ()
    names = ("sync_documents", "sync_documents_stream", "partitions", *planner)
    methods = [getattr(cls, name) for name in names if hasattr(cls, name)]
    return [one for one in methods if one.__module__ not in OURS] or methods


def arguments_of(function: Callable[..., Any]) -> Arguments:
    """Returns the arguments of a function or an unbound method, without `self`."""
    parameters = list(inspect.signature(function).parameters.values())
    if parameters and parameters[0].name in ("self", "cls"):
        del parameters[0]
    return Arguments(
        MappingProxyType({one.name: one for one in parameters if one.kind in _NAMED}),
        any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters),
    )


def named_arguments(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a constructor call by name; defaults are not added.

    For a call that does not fit the signature, it returns those that it can name.
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
    """Returns the arguments that decide which documents there are.

    Defaults are left out, so that a new argument in a later release does not change identities.
    Secrets and the names in `TUNING` are left out too.
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
    """Returns reading arguments without those that only select a part of a source."""
    return {name: value for name, value in sync_kwargs.items() if name not in NARROWING}


def jsonable(value: Any) -> Any:
    """Returns a value as JSON values that are the same in every process, without secrets."""
    return _jsonable(value, 0, "")


def digest(identity: Mapping[str, Any]) -> str:
    """Returns 16 hexadecimal characters for an identity."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def class_path(cls: type) -> str:
    """Returns `module:Class`, or `file.py:Class` for a class from a file."""
    file = source_file(cls)
    module = cls.__module__ if file is None else PurePath(file[0]).name
    return f"{module}:{cls.__qualname__}"


def registered_name(cls: type) -> str | None:
    """Returns the registered name of a class, or None."""
    return _registered_name(cls, tuple(sys.path))


@lru_cache(maxsize=256)
def _registered_name(cls: type, _: tuple[str, ...]) -> str | None:
    # All that is installed is looked through, which takes 8 ms of each object that asks its name.
    path = f"{cls.__module__}:{cls.__qualname__}"
    found = (entry.name for entry in registered(GROUP) if entry.value.replace(" ", "") == path)
    return next(found, None)


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
            # A changed default must not change the source's identity.
            if "identity" in one.metadata and state[one.name] == one.default:
                state[one.name] = one.metadata["identity"]
    else:
        state = {name: getattr(value, name) for name in sorted(getattr(value, "__dict__", ()))}
    return {name: one for name, one in state.items() if not name.startswith("_")}


def _is_secret(name: str, value: Any) -> bool:
    return isinstance(value, secrets.SecretReference) or looks_secret(name)


_PREFIX = "_contextframe_file_"


class _TextLoader(importlib.abc.InspectLoader):
    """Runs a module's text; `get_source` lets tracebacks show its lines without the file."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text

    def get_source(self, fullname: str) -> str:
        return self.text

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = compile(self.text, self.path, "exec", dont_inherit=True)
        return code


class FileClass:
    """A class from a file, pickled as the file's path and text; calling it makes an instance."""

    def __init__(self, path: str, text: str, qualname: str) -> None:
        self.path = path
        self.text = text
        self.qualname = qualname

    def load(self) -> Any:
        """Returns the class itself."""
        return reduce(getattr, self.qualname.split("."), module_of(self.path, self.text))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.load()(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        # Unpickling gives the class and loads its module, so other objects can refer to it.
        return _load, (self.path, self.text, self.qualname)


def read_module(path: str) -> ModuleType:
    """Loads a Python file.

    Raises:
        ConfigError: there is no such file, it cannot be read, or it cannot be imported.
    """
    file = Path(path).expanduser()
    try:
        text = importlib.util.decode_source(file.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"cannot read {path} ({error.strerror}); give an existing file as "
            "path/to/file.py:ClassName"
        ) from error
    except (UnicodeDecodeError, SyntaxError) as error:
        raise ConfigError(f"{path} is not a Python file: {error}") from error
    try:
        return module_of(str(file.resolve()), text)
    except Exception as error:
        raise ConfigError(f"cannot import {path}: {type(error).__name__}: {error}") from error


def module_named(where: str, spec: str) -> ModuleType:
    """Returns the module that a user names.

    Args:
        where: Its name, or the path of a Python file.
        spec: What the user wrote, for messages.

    Raises:
        ConfigError: there is no such module or file, or it cannot be imported.
    """
    if where.endswith(".py"):
        return read_module(where)
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{where}.".startswith(f"{error.name}."):
            raise ConfigError(f"{spec}: importing {where} failed: {error}") from error
        raise ConfigError(
            f"{spec}: there is no module {error.name!r}; install its package, put its folder on "
            "PYTHONPATH, or give path/to/file.py:Class"
        ) from error
    except Exception as error:
        raise ConfigError(
            f"{spec}: importing {where} failed: {type(error).__name__}: {error}"
        ) from error


def module_of(path: str, text: str) -> ModuleType:
    """Returns the module with this path and text; runs it the first time in this process."""
    stem = re.sub(r"\W", "_", Path(path).stem)
    digest = hashlib.sha256(f"{path}\0{text}".encode("utf-8", "surrogatepass")).hexdigest()
    name = f"{_PREFIX}{stem}_{digest[:16]}"
    module = sys.modules.get(name)
    if module is not None:
        return module
    spec = importlib.util.spec_from_loader(name, _TextLoader(path, text), origin=path)
    assert spec is not None and spec.loader is not None
    spec.has_location = True
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def source_file(cls: type) -> tuple[str, str] | None:
    """Returns the path and text of the file that `cls` was loaded from by path, or None."""
    if not cls.__module__.startswith(_PREFIX):
        return None
    loader = getattr(sys.modules.get(cls.__module__), "__loader__", None)
    return (loader.path, loader.text) if isinstance(loader, _TextLoader) else None


def _load(path: str, text: str, qualname: str) -> Any:
    return FileClass(path, text, qualname).load()


def guarded(connector: Any, partition: str, where: str, call: Callable[[], Any]) -> Any:
    """Returns the result of `call`.

    Raises:
        ConnectorError: `call` raised; the message names the connector, partition and position.
    """
    try:
        return call()
    except ConfigError:
        raise
    except Exception as error:
        problem = _problem(connector, partition, where, error)
        raise problem from problem.__cause__


def each(
    connector: Any, partition: str, where: Callable[[int], str], items: Iterable[Any]
) -> Iterator[Any]:
    """Yields the items.

    Raises:
        ConnectorError: the iterable raised; the message names the connector, partition and place.
    """
    count = 0
    try:
        for item in items:
            yield item
            count += 1
    except ConfigError:
        raise
    except Exception as error:
        problem = _problem(connector, partition, where(count), error)
        raise problem from problem.__cause__


def checked_items(items: Any, connector: Any, what: str) -> Iterable[Any]:
    """Returns the items from a connector.

    Args:
        items: The value from the connector.
        connector: The connector.
        what: The method, as in `sync_documents returned`.

    Raises:
        ConnectorError: the value cannot contain items. A text and a dict can be iterated over too,
            but their letters and keys are not items.
    """
    if items is None:
        said = "None; return the items, [] when there are none"
    elif isinstance(items, Mapping):
        lists = [str(name) for name, value in items.items() if isinstance(value, list)]
        hint = f" (its field {lists[0]!r} holds one)" if len(lists) == 1 else ""
        said = f"a {type(items).__name__}; return a list of items{hint}, [item] for a single one"
    elif isinstance(items, str | bytes | bytearray | type) or not isinstance(items, Iterable):
        said = f"{_a(items)}; return a list of items, [item] for a single one"
    else:
        return items
    raise ConnectorError(redact(f"{connector.name}: {what} {said}"))


def _a(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def whole_number(value: Any, what: str, least: int = 0) -> int:
    """Returns `value`, checked to be an integer of at least `least`.

    Raises:
        ConnectorError: it is not; `what` names it.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConnectorError(f"{what} is {value!r}; it must be a whole number, {least} or more")
    return value


def shown(cursor: Any) -> str:
    """Returns a cursor for a message: without secrets, and not too long."""
    text = redact(cursor if isinstance(cursor, str) else repr(cursor))
    return text if len(text) <= 200 else text[:200] + "..."


def page_name(connector: Any, partition: Any, cursor: Any) -> str:
    """Returns the name of a page for messages, as in the request to the source if it is known."""
    own = getattr(connector, "_page_name", None)
    if own is not None:
        return str(own(partition, cursor))
    return "first page" if cursor is None else f"page {shown(cursor)}"


def _problem(connector: Any, partition: str, where: str, error: Exception) -> ConnectorError:
    is_ours = isinstance(error, ContextFrameError)
    if is_ours and where.endswith("()"):
        where = ""  # which method it was helps only who has to correct it
    what = str(error) if is_ours else with_line(error)
    place = ", ".join(filter(None, [partition and f"partition {partition}", where]))
    problem = ConnectorError(redact(": ".join(filter(None, [connector.name, place, what]))))
    trace = "".join(traceback.format_exception(error))
    # A runner also prints the cause, which may show a secret.
    problem.__cause__ = error if redact(trace) == trace else None
    return problem


_FRAME = re.compile(r'^\s*File "(?P<file>[^"\n]+)", line (?P<line>\d+)', re.MULTILINE)
# The standard library, installed packages, and this package, whose folders are links.
_STANDARD = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))
_INSTALLED = tuple(sysconfig.get_path(name) for name in ("purelib", "platlib"))
_PACKAGE = Path(contextframe_beam.__file__).parent
_OURS = tuple(
    (_PACKAGE / name).resolve() for name in (".", "connectors", "transforms", "pipelines")
)


def line_of(error: BaseException) -> str:
    """Returns the innermost line of a user's file in a traceback, or ""."""
    return _line((frame.filename, frame.lineno or 0) for frame in extract_tb(error.__traceback__))


def line_in(trace: str) -> str:
    """Returns the same for a traceback as Python prints it."""
    return _line((match["file"], int(match["line"])) for match in _FRAME.finditer(trace))


def with_line(error: BaseException) -> str:
    """Returns an exception with the user's line, as in `KeyError: 'a' (crm.py, line 2)`."""
    try:
        text = str(error)
    except Exception:  # its class cannot turn it into text
        text = ""
    told = f"{type(error).__name__}: {text}" if text else type(error).__name__
    line = line_of(error)
    return f"{told} ({line})" if line else told


def _line(frames: Iterable[tuple[str, int]]) -> str:
    found = [(file, line) for file, line in frames if _is_a_users(file)]
    if not found:
        return ""
    # A connector may call installed code; the line of its author comes first.
    own = [one for one in found if not one[0].startswith(_INSTALLED)] or found
    file, line = own[-1]
    return f"{os.path.basename(file)}, line {line}"


@lru_cache(maxsize=1024)
def _is_a_users(file: str) -> bool:
    if file.startswith("<"):
        return False
    if "apache_beam" in Path(file).parts:
        return False
    if file.startswith(_STANDARD) and not file.startswith(_INSTALLED):
        return False
    whole = Path(file).resolve()
    return not any(whole.is_relative_to(folder) for folder in _OURS)
