"""Names of a package that are imported when they are first used, rather than at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

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
