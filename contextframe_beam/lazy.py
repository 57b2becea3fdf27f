"""What is imported late: names of a package, classes by name, entry points, libraries of extras."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from contextframe_beam.errors import ConfigError, nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def lazy_names(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns the `__getattr__` and `__dir__` of a package (PEP 562).

    Args:
        package: The package's `__name__`.
        homes: Modules of the package, each with its names for the package.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name)
        value = getattr(import_module(f"{package}.{home_of[name]}"), name)
        vars(sys.modules[package])[name] = value
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home_of})

    return get, names


@contextmanager
def left_out(*modules: str) -> Iterator[None]:
    """Lets imports in the block fail that another package tries and does without.

    Modules that are there already stay, and after the block any can be imported.
    """
    known = cast("dict[str, Any]", sys.modules)
    missing = [one for one in modules if one not in known]
    known.update(dict.fromkeys(missing))
    try:
        yield
    finally:
        for one in missing:
            del known[one]


def named(path: str, kind: str) -> Any:
    """Returns what `package.module:Class` names.

    Args:
        path: The module, and a name in it, which may have dots.
        kind: What it is to be, for messages, as in `parser`.

    Raises:
        ConfigError: it does not exist, or its module cannot be imported.
    """
    module_name, _, qualname = path.partition(":")
    if not module_name or not qualname:
        raise ConfigError(f"{path!r} names no {kind}: write package.module:Class")
    try:
        found: Any = import_module(module_name)
    except Exception as error:  # what an author's module raises when it is imported
        raise ConfigError(
            f"the {kind} {path}: importing {module_name} failed ({type(error).__name__}: "
            f"{error}); install its package, or put its folder on PYTHONPATH"
        ) from error
    for part in qualname.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{module_name} has no {qualname!r}{nearest(part, dir(found))}")
        found = getattr(found, part)
    return found


def missing_extra(what: str, extra: str, error: ImportError | None = None) -> ConfigError:
    """Returns the error for something whose library comes with an extra and is not installed.

    Args:
        what: What needs it, as in `the embedder wordllama`.
        extra: The extra that brings it.
        error: What importing it said.
    """
    why = f" ({error})" if error is not None else ""
    return ConfigError(
        f"{what} needs packages that are not installed{why}; run: "
        f"pip install 'contextframe-beam[{extra}]', on the machines of the workers too"
    )


def registered(group: str) -> list[EntryPoint]:
    """Returns the entry points of a group, each once, by name."""
    # An editable install and a copy beside it show the same entry point twice.
    found = {(one.name, one.value): one for one in _installed(_folders()).select(group=group)}
    return [found[key] for key in sorted(found)]


@lru_cache(maxsize=1)
def _installed(folders: tuple[tuple[str, float], ...]) -> Any:
    """Returns all entry points; to find them, a file of each package in the folders is read."""
    # Imported here, because this module comes with every part of the package.
    from importlib.metadata import entry_points

    return entry_points()


def _folders() -> tuple[tuple[str, float], ...]:
    """Returns where Python looks for packages, and when something was installed there last."""
    return tuple(
        (one, os.stat(one or ".").st_mtime if os.path.exists(one or ".") else 0.0)
        for one in sys.path
    )
